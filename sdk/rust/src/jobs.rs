//! Runs of durable jobs that the operator has defined.
//!
//! Owns looking them up; starting one is part of a transaction ([`Transaction::start_job`](crate::Transaction::start_job)).
//! Needs the capability `jobs.start`, and jobs whose definition names this plugin. Bounded by: 64 runs a call. On failure: the
//! host's typed error.

use crate::{Result, sys};
use serde_json::Value;

/// One run of a job, as it was when it was looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its name.
    pub id: String,
    /// The job's name.
    pub job: String,
    /// `scheduled`, `waiting`, `ready`, `running`, `delayed` or, at the end, `success`, `failure`, `skipped`, `cancelled`.
    pub state: String,
    /// Why it ended so.
    pub reason: String,
    /// What came out of it; none before it has ended.
    pub outcome: Option<Value>,
    /// When it ended, in milliseconds since 1970-01-01 UTC.
    pub ended_ms: Option<i64>,
}

/// Look a run up; none when it is not there, or not this plugin's to see.
pub fn find(run: &str) -> Result<Option<Run>> {
    sys::find_run(run)
}
