//! Many seeds of a bad week: owners that die, clocks that jump, results that come late, jobs that are paused and changed, and
//! (on the simulated disk) power that fails. After each step and at the end the promises are checked on what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use mainstay_base::{Random, SeededRandom, SimDisk, VirtualClock};
use mainstay_schedule::{
    AttemptEndKind, Callback, CatchUp, Cause, On, Outcome, Pool, RetryPolicy, Run, RunEnd, RunState, Scheduler, Start,
    Trigger,
};
use mainstay_store::{EngineKind, Store, StoreOptions};

use crate::support::{advance, apply, runs};

const JOBS: [(&str, u32); 3] = [("ticks", 2), ("asked", 1), ("fans", 3)];
const SLOTS: u32 = 3;
const EVERY_MS: i64 = 1_000;
const LEASE_MS: u64 = 300;
const ATTEMPTS: u32 = 3;

struct World {
    scheduler: Scheduler,
    clock: Arc<VirtualClock>,
    random: SeededRandom,
    disk: Option<SimDisk>,
    /// Attempts whose owner lives, and those whose owner does not but may still speak.
    live: Vec<(String, u64)>,
    ghosts: Vec<(String, u64)>,
    /// Starts that were acknowledged, by key.
    started: BTreeMap<String, String>,
    /// Results that were acknowledged as successes.
    successes: BTreeSet<String>,
    claims: BTreeMap<String, u64>,
}

fn open(disk: &Option<SimDisk>) -> Store {
    let Some(disk) = disk else { return Store::in_memory() };
    let options = StoreOptions {
        folder: Some(PathBuf::from("data")),
        engine: EngineKind::Memory,
        disk: Arc::new(disk.clone()),
        apply_interval: Duration::from_secs(3_600),
        ..StoreOptions::default()
    };
    Store::open(options).expect("the store opens")
}

impl World {
    fn new(seed: u64, disk: Option<SimDisk>) -> World {
        let clock = Arc::new(VirtualClock::new(1_700_000_000_000));
        let scheduler = Scheduler::new(open(&disk), clock.clone(), Arc::new(SeededRandom::new(seed)));
        let world = World {
            scheduler,
            clock,
            random: SeededRandom::new(seed ^ 0xabcd),
            disk,
            live: Vec::new(),
            ghosts: Vec::new(),
            started: BTreeMap::new(),
            successes: BTreeSet::new(),
            claims: BTreeMap::new(),
        };
        block_on(world.scheduler.set_pool(Pool { name: "small".into(), slots: SLOTS })).unwrap();
        apply(&world.scheduler, "told", |job| job.concurrency = None);
        for (name, concurrency) in JOBS {
            let catch_up = [CatchUp::None, CatchUp::Last, CatchUp::All { limit: 3 }][world.below(3)];
            let timeout_ms = (world.below(3) == 0).then_some(200);
            apply(&world.scheduler, name, |job| {
                job.pool = "small".into();
                job.concurrency = Some(concurrency);
                job.catch_up = catch_up;
                job.misfire.grace_ms = 400;
                job.attempt_timeout_ms = timeout_ms;
                job.retry = RetryPolicy { attempts: ATTEMPTS, base_ms: 50, cap_ms: 100, ..Default::default() };
                if name == "ticks" {
                    job.triggers = vec![Trigger::Interval { every_ms: EVERY_MS as u64, start_ms: Some(0) }];
                }
                let to = |on| Callback { on, job: "told".into(), parameters: Default::default() };
                job.callbacks = vec![to(On::Success), to(On::Failure), to(On::Retry)];
            });
        }
        world
    }

    fn below(&self, end: usize) -> usize {
        (self.random.number() % end as u64) as usize
    }

    fn step(&mut self) {
        match self.below(16) {
            0..=2 => self.clock.advance_ms(1 + self.below(150) as i64),
            3 => self.jump(),
            4..=6 => advance(&self.scheduler),
            7..=8 => self.claim(),
            9..=11 => self.finish_one(),
            12 => self.beat(),
            13 => self.start(),
            14 => self.ghost_speaks(),
            _ => self.trouble(),
        }
    }

    fn jump(&self) {
        let far = 1 + self.below(8_000) as i64;
        self.clock.advance_ms(if self.below(2) == 0 { far } else { -far });
    }

    fn claim(&mut self) {
        let owner = ["a", "b"][self.below(2)];
        for run in block_on(self.scheduler.claim(owner, LEASE_MS, 1 + self.below(4))).unwrap() {
            let count = self.claims.entry(run.id.clone()).or_default();
            *count += 1;
            assert_eq!(run.token, *count, "a token for each claim");
            self.live.push((run.id, run.token));
        }
    }

