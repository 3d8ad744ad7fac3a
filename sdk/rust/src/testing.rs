//! A host in memory, on which plugins are tested natively.
//!
//! Owns [`Host`]: the host's own store, blobs and directory without files, a clock that moves when told to, seeded
//! randomness, and a record of what was logged and measured. What a component would be answered by the real host, a test
//! is answered by the same code; only limits, capabilities and HTTP itself are not in play (test those with the packed
//! component in a real host). Bounded by: memory. On failure: as the host; a mistake of the test itself panics.
//!
//! ```
//! use mainstay_sdk::http::{Reply, Request};
//! use mainstay_sdk::{Api, Result, blobs::BlobInfo, testing::Host, transact};
//!
//! struct Notes;
//!
//! impl Api for Notes {
//!     fn handle(request: &Request) -> Result<Reply> {
//!         match request.method() {
//!             "PUT" => Ok(Reply::receive(1 << 30, None)),
//!             _ => Ok(Reply::send(mainstay_sdk::blobs::lookup("note")?.unwrap().sha256)),
//!         }
//!     }
//!
//!     fn received(_: &Request, blob: BlobInfo) -> Result<Reply> {
//!         transact(|tx, _| tx.blobs().link("note", &blob.sha256))?;
//!         Ok(Reply::status(204))
//!     }
//! }
//!
//! let host = Host::new();
//! assert_eq!(host.call::<Notes>(Request::put("/note").waiting("a long body")).status, 204);
//! assert_eq!(host.call::<Notes>(Request::get("/note")).text(), "a long body");
//! ```

use crate::blobs::BlobInfo;
use crate::columns::Frame;
use crate::fallback::{Ask, Fallback, Learner, Lesson, Reply as StandIn};
use crate::http::{Body, Caller, Kind, Reply, Request};
use crate::log::Level;
use crate::outbound::{self, Call};
use crate::sys::{self, State};
use crate::tables::Schema;
use crate::tensors::{Parameter, Tensor};
use crate::traffic::{self, Endpoint};
use crate::worker::{self, Worker};
use crate::{Api, Error, ErrorKind, Result, metric};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::rc::Rc;

/// When the clock of a new host stands: 2026-01-01 00:00 UTC.
pub const START_MS: i64 = 1_767_225_600_000;

