//! Delivering, step by step.
//!
//! Owns the steps that a driver repeats: take a subscription for a while ([`Events::claim`]), find what is due
//! ([`Events::due`]), hand out one event after the other ([`Batch::hand_out`]), say what came of each ([`Events::settle`]), keep
//! how far it came ([`Events::keep`]). Separate from the driver, which has the threads; everything here runs as well in a
//! simulation.
//!
//! One deliverer: a claim writes a new fencing token, and every change of a place holds only if the token and the place are
//! still those that the deliverer has seen. So two drivers may at worst both hand out an event when a lease ends too early,
//! but never both move a place, and a place moves back only when an operator says so.
//!
//! At least once, in order: an event's offset is kept after it was delivered, a failing event is tried again before the ones
//! behind it, and after the last attempt it becomes a dead letter in the transaction that moves the place over it. Who wants
//! an effect exactly once lets [`Delivery::ack_in`] move the place in the transaction that has the effect.
//!
//! Bounded by the subscription's batch. On failure: a step that failed has changed nothing; what was delivered and not kept
//! comes again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::{KeyRange, Space, Transaction, View};
use serde::{Deserialize, Serialize};

use crate::dead::DeadLetter;
use crate::event::{Event, Offset};
use crate::events::{Events, decode, write};
use crate::keys::{self, Key};
use crate::limits::{DEAD_LETTERS_MAX, REASON_BYTES_MAX};
use crate::subscription::{Position, Subscription, SubscriptionRecord};

/// A subscription that somebody delivers for, until the lease ends.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Which one.
    pub subscription: String,
    /// Larger than that of every turn before.
    pub token: u64,
    /// Which of its topics is asked first.
    rotation: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lease {
    owner: String,
    token: u64,
    until_ms: i64,
}

/// What there is to do.
#[derive(Debug)]
pub enum Due {
    /// These events are due.
    Batch(Box<Batch>),
    /// Nothing is due, and nothing will be before this time unless somebody publishes.
    Idle {
        /// In milliseconds since 1970.
        until_ms: Option<i64>,
    },
    /// The turn is over: somebody else delivers, or the subscription is paused or gone.
    Over,
}

/// What came of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Delivered,
    /// It failed and is tried again at this time, in milliseconds since 1970. The batch is over.
    Retried {
        /// When.
        at_ms: i64,
    },
    /// It failed for the last time. The batch is over.
    Dead,
}

/// Events that are due, of one topic and in order, or one dead letter that is tried again.
#[derive(Debug)]
pub struct Batch {
    subscription: Subscription,
    fence: Fence,
    source: Source,
    events: VecDeque<Event>,
    current: Option<Delivery>,
}

/// What has to be true for a change of a place.
#[derive(Clone, Debug)]
struct Fence {
    space: Space,
    token_key: Key,
    token: Bytes,
    place_key: Key,
    place: Bytes,
}

#[derive(Clone, Debug)]
enum Source {
    Topic {
        position: Position,
        /// Delivered, and not yet kept.
        done: Option<Offset>,
    },
    DeadLetter(Box<DeadLetter>),
    /// It was delivered, and is still to be removed.
    SpentLetter,
}

/// One event on its way to a subscriber. Clones are the same delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Whose.
    pub subscription: String,
    /// What.
    pub event: Arc<Event>,
    /// The how-manieth attempt it is; 1 is the first.
    pub attempt: u32,
    /// Whether it was a dead letter before, and so comes out of order.
    pub is_retried: bool,
    ack: Arc<Ack>,
}

#[derive(Debug)]
struct Ack {
    fence: Fence,
    source: Source,
    used: AtomicBool,
}

impl Delivery {
    /// The same at every attempt, and unlike that of any other delivery of this store.
    pub fn id(&self) -> String {
        format!("{}/{}", self.subscription, self.event.offset)
    }

    /// Mark the event as delivered when this transaction commits, and not otherwise: what else the transaction does then
    /// happens exactly once. The commit is a `conflict` when the delivery is not this subscriber's any more; nothing has
    /// happened then, and `deliver` should answer with that error. Await the commit before answering.
    pub fn ack_in(&self, transaction: &mut Transaction) -> Result<()> {
        let Ack { fence, source, used } = &*self.ack;
        fence.guard(transaction)?;
        transaction.put(&fence.space, &fence.place_key, source.after(self.event.offset)?)?;
        used.store(true, Ordering::Release);
        Ok(())
    }
}

