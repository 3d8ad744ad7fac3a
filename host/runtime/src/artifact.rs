//! Turning compiled code back into a component: the one unsafe step of the host.
//!
//! Separate so that the one rule that makes it sound stands alone: only bytes that this host's compiler made, and
//! that nobody has changed since, come here.
#![allow(unsafe_code)]

use mainstay_base::{Error, Result};
use wasmtime::component::Component;

use crate::engine::Engine;

/// Bytes that the compiler made, or that the cache has found authentic.
pub(crate) struct Authentic<'a>(pub(crate) &'a [u8]);

/// Load compiled code.
pub(crate) fn load(engine: &Engine, compiled: Authentic<'_>) -> Result<Component> {
    // SAFETY: `deserialize` requires bytes that `precompile_component` made and that were not changed. An `Authentic` is
    // built in two places only: from the output of the compiler's child process, in a file that only this process and
    // that child can write (a fresh folder, mode 0700), and from a cache entry whose tag under the host's own key was
    // checked over exactly these bytes in memory (`cache::Cache::get`).
    unsafe { Component::deserialize(engine.wasmtime(), compiled.0) }
        .map_err(|error| Error::internal(format!("cannot load compiled code: {error:#}")))
}
