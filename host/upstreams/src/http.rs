//! The Open Inference Protocol over HTTP/1.1, as its caller.
//!
//! Owns requests and answers on pooled connections: binary tensors both ways, streams of `generate_stream` event by event.
//! Separate from the pool, which knows nothing of what is said. A connection that was kept may have been closed by the server just
//! now; what is sent on such a one is sent again, once, on a fresh one. Redirects and upgrades are not followed, nothing is asked
//! to be compressed.
//!
//! Bounded by the options and [`limits`]: the head, the answer, each event; time by the caller, who drops the future. On failure:
//! [`Stop`]; a connection whose answer was not read to its end is closed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use mainstay_base::{Error, Result};
use mainstay_inference::limits::INLINE_BYTES_MAX;
use mainstay_inference::{
    HEADER_LENGTH, InferAnswer, InferRequest, ModelMetadata, TIMEOUT_HEADER, decode_answer, encode_request,
};
use tokio::time::Instant;

use crate::address::Address;
use crate::ask::{Sent, left};
use crate::connection::Pieces;
use crate::counts::{Counts, FailureKind};
use crate::events::Events;
use crate::failure::Stop;
use crate::flat::{self, Said};
use crate::limits;
use crate::options::UpstreamOptions;
use crate::pool::{Lease, Pool};

/// Connections to one server, and what is said on them.
pub(crate) struct Http {
    pub pool: Arc<Pool>,
    host: HeaderValue,
    tenant_header: Option<HeaderName>,
    is_idempotent: bool,
    answer_bytes_max: usize,
    event_bytes_max: usize,
    counts: Arc<Counts>,
}

/// A request, to be sent perhaps twice.
struct Outgoing {
    method: Method,
    path: Uri,
    headers: HeaderMap,
    body: Pieces,
    /// Passed on as the time that is left when this is sent, not when it began to wait for a connection.
    deadline: Option<Instant>,
}

/// An answer whose body is still to come.
struct Incomplete {
    lease: Lease,
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
}

impl Http {
    pub fn new(pool: Arc<Pool>, authority: &str, options: &UpstreamOptions, counts: Arc<Counts>) -> Result<Http> {
        let host = HeaderValue::from_str(authority)
            .map_err(|_| Error::invalid(format!("`{authority}` cannot be named in a request")))?;
        Ok(Http {
            pool,
            host,
            tenant_header: options.tenant_header()?,
            is_idempotent: options.is_idempotent,
            answer_bytes_max: options.answer_bytes_max,
            event_bytes_max: options.event_bytes_max,
            counts,
        })
    }

