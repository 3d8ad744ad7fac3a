//! One request on its way through an endpoint.
//!
//! Owns [`Passage`]: what is known of the request, and the one place where its end is counted, whichever way it ends. Separate
//! from the steps of the way (`serve`, `attempt`, `stand_in`, `copy`, `stream`), which are each a file.
//!
//! Bounded by the request's deadline. On failure: a passage that is dropped before its end is counted as cancelled.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, Random};
use mainstay_inference::{InferAnswer, InferRequest};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::{Ask, Identity};
use crate::breaker::Transition;
use crate::caller::Caller;
use crate::elements;
use crate::endpoint::{Active, Endpoint};
use crate::plan::{PathLimits, ScoreSettings, WatchSettings};
use crate::served::{FellBack, Labels, Refused, Why, kind_of};
use crate::signals::{Observation, Of};
use crate::traffic::Inner;
use crate::variant::Variant;
use crate::watch::{Changed, Happened};

/// What a caller got, and from which variant.
pub(crate) type Given = (usize, Arc<InferAnswer>);

/// See the module.
pub(crate) struct Passage {
    pub inner: Arc<Inner>,
    pub endpoint: Arc<Endpoint>,
    pub active: Arc<Active>,
    pub request: Arc<InferRequest>,
    pub tenant: Option<Arc<str>>,
    pub trace: Option<Arc<str>>,
    pub deadline: Instant,
    pub labels: Labels,
    pub segment: Option<usize>,
    /// The variant that the plan chose.
    pub variant: Option<usize>,
    /// Copies that wait for the answer to compare it with theirs.
    pub copies: SmallVec<[oneshot::Sender<Given>; 2]>,
    pub first_part_us: Option<u64>,
    started_ns: u64,
    is_over: bool,
}

/// Why the way ended before an answer.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub why: Why,
    pub error: Error,
    pub retry_after: Option<Duration>,
    pub status: Option<u16>,
    pub is_retryable: bool,
}

impl Stop {
    pub fn new(why: Why, message: impl Into<String>) -> Stop {
        Stop::of(why, Error::new(kind_of(why), message))
    }

    pub fn of(why: Why, error: Error) -> Stop {
        Stop { why, error, retry_after: None, status: None, is_retryable: false }
    }

    pub fn after(mut self, wait: Duration) -> Stop {
        self.retry_after = Some(wait);
        self
    }
}

impl Passage {
    pub fn begin(inner: &Arc<Inner>, endpoint: Arc<Endpoint>, caller: &Caller<'_>, request: InferRequest) -> Passage {
        let active = endpoint.active.load_full();
        let limit = Instant::now() + Duration::from_millis(active.plan().limits.timeout_ms);
        let deadline = caller.deadline.map_or(limit, |wanted| limit.min(Instant::from_std(wanted)));
        let labels =
            Labels { endpoint: endpoint.name.clone(), plan_version: active.record.active.version, ..Labels::default() };
        let text = active.segment.as_ref().and_then(|segment| segment.read(caller, &request));
        let segment = active.board.segment(text.as_ref().map(|text| text.bytes()));
        drop(text);
        let started_ns = inner.clock.monotonic_ns();
        endpoint.budget.requested(started_ns);
        Passage {
            inner: inner.clone(),
            request: Arc::new(request),
            tenant: caller.tenant.cloned(),
            trace: caller.trace.map(Arc::from),
            deadline,
            labels,
            segment,
            variant: None,
            copies: SmallVec::new(),
            first_part_us: None,
            started_ns,
            is_over: false,
            endpoint,
            active,
        }
    }

    pub fn limits(&self) -> &PathLimits {
        &self.active.plan().limits
    }

    pub fn retry_after(&self) -> Duration {
        Duration::from_millis(self.limits().retry_after_ms)
    }

    pub fn tenant(&self) -> Arc<str> {
        self.tenant.clone().unwrap_or_else(|| self.inner.nobody.clone())
    }

    pub fn now_ns(&self) -> u64 {
        self.inner.clock.monotonic_ns()
    }

    pub fn elapsed_us(&self) -> u64 {
        self.now_ns().saturating_sub(self.started_ns) / 1_000
    }

    /// What is asked of a backend, until then.
    pub fn ask(&self, end: Instant, attempt: u32) -> Ask {
        Ask { deadline: end.into_std(), trace: self.trace.clone(), tenant: self.tenant.clone(), attempt }
    }

    pub fn answered_by(&mut self, identity: &Identity) {
        self.labels.model = identity.model.clone();
        self.labels.version = identity.version.clone();
        self.labels.run = identity.run.clone();
    }

