//! What goes wrong, in the words of the tracking API.
//!
//! Owns the error codes, the status of each, and the JSON envelope. It is separate so that every handler fails in one
//! way: `Result<_, Failure>`. Nothing here may answer 408, 429 or 5xx other than 501: clients repeat those for minutes,
//! and a mistake does not get better by repeating it. The one exception is a fault of the host (`Unavailable`), which does.

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
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
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
            sdk::ErrorKind::Exhausted => Code::ResourceExhausted,
            sdk::ErrorKind::Unavailable => Code::TemporarilyUnavailable,
            sdk::ErrorKind::Internal | sdk::ErrorKind::Other => Code::InternalError,
        };
        Self::new(code, error.message())
    }
}
