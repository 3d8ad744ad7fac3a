//! The plugins of a running server: loaded, started, replaced, removed.
//!
//! Owns which version of which plugin answers now, and keeps the gateway's table of routes and the readiness in step with
//! it. It is the one place where the market (what is installed), the host of plugins (what runs) and the gateway (who is
//! asked) meet; that is why it is in the binary. Changes go one at a time; requests never wait for them: the table is swapped
//! at once, and calls into the version before end there.
//!
//! Order of an installation: verify, load (compile), start on the stored data, write files and lockfile, swap. Whatever fails
//! before the swap leaves the version before in place. A plugin that fails at the host's start does not stop the host: it is
//! listed with its problem.

use crate::screen;
use crate::workers::Workers;
use async_trait::async_trait;
use mainstay_base::{Error, Result};
use mainstay_gateway::{
    Admin, ApiFuture, ApiTarget, BlobSweep, CallError, InstallUpload, PluginDetail, PluginRoutes, PluginSummary,
    Readiness, Right, RouteDetail, RoutePath, RouteSpec, Routes,
};
use mainstay_interfaces::{BlobInfo, ComponentSource, HttpRequest, Limits, Plugin, PluginHost, PluginSpec};
use mainstay_market::{Installed, LockEntry, Manifest, Market, Order, Package};
use mainstay_outbound::Grants;
use mainstay_store::blobs::Blobs;
use mainstay_store::{Space, Store};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The plugins of a running server. Clones are the same.
#[derive(Clone)]
pub struct Plugins {
    inner: Arc<Inner>,
}

struct Inner {
    market: Market,
    host: PluginHost,
    store: Store,
    blobs: Blobs,
    routes: Routes,
    readiness: Readiness,
    workers: Workers,
    grants: BTreeMap<String, Grants>,
    /// What is installed and chosen to run, by name.
    known: Mutex<BTreeMap<String, Known>>,
    /// Installed plugins whose files cannot be read, by name.
    damaged: Mutex<BTreeMap<String, Damaged>>,
    /// Held during a change.
    changing: tokio::sync::Mutex<()>,
}

struct Known {
    installed: Installed,
    running: std::result::Result<Arc<Plugin>, String>,
}

/// An installed plugin whose files cannot be read: only the lockfile tells of it.
struct Damaged {
    entry: LockEntry,
    reason: String,
}

/// What plugins need.
pub struct Parts {
    /// What is installed.
    pub market: Market,
    /// What runs components.
    pub host: PluginHost,
    /// Where the versions that ran are remembered.
    pub store: Store,
    /// Blobs.
    pub blobs: Blobs,
    /// Who answers which path.
    pub routes: Routes,
    /// Who is ready.
    pub readiness: Readiness,
    /// Whose timers and topics follow what runs.
    pub workers: Workers,
    /// Hosts that the operator lets plugins call, by plugin.
    pub grants: BTreeMap<String, Grants>,
}

