//! Aggregates for those who may judge rows and not see them.
//!
//! Owns [`Guard`]: rows, means, sums and quantiles of groups, over a window of time. Separate from SQL and scans, because
//! whoever asks here may not read, and every rule against reading through aggregates stands in this one place:
//!
//! - Nothing is said of fewer than [`GROUP_ROWS_MIN`] rows, nor of a column with fewer values in a group. What is hidden
//!   is never fewer rows than that either, or the sum of the rest would tell: then the smallest group is hidden, too.
//! - There is no least and no greatest value, and a quantile has [`QUANTILE_ROWS_MIN`] values or more on either side.
//! - Rows are chosen by a window of time that has ended, and by nothing else.
//! - The windows that a caller asked for cut time into spans. Between any two of their ends there are no rows of a group or
//!   at least [`GROUP_ROWS_MIN`], or the group is hidden: the difference of two answers is then an answer that could have
//!   been asked for. Where two windows hold the same rows but for those that came meanwhile, the same holds for these.
//! - Every measure takes one from the caller's budget, which fills up with time.
//!
//! This makes reading through aggregates hard, not impossible: windows are forgotten after [`REMEMBERED_WINDOWS_MAX`] others
//! and with the host's end, two callers may put their answers together, a sum shows a value that is far greater than all
//! others, and what groups by different columns differ in is only held to the first rule.
//!
//! Bounded by [`crate::limits`] and [`Budget`]. Works on the tables' own threads, one question of a caller at a time. On
//! failure: `denied` for what is never said, `exhausted` for budget, memory and time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use mainstay_base::{Error, Result};
use parking_lot::Mutex;

use crate::damage::Missing;
use crate::layout::TableId;
use crate::limits::{
    CALLERS_MAX, GROUP_CELLS_MAX, GROUP_COLUMNS_MAX, GROUP_ROWS_MIN, GROUPS_MAX, MEASURES_MAX, QUANTILE_BYTES_MAX,
    QUANTILE_PERCENT_MIN, QUANTILE_ROWS_MIN, REMEMBERED_WINDOWS_MAX,
};
use crate::marks::times;
use crate::scan::{Scan, ScanOptions, Window};
use crate::schema::{Kind, TableSpec};
use crate::table::{Table, Tables};
use crate::window::asked_again;

/// What a caller may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Measures that may be asked for at once.
    pub measures: u32,
    /// The time in which a spent budget is whole again.
    pub refilled_in: Duration,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { measures: 1_000, refilled_in: Duration::from_secs(24 * 3_600) }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedQuery {
    /// The table's name.
    pub table: String,
    /// The first time, in milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// The first time behind the window; not in the future.
    pub until_ms: i64,
    /// Columns that rows are grouped by: text, whole numbers, truth values. None: all rows are one group.
    pub by: Vec<String>,
    /// What is asked of each group.
    pub measures: Vec<Measure>,
}

/// What is asked of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// How many rows it has.
    Rows,
    /// The mean of a column's values; what is missing or not a number is left out.
    Mean(String),
    /// Their sum.
    Sum(String),
    /// What so many percent of them are below, between two values linearly interpolated.
    Quantile {
        /// The column.
        column: String,
        /// 5 to 95.
        percent: u8,
    },
}

impl Measure {
    /// By its name in contracts. `denied` for those that would show single values.
    pub fn named(name: &str, column: &str, percent: u8) -> Result<Measure> {
        let column = column.to_owned();
        match name {
            "rows" => Ok(Measure::Rows),
            "mean" => Ok(Measure::Mean(column)),
            "sum" => Ok(Measure::Sum(column)),
            "quantile" => Ok(Measure::Quantile { column, percent }),
            "min" | "max" | "first" | "last" | "any" => Err(Error::denied(format!(
                "`{name}` shows single rows' values; ask for a quantile between {QUANTILE_PERCENT_MIN} % and {} %",
                100 - QUANTILE_PERCENT_MIN
            ))),
            _ => Err(Error::invalid(format!("no measure `{name}`; there are rows, mean, sum and quantile"))),
        }
    }

    fn column(&self) -> Option<&str> {
        match self {
            Measure::Rows => None,
            Measure::Mean(column) | Measure::Sum(column) | Measure::Quantile { column, .. } => Some(column),
        }
    }
}

