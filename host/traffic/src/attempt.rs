//! Attempts at a variant.
//!
//! Owns what happens between a permit of the breaker and its outcome: injected latency and errors, the attempt's deadline, the
//! guard, and the decision to try again. Separate from the way around it, because a probe, a stand-in and a planned request all
//! make the same attempt.
//!
//! Bounded by the plan's number of retries, its budget and the deadline. On failure: a [`Stop`] with the reason.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::Error;
use mainstay_inference::InferAnswer;
use tokio::time::{Instant, sleep, timeout_at};

use crate::backend::{Ask, Failure};
use crate::breaker::{BreakerState, Fault, Outcome, Permit};
use crate::caller::Caller;
use crate::passage::{Passage, Stop};
use crate::retry;
use crate::served::Why;
use crate::spec::Effect;
use crate::variant::{Live, Variant};

impl Passage {
    /// Ask the chosen variant, and again where that is allowed.
    pub async fn attempts(&mut self, caller: &Caller<'_>) -> Result<Arc<InferAnswer>, Stop> {
        let variant = self.chosen()?;
        let end = self.attempts_end();
        loop {
            let stop = match self.attempt(&variant, Some(caller), end).await {
                Ok(answer) => return Ok(answer),
                Err(stop) => stop,
            };
            match self.may_retry(&stop, &variant, end) {
                Some(delay) => sleep(delay).await,
                None => return Err(stop),
            }
            self.labels.retries += 1;
        }
    }

    pub fn chosen(&self) -> Result<Arc<Variant>, Stop> {
        let variant = self.variant.and_then(|place| self.active.variants.get(place));
        variant.cloned().ok_or_else(|| Stop::new(Why::NotReady, "the plan chose no variant"))
    }

    /// The chain's own time is kept back from the attempts, at most half of what is left.
    pub fn attempts_end(&self) -> Instant {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let chain = self.active.plan().fallbacks.iter().map(|tier| tier.timeout_ms).sum();
        self.deadline - Duration::from_millis(chain).min(left / 2)
    }

    /// The delay before another attempt, if there may be one. Takes from the budget.
    pub fn may_retry(&self, stop: &Stop, variant: &Variant, end: Instant) -> Option<Duration> {
        let policy = &self.active.plan().retry;
        let now_ns = self.now_ns();
        let is_allowed = stop.is_retryable
            && self.labels.retries < policy.retries
            && variant.breaker.state(now_ns) == BreakerState::Closed;
        if !is_allowed {
            return None;
        }
        let delay = retry::delay(policy, self.labels.retries + 1, self.inner.unit());
        let is_in_time = Instant::now() + delay < end;
        (is_in_time && self.endpoint.budget.take(policy, now_ns)).then_some(delay)
    }

    /// One attempt. Without a caller, no fault is injected.
    pub async fn attempt(
        &mut self,
        variant: &Arc<Variant>,
        caller: Option<&Caller<'_>>,
        end: Instant,
    ) -> Result<Arc<InferAnswer>, Stop> {
        let live = self.live(variant)?;
        let permit = self.permit(variant, caller.is_some() && self.labels.retries > 0)?;
        let (began, end) = (Instant::now(), self.attempt_end(end));
        let ask = self.ask(end, self.labels.retries);
        let asked = timeout_at(end, async {
            self.inject(variant, caller).await?;
            live.backend.infer(&self.request, &ask).await
        });
        let asked = asked.await;
        let took = began.elapsed();
        let (outcome, result) = match asked {
            Err(_) => self.timed_out(variant, took),
            Ok(Err(failure)) => failed(failure),
            Ok(Ok(answer)) => self.judged(variant, answer, took),
        };
        self.settle(variant, permit, outcome);
        self.answered_by(&live.identity);
        result.map(Arc::new)
    }

    pub fn live(&self, variant: &Variant) -> Result<Arc<Live>, Stop> {
        variant.live().ok_or_else(|| {
            let message = format!("variant `{}` is not ready: {}", variant.name, variant.missing());
            Stop::new(Why::NotReady, message).after(self.retry_after())
        })
    }

