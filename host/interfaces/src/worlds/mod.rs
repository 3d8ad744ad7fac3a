//! The list of worlds: what a component can be, and what it must export for that.
//!
//! A new world is a file that enters it, and one row here.

pub mod api;

use mainstay_runtime::{Contract, Interface};

use crate::imports;

/// The version of everything here.
const VERSION: &str = "0.1.0";

/// All worlds. Manifests name them as `mainstay:api/api@0.1.0`.
pub const WORLDS: &[Contract] = &[Contract {
    world: "mainstay:api/api@0.1.0",
    imports: imports::NAMES,
    exports: &[
        Interface { name: "mainstay:lifecycle/lifecycle", version: VERSION },
        Interface { name: "mainstay:api/handler", version: VERSION },
    ],
}];

/// The row of world `api`.
pub(crate) const API: &Contract = &WORLDS[0];
