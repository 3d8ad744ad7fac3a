//! Who wants which events, and how far they have come.
//!
//! Owns [`Subscription`] (what a subscriber says, as data) and the records that are kept for it: [`SubscriptionRecord`] and
//! a [`Position`] for each topic. Separate from delivering, because a definition is read, shown and compared without a clock
//! or a store. Bounded by [`crate::limits`]. On failure: a definition that does not make sense is `invalid` and says which
//! part.

use mainstay_base::{Backoff, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Offset, check_topic};
use crate::limits::{ATTEMPTS_MAX, BATCH_MAX, NAME_BYTES_MAX, SPAN_MS_MAX, SUBSCRIPTION_TOPICS_MAX};

/// A durable subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Subscription {
    /// Letters, digits, `-`, `_`, `.` and `/`.
    pub name: String,
    /// Which topics; each is delivered in order, and none waits for another.
    pub topics: Vec<String>,
    /// Where it begins in topics that are new to it.
    #[serde(default)]
    pub start: Start,
    /// What happens after a failure.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// The longest time of one delivery, in milliseconds; then it has failed.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How many events may be delivered before their offset is kept. After a crash that many may come again.
    #[serde(default = "default_batch")]
    pub batch: u32,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// With the oldest event that is kept.
    Earliest,
    /// With what is published from now on.
    #[default]
    Latest,
    /// With the first event that is as young as this.
    Time {
        /// In milliseconds since 1970.
        time_ms: i64,
    },
}

/// What happens after a failed delivery: exponential backoff with a cap and jitter, then the dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Deliveries of one event that may fail, the first included; then it is a dead letter.
    pub attempts: u32,
    /// The delay before the second attempt, in milliseconds.
    pub base_ms: u64,
    /// What each further delay is multiplied with.
    pub factor: f64,
    /// The longest delay, in milliseconds.
    pub cap_ms: u64,
    /// The share of each delay, 0 to 1, that chance may take away.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { attempts: 10, base_ms: 1_000, factor: 2.0, cap_ms: 600_000, jitter: 0.5 }
    }
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_batch() -> u32 {
    100
}

impl Subscription {
    /// A subscription to these topics, from now on; everything else by default.
    pub fn new<T: Into<String>>(name: impl Into<String>, topics: impl IntoIterator<Item = T>) -> Subscription {
        Subscription {
            name: name.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            start: Start::default(),
            retry: RetryPolicy::default(),
            timeout_ms: default_timeout_ms(),
            batch: default_batch(),
        }
    }

    /// The JSON schema of subscriptions.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Subscription).to_value()
    }

    /// Everything that can be said of it without looking elsewhere.
    pub fn check(&self) -> Result<()> {
        check_subscription_name(&self.name)?;
        self.check_parts().map_err(|error| error.context(format!("subscription `{}`", self.name)))
    }

    fn check_parts(&self) -> Result<()> {
        let count = self.topics.len();
        if !(1..=SUBSCRIPTION_TOPICS_MAX).contains(&count) {
            return Err(Error::invalid(format!("{count} topics; it must be 1 to {SUBSCRIPTION_TOPICS_MAX}")));
        }
        for (number, topic) in self.topics.iter().enumerate() {
            check_topic(topic)?;
            if self.topics[..number].contains(topic) {
                return Err(Error::invalid(format!("topic `{topic}` stands there twice; leave one out")));
            }
        }
        if !(1..=BATCH_MAX).contains(&self.batch) {
            return Err(Error::invalid(format!("a batch of {}; it must be 1 to {BATCH_MAX}", self.batch)));
        }
        check_span("timeout-ms", self.timeout_ms, 1)?;
        self.retry.check()
    }
}

impl RetryPolicy {
    fn check(&self) -> Result<()> {
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts) {
            return Err(Error::invalid(format!("{} attempts; it must be 1 to {ATTEMPTS_MAX}", self.attempts)));
        }
        if !(self.factor >= 1.0 && self.factor <= 1000.0) {
            return Err(Error::invalid(format!("a factor of {}; it must be 1 to 1000", self.factor)));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(Error::invalid(format!("a jitter of {}; it must be 0 to 1", self.jitter)));
        }
        check_span("base-ms", self.base_ms, 0)?;
        check_span("cap-ms", self.cap_ms, 0)
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { base_ms: self.base_ms, factor: self.factor, cap_ms: self.cap_ms, jitter: self.jitter }
    }
}

