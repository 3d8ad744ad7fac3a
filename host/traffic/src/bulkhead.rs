//! How many requests at once.
//!
//! Owns [`Bulkhead`]: slots for an endpoint and for each tenant, and bounded queues in front of them. Within a tenant the first
//! that waits is the first that goes; between tenants they go by turns, so a tenant's burst makes that tenant wait. Separate from
//! what is done with a slot. The rules are in [`Core`], which knows no time and no tasks.
//!
//! Bounded by the plan's limits; a tenant takes memory only while it has a request here. On failure: who finds the queue full is
//! refused at once, and a slot whose holder is dropped is free again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::plan::PathLimits;

/// See the module. Clones are the same bulkhead.
#[derive(Clone, Default)]
pub(crate) struct Bulkhead {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    core: Core,
    /// Those who wait, by ticket.
    waiting: HashMap<u64, oneshot::Sender<Slot>>,
}

/// The right to carry out one request; free again when dropped.
pub(crate) struct Slot {
    bulkhead: Option<Bulkhead>,
    tenant: Arc<str>,
}

/// How a request comes in.
pub(crate) enum Entry {
    /// It has its slot.
    Slot(Slot),
    /// It waits.
    Waiting(Waiting),
    /// The queue is full.
    Full,
}

/// A place in the queue; given up when dropped.
pub(crate) struct Waiting {
    bulkhead: Bulkhead,
    tenant: Arc<str>,
    ticket: u64,
    slot: oneshot::Receiver<Slot>,
}

/// How full a bulkhead is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that are carried out.
    pub active: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// Limits as one tenant meets them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub concurrency: u32,
    pub queue: u32,
    pub tenant_concurrency: u32,
    pub tenant_queue: u32,
}

impl Room {
    /// `taken`: slots that a fault takes away.
    pub fn of(limits: &PathLimits, tenant: &str, taken: u32) -> Room {
        let own = limits.tenants.get(tenant).unwrap_or(&limits.tenant);
        Room {
            concurrency: limits.concurrency.saturating_sub(taken),
            queue: limits.queue,
            tenant_concurrency: own.concurrency.unwrap_or(u32::MAX),
            tenant_queue: own.queue.unwrap_or(u32::MAX),
        }
    }
}

impl Bulkhead {
    /// Come in.
    pub fn enter(&self, tenant: &Arc<str>, room: Room) -> Entry {
        let mut shared = self.shared.lock();
        match shared.core.enter(tenant, room) {
            Entered::Now => Entry::Slot(Slot { bulkhead: Some(self.clone()), tenant: tenant.clone() }),
            Entered::Full => Entry::Full,
            Entered::Waits(ticket) => {
                let (sender, slot) = oneshot::channel();
                shared.waiting.insert(ticket, sender);
                let due = shared.due();
                drop(shared);
                self.hand_out(due);
                Entry::Waiting(Waiting { bulkhead: self.clone(), tenant: tenant.clone(), ticket, slot })
            }
        }
    }

    /// How full it is.
    pub fn load(&self) -> Load {
        let core = &self.shared.lock().core;
        Load { active: core.active, waiting: core.waiting }
    }

    /// Slots whose takers have gone meanwhile come back here when they are dropped, without the lock.
    fn hand_out(&self, due: Vec<(oneshot::Sender<Slot>, Arc<str>)>) {
        for (sender, tenant) in due {
            let _ = sender.send(Slot { bulkhead: Some(self.clone()), tenant });
        }
    }
}

impl Shared {
    /// Those whose turn it is.
    fn due(&mut self) -> Vec<(oneshot::Sender<Slot>, Arc<str>)> {
        let mut due = Vec::new();
        while let Some((ticket, tenant)) = self.core.next() {
            match self.waiting.remove(&ticket) {
                Some(sender) => due.push((sender, tenant)),
                None => self.core.leave(&tenant),
            }
        }
        due
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(bulkhead) = self.bulkhead.take() else { return };
        let mut shared = bulkhead.shared.lock();
        shared.core.leave(&self.tenant);
        if shared.core.waiting == 0 {
            return;
        }
        let due = shared.due();
        drop(shared);
        bulkhead.hand_out(due);
    }
}

