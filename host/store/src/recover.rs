//! Opening: from what lies on the disk to a store that is up to date.
//!
//! Owns the order: take the folder for this process, open the engine, open the log, see that they fit together, load the
//! index from its rows, replay the log above the engine. Separate because it runs once, alone, and is where every damage
//! shows. Nothing is ever repaired by removing it: what does not fit is an error that says what is where and what to do (see
//! `repair`).
//!
//! Bounded: replaying moves commits to the engine as it goes, so it needs no more memory than running does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{DiskLock, Error, ErrorKind, Result};
use mainstay_log::{Corruption, Log, Opened, Survey, survey};

use crate::apply::Moving;
use crate::commit::{Resolved, resolve};
use crate::engine::{Checked, EngineKind, MemoryEngine, Ordered, RedbEngine, SledEngine, Span};
use crate::index::IndexSet;
use crate::publish::apply_to_index;
use crate::record;
use crate::repair;
use crate::scan::Layers;
use crate::space::{ROWS, Space, parse_row_key};
use crate::store::{Inner, Journal, Parts, StoreOptions};

const LOCK: &str = "lock";
const LOG: &str = "log";
const SLED: &str = "ordered.sled";
const REDB: &str = "ordered.redb";

/// Open what the options name.
pub(crate) fn open(options: StoreOptions) -> Result<Inner> {
    if options.folder.is_none() {
        if options.engine != EngineKind::Memory {
            let engine = options.engine.name();
            return Err(Error::invalid(format!(
                "the {engine} engine needs a folder; name one, or use the memory engine"
            )));
        }
        return Ok(Inner::new(Parts {
            engine: Arc::new(Checked::open(|| Ok(Arc::new(MemoryEngine::default())))?),
            journal: Journal::Nothing,
            applied: 0,
            lock: None,
            options,
        }));
    }
    let (folder, lock) = take(&options)?;
    let engine = open_checked(&options, &folder)?;
    open_log(options, &folder, engine, Some(lock))
}

/// Take the options' folder for this process, if it was made with the options' engine.
pub(crate) fn take(options: &StoreOptions) -> Result<(PathBuf, DiskLock)> {
    let folder =
        options.folder.clone().ok_or_else(|| Error::invalid("a store without files has no folder; name one"))?;
    let lock = take_folder(options, &folder)?;
    check_other_engine(options, &folder)?;
    repair::finish(&*options.disk, &folder)?;
    Ok((folder, lock))
}

/// The engine of a folder that was taken, with its checksums.
pub(crate) fn open_checked(options: &StoreOptions, folder: &Path) -> Result<Arc<dyn Ordered>> {
    match Checked::open(|| open_engine(options, folder)) {
        Ok(engine) => Ok(Arc::new(engine)),
        Err(error) if error.kind() == ErrorKind::Internal => Err(explain_damage(options, folder, error)),
        Err(error) => Err(error),
    }
}

/// Open the log in the options' folder, on an engine that is open already.
pub(crate) fn open_on(options: StoreOptions, engine: Arc<dyn Ordered>) -> Result<Inner> {
    let engine: Arc<dyn Ordered> = Arc::new(Checked::open(|| Ok(engine))?);
    let Some(folder) = options.folder.clone() else {
        let applied = engine.applied()?;
        return load(Parts { options, engine, journal: Journal::Nothing, applied, lock: None });
    };
    let lock = take_folder(&options, &folder)?;
    open_log(options, &folder, engine, Some(lock))
}

fn take_folder(options: &StoreOptions, folder: &Path) -> Result<DiskLock> {
    create_folder(options, folder).map_err(|error| Error::io("create", folder, error))?;
    let path = folder.join(LOCK);
    options.disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::unavailable(format!(
            "the data folder `{}` is in use by another process; stop that one, or name another folder",
            folder.display()
        )),
        _ => Error::io("lock", &path, error),
    })
}

