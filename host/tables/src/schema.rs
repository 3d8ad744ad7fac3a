//! What a table is: its columns, which of them is its time, how long rows are kept.
//!
//! Owns [`TableSpec`], its checks, and its growth: columns are only ever added, and each remembers the version of the
//! schema that brought it, so that rows which were written before are read with that column missing. Separate because
//! appending, compaction, scans and SQL all derive their Arrow schemas from here.
//!
//! Bounded by [`crate::limits`]. On failure: `invalid` or `conflict` names the column and what was wanted.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::limits::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, TABLE_NAME_BYTES_MAX};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// True or false.
    Bool,
    /// Strings.
    Text,
    /// Microseconds since 1970-01-01 UTC.
    Timestamp,
}

impl Kind {
    /// Its name in contracts and messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::F64 => "f64",
            Kind::F32 => "f32",
            Kind::I64 => "i64",
            Kind::I32 => "i32",
            Kind::Bool => "bool",
            Kind::Text => "text",
            Kind::Timestamp => "timestamp",
        }
    }

    /// The type of Arrow that its values are kept in.
    pub fn arrow(self) -> DataType {
        match self {
            Kind::F64 => DataType::Float64,
            Kind::F32 => DataType::Float32,
            Kind::I64 => DataType::Int64,
            Kind::I32 => DataType::Int32,
            Kind::Bool => DataType::Boolean,
            Kind::Text => DataType::Utf8,
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// What is done with a column because its values are about persons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// Kept only as a keyed hash, so that equal values are still equal. Text only.
    Hash,
    /// Accepted and thrown away.
    Drop,
    /// Kept, and shown only to who has the right to restricted columns.
    Restrict,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Its name: 1 to 256 bytes without control characters.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether values may be missing.
    #[serde(default)]
    pub nullable: bool,
    /// What is done with it because it is about persons.
    #[serde(default)]
    pub mark: Mark,
    /// The version of the schema that brought it.
    #[serde(default)]
    pub(crate) since: u32,
}

impl ColumnSpec {
    /// A column whose values are all there, without a mark.
    pub fn new(name: impl Into<String>, kind: Kind) -> ColumnSpec {
        ColumnSpec { name: name.into(), kind, nullable: false, mark: Mark::None, since: 0 }
    }

    /// The same, with values that may be missing.
    pub fn nullable(self) -> ColumnSpec {
        ColumnSpec { nullable: true, ..self }
    }

    /// The same, with this mark.
    pub fn marked(self, mark: Mark) -> ColumnSpec {
        ColumnSpec { mark, ..self }
    }

    fn is_the_same(&self, other: &ColumnSpec) -> bool {
        self.kind == other.kind && self.nullable == other.nullable && self.mark == other.mark
    }
}

/// The span of time whose rows lie in files of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partition {
    /// A day, UTC.
    #[default]
    Day,
    /// An hour, UTC.
    Hour,
}

impl Partition {
    fn length_us(self) -> i64 {
        match self {
            Partition::Day => 86_400_000_000,
            Partition::Hour => 3_600_000_000,
        }
    }

    /// The number of the partition that holds this time.
    pub(crate) fn of(self, time_us: i64) -> i64 {
        time_us.div_euclid(self.length_us())
    }

    /// The first time behind a partition.
    pub(crate) fn end_us(self, number: i64) -> i64 {
        (number + 1) * self.length_us()
    }

    /// The partition as it stands in names of files.
    pub(crate) fn label(self, number: i64) -> String {
        let start = jiff::Timestamp::from_microsecond(number * self.length_us());
        let format = if self == Partition::Day { "%Y-%m-%d" } else { "%Y-%m-%dT%H" };
        start.map_or_else(|_| format!("{number}"), |start| start.strftime(format).to_string())
    }
}

/// When rows may go. They go by whole files, so some stay longer; none goes earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retention {
    /// Milliseconds behind their time; none: for ever.
    #[serde(default)]
    pub age_ms: Option<i64>,
    /// Bytes of files, beyond which those with the oldest rows go; none: as many as there are.
    #[serde(default)]
    pub bytes: Option<u64>,
}

