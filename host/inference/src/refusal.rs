//! What a failure is called outside.
//!
//! Owns the map from the house's errors to statuses of HTTP and codes of gRPC, which follows Triton's. Separate from the fronts,
//! so that both say the same. Bounded by: a message is cut at [`limits::MESSAGE_BYTES_MAX`].

use std::sync::Arc;

use http::StatusCode;
use mainstay_base::{Error, ErrorKind};
use tonic::{Code, Status};

use crate::limits;
use crate::models::is_unsupported;

/// The status of HTTP for an error.
pub fn http_status(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Other if is_unsupported(error) => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Internal | ErrorKind::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status of gRPC for an error, which is also its source, for the server's log.
pub fn grpc_status(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Other if is_unsupported(error) => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
        ErrorKind::Other => Code::Unknown,
    };
    let mut status = Status::new(code, message(error));
    status.set_source(Arc::new(error.clone()));
    status
}

/// An error of the house out of a status of gRPC, for whoever calls an upstream server.
pub fn from_grpc(status: &Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Error::invalid(message),
        Code::PermissionDenied | Code::Unauthenticated => Error::denied(message),
        Code::NotFound => Error::not_found(message),
        Code::Aborted | Code::AlreadyExists => Error::conflict(message),
        Code::ResourceExhausted => Error::exhausted(message),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Error::unavailable(message),
        Code::Unimplemented => crate::models::unsupported(message),
        _ => Error::internal(message),
    }
}

/// The message of an error, cut where it is too long for a header.
pub(crate) fn message(error: &Error) -> String {
    let message = error.message();
    if message.len() <= limits::MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let cut = message.floor_char_boundary(limits::MESSAGE_BYTES_MAX);
    format!("{}…", &message[..cut])
}
