//! The host side of every import, and the calls into every world.
#![forbid(unsafe_code)]

pub mod capabilities;
mod message;
mod spec;

pub use capabilities::CAPABILITIES;
pub use mainstay_runtime::{CallError, CallResult, Limits};
pub use message::{Caller, HttpReply, HttpRequest, RequestBody};
pub use spec::{ComponentSource, PluginSpec};
