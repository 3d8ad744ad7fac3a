//! What the host itself answers: health, metrics, and the admin API under `/-/`.
//!
//! Health and metrics are answered by hand, without a place among the requests in flight: an overloaded host must still say
//! that it lives. The admin API is an axum router, where comfort matters more than microseconds. Its rights stand in one
//! function ([`right_of`]) that knows no single route: what reads needs `read`, everything else needs `admin`, so a route
//! that is added later is not open by accident.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::{Body, Incoming};
use mainstay_base::{Error, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use utoipa::ToSchema;

use crate::admin::{Admin, BlobSweep, InstallUpload, PluginDetail, PluginSummary, VersionInfo};
use crate::body::{AnswerBody, BodyFault, InboundBody};
use crate::connection::Watch;
use crate::exchange::refuse;
use crate::inference_routes;
use crate::metrics::{Metrics, RouteMeters};
use crate::options::GatewayLimits;
use crate::problem::{self, KINDS, Problem, ProblemDocument};
use crate::routes::Right;
use crate::server::Shared;
use crate::tokens::{Identity, NewToken, Role, TokenInfo, Tokens};
use crate::trace::TraceContext;

/// Bytes of a JSON body of the admin API.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// Which of the host's own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostRoute {
    Healthz,
    Readyz,
    Metrics,
    Admin,
    Inference,
}

impl HostRoute {
    pub(crate) fn of(path: &str) -> Option<HostRoute> {
        match path {
            "/healthz" => Some(HostRoute::Healthz),
            "/readyz" => Some(HostRoute::Readyz),
            "/metrics" => Some(HostRoute::Metrics),
            _ if path.starts_with("/-/") => Some(HostRoute::Admin),
            _ => mainstay_inference::Front::serves(path).then_some(HostRoute::Inference),
        }
    }

    /// What it is called in metrics and traces.
    pub(crate) fn pattern(self) -> &'static str {
        match self {
            HostRoute::Healthz => "/healthz",
            HostRoute::Readyz => "/readyz",
            HostRoute::Metrics => "/metrics",
            HostRoute::Admin => "/-/*",
            HostRoute::Inference => "/v2/*",
        }
    }
}

/// Counters of what the host answers itself.
pub(crate) struct HostMeters {
    healthz: RouteMeters,
    readyz: RouteMeters,
    metrics: RouteMeters,
    admin: RouteMeters,
    inference: RouteMeters,
    pub(crate) unrouted: RouteMeters,
}

impl HostMeters {
    pub(crate) fn new(metrics: &Metrics) -> HostMeters {
        let route = |route: HostRoute| metrics.route("", route.pattern());
        HostMeters {
            healthz: route(HostRoute::Healthz),
            readyz: route(HostRoute::Readyz),
            metrics: route(HostRoute::Metrics),
            admin: route(HostRoute::Admin),
            inference: route(HostRoute::Inference),
            unrouted: metrics.route("", "unrouted"),
        }
    }

    pub(crate) fn of(&self, route: HostRoute) -> &RouteMeters {
        match route {
            HostRoute::Healthz => &self.healthz,
            HostRoute::Readyz => &self.readyz,
            HostRoute::Metrics => &self.metrics,
            HostRoute::Admin => &self.admin,
            HostRoute::Inference => &self.inference,
        }
    }
}

/// What only administrators may read, too: secrets' names, and definitions that name programs and environments.
const ADMIN_ONLY: &[&str] = &["/-/tokens", "/-/jobs", "/-/runs", "/-/pools", "/-/events", "/-/subscriptions"];

/// What those who may write post to: what models answered, and what became true of it.
const WRITERS: &[&str] = &["/-/predictions/", "/-/outcomes/"];

/// What a request to the host needs.
fn right_of(route: HostRoute, method: &Method, path: &str) -> Right {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route {
        HostRoute::Healthz | HostRoute::Readyz => Right::None,
        HostRoute::Metrics | HostRoute::Inference => Right::Read,
        // A query is asked with a body, and changes nothing.
        HostRoute::Admin if path == "/-/sql" && *method == Method::POST => Right::Read,
        HostRoute::Admin if *method == Method::POST && WRITERS.iter().any(|prefix| path.starts_with(prefix)) => {
            Right::Write
        }
        HostRoute::Admin if !reads => Right::Admin,
        HostRoute::Admin if path == "/-/openapi.json" || path.starts_with("/-/problems") => Right::None,
        HostRoute::Admin if ADMIN_ONLY.iter().any(|prefix| path.starts_with(prefix)) => Right::Admin,
        HostRoute::Admin => Right::Read,
    }
}

