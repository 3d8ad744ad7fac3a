//! Many at once, in real time: everybody sees one whole plan, everything is counted, nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mainstay_base::{Random, SeededRandom};
use mainstay_traffic::*;

use crate::support::*;

const TASKS: u64 = 8;
const REQUESTS: u64 = 400;

/// Odd versions go to `a`, even ones to `b`.
fn plan(version: u64) -> Plan {
    let mut plan = Plan::of(if version % 2 == 1 { "a" } else { "b" });
    plan.limits = PathLimits { concurrency: 3, queue: 2, queue_timeout_ms: 2, ..PathLimits::default() };
    plan.breaker.consecutive = 0;
    plan.mirrors = serde_json::from_str(r#"[{"variant": "c", "percent": 20, "compare": {}}]"#).expect("a mirror");
    plan
}

async fn ask_often(house: Arc<House>, seed: u64, asked: Arc<AtomicU64>) {
    let random = SeededRandom::new(seed);
    for _ in 0..REQUESTS {
        asked.fetch_add(1, Ordering::SeqCst);
        let within_ms = [1, 5, 1_000][random.number() as usize % 3];
        let labels = match house.ask_within(within_ms).await {
            Ok(served) => served.labels,
            Err(refused) => *refused.labels,
        };
        let expect = if labels.plan_version % 2 == 1 { "a" } else { "b" };
        assert_eq!(labels.variant.as_deref(), Some(expect), "of plan {}", labels.plan_version);
        if random.number().is_multiple_of(8) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_change_under_load_and_nothing_is_lost_or_mixed() {
    let house = Arc::new(House::with(|spec| spec.plan = plan(1)).await);
    house.backend("a").does(Do::AnswerAfter(1));
    house.backend("b").does(Do::Answer(0.25));
    house.backend("c").does(Do::AnswerAfter(1));
    let (asked, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let asking: Vec<_> = (0..TASKS).map(|seed| tokio::spawn(ask_often(house.clone(), seed, asked.clone()))).collect();
    let swapping = tokio::spawn({
        let (house, is_over) = (house.clone(), is_over.clone());
        async move {
            let mut version = 1;
            while !is_over.load(Ordering::SeqCst) {
                let next = NewPlan::Plan(Box::new(plan(version + 1)));
                version = house.traffic.swap("e", next, version, reason()).await.expect("nobody else swaps").version;
            }
            version
        }
    });
    for task in asking {
        task.await.expect("no request panics");
    }
    is_over.store(true, Ordering::SeqCst);
    let version = swapping.await.expect("it ends");
    assert!(version > 5, "only {version} plans");
    assert_eq!(house.plan().0, version);
    assert_eq!(house.counted(None, false).requests, asked.load(Ordering::SeqCst));
    assert_eq!(house.traffic.status("e").expect("it is there").load, Load::default());
    let under_way = |variant| house.backend(variant).under_way.load(Ordering::SeqCst);
    eventually(|| ["a", "b", "c"].into_iter().all(|variant| under_way(variant) == 0)).await;
}
