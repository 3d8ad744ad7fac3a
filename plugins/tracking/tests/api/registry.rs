//! The registry: models, versions, stages, aliases, and what the directory shows of it.

use crate::{Server, column};
use mainstay_sdk::directory::{self, Node};
use mainstay_sdk::http::Request;
use mainstay_sdk::testing::Host;
use serde_json::{Value, json};

fn version(server: &Server, name: &str, extra: Value) -> Value {
    let mut all = json!({"name": name, "source": "s3://bucket/model"});
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    server.post("model-versions/create", all)["model_version"].clone()
}

fn model(server: &Server, name: &str) {
    server.post("registered-models/create", json!({"name": name}));
}

#[test]
fn models() {
    let server = Server::new();
    let created = server.post(
        "registered-models/create",
        json!({"name": "m", "description": "d", "tags": [{"key": "a", "value": "b"}]}),
    );
    let get = |name: &str| server.try_get("registered-models/get", &[("name", name)]);
    assert_eq!(get("m").1, created);
    server.refuse(
        "POST",
        "registered-models/create",
        json!({"name": "m"}),
        400,
        "RESOURCE_ALREADY_EXISTS",
        "Registered Model (name=m) already exists.",
    );
    let prompt = json!({"name": "m", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]});
    server.refuse(
        "POST",
        "registered-models/create",
        prompt,
        400,
        "RESOURCE_ALREADY_EXISTS",
        "already taken by a registered model",
    );
    assert_eq!(
        server.send("PATCH", "registered-models/update", json!({"name": "m", "description": "e"})).1["registered_model"]
            ["description"],
        "e"
    );
    server.post("registered-models/set-tag", json!({"name": "m", "key": "k", "value": "v"}));
    assert_eq!(server.send("DELETE", "registered-models/delete-tag", json!({"name": "m", "key": "a"})).0, 200);
    version(&server, "m", json!({}));
    server.post("registered-models/alias", json!({"name": "m", "alias": "best", "version": "1"}));
    model(&server, "taken");
    server.refuse(
        "POST",
        "registered-models/rename",
        json!({"name": "m", "new_name": "taken"}),
        400,
        "RESOURCE_ALREADY_EXISTS",
        "already exists",
    );
    let renamed =
        server.post("registered-models/rename", json!({"name": "m", "new_name": "größer"}))["registered_model"].clone();
    assert_eq!(renamed["tags"], json!([{"key": "k", "value": "v"}]));
    assert_eq!(renamed["latest_versions"][0]["name"], "größer");
    assert_eq!(renamed["aliases"], json!([{"alias": "best", "version": "1"}]));
    assert_eq!(get("m").0, 404);
    server.0.enter(|| {
        assert_eq!(directory::subjects("model", None, 10).unwrap(), ["größer", "taken"]);
        assert_eq!(directory::pointer("model", "größer", "best").unwrap().unwrap().version, 1);
    });
    assert_eq!(server.send("DELETE", "registered-models/delete", json!({"name": "größer"})).0, 200);
    server.refuse(
        "DELETE",
        "registered-models/delete",
        json!({"name": "größer"}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Registered Model with name=größer not found",
    );
    assert_eq!(server.get("model-versions/search", &[("filter", "name = 'größer'")]), json!({}));
    server.0.enter(|| assert_eq!(directory::subjects("model", None, 10).unwrap(), ["taken"]));
    for name in ["", " ", "a/b", "a:b", ".."] {
        server.refuse("POST", "registered-models/create", json!({"name": name}), 400, "INVALID_PARAMETER_VALUE", "");
    }
}

