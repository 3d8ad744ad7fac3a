//! The error that crosses between a plugin and its host.
//!
//! Owns [`Error`]: a kind that says what the other side can do about it, and a message a person can act on. Separate from
//! the bindings so that plugins match on plain Rust types, in tests too. Bounded by: one message. On failure: this is it.

use std::fmt;

/// Result with the SDK's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is: what the caller can do about it. The same cases as the contract's `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing does not exist. HTTP 404.
    NotFound,
    /// The argument is malformed or outside its limits; asking again fails again. HTTP 400.
    Invalid,
    /// The manifest, or the caller's rights, do not allow this. HTTP 403.
    Denied,
    /// Something else changed what this relied on; read again and try again. HTTP 409.
    Conflict,
    /// A limit, a quota or a disk is full. HTTP 507.
    Exhausted,
    /// Not now, but perhaps later. HTTP 503.
    Unavailable,
    /// A fault of the host or of the plugin. HTTP 500.
    Internal,
    /// Anything else. HTTP 500.
    Other,
}

/// A failure: its kind and a message saying what happened, to what, and what to do next.
///
/// ```
/// use mainstay_sdk::{Error, ErrorKind};
/// let error = Error::not_found("no guest `ada`; sign the book first").context("reading the guest book");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "reading the guest book: no guest `ada`; sign the book first");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: Box<str>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Error {
                Error::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// The named thing does not exist.
    not_found => NotFound,
    /// The argument is malformed or outside its limits.
    invalid => Invalid,
    /// Manifest or rights do not allow this.
    denied => Denied,
    /// Something else changed what this relied on.
    conflict => Conflict,
    /// A limit, quota or disk is full.
    exhausted => Exhausted,
    /// Not now, but perhaps later.
    unavailable => Unavailable,
    /// A fault of the host or of the plugin.
    internal => Internal,
    /// Anything else.
    other => Other,
}

impl Error {
    /// A failure of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into().into_boxed_str() }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same kind; the message gains a prefix saying what was being done.
    pub fn context(self, doing: impl fmt::Display) -> Error {
        Error::new(self.kind, format!("{doing}: {}", self.message))
    }

    /// The HTTP status that the host answers for it.
    pub fn status(&self) -> u16 {
        match self.kind {
            ErrorKind::NotFound => 404,
            ErrorKind::Invalid => 400,
            ErrorKind::Denied => 403,
            ErrorKind::Conflict => 409,
            ErrorKind::Exhausted => 507,
            ErrorKind::Unavailable => 503,
            ErrorKind::Internal | ErrorKind::Other => 500,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Error {}
