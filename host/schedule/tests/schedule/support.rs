//! Short ways to do common things.

use std::sync::Arc;

use futures::executor::block_on;
use mainstay_base::{SeededRandom, VirtualClock};
use mainstay_schedule::{JobDefinition, Outcome, Run, Scheduler, Start};
use mainstay_store::Store;

/// A scheduler on a store without files, and its clock.
pub fn scheduler(now_ms: i64) -> (Scheduler, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::new(now_ms));
    (Scheduler::new(Store::in_memory(), clock.clone(), Arc::new(SeededRandom::new(7))), clock)
}

/// A job that a test executor would carry out.
pub fn job(name: &str, change: impl FnOnce(&mut JobDefinition)) -> JobDefinition {
    let mut job = JobDefinition::new(name, "test");
    change(&mut job);
    job
}

pub fn apply(scheduler: &Scheduler, name: &str, change: impl FnOnce(&mut JobDefinition)) {
    block_on(scheduler.apply(job(name, change))).expect("a good job");
}

pub fn start(scheduler: &Scheduler, name: &str) -> String {
    block_on(scheduler.start(Start::of(name))).expect("it starts").run
}

/// Handle everything that is due.
pub fn advance(scheduler: &Scheduler) {
    while block_on(scheduler.advance()).expect("it goes on").is_more {}
}

pub fn claim(scheduler: &Scheduler) -> Vec<Run> {
    block_on(scheduler.claim("a", 1_000, 100)).expect("it can be asked")
}

pub fn succeed(scheduler: &Scheduler, run: &Run) -> Run {
    let outcome = Outcome::Success { result: serde_json::json!({"n": 1}) };
    block_on(scheduler.finish(&run.id, run.token, outcome)).expect("the owner reports")
}

pub fn fail(scheduler: &Scheduler, run: &Run) -> Run {
    block_on(scheduler.finish(&run.id, run.token, Outcome::failure("no"))).expect("the owner reports")
}

/// All runs of a job, oldest first.
pub fn runs(scheduler: &Scheduler, name: &str) -> Vec<Run> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = scheduler.runs(name, after, 100).expect("readable");
        all.extend(page.runs);
        after = page.next;
        if after.is_none() {
            all.reverse();
            return all;
        }
    }
}
