//! As-of joins: to each row what was known of its key at its time.
//!
//! Owns [`as_of`], which finds for every row of one frame the latest row of a history with the same key and no later time,
//! and [`Matches`], by which columns of the history are brought beside the rows. It is what point-in-time correct features
//! need: nothing from the future of a row reaches it, and nothing older than its time to live. Separate from element-wise
//! operations because here rows of two frames meet.
//!
//! How: keys become numbers ([`keys`]). Where both sides are in the order of time, as logs are, they are gone through side by
//! side. Else they are brought together by key with a counting sort, and each row finds its place among its key's times by
//! halving; histories that arrive in the order of time are not sorted at all.
//! Where rows may only see what was already recorded at their time, each key's rows and records are swept in the order of
//! time instead. Either way the cost is that of sorting at worst: n log n.
//!
//! Bounded by: [`ROWS_MAX`] rows a side; scratch of 24 bytes a row. On failure: `invalid` names the side, the column and the
//! row.

mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;

use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use mainstay_base::{Error, Result};

use crate::column::Column;
use crate::types::ValueType;
use crate::view::{Chunk, Numbers};

/// Rows of each side.
pub const ROWS_MAX: usize = u32::MAX as usize - 1;
/// Stands for no row.
const NONE: u32 = u32::MAX;

/// Rows with keys and times: one of the two sides.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// What must be equal, column by column: whole numbers or text. A missing key equals nothing.
    pub keys: &'a [Column],
    /// 64-bit whole numbers, of the same unit on both sides; none may be missing.
    pub times: &'a Column,
}

/// Which row of the history belongs to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How old it may be, in the unit of the times; nothing: of any age.
    pub time_to_live: Option<u64>,
    /// Whether one of the very same time belongs to it.
    pub is_time_included: bool,
    /// Whether one that is exactly as old as may be belongs to it.
    pub is_oldest_included: bool,
    /// Whether it must also have been recorded by then.
    pub must_be_recorded: bool,
}

impl Default for Rule {
    /// Of any age, the same time included, whenever it was recorded.
    fn default() -> Rule {
        Rule { time_to_live: None, is_time_included: true, is_oldest_included: true, must_be_recorded: false }
    }
}

impl Rule {
    /// The latest time that may be seen from `at`; nothing where there is none.
    fn newest(&self, at: i64) -> Option<i64> {
        if self.is_time_included { Some(at) } else { at.checked_sub(1) }
    }

    fn is_too_old(&self, time: i64, at: i64) -> bool {
        // Two 64-bit times may be further apart than 63 bits can say.
        let age = at.abs_diff(time);
        self.time_to_live.is_some_and(|most| if self.is_oldest_included { age > most } else { age >= most })
    }
}

/// For each row of one side its row of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    rows: Vec<u32>,
    history_rows: usize,
}

impl Matches {
    /// These rows of a frame with so many, in this order; for taking rows apart from a join.
    pub fn of_rows(rows: Vec<u32>, history_rows: usize) -> Matches {
        Matches { rows, history_rows }
    }

    /// In order; nothing where no row belongs.
    pub fn iter(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        self.rows.iter().map(|row| (*row != NONE).then_some(*row as usize))
    }

    /// How many rows found one.
    pub fn found(&self) -> usize {
        self.rows.iter().filter(|row| **row != NONE).count()
    }

    /// A column of the history, brought beside the rows; missing where no row belongs. `invalid` when the column has not as
    /// many rows as the history had.
    pub fn take(&self, column: &Column) -> Result<Column> {
        if column.len() != self.history_rows {
            let (given, rows) = (column.len(), self.history_rows);
            return Err(Error::invalid(format!("a column of {given} rows of a history of {rows}")));
        }
        let chunks: Vec<&dyn Array> = column.arrow().iter().map(|chunk| &**chunk).collect();
        let whole = match column.arrow() {
            [] => return Ok(nothing(column.value_type(), self.rows.len())),
            [only] => only.clone(),
            _ => arrow_select::concat::concat(&chunks).map_err(|error| Error::invalid(error.to_string()))?,
        };
        if whole.is_empty() {
            return Ok(nothing(column.value_type(), self.rows.len()));
        }
        let taken = arrow_select::take::take(&whole, &self.places(), None);
        Column::from_arrow(column.value_type(), vec![taken.map_err(|error| Error::invalid(error.to_string()))?])
    }

