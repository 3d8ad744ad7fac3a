//! What callers and operators see: order, limits, full disks, damaged files, many threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, mpsc};

use mainstay_base::{Disk, Error, ErrorKind, Faults, SimDisk};
use mainstay_log::{Corruption, Done, Log, LogOptions, Opened, Recovery, Survey, survey};

const FOLDER: &str = "log";

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096, allocate_bytes: 1024, ..LogOptions::default() }
}

fn open(disk: &SimDisk) -> Opened {
    Log::open(Arc::new(disk.clone()), Path::new(FOLDER), options()).expect("the log opens")
}

/// A closed log of this many records of 100 bytes, each filled with its sequence.
fn written(records: u64) -> SimDisk {
    let disk = SimDisk::new();
    let Opened { log, .. } = open(&disk);
    for sequence in 1..=records {
        assert_eq!(log.append_blocking(vec![sequence as u8; 100]).unwrap(), sequence);
    }
    log.close().unwrap();
    disk
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(FOLDER)).unwrap()
}

#[test]
fn records_come_back_in_order() {
    let disk = written(100);
    assert!(segments(&disk).len() > 3);
    let Opened { log, recovery } = open(&disk);
    assert_eq!(recovery, Recovery { first: 1, last: 100, cut_bytes: 0 });
    fn check(log: &Log, from: u64, expect: std::ops::RangeInclusive<u64>) {
        let expect: Vec<_> = expect.map(|sequence| (sequence, vec![sequence as u8; 100])).collect();
        assert_eq!(log.replay(from).collect::<Result<Vec<_>, _>>().unwrap(), expect, "from {from}");
    }
    check(&log, 0, 1..=100);
    check(&log, 1, 1..=100);
    check(&log, 50, 50..=100);
    check(&log, 100, 100..=100);
    assert_eq!(log.replay(101).count(), 0);
    log.append_blocking(vec![101; 100]).unwrap();
    check(&log, 99, 99..=101);
}

#[test]
fn dropping_keeps_what_was_not_given_up() {
    let disk = written(100);
    let Opened { log, .. } = open(&disk);
    log.drop_below(60).unwrap();
    let first = log.first();
    assert!((2..=60).contains(&first), "{first}");
    assert_eq!(log.replay(60).count(), 41);
    let refused = log.replay(1).next().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    // Never beyond what is durable, and never the segment that is written.
    log.drop_below(u64::MAX).unwrap();
    assert_eq!(segments(&disk).len(), 1);
    assert_eq!(log.append_blocking(vec![1]).unwrap(), 101);
    log.close().unwrap();
    disk.crash(3);
    let Opened { log, recovery } = open(&disk);
    assert_eq!(recovery.last, 101);
    assert_eq!(log.append_blocking(vec![2]).unwrap(), 102);
}

#[test]
fn a_reader_that_has_seen_more_than_the_log_is_told() {
    let Opened { log, .. } = open(&written(5));
    assert_eq!(log.replay(6).count(), 0);
    let error = log.replay(7).next().unwrap().unwrap_err();
    assert!(error.message().contains("ends at record 5"), "{error}");
}

#[test]
fn limits_hold_at_n_and_n_plus_one() {
    let limits = LogOptions { record_bytes_max: 100, queue_bytes_max: 150, ..options() };
    let Opened { log, .. } = Log::open(Arc::new(SimDisk::new()), Path::new(FOLDER), limits).unwrap();
    log.append_blocking(vec![0; 100]).unwrap();
    assert_eq!(log.append_blocking(vec![0; 101]).unwrap_err().kind(), ErrorKind::Invalid);

    // Hold the writing thread inside a completion, so that the queue fills.
    let (entered, inside) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    log.append(vec![], move |_| {
        entered.send(()).unwrap();
        released.recv().unwrap();
    })
    .unwrap();
    inside.recv().unwrap();
    log.append(vec![0; 100], |_| {}).unwrap();
    log.append(vec![0; 50], |_| {}).unwrap();
    let full = log.append(vec![0; 1], |_| {}).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Exhausted, "{full}");
    release.send(()).unwrap();
    assert_eq!(log.append_blocking(vec![]).unwrap(), 5);
}

