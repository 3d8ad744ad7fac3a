//! Origins, warnings, and removal for good.

use crate::{Server, column};
use mainstay_sdk::http::Request;
use serde_json::{Value, json};

fn traced(server: &Server) -> String {
    let run = server.run_with(json!({"tags": [{"key": "mlflow.source.git.commit", "value": "c0ffee"}]}));
    server.post("runs/log-inputs", json!({"run_id": run, "datasets": [{"dataset": {"name": "census", "digest": "d1", "source_type": "x", "source": ""}}]}));
    run
}

fn register(server: &Server, name: &str, run: &str) {
    server.send("POST", "registered-models/create", json!({"name": name}));
    server.post("model-versions/create", json!({"name": name, "source": format!("runs:/{run}/model"), "run_id": run}));
}

#[test]
fn a_version_leads_to_run_commit_and_data_and_back() {
    let server = Server::new();
    let run = traced(&server);
    register(&server, "m", &run);
    server.post("registered-models/alias", json!({"name": "m", "alias": "best", "version": "1"}));
    let ask = |path: &str| server.call(Request::get(format!("/provenance/{path}")));
    let chain: Value = ask("models/m/versions/1").json();
    assert_eq!((&chain["run"]["run_id"], &chain["run"]["git_commit"]), (&json!(run), &json!("c0ffee")));
    assert_eq!(chain["run"]["datasets"], json!([{"name": "census", "digest": "d1"}]));
    assert_eq!(
        (&chain["aliases"], &chain["missing"], &chain["is_complete"]),
        (&json!(["best"]), &json!([]), &json!(true))
    );
    assert_eq!(column(&ask("datasets/census?digest=d1").json::<Value>()["models"], &["name"]), ["m"]);
    assert_eq!(ask("datasets/census?digest=d2").status, 404);
    assert_eq!(column(&ask(&format!("runs/{run}")).json::<Value>()["models"], &["version"]), ["1"]);
    assert_eq!(ask("models/m/versions/9").status, 404);
    assert_eq!(ask("models/none/versions/1").status, 404);

    let bare = server.run("0");
    register(&server, "m", &bare);
    let chain: Value = ask("models/m/versions/2").json();
    assert_eq!(chain["missing"].as_array().unwrap().len(), 2, "{chain}");
    let request = Request::post("/api/2.0/mlflow/registered-models/alias").header("content-type", "application/json");
    let answer = server.call(request.body(r#"{"name":"m","alias":"best","version":"2"}"#));
    assert_eq!(answer.status, 200);
    let warning = answer.header("x-mainstay-warning").unwrap();
    assert!(
        warning.contains("model m version 2 moved to alias 'best' although") && warning.contains("has no commit"),
        "{warning}"
    );
    assert!(server.0.log().iter().any(|line| line.message.contains("has no commit")));
}

#[test]
fn removal_is_guarded_and_leaves_nothing() {
    let server = Server::new();
    let run = traced(&server);
    server.post("runs/log-batch", json!({"run_id": run, "params": [{"key": "p", "value": "1"}], "metrics": [{"key": "m", "value": 1, "timestamp": 1}]}));
    let file = format!("/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/f.txt");
    server.call(Request::put(&file).body("x"));
    register(&server, "keeps", &run);
    let remove = || {
        let answer = server.call(Request::delete(format!("/runs/{run}")).query("permanent", "true"));
        (answer.status, answer.json::<Value>()["message"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(server.call(Request::delete(format!("/runs/{run}"))).status, 400);
    assert_eq!(
        server
            .call(Request::delete(format!("/runs/{run}")).query("permanent", "true").caller("bob", &["read", "write"]))
            .status,
        403
    );
    let (status, message) = remove();
    assert!(status == 409 && message.contains("is not deleted"), "{message}");
    server.post("runs/delete", json!({"run_id": run}));
    let (status, message) = remove();
    assert!(status == 409 && message.contains("model keeps version 1"), "{message}");
    let listed: Value = server.call(Request::get("/removals")).json();
    assert_eq!(column(&listed["runs"][0]["kept_by"], &["name"]), ["keeps"]);
    server.send("DELETE", "model-versions/delete", json!({"name": "keeps", "version": "1"}));
    assert_eq!(remove().0, 200);
    assert_eq!(server.try_get("runs/get", &[("run_id", &run)]).0, 404);
    assert_eq!(server.get("metrics/get-history", &[("run_id", &run), ("metric_key", "m")]), json!({}));
    assert_eq!(server.call(Request::get(&file)).status, 404);
    assert_eq!(remove().0, 404);
    let left = server.0.enter(|| {
        mainstay_sdk::keys::scan(mainstay_sdk::KeyRange::all())
            .into_iter()
            .filter(|e| e.as_ref().unwrap().key.windows(run.len()).any(|part| part == run.as_bytes()))
            .count()
    });
    assert_eq!(left, 0, "keys of the run are left");
}

#[test]
fn the_sweep_takes_what_is_over() {
    let server = Server::with(json!({"retention-days": 2}));
    let (old, kept, young) = (server.run("0"), traced(&server), server.run("0"));
    register(&server, "m", &kept);
    server.post("runs/delete", json!({"run_id": old}));
    server.post("runs/delete", json!({"run_id": kept}));
    server.0.advance_ms(2 * 86_400_000);
    server.post("runs/delete", json!({"run_id": young}));
    let swept: Value = server.call(Request::post("/removals")).json();
    assert_eq!(swept["removed_runs"], json!([old]));
    assert_eq!(column(&swept["kept"], &["run_id"]), [kept.as_str()]);
    server.post("runs/restore", json!({"run_id": young}));
}

#[test]
fn a_night_takes_everything_that_is_over_and_says_what_keeps_the_rest() {
    let server = Server::with(json!({"retention-days": 2}));
    let tick = || server.0.tick::<tracking::Tracking>("remove-deleted").unwrap();
    let (gone, kept) = (server.experiment("gone"), server.experiment("kept"));
    let (of_gone, of_kept) = (server.run(&gone), server.run(&kept));
    let logged = |experiment: &str| {
        let made = server.post("logged-models", json!({"experiment_id": experiment}));
        made["model"]["info"]["model_id"].as_str().unwrap().to_owned()
    };
    let (model, model_of_gone) = (logged("0"), logged(&gone));
    register(&server, "m", &of_kept);
    assert_eq!(server.send("DELETE", &format!("logged-models/{model}"), json!({})).0, 200);
    server.post("experiments/delete", json!({"experiment_id": gone}));
    server.post("experiments/delete", json!({"experiment_id": kept}));
    server.post("experiments/delete", json!({"experiment_id": "0"}));
    server.0.advance_ms(2 * 86_400_000 - 1);
    tick();
    let status = |path: &str, name: &str, id: &str| server.try_get(path, &[(name, id)]).0;
    assert_eq!(status("runs/get", "run_id", &of_gone), 200, "one ms is left");
    assert!(server.0.log().is_empty(), "nothing to say");
    server.0.advance_ms(1);
    tick();
    assert_eq!(status("runs/get", "run_id", &of_gone), 404);
    assert_eq!(status("experiments/get", "experiment_id", &gone), 404);
    for id in [&model, &model_of_gone] {
        assert_eq!(server.try_get(&format!("logged-models/{id}"), &[("allow_deleted", "true")]).0, 404);
    }
    assert_eq!(status("runs/get", "run_id", &of_kept), 200);
    assert_eq!(status("experiments/get", "experiment_id", &kept), 200);
    assert_eq!(status("experiments/get", "experiment_id", "0"), 200, "the default experiment stays");
    let log: Vec<_> = server.0.log().into_iter().map(|line| line.message).collect();
    let says = |part: &str| log.iter().any(|line| line.contains(part));
    assert!(says(&format!("run {of_kept} is deleted and its time is over, but it is kept.")), "{log:?}");
    assert!(says("The registry refers to it: model m version 1"), "{log:?}");
    assert!(says(&format!("experiment {kept} is deleted")), "{log:?}");
    assert!(says("removed for good: 1 runs, 1 logged models, 1 experiments; 3 are kept"), "{log:?}");
    assert_eq!(server.kinds("runs").into_iter().filter(|kind| kind == "run-removed").count(), 1);
}

/// What the registry keeps must not stand in the way of the rest.
#[test]
fn the_sweep_goes_on_behind_what_is_kept() {
    let server = Server::with(json!({"retention-days": 0}));
    let kept: Vec<_> = (0..1_001).map(|_| server.run("0")).collect();
    server.post("registered-models/create", json!({"name": "m"}));
    for run in &kept {
        let source = json!({"name": "m", "source": format!("runs:/{run}/model"), "run_id": run});
        server.post("model-versions/create", source);
        server.post("runs/delete", json!({"run_id": run}));
    }
    server.0.advance_ms(1);
    let last = server.run("0");
    server.post("runs/delete", json!({"run_id": last}));
    let swept: Value = server.call(Request::post("/removals")).json();
    assert_eq!(swept["removed_runs"], json!([last]));
    assert_eq!((&swept["kept_in_all"], &swept["is_unfinished"]), (&json!(1_001), &json!(false)));
    assert_eq!(swept["kept"].as_array().unwrap().len(), 200);
}

#[test]
fn an_experiment_goes_with_everything_and_frees_its_name() {
    let server = Server::new();
    let id = server.experiment("e");
    let run = server.run(&id);
    let model =
        server.post("logged-models", json!({"experiment_id": id, "source_run_id": run}))["model"]["info"]["model_id"]
            .clone();
    let remove = |id: &str| server.call(Request::delete(format!("/experiments/{id}")).query("permanent", "true"));
    assert_eq!(remove(&id).status, 409);
    server.post("experiments/delete", json!({"experiment_id": id}));
    server.send("POST", "registered-models/create", json!({"name": "m"}));
    server.post(
        "model-versions/create",
        json!({"name": "m", "source": format!("models:/{}", model.as_str().unwrap()), "model_id": model}),
    );
    let refused: Value = remove(&id).json();
    assert!(refused["message"].as_str().unwrap().contains("model m version 1"), "{refused}");
    server.send("DELETE", "registered-models/delete", json!({"name": "m"}));
    assert_eq!(remove(&id).status, 200);
    assert_eq!(server.try_get("experiments/get", &[("experiment_id", &id)]).0, 404);
    assert_eq!(server.try_get("runs/get", &[("run_id", &run)]).0, 404);
    assert_eq!(
        server.try_get(&format!("logged-models/{}", model.as_str().unwrap()), &[("allow_deleted", "true")]).0,
        404
    );
    assert_ne!(server.experiment("e"), id);
    assert_eq!(remove("0").status, 400);
}

/// A host that dies in the middle of something long: what was noted is finished at the next start.
#[test]
fn starting_finishes_what_a_crash_interrupted() {
    use mainstay_sdk::transact;
    use tracking::store;
    let server = Server::new();
    let id = server.experiment("e");
    let run = server.run(&id);
    let other = server.run("0");
    let file = format!("/api/2.0/mlflow-artifacts/artifacts/0/{other}/artifacts/f");
    server.call(Request::put(&file).body("x"));
    server.0.enter(|| {
        transact(|tx, _| {
            tx.put_json(store::cascade_key(&id), &json!({"experiment_id": id, "deleting": true}))?;
            let left = json!({"id": "run x", "prefixes": [], "artifacts": [format!("0/{other}/artifacts")]});
            tx.put_json(store::leftovers_key("run x"), &left)
        })
        .unwrap();
    });
    server.0.start::<tracking::Tracking>(Some("0.1.0")).unwrap();
    assert_eq!(server.run_data(&run)["info"]["lifecycle_stage"], "deleted");
    assert_eq!(server.call(Request::get(&file)).status, 404);
    server.0.enter(|| {
        assert_eq!(mainstay_sdk::keys::get(store::cascade_key(&id)).unwrap(), None);
        assert_eq!(mainstay_sdk::keys::get(store::leftovers_key("run x")).unwrap(), None);
    });
}
