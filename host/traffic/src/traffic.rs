//! Endpoints, and everything that changes them.
//!
//! Owns [`Traffic`]: the registry of endpoints, plans with their history, faults, and what happens when a tripwire fires.
//! Separate from the way of a request, which only reads. Each change is made ready first, then committed, then becomes active by
//! one pointer; changes take turns. A tripwire goes the other way: its plan is active at once, by whoever ended the request
//! that breached it, and is committed right behind.
//!
//! Bounded by [`crate::limits`]. On failure: typed errors; a change that could not be made ready or committed has changed
//! nothing.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mainstay_base::{Clock, Error, ErrorKind, Random, Result, SeededRandom};
use mainstay_inference::{InferAnswer, InferRequest};
use mainstay_store::Store;
use tokio::time::{sleep, timeout_at};

use crate::attempt::plain_ask;
use crate::backend::{Backends, Identity, Watch};
use crate::breaker::Transition;
use crate::caller::Caller;
use crate::endpoint::{Active, Endpoint, EndpointStatus};
use crate::limits::{ENDPOINTS_MAX, FAULT_MS_MAX, check_name};
use crate::plan::{Plan, Stand};
use crate::records::{EndpointRecord, History, PlanRecord, Reason, Records};
use crate::signals::Series;
use crate::spec::{EndpointSpec, Fault};
use crate::tripwire::Wire;
use crate::variant::Variant;
use crate::watch::{Change, Changed, Telling, channel};

/// How long to wait before a plan is committed again that could not be.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before a variant is loaded again that could not be; grows to the second.
const LOAD_AGAIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Endpoints on a store. Clones are the same.
#[derive(Clone)]
pub struct Traffic {
    pub(crate) inner: Arc<Inner>,
}

/// What traffic stands on.
pub struct Foundation {
    /// Where endpoints and plans are kept.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance: for salts, and the seed of everything else.
    pub random: Arc<dyn Random>,
    /// Who finds backends and fallbacks.
    pub backends: Arc<dyn Backends>,
    /// Who is told what happened.
    pub watch: Arc<dyn Watch>,
}

pub(crate) struct Inner {
    pub clock: Arc<dyn Clock>,
    pub backends: Arc<dyn Backends>,
    /// Quick, and good enough to place requests.
    pub chance: SeededRandom,
    pub telling: Telling,
    /// The tenant of callers of whom none is known.
    pub nobody: Arc<str>,
    /// Copies that found no room.
    pub not_copied: AtomicU64,
    random: Arc<dyn Random>,
    records: Records,
    endpoints: ArcSwap<HashMap<Arc<str>, Arc<Endpoint>>>,
    /// Held for one change.
    turn: tokio::sync::Mutex<()>,
}

/// Another plan for an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum NewPlan {
    /// This one.
    Plan(Box<Plan>),
    /// One of the endpoint's named plans.
    Named(String),
    /// One that was active before, by its version.
    Version(u64),
}

/// Who gets which variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variant.
    pub variant: Arc<str>,
    /// The version of the plan.
    pub plan_version: u64,
    /// The rule that matched, by its place in the plan.
    pub rule: Option<usize>,
    /// Whether the same key gets it again; else it was chance.
    pub is_sticky: bool,
}

impl Traffic {
    /// Endpoints of this store. Their variants are loaded and warmed behind this call; until then they are not ready. To be
    /// called within a runtime of tokio.
    pub async fn open(foundation: Foundation) -> Result<Traffic> {
        let Foundation { store, clock, random, backends, watch } = foundation;
        let (telling, listening) = channel();
        tokio::spawn(listening.hand_on(watch));
        let inner = Arc::new(Inner {
            chance: SeededRandom::new(random.number()),
            nobody: "".into(),
            not_copied: AtomicU64::new(0),
            records: Records::new(store),
            endpoints: ArcSwap::default(),
            turn: tokio::sync::Mutex::new(()),
            clock,
            backends,
            telling,
            random,
        });
        let mut endpoints = HashMap::new();
        for record in inner.records.endpoints()? {
            let name: Arc<str> = record.spec.name.as_str().into();
            let active = Active::new(record, None, inner.clock.monotonic_ns())
                .map_err(|error| error.context(format!("endpoint `{name}`")))?;
            inner.load_behind(&name, &active);
            endpoints.insert(name, Arc::new(Endpoint::new(active)));
        }
        inner.endpoints.store(Arc::new(endpoints));
        Ok(Traffic { inner })
    }

