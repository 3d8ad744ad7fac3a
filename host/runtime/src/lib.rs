//! Components: engine, instances, limits, grants, compilation. Knows no mechanism.
mod error;
mod grants;
mod limits;

pub use error::{CallError, CallResult, Deadline, status_of};
pub use grants::{Capability, Grants};
pub use limits::Limits;
