//! The way of a request when things go wrong on it: breakers, deadlines, retries, guards, callers who go away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_traffic::*;
use tokio::time::{Instant, sleep, timeout};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn five_failures_open_the_breaker_and_a_probe_closes_it() {
    let house = House::with(|_| {}).await;
    house.backend("a").does(Do::FailForGood);
    assert_eq!(house.whys(5).await, [Some(Why::Failed); 5]);
    let refused = house.ask().await.unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::BreakerOpen, Some(Duration::from_secs(30))));
    assert_eq!(house.backend("a").calls(), 5, "an open breaker asks nobody");
    house.backend("a").does(Do::Answer(0.5));
    sleep(Duration::from_secs(30)).await;
    assert!(house.ask().await.is_ok());
    assert_eq!(house.breaker("a"), BreakerState::Closed);
    let news = house.news().await;
    let of = |news: &Changed| match news {
        Changed::BreakerOpened { .. } => Some("opened"),
        Changed::BreakerHalfOpened { .. } => Some("half-opened"),
        Changed::BreakerClosed { .. } => Some("closed"),
        _ => None,
    };
    assert_eq!(news.iter().filter_map(of).collect::<Vec<_>>(), ["opened", "half-opened", "closed"]);
}

/// Envoy #2671: the only host of a cluster still got traffic while it was ejected.
#[tokio::test(start_paused = true)]
async fn envoy_2671_the_only_variant_gets_nothing_while_its_breaker_is_open() {
    let house = House::with(|_| {}).await;
    house.backend("a").does(Do::FailForGood);
    house.whys(5).await;
    assert_eq!(house.whys(200).await, [Some(Why::BreakerOpen); 200]);
    assert_eq!(house.backend("a").calls(), 5);
}

