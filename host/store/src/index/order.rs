//! How documents are ordered, and the cursor that names a place in that order.
//!
//! Every order key of a document is one 128-bit number that compares as the key does, direction applied: values first,
//! then NaN, then what is missing (or cannot be ordered), in both directions. Numbers fit exactly; of texts the first
//! fifteen bytes do, and the rest is compared only when those are equal. The document's id comes last, ascending.
//!
//! Between types: booleans, then numbers, then texts.
//!
//! A cursor holds the last document's place by value, not a row number and not an ordinal. It is bound to the order keys
//! and carries a checksum, so garbage and a cursor of another query are told apart from a place, and refused.

use std::cmp::Ordering;

use mainstay_base::{Error, Result};

use super::Index;
use super::column::{Cell, Column, Tag};
use super::filter::ID_FIELD;
use super::query::OrderKey;
use crate::value::Number;

const CLASS_BOOLEAN: u8 = 0x10;
const CLASS_NUMBER: u8 = 0x20;
const CLASS_TEXT: u8 = 0x30;
/// Above every class and every inverted class: NaN and missing keep their place when the direction turns.
const CLASS_NAN: u8 = 0xFE;
const CLASS_MISSING: u8 = 0xFF;

const CURSOR_VERSION: u8 = 1;

/// The first fifteen bytes as a number that orders as they do.
pub(super) fn text_prefix(text: &str) -> u128 {
    let mut bytes = [0; 16];
    let length = text.len().min(15);
    bytes[1..=length].copy_from_slice(&text.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}

fn of_class(class: u8, key: u128) -> u128 {
    u128::from(class) << 120 | key
}

fn of_number(number: Option<Number>) -> u128 {
    let Some(number) = number else { return of_class(CLASS_NAN, 0) };
    let mut bytes = [0; 16];
    bytes[6..].copy_from_slice(&number.to_bytes());
    of_class(CLASS_NUMBER, u128::from_be_bytes(bytes))
}

/// Turn the direction; NaN and missing stay behind.
fn directed(key: u128, descending: bool) -> u128 {
    if descending && class_of(key) < CLASS_NAN { !key } else { key }
}

fn class_of(key: u128) -> u8 {
    (key >> 120) as u8
}

/// One order key, looked up in the index.
enum Key<'i> {
    Id { descending: bool },
    Column { column: &'i Column, descending: bool },
}

/// The order of one query over one index.
pub(super) struct Ranking<'i> {
    index: &'i Index,
    /// Keys of fields that no document has are left out: they tell no two documents apart.
    keys: Vec<Key<'i>>,
    /// For each key asked for, where it is in `keys`.
    asked: Vec<Option<usize>>,
    /// Binds cursors to the order keys.
    fingerprint: u32,
}

/// A document on its way into a page.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    /// The first order key (or the id's, when there is none).
    first: u128,
    pub ordinal: u32,
}

/// A document's place in the order, by value.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    /// One for each key asked for: the key, and for texts the whole text.
    parts: Vec<(u128, Option<String>)>,
    id: String,
}

