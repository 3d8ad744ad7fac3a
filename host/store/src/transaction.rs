//! Changes that are made together or not at all, while they are collected.
//!
//! Owns [`Transaction`]: an ordered list of operations and guards with their sizes checked. Separate from committing,
//! because collecting touches nothing: a transaction that is dropped has done nothing. It holds its view, so that guards
//! against what was read can be checked at the commit however late it comes.
//!
//! Bounded by the limits of [`crate::limits`]; crossing one is `invalid` and leaves the transaction as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Error, Result};

use crate::index::{FieldWrite, check_document_id, check_index_name, check_write};
use crate::limits::{self, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::space::{RowName, Space};
use crate::view::{KeyRange, View};

/// Changes that become visible and durable together, or not at all.
#[derive(Clone)]
pub struct Transaction {
    view: View,
    guards: Vec<Guard>,
    operations: Vec<Operation>,
    bytes: usize,
}

/// A condition for the commit.
#[derive(Clone)]
pub(crate) struct Guard {
    pub key: Bytes,
    pub expect: Expect,
    /// What the commit fails with instead of `conflict`.
    pub otherwise: Option<Error>,
}

#[derive(Clone)]
pub(crate) enum Expect {
    Absent,
    Present,
    Value(Bytes),
    Unchanged,
}

/// One change; keys are physical.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    DeleteRange {
        start: Bytes,
        end: Bytes,
    },
    Append {
        key: Bytes,
        fragment: Bytes,
    },
    /// `is_told`: whether the new value is in the receipt.
    Add {
        key: Bytes,
        amount: i64,
        is_told: bool,
    },
    SetFields {
        row: Arc<RowName>,
        fields: Vec<FieldWrite>,
    },
    RemoveDocument {
        row: Arc<RowName>,
    },
}

impl Transaction {
    pub(crate) fn new(view: View) -> Transaction {
        Transaction { view, guards: Vec::new(), operations: Vec::new(), bytes: 0 }
    }