    /// Add an endpoint or change it. New variants are loaded and warmed first. The active plan is replaced only where the
    /// specification's own plan is another than before. `revision`: the one that the caller has seen, 0 for none; none: whatever
    /// is there. The same specification again changes nothing.
    pub async fn apply(&self, spec: EndpointSpec, revision: Option<u64>, reason: Reason) -> Result<EndpointRecord> {
        spec.check()?;
        let _turn = self.inner.turn.lock().await;
        self.inner.apply(spec, revision, reason).await
    }

    /// Make another plan active. `version`: the plan that the caller has seen; if another is active, it is a `conflict`.
    pub async fn swap(&self, endpoint: &str, plan: NewPlan, version: u64, reason: Reason) -> Result<PlanRecord> {
        let _turn = self.inner.turn.lock().await;
        let running = self.inner.known(endpoint)?;
        let record = self.inner.flush(&running).await?;
        if record.active.version != version {
            return Err(Error::conflict(format!(
                "endpoint `{endpoint}` has plan {} by now, not {version}; look at it and try again",
                record.active.version
            )));
        }
        let (plan, name) = self.inner.find_plan(&record, plan)?;
        record.spec.check_plan("plan", &plan)?;
        let active = self.inner.next_plan(&record, plan, name, reason);
        let after = EndpointRecord { active, ..record.clone() };
        self.inner.change(&running, &record, after).await.map(|after| after.active)
    }

    /// Remove an endpoint. Its history stays.
    pub async fn remove(&self, endpoint: &str) -> Result<()> {
        let _turn = self.inner.turn.lock().await;
        let running = self.inner.known(endpoint)?;
        let record = self.inner.flush(&running).await?;
        self.inner.records.remove(&record).await?;
        let mut endpoints = HashMap::clone(&self.inner.endpoints.load());
        endpoints.remove(endpoint);
        self.inner.endpoints.store(Arc::new(endpoints));
        Ok(())
    }

    /// Inject a fault, in place of one of the same name.
    pub async fn inject(&self, endpoint: &str, fault: Fault, reason: Reason) -> Result<()> {
        let now_ms = self.inner.clock.now_ms();
        let begins_ms = fault.from_ms.unwrap_or(now_ms).max(now_ms);
        if fault.until_ms <= now_ms || fault.until_ms.saturating_sub(begins_ms) > FAULT_MS_MAX as i64 {
            return Err(Error::invalid(format!(
                "`until-ms` is {}; a fault ends after now ({now_ms}), and lasts at most {FAULT_MS_MAX} ms",
                fault.until_ms
            )));
        }
        self.change_faults(endpoint, reason, |faults| {
            faults.retain(|known| known.name != fault.name);
            faults.push(fault.clone());
            Ok(())
        })
        .await
    }

    /// Stop injecting a fault.
    pub async fn withdraw(&self, endpoint: &str, fault: &str, reason: Reason) -> Result<()> {
        self.change_faults(endpoint, reason, |faults| {
            let before = faults.len();
            faults.retain(|known| known.name != fault);
            match faults.len() < before {
                true => Ok(()),
                false => Err(Error::not_found(format!("endpoint `{endpoint}` has no fault `{fault}`"))),
            }
        })
        .await
    }

    async fn change_faults(
        &self,
        endpoint: &str,
        reason: Reason,
        edit: impl Fn(&mut Vec<Fault>) -> Result<()>,
    ) -> Result<()> {
        let _turn = self.inner.turn.lock().await;
        let running = self.inner.known(endpoint)?;
        let mut spec = self.inner.flush(&running).await?.spec;
        edit(&mut spec.faults)?;
        spec.check()?;
        self.inner.apply(spec, None, reason).await.map(|_| ())
    }

    /// An endpoint as it is kept; a plan that a tripwire made active a moment ago may be on its way there.
    pub fn show(&self, endpoint: &str) -> Result<EndpointRecord> {
        Ok((*self.inner.known(endpoint)?.active.load().record).clone())
    }

    /// The names of all endpoints, in order.
    pub fn list(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.inner.endpoints.load().keys().cloned().collect();
        names.sort();
        names
    }

