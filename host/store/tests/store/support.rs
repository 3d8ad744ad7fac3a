//! Disks and engines that stop where a test wants them to, and short ways to do common things.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{Disk, DiskFile, Error, Result, SimDisk};
use mainstay_store::engine::{MemoryEngine, Ordered, Span, Visit, Write};
use mainstay_store::{EngineKind, KeyRange, Page, Receipt, ScanOptions, Space, Store, StoreOptions, Transaction, View};
use parking_lot::{Condvar, Mutex};

pub fn space() -> Space {
    Space::plugin("t")
}

/// Options for a store on a simulated disk, whose applier works only when told to.
pub fn options(disk: impl Disk, engine: EngineKind) -> StoreOptions {
    StoreOptions {
        folder: Some(PathBuf::from("data")),
        engine,
        disk: Arc::new(disk),
        apply_interval: Duration::from_secs(3600),
        ..StoreOptions::default()
    }
}

pub fn open(disk: &SimDisk, engine: EngineKind) -> Store {
    Store::open(options(disk.clone(), engine)).expect("the store opens")
}

/// Begin at a new view, fill, commit.
pub fn commit(store: &Store, fill: impl FnOnce(&mut Transaction) -> Result<()>) -> Result<Receipt> {
    let mut transaction = store.begin(&store.view());
    fill(&mut transaction)?;
    store.commit_blocking(transaction)
}

pub fn put(store: &Store, key: &str, value: &str) -> Result<Receipt> {
    commit(store, |tx| tx.put(&space(), key.as_bytes(), value.to_owned()))
}

pub fn get(view: &View, key: &str) -> Option<String> {
    let value = view.get(&space(), key.as_bytes()).expect("readable");
    value.map(|value| String::from_utf8(value.to_vec()).expect("text"))
}

/// Every entry of a space, by small pages.
pub fn all(view: &View, space: &Space) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut options = ScanOptions { limit: 7, ..ScanOptions::default() };
    let mut entries = Vec::new();
    loop {
        let page: Page = view.scan(space, &[KeyRange::default()], &options).expect("scannable");
        entries.extend(page.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        match page.next {
            Some(next) => options.after = Some(next),
            None => return entries,
        }
    }
}

pub fn counter(view: &View, key: &str) -> i64 {
    view.get(&space(), key.as_bytes()).unwrap().map_or(0, |value| i64::from_le_bytes(value[..].try_into().unwrap()))
}

/// A disk whose writes wait while the gate is closed.
#[derive(Clone)]
pub struct GatedDisk {
    pub disk: SimDisk,
    gate: Arc<Gate>,
}

struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    is_open: bool,
    waiting: usize,
}

impl GatedDisk {
    pub fn new() -> GatedDisk {
        let state = Mutex::new(GateState { is_open: true, waiting: 0 });
        GatedDisk { disk: SimDisk::new(), gate: Arc::new(Gate { state, changed: Condvar::new() }) }
    }

    pub fn set_open(&self, is_open: bool) {
        self.gate.state.lock().is_open = is_open;
        self.gate.changed.notify_all();
    }

    /// Whether somebody stands before the gate.
    pub fn is_waited_for(&self) -> bool {
        self.gate.state.lock().waiting > 0
    }
}

impl Disk for GatedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile { file: self.disk.create(path)?, gate: self.gate.clone() }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile { file: self.disk.open(path)?, gate: self.gate.clone() }))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
}

struct GatedFile {
    file: Box<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl GatedFile {
    fn wait(&self) {
        let mut state = self.gate.state.lock();
        state.waiting += 1;
        while !state.is_open {
            // A test that fails while the gate is closed must not hang.
            if self.gate.changed.wait_for(&mut state, Duration::from_secs(10)).timed_out() {
                break;
            }
        }
        state.waiting -= 1;
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.wait();
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
}

type Hook = Box<dyn FnOnce() + Send>;

/// The memory engine with a hook around its reads and errors for its writes.
#[derive(Default)]
pub struct HookedEngine {
    engine: MemoryEngine,
    /// Runs once, just after the next `get` has read.
    pub after_get: Mutex<Option<Hook>>,
    /// Runs once, just before the next `scan` reads.
    pub before_scan: Mutex<Option<Hook>>,
    /// The next batches fail with this.
    pub refuses: Mutex<Option<Error>>,
    pub gets: AtomicU64,
}

impl Ordered for HookedEngine {
    fn applied(&self) -> Result<u64> {
        self.engine.applied()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let value = self.engine.get(key);
        let hook = self.after_get.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        value
    }
    fn scan(&self, span: Span<'_>, reverse: bool, keys_only: bool, visit: &mut Visit<'_>) -> Result<()> {
        let hook = self.before_scan.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        self.engine.scan(span, reverse, keys_only, visit)
    }
    fn write_batch(&self, applied: u64, writes: &[Write]) -> Result<()> {
        match &*self.refuses.lock() {
            Some(error) => Err(error.clone()),
            None => self.engine.write_batch(applied, writes),
        }
    }
    fn checkpoint(&self) -> Result<u64> {
        self.engine.checkpoint()
    }
}
