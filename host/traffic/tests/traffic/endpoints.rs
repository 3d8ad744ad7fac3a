//! Endpoints and plans: added, changed, kept, listed, taken back.

use std::sync::Arc;

use http::HeaderMap;
use mainstay_base::ErrorKind;
use mainstay_traffic::*;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_endpoint_answers_with_labels_that_say_where_from() {
    let house = House::with(|_| {}).await;
    let Served { labels, .. } = house.ask().await.unwrap();
    assert_eq!((&*labels.endpoint, labels.variant.as_deref()), ("e", Some("a")));
    assert_eq!((&*labels.model, &*labels.version), ("models:/a/1", "1"));
    assert_eq!((labels.run.as_deref(), labels.plan_version, labels.retries), (Some("run-1"), 1, 0));
    assert_eq!(labels.fallback, None);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_endpoint_is_not_found() {
    let house = House::new().await;
    assert_eq!(house.ask().await.unwrap_err().why, Why::NotFound);
    assert_eq!(house.traffic.show("e").unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn variants_are_warm_before_the_first_request_and_warmed_once() {
    let house = House::with(|_| {}).await;
    let warmed = |variant| house.backend(variant).warmed.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((warmed("a"), house.backend("a").calls()), (1, 0));
    house.apply(spec(|spec| spec.description = "another".into())).await;
    assert_eq!(warmed("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_does_not_warm_changes_nothing() {
    let house = House::with(|_| {}).await;
    *house.backends.get("models:/d/1").can_warm.lock().unwrap() = false;
    let with_d = spec(|spec| spec.variants.push(VariantSpec::new("d", "models:/d/1".parse().unwrap())));
    let error = house.traffic.apply(with_d, None, reason()).await.unwrap_err();
    assert!(error.message().contains("variant `d`"), "{error}");
    assert_eq!(house.traffic.show("e").unwrap().revision, 1);
    assert!(house.ask().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_specification_again_changes_nothing() {
    let house = House::with(|_| {}).await;
    let again = house.apply(spec(|_| {})).await;
    assert_eq!((again.revision, again.active.version), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_overwrites_what_he_has_not_seen() {
    let house = House::with(|_| {}).await;
    let apply = |revision| house.traffic.apply(spec(|spec| spec.description = "new".into()), Some(revision), reason());
    assert_eq!(apply(0).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(apply(1).await.unwrap().revision, 2);
    let swap = |version| house.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of("b"))), version, reason());
    assert_eq!(swap(2).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(swap(1).await.unwrap().version, 2);
    assert_eq!(swap(1).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_swapped_plan_stays_when_the_rest_of_the_specification_changes() {
    let house = House::with(|_| {}).await;
    house.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of("b"))), 1, reason()).await.unwrap();
    let changed = house.apply(spec(|spec| spec.description = "new".into())).await;
    assert_eq!(changed.active.version, 2);
    assert_eq!(house.ask().await.unwrap().labels.variant.as_deref(), Some("b"));
    let changed = house.apply(spec(|spec| spec.plan.split.shares = shares(&[("c", 100.0)]))).await;
    assert_eq!(changed.active.version, 3);
    assert_eq!(house.ask().await.unwrap().labels.variant.as_deref(), Some("c"));
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_the_active_plan_needs_is_not_removed() {
    let house = House::with(|_| {}).await;
    house.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of("b"))), 1, reason()).await.unwrap();
    let without_b = spec(|spec| spec.variants.retain(|variant| variant.name != "b"));
    let error = house.traffic.apply(without_b, None, reason()).await.unwrap_err();
    assert!(error.message().contains("the active plan 2"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_history_says_who_when_and_why_newest_first() {
    let house = House::with(|_| {}).await;
    for version in 1..5 {
        let plan = NewPlan::Plan(Box::new(Plan::of(["a", "b"][version as usize % 2])));
        let why = Reason::new("ada", format!("step {version}"));
        house.traffic.swap("e", plan, version, why).await.unwrap();
    }
    let page = house.traffic.history("e", None, 2).unwrap();
    let seen: Vec<_> = page.plans.iter().map(|plan| (plan.version, &*plan.reason.by, &*plan.reason.why)).collect();
    assert_eq!(seen, [(5, "ada", "step 4"), (4, "ada", "step 3")]);
    assert!(page.plans.iter().all(|plan| plan.at_ms >= START_MS));
    let rest = house.traffic.history("e", page.next, 100).unwrap();
    assert_eq!(rest.plans.iter().map(|plan| plan.version).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(rest.next, None);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_plan_can_be_made_active_again() {
    let house = House::with(|_| {}).await;
    house.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of("b"))), 1, reason()).await.unwrap();
    let back = house.traffic.swap("e", NewPlan::Version(1), 2, reason()).await.unwrap();
    assert_eq!(back.version, 3);
    assert_eq!(house.ask().await.unwrap().labels.variant.as_deref(), Some("a"));
    let error = house.traffic.swap("e", NewPlan::Version(9), 3, reason()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_there_again_after_a_restart_and_place_everybody_alike() {
    let house = House::with(|spec| {
        spec.plan.split = Split { shares: shares(&[("a", 50.0), ("b", 50.0)]), key: Some(Source::Header("u".into())) };
    })
    .await;
    house
        .traffic
        .swap("e", NewPlan::Plan(house.traffic.show("e").unwrap().active.plan.into()), 1, reason())
        .await
        .unwrap();
    let again = House::on(house.store.clone(), Arc::default()).await;
    assert_eq!(again.traffic.list(), ["e".into()]);
    assert_eq!(again.traffic.show("e").unwrap(), house.traffic.show("e").unwrap());
    for user in 0..200 {
        let headers = HeaderMap::from_iter([("u".parse().unwrap(), user.to_string().parse().unwrap())]);
        let assign = |house: &House| house.traffic.assign("e", Caller::new(&headers), &request()).unwrap();
        let placed = assign(&house);
        assert!(placed.is_sticky);
        assert_eq!(placed, assign(&again));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_variants_are_not_ready_until_they_are_loaded() {
    let house = House::with(|_| {}).await;
    let backends: Arc<FakeBackends> = Arc::default();
    *backends.get("models:/a/1").can_warm.lock().unwrap() = false;
    let again = House::on(house.store.clone(), backends.clone()).await;
    settle().await;
    let refused = again.ask().await.unwrap_err();
    assert_eq!(refused.why, Why::NotReady);
    assert!(refused.error.message().contains("told not to warm"), "{refused}");
    assert!(refused.retry_after.is_some());
    *backends.get("models:/a/1").can_warm.lock().unwrap() = true;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(again.ask().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn versions_of_plans_go_on_when_an_endpoint_is_made_again() {
    let house = House::with(|_| {}).await;
    house.traffic.remove("e").await.unwrap();
    assert_eq!(house.ask().await.unwrap_err().why, Why::NotFound);
    assert!(house.traffic.list().is_empty());
    let again = house.apply(spec(|_| {})).await;
    assert_eq!((again.revision, again.active.version), (1, 2));
    assert_eq!(house.traffic.history("e", None, 10).unwrap().plans.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_alias_that_moves_is_followed_and_the_old_answers_until_the_new_is_warm() {
    let house = House::with(|spec| spec.variants[0].backend = "models:/m@live".parse().unwrap()).await;
    let model = async || house.ask().await.unwrap().labels.model;
    assert_eq!(&*model().await, "models:/m@live");
    house.backends.moved.lock().unwrap().insert("models:/m@live".into(), "models:/m/2".into());
    *house.backends.get("models:/m/2").can_warm.lock().unwrap() = false;
    house.traffic.moved("m", "live").await.unwrap_err();
    assert_eq!(&*model().await, "models:/m@live", "what was there goes on");
    *house.backends.get("models:/m/2").can_warm.lock().unwrap() = true;
    assert_eq!(house.traffic.moved("m", "live").await.unwrap(), 1);
    assert_eq!(&*model().await, "models:/m/2");
    assert_eq!(house.traffic.moved("m", "other").await.unwrap(), 0);
    assert!(house.news().await.iter().any(|news| matches!(news, Changed::BackendFailed { .. })));
}

#[tokio::test(start_paused = true)]
async fn rules_decide_before_the_split() {
    let house = House::with(|spec| {
        let when = vec![Condition { of: Source::Header("x-beta".into()), is: Test::Prefix("y".into()) }];
        spec.plan.rules = vec![Rule { when, split: Split { shares: shares(&[("b", 100.0)]), key: None } }];
    })
    .await;
    let asked = house.ask_with(|headers| drop(headers.insert("x-beta", "yes".parse().unwrap()))).await.unwrap();
    assert_eq!(asked.labels.variant.as_deref(), Some("b"));
    assert_eq!(house.ask().await.unwrap().labels.variant.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn one_variant_can_be_probed_whatever_the_plan_says() {
    let house = House::with(|_| {}).await;
    let soon = || tokio::time::Instant::now().into_std() + std::time::Duration::from_secs(1);
    let (_, identity) = house.traffic.probe("e", "c", request(), soon()).await.unwrap();
    assert_eq!(&*identity.model, "models:/c/1");
    house.backend("c").does(Do::Answer(f64::NAN));
    let error = house.traffic.probe("e", "c", request(), soon()).await.unwrap_err();
    assert!(error.message().contains("must not be seen"), "{error}");
    house.backend("c").does(Do::Hang);
    assert!(house.traffic.probe("e", "c", request(), soon()).await.is_err());
    assert!(house.traffic.probe("e", "d", request(), soon()).await.is_err());
}

#[test]
fn asking_can_be_spawned() {
    fn check<T: Send>(_: impl FnOnce(&'static Traffic, &'static HeaderMap) -> T) {}
    check(|traffic, headers| traffic.infer("e", Caller::new(headers), request()));
    check(|traffic, headers| traffic.infer_stream("e", Caller::new(headers), request()));
    check(|traffic, _| traffic.apply(spec(|_| {}), None, reason()));
    check(|traffic, _| traffic.swap("e", NewPlan::Version(1), 1, reason()));
}

#[tokio::test(start_paused = true)]
async fn a_broken_variant_does_not_keep_an_operator_from_leaving_it() {
    let house = House::with(|_| {}).await;
    let backends: Arc<FakeBackends> = Arc::default();
    *backends.get("models:/a/1").can_warm.lock().unwrap() = false;
    let again = House::on(house.store.clone(), backends).await;
    let swap =
        |variant, version| again.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of(variant))), version, reason());
    assert_eq!(swap("b", 1).await.unwrap().version, 2);
    assert!(again.ask().await.is_ok());
    let error = swap("a", 2).await.unwrap_err();
    assert!(error.message().contains("variant `a`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_is_placed_by_chance() {
    let house = House::with(|spec| {
        spec.plan.split = Split { shares: shares(&[("a", 50.0), ("b", 50.0)]), key: Some(Source::Header("u".into())) };
    })
    .await;
    for value in [None, Some("")] {
        let pairs = value.map(|value| ("u".parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(pairs);
        let assign = |_| house.traffic.assign("e", Caller::new(&headers), &request()).unwrap();
        let placed: Vec<_> = (0..100).map(assign).collect();
        assert!(placed.iter().all(|placed| !placed.is_sticky));
        assert!(placed.iter().any(|other| other.variant != placed[0].variant), "{value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_the_history_has_a_largest_size() {
    let house = House::with(|_| {}).await;
    for version in 1..=u64::from(limits::HISTORY_PAGE_MAX) {
        house.traffic.swap("e", NewPlan::Version(1), version, reason()).await.unwrap();
    }
    let page = house.traffic.history("e", None, u32::MAX).unwrap();
    assert_eq!((page.plans.len(), page.next), (limits::HISTORY_PAGE_MAX as usize, Some(2)));
}
