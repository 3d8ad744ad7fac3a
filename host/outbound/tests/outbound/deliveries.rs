//! Deliveries through the scheduler: with the transaction that causes them, tried again, signed, recorded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use mainstay_base::{ErrorKind, OsRandom, SimDisk, SystemClock};
use mainstay_outbound::{
    DELIVERY_JOB, DELIVERY_KIND, Deliverer, Delivery, Grants, Internet, Outbound, SecretHeader, Signing, delivery_job,
    install,
};
use mainstay_schedule::limits::DOCUMENT_BYTES_MAX;
use mainstay_schedule::{Driver, DriverOptions, RetryPolicy, Run, RunEnd, Scheduler};
use mainstay_store::{EngineKind, Space, Store, StoreOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{HUNTER, Server, outbound};

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const LATER: &str = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
const GONE: &str = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
const MOVED: &str = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";

struct House {
    store: Store,
    scheduler: Scheduler,
    outbound: Outbound,
}

async fn house(store: Store, grants: Grants) -> House {
    let scheduler = Scheduler::new(store.clone(), Arc::new(SystemClock::default()), Arc::new(OsRandom));
    install(&scheduler).await.unwrap();
    // The same with less patience.
    let mut job = delivery_job();
    job.retry = RetryPolicy { attempts: 3, base_ms: 5, factor: 1.0, cap_ms: 5, jitter: 0.0 };
    scheduler.apply(job).await.unwrap();
    let outbound = outbound(Arc::new(Internet::new(None).unwrap()), store.clone(), grants).await;
    House { store, scheduler, outbound }
}

fn delivery(url: String) -> Delivery {
    Delivery {
        secret_headers: vec![SecretHeader {
            header: "authorization".into(),
            prefix: "Bearer ".into(),
            secret: "token".into(),
        }],
        signing: Some(Signing { secret_form: Default::default(), ..Signing::standard_webhooks("token") }),
        ..Delivery::json(url, &json!({"n": 1}))
    }
}

impl House {
    async fn add(&self, delivery: Delivery) -> String {
        let mut transaction = self.store.begin(&self.store.view());
        let queued = self.outbound.add_delivery(&self.scheduler, &mut transaction, "p", delivery).unwrap();
        self.store.commit(transaction).await.unwrap();
        queued.run
    }

    /// Let a driver work until the run has ended, and a moment longer.
    async fn drive(&self, run: &str) -> Run {
        let deliverer = Arc::new(Deliverer::new(self.outbound.clone()));
        let options = DriverOptions { look: Duration::from_millis(20), ..DriverOptions::new("test") };
        let driver = Arc::new(Driver::new(self.scheduler.clone(), options).with(DELIVERY_KIND, deliverer));
        driver.check(&delivery_job()).unwrap();
        let shutdown = CancellationToken::new();
        let driving = tokio::spawn(driver.run(shutdown.clone()));
        let begun = Instant::now();
        let run = loop {
            match self.scheduler.run(run).unwrap() {
                Some(run) if run.is_ended() => break run,
                run => assert!(begun.elapsed() < Duration::from_secs(30), "{run:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        tokio::time::sleep(Duration::from_millis(60)).await;
        shutdown.cancel();
        driving.await.unwrap();
        run
    }
}

#[tokio::test]
async fn a_delivery_is_tried_again_under_the_same_name_and_leaves_no_secret_behind() {
    let server = Server::start(&[BUSY, BUSY, OK]).await;
    let house = house(Store::in_memory(), server.grants()).await;
    let run = house.add(delivery(server.url("/hook"))).await;
    let run = house.drive(&run).await;
    assert_eq!((run.end(), run.attempts.len(), run.failures), (Some(RunEnd::Success), 3, 2));
    let seen = server.seen.lock().clone();
    assert_eq!(seen.len(), 3);
    let id = seen[0].header("webhook-id").unwrap();
    for one in &seen {
        assert_eq!(one.header("webhook-id").unwrap(), id);
        // The clock of calls stands still, so the signature is the same as well.
        assert_eq!(one.header("webhook-timestamp").unwrap(), "1700000000");
        assert!(one.header("webhook-signature").unwrap().starts_with("v1,"));
        assert_eq!(one.header("authorization").unwrap(), format!("Bearer {HUNTER}"));
        assert_eq!((one.header("content-type"), &one.body[..]), (Some("application/json"), &br#"{"n":1}"#[..]));
    }
    let mut kept = format!("{run:?}");
    for attempt in &run.attempts {
        let log = house.scheduler.log(&run.id, attempt.token, 0).unwrap();
        kept.push_str(&format!("{log:?}"));
    }
    assert!(kept.contains("503") && !kept.contains(HUNTER), "{kept}");
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    for (answer, reason) in [(GONE, "410"), (MOVED, "302")] {
        let server = Server::start(&[answer]).await;
        let house = house(Store::in_memory(), server.grants()).await;
        let run = house.add(delivery(server.url("/hook"))).await;
        let run = house.drive(&run).await;
        assert_eq!((run.end(), server.seen.lock().len()), (Some(RunEnd::Failed), 1), "{run:?}");
        assert!(format!("{:?}", run.attempts).contains(reason), "{run:?}");
    }
}

#[tokio::test]
async fn attempts_end_and_connections_that_fail_are_attempts() {
    let gone = Server { address: "127.0.0.1:1".parse().unwrap(), seen: Arc::default() };
    let house = house(Store::in_memory(), gone.grants()).await;
    let run = house.add(delivery(gone.url("/hook"))).await;
    let run = house.drive(&run).await;
    assert_eq!((run.end(), run.failures), (Some(RunEnd::Failed), 3));
}

#[tokio::test]
async fn retry_after_is_waited_for_without_counting_a_failure() {
    let server = Server::start(&[LATER, OK]).await;
    let house = house(Store::in_memory(), server.grants()).await;
    let run = house.add(delivery(server.url("/hook"))).await;
    let begun = Instant::now();
    let run = house.drive(&run).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!((run.end(), run.failures, run.polls), (Some(RunEnd::Success), 0, 1));
}

#[tokio::test]
async fn taking_a_grant_away_stops_what_waits() {
    let server = Server::start(&[OK]).await;
    let house = house(Store::in_memory(), server.grants()).await;
    let run = house.add(delivery(server.url("/hook"))).await;
    house.outbound.set_grants("p", None).unwrap();
    let run = house.drive(&run).await;
    assert_eq!((run.end(), run.attempts.len(), server.seen.lock().len()), (Some(RunEnd::Failed), 1, 0));
}

#[tokio::test]
async fn a_delivery_is_judged_when_it_is_added() {
    let server = Server::start(&[OK]).await;
    let house = house(Store::in_memory(), server.grants()).await;
    let add = |caller: &str, delivery: Delivery| {
        let mut transaction = house.store.begin(&house.store.view());
        house.outbound.add_delivery(&house.scheduler, &mut transaction, caller, delivery).map(|queued| queued.id)
    };
    let kind = |added: mainstay_base::Result<String>| added.unwrap_err().kind();
    assert_eq!(kind(add("p", delivery("https://b.com/".into()))), ErrorKind::Denied);
    assert_eq!(kind(add("q", delivery(server.url("/")))), ErrorKind::Denied);
    let named = |id: String| Delivery { id: Some(id), ..delivery(server.url("/")) };
    assert_eq!(add("p", named("n".repeat(128))).unwrap(), "n".repeat(128));
    assert_eq!(kind(add("p", named("n".repeat(129)))), ErrorKind::Invalid);
    assert_eq!(kind(add("p", named("a.b".into()))), ErrorKind::Invalid);
    assert_ne!(add("p", delivery(server.url("/"))).unwrap(), add("p", delivery(server.url("/"))).unwrap());
    let sized = |length: usize| Delivery { body: "x".repeat(length).into(), ..named("n".into()) };
    let most = (0..DOCUMENT_BYTES_MAX).rev().find(|length| add("p", sized(*length)).is_ok()).unwrap();
    assert!(most > DOCUMENT_BYTES_MAX - 1_000, "{most}");
    assert_eq!(kind(add("p", sized(most + 1))), ErrorKind::Invalid);
    // What is no text takes a third more.
    assert!(add("p", Delivery { body: vec![0xff; 40_000].into(), ..named("n".into()) }).is_ok());
    assert_eq!(kind(add("p", Delivery { body: vec![0xff; 60_000].into(), ..named("n".into()) })), ErrorKind::Invalid);
    let mut odd = named("n".into());
    odd.headers.insert("x", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(kind(add("p", odd)), ErrorKind::Invalid);
}

fn open(disk: &SimDisk) -> Store {
    let options = StoreOptions {
        folder: Some(PathBuf::from("data")),
        engine: EngineKind::Memory,
        disk: Arc::new(disk.clone()),
        apply_interval: Duration::from_secs(3_600),
        ..StoreOptions::default()
    };
    Store::open(options).unwrap()
}

#[tokio::test]
async fn power_that_fails_between_commit_and_call_loses_and_doubles_nothing() {
    let space = Space::plugin("notes");
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..12 {
        let server = Server::start(&[OK]).await;
        let disk = SimDisk::new();
        let before = house(open(&disk), server.grants()).await;
        let mut transaction = before.store.begin(&before.store.view());
        transaction.put(&space, b"cause", "").unwrap();
        let one = delivery(server.url("/hook"));
        let queued = before.outbound.add_delivery(&before.scheduler, &mut transaction, "p", one).unwrap();
        disk.cut_power_after(seed);
        let is_acknowledged = before.store.commit(transaction).await.is_ok();
        let disk = disk.after_crash(seed);
        let after = house(open(&disk), server.grants()).await;
        let has_cause = after.store.view().get(&space, b"cause").unwrap().is_some();
        assert!(has_cause || !is_acknowledged);
        if has_cause {
            kept += 1;
            assert_eq!(after.drive(&queued.run).await.end(), Some(RunEnd::Success));
            let seen = server.seen.lock();
            assert_eq!((seen.len(), seen[0].header("webhook-id")), (1, Some(&queued.id[..])));
        } else {
            lost += 1;
            after.scheduler.advance().await.unwrap();
            assert!(after.scheduler.runs(DELIVERY_JOB, None, 10).unwrap().runs.is_empty());
        }
    }
    assert!(kept > 0 && lost > 0, "{kept} {lost}: the power fails on both sides of the commit");
}
