//! Prediction servers elsewhere, as backends.
//!
//! Owns connections to servers that speak the Open Inference Protocol, over HTTP/1.1 with binary tensors or over gRPC, and makes of
//! each a [`Backend`](mainstay_traffic::Backend): deadlines, traces and tenants are passed on, answers in parts come as they come,
//! and whoever goes away is gone at the upstream too. Separate from traffic, which opens no connection, and from calls out of the
//! house on behalf of plugins: those go to granted hosts and never to a private address. Here operators name the servers, which
//! mostly stand in the same network, so private addresses are allowed.
//!
//! Inference computes and changes nothing, so a request that was sent and not answered may be tried again unless an operator says
//! otherwise ([`UpstreamOptions::is_idempotent`]). Retries are traffic's to make; here only what met a kept connection that had
//! been closed is sent once more.
//!
//! Bounded by [`limits`] and [`UpstreamOptions`]. On failure: a [`Failure`](mainstay_traffic::Failure) that says whether asking again
//! may help and who is to blame, with the upstream's address; [`UpstreamStatistics`] count why.
#![forbid(unsafe_code)]

mod address;
mod ask;
mod connection;
mod counts;
mod dial;
mod events;
mod failure;
mod flat;
mod grpc;
mod http;
pub mod limits;
mod options;
mod pool;
mod upstreams;

pub use counts::{FailureKind, UpstreamStatistics};
pub use dial::{Dial, Tcp, Wire};
pub use options::UpstreamOptions;
pub use upstreams::{Upstream, Upstreams};
