//! Rows of a window of time, chunk by chunk.
//!
//! Owns the plan of a scan (a view of the store, what is pending in it, handles of the files that it lists) and the cursor
//! that goes through it: pending rows first, so that the view is given up early, then file by file, row group by row group,
//! passing those whose times lie outside. Rows of a file are in the order of time; there is no order between chunks.
//! Separate from SQL, which reads through the same cursors.
//!
//! Bounded by: one row group's chosen columns at a time for each cursor. Files that compaction replaces stay until the scan
//! is done. On failure: a damaged file is moved aside, the scan goes on, and [`Scan::missing`] says what it misses.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{DataType, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use mainstay_arrays::{Column, Frame, ValueType};
use mainstay_base::{Error, Result};
use mainstay_store::View;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::damage::{self, Missing};
use crate::files::{Fault, FileReader, StoredFile};
use crate::limits::CHUNK_ROWS;
use crate::marks::times;
use crate::pending;
use crate::schema::{Mark, TableSpec};
use crate::table::{Inner, State, Table, listed_names};

/// A span of time: from a moment, up to before another, in microseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first time.
    pub from_us: i64,
    /// The first time behind it.
    pub until_us: i64,
}

impl Default for Window {
    /// All of time.
    fn default() -> Window {
        Window { from_us: i64::MIN, until_us: i64::MAX }
    }
}

impl Window {
    fn has(&self, time_us: i64) -> bool {
        self.from_us <= time_us && time_us < self.until_us
    }

    /// Whether a span, both ends included, has a time in common with it.
    fn meets(&self, min_us: i64, max_us: i64) -> bool {
        min_us < self.until_us && self.from_us <= max_us
    }

    fn covers(&self, min_us: i64, max_us: i64) -> bool {
        self.has(min_us) && self.has(max_us)
    }
}

/// What is read.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Rows of these times.
    pub window: Window,
    /// These columns, in this order; none: all that may be seen.
    pub columns: Option<Vec<String>>,
    /// Whether columns marked *restrict* may be seen.
    pub with_restricted: bool,
    /// Rows of one chunk, at most.
    pub chunk_rows: usize,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions { window: Window::default(), columns: None, with_restricted: false, chunk_rows: CHUNK_ROWS }
    }
}

/// Columns of the newest schema that may be seen, by name.
pub(crate) fn visible(spec: &TableSpec, with_restricted: bool) -> SchemaRef {
    let seen = spec.stored(spec.version).enumerate();
    let seen = seen.filter(|(_, column)| with_restricted || column.mark != Mark::Restrict).map(|(at, _)| at);
    Arc::new(spec.newest().project(&seen.collect::<Vec<_>>()).expect("they are columns of it"))
}

/// What every cursor of a scan needs to know.
pub(crate) struct Plan {
    inner: Arc<Inner>,
    state: Arc<State>,
    spec: Arc<TableSpec>,
    /// Of the chunks.
    pub schema: SchemaRef,
    window: Window,
    chunk_rows: usize,
    missing: Mutex<Vec<Missing>>,
}

/// A part of a scan.
#[derive(Clone)]
pub(crate) enum Unit {
    /// Pieces of a view.
    Pending(View, Vec<Vec<u8>>),
    /// Row groups of a file.
    Groups(Arc<StoredFile>, Range<usize>),
}

