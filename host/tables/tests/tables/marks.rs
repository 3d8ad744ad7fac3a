//! Columns about persons: what must not get to the disk is not on it, and what is restricted is not shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use mainstay_base::{Disk, ErrorKind, SimDisk};
use mainstay_sql::{SqlLimits, query_blocking};
use mainstay_tables::{ColumnSpec, Kind, Mark, ScanOptions, TableSpec, WindowLimits};

use crate::support::*;

fn marked() -> TableSpec {
    let columns = vec![
        ColumnSpec::new("at", Kind::Timestamp),
        ColumnSpec::new("mail", Kind::Text).marked(Mark::Hash),
        ColumnSpec::new("address", Kind::Text).marked(Mark::Drop),
        ColumnSpec::new("income", Kind::Text).marked(Mark::Restrict),
    ];
    TableSpec::new("at", columns)
}

fn people() -> RecordBatch {
    let texts = |values: [&str; 3]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    RecordBatch::try_from_iter([
        ("at", Arc::new(Int64Array::from(vec![3, 1, 2])) as ArrayRef),
        ("mail", texts(["ada@example.org", "bob@example.org", "ada@example.org"])),
        ("address", texts(["1 Fleet Street", "2 Fleet Street", "3 Fleet Street"])),
        ("income", texts(["restricted-9", "restricted-8", "restricted-7"])),
    ])
    .unwrap()
}

/// Every byte of every file of the disk.
fn bytes(disk: &SimDisk, folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for path in disk.list(folder).unwrap() {
        match disk.open(&path) {
            Ok(file) => {
                let mut buffer = vec![0; file.length().unwrap() as usize];
                file.read_at(&mut buffer, 0).unwrap();
                all.extend(buffer);
            }
            Err(_) => all.extend(bytes(disk, &path)),
        }
    }
    all
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn hashed_and_dropped_values_never_reach_the_disk() {
    let disk = SimDisk::new();
    let tables = open(&disk).unwrap();
    let table = tables.create("people", &marked()).unwrap();
    table.append_blocking(&people(), None).unwrap();
    let check = |when: &str, shows_restricted: bool| {
        let bytes = bytes(&disk, &PathBuf::from("data"));
        for secret in ["ada@example", "bob@example", "example.org", "Fleet Street"] {
            assert!(!has(&bytes, secret), "{secret} is on the disk {when}");
        }
        // The test would see it.
        assert_eq!(has(&bytes, "restricted-9"), shows_restricted, "{when}");
    };
    check("in the log", true);
    table.compact(0).unwrap();
    check("in a file", true);
    let options = ScanOptions { columns: Some(vec!["mail".into()]), ..ScanOptions::default() };
    let chunk = table.scan(&options).unwrap().next().unwrap().unwrap();
    let mails = chunk.rows().column(0).as_string::<i32>();
    assert_ne!(mails.value(0), mails.value(1));
    assert_eq!(mails.value(1), mails.value(2), "one person's rows, now in the order of time, can still be joined");
}

#[test]
fn secrets_are_of_one_table() {
    let disk = SimDisk::new();
    let tables = open(&disk).unwrap();
    let hash = |name: &str| {
        let table = tables.create(name, &marked()).unwrap();
        table.append_blocking(&people(), None).unwrap();
        let chunk = table.scan(&ScanOptions::default()).unwrap().next().unwrap().unwrap();
        chunk.rows().column_by_name("mail").unwrap().as_string::<i32>().value(0).to_owned()
    };
    assert_ne!(hash("one"), hash("other"));
}

#[test]
fn restricted_columns_are_shown_only_with_the_right() {
    let disk = SimDisk::new();
    let tables = open(&disk).unwrap();
    let table = tables.create("people", &marked()).unwrap();
    table.append_blocking(&people(), None).unwrap();
    let names = |with_restricted: bool| -> Vec<String> {
        let scan = table.scan(&ScanOptions { with_restricted, ..ScanOptions::default() }).unwrap();
        scan.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    assert_eq!(names(false), ["at", "mail"]);
    assert_eq!(names(true), ["at", "mail", "income"]);
    let ask = |column: &str| {
        let options = ScanOptions { columns: Some(vec![column.into()]), ..ScanOptions::default() };
        table.scan(&options).err().map(|error| error.kind())
    };
    assert_eq!(ask("income"), Some(ErrorKind::Denied));
    assert_eq!((ask("address"), ask("other")), (Some(ErrorKind::NotFound), Some(ErrorKind::NotFound)));
    let sql = |text: &str, with_restricted: bool| {
        query_blocking(&tables, text, &SqlLimits { with_restricted, ..SqlLimits::default() })
    };
    assert_eq!(sql("SELECT * FROM people", false).unwrap().schema.fields().len(), 2);
    assert_eq!(sql("SELECT income FROM people", true).unwrap().batches[0].num_rows(), 3);
    for hidden in [
        "SELECT income FROM people",
        "SELECT count(*) FROM people WHERE income > 'a'",
        "SELECT at FROM people ORDER BY income",
        "SELECT max(people.income) FROM people",
    ] {
        assert_eq!(sql(hidden, false).unwrap_err().kind(), ErrorKind::Invalid, "{hidden}");
    }
    let window = |columns: Option<Vec<String>>| {
        let options = ScanOptions { columns, ..ScanOptions::default() };
        table.window_blocking(&options, &WindowLimits::default())
    };
    let names: Vec<String> = window(None).unwrap().frame.columns().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["at", "mail"]);
    assert_eq!(window(Some(vec!["income".into()])).unwrap_err().kind(), ErrorKind::Denied);
    let snapshot = tables.snapshot();
    let asked = ScanOptions { columns: Some(vec!["income".into()]), ..ScanOptions::default() };
    assert_eq!(snapshot.scan("people", &asked).err().map(|error| error.kind()), Some(ErrorKind::Denied));
    assert_eq!(snapshot.scan("people", &ScanOptions::default()).unwrap().schema().fields().len(), 2);
    for shown in ["EXPLAIN VERBOSE SELECT * FROM people", "DESCRIBE people", "SELECT * FROM information_schema.columns"]
    {
        let text = format!("{:?}", sql(shown, false).unwrap().batches);
        assert!(!text.contains("income") && !text.contains("restricted-"), "{shown}");
    }
    let columns = sql("SELECT column_name FROM information_schema.columns WHERE table_name = 'people'", false).unwrap();
    assert_eq!(columns.batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
}
