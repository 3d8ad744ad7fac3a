//! The admin API's part about endpoints: their specifications, plans, faults and signals.
//!
//! Owns the routes under `/-/endpoints`. Separate from the host's other routes because traffic is a room of its own. Reading
//! needs the right `read`, changing `admin`. A change may name what it has seen (`revision`, or the plan's `version`); then it
//! fails with a conflict instead of undoing somebody else's.
//!
//! Bounded as the room is. On failure: a problem document; a change that fails has changed nothing.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};
use mainstay_base::{Error, Result};
use mainstay_inference::{InferRequest, Parameter};
use mainstay_traffic::{Caller, EndpointRecord, EndpointSpec, Fault, NewPlan, Plan, PlanRecord, Reason, Traffic, diff};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::endpoint_shown;
use crate::host_routes::{Answer, BodyReader};
use crate::options::GatewayLimits;
use crate::problem::ProblemDocument;
use crate::tokens::Identity;

/// Plans of one page of a history.
const HISTORY_MAX: u32 = 1_000;

/// What the handlers use.
pub(crate) struct EndpointsState {
    pub(crate) traffic: Traffic,
    pub(crate) limits: GatewayLimits,
}

type Api = State<Arc<EndpointsState>>;
type Who = Extension<Arc<Identity>>;

/// The routes.
pub(crate) fn router(state: Arc<EndpointsState>) -> Router {
    use axum::routing::{get, post};
    Router::new()
        .route("/-/endpoints", get(list_endpoints).post(apply_endpoint))
        .route("/-/endpoints/schema", get(endpoint_schema))
        .route("/-/endpoints/{endpoint}", get(endpoint_info).delete(remove_endpoint))
        .route("/-/endpoints/{endpoint}/plan", post(set_plan))
        .route("/-/endpoints/{endpoint}/plans", get(list_plans))
        .route("/-/endpoints/{endpoint}/faults", post(inject_fault))
        .route("/-/endpoints/{endpoint}/faults/{fault}", axum::routing::delete(withdraw_fault))
        .route("/-/endpoints/{endpoint}/signals", get(endpoint_signals))
        .route("/-/endpoints/{endpoint}/assign", post(assign))
        .with_state(state)
}

/// A specification, and what its author has seen.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EndpointOrder {
    /// The specification; `/-/endpoints/schema` describes it.
    #[schema(value_type = Object)]
    pub spec: EndpointSpec,
    /// The revision that this replaces, 0 for none; left out: whatever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What applying did, or would do.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointChange {
    /// In words, a line each; empty when nothing changes.
    pub changes: Vec<String>,
    /// The endpoint as it is behind the change; none of a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub endpoint: Option<EndpointRecord>,
}

fn reason(identity: &Identity, why: &str) -> Reason {
    Reason::new(&*identity.caller.principal, why)
}

/// Names of all endpoints, with how they are.
#[utoipa::path(get, path = "/-/endpoints", tag = "endpoints",
    responses((status = 200, body = Vec<Object>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_endpoints(State(state): Api) -> Answer<Json<Vec<Value>>> {
    let mut all = Vec::new();
    for name in state.traffic.list() {
        // Removed meanwhile: not listed.
        if let Ok(status) = state.traffic.status(&name) {
            all.push(endpoint_shown::status(&status));
        }
    }
    Ok(Json(all))
}

/// The JSON Schema of specifications.
#[utoipa::path(get, path = "/-/endpoints/schema", tag = "endpoints", responses((status = 200, body = Object)))]
pub(crate) async fn endpoint_schema() -> Json<Value> {
    Json(schemars::schema_for!(EndpointSpec).to_value())
}

/// Make an endpoint, or change it. Its variants are loaded and warmed before the answer; until then nothing changes.
#[utoipa::path(post, path = "/-/endpoints", tag = "endpoints", request_body = EndpointOrder,
    responses((status = 200, body = EndpointChange), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn apply_endpoint(
    State(state): Api,
    Extension(identity): Who,
    body: BodyReader,
) -> Answer<Json<EndpointChange>> {
    let EndpointOrder { spec, revision, dry_run, why } = body.json(&state.limits).await?;
    spec.check()?;
    let known = state.traffic.show(&spec.name).ok();
    let changes = diff(known.as_ref().map(|known| &known.spec), &spec);
    if dry_run {
        return Ok(Json(EndpointChange { changes, endpoint: None }));
    }
    let record = state.traffic.apply(spec, revision, reason(&identity, &why)).await?;
    Ok(Json(EndpointChange { changes, endpoint: Some(record) }))
}

/// An endpoint: its specification, its plan, how its variants are.
#[utoipa::path(get, path = "/-/endpoints/{endpoint}", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn endpoint_info(State(state): Api, Path(name): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(
        json!({ "endpoint": state.traffic.show(&name)?, "status": endpoint_shown::status(&state.traffic.status(&name)?) }),
    ))
}

