//! Test a packed plugin in a real host, in process.
//!
//! Owns [`TestHost`]: the host's engine, interfaces, store, blobs and directory, wired as the binary wires them but without
//! files, sockets or authentication, with a clock that moves when told to. What the native harness of the SDK cannot show
//! shows here: capabilities, limits, the component's own imports and exports, routes and their inline bodies. Separate from
//! the SDK, which must not pull an engine into a plugin's tests. Bounded by the plugin's limits. On failure: installing
//! says what is wrong with the package; a call is answered with the status that the gateway would give.
#![forbid(unsafe_code)]

use bytes::Bytes;
use futures::stream;
use mainstay_base::{Error, ErrorKind, Result, SystemClock, VirtualClock};
use mainstay_directory::{Directory, ProtectionRule};
use mainstay_interfaces::graphs::{GraphRunner, ModelGraph};
use mainstay_interfaces::{
    BlobInfo, CallError, CallResult, Caller, ComponentSource, FallbackAsk, FallbackReply, Frame, HostOptions,
    HttpReply, HttpRequest, InferenceDoor, Lesson, Limits, Plugin, PluginHost, PluginSpec, RequestBody, Services,
    WorkEvent, status_of,
};
use mainstay_kernels::Kernels;
use mainstay_market::{Manifest, Package, Route, check_component, settings};
use mainstay_models::graph::Graph;
use mainstay_schedule::{AttemptContext, Heartbeat, JobDefinition, LogSink, RunState, Start};
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, Blobs, PutOptions};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// When the clock of a new host stands: 2026-01-01 00:00 UTC.
pub const START_MS: i64 = 1_767_225_600_000;

/// How long a blob without a name stays.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// A host in this process, on memory.
pub struct TestHost {
    plugins: Vec<(Manifest, Arc<Plugin>)>,
    host: PluginHost,
    clock: Arc<VirtualClock>,
    threads: tokio::runtime::Runtime,
}

/// How a plugin is installed; what the package asks for, unless said otherwise.
#[derive(Clone, Debug, Default)]
pub struct Install {
    /// Capabilities granted; all that the manifest names if none.
    pub grants: Option<Vec<String>>,
    /// Settings, checked against the package's schema and filled with its defaults.
    pub settings: Option<serde_json::Value>,
    /// Limits instead of the manifest's.
    pub limits: Option<Limits>,
}

impl Default for TestHost {
    fn default() -> TestHost {
        TestHost::new()
    }
}

impl TestHost {
    /// A host without plugins and without protected pointers.
    pub fn new() -> TestHost {
        TestHost::with_protection(Vec::new()).expect("there are no rules that could be malformed")
    }

    /// A host with these rules for protected pointers.
    pub fn with_protection(rules: Vec<ProtectionRule>) -> Result<TestHost> {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let threads = threads.map_err(|error| Error::unavailable(format!("cannot start a thread: {error}")))?;
        let clock = Arc::new(VirtualClock::new(START_MS));
        let store = Store::in_memory();
        let objects = BlobBackend::Store(Arc::new(object_store::memory::InMemory::new()));
        let blobs = Blobs::open(store.clone(), objects, clock.clone(), GRACE)?;
        let directory = Directory::new(store.clone(), rules, clock.clone())?;
        let kernels = Kernels::start(&mainstay_kernels::Options::default(), Arc::new(SystemClock::default()))?;
        let services = Services::for_tests(store, blobs, directory, kernels, clock.clone())?;
        let host = PluginHost::new(services, HostOptions::for_tests())?;
        Ok(TestHost { plugins: Vec::new(), host, clock, threads })
    }

    /// Install and start a package, from a folder or a file, with what it asks for.
    pub fn install(self, package: impl AsRef<Path>) -> Result<TestHost> {
        self.install_with(package, Install::default())
    }

