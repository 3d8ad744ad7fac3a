//! The door: tables are made, opened and appended to.
//!
//! Owns [`Tables`], [`Table`] and what is shared about one table: its specification, its secret, the handles of its files.
//! Opening reads what the store lists, and removes files that it does not list: they were being written, or were replaced,
//! when the host stopped. A table is dropped in one transaction, and what it had is removed behind it.
//!
//! Handles of files are taken under the lock `files` together with a view of the store, and are given up under the same
//! lock after the commit that replaces them; so whoever has a view has the handles of what it lists.
//!
//! Bounded by: [`TablesOptions::pending_bytes_max`] for each table, beyond which appending is `exhausted` until compaction
//! has caught up. On failure: an append that failed before its commit has done nothing; one whose acknowledgement was lost
//! is repeated safely with its idempotency key.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use mainstay_arrays::Frame;
use mainstay_base::{Clock, Disk, Error, ErrorKind, OsRandom, Random, RealDisk, Result, SystemClock};
use mainstay_store::{KeyRange, Store, Transaction, View};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::damage::{self, Missing};
use crate::driver::Kick;
use crate::files::{FileRecord, StoredFile};
use crate::frames;
use crate::layout::{self, TableId};
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, TABLES_MAX};
use crate::pool::Pool;
use crate::schema::{ColumnSpec, Retention, TableSpec, check_table_name};
use crate::{marks, pending};

/// Entries that are read at a time.
const PAGE_ENTRIES: u32 = 10_000;
/// Bytes of a table's secret.
const SECRET_BYTES: usize = 32;
/// Keys of a dropped table that go at a time.
const PURGED_KEYS: u32 = 8_000;

/// How tables are opened.
#[derive(Clone)]
pub struct TablesOptions {
    /// Where the files lie, a folder for each table.
    pub folder: PathBuf,
    /// The files' disk.
    pub disk: Arc<dyn Disk>,
    /// Time, for retention and idempotency keys.
    pub clock: Arc<dyn Clock>,
    /// Where tables' secrets come from.
    pub random: Arc<dyn Random>,
    /// Appending waits for compaction, as `exhausted`, beyond so many bytes of pending rows of one table.
    pub pending_bytes_max: u64,
    /// The background driver compacts at once beyond so many bytes of pending rows of one table.
    pub pending_bytes_compact: u64,
    /// Files of at least this size are not merged any more.
    pub file_bytes: u64,
    /// Threads that work on SQL, windows and aggregates.
    pub query_threads: usize,
}

impl TablesOptions {
    /// The defaults, for files in this folder of the real disk.
    pub fn new(folder: impl Into<PathBuf>) -> TablesOptions {
        TablesOptions {
            folder: folder.into(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock::default()),
            random: Arc::new(OsRandom),
            pending_bytes_max: 256 << 20,
            pending_bytes_compact: 48 << 20,
            file_bytes: 128 << 20,
            query_threads: std::thread::available_parallelism().map_or(2, |count| count.get().min(4)),
        }
    }
}

/// Every table of a store. Clones are the same tables.
#[derive(Clone)]
pub struct Tables {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub options: TablesOptions,
    pub tables: RwLock<BTreeMap<Arc<str>, Arc<State>>>,
    /// Held while a table is made, changed or dropped.
    making: Mutex<()>,
    /// Dropped tables whose keys are not yet gone.
    dropped: Mutex<Vec<TableId>>,
    pub pool: Pool,
    pub kick: Kick,
}

/// Handles of a table's files, by name. Shared with the snapshots that were taken of it.
pub(crate) type Files = Arc<HashMap<String, Arc<StoredFile>>>;

/// What is shared about one table.
pub(crate) struct State {
    pub id: TableId,
    pub name: Arc<str>,
    pub spec: RwLock<Arc<TableSpec>>,
    secret: Vec<u8>,
    pub folder: PathBuf,
    pub files: RwLock<Files>,
    /// Held by the one who compacts.
    pub compacting: Mutex<()>,
    /// Numbers the files that this process has begun to write.
    begun: AtomicU64,
}

