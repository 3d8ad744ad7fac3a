//! What gathers predictions behind their answers and writes them together.
//!
//! Owns [`Writer`]: a list that requests push to, and a thread that empties it. Separate from the log, because the request's
//! path sees only [`Writer::offer`]: one lock, one push; a row is made of what was offered on the thread. Bounded by [`WAITING_MAX`]: what does not fit is dropped and counted.
//! On failure: rows that cannot be written are dropped, counted, and said in the host's log once for each kind of run of
//! failures; whoever looks at [`Written`] sees them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_base::{Clock, Error, Result};
use mainstay_tables::Table;
use parking_lot::{Condvar, Mutex};

use crate::limits::{WAITING_MAX, WRITE_DELAY_MS, WRITE_ROWS};
use crate::rows::{self, Prediction};
use crate::spec::LogSpec;

/// What became of the predictions that were offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// They are kept.
    pub kept: u64,
    /// There was no room, or they could not be written.
    pub dropped: u64,
    /// They wait.
    pub waiting: u64,
}

struct Shared {
    name: String,
    table: Table,
    spec: Arc<LogSpec>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
    kept: AtomicU64,
    dropped: AtomicU64,
}

/// Makes the row when its turn comes.
type Offered = Box<dyn FnOnce() -> Prediction + Send>;

#[derive(Default)]
struct State {
    waiting: Vec<Offered>,
    /// Taken from the list, and not yet written.
    writing: usize,
    is_closed: bool,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(name: &str, table: Table, spec: Arc<LogSpec>, clock: Arc<dyn Clock>) -> Result<Writer> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            table,
            spec,
            clock,
            state: Mutex::default(),
            changed: Condvar::new(),
            kept: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("predictions".into()).spawn(move || run(&theirs));
        let thread = thread.map_err(|error| Error::unavailable("no thread to write predictions").with_source(error))?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    pub fn offer(&self, make: impl FnOnce() -> Prediction + Send + 'static) {
        let make: Offered = Box::new(make);
        let mut state = self.shared.state.lock();
        if state.waiting.len() >= WAITING_MAX {
            drop(state);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push(make);
        // The thread looks by itself; it is woken only when there is a whole batch.
        if state.waiting.len() == WRITE_ROWS {
            self.shared.changed.notify_one();
        }
    }

    pub fn written(&self) -> Written {
        let state = self.shared.state.lock();
        Written {
            kept: self.shared.kept.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            waiting: (state.waiting.len() + state.writing) as u64,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(log = %self.shared.name, "the thread that writes predictions panicked");
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let (offered, is_closed) = {
            let mut state = shared.state.lock();
            if state.waiting.len() < WRITE_ROWS && !state.is_closed {
                shared.changed.wait_for(&mut state, Duration::from_millis(WRITE_DELAY_MS));
            }
            // With room, so that no request waits while the list grows.
            let offered = std::mem::replace(&mut state.waiting, Vec::with_capacity(WRITE_ROWS));
            state.writing = offered.len();
            (offered, state.is_closed)
        };
        let is_done = is_closed && offered.is_empty();
        write(shared, &made(shared, offered));
        shared.state.lock().writing = 0;
        if is_done {
            return;
        }
    }
}

/// The rows of what was offered; what panics while it is made is dropped.
fn made(shared: &Shared, offered: Vec<Offered>) -> Vec<Prediction> {
    let count = offered.len();
    let one = |make: Offered| catch_unwind(AssertUnwindSafe(make)).ok();
    let rows: Vec<Prediction> = offered.into_iter().filter_map(one).collect();
    if rows.len() < count {
        shared.dropped.fetch_add((count - rows.len()) as u64, Ordering::Relaxed);
        tracing::error!(log = %shared.name, rows = count - rows.len(), "making rows of predictions panicked");
    }
    rows
}

fn write(shared: &Shared, rows: &[Prediction]) {
    let now_us = shared.clock.now_ms().saturating_mul(1_000);
    for part in rows.chunks(WRITE_ROWS) {
        let written =
            rows::predictions(&shared.spec, part, now_us).and_then(|rows| shared.table.append_blocking(&rows, None));
        match written {
            Ok(_) => drop(shared.kept.fetch_add(part.len() as u64, Ordering::Relaxed)),
            Err(error) => {
                shared.dropped.fetch_add(part.len() as u64, Ordering::Relaxed);
                tracing::warn!(log = %shared.name, rows = part.len(), %error, "predictions could not be kept");
            }
        }
    }
}
