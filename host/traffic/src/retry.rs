//! When a variant is asked again.
//!
//! Owns the delay before a retry and [`RetryBudget`], which keeps all retries together below a share of the requests, so that
//! retries never multiply the load of a backend that is failing. Separate because it is pure: time and chance come in.
//!
//! Bounded by the policy. Does not fail: a retry that is not allowed is not made.

use std::time::Duration;

use parking_lot::Mutex;

use crate::plan::RetryPolicy;
use crate::window::Window;

/// The time in which requests and retries are compared, in milliseconds.
const BUDGET_WINDOW_MS: u64 = 10_000;

/// How many retries there may be.
pub(crate) struct RetryBudget {
    /// All: requests and retries; bad: the retries.
    window: Mutex<Window>,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { window: Mutex::new(Window::new(BUDGET_WINDOW_MS)) }
    }
}

impl RetryBudget {
    /// A request came.
    pub fn requested(&self, now_ns: u64) {
        self.window.lock().add(now_ns, false);
    }

    /// Take one retry out of the budget, if there is one.
    pub fn take(&self, policy: &RetryPolicy, now_ns: u64) -> bool {
        let mut window = self.window.lock();
        let counts = window.counts(now_ns);
        let requests = counts.all - counts.bad;
        let allowed = (requests as f64 * policy.budget_percent / 100.0).max(policy.budget_minimum.into());
        let is_allowed = ((counts.bad + 1) as f64) <= allowed;
        if is_allowed {
            window.add(now_ns, true);
        }
        is_allowed
    }
}

/// The delay before the `number`-th retry (1 is the first); `unit` (0 to 1) is chance's.
pub(crate) fn delay(policy: &RetryPolicy, number: u32, unit: f64) -> Duration {
    let exponent = number.saturating_sub(1).min(i32::MAX as u32) as i32;
    let grown = policy.base_ms as f64 * policy.factor.powi(exponent);
    let capped = grown.min(policy.cap_ms as f64);
    Duration::from_secs_f64(capped * (1.0 - policy.jitter * unit) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn delays_grow_to_the_cap_and_chance_only_shortens_them() {
        fn check(number: u32, unit: f64, expect_ms: u64) {
            let policy = RetryPolicy { base_ms: 100, factor: 3.0, cap_ms: 500, jitter: 0.5, ..Default::default() };
            assert_eq!(delay(&policy, number, unit), Duration::from_millis(expect_ms), "{number} {unit}");
        }
        check(1, 0.0, 100);
        check(2, 0.0, 300);
        check(3, 0.0, 500);
        check(u32::MAX, 0.0, 500);
        check(2, 1.0, 150);
    }

    #[test]
    fn a_few_retries_are_allowed_without_any_share_and_no_more() {
        let (budget, policy) = (RetryBudget::default(), RetryPolicy::default());
        (0..5).for_each(|_| budget.requested(0));
        assert_eq!([(); 4].map(|()| budget.take(&policy, 0)), [true, true, true, false]);
        assert!(budget.take(&policy, 11_000_000_000), "the budget is of the last ten seconds");
    }

    proptest! {
        /// Retries are never more than the share of the requests in the window, or the minimum, against a list of everything.
        #[test]
        fn retries_stay_within_the_budget(
            steps in prop::collection::vec((any::<bool>(), 0_u64..700), 1..300), percent in 0_u32..100, minimum in 0_u32..5,
        ) {
            let budget = RetryBudget::default();
            let policy = RetryPolicy { budget_percent: percent.into(), budget_minimum: minimum, ..Default::default() };
            let (mut now_ms, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            let is_recent = |then: &u64, now_ms: u64| then / 500 + 20 > now_ms / 500;
            for (is_retry, wait_ms) in steps {
                now_ms += wait_ms;
                if !is_retry {
                    budget.requested(now_ms * 1_000_000);
                    requests.push(now_ms);
                } else if budget.take(&policy, now_ms * 1_000_000) {
                    retries.push(now_ms);
                    let count = |all: &[u64]| all.iter().filter(|then| is_recent(then, now_ms)).count() as f64;
                    let allowed = (count(&requests) * f64::from(percent) / 100.0).max(minimum.into());
                    prop_assert!(count(&retries) <= allowed);
                }
            }
        }
    }
}
