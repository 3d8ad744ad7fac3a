//! Models that are files, loaded and applied by the host.
//!
//! Owns [`Model`], a handle that lives as long as the call; the host keeps the model itself, so loading it again finds it
//! loaded. Needs the capabilities `models` and `arrays`. Bounded by: 64 models a call. On failure: the host's typed error; a
//! file that is no model names the place.

use crate::columns::{Column, Frame};
use crate::{Result, sys};

pub use crate::sys::bindings::mainstay::numeric::models::Output;

/// A loaded model.
#[derive(Debug)]
pub struct Model(sys::Model);

impl Model {
    /// Load the model in a blob that one of the plugin's names refers to.
    pub fn load(sha256: &str) -> Result<Model> {
        Ok(Model(sys::Model::load(sha256)?))
    }

    /// What it was made by, for example `xgboost`.
    pub fn format(&self) -> String {
        self.0.format()
    }

    /// Names of its features, in order.
    pub fn features(&self) -> Vec<String> {
        self.0.features()
    }

    /// Columns of [`Output::Score`]: 1, or one for each class.
    pub fn outputs(&self) -> u32 {
        self.0.outputs()
    }

    /// Apply it to each row.
    pub fn predict(&self, rows: &Frame, what: Output) -> Result<Vec<Column>> {
        Ok(self.0.predict(&rows.0, what)?.into_iter().map(Column).collect())
    }

    /// What each feature adds to the raw output of each row, and last the expected value: for each output in turn.
    pub fn explain(&self, rows: &Frame, background: Option<&Frame>) -> Result<Vec<Column>> {
        let background = background.map(|frame| &frame.0);
        Ok(self.0.explain(&rows.0, background)?.into_iter().map(Column).collect())
    }
}
