//! Applying models, in batches.
//!
//! Owns the two kernels of models: prediction and explanation. Requests for one model and one kind of answer are launched
//! together; rows stay in the columns or buffers of their callers, and a large request is split by ranges of rows without
//! copying them. Separate from the models themselves, which are pure.
//!
//! Bounded by the policies in [`crate::Kernels`]. On failure: `invalid` for rows that do not fit the model, for that request
//! alone.

use std::sync::Arc;

use mainstay_arrays::{Column, Numbers};
use mainstay_base::{Error, Result};
use mainstay_models::explain::Explainer;
use mainstay_models::{Output, Rows};

use crate::batcher::{Batch, Kernel};
use crate::loaded::Loaded;

/// Rows of a request, where they lie.
#[derive(Clone, Debug)]
pub enum HeldRows {
    /// A column for each feature.
    Columns(Vec<Column>),
    /// Row after row.
    F32 {
        /// `rows` times `features` values.
        values: Arc<[f32]>,
        /// Values in each row.
        features: usize,
    },
    /// Row after row.
    F64 {
        /// `rows` times `features` values.
        values: Arc<[f64]>,
        /// Values in each row.
        features: usize,
    },
}

impl HeldRows {
    /// How many rows there are; a rest that is no whole row is found when they are read.
    pub fn count(&self) -> usize {
        match self {
            HeldRows::Columns(columns) => columns.first().map_or(0, Column::len),
            HeldRows::F32 { values, features } => values.len() / (*features).max(1),
            HeldRows::F64 { values, features } => values.len() / (*features).max(1),
        }
    }

    fn view<T>(&self, act: impl FnOnce(&Rows<'_>) -> Result<T>) -> Result<T> {
        match self {
            HeldRows::Columns(columns) => {
                let numbers: Vec<Numbers<'_>> = columns.iter().map(Column::numbers).collect::<Result<_>>()?;
                act(&Rows::Columns(&numbers))
            }
            HeldRows::F32 { values, features } => act(&Rows::F32 { values, features: *features }),
            HeldRows::F64 { values, features } => act(&Rows::F64 { values, features: *features }),
        }
    }

    /// An explainer against these rows as a background.
    pub(crate) fn background(&self, loaded: &Loaded) -> Result<Explainer> {
        self.view(|rows| Explainer::against(loaded.forest()?, rows))
    }
}

/// Rows to be predicted.
pub(crate) struct PredictRequest {
    pub model: Arc<Loaded>,
    pub rows: HeldRows,
    pub output: Output,
}

/// The kernel of predictions. Answers row after row.
pub(crate) struct Predict;

impl Kernel for Predict {
    /// The model's number and what is asked of it.
    type Shape = (u64, u8);
    type Request = PredictRequest;
    type Answer = Vec<f64>;

    fn name(&self) -> &str {
        "predict"
    }

    fn shape(&self, request: &PredictRequest) -> (u64, u8) {
        (request.model.number(), request.output as u8)
    }

    fn rows(&self, request: &PredictRequest) -> usize {
        request.rows.count()
    }

    fn launch(&self, batch: &Batch<'_, Self>, answers: &mut Vec<Result<Vec<f64>>>) {
        answers.extend(batch.iter().map(|part| {
            let PredictRequest { model, rows, output } = part.request;
            let width = model.model().width(*output)?;
            let places = part.rows.len().checked_mul(width);
            let mut out = vec![0.0; places.ok_or_else(|| Error::exhausted("the answer has no room in memory"))?];
            rows.view(|rows| model.model().predict_range(rows, part.rows.clone(), *output, &mut out))?;
            Ok(out)
        }));
    }

    fn assemble(&self, _request: &PredictRequest, answers: Vec<Vec<f64>>) -> Result<Vec<f64>> {
        Ok(answers.concat())
    }
}

/// Rows to be explained.
pub(crate) struct ExplainRequest {
    pub model: Arc<Loaded>,
    pub explainer: Arc<Explainer>,
    pub rows: HeldRows,
}

/// The kernel of explanations. Answers rows by outputs by features.
pub(crate) struct Explain;

impl Kernel for Explain {
    /// The model's number, and where its explainer lies: another background is another one.
    type Shape = (u64, usize);
    type Request = ExplainRequest;
    type Answer = Vec<f64>;

    fn name(&self) -> &str {
        "explain"
    }

    fn shape(&self, request: &ExplainRequest) -> (u64, usize) {
        (request.model.number(), Arc::as_ptr(&request.explainer).addr())
    }

    fn rows(&self, request: &ExplainRequest) -> usize {
        request.rows.count()
    }

    fn is_divisible(&self) -> bool {
        false
    }

    fn launch(&self, batch: &Batch<'_, Self>, answers: &mut Vec<Result<Vec<f64>>>) {
        answers.extend(batch.iter().map(|part| {
            let ExplainRequest { explainer, rows, model } = part.request;
            let width = model.model().features().len().checked_mul(explainer.expected_values().len());
            let places = width.and_then(|width| width.checked_mul(rows.count()));
            let mut out = vec![0.0; places.ok_or_else(|| Error::exhausted("the answer has no room in memory"))?];
            rows.view(|rows| explainer.explain(rows, &mut out))?;
            Ok(out)
        }));
    }
}
