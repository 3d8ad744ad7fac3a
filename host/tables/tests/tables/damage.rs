//! Files that are cut, changed or gone: named, moved aside, and the rest is read.

use mainstay_base::{Disk, ErrorKind, SimDisk};
use mainstay_sql::{SqlLimits, query_blocking};
use mainstay_store::{KeyRange, Space, Store};
use mainstay_tables::{Table, Tables, Window, WindowLimits};

use crate::support::*;

/// Three days, a file each.
fn three_days() -> (SimDisk, Tables, Table) {
    let (disk, tables, table) = fresh();
    let rows: Vec<Row> = (0..300).map(|at| Row::new(at, at / 100 * DAY_US + at)).collect();
    table.append_blocking(&batch(&rows), None).unwrap();
    table.compact(0).unwrap();
    assert_eq!(files(&disk).len(), 3);
    (disk, tables, table)
}

fn check(harm: impl Fn(&SimDisk, &std::path::Path), expect: &str) {
    let (disk, tables, table) = three_days();
    let path = files(&disk)[1].clone();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    harm(&disk, &path);
    // As found by a host that starts anew.
    drop((table, tables));
    let tables = open(&disk).unwrap();
    let table = tables.table("t").unwrap();
    for again in 0..2 {
        let (found, missing) = read(&table, Window::default()).unwrap();
        let numbers: Vec<i64> = found.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (0..100).chain(200..300).collect::<Vec<_>>(), "{expect}");
        assert_eq!(missing.len(), 1, "read {again}");
        assert_eq!((&*missing[0].file, missing[0].rows, missing[0].min_us), (&*name, 100, DAY_US + 100));
        assert!(missing[0].reason.contains(expect), "{missing:?}");
    }
    let outside = Window { from_us: 2 * DAY_US, until_us: 3 * DAY_US };
    assert_eq!(read(&table, outside).unwrap().1, [], "a window that the file does not touch misses nothing");
    let answer = query_blocking(&tables, "SELECT count(*) FROM t", &SqlLimits::default()).unwrap();
    assert_eq!(answer.missing.len(), 1);
    assert_eq!(table.stats().unwrap().damaged.len(), 1);
    // Appending and compaction go on, and so does the next start.
    table.append_blocking(&batch(&[Row::new(500, DAY_US)]), None).unwrap();
    table.compact(0).unwrap();
    drop((table, tables));
    let table = open(&disk).unwrap().table("t").unwrap();
    let (found, missing) = read(&table, Window::default()).unwrap();
    assert_eq!((found.len(), missing.len()), (201, 1));
    let aside = disk.list("data/tables/t/damaged".as_ref()).unwrap_or_default();
    let was_there = expect != "it is not there";
    assert_eq!(aside.len(), usize::from(was_there), "{expect}");
}

fn length(disk: &SimDisk, path: &std::path::Path) -> u64 {
    disk.open(path).unwrap().length().unwrap()
}

#[test]
fn damaged_files_are_named_and_moved_aside() {
    check(|disk, path| disk.remove(path).unwrap(), "it is not there");
    check(|disk, path| disk.open(path).unwrap().set_length(100).unwrap(), "it has 100 bytes");
    check(|disk, path| disk.open(path).unwrap().set_length(0).unwrap(), "it has 0 bytes");
    let footer = |disk: &SimDisk, path: &std::path::Path| disk.flip_bit(path, length(disk, path) - 20, 3).unwrap();
    check(footer, "its footer does not match");
    check(|disk, path| disk.flip_bit(path, length(disk, path) - 1, 0).unwrap(), "its footer does not match");
    check(|disk, path| disk.flip_bit(path, 40, 5).unwrap(), "does not match its checksum");
}

