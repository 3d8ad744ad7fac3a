//! Plugins of world `fallback`: what they are asked, what they may answer, and what each misbehaviour ends in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_inference::{InferAnswer, InferRequest, Parameter, Tensor};
use mainstay_interfaces::{
    CallError, CallResult, ComponentSource, Deadline, DoorAnswer, DoorAsk, DoorAssignment, DoorEndpoint, FallbackAsk,
    FallbackReply, InferenceDoor, LESSONS_MAX, Lesson, Limits, Plugin, PluginSpec,
};
use parking_lot::Mutex;

use crate::guest::{self, House, house, quick};

/// `$reply` is new, labelled "last"; returns where that failed.
const NEW: &str = "(call $reply (i32.const 1024) (i32.const 4) (i32.const 16))
  (if (i32.load8_u (i32.const 16)) (then (return (i32.const 16))))";
/// The reply gets an output `score` of one FP32, which lies at 1064; returns where that failed.
const SCORE: &str =
    "(call $output (i32.load (i32.const 20)) (i32.const 1032) (i32.const 5) (i32.const 1040) (i32.const 4)
    (i32.const 1048) (i32.const 1) (i32.const 1064) (i32.const 4) (i32.const 64))
  (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))";
const END: &str = "(i32.const 16)";
/// Asks the endpoint `other`, and returns the host's error where there is one.
const INFER: &str = "(call $request (i32.const 1072) (i32.const 5) (i32.const 96))
  (if (i32.load8_u (i32.const 96)) (then (return (i32.const 96))))
  (call $infer (i32.load (i32.const 100)) (i32.const 96))
  (if (i32.load8_u (i32.const 96)) (then (return (i32.const 96))))";

fn good() -> String {
    format!("{NEW} {SCORE} {END}")
}

/// A module with this body in `answer`, and in `learn` where it has one; `$ask` is the argument, `$i` is free.
fn component(answer: &str, learn: Option<&str>) -> ComponentSource {
    let learn_export = learn.map_or(String::new(), |body| {
        format!(
            r#"(func (export "mainstay:fallback/learns@0.1.0#learn") (param $lessons i32) (param $count i32) (result i32)
              {body})"#
        )
    });
    let text = format!(
        r#"(module
  (import "mainstay:fallback/asks@0.1.0" "[method]ask.why" (func $why (param i32 i32)))
  (import "mainstay:fallback/asks@0.1.0" "[method]ask.tenant" (func $tenant (param i32 i32)))
  (import "mainstay:fallback/asks@0.1.0" "[method]ask.inputs" (func $inputs (param i32 i32)))
  (import "mainstay:fallback/asks@0.1.0" "[method]ask.rows" (func $rows (param i32) (result i64)))
  (import "mainstay:fallback/asks@0.1.0" "[method]ask.remaining-ms" (func $remaining (param i32) (result i32)))
  (import "mainstay:fallback/asks@0.1.0" "[constructor]reply" (func $reply (param i32 i32 i32)))
  (import "mainstay:fallback/asks@0.1.0" "[method]reply.output"
    (func $output (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "mainstay:fallback/asks@0.1.0" "[method]lesson.answered-ms" (func $answered (param i32) (result i64)))
  (import "mainstay:host/traffic@0.1.0" "[constructor]request" (func $request (param i32 i32 i32)))
  (import "mainstay:host/traffic@0.1.0" "infer" (func $infer (param i32 i32)))
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 65536))
  (data (i32.const 1024) "last")
  (data (i32.const 1032) "score")
  (data (i32.const 1040) "FP32")
  (data (i32.const 1048) "\01\00\00\00\00\00\00\00")
  (data (i32.const 1064) "\00\00\00\3f")
  (data (i32.const 1072) "other")
  (data (i32.const 1080) "UINT8")
  (func (export "cabi_realloc") (param $old i32) (param i32 i32) (param $size i32) (result i32) (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "mainstay:lifecycle/lifecycle@0.1.0#start") (param i32 i32 i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 0)) (i32.const 16))
  (func (export "mainstay:fallback/answers@0.1.0#answer") (param $ask i32) (result i32) (local $i i32)
    {answer})
  {learn_export})"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let (mut resolve, fallback) = guest::resolve_world("fallback");
    let world = match learn {
        None => fallback,
        Some(_) => {
            let text = "package mainstay:test; world learner { include mainstay:fallback/fallback@0.1.0; \
                        export mainstay:fallback/learns@0.1.0; }";
            let package = resolve.push_str("test.wit", text).unwrap();
            resolve.select_world(&[package], Some("learner")).unwrap()
        }
    };
    guest::encode(&mut module, &resolve, world)
}

