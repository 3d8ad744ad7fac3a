//! Whether specifications and plans make sense.
//!
//! Owns the rules that hold before anything is stored: sums of shares, names that lead somewhere, plans that do not lead back
//! to themselves, fallbacks that do not fall with what they stand in for. Separate from the data, so that each rule can be read
//! as one.
//!
//! Bounded by [`crate::limits`]. On failure: `invalid`, with the path of the field first.

use std::collections::BTreeSet;

use mainstay_base::{Error, Result};

use crate::answer;
use crate::caller::check_conditions;
use crate::limits::*;
use crate::plan::{
    BreakerPolicy, Comparison, FailureRate, Mirror, PathLimits, Plan, RetryPolicy, ScoreSettings, Signal,
    SignalSettings, Split, Stand, TenantLimits, Tier, Tripwire,
};
use crate::served::Why;
use crate::spec::{Effect, EndpointSpec, Fault, Guard, OutputRule, VariantSpec};

/// Shares may miss 100 % by this, because people write 33.333.
const SUM_TOLERANCE_PERCENT: f64 = 0.01;

impl EndpointSpec {
    /// Whether the specification makes sense.
    pub fn check(&self) -> Result<()> {
        check_name("name", &self.name)?;
        check_count("description", self.description.len(), REASON_BYTES_MAX)?;
        if self.variants.is_empty() {
            return Err(Error::invalid("`variants` is empty; an endpoint needs at least one"));
        }
        check_count("variants", self.variants.len(), VARIANTS_MAX)?;
        check_distinct("variants", self.variants.iter().map(|variant| &*variant.name))?;
        for (number, variant) in self.variants.iter().enumerate() {
            variant.check(&format!("variants[{number}]"))?;
        }
        check_count("plans", self.plans.len(), PLANS_MAX)?;
        check_distinct("plans", self.plans.iter().map(|named| &*named.name))?;
        self.check_plan("plan", &self.plan)?;
        for (number, named) in self.plans.iter().enumerate() {
            check_name(&format!("plans[{number}].name"), &named.name)?;
            self.check_plan(&format!("plans[{number}].plan"), &named.plan)?;
        }
        self.check_cycles()?;
        check_count("faults", self.faults.len(), FAULTS_MAX)?;
        check_distinct("faults", self.faults.iter().map(|fault| &*fault.name))?;
        for (number, fault) in self.faults.iter().enumerate() {
            self.check_fault(&format!("faults[{number}]"), fault)?;
        }
        Ok(())
    }

    /// Whether a plan makes sense at this endpoint.
    pub fn check_plan(&self, at: &str, plan: &Plan) -> Result<()> {
        check_count(&format!("{at}.rules"), plan.rules.len(), RULES_MAX)?;
        for (number, rule) in plan.rules.iter().enumerate() {
            let when = format!("{at}.rules[{number}].when");
            if rule.when.is_empty() {
                return Err(Error::invalid(format!("`{when}` is empty; a rule needs a condition")));
            }
            check_conditions(&when, &rule.when, CONDITIONS_MAX)?;
        }
        for (place, split) in plan.splits() {
            self.check_split(&format!("{at}.{place}"), split)?;
        }
        check_count(&format!("{at}.mirrors"), plan.mirrors.len(), MIRRORS_MAX)?;
        check_distinct(&format!("{at}.mirrors"), plan.mirrors.iter().map(|mirror| &*mirror.variant))?;
        for (number, mirror) in plan.mirrors.iter().enumerate() {
            self.check_mirror(&format!("{at}.mirrors[{number}]"), mirror)?;
        }
        check_count(&format!("{at}.fallbacks"), plan.fallbacks.len(), TIERS_MAX)?;
        for (number, tier) in plan.fallbacks.iter().enumerate() {
            self.check_tier(&format!("{at}.fallbacks[{number}]"), tier, plan)?;
        }
        if let Some(fixed) = &plan.answer {
            check_text(&format!("{at}.answer.label"), &fixed.label)?;
            answer::build(&format!("{at}.answer"), fixed)?;
        }
        check_fall_back_on(&format!("{at}.fall-back-on"), &plan.fall_back_on)?;
        plan.limits.check(&format!("{at}.limits"))?;
        plan.breaker.check(&format!("{at}.breaker"))?;
        plan.retry.check(&format!("{at}.retry"))?;
        check_count(&format!("{at}.tripwires"), plan.tripwires.len(), TRIPWIRES_MAX)?;
        check_distinct(&format!("{at}.tripwires"), plan.tripwires.iter().map(|wire| &*wire.name))?;
        for (number, wire) in plan.tripwires.iter().enumerate() {
            self.check_tripwire(&format!("{at}.tripwires[{number}]"), wire)?;
        }
        plan.signals.check(&format!("{at}.signals"))?;
        check_share(&format!("{at}.watch.percent"), plan.watch.percent)?;
        check_span(&format!("{at}.watch.slower-than-ms"), plan.watch.slower_than_ms.unwrap_or(1))
    }

