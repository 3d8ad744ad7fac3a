//! How many events are published and delivered in a second, and how long one takes from its commit to its subscriber.
//!
//! Owns a measurement, printed. Bounded by its counts; it fails where topics do. Run it with
//! `cargo run -p mainstay-events --example delivery_rate [FOLDER]`: with a folder the store is on that disk, and every commit
//! is synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mainstay_base::{OsRandom, Result, SystemClock};
use mainstay_events::{Delivery, Driver, DriverOptions, Events, Publication, Start, Subscriber, Subscription};
use mainstay_store::{Store, StoreOptions};
use tokio_util::sync::CancellationToken;

const EVENTS: u64 = 100_000;
const IN_ONE_TRANSACTION: u64 = 100;
const ALONE: u64 = 500;
const PAYLOAD_BYTES: usize = 200;

#[derive(Default)]
struct Counts {
    seen: AtomicU64,
    told: tokio::sync::Notify,
}

#[async_trait]
impl Subscriber for Counts {
    async fn deliver(&self, _: Delivery) -> Result<()> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.told.notify_one();
        Ok(())
    }
}

impl Counts {
    async fn until(&self, count: u64) {
        while self.seen.load(Ordering::Relaxed) < count {
            self.told.notified().await;
        }
    }
}

fn publication() -> Publication {
    Publication::new("bench/numbers", "bench", "number", "application/octet-stream", vec![b'x'; PAYLOAD_BYTES])
}

fn rate(what: &str, took: Duration) {
    println!(
        "{what}: {EVENTS} events in {:.2} s, {:.0} a second",
        took.as_secs_f64(),
        EVENTS as f64 / took.as_secs_f64()
    );
}

#[tokio::main]
async fn main() -> Result<()> {
    let store = match std::env::args().nth(1) {
        Some(folder) => Store::open(StoreOptions::new(folder))?,
        None => Store::in_memory(),
    };
    let events = Events::new(store.clone(), Arc::new(SystemClock::default()), Arc::new(OsRandom));
    let subscription = Subscription { start: Start::Earliest, ..Subscription::new("counts", ["bench/numbers"]) };
    events.subscribe(subscription).await?;

    let begun = Instant::now();
    for _ in 0..EVENTS / IN_ONE_TRANSACTION {
        let mut transaction = store.begin(&store.view());
        for _ in 0..IN_ONE_TRANSACTION {
            events.add(&mut transaction, publication())?;
        }
        store.commit(transaction).await?;
    }
    rate(&format!("published, {IN_ONE_TRANSACTION} in a transaction"), begun.elapsed());

    let (counts, shutdown) = (Arc::new(Counts::default()), CancellationToken::new());
    let driver = Arc::new(Driver::new(events.clone(), DriverOptions::new("this host")));
    driver.set("counts", Some(counts.clone())).await;
    let begun = Instant::now();
    let driving = tokio::spawn(driver.run(shutdown.clone()));
    counts.until(EVENTS).await;
    rate("delivered, in order, to one subscriber", begun.elapsed());

    let mut times = Vec::new();
    for number in 1..=ALONE {
        let begun = Instant::now();
        events.publish(publication()).await?;
        counts.until(EVENTS + number).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("one at a time, from publishing to the subscriber: p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));

    let begun = Instant::now();
    let (mut counted, mut steps) = (0, 0);
    loop {
        let step = events.maintain("bench/numbers").await?;
        (counted, steps) = (counted + step.counted, steps + 1);
        if !step.is_more {
            break;
        }
    }
    println!("counted and indexed: {counted} events in {steps} steps, {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    shutdown.cancel();
    driving.await.map_err(|error| mainstay_base::Error::internal(error.to_string()))
}
