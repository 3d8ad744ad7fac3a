//! Power is cut anywhere, in the midst of appending, compacting and merging: rows that were acknowledged are there exactly
//! once, and those that were not are there whole or not at all.

use std::collections::BTreeMap;

use mainstay_base::{Random, SeededRandom, SimDisk};
use mainstay_tables::{Table, Tables};

use crate::support::*;

/// Rows of each append, and whether it was acknowledged.
#[derive(Default)]
struct Promised {
    appends: BTreeMap<i64, (Vec<Row>, bool)>,
    next: i64,
}

impl Promised {
    fn rows(&mut self, random: &SeededRandom) -> Vec<Row> {
        let count = 1 + (random.number() % 6) as i64;
        let rows = (0..count).map(|at| Row::new(self.next + at, (random.number() % 3) as i64 * DAY_US + at));
        let rows: Vec<Row> = rows.collect();
        self.appends.insert(self.next, (rows.clone(), false));
        self.next += count;
        rows
    }

    /// Hold what is there against what was promised, and settle what was open.
    fn check(&mut self, found: &[Row], seed: u64) {
        let mut found: BTreeMap<i64, &Row> = {
            let unique: BTreeMap<i64, &Row> = found.iter().map(|row| (row.number, row)).collect();
            assert_eq!(unique.len(), found.len(), "seed {seed}: a row is there twice");
            unique
        };
        self.appends.retain(|first, (rows, is_acknowledged)| {
            let there: Vec<bool> = rows.iter().map(|row| found.remove(&row.number) == Some(row)).collect();
            if *is_acknowledged {
                assert!(there.iter().all(|is| *is), "seed {seed}: acknowledged rows from {first} are missing");
            }
            assert!(there.iter().all(|is| *is == there[0]), "seed {seed}: the rows from {first} are there in part");
            *is_acknowledged = true;
            there[0]
        });
        assert!(found.is_empty(), "seed {seed}: rows from nowhere: {found:?}");
    }
}

/// Append and compact until the power goes.
fn work(tables: &Tables, table: &Table, promised: &mut Promised, random: &SeededRandom, disk: &SimDisk) {
    for _ in 0..200 {
        match random.number() % 5 {
            0 | 1 => {
                let first = promised.next;
                let key = format!("{first}");
                let rows = promised.rows(random);
                if table.append_blocking(&batch(&rows), Some(&key)).is_ok() {
                    promised.appends.get_mut(&first).unwrap().1 = true;
                }
            }
            2 => {
                let _ = table.grow(&grown());
            }
            3 => {
                let _ = tables.list();
            }
            _ => {
                let _ = table.compact(0);
            }
        }
        if disk.is_power_off() {
            return;
        }
    }
}

fn crash_and_check(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let random = SeededRandom::new(seed);
        let disk = SimDisk::new();
        let mut promised = Promised::default();
        // Several lives: what a crash left is the beginning of the next one.
        for _ in 0..4 {
            disk.cut_power_after(random.number() % 600);
            let opened = open(&disk).map(|tables| (tables.create("t", &spec()), tables));
            match opened {
                Ok((Ok(table), tables)) => {
                    match read(&table, Default::default()) {
                        Ok((found, missing)) => {
                            assert_eq!(missing, [], "seed {seed}");
                            promised.check(&found, seed);
                        }
                        Err(error) => assert!(disk.is_power_off(), "seed {seed}: {error}"),
                    }
                    work(&tables, &table, &mut promised, &random, &disk);
                }
                Ok((Err(error), tables)) => {
                    // Grown in an earlier life: then it is another table than was asked for.
                    let table = tables.table("t");
                    assert!(disk.is_power_off() || table.is_ok(), "seed {seed}: {error}");
                    if let Ok(table) = table {
                        if let Ok((found, _)) = read(&table, Default::default()) {
                            promised.check(&found, seed);
                        }
                        work(&tables, &table, &mut promised, &random, &disk);
                    }
                }
                Err(error) => assert!(disk.is_power_off(), "seed {seed}: {error}"),
            }
            disk.crash(random.number());
        }
        let tables = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        if let Ok(table) = tables.table("t") {
            let (found, missing) = read(&table, Default::default()).unwrap();
            assert_eq!(missing, [], "seed {seed}");
            promised.check(&found, seed);
            table.compact(0).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            promised.check(&all(&table), seed);
            assert_eq!(files(&disk).len(), table.stats().unwrap().files, "seed {seed}: no file but those listed");
        } else {
            assert!(promised.appends.values().all(|(_, is_acknowledged)| !is_acknowledged), "seed {seed}");
        }
    }
}

#[test]
fn acknowledged_rows_are_there_exactly_once() {
    let seeds = std::env::var("TABLES_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(150);
    crash_and_check(0..seeds);
}

/// The same moment from which power is cut at every single operation of one compaction that also merges.
#[test]
fn a_compaction_may_stop_at_every_operation() {
    let prepared = || {
        let (disk, tables, table) = fresh();
        for part in 0..8 {
            let rows: Vec<Row> = (0..20).map(|at| Row::new(part * 20 + at, at)).collect();
            table.append_blocking(&batch(&rows), None).unwrap();
            if part < 7 {
                table.compact(0).unwrap();
            }
        }
        (disk, tables, table)
    };
    let (disk, tables, table) = prepared();
    let before = disk.operations();
    assert_eq!(table.compact(0).unwrap().merged, 8);
    let operations = disk.operations() - before;
    let expected = all(&table);
    assert!(operations > 10, "{operations}");
    drop((table, tables));
    for cut in 0..operations {
        for seed in 0..3 {
            let (disk, tables, table) = prepared();
            disk.cut_power_after(cut);
            let _ = table.compact(0);
            disk.crash(seed);
            drop((table, tables));
            let tables = open(&disk).unwrap_or_else(|error| panic!("cut {cut}, seed {seed}: {error}"));
            let table = tables.table("t").unwrap();
            assert_eq!(all(&table), expected, "cut {cut}, seed {seed}");
            table.compact(0).unwrap();
            assert_eq!(all(&table), expected, "cut {cut}, seed {seed}");
        }
    }
}
