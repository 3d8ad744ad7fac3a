//! Requests over HTTP to servers that behave.

use std::time::{Duration, Instant};

use mainstay_base::ErrorKind;
use mainstay_inference::{Datatype, InferRequest, Parameter, RequestedOutput, Tensor};
use mainstay_traffic::{Ask, Backend};
use mainstay_upstreams::{FailureKind, UpstreamOptions, Upstreams};

use crate::behaved::{Behaved, Speaks};
use crate::support::*;

#[tokio::test]
async fn every_datatype_goes_there_and_comes_back() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    for datatype in Datatype::ALL {
        let data = match datatype.width() {
            Some(width) => vec![1; 6 * width].into(),
            None => Tensor::bytes("x", &[6], ["", "a", "ü", "\0", "bc", "d"]).unwrap().data,
        };
        let inputs = vec![Tensor::new("x", datatype, &[2, 3], data).unwrap()];
        let request = InferRequest { inputs: inputs.clone(), id: Some("7".into()), ..InferRequest::default() };
        let answer = upstream.infer(&request.into(), &ask()).await.unwrap();
        assert_eq!((&*answer.model, &*answer.version, answer.outputs), ("m", "3", inputs));
    }
    let statistics = upstream.statistics();
    assert_eq!((statistics.requests, statistics.connections_made, statistics.connections_idle), (14, 1, 1));
    assert!(statistics.failures.is_empty());
}

#[tokio::test]
async fn a_large_tensor_goes_there_and_comes_back() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let data: Vec<u8> = (0..20_000_000_u32).map(|place| (place % 251) as u8).collect();
    let inputs = vec![Tensor::new("x", Datatype::Uint8, &[data.len() as u64], data.into()).unwrap()];
    let request = InferRequest { inputs: inputs.clone(), ..InferRequest::default() };
    let answer = upstream.infer(&request.into(), &ask()).await.unwrap();
    assert!(answer.outputs == inputs);
}

#[tokio::test]
async fn the_address_names_the_model_or_the_request_does() {
    async fn check(path: &str, model: &str, version: &str) {
        let server = Behaved::start(Speaks::Http).await;
        let upstream = open(&format!("http://{}{path}", server.address), UpstreamOptions::default());
        let request = InferRequest { model: "asked".into(), version: Some("8".into()), ..(*request()).clone() };
        let answer = upstream.infer(&request.into(), &ask()).await.unwrap();
        assert_eq!((&*answer.model, &*answer.version), (model, version), "{path}");
        let identity = upstream.identity();
        assert_eq!((&*identity.model, &*identity.version), (model, version), "{path}");
        assert_eq!(upstream.resource(), Some(server.address.to_string()));
    }
    check("", "asked", "8").await;
    check("/v2/models/m", "m", "3").await;
    check("/v2/models/m/versions/5", "m", "5").await;
    check("/v2/models/odd%20name%20%25%3F%23", "odd name %?#", "3").await;
}