/// A value that rows are grouped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// It is missing.
    Missing,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// A group that something is said of.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The values that its rows have in common, in the order of the question.
    pub key: Vec<Key>,
    /// One for each measure; none where too few values would stand behind it.
    pub values: Vec<Option<f64>>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardedAnswer {
    /// Groups in the order of their keys.
    pub groups: Vec<Group>,
    /// There are groups of which nothing is said.
    pub has_hidden: bool,
    /// Rows that are not counted because files are damaged.
    pub missing: Vec<Missing>,
}

/// See the module. One for a host: it remembers what was asked.
pub struct Guard {
    tables: Tables,
    budget: Budget,
    callers: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Caller>>>>,
}

/// What is remembered of a caller.
struct Caller {
    /// Of its budget.
    spent: f64,
    /// When that was so.
    at_ns: u64,
    windows: VecDeque<Remembered>,
}

/// A question that was answered.
#[derive(Clone)]
struct Remembered {
    table: TableId,
    window: Window,
    by: Vec<String>,
    rows: u64,
    /// Rows of each group that was shown, by the hash of its key.
    groups: HashMap<u64, u64>,
}

impl Guard {
    /// A guard before these tables.
    pub fn new(tables: &Tables, budget: Budget) -> Guard {
        Guard { tables: tables.clone(), budget, callers: Mutex::default() }
    }

    /// Answer a caller's question within this time. The caller's right to ask it was checked before.
    pub async fn ask(&self, caller: &str, query: &GuardedQuery, within: Duration) -> Result<GuardedAnswer> {
        let table = self.tables.table(&query.table)?;
        let question = Question::new(&table, query, self.tables.inner.options.clock.now_ms())?;
        let caller = self.caller(caller)?;
        // Held until the answer is remembered: two questions at a time could else be compared with each other.
        let mut caller = caller.lock().await;
        self.spend(&mut caller, query.measures.len().max(1) as u32)?;
        let known: Vec<Remembered> =
            caller.windows.iter().filter(|known| known.table == table.state.id).cloned().collect();
        let work = move || asked_again(|| question.answer(&table, &known));
        let (answer, remembered) = self.tables.inner.pool.run_blocking(within, work).await?;
        caller.remember(remembered);
        Ok(answer)
    }

    /// The same, waiting on this thread; not to be called on a thread that runs an async executor.
    pub fn ask_blocking(&self, caller: &str, query: &GuardedQuery, within: Duration) -> Result<GuardedAnswer> {
        futures::executor::block_on(self.ask(caller, query, within))
    }

    fn caller(&self, name: &str) -> Result<Arc<tokio::sync::Mutex<Caller>>> {
        let mut callers = self.callers.lock();
        let now_ns = self.now_ns();
        if callers.len() >= CALLERS_MAX && !callers.contains_key(name) {
            let refilled_ns = self.budget.refilled_in.as_nanos() as u64;
            let is_recent = |caller: &Caller| now_ns.saturating_sub(caller.at_ns) < refilled_ns;
            callers.retain(|_, caller| caller.try_lock().map_or(true, |caller| is_recent(&caller)));
            if callers.len() >= CALLERS_MAX {
                return Err(Error::exhausted(format!("{CALLERS_MAX} callers have asked lately; ask again later")));
            }
        }
        let new = || Arc::new(tokio::sync::Mutex::new(Caller { spent: 0.0, at_ns: now_ns, windows: VecDeque::new() }));
        Ok(callers.entry(name.to_owned()).or_insert_with(new).clone())
    }

    fn spend(&self, caller: &mut Caller, measures: u32) -> Result<()> {
        let now_ns = self.now_ns();
        let (whole, refilled_s) = (f64::from(self.budget.measures), self.budget.refilled_in.as_secs_f64());
        let passed_s = now_ns.saturating_sub(caller.at_ns) as f64 / 1e9;
        let spent = (caller.spent - whole * passed_s / refilled_s).max(0.0);
        (caller.spent, caller.at_ns) = (spent, now_ns);
        let over = spent + f64::from(measures) - whole;
        if over > 0.0 {
            let wait_s = (over / whole * refilled_s).ceil();
            return Err(Error::exhausted(format!(
                "{measures} measures more than the budget of {} has left; ask again in {wait_s} seconds",
                self.budget.measures
            )));
        }
        caller.spent += f64::from(measures);
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.tables.inner.options.clock.monotonic_ns()
    }
}

