//! What the boundary costs: calls through the runtime beside the same component on bare wasmtime, in one run.
//!
//! Run with `cargo run -p mainstay-interfaces --example boundary`. It prints nanoseconds (the median of several rounds) and
//! ratios against the targets: fresh instance and small call ≤ 1.2, warm call ≤ 2, host call with its check ≤ 1.5. Given
//! a component of world `api` and a path, it also measures requests to that path through the whole plugin host.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::SystemClock;
use mainstay_directory::Directory;
use mainstay_interfaces::{CAPABILITIES, ComponentSource, HostOptions, HttpRequest, PluginHost, PluginSpec, Services};
use mainstay_kernels::Kernels;
use mainstay_runtime::{
    BoxFuture, CallContext, Capability, CompileIn, Compiler, Component, ComponentOptions, Engine, EngineOptions,
    Grants, HostData, Limits, Refusal, World,
};

use mainstay_store::blobs::{BlobBackend, Blobs};
use wasmtime::component::{InstancePre, Linker, TypedFunc};
use wasmtime::{Store, StoreContextMut};

const TOUCH: Capability = Capability { bit: 0, name: "touch", allows: "touching" };

/// `run(name, n)` asks the host `n` times for the value under a key of 16 bytes, as `keys.get` does, and answers the name.
const COMPONENT: &str = r#"(component
  (import "get" (func $get (param "key" (list u8)) (result (option (list u8)))))
  (core module $memory
    (memory (export "memory") 16)
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32) (local $at i32)
      (if (i32.gt_u (global.get $top) (i32.const 900000)) (then (global.set $top (i32.const 4096))))
      (local.set $at (global.get $top))
      (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $get (canon lower (func $get) (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $m
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "memory" (memory 16))
    (data (i32.const 1024) "key/of/16/bytes/")
    (func (export "run") (param $name i32) (param $length i32) (param $n i32) (result i32)
      (block $done (loop $l
        (br_if $done (i32.eqz (local.get $n)))
        (call $get (i32.const 1024) (i32.const 16) (i32.const 2048))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $l)))
      (i32.store (i32.const 2080) (local.get $name))
      (i32.store (i32.const 2084) (local.get $length))
      (i32.const 2080)))
  (core instance $i (instantiate $m (with "host" (instance
    (export "get" (func $get)) (export "memory" (memory $memory "memory"))))))
  (func (export "run") (param "name" string) (param "n" u32) (result string)
    (canon lift (core func $i "run") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc")))))"#;

const NAME: &str = "a name of 24 characters.";
const VALUE: &[u8] = b"sixteen bytes...";

type Run = TypedFunc<(String, u32), (String,)>;

/// How many times the host was touched, on both sides.
struct Data {
    context: CallContext,
    touched: u32,
}

impl HostData for Data {
    fn call_context(&mut self) -> &mut CallContext {
        &mut self.context
    }
}

struct Touching(InstancePre<Data>);

impl World for Touching {
    type Data = Data;
    type Exports = Run;

    fn instantiate<'a>(&'a self, store: &'a mut Store<Data>) -> BoxFuture<'a, wasmtime::Result<Run>> {
        Box::pin(async move {
            let instance = self.0.instantiate_async(&mut *store).await?;
            instance.get_typed_func(store, "run")
        })
    }
}

fn guarded(engine: &Engine, component: &wasmtime::component::Component, reuse: bool) -> Arc<Component<Touching>> {
    let mut linker: Linker<Data> = Linker::new(engine.wasmtime());
    linker
        .root()
        .func_wrap("get", |mut store: StoreContextMut<Data>, (key,): (Vec<u8>,)| {
            let data = store.data_mut();
            let _host = data.context.enter(TOUCH).map_err(|refusal| match refusal {
                Refusal::Denied(error) => wasmtime::Error::from(error),
                Refusal::Ends(error) => error.into(),
            })?;
            data.touched += 1;
            black_box(key);
            Ok((Some(VALUE.to_vec()),))
        })
        .unwrap();
    let pre = linker.instantiate_pre(component).unwrap();
    let limits = Limits { host_calls: 10_000_000, ..Limits::default() };
    let grants = Grants::default().with(TOUCH);
    Component::new(engine, Touching(pre), ComponentOptions { plugin: "bench".into(), grants, limits, reuse })
}

fn bare(engine: &Engine, component: &wasmtime::component::Component) -> InstancePre<u32> {
    let mut linker: Linker<u32> = Linker::new(engine.wasmtime());
    linker
        .root()
        .func_wrap("get", |mut store: StoreContextMut<u32>, (key,): (Vec<u8>,)| {
            *store.data_mut() += 1;
            black_box(key);
            Ok((Some(VALUE.to_vec()),))
        })
        .unwrap();
    linker.instantiate_pre(component).unwrap()
}

async fn call(component: &Component<Touching>, n: u32) -> String {
    let make = |context| Data { context, touched: 0 };
    component
        .call_here(None, make, move |store, run| {
            Box::pin(async move {
                let (answer,) = run.call_async(&mut *store, (NAME.to_owned(), n)).await?;
                assert_eq!(store.data().touched, n);
                Ok(answer)
            })
        })
        .await
        .unwrap()
}

async fn bare_instance(engine: &Engine, pre: &InstancePre<u32>) -> (Store<u32>, Run) {
    let mut store = Store::new(engine.wasmtime(), 0);
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = pre.instantiate_async(&mut store).await.unwrap();
    let run = instance.get_typed_func(&mut store, "run").unwrap();
    (store, run)
}

/// Nanoseconds of one of `count` runs.
macro_rules! time {
    ($count:expr, $body:expr) => {{
        let start = Instant::now();
        for _ in 0..$count {
            black_box($body);
        }
        start.elapsed().as_nanos() as f64 / f64::from($count)
    }};
}

#[derive(Default)]
struct Rounds(Vec<f64>);

impl Rounds {
    fn median(&mut self) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

const ROUNDS: usize = 15;
const FRESH: u32 = 400;
const WARM: u32 = 5_000;
const HOST_CALLS: u32 = 100_000;

async fn measure(engine: Engine) {
    let compiler = Compiler::new(&engine, CompileIn::Here, None).unwrap();
    let component = compiler.component(COMPONENT.as_bytes()).unwrap();
    let pre = bare(&engine, &component);
    let (fresh, warm) = (guarded(&engine, &component, false), guarded(&engine, &component, true));
    let mut rows: [Rounds; 8] = Default::default();
    let (mut store, run) = bare_instance(&engine, &pre).await;
    // Both sides take turns, so that a noisy neighbour hurts both.
    for _ in 0..ROUNDS {
        rows[0].0.push(time!(FRESH, {
            let (mut store, run) = bare_instance(&engine, &pre).await;
            run.call_async(&mut store, (NAME.to_owned(), 0)).await.unwrap()
        }));
        rows[1].0.push(time!(FRESH, call(&fresh, 0).await));
        rows[2].0.push(time!(WARM, run.call_async(&mut store, (NAME.to_owned(), 0)).await.unwrap()));
        rows[3].0.push(time!(WARM, call(&warm, 0).await));
        rows[4].0.push(
            time!(1, run.call_async(&mut store, (NAME.to_owned(), HOST_CALLS)).await.unwrap()) / f64::from(HOST_CALLS),
        );
        rows[5].0.push(time!(1, call(&warm, HOST_CALLS).await) / f64::from(HOST_CALLS));
        rows[6].0.push(time!(WARM, run.call(&mut store, (NAME.to_owned(), 0)).unwrap()));
        rows[7].0.push(time!(FRESH, {
            let make = |context| Data { context, touched: 0 };
            let task = fresh.call(None, make, |store, run| {
                Box::pin(async move { Ok(run.call_async(store, (NAME.to_owned(), 0)).await?.0) })
            });
            task.await.unwrap()
        }));
    }
    let [bare_fresh, our_fresh, bare_warm, our_warm, bare_host, our_host, bare_sync, hop] =
        rows.each_mut().map(Rounds::median);
    let show = |what: &str, bare: f64, ours: f64, target: f64| {
        println!("{what:<34} bare {bare:>9.0} ns   ours {ours:>9.0} ns   ratio {:>5.2}   target {target}", ours / bare);
    };
    show("fresh instance and small call", bare_fresh, our_fresh, 1.2);
    show("warm small call", bare_warm, our_warm, 2.0);
    show("host call with its check", bare_host, our_host, 1.5);
    println!(
        "for comparison: warm call without a fiber, bare {bare_sync:.0} ns; fresh call with a hop to a plugin thread {hop:.0} ns"
    );
}

/// Requests to a real plugin, fresh and warm, on a plugin thread.
fn measure_plugin(component: &str, path: &str) {
    let folder = std::env::temp_dir().join(format!("mainstay-boundary-{}", std::process::id()));
    let clock = Arc::new(SystemClock::default());
    let store = mainstay_store::Store::in_memory();
    let backend = BlobBackend::Local { folder: folder.clone() };
    let blobs = Blobs::open(store.clone(), backend, clock.clone(), Duration::from_secs(86_400)).unwrap();
    let directory = Directory::new(store.clone(), Vec::new(), clock.clone()).unwrap();
    let kernels = Kernels::start(&mainstay_kernels::Options::default(), clock.clone()).unwrap();
    let services = Services::for_tests(store, blobs, directory, kernels, clock).unwrap();
    let host = PluginHost::new(services, HostOptions::for_tests()).unwrap();
    for reuse in [false, true] {
        let source = ComponentSource::File(component.into());
        let grants = CAPABILITIES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let plugin = host.load(PluginSpec { grants, reuse, ..PluginSpec::new("bench", "0.1.0", source) }).unwrap();
        let path = path.to_owned();
        let work = host.threads().spawn(async move {
            let ask = || HttpRequest { method: "GET".into(), path: path.clone(), ..HttpRequest::default() };
            println!("{:?}", plugin.handle_here(ask()).await);
            let mut rounds = Rounds::default();
            for _ in 0..ROUNDS {
                rounds.0.push(time!(FRESH, plugin.handle_here(ask()).await.is_ok()));
            }
            println!("request to {path}, reuse {reuse}: {:.0} ns", rounds.median());
        });
        wait_for(work);
    }
    drop(host);
    // What the system's temporary folder keeps of it does no harm.
    let _ = std::fs::remove_dir_all(folder);
}

fn wait_for(task: tokio::task::JoinHandle<()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task).unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [component, path] = &arguments[..] {
        measure_plugin(component, path);
    }
    let start = Instant::now();
    let engine = Engine::new(&EngineOptions { threads: 2, ..EngineOptions::default() }).unwrap();
    println!("engine with {} instances made in {} ms", EngineOptions::default().instances, start.elapsed().as_millis());
    let threads = engine.threads().clone();
    // On a plugin thread, where calls run.
    wait_for(threads.spawn(measure(engine)));
}
