//! Every limit of calls out of the house, in one place.
//!
//! Crossing one is `invalid` (asking again fails again) or, where the answer is too large, `exhausted`; the limit is in the
//! message.

/// Most hosts in the grants of one caller.
pub const GRANTS_MAX: usize = 256;
/// The longest address, in bytes.
pub const URL_BYTES_MAX: usize = 8 << 10;
/// Most headers of a call.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of a call's headers, names and values together.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// The largest body of a call, in bytes.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// The largest body of an answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;
/// What is read of an answer's body unless the caller says otherwise, in bytes.
pub const ANSWER_BYTES_DEFAULT: usize = 1 << 20;
/// Most bytes of an answer's head.
pub const ANSWER_HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest time of a call, redirects and body included, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 120_000;
/// The time of a call that names none, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// The longest time to connect to one address, in milliseconds.
pub const CONNECT_MS_MAX: u64 = 10_000;
/// Most redirects that are followed.
pub const REDIRECTS_MAX: u8 = 10;
/// Redirects that are followed unless the caller says otherwise.
pub const REDIRECTS_DEFAULT: u8 = 5;
/// Addresses of a host that are tried, one after the other.
pub const ADDRESSES_TRIED: usize = 4;
/// Most secrets that one call adds as headers.
pub const SECRET_HEADERS_MAX: usize = 8;
/// Most secrets that one call is signed with.
pub const SIGNING_SECRETS_MAX: usize = 4;
/// The longest template of what is signed, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 10;
/// The longest name of an owner or a secret, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The largest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 8 << 10;
/// Most secrets of one owner.
pub const SECRETS_MAX: usize = 256;
/// The longest name of a delivery, in bytes.
pub const DELIVERY_ID_BYTES_MAX: usize = 128;
/// How often an answer's `Retry-After` is waited for without counting a failure.
pub const RETRY_AFTER_MAX: u64 = 10;
/// The longest `Retry-After` that is waited for, in milliseconds.
pub const RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// What is read of a delivery's answer, in bytes; the rest is left.
pub(crate) const DELIVERY_ANSWER_BYTES: usize = 64 << 10;
