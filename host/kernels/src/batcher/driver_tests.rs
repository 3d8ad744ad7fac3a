//! The driver on real threads, and on none with a virtual clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use mainstay_base::{Clock, Error, ErrorKind, Random, Result, SeededRandom, SystemClock, VirtualClock};
use parking_lot::{Condvar, Mutex};

use super::{Ask, Batch, Batcher, Bound, Caller, Crew, Kernel, Policy, Reason, Refusal};

/// Doubles numbers. What is in `odd` makes it fail in the way it says.
#[derive(Default)]
struct Double {
    launches: AtomicUsize,
    threads: Mutex<Vec<ThreadId>>,
    gate: Gate,
}

/// Launches pass while it is open.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock() = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut is_shut = self.is_shut.lock();
        while *is_shut {
            self.changed.wait(&mut is_shut);
        }
    }
}

#[derive(Clone, Debug)]
struct Numbers {
    shape: u8,
    numbers: Arc<[u64]>,
    odd: Odd,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Odd {
    Nothing,
    Fails,
    Panics,
    IsForgotten,
}

impl Kernel for Double {
    type Shape = u8;
    type Request = Numbers;
    type Answer = Vec<u64>;

    fn name(&self) -> &str {
        "double"
    }

    fn shape(&self, request: &Numbers) -> u8 {
        request.shape
    }

    fn rows(&self, request: &Numbers) -> usize {
        request.numbers.len()
    }

    fn launch(&self, batch: &Batch<'_, Double>, answers: &mut Vec<Result<Vec<u64>>>) {
        self.launches.fetch_add(1, Ordering::SeqCst);
        self.threads.lock().push(std::thread::current().id());
        self.gate.pass();
        for part in batch.iter() {
            assert_eq!(part.request.shape, *batch.shape());
            match part.request.odd {
                Odd::Nothing => answers.push(Ok(part.request.numbers[part.rows].iter().map(|x| 2 * x).collect())),
                Odd::Fails => answers.push(Err(Error::invalid("odd"))),
                Odd::Panics => panic!("very odd"),
                Odd::IsForgotten => {}
            }
        }
    }

    fn assemble(&self, _request: &Numbers, answers: Vec<Vec<u64>>) -> Result<Vec<u64>> {
        assert!(answers.len() > 1);
        Ok(answers.concat())
    }
}

fn numbers(count: u64) -> Numbers {
    Numbers { shape: 0, numbers: (0..count).collect(), odd: Odd::Nothing }
}

fn odd(odd: Odd) -> Numbers {
    Numbers { odd, ..numbers(1) }
}

fn doubled(count: u64) -> Vec<u64> {
    (0..count).map(|x| 2 * x).collect()
}

fn with_threads(threads: usize, policy: Policy) -> (Crew, Batcher<Double>, Caller<Double>) {
    let crew = Crew::start(threads, Arc::new(SystemClock::default())).unwrap();
    let batcher = Batcher::new(Double::default(), policy, &crew).unwrap();
    let caller = batcher.caller("a", 1).unwrap();
    (crew, batcher, caller)
}

fn by_hand(policy: Policy) -> (Arc<VirtualClock>, Crew, Batcher<Double>, Caller<Double>) {
    let clock = Arc::new(VirtualClock::new(0));
    let crew = Crew::by_hand(clock.clone());
    let batcher = Batcher::new(Double::default(), policy, &crew).unwrap();
    let caller = batcher.caller("a", 1).unwrap();
    (clock, crew, batcher, caller)
}

/// What a reply says without waiting.
fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen in 20 s");
        std::thread::sleep(Duration::from_micros(200));
    }
}

const TIMED: Ask = Ask { level: None, timeout: Some(Duration::from_millis(10)), inline: false };

#[test]
fn joined_in_one_launch_and_answered_each_its_own() {
    let (_, crew, batcher, caller) = by_hand(Policy::default());
    let mut first = caller.submit(numbers(1), Ask::default()).unwrap();
    let mut others: Vec<_> = (2..6).map(|count| caller.submit(numbers(count), Ask::default()).unwrap()).collect();
    assert!(crew.launch_one());
    assert_eq!(now(&mut first).unwrap().unwrap(), doubled(1));
    assert!(now(&mut others[0]).is_none());
    assert!(crew.launch_one() && !crew.launch_one());
    for (reply, count) in others.iter_mut().zip(2..) {
        assert_eq!(now(reply).unwrap().unwrap(), doubled(count));
    }
    let stats = batcher.stats();
    assert_eq!((stats.counts.answered, stats.batch_requests.max(), stats.batch_rows.max()), (5, 4, 14));
    assert_eq!(stats.released_for(Reason::Idle), 2);
    assert_eq!((stats.callers[0].name.as_str(), stats.callers[0].launched_rows), ("a", 15));
}

