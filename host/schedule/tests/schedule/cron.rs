//! Cron around daylight saving, against croniter and zoneinfo (`data/cron_expectations.py`), as the scheduler fires it.

use mainstay_schedule::{Backfill, CatchUp, Trigger};
use serde::Deserialize;

use futures::executor::block_on;

use crate::support::{apply, scheduler};

#[derive(Deserialize)]
struct Case {
    zone: String,
    pattern: String,
    from: i64,
    to: i64,
    expect: Vec<i64>,
}

#[test]
fn occurrences_are_those_of_an_independent_library() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../data/cron.json")).unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let (scheduler, _) = scheduler(case.to * 1_000);
        apply(&scheduler, "c", |job| {
            job.catch_up = CatchUp::None;
            job.triggers = vec![Trigger::Cron { expression: case.pattern.clone(), time_zone: case.zone.clone() }];
        });
        let wanted = Backfill {
            job: "c".into(),
            from_ms: case.from * 1_000,
            to_ms: case.to * 1_000,
            limit: 1_000,
            dry_run: true,
        };
        let found = block_on(scheduler.backfill(&wanted)).unwrap();
        let found: Vec<i64> = found.occurrences.iter().map(|each| each.scheduled_ms / 1_000).collect();
        assert_eq!(found, case.expect, "`{}` in {} from {}", case.pattern, case.zone, case.from);
    }
}
