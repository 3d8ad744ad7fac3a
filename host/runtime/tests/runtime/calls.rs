//! Calls into hostile components: each way to misbehave ends in its own typed error, and nobody else notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::{ErrorKind, VirtualClock};
use mainstay_runtime::{
    BoxFuture, CallContext, CallError, Capability, CompileIn, Compiler, Component, ComponentOptions, Deadline, Engine,
    EngineOptions, Grants, HostData, Limits, Refusal, World, quarantine,
};
use wasmtime::component::{Linker, TypedFunc};
use wasmtime::{Store, StoreContextMut};

const TOUCH: Capability = Capability { bit: 0, name: "touch", allows: "touching" };
const SLEEP: Capability = Capability { bit: 1, name: "sleep", allows: "sleeping" };

struct Data {
    context: CallContext,
}

impl HostData for Data {
    fn call_context(&mut self) -> &mut CallContext {
        &mut self.context
    }
}

struct Test(wasmtime::component::InstancePre<Data>);

impl World for Test {
    type Data = Data;
    type Exports = TypedFunc<(u32,), (u32,)>;

    fn instantiate<'a>(&'a self, store: &'a mut Store<Data>) -> BoxFuture<'a, wasmtime::Result<Self::Exports>> {
        Box::pin(async move {
            let instance = self.0.instantiate_async(&mut *store).await?;
            instance.get_typed_func(store, "run")
        })
    }
}

/// 1 when it was done, 0 when it was denied.
fn answer(entered: Result<impl Sized, Refusal>) -> wasmtime::Result<(u32,)> {
    match entered {
        Ok(_) => Ok((1,)),
        Err(Refusal::Denied(error)) => {
            assert_eq!(error.kind(), ErrorKind::Denied);
            Ok((0,))
        }
        Err(Refusal::Ends(error)) => Err(error.into()),
    }
}

fn linker(engine: &Engine) -> Linker<Data> {
    let mut linker = Linker::new(engine.wasmtime());
    let mut host = linker.instance("house:test/host@0.1.0").unwrap();
    host.func_wrap("touch", |mut store: StoreContextMut<Data>, (): ()| answer(store.data_mut().context.enter(TOUCH)))
        .unwrap();
    host.func_wrap_async("sleep", |mut store: StoreContextMut<Data>, (ms,): (u32,)| {
        Box::new(async move {
            let entered = store.data_mut().context.enter(SLEEP);
            tokio::time::sleep(Duration::from_millis(ms.into())).await;
            answer(entered)
        })
    })
    .unwrap();
    host.func_wrap("burn", |mut store: StoreContextMut<Data>, (ms,): (u32,)| {
        let entered = store.data_mut().context.enter(SLEEP);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(ms.into()) {}
        answer(entered)
    })
    .unwrap();
    host.func_wrap("fail", |mut store: StoreContextMut<Data>, (): ()| -> wasmtime::Result<(u32,)> {
        let _entered = store.data_mut().context.enter(TOUCH);
        panic!("a fault of the host, on purpose")
    })
    .unwrap();
    linker
}

/// A component whose `run` has this body; `$n` is its argument, `$state` survives in a warm instance.
fn wat(body: &str) -> String {
    format!(
        r#"(component
  (import "house:test/host@0.1.0" (instance $host
    (export "touch" (func (result u32)))
    (export "sleep" (func (param "ms" u32) (result u32)))
    (export "burn" (func (param "ms" u32) (result u32)))
    (export "fail" (func (result u32)))))
  (core func $touch (canon lower (func $host "touch")))
  (core func $sleep (canon lower (func $host "sleep")))
  (core func $burn (canon lower (func $host "burn")))
  (core func $fail (canon lower (func $host "fail")))
  (core module $m
    (import "host" "touch" (func $touch (result i32)))
    (import "host" "sleep" (func $sleep (param i32) (result i32)))
    (import "host" "burn" (func $burn (param i32) (result i32)))
    (import "host" "fail" (func $fail (result i32)))
    (memory (export "memory") 1)
    (global $state (mut i32) (i32.const 0))
    (func (export "run") (param $n i32) (result i32) (local $i i32)
      {body}))
  (core instance $i (instantiate $m (with "host" (instance
    (export "touch" (func $touch)) (export "sleep" (func $sleep))
    (export "burn" (func $burn)) (export "fail" (func $fail))))))
  (func (export "run") (param "n" u32) (result u32) (canon lift (core func $i "run"))))"#
    )
}

