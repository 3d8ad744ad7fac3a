//! From a transaction to a durable commit.
//!
//! Owns the one path on which anything is changed. In order: wait for room in the memtable; read what guards and additions
//! need at a fresh view, without a lock; then under the commit lock compare with what is newer than that view (durable or
//! not), hand one record to the log, and put the writes into the memtable where only later guards see them. When the
//! record is durable, [`crate::publish`] makes it visible and answers. So guards see pending commits, readers never do, and
//! the lock is held without touching a disk.
//!
//! A guard that fails because of a commit which is still pending is answered only when that commit can be read, or has
//! failed: a refusal never stands on something that may vanish, and whoever renews the view and tries again sees what it
//! lost to. [`Overtaken`] says which key it was.
//!
//! Bounded: commits wait while the memtable is full. When the log fails a record, its writes are taken out of the
//! memtable before anything else may be appended (the log refuses meanwhile), so nothing is ever built on it.
//! Cancelling is safe at every point: up to the append nothing has happened, and behind it nobody needs the future.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::apply::Moving;
use crate::engine::{Span, Write};
use crate::limits::DELETE_RANGE_KEYS_MAX;
use crate::publish::{IndexWrite, Slot, complete};
use crate::record;
use crate::space::show_key;
use crate::store::{Inner, Journal};
use crate::transaction::{Expect, Guard, Operation, Transaction};
use crate::view::View;

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Place of this commit in the log; later commits have larger numbers.
    pub sequence: u64,
    /// The new value of each counter, in the order of the `add` calls.
    pub counters: Vec<i64>,
}

/// Why a commit met a conflict: the cause of that error, for who wants to try again in an orderly way.
#[derive(Clone, Debug)]
pub struct Overtaken {
    key: Bytes,
    /// The commit that wrote the key last; 0 when it is long durable.
    sequence: u64,
}

impl Overtaken {
    /// What a failed guard left in an error.
    pub fn of(error: &Error) -> Option<&Overtaken> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// The key whose guard failed first, unlike any key of another space.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl std::fmt::Display for Overtaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "commit {} was first", self.sequence)
    }
}

impl std::error::Error for Overtaken {}

/// What is decided under the commit lock.
pub(crate) struct CommitState {
    /// The newest commit that was handed out, durable or not.
    last: u64,
    is_closed: bool,
}

impl CommitState {
    pub fn new(last: u64) -> CommitState {
        CommitState { last, is_closed: false }
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Refuse every commit from now on.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Replay has come to this sequence.
    pub fn replayed(&mut self, sequence: u64) {
        self.last = sequence;
    }
}

/// What a commit writes, with its sequence known.
#[derive(Default)]
pub(crate) struct Resolved {
    pub writes: Vec<Write>,
    pub index: Vec<IndexWrite>,
}

pub(crate) async fn commit(inner: &Arc<Inner>, transaction: Transaction) -> Result<Receipt> {
    // Before the fresh view is taken: a commit that waits must not hold the applier back.
    inner.wait_for_room(transaction.view().sequence()).await?;
    let prepared = Prepared::read(inner, transaction)?;
    let (counters, answer) = match submit(inner, prepared) {
        Ok(submitted) => submitted,
        Err(error) => {
            if let Some(overtaken) = Overtaken::of(&error) {
                settled(inner, overtaken).await;
            }
            return Err(error);
        }
    };
    let sequence = answer.await.map_err(|_| {
        Error::unavailable(
            "the log stopped before it answered; whether the commit happened shows after the host is started again",
        )
    })??;
    Ok(Receipt { sequence, counters })
}

/// Until the commit that wrote a key can be read, or has failed.
async fn settled(inner: &Inner, Overtaken { key, sequence }: &Overtaken) {
    loop {
        let mut told = pin!(inner.settled.notified());
        // Before the look: what happens behind it is then told.
        told.as_mut().enable();
        if inner.visible() >= *sequence || !inner.memtable.holds(key, *sequence) {
            return;
        }
        told.await;
    }
}

/// A transaction with everything read that can be read without the commit lock.
struct Prepared {
    /// What the transaction read; its sequence is what `expect_unchanged` compares with.
    begun: View,
    /// What the values below were read at.
    fresh: View,
    guards: Vec<Guard>,
    /// For each guard on a value, the value.
    guarded: Vec<Option<Bytes>>,
    operations: Vec<Operation>,
    bytes: usize,
    /// The values under the keys that are added to.
    counters: HashMap<Bytes, Option<Bytes>>,
    /// The keys in each range that is to be removed, sorted.
    ranges: Vec<Vec<Bytes>>,
}

impl Prepared {
    fn read(inner: &Arc<Inner>, transaction: Transaction) -> Result<Prepared> {
        let (begun, guards, operations, bytes) = transaction.into_parts();
        let fresh = View::open(inner);
        let mut guarded = Vec::with_capacity(guards.len());
        for guard in &guards {
            guarded.push(match guard.expect {
                Expect::Unchanged => None,
                _ => fresh.get_physical(&guard.key)?,
            });
        }
        let mut counters = HashMap::new();
        let mut ranges = Vec::new();
        for operation in &operations {
            match operation {
                Operation::Add { key, .. } if !counters.contains_key(key) => {
                    counters.insert(key.clone(), fresh.get_physical(key)?);
                }
                Operation::DeleteRange { start, end } => ranges.push(keys_in(&fresh, start, end)?),
                _ => {}
            }
        }
        Ok(Prepared { begun, fresh, guards, guarded, operations, bytes, counters, ranges })
    }

