//! How long to wait before the next attempt.
//!
//! Owns the arithmetic of exponential backoff with jitter. Separate, and here, because whoever delivers, runs or calls again
//! waits by the same rule, and because it is pure: chance comes in as a number. Bounded by the cap; it does not fail.

/// Delays that grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The delay before the second attempt, in milliseconds.
    pub base_ms: u64,
    /// What each further delay is multiplied with.
    pub factor: f64,
    /// The longest delay, in milliseconds.
    pub cap_ms: u64,
    /// The share of each delay, 0 to 1, that chance may take away.
    pub jitter: f64,
}

impl Backoff {
    /// The delay behind the `failures`-th failed attempt (1 is the first), in milliseconds: `base · factor^(failures − 1)`, at
    /// most the cap, less a share of up to `jitter` that `unit` (0 to 1) decides.
    pub fn delay_ms(&self, failures: u32, unit: f64) -> u64 {
        let exponent = failures.saturating_sub(1).min(i32::MAX as u32) as i32;
        let capped = (self.base_ms as f64 * self.factor.powi(exponent)).min(self.cap_ms as f64);
        (capped * (1.0 - self.jitter * unit)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_chance_only_shortens_them() {
        fn check(failures: u32, unit: f64, expect: u64) {
            let backoff = Backoff { base_ms: 100, factor: 3.0, cap_ms: 5_000, jitter: 0.5 };
            assert_eq!(backoff.delay_ms(failures, unit), expect, "{failures} {unit}");
        }
        check(1, 0.0, 100);
        check(2, 0.0, 300);
        check(4, 0.0, 2_700);
        check(5, 0.0, 5_000);
        check(100, 0.0, 5_000);
        check(u32::MAX, 0.0, 5_000);
        check(1, 1.0, 50);
        check(5, 0.5, 3_750);
    }
}
