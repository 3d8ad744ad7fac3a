//! Attempts, dead letters, leases, and effects that happen exactly once.

use futures::executor::block_on;
use mainstay_base::ErrorKind;
use mainstay_events::limits::{DEAD_LETTERS_AT_ONCE_MAX, DEAD_LETTERS_MAX, SUBSCRIPTIONS_MAX};
use mainstay_events::{Due, Offset, Settled, Start, Subscription};
use mainstay_store::Space;

use crate::support::{House, NONE, house, no, number};

fn dead(house: &House) -> Vec<(String, Offset)> {
    let page = house.events.dead_letters("s", None, 1_000).unwrap();
    page.letters.iter().map(|letter| (letter.event.topic.clone(), letter.event.offset)).collect()
}

#[test]
fn a_failing_event_is_tried_again_in_its_place_and_then_is_a_dead_letter() {
    let house = house();
    house.subscribe(&["a"], |_| ());
    house.publish("a", 0..4);
    let mut turn = house.claim("x").unwrap();
    let mut attempts = Vec::new();
    let mut answer = |delivery: &mainstay_events::Delivery| {
        let is_bad = number(delivery) == 1;
        if is_bad {
            attempts.push(delivery.attempt);
        }
        if is_bad { no() } else { Ok(()) }
    };
    assert_eq!(house.deliver(&mut turn, &mut answer), [0, 1]);
    let lag = house.events.lag("s").unwrap().remove(0);
    assert_eq!((lag.waiting, lag.position.failures, lag.position.not_before_ms), (3, 1, 1_000_100));
    assert_eq!(house.deliver(&mut turn, &mut answer), NONE, "it waits");
    house.clock.advance_ms(100);
    assert_eq!(house.deliver(&mut turn, &mut answer), [1]);
    house.clock.advance_ms(199);
    assert_eq!(house.deliver(&mut turn, &mut answer), NONE);
    house.clock.advance_ms(1);
    assert_eq!(house.deliver(&mut turn, &mut answer), [1, 2, 3], "then those behind it go on");
    assert_eq!(attempts, [1, 2, 3]);
    let letters = house.events.dead_letters("s", None, 10).unwrap().letters;
    assert_eq!((letters.len(), letters[0].failures, &letters[0].reason[..]), (1, 3, "no"));
    assert_eq!(house.events.dead_letter_count("s").unwrap(), 1);
}

#[test]
fn topics_do_not_wait_for_each_other() {
    let house = house();
    house.subscribe(&["a", "b"], |_| ());
    house.publish("a", 0..3);
    house.publish("b", 10..13);
    let mut turn = house.claim("x").unwrap();
    let mut seen = house.deliver(&mut turn, |delivery| if number(delivery) == 0 { no() } else { Ok(()) });
    seen.sort();
    assert_eq!(seen, [0, 10, 11, 12]);
}

