//! Events that could not be delivered.
//!
//! Owns [`DeadLetter`] and what an operator does with them: list, try again, drop. A dead letter holds the event itself, so
//! retention does not touch it. It belongs to one subscription: trying again delivers to that one only, out of the topic's
//! order, with all attempts anew. Separate from delivering, which makes them and empties the list of those that are tried
//! again.
//!
//! Bounded: [`DEAD_LETTERS_MAX`](crate::limits::DEAD_LETTERS_MAX) for each subscription; beyond that failing events wait at
//! the head of their topic instead. On failure: nothing of the call has happened.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use mainstay_base::{Error, Result};
use mainstay_store::{KeyRange, ScanOptions, View};
use serde::{Deserialize, Serialize};

use crate::event::{Event, Offset, check_topic, decode as decode_event, encode_again};
use crate::events::{Events, write};
use crate::keys;
use crate::limits::{DEAD_LETTERS_AT_ONCE_MAX, READ_MAX};
use crate::subscription::check_subscription_name;

/// An event that could not be delivered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// Deliveries that failed since it was published, or since it was tried again.
    pub failures: u32,
    /// Why the last one failed.
    pub reason: String,
    /// When it became a dead letter, in milliseconds since 1970.
    pub dead_ms: i64,
    /// When it is tried again; none: nobody has asked for that.
    pub retry_at_ms: Option<i64>,
}

/// Some dead letters, by topic and offset; those that are tried again come last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Give it as `after` to go on.
    pub next: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Head {
    topic: String,
    failures: u32,
    reason: String,
    dead_ms: i64,
}

impl DeadLetter {
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let DeadLetter { event, failures, reason, dead_ms, .. } = self.clone();
        let head = write(&Head { topic: event.topic.clone(), failures, reason, dead_ms })?;
        let event = encode_again(&event)?;
        let mut bytes = BytesMut::with_capacity(4 + head.len() + event.len());
        bytes.put_u32_le(head.len() as u32);
        bytes.put_slice(&head);
        bytes.put_slice(&event);
        Ok(bytes.freeze())
    }

    /// Read it back; the key says whether and when it is tried again.
    pub(crate) fn decode(subscription: &str, key: &[u8], bytes: &[u8]) -> Result<DeadLetter> {
        let parts = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
            let (head, event) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((keys::offset_at_end(key)?, serde_json::from_slice::<Head>(head).ok()?, event))
        });
        let (offset, Head { topic, failures, reason, dead_ms }, event) = parts.ok_or_else(|| {
            let hint = "`mainstay doctor` reads everything and says more";
            Error::internal(format!("a dead letter of subscription `{subscription}` is damaged; {hint}"))
        })?;
        let is_retried = key.starts_with(&keys::retried_of(subscription));
        let retry_at_ms = if is_retried { keys::retried_at_ms(key, subscription) } else { None };
        Ok(DeadLetter { event: decode_event(&topic, offset, event)?, failures, reason, dead_ms, retry_at_ms })
    }
}

impl Events {
    /// Dead letters of a subscription.
    pub fn dead_letters(&self, subscription: &str, after: Option<Vec<u8>>, limit: u32) -> Result<DeadLetterPage> {
        check_subscription_name(subscription)?;
        let ranges = [keys::dead_of(subscription), keys::retried_of(subscription)].map(|key| KeyRange::prefix(&key));
        let options = ScanOptions { limit: limit.clamp(1, READ_MAX), after, ..ScanOptions::default() };
        let page = self.view().scan(&self.inner.space, &ranges, &options)?;
        // An empty one was delivered, and is about to be removed.
        let letters = page.iter().filter(|(_, value)| !value.is_empty());
        let letters = letters.map(|(key, value)| DeadLetter::decode(subscription, key, value));
        Ok(DeadLetterPage { letters: letters.collect::<Result<_>>()?, next: page.next.clone() })
    }

    /// How many dead letters a subscription has, those that are tried again included.
    pub fn dead_letter_count(&self, subscription: &str) -> Result<i64> {
        check_subscription_name(subscription)?;
        self.count_dead(&self.view(), subscription)
    }

    pub(crate) fn count_dead(&self, view: &View, subscription: &str) -> Result<i64> {
        let count = view.get(&self.inner.space, &keys::dead_count(subscription))?;
        let count = count.as_deref().and_then(|bytes| bytes.first_chunk().copied());
        Ok(count.map_or(0, i64::from_le_bytes))
    }

    /// Deliver these again, with all attempts anew. One that is not there is `not-found`, and then none is tried again.
    pub async fn retry_dead_letters(&self, subscription: &str, letters: &[(String, Offset)]) -> Result<()> {
        self.take_dead_letters(subscription, letters, true).await
    }

    /// Forget these. One that is not there is `not-found`, and then none is dropped.
    pub async fn drop_dead_letters(&self, subscription: &str, letters: &[(String, Offset)]) -> Result<()> {
        self.take_dead_letters(subscription, letters, false).await
    }

    async fn take_dead_letters(&self, subscription: &str, letters: &[(String, Offset)], again: bool) -> Result<()> {
        let letters: BTreeSet<&(String, Offset)> = letters.iter().collect();
        let count = letters.len();
        if count > DEAD_LETTERS_AT_ONCE_MAX {
            return Err(Error::invalid(format!("{count} dead letters; at most {DEAD_LETTERS_AT_ONCE_MAX} at once")));
        }
        self.transact(|change| {
            change.subscription(subscription)?;
            for (topic, offset) in letters.iter().copied() {
                check_topic(topic)?;
                let key = keys::dead(subscription, topic, *offset);
                let missing = || {
                    Error::not_found(format!(
                        "subscription `{subscription}` has no dead letter {offset} of topic `{topic}`; list them again"
                    ))
                };
                change.transaction.expect_unchanged(change.space, &key)?;
                let bytes = change.view.get(change.space, &key)?.ok_or_else(missing)?;
                change.delete(&key)?;
                if again {
                    let letter = DeadLetter { failures: 0, ..DeadLetter::decode(subscription, &key, &bytes)? };
                    let key = keys::retried(subscription, change.now_ms, topic, *offset);
                    change.transaction.expect_absent(change.space, &key)?;
                    change.put_bytes(&key, letter.encode()?)?;
                }
            }
            if !again && count > 0 {
                change.count(&keys::dead_count(subscription), -(count as i64))?;
            }
            Ok(())
        })
        .await
    }
}
