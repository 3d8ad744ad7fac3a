//! When a job is started by itself.
//!
//! Owns [`Trigger`] and the row of moments that a time trigger makes, as a pure function: the next one behind a moment.
//! Separate from catching up ([`crate::due`]), which decides what is done with moments that have passed.
//!
//! Bounded by [`INTERVAL_MS_MIN`] and [`SPAN_MS_MAX`]. On failure: a trigger that makes no sense is `invalid`.

use mainstay_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cron::Cron;
use crate::definition::check_name;
use crate::limits::{INTERVAL_MS_MIN, SPAN_MS_MAX};

/// When a job is started by itself. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Trigger {
    /// Whenever the wall clock of a time zone matches.
    Cron {
        /// Five fields, or six with seconds in front.
        expression: String,
        /// By its IANA name.
        #[serde(default = "utc")]
        time_zone: String,
    },
    /// Again and again.
    Interval {
        /// From one occurrence to the next, in milliseconds.
        every_ms: u64,
        /// The first occurrence; without it, one interval after the trigger was first applied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_ms: Option<i64>,
    },
    /// Once, then.
    At {
        /// When.
        time_ms: i64,
    },
    /// Once, this long after the trigger was first applied.
    Delay {
        /// In milliseconds.
        after_ms: u64,
    },
    /// Whenever an event of this topic arrives.
    Event {
        /// Which.
        topic: String,
    },
}

fn utc() -> String {
    "UTC".to_owned()
}

/// The row of moments of one time trigger.
#[derive(Clone, Debug)]
pub(crate) enum Moments {
    Cron(Box<Cron>),
    Every { first_ms: i64, every_ms: i64 },
    Once { at_ms: i64 },
}

impl Trigger {
    /// Whether it makes sense.
    pub fn check(&self) -> Result<()> {
        match self {
            Trigger::Cron { expression, time_zone } => Cron::parse(expression, time_zone).map(|_| ()),
            Trigger::Interval { every_ms, .. } if !(INTERVAL_MS_MIN..=SPAN_MS_MAX).contains(every_ms) => {
                let range = format!("{INTERVAL_MS_MIN} to {SPAN_MS_MAX}");
                Err(Error::invalid(format!("every-ms of {every_ms}; it must be {range}")))
            }
            Trigger::Delay { after_ms } if *after_ms > SPAN_MS_MAX => {
                Err(Error::invalid(format!("after-ms of {after_ms}; it must be 0 to {SPAN_MS_MAX}")))
            }
            Trigger::Event { topic } => check_name("topic", topic),
            Trigger::Interval { .. } | Trigger::Delay { .. } | Trigger::At { .. } => Ok(()),
        }
    }

    /// A short name that the same trigger always has; occurrences are kept under it.
    pub fn key(&self) -> String {
        let text = serde_json::to_vec(self).expect("a trigger is plain data");
        hex::encode(&Sha256::digest(text)[..8])
    }

    /// Its moments; none for events.
    pub(crate) fn moments(&self, applied_ms: i64) -> Result<Option<Moments>> {
        Ok(Some(match self {
            Trigger::Cron { expression, time_zone } => Moments::Cron(Box::new(Cron::parse(expression, time_zone)?)),
            Trigger::Interval { every_ms, start_ms } => {
                let every_ms = (*every_ms).clamp(1, SPAN_MS_MAX) as i64;
                Moments::Every { first_ms: start_ms.unwrap_or(applied_ms.saturating_add(every_ms)), every_ms }
            }
            Trigger::At { time_ms } => Moments::Once { at_ms: *time_ms },
            Trigger::Delay { after_ms } => {
                Moments::Once { at_ms: applied_ms.saturating_add((*after_ms).min(SPAN_MS_MAX) as i64) }
            }
            Trigger::Event { .. } => return Ok(None),
        }))
    }
}

impl Moments {
    /// The first occurrence of a trigger that is applied now. One that stands for a single moment has it, even if it has
    /// passed; a repeated one begins in the future.
    pub fn first(&self, now_ms: i64) -> Option<i64> {
        match self {
            Moments::Once { at_ms } => Some(*at_ms),
            _ => self.next_after(now_ms),
        }
    }

    /// The first occurrence behind a moment.
    pub fn next_after(&self, after_ms: i64) -> Option<i64> {
        match self {
            Moments::Cron(cron) => cron.next_after(after_ms),
            Moments::Once { at_ms } => (*at_ms > after_ms).then_some(*at_ms),
            Moments::Every { first_ms, .. } if after_ms < *first_ms => Some(*first_ms),
            Moments::Every { first_ms, every_ms } => {
                let passed = (after_ms as i128 - *first_ms as i128) / *every_ms as i128;
                let next = *first_ms as i128 + (passed + 1) * *every_ms as i128;
                i64::try_from(next).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_keep_their_phase() {
        fn check(start_ms: Option<i64>, after_ms: i64, expect: i64) {
            let trigger = Trigger::Interval { every_ms: 1_000, start_ms };
            let moments = trigger.moments(500).unwrap().unwrap();
            assert_eq!(moments.next_after(after_ms), Some(expect), "{start_ms:?} {after_ms}");
        }
        check(None, 500, 1_500);
        check(None, 1_499, 1_500);
        check(None, 1_500, 2_500);
        check(None, 100_000, 100_500);
        check(Some(10_000), 0, 10_000);
        check(Some(10_000), 10_000, 11_000);
        check(Some(-10_000), -10_001, -10_000);
        check(Some(-10_000), -9_500, -9_000);
    }

    #[test]
    fn a_single_moment_comes_once_even_when_it_has_passed() {
        let moments = Trigger::At { time_ms: 50 }.moments(0).unwrap().unwrap();
        assert_eq!(moments.first(100), Some(50));
        assert_eq!(moments.next_after(50), None);
        let moments = Trigger::Delay { after_ms: 50 }.moments(100).unwrap().unwrap();
        assert_eq!(moments.first(100), Some(150));
    }

    #[test]
    fn a_pattern_that_never_comes_has_no_next_occurrence() {
        let never = Trigger::Cron { expression: "0 0 30 2 *".into(), time_zone: utc() };
        assert_eq!(never.moments(0).unwrap().unwrap().next_after(0), None);
    }

    #[test]
    fn the_same_trigger_has_the_same_key() {
        let at = |time_ms| Trigger::At { time_ms }.key();
        assert_eq!(at(1), at(1));
        assert_ne!(at(1), at(2));
    }
}
