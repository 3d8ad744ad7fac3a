//! Append-only columnar tables, partitioned by time.
//!
//! Owns [`Tables`]: rows are appended in Arrow's layout, are durable when they are acknowledged and visible at once; in the
//! background they become Parquet files that anything may read. Read by [`Table::scan`], in chunks that become columns
//! without a copy, by [`Table::window`], which makes one frame of them, and by engines through [`Snapshot::shared_scan`], in
//! parts that run side by side. Separate from the store, which knows keys and values only, and from whatever gives rows a
//! meaning.
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
mod encode;
mod files;
mod frames;
mod layout;
pub mod limits;
mod marks;
mod merge;
mod parts;
mod pending;
mod pool;
mod prune;
mod scan;
mod schema;
mod shown;
mod snapshot;
mod table;
mod window;

pub use compact::Compacted;
pub use damage::{Examined, Missing};
pub use driver::Driver;
pub use parts::{Part, SharedScan, is_torn};
pub use prune::{Comparison, Condition, Constant};
pub use scan::{Chunk, Cursor, Scan, ScanOptions, Window};
pub use schema::{ColumnSpec, Kind, Mark, Partition, Retention, TableSpec, TextForm};
pub use shown::Rows;
pub use snapshot::Snapshot;
pub use table::{Appended, Table, TableStats, Tables, TablesOptions};
pub use window::{WindowAnswer, WindowLimits};
