//! The fallback chain: its order, its deadlines, its labels, and what is refused.

use std::time::Duration;

use mainstay_base::ErrorKind;
use mainstay_traffic::*;
use tokio::time::Instant;

use crate::support::*;

fn by(by: Stand, timeout_ms: u64) -> Tier {
    Tier { by, timeout_ms }
}

fn fixed() -> FixedAnswer {
    let answer = r#"{"outputs": [{"name": "score", "datatype": "FP64", "shape": [1], "data": [0.125]}]}"#;
    serde_json::from_str(answer).unwrap()
}

/// Fallbacks `popular`, then the variant `b`, then a fixed answer.
async fn house(popular: Do) -> House {
    let house = House::new().await;
    house.fallback("popular", popular, None);
    house
        .apply(spec(|spec| {
            let tiers = [by(Stand::Named("popular".into()), 40), by(Stand::Variant("b".into()), 60)];
            (spec.plan.fallbacks, spec.plan.answer) = (tiers.into(), Some(fixed()));
        }))
        .await;
    house.backend("a").does(Do::FailForGood);
    house
}

fn fallback(served: &Served) -> (u32, &str, Why) {
    let fallback = served.labels.fallback.as_ref().expect("a fallback");
    (fallback.tier, &fallback.label, fallback.why)
}

#[tokio::test(start_paused = true)]
async fn the_first_tier_that_answers_does_and_says_so() {
    let house = house(Do::Answer(0.75)).await;
    let served = house.ask().await.unwrap();
    assert_eq!((fallback(&served), score(&served)), ((0, "popular", Why::Failed), 0.75));
    assert_eq!(served.labels.variant.as_deref(), Some("a"), "the variant that it stands in for");
    assert_eq!(house.backend("b").calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_fails_or_is_bad_is_passed_over() {
    for does in [Do::Fail, Do::Answer(f64::NAN)] {
        let house = house(does).await;
        let served = house.ask().await.unwrap();
        assert_eq!(fallback(&served), (1, "b", Why::Failed));
        assert_eq!(&*served.labels.model, "models:/b/1");
    }
}

#[tokio::test(start_paused = true)]
async fn each_tier_has_its_own_deadline_and_the_fixed_answer_comes_last() {
    let house = house(Do::Hang).await;
    house.backend("b").does(Do::Hang);
    let began = Instant::now();
    let served = house.ask().await.unwrap();
    assert_eq!((fallback(&served), score(&served)), ((2, "fixed", Why::Failed), 0.125));
    assert_eq!(began.elapsed(), Duration::from_millis(40 + 60));
    assert_eq!(house.backend("b").cancelled(), 1);
}

#[tokio::test(start_paused = true)]
async fn time_is_kept_back_for_the_chain_when_the_variant_hangs() {
    let house = house(Do::Answer(0.75)).await;
    house.backend("a").does(Do::Hang);
    let began = Instant::now();
    assert_eq!(fallback(&house.ask_within(1_000).await.unwrap()), (0, "popular", Why::Deadline));
    assert_eq!(began.elapsed(), Duration::from_millis(900));
    assert_eq!(fallback(&house.ask_within(100).await.unwrap()).2, Why::Deadline);
    assert_eq!(began.elapsed(), Duration::from_millis(950), "at most half is kept back");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_stood_in_for() {
    let house = house(Do::Answer(0.75)).await;
    house.whys(5).await;
    assert_eq!(fallback(&house.ask().await.unwrap()).2, Why::BreakerOpen);
    assert_eq!(house.backend("a").calls(), 5);
    let counted = house.counted(Some("a"), false);
    assert_eq!((counted.fallbacks, counted.failed()), (6, 6));
    assert_eq!(counted.scores.count(), 0, "a fallback's score is not the variant's");
}

#[tokio::test(start_paused = true)]
async fn without_a_tier_that_answers_the_caller_learns_why_the_variant_did_not() {
    let house = house(Do::Fail).await;
    house
        .apply(spec(|spec| {
            spec.plan.fallbacks = vec![by(Stand::Named("popular".into()), 40)];
        }))
        .await;
    let refused = house.ask().await.unwrap_err();
    assert_eq!((refused.why, refused.error.message()), (Why::Failed, "told to fail for good"));
}

#[tokio::test(start_paused = true)]
async fn overload_is_stood_in_for_only_where_the_plan_says_so() {
    let run = async |causes: Vec<Why>| {
        let house = House::with(|spec| {
            (spec.plan.limits.concurrency, spec.plan.limits.queue) = (1, 0);
            (spec.plan.answer, spec.plan.fall_back_on) = (Some(fixed()), causes);
        })
        .await;
        house.backend("a").does(Do::AnswerAfter(10));
        let (first, second) = tokio::join!(house.ask(), house.ask());
        assert!(first.is_ok());
        second.map(|served| fallback(&served).2).map_err(|refused| refused.why)
    };
    assert_eq!(run(vec![Why::Failed]).await, Err(Why::Overloaded));
    assert_eq!(run(vec![Why::Overloaded]).await, Ok(Why::Overloaded));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_shares_the_primarys_resource_is_refused() {
    let house = House::new().await;
    let refused = async |spec: EndpointSpec| {
        let error = house.traffic.apply(spec, None, reason()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains("both would fail together"), "{error}");
    };
    let tier = |spec: &mut EndpointSpec, stand: Stand| spec.plan.fallbacks = vec![by(stand, 50)];
    // The primary itself, one with the same backend, one with the same named resource.
    refused(spec(|spec| tier(spec, Stand::Variant("a".into())))).await;
    refused(spec(|spec| {
        spec.variants[1].backend = "models:/a/1".parse().unwrap();
        tier(spec, Stand::Variant("b".into()));
    }))
    .await;
    refused(spec(|spec| {
        (spec.variants[0].resource, spec.variants[1].resource) = (Some("gpu-1".into()), Some("gpu-1".into()));
        tier(spec, Stand::Variant("b".into()));
    }))
    .await;
    // What backends and fallbacks say of themselves.
    *house.backend("a").shared.lock().unwrap() = Some("pool".into());
    house.fallback("popular", Do::Answer(0.0), Some("pool"));
    refused(spec(|spec| tier(spec, Stand::Named("popular".into())))).await;
    house.fallback("popular", Do::Answer(0.0), Some("cache"));
    house.apply(spec(|spec| tier(spec, Stand::Named("popular".into())))).await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_not_installed_is_refused() {
    let house = House::new().await;
    let spec = spec(|spec| spec.plan.fallbacks = vec![by(Stand::Named("none".into()), 50)]);
    let error = house.traffic.apply(spec, None, reason()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