    /// Under the commit lock: whether every guard holds now.
    fn check_guards(&self, inner: &Inner) -> Result<()> {
        for (guard, at_fresh) in self.guards.iter().zip(&self.guarded) {
            if !self.holds(inner, guard, at_fresh) {
                let error = guard.otherwise.clone().unwrap_or_else(|| guard.conflict());
                return Err(match error.kind() {
                    ErrorKind::Conflict => error.with_source(guard.overtaken(inner)),
                    _ => error,
                });
            }
        }
        // What is newer than a view is in the memtable only while the view is held.
        let expired = |error: Error| Error::conflict(error.message()).with_source(error);
        if self.guards.iter().any(|guard| matches!(guard.expect, Expect::Unchanged)) {
            self.begun.check_held().map_err(expired)?;
        }
        self.fresh.check_held().map_err(expired)
    }

    fn holds(&self, inner: &Inner, guard: &Guard, at_fresh: &Option<Bytes>) -> bool {
        if let Expect::Unchanged = guard.expect {
            return inner.memtable.newer_than(&guard.key, self.begun.sequence()).is_none();
        }
        let newer = inner.memtable.newer_than(&guard.key, self.fresh.sequence());
        let now = newer.as_ref().unwrap_or(at_fresh);
        match &guard.expect {
            Expect::Absent => now.is_none(),
            Expect::Present => now.is_some(),
            Expect::Value(value) => now.as_ref() == Some(value),
            Expect::Unchanged => unreachable!("answered above"),
        }
    }

    /// Under the commit lock: bring the ranges' keys up to now.
    fn renew_ranges(&mut self, inner: &Inner) -> Result<()> {
        if self.ranges.is_empty() {
            return Ok(());
        }
        let mut spans = self.operations.iter().filter_map(|operation| match operation {
            Operation::DeleteRange { start, end } => Some(Span { start, end }),
            _ => None,
        });
        let mut count = 0;
        for keys in &mut self.ranges {
            let span = spans.next().expect("one list of keys for each range");
            for (key, is_there) in inner.memtable.newer_in(span, self.fresh.sequence()) {
                match (keys.binary_search(&key), is_there) {
                    (Ok(at), false) => drop(keys.remove(at)),
                    (Err(at), true) => keys.insert(at, key),
                    _ => {}
                }
            }
            count += keys.len();
        }
        check_range_keys(count)
    }

    /// Under the commit lock: turn additions into the values they result in.
    fn resolve_counters(&mut self, inner: &Inner) -> Result<Vec<i64>> {
        if self.counters.is_empty() {
            return Ok(Vec::new());
        }
        // What earlier operations of this transaction leave under the keys that are added to.
        let mut now = std::mem::take(&mut self.counters);
        for (key, value) in &mut now {
            if let Some(newer) = inner.memtable.newer_than(key, self.fresh.sequence()) {
                *value = newer;
            }
        }
        let mut results = Vec::new();
        for operation in &mut self.operations {
            match operation {
                Operation::Put { key, value } => {
                    if let Some(now) = now.get_mut(key) {
                        *now = Some(value.clone());
                    }
                }
                Operation::Delete { key } => {
                    if let Some(now) = now.get_mut(key) {
                        *now = None;
                    }
                }
                Operation::DeleteRange { start, end } => {
                    for (_, now) in now.iter_mut().filter(|(key, _)| *start <= **key && **key < *end) {
                        *now = None;
                    }
                }
                Operation::Add { key, amount, is_told } => {
                    let now = now.get_mut(key).expect("every counter was read");
                    let result = add(key, now, *amount)?;
                    let value = Bytes::copy_from_slice(&result.to_le_bytes());
                    *now = Some(value.clone());
                    if *is_told {
                        results.push(result);
                    }
                    *operation = Operation::Put { key: std::mem::take(key), value };
                }
                Operation::Append { .. } | Operation::SetFields { .. } | Operation::RemoveDocument { .. } => {}
            }
        }
        Ok(results)
    }
}

fn add(key: &[u8], now: &Option<Bytes>, amount: i64) -> Result<i64> {
    let now = match now {
        None => 0,
        Some(value) => i64::from_le_bytes(value[..].try_into().map_err(|_| {
            let (key, length) = (show_key(key), value.len());
            Error::invalid(format!("{key} holds {length} bytes, which is no counter; a counter has 8"))
        })?),
    };
    now.checked_add(amount).ok_or_else(|| {
        let key = show_key(key);
        Error::invalid(format!("adding {amount} to the counter {now} under {key} overflows"))
    })
}

/// The keys that exist in a range, sorted.
fn keys_in(view: &View, start: &Bytes, end: &Bytes) -> Result<Vec<Bytes>> {
    let mut keys = Vec::new();
    view.visit(Span { start, end }, true, &mut |key, _| {
        keys.push(Bytes::copy_from_slice(key));
        keys.len() <= DELETE_RANGE_KEYS_MAX
    })?;
    check_range_keys(keys.len())?;
    Ok(keys)
}

fn check_range_keys(count: usize) -> Result<()> {
    if count <= DELETE_RANGE_KEYS_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the ranges hold more than {DELETE_RANGE_KEYS_MAX} keys, which is what one transaction may remove; remove them in \
         smaller ranges, one transaction after the other"
    )))
}

