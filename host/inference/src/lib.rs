//! Requests to models and their answers, as tensors.
//!
//! Owns the Open Inference Protocol, as KServe and Triton speak it: its words, which the whole house shares ([`Tensor`],
//! [`InferRequest`], [`InferAnswer`]), its two fronts ([`Front`] over HTTP, [`Grpc`] over gRPC) before one trait ([`Models`]), and
//! the configuration files of model repositories ([`read_config`]). Separate, and low, because both who asks (the gateway) and
//! who answers (traffic, upstreams, models of this host) speak it. Listens nowhere and calls nobody: it turns messages into
//! requests and answers into messages.
//!
//! Bounded by [`limits`] and by what its readers are given. On failure: typed errors that name the tensor, the field or the line.
#![forbid(unsafe_code)]

mod aside;
mod classify;
mod compress;
mod config;
mod config_json;
mod convert;
mod front;
mod generate;
mod grpc;
mod json;
pub mod limits;
mod models;
mod refusal;
mod request;
mod route;
mod schema;
mod signature;
mod tensor;
mod wire;

/// The messages, the client and the server of the gRPC protocol, as they are defined in `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("inference");
}

pub use config::{ReadConfig, read_config};
pub use config_json::{config_json, read_config_json};
pub use convert::{answer_of_message, message_of_answer, message_of_request, request_of_message};
pub use front::{Body, Front};
pub use grpc::Grpc;
pub use limits::Limits;
pub use models::{
    Answered, Answers, Asker, EXTENSIONS, IndexEntry, Load, ModelMetadata, Models, NoModels, ServerMetadata,
    TIMEOUT_HEADER, TensorMetadata, Trace, Unload, is_unsupported, unsupported,
};
pub use proto::{ModelConfig, ModelStatistics};
pub use refusal::{from_grpc, grpc_status, http_status};
pub use request::{InferAnswer, InferRequest, Parameter, RequestedOutput};
pub use signature::{Signature, TensorSpec};
pub use tensor::{Datatype, Shape, Tensor};
pub use wire::{
    AnswerForm, Encoded, HEADER_LENGTH, decode_answer, decode_request, encode_answer, encode_request, raw_request,
};
