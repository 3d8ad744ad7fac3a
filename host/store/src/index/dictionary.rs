//! The distinct texts of one column, each kept once and known by a number.
//!
//! Separate because a filter asks the dictionary, not the documents: equality is one lookup, and LIKE is evaluated once per
//! distinct text. An entry lives while cells refer to it; its number is then given to the next new text. Bounded by the
//! column's cells.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::order::text_prefix;

/// Distinct texts by number.
#[derive(Default)]
pub(super) struct Dictionary {
    entries: Vec<Entry>,
    by_text: HashTable<u32>,
    free: Vec<u32>,
    hasher: DefaultHashBuilder,
}

struct Entry {
    text: Box<str>,
    /// The text's first bytes as a number that orders as they do: most comparisons need no more.
    prefix: u128,
    cells: u32,
}

impl Dictionary {
    /// The number of a text, if a cell holds it.
    pub fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.by_text.find(hash, |&number| &*self.entries[number as usize].text == text).copied()
    }

    /// The number of a text, now held by one cell more.
    pub fn acquire(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            self.entries[number as usize].cells += 1;
            return number;
        }
        let entry = Entry { text: text.into(), prefix: text_prefix(text), cells: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash = |&number: &u32| hasher.hash_one(&*entries[number as usize].text);
        self.by_text.insert_unique(hasher.hash_one(text), number, rehash);
        number
    }

    /// One cell less holds this text.
    pub fn release(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        entry.cells -= 1;
        if entry.cells > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*entry.text);
        if let Ok(found) = self.by_text.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        self.entries[number as usize].text = "".into();
        self.free.push(number);
    }

    pub fn text(&self, number: u32) -> &str {
        &self.entries[number as usize].text
    }

    pub fn prefix(&self, number: u32) -> u128 {
        self.entries[number as usize].prefix
    }

    /// How many distinct texts there are.
    pub fn distinct(&self) -> usize {
        self.by_text.len()
    }

    /// For each number, whether its text is in use and satisfies the predicate.
    pub fn matching(&self, predicate: impl Fn(&str) -> bool) -> Vec<bool> {
        self.entries.iter().map(|entry| entry.cells > 0 && predicate(&entry.text)).collect()
    }
}
