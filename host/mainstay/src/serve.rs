//! `mainstay serve`: wires the rooms together, and takes them apart again.
//!
//! Owns the order: lock the data folder, open the store, blobs and directory, load the plugins, listen, say so; then wait
//! for a signal, drain, close. Separate because every other file here is about one thing, and this one about their order.
//! Bounded: draining takes at most `shutdown.drain-s`; a second signal ends the process at once, which loses nothing that was
//! acknowledged. On failure while starting: a message with what to do, and an exit code; what was opened is closed.

use crate::data_folder::{self, DataFolder, Owner};
use crate::device_metrics::DeviceCollector;
use crate::exit::{Exit, Failure};
use crate::plugins::{Parts, Plugins};
use crate::registry::Registry;
use crate::room_metrics::RoomCollector;
use crate::screen::Screen;
use crate::serving::Serving;
use crate::settings::{Choice, Settings};
use crate::telemetry;
use crate::workers::{JobDesk, Workers};
use mainstay_base::{Clock, Error, ErrorKind, OsRandom, Result, SystemClock};
use mainstay_gateway::{
    AuthMode, Gateway, GatewayState, JobsAdmin, Readiness, Role, Rooms, Routes, SharedRegistry, TablesAdmin, Tokens,
    VersionInfo,
};
use mainstay_interfaces::kernel_metrics::KernelCollector;
use mainstay_interfaces::{CompileIn, HostOptions, PluginHost, Services};
use mainstay_market::{Installed, LockEntry, Lockfile, Market, Package};
use mainstay_outbound::{DELIVERY_KIND, Deliverer};
use mainstay_predictions::Predictions;
use mainstay_schedule::process::ProcessExecutor;
use mainstay_schedule::{Driver, DriverOptions};
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, Blobs};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Name of the token by which the commands on this machine talk to a server that needs tokens.
pub const LOCAL_TOKEN_NAME: &str = "this-machine";
/// Where that token is, below the data folder.
pub const LOCAL_TOKEN_FILE: &str = "secrets/local-token";
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// How often pending rows of tables are looked at; sooner when there are many.
const COMPACT_INTERVAL: Duration = Duration::from_secs(10);
/// There once the standard plugins were placed: one that was removed since does not come back by itself.
const PLACED_MARKER: &str = "standard-plugins-placed";
const WITHOUT_PLUGINS: &str =
    "Install one: `mainstay plugin install FILE`, or start an empty data folder with `--registry DIR`.";

/// Run until a signal.
pub fn run(settings: Settings, ready_file: Option<PathBuf>, started: Instant) -> std::result::Result<Exit, Failure> {
    let asked = settings.asked_engine;
    let folder = DataFolder::open(&settings.data, "serve", asked)?;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .thread_name("gateway")
        .enable_all()
        .build()
        .map_err(|error| Error::unavailable(format!("cannot start threads: {error}")))?;
    let exit = threads.block_on(serve(&settings, folder, ready_file, started));
    threads.shutdown_timeout(Duration::from_secs(1));
    exit.map_err(Failure::from)
}

async fn serve(
    settings: &Settings,
    mut folder: DataFolder,
    ready_file: Option<PathBuf>,
    started: Instant,
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    check_addresses(settings)?;
    let running = tokio::select! {
        running = start(settings, &folder) => running?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped while starting");
            return Ok(Exit::Done);
        }
    };
    let owner = running.owner();
    folder.describe(&owner)?;
    // A server goes on when nobody reads its screen.
    let _ = std::io::stdout().write_all(running.screen(settings, &folder, started).render().as_bytes());
    if let Some(path) = &ready_file {
        write_ready_file(path, &owner)?;
    }
    let ready_ms = started.elapsed().as_millis() as u64;
    tracing::info!(http = owner.http, grpc = owner.grpc, ready_ms, "ready");
    if !running.has_device && settings.cuda.mode == mainstay_cuda::Mode::Auto {
        tracing::info!("computing on the processor; `mainstay doctor` says why no CUDA device is used");
    }
    tell_of_others(settings, folder.path());
    let name = signals.next().await;
    tracing::info!(signal = name, drain_s = settings.drain.as_secs(), "draining; a second signal ends at once");
    if let Some(path) = &ready_file {
        // Whoever waits for the file reads its absence; that it could not be removed changes nothing.
        let _ = std::fs::remove_file(path);
    }
    tokio::select! {
        outcome = running.stop(settings.drain) => outcome?,
        name = signals.next() => {
            tracing::warn!(signal = name, "ended at once");
            // Everything acknowledged is on disk; nothing else here needs an orderly end.
            std::process::exit(i32::from(Exit::Failed.code()));
        }
    }
    drop(folder);
    Ok(Exit::Done)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let listen =
            |kind| signal(kind).map_err(|error| Error::unavailable(format!("cannot listen for signals: {error}")));
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Before anything slow: a taken port should be told at once.
fn check_addresses(settings: &Settings) -> Result<()> {
    let addresses = [("--listen", Some(settings.gateway.http)), ("--grpc", settings.gateway.grpc)];
    for (flag, address) in addresses {
        let Some(address) = address else { continue };
        std::net::TcpListener::bind(address).map_err(|error| {
            Error::unavailable(format!(
                "cannot listen on {address}: {error}; stop what listens there, or choose another address with `{flag}` (port \
                 0 takes any free one)"
            ))
        })?;
    }
    Ok(())
}