    /// Install and start a package.
    pub fn install_with(self, package: impl AsRef<Path>, how: Install) -> Result<TestHost> {
        self.install_package(&Package::read(package.as_ref())?, how)
    }

    /// Install and start a package that has been read.
    pub fn install_package(mut self, package: &Package, how: Install) -> Result<TestHost> {
        let manifest = package.manifest.clone();
        check_component(&manifest, &package.component)?;
        let given = how.settings.unwrap_or_else(|| serde_json::json!({}));
        let config = settings::resolve(package.config_schema.as_ref(), &given);
        let config = config.map_err(|problems| settings::describe(&problems))?;
        let plugin = self.host.load(PluginSpec {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            component: ComponentSource::Bytes(package.component.as_slice().into()),
            grants: how.grants.unwrap_or_else(|| manifest.capabilities.clone()),
            limits: how.limits.unwrap_or_else(|| limits(&manifest.limits)),
            reuse: manifest.reuse,
            config_json: config.to_string(),
            worlds: manifest.worlds.clone(),
        })?;
        self.threads.block_on(plugin.start(None)).map_err(|error| Error::new(error.kind(), error.to_string()))?;
        self.plugins.push((manifest, plugin));
        Ok(self)
    }

    /// Call whoever has the route, and answer as the gateway would. `target` is a path, percent-encoded where needed, and
    /// perhaps `?` and a query.
    pub fn call(&self, method: &str, target: &str, body: impl Into<Bytes>) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let form = |text: &str| decode(&text.replace('+', " "));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        self.send(
            HttpRequest {
                method: method.to_owned(),
                path: decode(path),
                query: pairs.map(|(name, value)| (form(name), form(value))).collect(),
                headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                caller: Caller { rights: ["read", "write", "admin"].map(str::to_owned).to_vec(), ..Caller::default() },
                base_url: "http://127.0.0.1:7600".to_owned(),
                ..HttpRequest::default()
            },
            body,
        )
    }

    /// The same for a request that is built by hand; its body is replaced.
    pub fn send(&self, request: HttpRequest, body: impl Into<Bytes>) -> Answer {
        let (route, plugin) = match self.route(&request.method, &request.path) {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        let body = body.into();
        let inline_bytes = route.inline_body_kib as usize * 1024;
        let given = match body.len() {
            0 => RequestBody::Empty,
            length if length <= inline_bytes => RequestBody::Bytes(body.clone()),
            length => RequestBody::Waiting(Some(length as u64)),
        };
        let request = HttpRequest { body: given, ..request };
        self.threads
            .block_on(async {
                let reply = plugin.handle(request.clone()).await?;
                self.finish(plugin, request, body, reply).await
            })
            .unwrap_or_else(|failure| failure.0)
    }

    /// Start a run of a job that a worker carries out, through the host's own scheduler, and answer what came out of it.
    pub fn run_job(&self, plugin: &str, parameters: serde_json::Value) -> Result<serde_json::Value> {
        let worker = self.plugin(plugin).ok_or_else(|| Error::not_found(format!("`{plugin}` is not installed")))?;
        let scheduler = &self.services().scheduler;
        let parameters = serde_json::from_value(parameters)
            .map_err(|error| Error::invalid(format!("the parameters are no JSON object: {error}")))?;
        self.threads.block_on(async {
            let job = JobDefinition { concurrency: None, ..JobDefinition::new(format!("test-{plugin}"), "plugin") };
            let start = Start { parameters, ..Start::of(&job.name) };
            scheduler.apply(job).await?;
            scheduler.start(start).await?;
            let run = scheduler.claim("test", 60_000, 1).await?.pop();
            let run = Arc::new(run.ok_or_else(|| Error::internal("the run that was started is not ready"))?);
            let attempt = AttemptContext {
                run: run.clone(),
                cancel: CancellationToken::new(),
                log: LogSink::default(),
                heartbeat: Heartbeat::new(self.services().clock.clone()),
            };
            let outcome = worker.on_job(attempt).await.map_err(|error| Error::new(error.kind(), error.to_string()))?;
            let ended = scheduler.finish(&run.id, run.token, outcome).await?;
            match ended.state {
                RunState::Ended { result, .. } => Ok(result),
                other => Err(Error::unavailable(format!("the run has not ended: {other:?}"))),
            }
        })
    }

    /// Tell a worker of an event, as the host's driver does.
    pub fn tell(&self, plugin: &str, event: WorkEvent) -> Result<()> {
        let worker = self.plugin(plugin).ok_or_else(|| Error::not_found(format!("`{plugin}` is not installed")))?;
        self.threads.block_on(worker.on_event(event)).map_err(|error| Error::new(error.kind(), error.to_string()))
    }

    /// Let there be endpoints, and this behind them; once.
    pub fn serve(&self, door: Arc<dyn InferenceDoor>) -> Result<()> {
        self.services().door.set(door)
    }

    /// Let a fallback answer instead of a model, within this time.
    pub fn answer_instead(&self, plugin: &str, ask: FallbackAsk, within: Duration) -> Result<FallbackReply> {
        let fallback = self.plugin(plugin).ok_or_else(|| Error::not_found(format!("`{plugin}` is not installed")))?;
        self.wait(fallback.answer_instead(ask, Instant::now() + within))
    }

    /// Tell a fallback of good answers.
    pub fn teach(&self, plugin: &str, lessons: Vec<Lesson>) -> Result<()> {
        let fallback = self.plugin(plugin).ok_or_else(|| Error::not_found(format!("`{plugin}` is not installed")))?;
        self.wait(fallback.learn(lessons))
    }

    fn wait<T>(&self, call: impl Future<Output = CallResult<T>>) -> Result<T> {
        self.threads.block_on(call).map_err(|error| Error::new(error.kind(), error.to_string()))
    }

    /// The clock of plugins: let time pass.
    pub fn advance_ms(&self, by_ms: i64) {
        self.clock.advance_ms(by_ms);
    }

    /// The mechanisms behind the plugins.
    pub fn services(&self) -> &Services {
        self.host.services()
    }

    /// A plugin that was installed here.
    pub fn plugin(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.plugins.iter().find(|(manifest, _)| manifest.name == name).map(|(_, plugin)| plugin)
    }

    /// Take a model's graph in: with the plugins that are installed, and these model files by digest.
    pub fn take_in(&self, graph: &Graph, models: &[Vec<u8>]) -> Result<Arc<ModelGraph>> {
        let plugin = |name: &str| self.plugin(name).cloned();
        let model = |sha256: &str| {
            let file = models.iter().find(|bytes| hex::encode(Sha256::digest(bytes)) == sha256);
            let bytes = file.ok_or_else(|| Error::not_found(format!("no model file has the digest {sha256}")))?;
            self.services().kernels.load_model(sha256, bytes)
        };
        self.threads.block_on(ModelGraph::take_in(graph, plugin, model))
    }

    /// Send these frames through a graph at the same time.
    pub fn run_graph(&self, graph: &Arc<ModelGraph>, frames: Vec<Frame>) -> Result<Vec<Result<Frame>>> {
        let clock = Arc::new(SystemClock::default());
        let runner = GraphRunner::start(self.host.threads(), &self.services().kernels, 1, clock)?;
        let runs = frames.into_iter().map(|frame| runner.run(graph, frame, ""));
        Ok(self.threads.block_on(futures::future::join_all(runs)))
    }

    /// The longest claim wins, as in the gateway.
    fn route(&self, method: &str, path: &str) -> Result<(&Route, &Arc<Plugin>), Answer> {
        let claims =
            self.plugins.iter().flat_map(|(manifest, plugin)| manifest.routes.iter().map(move |route| (route, plugin)));
        let covering: Vec<_> = claims.filter(|(route, _)| route.covers(path)).collect();
        let takes = |route: &Route| route.methods.iter().any(|each| each.as_str() == method);
        let best = covering.iter().filter(|(route, _)| takes(route)).max_by_key(|(route, _)| route.claim().len());
        match best {
            Some((route, plugin)) => Ok((*route, *plugin)),
            None if covering.is_empty() => Err(Answer::text(404, format!("no plugin claims `{path}`"))),
            None => Err(Answer::text(405, format!("no route takes {method} at `{path}`"))),
        }
    }

    async fn finish(
        &self,
        plugin: &Plugin,
        request: HttpRequest,
        body: Bytes,
        reply: HttpReply,
    ) -> Result<Answer, Failure> {
        let (limit_bytes, sha256) = match reply {
            HttpReply::Receive { limit_bytes, sha256 } => (limit_bytes, sha256),
            other => return self.last(other).await,
        };
        let blob = self.receive(body, limit_bytes, sha256).await?;
        let request = HttpRequest { body: RequestBody::Empty, ..request };
        let reply = plugin.received(request, blob).await?;
        self.last(reply).await
    }

    async fn receive(
        &self,
        body: Bytes,
        limit_bytes: u64,
        expected_sha256: Option<String>,
    ) -> Result<BlobInfo, Failure> {
        let options = PutOptions { limit_bytes: Some(limit_bytes), expected_sha256 };
        let stored = self.services().blobs.put(stream::iter([Ok(body)]), options).await;
        stored.map_err(|error| match error.kind() {
            ErrorKind::Exhausted => Failure(Answer::text(413, error.to_string())),
            kind => Failure(Answer::text(status_of(kind), error.to_string())),
        })
    }

    /// An answer that needs nothing more of the plugin.
    async fn last(&self, reply: HttpReply) -> Result<Answer, Failure> {
        match reply {
            HttpReply::Respond { status, headers, body } => Ok(Answer { status, headers, body }),
            HttpReply::Send { sha256, headers } => {
                let bytes = self.services().blobs.get_bytes(&sha256, None).await;
                let body = bytes.map_err(|error| Failure(Answer::text(status_of(error.kind()), error.to_string())))?;
                Ok(Answer { status: 200, headers, body })
            }
            HttpReply::Receive { .. } => {
                Err(Failure(Answer::text(500, "the plugin answered `receive` to a body that was received".to_owned())))
            }
        }
    }
}

