//! From the memtable to the engine, behind everybody's back.
//!
//! Owns the applier: one thread that takes durable commits that every open view sees, writes the newest version of each
//! key (and one row for each touched index document) to the engine as one batch, and only then forgets them in the
//! memtable. Now and then it checkpoints the engine, and drops the log below what a crash cannot take back. Separate from
//! committing, so that no commit ever waits for the engine's disk, unless the memtable is full.
//!
//! Rows of documents may hold more than the batch's sequence says; replaying what is above over a newer row ends in the
//! same row, because plain writes are absolute and ranked ones take the greater.
//!
//! Bounded by [`BATCH_BYTES_MAX`] a batch. When the engine fails, nothing is forgotten: the memtable fills, commits are
//! refused with the engine's error, and the batch is tried again every interval.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{Error, Result};
use parking_lot::{Condvar, Mutex};

use crate::commit::Resolved;
use crate::engine::Write;
use crate::space::RowName;
use crate::store::{Inner, Journal};

/// About how many bytes of keys and values one batch holds; one commit may hold more. Large, because engines write whole
/// pages: of keys in no order, redb takes 57,000 a second in batches of 7,000 and 208,000 in batches of 112,000.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// How soon a full memtable is looked at again.
const FULL_INTERVAL: Duration = Duration::from_millis(20);

/// A commit on its way to the engine.
pub(crate) struct Moving {
    pub sequence: u64,
    /// The keys that it wrote.
    pub keys: Vec<Bytes>,
    /// The index documents that it touched.
    documents: Vec<Arc<RowName>>,
    bytes: usize,
}

impl Moving {
    pub fn new(sequence: u64, resolved: &Resolved) -> Moving {
        let bytes = resolved.writes.iter().map(|write| write.key.len() + write.value.as_ref().map_or(0, Bytes::len));
        Moving {
            sequence,
            bytes: bytes.sum(),
            keys: resolved.writes.iter().map(|write| write.key.clone()).collect(),
            documents: resolved.index.iter().map(|write| write.row.clone()).collect(),
        }
    }
}

/// How far the engine is.
pub(crate) struct Progress {
    /// Bytes given to the engine since its last checkpoint.
    bytes: usize,
    /// When that checkpoint was.
    at_ns: u64,
    /// The newest commit given to the engine since then, if any.
    newest: Option<u64>,
    /// What no crash can take back.
    durable: u64,
}

impl Progress {
    pub fn new(now_ns: u64) -> Progress {
        Progress { bytes: 0, at_ns: now_ns, newest: None, durable: 0 }
    }
}

/// How the applier's thread is told things.
#[derive(Default)]
pub(crate) struct Applier {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// Somebody has asked for a cycle already.
    is_woken: AtomicBool,
    /// Why the last cycle failed.
    trouble: Mutex<Option<Error>>,
}

#[derive(Default)]
struct Wanted {
    cycle: bool,
    stop: bool,
}

impl Applier {
    pub fn start(inner: &Arc<Inner>) -> Result<JoinHandle<()>> {
        let inner = inner.clone();
        let thread = std::thread::Builder::new().name("store-applier".into()).spawn(move || run(&inner));
        thread.map_err(|error| Error::unavailable(format!("cannot start the store's applier: {error}")))
    }

    pub fn stop(&self) {
        self.wanted.lock().stop = true;
        self.changed.notify_all();
    }

    fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.wanted.lock().cycle = true;
            self.changed.notify_all();
        }
    }

    /// Wait until somebody asks or the time has passed. Answers whether to go on.
    fn wait(&self, interval: Duration) -> bool {
        let mut wanted = self.wanted.lock();
        if !wanted.cycle && !wanted.stop {
            self.changed.wait_for(&mut wanted, interval);
        }
        wanted.cycle = false;
        self.is_woken.store(false, Ordering::Release);
        !wanted.stop
    }
}

fn run(inner: &Inner) {
    let interval = inner.options.apply_interval;
    while inner.applier.wait(if inner.is_full() { FULL_INTERVAL } else { interval }) {
        let result = inner.cycle(false);
        if let Err(error) = &result {
            tracing::warn!(%error, "the ordered index does not take commits; they stay in memory and in the log");
        }
        *inner.applier.trouble.lock() = result.err();
        inner.room.notify_waiters();
        if inner.is_full() && inner.is_held_by_views() {
            let count = inner.views.expire_older_than(inner.options.view_hold_max);
            if count > 0 {
                tracing::warn!(count, "views were held too long while commits waited, and have expired");
                inner.applier.wake();
            }
        }
    }
}

