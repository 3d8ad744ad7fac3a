//! Which side computes a batch, by what both have taken before.
//!
//! Owns the estimate: for every model (or explainer), what a row costs here, and what batches of about this size cost on the
//! device, each a moving average of measurements. Nothing is assumed of either machine: a size that the device has not been
//! given is tried there once, if it has at least [`TRIAL_ROWS`] rows; and every [`AGAIN`]th batch of a size goes to the side
//! that looked slower, so that one bad moment is not for ever. Separate because it is pure.
//!
//! Bounded by: [`KNOWN_MAX`] models; the one asked for longest ago is forgotten. Cannot fail.

use std::collections::HashMap;

/// Models that are remembered.
pub const KNOWN_MAX: usize = 4_096;
/// Smaller batches are not tried on the device: copying alone takes as long as they do here.
pub const TRIAL_ROWS: usize = 256;
/// How often the slower side is tried again.
pub const AGAIN: u32 = 512;
/// What the newest measurement counts, as one in so many.
const MEMORY: f64 = 8.0;
/// Sizes of batches, by powers of two.
const SIZES: usize = 32;

#[derive(Clone, Debug, Default)]
struct Known {
    /// Nanoseconds a row.
    here: Option<f64>,
    /// Nanoseconds a batch, by size.
    there: [Option<f64>; SIZES],
    asked: [u32; SIZES],
    used: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Costs {
    known: HashMap<(Kind, u64), Known>,
    clock: u64,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Raw outputs of a forest.
    Raw,
    /// Explanations.
    Explain,
}

fn size(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(SIZES - 1)
}

fn moved(old: Option<f64>, new: f64) -> Option<f64> {
    // A first measurement may hold what happens once; whatever is less than half of it replaces it.
    Some(old.filter(|old| new > old / 2.0).map_or(new, |old| old + (new - old) / MEMORY))
}

impl Costs {
    fn of(&mut self, kind: Kind, number: u64) -> &mut Known {
        self.clock += 1;
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&(kind, number)) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| *key);
            oldest.map(|key| self.known.remove(&key));
        }
        let known = self.known.entry((kind, number)).or_default();
        known.used = self.clock;
        known
    }

    /// It took so long here.
    pub fn took_here(&mut self, kind: Kind, number: u64, rows: usize, nanoseconds: u64) {
        let known = self.of(kind, number);
        known.here = moved(known.here, nanoseconds as f64 / rows.max(1) as f64);
    }

    /// It took so long on the device.
    pub fn took_there(&mut self, kind: Kind, number: u64, rows: usize, nanoseconds: u64) {
        let there = &mut self.of(kind, number).there[size(rows)];
        *there = moved(*there, nanoseconds as f64);
    }

    /// Whether the device is worth it for so many rows.
    pub fn is_worth(&mut self, kind: Kind, number: u64, rows: usize) -> bool {
        let known = self.of(kind, number);
        let at = size(rows);
        known.asked[at] = known.asked[at].wrapping_add(1);
        let Some(there) = known.there[at] else { return rows >= TRIAL_ROWS };
        let Some(here) = known.here else { return known.asked[at] % AGAIN != 2 };
        let is_worth = there < here * rows as f64;
        is_worth != known.asked[at].is_multiple_of(AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quicker_side_is_chosen_once_both_are_known() {
        let mut costs = Costs::default();
        assert!(!costs.is_worth(Kind::Raw, 1, TRIAL_ROWS - 1), "too small to try");
        assert!(costs.is_worth(Kind::Raw, 1, TRIAL_ROWS), "tried once");
        costs.took_there(Kind::Raw, 1, 4096, 100_000);
        costs.took_here(Kind::Raw, 1, 100, 50_000);
        assert!(costs.is_worth(Kind::Raw, 1, 4096), "500 ns a row here, 24 there");
        costs.took_there(Kind::Raw, 1, 256, 200_000);
        assert!(!costs.is_worth(Kind::Raw, 1, 256), "781 ns a row there");
        assert!(costs.is_worth(Kind::Explain, 1, 4096), "another question is another cost");
    }

    #[test]
    fn the_slower_side_is_tried_again() {
        let mut costs = Costs::default();
        costs.took_there(Kind::Raw, 1, 4096, 1_000_000_000);
        costs.took_here(Kind::Raw, 1, 1, 500);
        let tries = (0..2 * AGAIN).filter(|_| costs.is_worth(Kind::Raw, 1, 4096)).count();
        assert_eq!(tries, 2);
        costs.took_there(Kind::Raw, 1, 4096, 100_000);
        assert!(costs.is_worth(Kind::Raw, 1, 4096), "it is quick again");
    }

    #[test]
    fn as_many_as_can_be_remembered_are() {
        let mut costs = Costs::default();
        for number in 0..=KNOWN_MAX as u64 {
            costs.took_here(Kind::Raw, number, 1, 1);
            assert!(costs.known.len() <= KNOWN_MAX);
        }
        assert_eq!(costs.known.len(), KNOWN_MAX);
        assert!(!costs.known.contains_key(&(Kind::Raw, 0)), "the oldest was forgotten");
    }
}
