//! What keeps deliveries going on one host: subscriptions are taken, subscribers get their events, topics are maintained.
//!
//! Owns [`Subscriber`] and [`Driver`]: one task for each subscription that has a subscriber here, and one that maintains
//! topics. Separate from the steps themselves ([`crate::deliver`]), which need no threads.
//!
//! A subscription's task takes it, delivers what is due, renews the lease while a delivery takes long, and waits for a
//! wake-up, for the next retry, or for a look every second. Bounded: `at_once` batches at a time over all subscriptions, one
//! event at a time of each. On failure: a step that fails is logged and done again; a subscriber that panics, or takes too
//! long and is dropped, has failed that delivery, no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_base::{Error, ErrorKind, Result};
use tokio::sync::{RwLock, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::deliver::{Batch, Delivery, Due, Settled, Turn};
use crate::events::Events;

/// Steps of maintenance in a row before the next topic has its turn.
const MAINTENANCE_ROUNDS_MAX: usize = 64;

/// Gets events.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Take one event. It comes at least once; [`Delivery::id`] is the same each time. An error makes it come again, later,
    /// up to the subscription's attempts. Must be safe to drop at every await.
    async fn deliver(&self, delivery: Delivery) -> Result<()>;
}

/// How a driver works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// Who it is, unlike any other driver of this store, and unlike itself before a restart.
    pub owner: String,
    /// How long it may be silent before its subscriptions are taken from it; it renews at a third of that.
    pub lease: Duration,
    /// Most batches that are delivered at once.
    pub at_once: usize,
    /// The longest time between two looks.
    pub look: Duration,
    /// How often topics are counted, indexed and freed of what is old.
    pub maintenance: Duration,
    /// How long deliveries may take to end when the driver is told to stop.
    pub stop_grace: Duration,
}

impl DriverOptions {
    /// The defaults for this owner.
    pub fn new(owner: impl Into<String>) -> DriverOptions {
        DriverOptions {
            owner: owner.into(),
            lease: Duration::from_secs(30),
            at_once: 64,
            look: Duration::from_secs(1),
            maintenance: Duration::from_secs(10),
            stop_grace: Duration::from_secs(10),
        }
    }

    fn lease_ms(&self) -> u64 {
        self.lease.as_millis().min(u128::from(u64::MAX)) as u64
    }
}

/// Keeps topics going.
pub struct Driver {
    events: Events,
    subscribers: RwLock<HashMap<String, Arc<dyn Subscriber>>>,
    options: DriverOptions,
    at_once: Semaphore,
}

/// When the lease was renewed last.
struct Held {
    turn: Turn,
    renewed: Instant,
}

impl Driver {
    /// A driver without subscribers.
    pub fn new(events: Events, options: DriverOptions) -> Driver {
        let at_once = Semaphore::new(options.at_once.clamp(1, Semaphore::MAX_PERMITS));
        Driver { events, subscribers: RwLock::default(), options, at_once }
    }

    /// From the next look on, events of this subscription go to this subscriber; none: they wait, or go to another driver.
    pub async fn set(&self, subscription: impl Into<String>, subscriber: Option<Arc<dyn Subscriber>>) {
        let (name, mut subscribers) = (subscription.into(), self.subscribers.write().await);
        match subscriber {
            Some(subscriber) => drop(subscribers.insert(name, subscriber)),
            None => drop(subscribers.remove(&name)),
        }
    }

    /// Work until `shutdown`; then finish the deliveries that are on their way, as long as they may take.
    pub async fn run(self: Arc<Driver>, shutdown: CancellationToken) {
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut running: HashMap<Id, String> = HashMap::new();
        let maintainer = tokio::spawn(self.clone().maintain(shutdown.clone()));
        while !shutdown.is_cancelled() {
            let wanted: Vec<String> = self.subscribers.read().await.keys().cloned().collect();
            for name in wanted {
                if !running.values().any(|other| *other == name) {
                    let task = tasks.spawn(self.clone().try_to_serve(name.clone(), shutdown.clone()));
                    running.insert(task.id(), name);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(self.options.look) => {}
            }
            while let Some(ended) = tasks.try_join_next_with_id() {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                running.remove(&id);
            }
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(self.options.stop_grace, all).await.is_err() {
            tracing::warn!("some deliveries did not end in time; their events will come again");
        }
        maintainer.abort();
    }

    async fn try_to_serve(self: Arc<Driver>, name: String, shutdown: CancellationToken) {
        match self.serve(&name, &shutdown).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::debug!(subscription = name, "there is a subscriber, and no subscription yet");
            }
            Err(error) => tracing::warn!(subscription = name, %error, "events could not be delivered; trying again"),
        }
    }