#[test]
fn dead_letters_are_tried_again_or_dropped() {
    let house = house();
    house.subscribe(&["a"], |subscription| subscription.retry.attempts = 1);
    house.publish("a", 0..4);
    let mut turn = house.claim("x").unwrap();
    house.deliver(&mut turn, |_| no());
    let letters = dead(&house);
    assert_eq!(letters.len(), 4);
    block_on(house.events.drop_dead_letters("s", &letters[..1])).unwrap();
    // Twice the same is once.
    block_on(house.events.retry_dead_letters("s", &[letters[1].clone(), letters[1].clone()])).unwrap();
    let missing = block_on(house.events.drop_dead_letters("s", &[letters[2].clone(), letters[0].clone()]));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(house.events.dead_letter_count("s").unwrap(), 3, "and nothing of that call happened");
    let again = house.deliver(&mut turn, |delivery| {
        assert!(delivery.is_retried && delivery.attempt == 1);
        Ok(())
    });
    assert_eq!(again, [1]);
    block_on(house.events.retry_dead_letters("s", &letters[2..3])).unwrap();
    house.deliver(&mut turn, |_| no());
    assert_eq!(dead(&house), letters[2..]);
    assert_eq!(house.events.dead_letter_count("s").unwrap(), 2);
    let many = vec![letters[2].clone(); DEAD_LETTERS_AT_ONCE_MAX + 1];
    block_on(house.events.retry_dead_letters("s", &many)).expect("they are one letter");
    let many: Vec<_> = (0..=DEAD_LETTERS_AT_ONCE_MAX as u64).map(|n| ("a".to_owned(), Offset::end_of(n))).collect();
    let error = block_on(house.events.retry_dead_letters("s", &many)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = block_on(house.events.retry_dead_letters("s", &many[1..])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_full_house_of_dead_letters_holds_the_topic_and_loses_nothing() {
    let house = house();
    house.subscribe(&["a"], |subscription| subscription.retry.attempts = 1);
    let space = Space::host("events");
    let mut full = house.store.begin(&house.store.view());
    full.add(&space, b"cs", DEAD_LETTERS_MAX - 1).unwrap();
    house.store.commit_blocking(full).unwrap();
    house.publish("a", 0..2);
    let mut turn = house.claim("x").unwrap();
    house.deliver(&mut turn, |_| no());
    assert_eq!(house.events.dead_letter_count("s").unwrap(), DEAD_LETTERS_MAX, "one had room");
    let lag = house.events.lag("s").unwrap().remove(0);
    assert_eq!((lag.waiting, lag.position.failures), (1, 1));
    let mut room = house.store.begin(&house.store.view());
    room.add(&space, b"cs", -1).unwrap();
    house.store.commit_blocking(room).unwrap();
    house.clock.advance_ms(10_000);
    house.deliver(&mut turn, |_| no());
    assert_eq!(house.events.lag("s").unwrap()[0].waiting, 0);
}

#[test]
fn two_drivers_never_both_move_a_place() {
    let house = house();
    house.subscribe(&["a"], |_| ());
    house.publish("a", 0..2);
    let mut first = house.claim("x").unwrap();
    let mut batch = house.batch(&mut first).unwrap();
    assert_eq!(number(&batch.hand_out().unwrap()), 0);
    assert!(house.claim("y").is_none(), "x has it");
    house.clock.advance_ms(1_001);
    let mut second = house.claim("y").unwrap();
    assert!(second.token > first.token);
    assert!(!block_on(house.events.renew(&first, 1_000)).unwrap());
    house.settle(&mut batch, Ok(())).unwrap();
    assert_eq!(house.keep(batch).unwrap_err().kind(), ErrorKind::Conflict);
    assert!(matches!(house.events.due(&mut first).unwrap(), Due::Over));
    assert_eq!(house.deliver(&mut second, |_| Ok(())), [0, 1], "so it comes at least once");
    block_on(house.events.release(&first)).unwrap();
    assert!(house.claim("z").is_none(), "an old owner releases nothing");
    block_on(house.events.release(&second)).unwrap();
    assert!(house.claim("z").is_some());
}

#[test]
fn a_failure_counts_only_for_the_owner() {
    let house = house();
    house.subscribe(&["a"], |_| ());
    house.publish("a", 0..1);
    let mut first = house.claim("x").unwrap();
    let mut batch = house.batch(&mut first).unwrap();
    batch.hand_out().unwrap();
    house.clock.advance_ms(1_001);
    house.claim("y").unwrap();
    assert_eq!(house.settle(&mut batch, no()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(house.events.lag("s").unwrap()[0].position.failures, 0);
}

#[test]
fn an_effect_in_the_same_transaction_happens_exactly_once() {
    let house = house();
    let space = Space::plugin("effects");
    house.subscribe(&["a"], |_| ());
    house.publish("a", 0..3);
    let effect = |delivery: &mainstay_events::Delivery| {
        let mut transaction = house.store.begin(&house.store.view());
        transaction.add(&space, b"sum", 1).unwrap();
        delivery.ack_in(&mut transaction).unwrap();
        house.store.commit_blocking(transaction).map(|receipt| receipt.counters[0])
    };
    let mut first = house.claim("x").unwrap();
    let mut batch = house.batch(&mut first).unwrap();
    let delivery = batch.hand_out().unwrap();
    assert_eq!(effect(&delivery).unwrap(), 1);
    assert_eq!(effect(&delivery).unwrap_err().kind(), ErrorKind::Conflict, "the same again does nothing");
    // Its own commit counts, whatever it says afterwards.
    assert_eq!(house.settle(&mut batch, no()).unwrap(), Settled::Delivered);
    let delivery = batch.hand_out().unwrap();
    // The owner is gone before it reports; the next one goes on behind the effect.
    assert_eq!(effect(&delivery).unwrap(), 2);
    drop(batch);
    house.clock.advance_ms(1_001);
    let mut second = house.claim("y").unwrap();
    let mut batch = house.batch(&mut second).unwrap();
    let delivery = batch.hand_out().unwrap();
    assert_eq!(number(&delivery), 2);
    house.clock.advance_ms(1_001);
    house.claim("z").unwrap();
    assert_eq!(effect(&delivery).unwrap_err().kind(), ErrorKind::Conflict, "it is not this owner's any more");
    // Asked for and not committed: the answer counts.
    let mut third = house.claim("z").unwrap();
    let mut batch = house.batch(&mut third).unwrap();
    let delivery = batch.hand_out().unwrap();
    delivery.ack_in(&mut house.store.begin(&house.store.view())).unwrap();
    assert!(matches!(house.settle(&mut batch, no()).unwrap(), Settled::Retried { .. }));
}

#[test]
fn a_dead_letter_can_be_acknowledged_in_a_transaction_too() {
    let house = house();
    house.subscribe(&["a"], |subscription| subscription.retry.attempts = 1);
    house.publish("a", 0..1);
    let mut turn = house.claim("x").unwrap();
    house.deliver(&mut turn, |_| no());
    block_on(house.events.retry_dead_letters("s", &dead(&house))).unwrap();
    let mut batch = house.batch(&mut turn).unwrap();
    let delivery = batch.hand_out().unwrap();
    let mut transaction = house.store.begin(&house.store.view());
    delivery.ack_in(&mut transaction).unwrap();
    assert!(house.store.commit_blocking(transaction).unwrap().counters.is_empty());
    // The owner is gone before it is counted down; the next look does that.
    drop(batch);
    assert_eq!(dead(&house), []);
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), NONE);
    assert_eq!(house.events.dead_letter_count("s").unwrap(), 0);
}

#[test]
fn moving_a_subscription_ends_what_is_under_way() {
    let house = house();
    house.subscribe(&["a"], |_| ());
    house.publish("a", 0..3);
    let mut turn = house.claim("x").unwrap();
    let mut batch = house.batch(&mut turn).unwrap();
    batch.hand_out().unwrap();
    block_on(house.events.seek("s", None, Start::Earliest)).unwrap();
    house.settle(&mut batch, Ok(())).unwrap();
    assert_eq!(house.keep(batch).unwrap_err().kind(), ErrorKind::Conflict, "though the place is the same");
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), [0, 1, 2]);
}

#[test]
fn pausing_holds_back_and_resuming_goes_on() {
    let house = house();
    house.subscribe(&["a"], |_| ());
    let mut turn = house.claim("x").unwrap();
    assert!(block_on(house.events.pause("s")).unwrap().paused);
    house.publish("a", 0..2);
    assert!(matches!(house.events.due(&mut turn).unwrap(), Due::Over));
    assert!(house.claim("x").is_none());
    block_on(house.events.resume("s")).unwrap();
    let mut turn = house.claim("x").unwrap();
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), [0, 1]);
}

