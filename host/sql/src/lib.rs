//! Read-only SQL over the tables.
//!
//! Owns the engine (DataFusion, in process) and the way between it and our scans. Separate from the tables, because it is a
//! large family of crates, and nothing else needs it. DataFusion is built without its readers of files and gets no place to
//! spill to: all it can reach are cursors over our tables, which check, prune and quarantine as every scan does. A text is one
//! statement, and is a query, `EXPLAIN`, `DESCRIBE` or `SHOW`; the plan is checked again for anything that would change
//! something.
//!
//! Comparisons of the time column with constants become the window of the scan, those of other columns are held against what
//! a row group says of its values, so whole files and row groups are passed. All tables that a query names are read as of one
//! moment.
//!
//! Bounded by [`SqlLimits`] and [`limits`]; functions that make long texts out of short ones are not there. Dropping the
//! answer's future stops the query. On failure: `invalid` for a text that cannot be run, `denied` for one that would change
//! something, `exhausted` for memory and time.
#![forbid(unsafe_code)]

mod engine;
mod filter;
pub mod limits;
mod source;
mod statement;

pub use engine::{SqlLimits, query, query_blocking};
