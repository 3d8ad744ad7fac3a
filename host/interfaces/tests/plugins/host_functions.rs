//! What the host functions promise across a call: one view, durable commits, bodies and blobs, headers, metrics.

use std::sync::Arc;

use crate::guest::{self, OK, ask, component, component_with, house, load, quick, status};
use bytes::Bytes;
use mainstay_base::ErrorKind;
use mainstay_interfaces::{BlobInfo, CallError, HttpReply, HttpRequest, Limits, PluginSpec};
use mainstay_store::Space;
use sha2::{Digest, Sha256};

const KEYS: &[&str] = &["keys"];
/// `$i` += what follows if the key is there.
fn count_if_there(weight: u32) -> String {
    format!(
        "(call $get (i32.const 1024) (i32.const 3) (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then unreachable))
         (local.set $i (i32.add (local.get $i) (i32.mul (i32.load8_u (i32.const 68)) (i32.const {weight}))))"
    )
}
/// Puts the key under itself and commits.
const PUT: &str = "(call $begin (i32.const 64)) (local.set $tx (i32.load (i32.const 68)))
  (call $put (local.get $tx) (i32.const 1024) (i32.const 3) (i32.const 1024) (i32.const 3) (i32.const 96))
  (if (i32.load8_u (i32.const 96)) (then (return (i32.const 96))))
  (call $commit (local.get $tx) (i32.const 96))
  (if (i32.load8_u (i32.const 96)) (then (i32.store8 (i32.const 100) (i32.const 1)) (return (i32.const 100))))";
const ANSWER_I: &str = "(call $respond (i32.add (i32.const 200) (local.get $i)) (i32.const 16)) (i32.const 16)";

#[tokio::test]
async fn a_view_is_taken_at_the_first_read_and_kept_until_renewed() {
    let house = house();
    let handle = format!(
        "{} {PUT} {} (call $renew (i32.const 64)) {} {ANSWER_I}",
        count_if_there(1),
        count_if_there(2),
        count_if_there(4)
    );
    let plugin = load(&house, component(&handle), quick(), KEYS);
    assert_eq!(status(&plugin).await, 204, "absent, still absent after the own commit, present when renewed");
    assert_eq!(status(&plugin).await, 207, "the next call sees it from the start");
    // It lies in the plugin's own space and nowhere else.
    let view = house.services.store.view();
    assert_eq!(view.get(&Space::plugin("guest"), b"key").unwrap().as_deref(), Some(&b"key"[..]));
    assert_eq!(view.get(&Space::plugin("other"), b"key").unwrap(), None);
}

#[tokio::test]
async fn a_dropped_transaction_does_nothing_and_too_many_are_refused() {
    let house = house();
    let begin = |times: u32| {
        format!(
            "(loop $l (call $begin (i32.const 64))
               (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const {times}))))
             {OK}"
        )
    };
    let most = u32::try_from(mainstay_interfaces::TRANSACTIONS_MAX).unwrap();
    assert_eq!(status(&load(&house, component(&begin(most)), quick(), KEYS)).await, 200);
    let error = ask(&load(&house, component(&begin(most + 1)), quick(), KEYS)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("4 transactions"), "{error}");
    assert_eq!(house.services.store.sequence(), 0, "nothing was committed");
}

#[tokio::test]
async fn many_commits_are_not_billed() {
    let house = house();
    let handle = format!(
        "(loop $l {PUT} (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (local.get $i) (i32.const 300)))) {OK}"
    );
    let plugin = load(&house, component(&handle), Limits { call_cpu_ms: 100, ..quick() }, KEYS);
    assert_eq!(status(&plugin).await, 200);
    let stats = plugin.stats();
    assert!(stats.guest_us < 100_000, "{stats:?}");
    assert_eq!(house.services.store.sequence(), 300);
}

#[tokio::test]
async fn secret_headers_are_never_given() {
    let house = house();
    // `header(name)` is an option at 64: its discriminant.
    let asks = |name_at: u32, length: u32| {
        format!(
            "(call $request_header (local.get $request) (i32.const {name_at}) (i32.const {length}) (i32.const 64))
             (local.set $i (i32.load8_u (i32.const 64))) {ANSWER_I}"
        )
    };
    assert_eq!(status(&load(&house, component(&asks(1_048, 13)), quick(), &[])).await, 200, "authorization");
    assert_eq!(status(&load(&house, component(&asks(1_064, 8)), quick(), &[])).await, 201, "x-tenant");
}

