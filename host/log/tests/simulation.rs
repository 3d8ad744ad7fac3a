//! The log on a disk that tears, against a reference that knows what was promised.
//!
//! Every seed is one history of appends, crashes, reopenings, dropped segments, full disks, failing syncs and power cuts in
//! the middle of operations (`MAINSTAY_SEEDS` of them, 300 unless told). A second test crashes a short history at every
//! single operation. The test waits for every answer before it goes on, so a seed replays exactly.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use mainstay_base::{Error, ErrorKind, Faults, Random, SeededRandom, SimDisk};
use mainstay_log::{Done, Log, LogOptions, Opened, Recovery};

const FOLDER: &str = "data/log";

/// What was promised.
#[derive(Clone, Default)]
struct Reference {
    /// Records that must be there.
    acknowledged: BTreeMap<u64, Vec<u8>>,
    /// Records whose fate is unknown: they may be there, in order.
    unknown: BTreeMap<u64, Vec<u8>>,
    /// Records below this may have been dropped.
    dropped_below: u64,
}

impl Reference {
    fn last(&self) -> u64 {
        self.acknowledged.keys().next_back().copied().unwrap_or(0)
    }

    /// Hold an opened log against the promises; what survived is a promise from now on.
    fn check(&mut self, log: &Log, recovery: Recovery) {
        let Recovery { first, last, .. } = recovery;
        assert!(last >= self.last(), "lost: {} was acknowledged, the log ends at {last}", self.last());
        assert!(first <= self.dropped_below.max(1), "dropped too much: starts at {first}, not {}", self.dropped_below);
        assert_eq!((log.first(), log.durable()), (first, last));
        let records: Vec<(u64, Vec<u8>)> = log.replay(first).collect::<Result<_, _>>().expect("replay works");
        let sequences: Vec<u64> = records.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(sequences, (first..=last).collect::<Vec<_>>(), "holes");
        for (sequence, payload) in &records {
            let promised = self.acknowledged.get(sequence).or_else(|| self.unknown.get(sequence));
            assert!(promised == Some(payload), "record {sequence} is not what was appended");
        }
        self.acknowledged.extend(records);
        self.unknown.clear();
    }
}

/// One history.
struct World {
    disk: SimDisk,
    random: SeededRandom,
    options: LogOptions,
    reference: Reference,
    payloads: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let random = SeededRandom::new(seed);
        let options = LogOptions {
            segment_bytes: [2048, 8192, 40_000][pick(&random, 3)],
            group_bytes_max: [256, 2000, 100_000][pick(&random, 3)],
            allocate_bytes: [0, 1000, 16_384][pick(&random, 3)],
            ..LogOptions::default()
        };
        World { disk: SimDisk::new(), random, options, reference: Reference::default(), payloads: 0 }
    }

    fn pick(&self, count: usize) -> usize {
        pick(&self.random, count)
    }

    /// Different from every other one, and of any length.
    fn payload(&mut self) -> Vec<u8> {
        self.payloads += 1;
        let length = match self.pick(10) {
            0 => 0,
            1 => self.pick(5000),
            2 => 512 * self.pick(4),
            _ => self.pick(200),
        };
        let mut payload = vec![self.payloads as u8; length];
        payload.extend_from_slice(&self.payloads.to_le_bytes());
        payload
    }

    fn open(&mut self) -> Result<Log, Error> {
        let Opened { log, recovery } = Log::open(Arc::new(self.disk.clone()), Path::new(FOLDER), self.options.clone())?;
        self.reference.check(&log, recovery);
        Ok(log)
    }

    /// Open however often it takes: a crash, a failing sync or a full disk may interrupt it.
    fn open_in_the_end(&mut self) -> Log {
        loop {
            match self.open() {
                Ok(log) => return log,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Internal, "an honest crash is never damage: {error}");
                    self.disk.set_faults(Faults::default());
                    if self.disk.is_power_off() || self.pick(2) == 0 {
                        self.disk.crash(self.random.number());
                    }
                }
            }
        }
    }

    /// Append a few records together and wait for their answers. False: the log takes no more.
    fn append(&mut self, log: &Log, count: usize) -> bool {
        let (sender, answers) = mpsc::channel::<Result<u64, Error>>();
        let payloads: Vec<Vec<u8>> = (0..count).map(|_| self.payload()).collect();
        let records = || -> Vec<(Vec<u8>, Done)> {
            let one = |payload: &Vec<u8>| {
                let sender = sender.clone();
                (payload.clone(), Box::new(move |result| drop(sender.send(result))) as Done)
            };
            payloads.iter().map(one).collect()
        };
        let first = loop {
            match log.append_all(records()) {
                Ok(first) => break first,
                Err(error) if error.kind() == ErrorKind::Exhausted => std::thread::yield_now(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    return false;
                }
            }
        };
        let mut takes_more = true;
        for (sequence, payload) in (first..).zip(payloads.clone()) {
            match answers.recv().expect("every record is answered") {
                Ok(answered) => {
                    assert_eq!(answered, sequence, "answers come in order");
                    assert!(takes_more, "no record succeeds behind one that failed");
                    assert_eq!(self.reference.acknowledged.insert(sequence, payload), None, "a sequence is used once");
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    takes_more = false;
                    self.reference.unknown.insert(sequence, payload);
                }
                // Never written: it must not come back, so the reference does not know it.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}"),
            }
        }
        takes_more
    }

    fn step(&mut self, log: Log) -> Log {
        match self.pick(20) {
            0 => {
                self.disk.crash(self.random.number());
                drop(log);
                return self.open_in_the_end();
            }
            1 => {
                log.close().ok();
                return self.open_in_the_end();
            }
            2 | 3 => {
                let below = 1 + self.pick(self.reference.last() as usize + 2) as u64;
                self.reference.dropped_below = self.reference.dropped_below.max(below.min(self.reference.last() + 1));
                let dropped = log.drop_below(below);
                assert!(dropped.is_ok() || self.disk.is_power_off(), "{dropped:?}");
            }
            4 => self.disk.cut_power_after(self.pick(12) as u64),
            5 => self.disk.set_faults(Faults { fail_next_sync: true, ..self.disk.faults() }),
            6 => {
                let capacity_bytes = Some(self.disk.used_bytes() + self.pick(3000) as u64);
                self.disk.set_faults(Faults { capacity_bytes, ..self.disk.faults() });
            }
            7 => self.disk.set_faults(Faults::default()),
            _ => {}
        }
        let count = 1 + self.pick(5);
        if self.append(&log, count) {
            return log;
        }
        // Poisoned. The process may start again on the same page cache, or the machine may have lost power.
        drop(log);
        if self.disk.is_power_off() || self.pick(2) == 0 {
            self.disk.crash(self.random.number());
        }
        self.open_in_the_end()
    }
}

