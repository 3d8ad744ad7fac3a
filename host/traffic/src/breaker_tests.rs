//! The breaker: its rules one by one, the faults of other breakers by name, and random sequences against a model.

use super::*;
use crate::plan::FailureRate;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const FAILED: Outcome = Outcome::Bad(Fault::Failed);

fn policy() -> BreakerPolicy {
    BreakerPolicy { jitter: 0.0, ..BreakerPolicy::default() }
}

fn settle(breaker: &Breaker, policy: &BreakerPolicy, now_ns: u64, outcome: Outcome) -> Option<Transition> {
    let permit = breaker.admit(policy, now_ns).0.expect("it is let through");
    permit.settle(outcome, policy, now_ns, 0.0)
}

fn fail(breaker: &Breaker, policy: &BreakerPolicy, now_ns: u64, times: u32) -> Option<Transition> {
    (0..times).fold(None, |_, _| settle(breaker, policy, now_ns, FAILED))
}

fn open_ns(transition: Option<Transition>) -> u64 {
    match transition {
        Some(Transition::Opened { open_ns, .. }) => open_ns,
        other => panic!("it should have opened: {other:?}"),
    }
}

#[test]
fn five_failures_in_a_row_open_it_for_thirty_seconds() {
    let (breaker, policy) = (Breaker::default(), policy());
    assert_eq!(fail(&breaker, &policy, 0, 4), None);
    settle(&breaker, &policy, 0, Outcome::Good);
    assert_eq!(fail(&breaker, &policy, 0, 4), None);
    assert_eq!(open_ns(fail(&breaker, &policy, 0, 1)), 30 * SECOND);
    let (refused, _) = breaker.admit(&policy, 10 * SECOND);
    assert_eq!(refused.err(), Some(Refusal { wait_ns: 20 * SECOND }));
    assert_eq!(breaker.state(29 * SECOND), BreakerState::Open);
    assert_eq!(breaker.state(30 * SECOND), BreakerState::HalfOpen);
}

#[test]
fn a_share_of_failures_in_a_window_opens_it() {
    let rate = FailureRate { percent: 50.0, window_ms: 10_000, minimum: 10 };
    let policy = BreakerPolicy { consecutive: 0, rate: Some(rate), ..policy() };
    let breaker = Breaker::default();
    for _ in 0..5 {
        assert_eq!(settle(&breaker, &policy, SECOND, Outcome::Good), None);
        assert_eq!(settle(&breaker, &policy, SECOND, FAILED), None);
    }
    let opened = settle(&breaker, &policy, SECOND, FAILED);
    assert!(matches!(&opened, Some(Transition::Opened { reason, .. }) if reason.contains("6 of 11")), "{opened:?}");
}

#[test]
fn what_nobody_is_to_blame_for_counts_nothing() {
    let (breaker, policy) = (Breaker::default(), policy());
    fail(&breaker, &policy, 0, 4);
    (0..100).for_each(|_| assert_eq!(settle(&breaker, &policy, 0, Outcome::Unknown), None));
    assert!(fail(&breaker, &policy, 0, 1).is_some());
}

#[test]
fn each_time_it_stays_open_longer_up_to_the_cap() {
    let (breaker, policy) = (Breaker::default(), BreakerPolicy { cap_ms: 100_000, ..policy() });
    let mut now = 0;
    let mut open = open_ns(fail(&breaker, &policy, now, 5));
    for expect in [60, 100, 100] {
        now += open;
        open = open_ns(fail(&breaker, &policy, now, 1));
        assert_eq!(open, expect * SECOND);
    }
    now += open;
    assert_eq!(settle(&breaker, &policy, now, Outcome::Good), Some(Transition::Closed));
    now += 3_600 * SECOND;
    assert_eq!(open_ns(fail(&breaker, &policy, now, 5)), 30 * SECOND, "after an hour in health it begins anew");
}

#[test]
fn chance_only_shortens_the_time() {
    let (breaker, policy) = (Breaker::default(), BreakerPolicy { jitter: 0.5, ..policy() });
    fail(&breaker, &policy, 0, 4);
    let permit = breaker.admit(&policy, 0).0.unwrap();
    assert_eq!(open_ns(permit.settle(FAILED, &policy, 0, 0.5)), 22_500_000_000);
}

// ---- the faults of other breakers ----

/// Envoy #2671, #28304: with one host left, or too many ejected, panic routing sent everything to hosts known to be bad.
#[test]
fn envoy_2671_an_open_breaker_gets_nothing_however_many_others_are_open() {
    let (breakers, policy) = ([Breaker::default(), Breaker::default()], policy());
    for breaker in &breakers {
        fail(breaker, &policy, 0, 5);
    }
    for now in [0, SECOND, 29 * SECOND] {
        assert!(breakers.iter().all(|breaker| breaker.admit(&policy, now).0.is_err()));
    }
}

