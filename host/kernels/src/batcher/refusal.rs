//! Why a call did not get its answer.
//!
//! Owns the one error type of the batcher's boundary. Separate from [`Error`] because callers act on the difference: a
//! full queue is tried again later (429 with a time, or 503 where a protocol wants it), a missed deadline is not.

use std::fmt;
use std::time::Duration;

use mainstay_base::{Error, ErrorKind};

/// Which bound of the queue was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Requests that wait, of all callers.
    QueueRequests,
    /// Rows that wait, of all callers.
    QueueRows,
    /// Requests of this caller that wait.
    CallerRequests,
    /// Rows of this caller that wait.
    CallerRows,
    /// The queue is not full, but long enough that this caller or level has to stand back.
    Shed,
}

/// Why a call did not get its answer. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The queue holds as much as it may; refused at once, nothing was queued.
    Exhausted {
        /// Which bound.
        bound: Bound,
        /// Its configured value.
        limit: usize,
        /// About when there will be room, from the launches measured so far.
        retry_after: Duration,
    },
    /// The call's deadline passed before its answer was there.
    DeadlineMissed,
    /// Somebody cancelled the call.
    Cancelled,
    /// The batcher is shutting down, or was.
    Closed,
    /// The call is wrong, or its launch failed.
    Failed(Error),
}

impl Refusal {
    /// When to try again, if that is of use.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Exhausted { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The kind that crosses to plugins and becomes an HTTP status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Refusal::Exhausted { .. } => ErrorKind::Exhausted,
            Refusal::DeadlineMissed | Refusal::Closed => ErrorKind::Unavailable,
            Refusal::Cancelled => ErrorKind::Other,
            Refusal::Failed(error) => error.kind(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Exhausted { bound, limit, retry_after } => {
                match bound {
                    Bound::QueueRequests => {
                        write!(f, "{limit} requests are waiting, as many as may (`queue_requests`)")
                    }
                    Bound::QueueRows => write!(f, "with this one more than {limit} rows would wait (`queue_rows`)"),
                    Bound::CallerRequests => {
                        write!(f, "{limit} requests of this caller are waiting, as many as may (`caller_requests`)")
                    }
                    Bound::CallerRows => {
                        write!(f, "with this one more than {limit} rows of this caller would wait (`caller_rows`)")
                    }
                    Bound::Shed => write!(
                        f,
                        "{limit} requests or more are waiting (`shed_from`), and this caller has its share of them or \
                         its level goes last"
                    ),
                }?;
                write!(f, "; try again in about {} ms", retry_after.as_millis())
            }
            Refusal::DeadlineMissed => f.write_str(
                "the call's deadline passed before its answer was there; allow more time or send fewer rows",
            ),
            Refusal::Cancelled => f.write_str("the call was cancelled"),
            Refusal::Closed => f.write_str("the kernel is shutting down and takes no calls; try again on another host"),
            Refusal::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Failed(error) => error,
            other => Error::new(other.kind(), other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        fn check(refusal: Refusal, kind: ErrorKind, expect: &str) {
            let error = Error::from(refusal);
            assert_eq!(error.kind(), kind);
            assert!(error.message().contains(expect), "{error}");
        }
        let full = |bound| Refusal::Exhausted { bound, limit: 7, retry_after: Duration::from_millis(12) };
        assert_eq!(full(Bound::Shed).retry_after(), Some(Duration::from_millis(12)));
        check(full(Bound::QueueRequests), ErrorKind::Exhausted, "7 requests are waiting");
        check(full(Bound::QueueRows), ErrorKind::Exhausted, "more than 7 rows would wait");
        check(full(Bound::CallerRequests), ErrorKind::Exhausted, "try again in about 12 ms");
        check(full(Bound::CallerRows), ErrorKind::Exhausted, "7 rows of this caller");
        check(full(Bound::Shed), ErrorKind::Exhausted, "`shed_from`");
        check(Refusal::DeadlineMissed, ErrorKind::Unavailable, "deadline passed");
        check(Refusal::Closed, ErrorKind::Unavailable, "shutting down");
        check(Refusal::Cancelled, ErrorKind::Other, "cancelled");
        check(Refusal::Failed(Error::internal("x")), ErrorKind::Internal, "x");
    }
}
