//! Who answers.
//!
//! Owns [`Models`], the one trait behind both fronts, and what goes through it beside the tensors: who asks ([`Asker`]), and
//! what an answer carries ([`Answered`]). Separate from the fronts, so that whoever answers knows neither HTTP nor gRPC.
//!
//! Bounded by who implements it. On failure: errors of the house; what an implementor does not offer is [`unsupported`], which
//! both fronts answer as such.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::HeaderMap;
use mainstay_base::{Error, Result};

use crate::proto;
use crate::request::{InferAnswer, InferRequest, Parameter};

/// What the server says of itself.
pub type ServerMetadata = proto::ServerMetadataResponse;
/// What a model takes and gives; the batch dimension is there, as -1.
pub type ModelMetadata = proto::ModelMetadataResponse;
/// A name, a datatype and a shape of a [`ModelMetadata`].
pub type TensorMetadata = proto::model_metadata_response::TensorMetadata;
/// One line of the repository's index; empty texts are left out of the JSON form.
pub type IndexEntry = proto::repository_index_response::ModelIndex;

/// The header that limits how long an answer may take, in milliseconds. Beside it hold the parameter `timeout` (microseconds)
/// and gRPC's own `grpc-timeout`; the earliest counts.
pub const TIMEOUT_HEADER: &str = "inference-timeout-ms";

/// The extensions that both fronts speak, for [`ServerMetadata`]. An implementor adds what it offers itself.
pub const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "classification", "model_configuration", "parameters"];

/// The trace that a request belongs to, as W3C's header `traceparent` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Sixteen bytes that name the trace.
    pub trace_id: u128,
    /// The span that asks.
    pub span_id: u64,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl Trace {
    /// Reads a `traceparent`; none where it is not one.
    pub fn parse(header: &str) -> Option<Trace> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Trace { trace_id, span_id, sampled })
    }
}

/// Who asks, and until when.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// Headers of the request; over gRPC its metadata.
    pub headers: HeaderMap,
    /// In whose name, where the caller was recognized.
    pub tenant: Option<Arc<str>>,
    /// After this nobody waits for the answer.
    pub deadline: Option<Instant>,
    /// The trace that this belongs to.
    pub trace: Option<Trace>,
    /// Whether the caller may operate the host: load and unload models, inject faults.
    pub is_operator: bool,
}

impl Asker {
    /// Takes what these headers say: the headers themselves, the trace unless there is one already, and the time allowed.
    pub(crate) fn with_headers(mut self, headers: HeaderMap) -> Result<Asker> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.trace = self.trace.or_else(|| text("traceparent").and_then(Trace::parse));
        if let Some(value) = headers.get(TIMEOUT_HEADER) {
            let ms = value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|ms| *ms > 0);
            let ms = ms.ok_or_else(|| {
                Error::invalid(format!("header `{TIMEOUT_HEADER}` is {value:?}; it takes milliseconds, 1 or more"))
            })?;
            self.allow(Duration::from_millis(ms));
        }
        if let Some(allowed) = text("grpc-timeout").and_then(grpc_timeout) {
            self.allow(allowed);
        }
        self.headers = headers;
        Ok(self)
    }

    /// Takes the parameter `timeout` of a request, which is in microseconds; 0 is none.
    pub(crate) fn with_timeout_of(mut self, request: &InferRequest) -> Result<Asker> {
        let us = match request.parameter("timeout") {
            None => return Ok(self),
            Some(Parameter::Int64(us)) => u64::try_from(*us).ok(),
            Some(Parameter::Uint64(us)) => Some(*us),
            Some(_) => None,
        };
        match us {
            Some(0) => {}
            Some(us) => self.allow(Duration::from_micros(us)),
            None => return Err(Error::invalid("parameter `timeout` takes microseconds, a whole number without sign")),
        }
        Ok(self)
    }

    /// An allowance beyond what clocks can count is none.
    fn allow(&mut self, allowed: Duration) {
        // Tokio's clock, which tests can hold still.
        if let Some(until) = tokio::time::Instant::now().into_std().checked_add(allowed) {
            self.deadline = Some(self.deadline.map_or(until, |earlier| earlier.min(until)));
        }
    }

    /// Waits for `work` until the deadline; then drops it.
    pub(crate) async fn wait<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
        match deadline {
            None => work.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
                Err(Error::unavailable("Request timeout expired: the answer took longer than the request allowed"))
            }),
        }
    }
}

