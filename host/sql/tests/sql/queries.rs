//! SQL from outside: what it may see, what it may not do, and what it may take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use mainstay_base::ErrorKind;
use mainstay_sql::{SqlLimits, query, query_blocking};
use mainstay_store::{Store, StoreOptions};
use mainstay_tables::{ScanOptions, Tables};

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
    let answer = query_blocking(tables, text, &SqlLimits::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
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
    check("SELECT max(number) FROM t WHERE who LIKE 'who 1%' AND abs(number) < 500", 491);
}

#[test]
fn what_the_engine_explains_and_lists_is_answered() {
    let (_disk, tables) = filled();
    for text in ["SHOW TABLES", "DESCRIBE t", "SHOW COLUMNS FROM t", "EXPLAIN ANALYZE SELECT count(*) FROM t"] {
        assert!(!query_blocking(&tables, text, &SqlLimits::default()).unwrap().batches.is_empty(), "{text}");
    }
}

/// Of ten days, a file each, the seventh has a damaged column: who does not need that file does not notice.
fn notices(condition: &str) -> bool {
    let (disk, tables, table) = fresh();
    let row = |at: i64| {
        let row = Row::new(at, at * DAY_US / 100);
        Row { x: Some((at as f64 / 8.0).to_bits()), who: Some(format!("{:04}", at)), ..row }
    };
    table.append_blocking(&batch(&(0..1_000).map(row).collect::<Vec<_>>()), None).unwrap();
    table.compact(0).unwrap();
    table.grow(&grown()).unwrap();
    let files = files(&disk);
    assert_eq!(files.len(), 10);
    disk.flip_bit(&files[6], 40, 1).unwrap();
    // Every column is asked for, so that a group that is not passed is found damaged.
    let text = format!("SELECT * FROM t WHERE {condition}");
    let answer =
        query_blocking(&tables, &text, &SqlLimits::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
    !answer.missing.is_empty()
}

#[test]
fn row_groups_that_cannot_match_are_not_read() {
    fn check(condition: &str, expect: bool) {
        assert_eq!(notices(condition), expect, "{condition}");
    }
    check("true", true);
    check("at < '1970-01-06T00:00:00Z'", false);
    check("at >= '1970-01-07T12:00:00Z'", true);
    check("number < 600", false);
    check("number <= 600", true);
    check("number = 650 AND x > 0", true);
    check("699 < number", false);
    check("number IN (1, 5, 8, 12, 599)", false);
    check("number IN (1, 5, 8, 12, 601)", true);
    check("x > 87.4", false);
    check("x >= 87.375", true);
    check("who = '0599'", false);
    check("who BETWEEN '0598' AND '0600'", true);
    check("number < 600 OR number > 700", true);
    // A column that came later is missing in every row.
    check("extra > 0", false);
    check("extra IS NULL", true);
}

#[test]
fn values_that_are_no_numbers_are_found_though_statistics_leave_them_out() {
    let (_disk, tables, table) = fresh();
    let reals = [Some(1.0), Some(f64::NAN), Some(2.0), None];
    let rows: Vec<Row> = (0..).zip(reals).map(|(at, x)| Row { x: x.map(f64::to_bits), ..Row::new(at, at) }).collect();
    table.append_blocking(&batch(&rows), None).unwrap();
    let pending = one_number(&tables, "SELECT count(*) FROM t WHERE x > 5");
    table.compact(0).unwrap();
    assert_eq!((pending, one_number(&tables, "SELECT count(*) FROM t WHERE x > 5")), (1, 1));
}

#[test]
fn a_query_sees_one_moment_of_all_tables() {
    let (_disk, tables, table) = fresh();
    let other = tables.create("u", &spec()).unwrap();
    let is_done = AtomicBool::new(false);
    let row = |at: i64| batch(&[Row::new(at, at)]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Into the one before the other, and compacted now and then.
            for at in 0..300 {
                table.append_blocking(&row(at), None).unwrap();
                other.append_blocking(&row(at), None).unwrap();
                if at % 50 == 0 {
                    other.compact(0).unwrap();
                    table.compact(0).unwrap();
                }
            }
            is_done.store(true, Ordering::SeqCst);
        });
        while !is_done.load(Ordering::SeqCst) {
            let ahead = one_number(&tables, "SELECT (SELECT count(*) FROM t) - (SELECT count(*) FROM u)");
            assert!((0..=1).contains(&ahead), "{ahead}");
            let snapshot = tables.snapshot();
            let count = |table: &str| {
                let chunks = snapshot.scan(table, &ScanOptions::default()).unwrap();
                chunks.map(|chunk| chunk.unwrap().rows().num_rows()).sum::<usize>()
            };
            let (first, second) = (count("t"), count("u"));
            assert!((0..=1).contains(&(first as i64 - second as i64)), "{first} {second}");
        }
    });
}

#[test]
fn what_would_change_something_or_read_something_else_is_refused() {
    let (disk, tables) = filled();
    let before = (files(&disk), tables.list());
    let check = |text: &str, expect: &[ErrorKind]| {
        let error = query_blocking(&tables, text, &SqlLimits::default()).expect_err(text);
        assert!(expect.contains(&error.kind()), "{text}: {error:?}");
        assert!(!error.message().contains("root:"), "{error}");
    };
    check("COPY t TO '/tmp/tables-sql-test.parquet'", &[ErrorKind::Denied]);
    check("SELECT * INTO u FROM t", &[ErrorKind::Denied, ErrorKind::Invalid]);
    check("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", &[ErrorKind::Denied, ErrorKind::Invalid]);
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
    check("SELECT repeat('x', 2000000000)", &invalid);
    check("WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n) SELECT x FROM n", &invalid);
    assert!(!std::path::Path::new("/tmp/tables-sql-test.parquet").exists());
    assert_eq!((files(&disk), tables.list()), before);
    assert_eq!(one_number(&tables, "SELECT count(*) FROM t"), 1_000);
}

