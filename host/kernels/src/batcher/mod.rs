//! The batcher: calls from many callers, joined into few launches.
//!
//! Owns what stands between those who ask for numeric work and the kernels that do it: the queue of each kernel and its
//! rules (`queue.rs`, pure), the order in which a batch is filled (`compose.rs`), the driver that runs it on threads
//! and answers futures (`driver.rs`), and the threads themselves (`crew.rs`), shared by all kernels. Separate from the
//! kernels because it must not know what they compute: a [`Kernel`] tells it shapes and sizes, and runs what it is
//! handed.
//!
//! Neither joining nor splitting copies rows. A request is a set of views that the batcher moves but never opens; a
//! launch is handed references to its requests, each with the range of rows that is meant. Only a request that was
//! split needs its answers put together again, by the kernel, which may keep them as chunks.
//!
//! Bounded by the [`Policy`]: a full queue refuses at once, with a hint when to try again. On failure: a [`Refusal`]
//! that says which bound, deadline or fault it was; a kernel that panics is tried again with each request alone, so
//! that only the one that makes it panic fails.

mod alarms;
mod compose;
mod crew;
mod driver;
mod policy;
mod queue;
mod refusal;
mod stats;

#[cfg(test)]
mod complaints;
#[cfg(test)]
mod driver_tests;
#[cfg(test)]
mod simulation;

use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use mainstay_base::Result;

pub use crew::{Crew, THREADS_MAX};
pub use driver::{Ask, Batcher, Caller, Canceller, Drained, Reply};
pub use policy::{DELAY_MAX, Gather, LAUNCHES_MAX, LEVELS_MAX, PREFERRED_MAX, Policy, QUEUE_REQUESTS_MAX};
pub use queue::{CALLERS_MAX, WEIGHT_MAX};
pub use refusal::{Bound, Refusal};
pub use stats::{CallerStats, Counts, Histogram, Reason, Stats};

/// Numeric work that can be done for several requests at once.
pub trait Kernel: Send + Sync + Sized + 'static {
    /// What requests must have in common to be launched together: a model, a number of columns, a type, parameters.
    /// Cloned once for each launch, so it should be cheap to clone.
    type Shape: Hash + Eq + Clone + Send + Sync;
    /// What is asked: views of data that lies elsewhere.
    type Request: Send + Sync;
    /// What is answered, for a request or for a part of one.
    type Answer: Send;

    /// Its name in messages.
    fn name(&self) -> &str;

    /// What this request can be launched together with.
    fn shape(&self, request: &Self::Request) -> Self::Shape;

    /// Its size, in the unit of the policy.
    fn rows(&self, request: &Self::Request) -> usize;

    /// Whether a request's rows may be computed in several launches. When not, one of more than the policy's `max_rows`
    /// is `invalid`.
    fn is_divisible(&self) -> bool {
        true
    }

    /// Compute. Pushes one answer for each part of the batch, in its order; an error fails that part's request alone.
    fn launch(&self, batch: &Batch<'_, Self>, answers: &mut Vec<Result<Self::Answer>>);

    /// The answer to a request that was split, from those of its parts, in the order of rows; at least two. `internal`
    /// unless the kernel overrides it: one that is not divisible need not.
    fn assemble(&self, _request: &Self::Request, _answers: Vec<Self::Answer>) -> Result<Self::Answer> {
        Err(mainstay_base::Error::internal(format!("the kernel `{}` cannot put answers together", self.name())))
    }
}

/// What one launch computes.
pub struct Batch<'b, K: Kernel> {
    shape: &'b K::Shape,
    parts: &'b [queue::Part<Arc<driver::Call<K>>>],
}

/// A request, or some of its rows, in a launch.
pub struct Part<'b, R> {
    /// The whole request.
    pub request: &'b R,
    /// Those of its rows that are meant.
    pub rows: Range<usize>,
}

impl<'b, K: Kernel> Batch<'b, K> {
    /// The shape of all its parts.
    pub fn shape(&self) -> &'b K::Shape {
        self.shape
    }

    /// How many parts there are; at least one.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is no part; never, in a launch.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Rows of all its parts together.
    pub fn rows(&self) -> usize {
        self.iter().map(|part| part.rows.len()).sum()
    }

    /// Its parts, in the order in which they are answered.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Part<'b, K::Request>> + use<'b, K> {
        self.parts.iter().map(|part| {
            let (request, total) = part.payload.request();
            // An empty request takes a place, but has no rows.
            let end = total.min((part.start + part.rows) as usize);
            Part { request, rows: part.start as usize..end }
        })
    }
}
