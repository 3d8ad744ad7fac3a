//! The rules of jobs and runs, one by one, through the scheduler and its store.

use futures::executor::block_on;
use mainstay_base::ErrorKind;
use mainstay_schedule::{
    AttemptEndKind, Backfill, Callback, CatchUp, Cause, Misfire, MisfirePolicy, On, Outcome, Pool, RetryPolicy, RunEnd,
    RunState, Scheduler, Start, Trigger,
};
use mainstay_store::{Space, Store};
use serde_json::json;

use crate::support::*;

const HOUR: i64 = 3_600_000;

fn hourly() -> Trigger {
    Trigger::Interval { every_ms: HOUR as u64, start_ms: Some(0) }
}

#[test]
fn missed_occurrences_are_caught_up_counted_and_told() {
    fn check(catch_up: CatchUp, run_hours: &[i64], missed: u64) {
        let (scheduler, clock) = scheduler(1);
        apply(&scheduler, "told", |_| {});
        apply(&scheduler, "j", |job| {
            job.triggers = vec![hourly()];
            job.catch_up = catch_up;
            job.callbacks = vec![Callback { on: On::Skipped, job: "told".into(), parameters: Default::default() }];
        });
        clock.advance_ms(10 * HOUR + HOUR / 2);
        advance(&scheduler);
        let (mut hours, mut skipped) = (Vec::new(), 0);
        for run in runs(&scheduler, "j") {
            match run.cause {
                Cause::Missed { count, .. } => skipped += count,
                _ => hours.push(run.scheduled_ms.unwrap() / HOUR),
            }
        }
        hours.sort();
        assert_eq!((hours.as_slice(), skipped), (run_hours, missed), "{catch_up:?}");
        assert_eq!(runs(&scheduler, "told").len(), usize::from(missed > 0));
        advance(&scheduler);
        assert_eq!(runs(&scheduler, "told").len(), usize::from(missed > 0), "told once");
    }
    check(CatchUp::None, &[], 10);
    check(CatchUp::Last, &[10], 9);
    check(CatchUp::All { limit: 3 }, &[8, 9, 10], 7);
    check(CatchUp::All { limit: 1_000 }, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0);
}

