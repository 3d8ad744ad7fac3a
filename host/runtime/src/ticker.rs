//! The thread that advances the engine's epoch every millisecond while calls run.
//!
//! It sleeps without waking when nothing has run for [`REST_AFTER_TICKS`], so that an idle host costs no processor time; the
//! next call wakes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mainstay_base::{Error, Result};

/// One tick.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a running call until the ticker rests.
const REST_AFTER_TICKS: u32 = 1_000;

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    resting: AtomicBool,
    stopped: AtomicBool,
}

/// See the module. Dropping it ends the thread.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A call runs until this is dropped.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Ticker {
    pub(crate) fn start(engine: wasmtime::Engine) -> Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        let thread = thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || tick(&engine, &inside))
            .map_err(|error| Error::unavailable(format!("cannot start the plugins' clock thread: {error}")))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Announce a running call. If the ticker rests, it is woken: either it sees the call before it parks, or the call sees
    /// that it rests.
    #[inline]
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.resting.load(SeqCst) {
            self.wake();
        }
        Running(&self.shared)
    }

    #[cold]
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

fn tick(engine: &wasmtime::Engine, shared: &Shared) {
    let mut idle_ticks = 0;
    while !shared.stopped.load(SeqCst) {
        thread::sleep(TICK);
        engine.increment_epoch();
        idle_ticks = if shared.running.load(SeqCst) == 0 { idle_ticks + 1 } else { 0 };
        if idle_ticks >= REST_AFTER_TICKS {
            rest(shared);
            idle_ticks = 0;
        }
    }
}

fn rest(shared: &Shared) {
    shared.resting.store(true, SeqCst);
    while shared.running.load(SeqCst) == 0 && !shared.stopped.load(SeqCst) {
        thread::park();
    }
    shared.resting.store(false, SeqCst);
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The thread only sleeps and counts; a panic in it has nothing to tell.
            let _ = thread.join();
        }
    }
}