impl State {
    fn new(id: TableId, name: &str, spec: TableSpec, secret: Vec<u8>, folder: PathBuf) -> State {
        State {
            id,
            name: name.into(),
            spec: RwLock::new(Arc::new(spec)),
            secret,
            folder,
            files: RwLock::default(),
            compacting: Mutex::default(),
            begun: AtomicU64::new(0),
        }
    }

    pub fn spec(&self) -> Arc<TableSpec> {
        self.spec.read().clone()
    }

    /// A name that no file has had: what an earlier process left unfinished is gone since the tables were opened.
    pub fn new_file_name(&self, label: &str, sequence: u64) -> String {
        format!("{label}-{sequence:012x}-{:04x}.parquet", self.begun.fetch_add(1, Ordering::Relaxed))
    }

    /// `not-found` when the table was dropped.
    pub fn check_alive(&self, view: &View) -> Result<()> {
        match view.get(&layout::space(), &layout::alive(self.id))? {
            Some(_) => Ok(()),
            None => Err(self.gone()),
        }
    }

    fn gone(&self) -> Error {
        Error::not_found(format!("table `{}` was dropped", self.name))
    }
}

/// A specification as it stands in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    id: TableId,
    spec: TableSpec,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Rows that were added.
    pub rows: usize,
    /// The idempotency key was used before: nothing was added.
    pub is_repeated: bool,
}

/// How much a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableStats {
    /// Files that hold rows.
    pub files: usize,
    /// Rows in files.
    pub file_rows: u64,
    /// Bytes of files.
    pub file_bytes: u64,
    /// Bytes of rows that are not yet in files.
    pub pending_bytes: u64,
    /// Files that were moved aside because they are damaged.
    pub damaged: Vec<Missing>,
}

impl Tables {
    /// Open what the store lists, and remove what it does not: files that were being written or were replaced when the host
    /// stopped, and what is left of dropped tables.
    pub fn open(store: Store, options: TablesOptions) -> Result<Tables> {
        create_folder(&*options.disk, &options.folder)?;
        let view = store.view();
        let mut tables = BTreeMap::new();
        for (key, value) in entries(&view, layout::SPECS)? {
            let name = String::from_utf8_lossy(&key[layout::SPECS.len()..]).into_owned();
            let Record { id, spec } = parse(&value, || format!("the specification of table `{name}`"))?;
            let state = open_table(&view, &options, id, &name, spec)?;
            tables.insert(state.name.clone(), Arc::new(state));
        }
        remove_other_folders(&options, &tables)?;
        let dropped = entries(&view, layout::DROPPED)?;
        let dropped = dropped.iter().filter_map(|(key, _)| layout::table_of_dropped(key)).collect();
        drop(view);
        let inner = Inner {
            pool: Pool::new(options.query_threads),
            store,
            options,
            tables: RwLock::new(tables),
            making: Mutex::default(),
            dropped: Mutex::new(dropped),
            kick: Kick::default(),
        };
        let tables = Tables { inner: Arc::new(inner) };
        tables.purge()?;
        Ok(tables)
    }

