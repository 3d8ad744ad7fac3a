//! Faults that are injected on purpose.
//!
//! Owns [`FaultState`] (a fault of the specification, with whom it hit), and the faults that headers ask for by Envoy's names.
//! Separate because what is done on purpose must be easy to see, to bound and to stop: a fault has an end, a share, and a rule
//! by which it stops itself; a dry run only counts.
//!
//! Bounded by [`crate::limits::FAULTS_MAX`]. Does not fail: a header that cannot be read injects nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use mainstay_base::Result;
use mainstay_inference::InferRequest;
use parking_lot::Mutex;

use crate::caller::{Caller, Matcher};
use crate::limits::SPAN_MS_MAX;
use crate::spec::{Effect, Fault};
use crate::window::Window;

const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENT: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_PERCENT: &str = "x-envoy-fault-abort-request-percentage";

/// See the module.
pub(crate) struct FaultState {
    pub name: Arc<str>,
    pub spec: Fault,
    variant: Option<usize>,
    when: Box<[Matcher]>,
    hits: AtomicU64,
    has_stopped: AtomicBool,
    window: Option<Mutex<Window>>,
}

/// A fault and what came of it so far.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultReport {
    /// As it was said.
    pub fault: Fault,
    /// Requests that it hit; in a dry run, that it would have hit.
    pub hits: u64,
    /// Whether it is injected now.
    pub is_active: bool,
    /// Whether it stopped by its own rule.
    pub has_stopped: bool,
}

impl FaultState {
    pub fn new(spec: &Fault, place: impl Fn(&str) -> Option<usize>) -> Result<FaultState> {
        Ok(FaultState {
            name: spec.name.as_str().into(),
            variant: spec.variant.as_deref().and_then(place),
            when: Matcher::all(&spec.when, "faults.when")?,
            hits: AtomicU64::new(0),
            has_stopped: AtomicBool::new(false),
            window: spec.stop.map(|stop| Mutex::new(Window::new(stop.window_ms))),
            spec: spec.clone(),
        })
    }

    /// Whether it is injected at this time.
    pub fn is_active(&self, now_ms: i64) -> bool {
        let from_ms = self.spec.from_ms.unwrap_or(i64::MIN);
        (from_ms..self.spec.until_ms).contains(&now_ms) && !self.has_stopped.load(Ordering::Relaxed)
    }

