//! Local processes as steps: an argument list, a folder, an environment, limits; no shell.
//!
//! Owns [`ProcessSettings`] and the host's side of a process: it starts a supervisor (this program again, with
//! [`SUPERVISOR_COMMAND`]), tells it what to run, streams what comes out into the log, and reads how it ended. The supervisor
//! ([`supervisor_main`]) is a process of its own because only a parent can bound a child before it starts without `unsafe`
//! code, and only a parent of its own inherits what a child leaves behind: when the command ends, is told to stop, or the
//! host dies, the supervisor kills everything that descends from it, also what has left the process group.
//!
//! Bounded by the job's limits, and the log's. On failure: a program that cannot be started is a failure that is not tried
//! again; any other ending that is not a success is one that may pass, unless the settings say otherwise.

mod command;
mod supervisor;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_base::{Error, Result};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::sleep;

use command::{Command, Ended};
pub use command::{ProcessLimits, ProcessSettings};
pub use supervisor::supervisor_main;

use crate::executor::{AttemptContext, Executor};
use crate::limits::RESULT_BYTES_MAX;
use crate::logs::LogSink;
use crate::run::Run;
use crate::state::Outcome;

/// The first argument of the supervisor; the host's hidden subcommand has the same name.
pub const SUPERVISOR_COMMAND: &str = "internal-job";

/// Carries out actions of the kind `process`.
pub struct ProcessExecutor {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl ProcessExecutor {
    /// Processes whose supervisor is this program with these arguments in front of its own.
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> ProcessExecutor {
        ProcessExecutor { program: program.into(), arguments }
    }

    /// The usual one: the supervisor is the running program with [`SUPERVISOR_COMMAND`].
    pub fn of_this_program() -> Result<ProcessExecutor> {
        let program = std::env::current_exe()
            .map_err(|error| Error::unavailable(format!("this program's own file cannot be found: {error}")))?;
        Ok(ProcessExecutor::new(program, vec![SUPERVISOR_COMMAND.into()]))
    }

    async fn execute_checked(&self, attempt: &AttemptContext, settings: &ProcessSettings) -> Result<Outcome> {
        let (mut ours, theirs) = socket_pair()?;
        let mut supervisor = tokio::process::Command::new(&self.program);
        supervisor.args(&self.arguments).env_clear().stdin(Stdio::from(theirs));
        supervisor.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(false);
        let mut child = supervisor.spawn().map_err(|error| Error::io("start", &self.program, error))?;
        // Closes this process's copy of the supervisor's end, so that its death is the end of the stream.
        drop(supervisor);
        let command = Command::of(settings, &attempt.run).encode()?;
        let gone =
            |error: std::io::Error| Error::unavailable(format!("the supervisor of the process is gone: {error}"));
        ours.write_all(&command).await.map_err(gone)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (reading, mut writing) = ours.into_split();
        // When this future is dropped, both halves are, and the supervisor kills what it runs.
        let (last_line, (), ended) =
            tokio::join!(copy(stdout, attempt, true), async { drop(copy(stderr, attempt, false).await) }, async {
                let ended = read_end(reading);
                tokio::pin!(ended);
                let stop = async {
                    attempt.cancel.cancelled().await;
                    // Whether it still listens shows in how it ends.
                    let _ = writing.write_all(b"t").await;
                    sleep(Duration::from_millis(settings.stop_grace_ms)).await;
                    let _ = writing.shutdown().await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    ended = &mut ended => ended,
                    () = stop => Err(Error::internal("waiting does not end")),
                }
            },);
        let _ = child.wait().await;
        Ok(outcome(ended?, settings, last_line, &attempt.log))
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn check(&self, settings: &Value) -> Result<()> {
        ProcessSettings::read(settings).map(|_| ())
    }

    async fn execute(&self, attempt: AttemptContext) -> Outcome {
        let settings = match ProcessSettings::read(&attempt.run.plan.action.settings) {
            Ok(settings) => settings,
            Err(error) => return Outcome::Failure { reason: error.to_string(), is_retryable: false },
        };
        match self.execute_checked(&attempt, &settings).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::failure(error.to_string()),
        }
    }
}

/// A socket for this side, and the other end for a child.
fn socket_pair() -> Result<(UnixStream, std::os::fd::OwnedFd)> {
    let failed = |error: std::io::Error| Error::unavailable(format!("cannot make a socket: {error}"));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    Ok((UnixStream::from_std(ours).map_err(failed)?, theirs.into()))
}

/// Copy to the log; answers the last line that is not empty, if it is wanted and short enough to be a result.
async fn copy(from: Option<impl AsyncRead + Unpin>, attempt: &AttemptContext, wants_line: bool) -> Vec<u8> {
    let mut last = LastLine::default();
    let Some(mut from) = from else { return Vec::new() };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        attempt.heartbeat.beat();
        attempt.log.write(&buffer[..count]);
        if wants_line {
            last.add(&buffer[..count]);
        }
    }
    last.finish()
}

