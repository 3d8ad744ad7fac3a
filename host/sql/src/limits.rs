//! Every limit of SQL texts, in one place; what one query may take is in [`crate::SqlLimits`].
//!
//! Crossing one is `invalid`: asking again with the same text fails again. The message carries the limit.

/// Bytes of one SQL text.
pub const SQL_BYTES_MAX: usize = 64 << 10;
/// Words, numbers and signs of one SQL text.
pub const SQL_TOKENS_MAX: usize = 4_096;
/// Expressions and queries of one SQL text that stand inside one another: planning takes the square of it.
pub const SQL_DEPTH_MAX: usize = 128;
/// Tables and `SELECT`s of one SQL text, where a common table expression counts as often as it is used.
pub const SQL_PARTS_MAX: usize = 128;