#[test]
fn shapes_are_not_mixed_and_an_empty_request_is_answered() {
    let (_, crew, batcher, caller) = by_hand(Policy::default());
    let mut replies = Vec::new();
    for shape in [0, 1, 0, 1, 2] {
        replies.push(caller.submit(Numbers { shape, ..numbers(u64::from(shape) * 2) }, Ask::default()).unwrap());
    }
    while crew.launch_one() {}
    for (reply, shape) in replies.iter_mut().zip([0, 1, 0, 1, 2]) {
        assert_eq!(now(reply).unwrap().unwrap(), doubled(shape * 2));
    }
    assert_eq!(batcher.kernel().launches.load(Ordering::SeqCst), 4);
}

#[test]
fn a_split_request_is_put_together_in_order() {
    let (_crew, batcher, caller) = with_threads(2, Policy { max_rows: 7, max_launches: 3, ..Policy::default() });
    for count in [8, 20, 700] {
        assert_eq!(caller.submit_blocking(numbers(count), Ask::default()).unwrap(), doubled(count));
    }
    assert!(batcher.stats().batch_rows.max() <= 7);
}

#[test]
fn a_deadline_is_kept_while_a_launch_runs() {
    let (clock, crew, _batcher, caller) = by_hand(Policy::default());
    let mut first = caller.submit(numbers(1), Ask::default()).unwrap();
    let mut late = caller.submit(numbers(1), TIMED).unwrap();
    assert_eq!(crew.tick(), Some(10_000_000));
    clock.advance_ms(9);
    crew.tick();
    assert!(now(&mut late).is_none());
    clock.advance_ms(1);
    assert_eq!(crew.tick(), None);
    assert!(matches!(now(&mut late).unwrap(), Err(Refusal::DeadlineMissed)));
    while crew.launch_one() {}
    assert_eq!(now(&mut first).unwrap().unwrap(), doubled(1));
}

#[test]
fn a_deadline_is_kept_on_threads_while_the_kernel_is_stuck() {
    let (_crew, batcher, caller) = with_threads(1, Policy::default());
    batcher.kernel().gate.set(true);
    let stuck = caller.submit(numbers(1), Ask::default()).unwrap();
    let start = Instant::now();
    let late = caller.submit_blocking(numbers(1), TIMED);
    assert!(matches!(late, Err(Refusal::DeadlineMissed)), "{late:?}");
    assert!(start.elapsed() >= Duration::from_millis(10) && start.elapsed() < Duration::from_secs(5));
    assert!(!stuck.is_answered());
    batcher.kernel().gate.set(false);
}

#[test]
fn a_dropped_reply_is_never_launched() {
    let (_, crew, batcher, caller) = by_hand(Policy::default());
    let first = caller.submit(numbers(1), Ask::default()).unwrap();
    let second = caller.submit(numbers(1), Ask::default()).unwrap();
    drop(second);
    assert_eq!(batcher.stats().waiting_requests, 0);
    let mut third = caller.submit(numbers(1), Ask::default()).unwrap();
    assert!(third.canceller().cancel() && !third.canceller().cancel());
    assert!(matches!(now(&mut third).unwrap(), Err(Refusal::Cancelled)));
    drop(first);
    while crew.launch_one() {}
    let stats = batcher.stats();
    assert_eq!((stats.counts.cancelled, stats.counts.answered, stats.batch_requests.sum()), (3, 0, 1));
}