#[tokio::test]
async fn a_request_is_written_as_the_protocol_has_it() {
    let (sent, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut visit| {
        let sent = sent.clone();
        async move {
            sent.send(visit.request().await.unwrap()).unwrap();
            visit.write(&answer(GOOD)).await;
        }
    })
    .await;
    let options = UpstreamOptions { tenant_header: Some("x-tenant".into()), ..UpstreamOptions::default() };
    let upstream = server.upstream_with(options);
    let request = InferRequest {
        id: Some("7".into()),
        parameters: vec![("p".into(), Parameter::Int64(1))],
        outputs: vec![RequestedOutput { name: "y".into(), parameters: vec![] }],
        ..(*request()).clone()
    };
    let asked = Ask { trace: Some("00-1-2-01".into()), tenant: Some("t".into()), ..ask_ms(20_000) };
    assert_eq!(upstream.infer(&request.into(), &asked).await.unwrap(), good());
    let (head, body) = requests.recv().await.unwrap();
    assert!(head.starts_with("POST /v2/models/m/infer HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    assert_eq!(header("host"), server.address.to_string());
    assert_eq!(header("traceparent"), "00-1-2-01");
    assert_eq!(header("x-tenant"), "t");
    assert_eq!(header("content-type"), "application/octet-stream");
    let left_ms: u64 = header("inference-timeout-ms").parse().unwrap();
    assert!((15_000..=20_000).contains(&left_ms), "{left_ms}");
    let json_bytes: usize = header("inference-header-content-length").parse().unwrap();
    assert_eq!(&body[json_bytes..], [1.0_f32, 2.0, 3.0].map(f32::to_le_bytes).concat());
    let json: serde_json::Value = serde_json::from_slice(&body[..json_bytes]).unwrap();
    let expect = serde_json::json!({
        "id": "7",
        "parameters": { "p": 1, "binary_data_output": true },
        "inputs": [{ "name": "x", "shape": [3], "datatype": "FP32", "parameters": { "binary_data_size": 12 } }],
        "outputs": [{ "name": "y" }],
    });
    assert_eq!(json, expect);
}

#[tokio::test]
async fn the_tenant_is_not_told_unless_an_operator_says_so() {
    let mut server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let asked = Ask { tenant: Some("somebody".into()), ..ask() };
    upstream.infer(&request(), &asked).await.unwrap();
    let asker = server.askers.recv().await.unwrap();
    assert!(asker.headers.values().all(|value| value != "somebody"), "{:?}", asker.headers);
}

#[tokio::test]
async fn the_trace_and_the_deadline_arrive() {
    let mut server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asked = Ask { trace: Some(trace.into()), ..ask_ms(5_000) };
    upstream.infer(&request(), &asked).await.unwrap();
    let asker = server.askers.recv().await.unwrap();
    assert_eq!(asker.trace.unwrap().trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    let left = asker.deadline.unwrap().duration_since(Instant::now());
    assert!(left > Duration::from_millis(3_000) && left <= Duration::from_millis(5_000), "{left:?}");
}

#[tokio::test]
async fn a_model_is_ready_when_its_server_says_so() {
    async fn check(model: &str, expect: Option<ErrorKind>) {
        let server = Behaved::start(Speaks::Http).await;
        let upstream = open(&server.url("http", model), UpstreamOptions::default());
        assert_eq!(upstream.ready(in_ms(5_000)).await.err().map(|error| error.kind()), expect, "{model}");
        assert_eq!(upstream.warm(in_ms(5_000)).await.err().map(|error| error.kind()), expect, "{model}");
    }
    check("m", None).await;
    check("busy", Some(ErrorKind::Unavailable)).await;
    check("missing", Some(ErrorKind::Unavailable)).await;
    let server = Behaved::start(Speaks::Http).await;
    let whole = open(&format!("http://{}", server.address), UpstreamOptions::default());
    whole.ready(in_ms(5_000)).await.unwrap();
}

#[tokio::test]
async fn a_model_is_described_by_its_server() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let metadata = upstream.metadata("", None, in_ms(5_000)).await.unwrap();
    assert_eq!((&*metadata.name, &metadata.versions[..]), ("m", &["3".to_owned()][..]));
    assert_eq!(metadata.outputs[1].name, "n");
    assert_eq!((&*metadata.outputs[1].datatype, &metadata.outputs[1].shape[..]), ("INT8", &[1][..]));
}

#[tokio::test]
async fn refusals_keep_their_words_and_their_connection() {
    let server = Behaved::start(Speaks::Http).await;
    let upstreams = Upstreams::default();
    let check = async |model: &str, expect: (ErrorKind, bool, bool), words: &str| {
        let upstream = upstreams.open(&server.url("http", model), &UpstreamOptions::default()).unwrap();
        let failure = upstream.infer(&request(), &ask()).await.unwrap_err();
        assert_eq!(seen(&failure), expect, "{model}: {failure}");
        assert!(failure.error.message().contains(words), "{failure}");
        upstream
    };
    let upstream = check("wrong", (ErrorKind::Invalid, false, false), "this makes no sense").await;
    check("busy", (ErrorKind::Unavailable, true, true), "/v2/models/busy` answered 503: try later").await;
    check("broken", (ErrorKind::Internal, false, true), "it broke").await;
    let statistics = upstream.statistics();
    assert_eq!((statistics.connections_made, statistics.requests), (1, 3));
    assert_eq!(statistics.failed(FailureKind::Sender), 1);
    assert_eq!(statistics.failed(FailureKind::TurnedAway), 1);
    assert_eq!(statistics.failed(FailureKind::Failed), 1);
}

#[tokio::test]
async fn who_goes_away_is_gone_at_the_upstream() {
    let mut server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "slow"), UpstreamOptions::default());
    let asking = tokio::spawn({
        let upstream = upstream.clone();
        async move { upstream.infer(&request(), &ask()).await }
    });
    server.askers.recv().await.unwrap();
    asking.abort();
    let gone = Instant::now();
    let ended = server.ended.recv().await.unwrap();
    assert!(ended - gone < Duration::from_millis(50), "{:?}", ended - gone);
    until("the connection was closed", || upstream.statistics().connections_open == 0).await;
    assert_eq!((upstream.statistics().cancelled, upstream.statistics().in_flight), (1, 0));
}
