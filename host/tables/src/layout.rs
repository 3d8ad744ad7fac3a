//! Where the tables' things lie in the store.
//!
//! Owns the keys, so that no two modules disagree about them. All lie in one space of the host's own. What belongs to a
//! table lies under its number, which no other table ever has: so a table of the same name can be made while what is left
//! of a dropped one is still being removed.
//!
//! Bounded by the store's limit for keys, which the limits of names keep far away.

use std::fmt;

use mainstay_store::Space;

/// The number of a table: the sequence that its store had when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct TableId(pub u64);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The space of all tables.
pub(crate) fn space() -> Space {
    Space::host("tables")
}

/// All specifications.
pub(crate) const SPECS: &[u8] = b"t/";

/// The specification of one table, by its name.
pub(crate) fn spec(name: &str) -> Vec<u8> {
    format!("t/{name}").into_bytes()
}

/// There as long as the table is: what every change of it is guarded on.
pub(crate) fn alive(table: TableId) -> Vec<u8> {
    format!("a/{table}").into_bytes()
}

/// All tables that were dropped and whose keys are not yet gone.
pub(crate) const DROPPED: &[u8] = b"d/";

/// A table that was dropped.
pub(crate) fn dropped(table: TableId) -> Vec<u8> {
    format!("d/{table}").into_bytes()
}

/// The table of a key under [`DROPPED`].
pub(crate) fn table_of_dropped(key: &[u8]) -> Option<TableId> {
    let number = std::str::from_utf8(key.strip_prefix(DROPPED)?).ok()?;
    u64::from_str_radix(number, 16).ok().map(TableId)
}

/// The secret that a table's hashes are keyed with.
pub(crate) fn secret(table: TableId) -> Vec<u8> {
    format!("s/{table}").into_bytes()
}

/// What pending pieces are appended under; they follow in the order of their commits.
pub(crate) fn pending(table: TableId) -> Vec<u8> {
    format!("p/{table}/").into_bytes()
}

/// The counter of pending bytes.
pub(crate) fn pending_bytes(table: TableId) -> Vec<u8> {
    format!("n/{table}").into_bytes()
}

/// All files of one table.
pub(crate) fn files(table: TableId) -> Vec<u8> {
    format!("f/{table}/").into_bytes()
}

/// One file.
pub(crate) fn file(table: TableId, name: &str) -> Vec<u8> {
    format!("f/{table}/{name}").into_bytes()
}

/// All files of one table that were moved aside.
pub(crate) fn damaged_files(table: TableId) -> Vec<u8> {
    format!("q/{table}/").into_bytes()
}

/// One file that was moved aside.
pub(crate) fn damaged_file(table: TableId, name: &str) -> Vec<u8> {
    format!("q/{table}/{name}").into_bytes()
}

/// All idempotency keys that were used.
pub(crate) fn all_used(table: TableId) -> Vec<u8> {
    format!("k/{table}/").into_bytes()
}

/// An idempotency key that was used.
pub(crate) fn used(table: TableId, key: &str) -> Vec<u8> {
    format!("k/{table}/{key}").into_bytes()
}

/// All idempotency keys once more, in the order of time.
pub(crate) fn all_used_at(table: TableId) -> Vec<u8> {
    format!("e/{table}/").into_bytes()
}

/// One of them.
pub(crate) fn used_at(table: TableId, at_ms: i64, key: &str) -> Vec<u8> {
    [used_before(table, at_ms), key.as_bytes().to_vec()].concat()
}

/// The first key that was used at this time.
pub(crate) fn used_before(table: TableId, at_ms: i64) -> Vec<u8> {
    [&all_used_at(table)[..], &(at_ms.max(0) as u64).to_be_bytes()].concat()
}

/// The idempotency key at the end of [`used_at`].
pub(crate) fn key_of_used_at(table: TableId, key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(used_before(table, 0).len()..)?).ok()
}
