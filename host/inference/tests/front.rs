//! The front over HTTP, without a server: limits of bodies, deadlines, callers that go away, implementors that offer little.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use mainstay_base::{Error, Result};
use mainstay_inference::*;

/// Offers only what it must; answers what it was asked, or never.
#[derive(Default)]
struct Least {
    waits: bool,
    dropped: Arc<AtomicBool>,
    fails_with: Option<Error>,
    not_ready: bool,
}

struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Models for Least {
    async fn ready(&self) -> bool {
        !self.not_ready
    }

    async fn model_ready(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<bool> {
        Ok(!self.not_ready)
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata::default())
    }

    async fn metadata(&self, _: &Asker, model: &str, _: Option<&str>) -> Result<ModelMetadata> {
        let inputs = vec![TensorSpec::new("x", Datatype::Bytes, &[1])];
        Ok(Signature { inputs, ..Signature::default() }.metadata(model, vec![], ""))
    }

    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered> {
        let dropped = Dropped(self.dropped.clone());
        if self.waits {
            std::future::pending::<()>().await;
        }
        drop(dropped);
        if let Some(error) = &self.fails_with {
            return Err(error.clone());
        }
        let tenant = asker.tenant.map(|tenant| ("tenant".to_owned(), Parameter::String(tenant.to_string())));
        let parameters = tenant.into_iter().collect();
        Ok(InferAnswer { model: request.model, version: "1".into(), parameters, outputs: request.inputs }.into())
    }
}

const BODY: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}"#;

async fn call(
    models: Least,
    limits: Limits,
    request: http::request::Builder,
    body: impl Into<Bytes>,
) -> (StatusCode, String) {
    let front = Front::new(Arc::new(models), limits);
    let response = front.answer(request.body(Full::new(body.into())).expect("a request"), Asker::default()).await;
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn infer() -> http::request::Builder {
    Request::post("/v2/models/m/infer")
}

#[tokio::test]
async fn a_body_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let limits = Limits { body_bytes: BODY.len() };
    let (status, answer) = call(Least::default(), limits, infer(), BODY).await;
    assert_eq!((status, answer.contains("\"data\":[1.0]")), (StatusCode::OK, true), "{answer}");
    let limits = Limits { body_bytes: BODY.len() - 1 };
    let (status, answer) = call(Least::default(), limits, infer(), BODY).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.contains(&format!("more than {} bytes", limits.body_bytes)), "{answer}");
}

