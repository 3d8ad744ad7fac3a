//! Many seeds of a bad week: owners that die and speak late, clocks that jump, subscribers that fail, subscriptions that are
//! paused and moved, topics that forget, and (on the simulated disk) power that fails. After each step and at the end the
//! promises are checked against a plain model: a list of what was acknowledged, and sets of what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use mainstay_base::{Error, ErrorKind, Random, Result, SeededRandom, SimDisk, VirtualClock};
use mainstay_events::{
    Batch, Delivery, Due, Events, Offset, Position, Retention, RetryPolicy, Settled, Start, Subscription, Turn,
};
use mainstay_store::{EngineKind, Space, Store, StoreOptions};

use crate::support::{number, publication};

const TOPICS: [&str; 3] = ["a", "b", "c"];
const SUBSCRIPTIONS: [(&str, [&str; 2], u32, u32); 2] = [("one", ["a", "b"], 3, 4), ("two", ["b", "c"], 2, 1)];
const LEASE_MS: u64 = 300;
const AGE_MS: u64 = 3_000;

/// A subscription and an event.
type Of = (&'static str, u64);

/// Somebody who delivers for one subscription, in the middle of it.
struct Hand {
    name: &'static str,
    attempts: u32,
    owner: String,
    turn: Option<Turn>,
    batch: Option<Box<Batch>>,
    delivery: Option<Delivery>,
    /// Where the subscription was when the batch was found.
    places: BTreeMap<String, Position>,
    /// The event of the batch that was handed out last.
    before: Option<Offset>,
}

struct World {
    store: Store,
    events: Events,
    clock: Arc<VirtualClock>,
    random: SeededRandom,
    disk: Option<SimDisk>,
    hands: Vec<Hand>,
    ghosts: Vec<Hand>,
    next_number: u64,
    /// Publications whose commit was not answered.
    unknown: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    /// Every event that was ever read, in order.
    known: BTreeMap<&'static str, Vec<(Offset, u64)>>,
    /// Events that retention removed.
    removed: BTreeSet<u64>,
    /// Events that a subscriber took.
    taken: BTreeSet<Of>,
    /// Events that became dead letters.
    died: BTreeSet<Of>,
    /// Dead letters that nobody has asked to be dropped or tried again.
    dead: BTreeSet<Of>,
    /// The furthest place by subscription, topic and the number of moves by hand.
    furthest: BTreeMap<(&'static str, &'static str, u64), Offset>,
    /// Whether subscriptions are moved by hand; effects may then happen again.
    moves: bool,
}

fn effects() -> Space {
    Space::plugin("effects")
}

fn facts() -> Space {
    Space::plugin("facts")
}

fn open(disk: &Option<SimDisk>) -> Store {
    let Some(disk) = disk else { return Store::in_memory() };
    let options = StoreOptions {
        folder: Some(PathBuf::from("data")),
        engine: EngineKind::Memory,
        disk: Arc::new(disk.clone()),
        apply_interval: Duration::from_secs(3_600),
        ..StoreOptions::default()
    };
    Store::open(options).expect("the store opens")
}

fn is_conflict<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::Conflict)
}

impl World {
    fn new(seed: u64, disk: Option<SimDisk>) -> World {
        let clock = Arc::new(VirtualClock::new(1_700_000_000_000));
        let store = open(&disk);
        let events = Events::new(store.clone(), clock.clone(), Arc::new(SeededRandom::new(seed)));
        let mut hands = Vec::new();
        for (name, topics, attempts, batch) in SUBSCRIPTIONS {
            let mut subscription = Subscription::new(name, topics);
            (subscription.start, subscription.batch) = (Start::Earliest, batch);
            subscription.retry = RetryPolicy { attempts, base_ms: 50, factor: 2.0, cap_ms: 150, jitter: 0.5 };
            block_on(events.subscribe(subscription)).unwrap();
            for owner in ["x", "y"] {
                hands.push(Hand::new(name, attempts, owner.to_owned()));
            }
        }
        for topic in TOPICS {
            block_on(events.set_retention(topic, Retention { age_ms: AGE_MS, bytes: 4_000 })).unwrap();
        }
        World {
            store,
            events,
            clock,
            random: SeededRandom::new(seed ^ 0xabcd),
            disk,
            hands,
            ghosts: Vec::new(),
            next_number: 0,
            unknown: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            known: TOPICS.iter().map(|topic| (*topic, Vec::new())).collect(),
            removed: BTreeSet::new(),
            taken: BTreeSet::new(),
            died: BTreeSet::new(),
            dead: BTreeSet::new(),
            furthest: BTreeMap::new(),
            moves: seed.is_multiple_of(2),
        }
    }

