//! Rules of the house that a reader would otherwise have to remember, each held by a test.
//!
//! One binary, a module a rule: [`archive`] over old packages, [`floors`] over `cargo metadata`, [`sources`] over every file, [`contract`] over the WIT and
//! its generated reference, [`guide`] over the author's first page. Bounded by: what is in the checkout. On failure: every
//! place that breaks the rule, and the rule.

mod archive;
mod contract;
mod floors;
mod guide;
mod sources;

use std::path::PathBuf;

/// The checkout.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout").to_path_buf()
}

/// Fail with all problems at once, so that one run tells everything.
#[track_caller]
fn refuse(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}
