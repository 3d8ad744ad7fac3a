//! The Open Inference Protocol over gRPC, as its caller.
//!
//! Owns requests and answers through the generated client over tonic's channels. Separate from HTTP/1.1, because here requests
//! share connections: there are a few, the one with the least under way is used, and one that was lost is made again by its
//! channel. A connection that has gone silent (so many requests in a row without any answer) is replaced, because a lost route
//! is noticed by nobody else.
//!
//! Bounded by the options: connections, size of an answer; time by the caller, who drops the future, which resets the stream. On
//! failure: [`Stop`].

use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderName, Uri};
use hyper_util::rt::TokioIo;
use mainstay_base::{Error, Result};
use mainstay_inference::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use mainstay_inference::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest, ModelStreamInferResponse,
    ServerReadyRequest,
};
use mainstay_inference::{InferAnswer, InferRequest, ModelMetadata, Parameter, answer_of_message, message_of_request};
use parking_lot::Mutex;
use tonic::codegen::Service;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming, TimeoutExpired};

use crate::address::{Address, Origin};
use crate::ask::{Sent, left};
use crate::counts::{Counts, FailureKind};
use crate::dial::{Connected, Connector};
use crate::failure::Stop;
use crate::limits;
use crate::options::UpstreamOptions;

type Client = GrpcInferenceServiceClient<Channel>;

/// Marks an answer as the last of its stream.
const FINAL: &str = "triton_final_response";
/// How much may be under way to us of one answer, and of all answers on one connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Connections to one server, and what is said on them.
pub(crate) struct Grpc {
    endpoint: Endpoint,
    connector: Arc<Connector>,
    /// Made when they are first used: making one needs a runtime.
    lines: Vec<Mutex<Option<Arc<Line>>>>,
    tenant_header: Option<HeaderName>,
    is_idempotent: bool,
    answer_bytes_max: usize,
    counts: Arc<Counts>,
}

/// One connection, and those that come after it.
struct Line {
    client: Client,
    in_flight: AtomicUsize,
    /// Requests that ended without an answer since the last that had one.
    silent: AtomicU32,
    /// Whether it answered since it was last lost.
    has_answered: AtomicBool,
}

/// A line in use, until this is dropped.
struct Using {
    line: Arc<Line>,
    /// Whether anything came, be it that it cannot answer.
    is_told: bool,
}

impl Using {
    fn answered(&mut self) {
        self.is_told = true;
        self.line.silent.store(0, Relaxed);
        self.line.has_answered.store(true, Relaxed);
    }

    /// It was lost, and will be made again. Whether it had answered before.
    fn lost(&mut self) -> bool {
        self.is_told = true;
        self.line.has_answered.swap(false, Relaxed)
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.line.in_flight.fetch_sub(1, Relaxed);
        if !self.is_told {
            self.line.silent.fetch_add(1, Relaxed);
        }
    }
}

