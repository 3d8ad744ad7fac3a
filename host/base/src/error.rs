//! One error type for the host's inner boundaries.
//!
//! Its kinds are those that cross to plugins (`mainstay:types/errors`), so a failure keeps its meaning from the disk to the
//! plugin and to the HTTP answer. The message is for a person: what happened, to what, what to do next. The source, if
//! any, is for the host's log and never leaves it.

use std::fmt;
use std::sync::Arc;

/// Result with the host's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is: what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The argument is malformed or outside its limits; asking again fails again.
    Invalid,
    /// Manifest or rights do not allow this.
    Denied,
    /// Something else changed what this relied on; read again and try again.
    Conflict,
    /// A limit, quota or disk is full.
    Exhausted,
    /// Not now, but perhaps later.
    Unavailable,
    /// A fault of the host.
    Internal,
    /// Anything else.
    Other,
}

/// A failure with a kind, a message a person can act on, and perhaps a cause. Cheap to clone.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
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
    /// A fault of the host.
    internal => Internal,
    /// Anything else.
    other => Other,
}

impl Error {
    /// A failure of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into().into(), source: None }
    }

    /// The same failure, caused by `source`.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.source = Some(Arc::new(source));
        self
    }

    /// A failed file operation: says what was being done to which path. A full disk is [`ErrorKind::Exhausted`].
    pub fn io(doing: &str, path: &std::path::Path, source: std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Exhausted,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        let hint = match kind {
            ErrorKind::Exhausted => "; free some space and try again",
            ErrorKind::Denied => "; check who owns it and its permissions",
            _ => "",
        };
        Error::new(kind, format!("cannot {doing} `{}`: {source}{hint}", path.display())).with_source(source)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same kind and cause; the message gains a prefix saying what was being done.
    pub fn context(mut self, doing: impl fmt::Display) -> Error {
        self.message = format!("{doing}: {}", self.message).into();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(source) = &self.source {
            write!(f, " (caused by: {source})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_keep_their_meaning() {
        fn check(io: std::io::ErrorKind, expect: ErrorKind) {
            let error = Error::io("write", std::path::Path::new("a/b"), io.into());
            assert_eq!(error.kind(), expect);
            assert!(error.message().contains("a/b"), "{error}");
        }
        check(std::io::ErrorKind::StorageFull, ErrorKind::Exhausted);
        check(std::io::ErrorKind::NotFound, ErrorKind::NotFound);
        check(std::io::ErrorKind::PermissionDenied, ErrorKind::Denied);
        check(std::io::ErrorKind::UnexpectedEof, ErrorKind::Unavailable);
    }
}
