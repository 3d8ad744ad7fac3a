//! Power that fails while plans change: each change is there as a whole or not at all, and what was acknowledged is there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Random, SeededRandom, SimDisk};
use mainstay_store::{EngineKind, Store, StoreOptions};
use mainstay_traffic::*;

use crate::support::*;

const SEEDS: u64 = 60;
const STEPS: u64 = 6;

fn open(disk: &SimDisk) -> Store {
    let options = StoreOptions {
        folder: Some(PathBuf::from("data")),
        engine: EngineKind::Memory,
        disk: Arc::new(disk.clone()),
        apply_interval: Duration::from_secs(3_600),
        ..StoreOptions::default()
    };
    Store::open(options).expect("the store opens")
}

/// The plan of a version, recognizable.
fn plan(version: u64) -> NewPlan {
    let mut plan = Plan::of("a");
    plan.limits.timeout_ms = version;
    NewPlan::Plan(Box::new(plan))
}

#[tokio::test]
async fn a_plan_is_swapped_as_a_whole_or_not_at_all_when_the_power_fails() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let (disk, random) = (SimDisk::new(), SeededRandom::new(seed));
        let house = House::on(open(&disk), Arc::default()).await;
        house.apply(spec(|spec| spec.plan.limits.timeout_ms = 1)).await;
        disk.cut_power_after(random.number() % 12);
        let mut acknowledged = 1;
        for version in 2..2 + STEPS {
            match house.traffic.swap("e", plan(version), version - 1, reason()).await {
                Ok(swapped) => acknowledged = swapped.version,
                Err(_) => break,
            }
        }
        // What could not be committed is not active either.
        assert_eq!(house.plan().0, acknowledged, "seed {seed}");
        let again = House::on(open(&disk.after_crash(seed)), Arc::default()).await;
        let found = again.traffic.show("e").unwrap().active;
        assert!((acknowledged..=acknowledged + 1).contains(&found.version), "seed {seed}: {}", found.version);
        let history = again.traffic.history("e", None, 100).unwrap().plans;
        let versions: Vec<u64> = history.iter().map(|plan| plan.version).collect();
        assert_eq!(versions, (1..=found.version).rev().collect::<Vec<_>>(), "seed {seed}");
        assert!(history.iter().all(|plan| plan.plan.limits.timeout_ms == plan.version), "seed {seed}");
        assert_eq!(history[0], found, "seed {seed}");
        lost += u64::from(acknowledged < 1 + STEPS);
    }
    assert!(lost > SEEDS / 4, "the power failed in only {lost} of {SEEDS} runs");
}

#[tokio::test]
async fn a_plan_that_cannot_be_kept_is_not_active() {
    let disk = SimDisk::new();
    let house = House::on(open(&disk), Arc::default()).await;
    house.apply(spec(|_| {})).await;
    disk.cut_power_after(0);
    house.traffic.swap("e", plan(2), 1, reason()).await.unwrap_err();
    assert_eq!(house.plan(), (1, None));
    assert!(house.ask().await.is_ok());
}
