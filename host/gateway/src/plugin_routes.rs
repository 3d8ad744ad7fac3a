//! A request into a plugin, and the plugin's answer out.
//!
//! Owns the three ways of a body: read before the call (small), stored between two calls (`receive`), sent from the blob
//! store (`send`). In none of them does a plugin instance wait for a client. Separate from [`crate::exchange`], which knows
//! nothing of bodies.
//!
//! Bounded by the route's inline limit, the budget of buffered bytes and the answer timeout. On failure of the plugin: a
//! problem document whose status follows the kind; what is permanent is never 429, 502, 503 or 504.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use mainstay_base::ErrorKind;
use mainstay_interfaces::{CallError, CallResult, HttpReply, HttpRequest, RequestBody};
use tokio::sync::SemaphorePermit;
use tracing::Instrument;

use crate::body::{AnswerBody, InboundBody};
use crate::connection::Watch;
use crate::problem::{self, Problem};
use crate::routes::{Claim, Rule};
use crate::server::Shared;
use crate::tokens::Identity;
use crate::trace::TraceContext;
use crate::{download, path, upload};

/// The budget of buffered bodies is counted in these.
pub(crate) const BUDGET_UNIT_BYTES: u64 = 1 << 10;
/// How long a request waits for room in that budget.
pub(crate) const BUDGET_WAIT: Duration = Duration::from_secs(5);

/// Headers that are between two neighbours on the way and never go further.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that plugins never see.
const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// A request whose caller may use this route.
pub(crate) struct Admitted<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) watch: &'a Watch,
    pub(crate) claim: &'a Claim,
    pub(crate) rule: &'a Rule,
    /// The method that the plugin sees.
    pub(crate) method: Method,
    /// The path that the plugin sees.
    pub(crate) path: &'a str,
    pub(crate) identity: &'a Identity,
    pub(crate) trace: TraceContext,
    pub(crate) parts: &'a Parts,
}

