//! `mainstay:transform/batches`: the batch that a transform is given.
//!
//! It is put there by the world's entry and dies with the call. Bounded by one batch a call.

use mainstay_arrays::Frame as HeldFrame;
use mainstay_bindings::mainstay::numeric::arrays::Frame as FrameHandle;
use mainstay_bindings::mainstay::transform::batches::{Batch as BatchHandle, Host, HostBatch};
use wasmtime::component::Resource;

use crate::imports::arrays::ended;
use crate::state::State;

/// Batches that a call may hold.
pub const BATCHES_MAX: usize = 1;

/// What arrived together, for one node of a model's graph.
#[derive(Clone, Debug)]
pub struct TransformBatch {
    /// Its rows.
    pub frame: HeldFrame,
    /// Name of the node.
    pub node: String,
    /// The node's settings, one JSON object.
    pub settings: String,
    /// For the log: the trace of the first of its requests.
    pub trace_id: String,
}

impl Host for State {}

impl HostBatch for State {
    fn frame(&mut self, batch: Resource<BatchHandle>) -> wasmtime::Result<Resource<FrameHandle>> {
        let _host = self.ambient()?;
        let frame = self.batches.get(&batch).map_err(ended)?.frame.clone();
        self.frames.add(frame).map_err(ended)
    }

    fn node(&mut self, batch: Resource<BatchHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.batches.get(&batch).map_err(ended)?.node.clone())
    }

    fn settings(&mut self, batch: Resource<BatchHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.batches.get(&batch).map_err(ended)?.settings.clone())
    }

    fn drop(&mut self, batch: Resource<BatchHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.batches.drop(&batch);
        Ok(())
    }
}
