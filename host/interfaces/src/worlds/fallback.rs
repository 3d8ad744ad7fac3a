//! World `fallback`: a plugin that answers while a model cannot.
//!
//! Enters the exports `answers.answer` and, where there is one, `learns.learn`. On failure: the plugin's typed error as
//! [`CallError::Failed`]; an answer without outputs is a fault of the plugin.

use std::time::Instant;

use mainstay_base::Error;
use mainstay_bindings::mainstay::fallback::asks::{Ask as AskHandle, Lesson as LessonHandle};
use mainstay_runtime::CallError;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::{Exports, failed, not_of};
use crate::imports::asks::{FallbackAsk, FallbackReply, Lesson};
use crate::state::State;

/// `answers.answer`.
pub(crate) async fn answer(
    store: &mut Store<State>,
    all: &Exports,
    ask: FallbackAsk,
    deadline: Instant,
) -> wasmtime::Result<FallbackReply> {
    let fallback = all.fallback.as_ref().ok_or_else(|| not_of("fallback"))?;
    let state = store.data_mut();
    (state.stands_in_for, state.deadline) = (Some(ask.endpoint.clone()), Some(deadline));
    let ask: Resource<AskHandle> = state.asks.add(ask)?;
    let answer = fallback.call_answer(&mut *store, ask).await;
    let state = store.data_mut();
    let reply = answer.and_then(|answer| answer.map_err(failed)).and_then(|reply| Ok(state.stand_ins.take(&reply)?));
    state.end_call();
    let reply = reply?;
    match reply.answer.outputs.is_empty() {
        false => Ok(reply),
        true => Err(CallError::Failed(Error::internal(
            "the plugin answered without a single output; this is a fault of the plugin",
        ))
        .into()),
    }
}

/// `learns.learn`.
pub(crate) async fn learn(store: &mut Store<State>, all: &Exports, lessons: Vec<Lesson>) -> wasmtime::Result<()> {
    let learns = all.learns.as_ref().ok_or_else(|| {
        let error = Error::invalid("the plugin does not learn; it would export `mainstay:fallback/learns`");
        wasmtime::Error::from(CallError::Failed(error))
    })?;
    let state = store.data_mut();
    let handles: mainstay_base::Result<Vec<Resource<LessonHandle>>> =
        lessons.into_iter().map(|lesson| state.lessons.add(lesson)).collect();
    let answer = learns.call_learn(&mut *store, &handles?).await;
    store.data_mut().end_call();
    answer?.map_err(failed)
}