const ECHO: &str = "local.get $n";
const LOOP: &str = "(loop $l (br $l)) unreachable";
const TRAP: &str = "unreachable";
/// Grows by `n` pages and traps when it is refused, as Rust's allocator does.
const GROW: &str = "(if (i32.eq (memory.grow (local.get $n)) (i32.const -1)) (then unreachable)) (i32.const 7)";
const TOUCH_N: &str = "(local.set $i (local.get $n))
  (loop $l (drop (call $touch)) (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $l (local.get $i)))
  (i32.const 7)";
/// Traps when `n` is 0; else counts its calls.
const COUNT: &str = "(if (i32.eqz (local.get $n)) (then unreachable))
  (global.set $state (i32.add (global.get $state) (i32.const 1))) (global.get $state)";

fn small_engine() -> Engine {
    Engine::new(&EngineOptions { instances: 16, threads: 2, ..EngineOptions::default() }).unwrap()
}

fn quick() -> Limits {
    Limits { memory_bytes: 1 << 20, call_cpu_ms: 100, call_wall_ms: 5_000, ..Limits::default() }
}

fn load(engine: &Engine, body: &str, limits: Limits, reuse: bool) -> Arc<Component<Test>> {
    let compiler = Compiler::new(engine, CompileIn::Here, None).unwrap();
    let component = compiler.component(wat(body).as_bytes()).unwrap();
    let pre = linker(engine).instantiate_pre(&component).unwrap();
    let grants = Grants::default().with(TOUCH).with(SLEEP);
    Component::new(engine, Test(pre), ComponentOptions { plugin: "guest".into(), grants, limits, reuse })
}

async fn run(component: &Arc<Component<Test>>, n: u32) -> Result<u32, CallError> {
    let make = |context| Data { context };
    component
        .call(None, make, move |store, run| Box::pin(async move { Ok(run.call_async(store, (n,)).await?.0) }))
        .await
}

#[tokio::test]
async fn a_loop_ends_at_its_limit_and_neighbours_answer_meanwhile() {
    let engine = small_engine();
    let looping = load(&engine, LOOP, Limits { call_cpu_ms: 400, concurrency: 4, ..quick() }, false);
    let neighbour = load(&engine, ECHO, quick(), false);
    let start = Instant::now();
    // Twice as many loops as threads: none is left for the neighbour unless they yield.
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let looping = looping.clone();
            tokio::spawn(async move { run(&looping, 1).await })
        })
        .collect();
    let mut answers = 0;
    while !loops.iter().any(|one| one.is_finished()) {
        assert_eq!(run(&neighbour, 42).await.unwrap(), 42);
        answers += 1;
    }
    assert!(answers > 20, "the neighbour answered {answers} times in {:?}", start.elapsed());
    for one in loops {
        match one.await.unwrap() {
            Err(CallError::TimedOut { deadline: Deadline::Cpu, limit_ms: 400, .. }) => {}
            other => panic!("expected a timeout, got {other:?}"),
        }
    }
    assert_eq!(looping.stats().timeouts, 4);
}

#[tokio::test]
async fn each_misbehaviour_has_its_own_error() {
    async fn check(body: &str, n: u32, code: &str, kind: ErrorKind, status: u16, words: &[&str]) {
        let engine = small_engine();
        let component = load(&engine, body, quick(), false);
        let error = run(&component, n).await.unwrap_err();
        assert_eq!((error.code(), error.kind(), error.status()), (code, kind, status), "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "`{word}` is missing: {error}");
        }
    }
    check(TRAP, 1, "trap", ErrorKind::Internal, 500, &["`guest`"]).await;
    check(LOOP, 1, "timed-out", ErrorKind::Exhausted, 422, &["`guest`", "100 ms", "call-cpu-ms"]).await;
    check(GROW, 100, "out-of-memory", ErrorKind::Exhausted, 422, &["`guest`", "1048576", "memory-mib"]).await;
    check(TOUCH_N, 100_001, "host-calls", ErrorKind::Exhausted, 422, &["`guest`", "100000", "host-calls"]).await;
    check("call $fail", 1, "host", ErrorKind::Internal, 500, &["`guest`", "fault of the host"]).await;
    // A guest that recurses without end exhausts its own stack, not the host's.
    check(
        "(memory.fill (i32.const -1) (i32.const 0) (i32.const 9)) (i32.const 1)",
        1,
        "trap",
        ErrorKind::Internal,
        500,
        &[],
    )
    .await;
}