/// Envoy #40697: after an ejection was over, it took more than the configured number of errors to eject again.
#[test]
fn envoy_40697_opening_again_takes_as_many_failures_as_the_first_time() {
    let (breaker, policy) = (Breaker::default(), policy());
    fail(&breaker, &policy, 0, 5);
    let now = 30 * SECOND;
    assert_eq!(settle(&breaker, &policy, now, Outcome::Good), Some(Transition::Closed));
    assert_eq!(fail(&breaker, &policy, now, 4), None);
    assert!(fail(&breaker, &policy, now, 1).is_some());
}

/// Envoy #27909, #34666: a default that decided whether a lone host may be ejected changed its meaning.
#[test]
fn envoy_27909_the_defaults_are_what_they_were() {
    let BreakerPolicy { consecutive, rate, open_ms, factor, cap_ms, probes, .. } = BreakerPolicy::default();
    assert_eq!((consecutive, rate, open_ms, cap_ms, probes), (5, None, 30_000, 300_000, 1));
    assert_eq!(factor, 2.0);
}

/// resilience4j #903, #935, #2028: a permit that was never released kept the breaker half-open for ever.
#[test]
fn resilience4j_903_a_dropped_permit_gives_its_place_to_another() {
    let (breaker, policy) = (Breaker::default(), policy());
    fail(&breaker, &policy, 0, 5);
    let now = 30 * SECOND;
    let (probe, transition) = breaker.admit(&policy, now);
    assert_eq!(transition, Some(Transition::HalfOpened));
    assert!(breaker.admit(&policy, now).0.is_err());
    drop(probe);
    assert_eq!(settle(&breaker, &policy, now, Outcome::Good), Some(Transition::Closed));
}

/// The same, when the permit's holder hangs and drops nothing.
#[test]
fn resilience4j_2028_a_probe_that_is_never_heard_of_again_is_replaced() {
    let (breaker, policy) = (Breaker::default(), policy());
    fail(&breaker, &policy, 0, 5);
    let now = 30 * SECOND;
    let lost = breaker.admit(&policy, now).0.unwrap();
    assert_eq!(breaker.admit(&policy, now + SECOND).0.err(), Some(Refusal { wait_ns: 29 * SECOND }));
    let found = breaker.admit(&policy, now + 30 * SECOND).0.expect("another probe");
    assert_eq!(lost.settle(FAILED, &policy, now + 31 * SECOND, 0.0), None, "what comes too late counts nothing");
    assert_eq!(found.settle(Outcome::Good, &policy, now + 32 * SECOND, 0.0), Some(Transition::Closed));
}

/// resilience4j #1432: more probes than configured were let through at once.
#[test]
fn resilience4j_1432_there_are_exactly_as_many_probes_as_configured() {
    let (breaker, policy) = (Breaker::default(), BreakerPolicy { probes: 3, ..policy() });
    fail(&breaker, &policy, 0, 5);
    let now = 30 * SECOND;
    let mut probes: Vec<Permit> = (0..10).filter_map(|_| breaker.admit(&policy, now).0.ok()).collect();
    assert_eq!(probes.len(), 3);
    assert!(probes.iter().all(Permit::is_probe));
    assert_eq!(probes.pop().unwrap().settle(Outcome::Good, &policy, now, 0.0), None);
    assert!(breaker.admit(&policy, now).0.is_err(), "an answered probe keeps its place");
    assert_eq!(probes.pop().unwrap().settle(Outcome::Good, &policy, now, 0.0), None);
    assert_eq!(probes.pop().unwrap().settle(Outcome::Good, &policy, now, 0.0), Some(Transition::Closed));
}

/// resilience4j #785: there was no way to trip on failures per time without a share of many calls.
#[test]
fn resilience4j_785_failures_in_a_time_open_it_without_a_long_history() {
    let rate = FailureRate { percent: 0.0, window_ms: 1_000, minimum: 2 };
    let policy = BreakerPolicy { consecutive: 0, rate: Some(rate), ..policy() };
    let breaker = Breaker::default();
    assert_eq!(settle(&breaker, &policy, 0, FAILED), None);
    assert_eq!(settle(&breaker, &policy, 2 * SECOND, FAILED), None);
    assert!(settle(&breaker, &policy, 2 * SECOND, FAILED).is_some());
}

