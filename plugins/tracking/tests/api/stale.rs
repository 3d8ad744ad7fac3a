//! Runs whose client died are closed, and opened again when it did not. The harness ticks twice each time.

use crate::Server;
use mainstay_sdk::http::Request;
use mainstay_sdk::testing::START_MS;
use serde_json::json;
use tracking::Tracking;

const MINUTE_MS: i64 = 60_000;

fn server(minutes: u32) -> Server {
    Server::with(json!({"stale-run-minutes": minutes}))
}

fn tick(server: &Server) {
    server.0.tick::<Tracking>("close-stale-runs").unwrap();
}

/// Status, end and the reason of a closing.
fn standing(server: &Server, run: &str) -> (String, Option<i64>, Option<String>) {
    let run = server.run_data(run);
    let tags = run["data"]["tags"].as_array().cloned().unwrap_or_default();
    let reason = tags.iter().find(|tag| tag["key"] == "mainstay.closed_reason");
    (
        run["info"]["status"].as_str().unwrap().to_owned(),
        run["info"]["end_time"].as_i64(),
        reason.map(|tag| tag["value"].as_str().unwrap().to_owned()),
    )
}

fn is_running(server: &Server, run: &str) -> bool {
    standing(server, run) == ("RUNNING".to_owned(), None, None)
}

fn log_metric(server: &Server, run: &str) {
    server.post("runs/log-metric", json!({"run_id": run, "key": "m", "value": 1, "timestamp": 1}));
}

#[test]
fn a_silent_run_is_closed_with_its_last_activity_as_its_end() {
    let server = server(60);
    let run = server.run("0");
    server.0.advance_ms(5 * MINUTE_MS);
    log_metric(&server, &run);
    let metrics = server.run_data(&run)["data"]["metrics"].clone();
    server.0.advance_ms(60 * MINUTE_MS - 1);
    tick(&server);
    assert!(is_running(&server, &run), "one ms is left");
    server.0.advance_ms(1);
    tick(&server);
    let reason = "Nothing was written for 60 minutes: its client is taken for dead.";
    let closed = ("FAILED".to_owned(), Some(START_MS + 5 * MINUTE_MS), Some(reason.to_owned()));
    assert_eq!(standing(&server, &run), closed);
    assert_eq!(server.run_data(&run)["data"]["metrics"], metrics);
    let told = server.told("runs").pop().unwrap();
    assert_eq!((told.kind.as_str(), told.key.as_deref()), ("run-failed", Some(run.as_str())));
    let expect = json!({"run_id": run, "experiment_id": "0", "from": "RUNNING", "to": "FAILED", "by": "tracking",
        "at_ms": START_MS + 65 * MINUTE_MS, "end_time": START_MS + 5 * MINUTE_MS, "reason": reason});
    assert_eq!(told.payload, expect);
    let logged = server.0.log().pop().unwrap().message;
    assert_eq!(logged, format!("run {run} was closed as FAILED. {reason}"));
    server.0.advance_ms(60 * MINUTE_MS);
    tick(&server);
    assert_eq!(standing(&server, &run), closed, "once");
    assert_eq!(server.kinds("runs"), ["run-created", "run-failed"]);
}

#[test]
fn only_running_runs_are_closed() {
    let server = server(60);
    let [finished, deleted, scheduled, silent] = [0; 4].map(|_| server.run("0"));
    server.post("runs/update", json!({"run_id": finished, "status": "FINISHED", "end_time": 3}));
    server.post("runs/update", json!({"run_id": scheduled, "status": "SCHEDULED"}));
    server.post("runs/delete", json!({"run_id": deleted}));
    server.0.advance_ms(60 * MINUTE_MS);
    tick(&server);
    assert_eq!(standing(&server, &finished), ("FINISHED".to_owned(), Some(3), None));
    assert_eq!(standing(&server, &scheduled).0, "SCHEDULED");
    assert_eq!(standing(&server, &deleted).0, "RUNNING");
    assert_eq!(standing(&server, &silent).0, "FAILED");
}

#[test]
fn never_means_never() {
    let server = server(0);
    let run = server.run("0");
    server.0.advance_ms(1_000 * 24 * 60 * MINUTE_MS);
    tick(&server);
    assert!(is_running(&server, &run));
}

#[test]
fn whatever_a_client_writes_is_activity() {
    let server = server(60);
    let check = |what: &str, write: &dyn Fn(&str)| {
        let run = server.run("0");
        server.0.advance_ms(59 * MINUTE_MS);
        write(&run);
        server.0.advance_ms(59 * MINUTE_MS);
        tick(&server);
        assert!(is_running(&server, &run), "{what}");
        server.0.advance_ms(MINUTE_MS);
        tick(&server);
        assert_eq!(standing(&server, &run).0, "FAILED", "{what}");
    };
    check("a metric", &|run| log_metric(&server, run));
    check("a param", &|run| drop(server.post("runs/log-parameter", json!({"run_id": run, "key": "p", "value": "1"}))));
    check("a tag", &|run| drop(server.post("runs/set-tag", json!({"run_id": run, "key": "t", "value": "v"}))));
    check("a name", &|run| drop(server.post("runs/update", json!({"run_id": run, "run_name": "n"}))));
    check("a file", &|run| {
        let file = format!("/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/checkpoint/1");
        assert_eq!(server.call(Request::put(file).body("x")).status, 200);
    });
}

