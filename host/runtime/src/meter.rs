//! The clocks of one call: how long the plugin's own code ran, and how long the host worked for it.
//!
//! A call is polled in segments: each poll of its future is one. Inside a segment the plugin's code runs, except between
//! [`Meter::enter_host`] and [`Meter::leave_host`]; while a host future waits there is no segment at all. So the
//! plugin's time is the sum of the segments without the host's share, and waiting for a disk costs it nothing.
//!
//! The first segment is timed by the wall clock, because most calls end in it and reading a thread's processor clock is
//! a system call; later ones by the thread's processor clock, so that a preempted plugin is not billed for its neighbours.
//! The engine yields at the first tick, so a first segment's plugin share is at most about a millisecond of running; what
//! is above [`FIRST_SEGMENT_MAX_NS`] can only be preemption and is not billed.
//!
//! All fields are written by the one thread that polls the call at that moment; they are atomics, relaxed, because
//! the poller and the store's data share the meter.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

/// The most that a first segment is billed.
const FIRST_SEGMENT_MAX_NS: u64 = 20_000_000;

/// The processor's own counter where it is steady, the system's clock where not: it is read twice for each host call.
static CLOCK: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// Look at the clock once, which calibrates it, so that no call waits for that.
pub(crate) fn calibrate() {
    LazyLock::force(&CLOCK);
}

/// See the module.
pub(crate) struct Meter {
    /// The counter when the call began.
    base: u64,
    /// When the running segment started, by the wall clock; 0 between segments.
    segment_start_ns: AtomicU64,
    /// The same by the thread's processor clock; 0 in the first segment.
    segment_cpu_ns: AtomicU64,
    /// Host time of the running segment.
    segment_host_ns: AtomicU64,
    /// Since when the host is at work in the running segment; 0 when it is not.
    host_since_ns: AtomicU64,
    /// Whether a host function has been entered and not left, whatever the segment.
    in_host: AtomicU64,
    /// Segments that ended.
    segments: AtomicU64,
    guest_ns: AtomicU64,
    host_ns: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        Meter {
            // The first segment begins here: one look at the clock serves both.
            base: CLOCK.raw(),
            segment_start_ns: AtomicU64::new(0),
            segment_cpu_ns: AtomicU64::new(0),
            segment_host_ns: AtomicU64::new(0),
            host_since_ns: AtomicU64::new(0),
            in_host: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            guest_ns: AtomicU64::new(0),
            host_ns: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the call began, at least 1: 0 means "not now" in the fields above.
    fn now_ns(&self) -> u64 {
        CLOCK.delta_as_nanos(self.base, CLOCK.raw()) | 1
    }

    fn resume(&self) {
        if self.segments.load(Relaxed) == 0 {
            self.segment_start_ns.store(1, Relaxed);
            return;
        }
        let now_ns = self.now_ns();
        self.segment_start_ns.store(now_ns, Relaxed);
        self.segment_cpu_ns.store(thread_cpu_ns(), Relaxed);
        self.segment_host_ns.store(0, Relaxed);
        self.host_since_ns.store(if self.in_host.load(Relaxed) == 1 { now_ns } else { 0 }, Relaxed);
    }

    fn pause(&self) {
        let now_ns = self.now_ns();
        self.close_host_span(now_ns);
        let guest_ns = self.segment_guest_ns(now_ns);
        add(&self.guest_ns, guest_ns);
        add(&self.host_ns, self.segment_host_ns.load(Relaxed));
        add(&self.segments, 1);
        self.segment_start_ns.store(0, Relaxed);
        self.segment_host_ns.store(0, Relaxed);
    }

    /// The plugin's share of the running segment.
    fn segment_guest_ns(&self, now_ns: u64) -> u64 {
        let start_ns = self.segment_start_ns.load(Relaxed);
        let host_ns = self.segment_host_ns.load(Relaxed);
        match self.segment_cpu_ns.load(Relaxed) {
            0 => now_ns.saturating_sub(start_ns).saturating_sub(host_ns).min(FIRST_SEGMENT_MAX_NS),
            cpu_ns => thread_cpu_ns().saturating_sub(cpu_ns).saturating_sub(host_ns),
        }
    }

    fn close_host_span(&self, now_ns: u64) {
        let since_ns = self.host_since_ns.swap_relaxed(0);
        if since_ns != 0 {
            add(&self.segment_host_ns, now_ns.saturating_sub(since_ns));
        }
    }

    /// The host begins to work for the plugin.
    #[inline]
    pub(crate) fn enter_host(&self) {
        self.in_host.store(1, Relaxed);
        self.host_since_ns.store(self.now_ns(), Relaxed);
    }

    /// The host is done.
    #[inline]
    pub(crate) fn leave_host(&self) {
        self.in_host.store(0, Relaxed);
        self.close_host_span(self.now_ns());
    }

    /// How long the plugin's own code has run so far.
    pub(crate) fn guest_ns(&self) -> u64 {
        let running_ns = match self.segment_start_ns.load(Relaxed) {
            0 => 0,
            _ => self.segment_guest_ns(self.now_ns()),
        };
        self.guest_ns.load(Relaxed) + running_ns
    }

    /// Time since the call began, waiting included.
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now_ns())
    }

    /// How long the host has worked for it, in segments that ended.
    pub(crate) fn host_ns(&self) -> u64 {
        self.host_ns.load(Relaxed)
    }
}

