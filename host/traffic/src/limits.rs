//! Every limit of traffic, in one place.
//!
//! Crossing one is `invalid` (asking again fails again) or, where others have to finish first, `exhausted`; the limit is in
//! the message. What an endpoint keeps in memory is bounded by these alone: callers cannot make it grow by what they send.

use mainstay_base::{Error, Result};

/// Most endpoints of one host.
pub const ENDPOINTS_MAX: usize = 1_000;
/// The longest name of an endpoint, variant, plan, tripwire, fault or fallback, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most variants of an endpoint.
pub const VARIANTS_MAX: usize = 16;
/// Most named plans of an endpoint.
pub const PLANS_MAX: usize = 16;
/// Most rules of a plan.
pub const RULES_MAX: usize = 32;
/// Most conditions of a rule.
pub const CONDITIONS_MAX: usize = 8;
/// The longest text that a condition compares with, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Most mirrors of a plan.
pub const MIRRORS_MAX: usize = 4;
/// Most tiers of a fallback chain.
pub const TIERS_MAX: usize = 8;
/// Most tensors of a configured answer.
pub const ANSWER_TENSORS_MAX: usize = 16;
/// Most elements of all tensors of a configured answer.
pub const ANSWER_ELEMENTS_MAX: usize = 65_536;
/// Most tripwires of a plan.
pub const TRIPWIRES_MAX: usize = 16;
/// Most faults of an endpoint, those that are over included.
pub const FAULTS_MAX: usize = 16;
/// Most rules of a variant's guard.
pub const GUARDS_MAX: usize = 32;
/// Most dimensions that a guard's shape names.
pub const DIMENSIONS_MAX: usize = 16;
/// Most tenants with limits of their own in one plan.
pub const TENANT_LIMITS_MAX: usize = 256;
/// Most tenants whose tokens are counted apart; those beyond share one bucket until others have been idle.
pub const TENANTS_COUNTED_MAX: usize = 10_000;
/// Most values of the segment's source that are counted apart; the rest is counted as `other`.
pub const SEGMENTS_MAX: usize = 16;
/// The longest value of a segment that is counted apart, in bytes; longer ones are `other`.
pub const SEGMENT_BYTES_MAX: usize = 64;
/// Most windows that signals remember.
pub const WINDOWS_MAX: u32 = 360;
/// The shortest window of a signal, tripwire or breaker, in milliseconds.
pub const WINDOW_MS_MIN: u64 = 100;
/// The longest window, in milliseconds: a week.
pub const WINDOW_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// The longest timeout, delay or pause, in milliseconds: an hour.
pub const SPAN_MS_MAX: u64 = 3_600_000;
/// The longest life of a fault, in milliseconds: a day.
pub const FAULT_MS_MAX: u64 = 24 * 3_600_000;
/// Most requests at once that a limit may allow.
pub const CONCURRENCY_MAX: u32 = 100_000;
/// Most requests that may wait.
pub const QUEUE_MAX: u32 = 100_000;
/// Most retries of a request.
pub const RETRIES_MAX: u32 = 3;
/// Most probes of a half-open breaker.
pub const PROBES_MAX: u32 = 100;
/// Most failures in a row, or requests in a window, that a policy may ask for.
pub const COUNT_MAX: u32 = 1_000_000;
/// Bytes of inputs that are looked at to tell whether two requests differ.
pub const FINGERPRINT_BYTES_MAX: usize = 4 << 10;
/// Most bytes of a specification, as JSON.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Most bytes of who and why; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// The largest page of a history.
pub const HISTORY_PAGE_MAX: u32 = 1_000;
/// What has happened and waits for the watcher; what comes beyond is dropped and counted.
pub const WATCH_QUEUE_MAX: usize = 4_096;
/// Changes that wait for the watcher; what comes beyond is dropped and counted.
pub const CHANGE_QUEUE_MAX: usize = 1_024;
/// Mirrored requests of an endpoint that may be on their way at once; the rest is not mirrored, and counted.
pub const MIRRORED_MAX: u32 = 1_024;

pub(crate) fn check_count(what: &str, count: usize, max: usize) -> Result<()> {
    if count <= max {
        return Ok(());
    }
    Err(Error::invalid(format!("`{what}` has {count} entries; at most {max} are allowed")))
}

pub(crate) fn check_number(what: &str, number: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{what}` is {number}; it must be {min} to {max}")))
}

pub(crate) fn check_share(what: &str, percent: f64) -> Result<()> {
    if (0.0..=100.0).contains(&percent) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{what}` is {percent}; it must be 0 to 100")))
}

/// Letters, digits, `-`, `_` and `.`, so that names can stand in paths, headers and keys of the store.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::invalid(format!(
        "`{what}` is `{shown}`; a name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"
    )))
}

pub(crate) fn check_text(what: &str, text: &str) -> Result<()> {
    if !text.is_empty() && text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!("`{what}` has {} bytes; it must have 1 to {TEXT_BYTES_MAX}", text.len())))
}
