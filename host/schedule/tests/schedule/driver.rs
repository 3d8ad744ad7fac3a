//! The driver with executors that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mainstay_base::{OsRandom, Result, SystemClock};
use mainstay_schedule::{
    AttemptContext, Driver, DriverOptions, Executor, JobDefinition, Outcome, Run, RunEnd, RunState, Scheduler, Start,
    Trigger,
};
use mainstay_store::Store;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Does what the settings name.
#[derive(Default)]
struct Acts {
    calls: AtomicUsize,
}

#[async_trait]
impl Executor for Acts {
    fn check(&self, _: &Value) -> Result<()> {
        Ok(())
    }

    async fn execute(&self, attempt: AttemptContext) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match attempt.run.plan.action.settings.as_str() {
            Some("panic") => panic!("as it was told"),
            Some("deaf") => std::future::pending().await,
            Some("polite") => {
                attempt.cancel.cancelled().await;
                Outcome::failure("stopped")
            }
            Some("sensor") if attempt.run.polls < 3 => {
                Outcome::NotYet { reason: "not there".into(), after_ms: Some(1) }
            }
            _ => Outcome::Success { result: Value::Null },
        }
    }
}

/// Drive one job until enough of its runs have ended.
fn drive(act: &str, count: usize, change: impl FnOnce(&mut JobDefinition)) -> (Vec<Run>, usize) {
    let mut job = JobDefinition::new("j", "act");
    job.action.settings = act.into();
    change(&mut job);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scheduler = Scheduler::new(Store::in_memory(), Arc::new(SystemClock::default()), Arc::new(OsRandom));
        let acts = Arc::new(Acts::default());
        let mut options = DriverOptions::new("test");
        (options.stop_grace, options.lease) = (Duration::from_millis(100), Duration::from_millis(600));
        let driver = Arc::new(Driver::new(scheduler.clone(), options).with("act", acts.clone()));
        let shutdown = CancellationToken::new();
        let driving = tokio::spawn(driver.run(shutdown.clone()));
        let has_triggers = !job.triggers.is_empty();
        scheduler.apply(job).await.unwrap();
        if !has_triggers {
            scheduler.start(Start::of("j")).await.unwrap();
        }
        let begun = Instant::now();
        let ended = loop {
            let mut runs = scheduler.runs("j", None, 100).unwrap().runs;
            runs.retain(Run::is_ended);
            if runs.len() >= count {
                break runs;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{runs:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        shutdown.cancel();
        driving.await.unwrap();
        (ended, acts.calls.load(Ordering::SeqCst))
    })
}

fn check(act: &str, end: RunEnd, reason: &str, calls: usize, change: impl FnOnce(&mut JobDefinition)) {
    let (runs, called) = drive(act, 1, change);
    let RunState::Ended { end: ended, reason: why, .. } = &runs[0].state else { panic!("{runs:?}") };
    assert_eq!((*ended, called), (end, calls), "{act}: {why}");
    assert!(why.contains(reason), "{act}: {why}");
}

#[test]
fn attempts_end_whatever_their_executor_does() {
    check("fine", RunEnd::Success, "done", 1, |_| {});
    check("sensor", RunEnd::Success, "done", 4, |_| {});
    check("panic", RunEnd::Failed, "panicked", 2, |job| {
        job.retry.attempts = 2;
        job.retry.base_ms = 1;
    });
    check("deaf", RunEnd::Failed, "longer than 50 ms", 1, |job| job.attempt_timeout_ms = Some(50));
    check("polite", RunEnd::Failed, "deadline", 1, |job| job.deadline_ms = Some(50));
    check("polite", RunEnd::Failed, "no sign of life", 1, |job| job.heartbeat_timeout_ms = Some(50));
    check("fine", RunEnd::Failed, "nothing carries out", 0, |job| job.action.kind = "other".into());
}

#[test]
fn an_attempt_that_takes_longer_than_a_lease_keeps_it() {
    check("polite", RunEnd::Failed, "longer than 1500 ms", 1, |job| job.attempt_timeout_ms = Some(1_500));
}

#[test]
fn triggers_fire_in_real_time() {
    let (runs, _) = drive("fine", 3, |job| job.triggers = vec![Trigger::Interval { every_ms: 100, start_ms: None }]);
    assert!(runs.iter().all(|run| run.end() == Some(RunEnd::Success)), "{runs:?}");
}