impl Waiting {
    /// Wait for the slot.
    pub async fn slot(mut self) -> Option<Slot> {
        // The sender is only dropped with the ticket, which is given up below.
        (&mut self.slot).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut shared = self.bulkhead.shared.lock();
        if shared.waiting.remove(&self.ticket).is_some() {
            shared.core.give_up(&self.tenant, self.ticket);
        }
    }
}

/// What becomes of one who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Now,
    Waits(u64),
    Full,
}

/// The rules.
#[derive(Default)]
pub(crate) struct Core {
    active: u32,
    waiting: u32,
    next_ticket: u64,
    tenants: HashMap<Arc<str>, Tenant>,
    /// Tenants that have somebody waiting, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// As the last who came met it.
    concurrency: u32,
}

#[derive(Default)]
struct Tenant {
    active: u32,
    queue: VecDeque<u64>,
    concurrency: u32,
}

impl Core {
    pub fn enter(&mut self, tenant: &Arc<str>, room: Room) -> Entered {
        self.concurrency = room.concurrency;
        let is_free = self.active < room.concurrency && self.waiting == 0;
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.clone(), Tenant::default());
        }
        let Some(own) = self.tenants.get_mut(tenant) else { return Entered::Full };
        own.concurrency = room.tenant_concurrency;
        let fits = own.active < room.tenant_concurrency && own.queue.is_empty();
        // Those who wait may all belong to tenants at their own limit: then a free slot is nobody else's.
        if fits && (is_free || self.active < room.concurrency && !self.somebody_could_go()) {
            self.active += 1;
            if let Some(own) = self.tenants.get_mut(tenant) {
                own.active += 1;
            }
            return Entered::Now;
        }
        let entered = self.queue(tenant, room);
        self.forget_if_idle(tenant);
        entered
    }

    fn queue(&mut self, tenant: &Arc<str>, room: Room) -> Entered {
        let Some(own) = self.tenants.get_mut(tenant) else { return Entered::Full };
        if self.waiting >= room.queue || own.queue.len() as u32 >= room.tenant_queue {
            return Entered::Full;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if own.queue.is_empty() {
            self.turns.push_back(tenant.clone());
        }
        own.queue.push_back(ticket);
        self.waiting += 1;
        Entered::Waits(ticket)
    }

    fn somebody_could_go(&self) -> bool {
        self.turns.iter().any(|tenant| self.tenants.get(tenant).is_some_and(Tenant::may_go))
    }

    /// Who goes next, if there is room; has its slot then.
    pub fn next(&mut self) -> Option<(u64, Arc<str>)> {
        if self.active >= self.concurrency {
            return None;
        }
        let place = self.turns.iter().position(|tenant| self.tenants.get(tenant).is_some_and(Tenant::may_go))?;
        let tenant = self.turns.remove(place)?;
        let own = self.tenants.get_mut(&tenant)?;
        let ticket = own.queue.pop_front()?;
        own.active += 1;
        self.active += 1;
        self.waiting -= 1;
        if !own.queue.is_empty() {
            self.turns.push_back(tenant.clone());
        }
        Some((ticket, tenant))
    }

    pub fn leave(&mut self, tenant: &Arc<str>) {
        self.active = self.active.saturating_sub(1);
        if let Some(own) = self.tenants.get_mut(tenant) {
            own.active = own.active.saturating_sub(1);
        }
        self.forget_if_idle(tenant);
    }

    /// The ticket must be one that waits.
    pub fn give_up(&mut self, tenant: &Arc<str>, ticket: u64) {
        if let Some(own) = self.tenants.get_mut(tenant) {
            own.queue.retain(|waiting| *waiting != ticket);
            self.waiting -= 1;
            if own.queue.is_empty() {
                self.turns.retain(|turn| turn != tenant);
            }
        }
        self.forget_if_idle(tenant);
    }

    fn forget_if_idle(&mut self, tenant: &Arc<str>) {
        if self.tenants.get(tenant).is_some_and(|own| own.active == 0 && own.queue.is_empty()) {
            self.tenants.remove(tenant);
        }
    }
}

impl Tenant {
    fn may_go(&self) -> bool {
        self.active < self.concurrency && !self.queue.is_empty()
    }
}

#[cfg(test)]
#[path = "bulkhead_tests.rs"]
mod tests;
