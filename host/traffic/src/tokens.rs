//! How fast each tenant may ask.
//!
//! Owns [`Tokens`]: a token bucket for each tenant, kept as one number by the generic cell rate algorithm (ITU-T I.371): when
//! its bucket will be full again. Separate because it is pure: time comes in.
//!
//! Bounded by [`TENANTS_COUNTED_MAX`]; tenants beyond share one bucket until others have been idle. On failure: it says how long
//! to wait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::TENANTS_COUNTED_MAX;
use crate::plan::Rate;

/// Buckets of all tenants.
#[derive(Default)]
pub(crate) struct Tokens {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each bucket will be full, in nanoseconds of the clock.
    full_at_ns: HashMap<Arc<str>, u64>,
    others_full_at_ns: u64,
}

impl Tokens {
    /// Take one token, or say how many nanoseconds to wait for it.
    pub fn take(&self, tenant: &Arc<str>, rate: &Rate, now_ns: u64) -> Result<(), u64> {
        let mut state = self.state.lock();
        if let Some(full_at) = state.full_at_ns.get_mut(tenant) {
            return take_one(full_at, rate, now_ns);
        }
        if state.full_at_ns.len() >= TENANTS_COUNTED_MAX {
            state.full_at_ns.retain(|_, full_at| *full_at > now_ns);
        }
        if state.full_at_ns.len() >= TENANTS_COUNTED_MAX {
            return take_one(&mut state.others_full_at_ns, rate, now_ns);
        }
        take_one(state.full_at_ns.entry(tenant.clone()).or_insert(0), rate, now_ns)
    }
}

fn take_one(full_at: &mut u64, rate: &Rate, now_ns: u64) -> Result<(), u64> {
    let token_ns = (1e9 / rate.per_second) as u64;
    let bucket_ns = token_ns.saturating_mul(rate.burst.into());
    let full_then = (*full_at).max(now_ns).saturating_add(token_ns);
    let empty_until = full_then.saturating_sub(bucket_ns);
    if empty_until > now_ns {
        return Err(empty_until - now_ns);
    }
    *full_at = full_then;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let (tokens, tenant) = (Tokens::default(), Arc::from("acme"));
        let rate = Rate { per_second: 10.0, burst: 3 };
        let take = |now_ns| tokens.take(&tenant, &rate, now_ns);
        assert_eq!([take(0), take(0), take(0), take(0)], [Ok(()), Ok(()), Ok(()), Err(SECOND / 10)]);
        assert_eq!(take(SECOND / 10), Ok(()));
        assert_eq!(take(SECOND / 10), Err(SECOND / 10));
        assert_eq!([take(10 * SECOND), take(10 * SECOND), take(10 * SECOND)], [Ok(()); 3]);
        assert!(take(10 * SECOND).is_err());
    }

    #[test]
    fn one_tenant_does_not_use_up_anothers_tokens() {
        let tokens = Tokens::default();
        let rate = Rate { per_second: 1.0, burst: 1 };
        tokens.take(&"a".into(), &rate, 0).unwrap();
        tokens.take(&"a".into(), &rate, 0).unwrap_err();
        tokens.take(&"b".into(), &rate, 0).unwrap();
    }

    #[test]
    fn tenants_beyond_the_limit_share_a_bucket_until_others_are_idle() {
        let tokens = Tokens::default();
        let rate = Rate { per_second: 1.0, burst: 1 };
        for number in 0..TENANTS_COUNTED_MAX {
            tokens.take(&format!("t{number}").into(), &rate, 0).unwrap();
        }
        tokens.take(&"one more".into(), &rate, 0).unwrap();
        tokens.take(&"and another".into(), &rate, 0).unwrap_err();
        tokens.take(&"and another".into(), &rate, 2 * SECOND).unwrap();
        assert_eq!(tokens.state.lock().full_at_ns.len(), 1);
    }

    proptest! {
        /// In any time, no more pass than the burst and what the rate gives in it.
        #[test]
        fn no_more_pass_than_rate_and_burst_allow(
            waits_ms in prop::collection::vec(0_u64..300, 1..200), per_second in 1_u32..50, burst in 1_u32..10,
        ) {
            let (tokens, tenant) = (Tokens::default(), Arc::from("acme"));
            let rate = Rate { per_second: per_second.into(), burst };
            let (mut now_ns, mut passed) = (0, 0);
            for wait_ms in waits_ms {
                now_ns += wait_ms * 1_000_000;
                passed += u64::from(tokens.take(&tenant, &rate, now_ns).is_ok());
                let allowed = f64::from(burst) + now_ns as f64 / 1e9 * f64::from(per_second);
                prop_assert!(passed as f64 <= allowed + 1e-3);
            }
        }
    }
}
