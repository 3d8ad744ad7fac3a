//! What a failure of an upstream means.
//!
//! Owns the judgement: may the same request be tried again, is the upstream to blame, what is it called and counted as. Separate
//! from both protocols, so that both judge alike.
//!
//! | what happened | kind | again? | its fault? |
//! | --- | --- | --- | --- |
//! | no connection | `unavailable` | yes | yes |
//! | 503, 502, 429; `UNAVAILABLE`, `RESOURCE_EXHAUSTED` | `unavailable`, `exhausted` | yes | yes |
//! | closed or reset before any of the answer | `unavailable` | if idempotent, or surely not sent | yes |
//! | half an answer | `unavailable` | no | yes |
//! | garbage, wrong lengths, too large, redirects | `internal` | no | yes |
//! | 400, 404 and other 4xx that speak of the request | as they say | no | no |
//! | 401, 403, 407; 500, 501, 504 | `unavailable`, `internal`, `other` | no | yes |
//! | nothing before the deadline | `unavailable` | no | yes |
//! | all connections busy | `exhausted` | no | no |
//!
//! Bounded: of an upstream's own words, [`limits::MESSAGE_BYTES_MAX`] are kept.

use http::StatusCode;
use mainstay_base::{Error, ErrorKind};
use mainstay_inference::{from_grpc, is_unsupported, unsupported};
use mainstay_traffic::Failure;
use tonic::{Code, Status};

use crate::counts::FailureKind;
use crate::limits;

/// A failure, and what it counts as.
#[derive(Debug)]
pub(crate) struct Stop {
    pub kind: FailureKind,
    pub failure: Failure,
}

impl Stop {
    fn new(kind: FailureKind, error: Error, is_retryable: bool, is_fault: bool) -> Stop {
        Stop { kind, failure: Failure { error, is_retryable, is_fault } }
    }

    /// There is no connection.
    pub fn unreachable(error: Error) -> Stop {
        Stop::new(FailureKind::Unreachable, error, true, true)
    }

    /// The connection ended before any of the answer came.
    pub fn reset(url: &str, why: &str, is_retryable: bool) -> Stop {
        let message = format!("the upstream `{url}` closed the connection without an answer: {why}");
        Stop::new(FailureKind::Reset, Error::unavailable(message), is_retryable, true)
    }

    /// The answer ended before it was whole.
    pub fn cut_off(url: &str, why: &str) -> Stop {
        let message = format!("the answer of the upstream `{url}` broke off in the middle: {why}");
        Stop::new(FailureKind::CutOff, Error::unavailable(message), false, true)
    }

    /// What came is no answer of the protocol.
    pub fn unreadable(url: &str, why: impl std::fmt::Display) -> Stop {
        let message = format!(
            "the upstream `{url}` answered what is not an answer of the Open Inference Protocol: {why}; check that it \
             speaks this protocol at this address"
        );
        Stop::new(FailureKind::Unreadable, Error::internal(message), false, true)
    }

    /// The answer is larger than it may be.
    pub fn too_large(url: &str, what: &str, limit_bytes: usize) -> Stop {
        let message = format!(
            "the upstream `{url}` answered with {what} of more than {limit_bytes} bytes, which is the limit; raise it for \
             this upstream, or ask for less at once"
        );
        Stop::new(FailureKind::Unreadable, Error::internal(message), false, true)
    }

    /// The request itself makes no sense, as far as can be seen here.
    pub fn sender(error: Error) -> Stop {
        Stop::new(FailureKind::Sender, error, false, false)
    }

    /// Nothing came before the deadline.
    pub fn late(url: &str) -> Stop {
        let message =
            format!("the upstream `{url}` did not answer before the deadline; allow more time, or find out why");
        Stop::new(FailureKind::Late, Error::unavailable(message), false, true)
    }

