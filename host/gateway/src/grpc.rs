//! The gRPC listener: the standard health service, and the Open Inference Protocol.
//!
//! Mirrors [`Readiness`]: the empty service name stands for the host, `plugin:NAME` for each part. Separate from the HTTP
//! listener because HTTP/2 has limits of its own: streams of a connection, and pings that find dead clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::readiness::Readiness;
use crate::server::Shared;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Listen and serve until `drain` is cancelled. Gives the address.
pub(crate) async fn serve(
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: &TaskTracker,
    drain: &CancellationToken,
    kill: &CancellationToken,
) -> Result<SocketAddr> {
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("cannot listen on {address} for gRPC: {error}")).with_source(error)
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    tasks.spawn(mirror(shared.readiness.clone(), reporter, drain.clone()));
    let limits = &shared.options.limits;
    let server = Server::builder()
        .max_concurrent_streams(limits.grpc_streams_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .timeout(limits.answer_timeout)
        .add_service(health)
        .add_service(shared.inference.service(shared.clone()));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (drain, kill) = (drain.clone(), kill.clone());
    tasks.spawn(async move {
        let serving = server.serve_with_incoming_shutdown(incoming, drain.cancelled_owned());
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!(?error, "the gRPC listener ended");
            },
            () = kill.cancelled() => {}
        }
    });
    Ok(local)
}

/// Tell the health service what becomes ready and what does not, until the drain.
async fn mirror(readiness: Readiness, mut reporter: HealthReporter, drain: CancellationToken) {
    let mut changes = readiness.watch();
    let mut before = BTreeMap::new();
    loop {
        let now = changes.borrow_and_update().clone();
        report(&mut reporter, &before, &now).await;
        before = now;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = drain.cancelled() => break,
        }
    }
    for part in before.keys() {
        reporter.set_service_status(part, ServingStatus::NotServing).await;
    }
    reporter.set_service_status("", ServingStatus::NotServing).await;
}

type Parts = BTreeMap<String, Option<String>>;

async fn report(reporter: &mut HealthReporter, before: &Parts, now: &Parts) {
    let status = |ready: bool| if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for (part, reason) in now {
        reporter.set_service_status(part, status(reason.is_none())).await;
    }
    for part in before.keys().filter(|part| !now.contains_key(*part)) {
        reporter.clear_service_status(part).await;
    }
    reporter.set_service_status("", status(now.values().all(Option::is_none))).await;
}