impl Plugins {
    /// None runs yet.
    pub fn new(parts: Parts) -> Plugins {
        let Parts { market, host, store, blobs, routes, readiness, workers, grants } = parts;
        let inner = Inner {
            market,
            host,
            store,
            blobs,
            routes,
            readiness,
            workers,
            grants,
            known: Mutex::default(),
            damaged: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        Plugins { inner: Arc::new(inner) }
    }

    /// Install a package that is not yet there, without starting it: its component is compiled with the others.
    pub async fn place(&self, package: Package) -> Result<Installed> {
        let this = self.clone();
        blocking(move || {
            let order = Order { package: &package, grants: None, config: None };
            this.inner.market.install(&order, &|_| Ok(()))
        })
        .await
    }

    /// Say that an installed plugin cannot be read. The others run without it.
    pub fn note_damaged(&self, entry: &LockEntry, error: &Error) {
        let name = &entry.name;
        tracing::error!(plugin = %name, %error, "the plugin does not run");
        self.inner.readiness.not_ready(&format!("plugin:{name}"), error.message());
        let damaged = Damaged { entry: entry.clone(), reason: error.message().into() };
        self.damaged().insert(name.clone(), damaged);
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeMap<String, Damaged>> {
        self.inner.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Load and start these, all at the same time, and let them answer.
    pub async fn start(&self, installed: Vec<Installed>) -> Result<()> {
        let _changing = self.inner.changing.lock().await;
        let starting: Vec<_> = installed
            .into_iter()
            .map(|installed| {
                let this = self.clone();
                tokio::spawn(async move {
                    let running = this.load_and_start(&installed).await;
                    (installed, running)
                })
            })
            .collect();
        for task in starting {
            let (installed, running) = task.await.map_err(|error| Error::internal(error.to_string()))?;
            let name = installed.entry.name.clone();
            let running = running.map_err(|error| {
                tracing::error!(plugin = %name, %error, "the plugin does not run");
                error.message().to_string()
            });
            self.note_readiness(&name, &running);
            if let Ok(plugin) = &running {
                self.inner.workers.runs(&installed.manifest, plugin).await?;
            }
            self.known().insert(name, Known { installed, running });
        }
        self.publish()
    }

    fn note_readiness(&self, name: &str, running: &std::result::Result<Arc<Plugin>, String>) {
        let part = format!("plugin:{name}");
        match running {
            Ok(_) => self.inner.readiness.ready(&part),
            Err(problem) => self.inner.readiness.not_ready(&part, problem.clone()),
        }
    }

    async fn load_and_start(&self, installed: &Installed) -> Result<Arc<Plugin>> {
        let spec = spec(&installed.manifest, &installed.component, &installed.entry.grants, &installed.config)?;
        self.grant_hosts(&installed.manifest, &installed.entry.grants)?;
        self.load_and_start_spec(spec).await
    }

    /// From now on the plugin may call the hosts of its manifest, as far as the operator granted `outbound`, and those that the
    /// configuration names.
    fn grant_hosts(&self, manifest: &Manifest, capabilities: &[String]) -> Result<()> {
        let outbound = &self.inner.host.services().outbound;
        if !capabilities.iter().any(|granted| granted == "outbound") {
            return outbound.set_grants(&manifest.name, None);
        }
        let mut grants = Grants::of(manifest.hosts.iter().map(String::as_str))?;
        if let Some(Grants { hosts, allow_private }) = self.inner.grants.get(&manifest.name).cloned() {
            grants.hosts.extend(hosts);
            grants.allow_private.extend(allow_private);
        }
        outbound.set_grants(&manifest.name, Some(grants))
    }

    async fn load_and_start_spec(&self, spec: PluginSpec) -> Result<Arc<Plugin>> {
        let name = spec.name.clone();
        let version = spec.version.clone();
        let host = self.inner.host.clone();
        let plugin = blocking(move || host.load(spec)).await?;
        let previous = self.version_before(&name)?;
        plugin.start(previous.clone()).await.map_err(|error| {
            Error::invalid(format!("plugin `{name}` {version} did not start: {error}; ask its author"))
        })?;
        if previous.as_deref() != Some(&version) {
            self.remember_version(&name, &version).await?;
        }
        Ok(plugin)
    }

    /// The version that last ran on the plugin's data, even if it was removed since.
    fn version_before(&self, name: &str) -> Result<Option<String>> {
        let value = self.inner.store.view().get(&versions(), name.as_bytes())?;
        Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn remember_version(&self, name: &str, version: &str) -> Result<()> {
        let store = &self.inner.store;
        let mut transaction = store.begin(&store.view());
        transaction.put(&versions(), name.as_bytes(), version.to_string())?;
        store.commit(transaction).await.map(|_| ())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // Each change is one insertion or removal: a panic leaves nothing half-done.
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Give the gateway the routes of what runs; and of what should run and does not, so that its callers are told why.
    fn publish(&self) -> Result<()> {
        let running = || {
            let known = self.known();
            known.values().filter_map(|known| routes(&known.installed.manifest, target(known))).collect::<Vec<_>>()
        };
        let damaged: Vec<_> = self.damaged().values().filter_map(damaged_routes).collect();
        if damaged.is_empty() {
            return self.inner.routes.replace(running());
        }
        let all = running().into_iter().chain(damaged).collect();
        self.inner.routes.replace(all).or_else(|error| {
            // What cannot run must not keep the others from answering.
            tracing::warn!(%error, "routes of damaged plugins are left out");
            self.inner.routes.replace(running())
        })
    }

    /// Verify, load, start, write, swap.
    async fn install_package(
        &self,
        package: Package,
        grants: Option<Vec<String>>,
        config: Option<Value>,
    ) -> Result<PluginDetail> {
        let _changing = self.inner.changing.lock().await;
        let package = Arc::new(package);
        let (this, order_package) = (self.clone(), package.clone());
        let (plan, grants, config) = blocking(move || {
            let order = Order { package: &order_package, grants, config };
            let plan = this.inner.market.plan(&order)?;
            Ok((plan, order.grants, order.config))
        })
        .await?;
        let spec = spec(&plan.manifest, &package.component, &plan.grants, &plan.config)?;
        self.grant_hosts(&plan.manifest, &plan.grants)?;
        let plugin = self.load_and_start_spec(spec).await?;
        let this = self.clone();
        let installed =
            blocking(move || this.inner.market.install(&Order { package: &package, grants, config }, &|_| Ok(())))
                .await?;
        let name = installed.entry.name.clone();
        tracing::info!(plugin = %name, version = %installed.entry.version, "installed");
        self.inner.workers.runs(&installed.manifest, &plugin).await?;
        let running = Ok(plugin);
        self.note_readiness(&name, &running);
        self.damaged().remove(&name);
        self.known().insert(name.clone(), Known { installed, running });
        self.publish()?;
        self.detail(&name)
    }

    fn detail(&self, name: &str) -> Result<PluginDetail> {
        if let Some(known) = self.known().get(name) {
            return Ok(describe(&known.installed, state_of(known), known.running.as_ref().err().cloned()));
        }
        // Installed, but not chosen to run.
        Ok(describe(&self.inner.market.info(name)?, "stopped", None))
    }

    /// What the first screen shows: the plugins that run, and those that do not.
    pub fn lines(&self, url: &str, needs_token: bool) -> (Vec<screen::Line>, Vec<(String, String)>) {
        let known = self.known();
        let line = |known: &Known| screen::Line {
            name: known.installed.entry.name.clone(),
            version: known.installed.entry.version.to_string(),
            grants: known.installed.entry.grants.clone(),
            routes: known.installed.manifest.routes.len(),
            hints: known.installed.manifest.hints_for(url, needs_token),
        };
        let problem = |known: &Known| Some((known.installed.entry.name.clone(), known.running.as_ref().err()?.clone()));
        let running = known.values().filter(|known| known.running.is_ok()).map(line).collect();
        let damaged = self.damaged();
        let damaged = damaged.iter().map(|(name, damaged)| (name.clone(), damaged.reason.clone()));
        (running, known.values().filter_map(problem).chain(damaged).collect())
    }

    /// Let nothing answer any more.
    pub fn stop(&self) {
        self.inner.workers.stop();
        self.known().clear();
        self.damaged().clear();
        if let Err(error) = self.publish() {
            tracing::warn!(%error, "routes could not be cleared");
        }
    }
}

/// Where the version that last ran is remembered.
fn versions() -> Space {
    Space::host("plugin-versions")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal(format!("work on plugins ended by itself: {error}"))),
    }
}

/// What the host needs to run a plugin.
pub fn spec(manifest: &Manifest, component: &Arc<Vec<u8>>, grants: &[String], config: &Value) -> Result<PluginSpec> {
    let limits = limits(&manifest.limits);
    limits.validate().map_err(|error| error.context(format!("limits of `{}`", manifest.name)))?;
    Ok(PluginSpec {
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        component: ComponentSource::Bytes(component.as_slice().into()),
        grants: grants.to_vec(),
        limits,
        reuse: manifest.reuse,
        config_json: config.to_string(),
        worlds: manifest.worlds.clone(),
    })
}

fn limits(asked: &mainstay_market::Limits) -> Limits {
    let mainstay_market::Limits {
        memory_mib,
        call_cpu_ms,
        call_wall_ms,
        host_calls,
        output_kib,
        array_mib,
        log_kib,
        concurrency,
        queue,
    } = asked;
    let usual = Limits::default();
    let bytes = |asked: &Option<u32>, shift: u32, usual: usize| asked.map_or(usual, |asked| (asked as usize) << shift);
    let count = |asked: &Option<u32>, usual: u64| asked.map_or(usual, u64::from);
    Limits {
        memory_bytes: bytes(memory_mib, 20, usual.memory_bytes),
        call_cpu_ms: count(call_cpu_ms, usual.call_cpu_ms),
        call_wall_ms: count(call_wall_ms, usual.call_wall_ms),
        host_calls: count(host_calls, usual.host_calls),
        output_bytes: bytes(output_kib, 10, usual.output_bytes),
        array_bytes: bytes(array_mib, 20, usual.array_bytes),
        log_bytes: bytes(log_kib, 10, usual.log_bytes),
        concurrency: bytes(concurrency, 0, usual.concurrency),
        queue: bytes(queue, 0, usual.queue),
    }
}

/// The limits of its calls that hold, by the names of the manifest.
pub fn limits_by_name(asked: &mainstay_market::Limits) -> BTreeMap<String, u64> {
    let Limits {
        memory_bytes,
        call_cpu_ms,
        call_wall_ms,
        host_calls,
        output_bytes,
        array_bytes,
        log_bytes,
        concurrency,
        queue,
    } = limits(asked);
    let all = [
        ("memory-mib", memory_bytes as u64 >> 20),
        ("call-cpu-ms", call_cpu_ms),
        ("call-wall-ms", call_wall_ms),
        ("host-calls", host_calls),
        ("output-kib", output_bytes as u64 >> 10),
        ("array-mib", array_bytes as u64 >> 20),
        ("log-kib", log_bytes as u64 >> 10),
        ("concurrency", concurrency as u64),
        ("queue", queue as u64),
    ];
    all.map(|(name, limit)| (name.to_string(), limit)).into()
}

fn target(known: &Known) -> Arc<dyn ApiTarget> {
    match &known.running {
        Ok(plugin) => Arc::new(Target { plugin: plugin.clone() }),
        Err(reason) => Arc::new(Down { reason: reason.clone() }),
    }
}

/// The routes of a plugin whose manifest cannot be read, as the lockfile has them. Rights are not there: who may read is
/// told what is wrong.
fn damaged_routes(damaged: &Damaged) -> Option<PluginRoutes> {
    let Damaged { entry, reason } = damaged;
    if !entry.worlds.iter().any(|world| world.starts_with("mainstay:api/api@")) {
        return None;
    }
    let route = |text: &String| {
        let (methods, claim) = text.split_once(' ')?;
        let path = match claim.strip_suffix('*') {
            Some(prefix) => RoutePath::Prefix(prefix.into()),
            None => RoutePath::Exact(claim.into()),
        };
        let methods = methods.split(',').map(str::to_string).collect();
        Some(RouteSpec { path, methods, right: Right::Read, inline_body_bytes: 0 })
    };
    let target = Arc::new(Down { reason: reason.clone() });
    Some(PluginRoutes { name: entry.name.clone(), target, routes: entry.routes.iter().filter_map(route).collect() })
}

fn routes(manifest: &Manifest, target: Arc<dyn ApiTarget>) -> Option<PluginRoutes> {
    if !manifest.has_world("mainstay:api/api") {
        return None;
    }
    let route = |route: &mainstay_market::Route| RouteSpec {
        path: match route.is_prefix() {
            true => RoutePath::Prefix(route.claim().into()),
            false => RoutePath::Exact(route.claim().into()),
        },
        methods: route.methods.iter().map(|method| method.as_str().to_string()).collect(),
        right: match route.right {
            mainstay_market::Right::None => Right::None,
            mainstay_market::Right::Read => Right::Read,
            mainstay_market::Right::Write => Right::Write,
            mainstay_market::Right::Admin => Right::Admin,
        },
        inline_body_bytes: u64::from(route.inline_body_kib) << 10,
    };
    Some(PluginRoutes { name: manifest.name.clone(), target, routes: manifest.routes.iter().map(route).collect() })
}

/// What the gateway calls.
struct Target {
    plugin: Arc<Plugin>,
}

impl ApiTarget for Target {
    fn handle(&self, request: HttpRequest) -> ApiFuture<'_> {
        Box::pin(self.plugin.handle(request))
    }

    fn received(&self, request: HttpRequest, body: BlobInfo) -> ApiFuture<'_> {
        Box::pin(self.plugin.received(request, body))
    }
}

/// What the gateway calls in place of a plugin that does not run: nothing, it says so itself.
struct Down {
    reason: String,
}

impl Down {
    fn refuse(&self) -> ApiFuture<'_> {
        Box::pin(async { Err(CallError::Failed(Error::conflict(self.reason.clone()))) })
    }
}

