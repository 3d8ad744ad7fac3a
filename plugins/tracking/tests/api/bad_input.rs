//! What a broken or hostile client sends: a clear refusal each time, never a status that clients repeat.

use crate::Server;
use mainstay_sdk::http::Request;
use serde_json::{Value, json};

#[test]
fn what_is_asked_before_anything_else() {
    let server = Server::new();
    let text = |path: &str| server.call(Request::get(path)).text().to_owned();
    assert_eq!((text("/version").as_str(), text("/health").as_str()), ("3.17.2", "OK"));
    let info: Value = server.call(Request::get("/api/3.0/mlflow/server-info")).json();
    assert_eq!(info["multipart_uploads_enabled"], false);
}

#[test]
fn traces_are_refused_at_once_and_found_empty() {
    let server = Server::new();
    assert_eq!(server.call(Request::post("/v1/traces").waiting(vec![0; 10])).status, 501);
    assert_eq!(server.call(Request::post("/api/3.0/mlflow/traces").body("{}")).status, 501);
    assert_eq!(server.call(Request::post("/api/3.0/mlflow/traces/search").body("{}")).json::<Value>(), json!({}));
    assert_eq!(server.call(Request::get("/api/3.0/mlflow/traces/tr-1")).status, 404);
}

#[test]
fn bodies_that_are_no_request() {
    let server = Server::new();
    let check = |body: &[u8], kind: Option<&str>| {
        let mut request = Request::post("/api/2.0/mlflow/experiments/create").body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = server.call(request);
        assert_eq!(answer.status, 400, "{:?}", String::from_utf8_lossy(body));
        answer.json::<Value>()["message"].as_str().unwrap().to_owned()
    };
    let json = Some("application/json");
    for body in [&b"{"[..], b"[]", b"null", b"5", b"\"x\"", b"\xff\xfe", b"{\"name\": \"\xff\"}", b"{'name': 1}", b""] {
        check(body, json);
    }
    check(format!("{{\"name\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)).as_bytes(), json);
    assert!(check(br#"{"name":"x"}"#, Some("text/plain")).contains("Content-Type should be"));
    assert!(check(br#"{"name":"x"}"#, None).contains("Content-Type header is missing"));
    let large = Request::post("/api/2.0/mlflow/experiments/create")
        .header("content-type", "application/json")
        .waiting(vec![b' '; 10]);
    assert_eq!(server.call(large).status, 400);
    assert_eq!(server.call(Request::get("/api/2.0/mlflow/nonsense")).status, 404);
    assert_eq!(
        server.call(Request::get("/api/2.0/mlflow/runs/create")).json::<Value>()["error_code"],
        "ENDPOINT_NOT_FOUND"
    );
}

/// Every field of every endpoint, with every kind of nonsense.
#[test]
fn no_mistake_is_answered_with_a_status_that_clients_repeat() {
    let server = Server::new();
    let run = server.run("0");
    let nasty = [
        json!(null),
        json!(true),
        json!(-1),
        json!(18446744073709551615u64),
        json!(1.5),
        json!(""),
        json!("x".repeat(5_000)),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!([{}]),
        json!([{"key": 1}]),
        json!({"key": null}),
        json!("\u{0}"),
        json!("💥"),
        json!("../.."),
    ];
    let calls: &[(&str, &[&str])] = &[
        ("experiments/create", &["name", "artifact_location", "tags"]),
        ("experiments/search", &["max_results", "filter", "order_by", "page_token", "view_type"]),
        ("experiments/set-experiment-tag", &["experiment_id", "key", "value"]),
        ("runs/create", &["experiment_id", "start_time", "tags", "run_name", "user_id"]),
        ("runs/update", &["run_id", "status", "end_time", "run_name"]),
        ("runs/set-tag", &["run_id", "key", "value"]),
        ("runs/log-metric", &["run_id", "key", "value", "timestamp", "step", "model_id", "dataset_name"]),
        ("runs/log-parameter", &["run_id", "key", "value"]),
        ("runs/log-batch", &["run_id", "metrics", "params", "tags"]),
        ("runs/log-inputs", &["run_id", "datasets", "models"]),
        ("runs/outputs", &["run_id", "models"]),
        ("runs/search", &["experiment_ids", "filter", "run_view_type", "max_results", "order_by", "page_token"]),
        ("logged-models", &["experiment_id", "name", "params", "tags", "source_run_id"]),
        ("logged-models/search", &["experiment_ids", "filter", "order_by", "max_results", "page_token", "datasets"]),
        ("registered-models/create", &["name", "tags", "description"]),
        ("registered-models/alias", &["name", "alias", "version"]),
        ("model-versions/create", &["name", "source", "run_id", "tags", "model_id"]),
        ("model-versions/transition-stage", &["name", "version", "stage", "archive_existing_versions"]),
    ];
    for (path, fields) in calls {
        for field in *fields {
            for value in &nasty {
                let mut body = json!({"run_id": run, "experiment_id": "0", "key": "k", "value": 1, "timestamp": 1, "experiment_ids": ["0"]});
                body[*field] = value.clone();
                let (status, answer) = server.send("POST", path, body);
                assert!(status < 500 && !matches!(status, 408 | 429), "{path} {field}={value}: {status} {answer}");
                assert!(status < 400 || answer["message"].is_string(), "{path} {field}={value}: {answer}");
            }
        }
    }
    let gets: &[&str] = &[
        "experiments/get",
        "runs/get",
        "metrics/get-history",
        "metrics/get-history-bulk-interval",
        "registered-models/get",
        "registered-models/search",
        "model-versions/search",
        "model-versions/get",
        "registered-models/alias",
        "artifacts/list",
    ];
    for path in gets {
        for field in [
            "experiment_id",
            "run_id",
            "run_ids",
            "name",
            "filter",
            "max_results",
            "page_token",
            "metric_key",
            "version",
            "alias",
            "order_by",
            "path",
        ] {
            for value in
                ["", "-1", "99999999999999999999999999", "\u{0}", "💥", "'", "a = ", "../x", &"x".repeat(3_000)]
            {
                let (status, answer) = server.try_get(path, &[(field, value)]);
                assert!(status < 500 && !matches!(status, 408 | 429), "{path} {field}={value}: {status} {answer}");
            }
        }
    }
    assert_eq!(server.get("experiments/get", &[("experiment_id", "0")])["experiment"]["name"], "Default");
}