#[tokio::test]
async fn a_body_is_received_linked_and_sent() {
    let house = house();
    let grants = &["keys", "blobs"];
    let receive =
        "(call $receive (i64.const 1000) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16)) (i32.const 16)";
    // Link the blob under a name, commit, and answer 200 plus its size.
    let received = "(call $begin (i32.const 64)) (local.set $tx (i32.load (i32.const 68)))
      (call $link (local.get $tx) (i32.const 1032) (i32.const 6) (local.get $sha) (local.get $sha_length) (i32.const 96))
      (if (i32.load8_u (i32.const 96)) (then (return (i32.const 96))))
      (call $commit (local.get $tx) (i32.const 96))
      (if (i32.load8_u (i32.const 96)) (then (i32.store8 (i32.const 100) (i32.const 1)) (return (i32.const 100))))
      (local.set $i (i32.wrap_i64 (local.get $size)))
      (call $respond (i32.add (i32.const 200) (local.get $i)) (i32.const 16)) (i32.const 16)";
    let plugin = load(&house, component_with(receive, received, guest::START_OK), quick(), grants);
    assert_eq!(ask(&plugin).await.unwrap(), HttpReply::Receive { limit_bytes: 1_000, sha256: None });

    let blob = house.services.blobs.put_bytes(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(blob.sha256, hex::encode(Sha256::digest(b"hello")));
    let reply = plugin.received(HttpRequest::default(), blob.clone()).await.unwrap();
    assert!(matches!(reply, HttpReply::Respond { status: 205, .. }), "{reply:?}");
    let named = house.services.blobs.lookup(&Space::plugin("guest"), "a/name").unwrap();
    assert_eq!(named, Some(blob.clone()));

    // `lookup` returns result<option<blob-info>>: the digest's address and length lie at 72 and 76.
    let send = "(call $lookup (i32.const 1032) (i32.const 6) (i32.const 64))
      (call $send (i32.load (i32.const 80)) (i32.load (i32.const 84)) (i32.const 16)) (i32.const 16)";
    let sender = load(&house, component(send), quick(), grants);
    assert_eq!(ask(&sender).await.unwrap(), HttpReply::Send { sha256: blob.sha256.clone(), headers: vec![] });

    // Another plugin has no name for it, and asking twice for a body is a fault.
    let stranger = "(call $send (i32.const 2048) (i32.const 64) (i32.const 16)) (i32.const 16)";
    let stranger = format!("(memory.fill (i32.const 2048) (i32.const 97) (i32.const 64)) {stranger}");
    let error = ask(&load(&house, component(&stranger), quick(), grants)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let twice = load(&house, component_with(receive, receive, guest::START_OK), quick(), grants);
    let error = twice.received(HttpRequest::default(), blob).await.unwrap_err();
    assert!(matches!(&error, CallError::Failed(told) if told.kind() == ErrorKind::Internal), "{error:?}");
}

#[tokio::test]
async fn linking_what_is_not_there_is_not_found_at_the_commit() {
    let house = house();
    let received = "(call $begin (i32.const 64)) (local.set $tx (i32.load (i32.const 68)))
      (call $link (local.get $tx) (i32.const 1032) (i32.const 6) (local.get $sha) (local.get $sha_length) (i32.const 96))
      (if (i32.load8_u (i32.const 96)) (then (return (i32.const 96))))
      (call $commit (local.get $tx) (i32.const 96))
      (i32.store8 (i32.const 100) (i32.const 1)) (i32.const 100)";
    let plugin = load(&house, component_with(OK, received, guest::START_OK), quick(), &["keys", "blobs"]);
    let absent = BlobInfo { sha256: "a".repeat(64), md5: "b".repeat(32), size_bytes: 1 };
    let error = plugin.received(HttpRequest::default(), absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn metrics_appear_under_the_plugins_name() {
    let house = house();
    let handle = format!(
        "(call $metric (i32.const 0) (i32.const 1040) (i32.const 4) (f64.const 2) (i32.const 0) (i32.const 0)) {OK}"
    );
    let plugin = load(&house, component(&handle), quick(), &[]);
    assert_eq!(status(&plugin).await, 200);
    assert_eq!(status(&plugin).await, 200);
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(house.host.metrics()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"mainstay_plugin_hits_total{plugin="guest"} 4.0"#,
        r#"mainstay_plugins_calls_total{plugin="guest"} 2.0"#,
        r#"mainstay_plugins_failures_total{plugin="guest",reason="trap"} 0"#,
    ] {
        assert!(text.contains(line), "`{line}` is missing in\n{text}");
    }
}

#[tokio::test]
async fn a_warm_instance_remembers_and_its_old_handles_find_nothing() {
    let house = house();
    // The first call keeps its request; the second uses what the first kept.
    let handle = format!(
        "(if (i32.eqz (global.get $calls)) (then
           (global.set $calls (i32.const 1)) (global.set $kept (local.get $request)) (return (block (result i32) {OK}))))
         (call $path (global.get $kept) (i32.const 64)) {OK}"
    );
    let spec = PluginSpec { reuse: true, limits: quick(), ..PluginSpec::new("guest", "0.1.0", component(&handle)) };
    let plugin = house.host.load(spec).unwrap();
    assert_eq!(status(&plugin).await, 200);
    let error = ask(&plugin).await.unwrap_err();
    assert_eq!(error.code(), "trap", "{error:?}");
    assert!(format!("{error:?}").contains("earlier call"), "{error:?}");
    assert_eq!(plugin.stats().reused, 1);
    assert_eq!(status(&plugin).await, 200, "a new instance, which has kept nothing");
}

#[tokio::test]
async fn an_instance_that_waits_for_its_next_call_holds_no_view() {
    let house = house();
    let handle = format!("{} {ANSWER_I}", count_if_there(1));
    let spec = PluginSpec {
        reuse: true,
        limits: quick(),
        grants: vec!["keys".to_owned()],
        ..PluginSpec::new("guest", "0.1.0", component(&handle))
    };
    let plugin = house.host.load(spec).unwrap();
    assert_eq!(status(&plugin).await, 200);
    let store = &house.services.store;
    for number in 1..=3_u64 {
        let mut tx = store.begin(&store.view());
        tx.put(&Space::plugin("guest"), b"key", number.to_string()).unwrap();
        store.commit(tx).await.unwrap();
        store.checkpoint().unwrap();
        assert_eq!(store.memtable_bytes(), 0, "an old view holds back what could move to the engine");
    }
    assert_eq!(status(&plugin).await, 201);
    assert_eq!(plugin.stats().reused, 1);
}

#[tokio::test]
async fn configuration_reaches_the_plugin() {
    let house = house();
    let handle = format!("(call $config (i32.const 64)) (local.set $i (i32.load (i32.const 68))) {ANSWER_I}");
    let config_json = r#"{"a":1}"#.to_owned();
    let length = u16::try_from(config_json.len()).unwrap();
    let spec = PluginSpec { config_json, limits: quick(), ..PluginSpec::new("guest", "0.1.0", component(&handle)) };
    let plugin: Arc<_> = house.host.load(spec).unwrap();
    assert_eq!(status(&plugin).await, 200 + length);
}

/// Names of the spans that end, the innermost first.
#[derive(Clone, Default)]
struct Spans(Arc<std::sync::Mutex<Vec<String>>>);

impl<S> tracing_subscriber::Layer<S> for Spans
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_close(&self, id: tracing::Id, context: tracing_subscriber::layer::Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let above = span.parent().map(|parent| format!(" in {}", parent.name())).unwrap_or_default();
        self.0.lock().unwrap().push(format!("{} {}{above}", span.metadata().target(), span.name()));
    }
}

#[tokio::test]
async fn a_commit_has_a_span_in_the_trace_of_its_request() {
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;
    let house = house();
    let plugin = load(&house, component(&format!("{PUT} {OK}")), quick(), KEYS);
    let spans = Spans::default();
    // With a second subscriber in the process, tracing asks both whether a place is of interest, and not whichever test comes
    // there first.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let span = tracing::info_span!("request");
    plugin.handle_here(HttpRequest::default()).instrument(span).await.unwrap();
    assert_eq!(spans.0.lock().unwrap()[0], "mainstay::request commit in request");
}
