//! Applying models, in batches.
//!
//! Owns the two kernels of models: prediction and explanation. Requests for one model and one kind of answer are launched
//! together; rows stay in the columns or buffers of their callers, and a large request is split by ranges of rows without
//! copying them. Separate from the models themselves, which are pure.
//!
//! Where a device was given, a batch is offered to it first; what it does not take is computed here, with the same bits.
//!
//! Bounded by the policies in [`crate::Kernels`]. On failure: `invalid` for rows that do not fit the model, for that request
//! alone.

use std::sync::Arc;

use mainstay_arrays::{Column, Numbers};
use mainstay_base::{Clock, Error, Result};
use mainstay_models::device::{Device, Part};
use mainstay_models::explain::Explainer;
use mainstay_models::{Output, Rows};

use crate::batcher::{Batch, Kernel};
use crate::loaded::{Loaded, Prepared};

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
        let numbers = self.numbers()?;
        act(&self.rows(&numbers))
    }

    /// An explainer against these rows as a background.
    pub(crate) fn background(&self, loaded: &Loaded) -> Result<Prepared> {
        self.view(|rows| Ok(Prepared::new(Explainer::against(loaded.forest()?, rows)?)))
    }

    /// What columns lend to a view of them; nothing for rows.
    fn numbers(&self) -> Result<Vec<Numbers<'_>>> {
        match self {
            HeldRows::Columns(columns) => columns.iter().map(Column::numbers).collect(),
            HeldRows::F32 { .. } | HeldRows::F64 { .. } => Ok(Vec::new()),
        }
    }

    fn rows<'a>(&'a self, numbers: &'a [Numbers<'a>]) -> Rows<'a> {
        match self {
            HeldRows::Columns(_) => Rows::Columns(numbers),
            HeldRows::F32 { values, features } => Rows::F32 { values, features: *features },
            HeldRows::F64 { values, features } => Rows::F64 { values, features: *features },
        }
    }
}

/// Where batches go that are worth it, and how long the others take here.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    pub device: Option<Arc<dyn Device>>,
    pub clock: Arc<dyn Clock>,
}

impl Elsewhere {
    /// Compute here; `tell` is told the device and the time it took.
    fn timed<T>(&self, act: impl FnOnce() -> T, tell: impl FnOnce(&dyn Device, u64)) -> T {
        let Some(device) = &self.device else { return act() };
        let began_ns = self.clock.monotonic_ns();
        let made = act();
        tell(&**device, self.clock.monotonic_ns().saturating_sub(began_ns));
        made
    }
}

/// Rows to be predicted.
pub(crate) struct PredictRequest {
    pub model: Arc<Loaded>,
    pub rows: HeldRows,
    pub output: Output,
}

/// The kernel of predictions. Answers row after row.
pub(crate) struct Predict(pub Elsewhere);

impl Predict {
    /// Raw outputs of a whole batch, row after row, if the device computes them. A batch with a part that does not fit the
    /// model is left to the processor, which says so to that part alone.
    fn raw(&self, batch: &Batch<'_, Self>) -> Option<Vec<f64>> {
        let device = self.0.device.as_ref()?;
        let first = batch.iter().next()?.request;
        let (loaded, features) = (&first.model, first.model.model().features().len());
        let forest = loaded.model().forest_behind(first.output)?;
        let numbers: Vec<_> = batch.iter().map(|part| part.request.rows.numbers()).collect::<Result<_>>().ok()?;
        let rows: Vec<Rows<'_>> =
            batch.iter().zip(&numbers).map(|(part, numbers)| part.request.rows.rows(numbers)).collect();
        let fits = |rows: &Rows<'_>| rows.features() == features && rows.count().is_ok();
        if !rows.iter().all(fits) {
            return None;
        }
        let parts: Vec<Part<'_>> =
            rows.iter().zip(batch.iter()).map(|(rows, part)| Part { rows, range: part.rows }).collect();
        let mut raw = vec![0.0; batch.rows().checked_mul(forest.outputs as usize)?];
        device.raw(loaded.number(), forest, &parts, &mut raw).then_some(raw)
    }

    fn predict(&self, batch: &Batch<'_, Self>, raw: Option<&[f64]>, answers: &mut Vec<Result<Vec<f64>>>) {
        let mut from = 0;
        answers.extend(batch.iter().map(|part| {
            let PredictRequest { model, rows, output } = part.request;
            let width = model.model().width(*output)?;
            let places = part.rows.len().checked_mul(width);
            let mut out = vec![0.0; places.ok_or_else(|| Error::exhausted("the answer has no room in memory"))?];
            let own = raw.map(|raw| {
                let count = raw.len() / batch.rows().max(1) * part.rows.len();
                from += count;
                &raw[from - count..from]
            });
            rows.view(|rows| model.model().predict_from(own, rows, part.rows.clone(), *output, &mut out))?;
            Ok(out)
        }));
    }
}

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
        if let Some(raw) = self.raw(batch) {
            return self.predict(batch, Some(&raw), answers);
        }
        let (number, rows) = (batch.shape().0, batch.rows());
        let tell = |device: &dyn Device, nanoseconds| device.predicted_here(number, rows, nanoseconds);
        self.0.timed(|| self.predict(batch, None, answers), tell);
    }

    fn assemble(&self, _request: &PredictRequest, answers: Vec<Vec<f64>>) -> Result<Vec<f64>> {
        Ok(answers.concat())
    }
}

/// Rows to be explained.
pub(crate) struct ExplainRequest {
    pub model: Arc<Loaded>,
    pub explainer: Arc<Prepared>,
    pub rows: HeldRows,
}

/// The kernel of explanations. Answers rows by outputs by features.
pub(crate) struct Explain(pub Elsewhere);

impl Kernel for Explain {
    /// The explainer's number: another background is another one.
    type Shape = u64;
    type Request = ExplainRequest;
    type Answer = Vec<f64>;

    fn name(&self) -> &str {
        "explain"
    }

    fn shape(&self, request: &ExplainRequest) -> u64 {
        request.explainer.number
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
            let Prepared { explainer, number } = &**explainer;
            let width = model.model().features().len().checked_mul(explainer.expected_values().len());
            let places = width.and_then(|width| width.checked_mul(rows.count()));
            let mut out = vec![0.0; places.ok_or_else(|| Error::exhausted("the answer has no room in memory"))?];
            rows.view(|rows| {
                let device = self.0.device.as_ref().filter(|_| rows.features() == model.model().features().len());
                if device.is_some_and(|device| device.explain(*number, explainer, rows, &mut out)) {
                    return Ok(());
                }
                let count = rows.count()?;
                let tell = |device: &dyn Device, nanoseconds| device.explained_here(*number, count, nanoseconds);
                self.0.timed(|| explainer.explain(rows, &mut out), tell)
            })?;
            Ok(out)
        }));
    }
}
