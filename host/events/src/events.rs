//! The door: topics and subscriptions as publishers, operators and other rooms see them.
//!
//! Owns [`Events`]: adding events to somebody's transaction, and everything that is said about subscriptions. It keeps
//! nothing in memory that is not in the store, so it can be dropped at any moment, and several may work on one store:
//! whoever is overtaken tries again on what is true then ([`Events::transact`]). Reading is in [`crate::read`], delivering in
//! [`crate::deliver`].
//!
//! Publishing is one append to the caller's transaction and guards nothing, so it never conflicts. Bounded by
//! [`crate::limits`]. On failure: typed errors; a change that could not be made has changed nothing.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Clock, Error, ErrorKind, Random, Result};
use mainstay_store::{KeyRange, ScanOptions, Space, Store, Transaction, View};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::event::{Offset, Publication, encode};
use crate::keys::{self, Key};
use crate::limits::{SUBSCRIPTIONS_MAX, TRIES_MAX};
use crate::subscription::{Position, Start, Subscription, SubscriptionRecord, check_subscription_name};

/// Durable topics on a store. Clones are the same.
#[derive(Clone)]
pub struct Events {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub space: Space,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Counts the wake-ups.
    pub changed: watch::Sender<u64>,
}

impl Events {
    /// Topics of this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Events {
        let (space, changed) = (Space::host("events"), watch::Sender::new(0));
        Events { inner: Arc::new(Inner { store, space, clock, random, changed }) }
    }

    /// Publish an event when this transaction commits, and not otherwise. Events of one topic are in the order of their
    /// commits, and within one of these calls. Call [`Events::wake`] behind the commit, or the event is delivered at the
    /// driver's next look.
    pub fn add(&self, transaction: &mut Transaction, publication: Publication) -> Result<()> {
        publication.check()?;
        let key = keys::events_of(&publication.topic);
        let event = encode(publication, self.inner.clock.now_ms())?;
        transaction.append(&self.inner.space, &key, event)
    }

    /// Publish an event by itself.
    pub async fn publish(&self, publication: Publication) -> Result<()> {
        let mut transaction = self.inner.store.begin(&self.view());
        self.add(&mut transaction, publication)?;
        self.inner.store.commit(transaction).await?;
        self.wake();
        Ok(())
    }

    /// Something may have to be delivered.
    pub fn wake(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// Subscribe, or change a subscription. Topics that it had keep their place; new ones begin where the subscription says;
    /// what it does not name any more is forgotten. The same again changes nothing.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<SubscriptionRecord> {
        subscription.check()?;
        self.transact(|change| {
            let key = keys::subscription(&subscription.name);
            let before = change.read::<SubscriptionRecord>(key.clone(), "subscription", &subscription.name)?;
            if let Some(before) = before.as_ref().filter(|before| before.subscription == subscription) {
                return Ok(before.clone());
            }
            if before.is_none() {
                check_room(change)?;
            }
            let known = before.as_ref().map_or(&[][..], |before| &before.subscription.topics);
            for topic in subscription.topics.iter().filter(|topic| !known.contains(topic)) {
                let after = self.start_in(change, topic, subscription.start)?;
                let position = Position::at(after, change.view.sequence());
                change.put(keys::position(topic, &subscription.name), &position)?;
            }
            for topic in known.iter().filter(|topic| !subscription.topics.contains(topic)) {
                change.delete(&keys::position(topic, &subscription.name))?;
            }
            let record = SubscriptionRecord {
                subscription: subscription.clone(),
                created_ms: before.as_ref().map_or(change.now_ms, |before| before.created_ms),
                paused: before.is_some_and(|before| before.paused),
            };
            change.put(key, &record)?;
            Ok(record)
        })
        .await
    }

    /// Forget a subscription, its places and its dead letters. One that is not there is no error.
    pub async fn unsubscribe(&self, subscription: &str) -> Result<()> {
        check_subscription_name(subscription)?;
        self.transact(|change| {
            let key = keys::subscription(subscription);
            let Some(record) = change.read::<SubscriptionRecord>(key.clone(), "subscription", subscription)? else {
                return Ok(());
            };
            for topic in &record.subscription.topics {
                change.delete(&keys::position(topic, subscription))?;
            }
            // The token stays, and grows: an owner of an old one must never speak for a new subscription of this name.
            if let Some(token) = change.read::<u64>(keys::token(subscription), "token", subscription)? {
                change.put(keys::token(subscription), &(token + 1))?;
            }
            for key in [key, keys::lease(subscription), keys::dead_count(subscription)] {
                change.delete(&key)?;
            }
            change.clear(&keys::dead_of(subscription))?;
            change.clear(&keys::retried_of(subscription))
        })
        .await
    }

    /// Deliver nothing until it is resumed; a batch that is on its way is finished.
    pub async fn pause(&self, subscription: &str) -> Result<SubscriptionRecord> {
        self.set_paused(subscription, true).await
    }

    /// Deliver again.
    pub async fn resume(&self, subscription: &str) -> Result<SubscriptionRecord> {
        self.set_paused(subscription, false).await
    }

    async fn set_paused(&self, subscription: &str, paused: bool) -> Result<SubscriptionRecord> {
        self.transact(|change| {
            let mut record = change.subscription(subscription)?;
            if record.paused != paused {
                record.paused = paused;
                change.put(keys::subscription(subscription), &record)?;
            }
            Ok(record)
        })
        .await
    }

    /// Move a subscription to where it would begin, in all its topics or in one: back to deliver again, or forward to skip.
    /// Deliveries that are on their way do not move it back. Dead letters stay.
    pub async fn seek(&self, subscription: &str, topic: Option<&str>, to: Start) -> Result<()> {
        self.transact(|change| {
            let record = change.subscription(subscription)?;
            let topics = &record.subscription.topics;
            if let Some(topic) = topic.filter(|topic| !topics.iter().any(|known| known == topic)) {
                return Err(Error::not_found(format!("subscription `{subscription}` has no topic `{topic}`")));
            }
            for name in topics.iter().filter(|name| topic.is_none_or(|topic| topic == *name)) {
                let after = self.start_in(change, name, to)?;
                let before = change.position(name, subscription)?;
                let moved = Position { moved: before.moved + 1, ..before.done_to(after) };
                change.put(keys::position(name, subscription), &moved)?;
            }
            Ok(())
        })
        .await
    }

    /// A subscription.
    pub fn subscription(&self, name: &str) -> Result<Option<SubscriptionRecord>> {
        check_subscription_name(name)?;
        decode(self.view().get(&self.inner.space, &keys::subscription(name))?, "subscription", name)
    }

    /// All subscriptions, by name.
    pub fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>> {
        let mut records = Vec::new();
        for (key, value) in self.scan(&self.view(), KeyRange::prefix(keys::SUBSCRIPTIONS), SUBSCRIPTIONS_MAX as u32)? {
            let name = keys::name_at_end(&key).unwrap_or_default();
            records.extend(decode(Some(value), "subscription", name)?);
        }
        Ok(records)
    }

    fn start_in(&self, change: &Change<'_>, topic: &str, start: Start) -> Result<Offset> {
        match start {
            Start::Earliest => Ok(Offset::START),
            Start::Latest => Ok(Offset::end_of(change.view.sequence())),
            Start::Time { time_ms } => self.find(&change.view, topic, time_ms),
        }
    }

    pub(crate) fn view(&self) -> View {
        self.inner.store.view()
    }

    /// The first entries of a range.
    pub(crate) fn scan(&self, view: &View, range: KeyRange, limit: u32) -> Result<Vec<(Key, Bytes)>> {
        let options = ScanOptions { limit: limit.max(1), ..ScanOptions::default() };
        let page = view.scan(&self.inner.space, &[range], &options)?;
        Ok(page.iter().map(|(key, value)| (key.to_vec(), Bytes::copy_from_slice(value))).collect())
    }

    /// Decide on one view, and commit; again on a newer one when somebody else was first.
    pub(crate) async fn transact<T>(&self, decide: impl Fn(&mut Change<'_>) -> Result<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (decided, transaction) = {
                let view = self.view();
                let transaction = self.inner.store.begin(&view);
                let now_ms = self.inner.clock.now_ms();
                let mut change = Change { space: &self.inner.space, view, transaction, now_ms, is_written: false };
                let decided = decide(&mut change)?;
                (decided, change.is_written.then_some(change.transaction))
            };
            let Some(transaction) = transaction else { return Ok(decided) };
            match self.inner.store.commit(transaction).await {
                Ok(_) => {
                    self.wake();
                    return Ok(decided);
                }
                Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn check_room(change: &Change<'_>) -> Result<()> {
    let options = ScanOptions { limit: SUBSCRIPTIONS_MAX as u32, keys_only: true, ..ScanOptions::default() };
    let known = change.view.scan(change.space, &[KeyRange::prefix(keys::SUBSCRIPTIONS)], &options)?;
    if (known.count as usize) < SUBSCRIPTIONS_MAX {
        return Ok(());
    }
    Err(Error::exhausted(format!("there are {SUBSCRIPTIONS_MAX} subscriptions already; remove one that nobody needs")))
}

/// One transaction of this room, while it is put together: whatever is read and decides something is guarded.
pub(crate) struct Change<'a> {
    pub space: &'a Space,
    pub view: View,
    pub transaction: Transaction,
    pub now_ms: i64,
    is_written: bool,
}

impl Change<'_> {
    /// A record that nobody may change before this commits.
    pub fn read<T: DeserializeOwned>(&mut self, key: Key, what: &str, name: &str) -> Result<Option<T>> {
        self.transaction.expect_unchanged(self.space, &key)?;
        decode(self.view.get(self.space, &key)?, what, name)
    }

    /// The subscription, or why there is none.
    pub fn subscription(&mut self, name: &str) -> Result<SubscriptionRecord> {
        check_subscription_name(name)?;
        let record = self.read(keys::subscription(name), "subscription", name)?;
        record.ok_or_else(|| Error::not_found(format!("there is no subscription `{name}`; subscribe first")))
    }

    pub fn position(&mut self, topic: &str, subscription: &str) -> Result<Position> {
        let position = self.read(keys::position(topic, subscription), "place", subscription)?;
        position.ok_or_else(|| Error::not_found(format!("subscription `{subscription}` has no topic `{topic}`")))
    }

    pub fn put(&mut self, key: Key, value: &impl Serialize) -> Result<()> {
        self.put_bytes(&key, write(value)?)
    }

    pub fn put_bytes(&mut self, key: &[u8], value: Bytes) -> Result<()> {
        self.is_written = true;
        self.transaction.put(self.space, key, value)
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.is_written = true;
        self.transaction.delete(self.space, key)
    }

    pub fn count(&mut self, key: &[u8], amount: i64) -> Result<()> {
        self.is_written = true;
        self.transaction.add(self.space, key, amount)
    }

    /// Remove every key that starts so.
    pub fn clear(&mut self, prefix: &[u8]) -> Result<()> {
        self.clear_range(&KeyRange::prefix(prefix))
    }

    pub fn clear_range(&mut self, range: &KeyRange) -> Result<()> {
        self.is_written = true;
        self.transaction.delete_range(self.space, range)
    }
}

pub(crate) fn write(value: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(value);
    bytes.map(Bytes::from).map_err(|error| Error::internal("a record could not be written down").with_source(error))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: Option<Bytes>, what: &str, name: &str) -> Result<Option<T>> {
    let Some(bytes) = bytes else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let hint = "`mainstay doctor` reads everything and says more";
        Error::internal(format!("the record of {what} `{name}` is damaged: {error}; {hint}")).with_source(error)
    })
}