    pub fn tell_transition(&self, variant: &Variant, transition: Option<Transition>) {
        self.inner.tell_transition(&self.endpoint.name, &variant.name, transition);
    }

    /// The end of an answered request.
    pub fn answered(&mut self, answer: &Arc<InferAnswer>, fallback: Option<FellBack>) {
        let why = fallback.as_ref().map(|fallback| fallback.why);
        self.labels.fallback = fallback;
        self.end(why, Some(answer));
    }

    /// The end of a request without an answer.
    pub fn refused(&mut self, stop: Stop) -> Refused {
        self.end(Some(stop.why), None);
        let Stop { why, error, retry_after, status, .. } = stop;
        Refused { retry_after, status, ..Refused::new(why, error, self.labels.clone()) }
    }

    /// The end, once.
    pub fn end(&mut self, why: Option<Why>, answer: Option<&Arc<InferAnswer>>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let latency_us = self.elapsed_us();
        let is_fallback = self.labels.fallback.is_some();
        let own = answer.filter(|_| !is_fallback);
        let was_carried_out = !matches!(why, Some(Why::Overloaded | Why::RateLimited | Why::Aborted));
        let seen = Observation {
            why,
            is_cancelled: false,
            is_fallback,
            retries: self.labels.retries,
            latency_us: (was_carried_out || is_fallback).then_some(latency_us),
            first_part_us: self.first_part_us,
            score: own.and_then(|answer| score_of(&self.active.plan().signals.score, answer)),
        };
        self.observe(&seen, self.variant.filter(|_| was_carried_out));
        self.watch(why, latency_us, answer);
        if let (Some(answer), Some(variant)) = (own, self.variant) {
            for copy in self.copies.drain(..) {
                let _ = copy.send((variant, answer.clone()));
            }
        }
    }

    fn observe(&self, seen: &Observation, variant: Option<usize>) {
        let (now_ms, now_ns) = (self.inner.clock.now_ms(), self.now_ns());
        let board = &self.active.board;
        let both = std::iter::once(Of::Endpoint).chain(variant.map(Of::Variant));
        for of in both.clone() {
            board.observe(of, self.segment, now_ms, seen);
        }
        for wire in &self.active.wires {
            if let Some(reason) = both.clone().find_map(|of| wire.observe(of, seen, now_ns)) {
                self.inner.fire(&self.endpoint, &self.active, wire, reason);
            }
        }
        for fault in &self.active.faults {
            if let Some(reason) = fault.ended(seen.why.is_some(), now_ms, now_ns) {
                self.inner.tell(&self.endpoint.name, Changed::FaultStopped { fault: fault.name.clone(), reason });
            }
        }
    }

    fn watch(&self, why: Option<Why>, latency_us: u64, answer: Option<&Arc<InferAnswer>>) {
        let settings = &self.active.plan().watch;
        if !is_sampled(settings, why, latency_us, || self.inner.unit()) {
            return;
        }
        self.inner.telling.happened(Happened {
            at_ms: self.inner.clock.now_ms() - (latency_us / 1_000) as i64,
            labels: self.labels.clone(),
            why,
            latency_us,
            request: self.request.clone(),
            answer: answer.cloned(),
            tenant: self.tenant.clone(),
            trace: self.trace.clone(),
            is_mirrored: false,
        });
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_over {
            let seen = Observation { is_cancelled: true, retries: self.labels.retries, ..Observation::default() };
            self.observe(&seen, self.variant);
        }
    }
}

/// Whether the watcher is told.
pub(crate) fn is_sampled(
    settings: &WatchSettings,
    why: Option<Why>,
    latency_us: u64,
    unit: impl FnOnce() -> f64,
) -> bool {
    let is_slow = settings.slower_than_ms.is_some_and(|ms| latency_us > ms.saturating_mul(1_000));
    settings.failed && why.is_some() || is_slow || settings.percent > 0.0 && unit() * 100.0 < settings.percent
}

/// The score of the first row.
pub(crate) fn score_of(settings: &ScoreSettings, answer: &InferAnswer) -> Option<f64> {
    let output = match &settings.output {
        None => answer.outputs.first()?,
        Some(name) => answer.outputs.iter().find(|output| output.name == *name)?,
    };
    elements::at(output, usize::try_from(settings.column).ok()?)
}

impl Inner {
    /// Chance, from 0 to 1 without 1.
    pub fn unit(&self) -> f64 {
        (self.chance.number() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}