/// A host in memory.
pub struct Host(Rc<State>);

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Host {
    /// A host that stores nothing yet. Every new host has the same time and the same random numbers.
    pub fn new() -> Host {
        Host(Rc::new(State::new(START_MS)))
    }

    /// With this configuration of the plugin; `{}` unless given.
    pub fn config(self, config: serde_json::Value) -> Host {
        *self.0.config.borrow_mut() = config.to_string();
        self
    }

    /// With these rules for protected pointers, a list as in the host's configuration: each with `kind`, `name-pattern`,
    /// `pointer` and `requires`.
    pub fn protect(self, rules: serde_json::Value) -> Host {
        self.0.protect(rules);
        self
    }

    /// Let time pass.
    pub fn advance_ms(&self, by_ms: i64) {
        self.0.clock.advance_ms(by_ms);
    }

    /// Do something inside one call of a plugin: it has one view, and may use everything in this crate.
    pub fn enter<T>(&self, act: impl FnOnce() -> T) -> T {
        sys::enter(&self.0, act)
    }

    /// Start the plugin, as after an installation.
    pub fn start<P: Api>(&self, previous: Option<&str>) -> Result<()> {
        self.enter(|| P::start(previous))
    }

    /// Call the plugin and answer as the host would: bodies are received, blobs are sent, errors become problems.
    pub fn call<P: Api>(&self, request: impl Into<Request>) -> Answer {
        let request = request.into();
        match self.try_call::<P>(&request).and_then(|reply| self.finish::<P>(&request, reply)) {
            Ok(answer) => answer,
            Err(error) => Answer::of(Reply::problem(&error), error.status()),
        }
    }

    /// Call the plugin's handler; what it returned, as it is.
    pub fn try_call<P: Api>(&self, request: &Request) -> Result<Reply> {
        self.enter(|| P::handle(request))
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<Logged> {
        self.0.log.borrow().clone()
    }

    /// What was measured so far.
    pub fn metrics(&self) -> Vec<Measured> {
        self.0.metrics.borrow().clone()
    }

    fn finish<P: Api>(&self, request: &Request, reply: Reply) -> Result<Answer> {
        match reply.kind.clone() {
            Kind::Respond { status: status @ 200..=599 } => Ok(Answer::of(reply, status)),
            Kind::Respond { status } => Err(Error::invalid(format!("{status} is no status of an answer"))),
            Kind::Send { sha256 } => self.send(reply, &sha256),
            Kind::Receive { limit_bytes, sha256 } => self.receive::<P>(request, limit_bytes, sha256),
        }
    }

    fn send(&self, reply: Reply, sha256: &str) -> Result<Answer> {
        let body = self.enter(|| sys::blob_bytes(sha256))?;
        Ok(Answer::of(reply.with_body(body), 200))
    }

    fn receive<P: Api>(&self, request: &Request, limit_bytes: u64, sha256: Option<String>) -> Result<Answer> {
        let blob = match self.enter(|| sys::blob_receive(&request.source, limit_bytes, sha256)) {
            Ok(blob) => blob,
            Err(error) if error.kind() == ErrorKind::Exhausted => return Ok(Answer::of(Reply::problem(&error), 413)),
            Err(error) => return Err(error),
        };
        let again = Request::from_source(request.source.without_body());
        let reply = self.enter(|| P::received(&again, blob))?;
        if matches!(reply.kind, Kind::Receive { .. }) {
            return Err(Error::internal("the plugin answered `receive` to a body that was received"));
        }
        self.finish::<P>(&again, reply)
    }

    /// Tell the plugin of an event, twice, as the host may: what it keeps and causes must be the same after both. Answers what
    /// the first delivery answered. Panics, naming what changed, where the second one did something more.
    pub fn deliver<W: Worker>(&self, event: &EventOf) -> Result<()> {
        let Published { topic, kind, key, payload } = &event.0;
        let mut given = sys::Event {
            id: event.1.clone(),
            topic: topic.clone(),
            kind: kind.clone(),
            key: key.clone(),
            payload: payload.to_string().into_bytes(),
            published_ms: self.0.clock_ms(),
            delivery: 1,
        };
        let first = self.enter(|| W::on_event(&worker::Event(given.clone())));
        given.delivery = 2;
        self.again(first, || W::on_event(&worker::Event(given)))
    }

    /// Let the plugin carry out a run of a job, twice, as the host may: what it keeps and causes must be the same after both.
    pub fn run_job<W: Worker>(&self, job: &str, parameters: &serde_json::Value) -> Result<serde_json::Value> {
        let run = self.enter(|| format!("{:032x}", sys::random_number()));
        let attempt = |number| {
            let attempt = sys::Attempt {
                job: job.to_owned(),
                run: run.clone(),
                number,
                parameters: parameters.to_string(),
                scheduled_ms: None,
                log: std::cell::RefCell::default(),
                not_yet: std::cell::Cell::default(),
            };
            W::on_job(&worker::Attempt(attempt))
        };
        let first = self.enter(|| attempt(1));
        self.again(first, || attempt(2))
    }

    /// Let a timer's time come, twice, as the host may: what the plugin keeps and causes must be the same after both.
    pub fn tick<W: Worker>(&self, timer: &str) -> Result<()> {
        let timer = worker::Timer { name: timer.to_owned(), scheduled_ms: self.0.clock_ms() };
        let first = self.enter(|| W::on_timer(&timer));
        self.again(first, || W::on_timer(&timer))
    }

    /// Do it once more, and hold the plugin to having done nothing more.
    fn again<T>(&self, first: Result<T>, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let after_once = sys::kept(&self.0)?;
        // What the second time answers does not matter: an event that is settled is a conflict.
        let _ = self.enter(act);
        let after_twice = sys::kept(&self.0)?;
        let changed = after_twice.iter().find(|row| !after_once.contains(row));
        let changed = changed.or_else(|| after_once.iter().find(|row| !after_twice.contains(row)));
        if let Some((key, _)) = changed {
            panic!(
                "doing it twice changed `{}`: it must leave what doing it once leaves",
                String::from_utf8_lossy(key)
            );
        }
        first
    }

    /// What was published to a topic of the plugin's, oldest first.
    pub fn published(&self, topic: &str) -> Vec<Published> {
        let kept = sys::published(&self.0, &format!("plugin/{topic}")).expect("the topic's name is one");
        let plain = |event: mainstay_events::Event| Published {
            topic: event.topic,
            kind: event.kind,
            key: event.key,
            payload: serde_json::from_slice(&event.payload).expect("the plugin publishes JSON"),
        };
        kept.into_iter().map(plain).collect()
    }

    /// Let there be a job, as an operator defines it.
    pub fn define_job(&self, definition: serde_json::Value) -> Result<()> {
        sys::define_job(&self.0, definition)
    }

    /// The parameters of a job's runs, oldest first.
    pub fn job_runs(&self, job: &str) -> Vec<serde_json::Value> {
        let runs = sys::job_runs(&self.0, job).expect("the job's name is one");
        runs.into_iter().map(|run| serde_json::Value::Object(run.parameters)).collect()
    }

    /// Put rows into a table by the name that others know it by, as another plugin or the host would.
    pub fn fill_table(&self, name: &str, schema: &Schema, rows: &Frame) {
        sys::fill_table(&self.0, name, schema, &rows.0);
    }

    /// Calls that the plugin's transactions want delivered, in order.
    pub fn deliveries(&self) -> Vec<Call> {
        self.0.network.delivered.borrow().clone()
    }

    /// Calls that the plugin has sent, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.0.network.sent.borrow().clone()
    }

    /// What the next call that is sent is answered.
    pub fn answer(&self, answer: outbound::Answer) {
        self.0.network.answers.borrow_mut().push_back(answer);
    }

    /// Names of the secrets that are kept.
    pub fn secrets(&self) -> Vec<String> {
        self.0.network.secrets.borrow().iter().cloned().collect()
    }

    /// Let there be an endpoint, and this model behind it.
    pub fn serve(&self, endpoint: Endpoint, model: impl Fn(&traffic::Request) -> Result<traffic::Response> + 'static) {
        let name = endpoint.name.clone();
        self.0.endpoints.served.borrow_mut().insert(name, (endpoint, Rc::new(model)));
    }

    /// What endpoints were asked so far, oldest first.
    pub fn asked(&self) -> Vec<traffic::Request> {
        self.0.endpoints.asked.borrow().clone()
    }

    /// Let the plugin answer instead of a model; an answer that the host would refuse is the host's error.
    pub fn answer_instead<F: Fallback>(&self, ask: &AskOf) -> Result<StandIn> {
        *self.0.endpoints.stands_in_for.borrow_mut() = Some(ask.0.endpoint.clone());
        let reply = self.enter(|| F::answer(&Ask(ask.0.clone())));
        *self.0.endpoints.stands_in_for.borrow_mut() = None;
        let reply = reply?;
        sys::check_reply(&reply).map(|()| reply)
    }

    /// Tell the plugin of good answers.
    pub fn teach<L: Learner>(&self, lessons: &[Lesson]) -> Result<()> {
        self.enter(|| L::learn(lessons))
    }

    /// Store a blob from the outside, unnamed.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<BlobInfo> {
        self.enter(|| crate::blobs::put(bytes))
    }
}

