//! Numeric work by handle: one batcher for serving, statistics and explanations.
//!
//! Owns [`Kernels`], the door: callers submit questions over columns that the host holds, and rows for models; what arrived
//! together is launched together, shared fairly between callers. The arithmetic is `mainstay-statistics` and
//! `mainstay-models`; here is when and where it runs. Separate from both so that they stay pure, and so that a device is one
//! more place to run a batch.
//!
//! Invariants: an answer does not depend on what else was in the batch; a caller that goes away takes its waiting work with
//! it; nothing is computed on the threads that serve requests or run components, but for questions of a few microseconds.
//!
//! Bounded by: the policy of each kernel and the bytes of the shelf of models. On failure: the question's own error; a full
//! queue is `exhausted`, a missed deadline `unavailable`.
#![forbid(unsafe_code)]

pub mod batcher;
mod loaded;
mod predict;
mod question;
pub mod stats;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mainstay_base::{Clock, Error, Result};
use mainstay_models::device::Device;
use mainstay_models::{Output, import};

pub use loaded::{Import, Loaded};
pub use predict::HeldRows;
pub use question::{Question, ROWS_MAX};

use batcher::{Ask, Batcher, Crew, Policy, Refusal, Stats};
use loaded::Shelf;
use predict::{Elsewhere, Explain, ExplainRequest, Predict, PredictRequest};
use question::{Questions, typed};

/// Questions of one call that wait or run at a time: the rest follows as they are answered, so that one call of many columns
/// does not fill the queue.
const IN_FLIGHT: usize = 256;
/// Rows that may wait at one kernel.
const QUEUE_ROWS: usize = u32::MAX as usize;

/// Rows of one launch of a model: small enough that one caller's flood costs another a few milliseconds, large enough that a
/// launch is worth it.
const BATCH_ROWS: usize = 4_096;

/// How big everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Compute threads.
    pub threads: usize,
    /// Bytes of models that are kept loaded.
    pub model_bytes: usize,
    /// The longest that a prediction is held for others to join it while the kernel is busy.
    pub max_delay: Duration,
}

impl Default for Options {
    /// A thread for each processor.
    fn default() -> Options {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Options { threads, model_bytes: 1 << 30, max_delay: Duration::from_millis(5) }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Kernels {
    inner: Arc<Inner>,
}

struct Inner {
    questions: Batcher<Questions>,
    predict: Batcher<Predict>,
    explain: Batcher<Explain>,
    shelf: Shelf,
    import: Box<Import>,
    /// Behind the batchers, which refuse what waits when it goes.
    _crew: Crew,
}

/// One who asks, with its share of every kernel. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    questions: batcher::Caller<Questions>,
    predict: batcher::Caller<Predict>,
    explain: batcher::Caller<Explain>,
    kernels: Kernels,
}

fn policy(threads: usize, max_rows: usize) -> Policy {
    Policy {
        max_rows,
        max_launches: threads,
        queue_requests: 65_536,
        caller_requests: 16_384,
        queue_rows: QUEUE_ROWS,
        caller_rows: QUEUE_ROWS,
        ..Policy::default()
    }
}

impl Kernels {
    /// Start the threads.
    pub fn start(options: &Options, clock: Arc<dyn Clock>) -> Result<Kernels> {
        Kernels::start_with(options, clock, Box::new(import::import))
    }

    /// The same for models that come in by another importer.
    pub fn start_with(options: &Options, clock: Arc<dyn Clock>, import: Box<Import>) -> Result<Kernels> {
        Kernels::start_on(options, clock, import, None)
    }

    /// The same beside a device that takes the batches which are worth it.
    pub fn start_on(
        options: &Options,
        clock: Arc<dyn Clock>,
        import: Box<Import>,
        device: Option<Arc<dyn Device>>,
    ) -> Result<Kernels> {
        let crew = Crew::start(options.threads, clock.clone())?;
        // A device needs more rows at a time to be worth its copies.
        let batch_rows = device.as_ref().map_or(BATCH_ROWS, |device| device.batch_rows().max(BATCH_ROWS));
        let elsewhere = Elsewhere { device, clock };
        let predict = Policy { max_delay: options.max_delay, ..policy(options.threads, batch_rows) };
        let inner = Inner {
            questions: Batcher::new(Questions, policy(options.threads, ROWS_MAX), &crew)?,
            predict: Batcher::new(Predict(elsewhere.clone()), predict, &crew)?,
            explain: Batcher::new(Explain(elsewhere), policy(options.threads, 1 << 20), &crew)?,
            shelf: Shelf::new(options.model_bytes),
            import,
            _crew: crew,
        };
        Ok(Kernels { inner: Arc::new(inner) })
    }

