//! One event: what is published, and what is read back.
//!
//! Owns [`Publication`], [`Event`], [`Offset`] and how an event is written down: a small JSON head behind its length, then
//! the payload as it came. Separate from topics, because an event's form outlives every subscription. Bounded by
//! [`crate::limits`]. On failure: what is malformed is `invalid` and says which part; stored bytes that cannot be read are
//! `internal`, with the topic and offset.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use mainstay_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{
    CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, KIND_BYTES_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, TRACE_STATE_BYTES_MAX,
};

/// The content type of [`Publication::json`].
pub const JSON: &str = "application/json";

/// A place in a topic: the commit that an event came with, and which operation of it. Grows with every event, in every topic
/// of the store. As text `SEQUENCE-OPERATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Offset {
    /// The commit's number in the log.
    pub sequence: u64,
    /// The operation's number in the commit.
    pub operation: u16,
}

impl Offset {
    /// Before every event.
    pub const START: Offset = Offset { sequence: 0, operation: 0 };

    /// Behind everything that the commit published.
    pub const fn end_of(sequence: u64) -> Offset {
        Offset { sequence, operation: u16::MAX }
    }

    pub(crate) fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.operation.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; 10]) -> Offset {
        let number = bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        Offset { sequence: (number >> 16) as u64, operation: number as u16 }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sequence, self.operation)
    }
}

impl FromStr for Offset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Offset> {
        let parts = text.split_once('-').and_then(|(sequence, operation)| {
            Some(Offset { sequence: sequence.parse().ok()?, operation: operation.parse().ok()? })
        });
        parts.ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::invalid(format!("`{shown}` is no offset; one looks like `42-0`"))
        })
    }
}

impl From<Offset> for String {
    fn from(offset: Offset) -> String {
        offset.to_string()
    }
}

impl TryFrom<String> for Offset {
    type Error = Error;

    fn try_from(text: String) -> Result<Offset> {
        text.parse()
    }
}

impl JsonSchema for Offset {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Offset".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[0-9]+-[0-9]+$"})
    }
}

/// What a publisher says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where; lower-case words of letters, digits, `-` and `.`, joined by `/`.
    pub topic: String,
    /// Who says it.
    pub publisher: String,
    /// What kind of event it is, for example `version-created`.
    pub kind: String,
    /// What it is about; events with one key are not told apart here, subscribers may.
    pub key: Option<String>,
    /// What the payload is.
    pub content_type: String,
    /// The event's body.
    pub payload: Bytes,
    /// The W3C trace that it happened in.
    pub trace: Option<TraceContext>,
}

/// W3C trace context, as it stands in the headers of those names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TraceContext {
    /// Trace, span and flags.
    pub traceparent: String,
    /// What the tracing systems on the way added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Publication {
    /// An event without key and trace.
    pub fn new(
        topic: impl Into<String>,
        publisher: impl Into<String>,
        kind: impl Into<String>,
        content_type: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Publication {
        Publication {
            topic: topic.into(),
            publisher: publisher.into(),
            kind: kind.into(),
            key: None,
            content_type: content_type.into(),
            payload: payload.into(),
            trace: None,
        }
    }

    /// The same, with a JSON document as payload.
    pub fn json(
        topic: impl Into<String>,
        publisher: impl Into<String>,
        kind: impl Into<String>,
        document: &serde_json::Value,
    ) -> Publication {
        Publication::new(topic, publisher, kind, JSON, document.to_string())
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_topic(&self.topic)?;
        check_text("publisher", &self.publisher, 1, NAME_BYTES_MAX)?;
        check_text("kind", &self.kind, 1, KIND_BYTES_MAX)?;
        check_text("content type", &self.content_type, 1, CONTENT_TYPE_BYTES_MAX)?;
        if let Some(key) = &self.key {
            check_text("key", key, 0, KEY_BYTES_MAX)?;
        }
        if let Some(trace) = &self.trace {
            trace.check()?;
        }
        let bytes = self.payload.len();
        if bytes <= PAYLOAD_BYTES_MAX {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the payload has {bytes} bytes; at most {PAYLOAD_BYTES_MAX} are allowed; keep large things as blobs and name them"
        )))
    }
}

