//! Small files of a partition become one.
//!
//! Owns the choice and the merge. Files of a partition are grouped by size, each group eight times the one before; eight
//! files of a group become one of the next. So a row is written a few times at most, and a partition has a few dozen files
//! however often compaction ran.
//!
//! Row groups that are large and that hardly overlap with others in time pass as they lie, without being decoded: where rows
//! come about in the order of time, and most do, merging costs reading and writing. The others are merged row by row.
//!
//! Bounded by: of each row group that others overlap with, what lies on the disk and a few thousand decoded rows, and one row
//! group of the new file. On failure: a damaged file is moved aside and the merge given up until the next time; nothing else
//! has changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::interleave::interleave_record_batch;
use mainstay_base::{Error, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::compact::Removed;
use crate::damage;
use crate::encode::Encoder;
use crate::files::{Fault, FileReader, StoredFile};
use crate::limits::{GROUP_BYTES_MAX, GROUP_OVERLAP, GROUP_ROWS_GOOD, GROUP_ROWS_MAX, MERGE_FILES, MERGE_ROWS};
use crate::marks::times;
use crate::scan::widened;
use crate::schema::{TableSpec, TextForm};
use crate::table::Table;

/// Merge one set of files; says how many, none when there is nothing to merge.
pub(crate) fn merge_some(table: &Table) -> Result<Option<usize>> {
    let Some((partition, files)) = choose(table) else { return Ok(None) };
    let spec = table.state.spec();
    let sequence = table.inner.store.sequence();
    let merged = opened(&files).and_then(|readers| {
        let groups = groups(&readers, &spec)?;
        table.write(&spec, partition, sequence, GROUP_ROWS_MAX, |encoder| {
            runs(groups).into_iter().try_for_each(|run| match run {
                Run::Whole(group) => {
                    let taken = encoder.take_over(&readers[group.file], group.group);
                    taken.map_err(|fault| Stop { file: Some(group.file), fault })
                }
                Run::Rows(groups) => Merge::new(&spec, &readers, groups).write(encoder),
            })
        })
    });
    match merged {
        Ok(written) => {
            table.exchange(Removed { pieces: &[], bytes: 0, files: &files }, vec![written])?;
            Ok(Some(files.len()))
        }
        Err(Stop { file: Some(at), fault: Fault::Damage(reason) }) => {
            // Set aside; the others are tried again at once.
            damage::quarantine(&table.inner, &table.state, &files[at], reason);
            Ok(None)
        }
        Err(Stop { fault: Fault::Other(error), .. }) => Err(error),
        Err(Stop { file: None, fault: Fault::Damage(reason) }) => Err(Error::internal(reason)),
    }
}

/// Why a merge was given up, and at which file.
struct Stop {
    file: Option<usize>,
    fault: Fault,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop { file: None, fault: Fault::Other(error) }
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

fn opened(files: &[Arc<StoredFile>]) -> Result<Vec<FileReader>, Stop> {
    let open = |(at, file): (usize, &Arc<StoredFile>)| {
        file.open(TextForm::Plain).map_err(|fault| Stop { file: Some(at), fault })
    };
    files.iter().enumerate().map(open).collect()
}

/// A row group of one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    min_us: i64,
    max_us: i64,
    file: usize,
    group: usize,
    /// It is large enough, and of the newest schema.
    is_good: bool,
}

/// Every row group of the files, by its first time.
fn groups(readers: &[FileReader], spec: &TableSpec) -> Result<Vec<Group>, Stop> {
    let mut groups = Vec::new();
    for (file, reader) in readers.iter().enumerate() {
        for group in 0..reader.groups() {
            let times = reader.times_of(group, &spec.time);
            let (min_us, max_us) = times.map_err(|fault| Stop { file: Some(file), fault })?;
            let is_large = reader.group_rows(group) >= GROUP_ROWS_GOOD
                || reader.row_group(group).total_byte_size().unsigned_abs() as usize >= GROUP_BYTES_MAX / 2;
            let is_good = is_large && reader.file.record.version == spec.version;
            groups.push(Group { min_us, max_us, file, group, is_good });
        }
    }
    groups.sort_by_key(|group| (group.min_us, group.file, group.group));
    Ok(groups)
}

/// What happens to some row groups.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    /// It passes as it lies.
    Whole(Group),
    /// Their rows are merged.
    Rows(Vec<Group>),
}

/// What happens to all of them, in the order of time.
fn runs(groups: Vec<Group>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before_us = i64::MIN;
    for (at, group) in groups.iter().enumerate() {
        let allowed_us = group.max_us.saturating_sub(group.min_us) / GROUP_OVERLAP;
        let hardly_before = before_us.saturating_sub(group.min_us) <= allowed_us;
        let next_us = groups.get(at + 1).map_or(i64::MAX, |next| next.min_us);
        let hardly_behind = group.max_us.saturating_sub(next_us) <= allowed_us;
        before_us = before_us.max(group.max_us);
        match runs.last_mut() {
            _ if group.is_good && hardly_before && hardly_behind => runs.push(Run::Whole(group.clone())),
            Some(Run::Rows(rows)) => rows.push(group.clone()),
            _ => runs.push(Run::Rows(vec![group.clone()])),
        }
    }
    runs
}

/// Rows of several row groups in the order of time.
struct Merge<'a> {
    spec: &'a TableSpec,
    schema: SchemaRef,
    readers: &'a [FileReader],
    /// Those whose time has not come, by their first.
    later: VecDeque<Group>,
    sources: Vec<Source>,
    /// Batches that the next block is made of.
    held: Vec<RecordBatch>,
}