    /// Make a table, durably. One that is there and is the same is no error; `conflict` when it is another.
    pub fn create(&self, name: &str, spec: &TableSpec) -> Result<Table> {
        check_table_name(name)?;
        let spec = TableSpec {
            version: 0,
            columns: spec.columns.iter().map(|column| ColumnSpec { since: 0, ..column.clone() }).collect(),
            ..spec.clone()
        };
        spec.check()?;
        let _alone = self.inner.making.lock();
        if let Ok(table) = self.table(name) {
            if table.state.spec().is_asked_for_by(&spec) {
                return Ok(table);
            }
            return Err(Error::conflict(format!(
                "table `{name}` is there and is another; grow it, or take another name"
            )));
        }
        if self.inner.tables.read().len() >= TABLES_MAX {
            return Err(Error::exhausted(format!("{TABLES_MAX} tables are there, which is the most; drop some")));
        }
        let options = &self.inner.options;
        let folder = options.folder.join(name);
        create_folder(&*options.disk, &folder)?;
        let mut secret = vec![0; SECRET_BYTES];
        options.random.fill(&mut secret);
        let (space, view) = (layout::space(), self.inner.store.view());
        // Making one is a commit, so the next one has a larger number.
        let id = TableId(view.sequence());
        let mut transaction = self.inner.store.begin(&view);
        transaction.expect_absent(&space, &layout::spec(name))?;
        transaction.put(&space, &layout::spec(name), to_json(&Record { id, spec: spec.clone() }))?;
        transaction.put(&space, &layout::secret(id), secret.clone())?;
        transaction.put(&space, &layout::alive(id), "")?;
        drop(view);
        self.inner.store.commit_blocking(transaction)?;
        let state = Arc::new(State::new(id, name, spec, secret, folder));
        self.inner.tables.write().insert(state.name.clone(), state.clone());
        Ok(Table { inner: self.inner.clone(), state })
    }

    /// A table; `not-found` when there is none of this name.
    pub fn table(&self, name: &str) -> Result<Table> {
        let state = self.inner.tables.read().get(name).cloned();
        let state = state.ok_or_else(|| Error::not_found(format!("no table `{name}`; make it first")))?;
        Ok(Table { inner: self.inner.clone(), state })
    }

    /// Names of all tables, sorted.
    pub fn list(&self) -> Vec<Arc<str>> {
        self.inner.tables.read().keys().cloned().collect()
    }

    /// Remove a table with all its rows: from the next commit on nobody finds it, and what was begun in it fails with
    /// `not-found`. Its files go when those who read them are done, its keys at once or, if the host stops, at the next start.
    /// Waits for a compaction of the table to end.
    pub fn drop_table(&self, name: &str) -> Result<()> {
        let _alone = self.inner.making.lock();
        let Table { state, .. } = self.table(name)?;
        let _still = state.compacting.lock();
        let space = layout::space();
        let mut transaction = self.inner.store.begin(&self.inner.store.view());
        transaction.expect_present(&space, &layout::alive(state.id))?;
        transaction.delete(&space, &layout::alive(state.id))?;
        transaction.delete(&space, &layout::spec(name))?;
        transaction.delete(&space, &layout::secret(state.id))?;
        transaction.put(&space, &layout::dropped(state.id), "")?;
        self.inner.store.commit_blocking(transaction)?;
        self.inner.tables.write().remove(name);
        let files = std::mem::take(&mut *state.files.write());
        files.values().for_each(|file| file.replaced());
        drop(files);
        self.inner.dropped.lock().push(state.id);
        let disk = &*self.inner.options.disk;
        let cleaned = damage::forget(disk, &state.folder)
            .and_then(|()| disk.sync_folder(&state.folder).map_err(|error| Error::io("sync", &state.folder, error)))
            .and_then(|()| self.purge());
        if let Err(error) = cleaned {
            tracing::warn!(table = name, %error, "what is left of a dropped table is removed later");
        }
        Ok(())
    }

    /// Remove the keys of dropped tables.
    pub(crate) fn purge(&self) -> Result<()> {
        let mut dropped = self.inner.dropped.lock();
        while let Some(id) = dropped.last().copied() {
            for prefix in [
                layout::pending(id),
                layout::files(id),
                layout::damaged_files(id),
                layout::all_used(id),
                layout::all_used_at(id),
            ] {
                self.delete_under(&prefix)?;
            }
            let mut transaction = self.inner.store.begin(&self.inner.store.view());
            transaction.delete(&layout::space(), &layout::pending_bytes(id))?;
            transaction.delete(&layout::space(), &layout::dropped(id))?;
            self.inner.store.commit_blocking(transaction)?;
            dropped.pop();
        }
        Ok(())
    }

