//! World `transform`: a plugin that changes batches as a node of a model's graph.
//!
//! Enters the exports `transformer.check` and `transformer.transform`. On failure: the plugin's typed error as
//! [`CallError::Failed`]; an answer with another number of rows is a fault of the plugin.

use mainstay_arrays::Frame;
use mainstay_base::Error;
use mainstay_bindings::mainstay::transform::batches::Batch as BatchHandle;
use mainstay_runtime::CallError;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::{Exports, failed, not_of};
use crate::imports::batches::TransformBatch;
use crate::state::State;

/// `transformer.check`.
pub(crate) async fn check(store: &mut Store<State>, all: &Exports, settings: String) -> wasmtime::Result<()> {
    let transform = all.transform.as_ref().ok_or_else(|| not_of("transform"))?;
    let answer = transform.call_check(&mut *store, &settings).await;
    store.data_mut().end_call();
    answer?.map_err(failed)
}

/// `transformer.transform`.
pub(crate) async fn transform(
    store: &mut Store<State>,
    all: &Exports,
    batch: TransformBatch,
) -> wasmtime::Result<Frame> {
    let transform = all.transform.as_ref().ok_or_else(|| not_of("transform"))?;
    let rows = batch.frame.rows();
    let batch: Resource<BatchHandle> = store.data_mut().batches.add(batch)?;
    let answer = transform.call_transform(&mut *store, batch).await;
    let state = store.data_mut();
    let frame = answer.and_then(|answer| answer.map_err(failed)).and_then(|frame| Ok(state.frames.take(&frame)?));
    state.end_call();
    let frame = frame?;
    match frame.rows() == rows {
        true => Ok(frame),
        false => Err(CallError::Failed(Error::internal(format!(
            "the plugin answered a batch of {rows} rows with {}; this is a fault of the plugin",
            frame.rows()
        )))
        .into()),
    }
}
