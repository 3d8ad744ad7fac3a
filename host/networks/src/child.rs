//! The process of one graph: bounds itself, loads what it is given, answers until its parent goes.
//!
//! Owns the child's side of [`crate::protocol`]. It opens no file of its own: what it is given comes by the socket to
//! its parent. ONNX Runtime, if it was told to load it, opens some: its library, and a small database in the user's cache. Bounded by: the address space it gives itself, which it cannot raise again;
//! its time is its parent's matter. On failure: words to the parent; a fault of its own ends it with its words on standard
//! error.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_base::{Error, ErrorKind, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::Runtime;
use crate::protocol::{self, FILE_BYTES_MAX, Kind};
use crate::session::Session;

/// The first argument of the child; the host's hidden subcommand has the same name.
pub const CHILD_COMMAND: &str = "internal-network";

/// The largest file that it may write: its last words on standard error, which is a file.
const WORDS_BYTES_MAX: u64 = 64 << 10;
/// ONNX Runtime writes files of its own while it starts, and is ended by a signal where they do not fit.
const LIBRARY_BYTES_MAX: u64 = 64 << 20;

/// What the child does. Arguments: address space in bytes, threads, and the library of ONNX Runtime if that is to run.
/// Standard input is a socket to the parent.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<()> {
    let fault = |what: String| Error::internal(what);
    let (memory, threads, library) = match arguments {
        [memory, threads] => (memory, threads, None),
        [memory, threads, library] => (memory, threads, Some(PathBuf::from(library))),
        _ => return Err(fault("expected: MEMORY-BYTES THREADS [LIBRARY]".to_owned())),
    };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let (Some(memory), Some(threads)) = (number(memory), number(threads)) else {
        return Err(fault("memory and threads are numbers".to_owned()));
    };
    let files = if library.is_some() { LIBRARY_BYTES_MAX } else { WORDS_BYTES_MAX };
    bound_self(memory, files).map_err(|error| fault(format!("cannot bound this process: {error}")))?;
    let runtime = library.map_or(Runtime::Rten, Runtime::OnnxRuntime);
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = socket.map_err(|error| fault(format!("standard input is not there: {error}")))?;
    serve(UnixStream::from(socket), &runtime, threads as usize)
        .map_err(|error| fault(format!("the parent cannot be talked to: {error}")))
}

fn serve(mut socket: UnixStream, runtime: &Runtime, threads: usize) -> std::io::Result<()> {
    let mut session = None;
    while let Some((kind, bytes)) = protocol::receive(&mut socket, FILE_BYTES_MAX)? {
        match answer(&mut session, kind, &bytes, runtime, threads) {
            Ok((kind, bytes)) => protocol::send(&mut socket, kind, &bytes)?,
            Err(error) => {
                let is_given = matches!(error.kind(), ErrorKind::Invalid);
                let kind = if is_given { Kind::Refused } else { Kind::Unavailable };
                protocol::send(&mut socket, kind, error.to_string().as_bytes())?;
            }
        }
    }
    Ok(())
}

fn answer(
    session: &mut Option<Session>,
    kind: Kind,
    bytes: &[u8],
    runtime: &Runtime,
    threads: usize,
) -> Result<(Kind, Vec<u8>)> {
    match (kind, session) {
        (Kind::Load, session) => {
            let loaded = session.insert(Session::load(bytes, runtime, threads)?);
            let described = serde_json::to_vec(&loaded.described());
            Ok((Kind::Described, described.map_err(|error| Error::internal(error.to_string()))?))
        }
        (Kind::Rows, Some(session)) => {
            let answers = session.run(&protocol::read_floats(bytes))?;
            Ok((Kind::Answers, protocol::answers(&answers.scores, &answers.labels)))
        }
        (kind, _) => Err(Error::internal(format!("nothing can be answered to {kind:?} now"))),
    }
}

/// Bounds that this process cannot raise again.
fn bound_self(memory_bytes: u64, file_bytes: u64) -> rustix::io::Result<()> {
    let hard = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::As, hard(memory_bytes))?;
    setrlimit(Resource::Fsize, hard(file_bytes))?;
    setrlimit(Resource::Nofile, hard(64))?;
    setrlimit(Resource::Core, hard(0))
}
