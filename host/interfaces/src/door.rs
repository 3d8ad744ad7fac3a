//! The way from a plugin to the endpoints of this host: what it asks for, and who answers.
//!
//! Owns [`InferenceDoor`], which the binary implements over its endpoints and puts into [`DoorSlot`] once they are open, and
//! the words that go through it. Separate from endpoints, because plugins are loaded before them and are asked by them: a
//! direct dependency would be a circle.
//!
//! Bounded by: each request's deadline, and the limits in the contract. On failure: `unavailable` while nothing is in the slot.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use http::HeaderMap;
use mainstay_base::{Error, Result};
use mainstay_inference::{InferAnswer, InferRequest, TensorMetadata};

/// A question of a plugin to an endpoint, which `request.model` names.
#[derive(Clone, Debug)]
pub struct DoorAsk {
    /// The plugin that asks.
    pub plugin: Arc<str>,
    /// What it asks.
    pub request: InferRequest,
    /// Headers that rules see as the caller's.
    pub headers: HeaderMap,
    /// On whose account, where it is said.
    pub tenant: Option<Arc<str>>,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// The trace that this belongs to, as `traceparent` has it.
    pub traceparent: Option<String>,
    /// The plugin asks while it stands in for a model: nothing may stand in for what it asks, so that no chain of fallbacks
    /// comes back to where it started. An answer of a fallback is refused all the same.
    pub within_fallback: bool,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct DoorAnswer {
    /// The tensors, shared with whoever watches.
    pub answer: Arc<InferAnswer>,
    /// The variant that the plan chose.
    pub variant: Option<Arc<str>>,
    /// The run that made the version, where one is known.
    pub run: Option<Arc<str>>,
    /// The label of what answered instead.
    pub fallback: Option<Arc<str>>,
    /// Headers that say who answered.
    pub headers: Vec<(String, String)>,
}

/// An endpoint as it is now.
#[derive(Clone, Debug, Default)]
pub struct DoorEndpoint {
    /// Its name.
    pub name: String,
    /// Whether it could answer.
    pub is_ready: bool,
    /// The version of its plan.
    pub plan_version: u64,
    /// Names of its variants.
    pub variants: Vec<String>,
    /// What the model behind it takes; empty where that is not known.
    pub inputs: Vec<TensorMetadata>,
    /// What it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// Which variant a key gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorAssignment {
    /// The variant.
    pub variant: String,
    /// The version of the plan that says so.
    pub plan_version: u64,
    /// Whether the same key gets it again.
    pub is_sticky: bool,
}

/// The endpoints of a host, as plugins see them. Dropping a future must cancel the work behind it.
#[async_trait]
pub trait InferenceDoor: Send + Sync + 'static {
    /// Names of all endpoints, in order.
    fn endpoints(&self) -> Vec<Arc<str>>;

    /// An endpoint; none when there is none.
    async fn find(&self, endpoint: &str) -> Result<Option<DoorEndpoint>>;

    /// Who would answer a request whose key is this text.
    fn assign(&self, endpoint: &str, key: &str) -> Result<DoorAssignment>;

    /// Ask, and wait until the deadline.
    async fn infer(&self, ask: DoorAsk) -> Result<DoorAnswer>;
}

/// Where the door is once there is one. Cheap to clone: all clones are one place.
#[derive(Clone, Default)]
pub struct DoorSlot(Arc<OnceLock<Arc<dyn InferenceDoor>>>);

impl DoorSlot {
    /// Put the door in. Once: endpoints are opened once in a process; a second door is `conflict`.
    pub fn set(&self, door: Arc<dyn InferenceDoor>) -> Result<()> {
        self.0.set(door).map_err(|_| Error::conflict("plugins have a way to endpoints already; it is set once"))
    }

    /// The door; `unavailable` while there is none.
    pub fn get(&self) -> Result<&Arc<dyn InferenceDoor>> {
        let closed = || {
            Error::unavailable(
                "this host has opened no endpoints yet; ask again later, or ask a host that serves models",
            )
        };
        self.0.get().ok_or_else(closed)
    }
}
