//! The protocol over HTTP.
//!
//! Owns [`Front`]: from a request of the `http` crate to a response of it, whoever the server is. Separate from who answers
//! ([`Models`]) and from who listens.
//!
//! Bounded by [`Limits`]: a body is read up to its limit, inflated up to it again, and what a header claims is checked before
//! memory is taken. Large bodies are inflated, parsed and compressed on threads that may block. Dropping the future of
//! [`Front::answer`], or the body of a stream, drops the work behind it. On failure: `{"error": …}` with Triton's statuses, but 400
//! for whatever cannot be read.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};
use tonic::codegen::{Body as HttpBody, StdError};

use crate::aside::{aside, weight};
use crate::classify;
use crate::compress::{Coding, TooLarge};
use crate::generate;
use crate::json::Parameters;
use crate::limits::{self, Limits};
use crate::models::{Answered, Asker, IndexEntry, Load, Models, Unload, unsupported};
use crate::refusal::{http_status, message};
use crate::request::{InferRequest, Parameter, find};
use crate::route::{Of, Route};
use crate::schema;
use crate::tensor::Datatype;
use crate::wire::{self, AnswerForm, Encoded, HEADER_LENGTH};

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers the protocol over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    models: Arc<dyn Models>,
    limits: Limits,
}

/// A failure on the way to an answer: one of the house, or one that HTTP has a status of its own for.
enum Refusal {
    Failed(Error),
    TooLarge(usize),
    UnknownCoding(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}

impl Front {
    /// A front of these models.
    pub fn new(models: Arc<dyn Models>, limits: Limits) -> Front {
        Front { models, limits }
    }

    /// Whether a path belongs to this protocol.
    pub fn serves(path: &str) -> bool {
        path == "/v2" || path.starts_with("/v2/")
    }

    /// Answers one request. `asker` carries what the server knows of its caller; headers, trace and deadline are taken from the
    /// request. The response to a failure has its [`Error`] in its extensions, with the cause, for the server's log.
    pub async fn answer<B>(&self, request: Request<B>, asker: Asker) -> Response<Body>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let Some(route) = Route::of(request.uri().path()) else {
            return error_response(StatusCode::NOT_FOUND, "this protocol has no such path");
        };
        if !route.methods().contains(request.method()) {
            let allowed = route.methods().iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ");
            let words = format!("`{}` does not take {}; it takes {allowed}", request.uri().path(), request.method());
            let mut response = error_response(StatusCode::METHOD_NOT_ALLOWED, &words);
            response.headers_mut().insert(ALLOW, HeaderValue::from_str(&allowed).expect("methods are plain text"));
            return response;
        }
        let (parts, body) = request.into_parts();
        match self.route(route, parts.headers, body, asker).await {
            Ok(response) => response,
            Err(Refusal::Failed(error)) => {
                let mut response = error_response(http_status(&error), &message(&error));
                response.extensions_mut().insert(error);
                response
            }
            Err(Refusal::UnknownCoding(error)) => error_response(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.message()),
            Err(Refusal::TooLarge(limit_bytes)) => {
                let words =
                    format!("the body has more than {limit_bytes} bytes, which is the limit here; send less at once");
                error_response(StatusCode::PAYLOAD_TOO_LARGE, &words)
            }
        }
    }