    /// All connections are busy, and too many wait.
    pub fn busy(url: &str, connections: usize, waiting: usize) -> Stop {
        let message = format!(
            "all {connections} connections to the upstream `{url}` are busy and {waiting} requests wait already; allow \
             more connections, or ask less at once"
        );
        Stop::new(FailureKind::Busy, Error::exhausted(message), false, false)
    }

    /// It says that it cannot answer now.
    pub fn not_ready(url: &str, message: &str) -> Stop {
        let error = Error::unavailable(told(url, "that it is not ready", message));
        Stop::new(FailureKind::TurnedAway, error, true, true)
    }

    /// An error in the middle of a stream, as the upstream told it.
    pub fn in_band(url: &str, message: &str) -> Stop {
        Stop::new(FailureKind::Failed, Error::internal(told(url, "an error", message)), false, true)
    }

    /// A status of HTTP that is not 200, with what was said beside it.
    pub fn of_http(url: &str, status: StatusCode, message: &str) -> Stop {
        let words = || told(url, status.as_str(), message);
        let (kind, error) = match status.as_u16() {
            100..=199 | 300..=399 => {
                let why = format!("{status}, and neither upgrades nor redirects are followed");
                return Stop::unreadable(url, why);
            }
            200..=299 => return Stop::unreadable(url, format!("{status}")),
            429 => (FailureKind::TurnedAway, Error::exhausted(words())),
            502 | 503 => (FailureKind::TurnedAway, Error::unavailable(words())),
            // It is we who are not let in: nothing that the sender could change.
            401 | 403 | 407 => (FailureKind::Failed, Error::unavailable(words())),
            404 => (FailureKind::Sender, Error::not_found(own_words(status.as_str(), message))),
            409 => (FailureKind::Sender, Error::conflict(own_words(status.as_str(), message))),
            400..=499 => (FailureKind::Sender, Error::invalid(own_words(status.as_str(), message))),
            501 => (FailureKind::Failed, unsupported(words())),
            504 => (FailureKind::Failed, Error::unavailable(words())),
            _ => (FailureKind::Failed, Error::internal(words())),
        };
        Stop::new(kind, error, kind == FailureKind::TurnedAway, kind != FailureKind::Sender)
    }

    /// A status of gRPC that the upstream sent.
    pub fn of_grpc(url: &str, status: &Status) -> Stop {
        let code = format!("{:?}", status.code());
        let words = || told(url, &code, status.message());
        let (kind, error) = match status.code() {
            Code::Unavailable => (FailureKind::TurnedAway, Error::unavailable(words())),
            Code::ResourceExhausted => (FailureKind::TurnedAway, Error::exhausted(words())),
            Code::Unauthenticated | Code::PermissionDenied => (FailureKind::Failed, Error::unavailable(words())),
            _ => {
                let error = from_grpc(status);
                let is_senders = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict);
                match is_senders {
                    true => (FailureKind::Sender, Error::new(error.kind(), own_words(&code, status.message()))),
                    false if is_unsupported(&error) => (FailureKind::Failed, unsupported(words())),
                    false => (FailureKind::Failed, Error::new(error.kind(), words())),
                }
            }
        };
        Stop::new(kind, error, kind == FailureKind::TurnedAway, kind != FailureKind::Sender)
    }
}

/// An upstream's words, with its name.
fn told(url: &str, what: &str, message: &str) -> String {
    match cut(message) {
        "" => format!("the upstream `{url}` answered {what}"),
        message => format!("the upstream `{url}` answered {what}: {message}"),
    }
}

/// An upstream's words for its caller's mistake, as they are: those are what people search for.
fn own_words(what: &str, message: &str) -> String {
    match cut(message) {
        "" => format!("the upstream refused the request with {what}"),
        message => message.to_owned(),
    }
}

