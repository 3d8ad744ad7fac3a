//! What happens when memory, disk, time or arguments come to their end.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, ErrorKind, Faults, SimDisk};
use mainstay_store::limits::*;
use mainstay_store::{EngineKind, KeyRange, ScanOptions, Store, StoreOptions};

use crate::support::*;

fn small(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        memtable_bytes_max: 50_000,
        memtable_bytes_apply: 10_000,
        view_hold_max: Duration::from_millis(50),
        ..options(disk.clone(), EngineKind::Redb)
    }
}

#[test]
fn memory_stays_bounded_while_commits_come_faster_than_the_engine() {
    let disk = SimDisk::new();
    let store = Store::open(small(&disk)).unwrap();
    for number in 0..500 {
        put(&store, &format!("{number:05}"), &"x".repeat(500)).unwrap();
        assert!(store.memtable_bytes() < 50_000 + 1_000, "{}", store.memtable_bytes());
    }
    assert_eq!(all(&store.view(), &space()).len(), 500);
}

#[test]
fn a_view_that_is_held_too_long_expires_and_says_so() {
    let disk = SimDisk::new();
    let store = Store::open(small(&disk)).unwrap();
    put(&store, "k", "old").unwrap();
    let (view, mut tx) = (store.view(), store.begin(&store.view()));
    tx.expect_unchanged(&space(), b"k").unwrap();
    for number in 0..300 {
        put(&store, &format!("{number:05}"), &"x".repeat(500)).unwrap();
    }
    let error = view.get(&space(), b"k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("take a new one"), "{error}");
    let error = view.scan(&space(), &[KeyRange::default()], &ScanOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Nobody knows any more whether the key was written since: the caller must read again.
    assert_eq!(store.commit_blocking(tx).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(get(&store.view(), "k").as_deref(), Some("old"));
}

#[test]
fn an_engine_that_takes_nothing_refuses_commits_with_its_reason_and_nothing_is_lost() {
    let engine = Arc::new(HookedEngine::default());
    let store = Store::open_on(StoreOptions { folder: None, ..small(&SimDisk::new()) }, engine.clone()).unwrap();
    *engine.refuses.lock() = Some(Error::exhausted("the index's disk is full"));
    let mut committed = 0;
    let error = loop {
        match put(&store, &format!("{committed:05}"), &"x".repeat(500)) {
            Ok(_) => committed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.message().contains("the index's disk is full"), "{error}");
    assert_eq!(all(&store.view(), &space()).len(), committed);
    *engine.refuses.lock() = None;
    store.checkpoint().unwrap();
    put(&store, "more", "x").unwrap();
    assert_eq!(all(&store.view(), &space()).len(), committed + 1);
}

#[test]
fn a_full_disk_is_exhausted_and_nothing_is_half_visible() {
    for engine in [EngineKind::Memory, EngineKind::Redb] {
        let disk = SimDisk::new();
        let store = Store::open(options(disk.clone(), engine)).unwrap();
        put(&store, "before", "1").unwrap();
        disk.set_faults(Faults { capacity_bytes: Some(disk.used_bytes() + 100_000), ..Faults::default() });
        let mut committed = 0;
        let error = loop {
            let result = commit(&store, |tx| {
                tx.put(&space(), format!("a{committed:06}").as_bytes(), vec![b'x'; 100_000])?;
                tx.put(&space(), format!("b{committed:06}").as_bytes(), "y")?;
                tx.add(&space(), b"count", 1)
            });
            match result {
                Ok(_) => committed += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(error.message().contains("free some space"), "{error}");
        // The applier has no room either, and says so; afterwards both go on.
        let _ = store.checkpoint();
        let check = |store: &Store, more: usize| {
            let view = store.view();
            assert_eq!(counter(&view, "count"), committed as i64 + more as i64);
            assert_eq!(all(&view, &space()).len(), 2 + 2 * committed + 2 * more);
        };
        check(&store, 0);
        disk.set_faults(Faults::default());
        let more = || {
            commit(&store, |tx| {
                tx.put(&space(), b"a-more", "x")?;
                tx.put(&space(), b"b-more", "y")?;
                tx.add(&space(), b"count", 1)
            })
        };
        // The log refuses everything until all that failed have been told, which is a moment after the first one was.
        while more().is_err_and(|error| error.kind() == ErrorKind::Exhausted) {
            std::thread::yield_now();
        }
        check(&store, 1);
        store.checkpoint().unwrap();
        check(&store, 1);
        drop(store);
        check(&open(&disk, engine), 1);
    }
}

#[test]
fn a_closed_store_takes_nothing_more_and_can_be_opened_again() {
    for engine in [EngineKind::Memory, EngineKind::Redb] {
        let disk = SimDisk::new();
        let store = open(&disk, engine);
        put(&store, "k", "v").unwrap();
        let view = store.view();
        store.close().unwrap();
        store.close().unwrap();
        assert_eq!(put(&store, "k", "w").unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(get(&view, "k").as_deref(), Some("v"), "views stay readable");
        drop((view, store));
        assert_eq!(get(&open(&disk, engine).view(), "k").as_deref(), Some("v"));
    }
}

#[test]
fn limits_of_transactions_hold_at_n_and_not_at_n_plus_one() {
    let store = Store::in_memory();
    let mut tx = store.begin(&store.view());
    for number in 0..TRANSACTION_OPERATIONS_MAX {
        tx.put(&space(), &number.to_be_bytes(), "").unwrap();
    }
    assert_eq!(tx.delete(&space(), b"x").unwrap_err().kind(), ErrorKind::Invalid);
    store.commit_blocking(tx).unwrap();

    let mut tx = store.begin(&store.view());
    for number in 0..3u8 {
        tx.put(&space(), &[number], vec![0; VALUE_BYTES_MAX]).unwrap();
    }
    tx.put(&space(), b"4", vec![0; VALUE_BYTES_MAX - 4]).unwrap();
    assert_eq!(tx.put(&space(), b"5", "").unwrap_err().kind(), ErrorKind::Invalid, "16 MiB are reached");
    store.commit_blocking(tx).unwrap();
    assert_eq!(store.begin(&store.view()).put(&space(), b"", "").unwrap_err().kind(), ErrorKind::Invalid);
    let too_long = vec![0; VALUE_BYTES_MAX + 1];
    assert_eq!(store.begin(&store.view()).put(&space(), b"k", too_long).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn pages_end_at_their_size_and_large_entries_are_pages_of_their_own() {
    let store = Store::in_memory();
    for key in 0..4u8 {
        commit(&store, |tx| tx.put(&space(), &[key], vec![key; VALUE_BYTES_MAX])).unwrap();
    }
    let sizes = || {
        let mut options = ScanOptions::default();
        let mut counts = Vec::new();
        loop {
            let page = store.view().scan(&space(), &[KeyRange::default()], &options).unwrap();
            assert!(page.entries.len() <= PAGE_BYTES_MAX + KEY_BYTES_MAX + 8);
            counts.push(page.count);
            match page.next {
                Some(next) => options.after = Some(next),
                None => return counts,
            }
        }
    };
    assert_eq!(sizes(), [1, 1, 1, 1]);
    commit(&store, |tx| {
        tx.delete_range(&space(), &KeyRange::default())?;
        (0..5u8).try_for_each(|key| tx.put(&space(), &[key], vec![0; (2 << 20) - 9]))
    })
    .unwrap();
    assert_eq!(sizes(), [2, 2, 1]);
}

#[test]
fn a_range_with_too_many_keys_is_refused_before_anything_happens() {
    let store = Store::in_memory();
    for from in (0..DELETE_RANGE_KEYS_MAX as u32).step_by(10_000) {
        commit(&store, |tx| (from..from + 10_000).try_for_each(|key| tx.put(&space(), &key.to_be_bytes(), "")))
            .unwrap();
    }
    put(&store, "~one more", "").unwrap();
    let everything = || commit(&store, |tx| tx.delete_range(&space(), &KeyRange::default()));
    let error = everything().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    commit(&store, |tx| tx.delete(&space(), b"~one more")).unwrap();
    everything().unwrap();
    assert!(all(&store.view(), &space()).is_empty());
}

#[test]
fn arguments_out_of_bounds_are_invalid() {
    let store = Store::in_memory();
    let view = store.view();
    let scan = |ranges: usize, limit: u32| {
        let options = ScanOptions { limit, ..ScanOptions::default() };
        view.scan(&space(), &vec![KeyRange::default(); ranges], &options).map_err(|error| error.kind())
    };
    assert_eq!(scan(1, 0), Err(ErrorKind::Invalid));
    assert_eq!(scan(1, PAGE_ENTRIES_MAX + 1), Err(ErrorKind::Invalid));
    assert_eq!(scan(SCAN_RANGES_MAX + 1, 1), Err(ErrorKind::Invalid));
    assert!(scan(SCAN_RANGES_MAX, PAGE_ENTRIES_MAX).is_ok());
    assert!(scan(0, 1).is_ok());
    let many = |count: usize| view.get_many(&space(), &vec![b"k"; count]).map(|found| found.len());
    assert_eq!(many(GET_MANY_KEYS_MAX).unwrap(), GET_MANY_KEYS_MAX);
    assert_eq!(many(GET_MANY_KEYS_MAX + 1).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(view.get(&space(), &[0; KEY_BYTES_MAX + 1]).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn counters_refuse_to_overflow_and_what_is_no_counter() {
    let store = Store::in_memory();
    let add = |amount: i64| commit(&store, |tx| tx.add(&space(), b"n", amount)).map(|receipt| receipt.counters[0]);
    assert_eq!(add(i64::MAX).unwrap(), i64::MAX);
    assert_eq!(add(1).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(add(-1).unwrap(), i64::MAX - 1);
    put(&store, "n", "text").unwrap();
    let error = add(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("4 bytes"), "{error}");
}

#[test]
fn young_views_and_transactions_live_through_an_overload() {
    let disk = SimDisk::new();
    let store = Store::open(StoreOptions { view_hold_max: Duration::from_secs(60), ..small(&disk) }).unwrap();
    // Every commit waits for room, each with a view of its own open; none may be told that it came too late.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..100 {
                    let view = store.view();
                    let mut tx = store.begin(&view);
                    let key = format!("{thread}-{number}");
                    tx.expect_unchanged(&space(), key.as_bytes()).unwrap();
                    tx.put(&space(), key.as_bytes(), vec![b'x'; 2_000]).unwrap();
                    drop(view);
                    store.commit_blocking(tx).unwrap();
                }
            });
        }
    });
    assert_eq!(all(&store.view(), &space()).len(), 400);
}
