//! What goes wrong, in the words of the tracking API.
//!
//! Owns the error codes, the status of each, and the JSON envelope. It is separate so that every handler fails in one
//! way: `Result<_, Failure>`. A mistake is never answered 408, 429, 500, 502, 503 or 504: clients repeat those for minutes,
//! and a mistake does not get better by repeating it. What does get better is answered so: a fault of the host, and a change
//! that others overtook time and again. 501 and 507 (the host's disk is full) are not repeated.

use mainstay_sdk as sdk;

/// Error codes of the tracking API that this server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is malformed or breaks a rule.
    InvalidParameterValue,
    /// The body is not what the endpoint reads at all.
    BadRequest,
    /// The name is taken.
    ResourceAlreadyExists,
    /// The named thing is not there.
    ResourceDoesNotExist,
    /// No such path.
    EndpointNotFound,
    /// The caller or a protection forbids it.
    PermissionDenied,
    /// Something refers to what was to be changed.
    ResourceConflict,
    /// A quota is used up. Answered 413, not 429: asking again changes nothing.
    ResourceExhausted,
    /// The host's disk is full. Answered 507, as the host answers uploads; clients do not repeat it.
    StorageFull,
    /// This server does not do that.
    NotImplemented,
    /// The host cannot do it now; asking again may help.
    TemporarilyUnavailable,
    /// A fault of the host.
    InternalError,
}

impl Code {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidParameterValue => "INVALID_PARAMETER_VALUE",
            Self::BadRequest => "BAD_REQUEST",
            Self::ResourceAlreadyExists => "RESOURCE_ALREADY_EXISTS",
            Self::ResourceDoesNotExist => "RESOURCE_DOES_NOT_EXIST",
            Self::EndpointNotFound => "ENDPOINT_NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceConflict => "RESOURCE_CONFLICT",
            Self::ResourceExhausted | Self::StorageFull => "RESOURCE_EXHAUSTED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::TemporarilyUnavailable => "TEMPORARILY_UNAVAILABLE",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// The HTTP status that carries it.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidParameterValue | Self::BadRequest | Self::ResourceAlreadyExists => 400,
            Self::PermissionDenied => 403,
            Self::ResourceDoesNotExist | Self::EndpointNotFound => 404,
            Self::ResourceConflict => 409,
            Self::ResourceExhausted => 413,
            Self::StorageFull => 507,
            Self::InternalError => 500,
            Self::NotImplemented => 501,
            Self::TemporarilyUnavailable => 503,
        }
    }
}

/// One failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// What happened, for a person.
    pub message: String,
}

/// Result of everything that can fail here.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure of that code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The most common one.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameterValue, message)
    }

    /// The named thing is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceDoesNotExist, message)
    }

    /// The JSON envelope.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len() + 64);
        out.extend_from_slice(b"{\"error_code\":\"");
        out.extend_from_slice(self.code.name().as_bytes());
        out.extend_from_slice(b"\",\"message\":");
        crate::json::text(&mut out, &self.message);
        out.push(b'}');
        out
    }
}

impl From<sdk::Error> for Failure {
    fn from(error: sdk::Error) -> Self {
        let code = match error.kind() {
            sdk::ErrorKind::NotFound => Code::ResourceDoesNotExist,
            sdk::ErrorKind::Invalid => Code::InvalidParameterValue,
            sdk::ErrorKind::Denied => Code::PermissionDenied,
            sdk::ErrorKind::Conflict => Code::ResourceConflict,
            // Quotas and limits of this API are refused where they are known; what the host has no room for is its disk.
            sdk::ErrorKind::Exhausted => Code::StorageFull,
            sdk::ErrorKind::Unavailable => Code::TemporarilyUnavailable,
            sdk::ErrorKind::Internal | sdk::ErrorKind::Other => Code::InternalError,
        };
        Self::new(code, error.message())
    }
}

/// What the host is told where nobody waits for an answer in the API's words: in a timer, an event, at the start.
impl From<Failure> for sdk::Error {
    fn from(failure: Failure) -> Self {
        let kind = match failure.code {
            Code::InvalidParameterValue | Code::BadRequest | Code::ResourceAlreadyExists | Code::NotImplemented => {
                sdk::ErrorKind::Invalid
            }
            Code::ResourceDoesNotExist | Code::EndpointNotFound => sdk::ErrorKind::NotFound,
            Code::PermissionDenied => sdk::ErrorKind::Denied,
            Code::ResourceConflict => sdk::ErrorKind::Conflict,
            Code::ResourceExhausted | Code::StorageFull => sdk::ErrorKind::Exhausted,
            Code::TemporarilyUnavailable => sdk::ErrorKind::Unavailable,
            Code::InternalError => sdk::ErrorKind::Internal,
        };
        Self::new(kind, failure.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statuses on which the client sends a request again, for minutes.
    const REPEATED: &[u16] = &[408, 429, 500, 502, 503, 504];

    #[test]
    fn only_what_gets_better_is_repeated() {
        fn check(error: sdk::Error, status: u16, is_repeated: bool) {
            let failure = Failure::from(error);
            assert_eq!(failure.code.status(), status, "{failure:?}");
            assert_eq!(REPEATED.contains(&status), is_repeated, "{failure:?}");
        }
        check(sdk::Error::invalid("x"), 400, false);
        check(sdk::Error::denied("x"), 403, false);
        check(sdk::Error::not_found("x"), 404, false);
        check(sdk::Error::conflict("x"), 409, false);
        check(sdk::Error::exhausted("the disk is full"), 507, false);
        check(sdk::Error::unavailable("x"), 503, true);
        check(sdk::Error::internal("x"), 500, true);
        let there_and_back = sdk::Error::from(Failure::from(sdk::Error::unavailable("x")));
        assert_eq!((there_and_back.kind(), there_and_back.message()), (sdk::ErrorKind::Unavailable, "x"));
        assert_eq!(Failure::from(sdk::Error::exhausted("x")).code.name(), "RESOURCE_EXHAUSTED");
        assert!(!REPEATED.contains(&Code::ResourceExhausted.status()));
    }
}
