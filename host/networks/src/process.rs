//! The host's side of a graph's process.
//!
//! Owns the child's life: started when its model is loaded, asked one batch at a time, ended when it is late or when its
//! model goes, and begun again by the next batch after it has ended. Callers wait in line; the batcher has joined what
//! arrived together. Separate from [`crate::child`], which is the other side.
//!
//! Bounded by: [`crate::Limits`]. On failure: `exhausted` names the bound that was met, `unavailable` says that the child
//! could not be started; what the child refuses is `invalid`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, Result};
use mainstay_models::Network;
use parking_lot::Mutex;

use crate::protocol::{self, ANSWER_BYTES_MAX, Kind};
use crate::session::Described;
use crate::{BATCH_ROWS, Limits, Runtime};

/// What of the child's words is kept.
const WORDS_BYTES_MAX: u64 = 16 << 10;
/// How a process complains when it gets no more memory.
const OUT_OF_MEMORY_WORDS: &[&str] = &[
    "memory allocation of",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "bad_alloc",
    "Failed to allocate",
];

/// What a child is started with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub limits: Limits,
    pub runtime: Runtime,
    pub file: Arc<[u8]>,
}

/// A graph whose process is kept running.
#[derive(Debug)]
pub(crate) struct Process {
    plan: Plan,
    described: Described,
    worker: Mutex<Option<Worker>>,
}

/// One child.
#[derive(Debug)]
struct Worker {
    child: Child,
    socket: UnixStream,
    words: File,
}

impl Process {
    /// Start the child and have it load the graph.
    pub fn start(plan: Plan) -> Result<(Process, Described)> {
        let (worker, described) = Worker::start(&plan)?;
        let worker = Mutex::new(Some(worker));
        Ok((Process { plan, described: described.clone(), worker }, described))
    }
}

impl Network for Process {
    fn run(&self, values: &[f32], scores: &mut Vec<f64>, labels: &mut Vec<f64>) -> Result<()> {
        let width = self.described.features.len();
        let mut place = self.worker.lock();
        for rows in values.chunks(width * BATCH_ROWS) {
            let worker = match &mut *place {
                Some(worker) => worker,
                empty => empty.insert(Worker::start(&self.plan)?.0),
            };
            let answered = worker.ask(Kind::Rows, &protocol::floats(rows), self.plan.limits.batch, &self.plan.limits);
            let (scored, labelled) = match answered {
                Ok(Some((Kind::Answers, bytes))) => protocol::read_answers(&bytes)
                    .ok_or_else(|| Error::internal("the graph's process answered what cannot be read"))?,
                Ok(Some((_, words))) => return Err(Error::invalid(String::from_utf8_lossy(&words).into_owned())),
                Ok(None) => return Err(Error::internal("the graph's process answered nothing")),
                Err(error) => {
                    // It has ended, or was ended; another one answers the next batch.
                    *place = None;
                    return Err(error);
                }
            };
            let count = rows.len() / width;
            let has_labels = self.described.label.is_some();
            if scored.len() != count * self.described.score.1 || labelled.len() != count * usize::from(has_labels) {
                return Err(Error::internal(format!("the graph's process answered other than {count} rows")));
            }
            scores.extend(scored);
            labels.extend(labelled);
        }
        Ok(())
    }
}

impl Worker {
    fn start(plan: &Plan) -> Result<(Worker, Described)> {
        let cannot = |what: &str, error: io::Error| Error::unavailable(format!("cannot {what} for a graph: {error}"));
        let (socket, other) = UnixStream::pair().map_err(|error| cannot("make a socket", error))?;
        let words = tempfile::tempfile().map_err(|error| cannot("make a file", error))?;
        let stderr = words.try_clone().map_err(|error| cannot("share a file", error))?;
        let mut command = Command::new(&plan.program);
        command.args(&plan.arguments).arg(plan.limits.memory_bytes.to_string()).arg(plan.limits.threads.to_string());
        if let Runtime::OnnxRuntime(library) = &plan.runtime {
            command.arg(library);
        }
        command.env_clear().stdin(Stdio::from(OwnedFd::from(other))).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().map_err(|error| Error::io("start a process for a graph", &plan.program, error))?;
        // With it goes this side's copy of the child's end; else the end of the child would not be noticed.
        drop(command);
        let mut worker = Worker { child, socket, words };
        match worker.ask(Kind::Load, &plan.file, plan.limits.load, &plan.limits)? {
            Some((Kind::Described, bytes)) => {
                let described = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::internal(format!("a graph's process described itself badly: {error}")))?;
                Ok((worker, described))
            }
            Some((Kind::Unavailable, words)) => Err(Error::unavailable(String::from_utf8_lossy(&words).into_owned())),
            Some((_, words)) => Err(Error::invalid(String::from_utf8_lossy(&words).into_owned())),
            None => Err(Error::internal("a graph's process answered nothing")),
        }
    }

    /// Ask and wait for the answer. After an error the child is of no more use.
    fn ask(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        patience: Duration,
        limits: &Limits,
    ) -> Result<Option<(Kind, Vec<u8>)>> {
        let mut exchange = || {
            self.socket.set_read_timeout(Some(patience))?;
            self.socket.set_write_timeout(Some(patience))?;
            protocol::send(&mut self.socket, kind, bytes)?;
            protocol::receive(&mut self.socket, ANSWER_BYTES_MAX)?
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
                .map(Some)
        };
        exchange().map_err(|error| self.ended(&error, patience, limits))
    }

    /// Why the child does not answer.
    fn ended(&mut self, error: &io::Error, patience: Duration, limits: &Limits) -> Error {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return Error::exhausted(format!("the graph took more than its limit of {} s", patience.as_secs_f64()));
        }
        // It closed its socket, so it is about to end; if it is not, it is ended.
        std::thread::sleep(Duration::from_millis(10));
        let _ = self.child.kill();
        let status = self.child.wait();
        let mut words = String::new();
        if self.words.seek(SeekFrom::Start(0)).is_ok() {
            // Words that are no text are shown as empty.
            let _ = (&self.words).take(WORDS_BYTES_MAX).read_to_string(&mut words);
        }
        if OUT_OF_MEMORY_WORDS.iter().any(|sign| words.contains(sign)) {
            let mib = limits.memory_bytes >> 20;
            return Error::exhausted(format!(
                "the graph asked for more memory than its limit of {mib} MiB; `kernels.network_mib` in the configuration raises it"
            ));
        }
        let signal = status.ok().and_then(|status| status.signal());
        let signal = signal.map_or_else(String::new, |signal| format!(" by signal {signal}"));
        Error::invalid(format!("the graph ended its process{signal}: {}", words.trim()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself, and then killing fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
