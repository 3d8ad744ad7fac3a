//! Webhooks: their requests, what each is sent, and that each event reaches each webhook once.

use crate::{Server, column};
use mainstay_sdk::http::Request;
use mainstay_sdk::outbound::{Answer, Call, Encoding, Signature};
use serde_json::{Value, json};

const URL: &str = "https://example.com/hook?x=1";

fn event(entity: &str, action: &str) -> Value {
    json!({"entity": entity, "action": action})
}

fn create(server: &Server, more: Value) -> Value {
    let mut all = json!({"name": "hook", "url": URL, "events": [event("MODEL_VERSION", "CREATED")]});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("webhooks", all)["webhook"].clone()
}

fn id(webhook: &Value) -> &str {
    webhook["webhook_id"].as_str().unwrap()
}

/// What the reference server sends, by its own source: body, headers, signature.
fn sent(url: &str, entity: &str, action: &str, data: Value, secret: Option<&str>) -> Call {
    let body =
        json!({"entity": entity, "action": action, "timestamp": "2026-01-01T00:00:00.000000+00:00", "data": data});
    let call = Call::new("POST", url)
        .header("content-type", "application/json")
        .body(body.to_string())
        .timeout_ms(30_000)
        .id_header("X-MLflow-Delivery-Id")
        .timestamp_header("X-MLflow-Timestamp");
    match secret {
        None => call,
        Some(secret) => call.sign(Signature {
            secret: secret.into(),
            template: "{id}.{timestamp}.{body}".into(),
            header: "X-MLflow-Signature".into(),
            prefix: "v1,".into(),
            encoding: Encoding::Base64,
        }),
    }
}

#[test]
fn life_of_a_webhook() {
    let server = Server::new();
    let events = json!([event("MODEL_VERSION_TAG", "SET"), event("REGISTERED_MODEL", "CREATED")]);
    let made = create(&server, json!({"events": events, "description": "d", "secret": "s3cret"}));
    let at = made["creation_timestamp"].as_i64().unwrap();
    let expect = json!({"webhook_id": id(&made), "name": "hook", "description": "d", "url": URL, "events": events,
        "status": "ACTIVE", "creation_timestamp": at, "last_updated_timestamp": at});
    assert_eq!(made, expect, "and nothing of the secret");
    let path = format!("webhooks/{}", id(&made));
    assert_eq!(server.get(&path, &[])["webhook"], made);
    assert_eq!(server.get("webhooks", &[])["webhooks"], json!([made]));
    assert_eq!(server.0.secrets(), [format!("webhook.{}", id(&made))]);

    server.0.advance_ms(7);
    let patch = |body: Value| {
        let (status, answer) = server.send("PATCH", &path, body);
        assert_eq!(status, 200, "{answer}");
        answer["webhook"].clone()
    };
    let changed = patch(json!({"name": "other", "status": "DISABLED", "description": ""}));
    let mut expect = made.clone();
    let members = expect.as_object_mut().unwrap();
    members.remove("description");
    members.extend(
        json!({"name": "other", "status": "DISABLED", "last_updated_timestamp": at + 7}).as_object().unwrap().clone(),
    );
    assert_eq!(changed, expect, "what was not given stays");
    assert_eq!(patch(json!({"status": 1}))["status"], "ACTIVE");
    assert_eq!(
        patch(json!({"url": "http://example.org", "events": [event("PROMPT", "CREATED")]}))["url"],
        "http://example.org"
    );
    assert_eq!(server.0.secrets().len(), 1);
    patch(json!({"secret": ""}));
    assert!(server.0.secrets().is_empty(), "an empty secret is none");
    patch(json!({"secret": "new"}));
    assert_eq!(server.0.secrets().len(), 1);

    assert_eq!(server.send("DELETE", &path, json!({})), (200, json!({})));
    assert!(server.0.secrets().is_empty());
    let missing = format!("Webhook with ID {} not found.", id(&made));
    for (method, path) in [("DELETE", path.clone()), ("PATCH", path.clone()), ("POST", format!("{path}/test"))] {
        server.refuse(method, &path, json!({}), 404, "RESOURCE_DOES_NOT_EXIST", &missing);
    }
    assert_eq!(server.try_get(&path, &[]).0, 404);
    assert_eq!(server.get("webhooks", &[]), json!({}));
    assert_eq!(server.try_get(&format!("webhooks/{}", "x".repeat(10_000)), &[]).0, 404);
}