    /// As Arrow wants them: a number and a bit.
    fn places(&self) -> UInt32Array {
        let is_all = !self.rows.contains(&NONE);
        let validity = (!is_all).then(|| NullBuffer::from_iter(self.rows.iter().map(|row| *row != NONE)));
        let places: Vec<u32> = self.rows.iter().map(|row| if *row == NONE { 0 } else { *row }).collect();
        UInt32Array::new(ScalarBuffer::from(places), validity)
    }
}

/// So many missing values.
fn nothing(value_type: ValueType, count: usize) -> Column {
    let chunk: ArrayRef = arrow_array::new_null_array(&value_type.arrow(), count);
    Column::from_arrow(value_type, vec![chunk]).expect("Arrow's own array is sound")
}

/// Find for each row the latest row of the history that the rule allows: of several of one time the one that was recorded
/// last, of those the one that stands last. `recorded` has a time for each row of the history; a missing one is before all.
pub fn as_of(rows: &Side<'_>, history: &Side<'_>, recorded: Option<&Column>, rule: &Rule) -> Result<Matches> {
    let row_times = times("the rows", rows)?;
    let history_times = times("the history", history)?;
    let recorded = recorded.map(|column| recorded_times(column, history_times.len())).transpose()?;
    if rule.must_be_recorded && recorded.is_none() {
        return Err(Error::invalid(
            "the history has no column that says when its rows were recorded, and the rule asks",
        ));
    }
    let keys::Numbered { rows: row_keys, history: history_keys, count } = keys::number(rows, history)?;
    if recorded.is_none() && row_times.is_sorted() && history_times.is_sorted() {
        let found = walk((&row_keys, &row_times), (&history_keys, &history_times), count, rule);
        return Ok(Matches { rows: found, history_rows: history_times.len() });
    }
    let past = Grouped::new(&history_keys, count);
    let present = Grouped::new(&row_keys, count);
    let mut found = vec![NONE; row_times.len()];
    let mut group = Group::default();
    for key in 0..count {
        let (asking, known) = (present.of(key), past.of(key));
        if asking.is_empty() || known.is_empty() {
            continue;
        }
        group.fill(known, &history_times, recorded.as_deref());
        match rule.must_be_recorded {
            false => group.look_up(asking, &row_times, rule, &mut found),
            true => group.sweep(asking, &row_times, rule, &mut found),
        }
    }
    Ok(Matches { rows: found, history_rows: history_times.len() })
}

/// Both sides are in the order of time: go through them side by side, and remember the last row of each key.
fn walk(rows: (&[u32], &[i64]), history: (&[u32], &[i64]), count: usize, rule: &Rule) -> Vec<u32> {
    let mut last = vec![NONE; count];
    let mut behind = 0;
    let find = |(key, at): (&u32, &i64)| {
        let newest = rule.newest(*at)?;
        while history.1.get(behind).is_some_and(|time| *time <= newest) {
            if let Some(last) = last.get_mut(history.0[behind] as usize) {
                *last = behind as u32;
            }
            behind += 1;
        }
        let known = *last.get(*key as usize)?;
        let time = history.1.get(known as usize)?;
        (!rule.is_too_old(*time, *at)).then_some(known)
    };
    rows.0.iter().zip(rows.1).map(find).map(|found| found.unwrap_or(NONE)).collect()
}

/// Rows by their key: a counting sort, which keeps their order.
struct Grouped {
    /// By key, where its rows begin; one more at the end.
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl Grouped {
    fn new(keys: &[u32], count: usize) -> Grouped {
        let mut starts = vec![0_u32; count + 1];
        keys.iter().filter(|key| **key != NONE).for_each(|key| starts[*key as usize + 1] += 1);
        (0..count).for_each(|key| starts[key + 1] += starts[key]);
        let mut next = starts.clone();
        let mut order = vec![0_u32; starts[count] as usize];
        for (row, key) in keys.iter().enumerate().filter(|(_, key)| **key != NONE) {
            let place = &mut next[*key as usize];
            order[*place as usize] = row as u32;
            *place += 1;
        }
        Grouped { starts, order }
    }

    fn of(&self, key: usize) -> &[u32] {
        &self.order[self.starts[key] as usize..self.starts[key + 1] as usize]
    }
}

/// What is known of one key, in the order of time, then of record, then of place.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    /// Theirs alone: halving goes through less memory.
    times: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    time: i64,
    recorded: i64,
    row: u32,
}

