//! sled 0.34 behind the log.
//!
//! A batch is one atomic `apply_batch` of one tree, the progress mark in it. sled's own flush ends in `sync_file_range`,
//! which leaves the file's size and the device's cache unwritten, so a checkpoint flushes and then syncs every file and
//! folder of sled itself. sled does its own I/O: it knows neither the disk trait nor simulated faults.
//!
//! Bounded by a cache of [`CACHE_BYTES`] (the default of 1 GiB is too much for a laptop). When sled reports damage, nothing
//! is changed or removed; the error says which commits live only here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_base::{Error, Result};
use parking_lot::Mutex;

use super::{APPLIED_KEY, Ordered, Span, Visit, Write, decode_applied};

/// What sled may keep in memory.
const CACHE_BYTES: u64 = 64 << 20;
/// How long to wait for a database that this process has just closed.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

/// An ordered map in a folder of sled's.
pub struct SledEngine {
    folder: PathBuf,
    database: sled::Db,
    /// One checkpoint at a time: the sequence read before the flush is what the flush covers.
    checkpoint: Mutex<()>,
}

impl SledEngine {
    /// Open or create the database in this folder of the real file system.
    pub fn open(folder: &Path) -> Result<SledEngine> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            // The store flushes when it checkpoints; a second clock would only cost writes.
            .flush_every_ms(None);
        let database = open_patiently(&config).map_err(|error| failed("open", folder, error))?;
        let engine = SledEngine { folder: folder.to_owned(), database, checkpoint: Mutex::new(()) };
        engine.applied()?;
        Ok(engine)
    }

    fn failed(&self, doing: &str, error: sled::Error) -> Error {
        failed(doing, &self.folder, error)
    }
}

impl Ordered for SledEngine {
    fn applied(&self) -> Result<u64> {
        let value = self.database.get(APPLIED_KEY).map_err(|error| self.failed("read", error))?;
        decode_applied("sled", value.as_deref())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.database.get(key).map_err(|error| self.failed("read", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, span: Span<'_>, reverse: bool, _keys_only: bool, visit: &mut Visit<'_>) -> Result<()> {
        if span.is_empty() {
            return Ok(());
        }
        let mut entries = self.database.range(span.start..span.end);
        while let Some(entry) = if reverse { entries.next_back() } else { entries.next() } {
            let (key, value) = entry.map_err(|error| self.failed("scan", error))?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn write_batch(&self, applied: u64, writes: &[Write]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for write in writes {
            match &write.value {
                Some(value) => batch.insert(&*write.key, &**value),
                None => batch.remove(&*write.key),
            }
        }
        batch.insert(APPLIED_KEY, &applied.to_le_bytes());
        self.database.apply_batch(batch).map_err(|error| self.failed("write", error))
    }

    fn checkpoint(&self) -> Result<u64> {
        let _one = self.checkpoint.lock();
        let applied = self.applied()?;
        self.database.flush().map_err(|error| self.failed("flush", error))?;
        sync_tree(&self.folder).map_err(|error| Error::io("sync", &self.folder, error))?;
        Ok(applied)
    }
}

/// sled's background threads hold its lock a little longer than the last handle lives. Another process cannot have it: the
/// store takes the whole data folder first.
fn open_patiently(config: &sled::Config) -> sled::Result<sled::Db> {
    let start = Instant::now();
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if is_lock(&error) && start.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// sled wraps the refusal in an error of its own making, which keeps only the text.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Sync every file below a folder, then the folders. sled removes snapshots and blobs meanwhile: one that is gone needs
/// no sync.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let synced = if path.is_dir() { sync_tree(&path) } else { File::open(&path).and_then(|file| file.sync_all()) };
        match synced {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    File::open(folder)?.sync_all()
}

fn failed(doing: &str, folder: &Path, error: sled::Error) -> Error {
    let doing = format!("{doing} the sled index in");
    match error {
        sled::Error::Io(error) => Error::io(&doing, folder, error),
        error => Error::internal(format!("cannot {doing} `{}`: {error}", folder.display())).with_source(error),
    }
}