impl Retention {
    fn check(&self) -> Result<()> {
        if self.age_ms.is_some_and(|age| age <= 0) || self.bytes == Some(0) {
            return Err(Error::invalid(
                "a retention of no time or of no bytes at all; give more, or none to keep every row",
            ));
        }
        Ok(())
    }
}

/// What a table is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Its columns, in order.
    pub columns: Vec<ColumnSpec>,
    /// The column that is its time: a timestamp, never missing.
    pub time: String,
    /// Which rows share files.
    #[serde(default)]
    pub partition: Partition,
    /// How long rows are kept, and how many.
    #[serde(default)]
    pub retention: Retention,
    /// Grows with every change of the columns.
    #[serde(default)]
    pub(crate) version: u32,
}

impl TableSpec {
    /// A table of these columns, partitioned by day, kept for ever.
    pub fn new(time: impl Into<String>, columns: Vec<ColumnSpec>) -> TableSpec {
        let (partition, retention) = (Partition::Day, Retention::default());
        TableSpec { columns, time: time.into(), partition, retention, version: 0 }
    }

    /// The same, with files of such spans of time.
    pub fn partitioned(self, partition: Partition) -> TableSpec {
        TableSpec { partition, ..self }
    }

    /// The same, with rows kept for so many milliseconds behind their time.
    pub fn kept_for(self, age_ms: i64) -> TableSpec {
        TableSpec { retention: Retention { age_ms: Some(age_ms), ..self.retention }, ..self }
    }

    /// The same, with the oldest rows dropped beyond so many bytes of files.
    pub fn kept_within(self, bytes: u64) -> TableSpec {
        TableSpec { retention: Retention { bytes: Some(bytes), ..self.retention }, ..self }
    }

    /// The same columns with another retention.
    pub(crate) fn keeping(&self, retention: Retention) -> Result<TableSpec> {
        retention.check()?;
        Ok(TableSpec { retention, ..self.clone() })
    }

    /// Refuse what cannot be a table.
    pub(crate) fn check(&self) -> Result<()> {
        if self.columns.len() > COLUMNS_MAX {
            return Err(Error::invalid(format!("{} columns; a table has at most {COLUMNS_MAX}", self.columns.len())));
        }
        let mut names = HashSet::new();
        for column in &self.columns {
            check_column(column)?;
            if !names.insert(column.name.to_lowercase()) {
                return Err(Error::invalid(format!(
                    "two columns are named `{}`, upper and lower case aside; rename one",
                    column.name
                )));
            }
        }
        self.retention.check()?;
        let time = &self.time;
        match self.columns.iter().find(|column| column.name == *time) {
            Some(ColumnSpec { kind: Kind::Timestamp, nullable: false, mark: Mark::None, .. }) => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "the time column `{time}` must be a timestamp that is never missing and has no mark"
            ))),
            None => Err(Error::invalid(format!("no column is named `{time}`, which should be the table's time"))),
        }
    }

    /// This table with the columns that `wanted` has beyond it. `conflict` names what was removed or changed.
    pub(crate) fn grown(&self, wanted: &[ColumnSpec]) -> Result<TableSpec> {
        let mut grown = self.clone();
        for old in &self.columns {
            match wanted.iter().find(|column| column.name == old.name) {
                Some(column) if column.is_the_same(old) => {}
                Some(column) => {
                    return Err(Error::conflict(format!(
                        "column `{}` is {}; it cannot become {}: add a column with another name",
                        old.name,
                        described(old),
                        described(column)
                    )));
                }
                None => {
                    return Err(Error::conflict(format!(
                        "column `{}` would be removed; tables only grow: keep it in the list",
                        old.name
                    )));
                }
            }
        }
        for column in wanted {
            if self.columns.iter().any(|old| old.name == column.name) {
                continue;
            }
            if !column.nullable && column.mark != Mark::Drop {
                return Err(Error::invalid(format!(
                    "the new column `{}` must be nullable: the rows that are there have no value for it",
                    column.name
                )));
            }
            grown.columns.push(ColumnSpec { since: self.version + 1, ..column.clone() });
        }
        if grown.columns.len() > self.columns.len() {
            grown.version += 1;
        }
        grown.check()?;
        Ok(grown)
    }

    /// Whether somebody who asks for `other` means this table.
    pub(crate) fn is_asked_for_by(&self, other: &TableSpec) -> bool {
        let pairs = self.columns.iter().zip(&other.columns);
        self.columns.len() == other.columns.len()
            && pairs.into_iter().all(|(own, asked)| own.name == asked.name && own.is_the_same(asked))
            && (&self.time, self.partition, self.retention) == (&other.time, other.partition, other.retention)
    }

    /// Columns that are on disk in rows of this version.
    pub(crate) fn stored(&self, version: u32) -> impl Iterator<Item = &ColumnSpec> {
        self.columns.iter().filter(move |column| column.mark != Mark::Drop && column.since <= version)
    }

    /// Arrow's schema of rows of this version.
    pub(crate) fn arrow(&self, version: u32) -> SchemaRef {
        let field = |column: &ColumnSpec| Field::new(&column.name, column.kind.arrow(), column.nullable);
        Arc::new(Schema::new(self.stored(version).map(field).collect::<Vec<_>>()))
    }

    /// Arrow's schema of the newest rows.
    pub(crate) fn newest(&self) -> SchemaRef {
        self.arrow(self.version)
    }
}