#[test]
fn hostile_texts_are_answered_soon() {
    fn check(tables: &Tables, text: &str, expect: Option<ErrorKind>) {
        let began = Instant::now();
        let answer = query_blocking(tables, text, &SqlLimits::default());
        let shown: String = text.chars().take(80).collect();
        assert_eq!(answer.err().map(|error| error.kind()), expect, "{shown}");
        assert!(began.elapsed() < Duration::from_secs(10), "{shown}: {:?}", began.elapsed());
    }
    let (_disk, tables) = filled();
    let invalid = Some(ErrorKind::Invalid);
    check(&tables, &"(".repeat(20_000), invalid);
    check(&tables, &format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)), invalid);
    check(&tables, &format!("SELECT {}1{}", "(".repeat(1_000), ")".repeat(1_000)), invalid);
    check(&tables, &format!("SELECT {}", ["1"; 8_000].join("+")), invalid);
    check(&tables, &format!("SELECT {} FROM t", ["number"; 2_000].join("+")), invalid);
    check(&tables, &format!("SELECT {}1", "- ".repeat(4_000)), invalid);
    check(&tables, &format!("SELECT {}1", "NOT ".repeat(4_000)), invalid);
    // What is just allowed is planned.
    check(&tables, &format!("SELECT {} FROM t", ["number"; 120].join("+")), None);
    check(&tables, &format!("SELECT {} FROM t", ["sum(number)"; 120].join("+")), None);
    check(&tables, &format!("SELECT count(*) FROM t WHERE {}", ["number > 5"; 120].join(" AND ")), None);
    check(&tables, &format!("SELECT number FROM t WHERE number IN ({})", ["5"; 2_000].join(",")), None);
    check(&tables, &["SELECT number FROM t"; 50].join(" UNION ALL "), None);
    let nested = (0..12).fold("t".to_owned(), |inner, _| format!("(SELECT number + number AS number FROM {inner})"));
    check(&tables, &format!("SELECT max(number) FROM {nested}"), None);
    let joined: Vec<String> = (1..20).map(|at| format!(" JOIN t t{at} ON t0.number = t{at}.number")).collect();
    check(&tables, &format!("SELECT count(*) FROM t t0{}", joined.concat()), None);
}

#[test]
fn limits_hold() {
    let (_disk, tables) = filled();
    let cut = query_blocking(&tables, "SELECT number FROM t", &SqlLimits { rows: 10, ..SqlLimits::default() }).unwrap();
    assert_eq!((cut.batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), cut.is_cut), (10, true));
    let whole =
        query_blocking(&tables, "SELECT number FROM t", &SqlLimits { rows: 1_000, ..SqlLimits::default() }).unwrap();
    assert!(!whole.is_cut);
    let cut = query_blocking(&tables, "SELECT * FROM t", &SqlLimits { bytes: 1_000, ..SqlLimits::default() }).unwrap();
    assert!(cut.is_cut && cut.batches.is_empty());
    let large = "SELECT a.number, count(*) FROM t a, t b, t c GROUP BY a.number, b.number, c.number";
    let error =
        query_blocking(&tables, large, &SqlLimits { memory_bytes: 4 << 20, ..SqlLimits::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let began = Instant::now();
    let endless = "SELECT sum(a.number * b.number % (c.number + d.number + 1)) FROM t a, t b, t c, t d";
    let limits = SqlLimits { time: Duration::from_millis(200), ..SqlLimits::default() };
    let error = query_blocking(&tables, endless, &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The snapshot of a query is given up when it is planned: else commits would wait until the memory table has room.
#[test]
fn a_long_query_does_not_hold_commits_back() {
    let disk = mainstay_base::SimDisk::new();
    let options = StoreOptions {
        memtable_bytes_max: 200_000,
        memtable_bytes_apply: 50_000,
        view_hold_max: Duration::from_secs(3_600),
        ..store_options(&disk)
    };
    let tables = Tables::open(Store::open(options).unwrap(), tables_options(&disk)).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    let rows: Vec<Row> = (0..300).map(|at| Row::new(at, at)).collect();
    table.append_blocking(&batch(&rows), None).unwrap();
    let endless = "SELECT sum(t.number * s.value % 7) FROM t, generate_series(1, 100000000000) s";
    let limits = SqlLimits { time: Duration::from_secs(2), ..SqlLimits::default() };
    std::thread::scope(|scope| {
        let query = scope.spawn(|| query_blocking(&tables, endless, &limits).unwrap_err().kind());
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..60 {
            table.append_blocking(&batch(&rows), None).unwrap();
        }
        assert!(!query.is_finished(), "commits waited for the query");
        assert_eq!(query.join().unwrap(), ErrorKind::Exhausted);
    });
}

#[test]
fn a_query_that_nobody_waits_for_stops() {
    let (_disk, tables) = filled();
    let endless = "SELECT sum(a.number * b.number % (c.number + d.number + 1)) FROM t a, t b, t c, t d";
    for _ in 0..8 {
        let limits = SqlLimits::default();
        let query = query(&tables, endless, &limits);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(30), query).await.unwrap_err() });
    }
    // Were they still running, this one would wait for its turn for ever.
    assert_eq!(one_number(&tables, "SELECT count(*) FROM t"), 1_000);
}
