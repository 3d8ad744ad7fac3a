//! Typed fields of documents, in memory by column: filtered, ordered and paged by the host.
//!
//! Owns the data structure, and nothing else: no locks, no files, no transactions. The store's commit pipeline applies
//! writes in the order of the log and asks under its own lock; rows for the durable store are encoded and read here.
//! Separate because it is pure: everything it does can be held against a naive reference (`tests.rs`).
//!
//! Applying a write never fails, because a write that is in the log has happened; sizes are checked when the transaction
//! is made ([`check_write`]). Applying writes again over a newer state ends in the same state, which is what recovery
//! relies on: a plain write is absolute, a ranked one takes the greater.
//!
//! Bounded by what was written: a document's ordinal, a text's and a field's number are used again after removal.

mod bitmap;
mod column;
mod dictionary;
mod filter;
mod like;
mod order;
mod query;
mod row;
mod select;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};
use mainstay_base::Result;

use bitmap::Bitmap;
use column::Column;
pub use query::{
    Comparison, DOCUMENT_ID_BYTES_MAX, FIELD_NAME_BYTES_MAX, FIELDS_PER_WRITE_MAX, FILTER_NODES_MAX, FieldWrite,
    FilterNode, INDEX_NAME_BYTES_MAX, LIMIT_MAX, ONE_OF_VALUES_MAX, ORDER_KEYS_MAX, OrderKey, PAGE_BYTES_MAX, Query,
    Selection, Term, check_document_id, check_index_name, check_write,
};
pub use row::{Unpacked, decode_row, unpack_documents};

/// All indexes of all key spaces; `K` names a key space.
pub struct IndexSet<K> {
    spaces: HashMap<K, BTreeMap<String, Index>>,
}

