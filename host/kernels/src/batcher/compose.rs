//! Which requests ride in a launch.
//!
//! Owns the choice of the lead among those of a lane, and the filling of a batch around it. Separate from the rest of
//! the queue because it is where fair sharing, priorities, preferred sizes and splitting meet.
//!
//! The lead rides always. Then, level by level, every caller of the lane gets one turn in the order of virtual time (an
//! oversize request: an equal share of the room), except those that have had a full launch more than the others; then
//! the room that is left goes, turn by turn, to the smallest virtual time. A request that fits in a launch is not cut:
//! when it does not fit in the room that is left, its flow waits for the next launch, and others fill the room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;

use super::queue::{Entry, Flow, Launch, Level, NONE, Part, Queue, ROW_TIME, Ticket, Verdict};
use super::stats::Reason;

/// Who goes first: the smallest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// 0: its level is overdue; else its level, from 1.
    rank: u8,
    virtual_time: u64,
    is_served: bool,
    sequence: u64,
    pub flow: u32,
}

/// Vectors kept between launches.
#[derive(Default)]
pub(super) struct Scratch {
    turns: Vec<Reverse<Key>>,
    later: Vec<Reverse<Key>>,
    /// Levels that the launch being filled serves, a bit each.
    served: u8,
}

/// What came of a turn.
#[derive(PartialEq, Eq)]
enum Turn {
    /// The flow has more that may fit.
    More,
    /// It has nothing, or nothing that fits.
    Over,
}

impl<S: Hash + Eq + Clone, P: Clone> Queue<S, P> {
    fn key(&self, flow: u32, overdue: Option<u8>) -> Key {
        let Flow { account, level, head, .. } = self.flows[flow as usize];
        let account = &self.accounts[account as usize];
        Key {
            rank: if Some(level) == overdue { 0 } else { level + 1 },
            virtual_time: account.virtual_time,
            is_served: !account.fresh,
            sequence: self.entries[head as usize].sequence,
            flow,
        }
    }

    /// Who would lead a launch of this lane.
    pub(super) fn lead_of(&self, lane: u32, overdue: Option<u8>) -> Option<Key> {
        let levels = &self.lanes[lane as usize].flows;
        let of_level = |flows: &Vec<u32>| flows.iter().map(|flow| self.key(*flow, overdue)).min();
        if let Some(level) = overdue
            && let Some(lead) = of_level(&levels[usize::from(level)])
        {
            return Some(lead);
        }
        levels.iter().find_map(of_level)
    }

    /// A launch around this lead.
    pub(super) fn compose(&mut self, lead: u32, reason: Reason, parts: Vec<Part<P>>) -> Launch<S, P> {
        let Flow { lane, head, .. } = self.flows[lead as usize];
        let shape = self.lanes[lane as usize].shape.clone().expect("a lane in use has a shape");
        let mut launch = Launch { shape, parts, rows: 0, reason };
        let callers = self.lanes[lane as usize].flows.iter().map(Vec::len).sum::<usize>() as u64;
        let lead_rows = match u64::from(self.entries[head as usize].rows) {
            rows if rows <= self.max_rows => rows,
            _ => 1,
        };
        let target = self.target(lane, lead_rows);
        self.turn(lead, target, target.div_ceil(callers), &mut launch);
        self.fill(lane, target, &mut launch);
        if launch.rows < target {
            self.fill(lane, self.max_rows, &mut launch);
        }
        self.count_launch(&mut launch);
        launch
    }

    /// The largest preferred size that is reached and lets the lead ride, or else the maximum.
    fn target(&self, lane: u32, lead_rows: u64) -> u64 {
        let reached = lead_rows..=self.lanes[lane as usize].rows;
        let mut sizes = self.policy.preferred_rows.iter().rev().map(|size| *size as u64);
        sizes.find(|size| reached.contains(size)).unwrap_or(self.max_rows)
    }

    fn fill(&mut self, lane: u32, limit: u64, launch: &mut Launch<S, P>) {
        for level in 0..self.levels.len() {
            if launch.rows >= limit || self.waiting == 0 {
                return;
            }
            self.fill_level(lane, level, limit, launch);
        }
    }