fn add(to: &AtomicU64, amount: u64) {
    to.store(to.load(Relaxed) + amount, Relaxed);
}

/// A swap that needs no lock prefix, because there is one writer.
trait SwapRelaxed {
    fn swap_relaxed(&self, value: u64) -> u64;
}

impl SwapRelaxed for AtomicU64 {
    #[inline]
    fn swap_relaxed(&self, value: u64) -> u64 {
        let old = self.load(Relaxed);
        self.store(value, Relaxed);
        old
    }
}

fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A future whose polls are the segments of a call, and which ends at a deadline. The timer is made only when the call
/// waits: most calls never do.
pub(crate) struct Metered<'a, F> {
    inner: Pin<&'a mut F>,
    meter: Arc<Meter>,
    deadline: Duration,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<'a, F> Metered<'a, F> {
    pub(crate) fn new(inner: Pin<&'a mut F>, meter: Arc<Meter>, deadline: Duration) -> Metered<'a, F> {
        Metered { inner, meter, deadline, timer: None }
    }
}

impl<F: Future> Future for Metered<'_, F> {
    /// Nothing when the deadline has passed.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        self.meter.resume();
        let answer = self.inner.as_mut().poll(cx);
        self.meter.pause();
        if let Poll::Ready(answer) = answer {
            return Poll::Ready(Some(answer));
        }
        let left = self.deadline.saturating_sub(self.meter.elapsed());
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn burn(duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            std::hint::black_box(0);
        }
    }

    #[tokio::test]
    async fn host_time_and_waiting_are_not_billed() {
        let meter = Arc::new(Meter::new());
        let inside = meter.clone();
        let work = std::pin::pin!(async move {
            burn(Duration::from_millis(4));
            inside.enter_host();
            burn(Duration::from_millis(30));
            tokio::time::sleep(Duration::from_millis(30)).await;
            burn(Duration::from_millis(30));
            inside.leave_host();
            burn(Duration::from_millis(4));
        });
        Metered::new(work, meter.clone(), Duration::from_secs(60)).await.unwrap();
        let (guest_ms, host_ms) = (meter.guest_ns() / 1_000_000, meter.host_ns() / 1_000_000);
        assert!((4..30).contains(&guest_ms), "the plugin is billed {guest_ms} ms of 8");
        assert!(host_ms >= 58, "the host is seen to work {host_ms} ms of 60");
    }
}
