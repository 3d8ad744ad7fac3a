//! A table whose rows are numbered, and short ways to fill and read it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use mainstay_base::{Disk, Result, SimDisk};
use mainstay_log::LogOptions;
use mainstay_store::{EngineKind, Store, StoreOptions};
use mainstay_tables::{ColumnSpec, Kind, Missing, ScanOptions, Table, TableSpec, Tables, TablesOptions, Window};

pub const DAY_US: i64 = 86_400_000_000;
pub const HOUR_US: i64 = 3_600_000_000;

/// One row. Its number is its own, so that a lost or doubled row shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub number: i64,
    pub at_us: i64,
    /// Bits of a real.
    pub x: Option<u64>,
    pub who: Option<String>,
    /// A column that the table does not have at first.
    pub extra: Option<i32>,
}

impl Row {
    pub fn new(number: i64, at_us: i64) -> Row {
        let x = (number % 3 != 0).then(|| (number as f64 / 7.0).to_bits());
        let who = (number % 4 != 0).then(|| format!("who {}", number % 5));
        Row { number, at_us, x, who, extra: None }
    }
}

pub fn spec() -> TableSpec {
    TableSpec::new(
        "at",
        vec![
            ColumnSpec::new("at", Kind::Timestamp),
            ColumnSpec::new("number", Kind::I64),
            ColumnSpec::new("x", Kind::F64).nullable(),
            ColumnSpec::new("who", Kind::Text).nullable(),
        ],
    )
}

/// The same with one more column.
pub fn grown() -> Vec<ColumnSpec> {
    let mut columns = spec().columns;
    columns.push(ColumnSpec::new("extra", Kind::I32).nullable());
    columns
}

/// Rows as they are appended; the column `extra` only where a row has it.
pub fn batch(rows: &[Row]) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("number", Arc::new(rows.iter().map(|row| Some(row.number)).collect::<Int64Array>()), true),
        ("at", Arc::new(rows.iter().map(|row| Some(row.at_us)).collect::<Int64Array>()), true),
        ("x", Arc::new(rows.iter().map(|row| row.x.map(f64::from_bits)).collect::<Float64Array>()), true),
        ("who", Arc::new(rows.iter().map(|row| row.who.as_deref()).collect::<StringArray>()), true),
    ];
    if rows.iter().any(|row| row.extra.is_some()) {
        columns.push(("extra", Arc::new(rows.iter().map(|row| row.extra).collect::<Int32Array>()), true));
    }
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Rows out of what a scan gave, in its order.
pub fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let times = column("at").as_primitive::<TimestampMicrosecondType>();
    let numbers = column("number").as_primitive::<Int64Type>();
    let reals = column("x").as_primitive::<Float64Type>();
    let texts = column("who").as_string::<i32>();
    let extras = batch.column_by_name("extra").map(|array| array.as_primitive::<Int32Type>());
    let row = |at: usize| Row {
        number: numbers.value(at),
        at_us: times.value(at),
        x: reals.is_valid(at).then(|| reals.value(at).to_bits()),
        who: texts.is_valid(at).then(|| texts.value(at).to_owned()),
        extra: extras.and_then(|extras| extras.is_valid(at).then(|| extras.value(at))),
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Every row of a window by number, and what is missing.
pub fn read(table: &Table, window: Window) -> Result<(Vec<Row>, Vec<Missing>)> {
    let mut scan = table.scan(&ScanOptions { window, ..ScanOptions::default() })?;
    let mut rows = Vec::new();
    for chunk in scan.by_ref() {
        rows.extend(rows_of(chunk?.rows()));
    }
    rows.sort();
    Ok((rows, scan.missing()))
}

/// Every row, none missing.
pub fn all(table: &Table) -> Vec<Row> {
    let (rows, missing) = read(table, Window::default()).unwrap();
    assert_eq!(missing, []);
    rows
}

pub fn store_options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        folder: Some(PathBuf::from("data/store")),
        engine: EngineKind::Memory,
        disk: Arc::new(disk.clone()),
        log: LogOptions { segment_bytes: 100_000, allocate_bytes: 50_000, ..LogOptions::default() },
        apply_interval: Duration::from_secs(3600),
        ..StoreOptions::default()
    }
}

pub fn tables_options(disk: &SimDisk) -> TablesOptions {
    TablesOptions { disk: Arc::new(disk.clone()), query_threads: 2, ..TablesOptions::new("data/tables") }
}

pub fn open(disk: &SimDisk) -> Result<Tables> {
    Tables::open(Store::open(store_options(disk))?, tables_options(disk))
}

/// Tables on a disk of their own, with one empty table `t`.
pub fn fresh() -> (SimDisk, Tables, Table) {
    let disk = SimDisk::new();
    let tables = open(&disk).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    (disk, tables, table)
}

/// Paths of a table's files.
pub fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let listed = disk.list("data/tables/t".as_ref()).unwrap();
    listed.into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect()
}
