//! Runs: creating, logging, stages, texts of refusals.

use crate::{Server, column};
use serde_json::{Value, json};

#[test]
fn life_of_a_run() {
    let server = Server::new();
    let created = server.post(
        "runs/create",
        json!({"experiment_id": "0", "user_id": "ada", "start_time": "123", "run_name": "first",
        "tags": [{"key": "a", "value": "b"}, {"key": "a", "value": "c"}]}),
    );
    let run = created["run"].clone();
    let id = run["info"]["run_id"].as_str().unwrap().to_owned();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(run["info"]["run_uuid"], run["info"]["run_id"]);
    assert_eq!(run["info"]["status"], "RUNNING");
    assert_eq!(run["info"]["start_time"], 123);
    assert_eq!(run["info"]["artifact_uri"], format!("mlflow-artifacts:/0/{id}/artifacts"));
    assert_eq!(run["data"]["tags"], json!([{"key": "a", "value": "c"}, {"key": "mlflow.runName", "value": "first"}]));
    let mut stored = server.run_data(&id);
    assert_eq!(stored.as_object_mut().unwrap().remove("outputs"), Some(json!({})));
    assert_eq!(stored, run);

    let updated =
        server.post("runs/update", json!({"run_id": id, "status": "FINISHED", "end_time": 456, "run_name": "second"}));
    assert_eq!(updated["run_info"]["status"], "FINISHED");
    assert_eq!(updated["run_info"]["end_time"], 456);
    let stored = server.run_data(&id);
    assert_eq!(stored["info"], updated["run_info"]);
    assert_eq!(stored["data"]["tags"][1]["value"], "second");
    server.post("runs/set-tag", json!({"run_uuid": id, "key": "mlflow.runName", "value": "third"}));
    assert_eq!(server.run_data(&id)["info"]["run_name"], "third");
    server.post("runs/delete-tag", json!({"run_id": id, "key": "a"}));
    server.refuse(
        "POST",
        "runs/delete-tag",
        json!({"run_id": id, "key": "a"}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "No tag with name: a in run with id",
    );

    server.post("runs/delete", json!({"run_id": id}));
    server.post("runs/delete", json!({"run_id": id}));
    let deleted = format!("The run {id} must be in the 'active' state. Current state is deleted.");
    for (path, body) in [
        ("runs/set-tag", json!({"run_id": id, "key": "k", "value": "v"})),
        ("runs/delete-tag", json!({"run_id": id, "key": "k"})),
        ("runs/update", json!({"run_id": id, "status": "FAILED"})),
        ("runs/log-metric", json!({"run_id": id, "key": "k", "value": 1, "timestamp": 1})),
        ("runs/log-parameter", json!({"run_id": id, "key": "k", "value": "1"})),
        ("runs/log-batch", json!({"run_id": id})),
        ("runs/log-inputs", json!({"run_id": id})),
        ("runs/outputs", json!({"run_id": id, "models": []})),
    ] {
        server.refuse("POST", path, body, 400, "INVALID_PARAMETER_VALUE", &deleted);
    }
    server.post("runs/restore", json!({"run_id": id}));
    server.post("runs/set-tag", json!({"run_id": id, "key": "k", "value": "v"}));
    assert_eq!(server.run_data(&id)["info"]["lifecycle_stage"], "active");
}

#[test]
fn names() {
    let server = Server::new();
    let check = |body: Value, expect: Option<&str>| {
        let run = server.post("runs/create", body);
        let name = run["run"]["info"]["run_name"].as_str().unwrap().to_owned();
        assert!(expect.is_none_or(|expect| expect == name), "{name}");
        assert_eq!(column(&run["run"]["data"]["tags"], &["value"]), [name]);
    };
    check(json!({"experiment_id": "0"}), None);
    check(json!({"experiment_id": "0", "run_name": "x"}), Some("x"));
    check(json!({"tags": [{"key": "mlflow.runName", "value": "y"}]}), Some("y"));
    check(json!({"run_name": "y", "tags": [{"key": "mlflow.runName", "value": "y"}]}), Some("y"));
    let both = json!({"run_name": "x", "tags": [{"key": "mlflow.runName", "value": "y"}]});
    server.refuse(
        "POST",
        "runs/create",
        both,
        400,
        "INVALID_PARAMETER_VALUE",
        "Both 'run_name' argument and 'mlflow.runName' tag are specified",
    );
}

#[test]
fn params_are_written_once() {
    let server = Server::new();
    let run = server.run("0");
    let log =
        |value: &str| server.send("POST", "runs/log-parameter", json!({"run_id": run, "key": "lr", "value": value}));
    assert_eq!(log("0.1").0, 200);
    assert_eq!(log("0.1"), (200, json!({})));
    let (status, refusal) = log("0.2");
    assert_eq!(status, 400);
    assert_eq!(
        refusal["message"],
        format!(
            "Changing param values is not allowed. Param with key='lr' was already logged with value='0.1' for run ID='{run}'. Attempted logging new value '0.2'."
        )
    );
    let batch = json!({"run_id": run, "params": [{"key": "new", "value": "1"}, {"key": "lr", "value": "0.3"}], "tags": [{"key": "t", "value": "v"}], "metrics": [{"key": "m", "value": 1, "timestamp": 1}]});
    server.refuse(
        "POST",
        "runs/log-batch",
        batch,
        400,
        "INVALID_PARAMETER_VALUE",
        "Params were already logged='[{'key': 'lr', 'old_value': '0.1', 'new_value': '0.3'}]'",
    );
    let data = server.run_data(&run)["data"].clone();
    assert_eq!(data["params"], json!([{"key": "lr", "value": "0.1"}]), "nothing of a refused batch stays");
    assert!(data.get("metrics").is_none() && data["tags"].as_array().unwrap().len() == 1);
    server.post(
        "runs/log-batch",
        json!({"run_id": run, "params": [{"key": "lr", "value": "0.1"}, {"key": "b", "value": "2"}]}),
    );
    assert_eq!(column(&server.run_data(&run)["data"]["params"], &["key"]), ["b", "lr"]);
    // Long keys share a prefix but not a guard.
    let long = "k".repeat(250);
    server.post("runs/log-parameter", json!({"run_id": run, "key": long, "value": ""}));
    server.refuse(
        "POST",
        "runs/log-parameter",
        json!({"run_id": run, "key": long, "value": "x"}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Changing param values",
    );
}

#[test]
fn the_latest_value_is_by_step_then_time_then_value() {
    let server = Server::new();
    let check = |points: &[(i64, i64, Value)], expect: Value| {
        let run = server.run("0");
        for (step, timestamp, value) in points {
            server.post(
                "runs/log-metric",
                json!({"run_id": run, "key": "m", "value": value, "timestamp": timestamp, "step": step}),
            );
        }
        let metric = server.run_data(&run)["data"]["metrics"][0].clone();
        assert_eq!(json!([metric["step"], metric["timestamp"], metric["value"]]), expect, "{points:?}");
    };
    check(&[(1, 5, json!(1.0)), (2, 4, json!(2.0)), (0, 9, json!(3.0))], json!([2, 4, 2.0]));
    check(&[(1, 5, json!(1.0)), (1, 6, json!(0.5))], json!([1, 6, 0.5]));
    check(&[(1, 5, json!(1.0)), (1, 5, json!(0.5))], json!([1, 5, 1.0]));
    check(&[(1, 5, json!(1.0)), (1, 5, json!("NaN"))], json!([1, 5, 1.0]));
    check(&[(-3, 5, json!(1.0)), (-2, 5, json!(7))], json!([-2, 5, 7.0]));
    check(&[(1, 5, json!("NaN"))], json!([1, 5, "NaN"]));
    check(&[(1, 5, json!("Infinity"))], json!([1, 5, f64::MAX]));
    check(&[(1, 5, json!("-Infinity"))], json!([1, 5, f64::MIN]));
    check(&[(i64::MAX, 5, json!(1.5)), (i64::MIN, 6, json!(2))], json!([i64::MAX, 5, 1.5]));
}

#[test]
fn batches() {
    let server = Server::new();
    let run = server.run("0");
    let metrics: Vec<_> =
        (0..900).map(|i| json!({"key": format!("m{}", i % 50), "value": i, "timestamp": 7, "step": i / 50})).collect();
    let params: Vec<_> = (0..50).map(|i| json!({"key": format!("p{i}"), "value": i.to_string()})).collect();
    let tags: Vec<_> = (0..50).map(|i| json!({"key": format!("t{i}"), "value": "x".repeat(10)})).collect();
    let batch = json!({"run_id": run, "metrics": metrics, "params": params, "tags": tags});
    server.post("runs/log-batch", batch.clone());
    let data = server.run_data(&run)["data"].clone();
    server.post("runs/log-batch", batch);
    assert_eq!(server.run_data(&run)["data"], data, "sent twice it is there once");
    assert_eq!(data["metrics"].as_array().unwrap().len(), 50);
    assert_eq!(data["metrics"].as_array().unwrap().iter().find(|m| m["key"] == "m7").unwrap()["value"], 857.0);
    assert_eq!((data["params"].as_array().unwrap().len(), data["tags"].as_array().unwrap().len()), (50, 51));
    let history = server.get("metrics/get-history", &[("run_id", &run), ("metric_key", "m7")]);
    assert_eq!(history["metrics"].as_array().unwrap().len(), 18);

    let check =
        |body: Value, part: &str| server.refuse("POST", "runs/log-batch", body, 400, "INVALID_PARAMETER_VALUE", part);
    let many = |n: usize, row: Value| vec![row; n];
    let metric = json!({"key": "m", "value": 1, "timestamp": 1});
    check(json!({"run_id": run, "metrics": many(1_001, metric.clone())}), "at most 1000 metrics. Got 1001 metrics");
    let pair = |i: usize| json!({"key": format!("k{i}"), "value": ""});
    check(json!({"run_id": run, "params": (0..101).map(pair).collect::<Vec<_>>()}), "at most 100 params");
    check(json!({"run_id": run, "tags": (0..101).map(pair).collect::<Vec<_>>()}), "at most 100 tags");
    check(
        json!({"run_id": run, "metrics": many(950, metric), "tags": (0..51).map(pair).collect::<Vec<_>>()}),
        "at most 1000 metrics, params, and tags",
    );
    check(json!({"run_id": run, "params": [pair(1), pair(1)]}), "Duplicate parameter keys have been submitted: ['k1']");
    check(
        json!({"run_id": run, "metrics": [{"key": "m", "value": 1}]}),
        "Missing value for required parameter 'metrics[0].timestamp'",
    );
    check(
        json!({"run_id": run, "metrics": [{"value": 1, "timestamp": 1}]}),
        "Missing value for required parameter 'metrics[0].key'",
    );
    check(
        json!({"run_id": run, "metrics": [{"key": "m", "timestamp": 1}]}),
        "Missing value for required parameter 'metrics[0].value'",
    );
    check(
        json!({"run_id": run, "metrics": [{"key": "m", "value": 1, "timestamp": -1}]}),
        "Invalid value -1 for parameter 'metrics[0].timestamp'",
    );
    check(
        json!({"run_id": run, "metrics": [{"key": "a//b", "value": 1, "timestamp": 1}]}),
        "parameter 'metrics[0].name'",
    );
    check(json!({"run_id": run, "metrics": [{"key": "m", "value": "abc", "timestamp": 1}]}), "Invalid value");
    check(json!({"run_id": run, "params": [{"value": "1"}]}), "Missing value for required parameter 'params[0].key'");
    check(json!({"run_id": run, "tags": [{"key": "../x"}]}), "parameter 'tags[0].key'");
    check(
        json!({"run_id": run, "metrics": "hi"}),
        "Invalid value \"hi\" for parameter 'metrics' supplied:  Hint: Value was of type 'str'",
    );
    check(json!({"metrics": []}), "Missing value for required parameter 'run_id'");
    check(
        json!({"run_id": run, "tags": [{"key": "t", "value": "x".repeat(1_000_000)}]}),
        "must be at most 1000000 bytes",
    );
    server.refuse(
        "POST",
        "runs/log-batch",
        json!({"run_id": "0".repeat(32)}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "not found",
    );
}

#[test]
fn long_values_are_cut_or_refused() {
    let cut = Server::new();
    let run = cut.run("0");
    cut.post("runs/log-parameter", json!({"run_id": run, "key": "p", "value": "é".repeat(6_001)}));
    cut.post("runs/set-tag", json!({"run_id": run, "key": "t", "value": "é".repeat(8_001)}));
    let data = cut.run_data(&run)["data"].clone();
    assert_eq!(data["params"][0]["value"].as_str().unwrap().chars().count(), 6_000);
    assert_eq!(data["tags"][1]["value"].as_str().unwrap().chars().count(), 8_000);

    let strict = Server::with(json!({"truncate-long-values": false}));
    let run = strict.run("0");
    let refuse = |path: &str, limit: usize| {
        let body = json!({"run_id": run, "key": "k", "value": "v".repeat(limit + 1)});
        strict.refuse(
            "POST",
            path,
            body,
            400,
            "INVALID_PARAMETER_VALUE",
            &format!("exceeds the maximum length of {limit} characters"),
        );
    };
    refuse("runs/log-parameter", 6_000);
    refuse("runs/set-tag", 8_000);
}

#[test]
fn inputs_and_outputs() {
    let server = Server::new();
    let run = server.run("0");
    let dataset = |name: &str, digest: &str| json!({"name": name, "digest": digest, "source_type": "local", "source": "{}", "schema": "{\"a\":1}"});
    let input = json!({"dataset": dataset("d", "1"), "tags": [{"key": "mlflow.data.context", "value": "training"}]});
    let body =
        json!({"run_id": run, "datasets": [input, {"dataset": dataset("e", "2")}], "models": [{"model_id": "m-1"}]});
    server.post("runs/log-inputs", body.clone());
    server.post("runs/log-inputs", body);
    server
        .post("runs/outputs", json!({"run_id": run, "models": [{"model_id": "m-2", "step": 3}, {"model_id": "m-3"}]}));
    server.post("runs/outputs", json!({"run_id": run, "models": [{"model_id": "m-2", "step": 3}]}));
    let data = server.run_data(&run);
    assert_eq!(data["inputs"]["dataset_inputs"], json!([input, {"dataset": dataset("e", "2")}]));
    assert_eq!(data["inputs"]["model_inputs"], json!([{"model_id": "m-1"}]));
    assert_eq!(
        data["outputs"],
        json!({"model_outputs": [{"model_id": "m-2", "step": 3}, {"model_id": "m-3", "step": 0}]})
    );
    let found = server.post("runs/search", json!({"experiment_ids": ["0"]}));
    assert_eq!(found["runs"], json!([data]));
    let summaries = server.post("experiments/search-datasets", json!({"experiment_ids": ["0"]}));
    assert_eq!(column(&summaries["dataset_summaries"], &["name"]), ["d", "e"]);
    assert_eq!(summaries["dataset_summaries"][0]["context"], "training");
    for (datasets, part) in [
        (json!([{}]), "Dataset cannot be None"),
        (json!([{"dataset": {"name": "x"}}]), "Dataset digest cannot be None"),
        (json!([{"dataset": dataset(&"n".repeat(501), "1")}]), "'name' exceeds the maximum length of 500"),
        (json!([{"dataset": dataset("x", &"d".repeat(37))}]), "'digest' exceeds the maximum length of 36"),
    ] {
        server.refuse(
            "POST",
            "runs/log-inputs",
            json!({"run_id": run, "datasets": datasets}),
            400,
            "INVALID_PARAMETER_VALUE",
            part,
        );
    }
}

#[test]
fn missing_runs() {
    let server = Server::new();
    let id = "0".repeat(32);
    for (path, body) in [
        ("runs/update", json!({"run_id": id, "status": "FAILED"})),
        ("runs/delete", json!({"run_id": id})),
        ("runs/restore", json!({"run_id": id})),
        ("runs/set-tag", json!({"run_id": id, "key": "k"})),
        ("runs/log-metric", json!({"run_id": id, "key": "k", "value": 1, "timestamp": 1})),
    ] {
        server.refuse("POST", path, body, 404, "RESOURCE_DOES_NOT_EXIST", &format!("Run with id={id} not found"));
    }
    assert_eq!(server.try_get("runs/get", &[("run_id", &id)]).0, 404);
    assert_eq!(server.get("metrics/get-history", &[("run_id", &id), ("metric_key", "m")]), json!({}));
}

/// More runs than one step of a deletion takes.
#[test]
fn a_large_experiment_is_deleted_whole() {
    let server = Server::new();
    let id = server.experiment("large");
    for _ in 0..1_203 {
        server.run(&id);
    }
    server.post("experiments/delete", json!({"experiment_id": id}));
    let count = |view: &str| {
        let found =
            server.post("runs/search", json!({"experiment_ids": [id], "run_view_type": view, "max_results": 5_000}));
        found["runs"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((count("ACTIVE_ONLY"), count("DELETED_ONLY")), (0, 1_203));
    server.post("experiments/restore", json!({"experiment_id": id}));
    assert_eq!((count("ACTIVE_ONLY"), count("DELETED_ONLY")), (1_203, 0));
}