impl TraceContext {
    /// Version 00 of the specification: `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal, neither trace nor span all zero.
    fn check(&self) -> Result<()> {
        let parts: Vec<&str> = self.traceparent.split('-').collect();
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_some = |part: &str| part.bytes().any(|byte| byte != b'0');
        let is_good = match parts[..] {
            ["00", trace, span, flags] => {
                is_hex(trace, 32) && is_some(trace) && is_hex(span, 16) && is_some(span) && is_hex(flags, 2)
            }
            _ => false,
        };
        if !is_good {
            return Err(Error::invalid("the event's `traceparent` is none of the W3C's form `00-TRACE-SPAN-FLAGS`"));
        }
        match &self.tracestate {
            Some(state) => check_text("tracestate", state, 0, TRACE_STATE_BYTES_MAX),
            None => Ok(()),
        }
    }
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub topic: String,
    /// Its place there, and its name: no other event of the store has the same.
    pub offset: Offset,
    /// When it was added to its transaction, in milliseconds since 1970.
    pub time_ms: i64,
    /// Who said it.
    pub publisher: String,
    /// What kind of event it is.
    pub kind: String,
    /// What it is about.
    pub key: Option<String>,
    /// What the payload is.
    pub content_type: String,
    /// The event's body.
    pub payload: Bytes,
    /// The trace that it happened in.
    pub trace: Option<TraceContext>,
}

/// What stands before the payload.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Head {
    time_ms: i64,
    publisher: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    content_type: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    trace: Option<TraceContext>,
}

/// How an event is written down.
pub(crate) fn encode(publication: Publication, time_ms: i64) -> Result<Bytes> {
    let Publication { publisher, kind, key, content_type, payload, trace, .. } = publication;
    pack(&Head { time_ms, publisher, kind, key, content_type, trace }, &payload)
}

/// The same for an event that was read.
pub(crate) fn encode_again(event: &Event) -> Result<Bytes> {
    let Event { time_ms, publisher, kind, key, content_type, trace, .. } = event.clone();
    pack(&Head { time_ms, publisher, kind, key, content_type, trace }, &event.payload)
}

fn pack(head: &Head, payload: &[u8]) -> Result<Bytes> {
    let head = serde_json::to_vec(head)
        .map_err(|error| Error::internal("an event could not be written down").with_source(error))?;
    let mut bytes = BytesMut::with_capacity(4 + head.len() + payload.len());
    bytes.put_u32_le(head.len() as u32);
    bytes.put_slice(&head);
    bytes.put_slice(payload);
    Ok(bytes.freeze())
}

/// Read [`encode`] back.
pub(crate) fn decode(topic: &str, offset: Offset, bytes: &[u8]) -> Result<Event> {
    let parts = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
        let (head, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((serde_json::from_slice::<Head>(head).ok()?, payload))
    });
    let (head, payload) = parts.ok_or_else(|| damaged(topic, offset))?;
    let Head { time_ms, publisher, kind, key, content_type, trace } = head;
    let payload = Bytes::copy_from_slice(payload);
    Ok(Event { topic: topic.to_owned(), offset, time_ms, publisher, kind, key, content_type, payload, trace })
}

/// When an event was published; no more of it is read.
pub(crate) fn time_of(topic: &str, offset: Offset, bytes: &[u8]) -> Result<i64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Time {
        time_ms: i64,
    }
    let head =
        bytes.split_first_chunk::<4>().and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize));
    let time = head.and_then(|head| serde_json::from_slice::<Time>(head).ok());
    time.map(|time| time.time_ms).ok_or_else(|| damaged(topic, offset))
}

fn damaged(topic: &str, offset: Offset) -> Error {
    let hint = "`mainstay doctor` reads everything and says more";
    Error::internal(format!("event {offset} of topic `{topic}` is damaged; {hint}"))
}