impl Grpc {
    pub fn new(connector: Connector, origin: &Origin, options: &UpstreamOptions, counts: Arc<Counts>) -> Result<Grpc> {
        let bad =
            |error: &dyn fmt::Display| Error::invalid(format!("`{origin}` cannot be named in a request: {error}"));
        let scheme = if origin.is_tls { "https" } else { "http" };
        let named = format!("{scheme}://{}", origin.host_header());
        let named = Uri::try_from(named).map_err(|error| bad(&error))?;
        // TLS is ours; the channel sees a connection as it is.
        let endpoint = Endpoint::from_shared(format!("http://{}", origin.authority())).map_err(|error| bad(&error))?;
        let endpoint = endpoint
            .origin(named)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Grpc {
            endpoint,
            connector: Arc::new(connector),
            lines: (0..options.grpc_connections).map(|_| Mutex::default()).collect(),
            tenant_header: options.tenant_header()?,
            is_idempotent: options.is_idempotent,
            answer_bytes_max: options.answer_bytes_max,
            counts,
        })
    }

    /// One answer.
    pub async fn infer(&self, at: &Address, request: &InferRequest, sent: &Sent<'_>) -> Result<InferAnswer, Stop> {
        let message = message(at, request);
        let asked = self.ask(at, |mut client| {
            let request = self.request(message.clone(), sent);
            async move { client.model_infer(request).await }
        });
        let (answered, _using) = asked.await?;
        read(at, request.id.as_deref(), answered)
    }

    /// Answers in parts, as they come.
    pub async fn stream(
        &self,
        at: &Arc<Address>,
        request: &InferRequest,
        sent: &Sent<'_>,
    ) -> Result<BoxStream<'static, Result<InferAnswer, Stop>>, Stop> {
        let message = message(at, request);
        let asked = self.ask(at, |mut client| {
            // One request, and then the side of the caller is closed: the server ends when it has answered.
            let only = self.request(stream::iter([message.clone()]), sent);
            async move { client.model_stream_infer(only).await }
        });
        let (answers, using) = asked.await?;
        let parts = Parts {
            at: at.clone(),
            id: request.id.clone(),
            answers,
            _using: using,
            is_idempotent: self.is_idempotent,
            answer_bytes_max: self.answer_bytes_max,
            has_begun: false,
        };
        Ok(stream::unfold(Some(parts), |parts| async move { parts?.next().await }).fuse().boxed())
    }

    /// Whether the model can answer, or the server where the address names no model.
    pub async fn ready(&self, at: &Address) -> Result<(), Stop> {
        let is_ready = match &at.model {
            None => {
                let asked = self.ask(at, |mut client| async move { client.server_ready(ServerReadyRequest {}).await });
                asked.await?.0.ready
            }
            Some(model) => {
                let version = at.version.as_deref().unwrap_or_default();
                let message = ModelReadyRequest { name: model.to_string(), version: version.to_owned() };
                let asked = self.ask(at, |mut client| {
                    let message = message.clone();
                    async move { client.model_ready(message).await }
                });
                asked.await?.0.ready
            }
        };
        if is_ready { Ok(()) } else { Err(Stop::not_ready(&at.url, "")) }
    }

    /// What a model takes and gives.
    pub async fn metadata(&self, at: &Address, model: &str, version: Option<&str>) -> Result<ModelMetadata, Stop> {
        let version = version.unwrap_or_default().to_owned();
        let message = ModelMetadataRequest { name: model.to_owned(), version };
        let asked = self.ask(at, |mut client| {
            let message = message.clone();
            async move { client.model_metadata(message).await }
        });
        Ok(asked.await?.0)
    }

    fn request<T>(&self, message: T, sent: &Sent<'_>) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(left(sent.deadline));
        let metadata = request.metadata_mut();
        if let Some(trace) = sent.trace().and_then(|trace| MetadataValue::try_from(trace.as_bytes()).ok()) {
            metadata.insert("traceparent", trace);
        }
        if let (Some(name), Some(tenant)) = (&self.tenant_header, sent.tenant())
            && let (Ok(name), Ok(tenant)) =
                (AsciiMetadataKey::from_bytes(name.as_ref()), MetadataValue::try_from(tenant.as_bytes()))
        {
            metadata.insert(name, tenant);
        }
        request
    }

    /// Ask on the line with the least under way; again, once, where a line that had answered was lost.
    async fn ask<T, F>(&self, at: &Address, call: impl Fn(Client) -> F) -> Result<(T, Using), Stop>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut is_resent = false;
        loop {
            let mut using = self.line();
            let status = match call(using.line.client.clone()).await {
                Ok(answered) => {
                    using.answered();
                    return Ok((answered.into_inner(), using));
                }
                Err(status) => status,
            };
            let stop = self.judge(at, &status, false);
            if !is_ours(&status) {
                using.answered();
                return Err(stop);
            }
            if stop.kind == FailureKind::Late {
                return Err(stop);
            }
            let was_kept = using.lost();
            if is_resent || stop.kind != FailureKind::Reset || !was_kept || !self.is_idempotent {
                return Err(stop);
            }
            self.counts.resent();
            is_resent = true;
        }
    }

    fn judge(&self, at: &Address, status: &Status, has_begun: bool) -> Stop {
        judge(&at.url, status, has_begun, self.is_idempotent, self.answer_bytes_max)
    }

    /// The line with the least under way, counted as in use.
    fn line(&self) -> Using {
        let lines = self.lines.iter().map(|line| {
            let mut line = line.lock();
            let is_dead = line.as_ref().is_some_and(|line| line.silent.load(Relaxed) >= limits::GRPC_SILENCE_MAX);
            if is_dead {
                *line = None;
            }
            line.get_or_insert_with(|| self.open()).clone()
        });
        let line = lines.min_by_key(|line| line.in_flight.load(Relaxed)).expect("there is one line at least");
        line.in_flight.fetch_add(1, Relaxed);
        Using { line, is_told: false }
    }

    fn open(&self) -> Arc<Line> {
        let channel = self.endpoint.connect_with_connector_lazy(Dialer(self.connector.clone()));
        let client = Client::new(channel)
            .max_decoding_message_size(self.answer_bytes_max)
            // How large a request may be was decided before.
            .max_encoding_message_size(usize::MAX);
        Arc::new(Line {
            client,
            in_flight: AtomicUsize::new(0),
            silent: AtomicU32::new(0),
            has_answered: AtomicBool::new(false),
        })
    }
}

