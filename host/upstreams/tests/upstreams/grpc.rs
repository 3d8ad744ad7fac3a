//! Requests over gRPC, to servers that behave and servers that do not.

use std::time::{Duration, Instant};

use futures::StreamExt;
use mainstay_base::ErrorKind;
use mainstay_inference::{Datatype, InferRequest, Parameter, Tensor};
use mainstay_traffic::{Ask, Backend};
use mainstay_upstreams::{FailureKind, UpstreamOptions, Upstreams, limits};

use crate::behaved::{Behaved, Speaks};
use crate::support::*;

fn one_connection() -> UpstreamOptions {
    UpstreamOptions { grpc_connections: 1, ..UpstreamOptions::default() }
}

#[tokio::test]
async fn every_datatype_goes_there_and_comes_back() {
    let server = Behaved::start(Speaks::Grpc).await;
    let upstream = open(&server.url("grpc", "m"), one_connection());
    for datatype in Datatype::ALL {
        let data = match datatype.width() {
            Some(width) => vec![1; 6 * width].into(),
            None => Tensor::bytes("x", &[6], ["", "a", "ü", "\0", "bc", "d"]).unwrap().data,
        };
        let inputs = vec![Tensor::new("x", datatype, &[2, 3], data).unwrap()];
        let parameters = vec![("p".to_owned(), Parameter::Int64(1))];
        let request =
            InferRequest { inputs: inputs.clone(), id: Some("7".into()), parameters, ..InferRequest::default() };
        let answer = upstream.infer(&request.into(), &ask()).await.unwrap();
        assert_eq!((&*answer.model, &*answer.version, answer.outputs), ("m", "3", inputs));
        assert_eq!(answer.parameters, [("p".to_owned(), Parameter::Int64(1))]);
    }
    let statistics = upstream.statistics();
    assert_eq!((statistics.requests, statistics.connections_made, statistics.connections_open), (14, 1, 1));
    assert_eq!((upstream.resource(), &*upstream.identity().model), (Some(server.address.to_string()), "m"));
}

