//! Counting what is bad in the last so many milliseconds.
//!
//! Owns [`Window`]: a ring of slots with running sums, so that adding and reading cost the same at any rate. Separate because
//! breakers, retry budgets, tripwires and faults all ask for a share over time, and time comes in as a number.
//!
//! Bounded by [`SLOTS`] slots whatever the time. The window moves on by a slot at once, so it covers between 95 and 100 % of
//! what it was asked for. Does not fail.

/// Slots of a window.
const SLOTS: usize = 20;

#[derive(Clone, Copy, Default)]
struct Slot {
    all: u32,
    bad: u32,
}

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub all: u64,
    pub bad: u64,
}

impl Counts {
    /// Whether more than this share is bad, of at least so many.
    pub fn exceeds(self, percent: f64, minimum: u32) -> bool {
        self.all >= u64::from(minimum) && self.bad as f64 * 100.0 > percent * self.all as f64
    }

    /// Which share is bad.
    pub fn percent(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.bad as f64 * 100.0 / self.all as f64 }
    }
}

/// See the module.
pub(crate) struct Window {
    slot_ns: u64,
    slots: [Slot; SLOTS],
    /// The number of the newest slot since the clock's start.
    newest: u64,
    sums: Counts,
}

impl Window {
    pub fn new(window_ms: u64) -> Window {
        let slot_ns = (window_ms.saturating_mul(1_000_000) / SLOTS as u64).max(1);
        Window { slot_ns, slots: [Slot::default(); SLOTS], newest: 0, sums: Counts { all: 0, bad: 0 } }
    }

    /// Count one more, and answer the sums with it.
    pub fn add(&mut self, now_ns: u64, is_bad: bool) -> Counts {
        self.advance(now_ns);
        let slot = &mut self.slots[(self.newest % SLOTS as u64) as usize];
        // A full slot stays full: its share is right to nine digits by then.
        if slot.all < u32::MAX {
            slot.all += 1;
            slot.bad += u32::from(is_bad);
            self.sums.all += 1;
            self.sums.bad += u64::from(is_bad);
        }
        self.sums
    }

    /// The sums as of now.
    pub fn counts(&mut self, now_ns: u64) -> Counts {
        self.advance(now_ns);
        self.sums
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.slots = [Slot::default(); SLOTS];
        self.sums = Counts { all: 0, bad: 0 };
    }

    /// Threads read the clock before they come here, so a time may be a little older than the newest slot: it counts there.
    fn advance(&mut self, now_ns: u64) {
        let now = now_ns / self.slot_ns;
        if now <= self.newest {
            return;
        }
        let passed = (now - self.newest).min(SLOTS as u64);
        for step in 1..=passed {
            let slot = &mut self.slots[((self.newest + step) % SLOTS as u64) as usize];
            self.sums.all -= u64::from(slot.all);
            self.sums.bad -= u64::from(slot.bad);
            *slot = Slot::default();
        }
        if passed == SLOTS as u64 {
            self.clear();
        }
        self.newest = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_old_is_forgotten() {
        let mut window = Window::new(1_000);
        window.add(0, true);
        window.add(500 * MS, false);
        assert_eq!(window.counts(949 * MS), Counts { all: 2, bad: 1 });
        assert_eq!(window.counts(1_000 * MS), Counts { all: 1, bad: 0 });
        assert_eq!(window.counts(9_000 * MS), Counts { all: 0, bad: 0 });
    }

    #[test]
    fn a_share_counts_from_its_minimum_on_and_only_above() {
        fn check(all: u64, bad: u64, expect: bool) {
            assert_eq!(Counts { all, bad }.exceeds(50.0, 10), expect, "{bad} of {all}");
        }
        check(9, 9, false);
        check(10, 5, false);
        check(10, 6, true);
        check(0, 0, false);
    }

    proptest! {
        /// Against a list of everything that was added.
        #[test]
        fn sums_are_those_of_the_slots_that_are_not_old(steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..200)) {
            let (mut window, mut all, mut now_ms) = (Window::new(1_000), Vec::new(), 0);
            for (wait_ms, is_bad) in steps {
                now_ms += wait_ms;
                all.push((now_ms / 50, is_bad));
                let found = window.add(now_ms * MS, is_bad);
                let recent = all.iter().filter(|(slot, _)| slot + SLOTS as u64 > now_ms / 50);
                let bad = recent.clone().filter(|(_, is_bad)| *is_bad).count() as u64;
                prop_assert_eq!(found, Counts { all: recent.count() as u64, bad });
            }
        }
    }
}
