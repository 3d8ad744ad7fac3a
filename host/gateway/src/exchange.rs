//! One request from its head to its answer's head. Reads as a story: a place, a clean path, a trace, a route, a caller, the
//! answer, the count.
//!
//! Every refusal here is a problem document. Nothing here reads a body. Dropping the future (the client has gone) drops the
//! call into the plugin with it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use mainstay_base::Random;
use tracing::Instrument;

use crate::body::{AnswerBody, InboundBody};
use crate::connection::{ActiveRequest, Watch};
use crate::host_routes::{self, HostRoute};
use crate::metrics::RouteMeters;
use crate::path;
use crate::plugin_routes::Admitted;
use crate::problem::{self, Problem};
use crate::routes::Claim;
use crate::server::Shared;
use crate::trace::TraceContext;

/// Whose request it was: decides which counters it goes to.
enum Answerer {
    Plugin(Arc<Claim>),
    Host(HostRoute),
    Nobody,
}

/// Answer one request of a connection.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let began = Instant::now();
    let active = ActiveRequest::begin(watch.clone(), shared.metrics.in_flight.clone());
    let (parts, body) = request.into_parts();
    let (trace, span) = begin_trace(&shared, &watch, &parts);
    let (answerer, mut response) = route(&shared, &watch, &parts, body, trace).instrument(span).await;
    if shared.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if parts.headers.contains_key("traceparent")
        && let Ok(value) = HeaderValue::try_from(trace.to_string())
    {
        response.headers_mut().insert(HeaderName::from_static("traceresponse"), value);
    }
    let took = began.elapsed();
    let status = response.status().as_u16();
    meters(&shared, &answerer).answered(&parts.method, status, took);
    tracing::debug!(
        target: "mainstay::access",
        method = %parts.method, uri = %parts.uri, status, took_us = took.as_micros() as u64, peer = %watch.peer,
        trace_id = %trace.trace_id_hex(), "answered"
    );
    Ok(response.map(|body| body.holding(active)))
}

/// The request's span, by OpenTelemetry's conventions for HTTP servers; its name gains the route once that is known.
fn begin_trace(shared: &Shared, watch: &Watch, parts: &Parts) -> (TraceContext, tracing::Span) {
    let parent = TraceContext::from_headers(&parts.headers);
    let random = || shared.ids.number();
    // Zero is no id.
    let span_id = random().max(1);
    let trace_id =
        parent.map_or_else(|| (u128::from(random()) << 64 | u128::from(random())).max(1), |parent| parent.trace_id);
    let made = TraceContext { trace_id, span_id, sampled: parent.is_some_and(|parent| parent.sampled) };
    let span = tracing::info_span!(
        target: "mainstay::request", "request",
        otel.name = span_method(&parts.method), otel.kind = "server", otel.status_code = tracing::field::Empty,
        http.request.method = known_method(&parts.method), http.request.method_original = tracing::field::Empty,
        url.scheme = "http", url.path = parts.uri.path(), client.address = %watch.peer.ip(),
        http.route = tracing::field::Empty, plugin = tracing::field::Empty,
        http.response.status_code = tracing::field::Empty, error.type = tracing::field::Empty
    );
    if !span.is_disabled() && known_method(&parts.method) != parts.method.as_str() {
        span.record("http.request.method_original", parts.method.as_str());
    }
    let recorded = shared.trace_hook.as_ref().filter(|_| !span.is_disabled()).and_then(|hook| {
        let state = parts.headers.get("tracestate").and_then(|value| value.to_str().ok());
        hook.begin(&span, parent, state)
    });
    (recorded.unwrap_or(made), span)
}

async fn route(
    shared: &Arc<Shared>,
    watch: &Watch,
    parts: &Parts,
    body: Incoming,
    trace: TraceContext,
) -> (Answerer, Response<AnswerBody>) {
    let (answerer, response) = route_inner(shared, watch, parts, body, trace).await;
    let span = tracing::Span::current();
    if !span.is_disabled() {
        record_answer(shared, &span, &parts.method, &answerer, response.status());
    }
    (answerer, response)
}

fn record_answer(shared: &Shared, span: &tracing::Span, method: &Method, answerer: &Answerer, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    let route = match answerer {
        Answerer::Plugin(claim) => {
            span.record("plugin", &*claim.plugin);
            Some(claim.pattern.as_str())
        }
        Answerer::Host(route) => Some(route.pattern()),
        Answerer::Nobody => None,
    };
    if let Some(route) = route {
        span.record("http.route", route);
        let name = format!("{} {route}", span_method(method));
        span.record("otel.name", &name);
        if let Some(hook) = &shared.trace_hook {
            hook.rename(span, &name);
        }
    }
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
}