/// Create a folder so that no crash takes its name, or the names of those above it that are new.
fn create_folder(options: &StoreOptions, folder: &Path) -> io::Result<()> {
    let mut new = Vec::new();
    for above in folder.ancestors() {
        match options.disk.list(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => new.push(above),
            _ => break,
        }
    }
    options.disk.create_folder(folder)?;
    for folder in new {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        options.disk.sync_folder(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn check_other_engine(options: &StoreOptions, folder: &Path) -> Result<()> {
    let others: &[(EngineKind, &str)] = match options.engine {
        EngineKind::Memory => &[(EngineKind::Sled, SLED), (EngineKind::Redb, REDB)],
        EngineKind::Sled => &[(EngineKind::Redb, REDB)],
        EngineKind::Redb => &[(EngineKind::Sled, SLED)],
    };
    let names = options.disk.list(folder).map_err(|error| Error::io("list", folder, error))?;
    for (engine, name) in others {
        if names.iter().any(|path| path.file_name().is_some_and(|found| found == *name)) {
            return Err(Error::invalid(format!(
                "the data folder `{}` was made with the {} engine, and {} was asked for; start with the engine that it was \
                 made with",
                folder.display(),
                engine.name(),
                options.engine.name()
            )));
        }
    }
    Ok(())
}

fn open_engine(options: &StoreOptions, folder: &Path) -> Result<Arc<dyn Ordered>> {
    Ok(match options.engine {
        EngineKind::Memory => Arc::new(MemoryEngine::default()),
        EngineKind::Sled => Arc::new(SledEngine::open(&folder.join(SLED))?),
        EngineKind::Redb => Arc::new(RedbEngine::open(options.disk.clone(), &folder.join(REDB))?),
    })
}

/// The engine is damaged: say what lives only there, and what to do.
fn explain_damage(options: &StoreOptions, folder: &Path, error: Error) -> Error {
    let name = if options.engine == EngineKind::Sled { SLED } else { REDB };
    let (index, log) = (folder.join(name), folder.join(LOG));
    let remedy = match survey(&*options.disk, &log, 0, &mut |_, _| Ok(())) {
        Ok(Survey { damages: 1.., damage, .. }) => format!(
            "The log is damaged too: {}. Restore the data folder from a backup",
            damage.first().map(Corruption::to_string).unwrap_or_default()
        ),
        Ok(Survey { first: Some(..=1), .. }) => format!(
            "The log in `{}` still holds every commit: move `{}` away and start again, and it is rebuilt",
            log.display(),
            index.display()
        ),
        Ok(Survey { first: Some(first), .. }) => format!(
            "The log in `{}` holds the commits from {first} on; older ones are only in `{}`. Copy the whole data folder, then \
             restore it from a backup, or repair the copy with the tools of {} and put it back",
            log.display(),
            index.display(),
            options.engine.name()
        ),
        Ok(Survey { first: None, .. }) => {
            format!("The log in `{}` holds nothing. Restore the data folder from a backup", log.display())
        }
        Err(log_error) => format!("The log cannot be read either: {log_error}. Restore the data folder from a backup"),
    };
    error.context(format!("the ordered index cannot be opened; nothing was changed. {remedy}. The cause"))
}

fn open_log(options: StoreOptions, folder: &Path, engine: Arc<dyn Ordered>, lock: Option<DiskLock>) -> Result<Inner> {
    let path = folder.join(LOG);
    let applied = engine.applied()?;
    let opened = Log::open_beyond(options.disk.clone(), &path, options.log.clone(), applied);
    let Opened { log, recovery } = opened.map_err(|error| repair::explain(&options, folder, applied, error))?;
    // The log's folder must not vanish in a crash after it has acknowledged something.
    options.disk.sync_folder(folder).map_err(|error| Error::io("sync", folder, error))?;
    // The engine must begin where the log does, or later; the log itself has seen that it ends where the engine does, or
    // later.
    if recovery.first > applied + 1 {
        return Err(repair::misfit(&options, folder, applied));
    }
    let inner = load(Parts { options, engine, journal: Journal::Log(log), applied, lock })?;
    replay(&inner, applied, &path).map_err(|error| repair::explain(&inner.options, folder, applied, error))?;
    Ok(inner)
}

/// A store as the engine has it.
fn load(parts: Parts) -> Result<Inner> {
    let inner = Inner::new(parts);
    {
        let mut index = inner.index.write();
        let mut result = Ok(());
        let (start, end) = ROWS;
        inner.engine.scan(Span { start, end }, false, false, &mut |key, row| {
            result = load_row(&mut index, key, row);
            result.is_ok()
        })?;
        result.map_err(|error| {
            error.context("an index document cannot be read; restore the data folder from a backup")
        })?;
    }
    Ok(inner)
}

fn load_row(index: &mut IndexSet<Space>, key: &[u8], row: &[u8]) -> Result<()> {
    let name = parse_row_key(key)?;
    index.load_row(&name.space, &name.index, &name.document, row)
}

/// Apply what the log has above the engine.
fn replay(inner: &Inner, applied: u64, path: &Path) -> Result<()> {
    let Journal::Log(log) = &inner.journal else { return Ok(()) };
    for record in log.replay(applied + 1) {
        let (sequence, payload) = record?;
        replay_one(inner, sequence, payload).map_err(|error| {
            let path: PathBuf = path.to_owned();
            error.context(format!("commit {sequence} of the log `{}` cannot be replayed", path.display()))
        })?;
        if inner.memtable.bytes() > inner.options.memtable_bytes_apply {
            inner.cycle(false)?;
        }
    }
    Ok(())
}

fn replay_one(inner: &Inner, sequence: u64, payload: Vec<u8>) -> Result<()> {
    let operations = record::decode(payload)?;
    let before = Layers { memtable: &inner.memtable, engine: &*inner.engine, sequence: sequence - 1 };
    let resolved: Resolved = resolve(operations, sequence, |start, end| {
        let mut keys = Vec::new();
        before.visit(Span { start, end }, false, true, &mut |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            true
        })?;
        Ok(keys)
    })?;
    inner.memtable.insert(sequence, &resolved.writes);
    inner.queue.lock().push_back(Arc::new(Moving::new(sequence, &resolved)));
    apply_to_index(&mut inner.index.write(), &resolved.index);
    inner.make_visible(sequence);
    inner.commit.lock().replayed(sequence);
    Ok(())
}
