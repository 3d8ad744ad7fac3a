//! Short ways to do common things.

use std::sync::Arc;

use futures::executor::block_on;
use mainstay_base::{Error, Result, SeededRandom, VirtualClock};
use mainstay_events::{Batch, Delivery, Due, Events, Publication, RetryPolicy, Settled, Start, Subscription, Turn};
use mainstay_store::Store;

/// Nothing was handed out.
pub const NONE: [u64; 0] = [];

/// Topics on a store without files.
pub struct House {
    pub store: Store,
    pub events: Events,
    pub clock: Arc<VirtualClock>,
}

pub fn house() -> House {
    let (store, clock) = (Store::in_memory(), Arc::new(VirtualClock::new(1_000_000)));
    let events = Events::new(store.clone(), clock.clone(), Arc::new(SeededRandom::new(7)));
    House { store, events, clock }
}

pub fn publication(topic: &str, number: u64) -> Publication {
    Publication::new(topic, "tests", "numbered", "text/plain", number.to_string())
}

pub fn subscription(topics: &[&str], change: impl FnOnce(&mut Subscription)) -> Subscription {
    let mut subscription = Subscription::new("s", topics.iter().copied());
    subscription.start = Start::Earliest;
    subscription.retry = RetryPolicy { attempts: 3, base_ms: 100, factor: 2.0, cap_ms: 1_000, jitter: 0.0 };
    change(&mut subscription);
    subscription
}

impl House {
    pub fn publish(&self, topic: &str, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            block_on(self.events.publish(publication(topic, number))).expect("it is published");
        }
    }

    pub fn subscribe(&self, topics: &[&str], change: impl FnOnce(&mut Subscription)) {
        block_on(self.events.subscribe(subscription(topics, change))).expect("a good subscription");
    }

    pub fn claim(&self, owner: &str) -> Option<Turn> {
        block_on(self.events.claim("s", owner, 1_000)).expect("it can be asked")
    }

    pub fn batch(&self, turn: &mut Turn) -> Option<Box<Batch>> {
        match self.events.due(turn).expect("it can be asked") {
            Due::Batch(batch) => Some(batch),
            Due::Idle { .. } | Due::Over => None,
        }
    }

    pub fn settle(&self, batch: &mut Batch, outcome: Result<()>) -> Result<Settled> {
        block_on(self.events.settle(batch, outcome))
    }

    pub fn keep(&self, batch: Box<Batch>) -> Result<()> {
        block_on(self.events.keep(batch))
    }

    /// Deliver what is due; `answer` says what comes of it. Returns what was handed out.
    pub fn deliver(&self, turn: &mut Turn, mut answer: impl FnMut(&Delivery) -> Result<()>) -> Vec<u64> {
        let mut seen = Vec::new();
        while let Some(mut batch) = self.batch(turn) {
            while let Some(delivery) = batch.hand_out() {
                seen.push(number(&delivery));
                self.settle(&mut batch, answer(&delivery)).expect("it is settled");
            }
            self.keep(batch).expect("it is kept");
        }
        seen
    }
}

pub fn number(delivery: &Delivery) -> u64 {
    std::str::from_utf8(&delivery.event.payload).unwrap().parse().unwrap()
}

pub fn no() -> Result<()> {
    Err(Error::unavailable("no"))
}