impl Caller {
    fn remember(&mut self, new: Remembered) {
        let is_same = |known: &Remembered| (known.table, known.window, &known.by) == (new.table, new.window, &new.by);
        // Groups that are hidden now stay as they were known.
        let mut new = new.clone();
        if let Some(at) = self.windows.iter().position(is_same)
            && let Some(known) = self.windows.remove(at)
        {
            for (key, rows) in known.groups {
                new.groups.entry(key).or_insert(rows);
            }
        }
        self.windows.push_back(new);
        if self.windows.len() > REMEMBERED_WINDOWS_MAX {
            self.windows.pop_front();
        }
    }
}

/// A question that may be asked.
struct Question {
    spec: Arc<TableSpec>,
    window: Window,
    by: Vec<String>,
    measures: Vec<Measure>,
    /// Columns that are measured, each once.
    measured: Vec<String>,
}

impl Question {
    fn new(table: &Table, query: &GuardedQuery, now_ms: i64) -> Result<Question> {
        let spec = table.spec();
        if query.from_ms >= query.until_ms || query.until_ms > now_ms {
            return Err(Error::invalid(format!(
                "a window from {} up to {}; it must end behind its beginning and not behind now, which is {now_ms}",
                query.from_ms, query.until_ms
            )));
        }
        let counts =
            [(query.by.len(), GROUP_COLUMNS_MAX, "grouping columns"), (query.measures.len(), MEASURES_MAX, "measures")];
        if let Some((count, most, what)) = counts.into_iter().find(|(count, most, _)| count > most) {
            return Err(Error::invalid(format!("{count} {what}; a question has at most {most}")));
        }
        if query.measures.is_empty() || (1..query.by.len()).any(|at| query.by[..at].contains(&query.by[at])) {
            return Err(Error::invalid("a question has a measure or more, and groups by a column once"));
        }
        for column in &query.by {
            check_kind(&spec, column, &[Kind::Text, Kind::I64, Kind::I32, Kind::Bool], "rows are grouped by")?;
        }
        let mut measured: Vec<String> = Vec::new();
        for measure in &query.measures {
            if let Measure::Quantile { percent, .. } = measure
                && !(QUANTILE_PERCENT_MIN..=100 - QUANTILE_PERCENT_MIN).contains(percent)
            {
                return Err(Error::denied(format!(
                    "a quantile of {percent} % shows single rows' values; ask for {QUANTILE_PERCENT_MIN} to {}",
                    100 - QUANTILE_PERCENT_MIN
                )));
            }
            let Some(column) = measure.column() else { continue };
            check_kind(&spec, column, &[Kind::F64, Kind::F32, Kind::I64, Kind::I32, Kind::Bool], "measures are of")?;
            if !measured.iter().any(|known| known == column) {
                measured.push(column.to_owned());
            }
        }
        let window = Window::of_ms(query.from_ms, query.until_ms);
        Ok(Question { spec, window, by: query.by.clone(), measures: query.measures.clone(), measured })
    }

    fn answer(&self, table: &Table, known: &[Remembered]) -> Result<(GuardedAnswer, Remembered)> {
        let hull = self.hull(known);
        let mut columns = vec![self.spec.time.clone()];
        columns.extend(self.by.iter().chain(&self.measured).cloned());
        columns.sort();
        columns.dedup();
        let options = ScanOptions { window: hull, columns: Some(columns), ..ScanOptions::default() };
        let mut scan = table.scan(&options)?;
        let mut counted = Counted::new(self, hull, known);
        counted.take(&mut scan)?;
        counted.check_late(known)?;
        let (groups, has_hidden) = counted.shown(known)?;
        let remembered = Remembered {
            table: table.state.id,
            window: self.window,
            by: self.by.clone(),
            rows: counted.rows_in(self.window),
            groups: groups.iter().map(|(group, at)| (hash(&group.key), counted.groups[*at].rows)).collect(),
        };
        let groups = groups.into_iter().map(|(group, _)| group).collect();
        Ok((GuardedAnswer { groups, has_hidden, missing: scan.missing() }, remembered))
    }