/// Answer a request to the host itself.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    watch: &Watch,
    route: HostRoute,
    path: &str,
    parts: &Parts,
    body: Incoming,
    trace: TraceContext,
) -> Response<AnswerBody> {
    if route == HostRoute::Inference {
        return inference_routes::answer(shared, watch, parts, body, trace).await;
    }
    let needs = right_of(route, &parts.method, path);
    let identity = match shared.auth.admit(&parts.method, &parts.headers, watch.peer.ip(), needs) {
        Ok(identity) => identity,
        Err(problem) => return refuse(shared, parts, body, trace, None, problem).await,
    };
    if route == HostRoute::Admin {
        return match shared.check_load() {
            Ok(()) => admin(shared, parts, body, identity, trace).await,
            Err(problem) => refuse(shared, parts, body, trace, None, problem).await,
        };
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let problem =
            Problem::new(&problem::METHOD, format!("`{path}` does not take {}; it takes GET, HEAD", parts.method))
                .header(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refuse(shared, parts, body, trace, None, problem).await;
    }
    let mut response = match route {
        HostRoute::Readyz => readyz(shared),
        HostRoute::Metrics => metrics(shared),
        _ => plain(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into()),
    };
    if parts.method == Method::HEAD {
        *response.body_mut() = AnswerBody::empty();
    }
    response
}

fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Whether the host can take work, and which part cannot.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ReadyReport {
    ready: bool,
    /// Each part; with the reason, if it is not ready.
    parts: BTreeMap<String, Option<String>>,
}

fn readyz(shared: &Shared) -> Response<AnswerBody> {
    let mut parts = shared.readiness.parts();
    if shared.is_draining() {
        parts.insert("gateway".to_owned(), Some("is draining".to_owned()));
    }
    let ready = parts.values().all(Option::is_none);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Maps of strings always serialize.
    let body = serde_json::to_vec(&ReadyReport { ready, parts }).unwrap_or_default();
    plain(status, "application/json", body.into())
}

fn metrics(shared: &Shared) -> Response<AnswerBody> {
    shared.observe_room();
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry.read()) {
        Ok(()) => plain(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text.into()),
        Err(_) => Problem::new(&problem::INTERNAL, "the metrics could not be written down").into_response(None, None),
    }
}

/// What the handlers of the admin API use.
pub(crate) struct AdminState {
    pub(crate) admin: Arc<dyn Admin>,
    pub(crate) tokens: Tokens,
    pub(crate) version: VersionInfo,
    pub(crate) scratch_folder: std::path::PathBuf,
    pub(crate) limits: GatewayLimits,
}

type Api = State<Arc<AdminState>>;

/// The admin API's routes.
pub(crate) fn router(state: Arc<AdminState>, others: Vec<axum::Router>) -> axum::Router {
    use axum::routing::{delete, get, post, put};
    let own = axum::Router::new()
        .route("/-/version", get(version))
        .route("/-/plugins", get(list_plugins).post(install_plugin))
        .route("/-/plugins/{name}", get(plugin_info).delete(remove_plugin))
        .route("/-/plugins/{name}/config", put(configure_plugin))
        .route("/-/tokens", get(list_tokens).post(create_token))
        .route("/-/tokens/{name}", delete(revoke_token))
        .route("/-/blobs/gc", post(collect_garbage))
        .route("/-/problems", get(list_problems))
        .route("/-/problems/{slug}", get(problem_info))
        .route("/-/openapi.json", get(openapi))
        .with_state(state);
    others
        .into_iter()
        .fold(own, axum::Router::merge)
        .fallback(async || {
            Problem::new(&problem::NOT_FOUND, "the host has nothing here; `/-/openapi.json` lists its API")
        })
        .method_not_allowed_fallback(async |method: Method| {
            Problem::new(&problem::METHOD, format!("this path does not take {method}"))
        })
}

