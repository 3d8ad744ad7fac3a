//! Append-only columnar tables, partitioned by time.
//!
//! Owns [`Tables`]: rows are appended in Arrow's layout, are durable when they are acknowledged and visible at once; in the
//! background they become Parquet files that anything may read. Read by [`Table::scan`], in chunks that become columns
//! without a copy, by [`Table::window`], which makes one frame of them, and by [`Tables::sql`], which only reads. Who may
//! judge rows and not see them asks a [`Guard`]. Separate from the store, which knows keys and values only, and from whatever
//! gives rows a meaning.
//!
//! The store decides what is there. Pending rows are values in it, files are listed in it, and one transaction takes the
//! ones out and puts the others in: at every moment, and after a crash at any moment, each row is in exactly one place. A
//! reader takes one view of the store and sees one moment.
//!
//! Bounded by [`limits`] and [`TablesOptions`]. On failure: typed errors; a file that is damaged is moved aside, and every
//! answer whose rows it held says what it misses.
#![forbid(unsafe_code)]

mod compact;
mod damage;
mod driver;
mod files;
mod frames;
mod guarded;
mod layout;
pub mod limits;
mod marks;
mod merge;
mod pending;
mod pool;
mod prune;
mod scan;
mod schema;
mod shown;
mod snapshot;
mod sql;
mod statement;
mod table;
mod window;

pub use compact::Compacted;
pub use damage::Missing;
pub use driver::Driver;
pub use guarded::{Budget, Group, Guard, GuardedAnswer, GuardedQuery, Key, Measure};
pub use scan::{Chunk, Scan, ScanOptions, Window};
pub use schema::{ColumnSpec, Kind, Mark, Partition, Retention, TableSpec};
pub use snapshot::Snapshot;
pub use sql::{SqlAnswer, SqlLimits};
pub use table::{Appended, Table, TableStats, Tables, TablesOptions};
pub use window::{WindowAnswer, WindowLimits};
