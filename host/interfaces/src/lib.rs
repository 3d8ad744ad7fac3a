//! The host side of every import, and the calls into every world.
//!
//! Owns two lists and what they register: the interfaces that components may import ([`imports::INTERFACES`], with their
//! capabilities in [`capabilities::REGISTERED`]) and the worlds that components may be ([`worlds::WORLDS`]). The one room
//! that sees both the runtime and the mechanisms. [`PluginHost`] is the door for the rooms above.
//!
//! Invariants: everything is linked to every plugin, and every host function passes [`mainstay_runtime::CallContext::enter`]
//! first; no state outlives its call except in the mechanisms; nothing that a plugin says ends anything but its own call.
//!
//! Bounded by: the limits in the contract, each beside the function that holds it, and each plugin's `Limits`. On failure:
//! a typed error to the plugin, or a [`CallError`] to the caller.
#![forbid(unsafe_code)]

pub mod capabilities;
mod door;
pub mod graphs;
mod guard;
mod handles;
pub mod imports;
pub mod kernel_metrics;
mod lines;
mod message;
mod plugin;
mod services;
mod spec;
mod state;
pub mod telemetry;
pub mod worlds;

pub use capabilities::CAPABILITIES;
pub use door::{DoorAnswer, DoorAsk, DoorAssignment, DoorEndpoint, DoorSlot, InferenceDoor};
pub use imports::asks::{FallbackAsk, FallbackReply, LESSONS_MAX, Lesson};
pub use imports::batches::TransformBatch;
pub use imports::work::{Settle, WorkEvent, WorkTimer};
pub use mainstay_arrays::{Column, Frame};
pub use mainstay_inference as inference;
pub use mainstay_runtime::{
    CallError, CallResult, CompileIn, CompileLimits, Deadline, EngineOptions, Limits, Stats, compile, status_of,
};
pub use mainstay_store::blobs::BlobInfo;
pub use message::{Caller, HttpReply, HttpRequest, RequestBody};
pub use plugin::{HostOptions, Plugin, PluginHost, world_names};
pub use services::Services;
pub use spec::{ComponentSource, PluginSpec};
pub use state::{MESSAGES_MAX, State, TRANSACTIONS_MAX};