    /// One answer.
    pub async fn infer(&self, at: &Address, request: &InferRequest, sent: &Sent<'_>) -> Result<InferAnswer, Stop> {
        let encoded = encode_request(request, true).map_err(Stop::sender)?;
        let mut outgoing = self.outgoing(Method::POST, self.path(at, request, "/infer")?, Some(sent));
        let media = match encoded.header_length {
            Some(_) => HeaderValue::from_static("application/octet-stream"),
            None => HeaderValue::from_static("application/json"),
        };
        outgoing.headers.insert(CONTENT_TYPE, media);
        if let Some(length) = encoded.header_length {
            outgoing.headers.insert(HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length));
        }
        outgoing.body = Pieces::new(encoded.pieces);
        let answer = self.ask(at, outgoing).await?;
        let header_length = header_length(&at.url, &answer.headers)?;
        let body = self.read_all(at, answer, "an answer", self.answer_bytes_max).await?;
        let (id, answer) = decode(body, header_length).await.map_err(|error| Stop::unreadable(&at.url, error))?;
        check(at, request, id.as_deref(), &answer)?;
        Ok(answer)
    }

    /// Answers in parts, as they come.
    pub async fn stream(
        &self,
        at: &Arc<Address>,
        request: &InferRequest,
        sent: &Sent<'_>,
        metadata: Option<Arc<ModelMetadata>>,
    ) -> Result<BoxStream<'static, Result<InferAnswer, Stop>>, Stop> {
        let body = flat::write(request).map_err(Stop::sender)?;
        let mut outgoing = self.outgoing(Method::POST, self.path(at, request, "/generate_stream")?, Some(sent));
        outgoing.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        outgoing.body = Pieces::new(vec![body.into()]);
        let answer = self.ask(at, outgoing).await?;
        let media = answer.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        if !media.starts_with("text/event-stream") {
            return Err(Stop::unreadable(&at.url, format!("`{media}` where a stream of events was asked for")));
        }
        let parts = Parts {
            at: at.clone(),
            lease: answer.lease,
            body: answer.body,
            events: Events::new(self.event_bytes_max),
            bytes: Bytes::new(),
            metadata,
            is_idempotent: self.is_idempotent,
            has_begun: false,
            event_bytes_max: self.event_bytes_max,
        };
        Ok(stream::unfold(Some(parts), |parts| async move { parts?.next().await }).fuse().boxed())
    }

    /// Whether the model can answer, or the server where the address names no model.
    pub async fn ready(&self, at: &Address) -> Result<(), Stop> {
        let path = match &at.model {
            Some(model) => format!("{}/ready", at.model_path(model, at.version.as_deref())),
            None => format!("{}/v2/health/ready", at.prefix),
        };
        let outgoing = self.outgoing(Method::GET, uri(path)?, None);
        let answer = self.ask(at, outgoing).await.map_err(|stop| match stop.kind {
            // It knows the model and says that it is not ready, some servers with 400.
            FailureKind::Sender => Stop::not_ready(&at.url, stop.failure.error.message()),
            _ => stop,
        })?;
        self.read_all(at, answer, "its readiness", limits::REFUSAL_BYTES_MAX).await.map(drop)
    }

    /// What a model takes and gives.
    pub async fn metadata(&self, at: &Address, model: &str, version: Option<&str>) -> Result<ModelMetadata, Stop> {
        let outgoing = self.outgoing(Method::GET, uri(at.model_path(model, version))?, None);
        let answer = self.ask(at, outgoing).await?;
        let body = self.read_all(at, answer, "the description of a model", limits::METADATA_BYTES_MAX).await?;
        flat::read_metadata(&body).map_err(|error| Stop::unreadable(&at.url, error))
    }

    fn path(&self, at: &Address, request: &InferRequest, of: &str) -> Result<Uri, Stop> {
        let (model, version) = at.target(&request.model, request.version.as_deref());
        let mut path = at.model_path(model, version);
        path.push_str(of);
        uri(path)
    }

    fn outgoing(&self, method: Method, path: Uri, sent: Option<&Sent<'_>>) -> Outgoing {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, self.host.clone());
        if let Some(sent) = sent {
            if let Some(trace) = sent.trace() {
                headers.insert(HeaderName::from_static("traceparent"), trace);
            }
            if let (Some(name), Some(tenant)) = (&self.tenant_header, sent.tenant()) {
                headers.insert(name.clone(), tenant);
            }
        }
        Outgoing { method, path, headers, body: Pieces::default(), deadline: sent.map(|sent| sent.deadline) }
    }

    /// Send a request and wait for the head of a good answer.
    async fn ask(&self, at: &Address, outgoing: Outgoing) -> Result<Incomplete, Stop> {
        let answer = self.exchange(at, outgoing).await?;
        let head_bytes: usize = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if head_bytes > limits::ANSWER_HEAD_BYTES_MAX {
            return Err(Stop::too_large(&at.url, "headers", limits::ANSWER_HEAD_BYTES_MAX));
        }
        if answer.status != StatusCode::OK {
            return Err(self.refusal(at, answer).await);
        }
        match answer.headers.get(CONTENT_ENCODING) {
            None => Ok(answer),
            Some(coding) if coding == "identity" => Ok(answer),
            Some(coding) => Err(Stop::unreadable(&at.url, format!("it is encoded as {coding:?}, unasked"))),
        }
    }

    async fn exchange(&self, at: &Address, outgoing: Outgoing) -> Result<Incomplete, Stop> {
        let mut lease = self.pool.lease(&at.url).await?;
        loop {
            let error = match lease.connection.send(outgoing.request()).await {
                Ok(answer) => {
                    let (head, body) = answer.into_parts();
                    return Ok(Incomplete { lease, status: head.status, headers: head.headers, body });
                }
                Err(error) => error,
            };
            if error.error.is_parse() {
                return Err(Stop::unreadable(&at.url, error.error));
            }
            if error.has_begun {
                return Err(Stop::cut_off(&at.url, &error.error.to_string()));
            }
            let may_resend = error.is_unsent || self.is_idempotent;
            if !lease.is_reused || !may_resend {
                return Err(Stop::reset(&at.url, &error.error.to_string(), may_resend));
            }
            self.counts.resent();
            lease = lease.renew().await?;
        }
    }

    /// What an answer that is not 200 means.
    async fn refusal(&self, at: &Address, answer: Incomplete) -> Stop {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
        }
        let Incomplete { mut lease, status, mut body, .. } = answer;
        let (text, is_whole) = match read(&mut lease, &mut body, limits::REFUSAL_BYTES_MAX).await {
            Ok(Read::Whole(text)) => (text, true),
            Ok(Read::More(text)) => (text, false),
            // The status was there; what it was about is lost.
            Err(_) => (Bytes::new(), false),
        };
        if is_whole {
            lease.done();
        }
        match serde_json::from_slice::<Refusal>(&text) {
            Ok(refusal) => Stop::of_http(&at.url, status, &refusal.error),
            Err(_) => Stop::of_http(&at.url, status, std::str::from_utf8(&text).unwrap_or_default()),
        }
    }

    async fn read_all(&self, at: &Address, answer: Incomplete, what: &str, limit_bytes: usize) -> Result<Bytes, Stop> {
        let Incomplete { mut lease, mut body, .. } = answer;
        match read(&mut lease, &mut body, limit_bytes).await {
            Ok(Read::Whole(bytes)) => {
                lease.done();
                Ok(bytes)
            }
            Ok(Read::More(_)) => Err(Stop::too_large(&at.url, what, limit_bytes)),
            Err(error) => Err(broken(&at.url, &error)),
        }
    }
}

