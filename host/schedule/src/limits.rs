//! Every limit of the scheduler, in one place.
//!
//! Crossing one is `invalid` (asking again fails again) or, where others have to finish first, `exhausted`; the limit is in
//! the message.

/// The longest name of a job, pool or topic, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most triggers of a job.
pub const TRIGGERS_MAX: usize = 16;
/// Most callbacks of a job.
pub const CALLBACKS_MAX: usize = 16;
/// Most plugins that a job names as those that may start it.
pub const PLUGINS_MAX: usize = 64;
/// Most attempts of a run.
pub const ATTEMPTS_MAX: u32 = 100;
/// Most missed occurrences that `catch-up: all` may start.
pub const CATCH_UP_MAX: u32 = 1_000;
/// Most occurrences that one backfill looks at.
pub const BACKFILL_MAX: u32 = 1_000;
/// Occurrences that are gone through one by one when some were missed; beyond that the newest are found by steps.
pub const ENUMERATED_MAX: usize = 10_000;
/// Most bytes of a definition, and of the parameters of a start, as JSON.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a result, as JSON; a longer one is replaced by a note that says so.
pub const RESULT_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a reason; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Most runs of one job that wait to begin; one more start is `exhausted`.
pub const WAITING_MAX: i64 = 100_000;
/// Most pools.
pub const POOLS_MAX: usize = 256;
/// Most slots of a pool.
pub const SLOTS_MAX: u32 = 100_000;
/// How many callbacks may lead from one to the next.
pub const DEPTH_MAX: u32 = 16;
/// What one attempt may leave in its log, in bytes; the rest is counted and dropped.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// The longest time that a trigger, timeout, delay or deadline may name: ten years, in milliseconds.
pub const SPAN_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// The shortest interval, in milliseconds.
pub const INTERVAL_MS_MIN: u64 = 100;
/// Operations after which a transaction takes no further run; the store allows 10,000, and one run takes up to about 150.
pub(crate) const BATCH_OPERATIONS: usize = 4_000;
/// Due entries, requests and ready runs that are looked at in one go.
pub(crate) const PAGE: u32 = 256;
/// How often a transaction is tried that another one overtook.
pub(crate) const TRIES_MAX: u32 = 16;