/// An event that was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The publisher, a slash, the topic.
    pub topic: String,
    /// What happened.
    pub kind: String,
    /// To what.
    pub key: Option<String>,
    /// What is told of it.
    pub payload: serde_json::Value,
}

/// An event for [`Host::deliver`].
#[derive(Clone, Debug, PartialEq)]
pub struct EventOf(Published, String);

impl EventOf {
    /// An event of this topic (with its publisher) and kind.
    pub fn new(topic: &str, kind: &str, payload: serde_json::Value) -> EventOf {
        let published = Published { topic: topic.to_owned(), kind: kind.to_owned(), key: None, payload };
        EventOf(published, "1-0".to_owned())
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: &str) -> EventOf {
        self.0.key = Some(key.to_owned());
        self
    }

    /// With this name, unlike those of other events.
    #[must_use]
    pub fn id(mut self, id: &str) -> EventOf {
        self.1 = id.to_owned();
        self
    }
}

/// A request that was not answered, for [`Host::answer_instead`].
#[derive(Clone, Debug, PartialEq)]
pub struct AskOf(sys::Ask);

impl AskOf {
    /// A request to this endpoint with these inputs, which failed.
    pub fn new(endpoint: &str, inputs: Vec<Tensor>) -> AskOf {
        AskOf(sys::Ask {
            endpoint: endpoint.to_owned(),
            variant: Some("main".to_owned()),
            why: "failed".to_owned(),
            tenant: "default".to_owned(),
            inputs,
            parameters: Vec::new(),
            wanted: Vec::new(),
            remaining_ms: 100,
        })
    }