    /// Whether it hits this request, whatever the variant; `unit` (0 to 1, 1 excluded) is chance's. Counts whom it hits, and
    /// hits nobody in a dry run.
    pub fn hits(
        &self,
        caller: &Caller<'_>,
        request: &InferRequest,
        variant: usize,
        now_ms: i64,
        unit: impl FnOnce() -> f64,
    ) -> bool {
        let is_meant = self.is_active(now_ms)
            && self.variant.is_none_or(|meant| meant == variant)
            && self.when.iter().all(|matcher| matcher.matches(caller, request))
            && unit() * 100.0 < self.spec.percent;
        if is_meant {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        is_meant && !self.spec.dry_run
    }

    /// Slots that it takes away at this time; none in a dry run. Counts a request that finds no slot for it, where so many of
    /// `concurrency` are in use.
    pub fn taken(&self, now_ms: i64, concurrency: u32, in_use: impl FnOnce() -> u32) -> u32 {
        let slots = match self.spec.effect {
            Effect::Saturation(slots) if self.is_active(now_ms) => slots,
            _ => return 0,
        };
        if in_use().saturating_add(slots) >= concurrency {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        if self.spec.dry_run { 0 } else { slots }
    }

    /// A request of the endpoint ended. Answers why the fault stops itself, once.
    pub fn ended(&self, is_bad: bool, now_ms: i64, now_ns: u64) -> Option<String> {
        let (stop, window) = (self.spec.stop?, self.window.as_ref()?);
        if !self.is_active(now_ms) {
            return None;
        }
        let counts = window.lock().add(now_ns, is_bad);
        if !counts.exceeds(stop.percent, stop.minimum) || self.has_stopped.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(format!(
            "{} of {} requests in {} ms were not answered as planned ({:.1} %, more than {} %)",
            counts.bad,
            counts.all,
            stop.window_ms,
            counts.percent(),
            stop.percent
        ))
    }

    pub fn report(&self, now_ms: i64) -> FaultReport {
        FaultReport {
            fault: self.spec.clone(),
            hits: self.hits.load(Ordering::Relaxed),
            is_active: self.is_active(now_ms),
            has_stopped: self.has_stopped.load(Ordering::Relaxed),
        }
    }
}

/// What the headers of a request ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub delay: Option<Duration>,
    pub abort: Option<u16>,
}

/// Faults that a caller with the right to do so asks for; `unit` (0 to 1, 1 excluded) is chance's, once for each.
pub(crate) fn asked(headers: &HeaderMap, mut unit: impl FnMut() -> f64) -> Asked {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let mut is_hit = |name: &str| match headers.contains_key(name) {
        true => number(name).is_some_and(|percent| unit() * 100.0 < percent as f64),
        false => true,
    };
    let delay_ms = number(DELAY).filter(|ms| *ms <= SPAN_MS_MAX && is_hit(DELAY_PERCENT));
    let abort = number(ABORT).filter(|status| (200..600).contains(status) && is_hit(ABORT_PERCENT));
    Asked { delay: delay_ms.map(Duration::from_millis), abort: abort.map(|status| status as u16) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Condition, Source, Test};
    use crate::spec::StopRule;

    fn fault(change: impl FnOnce(&mut Fault)) -> FaultState {
        let mut fault = Fault {
            name: "slow".into(),
            variant: None,
            when: Vec::new(),
            percent: 100.0,
            effect: Effect::LatencyMs(500),
            from_ms: Some(1_000),
            until_ms: 2_000,
            stop: None,
            dry_run: false,
        };
        change(&mut fault);
        FaultState::new(&fault, |name| (name == "b").then_some(1)).unwrap()
    }

    fn hits(fault: &FaultState, variant: usize, now_ms: i64, unit: f64) -> bool {
        let headers = HeaderMap::from_iter([("x-test".parse().unwrap(), "yes".parse().unwrap())]);
        fault.hits(&Caller::new(&headers), &InferRequest::default(), variant, now_ms, || unit)
    }

    #[test]
    fn a_fault_hits_whom_it_names_and_only_in_its_time() {
        fn check(change: impl FnOnce(&mut Fault), variant: usize, now_ms: i64, unit: f64, expect: bool) {
            assert_eq!(hits(&fault(change), variant, now_ms, unit), expect, "{variant} {now_ms} {unit}");
        }
        let when = |value: &str| {
            let is = Test::Exact(value.into());
            vec![Condition { of: Source::Header("x-test".into()), is }]
        };
        check(|_| {}, 0, 999, 0.0, false);
        check(|_| {}, 0, 1_000, 0.0, true);
        check(|_| {}, 0, 1_999, 0.0, true);
        check(|_| {}, 0, 2_000, 0.0, false);
        check(|fault| fault.percent = 20.0, 0, 1_000, 0.19, true);
        check(|fault| fault.percent = 20.0, 0, 1_000, 0.2, false);
        check(|fault| fault.percent = 0.0, 0, 1_000, 0.0, false);
        check(|fault| fault.variant = Some("b".into()), 0, 1_000, 0.0, false);
        check(|fault| fault.variant = Some("b".into()), 1, 1_000, 0.0, true);
        check(|fault| fault.when = when("yes"), 0, 1_000, 0.0, true);
        check(|fault| fault.when = when("no"), 0, 1_000, 0.0, false);
    }

    #[test]
    fn a_dry_run_counts_whom_it_would_hit() {
        let fault = fault(|fault| fault.dry_run = true);
        assert!(!hits(&fault, 0, 1_500, 0.0));
        assert_eq!(fault.report(1_500).hits, 1);
        assert!(fault.report(1_500).is_active);
    }

    #[test]
    fn a_saturation_takes_slots_and_counts_who_finds_none() {
        fn check(dry_run: bool, in_use: u32, expect_taken: u32, expect_hits: u64) {
            let fault = fault(|fault| (fault.effect, fault.dry_run) = (Effect::Saturation(6), dry_run));
            assert_eq!(fault.taken(1_500, 10, || in_use), expect_taken);
            assert_eq!(fault.report(1_500).hits, expect_hits, "{dry_run} {in_use}");
            assert_eq!(fault.taken(2_000, 10, || in_use), 0);
        }
        check(false, 3, 6, 0);
        check(false, 4, 6, 1);
        check(true, 3, 0, 0);
        check(true, 4, 0, 1);
    }

    #[test]
    fn a_fault_stops_itself_once_when_too_much_fails() {
        let stop = StopRule { percent: 10.0, window_ms: 1_000, minimum: 10 };
        let fault = fault(|fault| fault.stop = Some(stop));
        assert!((0..9).all(|_| fault.ended(false, 1_500, 0).is_none()));
        assert_eq!(fault.ended(true, 1_500, 0), None, "10 % is not more than 10 %");
        let reason = fault.ended(true, 1_500, 0).unwrap();
        assert!(reason.contains("2 of 11"), "{reason}");
        assert_eq!(fault.ended(true, 1_500, 0), None);
        assert!(!hits(&fault, 0, 1_500, 0.0) && fault.report(1_500).has_stopped);
    }

    #[test]
    fn headers_ask_for_faults_by_envoys_names() {
        fn check(headers: &[(&'static str, &str)], unit: f64, delay_ms: Option<u64>, abort: Option<u16>) {
            let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let found = asked(&HeaderMap::from_iter(pairs), || unit);
            assert_eq!(found, Asked { delay: delay_ms.map(Duration::from_millis), abort }, "{headers:?}");
        }
        check(&[], 0.0, None, None);
        check(&[(DELAY, "250")], 0.99, Some(250), None);
        check(&[(DELAY, "250"), (DELAY_PERCENT, "20")], 0.19, Some(250), None);
        check(&[(DELAY, "250"), (DELAY_PERCENT, "20")], 0.2, None, None);
        check(&[(DELAY, "250"), (DELAY_PERCENT, "many")], 0.0, None, None);
        check(&[(ABORT, "503")], 0.0, None, Some(503));
        check(&[(ABORT, "99")], 0.0, None, None);
        check(&[(ABORT, "x"), (DELAY, "-1")], 0.0, None, None);
        check(&[(DELAY, "3600001")], 0.0, None, None);
    }
}