/// A file of several row groups whose last is damaged: an answer holds all of a file's rows or none.
#[test]
fn no_answer_holds_a_part_of_a_files_rows() {
    let filled = || {
        let (disk, tables, table) = fresh();
        let rows = |from: i64, count: i64| (from..from + count).map(|at| Row::new(at, at)).collect::<Vec<_>>();
        for part in 0..15 {
            table.append_blocking(&batch(&rows(part * 10_000, 10_000)), None).unwrap();
        }
        table.append_blocking(&batch(&rows(DAY_US, 100)), None).unwrap();
        table.compact(0).unwrap();
        let path = files(&disk)[0].clone();
        let bytes = length(&disk, &path);
        disk.flip_bit(&path, bytes * 19 / 20, 2).unwrap();
        (disk, tables, table)
    };
    let (_disk, _tables, table) = filled();
    let (mut scan, mut given) = (table.scan(&Default::default()).unwrap(), 0);
    let error = loop {
        match scan.next().expect("the damage is found before the end") {
            Ok(chunk) => given += chunk.rows().num_rows(),
            Err(error) => break error,
        }
    };
    assert!(given > 0 && scan.next().is_none());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("ask again"), "{error}");
    let (found, missing) = read(&table, Window::default()).unwrap();
    assert_eq!((found.len(), missing.len(), missing[0].rows), (100, 1, 150_000));
    // Who asks for an answer as a whole gets it.
    let (_disk, _tables, table) = filled();
    let window = table.window_blocking(&Default::default(), &WindowLimits::default()).unwrap();
    assert_eq!((window.frame.rows(), window.missing.len()), (100, 1));
    let (_disk, tables, _table) = filled();
    let limits = SqlLimits { rows: 1_000_000, ..SqlLimits::default() };
    let answer = query_blocking(&tables, "SELECT number, at, x, who FROM t", &limits).unwrap();
    let rows: usize = answer.batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!((rows, answer.missing.len()), (100, 1));
}

/// Any bit of the columns and of the footer: an error that names the file, never another value.
#[test]
fn no_changed_bit_is_read_as_a_value() {
    let (disk, tables, table) = three_days();
    let expected = all(&table);
    let path = files(&disk)[1].clone();
    let bytes = length(&disk, &path);
    drop((table, tables));
    for byte in (0..bytes).step_by(61) {
        let disk = disk.after_crash(1);
        disk.flip_bit(&path, byte, (byte % 8) as u8).unwrap();
        let table = open(&disk).unwrap().table("t").unwrap();
        let (found, missing) = read(&table, Window::default()).unwrap();
        match missing.len() {
            // The magic number at the beginning is nobody's column.
            0 => assert!(found == expected && byte < 4, "byte {byte}"),
            _ => assert_eq!(found.len(), 200, "byte {byte}"),
        }
    }
}

#[test]
fn merging_goes_on_without_a_damaged_file() {
    let (disk, tables, table) = fresh();
    for part in 0..9_i64 {
        table.append_blocking(&batch(&[Row::new(part, part)]), None).unwrap();
        if part < 7 {
            table.compact(0).unwrap();
        }
    }
    disk.flip_bit(&files(&disk)[3], 30, 1).unwrap();
    table.compact(0).unwrap();
    let (found, missing) = read(&table, Window::default()).unwrap();
    assert_eq!((found.len(), missing.len()), (8, 1));
    drop(tables);
}

/// The store's checksums make this a fault of the host, and still it is an error and no panic.
#[test]
fn a_bad_piece_of_pending_rows_is_named_with_its_table() {
    let disk = SimDisk::new();
    let store = Store::open(store_options(&disk)).unwrap();
    let tables = Tables::open(store.clone(), tables_options(&disk)).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    table.append_blocking(&batch(&(0..50).map(|at| Row::new(at, at)).collect::<Vec<_>>()), None).unwrap();
    let space = Space::host("tables");
    let page = store.view().scan(&space, &[KeyRange::prefix(b"p/")], &Default::default()).unwrap();
    let (key, piece) = page.iter().next().map(|(key, piece)| (key.to_vec(), piece.to_vec())).unwrap();
    let cut = piece[..piece.len() / 2].to_vec();
    let mut changed = piece.clone();
    changed[piece.len() - 9] ^= 4;
    for bad in [cut, changed, vec![], b"something else".to_vec()] {
        let mut transaction = store.begin(&store.view());
        transaction.put(&space, &key, bad).unwrap();
        store.commit_blocking(transaction).unwrap();
        let scanned = table.scan(&Default::default()).and_then(|scan| scan.collect::<mainstay_base::Result<Vec<_>>>());
        let errors = [
            scanned.map(drop).unwrap_err(),
            table.compact(0).map(drop).unwrap_err(),
            query_blocking(&tables, "SELECT count(*) FROM t", &SqlLimits::default()).map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
            let named = format!("piece {} of the pending rows of table `t`", hex::encode(&key[key.len() - 10..]));
            assert!(error.message().starts_with(&named), "{error}");
        }
    }
}