    /// The window together with the earlier ones that it meets.
    fn hull(&self, known: &[Remembered]) -> Window {
        let meets = known
            .iter()
            .map(|known| known.window)
            .filter(|known| known.from_us <= self.window.until_us && self.window.from_us <= known.until_us);
        meets.fold(self.window, |hull, known| Window {
            from_us: hull.from_us.min(known.from_us),
            until_us: hull.until_us.max(known.until_us),
        })
    }
}

/// `not-found` or `invalid` for a column that does not fit; that it may be seen is the scan's to check.
fn check_kind(spec: &TableSpec, name: &str, kinds: &[Kind], what: &str) -> Result<()> {
    let column = spec.columns.iter().find(|column| column.name == name);
    let column = column.ok_or_else(|| Error::not_found(format!("the table has no column `{name}`")))?;
    if kinds.contains(&column.kind) {
        return Ok(());
    }
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    Err(Error::invalid(format!("column `{name}` is {}; {what} {}", column.kind.name(), kinds.join(", "))))
}

fn hash(key: &[Key]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Rows in groups and spans of time.
struct Counted<'a> {
    question: &'a Question,
    /// Ends of windows, the hull's own left out: span `n` lies before edge `n`.
    edges: Vec<i64>,
    hull: Window,
    /// For each grouping column, the number of each value.
    codes: Vec<HashMap<Key, u32>>,
    /// By the numbers of its values.
    places: HashMap<[u32; GROUP_COLUMNS_MAX], usize>,
    groups: Vec<Counts>,
    value_bytes: usize,
}

/// One group.
struct Counts {
    key: Vec<Key>,
    /// In the window that was asked for.
    rows: u64,
    /// In each span of the hull.
    rows_by_span: Vec<u32>,
    columns: Vec<ColumnCounts>,
}

/// One measured column of a group.
#[derive(Default)]
struct ColumnCounts {
    values_by_span: Vec<u32>,
    count: u64,
    sum: f64,
    /// What adding lost (Neumaier 1974).
    lost: f64,
    /// Values, where a quantile is asked for.
    values: Vec<f64>,
}

