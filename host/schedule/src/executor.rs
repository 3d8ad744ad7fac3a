//! The trait behind which a step is carried out.
//!
//! Owns what an executor is given and the signs that pass between it and the driver. Separate from any executor, so that
//! this room knows neither plugins nor processes by name. Bounded by the attempt's deadline, which the driver enforces by
//! the cancel token first, and by dropping the future when that does not help. On failure: an outcome; a panic is one, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use mainstay_base::{Clock, Result};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::logs::LogSink;
use crate::run::Run;
use crate::state::Outcome;

/// Carries out actions of one kind.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Whether an action's settings make sense; asked when a job is applied.
    fn check(&self, settings: &Value) -> Result<()>;

    /// Carry out one attempt. Must be safe to drop at every await, and then leave nothing running.
    async fn execute(&self, attempt: AttemptContext) -> Outcome;
}

/// One attempt, as its executor sees it.
#[derive(Clone)]
pub struct AttemptContext {
    /// The run as it was taken: its job, action, parameters, scheduled time. Its `token` is this attempt's fencing token,
    /// larger than those of all attempts of this run before; a resource outside that remembers the largest it has seen can
    /// refuse an older one.
    pub run: Arc<Run>,
    /// Cancelled when the attempt has to stop, for whatever reason.
    pub cancel: CancellationToken,
    /// Where it prints.
    pub log: LogSink,
    /// How it says that it is alive, which counts for jobs with a `heartbeat-timeout-ms`.
    pub heartbeat: Heartbeat,
}

/// Remembers the last sign of life. Clones are the same.
#[derive(Clone)]
pub struct Heartbeat {
    clock: Arc<dyn Clock>,
    last_ns: Arc<AtomicI64>,
}

impl Heartbeat {
    /// The first sign is now.
    pub fn new(clock: Arc<dyn Clock>) -> Heartbeat {
        let heartbeat = Heartbeat { clock, last_ns: Arc::default() };
        heartbeat.beat();
        heartbeat
    }

    /// The attempt is alive.
    pub fn beat(&self) {
        self.last_ns.store(self.clock.monotonic_ns() as i64, Ordering::Release);
    }

    /// How long ago the last sign was, in milliseconds.
    pub(crate) fn silent_ms(&self) -> u64 {
        let last = self.last_ns.load(Ordering::Acquire) as u64;
        self.clock.monotonic_ns().saturating_sub(last) / 1_000_000
    }
}
