//! One run of a job, as it is kept.
//!
//! Owns [`Run`] and its parts: where it came from, the plan that it is carried out by (taken from the definition when it was
//! started, so that a change of the definition touches only later runs), its state, its attempts. Separate from
//! [`crate::state`], which moves a run from state to state. Bounded by [`crate::limits`]: attempts by the retry policy (of
//! polls only the last is kept), results and reasons by their bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{Action, Callback, JobDefinition, On, Parameters, RetryPolicy};

/// Names a run: 32 hexadecimal digits; later ones are mostly larger.
pub type RunId = String;

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// Of which job.
    pub job: String,
    /// Which revision of the definition the plan was taken from.
    pub revision: u64,
    /// Why there is this run.
    pub cause: Cause,
    /// How it is carried out.
    pub plan: Plan,
    /// What the action is given.
    pub parameters: Parameters,
    /// The occurrence that it stands for, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<i64>,
    /// When it was started.
    pub created_ms: i64,
    /// When it fails if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<i64>,
    /// When it is skipped if it has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_by_ms: Option<i64>,
    /// The key that a start came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// How many callbacks led here.
    #[serde(default)]
    pub depth: u32,
    /// Where it is.
    pub state: RunState,
    /// The fencing token of the newest attempt; it only grows.
    pub token: u64,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that answered "not yet".
    pub polls: u64,
    /// What was tried, oldest first.
    pub attempts: Vec<Attempt>,
    /// What the scheduler has to say, for example that a callback could not be started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The parts of a definition that a run is carried out by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// What is carried out.
    pub action: Action,
    /// What happens after a failure.
    pub retry: RetryPolicy,
    /// The longest time of one attempt, in milliseconds.
    pub attempt_timeout_ms: Option<u64>,
    /// The longest silence of an attempt, in milliseconds.
    pub heartbeat_timeout_ms: Option<u64>,
    /// The wait behind "not yet", in milliseconds.
    pub poll_ms: u64,
    /// Whose slots attempts take.
    pub pool: String,
    /// Higher goes first.
    pub priority: i32,
    /// What is started by what becomes of the run.
    pub callbacks: Vec<Callback>,
}

impl Plan {
    pub(crate) fn of(definition: &JobDefinition) -> Plan {
        Plan {
            action: definition.action.clone(),
            retry: definition.retry.clone(),
            attempt_timeout_ms: definition.attempt_timeout_ms,
            heartbeat_timeout_ms: definition.heartbeat_timeout_ms,
            poll_ms: definition.poll_ms,
            pool: definition.pool.clone(),
            priority: definition.priority,
            callbacks: definition.callbacks.clone(),
        }
    }
}

/// Why there is a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Cause {
    /// An occurrence of a time trigger.
    Trigger {
        /// The trigger's key.
        trigger: String,
        /// Whether it was missed and caught up.
        is_late: bool,
    },
    /// A row of missed occurrences that is not run; this run stands for all of them and is skipped.
    Missed {
        /// The trigger's key.
        trigger: String,
        /// The first of them.
        first_ms: i64,
        /// The last of them.
        last_ms: i64,
        /// How many.
        count: u64,
        /// Whether there were more than that.
        is_more: bool,
    },
    /// An occurrence of the past that somebody asked for.
    Backfill {
        /// The trigger's key.
        trigger: String,
    },
    /// An event.
    Event {
        /// Its topic.
        topic: String,
    },
    /// What became of another run.
    Callback {
        /// That run.
        run: RunId,
        /// What.
        on: On,
    },
    /// Somebody asked.
    Request,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum RunState {
    /// Its time has not come.
    Scheduled {
        /// When it does.
        until_ms: i64,
    },
    /// Its job is paused, or has as many runs as it may have.
    Waiting {
        /// Since when.
        since_ms: i64,
    },
    /// It wants a slot of its pool.
    Ready {
        /// Since when.
        since_ms: i64,
    },
    /// An attempt is being carried out, and its owner holds the lease.
    Running {
        /// Who.
        owner: String,
        /// Since when.
        started_ms: i64,
        /// When the owner counts as gone, unless it gives a sign before.
        lease_ms: i64,
        /// Why the attempt is asked to stop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<Stop>,
    },
    /// Between two attempts.
    Delayed {
        /// When the next one may begin.
        until_ms: i64,
    },
    /// Nothing follows.
    Ended {
        /// How.
        end: RunEnd,
        /// Why, or what came out.
        reason: String,
        /// When.
        at_ms: i64,
        /// The action's result.
        #[serde(default)]
        result: Value,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// The action succeeded.
    Success,
    /// It failed, and is not tried again.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It never began.
    Skipped,
}

/// Why an attempt is asked to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Stop {
    /// Which kind.
    pub kind: StopKind,
    /// In words.
    pub reason: String,
}

/// Why an attempt is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StopKind {
    /// It took longer than one attempt may.
    Timeout,
    /// The run took longer than it may.
    Deadline,
    /// Somebody cancelled the run.
    Cancel,
}

/// One time that a run was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Attempt {
    /// Its fencing token.
    pub token: u64,
    /// Who carried it out.
    pub owner: String,
    /// When it was taken.
    pub started_ms: i64,
    /// When and how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<AttemptEnd>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AttemptEnd {
    /// Which kind.
    pub kind: AttemptEndKind,
    /// In words.
    pub reason: String,
    /// When this was recorded.
    pub at_ms: i64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptEndKind {
    /// The action succeeded.
    Success,
    /// The action failed.
    Failed,
    /// The action's condition is not met yet.
    NotYet,
    /// It was stopped because its time was over.
    TimedOut,
    /// It was stopped because the run was cancelled.
    Cancelled,
    /// Its owner gave no sign until the lease was over; whether it did its work is unknown.
    Lost,
}

impl Run {
    /// Whether nothing follows.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, RunState::Ended { .. })
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<RunEnd> {
        match &self.state {
            RunState::Ended { end, .. } => Some(*end),
            _ => None,
        }
    }
}
