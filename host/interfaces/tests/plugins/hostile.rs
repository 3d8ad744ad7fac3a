//! Plugins that do what they should not: each gets its own typed error, nothing is lost, and nobody else notices.

use crate::guest::{self, OK, START_OK, ask, component, component_with, house, load, quick, status};
use mainstay_base::ErrorKind;
use mainstay_interfaces::{CallError, ComponentSource, Deadline, HttpReply, Limits, PluginSpec};

const LOOP: &str = "(loop $l (br $l)) unreachable";
/// Grows by a page until it is refused, then traps, as Rust's allocator does.
const GROW: &str = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
const CALL_FLOOD: &str = "(loop $l (drop (call $now)) (br $l)) unreachable";

#[tokio::test]
async fn each_misbehaviour_has_its_own_error() {
    async fn check(handle: &str, code: &str, status: u16, words: &str) {
        let house = house();
        let plugin = load(&house, component(handle), quick(), &[]);
        let error = ask(&plugin).await.unwrap_err();
        assert_eq!((error.code(), error.status()), (code, status), "{error:?}");
        assert!(error.to_string().contains("`guest`") && error.to_string().contains(words), "{error}");
        let well = load(&house, component(OK), quick(), &[]);
        assert_eq!(guest::status(&well).await, 200, "a neighbour still answers");
    }
    check(LOOP, "timed-out", 422, "200 ms").await;
    check("unreachable", "trap", 500, "fault of its own").await;
    check(GROW, "out-of-memory", 422, "8388608").await;
    check(CALL_FLOOD, "host-calls", 422, "10000").await;
    // A gigabyte that is not there.
    let huge = "(call $respond (i32.const 200) (i32.const 16))
      (call $write (i32.load (i32.const 20)) (i32.const 0) (i32.const 0x40000000) (i32.const 64)) (i32.const 16)";
    check(huge, "trap", 500, "fault of its own").await;
    // More random bytes than one call gives.
    check("(call $random (i32.const 65537) (i32.const 16)) unreachable", "trap", 500, "fault of its own").await;
    // A reply that was dropped or never made.
    check(
        "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 99)) (i32.const 16)",
        "trap",
        500,
        "",
    )
    .await;
    // A discriminant that does not exist.
    check("(i32.store8 (i32.const 16) (i32.const 9)) (i32.const 16)", "trap", 500, "").await;
    // An error message that is no text.
    let broken_text = "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store8 (i32.const 20) (i32.const 0))
      (i32.store (i32.const 24) (i32.const 128)) (i32.store (i32.const 28) (i32.const 4))
      (i32.store (i32.const 128) (i32.const -1)) (i32.const 16)";
    check(broken_text, "trap", 500, "").await;
}

#[tokio::test]
async fn the_answer_is_bounded_at_n_and_n_plus_one() {
    async fn check(bytes: usize, first: usize, fits: bool) {
        let house = house();
        let rest = bytes - first;
        let handle = format!(
            "(call $respond (i32.const 200) (i32.const 16))
             (call $write (i32.load (i32.const 20)) (i32.const 0) (i32.const {first}) (i32.const 64))
             (call $write (i32.load (i32.const 20)) (i32.const 0) (i32.const {rest}) (i32.const 64))
             (i32.const 16)"
        );
        let plugin = load(&house, component(&handle), Limits { output_bytes: 100_000, ..quick() }, &[]);
        match ask(&plugin).await {
            Ok(HttpReply::Respond { body, .. }) if fits => assert_eq!(body.len(), bytes),
            Err(CallError::OutputTooLarge { limit_bytes: 100_000, .. }) if !fits => {}
            other => panic!("{bytes} bytes: {other:?}"),
        }
    }
    check(100_000, 60_000, true).await;
    check(100_001, 60_000, false).await;
    check(100_001, 100_001, false).await;
}

#[tokio::test]
async fn one_argument_cannot_multiply_the_guests_memory_in_the_host() {
    let house = house();
    // A million pairs of texts that all lie over the same 16 MiB: 33 TB if they were copied.
    let handle = "(drop (memory.grow (i32.const 700)))
      (memory.fill (i32.const 65536) (i32.const 1) (i32.const 16000000))
      (call $log (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 1000000)) unreachable";
    let plugin = load(&house, component(handle), Limits { memory_bytes: 64 << 20, ..quick() }, &[]);
    let error = ask(&plugin).await.unwrap_err();
    assert_eq!(error.code(), "output-too-large", "{error:?}");
}

#[tokio::test]
async fn a_flood_of_messages_is_cut_and_counted_and_the_answer_comes() {
    let house = house();
    // Messages of 8 KiB; eight fill the limit of 64 KiB.
    let flood = |messages: u32| {
        format!(
            "(loop $l
               (call $log (i32.const 1) (i32.const 8192) (i32.const 8192) (i32.const 0) (i32.const 0))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const {messages}))))
             {OK}"
        )
    };
    // NUL bytes are escaped to several characters, so fill the text with blanks.
    let blanks = "(memory.fill (i32.const 8192) (i32.const 32) (i32.const 8192))";
    let within = load(&house, component(&format!("{blanks} {}", flood(8))), quick(), &[]);
    assert_eq!(status(&within).await, 200);
    assert_eq!(within.stats().log_cut_bytes, 0);
    let beyond = load(&house, component(&format!("{blanks} {}", flood(1_000))), quick(), &[]);
    assert_eq!(status(&beyond).await, 200);
    assert_eq!(beyond.stats().log_cut_bytes, 992 * 8_192);
}