/// Topics are parts of keys, and are shown to people.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_good);
    if topic.len() <= NAME_BYTES_MAX && topic.split('/').all(is_word) {
        return Ok(());
    }
    let shown: String = topic.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::invalid(format!(
        "`{shown}` is no name of a topic; it has at most {NAME_BYTES_MAX} bytes: words of a-z, 0-9, `-` and `.`, joined by `/`"
    )))
}

/// Printable text of some length.
pub(crate) fn check_text(what: &str, text: &str, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let length = text.len();
    Err(Error::invalid(format!("a {what} of {length} bytes; it has {min} to {max}, none of them a control character")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn publication() -> Publication {
        Publication::json("registry/versions", "registry", "created", &serde_json::json!({"n": 1}))
    }

    fn check(change: impl FnOnce(&mut Publication), expect: &str) {
        let mut publication = publication();
        change(&mut publication);
        match publication.check() {
            Ok(()) => assert_eq!(expect, "", "{publication:?}"),
            Err(error) => assert!(!expect.is_empty() && error.message().contains(expect), "{error}"),
        }
    }

    fn traced(traceparent: &str) -> impl FnOnce(&mut Publication) {
        let trace = TraceContext { traceparent: traceparent.into(), tracestate: None };
        move |publication| publication.trace = Some(trace)
    }

    #[test]
    fn publications_are_checked_at_their_limits() {
        check(|_| {}, "");
        check(|p| p.topic = "a".repeat(128), "");
        check(|p| p.topic = "a".repeat(129), "128");
        for topic in ["", "/a", "a/", "a//b", "A", "a b", "a\0", "ä"] {
            check(|p| p.topic = topic.into(), "no name of a topic");
        }
        check(|p| p.kind = "k".repeat(128), "");
        check(|p| p.kind = "k".repeat(129), "1 to 128");
        check(|p| p.kind = String::new(), "1 to 128");
        check(|p| p.kind = "a\nb".into(), "control character");
        check(|p| p.key = Some("k".repeat(256)), "");
        check(|p| p.key = Some("k".repeat(257)), "0 to 256");
        check(|p| p.content_type = "c".repeat(129), "1 to 128");
        check(|p| p.publisher = "p".repeat(129), "1 to 128");
        check(|p| p.payload = vec![0; 64 << 10].into(), "");
        check(|p| p.payload = vec![0; (64 << 10) + 1].into(), "65536");
    }

    #[test]
    fn trace_contexts_are_those_of_the_specification() {
        // The example of https://www.w3.org/TR/trace-context/.
        check(traced("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), "");
        check(traced("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), "traceparent");
        check(traced("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), "traceparent");
        check(traced("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"), "traceparent");
        check(traced("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), "traceparent");
        check(traced("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"), "traceparent");
        check(traced(""), "traceparent");
    }

    #[test]
    fn what_is_damaged_is_named() {
        let bytes = encode(publication(), 5).unwrap();
        for cut in 0..20 {
            let error = decode("a/b", Offset { sequence: 7, operation: 2 }, &bytes[..cut]).unwrap_err();
            assert!(error.message().contains("7-2") && error.message().contains("a/b"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn an_event_is_read_back_as_it_was_written(
            time_ms: i64,
            key in prop::option::of("[a-z]{0,9}"),
            payload: Vec<u8>,
            state in prop::option::of(prop::option::of("[a-z=]{1,9}")),
            sequence: u64,
            operation: u16,
        ) {
            let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
            let trace = state.map(|tracestate| TraceContext { traceparent, tracestate });
            let offset = Offset { sequence, operation };
            let said = Publication { key, payload: payload.into(), trace, ..publication() };
            let event = decode(&said.topic, offset, &encode(said.clone(), time_ms)?)?;
            prop_assert_eq!(event.time_ms, time_ms);
            prop_assert_eq!(&decode(&said.topic, offset, &encode_again(&event)?)?, &event);
            prop_assert_eq!((event.key, event.payload, event.trace), (said.key, said.payload, said.trace));
            prop_assert_eq!(offset.to_string().parse::<Offset>()?, offset);
        }
    }
}
