//! The door for everybody above: load a plugin, start it, call it, ask how it is.
//!
//! Owns the engine, the linker with all interfaces, and the list of loaded plugins. Bounded by [`HostOptions`] and each
//! plugin's limits. On failure: loading says what is wrong with the component (the item, both versions, the fix); a
//! call ends in a [`mainstay_runtime::CallError`].

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mainstay_arrays::{Budget, Frame};
use mainstay_base::{Error, Result};
use mainstay_runtime::compile::COMPONENT_BYTES_MAX;
use mainstay_runtime::{
    CallError, CallResult, CompileIn, Compiler, Component, ComponentOptions, Engine, EngineOptions, Grants, Limits,
    Stats, explain_link_error, inspect,
};
use mainstay_schedule::{AttemptContext, Outcome};
use mainstay_store::Space;
use mainstay_store::blobs::BlobInfo;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::component::Linker;

use crate::capabilities::REGISTERED;
use crate::guard;
use crate::imports;
use crate::imports::asks::{FallbackAsk, FallbackReply, LESSONS_MAX, Lesson, TENSOR_BYTES_MAX};
use crate::imports::batches::TransformBatch;
use crate::imports::work::{WorkEvent, WorkTimer};
use crate::lines::Lines;
use crate::message::{HttpReply, HttpRequest};
use crate::services::Services;
use crate::spec::{ComponentSource, PluginSpec};
use crate::state::{PluginFacts, State};
use crate::telemetry::{Telemetry, TelemetryCollector};
use crate::worlds::{self, Entrances, api, fallback, transform, worker};

/// How plugins are run.
#[derive(Clone)]
pub struct HostOptions {
    /// The engine's size.
    pub engine: EngineOptions,
    /// Where components are compiled.
    pub compile: CompileIn,
    /// Where compiled components are kept; none keeps them nowhere.
    pub cache_folder: Option<PathBuf>,
}

impl HostOptions {
    /// For tests and harnesses: a small engine, compilation in this process, no cache.
    pub fn for_tests() -> HostOptions {
        let engine = EngineOptions { instances: 16, threads: 2, ..EngineOptions::default() };
        HostOptions { engine, compile: CompileIn::Here, cache_folder: None }
    }
}

/// Plugins loaded on one engine. Cheap to clone.
#[derive(Clone)]
pub struct PluginHost {
    inner: Arc<Inner>,
}

struct Inner {
    services: Services,
    engine: Engine,
    compiler: Compiler,
    linker: Linker<State>,
    telemetry: Arc<Telemetry>,
    plugins: Mutex<Vec<Weak<Plugin>>>,
}

impl PluginHost {
    /// The plugin of this name that was loaded last and is in use.
    pub fn running(&self, name: &str) -> Option<Arc<Plugin>> {
        let plugins = self.inner.plugins.lock();
        plugins.iter().rev().filter_map(Weak::upgrade).find(|plugin| plugin.name() == name)
    }

    /// An engine over these services.
    pub fn new(services: Services, options: HostOptions) -> Result<PluginHost> {
        let engine = Engine::new(&options.engine)?;
        let compiler = Compiler::new(&engine, options.compile, options.cache_folder.as_deref())?;
        let linker = imports::linker(engine.wasmtime())
            .map_err(|error| Error::internal(format!("cannot register the host's interfaces: {error:#}")))?;
        let telemetry = Arc::new(Telemetry::default());
        let inner = Arc::new(Inner { services, engine, compiler, linker, telemetry, plugins: Mutex::default() });
        let weak = Arc::downgrade(&inner);
        inner.telemetry.set_source(Arc::new(move || weak.upgrade().map(|inner| inner.stats()).unwrap_or_default()));
        Ok(PluginHost { inner })
    }

    /// Compile (or find compiled), inspect and link a component. Takes milliseconds when it is in the cache and up to
    /// minutes when not: on an asynchronous thread, call it through `spawn_blocking`. The plugin is not started yet.
    pub fn load(&self, spec: PluginSpec) -> Result<Arc<Plugin>> {
        self.load_inner(&spec).map_err(|error| error.context(format_args!("plugin `{}` {}", spec.name, spec.version)))
    }