/// Remove an endpoint. Requests that are under way are answered; its history stays.
#[utoipa::path(delete, path = "/-/endpoints/{endpoint}", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn remove_endpoint(State(state): Api, Path(name): Path<String>) -> Answer<StatusCode> {
    state.traffic.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Another plan: one of `plan`, `named` and `version-of-history`.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PlanOrder {
    /// A whole plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub plan: Option<Plan>,
    /// One of the endpoint's named plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// One that was active before, by its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_of_history: Option<u64>,
    /// The version of the plan that its author has seen.
    pub version: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl PlanOrder {
    fn plan(self) -> Result<NewPlan> {
        match (self.plan, self.named, self.version_of_history) {
            (Some(plan), None, None) => Ok(NewPlan::Plan(Box::new(plan))),
            (None, Some(name), None) => Ok(NewPlan::Named(name)),
            (None, None, Some(version)) => Ok(NewPlan::Version(version)),
            _ => Err(Error::invalid("give one of `plan`, `named` and `version-of-history`")),
        }
    }
}

/// Make another plan active, at once for every request that comes behind.
#[utoipa::path(post, path = "/-/endpoints/{endpoint}/plan", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name")), request_body = PlanOrder,
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn set_plan(
    State(state): Api,
    Extension(identity): Who,
    Path(name): Path<String>,
    body: BodyReader,
) -> Answer<Json<PlanRecord>> {
    let order: PlanOrder = body.json(&state.limits).await?;
    let (version, reason) = (order.version, reason(&identity, &order.why));
    Ok(Json(state.traffic.swap(&name, order.plan()?, version, reason).await?))
}

/// Which plans.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub(crate) struct HistoryQuery {
    /// Those before this version.
    before: Option<u64>,
    /// At most so many, 1 to 1,000; 100 unless given.
    limit: Option<u32>,
}

/// Plans that were active, newest first, with who made each active, when and why.
#[utoipa::path(get, path = "/-/endpoints/{endpoint}/plans", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name"), HistoryQuery),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_plans(
    State(state): Api,
    Path(name): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Answer<Json<Value>> {
    let limit = query.limit.unwrap_or(100).clamp(1, HISTORY_MAX);
    let history = state.traffic.history(&name, query.before, limit)?;
    Ok(Json(endpoint_shown::history(&history)))
}

/// Inject a fault on purpose, in place of one of the same name. It ends by itself.
#[utoipa::path(post, path = "/-/endpoints/{endpoint}/faults", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name")), request_body(content = Object, description = "A fault, as specifications have it"),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn inject_fault(
    State(state): Api,
    Extension(identity): Who,
    Path(name): Path<String>,
    body: BodyReader,
) -> Answer<StatusCode> {
    let fault: Fault = body.json(&state.limits).await?;
    let why = format!("the fault `{}`", fault.name);
    state.traffic.inject(&name, fault, reason(&identity, &why)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stop injecting a fault.
#[utoipa::path(delete, path = "/-/endpoints/{endpoint}/faults/{fault}", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name"), ("fault" = String, Path, description = "The fault's name")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn withdraw_fault(
    State(state): Api,
    Extension(identity): Who,
    Path((name, fault)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let why = format!("no more of the fault `{fault}`");
    state.traffic.withdraw(&name, &fault, reason(&identity, &why)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was counted, by variant and segment, in windows of time.
#[utoipa::path(get, path = "/-/endpoints/{endpoint}/signals", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name")),
    responses((status = 200, body = Vec<Object>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn endpoint_signals(State(state): Api, Path(name): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(state.traffic.signals(&name)?.iter().map(endpoint_shown::series).collect()))
}

/// Who would get which variant: what a request would bring.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct AssignOrder {
    /// Headers, by name.
    pub headers: HashMap<String, String>,
    /// Parameters of the inference request, by name.
    pub parameters: HashMap<String, String>,
    /// On whose account.
    pub tenant: Option<String>,
    /// The request's id.
    pub id: Option<String>,
}

/// Which variant such a request would get. Asks no model and counts nothing.
#[utoipa::path(post, path = "/-/endpoints/{endpoint}/assign", tag = "endpoints", params(("endpoint" = String, Path, description = "The endpoint's name")), request_body = AssignOrder,
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn assign(State(state): Api, Path(name): Path<String>, body: BodyReader) -> Answer<Json<Value>> {
    let order: AssignOrder = body.json(&state.limits).await?;
    let bad = |what: &str| Error::invalid(format!("`{what}` is no header"));
    let mut headers = HeaderMap::new();
    for (header, value) in &order.headers {
        let value = value.parse().map_err(|_| bad(header))?;
        headers.insert(header.parse::<http::HeaderName>().map_err(|_| bad(header))?, value);
    }
    let parameters = order.parameters.into_iter().map(|(name, value)| (name, Parameter::String(value)));
    let request = InferRequest { id: order.id, parameters: parameters.collect(), ..InferRequest::default() };
    let tenant = order.tenant.map(Arc::<str>::from);
    let caller = Caller { tenant: tenant.as_ref(), ..Caller::new(&headers) };
    let assigned = state.traffic.assign(&name, caller, &request)?;
    Ok(Json(json!({
        "variant": &*assigned.variant,
        "plan-version": assigned.plan_version,
        "rule": assigned.rule,
        "is-sticky": assigned.is_sticky,
    })))
}
