//! What is counted about a plugin, and the snapshot that others see.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::error::CallError;

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) calls: Counter,
    pub(crate) failed: Counter,
    pub(crate) traps: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) out_of_memory: Counter,
    pub(crate) output_too_large: Counter,
    pub(crate) host_call_floods: Counter,
    pub(crate) ended_denied: Counter,
    pub(crate) busy: Counter,
    pub(crate) quarantined: Counter,
    pub(crate) host_faults: Counter,
    pub(crate) denied: Counter,
    pub(crate) log_cut_bytes: Counter,
    pub(crate) host_calls: Counter,
    pub(crate) guest_ns: Counter,
    pub(crate) host_ns: Counter,
    pub(crate) instances: Counter,
    pub(crate) reused: Counter,
}

impl Counters {
    pub(crate) fn note(&self, error: &CallError) {
        match error {
            CallError::Failed(_) => self.failed.add(1),
            CallError::Trap { .. } => self.traps.add(1),
            CallError::TimedOut { .. } => self.timeouts.add(1),
            CallError::OutOfMemory { .. } => self.out_of_memory.add(1),
            CallError::OutputTooLarge { .. } => self.output_too_large.add(1),
            CallError::HostCalls { .. } => self.host_call_floods.add(1),
            CallError::Busy { .. } => self.busy.add(1),
            CallError::Quarantined { .. } => self.quarantined.add(1),
            CallError::Denied { .. } => self.ended_denied.add(1),
            CallError::Host(_) => self.host_faults.add(1),
        }
    }
}

/// What a plugin has done since it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Calls that were started.
    pub calls: u64,
    /// Calls that run now.
    pub running: u64,
    /// Calls that wait in the queue now.
    pub waiting: u64,
    /// Calls that the plugin answered with an error.
    pub failed: u64,
    /// Calls that ended in a trap.
    pub traps: u64,
    /// Calls that ran out of processor or wall time.
    pub timeouts: u64,
    /// Calls that ran out of memory.
    pub out_of_memory: u64,
    /// Calls whose answer was too large.
    pub output_too_large: u64,
    /// Calls that called the host too often.
    pub host_call_floods: u64,
    /// Calls that ended because the plugin could not go on without what it was denied.
    pub ended_denied: u64,
    /// Calls that were refused because the queue was full.
    pub busy: u64,
    /// Calls that were refused because the plugin is in quarantine.
    pub quarantined: u64,
    /// Calls that failed by a fault of the host.
    pub host_faults: u64,
    /// Host functions that were denied.
    pub denied: u64,
    /// Bytes of log messages that were cut.
    pub log_cut_bytes: u64,
    /// Calls into the host.
    pub host_calls: u64,
    /// Time of the plugin's own code.
    pub guest_us: u64,
    /// Time that the host worked for it.
    pub host_us: u64,
    /// Instances that were made.
    pub instances: u64,
    /// Calls that used an instance again.
    pub reused: u64,
    /// Misbehaviours in a row, now.
    pub failures_in_row: u32,
    /// How long the quarantine still lasts; 0 when there is none.
    pub quarantine_left_ms: u64,
}
