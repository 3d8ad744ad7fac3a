//! What an operator says about a job, as data.
//!
//! Owns [`JobDefinition`] and its parts, their defaults, their JSON schema and their checks. Separate from everything that
//! happens to a job, because a definition is read, shown and compared without a clock or a store. What is to be done is an
//! opaque [`Action`]: only the executor of its kind reads the settings.
//!
//! Bounded by [`crate::limits`]. On failure: a definition that does not make sense is `invalid` and says which part.

use mainstay_base::{Backoff, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::limits::{
    ATTEMPTS_MAX, CALLBACKS_MAX, CATCH_UP_MAX, DOCUMENT_BYTES_MAX, NAME_BYTES_MAX, PLUGINS_MAX, SPAN_MS_MAX,
    TRIGGERS_MAX,
};
use crate::trigger::Trigger;

/// Parameters of a job or a run.
pub type Parameters = Map<String, Value>;

/// A durable job: what to do, when, and what to do when it goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JobDefinition {
    /// Letters, digits, `-`, `_`, `.` and `/`.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What is carried out.
    pub action: Action,
    /// Handed to the action; a start may replace some of them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Parameters,
    /// When it is started by itself; none: only when asked to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// What happens after a failure.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// The longest time of one attempt, in milliseconds; it is stopped then, and may be retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_timeout_ms: Option<u64>,
    /// The longest time of the whole run from its start to its end, waiting and retries included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The longest silence of an attempt, for actions that give signs of life, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout_ms: Option<u64>,
    /// How long to wait after an attempt that answered "not yet", in milliseconds, unless it named a time.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
    /// Whose slots its attempts take.
    #[serde(default = "default_pool")]
    pub pool: String,
    /// Higher goes first within its pool.
    #[serde(default)]
    pub priority: i32,
    /// How many of its runs may have begun and not ended, those between two attempts included; none: any number.
    #[serde(default = "default_concurrency")]
    pub concurrency: Option<u32>,
    /// What happens with occurrences that were missed, because nobody was there or the job was paused.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// What is late, and what happens with an occurrence that could not begin in time.
    #[serde(default)]
    pub misfire: Misfire,
    /// Other jobs that are started by what becomes of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<Callback>,
    /// Plugins that may start it; none may unless it is named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
}

/// What is carried out, and by which executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Action {
    /// Names the executor, for example `process`.
    pub kind: String,
    /// The executor's own settings.
    #[serde(default)]
    pub settings: Value,
}

/// What happens after a failure that may pass: exponential backoff with a cap and jitter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts that may fail, the first included; 1 means no retry.
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
        RetryPolicy { attempts: 1, base_ms: 10_000, factor: 2.0, cap_ms: 600_000, jitter: 0.5 }
    }
}

impl RetryPolicy {
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { base_ms: self.base_ms, factor: self.factor, cap_ms: self.cap_ms, jitter: self.jitter }
    }
}

/// What happens with occurrences that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CatchUp {
    /// They are skipped.
    None,
    /// The newest is run if nothing newer is on time, the others are skipped.
    #[default]
    Last,
    /// The newest `limit` of them are run, oldest first; those before are skipped.
    All {
        /// How many.
        limit: u32,
    },
}

/// What is late, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Misfire {
    /// How long after its scheduled time an occurrence is still on time, in milliseconds.
    pub grace_ms: u64,
    /// What happens with an occurrence that was noticed in time, and still waits for a slot when the grace is over.
    pub policy: MisfirePolicy,
}

impl Default for Misfire {
    fn default() -> Misfire {
        Misfire { grace_ms: 60_000, policy: MisfirePolicy::Run }
    }
}

/// See [`Misfire::policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MisfirePolicy {
    /// It goes on waiting, and runs late.
    Run,
    /// It is skipped, and recorded so.
    Skip,
}