#[test]
fn a_full_disk_fails_what_waits_and_the_log_goes_on() {
    let disk = SimDisk::new();
    let Opened { log, .. } = open(&disk);
    log.append_blocking(vec![1; 100]).unwrap();
    disk.set_faults(Faults { capacity_bytes: Some(disk.used_bytes()), ..Faults::default() });

    let (sender, answers) = mpsc::channel::<Result<u64, Error>>();
    let record = |byte: u8| {
        let sender = sender.clone();
        (vec![byte; 3000], Box::new(move |result| sender.send(result).unwrap()) as Done)
    };
    assert_eq!(log.append_all(vec![record(2), record(3)]).unwrap(), 2);
    for _ in 0..2 {
        let error = answers.recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    }
    disk.set_faults(Faults::default());
    let again = loop {
        // Refused only while the completions above still run.
        match log.append_blocking(vec![4; 3000]) {
            Ok(sequence) => break sequence,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Exhausted),
        }
    };
    assert_eq!(again, 2, "the sequences of what failed are given out again");
    disk.crash(5);
    drop(log);
    let records: Vec<_> = open(&disk).log.replay(1).map(|record| record.unwrap().1).collect();
    assert_eq!(records, [vec![1; 100], vec![4; 3000]]);
}

#[test]
fn a_failed_sync_poisons_the_log_until_it_is_opened_again() {
    let disk = SimDisk::new();
    let Opened { log, .. } = open(&disk);
    log.append_blocking(vec![1]).unwrap();
    disk.set_faults(Faults { fail_next_sync: true, ..Faults::default() });
    assert_eq!(log.append_blocking(vec![2]).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.append_blocking(vec![3]).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.close().unwrap_err().kind(), ErrorKind::Unavailable);

    // The page cache still shows record 2. It is shown to the reader only because opening wrote and synced it again.
    let Opened { log, recovery } = open(&disk);
    assert_eq!(recovery.last, 2);
    log.append_blocking(vec![4]).unwrap();
    for seed in 0..20 {
        assert_eq!(open(&disk.after_crash(seed)).recovery.last, 3);
    }
}

#[test]
fn damage_is_named_and_nothing_is_cut() {
    /// Flip a bit of the record with this sequence, and expect to be told.
    fn check(sequence: u64) {
        let disk = written(100);
        let first_of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
        let path = segments(&disk).into_iter().rfind(|path| first_of(path) <= sequence).unwrap();
        // 32 bytes of frame and 100 of payload make 136 with padding.
        let record_at = 64 + 136 * (sequence - first_of(&path));
        let length = disk.open(&path).unwrap().length().unwrap();
        disk.flip_bit(&path, record_at + 50, 3).unwrap();

        let opened = Log::open(Arc::new(disk.clone()), Path::new(FOLDER), options());
        let error = match opened {
            Ok(Opened { log, .. }) => log.replay(1).find_map(|record| record.err()).expect("replay notices"),
            Err(error) => error,
        };
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Corruption>());
        let expect = (&path, record_at, sequence);
        assert_eq!(source.map(|found| (&found.file, found.offset, found.sequence)), Some(expect), "{error}");
        assert!(error.message().contains("nothing was changed"), "{error}");
        assert_eq!(disk.open(&path).unwrap().length().unwrap(), length);
    }
    // In the first segment, the middle, and as the very last record: the mark of the clean close proves it was durable.
    for sequence in [1, 29, 30, 31, 50, 99, 100] {
        check(sequence);
    }
}

#[test]
fn a_damaged_header_or_a_missing_segment_is_no_empty_log() {
    fn check(damage: impl Fn(&SimDisk, &[PathBuf]), expect: &str) {
        let disk = written(100);
        damage(&disk, &segments(&disk));
        let error = match Log::open(Arc::new(disk.clone()), Path::new(FOLDER), options()) {
            Ok(Opened { log, .. }) => log.replay(1).find_map(|record| record.err()).expect("replay notices"),
            Err(error) => error,
        };
        assert!(error.message().contains(expect), "{error}");
    }
    check(|disk, paths| disk.flip_bit(&paths[0], 20, 0).unwrap(), "header is damaged");
    check(|disk, paths| disk.flip_bit(paths.last().unwrap(), 20, 0).unwrap(), "header is damaged");
    check(|disk, paths| disk.remove(&paths[0]).unwrap(), "starts at record");
    check(|disk, paths| disk.remove(&paths[1]).unwrap(), "no whole record");
    check(
        |disk, paths| disk.rename(paths.last().unwrap(), Path::new("log/00000000000000000099.log")).unwrap(),
        "renamed",
    );
}