    async fn route<B>(&self, route: Route, headers: HeaderMap, body: B, asker: Asker) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let asker = asker.with_headers(headers)?;
        match route {
            Route::Live => Ok(health(self.models.live().await)),
            Route::Ready => Ok(health(self.models.live().await && self.models.ready().await)),
            Route::Server => {
                Ok(json_response(schema::to_json("inference.ServerMetadataResponse", &self.models.server().await?)))
            }
            Route::AllStatistics => self.statistics(&asker, None, None).await,
            Route::Model(model, version, of) => self.model(asker, &model, version.as_deref(), of, body).await,
            Route::Index => {
                let IndexRequest { ready } = self.control(&asker, body, limits::CONTROL_BYTES_MAX).await?;
                let entries = self.models.index(&asker, ready).await?;
                let lines = entries.iter().map(IndexLine::of).collect::<Vec<_>>();
                Ok(json_response(serde_json::to_string(&lines).expect("texts have a JSON form")))
            }
            Route::Load(model) => {
                let request = self.control::<RepositoryRequest, _>(&asker, body, self.limits.body_bytes).await?;
                self.models.load(&asker, load_of(model, request.parameters)?).await?;
                Ok(empty())
            }
            Route::Unload(model) => {
                let request = self.control::<RepositoryRequest, _>(&asker, body, limits::CONTROL_BYTES_MAX).await?;
                self.models.unload(&asker, unload_of(model, &request.parameters)?).await?;
                Ok(empty())
            }
            Route::Beside(what) => Err(unsupported(what).into()),
        }
    }

    async fn model<B>(
        &self,
        asker: Asker,
        model: &str,
        version: Option<&str>,
        of: Of,
        body: B,
    ) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        match of {
            Of::Ready => Ok(health(self.models.model_ready(&asker, model, version).await?)),
            Of::Metadata => Ok(json_response(schema::to_json(
                "inference.ModelMetadataResponse",
                &self.models.metadata(&asker, model, version).await?,
            ))),
            Of::Config => Ok(json_response(schema::to_json(
                "inference.ModelConfig",
                &self.models.config(&asker, model, version).await?,
            ))),
            Of::Statistics => self.statistics(&asker, Some(model), version).await,
            Of::Infer => self.infer(asker, model, version, body).await,
            // Boxed, so that the way of an inference stays small: a future is moved as a whole.
            Of::Generate => Box::pin(self.generate(asker, model, version, body)).await,
            Of::GenerateStream => Box::pin(self.generate_stream(asker, model, version, body)).await,
        }
    }

    async fn statistics(
        &self,
        asker: &Asker,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let model_stats = self.models.statistics(asker, model, version).await?;
        Ok(json_response(schema::to_json(
            "inference.ModelStatisticsResponse",
            &crate::proto::ModelStatisticsResponse { model_stats },
        )))
    }

    async fn infer<B>(
        &self,
        asker: Asker,
        model: &str,
        version: Option<&str>,
        body: B,
    ) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let header_length = header_length(&asker.headers)?;
        let accepted = asker.headers.get(ACCEPT_ENCODING).and_then(|value| Coding::of_answer(value.to_str().ok()?));
        let body = self.read(&asker.headers, body, self.limits.body_bytes).await?;
        let raw_bytes = header_length.map_or(0, |json_bytes| body.len().saturating_sub(json_bytes));
        let (request, form) = if header_length == Some(0) {
            (Box::pin(self.raw(&asker, model, version, body)).await?, AnswerForm { binary: true, outputs: Vec::new() })
        } else {
            let json_bytes = header_length.unwrap_or(body.len());
            let (model, version) = (model.to_owned(), version.map(str::to_owned));
            let read = move || wire::decode_request(&model, version.as_deref(), body, header_length);
            aside(weight(json_bytes, raw_bytes), read).await?
        };
        let asker = asker.with_timeout_of(&request)?;
        let id = request.id.clone();
        let Answered { answer, headers, .. } = infer(&*self.models, asker, request).await?;
        let bytes = answer.outputs.iter().map(|output| output.data.len()).sum();
        let raw_only = form.binary && form.outputs.is_empty() && accepted.is_none();
        let (encoded, coding) = aside(if raw_only { 0 } else { bytes }, move || {
            let encoded = wire::encode_answer(id.as_deref(), &answer, &form)?;
            Ok(match accepted.filter(|_| encoded.length() >= limits::COMPRESS_BYTES_MIN) {
                Some(coding) => (Encoded { pieces: vec![coding.deflate(&encoded.pieces)], ..encoded }, Some(coding)),
                None => (encoded, None),
            })
        })
        .await?;
        Ok(infer_response(encoded, coding, headers))
    }

    async fn raw(&self, asker: &Asker, model: &str, version: Option<&str>, body: Bytes) -> Result<InferRequest> {
        let metadata = self.models.metadata(asker, model, version).await?;
        let [input] = &metadata.inputs[..] else {
            return Err(Error::invalid(format!(
                "Raw request must only have 1 input to be deduced but got {} inputs in '{model}' model configuration",
                metadata.inputs.len()
            )));
        };
        let datatype = Datatype::parse(&input.datatype)?;
        let config = self.models.config(asker, model, version).await;
        let batched = config.is_ok_and(|config| config.max_batch_size > 0);
        wire::raw_request(model, version, &input.name, datatype, &input.shape, batched, body)
    }

    async fn generate<B>(
        &self,
        asker: Asker,
        model: &str,
        version: Option<&str>,
        body: B,
    ) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let (asker, request) = self.generate_request(asker, model, version, body).await?;
        let id = request.id.clone();
        let answered = infer(&*self.models, asker, request).await?;
        let mut response = json_response(generate::write(id.as_deref(), &answered.answer)?);
        add_headers(&mut response, answered.headers);
        Ok(response)
    }

    async fn generate_stream<B>(
        &self,
        asker: Asker,
        model: &str,
        version: Option<&str>,
        body: B,
    ) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let (asker, request) = self.generate_request(asker, model, version, body).await?;
        let (id, deadline) = (request.id.clone(), asker.deadline);
        let mut answers = Asker::wait(deadline, self.models.infer_stream(asker, request)).await?;
        // An error before the first answer is still an ordinary one.
        let first = Asker::wait(deadline, async { answers.next().await.transpose() }).await?;
        let headers = first.as_ref().map(|answered| answered.headers.clone()).unwrap_or_default();
        let rest = futures::stream::unfold(Some(answers), move |answers| async move {
            let mut answers = answers?;
            match Asker::wait(deadline, async { answers.next().await.transpose() }).await {
                Ok(Some(answered)) => Some((Ok(answered), Some(answers))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        let events = futures::stream::iter(first.map(Ok)).chain(rest).map(move |answered| {
            let text = answered.and_then(|answered| generate::write(id.as_deref(), &answered.answer));
            let text = text.unwrap_or_else(|error| error_json(&message(&error)));
            Bytes::from(format!("data: {text}\n\n"))
        });
        let mut response = Response::new(stream_body(events));
        add_headers(&mut response, headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        Ok(response)
    }

    async fn generate_request<B>(
        &self,
        asker: Asker,
        model: &str,
        version: Option<&str>,
        body: B,
    ) -> Result<(Asker, InferRequest), Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let body = self.read(&asker.headers, body, self.limits.body_bytes).await?;
        let metadata = self.models.metadata(&asker, model, version).await?;
        let (model, version) = (model.to_owned(), version.map(str::to_owned));
        let request = aside(body.len(), move || generate::read(&model, version.as_deref(), &metadata, &body)).await?;
        let asker = asker.with_timeout_of(&request)?;
        Ok((asker, request))
    }

    /// Reads a small JSON body; an empty one is the default.
    async fn control<T: for<'de> Deserialize<'de> + Default, B>(
        &self,
        asker: &Asker,
        body: B,
        limit_bytes: usize,
    ) -> Result<T, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let body = self.read(&asker.headers, body, limit_bytes).await?;
        if body.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&body)
            .map_err(|error| Error::invalid(format!("failed to parse the request JSON buffer: {error}")).into())
    }

    /// Reads a body, and inflates it.
    async fn read<B>(&self, headers: &HeaderMap, body: B, limit_bytes: usize) -> Result<Bytes, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Buf + Send,
        B::Error: Into<StdError>,
    {
        let coding =
            headers.get(CONTENT_ENCODING).map_or(Ok(None), |value| Coding::of_request(value.to_str().unwrap_or("?")));
        let coding = coding.map_err(Refusal::UnknownCoding)?;
        // What is known to be too large is refused before it is read.
        if body.size_hint().lower() > limit_bytes as u64 {
            return Err(Refusal::TooLarge(limit_bytes));
        }
        let body = match Limited::new(body, limit_bytes).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge(limit_bytes)),
            Err(error) => return Err(Error::invalid(format!("the body of the request did not arrive: {error}")).into()),
        };
        match coding {
            None => Ok(body),
            Some(coding) => {
                let inflated = aside(body.len(), move || coding.inflate(&body, limit_bytes)).await?;
                inflated.map_err(|TooLarge| Refusal::TooLarge(limit_bytes))
            }
        }
    }
}

