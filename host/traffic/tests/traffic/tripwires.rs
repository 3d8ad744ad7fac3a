//! Tripwires: another plan at once, kept durably, once.

use std::sync::Arc;
use std::time::Duration;

use mainstay_traffic::*;

use crate::support::*;

fn wire(signal: Signal) -> Tripwire {
    Tripwire {
        name: "errors".into(),
        variant: Some("b".into()),
        signal,
        percent: 20.0,
        window_ms: 60_000,
        minimum: 5,
        grace_ms: 0,
        plan: "safe".into(),
    }
}

fn rollout(signal: Signal) -> EndpointSpec {
    spec(|spec| {
        spec.plan.split.shares = shares(&[("b", 100.0)]);
        spec.plan.breaker.consecutive = 0;
        spec.plan.tripwires = vec![wire(signal)];
        spec.plans = vec![NamedPlan { name: "safe".into(), plan: Plan::of("a") }];
    })
}

#[tokio::test(start_paused = true)]
async fn a_breach_makes_the_named_plan_active_with_the_request_that_brings_it_about() {
    let house = House::new().await;
    house.apply(rollout(Signal::Errors)).await;
    house.backend("b").does(Do::FailForGood);
    assert_eq!(house.whys(4).await, [Some(Why::Failed); 4]);
    assert_eq!(house.plan(), (1, None));
    house.ask().await.unwrap_err();
    assert_eq!(house.plan(), (2, Some("safe".into())));
    assert_eq!(house.ask().await.unwrap().labels.variant.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_with_its_reason_and_fires_once() {
    let house = House::new().await;
    house.apply(rollout(Signal::Errors)).await;
    house.backend("b").does(Do::FailForGood);
    futures::future::join_all((0..50).map(|_| house.ask())).await;
    eventually(|| house.traffic.history("e", None, 10).unwrap().plans.len() == 2).await;
    let history = house.traffic.history("e", None, 10).unwrap().plans;
    assert_eq!((history[0].version, history[0].name.as_deref()), (2, Some("safe")));
    assert_eq!(history[0].reason.by, "tripwire:errors");
    assert!(history[0].reason.why.contains("5 of 5 requests were not answered"), "{}", history[0].reason.why);
    let fired = house.news().await.iter().filter(|news| matches!(news, Changed::TripwireFired { .. })).count();
    assert_eq!(fired, 1);
    let again = House::on(house.store.clone(), Arc::default()).await;
    assert_eq!(again.plan(), (2, Some("safe".into())));
}

/// In real time, with requests under way on all sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_real_time_the_plan_is_active_within_100_ms_of_the_breach() {
    let house = House::new().await;
    house.apply(rollout(Signal::Errors)).await;
    assert!(house.ask().await.is_ok());
    house.backend("b").does(Do::FailForGood);
    let began = std::time::Instant::now();
    let mut failed = 0;
    while house.ask().await.is_err() {
        failed += 1;
        assert!(failed < 1_000, "it never fired");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(failed, 4, "with the answer before, more than 20 % of five");
}

#[tokio::test(start_paused = true)]
async fn slow_answers_and_disagreements_fire_too() {
    let house = House::new().await;
    house.apply(rollout(Signal::SlowerThanMs(100))).await;
    house.backend("b").does(Do::AnswerAfter(150));
    house.whys(5).await;
    assert_eq!(house.plan().0, 2);

    let house = House::new().await;
    let mut spec = rollout(Signal::Disagreements);
    spec.plan.split.shares = shares(&[("a", 100.0)]);
    spec.plan.mirrors = serde_json::from_str(r#"[{"variant": "b", "compare": {}}]"#).unwrap();
    house.apply(spec).await;
    house.backend("b").does(Do::Answer(0.9));
    house.whys(5).await;
    settle().await;
    assert_eq!(house.plan().0, 2);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_has_not_seen_it_does_not_undo_it() {
    let house = House::new().await;
    house.apply(rollout(Signal::Errors)).await;
    house.backend("b").does(Do::FailForGood);
    house.whys(5).await;
    let swap = |version| house.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of("c"))), version, reason());
    assert_eq!(swap(1).await.unwrap_err().kind(), mainstay_base::ErrorKind::Conflict);
    assert_eq!(swap(2).await.unwrap().version, 3);
    let plans = house.traffic.history("e", None, 10).unwrap().plans;
    assert_eq!(plans.iter().map(|plan| plan.version).collect::<Vec<_>>(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn another_change_right_behind_it_keeps_its_plan() {
    let house = House::new().await;
    house.apply(rollout(Signal::Errors)).await;
    house.backend("b").does(Do::FailForGood);
    house.whys(5).await;
    let mut changed = rollout(Signal::Errors);
    changed.description = "another".into();
    let record = house.apply(changed).await;
    assert_eq!((record.revision, record.active.version), (2, 2));
    assert_eq!(house.plan(), (2, Some("safe".into())));
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_ends_under_the_plan_it_began_with() {
    let house = House::new().await;
    house.apply(rollout(Signal::Errors)).await;
    house.backend("b").first(&[Do::AnswerAfter(1_000)]);
    house.backend("b").does(Do::FailForGood);
    let (slow, _) = tokio::join!(house.ask(), house.whys(5));
    let labels = slow.unwrap().labels;
    assert_eq!((labels.plan_version, labels.variant.as_deref()), (1, Some("b")));
    assert_eq!(house.plan().0, 2);
}