impl Outgoing {
    fn request(&self) -> Request<Pieces> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        let mut headers = self.headers.clone();
        if let Some(deadline) = self.deadline {
            let left_ms = u64::try_from(left(deadline).as_millis()).unwrap_or(u64::MAX);
            headers.insert(HeaderName::from_static(TIMEOUT_HEADER), HeaderValue::from(left_ms));
        }
        *request.headers_mut() = headers;
        request
    }
}

fn uri(path: String) -> Result<Uri, Stop> {
    Uri::try_from(path)
        .map_err(|error| Stop::sender(Error::invalid(format!("the model cannot be named in a path: {error}"))))
}

/// A body, or the beginning of one that is longer than it may be.
enum Read {
    Whole(Bytes),
    More(Bytes),
}

async fn read(lease: &mut Lease, body: &mut Incoming, limit_bytes: usize) -> Result<Read, hyper::Error> {
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if claimed > limit_bytes {
        return Ok(Read::More(Bytes::new()));
    }
    let Some(first) = lease.connection.data(body).await.transpose()? else { return Ok(Read::Whole(Bytes::new())) };
    if first.len() > limit_bytes {
        return Ok(Read::More(first.slice(..limit_bytes)));
    }
    // Most answers come in one piece, which is passed on as it is.
    let Some(second) = lease.connection.data(body).await.transpose()? else { return Ok(Read::Whole(first)) };
    let mut bytes = BytesMut::with_capacity(claimed.min(limits::TRUSTED_BYTES_MAX).max(first.len() + second.len()));
    bytes.extend_from_slice(&first);
    let mut piece = second;
    loop {
        let room = limit_bytes - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Ok(Read::More(bytes.freeze()));
        }
        match lease.connection.data(body).await.transpose()? {
            Some(next) => piece = next,
            None => return Ok(Read::Whole(bytes.freeze())),
        }
    }
}

