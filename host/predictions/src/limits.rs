//! Every limit of logs of predictions, in one place. Crossing one is `invalid`, or counts as dropped where it says so.

/// The longest name of a log, in bytes.
pub const NAME_BYTES_MAX: usize = 40;
/// Features and outputs of a log, each.
pub const FIELDS_MAX: usize = 400;
/// The longest id of a prediction, name of an outcome, or text value, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Rows of one post.
pub const POST_ROWS_MAX: usize = 65_536;
/// Predictions that wait to be written; one more is dropped.
pub const WAITING_MAX: usize = 131_072;
/// Rows that are written at once, when so many wait.
pub const WRITE_ROWS: usize = 8_192;
/// How long a prediction waits to be written with others, in milliseconds.
pub const WRITE_DELAY_MS: u64 = 50;