/// The message of a request, for the model that the address names.
fn message(at: &Address, request: &InferRequest) -> ModelInferRequest {
    let (model, version) = at.target(&request.model, request.version.as_deref());
    let (model_name, model_version) = (model.to_owned(), version.unwrap_or_default().to_owned());
    ModelInferRequest { model_name, model_version, ..message_of_request(request) }
}

/// Whether a status was made on this side: the transport failed, and the upstream said nothing.
fn is_ours(status: &Status) -> bool {
    status.source().is_some()
}

fn judge(url: &str, status: &Status, has_begun: bool, is_idempotent: bool, answer_bytes_max: usize) -> Stop {
    let Some(source) = status.source() else {
        // The reader of messages has no other mark for it.
        let is_too_large = status.code() == Code::OutOfRange && status.message().contains("message length too large");
        return match is_too_large {
            true => Stop::too_large(url, "an answer", answer_bytes_max),
            false => Stop::of_grpc(url, status),
        };
    };
    let mut cause = source;
    loop {
        if let Some(NotConnected(error)) = cause.downcast_ref::<NotConnected>() {
            return Stop::unreachable(error.clone());
        }
        if cause.is::<TimeoutExpired>() {
            return Stop::late(url);
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    let why = cause.to_string();
    match status.code() {
        _ if has_begun => Stop::cut_off(url, &why),
        // What came is not HTTP/2, or breaks its rules.
        Code::Internal => Stop::unreadable(url, why),
        _ => Stop::reset(url, &why, is_idempotent),
    }
}

/// Reads a message, and whether it answers this request.
fn read(at: &Address, id: Option<&str>, message: ModelInferResponse) -> Result<InferAnswer, Stop> {
    let (answered, answer) = answer_of_message(message).map_err(|error| Stop::unreadable(&at.url, error))?;
    if let (Some(asked), Some(answered)) = (id, answered.as_deref())
        && asked != answered
    {
        return Err(Stop::unreadable(&at.url, "it is the answer to another request, by its id"));
    }
    // Byte strings are framed within their tensor, and only a look tells whether the frames add up.
    let misfit = answer.outputs.iter().find_map(|output| output.check().err());
    misfit.map_or(Ok(answer), |error| Err(Stop::unreadable(&at.url, error)))
}

/// A stream of answers under way.
struct Parts {
    at: Arc<Address>,
    id: Option<String>,
    answers: Streaming<ModelStreamInferResponse>,
    _using: Using,
    is_idempotent: bool,
    answer_bytes_max: usize,
    has_begun: bool,
}

type Step = Option<(Result<InferAnswer, Stop>, Option<Parts>)>;

impl Parts {
    /// The next answer, and what follows.
    async fn next(mut self) -> Step {
        let message = match self.answers.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return None,
            Err(status) => {
                let Parts { at, has_begun, is_idempotent, answer_bytes_max, .. } = self;
                return last(judge(&at.url, &status, has_begun, is_idempotent, answer_bytes_max));
            }
        };
        self.has_begun = true;
        let ModelStreamInferResponse { error_message, infer_response } = message;
        if !error_message.is_empty() {
            return last(Stop::in_band(&self.at.url, &error_message));
        }
        match read(&self.at, self.id.as_deref(), infer_response.unwrap_or_default()) {
            Err(stop) => last(stop),
            Ok(mut answer) => {
                let is_final = answer.parameter(FINAL) == Some(&Parameter::Bool(true));
                answer.parameters.retain(|(name, _)| name != FINAL);
                match (is_final, answer.outputs.is_empty()) {
                    (true, true) => None,
                    (true, false) => Some((Ok(answer), None)),
                    (false, _) => Some((Ok(answer), Some(self))),
                }
            }
        }
    }
}

fn last(stop: Stop) -> Step {
    Some((Err(stop), None))
}

/// Makes the connections of a channel.
#[derive(Clone)]
struct Dialer(Arc<Connector>);

impl Service<Uri> for Dialer {
    type Response = TokioIo<Connected>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new).map_err(NotConnected) })
    }
}

/// Why there is no connection, through the channel.
#[derive(Debug)]
struct NotConnected(Error);

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotConnected {}
