//! Full disks, full buffers, repeated and racing appends.

use std::time::Duration;

use mainstay_base::{ErrorKind, Faults, SimDisk};
use mainstay_sql::query_blocking;
use mainstay_store::Store;
use mainstay_tables::limits::TABLES_MAX;
use mainstay_tables::{Table, Tables, TablesOptions};

use crate::support::*;

fn rows(from: i64, count: i64) -> Vec<Row> {
    (from..from + count).map(|at| Row::new(at, at * 31 % DAY_US)).collect()
}

/// The log refuses everything until all whose write failed have been told, which is a moment after the first one was.
fn wait_for_the_log(table: &Table) {
    let began = std::time::Instant::now();
    while table.append_blocking(&batch(&[]), Some(&format!("{:?}", began.elapsed()))).is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "the log does not go on");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_is_exhausted_and_nothing_is_lost_or_doubled() {
    let (disk, tables, table) = fresh();
    let mut expected = Vec::new();
    let mut number = 0;
    for room in [0_u64, 100, 600, 2_000, 4_000, 8_000, 16_000] {
        let some = rows(number, 200);
        number += 200;
        table.append_blocking(&batch(&some), None).unwrap();
        expected.extend(some);
        disk.set_faults(Faults { capacity_bytes: Some(disk.used_bytes() + room), ..Faults::default() });
        if let Err(error) = table.compact(0) {
            assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        }
        assert_eq!(all(&table), expected, "room for {room} bytes");
        assert_eq!(files(&disk).len(), table.stats().unwrap().files, "unfinished files are gone");
        // Appending meets the full disk too; what was refused is not there.
        loop {
            let some = rows(number, 400);
            number += 400;
            match table.append_blocking(&batch(&some), None) {
                Ok(_) => expected.extend(some),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                    break;
                }
            }
        }
        disk.set_faults(Faults::default());
        assert_eq!(all(&table), expected);
        wait_for_the_log(&table);
    }
    table.compact(0).unwrap();
    assert_eq!(all(&table), expected);
    drop((table, tables));
    assert_eq!(all(&open(&disk).unwrap().table("t").unwrap()), expected);
}

#[test]
fn appending_waits_for_compaction_and_the_driver_catches_up() {
    let disk = SimDisk::new();
    let store = Store::open(store_options(&disk)).unwrap();
    let options = TablesOptions { pending_bytes_max: 40_000, pending_bytes_compact: 20_000, ..tables_options(&disk) };
    let tables = Tables::open(store, options).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    let refused = (0..100).find_map(|at| table.append_blocking(&batch(&rows(at * 100, 100)), None).err()).unwrap();
    assert_eq!(refused.kind(), ErrorKind::Exhausted);
    assert!(refused.message().contains("table `t`") && refused.message().contains("40000"), "{refused}");
    let before = all(&table).len();
    let driver = tables.drive(Duration::from_secs(3600)).unwrap();
    let began = std::time::Instant::now();
    while table.append_blocking(&batch(&rows(20_000, 1)), None).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "compaction does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(driver);
    assert_eq!(all(&table).len(), before + 1);
}

#[test]
fn a_repeated_append_adds_nothing_even_when_both_race() {
    let (disk, _tables, table) = fresh();
    let some = rows(0, 50);
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| table.append_blocking(&batch(&some), Some("the key")).unwrap().is_repeated))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|is_repeated| !**is_repeated).count(), 1);
    table.compact(0).unwrap();
    assert!(
        open(&disk.after_crash(3))
            .unwrap()
            .table("t")
            .unwrap()
            .append_blocking(&batch(&some), Some("the key"))
            .unwrap()
            .is_repeated
    );
    let mut found = all(&table);
    found.sort();
    assert_eq!(found, some);
    for key in ["", &"k".repeat(257)] {
        assert_eq!(table.append_blocking(&batch(&some), Some(key)).unwrap_err().kind(), ErrorKind::Invalid);
    }
    table.append_blocking(&batch(&some[..0]), Some(&"k".repeat(256))).unwrap();
}

#[test]
fn idempotency_keys_are_forgotten_after_seven_days() {
    let disk = SimDisk::new();
    let clock = std::sync::Arc::new(mainstay_base::VirtualClock::new(1_000));
    let options = TablesOptions { clock: clock.clone(), ..tables_options(&disk) };
    let tables = Tables::open(Store::open(store_options(&disk)).unwrap(), options).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    table.append_blocking(&batch(&rows(0, 1)), Some("a")).unwrap();
    let week_ms = mainstay_tables::limits::IDEMPOTENCY_MS;
    let check = |at_ms: i64, is_repeated: bool| {
        table.compact(at_ms).unwrap();
        assert_eq!(table.append_blocking(&batch(&rows(1, 1)), Some("a")).unwrap().is_repeated, is_repeated, "{at_ms}");
    };
    check(1_000 + week_ms, true);
    check(1_001 + week_ms, false);
}

#[test]
fn appends_scans_and_compaction_run_side_by_side() {
    let (disk, tables, table) = fresh();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_i64)
            .map(|writer| {
                let table = table.clone();
                scope.spawn(move || {
                    for at in 0..60 {
                        table.append_blocking(&batch(&rows(writer * 100_000 + at * 10, 10)), None).unwrap();
                    }
                })
            })
            .collect();
        let table = table.clone();
        let compactor = table.clone();
        let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let done = is_done.clone();
        scope.spawn(move || {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                compactor.compact(0).unwrap();
            }
        });
        let mut last = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            let (found, missing) = read(&table, Default::default()).unwrap();
            assert_eq!(missing, []);
            assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "no row twice");
            assert!(found.len() >= last && found.len().is_multiple_of(10), "{last}, then {}", found.len());
            last = found.len();
        }
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(all(&table).len(), 1_800);
    table.compact(0).unwrap();
    assert_eq!(files(&disk).len(), table.stats().unwrap().files);
    drop(tables);
}

#[test]
fn so_many_tables_and_no_more() {
    let disk = SimDisk::new();
    let tables = open(&disk).unwrap();
    for number in 0..TABLES_MAX {
        tables.create(&format!("t{number}"), &spec()).unwrap();
    }
    let refused = tables.create("one_more", &spec()).err().expect("one table too many");
    assert_eq!(refused.kind(), ErrorKind::Exhausted, "{refused}");
    tables.drop_table("t7").unwrap();
    tables.create("one_more", &spec()).unwrap();
    // All of them are planned over; none is in the way of the others.
    let answer = query_blocking(&tables, "SELECT count(*) FROM one_more", &Default::default()).unwrap();
    assert_eq!(answer.batches[0].num_rows(), 1);
}
