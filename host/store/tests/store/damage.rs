//! What is damaged, missing or foreign is an error that says what, where, and what to do; nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Disk, ErrorKind, Random, RealDisk, SeededRandom, ShadowDisk, SimDisk};
use mainstay_log::LogOptions;
use mainstay_store::engine::{Ordered, RedbEngine, Write};
use mainstay_store::{EngineKind, KeyRange, Repaired, ScanOptions, Store, StoreOptions, examine_log, repair_log};

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
    let says = ["the log was replaced or removed", "backup", "nothing says whether there were commits from 101 on"];
    check(&refusal(options.clone()), ErrorKind::Internal, &says);
    assert_eq!(files(&disk, "data/log").len(), 0, "nothing was begun");

    let options = StoreOptions { disk: Arc::new(saved.clone()), ..options };
    saved.remove(Path::new("data/ordered.redb")).unwrap();
    let says = ["the ordered index ends at 0", "commits 1 to 100 cannot be read any more", "backup"];
    check(&refusal(options), ErrorKind::Internal, &says);
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

/// A folder of the real disk with 90 commits, all in the index after a clean stop or only the first 60; and its options.
fn folder_with_log(is_stopped_cleanly: bool) -> (tempfile::TempDir, StoreOptions) {
    let root = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { apply_interval: Duration::from_secs(3600), ..StoreOptions::new(root.path().join("data")) };
    let store = Store::open(options.clone()).unwrap();
    for number in 0..90 {
        put(&store, &format!("{number}"), "value").unwrap();
        if number == 59 {
            store.checkpoint().unwrap();
        }
    }
    if is_stopped_cleanly {
        store.close().unwrap();
        return (root, options);
    }
    // As a crash leaves it: what is on the disk now, while the store is open.
    let crashed = tempfile::tempdir().unwrap();
    copy(&root.path().join("data"), &crashed.path().join("data"));
    drop(store);
    let options = StoreOptions { folder: Some(crashed.path().join("data")), ..options };
    (crashed, options)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &to),
            false => assert!(std::fs::copy(&path, &to).is_ok()),
        }
    }
}

