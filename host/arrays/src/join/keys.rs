//! Keys as numbers: equal keys of both sides get one number, counted from 0.
//!
//! Owns the numbering, column after column: the number so far and the value of the next column make the next number.
//! Separate from the join, which only compares. Whole numbers that lie close together are numbered by a table, others by a
//! hash; of text each distinct string of a dictionary is looked at once. What stands only on the side of the rows has no
//! number, as nothing can belong to it.
//!
//! Bounded by: eight bytes a distinct key, and a table of [`TABLE_SPREAD`] places a row. On failure: `invalid` names the key
//! and its types.

use hashbrown::HashMap;
use mainstay_base::{Error, Result};

use super::{NONE, Side};
use crate::column::Column;
use crate::types::ValueType;
use crate::view::{Numbers, Texts};

/// How much wider than the number of rows a range of whole numbers may be and still be a table.
const TABLE_SPREAD: u64 = 4;

/// Both sides' keys.
pub(super) struct Numbered {
    /// For each row its key, or that it has none on the other side.
    pub rows: Vec<u32>,
    pub history: Vec<u32>,
    /// Keys there are.
    pub count: usize,
}

pub(super) fn number(rows: &Side<'_>, history: &Side<'_>) -> Result<Numbered> {
    if rows.keys.len() != history.keys.len() {
        let (one, other) = (rows.keys.len(), history.keys.len());
        return Err(Error::invalid(format!("the rows have {one} keys and the history {other}; they must be the same")));
    }
    let mut numbered = Numbered {
        rows: vec![0; rows.times.len()],
        history: vec![0; history.times.len()],
        count: usize::from(!history.times.is_empty()),
    };
    for (at, (row, past)) in rows.keys.iter().zip(history.keys).enumerate() {
        let one = column(row, past, at)?;
        numbered = if at == 0 { one } else { pairs(numbered, &one) };
    }
    Ok(numbered)
}

fn column(rows: &Column, history: &Column, at: usize) -> Result<Numbered> {
    use ValueType::{Bool, I32, I64, Text, U8};
    match (rows.value_type(), history.value_type()) {
        (Text, Text) => Ok(texts(&rows.texts()?, &history.texts()?)),
        (I64 | I32 | U8 | Bool, I64 | I32 | U8 | Bool) => {
            Ok(whole_numbers(&integers(&rows.numbers()?), &integers(&history.numbers()?)))
        }
        (one, other) => Err(Error::invalid(format!(
            "key {at} is a column of {one} in the rows and of {other} in the history; keys are whole numbers or text on \
             both sides"
        ))),
    }
}

fn integers(numbers: &Numbers<'_>) -> Vec<Option<i64>> {
    fn read<T: Copy>(chunks: &[crate::view::Chunk<'_, T>], to: impl Fn(T) -> i64) -> Vec<Option<i64>> {
        let places = chunks.iter().flat_map(|chunk| {
            let is_there = move |at: usize| chunk.validity.is_none_or(|validity| validity.is_valid(at));
            chunk.values.iter().enumerate().map(move |(at, value)| (is_there(at), *value))
        });
        places.map(|(is_there, value)| is_there.then(|| to(value))).collect()
    }
    match numbers {
        Numbers::I64(chunks) => read(chunks, |value| value),
        Numbers::I32(chunks) => read(chunks, i64::from),
        Numbers::U8(chunks) => read(chunks, i64::from),
        other => {
            let mut values = Vec::with_capacity(other.len());
            other.for_each(|value| values.push(value.map(|value| value as i64)));
            values
        }
    }
}

fn whole_numbers(rows: &[Option<i64>], history: &[Option<i64>]) -> Numbered {
    let bounds = history.iter().flatten().fold(None, |bounds: Option<(i64, i64)>, value| {
        Some(bounds.map_or((*value, *value), |(least, most)| (least.min(*value), most.max(*value))))
    });
    let Some((least, most)) = bounds else {
        return Numbered { rows: vec![NONE; rows.len()], history: vec![NONE; history.len()], count: 0 };
    };
    let (width, places) = (most.abs_diff(least), (history.len() + rows.len()) as u64);
    if width < places.saturating_mul(TABLE_SPREAD) {
        let mut table = vec![NONE; width as usize + 1];
        let mut count = 0;
        let history = history.iter().map(|value| {
            let Some(value) = value else { return NONE };
            let place = &mut table[value.abs_diff(least) as usize];
            if *place == NONE {
                *place = count;
                count += 1;
            }
            *place
        });
        let history = history.collect();
        let known = |value: i64| if value < least { NONE } else { place_of(&table, value.abs_diff(least)) };
        let rows = rows.iter().map(|value| value.map_or(NONE, known)).collect();
        return Numbered { rows, history, count: count as usize };
    }
    let mut numbers: HashMap<i64, u32> = HashMap::new();
    let history = history.iter().map(|value| value.map_or(NONE, |value| next(&mut numbers, value)));
    let history = history.collect();
    let rows = rows.iter().map(|value| value.and_then(|value| numbers.get(&value).copied()).unwrap_or(NONE));
    Numbered { rows: rows.collect(), history, count: numbers.len() }
}

fn place_of(table: &[u32], at: u64) -> u32 {
    usize::try_from(at).ok().and_then(|at| table.get(at).copied()).unwrap_or(NONE)
}

/// The number of a key; a new one if it was not there.
fn next<K: std::hash::Hash + Eq>(numbers: &mut HashMap<K, u32>, key: K) -> u32 {
    let count = numbers.len() as u32;
    *numbers.entry(key).or_insert(count)
}

fn texts(rows: &Texts<'_>, history: &Texts<'_>) -> Numbered {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    // A string of a dictionary gets a number when a place uses it: others are no key.
    let past = by_dictionary(history, |text| next(&mut numbers, text));
    let rows = by_dictionary(rows, |text| numbers.get(text).copied().unwrap_or(NONE));
    Numbered { rows, history: past, count: numbers.len() }
}

/// For each place what is made of its string, made once for each string of a dictionary.
fn by_dictionary<'a>(texts: &Texts<'a>, mut make: impl FnMut(&'a str) -> u32) -> Vec<u32> {
    let mut made = Vec::with_capacity(texts.len());
    for chunk in &texts.chunks {
        let mut known: Vec<Option<u32>> = vec![None; arrow_array::Array::len(chunk.dictionary)];
        for (at, key) in chunk.keys.iter().enumerate() {
            let is_there = chunk.validity.is_none_or(|validity| validity.is_valid(at));
            let number = match is_there {
                false => NONE,
                true => {
                    let key = *key as usize;
                    *known[key].get_or_insert_with(|| make(chunk.dictionary.value(key)))
                }
            };
            made.push(number);
        }
    }
    made
}

/// The numbers of two columns together.
fn pairs(first: Numbered, second: &Numbered) -> Numbered {
    let mut numbers: HashMap<(u32, u32), u32> = HashMap::new();
    let is_whole = |(one, other): &(&u32, &u32)| **one != NONE && **other != NONE;
    let both = |one: &[u32], other: &[u32], make: &mut dyn FnMut((u32, u32)) -> u32| -> Vec<u32> {
        let places = one.iter().zip(other);
        places.map(|pair| if is_whole(&pair) { make((*pair.0, *pair.1)) } else { NONE }).collect()
    };
    let history = both(&first.history, &second.history, &mut |pair| next(&mut numbers, pair));
    let rows = both(&first.rows, &second.rows, &mut |pair| numbers.get(&pair).copied().unwrap_or(NONE));
    Numbered { rows, history, count: numbers.len() }
}
