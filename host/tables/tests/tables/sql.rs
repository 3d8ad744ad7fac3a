//! SQL from outside: what it may see, what it may not do, and what it may take.

use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use mainstay_base::ErrorKind;
use mainstay_tables::{SqlLimits, Tables};

use crate::support::*;

/// A thousand rows over ten days, half of them in files.
fn filled() -> (mainstay_base::SimDisk, Tables) {
    let (disk, tables, table) = fresh();
    let rows: Vec<Row> = (0..1_000).map(|at| Row::new(at, at * DAY_US / 100)).collect();
    table.append_blocking(&batch(&rows[..500]), None).unwrap();
    table.compact(0).unwrap();
    table.append_blocking(&batch(&rows[500..]), None).unwrap();
    (disk, tables)
}

fn one_number(tables: &Tables, text: &str) -> i64 {
    let answer = tables.sql_blocking(text, &SqlLimits::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
    answer.batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[test]
fn queries_see_files_and_what_is_pending() {
    let (_disk, tables) = filled();
    let check = |text: &str, expect: i64| assert_eq!(one_number(&tables, text), expect, "{text}");
    check("SELECT count(*) FROM t", 1_000);
    check("SELECT sum(number) FROM t", 499_500);
    check("SELECT count(x) FROM t", 666);
    check("SELECT count(DISTINCT who) FROM t", 5);
    check("SELECT count(*) FROM t WHERE at >= '1970-01-03T00:00:00Z' AND at < '1970-01-04T00:00:00Z'", 100);
    check("SELECT count(*) FROM t WHERE at BETWEEN '1970-01-03T00:00:00Z' AND '1970-01-04T00:00:00Z'", 101);
    check("SELECT count(*) FROM t WHERE '1970-01-05T00:00:00Z' = at", 1);
    check("SELECT count(*) FROM t WHERE at < '1970-01-02T00:00:00Z' OR number = 999", 101);
    check("SELECT count(*) FROM t a JOIN t b ON a.number = b.number + 1", 999);
    check("SELECT count(*) FROM (SELECT date_trunc('day', at) d FROM t GROUP BY d)", 10);
    check("SELECT max(number) FROM t WHERE who LIKE 'who 1%' AND abs(number) < 500", 496);
}

#[test]
fn the_window_is_taken_out_of_the_query() {
    let (_disk, tables) = filled();
    let explained = |text: &str| {
        let answer = tables.sql_blocking(&format!("EXPLAIN FORMAT INDENT {text}"), &SqlLimits::default()).unwrap();
        let plans = answer.batches[0].column(1).as_string::<i32>();
        plans.iter().flatten().map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let units = |text: &str| {
        let plan = explained(text);
        plan.matches("units)").count() + plan.matches("Part(").count()
    };
    assert!(units("SELECT number FROM t WHERE at < '1970-01-02T00:00:00Z'") <= units("SELECT number FROM t"));
    for text in ["SHOW TABLES", "DESCRIBE t", "SHOW COLUMNS FROM t", "EXPLAIN ANALYZE SELECT count(*) FROM t"] {
        assert!(!tables.sql_blocking(text, &SqlLimits::default()).unwrap().batches.is_empty(), "{text}");
    }
}

#[test]
fn what_would_change_something_or_read_something_else_is_refused() {
    let (disk, tables) = filled();
    let before = (files(&disk), tables.list());
    let check = |text: &str, expect: &[ErrorKind]| {
        let error = tables.sql_blocking(text, &SqlLimits::default()).expect_err(text);
        assert!(expect.contains(&error.kind()), "{text}: {error:?}");
        assert!(!error.message().contains("root:"), "{error}");
    };
    let denied = [ErrorKind::Denied];
    check("CREATE TABLE u AS SELECT * FROM t", &denied);
    check("DROP TABLE t", &denied);
    check("INSERT INTO t SELECT * FROM t", &denied);
    check("COPY t TO '/tmp/tables-sql-test.parquet'", &denied);
    check("CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'", &denied);
    check("SET datafusion.catalog.location = '/etc'", &denied);
    check("SELECT * INTO u FROM t", &[ErrorKind::Denied, ErrorKind::Invalid]);
    let invalid = [ErrorKind::Invalid];
    check("SELECT * FROM '/etc/passwd'", &invalid);
    check("SELECT * FROM \"/etc/passwd\"", &invalid);
    check("SELECT * FROM 'data/tables/t/*.parquet'", &invalid);
    check("SELECT * FROM read_csv('/etc/passwd')", &invalid);
    check("SELECT * FROM read_parquet('x')", &invalid);
    check("SELECT read_text('/etc/passwd')", &invalid);
    check("SELECT * FROM nothing", &invalid);
    check("SELECT nothing FROM t", &invalid);
    check("SELECT 1 / 0 FROM t", &invalid);
    check("SELECT CAST(who AS BIGINT) FROM t", &invalid);
    check(&"(".repeat(20_000), &invalid);
    check(&format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)), &invalid);
    check(&format!("SELECT '{}'", "x".repeat(64 << 10)), &invalid);
    assert!(!std::path::Path::new("/tmp/tables-sql-test.parquet").exists());
    assert_eq!((files(&disk), tables.list()), before);
    assert_eq!(one_number(&tables, "SELECT count(*) FROM t"), 1_000);
}

#[test]
fn a_deep_plan_does_not_overflow_the_stack() {
    let (_disk, tables) = filled();
    for text in [format!("SELECT {}", ["1"; 8_000].join("+")), format!("SELECT {} FROM t", ["number"; 2_000].join("+"))]
    {
        match tables.sql_blocking(&text, &SqlLimits::default()) {
            Ok(answer) => assert!(!answer.batches.is_empty()),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Exhausted), "{error}"),
        }
    }
}

#[test]
fn limits_hold() {
    let (_disk, tables) = filled();
    let cut = tables.sql_blocking("SELECT number FROM t", &SqlLimits { rows: 10, ..SqlLimits::default() }).unwrap();
    assert_eq!((cut.batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), cut.is_cut), (10, true));
    let whole =
        tables.sql_blocking("SELECT number FROM t", &SqlLimits { rows: 1_000, ..SqlLimits::default() }).unwrap();
    assert!(!whole.is_cut);
    let cut = tables.sql_blocking("SELECT * FROM t", &SqlLimits { bytes: 1_000, ..SqlLimits::default() }).unwrap();
    assert!(cut.is_cut && cut.batches.is_empty());
    let large = "SELECT a.number, count(*) FROM t a, t b, t c GROUP BY a.number, b.number, c.number";
    let error = tables.sql_blocking(large, &SqlLimits { memory_bytes: 4 << 20, ..SqlLimits::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let began = Instant::now();
    let endless = "SELECT sum(a.number * b.number % (c.number + d.number + 1)) FROM t a, t b, t c, t d";
    let limits = SqlLimits { time: Duration::from_millis(200), ..SqlLimits::default() };
    let error = tables.sql_blocking(endless, &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_query_that_nobody_waits_for_stops() {
    let (_disk, tables) = filled();
    let endless = "SELECT sum(a.number * b.number % (c.number + d.number + 1)) FROM t a, t b, t c, t d";
    for _ in 0..8 {
        let limits = SqlLimits::default();
        let query = tables.sql(endless, &limits);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(30), query).await.unwrap_err() });
    }
    // Were they still running, this one would wait for its turn for ever.
    assert_eq!(one_number(&tables, "SELECT count(*) FROM t"), 1_000);
}