/// Reads gRPC's own header: up to eight digits and a unit. None where it is not one.
pub(crate) fn grpc_timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// An answer, and what travels beside it.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// The tensors.
    pub answer: InferAnswer,
    /// Headers to add to the response, such as who answered; over gRPC they become initial metadata.
    pub headers: HeaderMap,
    /// In a stream: whether it is known that no other follows. A stream may also just end.
    pub last: bool,
}

impl From<InferAnswer> for Answered {
    fn from(answer: InferAnswer) -> Answered {
        Answered { answer, headers: HeaderMap::new(), last: true }
    }
}

/// Answers to one request, as they come. An error is the last of them.
pub type Answers = BoxStream<'static, Result<Answered>>;

/// What was said to load a model with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Which one.
    pub model: String,
    /// Its configuration as JSON, instead of the file's.
    pub config: Option<String>,
    /// Files to load it from, by their paths: `1/model.onnx`.
    pub files: BTreeMap<String, Bytes>,
    /// What else was said.
    pub parameters: Vec<(String, Parameter)>,
}

/// What was said to unload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unload {
    /// Which one.
    pub model: String,
    /// Whether the models that only it needs go with it.
    pub dependents: bool,
}

/// Models that answer requests.
///
/// Whoever asks may go away at any time: then the future, or the stream, is dropped, and with it must end the work.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Whether the process works at all.
    async fn live(&self) -> bool {
        true
    }

    /// Whether all that should answer can.
    async fn ready(&self) -> bool;

    /// Whether this model can answer; `not_found` where there is no such one.
    async fn model_ready(&self, asker: &Asker, model: &str, version: Option<&str>) -> Result<bool>;

    /// What the server says of itself.
    async fn server(&self) -> Result<ServerMetadata>;

    /// What the model takes and gives.
    async fn metadata(&self, asker: &Asker, model: &str, version: Option<&str>) -> Result<ModelMetadata>;

    /// The model's configuration.
    async fn config(&self, _asker: &Asker, _model: &str, _version: Option<&str>) -> Result<proto::ModelConfig> {
        Err(unsupported("reading the configuration of a model"))
    }

    /// One answer.
    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered>;

    /// Any number of answers; one, unless the implementor says otherwise. An error before the first answer may be returned at
    /// once.
    async fn infer_stream(&self, asker: Asker, request: InferRequest) -> Result<Answers> {
        let mut answered = self.infer(asker, request).await?;
        answered.last = true;
        Ok(futures::stream::iter([Ok(answered)]).boxed())
    }

    /// What was counted and timed, of one model or of all.
    async fn statistics(
        &self,
        _asker: &Asker,
        _model: Option<&str>,
        _version: Option<&str>,
    ) -> Result<Vec<proto::ModelStatistics>> {
        Err(unsupported("reading statistics of models"))
    }

    /// What the repository holds; with `ready`, only what can answer.
    async fn index(&self, _asker: &Asker, _ready: bool) -> Result<Vec<IndexEntry>> {
        Err(unsupported("listing the repository"))
    }

    /// Loads a model, or loads it again.
    async fn load(&self, _asker: &Asker, _load: Load) -> Result<()> {
        Err(unsupported("loading models over this protocol"))
    }

    /// Unloads a model.
    async fn unload(&self, _asker: &Asker, _unload: Unload) -> Result<()> {
        Err(unsupported("unloading models over this protocol"))
    }
}

/// No models at all: for hosts and tests that have none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoModels;

impl NoModels {
    fn unknown<T>(model: &str) -> Result<T> {
        Err(Error::not_found(format!("Request for unknown model: '{model}' is not found")))
    }
}

#[async_trait]
impl Models for NoModels {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _asker: &Asker, model: &str, _version: Option<&str>) -> Result<bool> {
        NoModels::unknown(model)
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata { name: "mainstay".into(), ..ServerMetadata::default() })
    }

    async fn metadata(&self, _asker: &Asker, model: &str, _version: Option<&str>) -> Result<ModelMetadata> {
        NoModels::unknown(model)
    }

    async fn infer(&self, _asker: Asker, request: InferRequest) -> Result<Answered> {
        NoModels::unknown(&request.model)
    }
}

/// Marks an error as "this is not offered here".
#[derive(Debug)]
struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not offered by this server")
    }
}

impl std::error::Error for Unsupported {}

/// An error that says that this is not offered here: 501, or `UNIMPLEMENTED`.
pub fn unsupported(what: impl fmt::Display) -> Error {
    Error::other(format!("{what} is not supported by this server")).with_source(Unsupported)
}

/// Whether an error was made by [`unsupported`].
pub fn is_unsupported(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Unsupported>())
}
