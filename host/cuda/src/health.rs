//! When a device that failed is tried again.
//!
//! Owns the waiting: [`AWAY_MIN`] after the first failure, twice as long after each further one, [`AWAY_MAX`] at most; and
//! the warning. A batch that worked ends it. Separate because it is pure but for the warning. Cannot fail.

use std::time::Duration;

/// After a first failure.
pub const AWAY_MIN: Duration = Duration::from_secs(1);
/// However often it failed.
pub const AWAY_MAX: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    again_ns: u64,
}

impl Health {
    /// It failed now.
    pub fn failed(&mut self, now_ns: u64, why: &str) {
        let away = AWAY_MIN.saturating_mul(1 << self.failures.min(16)).min(AWAY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.again_ns = now_ns.saturating_add(away.as_nanos() as u64);
        tracing::warn!(%why, again_in_s = away.as_secs(), "the device failed; computing on the processor");
    }

    /// It computed something.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// Whether it is time to try.
    pub fn may_try(&self, now_ns: u64) -> bool {
        now_ns >= self.again_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_doubles_the_wait() {
        let second = 1_000_000_000;
        let mut health = Health::default();
        assert!(health.may_try(0));
        for expect in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            health.failed(5, "a test");
            assert!(!health.may_try(expect * second + 4) && health.may_try(expect * second + 5));
        }
        health.worked();
        health.failed(0, "a test");
        assert!(health.may_try(second));
    }
}
