//! One client's connection: watched for silence, and known to the drain.
//!
//! [`WatchedStream`] notes when a head begins, when the client stops taking bytes, and when the connection is idle; the
//! task that owns the connection looks at these notes on a coarse tick. So the timeouts cost no timer per request, and
//! `head_read_timeout` counts from a head's first byte while `idle_timeout` counts the silence between requests.
//!
//! Bounded by `connections_max`; a connection that breaks a timeout is closed without an answer, because its client is
//! not reading one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::options::GatewayLimits;

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;
/// Not a byte came yet: may be dropped at once.
const FRESH: u64 = 3;

/// What is noted of a connection.
pub(crate) struct Watch {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    began: Instant,
    /// Phase in the two low bits; above them, milliseconds since `began` at which it was entered.
    phase: AtomicU64,
    /// One more than the milliseconds since `began` at which a write had to wait; 0 while none does.
    blocked: AtomicU64,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    Head,
    Idle,
    Write,
}

impl Overdue {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Overdue::Head => "slow-head",
            Overdue::Idle => "idle",
            Overdue::Write => "slow-reader",
        }
    }
}

impl Watch {
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Watch {
        Watch { peer, local, began: Instant::now(), phase: AtomicU64::new(FRESH), blocked: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn enter(&self, phase: u64) {
        self.phase.store(self.now_ms() << 2 | phase, Ordering::Relaxed);
    }

    fn bytes_arrived(&self) {
        if matches!(self.phase.load(Ordering::Relaxed) & 3, IDLE | FRESH) {
            self.enter(HEAD);
        }
    }

    fn write_waits(&self, waits: bool) {
        let before = self.blocked.load(Ordering::Relaxed);
        match (waits, before) {
            (true, 0) => self.blocked.store(self.now_ms() + 1, Ordering::Relaxed),
            (false, 1..) => self.blocked.store(0, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether nothing was ever received.
    pub(crate) fn is_fresh(&self) -> bool {
        self.phase.load(Ordering::Relaxed) & 3 == FRESH
    }

    /// Which timeout is broken, if one is.
    pub(crate) fn overdue(&self, limits: &GatewayLimits) -> Option<Overdue> {
        let now = self.now_ms();
        let over = |since: u64, timeout: Duration| u128::from(now.saturating_sub(since)) > timeout.as_millis();
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked > 0 && over(blocked - 1, limits.write_stall_timeout) {
            return Some(Overdue::Write);
        }
        let noted = self.phase.load(Ordering::Relaxed);
        match noted & 3 {
            IDLE | FRESH if over(noted >> 2, limits.idle_timeout) => Some(Overdue::Idle),
            HEAD if over(noted >> 2, limits.head_read_timeout) => Some(Overdue::Head),
            _ => None,
        }
    }
}

/// How often the notes are looked at: often enough to be within a quarter of the shortest timeout.
pub(crate) fn tick(limits: &GatewayLimits) -> Duration {
    let shortest = limits.head_read_timeout.min(limits.idle_timeout).min(limits.write_stall_timeout);
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

/// A request from its head to the end of its answer: holds a place among those in flight.
pub(crate) struct ActiveRequest {
    watch: Arc<Watch>,
    in_flight: Gauge,
}

impl ActiveRequest {
    pub(crate) fn begin(watch: Arc<Watch>, in_flight: Gauge) -> ActiveRequest {
        watch.enter(BUSY);
        in_flight.inc();
        ActiveRequest { watch, in_flight }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.watch.enter(IDLE);
        self.in_flight.dec();
    }
}

/// A socket whose progress is noted.
pub(crate) struct WatchedStream {
    pub(crate) stream: TcpStream,
    pub(crate) watch: Arc<Watch>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.watch.bytes_arrived();
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch.write_waits(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.watch.write_waits(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