impl ColumnCounts {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        (self.sum, self.count) = (sum, self.count + 1);
    }

    fn total(&self) -> f64 {
        // Behind an infinite value the loss is not a number.
        if self.lost.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

impl<'a> Counted<'a> {
    fn new(question: &'a Question, hull: Window, known: &[Remembered]) -> Counted<'a> {
        let windows = known.iter().map(|known| known.window).chain([question.window]);
        let edges: BTreeSet<i64> = windows.flat_map(|window| [window.from_us, window.until_us]).collect();
        let inside = edges.into_iter().filter(|edge| hull.from_us < *edge && *edge < hull.until_us).collect();
        Counted {
            question,
            edges: inside,
            hull,
            codes: vec![HashMap::new(); question.by.len()],
            places: HashMap::new(),
            groups: Vec::new(),
            value_bytes: 0,
        }
    }

    fn take(&mut self, scan: &mut Scan) -> Result<()> {
        for chunk in scan.by_ref() {
            let chunk = chunk?;
            let rows = chunk.rows();
            let places = self.places_of(rows)?;
            let times = times(&self.question.spec, rows)?.values();
            let spans: Vec<usize> = times.iter().map(|time| self.edges.partition_point(|edge| edge <= time)).collect();
            let is_asked = self.asked_spans();
            for (place, span) in places.iter().zip(&spans) {
                let group = &mut self.groups[*place];
                group.rows_by_span[*span] += 1;
                group.rows += u64::from(is_asked[*span]);
            }
            for (at, column) in self.question.measured.iter().enumerate() {
                self.measure(at, column_of(rows, column)?, &places, &spans, &is_asked)?;
            }
        }
        Ok(())
    }

    /// Which spans lie in the window that was asked for.
    fn asked_spans(&self) -> Vec<bool> {
        self.spans_in(self.question.window)
    }

    fn spans_in(&self, window: Window) -> Vec<bool> {
        let starts = std::iter::once(&self.hull.from_us).chain(&self.edges);
        starts.map(|start| window.from_us <= *start && *start < window.until_us).collect()
    }

    fn measure(
        &mut self,
        at: usize,
        array: &ArrayRef,
        places: &[usize],
        spans: &[usize],
        is_asked: &[bool],
    ) -> Result<()> {
        let name = &self.question.measured[at];
        let keeps = |measure: &Measure| matches!(measure, Measure::Quantile { column, .. } if column == name);
        let keeps_values = self.question.measures.iter().any(keeps);
        let values = numbers(array)?;
        for (row, value) in values.enumerate() {
            let Some(value) = value.filter(|value| !value.is_nan()) else { continue };
            let column = &mut self.groups[places[row]].columns[at];
            column.values_by_span[spans[row]] += 1;
            if !is_asked[spans[row]] {
                continue;
            }
            column.add(value);
            if keeps_values {
                self.value_bytes += size_of::<f64>();
                column.values.push(value);
            }
        }
        if self.value_bytes > QUANTILE_BYTES_MAX {
            return Err(Error::exhausted(format!(
                "quantiles are found among {} values at most; ask for a smaller window",
                QUANTILE_BYTES_MAX / size_of::<f64>()
            )));
        }
        Ok(())
    }

    /// The group of each row.
    fn places_of(&mut self, rows: &RecordBatch) -> Result<Vec<usize>> {
        let mut codes = vec![[0; GROUP_COLUMNS_MAX]; rows.num_rows()];
        for (at, column) in self.question.by.iter().enumerate() {
            let array = column_of(rows, column)?;
            for (row, codes) in codes.iter_mut().enumerate() {
                codes[at] = code(&mut self.codes[at], array, row);
            }
        }
        let mut places = Vec::with_capacity(codes.len());
        for (row, codes) in codes.into_iter().enumerate() {
            let place = match self.places.get(&codes) {
                Some(place) => *place,
                None => self.begin_group(rows, row, codes)?,
            };
            places.push(place);
        }
        Ok(places)
    }

    fn begin_group(&mut self, rows: &RecordBatch, row: usize, codes: [u32; GROUP_COLUMNS_MAX]) -> Result<usize> {
        let spans = self.edges.len() + 1;
        let cells = (self.groups.len() + 1) * spans * (self.question.measured.len() + 1);
        if cells > GROUP_CELLS_MAX {
            return Err(Error::exhausted(format!(
                "{} groups are too many; group by a column with fewer values, or ask for a smaller window",
                self.groups.len() + 1
            )));
        }
        let key = self.question.by.iter().map(|column| Ok(key_at(column_of(rows, column)?, row)));
        let column = || ColumnCounts { values_by_span: vec![0; spans], ..ColumnCounts::default() };
        let columns = self.question.measured.iter().map(|_| column()).collect();
        let group = Counts { key: key.collect::<Result<_>>()?, rows: 0, rows_by_span: vec![0; spans], columns };
        self.groups.push(group);
        self.places.insert(codes, self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }

    fn rows_in(&self, window: Window) -> u64 {
        self.sum_of(&self.spans_in(window))
    }

    fn sum_of(&self, spans: &[bool]) -> u64 {
        let rows = self.groups.iter().flat_map(|group| group.rows_by_span.iter().zip(spans));
        rows.filter(|(_, is_inside)| **is_inside).map(|(rows, _)| u64::from(*rows)).sum()
    }

    /// Earlier windows that hold the same rows but for those that came or went meanwhile.
    fn with_same_rows<'k>(&self, known: &'k [Remembered]) -> Vec<&'k Remembered> {
        let asked = self.asked_spans();
        let is_within_hull =
            |window: Window| self.hull.from_us <= window.from_us && window.until_us <= self.hull.until_us;
        let has_same = |known: &&Remembered| {
            let other = self.spans_in(known.window);
            let differ: Vec<bool> = asked.iter().zip(&other).map(|(one, other)| one != other).collect();
            is_within_hull(known.window) && self.sum_of(&differ) == 0
        };
        known.iter().filter(has_same).collect()
    }

    /// Refuse when few rows have come since the same rows were asked about: they would be the difference.
    fn check_late(&self, known: &[Remembered]) -> Result<()> {
        let now = self.rows_in(self.question.window);
        let is_few = |known: &&Remembered| is_too_few(now.abs_diff(known.rows));
        match self.with_same_rows(known).iter().find(|known| is_few(known)) {
            None => Ok(()),
            Some(_) => Err(Error::exhausted(format!(
                "fewer than {GROUP_ROWS_MIN} rows came or went since this window was asked about; ask about another"
            ))),
        }
    }

    /// The groups that something is said of, with their places, and whether there are others.
    fn shown(&mut self, known: &[Remembered]) -> Result<(Vec<(Group, usize)>, bool)> {
        let same: Vec<&Remembered> = self.with_same_rows(known);
        let same: Vec<&Remembered> = same.into_iter().filter(|known| known.by == self.question.by).collect();
        let is_shown = |group: &Counts| {
            let changed = same.iter().filter_map(|known| known.groups.get(&hash(&group.key)));
            group.rows >= GROUP_ROWS_MIN as u64
                && group.rows_by_span.iter().all(|rows| !is_too_few((*rows).into()))
                && changed.into_iter().all(|rows| !is_too_few(group.rows.abs_diff(*rows)))
        };
        let rows: Vec<u64> = self.groups.iter().map(|group| group.rows).collect();
        let mut shows: Vec<bool> = self.groups.iter().map(is_shown).collect();
        hide_enough(&rows, &mut shows);
        // Of each measured column, which groups have enough values.
        let mut shows_column = Vec::with_capacity(self.question.measured.len());
        for at in 0..self.question.measured.len() {
            let counts: Vec<u64> = self.groups.iter().map(|group| group.columns[at].count).collect();
            let mut column: Vec<bool> = (self.groups.iter().zip(&shows))
                .map(|(group, is_shown)| {
                    let spans = &group.columns[at].values_by_span;
                    *is_shown
                        && group.columns[at].count >= GROUP_ROWS_MIN as u64
                        && spans.iter().all(|values| !is_too_few((*values).into()))
                })
                .collect();
            hide_enough(&counts, &mut column);
            shows_column.push(column);
        }
        let question = self.question;
        let mut groups = Vec::new();
        for (at, group) in self.groups.iter_mut().enumerate().filter(|(at, _)| shows[*at]) {
            for column in &mut group.columns {
                column.values.sort_by(f64::total_cmp);
            }
            let value = |measure: &Measure| {
                let Some(name) = measure.column() else { return Some(group.rows as f64) };
                let place = question.measured.iter().position(|column| column == name)?;
                shows_column[place][at].then(|| measured(measure, &group.columns[place])).flatten()
            };
            let values = question.measures.iter().map(value).collect();
            groups.push((Group { key: group.key.clone(), values }, at));
        }
        if groups.len() > GROUPS_MAX {
            return Err(Error::exhausted(format!(
                "{} groups; an answer has at most {GROUPS_MAX}: group by a column with fewer values",
                groups.len()
            )));
        }
        groups.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
        let has_hidden = rows.iter().zip(&shows).any(|(rows, is_shown)| *rows > 0 && !is_shown);
        Ok((groups, has_hidden))
    }
}

/// Some, but not enough to say something about.
fn is_too_few(rows: u64) -> bool {
    (1..GROUP_ROWS_MIN as u64).contains(&rows)
}

/// Hide the smallest of what is shown until what is hidden is enough that nobody learns it from the whole.
fn hide_enough(rows: &[u64], shows: &mut [bool]) {
    loop {
        let hidden = rows.iter().zip(&*shows).filter(|(_, is_shown)| !**is_shown).map(|(rows, _)| rows).sum();
        if !is_too_few(hidden) {
            return;
        }
        let smallest = (0..rows.len()).filter(|at| shows[*at]).min_by_key(|at| rows[*at]);
        let Some(smallest) = smallest else { return };
        shows[smallest] = false;
    }
}

fn measured(measure: &Measure, column: &ColumnCounts) -> Option<f64> {
    match measure {
        Measure::Rows => None,
        Measure::Mean(_) => Some(column.total() / column.count as f64),
        Measure::Sum(_) => Some(column.total()),
        Measure::Quantile { percent, .. } => quantile(&column.values, *percent),
    }
}

/// Of sorted values (Hyndman and Fan 1996, definition 7); none with too few values on a side.
fn quantile(values: &[f64], percent: u8) -> Option<f64> {
    let place = values.len().checked_sub(1)? * usize::from(percent);
    let (below, part) = (place / 100, (place % 100) as f64 / 100.0);
    let above = if part > 0.0 { below + 1 } else { below };
    if below < QUANTILE_ROWS_MIN || values.len() - 1 - above < QUANTILE_ROWS_MIN {
        return None;
    }
    Some(if part > 0.0 { values[below] + part * (values[above] - values[below]) } else { values[below] })
}

fn column_of<'r>(rows: &'r RecordBatch, name: &str) -> Result<&'r ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| Error::internal(format!("a scan without the column `{name}`")))
}

