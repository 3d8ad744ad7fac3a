//! One field of all documents: types, values and ranks by document ordinal.
//!
//! Owns how cells are kept. A well-filled column is *dense*: one byte of type and eight bytes of value for every ordinal,
//! so that a filter over it reads memory from front to back. A rare one is a map, so that ten thousand fields that one
//! document each has cost ten thousand cells. Columns change their form as they fill and empty, with a gap between the two
//! thresholds so that they do not change back and forth. Texts stand in a dictionary; what fits no eight bytes (lists,
//! bytes) stands in a slab.
//!
//! Bounded by the cells set. Nothing here fails: sizes were checked when the transaction was made.

use std::cmp::Ordering;

use hashbrown::HashMap;

use super::bitmap::Bitmap;
use super::dictionary::Dictionary;
use crate::value::{Rank, Value, canonical};

/// A column becomes dense when at least one in `DENSE_ONE_IN` ordinals is filled…
const DENSE_ONE_IN: usize = 8;
/// …and sparse again when less than one in `SPARSE_ONE_IN` is.
const SPARSE_ONE_IN: usize = 32;
/// Below this many cells a column is always sparse: there is nothing to gain.
const DENSE_CELLS_MIN: usize = 64;

/// A cell's type; the numbers are those of the packed form plus one, none is "nothing here".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Missing = 0,
    Text = 1,
    Integer = 2,
    Real = 3,
    Boolean = 4,
    Texts = 5,
    Bytes = 6,
}

/// What a cell holds; what `payload` means depends on the type: a number's bits, a dictionary number, a place in a slab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub tag: Tag,
    pub payload: u64,
}

const MISSING: Cell = Cell { tag: Tag::Missing, payload: 0 };

enum Storage {
    Sparse(HashMap<u32, (Cell, Option<Rank>)>),
    Dense { tags: Vec<Tag>, payloads: Vec<u64>, ranks: Ranks },
}

/// Ranks of a dense column: nothing at all until the first write with a rank.
#[derive(Default)]
struct Ranks {
    ranked: Bitmap,
    ranks: Vec<Rank>,
}

/// One field of all documents.
pub(super) struct Column {
    storage: Storage,
    filled: usize,
    /// How many cells hold one text; with `distinct`, what a text filter costs.
    dictionary: Dictionary,
    lists: Slab<Box<[u32]>>,
    bytes: Slab<Box<[u8]>>,
}

impl Default for Column {
    fn default() -> Column {
        Column {
            storage: Storage::Sparse(HashMap::default()),
            filled: 0,
            dictionary: Dictionary::default(),
            lists: Slab::default(),
            bytes: Slab::default(),
        }
    }
}

impl Column {
    /// How many documents have the field.
    pub fn filled(&self) -> usize {
        self.filled
    }

    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The dictionary numbers of a `texts` cell.
    pub fn list(&self, cell: Cell) -> &[u32] {
        self.lists.get(cell.payload)
    }

    /// The bytes of a `bytes` cell.
    pub fn bytes(&self, cell: Cell) -> &[u8] {
        self.bytes.get(cell.payload)
    }

    #[inline]
    pub fn cell(&self, ordinal: u32) -> Cell {
        match &self.storage {
            Storage::Sparse(cells) => cells.get(&ordinal).map_or(MISSING, |(cell, _)| *cell),
            Storage::Dense { tags, payloads, .. } => match tags.get(ordinal as usize) {
                Some(&tag) => Cell { tag, payload: payloads[ordinal as usize] },
                None => MISSING,
            },
        }
    }

    #[inline]
    pub fn rank(&self, ordinal: u32) -> Option<Rank> {
        match &self.storage {
            Storage::Sparse(cells) => cells.get(&ordinal).and_then(|(_, rank)| *rank),
            Storage::Dense { ranks, .. } => ranks.get(ordinal),
        }
    }

