//! `mainstay:host/events`: events as part of the transaction that causes them.
//!
//! A plugin publishes to topics of its own: the host puts its name in front. Bounded by: the limits of the events' room, and of
//! the transaction. On failure: a typed error to the plugin.

use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::events::Host;
use mainstay_bindings::mainstay::host::keys::Transaction;
use mainstay_events::{JSON, Publication, TraceContext};
use wasmtime::component::Resource;

use crate::capabilities::EVENTS_PUBLISH;
use crate::state::State;

impl Host for State {
    fn publish(
        &mut self,
        tx: Resource<Transaction>,
        topic: String,
        kind: String,
        key: Option<String>,
        payload: Vec<u8>,
    ) -> Result<(), Failure> {
        let _host = self.enter(EVENTS_PUBLISH)?;
        check_words(&topic, &kind)?;
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
            return Err(Error::invalid(format!("the event's payload is no JSON: {error}")).into());
        }
        let name = &*self.plugin.name;
        let trace = self.traceparent().map(|traceparent| TraceContext { traceparent, tracestate: None });
        let publication =
            Publication { key, trace, ..Publication::new(format!("{name}/{topic}"), name, kind, JSON, payload) };
        let events = self.plugin.services.events.clone();
        events.add(self.transactions.get(&tx)?, publication)?;
        self.wakes.events = true;
        Ok(())
    }
}

/// Words of the contract: shorter and plainer than what the events' room takes from the host itself.
fn check_words(topic: &str, kind: &str) -> HostResult<()> {
    for (what, word) in [("topic", topic), ("kind", kind)] {
        let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if !(1..=64).contains(&word.len()) || !word.bytes().all(is_good) {
            let shown: String = word.chars().take(64).collect();
            return Err(Error::invalid(format!(
                "`{}` is no {what} of an event; it has 1 to 64 of a-z, 0-9, `-` and `.`",
                shown.escape_debug()
            )));
        }
    }
    Ok(())
}
