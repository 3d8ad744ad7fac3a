//! The protocol over gRPC.
//!
//! Owns [`Grpc`], the service `inference.GRPCInferenceService`. Separate from who answers ([`Models`]) and from who listens.
//!
//! A stream's requests are worked on together, up to [`limits::STREAM_REQUESTS_MAX`]; their answers come in the requests' order.
//! An error is in band and the stream goes on.
//!
//! Bounded by [`Limits`]: messages up to the limit of bodies, compressed or not. A caller that goes away drops the work. On
//! failure: the codes that Triton gives.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use mainstay_base::{Error, ErrorKind, Result};
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::aside::{aside, weight};
use crate::convert::{message_of_answer, message_of_parameter, request_of_message};
use crate::front::infer;
use crate::limits::{self, Limits};
use crate::models::{Answered, Answers, Asker, Load, Models, Unload, grpc_timeout, unsupported};
use crate::proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::*;
use crate::refusal::{grpc_status, message as message_of};
use crate::request::{InferRequest, Parameter};

/// Answers the protocol over gRPC. Cheap to clone.
#[derive(Clone)]
pub struct Grpc {
    models: Arc<dyn Models>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Grpc {
    /// The service of these models. Where an interceptor or a layer puts an [`Asker`] into a request's extensions, that is who
    /// asks; headers, trace and deadline are taken from the request.
    pub fn service(models: Arc<dyn Models>, limits: Limits) -> GrpcInferenceServiceServer<Grpc> {
        GrpcInferenceServiceServer::new(Grpc { models })
            .max_decoding_message_size(limits.body_bytes)
            // An answer is as large as the model makes it.
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
    }
}

/// Who asks, and what.
fn open<T>(request: Request<T>) -> Result<(Asker, T), Status> {
    let (metadata, mut extensions, message) = request.into_parts();
    let asker = extensions.remove::<Asker>().unwrap_or_default();
    let asker = asker.with_headers(metadata.into_headers()).map_err(|error| grpc_status(&error))?;
    Ok((asker, message))
}

/// Until when gRPC's own header allows a call to take.
fn grpc_deadline(metadata: &MetadataMap) -> Option<Instant> {
    let allowed = metadata.get("grpc-timeout")?.to_str().ok().and_then(grpc_timeout)?;
    Instant::now().checked_add(allowed)
}

fn close<T>(answered: Result<T>) -> Answer<T> {
    answered.map(Response::new).map_err(|error| grpc_status(&error))
}

fn refuse<T>(what: &str) -> Answer<T> {
    Err(grpc_status(&unsupported(what)))
}

/// An empty text is none.
fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[tonic::async_trait]
impl GrpcInferenceService for Grpc {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: self.models.live().await }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.models.live().await && self.models.ready().await }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let (asker, ModelReadyRequest { name, version }) = open(request)?;
        close(match self.models.model_ready(&asker, &name, named(&version)).await {
            Ok(ready) => Ok(ModelReadyResponse { ready }),
            // What is not there is not ready: Triton answers so, and clients ask before they load.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(ModelReadyResponse { ready: false }),
            Err(error) => Err(error),
        })
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answer<ServerMetadataResponse> {
        close(self.models.server().await)
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answer<ModelMetadataResponse> {
        let (asker, ModelMetadataRequest { name, version }) = open(request)?;
        close(self.models.metadata(&asker, &name, named(&version)).await)
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        // Before the deadline is made of the same header, so that it is not the later one.
        let until = grpc_deadline(request.metadata());
        let (asker, message) = open(request)?;
        let answered = self.infer(asker, message).await.map_err(|error| {
            // Whoever set the time by gRPC's own means waits for gRPC's own code.
            let expired = until.is_some_and(|until| Instant::now() >= until);
            if expired { Status::deadline_exceeded(message_of(&error)) } else { grpc_status(&error) }
        });
        let (answered, id) = answered?;
        let mut response = Response::new(message_of_answer(id.as_deref(), answered.answer));
        *response.metadata_mut() = MetadataMap::from_headers(answered.headers);
        Ok(response)
    }

    type ModelStreamInferStream = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let (asker, messages) = open(request)?;
        let models = self.models.clone();
        let answers = messages
            .map(move |message| {
                let (asker, models) = (asker.clone(), models.clone());
                async move {
                    match message {
                        Ok(message) => answer_in_band(models, asker, message).await.map(Ok).boxed(),
                        // The transport failed: that is no answer to a request.
                        Err(status) => stream::iter([Err(status)]).boxed(),
                    }
                }
            })
            .buffered(limits::STREAM_REQUESTS_MAX)
            .flatten();
        Ok(Response::new(answers.boxed()))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answer<ModelConfigResponse> {
        let (asker, ModelConfigRequest { name, version }) = open(request)?;
        let config = self.models.config(&asker, &name, named(&version)).await;
        close(config.map(|config| ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Answer<ModelStatisticsResponse> {
        let (asker, ModelStatisticsRequest { name, version }) = open(request)?;
        let statistics = self.models.statistics(&asker, named(&name), named(&version)).await;
        close(statistics.map(|model_stats| ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Answer<RepositoryIndexResponse> {
        let (asker, RepositoryIndexRequest { ready, .. }) = open(request)?;
        close(self.models.index(&asker, ready).await.map(|models| RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let (asker, message) = open(request)?;
        let loaded = async { self.models.load(&asker, load_of(message)?).await };
        close(loaded.await.map(|()| RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        let (asker, message) = open(request)?;
        let unloaded = async { self.models.unload(&asker, unload_of(message)?).await };
        close(unloaded.await.map(|()| RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answer<SystemSharedMemoryStatusResponse> {
        refuse("shared memory")
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answer<SystemSharedMemoryRegisterResponse> {
        refuse("shared memory")
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<SystemSharedMemoryUnregisterResponse> {
        refuse("shared memory")
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answer<CudaSharedMemoryStatusResponse> {
        refuse("shared memory")
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answer<CudaSharedMemoryRegisterResponse> {
        refuse("shared memory")
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<CudaSharedMemoryUnregisterResponse> {
        refuse("shared memory")
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Answer<TraceSettingResponse> {
        refuse("tracing by this protocol")
    }

    async fn log_settings(&self, _: Request<LogSettingsRequest>) -> Answer<LogSettingsResponse> {
        refuse("changing the log by this protocol")
    }
}

impl Grpc {
    async fn infer(&self, asker: Asker, message: ModelInferRequest) -> Result<(Answered, Option<String>)> {
        let request = read(message).await?;
        let asker = asker.with_timeout_of(&request)?;
        let id = request.id.clone();
        let answered = infer(&*self.models, asker, request).await?;
        Ok((answered, id))
    }
}

/// Reads a request; a large one aside, because its byte strings are counted.
async fn read(message: ModelInferRequest) -> Result<InferRequest> {
    let raw_bytes = message.raw_input_contents.iter().map(Bytes::len).sum();
    aside(weight(0, raw_bytes), || request_of_message(message)).await
}

/// What a request of a stream is answered with; whatever fails becomes its last answer.
async fn answer_in_band(
    models: Arc<dyn Models>,
    asker: Asker,
    message: ModelInferRequest,
) -> BoxStream<'static, ModelStreamInferResponse> {
    let reply = Reply {
        id: message.id.clone(),
        model: message.model_name.clone(),
        version: message.model_version.clone(),
        marked_end: false,
    };
    match begin(models, asker, message).await {
        Ok((answers, marked_end)) => Reply { marked_end, ..reply }.tell_all(answers).boxed(),
        Err(error) => stream::iter([reply.tell_error(&error)]).boxed(),
    }
}

/// Starts one request of a stream. Also tells whether its caller wants to be told when a stream ends that just ended.
async fn begin(models: Arc<dyn Models>, asker: Asker, message: ModelInferRequest) -> Result<(Answers, bool)> {
    const MARK_END: &str = "triton_enable_empty_final_response";
    let mut request = read(message).await?;
    let marked_end = request.parameter(MARK_END) == Some(&Parameter::Bool(true));
    request.parameters.retain(|(name, _)| name != MARK_END);
    let asker = asker.with_timeout_of(&request)?;
    let deadline = asker.deadline;
    let answers = Asker::wait(deadline, models.infer_stream(asker, request)).await?;
    let bounded = stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        match Asker::wait(deadline, async { answers.next().await.transpose() }).await {
            Ok(Some(answered)) => Some((Ok(answered), Some(answers))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok((bounded.boxed(), marked_end))
}

/// How answers to one request of a stream are marked.
struct Reply {
    id: String,
    model: String,
    version: String,
    marked_end: bool,
}

impl Reply {
    /// The messages for these answers, and where it is wanted one more for the end.
    fn tell_all(self, answers: Answers) -> impl Stream<Item = ModelStreamInferResponse> + Send {
        // Where the stream stands: its answers and whether the last was marked as such; none when it is over.
        stream::unfold(Some((answers, false, self)), |state| async move {
            let (mut answers, ended, reply) = state?;
            match answers.next().await {
                Some(Ok(answered)) => {
                    let last = answered.last;
                    Some((reply.tell_one(answered), Some((answers, last, reply))))
                }
                Some(Err(error)) => Some((reply.tell_error(&error), None)),
                None if reply.marked_end && !ended => Some((reply.tell_end(), None)),
                None => None,
            }
        })
    }

    fn tell_one(&self, answered: Answered) -> ModelStreamInferResponse {
        let mut response = message_of_answer(Some(&self.id), answered.answer);
        mark(&mut response, answered.last);
        ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
    }

    fn tell_end(&self) -> ModelStreamInferResponse {
        let mut response = ModelInferResponse {
            id: self.id.clone(),
            model_name: self.model.clone(),
            model_version: self.version.clone(),
            ..ModelInferResponse::default()
        };
        mark(&mut response, true);
        ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
    }

    fn tell_error(&self, error: &Error) -> ModelStreamInferResponse {
        ModelStreamInferResponse { error_message: message_of(error), ..self.tell_end() }
    }
}

fn mark(response: &mut ModelInferResponse, last: bool) {
    response.parameters.insert("triton_final_response".to_owned(), message_of_parameter(&Parameter::Bool(last)));
}

fn load_of(message: RepositoryModelLoadRequest) -> Result<Load> {
    let mut load = Load { model: message.model_name, ..Load::default() };
    for (name, parameter) in message.parameters {
        match (name.as_str(), parameter.parameter_choice) {
            ("config", Some(ParameterChoice::StringParam(config))) => load.config = Some(config),
            ("config", _) => return Err(Error::invalid("parameter `config` is the configuration as JSON, in a text")),
            (name, Some(ParameterChoice::BytesParam(content))) if name.starts_with("file:") => {
                load.files.insert(name["file:".len()..].to_owned(), content);
            }
            (_, Some(ParameterChoice::BoolParam(value))) => load.parameters.push((name, Parameter::Bool(value))),
            (_, Some(ParameterChoice::Int64Param(value))) => load.parameters.push((name, Parameter::Int64(value))),
            (_, Some(ParameterChoice::StringParam(value))) => load.parameters.push((name, Parameter::String(value))),
            _ => return Err(Error::invalid(format!("parameter `{name}` is not of the kind that it takes"))),
        }
    }
    Ok(load)
}

fn unload_of(mut message: RepositoryModelUnloadRequest) -> Result<Unload> {
    let dependents = match message.parameters.remove("unload_dependents").map(|parameter| parameter.parameter_choice) {
        None => false,
        Some(Some(ParameterChoice::BoolParam(dependents))) => dependents,
        Some(_) => return Err(Error::invalid("Unable to parse 'unload_dependents': it is true or false")),
    };
    Ok(Unload { model: message.model_name, dependents })
}
