//! What stands in the log for one commit.
//!
//! Owns the bytes: a version, the number of operations, then each as a tag and its parts. A key is written as how many
//! bytes it shares with the key before it, and the rest; so the space's prefix and a run's id cost two bytes instead of
//! fifty. Counters are written as the value they got, so replaying needs no reads. Separate because it is the one format
//! that must be read for years: the version byte comes first, and unknown ones are refused.
//!
//! Reading is strict and bounded: lengths are checked against what is there before anything is allocated, limits of a
//! transaction hold here too, nothing may be left over. Bytes that are not such a record are `internal` errors that say
//! where; the log's checksum has passed, so this is a fault of the host or a newer version's record, never skipped.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Error, Result};

use crate::index::FieldWrite;
use crate::limits::{KEY_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::space::{RowName, parse_row_key};
use crate::transaction::Operation;
use crate::value::Value;

const VERSION: u8 = 1;
/// The longest physical key: a row's (its space, its index, its document), or a range's bound.
const PHYSICAL_KEY_BYTES_MAX: usize = 4 << 10;
/// A document's field count is bounded by the transaction's bytes; this bounds what a damaged count can claim.
const COUNT_MAX: usize = 16 << 20;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;
const APPEND: u8 = 4;
const SET_FIELDS: u8 = 5;
const REMOVE_DOCUMENT: u8 = 6;

const HAS_VALUE: u8 = 0x10;
const HAS_RANK: u8 = 0x20;

/// Write operations down. Additions must have been replaced by what they result in.
pub(crate) fn encode(operations: &[Operation], bytes: usize) -> Vec<u8> {
    let mut writer = Writer { out: Vec::with_capacity(64 + bytes + operations.len() * 24), key: Vec::new() };
    writer.out.push(VERSION);
    writer.number(operations.len() as u64);
    for operation in operations {
        writer.operation(operation);
    }
    writer.out
}

struct Writer {
    out: Vec<u8>,
    /// The key before.
    key: Vec<u8>,
}

impl Writer {
    fn operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Put { key, value } => {
                self.out.push(PUT);
                self.key(key);
                self.bytes(value);
            }
            Operation::Delete { key } => {
                self.out.push(DELETE);
                self.key(key);
            }
            Operation::DeleteRange { start, end } => {
                self.out.push(DELETE_RANGE);
                self.key(start);
                self.key(end);
            }
            Operation::Append { key, fragment } => {
                self.out.push(APPEND);
                self.key(key);
                self.bytes(fragment);
            }
            Operation::Add { key, amount, .. } => {
                // The commit pipeline replaces these; what is written is the value.
                self.out.push(PUT);
                self.key(key);
                self.bytes(&amount.to_le_bytes());
            }
            Operation::SetFields { row, fields } => {
                self.out.push(SET_FIELDS);
                self.key(&row.key());
                self.number(fields.len() as u64);
                for field in fields {
                    self.field(field);
                }
            }
            Operation::RemoveDocument { row } => {
                self.out.push(REMOVE_DOCUMENT);
                self.key(&row.key());
            }
        }
    }

    fn field(&mut self, field: &FieldWrite) {
        let kind = match &field.value {
            None => 0,
            Some(value) => HAS_VALUE | kind(value),
        };
        self.out.push(kind | if field.rank.is_some() { HAS_RANK } else { 0 });
        self.bytes(field.name.as_bytes());
        if let Some((first, second)) = field.rank {
            self.signed(first);
            self.signed(second);
        }
        match &field.value {
            None => {}
            Some(Value::Text(text)) => self.bytes(text.as_bytes()),
            Some(Value::Integer(integer)) => self.signed(*integer),
            Some(Value::Real(real)) => self.out.extend_from_slice(&real.to_bits().to_le_bytes()),
            Some(Value::Boolean(boolean)) => self.out.push(u8::from(*boolean)),
            Some(Value::Texts(texts)) => {
                self.number(texts.len() as u64);
                for text in texts {
                    self.bytes(text.as_bytes());
                }
            }
            Some(Value::Bytes(bytes)) => self.bytes(bytes),
        }
    }

    fn key(&mut self, key: &[u8]) {
        let shared = self.key.iter().zip(key).take_while(|(a, b)| a == b).count();
        self.number(shared as u64);
        self.bytes(&key[shared..]);
        self.key.truncate(shared);
        self.key.extend_from_slice(&key[shared..]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// LEB128.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    /// Zigzag, so that small negative numbers are short.
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Text(_) => 0,
        Value::Integer(_) => 1,
        Value::Real(_) => 2,
        Value::Boolean(_) => 3,
        Value::Texts(_) => 4,
        Value::Bytes(_) => 5,
    }
}

