//! Every limit of the store, in one place.
//!
//! They are those of `mainstay:host/keys`; crossing one is `invalid` with the limit in the message, because asking again
//! with the same argument fails again.

use mainstay_base::{Error, Result};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// What an append adds to its key, in bytes; the key of an append is that much shorter.
pub const APPEND_SUFFIX_BYTES: usize = 10;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Most operations of one transaction, guards included.
pub const TRANSACTION_OPERATIONS_MAX: usize = 10_000;
/// Most bytes of keys, values and fields in one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 16 << 20;
/// Most keys that the `delete-range`s of one transaction may remove.
pub const DELETE_RANGE_KEYS_MAX: usize = 100_000;
/// Most keys in one `get-many`.
pub const GET_MANY_KEYS_MAX: usize = 10_000;
/// Most bytes that one `get-many` returns.
pub const GET_MANY_BYTES_MAX: usize = 16 << 20;
/// Most ranges in one scan.
pub const SCAN_RANGES_MAX: usize = 10_000;
/// Most entries in one page.
pub const PAGE_ENTRIES_MAX: u32 = 100_000;
/// A page ends before it would grow beyond this; a single larger entry is a page of its own.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    check_length("key", key.len(), 1, KEY_BYTES_MAX)
}

pub(crate) fn check_append_key(key: &[u8]) -> Result<()> {
    check_length("key of an append", key.len(), 1, KEY_BYTES_MAX - APPEND_SUFFIX_BYTES)
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    check_length("value", value.len(), 0, VALUE_BYTES_MAX)
}

/// Bounds of ranges may be empty, and a successor of the longest key is one byte longer.
pub(crate) fn check_bound(bound: &[u8]) -> Result<()> {
    check_length("bound of a range", bound.len(), 0, KEY_BYTES_MAX + 1)
}

fn check_length(what: &str, length: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&length) {
        return Ok(());
    }
    Err(Error::invalid(format!("a {what} of {length} bytes; it must have {min} to {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_n_and_not_at_n_plus_one() {
        fn check(run: fn(&[u8]) -> Result<()>, max: usize) {
            run(&vec![0; max]).unwrap();
            let error = run(&vec![0; max + 1]).unwrap_err();
            assert!(error.message().contains(&max.to_string()), "{error}");
        }
        check(check_key, 1_024);
        check(check_append_key, 1_014);
        check(check_value, 4 << 20);
        check(check_bound, 1_025);
        check_key(b"").unwrap_err();
    }
}
