//! Tenants: slots, queues and tokens that one cannot take from another.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mainstay_traffic::*;
use tokio::time::{Instant, sleep};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_again() {
    let house = House::with(|spec| {
        spec.plan.limits = PathLimits { concurrency: 2, queue: 3, retry_after_ms: 700, ..PathLimits::default() };
    })
    .await;
    house.backend("a").does(Do::AnswerAfter(100));
    let began = Instant::now();
    let asked = join_all((0..6).map(|_| async { (house.ask().await, began.elapsed()) })).await;
    let refused: Vec<_> = asked.iter().filter_map(|(asked, took)| asked.as_ref().err().map(|r| (r, took))).collect();
    assert_eq!(refused.len(), 1);
    let (refused, took) = refused[0];
    assert_eq!((refused.why, refused.retry_after), (Why::Overloaded, Some(Duration::from_millis(700))));
    assert_eq!(refused.error.kind(), mainstay_base::ErrorKind::Exhausted);
    assert_eq!(*took, Duration::ZERO);
    assert_eq!(house.backend("a").calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused() {
    let house = House::with(|spec| {
        spec.plan.limits = PathLimits { concurrency: 1, queue_timeout_ms: 50, ..PathLimits::default() };
    })
    .await;
    house.backend("a").does(Do::AnswerAfter(200));
    let (first, second, hurried) = tokio::join!(house.ask(), house.ask(), house.ask_within(20));
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err().why, Why::Overloaded);
    assert_eq!(hurried.unwrap_err().why, Why::Deadline);
    assert_eq!(house.traffic.status("e").unwrap().load, Load::default());
    assert_eq!(house.counted(None, false).requests, 3);
    assert_eq!(house.counted(Some("a"), false).failures.get(&Why::Overloaded), None, "it is not the variant's");
}

/// Four requests at once of 10 ms each: 400 a second. One tenant sends ten times what the other two send.
#[tokio::test(start_paused = true)]
async fn one_tenants_burst_leaves_the_latency_of_others_as_it_was() {
    let house = Arc::new(
        House::with(|spec| {
            let tenant = TenantLimits { concurrency: Some(2), queue: Some(20), rate: None };
            spec.plan.limits = PathLimits { concurrency: 4, queue: 100, tenant, ..PathLimits::default() };
        })
        .await,
    );
    house.backend("a").does(Do::AnswerAfter(10));
    let slowest = async |burst: usize| {
        let noise = join_all((0..burst).map(|_| house.ask_as("loud")));
        let quiet = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..50 {
                let began = Instant::now();
                let (one, other) = tokio::join!(house.ask_as("quiet"), house.ask_as("calm"));
                assert!(one.is_ok() && other.is_ok());
                slowest = slowest.max(began.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
            slowest
        };
        let (noise, slowest) = tokio::join!(noise, quiet);
        (slowest, noise.iter().filter(|asked| asked.is_err()).count())
    };
    let (alone, _) = slowest(0).await;
    let (in_company, refused) = slowest(1_000).await;
    assert_eq!((alone.as_millis(), in_company.as_millis()), (10, 10));
    assert_eq!(refused, 1_000 - 22, "the burst's own queue holds 20, and 2 go at once");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_each_tenants_own_and_come_back_with_time() {
    let house = House::with(|spec| {
        let rate = Some(Rate { per_second: 10.0, burst: 2 });
        spec.plan.limits.tenant = TenantLimits { rate, ..TenantLimits::default() };
        let more = Some(Rate { per_second: 10.0, burst: 4 });
        spec.plan.limits.tenants.insert("big".into(), TenantLimits { rate: more, ..TenantLimits::default() });
    })
    .await;
    let passed = async |tenant, count| {
        let asked = join_all((0..count).map(|_| house.ask_as(tenant))).await;
        asked.iter().filter(|asked| asked.is_ok()).count()
    };
    assert_eq!((passed("a", 5).await, passed("b", 5).await, passed("big", 5).await), (2, 2, 4));
    let refused = house.ask_as("a").await.unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::RateLimited, Some(Duration::from_millis(100))));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(passed("a", 5).await, 1);
}
