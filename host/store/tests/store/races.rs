//! The races that the design is about, each made to happen.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use mainstay_base::{ErrorKind, Faults};
use mainstay_log::LogOptions;
use mainstay_store::{EngineKind, FieldWrite, KeyRange, Overtaken, Query, ScanOptions, Store, StoreOptions, Value};

use crate::support::*;

fn hooked() -> (Store, Arc<HookedEngine>) {
    let engine = Arc::new(HookedEngine::default());
    let store =
        Store::open_on(StoreOptions { folder: None, ..options(GatedDisk::new(), EngineKind::Memory) }, engine.clone());
    (store.unwrap(), engine)
}

#[test]
fn an_entry_that_moves_down_while_it_is_read_is_not_missed() {
    let (store, engine) = hooked();
    put(&store, "k", "v").unwrap();
    let view = store.view();
    // Opening asked it for its mark.
    let gets = engine.gets.load(Ordering::SeqCst);
    // Were the engine asked first, it would answer "nothing", the entry would move down, and the memtable would be empty.
    let moving = store.clone();
    *engine.after_get.lock() = Some(Box::new(move || {
        moving.checkpoint().unwrap();
    }));
    assert_eq!(get(&view, "k").as_deref(), Some("v"));
    assert_eq!(engine.gets.load(Ordering::SeqCst), gets, "the memtable has it");
    store.checkpoint().unwrap();
    assert_eq!(store.memtable_bytes(), 0);
    assert_eq!(get(&view, "k").as_deref(), Some("v"));
}

#[test]
fn entries_that_move_down_during_a_scan_appear_once() {
    let (store, engine) = hooked();
    for number in 0..2_000 {
        put(&store, &format!("{number:04}"), "v").unwrap();
    }
    for reverse in [false, true] {
        let view = store.view();
        let moving = store.clone();
        *engine.before_scan.lock() = Some(Box::new(move || {
            put(&moving, "0000-new", "later").unwrap();
            moving.checkpoint().unwrap();
        }));
        let options = ScanOptions { reverse, limit: 100_000, ..ScanOptions::default() };
        let page = view.scan(&space(), &[Default::default()], &options).unwrap();
        let mut keys: Vec<_> = page.iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect();
        keys.sort();
        let expect: Vec<_> = (0..2_000).map(|number| format!("{number:04}")).collect();
        assert_eq!(keys, expect);
        drop(view);
        commit(&store, |tx| tx.delete(&space(), b"0000-new")).unwrap();
    }
}