    fn delete_under(&self, prefix: &[u8]) -> Result<()> {
        let (space, ranges) = (layout::space(), [KeyRange::prefix(prefix)]);
        let options = mainstay_store::ScanOptions { keys_only: true, limit: PURGED_KEYS, ..Default::default() };
        loop {
            let view = self.inner.store.view();
            let page = view.scan(&space, &ranges, &options)?;
            if page.count == 0 {
                return Ok(());
            }
            let mut transaction = self.inner.store.begin(&view);
            for (key, _) in &page {
                transaction.delete(&space, key)?;
            }
            drop(view);
            self.inner.store.commit_blocking(transaction)?;
        }
    }
}

/// Bring one table's folder to what the store lists.
fn open_table(view: &View, options: &TablesOptions, id: TableId, name: &str, spec: TableSpec) -> Result<State> {
    let folder = options.folder.join(name);
    create_folder(&*options.disk, &folder)?;
    let secret = view.get(&layout::space(), &layout::secret(id))?;
    let secret = secret.ok_or_else(|| Error::internal(format!("table `{name}` has lost its secret")))?;
    let state = State::new(id, name, spec, secret.to_vec(), folder);
    let mut files = HashMap::new();
    for (file, record) in listed(view, id)? {
        let stored = StoredFile::new(&options.disk, &state.folder, &file, record);
        files.insert(file, Arc::new(stored));
    }
    let aside = damage::listed(view, id)?;
    for path in parquet_files(&*options.disk, &state.folder)? {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        if files.contains_key(file) {
            continue;
        }
        if aside.iter().any(|missing| missing.file == file) {
            damage::move_aside(&*options.disk, &state.folder, file)?;
        } else {
            options.disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    *state.files.write() = Arc::new(files);
    Ok(state)
}

fn parquet_files(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = disk.list(folder).map_err(|error| Error::io("list", folder, error))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    Ok(files)
}

/// Remove the files of tables that were dropped, when the host stopped before they were gone.
fn remove_other_folders(options: &TablesOptions, tables: &BTreeMap<Arc<str>, Arc<State>>) -> Result<()> {
    let (disk, folder) = (&*options.disk, &options.folder);
    for path in disk.list(folder).map_err(|error| Error::io("list", folder, error))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What is no folder of ours is none of our business.
        if tables.contains_key(name) || check_table_name(name).is_err() {
            continue;
        }
        let Ok(files) = parquet_files(disk, &path) else { continue };
        for file in files {
            disk.remove(&file).map_err(|error| Error::io("remove", &file, error))?;
        }
        damage::forget(disk, &path)?;
    }
    Ok(())
}

/// Files of a table that the view lists.
pub(crate) fn listed(view: &View, table: TableId) -> Result<Vec<(String, FileRecord)>> {
    let prefix = layout::files(table);
    let mut listed = Vec::new();
    for (key, value) in entries(view, &prefix)? {
        let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let record = parse(&value, || format!("the record of file `{name}` of table {table}"))?;
        listed.push((name, record));
    }
    Ok(listed)
}

/// Names of files that the view lists.
pub(crate) fn listed_names(view: &View, table: TableId) -> Result<Vec<String>> {
    let prefix = layout::files(table);
    let keys = entries_or_keys(view, &prefix, true)?;
    Ok(keys.iter().map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect())
}

/// Every entry under a prefix.
pub(crate) fn entries(view: &View, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    entries_or_keys(view, prefix, false)
}

fn entries_or_keys(view: &View, prefix: &[u8], keys_only: bool) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let ranges = [KeyRange::prefix(prefix)];
    let mut options = mainstay_store::ScanOptions { keys_only, limit: PAGE_ENTRIES, ..Default::default() };
    let mut entries = Vec::new();
    loop {
        let page = view.scan(&layout::space(), &ranges, &options)?;
        entries.extend(page.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        match page.next {
            Some(next) => options.after = Some(next),
            None => return Ok(entries),
        }
    }
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys only")
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(value: &[u8], what: impl FnOnce() -> String) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| {
        Error::internal(format!("{} cannot be read; was it written by a newer host?", what())).with_source(error)
    })
}

