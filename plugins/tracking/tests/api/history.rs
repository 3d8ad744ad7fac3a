//! The history of metrics: pages, bulk, samples.

use crate::{Server, column};
use mainstay_sdk::http::Request;
use serde_json::{Value, json};

fn server_with_history(rows: i64) -> (Server, String) {
    let server = Server::new();
    let run = server.run("0");
    let metrics: Vec<_> =
        (0..rows).map(|i| json!({"key": "m", "value": i % 5, "timestamp": i / 2, "step": i})).collect();
    for part in metrics.chunks(1_000) {
        server.post("runs/log-batch", json!({"run_id": run, "metrics": part}));
        // What was sent twice counts once.
        server.post("runs/log-batch", json!({"run_id": run, "metrics": part}));
    }
    (server, run)
}

#[test]
fn pages_hold_every_row_once_in_order() {
    let (server, run) = server_with_history(2_500);
    for limit in ["1000", "999", "2500", "3000"] {
        let (mut steps, mut token) = (Vec::new(), String::new());
        loop {
            let page = server.get(
                "metrics/get-history",
                &[("run_id", &run), ("metric_key", "m"), ("max_results", limit), ("page_token", &token)],
            );
            steps.extend(column(&page["metrics"], &["step"]));
            match page.get("next_page_token") {
                Some(next) => token = next.as_str().unwrap().to_owned(),
                None => break,
            }
        }
        assert_eq!(steps, (0..2_500).map(Value::from).collect::<Vec<_>>(), "{limit}");
    }
    let whole = server.get("metrics/get-history", &[("run_id", &run), ("metric_key", "m")]);
    assert_eq!(whole["metrics"].as_array().unwrap().len(), 2_500);
    assert_eq!(whole["metrics"][3], json!({"key": "m", "value": 3.0, "timestamp": 1, "step": 3}));
    for (query, part) in [
        (vec![("run_id", run.as_str()), ("metric_key", "m"), ("max_results", "0")], "positive integer"),
        (vec![("run_id", run.as_str()), ("metric_key", "m"), ("page_token", "x")], "Invalid page token"),
        (vec![("run_id", run.as_str())], "Missing value for required parameter 'metric_key'"),
    ] {
        let (status, answer) = server.try_get("metrics/get-history", &query);
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
}

#[test]
fn samples_keep_both_ends() {
    let (server, run) = server_with_history(100);
    let ask = |query: &[(&str, &str)]| {
        let mut all = vec![("run_ids", run.as_str()), ("metric_key", "m")];
        all.extend_from_slice(query);
        server.try_get("metrics/get-history-bulk-interval", &all)
    };
    let check = |query: &[(&str, &str)], expect: &[i64]| {
        let (status, answer) = ask(query);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(column(&answer["metrics"], &["step"]), expect, "{query:?}");
        assert!(column(&answer["metrics"], &["run_id"]).iter().all(|id| *id == run.as_str()));
    };
    check(&[("max_results", "4")], &[0, 25, 50, 99]);
    check(&[("max_results", "1")], &[99]);
    check(&[("start_step", "10"), ("end_step", "13")], &[10, 11, 12, 13]);
    check(&[("start_step", "200"), ("end_step", "300")], &[]);
    for (query, part) in [
        (&[("max_results", "0")][..], "between 1 and 2500"),
        (&[("max_results", "2501")], "between 1 and 2500"),
        (&[("start_step", "5")], "both must be specified"),
        (&[("start_step", "5"), ("end_step", "4")], "end_step must be greater"),
        (&[("start_step", "x"), ("end_step", "4")], "Invalid value"),
    ] {
        let (status, answer) = ask(query);
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    let many: Vec<_> = (0..101).map(|_| ("run_ids", run.as_str())).chain([("metric_key", "m")]).collect();
    assert_eq!(server.try_get("metrics/get-history-bulk-interval", &many).0, 400);
}

#[test]
fn bulk_is_grouped_by_run() {
    let server = Server::new();
    let mut runs = [server.run("0"), server.run("0")];
    runs.sort();
    for (value, run) in runs.iter().enumerate() {
        for step in 0..3 {
            server.post(
                "runs/log-metric",
                json!({"run_id": run, "key": "m", "value": value, "timestamp": 1, "step": step}),
            );
        }
    }
    let request = Request::get("/ajax-api/2.0/mlflow/metrics/get-history-bulk")
        .query("run_id", &runs[1])
        .query("run_id", &runs[0])
        .query("metric_key", "m");
    let answer: Value = server.call(request).json();
    assert_eq!(column(&answer["metrics"], &["value"]), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    let request = Request::get("/ajax-api/2.0/mlflow/metrics/get-history-bulk")
        .query("run_id", &runs[1])
        .query("metric_key", "none");
    assert_eq!(server.call(request).json::<Value>(), json!({"metrics": []}));
    let request = Request::get("/ajax-api/2.0/mlflow/metrics/get-history-bulk").query("metric_key", "none");
    assert_eq!(server.call(request).status, 400);
}
