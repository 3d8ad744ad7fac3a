//! Injected faults: what they do on the way of a request, and how they end.

use std::time::Duration;

use mainstay_traffic::*;
use tokio::time::{Instant, sleep};

use crate::support::*;

fn fault(effect: Effect) -> Fault {
    Fault {
        name: "f".into(),
        variant: None,
        when: Vec::new(),
        percent: 100.0,
        effect,
        from_ms: None,
        until_ms: START_MS + 60_000,
        stop: None,
        dry_run: false,
    }
}

async fn house(change: impl FnOnce(&mut Fault), effect: Effect) -> House {
    let house = House::with(|_| {}).await;
    let mut fault = fault(effect);
    change(&mut fault);
    house.traffic.inject("e", fault, reason()).await.unwrap();
    house
}

fn report(house: &House) -> FaultReport {
    house.traffic.status("e").unwrap().faults[0].clone()
}

#[tokio::test(start_paused = true)]
async fn latency_is_added_until_the_end_time() {
    let house = house(|_| {}, Effect::LatencyMs(500)).await;
    let took = async || {
        let began = Instant::now();
        house.ask().await.unwrap();
        began.elapsed()
    };
    assert_eq!(took().await, Duration::from_millis(500));
    assert_eq!(house.ask().await.unwrap().labels.faults, ["f".into()]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(took().await, Duration::ZERO);
    assert!(!report(&house).is_active);
}

#[tokio::test(start_paused = true)]
async fn injected_errors_take_the_way_of_real_ones() {
    let house = house(|fault| fault.variant = Some("a".into()), Effect::Error("on purpose".into())).await;
    assert_eq!(house.whys(5).await, [Some(Why::Failed); 5]);
    assert_eq!(house.ask().await.unwrap_err().why, Why::BreakerOpen);
    assert_eq!(house.backend("a").calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_another_variant_hits_nobody_here() {
    let house = house(|fault| fault.variant = Some("b".into()), Effect::Error("on purpose".into())).await;
    assert_eq!(house.whys(5).await, [None; 5]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_the_request_without_retry_or_fallback() {
    let house = house(|_| {}, Effect::Abort(503)).await;
    let refused = house.ask().await.unwrap_err();
    assert_eq!((refused.why, refused.status, house.backend("a").calls()), (Why::Aborted, Some(503), 0));
    assert_eq!(refused.labels.faults, ["f".into()]);
}

#[tokio::test(start_paused = true)]
async fn saturation_takes_slots_away() {
    let house = house(|_| {}, Effect::Saturation(256)).await;
    assert_eq!(house.ask().await.unwrap_err().why, Why::Overloaded);
    house.traffic.withdraw("e", "f", reason()).await.unwrap();
    assert!(house.ask().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_only_counts() {
    let house = house(|fault| fault.dry_run = true, Effect::Abort(500)).await;
    assert_eq!(house.whys(7).await, [None; 7]);
    assert_eq!(report(&house).hits, 7);
}

#[tokio::test(start_paused = true)]
async fn a_fault_stops_itself_when_too_much_fails() {
    let stop = StopRule { percent: 10.0, window_ms: 60_000, minimum: 10 };
    let house = house(|fault| fault.stop = Some(stop), Effect::Abort(500)).await;
    let whys = house.whys(20).await;
    assert_eq!(whys[..10], [Some(Why::Aborted); 10]);
    assert_eq!(whys[10..], [None; 10]);
    assert!(report(&house).has_stopped);
    assert!(house.news().await.iter().any(|news| matches!(news, Changed::FaultStopped { .. })));
}

#[tokio::test(start_paused = true)]
async fn headers_inject_only_for_callers_with_the_right() {
    let house = House::with(|_| {}).await;
    let abort = |headers: &mut http::HeaderMap| {
        headers.insert("x-envoy-fault-abort-request", "504".parse().unwrap());
        headers.insert("x-envoy-fault-delay-request", "100".parse().unwrap());
    };
    let began = Instant::now();
    let refused = house.ask_with(abort).await.unwrap_err();
    assert_eq!((refused.why, refused.status), (Why::Aborted, Some(504)));
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    let mut headers = http::HeaderMap::new();
    abort(&mut headers);
    assert!(house.traffic.infer("e", Caller::new(&headers), request()).await.is_ok());
    assert_eq!(began.elapsed(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_after_now_and_within_a_day() {
    let house = House::with(|_| {}).await;
    let inject = |until_ms| {
        let fault = Fault { until_ms, ..fault(Effect::LatencyMs(1)) };
        house.traffic.inject("e", fault, reason())
    };
    let day = limits::FAULT_MS_MAX as i64;
    assert!(inject(START_MS).await.is_err());
    assert!(inject(START_MS + day + 1).await.is_err());
    inject(START_MS + day).await.unwrap();
    assert_eq!(house.traffic.show("e").unwrap().spec.faults.len(), 1);
    assert!(house.traffic.withdraw("e", "g", reason()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_fault_has_done_is_not_forgotten_by_another_change() {
    let house = house(|fault| fault.dry_run = true, Effect::Abort(500)).await;
    house.whys(3).await;
    house.traffic.swap("e", NewPlan::Plan(Box::new(Plan::of("b"))), 1, reason()).await.unwrap();
    assert_eq!(report(&house).hits, 3);
}
