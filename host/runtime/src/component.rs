//! One plugin's component, and the way of every call into it.
//!
//! A call passes: quarantine → a place (concurrency, then the bounded queue) → an instance (fresh from the pool of the engine,
//! or a warm one where the manifest opted in) → the export, metered, under its deadlines → the books. It runs on the
//! plugins' own threads; dropping the caller's future cancels it, and with it the host futures that it waits for.
//!
//! Bounded by: the plugin's [`Limits`], and [`WARM_MAX`] idle warm instances. On failure: a typed [`CallError`]; an
//! instance that trapped, timed out or was cancelled is never used again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mainstay_base::Error;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;
use wasmtime::Store;

use crate::context::{CallContext, Facts, HostData};
use crate::engine::Engine;
use crate::error::{CallError, CallResult, Deadline};
use crate::grants::Grants;
use crate::limits::Limits;
use crate::meter::Metered;
use crate::quarantine::Quarantine;
use crate::stats::{Counters, Stats};

/// Idle instances that a plugin with warm reuse keeps.
pub const WARM_MAX: usize = 8;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a world is entered: the floor above implements it over the generated bindings.
pub trait World: Send + Sync + 'static {
    /// What the host functions find in the store.
    type Data: HostData;
    /// The exports of an instance.
    type Exports: Send + 'static;
    /// Make an instance.
    fn instantiate<'a>(&'a self, store: &'a mut Store<Self::Data>) -> BoxFuture<'a, wasmtime::Result<Self::Exports>>;
}

/// What a component is run with.
#[derive(Clone, Debug)]
pub struct ComponentOptions {
    /// Whose it is.
    pub plugin: Arc<str>,
    /// What it may do.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// Whether instances are used for more than one call.
    pub reuse: bool,
}

struct Instance<W: World> {
    store: Store<W::Data>,
    exports: W::Exports,
}

/// See the module.
pub struct Component<W: World> {
    engine: Engine,
    world: W,
    facts: Arc<Facts>,
    reuse: bool,
    places: Semaphore,
    waiting: AtomicU64,
    warm: Mutex<Vec<Instance<W>>>,
    quarantine: Quarantine,
}

impl<W: World> Component<W> {
    /// A component that can be called.
    pub fn new(engine: &Engine, world: W, options: ComponentOptions) -> Arc<Component<W>> {
        let ComponentOptions { plugin, grants, limits, reuse } = options;
        Arc::new(Component {
            engine: engine.clone(),
            world,
            reuse,
            places: Semaphore::new(limits.concurrency),
            waiting: AtomicU64::new(0),
            warm: Mutex::default(),
            quarantine: Quarantine::new(engine.clock().clone()),
            facts: Arc::new(Facts { plugin, grants, limits, counters: Counters::default() }),
        })
    }