/// One row group that is open.
struct Source {
    file: usize,
    group: usize,
    batches: ParquetRecordBatchReader,
    /// The batch that it stands in, in `held`, and the row; none at its end.
    at: Option<(usize, usize)>,
}

impl<'a> Merge<'a> {
    fn new(spec: &'a TableSpec, readers: &'a [FileReader], groups: Vec<Group>) -> Merge<'a> {
        let later = groups.into();
        Merge { spec, schema: spec.newest(), readers, later, sources: Vec::new(), held: Vec::new() }
    }

    fn write(mut self, encoder: &mut Encoder) -> Result<(), Stop> {
        while let Some(block) = self.block()? {
            encoder.add(&block)?;
        }
        Ok(())
    }

    /// Open the row groups that may have rows before this time.
    fn open_until(&mut self, time_us: i64) -> Result<(), Stop> {
        while self.later.front().is_some_and(|group| group.min_us <= time_us) {
            let Some(Group { file, group, .. }) = self.later.pop_front() else { break };
            let reader = &self.readers[file];
            let columns: Vec<usize> = (0..reader.schema().fields().len()).collect();
            let batches = reader.group(group, &columns, MERGE_ROWS);
            let batches = batches.map_err(|fault| Stop { file: Some(file), fault })?;
            self.sources.push(Source { file, group, batches, at: None });
            self.load(self.sources.len() - 1)?;
        }
        Ok(())
    }

    /// Let a source stand at its next batch.
    fn load(&mut self, at: usize) -> Result<(), Stop> {
        let source = &mut self.sources[at];
        source.at = None;
        for batch in source.batches.by_ref() {
            let damaged = |error: arrow_schema::ArrowError| Fault::Damage(error.to_string());
            let batch = batch.map_err(damaged).map_err(|fault| Stop { file: Some(source.file), fault })?;
            if batch.num_rows() > 0 {
                self.held.push(widened(batch, &self.schema)?);
                source.at = Some((self.held.len() - 1, 0));
                break;
            }
        }
        Ok(())
    }

    fn time(&self, source: usize) -> Option<i64> {
        let (batch, row) = self.sources[source].at?;
        times(self.spec, &self.held[batch]).ok().map(|times| times.value(row))
    }

    /// The source with the next row; of rows of one time, the one of the older file.
    fn next(&mut self, heads: &mut Vec<Option<i64>>) -> Result<Option<usize>, Stop> {
        loop {
            let key = |at: &usize| (heads[*at], self.sources[*at].file, self.sources[*at].group);
            let first = (0..heads.len()).filter(|at| heads[*at].is_some()).min_by_key(key);
            let until_us = match first.and_then(|at| heads[at]) {
                Some(time_us) => time_us,
                None => self.later.front().map_or(i64::MIN, |group| group.min_us),
            };
            let open = self.sources.len();
            self.open_until(until_us)?;
            if self.sources.len() == open {
                return Ok(first);
            }
            heads.extend((open..self.sources.len()).map(|at| self.time(at)));
        }
    }

    /// The next rows; none at the end.
    fn block(&mut self) -> Result<Option<RecordBatch>, Stop> {
        let mut rows = Vec::with_capacity(MERGE_ROWS);
        let mut heads: Vec<Option<i64>> = (0..self.sources.len()).map(|at| self.time(at)).collect();
        while rows.len() < MERGE_ROWS && self.held.len() < 4 * MERGE_FILES + self.sources.len() {
            let Some(at) = self.next(&mut heads)? else { break };
            let Some((batch, row)) = self.sources[at].at else { break };
            rows.push((batch, row));
            if row + 1 < self.held[batch].num_rows() {
                self.sources[at].at = Some((batch, row + 1));
            } else {
                self.load(at)?;
            }
            heads[at] = self.time(at);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        let block = interleave_record_batch(&held, &rows)
            .map_err(|error| Error::internal("rows of several files cannot be merged").with_source(error))?;
        self.keep_current();
        Ok(Some(block))
    }

    /// Let go of every source that has ended, and of every batch that no source stands in.
    fn keep_current(&mut self) {
        self.sources.retain(|source| source.at.is_some());
        let mut kept = Vec::with_capacity(self.sources.len());
        for source in &mut self.sources {
            if let Some((batch, _)) = &mut source.at {
                kept.push(self.held[*batch].clone());
                *batch = kept.len() - 1;
            }
        }
        self.held = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans of row groups with whether they are good, and what becomes of them: `w` whole, a number for rows of so many.
    fn check(spans: &[(i64, i64, bool)], expect: &str) {
        let group = |(at, (min_us, max_us, is_good)): (usize, &(i64, i64, bool))| Group {
            min_us: *min_us,
            max_us: *max_us,
            file: at,
            group: 0,
            is_good: *is_good,
        };
        let runs = runs(spans.iter().enumerate().map(group).collect());
        let shown = runs.iter().map(|run| match run {
            Run::Whole(_) => "w".to_owned(),
            Run::Rows(groups) => groups.len().to_string(),
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expect, "{spans:?}");
    }

    #[test]
    fn good_row_groups_that_hardly_overlap_pass_as_they_are() {
        check(&[(0, 80, true), (80, 160, true), (161, 240, true)], "w w w");
        check(&[(0, 80, true), (70, 150, true)], "w w");
        check(&[(0, 80, true), (69, 149, true)], "2");
        check(&[(0, 80, true), (81, 90, false), (91, 99, false), (100, 180, true)], "w 2 w");
        check(&[(0, 1_000, true), (10, 20, true), (30, 40, true), (1_001, 2_000, true)], "3 w");
        check(&[(5, 5, true), (5, 5, true)], "w w");
        check(&[(0, 80, false)], "1");
        check(&[], "");
    }
}
