//! Any sequence of appends, growth, compaction, retention and reopening, held against a list of rows.

use std::collections::BTreeSet;

use arrow_array::Array;
use mainstay_base::ErrorKind;
use mainstay_sql::{SqlLimits, query_blocking};
use mainstay_tables::{Partition, Retention, ScanOptions, Window, WindowLimits};
use proptest::prelude::*;

use crate::support::*;

#[derive(Clone, Debug)]
enum Step {
    /// Times, in hours, and perhaps an idempotency key.
    Append(Vec<i64>, Option<u8>),
    Compact,
    /// Let this many hours pass.
    Wait(i64),
    Grow,
    Reopen,
    /// A window in hours.
    Read(i64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec(0..60_i64, 0..20), prop::option::weighted(0.3, 0..6_u8))
            .prop_map(|(hours, key)| Step::Append(hours, key)),
        5 => Just(Step::Compact),
        1 => (0..20_i64).prop_map(Step::Wait),
        1 => Just(Step::Grow),
        1 => Just(Step::Reopen),
        2 => (0..60_i64, 0..60_i64).prop_map(|(from, length)| Step::Read(from, from + length)),
    ]
}

/// What must be there, and what may be there still.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    expired: Vec<Row>,
    keys: BTreeSet<u8>,
    now_hours: i64,
    is_grown: bool,
}

const RETENTION_HOURS: i64 = 30;

impl Model {
    fn expire(&mut self) {
        let oldest_us = (self.now_hours - RETENTION_HOURS) * HOUR_US;
        let (kept, expired) = self.rows.drain(..).partition(|row| row.at_us >= oldest_us);
        self.rows = kept;
        self.expired.extend::<Vec<Row>>(expired);
    }

    fn check(&self, found: &[Row], window: Window) {
        let inside = |row: &&Row| window.from_us <= row.at_us && row.at_us < window.until_us;
        let wanted: BTreeSet<&Row> = self.rows.iter().filter(inside).collect();
        let allowed: BTreeSet<&Row> = self.expired.iter().filter(inside).collect();
        let unique: BTreeSet<&Row> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "no row twice");
        assert!(wanted.is_subset(&unique), "missing: {:?}", wanted.difference(&unique).collect::<Vec<_>>());
        let beyond: Vec<_> = unique.iter().filter(|row| !wanted.contains(*row) && !allowed.contains(*row)).collect();
        assert!(beyond.is_empty(), "rows from nowhere: {beyond:?}");
    }
}

fn sql_agrees(tables: &mainstay_tables::Tables, found: &[Row], window: Window) {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type};
    let show = |us: i64| jiff::Timestamp::from_microsecond(us).unwrap().to_string();
    let text = format!(
        "SELECT count(*), sum(number), count(x), sum(x), count(DISTINCT who) FROM t WHERE at >= '{}' AND at < '{}'",
        show(window.from_us),
        show(window.until_us)
    );
    let answer = query_blocking(tables, &text, &SqlLimits::default()).unwrap();
    let row = &answer.batches[0];
    let integer = |at: usize| row.column(at).as_primitive::<Int64Type>().value(0);
    assert_eq!(integer(0), found.len() as i64);
    let sum = row.column(1).as_primitive::<Int64Type>();
    assert_eq!(if sum.is_valid(0) { sum.value(0) } else { 0 }, found.iter().map(|row| row.number).sum::<i64>());
    let reals: Vec<f64> = found.iter().filter_map(|row| row.x.map(f64::from_bits)).collect();
    assert_eq!(integer(2), reals.len() as i64);
    if !reals.is_empty() {
        let (sum, expected) = (row.column(3).as_primitive::<Float64Type>().value(0), reals.iter().sum::<f64>());
        assert!((sum - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{sum} {expected}");
    }
    let distinct: BTreeSet<_> = found.iter().filter_map(|row| row.who.as_ref()).collect();
    assert_eq!(integer(4), distinct.len() as i64);
}

fn run(steps: &[Step], partition: Partition, with_sql: bool) {
    let disk = mainstay_base::SimDisk::new();
    let mut tables = open(&disk).unwrap();
    let spec = spec().partitioned(partition).kept_for(RETENTION_HOURS * 3_600_000);
    let mut table = tables.create("t", &spec).unwrap();
    let mut model = Model::default();
    let mut number = 0;
    for step in steps {
        match step {
            Step::Append(hours, key) => {
                let rows: Vec<Row> = hours
                    .iter()
                    .map(|hour| {
                        number += 1;
                        let extra = model.is_grown.then_some(number as i32);
                        Row { extra, ..Row::new(number, hour * HOUR_US + number) }
                    })
                    .collect();
                let text = key.map(|key| format!("key {key}"));
                let appended = table.append_blocking(&batch(&rows), text.as_deref()).unwrap();
                let is_repeated = key.is_some_and(|key| !model.keys.insert(key));
                assert_eq!(appended.is_repeated, is_repeated);
                if !is_repeated {
                    assert_eq!(appended.rows, rows.len());
                    model.rows.extend(rows);
                }
            }
            Step::Compact => {
                table.compact(model.now_hours * 3_600_000).unwrap();
                model.expire();
                assert_eq!(table.stats().unwrap().pending_bytes, 0);
            }
            Step::Wait(hours) => model.now_hours += hours,
            Step::Grow => {
                table.grow(&grown()).unwrap();
                model.is_grown = true;
                let refused = table.grow(&grown()[..3]).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Conflict);
            }
            Step::Reopen => {
                drop((table, tables));
                tables = open(&disk).unwrap();
                table = tables.table("t").unwrap();
            }
            Step::Read(from, until) => {
                let window = Window { from_us: from * HOUR_US, until_us: until * HOUR_US };
                let (found, missing) = read(&table, window).unwrap();
                assert_eq!(missing, []);
                model.check(&found, window);
                if with_sql {
                    sql_agrees(&tables, &found, window);
                }
            }
        }
    }
    let found = all(&table);
    model.check(&found, Window::default());
    assert_eq!(files(&disk).len(), table.stats().unwrap().files, "no file but those that are listed");
    drop((table, tables));
    let tables = open(&disk).unwrap();
    assert_eq!(all(&tables.table("t").unwrap()), found, "the same once more");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_table_is_a_list_of_rows(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps, Partition::Day, true);
    }

    #[test]
    fn a_table_by_the_hour_is_too(steps in prop::collection::vec(step(), 1..30)) {
        run(&steps, Partition::Hour, false);
    }
}

