//! Transactions, ordered keys, indexes and blobs over the commit log.
//!
//! One record of the log is one commit; everything else is a view built from it. [`Store`] is the door: it takes
//! [`View`]s for reading and commits [`Transaction`]s. Behind it lie the memtable (what is newer than the engine), an
//! [`engine::Ordered`] engine (memory, sled or redb) and the index columns, all rebuilt from the log after a crash.
//! Separate from the rooms above because this is the one place where something becomes durable.
//!
//! Bounded by [`limits`] and [`StoreOptions`]. On failure: every function returns a typed error; nothing that was
//! acknowledged is lost, nothing half-written is visible.
//!
//! ```
//! use mainstay_store::{KeyRange, ScanOptions, Space, Store};
//!
//! # fn main() -> mainstay_base::Result<()> {
//! let store = Store::in_memory();
//! let space = Space::plugin("notes");
//!
//! let view = store.view();
//! let mut tx = store.begin(&view);
//! tx.expect_absent(&space, b"note/1")?;
//! tx.put(&space, b"note/1", "buy milk")?;
//! tx.add(&space, b"count", 1)?;
//! let receipt = store.commit_blocking(tx)?;
//! assert_eq!(receipt.counters, [1]);
//!
//! assert_eq!(view.get(&space, b"note/1")?, None, "a view stays as it was");
//! let page = store.view().scan(&space, &[KeyRange::prefix(b"note/")], &ScanOptions::default())?;
//! assert_eq!(page.iter().collect::<Vec<_>>(), [(&b"note/1"[..], &b"buy milk"[..])]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod apply;
pub mod blobs;
mod commit;
pub mod damage;
pub mod engine;
pub mod index;
pub mod limits;
mod memtable;
mod publish;
mod record;
mod recover;
mod repair;
mod scan;
mod space;
mod store;
mod transaction;
pub mod value;
mod view;

pub use commit::{Overtaken, Receipt};
pub use engine::EngineKind;
pub use index::{Comparison, FieldWrite, FilterNode, OrderKey, Query, Selection, Term};
pub use repair::{LogReport, Repaired, examine_log, repair_log};
pub use scan::PageIter;
pub use space::Space;
pub use store::{Store, StoreOptions};
pub use transaction::Transaction;
pub use value::Value;
pub use view::{KeyRange, Page, ScanOptions, View};
