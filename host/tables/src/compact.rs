//! Pending rows become files, and old rows go.
//!
//! Owns the rounds of [`Table::compact`]: take what is pending, sort it by time, write one file for each partition, sync
//! files and folder, and then, in one transaction, list the files and remove the pending pieces. A crash before that
//! transaction leaves the rows pending and files that nobody lists; a crash behind it leaves the rows in files. Separate
//! from merging ([`crate::merge`]), which turns files into fewer files by the same rule.
//!
//! Retention drops whole files whose last row is old enough, and pending rows that are; a row is never dropped before its
//! time, and may stay until the newest of its file goes. Where bytes are bounded, the files with the oldest rows go until the
//! others fit.
//!
//! Bounded by: one round holds a bounded number of pending bytes, a few times over. On failure: nothing has changed, files
//! that were written are removed, and the next call begins again.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_store::{KeyRange, ScanOptions, View};

use crate::encode::{self, Encoder, Target};
use crate::files::StoredFile;
use crate::limits::{GROUP_ROWS_MAX, IDEMPOTENCY_MS, ROUND_BYTES_MAX, ROUND_PARTITIONS_MAX, ROUND_PIECES_MAX};
use crate::schema::TableSpec;
use crate::table::{Table, to_json};
use crate::{layout, marks, merge, pending, scan};

/// Rounds of one call: whoever appends faster than this compacts meets the bound of what may be pending.
const ROUNDS_MAX: usize = 64;
/// Files that one transaction drops.
const DROPPED_FILES_MAX: usize = 5_000;
/// Idempotency keys that are forgotten at a time.
const FORGOTTEN_KEYS: u32 = 4_000;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Rows that were pending and are now in files.
    pub rows: u64,
    /// Files that were written for them.
    pub files: usize,
    /// Files that were merged into fewer.
    pub merged: usize,
    /// Files that were dropped because all their rows were older than the retention, or all files were too large.
    pub expired_files: usize,
    /// Pending rows that were dropped because they were older than the retention.
    pub expired_rows: u64,
}

/// Pending pieces that one round takes.
struct Taken {
    keys: Vec<Vec<u8>>,
    bytes: usize,
    rows: RecordBatch,
    /// There is more than a round takes.
    is_full: bool,
}

impl Table {
    /// Turn pending rows into files, merge small files, drop what is older than the retention as of `now_ms`. Works on the
    /// calling thread, for seconds when there is much; one call at a time for each table.
    pub fn compact(&self, now_ms: i64) -> Result<Compacted> {
        let _alone = self.state.compacting.lock();
        self.state.check_alive(&self.inner.store.view())?;
        let mut done = Compacted::default();
        let retention = self.state.spec().retention;
        let oldest_us = retention.age_ms.map(|kept| now_ms.saturating_sub(kept).saturating_mul(1_000));
        if let Some(oldest_us) = oldest_us {
            done.expired_files = self.drop_older(oldest_us)?;
        }
        for _ in 0..ROUNDS_MAX {
            if !self.round(oldest_us, &mut done)? {
                break;
            }
        }
        while let Some(merged) = merge::merge_some(self)? {
            done.merged += merged;
        }
        if let Some(bytes) = retention.bytes {
            done.expired_files += self.drop_beyond(bytes)?;
        }
        self.forget_keys(now_ms)?;
        Ok(done)
    }

    /// One round; says whether there is more.
    fn round(&self, oldest_us: Option<i64>, done: &mut Compacted) -> Result<bool> {
        let view = self.inner.store.view();
        // After the view: what it holds is of no newer version.
        let spec = self.state.spec();
        let Some(taken) = self.take(&view, &spec)? else { return Ok(false) };
        let sequence = view.sequence();
        drop(view);
        let sorted = sort(&spec, &taken.rows)?;
        let times = marks::times(&spec, &sorted)?.values();
        let expired = oldest_us.map_or(0, |oldest| times.partition_point(|time| *time < oldest));
        let mut written = Vec::new();
        let mut at = expired;
        while at < times.len() {
            let partition = spec.partition.of(times[at]);
            let end = times.partition_point(|time| *time < spec.partition.end_us(partition));
            let file = self.write_rows(&spec, partition, sequence, &sorted.slice(at, end - at));
            match file {
                Ok(file) => written.push(file),
                Err(error) => {
                    written.iter().for_each(|file: &Arc<StoredFile>| file.replaced());
                    return Err(error);
                }
            }
            at = end;
        }
        let removed = Removed { pieces: &taken.keys, bytes: taken.bytes, files: &[] };
        let count = written.len();
        self.exchange(removed, written)?;
        done.rows += (times.len() - expired) as u64;
        done.expired_rows += expired as u64;
        done.files += count;
        Ok(taken.is_full)
    }

