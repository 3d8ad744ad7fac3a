//! Components: engine, instances, limits, grants, compilation. Knows no mechanism.
//!
//! Owns everything about running foreign code that does not depend on what that code may ask for: how it is compiled
//! ([`Compiler`]), where its instances live and which threads run them ([`Engine`]), how one call goes ([`Component`]), what
//! it may use ([`Limits`]) and do ([`Grants`]), and what is said when it does not end well ([`CallError`]).
//!
//! Invariants: no host function runs before [`CallContext::enter`] has counted it and checked its grant; no call
//! runs without deadlines and a memory limit; code is loaded only from this host's own compiler; a plugin's failure is a
//! typed error of that call and nothing else's.
//!
//! Bounded by: [`EngineOptions`] for all plugins, [`Limits`] for each. On failure: see [`CallError`].
mod artifact;
mod cache;
pub mod compile;
mod component;
mod context;
mod engine;
mod error;
mod grants;
mod inspect;
mod limits;
mod meter;
pub mod quarantine;
mod stats;
mod ticker;

pub use compile::{CompileIn, CompileLimits, Compiler, check_is_component};
pub use component::{BoxFuture, Component, ComponentOptions, WARM_MAX, World};
pub use context::{CallContext, HostData, HostTime, Refusal};
pub use engine::{Engine, EngineOptions};
pub use error::{CallError, CallResult, Deadline, status_of};
pub use grants::{Capability, Grants};
pub use inspect::{Contract, Interface, explain_link_error, inspect};
pub use limits::Limits;
pub use stats::Stats;
