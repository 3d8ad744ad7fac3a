//! What users of other batchers complained of, as tests.

use std::time::Duration;

use super::policy::{Gather, Policy};
use super::queue::{Arrival, Launch, NEVER, Queue};
use super::refusal::{Bound, Refusal};
use super::stats::Reason;

const MS: u64 = 1_000_000;

struct Bench {
    queue: Queue<&'static str, u32>,
    next: u32,
}

impl Bench {
    fn new(policy: Policy) -> Bench {
        policy.check().unwrap();
        let mut queue = Queue::new(policy, 0);
        queue.add_caller("a", 1).unwrap();
        queue.add_caller("b", 1).unwrap();
        Bench { queue, next: 0 }
    }

    fn submit(&mut self, now_ns: u64, caller: u32, rows: u32, deadline_ns: u64) -> Result<u32, Refusal> {
        let arrival = Arrival { shape: "s", caller, level: 0, rows, deadline_ns };
        self.queue.submit(now_ns, arrival, self.next)?;
        self.next += 1;
        Ok(self.next - 1)
    }

    fn launch(&mut self, now_ns: u64) -> Launch<&'static str, u32> {
        self.queue.next(now_ns).expect("a launch starts")
    }

    fn finish(&mut self, now_ns: u64, mut launch: Launch<&'static str, u32>) {
        self.queue.finish(now_ns, &mut launch, MS, |_| false);
        self.queue.recycle(launch.parts);
    }
}

fn who(launch: &Launch<&'static str, u32>) -> Vec<u32> {
    launch.parts.iter().map(|part| part.payload).collect()
}

#[test]
fn a_timed_out_request_is_rejected_while_a_batch_runs() {
    let mut bench = Bench::new(Policy::default());
    bench.submit(0, 0, 1, NEVER).unwrap();
    let running = bench.launch(0);
    let late = bench.submit(MS, 0, 1, 5 * MS).unwrap();
    assert!(bench.queue.next(MS).is_none());
    assert_eq!(bench.queue.wake_at(), 5 * MS);
    bench.queue.advance(5 * MS);
    assert!(matches!(bench.queue.pop_refused(), Some((id, Refusal::DeadlineMissed)) if id == late));
    assert_eq!((bench.queue.waiting, bench.queue.open()), (0, 1));
    bench.finish(100 * MS, running);
    assert!(bench.queue.next(100 * MS).is_none());
}