    /// One turn, from taking the subscription to losing it.
    async fn serve(&self, name: &str, shutdown: &CancellationToken) -> Result<()> {
        let turn = self.events.claim(name, &self.options.owner, self.options.lease_ms()).await?;
        let Some(turn) = turn else { return Ok(()) };
        let mut held = Held { turn, renewed: Instant::now() };
        let served = self.deliver_what_is_due(name, &mut held, shutdown).await;
        self.events.release(&held.turn).await?;
        served
    }

    async fn deliver_what_is_due(&self, name: &str, held: &mut Held, shutdown: &CancellationToken) -> Result<()> {
        let mut changed = self.events.inner.changed.subscribe();
        while !shutdown.is_cancelled() {
            let Some(subscriber) = self.subscribers.read().await.get(name).cloned() else { return Ok(()) };
            if !self.renew(held).await? {
                return Ok(());
            }
            // Before the look: what happens behind it then wakes this up.
            changed.borrow_and_update();
            match self.events.due(&mut held.turn)? {
                Due::Over => return Ok(()),
                Due::Batch(batch) => {
                    let _permit = self.at_once.acquire().await;
                    match self.deliver(subscriber, batch, held, shutdown).await {
                        Ok(()) => {}
                        // The place was moved meanwhile; what is true now is read again.
                        Err(error) if error.kind() == ErrorKind::Conflict => {
                            tracing::debug!(subscription = name, %error, "a batch was given up");
                        }
                        Err(error) => return Err(error),
                    }
                }
                Due::Idle { until_ms } => {
                    let now_ms = self.events.inner.clock.now_ms();
                    let due = until_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms).max(1) as u64));
                    let pause = self.options.look.min(self.options.lease / 3).min(due.unwrap_or(Duration::MAX));
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        _ = changed.changed() => {}
                        () = sleep(pause) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Renew the lease when it is time to. Answers whether the turn goes on.
    async fn renew(&self, held: &mut Held) -> Result<bool> {
        if held.renewed.elapsed() < self.options.lease / 3 {
            return Ok(true);
        }
        held.renewed = Instant::now();
        self.events.renew(&held.turn, self.options.lease_ms()).await
    }

    async fn deliver(
        &self,
        subscriber: Arc<dyn Subscriber>,
        mut batch: Box<Batch>,
        held: &mut Held,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        while let Some(delivery) = batch.hand_out() {
            let limit = Duration::from_millis(batch.subscription().timeout_ms);
            let outcome = self.attempt(subscriber.clone(), delivery, limit, held).await?;
            let settled = self.events.settle(&mut batch, outcome).await?;
            if settled != Settled::Delivered || shutdown.is_cancelled() {
                break;
            }
        }
        self.events.keep(batch).await
    }

    /// One delivery. The outer result is a failure of ours, the inner one is the subscriber's answer.
    async fn attempt(
        &self,
        subscriber: Arc<dyn Subscriber>,
        delivery: Delivery,
        limit: Duration,
        held: &mut Held,
    ) -> Result<Result<()>> {
        // A task of its own, so that a panic is an answer.
        let mut task = AbortOnDrop(tokio::spawn(async move { subscriber.deliver(delivery).await }));
        let until = Instant::now() + limit;
        loop {
            let renew_at = held.renewed + self.options.lease / 3;
            tokio::select! {
                biased;
                ended = &mut task.0 => return Ok(ended.unwrap_or_else(|error| Err(broken(&error)))),
                () = sleep_until(until) => {
                    let limit_ms = limit.as_millis();
                    return Ok(Err(Error::unavailable(format!("it took longer than {limit_ms} ms and was given up"))));
                }
                () = sleep_until(renew_at) => {
                    if !self.renew(held).await? {
                        return Err(Error::conflict("the subscription's lease was over"));
                    }
                }
            }
        }
    }

    async fn maintain(self: Arc<Driver>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.maintain_all().await {
                tracing::warn!(%error, "topics could not be maintained; trying again");
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(self.options.maintenance) => {}
            }
        }
    }

    async fn maintain_all(&self) -> Result<()> {
        for topic in self.events.topics()? {
            for _ in 0..MAINTENANCE_ROUNDS_MAX {
                if !self.events.maintain(&topic).await?.is_more {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A delivery that is given up must not go on behind our back.
struct AbortOnDrop(tokio::task::JoinHandle<Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn broken(error: &tokio::task::JoinError) -> Error {
    Error::internal(if error.is_panic() {
        "the subscriber panicked; see the host's log"
    } else {
        "the subscriber was dropped; the host is stopping"
    })
}