impl Fence {
    fn guard(&self, transaction: &mut Transaction) -> Result<()> {
        let lost =
            || Error::conflict("the delivery is not this owner's any more; the event will come again if need be");
        transaction.expect_value_or(&self.space, &self.token_key, self.token.clone(), lost())?;
        transaction.expect_value_or(&self.space, &self.place_key, self.place.clone(), lost())
    }
}

impl Source {
    /// What the place holds once the event is delivered. A letter stays, empty, until it is counted down: doing that in a
    /// subscriber's transaction would add a counter to the receipt of that.
    fn after(&self, offset: Offset) -> Result<Bytes> {
        match self {
            Source::Topic { position, .. } => write(&position.done_to(offset)),
            Source::DeadLetter(_) | Source::SpentLetter => Ok(Bytes::new()),
        }
    }
}

impl Batch {
    /// The subscription as it was when the batch was made.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// How many events are left.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The event was delivered; [`Events::keep`] makes that durable.
    fn done(&mut self, offset: Offset) {
        match &mut self.source {
            Source::Topic { done, .. } => *done = Some(offset),
            source => *source = Source::SpentLetter,
        }
    }

    /// Hand out the next event. Settle it before the next.
    pub fn hand_out(&mut self) -> Option<Delivery> {
        let event = self.events.pop_front()?;
        let failures = match &self.source {
            Source::Topic { position, done: None } => position.failures,
            Source::Topic { .. } => 0,
            Source::DeadLetter(letter) => letter.failures,
            Source::SpentLetter => 0,
        };
        let ack = Ack { fence: self.fence.clone(), source: self.source.clone(), used: AtomicBool::new(false) };
        let delivery = Delivery {
            subscription: self.subscription.name.clone(),
            event: Arc::new(event),
            attempt: failures.saturating_add(1),
            is_retried: matches!(self.source, Source::DeadLetter(_)),
            ack: Arc::new(ack),
        };
        self.current = Some(delivery.clone());
        Some(delivery)
    }
}

impl Events {
    /// Take a subscription, unless somebody has it, or it is paused.
    pub async fn claim(&self, subscription: &str, owner: &str, lease_ms: u64) -> Result<Option<Turn>> {
        self.transact(|change| {
            let record = change.subscription(subscription)?;
            let lease = change.read::<Lease>(keys::lease(subscription), "lease", subscription)?;
            // An owner that asks again has given up its turn without saying so, and the new token ends that one.
            let is_taken = lease.is_some_and(|lease| lease.until_ms > change.now_ms && lease.owner != owner);
            if record.paused || is_taken {
                return Ok(None);
            }
            let token = change.read::<u64>(keys::token(subscription), "token", subscription)?.unwrap_or(0) + 1;
            let until_ms = later(change.now_ms, lease_ms);
            change.put(keys::token(subscription), &token)?;
            change.put(keys::lease(subscription), &Lease { owner: owner.to_owned(), token, until_ms })?;
            Ok(Some(Turn { subscription: subscription.to_owned(), token, rotation: token as usize }))
        })
        .await
    }

    /// The owner of this turn is alive: the lease begins anew. Answers whether the turn is still its own.
    pub async fn renew(&self, turn: &Turn, lease_ms: u64) -> Result<bool> {
        self.change_lease(turn, |now_ms| later(now_ms, lease_ms)).await
    }

    /// Let somebody else deliver at once.
    pub async fn release(&self, turn: &Turn) -> Result<()> {
        self.change_lease(turn, |_| i64::MIN).await.map(|_| ())
    }

    async fn change_lease(&self, turn: &Turn, until: impl Fn(i64) -> i64) -> Result<bool> {
        let Turn { subscription, token, .. } = turn;
        self.transact(|change| {
            let key = keys::lease(subscription);
            let Some(lease) = change.read::<Lease>(key.clone(), "lease", subscription)? else { return Ok(false) };
            if lease.token != *token {
                return Ok(false);
            }
            change.put(key, &Lease { until_ms: until(change.now_ms), ..lease })?;
            Ok(true)
        })
        .await
    }