    fn check_split(&self, at: &str, split: &Split) -> Result<()> {
        if let Some(key) = &split.key {
            key.check(&format!("{at}.key"))?;
        }
        let shares = format!("{at}.shares");
        check_distinct(&shares, split.shares.iter().map(|share| &*share.variant))?;
        for (number, share) in split.shares.iter().enumerate() {
            self.check_variant(&format!("{shares}[{number}].variant"), &share.variant)?;
            check_share(&format!("{shares}[{number}].percent"), share.percent)?;
        }
        let sum = split.shares.iter().fold(0.0, |sum, share| sum + share.percent);
        if (sum - 100.0).abs() > SUM_TOLERANCE_PERCENT {
            return Err(Error::invalid(format!("`{shares}` sum to {sum} %; they must sum to 100 %")));
        }
        Ok(())
    }

    fn check_mirror(&self, at: &str, mirror: &Mirror) -> Result<()> {
        self.check_variant(&format!("{at}.variant"), &mirror.variant)?;
        check_share(&format!("{at}.percent"), mirror.percent)?;
        check_span(&format!("{at}.timeout-ms"), mirror.timeout_ms)?;
        check_number(&format!("{at}.concurrency"), mirror.concurrency.into(), 1, MIRRORED_MAX.into())?;
        mirror.compare.as_ref().map_or(Ok(()), |compare| compare.check(&format!("{at}.compare")))
    }

    /// A tier that falls with what it stands in for is none.
    fn check_tier(&self, at: &str, tier: &Tier, plan: &Plan) -> Result<()> {
        check_span(&format!("{at}.timeout-ms"), tier.timeout_ms)?;
        let name = match &tier.by {
            Stand::Named(name) => return check_name(&format!("{at}.by"), name),
            Stand::Variant(name) => name,
        };
        self.check_variant(&format!("{at}.by"), name)?;
        let needs = self.variant(name).map(VariantSpec::needs).unwrap_or_default();
        self.check_apart(at, name, &needs, plan)
    }

    /// Whether what needs this resource can stand in for everybody who answers as planned.
    pub(crate) fn check_apart(&self, at: &str, stand: &str, needs: &str, plan: &Plan) -> Result<()> {
        let primaries = plan.primaries().filter_map(|name| self.variant(name));
        match primaries.into_iter().find(|primary| primary.needs() == needs) {
            Some(primary) => Err(Error::invalid(format!(
                "`{at}`: `{stand}` needs `{needs}`, as the variant `{}` does that it would stand in for; both would fail \
                 together, so name another",
                primary.name
            ))),
            None => Ok(()),
        }
    }

