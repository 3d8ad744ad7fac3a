//! The standard fallbacks and the scoring interface, packed, in a real host: behind grants and limits, beside an endpoint.

use mainstay_base::{ErrorKind, Result};
use mainstay_interfaces::inference::{InferAnswer, InferRequest, Tensor, TensorMetadata};
use mainstay_interfaces::{
    DoorAnswer, DoorAsk, DoorAssignment, DoorEndpoint, FallbackAsk, FallbackReply, InferenceDoor, Lesson,
};
use mainstay_testing::{Install, START_MS, TestHost};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What `cargo xtask plugins` packed.
fn package(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../registry-data/packages");
    let path = folder.join(format!("{name}-0.1.0.mainstay"));
    assert!(path.exists(), "{} is not there: run `cargo xtask plugins` first", path.display());
    path
}

fn host(plugin: &str, settings: Value) -> TestHost {
    let how = Install { settings: Some(settings), ..Install::default() };
    TestHost::new().install_with(package(plugin), how).unwrap()
}

fn request(users: &[i64]) -> Arc<InferRequest> {
    let inputs = vec![Tensor::int64("user", &[users.len() as u64], users).unwrap()];
    Arc::new(InferRequest { model: "shop".into(), inputs, ..InferRequest::default() })
}

fn ask(host: &TestHost, plugin: &str, users: &[i64]) -> Result<FallbackReply> {
    let ask = FallbackAsk {
        endpoint: "shop".into(),
        variant: Some("main".into()),
        why: "failed".into(),
        tenant: None,
        request: request(users),
        traceparent: None,
    };
    host.answer_instead(plugin, ask, Duration::from_secs(10))
}

fn scores(values: &[f64]) -> Tensor {
    Tensor::fp64("score", &[values.len() as u64], values).unwrap()
}

/// Ten times each user's number.
struct Tenfold;

#[async_trait::async_trait]
impl InferenceDoor for Tenfold {
    fn endpoints(&self) -> Vec<Arc<str>> {
        vec!["shop-before".into()]
    }

    async fn find(&self, endpoint: &str) -> Result<Option<DoorEndpoint>> {
        let spec = TensorMetadata { name: "user".into(), datatype: "INT64".into(), shape: vec![-1] };
        let found =
            DoorEndpoint { name: endpoint.to_owned(), is_ready: true, inputs: vec![spec], ..DoorEndpoint::default() };
        Ok((endpoint == "shop-before").then_some(found))
    }

    fn assign(&self, _: &str, _: &str) -> Result<DoorAssignment> {
        Ok(DoorAssignment { variant: "main".into(), plan_version: 1, is_sticky: true })
    }

    async fn infer(&self, ask: DoorAsk) -> Result<DoorAnswer> {
        let values: Vec<f64> = ask.request.inputs[0].numbers()?.iter().map(|user| user * 10.0).collect();
        let outputs = vec![scores(&values)];
        let answer = InferAnswer { model: "shop".into(), version: "6".into(), outputs, ..InferAnswer::default() };
        let headers = vec![("x-mainstay-model".to_owned(), "shop".to_owned())];
        Ok(DoorAnswer { answer: Arc::new(answer), headers, ..DoorAnswer::default() })
    }
}

#[test]
fn the_cached_fallback_answers_what_it_was_taught() {
    let host = host("fallback-cached", json!({"key": [{"input": "user"}], "max-age-s": 60}));
    assert!(host.plugin("fallback-cached").unwrap().does_learn());
    let answer = InferAnswer {
        model: "shop".into(),
        version: "7".into(),
        outputs: vec![scores(&[0.1, 0.2])],
        ..InferAnswer::default()
    };
    let lesson = Lesson {
        endpoint: "shop".into(),
        variant: "main".into(),
        tenant: None,
        answered_ms: START_MS,
        request: request(&[1, 2]),
        answer: Arc::new(answer),
    };
    host.teach("fallback-cached", vec![lesson]).unwrap();
    let reply = ask(&host, "fallback-cached", &[2, 1]).unwrap();
    assert_eq!((reply.label.as_str(), reply.answer.version.as_str()), ("last-good", "7"));
    assert_eq!(reply.answer.outputs, [scores(&[0.2, 0.1])]);
    assert_eq!(ask(&host, "fallback-cached", &[3]).unwrap_err().kind(), ErrorKind::NotFound);
    host.advance_ms(60_001);
    assert_eq!(ask(&host, "fallback-cached", &[1]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_static_fallback_and_the_rules_answer_by_row() {
    let answers = json!([{"outputs": [{"name": "score", "datatype": "FP64", "row": 0.5}]}]);
    let fixed = host("fallback-static", json!({ "answers": answers }));
    assert_eq!(ask(&fixed, "fallback-static", &[1, 2]).unwrap().answer.outputs, [scores(&[0.5, 0.5])]);
    let rule = json!([{"outputs": [{"name": "score", "datatype": "FP64", "row": "row.user > 1 ? 0.9 : 0.1"}]}]);
    let rules = host("fallback-rule", json!({ "rules": rule }));
    assert_eq!(ask(&rules, "fallback-rule", &[1, 2]).unwrap().answer.outputs, [scores(&[0.1, 0.9])]);
}

#[test]
fn a_rule_that_cannot_be_read_is_refused_at_the_installation() {
    let rule = json!([{"outputs": [{"name": "score", "datatype": "FP64", "row": "row.user >"}]}]);
    let how = Install { settings: Some(json!({ "rules": rule })), ..Install::default() };
    let error = TestHost::new().install_with(package("fallback-rule"), how).err().unwrap();
    assert!(error.message().contains("`score`"), "{error}");
}

#[test]
fn the_previous_version_answers_over_its_own_endpoint_and_only_when_granted() {
    let settings = json!({"endpoints": {"shop": "shop-before"}});
    let granted = host("fallback-previous", settings.clone());
    granted.serve(Arc::new(Tenfold)).unwrap();
    let reply = ask(&granted, "fallback-previous", &[1, 2]).unwrap();
    assert_eq!((reply.label.as_str(), reply.answer.version.as_str()), ("previous", "6"));
    assert_eq!(reply.answer.outputs, [scores(&[10.0, 20.0])]);
    let how = Install { settings: Some(settings), grants: Some(vec![]), ..Install::default() };
    let denied = TestHost::new().install_with(package("fallback-previous"), how).unwrap();
    denied.serve(Arc::new(Tenfold)).unwrap();
    assert_eq!(ask(&denied, "fallback-previous", &[1]).unwrap_err().kind(), ErrorKind::Denied);
}

#[test]
fn the_scoring_interface_asks_the_only_endpoint() {
    let host = host("invocations", json!({}));
    host.serve(Arc::new(Tenfold)).unwrap();
    let body = r#"{"dataframe_split": {"columns": ["user"], "data": [[1], [2]]}}"#;
    let answer = host.call("POST", "/invocations", body);
    assert_eq!((answer.status, answer.json::<Value>()), (200, json!({"predictions": [10.0, 20.0]})));
    assert_eq!(answer.header("x-mainstay-model"), Some("shop"));
    assert_eq!(host.call("POST", "/serve/shop-before/invocations", body).status, 200);
    assert_eq!(host.call("POST", "/serve/other/invocations", body).status, 404);
    assert_eq!(host.call("GET", "/ping", "").status, 200);
}