fn segment(folder: &Path) -> PathBuf {
    std::fs::read_dir(folder.join("log")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

/// Change a byte of the record with this sequence; 0 stands for the segment's header.
fn damage_record(folder: &Path, sequence: u64) {
    let path = segment(folder);
    let mut bytes = std::fs::read(&path).unwrap();
    let mut at = 64;
    for _ in 1..sequence {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += (32 + length).next_multiple_of(8);
    }
    // A header's salt: what cannot be made again.
    at = if sequence == 0 { 25 } else { at + 33 };
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

fn all_there(options: &StoreOptions, commits: u64) {
    let store = Store::open(options.clone()).unwrap();
    assert_eq!(store.sequence(), commits);
    for number in 0..90 {
        let value = get(&store.view(), &number.to_string());
        assert_eq!(value.as_deref(), (number < commits).then_some("value"), "{number}");
    }
    assert_eq!(put(&store, "more", "value").unwrap().sequence, commits + 1);
    drop(store);
    let store = Store::open(options.clone()).unwrap();
    assert_eq!(get(&store.view(), "more").as_deref(), Some("value"));
}

/// Damage a record, see what is said, do it, and have everything.
#[test]
fn a_damaged_log_below_the_index_is_set_aside_without_loss() {
    fn check_damage(is_stopped_cleanly: bool, sequence: u64) {
        let (_root, options) = folder_with_log(is_stopped_cleanly);
        let folder = options.folder.clone().unwrap();
        damage_record(&folder, sequence);
        let before = std::fs::read(segment(&folder)).unwrap();
        let error = refusal(options.clone());
        let held = if is_stopped_cleanly { 90 } else { 60 };
        let holds = format!("holds every commit up to {held}");
        check(
            &error,
            ErrorKind::Internal,
            &["is damaged at byte", &holds, "nothing is lost", "`mainstay doctor --repair`"],
        );
        assert_eq!(std::fs::read(segment(&folder)).unwrap(), before);
        let report = examine_log(&options).unwrap();
        assert!(report.is_lossless() && error.message().ends_with(&report.remedy()), "{error}");

        assert_eq!(repair_log(&options, Some(1)).unwrap_err().kind(), ErrorKind::Conflict);
        let old = folder.join("log.damaged-1");
        let repaired = Repaired::SetAside { old: old.clone(), newest: 90, lost: None };
        assert_eq!(repair_log(&options, None).unwrap(), repaired);
        assert_eq!(
            std::fs::read(old.join(segment(&folder).file_name().unwrap())).ok(),
            None,
            "the new one begins later"
        );
        let kept: Vec<_> = std::fs::read_dir(&old).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(std::fs::read(&kept[0]).unwrap(), before);
        all_there(&options, 90);
        assert_eq!(repair_log(&options, None).unwrap(), Repaired::NotNeeded);
    }
    check_damage(true, 1);
    check_damage(true, 62);
    check_damage(true, 90);
    check_damage(true, 0);
    // Records above the index are read behind the damage, and kept.
    check_damage(false, 1);
    check_damage(false, 60);
}

#[test]
fn a_damaged_log_above_the_index_says_what_it_loses() {
    for (sequence, first_lost, commits) in [(75, 75, 74), (61, 61, 60)] {
        let (_root, options) = folder_with_log(false);
        let folder = options.folder.clone().unwrap();
        damage_record(&folder, sequence);
        let error = refusal(options.clone());
        let loses = format!("commits {first_lost} to 90 cannot be read any more");
        let command = format!("`mainstay doctor --repair --give-up-from {first_lost}`");
        check(&error, ErrorKind::Internal, &["holds every commit up to 60", &loses, "from a backup", &command]);
        for wrong in [None, Some(first_lost - 1), Some(90)] {
            let refused = repair_log(&options, wrong).unwrap_err();
            check(&refused, ErrorKind::Conflict, &["nothing was changed", &command]);
        }
        let repaired = repair_log(&options, Some(first_lost)).unwrap();
        let Repaired::SetAside { newest, lost, .. } = repaired else { panic!("{repaired:?}") };
        assert_eq!((newest, lost), (commits, Some((first_lost, 90))));
        all_there(&options, commits);
    }
}

#[test]
fn a_log_that_is_gone_is_begun_anew_only_when_asked() {
    let (_root, options) = folder_with_log(true);
    let folder = options.folder.clone().unwrap();
    std::fs::remove_dir_all(folder.join("log")).unwrap();
    let says = ["nothing says whether there were commits from 91 on", "`mainstay doctor --repair --give-up-from 91`"];
    check(&refusal(options.clone()), ErrorKind::Internal, &says);
    assert!(repair_log(&options, None).is_err());
    repair_log(&options, Some(91)).unwrap();
    all_there(&options, 90);
}

#[test]
fn a_repair_that_was_interrupted_is_finished() {
    let (_root, options) = folder_with_log(true);
    let folder = options.folder.clone().unwrap();
    damage_record(&folder, 62);
    repair_log(&options, None).unwrap();
    // As a crash between the two renames leaves it.
    std::fs::rename(folder.join("log"), folder.join("log.repaired")).unwrap();
    all_there(&options, 90);
    // And as one before them does: the old log is still the log, and the unfinished one is no obstacle.
    damage_record(&folder, 1);
    copy(&folder.join("log"), &folder.join("log.repaired"));
    copy(&folder.join("log"), &folder.join("log.repairing"));
    repair_log(&options, None).unwrap();
    all_there(&options, 91);
    assert!(folder.join("log.damaged-2").exists());
}

#[test]
fn a_damaged_index_is_no_ground_to_repair_a_log_on() {
    let (_root, options) = folder_with_log(true);
    let folder = options.folder.clone().unwrap();
    damage_record(&folder, 62);
    let index = folder.join("ordered.redb");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[..64].fill(7);
    std::fs::write(&index, bytes).unwrap();
    check(&refusal(options.clone()), ErrorKind::Internal, &["The log is damaged too", "record 62", "from a backup"]);
    assert!(repair_log(&options, None).is_err());
    assert!(!folder.join("log.damaged-1").exists());
}

/// What a shadow of the disk shows is what is there, and nothing that is done to it reaches the disk.
#[test]
fn a_store_on_a_shadow_changes_nothing() {
    let (_root, options) = folder_with_log(false);
    let folder = options.folder.clone().unwrap();
    let bytes = || {
        let names = ["ordered.redb".to_owned(), format!("log/{}", segment(&folder).file_name().unwrap().display())];
        names.map(|name| std::fs::read(folder.join(name)).unwrap())
    };
    let before = bytes();
    let shadow = StoreOptions { disk: Arc::new(ShadowDisk::new(64 << 20)), ..options.clone() };
    let store = Store::open(shadow).unwrap();
    assert_eq!(store.sequence(), 90);
    put(&store, "new", "value").unwrap();
    store.verify().unwrap();
    store.close().unwrap();
    drop(store);
    assert!(bytes() == before);
    all_there(&options, 90);
}
