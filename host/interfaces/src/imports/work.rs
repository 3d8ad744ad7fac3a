//! `mainstay:worker/work`: what a worker is to do: an event, an attempt at a job, a time.
//!
//! They are put there by the world's entry and die with the call. Bounded by one a call. On failure: a handle of an earlier
//! call ends this one.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::Result as HostResult;
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::keys::Transaction as TransactionHandle;
use mainstay_bindings::mainstay::worker::work::{
    Attempt as AttemptHandle, Event as EventHandle, Host, HostAttempt, HostEvent, HostTimer, Timer as TimerHandle,
};
use mainstay_store::Transaction;
use wasmtime::component::Resource;

use crate::capabilities::KEYS;
use crate::imports::arrays::ended;
use crate::state::State;

/// Events, attempts and timers that a call may hold, of each.
pub const WORK_MAX: usize = 1;

/// Puts into a transaction that an event is done.
pub type Settle = Arc<dyn Fn(&mut Transaction) -> HostResult<()> + Send + Sync>;

/// An event on its way to a worker.
#[derive(Clone)]
pub struct WorkEvent {
    /// Names it; the same at every delivery.
    pub id: String,
    /// Publisher, slash, topic.
    pub topic: String,
    /// What happened.
    pub kind: String,
    /// To what.
    pub key: Option<String>,
    /// JSON.
    pub payload: Bytes,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub published_ms: i64,
    /// W3C trace context of its cause.
    pub traceparent: Option<String>,
    /// 1 at the first delivery.
    pub delivery: u32,
    /// See [`Settle`].
    pub settle: Settle,
}

/// A time on its way to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkTimer {
    /// Its name in the manifest.
    pub name: String,
    /// For when it was meant, in milliseconds since 1970-01-01 UTC.
    pub scheduled_ms: i64,
}

impl Host for State {}

impl HostEvent for State {
    fn id(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.id.clone())
    }

    fn topic(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.topic.clone())
    }

    fn kind(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.kind.clone())
    }

    fn key(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.key.clone())
    }

    fn payload(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<Vec<u8>> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.payload.to_vec())
    }

    fn published_ms(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<i64> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.published_ms)
    }

    fn traceparent(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.traceparent.clone())
    }

    fn delivery(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<u32> {
        let _host = self.ambient()?;
        Ok(self.events.get(&event).map_err(ended)?.delivery)
    }

    fn settle(&mut self, event: Resource<EventHandle>, tx: Resource<TransactionHandle>) -> Result<(), Failure> {
        let _host = self.enter(KEYS)?;
        let settle = self.events.get(&event)?.settle.clone();
        Ok(settle(self.transactions.get(&tx)?)?)
    }

    fn drop(&mut self, event: Resource<EventHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.events.drop(&event);
        Ok(())
    }
}

impl HostAttempt for State {
    fn job(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.attempts.get(&attempt).map_err(ended)?.run.job.clone())
    }

    fn run(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.attempts.get(&attempt).map_err(ended)?.run.id.clone())
    }

    fn number(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<u32> {
        let _host = self.ambient()?;
        Ok(self.attempts.get(&attempt).map_err(ended)?.run.failures + 1)
    }

    fn token(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.attempts.get(&attempt).map_err(ended)?.run.token)
    }

    fn parameters(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        let run = &self.attempts.get(&attempt).map_err(ended)?.run;
        // A map of JSON values always serializes.
        Ok(serde_json::to_string(&run.parameters).unwrap_or_default())
    }

    fn scheduled_ms(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<Option<i64>> {
        let _host = self.ambient()?;
        Ok(self.attempts.get(&attempt).map_err(ended)?.run.scheduled_ms)
    }

    fn log(&mut self, attempt: Resource<AttemptHandle>, line: String) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.attempts.get(&attempt).map_err(ended)?.log.line(&line);
        Ok(())
    }

    fn beat(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.attempts.get(&attempt).map_err(ended)?.heartbeat.beat();
        Ok(())
    }

    fn not_yet(&mut self, attempt: Resource<AttemptHandle>, wait_ms: Option<u64>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.attempts.get(&attempt).map_err(ended)?;
        // Kept with the call: the plugin may drop its handle before it answers.
        self.not_yet = Some(wait_ms);
        Ok(())
    }

    fn drop(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.attempts.drop(&attempt);
        Ok(())
    }
}

impl HostTimer for State {
    fn name(&mut self, timer: Resource<TimerHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.timers.get(&timer).map_err(ended)?.name.clone())
    }

    fn scheduled_ms(&mut self, timer: Resource<TimerHandle>) -> wasmtime::Result<i64> {
        let _host = self.ambient()?;
        Ok(self.timers.get(&timer).map_err(ended)?.scheduled_ms)
    }

    fn drop(&mut self, timer: Resource<TimerHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.timers.drop(&timer);
        Ok(())
    }
}