    fn fill_level(&mut self, lane: u32, level: usize, limit: u64, launch: &mut Launch<S, P>) {
        let mut turns = std::mem::take(&mut self.scratch.turns);
        let mut later = std::mem::take(&mut self.scratch.later);
        turns.extend(self.lanes[lane as usize].flows[level].iter().map(|flow| Reverse(self.key(*flow, None))));
        let ahead = self.levels[level].virtual_time.saturating_add(self.max_rows * ROW_TIME);
        let mut turns = BinaryHeap::from(turns);
        while launch.rows < limit
            && let Some(Reverse(key)) = turns.pop()
        {
            if key.virtual_time > ahead {
                later.push(Reverse(key));
                break;
            }
            let share = (limit - launch.rows).div_ceil(turns.len() as u64 + 1);
            if self.turn(key.flow, limit, share, launch) == Turn::More {
                later.push(Reverse(self.key(key.flow, None)));
            }
        }
        later.extend(turns.drain());
        self.scratch.turns = turns.into_vec();
        let mut later = BinaryHeap::from(later);
        while launch.rows < limit
            && let Some(Reverse(key)) = later.pop()
        {
            if self.turn(key.flow, limit, u64::MAX, launch) == Turn::More {
                later.push(Reverse(self.key(key.flow, None)));
            }
        }
        later.clear();
        self.scratch.later = later.into_vec();
    }

    /// Launch the oldest request of a flow; of an oversize one, at most `share` rows.
    fn turn(&mut self, flow: u32, limit: u64, share: u64, launch: &mut Launch<S, P>) -> Turn {
        let slot = self.flows[flow as usize].head;
        let Entry { rows, taken, .. } = self.entries[slot as usize];
        let room = limit.saturating_sub(launch.rows);
        let rows = match u64::from(rows) {
            whole if whole <= self.max_rows && whole <= room => rows,
            whole if whole <= self.max_rows => return Turn::Over,
            _ => u64::from(rows - taken).min(room).min(share) as u32,
        };
        if rows == 0 {
            return Turn::Over;
        }
        self.board(slot, rows, launch);
        self.charge(flow, rows);
        self.book_rows(slot, rows);
        let entry = &mut self.entries[slot as usize];
        if entry.taken < entry.rows {
            if !entry.is_split {
                entry.is_split = true;
                self.lanes[self.flows[flow as usize].lane as usize].split += 1;
            }
            return Turn::More;
        }
        self.stats.wait_ns.record(self.now_ns - entry.arrived_ns);
        let has_more = entry.next != NONE;
        self.unlink(slot);
        if has_more { Turn::More } else { Turn::Over }
    }

    /// Put rows of a request into the launch; next to those of it that are there already.
    fn board(&mut self, slot: u32, rows: u32, launch: &mut Launch<S, P>) {
        let entry = &mut self.entries[slot as usize];
        let (start, generation) = (entry.taken, entry.generation);
        entry.taken += rows;
        launch.rows += u64::from(rows);
        if entry.flights > 0
            && let Some(part) = launch.parts.iter_mut().find(|part| part.ticket.slot == slot)
        {
            part.rows += rows;
            return;
        }
        entry.flights += 1;
        let payload = entry.payload.clone().expect("a waiting request has a payload");
        let ticket = Ticket { slot, generation };
        launch.parts.push(Part { payload, ticket, start, rows, verdict: Verdict::Stale });
    }

    fn charge(&mut self, flow: u32, rows: u32) {
        let Flow { account, level, .. } = self.flows[flow as usize];
        let caller = &mut self.callers[account as usize / self.levels.len()];
        caller.launched_rows += u64::from(rows);
        let cost = (u64::from(rows) * ROW_TIME).div_ceil(u64::from(caller.weight));
        let account = &mut self.accounts[account as usize];
        account.virtual_time += cost;
        account.fresh = false;
        self.scratch.served |= 1 << level;
        let level = &mut self.levels[usize::from(level)];
        level.largest_time = level.largest_time.max(account.virtual_time);
    }

    fn count_launch(&mut self, launch: &mut Launch<S, P>) {
        if launch.rows == self.max_rows {
            launch.reason = Reason::Full;
        } else if self.policy.preferred_rows.contains(&(launch.rows as usize)) {
            launch.reason = Reason::Preferred;
        }
        self.stats.released[launch.reason as usize] += 1;
        self.stats.batch_rows.record(launch.rows);
        self.stats.batch_requests.record(launch.parts.len() as u64);
        self.move_virtual_time();
    }

    /// After a launch: where each level stands, and whether it was passed over.
    fn move_virtual_time(&mut self) {
        let served = std::mem::take(&mut self.scratch.served);
        for at in 0..self.levels.len() {
            let flows = self.active_lanes.iter().flat_map(|lane| &self.lanes[*lane as usize].flows[at]);
            let times = flows.map(|flow| self.accounts[self.flows[*flow as usize].account as usize].virtual_time);
            let smallest = times.min();
            let level: &mut Level = &mut self.levels[at];
            level.virtual_time = smallest.unwrap_or(level.largest_time);
            level.passed_over = match level.waiting {
                0 => 0,
                _ if served & (1 << at) != 0 => 0,
                _ => level.passed_over + 1,
            };
        }
    }
}
