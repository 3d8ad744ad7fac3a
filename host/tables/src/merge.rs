//! Small files of a partition become one.
//!
//! Owns the choice and the merge. Files of a partition are grouped by size, each group eight times the one before; eight
//! files of a group become one of the next. So a row is written a few times at most, and a partition has a few dozen files
//! however often compaction ran. Merging reads all files side by side in the order of time.
//!
//! Bounded by: of each file one row group as it lies on the disk and a few thousand decoded rows, and one row group of the
//! new file. On failure: a damaged file is moved aside
//! and the merge given up until the next time; nothing else has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::interleave::interleave_record_batch;
use mainstay_base::{Error, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::compact::Removed;
use crate::damage;
use crate::files::{Fault, FileReader, StoredFile};
use crate::limits::{MERGE_FILES, MERGE_ROWS};
use crate::marks::times;
use crate::scan::widened;
use crate::schema::TableSpec;
use crate::table::Table;

/// Merge one set of files; says how many, none when there is nothing to merge.
pub(crate) fn merge_some(table: &Table) -> Result<Option<usize>> {
    let Some((partition, files)) = choose(table) else { return Ok(None) };
    let spec = table.state.spec();
    let sequence = table.inner.store.sequence();
    let mut merge = match Merge::new(spec.clone(), &files) {
        Ok(merge) => merge,
        Err((at, fault)) => return give_up(table, &files[at], fault),
    };
    let written = table.write(&spec, partition, sequence, &mut merge);
    if let Some((at, fault)) = merge.fault.take() {
        return give_up(table, &files[at], fault);
    }
    drop(merge);
    table.exchange(Removed { pieces: &[], bytes: 0, files: &files }, vec![written?])?;
    Ok(Some(files.len()))
}

/// Set a damaged file aside: the others are tried again at once.
fn give_up(table: &Table, file: &Arc<StoredFile>, fault: Fault) -> Result<Option<usize>> {
    match fault {
        Fault::Damage(reason) => {
            damage::quarantine(&table.inner, &table.state, file, reason);
            Ok(None)
        }
        Fault::Other(error) => Err(error),
    }
}

/// Eight files of one partition and of like size.
fn choose(table: &Table) -> Option<(i64, Vec<Arc<StoredFile>>)> {
    let mut groups: BTreeMap<(i64, u32), Vec<Arc<StoredFile>>> = BTreeMap::new();
    for file in table.state.files.read().values() {
        if file.record.bytes < table.inner.options.file_bytes {
            let size = file.record.bytes.max(1).ilog2() / 3;
            groups.entry((file.record.partition, size)).or_default().push(file.clone());
        }
    }
    let ((partition, _), mut files) = groups.into_iter().find(|(_, files)| files.len() >= MERGE_FILES)?;
    // The oldest first, so that rows of one time keep the order in which they came.
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files.truncate(MERGE_FILES);
    Some((partition, files))
}

/// Rows of several files in the order of time.
struct Merge {
    spec: Arc<TableSpec>,
    schema: SchemaRef,
    sources: Vec<Source>,
    /// Batches that the next block is made of.
    held: Vec<RecordBatch>,
    fault: Option<(usize, Fault)>,
}

/// One of the files.
struct Source {
    reader: FileReader,
    next_group: usize,
    batches: Option<ParquetRecordBatchReader>,
    /// The batch that it stands in, in `held`, and the row; none at its end.
    at: Option<(usize, usize)>,
}

impl Merge {
    fn new(spec: Arc<TableSpec>, files: &[Arc<StoredFile>]) -> Result<Merge, (usize, Fault)> {
        let mut sources = Vec::with_capacity(files.len());
        for (at, file) in files.iter().enumerate() {
            let reader = file.open().map_err(|fault| (at, fault))?;
            sources.push(Source { reader, next_group: 0, batches: None, at: None });
        }
        let mut merge = Merge { schema: spec.newest(), spec, sources, held: Vec::new(), fault: None };
        for at in 0..files.len() {
            merge.load(at).map_err(|fault| (at, fault))?;
        }
        Ok(merge)
    }

    /// Let a source stand at its next batch.
    fn load(&mut self, at: usize) -> Result<(), Fault> {
        let source = &mut self.sources[at];
        source.at = None;
        loop {
            if let Some(batch) = source.batches.as_mut().and_then(Iterator::next) {
                let batch = batch.map_err(|error| Fault::Damage(error.to_string()))?;
                if batch.num_rows() == 0 {
                    continue;
                }
                self.held.push(widened(batch, &self.schema).map_err(Fault::Other)?);
                source.at = Some((self.held.len() - 1, 0));
                return Ok(());
            }
            if source.next_group == source.reader.groups() {
                return Ok(());
            }
            let columns: Vec<usize> = (0..source.reader.schema().fields().len()).collect();
            source.batches = Some(source.reader.group(source.next_group, &columns, MERGE_ROWS)?);
            source.next_group += 1;
        }
    }

    fn time(&self, source: usize) -> Option<i64> {
        let (batch, row) = self.sources[source].at?;
        times(&self.spec, &self.held[batch]).ok().map(|times| times.value(row))
    }

    /// The next rows; none at the end.
    fn block(&mut self) -> Result<Option<RecordBatch>, (usize, Fault)> {
        let mut rows = Vec::with_capacity(MERGE_ROWS);
        let mut heads: Vec<Option<i64>> = (0..self.sources.len()).map(|at| self.time(at)).collect();
        while rows.len() < MERGE_ROWS && self.held.len() < 4 * MERGE_FILES {
            let first = heads.iter().enumerate().filter_map(|(at, time)| Some((((*time)?), at))).min();
            let Some((_, at)) = first else { break };
            let (batch, row) = self.sources[at].at.expect("it has a time");
            rows.push((batch, row));
            if row + 1 < self.held[batch].num_rows() {
                self.sources[at].at = Some((batch, row + 1));
            } else {
                self.load(at).map_err(|fault| (at, fault))?;
            }
            heads[at] = self.time(at);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        let block = interleave_record_batch(&held, &rows).map_err(|error| {
            (0, Fault::Other(Error::internal("rows of several files cannot be merged").with_source(error)))
        })?;
        self.keep_current();
        Ok(Some(block))
    }

    /// Let go of every batch that no source stands in.
    fn keep_current(&mut self) {
        let mut kept = Vec::new();
        for source in &mut self.sources {
            if let Some((batch, _)) = &mut source.at {
                kept.push(self.held[*batch].clone());
                *batch = kept.len() - 1;
            }
        }
        self.held = kept;
    }
}

impl Iterator for Merge {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self.block() {
            Ok(block) => block.map(Ok),
            Err(fault) => {
                self.fault = Some(fault);
                Some(Err(Error::unavailable("a file that was being merged cannot be read")))
            }
        }
    }
}
