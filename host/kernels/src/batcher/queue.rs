//! The batcher's rules, as a state machine.
//!
//! Owns the waiting requests of one kernel and every decision about them: who is refused, what is launched together,
//! when, and who has waited too long. Separate from what runs it ([`super::driver`]) because it has no threads, no
//! clock and no locks: time is an argument in nanoseconds, so thousands of arrival patterns are tested in a second, and
//! a decision can be computed again. What a request *is* does not matter here: it has a size in rows, a shape, a
//! caller.
//!
//! The rules, in order:
//!
//! 1. *Bounds* are checked when a request arrives; it is refused then or never. A *deadline* holds until the answer is
//!    there: the request leaves at that instant, whether it waits or runs.
//! 2. A launch carries requests of one shape (a *lane*). When one may start, the lane is the one of the *lead*, and
//!    the others of that lane join it (see [`super::compose`]).
//! 3. The lead comes from the highest level of priority that has someone ready; but a level that was passed over
//!    `patience_launches` times leads.
//! 4. Within a level, callers share rows by start-time fair queueing (Goyal, Vin & Cheng 1996): each has a virtual
//!    time that grows by rows launched over its weight, the smallest goes first, and whoever has nothing waiting falls
//!    behind no further than those who have. At equal time, a caller that just came goes before those already served.
//!    So a single call rides in the next launch, however much others have queued.
//! 5. A caller's requests of one level and shape are launched in the order they came.
//!
//! Bounded by the policy: entries, lanes and flows are at most as many as requests wait or run, and are reused; in a
//! steady state nothing is allocated. On failure: a [`Refusal`], which leaves the machine as it was.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Duration;

use hashbrown::HashMap;
use mainstay_base::{Error, Result};

use super::alarms::Alarms;
use super::compose::{Key, Scratch};
use super::policy::{Gather, Policy};
use super::refusal::{Bound, Refusal};
use super::stats::{CallerStats, Counts, Reason, Stats};

/// Callers that one batcher may have registered.
pub const CALLERS_MAX: usize = 4_096;
/// The most that a caller may weigh; the least is 1.
pub const WEIGHT_MAX: u32 = 256;
/// Virtual time of one row of a caller with weight 1. At 10^8 rows a second it lasts for 22 years.
pub(super) const ROW_TIME: u64 = WEIGHT_MAX as u64;
/// Bounds of the hint when to try again.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(60));
/// Stands for "none" in links between entries.
pub(super) const NONE: u32 = u32::MAX;
/// Stands for "no such time".
pub(super) const NEVER: u64 = u64::MAX;
/// Vectors of parts kept for the next launches.
const SPARE_MAX: usize = 8;

/// Names an open request; of no effect once it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub slot: u32,
    pub generation: u32,
}

/// A request as it comes.
#[derive(Clone, Debug)]
pub(super) struct Arrival<S> {
    pub shape: S,
    pub caller: u32,
    pub level: u8,
    /// At least 1: an empty request takes the place of one row.
    pub rows: u32,
    /// [`NEVER`] for none.
    pub deadline_ns: u64,
}

/// What became of a part once its launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs, or the request was answered (expired, cancelled) before: nobody waits for this.
    Stale,
    /// Other parts of the same request are still out.
    Partial,
    /// The request is complete; its answer can be given.
    Complete,
    /// The request failed with this part.
    Failed,
}

/// A request, or some of its rows, in a launch.
pub(super) struct Part<P> {
    pub payload: P,
    pub ticket: Ticket,
    pub start: u32,
    pub rows: u32,
    pub verdict: Verdict,
}

/// What is launched together. Its places are taken until [`Queue::finish`].
pub(super) struct Launch<S, P> {
    pub shape: S,
    pub parts: Vec<Part<P>>,
    pub rows: u64,
    pub reason: Reason,
}

pub(super) struct Entry<P> {
    pub generation: u32,
    pub flow: u32,
    pub previous: u32,
    pub next: u32,
    pub caller: u32,
    pub rows: u32,
    /// Rows launched; the request waits while they are not all.
    pub taken: u32,
    /// Parts that run.
    pub flights: u32,
    /// Whether parts were launched while others waited.
    pub is_split: bool,
    pub sequence: u64,
    pub arrived_ns: u64,
    pub deadline_ns: u64,
    /// None: the slot is free.
    pub payload: Option<P>,
}

