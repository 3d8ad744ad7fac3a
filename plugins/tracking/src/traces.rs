//! Traces, which this server does not keep yet: refused so that clients stop at once and lose nothing else.
//!
//! Clients ask for `/version`, then send spans; 501 is not among the statuses that they repeat. Reading answers "there
//! are none" where a list is asked for, so that pages and scripts that look for traces beside runs go on working.

use crate::errors::{Code, Failure, Outcome};
use mainstay_sdk::http::{Reply, Request};

/// The refusal.
pub fn not_supported() -> Failure {
    Failure::new(Code::NotImplemented, "Traces are not supported by this server yet. Runs, models and artifacts are.")
}

fn nothing() -> Reply {
    Reply::status(200).header("content-type", "application/json").with_body("{}")
}

/// Endpoints below `2.0/mlflow/traces`.
pub fn v2(method: &str, rest: &str) -> Outcome<Reply> {
    match (method, rest) {
        ("GET", "traces") | ("POST", "traces/search") => Ok(nothing()),
        _ => Err(not_supported()),
    }
}

/// Endpoints below `3.0/mlflow/traces`.
pub fn v3(request: &Request, method: &str, rest: &str) -> Outcome<Reply> {
    match (method, rest) {
        ("POST", "traces/search" | "traces/batchGetInfos") | ("GET", "traces/batchGet") => Ok(nothing()),
        ("GET", "traces/get") => Err(unknown(request.query().get("trace_id").unwrap_or(""))),
        ("GET", _) => Err(unknown(rest.strip_prefix("traces/").unwrap_or(rest))),
        _ => Err(not_supported()),
    }
}

fn unknown(id: &str) -> Failure {
    Failure::missing(format!("Trace with ID '{id}' not found."))
}