#[test]
fn many_small_files_become_few_in_the_order_of_time() {
    let (disk, _tables, table) = fresh();
    let mut expected = Vec::new();
    let mut merged = 0;
    for round in 0..40_i64 {
        if round == 20 {
            table.grow(&grown()).unwrap();
        }
        let rows: Vec<Row> = (0..50)
            .map(|at| Row::new(round * 50 + at, (at * 7919 + round * 104_729) % DAY_US))
            .map(|row| Row { extra: (round >= 20).then_some(row.number as i32), ..row })
            .collect();
        table.append_blocking(&batch(&rows), None).unwrap();
        merged += table.compact(0).unwrap().merged;
        expected.extend(rows);
    }
    assert_eq!(all(&table), expected);
    assert!(merged >= 32, "{merged}");
    let stats = table.stats().unwrap();
    assert!(stats.files <= 14 && stats.file_rows == 2_000, "{stats:?}");
    assert_eq!(files(&disk).len(), stats.files, "replaced files are gone");
    for chunk in table.scan(&Default::default()).unwrap() {
        let times: Vec<i64> = rows_of(chunk.unwrap().rows()).iter().map(|row| row.at_us).collect();
        assert!(times.is_sorted());
    }
}

#[test]
fn retention_drops_whole_files_and_old_pending_rows() {
    let disk = mainstay_base::SimDisk::new();
    let tables = open(&disk).unwrap();
    let table = tables.create("t", &spec().kept_for(86_400_000)).unwrap();
    let rows = [Row::new(1, 5 * HOUR_US), Row::new(2, 23 * HOUR_US), Row::new(3, 25 * HOUR_US)];
    table.append_blocking(&batch(&rows), None).unwrap();
    table.compact(24 * 3_600_000).unwrap();
    assert_eq!(all(&table), rows);
    // Two of three are old enough, in one file only together with the second.
    let early = Row::new(4, HOUR_US);
    table.append_blocking(&batch(&[early]), None).unwrap();
    let done = table.compact(40 * 3_600_000).unwrap();
    assert_eq!((done.expired_rows, done.expired_files), (1, 0));
    assert_eq!(all(&table), rows);
    let done = table.compact(47 * 3_600_000 + 1).unwrap();
    assert_eq!((done.expired_rows, done.expired_files), (0, 1));
    assert_eq!(all(&table), rows[2..]);
    assert_eq!(files(&disk).len(), 1);
}

