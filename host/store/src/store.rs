//! The store: what is shared by commits, views and the applier, and the door to all of them.
//!
//! Owns [`Store`], its options and its end. Separate from the pipeline's steps (`commit`, `apply`, `recover`), each of which
//! has its own file and is called from here.
//!
//! The order of locks, outermost first: commit, publisher, index, then memtable or queue, each alone. The engine has its own.
//! Bounded by [`StoreOptions`]. Dropping the last [`Store`] closes it as [`Store::close`] does; views that are still held
//! stay readable.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_base::{Clock, Disk, DiskLock, Error, RealDisk, Result, SystemClock};
use mainstay_log::{Log, LogOptions};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::apply::{Applier, Moving, Progress};
use crate::commit::{self, CommitState, Receipt};
use crate::engine::{EngineKind, Ordered};
use crate::index::{IndexSet, Query, Selection};
use crate::memtable::Memtable;
use crate::publish::Publisher;
use crate::recover;
use crate::space::Space;
use crate::transaction::Transaction;
use crate::view::{View, Views};

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where log and engine lie; none: no files at all, everything is gone when the store is dropped.
    pub folder: Option<PathBuf>,
    /// The ordered engine behind the log.
    pub engine: EngineKind,
    /// The files' disk. sled does its own I/O and needs the real one.
    pub disk: Arc<dyn Disk>,
    /// Time, for the pace of checkpoints.
    pub clock: Arc<dyn Clock>,
    /// Options of the log.
    pub log: LogOptions,
    /// Commits wait while what is not yet in the engine takes more than this.
    pub memtable_bytes_max: usize,
    /// The applier starts at once when the memtable has grown to this, and otherwise every `apply_interval`.
    pub memtable_bytes_apply: usize,
    /// How often the applier moves commits to the engine when little happens.
    pub apply_interval: Duration,
    /// Bytes applied to the engine between two checkpoints, and so about how much log is kept and replayed.
    pub checkpoint_bytes: usize,
    /// The longest time between two checkpoints, while anything was applied.
    pub checkpoint_interval: Duration,
    /// A view that has been open longer than this expires when it keeps commits waiting.
    pub view_hold_max: Duration,
}

impl StoreOptions {
    /// The defaults, for a store in this folder of the real disk.
    pub fn new(folder: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions { folder: Some(folder.into()), ..StoreOptions::default() }
    }

    /// A store without files.
    pub fn in_memory() -> StoreOptions {
        StoreOptions { engine: EngineKind::Memory, ..StoreOptions::default() }
    }
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            folder: None,
            engine: EngineKind::default(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock::default()),
            log: LogOptions::default(),
            memtable_bytes_max: 64 << 20,
            memtable_bytes_apply: 24 << 20,
            apply_interval: Duration::from_secs(2),
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(30),
            view_hold_max: Duration::from_secs(10),
        }
    }
}

/// The engine of everything durable. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// The last one closes the store.
struct Handle {
    inner: Arc<Inner>,
    /// Taken by the first close.
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    publisher: JoinHandle<()>,
    applier: JoinHandle<()>,
}

/// Where commits become durable.
pub(crate) enum Journal {
    /// The commit log.
    Log(Log),
    /// Nowhere: there are no files.
    Nothing,
}

/// What commits, views and the applier share.
pub(crate) struct Inner {
    pub options: StoreOptions,
    pub engine: Arc<dyn Ordered>,
    pub journal: Journal,
    pub memtable: Memtable,
    pub views: Views,
    /// Commits on their way to the engine, by sequence.
    pub queue: Mutex<VecDeque<Arc<Moving>>>,
    /// Taken for checking guards and appending to the log: the order of commits is decided under it.
    pub commit: Mutex<CommitState>,
    pub index: RwLock<IndexSet<Space>>,
    /// The newest durable commit.
    visible: AtomicU64,
    pub publisher: Publisher,
    pub applier: Applier,
    /// How far the engine is, held for one cycle of the applier.
    pub progress: Mutex<Progress>,
    /// Told when there is room in the memtable again.
    pub room: Notify,
    /// Told when a commit has become visible or has failed.
    pub settled: Notify,
    /// Holds the folder for this process; dropped last.
    _lock: Option<DiskLock>,
}

/// Everything that is open before a store can be.
pub(crate) struct Parts {
    pub options: StoreOptions,
    pub engine: Arc<dyn Ordered>,
    pub journal: Journal,
    /// How far the engine is.
    pub applied: u64,
    pub lock: Option<DiskLock>,
}

