//! The engine: how code is compiled, where instances live, which threads run them.
//!
//! Owns the wasmtime configuration, the pool of instances, the plugins' own threads and the ticker. Code is compiled with
//! one fixed configuration ([`compile_config`]), in the host and in the compiler's child process alike, so that what one
//! made the other can load.
//!
//! Bounded by: [`EngineOptions`]. On failure: an engine that cannot be made is an error at start; nothing here fails later.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use mainstay_base::{Clock, Error, Result, SystemClock};
use sha2::{Digest, Sha256};
use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::limits::Limits;
use crate::ticker::Ticker;

/// How large the engine is.
#[derive(Clone)]
pub struct EngineOptions {
    /// Instances alive at the same time, of all plugins; 1 to 10,000. Each reserves address space (4 GiB), not memory.
    pub instances: u32,
    /// Threads that run plugins' code and the host functions that they call; 0 = as many as there are processors.
    pub threads: usize,
    /// Memory of an instance that stays in the pool when it ends, so that the next one need not fault it in again.
    pub resident_bytes: usize,
    /// Time, for the quarantine.
    pub clock: Arc<dyn Clock>,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { instances: 256, threads: 0, resident_bytes: 256 << 10, clock: Arc::new(SystemClock::default()) }
    }
}

/// Stack of the plugin's code in one call.
const WASM_STACK_BYTES: usize = 512 << 10;
/// Stack of one call in all: what is above the plugin's share is for host functions.
const CALL_STACK_BYTES: usize = 2 << 20;
/// Core instances, tables and memories that one component may consist of.
const CORE_INSTANCES_MAX: u32 = 32;
const TABLES_MAX: u32 = 8;
const MEMORIES_MAX: u32 = 4;

/// How code is compiled, wherever that happens.
pub(crate) fn compile_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same inputs give the same bits on every machine, so that a verdict can be replayed.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(CALL_STACK_BYTES)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(24));
    config
}

fn pool(options: &EngineOptions) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.instances)
        .total_core_instances(options.instances.saturating_mul(4))
        .total_memories(options.instances)
        .total_tables(options.instances.saturating_mul(2))
        .total_stacks(options.instances)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memory_size(Limits::ceiling().memory_bytes)
        .linear_memory_keep_resident(options.resident_bytes)
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(options.instances.min(64));
    pool
}

struct Inner {
    engine: wasmtime::Engine,
    ticker: Ticker,
    clock: Arc<dyn Clock>,
    threads: Option<tokio::runtime::Runtime>,
    handle: tokio::runtime::Handle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without waiting: the last owner may itself be on an asynchronous thread.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Engine {
    /// An engine of this size, with its threads.
    pub fn new(options: &EngineOptions) -> Result<Engine> {
        if !(1..=10_000).contains(&options.instances) {
            return Err(Error::invalid(format!("`instances` is {}; give 1 to 10,000", options.instances)));
        }
        crate::meter::calibrate();
        let mut config = compile_config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
        let engine = wasmtime::Engine::new(&config).map_err(|error| {
            Error::unavailable(format!(
                "cannot reserve address space for {} plugin instances: {error:#}; lower `instances`",
                options.instances
            ))
        })?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if options.threads > 0 {
            builder.worker_threads(options.threads);
        }
        let threads = builder
            .thread_name("plugin")
            .enable_all()
            .build()
            .map_err(|error| Error::unavailable(format!("cannot start the plugins' threads: {error}")))?;
        let handle = threads.handle().clone();
        let ticker = Ticker::start(engine.clone())?;
        let clock = options.clock.clone();
        Ok(Engine { inner: Arc::new(Inner { engine, ticker, clock, threads: Some(threads), handle }) })
    }

    /// The engine beneath, for linkers and stores.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }

    /// The plugins' threads.
    pub fn threads(&self) -> &tokio::runtime::Handle {
        &self.inner.handle
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.inner.ticker
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Names everything that compiled code depends on: the version of wasmtime, its settings, the processor.
    pub(crate) fn settings_digest(&self) -> [u8; 32] {
        struct IntoSha(Sha256);
        impl Hasher for IntoSha {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let mut hasher = IntoSha(Sha256::new());
        self.inner.engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.finalize().into()
    }
}
