//! How long to wait before the next attempt.
//!
//! Owns the arithmetic of backoff. Separate because it is pure: chance comes in as a number. Bounded by the policy's cap; it
//! does not fail.

use crate::definition::RetryPolicy;

/// The delay behind the `failures`-th failed attempt (1 is the first), in milliseconds: `base · factor^(failures − 1)`, at
/// most the cap, less a share of up to `jitter` that `unit` (0 to 1) decides.
pub fn delay_ms(policy: &RetryPolicy, failures: u32, unit: f64) -> u64 {
    let exponent = failures.saturating_sub(1).min(i32::MAX as u32) as i32;
    let grown = policy.base_ms as f64 * policy.factor.powi(exponent);
    let capped = grown.min(policy.cap_ms as f64);
    (capped * (1.0 - policy.jitter * unit)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_chance_only_shortens_them() {
        fn check(failures: u32, unit: f64, expect: u64) {
            let policy = RetryPolicy { attempts: 100, base_ms: 100, factor: 3.0, cap_ms: 5_000, jitter: 0.5 };
            assert_eq!(delay_ms(&policy, failures, unit), expect, "{failures} {unit}");
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