    fn check_tripwire(&self, at: &str, wire: &Tripwire) -> Result<()> {
        check_name(&format!("{at}.name"), &wire.name)?;
        if let Some(variant) = &wire.variant {
            self.check_variant(&format!("{at}.variant"), variant)?;
        }
        check_share(&format!("{at}.percent"), wire.percent)?;
        check_window(&format!("{at}.window-ms"), wire.window_ms)?;
        check_number(&format!("{at}.minimum"), wire.minimum.into(), 1, COUNT_MAX.into())?;
        check_number(&format!("{at}.grace-ms"), wire.grace_ms, 0, WINDOW_MS_MAX)?;
        match wire.signal {
            Signal::SlowerThanMs(ms) => check_span(&format!("{at}.signal.slower-than-ms"), ms)?,
            Signal::ScoreAbove(score) | Signal::ScoreBelow(score) => check_finite(&format!("{at}.signal"), score)?,
            Signal::Disagreements if wire.variant.is_none() => {
                return Err(Error::invalid(format!("`{at}.variant` is missing; name the mirror that is compared")));
            }
            _ => {}
        }
        if self.named_plan(&wire.plan).is_none() {
            return Err(Error::invalid(format!("`{at}.plan` is `{}`; `plans` has no such plan", wire.plan)));
        }
        Ok(())
    }

