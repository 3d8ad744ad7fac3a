//! Copies of requests to mirrors.
//!
//! Owns the tasks that ask a mirror, wait for the answer that the caller got, and count whether both agree. Separate from the
//! request, which does not wait for them and does not fail with them.
//!
//! Bounded by each mirror's number of copies under way and its timeout. On failure: the copy's failure is counted; a copy that
//! finds no room is not made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_inference::{InferAnswer, InferRequest};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::attempt::failed;
use crate::backend::Ask;
use crate::breaker::{Fault, Outcome};
use crate::compare::compare;
use crate::endpoint::{Active, Endpoint};
use crate::passage::{Given, Passage, is_sampled, score_of};
use crate::plan::Mirror;
use crate::served::{Labels, Why};
use crate::signals::{Observation, Of};
use crate::traffic::Inner;
use crate::variant::Variant;
use crate::watch::Happened;

/// Counts one copy under way for as long as it lives.
struct UnderWay(Arc<AtomicU32>);

impl UnderWay {
    fn take(count: &Arc<AtomicU32>, max: u32) -> Option<UnderWay> {
        let up = |count: u32| (count < max).then_some(count + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, up).ok().map(|_| UnderWay(count.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Copy {
    inner: Arc<Inner>,
    endpoint: Arc<Endpoint>,
    active: Arc<Active>,
    variant: Arc<Variant>,
    place: usize,
    spec: Mirror,
    request: Arc<InferRequest>,
    segment: Option<usize>,
    ask: Ask,
    given: Option<oneshot::Receiver<Given>>,
    _under_way: UnderWay,
}

impl Passage {
    /// Send copies on their way.
    pub fn copy_to_mirrors(&mut self) {
        let active = self.active.clone();
        for (copying, spec) in active.mirrors.iter().zip(&active.plan().mirrors) {
            // A variant is not compared with itself.
            if self.variant == Some(copying.variant) || self.inner.unit() * 100.0 >= spec.percent {
                continue;
            }
            let Some(variant) = active.variants.get(copying.variant).cloned() else { continue };
            let Some(under_way) = UnderWay::take(&copying.under_way, spec.concurrency) else {
                self.inner.not_copied.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let given = spec.compare.is_some().then(|| {
                let (sender, given) = oneshot::channel();
                self.copies.push(sender);
                given
            });
            let end = Instant::now() + Duration::from_millis(spec.timeout_ms);
            let copy = Copy {
                inner: self.inner.clone(),
                endpoint: self.endpoint.clone(),
                active: active.clone(),
                variant,
                place: copying.variant,
                spec: spec.clone(),
                request: self.request.clone(),
                segment: self.segment,
                ask: self.ask(end, 0),
                given,
                _under_way: under_way,
            };
            tokio::spawn(copy.run(end));
        }
    }
}

impl Copy {
    async fn run(mut self, end: Instant) {
        let began = Instant::now();
        let result = self.infer(end).await;
        let latency_us = began.elapsed().as_micros() as u64;
        self.count(&result, latency_us);
        let (Ok(mirrored), Some(given), Some(rule)) = (&result, self.given.take(), &self.spec.compare) else { return };
        // The caller may go away, or get another's answer: then there is nothing to compare with.
        if let Ok((primary, given)) = given.await {
            let (agrees, difference) = compare(rule, &given, mirrored);
            self.compared(primary, agrees, difference);
        }
    }

    async fn infer(&self, end: Instant) -> Result<Arc<InferAnswer>, Why> {
        let live = self.variant.live().ok_or(Why::NotReady)?;
        let policy = self.active.breaker(&self.variant);
        let permit = self.variant.breaker.admit(policy, self.inner.clock.monotonic_ns()).0;
        let permit = permit.map_err(|_| Why::BreakerOpen)?;
        let asked = timeout_at(end, live.backend.infer(&self.request, &self.ask)).await;
        let (outcome, result) = match asked {
            Err(_) => (Outcome::Bad(Fault::TimedOut), Err(Why::Deadline)),
            Ok(Err(failure)) => {
                let (outcome, result) = failed::<()>(failure);
                (outcome, Err(result.err().map_or(Why::Failed, |stop| stop.why)))
            }
            Ok(Ok(answer)) => match self.variant.guard.check(&self.request, &answer) {
                Ok(()) => (Outcome::Good, Ok(Arc::new(answer))),
                Err(_) if policy.on_bad_answers => (Outcome::Bad(Fault::BadAnswer), Err(Why::BadAnswer)),
                Err(_) => (Outcome::Unknown, Err(Why::BadAnswer)),
            },
        };
        let transition = permit.settle(outcome, policy, self.inner.clock.monotonic_ns(), self.inner.unit());
        self.inner.tell_transition(&self.endpoint.name, &self.variant.name, transition);
        result
    }

    fn count(&self, result: &Result<Arc<InferAnswer>, Why>, latency_us: u64) {
        let (now_ms, now_ns) = (self.inner.clock.now_ms(), self.inner.clock.monotonic_ns());
        let why = result.as_ref().err().copied();
        let score = result.as_ref().ok().and_then(|answer| score_of(&self.active.plan().signals.score, answer));
        let seen = Observation { why, latency_us: Some(latency_us), score, ..Observation::default() };
        self.active.board.observe(Of::Mirror(self.place), self.segment, now_ms, &seen);
        for wire in &self.active.wires {
            if let Some(reason) = wire.observe(Of::Mirror(self.place), &seen, now_ns) {
                self.inner.fire(&self.endpoint, &self.active, wire, reason);
            }
        }
        if is_sampled(&self.active.plan().watch, why, latency_us, || self.inner.unit()) {
            self.inner.telling.happened(self.happened(result, latency_us, now_ms));
        }
    }

    fn happened(&self, result: &Result<Arc<InferAnswer>, Why>, latency_us: u64, now_ms: i64) -> Happened {
        let identity = self.variant.live().map(|live| live.identity.clone()).unwrap_or_default();
        Happened {
            at_ms: now_ms - (latency_us / 1_000) as i64,
            labels: Labels {
                endpoint: self.endpoint.name.clone(),
                variant: Some(self.variant.name.clone()),
                model: identity.model,
                version: identity.version,
                run: identity.run,
                plan_version: self.active.record.active.version,
                ..Labels::default()
            },
            why: result.as_ref().err().copied(),
            latency_us,
            request: self.request.clone(),
            answer: result.as_ref().ok().cloned(),
            tenant: self.ask.tenant.clone(),
            trace: self.ask.trace.clone(),
            is_mirrored: true,
        }
    }

    fn compared(&self, primary: usize, agrees: bool, difference: f64) {
        let (now_ms, now_ns) = (self.inner.clock.now_ms(), self.inner.clock.monotonic_ns());
        self.active.board.compared(self.place, primary, self.segment, now_ms, agrees, difference);
        for wire in &self.active.wires {
            if let Some(reason) = wire.compared(Of::Mirror(self.place), agrees, now_ns) {
                self.inner.fire(&self.endpoint, &self.active, wire, reason);
            }
        }
    }
}
