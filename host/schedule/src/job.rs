//! A job as it is kept: its definition, and how far its triggers have come.
//!
//! Owns [`JobRecord`]. Separate from the definition, which is the operator's; this is the scheduler's. A trigger's place is
//! the scheduled time of its next occurrence, and it only moves forward: a clock that jumps back finds nothing due again.
//! Bounded by the definition's limits. On failure: a trigger that no longer makes sense (a zone that this machine lost) stops
//! the job from firing with an error that names it.

use mainstay_base::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::JobDefinition;
use crate::keys::{self, Key};
use crate::trigger::{Moments, Trigger};

/// A job as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobRecord {
    /// What the operator said.
    pub definition: JobDefinition,
    /// Grows with every change.
    pub revision: u64,
    /// When it was first applied, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was changed last.
    pub updated_ms: i64,
    /// While it is paused no run of it begins.
    pub paused: bool,
    /// In the order of the definition's triggers, those by event left out.
    pub triggers: Vec<TriggerState>,
}

/// How far a time trigger has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TriggerState {
    /// The trigger's key.
    pub trigger: String,
    /// When the trigger was first applied.
    pub applied_ms: i64,
    /// Its next occurrence; none: there is no further one.
    pub next_ms: Option<i64>,
}

impl JobRecord {
    /// A new job, or the next revision of one. Triggers that were there keep their place.
    pub(crate) fn of(definition: JobDefinition, before: Option<&JobRecord>, now_ms: i64) -> Result<JobRecord> {
        let mut triggers = Vec::new();
        for trigger in &definition.triggers {
            let key = trigger.key();
            let known = before.and_then(|record| record.triggers.iter().find(|state| state.trigger == key));
            match (known, trigger.moments(now_ms)?) {
                (Some(state), _) => triggers.push(state.clone()),
                (None, Some(moments)) => {
                    triggers.push(TriggerState { trigger: key, applied_ms: now_ms, next_ms: moments.first(now_ms) })
                }
                (None, None) => {}
            }
        }
        Ok(JobRecord {
            definition,
            revision: before.map_or(1, |record| record.revision + 1),
            created_ms: before.map_or(now_ms, |record| record.created_ms),
            updated_ms: now_ms,
            paused: before.is_some_and(|record| record.paused),
            triggers,
        })
    }

    /// The next occurrence of any trigger, whether paused or not.
    pub fn next_ms(&self) -> Option<i64> {
        self.triggers.iter().filter_map(|state| state.next_ms).min()
    }

    /// The moments of a trigger by its key.
    pub(crate) fn moments(&self, state: &TriggerState) -> Result<Option<Moments>> {
        match self.definition.triggers.iter().find(|trigger| trigger.key() == state.trigger) {
            Some(trigger) => trigger.moments(state.applied_ms),
            None => Ok(None),
        }
    }

    pub(crate) fn due_key(&self) -> Option<Key> {
        let next_ms = self.next_ms().filter(|_| !self.paused)?;
        Some(keys::due_job(next_ms, &self.definition.name))
    }

    pub(crate) fn topic_keys(&self) -> Vec<Key> {
        let topics = self.definition.triggers.iter().filter_map(|trigger| match trigger {
            Trigger::Event { topic } => Some(keys::topic(topic, &self.definition.name)),
            _ => None,
        });
        topics.collect()
    }
}
