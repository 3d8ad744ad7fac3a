//! What is counted and traced.

use std::sync::Arc;

use mainstay_gateway::{TraceContext, TraceHook};
use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

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
    names: Mutex<Vec<String>>,
}

const EXPORTED: TraceContext = TraceContext { trace_id: 0xabc, span_id: 0xdef, sampled: true };

impl TraceHook for Exporter {
    fn begin(&self, span: &tracing::Span, parent: Option<TraceContext>, state: Option<&str>) -> Option<TraceContext> {
        assert!(!span.is_disabled());
        assert_eq!(state.is_some(), parent.is_some());
        self.parents.lock().push(parent);
        Some(EXPORTED)
    }
    fn rename(&self, _: &tracing::Span, name: &str) {
        self.names.lock().push(name.to_owned());
    }
}

/// This test's runtime has one thread, and so its subscriber sees all of its host and nothing of other tests. While there is
/// one subscriber in the process, tracing asks the thread that first comes to a place whether it is of interest, and that may be
/// another test's; with a second one it asks all.
fn listen(subscriber: impl Into<tracing::Dispatch>) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
    let second = tracing::Dispatch::new(tracing_subscriber::registry());
    (second, tracing::dispatcher::set_default(&subscriber.into()))
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
    let _guards = listen(subscriber);
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
    assert_eq!(*exporter.names.lock(), ["GET /fail/*", "GET /blob/*"]);
    let log = String::from_utf8(lines.0.lock().clone()).unwrap();
    // Whoever ran the plugin has logged that, once.
    assert!(!log.contains("secret backtrace"), "{log}");
    let told: Vec<&str> = log.lines().filter(|line| line.contains(&digest) && !line.contains("DEBUG")).collect();
    let trace_id = damaged.json()["trace_id"].as_str().unwrap().to_owned();
    assert!(matches!(told[..], [once] if once.contains("ERROR") && once.contains(&trace_id)), "{told:?}");
}

/// A span as it ended: its fields, and the name of the span that it was made in.
#[derive(Clone, Debug, Default)]
struct Ended {
    fields: std::collections::BTreeMap<&'static str, String>,
    parent: Option<String>,
}

impl tracing::field::Visit for Ended {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl Ended {
    /// As an exporter names it.
    fn name(&self) -> String {
        self.fields.get("otel.name").cloned().unwrap_or_default()
    }
}

/// Keeps the spans of requests.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Ended>>>);

impl<S> Layer<S> for Spans
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut span = Ended::default();
        attributes.record(&mut span);
        if let Some(made) = context.span(id) {
            made.extensions_mut().insert(span);
        }
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(ended) = span.extensions_mut().get_mut::<Ended>() {
            values.record(ended);
        }
    }
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id).filter(|span| span.metadata().target() == "mainstay::request") else {
            return;
        };
        let mut ended = span.extensions_mut().remove::<Ended>().unwrap();
        ended.parent = span.parent().map(|parent| parent.name().to_owned());
        self.0.lock().push(ended);
    }
}

#[tokio::test]
async fn spans_are_named_by_method_and_route_and_calls_have_their_own() {
    let spans = Spans::default();
    let _guards = listen(tracing_subscriber::registry().with(spans.clone()));
    let server = Server::start().await;
    #[track_caller]
    fn check(spans: &Spans, expect: &[(&str, &[(&str, &str)])]) {
        let ended = std::mem::take(&mut *spans.0.lock());
        let names: Vec<String> = ended.iter().map(Ended::name).collect();
        assert_eq!(names, expect.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{ended:#?}");
        for (span, (name, fields)) in ended.iter().zip(expect) {
            for (field, value) in *fields {
                assert_eq!(span.fields.get(field).map_or("", String::as_str), *value, "{name} {field} {span:#?}");
            }
            let is_request = span.fields.contains_key("url.path");
            assert_eq!(span.parent.as_deref(), (!is_request).then_some("request"), "{name}");
        }
    }
    server.get("/echo/17").await;
    check(
        &spans,
        &[
            ("fake handle", &[("plugin", "fake"), ("otel.kind", "internal"), ("otel.status_code", "")]),
            (
                "GET /echo/*",
                &[
                    ("otel.kind", "server"),
                    ("http.request.method", "GET"),
                    ("http.route", "/echo/*"),
                    ("url.path", "/echo/17"),
                    ("url.scheme", "http"),
                    ("http.response.status_code", "200"),
                    ("client.address", "127.0.0.1"),
                    ("plugin", "fake"),
                    ("error.type", ""),
                ],
            ),
        ],
    );
    server.get("/fail/trap").await;
    check(
        &spans,
        &[
            ("fake handle", &[("otel.status_code", "ERROR"), ("error.type", "trap")]),
            ("GET /fail/*", &[("otel.status_code", "ERROR"), ("error.type", "500")]),
        ],
    );
    // A body that is stored takes two calls.
    server.send("PUT /store/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4", b"body").await;
    check(&spans, &[("fake handle", &[]), ("fake received", &[]), ("PUT /store/*", &[])]);
    server.get("/healthz").await;
    check(&spans, &[("GET /healthz", &[("http.route", "/healthz")])]);
    server.get("/nothing/here").await;
    check(&spans, &[("GET", &[("http.route", ""), ("http.response.status_code", "404"), ("error.type", "")])]);
    server.send("BREW /nothing HTTP/1.1\r\nhost: localhost", b"").await;
    check(&spans, &[("HTTP", &[("http.request.method", "_OTHER"), ("http.request.method_original", "BREW")])]);
}
