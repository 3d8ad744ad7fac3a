//! How long events are kept, and what is known of a topic.
//!
//! Owns [`Retention`] and the one step of maintenance ([`Events::maintain`]): it goes once over every event to count it and to
//! write the index by time, and it removes from the front what is too old or too much. Separate because removing is the one
//! thing here that loses something on purpose.
//!
//! Subscribers that are slow lose nothing that is younger than the topic's age and within its bytes. What a place had not
//! passed when its events were removed is moved over in the same transaction, counted as lost with the place, and logged as an
//! error. A dead letter holds its own copy and loses nothing.
//!
//! Removed is always a row from the front: an event whose clock was ahead keeps the ones behind it until it is old itself, or
//! the topic has too many bytes. Bounded by [`MAINTENANCE_PAGE`] events a step; the answer says whether there is more. On
//! failure: nothing of that step has happened.

use mainstay_base::{Error, Result};
use mainstay_store::KeyRange;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Offset, check_topic, time_of};
use crate::events::{Change, Events, decode};
use crate::keys::{self, Key};
use crate::limits::{INDEX_SPACING, MAINTENANCE_PAGE, SUBSCRIPTIONS_MAX};
use crate::read::behind;
use crate::subscription::{Position, check_span};

/// How long events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Retention {
    /// The age up to which they are kept, in milliseconds.
    pub age_ms: u64,
    /// How many bytes a topic may have; the oldest events go first.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { age_ms: 7 * 24 * 3_600_000, bytes: 1 << 30 }
    }
}

/// A topic as it is kept. Counts are as of the last maintenance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TopicRecord {
    /// How long its events are kept.
    pub retention: Retention,
    /// Events up to here were counted.
    pub counted_to: Option<Offset>,
    /// How many events there are of these.
    pub events: u64,
    /// Their bytes, keys and heads included.
    pub bytes: u64,
    /// How many were removed so far.
    pub removed: u64,
    /// The time of the youngest event that was ever counted.
    pub newest_ms: Option<i64>,
    /// Events that were counted since the last entry of the index.
    #[serde(default)]
    since_index: u64,
}

/// What a step of maintenance came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Events that were counted.
    pub counted: u64,
    /// Events that were removed.
    pub removed: u64,
    /// Removed before they were delivered, summed over subscriptions.
    pub lost: u64,
    /// Whether there is more to do.
    pub is_more: bool,
}

impl Events {
    /// Say how long a topic's events are kept.
    pub async fn set_retention(&self, topic: &str, retention: Retention) -> Result<()> {
        check_topic(topic)?;
        check_span("age-ms", retention.age_ms, 1)?;
        if retention.bytes == 0 {
            return Err(Error::invalid("a topic of 0 bytes keeps nothing; it must be at least 1"));
        }
        self.transact(|change| {
            let record = read(change, topic)?;
            change.put(keys::topic(topic), &TopicRecord { retention, ..record })
        })
        .await
    }

    /// What is known of a topic; none when nothing was said or counted of it yet.
    pub fn topic(&self, topic: &str) -> Result<Option<TopicRecord>> {
        check_topic(topic)?;
        decode(self.view().get(&self.inner.space, &keys::topic(topic))?, "topic", topic)
    }

    /// Count and index some of what is new in a topic, and remove some of what is old.
    pub async fn maintain(&self, topic: &str) -> Result<Maintained> {
        check_topic(topic)?;
        let done = self
            .transact(|change| {
                let mut record = read(change, topic)?;
                let mut done = Maintained::default();
                self.count(change, topic, &mut record, &mut done)?;
                self.remove(change, topic, &mut record, &mut done)?;
                if done.counted + done.removed > 0 {
                    change.put(keys::topic(topic), &record)?;
                }
                Ok(done)
            })
            .await?;
        if done.lost > 0 {
            let lost = done.lost;
            tracing::error!(topic, lost, "events were removed before slow subscriptions got them; keep them longer");
        }
        Ok(done)
    }