#[tokio::test]
async fn an_inflated_body_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let padded = format!("{BODY}{}", " ".repeat(10_000));
    encoder.write_all(padded.as_bytes()).expect("memory");
    let body = encoder.finish().expect("memory");
    for (body_bytes, expect) in [(padded.len(), StatusCode::OK), (padded.len() - 1, StatusCode::PAYLOAD_TOO_LARGE)] {
        let request = infer().header("content-encoding", "gzip");
        assert_eq!(call(Least::default(), Limits { body_bytes }, request, body.clone()).await.0, expect);
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_read_up_to_the_limit() {
    let chunks = |count: usize| {
        let chunks = futures::stream::iter(vec![Bytes::from_static(&[b' '; 1000]); count]);
        http_body_util::StreamBody::new(chunks.then(|chunk| async { Full::new(chunk).frame().await.expect("a frame") }))
    };
    let front = Front::new(Arc::new(Least::default()), Limits { body_bytes: 3000 });
    for (count, expect) in [(3, StatusCode::BAD_REQUEST), (4, StatusCode::PAYLOAD_TOO_LARGE)] {
        let request = infer().body(Box::pin(chunks(count))).expect("a request");
        assert_eq!(front.answer(request, Asker::default()).await.status(), expect);
    }
}

#[tokio::test]
async fn a_control_body_has_a_limit_of_its_own() {
    let index = || Request::post("/v2/repository/index");
    let padded = |bytes: usize| " ".repeat(bytes);
    let at = call(Least::default(), Limits::default(), index(), padded(limits::CONTROL_BYTES_MAX)).await;
    assert_eq!(at.0, StatusCode::NOT_IMPLEMENTED);
    let beyond = call(Least::default(), Limits::default(), index(), padded(limits::CONTROL_BYTES_MAX + 1)).await;
    assert_eq!(beyond.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_answer_is_compressed_from_its_limit_on() {
    let length =
        |response: &http::Response<Body>| response.headers()["content-length"].to_str().expect("text").parse::<usize>();
    for (fill, expect) in [(0, None), (1, Some("gzip"))] {
        let front = Front::new(Arc::new(Least::default()), Limits::default());
        let body = |text: &str| format!(r#"{{"id":"{text}","inputs":[]}}"#);
        let ask = |text: &str, accept: &'static str| {
            let request =
                infer().header("accept-encoding", accept).body(Full::new(Bytes::from(body(text)))).expect("a request");
            front.answer(request, Asker::default())
        };
        let empty = length(&ask("", "").await).expect("a number");
        let text = "x".repeat(limits::COMPRESS_BYTES_MIN - 1 - empty + fill);
        let response = ask(&text, "gzip").await;
        assert_eq!(response.headers().get("content-encoding").map(|value| value.to_str().expect("text")), expect);
    }
}

#[tokio::test]
async fn what_an_implementor_does_not_offer_is_501() {
    for (method, path) in [
        ("GET", "/v2/models/m/config"),
        ("GET", "/v2/models/m/stats"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/m/load"),
        ("POST", "/v2/repository/models/m/unload"),
    ] {
        let (status, answer) =
            call(Least::default(), Limits::default(), Request::builder().method(method).uri(path), "").await;
        assert_eq!(
            (status, answer.contains("is not supported by this server")),
            (StatusCode::NOT_IMPLEMENTED, true),
            "{path}"
        );
    }
}

#[tokio::test]
async fn health_is_a_status_and_nothing_else() {
    for (path, well, unwell) in [
        ("/v2/health/live", StatusCode::OK, StatusCode::OK),
        ("/v2/health/ready", StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE),
        ("/v2/models/m/ready", StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        for (not_ready, expect) in [(false, well), (true, unwell)] {
            let models = Least { not_ready, ..Least::default() };
            assert_eq!(
                call(models, Limits::default(), Request::get(path), "").await,
                (expect, String::new()),
                "{path}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_drops_the_work_whichever_way_it_came() {
    let with_timeout = format!(r#"{{"parameters":{{"timeout":20000}},{}"#, &BODY[1..]);
    for (request, body) in [
        (infer().header(TIMEOUT_HEADER, "20"), BODY.to_owned()),
        (infer().header("grpc-timeout", "20m"), BODY.to_owned()),
        (infer(), with_timeout),
    ] {
        let models = Least { waits: true, ..Least::default() };
        let (dropped, start) = (models.dropped.clone(), tokio::time::Instant::now());
        let (status, answer) = call(models, Limits::default(), request, body).await;
        assert_eq!(
            (status, answer.contains("Request timeout expired")),
            (StatusCode::SERVICE_UNAVAILABLE, true),
            "{answer}"
        );
        assert!(dropped.load(Ordering::SeqCst) && (20..25).contains(&start.elapsed().as_millis()));
    }
    for wrong in ["", "0", "-1", "soon"] {
        let (status, answer) =
            call(Least::default(), Limits::default(), infer().header(TIMEOUT_HEADER, wrong), BODY).await;
        assert_eq!((status, answer.contains("it takes milliseconds")), (StatusCode::BAD_REQUEST, true), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_drops_the_work() {
    let models = Least { waits: true, ..Least::default() };
    let dropped = models.dropped.clone();
    let call = call(models, Limits::default(), infer(), BODY);
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_long_message_is_cut() {
    for (bytes, cut) in [(limits::MESSAGE_BYTES_MAX, false), (limits::MESSAGE_BYTES_MAX + 1, true)] {
        let error = Error::internal("m".repeat(bytes));
        assert_eq!(grpc_status(&error).message().ends_with('…'), cut);
        let models = Least { fails_with: Some(error), ..Least::default() };
        let (status, answer) = call(models, Limits::default(), infer(), BODY).await;
        assert_eq!((status, answer.contains('…')), (StatusCode::INTERNAL_SERVER_ERROR, cut));
    }
}

#[tokio::test]
async fn who_asks_is_passed_on() {
    let front = Front::new(Arc::new(Least::default()), Limits::default());
    let asker = Asker { tenant: Some("blue".into()), ..Asker::default() };
    let response = front.answer(infer().body(Full::new(Bytes::from(BODY))).expect("a request"), asker).await;
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["parameters"]["tenant"], "blue");
}

#[test]
fn a_trace_is_what_its_header_says_or_none() {
    let trace = Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("a trace");
    assert_eq!(
        (trace.trace_id, trace.span_id, trace.sampled),
        (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true)
    );
    for wrong in [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert_eq!(Trace::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn errors_keep_their_kind_through_grpc() {
    for error in [
        Error::invalid("x"),
        Error::not_found("x"),
        Error::denied("x"),
        Error::conflict("x"),
        Error::exhausted("x"),
        Error::unavailable("x"),
        Error::internal("x"),
        unsupported("x"),
    ] {
        let back = from_grpc(&grpc_status(&error));
        assert_eq!((back.kind(), is_unsupported(&back)), (error.kind(), is_unsupported(&error)));
    }
}

#[tokio::test]
async fn a_small_answer_is_one_piece_and_a_large_one_is_not_copied() {
    let front = Front::new(Arc::new(Least::default()), Limits::default());
    for (count, expect) in [(10, 1), (limits::JOINED_BYTES_MAX, 2)] {
        let input = Tensor::uint8("x", &[count as u64], &vec![7; count]).expect("a tensor");
        let request = InferRequest { model: "m".into(), inputs: vec![input], ..InferRequest::default() };
        let encoded = encode_request(&request, true).expect("encoded");
        let length = encoded.header_length.expect("raw");
        let body = Bytes::from(encoded.pieces.concat());
        let sent = infer().header(HEADER_LENGTH, length).body(Full::new(body.clone())).expect("a request");
        let response = front.answer(sent, Asker::default()).await;
        let length: usize = response.headers()["content-length"].to_str().expect("text").parse().expect("a number");
        let mut pieces: Vec<Bytes> =
            response.into_body().into_data_stream().map(|piece| piece.expect("a piece")).collect().await;
        assert_eq!((pieces.len(), pieces.iter().map(Bytes::len).sum::<usize>()), (expect, length));
        let last = pieces.pop().expect("a piece");
        assert_eq!(body.as_ptr_range().contains(&last.as_ptr()), expect == 2);
    }
}

#[tokio::test]
async fn an_output_may_be_wanted_as_its_highest_classes() {
    let ask = |classes: &str| {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":[4],"datatype":"FP32","data":[0.25,"NaN",2,0.5]}}],
                "outputs":[{{"name":"x","parameters":{{"classification":{classes}}}}}]}}"#
        );
        call(Least::default(), Limits::default(), infer(), body)
    };
    let (status, answer) = ask("2").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer.contains(r#""datatype":"BYTES","shape":[2],"data":["2.000000:2","0.500000:3"]"#), "{answer}");
    assert!(ask("9").await.1.contains(r#""shape":[4],"data":["2.000000:2","0.500000:3","0.250000:0","NaN:1"]"#));
    assert!(ask("0").await.1.contains(r#""datatype":"FP32""#));
    assert_eq!(ask("-1").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn headers_of_who_answered_do_not_say_how_the_body_travels() {
    struct Loud;
    #[async_trait::async_trait]
    impl Models for Loud {
        async fn ready(&self) -> bool {
            true
        }
        async fn model_ready(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<bool> {
            Ok(true)
        }
        async fn server(&self) -> Result<ServerMetadata> {
            Ok(ServerMetadata::default())
        }
        async fn metadata(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<ModelMetadata> {
            Ok(ModelMetadata::default())
        }
        async fn infer(&self, _: Asker, _: InferRequest) -> Result<Answered> {
            let mut headers = http::HeaderMap::new();
            for (name, value) in
                [("content-length", "1"), ("content-encoding", "gzip"), ("content-type", "x/y"), ("who", "me")]
            {
                headers.insert(name, http::HeaderValue::from_static(value));
            }
            headers.append("who", http::HeaderValue::from_static("too"));
            Ok(Answered { headers, ..Answered::default() })
        }
    }
    let front = Front::new(Arc::new(Loud), Limits::default());
    for path in ["infer", "generate", "generate_stream"] {
        let body = if path == "infer" { BODY } else { "{}" };
        let request =
            Request::post(format!("/v2/models/m/{path}")).body(Full::new(Bytes::from(body))).expect("a request");
        let response = front.answer(request, Asker::default()).await;
        let headers = response.headers();
        assert_eq!(headers.get_all("who").iter().collect::<Vec<_>>(), ["me", "too"], "{path}");
        assert!(!headers.contains_key("content-encoding") && headers["content-type"] != "x/y");
        assert!(headers.get("content-length").is_none_or(|length| length != "1"));
    }
}

/// Answers once, and then never again.
struct Once(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Models for Once {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<bool> {
        Ok(true)
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata::default())
    }

    async fn metadata(&self, _: &Asker, model: &str, _: Option<&str>) -> Result<ModelMetadata> {
        Ok(Signature::default().metadata(model, vec![], ""))
    }

    async fn infer(&self, _: Asker, _: InferRequest) -> Result<Answered> {
        Err(Error::internal("only streams"))
    }

    async fn infer_stream(&self, _: Asker, request: InferRequest) -> Result<Answers> {
        let dropped = Dropped(self.0.clone());
        let once = InferAnswer { model: request.model, ..InferAnswer::default() };
        let never = futures::stream::poll_fn(move |_| {
            let _held = &dropped;
            std::task::Poll::Pending
        });
        Ok(futures::stream::iter([Ok(Answered { last: false, ..once.into() })]).chain(never).boxed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_deadline_or_with_its_caller() {
    for (allowed_ms, patience_ms, events) in [("20", 1000, 2), ("1000", 20, 1)] {
        let dropped = Arc::new(AtomicBool::new(false));
        let front = Front::new(Arc::new(Once(dropped.clone())), Limits::default());
        let request = Request::post("/v2/models/m/generate_stream").header(TIMEOUT_HEADER, allowed_ms);
        let request = request.body(Full::new(Bytes::from("{}"))).expect("a request");
        let response = front.answer(request, Asker::default()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut seen = Vec::new();
        let mut body = response.into_body().into_data_stream();
        let read = async {
            while let Some(event) = body.next().await {
                seen.push(event.expect("an event"));
            }
        };
        let in_time = tokio::time::timeout(Duration::from_millis(patience_ms), read).await.is_ok();
        drop(body);
        assert_eq!((seen.len(), in_time), (events, events == 2));
        assert!(events == 1 || seen[1].starts_with(b"data: {\"error\":\"Request timeout expired"));
        assert!(dropped.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn the_server_can_log_why_a_request_failed() {
    let cause = std::io::Error::other("the disk");
    let models = Least { fails_with: Some(Error::internal("a fault").with_source(cause)), ..Least::default() };
    let front = Front::new(Arc::new(models), Limits::default());
    let response = front.answer(infer().body(Full::new(Bytes::from(BODY))).expect("a request"), Asker::default()).await;
    assert!(format!("{:?}", response.extensions().get::<Error>()).contains("the disk"));
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, r#"{"error":"a fault"}"#);
}