    /// A retry must not be the probe of a breaker that has opened meanwhile.
    pub fn permit(&self, variant: &Variant, is_retry: bool) -> Result<Permit, Stop> {
        let (permit, transition) = variant.breaker.admit(self.active.breaker(variant), self.now_ns());
        self.tell_transition(variant, transition);
        let open = |wait_ns| {
            let message = format!("the breaker of variant `{}` is open: it failed too often", variant.name);
            Stop::new(Why::BreakerOpen, message).after(Duration::from_nanos(wait_ns))
        };
        match permit {
            Ok(permit) if permit.is_probe() && is_retry => Err(open(0)),
            Ok(permit) => Ok(permit),
            Err(refusal) => Err(open(refusal.wait_ns)),
        }
    }

    pub fn attempt_end(&self, end: Instant) -> Instant {
        match self.limits().attempt_timeout_ms {
            Some(ms) => end.min(Instant::now() + Duration::from_millis(ms)),
            None => end,
        }
    }

    /// Latency and errors that are injected, as if the backend had caused them.
    pub async fn inject(&mut self, variant: &Variant, caller: Option<&Caller<'_>>) -> Result<(), Failure> {
        let Some(caller) = caller.filter(|_| !self.active.faults.is_empty()) else { return Ok(()) };
        let place = self.active.place(&variant.name).unwrap_or_default();
        let (now_ms, active) = (self.inner.clock.now_ms(), self.active.clone());
        for fault in &active.faults {
            let is_here = matches!(fault.spec.effect, Effect::LatencyMs(_) | Effect::Error(_));
            if !is_here || !fault.hits(caller, &self.request, place, now_ms, || self.inner.unit()) {
                continue;
            }
            self.labels.faults.push(fault.name.clone());
            match &fault.spec.effect {
                Effect::LatencyMs(ms) => sleep(Duration::from_millis(*ms)).await,
                Effect::Error(message) => return Err(Failure::retryable(Error::unavailable(message.clone()))),
                Effect::Abort(_) | Effect::Saturation(_) => {}
            }
        }
        Ok(())
    }

    pub fn settle(&self, variant: &Variant, permit: Permit, outcome: Outcome) {
        let policy = self.active.breaker(variant);
        let transition = permit.settle(outcome, policy, self.now_ns(), self.inner.unit());
        self.tell_transition(variant, transition);
    }

    /// A caller in a hurry says nothing about the backend.
    pub fn timed_out<T>(&self, variant: &Variant, took: Duration) -> (Outcome, Result<T, Stop>) {
        let patience = Duration::from_millis(self.active.breaker(variant).timeout_counts_after_ms);
        let outcome = if took >= patience { Outcome::Bad(Fault::TimedOut) } else { Outcome::Unknown };
        let message = format!("variant `{}` did not answer within {} ms", variant.name, took.as_millis());
        (outcome, Err(Stop::new(Why::Deadline, message)))
    }

    /// Whether an answer may be seen, and whether it came in time for the breaker.
    pub fn judged(
        &self,
        variant: &Variant,
        answer: InferAnswer,
        took: Duration,
    ) -> (Outcome, Result<InferAnswer, Stop>) {
        let policy = self.active.breaker(variant);
        if let Err(reason) = variant.guard.check(&self.request, &answer) {
            let outcome = if policy.on_bad_answers { Outcome::Bad(Fault::BadAnswer) } else { Outcome::Unknown };
            let message = format!("variant `{}` gave an answer that must not be seen: {reason}", variant.name);
            return (outcome, Err(Stop::new(Why::BadAnswer, message)));
        }
        let is_slow = policy.slower_than_ms.is_some_and(|ms| took > Duration::from_millis(ms));
        let outcome = if is_slow { Outcome::Bad(Fault::Slow) } else { Outcome::Good };
        (outcome, Ok(answer))
    }
}

/// A request that makes no sense is its sender's fault.
pub(crate) fn failed<T>(failure: Failure) -> (Outcome, Result<T, Stop>) {
    let (outcome, why) = match failure.is_fault {
        true => (Outcome::Bad(Fault::Failed), Why::Failed),
        false => (Outcome::Unknown, Why::Invalid),
    };
    let stop = Stop { is_retryable: failure.is_retryable, ..Stop::of(why, failure.error) };
    (outcome, Err(stop))
}

/// What a backend is asked, for callers outside of a passage.
pub(crate) fn plain_ask(end: Instant) -> Ask {
    Ask { deadline: end.into_std(), trace: None, tenant: None, attempt: 0 }
}
