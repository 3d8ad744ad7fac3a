//! Writes a table whose values are known by formula, for `tests/conformance/tables/readers.py`, which has the same formulas.
//!
//! `cargo run -p mainstay-tables --example write_known -- FOLDER`; the folder must not exist.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use mainstay_store::{Store, StoreOptions};
use mainstay_tables::{ColumnSpec, Kind, TableSpec, Tables, TablesOptions};

const ROWS: i64 = 10_000;
/// From this row on there is one more column.
const GROWN_AT: i64 = 6_000;

fn rows(from: i64, until: i64) -> RecordBatch {
    let all = || from..until;
    // Not in the order of time: compaction sorts.
    let at = all().map(|row| 1_750_000_000_000_000 + (row * 7_919 % ROWS) * 33_000_000);
    let reals = all().map(|row| match row {
        row if row % 3 == 0 => None,
        row if row % 11 == 0 => Some(f64::NAN),
        row => Some(row as f64 / 7.0),
    });
    let texts = all().map(|row| (row % 4 != 0).then(|| format!("käse {}", row % 5)));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("at", Arc::new(Int64Array::from_iter_values(at))),
        ("row", Arc::new(Int64Array::from_iter_values(all()))),
        ("real", Arc::new(Float64Array::from_iter(reals))),
        ("single", Arc::new(Float32Array::from_iter_values(all().map(|row| row as f32 / 3.0)))),
        ("small", Arc::new(Int32Array::from_iter(all().map(|row| (row % 9 != 0).then_some(row as i32 % 9 - 4))))),
        ("is", Arc::new(BooleanArray::from_iter(all().map(|row| (row % 5 != 0).then_some(row % 2 == 0))))),
        ("text", Arc::new(StringArray::from_iter(texts))),
    ];
    if from >= GROWN_AT {
        columns.push(("later", Arc::new(Int64Array::from_iter_values(all().map(|row| row * row)))));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).expect("a folder that does not exist"));
    let store = Store::open(StoreOptions::new(folder.join("store"))).expect("the store opens");
    let tables = Tables::open(store, TablesOptions::new(folder.join("tables"))).expect("the tables open");
    let mut columns = vec![
        ColumnSpec::new("at", Kind::Timestamp),
        ColumnSpec::new("row", Kind::I64),
        ColumnSpec::new("real", Kind::F64).nullable(),
        ColumnSpec::new("single", Kind::F32),
        ColumnSpec::new("small", Kind::I32).nullable(),
        ColumnSpec::new("is", Kind::Bool).nullable(),
        ColumnSpec::new("text", Kind::Text).nullable(),
    ];
    let table = tables.create("known", &TableSpec::new("at", columns.clone())).expect("the table is made");
    for from in (0..ROWS).step_by(500) {
        if from == GROWN_AT {
            columns.push(ColumnSpec::new("later", Kind::I64).nullable());
            table.grow(&columns).expect("the table grows");
        }
        table.append_blocking(&rows(from, from + 500), None).expect("the rows are appended");
        table.compact(0).expect("the table is compacted");
    }
    println!("{:?}", table.stats().expect("readable"));
}