impl ApiTarget for Down {
    fn handle(&self, _: HttpRequest) -> ApiFuture<'_> {
        self.refuse()
    }

    fn received(&self, _: HttpRequest, _: BlobInfo) -> ApiFuture<'_> {
        self.refuse()
    }

    fn not_running(&self) -> Option<&str> {
        Some(&self.reason)
    }
}

fn state_of(known: &Known) -> &'static str {
    match &known.running {
        Ok(plugin) if plugin.stats().quarantine_left_ms > 0 => "quarantined",
        Ok(_) => "running",
        Err(_) => "failed",
    }
}

fn route_detail(route: &mainstay_market::Route) -> RouteDetail {
    RouteDetail { route: route.to_string(), right: route.right.as_str().into() }
}

/// What is told about an installed plugin.
pub fn describe(installed: &Installed, state: &str, problem: Option<String>) -> PluginDetail {
    let Installed { entry, manifest, config, .. } = installed;
    PluginDetail {
        summary: PluginSummary {
            name: entry.name.clone(),
            version: entry.version.to_string(),
            description: manifest.description.clone(),
            state: state.into(),
        },
        digest: entry.digest.clone(),
        license: manifest.license.clone(),
        worlds: entry.worlds.clone(),
        capabilities: manifest.capabilities.clone(),
        grants: entry.grants.clone(),
        routes: manifest.routes.iter().map(route_detail).collect(),
        limits: limits_by_name(&manifest.limits),
        mount: format!("/plugins/{}/", entry.name),
        config: config.clone(),
        problem,
    }
}

