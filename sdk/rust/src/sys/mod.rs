//! Where the SDK meets its host.
//!
//! Two implementations of the same functions over the SDK's plain types: [`guest`] over the bindings generated from the WIT,
//! for components, and `native` over a host in memory, for tests (feature `testing`). Everything above calls `sys::…` and
//! does not know which. Hidden from documentation: plugins have no business here; the export macro has. Bounded by and
//! failing as the host behind it.
#![allow(missing_docs, reason = "hidden; the modules above document what these functions do")]

pub mod bindings;

#[cfg(not(all(feature = "testing", not(target_arch = "wasm32"))))]
mod guest;
#[cfg(not(all(feature = "testing", not(target_arch = "wasm32"))))]
pub use guest::*;

#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
mod native;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub use native::*;