    fn report(&mut self, (run, token): (String, u64)) {
        let outcome = match self.below(4) {
            0 => Outcome::failure("no"),
            1 => Outcome::NotYet { reason: "wait".into(), after_ms: Some(30) },
            _ => Outcome::Success { result: serde_json::Value::Null },
        };
        let is_success = matches!(outcome, Outcome::Success { .. });
        let finished = block_on(self.scheduler.finish(&run, token, outcome));
        assert!(finished.is_err() || self.claims[&run] == token, "{run}: an old token counted");
        match finished {
            Ok(_) if is_success => assert!(self.successes.insert(run.clone()), "{run} succeeded twice"),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), mainstay_base::ErrorKind::Conflict, "{error}"),
        }
    }

    fn finish_one(&mut self) {
        if !self.live.is_empty() {
            let which = self.below(self.live.len());
            let attempt = self.live.swap_remove(which);
            self.report(attempt);
        }
    }

    fn ghost_speaks(&mut self) {
        if !self.ghosts.is_empty() {
            let which = self.below(self.ghosts.len());
            let attempt = self.ghosts.swap_remove(which);
            self.report(attempt);
        }
    }

    fn beat(&mut self) {
        block_on(self.scheduler.beat(&self.live, LEASE_MS)).unwrap();
    }

    fn start(&mut self) {
        let (job, key) = (JOBS[1 + self.below(2)].0, format!("{}", self.below(40)));
        let start = Start { idempotency_key: Some(key.clone()), ..Start::of(job) };
        let started = block_on(self.scheduler.start(start)).unwrap();
        let known = self.started.entry(format!("{job}/{key}")).or_insert_with(|| started.run.clone());
        assert_eq!(*known, started.run, "one run for each key");
    }

    fn trouble(&mut self) {
        match self.below(4) {
            0 => self.ghosts.append(&mut self.live),
            1 => {
                let name = JOBS[self.below(3)].0;
                let pause = self.below(2) == 0;
                let record =
                    if pause { block_on(self.scheduler.pause(name)) } else { block_on(self.scheduler.resume(name)) };
                assert_eq!(record.unwrap().paused, pause);
            }
            2 => {
                let known: Vec<&String> = self.started.values().collect();
                if !known.is_empty() {
                    // An ended run refuses, which is as good.
                    let _ = block_on(self.scheduler.cancel(known[self.below(known.len())], "enough"));
                }
            }
            _ => self.power_fails(),
        }
    }

    fn power_fails(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        // In the middle of something, whose answer then says nothing about what was kept.
        disk.cut_power_after(self.below(8) as u64);
        match (self.below(3), self.live.pop()) {
            (0, Some((run, token))) => drop(block_on(self.scheduler.finish(&run, token, Outcome::failure("no")))),
            (1, _) => drop(block_on(self.scheduler.start(Start::of("asked")))),
            _ => drop(block_on(self.scheduler.advance())),
        }
        let after = disk.after_crash(self.random.number());
        self.disk = Some(after);
        let random = Arc::new(SeededRandom::new(self.random.number()));
        self.scheduler = Scheduler::new(open(&self.disk), self.clock.clone(), random);
        self.ghosts.append(&mut self.live);
    }

    fn all(&self) -> Vec<Run> {
        ["ticks", "asked", "fans", "told"].iter().flat_map(|name| runs(&self.scheduler, name)).collect()
    }

    fn check(&self) {
        let all = self.all();
        let running = |run: &&Run| matches!(run.state, RunState::Running { .. });
        let in_small = all.iter().filter(running).filter(|run| run.plan.pool == "small").count();
        assert!(in_small <= SLOTS as usize, "{in_small} attempts in {SLOTS} slots");
        let counted = self.scheduler.pools().unwrap();
        assert_eq!(counted.iter().find(|used| used.pool.name == "small").unwrap().used, in_small as i64);
        for (name, concurrency) in JOBS {
            let begun = all.iter().filter(|run| run.job == name).filter(|run| {
                matches!(run.state, RunState::Ready { .. } | RunState::Running { .. } | RunState::Delayed { .. })
            });
            assert!(begun.count() <= concurrency as usize, "{name}");
        }
        for run in &all {
            check_attempts(run);
        }
        self.check_occurrences(&all);
        self.check_callbacks(&all);
        for run in self.started.values() {
            assert!(all.iter().any(|known| known.id == *run), "{run} was lost");
        }
        for run in &self.successes {
            let kept = all.iter().find(|known| known.id == *run).expect("kept");
            assert_eq!(kept.end(), Some(RunEnd::Success), "a success was lost");
        }
    }

    /// Every moment up to the trigger's place was run once or counted as missed once.
    fn check_occurrences(&self, all: &[Run]) {
        let record = self.scheduler.job("ticks").unwrap().unwrap();
        let first = (record.created_ms / EVERY_MS + 1) * EVERY_MS;
        let expect = (record.next_ms().unwrap() - first) / EVERY_MS;
        let (mut moments, mut missed) = (BTreeSet::new(), 0);
        for run in all.iter().filter(|run| run.job == "ticks") {
            match &run.cause {
                Cause::Missed { count, .. } => missed += *count as i64,
                _ => assert!(moments.insert(run.scheduled_ms.unwrap()), "an occurrence ran twice"),
            }
        }
        assert_eq!(moments.len() as i64 + missed, expect, "{} ran, {missed} were missed", moments.len());
    }

    /// Each end and each retry was told exactly once.
    fn check_callbacks(&self, all: &[Run]) {
        let mut told: BTreeMap<(String, On), u32> = BTreeMap::new();
        for run in all {
            if let Cause::Callback { run, on } = &run.cause {
                *told.entry((run.clone(), *on)).or_default() += 1;
            }
        }
        for run in all.iter().filter(|run| run.job != "told") {
            let count = |on| told.get(&(run.id.clone(), on)).copied().unwrap_or(0);
            assert_eq!(count(On::Success), u32::from(run.end() == Some(RunEnd::Success)), "{run:#?}");
            assert_eq!(count(On::Failure), u32::from(run.end() == Some(RunEnd::Failed)), "{run:#?}");
            let is_last = run.end() == Some(RunEnd::Failed);
            assert_eq!(count(On::Retry), run.failures - u32::from(is_last), "{run:#?}");
        }
    }

    /// Nothing bad happens any more: everything ends.
    fn settle(&mut self) {
        self.ghosts.clear();
        for (name, _) in JOBS {
            block_on(self.scheduler.resume(name)).unwrap();
        }
        let record = self.scheduler.job("ticks").unwrap().unwrap();
        let mut calm = record.definition;
        calm.triggers.clear();
        let before = self.all();
        self.check_occurrences(&before);
        block_on(self.scheduler.apply(calm)).unwrap();
        for _ in 0..5_000 {
            advance(&self.scheduler);
            self.claim();
            while let Some((run, token)) = self.live.pop() {
                let done = Outcome::Success { result: serde_json::Value::Null };
                // Refused when its lease was over.
                if block_on(self.scheduler.finish(&run, token, done)).is_ok() {
                    self.successes.insert(run);
                }
            }
            if self.all().iter().all(Run::is_ended) {
                break;
            }
            self.clock.advance_ms(100);
        }
        let all = self.all();
        let left: Vec<&Run> = all.iter().filter(|run| !run.is_ended()).collect();
        assert!(left.is_empty(), "{left:#?}");
        self.check_callbacks(&all);
        for used in self.scheduler.pools().unwrap() {
            assert_eq!(used.used, 0, "{used:?}");
        }
        for name in ["ticks", "asked", "fans", "told"] {
            block_on(self.scheduler.remove(name)).expect("no count is left over");
        }
    }
}