/// The method, or `_OTHER` for one that the conventions do not know: clients must not be able to make up names.
fn known_method(method: &Method) -> &str {
    match method.as_str() {
        known @ ("CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE") => known,
        _ => "_OTHER",
    }
}

/// How a span's name begins.
fn span_method(method: &Method) -> &str {
    match known_method(method) {
        "_OTHER" => "HTTP",
        known => known,
    }
}

async fn route_inner(
    shared: &Arc<Shared>,
    watch: &Watch,
    parts: &Parts,
    body: Incoming,
    trace: TraceContext,
) -> (Answerer, Response<AnswerBody>) {
    let clean = match clean_path(shared, parts) {
        Ok(clean) => clean,
        Err(problem) => return (Answerer::Nobody, refuse(shared, parts, body, trace, None, problem).await),
    };
    if let Some(route) = HostRoute::of(&clean) {
        return (Answerer::Host(route), host_routes::answer(shared, watch, route, &clean, parts, body, trace).await);
    }
    if let Err(problem) = shared.check_load() {
        return (Answerer::Nobody, refuse(shared, parts, body, trace, None, problem).await);
    }
    let Some((claim, relative)) = shared.routes.find(&clean) else {
        let problem = unrouted(shared, watch, parts, &clean);
        return (Answerer::Nobody, refuse(shared, parts, body, trace, None, problem).await);
    };
    let Some((rule, method)) = claim.rule(&parts.method) else {
        let problem = Problem::new(
            &problem::METHOD,
            format!("`{clean}` does not take {}; it takes {}", parts.method, claim.allow.to_str().unwrap_or_default()),
        )
        .header(ALLOW, claim.allow.clone());
        let response = refuse(shared, parts, body, trace, Some(&claim.plugin), problem).await;
        return (Answerer::Plugin(claim), response);
    };
    let identity = match shared.auth.admit(&parts.method, &parts.headers, watch.peer.ip(), rule.right) {
        Ok(identity) => identity,
        Err(problem) => {
            let response = refuse(shared, parts, body, trace, Some(&claim.plugin), problem).await;
            return (Answerer::Plugin(claim), response);
        }
    };
    let admitted =
        Admitted { shared, watch, claim: &claim, rule, method, path: relative, identity: &identity, trace, parts };
    let response = admitted.answer(body).await;
    (Answerer::Plugin(claim), response)
}

fn clean_path<'p>(shared: &Shared, parts: &'p Parts) -> Result<std::borrow::Cow<'p, str>, Problem> {
    let length = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let limit = shared.options.limits.uri_bytes_max;
    if length > limit {
        return Err(Problem::new(
            &problem::URI_TOO_LONG,
            format!("the path and query have {length} bytes, the limit is {limit}; send long arguments in the body"),
        ));
    }
    path::clean_path(parts.uri.path())
        .map_err(|fault| Problem::new(&problem::MALFORMED_PATH, format!("the path cannot be used: {fault}")))
}

/// Who may not even look is not told what is there.
fn unrouted(shared: &Shared, watch: &Watch, parts: &Parts, clean: &str) -> Problem {
    let needs = crate::routes::Right::Read;
    match shared.auth.admit(&parts.method, &parts.headers, watch.peer.ip(), needs) {
        Err(problem) => problem,
        Ok(_) => {
            Problem::new(&problem::NOT_FOUND, format!("no plugin claims `{clean}`; `/-/plugins` lists what there is"))
                .code("ENDPOINT_NOT_FOUND")
        }
    }
}

/// Answer with a problem, and get the body that nobody wants out of the way.
pub(crate) async fn refuse(
    shared: &Shared,
    parts: &Parts,
    body: Incoming,
    trace: TraceContext,
    plugin: Option<&str>,
    problem: Problem,
) -> Response<AnswerBody> {
    let mut response = problem.into_response(plugin, Some(trace.trace_id_hex()));
    if !body.is_end_stream() {
        let mut body = InboundBody::new(body, u64::MAX, &shared.options.limits);
        let waits = parts.headers.contains_key(http::header::EXPECT);
        if waits || !body.discard(&shared.options.limits).await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    if parts.method == Method::HEAD {
        *response.body_mut() = AnswerBody::empty();
    }
    response
}

fn meters<'a>(shared: &'a Shared, answerer: &'a Answerer) -> &'a RouteMeters {
    match answerer {
        Answerer::Plugin(claim) => claim.meters.get_or_init(|| shared.metrics.route(&claim.plugin, &claim.pattern)),
        Answerer::Host(route) => shared.host_meters.of(*route),
        Answerer::Nobody => &shared.host_meters.unrouted,
    }
}

/// So that a busy host says so at once instead of later: how long to stay away.
pub(crate) const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);