/// Follows a stream and remembers its last line that is not empty.
#[derive(Default)]
struct LastLine {
    whole: Vec<u8>,
    growing: Vec<u8>,
}

impl LastLine {
    fn add(&mut self, bytes: &[u8]) {
        for (number, piece) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if number > 0 && !self.growing.is_empty() {
                self.whole = std::mem::take(&mut self.growing);
            }
            let room = (RESULT_BYTES_MAX + 1).saturating_sub(self.growing.len());
            self.growing.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn finish(self) -> Vec<u8> {
        if self.growing.is_empty() { self.whole } else { self.growing }
    }
}

async fn read_end(mut reading: tokio::net::unix::OwnedReadHalf) -> Result<Ended> {
    let mut text = Vec::new();
    let gone = || Error::unavailable("the supervisor of the process ended without a word; it was probably killed");
    reading.read_to_end(&mut text).await.map_err(|_| gone())?;
    serde_json::from_slice(&text).map_err(|_| gone())
}

fn outcome(ended: Ended, settings: &ProcessSettings, last_line: Vec<u8>, log: &LogSink) -> Outcome {
    let program = &settings.program;
    match ended {
        Ended::Code { code: 0 } => {
            Outcome::Success { result: serde_json::from_slice(&last_line).unwrap_or(Value::Null) }
        }
        Ended::Code { code } if settings.not_yet_exit_code == Some(code) => {
            Outcome::NotYet { reason: format!("`{program}` ended with {code}"), after_ms: None }
        }
        Ended::Code { code } => Outcome::Failure {
            reason: format!("`{program}` ended with {code}; its last words are in the log"),
            is_retryable: !settings.final_exit_codes.contains(&code),
        },
        Ended::Signal { signal, name } => {
            Outcome::failure(format!("`{program}` was ended by signal {signal} ({name}){}", likely(&name, settings)))
        }
        Ended::NotStarted { reason } => {
            log.line(&reason);
            Outcome::Failure { reason, is_retryable: false }
        }
    }
}

/// What a signal mostly means under these limits.
fn likely(signal: &str, settings: &ProcessSettings) -> String {
    let limits = &settings.limits;
    match (signal, limits.cpu_s, limits.file_mib) {
        ("SIGXCPU" | "SIGKILL", Some(cpu_s), _) if signal == "SIGXCPU" => format!(": more than {cpu_s} s of CPU time"),
        ("SIGXFSZ", _, Some(file_mib)) => format!(": a file of more than {file_mib} MiB"),
        _ => String::new(),
    }
}

/// What every process is told of its run.
fn told(run: &Run) -> Vec<(String, String)> {
    let parameters = Value::Object(run.parameters.clone()).to_string();
    let mut told = vec![
        ("MAINSTAY_JOB".to_owned(), run.job.clone()),
        ("MAINSTAY_RUN".to_owned(), run.id.clone()),
        ("MAINSTAY_TOKEN".to_owned(), run.token.to_string()),
        ("MAINSTAY_PARAMETERS".to_owned(), parameters),
    ];
    if let Some(at) = run.scheduled_ms {
        told.push(("MAINSTAY_SCHEDULED_MS".to_owned(), at.to_string()));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_is_not_empty_is_the_result() {
        fn check(pieces: &[&str], expect: &str) {
            let mut last = LastLine::default();
            for piece in pieces {
                last.add(piece.as_bytes());
            }
            assert_eq!(String::from_utf8(last.finish()).unwrap(), expect, "{pieces:?}");
        }
        check(&["a\nb\n"], "b");
        check(&["a\nb"], "b");
        check(&["a\n", "{\"x\"", ":1}\n\n"], "{\"x\":1}");
        check(&["\n\n"], "");
        check(&["x\n", "\n"], "x");
    }
}