fn pick(random: &SeededRandom, count: usize) -> usize {
    (random.number() % count as u64) as usize
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    let mut log = world.open_in_the_end();
    for _ in 0..60 {
        log = world.step(log);
    }
    world.disk.set_faults(Faults::default());
    world.disk.crash(world.random.number());
    drop(log);
    drop(world.open_in_the_end());
    let log = world.open().expect("a log that was just closed opens");
    assert!(world.append(&log, 3), "and takes records");
}

fn seeds() -> u64 {
    std::env::var("MAINSTAY_SEEDS").map_or(300, |text| text.parse().expect("MAINSTAY_SEEDS is a number"))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_written() {
    for seed in 0..seeds() {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A short history over every kind of operation: creation, groups, rolling, dropping, closing, reopening.
fn script(world: &mut World) -> Result<(), Error> {
    let log = world.open()?;
    for count in [1, 1, 4, 2] {
        if !world.append(&log, count) {
            return Ok(());
        }
    }
    let below = world.reference.last();
    world.reference.dropped_below = below;
    log.drop_below(below)?;
    log.close()?;
    let log = world.open()?;
    for count in [3, 1] {
        if !world.append(&log, count) {
            return Ok(());
        }
    }
    log.drop_below(below)?;
    log.close()
}

fn small_world() -> World {
    let mut world = World::new(7);
    world.options = LogOptions { segment_bytes: 700, allocate_bytes: 512, ..LogOptions::default() };
    world
}

#[test]
fn a_crash_at_any_operation_keeps_the_promises() {
    let mut whole = small_world();
    script(&mut whole).expect("without faults it works");
    let operations = whole.disk.operations();
    assert!(operations > 40, "the script does too little: {operations}");
    for cut in 0..operations {
        let mut world = small_world();
        world.disk.cut_power_after(cut);
        let result = script(&mut world);
        assert!(world.disk.is_power_off(), "cut {cut}: {result:?}");
        for seed in 0..20 {
            let disk = world.disk.after_crash(seed);
            let reference = world.reference.clone();
            let mut after = World { disk, reference, ..small_world() };
            let log = after.open().unwrap_or_else(|error| panic!("cut {cut}, seed {seed}: {error}"));
            assert!(after.append(&log, 2), "cut {cut}, seed {seed}");
        }
    }
}