/// Another job that is started by what becomes of a run, in the same transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Callback {
    /// When.
    pub on: On,
    /// Which job; what it is started with names the run, its job, and the reason or result under `cause`.
    pub job: String,
    /// Further parameters.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Parameters,
}

/// What becomes of a run, as callbacks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// It ended well.
    Success,
    /// It ended badly, and is not tried again.
    Failure,
    /// An attempt failed, and another will follow.
    Retry,
    /// One occurrence, or a row of missed ones, is not run at all.
    Skipped,
}

/// Slots that attempts take while they are carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pool {
    /// What jobs name it.
    pub name: String,
    /// How many attempts at once.
    pub slots: u32,
}

/// The pool of jobs that name none.
pub const DEFAULT_POOL: &str = "default";

fn default_pool() -> String {
    DEFAULT_POOL.to_owned()
}

fn default_poll_ms() -> u64 {
    60_000
}

fn default_concurrency() -> Option<u32> {
    Some(1)
}

impl JobDefinition {
    /// A job that does this when asked to; everything else by default.
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> JobDefinition {
        JobDefinition {
            name: name.into(),
            description: String::new(),
            action: Action { kind: kind.into(), settings: Value::Null },
            parameters: Map::new(),
            triggers: Vec::new(),
            retry: RetryPolicy::default(),
            attempt_timeout_ms: None,
            deadline_ms: None,
            heartbeat_timeout_ms: None,
            poll_ms: default_poll_ms(),
            pool: default_pool(),
            priority: 0,
            concurrency: default_concurrency(),
            catch_up: CatchUp::default(),
            misfire: Misfire::default(),
            callbacks: Vec::new(),
            plugins: Vec::new(),
        }
    }

    /// The JSON schema of definitions.
    pub fn schema() -> Value {
        schemars::schema_for!(JobDefinition).to_value()
    }

    /// Everything that can be said of a definition without looking elsewhere. The settings are the executor's to check.
    pub fn check(&self) -> Result<()> {
        let named = |error: Error| error.context(format!("job `{}`", self.name));
        check_name("job", &self.name)?;
        self.check_parts().map_err(named)
    }

    fn check_parts(&self) -> Result<()> {
        check_name("kind of action", &self.action.kind)?;
        check_name("pool", &self.pool)?;
        check_count("triggers", self.triggers.len(), TRIGGERS_MAX)?;
        check_count("callbacks", self.callbacks.len(), CALLBACKS_MAX)?;
        check_document("the definition", self)?;
        for (number, trigger) in self.triggers.iter().enumerate() {
            trigger.check().map_err(|error| error.context(format!("trigger {number}")))?;
            if self.triggers[..number].contains(trigger) {
                return Err(Error::invalid(format!("trigger {number} stands there twice; leave one out")));
            }
        }
        for callback in &self.callbacks {
            check_name("job of a callback", &callback.job)?;
        }
        check_count("plugins", self.plugins.len(), PLUGINS_MAX)?;
        for plugin in &self.plugins {
            check_name("plugin", plugin)?;
        }
        self.retry.check()?;
        check_span("attempt-timeout-ms", self.attempt_timeout_ms, 1)?;
        check_span("deadline-ms", self.deadline_ms, 1)?;
        check_span("heartbeat-timeout-ms", self.heartbeat_timeout_ms, 1)?;
        check_span("poll-ms", Some(self.poll_ms), 1)?;
        check_span("grace-ms", Some(self.misfire.grace_ms), 0)?;
        if self.concurrency == Some(0) {
            return Err(Error::invalid("a concurrency of 0 never runs anything; pause the job instead"));
        }
        match self.catch_up {
            CatchUp::All { limit } if !(1..=CATCH_UP_MAX).contains(&limit) => {
                Err(Error::invalid(format!("a catch-up limit of {limit}; it must be 1 to {CATCH_UP_MAX}")))
            }
            _ => Ok(()),
        }
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
        check_span("base-ms", Some(self.base_ms), 0)?;
        check_span("cap-ms", Some(self.cap_ms), 0)
    }
}

