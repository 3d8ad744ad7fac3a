//! Deadlines of open requests, the earliest first.
//!
//! Owns a binary heap that knows where each request stands in it. Separate from std's heap because a deadline must
//! leave when its request is answered: deadlines left behind until they are due are what makes a queue slower by the
//! minute.
//!
//! Bounded by the number of open requests.

/// Stands for "not in the heap".
const ABSENT: u32 = u32::MAX;

/// See the module.
#[derive(Default)]
pub(super) struct Alarms {
    /// When, and whose; a binary heap.
    heap: Vec<(u64, u32)>,
    /// By slot: where in the heap.
    places: Vec<u32>,
}

impl Alarms {
    /// The earliest, and whose it is.
    pub fn first(&self) -> Option<(u64, u32)> {
        self.heap.first().copied()
    }

    /// Add the alarm of a slot that has none.
    pub fn set(&mut self, slot: u32, at_ns: u64) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, ABSENT);
        }
        debug_assert_eq!(self.places[slot as usize], ABSENT);
        self.heap.push((at_ns, slot));
        self.rise(self.heap.len() - 1);
    }

    /// Remove the alarm of a slot, if it has one.
    pub fn clear(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize).filter(|place| **place != ABSENT) else { return };
        let hole = std::mem::replace(place, ABSENT) as usize;
        let last = self.heap.pop().expect("a slot that has a place is in the heap");
        if hole < self.heap.len() {
            self.put(hole, last);
            self.sink(hole);
            self.rise(hole);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    fn put(&mut self, at: usize, alarm: (u64, u32)) {
        self.heap[at] = alarm;
        self.places[alarm.1 as usize] = at as u32;
    }

    fn rise(&mut self, mut at: usize) {
        let alarm = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent] <= alarm {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, alarm);
    }

    fn sink(&mut self, mut at: usize) {
        let alarm = self.heap[at];
        loop {
            let left = 2 * at + 1;
            let Some(mut child) = (left < self.heap.len()).then_some(left) else { break };
            if self.heap.get(left + 1).is_some_and(|right| *right < self.heap[left]) {
                child = left + 1;
            }
            if alarm <= self.heap[child] {
                break;
            }
            self.put(at, self.heap[child]);
            at = child;
        }
        self.put(at, alarm);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn alarms_agree_with_a_sorted_set(
            steps in prop::collection::vec((0_u32..40, 0_u64..50, any::<bool>()), 1..200)
        ) {
            let mut alarms = Alarms::default();
            let mut set = BTreeSet::new();
            for (slot, at_ns, clear) in steps {
                let held = set.iter().copied().find(|&(_, other)| other == slot);
                match held {
                    Some(held) => {
                        alarms.clear(slot);
                        set.remove(&held);
                    }
                    None if clear => alarms.clear(slot),
                    None => {
                        alarms.set(slot, at_ns);
                        set.insert((at_ns, slot));
                    }
                }
                prop_assert_eq!(alarms.first(), set.first().copied());
                prop_assert_eq!(alarms.len(), set.len());
            }
        }
    }
}
