//! Power is cut anywhere: what was acknowledged is there, what was not is there whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Random, SeededRandom, SimDisk};
use mainstay_log::LogOptions;
use mainstay_store::{EngineKind, FieldWrite, Query, Space, Store, StoreOptions, Value};
use parking_lot::Mutex;

use crate::support::{all, commit, counter, space};

fn options(disk: &SimDisk, engine: EngineKind) -> StoreOptions {
    StoreOptions {
        folder: Some("data".into()),
        engine,
        disk: Arc::new(disk.clone()),
        log: LogOptions { segment_bytes: 3_000, allocate_bytes: 2_000, ..LogOptions::default() },
        apply_interval: Duration::from_micros(100),
        memtable_bytes_apply: 1_000,
        checkpoint_bytes: 2_000,
        ..StoreOptions::default()
    }
}

/// One commit of a writer: a pair of equal values, a fragment, a counter, an index document.
fn write(store: &Store, writer: u64, number: u64) -> mainstay_base::Result<()> {
    let value = format!("{writer}-{number}");
    let field = FieldWrite { name: "n".into(), value: Some(Value::Integer(number as i64)), rank: None };
    commit(store, |tx| {
        tx.put(&space(), format!("left{writer}").as_bytes(), value.clone())?;
        tx.put(&space(), format!("right{writer}").as_bytes(), value.clone())?;
        tx.append(&Space::host("log"), format!("{writer}").as_bytes(), value.clone())?;
        tx.add(&space(), format!("count{writer}").as_bytes(), 1)?;
        tx.add(&space(), b"total", 1)?;
        if number.is_multiple_of(3) {
            tx.delete_range(&Space::host("scratch"), &Default::default())?;
        }
        tx.put(&Space::host("scratch"), value.as_bytes(), "x")?;
        tx.set_fields(&space(), "i", &format!("{writer}"), vec![field])
    })
    .map(|_| ())
}

/// Hold what is there against what each writer was promised: `acknowledged` commits, and perhaps one more.
fn check(store: &Store, acknowledged: &[u64]) {
    let view = store.view();
    let fragments = all(&view, &Space::host("log"));
    let mut total = 0;
    for (writer, &acknowledged) in acknowledged.iter().enumerate() {
        let count = counter(&view, &format!("count{writer}")) as u64;
        assert!(count == acknowledged || count == acknowledged + 1, "{count} commits, {acknowledged} acknowledged");
        total += count;
        let own: Vec<String> = fragments
            .iter()
            .filter(|(key, _)| key[..key.len() - 10] == *format!("{writer}").as_bytes())
            .map(|(_, value)| String::from_utf8(value.clone()).unwrap())
            .collect();
        let expect: Vec<String> = (0..count).map(|number| format!("{writer}-{number}")).collect();
        assert_eq!(own, expect, "fragments in the order of the commits");
        let side = |side: &str| crate::support::get(&view, &format!("{side}{writer}"));
        assert_eq!(side("left"), expect.last().cloned());
        assert_eq!(side("left"), side("right"));
        let document = store.document(&space(), "i", &format!("{writer}")).unwrap();
        let packed = document.map(|packed| mainstay_store::index::unpack_documents(&packed).unwrap());
        let value = packed.map(|documents| documents[0].fields[0].value.clone().unwrap());
        assert_eq!(value, count.checked_sub(1).map(|last| Value::Integer(last as i64)));
    }
    assert_eq!(counter(&view, "total") as u64, total);
    let matched = store.select(&space(), "i", &Query { limit: 10, ..Query::default() }).unwrap().matched;
    assert_eq!(
        matched as usize,
        acknowledged.len() - (0..acknowledged.len()).filter(|w| counter(&view, &format!("count{w}")) == 0).count()
    );
}

/// Write until the power goes, from several threads; say how much each was promised.
fn write_until_dark(store: &Store, promised: &Mutex<Vec<u64>>) {
    let writers = promised.lock().len() as u64;
    std::thread::scope(|scope| {
        for writer in 0..writers {
            scope.spawn(move || {
                loop {
                    let number = promised.lock()[writer as usize];
                    match write(store, writer, number) {
                        Ok(()) => promised.lock()[writer as usize] += 1,
                        Err(_) => return,
                    }
                }
            });
        }
    });
}

fn crash_and_check(engine: EngineKind, writers: usize, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let random = SeededRandom::new(seed);
        let disk = SimDisk::new();
        let mut promised = vec![0; writers];
        // Several lives: what a crash left is the beginning of the next one.
        for life in 0..3 {
            disk.cut_power_after(random.number() % 400);
            match Store::open(options(&disk, engine)) {
                Ok(store) => {
                    if life > 0 {
                        check(&store, &promised);
                        // A commit that was not acknowledged may be there: go on from what is.
                        let view = store.view();
                        for (writer, promised) in promised.iter_mut().enumerate() {
                            *promised = counter(&view, &format!("count{writer}")) as u64;
                        }
                    }
                    let shared = Mutex::new(promised.clone());
                    write_until_dark(&store, &shared);
                    promised = shared.into_inner();
                    assert!(disk.is_power_off());
                }
                Err(error) => assert!(disk.is_power_off(), "seed {seed}, life {life}: {error}"),
            }
            disk.crash(random.number());
        }
        let store = Store::open(options(&disk, engine)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        check(&store, &promised);
    }
}

#[test]
fn nothing_acknowledged_is_lost_on_the_memory_engine() {
    crash_and_check(EngineKind::Memory, 1, 0..60);
    crash_and_check(EngineKind::Memory, 4, 60..100);
}

#[test]
fn nothing_acknowledged_is_lost_on_redb() {
    crash_and_check(EngineKind::Redb, 1, 0..60);
    crash_and_check(EngineKind::Redb, 4, 60..100);
}
