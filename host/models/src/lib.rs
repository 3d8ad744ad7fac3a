//! Models that are files: import, predict, explain.
//!
//! Owns the importers of foreign model formats (`import/`), the form that all tree ensembles take ([`forest`]), and what is
//! computed on them. Separate because it is pure: bytes and matrices in, numbers out; no clock, no disk, no threads but the
//! pool that explanations are called in, so that every result can be computed again.
//!
//! Bounded by: `import::Limits` for whatever a file claims about itself. On failure: `invalid` names the place in the file,
//! what stands there and what was expected.
#![deny(unsafe_code)]

pub mod device;
pub mod explain;
pub mod forest;
pub mod graph;
pub mod import;
pub mod layout;
pub mod link;
pub mod model;
mod network;
mod pipeline;
mod tile;

pub use model::{Feature, FeatureKind, Format, Model, Output, Task};
pub use network::{Network, NetworkShape};
pub use tile::{Order, Rows};