    fn load_inner(&self, spec: &PluginSpec) -> Result<Arc<Plugin>> {
        let inner = &self.inner;
        check_name(&spec.name)?;
        spec.limits.validate()?;
        let grants = Grants::from_names(REGISTERED, &spec.grants)?;
        let (component, sha256) = match &spec.component {
            ComponentSource::Bytes(bytes) => (inner.compiler.component(bytes)?, digest(bytes)),
            ComponentSource::File(path) => {
                let doing = |error| Error::io("read the component", path, error);
                let mut bytes = Vec::new();
                // One byte more than the most, so that a longer file is told from one that fits.
                let file = std::fs::File::open(path).map_err(doing)?;
                file.take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(doing)?;
                (inner.compiler.component(&bytes)?, digest(&bytes))
            }
        };
        let contracts = spec.worlds.iter().map(|world| worlds::contract(world)).collect::<Result<Vec<_>>>()?;
        let first = *contracts.first().ok_or_else(|| Error::invalid("it names no world; add one to `worlds`"))?;
        contracts.iter().try_for_each(|contract| inspect(inner.engine.wasmtime(), &component, contract))?;
        let pre = inner.linker.instantiate_pre(&component).map_err(|error| explain_link_error(&error, first))?;
        let entrances = Entrances::new(pre, &contracts).map_err(|error| explain_link_error(&error, first))?;
        let name: Arc<str> = spec.name.as_str().into();
        let options = ComponentOptions { plugin: name.clone(), grants, limits: spec.limits.clone(), reuse: spec.reuse };
        let plugin = Arc::new(Plugin {
            version: spec.version.clone(),
            component_sha256: sha256,
            grants: spec.grants.clone(),
            does_learn: entrances.does_learn(),
            component: Component::new(&inner.engine, entrances, options),
            facts: Arc::new(PluginFacts {
                space: Space::plugin(&spec.name),
                name,
                services: inner.services.clone(),
                config_json: spec.config_json.clone(),
                telemetry: inner.telemetry.clone(),
                caller: inner.services.kernels.caller(&spec.name)?,
                budget: Budget::new(&format!("the plugin `{}`", spec.name), spec.limits.array_bytes),
                grants,
                guard_budget: guard::Budget::new(inner.services.clock.now_ms()),
                lines: Lines::default(),
            }),
        });
        let mut plugins = inner.plugins.lock();
        plugins.retain(|known| known.strong_count() > 0);
        plugins.push(Arc::downgrade(&plugin));
        Ok(plugin)
    }

    /// What plugins report and what the host reports about them, for `/metrics`: register it with
    /// `Registry::register_collector`.
    pub fn metrics(&self) -> TelemetryCollector {
        TelemetryCollector(self.inner.telemetry.clone())
    }

    /// The mechanisms that plugins stand on.
    pub fn services(&self) -> &Services {
        &self.inner.services
    }

    /// The plugins' threads: for measuring the boundary without the hop between threads.
    pub fn threads(&self) -> &tokio::runtime::Handle {
        self.inner.engine.threads()
    }
}