/// Waiting requests of one caller, level and shape, oldest first.
pub(super) struct Flow {
    pub lane: u32,
    pub account: u32,
    pub level: u8,
    pub head: u32,
    tail: u32,
    /// Where in its lane's list.
    place: u32,
}

/// Waiting requests of one shape.
pub(super) struct Lane<S> {
    pub shape: Option<S>,
    /// By level.
    pub flows: Vec<Vec<u32>>,
    pub requests: u32,
    pub rows: u64,
    /// Requests of which parts were launched and parts wait.
    pub split: u32,
    /// No request of the lane arrived earlier.
    oldest_ns: u64,
    /// No request of the lane has an earlier deadline.
    deadline_ns: u64,
    /// Where in the list of lanes that are not empty.
    place: u32,
}

/// One caller's standing in one level.
#[derive(Clone, Default)]
pub(super) struct Account {
    pub virtual_time: u64,
    pub waiting: u32,
    /// Not served since it came.
    pub fresh: bool,
}

#[derive(Default)]
pub(super) struct Level {
    pub waiting: u32,
    /// The smallest virtual time of those who wait.
    pub virtual_time: u64,
    pub largest_time: u64,
    /// Launches that went by without this level while it waited.
    pub passed_over: u32,
}

#[derive(Default)]
pub(super) struct Caller {
    name: Box<str>,
    pub weight: u32,
    handles: u32,
    open: u32,
    pub waiting: u32,
    pub rows: u64,
    pub launched_rows: u64,
    counts: Counts,
}

/// See the module.
pub(super) struct Queue<S, P> {
    pub policy: Policy,
    pub max_rows: u64,
    delay_ns: u64,
    pub now_ns: u64,
    start_ns: u64,
    pub entries: Vec<Entry<P>>,
    free_entries: Vec<u32>,
    pub flows: Vec<Flow>,
    free_flows: Vec<u32>,
    flow_of: HashMap<(u32, u32), u32>,
    pub lanes: Vec<Lane<S>>,
    free_lanes: Vec<u32>,
    pub active_lanes: Vec<u32>,
    lane_of: HashMap<S, u32>,
    /// By caller and level.
    pub accounts: Vec<Account>,
    pub callers: Vec<Caller>,
    free_callers: Vec<u32>,
    caller_of: HashMap<Box<str>, u32>,
    pub levels: Vec<Level>,
    alarms: Alarms,
    pub waiting: u32,
    pub rows: u64,
    active_callers: u32,
    running: u32,
    sequence: u64,
    /// When a batch that is held now must be released.
    hold_until_ns: u64,
    drain_until_ns: Option<u64>,
    last_end_ns: u64,
    last_requests: usize,
    /// Moving averages over launches: all of them, and those of a single request.
    launch_ns: u64,
    alone_ns: Option<u64>,
    alone_rows: u64,
    refused: VecDeque<(P, Refusal)>,
    spare: Vec<Vec<Part<P>>>,
    pub scratch: Scratch,
    pub stats: Stats,
}

impl<S: Hash + Eq + Clone, P: Clone> Queue<S, P> {
    /// An empty queue; the policy was checked.
    pub fn new(policy: Policy, now_ns: u64) -> Queue<S, P> {
        let levels = usize::from(policy.levels);
        Queue {
            max_rows: policy.max_rows as u64,
            delay_ns: policy.max_delay.as_nanos() as u64,
            now_ns,
            start_ns: now_ns,
            entries: Vec::new(),
            free_entries: Vec::new(),
            flows: Vec::new(),
            free_flows: Vec::new(),
            flow_of: HashMap::new(),
            lanes: Vec::new(),
            free_lanes: Vec::new(),
            active_lanes: Vec::new(),
            lane_of: HashMap::new(),
            accounts: Vec::new(),
            callers: Vec::new(),
            free_callers: Vec::new(),
            caller_of: HashMap::new(),
            levels: (0..levels).map(|_| Level::default()).collect(),
            alarms: Alarms::default(),
            waiting: 0,
            rows: 0,
            active_callers: 0,
            running: 0,
            sequence: 0,
            hold_until_ns: NEVER,
            drain_until_ns: None,
            last_end_ns: 0,
            last_requests: 0,
            launch_ns: 0,
            alone_ns: None,
            alone_rows: 1,
            refused: VecDeque::new(),
            spare: Vec::new(),
            scratch: Scratch::default(),
            stats: Stats::default(),
            policy,
        }
    }

