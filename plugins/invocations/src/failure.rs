//! Errors as MLflow's scoring server answers them: a code, a message, and the status of the code.
//!
//! Owns the table from kinds of errors to codes. Bounded by: nothing. On failure: does not fail but where JSON does.

use mainstay_sdk::http::Reply;
use mainstay_sdk::{Error, ErrorKind, Result};
use serde_json::json;

/// What went wrong, for a client of MLflow.
#[derive(Debug)]
pub struct Failure {
    status: u16,
    code: &'static str,
    message: String,
}

impl Failure {
    /// The request makes no sense: `BAD_REQUEST`.
    pub fn bad(message: impl Into<String>) -> Failure {
        Failure { status: 400, code: "BAD_REQUEST", message: message.into() }
    }

    /// The same in the words that MLflow puts before what it could not read.
    pub fn invalid_input(message: impl std::fmt::Display) -> Failure {
        Failure::bad(format!("Invalid input. {message}"))
    }

    /// There is no such thing: `RESOURCE_DOES_NOT_EXIST`.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure { status: 404, code: "RESOURCE_DOES_NOT_EXIST", message: message.into() }
    }

    /// As an answer.
    pub fn reply(self) -> Result<Reply> {
        Reply::status(self.status).with_json(&json!({"error_code": self.code, "message": self.message}))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (status, code) = match error.kind() {
            ErrorKind::Invalid => (400, "BAD_REQUEST"),
            ErrorKind::NotFound => (404, "RESOURCE_DOES_NOT_EXIST"),
            ErrorKind::Denied => (403, "PERMISSION_DENIED"),
            ErrorKind::Conflict => (409, "RESOURCE_CONFLICT"),
            ErrorKind::Exhausted => (429, "REQUEST_LIMIT_EXCEEDED"),
            ErrorKind::Unavailable => (503, "TEMPORARILY_UNAVAILABLE"),
            _ => (500, "INTERNAL_ERROR"),
        };
        Failure { status, code, message: error.message().to_owned() }
    }
}