#[test]
fn versions_are_numbered_without_gaps_or_reuse() {
    let server = Server::new();
    model(&server, "m");
    let first = version(&server, "m", json!({"tags": [{"key": "k", "value": "v"}], "description": "d"}));
    assert_eq!(
        (&first["version"], &first["current_stage"], &first["status"]),
        (&json!("1"), &json!("None"), &json!("READY"))
    );
    version(&server, "m", json!({}));
    assert_eq!(server.send("DELETE", "model-versions/delete", json!({"name": "m", "version": "2"})).0, 200);
    let get = |v: &str| server.try_get("model-versions/get", &[("name", "m"), ("version", v)]);
    assert_eq!(get("2").1["message"], "Model Version (name=m, version=2) not found");
    assert_eq!(version(&server, "m", json!({}))["version"], "3");
    assert_eq!(get("1").1["model_version"]["description"], "d");
    server.send("PATCH", "model-versions/update", json!({"name": "m", "version": "1", "description": "e"}));
    server.post("model-versions/set-tag", json!({"name": "m", "version": "1", "key": "a", "value": "b"}));
    server.send("DELETE", "model-versions/delete-tag", json!({"name": "m", "version": "1", "key": "k"}));
    let one = get("1").1["model_version"].clone();
    assert_eq!((&one["description"], &one["tags"]), (&json!("e"), &json!([{"key": "a", "value": "b"}])));
    assert_eq!(get("x").1["message"], "Parameter 'version' must be an integer, got 'x'.");
    assert_eq!(
        server.get("model-versions/get-download-uri", &[("name", "m"), ("version", "1")])["artifact_uri"],
        "s3://bucket/model"
    );
    server.refuse(
        "POST",
        "model-versions/create",
        json!({"name": "none", "source": "s3://x"}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "",
    );
}

#[test]
fn sources_lie_where_they_say() {
    let server = Server::new();
    model(&server, "m");
    let run = server.run("0");
    let logged =
        server.post("logged-models", json!({"experiment_id": "0", "name": "l", "source_run_id": run}))["model"]["info"]
            .clone();
    let id = logged["model_id"].as_str().unwrap();
    let ok = |body: Value, expect: (&str, &str)| {
        let made = version(&server, "m", body.clone());
        let number = made["version"].as_str().unwrap().to_owned();
        let uri = server.get("model-versions/get-download-uri", &[("name", "m"), ("version", &number)]);
        assert_eq!((uri["artifact_uri"].as_str().unwrap(), made["run_id"].as_str().unwrap()), expect, "{body}");
    };
    let root = format!("mlflow-artifacts:/0/models/{id}/artifacts");
    ok(json!({"source": format!("models:/{id}"), "model_id": id}), (&root, &run));
    ok(json!({"source": root, "model_id": id}), (&root, &run));
    ok(json!({"source": "models:/m/1"}), (&root, &run));
    let of_run = format!("mlflow-artifacts:/0/{run}/artifacts/model");
    ok(json!({"source": of_run, "run_id": run}), (&of_run, &run));
    let uri = format!("runs:/{run}/model");
    ok(json!({"source": uri, "run_id": run}), (&uri, &run));
    let tag = server.get(&format!("logged-models/{id}"), &[])["model"]["info"]["tags"][0].clone();
    assert_eq!(tag["key"], "mlflow.modelVersions");
    assert_eq!(column(&serde_json::from_str(tag["value"].as_str().unwrap()).unwrap(), &["version"]), [1, 2, 3]);

    let refuse = |body: Value, part: &str| {
        let mut all = json!({"name": "m"});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        server.refuse("POST", "model-versions/create", all, 400, "INVALID_PARAMETER_VALUE", part);
    };
    refuse(json!({"source": "/etc/passwd"}), "To use a local path");
    refuse(json!({"source": "file:///etc", "run_id": run}), "To use a local path");
    refuse(json!({"source": "s3://b/../x"}), "Please provide an absolute path");
    refuse(json!({"source": of_run}), "The run_id request parameter must identify");
    refuse(json!({"source": uri}), "The run_id request parameter must identify");
    refuse(
        json!({"source": "mlflow-artifacts:/0/other/artifacts", "run_id": run}),
        "The run_id request parameter must identify",
    );
    refuse(json!({"source": format!("mlflow-artifacts:/0/{run}/artifactsX"), "run_id": run}), "must identify");
    refuse(
        json!({"source": format!("models:/{id}"), "model_id": "m-other"}),
        "The model_id request parameter must identify",
    );
    refuse(json!({"source": "models:/m-00000000000000000000000000000000"}), "must identify");
    refuse(json!({"source": "models:/m/1", "run_id": "other"}), "must match the referenced model version");
}

#[test]
fn stages_and_what_is_latest() {
    let server = Server::new();
    model(&server, "m");
    (0..3).for_each(|_| drop(version(&server, "m", json!({}))));
    let to = |v: &str, stage: &str, archive: bool| {
        server.post("model-versions/transition-stage", json!({"name": "m", "version": v, "stage": stage, "archive_existing_versions": archive, "comment": "why not"}))
    };
    let latest = |stages: &[&str]| {
        let found = server.post("registered-models/get-latest-versions", json!({"name": "m", "stages": stages}));
        column(&found["model_versions"], &["version"])
    };
    let pointer = |stage: &str| server.0.enter(|| directory::pointer("model", "m", stage).unwrap().map(|p| p.version));
    to("1", "production", false);
    to("2", "PRODUCTION", false);
    to("3", "Staging", false);
    assert_eq!(latest(&[]), ["3", "2"]);
    assert_eq!(
        (pointer("stage:Production"), pointer("stage:Staging"), pointer("stage:None")),
        (Some(2), Some(3), None)
    );
    to("3", "Production", true);
    let stage = |v: &str| {
        server.get("model-versions/get", &[("name", "m"), ("version", v)])["model_version"]["current_stage"].clone()
    };
    assert_eq!(["1", "2", "3"].map(stage), ["Archived", "Archived", "Production"]);
    assert_eq!(latest(&["archived", "production"]), ["3", "2"]);
    assert_eq!(
        (pointer("stage:Production"), pointer("stage:Staging"), pointer("stage:Archived")),
        (Some(3), None, Some(2))
    );
    server.send("DELETE", "model-versions/delete", json!({"name": "m", "version": "3"}));
    assert_eq!(latest(&["production"]), Vec::<Value>::new());
    assert_eq!(pointer("stage:Production"), None);
    server.refuse(
        "POST",
        "model-versions/transition-stage",
        json!({"name": "m", "version": "1", "stage": "x"}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid Model Version stage: x. Value must be one of None, Staging, Production, Archived.",
    );
    server.refuse(
        "POST",
        "model-versions/transition-stage",
        json!({"name": "m", "version": "1", "stage": "None", "archive_existing_versions": true}),
        400,
        "INVALID_PARAMETER_VALUE",
        "is not an Active stage",
    );
    server.refuse(
        "POST",
        "registered-models/get-latest-versions",
        json!({"name": "m", "stages": ["x"]}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid Model Version stage",
    );

    let decisions: Value = server.call(Request::get("/registry/m/decisions")).json();
    let rows = column(&decisions["decisions"], &["what"]);
    assert_eq!(
        rows,
        [
            "deleted",
            "stage",
            "stage",
            "stage",
            "stage",
            "stage",
            "stage",
            "registered",
            "registered",
            "registered",
            "created"
        ]
    );
    assert_eq!(decisions["decisions"][1]["comment"], "why not");
    assert_eq!(decisions["decisions"][1]["by"], "anonymous");
    let comment = Request::post("/registry/m/decisions")
        .header("content-type", "application/json")
        .body(r#"{"comment":"kept for the audit","version":"1"}"#);
    assert_eq!(server.call(comment.caller("ada", &["read", "write"])).status, 200);
    let newest = server.call(Request::get("/registry/m/decisions")).json::<Value>()["decisions"][0].clone();
    assert_eq!(
        (&newest["by"], &newest["comment"], &newest["version"]),
        (&json!("ada"), &json!("kept for the audit"), &json!(1))
    );
}

#[test]
fn aliases() {
    let server = Server::new();
    model(&server, "m");
    (0..2).for_each(|_| drop(version(&server, "m", json!({}))));
    let set = |alias: &str, v: &str| {
        server.send("POST", "registered-models/alias", json!({"name": "m", "alias": alias, "version": v}))
    };
    assert_eq!((set("best", "1").0, set("next", "1").0, set("best", "2").0, set("best", "2").0), (200, 200, 200, 200));
    let by = |alias: &str| server.try_get("registered-models/alias", &[("name", "m"), ("alias", alias)]);
    assert_eq!(
        (by("best").1["model_version"]["version"].clone(), by("LATEST").1["model_version"]["version"].clone()),
        (json!("2"), json!("2"))
    );
    assert_eq!(by("best").1["model_version"]["aliases"], json!(["best"]));
    let (status, refusal) = by("none");
    assert_eq!(
        (status, &refusal["error_code"], &refusal["message"]),
        (400, &json!("INVALID_PARAMETER_VALUE"), &json!("Registered model alias none not found."))
    );
    assert_eq!(set("best", "9").0, 404);
    for bad in ["latest", "v5", "V12", "has space", "", "a/b"] {
        assert_eq!(set(bad, "1").0, 400, "{bad}");
    }
    let delete = |alias: &str| server.send("DELETE", "registered-models/alias", json!({"name": "m", "alias": alias})).0;
    assert_eq!((delete("next"), delete("next")), (200, 200));
    server.send("DELETE", "model-versions/delete", json!({"name": "m", "version": "2"}));
    assert_eq!(by("best").0, 400);
    server.0.enter(|| assert_eq!(directory::pointers("model", "m").unwrap(), []));
}

#[test]
fn searches() {
    let server = Server::new();
    for name in ["a", "b", "c"] {
        let tags = if name == "c" { json!([]) } else { json!([{"key": "t", "value": name}]) };
        server.post("registered-models/create", json!({"name": name, "tags": tags}));
        server.0.advance_ms(5);
    }
    server.post(
        "registered-models/create",
        json!({"name": "p", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}),
    );
    let models = |query: &[(&str, &str)], expect: &[&str]| {
        let found = server.get("registered-models/search", query);
        assert_eq!(column(&found["registered_models"], &["name"]), expect, "{query:?}");
        found
    };
    models(&[], &["a", "b", "c"]);
    models(&[("filter", "name LIKE '%' AND tag.`mlflow.prompt.is_prompt` != 'true'")], &["a", "b", "c"]);
    models(&[("filter", "tags.`mlflow.prompt.is_prompt` = 'true'")], &["p"]);
    models(&[("filter", "tags.t != 'a'")], &["b"]);
    models(&[("filter", "name IN ('a','c')"), ("order_by", "name DESC")], &["c", "a"]);
    models(&[("order_by", "last_updated_timestamp DESC"), ("order_by", "name")], &["c", "b", "a"]);
    let page = models(&[("max_results", "2")], &["a", "b"]);
    models(&[("max_results", "2"), ("page_token", page["next_page_token"].as_str().unwrap())], &["c"]);
    assert_eq!(server.try_get("registered-models/search", &[("max_results", "1001")]).0, 400);

    for n in 0..3 {
        version(&server, "a", json!({"tags": [{"key": "n", "value": n.to_string()}]}));
    }
    version(&server, "b", json!({}));
    let versions = |query: &[(&str, &str)], expect: &[&str]| {
        let found = server.get("model-versions/search", query);
        let got: Vec<_> = found["model_versions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|v| format!("{}{}", v["name"].as_str().unwrap(), v["version"].as_str().unwrap()))
            .collect();
        assert_eq!(got, expect, "{query:?}");
    };
    versions(&[("filter", "name = 'a'")], &["a3", "a2", "a1"]);
    versions(&[("filter", "name IN ('a','b') AND version_number <= 1")], &["a1", "b1"]);
    versions(&[("filter", "tags.n = '1'")], &["a2"]);
    versions(
        &[("filter", "source_path LIKE 's3:%'"), ("order_by", "name DESC"), ("order_by", "version_number ASC")],
        &["b1", "a1", "a2", "a3"],
    );
    versions(&[("filter", "run_id = 'x'")], &[]);
}

#[test]
fn versions_carry_their_origin_into_the_directory() {
    let server = Server::new();
    let run = server.run_with(json!({"tags": [{"key": "mlflow.source.git.commit", "value": "c0ffee"}]}));
    server.post("runs/log-inputs", json!({"run_id": run, "datasets": [{"dataset": {"name": "census", "digest": "d1", "source_type": "x", "source": ""}}]}));
    let file = server.call(
        Request::put(format!("/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/MLmodel")).body("hello"),
    );
    assert_eq!(file.status, 200);
    model(&server, "m");
    version(&server, "m", json!({"source": format!("mlflow-artifacts:/0/{run}/artifacts/model"), "run_id": run}));
    server.0.enter(|| {
        let known = directory::describe(&Node::version("model", "m", 1)).unwrap().unwrap();
        assert_eq!(
            (known.label("run-id"), known.label("source-commit"), known.label("data-digest")),
            (Some(run.as_str()), Some("c0ffee"), Some("census@d1"))
        );
        assert_eq!(known.attachments[0].path, "MLmodel");
        let edges = directory::edges_from(&Node::version("model", "m", 1)).unwrap();
        assert_eq!((edges[0].relation.as_str(), edges[0].target.name.as_str()), ("produced-by", run.as_str()));
        let data = directory::edges_from(&Node::subject("run", &run)).unwrap();
        assert_eq!((data[0].relation.as_str(), data[0].target.name.as_str()), ("trained-on", "census@d1"));
    });
}

/// The example of the host's configuration reference, and the same for a stage.
fn guarded() -> Server {
    let requires = json!([
        {"path": ["produced-by"], "label": {"key": "source-commit"}},
        {"path": ["produced-by", "trained-on"]},
    ]);
    let rule = |pointer: &str| json!({"kind": "model", "name-pattern": "*", "pointer": pointer, "requires": requires});
    Server::on(Host::new().protect(json!([rule("production"), rule("stage:Production")])))
}

fn point(server: &Server, version: &str) -> (u16, String) {
    let body = json!({"name": "m", "alias": "production", "version": version});
    let (status, answer) = server.send("POST", "registered-models/alias", body);
    (status, answer["message"].as_str().unwrap_or("").to_owned())
}

#[test]
fn a_protected_alias_waits_for_its_evidence_and_takes_what_comes_later() {
    let server = guarded();
    let run = server.run("0");
    model(&server, "m");
    version(&server, "m", json!({"source": format!("runs:/{run}/model"), "run_id": run}));
    #[track_caller]
    fn refused((status, message): (u16, String), parts: &[&str], never: &[&str]) {
        assert_eq!(status, 403, "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "`{part}` is not in: {message}"));
        never.iter().for_each(|part| assert!(!message.contains(part), "`{part}` is in: {message}"));
    }
    let (commit, data) = ("set the tag 'mlflow.source.git.commit'", "log its training data with log_input");
    refused(point(&server, "1"), &["source-commit", "trained-on", commit, data], &[]);
    assert!(server.0.log().iter().all(|line| !line.message.contains("moved to")), "it did not move");
    server.post("runs/set-tag", json!({"run_id": run, "key": "mlflow.source.git.commit", "value": "c0ffee"}));
    refused(point(&server, "1"), &["trained-on", data], &["source-commit", commit]);
    server.refuse(
        "POST",
        "model-versions/transition-stage",
        json!({"name": "m", "version": "1", "stage": "Production"}),
        403,
        "PERMISSION_DENIED",
        data,
    );
    let dataset = json!({"name": "d", "digest": "1", "source_type": "x", "source": ""});
    server.post("runs/log-inputs", json!({"run_id": run, "datasets": [{"dataset": dataset}]}));
    assert_eq!(point(&server, "1").0, 200);
    server.post("model-versions/transition-stage", json!({"name": "m", "version": "1", "stage": "Production"}));
    // The next version of the same run finds what is there, and brings it up to date.
    server.post("runs/set-tag", json!({"run_id": run, "key": "mlflow.source.git.commit", "value": "decade"}));
    version(&server, "m", json!({"source": format!("runs:/{run}/model"), "run_id": run}));
    assert_eq!(point(&server, "2").0, 200);
    server.0.enter(|| {
        let run = directory::describe(&Node::subject("run", &run)).unwrap().unwrap();
        assert_eq!(run.label("source-commit"), Some("decade"));
        let data = directory::describe(&Node::subject("dataset", "d@1")).unwrap().unwrap();
        assert_eq!((data.label("name"), data.label("digest")), (Some("d"), Some("1")));
    });
    // What is no longer known is no longer evidence.
    server.post("runs/delete-tag", json!({"run_id": run, "key": "mlflow.source.git.commit"}));
    assert_eq!(point(&server, "2").0, 200, "it leads there already");
    refused(point(&server, "1"), &["source-commit", commit], &["trained-on"]);
    version(&server, "m", json!({"source": "s3://elsewhere/model"}));
    refused(point(&server, "3"), &["register it from a run"], &[]);
    let other = json!({"name": "m", "alias": "other", "version": "3"});
    assert_eq!(server.send("POST", "registered-models/alias", other).0, 200, "it is not protected");
}

#[test]
fn datasets_of_any_name_are_evidence() {
    let server = guarded();
    model(&server, "m");
    let run = server.run_with(json!({"tags": [{"key": "mlflow.source.git.commit", "value": "c0ffee"}]}));
    let datasets: Vec<_> = ["é".repeat(500), "nul\0".into(), "d@1".into(), "d".into()]
        .iter()
        .zip(["1", "2", "2", "1@2"])
        .map(|(name, digest)| json!({"dataset": {"name": name, "digest": digest, "source_type": "x", "source": ""}}))
        .collect();
    server.post("runs/log-inputs", json!({"run_id": run, "datasets": datasets}));
    version(&server, "m", json!({"source": format!("runs:/{run}/model"), "run_id": run}));
    assert_eq!(point(&server, "1").0, 200);
    server.0.enter(|| assert_eq!(directory::edges_from(&Node::subject("run", &run)).unwrap().len(), 3));
}

/// One change moves the pointers of two stages to versions of one run, whose dataset was logged since.
#[test]
fn what_two_pointers_need_is_created_once() {
    let server = Server::new();
    model(&server, "m");
    let run = server.run("0");
    for number in ["1", "2"] {
        version(&server, "m", json!({"source": format!("runs:/{run}/model"), "run_id": run}));
        let stage = json!({"name": "m", "version": number, "stage": "Staging", "archive_existing_versions": true});
        let dataset = json!({"name": "d", "digest": number, "source_type": "x", "source": ""});
        server.post("runs/log-inputs", json!({"run_id": run, "datasets": [{"dataset": dataset}]}));
        server.post("model-versions/transition-stage", stage);
    }
    server.0.enter(|| {
        let pointers = directory::pointers("model", "m").unwrap();
        let pointers: Vec<_> = pointers.iter().map(|pointer| (pointer.name.as_str(), pointer.version)).collect();
        assert_eq!(pointers, [("stage:Archived", 1), ("stage:Staging", 2)]);
        assert_eq!(directory::edges_from(&Node::subject("run", &run)).unwrap().len(), 2);
    });
}

/// A tag does not bring back a version that is removed at the same time.
#[test]
fn tags_are_guarded_on_what_they_belong_to() {
    use mainstay_sdk::{ErrorKind, Transaction, keys};
    let server = Server::new();
    model(&server, "m");
    version(&server, "m", json!({}));
    version(&server, "m", json!({}));
    let after_meanwhile = |meanwhile: &dyn Fn()| {
        server.0.enter(|| {
            let model = tracking::registry::find("m").unwrap();
            keys::renew().unwrap();
            let tx = Transaction::begin().unwrap();
            model.version_must_stay(&tx, 1).unwrap();
            meanwhile();
            tx.commit().map(drop).map_err(|error| error.kind())
        })
    };
    let set = |path: &str, body: Value| drop(server.post(path, body));
    let others = || {
        set("registered-models/set-tag", json!({"name": "m", "key": "k", "value": "v"}));
        set("model-versions/set-tag", json!({"name": "m", "version": "1", "key": "k", "value": "v"}));
        set("registered-models/alias", json!({"name": "m", "alias": "a", "version": "1"}));
        server.send("DELETE", "model-versions/delete", json!({"name": "m", "version": "2"}));
    };
    assert_eq!(after_meanwhile(&others), Ok(()), "none of these is about the version's being there");
    let removal = || drop(server.send("DELETE", "model-versions/delete", json!({"name": "m", "version": "1"})));
    assert_eq!(after_meanwhile(&removal), Err(ErrorKind::Conflict));
    let removal = || drop(server.send("DELETE", "registered-models/delete", json!({"name": "m"})));
    assert_eq!(after_meanwhile(&removal), Err(ErrorKind::Conflict));
}