#[tokio::test]
async fn limits_are_held_at_n_and_n_plus_one() {
    async fn check(body: &str, limits: Limits, fits: u32, code: &str) {
        let engine = small_engine();
        let component = load(&engine, body, limits, false);
        assert!(run(&component, fits).await.is_ok(), "{code} at its limit");
        assert_eq!(run(&component, fits + 1).await.unwrap_err().code(), code);
    }
    // One page is there from the start.
    check(GROW, Limits { memory_bytes: 16 << 16, ..quick() }, 15, "out-of-memory").await;
    check(TOUCH_N, Limits { host_calls: 50, ..quick() }, 50, "host-calls").await;
}

#[tokio::test]
async fn waiting_and_working_in_the_host_is_not_billed() {
    let engine = small_engine();
    let limits = Limits { call_cpu_ms: 50, ..quick() };
    assert_eq!(run(&load(&engine, "(call $sleep (local.get $n))", limits.clone(), false), 250).await.unwrap(), 1);
    let burning = load(&engine, "(call $burn (local.get $n))", limits, false);
    assert_eq!(run(&burning, 250).await.unwrap(), 1);
    let stats = burning.stats();
    assert!(stats.host_us >= 200_000 && stats.guest_us < 50_000, "{stats:?}");
}

#[tokio::test]
async fn a_call_ends_at_its_wall_deadline_while_it_waits() {
    let engine = small_engine();
    let component = load(&engine, "(call $sleep (local.get $n))", Limits { call_wall_ms: 50, ..quick() }, false);
    let start = Instant::now();
    let error = run(&component, 60_000).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { deadline: Deadline::Wall, limit_ms: 50, .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "the host future was cancelled");
    let looping = load(&engine, LOOP, Limits { call_wall_ms: 50, call_cpu_ms: 60_000, ..quick() }, false);
    let error = run(&looping, 1).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { deadline: Deadline::Wall, limit_ms: 50, .. }), "{error:?}");
}

#[tokio::test]
async fn denial_is_an_answer_to_the_plugin_and_counted() {
    let engine = small_engine();
    let compiler = Compiler::new(&engine, CompileIn::Here, None).unwrap();
    let pre = linker(&engine).instantiate_pre(&compiler.component(wat("call $touch").as_bytes()).unwrap()).unwrap();
    let options = ComponentOptions { plugin: "guest".into(), grants: Grants::default(), limits: quick(), reuse: false };
    let component = Component::new(&engine, Test(pre), options);
    assert_eq!(run(&component, 1).await.unwrap(), 0, "the plugin was told, and went on");
    let stats = component.stats();
    assert_eq!((stats.denied, stats.traps, stats.timeouts), (1, 0, 0));
}

#[tokio::test]
async fn a_trap_over_a_denial_is_reported_as_the_denial() {
    let engine = small_engine();
    let compiler = Compiler::new(&engine, CompileIn::Here, None).unwrap();
    let unwraps = "(if (i32.eqz (call $touch)) (then unreachable)) (i32.const 1)";
    let pre = linker(&engine).instantiate_pre(&compiler.component(wat(unwraps).as_bytes()).unwrap()).unwrap();
    let options = ComponentOptions { plugin: "guest".into(), grants: Grants::default(), limits: quick(), reuse: false };
    let component = Component::new(&engine, Test(pre), options);
    for _ in 0..quarantine::FAILURES_MAX {
        let error = run(&component, 1).await.unwrap_err();
        assert!(matches!(error, CallError::Denied { capability: "touch", .. }), "{error:?}");
        assert_eq!((error.kind(), error.status()), (ErrorKind::Denied, 403));
    }
    assert_eq!(run(&component, 1).await.unwrap_err().code(), "denied", "it is no misbehaviour");
}

#[tokio::test]
async fn a_loop_after_a_long_rest_still_ends() {
    let engine = small_engine();
    let component = load(&engine, LOOP, quick(), false);
    // Long enough for the ticker to rest.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(run(&component, 1).await.unwrap_err().code(), "timed-out");
}