async fn admin(
    shared: &Arc<Shared>,
    parts: &Parts,
    body: Incoming,
    identity: Arc<Identity>,
    trace: TraceContext,
) -> Response<AnswerBody> {
    // Whoever announces too much is refused before a byte is read.
    let limit_bytes = shared.options.limits.package_bytes_max;
    if body.size_hint().lower() > limit_bytes {
        let fault = BodyFault::TooLarge { limit_bytes };
        return refuse(shared, parts, body, trace, None, fault.problem()).await;
    }
    let mut request = Request::new(axum::body::Body::empty());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    request.extensions_mut().insert(identity);
    let body = Arc::new(tokio::sync::Mutex::new(InboundBody::new(body, limit_bytes, &shared.options.limits)));
    request.extensions_mut().insert(body.clone());
    let mut response = match tower::ServiceExt::oneshot(shared.router.clone(), request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let mut response = match response.extensions_mut().remove::<Carried>().and_then(|carried| carried.0.lock().take()) {
        Some(problem) => {
            let mut answer = problem.into_response(None, Some(trace.trace_id_hex()));
            if let Some(allow) = response.headers_mut().remove(http::header::ALLOW) {
                answer.headers_mut().insert(http::header::ALLOW, allow);
            }
            answer
        }
        None => response.map(AnswerBody::axum),
    };
    let mut body = body.lock().await;
    let waits = parts.headers.contains_key(http::header::EXPECT);
    if !body.is_end() && (waits || !body.discard(&shared.options.limits).await) {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A problem on its way out of axum, to be written down where the trace is known.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Problem>>>);

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(self)))));
        response
    }
}

/// A handler's answer.
pub(crate) type Answer<T> = std::result::Result<T, Problem>;

/// The request's body, read within bounds.
pub(crate) struct BodyReader(Arc<tokio::sync::Mutex<InboundBody>>);

impl<S: Send + Sync> FromRequest<S> for BodyReader {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Answer<BodyReader> {
        let reader = request.extensions().get::<Arc<tokio::sync::Mutex<InboundBody>>>().cloned();
        reader.map(BodyReader).ok_or_else(|| Problem::new(&problem::INTERNAL, "the body was not handed on"))
    }
}

impl BodyReader {
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(&self, limits: &GatewayLimits) -> Answer<T> {
        self.json_within(limits, JSON_BYTES_MAX).await
    }

    /// The same for a body that may be longer.
    pub(crate) async fn json_within<T: serde::de::DeserializeOwned>(
        &self,
        limits: &GatewayLimits,
        bytes_max: u64,
    ) -> Answer<T> {
        let mut body = self.0.lock().await;
        body.limit(bytes_max);
        let bytes = body.collect(limits.inline_body_timeout).await.map_err(BodyFault::problem)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(&problem::MALFORMED_REQUEST, format!("the body is not the JSON that is expected: {error}"))
        })
    }

    /// The whole body, up to so many bytes.
    pub(crate) async fn bytes_within(&self, limits: &GatewayLimits, bytes_max: u64) -> Answer<bytes::Bytes> {
        let mut body = self.0.lock().await;
        body.limit(bytes_max);
        body.collect(limits.answer_timeout).await.map_err(BodyFault::problem)
    }

    /// Write the body to a file.
    async fn save(&self, file: std::fs::File) -> Answer<()> {
        let mut file = tokio::fs::File::from_std(file);
        let failed = |error: std::io::Error| {
            Problem::from(Error::io("write", std::path::Path::new("the uploaded package"), error))
        };
        let mut body = self.0.lock().await;
        while let Some(bytes) = body.next().await.map_err(BodyFault::problem)? {
            file.write_all(&bytes).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)
    }
}

/// What runs.
#[utoipa::path(get, path = "/-/version", tag = "host", responses((status = 200, body = VersionInfo)))]
async fn version(State(state): Api) -> Json<VersionInfo> {
    Json(state.version.clone())
}

/// The installed plugins, by name.
#[utoipa::path(get, path = "/-/plugins", tag = "plugins",
    responses((status = 200, body = Vec<PluginSummary>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn list_plugins(State(state): Api) -> Answer<Json<Vec<PluginSummary>>> {
    Ok(Json(state.admin.plugins().await?))
}

/// One plugin. Its configuration is shown to administrators only.
#[utoipa::path(get, path = "/-/plugins/{name}", tag = "plugins", params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, body = PluginDetail), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn plugin_info(
    State(state): Api,
    Path(name): Path<String>,
    Extension(identity): Extension<Arc<Identity>>,
) -> Answer<Json<PluginDetail>> {
    let mut detail = state.admin.plugin(&name).await?;
    if identity.right < Right::Admin {
        detail.config = serde_json::Value::Null;
    }
    Ok(Json(detail))
}

/// How to install an uploaded package.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct InstallQuery {
    /// Capabilities to grant, separated by commas.
    #[serde(default)]
    grant: String,
    /// Grant everything that the manifest asks for.
    #[serde(default)]
    grant_all: bool,
    /// Configuration: a JSON object.
    config: Option<String>,
}

