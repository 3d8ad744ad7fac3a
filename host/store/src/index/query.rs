//! Questions, answers and writes: the types that cross from `mainstay:host/index`, and their limits.

use mainstay_base::{Error, Result};

use super::filter::ID_FIELD;
use crate::value::{Rank, Value};

/// The longest name of an index.
pub const INDEX_NAME_BYTES_MAX: usize = 64;
/// The longest document id.
pub const DOCUMENT_ID_BYTES_MAX: usize = 1_024;
/// The longest field name.
pub const FIELD_NAME_BYTES_MAX: usize = 512;
/// Most fields in one `set-fields`.
pub const FIELDS_PER_WRITE_MAX: usize = 10_000;
/// Most nodes of a filter.
pub const FILTER_NODES_MAX: usize = 1_000;
/// Most values of all `one-of` nodes of a filter.
pub const ONE_OF_VALUES_MAX: usize = 100_000;
/// Most order keys.
pub const ORDER_KEYS_MAX: usize = 16;
/// Most documents in a page.
pub const LIMIT_MAX: u32 = 50_000;
/// A page ends early, with `next`, when it has grown to this size.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// One field of one document, to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldWrite {
    /// The field's name.
    pub name: String,
    /// None removes the field.
    pub value: Option<Value>,
    /// With a rank, the write takes effect only if (rank, value) is greater than what the field holds.
    pub rank: Option<Rank>,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same value.
    Equal,
    /// Another value of the same type.
    NotEqual,
    /// Less than the operand.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater than the operand.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
    /// SQL LIKE, case-sensitive.
    Like,
    /// SQL LIKE without regard to case.
    Ilike,
    /// The field exists, whatever its type.
    Exists,
}

/// One leaf of a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The field, or `@id`.
    pub field: String,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub operand: Value,
}

/// One node of a filter in postfix order.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterNode {
    /// Compare a field.
    Term(Term),
    /// The field equals one of these.
    OneOf(String, Vec<Value>),
    /// The last n results all hold.
    All(u32),
    /// One of the last n results holds.
    Any(u32),
    /// The last result does not hold.
    Negate,
}

/// One key of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// The field, or `@id`.
    pub field: String,
    /// Greatest first.
    pub descending: bool,
}

/// A question to an index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Which documents, in postfix order; empty means all.
    pub filter: Vec<FilterNode>,
    /// In which order; the id, ascending, always comes last.
    pub order: Vec<OrderKey>,
    /// `next` of the page before.
    pub after: Option<Vec<u8>>,
    /// How many documents, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Which fields to return: none = all, empty = only ids.
    pub fields: Option<Vec<String>>,
}

/// Answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Documents packed as `mainstay:host/index` says.
    pub documents: Vec<u8>,
    /// How many are packed.
    pub count: u32,
    /// How many match in all.
    pub matched: u64,
    /// Present when there is more.
    pub next: Option<Vec<u8>>,
}

/// Whether this is a name that an index may have.
pub fn check_index_name(index: &str) -> Result<()> {
    let fits = (1..=INDEX_NAME_BYTES_MAX).contains(&index.len());
    if fits && index.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` cannot name an index; use 1 to {INDEX_NAME_BYTES_MAX} of a-z, 0-9 and `-`",
        shown(index)
    )))
}

/// Whether this is an id that a document may have.
pub fn check_document_id(document: &str) -> Result<()> {
    if (1..=DOCUMENT_ID_BYTES_MAX).contains(&document.len()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a document's id has {} bytes; it must have 1 to {DOCUMENT_ID_BYTES_MAX}",
        document.len()
    )))
}

/// Whether a write may be made: what a transaction checks before it collects one.
pub fn check_write(index: &str, document: &str, fields: &[FieldWrite]) -> Result<()> {
    check_index_name(index)?;
    check_document_id(document)?;
    if fields.len() > FIELDS_PER_WRITE_MAX {
        return Err(Error::invalid(format!(
            "document `{}` is given {} fields at once; at most {FIELDS_PER_WRITE_MAX} a call, so split them",
            shown(document),
            fields.len()
        )));
    }
    fields.iter().try_for_each(check_field)
}

fn check_field(field: &FieldWrite) -> Result<()> {
    check_field_name(&field.name)?;
    if field.name == ID_FIELD {
        return Err(Error::invalid("the field `@id` is the document's id and cannot be set; choose another name"));
    }
    if field.value.is_none() && field.rank.is_some() {
        return Err(Error::invalid(format!(
            "field `{}` is removed with a rank; a removal takes none, it always takes effect",
            shown(&field.name)
        )));
    }
    Ok(())
}

pub(super) fn check_field_name(name: &str) -> Result<()> {
    if (1..=FIELD_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::invalid(format!("a field's name has {} bytes; it must have 1 to {FIELD_NAME_BYTES_MAX}", name.len())))
}

impl Query {
    /// Whether the question is within its limits; the filter's shape is checked when it is read.
    pub fn check(&self) -> Result<()> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(Error::invalid(format!("the limit is {}; it must be 1 to {LIMIT_MAX}", self.limit)));
        }
        if self.order.len() > ORDER_KEYS_MAX {
            return Err(Error::invalid(format!(
                "the order has {} keys; at most {ORDER_KEYS_MAX} are allowed",
                self.order.len()
            )));
        }
        self.order.iter().try_for_each(|key| check_field_name(&key.field))?;
        match &self.fields {
            Some(fields) if fields.len() > FIELDS_PER_WRITE_MAX => Err(Error::invalid(format!(
                "{} fields are asked for; at most {FIELDS_PER_WRITE_MAX}, or none for all of them",
                fields.len()
            ))),
            _ => Ok(()),
        }
    }
}

/// A name in a message: cut when it is long.
pub(super) fn shown(name: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}
