//! Connections of HTTP/1.1 to one server, kept.
//!
//! Owns who uses which connection, how many there are, and how long an unused one lives. Separate from what is said over them.
//! The one that was used last is used first, so that those that are not needed grow old.
//!
//! Bounded by the options: connections, requests that wait for one, idle time. On failure: [`Stop`]; a lease that is dropped before
//! its answer was read closes its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::connection::Connection;
use crate::dial::Connector;
use crate::failure::Stop;
use crate::options::UpstreamOptions;

struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    idle: Vec<Idle>,
    /// Whether a task looks for those that are too old.
    is_swept: bool,
}

pub(crate) struct Pool {
    connector: Connector,
    kept: Mutex<Kept>,
    permits: Arc<Semaphore>,
    connections_max: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
    idle_timeout: Duration,
}

/// A connection in use.
pub(crate) struct Lease {
    pub connection: Connection,
    /// Whether it was used before: then the server may have closed it just now.
    pub is_reused: bool,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub fn new(connector: Connector, options: &UpstreamOptions) -> Arc<Pool> {
        Arc::new(Pool {
            connector,
            kept: Mutex::default(),
            permits: Arc::new(Semaphore::new(options.connections_max)),
            connections_max: options.connections_max,
            waiting: AtomicUsize::new(0),
            waiting_max: options.waiting_max,
            idle_timeout: Duration::from_millis(options.idle_timeout_ms),
        })
    }

    /// A connection: the one that was used last, or a new one.
    pub async fn lease(self: &Arc<Pool>, url: &str) -> Result<Lease, Stop> {
        let permit = self.permit(url).await?;
        if let Some(connection) = self.take() {
            return Ok(Lease { connection, is_reused: true, pool: self.clone(), _permit: permit });
        }
        let connection = self.fresh().await?;
        Ok(Lease { connection, is_reused: false, pool: self.clone(), _permit: permit })
    }

    async fn permit(&self, url: &str) -> Result<OwnedSemaphorePermit, Stop> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let waits = Waits::new(&self.waiting);
        if waits.place > self.waiting_max {
            return Err(Stop::busy(url, self.connections_max, self.waiting_max));
        }
        Ok(self.permits.clone().acquire_owned().await.expect("permits are never closed"))
    }

    fn take(&self) -> Option<Connection> {
        loop {
            // Looked at outside of the lock: looking reads from the socket.
            let mut idle = self.kept.lock().idle.pop()?;
            if idle.since.elapsed() < self.idle_timeout && idle.connection.is_usable() {
                return Some(idle.connection);
            }
        }
    }

    async fn fresh(&self) -> Result<Connection, Stop> {
        let connected = self.connector.connect().await.map_err(Stop::unreachable)?;
        Connection::new(connected).await.map_err(|error| {
            let message = format!("cannot speak HTTP with an upstream: {error}");
            Stop::unreachable(mainstay_base::Error::unavailable(message))
        })
    }

    fn keep(self: &Arc<Pool>, connection: Connection) {
        let mut kept = self.kept.lock();
        kept.idle.push(Idle { connection, since: Instant::now() });
        if !std::mem::replace(&mut kept.is_swept, true) {
            self.sweep();
        }
    }

    /// Close what was idle for too long, or was closed by the server, until nothing is idle.
    fn sweep(self: &Arc<Pool>) {
        let (pool, pause) = (Arc::downgrade(self), self.idle_timeout / 2);
        tokio::spawn(async move {
            loop {
                sleep(pause.max(Duration::from_millis(1))).await;
                let Some(pool) = pool.upgrade() else { return };
                let mut kept = pool.kept.lock();
                kept.idle.retain_mut(|idle| idle.since.elapsed() < pool.idle_timeout && idle.connection.is_usable());
                if kept.idle.is_empty() {
                    kept.idle.shrink_to_fit();
                    kept.is_swept = false;
                    return;
                }
            }
        });
    }

    pub fn idle(&self) -> usize {
        self.kept.lock().idle.len()
    }
}

impl Lease {
    /// The same place, with a connection that nobody used before.
    pub async fn renew(self) -> Result<Lease, Stop> {
        let Lease { connection, pool, _permit, .. } = self;
        drop(connection);
        let connection = pool.fresh().await?;
        Ok(Lease { connection, is_reused: false, pool, _permit })
    }

    /// The answer was read to its end: the connection may be used again, if it can be.
    pub fn done(mut self) {
        if self.connection.is_usable() {
            let Lease { connection, pool, .. } = self;
            pool.keep(connection);
        }
    }
}

/// One that waits for a connection.
struct Waits<'a> {
    waiting: &'a AtomicUsize,
    place: usize,
}

impl Waits<'_> {
    fn new(waiting: &AtomicUsize) -> Waits<'_> {
        Waits { waiting, place: waiting.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