#[test]
fn a_run_that_is_written_to_again_goes_on() {
    let server = server(60);
    let run = server.run("0");
    server.0.advance_ms(60 * MINUTE_MS);
    tick(&server);
    server.0.advance_ms(MINUTE_MS);
    log_metric(&server, &run);
    assert_eq!(standing(&server, &run).0, "FAILED", "logging looks at nothing");
    tick(&server);
    assert!(is_running(&server, &run));
    assert_eq!(server.kinds("runs"), ["run-created", "run-failed", "run-resumed"]);
    server.0.advance_ms(60 * MINUTE_MS);
    tick(&server);
    assert_eq!(standing(&server, &run).1, Some(START_MS + 61 * MINUTE_MS), "and is closed again");
}

/// Whoever ends a run knows better than the timer, whatever the end is.
#[test]
fn a_client_that_ends_its_run_has_the_last_word() {
    for status in ["FINISHED", "FAILED", "KILLED"] {
        let server = server(60);
        let run = server.run("0");
        server.0.advance_ms(60 * MINUTE_MS);
        tick(&server);
        server.0.advance_ms(MINUTE_MS);
        server.post("runs/update", json!({"run_id": run, "status": status, "end_time": 7}));
        tick(&server);
        assert_eq!(standing(&server, &run), (status.to_owned(), Some(7), None));
    }
}

/// A search over parameters starts its parts and is silent for days.
#[test]
fn a_run_is_at_work_while_a_part_of_it_is() {
    let server = server(60);
    let part_of = |parent: &str| {
        server.run_with(json!({"experiment_id": "0", "tags": [{"key": "mlflow.parentRunId", "value": parent}]}))
    };
    let whole = server.run("0");
    let part = part_of(&whole);
    let part_of_part = part_of(&part);
    let done = part_of(&whole);
    server.post("runs/update", json!({"run_id": done, "status": "FINISHED"}));
    let own_parent = part_of("x");
    server.post("runs/set-tag", json!({"run_id": own_parent, "key": "mlflow.parentRunId", "value": own_parent}));
    server.0.advance_ms(59 * MINUTE_MS);
    log_metric(&server, &part_of_part);
    server.post("runs/set-tag", json!({"run_id": done, "key": "reviewed", "value": "yes"}));
    server.0.advance_ms(MINUTE_MS);
    tick(&server);
    assert!([&whole, &part, &part_of_part].iter().all(|run| is_running(&server, run)));
    assert_eq!(standing(&server, &own_parent).0, "FAILED");
    server.0.advance_ms(59 * MINUTE_MS);
    tick(&server);
    for run in [&whole, &part, &part_of_part] {
        assert_eq!(standing(&server, run).0, "FAILED");
    }
}

#[test]
fn many_are_closed_in_steps() {
    let server = server(60);
    let runs: Vec<_> = (0..250).map(|_| server.run("0")).collect();
    server.0.advance_ms(60 * MINUTE_MS);
    tick(&server);
    assert!(runs.iter().all(|run| standing(&server, run).0 == "FAILED"));
    let lines = server.0.log();
    assert_eq!(lines.len(), 101, "a hundred are named");
    assert!(lines[100].message.starts_with("150 more runs were closed as FAILED."), "{}", lines[100].message);
}

/// The same change from two sides at once: one of them looks again.
#[test]
fn an_end_and_a_closing_meet() {
    use mainstay_sdk::{ErrorKind, Transaction, index, keys};
    let server = server(60);
    let run = server.run("0");
    let outcome = server.0.enter(|| {
        let key = tracking::store::run_key(&run);
        let before = keys::get(&key).unwrap().unwrap();
        let tx = Transaction::begin().unwrap();
        tx.expect_unchanged(&key).unwrap();
        tx.put(&key, before).unwrap();
        tx.index("runs").set(&run, [index::Field::new("status", "FAILED")]).unwrap();
        server.post("runs/update", json!({"run_id": run, "status": "FINISHED"}));
        tx.commit().map_err(|error| error.kind())
    });
    assert_eq!(outcome.unwrap_err(), ErrorKind::Conflict);
    assert_eq!(standing(&server, &run).0, "FINISHED");
}

#[test]
fn other_timers_are_not_known() {
    let error = server(60).0.tick::<Tracking>("nightly").unwrap_err();
    assert_eq!(error.message(), "this plugin has no timer `nightly`");
    assert_eq!(error.kind(), mainstay_sdk::ErrorKind::Invalid);
}
