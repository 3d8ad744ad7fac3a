//! Endpoints, their signals and their history as JSON.
//!
//! Owns how each is shown. Separate from the routes that show them, and from traffic, whose types are for deciding. Does not fail.

use mainstay_traffic::{
    BreakerState, EndpointStatus, FaultReport, History, Latency, Series, SignalWindow, VariantStatus,
};
use serde_json::{Value, json};

/// How an endpoint is.
pub(crate) fn status(status: &EndpointStatus) -> Value {
    json!({
        "name": &*status.name,
        "plan-version": status.plan_version,
        "plan-name": status.plan_name,
        "variants": status.variants.iter().map(variant).collect::<Vec<_>>(),
        "active": status.load.active,
        "waiting": status.load.waiting,
        "faults": status.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn variant(variant: &VariantStatus) -> Value {
    let identity = variant.identity.as_ref().map(
        |identity| json!({ "model": &*identity.model, "version": &*identity.version, "run": identity.run.as_deref() }),
    );
    let breaker = match variant.breaker {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
    };
    json!({ "name": &*variant.name, "identity": identity, "reason": variant.reason, "breaker": breaker })
}

fn fault(report: &FaultReport) -> Value {
    json!({
        "fault": report.fault,
        "hits": report.hits,
        "is-active": report.is_active,
        "has-stopped": report.has_stopped,
    })
}

/// Plans that were active.
pub(crate) fn history(history: &History) -> Value {
    json!({ "plans": history.plans, "next": history.next })
}

/// What was counted of one variant and segment.
pub(crate) fn series(series: &Series) -> Value {
    json!({
        "variant": series.variant.as_deref(),
        "segment": series.segment.as_deref(),
        "is-mirrored": series.is_mirrored,
        "windows": series.windows.iter().map(window).collect::<Vec<_>>(),
    })
}

fn window(window: &SignalWindow) -> Value {
    let failures: serde_json::Map<String, Value> =
        window.failures.iter().map(|(why, count)| (why.name().to_owned(), json!(count))).collect();
    let agreement: serde_json::Map<String, Value> = window
        .agreement
        .iter()
        .map(|(variant, agreement)| {
            (variant.to_string(), json!({ "compared": agreement.compared, "agreed": agreement.agreed }))
        })
        .collect();
    let scores = &window.scores;
    json!({
        "start-ms": window.start_ms,
        "requests": window.requests,
        "failures": failures,
        "cancelled": window.cancelled,
        "fallbacks": window.fallbacks,
        "retries": window.retries,
        "latency-us": quantiles(&window.latency_us),
        "first-part-us": quantiles(&window.first_part_us),
        "scores": {
            "min": scores.min, "max": scores.max, "bins": scores.bins.to_vec(), "below": scores.below,
            "above": scores.above, "not-a-number": scores.not_a_number, "sum": scores.sum,
            "sum-of-squares": scores.sum_of_squares,
        },
        "agreement": agreement,
    })
}

fn quantiles(latency: &Latency) -> Value {
    json!({
        "count": latency.count(), "p50": latency.quantile(0.5), "p90": latency.quantile(0.9),
        "p99": latency.quantile(0.99), "p999": latency.quantile(0.999),
    })
}
