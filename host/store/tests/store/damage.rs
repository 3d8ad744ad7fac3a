//! What is damaged, missing or foreign is an error that says what, where, and what to do; nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_base::{Disk, ErrorKind, Random, RealDisk, SeededRandom, SimDisk};
use mainstay_log::LogOptions;
use mainstay_store::engine::{Ordered, RedbEngine, Write};
use mainstay_store::{EngineKind, KeyRange, ScanOptions, Store, StoreOptions};

use crate::support::*;

/// Why the store does not open.
fn refusal(options: StoreOptions) -> mainstay_base::Error {
    Store::open(options).err().expect("it must not open")
}

fn check(error: &mainstay_base::Error, kind: ErrorKind, says: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for word in says {
        assert!(error.message().contains(word), "`{word}` is missing in: {error}");
    }
}

fn files(disk: &SimDisk, folder: &str) -> Vec<PathBuf> {
    disk.list(Path::new(folder)).unwrap()
}

/// A store with commits, some of them only in the engine.
fn filled(disk: &SimDisk, engine: EngineKind) -> StoreOptions {
    let log = LogOptions { segment_bytes: 10_000, allocate_bytes: 0, ..LogOptions::default() };
    let options = StoreOptions { log, ..options(disk.clone(), engine) };
    let store = Store::open(options.clone()).unwrap();
    for number in 0..100 {
        put(&store, &format!("{number}"), &"x".repeat(1_000)).unwrap();
    }
    store.checkpoint().unwrap();
    options
}

#[test]
fn a_damaged_index_says_what_lives_only_there() {
    let disk = SimDisk::new();
    let options = filled(&disk, EngineKind::Redb);
    for byte in 0..64 {
        disk.flip_bit(Path::new("data/ordered.redb"), byte, 3).unwrap();
    }
    let before = files(&disk, "data/log");
    check(&refusal(options), ErrorKind::Internal, &["nothing was changed", "older ones are only in", "backup"]);
    assert_eq!(files(&disk, "data/log").len(), before.len());
}

#[test]
fn a_damaged_index_whose_log_is_whole_can_be_rebuilt_as_the_error_says() {
    let disk = SimDisk::new();
    let store = open(&disk, EngineKind::Redb);
    put(&store, "k", "v").unwrap();
    drop(store);
    for byte in 0..64 {
        disk.flip_bit(Path::new("data/ordered.redb"), byte, 3).unwrap();
    }
    let error = refusal(options(disk.clone(), EngineKind::Redb));
    check(&error, ErrorKind::Internal, &["still holds every commit", "move `data/ordered.redb` away"]);
    disk.rename(Path::new("data/ordered.redb"), Path::new("data/damaged")).unwrap();
    assert_eq!(get(&open(&disk, EngineKind::Redb).view(), "k").as_deref(), Some("v"));
}

#[test]
fn a_missing_log_or_index_is_noticed() {
    let disk = SimDisk::new();
    let options = filled(&disk, EngineKind::Redb);
    let log = files(&disk, "data/log");
    let saved = disk.after_crash(1);
    for segment in &log {
        disk.remove(segment).unwrap();
    }
    check(&refusal(options.clone()), ErrorKind::Internal, &["the log was replaced or removed", "backup"]);

    let options = StoreOptions { disk: Arc::new(saved.clone()), ..options };
    saved.remove(Path::new("data/ordered.redb")).unwrap();
    check(&refusal(options), ErrorKind::Internal, &["commits 1 to", "neither in the log", "backup"]);
}

#[test]
fn the_engine_of_a_folder_cannot_be_changed_by_mistake() {
    let disk = SimDisk::new();
    drop(open(&disk, EngineKind::Redb));
    for engine in [EngineKind::Memory, EngineKind::Sled] {
        let error = refusal(options(disk.clone(), engine));
        check(&error, ErrorKind::Invalid, &["made with the redb engine", engine.name()]);
    }
}

#[test]
fn two_stores_on_one_folder_are_refused() {
    for engine in [EngineKind::Memory, EngineKind::Sled, EngineKind::Redb] {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions { engine, ..StoreOptions::new(folder.path().join("data")) };
        let store = Store::open(options.clone()).unwrap();
        put(&store, "k", "v").unwrap();
        check(&refusal(options.clone()), ErrorKind::Unavailable, &["in use by another process"]);
        drop(store);
        let store = Store::open(options).unwrap();
        assert_eq!(get(&store.view(), "k").as_deref(), Some("v"));
    }
}

