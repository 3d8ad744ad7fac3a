//! Where the tables' things lie in the store.
//!
//! Owns the keys, so that no two modules disagree about them. All lie in one space of the host's own; a table's name has
//! no `/`, so that one table's prefix is never another's.
//!
//! Bounded by the store's limit for keys, which the limits of names keep far away.

use mainstay_store::Space;

/// The space of all tables.
pub(crate) fn space() -> Space {
    Space::host("tables")
}

/// All specifications.
pub(crate) const SPECS: &[u8] = b"t/";

/// The specification of one table.
pub(crate) fn spec(table: &str) -> Vec<u8> {
    format!("t/{table}").into_bytes()
}

/// The secret that a table's hashes are keyed with.
pub(crate) fn secret(table: &str) -> Vec<u8> {
    format!("s/{table}").into_bytes()
}

/// What pending pieces are appended under; they follow in the order of their commits.
pub(crate) fn pending(table: &str) -> Vec<u8> {
    format!("p/{table}/").into_bytes()
}

/// The counter of pending bytes.
pub(crate) fn pending_bytes(table: &str) -> Vec<u8> {
    format!("n/{table}").into_bytes()
}

/// All files of one table.
pub(crate) fn files(table: &str) -> Vec<u8> {
    format!("f/{table}/").into_bytes()
}

/// One file.
pub(crate) fn file(table: &str, name: &str) -> Vec<u8> {
    format!("f/{table}/{name}").into_bytes()
}

/// All files of one table that were moved aside.
pub(crate) fn damaged_files(table: &str) -> Vec<u8> {
    format!("q/{table}/").into_bytes()
}

/// One file that was moved aside.
pub(crate) fn damaged_file(table: &str, name: &str) -> Vec<u8> {
    format!("q/{table}/{name}").into_bytes()
}

/// An idempotency key that was used.
pub(crate) fn used(table: &str, key: &str) -> Vec<u8> {
    format!("k/{table}/{key}").into_bytes()
}

/// The same once more, in the order of time.
pub(crate) fn used_at(table: &str, at_ms: i64, key: &str) -> Vec<u8> {
    [used_before(table, at_ms), key.as_bytes().to_vec()].concat()
}

/// The first key that was used at this time.
pub(crate) fn used_before(table: &str, at_ms: i64) -> Vec<u8> {
    [format!("e/{table}/").as_bytes(), &(at_ms.max(0) as u64).to_be_bytes()].concat()
}

/// The idempotency key at the end of [`used_at`].
pub(crate) fn key_of_used_at<'a>(table: &str, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key.get(used_before(table, 0).len()..)?).ok()
}