fn load(house: &House, component: ComponentSource, limits: Limits, grants: &[&str]) -> Arc<Plugin> {
    let spec = PluginSpec {
        grants: grants.iter().map(|grant| grant.to_string()).collect(),
        limits,
        worlds: vec!["mainstay:fallback/fallback@0.1.0".to_owned()],
        ..PluginSpec::new("guest", "0.1.0", component)
    };
    house.host.load(spec).unwrap()
}

fn request(rows: usize) -> Arc<InferRequest> {
    let inputs = vec![Tensor::uint8("x", &[rows as u64], &vec![1; rows]).unwrap()];
    let parameters = vec![("top".to_owned(), Parameter::Int64(3))];
    Arc::new(InferRequest { model: "shop".into(), inputs, parameters, ..InferRequest::default() })
}

async fn ask_for(plugin: &Plugin, rows: usize, time: Duration) -> CallResult<FallbackReply> {
    let ask = FallbackAsk {
        endpoint: "shop".into(),
        variant: Some("main".into()),
        why: "breaker-open".into(),
        tenant: None,
        request: request(rows),
        traceparent: None,
    };
    plugin.answer_instead(ask, Instant::now() + time).await
}

async fn ask(plugin: &Plugin) -> CallResult<FallbackReply> {
    ask_for(plugin, 3, Duration::from_secs(30)).await
}

#[tokio::test]
async fn a_fallback_sees_the_ask_and_its_answer_comes_back() {
    /// What the guest stores at 1064 is what it answers.
    async fn check(store: &str, expect: f32) {
        let house = house();
        let body = format!("(f32.store (i32.const 1064) {store}) {NEW} {SCORE} {END}");
        let reply = ask(&load(&house, component(&body, None), quick(), &[])).await.unwrap();
        assert_eq!(reply.label, "last");
        assert_eq!(reply.answer.outputs, [Tensor::fp32("score", &[1], &[expect]).unwrap()], "{store}");
    }
    check("(f32.const 0.5)", 0.5).await;
    check("(f32.convert_i64_u (call $rows (local.get $ask)))", 3.0).await;
    let length = |call: &str| {
        format!("(call {call} (local.get $ask) (i32.const 96)) (f32.convert_i32_u (i32.load (i32.const 100)))")
    };
    check(&format!("(block (result f32) {})", length("$why")), "breaker-open".len() as f32).await;
    check(&format!("(block (result f32) {})", length("$tenant")), "default".len() as f32).await;
    check("(f32.convert_i32_u (i32.le_u (call $remaining (local.get $ask)) (i32.const 30000)))", 1.0).await;
}

#[tokio::test]
async fn each_misbehaviour_has_its_own_error() {
    async fn check(answer: &str, code: &str, kind: ErrorKind, words: &str) {
        let house = house();
        let error = ask(&load(&house, component(answer, None), quick(), &[])).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, kind), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        let well = load(&house, component(&good(), None), quick(), &[]);
        assert!(ask(&well).await.is_ok(), "a neighbour still answers");
    }
    let failed = "failed";
    check("unreachable", "trap", ErrorKind::Internal, "fault of its own").await;
    check("(loop $l (br $l)) unreachable", "timed-out", ErrorKind::Exhausted, "200 ms").await;
    check(&format!("{NEW} {END}"), failed, ErrorKind::Internal, "without a single output").await;
    check(&format!("{NEW} {SCORE} {SCORE} {END}"), failed, ErrorKind::Invalid, "`score` already").await;
    // A shape that wants two elements where there is one.
    let two = "(i64.store (i32.const 1048) (i64.const 2))";
    check(&format!("{two} {NEW} {SCORE} {END}"), failed, ErrorKind::Invalid, "`score`").await;
    // "score" is no datatype, "\0\0…" is no label.
    let datatype = SCORE.replace("(i32.const 1040) (i32.const 4)", "(i32.const 1032) (i32.const 5)");
    check(&format!("{NEW} {datatype} {END}"), failed, ErrorKind::Invalid, "no datatype").await;
    check(&format!("{} {END}", NEW.replace("1024", "512")), failed, ErrorKind::Invalid, "no label").await;
    // A reply that was never made, and more replies than a call may hold.
    let never = "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 99)) (i32.const 16)";
    check(never, "trap", ErrorKind::Internal, "").await;
    check(&format!("{NEW} {NEW} {NEW} {NEW} {NEW} {END}"), failed, ErrorKind::Invalid, "4 replys").await;
}