/// Why a body did not come to its end.
fn broken(url: &str, error: &hyper::Error) -> Stop {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let is_nonsense = source.is_some_and(|source| {
        matches!(source.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
    });
    match source {
        Some(source) if is_nonsense => Stop::unreadable(url, source),
        _ => Stop::cut_off(url, &error.to_string()),
    }
}

fn header_length(url: &str, headers: &HeaderMap) -> Result<Option<usize>, Stop> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let text = value.to_str().ok().map(str::trim).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(Stop::unreadable(url, format!("its header `{HEADER_LENGTH}` is {value:?}, no number of bytes"))),
    }
}

/// Reads an answer; a large one in JSON aside, because that takes a while.
async fn decode(body: Bytes, header_length: Option<usize>) -> Result<(Option<String>, InferAnswer)> {
    let json_bytes = header_length.unwrap_or(body.len());
    if json_bytes <= INLINE_BYTES_MAX {
        return decode_answer(body, header_length);
    }
    let decoded = tokio::task::spawn_blocking(move || decode_answer(body, header_length)).await;
    decoded.unwrap_or_else(|_| {
        Err(Error::internal("it could not be read: the host is shutting down, or the reader broke"))
    })
}

/// Whether an answer is one, and to this request.
fn check(at: &Address, request: &InferRequest, id: Option<&str>, answer: &InferAnswer) -> Result<(), Stop> {
    if answer.model.is_empty() && answer.outputs.is_empty() {
        return Err(Stop::unreadable(&at.url, "it names no model and has no outputs"));
    }
    if let (Some(asked), Some(answered)) = (request.id.as_deref(), id)
        && asked != answered
    {
        return Err(Stop::unreadable(&at.url, "it is the answer to another request, by its id"));
    }
    // Byte strings are framed within their tensor, and only a look tells whether the frames add up.
    let misfit = answer.outputs.iter().find_map(|output| output.check().err());
    misfit.map_or(Ok(()), |error| Err(Stop::unreadable(&at.url, error)))
}

/// A stream of events under way.
struct Parts {
    at: Arc<Address>,
    lease: Lease,
    body: Incoming,
    events: Events,
    /// What was read and not looked at.
    bytes: Bytes,
    metadata: Option<Arc<ModelMetadata>>,
    is_idempotent: bool,
    has_begun: bool,
    event_bytes_max: usize,
}

type Step = Option<(Result<InferAnswer, Stop>, Option<Parts>)>;

impl Parts {
    /// The next answer, and what follows.
    async fn next(mut self) -> Step {
        loop {
            match self.events.next(&mut self.bytes) {
                Ok(Some(data)) => return self.event(&data),
                Ok(None) => {}
                Err(_) => return last(Stop::too_large(&self.at.url, "an event", self.event_bytes_max)),
            }
            match self.lease.connection.data(&mut self.body).await {
                Some(Ok(bytes)) => self.bytes = bytes,
                Some(Err(error)) => return last(self.ended(&error)),
                None if self.events.is_within() => {
                    return last(Stop::cut_off(&self.at.url, "the last event of the stream is not whole"));
                }
                None => {
                    self.lease.done();
                    return None;
                }
            }
        }
    }

    fn event(mut self, data: &[u8]) -> Step {
        self.has_begun = true;
        match flat::read(data, self.metadata.as_deref()) {
            Ok(Said::Answer(answer)) => Some((Ok(answer), Some(self))),
            Ok(Said::Failure(message)) => last(Stop::in_band(&self.at.url, &message)),
            Err(error) => last(Stop::unreadable(&self.at.url, error)),
        }
    }

    /// Before the first event nothing was answered yet.
    fn ended(&self, error: &hyper::Error) -> Stop {
        match self.has_begun || self.events.is_within() {
            true => broken(&self.at.url, error),
            false => Stop::reset(&self.at.url, &error.to_string(), self.is_idempotent),
        }
    }
}

fn last(stop: Stop) -> Step {
    Some((Err(stop), None))
}