#[test]
fn what_was_asked_before_it_opened_counts_nothing_afterwards() {
    let (breaker, policy) = (Breaker::default(), policy());
    let (early, late) = (breaker.admit(&policy, 0).0.unwrap(), breaker.admit(&policy, 0).0.unwrap());
    fail(&breaker, &policy, 0, 5);
    assert_eq!(early.settle(Outcome::Good, &policy, SECOND, 0.0), None);
    assert_eq!(breaker.state(SECOND), BreakerState::Open);
    let now = 30 * SECOND;
    let _probe = breaker.admit(&policy, now).0.unwrap();
    assert_eq!(late.settle(FAILED, &policy, now, 0.0), None);
    assert_eq!(breaker.state(now), BreakerState::HalfOpen);
}

// ---- random sequences ----

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Settle { which: usize, outcome: u8 },
    Drop { which: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Admit),
        3 => (0_usize..8, 0_u8..3).prop_map(|(which, outcome)| Step::Settle { which, outcome }),
        1 => (0_usize..8).prop_map(|which| Step::Drop { which }),
        1 => (0_u64..700).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// The breaker in the plainest words: what happened since the state began.
struct Model {
    state: BreakerState,
    until_ms: u64,
    since_ms: u64,
    consecutive: u32,
    times: u32,
    answered: u32,
    /// Permits that are out: when they were given, and whether they still count.
    out: Vec<(Permit, u64, bool)>,
}

const PROBES: u32 = 2;

impl Model {
    fn begin(&mut self, state: BreakerState, now_ms: u64) {
        (self.state, self.since_ms, self.consecutive, self.answered) = (state, now_ms, 0, 0);
        self.out.iter_mut().for_each(|(_, _, counts)| *counts = false);
    }

    fn trip(&mut self, now_ms: u64) {
        if self.state == BreakerState::Closed {
            self.times = self.times.saturating_sub(((now_ms - self.since_ms) / 100) as u32);
        }
        self.until_ms = now_ms + (100 * 2_u64.pow(self.times.min(3))).min(500);
        self.times += 1;
        self.begin(BreakerState::Open, now_ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    #[test]
    fn random_sequences_end_as_the_model_says(steps in prop::collection::vec(step(), 1..150)) {
        let policy = BreakerPolicy {
            consecutive: 3, open_ms: 100, cap_ms: 500, probes: PROBES, probe_timeout_ms: 300, ..policy()
        };
        let breaker = Breaker::default();
        let mut model = Model {
            state: BreakerState::Closed, until_ms: 0, since_ms: 0, consecutive: 0, times: 0, answered: 0, out: Vec::new(),
        };
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Wait { ms } => now_ms += ms,
                Step::Drop { which } if which < model.out.len() => drop(model.out.remove(which)),
                Step::Admit => {
                    if model.state == BreakerState::Open && now_ms >= model.until_ms {
                        model.begin(BreakerState::HalfOpen, now_ms);
                    }
                    if model.state == BreakerState::HalfOpen {
                        let lost = |(_, since, counts): &mut (Permit, u64, bool)| *counts &= now_ms - *since < 300;
                        model.out.iter_mut().for_each(|permit| { lost(permit); });
                    }
                    let waited_for = model.out.iter().filter(|(_, _, counts)| *counts).count() as u32;
                    let expect = match model.state {
                        BreakerState::Closed => true,
                        BreakerState::Open => false,
                        BreakerState::HalfOpen => waited_for + model.answered < PROBES,
                    };
                    let admitted = breaker.admit(&policy, now_ms * 1_000_000).0;
                    prop_assert_eq!(admitted.is_ok(), expect);
                    if let Ok(permit) = admitted {
                        model.out.push((permit, now_ms, true));
                    }
                }
                Step::Settle { which, outcome } if which < model.out.len() => {
                    let (permit, _, counts) = model.out.remove(which);
                    let outcome = [Outcome::Good, FAILED, Outcome::Unknown][usize::from(outcome)];
                    permit.settle(outcome, &policy, now_ms * 1_000_000, 0.0);
                    match (model.state, outcome) {
                        _ if !counts => {}
                        (BreakerState::Closed, Outcome::Good) => model.consecutive = 0,
                        (BreakerState::Closed, Outcome::Bad(_)) => {
                            model.consecutive += 1;
                            if model.consecutive == 3 {
                                model.trip(now_ms);
                            }
                        }
                        (BreakerState::HalfOpen, Outcome::Good) => {
                            model.answered += 1;
                            if model.answered == PROBES {
                                model.begin(BreakerState::Closed, now_ms);
                            }
                        }
                        (BreakerState::HalfOpen, Outcome::Bad(_)) => model.trip(now_ms),
                        _ => {}
                    }
                }
                Step::Drop { .. } | Step::Settle { .. } => {}
            }
            let is_over = model.state == BreakerState::Open && now_ms >= model.until_ms;
            let expect = if is_over { BreakerState::HalfOpen } else { model.state };
            prop_assert_eq!(breaker.state(now_ms * 1_000_000), expect);
        }
    }
}
