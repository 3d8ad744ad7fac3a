//! Columnar history: append-only tables, their windows as frames, and joins as of a time.
//!
//! Owns [`Schema`], [`create`], [`window`] and [`AsOf`]; appending is part of a transaction
//! ([`Transaction::append_rows`](crate::Transaction::append_rows)). Needs the capabilities `tables.append`, and `tables.read` or
//! `tables.aggregate`: with the latter alone the call is guarded from its first window on. Bounded by: the limits in the
//! contract. On failure: the host's typed error.

use crate::columns::Frame;
use crate::{Result, sys};

pub use crate::sys::bindings::mainstay::data::tables::{ColumnInfo, Kind, Mark};

/// What a table is to be.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(crate) time: String,
    pub(crate) columns: Vec<ColumnInfo>,
    pub(crate) keep_days: Option<u32>,
}

impl Schema {
    /// A table whose time is this column, which comes first and is always there.
    pub fn new(time: impl Into<String>) -> Schema {
        Schema { time: time.into(), columns: Vec::new(), keep_days: None }
    }

    /// One more column, whose values are always there.
    #[must_use]
    pub fn column(self, name: impl Into<String>, kind: Kind) -> Schema {
        self.with(name.into(), kind, false, Mark::Plain)
    }

    /// One more column, whose values may be missing.
    #[must_use]
    pub fn nullable(self, name: impl Into<String>, kind: Kind) -> Schema {
        self.with(name.into(), kind, true, Mark::Plain)
    }

    /// One more column about persons, whose values may be missing.
    #[must_use]
    pub fn marked(self, name: impl Into<String>, kind: Kind, mark: Mark) -> Schema {
        self.with(name.into(), kind, true, mark)
    }

    /// With rows kept for so many days; for ever unless said.
    #[must_use]
    pub fn keep_days(mut self, days: u32) -> Schema {
        self.keep_days = Some(days);
        self
    }

    fn with(mut self, name: String, kind: Kind, nullable: bool, mark: Mark) -> Schema {
        self.columns.push(ColumnInfo { name, kind, nullable, mark });
        self
    }
}

/// Make a table of this plugin's, or add the columns that it lacks.
pub fn create(table: &str, schema: &Schema) -> Result<()> {
    sys::create_table(table, schema)
}

/// A table's columns, by the name that others know it by; none when there is no such table.
pub fn describe(table: &str) -> Result<Option<Vec<ColumnInfo>>> {
    sys::describe_table(table)
}

/// Rows whose time is at or after `from_us` and before `to_us` (microseconds since 1970-01-01 UTC), in order of time: these
/// columns, or all that may be seen when none is named.
pub fn window(table: &str, columns: &[&str], from_us: i64, to_us: i64) -> Result<Frame> {
    Ok(Frame(sys::table_window(table, columns, from_us, to_us)?))
}

/// A join of rows with the newest that was known at their time.
#[derive(Clone, Debug)]
pub struct AsOf {
    pub(crate) keys: Vec<String>,
    pub(crate) left_time: String,
    pub(crate) right_time: String,
    pub(crate) max_age: Option<u64>,
    pub(crate) takes_same_time: bool,
    pub(crate) takes_oldest: bool,
    pub(crate) recorded: Option<(String, bool)>,
}

impl AsOf {
    /// Rows are matched where these columns of both sides are equal; `left_time` and `right_time` are their times.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k str>, left_time: &str, right_time: &str) -> AsOf {
        AsOf {
            keys: keys.into_iter().map(str::to_owned).collect(),
            left_time: left_time.to_owned(),
            right_time: right_time.to_owned(),
            max_age: None,
            takes_same_time: true,
            takes_oldest: true,
            recorded: None,
        }
    }

    /// How much older the row of the right may be.
    #[must_use]
    pub fn max_age(mut self, age: u64) -> AsOf {
        self.max_age = Some(age);
        self
    }

    /// Whether a row of the very same time is taken, and one that is exactly as old as it may be.
    #[must_use]
    pub fn bounds(mut self, takes_same_time: bool, takes_oldest: bool) -> AsOf {
        (self.takes_same_time, self.takes_oldest) = (takes_same_time, takes_oldest);
        self
    }

    /// The right's column that says when its rows were recorded; with `by_then`, only rows recorded by the left's time are taken.
    #[must_use]
    pub fn recorded(mut self, column: &str, by_then: bool) -> AsOf {
        self.recorded = Some((column.to_owned(), by_then));
        self
    }

    /// For each row of the left, in its order: its columns, then the right's but for keys and time.
    pub fn join(&self, left: &Frame, right: &Frame) -> Result<Frame> {
        Ok(Frame(sys::join_as_of(self, &left.0, &right.0)?))
    }
}