/// Install or upgrade a plugin from a package file.
///
/// Refused with the missing capabilities in the detail when the manifest asks for more than is granted.
#[utoipa::path(post, path = "/-/plugins", tag = "plugins",
    params(
        ("grant" = Option<String>, Query, description = "Capabilities to grant, separated by commas"),
        ("grant_all" = Option<bool>, Query, description = "Grant everything that the manifest asks for"),
        ("config" = Option<String>, Query, description = "Configuration: a JSON object"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The package file"),
    responses((status = 201, body = PluginDetail), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn install_plugin(
    State(state): Api,
    Query(query): Query<InstallQuery>,
    body: BodyReader,
) -> Answer<(StatusCode, Json<PluginDetail>)> {
    let config = match query.config {
        None => None,
        Some(text) => Some(serde_json::from_str(&text).map_err(|error| {
            Problem::new(&problem::MALFORMED_REQUEST, format!("the parameter `config` is no JSON: {error}"))
        })?),
    };
    let folder = &state.scratch_folder;
    let file = tempfile::Builder::new()
        .prefix("mainstay-package-")
        .suffix(".tar.zst")
        .tempfile_in(folder)
        .map_err(|error| Error::io("create a file for the uploaded package in", folder, error))?;
    let handle = file.reopen().map_err(|error| Error::io("open", file.path(), error))?;
    body.save(handle).await?;
    let grants = query.grant.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let upload = InstallUpload { file: file.path().to_owned(), grants, grant_all: query.grant_all, config };
    Ok((StatusCode::CREATED, Json(state.admin.install(upload).await?)))
}

/// Replace a plugin's configuration and restart it.
#[utoipa::path(put, path = "/-/plugins/{name}/config", tag = "plugins", params(("name" = String, Path, description = "The plugin's name")),
    request_body(content = Object, description = "The configuration, as the plugin's schema says"),
    responses((status = 200, body = PluginDetail), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn configure_plugin(State(state): Api, Path(name): Path<String>, body: BodyReader) -> Answer<Json<PluginDetail>> {
    let config = body.json(&state.limits).await?;
    Ok(Json(state.admin.configure(&name, config).await?))
}

/// Stop a plugin and remove it. Its data stays.
#[utoipa::path(delete, path = "/-/plugins/{name}", tag = "plugins", params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn remove_plugin(State(state): Api, Path(name): Path<String>) -> Answer<StatusCode> {
    state.admin.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The tokens, by name. The tokens themselves are not kept.
#[utoipa::path(get, path = "/-/tokens", tag = "tokens",
    responses((status = 200, body = Vec<TokenInfo>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn list_tokens(State(state): Api) -> Json<Vec<TokenInfo>> {
    Json(state.tokens.list())
}

/// A token to make.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenOrder {
    /// Its name: 1 to 64 letters, digits, `-`, `_`, `.` or `@`.
    name: String,
    /// What its holder may do.
    role: Role,
    /// When it ends, milliseconds since 1970-01-01 UTC; never, if not given.
    #[serde(default)]
    expires_ms: Option<i64>,
}

/// Make a token. The answer is the only place where it is shown.
#[utoipa::path(post, path = "/-/tokens", tag = "tokens", request_body = TokenOrder,
    responses((status = 201, body = NewToken), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn create_token(State(state): Api, body: BodyReader) -> Answer<(StatusCode, Json<NewToken>)> {
    let order: TokenOrder = body.json(&state.limits).await?;
    Ok((StatusCode::CREATED, Json(state.tokens.create(&order.name, order.role, order.expires_ms).await?)))
}

/// End a token at once.
#[utoipa::path(delete, path = "/-/tokens/{name}", tag = "tokens", params(("name" = String, Path, description = "The token's name")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn revoke_token(State(state): Api, Path(name): Path<String>) -> Answer<StatusCode> {
    state.tokens.revoke(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove blobs that nothing refers to and whose grace time is over.
#[utoipa::path(post, path = "/-/blobs/gc", tag = "blobs",
    responses((status = 200, body = BlobSweep), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn collect_garbage(State(state): Api) -> Answer<Json<BlobSweep>> {
    Ok(Json(state.admin.collect_garbage().await?))
}

/// A kind of problem that this host may answer with.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemKind {
    /// Its type.
    #[serde(rename = "type")]
    kind: String,
    /// The status it comes with.
    status: u16,
    /// Its `error_code`.
    error_code: &'static str,
    /// What it means.
    title: &'static str,
    /// What to do.
    remedy: &'static str,
}

impl From<&problem::Kind> for ProblemKind {
    fn from(kind: &problem::Kind) -> ProblemKind {
        let path = format!("/-/problems/{}", kind.slug);
        ProblemKind { kind: path, status: kind.status, error_code: kind.code, title: kind.title, remedy: kind.remedy }
    }
}

/// Every kind of problem, and what to do about it.
#[utoipa::path(get, path = "/-/problems", tag = "host", responses((status = 200, body = Vec<ProblemKind>)))]
async fn list_problems() -> Json<Vec<ProblemKind>> {
    Json(KINDS.iter().map(|kind| ProblemKind::from(*kind)).collect())
}

/// One kind of problem: where a problem's `type` leads.
#[utoipa::path(get, path = "/-/problems/{slug}", tag = "host", params(("slug" = String, Path, description = "End of the type")),
    responses((status = 200, body = ProblemKind), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
async fn problem_info(Path(slug): Path<String>) -> Answer<Json<ProblemKind>> {
    let kind = KINDS.iter().find(|kind| kind.slug == slug);
    let kind = kind
        .ok_or_else(|| Error::not_found(format!("there is no kind of problem `{slug}`; `/-/problems` lists them")))?;
    Ok(Json(ProblemKind::from(*kind)))
}

/// This description.
#[utoipa::path(get, path = "/-/openapi.json", tag = "host", responses((status = 200, body = Object)))]
async fn openapi() -> Response<axum::body::Body> {
    let mut response = Response::new(axum::body::Body::from(crate::openapi::openapi_json()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
#[allow(dead_code)]
fn describe_healthz() {}

/// Whether the host can take work: every plugin runs, and it is not draining.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = ReadyReport), (status = 503, description = "Not ready", body = ReadyReport)))]
#[allow(dead_code)]
fn describe_readyz() {}

/// All metrics, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
#[allow(dead_code)]
fn describe_metrics() {}

/// The folder must be there before the first upload.
pub(crate) fn prepare_scratch(folder: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io("create the folder", folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_needs_admin_and_what_reads_needs_read() {
        #[track_caller]
        fn check(method: Method, path: &str, expect: Right) {
            assert_eq!(right_of(HostRoute::of(path).unwrap(), &method, path), expect, "{method} {path}");
        }
        check(Method::GET, "/healthz", Right::None);
        check(Method::GET, "/readyz", Right::None);
        check(Method::GET, "/metrics", Right::Read);
        check(Method::GET, "/-/openapi.json", Right::None);
        check(Method::GET, "/-/problems/not-found", Right::None);
        check(Method::POST, "/-/problems", Right::Admin);
        check(Method::GET, "/-/plugins", Right::Read);
        check(Method::POST, "/-/plugins", Right::Admin);
        check(Method::DELETE, "/-/plugins/x", Right::Admin);
        check(Method::GET, "/-/tokens", Right::Admin);
        check(Method::GET, "/-/tokens/x", Right::Admin);
        check(Method::POST, "/-/sql", Right::Read);
        check(Method::POST, "/-/predictions/x", Right::Write);
        check(Method::POST, "/-/outcomes/x", Right::Write);
        check(Method::PUT, "/-/predictions/x", Right::Admin);
        check(Method::GET, "/-/predictions/x/labelled", Right::Read);
        check(Method::DELETE, "/-/tables/x", Right::Admin);
        check(Method::GET, "/-/tables/x", Right::Read);
        check(Method::GET, "/-/events/x", Right::Admin);
        check(Method::GET, "/-/jobs", Right::Admin);
        check(Method::GET, "/-/runs/x/log", Right::Admin);
        check(Method::GET, "/-/pools", Right::Admin);
        check(Method::POST, "/-/blobs/gc", Right::Admin);
        check(Method::GET, "/-/anything-new", Right::Read);
        check(Method::TRACE, "/-/anything-new", Right::Admin);
        assert_eq!(HostRoute::of("/health"), None);
        assert_eq!(HostRoute::of("/-"), None);
    }
}