    /// Register one who asks. The same name is the same caller.
    pub fn caller(&self, name: &str) -> Result<Caller> {
        Ok(Caller {
            questions: self.inner.questions.caller(name, 1)?,
            predict: self.inner.predict.caller(name, 1)?,
            explain: self.inner.explain.caller(name, 1)?,
            kernels: self.clone(),
        })
    }

    /// A model that is loaded already.
    pub fn find_model(&self, digest: &str) -> Option<Arc<Loaded>> {
        self.inner.shelf.find(digest)
    }

    /// Load a model out of its file. Takes up to seconds: not for threads that serve requests.
    pub fn load_model(&self, digest: &str, bytes: &[u8]) -> Result<Arc<Loaded>> {
        if let Some(found) = self.find_model(digest) {
            return Ok(found);
        }
        Ok(self.inner.shelf.keep(Loaded::from_bytes_by(digest, bytes, &self.inner.import)?))
    }

    /// What each kernel has seen, by its name.
    pub fn stats(&self) -> Vec<(&'static str, Stats)> {
        vec![
            ("statistics", self.inner.questions.stats()),
            ("predict", self.inner.predict.stats()),
            ("explain", self.inner.explain.stats()),
        ]
    }
}

impl Caller {
    /// Ask many questions of one kind; answers in their order, each with its own error. The outer error is for all: a full
    /// queue, a shutdown.
    pub async fn ask<Q: Question>(&self, questions: Vec<Q>) -> Result<Vec<Result<Q::Answer>>> {
        let ask = Ask { inline: true, ..Ask::default() };
        let answers = stream::iter(questions).map(|question| async {
            match self.questions.submit(Box::new(question), ask) {
                Ok(reply) => own_error(reply.await),
                Err(refusal) => own_error(Err(refusal)),
            }
        });
        let answers = answers.buffered(IN_FLIGHT).map_ok(|answer| answer.and_then(typed::<Q>));
        answers.try_collect().await
    }

    /// Ask one.
    pub async fn ask_one<Q: Question>(&self, question: Q) -> Result<Q::Answer> {
        let mut answers = self.ask(vec![question]).await?;
        answers.pop().unwrap_or_else(|| Err(Error::internal("one question, no answer")))
    }

    /// Apply a model: answers row after row, as many values each as [`mainstay_models::Model::width`] says.
    pub async fn predict(&self, model: Arc<Loaded>, rows: HeldRows, output: Output) -> Result<Vec<f64>> {
        let ask = Ask { inline: true, ..Ask::default() };
        let reply = self.predict.submit(PredictRequest { model, rows, output }, ask)?;
        Ok(reply.await?)
    }

    /// Explain a model's raw outputs: rows by outputs by features, and what is expected of each output. Against a background
    /// if one is given, else along the paths.
    pub async fn explain(
        &self,
        model: Arc<Loaded>,
        rows: HeldRows,
        background: Option<HeldRows>,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let prepared = model.clone();
        // Preparing tables takes up to a second, once for a model.
        let explainer = tokio::task::spawn_blocking(move || match background {
            None => prepared.explainer(),
            Some(background) => Ok(Arc::new(background.background(&prepared)?)),
        });
        let explainer = explainer.await.map_err(|error| Error::internal(format!("preparing ended: {error}")))??;
        let request = ExplainRequest { model, explainer: explainer.clone(), rows };
        let reply = self.explain.submit(request, Ask::default())?;
        Ok((reply.await?, explainer.explainer.expected_values().to_vec()))
    }

    /// The kernels that it asks.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }
}

/// What concerns one question is its answer; what concerns the queue is everybody's error.
fn own_error<T>(answer: Result<T, Refusal>) -> Result<Result<T>> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(Refusal::Failed(error)) => Ok(Err(error)),
        Err(refusal) => Err(refusal.into()),
    }
}