#[test]
fn topics_come_and_go_with_the_subscription() {
    let house = house();
    house.publish("a", 0..1);
    house.publish("b", 10..11);
    house.subscribe(&["a"], |_| ());
    let mut turn = house.claim("x").unwrap();
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), [0]);
    house.subscribe(&["a", "b"], |_| ());
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), [10], "`a` keeps its place");
    house.subscribe(&["b"], |_| ());
    house.publish("a", 1..2);
    assert_eq!(house.deliver(&mut turn, |_| Ok(())), NONE);
    block_on(house.events.unsubscribe("s")).unwrap();
    assert!(matches!(house.events.due(&mut turn).unwrap(), Due::Over));
    assert_eq!(house.events.subscriptions().unwrap(), []);
    assert_eq!(house.events.lag("s").unwrap(), []);
    house.subscribe(&["a"], |_| ());
    assert!(matches!(house.events.due(&mut turn).unwrap(), Due::Over), "a new one has a new token");
}

#[test]
fn subscriptions_are_bounded() {
    let house = house();
    for number in 0..SUBSCRIPTIONS_MAX {
        block_on(house.events.subscribe(Subscription::new(format!("s{number}"), ["a"]))).unwrap();
    }
    let error = block_on(house.events.subscribe(Subscription::new("one-more", ["a"]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(house.events.subscriptions().unwrap().len(), SUBSCRIPTIONS_MAX);
}
