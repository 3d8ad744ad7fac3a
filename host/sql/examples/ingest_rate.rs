//! Measures durable appends of rows with 30 columns while compaction runs, and then scans and SQL over what came of it.
//!
//! `cargo run -p mainstay-sql --example ingest_rate -- FOLDER [ROWS] [ROWS_PER_APPEND] [WRITERS]` prints one JSON object
//! a line. The folder must not exist; the Parquet files stay in it, for `tests/bench/table_scans.py` to read with DuckDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use mainstay_base::{ErrorKind, Random, SeededRandom};
use mainstay_sql::{SqlLimits, query_blocking};
use mainstay_store::{Store, StoreOptions};
use mainstay_tables::{ColumnSpec, Kind, ScanOptions, Table, TableSpec, Tables, TablesOptions};

const REALS: usize = 20;
const SINGLES: usize = 2;
const INTEGERS: usize = 3;

fn spec() -> TableSpec {
    let mut columns = vec![ColumnSpec::new("at", Kind::Timestamp)];
    columns.extend((0..REALS).map(|at| ColumnSpec::new(format!("x{at}"), Kind::F64).nullable()));
    columns.extend((0..SINGLES).map(|at| ColumnSpec::new(format!("s{at}"), Kind::F32).nullable()));
    columns.extend((0..INTEGERS).map(|at| ColumnSpec::new(format!("n{at}"), Kind::I64).nullable()));
    columns.push(ColumnSpec::new("code", Kind::I32).nullable());
    columns.push(ColumnSpec::new("is", Kind::Bool).nullable());
    columns.push(ColumnSpec::new("kind", Kind::Text).nullable());
    columns.push(ColumnSpec::new("tenant", Kind::Text).nullable());
    assert_eq!(columns.len(), 30);
    TableSpec::new("at", columns)
}