/// Read what [`encode`] wrote. Values share the record's memory.
pub(crate) fn decode(record: Vec<u8>) -> Result<Vec<Operation>> {
    let record = Bytes::from(record);
    let mut reader = Reader { record: &record, at: 0, key: Vec::new() };
    let version = reader.byte()?;
    if version != VERSION {
        return Err(Error::internal(format!(
            "a record of version {version}, and this host reads version {VERSION}: the data folder was written by a newer \
             host; start that one"
        )));
    }
    let count = reader.count(TRANSACTION_OPERATIONS_MAX)?;
    let mut operations = Vec::with_capacity(count);
    for _ in 0..count {
        operations.push(reader.operation()?);
    }
    if reader.at != record.len() {
        return Err(reader.damaged("bytes are left over"));
    }
    Ok(operations)
}

struct Reader<'a> {
    record: &'a Bytes,
    at: usize,
    key: Vec<u8>,
}

impl Reader<'_> {
    fn damaged(&self, what: &str) -> Error {
        let (at, length) = (self.at, self.record.len());
        Error::internal(format!("a record is damaged at byte {at} of {length}: {what}"))
    }

    fn operation(&mut self) -> Result<Operation> {
        Ok(match self.byte()? {
            PUT => Operation::Put { key: self.key()?, value: self.bytes()? },
            DELETE => Operation::Delete { key: self.key()? },
            DELETE_RANGE => Operation::DeleteRange { start: self.key()?, end: self.key()? },
            APPEND => Operation::Append { key: self.key()?, fragment: self.bytes()? },
            SET_FIELDS => {
                let row = self.row()?;
                let count = self.count(COUNT_MAX)?;
                let fields = (0..count).map(|_| self.field()).collect::<Result<_>>()?;
                Operation::SetFields { row, fields }
            }
            REMOVE_DOCUMENT => Operation::RemoveDocument { row: self.row()? },
            tag => return Err(self.damaged(&format!("no operation has the tag {tag}"))),
        })
    }

    fn field(&mut self) -> Result<FieldWrite> {
        let flags = self.byte()?;
        let name = self.text()?;
        let rank = if flags & HAS_RANK != 0 { Some((self.signed()?, self.signed()?)) } else { None };
        let value = match flags & !HAS_RANK {
            0 => None,
            0x10 => Some(Value::Text(self.text()?)),
            0x11 => Some(Value::Integer(self.signed()?)),
            0x12 => Some(Value::Real(f64::from_bits(self.fixed()?))),
            0x13 => Some(Value::Boolean(self.boolean()?)),
            0x14 => {
                let count = self.count(COUNT_MAX)?;
                Some(Value::Texts((0..count).map(|_| self.text()).collect::<Result<_>>()?))
            }
            0x15 => Some(Value::Bytes(self.bytes()?.into())),
            flags => return Err(self.damaged(&format!("no field has the flags {flags:#x}"))),
        };
        Ok(FieldWrite { name, value, rank })
    }

    fn boolean(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.damaged(&format!("a boolean of {other}"))),
        }
    }

    fn key(&mut self) -> Result<Bytes> {
        let shared = self.number()?;
        if shared > self.key.len() as u64 {
            return Err(self.damaged("a key shares more than the key before it has"));
        }
        let rest = self.bytes()?;
        if shared as usize + rest.len() > PHYSICAL_KEY_BYTES_MAX {
            return Err(self.damaged("a key is too long"));
        }
        self.key.truncate(shared as usize);
        self.key.extend_from_slice(&rest);
        Ok(Bytes::copy_from_slice(&self.key))
    }

    fn row(&mut self) -> Result<Arc<RowName>> {
        let key = self.key()?;
        parse_row_key(&key).map(Arc::new).map_err(|error| self.damaged(error.message()))
    }

    fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let length = self.number()?;
        if length > (self.record.len() - self.at) as u64 {
            return Err(self.damaged("something is longer than the record"));
        }
        let end = self.at + length as usize;
        let bytes = self.record.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }

    /// How many things follow: each takes at least a byte, so no more than bytes are left.
    fn count(&mut self, max: usize) -> Result<usize> {
        let count = self.number()?;
        if count > max as u64 || count > (self.record.len() - self.at) as u64 {
            return Err(self.damaged(&format!("a count of {count}")));
        }
        Ok(count as usize)
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(self.damaged("a number is not written as it should be"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged("a number is too long"))
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn fixed(&mut self) -> Result<u64> {
        let rest = &self.record[self.at..];
        let Some(bytes) = rest.first_chunk::<8>() else { return Err(self.damaged("it ends inside a number")) };
        self.at += bytes.len();
        Ok(u64::from_le_bytes(*bytes))
    }

    fn byte(&mut self) -> Result<u8> {
        let Some(&byte) = self.record.get(self.at) else { return Err(self.damaged("it ends too early")) };
        self.at += 1;
        Ok(byte)
    }
}

const _: () = assert!(PHYSICAL_KEY_BYTES_MAX > KEY_BYTES_MAX + 300);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            prop::collection::vec(0u8..3, 1..20).prop_map(Bytes::from),
            prop::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from)
        ]
    }

    fn data() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn value() -> impl Strategy<Value = crate::value::Value> {
        prop_oneof![
            any::<String>().prop_map(Value::Text),
            any::<i64>().prop_map(Value::Integer),
            (-100i64..100).prop_map(Value::Integer),
            prop::num::f64::NORMAL.prop_map(Value::Real),
            Just(Value::Real(f64::NEG_INFINITY)),
            any::<bool>().prop_map(Value::Boolean),
            prop::collection::vec(any::<String>(), 0..4).prop_map(Value::Texts),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ]
    }

    fn field() -> impl Strategy<Value = FieldWrite> {
        (".{0,20}", prop::option::of(value()), prop::option::of(any::<(i64, i64)>()))
            .prop_map(|(name, value, rank)| FieldWrite { name, value, rank })
    }

    fn row() -> impl Strategy<Value = Arc<RowName>> {
        let space = prop::sample::select(vec![crate::Space::plugin("t"), crate::Space::host("tt")]);
        (space, "[a-z0-9-]{1,9}", ".{0,20}")
            .prop_map(|(space, index, document)| Arc::new(RowName { space, index, document }))
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (key(), data()).prop_map(|(key, value)| Operation::Put { key, value }),
            key().prop_map(|key| Operation::Delete { key }),
            (key(), key()).prop_map(|(start, end)| Operation::DeleteRange { start, end }),
            (key(), data()).prop_map(|(key, fragment)| Operation::Append { key, fragment }),
            (row(), prop::collection::vec(field(), 0..5))
                .prop_map(|(row, fields)| Operation::SetFields { row, fields }),
            row().prop_map(|row| Operation::RemoveDocument { row }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(operations in prop::collection::vec(operation(), 0..20)) {
            let record = encode(&operations, 0);
            prop_assert_eq!(decode(record).unwrap(), operations);
        }

        #[test]
        fn damage_is_an_error_or_another_record_never_a_panic(
            operations in prop::collection::vec(operation(), 1..6), at in any::<prop::sample::Index>(), xor in 1u8..
        ) {
            let record = encode(&operations, 0);
            let mut damaged = record.clone();
            damaged[at.index(record.len())] ^= xor;
            if let Ok(read) = decode(damaged.clone()) {
                // One byte sequence for one list of operations: what is read back is what was there.
                prop_assert!(encode(&read, 0).len() <= damaged.len());
            }
            decode(record[..at.index(record.len())].to_vec()).unwrap_err();
            let mut longer = record.clone();
            longer.push(xor);
            decode(longer).unwrap_err();
        }

        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode([&[VERSION, 3], &noise[..]].concat());
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_allocated() {
        fn check(record: &[u8], expect: &str) {
            let error = decode(record.to_vec()).unwrap_err();
            assert!(error.message().contains(expect), "{error}");
        }
        check(&[], "too early");
        check(&[2, 0], "version 2");
        check(&[1], "too early");
        check(&[1, 0, 0], "left over");
        check(&[1, 1, 9], "tag 9");
        check(&[1, 1, PUT, 0, 1, b'k', 0xff, 0xff, 0xff, 0xff, 0x0f], "longer than the record");
        check(&[1, 1, PUT, 5, 1, b'k', 0], "shares more");
        check(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f], "count");
        check(&[1, 0x80, 0x00], "not written as it should be");
        check(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "not written as it should be");
        check(&[1, 1, REMOVE_DOCUMENT, 0, 1, b'r'], "index row");
        let set = |field: &[u8]| [&[1, 1, SET_FIELDS, 0, 7], &b"ip\x01t\x01xd"[..], &[1], field].concat();
        check(&set(&[0x16, 0]), "flags");
        check(&set(&[0x13, 0, 2]), "boolean");
        check(&set(&[0x10, 0, 1, 0xff]), "UTF-8");
        check(&set(&[0x12, 0, 1]), "inside a number");
    }

    #[test]
    fn a_typical_record_is_compact() {
        let key = |n: u32| Bytes::from(format!("p\x08trackingrun/0123456789abcdef/metric/{n:04}"));
        let puts: Vec<_> =
            (0..10).map(|n| Operation::Put { key: key(n), value: Bytes::from_static(&[7; 8]) }).collect();
        assert!(encode(&puts, 0).len() < 50 + 10 * 14);
    }
}