impl Plan {
    pub fn new(table: &Table, options: &ScanOptions) -> Result<(Arc<Plan>, Vec<Unit>)> {
        let (inner, state) = (&table.inner, &table.state);
        // Together: what the view lists has its handles.
        let handles = state.files.read();
        let view = inner.store.view();
        let files = listed_names(&view, &state.name)?;
        let files: Vec<Option<Arc<StoredFile>>> = files.iter().map(|name| handles.get(name).cloned()).collect();
        drop(handles);
        // After the view: what it holds is of no newer version.
        let spec = state.spec();
        let schema = chosen(&state.name, &spec, options)?;
        let mut missing = damage::listed(&view, &state.name)?;
        missing.retain(|missing| options.window.meets(missing.min_us, missing.max_us));
        let keys = pending::keys(&view, &state.name, usize::MAX)?;
        let mut units = vec![Unit::Pending(view, keys)];
        for file in files {
            let file = file.ok_or_else(|| Error::internal("a file that is listed has no handle"))?;
            let groups = file.record.chunk_crcs.len() / spec.stored(file.record.version).count().max(1);
            if options.window.meets(file.record.min_us, file.record.max_us) {
                units.push(Unit::Groups(file, 0..groups));
            }
        }
        let plan = Plan {
            inner: inner.clone(),
            state: state.clone(),
            spec,
            schema,
            window: options.window,
            chunk_rows: options.chunk_rows.clamp(1, CHUNK_ROWS),
            missing: Mutex::new(missing),
        };
        Ok((Arc::new(plan), units))
    }

    pub fn missing(&self) -> Vec<Missing> {
        self.missing.lock().clone()
    }

    /// A row group's or piece's rows as the scan gives them.
    fn shown(&self, batch: RecordBatch) -> Result<RecordBatch> {
        widened(batch, &self.schema)
    }

    fn damaged(&self, file: &Arc<StoredFile>, reason: String) {
        let missing = damage::quarantine(&self.inner, &self.state, file, reason);
        let mut all = self.missing.lock();
        // Several cursors may have found the same.
        if !all.iter().any(|known| known.file == missing.file) {
            all.push(missing);
        }
    }
}

