//! The supervisor of job processes as a program of its own.
//!
//! Owns nothing: the host's program does the same behind its hidden subcommand. Separate so that the tests of this room have
//! a supervisor without the whole host. Bounded and failing as [`mainstay_schedule::process::supervisor_main`] does.

use std::process::ExitCode;

fn main() -> ExitCode {
    mainstay_schedule::process::supervisor_main([], std::env::args_os().skip(1))
}