    /// What is due: a dead letter that is tried again, or the next events of a topic; topics take turns.
    pub fn due(&self, turn: &mut Turn) -> Result<Due> {
        let (view, space, name) = (self.view(), &self.inner.space, &turn.subscription);
        let record = decode::<SubscriptionRecord>(view.get(space, &keys::subscription(name))?, "subscription", name)?;
        let token_key = keys::token(name);
        let token = write(&turn.token)?;
        let Some(SubscriptionRecord { subscription, paused: false, .. }) = record else { return Ok(Due::Over) };
        if view.get(space, &token_key)?.as_ref() != Some(&token) {
            return Ok(Due::Over);
        }
        let batch = |place_key, place, source, events: Vec<Event>| {
            let fence =
                Fence { space: space.clone(), token_key: token_key.clone(), token: token.clone(), place_key, place };
            Box::new(Batch { subscription: subscription.clone(), fence, source, events: events.into(), current: None })
        };
        let now_ms = self.inner.clock.now_ms();
        let mut until_ms: Option<i64> = None;
        if let Some((key, bytes)) = self.scan(&view, KeyRange::prefix(&keys::retried_of(name)), 1)?.pop() {
            if bytes.is_empty() {
                return Ok(Due::Batch(batch(key, bytes, Source::SpentLetter, Vec::new())));
            }
            let letter = DeadLetter::decode(name, &key, &bytes)?;
            if letter.retry_at_ms.is_some_and(|at| at > now_ms) {
                until_ms = letter.retry_at_ms;
            } else {
                let events = vec![letter.event.clone()];
                return Ok(Due::Batch(batch(key, bytes, Source::DeadLetter(Box::new(letter)), events)));
            }
        }
        let count = subscription.topics.len();
        for step in 0..count {
            let place = (turn.rotation + step) % count;
            let topic = &subscription.topics[place];
            let key = keys::position(topic, name);
            let Some(bytes) = view.get(space, &key)? else { continue };
            let Some(position) = decode::<Position>(Some(bytes.clone()), "place", name)? else { continue };
            if position.not_before_ms > now_ms {
                until_ms = Some(until_ms.map_or(position.not_before_ms, |until| until.min(position.not_before_ms)));
                continue;
            }
            let events = self.read_at(&view, topic, position.after, subscription.batch)?.events;
            if !events.is_empty() {
                turn.rotation = place + 1;
                return Ok(Due::Batch(batch(key, bytes, Source::Topic { position, done: None }, events)));
            }
        }
        Ok(Due::Idle { until_ms })
    }

    /// Say what came of the delivery that was handed out last. A `conflict` when the batch is not this owner's any more; drop
    /// it then.
    pub async fn settle(&self, batch: &mut Batch, outcome: Result<()>) -> Result<Settled> {
        let Some(delivery) = batch.current.take() else {
            return Err(Error::invalid("no delivery of this batch waits to be settled; hand out the next one first"));
        };
        let offset = delivery.event.offset;
        if delivery.ack.used.load(Ordering::Acquire) && self.was_committed(batch, offset)? {
            if let Err(error) = outcome {
                tracing::warn!(delivery = delivery.id(), %error, "a subscriber failed behind its own commit, which counts");
            }
            return Ok(Settled::Delivered);
        }
        match outcome {
            Ok(()) => {
                batch.done(offset);
                Ok(Settled::Delivered)
            }
            Err(error) => self.failed(batch, &delivery, cut(&error.to_string())).await,
        }
    }

    /// Keep how far the batch came. Also to be called for one that was given up between two deliveries.
    pub async fn keep(&self, batch: Box<Batch>) -> Result<()> {
        let (space, place_key) = (&self.inner.space, &batch.fence.place_key);
        let mut transaction = self.inner.store.begin(&self.view());
        batch.fence.guard(&mut transaction)?;
        match &batch.source {
            Source::Topic { position, done: Some(done) } => {
                transaction.put(space, place_key, write(&position.done_to(*done))?)?;
            }
            Source::SpentLetter => {
                transaction.delete(space, place_key)?;
                transaction.add(space, &keys::dead_count(&batch.subscription.name), -1)?;
            }
            Source::Topic { done: None, .. } | Source::DeadLetter(_) => return Ok(()),
        }
        self.inner.store.commit(transaction).await.map(|_| ())
    }

    /// Whether the subscriber's own transaction has moved the place over this event; if so the batch goes on from there.
    fn was_committed(&self, batch: &mut Batch, offset: Offset) -> Result<bool> {
        let now = self.view().get(&self.inner.space, &batch.fence.place_key)?;
        if now.as_ref() == Some(&batch.fence.place) {
            return Ok(false);
        }
        let expect = batch.source.after(offset)?;
        if now.as_ref() != Some(&expect) {
            return Err(Error::conflict("the delivery's place was moved by somebody else; the batch is over"));
        }
        match &mut batch.source {
            Source::Topic { position, done } => {
                *position = position.done_to(offset);
                *done = None;
            }
            source => *source = Source::SpentLetter,
        }
        batch.fence.place = expect;
        Ok(true)
    }