fn check_attempts(run: &Run) {
    let Some((newest, older)) = run.attempts.split_last() else { return };
    assert!(run.attempts.windows(2).all(|pair| pair[0].token < pair[1].token), "{run:#?}");
    assert_eq!(newest.token, run.token);
    for attempt in older {
        let ended = attempt.ended.as_ref().expect("an attempt ended before the next one began");
        assert!(!ended.reason.is_empty() && ended.kind != AttemptEndKind::Success, "{run:#?}");
    }
    assert_eq!(newest.ended.is_none(), matches!(run.state, RunState::Running { .. }), "{run:#?}");
    assert!(run.failures <= ATTEMPTS, "{run:#?}");
}

fn simulate(seeds: std::ops::Range<u64>, steps: usize, disk: fn() -> Option<SimDisk>) {
    for seed in seeds {
        let played = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, disk());
            for step in 0..steps {
                world.step();
                if step % 20 == 19 {
                    world.check();
                }
            }
            world.check();
            world.settle();
        });
        if played.is_err() {
            panic!("seed {seed} broke a promise; what it was stands above");
        }
    }
}

#[test]
fn promises_hold_over_many_seeds() {
    simulate(0..2_000, 120, || None);
}

#[test]
fn promises_hold_when_the_power_fails() {
    simulate(10_000..10_200, 120, || Some(SimDisk::new()));
}