    /// Call it on the plugins' threads. `make` builds the store's data around the call's context; `run` calls the export
    /// and takes out of the store what is to be kept. `limits` replaces the plugin's, where the call has others.
    pub async fn call<R, M, F>(self: &Arc<Self>, limits: Option<Limits>, make: M, run: F) -> CallResult<R>
    where
        R: Send + 'static,
        M: FnOnce(CallContext) -> W::Data + Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<W::Data>, &'a W::Exports) -> BoxFuture<'a, wasmtime::Result<R>>
            + Send
            + 'static,
    {
        let this = self.clone();
        let call = async move { this.call_here(limits, make, run).await };
        let task = self.engine.threads().spawn(call.in_current_span());
        match Cancelling(task).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => {
                self.facts.counters.host_faults.add(1);
                tracing::error!(plugin = %self.facts.plugin, "a host function panicked: {error}");
                Err(CallError::Host(Error::internal(format!(
                    "a fault of the host ended a call of the plugin `{}`; the host's log has the details",
                    self.facts.plugin
                ))))
            }
            Err(_) => Err(CallError::Host(Error::unavailable("the host is shutting down; try again on its successor"))),
        }
    }

    /// The same on the calling task, which must be on a runtime with a timer.
    pub async fn call_here<R, M, F>(&self, limits: Option<Limits>, make: M, run: F) -> CallResult<R>
    where
        M: FnOnce(CallContext) -> W::Data,
        F: for<'a> FnOnce(&'a mut Store<W::Data>, &'a W::Exports) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
        let outcome = match self.admit().await {
            Ok(_place) => self.run_once(limits, make, run).await,
            Err(refused) => Err(refused),
        };
        self.account(&outcome);
        outcome
    }

    /// Quarantine and queue.
    async fn admit(&self) -> CallResult<SemaphorePermit<'_>> {
        if let Some(closed) = self.quarantine.closed() {
            return Err(CallError::Quarantined {
                plugin: self.facts.plugin.clone(),
                failures: closed.failures,
                retry_after_ms: closed.left_ms,
            });
        }
        if let Ok(permit) = self.places.try_acquire() {
            return Ok(permit);
        }
        let waiting = Counted::new(&self.waiting);
        if waiting.before >= self.facts.limits.queue as u64 {
            return Err(self.busy());
        }
        match self.places.acquire().await {
            Ok(permit) => Ok(permit),
            Err(_) => Err(self.busy()),
        }
    }

    fn busy(&self) -> CallError {
        let Limits { concurrency, queue, .. } = self.facts.limits;
        CallError::Busy { plugin: self.facts.plugin.clone(), concurrency, queue }
    }

    async fn run_once<R, M, F>(&self, limits: Option<Limits>, make: M, run: F) -> CallResult<R>
    where
        M: FnOnce(CallContext) -> W::Data,
        F: for<'a> FnOnce(&'a mut Store<W::Data>, &'a W::Exports) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
        let _running = self.engine.ticker().running();
        let wall_ms = limits.as_ref().unwrap_or(&self.facts.limits).call_wall_ms;
        let context = CallContext::new(self.facts.clone(), limits.map(Box::new));
        let meter = context.meter().clone();
        let work = pin!(self.in_instance(context, make, run));
        let timed = Metered::new(work, meter.clone(), Duration::from_millis(wall_ms)).await;
        self.facts.counters.guest_ns.add(meter.guest_ns());
        self.facts.counters.host_ns.add(meter.host_ns());
        timed.unwrap_or_else(|| {
            let plugin = self.facts.plugin.clone();
            Err(CallError::TimedOut { plugin, deadline: Deadline::Wall, limit_ms: wall_ms })
        })
    }

    async fn in_instance<R, M, F>(&self, context: CallContext, make: M, run: F) -> CallResult<R>
    where
        M: FnOnce(CallContext) -> W::Data,
        F: for<'a> FnOnce(&'a mut Store<W::Data>, &'a W::Exports) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
        let mut instance = self.instance(make(context)).await?;
        let result = run(&mut instance.store, &instance.exports).await;
        let context = instance.store.data_mut().call_context();
        self.facts.counters.host_calls.add(context.host_calls());
        let outcome = result.map_err(|error| self.classify(context, &error));
        self.tell_of_trap(&outcome, &instance.store);
        if self.reuse && outcome.as_ref().err().is_none_or(CallError::spares_instance) {
            self.keep(instance);
        }
        outcome
    }

    async fn instance(&self, mut data: W::Data) -> CallResult<Instance<W>> {
        if self.reuse
            && let Some(mut warm) = self.warm.lock().pop()
        {
            data.call_context().inherit_memory(warm.store.data_mut().call_context());
            data.inherit(warm.store.data_mut());
            *warm.store.data_mut() = data;
            self.arm(&mut warm.store);
            self.facts.counters.reused.add(1);
            return Ok(warm);
        }
        let mut store = Store::new(self.engine.wasmtime(), data);
        store.limiter(|data| data.call_context());
        store.epoch_deadline_callback(|mut store| store.data_mut().call_context().on_tick());
        self.arm(&mut store);
        self.facts.counters.instances.add(1);
        match self.world.instantiate(&mut store).await {
            Ok(exports) => Ok(Instance { store, exports }),
            Err(error) => {
                let outcome = Err(self.classify(store.data_mut().call_context(), &error));
                self.tell_of_trap(&outcome, &store);
                outcome
            }
        }
    }

    /// The one line in the log that has the trace: whoever asked is only told that it is there.
    fn tell_of_trap<R>(&self, outcome: &CallResult<R>, store: &Store<W::Data>) {
        if let Err(CallError::Trap { plugin, reason }) = outcome {
            let trace_id = store.data().trace_id();
            tracing::error!(%plugin, trace_id, %reason, "the plugin trapped");
        }
    }

    fn arm(&self, store: &mut Store<W::Data>) {
        store.set_epoch_deadline(1);
        // What one call into the host, or one answer, may copy out of the plugin.
        let bytes_max = store.data_mut().call_context().limits().output_bytes.max(HOST_CALL_BYTES_MAX);
        store.set_hostcall_fuel(bytes_max);
    }

    fn keep(&self, instance: Instance<W>) {
        let mut warm = self.warm.lock();
        if warm.len() < WARM_MAX {
            warm.push(instance);
        }
    }

    /// What ended the call: a reason of the host's own, a refused allocation, a full pool, or the plugin's code.
    fn classify(&self, context: &CallContext, error: &wasmtime::Error) -> CallError {
        let plugin = || self.facts.plugin.clone();
        if let Some(known) = error.downcast_ref::<CallError>() {
            return known.clone();
        }
        if let Some(fault) = error.downcast_ref::<Error>() {
            return CallError::Host(fault.clone());
        }
        if let Some(wanted_bytes) = context.refused_bytes() {
            let limit_bytes = context.limits().memory_bytes;
            return CallError::OutOfMemory { plugin: plugin(), limit_bytes, wanted_bytes };
        }
        if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
            return CallError::Host(Error::unavailable(format!(
                "the plugin `{}` got no instance, because all plugins together use as many as this host has; try again shortly, or raise `instances`",
                self.facts.plugin
            )));
        }
        // The causes with the plugin's own backtrace; `{:?}` would add the host's, where that is switched on.
        let reason = format!("{error:#}");
        if reason.contains(COPY_LIMIT_WORDS) {
            return context.output_too_large();
        }
        match context.denied_just_now() {
            Some(capability) => {
                tracing::warn!(plugin = %self.facts.plugin, capability, %reason, "the plugin stopped over a denial");
                CallError::Denied { plugin: plugin(), capability }
            }
            None => CallError::Trap { plugin: plugin(), reason },
        }
    }

    fn account<R>(&self, outcome: &CallResult<R>) {
        self.facts.counters.calls.add(1);
        let Err(error) = outcome else {
            self.quarantine.succeeded();
            return;
        };
        self.facts.counters.note(error);
        if error.is_misbehaviour() {
            if let Some(length_ms) = self.quarantine.failed() {
                let (failures, _) = self.quarantine.status();
                tracing::warn!(plugin = %self.facts.plugin, failures, length_ms, last = %error, "the plugin is in quarantine");
            }
        } else if matches!(error, CallError::Failed(_)) {
            self.quarantine.succeeded();
        }
    }

    /// Whose component it is.
    pub fn plugin(&self) -> &Arc<str> {
        &self.facts.plugin
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.facts.limits
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        let counters = &self.facts.counters;
        let (failures_in_row, quarantine_left_ms) = self.quarantine.status();
        Stats {
            calls: counters.calls.get(),
            running: (self.facts.limits.concurrency - self.places.available_permits()) as u64,
            waiting: self.waiting.load(Relaxed),
            failed: counters.failed.get(),
            traps: counters.traps.get(),
            timeouts: counters.timeouts.get(),
            out_of_memory: counters.out_of_memory.get(),
            output_too_large: counters.output_too_large.get(),
            host_call_floods: counters.host_call_floods.get(),
            ended_denied: counters.ended_denied.get(),
            busy: counters.busy.get(),
            quarantined: counters.quarantined.get(),
            host_faults: counters.host_faults.get(),
            denied: counters.denied.get(),
            log_cut_bytes: counters.log_cut_bytes.get(),
            host_calls: counters.host_calls.get(),
            guest_us: counters.guest_ns.get() / 1_000,
            host_us: counters.host_ns.get() / 1_000,
            instances: counters.instances.get(),
            reused: counters.reused.get(),
            failures_in_row,
            quarantine_left_ms,
        }
    }
}

/// The largest argument of a host function that the contract allows (a transaction), with room for its lists.
const HOST_CALL_BYTES_MAX: usize = 24 << 20;

/// What the engine says when one call would copy more than that out of the plugin; its type is not public.
const COPY_LIMIT_WORDS: &str = "fuel allocated for hostcalls has been exhausted";

/// A number that is one larger until this is dropped.
struct Counted<'a> {
    number: &'a AtomicU64,
    before: u64,
}

impl Counted<'_> {
    fn new(number: &AtomicU64) -> Counted<'_> {
        Counted { number, before: number.fetch_add(1, Relaxed) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.number.fetch_sub(1, Relaxed);
    }
}

/// A task that ends with the future that waits for it.
struct Cancelling<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Cancelling<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Cancelling<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
