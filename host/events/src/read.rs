//! Reading topics: pages for people, places by time, and how far behind a subscription is.
//!
//! Owns everything that only reads. A place by time is found through a sparse index that maintenance writes
//! ([`crate::retention`]): its entries say up to which offset no event is younger than a time, so they sort by both, and
//! finding is one look in the index and at most a few hundred events read behind it. The clock may jump: what is found is the
//! first event, in the order of the topic, that is as young as asked, so nothing that young is left out.
//!
//! Bounded by [`crate::limits`]. On failure: typed errors.

use mainstay_base::Result;
use mainstay_store::{KeyRange, ScanOptions, View};
use schemars::JsonSchema;
use serde::Serialize;

use crate::event::{Event, Offset, check_topic, decode as decode_event, time_of};
use crate::events::{Events, decode};
use crate::keys;
use crate::limits::{LAG_COUNT_MAX, MAINTENANCE_PAGE, READ_MAX};
use crate::subscription::{Position, SubscriptionRecord, check_subscription_name};

/// Some events of a topic, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// Whether there are more behind them.
    pub is_more: bool,
}

/// How far behind a subscription is in one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Lag {
    /// Which topic.
    pub topic: String,
    /// How far it has come.
    pub position: Position,
    /// Events that wait, counted up to [`LAG_COUNT_MAX`].
    pub waiting: u32,
    /// Whether there are more than were counted.
    pub is_more: bool,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest_age_ms: Option<u64>,
}

impl Events {
    /// Events of a topic behind an offset, oldest first; at most `limit`, and no more than fit into four megabytes.
    pub fn read(&self, topic: &str, after: Option<Offset>, limit: u32) -> Result<EventPage> {
        check_topic(topic)?;
        self.read_at(&self.view(), topic, after.unwrap_or(Offset::START), limit.min(READ_MAX))
    }

    pub(crate) fn read_at(&self, view: &View, topic: &str, after: Offset, limit: u32) -> Result<EventPage> {
        let options = ScanOptions { limit: limit.max(1), ..ScanOptions::default() };
        let page = view.scan(&self.inner.space, &[behind(topic, after)], &options)?;
        let mut events = Vec::with_capacity(page.count as usize);
        for (key, value) in &page {
            let Some(offset) = keys::offset_at_end(key) else { continue };
            events.push(decode_event(topic, offset, value)?);
        }
        Ok(EventPage { events, is_more: page.next.is_some() })
    }

    /// The offset to read behind in order to begin with the first event that is as young as this time; behind everything
    /// when there is none.
    pub fn offset_at(&self, topic: &str, time_ms: i64) -> Result<Offset> {
        check_topic(topic)?;
        self.find(&self.view(), topic, time_ms)
    }

    pub(crate) fn find(&self, view: &View, topic: &str, time_ms: i64) -> Result<Offset> {
        let older = KeyRange { start: keys::index_of(topic), end: Some(keys::index_end(topic, time_ms)) };
        let last = ScanOptions { reverse: true, keys_only: true, limit: 1, after: None };
        let indexed = view.scan(&self.inner.space, &[older], &last)?;
        let mut after = indexed.iter().next().and_then(|(key, _)| keys::offset_at_end(key)).unwrap_or(Offset::START);
        loop {
            let page = self.scan(view, behind(topic, after), MAINTENANCE_PAGE)?;
            if page.is_empty() {
                return Ok(Offset::end_of(view.sequence()));
            }
            for (key, value) in page {
                let Some(offset) = keys::offset_at_end(&key) else { continue };
                if time_of(topic, offset, &value)? >= time_ms {
                    return Ok(after);
                }
                after = offset;
            }
        }
    }

    /// Names of topics that hold events or have settings, in order.
    pub fn topics(&self) -> Result<Vec<String>> {
        let view = self.view();
        let mut names = std::collections::BTreeSet::new();
        for (key, _) in self.scan(&view, KeyRange::prefix(keys::TOPICS), u32::from(u16::MAX))? {
            names.extend(keys::name_at_end(&key).map(str::to_owned));
        }
        // From each topic's first event to behind its last one.
        let mut rest = KeyRange::prefix(keys::EVENTS);
        let first = ScanOptions { keys_only: true, limit: 1, ..ScanOptions::default() };
        loop {
            let page = view.scan(&self.inner.space, std::slice::from_ref(&rest), &first)?;
            let Some(topic) = page.iter().next().and_then(|(key, _)| keys::topic_of_event(key)) else { break };
            rest.start = KeyRange::prefix(&keys::events_of(&topic)).end.unwrap_or_default();
            names.insert(topic);
        }
        Ok(names.into_iter().collect())
    }

    /// How far behind a subscription is; nothing when there is no such subscription.
    pub fn lag(&self, subscription: &str) -> Result<Vec<Lag>> {
        check_subscription_name(subscription)?;
        let (view, space) = (self.view(), &self.inner.space);
        let record = view.get(space, &keys::subscription(subscription))?;
        let Some(record) = decode::<SubscriptionRecord>(record, "subscription", subscription)? else {
            return Ok(Vec::new());
        };
        let mut lags = Vec::new();
        for topic in record.subscription.topics {
            let position = view.get(space, &keys::position(&topic, subscription))?;
            let Some(position) = decode::<Position>(position, "place", subscription)? else { continue };
            let options = ScanOptions { keys_only: true, limit: LAG_COUNT_MAX, ..ScanOptions::default() };
            let waiting = view.scan(space, &[behind(&topic, position.after)], &options)?;
            let oldest = self.read_at(&view, &topic, position.after, 1)?.events.pop();
            let age_ms = oldest.map(|event| self.inner.clock.now_ms().saturating_sub(event.time_ms).max(0) as u64);
            let (waiting, is_more) = (waiting.count, waiting.next.is_some());
            lags.push(Lag { topic, position, waiting, is_more, oldest_age_ms: age_ms });
        }
        Ok(lags)
    }
}

/// The keys of a topic's events behind an offset.
pub(crate) fn behind(topic: &str, after: Offset) -> KeyRange {
    let mut range = KeyRange::prefix(&keys::events_of(topic));
    range.start = [&keys::event(topic, after)[..], &[0]].concat();
    range
}
