//! Publishing, reading, finding by time, and retention.

use futures::executor::block_on;
use mainstay_base::ErrorKind;
use mainstay_events::{Offset, Publication, Retention, Start, TraceContext};
use mainstay_store::Space;
use proptest::prelude::*;

use crate::support::{House, NONE, house, publication};

fn numbers(house: &House, topic: &str, after: Option<Offset>) -> Vec<u64> {
    let page = house.events.read(topic, after, 1_000).unwrap();
    page.events.iter().map(|event| std::str::from_utf8(&event.payload).unwrap().parse().unwrap()).collect()
}

#[test]
fn an_event_commits_with_what_causes_it_or_not_at_all() {
    let house = house();
    let space = Space::plugin("notes");
    let mut lost = house.store.begin(&house.store.view());
    lost.expect_present(&space, b"nothing").unwrap();
    house.events.add(&mut lost, publication("a", 1)).unwrap();
    assert_eq!(house.store.commit_blocking(lost).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(numbers(&house, "a", None), NONE);

    let mut kept = house.store.begin(&house.store.view());
    kept.put(&space, b"note", "v").unwrap();
    house.events.add(&mut kept, publication("a", 2)).unwrap();
    house.events.add(&mut kept, publication("b", 3)).unwrap();
    house.events.add(&mut kept, publication("a", 4)).unwrap();
    let receipt = house.store.commit_blocking(kept).unwrap();
    assert!(receipt.counters.is_empty(), "publishing adds nothing to the receipt");
    let read = house.events.read("a", None, 10).unwrap();
    let offsets: Vec<Offset> = read.events.iter().map(|event| event.offset).collect();
    let at = |operation| Offset { sequence: receipt.sequence, operation };
    assert_eq!(offsets, [at(1), at(3)]);
    assert_eq!(numbers(&house, "a", Some(at(1))), [4]);
}

#[test]
fn the_envelope_comes_back_as_it_was_given() {
    let house = house();
    let said = Publication {
        key: Some("model/7".into()),
        trace: Some(TraceContext {
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
            tracestate: Some("congo=t61rcWkgMzE".into()),
        }),
        ..Publication::json("a", "registry", "created", &serde_json::json!({"n": 1}))
    };
    block_on(house.events.publish(said.clone())).unwrap();
    let event = house.events.read("a", None, 1).unwrap().events.remove(0);
    assert_eq!(event.time_ms, 1_000_000);
    assert_eq!((event.key, event.trace, event.payload), (said.key, said.trace, said.payload));
    assert_eq!((event.publisher, event.kind, event.content_type), (said.publisher, said.kind, said.content_type));
}

#[test]
fn publications_at_once_never_conflict() {
    let house = house();
    let begun: Vec<_> = (0..20)
        .map(|number| {
            let mut transaction = house.store.begin(&house.store.view());
            house.events.add(&mut transaction, publication("a", number)).unwrap();
            transaction
        })
        .collect();
    for transaction in begun {
        house.store.commit_blocking(transaction).unwrap();
    }
    assert_eq!(numbers(&house, "a", None), (0..20).collect::<Vec<_>>());
}

#[test]
fn pages_are_bounded_and_topics_are_listed() {
    let house = house();
    house.publish("b/x", 0..5);
    house.publish("a", 5..6);
    block_on(house.events.set_retention("c", Retention::default())).unwrap();
    assert_eq!(house.events.topics().unwrap(), ["a", "b/x", "c"]);
    let page = house.events.read("b/x", None, 3).unwrap();
    assert_eq!((page.events.len(), page.is_more), (3, true));
    let rest = house.events.read("b/x", Some(page.events[2].offset), 3).unwrap();
    assert_eq!((rest.events.len(), rest.is_more), (2, false));
    assert_eq!(house.events.read("B", None, 1).unwrap_err().kind(), ErrorKind::Invalid);
}

fn maintain(house: &House, topic: &str) -> (u64, u64) {
    let (mut removed, mut lost) = (0, 0);
    loop {
        let step = block_on(house.events.maintain(topic)).unwrap();
        (removed, lost) = (removed + step.removed, lost + step.lost);
        if !step.is_more {
            return (removed, lost);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Against going through all of them, with clocks that jump, before and after the index is there.
    #[test]
    fn a_time_is_found_where_going_through_all_events_finds_it(
        steps in prop::collection::vec((-40i64..60, 1u64..90), 1..24),
        asked in prop::collection::vec(-200i64..1_500, 1..8),
        indexed_after in 0usize..24,
    ) {
        let house = house();
        let mut number = 0;
        for (place, (jump, count)) in steps.into_iter().enumerate() {
            house.clock.advance_ms(jump);
            let mut transaction = house.store.begin(&house.store.view());
            for _ in 0..count {
                house.events.add(&mut transaction, publication("a", number)).unwrap();
                number += 1;
            }
            house.store.commit_blocking(transaction).unwrap();
            if place == indexed_after {
                maintain(&house, "a");
            }
        }
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = house.events.read("a", after, 1_000).unwrap();
            all.extend(page.events);
            after = all.last().map(|event| event.offset);
            if !page.is_more {
                break;
            }
        }
        for asked in asked {
            let time_ms = 1_000_000 + asked;
            let expect = all.iter().find(|event| event.time_ms >= time_ms).map(|event| event.offset);
            let found = house.events.offset_at("a", time_ms).unwrap();
            let first = house.events.read("a", Some(found), 1).unwrap().events.pop().map(|event| event.offset);
            prop_assert_eq!(first, expect);
        }
    }
}

#[test]
fn what_is_too_old_or_too_much_goes_from_the_front() {
    let house = house();
    let keep = |age_ms, bytes| block_on(house.events.set_retention("a", Retention { age_ms, bytes })).unwrap();
    keep(1_000, 1 << 20);
    house.publish("a", 0..1_500);
    house.clock.advance_ms(600);
    house.publish("a", 1_500..1_700);
    assert_eq!(maintain(&house, "a"), (0, 0));
    let known = house.events.topic("a").unwrap().unwrap();
    assert_eq!((known.events, known.newest_ms), (1_700, Some(1_000_600)));
    house.clock.advance_ms(401);
    assert_eq!(maintain(&house, "a"), (1_500, 0));
    assert_eq!(numbers(&house, "a", None), (1_500..1_700).collect::<Vec<_>>());
    let known = house.events.topic("a").unwrap().unwrap();
    assert_eq!((known.events, known.removed), (200, 1_500));
    let each = known.bytes / known.events;
    keep(1_000, each * 50);
    assert_eq!(maintain(&house, "a"), (150, 0));
    assert_eq!(numbers(&house, "a", None), (1_650..1_700).collect::<Vec<_>>());
    let bad = house.events.set_retention("a", Retention { age_ms: 0, bytes: 1 });
    assert_eq!(block_on(bad).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_a_slow_subscription_loses_is_counted() {
    let house = house();
    block_on(house.events.set_retention("a", Retention { age_ms: 1_000, bytes: 1 << 30 })).unwrap();
    house.subscribe(&["a"], |_| ());
    house.publish("a", 0..10);
    let mut turn = house.claim("x").unwrap();
    let mut batch = house.batch(&mut turn).unwrap();
    for _ in 0..4 {
        batch.hand_out().unwrap();
        house.settle(&mut batch, Ok(())).unwrap();
    }
    house.keep(batch).unwrap();
    // Under way when its events go.
    let mut late = house.batch(&mut turn).unwrap();
    late.hand_out().unwrap();
    house.clock.advance_ms(900);
    house.publish("a", 10..12);
    house.clock.advance_ms(101);
    assert_eq!(maintain(&house, "a"), (10, 6));
    house.settle(&mut late, Ok(())).unwrap();
    assert_eq!(house.keep(late).unwrap_err().kind(), ErrorKind::Conflict, "its events are counted as lost already");
    assert_eq!(house.events.lag("s").unwrap()[0].position.lost, 6);
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), [10, 11], "nothing younger is lost");
}

#[test]
fn a_subscription_begins_and_is_moved_where_it_is_told() {
    let house = house();
    house.publish("a", 0..3);
    house.clock.advance_ms(10);
    house.publish("a", 3..6);
    let begin = |start, expect: &[u64]| {
        block_on(house.events.unsubscribe("s")).unwrap();
        house.subscribe(&["a"], |subscription| subscription.start = start);
        let mut turn = house.claim("x").unwrap();
        assert_eq!(house.deliver(&mut turn, |_| Ok(())), expect, "{start:?}");
    };
    begin(Start::Earliest, &[0, 1, 2, 3, 4, 5]);
    begin(Start::Latest, &[]);
    begin(Start::Time { time_ms: 1_000_010 }, &[3, 4, 5]);
    begin(Start::Time { time_ms: 1_000_011 }, &[]);
    let mut turn = house.claim("x").unwrap();
    block_on(house.events.seek("s", Some("a"), Start::Time { time_ms: 1_000_010 })).unwrap();
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), [3, 4, 5]);
    block_on(house.events.seek("s", None, Start::Earliest)).unwrap();
    assert_eq!(house.deliver(&mut turn, |_| Ok(())).len(), 6);
    let error = block_on(house.events.seek("s", Some("b"), Start::Earliest)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
