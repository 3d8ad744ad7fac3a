//! What happened with an upstream, in numbers.
//!
//! Owns the counters of one server and what is shown of them. Separate, so that whoever counts needs no lock and whoever reads
//! waits for nobody. Bounded: a fixed number of counters. Does not fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use serde::Serialize;

/// Why a request to an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There was no connection to be had.
    Unreachable,
    /// It said "not now": 503 or 429, `UNAVAILABLE` or `RESOURCE_EXHAUSTED`.
    TurnedAway,
    /// The connection ended before any of the answer came.
    Reset,
    /// The answer ended before it was whole.
    CutOff,
    /// What came is no answer of the protocol, or too large a one.
    Unreadable,
    /// It said that it failed.
    Failed,
    /// It said that the request makes no sense.
    Sender,
    /// It did not answer before the deadline.
    Late,
    /// All connections were busy, and too many waited already.
    Busy,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [FailureKind; 9] = [
        FailureKind::Unreachable,
        FailureKind::TurnedAway,
        FailureKind::Reset,
        FailureKind::CutOff,
        FailureKind::Unreadable,
        FailureKind::Failed,
        FailureKind::Sender,
        FailureKind::Late,
        FailureKind::Busy,
    ];
}

/// What happened with one server since there are connections to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamStatistics {
    /// The server: scheme, host and port.
    pub server: String,
    /// Connections that are open now, idle ones included.
    pub connections_open: usize,
    /// Connections that are open and unused; over gRPC they are shared and none counts as such.
    pub connections_idle: usize,
    /// Connections that were made.
    pub connections_made: u64,
    /// Requests that were begun, streams included.
    pub requests: u64,
    /// Requests and streams that are under way.
    pub in_flight: usize,
    /// Requests whose asker went away before the end.
    pub cancelled: u64,
    /// Requests that found a kept connection closed and were sent again on a fresh one. No failures.
    pub resent: u64,
    /// Requests that failed, by why; those that did not happen are left out.
    pub failures: Vec<(FailureKind, u64)>,
}

impl UpstreamStatistics {
    /// How often requests failed in this way.
    pub fn failed(&self, kind: FailureKind) -> u64 {
        self.failures.iter().find(|(held, _)| *held == kind).map_or(0, |(_, count)| *count)
    }
}

#[derive(Default)]
pub(crate) struct Counts {
    open: AtomicUsize,
    made: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    cancelled: AtomicU64,
    resent: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
}

impl Counts {
    pub fn read(&self, server: String, connections_idle: usize) -> UpstreamStatistics {
        let failures = FailureKind::ALL.into_iter().zip(&self.failures);
        UpstreamStatistics {
            server,
            connections_open: self.open.load(Relaxed),
            connections_idle,
            connections_made: self.made.load(Relaxed),
            requests: self.requests.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            resent: self.resent.load(Relaxed),
            failures: failures
                .map(|(kind, count)| (kind, count.load(Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// A request was sent a second time because a kept connection had been closed.
    pub fn resent(&self) {
        self.resent.fetch_add(1, Relaxed);
    }
}

/// A connection that is open until this is dropped.
pub(crate) struct Open(Arc<Counts>);

impl Open {
    pub fn new(counts: &Arc<Counts>) -> Open {
        counts.open.fetch_add(1, Relaxed);
        counts.made.fetch_add(1, Relaxed);
        Open(counts.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A request that is under way until this is dropped; cancelled, unless its end was told before.
pub(crate) struct Call {
    counts: Arc<Counts>,
    is_over: bool,
}

impl Call {
    pub fn new(counts: &Arc<Counts>) -> Call {
        counts.requests.fetch_add(1, Relaxed);
        counts.in_flight.fetch_add(1, Relaxed);
        Call { counts: counts.clone(), is_over: false }
    }

    pub fn answered(&mut self) {
        self.is_over = true;
    }

    pub fn failed(&mut self, kind: FailureKind) {
        self.is_over = true;
        self.counts.failures[kind as usize].fetch_add(1, Relaxed);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counts.in_flight.fetch_sub(1, Relaxed);
        if !self.is_over {
            self.counts.cancelled.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_answered_nor_failed_was_cancelled() {
        let counts = Arc::new(Counts::default());
        let (mut answered, mut failed, cancelled) = (Call::new(&counts), Call::new(&counts), Call::new(&counts));
        let open = Open::new(&counts);
        answered.answered();
        failed.failed(FailureKind::Busy);
        drop((answered, failed));
        let read = counts.read(String::new(), 0);
        assert_eq!((read.requests, read.in_flight, read.cancelled, read.connections_open), (3, 1, 0, 1));
        drop((cancelled, open));
        let read = counts.read(String::new(), 0);
        assert_eq!((read.in_flight, read.cancelled, read.connections_open, read.connections_made), (0, 1, 0, 1));
        assert_eq!(read.failures, [(FailureKind::Busy, 1)]);
    }

    #[test]
    fn each_kind_has_its_own_counter() {
        let places = FailureKind::ALL.map(|kind| kind as usize);
        assert_eq!(places, std::array::from_fn(|place| place));
    }
}
