//! Write Mainstay plugins in Rust.
//!
//! A plugin is a type that implements [`Api`] and is handed to [`export_api!`]. Everything it does to the world goes through
//! the modules of this crate: [`keys`] and [`Transaction`] for what must last, [`index`] for what is searched, [`blobs`] for
//! what is large, [`directory`] for what is shared, [`http`] for requests and replies, [`columns`], [`stats`] and [`models`]
//! for numbers, and [`config`], [`log`], [`metric`],
//! [`clock`] and [`random`] for the rest. Plain types only: the bindings generated from the WIT stay inside.
//!
//! Bounded by: what the plugin's manifest grants and limits. On failure: every function that can fail returns [`Error`],
//! whose kind says what the caller can do about it. The feature `testing` adds [`testing`](crate::testing::Host), a host in
//! memory on which plugins are tested natively.
//!
//! ```
//! use mainstay_sdk::http::{Params, Reply, Request, Route, Router};
//! use mainstay_sdk::key::Key;
//! use mainstay_sdk::{Api, Result, keys, testing, transact};
//!
//! struct Visits;
//!
//! const ROUTES: Router = Router::new(&[Route::get("/visits/{page}", read), Route::post("/visits/{page}", count)]);
//!
//! fn read(_: &Request, params: &Params) -> Result<Reply> {
//!     Reply::json(&keys::counter(Key::new().text("visits").text(&params["page"]))?)
//! }
//!
//! fn count(_: &Request, params: &Params) -> Result<Reply> {
//!     let (_, receipt) = transact(|tx, _| tx.add(Key::new().text("visits").text(&params["page"]), 1))?;
//!     Reply::json(&receipt.counters[0])
//! }
//!
//! impl Api for Visits {
//!     fn handle(request: &Request) -> Result<Reply> {
//!         ROUTES.handle(request)
//!     }
//! }
//!
//! mainstay_sdk::export_api!(Visits);
//!
//! // In a test:
//! let host = testing::Host::new();
//! host.call::<Visits>(Request::post("/visits/home"));
//! let answer = host.call::<Visits>(Request::get("/visits/home"));
//! assert_eq!((answer.status, answer.json::<i64>()), (200, 1));
//! ```

mod ambient;
pub mod blobs;
pub mod columns;
pub mod directory;
mod error;
pub mod fallback;
pub mod http;
pub mod index;
pub mod jobs;
pub mod key;
pub mod keys;
pub mod models;
pub mod outbound;
mod packed;
mod plugin;
pub mod stats;
#[doc(hidden)]
pub mod sys;
pub mod tables;
pub mod tabular;
pub mod tensors;
pub mod traffic;
mod transaction;
pub mod transform;
mod value;
pub mod worker;

#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;

pub use ambient::{clock, config, log, metric, random};
pub use error::{Error, ErrorKind, Result};
pub use fallback::Fallback;
pub use key::{Key, KeyRange};
pub use plugin::Api;
pub use transaction::{
    ATTEMPTS_MAX, BlobChanges, DirectoryChanges, IndexChanges, Receipt, Transaction, transact, transact_or,
};
pub use transform::Transform;
pub use value::{Texts, Value, ValueRef};
pub use worker::Worker;
