//! Every engine against the model, over random histories: transactions with all guards and operations, views held across
//! commits, scans with all options, checkpoints, reopening, crashes.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{RealDisk, SimDisk};
use mainstay_log::LogOptions;
use mainstay_store::{EngineKind, KeyRange, ScanOptions, Store, StoreOptions, Transaction, View};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::model::{Expect, INDEX, Model, Moment, Op, Scan, Step, space, steps};

/// Where the files are.
enum Place {
    Simulated(SimDisk),
    Real(TempDir),
}

struct Subject {
    engine: EngineKind,
    /// Whether the applier runs all the time, or only when a step says so.
    busy: bool,
    place: Place,
    store: Option<Store>,
    /// Open views and what they must see.
    views: Vec<(View, Moment)>,
    model: Model,
}

impl Subject {
    fn new(engine: EngineKind, busy: bool) -> Subject {
        let place = match engine {
            EngineKind::Sled => Place::Real(tempfile::tempdir().unwrap()),
            EngineKind::Memory | EngineKind::Redb => Place::Simulated(SimDisk::new()),
        };
        let mut subject = Subject { engine, busy, place, store: None, views: Vec::new(), model: Model::new() };
        subject.open();
        subject
    }

    fn open(&mut self) {
        let options = StoreOptions {
            engine: self.engine,
            // Segments are dropped now and then.
            log: LogOptions { segment_bytes: 4_000, allocate_bytes: 1_000, ..LogOptions::default() },
            apply_interval: if self.busy { Duration::from_micros(100) } else { Duration::from_secs(3_600) },
            memtable_bytes_apply: if self.busy { 1 } else { 1 << 20 },
            checkpoint_bytes: if self.busy { 100 } else { 64 << 20 },
            ..StoreOptions::default()
        };
        let options = match &self.place {
            Place::Simulated(disk) => {
                StoreOptions { folder: Some("data".into()), disk: Arc::new(disk.clone()), ..options }
            }
            Place::Real(folder) => {
                StoreOptions { folder: Some(folder.path().into()), disk: Arc::new(RealDisk), ..options }
            }
        };
        self.store = Some(Store::open(options).unwrap());
        self.take_view();
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn take_view(&mut self) {
        let view = self.store().view();
        assert_eq!(view.sequence(), self.model.now.sequence);
        self.views.push((view, self.model.now.clone()));
    }

    fn close(&mut self) {
        self.views.clear();
        self.store = None;
    }

    /// Lose power: only what was synced is sure to stay, and everything acknowledged was.
    fn crash(&mut self, seed: u64) {
        if let Place::Simulated(disk) = &self.place {
            let after = disk.after_crash(seed);
            self.close();
            self.place = Place::Simulated(after);
        } else {
            self.close();
        }
        self.open();
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Commit { view, guards, ops } => {
                let (view, moment) = &self.views[view.index(self.views.len())];
                let mut tx = self.store().begin(view);
                fill(&mut tx, &self.model.now, guards, ops);
                let begun = moment.sequence;
                let result = self.store().commit_blocking(tx);
                let expect = self.model.commit(begun, guards, ops);
                let result = result.map_err(|error| error.kind());
                assert_eq!(result.as_ref().map(|receipt| &receipt.counters), expect.as_ref());
                if let Ok(receipt) = result {
                    assert_eq!(receipt.sequence, self.model.now.sequence);
                }
            }
            Step::TakeView => self.take_view(),
            Step::DropView(which) if self.views.len() > 1 => {
                self.views.swap_remove(which.index(self.views.len()));
            }
            Step::DropView(_) => {}
            Step::Get(which, (space_number, key)) => {
                let (view, moment) = &self.views[which.index(self.views.len())];
                let found = view.get(&space(*space_number), key).unwrap().map(|value| value.to_vec());
                assert_eq!(found.as_ref(), moment.entries.get(&(*space_number, key.clone())));
                let many = view.get_many(&space(*space_number), &[&key[..], b"never there", key]).unwrap();
                assert_eq!(
                    many.iter().map(|value| value.is_some()).collect::<Vec<_>>(),
                    [found.is_some(), false, found.is_some()]
                );
            }
            Step::Scan(which, scan) => {
                let (view, moment) = &self.views[which.index(self.views.len())];
                assert_eq!(scan_all(view, scan), moment.scan(scan));
            }
            Step::Checkpoint => {
                self.store().checkpoint().unwrap();
            }
            Step::Reopen => {
                self.close();
                self.open();
            }
            Step::Crash(seed) => self.crash(*seed),
        }
    }

