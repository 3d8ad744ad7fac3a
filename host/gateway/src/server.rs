//! The listeners, the connections, and their end.
//!
//! [`Gateway::start`] binds before it returns, so the addresses are real. Each connection is a task that serves HTTP/1.1
//! and is watched for silence. [`Gateway::shutdown`] drains: no new connections, idle ones close, requests being answered
//! finish within the grace time, then what is left is cut.
//!
//! Bounded by [`GatewayLimits`]. On failure to accept (no file descriptors left, for instance) it waits a moment and goes
//! on; a failing connection is its own.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_base::{Error, OsRandom, Random, Result, SeededRandom};
use mainstay_inference::Models;
use mainstay_store::blobs::Blobs;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, VersionInfo};
use crate::auth::Auth;
use crate::connection::{self, Watch, WatchedStream};
use crate::exchange::{self, RETRY_WHEN_BUSY};
use crate::grpc;
use crate::host_routes::{self, AdminState, HostMeters};
use crate::inference_routes::Inference;
use crate::metrics::{Metrics, SharedRegistry};
use crate::options::{AuthMode, GatewayLimits, GatewayOptions};
use crate::plugin_routes::{BUDGET_UNIT_BYTES, BUDGET_WAIT};
use crate::problem::{self, Problem};
use crate::readiness::Readiness;
use crate::rooms::Rooms;
use crate::routes::Routes;
use crate::tokens::Tokens;
use crate::trace::TraceHook;

/// How long to wait after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the gateway serves.
pub struct GatewayState {
    /// Who answers which path; kept by whoever installs plugins.
    pub routes: Routes,
    /// Where bodies go to and come from.
    pub blobs: Blobs,
    /// Who may enter.
    pub tokens: Tokens,
    /// What operators may do.
    pub admin: Arc<dyn Admin>,
    /// What else they reach.
    pub rooms: Rooms,
    /// Who answers the Open Inference Protocol.
    pub inference: Arc<dyn Models>,
    /// Who is ready; kept by whoever starts plugins.
    pub readiness: Readiness,
    /// What `/metrics` shows.
    pub registry: SharedRegistry,
    /// What `/-/version` says.
    pub version: VersionInfo,
    /// Joins the host's spans to clients' traces, when they are exported.
    pub trace_hook: Option<Arc<dyn TraceHook>>,
}

/// What every request looks at.
pub(crate) struct Shared {
    pub(crate) options: GatewayOptions,
    pub(crate) routes: Routes,
    pub(crate) blobs: Blobs,
    pub(crate) auth: Auth,
    pub(crate) readiness: Readiness,
    pub(crate) registry: SharedRegistry,
    pub(crate) metrics: Metrics,
    pub(crate) host_meters: HostMeters,
    pub(crate) router: axum::Router,
    pub(crate) inference: Inference,
    pub(crate) trace_hook: Option<Arc<dyn TraceHook>>,
    pub(crate) ids: SeededRandom,
    /// Room for buffered bodies, in units of `BUDGET_UNIT_BYTES`.
    pub(crate) buffered: Semaphore,
    units: usize,
    drain: CancellationToken,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether there is a place for one more request (this one is counted already).
    pub(crate) fn check_load(&self) -> std::result::Result<(), Problem> {
        if self.metrics.in_flight.get() as usize <= self.options.limits.requests_in_flight_max {
            return Ok(());
        }
        self.metrics.refused("in-flight");
        let detail = "this host answers as many requests as it may; try again shortly";
        Err(Problem::new(&problem::OVERLOADED, detail).retry_after(RETRY_WHEN_BUSY))
    }

    /// Room for a body of so many bytes among those that are held in memory. Waits a while for it.
    pub(crate) async fn room(&self, length_bytes: u64) -> std::result::Result<SemaphorePermit<'_>, Problem> {
        let units = u32::try_from(length_bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
        if let Ok(room) = self.buffered.try_acquire_many(units) {
            return Ok(room);
        }
        match tokio::time::timeout(BUDGET_WAIT, self.buffered.acquire_many(units)).await {
            Ok(Ok(room)) => Ok(room),
            _ => {
                self.metrics.refused("buffered-bytes");
                let detail = "the bodies of other requests fill the memory meant for them; try again shortly";
                Err(Problem::new(&problem::OVERLOADED, detail).retry_after(Duration::from_secs(1)))
            }
        }
    }

    /// Bring the gauge of buffered bytes up to date.
    pub(crate) fn observe_room(&self) {
        let used = self.units.saturating_sub(self.buffered.available_permits());
        self.metrics.buffered_bytes.set((used as u64 * BUDGET_UNIT_BYTES) as i64);
    }
}

/// A running gateway.
pub struct Gateway {
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    accepting: TaskTracker,
    connections: TaskTracker,
    drain: CancellationToken,
    kill: CancellationToken,
    metrics: Metrics,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because the grace time was over.
    pub cut_connections: u64,
}