    /// Not answered for this reason.
    #[must_use]
    pub fn why(mut self, why: &str) -> AskOf {
        self.0.why = why.to_owned();
        self
    }

    /// Asked on this account.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> AskOf {
        self.0.tenant = tenant.to_owned();
        self
    }

    /// With this parameter.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: Parameter) -> AskOf {
        self.0.parameters.push((name.to_owned(), value));
        self
    }

    /// With this output wanted; all of them unless said.
    #[must_use]
    pub fn wanted(mut self, output: &str) -> AskOf {
        self.0.wanted.push(output.to_owned());
        self
    }
}

/// One message of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// How important it is.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(String, String)>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What it means.
    pub kind: metric::Kind,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

/// What the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers, in order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    fn of(reply: Reply, status: u16) -> Answer {
        Answer { status, headers: reply.headers, body: reply.body }
    }

    /// The first header of this name, any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text. Panics where it is not.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the answer's body is text")
    }

    /// The body as JSON. Panics where it is not, showing the answer.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "the answer is not the JSON expected: {error}: {} {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident => $method:literal),* $(,)?) => {
        impl Request {
            $($(#[$doc])* pub fn $name(target: impl AsRef<str>) -> RequestBuilder {
                RequestBuilder::new($method, target.as_ref())
            })*
        }
    };
}

methods! {
    /// A GET request for tests: a path, percent-encoded where needed, and perhaps `?` and a query.
    get => "GET",
    /// A POST request for tests.
    post => "POST",
    /// A PUT request for tests.
    put => "PUT",
    /// A PATCH request for tests.
    patch => "PATCH",
    /// A DELETE request for tests.
    delete => "DELETE",
    /// A HEAD request for tests.
    head => "HEAD",
}

/// A request of a test.
#[derive(Clone, Debug)]
pub struct RequestBuilder(sys::Request);

impl RequestBuilder {
    /// A request of any method.
    pub fn new(method: &str, target: &str) -> RequestBuilder {
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().expect("a test's target is UTF-8").into_owned();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs =
            query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let form = |text: &str| decode(&text.replace('+', " "));
        RequestBuilder(sys::Request {
            method: method.to_owned(),
            path: decode(path),
            query: pairs.map(|(name, value)| (form(name), form(value))).collect(),
            headers: Vec::new(),
            body: Body::Empty,
            waiting: None,
            caller: Caller {
                principal: "anonymous".to_owned(),
                rights: ["read", "write", "admin"].map(str::to_owned).to_vec(),
                tenant: "default".to_owned(),
            },
            base_url: "http://127.0.0.1:7600".to_owned(),
        })
    }

    /// Add a query parameter.
    pub fn query(mut self, name: impl Into<String>, value: impl ToString) -> RequestBuilder {
        self.0.query.push((name.into(), value.to_string()));
        self
    }

    /// Add a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> RequestBuilder {
        self.0.headers.push((name.into(), value.into()));
        self
    }

    /// With this body, which comes with the request.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> RequestBuilder {
        self.0.body = Body::Bytes(body.into());
        self
    }

    /// With this body as JSON.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> RequestBuilder {
        let json = serde_json::to_vec(value).expect("a test's value is JSON");
        self.header("content-type", "application/json").body(json)
    }

    /// With this body, which is larger than the route's inline limit: it waits until the plugin answers `receive`.
    pub fn waiting(mut self, body: impl Into<Vec<u8>>) -> RequestBuilder {
        let body = body.into();
        self.0.body = Body::Waiting(Some(body.len() as u64));
        self.0.waiting = Some(body);
        self
    }

    /// Asked by this caller; anonymous with all rights unless given.
    pub fn caller(mut self, principal: impl Into<String>, rights: &[&str]) -> RequestBuilder {
        self.0.caller.principal = principal.into();
        self.0.caller.rights = rights.iter().map(|right| (*right).to_owned()).collect();
        self
    }

    /// The request.
    pub fn build(self) -> Request {
        Request::from_source(self.0)
    }
}

impl From<RequestBuilder> for Request {
    fn from(builder: RequestBuilder) -> Request {
        builder.build()
    }
}