#[tokio::test]
async fn an_answer_and_what_is_read_are_bounded_at_n_and_n_plus_one() {
    async fn check_output(bytes: usize, fits: bool) {
        let house = house();
        let body = format!(
            "(drop (memory.grow (i32.const 4))) (i64.store (i32.const 1048) (i64.const {bytes})) {NEW}
             (call $output (i32.load (i32.const 20)) (i32.const 1032) (i32.const 5) (i32.const 1080) (i32.const 5)
               (i32.const 1048) (i32.const 1) (i32.const 65536) (i32.const {bytes}) (i32.const 64))
             (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64)))) {END}"
        );
        match ask(&load(&house, component(&body, None), quick(), &[])).await {
            Ok(reply) if fits => assert_eq!(reply.answer.outputs[0].data.len(), bytes),
            Err(error) if !fits => assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}"),
            other => panic!("{bytes} bytes: {other:?}"),
        }
    }
    check_output(65_536, true).await;
    check_output(65_537, false).await;

    async fn check_inputs(bytes: usize, fits: bool) {
        let house = house();
        let body = format!(
            "(drop (memory.grow (i32.const 4))) (call $inputs (local.get $ask) (i32.const 96))
             (if (i32.load8_u (i32.const 96)) (then (return (i32.const 96)))) {}",
            good()
        );
        let plugin = load(&house, component(&body, None), quick(), &[]);
        let answered = ask_for(&plugin, bytes, Duration::from_secs(30)).await;
        assert_eq!(answered.is_ok(), fits, "{bytes} bytes: {answered:?}");
    }
    check_inputs(65_536, true).await;
    check_inputs(65_537, false).await;
}

