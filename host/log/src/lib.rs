//! The commit log: one durable, checksummed sequence of records with group commit.
//!
//! Owns a folder of segments and the one thread that writes them. Separate from what the records mean, so that it can be
//! proved alone: on a disk that tears, loses names, fails and fills up (`tests/simulation.rs`).
//!
//! # Invariants
//! - Records have sequences 1, 2, 3, … without holes, in the order of the calls of [`Log::append`].
//! - A record whose completion got `Ok` is read back after any crash, whole, with everything before it.
//! - A record whose completion got an error that is not [`Unavailable`](mainstay_base::ErrorKind::Unavailable) never comes
//!   back. With `Unavailable` (the disk failed to sync) its fate is unknown until the log is opened again.
//! - A record that nobody was answered for may survive a crash, but only if all before it do.
//! - What was acknowledged and cannot be read is reported as [`Corruption`], naming file and offset; nothing is cut then.
//!   What to do about it is for whoever knows what else there is: [`survey`] says what the log still gives.
//!
//! # How
//! While one group is synced, the next one collects; nobody waits for a timer. A lone append costs one write and one sync.
//! The file is filled with zeros ahead of the tail, because syncing an overwrite is cheaper than syncing growth.
//!
//! # Bounds
//! [`LogOptions`] bounds a record, a group, a segment and the queue. Sequences fit 2^64.
//!
//! # On failure
//! A write that fails (a full disk) is undone; its group *and everything queued behind it* fail, because a queued record may
//! have been built on one that failed; the sequences are given out again. While these completions run, appends are refused
//! with the same error. A sync that fails poisons the log: everything is `Unavailable` until it is opened again. There is no
//! lock on the folder: the caller makes sure that one process opens it.
#![forbid(unsafe_code)]

mod format;
mod reader;
mod recover;
mod replay;
mod segments;
mod survey;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use mainstay_base::{Disk, Error, Result};
use parking_lot::{Condvar, Mutex};

pub use format::Corruption;
pub use replay::Replay;
use segments::Segments;
pub use survey::{NAMED_MAX, Survey, survey};
use writer::{Failure, Writer};

/// Bounds of a log; the defaults suit a host.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment grows up to this length (a single larger group gets a segment of its own).
    pub segment_bytes: u64,
    /// Payloads that are written and synced together (a single larger record is a group of its own).
    pub group_bytes_max: usize,
    /// The longest payload; at most 4 GiB − 1.
    pub record_bytes_max: usize,
    /// Payloads that may wait for the disk. More is refused as exhausted: callers should wait for their completions.
    pub queue_bytes_max: usize,
    /// How far ahead of the tail the file is filled with zeros; 0 = not at all.
    pub allocate_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        const MIB: usize = 1024 * 1024;
        LogOptions {
            segment_bytes: 64 * MIB as u64,
            group_bytes_max: 4 * MIB,
            record_bytes_max: 64 * MIB,
            queue_bytes_max: 256 * MIB,
            allocate_bytes: MIB as u64,
        }
    }
}

/// What [`Log::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest sequence that is still there; one more than `last` when there is none.
    pub first: u64,
    /// The newest sequence; 0 when nothing was ever written.
    pub last: u64,
    /// Bytes of a torn tail that were cut. Nothing in them was acknowledged.
    pub cut_bytes: u64,
}

/// A log, and what was found when it was opened.
pub struct Opened {
    /// The log, ready for appends.
    pub log: Log,
    /// What was found.
    pub recovery: Recovery,
}

/// Called once with the record's sequence, or with why it was not written. Runs on the log's thread: the next group waits
/// for it, so it must be short, and it must not wait for another completion.
pub type Done = Box<dyn FnOnce(Result<u64>) + Send>;

/// The commit log; see the crate. Dropping it closes it.
pub struct Log {
    shared: Arc<Shared>,
    segments: Arc<Segments>,
    options: LogOptions,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

struct Shared {
    state: Mutex<State>,
    /// The writing thread waits here for work.
    work: Condvar,
    durable: AtomicU64,
}

struct State {
    queue: Vec<Pending>,
    queued_bytes: usize,
    next: u64,
    mode: Mode,
    closing: bool,
    writer_waits: bool,
}

enum Mode {
    Open,
    /// Completions of a failed group are running.
    Failing(Error),
    Poisoned(Error),
}

struct Pending {
    sequence: u64,
    payload: Vec<u8>,
    done: Done,
}

impl Log {
    /// Open the log in this folder, or begin one. Cuts a torn tail; see [`Corruption`] for what it refuses to cut.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, options: LogOptions) -> Result<Opened> {
        Log::open_with(disk, folder, options, 1, 0)
    }