impl Group {
    fn fill(&mut self, rows: &[u32], times: &[i64], recorded: Option<&[i64]>) {
        let entry = |row: &u32| {
            let at = *row as usize;
            Entry { time: times[at], recorded: recorded.map_or(i64::MIN, |recorded| recorded[at]), row: *row }
        };
        self.entries.clear();
        self.entries.extend(rows.iter().map(entry));
        if !self.entries.is_sorted() {
            self.entries.sort_unstable();
        }
        self.times.clear();
        self.times.extend(self.entries.iter().map(|entry| entry.time));
    }

    fn look_up(&self, asking: &[u32], times: &[i64], rule: &Rule, found: &mut [u32]) {
        for row in asking {
            let at = times[*row as usize];
            let Some(newest) = rule.newest(at) else { continue };
            let behind = self.times.partition_point(|time| *time <= newest);
            if let Some(entry) = behind.checked_sub(1).map(|before| self.entries[before])
                && !rule.is_too_old(entry.time, at)
            {
                found[*row as usize] = entry.row;
            }
        }
    }

    /// With what had been recorded by each row's time: entries come in as time goes on.
    fn sweep(&self, asking: &[u32], times: &[i64], rule: &Rule, found: &mut [u32]) {
        let mut asking = asking.to_vec();
        asking.sort_unstable_by_key(|row| times[*row as usize]);
        let mut coming = self.entries.clone();
        coming.sort_unstable_by_key(|entry| entry.recorded);
        let (mut coming, mut known) = (coming.into_iter().peekable(), BTreeSet::new());
        for row in asking {
            let at = times[row as usize];
            while let Some(entry) = coming.next_if(|entry| entry.recorded <= at) {
                known.insert(entry);
            }
            let Some(newest) = rule.newest(at) else { continue };
            let last = Entry { time: newest, recorded: i64::MAX, row: NONE };
            if let Some(entry) = known.range((Bound::Unbounded, Bound::Included(last))).next_back()
                && !rule.is_too_old(entry.time, at)
            {
                found[row as usize] = entry.row;
            }
        }
    }
}

fn times<'a>(name: &str, side: &Side<'a>) -> Result<std::borrow::Cow<'a, [i64]>> {
    let count = side.times.len();
    if count > ROWS_MAX {
        return Err(Error::invalid(format!("{name} are {count}; at most {ROWS_MAX} can be joined at a time")));
    }
    if let Some(at) = side.keys.iter().position(|key| key.len() != count) {
        let keys = side.keys[at].len();
        return Err(Error::invalid(format!("{name} have {count} times and {keys} values in key {at}; one each")));
    }
    let chunks = whole_numbers(&format!("the times of {name}"), side.times)?;
    let mut before = 0;
    for chunk in &chunks {
        if let Some(missing) = chunk.validity.and_then(|validity| validity.iter().position(|is_there| !is_there)) {
            return Err(Error::invalid(format!(
                "{name} have no time at row {}; give one or leave the row out",
                before + missing
            )));
        }
        before += chunk.values.len();
    }
    Ok(match chunks.as_slice() {
        [only] => only.values.into(),
        _ => chunks.iter().flat_map(|chunk| chunk.values).copied().collect::<Vec<i64>>().into(),
    })
}

fn recorded_times(column: &Column, rows: usize) -> Result<Vec<i64>> {
    if column.len() != rows {
        let given = column.len();
        return Err(Error::invalid(format!("the history has {rows} rows and {given} times of record; one each")));
    }
    let chunks = whole_numbers("the times of record", column)?;
    let read = |chunk: &Chunk<'_, i64>| -> Vec<i64> {
        let is_there = |at: usize| chunk.validity.is_none_or(|validity| validity.is_valid(at));
        let values = chunk.values.iter().enumerate();
        values.map(|(at, value)| if is_there(at) { *value } else { i64::MIN }).collect()
    };
    Ok(chunks.iter().flat_map(read).collect())
}

fn whole_numbers<'a>(what: &str, column: &'a Column) -> Result<Vec<Chunk<'a, i64>>> {
    match (column.value_type(), column.numbers()) {
        (ValueType::I64, Ok(Numbers::I64(chunks))) => Ok(chunks),
        (other, _) => Err(Error::invalid(format!("{what} are a column of {other}; cast it to {}", ValueType::I64))),
    }
}
