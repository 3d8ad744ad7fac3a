//! Answers in parts: no waiting for the whole, nobody stands in behind the first part, everything is given back.

use std::time::Duration;

use futures::stream::StreamExt;
use http::HeaderMap;
use mainstay_traffic::*;
use tokio::time::Instant;

use crate::support::*;

async fn ask(house: &House) -> Result<ServedStream, Refused> {
    let headers = HeaderMap::new();
    house.traffic.infer_stream("e", Caller::new(&headers), request()).await
}

#[tokio::test(start_paused = true)]
async fn parts_come_as_they_are_made() {
    let house = House::with(|_| {}).await;
    house.backend("a").first(&[Do::AnswerAfter(10), Do::AnswerAfter(20), Do::AnswerAfter(30)]);
    let began = Instant::now();
    let stream = ask(&house).await.unwrap();
    assert_eq!((&*stream.labels.model, began.elapsed().as_millis()), ("models:/a/1", 10));
    let times: Vec<u128> = stream.parts.map(|part| part.map(|_| began.elapsed().as_millis()).unwrap()).collect().await;
    assert_eq!(times, [10, 30, 60]);
    let counted = house.counted(Some("a"), false);
    let (first, whole) = (counted.first_part_us.quantile(0.5).unwrap(), counted.latency_us.quantile(0.5).unwrap());
    assert!((first - 10_000.0).abs() < 300.0 && (whole - 60_000.0).abs() < 1_500.0, "{first} {whole}");
    assert_eq!(house.traffic.status("e").unwrap().load, Load::default());
}

#[tokio::test(start_paused = true)]
async fn until_the_first_part_it_is_tried_again() {
    let house = House::with(|spec| spec.plan.retry.retries = 1).await;
    house.backend("a").first(&[Do::Fail]);
    let stream = ask(&house).await.unwrap();
    assert_eq!((stream.labels.retries, house.backend("a").calls()), (1, 2));
    assert_eq!(stream.parts.count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn until_the_first_part_somebody_may_stand_in() {
    let house = House::with(|spec| spec.plan.answer = Some(FixedAnswer { label: "f".into(), outputs: vec![] })).await;
    house.backend("a").first(&[Do::FailForGood]);
    let stream = ask(&house).await.unwrap();
    assert_eq!(stream.labels.fallback.as_ref().map(|fallback| fallback.why), Some(Why::Failed));
    assert_eq!(stream.parts.count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn behind_the_first_part_a_failure_ends_the_stream() {
    let house = House::with(|spec| spec.plan.answer = Some(FixedAnswer { label: "f".into(), outputs: vec![] })).await;
    house.backend("a").first(&[Do::Answer(0.5), Do::FailForGood, Do::Answer(0.5)]);
    let parts: Vec<_> = ask(&house).await.unwrap().parts.collect().await;
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1].as_ref().unwrap_err().why, Why::Failed);
    assert_eq!(house.counted(Some("a"), false).failures.get(&Why::Failed), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_must_not_be_seen_is_not() {
    let house = House::with(|_| {}).await;
    house.backend("a").first(&[Do::Answer(0.5), Do::Answer(f64::NAN)]);
    let parts: Vec<_> = ask(&house).await.unwrap().parts.collect().await;
    assert_eq!(parts[1].as_ref().unwrap_err().why, Why::BadAnswer);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline() {
    let house = House::with(|spec| spec.plan.limits.timeout_ms = 500).await;
    house.backend("a").first(&[Do::Answer(0.5), Do::Hang]);
    let began = Instant::now();
    let parts: Vec<_> = ask(&house).await.unwrap().parts.collect().await;
    assert_eq!((parts[1].as_ref().unwrap_err().why, began.elapsed()), (Why::Deadline, Duration::from_millis(500)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_gives_everything_back() {
    let house = House::with(|_| {}).await;
    house.backend("a").first(&[Do::Answer(0.5), Do::Hang]);
    let mut stream = ask(&house).await.unwrap();
    assert!(stream.parts.next().await.unwrap().is_ok());
    assert_eq!(house.traffic.status("e").unwrap().load.active, 1, "a slot is held as long as the stream");
    drop(stream);
    assert_eq!(house.traffic.status("e").unwrap().load, Load::default());
    assert_eq!(house.counted(Some("a"), false).cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_lets_no_stream_through() {
    let house = House::with(|_| {}).await;
    for _ in 0..5 {
        house.backend("a").first(&[Do::FailForGood]);
        assert!(ask(&house).await.is_err());
    }
    assert_eq!(ask(&house).await.err().map(|refused| refused.why), Some(Why::BreakerOpen));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_over_holds_nothing_however_long_it_is_kept() {
    let house = House::with(|spec| spec.plan.limits.timeout_ms = 500).await;
    for steps in [&[][..], &[Do::Answer(0.5)], &[Do::Answer(0.5), Do::Hang]] {
        house.backend("a").first(steps);
        let mut stream = ask(&house).await.unwrap();
        while stream.parts.next().await.is_some() {}
        assert!(stream.parts.next().await.is_none());
        assert_eq!(house.traffic.status("e").unwrap().load, Load::default());
    }
}