/// Make a folder, durably: its name is in the folder above, and that one's in the one above it.
fn create_folder(disk: &dyn Disk, folder: &Path) -> Result<()> {
    disk.create_folder(folder).map_err(|error| Error::io("create", folder, error))?;
    for above in folder.ancestors().skip(1).take(2) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        disk.sync_folder(above).map_err(|error| Error::io("sync", above, error))?;
    }
    Ok(())
}

/// One table. Clones are the same table.
#[derive(Clone)]
pub struct Table {
    pub(crate) inner: Arc<Inner>,
    pub(crate) state: Arc<State>,
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// What it is made of, as of now.
    pub fn spec(&self) -> Arc<TableSpec> {
        self.state.spec()
    }

    /// Arrow's schema of what is kept: without columns marked *drop*; hashes are text.
    pub fn schema(&self) -> SchemaRef {
        self.state.spec().newest()
    }

    /// Give it these columns: all that it has, and perhaps more, which must be nullable. Durable when it returns; what was
    /// appended before is read with the new columns missing. `conflict` names what would be removed or changed.
    pub fn grow(&self, columns: &[ColumnSpec]) -> Result<()> {
        self.change(|old| old.grown(columns))
    }

    /// Keep rows for another time, or more or fewer of them, from the next compaction on.
    pub fn set_retention(&self, retention: Retention) -> Result<()> {
        self.change(|old| old.keeping(retention))
    }

    fn change(&self, change: impl FnOnce(&TableSpec) -> Result<TableSpec>) -> Result<()> {
        let _alone = self.inner.making.lock();
        let (id, old) = (self.state.id, self.state.spec());
        let new = change(&old)?;
        if new == *old {
            return Ok(());
        }
        let (space, key) = (layout::space(), layout::spec(&self.state.name));
        let mut transaction = self.inner.store.begin(&self.inner.store.view());
        transaction.expect_present_or(&space, &layout::alive(id), self.state.gone())?;
        transaction.expect_value(&space, &key, to_json(&Record { id, spec: (*old).clone() }))?;
        transaction.put(&space, &key, to_json(&Record { id, spec: new.clone() }))?;
        self.inner.store.commit_blocking(transaction)?;
        *self.state.spec.write() = Arc::new(new);
        Ok(())
    }

