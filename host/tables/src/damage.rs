//! Files that are not what was written.
//!
//! Owns what happens to them: the store lists such a file as damaged instead of as there, in one transaction, and it is
//! moved aside, so that a person can look at it and nothing reads it again. Every later answer whose rows it may have held
//! says so with a [`Missing`]. Separate because reading, merging and opening all find damage.
//!
//! An answer never holds a part of a file's rows: who has been given some of them when damage is found further on gets an
//! error instead of the rest, and asks again.
//!
//! Bounded by one record a file. On failure: what cannot be recorded now is recorded by the next reader; this reader's
//! answer says what it misses in any case.

use std::path::Path;
use std::sync::Arc;

use mainstay_base::{Disk, Error, Result};
use mainstay_store::View;
use serde::{Deserialize, Serialize};

use crate::files::{Fault, StoredFile};
use crate::layout::{self, TableId};
use crate::schema::TextForm;
use crate::table::{Inner, State, Table, entries, parse, to_json};

/// The folder, inside a table's, that damaged files are moved into.
const ASIDE: &str = "damaged";

/// Rows that an answer misses, because their file is damaged or gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The table.
    pub table: String,
    /// The file's name.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
    /// Rows that it held.
    pub rows: u64,
    /// The earliest time among them, in microseconds.
    pub min_us: i64,
    /// The latest time among them.
    pub max_us: i64,
}

/// Files of a table that were moved aside.
pub(crate) fn listed(view: &View, table: TableId) -> Result<Vec<Missing>> {
    let entries = entries(view, &layout::damaged_files(table))?;
    entries.iter().map(|(_, value)| parse(value, || format!("a damaged file of table {table}"))).collect()
}

/// How a table's files are.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// Files that were looked at.
    pub files: usize,
    /// Rows that they should hold.
    pub rows: u64,
    /// Files whose damage was found now, and why.
    pub found: Vec<(String, String)>,
    /// Files that were moved aside earlier.
    pub known: Vec<Missing>,
}

impl Table {
    /// Look at every file, and with `deep` read every row group against its checksums. Changes nothing: what is found
    /// damaged is moved aside by the next who reads it.
    pub fn examine(&self, deep: bool) -> Result<Examined> {
        let known = listed(&self.inner.store.view(), self.state.id)?;
        let mut condition = Examined { known, ..Examined::default() };
        let files: Vec<Arc<StoredFile>> = self.state.files.read().values().cloned().collect();
        for file in files {
            condition.files += 1;
            condition.rows += file.record.rows;
            match examined(&file, deep) {
                Ok(()) => {}
                Err(Fault::Damage(reason)) => condition.found.push((file.name.clone(), reason)),
                Err(Fault::Other(error)) => return Err(error),
            }
        }
        condition.found.sort();
        Ok(condition)
    }
}

fn examined(file: &Arc<StoredFile>, deep: bool) -> Result<(), Fault> {
    let reader = file.open(TextForm::Plain)?;
    let columns: Vec<usize> = (0..reader.schema().fields().len()).collect();
    let groups = if deep { reader.groups() } else { 0 };
    (0..groups).try_for_each(|group| reader.parts(group, &columns).map(drop))
}

/// Take a file out of what is there, and say what is missing.
pub(crate) fn quarantine(inner: &Inner, state: &State, file: &Arc<StoredFile>, reason: String) -> Missing {
    let record = &file.record;
    let missing = Missing {
        table: state.name.to_string(),
        file: file.name.clone(),
        reason,
        rows: record.rows,
        min_us: record.min_us,
        max_us: record.max_us,
    };
    tracing::error!(path = %file.path.display(), reason = missing.reason, rows = record.rows, "a table's file is damaged");
    if let Err(error) = set_aside(inner, state, &missing) {
        tracing::warn!(path = %file.path.display(), %error, "the damaged file could not be moved aside");
    }
    missing
}

fn set_aside(inner: &Inner, state: &State, missing: &Missing) -> Result<()> {
    let (space, table, file) = (layout::space(), state.id, &*missing.file);
    let mut transaction = inner.store.begin(&inner.store.view());
    // Who was replaced meanwhile, or was found by another reader, needs nothing more.
    if transaction.view().get(&space, &layout::file(table, file))?.is_none() {
        return Ok(());
    }
    transaction.expect_present(&space, &layout::file(table, file))?;
    transaction.delete(&space, &layout::file(table, file))?;
    transaction.put(&space, &layout::damaged_file(table, file), to_json(missing))?;
    inner.store.commit_blocking(transaction)?;
    Arc::make_mut(&mut state.files.write()).remove(file);
    move_aside(&*inner.options.disk, &state.folder, file)
}

/// What a reader is told that had already been given rows of a file when it was found damaged: the next answer is whole but
/// for what it says that it misses.
#[derive(Debug)]
pub(crate) struct Torn;

impl Torn {
    /// The error that says so.
    pub fn error(file: &StoredFile) -> Error {
        let message = format!(
            "`{}` was found damaged after some of its rows were given; ask again, and the answer says what it misses",
            file.path.display()
        );
        Error::unavailable(message).with_source(Torn)
    }

    /// Whether an error says so.
    pub fn is_cause_of(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<Torn>())
    }
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a file was damaged while it was read")
    }
}

impl std::error::Error for Torn {}

/// Remove what was moved aside of a table that is no more.
pub(crate) fn forget(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let aside = folder.join(ASIDE);
    let files = match disk.list(&aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|error| Error::io("list", &aside, error))?,
    };
    for file in files {
        disk.remove(&file).map_err(|error| Error::io("remove", &file, error))?;
    }
    disk.sync_folder(&aside).map_err(|error| Error::io("sync", &aside, error))
}

/// Move a file that is listed as damaged out of the way. One that is not there is no error.
pub(crate) fn move_aside(disk: &dyn Disk, folder: &Path, file: &str) -> Result<()> {
    let (from, aside) = (folder.join(file), folder.join(ASIDE));
    let io = |doing: &'static str, path: &Path, error| Err(Error::io(doing, path, error));
    disk.create_folder(&aside).or_else(|error| io("create", &aside, error))?;
    match disk.rename(&from, &aside.join(file)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        moved => moved.or_else(|error| io("move aside", &from, error))?,
    }
    disk.sync_folder(&aside).or_else(|error| io("sync", &aside, error))?;
    disk.sync_folder(folder).or_else(|error| io("sync", folder, error))
}
