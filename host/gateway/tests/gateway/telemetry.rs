//! What is counted and traced.

use std::sync::Arc;

use mainstay_gateway::{TraceContext, TraceHook};
use parking_lot::Mutex;

use crate::support::Server;

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let server = Server::start().await;
    for number in 0..20 {
        server.get(&format!("/echo/{number}")).await;
    }
    server.get("/fail/trap").await;
    server.get("/plugins/open/x").await;
    for path in ["/nothing", "/else", "/echo/%2e%2e"] {
        server.get(path).await;
    }
    server.send("BREW /echo HTTP/1.1\r\nhost: localhost", b"").await;
    server.send("STEAM /echo HTTP/1.1\r\nhost: localhost", b"").await;
    let requests = "mainstay_http_requests_total";
    for (labels, expect) in [
        (r#"{plugin="fake",route="/echo/*",method="GET",status="200"}"#, 20.0),
        (r#"{plugin="fake",route="/fail/*",method="GET",status="500"}"#, 1.0),
        (r#"{plugin="open",route="/*",method="GET",status="200"}"#, 1.0),
        (r#"{plugin="",route="unrouted",method="GET",status="404"}"#, 2.0),
        (r#"{plugin="",route="unrouted",method="GET",status="400"}"#, 1.0),
        (r#"{plugin="fake",route="/echo",method="other",status="405"}"#, 2.0),
    ] {
        assert_eq!(server.metric(&format!("{requests}{labels}")).await, expect, "{labels}");
    }
    let count = r#"mainstay_http_request_seconds_count{plugin="fake",route="/echo/*"}"#;
    assert_eq!(server.metric(count).await, 20.0);
    assert_eq!(server.metric("mainstay_http_requests_in_flight").await, 1.0);
    assert_eq!(server.metric("mainstay_http_buffered_bytes").await, 0.0);
}

#[tokio::test]
async fn a_trace_goes_on_through_the_host() {
    let server = Server::start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let head = format!("GET /echo HTTP/1.1\r\nhost: localhost\r\ntraceparent: {parent}");
    let reply = server.send(&head, b"").await;
    assert_eq!(reply.json()["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let answer = reply.header("traceresponse").unwrap();
    assert!(
        answer.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !answer.contains("b7ad6b7169203331"),
        "{answer}"
    );
    let reply = server.send("GET /echo HTTP/1.1\r\nhost: localhost\r\ntraceparent: 00-0-0-00", b"").await;
    assert_eq!(reply.json()["trace_id"].as_str().unwrap().len(), 32);
    let (one, two) = (server.get("/echo").await.json(), server.get("/echo").await.json());
    assert_ne!(one["trace_id"], two["trace_id"]);
}

#[tokio::test]
async fn plugins_hear_how_they_were_reached() {
    let server = Server::start().await;
    let base = async |head: &str| server.send(head, b"").await.json()["base_url"].clone();
    assert_eq!(base("GET /echo HTTP/1.1\r\nhost: localhost:1234").await, "http://localhost:1234");
    assert_eq!(base("GET http://127.0.0.1:99/echo HTTP/1.1\r\nhost: 127.0.0.1:99").await, "http://127.0.0.1:99");
    let local = format!("http://{}", server.gateway.http_addr());
    assert_eq!(base("GET /echo HTTP/1.0").await, local.as_str());
    let server = Server::with(|options| options.public_url = Some("https://models.example/".to_owned())).await;
    assert_eq!(server.get("/echo").await.json()["base_url"], "https://models.example");
}

/// Notes what it is told, and says that the exporter has given the span an id of its own.
#[derive(Default)]
struct Exporter {
    parents: Mutex<Vec<Option<TraceContext>>>,
}

const EXPORTED: TraceContext = TraceContext { trace_id: 0xabc, span_id: 0xdef, sampled: true };

impl TraceHook for Exporter {
    fn begin(&self, span: &tracing::Span, parent: Option<TraceContext>, state: Option<&str>) -> Option<TraceContext> {
        assert!(!span.is_disabled());
        assert_eq!(state.is_some(), parent.is_some());
        self.parents.lock().push(parent);
        Some(EXPORTED)
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_exporter_joins_the_traces_and_the_log_has_what_clients_do_not_see() {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
    // This test's runtime has one thread, and so this subscriber sees all of its host and nothing of other tests.
    let _guard = tracing::subscriber::set_default(subscriber);
    let exporter = Arc::new(Exporter::default());
    let server = Server::traced(exporter.clone()).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let head = format!("GET /fail/trap HTTP/1.1\r\nhost: localhost\r\ntraceparent: {parent}\r\ntracestate: a=b");
    let reply = server.send(&head, b"").await;
    let trace_id = EXPORTED.trace_id_hex();
    assert_eq!(reply.header("traceresponse"), Some(EXPORTED.to_string().as_str()));
    assert_eq!(reply.json()["trace_id"], trace_id.as_str());
    let digest = server.blobs.put_bytes("bytes".into()).await.unwrap().sha256;
    server.damage(&digest);
    let damaged = server.get(&format!("/blob/{digest}")).await;
    assert_eq!(damaged.status, 410);
    assert_eq!(*exporter.parents.lock(), [TraceContext::parse(parent), None]);
    let log = String::from_utf8(lines.0.lock().clone()).unwrap();
    let trap = log.lines().find(|line| line.contains("a plugin trapped")).unwrap_or_else(|| panic!("{log}"));
    assert!(trap.contains("secret backtrace") && trap.contains(&trace_id), "{trap}");
    let told: Vec<&str> = log.lines().filter(|line| line.contains(&digest) && !line.contains("DEBUG")).collect();
    let trace_id = damaged.json()["trace_id"].as_str().unwrap().to_owned();
    assert!(matches!(told[..], [once] if once.contains("ERROR") && once.contains(&trace_id)), "{told:?}");
}
