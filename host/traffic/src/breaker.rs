//! When a variant is left alone.
//!
//! Owns [`Breaker`]: closed, open, half-open, as pure rules with time and chance coming in, and [`Permit`], without which nobody
//! asks a backend. Separate from asking, so that every sequence of events can be tried.
//!
//! Closed lets everybody through and counts. Open lets nobody through, whoever else is open too: there is no share from which
//! on all are asked again. Half-open lets exactly as many probes through as the policy says; a permit that is dropped, or of
//! which nothing is heard for too long, gives its place to another, so nothing stays half-open for ever. Each state has a
//! number, and what belongs to an earlier one counts nothing.
//!
//! Bounded by the policy. On failure: who is not let through is told when to come again.

use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::plan::BreakerPolicy;
use crate::window::Window;

/// What a backend did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered.
    Good,
    /// It is to blame for there being no answer.
    Bad(Fault),
    /// Nothing can be said of it: the request made no sense, or nobody waited.
    Unknown,
}

/// What a backend is to blame for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Failed,
    TimedOut,
    Slow,
    BadAnswer,
}

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Fault::Failed => "failed",
            Fault::TimedOut => "ran out of time",
            Fault::Slow => "answered too slowly",
            Fault::BadAnswer => "gave bad answers",
        }
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    Opened { reason: String, open_ns: u64 },
    HalfOpened,
    Closed,
}

/// In which state a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everybody is let through.
    Closed,
    /// Nobody is.
    Open,
    /// Probes are.
    HalfOpen,
}

enum State {
    Closed { since_ns: u64, consecutive: u32 },
    Open { until_ns: u64 },
    HalfOpen { out: SmallVec<[Probe; 4]>, answered: u32, next: u64 },
}

struct Probe {
    number: u64,
    since_ns: u64,
}

struct Core {
    state: State,
    /// The number of the state.
    era: u64,
    /// How often it opened, less the times for which it was closed since.
    times: u32,
    window: Option<(u64, Window)>,
}

/// See the module. Clones are the same breaker.
#[derive(Clone)]
pub(crate) struct Breaker {
    core: Arc<Mutex<Core>>,
}

/// The right to ask a backend once. Dropped without an outcome, it says nothing and gives its place back.
pub(crate) struct Permit {
    breaker: Option<Breaker>,
    era: u64,
    probe: Option<u64>,
}

/// Not now: ask again after so many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub wait_ns: u64,
}

impl Default for Breaker {
    fn default() -> Breaker {
        let state = State::Closed { since_ns: 0, consecutive: 0 };
        Breaker { core: Arc::new(Mutex::new(Core { state, era: 0, times: 0, window: None })) }
    }
}

impl Breaker {
    /// Ask for a permit. The transition is told when the asking itself brought it about.
    pub fn admit(&self, policy: &BreakerPolicy, now_ns: u64) -> (Result<Permit, Refusal>, Option<Transition>) {
        let mut core = self.core.lock();
        let mut transition = None;
        if let State::Open { until_ns } = core.state {
            if now_ns < until_ns {
                return (Err(Refusal { wait_ns: until_ns - now_ns }), None);
            }
            core.enter(State::HalfOpen { out: SmallVec::new(), answered: 0, next: 0 });
            transition = Some(Transition::HalfOpened);
        }
        let probe = match core.probe(policy, now_ns) {
            Ok(probe) => probe,
            Err(refusal) => return (Err(refusal), transition),
        };
        let permit = Permit { breaker: Some(self.clone()), era: core.era, probe };
        (Ok(permit), transition)
    }

    /// In which state it is now.
    pub fn state(&self, now_ns: u64) -> BreakerState {
        match &self.core.lock().state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until_ns } if now_ns < *until_ns => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Forget everything: another backend is behind it now.
    pub fn reset(&self, now_ns: u64) {
        let mut core = self.core.lock();
        core.enter(State::Closed { since_ns: now_ns, consecutive: 0 });
        (core.times, core.window) = (0, None);
    }

    /// Open it for so long, because somebody else found out.
    pub fn open(&self, now_ns: u64, open_ns: u64) {
        self.core.lock().enter(State::Open { until_ns: now_ns.saturating_add(open_ns) });
    }
}

impl Permit {
    /// Whether this was a probe of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Say what the backend did; `unit` (0 to 1) is chance's.
    pub fn settle(mut self, outcome: Outcome, policy: &BreakerPolicy, now_ns: u64, unit: f64) -> Option<Transition> {
        let breaker = self.breaker.take()?;
        let mut core = breaker.core.lock();
        if core.era != self.era {
            return None;
        }
        match self.probe {
            Some(number) => core.settle_probe(number, outcome, policy, now_ns, unit),
            None => core.settle_closed(outcome, policy, now_ns, unit),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (Some(breaker), Some(number)) = (self.breaker.take(), self.probe) else { return };
        let mut core = breaker.core.lock();
        if core.era == self.era {
            core.forget_probe(number);
        }
    }
}

impl Core {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }

