//! The service over gRPC and the generated client, joined without a network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue};
use mainstay_base::{Error, Result};
use mainstay_inference::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use mainstay_inference::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use mainstay_inference::proto::*;
use mainstay_inference::*;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

/// Gives inputs back, when it is let.
struct Gate {
    open: Semaphore,
    begun: AtomicUsize,
}

#[async_trait::async_trait]
impl Models for Gate {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _: &Asker, model: &str, _: Option<&str>) -> Result<bool> {
        if model == "m" { Ok(true) } else { Err(Error::not_found("no such model")) }
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata { name: "gate".into(), ..ServerMetadata::default() })
    }

    async fn metadata(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<ModelMetadata> {
        Err(unsupported("metadata"))
    }

    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.open.acquire().await.expect("open").forget();
        let mut headers = HeaderMap::new();
        let tenant = asker.tenant.as_deref().unwrap_or("nobody");
        headers.insert("tenant", HeaderValue::from_str(tenant).expect("a header"));
        let answer = InferAnswer { model: request.model, outputs: request.inputs, ..InferAnswer::default() };
        Ok(Answered { headers, ..answer.into() })
    }
}

type Client = GrpcInferenceServiceClient<GrpcInferenceServiceServer<Grpc>>;

fn joined(permits: usize, limits: Limits) -> (Arc<Gate>, Client) {
    let gate = Arc::new(Gate { open: Semaphore::new(permits), begun: AtomicUsize::new(0) });
    (gate.clone(), GrpcInferenceServiceClient::new(Grpc::service(gate, limits)))
}

fn message(id: &str, bytes: usize) -> ModelInferRequest {
    let tensor = Tensor::new("x", Datatype::Uint8, &[bytes as u64], Bytes::from(vec![7; bytes])).expect("a tensor");
    message_of_request(&InferRequest {
        model: "m".into(),
        id: Some(id.into()),
        inputs: vec![tensor],
        ..InferRequest::default()
    })
}

#[tokio::test]
async fn a_message_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let message = message("1", 1000);
    let body_bytes = message.encoded_len();
    let (_, client) = joined(1, Limits { body_bytes });
    let mut client = client.max_decoding_message_size(usize::MAX);
    let answer = client.model_infer(message.clone()).await.expect("an answer").into_inner();
    let (id, answer) = answer_of_message(answer).expect("an answer");
    assert_eq!((id.as_deref(), answer.outputs[0].data.len()), (Some("1"), 1000));

    let (_, mut client) = joined(1, Limits { body_bytes: body_bytes - 1 });
    let status = client.model_infer(message).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn a_message_may_not_inflate_beyond_the_limit() {
    let message = message("1", 1 << 20);
    for (body_bytes, code) in
        [(message.encoded_len(), None), (message.encoded_len() - 1, Some(Code::ResourceExhausted))]
    {
        let (_, client) = joined(1, Limits { body_bytes });
        let mut client = client.send_compressed(CompressionEncoding::Gzip);
        assert_eq!(client.model_infer(message.clone()).await.err().map(|status| status.code()), code);
    }
}

#[tokio::test]
async fn who_asks_is_taken_from_the_extensions_and_headers_become_metadata() {
    let (_, mut client) = joined(2, Limits::default());
    let answer = client.model_infer(message("1", 1)).await.expect("an answer");
    assert_eq!(answer.metadata().get("tenant").expect("a header"), "nobody");
    let mut request = Request::new(message("1", 1));
    request.extensions_mut().insert(Asker { tenant: Some("blue".into()), ..Asker::default() });
    let answer = client.model_infer(request).await.expect("an answer");
    assert_eq!(answer.metadata().get("tenant").expect("a header"), "blue");
}

#[tokio::test]
async fn what_is_not_offered_is_unimplemented_and_what_is_not_there_is_not_ready() {
    let (_, mut client) = joined(0, Limits::default());
    let code = |status: tonic::Status| status.code();
    assert_eq!(client.model_config(ModelConfigRequest::default()).await.map_err(code).err(), Some(Code::Unimplemented));
    assert_eq!(
        client.model_metadata(ModelMetadataRequest::default()).await.map_err(code).err(),
        Some(Code::Unimplemented)
    );
    let ready = |name: &str| ModelReadyRequest { name: name.into(), version: String::new() };
    assert!(client.model_ready(ready("m")).await.expect("an answer").into_inner().ready);
    assert!(!client.model_ready(ready("other")).await.expect("an answer").into_inner().ready);
}

#[tokio::test(start_paused = true)]
async fn a_streams_requests_are_worked_on_together_up_to_the_limit() {
    let (gate, mut client) = joined(0, Limits::default());
    let count = limits::STREAM_REQUESTS_MAX + 1;
    let requests = (0..count).map(|place| message(&place.to_string(), 1)).collect::<Vec<_>>();
    let stream = client.model_stream_infer(futures::stream::iter(requests)).await.expect("a stream").into_inner();
    let reader = tokio::spawn(stream.collect::<Vec<_>>());
    // Time stands until nothing else can go on.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(gate.begun.load(Ordering::SeqCst), limits::STREAM_REQUESTS_MAX);
    gate.open.add_permits(count);
    let answers = reader.await.expect("read");
    let ids: Vec<_> =
        answers.into_iter().map(|answer| answer.expect("an answer").infer_response.expect("a response").id).collect();
    assert_eq!(ids, (0..count).map(|place| place.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn time_that_grpc_itself_sets_ends_with_its_own_code() {
    let (_, mut client) = joined(0, Limits::default());
    for (header, value, expect) in
        [("grpc-timeout", "20m", Code::DeadlineExceeded), (TIMEOUT_HEADER, "20", Code::Unavailable)]
    {
        let mut request = Request::new(message("1", 1));
        request.metadata_mut().insert(header, value.parse().expect("a header"));
        assert_eq!(client.model_infer(request).await.expect_err("too late").code(), expect, "{header}");
    }
}