    /// The same, where records up to `known` are known to have been durable: a log that ends before them is damaged, and
    /// nothing is cut.
    pub fn open_beyond(disk: Arc<dyn Disk>, folder: &Path, options: LogOptions, known: u64) -> Result<Opened> {
        Log::open_with(disk, folder, options, 1, known)
    }

    /// Begin a log whose first record has this sequence. The folder must not hold one.
    pub fn begin(disk: Arc<dyn Disk>, folder: &Path, options: LogOptions, first: u64) -> Result<Log> {
        let Opened { log, recovery } = Log::open_with(disk, folder, options, first, 0)?;
        match recovery.first == first && recovery.last + 1 == first {
            true => Ok(log),
            false => Err(Error::invalid(format!("`{}` holds a log already; name another folder", folder.display()))),
        }
    }

    fn open_with(disk: Arc<dyn Disk>, folder: &Path, options: LogOptions, begin: u64, known: u64) -> Result<Opened> {
        let (writer, recovery) = recover::recover(disk, folder, &options, begin, known)?;
        let state = State {
            queue: Vec::new(),
            queued_bytes: 0,
            next: recovery.last + 1,
            mode: Mode::Open,
            closing: false,
            writer_waits: false,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), durable: AtomicU64::new(recovery.last) });
        let segments = writer.segments().clone();
        let run = {
            let (shared, group_bytes_max) = (shared.clone(), options.group_bytes_max);
            move || Worker { shared, writer, group_bytes_max, panicked: None }.run()
        };
        let thread = std::thread::Builder::new()
            .name("mainstay-log".into())
            .spawn(run)
            .map_err(|error| Error::unavailable("cannot start the log's thread; lower the load").with_source(error))?;
        let log = Log { shared, segments, options, thread: Mutex::new(Some(thread)) };
        Ok(Opened { log, recovery })
    }

    /// Queue a record. Returns its sequence at once; `done` is called when it is durable or has failed, in the order of
    /// sequences. When this returns an error, `done` is not called.
    pub fn append(&self, payload: Vec<u8>, done: impl FnOnce(Result<u64>) + Send + 'static) -> Result<u64> {
        self.append_all(vec![(payload, Box::new(done))])
    }

    /// Queue several records that follow one another, to be synced together if they fit into one group. Returns the first
    /// one's sequence. All are queued, or none.
    pub fn append_all(&self, records: Vec<(Vec<u8>, Done)>) -> Result<u64> {
        let mut bytes = 0;
        for (payload, _) in &records {
            self.check_length(payload.len())?;
            bytes += payload.len();
        }
        let mut state = self.shared.state.lock();
        self.check_accepts(&state, bytes)?;
        let first = state.next;
        state.queued_bytes += bytes;
        for (payload, done) in records {
            let sequence = state.next;
            state.next += 1;
            state.queue.push(Pending { sequence, payload, done });
        }
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
        Ok(first)
    }

    /// Append and wait. Not for the log's own completions: they would wait for themselves.
    pub fn append_blocking(&self, payload: Vec<u8>) -> Result<u64> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.append(payload, move |result| drop(sender.send(result)))?;
        receiver.recv().map_err(|_| Error::unavailable("the log was closed before the record was written"))?
    }

    fn check_length(&self, length: usize) -> Result<()> {
        let limit = self.options.record_bytes_max.min(u32::MAX as usize);
        if length > limit {
            return Err(Error::invalid(format!(
                "a record of {length} bytes is too long for the log, which takes {limit} at most; split it, or put large \
                 content into a blob"
            )));
        }
        Ok(())
    }

    fn check_accepts(&self, state: &State, bytes: usize) -> Result<()> {
        match &state.mode {
            Mode::Poisoned(error) | Mode::Failing(error) => return Err(error.clone()),
            Mode::Open if state.closing => return Err(Error::unavailable("the log is closed; open it again")),
            Mode::Open => {}
        }
        if state.queued_bytes + bytes > self.options.queue_bytes_max && state.queued_bytes > 0 {
            return Err(Error::exhausted(format!(
                "{} bytes already wait for the log's disk, which is too slow for this load; try again later",
                state.queued_bytes
            )));
        }
        Ok(())
    }

    /// All durable records from this sequence on, in order. Asking for records that were dropped, or that lie beyond the
    /// end, is an error: what reads the log and the log do not belong together.
    pub fn replay(&self, from_sequence: u64) -> Replay {
        Replay::new(self.segments.clone(), from_sequence, self.durable())
    }

    /// Give up records below this sequence, as far as they fill whole segments. Durable when it returns. Never removes the
    /// newest segment.
    pub fn drop_below(&self, sequence: u64) -> Result<()> {
        self.segments.drop_below(sequence.min(self.durable() + 1))
    }

    /// The newest sequence that is durable; 0 when there is none.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// The oldest sequence that is still there.
    pub fn first(&self) -> u64 {
        self.segments.first()
    }

    /// Write what is queued, say on disk that all of it is durable, and stop. Later appends are refused. Called from a
    /// completion it does not wait. Calling it twice is fine.
    pub fn close(&self) -> Result<()> {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_one();
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        if thread.thread().id() == std::thread::current().id() {
            return Ok(());
        }
        thread.join().unwrap_or_else(|_| Err(Error::internal("the log's thread panicked")))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the log was not closed cleanly; acknowledged records are safe");
        }
    }
}