    /// Everything that can be seen, at every view.
    fn check_all(&self) {
        for (view, moment) in &self.views {
            for number in 0..3 {
                let ranges = vec![(Vec::new(), None)];
                let scan = Scan { space: number, ranges, reverse: false, keys_only: false, limit: 5 };
                assert_eq!(scan_all(view, &scan), moment.scan(&scan));
            }
        }
        for number in 0..3 {
            for id in ["a", "b", "\0", "é", "aa", "ab", "ba", "bb", "a\0", "aé", "\0a", "éé", "é\0"] {
                let found = self.store().document(&space(number), INDEX, id).unwrap();
                assert_eq!(found, self.model.index.document(&number, INDEX, id), "document {id}");
            }
        }
    }
}

fn fill(tx: &mut Transaction, now: &Moment, guards: &[((u8, Vec<u8>), Expect)], ops: &[Op]) {
    for ((number, key), expect) in guards {
        let space = space(*number);
        match expect {
            Expect::Absent => tx.expect_absent(&space, key),
            Expect::Present => tx.expect_present(&space, key),
            Expect::Current(or) => {
                let current = now.entries.get(&(*number, key.clone())).unwrap_or(or);
                tx.expect_value(&space, key, current.clone())
            }
            Expect::Value(value) => tx.expect_value(&space, key, value.clone()),
            Expect::Unchanged => tx.expect_unchanged(&space, key),
        }
        .unwrap();
    }
    for op in ops {
        match op {
            Op::Put((number, key), value) => tx.put(&space(*number), key, value.clone()),
            Op::Delete((number, key)) => tx.delete(&space(*number), key),
            Op::DeleteRange(number, start, end) => {
                tx.delete_range(&space(*number), &KeyRange { start: start.clone(), end: end.clone() })
            }
            Op::Append((number, key), fragment) => tx.append(&space(*number), key, fragment.clone()),
            Op::Add((number, key), amount) => tx.add(&space(*number), key, *amount),
            Op::SetFields(number, id, fields) => tx.set_fields(&space(*number), INDEX, id, fields.clone()),
            Op::RemoveDocument(number, id) => tx.remove_document(&space(*number), INDEX, id),
        }
        .unwrap();
    }
}

/// All pages of a scan. Every page but the last is full, and `next` is there exactly when there is more.
fn scan_all(view: &View, scan: &Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Scan { space: number, ranges, reverse, keys_only, limit } = scan.clone();
    let ranges: Vec<_> = ranges.into_iter().map(|(start, end)| KeyRange { start, end }).collect();
    let mut options = ScanOptions { reverse, keys_only, limit, after: None };
    let mut found = Vec::new();
    loop {
        let page = view.scan(&space(number), &ranges, &options).unwrap();
        assert_eq!(page.iter().count(), page.count as usize);
        assert!(page.count == limit || page.next.is_none(), "a page is cut short");
        assert!(page.count > 0 || options.after.is_none(), "a page with nothing was announced");
        found.extend(page.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        match page.next {
            Some(next) => options.after = Some(next),
            None => return found,
        }
    }
}

fn check(engine: EngineKind, busy: bool, steps: &[Step]) {
    let mut subject = Subject::new(engine, busy);
    for step in steps {
        subject.run(step);
    }
    subject.check_all();
    subject.close();
    subject.open();
    subject.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_the_model(steps in steps(), busy in any::<bool>()) {
        check(EngineKind::Memory, busy, &steps);
    }

    #[test]
    fn redb_is_the_model(steps in steps(), busy in any::<bool>()) {
        check(EngineKind::Redb, busy, &steps);
    }
}

proptest! {
    // sled does its own I/O, on the real disk.
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn sled_is_the_model(steps in steps(), busy in any::<bool>()) {
        check(EngineKind::Sled, busy, &steps);
    }
}
