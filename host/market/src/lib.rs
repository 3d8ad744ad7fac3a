//! Plugin packages: manifest, package files, what a component needs, lockfile, install and removal.
//!
//! Owns everything between "somebody gave me a plugin" and "this host runs it": nothing from a package is believed before
//! it was checked here. Separate from the runtime, which compiles and runs what has been checked, and knows no manifest.
//! Bounded by the constants of each module. On failure: the item, what is wrong with it, and what to do; the installed
//! state stays as it was.
#![forbid(unsafe_code)]

pub mod located;
mod lockfile;
mod manifest;
mod market;
mod nearest;
mod package;
pub mod settings;
#[cfg(test)]
mod testing;
mod worlds;

pub use lockfile::{LOCK_FILE, LockEntry, Lockfile, PLUGINS_MAX};
pub use manifest::{
    CAPABILITIES, ConfigFile, Limits, MANIFEST_FILE, Manifest, Method, RESERVED_PATHS, RESERVED_PREFIXES, Right, Route,
    Timer,
};
pub use market::{Installed, Market, Order, Plan, list, load};
pub use nearest::nearest;
pub use package::{
    CONTENT_BYTES_MAX, FILES_MAX, NAME_BYTES_MAX, PACKAGE_BYTES_MAX, PACKAGE_EXTENSION, Package, TEXT_BYTES_MAX,
};
pub use worlds::{WorldName, check_component, worlds};
