//! What leads to another plan at once.
//!
//! Owns [`Wire`]: a tripwire with what it has counted. Separate from acting on it. Each request is looked at when it ends, by
//! whoever carried it out, so nothing polls: a breach is known with the request that brings it about.
//!
//! Bounded by one window of fixed size each. A tripwire fires once; the plan that it leads to has tripwires of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::plan::{Signal, Tripwire};
use crate::served::Why;
use crate::signals::{Observation, Of};
use crate::window::Window;

/// See the module.
pub(crate) struct Wire {
    pub name: Arc<str>,
    pub plan: Arc<str>,
    spec: Tripwire,
    of: Of,
    window: Mutex<Window>,
    armed_ns: u64,
    has_fired: AtomicBool,
}

impl Wire {
    /// `variant`: the place of the variant that it names.
    pub fn new(spec: &Tripwire, variant: Option<usize>, now_ns: u64) -> Wire {
        let of = match (spec.signal, variant) {
            (Signal::Disagreements, Some(variant)) => Of::Mirror(variant),
            (_, Some(variant)) => Of::Variant(variant),
            (_, None) => Of::Endpoint,
        };
        Wire {
            name: spec.name.as_str().into(),
            plan: spec.plan.as_str().into(),
            spec: spec.clone(),
            of,
            window: Mutex::new(Window::new(spec.window_ms)),
            armed_ns: now_ns.saturating_add(spec.grace_ms.saturating_mul(1_000_000)),
            has_fired: AtomicBool::new(false),
        }
    }

    /// Look at one request. Answers what was measured when this is the one that breaches it.
    pub fn observe(&self, of: Of, seen: &Observation, now_ns: u64) -> Option<String> {
        if of != self.of || seen.is_cancelled {
            return None;
        }
        self.count(self.is_bad(seen)?, now_ns)
    }

    /// Look at one pair of answers.
    pub fn compared(&self, of: Of, agrees: bool, now_ns: u64) -> Option<String> {
        (of == self.of && self.spec.signal == Signal::Disagreements).then(|| self.count(!agrees, now_ns))?
    }

    /// None: the request says nothing about what is measured.
    fn is_bad(&self, seen: &Observation) -> Option<bool> {
        use Why::{
            Aborted, BadAnswer, BreakerOpen, Deadline, Failed, Invalid, NotFound, NotReady, Overloaded, RateLimited,
        };
        match self.spec.signal {
            Signal::Errors => match seen.why {
                None => Some(false),
                Some(Failed | Deadline | NotReady | BadAnswer | BreakerOpen) => Some(true),
                Some(NotFound | Invalid | Overloaded | RateLimited | Aborted) => None,
            },
            Signal::BadAnswers => Some(seen.why == Some(BadAnswer)),
            Signal::Fallbacks => Some(seen.is_fallback),
            Signal::Overloads => Some(seen.why == Some(Overloaded)),
            Signal::Disagreements => None,
            Signal::SlowerThanMs(ms) => seen.latency_us.map(|us| us > ms.saturating_mul(1_000)),
            Signal::ScoreAbove(bound) => seen.score.map(|score| score > bound),
            Signal::ScoreBelow(bound) => seen.score.map(|score| score < bound),
        }
    }

    fn count(&self, is_bad: bool, now_ns: u64) -> Option<String> {
        if now_ns < self.armed_ns || self.has_fired.load(Ordering::Relaxed) {
            return None;
        }
        let counts = self.window.lock().add(now_ns, is_bad);
        if !is_bad || !counts.exceeds(self.spec.percent, self.spec.minimum) {
            return None;
        }
        let is_first = !self.has_fired.swap(true, Ordering::AcqRel);
        is_first.then(|| {
            let Tripwire { percent, window_ms, .. } = self.spec;
            let share = counts.percent();
            let what = self.words();
            format!(
                "{} of {} requests {what} in {window_ms} ms ({share:.2} %, more than {percent} %)",
                counts.bad, counts.all
            )
        })
    }