    /// The number of a probe when half-open, none when closed.
    fn probe(&mut self, policy: &BreakerPolicy, now_ns: u64) -> Result<Option<u64>, Refusal> {
        let State::HalfOpen { out, answered, next } = &mut self.state else { return Ok(None) };
        let patience_ns = policy.probe_timeout_ms.saturating_mul(1_000_000);
        out.retain(|probe| now_ns.saturating_sub(probe.since_ns) < patience_ns);
        if out.len() as u32 + *answered >= policy.probes {
            let heard_by = out.iter().map(|probe| probe.since_ns.saturating_add(patience_ns)).min();
            let wait_ns = heard_by.map_or(1, |by| by.saturating_sub(now_ns));
            return Err(Refusal { wait_ns });
        }
        let number = *next;
        *next += 1;
        out.push(Probe { number, since_ns: now_ns });
        Ok(Some(number))
    }

    /// Whether the probe was still waited for.
    fn forget_probe(&mut self, number: u64) -> bool {
        let State::HalfOpen { out, .. } = &mut self.state else { return false };
        let before = out.len();
        out.retain(|probe| probe.number != number);
        out.len() < before
    }

    fn settle_probe(
        &mut self,
        number: u64,
        outcome: Outcome,
        policy: &BreakerPolicy,
        now_ns: u64,
        unit: f64,
    ) -> Option<Transition> {
        if !self.forget_probe(number) {
            return None;
        }
        match outcome {
            Outcome::Unknown => None,
            Outcome::Bad(fault) => {
                let reason = format!("a probe {}", fault.words());
                Some(self.trip(reason, policy, now_ns, unit))
            }
            Outcome::Good => {
                let State::HalfOpen { answered, .. } = &mut self.state else { return None };
                *answered += 1;
                if *answered < policy.probes {
                    return None;
                }
                self.enter(State::Closed { since_ns: now_ns, consecutive: 0 });
                self.window = None;
                Some(Transition::Closed)
            }
        }
    }

    fn settle_closed(
        &mut self,
        outcome: Outcome,
        policy: &BreakerPolicy,
        now_ns: u64,
        unit: f64,
    ) -> Option<Transition> {
        let fault = match outcome {
            Outcome::Unknown => return None,
            Outcome::Good => None,
            Outcome::Bad(fault) => Some(fault),
        };
        let counts = policy.rate.map(|rate| {
            let window = self.window.get_or_insert_with(|| (rate.window_ms, Window::new(rate.window_ms)));
            if window.0 != rate.window_ms {
                *window = (rate.window_ms, Window::new(rate.window_ms));
            }
            (rate, window.1.add(now_ns, fault.is_some()))
        });
        let State::Closed { consecutive, .. } = &mut self.state else { return None };
        let fault = match fault {
            None => {
                *consecutive = 0;
                return None;
            }
            Some(fault) => fault,
        };
        *consecutive = consecutive.saturating_add(1);
        let in_a_row = *consecutive;
        if policy.consecutive > 0 && in_a_row >= policy.consecutive {
            let reason = format!("{in_a_row} requests in a row failed; the last {}", fault.words());
            return Some(self.trip(reason, policy, now_ns, unit));
        }
        let (rate, counts) = counts.filter(|(rate, counts)| counts.exceeds(rate.percent, rate.minimum))?;
        let reason = format!(
            "{} of {} requests failed in {} ms ({:.1} %, more than {} %); the last {}",
            counts.bad,
            counts.all,
            rate.window_ms,
            counts.percent(),
            rate.percent,
            fault.words()
        );
        Some(self.trip(reason, policy, now_ns, unit))
    }

    fn trip(&mut self, reason: String, policy: &BreakerPolicy, now_ns: u64, unit: f64) -> Transition {
        if let State::Closed { since_ns, .. } = self.state {
            let healthy = now_ns.saturating_sub(since_ns) / policy.open_ms.saturating_mul(1_000_000).max(1);
            self.times = self.times.saturating_sub(healthy.min(u32::MAX.into()) as u32);
        }
        let grown = policy.open_ms as f64 * policy.factor.powi(self.times.min(1_000) as i32);
        let capped_ms = grown.min(policy.cap_ms as f64);
        let open_ns = (capped_ms * (1.0 - policy.jitter * unit) * 1e6) as u64;
        self.times = self.times.saturating_add(1);
        self.window = None;
        self.enter(State::Open { until_ns: now_ns.saturating_add(open_ns) });
        Transition::Opened { reason, open_ns }
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