#[test]
fn guards_see_commits_that_are_on_their_way_and_views_do_not() {
    let disk = GatedDisk::new();
    let store = Store::open(options(disk.clone(), EngineKind::Memory)).unwrap();
    let view = store.view();
    disk.set_open(false);

    let mut first = store.begin(&view);
    first.expect_absent(&space(), b"k").unwrap();
    first.put(&space(), b"k", "1").unwrap();
    let mut first = Box::pin(store.commit(first));
    assert!(first.as_mut().now_or_never().is_none(), "it waits for the disk");

    let mut conflict = store.begin(&view);
    conflict.expect_absent(&space(), b"k").unwrap();
    conflict.put(&space(), b"k", "2").unwrap();
    let mut conflict = Box::pin(store.commit(conflict));
    assert!(conflict.as_mut().now_or_never().is_none(), "a refusal may not stand on what may vanish");
    let mut stale = store.begin(&view);
    stale.expect_unchanged(&space(), b"k").unwrap();
    let mut stale = Box::pin(store.commit(stale));
    assert!(stale.as_mut().now_or_never().is_none());

    let mut behind = store.begin(&view);
    behind.expect_value(&space(), b"k", "1").unwrap();
    behind.add(&space(), b"n", 5).unwrap();
    let mut behind = Box::pin(store.commit(behind));
    assert!(behind.as_mut().now_or_never().is_none(), "it stands behind the first");
    assert_eq!(get(&store.view(), "k"), None, "nothing is visible before it is durable");

    disk.set_open(true);
    let first = futures::executor::block_on(first).unwrap();
    let behind = futures::executor::block_on(behind).unwrap();
    assert!(first.sequence < behind.sequence);
    assert_eq!(behind.counters, [5]);
    assert_eq!(get(&store.view(), "k").as_deref(), Some("1"));
    for refused in [conflict, stale] {
        let error = futures::executor::block_on(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(Overtaken::of(&error).unwrap().key().ends_with(b"k"), "{error:?}");
    }
}

/// Who read, lost, renewed and tried again once the conflict was answered, must see what it lost to: with every commit a
/// sync apart, tries that do not wait for it all meet the same conflict.
#[test]
fn trying_again_after_a_conflict_sees_what_was_lost_to() {
    let disk = GatedDisk::new();
    let store = Store::open(options(disk.clone(), EngineKind::Memory)).unwrap();
    for round in 0..50 {
        disk.set_open(false);
        let mut first = store.begin(&store.view());
        first.put(&space(), b"k", round.to_string()).unwrap();
        let mut first = Box::pin(store.commit(first));
        assert!(first.as_mut().now_or_never().is_none());

        let mut second = store.begin(&store.view());
        second.expect_unchanged(&space(), b"k").unwrap();
        let mut second = Box::pin(store.commit(second));
        assert!(second.as_mut().now_or_never().is_none(), "round {round}");
        disk.set_open(true);
        assert_eq!(futures::executor::block_on(second).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(get(&store.view(), "k"), Some(round.to_string()));
        commit(&store, |tx| {
            tx.expect_unchanged(&space(), b"k")?;
            tx.put(&space(), b"k", "again")
        })
        .unwrap();
        futures::executor::block_on(first).unwrap();
    }
}

#[test]
fn losing_to_a_commit_that_fails_is_answered_too() {
    let disk = GatedDisk::new();
    let log = LogOptions { allocate_bytes: 0, ..LogOptions::default() };
    let store = Store::open(StoreOptions { log, ..options(disk.clone(), EngineKind::Memory) }).unwrap();
    put(&store, "old", "1").unwrap();
    let view = store.view();
    disk.set_open(false);
    let mut first = store.begin(&view);
    first.put(&space(), b"k", vec![0; 1 << 20]).unwrap();
    let mut first = Box::pin(store.commit(first));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = store.begin(&view);
    second.expect_absent(&space(), b"k").unwrap();
    let mut second = Box::pin(store.commit(second));
    assert!(second.as_mut().now_or_never().is_none());
    disk.disk.set_faults(Faults { capacity_bytes: Some(disk.disk.used_bytes()), ..Faults::default() });
    disk.set_open(true);
    assert_eq!(futures::executor::block_on(first).unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(futures::executor::block_on(second).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(get(&store.view(), "k"), None);
}

/// Three commits queue up behind a closed gate, then the disk is full. `allocate_bytes` decides whether the first has its
/// place already.
fn fail_behind_a_gate(allocate_bytes: u64, first_succeeds: bool) {
    let disk = GatedDisk::new();
    let log = LogOptions { allocate_bytes, ..LogOptions::default() };
    let store = Store::open(StoreOptions { log, ..options(disk.clone(), EngineKind::Memory) }).unwrap();
    put(&store, "old", "1").unwrap();
    commit(&store, |tx| tx.add(&space(), b"n", 1)).unwrap();
    disk.set_open(false);
    let view = store.view();

    let mut first = store.begin(&view);
    first.put(&space(), b"k", "1").unwrap();
    first.delete_range(&space(), &KeyRange::prefix(b"old")).unwrap();
    first.add(&space(), b"n", 10).unwrap();
    first.append(&space(), b"a", "1").unwrap();
    let field = FieldWrite { name: "f".into(), value: Some(Value::Integer(1)), rank: None };
    first.set_fields(&space(), "i", "d", vec![field]).unwrap();
    let mut first = Box::pin(store.commit(first));
    assert!(first.as_mut().now_or_never().is_none());
    while !disk.is_waited_for() {
        // The first one is a group of its own.
        std::thread::yield_now();
    }
    let mut behind = store.begin(&view);
    behind.expect_absent(&space(), b"old").unwrap();
    behind.add(&space(), b"n", 100).unwrap();
    behind.put(&space(), b"large", vec![0; 3 << 20]).unwrap();
    let mut behind = Box::pin(store.commit(behind));
    assert!(behind.as_mut().now_or_never().is_none(), "its guard holds when the first one does");

    disk.disk.set_faults(Faults { capacity_bytes: Some(disk.disk.used_bytes()), ..Faults::default() });
    disk.set_open(true);
    assert_eq!(futures::executor::block_on(first).is_ok(), first_succeeds);
    assert_eq!(futures::executor::block_on(behind).unwrap_err().kind(), ErrorKind::Exhausted);
    disk.disk.set_faults(Faults::default());

    let expect = if first_succeeds { 11 } else { 1 };
    // The log refuses everything until all that failed have been told, which is a moment after the first one was.
    let add = || commit(&store, |tx| tx.add(&space(), b"n", 1_000));
    let receipt = std::iter::repeat_with(add).find_map(|result| result.ok()).unwrap();
    assert_eq!(receipt.counters, [1_000 + expect]);
    let view = store.view();
    let found: Vec<_> = all(&view, &space()).into_iter().map(|(key, _)| key[..1].to_vec()).collect();
    let keys: &[&[u8]] = if first_succeeds { &[b"a", b"k", b"n"] } else { &[b"n", b"o"] };
    assert_eq!(found, keys);
    let matched = store.select(&space(), "i", &Query { limit: 1, ..Query::default() }).unwrap().matched;
    assert_eq!(matched, u64::from(first_succeeds));
}

#[test]
fn what_is_built_on_a_failed_commit_fails_with_it() {
    fail_behind_a_gate(0, false);
}

#[test]
fn a_failed_commit_leaves_what_was_before_it() {
    fail_behind_a_gate(1 << 20, true);
}

#[test]
fn a_dropped_commit_future_is_whole_or_nothing() {
    let disk = GatedDisk::new();
    let store = Store::open(options(disk.clone(), EngineKind::Memory)).unwrap();
    let begin = |value: &'static str| {
        let mut tx = store.begin(&store.view());
        tx.put(&space(), b"a", value).unwrap();
        tx.put(&space(), b"b", value).unwrap();
        tx
    };
    drop(store.commit(begin("never polled")));
    disk.set_open(false);
    assert!(store.commit(begin("polled once")).now_or_never().is_none());
    disk.set_open(true);
    put(&store, "c", "later").unwrap();
    let view = store.view();
    assert_eq!(get(&view, "a").as_deref(), Some("polled once"), "it was in the log's hands");
    assert_eq!(get(&view, "b").as_deref(), Some("polled once"));
    assert_eq!(view.sequence(), 2);
}

#[test]
fn no_update_is_lost_between_threads() {
    let disk = mainstay_base::SimDisk::new();
    let options = StoreOptions {
        // The applier runs all the time.
        memtable_bytes_apply: 1,
        memtable_bytes_max: 20_000,
        ..options(disk.clone(), EngineKind::Redb)
    };
    let store = Store::open(options).unwrap();
    const THREADS: u64 = 8;
    const UPDATES: u64 = 150;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..UPDATES).for_each(|_| add_one_by_hand(&store)));
        }
    });
    let check = |store: &Store| {
        let view = store.view();
        assert_eq!(get(&view, "sum").unwrap(), (THREADS * UPDATES).to_string());
        assert_eq!(counter(&view, "counter"), (THREADS * UPDATES) as i64);
        assert_eq!(all(&view, &mainstay_store::Space::host("fragments")).len() as u64, THREADS * UPDATES);
    };
    check(&store);
    drop(store);
    check(&open(&disk, EngineKind::Redb));
}

/// Read, change and write until nobody was faster.
fn add_one_by_hand(store: &Store) {
    loop {
        let view = store.view();
        let sum: u64 = get(&view, "sum").map_or(0, |text| text.parse().unwrap());
        let mut tx = store.begin(&view);
        tx.expect_unchanged(&space(), b"sum").unwrap();
        tx.put(&space(), b"sum", (sum + 1).to_string()).unwrap();
        tx.add(&space(), b"counter", 1).unwrap();
        tx.append(&mainstay_store::Space::host("fragments"), b"f", "x").unwrap();
        drop(view);
        match store.commit_blocking(tx) {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}