    /// The view that the transaction began with.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty() && self.operations.is_empty()
    }

    /// The commit succeeds only if the key holds nothing. Sees commits that are still on their way to the disk.
    pub fn expect_absent(&mut self, space: &Space, key: &[u8]) -> Result<()> {
        self.guard(space, key, Expect::Absent, None)
    }

    /// The same, with an error of the caller's instead of `conflict`.
    pub fn expect_absent_or(&mut self, space: &Space, key: &[u8], otherwise: Error) -> Result<()> {
        self.guard(space, key, Expect::Absent, Some(otherwise))
    }

    /// The commit succeeds only if the key holds something.
    pub fn expect_present(&mut self, space: &Space, key: &[u8]) -> Result<()> {
        self.guard(space, key, Expect::Present, None)
    }

    /// The same, with an error of the caller's instead of `conflict`.
    pub fn expect_present_or(&mut self, space: &Space, key: &[u8], otherwise: Error) -> Result<()> {
        self.guard(space, key, Expect::Present, Some(otherwise))
    }

    /// The commit succeeds only if the key holds exactly this value.
    pub fn expect_value(&mut self, space: &Space, key: &[u8], value: impl Into<Bytes>) -> Result<()> {
        let value = value.into();
        limits::check_value(&value)?;
        self.guard(space, key, Expect::Value(value), None)
    }

    /// The same, with an error of the caller's instead of `conflict`.
    pub fn expect_value_or(
        &mut self,
        space: &Space,
        key: &[u8],
        value: impl Into<Bytes>,
        otherwise: Error,
    ) -> Result<()> {
        let value = value.into();
        limits::check_value(&value)?;
        self.guard(space, key, Expect::Value(value), Some(otherwise))
    }

    /// The commit succeeds only if nobody has written the key since the transaction's view was taken.
    pub fn expect_unchanged(&mut self, space: &Space, key: &[u8]) -> Result<()> {
        self.guard(space, key, Expect::Unchanged, None)
    }

    /// Store a value, replacing what was there.
    pub fn put(&mut self, space: &Space, key: &[u8], value: impl Into<Bytes>) -> Result<()> {
        let value = value.into();
        limits::check_key(key)?;
        limits::check_value(&value)?;
        self.take(key.len() + value.len())?;
        self.operations.push(Operation::Put { key: space.key(key), value });
        Ok(())
    }

    /// Remove a key. Removing one that is not there is no error.
    pub fn delete(&mut self, space: &Space, key: &[u8]) -> Result<()> {
        limits::check_key(key)?;
        self.take(key.len())?;
        self.operations.push(Operation::Delete { key: space.key(key) });
        Ok(())
    }

    /// Remove every key in the range that exists when the commit is applied, those of earlier operations included.
    pub fn delete_range(&mut self, space: &Space, range: &KeyRange) -> Result<()> {
        let (start, end) = range.bounds(space)?;
        self.take(start.len() + end.len())?;
        self.operations.push(Operation::DeleteRange { start, end });
        Ok(())
    }

    /// Add a fragment to the sequence under `key`: it is stored under the key, the commit's sequence in eight bytes and the
    /// operation's number in two, both big endian.
    pub fn append(&mut self, space: &Space, key: &[u8], fragment: impl Into<Bytes>) -> Result<()> {
        let fragment = fragment.into();
        limits::check_append_key(key)?;
        limits::check_value(&fragment)?;
        self.take(key.len() + fragment.len())?;
        self.operations.push(Operation::Append { key: space.key(key), fragment });
        Ok(())
    }

    /// Add to the counter under `key`: eight bytes, little endian, absent counting as 0. The new value is in the receipt.
    pub fn add(&mut self, space: &Space, key: &[u8], amount: i64) -> Result<()> {
        self.push_add(space, key, amount, true)
    }

    /// The same for a room's own counts in somebody else's transaction: the new value is not in the receipt.
    pub fn add_untold(&mut self, space: &Space, key: &[u8], amount: i64) -> Result<()> {
        self.push_add(space, key, amount, false)
    }

    fn push_add(&mut self, space: &Space, key: &[u8], amount: i64, is_told: bool) -> Result<()> {
        limits::check_key(key)?;
        self.take(key.len() + size_of::<i64>())?;
        self.operations.push(Operation::Add { key: space.key(key), amount, is_told });
        Ok(())
    }

    /// Set or remove fields of a document of an index; it appears with its first field.
    pub fn set_fields(&mut self, space: &Space, index: &str, document: &str, fields: Vec<FieldWrite>) -> Result<()> {
        check_write(index, document, &fields)?;
        let bytes = fields.iter().map(|field| field.name.len() + field.value.as_ref().map_or(0, |v| v.size_bytes()));
        self.take(index.len() + document.len() + bytes.sum::<usize>())?;
        self.operations.push(Operation::SetFields { row: row_name(space, index, document), fields });
        Ok(())
    }

    /// Remove a document and all its fields.
    pub fn remove_document(&mut self, space: &Space, index: &str, document: &str) -> Result<()> {
        check_index_name(index)?;
        check_document_id(document)?;
        self.take(index.len() + document.len())?;
        self.operations.push(Operation::RemoveDocument { row: row_name(space, index, document) });
        Ok(())
    }

    /// What the transaction itself leaves under a key: a value, nothing (it removes the key), or none when it says nothing
    /// of it. Appends and additions do not count. Goes through all operations.
    pub fn pending(&self, space: &Space, key: &[u8]) -> Option<Option<Bytes>> {
        let key = &space.key_buf(key)[..];
        self.operations.iter().rev().find_map(|operation| match operation {
            Operation::Put { key: put, value } if put == key => Some(Some(value.clone())),
            Operation::Delete { key: deleted } if deleted == key => Some(None),
            Operation::DeleteRange { start, end } if start <= key && key < end => Some(None),
            _ => None,
        })
    }

    /// Keys with this prefix that the transaction puts and does not remove again, with their values.
    pub fn pending_under(&self, space: &Space, prefix: &[u8]) -> BTreeMap<Vec<u8>, Bytes> {
        let physical = &space.key_buf(prefix)[..];
        let below = space.prefix().len();
        let mut found: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
        for operation in &self.operations {
            match operation {
                Operation::Put { key, value } if key.starts_with(physical) => {
                    found.insert(key[below..].to_vec(), value.clone());
                }
                Operation::Delete { key } if key.starts_with(physical) => {
                    found.remove(&key[below..]);
                }
                Operation::DeleteRange { start, end } => {
                    found.retain(|key, _| {
                        let key = &space.key_buf(key)[..];
                        key < &start[..] || &end[..] <= key
                    });
                }
                _ => {}
            }
        }
        found
    }

    pub(crate) fn into_parts(self) -> (View, Vec<Guard>, Vec<Operation>, usize) {
        (self.view, self.guards, self.operations, self.bytes)
    }

    fn guard(&mut self, space: &Space, key: &[u8], expect: Expect, otherwise: Option<Error>) -> Result<()> {
        limits::check_key(key)?;
        let value_bytes = if let Expect::Value(value) = &expect { value.len() } else { 0 };
        self.take(key.len() + value_bytes)?;
        self.guards.push(Guard { key: space.key(key), expect, otherwise });
        Ok(())
    }

    /// Account for one more operation of this size.
    fn take(&mut self, bytes: usize) -> Result<()> {
        if self.guards.len() + self.operations.len() >= TRANSACTION_OPERATIONS_MAX {
            return Err(Error::invalid(format!(
                "a transaction has at most {TRANSACTION_OPERATIONS_MAX} operations; commit and begin another"
            )));
        }
        if self.bytes + bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a transaction has at most {TRANSACTION_BYTES_MAX} bytes; commit and begin another"
            )));
        }
        self.bytes += bytes;
        Ok(())
    }
}

fn row_name(space: &Space, index: &str, document: &str) -> Arc<RowName> {
    Arc::new(RowName { space: space.clone(), index: index.to_owned(), document: document.to_owned() })
}
