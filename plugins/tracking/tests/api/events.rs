//! What is published: in the transaction of the change, with what was before and who did it.

use crate::Server;
use mainstay_sdk::http::Request;
use mainstay_sdk::testing::{Host, START_MS};
use serde_json::{Value, json};

/// Kind, key, and the payload without who and when, which are checked here.
fn plain(server: &Server, topic: &str) -> Vec<(String, String, Value)> {
    server
        .told(topic)
        .into_iter()
        .map(|mut event| {
            let payload = event.payload.as_object_mut().unwrap();
            assert_eq!(payload.remove("by"), Some(json!("anonymous")), "{}", event.kind);
            assert_eq!(payload.remove("at_ms"), Some(json!(START_MS)), "{}", event.kind);
            (event.kind, event.key.unwrap(), event.payload)
        })
        .collect()
}

fn of(kind: &str, key: &str, mut payload: Value, more: Value) -> (String, String, Value) {
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (kind.to_owned(), key.to_owned(), payload)
}

#[test]
fn every_transition_of_the_registry_is_told() {
    let server = Server::new();
    let patch = |path: &str, body: Value| assert_eq!(server.send("PATCH", path, body).0, 200);
    let remove = |path: &str, body: Value| assert_eq!(server.send("DELETE", path, body).0, 200);
    let version =
        || drop(server.post("model-versions/create", json!({"name": "m", "source": "s3://b/m", "comment": "c"})));
    let tags = json!([{"key": "a", "value": "b"}]);
    server.post("registered-models/create", json!({"name": "m", "description": "d", "tags": tags}));
    patch("registered-models/update", json!({"name": "m", "description": "e"}));
    server.post("registered-models/set-tag", json!({"name": "m", "key": "a", "value": "c"}));
    remove("registered-models/delete-tag", json!({"name": "m", "key": "a"}));
    version();
    version();
    patch("model-versions/update", json!({"name": "m", "version": "1", "description": "first"}));
    server.post("model-versions/set-tag", json!({"name": "m", "version": "1", "key": "k", "value": "v"}));
    remove("model-versions/delete-tag", json!({"name": "m", "version": "1", "key": "k"}));
    let stage = |version: &str, to: &str| json!({"name": "m", "version": version, "stage": to, "archive_existing_versions": true, "comment": "why"});
    server.post("model-versions/transition-stage", stage("1", "Production"));
    server.post("model-versions/transition-stage", stage("2", "Production"));
    let alias = |version: &str| json!({"name": "m", "alias": "best", "version": version});
    server.post("registered-models/alias", alias("1"));
    server.post("registered-models/alias", alias("2"));
    server.post("registered-models/alias", alias("2"));
    remove("registered-models/alias", json!({"name": "m", "alias": "best"}));
    remove("registered-models/alias", json!({"name": "m", "alias": "best"}));
    server.post("registered-models/alias", alias("2"));
    let said = server.call(Request::post("/registry/m/decisions").json(&json!({"comment": "good", "version": "2"})));
    assert_eq!(said.status, 200);
    remove("model-versions/delete", json!({"name": "m", "version": "2"}));
    server.post("registered-models/rename", json!({"name": "m", "new_name": "n"}));
    remove("registered-models/delete", json!({"name": "n"}));

    let m = |kind: &str, more: Value| of(kind, "m", json!({"name": "m", "is_prompt": false}), more);
    let n = |kind: &str, more: Value| of(kind, "n", json!({"name": "n", "is_prompt": false}), more);
    let created = |version: &str| {
        let what = json!({"version": version, "source": "s3://b/m", "run_id": null, "model_id": null, "tags": {},
            "description": null, "comment": "c"});
        m("version-created", what)
    };
    let moved = |version: &str, from: &str, to: &str| {
        m("stage-changed", json!({"version": version, "from": from, "to": to, "comment": "why"}))
    };
    let pointed =
        |from: Value, to: &str| m("alias-set", json!({"alias": "best", "from": from, "to": to, "comment": null}));
    let unpointed = || m("alias-deleted", json!({"alias": "best", "from": "2", "to": null, "comment": null}));
    let expect = [
        m("model-created", json!({"description": "d", "tags": {"a": "b"}})),
        m("model-updated", json!({"from": "d", "to": "e"})),
        m("model-tag-set", json!({"key": "a", "from": "b", "to": "c"})),
        m("model-tag-deleted", json!({"key": "a", "from": "c"})),
        created("1"),
        created("2"),
        m("version-updated", json!({"version": "1", "from": "", "to": "first"})),
        m("version-tag-set", json!({"version": "1", "key": "k", "from": null, "to": "v"})),
        m("version-tag-deleted", json!({"version": "1", "key": "k", "from": "v"})),
        moved("1", "None", "Production"),
        moved("1", "Production", "Archived"),
        moved("2", "None", "Production"),
        pointed(json!(null), "1"),
        pointed(json!("1"), "2"),
        unpointed(),
        pointed(json!(null), "2"),
        m("comment-added", json!({"version": "2", "comment": "good"})),
        unpointed(),
        m("version-deleted", json!({"version": "2", "stage": "Production"})),
        n("model-renamed", json!({"from": "m", "to": "n"})),
        n("model-deleted", json!({"versions": 1})),
    ];
    let told = plain(&server, "registry");
    for (told, expect) in told.iter().zip(&expect) {
        assert_eq!(told, expect);
    }
    assert_eq!(told.len(), expect.len());
}

