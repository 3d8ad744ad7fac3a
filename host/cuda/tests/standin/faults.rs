//! What a device does wrong is nobody's trouble: the answer comes from the processor, and the device is asked again later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mainstay_base::VirtualClock;
use mainstay_cuda::{AWAY_MIN, Cuda, Mode, Options, Reason};
use mainstay_models::Rows;
use mainstay_models::device::{Device, Part};
use mainstay_models::forest::{Forest, Join, LeafOutput, Missing, Node, Split, Test, Tree};

use crate::{always, start, start_by, turn};

/// `number` on the one side of 0, its negative on the other.
fn stump(number: f64) -> Forest {
    let split = Split {
        feature: 0,
        test: Test::Less(0.0),
        missing: Missing::Nan,
        missing_is_yes: false,
        yes: 1,
        no: 2,
        cover: 1.0,
    };
    let leaf = |first| Node::Leaf { first, count: 1, cover: 1.0 };
    let tree = Tree {
        nodes: vec![Node::Split(split), leaf(0), leaf(1)],
        leaf_outputs: [number, -number].map(|value| LeafOutput { output: 0, value }).to_vec(),
        ..Tree::default()
    };
    Forest {
        trees: vec![tree],
        features: 1,
        outputs: 1,
        base: vec![0.0],
        join: Join::Sum,
        compares_f32: false,
        adds_f32: false,
    }
}

fn values(count: usize) -> Vec<f64> {
    (0..count).map(|at| if at.is_multiple_of(3) { -1.0 } else { 1.0 }).collect()
}

fn asked(cuda: &Cuda, number: u64, count: usize) -> bool {
    let (values, forest) = (values(count), stump(number as f64));
    let rows = Rows::F64 { values: &values, features: 1 };
    let mut out = vec![f64::NAN; count];
    let is_computed = cuda.raw(number, &forest, &[Part { rows: &rows, range: 0..count }], &mut out);
    let want = |at: usize| if at.is_multiple_of(3) { number as f64 } else { -(number as f64) };
    assert!(!is_computed || out.iter().enumerate().all(|(at, out)| *out == want(at)), "a wrong answer");
    is_computed
}

fn left(cuda: &Cuda, reason: Reason) -> u64 {
    cuda.stats().left[reason as usize]
}

#[test]
fn a_host_without_a_device_starts_unless_it_is_required() {
    let turn = turn();
    turn.set("devices", 0);
    let clock = Arc::new(VirtualClock::new(0));
    assert!(start_by(Options::default(), clock.clone()).unwrap().is_none());
    let error = start_by(always(), clock.clone()).err().unwrap();
    assert!(error.message().contains("0 devices"), "{error}");
    turn.set("devices", 1);
    assert!(start_by(Options { mode: Mode::Off, ..Options::default() }, clock.clone()).unwrap().is_none());
    assert_eq!(turn.count("opened"), 0, "off is not even looked for");
    assert!(start_by(Options::default(), clock).unwrap().is_some());
}

#[test]
fn a_device_that_computes_wrongly_is_not_used() {
    let turn = turn();
    turn.set("wrong", 1);
    let error = start_by(always(), Arc::new(VirtualClock::new(0))).err().unwrap();
    assert!(error.message().contains("computes wrongly"), "{error}");
    assert!(start_by(Options::default(), Arc::new(VirtualClock::new(0))).unwrap().is_none());
}

#[test]
fn a_lost_device_is_asked_again_after_a_while() {
    let turn = turn();
    let clock = Arc::new(VirtualClock::new(0));
    let cuda = start_by(always(), clock.clone()).unwrap().unwrap();
    assert!(asked(&cuda, 1, 100));
    turn.set("lose_after", 0);
    turn.set("stays_lost", 1);
    assert!(!asked(&cuda, 1, 100));
    assert_eq!((cuda.stats().losses, left(&cuda, Reason::Failed)), (1, 1));
    assert!(!asked(&cuda, 1, 100), "not before its time");
    assert_eq!((turn.count("resets"), left(&cuda, Reason::Away)), (0, 1));
    let mut waited = AWAY_MIN;
    // The first try fails, so the second comes after twice the time.
    for expect in [1, 2] {
        clock.advance_ms(waited.as_millis() as i64);
        waited *= 2;
        asked(&cuda, 1, 100);
        until(|| turn.count("resets") == expect);
    }
    until(|| cuda.stats().is_up);
    assert!(asked(&cuda, 1, 100), "it is back, and has the model again");
    assert_eq!(cuda.stats().losses, 1);
}