/// A server that answers.
struct Running {
    store: Store,
    plugins: Plugins,
    tokens: Tokens,
    gateway: Gateway,
    needs_token: bool,
    local_token: Option<PathBuf>,
    sweeper: JoinHandle<()>,
    background: Background,
    predictions: Predictions,
    serving: Serving,
    has_device: bool,
    /// Compacts tables until it is dropped.
    compactor: mainstay_tables::Driver,
    url: String,
}

/// What works without being asked: jobs and events.
struct Background {
    jobs: Arc<Driver>,
    events: Arc<mainstay_events::Driver>,
    workers: Workers,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Background {
    fn new(settings: &Settings, services: &Services) -> Result<Background> {
        let Services { scheduler, events, random, .. } = services;
        // Unlike any other, also than this host before a restart: what an earlier one held is not its own.
        let owner = format!("host-{:016x}", random.number());
        let teller = mainstay_events::DriverOptions::new(owner.clone());
        let teller = Arc::new(mainstay_events::Driver::new(events.clone(), teller));
        let workers = Workers::new(scheduler.clone(), events.clone(), teller.clone());
        let options = DriverOptions { attempts_max: settings.attempts_max, ..DriverOptions::new(owner) };
        let mut jobs = Driver::new(scheduler.clone(), options);
        jobs = jobs.with("process", Arc::new(ProcessExecutor::of_this_program()?));
        jobs = jobs.with(DELIVERY_KIND, Arc::new(Deliverer::new(services.outbound.clone())));
        for (kind, executor) in workers.executors() {
            jobs = jobs.with(kind, executor);
        }
        let shutdown = CancellationToken::new();
        Ok(Background { jobs: Arc::new(jobs), events: teller, workers, shutdown, tasks: Vec::new() })
    }

    /// Begin, once plugins run: nothing is tried before those are there that could do it.
    async fn begin(&mut self, services: &Services) -> Result<()> {
        mainstay_outbound::install(&services.scheduler).await?;
        self.workers.follow_jobs().await?;
        self.tasks.push(tokio::spawn(self.jobs.clone().run(self.shutdown.clone())));
        self.tasks.push(tokio::spawn(self.events.clone().run(self.shutdown.clone())));
        Ok(())
    }

    fn admin(&self, services: &Services) -> JobsAdmin {
        let desk = JobDesk { driver: self.jobs.clone(), workers: self.workers.clone() };
        JobsAdmin { scheduler: services.scheduler.clone(), host: Arc::new(desk) }
    }

    /// Tell what runs to end, and wait for it.
    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "work in the background ended by itself");
            }
        }
    }
}

