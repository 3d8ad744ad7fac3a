//! Operations on strings.
//!
//! Strings are kept once per dictionary, so the work is done once per string and then once per key, whichever is less.
//! Chunks may have different dictionaries, and neighbours that share one share the work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, StringArray};
use mainstay_base::{Error, Result};

use super::array;
use super::codes::check_count;
use crate::column::{Column, mapped};
use crate::types::ValueType;
use crate::view::TextChunk;

impl Column {
    /// This string for what is missing; nothing is missing then. Chunks with nothing to fill are shared. `invalid` for
    /// numbers, and for a string that has no room in its dictionary.
    pub fn fill_text(&self, value: &str) -> Result<Column> {
        let texts = self.texts()?;
        if self.missing() == 0 {
            return Ok(self.clone());
        }
        let mut widened: HashMap<*const StringArray, (i32, ArrayRef)> = HashMap::new();
        let mut chunks = Vec::with_capacity(self.arrow().len());
        for (array, chunk) in self.arrow().iter().zip(&texts.chunks) {
            if array.null_count() == 0 {
                chunks.push(array.clone());
                continue;
            }
            let (key, dictionary) = match widened.entry(std::ptr::from_ref(chunk.dictionary)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(with_entry(array.as_dictionary::<Int32Type>(), value)?),
            };
            chunks.push(fill_chunk(chunk, *key, dictionary));
        }
        Column::from_arrow(ValueType::Text, chunks)
    }

    /// The place of each string in this list, as 32-bit integers; `otherwise` for what is not in it. Missing stays missing.
    ///
    /// `invalid` when there are more than [`super::CATEGORIES_MAX`] categories, or one repeats.
    pub fn encode_text(&self, categories: &[impl AsRef<str>], otherwise: i32) -> Result<Column> {
        let texts = self.texts()?;
        let places = places(categories)?;
        let of = |string: &str| places.get(string).copied().unwrap_or(otherwise);
        let mut codes: (*const StringArray, Vec<i32>) = (std::ptr::null(), Vec::new());
        let mut chunks = Vec::with_capacity(texts.chunks.len());
        for chunk in &texts.chunks {
            let known = std::ptr::from_ref(chunk.dictionary);
            if codes.0 != known && chunk.keys.len() >= chunk.dictionary.len() {
                codes = (known, chunk.dictionary.iter().map(|string| string.map_or(otherwise, of)).collect());
            }
            let values = match codes.0 == known {
                true => mapped(chunk.keys, |key| codes.1.get(key as usize).copied().unwrap_or(otherwise)),
                false => mapped(chunk.keys, |key| string_at(chunk.dictionary, key).map_or(otherwise, of)),
            };
            chunks.push(array::<i32>(values, chunk.validity.cloned()));
        }
        Column::from_arrow(ValueType::I32, chunks)
    }
}

fn places(categories: &[impl AsRef<str>]) -> Result<HashMap<&str, i32>> {
    check_count(categories.len())?;
    let mut places = HashMap::with_capacity(categories.len());
    for (at, category) in categories.iter().enumerate() {
        if let Some(first) = places.insert(category.as_ref(), at as i32) {
            let shown: String = category.as_ref().chars().take(80).collect();
            return Err(Error::invalid(format!("category {at} is `{shown}`, as category {first} is; name each once")));
        }
    }
    Ok(places)
}

/// The key at a missing place may be anything.
fn string_at(dictionary: &StringArray, key: i32) -> Option<&str> {
    usize::try_from(key).ok().filter(|key| *key < dictionary.len()).map(|key| dictionary.value(key))
}

/// The dictionary with this string in it, and its key.
fn with_entry(array: &DictionaryArray<Int32Type>, value: &str) -> Result<(i32, ArrayRef)> {
    let strings = array.values().as_string::<i32>();
    if let Some(at) = strings.iter().position(|string| string == Some(value)) {
        return Ok((at as i32, array.values().clone()));
    }
    let offsets = strings.value_offsets();
    let bytes = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| (last - first) as usize);
    let (key, bytes) = (i32::try_from(strings.len()), bytes + value.len());
    let (Ok(key), Ok(_)) = (key, i32::try_from(bytes)) else {
        return Err(Error::invalid(format!(
            "a dictionary of {} strings has no room for one of {} bytes more; split the column",
            strings.len(),
            value.len()
        )));
    };
    let mut builder = StringBuilder::with_capacity(strings.len() + 1, bytes);
    strings.iter().flatten().for_each(|string| builder.append_value(string));
    builder.append_value(value);
    Ok((key, Arc::new(builder.finish())))
}