/// Lets the models answer until the deadline, and makes of the answer what the request wants of it.
pub(crate) async fn infer(models: &dyn Models, asker: Asker, mut request: InferRequest) -> Result<Answered> {
    let wanted = classify::take(&mut request)?;
    let deadline = asker.deadline;
    if wanted.is_empty() {
        return Asker::wait(deadline, models.infer(asker, request)).await;
    }
    Asker::wait(deadline, async {
        let (model, version, again) = (request.model.clone(), request.version.clone(), asker.clone());
        let mut answered = models.infer(asker, request).await?;
        let config = models.config(&again, &model, version.as_deref()).await;
        let batched = config.is_ok_and(|config| config.max_batch_size > 0);
        classify::apply(&mut answered.answer, &wanted, batched)?;
        Ok(answered)
    })
    .await
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().map(str::trim).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = length.and_then(|text| text.parse().ok());
    let length = length.ok_or_else(|| {
        Error::invalid(format!(
            "Unable to parse {HEADER_LENGTH}, got: {value:?}; it is the length of the JSON in bytes"
        ))
    })?;
    Ok(Some(length))
}

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Serialize)]
struct IndexLine<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl IndexLine<'_> {
    fn of(entry: &IndexEntry) -> IndexLine<'_> {
        IndexLine { name: &entry.name, version: &entry.version, state: &entry.state, reason: &entry.reason }
    }
}