#[tokio::test]
async fn nobody_waits_beyond_the_deadline_and_it_is_not_the_plugins_fault() {
    let house = house();
    let limits = Limits { call_cpu_ms: 20_000, call_wall_ms: 20_000, ..quick() };
    let plugin = load(&house, component("(loop $l (br $l)) unreachable", None), limits.clone(), &[]);
    let begun = Instant::now();
    for _ in 0..3 {
        let error = ask_for(&plugin, 1, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(&error, CallError::Host(told) if told.kind() == ErrorKind::Unavailable), "{error:?}");
        assert!(error.to_string().contains("`guest`") && error.to_string().contains("`shop`"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(plugin.stats().timeouts, 0);
    let slow = load(&house, component("(loop $l (br $l)) unreachable", None), quick(), &[]);
    let error = ask(&slow).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { deadline: Deadline::Cpu, limit_ms: 200, .. }), "{error:?}");
}

fn lesson(at_ms: i64, bytes: usize) -> Lesson {
    let outputs = vec![Tensor::uint8("y", &[1], &[1]).unwrap()];
    let answer = InferAnswer { model: "ranker".into(), version: "7".into(), outputs, ..InferAnswer::default() };
    Lesson {
        endpoint: "shop".into(),
        variant: "main".into(),
        tenant: None,
        answered_ms: at_ms,
        request: request(bytes),
        answer: Arc::new(answer),
    }
}

#[tokio::test]
async fn a_learner_is_told_in_order_and_without_what_is_too_large() {
    let house = house();
    // All is well when there are two lessons, of the times 5 and 6.
    let learn = "(i32.store8 (i32.const 16) (i32.const 0))
      (if (i32.ne (local.get $count) (i32.const 2)) (then unreachable))
      (if (i64.ne (call $answered (i32.load (local.get $lessons))) (i64.const 5)) (then unreachable))
      (if (i64.ne (call $answered (i32.load offset=4 (local.get $lessons))) (i64.const 6)) (then unreachable))
      (i32.const 16)";
    let learner = load(&house, component(&good(), Some(learn)), quick(), &[]);
    assert!(learner.does_learn());
    // A lesson has one byte of output beside its inputs.
    learner.learn(vec![lesson(5, 65_535), lesson(9, 65_536), lesson(6, 1)]).await.unwrap();
    learner.learn(vec![lesson(9, 65_536)]).await.unwrap();
    assert_eq!(learner.learn(vec![lesson(5, 1)]).await.unwrap_err().code(), "trap");
    assert!(ask(&learner).await.is_ok(), "it answers all the same");
}

#[tokio::test]
async fn a_batch_of_lessons_is_bounded_and_needs_a_learner() {
    let house = house();
    let learn = "(i32.store8 (i32.const 16) (i32.const 0)) (i32.const 16)";
    let learner = load(&house, component(&good(), Some(learn)), quick(), &[]);
    learner.learn(vec![lesson(1, 1); LESSONS_MAX]).await.unwrap();
    assert_eq!(learner.learn(vec![lesson(1, 1); LESSONS_MAX + 1]).await.unwrap_err().kind(), ErrorKind::Invalid);
    let other = load(&house, component(&good(), None), quick(), &[]);
    assert!(!other.does_learn());
    let error = other.learn(vec![lesson(1, 1)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("does not learn"), "{error}");
}

/// Answers with what it is given, and remembers what it was asked.
#[derive(Default)]
struct Door {
    asked: Mutex<Vec<DoorAsk>>,
    fallback: Option<Arc<str>>,
    is_slow: bool,
}

#[async_trait]
impl InferenceDoor for Door {
    fn endpoints(&self) -> Vec<Arc<str>> {
        vec!["other".into(), "shop".into()]
    }

    async fn find(&self, endpoint: &str) -> Result<Option<DoorEndpoint>> {
        Ok(Some(DoorEndpoint { name: endpoint.to_owned(), ..DoorEndpoint::default() }))
    }

    fn assign(&self, endpoint: &str, _: &str) -> Result<DoorAssignment> {
        Err(Error::not_found(format!("there is no endpoint `{endpoint}`")))
    }

    async fn infer(&self, ask: DoorAsk) -> Result<DoorAnswer> {
        self.asked.lock().push(ask);
        if self.is_slow {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        let answer = InferAnswer { model: "ranker".into(), version: "6".into(), ..InferAnswer::default() };
        Ok(DoorAnswer { answer: Arc::new(answer), fallback: self.fallback.clone(), ..DoorAnswer::default() })
    }
}

fn house_with(door: Door) -> (House, Arc<Door>) {
    let (house, door) = (house(), Arc::new(door));
    house.services.door.set(door.clone()).unwrap();
    (house, door)
}

fn asking() -> String {
    format!("{INFER} {}", good())
}

const INFER_GRANT: &[&str] = &["traffic.infer"];

#[tokio::test]
async fn a_fallback_asks_another_endpoint_within_its_own_time() {
    let (house, door) = house_with(Door::default());
    let plugin = load(&house, component(&asking(), None), quick(), INFER_GRANT);
    let begun = Instant::now();
    ask_for(&plugin, 1, Duration::from_secs(5)).await.unwrap();
    let asked = door.asked.lock();
    let DoorAsk { plugin, request, deadline, within_fallback, .. } = &asked[0];
    assert_eq!((&**plugin, request.model.as_str(), *within_fallback), ("guest", "other", true));
    let left = deadline.unwrap().duration_since(begun);
    assert!(left > Duration::from_secs(4) && left < Duration::from_secs(6), "{left:?}");
}

#[tokio::test]
async fn what_a_fallback_asks_is_refused_where_it_would_come_back_to_itself() {
    async fn check(door: Door, infer: &str, grants: &[&str], expect: ErrorKind, words: &str) {
        let (house, _) = house_with(door);
        let plugin = load(&house, component(&format!("{infer} {}", good()), None), quick(), grants);
        let error = ask(&plugin).await.unwrap_err();
        assert!(error.kind() == expect && error.to_string().contains(words), "{error}");
    }
    let own = format!(
        r#"(i32.store (i32.const 1072) (i32.const 0x706f6873)) {}"#, // "shop"
        INFER.replace("(i32.const 1072) (i32.const 5)", "(i32.const 1072) (i32.const 4)")
    );
    check(Door::default(), &own, INFER_GRANT, ErrorKind::Denied, "may not ask it").await;
    let fallen = Door { fallback: Some("cached".into()), ..Door::default() };
    check(fallen, INFER, INFER_GRANT, ErrorKind::Unavailable, "`cached`").await;
    check(Door::default(), INFER, &[], ErrorKind::Denied, "`traffic.infer`").await;
    check(Door::default(), INFER, &["traffic.read"], ErrorKind::Denied, "`traffic.infer`").await;
}

#[tokio::test]
async fn a_slow_endpoint_is_given_up_at_the_deadline() {
    let (house, door) = house_with(Door { is_slow: true, ..Door::default() });
    let plugin = load(&house, component(&asking(), None), quick(), INFER_GRANT);
    let begun = Instant::now();
    let error = ask_for(&plugin, 1, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(door.asked.lock().len(), 1);
}

#[tokio::test]
async fn without_endpoints_asking_is_unavailable_and_the_door_is_set_once() {
    let house = house();
    let plugin = load(&house, component(&asking(), None), quick(), INFER_GRANT);
    let error = ask(&plugin).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("no endpoints yet"), "{error}");
    house.services.door.set(Arc::new(Door::default())).unwrap();
    assert!(ask(&plugin).await.is_ok());
    let error = house.services.door.set(Arc::new(Door::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_component_that_lacks_the_export_is_refused_by_name() {
    let house = house();
    let spec = PluginSpec {
        worlds: vec!["mainstay:fallback/fallback@0.1.0".to_owned()],
        ..PluginSpec::new("guest", "0.1.0", guest::component(guest::OK))
    };
    let error = house.host.load(spec).unwrap_err();
    assert!(error.message().contains("mainstay:fallback/answers@0.1.0"), "{error}");
}