/// An answer in the place of a result.
struct Failure(Answer);

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure(Answer::text(error.status(), error.to_string()))
    }
}

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The plugin's headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body; for a failed call, what the problem's detail would say.
    pub body: Bytes,
}

impl Answer {
    fn text(status: u16, text: String) -> Answer {
        Answer { status, headers: Vec::new(), body: text.into() }
    }

    /// The first header of this name, any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text. Panics where it is not.
    pub fn as_text(&self) -> &str {
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

/// The manifest's limits over the host's defaults.
fn limits(asked: &mainstay_market::Limits) -> Limits {
    let usual = Limits::default();
    let count = |asked: Option<u32>, usual: u64| asked.map_or(usual, u64::from);
    let size = |asked: Option<u32>, unit: usize, usual: usize| asked.map_or(usual, |asked| asked as usize * unit);
    Limits {
        memory_bytes: size(asked.memory_mib, 1 << 20, usual.memory_bytes),
        call_cpu_ms: count(asked.call_cpu_ms, usual.call_cpu_ms),
        call_wall_ms: count(asked.call_wall_ms, usual.call_wall_ms),
        host_calls: count(asked.host_calls, usual.host_calls),
        output_bytes: size(asked.output_kib, 1 << 10, usual.output_bytes),
        array_bytes: size(asked.array_mib, 1 << 20, usual.array_bytes),
        log_bytes: size(asked.log_kib, 1 << 10, usual.log_bytes),
        concurrency: size(asked.concurrency, 1, usual.concurrency),
        queue: size(asked.queue, 1, usual.queue),
    }
}