    // --- Callers ---

    /// Register a caller, or one more handle of one that is. Its weight is the one given last.
    pub fn add_caller(&mut self, name: &str, weight: u32) -> Result<u32> {
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(Error::invalid(format!(
                "the caller `{name}` weighs {weight}; it must be from 1 to {WEIGHT_MAX}"
            )));
        }
        let id = match self.caller_of.get(name) {
            Some(id) => *id,
            None => self.new_caller(name)?,
        };
        let caller = &mut self.callers[id as usize];
        caller.weight = weight;
        caller.handles += 1;
        Ok(id)
    }

    fn new_caller(&mut self, name: &str) -> Result<u32> {
        let id = match self.free_callers.pop() {
            Some(id) => id,
            None if self.callers.len() == CALLERS_MAX => {
                return Err(Error::exhausted(format!(
                    "{CALLERS_MAX} callers are registered, as many as may; drop some"
                )));
            }
            None => {
                self.callers.push(Caller::default());
                self.accounts.resize(self.callers.len() * self.levels.len(), Account::default());
                (self.callers.len() - 1) as u32
            }
        };
        self.callers[id as usize] = Caller { name: name.into(), ..Caller::default() };
        let levels = self.levels.len();
        self.accounts[id as usize * levels..][..levels].fill(Account::default());
        self.caller_of.insert(name.into(), id);
        Ok(id)
    }

    /// Give back a handle. The caller is forgotten with its last handle and its last open request.
    pub fn drop_caller(&mut self, id: u32) {
        self.callers[id as usize].handles -= 1;
        self.forget_caller(id);
    }

    fn forget_caller(&mut self, id: u32) {
        let caller = &mut self.callers[id as usize];
        if caller.handles == 0 && caller.open == 0 {
            self.caller_of.remove(&caller.name);
            self.free_callers.push(id);
        }
    }

    // --- Inputs ---

    /// A request arrives. Refused at once, or queued; call [`Queue::next`] afterwards.
    pub fn submit(&mut self, now_ns: u64, arrival: Arrival<S>, payload: P) -> Result<Ticket, Refusal> {
        self.advance(now_ns);
        let caller = arrival.caller;
        self.count(caller, |counts| counts.submitted += 1);
        if let Err(refusal) = self.admit(&arrival) {
            self.count_refusal(caller, &refusal);
            return Err(refusal);
        }
        let lane = self.lane(&arrival.shape);
        let account = caller * self.levels.len() as u32 + u32::from(arrival.level);
        let flow = self.flow(lane, account, arrival.level);
        Ok(self.enqueue(flow, arrival, payload))
    }

    /// The caller of this request is gone: nothing of it is launched any more. Its payload, if it was still open.
    pub fn cancel(&mut self, now_ns: u64, ticket: Ticket) -> Option<P> {
        self.pass_time(now_ns);
        if !self.is_open(ticket) {
            return None;
        }
        let caller = self.entries[ticket.slot as usize].caller;
        self.count(caller, |counts| counts.cancelled += 1);
        Some(self.close(ticket.slot))
    }

    /// Time passes: requests whose deadline is reached are refused.
    pub fn advance(&mut self, now_ns: u64) {
        self.pass_time(now_ns);
        while let Some((at_ns, slot)) = self.alarms.first()
            && at_ns <= self.now_ns
        {
            self.refuse(slot, Refusal::DeadlineMissed);
        }
        if self.drain_until_ns.is_some_and(|until_ns| until_ns <= self.now_ns) && self.open() > 0 {
            for slot in 0..self.entries.len() as u32 {
                if self.entries[slot as usize].payload.is_some() {
                    self.refuse(slot, Refusal::Closed);
                }
            }
        }
    }

    /// The next launch, if one is to start now. Call again until there is none: after every other input, and when
    /// [`Queue::wake_at`] has come.
    pub fn next(&mut self, now_ns: u64) -> Option<Launch<S, P>> {
        self.advance(now_ns);
        self.hold_until_ns = NEVER;
        if self.running as usize >= self.policy.max_launches || self.waiting == 0 {
            return None;
        }
        let (lead, reason) = self.choose()?;
        let parts = self.spare.pop().unwrap_or_default();
        let launch = self.compose(lead, reason, parts);
        self.running += 1;
        Some(launch)
    }

    /// A launch ended after running for `ran_ns`; `failed` tells which of its parts did. Sets each part's verdict.
    pub fn finish(&mut self, now_ns: u64, launch: &mut Launch<S, P>, ran_ns: u64, failed: impl Fn(usize) -> bool) {
        self.pass_time(now_ns);
        self.running -= 1;
        self.last_end_ns = self.now_ns;
        self.last_requests = launch.parts.len();
        self.learn(launch, ran_ns);
        for (at, part) in launch.parts.iter_mut().enumerate() {
            part.verdict = self.land(part.ticket, failed(at));
        }
        self.advance(now_ns);
    }

    /// Give back a launch's vector, so that the next need not be allocated.
    pub fn recycle(&mut self, mut parts: Vec<Part<P>>) {
        parts.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(parts);
        }
    }

    /// Take no more requests; launch what waits without holding it; what is open at `until_ns` is refused then.
    pub fn drain(&mut self, now_ns: u64, until_ns: u64) {
        self.drain_until_ns = Some(self.drain_until_ns.unwrap_or(NEVER).min(until_ns));
        self.advance(now_ns);
    }

    // --- Questions ---

    /// When something must happen without further input; as of the last [`Queue::next`].
    pub fn wake_at(&self) -> u64 {
        let alarm = self.alarms.first().map_or(NEVER, |(at_ns, _)| at_ns);
        let drain = self.drain_until_ns.filter(|_| self.open() > 0).unwrap_or(NEVER);
        alarm.min(self.hold_until_ns).min(drain)
    }

    /// Requests that have no answer yet.
    pub fn open(&self) -> usize {
        self.entries.len() - self.free_entries.len()
    }

    /// Whether it was drained: nothing is open, nothing runs.
    pub fn is_drained(&self) -> bool {
        self.drain_until_ns.is_some() && self.open() == 0 && self.running == 0
    }

    /// Deadlines that are kept.
    #[cfg(test)]
    pub fn alarms(&self) -> usize {
        self.alarms.len()
    }

    /// Lanes and flows that are in use.
    #[cfg(test)]
    pub fn in_use(&self) -> (usize, usize) {
        (self.lane_of.len(), self.flow_of.len())
    }

    /// One request that was refused after it had been queued.
    pub fn pop_refused(&mut self) -> Option<(P, Refusal)> {
        self.refused.pop_front()
    }

    /// About how long a launch of only these rows takes; none before the first was seen.
    pub fn expected_alone_ns(&self, rows: u32) -> Option<u64> {
        self.alone_ns.map(|alone_ns| alone_ns.saturating_mul(u64::from(rows)) / self.alone_rows.min(rows.into()).max(1))
    }

    /// Everything counted so far.
    pub fn stats(&mut self, now_ns: u64) -> Stats {
        self.pass_time(now_ns);
        let registered = self.callers.iter().filter(|caller| caller.handles > 0 || caller.open > 0);
        let callers = registered.map(|caller| CallerStats {
            name: caller.name.to_string(),
            counts: caller.counts,
            waiting_requests: caller.waiting as usize,
            waiting_rows: caller.rows,
            launched_rows: caller.launched_rows,
        });
        Stats {
            waiting_requests: self.waiting as usize,
            waiting_rows: self.rows,
            running_launches: self.running as usize,
            observed_ns: self.now_ns - self.start_ns,
            callers: callers.collect(),
            ..self.stats.clone()
        }
    }

    // --- Admission ---

    fn admit(&self, arrival: &Arrival<S>) -> Result<(), Refusal> {
        if self.drain_until_ns.is_some() {
            return Err(Refusal::Closed);
        }
        let policy = &self.policy;
        let (rows, caller) = (u64::from(arrival.rows), &self.callers[arrival.caller as usize]);
        let most = policy.queue_rows.min(policy.caller_rows);
        if rows > most as u64 {
            return Err(Refusal::Failed(Error::invalid(format!(
                "a request of {rows} rows can never wait here, where at most {most} may; send smaller ones, or raise \
                 `queue_rows` and `caller_rows`"
            ))));
        }
        if arrival.level as usize >= self.levels.len() {
            return Err(Refusal::Failed(Error::invalid(format!(
                "priority {} of {} levels; the lowest is {}",
                arrival.level,
                self.levels.len(),
                self.levels.len() - 1
            ))));
        }
        if arrival.deadline_ns <= self.now_ns {
            return Err(Refusal::DeadlineMissed);
        }
        let bound = match () {
            _ if self.waiting as usize >= policy.queue_requests => (Bound::QueueRequests, policy.queue_requests),
            _ if caller.waiting as usize >= policy.caller_requests => (Bound::CallerRequests, policy.caller_requests),
            _ if self.rows + rows > policy.queue_rows as u64 => (Bound::QueueRows, policy.queue_rows),
            _ if caller.rows + rows > policy.caller_rows as u64 => (Bound::CallerRows, policy.caller_rows),
            _ => match policy.shed_from {
                Some(from) if self.stands_back(from, arrival) => (Bound::Shed, from),
                _ => return Ok(()),
            },
        };
        Err(Refusal::Exhausted { bound: bound.0, limit: bound.1, retry_after: self.retry_after() })
    }

    /// Whether, in a queue of at least `from`, it is others' turn.
    fn stands_back(&self, from: usize, arrival: &Arrival<S>) -> bool {
        let own = self.callers[arrival.caller as usize].waiting as usize;
        let sharing = self.active_callers as usize + usize::from(own == 0);
        self.waiting as usize >= from && (arrival.level > 0 || own >= from.div_ceil(sharing))
    }

    /// About when what waits now will have been launched.
    fn retry_after(&self) -> Duration {
        let launches = self.rows.div_ceil(self.max_rows) + u64::from(self.running);
        let ns = launches.saturating_mul(self.launch_ns) / self.policy.max_launches as u64;
        Duration::from_nanos(ns).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }

    // --- Decisions ---

    /// The flow that leads the next launch, and why it starts now. Notes until when the others are held.
    fn choose(&mut self) -> Option<(u32, Reason)> {
        let open = self.waits_for_nobody();
        let overdue = self.overdue_level();
        let (mut best, mut held) = (None::<(Key, Reason)>, None::<(Key, Reason)>);
        for at in 0..self.active_lanes.len() {
            let lane = self.active_lanes[at];
            let Some(lead) = self.lead_of(lane, overdue) else { continue };
            let (first, reason) = match self.ready(lane, open) {
                Some(reason) => (&mut best, reason),
                None => (&mut held, Reason::Turn),
            };
            if first.is_none_or(|(other, _)| lead < other) {
                *first = Some((lead, reason));
            }
        }
        let best = best?;
        // A place is taken now. To hold someone back and give it to another who comes later would be unfair.
        let account = |lead: Key| self.flows[lead.flow as usize].account;
        let turn = held.filter(|held| held.0 < best.0 && account(held.0) != account(best.0));
        let (lead, reason) = turn.unwrap_or(best);
        Some((lead.flow, reason))
    }

    /// Why nothing is held now, if so.
    fn waits_for_nobody(&self) -> Option<Reason> {
        let alone = || self.last_requests <= 1 || self.last_end_ns.saturating_add(self.delay_ns) <= self.now_ns;
        match self.policy.gather {
            _ if self.drain_until_ns.is_some() => Some(Reason::Drain),
            _ if self.running > 0 => None,
            Gather::WhileRunning => Some(Reason::Idle),
            Gather::BetweenLaunches => alone().then_some(Reason::Idle),
        }
    }

    fn overdue_level(&self) -> Option<u8> {
        let overdue =
            |level: &&(usize, &Level)| level.1.waiting > 0 && level.1.passed_over >= self.policy.patience_launches;
        let levels = self.levels.iter().enumerate();
        levels.filter(|level| overdue(&level)).max_by_key(|(_, level)| level.passed_over).map(|(at, _)| at as u8)
    }

    /// Why this lane may be launched now, if it may.
    fn ready(&mut self, lane: u32, open: Option<Reason>) -> Option<Reason> {
        let rows = self.lanes[lane as usize].rows;
        if rows >= self.max_rows {
            return Some(Reason::Full);
        }
        if self.policy.preferred_rows.first().is_some_and(|least| rows >= *least as u64) {
            return Some(Reason::Preferred);
        }
        if open.is_some() {
            return open;
        }
        if self.lanes[lane as usize].split > 0 {
            return Some(Reason::Turn);
        }
        let (delay_ns, launch_ns) = (self.delay_ns, self.launch_ns);
        let due =
            |lane: &Lane<S>| (lane.oldest_ns.saturating_add(delay_ns), lane.deadline_ns.saturating_sub(launch_ns));
        let (mut held_ns, mut late_ns) = due(&self.lanes[lane as usize]);
        if held_ns.min(late_ns) <= self.now_ns {
            // These are bounds from before some left; only now it is worth to look at all that are here.
            self.tighten(lane);
            (held_ns, late_ns) = due(&self.lanes[lane as usize]);
        }
        if held_ns <= self.now_ns {
            return Some(Reason::Delay);
        }
        if late_ns <= self.now_ns {
            return Some(Reason::Deadline);
        }
        let idle_ns = if self.running == 0 { self.last_end_ns.saturating_add(delay_ns) } else { NEVER };
        self.hold_until_ns = self.hold_until_ns.min(held_ns).min(late_ns).min(idle_ns);
        None
    }

    fn tighten(&mut self, lane: u32) {
        let (mut oldest_ns, mut deadline_ns) = (NEVER, NEVER);
        for flow in self.lanes[lane as usize].flows.iter().flatten() {
            let mut slot = self.flows[*flow as usize].head;
            while slot != NONE {
                let entry = &self.entries[slot as usize];
                oldest_ns = oldest_ns.min(entry.arrived_ns);
                deadline_ns = deadline_ns.min(entry.deadline_ns);
                slot = entry.next;
            }
        }
        let lane = &mut self.lanes[lane as usize];
        (lane.oldest_ns, lane.deadline_ns) = (oldest_ns, deadline_ns);
    }

    // --- Entries, flows, lanes ---

    pub(super) fn is_open(&self, ticket: Ticket) -> bool {
        self.entries.get(ticket.slot as usize).is_some_and(|entry| entry.generation == ticket.generation)
    }

    fn lane(&mut self, shape: &S) -> u32 {
        if let Some(lane) = self.lane_of.get(shape) {
            return *lane;
        }
        let lane = self.free_lanes.pop().unwrap_or_else(|| {
            let flows = self.levels.iter().map(|_| Vec::new()).collect();
            let (oldest_ns, deadline_ns) = (NEVER, NEVER);
            self.lanes.push(Lane {
                shape: None,
                flows,
                requests: 0,
                rows: 0,
                split: 0,
                oldest_ns,
                deadline_ns,
                place: 0,
            });
            (self.lanes.len() - 1) as u32
        });
        let place = self.active_lanes.len() as u32;
        self.active_lanes.push(lane);
        self.lane_of.insert(shape.clone(), lane);
        let it = &mut self.lanes[lane as usize];
        (it.shape, it.place, it.oldest_ns, it.deadline_ns) = (Some(shape.clone()), place, NEVER, NEVER);
        lane
    }

    fn free_lane(&mut self, lane: u32) {
        let shape = self.lanes[lane as usize].shape.take().expect("a lane in use has a shape");
        self.lane_of.remove(&shape);
        let place = self.lanes[lane as usize].place;
        self.active_lanes.swap_remove(place as usize);
        if let Some(moved) = self.active_lanes.get(place as usize) {
            self.lanes[*moved as usize].place = place;
        }
        self.free_lanes.push(lane);
    }

    fn flow(&mut self, lane: u32, account: u32, level: u8) -> u32 {
        if let Some(flow) = self.flow_of.get(&(lane, account)) {
            return *flow;
        }
        let list = &mut self.lanes[lane as usize].flows[usize::from(level)];
        let fresh = Flow { lane, account, level, head: NONE, tail: NONE, place: list.len() as u32 };
        let flow = match self.free_flows.pop() {
            Some(flow) => {
                self.flows[flow as usize] = fresh;
                flow
            }
            None => {
                self.flows.push(fresh);
                (self.flows.len() - 1) as u32
            }
        };
        list.push(flow);
        self.flow_of.insert((lane, account), flow);
        flow
    }

    fn free_flow(&mut self, flow: u32) {
        let Flow { lane, account, level, place, .. } = self.flows[flow as usize];
        self.flow_of.remove(&(lane, account));
        let list = &mut self.lanes[lane as usize].flows[usize::from(level)];
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize) {
            self.flows[*moved as usize].place = place;
        }
        self.free_flows.push(flow);
    }

    fn enqueue(&mut self, flow: u32, arrival: Arrival<S>, payload: P) -> Ticket {
        let slot = self.free_entries.pop().unwrap_or(self.entries.len() as u32);
        let generation = self.entries.get(slot as usize).map_or(0, |entry| entry.generation);
        let tail = std::mem::replace(&mut self.flows[flow as usize].tail, slot);
        match tail {
            NONE => self.flows[flow as usize].head = slot,
            tail => self.entries[tail as usize].next = slot,
        }
        let entry = Entry {
            generation,
            flow,
            previous: tail,
            next: NONE,
            caller: arrival.caller,
            rows: arrival.rows,
            taken: 0,
            flights: 0,
            is_split: false,
            sequence: self.sequence,
            arrived_ns: self.now_ns,
            deadline_ns: arrival.deadline_ns,
            payload: Some(payload),
        };
        self.sequence += 1;
        match self.entries.get_mut(slot as usize) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        if arrival.deadline_ns != NEVER {
            self.alarms.set(slot, arrival.deadline_ns);
        }
        self.book_in(flow, &arrival);
        Ticket { slot, generation }
    }

    fn book_in(&mut self, flow: u32, arrival: &Arrival<S>) {
        let rows = u64::from(arrival.rows);
        let Flow { lane, account, level, .. } = self.flows[flow as usize];
        let level = &mut self.levels[usize::from(level)];
        let account = &mut self.accounts[account as usize];
        if account.waiting == 0 {
            account.virtual_time = account.virtual_time.max(level.virtual_time);
            account.fresh = true;
        }
        account.waiting += 1;
        level.waiting += 1;
        let caller = &mut self.callers[arrival.caller as usize];
        self.active_callers += u32::from(caller.waiting == 0);
        caller.open += 1;
        caller.waiting += 1;
        caller.rows += rows;
        let lane = &mut self.lanes[lane as usize];
        lane.requests += 1;
        lane.rows += rows;
        lane.oldest_ns = lane.oldest_ns.min(self.now_ns);
        lane.deadline_ns = lane.deadline_ns.min(arrival.deadline_ns);
        self.waiting += 1;
        self.rows += rows;
    }

    /// Rows of a waiting request are launched, or given up.
    pub(super) fn book_rows(&mut self, slot: u32, rows: u32) {
        let Entry { flow, caller, .. } = self.entries[slot as usize];
        self.rows -= u64::from(rows);
        self.callers[caller as usize].rows -= u64::from(rows);
        let lane = self.flows[flow as usize].lane;
        self.lanes[lane as usize].rows -= u64::from(rows);
    }

    /// A request waits no longer. Frees its flow and lane when they are empty.
    pub(super) fn unlink(&mut self, slot: u32) {
        let Entry { flow: flow_id, previous, next, caller, is_split, .. } = self.entries[slot as usize];
        let flow = &mut self.flows[flow_id as usize];
        match previous {
            NONE => flow.head = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => flow.tail = previous,
            next => self.entries[next as usize].previous = previous,
        }
        let Flow { lane: lane_id, account, level, head, .. } = *flow;
        self.waiting -= 1;
        self.accounts[account as usize].waiting -= 1;
        let level = &mut self.levels[usize::from(level)];
        level.waiting -= 1;
        if level.waiting == 0 {
            // Nobody waits, so nobody owes anybody.
            level.virtual_time = level.largest_time;
            level.passed_over = 0;
        }
        let caller = &mut self.callers[caller as usize];
        caller.waiting -= 1;
        self.active_callers -= u32::from(caller.waiting == 0);
        let lane = &mut self.lanes[lane_id as usize];
        lane.requests -= 1;
        lane.split -= u32::from(is_split);
        let is_lane_empty = lane.requests == 0;
        if head == NONE {
            self.free_flow(flow_id);
        }
        if is_lane_empty {
            self.free_lane(lane_id);
        }
    }

    /// The request has its answer: its slot is free, its ticket of no effect.
    fn close(&mut self, slot: u32) -> P {
        let Entry { rows, taken, caller, .. } = self.entries[slot as usize];
        if taken < rows {
            self.book_rows(slot, rows - taken);
            self.unlink(slot);
        }
        self.alarms.clear(slot);
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let payload = entry.payload.take().expect("an open request has a payload");
        self.free_entries.push(slot);
        self.callers[caller as usize].open -= 1;
        self.forget_caller(caller);
        payload
    }

    fn refuse(&mut self, slot: u32, refusal: Refusal) {
        self.count_refusal(self.entries[slot as usize].caller, &refusal);
        let payload = self.close(slot);
        self.refused.push_back((payload, refusal));
    }

    /// A part is back from its launch.
    fn land(&mut self, ticket: Ticket, failed: bool) -> Verdict {
        if !self.is_open(ticket) {
            return Verdict::Stale;
        }
        let entry = &mut self.entries[ticket.slot as usize];
        entry.flights -= 1;
        let (caller, is_complete) = (entry.caller, entry.taken == entry.rows && entry.flights == 0);
        if failed {
            self.count(caller, |counts| counts.failed += 1);
            self.close(ticket.slot);
            return Verdict::Failed;
        }
        if !is_complete {
            return Verdict::Partial;
        }
        self.count(caller, |counts| counts.answered += 1);
        self.close(ticket.slot);
        Verdict::Complete
    }

    // --- Time and counts ---

    /// Time never goes back: threads that read the clock and then waited for the lock are late, not early.
    fn pass_time(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.now_ns);
        if self.running > 0 {
            self.stats.busy_ns += passed_ns;
        }
        self.now_ns += passed_ns;
    }

    fn learn(&mut self, launch: &Launch<S, P>, ran_ns: u64) {
        /// A moving average over about eight launches; the first value counts in full.
        fn moved(average: u64, value: u64) -> u64 {
            if average == 0 { value } else { average - average / 8 + value / 8 }
        }
        self.stats.launch_ns.record(ran_ns);
        self.launch_ns = moved(self.launch_ns, ran_ns);
        if launch.parts.len() == 1 {
            self.alone_ns = Some(moved(self.alone_ns.unwrap_or(0), ran_ns));
            self.alone_rows = moved(self.alone_rows, launch.rows).max(1);
        }
    }

    fn count(&mut self, caller: u32, change: impl Fn(&mut Counts)) {
        change(&mut self.stats.counts);
        change(&mut self.callers[caller as usize].counts);
    }

    fn count_refusal(&mut self, caller: u32, refusal: &Refusal) {
        self.count(caller, |counts| match refusal {
            Refusal::Exhausted { bound: Bound::Shed, .. } => counts.shed += 1,
            Refusal::Exhausted { .. } => counts.exhausted += 1,
            Refusal::DeadlineMissed => counts.expired += 1,
            Refusal::Cancelled => counts.cancelled += 1,
            Refusal::Closed => counts.closed += 1,
            Refusal::Failed(_) => counts.failed += 1,
        });
    }
}