    fn below(&self, end: usize) -> usize {
        (self.random.number() % end as u64) as usize
    }

    fn step(&mut self) {
        match self.below(18) {
            0..=2 => self.publish(),
            3 => self.clock.advance_ms(1 + self.below(120) as i64),
            4..=12 => self.work(),
            13 => {
                let at = self.below(self.hands.len());
                let fresh =
                    Hand::new(self.hands[at].name, self.hands[at].attempts, format!("o{}", self.random.number()));
                self.ghosts.push(std::mem::replace(&mut self.hands[at], fresh));
            }
            14 => self.ghost_speaks(),
            15 => self.operator(),
            16 => self.maintain(),
            _ => self.trouble(),
        }
    }

    /// Some events, and a fact beside each, in one transaction.
    fn publish(&mut self) {
        let mut transaction = self.store.begin(&self.store.view());
        let mut numbers = Vec::new();
        for _ in 0..1 + self.below(3) {
            let (topic, number) = (TOPICS[self.below(3)], self.next_number);
            self.next_number += 1;
            self.events.add(&mut transaction, publication(topic, number)).unwrap();
            transaction.put(&facts(), number.to_string().as_bytes(), "").unwrap();
            numbers.push(number);
        }
        match self.store.commit_blocking(transaction) {
            Ok(_) => self.acknowledged.extend(numbers),
            Err(_) => self.unknown.extend(numbers),
        }
        self.learn();
    }

    /// Read what is new.
    fn learn(&mut self) {
        for (topic, known) in &mut self.known {
            let after = known.last().map(|(offset, _)| *offset);
            for event in self.events.read(topic, after, 1_000).unwrap().events {
                let number = std::str::from_utf8(&event.payload).unwrap().parse().unwrap();
                known.push((event.offset, number));
            }
        }
    }

    fn work(&mut self) {
        let at = self.below(self.hands.len());
        let mut hand = self.hands.swap_remove(at);
        self.advance(&mut hand);
        self.hands.push(hand);
    }

    fn ghost_speaks(&mut self) {
        if !self.ghosts.is_empty() {
            let at = self.below(self.ghosts.len());
            let mut ghost = self.ghosts.swap_remove(at);
            if ghost.delivery.is_some() {
                self.settle(&mut ghost);
            } else if let Some(batch) = ghost.batch.take() {
                self.keep(batch);
            }
        }
    }

    /// One step of what a driver does.
    fn advance(&mut self, hand: &mut Hand) {
        if hand.delivery.is_some() {
            return self.settle(hand);
        }
        if let Some(mut batch) = hand.batch.take() {
            match batch.hand_out() {
                Some(delivery) => {
                    self.check_hand_out(hand, &delivery);
                    (hand.delivery, hand.batch) = (Some(delivery), Some(batch));
                }
                None => self.keep(batch),
            }
            return;
        }
        let Some(turn) = &mut hand.turn else {
            let claimed = block_on(self.events.claim(hand.name, &hand.owner, LEASE_MS));
            hand.turn = self.unless_off(claimed).flatten();
            return;
        };
        if self.random.number().is_multiple_of(4) {
            let renewed = block_on(self.events.renew(turn, LEASE_MS));
            if self.unless_off(renewed) != Some(true) {
                hand.turn = None;
                return;
            }
        }
        match self.events.due(turn).unwrap() {
            Due::Batch(batch) => hand.batch = Some(batch),
            Due::Idle { .. } => {}
            Due::Over => hand.turn = None,
        }
        hand.before = None;
        hand.places = self.events.lag(hand.name).unwrap().into_iter().map(|lag| (lag.topic, lag.position)).collect();
    }