    /// How an endpoint is.
    pub fn status(&self, endpoint: &str) -> Result<EndpointStatus> {
        let running = self.inner.known(endpoint)?;
        Ok(running.status(self.inner.clock.now_ms(), self.inner.clock.monotonic_ns()))
    }

    /// Plans that were active, newest first, those before `before`.
    pub fn history(&self, endpoint: &str, before: Option<u64>, limit: u32) -> Result<History> {
        check_name("endpoint", endpoint)?;
        self.inner.records.history(endpoint, before, limit)
    }

    /// What was counted.
    pub fn signals(&self, endpoint: &str) -> Result<Vec<Series>> {
        let active = self.inner.known(endpoint)?.active.load_full();
        Ok(active.board.read(self.inner.clock.now_ms()))
    }

    /// Who would get which variant, as a request would. Asks nobody and counts nothing.
    pub fn assign(&self, endpoint: &str, caller: Caller<'_>, request: &InferRequest) -> Result<Assignment> {
        let active = self.inner.known(endpoint)?.active.load_full();
        let decision = active.route.decide(&caller, request, || self.inner.chance.number());
        let decision = decision.ok_or_else(|| Error::unavailable("the plan gives no variant a share"))?;
        Ok(Assignment {
            variant: active.variants[decision.variant].name.clone(),
            plan_version: active.record.active.version,
            rule: decision.rule,
            is_sticky: decision.is_sticky,
        })
    }

