//! How long dispatch takes when ten thousand runs are due at once: from asking to attempts that are durably taken.
//!
//! Owns a measurement, printed. Bounded by its counts; it fails where the scheduler does. Run it with
//! `cargo run -p mainstay-schedule --example dispatch_rate [FOLDER]`: with a folder the store is on that disk, and every
//! answer is synced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use mainstay_base::{OsRandom, Result, VirtualClock};
use mainstay_schedule::{JobDefinition, Pool, Scheduler, Start};
use mainstay_store::{Store, StoreOptions};

const DUE: usize = 10_000;
/// A driver takes what has become free, which is mostly little.
const AT_ONCE: usize = 16;

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let total: Duration = times.iter().sum();
    println!(
        "{what}: {} steps, p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms, {:.0} ms in all",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        total.as_secs_f64() * 1e3
    );
}

fn main() -> Result<()> {
    let store = match std::env::args().nth(1) {
        Some(folder) => Store::open(StoreOptions::new(folder))?,
        None => Store::in_memory(),
    };
    let clock = Arc::new(VirtualClock::new(0));
    let scheduler = Scheduler::new(store, clock.clone(), Arc::new(OsRandom));
    block_on(scheduler.set_pool(Pool { name: "wide".into(), slots: 100_000 }))?;
    let mut job = JobDefinition::new("j", "none");
    (job.pool, job.concurrency) = ("wide".into(), None);
    block_on(scheduler.apply(job))?;
    for _ in 0..DUE {
        block_on(scheduler.start(Start { delay_ms: Some(1_000), ..Start::of("j") }))?;
    }
    clock.advance_ms(1_000);
    let mut woken = Vec::new();
    loop {
        let begun = Instant::now();
        let advanced = block_on(scheduler.advance())?;
        if advanced.handled == 0 {
            break;
        }
        woken.push(begun.elapsed());
    }
    show(&format!("due times of {DUE} runs handled, up to 256 a step"), &mut woken);
    let mut taken = Vec::new();
    loop {
        let begun = Instant::now();
        if block_on(scheduler.claim("a", 600_000, AT_ONCE))?.is_empty() {
            break;
        }
        taken.push(begun.elapsed());
    }
    show(&format!("attempts taken, {AT_ONCE} at once"), &mut taken);
    Ok(())
}
