//! The watcher: told of what the plan samples, behind the answers.

use std::sync::Arc;

use http::HeaderMap;
use mainstay_traffic::*;

use crate::support::*;

fn watch(spec: &mut EndpointSpec, percent: f64) {
    spec.plan.watch = WatchSettings { percent, failed: true, slower_than_ms: Some(100) };
}

#[tokio::test(start_paused = true)]
async fn it_is_told_what_was_asked_and_answered_by_whom_for_whom() {
    let house = House::with(|spec| watch(spec, 100.0)).await;
    let (headers, tenant) = (HeaderMap::new(), Arc::from("acme"));
    let caller = Caller { tenant: Some(&tenant), trace: Some("00-1-2-01"), ..Caller::new(&headers) };
    house.traffic.infer("e", caller, request()).await.unwrap();
    settle().await;
    let told = house.watch.happened.lock().unwrap().pop().expect("it was told");
    assert_eq!((told.tenant.as_deref(), told.trace.as_deref()), (Some("acme"), Some("00-1-2-01")));
    assert_eq!((told.why, told.is_mirrored, told.labels.variant.as_deref()), (None, false, Some("a")));
    assert_eq!(*told.request, request());
    assert_eq!(told.answer.as_deref(), Some(&answer(0.5)));
}

#[tokio::test(start_paused = true)]
async fn failed_and_slow_requests_are_always_told() {
    let house = House::with(|spec| watch(spec, 0.0)).await;
    house.backend("a").first(&[Do::Answer(0.5), Do::AnswerAfter(150), Do::FailForGood]);
    house.whys(3).await;
    settle().await;
    let told = house.watch.happened.lock().unwrap();
    assert_eq!(told.iter().map(|told| told.why).collect::<Vec<_>>(), [None, Some(Why::Failed)]);
    assert_eq!(told[0].latency_us, 150_000);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_rest_is_told() {
    let house = House::with(|spec| watch(spec, 10.0)).await;
    for _ in 0..3_000 {
        house.ask().await.unwrap();
        tokio::task::yield_now().await;
    }
    settle().await;
    let told = house.watch.happened.lock().unwrap().len();
    // Five standard deviations of a binomial.
    assert!((218..=382).contains(&told), "{told}");
}

#[tokio::test(start_paused = true)]
async fn copies_are_told_as_such() {
    let house = House::with(|spec| {
        watch(spec, 100.0);
        spec.plan.mirrors = serde_json::from_str(r#"[{"variant": "b"}]"#).unwrap();
    })
    .await;
    house.ask().await.unwrap();
    settle().await;
    let told = house.watch.happened.lock().unwrap();
    let mut seen: Vec<_> = told.iter().map(|told| (told.is_mirrored, told.labels.variant.as_deref())).collect();
    seen.sort();
    assert_eq!(seen, [(false, Some("a")), (true, Some("b"))]);
}

struct Stuck(std::sync::mpsc::Receiver<()>);

/// A watcher that waits must not be waited for; a receiver is not `Sync`.
struct StuckWatch(std::sync::Mutex<Stuck>);

impl Watch for StuckWatch {
    fn happened(&self, _: Happened) {
        let _ = self.0.lock().unwrap().0.recv();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_is_stuck_loses_news_and_holds_nobody_up() {
    let (free, stuck) = std::sync::mpsc::channel();
    let traffic = Traffic::open(Foundation {
        store: mainstay_store::Store::in_memory(),
        clock: Arc::new(mainstay_base::SystemClock::default()),
        random: Arc::new(mainstay_base::SeededRandom::new(1)),
        backends: Arc::new(FakeBackends::default()),
        watch: Arc::new(StuckWatch(std::sync::Mutex::new(Stuck(stuck)))),
    });
    let traffic = traffic.await.unwrap();
    traffic.apply(spec(|spec| watch(spec, 100.0)), None, reason()).await.unwrap();
    let headers = HeaderMap::new();
    for _ in 0..limits::WATCH_QUEUE_MAX + 10 {
        traffic.infer("e", Caller::new(&headers), request()).await.unwrap();
    }
    let untold = traffic.untold();
    drop(free);
    assert!((9..=10).contains(&untold), "one is in the watcher's hands, the queue is full, the rest is lost: {untold}");
}