#[test]
fn how_runs_stand_is_told_and_what_they_log_is_not() {
    let server = Server::new();
    let experiment = server.experiment("e");
    let tags = json!([{"key": "mlflow.parentRunId", "value": "p"}, {"key": "mlflow.runName", "value": "r"}]);
    let body = json!({"experiment_id": experiment, "user_id": "u", "start_time": 5, "tags": tags});
    let run = server.run_with(body);
    let metric = json!({"key": "k", "value": 1, "timestamp": 1});
    let pair = json!({"key": "k", "value": "v"});
    server.post("runs/log-batch", json!({"run_id": run, "metrics": [metric], "params": [pair], "tags": [pair]}));
    server.post("runs/set-tag", json!({"run_id": run, "key": "t", "value": "v"}));
    server.post("runs/update", json!({"run_id": run, "run_name": "other"}));
    for status in ["FINISHED", "FINISHED", "RUNNING", "SCHEDULED", "FAILED", "KILLED"] {
        server.post("runs/update", json!({"run_id": run, "status": status, "end_time": 9}));
    }
    for path in ["runs/delete", "runs/delete", "runs/restore", "runs/restore"] {
        server.post(path, json!({"run_id": run}));
    }
    for path in ["experiments/delete", "experiments/restore", "experiments/delete"] {
        server.post(path, json!({"experiment_id": experiment}));
    }
    let removed = server.call(Request::delete(format!("/runs/{run}")).query("permanent", "true"));
    assert_eq!(removed.status, 200);
    let r = |kind: &str, more: Value| of(kind, &run, json!({"run_id": run, "experiment_id": experiment}), more);
    let became = |kind: &str, from: &str, to: &str| r(kind, json!({"from": from, "to": to, "end_time": 9}));
    let together = json!({"with_experiment": true});
    let expect = [
        r("run-created", json!({"run_name": "r", "user_id": "u", "start_time": 5, "parent_run_id": "p"})),
        became("run-finished", "RUNNING", "FINISHED"),
        became("run-resumed", "FINISHED", "RUNNING"),
        became("run-scheduled", "RUNNING", "SCHEDULED"),
        became("run-failed", "SCHEDULED", "FAILED"),
        became("run-killed", "FAILED", "KILLED"),
        r("run-deleted", json!({})),
        r("run-restored", json!({})),
        r("run-deleted", together.clone()),
        r("run-restored", together.clone()),
        r("run-deleted", together),
        r("run-removed", json!({})),
    ];
    assert_eq!(plain(&server, "runs"), expect);
}

#[test]
fn who_did_it_is_told() {
    let server = Server::new();
    server.post_as("ada", "registered-models/create", json!({"name": "m"}));
    server.post_as("bob", "model-versions/create", json!({"name": "m", "source": "s3://b/m"}));
    server.post_as("eve", "registered-models/alias", json!({"name": "m", "alias": "a", "version": "1"}));
    let by: Vec<_> = server.told("registry").into_iter().map(|event| event.payload["by"].clone()).collect();
    assert_eq!(by, ["ada", "bob", "eve"]);
}

#[test]
fn what_was_refused_is_not_told() {
    let rule =
        json!({"kind": "model", "name-pattern": "*", "pointer": "production", "requires": [{"path": ["produced-by"]}]});
    let server = Server::on(Host::new().protect(json!([rule])));
    server.post("registered-models/create", json!({"name": "m"}));
    server.post("model-versions/create", json!({"name": "m", "source": "s3://b/m"}));
    let before = server.kinds("registry");
    for (path, body) in [
        ("registered-models/create", json!({"name": "m"})),
        ("registered-models/alias", json!({"name": "m", "alias": "production", "version": "1"})),
        ("registered-models/set-tag", json!({"name": "none", "key": "k", "value": "v"})),
        ("model-versions/transition-stage", json!({"name": "m", "version": "1", "stage": "x"})),
    ] {
        assert_ne!(server.send("POST", path, body).0, 200, "{path}");
    }
    assert_eq!(server.kinds("registry"), before);
}

/// Texts may be longer than an event: the change must not fail for that.
#[test]
fn what_is_too_long_is_told_cut_and_kept_whole() {
    let server = Server::new();
    server.post("registered-models/create", json!({"name": "m"}));
    let value = "é".repeat(100_000);
    server.post("registered-models/set-tag", json!({"name": "m", "key": "k", "value": value}));
    let told = server.told("registry").pop().unwrap().payload;
    assert_eq!((&told["is_cut"], told["to"].as_str().unwrap().len()), (&json!(true), 8_192));
    let kept = server.get("registered-models/get", &[("name", "m")]);
    assert_eq!(kept["registered_model"]["tags"][0]["value"], value);
}