impl<K> Default for IndexSet<K> {
    fn default() -> IndexSet<K> {
        IndexSet { spaces: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> IndexSet<K> {
    /// Set or remove fields of a document, which appears with its first field and goes with its last.
    pub fn apply_set(&mut self, space: &K, index: &str, document: &str, fields: &[FieldWrite]) {
        self.index_mut(space, index).apply_set(document, fields);
    }

    /// Remove a document.
    pub fn apply_remove(&mut self, space: &K, index: &str, document: &str) {
        if let Some(index) = self.spaces.get_mut(space).and_then(|indexes| indexes.get_mut(index)) {
            index.apply_remove(document);
        }
    }

    /// Answer a query; an index that nothing was written to is empty.
    pub fn select(&self, space: &K, index: &str, query: &Query) -> Result<Selection> {
        check_index_name(index)?;
        match self.index(space, index) {
            Some(index) => select::select(index, query),
            None => select::select_nothing(query),
        }
    }

    /// One document, packed, or none.
    pub fn document(&self, space: &K, index: &str, document: &str) -> Option<Vec<u8>> {
        let index = self.index(space, index)?;
        let mut out = Vec::new();
        row::pack_document(&mut out, index, index.ordinal(document)?, None);
        Some(out)
    }

    /// A document's durable row; none when there is no such document, and its row is to be removed.
    pub fn encode_row(&self, space: &K, index: &str, document: &str) -> Option<Vec<u8>> {
        let index = self.index(space, index)?;
        Some(row::encode_row(index, index.ordinal(document)?))
    }

    /// Put back a document from its durable row, replacing what is there.
    pub fn load_row(&mut self, space: &K, index: &str, document: &str, row: &[u8]) -> Result<()> {
        let fields =
            decode_row(row).map_err(|error| error.context(format_args!("document `{document}` of `{index}`")))?;
        let index = self.index_mut(space, index);
        index.apply_remove(document);
        index.apply_set(document, &fields);
        Ok(())
    }

    /// How many documents an index has.
    pub fn documents(&self, space: &K, index: &str) -> usize {
        self.index(space, index).map_or(0, |index| index.by_id.len())
    }

    fn index(&self, space: &K, index: &str) -> Option<&Index> {
        self.spaces.get(space)?.get(index)
    }

    fn index_mut(&mut self, space: &K, index: &str) -> &mut Index {
        // Two look-ups instead of an entry: the names are cloned only once.
        if !self.spaces.contains_key(space) {
            self.spaces.insert(space.clone(), BTreeMap::new());
        }
        let indexes = self.spaces.get_mut(space).expect("it was just inserted");
        if !indexes.contains_key(index) {
            indexes.insert(index.to_owned(), Index::default());
        }
        indexes.get_mut(index).expect("it was just inserted")
    }
}

/// One index: documents by ordinal, fields by number.
#[derive(Default)]
struct Index {
    documents: Vec<Document>,
    by_id: HashTable<u32>,
    free_ordinals: Vec<u32>,
    live: Bitmap,
    fields: Vec<Field>,
    by_name: HashTable<u32>,
    free_fields: Vec<u32>,
    hasher: DefaultHashBuilder,
}

/// A document: its id and the numbers of the fields that it has, in order of their names.
#[derive(Default)]
struct Document {
    id: Box<str>,
    id_prefix: u128,
    fields: Vec<u32>,
}

/// A field: its name and its column.
#[derive(Default)]
struct Field {
    /// The name as it is packed: its length, then its bytes.
    packed_name: Box<[u8]>,
    column: Column,
}

impl Field {
    fn new(name: &str) -> Field {
        let packed_name = [&(name.len() as u32).to_le_bytes(), name.as_bytes()].concat().into();
        Field { packed_name, column: Column::default() }
    }

    fn packed_name(&self) -> &[u8] {
        &self.packed_name
    }

    /// The name's bytes, which order as the name does.
    fn name(&self) -> &[u8] {
        self.packed_name.get(4..).unwrap_or_default()
    }

    fn column(&self) -> &Column {
        &self.column
    }
}

impl Index {
    /// Ordinals ever in use at once.
    fn ordinals(&self) -> usize {
        self.documents.len()
    }

    fn live(&self) -> &Bitmap {
        &self.live
    }

    fn id(&self, ordinal: u32) -> &str {
        &self.documents[ordinal as usize].id
    }

    fn id_prefix(&self, ordinal: u32) -> u128 {
        self.documents[ordinal as usize].id_prefix
    }

    fn fields_of(&self, ordinal: u32) -> &[u32] {
        &self.documents[ordinal as usize].fields
    }

    fn field(&self, number: u32) -> &Field {
        &self.fields[number as usize]
    }

    fn ordinal(&self, id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&ordinal| self.id(ordinal) == id).copied()
    }

    fn field_number(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name.as_bytes());
        self.by_name.find(hash, |&number| self.field(number).name() == name.as_bytes()).copied()
    }

    /// A field of all documents, if one has it.
    fn column(&self, name: &str) -> Option<&Column> {
        self.field_number(name).map(|number| &self.field(number).column)
    }

    /// For each field number, whether it is asked for.
    fn wanted(&self, names: &[String]) -> Vec<bool> {
        let mut wanted = vec![false; self.fields.len()];
        for number in names.iter().filter_map(|name| self.field_number(name)) {
            wanted[number as usize] = true;
        }
        wanted
    }

    fn apply_set(&mut self, id: &str, fields: &[FieldWrite]) {
        for field in fields {
            match &field.value {
                Some(value) => {
                    let ordinal = self.ordinal(id).unwrap_or_else(|| self.add_document(id));
                    let number = self.field_number(&field.name).unwrap_or_else(|| self.add_field(&field.name));
                    let ordinals = self.documents.len();
                    let column = &mut self.fields[number as usize].column;
                    if column.yields_to(ordinal, value, field.rank) && column.set(ordinal, value, field.rank, ordinals)
                    {
                        self.list_field(ordinal, number);
                    }
                }
                None => self.clear_field(id, &field.name),
            }
        }
    }

    fn apply_remove(&mut self, id: &str) {
        let Some(ordinal) = self.ordinal(id) else { return };
        for number in std::mem::take(&mut self.documents[ordinal as usize].fields) {
            self.clear_cell(ordinal, number);
        }
        self.remove_document(ordinal);
    }

    fn clear_field(&mut self, id: &str, name: &str) {
        let (Some(ordinal), Some(number)) = (self.ordinal(id), self.field_number(name)) else { return };
        let listed = &mut self.documents[ordinal as usize].fields;
        let Some(at) = listed.iter().position(|&other| other == number) else { return };
        listed.remove(at);
        let is_empty = listed.is_empty();
        self.clear_cell(ordinal, number);
        if is_empty {
            self.remove_document(ordinal);
        }
    }

    /// Empty a cell; a field that no document has any more is forgotten and its number used again.
    fn clear_cell(&mut self, ordinal: u32, number: u32) {
        let ordinals = self.documents.len();
        let field = &mut self.fields[number as usize];
        field.column.clear(ordinal, ordinals);
        if field.column.filled() > 0 {
            return;
        }
        let hash = self.hasher.hash_one(field.name());
        if let Ok(found) = self.by_name.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        self.fields[number as usize] = Field::default();
        self.free_fields.push(number);
    }

    fn list_field(&mut self, ordinal: u32, number: u32) {
        let name = self.fields[number as usize].name();
        let listed = &self.documents[ordinal as usize].fields;
        // Most documents are filled in the order of their fields' names.
        let at = match listed.last() {
            Some(&last) if self.fields[last as usize].name() < name => listed.len(),
            _ => listed.partition_point(|&other| self.fields[other as usize].name() < name),
        };
        self.documents[ordinal as usize].fields.insert(at, number);
    }

    fn add_document(&mut self, id: &str) -> u32 {
        let document = Document { id: id.into(), id_prefix: order::text_prefix(id), fields: Vec::new() };
        let ordinal = place(&mut self.documents, &mut self.free_ordinals, document);
        let (documents, hasher) = (&self.documents, &self.hasher);
        let rehash = |&ordinal: &u32| hasher.hash_one(&*documents[ordinal as usize].id);
        self.by_id.insert_unique(hasher.hash_one(id), ordinal, rehash);
        self.live.insert(ordinal);
        ordinal
    }

    fn remove_document(&mut self, ordinal: u32) {
        let hash = self.hasher.hash_one(&*self.documents[ordinal as usize].id);
        if let Ok(found) = self.by_id.find_entry(hash, |&other| other == ordinal) {
            found.remove();
        }
        self.documents[ordinal as usize] = Document::default();
        self.free_ordinals.push(ordinal);
        self.live.remove(ordinal);
    }

    fn add_field(&mut self, name: &str) -> u32 {
        let number = place(&mut self.fields, &mut self.free_fields, Field::new(name));
        let (fields, hasher) = (&self.fields, &self.hasher);
        let rehash = |&number: &u32| hasher.hash_one(fields[number as usize].name());
        self.by_name.insert_unique(hasher.hash_one(name.as_bytes()), number, rehash);
        number
    }
}

/// Put a thing into a free place, or behind the last.
fn place<T>(things: &mut Vec<T>, free: &mut Vec<u32>, thing: T) -> u32 {
    match free.pop() {
        Some(number) => {
            things[number as usize] = thing;
            number
        }
        None => {
            things.push(thing);
            (things.len() - 1) as u32
        }
    }
}