    /// What the next round works on; none when nothing is pending.
    fn take(&self, view: &View, spec: &TableSpec) -> Result<Option<Taken>> {
        let mut keys = pending::keys(view, self.state.id, ROUND_PIECES_MAX + 1)?;
        let newest = spec.newest();
        let (mut bytes, mut batches, mut partitions) = (0, Vec::new(), BTreeSet::new());
        let mut count = 0;
        for key in keys.iter().take(ROUND_PIECES_MAX) {
            let named = |piece| pending::named(&self.state.name, key, piece);
            let piece = named(pending::piece(view, key))?;
            let batch = scan::widened(pending::named(&self.state.name, key, pending::decode(spec, &piece))?, &newest)?;
            let times = marks::times(spec, &batch)?.values();
            let mut last = None;
            for time in times {
                let partition = spec.partition.of(*time);
                if last.replace(partition) != Some(partition) {
                    partitions.insert(partition);
                }
            }
            let is_too_much = bytes + piece.len() > ROUND_BYTES_MAX || partitions.len() > ROUND_PARTITIONS_MAX;
            if count > 0 && is_too_much {
                break;
            }
            bytes += piece.len();
            batches.push(batch);
            count += 1;
        }
        if count == 0 {
            return Ok(None);
        }
        let is_full = keys.len() > count;
        keys.truncate(count);
        let rows = concat_batches(&newest, &batches).map_err(|error| {
            Error::internal(format!("pending rows of table `{}` do not fit together", self.state.name))
                .with_source(error)
        })?;
        Ok(Some(Taken { keys, bytes, rows, is_full }))
    }

    fn write_rows(
        &self,
        spec: &TableSpec,
        partition: i64,
        sequence: u64,
        rows: &RecordBatch,
    ) -> Result<Arc<StoredFile>> {
        // Row groups of one size: a small one at the end would have to be decoded to be merged.
        let groups = rows.num_rows().div_ceil(GROUP_ROWS_MAX).max(1);
        self.write(spec, partition, sequence, rows.num_rows().div_ceil(groups), |encoder| encoder.add(rows))
    }

    /// Write a file that nobody lists yet, in row groups of so many rows.
    pub(crate) fn write<E: From<Error>>(
        &self,
        spec: &TableSpec,
        partition: i64,
        sequence: u64,
        group_rows: usize,
        fill: impl FnOnce(&mut Encoder) -> Result<(), E>,
    ) -> Result<Arc<StoredFile>, E> {
        let disk = &self.inner.options.disk;
        let name = self.state.new_file_name(&spec.partition.label(partition), sequence);
        let target = Target { disk: &**disk, folder: &self.state.folder, name: &name };
        let record = encode::write(&target, spec, partition, group_rows, fill)?;
        Ok(Arc::new(StoredFile::new(disk, &self.state.folder, &name, record)))
    }

