//! What traffic asks of others: who answers, who answers instead, and who watches.
//!
//! Owns the traits that the wiring implements ([`Backend`], [`Backends`], [`Fallback`], [`Watch`]) and the words that they
//! share. Separate because this room neither loads a model nor opens a connection.
//!
//! Bounded by the deadline of each call. On failure: a [`Failure`] says whether asking again may help and whether the backend
//! is to blame; only what a backend is to blame for opens its breaker.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::stream::BoxStream;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_inference::{InferAnswer, InferRequest};

use crate::reference::Reference;
use crate::served::Why;
use crate::watch::{Change, Happened};

/// What travels with a request to a backend.
#[derive(Clone, Debug)]
pub struct Ask {
    /// When the answer is of no use any more; pass it on.
    pub deadline: Instant,
    /// The trace that the request belongs to, as `traceparent` has it.
    pub trace: Option<Arc<str>>,
    /// On whose account.
    pub tenant: Option<Arc<str>>,
    /// 0 for the first attempt, 1 for the first retry.
    pub attempt: u32,
}

/// Why a backend did not answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What happened.
    pub error: Error,
    /// Whether the same request may be tried again: it was not carried out, or doing it twice does no harm.
    pub is_retryable: bool,
    /// Whether the backend is to blame. A request that makes no sense is its sender's fault, and opens no breaker.
    pub is_fault: bool,
}

impl Failure {
    /// A failure that may pass: the same request may be tried again.
    pub fn retryable(error: Error) -> Failure {
        Failure { error, is_retryable: true, is_fault: true }
    }
}

impl From<Error> for Failure {
    /// Not to be tried again; the sender's fault where the kind says so.
    fn from(error: Error) -> Failure {
        let kind = error.kind();
        let is_fault =
            !matches!(kind, ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Conflict);
        Failure { error, is_retryable: false, is_fault }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The parts of an answer, one after the other.
pub type AnswerStream = BoxStream<'static, Result<InferAnswer, Failure>>;

/// Which model a backend runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The run that made it, where one is known.
    pub run: Option<Arc<str>>,
}

/// Something that answers requests. Dropping a future or a stream must cancel the work behind it.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Which model this is.
    fn identity(&self) -> Identity;

    /// What it needs to run: backends with the same resource fail together. None: nothing that others could share.
    fn resource(&self) -> Option<String> {
        None
    }

    /// Answer one request.
    async fn infer(&self, request: &Arc<InferRequest>, ask: &Ask) -> Result<InferAnswer, Failure>;

    /// Answer one request in parts.
    async fn stream(&self, request: &Arc<InferRequest>, ask: &Ask) -> Result<AnswerStream, Failure> {
        let _ = (request, ask);
        Err(Error::invalid("this model does not answer in parts; ask it without streaming").into())
    }

    /// Do what makes the first real request as quick as the others; called once before the first.
    async fn warm(&self, deadline: Instant) -> Result<()>;

    /// Whether it could answer now; called after [`Backend::warm`], and by probes.
    async fn ready(&self, deadline: Instant) -> Result<()>;
}

/// Who finds backends and fallbacks by name. When an alias or stage has moved, the wiring calls
/// [`Traffic::moved`](crate::Traffic::moved).
#[async_trait]
pub trait Backends: Send + Sync + 'static {
    /// What the reference names now, loaded or connected.
    async fn resolve(&self, reference: &Reference) -> Result<Arc<dyn Backend>>;

    /// A fallback by the name that plans use.
    async fn fallback(&self, name: &str) -> Result<Arc<dyn Fallback>> {
        Err(Error::not_found(format!("there is no fallback `{name}`; install what provides it, or name another")))
    }
}

/// Something that answers while a model cannot.
#[async_trait]
pub trait Fallback: Send + Sync + 'static {
    /// What its answers are labelled with.
    fn label(&self) -> String;

    /// What it needs to run; a plan in which it shares that with what it stands in for is refused.
    fn resource(&self) -> Option<String> {
        None
    }

    /// Answer instead, before the deadline of [`Instead::ask`].
    async fn answer(&self, instead: &Instead<'_>) -> Result<StoodIn>;
}

/// What something is to stand in for.
#[derive(Clone, Copy, Debug)]
pub struct Instead<'a> {
    /// What was asked.
    pub request: &'a Arc<InferRequest>,
    /// The variant that should have answered, where the plan chose one.
    pub variant: Option<&'a Arc<str>>,
    /// Why it did not.
    pub why: Why,
    /// What travels with the request; the deadline is the tier's own.
    pub ask: &'a Ask,
}

/// What a fallback answered.
#[derive(Clone, Debug, Default)]
pub struct StoodIn {
    /// The answer.
    pub answer: InferAnswer,
    /// What kind of answer it is, where the fallback has several; behind its label.
    pub kind: Option<String>,
}

impl From<InferAnswer> for StoodIn {
    fn from(answer: InferAnswer) -> StoodIn {
        StoodIn { answer, kind: None }
    }
}

/// Who is told what happened. Called by one task behind the answers, never in their way.
pub trait Watch: Send + Sync + 'static {
    /// A request was answered, or was not; those that the plan samples.
    fn happened(&self, happened: Happened);

    /// Something changed that an operator wants to know.
    fn changed(&self, change: Change) {
        let _ = change;
    }
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {
    fn happened(&self, _: Happened) {}
}
