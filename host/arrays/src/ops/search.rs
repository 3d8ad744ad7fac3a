//! How many of a sorted list are at most each of many values.
//!
//! Owns the two ways to count. A short list is counted entry by entry over a block of values, which is wide code without a
//! branch. A long one is searched by halves, all values of a block taking each step together: every value takes the same
//! number of steps, so there is no branch to guess, and the loads of neighbours overlap instead of waiting for each other.
//! Memory: the list, and one block. Sums wrap as they cannot overflow: a check would keep the loops from being wide.

use std::hint::select_unpredictable;

use super::native::Native;

/// Lists up to this length are counted entry by entry.
const COUNTED_MAX: usize = 8;
/// Values that take their steps together.
const BLOCK: usize = 128;

/// A list that ascends, without NaN; entries may repeat.
pub struct Sorted<T> {
    entries: Vec<T>,
}

impl<T: Native> Sorted<T> {
    /// The caller has sorted them.
    pub fn new(entries: Vec<T>) -> Sorted<T> {
        debug_assert!(entries.is_sorted());
        Sorted { entries }
    }

    /// The entry at this index, which is in the list.
    pub fn at(&self, index: usize) -> T {
        self.entries[index]
    }

    /// For each value, in order and in pieces, how many entries are at most it; 0 for NaN. Calls `take` with as many values
    /// as counts.
    pub fn count(&self, values: &[T], mut take: impl FnMut(&[T], &[u32])) {
        let mut counts = [0_u32; BLOCK];
        for block in values.chunks(BLOCK) {
            let counts = &mut counts[..block.len()];
            counts.fill(0);
            match self.entries.len() {
                0..=COUNTED_MAX => self.by_entries(block, counts),
                _ => self.by_halves(block, counts),
            }
            take(block, counts);
        }
    }

    fn by_entries(&self, values: &[T], counts: &mut [u32]) {
        for entry in &self.entries {
            for (count, value) in counts.iter_mut().zip(values) {
                *count = count.wrapping_add(u32::from(*entry <= *value));
            }
        }
    }

    /// `counts` starts as zeros: where each value's search begins. The list is not empty.
    fn by_halves(&self, values: &[T], counts: &mut [u32]) {
        let mut left = self.entries.len();
        while left > 1 {
            let half = left / 2;
            // Slicing once says that no index is beyond, were the counts known to the compiler; they are cheap to check.
            let probes = &self.entries[half - 1..];
            for (count, value) in counts.iter_mut().zip(values) {
                // Said to be unpredictable, else the compiler makes a branch of it, which costs ten times as much.
                *count =
                    select_unpredictable(probes[*count as usize] <= *value, count.wrapping_add(half as u32), *count);
            }
            left -= half;
        }
        for (count, value) in counts.iter_mut().zip(values) {
            *count = count.wrapping_add(u32::from(self.entries[*count as usize] <= *value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts<T: Native>(entries: Vec<T>, values: &[T]) -> Vec<u32> {
        let mut all = Vec::new();
        Sorted::new(entries).count(values, |_, counts| all.extend_from_slice(counts));
        all
    }

    /// The definition.
    fn reference<T: Native>(entries: &[T], values: &[T]) -> Vec<u32> {
        values.iter().map(|value| entries.iter().filter(|entry| **entry <= *value).count() as u32).collect()
    }

    proptest! {
        #[test]
        fn counting_is_as_defined(
            mut entries in prop::collection::vec(-20_i64..20, 0..70),
            values in prop::collection::vec(-25_i64..25, 0..300),
        ) {
            entries.sort_unstable();
            prop_assert_eq!(counts(entries.clone(), &values), reference(&entries, &values));
            let real = |all: &[i64]| all.iter().map(|one| *one as f64 / 2.0).collect::<Vec<_>>();
            let mut values = real(&values);
            values.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]);
            prop_assert_eq!(counts(real(&entries), &values), reference(&real(&entries), &values));
        }
    }

    #[test]
    fn every_length_of_list_is_searched_to_its_ends() {
        let values: Vec<i32> = (-1..70).collect();
        for len in 0..66 {
            let entries: Vec<i32> = (0..len).collect();
            assert_eq!(counts(entries.clone(), &values), reference(&entries, &values), "{len} entries");
        }
    }
}
