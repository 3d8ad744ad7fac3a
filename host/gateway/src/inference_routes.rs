//! The Open Inference Protocol at `/v2`, and over gRPC.
//!
//! Owns who may ask ([`Asker`]) and what HTTP adds to the protocol's own answers: reading bodies within the host's bounds, a
//! refusal's status, when to come again. Separate from the protocol itself, which `mainstay-inference` speaks, and from who
//! answers.
//!
//! Asking needs the right `read`, loading and unloading `admin`. Whoever has `admin` may also inject faults by header.
//! Bounded by the limit of bodies of this protocol and the pace of all. On failure: `{"error": …}`, as its clients expect.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use mainstay_base::Error;
use mainstay_inference::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use mainstay_inference::{Asker, Front, Grpc, Limits, Models, Trace};
use mainstay_traffic::Refused;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use crate::body::{AnswerBody, BodyFault, InboundBody};
use crate::connection::Watch;
use crate::options::GatewayLimits;
use crate::problem::Problem;
use crate::routes::Right;
use crate::server::Shared;
use crate::tokens::Identity;
use crate::trace::TraceContext;

/// The protocol's fronts over these models.
pub(crate) struct Inference {
    front: Front,
    models: Arc<dyn Models>,
    limits: Limits,
}

impl Inference {
    pub(crate) fn new(models: Arc<dyn Models>, limits: &GatewayLimits) -> Inference {
        let limits = Limits { body_bytes: limits.inference_body_bytes_max };
        Inference { front: Front::new(models.clone(), limits), models, limits }
    }

    /// The gRPC service for callers that are admitted.
    pub(crate) fn service(&self, shared: Arc<Shared>) -> InterceptedService<GrpcInferenceServiceServer<Grpc>, Admit> {
        InterceptedService::new(Grpc::service(self.models.clone(), self.limits), Admit(shared))
    }
}

/// Answer one request below `/v2`.
pub(crate) async fn answer(
    shared: &Shared,
    watch: &Watch,
    parts: &Parts,
    incoming: Incoming,
    trace: TraceContext,
) -> Response<AnswerBody> {
    let limits = &shared.options.limits;
    let mut body = InboundBody::new(incoming, limits.inference_body_bytes_max as u64, limits);
    let admitted = shared
        .check_load()
        .and_then(|()| shared.auth.admit(&parts.method, &parts.headers, watch.peer.ip(), Right::Read));
    let identity = match admitted {
        Ok(identity) => identity,
        Err(problem) => return refused(shared, &mut body, problem).await,
    };
    // Of a body that does not say how long it is, room for the longest.
    let length = body.announced_bytes().unwrap_or(limits.inference_body_bytes_max as u64);
    let collected = match shared.room(length.min(limits.inference_body_bytes_max as u64)).await {
        Ok(room) => {
            body.collect(limits.inline_body_timeout).await.map(|bytes| (bytes, room)).map_err(BodyFault::problem)
        }
        Err(problem) => Err(problem),
    };
    let (bytes, _room) = match collected {
        Ok(collected) => collected,
        Err(problem) => return refused(shared, &mut body, problem).await,
    };
    let mut request = Request::new(Full::new(bytes));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    let trace = Trace { trace_id: trace.trace_id, span_id: trace.span_id, sampled: trace.sampled };
    let mut response = shared.inference.front.answer(request, Asker { trace: Some(trace), ..asker(&identity) }).await;
    let refusal =
        response.extensions().get::<Error>().and_then(refusal).map(|refused| (refused.status, refused.retry_after));
    if let Some((status, retry_after)) = refusal {
        if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
            *response.status_mut() = status;
        }
        if let Some(after) = retry_after {
            let seconds = after.as_millis().div_ceil(1_000).max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds as u64));
        }
    }
    response.map(|body| AnswerBody::axum(axum::body::Body::new(body)))
}

/// The refusal of traffic that an error was made of.
fn refusal(error: &Error) -> Option<&Refused> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

fn asker(identity: &Identity) -> Asker {
    Asker {
        tenant: Some(identity.caller.tenant.as_str().into()),
        is_operator: identity.right >= Right::Admin,
        ..Asker::default()
    }
}

/// A problem of the host's, in the words of this protocol.
async fn refused(shared: &Shared, body: &mut InboundBody, problem: Problem) -> Response<AnswerBody> {
    if !body.is_end() {
        body.discard(&shared.options.limits).await;
    }
    let told = serde_json::json!({ "error": problem.detail() }).to_string();
    let mut response = problem.into_response(None, None).map(|_| AnswerBody::full(Bytes::from(told)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Lets calls in over gRPC, and says to the service who asks.
#[derive(Clone)]
pub(crate) struct Admit(Arc<Shared>);

impl Interceptor for Admit {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let headers = request.metadata().clone().into_headers();
        let identity = self.0.auth.admit_call(&headers, peer, Right::Read).map_err(|problem| {
            let code = if problem.status() == StatusCode::UNAUTHORIZED.as_u16() {
                Code::Unauthenticated
            } else {
                Code::PermissionDenied
            };
            Status::new(code, problem.detail().to_owned())
        })?;
        request.extensions_mut().insert(asker(&identity));
        Ok(request)
    }
}