/// resilience4j #935: a cancelled caller kept the probe's permit.
#[tokio::test(start_paused = true)]
async fn resilience4j_935_a_caller_who_goes_away_gives_the_probe_back() {
    let house = House::with(|_| {}).await;
    house.backend("a").does(Do::FailForGood);
    house.whys(5).await;
    sleep(Duration::from_secs(30)).await;
    house.backend("a").does(Do::Hang);
    assert!(timeout(Duration::from_secs(1), house.ask()).await.is_err());
    house.backend("a").does(Do::Answer(0.5));
    assert!(house.ask().await.is_ok());
    assert_eq!(house.breaker("a"), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_sender_of_a_senseless_request_opens_no_breaker() {
    let house = House::with(|spec| spec.plan.answer = Some(FixedAnswer { label: "f".into(), outputs: vec![] })).await;
    house.backend("a").does(Do::Refuse);
    assert_eq!(house.whys(20).await, [Some(Why::Invalid); 20], "nothing stands in for sense either");
    assert_eq!(house.breaker("a"), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn bad_answers_are_not_seen_and_open_the_breaker() {
    let house = House::with(|_| {}).await;
    house.backend("a").does(Do::Answer(f64::NAN));
    let refused = house.ask().await.unwrap_err();
    assert_eq!(refused.why, Why::BadAnswer);
    assert!(refused.error.message().contains("`score`"), "{refused}");
    house.whys(4).await;
    assert_eq!(house.breaker("a"), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn constant_answers_open_the_breaker() {
    let house = House::with(|spec| {
        let rule = r#"{"output": "score", "constant-after": 3}"#;
        spec.variants[0].guard.outputs = vec![serde_json::from_str(rule).unwrap()];
    })
    .await;
    let headers = http::HeaderMap::new();
    let mut whys = Vec::new();
    for number in 0..9 {
        let mut request = request();
        request.inputs = vec![fp64("x", f64::from(number))];
        let asked = house.traffic.infer("e", Caller::new(&headers), request).await;
        whys.push(asked.err().map(|refused| refused.why));
    }
    let (bad, open) = (Some(Why::BadAnswer), Some(Why::BreakerOpen));
    assert_eq!(whys, [None, None, bad, bad, bad, bad, bad, open, open]);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_open_the_breaker_where_the_policy_says_so() {
    let house = House::with(|spec| spec.plan.breaker.slower_than_ms = Some(100)).await;
    house.backend("a").does(Do::AnswerAfter(150));
    assert_eq!(house.whys(6).await, [None, None, None, None, None, Some(Why::BreakerOpen)]);
}

#[tokio::test(start_paused = true)]
async fn a_variants_own_policy_goes_before_the_plans() {
    let own = BreakerPolicy { consecutive: 2, ..BreakerPolicy::default() };
    let house = House::with(|spec| spec.variants[0].breaker = Some(own)).await;
    house.backend("a").does(Do::FailForGood);
    assert_eq!(house.whys(3).await, [Some(Why::Failed), Some(Why::Failed), Some(Why::BreakerOpen)]);
}

// ---- deadlines ----

#[tokio::test(start_paused = true)]
async fn the_deadline_is_the_smaller_of_the_callers_and_the_plans_and_travels() {
    let house = House::with(|spec| spec.plan.limits.timeout_ms = 1_000).await;
    let left = async |ms| {
        house.ask_within(ms).await.unwrap();
        house.backend("a").time_left.lock().unwrap().unwrap().as_millis()
    };
    assert_eq!(left(400).await, 400);
    assert_eq!(left(5_000).await, 1_000);
    house.backend("a").does(Do::Hang);
    let began = Instant::now();
    assert_eq!(house.ask_within(400).await.unwrap_err().why, Why::Deadline);
    assert_eq!(began.elapsed().as_millis(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_a_hurry_opens_no_breaker() {
    let house = House::with(|_| {}).await;
    house.backend("a").does(Do::AnswerAfter(80));
    for _ in 0..20 {
        assert_eq!(house.ask_within(10).await.unwrap_err().why, Why::Deadline);
    }
    assert!(house.ask().await.is_ok());
    house.backend("a").does(Do::Hang);
    for _ in 0..5 {
        house.ask_within(150).await.unwrap_err();
    }
    assert_eq!(house.ask().await.unwrap_err().why, Why::BreakerOpen, "one that hangs does");
}

#[tokio::test(start_paused = true)]
async fn with_a_deadline_that_is_over_nobody_is_asked() {
    let house = House::with(|_| {}).await;
    assert_eq!(house.ask_within(0).await.unwrap_err().why, Why::Deadline);
    assert_eq!(house.backend("a").calls(), 0);
}

// ---- retries ----

#[tokio::test(start_paused = true)]
async fn what_may_be_tried_again_is_up_to_three_times() {
    let house = House::with(|spec| spec.plan.retry = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() }).await;
    house.backend("a").first(&[Do::Fail, Do::Fail]);
    let began = Instant::now();
    assert_eq!(house.ask().await.unwrap().labels.retries, 2);
    assert_eq!(began.elapsed(), Duration::from_millis(25 + 50));
    sleep(Duration::from_secs(60)).await;
    house.backend("a").does(Do::Fail);
    let refused = house.ask().await.unwrap_err();
    assert_eq!((refused.why, refused.labels.retries, house.backend("a").calls()), (Why::Failed, 3, 3 + 4));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_is_not() {
    let house = House::with(|spec| spec.plan.retry = RetryPolicy::default()).await;
    for does in [Do::FailForGood, Do::Refuse, Do::Answer(f64::NAN)] {
        house.backend("a").does(does);
        let before = house.backend("a").calls();
        assert_eq!(house.ask().await.unwrap_err().labels.retries, 0);
        assert_eq!(house.backend("a").calls(), before + 1, "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_tries_again_past_the_deadline() {
    let house = House::with(|spec| {
        spec.plan.retry = RetryPolicy { base_ms: 300, jitter: 0.0, ..RetryPolicy::default() };
    })
    .await;
    house.backend("a").does(Do::Fail);
    let began = Instant::now();
    let refused = house.ask_within(500).await.unwrap_err();
    assert_eq!((refused.why, refused.labels.retries), (Why::Failed, 1), "the second would begin after 900 ms");
    assert!(began.elapsed() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn nobody_tries_again_once_the_breaker_is_open() {
    let house = House::with(|spec| {
        spec.plan.retry = RetryPolicy::default();
        spec.plan.breaker.consecutive = 2;
    })
    .await;
    house.backend("a").does(Do::Fail);
    assert_eq!(house.ask().await.unwrap_err().labels.retries, 1);
    assert_eq!(house.backend("a").calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn retries_of_all_requests_stay_within_their_budget() {
    let house = House::with(|spec| {
        spec.plan.retry = RetryPolicy { base_ms: 1, budget_percent: 10.0, budget_minimum: 2, ..RetryPolicy::default() };
        spec.plan.breaker.consecutive = 0;
    })
    .await;
    house.backend("a").does(Do::Fail);
    for _ in 0..100 {
        house.ask().await.unwrap_err();
    }
    assert_eq!(house.backend("a").calls(), 100 + 10);
}

// ---- callers who go away ----

/// In real time: a backend must not go on for a caller who has gone.
#[tokio::test]
async fn a_backend_is_cancelled_within_50_ms_when_the_caller_goes_away() {
    let house = House::with(|_| {}).await;
    let backend = house.backend("a");
    backend.does(Do::Hang);
    let traffic = house.traffic.clone();
    let asking = tokio::spawn(async move {
        let headers = http::HeaderMap::new();
        traffic.infer("e", Caller::new(&headers), request()).await.map(|_| ())
    });
    eventually(|| backend.under_way.load(Ordering::SeqCst) == 1).await;
    let began = std::time::Instant::now();
    asking.abort();
    eventually(|| backend.cancelled() == 1).await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(house.counted(Some("a"), false).cancelled, 1);
    assert_eq!(house.traffic.status("e").unwrap().load, Load::default());
}

#[tokio::test(start_paused = true)]
async fn attempts_have_a_time_of_their_own() {
    let house = House::with(|spec| spec.plan.limits.attempt_timeout_ms = Some(200)).await;
    house.backend("a").does(Do::Hang);
    let began = Instant::now();
    assert_eq!(house.ask().await.unwrap_err().why, Why::Deadline);
    assert_eq!(began.elapsed(), Duration::from_millis(200));
    assert_eq!(house.backend("a").cancelled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_can_be_opened_for_what_another_host_found_out() {
    let house = House::with(|_| {}).await;
    house.traffic.open_breaker("e", "a", 5_000, "another host").unwrap();
    assert_eq!(house.ask().await.unwrap_err().why, Why::BreakerOpen);
    sleep(Duration::from_secs(5)).await;
    assert!(house.ask().await.is_ok());
    assert!(house.traffic.open_breaker("e", "z", 5_000, "another host").is_err());
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_counted_by_variant_and_why() {
    let house = House::with(|spec| spec.plan.breaker.consecutive = 2).await;
    house.backend("a").first(&[Do::Answer(0.25), Do::AnswerAfter(200), Do::FailForGood, Do::FailForGood]);
    house.whys(5).await;
    for window in [house.counted(Some("a"), false), house.counted(None, false)] {
        assert_eq!(window.requests, 5);
        assert_eq!(window.failures.into_iter().collect::<Vec<_>>(), [(Why::BreakerOpen, 1), (Why::Failed, 2)]);
        assert_eq!(window.scores.count(), 2);
        let slowest = window.latency_us.quantile(1.0).unwrap();
        assert!((196_000.0..=204_000.0).contains(&slowest), "{slowest}");
    }
}
