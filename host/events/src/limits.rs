//! Every limit of topics, in one place.
//!
//! Crossing one is `invalid` (asking again fails again) or, where something has to be removed first, `exhausted`; the limit
//! is in the message.

/// The longest name of a topic or subscription, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest kind of an event, in bytes.
pub const KIND_BYTES_MAX: usize = 128;
/// The longest key of an event, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// The longest `tracestate`, in bytes; the specification asks for 512 to be passed on.
pub const TRACE_STATE_BYTES_MAX: usize = 512;
/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Most subscriptions of a store.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Most topics of one subscription.
pub const SUBSCRIPTION_TOPICS_MAX: usize = 32;
/// Most events that are delivered before their offset is kept.
pub const BATCH_MAX: u32 = 1_000;
/// Most attempts to deliver an event.
pub const ATTEMPTS_MAX: u32 = 100;
/// The longest delay, timeout or age, in milliseconds: ten years.
pub const SPAN_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// Most dead letters of one subscription, those that are tried again included; then its failing events wait at the head.
pub const DEAD_LETTERS_MAX: i64 = 10_000;
/// Most dead letters that are retried or dropped in one go.
pub const DEAD_LETTERS_AT_ONCE_MAX: usize = 128;
/// Most bytes of a reason; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// Most events or dead letters in one answer.
pub const READ_MAX: u32 = 1_000;
/// Most waiting events that are counted; beyond that an answer says that there are more.
pub const LAG_COUNT_MAX: u32 = 10_000;
/// Events that one step of maintenance looks at.
pub const MAINTENANCE_PAGE: u32 = 1_000;
/// Events between two entries of the index by time.
pub(crate) const INDEX_SPACING: u64 = 256;
/// How often a transaction is tried that another one overtook.
pub(crate) const TRIES_MAX: u32 = 16;
