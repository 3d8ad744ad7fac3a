//! World `worker`: a plugin that does something because time came, an event happened, or a job wants it done.
//!
//! Enters the exports `duties.on-event`, `duties.on-job` and `duties.on-timer`. On failure: the plugin's typed error as
//! [`CallError::Failed`]; a result that is no JSON is a fault of the plugin.

use mainstay_base::Error;
use mainstay_bindings::WitError;
use mainstay_bindings::mainstay::worker::work::{Attempt as AttemptHandle, Event as EventHandle, Timer as TimerHandle};
use mainstay_runtime::CallError;
use mainstay_schedule::{AttemptContext, Outcome};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::{Exports, failed, not_of};
use crate::imports::work::{WorkEvent, WorkTimer};
use crate::state::State;

/// `duties.on-event`.
pub(crate) async fn on_event(store: &mut Store<State>, all: &Exports, event: WorkEvent) -> wasmtime::Result<()> {
    let worker = all.worker.as_ref().ok_or_else(|| not_of("worker"))?;
    let event: Resource<EventHandle> = store.data_mut().events.add(event)?;
    let answer = worker.call_on_event(&mut *store, event).await;
    finish(store, answer)
}

/// `duties.on-timer`.
pub(crate) async fn on_timer(store: &mut Store<State>, all: &Exports, timer: WorkTimer) -> wasmtime::Result<()> {
    let worker = all.worker.as_ref().ok_or_else(|| not_of("worker"))?;
    let timer: Resource<TimerHandle> = store.data_mut().timers.add(timer)?;
    let answer = worker.call_on_timer(&mut *store, timer).await;
    finish(store, answer)
}

/// `duties.on-job`: what came of the attempt, but for its failures, which are errors here as everywhere.
pub(crate) async fn on_job(
    store: &mut Store<State>,
    all: &Exports,
    attempt: AttemptContext,
) -> wasmtime::Result<Outcome> {
    let worker = all.worker.as_ref().ok_or_else(|| not_of("worker"))?;
    let attempt: Resource<AttemptHandle> = store.data_mut().attempts.add(attempt)?;
    let answer = worker.call_on_job(&mut *store, attempt).await;
    let not_yet = store.data_mut().not_yet.take();
    let result = finish(store, answer)?;
    if let Some(after_ms) = not_yet {
        return Ok(Outcome::NotYet { reason: result, after_ms });
    }
    let result: Value = serde_json::from_str(&result).map_err(|error| {
        CallError::Failed(Error::internal(format!(
            "the plugin's result is no JSON: {error}; this is a fault of the plugin"
        )))
    })?;
    Ok(Outcome::Success { result })
}

/// What a plugin answered; whatever it was, the call is over.
fn finish<T>(store: &mut Store<State>, answer: wasmtime::Result<Result<T, WitError>>) -> wasmtime::Result<T> {
    store.data_mut().end_call();
    answer?.map_err(failed)
}