#[derive(Default, Deserialize)]
struct RepositoryRequest {
    #[serde(default)]
    parameters: Parameters,
}

fn load_of(model: String, parameters: Parameters) -> Result<Load> {
    let mut load = Load { model, ..Load::default() };
    for (name, parameter) in parameters.0 {
        match (name.strip_prefix("file:"), parameter) {
            (Some(path), Parameter::String(content)) => {
                let content = base64::prelude::BASE64_STANDARD.decode(content);
                let content =
                    content.map_err(|error| Error::invalid(format!("parameter `{name}` is not base64: {error}")))?;
                load.files.insert(path.to_owned(), content.into());
            }
            (Some(_), _) => return Err(Error::invalid(format!("parameter `{name}` is a file in base64, in a text"))),
            (None, Parameter::String(config)) if name == "config" => load.config = Some(config),
            (None, _) if name == "config" => {
                return Err(Error::invalid("parameter `config` is the configuration as JSON, in a text"));
            }
            (None, parameter) => load.parameters.push((name, parameter)),
        }
    }
    Ok(load)
}

fn unload_of(model: String, parameters: &Parameters) -> Result<Unload> {
    let dependents = match find(&parameters.0, "unload_dependents") {
        None => false,
        Some(Parameter::Bool(dependents)) => *dependents,
        Some(_) => return Err(Error::invalid("Unable to parse 'unload_dependents': it is true or false")),
    };
    Ok(Unload { model, dependents })
}

fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed_unsync()
}

/// A body of these pieces, none of them copied.
fn stream_body(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.filter_map(|piece| async move { Full::new(piece).frame().await })).boxed_unsync()
}

fn health(well: bool) -> Response<Body> {
    let mut response = empty();
    if !well {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn empty() -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn json_response(json: String) -> Response<Body> {
    let mut response = Response::new(full(json));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_json(message: &str) -> String {
    let mut json = String::from("{\"error\":");
    schema::put_text(&mut json, message);
    json.push('}');
    json
}

fn error_response(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = json_response(error_json(message));
    *response.status_mut() = status;
    response
}

/// Headers of whoever answered; the protocol's own stand, and how the body travels is not theirs to say.
fn add_headers(response: &mut Response<Body>, mut headers: HeaderMap) {
    if headers.is_empty() {
        return;
    }
    for framing in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING, CONNECTION] {
        headers.remove(framing);
    }
    let own = std::mem::replace(response.headers_mut(), headers);
    own.into_iter().for_each(|(name, value)| {
        if let Some(name) = name {
            response.headers_mut().insert(name, value);
        }
    });
}

fn infer_response(encoded: Encoded, coding: Option<Coding>, headers: HeaderMap) -> Response<Body> {
    let length = encoded.length();
    let Encoded { header_length, mut pieces } = encoded;
    let body = match pieces.len() {
        1 => full(pieces.swap_remove(0)),
        _ if length <= limits::JOINED_BYTES_MAX => {
            let mut joined = BytesMut::with_capacity(length);
            pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
            full(joined)
        }
        _ => stream_body(futures::stream::iter(pieces)),
    };
    let mut response = Response::new(body);
    add_headers(&mut response, headers);
    let own = response.headers_mut();
    let media = if header_length.is_some() { "application/octet-stream" } else { "application/json" };
    own.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    own.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(length) = header_length {
        own.insert(HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length));
    }
    if let Some(coding) = coding {
        own.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    response
}