fn described(column: &ColumnSpec) -> String {
    let mark = match column.mark {
        Mark::None => "",
        Mark::Hash => ", marked hash",
        Mark::Drop => ", marked drop",
        Mark::Restrict => ", marked restrict",
    };
    format!("{}{}{mark}", column.kind.name(), if column.nullable { ", nullable" } else { "" })
}

fn check_column(column: &ColumnSpec) -> Result<()> {
    let ColumnSpec { name, kind, mark, .. } = column;
    if name.is_empty() || name.len() > COLUMN_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "`{}` cannot name a column: 1 to {COLUMN_NAME_BYTES_MAX} bytes without control characters",
            name.escape_debug()
        )));
    }
    if *mark == Mark::Hash && *kind != Kind::Text {
        return Err(Error::invalid(format!("column `{name}` is {} and marked hash; only text is hashed", kind.name())));
    }
    Ok(())
}

/// Refuse what cannot name a table.
pub(crate) fn check_table_name(name: &str) -> Result<()> {
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    let fits = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if starts && fits && name.len() <= TABLE_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` cannot name a table: a lower-case letter, then letters, digits and `_`, {TABLE_NAME_BYTES_MAX} at most",
        name.escape_debug()
    )))
}

/// How a scan lays texts out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextForm {
    /// One after the other, as rows are appended.
    #[default]
    Plain,
    /// As views: short texts in place, long ones where they were decoded. Quicker to group and to compare.
    Views,
}

impl TextForm {
    /// The schema with texts of this form.
    pub(crate) fn of(self, schema: &SchemaRef) -> SchemaRef {
        let field = |field: &FieldRef| match (self, field.data_type()) {
            (TextForm::Views, DataType::Utf8) => Arc::new(Field::clone(field).with_data_type(DataType::Utf8View)),
            _ => field.clone(),
        };
        match self {
            TextForm::Plain => schema.clone(),
            TextForm::Views => Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())),
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ErrorKind;

    use super::*;

    fn spec() -> TableSpec {
        let columns = vec![
            ColumnSpec::new("at", Kind::Timestamp),
            ColumnSpec::new("x", Kind::F64).nullable(),
            ColumnSpec::new("who", Kind::Text).marked(Mark::Hash),
        ];
        TableSpec::new("at", columns)
    }

    #[test]
    fn what_cannot_be_a_table_is_refused_by_name() {
        fn check(change: impl FnOnce(&mut TableSpec), expect: &str) {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.check().unwrap_err();
            assert!(error.message().contains(expect), "{error}");
        }
        spec().check().unwrap();
        check(|spec| spec.time = "when".into(), "no column is named `when`");
        check(|spec| spec.time = "x".into(), "the time column `x` must be a timestamp");
        check(|spec| spec.columns[0].nullable = true, "never missing");
        check(|spec| spec.columns[1].name = "AT".into(), "two columns are named `AT`");
        check(|spec| spec.columns[1].name = "a\nb".into(), "`a\\nb` cannot name a column");
        let named = |bytes: usize| move |spec: &mut TableSpec| spec.columns[1].name = "n".repeat(bytes);
        let mut longest = spec();
        named(COLUMN_NAME_BYTES_MAX)(&mut longest);
        longest.check().unwrap();
        check(named(COLUMN_NAME_BYTES_MAX + 1), "1 to 256 bytes");
        check(|spec| spec.columns[1].name.clear(), "1 to 256 bytes");
        check(|spec| spec.columns[1].mark = Mark::Hash, "column `x` is f64 and marked hash");
        check(|spec| spec.retention.age_ms = Some(0), "a retention of no time");
        check(|spec| spec.retention.bytes = Some(0), "or of no bytes");
        let many = |count: usize| {
            move |spec: &mut TableSpec| {
                spec.columns.extend((3..count).map(|at| ColumnSpec::new(format!("c{at}"), Kind::F32)));
            }
        };
        let mut full = spec();
        many(COLUMNS_MAX)(&mut full);
        full.check().unwrap();
        check(many(COLUMNS_MAX + 1), "1001 columns; a table has at most 1000");
    }

    #[test]
    fn names_of_tables_are_short_and_plain() {
        check_table_name(&"t".repeat(TABLE_NAME_BYTES_MAX)).unwrap();
        for name in ["", "T", "1t", "_t", "a/b", "a-b", "ä", "../t", &"t".repeat(TABLE_NAME_BYTES_MAX + 1)] {
            assert_eq!(check_table_name(name).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
    }

    #[test]
    fn tables_only_grow() {
        fn check(change: impl FnOnce(&mut Vec<ColumnSpec>), expect: &str) {
            let mut columns = spec().columns;
            change(&mut columns);
            let error = spec().grown(&columns).unwrap_err();
            assert!(error.message().contains(expect), "{error}");
        }
        check(|columns| drop(columns.remove(1)), "column `x` would be removed");
        check(|columns| columns[1].kind = Kind::F32, "column `x` is f64, nullable; it cannot become f32, nullable");
        check(|columns| columns[2].mark = Mark::None, "`who` is text, marked hash; it cannot become text");
        check(|columns| columns.push(ColumnSpec::new("y", Kind::I32)), "new column `y` must be nullable");
        let mut columns = spec().columns;
        assert_eq!(spec().grown(&columns).unwrap(), spec());
        columns.push(ColumnSpec::new("y", Kind::I32).nullable());
        let grown = spec().grown(&columns).unwrap();
        assert_eq!((grown.version, grown.arrow(0).fields().len(), grown.newest().fields().len()), (1, 3, 4));
    }

    #[test]
    fn partitions_are_calendar_days_and_hours() {
        fn check(partition: Partition, time_us: i64, expect: &str) {
            let number = partition.of(time_us);
            assert_eq!(partition.label(number), expect);
            assert!(time_us < partition.end_us(number));
        }
        // 2026-02-28T23:59:59.999999Z and the microsecond behind it, by `date -u -d @1772323200`.
        check(Partition::Day, 1_772_323_199_999_999, "2026-02-28");
        check(Partition::Day, 1_772_323_200_000_000, "2026-03-01");
        check(Partition::Hour, 1_772_323_199_999_999, "2026-02-28T23");
        check(Partition::Day, -1, "1969-12-31");
    }
}