#[test]
fn a_clock_that_jumps_back_runs_no_occurrence_twice() {
    let (scheduler, clock) = scheduler(1);
    apply(&scheduler, "j", |job| {
        job.triggers = vec![hourly()];
        job.concurrency = None;
    });
    for _ in 0..5 {
        clock.advance_ms(HOUR);
        advance(&scheduler);
    }
    clock.advance_ms(-3 * HOUR);
    advance(&scheduler);
    // The same job removed and applied anew looks at the old time again; its occurrences are known all the same.
    for run in claim(&scheduler) {
        succeed(&scheduler, &run);
    }
    block_on(scheduler.remove("j")).unwrap();
    apply(&scheduler, "j", |job| {
        job.triggers = vec![hourly()];
        job.concurrency = None;
    });
    for _ in 0..4 {
        clock.advance_ms(HOUR);
        advance(&scheduler);
    }
    let hours: Vec<i64> = runs(&scheduler, "j").iter().map(|run| run.scheduled_ms.unwrap() / HOUR).collect();
    let mut once = hours.clone();
    once.sort();
    assert_eq!(once, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_late_result_with_an_old_token_is_refused() {
    let (scheduler, clock) = scheduler(0);
    apply(&scheduler, "j", |job| {
        job.retry = RetryPolicy { attempts: 3, base_ms: 10, jitter: 0.0, ..Default::default() }
    });
    start(&scheduler, "j");
    let first = claim(&scheduler).remove(0);
    clock.advance_ms(1_000);
    advance(&scheduler);
    clock.advance_ms(10);
    advance(&scheduler);
    let second = claim(&scheduler).remove(0);
    assert!(second.token > first.token);
    let refused =
        block_on(scheduler.finish(&first.id, first.token, Outcome::Success { result: json!(1) })).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let done = succeed(&scheduler, &second);
    let ends: Vec<_> = done.attempts.iter().map(|attempt| attempt.ended.clone().unwrap()).collect();
    assert_eq!(ends.iter().map(|end| end.kind).collect::<Vec<_>>(), [AttemptEndKind::Lost, AttemptEndKind::Success]);
    assert!(ends[0].reason.contains("no sign of life"), "{}", ends[0].reason);
}

#[test]
fn pools_priorities_and_concurrency_hold() {
    let (scheduler, _) = scheduler(0);
    block_on(scheduler.set_pool(Pool { name: "gpu".into(), slots: 2 })).unwrap();
    for (name, priority) in [("low", 0), ("high", 5), ("higher", 9)] {
        apply(&scheduler, name, |job| {
            job.pool = "gpu".into();
            job.priority = priority;
        });
        start(&scheduler, name);
        start(&scheduler, name);
    }
    let first = claim(&scheduler);
    let jobs: Vec<&str> = first.iter().map(|run| run.job.as_str()).collect();
    assert_eq!(jobs, ["higher", "high"], "two slots, one run of each job, higher priorities first");
    assert_eq!(claim(&scheduler).len(), 0);
    assert_eq!(scheduler.pools().unwrap().iter().find(|used| used.pool.name == "gpu").unwrap().used, 2);
    succeed(&scheduler, &first[0]);
    assert_eq!(claim(&scheduler)[0].job, "higher", "its second run, which waited for the first");
    let error = block_on(scheduler.apply(job("x", |job| job.pool = "none".into()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_sensor_frees_its_slot_between_polls() {
    let (scheduler, clock) = scheduler(0);
    block_on(scheduler.set_pool(Pool { name: "one".into(), slots: 1 })).unwrap();
    for name in ["sensor", "other"] {
        apply(&scheduler, name, |job| {
            job.pool = "one".into();
            job.poll_ms = 500;
        });
    }
    start(&scheduler, "sensor");
    let poll = claim(&scheduler).remove(0);
    start(&scheduler, "other");
    assert_eq!(claim(&scheduler).len(), 0);
    let not_yet = Outcome::NotYet { reason: "no file".into(), after_ms: None };
    block_on(scheduler.finish(&poll.id, poll.token, not_yet)).unwrap();
    let other = claim(&scheduler).remove(0);
    assert_eq!(other.job, "other");
    succeed(&scheduler, &other);
    assert_eq!(claim(&scheduler).len(), 0, "its time has not come");
    clock.advance_ms(500);
    advance(&scheduler);
    let poll = claim(&scheduler).remove(0);
    assert_eq!((poll.job.as_str(), poll.polls, poll.failures), ("sensor", 1, 0));
    assert_eq!(succeed(&scheduler, &poll).end(), Some(RunEnd::Success));
}

#[test]
fn a_paused_job_begins_nothing_and_finishes_what_it_began() {
    let (scheduler, clock) = scheduler(1);
    apply(&scheduler, "j", |job| {
        job.triggers = vec![hourly()];
        job.concurrency = None;
        job.catch_up = CatchUp::All { limit: 100 };
        job.retry = RetryPolicy { attempts: 2, base_ms: 10, jitter: 0.0, ..Default::default() };
    });
    start(&scheduler, "j");
    let begun = claim(&scheduler).remove(0);
    let queued = start(&scheduler, "j");
    block_on(scheduler.pause("j")).unwrap();
    start(&scheduler, "j");
    clock.advance_ms(500);
    fail(&scheduler, &begun);
    clock.advance_ms(3 * HOUR);
    advance(&scheduler);
    let again = claim(&scheduler);
    assert_eq!(again.iter().map(|run| &run.id).collect::<Vec<_>>(), [&begun.id], "its retry, and nothing else");
    assert!(matches!(scheduler.run(&queued).unwrap().unwrap().state, RunState::Waiting { .. }));
    block_on(scheduler.resume("j")).unwrap();
    advance(&scheduler);
    assert_eq!(claim(&scheduler).len(), 5, "two that were asked for, three that were missed");
}

#[test]
fn a_long_row_of_waiting_runs_begins_when_the_job_is_resumed() {
    let (scheduler, _) = scheduler(0);
    block_on(scheduler.set_pool(Pool { name: "wide".into(), slots: 10_000 })).unwrap();
    apply(&scheduler, "j", |job| {
        job.pool = "wide".into();
        job.concurrency = None;
    });
    block_on(scheduler.pause("j")).unwrap();
    for _ in 0..700 {
        start(&scheduler, "j");
    }
    block_on(scheduler.resume("j")).unwrap();
    advance(&scheduler);
    let mut begun = 0;
    loop {
        let some = block_on(scheduler.claim("a", 1_000, 10_000)).unwrap().len();
        if some == 0 {
            break;
        }
        begun += some;
    }
    assert_eq!(begun, 700);
}

#[test]
fn the_same_key_starts_the_same_run() {
    let (scheduler, _) = scheduler(0);
    apply(&scheduler, "j", |_| {});
    let keyed = Start { idempotency_key: Some("k".into()), ..Start::of("j") };
    let first = block_on(scheduler.start(keyed.clone())).unwrap();
    let second = block_on(scheduler.start(keyed)).unwrap();
    assert_eq!((first.existed, second.existed, first.run == second.run), (false, true, true));
    assert_eq!(runs(&scheduler, "j").len(), 1);
    let long = Start { idempotency_key: Some("k".repeat(257)), ..Start::of("j") };
    assert_eq!(block_on(scheduler.start(long)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(block_on(scheduler.start(Start::of("none"))).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn events_start_their_jobs_once() {
    let (scheduler, _) = scheduler(0);
    for name in ["a", "b"] {
        apply(&scheduler, name, |job| job.triggers = vec![Trigger::Event { topic: "data".into() }]);
    }
    apply(&scheduler, "c", |job| job.triggers = vec![Trigger::Event { topic: "data.more".into() }]);
    for _ in 0..2 {
        block_on(scheduler.on_event("data", Some("1"), &json!({"rows": 5}))).unwrap();
    }
    let counts: Vec<usize> = ["a", "b", "c"].iter().map(|name| runs(&scheduler, name).len()).collect();
    assert_eq!(counts, [1, 1, 0]);
    assert_eq!(runs(&scheduler, "a")[0].parameters["event"], json!({"rows": 5}));
    apply(&scheduler, "a", |_| {});
    block_on(scheduler.on_event("data", Some("2"), &json!(null))).unwrap();
    assert_eq!((runs(&scheduler, "a").len(), runs(&scheduler, "b").len()), (1, 2));
}

#[test]
fn callbacks_tell_what_became_of_a_run() {
    let (scheduler, clock) = scheduler(0);
    for name in ["on-success", "on-failure", "on-retry"] {
        apply(&scheduler, name, |_| {});
    }
    apply(&scheduler, "j", |job| {
        job.retry = RetryPolicy { attempts: 2, base_ms: 10, jitter: 0.0, ..Default::default() };
        let to = |on, job: &str| Callback { on, job: job.into(), parameters: Default::default() };
        job.callbacks = vec![
            to(On::Success, "on-success"),
            to(On::Failure, "on-failure"),
            to(On::Retry, "on-retry"),
            to(On::Failure, "nobody"),
        ];
    });
    let run = start(&scheduler, "j");
    fail(&scheduler, &claim(&scheduler)[0]);
    clock.advance_ms(10);
    advance(&scheduler);
    let second = claim(&scheduler).into_iter().find(|claimed| claimed.id == run).unwrap();
    let ended = fail(&scheduler, &second);
    assert_eq!(ended.end(), Some(RunEnd::Failed));
    let kept = scheduler.run(&run).unwrap().unwrap();
    assert!(kept.notes[0].contains("nobody"), "{:?}", kept.notes);
    let counts: Vec<usize> =
        ["on-success", "on-failure", "on-retry"].iter().map(|name| runs(&scheduler, name).len()).collect();
    assert_eq!(counts, [0, 1, 1]);
    let told = &runs(&scheduler, "on-failure")[0].parameters["cause"];
    assert_eq!((&told["run"], &told["job"], &told["reason"]), (&json!(run), &json!("j"), &json!("no")));
}

#[test]
fn callbacks_that_lead_to_themselves_end() {
    let (scheduler, _) = scheduler(0);
    apply(&scheduler, "j", |job| {
        job.callbacks = vec![Callback { on: On::Success, job: "j".into(), parameters: Default::default() }];
    });
    start(&scheduler, "j");
    let mut count = 0;
    while let Some(run) = claim(&scheduler).pop() {
        succeed(&scheduler, &run);
        count += 1;
    }
    assert_eq!(count, 17, "the first, and 16 that were called back");
}

#[test]
fn an_occurrence_that_cannot_begin_in_time_is_skipped_if_the_job_says_so() {
    fn check(policy: MisfirePolicy, expect: &[Option<RunEnd>]) {
        let (scheduler, clock) = scheduler(1);
        apply(&scheduler, "j", |job| {
            job.triggers = vec![hourly()];
            job.misfire = Misfire { grace_ms: 60_000, policy };
        });
        clock.advance_ms(HOUR);
        advance(&scheduler);
        let holds = claim(&scheduler).remove(0);
        for _ in 0..61 {
            clock.advance_ms(60_000);
            block_on(scheduler.beat(&[(holds.id.clone(), holds.token)], 100_000)).unwrap();
            advance(&scheduler);
        }
        clock.advance_ms(61_000);
        advance(&scheduler);
        let ends: Vec<_> = runs(&scheduler, "j").iter().map(|run| run.end()).collect();
        assert_eq!(ends, expect, "{policy:?}");
    }
    check(MisfirePolicy::Run, &[None, None]);
    check(MisfirePolicy::Skip, &[None, Some(RunEnd::Skipped)]);
}

#[test]
fn a_backfill_starts_what_is_not_there() {
    let (scheduler, clock) = scheduler(1);
    apply(&scheduler, "j", |job| {
        job.triggers = vec![hourly()];
        job.concurrency = None;
        job.catch_up = CatchUp::None;
    });
    clock.advance_ms(10 * HOUR);
    advance(&scheduler);
    let mut wanted = Backfill { job: "j".into(), from_ms: 3 * HOUR, to_ms: 10 * HOUR, limit: 4, dry_run: true };
    let dry = block_on(scheduler.backfill(&wanted)).unwrap();
    assert!(dry.occurrences.iter().all(|each| each.run.is_none()));
    assert_eq!((dry.occurrences.len(), dry.next_ms), (4, Some(7 * HOUR)));
    let count = runs(&scheduler, "j").len();
    wanted.dry_run = false;
    let filled = block_on(scheduler.backfill(&wanted)).unwrap();
    assert_eq!(filled.occurrences.iter().filter(|each| !each.existed).count(), 4);
    assert_eq!(runs(&scheduler, "j").len(), count + 4);
    let again = block_on(scheduler.backfill(&wanted)).unwrap();
    assert!(again.occurrences.iter().all(|each| each.existed));
    wanted.from_ms = filled.next_ms.unwrap();
    wanted.limit = 1_000;
    assert_eq!(block_on(scheduler.backfill(&wanted)).unwrap().occurrences.len(), 3);
    assert_eq!(runs(&scheduler, "j").len(), count + 7);
    wanted.to_ms = 20 * HOUR;
    assert_eq!(block_on(scheduler.backfill(&wanted)).unwrap_err().kind(), ErrorKind::Invalid);
    wanted.limit = 1_001;
    assert!(block_on(scheduler.backfill(&wanted)).unwrap_err().message().contains("1 to 1000"));
}

#[test]
fn a_start_in_a_transaction_happens_with_it() {
    let store = Store::in_memory();
    let clock = std::sync::Arc::new(mainstay_base::VirtualClock::new(5));
    let random = std::sync::Arc::new(mainstay_base::SeededRandom::new(1));
    let scheduler = Scheduler::new(store.clone(), clock, random);
    apply(&scheduler, "j", |_| {});
    let space = Space::plugin("p");
    let mut run = None;
    for is_committed in [false, true] {
        let mut transaction = store.begin(&store.view());
        transaction.put(&space, b"k", "v").unwrap();
        run = Some(scheduler.add_start(&mut transaction, Start::of("j")).unwrap());
        if is_committed {
            store.commit_blocking(transaction).unwrap();
        }
    }
    advance(&scheduler);
    advance(&scheduler);
    let found: Vec<String> = runs(&scheduler, "j").into_iter().map(|run| run.id).collect();
    assert_eq!(found, [run.unwrap()]);
    let mut transaction = store.begin(&store.view());
    assert_eq!(scheduler.add_start(&mut transaction, Start::of("x")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_old_is_forgotten_with_all_that_leads_to_it() {
    let (scheduler, clock) = scheduler(0);
    apply(&scheduler, "j", |job| job.concurrency = None);
    let keyed = Start { idempotency_key: Some("k".into()), ..Start::of("j") };
    let old = block_on(scheduler.start(keyed.clone())).unwrap().run;
    succeed(&scheduler, &claim(&scheduler)[0]);
    clock.advance_ms(100);
    let young = start(&scheduler, "j");
    succeed(&scheduler, &claim(&scheduler)[0]);
    assert_eq!(block_on(scheduler.prune(50)).unwrap(), 1);
    assert_eq!(block_on(scheduler.prune(50)).unwrap(), 0);
    assert_eq!(scheduler.run(&old).unwrap(), None);
    assert_eq!(runs(&scheduler, "j").iter().map(|run| &run.id).collect::<Vec<_>>(), [&young]);
    assert!(!block_on(scheduler.start(keyed)).unwrap().existed);
}

#[test]
fn jobs_change_only_for_later_runs_and_go_only_when_idle() {
    let (scheduler, _) = scheduler(0);
    apply(&scheduler, "j", |job| job.parameters = json!({"a": 1, "b": 1}).as_object().unwrap().clone());
    let mut asked = Start::of("j");
    asked.parameters = json!({"b": 2}).as_object().unwrap().clone();
    let first = block_on(scheduler.start(asked)).unwrap().run;
    apply(&scheduler, "j", |job| job.priority = 3);
    apply(&scheduler, "j", |job| job.priority = 3);
    assert_eq!(scheduler.job("j").unwrap().unwrap().revision, 2);
    let kept = scheduler.run(&first).unwrap().unwrap();
    assert_eq!((kept.revision, kept.plan.priority, kept.parameters["a"].clone()), (1, 0, json!(1)));
    assert_eq!(kept.parameters["b"], json!(2));
    assert_eq!(block_on(scheduler.remove("j")).unwrap_err().kind(), ErrorKind::Conflict);
    block_on(scheduler.cancel(&first, "enough")).unwrap();
    assert_eq!(block_on(scheduler.cancel(&first, "enough")).unwrap_err().kind(), ErrorKind::Conflict);
    block_on(scheduler.remove("j")).unwrap();
    assert_eq!(scheduler.jobs(None, 10).unwrap().len(), 0);
    assert_eq!(scheduler.run(&first).unwrap().unwrap().end(), Some(RunEnd::Cancelled));
}

/// Two hosts' schedulers on one store, each with threads of its own: whoever loses a race asks again, and nothing is taken twice.
#[test]
fn two_schedulers_on_one_store_share_the_runs() {
    const RUNS: usize = 300;
    let store = Store::in_memory();
    let clock = std::sync::Arc::new(mainstay_base::VirtualClock::new(0));
    let other = |seed| {
        Scheduler::new(store.clone(), clock.clone(), std::sync::Arc::new(mainstay_base::SeededRandom::new(seed)))
    };
    let schedulers = [other(1), other(2)];
    block_on(schedulers[0].set_pool(Pool { name: "wide".into(), slots: RUNS as u32 })).unwrap();
    apply(&schedulers[0], "j", |job| (job.pool, job.concurrency) = ("wide".into(), None));
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (at, scheduler) in schedulers.iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                let again = |error: &mainstay_base::Error| assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                for _ in 0..RUNS / 2 {
                    while let Err(error) = block_on(scheduler.start(Start::of("j"))) {
                        again(&error);
                    }
                }
                while done.lock().unwrap().len() < RUNS {
                    let _ = block_on(scheduler.advance()).inspect_err(again);
                    let taken = block_on(scheduler.claim(&format!("host {at}"), 60_000, 8)).inspect_err(again);
                    for run in taken.unwrap_or_default() {
                        let outcome = || Outcome::Success { result: json!(at) };
                        while let Err(error) = block_on(scheduler.finish(&run.id, run.token, outcome())) {
                            again(&error);
                        }
                        done.lock().unwrap().push(run.id);
                    }
                }
            });
        }
    });
    let mut ids = done.into_inner().unwrap();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), RUNS, "each was carried out once");
    let all = runs(&schedulers[0], "j");
    assert!(all.iter().all(|run| run.attempts.len() == 1), "{all:?}");
}
