//! Answers that say what went wrong: RFC 9457 problem documents.
//!
//! Owns the list of kinds ([`KINDS`]): each has a stable type, one status, and a sentence on what to do. The list is served
//! at `/-/problems` and each type leads there. One rule is kept here: 429 and 503 only where asking again later may help.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use mainstay_base::{Error, ErrorKind};
use mainstay_store::damage::DamagedBlob;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::AnswerBody;

/// A kind of problem.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) slug: &'static str,
    pub(crate) status: u16,
    /// The word for it in the vocabulary that clients of REST services of this kind look at.
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    pub(crate) remedy: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $slug:literal $status:literal $code:literal $title:literal $remedy:literal;)*) => {
        $(pub(crate) static $name: Kind = Kind {
            slug: $slug,
            status: $status,
            code: $code,
            title: $title,
            remedy: $remedy,
        };)*
        /// Every kind there is.
        pub(crate) static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    MALFORMED_PATH = "malformed-path" 400 "INVALID_PARAMETER_VALUE" "The path or query is malformed"
        "Encode the path once, without `.`, `..` or empty segments and control characters.";
    MALFORMED_REQUEST = "malformed-request" 400 "MALFORMED_REQUEST" "The request is malformed"
        "The detail says which part.";
    BODY_DIFFERS = "body-differs" 400 "INVALID_PARAMETER_VALUE" "The body is not what was announced"
        "Its digest or length differs; send it again.";
    INVALID = "invalid" 400 "INVALID_PARAMETER_VALUE" "The request cannot be carried out as it stands"
        "The detail says what is wrong; asking again with the same content fails again.";
    UNAUTHENTICATED = "unauthenticated" 401 "UNAUTHENTICATED" "Credentials are needed"
        "Send a token as `Authorization: Bearer TOKEN`, or as the password of HTTP basic authentication.";
    DENIED = "denied" 403 "PERMISSION_DENIED" "The caller may not do this"
        "The detail names the missing right; an administrator can make a token that has it.";
    CROSS_SITE = "cross-site" 403 "PERMISSION_DENIED" "The request comes from a page of another site"
        "Use the address that this host prints, or allow the host name in its configuration.";
    NOT_FOUND = "not-found" 404 "RESOURCE_DOES_NOT_EXIST" "There is nothing here"
        "`/-/plugins` lists what is installed and which routes it claims.";
    METHOD = "method-not-allowed" 405 "ENDPOINT_NOT_FOUND" "This path does not take this method"
        "The header `Allow` lists those that it takes.";
    SLOW_BODY = "body-timeout" 408 "DEADLINE_EXCEEDED" "The body did not arrive in time"
        "Send it without long pauses.";
    CONFLICT = "conflict" 409 "RESOURCE_CONFLICT" "Something else is there already, or has changed"
        "Read again, then decide.";
    DAMAGED_BLOB = "damaged-blob" 410 "DATA_LOSS" "The stored bytes are missing or damaged"
        "Asking again does not help. Store the same content again, or restore the blob that the detail names from a backup.";
    PRECONDITION = "precondition-failed" 412 "INVALID_STATE" "What is there is not what the request expects"
        "Read again and use its `ETag`.";
    TOO_LARGE = "body-too-large" 413 "INVALID_PARAMETER_VALUE" "The body is too large"
        "The detail says how large it may be.";
    URI_TOO_LONG = "uri-too-long" 414 "INVALID_PARAMETER_VALUE" "The path and query are too long"
        "Send long arguments in the body.";
    RANGE = "range-not-satisfiable" 416 "INVALID_PARAMETER_VALUE" "The range lies beyond the end"
        "The header `Content-Range` has the length.";
    PLUGIN_LIMIT = "plugin-limit" 422 "RESOURCE_LIMIT_EXCEEDED" "A plugin reached one of its limits"
        "Ask for less at a time, or raise the limit that the detail names.";
    NOT_RUNNING = "plugin-not-running" 424 "INVALID_STATE" "The plugin that answers here does not run"
        "Asking again does not help. The detail has the reason; install the plugin again, or ask its author.";
    AUTH_RATE = "too-many-failures" 429 "REQUEST_LIMIT_EXCEEDED" "Too many failed authentications"
        "Correct the credentials; the header `Retry-After` says when the next attempt is looked at.";
    INTERNAL = "internal" 500 "INTERNAL_ERROR" "The host failed"
        "Look up the trace id in the host's log.";
    PLUGIN_FAULT = "plugin-fault" 500 "INTERNAL_ERROR" "A plugin failed"
        "Look up the trace id in the host's log.";
    OVERLOADED = "overloaded" 503 "TEMPORARILY_UNAVAILABLE" "Too much at once"
        "Try again after the time in `Retry-After`.";
    UNAVAILABLE = "unavailable" 503 "TEMPORARILY_UNAVAILABLE" "Not now"
        "Try again later.";
    ANSWER_TIMEOUT = "answer-timeout" 504 "DEADLINE_EXCEEDED" "No answer in time"
        "Try again later; look at the plugin's metrics when it stays so.";
    FULL = "full" 507 "RESOURCE_EXHAUSTED" "A limit, a quota or a disk is full"
        "The detail names which one.";
}

