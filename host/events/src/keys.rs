//! How topics lie in the ordered keys.
//!
//! Owns every key of this room's space. Separate so that the order which makes finding cheap is in one place: names stand
//! behind their length so that none is a prefix of another, offsets and times as bytes that sort like the numbers. The first
//! byte says what a key is:
//!
//! | first | then | holds |
//! | --- | --- | --- |
//! | `e` | topic, offset | an event |
//! | `i` | topic, time, offset | no event up to this offset is younger than this time |
//! | `t` | topic | how long its events are kept, and what is known of them |
//! | `s` | subscription | what was subscribed to |
//! | `o` | topic, subscription | how far the subscription has come in the topic |
//! | `l` | subscription | who delivers for it, and until when |
//! | `k` | subscription | the fencing token of the newest owner |
//! | `x` | subscription, topic, offset | a dead letter |
//! | `y` | subscription, time, topic, offset | a dead letter that is tried again at that time |
//! | `c` | subscription | how many of both there are |
//!
//! Bounded by the lengths of names. Reading a key that is not laid out so is none, never a guess.

use crate::event::Offset;

/// A key.
pub(crate) type Key = Vec<u8>;

pub(crate) const EVENTS: &[u8] = b"e";
pub(crate) const TOPICS: &[u8] = b"t";
pub(crate) const SUBSCRIPTIONS: &[u8] = b"s";

fn ordered(number: i64) -> [u8; 8] {
    ((number as u64) ^ (1 << 63)).to_be_bytes()
}

fn number(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

fn counted(name: &str) -> Key {
    // Names have at most 128 bytes.
    [&[name.len() as u8], name.as_bytes()].concat()
}

fn below(first: u8, name: &str, rest: &[u8]) -> Key {
    [&[first], &counted(name)[..], rest].concat()
}

/// Where a topic's events are appended.
pub(crate) fn events_of(topic: &str) -> Key {
    below(b'e', topic, &[])
}

pub(crate) fn event(topic: &str, offset: Offset) -> Key {
    below(b'e', topic, &offset.to_bytes())
}

/// The topic in the key of one of its events.
pub(crate) fn topic_of_event(key: &[u8]) -> Option<String> {
    let (&length, rest) = key.strip_prefix(EVENTS)?.split_first()?;
    Some(std::str::from_utf8(rest.get(..length as usize)?).ok()?.to_owned())
}

/// The offset at the end of a key.
pub(crate) fn offset_at_end(key: &[u8]) -> Option<Offset> {
    key.last_chunk().map(|bytes| Offset::from_bytes(*bytes))
}

pub(crate) fn index_of(topic: &str) -> Key {
    below(b'i', topic, &[])
}

pub(crate) fn index(topic: &str, time_ms: i64, offset: Offset) -> Key {
    below(b'i', topic, &[&ordered(time_ms)[..], &offset.to_bytes()].concat())
}

/// The first key behind every entry that is older than this time.
pub(crate) fn index_end(topic: &str, time_ms: i64) -> Key {
    below(b'i', topic, &ordered(time_ms))
}

pub(crate) fn topic(name: &str) -> Key {
    [TOPICS, name.as_bytes()].concat()
}

pub(crate) fn subscription(name: &str) -> Key {
    [SUBSCRIPTIONS, name.as_bytes()].concat()
}

pub(crate) fn position(topic: &str, subscription: &str) -> Key {
    below(b'o', topic, subscription.as_bytes())
}

pub(crate) fn positions_of(topic: &str) -> Key {
    below(b'o', topic, &[])
}

/// The subscription at the end of a position's key.
pub(crate) fn subscription_of_position<'a>(key: &'a [u8], topic: &str) -> Option<&'a str> {
    std::str::from_utf8(key.get(positions_of(topic).len()..)?).ok()
}

/// What follows the first byte.
pub(crate) fn name_at_end(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(1..)?).ok()
}

pub(crate) fn lease(subscription: &str) -> Key {
    [b"l", subscription.as_bytes()].concat()
}

pub(crate) fn token(subscription: &str) -> Key {
    [b"k", subscription.as_bytes()].concat()
}

pub(crate) fn dead_of(subscription: &str) -> Key {
    below(b'x', subscription, &[])
}

pub(crate) fn dead(subscription: &str, topic: &str, offset: Offset) -> Key {
    below(b'x', subscription, &[&counted(topic)[..], &offset.to_bytes()].concat())
}

pub(crate) fn retried_of(subscription: &str) -> Key {
    below(b'y', subscription, &[])
}

pub(crate) fn retried(subscription: &str, at_ms: i64, topic: &str, offset: Offset) -> Key {
    below(b'y', subscription, &[&ordered(at_ms)[..], &counted(topic), &offset.to_bytes()].concat())
}

/// When a dead letter is tried again, by its key.
pub(crate) fn retried_at_ms(key: &[u8], subscription: &str) -> Option<i64> {
    Some(number(*key.get(retried_of(subscription).len()..)?.first_chunk()?))
}

pub(crate) fn dead_count(subscription: &str) -> Key {
    [b"c", subscription.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offset((sequence, operation): (u64, u16)) -> Offset {
        Offset { sequence, operation }
    }

    proptest! {
        #[test]
        fn keys_sort_like_what_they_stand_for(a: (i64, (u64, u16)), b: (i64, (u64, u16))) {
            let (at, bt) = (offset(a.1), offset(b.1));
            prop_assert_eq!(event("t", at) < event("t", bt), at < bt);
            prop_assert_eq!(index("t", a.0, at) < index("t", b.0, bt), (a.0, at) < (b.0, bt));
            prop_assert_eq!(index("t", a.0, at) < index_end("t", b.0), a.0 < b.0);
            prop_assert_eq!(retried_at_ms(&retried("s", a.0, "t", at), "s"), Some(a.0));
            prop_assert_eq!(offset_at_end(&event("t", at)), Some(at));
        }
    }

    #[test]
    fn no_name_is_a_prefix_of_another() {
        assert!(!event("ab", Offset::START).starts_with(&events_of("a")));
        assert_eq!(topic_of_event(&event("a/b", Offset::START)).unwrap(), "a/b");
        assert_eq!(subscription_of_position(&position("t", "sub"), "t"), Some("sub"));
        assert_eq!(topic_of_event(b"e\x05ab"), None);
    }
}