#[test]
fn pages_are_newest_first() {
    let server = Server::new();
    let made: Vec<_> =
        (0..5).map(|number| create(&server, json!({"name": format!("hook-{number}")}))["name"].clone()).collect();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = server.get("webhooks", &[("max_results", "2"), ("page_token", &token)]);
        seen.extend(column(&page["webhooks"], &["name"]));
        create(&server, json!({"name": "meanwhile"}));
        match page["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, made.into_iter().rev().collect::<Vec<_>>());
    let message = |max_results: &str| server.try_get("webhooks", &[("max_results", max_results)]).1["message"].clone();
    assert_eq!(message("1001"), "max_results must be between 1 and 1000.");
    assert_eq!(message("-1"), "max_results must be between 1 and 1000.");
    assert_eq!(server.try_get("webhooks", &[("page_token", "garbage")]).0, 400);
}

#[test]
fn what_is_no_webhook_is_refused() {
    let server = Server::new();
    let check = |field: &str, value: Value, part: &str| {
        let mut body = json!({"name": "hook", "url": URL, "events": [event("MODEL_VERSION", "CREATED")]});
        body[field] = value.clone();
        server.refuse("POST", "webhooks", body, 400, "INVALID_PARAMETER_VALUE", part);
        if value != json!("") && value != json!([]) && !value.is_null() {
            let path = format!("webhooks/{}", id(&create(&server, json!({}))));
            server.refuse("PATCH", &path, json!({ field: value }), 400, "INVALID_PARAMETER_VALUE", part);
        }
    };
    check("name", json!(null), "Missing value for required parameter 'name'.");
    check("name", json!(""), "Missing value for required parameter 'name'.");
    check("name", json!("-x"), "Webhook name '-x' is invalid. It must start and end with a letter or digit");
    check("name", json!(1), "Invalid value 1 for parameter 'name' supplied:");
    check("url", json!("ftp://example.com"), "Invalid webhook URL scheme: 'ftp'.");
    check("url", json!(" "), "Webhook URL cannot be empty or just whitespace: ' '");
    check("url", json!("https://"), "Webhook URL must include a hostname: 'https://'");
    check("events", json!(null), "Missing value for required parameter 'events'.");
    check("events", json!([]), "Webhook events must be a non-empty list of WebhookEvent objects: [].");
    check("events", json!([event("MODEL_VERSION", "DELETED")]), "Invalid action 'deleted' for entity 'model_version'.");
    check("events", json!([1]), "Invalid value [1] for parameter 'events' supplied:");
    check("status", json!("ASLEEP"), "Invalid value \"ASLEEP\" for parameter 'status' supplied:");
    check("secret", json!("s".repeat(4_097)), "'secret' exceeds the maximum length of 4096 bytes");
    check("description", json!("d".repeat(1_001)), "'description' exceeds the maximum length of 1000 characters");
}

#[test]
fn there_is_a_most_of_them() {
    let server = Server::new();
    let made: Vec<_> = (0..tracking::webhooks::WEBHOOKS_MAX).map(|_| create(&server, json!({}))).collect();
    let one_more = json!({"name": "hook", "url": URL, "events": [event("MODEL_VERSION", "CREATED")]});
    server.refuse("POST", "webhooks", one_more, 413, "RESOURCE_EXHAUSTED", "There are 200 webhooks already");
    server.send("DELETE", &format!("webhooks/{}", id(&made[0])), json!({}));
    create(&server, json!({}));
}

/// All events that the API has, for models and prompts, by what the reference server's source sends.
#[test]
fn each_event_is_sent_as_the_reference_server_sends_it() {
    let server = Server::new();
    let all = [
        ("REGISTERED_MODEL", "CREATED"),
        ("MODEL_VERSION", "CREATED"),
        ("MODEL_VERSION_TAG", "SET"),
        ("MODEL_VERSION_TAG", "DELETED"),
        ("MODEL_VERSION_ALIAS", "CREATED"),
        ("MODEL_VERSION_ALIAS", "DELETED"),
        ("PROMPT", "CREATED"),
        ("PROMPT_VERSION", "CREATED"),
        ("PROMPT_TAG", "SET"),
        ("PROMPT_TAG", "DELETED"),
        ("PROMPT_VERSION_TAG", "SET"),
        ("PROMPT_VERSION_TAG", "DELETED"),
        ("PROMPT_ALIAS", "CREATED"),
        ("PROMPT_ALIAS", "DELETED"),
        ("BUDGET_POLICY", "EXCEEDED"),
    ];
    let events: Vec<_> = all.iter().map(|(entity, action)| event(entity, action)).collect();
    create(&server, json!({"events": events}));
    let run = server.run("0");
    let tag = |key: &str, value: &str| json!({"key": key, "value": value});
    let changes = |name: &str, mark: &[Value], source: &str, version: Value| {
        let with = |own: Value| mark.iter().cloned().chain([own]).collect::<Value>();
        let at = |more: Value| {
            let mut body = json!({"name": name, "version": "1"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let mut created = json!({"name": name, "source": source, "tags": with(tag("t", "u"))});
        created.as_object_mut().unwrap().extend(version.as_object().unwrap().clone());
        server.post("registered-models/create", json!({"name": name, "tags": with(tag("a", "b"))}));
        server.post("model-versions/create", created);
        server.post("registered-models/set-tag", at(tag("x", "y")));
        server.send("DELETE", "registered-models/delete-tag", json!({"name": name, "key": "x"}));
        server.post("model-versions/set-tag", at(tag("k", "v")));
        server.send("DELETE", "model-versions/delete-tag", at(json!({"key": "k"})));
        server.post("registered-models/alias", at(json!({"alias": "best"})));
        server.send("DELETE", "registered-models/alias", json!({"name": name, "alias": "best"}));
        // The API has no events for these.
        server.send("PATCH", "registered-models/update", json!({"name": name, "description": "d"}));
        server.send("PATCH", "model-versions/update", at(json!({"description": "d"})));
        server.send("DELETE", "model-versions/delete", at(json!({})));
        server.send("DELETE", "registered-models/delete", json!({"name": name}));
    };
    let source = format!("runs:/{run}/model");
    changes("m", &[], &source, json!({"run_id": run}));
    let mark = [tag("mlflow.prompt.is_prompt", "true"), tag("_mlflow_prompt_type", "text")];
    let text = [tag("mlflow.prompt.is_prompt", "true"), tag("mlflow.prompt.text", "Hello {{name}}!"), tag("t", "u")];
    changes("p", &mark, "dummy-source", json!({"tags": text, "description": "d"}));
    server.hear(0).unwrap();
    let expect = [
        ("registered_model", "created", json!({"name": "m", "tags": {"a": "b"}, "description": ""})),
        (
            "model_version",
            "created",
            json!({"name": "m", "version": "1", "source": source, "run_id": run, "tags": {"t": "u"}, "description": null}),
        ),
        ("model_version_tag", "set", json!({"name": "m", "version": "1", "key": "k", "value": "v"})),
        ("model_version_tag", "deleted", json!({"name": "m", "version": "1", "key": "k"})),
        ("model_version_alias", "created", json!({"name": "m", "alias": "best", "version": "1"})),
        ("model_version_alias", "deleted", json!({"name": "m", "alias": "best"})),
        ("prompt", "created", json!({"name": "p", "tags": {"a": "b"}, "description": ""})),
        (
            "prompt_version",
            "created",
            json!({"name": "p", "version": "1", "template": "Hello {{name}}!", "tags": {"t": "u"}, "description": "d"}),
        ),
        ("prompt_tag", "set", json!({"name": "p", "key": "x", "value": "y"})),
        ("prompt_tag", "deleted", json!({"name": "p", "key": "x"})),
        ("prompt_version_tag", "set", json!({"name": "p", "version": "1", "key": "k", "value": "v"})),
        ("prompt_version_tag", "deleted", json!({"name": "p", "version": "1", "key": "k"})),
        ("prompt_alias", "created", json!({"name": "p", "alias": "best", "version": "1"})),
        ("prompt_alias", "deleted", json!({"name": "p", "alias": "best"})),
    ];
    let deliveries = server.0.deliveries();
    for (delivery, (entity, action, data)) in deliveries.iter().zip(&expect) {
        assert_eq!(*delivery, sent(URL, entity, action, data.clone(), None));
    }
    assert_eq!(deliveries.len(), expect.len());
}

/// The harness tells everything twice, and fails where the second time does something more.
#[test]
fn those_that_wait_for_an_event_are_told_once_and_no_others() {
    let server = Server::new();
    let models = json!([event("REGISTERED_MODEL", "CREATED")]);
    let signed = create(&server, json!({"url": "https://a.example", "events": models, "secret": "s"}));
    create(&server, json!({"url": "https://b.example", "events": models}));
    create(&server, json!({"url": "https://c.example", "events": models, "status": "DISABLED"}));
    create(&server, json!({"url": "https://d.example"}));
    server.post("registered-models/create", json!({"name": "m"}));
    server.hear(0).unwrap();
    let data = json!({"name": "m", "tags": {}, "description": ""});
    let secret = format!("webhook.{}", id(&signed));
    let expect = [
        sent("https://b.example", "registered_model", "created", data.clone(), None),
        sent("https://a.example", "registered_model", "created", data, Some(&secret)),
    ];
    assert_eq!(server.0.deliveries(), expect);
    server.hear(0).unwrap_err();
    assert_eq!(server.0.deliveries().len(), 2, "an event that is settled is not told again");
}

#[test]
fn events_of_other_topics_reach_nobody() {
    let server = Server::new();
    create(&server, json!({}));
    server.post("registered-models/create", json!({"name": "m"}));
    server.post("model-versions/create", json!({"name": "m", "source": "s3://b/m"}));
    let told = server.told("registry").pop().unwrap();
    let elsewhere = mainstay_sdk::testing::EventOf::new("plugin/runs", &told.kind, told.payload);
    server.0.deliver::<tracking::Tracking>(&elsewhere).unwrap();
    assert!(server.0.deliveries().is_empty());
}

#[test]
fn a_test_is_sent_at_once_and_says_what_came_of_it() {
    let server = Server::new();
    let made = create(&server, json!({"secret": "s", "status": "DISABLED"}));
    let path = format!("webhooks/{}/test", id(&made));
    let secret = format!("webhook.{}", id(&made));
    let answer = |status: u16| server.0.answer(Answer { status, headers: Vec::new(), body: b"heard".to_vec() });
    answer(200);
    let heard = server.post(&path, json!({}));
    assert_eq!(heard["result"], json!({"success": true, "response_status": 200, "response_body": "heard"}));
    answer(503);
    let unwell = server.post(&path, json!({"event": event("PROMPT_ALIAS", "DELETED")}));
    assert_eq!(unwell["result"], json!({"success": false, "response_status": 503, "response_body": "heard"}));
    let unheard = server.post(&path, json!({}))["result"].clone();
    assert_eq!(unheard["success"], false);
    assert!(unheard["error_message"].as_str().unwrap().starts_with("Failed to test webhook: "), "{unheard}");
    server.refuse(
        "POST",
        &path,
        json!({"event": event("PROMPT", "SET")}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid action",
    );
    server.refuse(
        "POST",
        &path,
        json!({"event": 1}),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid value 1 for parameter 'event'",
    );
    let version = json!({"name": "example_model", "version": "1", "source": "models:/123", "run_id": "abcd1234abcd5678",
        "tags": {"example_key": "example_value"}, "description": "An example model version"});
    let alias = json!({"name": "example_prompt", "alias": "example_alias"});
    let calls = server.0.calls();
    assert_eq!(calls[0], sent(URL, "model_version", "created", version, Some(&secret)));
    assert_eq!(calls[1], sent(URL, "prompt_alias", "deleted", alias, Some(&secret)));
    assert_eq!(calls.len(), 3);
    assert!(server.0.deliveries().is_empty());
}

#[test]
fn other_requests_are_no_endpoints() {
    let server = Server::new();
    let path = format!("/api/2.0/mlflow/webhooks/{}", id(&create(&server, json!({}))));
    for request in [Request::put(&path), Request::get(format!("{path}/test")), Request::post(format!("{path}/x"))] {
        assert_eq!(server.call(request.json(&json!({}))).json::<Value>()["error_code"], "ENDPOINT_NOT_FOUND");
    }
}