impl Inner {
    pub fn new(parts: Parts) -> Inner {
        let Parts { options, engine, journal, applied, lock } = parts;
        let now_ns = options.clock.monotonic_ns();
        Inner {
            options,
            engine,
            journal,
            memtable: Memtable::default(),
            views: Views::default(),
            queue: Mutex::default(),
            commit: Mutex::new(CommitState::new(applied)),
            index: RwLock::default(),
            visible: AtomicU64::new(applied),
            publisher: Publisher::default(),
            applier: Applier::default(),
            progress: Mutex::new(Progress::new(now_ns)),
            room: Notify::new(),
            settled: Notify::new(),
            _lock: lock,
        }
    }

    /// The sequence of the newest durable commit.
    pub fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Let everybody see this commit; its writes are in the memtable.
    pub fn make_visible(&self, sequence: u64) {
        self.visible.store(sequence, Ordering::Release);
        self.settled.notify_waiters();
    }
}

impl Store {
    /// Open the store, and bring its views up to the log.
    pub fn open(options: StoreOptions) -> Result<Store> {
        Store::start(recover::open(options)?)
    }

    /// Open the store on an engine of the caller's, for example one that a test crashes.
    pub fn open_on(options: StoreOptions, engine: Arc<dyn Ordered>) -> Result<Store> {
        Store::start(recover::open_on(options, engine)?)
    }

    /// A store without files, for tests and harnesses.
    pub fn in_memory() -> Store {
        Store::open(StoreOptions::in_memory()).expect("nothing but a thread is needed")
    }

    fn start(inner: Inner) -> Result<Store> {
        let inner = Arc::new(inner);
        let threads = Threads { publisher: Publisher::start(&inner)?, applier: Applier::start(&inner)? };
        Ok(Store { handle: Arc::new(Handle { inner, threads: Mutex::new(Some(threads)) }) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// The newest durable state.
    pub fn view(&self) -> View {
        View::open(self.inner())
    }

    /// Collect changes; `expect_unchanged` compares with this view, which the transaction holds.
    pub fn begin(&self, view: &View) -> Transaction {
        Transaction::new(view.clone())
    }

    /// Make the changes. Returns when they are on disk; a `conflict` (its cause is an [`Overtaken`](crate::Overtaken)) when
    /// what it conflicts with can be read in a new view. Dropping the future before the first wait for the disk does nothing;
    /// dropping it later leaves the commit to succeed or fail as a whole. Guards and additions read keys that are not in
    /// memory from disk, on the calling thread.
    pub async fn commit(&self, transaction: Transaction) -> Result<Receipt> {
        commit::commit(self.inner(), transaction).await
    }

    /// The same, waiting on this thread; not to be called on a thread that runs an async executor.
    pub fn commit_blocking(&self, transaction: Transaction) -> Result<Receipt> {
        futures::executor::block_on(self.commit(transaction))
    }

    /// Documents of an index that match, ordered, as of the newest durable commit.
    pub fn select(&self, space: &Space, index: &str, query: &Query) -> Result<Selection> {
        self.inner().index.read().select(space, index, query)
    }

    /// One document of an index, packed, or none.
    pub fn document(&self, space: &Space, index: &str, document: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.inner().index.read().document(space, index, document))
    }

    /// Move what no view holds back to the engine, checkpoint it, and drop the log below. The applier does this by itself;
    /// this is for backups and tests. Answers the sequence up to which the engine is durable.
    pub fn checkpoint(&self) -> Result<u64> {
        self.inner().cycle(true)
    }

    /// Read everything that the engine holds and check it; answers how many entries there are. Slow, and for a store that
    /// nobody else uses: when it finds damage that the engine can tell, this store answers with errors from then on.
    pub fn verify(&self) -> Result<u64> {
        let _still = self.inner().progress.lock();
        self.inner().engine.verify()
    }

    /// The sequence of the newest durable commit.
    pub fn sequence(&self) -> u64 {
        self.inner().visible()
    }

    /// Bytes of what is committed but not yet in the engine.
    pub fn memtable_bytes(&self) -> usize {
        self.inner().memtable.bytes()
    }

    /// Refuse further commits, wait for those on their way, checkpoint, and stop. Closing again does nothing.
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        let Some(Threads { publisher, applier }) = threads.take() else { return Ok(()) };
        self.inner.commit.lock().close();
        self.inner.room.notify_waiters();
        let drained = match &self.inner.journal {
            Journal::Log(log) => log.close(),
            Journal::Nothing => Ok(()),
        };
        // After the log, which feeds the publisher; before the last cycle, which takes what is visible.
        self.inner.publisher.stop();
        self.inner.applier.stop();
        let stopped = publisher.join().and(applier.join());
        let stopped = stopped.map_err(|_| Error::internal("a thread of the store panicked; see the host's log"));
        let checkpointed = self.inner.cycle(true);
        drained.and(stopped).and(checkpointed.map(|_| ()))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store was not closed cleanly; the log has everything that was acknowledged");
        }
    }
}