impl Inner {
    fn stats(&self) -> Vec<(Arc<str>, Stats)> {
        let plugins = self.plugins.lock();
        let mut rows: Vec<(Arc<str>, Stats)> = Vec::new();
        for plugin in plugins.iter().filter_map(Weak::upgrade) {
            // While a version is replaced, both run under one name; metrics show the newer.
            rows.retain(|(name, _)| *name != plugin.facts.name);
            rows.push((plugin.facts.name.clone(), plugin.stats()));
        }
        rows
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn check_name(name: &str) -> Result<()> {
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if starts_well && name.len() <= 63 && name.bytes().all(is_good) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` cannot name a plugin; use a letter, then up to 62 of a-z, 0-9 and `-`",
        name.escape_debug()
    )))
}

/// The trace that a `traceparent` names; nothing where there is none.
fn trace_of(traceparent: Option<&str>) -> String {
    traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default().to_owned()
}

/// A loaded plugin.
pub struct Plugin {
    version: String,
    component_sha256: String,
    grants: Vec<String>,
    does_learn: bool,
    component: Arc<Component<Entrances>>,
    facts: Arc<PluginFacts>,
}

impl Plugin {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of its component, in lowercase hexadecimal.
    pub fn component_sha256(&self) -> &str {
        &self.component_sha256
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        self.component.limits()
    }

    /// What it has done since it was loaded.
    pub fn stats(&self) -> Stats {
        self.component.stats()
    }

    /// Before anything else: let it prepare or migrate what it stored. Ten times a call's limits.
    pub async fn start(&self, previous: Option<String>) -> CallResult<()> {
        let make = self.state(String::new());
        let limits = Some(self.limits().for_start());
        self.component.call(limits, make, |store, all| Box::pin(worlds::start(store, all, previous))).await
    }

    /// Answer a request.
    pub async fn handle(&self, request: HttpRequest) -> CallResult<HttpReply> {
        let make = self.state(request.trace_id.clone());
        self.component.call(None, make, |store, all| Box::pin(api::handle(store, all, request))).await
    }

    /// The same on the calling task: for callers on [`PluginHost::threads`].
    pub async fn handle_here(&self, request: HttpRequest) -> CallResult<HttpReply> {
        let make = self.state(request.trace_id.clone());
        self.component.call_here(None, make, |store, all| Box::pin(api::handle(store, all, request))).await
    }

    /// Answer a request whose body has been stored, after the plugin asked for it with [`HttpReply::Receive`].
    pub async fn received(&self, request: HttpRequest, blob: BlobInfo) -> CallResult<HttpReply> {
        let make = self.state(request.trace_id.clone());
        self.component.call(None, make, |store, all| Box::pin(api::received(store, all, request, blob))).await
    }

    /// Whether these settings of a node are ones that it can work with.
    pub async fn check_settings(&self, settings: String) -> CallResult<()> {
        let make = self.state(String::new());
        self.component.call(None, make, |store, all| Box::pin(transform::check(store, all, settings))).await
    }

    /// Change a batch.
    pub async fn transform(&self, batch: TransformBatch) -> CallResult<Frame> {
        let make = self.state(batch.trace_id.clone());
        self.component.call(None, make, |store, all| Box::pin(transform::transform(store, all, batch))).await
    }

    /// Do what an event asks for. The same event may come more than once.
    pub async fn on_event(&self, event: WorkEvent) -> CallResult<()> {
        let make = self.state(trace_of(event.traceparent.as_deref()));
        self.component.call(None, make, |store, all| Box::pin(worker::on_event(store, all, event))).await
    }

    /// Carry out an attempt at a run; a failure is the call's error.
    pub async fn on_job(&self, attempt: AttemptContext) -> CallResult<Outcome> {
        let make = self.state(String::new());
        self.component.call(None, make, |store, all| Box::pin(worker::on_job(store, all, attempt))).await
    }

    /// Do what a time asks for.
    pub async fn on_timer(&self, timer: WorkTimer) -> CallResult<()> {
        let make = self.state(String::new());
        self.component.call(None, make, |store, all| Box::pin(worker::on_timer(store, all, timer))).await
    }

    /// Answer instead of a model, until the deadline. Then nobody waits: the call ends, and is not counted against the plugin,
    /// whose own limits say how slow it may be.
    pub async fn answer_instead(&self, ask: FallbackAsk, deadline: Instant) -> CallResult<FallbackReply> {
        let late = format!("the plugin `{}` did not answer instead of `{}` in time", self.name(), ask.endpoint);
        let make = self.state(trace_of(ask.traceparent.as_deref()));
        let call =
            self.component.call(None, make, move |store, all| Box::pin(fallback::answer(store, all, ask, deadline)));
        let answered = tokio::time::timeout_at(deadline.into(), call).await;
        answered.unwrap_or_else(|_| Err(CallError::Host(Error::unavailable(late))))
    }

    /// Whether it wants to be told of good answers.
    pub fn does_learn(&self) -> bool {
        self.does_learn
    }

    /// Tell it of good answers, oldest first, at most [`LESSONS_MAX`] of them. Those with large tensors are left out.
    pub async fn learn(&self, mut lessons: Vec<Lesson>) -> CallResult<()> {
        if lessons.len() > LESSONS_MAX {
            let count = lessons.len();
            let error = Error::invalid(format!("{count} lessons; at most {LESSONS_MAX} are told at once"));
            return Err(CallError::Host(error));
        }
        lessons.retain(|lesson| lesson.tensor_bytes() <= TENSOR_BYTES_MAX);
        if lessons.is_empty() {
            return Ok(());
        }
        let make = self.state(String::new());
        self.component.call(None, make, |store, all| Box::pin(fallback::learn(store, all, lessons))).await
    }

    /// Whether it has this capability, by name.
    pub fn is_granted(&self, capability: &str) -> bool {
        self.grants.iter().any(|granted| granted == capability)
    }

    /// Bytes of columns that its calls hold at this moment.
    pub fn array_bytes(&self) -> usize {
        self.facts.budget.used_bytes()
    }

    fn state(&self, trace_id: String) -> impl FnOnce(mainstay_runtime::CallContext) -> State + Send + use<> {
        let facts = self.facts.clone();
        move |context| State::new(context, facts, trace_id)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({} {})", self.facts.name, self.version)
    }
}

/// What this host calls its worlds, for `--version` and references.
pub fn world_names() -> Vec<&'static str> {
    worlds::WORLDS.iter().map(|world| world.world).collect()
}
