//! Mirrors: copies whose answers nobody gets, compared pair by pair.

use std::time::Duration;

use mainstay_traffic::*;
use tokio::time::{Instant, sleep};

use crate::support::*;

fn mirror(change: impl FnOnce(&mut Mirror)) -> Mirror {
    let mut mirror: Mirror = serde_json::from_str(r#"{"variant": "b", "compare": {}}"#).unwrap();
    change(&mut mirror);
    mirror
}

async fn house(change: impl FnOnce(&mut Mirror)) -> House {
    House::with(|spec| spec.plan.mirrors = vec![mirror(change)]).await
}

#[tokio::test(start_paused = true)]
async fn copies_are_compared_with_what_the_caller_got() {
    let house = house(|_| {}).await;
    house.backend("b").first(&[Do::Answer(0.5), Do::Answer(0.5), Do::Answer(0.75)]);
    for _ in 0..3 {
        let served = house.ask().await.unwrap();
        assert_eq!((score(&served), served.labels.variant.as_deref()), (0.5, Some("a")));
        settle().await;
    }
    let counted = house.counted(Some("b"), true);
    let expect = Agreement { compared: 3, agreed: 2, difference_sum: 0.25, difference_max: 0.25 };
    assert_eq!((counted.requests, counted.agreement.get("a")), (3, Some(&expect)));
    assert_eq!(house.counted(Some("a"), false).requests, 3);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_hangs_or_fails_delays_and_harms_nobody() {
    let house = house(|mirror| mirror.timeout_ms = 200).await;
    house.backend("b").first(&[Do::Hang, Do::FailForGood]);
    let began = Instant::now();
    assert!(house.ask().await.is_ok() && house.ask().await.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(1)).await;
    let counted = house.counted(Some("b"), true);
    assert_eq!(counted.failures.into_iter().collect::<Vec<_>>(), [(Why::Deadline, 1), (Why::Failed, 1)]);
    assert!(counted.agreement.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_primary_is_waited_for_by_the_comparison() {
    let house = house(|_| {}).await;
    house.backend("a").does(Do::AnswerAfter(300));
    house.ask().await.unwrap();
    settle().await;
    assert_eq!(house.counted(Some("b"), true).agreement.get("a").map(|agreement| agreement.compared), Some(1));
}

#[tokio::test(start_paused = true)]
async fn copies_beyond_the_limit_are_not_made_and_are_counted() {
    let house = house(|mirror| mirror.concurrency = 2).await;
    house.backend("b").does(Do::Hang);
    for _ in 0..3 {
        house.ask().await.unwrap();
        settle().await;
    }
    assert_eq!((house.backend("b").calls(), house.traffic.not_copied()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_requests_is_copied() {
    let house = house(|mirror| mirror.percent = 20.0).await;
    for _ in 0..2_000 {
        house.ask().await.unwrap();
        tokio::task::yield_now().await;
    }
    settle().await;
    // Five standard deviations of a binomial.
    let copies = house.backend("b").calls();
    assert!((310..=490).contains(&copies), "{copies}");
}

#[tokio::test(start_paused = true)]
async fn what_a_fallback_answered_is_not_compared() {
    let house = House::with(|spec| {
        spec.plan.mirrors = vec![mirror(|_| {})];
        spec.plan.answer = Some(FixedAnswer { label: "fixed".into(), outputs: vec![] });
    })
    .await;
    house.backend("a").does(Do::FailForGood);
    assert!(house.ask().await.unwrap().labels.fallback.is_some());
    settle().await;
    let counted = house.counted(Some("b"), true);
    assert_eq!((counted.requests, counted.agreement.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_opens_its_breaker_like_anybody() {
    let house = house(|_| {}).await;
    house.backend("b").does(Do::FailForGood);
    for _ in 0..8 {
        house.ask().await.unwrap();
        settle().await;
    }
    assert_eq!(house.backend("b").calls(), 5);
    assert_eq!(house.counted(Some("b"), true).failures.get(&Why::BreakerOpen), Some(&3));
}