fn cut(message: &str) -> &str {
    message.trim()[..message.trim().floor_char_boundary(limits::MESSAGE_BYTES_MAX)].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::*;

    fn seen(stop: &Stop) -> (FailureKind, ErrorKind, bool, bool) {
        (stop.kind, stop.failure.error.kind(), stop.failure.is_retryable, stop.failure.is_fault)
    }

    #[test]
    fn a_status_of_http_says_whether_again_and_whose_fault() {
        fn check(status: u16, kind: FailureKind, error: ErrorKind, is_retryable: bool, is_fault: bool) {
            let stop = Stop::of_http("http://u", StatusCode::from_u16(status).unwrap(), "words");
            assert_eq!(seen(&stop), (kind, error, is_retryable, is_fault), "{status}");
            let names_upstream = stop.failure.error.message().contains("http://u");
            assert_eq!(names_upstream, is_fault, "{status}: {}", stop.failure.error);
        }
        check(503, TurnedAway, ErrorKind::Unavailable, true, true);
        check(502, TurnedAway, ErrorKind::Unavailable, true, true);
        check(429, TurnedAway, ErrorKind::Exhausted, true, true);
        check(400, Sender, ErrorKind::Invalid, false, false);
        check(404, Sender, ErrorKind::NotFound, false, false);
        check(409, Sender, ErrorKind::Conflict, false, false);
        check(413, Sender, ErrorKind::Invalid, false, false);
        check(422, Sender, ErrorKind::Invalid, false, false);
        check(401, Failed, ErrorKind::Unavailable, false, true);
        check(403, Failed, ErrorKind::Unavailable, false, true);
        check(500, Failed, ErrorKind::Internal, false, true);
        check(501, Failed, ErrorKind::Other, false, true);
        check(504, Failed, ErrorKind::Unavailable, false, true);
        check(204, Unreadable, ErrorKind::Internal, false, true);
        check(101, Unreadable, ErrorKind::Internal, false, true);
        check(302, Unreadable, ErrorKind::Internal, false, true);
    }

    #[test]
    fn a_status_of_grpc_says_the_same() {
        fn check(code: Code, kind: FailureKind, error: ErrorKind, is_retryable: bool, is_fault: bool) {
            let stop = Stop::of_grpc("grpc://u", &Status::new(code, "words"));
            assert_eq!(seen(&stop), (kind, error, is_retryable, is_fault), "{code:?}");
        }
        check(Code::Unavailable, TurnedAway, ErrorKind::Unavailable, true, true);
        check(Code::ResourceExhausted, TurnedAway, ErrorKind::Exhausted, true, true);
        check(Code::InvalidArgument, Sender, ErrorKind::Invalid, false, false);
        check(Code::NotFound, Sender, ErrorKind::NotFound, false, false);
        check(Code::Unauthenticated, Failed, ErrorKind::Unavailable, false, true);
        check(Code::PermissionDenied, Failed, ErrorKind::Unavailable, false, true);
        check(Code::Internal, Failed, ErrorKind::Internal, false, true);
        check(Code::Unknown, Failed, ErrorKind::Internal, false, true);
        check(Code::DeadlineExceeded, Failed, ErrorKind::Unavailable, false, true);
        check(Code::Unimplemented, Failed, ErrorKind::Other, false, true);
    }

    #[test]
    fn of_an_upstreams_words_so_many_bytes_are_kept() {
        fn check(bytes: usize, kept: usize) {
            let stop = Stop::of_http("u", StatusCode::BAD_REQUEST, &"x".repeat(bytes));
            assert_eq!(stop.failure.error.message().len(), kept);
        }
        check(limits::MESSAGE_BYTES_MAX, limits::MESSAGE_BYTES_MAX);
        check(limits::MESSAGE_BYTES_MAX + 1, limits::MESSAGE_BYTES_MAX);
        let umlauts = Stop::of_http("u", StatusCode::BAD_REQUEST, &"xü".repeat(limits::MESSAGE_BYTES_MAX));
        assert!(umlauts.failure.error.message().len() <= limits::MESSAGE_BYTES_MAX);
    }
}
