//! Tables that are dropped: at once for whoever asks, and in the end from the disk.

use mainstay_base::{Disk, ErrorKind, SimDisk};
use mainstay_store::{KeyRange, Space, Store};
use mainstay_tables::{Table, Tables};

use crate::support::*;

fn rows(from: i64) -> Vec<Row> {
    (from..from + 50).map(|at| Row::new(at, at)).collect()
}

/// A table with files, a damaged file, pending rows and an idempotency key.
fn filled() -> (SimDisk, Store, Tables, Table) {
    let disk = SimDisk::new();
    let store = Store::open(store_options(&disk)).unwrap();
    let tables = Tables::open(store.clone(), tables_options(&disk)).unwrap();
    let table = tables.create("t", &spec()).unwrap();
    for part in 0..2 {
        table.append_blocking(&batch(&rows(part * 50)), None).unwrap();
        table.compact(0).unwrap();
    }
    disk.flip_bit(&files(&disk)[0], 40, 1).unwrap();
    assert_eq!(read(&table, Default::default()).unwrap().1.len(), 1);
    table.append_blocking(&batch(&rows(100)), Some("a key")).unwrap();
    (disk, store, tables, table)
}

fn keys(store: &Store) -> usize {
    let options = mainstay_store::ScanOptions { limit: 10_000, ..Default::default() };
    store.view().scan(&Space::host("tables"), &[KeyRange::default()], &options).unwrap().count as usize
}

#[test]
fn a_dropped_table_is_gone_with_all_that_it_had() {
    let (disk, store, tables, table) = filled();
    let mut scan = table.scan(&Default::default()).unwrap();
    let first = rows_of(scan.next().unwrap().unwrap().rows());
    tables.drop_table("t").unwrap();
    // Who was reading reads on; nobody else finds anything.
    let rest: Vec<Row> = scan.by_ref().flat_map(|chunk| rows_of(chunk.unwrap().rows())).collect();
    assert_eq!(first.len() + rest.len(), 100);
    drop(scan);
    assert_eq!((tables.list().len(), keys(&store)), (0, 0));
    assert_eq!(files(&disk), Vec::<std::path::PathBuf>::new());
    assert_eq!(disk.list("data/tables/t/damaged".as_ref()).unwrap().len(), 0);
    let gone = [
        table.append_blocking(&batch(&rows(0)), None).err(),
        table.scan(&Default::default()).err(),
        table.grow(&grown()).err(),
        table.compact(0).err(),
        table.stats().err(),
        tables.drop_table("t").err(),
        tables.table("t").err(),
    ];
    for (at, error) in gone.into_iter().enumerate() {
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::NotFound), "{at}");
    }
}

#[test]
fn a_table_of_the_same_name_is_another() {
    let (disk, _store, tables, old) = filled();
    tables.drop_table("t").unwrap();
    let table = tables.create("t", &spec()).unwrap();
    assert_eq!(all(&table), []);
    assert!(!table.append_blocking(&batch(&rows(7)), Some("a key")).unwrap().is_repeated);
    assert_eq!(old.append_blocking(&batch(&rows(0)), None).unwrap_err().kind(), ErrorKind::NotFound);
    table.compact(0).unwrap();
    drop(old);
    assert_eq!(all(&table), rows(7));
    drop((table, tables, _store));
    assert_eq!(all(&open(&disk).unwrap().table("t").unwrap()), rows(7));
}

#[test]
fn rows_of_a_transaction_that_was_begun_before_do_not_come_back() {
    let (_disk, store, tables, table) = filled();
    let mut transaction = store.begin(&store.view());
    table.append_in(&mut transaction, &batch(&rows(500)), None).unwrap();
    tables.drop_table("t").unwrap();
    assert_eq!(store.commit_blocking(transaction).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(keys(&store), 0);
}

/// Power is cut at every operation of a drop: the table is there as it was, or it is gone; never something between.
#[test]
fn dropping_may_stop_at_every_operation() {
    let operations = {
        let (disk, _store, tables, _table) = filled();
        let before = disk.operations();
        tables.drop_table("t").unwrap();
        disk.operations() - before
    };
    let mut outcomes = [0, 0];
    for cut in 0..operations {
        let (disk, store, tables, table) = filled();
        disk.cut_power_after(cut);
        let _ = tables.drop_table("t");
        disk.crash(cut);
        drop((table, tables, store));
        let store = Store::open(store_options(&disk)).unwrap();
        let tables =
            Tables::open(store.clone(), tables_options(&disk)).unwrap_or_else(|error| panic!("{cut}: {error}"));
        match tables.table("t") {
            Ok(table) => assert_eq!(read(&table, Default::default()).unwrap().0.len(), 100, "{cut}"),
            Err(_) => {
                assert_eq!(keys(&store), 0, "{cut}");
                assert!(files(&disk).is_empty(), "{cut}");
                assert!(disk.list("data/tables/t/damaged".as_ref()).unwrap_or_default().is_empty(), "{cut}");
            }
        }
        outcomes[usize::from(tables.table("t").is_ok())] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}