    /// A tripwire must not lead back to where it started, or two plans would throw requests to and fro.
    fn check_cycles(&self) -> Result<()> {
        for start in &self.plans {
            let mut path = vec![&*start.name];
            let mut seen = BTreeSet::new();
            let mut open: Vec<&str> = start.plan.tripwires.iter().map(|wire| &*wire.plan).collect();
            while let Some(next) = open.pop() {
                if next == start.name {
                    path.push(next);
                    let path = path.join("` → `");
                    return Err(Error::invalid(format!(
                        "`plans` lead back to themselves by their tripwires: `{path}`"
                    )));
                }
                if seen.insert(next) {
                    path.push(next);
                    let leads = self.named_plan(next).into_iter().flat_map(|plan| &plan.tripwires);
                    open.extend(leads.map(|wire| &*wire.plan));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn check_fault(&self, at: &str, fault: &Fault) -> Result<()> {
        check_name(&format!("{at}.name"), &fault.name)?;
        if let Some(variant) = &fault.variant {
            self.check_variant(&format!("{at}.variant"), variant)?;
        }
        check_conditions(&format!("{at}.when"), &fault.when, CONDITIONS_MAX)?;
        check_share(&format!("{at}.percent"), fault.percent)?;
        match &fault.effect {
            Effect::LatencyMs(ms) => check_span(&format!("{at}.effect.latency-ms"), *ms)?,
            Effect::Error(message) => check_text(&format!("{at}.effect.error"), message)?,
            Effect::Abort(status) => check_number(&format!("{at}.effect.abort"), (*status).into(), 400, 599)?,
            Effect::Saturation(slots) => {
                check_number(&format!("{at}.effect.saturation"), (*slots).into(), 1, CONCURRENCY_MAX.into())?;
                if fault.variant.is_some() || !fault.when.is_empty() {
                    return Err(Error::invalid(format!(
                        "`{at}`: a saturation takes from all requests of the endpoint; leave `variant` and `when` out"
                    )));
                }
            }
        }
        let from_ms = fault.from_ms.unwrap_or(i64::MIN);
        if fault.until_ms <= from_ms {
            return Err(Error::invalid(format!("`{at}.until-ms` is not after `{at}.from-ms`")));
        }
        if let Some(stop) = &fault.stop {
            check_share(&format!("{at}.stop.percent"), stop.percent)?;
            check_window(&format!("{at}.stop.window-ms"), stop.window_ms)?;
            check_number(&format!("{at}.stop.minimum"), stop.minimum.into(), 1, COUNT_MAX.into())?;
        }
        Ok(())
    }

    fn check_variant(&self, at: &str, name: &str) -> Result<()> {
        if self.variant(name).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.variants.iter().map(|variant| &*variant.name).collect();
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        Err(Error::invalid(format!("`{at}` is `{shown}`; the variants are `{}`", known.join("`, `"))))
    }
}

impl VariantSpec {
    fn check(&self, at: &str) -> Result<()> {
        check_name(&format!("{at}.name"), &self.name)?;
        if let Some(resource) = &self.resource {
            check_text(&format!("{at}.resource"), resource)?;
        }
        self.guard.check(&format!("{at}.guard"))?;
        if let Some(breaker) = &self.breaker {
            breaker.check(&format!("{at}.breaker"))?;
        }
        check_span(&format!("{at}.warm-timeout-ms"), self.warm_timeout_ms)
    }
}

impl Guard {
    fn check(&self, at: &str) -> Result<()> {
        let outputs = format!("{at}.outputs");
        check_count(&outputs, self.outputs.len(), GUARDS_MAX)?;
        check_distinct(&outputs, self.outputs.iter().map(|rule| &*rule.output))?;
        self.outputs.iter().enumerate().try_for_each(|(number, rule)| rule.check(&format!("{outputs}[{number}]")))
    }
}

impl OutputRule {
    fn check(&self, at: &str) -> Result<()> {
        check_text(&format!("{at}.output"), &self.output)?;
        if let Some(datatype) = &self.datatype {
            answer::datatype(&format!("{at}.datatype"), datatype)?;
        }
        if let Some(shape) = &self.shape {
            check_count(&format!("{at}.shape"), shape.len(), DIMENSIONS_MAX)?;
            if let Some(extent) = shape.iter().find(|extent| **extent < -1) {
                return Err(Error::invalid(format!("`{at}.shape` has {extent}; -1 stands for any extent")));
            }
        }
        for (name, bound) in [("min", self.min), ("max", self.max)] {
            check_finite(&format!("{at}.{name}"), bound.unwrap_or(0.0))?;
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(Error::invalid(format!("`{at}.min` is {min}, which is above `{at}.max` {max}")));
        }
        let after = self.constant_after.unwrap_or(2);
        check_number(&format!("{at}.constant-after"), after.into(), 2, COUNT_MAX.into())
    }
}

impl Comparison {
    fn check(&self, at: &str) -> Result<()> {
        check_count(&format!("{at}.outputs"), self.outputs.len(), GUARDS_MAX)?;
        for (name, tolerance) in [("absolute", self.absolute), ("relative", self.relative)] {
            if !tolerance.is_finite() || tolerance < 0.0 {
                return Err(Error::invalid(format!("`{at}.{name}` is {tolerance}; it must be 0 or more")));
            }
        }
        Ok(())
    }
}

impl PathLimits {
    fn check(&self, at: &str) -> Result<()> {
        check_span(&format!("{at}.timeout-ms"), self.timeout_ms)?;
        check_span(&format!("{at}.attempt-timeout-ms"), self.attempt_timeout_ms.unwrap_or(1))?;
        check_number(&format!("{at}.concurrency"), self.concurrency.into(), 1, CONCURRENCY_MAX.into())?;
        check_number(&format!("{at}.queue"), self.queue.into(), 0, QUEUE_MAX.into())?;
        check_span(&format!("{at}.queue-timeout-ms"), self.queue_timeout_ms)?;
        check_span(&format!("{at}.retry-after-ms"), self.retry_after_ms)?;
        self.tenant.check(&format!("{at}.tenant"))?;
        check_count(&format!("{at}.tenants"), self.tenants.len(), TENANT_LIMITS_MAX)?;
        self.tenants.iter().try_for_each(|(tenant, limits)| {
            check_text(&format!("{at}.tenants"), tenant)?;
            limits.check(&format!("{at}.tenants.{tenant}"))
        })
    }
}

impl TenantLimits {
    fn check(&self, at: &str) -> Result<()> {
        let concurrency = self.concurrency.unwrap_or(1);
        check_number(&format!("{at}.concurrency"), concurrency.into(), 1, CONCURRENCY_MAX.into())?;
        check_number(&format!("{at}.queue"), self.queue.unwrap_or(0).into(), 0, QUEUE_MAX.into())?;
        let Some(rate) = &self.rate else { return Ok(()) };
        check_number(&format!("{at}.rate.burst"), rate.burst.into(), 1, COUNT_MAX.into())?;
        match rate.per_second >= 1e-3 && rate.per_second <= 1e6 {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "`{at}.rate.per-second` is {}; it must be 0.001 to 1000000",
                rate.per_second
            ))),
        }
    }
}

impl BreakerPolicy {
    pub(crate) fn check(&self, at: &str) -> Result<()> {
        check_number(&format!("{at}.consecutive"), self.consecutive.into(), 0, COUNT_MAX.into())?;
        if let Some(FailureRate { percent, window_ms, minimum }) = self.rate {
            check_share(&format!("{at}.rate.percent"), percent)?;
            check_window(&format!("{at}.rate.window-ms"), window_ms)?;
            check_number(&format!("{at}.rate.minimum"), minimum.into(), 1, COUNT_MAX.into())?;
        }
        check_span(&format!("{at}.slower-than-ms"), self.slower_than_ms.unwrap_or(1))?;
        check_number(&format!("{at}.timeout-counts-after-ms"), self.timeout_counts_after_ms, 0, SPAN_MS_MAX)?;
        check_span(&format!("{at}.open-ms"), self.open_ms)?;
        check_factor(&format!("{at}.factor"), self.factor)?;
        check_span(&format!("{at}.cap-ms"), self.cap_ms)?;
        if self.cap_ms < self.open_ms {
            return Err(Error::invalid(format!("`{at}.cap-ms` is below `{at}.open-ms`")));
        }
        check_unit(&format!("{at}.jitter"), self.jitter)?;
        check_number(&format!("{at}.probes"), self.probes.into(), 1, PROBES_MAX.into())?;
        check_span(&format!("{at}.probe-timeout-ms"), self.probe_timeout_ms)
    }
}

impl RetryPolicy {
    fn check(&self, at: &str) -> Result<()> {
        check_number(&format!("{at}.retries"), self.retries.into(), 0, RETRIES_MAX.into())?;
        check_span(&format!("{at}.base-ms"), self.base_ms)?;
        check_factor(&format!("{at}.factor"), self.factor)?;
        check_span(&format!("{at}.cap-ms"), self.cap_ms)?;
        check_unit(&format!("{at}.jitter"), self.jitter)?;
        check_share(&format!("{at}.budget-percent"), self.budget_percent)?;
        check_number(&format!("{at}.budget-minimum"), self.budget_minimum.into(), 0, COUNT_MAX.into())
    }
}

impl SignalSettings {
    fn check(&self, at: &str) -> Result<()> {
        check_window(&format!("{at}.window-ms"), self.window_ms)?;
        check_number(&format!("{at}.windows"), self.windows.into(), 1, WINDOWS_MAX.into())?;
        if let Some(segment) = &self.segment {
            segment.check(&format!("{at}.segment"))?;
        }
        let ScoreSettings { min, max, .. } = self.score;
        check_finite(&format!("{at}.score.min"), min)?;
        check_finite(&format!("{at}.score.max"), max)?;
        match min < max {
            true => Ok(()),
            false => Err(Error::invalid(format!("`{at}.score.min` is {min}; it must be below `{at}.score.max` {max}"))),
        }
    }
}

fn check_fall_back_on(at: &str, causes: &[Why]) -> Result<()> {
    let senseless = causes.iter().find(|why| matches!(why, Why::NotFound | Why::Invalid | Why::Aborted));
    match senseless {
        Some(why) => Err(Error::invalid(format!("`{at}` has `{}`; nothing can stand in for that", why.name()))),
        None => Ok(()),
    }
}

fn check_distinct<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
            return Err(Error::invalid(format!("`{what}` has `{shown}` twice; each may be there once")));
        }
    }
    Ok(())
}

fn check_span(what: &str, span_ms: u64) -> Result<()> {
    check_number(what, span_ms, 1, SPAN_MS_MAX)
}

fn check_window(what: &str, window_ms: u64) -> Result<()> {
    check_number(what, window_ms, WINDOW_MS_MIN, WINDOW_MS_MAX)
}

fn check_finite(what: &str, number: f64) -> Result<()> {
    match number.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid(format!("`{what}` is {number}; it must be a finite number"))),
    }
}

fn check_factor(what: &str, factor: f64) -> Result<()> {
    match (1.0..=100.0).contains(&factor) {
        true => Ok(()),
        false => Err(Error::invalid(format!("`{what}` is {factor}; it must be 1 to 100"))),
    }
}

fn check_unit(what: &str, share: f64) -> Result<()> {
    match (0.0..=1.0).contains(&share) {
        true => Ok(()),
        false => Err(Error::invalid(format!("`{what}` is {share}; it must be 0 to 1"))),
    }
}