impl Inner {
    pub fn is_full(&self) -> bool {
        self.memtable.bytes() > self.options.memtable_bytes_max
    }

    pub fn wake_applier_when_needed(&self) {
        if self.memtable.bytes() > self.options.memtable_bytes_apply {
            self.applier.wake();
        }
    }

    /// Whether there are durable commits that only open views keep from the engine.
    fn is_held_by_views(&self) -> bool {
        let floor = self.views.floor(|| self.visible());
        self.next_in_queue().is_some_and(|next| next > floor && next <= self.visible())
    }

    /// Whether a commit that began at this sequence must wait. One whose own view is what holds the applier back must not,
    /// or it would wait for itself; only a memtable twice too full stops it, until its view expires.
    fn has_no_room(&self, begun: u64) -> bool {
        let (bytes, max) = (self.memtable.bytes(), self.options.memtable_bytes_max);
        let holds =
            || begun <= self.views.floor(|| self.visible()) && self.next_in_queue().is_some_and(|next| next > begun);
        bytes > max && (bytes > 2 * max || !holds())
    }

    fn next_in_queue(&self) -> Option<u64> {
        self.queue.lock().front().map(|moving| moving.sequence)
    }

    /// Wait until the memtable has room, or until it is clear that it will not.
    pub async fn wait_for_room(&self, begun: u64) -> Result<()> {
        while self.has_no_room(begun) {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if !self.has_no_room(begun) {
                break;
            }
            if let Some(trouble) = &*self.applier.trouble.lock() {
                let doing = "too many commits wait for the ordered index, which does not take them";
                return Err(trouble.clone().context(doing));
            }
            if self.commit.lock().is_closed() {
                break;
            }
            self.applier.wake();
            room.await;
        }
        Ok(())
    }

    /// Move everything that no view holds back, and checkpoint when it is time or when told to. Answers the sequence up to
    /// which the engine is durable.
    pub fn cycle(&self, checkpoint_now: bool) -> Result<u64> {
        let mut progress = self.progress.lock();
        while let Some(batch) = self.next_batch() {
            let applied = self.apply(&batch)?;
            progress.newest = Some(applied);
            progress.bytes += batch.iter().map(|moving| moving.bytes).sum::<usize>();
            if progress.bytes >= self.options.checkpoint_bytes {
                self.checkpoint(&mut progress)?;
            }
        }
        let since_ns = self.options.clock.monotonic_ns().saturating_sub(progress.at_ns);
        let is_due = u128::from(since_ns) >= self.options.checkpoint_interval.as_nanos();
        if progress.newest.is_some() && (is_due || checkpoint_now) {
            self.checkpoint(&mut progress)?;
        }
        Ok(progress.durable)
    }

    /// The next commits that are durable and that every view sees. They stay in the queue until they are applied.
    fn next_batch(&self) -> Option<Vec<Arc<Moving>>> {
        let floor = self.views.floor(|| self.visible());
        let queue = self.queue.lock();
        let mut bytes = 0;
        let ready = queue.iter().take_while(|moving| {
            let fits = bytes == 0 || bytes + moving.bytes <= BATCH_BYTES_MAX;
            bytes += moving.bytes + 1;
            moving.sequence <= floor && fits
        });
        let batch: Vec<_> = ready.cloned().collect();
        (!batch.is_empty()).then_some(batch)
    }

    fn apply(&self, batch: &[Arc<Moving>]) -> Result<u64> {
        let applied = batch.last().map_or(0, |moving| moving.sequence);
        let mut keys: Vec<Bytes> = batch.iter().flat_map(|moving| &moving.keys).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut writes = self.memtable.newest_up_to(&keys, applied);
        let documents: BTreeSet<&RowName> =
            batch.iter().flat_map(|moving| &moving.documents).map(|row| &**row).collect();
        for row in documents {
            let value = self.index.read().encode_row(&row.space, &row.index, &row.document).map(Bytes::from);
            writes.push(Write { key: row.key().into(), value });
        }
        self.engine.write_batch(applied, &writes)?;
        // Only now: whoever finds nothing in the memtable must find it in the engine.
        self.memtable.forget(&keys, applied);
        self.queue.lock().drain(..batch.len());
        self.room.notify_waiters();
        Ok(applied)
    }

    fn checkpoint(&self, progress: &mut Progress) -> Result<()> {
        progress.durable = self.engine.checkpoint()?;
        progress.bytes = 0;
        progress.at_ns = self.options.clock.monotonic_ns();
        progress.newest = None;
        match &self.journal {
            Journal::Log(log) => log.drop_below(progress.durable + 1),
            Journal::Nothing => Ok(()),
        }
    }
}