    fn check_hand_out(&self, hand: &mut Hand, delivery: &Delivery) {
        let (name, number) = (hand.name, number(delivery));
        if delivery.is_retried {
            return;
        }
        let event = &delivery.event;
        let place = &hand.places[&event.topic];
        let before = hand.before.unwrap_or(place.after);
        // Moved to the beginning, a subscription goes on with the oldest event that is still there.
        let kept = self.known[&*event.topic].iter().filter(|(_, number)| !self.removed.contains(number));
        let skipped = kept.map(|(offset, _)| *offset).find(|offset| before < *offset && *offset < event.offset);
        assert!(before < event.offset && skipped.is_none(), "{name}: {before}, {skipped:?}, {}", event.offset);
        let failures = if hand.before.is_none() { place.failures } else { 0 };
        assert_eq!(delivery.attempt, failures + 1, "{name}: {number}");
        hand.before = Some(event.offset);
    }

    fn effect_of(&self, name: &str, number: u64) -> i64 {
        let value = self.store.view().get(&effects(), format!("{name}/{number}").as_bytes()).unwrap();
        value.map_or(0, |value| i64::from_le_bytes(value[..].try_into().unwrap()))
    }

    /// The effect and the acknowledgement in one transaction.
    fn act(&mut self, hand: &Hand, delivery: &Delivery) -> Result<()> {
        let mut transaction = self.store.begin(&self.store.view());
        transaction.add(&effects(), format!("{}/{}", hand.name, number(delivery)).as_bytes(), 1)?;
        delivery.ack_in(&mut transaction)?;
        self.store.commit_blocking(transaction)?;
        let times = self.effect_of(hand.name, number(delivery));
        assert!(self.moves || times == 1, "the effect of {} happened {times} times", number(delivery));
        self.taken.insert((hand.name, number(delivery)));
        Ok(())
    }

    fn settle(&mut self, hand: &mut Hand) {
        let (Some(delivery), Some(mut batch)) = (hand.delivery.take(), hand.batch.take()) else { return };
        let of = (hand.name, number(&delivery));
        let outcome = match self.below(4) {
            0 => Err(Error::unavailable("no")),
            1 => {
                let acted = self.act(hand, &delivery);
                // Sometimes it says no though it has acted.
                if acted.is_ok() && self.below(3) == 0 { Err(Error::internal("late")) } else { acted }
            }
            _ => {
                self.taken.insert(of);
                Ok(())
            }
        };
        let has_failed = outcome.is_err();
        let settled = block_on(self.events.settle(&mut batch, outcome));
        match settled {
            Ok(Settled::Delivered) => hand.batch = Some(batch),
            Ok(Settled::Retried { .. }) => {
                assert!(has_failed && delivery.attempt < hand.attempts, "{delivery:?}");
                self.keep(batch);
            }
            Ok(Settled::Dead) => {
                assert!(has_failed && delivery.attempt == hand.attempts, "{delivery:?}");
                self.died.insert(of);
                self.dead.insert(of);
                self.keep(batch);
            }
            Err(error) => assert!(self.is_off() || error.kind() == ErrorKind::Conflict, "{error}"),
        }
    }

    fn keep(&mut self, batch: Box<Batch>) {
        let kept = block_on(self.events.keep(batch));
        assert!(kept.is_ok() || is_conflict(&kept) || self.is_off(), "{kept:?}");
    }

    /// Nothing fails here but for want of power.
    fn unless_off<T>(&self, result: Result<T>) -> Option<T> {
        assert!(result.is_ok() || self.is_off(), "{:?}", result.err());
        result.ok()
    }

    fn is_off(&self) -> bool {
        self.disk.as_ref().is_some_and(SimDisk::is_power_off)
    }