    /// The value, rebuilt.
    pub fn value(&self, ordinal: u32) -> Option<Value> {
        let cell = self.cell(ordinal);
        Some(match cell.tag {
            Tag::Missing => return None,
            Tag::Text => Value::Text(self.dictionary.text(cell.payload as u32).to_owned()),
            Tag::Integer => Value::Integer(cell.payload as i64),
            Tag::Real => Value::Real(f64::from_bits(cell.payload)),
            Tag::Boolean => Value::Boolean(cell.payload != 0),
            Tag::Texts => {
                Value::Texts(self.list(cell).iter().map(|&text| self.dictionary.text(text).to_owned()).collect())
            }
            Tag::Bytes => Value::Bytes(self.bytes(cell).to_vec()),
        })
    }

    /// Whether a write with this rank takes effect: a plain one always, a ranked one when (rank, value) is greater.
    pub fn yields_to(&self, ordinal: u32, value: &Value, rank: Option<Rank>) -> bool {
        let (Some(new), Some(held)) = (rank, self.rank(ordinal)) else { return true };
        match new.cmp(&held) {
            Ordering::Equal => self.value(ordinal).is_none_or(|held| value.total_cmp(&held).is_gt()),
            order => order.is_gt(),
        }
    }

    /// Write a cell; `ordinals` is how many the index has. Returns whether the document did not have the field before.
    pub fn set(&mut self, ordinal: u32, value: &Value, rank: Option<Rank>, ordinals: usize) -> bool {
        let cell = self.keep(value);
        let old = match &mut self.storage {
            Storage::Sparse(cells) => cells.insert(ordinal, (cell, rank)).map_or(MISSING, |(old, _)| old),
            Storage::Dense { tags, payloads, ranks } => {
                let at = ordinal as usize;
                if at >= tags.len() {
                    tags.resize(at + 1, Tag::Missing);
                    payloads.resize(at + 1, 0);
                }
                ranks.set(ordinal, rank);
                Cell {
                    tag: std::mem::replace(&mut tags[at], cell.tag),
                    payload: std::mem::replace(&mut payloads[at], cell.payload),
                }
            }
        };
        self.discard(old);
        let is_new = old.tag == Tag::Missing;
        self.filled += usize::from(is_new);
        if is_new {
            self.reshape(ordinals);
        }
        is_new
    }

    /// Empty a cell; returns whether it held something.
    pub fn clear(&mut self, ordinal: u32, ordinals: usize) -> bool {
        let old = match &mut self.storage {
            Storage::Sparse(cells) => cells.remove(&ordinal).map_or(MISSING, |(old, _)| old),
            Storage::Dense { tags, payloads, ranks } => match tags.get_mut(ordinal as usize) {
                Some(tag) => {
                    ranks.set(ordinal, None);
                    Cell { tag: std::mem::replace(tag, Tag::Missing), payload: payloads[ordinal as usize] }
                }
                None => MISSING,
            },
        };
        if old.tag == Tag::Missing {
            return false;
        }
        self.discard(old);
        self.filled -= 1;
        self.reshape(ordinals);
        true
    }

    /// Put into `out` the ordinals whose cell satisfies the predicate; with a mask, only those in it need be looked at.
    pub fn scan(&self, mask: Option<&Bitmap>, out: &mut Bitmap, predicate: impl Fn(Cell) -> bool) {
        match &self.storage {
            Storage::Sparse(cells) => {
                for (&ordinal, (cell, _)) in cells {
                    if mask.is_none_or(|mask| mask.contains(ordinal)) && predicate(*cell) {
                        out.insert(ordinal);
                    }
                }
            }
            Storage::Dense { tags, payloads, .. } => {
                let masks = mask.map(Bitmap::words);
                let words = out.words_mut().iter_mut().zip(tags.chunks(64).zip(payloads.chunks(64))).enumerate();
                for (at, (word, (tags, payloads))) in words {
                    let wanted = masks.map_or(u64::MAX, |masks| masks.get(at).copied().unwrap_or(0));
                    if wanted == 0 {
                        continue;
                    }
                    let mut found = 0u64;
                    for (bit, (&tag, &payload)) in tags.iter().zip(payloads).enumerate() {
                        found |= u64::from(tag != Tag::Missing && predicate(Cell { tag, payload })) << bit;
                    }
                    *word |= found & wanted;
                }
            }
        }
    }