/// Rows that look like what models see: reals of full precision, codes that repeat, a few thousand rows a second.
fn rows(random: &SeededRandom, start_us: i64, count: usize) -> RecordBatch {
    use arrow_array::Float32Array;
    let unit = || (random.number() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let times = (0..count as i64).map(|at| start_us + at * 200 + (random.number() % 190) as i64);
    columns.push(("at".into(), Arc::new(Int64Array::from_iter_values(times))));
    for at in 0..REALS {
        columns.push((format!("x{at}"), Arc::new(Float64Array::from_iter_values((0..count).map(|_| unit() * 10.0)))));
    }
    for at in 0..SINGLES {
        columns.push((format!("s{at}"), Arc::new(Float32Array::from_iter_values((0..count).map(|_| unit() as f32)))));
    }
    for at in 0..INTEGERS {
        let most = [50, 10_000, 1 << 40][at];
        let values = (0..count).map(|_| (random.number() % most) as i64);
        columns.push((format!("n{at}"), Arc::new(Int64Array::from_iter_values(values))));
    }
    let codes = (0..count).map(|_| (random.number() % 9) as i32);
    columns.push(("code".into(), Arc::new(Int32Array::from_iter_values(codes))));
    let truths: BooleanArray = (0..count).map(|_| Some(random.number().is_multiple_of(5))).collect();
    columns.push(("is".into(), Arc::new(truths)));
    for (name, most) in [("kind", 6), ("tenant", 300)] {
        let values = (0..count).map(|_| format!("{name}-{}", random.number() % most));
        columns.push((name.into(), Arc::new(StringArray::from_iter_values(values))));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// The same rows at a later time, so that making rows is not what is measured.
fn later(batch: &RecordBatch, start_us: i64) -> RecordBatch {
    let times = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
    let base = times.value(0);
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(Int64Array::from_iter_values(times.values().iter().map(|time| time - base + start_us)));
    RecordBatch::try_new(batch.schema(), columns).expect("the same columns")
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

fn ingest(table: &Table, total: usize, each: usize, writers: usize) {
    let next = AtomicI64::new(0);
    let (began, cpu, waits) = (Instant::now(), cpu_s(), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (next, waits) = (&next, &waits);
            scope.spawn(move || {
                let random = SeededRandom::new(writer as u64);
                let pool: Vec<RecordBatch> = (0..16).map(|_| rows(&random, 0, each)).collect();
                loop {
                    let at = next.fetch_add(each as i64, Ordering::SeqCst);
                    if at >= total as i64 {
                        return;
                    }
                    let batch = later(&pool[at as usize / each % pool.len()], 1_750_000_000_000_000 + at * 200);
                    while let Err(error) = table.append_blocking(&batch, None) {
                        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                        waits.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{{\"what\": \"append\", \"rows\": {total}, \"per_append\": {each}, \"writers\": {writers}, \"rows_per_s\": {:.0}, \
         \"cpu_s\": {:.1}, \"waits\": {}, \"pending_mib\": {}}}",
        total as f64 / seconds,
        cpu_s() - cpu,
        waits.load(Ordering::SeqCst),
        table.stats().expect("readable").pending_bytes >> 20
    );
    table.compact(0).expect("compacts");
    let seconds = began.elapsed().as_secs_f64();
    let stats = table.stats().expect("readable");
    println!(
        "{{\"what\": \"append and compact\", \"rows_per_s\": {:.0}, \"cpu_s\": {:.1}, \"files\": {}, \"mib\": {}}}",
        total as f64 / seconds,
        cpu_s() - cpu,
        stats.files,
        stats.file_bytes >> 20
    );
}

/// The queries of `tests/bench/table_scans.py`.
const QUERIES: [&str; 5] = [
    "SELECT count(*) FROM t",
    "SELECT sum(x0), avg(x1), min(x2), max(x3), sum(n0) FROM t",
    "SELECT kind, count(*), avg(x0), sum(n1) FROM t GROUP BY kind ORDER BY kind",
    "SELECT tenant, code, count(*), avg(x5) FROM t WHERE x4 < 2.5 AND code < 5 GROUP BY tenant, code ORDER BY 3 DESC, 1, 2 LIMIT 10",
    "SELECT sum(x0+x1+x2+x3+x4+x5+x6+x7+x8+x9+x10+x11+x12+x13+x14+x15+x16+x17+x18+x19) FROM t",
];

fn read(tables: &Tables, table: &Table) {
    for round in 0..3 {
        let (began, cpu) = (Instant::now(), cpu_s());
        let columns = Some(["x0", "x1", "x2", "x3", "x4"].map(str::to_owned).to_vec());
        let mut sum = 0.0;
        let mut count = 0;
        for chunk in table.scan(&ScanOptions { columns, ..ScanOptions::default() }).expect("scans") {
            let chunk = chunk.expect("readable");
            count += chunk.rows().num_rows();
            for column in chunk.rows().columns() {
                sum += column.as_primitive::<Float64Type>().values().iter().sum::<f64>();
            }
        }
        println!(
            "{{\"what\": \"scan of 5 columns\", \"round\": {round}, \"rows\": {count}, \"s\": {:.3}, \"cpu_s\": {:.2}, \"sum\": {sum}}}",
            began.elapsed().as_secs_f64(),
            cpu_s() - cpu
        );
    }
    for query in QUERIES {
        let best = (0..3)
            .map(|_| {
                let (began, cpu) = (Instant::now(), cpu_s());
                query_blocking(tables, query, &SqlLimits::default()).expect("answers");
                (began.elapsed().as_secs_f64(), cpu_s() - cpu)
            })
            .min_by(|one, other| one.0.total_cmp(&other.0));
        let (s, cpu_s) = best.expect("three rounds");
        println!("{{\"what\": \"sql\", \"query\": \"{query}\", \"s\": {s:.3}, \"cpu_s\": {cpu_s:.2}}}");
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(arguments.next().expect("a folder that does not exist"));
    let mut number = |otherwise: usize| arguments.next().map_or(otherwise, |text| text.parse().expect("a number"));
    let (total, each, writers) = (number(4_000_000), number(2_000), number(4));
    let store = Store::open(StoreOptions::new(folder.join("store"))).expect("the store opens");
    let tables = Tables::open(store, TablesOptions::new(folder.join("tables"))).expect("the tables open");
    let table = tables.create("t", &spec()).expect("the table is made");
    let driver = tables.drive(Duration::from_secs(1)).expect("a thread");
    ingest(&table, total, each, writers);
    drop(driver);
    read(&tables, &table);
}