/// What the survey says of a log of 100 records, of which the caller has some, after somebody has changed it.
fn surveyed(have: u64, damage: impl FnOnce(&SimDisk, &[PathBuf])) -> (Survey, Vec<u64>) {
    let disk = written(100);
    damage(&disk, &segments(&disk));
    let before: Vec<_> = segments(&disk).iter().map(|path| disk.open(path).unwrap().length().unwrap()).collect();
    let mut read = Vec::new();
    let found = survey(&disk, Path::new(FOLDER), have, &mut |sequence, payload| {
        assert_eq!(payload, vec![sequence as u8; 100]);
        read.push(sequence);
        Ok(())
    });
    let after: Vec<_> = segments(&disk).iter().map(|path| disk.open(path).unwrap().length().unwrap()).collect();
    assert_eq!(before, after, "a survey changes nothing");
    (found.unwrap(), read)
}

#[test]
fn a_survey_says_what_can_be_had_and_what_not() {
    /// Bytes from the start of the segment that holds it to a record.
    fn place(paths: &[PathBuf], sequence: u64) -> (PathBuf, u64) {
        let first_of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
        let path = paths.iter().rfind(|path| first_of(path) <= sequence).unwrap();
        (path.clone(), 64 + 136 * (sequence - first_of(path)))
    }
    #[track_caller]
    fn check(have: u64, damage: impl FnOnce(&SimDisk, &[PathBuf]), to: u64, lost: Option<(u64, u64)>, damages: u64) {
        let (found, read) = surveyed(have, damage);
        assert_eq!((found.readable_to, found.lost(), found.damages), (to, lost, damages), "{found:?}");
        assert_eq!(read, (have + 1..=to).collect::<Vec<_>>());
        assert!(found.is_end_known, "{found:?}");
    }
    let flip = |sequence: u64, byte: u64| {
        move |disk: &SimDisk, paths: &[PathBuf]| {
            let (path, at) = place(paths, sequence);
            disk.flip_bit(&path, at + byte, 3).unwrap();
        }
    };
    check(0, |_, _| {}, 100, None, 0);
    check(100, |_, _| {}, 100, None, 0);
    // In a payload and in a frame's header; below, at and above what the caller has.
    for byte in [50, 4] {
        check(40, flip(20, byte), 100, None, 1);
        check(40, flip(40, byte), 100, None, 1);
        check(40, flip(41, byte), 40, Some((41, 100)), 1);
        check(40, flip(70, byte), 69, Some((70, 100)), 1);
        check(99, flip(100, byte), 99, Some((100, 100)), 1);
        check(100, flip(100, byte), 100, None, 1);
    }
    // A header whose salt is whole is made again from the file's name; one whose salt is not is followed unproved.
    check(0, |disk, paths| disk.flip_bit(&paths[0], 60, 0).unwrap(), 100, None, 1);
    check(0, |disk, paths| disk.flip_bit(paths.last().unwrap(), 3, 0).unwrap(), 100, None, 1);
    check(0, |disk, paths| disk.flip_bit(&paths[0], 24, 0).unwrap(), 0, Some((1, 100)), 1);
    check(100, |disk, paths| disk.flip_bit(paths.last().unwrap(), 24, 0).unwrap(), 100, None, 1);
    // A segment that is gone.
    let gone = |at: usize| move |disk: &SimDisk, paths: &[PathBuf]| disk.remove(&paths[at]).unwrap();
    check(0, gone(0), 0, Some((1, 100)), 0);
    check(60, gone(1), 100, None, 1);
    check(0, gone(1), 29, Some((30, 100)), 1);

    let (found, _) = surveyed(100, |disk, paths| {
        for path in paths {
            disk.remove(path).unwrap();
        }
    });
    assert_eq!(found, Survey { readable_to: 100, ..Survey::default() });
}

#[test]
fn a_log_that_ends_before_what_is_known_is_not_cut() {
    let disk = written(100);
    let path = segments(&disk).pop().unwrap();
    // The last record and the mark behind it: what a torn tail looks like.
    let file = disk.open(&path).unwrap();
    let length = file.length().unwrap();
    file.write_at(&[7; 160], length - 168).unwrap();
    let beyond = |known| Log::open_beyond(Arc::new(disk.clone()), Path::new(FOLDER), options(), known);
    let error = beyond(100).err().expect("record 100 is gone");
    let says = "ends here, but what reads it has seen records up to 100";
    assert!(error.message().contains(says) && Corruption::of(&error).unwrap().sequence == 100, "{error}");
    assert_eq!(file.length().unwrap(), length);
    assert_eq!(beyond(99).unwrap().recovery.last, 99);
    let empty = SimDisk::new();
    assert!(Log::open_beyond(Arc::new(empty.clone()), Path::new(FOLDER), options(), 1).is_err());
    assert_eq!(segments(&empty).len(), 0);
}

