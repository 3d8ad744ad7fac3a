//! Imputation, scaling, encoding, bucketing and thresholds inside a model's graph.
//!
//! Owns nothing but the way from a node's settings to the SDK's steps ([`mainstay_sdk::tabular`]), which are fitted there or
//! imported from a scikit-learn pipeline. It computes by handle and has no right to read a value. Bounded by: the steps'
//! own limits. On failure: the step and the column, and the batch fails.

use mainstay_sdk::Result;
use mainstay_sdk::columns::Frame;
use mainstay_sdk::tabular::Steps;
use mainstay_sdk::transform::{Batch, Transform, settings};
use serde::Deserialize;

/// The plugin.
pub struct Tabular;

/// Settings of a node.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    steps: Steps,
}

impl Transform for Tabular {
    fn check(json: &str) -> Result<()> {
        settings::<Settings>(json)?.steps.check()
    }

    fn transform(batch: &Batch) -> Result<Frame> {
        batch.settings::<Settings>()?.steps.apply(batch.frame())
    }
}

mainstay_sdk::export_transform!(Tabular);