#[test]
fn a_fault_of_the_kernel_fails_that_launch_and_no_other() {
    fn check(request: Numbers, kind: ErrorKind, expect: &str) {
        let (_crew, batcher, caller) = with_threads(1, Policy::default());
        for _ in 0..3 {
            match caller.submit_blocking(request.clone(), Ask::default()) {
                Err(Refusal::Failed(error)) => {
                    assert_eq!(error.kind(), kind);
                    assert!(error.message().contains(expect), "{error}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(caller.submit_blocking(numbers(3), Ask::default()).unwrap(), doubled(3));
        }
        assert_eq!(batcher.stats().counts.failed, 3);
    }
    check(odd(Odd::Fails), ErrorKind::Invalid, "odd");
    check(odd(Odd::Panics), ErrorKind::Internal, "the kernel `double` panicked over this request: very odd");
    check(odd(Odd::IsForgotten), ErrorKind::Internal, "gave 0 answers for 1 parts");
}

#[test]
fn one_bad_part_does_not_spoil_its_batch() {
    let (_, crew, _batcher, caller) = by_hand(Policy::default());
    for kind in [Odd::Fails, Odd::Panics] {
        let _first = caller.submit(numbers(1), Ask::default()).unwrap();
        let mut bad = caller.submit(odd(kind), Ask::default()).unwrap();
        let mut good = caller.submit(numbers(2), Ask::default()).unwrap();
        while crew.launch_one() {}
        assert!(matches!(now(&mut bad).unwrap(), Err(Refusal::Failed(_))));
        assert_eq!(now(&mut good).unwrap().unwrap(), doubled(2));
    }
}

#[test]
fn a_full_queue_is_refused_at_once() {
    let (_, _crew, batcher, caller) = by_hand(Policy { queue_requests: 2, caller_requests: 2, ..Policy::default() });
    let _kept: Vec<_> = (0..3).map(|_| caller.submit(numbers(1), Ask::default()).unwrap()).collect();
    let refusal = caller.submit(numbers(1), Ask::default()).err().unwrap();
    assert!(matches!(refusal, Refusal::Exhausted { bound: Bound::QueueRequests, limit: 2, .. }));
    assert!(refusal.retry_after().is_some());
    let wrong = caller.submit(numbers(1), Ask { level: Some(1), ..Ask::default() }).err().unwrap();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
    assert_eq!(batcher.stats().counts.exhausted, 1);
}

#[test]
fn draining_finishes_what_it_can_and_refuses_the_rest() {
    let (clock, crew, batcher, caller) = by_hand(Policy { max_rows: 1, ..Policy::default() });
    let mut replies: Vec<_> = (0..3).map(|_| caller.submit(numbers(1), Ask::default()).unwrap()).collect();
    let mut drained = batcher.drain(Duration::from_millis(50));
    assert!(matches!(caller.submit(numbers(1), Ask::default()), Err(Refusal::Closed)));
    assert!(crew.launch_one() && crew.launch_one());
    assert!(now(&mut drained).is_none());
    clock.advance_ms(50);
    crew.tick();
    assert_eq!(now(&mut replies[0]).unwrap().unwrap(), doubled(1));
    assert_eq!(now(&mut replies[1]).unwrap().unwrap(), doubled(1));
    assert!(matches!(now(&mut replies[2]).unwrap(), Err(Refusal::Closed)));
    assert!(now(&mut drained).is_none(), "its launch still runs");
    while crew.launch_one() {}
    assert!(now(&mut drained).is_some());
    batcher.drain(Duration::ZERO).wait();
}

#[test]
fn a_crew_that_goes_refuses_what_waits() {
    let (crew, batcher, caller) = with_threads(1, Policy { max_rows: 1, max_launches: 2, ..Policy::default() });
    batcher.kernel().gate.set(true);
    let mut replies: Vec<_> = (0..4).map(|_| caller.submit(numbers(1), Ask::default()).unwrap()).collect();
    until("the first launch", || batcher.kernel().launches.load(Ordering::SeqCst) == 1);
    let going = std::thread::spawn(move || drop(crew));
    until("the refusal", || replies[3].is_answered());
    batcher.kernel().gate.set(false);
    going.join().unwrap();
    replies.iter_mut().for_each(|reply| assert!(matches!(now(reply).unwrap(), Err(Refusal::Closed))));
    assert!(matches!(caller.submit(numbers(1), Ask::default()), Err(Refusal::Closed)));
}

#[test]
fn a_call_on_an_idle_batcher_is_launched_where_it_is_made() {
    let (_crew, batcher, caller) = with_threads(1, Policy { inline_max: Duration::from_secs(1), ..Policy::default() });
    let inline = Ask { inline: true, ..Ask::default() };
    let own = std::thread::current().id();
    let first = caller.submit(numbers(1), inline).unwrap();
    until("the first answer", || first.is_answered());
    until("the end of its launch", || batcher.stats().running_launches == 0);
    assert!(caller.submit(numbers(1), inline).unwrap().is_answered());
    assert_eq!(caller.submit_blocking(numbers(2), Ask::default()).unwrap(), doubled(2));
    let threads = batcher.kernel().threads.lock().clone();
    assert_eq!([threads[0] == own, threads[1] == own, threads[2] == own], [false, true, true]);
}

#[test]
fn callers_are_the_same_by_name_and_forgotten_when_gone() {
    let (_, _crew, batcher, caller) = by_hand(Policy::default());
    let again = batcher.caller("a", 3).unwrap();
    assert_eq!(batcher.stats().callers.len(), 1);
    assert!(batcher.caller("b", 0).is_err() && batcher.caller("b", 257).is_err());
    let reply = again.submit(numbers(1), Ask::default()).unwrap();
    drop((caller, again));
    assert_eq!(batcher.stats().callers.len(), 1, "its request is open");
    drop(reply);
    assert_eq!(batcher.stats().callers.len(), 0);
    let many: Vec<_> = (0..super::CALLERS_MAX).map(|at| batcher.caller(&at.to_string(), 1).unwrap()).collect();
    assert_eq!(batcher.caller("more", 1).err().unwrap().kind(), ErrorKind::Exhausted);
    drop(many);
    batcher.caller("more", 1).unwrap();
}

#[test]
fn a_kernel_that_cannot_split_says_so() {
    struct Whole;
    impl Kernel for Whole {
        type Shape = ();
        type Request = usize;
        type Answer = usize;
        fn name(&self) -> &str {
            "whole"
        }
        fn shape(&self, _: &usize) {}
        fn rows(&self, request: &usize) -> usize {
            *request
        }
        fn is_divisible(&self) -> bool {
            false
        }
        fn launch(&self, batch: &Batch<'_, Whole>, answers: &mut Vec<Result<usize>>) {
            answers.extend(batch.iter().map(|part| Ok(part.rows.len())));
        }
    }
    let crew = Crew::by_hand(Arc::new(VirtualClock::new(0)));
    let batcher = Batcher::new(Whole, Policy { max_rows: 5, ..Policy::default() }, &crew).unwrap();
    let caller = batcher.caller("a", 1).unwrap();
    assert_eq!(caller.submit_blocking(5, Ask::default()).unwrap(), 5);
    let refusal = caller.submit(6, Ask::default()).err().unwrap();
    assert!(refusal.to_string().contains("takes at most 5 and cannot split it"), "{refusal}");
    assert!(Batcher::new(Whole, Policy { levels: 0, ..Policy::default() }, &crew).is_err());
}

/// Threads and tasks that call, cancel, fail and time out all at once: each gets its own answer, and nothing is left.
#[test]
fn everything_at_once() {
    let policy = Policy {
        max_rows: 32,
        preferred_rows: vec![8, 16],
        max_delay: Duration::from_micros(300),
        max_launches: 2,
        queue_requests: 200,
        caller_requests: 60,
        levels: 2,
        ..Policy::default()
    };
    let (crew, batcher, _caller) = with_threads(2, policy);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let caller = batcher.caller(&format!("caller {}", task % 7), 1 + task % 3).unwrap();
            runtime.spawn(async move {
                let random = SeededRandom::new(task.into());
                for _ in 0..200 {
                    one_call(&caller, &random).await;
                }
            })
        })
        .collect();
    let caller = batcher.caller("thread", 1).unwrap();
    for count in 0..300 {
        assert_eq!(caller.submit_blocking(numbers(count % 90), Ask::default()).unwrap(), doubled(count % 90));
    }
    tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
    batcher.drain(Duration::from_secs(5)).wait();
    let stats = batcher.stats();
    assert_eq!(stats.counts.submitted, 64 * 200 + 300);
    assert_eq!((stats.counts.ended(), stats.waiting_requests, stats.running_launches), (stats.counts.submitted, 0, 0));
    drop(crew);
}

async fn one_call(caller: &Caller<Double>, random: &SeededRandom) {
    let dice = random.number() % 100;
    let count = random.number() % if dice < 5 { 200 } else { 6 };
    let shape = (dice % 2) as u8;
    let odd = match dice {
        0 => Odd::Panics,
        1..4 => Odd::Fails,
        _ => Odd::Nothing,
    };
    let timeout = (dice % 10 == 9).then(|| Duration::from_micros(random.number() % 500));
    let ask = Ask { level: Some((dice % 2) as u8), timeout, inline: dice < 33 };
    let Ok(reply) = caller.submit(Numbers { shape, odd, ..numbers(count) }, ask) else {
        return tokio::task::yield_now().await;
    };
    if dice % 10 == 8 {
        return drop(reply);
    }
    match reply.await {
        Ok(answer) => assert_eq!(answer, doubled(count)),
        Err(Refusal::Failed(_) | Refusal::DeadlineMissed) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_crew_has_threads_but_not_too_many() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    assert!(Crew::start(0, clock.clone()).is_err());
    assert!(Crew::start(super::THREADS_MAX + 1, clock).is_err());
}