impl<'i> Ranking<'i> {
    pub fn new(index: &'i Index, order: &[OrderKey]) -> Ranking<'i> {
        let (mut keys, mut asked) = (Vec::new(), Vec::new());
        for OrderKey { field, descending } in order {
            let key = if field == ID_FIELD {
                Some(Key::Id { descending: *descending })
            } else {
                index.column(field).map(|column| Key::Column { column, descending: *descending })
            };
            asked.push(key.is_some().then_some(keys.len()));
            keys.extend(key);
        }
        Ranking { index, keys, asked, fingerprint: fingerprint(order) }
    }

    pub fn candidate(&self, ordinal: u32) -> Candidate {
        let first = match self.keys.first() {
            Some(key) => self.key(key, ordinal),
            None => of_class(CLASS_TEXT, self.index.id_prefix(ordinal)),
        };
        Candidate { first, ordinal }
    }

    /// Which of two documents comes first; equal only for the same document.
    pub fn compare(&self, a: &Candidate, b: &Candidate) -> Ordering {
        a.first.cmp(&b.first).then_with(|| self.compare_ties(a, b))
    }

    fn compare_ties(&self, a: &Candidate, b: &Candidate) -> Ordering {
        for (at, key) in self.keys.iter().enumerate() {
            let order = match at {
                0 => Ordering::Equal,
                _ => self.key(key, a.ordinal).cmp(&self.key(key, b.ordinal)),
            };
            let order = order.then_with(|| self.compare_texts(key, a.ordinal, b.ordinal));
            if order.is_ne() {
                return order;
            }
        }
        self.index.id(a.ordinal).cmp(self.index.id(b.ordinal))
    }

    fn compare_texts(&self, key: &Key<'_>, a: u32, b: u32) -> Ordering {
        match key {
            Key::Id { descending } => turned(self.index.id(a).cmp(self.index.id(b)), *descending),
            Key::Column { column, descending } => {
                let (a, b) = (first_text(column, column.cell(a)), first_text(column, column.cell(b)));
                match (a, b) {
                    (Some(a), Some(b)) if a != b => {
                        turned(column.dictionary().text(a).cmp(column.dictionary().text(b)), *descending)
                    }
                    _ => Ordering::Equal,
                }
            }
        }
    }

    #[inline]
    fn key(&self, key: &Key<'_>, ordinal: u32) -> u128 {
        match key {
            Key::Id { descending } => directed(of_class(CLASS_TEXT, self.index.id_prefix(ordinal)), *descending),
            Key::Column { column, descending } => directed(cell_key(column, column.cell(ordinal)), *descending),
        }
    }

    /// The place of a document.
    fn place(&self, ordinal: u32) -> Place {
        let part = |asked: &Option<usize>| match asked.map(|at| &self.keys[at]) {
            None => (of_class(CLASS_MISSING, 0), None),
            Some(key) => (self.key(key, ordinal), self.text(key, ordinal).map(str::to_owned)),
        };
        Place { parts: self.asked.iter().map(part).collect(), id: self.index.id(ordinal).to_owned() }
    }

    fn text(&self, key: &Key<'i>, ordinal: u32) -> Option<&'i str> {
        match key {
            Key::Id { .. } => Some(self.index.id(ordinal)),
            Key::Column { column, .. } => {
                first_text(column, column.cell(ordinal)).map(|text| column.dictionary().text(text))
            }
        }
    }

    /// Whether a document comes behind a place.
    pub fn is_behind(&self, candidate: &Candidate, place: &Place) -> bool {
        for (asked, (key, text)) in self.asked.iter().zip(&place.parts) {
            let order = match asked.map(|at| &self.keys[at]) {
                None => of_class(CLASS_MISSING, 0).cmp(key),
                Some(own) => self.key(own, candidate.ordinal).cmp(key).then_with(|| {
                    let order = self.text(own, candidate.ordinal).cmp(&text.as_deref());
                    turned(order, own.descending())
                }),
            };
            if order.is_ne() {
                return order.is_gt();
            }
        }
        self.index.id(candidate.ordinal) > place.id.as_str()
    }

    /// The cursor that goes on behind a document.
    pub fn cursor(&self, ordinal: u32) -> Vec<u8> {
        let place = self.place(ordinal);
        let mut out = vec![CURSOR_VERSION];
        out.extend(self.fingerprint.to_le_bytes());
        for (key, text) in &place.parts {
            out.extend(key.to_le_bytes());
            match text {
                None => out.push(0),
                Some(text) => {
                    out.push(1);
                    push_text(&mut out, text);
                }
            }
        }
        push_text(&mut out, &place.id);
        let checksum = crc32fast::hash(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    /// The place that a cursor names.
    pub fn parse_cursor(&self, cursor: &[u8]) -> Result<Place> {
        let garbage = || {
            Error::invalid(
                "the cursor is damaged or was not made by this host; start again without one, and pass `next` on unchanged",
            )
        };
        let (body, checksum) = cursor.split_last_chunk::<4>().ok_or_else(garbage)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(garbage());
        }
        let mut rest = Reader(body);
        let version = rest.byte().ok_or_else(garbage)?;
        if version != CURSOR_VERSION {
            return Err(Error::invalid(format!(
                "the cursor has version {version}, this host reads version {CURSOR_VERSION}; start again without one"
            )));
        }
        if rest.array().map(u32::from_le_bytes) != Some(self.fingerprint) {
            return Err(Error::invalid(
                "the cursor belongs to a query with another order; repeat the order of the page that it came from",
            ));
        }
        self.parse_parts(&mut rest).filter(|_| rest.0.is_empty()).ok_or_else(garbage)
    }

    fn parse_parts(&self, rest: &mut Reader<'_>) -> Option<Place> {
        let mut parts = Vec::with_capacity(self.asked.len());
        for _ in &self.asked {
            let key = rest.array().map(u128::from_le_bytes)?;
            let text = match rest.byte()? {
                0 => None,
                1 => Some(rest.text()?),
                _ => return None,
            };
            parts.push((key, text));
        }
        Some(Place { parts, id: rest.text()? })
    }
}

impl Key<'_> {
    fn descending(&self) -> bool {
        match self {
            Key::Id { descending } | Key::Column { descending, .. } => *descending,
        }
    }
}

fn turned(order: Ordering, descending: bool) -> Ordering {
    if descending { order.reverse() } else { order }
}

fn first_text(column: &Column, cell: Cell) -> Option<u32> {
    match cell.tag {
        Tag::Text => Some(cell.payload as u32),
        Tag::Texts => column.list(cell).first().copied(),
        _ => None,
    }
}

#[inline]
fn cell_key(column: &Column, cell: Cell) -> u128 {
    match cell.tag {
        Tag::Integer => of_number(Some(Number::from_integer(cell.payload as i64))),
        Tag::Real => of_number(Number::from_real(f64::from_bits(cell.payload))),
        Tag::Boolean => of_class(CLASS_BOOLEAN, cell.payload.into()),
        Tag::Missing | Tag::Bytes => of_class(CLASS_MISSING, 0),
        Tag::Text | Tag::Texts => match first_text(column, cell) {
            Some(text) => of_class(CLASS_TEXT, column.dictionary().prefix(text)),
            None => of_class(CLASS_MISSING, 0),
        },
    }
}

fn fingerprint(order: &[OrderKey]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for OrderKey { field, descending } in order {
        hasher.update(&(field.len() as u32).to_le_bytes());
        hasher.update(field.as_bytes());
        hasher.update(&[u8::from(*descending)]);
    }
    hasher.finalize()
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Reads from the front; none when there is not enough.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N).and_then(|bytes| bytes.try_into().ok())
    }

    fn text(&mut self) -> Option<String> {
        let length = self.array().map(u32::from_le_bytes)?;
        String::from_utf8(self.take(length as usize)?.to_vec()).ok()
    }
}
