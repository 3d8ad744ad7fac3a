//! Models and graphs of this host as backends.
//!
//! Owns [`ModelBackend`], a model that the kernels run, and [`GraphBackend`], transforms and models without a hop out of the
//! host. Both join what arrives together into one launch. Separate from the choice which of them a reference names.
//!
//! Bounded by the batchers' queues, whose fullness is told as such and may pass. On failure: what does not fit the model is the
//! caller's fault; the rest is the backend's.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_inference::{Datatype, InferAnswer, InferRequest, Signature, TensorSpec};
use mainstay_interfaces::graphs::{GraphRunner, ModelGraph};
use mainstay_kernels::{Caller, HeldRows, Loaded};
use mainstay_models::graph::InputKind;
use mainstay_traffic::{Ask, Backend, Failure, Identity};

use crate::frames::{frame, tensor};
use crate::signature::{Mapping, ROWS_MAX};

/// What every backend of this host also tells.
pub trait Described: Backend {
    /// What it takes and gives.
    fn signature(&self) -> Signature;
    /// What runs it, as the protocol's `platform`.
    fn platform(&self) -> String;
}

/// A model that the kernels run.
pub struct ModelBackend {
    identity: Identity,
    model: Arc<Loaded>,
    caller: Caller,
    mapping: Mapping,
}

impl ModelBackend {
    /// This model under that name.
    pub fn new(identity: Identity, model: Arc<Loaded>, caller: Caller) -> Result<ModelBackend> {
        let mapping = Mapping::of(model.model())?;
        Ok(ModelBackend { identity, model, caller, mapping })
    }

    async fn run(&self, request: &InferRequest) -> Result<InferAnswer> {
        let rows = self.mapping.rows(request)?;
        let wanted = self.mapping.wanted(request);
        let mut values = Vec::with_capacity(wanted.len());
        for output in wanted {
            values.push(self.caller.predict(self.model.clone(), rows.clone(), output).await?);
        }
        self.mapping.answer(request, &values)
    }
}

/// A full queue may have room in a moment.
fn failed(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Exhausted | ErrorKind::Unavailable => Failure::retryable(error),
        _ => error.into(),
    }
}

#[async_trait]
impl Backend for ModelBackend {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn resource(&self) -> Option<String> {
        Some(format!("model:{}", self.model.digest()))
    }

    async fn infer(&self, request: &Arc<InferRequest>, _ask: &Ask) -> Result<InferAnswer, Failure> {
        self.run(request).await.map_err(failed)
    }

    async fn warm(&self, _deadline: Instant) -> Result<()> {
        // One row through the kernel: its tables are in memory then, and a model that cannot answer is not ready.
        let features = self.model.model().features().len();
        let rows = HeldRows::F64 { values: vec![0.0; features].into(), features };
        for output in self.mapping.wanted(&InferRequest::default()) {
            self.caller.predict(self.model.clone(), rows.clone(), output).await?;
        }
        Ok(())
    }

    async fn ready(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }
}

impl Described for ModelBackend {
    fn signature(&self) -> Signature {
        self.mapping.signature.clone()
    }

    fn platform(&self) -> String {
        format!("mainstay_{}", self.model.model().format().name().to_lowercase())
    }
}

/// A graph of transforms and models.
pub struct GraphBackend {
    identity: Identity,
    graph: Arc<ModelGraph>,
    runner: GraphRunner,
}

impl GraphBackend {
    /// This graph under that name.
    pub fn new(identity: Identity, graph: Arc<ModelGraph>, runner: GraphRunner) -> GraphBackend {
        GraphBackend { identity, graph, runner }
    }

    async fn run(&self, request: &InferRequest, trace: &str) -> Result<InferAnswer> {
        request.check()?;
        let frame = frame(request)?;
        let made = self.runner.run(&self.graph, frame, trace).await?;
        let wanted =
            |name: &str| request.outputs.is_empty() || request.outputs.iter().any(|output| output.name == name);
        let columns = made.columns().iter().filter(|(name, _)| wanted(name));
        let outputs = columns.map(|(name, column)| tensor(name, column)).collect::<Result<Vec<_>>>()?;
        if let Some(missing) = request.outputs.iter().find(|output| outputs.iter().all(|one| one.name != output.name)) {
            let (name, model) = (&missing.name, &request.model);
            return Err(Error::invalid(format!("unexpected inference output '{name}' for model '{model}'")));
        }
        Ok(InferAnswer { outputs, ..InferAnswer::default() })
    }
}

#[async_trait]
impl Backend for GraphBackend {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn resource(&self) -> Option<String> {
        Some(format!("graph:{}", self.graph.digest()))
    }

    async fn infer(&self, request: &Arc<InferRequest>, ask: &Ask) -> Result<InferAnswer, Failure> {
        self.run(request, ask.trace.as_deref().unwrap_or_default()).await.map_err(failed)
    }

    async fn warm(&self, _deadline: Instant) -> Result<()> {
        // Its plugins have checked their settings and its models are loaded; which rows it wants only they know.
        Ok(())
    }

    async fn ready(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }
}

impl Described for GraphBackend {
    fn signature(&self) -> Signature {
        let kind = |kind: InputKind| match kind {
            InputKind::Number => Datatype::Fp64,
            InputKind::Integer => Datatype::Int64,
            InputKind::Boolean => Datatype::Bool,
            InputKind::Text => Datatype::Bytes,
        };
        let inputs = self.graph.inputs().iter().map(|input| TensorSpec::new(&input.name, kind(input.kind), &[]));
        let outputs = self.graph.outputs();
        Signature {
            inputs: inputs.collect(),
            outputs: outputs.into_iter().map(|name| TensorSpec::new(name, Datatype::Fp64, &[])).collect(),
            max_batch: ROWS_MAX,
        }
    }

    fn platform(&self) -> String {
        "mainstay_graph".into()
    }
}