    fn operator(&mut self) {
        let (name, topics, ..) = SUBSCRIPTIONS[self.below(2)];
        match self.below(5) {
            0 => drop(block_on(self.events.pause(name)).unwrap()),
            1 => drop(block_on(self.events.resume(name)).unwrap()),
            2 if self.moves => {
                let time_ms = 1_700_000_000_000 + self.below(10_000) as i64;
                let to = [Start::Earliest, Start::Time { time_ms }][self.below(2)];
                block_on(self.events.seek(name, Some(topics[self.below(2)]), to)).unwrap();
            }
            _ => {
                let page = self.events.dead_letters(name, None, 1_000).unwrap();
                let asleep: Vec<_> = page.letters.iter().filter(|letter| letter.retry_at_ms.is_none()).collect();
                if asleep.is_empty() {
                    return;
                }
                let event = &asleep[self.below(asleep.len())].event;
                let letter = [(event.topic.clone(), event.offset)];
                let number: u64 = std::str::from_utf8(&event.payload).unwrap().parse().unwrap();
                if self.below(3) == 0 {
                    block_on(self.events.drop_dead_letters(name, &letter)).unwrap();
                } else {
                    block_on(self.events.retry_dead_letters(name, &letter)).unwrap();
                }
                self.dead.remove(&(name, number));
            }
        }
    }

    fn maintain(&mut self) {
        for topic in TOPICS {
            let maintained = block_on(self.events.maintain(topic));
            assert!(maintained.is_ok() || self.is_off(), "{maintained:?}");
            self.forget_removed(topic);
        }
    }

    /// Removed is what is no more before the oldest event that is there.
    fn forget_removed(&mut self, topic: &'static str) {
        let first = self.events.read(topic, None, 1).unwrap().events.first().map(|event| event.offset);
        for (offset, number) in &self.known[topic] {
            if first.is_none_or(|first| *offset < first) {
                self.removed.insert(*number);
            }
        }
    }

    fn trouble(&mut self) {
        match self.below(3) {
            0 => {
                let far = 1 + self.below(4_000) as i64;
                self.clock.advance_ms(if self.below(3) > 0 { far } else { -far });
            }
            _ => self.power_fails(),
        }
    }

    fn power_fails(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        // In the middle of something, whose answer then says nothing about what was kept.
        disk.cut_power_after(self.below(8) as u64);
        match self.below(3) {
            0 => self.publish(),
            1 => self.work(),
            _ => self.maintain(),
        }
        self.disk = Some(disk.after_crash(self.random.number()));
        self.store = open(&self.disk);
        self.events =
            Events::new(self.store.clone(), self.clock.clone(), Arc::new(SeededRandom::new(self.random.number())));
        for hand in &mut self.hands {
            let fresh = Hand::new(hand.name, hand.attempts, format!("o{}", self.random.number()));
            self.ghosts.push(std::mem::replace(hand, fresh));
        }
        self.learn();
        for topic in TOPICS {
            self.forget_removed(topic);
        }
        // What became a dead letter without an answer is one all the same.
        for (name, ..) in SUBSCRIPTIONS {
            for letter in self.events.dead_letters(name, None, 1_000).unwrap().letters {
                let number = std::str::from_utf8(&letter.event.payload).unwrap().parse().unwrap();
                self.died.insert((name, number));
                if letter.retry_at_ms.is_none() {
                    self.dead.insert((name, number));
                }
            }
        }
    }

    fn check(&mut self) {
        self.check_events();
        for (name, ..) in SUBSCRIPTIONS {
            self.check_places(name);
            let letters = self.events.dead_letters(name, None, 1_000).unwrap().letters;
            let listed: BTreeSet<Of> = letters
                .iter()
                .filter(|letter| letter.retry_at_ms.is_none())
                .map(|letter| (name, std::str::from_utf8(&letter.event.payload).unwrap().parse().unwrap()))
                .collect();
            let expect: BTreeSet<Of> = self.dead.iter().filter(|of| of.0 == name).copied().collect();
            assert_eq!(listed, expect, "{name}");
            assert!(self.events.dead_letter_count(name).unwrap() >= letters.len() as i64);
        }
    }

