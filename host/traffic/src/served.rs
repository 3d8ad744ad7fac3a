//! What a caller gets: an answer with its labels, or why there is none.
//!
//! Owns [`Served`], [`Labels`] and [`Refused`]. Separate because the gateway, the watcher and the signals speak of outcomes in
//! the same words. A [`Refused`] becomes an [`Error`] of the house without losing its kind.
//!
//! Bounded by: labels are shared texts, counted once. Does not fail.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, ErrorKind};
use mainstay_inference::InferAnswer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a request was not answered as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There is no such endpoint.
    NotFound,
    /// The request makes no sense to the backend.
    Invalid,
    /// Too many requests at once, and the queue is full or was too slow.
    Overloaded,
    /// The tenant has used up its rate.
    RateLimited,
    /// The time was over.
    Deadline,
    /// The variant's breaker is open.
    BreakerOpen,
    /// The variant is not loaded and warm yet.
    NotReady,
    /// The backend failed.
    Failed,
    /// The backend answered, and its guard did not let the answer pass.
    BadAnswer,
    /// A fault was injected that ends requests.
    Aborted,
}

impl Why {
    /// As metrics and headers have it.
    pub fn name(self) -> &'static str {
        match self {
            Why::NotFound => "not-found",
            Why::Invalid => "invalid",
            Why::Overloaded => "overloaded",
            Why::RateLimited => "rate-limited",
            Why::Deadline => "deadline",
            Why::BreakerOpen => "breaker-open",
            Why::NotReady => "not-ready",
            Why::Failed => "failed",
            Why::BadAnswer => "bad-answer",
            Why::Aborted => "aborted",
        }
    }
}

/// Where an answer comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The endpoint that was asked.
    pub endpoint: Arc<str>,
    /// The variant that the plan chose.
    pub variant: Option<Arc<str>>,
    /// The model that answered, its version and the run that made it; those of the fallback, if it answered.
    pub model: Arc<str>,
    /// The model's version.
    pub version: Arc<str>,
    /// The run that made the version.
    pub run: Option<Arc<str>>,
    /// What answered instead.
    pub fallback: Option<FellBack>,
    /// How often a backend was asked again.
    pub retries: u32,
    /// The version of the plan.
    pub plan_version: u64,
    /// The faults that were injected, by name.
    pub faults: Vec<Arc<str>>,
}

/// What answered instead of a variant, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FellBack {
    /// Its place in the chain, from 0; the configured answer comes behind the last tier.
    pub tier: u32,
    /// What it is called.
    pub label: Arc<str>,
    /// Why the variant did not answer.
    pub why: Why,
}

/// An answer and where it comes from.
#[derive(Clone, Debug)]
pub struct Served {
    /// The answer; shared with the watcher.
    pub answer: Arc<InferAnswer>,
    /// Where it comes from.
    pub labels: Labels,
}

/// Why a caller got no answer.
#[derive(Clone, Debug)]
pub struct Refused {
    /// In one word.
    pub why: Why,
    /// For a person.
    pub error: Error,
    /// When to ask again, where that may help.
    pub retry_after: Option<Duration>,
    /// The HTTP status that an injected fault asks for.
    pub status: Option<u16>,
    /// What is known of the way so far.
    pub labels: Box<Labels>,
}

impl Refused {
    pub(crate) fn new(why: Why, error: Error, labels: Labels) -> Refused {
        Refused { why, error, retry_after: None, status: None, labels: Box::new(labels) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        refused.error
    }
}

/// The kind of error that stands for this outcome.
pub(crate) fn kind_of(why: Why) -> ErrorKind {
    match why {
        Why::NotFound => ErrorKind::NotFound,
        Why::Invalid => ErrorKind::Invalid,
        Why::Overloaded | Why::RateLimited => ErrorKind::Exhausted,
        Why::Deadline | Why::BreakerOpen | Why::NotReady | Why::Failed | Why::Aborted => ErrorKind::Unavailable,
        Why::BadAnswer => ErrorKind::Internal,
    }
}
