//! Jobs, predictions and SQL on a real server: applied, run, killed in between, looked at.

use crate::support::{Place, client, wait_until};
use serde_json::{Value, json};
use std::fs;

/// A job that runs a shell script in the test's folder.
fn job(place: &Place, name: &str, script: &str, more: &str) -> String {
    let folder = place.path("");
    format!(
        "[[jobs]]\nname = \"{name}\"\n{more}\naction = {{ kind = \"process\", settings = {{ program = \"/bin/sh\", \
         arguments = [\"-c\", '''{script}'''], folder = \"{}\", environment = {{ PATH = \"/usr/bin:/bin\" }} }} }}\n",
        folder.display()
    )
}

fn apply(place: &Place, text: &str) -> String {
    fs::write(place.path("jobs.toml"), text).unwrap();
    place.must(&["job", "apply", "jobs.toml"])
}

fn runs(place: &Place, job: &str) -> Vec<Value> {
    serde_json::from_str(&place.must(&["job", "list", job, "--json"])).unwrap()
}

#[test]
fn a_process_runs_prints_and_answers() {
    let place = Place::new();
    let server = place.serve(&["--plugins", "none"]);
    let script = "echo working on $MAINSTAY_JOB; echo \"{\\\"days\\\": $(echo $MAINSTAY_PARAMETERS | tr -dc 0-9)}\"";
    let told = apply(&place, &job(&place, "report", script, "parameters = { days = 7 }"));
    assert_eq!(told, "job report: new\n");
    assert_eq!(apply(&place, &fs::read_to_string(place.path("jobs.toml")).unwrap()), "job report: unchanged\n");

    let printed = place.must(&["job", "run", "report", "--set", "days=30"]);
    assert_eq!(printed, "working on report\n{\"days\": 30}\n");
    let run = &runs(&place, "report")[0];
    assert_eq!(run["state"]["end"], "success", "{run}");
    assert_eq!(run["state"]["result"], json!({"days": 30}), "its last line is its result");
    let id = run["id"].as_str().unwrap();
    assert_eq!(place.must(&["job", "logs", id]), printed, "and is kept");

    // The same key starts one run; a job that fails makes the command fail.
    place.must(&["job", "run", "report", "--key", "today"]);
    place.must(&["job", "run", "report", "--key", "today"]);
    assert_eq!(runs(&place, "report").len(), 2);
    apply(&place, &job(&place, "broken", "echo no luck >&2; exit 3", ""));
    let output = place.run(&["job", "run", "broken"]);
    assert_eq!(output.status.code(), Some(1), "{}", place.told(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("failure at"), "{}", place.told(&output));
    server.stop();
}

#[test]
fn a_run_survives_the_death_of_its_host_and_says_so() {
    let place = Place::new();
    let mut server = place.serve(&["--plugins", "none"]);
    // The first attempt marks that it began and hangs; a later one finds the mark.
    let script = "if [ -e mark ]; then echo again; else touch mark; sleep 600; fi";
    apply(&place, &job(&place, "long", script, "retry = { attempts = 3, base-ms = 100 }\nattempt-timeout-ms = 120000"));
    place.must(&["job", "run", "long", "--detach"]);
    wait_until("the first attempt begins", || place.path("mark").exists());
    server.signal("-KILL");
    server.wait();
    fs::remove_file(place.path("ready.json")).unwrap();
    let server = place.serve(&["--plugins", "none"]);
    wait_until("the run ends", || runs(&place, "long")[0]["state"]["kind"] == "ended");
    let run = &runs(&place, "long")[0];
    assert_eq!(run["state"]["end"], "success", "{run}");
    assert_eq!(
        run["attempts"].as_array().unwrap().len(),
        2,
        "the attempt of the dead host is kept with its reason: {run}"
    );
    server.stop();
}

#[test]
fn times_of_the_past_are_filled_once() {
    let place = Place::new();
    let server = place.serve(&["--plugins", "none"]);
    let daily = "triggers = [{ kind = \"cron\", expression = \"0 3 * * *\" }]\nconcurrency = 8";
    apply(&place, &job(&place, "daily", "true", daily));
    let ask = |more: &[&str]| {
        let range = ["job", "backfill", "daily", "--from", "2026-01-01", "--to", "2026-01-04"];
        place.must(&[&range[..], more].concat())
    };
    assert_eq!(ask(&["--dry-run"]).matches("would be started").count(), 3);
    assert!(runs(&place, "daily").is_empty());
    assert_eq!(ask(&[]).matches("started as").count(), 3);
    assert_eq!(ask(&[]).matches("has run").count(), 3, "a time that has a run gets no second one");
    assert_eq!(runs(&place, "daily").len(), 3);
    server.stop();
}

#[test]
fn what_is_wrong_with_a_job_is_told_with_its_line() {
    let place = Place::new();
    let server = place.serve(&["--plugins", "none"]);
    let check = |text: &str, expect: &str| {
        fs::write(place.path("jobs.toml"), text).unwrap();
        let told = place.told(&place.run(&["job", "apply", "jobs.toml"]));
        assert!(!told.starts_with("exit 0") && told.contains(expect), "{told} should hold {expect}");
    };
    check(
        "[[jobs]]\nname = \"a\"\naction = { kind = \"proces\" }\n",
        "known kinds are: outbound, plugin, process, timer",
    );
    check(
        "[[jobs]]\nname = \"host/a\"\naction = { kind = \"plugin\", settings = { plugin = \"x\" } }\n",
        "the host's own",
    );
    check("[[jobs]]\nname = \"a\"\ncolour = 1\naction = { kind = \"process\" }\n", "jobs.toml:3");
    check(&job(&place, "a", "true", "triggers = [{ kind = \"cron\", expression = \"61 * * * *\" }]"), "61 * * * *");
    server.stop();
    let told = place.told(&place.run(&["job", "list"]));
    assert!(told.contains("no server runs on") && told.contains("mainstay serve"), "{told}");
}

#[test]
fn predictions_are_joined_with_what_became_true_once() {
    let place = Place::new();
    let server = place.serve(&["--plugins", "none"]);
    let spec = "keep-days = 400\nfeatures = [{ name = \"age\", kind = \"real\" }, { name = \"email\", kind = \"text\", mark = \"restrict\" }]\n\
                outputs = [{ name = \"score\", kind = \"real\" }]\n";
    fs::write(place.path("log.toml"), spec).unwrap();
    assert_eq!(place.must(&["predictions", "apply", "shop", "log.toml"]), "log shop: 2 features, 1 outputs\n");
    let rows = r#"{"id": "a", "model": "m", "version": "1", "features": {"age": 31, "email": "a@b"}, "outputs": {"score": 0.25}}
{"id": "b", "model": "m", "version": "1", "features": {"age": null}, "outputs": {"score": 0.5}}
"#;
    fs::write(place.path("rows.jsonl"), rows).unwrap();
    assert_eq!(place.must(&["predictions", "post", "shop", "rows.jsonl"]), "2 rows added to shop\n");
    assert_eq!(
        place.must(&["predictions", "post", "shop", "rows.jsonl"]),
        "0 rows added to shop, 2 were there already\n"
    );
    let outcomes = r#"{"id": "b", "name": "label", "value": 1, "time-us": 2}
{"id": "b", "name": "label", "value": 0, "time-us": 1}
{"id": "z", "name": "label", "value": 1}
"#;
    fs::write(place.path("outcomes.jsonl"), outcomes).unwrap();
    assert_eq!(place.must(&["predictions", "outcomes", "shop", "outcomes.jsonl"]), "3 rows added to shop\n");
    let labelled = place.must(&["predictions", "labelled", "shop"]);
    let lines: Vec<&str> = labelled.lines().collect();
    assert_eq!(lines.len(), 3, "{labelled}");
    let value = |line: &str| {
        line.split(',').nth(lines[0].split(',').position(|name| name == "outcome_value").unwrap()).unwrap().to_owned()
    };
    assert_eq!((value(lines[1]), value(lines[2])), (String::new(), "1.0".to_owned()), "{labelled}");

    let asked = place.must(&["sql", "SELECT id, output_score FROM shop_predictions ORDER BY id", "--format", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&asked).unwrap(),
        json!([{"id": "a", "output_score": 0.25}, {"id": "b", "output_score": 0.5}])
    );
    assert_eq!(place.must(&["table", "list"]), "shop_outcomes\nshop_predictions\n");
    let told = place.told(&place.run(&["sql", "DROP TABLE shop_predictions"]));
    assert!(told.starts_with("exit 1") && told.contains("only queries"), "{told}");

    // A viewer reads, but not what is restricted; an editor posts; nobody but an administrator makes logs or reads jobs.
    let as_anybody = |method: reqwest::Method, path: &str, body: Value| {
        client().request(method, format!("{}{path}", server.url)).json(&body).send().unwrap()
    };
    let answer = as_anybody(
        reqwest::Method::POST,
        "/-/predictions/shop",
        json!({"rows": [{"id": "c", "features": {"height": 1}}]}),
    );
    assert_eq!(answer.status(), 400);
    assert!(answer.text().unwrap().contains("`height`"));
    server.stop();

    // What was acknowledged is there after the next start, out of files or not.
    let server = place.serve(&["--plugins", "none"]);
    assert_eq!(place.must(&["predictions", "labelled", "shop"]), labelled);
    place.must(&["table", "drop", "--yes", "shop_outcomes"]);
    assert_eq!(place.must(&["table", "list"]), "shop_predictions\n");
    server.stop();
}