    /// What was acknowledged is there, in order, or was removed; an event is there if and only if its fact is.
    fn check_events(&self) {
        let mut there = BTreeSet::new();
        for topic in TOPICS {
            let read = self.events.read(topic, None, 1_000).unwrap().events;
            let kept: Vec<(Offset, u64)> =
                self.known[topic].iter().filter(|(_, number)| !self.removed.contains(number)).copied().collect();
            let read: Vec<(Offset, u64)> = read
                .iter()
                .map(|event| (event.offset, std::str::from_utf8(&event.payload).unwrap().parse().unwrap()))
                .collect();
            assert_eq!(read, kept, "{topic}");
            assert!(self.known[topic].windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
            there.extend(self.known[topic].iter().map(|(_, number)| *number));
        }
        assert!(self.acknowledged.is_subset(&there), "an acknowledged event was lost");
        let view = self.store.view();
        for number in 0..self.next_number {
            let fact = view.get(&facts(), number.to_string().as_bytes()).unwrap().is_some();
            assert_eq!(fact, there.contains(&number), "{number}");
            assert!(fact || self.unknown.contains(&number));
        }
    }

    /// Places do not move back; what lies before one was taken, became a dead letter, or is counted as lost.
    fn check_places(&mut self, name: &'static str) {
        for lag in self.events.lag(name).unwrap() {
            let topic = TOPICS.iter().find(|topic| **topic == lag.topic).unwrap();
            let furthest = self.furthest.entry((name, topic, lag.position.moved)).or_insert(Offset::START);
            assert!(lag.position.after >= *furthest, "{name} moved back in {topic}");
            *furthest = lag.position.after;
            let before = self.known[topic].iter().filter(|(offset, _)| *offset <= lag.position.after);
            let missed: Vec<u64> = before
                .map(|(_, number)| *number)
                .filter(|number| !self.taken.contains(&(name, *number)) && !self.died.contains(&(name, *number)))
                .collect();
            if !self.moves {
                assert!(missed.len() as u64 <= lag.position.lost, "{name}: {missed:?} were not delivered: {lag:?}");
            }
            assert!(missed.iter().all(|number| self.removed.contains(number) || self.moves), "{missed:?}");
            let waiting = self.known[topic]
                .iter()
                .filter(|(offset, number)| *offset > lag.position.after && !self.removed.contains(number));
            assert_eq!(lag.waiting as usize, waiting.count(), "{name} {topic}");
        }
        if !self.moves {
            for number in 0..self.next_number {
                assert!(self.effect_of(name, number) <= 1, "the effect of {number} happened twice");
            }
        }
    }

    /// Nothing bad happens any more: everything is delivered.
    fn settle_down(&mut self) {
        self.ghosts.clear();
        for topic in TOPICS {
            block_on(self.events.set_retention(topic, Retention::default())).unwrap();
        }
        for (name, ..) in SUBSCRIPTIONS {
            block_on(self.events.resume(name)).unwrap();
        }
        for _ in 0..5_000 {
            for at in 0..self.hands.len() {
                let mut hand = Hand::new(self.hands[at].name, self.hands[at].attempts, self.hands[at].owner.clone());
                std::mem::swap(&mut hand, &mut self.hands[at]);
                self.advance(&mut hand);
                self.hands[at] = hand;
            }
            let is_done = |(name, ..): &(&str, _, _, _)| {
                let letters = self.events.dead_letters(name, None, 1_000).unwrap().letters;
                self.events.lag(name).unwrap().iter().all(|lag| lag.waiting == 0)
                    && letters.iter().all(|letter| letter.retry_at_ms.is_none())
                    && self.events.dead_letter_count(name).unwrap() == letters.len() as i64
            };
            if SUBSCRIPTIONS.iter().all(is_done) {
                return self.check();
            }
            self.clock.advance_ms(20);
        }
        panic!("it does not come to an end: {:?} {:?}", self.events.lag("one"), self.events.lag("two"));
    }
}

impl Hand {
    fn new(name: &'static str, attempts: u32, owner: String) -> Hand {
        Hand { name, attempts, owner, turn: None, batch: None, delivery: None, places: BTreeMap::new(), before: None }
    }
}

fn simulate(seeds: std::ops::Range<u64>, steps: usize, disk: fn() -> Option<SimDisk>) {
    for seed in seeds {
        let played = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, disk());
            for step in 0..steps {
                world.step();
                if step % 20 == 19 {
                    world.check();
                }
            }
            world.check();
            world.settle_down();
        });
        if played.is_err() {
            panic!("seed {seed} broke a promise; what it was stands above");
        }
    }
}

#[test]
fn promises_hold_over_many_seeds() {
    simulate(0..1_000, 160, || None);
}

#[test]
fn promises_hold_when_the_power_fails() {
    simulate(10_000..10_060, 160, || Some(SimDisk::new()));
}
