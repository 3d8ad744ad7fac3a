//! The driver with subscribers that misbehave, and with a second driver beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mainstay_base::{Error, OsRandom, Result, SystemClock};
use mainstay_events::{
    Delivery, Driver, DriverOptions, Events, Publication, Retention, RetryPolicy, Start, Subscriber, Subscription,
};
use mainstay_store::Store;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Does what the payload says, and notes what it saw.
#[derive(Default)]
struct Acts {
    seen: Mutex<Vec<String>>,
}

#[async_trait]
impl Subscriber for Acts {
    async fn deliver(&self, delivery: Delivery) -> Result<()> {
        let word = String::from_utf8_lossy(&delivery.event.payload).into_owned();
        self.seen.lock().push(format!("{word}{}", delivery.attempt));
        match (word.as_str(), delivery.attempt) {
            ("panic", 1) => panic!("as it was told"),
            ("hang", 1) => std::future::pending().await,
            ("fail", _) => Err(Error::unavailable("no")),
            ("slow", 1) => {
                // Longer than the lease, which is renewed meanwhile.
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn subscription() -> Subscription {
    let mut subscription = Subscription::new("s", ["a"]);
    subscription.start = Start::Earliest;
    subscription.timeout_ms = 1_000;
    subscription.retry = RetryPolicy { attempts: 2, base_ms: 5, factor: 1.0, cap_ms: 5, jitter: 0.0 };
    subscription
}

fn options(owner: &str) -> DriverOptions {
    DriverOptions {
        lease: Duration::from_millis(300),
        look: Duration::from_millis(20),
        maintenance: Duration::from_millis(20),
        ..DriverOptions::new(owner)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn publish(events: &Events, words: &[&str]) {
    for word in words {
        let publication = Publication::new("a", "tests", "word", "text/plain", word.to_string());
        events.publish(publication).await.unwrap();
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn subscribers_that_misbehave_hurt_only_their_delivery() {
    runtime().block_on(async {
        let events = Events::new(Store::in_memory(), Arc::new(SystemClock::default()), Arc::new(OsRandom));
        events.subscribe(subscription()).await.unwrap();
        let (acts, shutdown) = (Arc::new(Acts::default()), CancellationToken::new());
        let driver = Arc::new(Driver::new(events.clone(), options("x")));
        driver.set("s", Some(acts.clone())).await;
        let driving = tokio::spawn(driver.clone().run(shutdown.clone()));
        publish(&events, &["ok", "panic", "hang", "fail", "slow", "last"]).await;
        until("everything is delivered", || acts.seen.lock().iter().any(|word| word == "last1")).await;
        until("and kept", || events.lag("s").unwrap()[0].waiting == 0).await;
        let expect = ["ok1", "panic1", "panic2", "hang1", "hang2", "fail1", "fail2", "slow1", "last1"];
        assert_eq!(*acts.seen.lock(), expect);
        let letters = events.dead_letters("s", None, 10).unwrap().letters;
        assert_eq!((letters.len(), &letters[0].event.payload[..]), (1, &b"fail"[..]));

        driver.set("s", None).await;
        publish(&events, &["nobody"]).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(events.lag("s").unwrap()[0].waiting, 1, "it waits for a subscriber");
        driver.set("s", Some(acts.clone())).await;
        until("it is delivered", || events.lag("s").unwrap()[0].waiting == 0).await;

        events.set_retention("a", Retention { age_ms: 1, bytes: 1 }).await.unwrap();
        until("it is maintained", || events.read("a", None, 1).unwrap().events.is_empty()).await;
        shutdown.cancel();
        driving.await.unwrap();
    });
}

#[test]
fn two_drivers_on_one_store_deliver_each_event_once_while_both_live() {
    runtime().block_on(async {
        let store = Store::in_memory();
        let make = || Events::new(store.clone(), Arc::new(SystemClock::default()), Arc::new(OsRandom));
        let (events, shutdown) = (make(), CancellationToken::new());
        events.subscribe(subscription()).await.unwrap();
        let acts = Arc::new(Acts::default());
        let mut driving = Vec::new();
        let first_stop = CancellationToken::new();
        for (owner, stop) in [("x", &first_stop), ("y", &shutdown)] {
            let driver = Arc::new(Driver::new(make(), options(owner)));
            driver.set("s", Some(acts.clone())).await;
            driving.push(tokio::spawn(driver.run(stop.clone())));
        }
        let words: Vec<String> = (0..200).map(|number| format!("w{number}-")).collect();
        let (early, late) = words.split_at(100);
        publish(&events, &early.iter().map(String::as_str).collect::<Vec<_>>()).await;
        until("the first half is kept", || events.lag("s").unwrap()[0].waiting == 0).await;
        // One goes away in an orderly way; the other goes on.
        first_stop.cancel();
        driving.remove(0).await.unwrap();
        publish(&events, &late.iter().map(String::as_str).collect::<Vec<_>>()).await;
        until("all is kept", || events.lag("s").unwrap()[0].waiting == 0).await;
        shutdown.cancel();
        driving.remove(0).await.unwrap();
        let expect: Vec<String> = words.iter().map(|word| format!("{word}1")).collect();
        assert_eq!(*acts.seen.lock(), expect);
    });
}
