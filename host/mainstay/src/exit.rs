//! Exit codes, and how a failure is told.
//!
//! Owns the mapping from the host's error kinds to what a shell sees, so that scripts can rely on it
//! (`docs/reference/cli.md`); and [`say!`], which prints results and ends quietly when nobody reads them any more
//! (`mainstay … | head`), where the standard macro would panic.

use mainstay_base::{Error, ErrorKind};
use std::io::Write;
use std::process::ExitCode;

/// Print a line to standard output.
macro_rules! say {
    () => { $crate::exit::print_line("") };
    ($($words:tt)*) => { $crate::exit::print_line(&format!($($words)*)) };
}
pub(crate) use say;

/// Print text and a line's end; see [`say!`].
pub fn print_line(text: &str) {
    print_text(&format!("{text}\n"));
}

/// Print text as it is.
pub fn print_text(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(i32::from(Exit::Failed.code()));
    }
}

/// Everything a command can end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to.
    Done,
    /// It failed for a reason outside the command: disk, network, a fault.
    Failed,
    /// The command, a file or a package is wrong; asking again fails again.
    Wrong,
    /// Another process holds the data folder.
    InUse,
}

impl Exit {
    /// Code and meaning, for the reference.
    #[cfg(test)]
    pub const ALL: &[(Exit, &str)] = &[
        (Exit::Done, "done; for `doctor`, no check failed"),
        (Exit::Failed, "failed: disk, network, a fault of the host; for `doctor`, a check failed"),
        (Exit::Wrong, "the command, a configuration file or a package is wrong; the message says what to write"),
        (Exit::InUse, "another process holds the data folder; the message names it"),
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Wrong => 2,
            Exit::InUse => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Exit {
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict => Exit::Wrong,
            _ => Exit::Failed,
        }
    }
}

/// A failed command: the exit code, and what is printed.
#[derive(Debug)]
pub struct Failure {
    /// What the shell sees.
    pub exit: Exit,
    /// What a person reads.
    pub error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { exit: Exit::from(&error), error }
    }
}

impl Failure {
    /// Another process holds the data folder.
    pub fn in_use(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::InUse, error: Error::unavailable(message) }
    }

    /// Print it to standard error.
    pub fn tell(&self) {
        eprintln!("error: {}", self.error.message().replace('\n', "\n       "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_codes() {
        fn check(error: Error, expect: u8) {
            assert_eq!(Failure::from(error).exit.code(), expect);
        }
        check(Error::invalid(""), 2);
        check(Error::not_found(""), 2);
        check(Error::conflict(""), 2);
        check(Error::exhausted(""), 1);
        check(Error::unavailable(""), 1);
        check(Error::internal(""), 1);
        assert_eq!(Failure::in_use("").exit.code(), 3);
        let codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3]);
    }
}