    fn keep(&mut self, value: &Value) -> Cell {
        match value {
            Value::Text(text) => Cell { tag: Tag::Text, payload: self.dictionary.acquire(text).into() },
            Value::Integer(integer) => Cell { tag: Tag::Integer, payload: *integer as u64 },
            Value::Real(real) => Cell { tag: Tag::Real, payload: canonical(*real).to_bits() },
            Value::Boolean(boolean) => Cell { tag: Tag::Boolean, payload: u64::from(*boolean) },
            Value::Texts(texts) => {
                let numbers = texts.iter().map(|text| self.dictionary.acquire(text)).collect();
                Cell { tag: Tag::Texts, payload: self.lists.insert(numbers) }
            }
            Value::Bytes(bytes) => Cell { tag: Tag::Bytes, payload: self.bytes.insert(bytes.as_slice().into()) },
        }
    }

    fn discard(&mut self, cell: Cell) {
        match cell.tag {
            Tag::Text => self.dictionary.release(cell.payload as u32),
            Tag::Texts => {
                for number in self.lists.remove(cell.payload) {
                    self.dictionary.release(number);
                }
            }
            Tag::Bytes => drop(self.bytes.remove(cell.payload)),
            _ => {}
        }
    }

    fn reshape(&mut self, ordinals: usize) {
        match &mut self.storage {
            Storage::Sparse(cells) if self.filled >= DENSE_CELLS_MIN.max(ordinals / DENSE_ONE_IN) => {
                let cells = std::mem::take(cells);
                self.storage = dense(cells, ordinals);
            }
            Storage::Dense { .. } if self.filled < (DENSE_CELLS_MIN / 2).max(ordinals / SPARSE_ONE_IN) => {
                let cells = (0..ordinals as u32)
                    .map(|ordinal| (ordinal, (self.cell(ordinal), self.rank(ordinal))))
                    .filter(|(_, (cell, _))| cell.tag != Tag::Missing)
                    .collect();
                self.storage = Storage::Sparse(cells);
            }
            _ => {}
        }
    }
}

fn dense(cells: HashMap<u32, (Cell, Option<Rank>)>, ordinals: usize) -> Storage {
    let mut tags = vec![Tag::Missing; ordinals];
    let mut payloads = vec![0; ordinals];
    let mut ranks = Ranks::default();
    for (ordinal, (cell, rank)) in cells {
        tags[ordinal as usize] = cell.tag;
        payloads[ordinal as usize] = cell.payload;
        ranks.set(ordinal, rank);
    }
    Storage::Dense { tags, payloads, ranks }
}

impl Ranks {
    #[inline]
    fn get(&self, ordinal: u32) -> Option<Rank> {
        self.ranked.contains(ordinal).then(|| self.ranks[ordinal as usize])
    }

    fn set(&mut self, ordinal: u32, rank: Option<Rank>) {
        let Some(rank) = rank else { return self.ranked.remove(ordinal) };
        if ordinal as usize >= self.ranks.len() {
            self.ranks.resize(ordinal as usize + 1, (0, 0));
        }
        self.ranks[ordinal as usize] = rank;
        self.ranked.insert(ordinal);
    }
}

/// Things by number; a removed one's number is given out again.
struct Slab<T> {
    things: Vec<T>,
    free: Vec<u64>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { things: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Slab<T> {
    fn get(&self, number: u64) -> &T {
        &self.things[number as usize]
    }

    fn insert(&mut self, thing: T) -> u64 {
        match self.free.pop() {
            Some(number) => {
                self.things[number as usize] = thing;
                number
            }
            None => {
                self.things.push(thing);
                self.things.len() as u64 - 1
            }
        }
    }

    fn remove(&mut self, number: u64) -> T {
        self.free.push(number);
        std::mem::take(&mut self.things[number as usize])
    }
}