fn key_at(array: &ArrayRef, row: usize) -> Key {
    if array.is_null(row) {
        return Key::Missing;
    }
    if let Some(values) = array.as_string_opt::<i32>() {
        Key::Text(values.value(row).to_owned())
    } else if let Some(values) = array.as_boolean_opt() {
        Key::Boolean(values.value(row))
    } else if let Some(values) = array.as_primitive_opt::<Int64Type>() {
        Key::Integer(values.value(row))
    } else {
        array.as_primitive_opt::<Int32Type>().map_or(Key::Missing, |values| Key::Integer(values.value(row).into()))
    }
}

fn code(codes: &mut HashMap<Key, u32>, array: &ArrayRef, row: usize) -> u32 {
    let next = codes.len() as u32;
    *codes.entry(key_at(array, row)).or_insert(next)
}

/// Values of a column as reals; none where one is missing.
fn numbers(array: &ArrayRef) -> Result<Box<dyn Iterator<Item = Option<f64>> + '_>> {
    if let Some(values) = array.as_primitive_opt::<Float64Type>() {
        Ok(Box::new(values.iter()))
    } else if let Some(values) = array.as_primitive_opt::<Float32Type>() {
        Ok(Box::new(values.iter().map(|value| value.map(f64::from))))
    } else if let Some(values) = array.as_primitive_opt::<Int64Type>() {
        Ok(Box::new(values.iter().map(|value| value.map(|value| value as f64))))
    } else if let Some(values) = array.as_primitive_opt::<Int32Type>() {
        Ok(Box::new(values.iter().map(|value| value.map(f64::from))))
    } else if let Some(values) = array.as_boolean_opt() {
        Ok(Box::new(values.iter().map(|value| value.map(|value| f64::from(u8::from(value))))))
    } else {
        Err(Error::internal(format!("a measured column of Arrow's type {}", array.data_type())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_numpy_and_never_single_rows() {
        // numpy.quantile(numpy.arange(n) ** 2, p / 100)
        fn check(count: usize, percent: u8, expect: Option<f64>) {
            let values: Vec<f64> = (0..count).map(|value| (value * value) as f64).collect();
            let found = quantile(&values, percent);
            let is_near = found.zip(expect).is_some_and(|(found, expect)| (found - expect).abs() < 1e-9 * expect);
            assert!(found == expect || is_near, "{count}, {percent}: {found:?}");
        }
        check(20, 50, Some(90.5));
        check(20, 33, Some(39.51));
        check(20, 26, None);
        check(20, 27, Some(26.43));
        check(20, 74, None);
        check(101, 5, Some(25.0));
        check(101, 95, Some(9_025.0));
        check(100, 5, None);
        check(0, 50, None);
    }

    #[test]
    fn enough_is_hidden() {
        fn check(rows: &[u64], shows: &[bool], expect: &[bool]) {
            let mut shows = shows.to_vec();
            hide_enough(rows, &mut shows);
            assert_eq!(shows, expect);
        }
        check(&[30, 19, 25], &[true, false, true], &[true, false, false]);
        check(&[30, 12, 10], &[true, false, false], &[true, false, false]);
        check(&[30, 40], &[true, true], &[true, true]);
        check(&[5], &[false], &[false]);
    }

    #[test]
    fn sums_keep_what_adding_loses() {
        let mut column = ColumnCounts::default();
        [1.0, 1e100, 1.0, -1e100].iter().for_each(|value| column.add(*value));
        assert_eq!(column.total(), 2.0);
        column.add(f64::INFINITY);
        assert_eq!(column.total(), f64::INFINITY);
    }
}