async fn start(settings: &Settings, folder: &DataFolder) -> Result<Running> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let market = Market::open(folder.path(), clock.clone())?;
    let entries = market.lockfile()?.plugins;
    // Reading the packages and replaying the log take about as long: do both at once.
    let reading = read_installed(folder.path().into(), entries);
    let options = settings.store(folder.engine());
    let (store, installed) = tokio::join!(blocking(move || Store::open(options)), reading);
    let store = store?;
    let tokens = Tokens::open(store.clone(), clock.clone(), Arc::new(OsRandom))?;
    let needs_token = settings.needs_token();
    remove_local_token(&tokens, folder.path()).await?;
    if needs_token && tokens.is_empty() {
        // Before anything is installed.
        return Err(Error::denied(NO_TOKEN));
    }
    let backend = BlobBackend::Local { folder: folder.path().join("blobs") };
    let blobs = Blobs::open(store.clone(), backend, clock.clone(), settings.blob_grace)?;
    let device = settings.device()?;
    let services = settings.services(&store, &blobs, device.as_ref())?;
    let predictions = Predictions::new(services.tables.clone(), services.clock.clone());
    let mut background = Background::new(settings, &services)?;
    let jobs = background.admin(&services);
    let host = plugin_host(settings, services.clone(), folder.path())?;
    let registry = SharedRegistry::default();
    registry.write().register_collector(Box::new(host.metrics()));
    registry.write().register_collector(Box::new(KernelCollector(host.services().kernels.clone())));
    let has_device = device.is_some();
    if let Some(device) = device {
        registry.write().register_collector(Box::new(DeviceCollector(device)));
    }
    let (routes, readiness) = (Routes::new(), Readiness::new());
    let plugins = Plugins::new(Parts {
        market,
        host: host.clone(),
        store: store.clone(),
        blobs: blobs.clone(),
        routes: routes.clone(),
        readiness: readiness.clone(),
        workers: background.workers.clone(),
        grants: settings.outbound.clone(),
    });
    let chosen = choose(settings, &plugins, installed, folder.path()).await?;
    plugins.start(chosen).await?;
    background.begin(&services).await?;
    let local_token = match needs_token {
        true => Some(make_local_token(&tokens, folder.path()).await?),
        false => None,
    };
    let serving = Serving::start(&host, &predictions, version().version).await?;
    let rooms = Rooms {
        jobs,
        endpoints: serving.traffic.clone(),
        models: serving.importer.clone(),
        events: services.events.clone(),
        predictions: predictions.clone(),
        tables: TablesAdmin { tables: services.tables.clone(), query_bytes: settings.query_bytes },
    };
    registry.write().register_collector(Box::new(RoomCollector(rooms.clone())));
    let state = GatewayState {
        routes,
        blobs: blobs.clone(),
        tokens: tokens.clone(),
        admin: Arc::new(plugins.clone()),
        rooms,
        inference: Arc::new(serving.models.clone()),
        readiness,
        registry,
        version: version(),
        trace_hook: telemetry::endpoint(&settings.traces).map(|_| telemetry::hook()),
    };
    let mut options = settings.gateway.clone();
    options.scratch_folder = Some(folder.path().join("cache/uploads"));
    let gateway = Gateway::start(options, state).await?;
    let url =
        settings.gateway.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(gateway.http_addr())));
    let compactor = services.tables.drive(COMPACT_INTERVAL)?;
    let sweeper = tokio::spawn(sweep(blobs, services, settings.runs_kept));
    Ok(Running {
        store,
        plugins,
        tokens,
        gateway,
        needs_token,
        local_token,
        sweeper,
        background,
        predictions,
        serving,
        has_device,
        compactor,
        url,
    })
}

/// The host of plugins, as the settings say.
pub fn plugin_host(settings: &Settings, services: Services, data: &Path) -> Result<PluginHost> {
    let options = HostOptions {
        engine: settings.sandbox.clone(),
        compile: CompileIn::own_binary(settings.compile.clone())?,
        cache_folder: Some(data.join("cache")),
    };
    PluginHost::new(services, options)
}

/// What this binary is.
pub fn version() -> VersionInfo {
    VersionInfo {
        name: "mainstay".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("MAINSTAY_COMMIT").map(str::to_string),
        worlds: mainstay_market::worlds().iter().map(ToString::to_string).collect(),
    }
}

/// An address that a client on this machine can use: not "every address".
fn reachable(mut address: std::net::SocketAddr) -> std::net::SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}

/// An address as it is bound, for people.
fn listening(address: std::net::SocketAddr) -> String {
    let every = if address.ip().is_unspecified() { " (every address)" } else { "" };
    format!("{address}{every}")
}

