//! Leaves a plugin alone for a while when it misbehaves again and again.
//!
//! Misbehaviours in a row are counted; any call that ends well resets the count. From [`FAILURES_MAX`] on, each further
//! one starts a quarantine, at first [`FIRST_MS`], doubling up to [`LONGEST_MS`]. When it is over, calls are let through:
//! one that ends well ends the story, one that does not starts the next, longer quarantine. Nothing needs a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};

use mainstay_base::Clock;
use parking_lot::Mutex;

/// Misbehaviours in a row that start a quarantine.
pub const FAILURES_MAX: u32 = 5;
/// The first quarantine.
pub const FIRST_MS: u64 = 1_000;
/// The longest.
pub const LONGEST_MS: u64 = 300_000;

#[derive(Default)]
struct State {
    failures: u32,
    until_ms: u64,
}

/// See the module.
pub(crate) struct Quarantine {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Whether there are failures to look at; written under the lock.
    is_troubled: AtomicBool,
}

/// Failures in a row, and how long nothing is called.
pub(crate) struct Closed {
    pub(crate) failures: u32,
    pub(crate) left_ms: u64,
}

impl Quarantine {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Quarantine {
        Quarantine { clock, state: Mutex::default(), is_troubled: AtomicBool::new(false) }
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic_ns() / 1_000_000
    }

    /// Nothing while calls may be made.
    #[inline]
    pub(crate) fn closed(&self) -> Option<Closed> {
        if !self.is_troubled.load(Acquire) {
            return None;
        }
        let state = self.state.lock();
        if state.failures < FAILURES_MAX {
            return None;
        }
        let left_ms = state.until_ms.saturating_sub(self.now_ms());
        (left_ms > 0).then_some(Closed { failures: state.failures, left_ms })
    }

    #[inline]
    pub(crate) fn succeeded(&self) {
        if self.is_troubled.load(Acquire) {
            let mut state = self.state.lock();
            *state = State::default();
            self.is_troubled.store(false, Release);
        }
    }

    /// Count a misbehaviour; the length of the quarantine that it starts, if it does.
    pub(crate) fn failed(&self) -> Option<u64> {
        let mut state = self.state.lock();
        self.is_troubled.store(true, Release);
        state.failures = state.failures.saturating_add(1);
        let over = state.failures.checked_sub(FAILURES_MAX)?;
        let length_ms = FIRST_MS.checked_shl(over.min(20)).unwrap_or(LONGEST_MS).min(LONGEST_MS);
        state.until_ms = self.now_ms() + length_ms;
        Some(length_ms)
    }

    /// Failures in a row, and what is left of the quarantine.
    pub(crate) fn status(&self) -> (u32, u64) {
        let state = self.state.lock();
        let left_ms = if state.failures < FAILURES_MAX { 0 } else { state.until_ms.saturating_sub(self.now_ms()) };
        (state.failures, left_ms)
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::VirtualClock;

    use super::*;

    #[test]
    fn starts_at_the_limit_doubles_and_ends() {
        let clock = Arc::new(VirtualClock::new(0));
        let quarantine = Quarantine::new(clock.clone());
        for _ in 1..FAILURES_MAX {
            assert_eq!(quarantine.failed(), None);
            assert!(quarantine.closed().is_none());
        }
        assert_eq!(quarantine.failed(), Some(FIRST_MS));
        let closed = quarantine.closed().expect("closed at the limit");
        assert_eq!((closed.failures, closed.left_ms), (FAILURES_MAX, FIRST_MS));
        clock.advance_ms(FIRST_MS as i64);
        assert!(quarantine.closed().is_none(), "let through when it is over");
        assert_eq!(quarantine.failed(), Some(2 * FIRST_MS));
        for _ in 0..40 {
            quarantine.failed();
        }
        assert_eq!(quarantine.failed(), Some(LONGEST_MS));
        quarantine.succeeded();
        assert!(quarantine.closed().is_none());
        assert_eq!(quarantine.failed(), None, "a good call resets the count");
    }
}