fn chosen(table: &str, spec: &TableSpec, options: &ScanOptions) -> Result<SchemaRef> {
    let seen = visible(spec, options.with_restricted);
    let Some(columns) = &options.columns else { return Ok(seen) };
    let mut fields = Vec::with_capacity(columns.len());
    for name in columns {
        match (seen.field_with_name(name), spec.columns.iter().find(|column| column.name == *name)) {
            (Ok(field), _) => fields.push(field.clone()),
            (_, Some(column)) if column.mark == Mark::Drop => {
                return Err(Error::not_found(format!(
                    "column `{name}` of table `{table}` is not kept: it is marked drop"
                )));
            }
            (_, Some(_)) => {
                return Err(Error::denied(format!(
                    "column `{name}` of table `{table}` is restricted; ask who runs this host for the right to see it"
                )));
            }
            (_, None) => return Err(Error::not_found(format!("table `{table}` has no column `{name}`"))),
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The batch in another schema: columns by name, those that it does not have missing throughout.
pub(crate) fn widened(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let column = |field: &Arc<arrow_schema::Field>| -> ArrayRef {
        let found = batch.column_by_name(field.name()).cloned();
        found.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    let columns = schema.fields().iter().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| Error::internal("rows do not fit the schema that they are read in").with_source(error))
}

/// Goes through some units of a plan.
pub(crate) struct Cursor {
    plan: Arc<Plan>,
    units: VecDeque<Unit>,
    open: Option<Open>,
}

/// What a cursor stands in.
enum Open {
    Pending(View, VecDeque<Vec<u8>>),
    File(Box<OpenFile>),
}

struct OpenFile {
    reader: FileReader,
    groups: Range<usize>,
    /// Columns that are read.
    columns: Vec<usize>,
    /// The time's place in the file.
    time: usize,
    batches: Option<ParquetRecordBatchReader>,
}

impl Cursor {
    pub fn new(plan: Arc<Plan>, units: impl IntoIterator<Item = Unit>) -> Cursor {
        Cursor { plan, units: units.into_iter().collect(), open: None }
    }

    fn step(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let chunk = match &mut self.open {
                Some(Open::Pending(view, keys)) => next_pending(&self.plan, view, keys)?,
                Some(Open::File(file)) => match file.next(&self.plan) {
                    Ok(chunk) => chunk,
                    Err(Fault::Other(error)) => return Err(error),
                    Err(Fault::Damage(reason)) => {
                        self.plan.damaged(&file.reader.file.clone(), reason);
                        None
                    }
                },
                None => None,
            };
            if chunk.is_some() {
                return Ok(chunk);
            }
            self.open = match self.units.pop_front() {
                None => return Ok(None),
                Some(Unit::Pending(view, keys)) => Some(Open::Pending(view, keys.into())),
                Some(Unit::Groups(file, groups)) => match OpenFile::new(&self.plan, &file, groups) {
                    Ok(open) => Some(Open::File(Box::new(open))),
                    Err(Fault::Other(error)) => return Err(error),
                    Err(Fault::Damage(reason)) => {
                        self.plan.damaged(&file, reason);
                        None
                    }
                },
            };
        }
    }
}

impl Iterator for Cursor {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let step = self.step();
        if step.is_err() {
            // Going on behind an error would be a hole that nobody sees.
            (self.open, self.units) = (None, VecDeque::new());
        }
        step.transpose()
    }
}

fn next_pending(plan: &Plan, view: &View, keys: &mut VecDeque<Vec<u8>>) -> Result<Option<RecordBatch>> {
    while let Some(key) = keys.pop_front() {
        let piece = pending::piece(view, &key)?;
        let piece = piece.ok_or_else(|| Error::internal("a pending piece of this view is not in it"))?;
        let head = pending::head(&piece)?;
        if !plan.window.meets(head.min_us, head.max_us) {
            continue;
        }
        let rows = pending::decode(&plan.spec, &piece)?;
        if plan.window.covers(head.min_us, head.max_us) {
            return plan.shown(rows).map(Some);
        }
        let inside = times(&plan.spec, &rows)?.values().iter().map(|time| Some(plan.window.has(*time)));
        let inside: BooleanArray = inside.collect();
        if inside.true_count() > 0 {
            let rows = filter_record_batch(&plan.shown_with_times(rows)?, &inside);
            let rows = rows.map_err(|error| Error::internal("rows cannot be filtered").with_source(error))?;
            return plan.shown(rows).map(Some);
        }
    }
    Ok(None)
}

impl Plan {
    /// Only what is shown, to filter no more than that.
    fn shown_with_times(&self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.schema.fields().is_empty() { Ok(rows) } else { self.shown(rows) }
    }
}

impl OpenFile {
    fn new(plan: &Plan, file: &Arc<StoredFile>, groups: Range<usize>) -> Result<OpenFile, Fault> {
        let reader = file.open()?;
        let place = |name: &str| reader.schema().index_of(name).ok();
        let time = place(&plan.spec.time).ok_or_else(|| Fault::Damage("it has no time column".into()))?;
        let mut columns: Vec<usize> = plan.schema.fields().iter().filter_map(|field| place(field.name())).collect();
        if !plan.window.covers(file.record.min_us, file.record.max_us) && !columns.contains(&time) {
            columns.push(time);
        }
        Ok(OpenFile { reader, groups, columns, time, batches: None })
    }

    fn next(&mut self, plan: &Plan) -> Result<Option<RecordBatch>, Fault> {
        loop {
            if let Some(batch) = self.batches.as_mut().and_then(Iterator::next) {
                let batch = batch.map_err(|error| Fault::Damage(error.to_string()))?;
                let batch = self.inside(plan, batch).map_err(Fault::Other)?;
                if batch.num_rows() > 0 {
                    return plan.shown(batch).map(Some).map_err(Fault::Other);
                }
                continue;
            }
            let Some(group) = self.groups.next() else { return Ok(None) };
            let bounds = self.reader.bounds(group, self.time);
            if bounds.is_some_and(|(min_us, max_us)| !plan.window.meets(min_us, max_us)) {
                continue;
            }
            if self.columns.is_empty() {
                // Nothing but the number of rows is asked for.
                return counted(plan, self.reader.group_rows(group)).map(Some).map_err(Fault::Other);
            }
            self.batches = Some(self.reader.group(group, &self.columns, plan.chunk_rows)?);
        }
    }

    /// The rows inside the window: a part without a copy, as they are in the order of time.
    fn inside(&self, plan: &Plan, batch: RecordBatch) -> Result<RecordBatch> {
        if !self.columns.contains(&self.time) {
            return Ok(batch);
        }
        let times = times(&plan.spec, &batch)?.values();
        let from = times.partition_point(|time| *time < plan.window.from_us);
        let until = times.partition_point(|time| *time < plan.window.until_us);
        Ok(batch.slice(from, until.saturating_sub(from)))
    }
}

/// So many rows, of which only the number is known: every column that is shown came later than the file.
fn counted(plan: &Plan, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
    plan.shown(none.map_err(|error| Error::internal("rows without columns").with_source(error))?)
}

/// Some rows of a scan.
#[derive(Clone, Debug)]
pub struct Chunk {
    rows: RecordBatch,
}

impl Chunk {
    /// The rows as Arrow has them.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The rows as columns: numbers and truth values without a copy, times as `i64` in microseconds without one, text as
    /// a dictionary that is made here.
    pub fn frame(&self) -> Result<Frame> {
        let schema = self.rows.schema();
        let pairs = schema.fields().iter().zip(self.rows.columns());
        let columns = pairs.map(|(field, array)| Ok((field.name().as_str().into(), column(array)?)));
        Frame::new(columns.collect::<Result<_>>()?)
    }
}

fn column(array: &ArrayRef) -> Result<Column> {
    match array.data_type() {
        DataType::Utf8 => Ok(Column::text(array.as_string::<i32>())),
        DataType::Timestamp(..) => {
            let times = array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>();
            Column::from_arrow(ValueType::I64, vec![Arc::new(times)])
        }
        other => {
            let kind = ValueType::of_arrow(other);
            let kind = kind.ok_or_else(|| Error::internal(format!("a table with a column of Arrow's type {other}")))?;
            Column::from_arrow(kind, vec![array.clone()])
        }
    }
}

/// A scan; see the module. Ends at its first error.
pub struct Scan {
    plan: Arc<Plan>,
    cursor: Cursor,
}

impl Table {
    /// Read rows as of now: later appends, compaction and retention do not change what the scan gives. `denied` names a
    /// restricted column, `not-found` one that is not there.
    pub fn scan(&self, options: &ScanOptions) -> Result<Scan> {
        let (plan, units) = Plan::new(self, options)?;
        Ok(Scan { cursor: Cursor::new(plan.clone(), units), plan })
    }
}

impl Scan {
    /// Arrow's schema of its chunks.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    /// What the scan misses because files are damaged; complete when the scan is at its end.
    pub fn missing(&self) -> Vec<Missing> {
        self.plan.missing()
    }

    /// All rows at once, as columns of many chunks. `exhausted` beyond so many bytes.
    pub fn frame(mut self, bytes_max: usize) -> Result<(Frame, Vec<Missing>)> {
        let mut parts: Vec<Vec<Column>> = vec![Vec::new(); self.schema().fields().len()];
        let mut bytes = 0;
        for chunk in self.by_ref() {
            let frame = chunk?.frame()?;
            bytes += frame.columns().iter().map(|(_, column)| column.size_bytes()).sum::<usize>();
            if bytes > bytes_max {
                return Err(Error::exhausted(format!(
                    "the rows take more than {bytes_max} bytes; ask for fewer columns or a smaller window"
                )));
            }
            for (part, (_, column)) in parts.iter_mut().zip(frame.columns()) {
                part.push(column.clone());
            }
        }
        let empty = Chunk { rows: RecordBatch::new_empty(self.schema().clone()) }.frame()?;
        let columns = empty.columns().iter().zip(parts).map(|((name, empty), parts)| {
            let column = if parts.is_empty() { empty.clone() } else { Column::concat(&parts)? };
            Ok((name.clone(), column))
        });
        Ok((Frame::new(columns.collect::<Result<_>>()?)?, self.missing()))
    }
}

impl Iterator for Scan {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        Some(self.cursor.next()?.map(|rows| Chunk { rows }))
    }
}