    /// Add rows: all of them or none. Returns when they are on disk; then every new scan and query sees them. Columns are
    /// found by name; nullable ones may be left out. With an idempotency key, a repeated append adds nothing for seven days.
    /// `exhausted` when compaction does not keep up; `invalid` names what does not fit.
    pub async fn append(&self, rows: &RecordBatch, idempotency_key: Option<&str>) -> Result<Appended> {
        let view = self.inner.store.view();
        if self.is_used(&view, idempotency_key)? {
            return Ok(Appended { rows: 0, is_repeated: true });
        }
        let mut transaction = self.inner.store.begin(&view);
        let count = self.append_in(&mut transaction, rows, idempotency_key)?;
        drop(view);
        match self.inner.store.commit(transaction).await {
            Ok(_) => Ok(Appended { rows: count, is_repeated: false }),
            // Another one with the same key was first.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if self.is_used(&self.inner.store.view(), idempotency_key)? {
                    return Ok(Appended { rows: 0, is_repeated: true });
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, waiting on this thread; not to be called on a thread that runs an async executor.
    pub fn append_blocking(&self, rows: &RecordBatch, idempotency_key: Option<&str>) -> Result<Appended> {
        futures::executor::block_on(self.append(rows, idempotency_key))
    }

    /// The same with the columns of a frame; times are whole numbers of microseconds.
    pub async fn append_frame(&self, frame: &Frame, idempotency_key: Option<&str>) -> Result<Appended> {
        self.append(&frames::rows(frame)?, idempotency_key).await
    }

    /// The columns of a frame into a transaction of the caller's, as [`Table::append_in`] does.
    pub fn append_frame_in(
        &self,
        transaction: &mut Transaction,
        frame: &Frame,
        idempotency_key: Option<&str>,
    ) -> Result<usize> {
        self.append_in(transaction, &frames::rows(frame)?, idempotency_key)
    }

    /// Put rows into a transaction of the caller's; they are there when it commits. Answers how many. With an idempotency
    /// key that was used before, the commit is a `conflict`; it is `not-found` when the table is dropped before it. An error
    /// here may leave a part of the rows in the transaction: it must not be committed then.
    pub fn append_in(
        &self,
        transaction: &mut Transaction,
        rows: &RecordBatch,
        idempotency_key: Option<&str>,
    ) -> Result<usize> {
        let name = &*self.state.name;
        let context = |error: Error| error.context(format!("cannot append to table `{name}`"));
        self.check_room(transaction.view()).map_err(context)?;
        let spec = self.state.spec();
        let rows = marks::conform(&spec, &self.state.secret, rows).map_err(context)?;
        let pieces = pending::encode(&spec, &rows).map_err(context)?;
        let (space, id) = (layout::space(), self.state.id);
        transaction.expect_present_or(&space, &layout::alive(id), self.state.gone())?;
        if let Some(key) = idempotency_key {
            check_idempotency_key(key).map_err(context)?;
            let now_ms = self.inner.options.clock.now_ms();
            transaction.expect_absent(&space, &layout::used(id, key))?;
            transaction.put(&space, &layout::used(id, key), "")?;
            transaction.put(&space, &layout::used_at(id, now_ms, key), "")?;
        }
        if pieces.is_empty() {
            return Ok(0);
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        for piece in pieces {
            transaction.append(&space, &layout::pending(id), piece)?;
        }
        transaction.add_untold(&space, &layout::pending_bytes(id), bytes as i64)?;
        Ok(rows.num_rows())
    }

    fn is_used(&self, view: &View, idempotency_key: Option<&str>) -> Result<bool> {
        let Some(key) = idempotency_key else { return Ok(false) };
        check_idempotency_key(key)?;
        Ok(view.get(&layout::space(), &layout::used(self.state.id, key))?.is_some())
    }

    fn check_room(&self, view: &View) -> Result<()> {
        let (bytes, options) = (pending::bytes(view, self.state.id)?, &self.inner.options);
        if bytes > options.pending_bytes_compact {
            self.inner.kick.now();
        }
        if bytes < options.pending_bytes_max {
            return Ok(());
        }
        Err(Error::exhausted(format!(
            "{bytes} bytes of rows wait to be compacted, and {} is the most; try again in a moment",
            options.pending_bytes_max
        )))
    }

    /// How much it holds.
    pub fn stats(&self) -> Result<TableStats> {
        let (view, id) = (self.inner.store.view(), self.state.id);
        self.state.check_alive(&view)?;
        let files = listed(&view, id)?;
        Ok(TableStats {
            files: files.len(),
            file_rows: files.iter().map(|(_, record)| record.rows).sum(),
            file_bytes: files.iter().map(|(_, record)| record.bytes).sum(),
            pending_bytes: pending::bytes(&view, id)?,
            damaged: damage::listed(&view, id)?,
        })
    }
}

fn check_idempotency_key(key: &str) -> Result<()> {
    if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "an idempotency key of {} bytes; it must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX}",
        key.len()
    )))
}