#[test]
fn a_request_whose_launch_runs_for_too_long_is_rejected_at_its_deadline() {
    let mut bench = Bench::new(Policy::default());
    bench.submit(0, 0, 1, 5 * MS).unwrap();
    let running = bench.launch(0);
    assert_eq!(bench.queue.wake_at(), 5 * MS);
    bench.queue.advance(5 * MS);
    assert!(matches!(bench.queue.pop_refused(), Some((0, Refusal::DeadlineMissed))));
    bench.finish(50 * MS, running);
    let counts = bench.queue.stats(50 * MS).counts;
    assert_eq!((counts.expired, counts.answered), (1, 0));
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let mut bench = Bench::new(Policy { max_rows: 2, queue_requests: 3, caller_requests: 3, ..Policy::default() });
    bench.submit(0, 0, 1, NEVER).unwrap();
    let warm = bench.launch(0);
    bench.finish(MS, warm);
    bench.submit(MS, 0, 1, NEVER).unwrap();
    let _running = bench.launch(MS);
    (0..3).for_each(|_| _ = bench.submit(MS, 0, 1, NEVER).unwrap());
    match bench.submit(MS, 1, 1, NEVER) {
        Err(Refusal::Exhausted { bound: Bound::QueueRequests, limit: 3, retry_after }) => {
            // Two launches of what waits and one that runs, 1 ms each.
            assert_eq!(retry_after, Duration::from_millis(3));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_caller_cannot_fill_the_queue_for_the_others() {
    let mut bench =
        Bench::new(Policy { queue_requests: 10, caller_requests: 8, shed_from: Some(6), ..Policy::default() });
    bench.submit(0, 0, 1, NEVER).unwrap();
    let _running = bench.launch(0);
    (0..6).for_each(|_| _ = bench.submit(0, 0, 1, NEVER).unwrap());
    assert!(matches!(bench.submit(0, 0, 1, NEVER), Err(Refusal::Exhausted { bound: Bound::Shed, limit: 6, .. })));
    (0..3).for_each(|_| _ = bench.submit(0, 1, 1, NEVER).unwrap());
    assert!(matches!(bench.submit(0, 1, 1, NEVER), Err(Refusal::Exhausted { bound: Bound::Shed, .. })));
}

#[test]
fn a_default_timeout_leaves_nothing_behind_that_slows_the_queue() {
    let mut bench = Bench::new(Policy::default());
    for round in 0..10_000 {
        let now_ns = round * MS;
        bench.submit(now_ns, 0, 1, now_ns + 60_000 * MS).unwrap();
        let launch = bench.launch(now_ns);
        bench.finish(now_ns + 1, launch);
        assert_eq!((bench.queue.alarms(), bench.queue.entries.len()), (0, 1));
    }
}

#[test]
fn preferred_sizes_are_used_when_they_are_reached() {
    fn check(waiting: u32, expect: &[u64]) {
        let preferred_rows = vec![4, 8];
        let mut bench = Bench::new(Policy { max_rows: 16, preferred_rows, caller_requests: 100, ..Policy::default() });
        bench.submit(0, 0, 1, NEVER).unwrap();
        let first = bench.launch(0);
        assert_eq!(first.reason, Reason::Idle);
        (0..waiting).for_each(|_| _ = bench.submit(0, 0, 1, NEVER).unwrap());
        bench.finish(MS, first);
        let mut sizes = Vec::new();
        while let Some(launch) = bench.queue.next(MS) {
            sizes.push(launch.rows);
            assert_eq!(launch.reason == Reason::Preferred, launch.rows >= 4);
            bench.finish(MS, launch);
        }
        assert_eq!(sizes, expect);
    }
    check(3, &[3]);
    check(4, &[4]);
    check(7, &[4, 3]);
    check(8, &[8]);
    check(23, &[8, 8, 4, 3]);
}

#[test]
fn a_batch_grows_until_its_launch_starts() {
    let mut bench = Bench::new(Policy::default());
    bench.submit(0, 0, 1, NEVER).unwrap();
    let first = bench.launch(0);
    for at in 1..=20 {
        bench.submit(at * MS, 0, 1, NEVER).unwrap();
        assert!(bench.queue.next(at * MS).is_none());
    }
    bench.finish(21 * MS, first);
    assert_eq!(bench.launch(21 * MS).rows, 20);
}

#[test]
fn a_large_request_is_split_and_others_ride_along() {
    let mut bench = Bench::new(Policy { max_rows: 10, ..Policy::default() });
    bench.submit(0, 0, 25, NEVER).unwrap();
    let first = bench.launch(0);
    assert_eq!((first.rows, first.reason), (10, Reason::Full));
    bench.submit(0, 1, 1, NEVER).unwrap();
    bench.finish(MS, first);
    let second = bench.launch(MS);
    assert_eq!(who(&second), [1, 0], "the small one goes first");
    assert_eq!((second.parts[1].start, second.parts[1].rows), (10, 9));
    bench.finish(2 * MS, second);
    let third = bench.launch(2 * MS);
    assert_eq!((third.parts[0].start, third.parts[0].rows), (19, 6));
    bench.finish(3 * MS, third);
    assert_eq!(bench.queue.stats(3 * MS).counts.answered, 2);
}

#[test]
fn a_large_request_uses_every_place_at_once_and_its_rest_is_not_held() {
    let mut bench = Bench::new(Policy { max_rows: 10, max_launches: 2, ..Policy::default() });
    bench.submit(0, 0, 25, NEVER).unwrap();
    let (first, second) = (bench.launch(0), bench.launch(0));
    assert_eq!((first.rows, second.rows), (10, 10));
    bench.finish(MS, first);
    let rest = bench.launch(MS);
    assert_eq!((rest.rows, rest.reason), (5, Reason::Turn));
    bench.finish(MS, second);
    bench.finish(MS, rest);
    assert_eq!(bench.queue.open(), 0);
}

#[test]
fn bounds_and_deadlines_hold_without_joining() {
    let policy = Policy { max_rows: 1, queue_requests: 2, caller_requests: 2, ..Policy::default() };
    let mut bench = Bench::new(policy);
    bench.submit(0, 0, 1, NEVER).unwrap();
    let _running = bench.launch(0);
    bench.submit(0, 0, 1, 2 * MS).unwrap();
    bench.submit(0, 0, 1, NEVER).unwrap();
    assert!(bench.submit(0, 0, 1, NEVER).is_err());
    // The deadline makes room at once, even when nobody looked at the clock before this call.
    bench.submit(2 * MS, 0, 1, NEVER).unwrap();
}

#[test]
fn sizes_count_rows_not_requests() {
    let mut bench = Bench::new(Policy { max_rows: 100, queue_rows: 250, caller_rows: 250, ..Policy::default() });
    bench.submit(0, 0, 1, NEVER).unwrap();
    let first = bench.launch(0);
    (0..4).for_each(|_| _ = bench.submit(0, 0, 60, NEVER).unwrap());
    assert!(matches!(bench.submit(0, 0, 60, NEVER), Err(Refusal::Exhausted { bound: Bound::QueueRows, .. })));
    bench.submit(0, 0, 10, NEVER).unwrap();
    bench.finish(MS, first);
    assert_eq!(who(&bench.launch(MS)), [1], "two of 60 rows are more than 100");
}

#[test]
fn a_lone_call_waits_for_nobody() {
    for gather in [Gather::WhileRunning, Gather::BetweenLaunches] {
        let policy = Policy { gather, preferred_rows: vec![64], max_launches: 4, ..Policy::default() };
        let mut bench = Bench::new(policy);
        for round in 0..10 {
            let now_ns = 20 * MS * round;
            bench.submit(now_ns, 0, 1, NEVER).unwrap();
            let launch = bench.launch(now_ns);
            assert_eq!(launch.reason, Reason::Idle);
            bench.finish(now_ns + MS, launch);
        }
        assert_eq!(bench.queue.stats(0).wait_ns.max(), 0);
    }
}

#[test]
fn every_release_says_why() {
    let policy =
        Policy { max_rows: 8, preferred_rows: vec![4], max_launches: 9, caller_requests: 100, ..Policy::default() };
    let mut bench = Bench::new(policy);
    let submit = |bench: &mut Bench, now_ns, rows, deadline_ns| {
        bench.submit(now_ns, 0, rows, deadline_ns).unwrap();
        bench.queue.next(now_ns).map(|launch| launch.reason)
    };
    assert_eq!(submit(&mut bench, 0, 1, NEVER), Some(Reason::Idle));
    assert_eq!(submit(&mut bench, 0, 2, NEVER), None, "one runs: others may come");
    assert_eq!(submit(&mut bench, 0, 2, NEVER), Some(Reason::Preferred));
    assert_eq!(submit(&mut bench, MS, 8, NEVER), Some(Reason::Full));
    assert_eq!(submit(&mut bench, 2 * MS, 1, NEVER), None);
    assert_eq!(bench.queue.wake_at(), 7 * MS);
    assert_eq!(bench.launch(7 * MS).reason, Reason::Delay);
    assert_eq!(submit(&mut bench, 8 * MS, 1, 10 * MS), None);
    assert_eq!(bench.queue.wake_at(), 10 * MS);
    bench.queue.drain(9 * MS, 20 * MS);
    assert_eq!(bench.launch(9 * MS).reason, Reason::Drain);
    assert!(matches!(bench.submit(9 * MS, 0, 1, NEVER), Err(Refusal::Closed)));
    let released = bench.queue.stats(9 * MS).released;
    assert_eq!(released, [1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_held_batch_goes_early_when_a_deadline_is_near() {
    let mut bench = Bench::new(Policy { max_launches: 3, ..Policy::default() });
    bench.submit(0, 0, 1, NEVER).unwrap();
    let warm = bench.launch(0);
    bench.finish(MS, warm);
    bench.submit(MS, 0, 1, NEVER).unwrap();
    let _running = bench.launch(MS);
    bench.submit(MS, 0, 1, 4 * MS).unwrap();
    assert!(bench.queue.next(MS).is_none());
    // Launches take 1 ms.
    assert_eq!(bench.queue.wake_at(), 3 * MS);
    assert_eq!(bench.launch(3 * MS).reason, Reason::Deadline);
}

#[test]
fn a_gone_callers_request_is_never_launched() {
    let mut bench = Bench::new(Policy::default());
    bench.submit(0, 0, 1, NEVER).unwrap();
    let first = bench.launch(0);
    let arrival = Arrival { shape: "s", caller: 0, level: 0, rows: 7, deadline_ns: 9 * MS };
    let ticket = bench.queue.submit(0, arrival, 77).unwrap();
    assert_eq!(bench.queue.cancel(0, ticket), Some(77));
    assert_eq!(bench.queue.cancel(0, ticket), None);
    assert_eq!((bench.queue.waiting, bench.queue.rows, bench.queue.wake_at()), (0, 0, NEVER));
    bench.finish(MS, first);
    assert!(bench.queue.next(MS).is_none());
}

#[test]
fn those_who_were_answered_together_may_be_waited_for() {
    let policy = Policy { gather: Gather::BetweenLaunches, preferred_rows: vec![3], ..Policy::default() };
    let mut bench = Bench::new(policy);
    bench.submit(0, 0, 1, NEVER).unwrap();
    let first = bench.launch(0);
    (0..3).for_each(|_| _ = bench.submit(0, 0, 1, NEVER).unwrap());
    bench.finish(MS, first);
    let together = bench.launch(MS);
    bench.finish(2 * MS, together);
    bench.submit(2 * MS, 0, 1, NEVER).unwrap();
    assert!(bench.queue.next(2 * MS).is_none(), "two more are likely to come");
    assert_eq!(bench.queue.wake_at(), 7 * MS);
    bench.submit(3 * MS, 0, 2, NEVER).unwrap();
    assert_eq!(bench.launch(3 * MS).rows, 3);
}
