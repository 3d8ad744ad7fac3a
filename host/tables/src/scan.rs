//! Rows of a window of time, chunk by chunk.
//!
//! Owns the plan of a scan (what is pending in a snapshot, handles of the files that it lists) and the cursor that goes
//! through it: pending rows first, then file by file, row group by row group, passing those that cannot hold what is asked
//! for. Rows of a chunk are in the order of time; there is no order between chunks. Separate from SQL, which reads through the
//! same cursors.
//!
//! Bounded by: one row group's chosen columns at a time for each cursor, and the pending pieces that the plan took out of the
//! store, so that it need not hold the view. Files that compaction replaces stay until the scan is done. On failure: a damaged
//! file is moved aside, the scan goes on without it, and [`Scan::missing`] says what it misses. When rows of that file were
//! given before, the scan ends with `unavailable` instead, and asking again gives the answer without them.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use mainstay_arrays::{Column, Frame};
use mainstay_base::{Error, Result};
use mainstay_store::View;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::damage::{self, Missing, Torn};
use crate::files::{Fault, FileReader, StoredFile};
use crate::frames;
use crate::limits::{CHUNK_ROWS, SCAN_PENDING_BYTES_MAX};
use crate::marks::times;
use crate::pending;
use crate::prune::{Condition, integer_bounds};
use crate::schema::{Mark, TableSpec, TextForm};
use crate::snapshot::Snapshot;
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
    /// The same in milliseconds.
    pub fn of_ms(from_ms: i64, until_ms: i64) -> Window {
        Window { from_us: from_ms.saturating_mul(1_000), until_us: until_ms.saturating_mul(1_000) }
    }

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
    /// How texts are laid out.
    pub text: TextForm,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions {
            window: Window::default(),
            columns: None,
            with_restricted: false,
            chunk_rows: CHUNK_ROWS,
            text: TextForm::Plain,
        }
    }
}

/// Columns of the newest schema that may be seen, by name.
pub(crate) fn visible(spec: &TableSpec, with_restricted: bool) -> SchemaRef {
    let seen = spec.stored(spec.version).enumerate();
    let seen = seen.filter(|(_, column)| with_restricted || column.mark != Mark::Restrict).map(|(at, _)| at);
    Arc::new(spec.newest().project(&seen.collect::<Vec<_>>()).expect("they are columns of it"))
}

/// The same with texts laid out as they are asked for.
pub(crate) fn shown(spec: &TableSpec, with_restricted: bool, text: TextForm) -> SchemaRef {
    text.of(&visible(spec, with_restricted))
}

/// What every cursor of a scan needs to know.
pub(crate) struct Plan {
    inner: Arc<Inner>,
    state: Arc<State>,
    spec: Arc<TableSpec>,
    /// Of the chunks.
    pub schema: SchemaRef,
    window: Window,
    /// What every row that is asked for meets, though others may be given.
    conditions: Vec<Condition>,
    chunk_rows: usize,
    text: TextForm,
    progress: Mutex<Progress>,
}

/// How the cursors of a plan stand to its files.
#[derive(Default)]
struct Progress {
    missing: Vec<Missing>,
    /// Files of which rows were given.
    given: HashSet<String>,
    /// Files that were found damaged before any of their rows was given.
    damaged: HashSet<String>,
}

/// A part of a scan.
#[derive(Clone)]
pub(crate) enum Unit {
    /// Pieces of pending rows.
    Pending(Pieces),
    /// Row groups of a file.
    Groups(Arc<StoredFile>, Range<usize>),
}

/// Pending pieces: those that were taken out of the store, and beyond a bound those that are still in a view of it.
#[derive(Clone)]
pub(crate) struct Pieces {
    taken: VecDeque<(Vec<u8>, Bytes)>,
    left: Option<(View, VecDeque<Vec<u8>>)>,
}

impl Pieces {
    fn take(view: &View, state: &State, window: Window) -> Result<Pieces> {
        let mut keys = VecDeque::from(pending::keys(view, state.id, usize::MAX)?);
        let (mut taken, mut bytes) = (VecDeque::new(), 0);
        while bytes < SCAN_PENDING_BYTES_MAX {
            let Some(key) = keys.pop_front() else { return Ok(Pieces { taken, left: None }) };
            let piece = pending::named(&state.name, &key, pending::piece(view, &key))?;
            let head = pending::named(&state.name, &key, pending::head(&piece))?;
            if window.meets(head.min_us, head.max_us) {
                bytes += piece.len();
                taken.push_back((key, piece));
            }
        }
        Ok(Pieces { taken, left: Some((view.clone(), keys)) })
    }