/// What to say and do when nothing is installed.
fn without_plugins(registry: &Registry) -> String {
    let place = registry.place();
    match registry.packages() {
        Ok(packages) if packages.is_empty() => {
            format!("None is installed, and none is in {place}. {WITHOUT_PLUGINS}")
        }
        Ok(packages) => {
            let names: Vec<String> = packages.into_iter().map(|package| package.manifest.name).collect();
            let names = mainstay_market::located::list(&names);
            format!("None is installed; {place} has {names}: `mainstay plugin install NAME`.")
        }
        Err(error) => format!("None is installed, and {place} cannot be read: {}.", error.message()),
    }
}

type Read = (LockEntry, Result<Installed>);

/// Read and verify what is installed, each plugin on its own.
async fn read_installed(data: PathBuf, entries: Vec<LockEntry>) -> Vec<Read> {
    let reading: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let data = data.clone();
            let load = entry.clone();
            (entry, tokio::task::spawn_blocking(move || mainstay_market::load(&data, &load)))
        })
        .collect();
    let mut read = Vec::with_capacity(reading.len());
    for (entry, task) in reading {
        let outcome = task.await.unwrap_or_else(|error| Err(Error::internal(error.to_string())));
        read.push((entry, outcome));
    }
    read
}

/// Which plugins run; those that are chosen and missing are installed first. The standard ones are placed once in a data
/// folder's life, whatever else is installed by then.
async fn choose(settings: &Settings, plugins: &Plugins, read: Vec<Read>, data: &Path) -> Result<Vec<Installed>> {
    let registry = Registry::new(settings.registry.as_deref());
    let is_missing = |name: &str| !read.iter().any(|(entry, _)| entry.name == name);
    let marker = data.join(PLACED_MARKER);
    let places_standard = settings.plugins == Choice::Standard && !marker.exists();
    let wanted: Vec<Package> = match &settings.plugins {
        Choice::None => return Ok(Vec::new()),
        Choice::Standard if places_standard => registry.packages()?,
        Choice::Standard => Vec::new(),
        Choice::These(names) => {
            let missing = names.iter().filter(|name| is_missing(name));
            missing.map(|name| registry.find(name)).collect::<Result<_>>()?
        }
    };
    let marks = places_standard && !wanted.is_empty();
    let mut chosen = Vec::new();
    let mut names = Vec::new();
    for package in wanted {
        let (name, version) = (package.manifest.name.clone(), package.manifest.version.clone());
        if places_standard && !is_missing(&name) {
            continue;
        }
        tracing::info!(plugin = %name, %version, "installing");
        let installed = match plugins.place(package).await {
            Err(error) if places_standard && error.kind() == ErrorKind::Conflict => {
                // What the operator has installed himself goes before.
                tracing::warn!(plugin = %name, %error, "the standard plugin is left out");
                continue;
            }
            placed => placed.map_err(|error| error.context(format!("installing `{name}`")))?,
        };
        names.push(name);
        chosen.push(installed);
    }
    if marks {
        data_folder::write_private(&marker, b"")?;
    }
    for (entry, outcome) in read {
        let is_chosen = match &settings.plugins {
            Choice::These(these) => these.contains(&entry.name),
            _ => true,
        };
        if !is_chosen || names.contains(&entry.name) {
            continue;
        }
        match outcome {
            Ok(installed) => chosen.push(installed),
            Err(error) => plugins.note_damaged(&entry, &error),
        }
    }
    Ok(chosen)
}

/// Say in the log which installed plugins this binary or registry has in another version. Beside everything else: reading
/// packages takes a moment, and nothing waits for this.
fn tell_of_others(settings: &Settings, data: &Path) {
    if settings.plugins != Choice::Standard {
        return;
    }
    let (registry, data) = (Registry::new(settings.registry.as_deref()), data.to_path_buf());
    tokio::task::spawn_blocking(move || {
        let (Ok(packages), Ok(lockfile)) = (registry.packages(), Lockfile::read(&data)) else { return };
        for package in packages {
            let (name, here) = (&package.manifest.name, &package.manifest.version);
            match lockfile.find(name) {
                Some(entry) if entry.digest != package.digest => tracing::info!(
                    plugin = %name, installed = %entry.version, offered = %here,
                    "{} has another build of this plugin; `mainstay plugin install {name}` replaces the installed one",
                    registry.place()
                ),
                _ => {}
            }
        }
    });
}

const NO_TOKEN: &str = "requests need tokens, as this address can be reached from beyond this machine or the \
                        configuration always wants them, and there is none; make one first: `mainstay token create \
                        --role admin NAME`";