fn fill_chunk(chunk: &TextChunk<'_>, fill: i32, dictionary: &ArrayRef) -> ArrayRef {
    let mut is_there = chunk.validity.into_iter().flatten();
    let keys = mapped(chunk.keys, |key| if is_there.next() == Some(true) { key } else { fill });
    Arc::new(DictionaryArray::new(Int32Array::new(keys, None), dictionary.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::CATEGORIES_MAX;
    use crate::ops::testing::{check, check_refused, shown};

    fn words(words: &str) -> Column {
        Column::text(words.split(' ').map(|word| (word != "-").then_some(word)))
    }

    /// Two dictionaries that number their strings differently, one of them shared by two chunks.
    fn mixed() -> Column {
        let (first, second) = (words("b a - b c"), words("c - b"));
        Column::concat(&[first.slice(0, 3).unwrap(), second, first.slice(2, 3).unwrap(), words("- -")]).unwrap()
    }

    #[test]
    fn what_is_missing_becomes_the_string() {
        for (value, expected) in [("x", "b a x b c"), ("b", "b a b b c")] {
            check(&words("b a - b c"), |column| column.fill_text(value), ValueType::Text, expected);
        }
        let filled = mixed().fill_text("x").unwrap();
        assert_eq!(shown(&filled).join(" "), "b a x c x b x b c x x");
        assert_eq!(filled.missing(), 0);
        let dictionary = |at: usize| filled.arrow()[at].as_dictionary::<Int32Type>().values().clone();
        assert!(Arc::ptr_eq(&dictionary(0), &dictionary(2)), "one dictionary stays one");
        assert!(!Arc::ptr_eq(&dictionary(0), &dictionary(1)));

        let whole = words("a b");
        assert!(Arc::ptr_eq(&whole.fill_text("x").unwrap().arrow()[0], &whole.arrow()[0]));
        let part = Column::concat(&[whole.clone(), words("-")]).unwrap().fill_text("").unwrap();
        assert!(Arc::ptr_eq(&part.arrow()[0], &whole.arrow()[0]));
        assert_eq!(part.texts().unwrap().iter().last(), Some(Some("")));
        assert_eq!(Column::text([]).fill_text("x").unwrap().len(), 0);
        check_refused(Column::u8(&[1], None).fill_text("x"), "a column of u8 where text is needed");
    }

    #[test]
    fn strings_become_their_places() {
        // As `pandas.Index(["b", "c", "z"]).get_indexer` gives them, but for what is missing.
        let encode = |column: &Column| column.encode_text(&["b", "c", "z"], -1);
        check(&words("b a - b c"), encode, ValueType::I32, "0 -1 - 0 1");
        assert_eq!(shown(&encode(&mixed()).unwrap()).join(" "), "0 -1 - 1 - 0 - 0 1 - -");
        check(&words("a b"), |column| column.encode_text(&[""; 0], 7), ValueType::I32, "7 7");
        check(&words("- -"), encode, ValueType::I32, "- -");
        assert_eq!(encode(&Column::text([])).unwrap().len(), 0);
        let large = Column::text((0..2_000).map(|at| if at % 2 == 0 { Some("b") } else { Some("é") }));
        assert_eq!(shown(&large.encode_text(&["é", "b"], -1).unwrap()), ["1", "0"].repeat(1_000));
    }

    #[test]
    fn a_small_part_of_a_large_dictionary_is_looked_up_by_key() {
        let names: Vec<String> = (0..100).map(|at| at.to_string()).collect();
        let column = Column::text(names.iter().map(|name| Some(&**name)).chain([None]));
        let part = column.slice(98, 3).unwrap();
        assert_eq!(shown(&part.encode_text(&["99"], -1).unwrap()), ["-1", "0", "-"]);
    }

    #[test]
    fn categories_are_checked() {
        let names: Vec<String> = (0..=CATEGORIES_MAX).map(|at| at.to_string()).collect();
        let column = words("65535 65536");
        let encoded = column.encode_text(&names[..CATEGORIES_MAX], -1).unwrap();
        assert_eq!(shown(&encoded), ["65535", "-1"]);
        check_refused(column.encode_text(&names, -1), "65537 categories; the most is 65536");
        check_refused(column.encode_text(&["a", "b", "a"], -1), "category 2 is `a`, as category 0 is");
        check_refused(Column::u8(&[1], None).encode_text(&["a"], -1), "a column of u8 where text is needed");
    }
}