impl Gateway {
    /// Listen and serve. Refuses to listen beyond loopback while there is no token and nobody said that none is needed.
    pub async fn start(options: GatewayOptions, state: GatewayState) -> Result<Gateway> {
        let beyond = !options.http.ip().is_loopback() || options.grpc.is_some_and(|grpc| !grpc.ip().is_loopback());
        let required = match options.auth {
            AuthMode::Always => true,
            AuthMode::Never => false,
            AuthMode::BeyondLoopback => beyond,
        };
        if required && state.tokens.is_empty() {
            return Err(Error::denied(format!(
                "{} needs tokens and there is none; run `mainstay token create --role admin NAME` first, or allow everyone in the configuration",
                options.http
            )));
        }
        let address = options.http;
        let failed = |error: std::io::Error| {
            Error::unavailable(format!("cannot listen on {address}: {error}; choose another address with `--listen`"))
                .with_source(error)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let http = listener.local_addr().map_err(failed)?;
        let (accepting, connections) = (TaskTracker::new(), TaskTracker::new());
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let grpc_address = options.grpc;
        let shared = Arc::new(share(options, state, Access { required, beyond }, drain.clone())?);
        let grpc = match grpc_address {
            None => None,
            Some(address) => Some(grpc::serve(address, shared.clone(), &accepting, &drain, &kill).await?),
        };
        let metrics = shared.metrics.clone();
        accepting.spawn(accept(listener, shared, connections.clone(), kill.clone()));
        Ok(Gateway { http, grpc, accepting, connections, drain, kill, metrics })
    }

    /// Where HTTP listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where gRPC listens, if it does.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Stop: nothing new, finish what runs within `grace`, cut what is left.
    pub async fn shutdown(self, grace: Duration) -> Drained {
        self.drain.cancel();
        self.accepting.close();
        self.connections.close();
        let drained = async {
            self.connections.wait().await;
            self.accepting.wait().await;
        };
        let cut_connections = match tokio::time::timeout(grace, drained).await {
            Ok(()) => 0,
            Err(_) => self.metrics.connections.get().max(0) as u64,
        };
        self.kill.cancel();
        self.connections.wait().await;
        self.accepting.wait().await;
        Drained { cut_connections }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.drain.cancel();
        self.kill.cancel();
    }
}

/// Who may come in.
struct Access {
    /// Credentials are required.
    required: bool,
    /// Others than this machine can connect.
    beyond: bool,
}

fn share(options: GatewayOptions, state: GatewayState, access: Access, drain: CancellationToken) -> Result<Shared> {
    let metrics = Metrics::register(&mut state.registry.write());
    let scratch_folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    host_routes::prepare_scratch(&scratch_folder)?;
    // An operator who lets everyone in from everywhere has given this host names that we do not know.
    let check_names = !access.beyond || !options.allowed_hosts.is_empty();
    let auth = Auth::new(
        state.tokens.clone(),
        access.required,
        check_names.then(|| options.allowed_hosts.clone()),
        options.auth_failures_per_minute_max,
        metrics.clone(),
    );
    let units = (options.limits.buffered_bytes_max / BUDGET_UNIT_BYTES as usize).min(Semaphore::MAX_PERMITS);
    let admin = Arc::new(AdminState {
        admin: state.admin,
        tokens: state.tokens,
        version: state.version,
        scratch_folder,
        limits: options.limits.clone(),
    });
    let router = host_routes::router(admin, state.rooms.routers(&state.blobs, &options.limits));
    let inference = Inference::new(state.inference, &options.limits);
    Ok(Shared {
        routes: state.routes,
        blobs: state.blobs,
        auth,
        readiness: state.readiness,
        registry: state.registry,
        host_meters: HostMeters::new(&metrics),
        metrics,
        router,
        inference,
        trace_hook: state.trace_hook,
        ids: SeededRandom::new(OsRandom.number()),
        buffered: Semaphore::new(units),
        units,
        drain,
        options,
    })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, connections: TaskTracker, kill: CancellationToken) {
    let places = Arc::new(Semaphore::new(shared.options.limits.connections_max));
    let drain = shared.drain.clone();
    loop {
        let next = async {
            // A place first: who finds none waits in the system's backlog and costs nothing here.
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = drain.cancelled() => return,
        };
        match accepted {
            None => return,
            Some((place, Ok((stream, peer)))) => {
                connections.spawn(serve(stream, peer, shared.clone(), kill.clone(), place));
            }
            Some((_, Err(error))) => {
                tracing::warn!(?error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn protocol(limits: &GatewayLimits) -> http1::Builder {
    /// Less than this, hyper does not take.
    const BUFFER_BYTES_MIN: usize = 8_192;
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        // The watch does this, without a timer for each request.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN));
    protocol
}

/// Serve one connection until its client, a timeout or the drain ends it.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    kill: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    // Small answers must not wait for acknowledgements. If it fails the connection is gone already, and reading says so.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let watch = Arc::new(Watch::new(peer, local));
    let _open = Open::new(&shared.metrics);
    let limits = shared.options.limits.clone();
    let io = TokioIo::new(WatchedStream { stream, watch: watch.clone() });
    let service = service_fn(|request| exchange::answer(shared.clone(), watch.clone(), request));
    let mut connection = pin!(protocol(&limits).serve_connection(io, service));
    let mut ticks = tokio::time::interval(connection::tick(&limits));
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, ?error, "a connection ended");
                }
                return;
            }
            _ = ticks.tick() => if let Some(overdue) = watch.overdue(&limits) {
                shared.metrics.connection_closed(overdue.word());
                return;
            },
            () = shared.drain.cancelled(), if !draining => {
                if watch.is_fresh() {
                    return;
                }
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = kill.cancelled() => {
                shared.metrics.connection_closed("drain");
                return;
            }
        }
    }
}

/// Counts an open connection.
struct Open(prometheus_client::metrics::gauge::Gauge);

impl Open {
    fn new(metrics: &Metrics) -> Open {
        metrics.connections.inc();
        Open(metrics.connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