/// The writing thread.
struct Worker {
    shared: Arc<Shared>,
    writer: Writer,
    group_bytes_max: usize,
    /// A completion panicked.
    panicked: Option<Error>,
}

impl Worker {
    fn run(mut self) -> Result<()> {
        while let Some(taken) = self.take() {
            let mut taken = taken.into_iter().peekable();
            while taken.peek().is_some() {
                let group = next_group(&mut taken, self.group_bytes_max);
                match self.write(&group) {
                    Ok(()) => self.acknowledge(group),
                    Err(failure) => {
                        self.fail(failure, group.into_iter().chain(taken).collect());
                        break;
                    }
                }
            }
        }
        let state = self.shared.state.lock();
        if let Mode::Poisoned(error) = &state.mode {
            return Err(error.clone());
        }
        let next = state.next;
        drop(state);
        self.writer.close(next)
    }

    fn write(&mut self, group: &[Pending]) -> Result<(), Failure> {
        if let Some(error) = self.panicked.clone() {
            return Err(Failure { error, fatal: true });
        }
        self.writer.write(group[0].sequence, group.iter().map(|pending| &pending.payload[..]))
    }

    /// Wait for records. `None`: the log is closing and nothing is left.
    fn take(&self) -> Option<Vec<Pending>> {
        let mut state = self.shared.state.lock();
        while state.queue.is_empty() {
            if state.closing {
                return None;
            }
            state.writer_waits = true;
            self.shared.work.wait(&mut state);
        }
        state.writer_waits = false;
        state.queued_bytes = 0;
        Some(std::mem::take(&mut state.queue))
    }

    fn acknowledge(&mut self, group: Vec<Pending>) {
        let last = group[group.len() - 1].sequence;
        self.shared.durable.store(last, Ordering::Release);
        for pending in group {
            let sequence = pending.sequence;
            self.complete(pending.done, Ok(sequence));
        }
    }

    /// Fail these records and everything queued behind them; then go on, unless it is fatal.
    fn fail(&mut self, failure: Failure, records: Vec<Pending>) {
        let Failure { error, fatal } = failure;
        tracing::error!(%error, fatal, "the log could not write");
        let first = records[0].sequence;
        let queued = {
            let mut state = self.shared.state.lock();
            let mode = if fatal { Mode::Poisoned } else { Mode::Failing };
            if !matches!(state.mode, Mode::Poisoned(_)) {
                state.mode = mode(error.clone());
            }
            state.queued_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        for pending in records.into_iter().chain(queued) {
            self.complete(pending.done, Err(error.clone()));
        }
        let mut state = self.shared.state.lock();
        if matches!(state.mode, Mode::Failing(_)) {
            state.mode = Mode::Open;
            state.next = first;
        }
    }

    /// A completion that panics leaves its owner in an unknown state: take nothing more that it might build on.
    fn complete(&mut self, done: Done, result: Result<u64>) {
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            let error = Error::unavailable("a completion of the log panicked, so it takes no more; start again");
            tracing::error!(%error, "the log is closed");
            self.shared.state.lock().mode = Mode::Poisoned(error.clone());
            self.panicked = Some(error);
        }
    }
}

/// As many records as fit into a group, but at least one.
fn next_group(taken: &mut std::iter::Peekable<std::vec::IntoIter<Pending>>, bytes_max: usize) -> Vec<Pending> {
    let mut group: Vec<Pending> = taken.next().into_iter().collect();
    let mut bytes = group.iter().map(|pending| pending.payload.len()).sum::<usize>();
    while let Some(pending) = taken.next_if(|next| bytes + next.payload.len() <= bytes_max) {
        bytes += pending.payload.len();
        group.push(pending);
    }
    group
}
