//! How a kernel's calls are joined, bounded and shared: the operator's numbers.
//!
//! Owns [`Policy`] and its checks. Separate because it is data: it is read from configuration, shown in documentation
//! and checked before anything starts. On failure: `invalid` names the field, the value and what is allowed.

use std::time::Duration;

use mainstay_base::{Error, Result};

/// Sizes that [`Policy::preferred_rows`] may list.
pub const PREFERRED_MAX: usize = 16;
/// Levels of priority that a policy may have.
pub const LEVELS_MAX: u8 = 8;
/// The longest [`Policy::max_delay`].
pub const DELAY_MAX: Duration = Duration::from_secs(10);
/// Requests that a queue may be configured to hold.
pub const QUEUE_REQUESTS_MAX: usize = 1 << 20;
/// Launches of one kernel that may be configured to run at once.
pub const LAUNCHES_MAX: usize = 256;
/// Above this share of the latency budget, waiting for company deserves a warning.
const DELAY_SHARE_WARN: f64 = 0.2;
/// Above this share, the warning says that the budget is hard to keep.
const DELAY_SHARE_HIGH: f64 = 0.3;

/// When a batch that could be launched is held back so that more may join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// Only while another launch of this kernel runs: an idle kernel never waits.
    WhileRunning,
    /// Also after a launch that joined several requests, for those it answered tend to come back together. A call that
    /// finds nothing launched within the last maximum delay still waits for nobody.
    BetweenLaunches,
}

/// How one kernel's calls are joined, bounded and shared. A size is a number of rows, never of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The most rows in one launch. A divisible request with more is split.
    pub max_rows: usize,
    /// Sizes that the kernel likes: a batch is released at once when one is reached, and gets the largest one reached.
    /// Empty: as large as possible. Requests that would fit in one launch are not cut to hit a size exactly.
    pub preferred_rows: Vec<usize>,
    /// The longest that a batch which could be launched is held for more to join; see [`Gather`].
    pub max_delay: Duration,
    /// When a batch is held at all.
    pub gather: Gather,
    /// Launches of this kernel that may run at the same time.
    pub max_launches: usize,
    /// Requests that may wait, all callers together.
    pub queue_requests: usize,
    /// Rows that may wait, all callers together.
    pub queue_rows: usize,
    /// Requests of one caller that may wait. Smaller than `queue_requests`, or one caller's flood fills the queue.
    pub caller_requests: usize,
    /// Rows of one caller that may wait.
    pub caller_rows: usize,
    /// From this many waiting requests on, refuse those of a level below the highest, and those of callers that already
    /// have their equal share of this number waiting. None: nothing is refused before the queue is full.
    pub shed_from: Option<usize>,
    /// Levels of priority; level 0 goes first.
    pub levels: u8,
    /// Level of calls that name none.
    pub default_level: u8,
    /// A level that waited while this many launches went by without it leads the next one, so that none starves.
    pub patience_launches: u32,
    /// Deadline of calls that name none, and the most that a call may name, counted from its submission.
    pub timeout: Option<Duration>,
    /// A call that allows it is launched on its own thread, when the kernel is idle and small launches have taken no
    /// longer than this: it saves the way to another thread and back. Zero: never.
    pub inline_max: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            max_rows: 1_024,
            preferred_rows: Vec::new(),
            max_delay: Duration::from_millis(5),
            gather: Gather::WhileRunning,
            max_launches: 1,
            queue_requests: 100,
            queue_rows: 1 << 24,
            caller_requests: 50,
            caller_rows: 1 << 23,
            shed_from: None,
            levels: 1,
            default_level: 0,
            patience_launches: 8,
            timeout: None,
            inline_max: Duration::from_micros(50),
        }
    }
}

impl Policy {
    /// Whether every field is within its limits and fits the others.
    pub fn check(&self) -> Result<()> {
        within("max_rows", self.max_rows, 1, u32::MAX as usize)?;
        within("max_launches", self.max_launches, 1, LAUNCHES_MAX)?;
        within("queue_requests", self.queue_requests, 1, QUEUE_REQUESTS_MAX)?;
        within("queue_rows", self.queue_rows, self.max_rows, u32::MAX as usize)?;
        within("caller_requests", self.caller_requests, 1, self.queue_requests)?;
        within("caller_rows", self.caller_rows, 1, self.queue_rows)?;
        within("levels", usize::from(self.levels), 1, usize::from(LEVELS_MAX))?;
        within("default_level", usize::from(self.default_level), 0, usize::from(self.levels) - 1)?;
        within("patience_launches", self.patience_launches as usize, 1, 1 << 20)?;
        if let Some(from) = self.shed_from {
            within("shed_from", from, 1, self.queue_requests)?;
        }
        if self.max_delay > DELAY_MAX {
            return Err(wrong("max_delay", format!("{:?}", self.max_delay), format!("at most {DELAY_MAX:?}")));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(wrong("timeout", "0".into(), "more than nothing, or none".into()));
        }
        self.check_preferred()
    }