    /// List these files and remove what they replace, in one transaction.
    pub(crate) fn exchange(&self, removed: Removed<'_>, written: Vec<Arc<StoredFile>>) -> Result<()> {
        let (space, table) = (layout::space(), self.state.id);
        let folder = &self.state.folder;
        let prepared = (|| {
            if !written.is_empty() {
                let synced = self.inner.options.disk.sync_folder(folder);
                synced.map_err(|error| Error::io("sync", folder, error))?;
            }
            let mut transaction = self.inner.store.begin(&self.inner.store.view());
            for file in &written {
                transaction.put(&space, &layout::file(table, &file.name), to_json(&file.record))?;
            }
            for file in removed.files {
                // Who was found damaged meanwhile is not replaced by a file that has its rows.
                transaction.expect_present(&space, &layout::file(table, &file.name))?;
                transaction.delete(&space, &layout::file(table, &file.name))?;
            }
            for key in removed.pieces {
                transaction.delete(&space, key)?;
            }
            if removed.bytes > 0 {
                transaction.add(&space, &layout::pending_bytes(table), -(removed.bytes as i64))?;
            }
            Ok(transaction)
        })();
        // Before the commit: whoever sees the new list finds their handles.
        let handles = written.iter().map(|file| (file.name.clone(), file.clone()));
        Arc::make_mut(&mut self.state.files.write()).extend(handles);
        let committed = prepared.and_then(|transaction| self.inner.store.commit_blocking(transaction));
        match committed {
            Ok(_) => {
                let mut files = self.state.files.write();
                let files = Arc::make_mut(&mut files);
                for file in removed.files {
                    file.replaced();
                    files.remove(&file.name);
                }
                Ok(())
            }
            Err(error) => {
                let mut files = self.state.files.write();
                let files = Arc::make_mut(&mut files);
                for file in &written {
                    files.remove(&file.name);
                    // After any other error the commit may turn out to be durable when the store is opened again.
                    if matches!(error.kind(), ErrorKind::Exhausted | ErrorKind::Conflict | ErrorKind::Invalid) {
                        file.replaced();
                    }
                }
                Err(error)
            }
        }
    }

    fn drop_older(&self, oldest_us: i64) -> Result<usize> {
        let is_old = |file: &&Arc<StoredFile>| file.record.max_us < oldest_us;
        let old: Vec<Arc<StoredFile>> = self.state.files.read().values().filter(is_old).cloned().collect();
        self.drop_files(&old)
    }

    /// Drop the files with the oldest rows until the others have no more bytes than this.
    fn drop_beyond(&self, bytes_max: u64) -> Result<usize> {
        let mut files: Vec<Arc<StoredFile>> = self.state.files.read().values().cloned().collect();
        files.sort_by(|one, other| (other.record.max_us, &other.name).cmp(&(one.record.max_us, &one.name)));
        let mut bytes = 0;
        let kept = files.iter().take_while(|file| {
            bytes += file.record.bytes;
            bytes <= bytes_max
        });
        let kept = kept.count();
        self.drop_files(&files[kept..])
    }

    fn drop_files(&self, files: &[Arc<StoredFile>]) -> Result<usize> {
        for some in files.chunks(DROPPED_FILES_MAX / 2) {
            self.exchange(Removed { pieces: &[], bytes: 0, files: some }, Vec::new())?;
        }
        Ok(files.len())
    }

    /// Forget idempotency keys that are old enough.
    fn forget_keys(&self, now_ms: i64) -> Result<()> {
        let (space, table) = (layout::space(), self.state.id);
        let range = KeyRange {
            start: layout::used_before(table, 0),
            end: Some(layout::used_before(table, now_ms.saturating_sub(IDEMPOTENCY_MS))),
        };
        let options = ScanOptions { keys_only: true, limit: FORGOTTEN_KEYS, ..ScanOptions::default() };
        loop {
            let view = self.inner.store.view();
            let page = view.scan(&space, std::slice::from_ref(&range), &options)?;
            if page.count == 0 {
                return Ok(());
            }
            let mut transaction = self.inner.store.begin(&view);
            for (key, _) in &page {
                transaction.delete(&space, key)?;
                if let Some(used) = layout::key_of_used_at(table, key) {
                    transaction.delete(&space, &layout::used(table, used))?;
                }
            }
            self.inner.store.commit_blocking(transaction)?;
        }
    }
}

/// What files replace.
pub(crate) struct Removed<'a> {
    pub pieces: &'a [Vec<u8>],
    /// Bytes of these pieces.
    pub bytes: usize,
    pub files: &'a [Arc<StoredFile>],
}

/// Rows in the order of time; those of one time in the order in which they came.
fn sort(spec: &TableSpec, rows: &RecordBatch) -> Result<RecordBatch> {
    let times = marks::times(spec, rows)?.values();
    if times.is_sorted() {
        return Ok(rows.clone());
    }
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    order.sort_by_key(|row| times[*row as usize]);
    take_record_batch(rows, &UInt32Array::from(order))
        .map_err(|error| Error::internal("rows cannot be put into the order of time").with_source(error))
}
