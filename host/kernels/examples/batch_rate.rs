//! What a call through the batcher costs, with a kernel that does nothing.
//!
//! `cargo run -p mainstay-kernels --example batch_rate [-- CALLS]`: throughput (wall time over calls; median and best
//! of several rounds) by number of callers, each a task with a caller name of its own that waits for its answer before
//! it calls again; then the latency of a lone call, by the way it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::{Error, Result, SystemClock};
use mainstay_kernels::batcher::{Ask, Batch, Batcher, Crew, Histogram, Kernel, Policy};
use tokio::runtime::Runtime;

struct Nothing;

impl Kernel for Nothing {
    type Shape = u32;
    type Request = u64;
    type Answer = u64;

    fn name(&self) -> &str {
        "nothing"
    }

    fn shape(&self, _request: &u64) -> u32 {
        0
    }

    fn rows(&self, _request: &u64) -> usize {
        1
    }

    fn launch(&self, batch: &Batch<'_, Nothing>, answers: &mut Vec<Result<u64>>) {
        answers.extend(batch.iter().map(|part| Ok(*part.request)));
    }
}

fn policy(timeout: Option<Duration>) -> Policy {
    Policy { queue_requests: 4_096, caller_requests: 4_096, timeout, ..Policy::default() }
}

fn main() -> Result<()> {
    let calls = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200_000);
    for callers in [1, 2, 8, 32, 128, 512] {
        tasks(callers, calls, false, None)?;
        tasks(callers, calls, true, None)?;
    }
    tasks(128, calls, false, Some(Duration::from_secs(1)))?;
    threads(128, calls)?;
    lone_task(false)?;
    lone_task(true)?;
    lone_thread()
}

fn tasks(callers: u64, calls: u64, inline: bool, timeout: Option<Duration>) -> Result<()> {
    let crew = Crew::start(1, Arc::new(SystemClock::default()))?;
    let batcher = Batcher::new(Nothing, policy(timeout), &crew)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("threads start");
    let ask = Ask { inline, ..Ask::default() };
    let way = if inline { "on the caller's thread" } else { "on kernel threads" };
    let deadline = timeout.map_or("", |_| ", with deadlines");
    let each = calls / callers;
    rounds(&format!("{callers} tasks, {way}{deadline}"), each * callers, &batcher, || {
        ask_from_tasks(&runtime, &batcher, callers, each, ask)
    })
}

fn ask_from_tasks(runtime: &Runtime, batcher: &Batcher<Nothing>, callers: u64, each: u64, ask: Ask) -> Result<()> {
    let tasks: Vec<_> = (0..callers)
        .map(|number| {
            let caller = batcher.caller(&format!("caller {number}"), 1);
            runtime.spawn(async move {
                let caller = caller?;
                for call in 0..each {
                    assert_eq!(caller.submit(call, ask)?.await?, call);
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("no task panics")?;
    }
    Ok(())
}

fn threads(callers: u64, calls: u64) -> Result<()> {
    let crew = Crew::start(1, Arc::new(SystemClock::default()))?;
    let batcher = Batcher::new(Nothing, policy(None), &crew)?;
    let each = calls / callers;
    rounds(&format!("{callers} blocking threads"), each * callers, &batcher, || {
        std::thread::scope(|scope| {
            for number in 0..callers {
                let batcher = &batcher;
                scope.spawn(move || {
                    let caller = batcher.caller(&format!("caller {number}"), 1).expect("there are few");
                    (0..each).for_each(|call| _ = caller.submit_blocking(call, Ask::default()).expect("no fault"));
                });
            }
        });
        Ok(())
    })
}

const ROUNDS: usize = 9;

fn rounds(what: &str, calls: u64, batcher: &Batcher<Nothing>, run: impl Fn() -> Result<()>) -> Result<()> {
    let mut each_us = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run()?;
        each_us.push(start.elapsed().as_secs_f64() * 1e6 / calls as f64);
    }
    each_us.sort_unstable_by(f64::total_cmp);
    let (median, best, rows) = (each_us[ROUNDS / 2], each_us[0], batcher.stats().batch_rows.mean());
    println!("{what}: {median:.2} us a call (best {best:.2}), {rows:.1} rows a launch");
    Ok(())
}

const LONE_CALLS: u64 = 20_000;

fn lone_task(inline: bool) -> Result<()> {
    let crew = Crew::start(1, Arc::new(SystemClock::default()))?;
    let batcher = Batcher::new(Nothing, policy(None), &crew)?;
    let caller = batcher.caller("lone", 1)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("threads start");
    let ask = Ask { inline, ..Ask::default() };
    let task = runtime.spawn(async move {
        let mut seen = Histogram::default();
        for call in 0..LONE_CALLS {
            let start = Instant::now();
            caller.submit(call, ask)?.await?;
            seen.record(start.elapsed().as_nanos() as u64);
        }
        Ok::<_, Error>(seen)
    });
    let seen = runtime.block_on(task).expect("no task panics")?;
    println!("lone task, {}: {seen:?} ns", if inline { "on its own thread" } else { "on a kernel thread" });
    Ok(())
}

fn lone_thread() -> Result<()> {
    let crew = Crew::start(1, Arc::new(SystemClock::default()))?;
    let batcher = Batcher::new(Nothing, policy(None), &crew)?;
    let caller = batcher.caller("lone", 1)?;
    let mut seen = Histogram::default();
    for call in 0..LONE_CALLS {
        let start = Instant::now();
        caller.submit_blocking(call, Ask::default())?;
        seen.record(start.elapsed().as_nanos() as u64);
    }
    println!("lone thread, blocking: {seen:?} ns");
    Ok(())
}