#[test]
fn a_log_can_begin_anywhere() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let begin = |first| Log::begin(disk.clone(), Path::new(FOLDER), options(), first);
    let log = begin(92).unwrap();
    assert_eq!((log.append_blocking(vec![1]).unwrap(), log.append_blocking(vec![2]).unwrap()), (92, 93));
    log.close().unwrap();
    assert_eq!(begin(94).err().unwrap().kind(), ErrorKind::Invalid);
    let recovery = Log::open(disk.clone(), Path::new(FOLDER), options()).unwrap().recovery;
    assert_eq!((recovery.first, recovery.last), (92, 93));
}

#[test]
fn foreign_bytes_behind_the_tail_are_cut_and_reported() {
    let disk = written(5);
    let path = segments(&disk).pop().unwrap();
    let file = disk.open(&path).unwrap();
    let length = file.length().unwrap();
    // A copy of the log's own first record does not pass for a later one.
    let mut copy = vec![0; 136];
    file.read_at(&mut copy, 64).unwrap();
    file.write_at(&copy, length).unwrap();
    let Opened { log, recovery } = open(&disk);
    assert_eq!((recovery.last, recovery.cut_bytes > 0), (5, true));
    assert_eq!(log.append_blocking(vec![6]).unwrap(), 6);
}

#[test]
fn a_payload_that_looks_like_the_log_stays_a_payload() {
    let disk = written(5);
    let path = segments(&disk).pop().unwrap();
    let mut bytes = vec![0; disk.open(&path).unwrap().length().unwrap() as usize];
    disk.open(&path).unwrap().read_at(&mut bytes, 0).unwrap();
    let disk = SimDisk::new();
    let Opened { log, .. } = open(&disk);
    log.append_blocking(vec![0; 10]).unwrap();
    // A torn record whose payload holds whole frames of another segment, marks among them: still just torn.
    disk.cut_power_after(1);
    log.append_blocking(bytes.clone()).unwrap_err();
    drop(log);
    for seed in 0..50 {
        let Opened { log, recovery } = open(&disk.after_crash(seed));
        match recovery.last {
            1 => {}
            2 => assert_eq!(log.replay(2).next().unwrap().unwrap().1, bytes),
            other => panic!("{other} records"),
        }
    }
}

#[test]
fn a_panic_in_a_completion_closes_the_log() {
    let Opened { log, .. } = open(&SimDisk::new());
    let barrier = Arc::new(Barrier::new(2));
    let inside = barrier.clone();
    log.append(vec![], move |_| {
        inside.wait();
        inside.wait();
        panic!("of the test");
    })
    .unwrap();
    barrier.wait();
    let (sender, answer) = mpsc::channel();
    log.append(vec![], move |result| sender.send(result).unwrap()).unwrap();
    barrier.wait();
    assert_eq!(answer.recv().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.append_blocking(vec![]).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_completion_may_hold_the_last_reference() {
    let Opened { log, .. } = open(&SimDisk::new());
    let log = Arc::new(log);
    let (sender, answer) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let held = log.clone();
    log.append(vec![], move |result| {
        gone.recv().unwrap();
        drop(held);
        sender.send(result).unwrap();
    })
    .unwrap();
    drop(log);
    go.send(()).unwrap();
    assert_eq!(answer.recv().unwrap().unwrap(), 1);
}

/// Threads append and wait while the power goes: what they were answered for is there, each in its own order.
#[test]
fn many_threads_lose_nothing() {
    for seed in 0..10 {
        let disk = SimDisk::new();
        let log = Arc::new(open(&disk).log);
        disk.cut_power_after(100 + seed * 37);
        let append = |thread: u8| {
            let log = log.clone();
            std::thread::spawn(move || {
                let answers =
                    (0..).map(|number: u32| log.append_blocking([&[thread][..], &number.to_le_bytes()].concat()));
                answers.map_while(Result::ok).collect::<Vec<u64>>()
            })
        };
        let threads: Vec<_> = (0..8).map(append).collect();
        let acknowledged: Vec<Vec<u64>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        drop(log);
        disk.crash(seed);
        let records: Vec<_> = open(&disk).log.replay(1).collect::<Result<_, _>>().unwrap();
        for (thread, sequences) in acknowledged.iter().enumerate() {
            for (number, sequence) in sequences.iter().enumerate() {
                let expect = [&[thread as u8][..], &(number as u32).to_le_bytes()].concat();
                assert_eq!(records[*sequence as usize - 1], (*sequence, expect));
            }
        }
        assert!(acknowledged.iter().map(Vec::len).sum::<usize>() > 20);
    }
}
