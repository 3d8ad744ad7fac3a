//! The plugin on a host in memory, spoken to as clients speak. One binary, so that it is linked once; a file a topic.

mod artifacts;
mod bad_input;
mod events;
mod experiments;
mod history;
mod models;
mod provenance;
mod registry;
mod runs;
mod search;
mod stale;
mod webhooks;

use mainstay_sdk::http::Request;
use mainstay_sdk::testing::{Answer, EventOf, Host, Published, RequestBuilder};
use serde_json::{Value, json};
use tracking::Tracking;

/// A started plugin.
pub struct Server(pub Host);

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// With the default configuration.
    pub fn new() -> Self {
        Self::with(json!({}))
    }

    /// With this configuration.
    pub fn with(config: Value) -> Self {
        Self::on(Host::new().config(config))
    }

    /// On this host.
    pub fn on(host: Host) -> Self {
        host.start::<Tracking>(None).expect("the plugin starts");
        Self(host)
    }

    /// Any request.
    pub fn call(&self, request: RequestBuilder) -> Answer {
        self.0.call::<Tracking>(request)
    }

    /// A JSON call to the 2.0 API: status and body.
    pub fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = RequestBuilder::new(method, &format!("/api/2.0/mlflow/{path}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = self.call(request);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        (answer.status, answer.json())
    }

    /// A POST that must succeed.
    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("POST", path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// A POST of somebody that must succeed.
    #[track_caller]
    pub fn post_as(&self, who: &str, path: &str, body: Value) {
        let request = Request::post(format!("/api/2.0/mlflow/{path}")).json(&body).caller(who, &["read", "write"]);
        let answer = self.call(request);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }

    /// What was published to a topic.
    pub fn told(&self, topic: &str) -> Vec<Published> {
        self.0.published(topic)
    }

    /// Kinds of what was published to a topic.
    pub fn kinds(&self, topic: &str) -> Vec<String> {
        self.told(topic).into_iter().map(|event| event.kind).collect()
    }

    /// Let the plugin hear what it published to the registry's topic from number `from` on, as the host does.
    pub fn hear(&self, from: usize) -> mainstay_sdk::Result<()> {
        self.told("registry").into_iter().enumerate().skip(from).try_for_each(|(number, told)| {
            let event = EventOf::new(&told.topic, &told.kind, told.payload).id(&format!("event-{number}"));
            self.0.deliver::<Tracking>(&event)
        })
    }

    /// A GET that must succeed.
    #[track_caller]
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let (status, answer) = self.try_get(path, query);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// A GET: status and body.
    pub fn try_get(&self, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
        let mut request = Request::get(format!("/api/2.0/mlflow/{path}"));
        for (name, value) in query {
            request = request.query(*name, value);
        }
        let answer = self.call(request);
        (answer.status, answer.json())
    }

    /// A call that must be refused so.
    #[track_caller]
    pub fn refuse(&self, method: &str, path: &str, body: Value, status: u16, code: &str, part: &str) {
        let (got, answer) = self.send(method, path, body);
        assert_eq!(got, status, "{path}: {answer}");
        assert_eq!(answer["error_code"], code, "{path}: {answer}");
        let message = answer["message"].as_str().expect("a message");
        assert!(message.contains(part), "{path}: {message}");
    }

    /// A new experiment's id.
    pub fn experiment(&self, name: &str) -> String {
        self.post("experiments/create", json!({ "name": name }))["experiment_id"].as_str().unwrap().to_owned()
    }

    /// A new run's id.
    pub fn run(&self, experiment: &str) -> String {
        self.run_with(json!({ "experiment_id": experiment, "start_time": 1 }))
    }

    /// The id of a run created so.
    pub fn run_with(&self, body: Value) -> String {
        self.post("runs/create", body)["run"]["info"]["run_id"].as_str().unwrap().to_owned()
    }

    /// A run as `runs/get` shows it.
    pub fn run_data(&self, run: &str) -> Value {
        self.get("runs/get", &[("run_id", run)])["run"].clone()
    }
}

/// A list's members under one key, for comparisons.
pub fn column(rows: &Value, path: &[&str]) -> Vec<Value> {
    let rows = rows.as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| path.iter().fold(row, |value, key| &value[*key]).clone()).collect()
}