impl Admitted<'_> {
    /// Answer it.
    pub(crate) async fn answer(&self, incoming: Incoming) -> Response<AnswerBody> {
        let mut body = InboundBody::new(incoming, u64::MAX, &self.shared.options.limits);
        let mut response = match self.call(&mut body).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(Some(&self.claim.plugin), Some(self.trace.trace_id_hex())),
        };
        if !body.is_end() && !self.finish_body(&mut body).await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.parts.method == Method::HEAD {
            strip_body(&mut response);
        }
        response
    }

    /// Whether the rest of an unwanted body is out of the way. A client that waits for `100 Continue` has not sent it.
    async fn finish_body(&self, body: &mut InboundBody) -> bool {
        !self.parts.headers.contains_key(EXPECT) && body.discard(&self.shared.options.limits).await
    }

    async fn call(&self, body: &mut InboundBody) -> Result<Response<AnswerBody>, Problem> {
        if let Some(reason) = self.claim.target.not_running() {
            let name = &self.claim.plugin;
            let words = format!("the plugin `{name}` answers here, but does not run: {reason}");
            return Err(Problem::new(&problem::NOT_RUNNING, words));
        }
        let announced_bytes = body.announced_bytes();
        let (request_body, _room) = self.inline_body(body, announced_bytes).await?;
        let request = self.request(request_body)?;
        // A plugin may want even a small body stored.
        let read = match &request.body {
            RequestBody::Bytes(bytes) => Some(bytes.clone()),
            RequestBody::Empty => Some(Bytes::new()),
            RequestBody::Waiting(_) => None,
        };
        let reply = self.in_time("handle", self.claim.target.handle(request)).await?;
        let HttpReply::Receive { limit_bytes, sha256 } = reply else { return self.reply(reply).await };
        let blobs = &self.shared.blobs;
        let stored = match read {
            Some(bytes) => upload::store_bytes(blobs, bytes, limit_bytes, sha256).await?,
            None => upload::store(blobs, body, announced_bytes, limit_bytes, sha256).await?,
        };
        let again = self.request(RequestBody::Empty)?;
        let reply = self.in_time("received", self.claim.target.received(again, stored)).await?;
        if matches!(reply, HttpReply::Receive { .. }) {
            return Err(Problem::new(
                &problem::PLUGIN_FAULT,
                format!("the plugin `{}` asked for the body a second time; report it to its author", self.claim.plugin),
            ));
        }
        self.reply(reply).await
    }

    /// The body as the plugin sees it, and the room that it takes among buffered bodies.
    async fn inline_body(
        &self,
        body: &mut InboundBody,
        announced_bytes: Option<u64>,
    ) -> Result<(RequestBody, Option<SemaphorePermit<'_>>), Problem> {
        if body.is_end() {
            return Ok((RequestBody::Empty, None));
        }
        let limits = &self.shared.options.limits;
        let inline_bytes = self.rule.inline_body_bytes.min(limits.buffered_bytes_max as u64);
        let Some(length) = announced_bytes.filter(|length| *length <= inline_bytes) else {
            return Ok((RequestBody::Waiting(announced_bytes), None));
        };
        let room = self.shared.room(length).await?;
        body.limit(length);
        let bytes = body.collect(limits.inline_body_timeout).await.map_err(|fault| fault.problem())?;
        Ok((RequestBody::Bytes(bytes), Some(room)))
    }

    fn request(&self, body: RequestBody) -> Result<HttpRequest, Problem> {
        let query = path::query_pairs(self.parts.uri.query())
            .map_err(|fault| Problem::new(&problem::MALFORMED_PATH, format!("the query cannot be used: {fault}")))?;
        let headers = self.parts.headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok().filter(|_| !SECRET.contains(&name.as_str()))?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        Ok(HttpRequest {
            method: self.method.as_str().to_owned(),
            path: self.path.to_owned(),
            query,
            headers: headers.collect(),
            body,
            caller: self.identity.caller.clone(),
            base_url: self.base_url(),
            trace_id: self.trace.trace_id_hex(),
        })
    }

    fn base_url(&self) -> String {
        if let Some(public_url) = &self.shared.options.public_url {
            return public_url.trim_end_matches('/').to_owned();
        }
        let uri = self.parts.uri.authority().map(|authority| authority.as_str());
        let host = uri.or_else(|| self.parts.headers.get(HOST)?.to_str().ok());
        match host {
            Some(host) => format!("http://{host}"),
            None => format!("http://{}", self.watch.local),
        }
    }

    /// One call into the plugin, in a span of its own below the request's.
    async fn in_time(
        &self,
        export: &'static str,
        call: impl Future<Output = CallResult<HttpReply>>,
    ) -> Result<HttpReply, Problem> {
        let span = tracing::info_span!(
            target: "mainstay::request", "plugin", otel.name = tracing::field::Empty, otel.kind = "internal",
            otel.status_code = tracing::field::Empty, error.type = tracing::field::Empty, plugin = &*self.claim.plugin
        );
        if !span.is_disabled() {
            span.record("otel.name", format_args!("{} {export}", self.claim.plugin));
        }
        let limit = self.shared.options.limits.answer_timeout;
        let answer = tokio::time::timeout(limit, call.instrument(span.clone())).await;
        let fault = match &answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.code()),
            Err(_) => Some("timed-out"),
        };
        if let Some(fault) = fault {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", fault);
        }
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(self.failure(error)),
            Err(_) => Err(Problem::new(
                &problem::ANSWER_TIMEOUT,
                format!("the plugin `{}` gave no answer in time; try again later", self.claim.plugin),
            )),
        }
    }

    fn failure(&self, error: CallError) -> Problem {
        let words = error.to_string();
        match error {
            CallError::Failed(own) => match own.kind() {
                ErrorKind::Internal | ErrorKind::Other => Problem::new(&problem::PLUGIN_FAULT, words),
                ErrorKind::Unavailable => {
                    Problem::new(&problem::UNAVAILABLE, words).retry_after(Duration::from_secs(1))
                }
                kind => Problem::new(problem::kind_of(kind), words),
            },
            // The runtime has logged why, with the trace's id.
            CallError::Trap { .. } => Problem::new(&problem::PLUGIN_FAULT, words),
            CallError::TimedOut { .. }
            | CallError::OutOfMemory { .. }
            | CallError::OutputTooLarge { .. }
            | CallError::HostCalls { .. } => Problem::new(&problem::PLUGIN_LIMIT, words),
            CallError::Denied { .. } => Problem::new(&problem::DENIED, words),
            CallError::Busy { .. } => Problem::new(&problem::OVERLOADED, words).retry_after(Duration::from_secs(1)),
            CallError::Quarantined { retry_after_ms, .. } => {
                Problem::new(&problem::UNAVAILABLE, words).retry_after(Duration::from_millis(retry_after_ms))
            }
            CallError::Host(error) => Problem::from(error),
        }
    }

    async fn reply(&self, reply: HttpReply) -> Result<Response<AnswerBody>, Problem> {
        match reply {
            HttpReply::Respond { status, headers, body } => {
                let mut response = Response::new(AnswerBody::full(body));
                *response.status_mut() = self.status(status)?;
                *response.headers_mut() = plugin_headers(headers);
                Ok(response)
            }
            HttpReply::Send { sha256, headers } => {
                let headers = plugin_headers(headers);
                let trace_id = self.trace.trace_id_hex();
                download::send(&self.shared.blobs, &self.parts.method, &self.parts.headers, &sha256, headers, trace_id)
                    .await
            }
            // `call` has taken care of it.
            HttpReply::Receive { .. } => Err(Problem::new(&problem::PLUGIN_FAULT, "the plugin asked for a body twice")),
        }
    }

    fn status(&self, status: u16) -> Result<StatusCode, Problem> {
        StatusCode::from_u16(status).ok().filter(|_| (200..600).contains(&status)).ok_or_else(|| {
            Problem::new(
                &problem::PLUGIN_FAULT,
                format!("the plugin `{}` answered with the status {status}, which is none", self.claim.plugin),
            )
        })
    }
}

/// What a plugin may say in headers: not how the bytes travel.
fn plugin_headers(headers: Vec<(String, String)>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else { continue };
        if name != CONTENT_LENGTH && !HOP_BY_HOP.contains(&name.as_str()) {
            map.append(name, value);
        }
    }
    map
}

/// The answer to HEAD: what GET would say, without the body.
fn strip_body(response: &mut Response<AnswerBody>) {
    use hyper::body::Body;
    let length = response.body().size_hint().exact();
    let has_none = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = length.filter(|_| !has_none && !response.headers().contains_key(CONTENT_LENGTH)) {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = AnswerBody::empty();
}