#[tokio::test]
async fn fresh_instances_forget_and_warm_ones_remember_until_they_trap() {
    let engine = small_engine();
    let fresh = load(&engine, COUNT, quick(), false);
    assert_eq!((run(&fresh, 1).await.unwrap(), run(&fresh, 1).await.unwrap()), (1, 1));
    let warm = load(&engine, COUNT, quick(), true);
    assert_eq!((run(&warm, 1).await.unwrap(), run(&warm, 1).await.unwrap()), (1, 2));
    assert_eq!(run(&warm, 0).await.unwrap_err().code(), "trap");
    assert_eq!(run(&warm, 1).await.unwrap(), 1, "the instance that trapped is gone");
    let stats = warm.stats();
    assert_eq!((stats.instances, stats.reused), (2, 2));
}

#[tokio::test]
async fn a_warm_instance_keeps_its_memory_on_the_books() {
    let engine = small_engine();
    let warm = load(&engine, GROW, Limits { memory_bytes: 16 << 16, ..quick() }, true);
    assert!(run(&warm, 10).await.is_ok());
    assert_eq!(run(&warm, 10).await.unwrap_err().code(), "out-of-memory");
    assert!(run(&warm, 10).await.is_ok(), "a new instance starts anew");
}

#[tokio::test]
async fn places_and_queue_are_bounded_at_n_and_n_plus_one() {
    let engine = small_engine();
    let limits = Limits { concurrency: 2, queue: 3, ..quick() };
    let component = load(&engine, "(call $sleep (local.get $n))", limits, false);
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let component = component.clone();
            tokio::spawn(async move { run(&component, 300).await })
        })
        .collect();
    while (component.stats().running, component.stats().waiting) != (2, 3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = run(&component, 300).await.unwrap_err();
    assert!(matches!(error, CallError::Busy { concurrency: 2, queue: 3, .. }), "{error:?}");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, 503));
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 1);
    }
    assert_eq!((component.stats().running, component.stats().waiting), (0, 0));
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_and_frees_its_place() {
    let engine = small_engine();
    let component = load(&engine, "(call $sleep (local.get $n))", Limits { concurrency: 1, ..quick() }, false);
    let dropped = tokio::time::timeout(Duration::from_millis(30), run(&component, 60_000)).await;
    assert!(dropped.is_err());
    assert_eq!(run(&component, 1).await.unwrap(), 1);
}

#[tokio::test]
async fn repeated_traps_quarantine_and_time_heals() {
    let clock = Arc::new(VirtualClock::new(0));
    let options = EngineOptions { instances: 16, threads: 2, clock: clock.clone(), ..EngineOptions::default() };
    let engine = Engine::new(&options).unwrap();
    let component = load(&engine, COUNT, quick(), false);
    for _ in 0..quarantine::FAILURES_MAX {
        assert_eq!(run(&component, 0).await.unwrap_err().code(), "trap");
    }
    let error = run(&component, 1).await.unwrap_err();
    assert!(matches!(error, CallError::Quarantined { failures: quarantine::FAILURES_MAX, .. }), "{error:?}");
    assert_eq!(component.stats().quarantine_left_ms, quarantine::FIRST_MS);
    clock.advance_ms(quarantine::FIRST_MS as i64);
    assert_eq!(run(&component, 1).await.unwrap(), 1, "let through when it is over");
    assert_eq!(component.stats().failures_in_row, 0);
}

#[tokio::test]
async fn more_calls_than_instances_may_try_again() {
    let engine = Engine::new(&EngineOptions { instances: 2, threads: 2, ..EngineOptions::default() }).unwrap();
    let component = load(&engine, "(call $sleep (local.get $n))", quick(), false);
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let component = component.clone();
            tokio::spawn(async move { run(&component, 200).await })
        })
        .collect();
    let mut codes = Vec::new();
    for call in calls {
        codes.push(call.await.unwrap().map_err(|error| (error.kind() == ErrorKind::Unavailable, error.status())));
    }
    codes.sort();
    assert_eq!(codes, [Ok(1), Ok(1), Err((true, 503)), Err((true, 503))]);
    assert_eq!(run(&component, 1).await.unwrap(), 1, "nothing is broken");
}