/// What a killed server left of the token for this machine.
async fn remove_local_token(tokens: &Tokens, data: &Path) -> Result<()> {
    let path = data.join(LOCAL_TOKEN_FILE);
    if tokens.list().iter().any(|token| token.name == LOCAL_TOKEN_NAME) {
        tokens.revoke(LOCAL_TOKEN_NAME).await?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
        _ => Ok(()),
    }
}

/// Let the commands on this machine in, where tokens are needed: whoever can read the data folder owns the server anyway.
async fn make_local_token(tokens: &Tokens, data: &Path) -> Result<PathBuf> {
    let path = data.join(LOCAL_TOKEN_FILE);
    let made = tokens.create(LOCAL_TOKEN_NAME, Role::Admin, None).await?;
    data_folder::write_private(&path, made.token.as_bytes())?;
    Ok(path)
}

async fn sweep(blobs: Blobs, services: Services, runs_kept: Duration) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        if let Err(error) = remove_old_runs(&services, runs_kept).await {
            tracing::warn!(%error, "old runs of jobs could not be removed; it is tried again in an hour");
        }
        match blobs.collect_garbage().await {
            Ok(report) => tracing::debug!(?report, "swept blobs"),
            Err(error) => tracing::warn!(%error, "blobs could not be swept; it is tried again in an hour"),
        }
    }
}

async fn remove_old_runs(services: &Services, kept: Duration) -> Result<()> {
    let before_ms = services.clock.now_ms().saturating_sub(kept.as_millis().min(i64::MAX as u128) as i64);
    while services.scheduler.prune(before_ms).await? > 0 {}
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal(format!("starting ended by itself: {error}"))),
    }
}

fn write_ready_file(path: &Path, owner: &Owner) -> Result<()> {
    let text = serde_json::to_string(owner).map_err(|error| Error::internal(error.to_string()))?;
    // Renamed into place: whoever waits for the file finds all of it.
    data_folder::write_private(path, text.as_bytes())
}

impl Running {
    fn owner(&self) -> Owner {
        Owner {
            pid: std::process::id(),
            command: "serve".into(),
            http: Some(format!("http://{}", reachable(self.gateway.http_addr()))),
            grpc: self.gateway.grpc_addr().map(|address| reachable(address).to_string()),
        }
    }

    fn screen(&self, settings: &Settings, folder: &DataFolder, started: Instant) -> Screen {
        let (plugins, problems) = self.plugins.lines(&self.url, self.needs_token);
        let is_empty = plugins.is_empty() && problems.is_empty();
        let bound = listening(self.gateway.http_addr());
        Screen {
            ready_ms: started.elapsed().as_millis() as u64,
            http: match &settings.gateway.public_url {
                Some(public_url) => format!("{public_url}, listening on {bound}"),
                None => format!("http://{bound}"),
            },
            grpc: self.gateway.grpc_addr().map(listening),
            data_folder: folder.path().display().to_string(),
            engine: folder.engine().as_str(),
            needs_token: self.needs_token,
            is_open: settings.gateway.auth == AuthMode::Never && settings.is_beyond_loopback(),
            plugins,
            problems,
            without_plugins: match settings.plugins {
                _ if !is_empty => String::new(),
                Choice::None => "They were not asked for (`--plugins none`).".into(),
                _ => without_plugins(&Registry::new(settings.registry.as_deref())),
            },
        }
    }

    /// Finish what runs, within `drain`, and close.
    async fn stop(self, drain: Duration) -> Result<()> {
        self.sweeper.abort();
        let drained = self.gateway.shutdown(drain).await;
        if drained.cut_connections > 0 {
            tracing::warn!(connections = drained.cut_connections, "cut what did not end in time");
        }
        if let Some(path) = &self.local_token {
            self.tokens.revoke(LOCAL_TOKEN_NAME).await?;
            std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error))?;
        }
        self.background.stop().await;
        drop(self.serving);
        let (predictions, compactor) = (self.predictions, self.compactor);
        blocking(move || {
            // What was offered is written before the tables rest.
            predictions.close();
            drop(compactor);
            Ok(())
        })
        .await?;
        self.plugins.stop();
        let store = self.store;
        blocking(move || store.close()).await?;
        tracing::info!("stopped");
        Ok(())
    }
}
