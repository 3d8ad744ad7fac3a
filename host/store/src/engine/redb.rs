//! redb 4 behind the log, on the store's own disk trait, so that it runs on a disk that tears.
//!
//! Every batch is one durable transaction: batches are large and rare (the log acknowledges, not this engine), so a sync
//! for each costs little, and the engine never holds anything that a crash or a failed write could take back. So a
//! checkpoint has nothing to do, and after a full disk the database is opened again and the batch repeated, while the
//! store goes on. Quick repair is on: opening after a crash does not walk the file.
//!
//! Opening reads a file of at most [`CHECKED_BYTES_MAX`] whole and compares every page with its checksum: what redb reads
//! later it does not check, and a damaged inner page can hide entries. Larger files are checked by `verify` alone.
//!
//! Bounded by a cache of [`CACHE_BYTES`]. After a failed sync nobody knows what is on the disk: the engine refuses
//! everything until the host is started again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::{
    AccessGuard, Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, TableDefinition,
};
use bytes::Bytes;
use mainstay_base::{Disk, DiskFile, Error, Result};
use parking_lot::{RwLock, RwLockReadGuard};

use super::{APPLIED_KEY, Ordered, Span, Visit, Write, decode_applied};

/// What redb may keep in memory.
const CACHE_BYTES: usize = 64 << 20;

/// A file of at most this length is checked whole when it is opened.
const CHECKED_BYTES_MAX: u64 = 256 << 20;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("ordered");

/// An ordered map in one file of redb's.
pub struct RedbEngine {
    place: Place,
    /// None while it is being opened again, or when that failed.
    database: RwLock<Option<Database>>,
    /// The database has seen an I/O error and answers nothing any more; it must be opened again.
    must_reopen: AtomicBool,
}

/// Where the file lies, and what became of its syncs.
struct Place {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    sync_failed: Arc<AtomicBool>,
}

impl RedbEngine {
    /// Open or create the database under this path of the disk. Its folder must be there.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<RedbEngine> {
        let place = Place { disk, path: path.to_owned(), sync_failed: Arc::default() };
        if !place.exists()? {
            place.create()?;
        }
        let mut database = place.open(path)?;
        if place.length()? <= CHECKED_BYTES_MAX && !place.check(&mut database)? {
            // The log is replayed from there, or says that it begins later.
            tracing::warn!(path = %path.display(), "redb went back to the last state of its file that is whole");
        }
        let engine = RedbEngine { place, database: RwLock::new(Some(database)), must_reopen: AtomicBool::new(false) };
        engine.applied()?;
        Ok(engine)
    }

    /// Do something with the database; what fails in it makes the next call open it again.
    fn with<T>(&self, doing: &str, run: impl FnOnce(&Database) -> Result<T, ::redb::Error>) -> Result<T> {
        let guard = self.healthy()?;
        let database = guard.as_ref().ok_or_else(|| {
            Error::unavailable(format!("the redb index `{}` is not open; try again", self.place.path.display()))
        })?;
        run(database).map_err(|error| {
            self.must_reopen.store(true, Ordering::Release);
            self.place.failed(doing, error)
        })
    }

    fn healthy(&self) -> Result<RwLockReadGuard<'_, Option<Database>>> {
        if self.place.sync_failed.load(Ordering::Acquire) {
            return Err(Error::unavailable(format!(
                "the disk failed to sync the redb index `{}`; check the disk, then start the host again: the log has \
                 everything that was acknowledged",
                self.place.path.display()
            )));
        }
        if self.must_reopen.load(Ordering::Acquire) {
            let mut database = self.database.write();
            if self.must_reopen.load(Ordering::Acquire) {
                database.take();
                *database = Some(self.place.open(&self.place.path)?);
                self.must_reopen.store(false, Ordering::Release);
            }
        }
        Ok(self.database.read())
    }
}