    /// In one transaction: what was delivered before is kept, and the failure is counted, or ends in a dead letter.
    async fn failed(&self, batch: &mut Batch, delivery: &Delivery, reason: String) -> Result<Settled> {
        batch.events.clear();
        let retry = &batch.subscription.retry;
        let failures = delivery.attempt.min(retry.attempts);
        let now_ms = self.inner.clock.now_ms();
        let at_ms = later(now_ms, retry.backoff().delay_ms(failures, self.unit()));
        let view = self.view();
        let mut transaction = self.inner.store.begin(&view);
        batch.fence.guard(&mut transaction)?;
        let is_last = failures >= retry.attempts && self.has_room(&view, batch)?;
        if is_last {
            self.bury(&mut transaction, &view, batch, delivery, (failures, reason, now_ms))?;
        } else {
            self.put_off(&mut transaction, batch, delivery, (failures, reason, at_ms))?;
        }
        self.inner.store.commit(transaction).await?;
        if let Source::Topic { done, .. } = &mut batch.source {
            // It was kept with the failure.
            *done = None;
        }
        Ok(if is_last { Settled::Dead } else { Settled::Retried { at_ms } })
    }

    /// A full house of dead letters loses nothing: the event waits at the head of its topic. A letter has its room already.
    fn has_room(&self, view: &View, batch: &Batch) -> Result<bool> {
        let name = &batch.subscription.name;
        if !matches!(batch.source, Source::Topic { .. }) || self.count_dead(view, name)? < DEAD_LETTERS_MAX {
            return Ok(true);
        }
        tracing::error!(
            subscription = name,
            "there are {DEAD_LETTERS_MAX} dead letters already, so a failing event holds up its topic; retry or drop some"
        );
        Ok(false)
    }

    fn bury(
        &self,
        transaction: &mut Transaction,
        view: &View,
        batch: &Batch,
        delivery: &Delivery,
        (failures, reason, dead_ms): (u32, String, i64),
    ) -> Result<()> {
        let (space, name, event) = (&self.inner.space, &batch.subscription.name, &delivery.event);
        let key = keys::dead(name, &event.topic, event.offset);
        // There may be one already, when the subscription was moved back over it.
        transaction.expect_unchanged(space, &key)?;
        let mut count = i64::from(view.get(space, &key)?.is_none());
        match &batch.source {
            Source::Topic { position, .. } => {
                transaction.put(space, &batch.fence.place_key, write(&position.done_to(event.offset))?)?;
            }
            Source::DeadLetter(_) | Source::SpentLetter => {
                transaction.delete(space, &batch.fence.place_key)?;
                count -= 1;
            }
        }
        if count != 0 {
            transaction.add(space, &keys::dead_count(name), count)?;
        }
        tracing::warn!(
            delivery = delivery.id(),
            topic = event.topic,
            failures,
            reason,
            "an event is a dead letter now"
        );
        let letter = DeadLetter { event: (**event).clone(), failures, reason, dead_ms, retry_at_ms: None };
        transaction.put(space, &key, letter.encode()?)
    }

    fn put_off(
        &self,
        transaction: &mut Transaction,
        batch: &Batch,
        delivery: &Delivery,
        (failures, reason, at_ms): (u32, String, i64),
    ) -> Result<()> {
        let (space, place_key) = (&self.inner.space, &batch.fence.place_key);
        match &batch.source {
            Source::Topic { position, done } => {
                let reached = done.map_or_else(|| position.clone(), |done| position.done_to(done));
                let waiting = Position { failures, not_before_ms: at_ms, reason: Some(reason), ..reached };
                transaction.put(space, place_key, write(&waiting)?)
            }
            Source::DeadLetter(letter) => {
                let letter = DeadLetter { failures, reason, ..(**letter).clone() };
                let Event { topic, offset, .. } = &*delivery.event;
                transaction.delete(space, place_key)?;
                let key = keys::retried(&batch.subscription.name, at_ms, topic, *offset);
                transaction.put(space, &key, letter.encode()?)
            }
            // What is spent was delivered, so nothing of it can fail.
            Source::SpentLetter => Ok(()),
        }
    }

    /// A number from 0 to 1.
    fn unit(&self) -> f64 {
        (self.inner.random.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn later(now_ms: i64, by_ms: u64) -> i64 {
    now_ms.saturating_add_unsigned(by_ms)
}

/// Reasons are kept with the place, so they are bounded.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