#[tokio::test]
async fn the_trace_the_tenant_and_the_deadline_arrive() {
    let mut server = Behaved::start(Speaks::Grpc).await;
    let options = UpstreamOptions { tenant_header: Some("x-tenant".into()), ..one_connection() };
    let upstream = open(&server.url("grpc", "m"), options);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asked = Ask { trace: Some(trace.into()), tenant: Some("somebody".into()), ..ask_ms(5_000) };
    upstream.infer(&request(), &asked).await.unwrap();
    let asker = server.askers.recv().await.unwrap();
    assert_eq!(asker.trace.unwrap().trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    assert_eq!(asker.headers["x-tenant"], "somebody");
    let left = asker.deadline.unwrap().duration_since(Instant::now());
    assert!(left > Duration::from_millis(3_000) && left <= Duration::from_millis(5_000), "{left:?}");
}

#[tokio::test]
async fn a_model_is_ready_and_described_as_its_server_says() {
    let server = Behaved::start(Speaks::Grpc).await;
    let upstreams = Upstreams::default();
    let open = |url: &str| upstreams.open(url, &one_connection()).unwrap();
    open(&server.url("grpc", "m")).warm(in_ms(5_000)).await.unwrap();
    open(&format!("grpc://{}", server.address)).ready(in_ms(5_000)).await.unwrap();
    for model in ["busy", "missing"] {
        let error = open(&server.url("grpc", model)).ready(in_ms(5_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let metadata = open(&server.url("grpc", "m")).metadata("", None, in_ms(5_000)).await.unwrap();
    assert_eq!((&*metadata.name, &*metadata.outputs[1].datatype), ("m", "INT8"));
}

#[tokio::test]
async fn a_status_is_told_as_what_it_is() {
    let server = Behaved::start(Speaks::Grpc).await;
    let check = async |model: &str, kind: FailureKind, expect: (ErrorKind, bool, bool), words: &str| {
        check_failure(&open(&server.url("grpc", model), one_connection()), kind, expect, words).await;
    };
    check("wrong", FailureKind::Sender, (ErrorKind::Invalid, false, false), "this makes no sense").await;
    check("busy", FailureKind::TurnedAway, (ErrorKind::Unavailable, true, true), "answered Unavailable: try later")
        .await;
    check("broken", FailureKind::Failed, (ErrorKind::Internal, false, true), "it broke").await;
}

#[tokio::test]
async fn parts_come_with_what_the_model_says_and_failures_in_between() {
    let server = Behaved::start(Speaks::Grpc).await;
    let upstream = open(&server.url("grpc", "m"), one_connection());
    let parts = upstream.stream(&text("all is well"), &ask()).await.unwrap();
    let parts: Vec<_> = parts.map(Result::unwrap).collect().await;
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[2].output("n"), Some(&Tensor::int8("n", &[1], &[2]).unwrap()));
    assert!(parts.iter().all(|part| part.parameters.is_empty()), "the mark of the last is no parameter of the model");
    let mut parts = upstream.stream(&text("one fail two"), &ask()).await.unwrap();
    parts.next().await.unwrap().unwrap();
    let failure = parts.next().await.unwrap().unwrap_err();
    assert_eq!(seen(&failure), (ErrorKind::Internal, false, true), "{failure}");
    assert!(failure.error.message().contains("it broke in the middle"));
    assert!(parts.next().await.is_none());
}

#[tokio::test]
async fn who_goes_away_is_gone_at_the_upstream() {
    let mut server = Behaved::start(Speaks::Grpc).await;
    let slow = open(&server.url("grpc", "slow"), one_connection());
    let asking = tokio::spawn({
        let slow = slow.clone();
        async move { slow.infer(&request(), &ask()).await }
    });
    server.askers.recv().await.unwrap();
    let gone = Instant::now();
    asking.abort();
    let after = server.ended.recv().await.unwrap() - gone;
    assert!(after < Duration::from_millis(50), "{after:?}");
    let upstream = open(&server.url("grpc", "m"), one_connection());
    let mut parts = upstream.stream(&text("one wait two"), &ask()).await.unwrap();
    parts.next().await.unwrap().unwrap();
    let gone = Instant::now();
    drop(parts);
    let after = server.ended.recv().await.unwrap() - gone;
    assert!(after < Duration::from_millis(50), "{after:?}");
    assert_eq!((slow.statistics().cancelled, upstream.statistics().cancelled), (1, 1));
}

#[tokio::test]
async fn a_deadline_is_enforced_here_too() {
    let server = Server::start(|mut visit| async move { visit.closed().await }).await;
    let upstream = open(&format!("grpc://{}", server.address), one_connection());
    let deadline = in_ms(150);
    let failure = upstream.infer(&request(), &ask_ms(150)).await.unwrap_err();
    let now = Instant::now();
    assert!(now >= deadline && now < deadline + Duration::from_millis(60), "{:?}", now - deadline);
    assert_eq!(seen(&failure), (ErrorKind::Unavailable, false, true), "{failure}");
    assert_eq!(only_failure(&upstream.statistics()), FailureKind::Late);
}

#[tokio::test]
async fn a_connection_that_stays_silent_is_replaced() {
    // The first connection is taken and then lost on the way: nothing ever comes, and nobody says so.
    let behind = Behaved::start(Speaks::Grpc).await;
    let address = behind.address;
    let server = Server::start(move |mut visit| async move {
        if visit.number == 0 {
            return visit.closed().await;
        }
        let mut behind = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut visit.stream, &mut behind).await;
    })
    .await;
    let upstream = open(&format!("grpc://{}/v2/models/m", server.address), one_connection());
    for _ in 0..limits::GRPC_SILENCE_MAX {
        upstream.infer(&request(), &ask_ms(30)).await.unwrap_err();
        assert_eq!(server.accepted(), 1);
    }
    upstream.infer(&request(), &ask()).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_resets_may_be_asked_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    drop(listener);
    let again = (ErrorKind::Unavailable, true, true);
    check_failure(&open(&url, one_connection()), FailureKind::Unreachable, again, &url).await;
    let server = Server::start(|mut visit| async move {
        let mut preface = [0; 24];
        let _ = tokio::io::AsyncReadExt::read_exact(&mut visit.stream, &mut preface).await;
    })
    .await;
    let url = format!("grpc://{}", server.address);
    check_failure(&open(&url, one_connection()), FailureKind::Reset, again, &url).await;
    let once = UpstreamOptions { is_idempotent: false, ..one_connection() };
    check_failure(&open(&url, once), FailureKind::Reset, (ErrorKind::Unavailable, false, true), &url).await;
}

#[tokio::test]
async fn what_does_not_speak_grpc_is_found() {
    let server = Server::saying(answer(GOOD)).await;
    let upstream = open(&format!("grpc://{}", server.address), one_connection());
    let failure = upstream.infer(&request(), &ask()).await.unwrap_err();
    assert!(failure.is_fault, "{failure}");
}

#[tokio::test]
async fn a_server_that_went_away_and_came_back_is_found_again() {
    let behind = Behaved::start(Speaks::Grpc).await;
    let address = behind.address;
    let (cut, _) = tokio::sync::broadcast::channel::<()>(1);
    let cutting = cut.clone();
    let server = Server::start(move |mut visit| {
        let mut cut = cutting.subscribe();
        async move {
            let mut behind = tokio::net::TcpStream::connect(address).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut visit.stream, &mut behind) => {}
                _ = cut.recv() => {}
            }
        }
    })
    .await;
    let upstream = open(&format!("grpc://{}/v2/models/m", server.address), one_connection());
    for round in 1..5 {
        upstream.infer(&request(), &ask()).await.unwrap();
        assert_eq!(server.accepted(), round);
        // At once, without waiting until the client has noticed.
        cut.send(()).unwrap();
    }
    assert!(upstream.statistics().failures.is_empty(), "{:?}", upstream.statistics());
}