#[test]
fn a_damaged_sled_says_what_lives_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { engine: EngineKind::Sled, ..StoreOptions::new(folder.path()) };
    let store = Store::open(options.clone()).unwrap();
    put(&store, "k", "v").unwrap();
    drop(store);
    let conf = folder.path().join("ordered.sled/conf");
    let mut bytes = std::fs::read(&conf).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 0xff;
    std::fs::write(&conf, bytes).unwrap();
    let error = refusal(options.clone());
    check(&error, ErrorKind::Internal, &["sled index", "still holds every commit", "ordered.sled` away"]);
    std::fs::rename(folder.path().join("ordered.sled"), folder.path().join("damaged")).unwrap();
    assert_eq!(get(&Store::open(options).unwrap().view(), "k").as_deref(), Some("v"));
}

#[test]
fn an_engine_without_a_folder_is_refused() {
    let options = StoreOptions { folder: None, disk: Arc::new(RealDisk), ..StoreOptions::default() };
    check(&refusal(options), ErrorKind::Invalid, &["needs a folder"]);
}

/// What reading everything gives: right values, or an error that is typed. Anything else fails the test.
fn read_all(store: &Store) -> mainstay_base::Result<()> {
    let view = store.view();
    for number in 0..100 {
        let value = view.get(&space(), format!("{number}").as_bytes())?;
        assert!(value.as_deref() == Some(&[b'x'; 1_000][..]), "a wrong value under {number}");
    }
    let mut after = None;
    let mut count = 0;
    loop {
        let options = ScanOptions { after, limit: 10, ..ScanOptions::default() };
        let page = view.scan(&space(), &[KeyRange::default()], &options)?;
        for (_, value) in &page {
            assert!(value == [b'x'; 1_000], "a wrong value in a scan");
            count += 1;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(count, 100, "a scan missed entries");
    Ok(())
}

/// Whatever bit rots in the index, each read is right or an error of the kind `internal`.
#[test]
fn no_bit_of_the_index_rots_unnoticed() {
    let disk = SimDisk::new();
    let options = filled(&disk, EngineKind::Redb);
    let path = Path::new("data/ordered.redb");
    let length = disk.open(path).unwrap().length().unwrap();
    let (mut right, mut refused) = (0, 0);
    for seed in 0..400_u64 {
        let disk = disk.after_crash(seed);
        let random = SeededRandom::new(seed);
        // Most of the file is free; half of the flips go where the values are.
        let marks = match seed % 2 {
            0 => length,
            _ => length.min(160 << 10),
        };
        disk.flip_bit(path, random.number() % marks, (random.number() % 8) as u8).unwrap();
        let options = StoreOptions { disk: Arc::new(disk), ..options.clone() };
        let read = Store::open(options).and_then(|store| {
            read_all(&store)?;
            store.verify().map(drop)?;
            read_all(&store)
        });
        match read {
            Ok(()) => right += 1,
            Err(error) => {
                check(&error, ErrorKind::Internal, &["damaged", "backup"]);
                refused += 1;
            }
        }
    }
    println!("{right} flips did no harm, {refused} were noticed");
    assert!(refused > 20, "only {refused} flips hit anything");
}

/// The same while the store is open, and so past what is looked at when it is opened.
#[test]
fn verifying_finds_what_rotted_while_the_store_was_open() {
    let disk = SimDisk::new();
    let store = Store::open(filled(&disk, EngineKind::Redb)).unwrap();
    let entries = store.verify().unwrap();
    assert!(entries >= 100, "{entries}");
    let path = Path::new("data/ordered.redb");
    let length = disk.open(path).unwrap().length().unwrap();
    for byte in (4096..length).step_by(97) {
        disk.flip_bit(path, byte, 1).unwrap();
    }
    let error = store.verify().unwrap_err();
    check(&error, ErrorKind::Internal, &["damaged", "backup"]);
    assert!(read_all(&store).is_err(), "a store that is known to be damaged goes on answering");
}

#[test]
fn an_index_without_checksums_is_refused_and_left_alone() {
    let disk = SimDisk::new();
    disk.create_folder(Path::new("data")).unwrap();
    let redb = RedbEngine::open(Arc::new(disk.clone()), Path::new("data/ordered.redb")).unwrap();
    redb.write_batch(1, &[Write { key: "pk".into(), value: Some("v".into()) }]).unwrap();
    drop(redb);
    let error = refusal(options(disk.clone(), EngineKind::Redb));
    check(&error, ErrorKind::Invalid, &["older version", "checksums", "empty data folder"]);
}