    /// Nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.left.as_ref().is_none_or(|(_, keys)| keys.is_empty())
    }

    fn next(&mut self) -> Result<Option<(Vec<u8>, Bytes)>> {
        if let Some(piece) = self.taken.pop_front() {
            return Ok(Some(piece));
        }
        let Some((view, keys)) = &mut self.left else { return Ok(None) };
        let Some(key) = keys.pop_front() else { return Ok(None) };
        let piece = pending::piece(view, &key)?;
        Ok(Some((key, piece)))
    }
}

impl Plan {
    pub fn new(
        snapshot: &Snapshot,
        table: &str,
        options: &ScanOptions,
        conditions: Vec<Condition>,
    ) -> Result<(Arc<Plan>, Vec<Unit>)> {
        let seen = snapshot.seen(table)?;
        let (view, state, spec) = (&snapshot.view, &seen.state, seen.spec.clone());
        state.check_alive(view)?;
        let schema = chosen(&state.name, &spec, options)?;
        let mut missing = damage::listed(view, state.id)?;
        missing.retain(|missing| options.window.meets(missing.min_us, missing.max_us));
        let mut units = vec![Unit::Pending(Pieces::take(view, state, options.window)?)];
        for name in listed_names(view, state.id)? {
            let file = seen.files.get(&name);
            let file = file.ok_or_else(|| Error::internal("a file that is listed has no handle"))?.clone();
            let groups = file.record.chunk_crcs.len() / spec.stored(file.record.version).count().max(1);
            if options.window.meets(file.record.min_us, file.record.max_us) {
                units.push(Unit::Groups(file, 0..groups));
            }
        }
        let plan = Plan {
            inner: snapshot.inner.clone(),
            state: state.clone(),
            spec,
            schema,
            window: options.window,
            conditions,
            chunk_rows: options.chunk_rows.clamp(1, CHUNK_ROWS),
            text: options.text,
            progress: Mutex::new(Progress { missing, ..Progress::default() }),
        };
        Ok((Arc::new(plan), units))
    }

    pub fn missing(&self) -> Vec<Missing> {
        self.progress.lock().missing.clone()
    }

    /// A row group's or piece's rows as the scan gives them.
    fn shown(&self, batch: RecordBatch) -> Result<RecordBatch> {
        widened(batch, &self.schema)
    }

    /// Whether rows of this file may be given: not when another cursor has found it damaged.
    fn gives(&self, file: &StoredFile) -> bool {
        let mut progress = self.progress.lock();
        if progress.damaged.contains(&file.name) {
            return false;
        }
        progress.given.insert(file.name.clone());
        true
    }

    /// Go on without this file, if none of its rows was given.
    fn damaged(&self, file: &Arc<StoredFile>, reason: String) -> Result<()> {
        let missing = damage::quarantine(&self.inner, &self.state, file, reason);
        let mut progress = self.progress.lock();
        if progress.given.contains(&file.name) {
            return Err(Torn::error(file));
        }
        // Several cursors may have found the same.
        if progress.damaged.insert(file.name.clone()) {
            progress.missing.push(missing);
        }
        Ok(())
    }
}

fn chosen(table: &str, spec: &TableSpec, options: &ScanOptions) -> Result<SchemaRef> {
    let seen = shown(spec, options.with_restricted, options.text);
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
    let column = |field: &Arc<arrow_schema::Field>| -> Result<ArrayRef, arrow_schema::ArrowError> {
        let found = batch.column_by_name(field.name()).cloned();
        let array = found.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()));
        // Pending texts lie as they were appended.
        if array.data_type() == field.data_type() { Ok(array) } else { arrow_cast::cast(&array, field.data_type()) }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_, _>>();
    let columns = columns.map_err(|error| Error::internal("texts cannot be laid out anew").with_source(error))?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| Error::internal("rows do not fit the schema that they are read in").with_source(error))
}

/// Goes through some units of a plan.
pub struct Cursor {
    plan: Arc<Plan>,
    units: VecDeque<Unit>,
    open: Option<Open>,
}

/// What a cursor stands in.
enum Open {
    Pending(Pieces),
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
    /// This cursor has given rows of it.
    is_given: bool,
}

impl Cursor {
    pub(crate) fn new(plan: Arc<Plan>, units: impl IntoIterator<Item = Unit>) -> Cursor {
        Cursor { plan, units: units.into_iter().collect(), open: None }
    }