    fn check_preferred(&self) -> Result<()> {
        within("preferred_rows (how many sizes)", self.preferred_rows.len(), 0, PREFERRED_MAX)?;
        for size in &self.preferred_rows {
            within("preferred_rows", *size, 1, self.max_rows)?;
        }
        match self.preferred_rows.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => {
                Err(wrong("preferred_rows", format!("{} before {}", pair[0], pair[1]), "growing sizes".into()))
            }
            None => Ok(()),
        }
    }

    /// What is allowed but deserves a look, for an endpoint that must answer within `latency_budget`.
    pub fn warnings(&self, latency_budget: Duration) -> Vec<String> {
        let mut warnings = Vec::new();
        let share = self.max_delay.as_secs_f64() / latency_budget.as_secs_f64().max(f64::MIN_POSITIVE);
        if share > DELAY_SHARE_WARN {
            let hard = if share > DELAY_SHARE_HIGH { ", which will be hard to keep" } else { "" };
            warnings.push(format!(
                "`max_delay` of {:?} is more than a fifth of the latency budget of {latency_budget:?}{hard}; lower it, \
                 or raise the budget",
                self.max_delay
            ));
        }
        if self.timeout.is_some_and(|timeout| timeout <= self.max_delay) {
            warnings.push(format!(
                "`timeout` is not longer than `max_delay` ({:?}): batches are released early to keep it",
                self.max_delay
            ));
        }
        if self.caller_requests == self.queue_requests && self.shed_from.is_none() {
            warnings.push(
                "`caller_requests` equals `queue_requests` and `shed_from` is not set: one caller can fill the queue"
                    .into(),
            );
        }
        warnings
    }
}

fn within(field: &str, value: usize, least: usize, most: usize) -> Result<()> {
    match value {
        value if (least..=most).contains(&value) => Ok(()),
        value => Err(wrong(field, value.to_string(), format!("from {least} to {most}"))),
    }
}

fn wrong(field: &str, value: String, allowed: String) -> Error {
    Error::invalid(format!("batching policy: `{field}` is {value}; it must be {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        fn check(change: impl Fn(&mut Policy), expect: &str) {
            let mut policy = Policy::default();
            policy.check().unwrap();
            change(&mut policy);
            let error = policy.check().unwrap_err();
            assert!(error.message().contains(expect), "{error} should contain {expect}");
        }
        check(|p| p.max_rows = 0, "`max_rows` is 0; it must be from 1");
        check(|p| p.preferred_rows = vec![8, 8], "`preferred_rows` is 8 before 8; it must be growing");
        check(|p| p.preferred_rows = vec![2_000], "`preferred_rows` is 2000; it must be from 1 to 1024");
        check(|p| p.preferred_rows = (1..=17).collect(), "(how many sizes)` is 17");
        check(|p| p.max_delay = Duration::from_secs(11), "`max_delay` is 11s; it must be at most 10s");
        check(|p| p.max_launches = 257, "`max_launches` is 257");
        check(|p| p.queue_requests = 0, "`queue_requests` is 0");
        check(|p| p.queue_rows = 1_023, "`queue_rows` is 1023; it must be from 1024");
        check(|p| p.caller_requests = 101, "`caller_requests` is 101; it must be from 1 to 100");
        check(|p| p.caller_rows = 0, "`caller_rows` is 0");
        check(|p| p.shed_from = Some(101), "`shed_from` is 101");
        check(|p| p.levels = 9, "`levels` is 9");
        check(|p| p.default_level = 1, "`default_level` is 1; it must be from 0 to 0");
        check(|p| p.patience_launches = 0, "`patience_launches` is 0");
        check(|p| p.timeout = Some(Duration::ZERO), "`timeout` is 0");
    }

    #[test]
    fn a_long_delay_is_warned_of() {
        fn check(delay_ms: u64, budget_ms: u64, expect: &[&str]) {
            let policy = Policy { max_delay: Duration::from_millis(delay_ms), ..Policy::default() };
            let warnings = policy.warnings(Duration::from_millis(budget_ms));
            assert_eq!(warnings.len(), usize::from(!expect.is_empty()), "{warnings:?}");
            expect.iter().for_each(|text| assert!(warnings[0].contains(text), "{warnings:?}"));
        }
        check(5, 25, &[]);
        check(6, 25, &["`max_delay` of 6ms is more than a fifth", "budget of 25ms;"]);
        check(8, 25, &["hard to keep"]);
        check(5, 0, &["hard to keep"]);
    }
}
