//! Experiments: names, stages, tags, search.

use crate::{Server, column};
use serde_json::{Value, json};

#[test]
fn the_default_experiment_is_there() {
    let server = Server::new();
    let found = server.get("experiments/get", &[("experiment_id", "0")]);
    assert_eq!(found["experiment"]["name"], "Default");
    assert_eq!(found["experiment"]["artifact_location"], "mlflow-artifacts:/0");
    // Starting again changes nothing.
    server.0.start::<tracking::Tracking>(Some("0.1.0")).unwrap();
    assert_eq!(server.get("experiments/get", &[("experiment_id", "00")]), found);
}

#[test]
fn identifiers_go_on_where_the_first_builds_stopped() {
    let server = Server::new();
    let counter = mainstay_sdk::Key::new().tag(b'x');
    server.0.enter(|| mainstay_sdk::transact(|tx, _| tx.put_json(counter.clone(), &41))).unwrap();
    server.0.start::<tracking::Tracking>(Some("0.1.0")).unwrap();
    server.0.start::<tracking::Tracking>(Some("0.1.0")).unwrap();
    assert_eq!(server.experiment("next"), "42");
}

#[test]
fn life_of_an_experiment() {
    let server = Server::new();
    let id = server.experiment("größer 📈");
    assert_eq!(id, "1");
    let by_name = |name: &str| server.try_get("experiments/get-by-name", &[("experiment_name", name)]);
    assert_eq!(by_name("größer 📈").1["experiment"]["experiment_id"], "1");
    assert_eq!(
        by_name("missing"),
        (
            404,
            json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Could not find experiment with name 'missing'"})
        )
    );
    let taken = "Experiment(name=größer 📈) already exists";
    server.refuse("POST", "experiments/create", json!({"name": "größer 📈"}), 400, "RESOURCE_ALREADY_EXISTS", taken);

    server.post("experiments/set-experiment-tag", json!({"experiment_id": id, "key": "a", "value": "b"}));
    server.post("experiments/update", json!({"experiment_id": id, "new_name": "other"}));
    assert_eq!(by_name("größer 📈").0, 404);
    let experiment = by_name("other").1["experiment"].clone();
    assert_eq!(experiment["tags"], json!([{"key": "a", "value": "b"}]));
    server.experiment("größer 📈");
    server.refuse(
        "POST",
        "experiments/update",
        json!({"experiment_id": id, "new_name": "größer 📈"}),
        400,
        "RESOURCE_ALREADY_EXISTS",
        "",
    );
    server.post("experiments/delete-experiment-tag", json!({"experiment_id": id, "key": "a"}));
    server.refuse(
        "POST",
        "experiments/delete-experiment-tag",
        json!({"experiment_id": id, "key": "a"}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "No tag with name: a",
    );
}

#[test]
fn deleting_takes_the_runs_along_and_restoring_brings_them_back() {
    let server = Server::new();
    let id = server.experiment("e");
    let runs: Vec<_> = (0..3).map(|_| server.run(&id)).collect();
    server.post("experiments/delete", json!({"experiment_id": id}));
    server.refuse(
        "POST",
        "experiments/delete",
        json!({"experiment_id": id}),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "No Experiment with id=1 exists",
    );
    let stage = |run: &String| server.run_data(run)["info"]["lifecycle_stage"].clone();
    assert!(runs.iter().all(|run| stage(run) == "deleted"));
    server.refuse(
        "POST",
        "runs/create",
        json!({"experiment_id": id}),
        400,
        "INVALID_PARAMETER_VALUE",
        "must be in the 'active' state",
    );
    server.refuse("POST", "experiments/create", json!({"name": "e"}), 400, "RESOURCE_ALREADY_EXISTS", "It is deleted");
    server.refuse(
        "POST",
        "experiments/update",
        json!({"experiment_id": id, "new_name": "f"}),
        400,
        "INVALID_PARAMETER_VALUE",
        "non-active",
    );
    server.refuse(
        "POST",
        "experiments/set-experiment-tag",
        json!({"experiment_id": id, "key": "k"}),
        400,
        "INVALID_PARAMETER_VALUE",
        "'active'",
    );
    assert_eq!(server.get("experiments/get", &[("experiment_id", &id)])["experiment"]["lifecycle_stage"], "deleted");
    server.post("experiments/restore", json!({"experiment_id": id}));
    assert!(runs.iter().all(|run| stage(run) == "active"));
    server.refuse("POST", "experiments/restore", json!({"experiment_id": id}), 404, "RESOURCE_DOES_NOT_EXIST", "");
}

#[test]
fn search_filters_orders_and_pages() {
    let server = Server::new();
    for (name, tag) in [("alpha", Some("x")), ("Beta", Some("y")), ("gamma", None)] {
        server.0.advance_ms(1_000);
        let tags = tag.map(|tag| json!([{"key": "t", "value": tag}])).unwrap_or(json!([]));
        server.post("experiments/create", json!({"name": name, "tags": tags}));
    }
    let check = |body: Value, expect: &[&str]| {
        let found = server.post("experiments/search", body.clone());
        assert_eq!(column(&found["experiments"], &["name"]), expect, "{body}");
        found
    };
    check(json!({}), &["gamma", "Beta", "alpha", "Default"]);
    check(json!({"filter": "name LIKE '%a'"}), &["gamma", "Beta", "alpha"]);
    check(json!({"filter": "name ILIKE 'b%'"}), &["Beta"]);
    check(json!({"filter": "name = 'alpha'"}), &["alpha"]);
    check(json!({"filter": "name != 'alpha'"}), &["gamma", "Beta", "Default"]);
    check(json!({"filter": "tags.t = 'x'"}), &["alpha"]);
    check(json!({"filter": "tags.t != 'x'"}), &["Beta"]);
    check(json!({"filter": "tags.t IS NULL"}), &["gamma", "Default"]);
    check(json!({"filter": "tags.t IS NOT NULL"}), &["Beta", "alpha"]);
    check(json!({"filter": "experiment_id IN ('1', '3')"}), &["gamma", "alpha"]);
    check(json!({"filter": "experiment_id NOT IN ('1', '3')"}), &["Beta", "Default"]);
    check(json!({"filter": "creation_time > 0 AND experiment_id = '02'"}), &["Beta"]);
    check(json!({"order_by": ["name"]}), &["Beta", "Default", "alpha", "gamma"]);
    check(json!({"order_by": ["experiment_id DESC"]}), &["gamma", "Beta", "alpha", "Default"]);
    check(json!({"filter": "name = 'nobody'"}), &[]);
    assert_eq!(server.post("experiments/search", json!({"filter": "name = 'nobody'"})), json!({}));

    let first = check(json!({"max_results": 2}), &["gamma", "Beta"]);
    let token = first["next_page_token"].clone();
    let second = check(json!({"max_results": 2, "page_token": token}), &["alpha", "Default"]);
    assert!(second.get("next_page_token").is_none(), "{second}");
    let all = check(json!({"max_results": 4}), &["gamma", "Beta", "alpha", "Default"]);
    assert!(all.get("next_page_token").is_none());
    for (body, part) in [
        (json!({"max_results": 0}), "positive integer"),
        (json!({"max_results": 50_001}), "at most 50000"),
        (json!({"page_token": "garbage"}), "Invalid page token"),
        (json!({"page_token": token, "filter": "name = 'x'"}), "another search"),
        (json!({"filter": "nope = 'x'"}), "Invalid attribute key"),
    ] {
        server.refuse("POST", "experiments/search", body, 400, "INVALID_PARAMETER_VALUE", part);
    }
    server.post("experiments/delete", json!({"experiment_id": "1"}));
    check(json!({"view_type": "DELETED_ONLY"}), &["alpha"]);
    check(json!({"view_type": 3, "filter": "name LIKE 'a%'"}), &["alpha"]);
    check(json!({"view_type": "ACTIVE_ONLY", "filter": "name LIKE 'a%'"}), &[]);
}

/// Those who are overtaken time and again are told so in the API's words, in a way that clients repeat.
#[test]
fn a_change_that_is_overtaken_every_time_says_that_nothing_happened() {
    use tracking::store::{change, experiment_key};
    let server = Server::new();
    let failure = server.0.enter(|| {
        let mut tries = 0;
        let failure = change(|tx| {
            tries += 1;
            tx.expect_absent(experiment_key("0"))?;
            Ok(())
        })
        .unwrap_err();
        assert!(tries > 10, "{tries}");
        failure
    });
    assert_eq!((failure.code.name(), failure.code.status()), ("TEMPORARILY_UNAVAILABLE", 503));
    for word in ["key `", "`tracking`", "read it again"] {
        assert!(!failure.message.contains(word), "{}", failure.message);
    }
    assert!(failure.message.contains("Nothing was written"), "{}", failure.message);
}

/// Ids come from a counter: what was created and refused leaves gaps and never a twin.
#[test]
fn ids_are_never_given_twice() {
    let server = Server::new();
    let first = server.experiment("a");
    server.refuse("POST", "experiments/create", json!({"name": "a"}), 400, "RESOURCE_ALREADY_EXISTS", "already exists");
    let second = server.experiment("b");
    assert!(second.parse::<i64>().unwrap() > first.parse::<i64>().unwrap());
}