    fn count(
        &self,
        change: &mut Change<'_>,
        topic: &str,
        record: &mut TopicRecord,
        done: &mut Maintained,
    ) -> Result<()> {
        let after = record.counted_to.unwrap_or(Offset::START);
        for (key, value) in self.scan(&change.view, behind(topic, after), MAINTENANCE_PAGE)? {
            let Some(offset) = keys::offset_at_end(&key) else { continue };
            let time_ms = time_of(topic, offset, &value)?;
            let newest_ms = record.newest_ms.map_or(time_ms, |newest| newest.max(time_ms));
            record.newest_ms = Some(newest_ms);
            record.counted_to = Some(offset);
            record.events += 1;
            record.bytes += (key.len() + value.len()) as u64;
            record.since_index += 1;
            if record.since_index >= INDEX_SPACING {
                record.since_index = 0;
                change.put_bytes(&keys::index(topic, newest_ms, offset), bytes::Bytes::new())?;
            }
            done.counted += 1;
        }
        // A page may also end because of its bytes; then the next step finds nothing and says so.
        done.is_more |= done.counted > 0;
        Ok(())
    }

    fn remove(
        &self,
        change: &mut Change<'_>,
        topic: &str,
        record: &mut TopicRecord,
        done: &mut Maintained,
    ) -> Result<()> {
        let Retention { age_ms, bytes } = record.retention;
        let oldest_ms = change.now_ms.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
        let mut removed: Vec<Offset> = Vec::new();
        let mut last_key = Key::new();
        for (key, value) in self.scan(&change.view, behind(topic, Offset::START), MAINTENANCE_PAGE)? {
            let Some(offset) = keys::offset_at_end(&key) else { continue };
            let is_counted = record.counted_to.is_some_and(|counted| offset <= counted);
            if !is_counted || (record.bytes <= bytes && time_of(topic, offset, &value)? >= oldest_ms) {
                break;
            }
            record.bytes = record.bytes.saturating_sub((key.len() + value.len()) as u64);
            record.events = record.events.saturating_sub(1);
            record.removed += 1;
            removed.push(offset);
            last_key = key;
        }
        let Some(&last) = removed.last() else { return Ok(()) };
        last_key.push(0);
        change.clear_range(&KeyRange { start: keys::events_of(topic), end: Some(last_key) })?;
        self.remove_index(change, topic, last)?;
        done.lost = self.move_over(change, topic, &removed)?;
        done.removed = removed.len() as u64;
        done.is_more = true;
        Ok(())
    }

    /// Entries of the index that lead to what is removed.
    fn remove_index(&self, change: &mut Change<'_>, topic: &str, last: Offset) -> Result<()> {
        for (key, _) in self.scan(&change.view, KeyRange::prefix(&keys::index_of(topic)), MAINTENANCE_PAGE)? {
            if keys::offset_at_end(&key).is_none_or(|offset| offset > last) {
                break;
            }
            change.delete(&key)?;
        }
        Ok(())
    }

    /// Move the places that lie before the end of what is removed over it. Answers how many events that loses.
    fn move_over(&self, change: &mut Change<'_>, topic: &str, removed: &[Offset]) -> Result<u64> {
        let Some(&last) = removed.last() else { return Ok(0) };
        let mut sum = 0;
        for (key, value) in
            self.scan(&change.view, KeyRange::prefix(&keys::positions_of(topic)), SUBSCRIPTIONS_MAX as u32)?
        {
            let Some(name) = keys::subscription_of_position(&key, topic) else { continue };
            let Some(position) = decode::<Position>(Some(value), "place", name)? else { continue };
            if position.after >= last {
                continue;
            }
            let lost = removed.iter().filter(|offset| **offset > position.after).count() as u64;
            let moved = Position { lost: position.lost + lost, ..position.done_to(last) };
            change.transaction.expect_unchanged(change.space, &key)?;
            change.put(key.clone(), &moved)?;
            sum += lost;
        }
        Ok(sum)
    }
}

fn read(change: &mut Change<'_>, topic: &str) -> Result<TopicRecord> {
    Ok(change.read(keys::topic(topic), "topic", topic)?.unwrap_or_default())
}