    /// Ask one variant, whatever the plan, its breaker and its limits say; the guard holds. Counts nothing.
    pub async fn probe(
        &self,
        endpoint: &str,
        variant: &str,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<(InferAnswer, Identity)> {
        let active = self.inner.known(endpoint)?.active.load_full();
        let place = active.place(variant);
        let place =
            place.ok_or_else(|| Error::not_found(format!("endpoint `{endpoint}` has no variant `{variant}`")))?;
        let variant = &active.variants[place];
        let live = variant.live().ok_or_else(|| {
            Error::unavailable(format!("variant `{}` is not ready: {}", variant.name, variant.missing()))
        })?;
        let (request, end) = (Arc::new(request), tokio::time::Instant::from_std(deadline));
        let asked = timeout_at(end, live.backend.infer(&request, &plain_ask(end))).await;
        let answer = match asked {
            Err(_) => return Err(Error::unavailable(format!("variant `{}` did not answer in time", variant.name))),
            Ok(answered) => answered.map_err(|failure| failure.error)?,
        };
        variant.guard.check(&request, &answer).map_err(|reason| {
            Error::internal(format!("variant `{}` gave an answer that must not be seen: {reason}", variant.name))
        })?;
        Ok((answer, live.identity.clone()))
    }

    /// An alias or stage of a registered model has moved: variants that follow it load what it names now, and answer with what
    /// they have until that is warm. Answers how many there were; the first error, when all were tried.
    pub async fn moved(&self, model: &str, pointer: &str) -> Result<usize> {
        let (mut moved, mut failed) = (0, None);
        let endpoints = self.inner.endpoints.load_full();
        for (name, endpoint) in endpoints.iter() {
            for variant in &endpoint.active.load_full().variants {
                if variant.spec.backend.pointer() == Some((model, pointer)) {
                    moved += 1;
                    failed = failed.or(self.inner.prepare(name, variant).await.err());
                }
            }
        }
        failed.map_or(Ok(moved), Err)
    }

    /// Open the breaker of a variant for so long, because another host found out that it fails.
    pub fn open_breaker(&self, endpoint: &str, variant: &str, open_ms: u64, reason: &str) -> Result<()> {
        let active = self.inner.known(endpoint)?.active.load_full();
        let place = active.place(variant);
        let place =
            place.ok_or_else(|| Error::not_found(format!("endpoint `{endpoint}` has no variant `{variant}`")))?;
        let (variant, open_ns) = (&active.variants[place], open_ms.saturating_mul(1_000_000));
        variant.breaker.open(self.inner.clock.monotonic_ns(), open_ns);
        let opened = Transition::Opened { reason: reason.to_owned(), open_ns };
        self.inner.tell_transition(&active.record.spec.name.as_str().into(), &variant.name, Some(opened));
        Ok(())
    }

    /// What the watcher was not told of, because it was too slow.
    pub fn untold(&self) -> u64 {
        self.inner.telling.dropped()
    }

    /// Copies to mirrors that were not made, because too many were under way.
    pub fn not_copied(&self) -> u64 {
        self.inner.not_copied.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Inner {
    pub fn endpoint(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.endpoints.load().get(name).cloned()
    }

    fn known(&self, name: &str) -> Result<Arc<Endpoint>> {
        self.endpoint(name).ok_or_else(|| {
            let shown: String = name.chars().take(200).collect();
            Error::not_found(format!("there is no endpoint `{shown}`"))
        })
    }

    async fn apply(
        self: &Arc<Self>,
        spec: EndpointSpec,
        revision: Option<u64>,
        reason: Reason,
    ) -> Result<EndpointRecord> {
        let running = self.endpoint(&spec.name);
        let before = match &running {
            Some(running) => Some(self.flush(running).await?),
            None => self.records.endpoint(&spec.name)?,
        };
        let seen = before.as_ref().map_or(0, |before| before.revision);
        if revision.is_some_and(|revision| revision != seen) {
            return Err(Error::conflict(format!(
                "endpoint `{}` has revision {seen} by now; look at it and try again",
                spec.name
            )));
        }
        match (before, running) {
            (Some(before), Some(_)) if before.spec == spec => Ok(before),
            (Some(before), Some(running)) => {
                let after = self.changed(&before, spec, reason)?;
                self.change(&running, &before, after).await
            }
            (Some(_), None) => {
                Err(Error::conflict(format!("endpoint `{}` was added elsewhere; open it again", spec.name)))
            }
            (None, _) => self.add(spec, reason).await,
        }
    }

    /// The record with another specification.
    fn changed(&self, before: &EndpointRecord, spec: EndpointSpec, reason: Reason) -> Result<EndpointRecord> {
        let active = match before.spec.plan == spec.plan {
            false => self.next_plan(before, spec.plan.clone(), None, reason.clone()),
            true => {
                let at = format!("the active plan {}", before.active.version);
                let fits = spec.check_plan("plan", &before.active.plan);
                fits.map_err(|error| error.context(format!("{at} does not fit any more, so set another first")))?;
                before.active.clone()
            }
        };
        let (revision, updated_ms) = (before.revision + 1, self.clock.now_ms());
        Ok(EndpointRecord { revision, spec, active, reason, updated_ms, salt: before.salt })
    }

    async fn add(self: &Arc<Self>, spec: EndpointSpec, reason: Reason) -> Result<EndpointRecord> {
        if self.endpoints.load().len() >= ENDPOINTS_MAX {
            return Err(Error::exhausted(format!("there are {ENDPOINTS_MAX} endpoints already; remove one first")));
        }
        // Versions go on where those of a removed endpoint of this name ended.
        let last = self.records.history(&spec.name, None, 1)?.plans.first().map_or(0, |plan| plan.version);
        let mut salt = [0; 16];
        self.random.fill(&mut salt);
        let (at_ms, plan) = (self.clock.now_ms(), spec.plan.clone());
        let active = PlanRecord { version: last + 1, name: None, plan, reason: reason.clone(), at_ms };
        let record = EndpointRecord { revision: 1, spec, active, reason, updated_ms: at_ms, salt };
        let active = Active::new(record.clone(), None, self.clock.monotonic_ns())?;
        self.make_ready(&active, None).await?;
        self.records.change(None, &record).await?;
        self.tell_plan(&record.active, &record.spec.name);
        let endpoint = Arc::new(Endpoint::new(active));
        let mut endpoints = HashMap::clone(&self.endpoints.load());
        endpoints.insert(endpoint.name.clone(), endpoint);
        self.endpoints.store(Arc::new(endpoints));
        Ok(record)
    }

    /// Make ready, commit, make active.
    async fn change(
        self: &Arc<Self>,
        running: &Arc<Endpoint>,
        before: &EndpointRecord,
        after: EndpointRecord,
    ) -> Result<EndpointRecord> {
        let old = running.active.load_full();
        let active = Active::new(after.clone(), Some(&old), self.clock.monotonic_ns())?;
        self.make_ready(&active, Some(&old)).await?;
        self.records.change(Some(before), &after).await?;
        running.active.store(Arc::new(active));
        if before.active.version != after.active.version {
            self.tell_plan(&after.active, &after.spec.name);
        }
        Ok(after)
    }

    /// Load what is new and what is to answer, and see that fallbacks are there and apart from what they stand in for. A
    /// variant that was there before and is not to answer may be broken: it must not keep an operator from leaving it.
    async fn make_ready(self: &Arc<Self>, active: &Active, before: Option<&Active>) -> Result<()> {
        let spec = &active.record.spec;
        let was_there = |variant: &Arc<Variant>| {
            before.is_some_and(|before| before.variants.iter().any(|known| Arc::ptr_eq(known, variant)))
        };
        let is_to_answer = |variant: &Arc<Variant>| active.plan().primaries().any(|name| name == &*variant.name);
        let needed =
            |variant: &&Arc<Variant>| variant.live().is_none() && (is_to_answer(variant) || !was_there(variant));
        let loads = active.variants.iter().filter(needed);
        let loads = loads.map(|variant| self.prepare(&active.record.spec.name, variant));
        futures::future::try_join_all(loads).await?;
        let named = spec.plans.iter().map(|named| &named.plan);
        for plan in named.chain([active.plan()]) {
            self.check_fallbacks(active, plan).await?;
        }
        Ok(())
    }

    async fn check_fallbacks(&self, active: &Active, plan: &Plan) -> Result<()> {
        for (number, tier) in plan.fallbacks.iter().enumerate() {
            let (at, name) = (format!("plan.fallbacks[{number}]"), stand_name(&tier.by));
            let needs = match &tier.by {
                Stand::Variant(name) => self.resource_of(active, name),
                Stand::Named(name) => self.backends.fallback(name).await?.resource(),
            };
            let Some(needs) = needs else { continue };
            active.record.spec.check_apart(&at, name, &needs, plan)?;
            // What backends say of themselves counts as well.
            let shares = plan.primaries().find(|primary| self.resource_of(active, primary).as_ref() == Some(&needs));
            if let Some(primary) = shares {
                return Err(Error::invalid(format!(
                    "`{at}`: `{name}` needs `{needs}`, as the variant `{primary}` does that it would stand in for; both \
                     would fail together, so name another"
                )));
            }
        }
        Ok(())
    }

    fn resource_of(&self, active: &Active, variant: &str) -> Option<String> {
        active.variants.get(active.place(variant)?)?.live()?.backend.resource()
    }

    async fn prepare(&self, endpoint: &str, variant: &Arc<Variant>) -> Result<()> {
        let before = variant.live().map(|live| live.identity.clone());
        let prepared = variant.prepare(&*self.backends, self.clock.monotonic_ns()).await;
        let name = variant.name.clone();
        let endpoint = Arc::from(endpoint);
        match prepared {
            Ok(identity) if before.as_ref() == Some(&identity) => Ok(()),
            Ok(identity) => {
                let model = format!("{}/{}", identity.model, identity.version);
                self.tell(&endpoint, Changed::BackendChanged { variant: name, model });
                Ok(())
            }
            Err(error) => {
                let reason = error.message().to_owned();
                self.tell(&endpoint, Changed::BackendFailed { variant: name, reason });
                Err(error)
            }
        }
    }

    /// Load the variants of an endpoint that was there before this host started; again and again where it fails.
    fn load_behind(self: &Arc<Self>, endpoint: &Arc<str>, active: &Active) {
        for variant in &active.variants {
            let (inner, endpoint, variant) = (Arc::downgrade(self), endpoint.clone(), Arc::downgrade(variant));
            tokio::spawn(load_until_ready(inner, endpoint, variant));
        }
    }

    fn find_plan(&self, record: &EndpointRecord, wanted: NewPlan) -> Result<(Plan, Option<String>)> {
        let name = &record.spec.name;
        match wanted {
            NewPlan::Plan(plan) => Ok((*plan, None)),
            NewPlan::Named(wanted) => match record.spec.named_plan(&wanted) {
                Some(plan) => Ok((plan.clone(), Some(wanted))),
                None => Err(Error::not_found(format!("endpoint `{name}` has no plan `{wanted}`"))),
            },
            NewPlan::Version(version) => match self.records.plan(name, version)? {
                Some(known) => Ok((known.plan, known.name)),
                None => Err(Error::not_found(format!("endpoint `{name}` never had a plan {version}"))),
            },
        }
    }

    fn next_plan(&self, record: &EndpointRecord, plan: Plan, name: Option<String>, reason: Reason) -> PlanRecord {
        PlanRecord { version: record.active.version + 1, name, plan, reason, at_ms: self.clock.now_ms() }
    }

    // ---- tripwires ----

    /// A tripwire was breached: its plan is active when this returns. Loses against whoever was first.
    pub fn fire(self: &Arc<Self>, endpoint: &Arc<Endpoint>, active: &Arc<Active>, wire: &Wire, reason: String) {
        let record = &active.record;
        let Some(plan) = record.spec.named_plan(&wire.plan).cloned() else { return };
        let why = Reason::new(format!("tripwire:{}", wire.name), reason.clone());
        let next = self.next_plan(record, plan, Some(wire.plan.to_string()), why);
        let next = match active.with_plan(next, self.clock.monotonic_ns()) {
            Ok(next) => Arc::new(next),
            Err(error) => {
                tracing::warn!(endpoint = %endpoint.name, tripwire = %wire.name, %error, "a tripwire's plan does not work");
                return;
            }
        };
        let before = endpoint.active.compare_and_swap(active, next.clone());
        if !Arc::ptr_eq(&before, active) {
            return;
        }
        let (tripwire, plan) = (wire.name.clone(), wire.plan.clone());
        self.tell(&endpoint.name, Changed::TripwireFired { tripwire, plan, reason });
        self.tell_plan(&next.record.active, &endpoint.name);
        let (inner, endpoint) = (self.clone(), endpoint.clone());
        tokio::spawn(async move { inner.keep_fired(&endpoint).await });
    }

    /// Commit the plan that a tripwire made active, until that works.
    async fn keep_fired(&self, endpoint: &Endpoint) {
        loop {
            let kept = {
                let _turn = self.turn.lock().await;
                self.flush(endpoint).await
            };
            match kept {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => {
                    tracing::warn!(endpoint = %endpoint.name, %error, "a tripwire's plan could not be kept yet");
                    sleep(COMMIT_AGAIN).await;
                }
            }
        }
    }

    /// What is kept, with the plan that a tripwire has made active. To be called in turn.
    async fn flush(&self, endpoint: &Endpoint) -> Result<EndpointRecord> {
        let kept = self.records.endpoint(&endpoint.name)?;
        let kept = kept.ok_or_else(|| Error::not_found(format!("endpoint `{}` was removed", endpoint.name)))?;
        let active = endpoint.active.load_full();
        if active.record.active.version <= kept.active.version {
            return Ok(kept);
        }
        let after = EndpointRecord { active: active.record.active.clone(), ..kept.clone() };
        self.records.change(Some(&kept), &after).await?;
        Ok(after)
    }

    // ---- news ----

    pub fn tell(&self, endpoint: &Arc<str>, what: Changed) {
        self.telling.changed(Change { at_ms: self.clock.now_ms(), endpoint: endpoint.clone(), what });
    }

    fn tell_plan(&self, plan: &PlanRecord, endpoint: &str) {
        let Reason { by, why } = plan.reason.clone();
        self.tell(&endpoint.into(), Changed::PlanActivated { version: plan.version, by, why });
    }

    pub fn tell_transition(&self, endpoint: &Arc<str>, variant: &Arc<str>, transition: Option<Transition>) {
        let variant = variant.clone();
        let what = match transition {
            None => return,
            Some(Transition::Opened { reason, open_ns }) => {
                Changed::BreakerOpened { variant, reason, open_ms: open_ns / 1_000_000 }
            }
            Some(Transition::HalfOpened) => Changed::BreakerHalfOpened { variant },
            Some(Transition::Closed) => Changed::BreakerClosed { variant },
        };
        self.tell(endpoint, what);
    }
}

fn stand_name(stand: &Stand) -> &str {
    match stand {
        Stand::Variant(name) | Stand::Named(name) => name,
    }
}

async fn load_until_ready(inner: Weak<Inner>, endpoint: Arc<str>, variant: Weak<Variant>) {
    let [mut wait, longest] = LOAD_AGAIN;
    loop {
        let (Some(inner), Some(variant)) = (inner.upgrade(), variant.upgrade()) else { return };
        if variant.live().is_some() || inner.prepare(&endpoint, &variant).await.is_ok() {
            return;
        }
        drop((inner, variant));
        sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}
