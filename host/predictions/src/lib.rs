//! Logs of predictions: what a model saw and answered, and what became true of it later.
//!
//! Owns [`Predictions`]: a log is two tables, `NAME_predictions` and `NAME_outcomes`. A prediction is written behind its answer,
//! sampled by a share, with what the model saw after pre-processing. Outcomes (labels, or what a business counts) are posted
//! later by the prediction's id. [`Log::labelled`] joins the two: each prediction stands there once, with at most one outcome,
//! however late, repeated or out of order outcomes came. Separate from the tables, which know no such meaning, and from the
//! traffic that fills it.
//!
//! Bounded by [`limits`] and by the tables. On failure: a prediction that cannot be kept is dropped and counted, because it
//! must not hold an answer back; everything that is posted is durable when it is acknowledged, or an error.
#![forbid(unsafe_code)]

mod join;
pub mod limits;
mod log;
mod rows;
mod spec;
mod writer;

pub use join::{Labelled, LabelledQuery};
pub use log::{Log, Predictions};
pub use rows::{Outcome, Prediction, Scalar};
pub use spec::{Field, FieldKind, LogSpec};
pub use writer::Written;
