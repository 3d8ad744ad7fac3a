//! Logged models.

use crate::{Server, column};
use mainstay_sdk::http::Request;
use serde_json::{Value, json};

fn create(server: &Server, body: Value) -> String {
    let mut all = json!({"experiment_id": "0"});
    all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    server.post("logged-models", all)["model"]["info"]["model_id"].as_str().unwrap().to_owned()
}

#[test]
fn life_of_a_logged_model() {
    let server = Server::new();
    let run = server.run("0");
    let id = create(
        &server,
        json!({"name": "net", "model_type": "agent", "source_run_id": run, "params": [{"key": "p", "value": "1"}], "tags": [{"key": "a", "value": "b"}]}),
    );
    assert!(id.starts_with("m-") && id.len() == 34);
    let get = || server.get(&format!("logged-models/{id}"), &[])["model"].clone();
    let info = get()["info"].clone();
    assert_eq!(
        (&info["status"], &info["name"], &info["model_type"]),
        (&json!("LOGGED_MODEL_PENDING"), &json!("net"), &json!("agent"))
    );
    assert_eq!(info["artifact_uri"], format!("mlflow-artifacts:/0/models/{id}/artifacts"));
    for status in [json!(2), json!("LOGGED_MODEL_READY")] {
        let (code, done) =
            server.send("PATCH", &format!("logged-models/{id}"), json!({"model_id": id, "status": status}));
        assert_eq!((code, &done["model"]["info"]["status"]), (200, &json!("LOGGED_MODEL_READY")));
    }
    server.send(
        "PATCH",
        &format!("logged-models/{id}/tags"),
        json!({"tags": [{"key": "c", "value": "d"}, {"key": "a", "value": "e"}]}),
    );
    assert_eq!(server.send("DELETE", &format!("logged-models/{id}/tags/c"), json!({})).0, 200);
    server.refuse(
        "DELETE",
        &format!("logged-models/{id}/tags/c"),
        json!({}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "No tag with key 'c'",
    );
    server.post(
        &format!("logged-models/{id}/params"),
        json!({"params": [{"key": "q", "value": "2"}, {"key": "p", "value": "1"}]}),
    );
    server.refuse(
        "POST",
        &format!("logged-models/{id}/params"),
        json!({"params": [{"key": "p", "value": "x"}]}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Changing param values",
    );
    assert_eq!(get()["info"]["tags"], json!([{"key": "a", "value": "e"}]));
    assert_eq!(column(&get()["data"]["params"], &["key"]), ["p", "q"]);

    server.call(
        Request::put(format!("/api/2.0/mlflow-artifacts/artifacts/0/models/{id}/artifacts/dir/MLmodel")).body("x"),
    );
    let listed =
        server.get(&format!("logged-models/{id}/artifacts/directories"), &[("artifact_directory_path", "dir")]);
    assert_eq!(listed["files"], json!([{"path": "dir/MLmodel", "is_dir": false, "file_size": 1}]));

    assert_eq!(server.send("DELETE", &format!("logged-models/{id}"), json!({})).0, 200);
    assert_eq!(server.try_get(&format!("logged-models/{id}"), &[]).0, 404);
    assert_eq!(
        server.get(&format!("logged-models/{id}"), &[("allow_deleted", "true")])["model"]["info"]["model_id"],
        id.as_str()
    );
    server.refuse(
        "POST",
        "logged-models",
        json!({"experiment_id": "0", "name": "a/b"}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid model name ('a/b')",
    );
    server.refuse(
        "POST",
        "logged-models",
        json!({"experiment_id": "77"}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "No Experiment with id=77",
    );
}

#[test]
fn metrics_of_models_are_found_by_any_value_and_ordered_by_the_latest() {
    let server = Server::new();
    let run = server.run("0");
    let ids: Vec<_> = (0..4)
        .map(|n| create(&server, json!({"name": format!("n{n}"), "source_run_id": if n == 3 { &run } else { "" }})))
        .collect();
    let log = |n: usize, value: f64, timestamp: i64, dataset: Option<&str>| {
        let mut body = json!({"run_id": run, "key": "auc", "value": value, "timestamp": timestamp, "step": timestamp, "model_id": ids[n]});
        if let Some(dataset) = dataset {
            body["dataset_name"] = json!(dataset);
            body["dataset_digest"] = json!("1");
        }
        server.post("runs/log-metric", body);
    };
    log(0, 0.9, 1, None);
    log(0, 0.1, 2, None);
    log(1, 0.5, 1, Some("eval"));
    log(1, 0.5, 1, Some("eval"));
    log(2, 0.7, 1, Some("train"));
    let check = |body: Value, expect: &[&str]| {
        let mut all = json!({"experiment_ids": ["0"]});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let found = server.post("logged-models/search", all);
        let mut got = column(&found["models"], &["info", "name"]);
        if body.get("order_by").is_none() {
            got.sort_by_key(|name| name.as_str().unwrap().to_owned());
        }
        assert_eq!(got, expect, "{body}");
        found
    };
    check(json!({}), &["n0", "n1", "n2", "n3"]);
    check(json!({"filter": "metrics.auc > 0.6"}), &["n0", "n2"]);
    check(json!({"filter": "metrics.auc < 0.2"}), &["n0"]);
    check(json!({"filter": "metrics.auc = 0.5"}), &["n1"]);
    check(json!({"filter": "metrics.auc != 0.5"}), &["n0", "n2"]);
    check(json!({"filter": "name LIKE 'n%' AND source_run_id = 'x'"}), &[]);
    check(json!({"filter": format!("source_run_id = '{run}'")}), &["n3"]);
    check(json!({"filter": "metrics.auc > 0.4", "datasets": [{"dataset_name": "eval"}]}), &["n1"]);
    check(
        json!({"datasets": [{"dataset_name": "eval", "dataset_digest": "1"}, {"dataset_name": "train"}]}),
        &["n1", "n2"],
    );
    check(json!({"datasets": [{"dataset_name": "eval", "dataset_digest": "2"}]}), &[]);
    let by = |ascending: bool, dataset: Option<&str>| json!({"field_name": "metrics.auc", "ascending": ascending, "dataset_name": dataset});
    check(json!({"order_by": [by(true, None), {"field_name": "name"}]}), &["n0", "n1", "n2", "n3"]);
    check(json!({"order_by": [by(false, None)], "filter": "metrics.auc > 0"}), &["n2", "n1", "n0"]);
    check(
        json!({"order_by": [by(false, Some("eval")), {"field_name": "name", "ascending": false}]}),
        &["n1", "n3", "n2", "n0"],
    );
    let page = check(json!({"order_by": [{"field_name": "name"}], "max_results": 3}), &["n0", "n1", "n2"]);
    check(
        json!({"order_by": [{"field_name": "name"}], "max_results": 3, "page_token": page["next_page_token"]}),
        &["n3"],
    );
    let found = server.get(&format!("logged-models/{}", ids[1]), &[])["model"]["data"]["metrics"].clone();
    assert_eq!(
        found,
        json!([{"key": "auc", "value": 0.5, "timestamp": 1, "step": 1, "dataset_name": "eval", "dataset_digest": "1", "model_id": ids[1], "run_id": run}])
    );
    assert_eq!(server.run_data(&run)["data"]["metrics"][0]["key"], "auc");
    for (body, part) in [
        (
            json!({"experiment_ids": ["0"], "order_by": [{"field_name": "params.x"}]}),
            "only `metrics.<name>` is allowed",
        ),
        (json!({"experiment_ids": ["0"], "order_by": [{"field_name": "nope"}]}), "Invalid order by field name: nope"),
        (json!({"experiment_ids": ["0"], "datasets": [{}]}), "`dataset_name`"),
        (json!({"experiment_ids": ["0"], "filter": "tag.x = 'y'"}), "Invalid entity type"),
        (json!({}), "Missing value for required parameter 'experiment_ids'"),
    ] {
        server.refuse("POST", "logged-models/search", body, 400, "INVALID_PARAMETER_VALUE", part);
    }
}