impl Place {
    fn exists(&self) -> Result<bool> {
        match self.disk.open(&self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("open", &self.path, error)),
        }
    }

    /// Create an empty database beside its name, then rename: a crash leaves a whole database or none.
    fn create(&self) -> Result<()> {
        let fresh = self.path.with_extension("new");
        let io = |doing: &'static str| move |error| Error::io(doing, &fresh_path(&self.path), error);
        match self.disk.remove(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove")(error)),
            _ => {}
        }
        self.disk.create(&fresh).map_err(io("create"))?;
        let database = self.open(&fresh)?;
        write_table(&database, |_| Ok(())).map_err(|error| self.failed("create", error))?;
        drop(database);
        self.disk.rename(&fresh, &self.path).map_err(io("rename"))?;
        self.disk.sync_folder(self.path.parent().unwrap_or(Path::new(""))).map_err(io("sync the folder of"))
    }

    fn open(&self, path: &Path) -> Result<Database> {
        let file = self.disk.open(path).map_err(|error| Error::io("open", path, error))?;
        let backend = Backend { file, sync_failed: self.sync_failed.clone() };
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        database.map_err(|error| self.not_open(error))
    }

    fn not_open(&self, error: DatabaseError) -> Error {
        match error {
            DatabaseError::Storage(StorageError::Corrupted(what)) => self.damaged(&what),
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.damaged(&error.to_string())
            }
            error => self.failed("open", error.into()),
        }
    }

    fn length(&self) -> Result<u64> {
        let length = self.disk.open(&self.path).and_then(|file| file.length());
        length.map_err(|error| Error::io("measure", &self.path, error))
    }

    /// Compare every page with its checksum. False: the file was damaged, and redb could go back to a state that was not.
    fn check(&self, database: &mut Database) -> Result<bool> {
        database.check_integrity().map_err(|error| self.not_open(error))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::internal(format!("the redb index `{}` is damaged: {what}", self.path.display()))
    }

    fn failed(&self, doing: &str, error: ::redb::Error) -> Error {
        let doing = format!("{doing} the redb index");
        match error {
            ::redb::Error::Io(error) => Error::io(&doing, &self.path, error),
            ::redb::Error::Corrupted(what) => self.damaged(&format!("{what}; restore the data folder from a backup")),
            error @ (::redb::Error::PreviousIo | ::redb::Error::DatabaseClosed) => {
                Error::unavailable(format!("cannot {doing} `{}`: {error}; try again", self.path.display()))
            }
            error => Error::internal(format!("cannot {doing} `{}`: {error}", self.path.display())).with_source(error),
        }
    }
}

fn fresh_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn write_table(
    database: &Database,
    write: impl FnOnce(&mut ::redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<(), ::redb::Error>,
) -> Result<(), ::redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    write(&mut transaction.open_table(TABLE)?)?;
    transaction.commit()?;
    Ok(())
}

impl Ordered for RedbEngine {
    fn applied(&self) -> Result<u64> {
        decode_applied("redb", self.get(APPLIED_KEY)?.as_deref())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.with("read", |database| {
            let table = database.begin_read()?.open_table(TABLE)?;
            Ok(table.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    fn scan(&self, span: Span<'_>, reverse: bool, keys_only: bool, visit: &mut Visit<'_>) -> Result<()> {
        if span.is_empty() {
            return Ok(());
        }
        self.with("scan", |database| {
            let table = database.begin_read()?.open_table(TABLE)?;
            let mut entries = table.range::<&[u8]>(span.start..span.end)?;
            while let Some(entry) = if reverse { entries.next_back() } else { entries.next() } {
                let (key, value): (AccessGuard<&[u8]>, AccessGuard<&[u8]>) = entry?;
                let value = if keys_only { &[] } else { value.value() };
                if !visit(key.value(), value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn write_batch(&self, applied: u64, writes: &[Write]) -> Result<()> {
        self.with("write", |database| {
            write_table(database, |table| {
                for write in writes {
                    match &write.value {
                        Some(value) => table.insert(&*write.key, &**value)?,
                        None => table.remove(&*write.key)?,
                    };
                }
                table.insert(APPLIED_KEY, &applied.to_le_bytes()[..])?;
                Ok(())
            })
        })
    }

    fn checkpoint(&self) -> Result<u64> {
        self.applied()
    }

    fn verify(&self) -> Result<u64> {
        let mut guard = self.database.write();
        let database = guard.as_mut().ok_or_else(|| Error::unavailable("the redb index is not open; try again"))?;
        if self.place.check(database)? {
            return Ok(0);
        }
        Err(self.place.damaged(
            "its pages did not match their checksums, and redb went back to a state that was whole; run `mainstay doctor` \
             again: it says whether the log has the rest. If it does not, restore the data folder from a backup",
        ))
    }
}

/// redb's file on the disk trait.
struct Backend {
    file: Box<dyn DiskFile>,
    sync_failed: Arc<AtomicBool>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let length = self.file.read_at(out, offset)?;
        if length == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
}
