//! Every limit of the tables, in one place.
//!
//! Crossing one is `invalid` where asking again with the same argument fails again, and `exhausted` where it may succeed
//! later; the message carries the limit.

/// Tables of one host.
pub const TABLES_MAX: usize = 1_000;
/// Bytes of a table's name: lower-case letters, digits and `_`, the first a letter.
pub const TABLE_NAME_BYTES_MAX: usize = 63;
/// Bytes of a column's name.
pub const COLUMN_NAME_BYTES_MAX: usize = 256;
/// Columns of one table, those that were added later included.
pub const COLUMNS_MAX: usize = 1_000;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// How long a repeated append with the same key is recognised, in milliseconds: seven days.
pub const IDEMPOTENCY_MS: i64 = 7 * 24 * 3_600_000;
/// Partitions of time that the rows of one append may fall into.
pub const APPEND_PARTITIONS_MAX: usize = 64;
/// Encoded bytes of one append: what fits into one transaction beside its keys.
pub const APPEND_BYTES_MAX: usize = 15 << 20;
/// Encoded bytes of one piece of an append, before it is split further.
pub(crate) const PIECE_BYTES_MAX: usize = 3 << 20;
/// The earliest time that a row may have: the year 1900, in microseconds.
pub const TIME_US_MIN: i64 = -2_208_988_800_000_000;
/// Times of rows are before this: the year 2200, in microseconds.
pub const TIME_US_END: i64 = 7_258_118_400_000_000;

/// Pending pieces that one round of compaction takes: as many deletions as fit into its transaction.
pub(crate) const ROUND_PIECES_MAX: usize = 4_000;
/// Encoded bytes of pending rows that one round of compaction holds in memory.
pub(crate) const ROUND_BYTES_MAX: usize = 64 << 20;
/// Partitions, and so files, that one round of compaction writes.
pub(crate) const ROUND_PARTITIONS_MAX: usize = 256;
/// Rows of one row group of a file.
pub(crate) const GROUP_ROWS_MAX: usize = 131_072;
/// Encoded bytes of one row group, when its rows are wide.
pub(crate) const GROUP_BYTES_MAX: usize = 64 << 20;
/// Threads that encode one row group.
pub(crate) const ENCODE_THREADS_MAX: usize = 8;
/// Rows from which on a row group is good as it is: merging takes it over without decoding it.
pub(crate) const GROUP_ROWS_GOOD: usize = GROUP_ROWS_MAX / 2;
/// The part of a row group's span of time that may lie beside its neighbour's without being merged: one in so many.
pub(crate) const GROUP_OVERLAP: i64 = 8;
/// Rows of one chunk of a scan.
pub const CHUNK_ROWS: usize = 65_536;
/// Files that are merged into one at a time.
pub(crate) const MERGE_FILES: usize = 8;
/// Rows that are held of each file while it is merged.
pub(crate) const MERGE_ROWS: usize = 8_192;

/// Encoded bytes of pending rows that a scan takes out of the store when it begins; beyond them it holds its view.
pub(crate) const SCAN_PENDING_BYTES_MAX: usize = 64 << 20;
/// Times that a question is asked again because a file was found damaged under it.
pub const DAMAGE_RETRIES: usize = 8;

/// Questions that are worked on at the same time; more wait their turn.
pub(crate) const QUERIES_MAX: usize = 4;
/// Questions that wait for their turn.
pub(crate) const QUERIES_WAITING_MAX: usize = 64;
/// Stack of the threads that plan and run SQL: plans of hostile texts are deep.
pub(crate) const STACK_BYTES: usize = 16 << 20;