    fn step(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let chunk = match &mut self.open {
                Some(Open::Pending(pieces)) => next_pending(&self.plan, pieces)?,
                Some(Open::File(file)) => match file.next(&self.plan) {
                    Ok(chunk) => chunk.filter(|_| file.gives(&self.plan)),
                    Err(Fault::Other(error)) => return Err(error),
                    Err(Fault::Damage(reason)) => {
                        self.plan.damaged(&file.reader.file.clone(), reason)?;
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
                Some(Unit::Pending(pieces)) => Some(Open::Pending(pieces)),
                Some(Unit::Groups(file, groups)) => match OpenFile::new(&self.plan, &file, groups) {
                    Ok(open) => Some(Open::File(Box::new(open))),
                    Err(Fault::Other(error)) => return Err(error),
                    Err(Fault::Damage(reason)) => {
                        self.plan.damaged(&file, reason)?;
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

fn next_pending(plan: &Plan, pieces: &mut Pieces) -> Result<Option<RecordBatch>> {
    while let Some((key, piece)) = pieces.next()? {
        let rows = pending::named(&plan.state.name, &key, rows_of_piece(plan, &piece))?;
        if rows.is_some() {
            return Ok(rows);
        }
    }
    Ok(None)
}

fn rows_of_piece(plan: &Plan, piece: &Bytes) -> Result<Option<RecordBatch>> {
    let head = pending::head(piece)?;
    if !plan.window.meets(head.min_us, head.max_us) {
        return Ok(None);
    }
    let rows = pending::decode(&plan.spec, piece)?;
    if plan.window.covers(head.min_us, head.max_us) {
        return plan.shown(rows).map(Some);
    }
    let inside = times(&plan.spec, &rows)?.values().iter().map(|time| Some(plan.window.has(*time)));
    let inside: BooleanArray = inside.collect();
    if inside.true_count() == 0 {
        return Ok(None);
    }
    let rows = filter_record_batch(&plan.shown_with_times(rows)?, &inside);
    let rows = rows.map_err(|error| Error::internal("rows cannot be filtered").with_source(error))?;
    plan.shown(rows).map(Some)
}

impl Plan {
    /// Only what is shown, to filter no more than that.
    fn shown_with_times(&self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.schema.fields().is_empty() { Ok(rows) } else { self.shown(rows) }
    }
}

impl OpenFile {
    fn new(plan: &Plan, file: &Arc<StoredFile>, groups: Range<usize>) -> Result<OpenFile, Fault> {
        let reader = file.open(plan.text)?;
        let place = |name: &str| reader.schema().index_of(name).ok();
        let time = place(&plan.spec.time).ok_or_else(|| Fault::Damage("it has no time column".into()))?;
        let mut columns: Vec<usize> = plan.schema.fields().iter().filter_map(|field| place(field.name())).collect();
        if !plan.window.covers(file.record.min_us, file.record.max_us) && !columns.contains(&time) {
            columns.push(time);
        }
        Ok(OpenFile { reader, groups, columns, time, batches: None, is_given: false })
    }

    fn gives(&mut self, plan: &Plan) -> bool {
        self.is_given = self.is_given || plan.gives(&self.reader.file);
        self.is_given
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
            if !plan.conditions.iter().all(|condition| condition.may_match(&self.reader, group)) {
                continue;
            }
            let bounds = integer_bounds(&self.reader, group, self.time);
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
        frames::frame(&self.rows)
    }
}

/// A scan; see the module. Ends at its first error.
pub struct Scan {
    plan: Arc<Plan>,
    cursor: Cursor,
}

impl Table {
    /// Read rows as of now: later appends, compaction and retention do not change what the scan gives. Reads files on the
    /// calling thread. `denied` names a restricted column, `not-found` one that is not there.
    pub fn scan(&self, options: &ScanOptions) -> Result<Scan> {
        Scan::new(&self.snapshot(), self.name(), options)
    }
}

impl Scan {
    pub(crate) fn new(snapshot: &Snapshot, table: &str, options: &ScanOptions) -> Result<Scan> {
        let (plan, units) = Plan::new(snapshot, table, options, Vec::new())?;
        Ok(Scan { cursor: Cursor::new(plan.clone(), units), plan })
    }

    /// Arrow's schema of its chunks.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    /// What the scan misses because files are damaged; complete when the scan is at its end.
    pub fn missing(&self) -> Vec<Missing> {
        self.plan.missing()
    }

    /// All rows at once, as columns of many chunks. `exhausted` beyond so many rows or bytes.
    pub fn frame(mut self, rows_max: usize, bytes_max: usize) -> Result<(Frame, Vec<Missing>)> {
        let mut parts: Vec<Vec<Column>> = vec![Vec::new(); self.schema().fields().len()];
        let (mut rows, mut bytes) = (0, 0);
        for chunk in self.by_ref() {
            let frame = chunk?.frame()?;
            rows += frame.rows();
            bytes += frame.columns().iter().map(|(_, column)| column.size_bytes()).sum::<usize>();
            if rows > rows_max || bytes > bytes_max {
                return Err(Error::exhausted(format!(
                    "there are more than {rows_max} rows or {bytes_max} bytes; ask for fewer columns or a smaller window"
                )));
            }
            for (part, (_, column)) in parts.iter_mut().zip(frame.columns()) {
                part.push(column.clone());
            }
        }
        let empty = frames::frame(&RecordBatch::new_empty(self.schema().clone()))?;
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