pub(crate) fn check_span(what: &str, span_ms: u64, min: u64) -> Result<()> {
    if (min..=SPAN_MS_MAX).contains(&span_ms) {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} of {span_ms}; it must be {min} to {SPAN_MS_MAX}")))
}

/// Names are parts of keys and are shown to people.
pub(crate) fn check_subscription_name(name: &str) -> Result<()> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::invalid(format!(
        "`{shown}` is no name of a subscription; it has 1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, `-`, `_`, \
         `.`, `/`"
    )))
}

/// A subscription as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SubscriptionRecord {
    /// What the subscriber said.
    pub subscription: Subscription,
    /// When it was first said, in milliseconds since 1970.
    pub created_ms: i64,
    /// While it is paused nothing is delivered.
    pub paused: bool,
}

/// How far a subscription has come in one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Position {
    /// Every event up to here was delivered, is a dead letter, or was lost.
    pub after: Offset,
    /// Grows whenever somebody moves the place by hand, so that a delivery that began before does not move it back. Begins
    /// with the commit at which the place was made, so that it differs from that of a place that was there before.
    pub moved: u64,
    /// How often the next event's delivery has failed.
    pub failures: u32,
    /// When it is tried next, in milliseconds since 1970.
    pub not_before_ms: i64,
    /// Why it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Events that retention removed before they were delivered.
    pub lost: u64,
}

impl Position {
    pub(crate) fn at(after: Offset, moved: u64) -> Position {
        Position { after, moved, failures: 0, not_before_ms: i64::MIN, reason: None, lost: 0 }
    }

    /// Everything up to here is done.
    pub(crate) fn done_to(&self, after: Offset) -> Position {
        Position { after, failures: 0, not_before_ms: i64::MIN, reason: None, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(part: Value, expect: &str) {
        let mut whole = json!({"name": "mail", "topics": ["a"]});
        whole.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        let read = serde_json::from_value::<Subscription>(whole.clone()).map_err(|error| error.to_string());
        match read.and_then(|subscription| subscription.check().map_err(|error| error.to_string())) {
            Ok(()) => assert_eq!(expect, "", "{whole}"),
            Err(error) => assert!(!expect.is_empty() && error.contains(expect), "{whole}: {error}"),
        }
    }

    #[test]
    fn subscriptions_are_checked_at_their_limits() {
        let topics = |count: usize| (0..count).map(|number| format!("t{number}")).collect::<Vec<_>>();
        check(json!({}), "");
        check(json!({"colour": 1}), "unknown field");
        check(json!({"name": "n".repeat(128)}), "");
        check(json!({"name": "n".repeat(129)}), "1 to 128");
        check(json!({"name": ""}), "no name");
        check(json!({"topics": []}), "1 to 32");
        check(json!({"topics": topics(32)}), "");
        check(json!({"topics": topics(33)}), "1 to 32");
        check(json!({"topics": ["a", "a"]}), "twice");
        check(json!({"topics": ["A"]}), "no name of a topic");
        check(json!({"batch": 1_000}), "");
        check(json!({"batch": 1_001}), "1 to 1000");
        check(json!({"batch": 0}), "1 to 1000");
        check(json!({"timeout-ms": 0}), "timeout-ms");
        check(json!({"timeout-ms": SPAN_MS_MAX}), "");
        check(json!({"timeout-ms": SPAN_MS_MAX + 1}), "timeout-ms");
        check(json!({"retry": {"attempts": 100}}), "");
        check(json!({"retry": {"attempts": 101}}), "1 to 100");
        check(json!({"retry": {"attempts": 0}}), "1 to 100");
        check(json!({"retry": {"factor": 0.9}}), "factor");
        check(json!({"retry": {"jitter": 1.1}}), "jitter");
        check(json!({"start": {"kind": "time", "time-ms": 5}}), "");
    }
}