#[async_trait]
impl Admin for Plugins {
    async fn plugins(&self) -> Result<Vec<PluginSummary>> {
        let entries = self.inner.market.lockfile()?.plugins;
        let summary = |entry: mainstay_market::LockEntry| match self.detail(&entry.name) {
            Ok(detail) => detail.summary,
            Err(error) => PluginSummary {
                name: entry.name,
                version: entry.version.to_string(),
                description: error.message().into(),
                state: "failed".into(),
            },
        };
        Ok(entries.into_iter().map(summary).collect())
    }

    async fn plugin(&self, name: &str) -> Result<PluginDetail> {
        self.detail(name)
    }

    async fn install(&self, upload: InstallUpload) -> Result<PluginDetail> {
        let InstallUpload { file, grants, grant_all, config } = upload;
        let package = blocking(move || Package::read(&file)).await?;
        let asked = &package.manifest.capabilities;
        let missing: Vec<&String> = asked.iter().filter(|name| !grants.contains(name)).collect();
        if !grant_all && !missing.is_empty() && grants.is_empty() {
            return Err(Error::denied(format!(
                "`{}` {} asks for {}; grant them (`grant=NAME,…`, or fewer of them) or all (`grant_all=true`)",
                package.manifest.name,
                package.manifest.version,
                mainstay_market::located::list(asked)
            )));
        }
        let grants = if grant_all { None } else { Some(grants) };
        self.install_package(package, grants, config).await
    }

    async fn configure(&self, name: &str, config: Value) -> Result<PluginDetail> {
        let (this, owned) = (self.clone(), name.to_string());
        let (entry, package) = blocking(move || this.inner.market.package(&owned)).await?;
        self.install_package(package, Some(entry.grants), Some(config)).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let _changing = self.inner.changing.lock().await;
        let (this, owned) = (self.clone(), name.to_string());
        blocking(move || this.inner.market.remove(&owned)).await?;
        self.inner.workers.is_gone(name).await?;
        self.known().remove(name);
        self.damaged().remove(name);
        self.inner.readiness.forget(&format!("plugin:{name}"));
        tracing::info!(plugin = %name, "removed");
        self.publish()
    }

    async fn collect_garbage(&self) -> Result<BlobSweep> {
        let report = self.inner.blobs.collect_garbage().await?;
        Ok(BlobSweep { examined: report.examined, removed: report.removed, freed_bytes: report.removed_bytes })
    }
}
