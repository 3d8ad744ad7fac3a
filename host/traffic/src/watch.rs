//! What is told to whoever watches, and the way there.
//!
//! Owns [`Happened`] and [`Change`], and the bounded channels to the task that hands them on. Separate because nothing here
//! may wait: what does not fit is dropped and counted.
//!
//! Bounded by [`WATCH_QUEUE_MAX`] and [`CHANGE_QUEUE_MAX`]. On failure: a watcher that is slow loses news, and can read how
//! many; a watcher that panics loses one, and the task goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_inference::{InferAnswer, InferRequest};
use tokio::sync::mpsc;

use crate::backend::Watch;
use crate::limits::{CHANGE_QUEUE_MAX, WATCH_QUEUE_MAX};
use crate::served::{Labels, Why};

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When the request came, in milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Which way it went.
    pub labels: Labels,
    /// Why it was not answered, or was answered by a fallback; none: it was answered as planned.
    pub why: Option<Why>,
    /// From its coming to its answer, in microseconds.
    pub latency_us: u64,
    /// What was asked.
    pub request: Arc<InferRequest>,
    /// What was answered.
    pub answer: Option<Arc<InferAnswer>>,
    /// On whose account.
    pub tenant: Option<Arc<str>>,
    /// The trace it belongs to.
    pub trace: Option<Arc<str>>,
    /// Whether it was copied to a variant whose answer nobody got.
    pub is_mirrored: bool,
}

/// Something that changed at an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Where.
    pub endpoint: Arc<str>,
    /// What.
    pub what: Changed,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// A breaker opened.
    BreakerOpened {
        /// Whose.
        variant: Arc<str>,
        /// Why.
        reason: String,
        /// For how long, in milliseconds.
        open_ms: u64,
    },
    /// A breaker lets probes through.
    BreakerHalfOpened {
        /// Whose.
        variant: Arc<str>,
    },
    /// A breaker closed: the probes were answered.
    BreakerClosed {
        /// Whose.
        variant: Arc<str>,
    },
    /// Another plan is active.
    PlanActivated {
        /// Its version.
        version: u64,
        /// Who did it.
        by: String,
        /// Why.
        why: String,
    },
    /// A tripwire was breached.
    TripwireFired {
        /// Its name.
        tripwire: Arc<str>,
        /// The plan that it leads to.
        plan: Arc<str>,
        /// What was measured.
        reason: String,
    },
    /// A fault stopped by itself.
    FaultStopped {
        /// Its name.
        fault: Arc<str>,
        /// Why.
        reason: String,
    },
    /// A variant answers with another backend now, or for the first time.
    BackendChanged {
        /// Which.
        variant: Arc<str>,
        /// The model and version behind it.
        model: String,
    },
    /// A variant could not be made ready.
    BackendFailed {
        /// Which.
        variant: Arc<str>,
        /// Why.
        reason: String,
    },
}

/// The way to the watcher. Clones are the same way; when the last is gone, the task ends.
#[derive(Clone)]
pub(crate) struct Telling {
    happened: mpsc::Sender<Happened>,
    changed: mpsc::Sender<Change>,
    dropped: Arc<AtomicU64>,
}

/// The other end.
pub(crate) struct Listening {
    happened: mpsc::Receiver<Happened>,
    changed: mpsc::Receiver<Change>,
}

pub(crate) fn channel() -> (Telling, Listening) {
    let (happened, happened_here) = mpsc::channel(WATCH_QUEUE_MAX);
    let (changed, changed_here) = mpsc::channel(CHANGE_QUEUE_MAX);
    let telling = Telling { happened, changed, dropped: Arc::default() };
    (telling, Listening { happened: happened_here, changed: changed_here })
}

impl Telling {
    pub fn happened(&self, happened: Happened) {
        if self.happened.try_send(happened).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn changed(&self, change: Change) {
        if self.changed.try_send(change).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Listening {
    pub async fn hand_on(mut self, watch: Arc<dyn Watch>) {
        loop {
            // Changes first: they are rare, and somebody may be woken by them.
            tokio::select! {
                biased;
                Some(change) = self.changed.recv() => guarded(|| watch.changed(change)),
                Some(happened) = self.happened.recv() => guarded(|| watch.happened(happened)),
                else => return,
            }
        }
    }
}

fn guarded(tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::warn!("a watcher of traffic panicked; what it was told is lost to it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Watch for Nothing {
        fn happened(&self, _: Happened) {}
    }

    fn change() -> Change {
        Change { at_ms: 0, endpoint: "e".into(), what: Changed::BreakerClosed { variant: "v".into() } }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (telling, listening) = channel();
        (0..CHANGE_QUEUE_MAX).for_each(|_| telling.changed(change()));
        assert_eq!(telling.dropped(), 0);
        telling.changed(change());
        assert_eq!(telling.dropped(), 1);
        drop(telling);
        futures::executor::block_on(listening.hand_on(Arc::new(Nothing)));
    }
}
