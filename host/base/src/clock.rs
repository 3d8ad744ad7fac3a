//! Time behind a trait, so that tests and replays can hold it still.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
    /// Nanoseconds that only grow, from a point without meaning.
    fn monotonic_ns(&self) -> u64;
}

/// The machine's clock.
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    fn monotonic_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// A clock that moves only when told to.
pub struct VirtualClock {
    start_ms: i64,
    elapsed_ms: AtomicI64,
}

impl VirtualClock {
    /// A clock that shows `now_ms`.
    pub fn new(now_ms: i64) -> VirtualClock {
        VirtualClock { start_ms: now_ms, elapsed_ms: AtomicI64::new(0) }
    }

    /// Let time pass.
    pub fn advance_ms(&self, by_ms: i64) {
        self.elapsed_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> i64 {
        self.start_ms + self.elapsed_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.elapsed_ms.load(Ordering::SeqCst) as u64 * 1_000_000
    }
}