#[tokio::test]
async fn an_answer_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let server = Behaved::start(Speaks::Grpc).await;
    let request = numbers(&[0.5; 1000]);
    // As protobuf has it: the names, the version, one output of 4,000 raw bytes.
    let message = mainstay_inference::message_of_answer(
        None,
        mainstay_inference::InferAnswer {
            model: "m".into(),
            version: "3".into(),
            parameters: vec![],
            outputs: request.inputs.clone(),
        },
    );
    let bytes = tonic_bytes(&message);
    let upstream =
        |answer_bytes_max| open(&server.url("grpc", "m"), UpstreamOptions { answer_bytes_max, ..one_connection() });
    upstream(bytes).infer(&request, &ask()).await.unwrap();
    let failure = upstream(bytes - 1).infer(&request, &ask()).await.unwrap_err();
    assert_eq!(seen(&failure), (ErrorKind::Internal, false, true), "{failure}");
    assert!(failure.error.message().contains("which is the limit"), "{failure}");
}

/// How long a message is: two bytes of tag and length for each short text, three for what is longer than 127 bytes.
fn tonic_bytes(message: &mainstay_inference::proto::ModelInferResponse) -> usize {
    let output = &message.outputs[0];
    // The shape is packed: tag, length, and the extent 1000 in two bytes.
    let output_bytes = (2 + output.name.len()) + (2 + output.datatype.len()) + (2 + 2);
    let raw_bytes = message.raw_output_contents[0].len();
    (2 + message.model_name.len()) + (2 + message.model_version.len()) + (2 + output_bytes) + (3 + raw_bytes)
}

#[tokio::test]
async fn requests_are_spread_over_the_connections() {
    let server = Behaved::start(Speaks::Grpc).await;
    let upstream = open(&server.url("grpc", "m"), UpstreamOptions { grpc_connections: 3, ..one_connection() });
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut parts = upstream.stream(&text("one two"), &ask()).await.unwrap();
        parts.next().await.unwrap().unwrap();
        streams.push(parts);
    }
    assert_eq!((upstream.statistics().in_flight, upstream.statistics().connections_open), (300, 3));
    for parts in streams {
        assert_eq!(parts.count().await, 1);
    }
    assert_eq!(upstream.statistics().in_flight, 0);
}
