//! One endpoint while it runs.
//!
//! Owns [`Endpoint`] (what outlives plans: slots, tokens, budgets) and [`Active`] (a plan with its variants, made ready to be
//! executed). A plan becomes active by one pointer that is swapped: a request sees the whole of one plan, and a request under
//! way ends under the plan it began with. Separate from requests and from the store.
//!
//! Bounded by [`crate::limits`]. On failure: a plan that cannot be made ready leaves the one before in place.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use arc_swap::ArcSwap;
use mainstay_base::Result;
use mainstay_inference::InferAnswer;

use crate::answer;
use crate::bulkhead::{Bulkhead, Load};
use crate::caller::Reader;
use crate::fault::{FaultReport, FaultState};
use crate::plan::{BreakerPolicy, FixedAnswer, Plan, Stand};
use crate::records::{EndpointRecord, PlanRecord};
use crate::retry::RetryBudget;
use crate::route::Route;
use crate::signals::Board;
use crate::spec::EndpointSpec;
use crate::tokens::Tokens;
use crate::tripwire::Wire;
use crate::variant::{Variant, VariantStatus};

/// See the module.
pub(crate) struct Endpoint {
    pub name: Arc<str>,
    pub bulkhead: Bulkhead,
    pub tokens: Tokens,
    pub budget: RetryBudget,
    pub active: ArcSwap<Active>,
}

/// A plan, made ready.
pub(crate) struct Active {
    pub record: Arc<EndpointRecord>,
    pub variants: Box<[Arc<Variant>]>,
    pub route: Route,
    pub mirrors: Box<[Copying]>,
    pub tiers: Box<[Tier]>,
    pub fixed: Option<(Arc<str>, Arc<InferAnswer>)>,
    pub wires: Box<[Wire]>,
    pub faults: Box<[Arc<FaultState>]>,
    pub segment: Option<Reader>,
    pub board: Arc<Board>,
}

/// A mirror, made ready.
pub(crate) struct Copying {
    pub variant: usize,
    /// Copies on their way.
    pub under_way: Arc<AtomicU32>,
}

/// A tier of the fallback chain, made ready.
pub(crate) enum Tier {
    Variant(usize),
    Named(Arc<str>),
}

/// How an endpoint is.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The version of the active plan, and its name if it has one.
    pub plan_version: u64,
    /// The name of the active plan.
    pub plan_name: Option<String>,
    /// Its variants.
    pub variants: Vec<VariantStatus>,
    /// How full it is.
    pub load: Load,
    /// Its faults.
    pub faults: Vec<FaultReport>,
}

impl Endpoint {
    pub fn new(active: Active) -> Endpoint {
        Endpoint {
            name: active.record.spec.name.as_str().into(),
            bulkhead: Bulkhead::default(),
            tokens: Tokens::default(),
            budget: RetryBudget::default(),
            active: ArcSwap::from_pointee(active),
        }
    }

    pub fn status(&self, now_ms: i64, now_ns: u64) -> EndpointStatus {
        let active = self.active.load();
        let plan = &active.record.active;
        EndpointStatus {
            name: self.name.clone(),
            plan_version: plan.version,
            plan_name: plan.name.clone(),
            variants: active.variants.iter().map(|variant| variant.status(now_ns)).collect(),
            load: self.bulkhead.load(),
            faults: active.faults.iter().map(|fault| fault.report(now_ms)).collect(),
        }
    }
}

impl Active {
    /// Make a record ready. What is the same in `before` goes on: variants with their backends, what was counted, what faults
    /// have done.
    pub fn new(record: EndpointRecord, before: Option<&Active>, now_ns: u64) -> Result<Active> {
        let spec = &record.spec;
        let plan = &record.active.plan;
        let variants = variants(spec, before)?;
        let place = |name: &str| variants.iter().position(|variant| &*variant.name == name);
        let fixed = plan.answer.as_ref().map(fixed_answer).transpose()?;
        let wires = plan.tripwires.iter().map(|wire| Wire::new(wire, wire.variant.as_deref().and_then(place), now_ns));
        Ok(Active {
            route: Route::new(plan, &record.salt, &place)?,
            mirrors: plan.mirrors.iter().filter_map(|mirror| copying(place(&mirror.variant)?)).collect(),
            tiers: plan.fallbacks.iter().filter_map(|tier| tier_of(&tier.by, place)).collect(),
            fixed,
            wires: wires.collect(),
            faults: faults(spec, before, place)?,
            segment: plan.signals.segment.as_ref().map(|source| Reader::new(source, "segment")).transpose()?,
            board: board(plan, &variants, before),
            record: Arc::new(record),
            variants,
        })
    }

    /// The same endpoint with this plan.
    pub fn with_plan(&self, plan: PlanRecord, now_ns: u64) -> Result<Active> {
        Active::new(EndpointRecord { active: plan, ..(*self.record).clone() }, Some(self), now_ns)
    }

    pub fn plan(&self) -> &Plan {
        &self.record.active.plan
    }

    pub fn place(&self, name: &str) -> Option<usize> {
        self.variants.iter().position(|variant| &*variant.name == name)
    }

    /// The policy of a variant's breaker.
    pub fn breaker<'a>(&'a self, variant: &'a Variant) -> &'a BreakerPolicy {
        variant.spec.breaker.as_ref().unwrap_or(&self.plan().breaker)
    }
}

fn variants(spec: &EndpointSpec, before: Option<&Active>) -> Result<Box<[Arc<Variant>]>> {
    let same =
        |wanted: &crate::spec::VariantSpec| before?.variants.iter().find(|variant| variant.spec == *wanted).cloned();
    let variant = |wanted| same(wanted).map_or_else(|| Variant::new(wanted).map(Arc::new), Ok);
    spec.variants.iter().map(variant).collect()
}

fn faults(
    spec: &EndpointSpec,
    before: Option<&Active>,
    place: impl Fn(&str) -> Option<usize> + Copy,
) -> Result<Box<[Arc<FaultState>]>> {
    let is_same_order = before.is_some_and(|before| before.record.spec.variants == spec.variants);
    let same = |wanted: &crate::spec::Fault| {
        let before = before.filter(|_| is_same_order)?;
        before.faults.iter().find(|fault| fault.spec == *wanted).cloned()
    };
    let fault = |wanted| same(wanted).map_or_else(|| FaultState::new(wanted, place).map(Arc::new), Ok);
    spec.faults.iter().map(fault).collect()
}

fn fixed_answer(fixed: &FixedAnswer) -> Result<(Arc<str>, Arc<InferAnswer>)> {
    Ok((fixed.label.as_str().into(), Arc::new(answer::build("plan.answer", fixed)?)))
}

fn copying(variant: usize) -> Option<Copying> {
    Some(Copying { variant, under_way: Arc::default() })
}

fn tier_of(stand: &Stand, place: impl Fn(&str) -> Option<usize>) -> Option<Tier> {
    match stand {
        Stand::Variant(name) => place(name).map(Tier::Variant),
        Stand::Named(name) => Some(Tier::Named(name.as_str().into())),
    }
}

fn board(plan: &Plan, variants: &[Arc<Variant>], before: Option<&Active>) -> Arc<Board> {
    let names: Vec<Arc<str>> = variants.iter().map(|variant| variant.name.clone()).collect();
    let same =
        before.map(|before| &before.board).filter(|board| board.settings == plan.signals && board.variants == names);
    same.cloned().unwrap_or_else(|| Arc::new(Board::new(&plan.signals, names)))
}