    fn words(&self) -> String {
        match self.spec.signal {
            Signal::Errors => "were not answered".to_owned(),
            Signal::BadAnswers => "got bad answers".to_owned(),
            Signal::Fallbacks => "were answered by a fallback".to_owned(),
            Signal::Overloads => "were too many".to_owned(),
            Signal::Disagreements => "got answers that disagree".to_owned(),
            Signal::SlowerThanMs(ms) => format!("took longer than {ms} ms"),
            Signal::ScoreAbove(bound) => format!("had a score above {bound}"),
            Signal::ScoreBelow(bound) => format!("had a score below {bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn wire(signal: Signal, change: impl FnOnce(&mut Tripwire)) -> Wire {
        let mut spec = Tripwire {
            name: "w".into(),
            variant: Some("a".into()),
            signal,
            percent: 50.0,
            window_ms: 1_000,
            minimum: 4,
            grace_ms: 0,
            plan: "safe".into(),
        };
        change(&mut spec);
        Wire::new(&spec, Some(0), 0)
    }

    fn of(why: Option<Why>) -> Observation {
        Observation { why, latency_us: Some(1_000), ..Observation::default() }
    }

    #[test]
    fn it_fires_once_with_the_request_that_breaches_it() {
        let wire = wire(Signal::Errors, |_| {});
        let see = |why| wire.observe(Of::Variant(0), &of(why), MS).is_some();
        assert!(![None, Some(Why::Failed), Some(Why::Failed)].into_iter().any(see));
        let reason = wire.observe(Of::Variant(0), &of(Some(Why::Deadline)), MS).unwrap();
        assert!(reason.contains("3 of 4") && reason.contains("75.00 %"), "{reason}");
        assert!(!see(Some(Why::Failed)));
    }

    #[test]
    fn what_is_nobodys_fault_does_not_count_as_an_error() {
        let wire = wire(Signal::Errors, |spec| spec.minimum = 1);
        for why in [Why::Invalid, Why::RateLimited, Why::Overloaded, Why::Aborted] {
            assert_eq!(wire.observe(Of::Variant(0), &of(Some(why)), MS), None);
        }
        let cancelled = Observation { is_cancelled: true, ..of(Some(Why::Failed)) };
        assert_eq!(wire.observe(Of::Variant(0), &cancelled, MS), None);
        assert_eq!(wire.observe(Of::Variant(1), &of(Some(Why::Failed)), MS), None, "another variant");
        assert!(wire.observe(Of::Variant(0), &of(Some(Why::Failed)), MS).is_some());
    }

    #[test]
    fn requests_in_the_grace_after_the_change_do_not_count() {
        let wire = wire(Signal::Errors, |spec| (spec.grace_ms, spec.minimum) = (500, 1));
        assert_eq!(wire.observe(Of::Variant(0), &of(Some(Why::Failed)), 499 * MS), None);
        assert!(wire.observe(Of::Variant(0), &of(Some(Why::Failed)), 500 * MS).is_some());
    }

    #[test]
    fn each_signal_is_true_or_not_of_one_request() {
        fn check(signal: Signal, seen: Observation, expect: bool) {
            let wire = wire(signal, |spec| (spec.minimum, spec.percent) = (1, 0.0));
            assert_eq!(wire.observe(Of::Variant(0), &seen, MS).is_some(), expect, "{signal:?} {seen:?}");
        }
        let score = |score| Observation { score: Some(score), ..of(None) };
        check(Signal::BadAnswers, of(Some(Why::BadAnswer)), true);
        check(Signal::BadAnswers, of(Some(Why::Failed)), false);
        check(Signal::Overloads, of(Some(Why::Overloaded)), true);
        check(Signal::Fallbacks, Observation { is_fallback: true, ..of(Some(Why::Failed)) }, true);
        check(Signal::SlowerThanMs(1), of(None), false);
        check(Signal::SlowerThanMs(1), Observation { latency_us: Some(1_001), ..of(None) }, true);
        check(Signal::ScoreAbove(0.5), score(0.6), true);
        check(Signal::ScoreAbove(0.5), score(0.5), false);
        check(Signal::ScoreBelow(0.5), score(0.4), true);
        check(Signal::ScoreBelow(0.5), of(None), false);
        check(Signal::Disagreements, of(Some(Why::Failed)), false);
    }

    #[test]
    fn pairs_count_for_the_mirror_that_is_named() {
        let wire = wire(Signal::Disagreements, |spec| spec.minimum = 1);
        assert_eq!(wire.compared(Of::Mirror(1), false, MS), None);
        assert_eq!(wire.compared(Of::Mirror(0), true, MS), None);
        assert_eq!(wire.compared(Of::Mirror(0), false, MS), None, "half is not more than half");
        assert!(wire.compared(Of::Mirror(0), false, MS).is_some());
    }
}