/// Names are parts of keys and are shown to people.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::invalid(format!(
        "`{shown}` is no name of a {what}; it has 1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, `-`, `_`, `.`, `/`"
    )))
}

fn check_count(what: &str, count: usize, max: usize) -> Result<()> {
    if count <= max {
        return Ok(());
    }
    Err(Error::invalid(format!("{count} {what}; at most {max} are allowed")))
}

fn check_span(what: &str, span_ms: Option<u64>, min: u64) -> Result<()> {
    match span_ms {
        Some(span) if !(min..=SPAN_MS_MAX).contains(&span) => {
            Err(Error::invalid(format!("{what} of {span}; it must be {min} to {SPAN_MS_MAX}")))
        }
        _ => Ok(()),
    }
}

/// Refuse what is too large to be kept with every run.
pub(crate) fn check_document(what: &str, document: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(document).map_err(|error| Error::invalid(format!("{what}: {error}")))?.len();
    if bytes <= DOCUMENT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} has {bytes} bytes; at most {DOCUMENT_BYTES_MAX} are allowed; keep large things as blobs and name them"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(part: Value, expect: &str) {
        let mut whole = json!({"name": "nightly", "action": {"kind": "process"}});
        whole.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        let read = serde_json::from_value::<JobDefinition>(whole.clone()).map_err(|error| error.to_string());
        let checked = read.and_then(|job| job.check().map_err(|error| error.to_string()));
        match checked {
            Ok(()) => assert_eq!(expect, "", "{whole}"),
            Err(error) => assert!(!expect.is_empty() && error.contains(expect), "{whole}: {error}"),
        }
    }

    #[test]
    fn definitions_are_checked() {
        check(json!({}), "");
        check(json!({"name": ""}), "no name of a job");
        check(json!({"name": "a b"}), "no name of a job");
        check(json!({"name": "a".repeat(129)}), "1 to 128");
        check(json!({"colour": 1}), "unknown field");
        check(json!({"retry": {"attempts": 0}}), "1 to 100");
        check(json!({"retry": {"attempts": 100}}), "");
        check(json!({"retry": {"attempts": 101}}), "1 to 100");
        check(json!({"retry": {"factor": 0.5}}), "factor");
        check(json!({"retry": {"jitter": 1.5}}), "jitter");
        check(json!({"concurrency": 0}), "pause the job");
        check(json!({"concurrency": null}), "");
        check(json!({"deadline-ms": 0}), "deadline-ms");
        check(json!({"catch-up": {"kind": "all", "limit": 1000}}), "");
        check(json!({"catch-up": {"kind": "all", "limit": 1001}}), "1 to 1000");
        check(json!({"triggers": [{"kind": "cron", "expression": "0 3 * * *", "time-zone": "Europe/Berlin"}]}), "");
        check(json!({"triggers": [{"kind": "cron", "expression": "0 3 * *"}]}), "trigger 0");
        check(
            json!({"triggers": [{"kind": "cron", "expression": "0 3 * * *", "time-zone": "Mars/Base"}]}),
            "Mars/Base",
        );
        check(json!({"triggers": [{"kind": "interval", "every-ms": 99}]}), "every-ms");
        check(json!({"triggers": [{"kind": "event", "topic": "a"}, {"kind": "event", "topic": "a"}]}), "twice");
        check(json!({"callbacks": [{"on": "failure", "job": "page-someone"}]}), "");
        check(json!({"parameters": {"a": "x".repeat(65_536)}}), "65536");
    }

    #[test]
    fn the_schema_names_every_part() {
        let schema = JobDefinition::schema().to_string();
        for part in ["catch-up", "attempt-timeout-ms", "callbacks", "time-zone", "grace-ms", "jitter"] {
            assert!(schema.contains(part), "{part}");
        }
    }
}