#[test]
fn retention_by_bytes_drops_the_oldest_files() {
    let disk = mainstay_base::SimDisk::new();
    let tables = open(&disk).unwrap();
    let table = tables.create("t", &spec().partitioned(Partition::Hour)).unwrap();
    let hour = |hour: i64| (0..100).map(|at| Row::new(hour * 100 + at, hour * HOUR_US + at)).collect::<Vec<_>>();
    // Not in the order of time.
    for at in [3, 0, 2, 1] {
        table.append_blocking(&batch(&hour(at)), None).unwrap();
        table.compact(0).unwrap();
    }
    let one = table.stats().unwrap().file_bytes / 4;
    table.set_retention(Retention { age_ms: None, bytes: Some(2 * one + one / 2) }).unwrap();
    assert_eq!(table.compact(0).unwrap().expired_files, 2);
    assert_eq!(all(&table), [hour(2), hour(3)].concat());
    assert_eq!((files(&disk).len(), table.compact(0).unwrap().expired_files), (2, 0));
    let refused = table.set_retention(Retention { age_ms: None, bytes: Some(0) }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    drop((table, tables));
    let table = open(&disk).unwrap().table("t").unwrap();
    assert_eq!(table.spec().retention.bytes, Some(2 * one + one / 2));
}

#[test]
fn a_frame_that_was_read_can_be_appended() {
    let (_disk, tables, table) = fresh();
    let rows: Vec<Row> = (0..500).map(|at| Row::new(at, at)).collect();
    table.append_blocking(&batch(&rows[..200]), None).unwrap();
    table.compact(0).unwrap();
    table.append_blocking(&batch(&rows[200..]), None).unwrap();
    let window = table.window_blocking(&Default::default(), &WindowLimits::default()).unwrap();
    assert_eq!(window.frame.column("number").unwrap().arrow().len(), 2, "in chunks as they lie");
    let other = tables.create("u", &spec()).unwrap();
    futures::executor::block_on(other.append_frame(&window.frame, None)).unwrap();
    assert_eq!(all(&other), rows);
    let (kept, all_rows) = (Window::of_ms(0, 1), WindowLimits { rows: 500, ..WindowLimits::default() });
    let options = ScanOptions { window: kept, columns: Some(vec!["x".into(), "at".into()]), ..ScanOptions::default() };
    let part = table.window_blocking(&options, &all_rows).unwrap();
    assert_eq!((part.frame.rows(), part.frame.columns().len()), (500, 2));
    for limits in [
        WindowLimits { rows: 499, ..WindowLimits::default() },
        WindowLimits { bytes: 1_000, ..WindowLimits::default() },
    ] {
        let error = table.window_blocking(&options, &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    }
}

#[test]
fn a_scan_sees_one_moment_whatever_happens_meanwhile() {
    let (disk, _tables, table) = fresh();
    let rows = |from: i64, count: i64| (from..from + count).map(|at| Row::new(at, at)).collect::<Vec<_>>();
    for part in 0..9 {
        table.append_blocking(&batch(&rows(part * 100, 100)), None).unwrap();
        if part < 7 {
            table.compact(0).unwrap();
        }
    }
    assert_eq!(files(&disk).len(), 7);
    let mut scan = table.scan(&Default::default()).unwrap();
    let mut seen = rows_of(scan.next().unwrap().unwrap().rows());
    // The eighth file lets all of them be merged; the scan's own stay until it is done.
    assert_eq!(table.compact(0).unwrap().merged, 8);
    table.append_blocking(&batch(&rows(900, 50)), None).unwrap();
    assert_eq!(files(&disk).len(), 8);
    for chunk in scan.by_ref() {
        seen.extend(rows_of(chunk.unwrap().rows()));
    }
    seen.sort();
    assert_eq!((seen, scan.missing()), (rows(0, 900), vec![]));
    drop(scan);
    assert_eq!(files(&disk).len(), 1);
    assert_eq!(all(&table), rows(0, 950));
}

#[test]
fn rows_of_a_callers_transaction_come_with_it() {
    let disk = mainstay_base::SimDisk::new();
    let store = mainstay_store::Store::open(store_options(&disk)).unwrap();
    let tables = mainstay_tables::Tables::open(store.clone(), tables_options(&disk)).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    let space = mainstay_store::Space::plugin("p");
    let rows = [Row::new(1, 10), Row::new(2, 5)];
    let append = |key: &str| {
        let mut transaction = store.begin(&store.view());
        transaction.put(&space, b"a", key.to_owned()).unwrap();
        assert_eq!(table.append_in(&mut transaction, &batch(&rows), Some(key)).unwrap(), 2);
        assert_eq!(all(&table).len() % 2, 0);
        store.commit_blocking(transaction)
    };
    append("one").unwrap();
    assert_eq!(all(&table), rows);
    assert_eq!(append("one").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(all(&table), rows);
    assert_eq!(store.view().get(&space, b"a").unwrap().unwrap(), "one");
}

#[test]
fn chunks_become_columns_without_a_copy() {
    let (_disk, _tables, table) = fresh();
    table.append_blocking(&batch(&(0..1_000).map(|at| Row::new(at, at)).collect::<Vec<_>>()), None).unwrap();
    table.compact(0).unwrap();
    let chunk = table.scan(&Default::default()).unwrap().next().unwrap().unwrap();
    let frame = chunk.frame().unwrap();
    for name in ["at", "number", "x"] {
        let (from, to) = (chunk.rows().column_by_name(name).unwrap(), &frame.column(name).unwrap().arrow()[0]);
        let start = |array: &arrow_array::ArrayRef| array.to_data().buffers()[0].as_ptr();
        assert_eq!(start(from), start(to), "{name}");
    }
    let texts: Vec<Option<String>> =
        frame.column("who").unwrap().texts().unwrap().iter().map(|text| text.map(str::to_owned)).collect();
    assert_eq!(texts[..5], [None, Some("who 1".into()), Some("who 2".into()), Some("who 3".into()), None]);
    let (frame, missing) = table.scan(&Default::default()).unwrap().frame(1_000, 1 << 20).unwrap();
    assert_eq!((frame.rows(), missing), (1_000, vec![]));
    let error = table.scan(&Default::default()).unwrap().frame(1_000, 1_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
}
