//! Documents as bytes: packed for plugins, and as rows for the durable store.
//!
//! Both forms list fields in order of name and write them alike (`mainstay:host/index` says how); a packed document starts
//! with its id, a row with a version. Reading a row is strict: names in order and without repetition, known types, valid
//! UTF-8, nothing behind the end. A row that breaks a rule is damaged, and the error says what was found.

use mainstay_base::{Error, Result};

use super::Index;
use super::column::{Column, Tag};
use super::query::{FIELD_NAME_BYTES_MAX, FieldWrite};
use crate::value::{Rank, Value};

const ROW_VERSION: u8 = 1;

/// Append one document, packed. `wanted` says by field number which fields to write; none means all.
pub(super) fn pack_document(out: &mut Vec<u8>, index: &Index, ordinal: u32, wanted: Option<&[bool]>) {
    let id = index.id(ordinal);
    out.extend((id.len() as u32).to_le_bytes());
    out.extend(id.as_bytes());
    pack_fields(out, index, ordinal, wanted);
}

/// A document as a row.
pub(super) fn encode_row(index: &Index, ordinal: u32) -> Vec<u8> {
    let mut out = vec![ROW_VERSION];
    pack_fields(&mut out, index, ordinal, None);
    out
}

fn pack_fields(out: &mut Vec<u8>, index: &Index, ordinal: u32, wanted: Option<&[bool]>) {
    let count_at = out.len();
    out.extend([0; 4]);
    let mut count = 0u32;
    for &number in index.fields_of(ordinal) {
        if wanted.is_some_and(|wanted| !wanted[number as usize]) {
            continue;
        }
        let field = index.field(number);
        out.extend_from_slice(field.packed_name());
        pack_cell(out, field.column(), ordinal);
        count += 1;
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
}

fn pack_cell(out: &mut Vec<u8>, column: &Column, ordinal: u32) {
    let cell = column.cell(ordinal);
    let kind = (cell.tag as u8).wrapping_sub(1);
    match column.rank(ordinal) {
        None => out.extend_from_slice(&[kind, 0]),
        Some((first, second)) => {
            let mut bytes = [0; 18];
            (bytes[0], bytes[1]) = (kind, 1);
            bytes[2..10].copy_from_slice(&first.to_le_bytes());
            bytes[10..].copy_from_slice(&second.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
    }
    match cell.tag {
        Tag::Integer | Tag::Real => out.extend_from_slice(&cell.payload.to_le_bytes()),
        Tag::Boolean => out.push(cell.payload as u8),
        Tag::Text => pack_bytes(out, column.dictionary().text(cell.payload as u32).as_bytes()),
        Tag::Bytes => pack_bytes(out, column.bytes(cell)),
        Tag::Texts => {
            let list = column.list(cell);
            out.extend_from_slice(&(list.len() as u32).to_le_bytes());
            for &text in list {
                pack_bytes(out, column.dictionary().text(text).as_bytes());
            }
        }
        Tag::Missing => unreachable!("a document's list of fields names only fields that it has"),
    }
}

fn pack_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A document that was unpacked: its id and its fields in order of name.
#[derive(Clone, Debug, PartialEq)]
pub struct Unpacked {
    /// The document's id.
    pub id: String,
    /// Its fields; every value is present.
    pub fields: Vec<FieldWrite>,
}

/// Read packed documents back.
pub fn unpack_documents(bytes: &[u8]) -> Result<Vec<Unpacked>> {
    let mut rest = Reader { bytes, at: 0 };
    let mut documents = Vec::new();
    while rest.at < bytes.len() {
        let id = rest.text("a document's id")?;
        documents.push(Unpacked { id, fields: rest.fields()? });
    }
    Ok(documents)
}

/// Read a row back.
pub fn decode_row(bytes: &[u8]) -> Result<Vec<FieldWrite>> {
    let mut rest = Reader { bytes, at: 0 };
    let version = rest.byte("the version")?;
    if version != ROW_VERSION {
        return Err(Error::invalid(format!(
            "the row has version {version}, this host reads version {ROW_VERSION}; it was written by a newer host"
        )));
    }
    let fields = rest.fields()?;
    if rest.at < bytes.len() {
        return Err(rest.damaged(format_args!("{} bytes follow the last field", bytes.len() - rest.at)));
    }
    Ok(fields)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn damaged(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("a row of an index is damaged at byte {}: {what}; restore it from a backup", self.at))
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'b [u8]> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            self.damaged(format_args!("{what} needs {length} bytes, {} are left", self.bytes.len() - self.at))
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self, what: &str) -> Result<u8> {
        Ok(self.take(1, what)?[0])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as asked for"))
    }

    fn length(&mut self, what: &str) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array(what)?) as usize)
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let length = self.length(what)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.damaged(format_args!("{what} is not UTF-8 ({error})"))),
        }
    }

    fn fields(&mut self) -> Result<Vec<FieldWrite>> {
        let count = self.length("the number of fields")?;
        // Not reserved by `count`: a damaged one must not allocate.
        let mut fields: Vec<FieldWrite> = Vec::new();
        for _ in 0..count {
            let field = self.field()?;
            if fields.last().is_some_and(|before| before.name >= field.name) {
                return Err(self.damaged(format_args!("field `{}` is out of order", field.name)));
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn field(&mut self) -> Result<FieldWrite> {
        let name = self.text("a field's name")?;
        if !(1..=FIELD_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(self.damaged(format_args!("a field's name has {} bytes", name.len())));
        }
        let kind = self.byte("a field's type")?;
        let rank = match self.byte("whether a rank follows")? {
            0 => None,
            1 => Some(self.rank()?),
            other => return Err(self.damaged(format_args!("field `{name}` has the rank mark {other}"))),
        };
        let value = Some(self.value(kind)?);
        Ok(FieldWrite { name, value, rank })
    }

    fn rank(&mut self) -> Result<Rank> {
        Ok((i64::from_le_bytes(self.array("a rank")?), i64::from_le_bytes(self.array("a rank")?)))
    }

    fn value(&mut self, kind: u8) -> Result<Value> {
        Ok(match kind {
            0 => Value::Text(self.text("a text")?),
            1 => Value::Integer(i64::from_le_bytes(self.array("an integer")?)),
            2 => Value::Real(f64::from_bits(u64::from_le_bytes(self.array("a real")?))),
            3 => match self.byte("a boolean")? {
                0 => Value::Boolean(false),
                1 => Value::Boolean(true),
                other => return Err(self.damaged(format_args!("a boolean is {other}"))),
            },
            4 => {
                let count = self.length("the number of texts")?;
                Value::Texts((0..count).map(|_| self.text("a text")).collect::<Result<_>>()?)
            }
            5 => {
                let length = self.length("bytes")?;
                Value::Bytes(self.take(length, "bytes")?.to_vec())
            }
            other => return Err(self.damaged(format_args!("there is no type {other}"))),
        })
    }
}