/// Work out what operations write. `ranges` gives the keys that exist in each removed range, in the order of the ranges.
pub(crate) fn resolve(
    operations: Vec<Operation>,
    sequence: u64,
    mut ranges: impl FnMut(&Bytes, &Bytes) -> Result<Vec<Bytes>>,
) -> Result<Resolved> {
    let mut resolved = Resolved { writes: Vec::with_capacity(operations.len()), index: Vec::new() };
    for (number, operation) in operations.into_iter().enumerate() {
        let writes = &mut resolved.writes;
        match operation {
            Operation::Put { key, value } => writes.push(Write { key, value: Some(value) }),
            Operation::Delete { key } => writes.push(Write { key, value: None }),
            Operation::Append { key, fragment } => {
                let suffix = [&sequence.to_be_bytes()[..], &(number as u16).to_be_bytes()].concat();
                writes.push(Write { key: [&key[..], &suffix].concat().into(), value: Some(fragment) });
            }
            Operation::DeleteRange { start, end } => {
                // What this transaction wrote into the range before goes too.
                let own = writes.iter().map(|write| &write.key).filter(|key| start <= **key && **key < end);
                let gone: Vec<Bytes> = own.cloned().chain(ranges(&start, &end)?).collect();
                writes.extend(gone.into_iter().map(|key| Write { key, value: None }));
            }
            Operation::Add { .. } => {
                return Err(Error::internal(
                    "an addition reached the log without its result; this is a fault of the host",
                ));
            }
            Operation::SetFields { row, fields } => resolved.index.push(IndexWrite { row, fields: Some(fields) }),
            Operation::RemoveDocument { row } => resolved.index.push(IndexWrite { row, fields: None }),
        }
    }
    Ok(resolved)
}

/// Check, append, and put into the memtable; all under the commit lock.
fn submit(inner: &Arc<Inner>, mut prepared: Prepared) -> Result<(Vec<i64>, oneshot::Receiver<Result<u64>>)> {
    let (sender, answer) = oneshot::channel();
    let slot = Arc::new(Slot::default());
    let mut state = inner.commit.lock();
    if state.is_closed {
        return Err(Error::unavailable("the store is closed; the host is stopping"));
    }
    prepared.check_guards(inner)?;
    prepared.renew_ranges(inner)?;
    let counters = prepared.resolve_counters(inner)?;
    let sequence = match &inner.journal {
        Journal::Log(log) => {
            let record = record::encode(&prepared.operations, prepared.bytes);
            let (inner, slot) = (inner.clone(), slot.clone());
            log.append(record, move |result| complete(&inner, slot, sender, result))?
        }
        Journal::Nothing => {
            let sequence = state.last + 1;
            fill(inner, &mut state, &slot, prepared, sequence);
            complete(inner, slot, sender, Ok(sequence));
            inner.wake_applier_when_needed();
            return Ok((counters, answer));
        }
    };
    fill(inner, &mut state, &slot, prepared, sequence);
    drop(state);
    inner.wake_applier_when_needed();
    Ok((counters, answer))
}

/// Put a commit where guards see it. Nothing here can fail: the record is in the log's hands.
fn fill(inner: &Inner, state: &mut CommitState, slot: &Slot, prepared: Prepared, sequence: u64) {
    let mut ranges = prepared.ranges.into_iter();
    let resolved = resolve(prepared.operations, sequence, |_, _| Ok(ranges.next().unwrap_or_default()))
        .expect("the ranges were read and the additions replaced");
    let moving = Arc::new(Moving::new(sequence, &resolved));
    inner.memtable.insert(sequence, &resolved.writes);
    inner.queue.lock().push_back(moving.clone());
    state.last = sequence;
    slot.fill(moving, resolved.index);
}

impl Guard {
    fn overtaken(&self, inner: &Inner) -> Overtaken {
        let sequence = inner.memtable.newest(&self.key).unwrap_or(0);
        Overtaken { key: self.key.clone(), sequence }
    }

    fn conflict(&self) -> Error {
        let key = show_key(&self.key);
        Error::conflict(match self.expect {
            Expect::Absent => format!("{key} holds something, and nothing was expected; read it again and try again"),
            Expect::Present => format!("{key} holds nothing, and something was expected; read it again and try again"),
            Expect::Value(_) => format!("{key} does not hold the value that was expected; read it again and try again"),
            Expect::Unchanged => format!("{key} was written since it was read; read it again and try again"),
        })
    }
}
