//! Compaction in the background.
//!
//! Owns one thread that compacts every table from time to time, and at once when appending says that much is pending. It
//! also removes what is left of dropped tables.
//! Separate from compaction, which is a plain function that tests call when they like.
//!
//! Bounded by: one thread, one table at a time. On failure: what failed is logged and tried again at the next turn;
//! meanwhile appending meets its bound and says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_base::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

use crate::table::Tables;

/// Tells the driver to begin.
#[derive(Default)]
pub(crate) struct Kick {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    is_kicked: bool,
    is_stopped: bool,
}

impl Kick {
    /// Compact as soon as possible.
    pub fn now(&self) {
        let mut state = self.state.lock();
        if !state.is_kicked {
            state.is_kicked = true;
            self.changed.notify_all();
        }
    }
}

/// The background thread; dropping this stops it after the round that it is in.
pub struct Driver {
    tables: Tables,
    thread: Option<JoinHandle<()>>,
}

impl Tables {
    /// Compact every so often on a thread of its own, until the answer is dropped. One driver for each [`Tables`].
    pub fn drive(&self, interval: Duration) -> Result<Driver> {
        let tables = self.clone();
        let thread = std::thread::Builder::new().name("tables-compact".into()).spawn(move || run(&tables, interval));
        let thread = thread.map_err(|error| Error::unavailable("no thread for compaction").with_source(error))?;
        Ok(Driver { tables: self.clone(), thread: Some(thread) })
    }
}

fn run(tables: &Tables, interval: Duration) {
    let kick = &tables.inner.kick;
    loop {
        let mut state = kick.state.lock();
        if !state.is_kicked && !state.is_stopped {
            kick.changed.wait_for(&mut state, interval);
        }
        if state.is_stopped {
            return;
        }
        state.is_kicked = false;
        drop(state);
        let now_ms = tables.inner.options.clock.now_ms();
        if let Err(error) = tables.purge() {
            tracing::warn!(%error, "what is left of dropped tables could not be removed; it is tried again");
        }
        for name in tables.list() {
            // Dropped meanwhile: nothing to do.
            let Ok(table) = tables.table(&name) else { continue };
            match catch_unwind(AssertUnwindSafe(|| table.compact(now_ms))) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {}
                Ok(Err(error)) => {
                    tracing::warn!(table = &*name, %error, "a table could not be compacted; it is tried again");
                }
                Err(_) => tracing::error!(table = &*name, "compacting a table panicked; it is tried again"),
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let kick = &self.tables.inner.kick;
        kick.state.lock().is_stopped = true;
        kick.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that compacts tables panicked; see the host's log");
        }
        kick.state.lock().is_stopped = false;
    }
}