fn until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_launch_that_is_refused_loses_the_device() {
    let turn = turn();
    let cuda = start();
    turn.set("no_launch", 1);
    assert!(!asked(&cuda, 1, 100));
    assert!(!cuda.stats().is_up);
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let turn = turn();
    let options = Options { patience: Duration::from_millis(50), ..always() };
    let clock = Arc::new(VirtualClock::new(0));
    let cuda = start_by(options, clock.clone()).unwrap().unwrap();
    turn.set("slow_ms", 10);
    assert!(asked(&cuda, 1, 100), "slow is not dead");
    turn.set("hangs", 1);
    let began = Instant::now();
    assert!(!asked(&cuda, 1, 100));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(cuda.stats().losses, 1);
    turn.set("hangs", 0);
    clock.advance_ms(AWAY_MIN.as_millis() as i64);
    assert!(!asked(&cuda, 1, 100), "it is being opened");
    until(|| cuda.stats().is_up);
    assert_eq!(turn.count("resets"), 0, "what hangs may still use its memory");
    assert!(asked(&cuda, 1, 100));
}

#[test]
fn short_memory_means_smaller_pieces_and_then_the_processor() {
    let turn = turn();
    // Two lanes of whole pieces take 1 MiB each: 32,768 rows, 8 bytes in, 8 out.
    turn.set("memory", 800 << 10);
    let cuda = start();
    assert!(asked(&cuda, 1, 100_000), "in smaller pieces");
    assert!(cuda.stats().launches > 4 + 100_000 / 32_768);
    assert!(cuda.stats().memory_bytes <= 800 << 10);
    turn.set("memory", 8 << 10);
    assert!(!asked(&cuda, 2, 100_000));
    assert_eq!((left(&cuda, Reason::NoRoom), cuda.stats().losses), (1, 0), "full is not lost");
    turn.set("memory", 1 << 30);
    assert!(asked(&cuda, 2, 100_000), "and works again");
}

#[test]
fn the_cap_holds_and_models_that_nobody_asks_for_go_first() {
    let turn = turn();
    // What a test before has given up on still lies there.
    let (cap, before) = (256 << 10, turn.count("memory"));
    let options = Options { memory_bytes: cap as usize, ..always() };
    let cuda = start_by(options, Arc::new(VirtualClock::new(0))).unwrap().unwrap();
    for number in 1..2_000 {
        assert!(asked(&cuda, number, 50));
        assert!(turn.count("memory") - before <= cap);
    }
    assert!((2..2_000).contains(&cuda.stats().residents));
    assert!(asked(&cuda, 1, 50), "the first one comes back");
}

#[test]
fn what_is_cheaper_here_stays_here() {
    let _turn = turn();
    let options = Options { weighs: true, ..always() };
    let cuda = start_by(options, Arc::new(VirtualClock::new(0))).unwrap().unwrap();
    assert!(!asked(&cuda, 1, 10), "too small to try");
    assert!(asked(&cuda, 1, 1_000), "tried");
    cuda.predicted_here(1, 1_000, 0);
    assert!(!asked(&cuda, 1, 1_000), "the processor needs no time at all");
    assert_eq!(left(&cuda, Reason::Cheaper), 2);
}

#[test]
fn a_device_that_dies_under_load_loses_no_request() {
    let turn = turn();
    let cuda = start_by(always(), Arc::new(mainstay_base::SystemClock::default())).unwrap().unwrap();
    let (is_over, computed, left) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 1..=4 {
            let (cuda, is_over, computed, left) = (&cuda, &is_over, &computed, &left);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // Either it is right (`asked` looks) or the processor's to compute.
                    let count = if asked(cuda, number, 500) { computed } else { left };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let before = computed.load(Ordering::Relaxed);
            until(|| computed.load(Ordering::Relaxed) > before + 10);
            let losses = cuda.stats().losses;
            turn.set("lose_after", 3);
            until(|| cuda.stats().losses > losses);
            until(|| cuda.stats().is_up);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(cuda.stats().losses, 3);
    assert!(left.load(Ordering::Relaxed) >= 3);
}
