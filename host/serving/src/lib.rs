//! Models of this host answer requests.
//!
//! Owns what stands between traffic and the rooms that compute: registered versions and graphs as backends ([`HostBackends`]),
//! endpoints as models of the Open Inference Protocol ([`Endpoints`]), and what becomes of what happened ([`Recorder`]).
//! Separate from the gateway, which listens, and from traffic, which decides: this room knows both sides of neither.
//!
//! Bounded by the rooms below. On failure: typed errors; a backend that cannot be loaded leaves its endpoint as it was.
#![forbid(unsafe_code)]

mod backends;
mod follow;
mod frames;
mod front;
mod local;
mod recorder;
mod registered;
mod signature;
mod statistics;

pub use backends::{Fallbacks, HostBackends, Imported, PluginByName, Upstreams};
pub use follow::follow;
pub use front::{Endpoints, answer_headers, endpoint_of};
pub use local::Described;
pub use recorder::{Recorder, TOPIC, log_name};
pub use registered::{File, KIND, Registered, Version};
