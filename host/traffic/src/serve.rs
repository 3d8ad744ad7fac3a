//! The way of a request: decided, let in, carried out, or answered instead.
//!
//! Owns the order of the steps. Separate from each step, so that the order can be read at once:
//!
//! the plan decides on a variant → faults that end requests → the tenant's tokens → a slot → copies to mirrors → attempts at the
//! variant (breaker, deadline, guard, retries) → or else the fallback chain → the end is counted.
//!
//! Bounded by the plan's limits and the caller's deadline. On failure: a [`Refused`] that says why, and when to come again.
//! Dropping the future drops the backend's, and gives slot and permit back.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, Random};
use mainstay_inference::{InferAnswer, InferRequest};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::bulkhead::{Entry, Room, Slot};
use crate::caller::Caller;
use crate::fault;
use crate::passage::{Passage, Stop};
use crate::served::{Labels, Refused, Served, Why};
use crate::spec::Effect;
use crate::traffic::Traffic;

impl Traffic {
    /// Ask an endpoint.
    pub async fn infer(&self, endpoint: &str, caller: Caller<'_>, request: InferRequest) -> Result<Served, Refused> {
        let mut passage = self.begin(endpoint, &caller, request)?;
        match passage.carry(&caller).await {
            Ok(answer) => {
                passage.answered(&answer, None);
                Ok(Served { answer, labels: std::mem::take(&mut passage.labels) })
            }
            Err(stop) if !caller.may_fall_back => Err(passage.refused(stop)),
            Err(stop) => match passage.stand_in(&stop).await {
                Some((answer, fallback)) => {
                    passage.answered(&answer, Some(fallback));
                    Ok(Served { answer, labels: std::mem::take(&mut passage.labels) })
                }
                None => Err(passage.refused(stop)),
            },
        }
    }

    pub(crate) fn begin(&self, endpoint: &str, caller: &Caller<'_>, request: InferRequest) -> Result<Passage, Refused> {
        match self.inner.endpoint(endpoint) {
            Some(endpoint) => Ok(Passage::begin(&self.inner, endpoint, caller, request)),
            None => {
                let shown: String = endpoint.chars().take(200).collect();
                let error = Error::not_found(format!("there is no endpoint `{shown}`"));
                Err(Refused::new(Why::NotFound, error, Labels::default()))
            }
        }
    }
}

impl Passage {
    async fn carry(&mut self, caller: &Caller<'_>) -> Result<Arc<InferAnswer>, Stop> {
        let _slot = self.let_in(caller).await?;
        self.copy_to_mirrors();
        self.attempts(caller).await
    }

    /// Everything before the backend is asked.
    pub async fn let_in(&mut self, caller: &Caller<'_>) -> Result<Slot, Stop> {
        self.decide(caller)?;
        self.injected(caller).await?;
        self.take_token()?;
        let slot = self.enter().await?;
        match Instant::now() < self.deadline {
            true => Ok(slot),
            false => Err(Stop::new(Why::Deadline, "the request's time was over before a backend was asked")),
        }
    }

    fn decide(&mut self, caller: &Caller<'_>) -> Result<(), Stop> {
        let decision = self.active.route.decide(caller, &self.request, || self.inner.chance.number());
        let Some(decision) = decision else {
            return Err(Stop::new(Why::NotReady, "the plan gives no variant a share; set another plan"));
        };
        self.variant = Some(decision.variant);
        self.labels.variant = self.active.variants.get(decision.variant).map(|variant| variant.name.clone());
        Ok(())
    }

    /// Faults that end a request, and those that its headers ask for.
    async fn injected(&mut self, caller: &Caller<'_>) -> Result<(), Stop> {
        let abort = |status: u16| {
            let message = format!("a fault was injected on purpose that answers {status}");
            Stop { status: Some(status), ..Stop::new(Why::Aborted, message) }
        };
        if caller.may_inject_faults {
            let asked = fault::asked(caller.headers, || self.inner.unit());
            if let Some(delay) = asked.delay {
                self.labels.faults.push("header:delay".into());
                sleep_until(self.deadline.min(Instant::now() + delay)).await;
            }
            if let Some(status) = asked.abort {
                self.labels.faults.push("header:abort".into());
                return Err(abort(status));
            }
        }
        let (now_ms, variant) = (self.inner.clock.now_ms(), self.variant.unwrap_or_default());
        for fault in &self.active.faults {
            if let Effect::Abort(status) = fault.spec.effect
                && fault.hits(caller, &self.request, variant, now_ms, || self.inner.unit())
            {
                self.labels.faults.push(fault.name.clone());
                return Err(abort(status));
            }
        }
        Ok(())
    }

    fn take_token(&self) -> Result<(), Stop> {
        let limits = self.limits();
        let own = self.tenant.as_deref().and_then(|tenant| limits.tenants.get(tenant)).unwrap_or(&limits.tenant);
        let Some(rate) = &own.rate else { return Ok(()) };
        let taken = self.endpoint.tokens.take(&self.tenant(), rate, self.now_ns());
        taken.map_err(|wait_ns| {
            let message = format!(
                "endpoint `{}` takes {} requests a second from this tenant, and {} at once; slow down",
                self.endpoint.name, rate.per_second, rate.burst
            );
            Stop::new(Why::RateLimited, message).after(Duration::from_nanos(wait_ns))
        })
    }

    async fn enter(&mut self) -> Result<Slot, Stop> {
        let tenant = self.tenant();
        let now_ms = self.inner.clock.now_ms();
        let in_use = || self.endpoint.bulkhead.load().active;
        let concurrency = self.limits().concurrency;
        let taken = self
            .active
            .faults
            .iter()
            .map(|fault| fault.taken(now_ms, concurrency, in_use))
            .fold(0, u32::saturating_add);
        let room = Room::of(self.limits(), &tenant, taken);
        let waiting = match self.endpoint.bulkhead.enter(&tenant, room) {
            Entry::Slot(slot) => return Ok(slot),
            Entry::Full => return Err(self.overloaded("its queue is full")),
            Entry::Waiting(waiting) => waiting,
        };
        let patience = Instant::now() + Duration::from_millis(self.limits().queue_timeout_ms);
        match timeout_at(self.deadline.min(patience), waiting.slot()).await {
            Ok(Some(slot)) => Ok(slot),
            Ok(None) => Err(self.overloaded("the queue was given up")),
            Err(_) if self.deadline <= patience => {
                Err(Stop::new(Why::Deadline, "the request's time was over while it waited for its turn"))
            }
            Err(_) => Err(self.overloaded("it waited too long for its turn")),
        }
    }

    fn overloaded(&self, how: &str) -> Stop {
        let message = format!("endpoint `{}` has too many requests: {how}; try again later", self.endpoint.name);
        Stop::new(Why::Overloaded, message).after(self.retry_after())
    }
}