#[tokio::test]
async fn neighbours_answer_while_one_loops() {
    let house = house();
    let looping = load(&house, component(LOOP), Limits { call_cpu_ms: 500, ..quick() }, &[]);
    let well = load(&house, component(OK), quick(), &[]);
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let looping = looping.clone();
            tokio::spawn(async move { ask(&looping).await })
        })
        .collect();
    let mut answers = 0;
    while !loops.iter().any(|one| one.is_finished()) {
        assert_eq!(status(&well).await, 200);
        answers += 1;
    }
    assert!(answers > 20, "the neighbour answered only {answers} times");
    for one in loops {
        let error = one.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::TimedOut { deadline: Deadline::Cpu, .. }), "{error:?}");
    }
}

/// Asks for a key, and returns the host's error if there is one.
const GET: &str = "(call $get (i32.const 1024) (i32.const 3) (i32.const 64))
  (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))";

#[tokio::test]
async fn denial_is_typed_and_no_trap_and_no_timeout() {
    let house = house();
    let plugin = load(&house, component(&format!("{GET} {OK}")), quick(), &["blobs"]);
    let error = ask(&plugin).await.unwrap_err();
    let CallError::Failed(told) = &error else { panic!("expected the plugin's own answer, got {error:?}") };
    assert_eq!((told.kind(), error.status()), (ErrorKind::Denied, 403));
    assert!(told.message().contains("`guest` may not use `keys`"), "{told}");
    let stats = plugin.stats();
    assert_eq!((stats.denied, stats.traps, stats.timeouts), (1, 0, 0));
    let granted = load(&house, component(&format!("{GET} {OK}")), quick(), &["keys"]);
    assert_eq!(status(&granted).await, 200);
}

#[tokio::test]
async fn loading_says_what_does_not_fit() {
    fn check(component: ComponentSource, words: &[&str]) {
        let house = house();
        let error = house.host.load(PluginSpec::new("guest", "0.1.0", component)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        for word in [&["`guest` 0.1.0"], words].concat() {
            assert!(error.message().contains(word), "`{word}` is missing: {error}");
        }
    }
    fn text(text: &str) -> ComponentSource {
        ComponentSource::Bytes(text.as_bytes().into())
    }
    check(text("%PDF-1.7"), &["no WebAssembly file"]);
    check(ComponentSource::Bytes((*b"\0asm\x01\0\0\0").into()), &["core WebAssembly module", "plugin pack"]);
    check(ComponentSource::Bytes((*b"\0asm\x0d\0\x01\0garbage").into()), &["cannot be compiled"]);
    check(
        text(r#"(component (import "mainstay:host/teleport@0.1.0" (instance)))"#),
        &["mainstay:host/teleport@0.1.0", "mainstay:host/keys"],
    );
    check(
        text(r#"(component (import "mainstay:host/keys@0.3.0" (instance)))"#),
        &["mainstay:host/keys", "version 0.3.0", "version 0.1.0", "update this host"],
    );
    check(
        text(r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#),
        &["wasi:clocks/wall-clock", "wasm32-unknown-unknown"],
    );
    check(text("(component)"), &["mainstay:lifecycle/lifecycle@0.1.0", "exports nothing"]);
    // The right names with the wrong things inside.
    let newer = r#"(component
      (import "mainstay:host/clock@0.1.0" (instance (export "now-us" (func (result s64)))))
      (instance $i)
      (export "mainstay:lifecycle/lifecycle@0.1.0" (instance $i))
      (export "mainstay:api/handler@0.1.0" (instance $i)))"#;
    check(text(newer), &["mainstay:host/clock@0.1.0", "now-us", "SDK of this host"]);
    let hollow = r#"(component (instance $i)
      (export "mainstay:lifecycle/lifecycle@0.1.0" (instance $i))
      (export "mainstay:api/handler@0.1.0" (instance $i)))"#;
    check(text(hollow), &["mainstay:api/api@0.1.0", "SDK of this host"]);
}

#[tokio::test]
async fn a_spec_that_cannot_be_is_refused() {
    fn check(change: impl FnOnce(&mut PluginSpec), words: &str) {
        let house = house();
        let mut spec = PluginSpec::new("guest", "0.1.0", component(OK));
        change(&mut spec);
        let error = house.host.load(spec).unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
    check(|spec| spec.grants.push("fly".to_owned()), "no capability `fly`");
    check(|spec| spec.limits.memory_bytes = 2 << 30, "memory_bytes");
    check(|spec| spec.name = "../guest".to_owned(), "cannot name a plugin");
    check(|spec| spec.component = ComponentSource::File("/nonexistent/a.wasm".into()), "/nonexistent/a.wasm");
}

#[tokio::test]
async fn a_start_that_fails_or_loops_is_told() {
    let house = house();
    let looping = load(&house, component_with(OK, OK, LOOP), Limits { call_cpu_ms: 20, ..quick() }, &[]);
    let error = looping.start(None).await.unwrap_err();
    // Ten times a call's limit.
    assert!(matches!(error, CallError::TimedOut { deadline: Deadline::Cpu, limit_ms: 200, .. }), "{error:?}");
    let well = load(&house, component_with(OK, OK, START_OK), quick(), &[]);
    well.start(Some("0.0.9".to_owned())).await.unwrap();
    // It sees the version before, five bytes long.
    let sees = "(if (i32.or (i32.ne (local.get $some) (i32.const 1)) (i32.ne (local.get $length) (i32.const 5)))
      (then unreachable)) ";
    let seeing = load(&house, component_with(OK, OK, &format!("{sees} {START_OK}")), quick(), &[]);
    seeing.start(Some("0.0.9".to_owned())).await.unwrap();
    assert_eq!(seeing.start(None).await.unwrap_err().code(), "trap");
}
