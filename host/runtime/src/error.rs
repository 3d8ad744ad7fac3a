//! Why a call has no answer: one type, each case with the plugin, the limit, its value and the remedy.
//!
//! Owns the mapping to [`mainstay_base::ErrorKind`] and to an HTTP status. A limit that a plugin exhausted is never
//! answered with a status that makes clients try again: the same request would exhaust it again.

use std::fmt;
use std::sync::Arc;

use mainstay_base::{Error, ErrorKind};

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The processor time of the plugin's own code.
    Cpu,
    /// The time from start to answer.
    Wall,
}

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The plugin answered with an error; its kind and words are the plugin's.
    Failed(Error),
    /// The plugin's code trapped: a panic, an invalid access, an unreachable instruction.
    Trap {
        /// Whose code.
        plugin: Arc<str>,
        /// What the engine says, with the backtrace of the plugin's code. The log has it already.
        reason: String,
    },
    /// A deadline passed.
    TimedOut {
        /// Whose call.
        plugin: Arc<str>,
        /// Which of the two.
        deadline: Deadline,
        /// Its value.
        limit_ms: u64,
    },
    /// The plugin asked for more memory than it may have.
    OutOfMemory {
        /// Who asked.
        plugin: Arc<str>,
        /// What it may have.
        limit_bytes: usize,
        /// What it would have had.
        wanted_bytes: usize,
    },
    /// The plugin used something that it was not granted, in a place where it could not be told.
    Denied {
        /// Who.
        plugin: Arc<str>,
        /// The missing capability.
        capability: &'static str,
    },
    /// The plugin's answer is larger than it may be.
    OutputTooLarge {
        /// Whose answer.
        plugin: Arc<str>,
        /// How large it may be.
        limit_bytes: usize,
    },
    /// The plugin called the host more often than it may in one call.
    HostCalls {
        /// Who called.
        plugin: Arc<str>,
        /// How often it may.
        limit: u64,
    },
    /// All of the plugin's places are taken, and its queue is full.
    Busy {
        /// Which plugin.
        plugin: Arc<str>,
        /// Calls that run at the same time.
        concurrency: usize,
        /// Places in the queue.
        queue: usize,
    },
    /// The plugin failed so often that it is not called for a while.
    Quarantined {
        /// Which plugin.
        plugin: Arc<str>,
        /// Failures in a row.
        failures: u32,
        /// How long it stays so.
        retry_after_ms: u64,
    },
    /// A fault of the host.
    Host(Error),
}

/// Result of a call.
pub type CallResult<T> = Result<T, CallError>;

impl CallError {
    /// A short word for metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Failed(_) => "failed",
            CallError::Trap { .. } => "trap",
            CallError::TimedOut { .. } => "timed-out",
            CallError::OutOfMemory { .. } => "out-of-memory",
            CallError::Denied { .. } => "denied",
            CallError::OutputTooLarge { .. } => "output-too-large",
            CallError::HostCalls { .. } => "host-calls",
            CallError::Busy { .. } => "busy",
            CallError::Quarantined { .. } => "quarantined",
            CallError::Host(_) => "host",
        }
    }

    /// The kind that crosses the host's inner boundaries.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CallError::Failed(error) | CallError::Host(error) => error.kind(),
            CallError::Trap { .. } => ErrorKind::Internal,
            CallError::Denied { .. } => ErrorKind::Denied,
            CallError::Busy { .. } | CallError::Quarantined { .. } => ErrorKind::Unavailable,
            CallError::TimedOut { .. }
            | CallError::OutOfMemory { .. }
            | CallError::OutputTooLarge { .. }
            | CallError::HostCalls { .. } => ErrorKind::Exhausted,
        }
    }

    /// The status of the HTTP answer. Exhausted limits are 422: the request is understood, and asking again is useless.
    pub fn status(&self) -> u16 {
        match self {
            CallError::TimedOut { .. }
            | CallError::OutOfMemory { .. }
            | CallError::OutputTooLarge { .. }
            | CallError::HostCalls { .. } => 422,
            CallError::Busy { .. } | CallError::Quarantined { .. } => 503,
            CallError::Failed(error) | CallError::Host(error) => status_of(error.kind()),
            CallError::Trap { .. } => 500,
            CallError::Denied { .. } => 403,
        }
    }

    /// Whether this failure counts towards quarantine: the plugin's code misbehaved, rather than answered.
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, CallError::Trap { .. } | CallError::TimedOut { .. } | CallError::OutOfMemory { .. })
    }

    /// Whether the instance that it happened in may be used again.
    pub(crate) fn spares_instance(&self) -> bool {
        matches!(self, CallError::Failed(_))
    }
}

/// The status that an error of this kind is answered with (world `api` says so).
pub fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::NotFound => 404,
        ErrorKind::Invalid => 400,
        ErrorKind::Denied => 403,
        ErrorKind::Conflict => 409,
        ErrorKind::Exhausted => 507,
        ErrorKind::Unavailable => 503,
        ErrorKind::Internal | ErrorKind::Other => 500,
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Failed(error) | CallError::Host(error) => error.fmt(f),
            CallError::Trap { plugin, .. } => {
                write!(
                    f,
                    "the plugin `{plugin}` stopped with a fault of its own; its operator finds the trace in the log"
                )
            }
            CallError::TimedOut { plugin, deadline: Deadline::Cpu, limit_ms } => write!(
                f,
                "the plugin `{plugin}` computed for more than its limit of {limit_ms} ms in one call; ask for less at a time, or raise `call-cpu-ms`"
            ),
            CallError::TimedOut { plugin, deadline: Deadline::Wall, limit_ms } => write!(
                f,
                "the plugin `{plugin}` did not answer within its limit of {limit_ms} ms; ask for less at a time, or raise `call-wall-ms`"
            ),
            CallError::OutOfMemory { plugin, limit_bytes, wanted_bytes } => write!(
                f,
                "the plugin `{plugin}` wanted {wanted_bytes} bytes of memory, its limit is {limit_bytes}; ask for less at a time, or raise `memory-mib`"
            ),
            CallError::Denied { plugin, capability } => write!(
                f,
                "the plugin `{plugin}` may not use `{capability}`; its manifest must ask for it and an operator must grant it"
            ),
            CallError::OutputTooLarge { plugin, limit_bytes } => write!(
                f,
                "the answer of the plugin `{plugin}` is larger than its limit of {limit_bytes} bytes; ask for less at a time, or raise `output-kib`"
            ),
            CallError::HostCalls { plugin, limit } => write!(
                f,
                "the plugin `{plugin}` called the host more than its limit of {limit} times in one call; ask for less at a time, or raise `host-calls`"
            ),
            CallError::Busy { plugin, concurrency, queue } => write!(
                f,
                "the plugin `{plugin}` is busy: {concurrency} calls run and {queue} wait; try again shortly, or raise `concurrency` or `queue`"
            ),
            CallError::Quarantined { plugin, failures, retry_after_ms } => write!(
                f,
                "the plugin `{plugin}` failed {failures} times in a row and is not called for another {retry_after_ms} ms; its operator finds the reasons in the log"
            ),
        }
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        match error {
            CallError::Failed(error) | CallError::Host(error) => error,
            other => Error::new(other.kind(), other.to_string()).with_source(other),
        }
    }
}
