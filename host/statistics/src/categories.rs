//! Counts of categories, and two columns' counts over the union of their categories.
//!
//! Strings are counted by their number in each chunk's dictionary and looked up once per entry, not per row; so no string is
//! copied but the distinct ones of the answer. Bounded by [`CATEGORIES_MAX`].

use hashbrown::HashMap;
use mainstay_arrays::{Numbers, Texts};

use crate::fault::{Fault, Result};
use crate::order;
use crate::walk::{Missing, Rows};

/// Distinct values that a column taken for categories may have.
pub const CATEGORIES_MAX: usize = 1 << 20;

/// Two columns over all categories that either has, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Union<K> {
    /// Each once.
    pub categories: Vec<K>,
    /// How often each is in the reference.
    pub reference: Vec<u64>,
    /// How often each is in the current column.
    pub current: Vec<u64>,
}

/// How often each string is there.
pub fn text_categories(texts: &Texts<'_>, missing: Missing) -> Result<HashMap<String, u64>> {
    let mut all: HashMap<String, u64> = HashMap::new();
    let mut absent = 0u64;
    for chunk in &texts.chunks {
        let mut counts = vec![0u64; chunk.dictionary.iter().len()];
        match chunk.validity {
            None => chunk.keys.iter().for_each(|key| counts[*key as usize] += 1),
            Some(validity) => {
                for (key, is_there) in chunk.keys.iter().zip(validity.iter()) {
                    if is_there {
                        counts[*key as usize] += 1;
                    }
                    absent += u64::from(!is_there);
                }
            }
        }
        for (at, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            *all.entry_ref(chunk.dictionary.value(at)).or_insert(0) += count;
        }
        check_count(all.len())?;
    }
    if missing == Missing::Refuse && absent > 0 {
        return Err(Fault::non_finite(format!(
            "{absent} of {} strings are missing; fill them, or ask for them to be omitted",
            texts.len()
        )));
    }
    Ok(all)
}

/// How often each number is there, by its key; a category is a number, so 1 and 1.0 are one.
fn number_categories(numbers: &Numbers<'_>, missing: Missing) -> Result<HashMap<u64, u64>> {
    let rows = Rows::new([numbers], missing)?;
    let (mut all, mut is_over) = (HashMap::new(), false);
    rows.each(|[block]| {
        if !is_over {
            block.iter().for_each(|value| *all.entry(order::key(*value)).or_insert(0) += 1);
            is_over = all.len() > CATEGORIES_MAX;
        }
    })?;
    check_count(all.len())?;
    Ok(all)
}

fn check_count(count: usize) -> Result<()> {
    if count <= CATEGORIES_MAX {
        return Ok(());
    }
    Err(Fault::too_many(format!(
        "more than {CATEGORIES_MAX} categories; is the column an identifier? Compare it by bins"
    )))
}

fn united<K: Ord + Clone + std::hash::Hash>(reference: HashMap<K, u64>, current: HashMap<K, u64>) -> Result<Union<K>> {
    for (side, what) in [(&reference, "the reference"), (&current, "the current column")] {
        if side.is_empty() {
            return Err(Fault::nothing(what));
        }
    }
    let mut categories: Vec<K> = reference.keys().chain(current.keys()).cloned().collect();
    categories.sort_unstable();
    categories.dedup();
    let counts = |side: &HashMap<K, u64>| categories.iter().map(|key| side.get(key).copied().unwrap_or(0)).collect();
    Ok(Union { reference: counts(&reference), current: counts(&current), categories })
}

/// Union of the categories of two columns of strings.
pub fn union_of_texts(reference: &Texts<'_>, current: &Texts<'_>, missing: Missing) -> Result<Union<String>> {
    united(text_categories(reference, missing)?, text_categories(current, missing)?)
}

/// Union of the categories of two columns of codes. Integers beyond 2^53 are rounded, as everywhere they are numbers.
pub fn union_of_codes(reference: &Numbers<'_>, current: &Numbers<'_>, missing: Missing) -> Result<Union<f64>> {
    let union = united(number_categories(reference, missing)?, number_categories(current, missing)?)?;
    let categories = union.categories.into_iter().map(order::value).collect();
    Ok(Union { categories, reference: union.reference, current: union.current })
}