/// A problem document, as RFC 9457 defines it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProblemDocument {
    /// Which kind of problem; stable. Leads to its description on this host.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What the kind means.
    pub(crate) title: String,
    /// The answer's status.
    pub(crate) status: u16,
    /// What happened to what, and what to do.
    pub(crate) detail: String,
    /// What went wrong as one word, for example `PERMISSION_DENIED`: clients that read this and `message` need not know
    /// problem documents.
    pub(crate) error_code: String,
    /// The same as `detail`.
    pub(crate) message: String,
    /// The plugin whose route it is, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) plugin: Option<String>,
    /// Finds this request in the host's log and in traces.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) trace_id: Option<String>,
}

/// An answer that is a problem.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: &'static Kind,
    pub(crate) status: u16,
    pub(crate) detail: String,
    code: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log alone, written once, where the trace id is known.
    cause: Option<Box<Error>>,
}

impl Problem {
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<String>) -> Problem {
        Problem { kind, status: kind.status, detail: detail.into(), code: kind.code, headers: Vec::new(), cause: None }
    }

    fn because(mut self, error: Error) -> Problem {
        self.cause = Some(Box::new(error));
        self
    }

    /// A more exact word than the kind's.
    pub(crate) fn code(mut self, code: &'static str) -> Problem {
        self.code = code;
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn retry_after(self, after: Duration) -> Problem {
        // Whole seconds, rounded up: zero would ask for a busy loop.
        let seconds = after.as_millis().div_ceil(1_000).max(1) as u64;
        self.header(RETRY_AFTER, seconds.into())
    }

    /// What happened, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn into_response(self, plugin: Option<&str>, trace_id: Option<String>) -> Response<AnswerBody> {
        if let Some(error) = self.cause {
            let trace_id = trace_id.as_deref().unwrap_or("none");
            tracing::error!(?error, trace_id, plugin = plugin.unwrap_or("none"), "an operation failed");
        }
        let document = ProblemDocument {
            kind: format!("/-/problems/{}", self.kind.slug),
            title: self.kind.title.to_owned(),
            status: self.status,
            message: self.detail.clone(),
            detail: self.detail,
            error_code: self.code.to_owned(),
            plugin: plugin.map(str::to_owned),
            trace_id,
        };
        // A structure of strings and a number always serializes.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(AnswerBody::full(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

impl From<Error> for Problem {
    /// A failure of the host's own operations.
    fn from(error: Error) -> Problem {
        if DamagedBlob::of(&error).is_some() {
            return Problem::new(&DAMAGED_BLOB, error.message()).because(error);
        }
        let kind = kind_of(error.kind());
        match error.kind() {
            ErrorKind::Internal | ErrorKind::Other => {
                Problem::new(kind, "the host failed; its log has the reason under this trace id").because(error)
            }
            ErrorKind::Unavailable => Problem::new(kind, error.message()).retry_after(Duration::from_secs(1)),
            _ => Problem::new(kind, error.message()),
        }
    }
}

/// The kind of problem that an error of this kind is.
pub(crate) fn kind_of(kind: ErrorKind) -> &'static Kind {
    match kind {
        ErrorKind::NotFound => &NOT_FOUND,
        ErrorKind::Invalid => &INVALID,
        ErrorKind::Denied => &DENIED,
        ErrorKind::Conflict => &CONFLICT,
        ErrorKind::Exhausted => &FULL,
        ErrorKind::Unavailable => &UNAVAILABLE,
        ErrorKind::Internal | ErrorKind::Other => &INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_committed_list_is_this_one() {
        let mut text = String::from(
            "# Problems\n\nErrors of the host are problem documents (RFC 9457, `application/problem+json`) with `type`, `title`, \
             `status`, `detail`, and where they apply `plugin` and `trace_id`. `error_code` and `message` (the same as `detail`) \
             are for clients that do not know problem documents. A `type` never changes its meaning.\n\n\
             | type | status | error code | what it means | what to do |\n| --- | --- | --- | --- | --- |\n",
        );
        for kind in KINDS {
            let Kind { slug, status, code, title, remedy } = kind;
            writeln!(text, "| `/-/problems/{slug}` | {status} | `{code}` | {title} | {remedy} |").unwrap();
        }
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/problems.md");
        if std::env::var_os("MAINSTAY_BLESS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == text, "docs/reference/problems.md is old; run this test with MAINSTAY_BLESS=1");
    }

    #[test]
    fn slugs_are_unique_and_statuses_are_errors() {
        let mut slugs: Vec<_> = KINDS.iter().map(|kind| kind.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), KINDS.len());
        assert!(KINDS.iter().all(|kind| (400..600).contains(&kind.status)));
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_zero() {
        fn check(after_ms: u64, expect: &str) {
            let response =
                Problem::new(&OVERLOADED, "x").retry_after(Duration::from_millis(after_ms)).into_response(None, None);
            assert_eq!(response.headers()[RETRY_AFTER], expect);
        }
        check(0, "1");
        check(1_000, "1");
        check(1_001, "2");
    }
}
