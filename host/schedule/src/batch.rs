//! One transaction of the scheduler, while it is put together.
//!
//! Owns [`Batch`]: jobs, runs and counts are read from one view, changed in memory, and written as the difference between
//! before and after. Where a run stands in the due times, in a queue, in its pool's and its job's counts follows from the run
//! alone ([`placement`]), so none of these can disagree with it: they commit together, and every record that was read and
//! changed is guarded, so that whoever was overtaken tries again on what is true now. Separate from what the scheduler
//! decides, which only calls [`Batch::update`] and [`Batch::start`].
//!
//! Bounded by [`BATCH_OPERATIONS`]: a batch that is full takes no further work, and what it could not finish is marked and
//! taken up by the next. On failure: nothing is written.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::{Error, ErrorKind, Random, Result};
use mainstay_store::{KeyRange, ScanOptions, Space, Store, Transaction, View};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::definition::{On, Parameters, check_document};
use crate::job::JobRecord;
use crate::keys::{self, Key};
use crate::limits::{BATCH_OPERATIONS, DEPTH_MAX, PAGE, WAITING_MAX};
use crate::run::{Cause, Plan, Run, RunEnd, RunId, RunState};
use crate::state::{Effect, Event, Moment, cut, later, step, wake};

/// What a run is started with.
pub(crate) struct NewRun {
    pub id: Option<RunId>,
    pub job: String,
    /// Over the job's own.
    pub parameters: Parameters,
    pub cause: Cause,
    pub scheduled_ms: Option<i64>,
    pub not_before_ms: Option<i64>,
    pub begin_by_ms: Option<i64>,
    pub priority: Option<i32>,
    pub idempotency_key: Option<String>,
    /// The trigger whose occurrence at `scheduled_ms` it is.
    pub occurrence_of: Option<String>,
    pub depth: u32,
    /// Recorded as skipped at once, with this reason.
    pub skipped: Option<String>,
}

impl NewRun {
    pub fn new(job: &str, cause: Cause) -> NewRun {
        NewRun {
            id: None,
            job: job.to_owned(),
            parameters: Parameters::new(),
            cause,
            scheduled_ms: None,
            not_before_ms: None,
            begin_by_ms: None,
            priority: None,
            idempotency_key: None,
            occurrence_of: None,
            depth: 0,
            skipped: None,
        }
    }
}

/// What a start came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// Whether an earlier start with the same key, or of the same occurrence, had made it.
    pub existed: bool,
}

struct Slot<T> {
    before: Option<T>,
    now: Option<T>,
}

#[derive(Clone, Copy)]
struct Count {
    before: i64,
    now: i64,
}

pub(crate) struct Batch<'a> {
    space: &'a Space,
    random: &'a dyn Random,
    view: View,
    pub now_ms: i64,
    runs: BTreeMap<RunId, Slot<Run>>,
    jobs: BTreeMap<String, Slot<JobRecord>>,
    counts: BTreeMap<Key, Count>,
    writes: BTreeMap<Key, Option<Bytes>>,
    absent: BTreeSet<Key>,
    cleared: Vec<Key>,
    /// Jobs of which more runs may begin now.
    touched: BTreeSet<String>,
    /// Attempts that have to be told to stop.
    pub stops: Vec<(RunId, u64)>,
}

impl<'a> Batch<'a> {
    pub fn new(space: &'a Space, random: &'a dyn Random, view: View, now_ms: i64) -> Batch<'a> {
        Batch {
            space,
            random,
            view,
            now_ms,
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            counts: BTreeMap::new(),
            writes: BTreeMap::new(),
            absent: BTreeSet::new(),
            cleared: Vec::new(),
            touched: BTreeSet::new(),
            stops: Vec::new(),
        }
    }

    /// About how many operations of the store this is.
    fn operations(&self) -> usize {
        self.runs.len() * 9 + self.jobs.len() * 4 + self.counts.len() * 2 + self.writes.len() * 2 + self.cleared.len()
    }

    /// Whether it takes no further work.
    pub fn is_full(&self) -> bool {
        self.operations() > BATCH_OPERATIONS
    }

    /// Keys of the view in a range, first ones first; what this batch itself changes is not in them.
    pub fn scan(&self, range: KeyRange, limit: u32) -> Result<Vec<(Key, Bytes)>> {
        let page =
            self.view.scan(self.space, &[range], &ScanOptions { limit: limit.max(1), ..ScanOptions::default() })?;
        Ok(page.iter().map(|(key, value)| (key.to_vec(), Bytes::copy_from_slice(value))).collect())
    }

    /// A value, as this batch leaves it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(self.space, key),
        }
    }

    pub fn put(&mut self, key: Key, value: Bytes) {
        self.writes.insert(key, Some(value));
    }

    pub fn delete(&mut self, key: Key) {
        self.writes.insert(key, None);
    }

    /// Remove every key that starts so.
    pub fn clear(&mut self, prefix: Key) {
        self.cleared.push(prefix);
    }

    pub fn job(&mut self, name: &str) -> Result<Option<&JobRecord>> {
        if !self.jobs.contains_key(name) {
            let record: Option<JobRecord> = decode(self.view.get(self.space, &keys::job(name))?, "job", name)?;
            self.jobs.insert(name.to_owned(), Slot { before: record.clone(), now: record });
        }
        Ok(self.jobs[name].now.as_ref())
    }

    /// The job, or why there is none.
    pub fn known_job(&mut self, name: &str) -> Result<JobRecord> {
        self.job(name)?.cloned().ok_or_else(|| Error::not_found(format!("there is no job `{name}`; apply it first")))
    }

    pub fn set_job(&mut self, name: &str, record: Option<JobRecord>) -> Result<()> {
        self.job(name)?;
        if let Some(slot) = self.jobs.get_mut(name) {
            slot.now = record;
        }
        self.touched.insert(name.to_owned());
        Ok(())
    }

    /// More runs of the job may be able to begin.
    pub fn touch(&mut self, job: &str) {
        self.touched.insert(job.to_owned());
    }

    pub fn run(&mut self, id: &str) -> Result<Option<&Run>> {
        if !self.runs.contains_key(id) {
            let run: Option<Run> = decode(self.view.get(self.space, &keys::run(id))?, "run", id)?;
            self.runs.insert(id.to_owned(), Slot { before: run.clone(), now: run });
        }
        Ok(self.runs[id].now.as_ref())
    }

    pub fn remove_run(&mut self, id: &str) -> Result<()> {
        self.run(id)?;
        if let Some(slot) = self.runs.get_mut(id) {
            slot.now = None;
        }
        Ok(())
    }

    pub fn count(&mut self, key: Key) -> Result<i64> {
        if let Some(count) = self.counts.get(&key) {
            return Ok(count.now);
        }
        let before = match self.view.get(self.space, &key)? {
            None => 0,
            Some(value) => i64::from_le_bytes(value[..].try_into().map_err(|_| {
                Error::internal("a count of the scheduler is damaged; `mainstay doctor` reads everything and says more")
            })?),
        };
        self.counts.insert(key, Count { before, now: before });
        Ok(before)
    }

    fn add(&mut self, key: Key, amount: i64) -> Result<()> {
        self.count(key.clone())?;
        if let Some(count) = self.counts.get_mut(&key) {
            count.now += amount;
        }
        Ok(())
    }

    /// A number from 0 to 1.
    fn unit(&self) -> f64 {
        (self.random.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A new run's name: the time, then chance.
    pub fn new_id(&self) -> RunId {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        bytes[..6].copy_from_slice(&(self.now_ms as u64).to_be_bytes()[2..]);
        hex::encode(bytes)
    }

    /// Something happens to a run.
    pub fn update(&mut self, id: &str, event: Event) -> Result<Run> {
        let moment = Moment { now_ms: self.now_ms, unit: self.unit() };
        let run = self.run(id)?.ok_or_else(|| Error::not_found(format!("there is no run `{id}`")))?;
        let (next, effects) = step(run, event, moment)?;
        self.set_run(next.clone(), &effects)?;
        Ok(next)
    }

    fn set_run(&mut self, run: Run, effects: &[Effect]) -> Result<()> {
        let before = self.runs.get(&run.id).and_then(|slot| slot.now.as_ref()).map(placement);
        let after = placement(&run);
        if let Some(before) = &before {
            self.move_counts(before, -1)?;
        }
        self.move_counts(&after, 1)?;
        if after.waits || before.is_some_and(|before| before.is_active && !after.is_active) {
            self.touched.insert(run.job.clone());
        }
        let id = run.id.clone();
        let slot = self.runs.entry(id.clone()).or_insert(Slot { before: None, now: None });
        slot.now = Some(run);
        for effect in effects {
            match effect {
                Effect::Stop { token } => self.stops.push((id.clone(), *token)),
                Effect::Became(on) => self.call_back(&id, *on)?,
            }
        }
        Ok(())
    }

    fn move_counts(&mut self, placement: &Placement, by: i64) -> Result<()> {
        if let Some(pool) = &placement.takes_slot_of {
            self.add(keys::used(pool), by)?;
        }
        if placement.is_active {
            self.add(keys::active_count(&placement.job), by)?;
        }
        if placement.is_before_begin {
            self.add(keys::waiting_count(&placement.job), by)?;
        }
        Ok(())
    }

    /// Start what wants to hear of it. What cannot be started is noted with the run: a run is not undone because somebody
    /// could not be told.
    fn call_back(&mut self, id: &str, on: On) -> Result<()> {
        let Some(run) = self.run(id)?.cloned() else { return Ok(()) };
        for callback in run.plan.callbacks.iter().filter(|callback| callback.on == on) {
            let mut new = NewRun::new(&callback.job, Cause::Callback { run: run.id.clone(), on });
            new.parameters = callback.parameters.clone();
            new.parameters.insert("cause".to_owned(), cause_of(&run, on));
            new.depth = run.depth + 1;
            let started = if new.depth > DEPTH_MAX {
                Err(Error::exhausted(format!("{DEPTH_MAX} callbacks led here already")))
            } else {
                self.start(new)
            };
            match started {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Exhausted) => {
                    let note = cut(&format!("callback `{}` was not started: {error}", callback.job));
                    if let Some(run) = self.runs.get_mut(id).and_then(|slot| slot.now.as_mut()) {
                        run.notes.push(note);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Start a run, or find the one that the same key or occurrence has.
    pub fn start(&mut self, new: NewRun) -> Result<Started> {
        let record = self.known_job(&new.job)?;
        let occurrence = new.occurrence_of.as_ref().zip(new.scheduled_ms);
        let occurrence = occurrence.map(|(trigger, at)| keys::occurrence(&new.job, trigger, at));
        let idempotency = new.idempotency_key.as_ref().map(|key| keys::idempotency(&new.job, key));
        let once: Vec<Key> = occurrence.into_iter().chain(idempotency).collect();
        for key in &once {
            if let Some(run) = self.get(key)? {
                return Ok(Started { run: String::from_utf8_lossy(&run).into_owned(), existed: true });
            }
        }
        if new.skipped.is_none() && self.count(keys::waiting_count(&new.job))? >= WAITING_MAX {
            return Err(Error::exhausted(format!(
                "{WAITING_MAX} runs of job `{}` wait already; let some end or cancel them, then start again",
                new.job
            )));
        }
        let id = new.id.clone().unwrap_or_else(|| self.new_id());
        if self.run(&id)?.is_some() {
            return Ok(Started { run: id, existed: true });
        }
        for key in once {
            self.absent.insert(key.clone());
            self.put(key, Bytes::from(id.clone()));
        }
        let (run, effects) = self.make(id.clone(), new, &record);
        check_document("the parameters", &run.parameters)?;
        self.set_run(run, &effects)?;
        Ok(Started { run: id, existed: false })
    }

    fn make(&self, id: RunId, new: NewRun, record: &JobRecord) -> (Run, Vec<Effect>) {
        let now_ms = self.now_ms;
        let mut plan = Plan::of(&record.definition);
        plan.priority = new.priority.unwrap_or(plan.priority);
        let mut parameters = record.definition.parameters.clone();
        parameters.extend(new.parameters);
        let until_ms = new.not_before_ms.filter(|at| *at > now_ms);
        let state = match (&new.skipped, until_ms) {
            (Some(reason), _) => {
                RunState::Ended { end: RunEnd::Skipped, reason: cut(reason), at_ms: now_ms, result: Value::Null }
            }
            (None, Some(until_ms)) => RunState::Scheduled { until_ms },
            (None, None) => RunState::Waiting { since_ms: now_ms },
        };
        let effects = if new.skipped.is_some() { vec![Effect::Became(On::Skipped)] } else { Vec::new() };
        let run = Run {
            id,
            job: new.job,
            revision: record.revision,
            cause: new.cause,
            plan,
            parameters,
            scheduled_ms: new.scheduled_ms,
            created_ms: now_ms,
            deadline_ms: record.definition.deadline_ms.map(|by| later(until_ms.unwrap_or(now_ms), by)),
            begin_by_ms: new.begin_by_ms,
            idempotency_key: new.idempotency_key,
            depth: new.depth,
            state,
            token: 0,
            failures: 0,
            polls: 0,
            attempts: Vec::new(),
            notes: Vec::new(),
        };
        (run, effects)
    }

    /// Let as many waiting runs begin as their jobs have room for.
    fn admit(&mut self) -> Result<()> {
        while let Some(job) = self.touched.pop_first() {
            let Some(record) = self.job(&job)? else { continue };
            let may_run = if record.paused { 0 } else { record.definition.concurrency.map_or(i64::MAX, i64::from) };
            let free = may_run.saturating_sub(self.count(keys::active_count(&job))?);
            let (waiting, is_more) = self.waiting(&job, free)?;
            let mut is_left = is_more;
            for run in waiting {
                if self.operations() > 2 * BATCH_OPERATIONS {
                    is_left = true;
                    break;
                }
                self.update(&run, Event::Admit)?;
            }
            // Admitting touches nobody, so this ends.
            self.touched.remove(&job);
            if is_left {
                self.put(keys::more(&job), Bytes::new());
            } else if self.view.get(self.space, &keys::more(&job))?.is_some() {
                self.delete(keys::more(&job));
            }
        }
        Ok(())
    }

    /// Runs of a job that wait, in order, at most as many as may begin; and whether more could.
    fn waiting(&mut self, job: &str, free: i64) -> Result<(Vec<RunId>, bool)> {
        if free <= 0 {
            return Ok((Vec::new(), false));
        }
        let limit = free.min(i64::from(PAGE)) as usize;
        let mut found: BTreeMap<Key, RunId> = BTreeMap::new();
        let mut changed = 0;
        for (id, slot) in &self.runs {
            let waits = |run: &Option<Run>| run.as_ref().and_then(waiting_key);
            let (before, now) = (waits(&slot.before), waits(&slot.now));
            changed += usize::from(before.is_some());
            if let Some(key) = now.filter(|_| slot.now.as_ref().is_some_and(|run| run.job == job)) {
                found.insert(key, id.clone());
            }
        }
        let asked = limit + changed + 1;
        let stored = self.scan(KeyRange::prefix(&keys::waiting_of(job)), asked as u32)?;
        for (key, _) in stored {
            if let Some(run) = keys::run_at_end(&key).filter(|run| !self.runs.contains_key(run)) {
                found.insert(key, run);
            }
        }
        let is_more = found.len() > limit && (limit as i64) < free;
        Ok((found.into_values().take(limit).collect(), is_more))
    }

    /// Everything as one transaction; none when nothing changed.
    pub fn finish(&mut self, store: &Store) -> Result<Option<Transaction>> {
        self.admit()?;
        if !self.has_changes() {
            return Ok(None);
        }
        let mut transaction = store.begin(&self.view);
        let tx = &mut transaction;
        let space = self.space;
        for (name, slot) in &self.jobs {
            write_job(tx, space, name, slot)?;
        }
        for (id, slot) in &self.runs {
            write_run(tx, space, id, slot)?;
        }
        for (key, count) in &self.counts {
            tx.expect_unchanged(space, key)?;
            if count.now != count.before {
                match count.now {
                    0 => tx.delete(space, key)?,
                    now => tx.put(space, key, now.to_le_bytes().to_vec())?,
                }
            }
        }
        for key in &self.absent {
            tx.expect_absent(space, key)?;
        }
        for (key, value) in &self.writes {
            match value {
                Some(value) => tx.put(space, key, value.clone())?,
                None => tx.delete(space, key)?,
            }
        }
        for prefix in &self.cleared {
            tx.delete_range(space, &KeyRange::prefix(prefix))?;
        }
        Ok(Some(transaction))
    }

    fn has_changes(&self) -> bool {
        self.runs.values().any(|slot| slot.before != slot.now)
            || self.jobs.values().any(|slot| slot.before != slot.now)
            || !self.writes.is_empty()
            || !self.cleared.is_empty()
    }
}

fn write_job(tx: &mut Transaction, space: &Space, name: &str, slot: &Slot<JobRecord>) -> Result<()> {
    let key = keys::job(name);
    // Also when it is as it was: what was decided stands on it.
    tx.expect_unchanged(space, &key)?;
    if slot.before == slot.now {
        return Ok(());
    }
    match &slot.now {
        Some(record) => tx.put(space, &key, encode(record)?)?,
        None => tx.delete(space, &key)?,
    }
    let due = |record: &Option<JobRecord>| record.as_ref().and_then(|record| record.due_key());
    let topics = |record: &Option<JobRecord>| record.as_ref().map(JobRecord::topic_keys).unwrap_or_default();
    let all = |record: &Option<JobRecord>| -> BTreeSet<Key> { due(record).into_iter().chain(topics(record)).collect() };
    write_difference(tx, space, &all(&slot.before), &all(&slot.now))
}

fn write_run(tx: &mut Transaction, space: &Space, id: &str, slot: &Slot<Run>) -> Result<()> {
    if slot.before == slot.now {
        return Ok(());
    }
    let key = keys::run(id);
    match slot.before {
        Some(_) => tx.expect_unchanged(space, &key)?,
        None => tx.expect_absent(space, &key)?,
    }
    match &slot.now {
        Some(run) => tx.put(space, &key, encode(run)?)?,
        None => tx.delete(space, &key)?,
    }
    let indexed = |run: &Option<Run>| run.as_ref().map(|run| placement(run).keys).unwrap_or_default();
    write_difference(tx, space, &indexed(&slot.before), &indexed(&slot.now))?;
    // The log of a poll goes with the poll.
    let tokens = |run: &Option<Run>| -> BTreeSet<u64> {
        run.iter().flat_map(|run| run.attempts.iter().map(|attempt| attempt.token)).collect()
    };
    for token in tokens(&slot.before).difference(&tokens(&slot.now)) {
        tx.delete_range(space, &KeyRange::prefix(&keys::log_of_attempt(id, *token)))?;
    }
    Ok(())
}

fn write_difference(tx: &mut Transaction, space: &Space, before: &BTreeSet<Key>, now: &BTreeSet<Key>) -> Result<()> {
    for key in before.difference(now) {
        tx.delete(space, key)?;
    }
    for key in now.difference(before) {
        tx.put(space, key, Bytes::new())?;
    }
    Ok(())
}

/// Where a run stands: everything that is found without reading it.
struct Placement {
    job: String,
    /// Keys without a value that lead to it.
    keys: BTreeSet<Key>,
    takes_slot_of: Option<String>,
    /// It counts against its job's concurrency.
    is_active: bool,
    /// It counts against [`WAITING_MAX`].
    is_before_begin: bool,
    /// It could begin if its job had room.
    waits: bool,
}

fn placement(run: &Run) -> Placement {
    let mut found = BTreeSet::from([keys::by_job(&run.job, run.created_ms, &run.id)]);
    found.extend(wake(run).map(|at| keys::due_run(at, &run.id)));
    found.extend(waiting_key(run));
    match &run.state {
        RunState::Ready { since_ms } => {
            found.insert(keys::ready(&run.plan.pool, run.plan.priority, *since_ms, &run.id));
        }
        RunState::Ended { at_ms, .. } => {
            found.insert(keys::ended(*at_ms, &run.id));
        }
        _ => {}
    }
    let state = &run.state;
    Placement {
        job: run.job.clone(),
        keys: found,
        takes_slot_of: matches!(state, RunState::Running { .. }).then(|| run.plan.pool.clone()),
        is_active: matches!(state, RunState::Ready { .. } | RunState::Running { .. } | RunState::Delayed { .. }),
        is_before_begin: matches!(state, RunState::Scheduled { .. } | RunState::Waiting { .. }),
        waits: matches!(state, RunState::Waiting { .. }),
    }
}

fn waiting_key(run: &Run) -> Option<Key> {
    match &run.state {
        RunState::Waiting { since_ms } => Some(keys::waiting(&run.job, run.plan.priority, *since_ms, &run.id)),
        _ => None,
    }
}

/// What a callback is told.
fn cause_of(run: &Run, on: On) -> Value {
    let last = run.attempts.last().and_then(|attempt| attempt.ended.as_ref()).map(|ended| ended.reason.clone());
    let (reason, result) = match &run.state {
        RunState::Ended { reason, result, .. } => (Some(reason.clone()), result.clone()),
        _ => (last, Value::Null),
    };
    let mut told = json!({"run": run.id, "job": run.job, "on": on, "reason": reason, "result": result});
    // A large result stays with its run.
    if check_document("the result", &told).is_err() || told.to_string().len() > 16 << 10 {
        told["result"] = Value::Null;
    }
    if let Some(at) = run.scheduled_ms {
        told["scheduled-ms"] = at.into();
    }
    told
}

pub(crate) fn encode(record: &impl Serialize) -> Result<Bytes> {
    let text = serde_json::to_vec(record);
    Ok(text.map_err(|error| Error::internal(format!("a record of the scheduler cannot be written: {error}")))?.into())
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: Option<Bytes>, what: &str, name: &str) -> Result<Option<T>> {
    let Some(bytes) = bytes else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::internal(format!("the record of {what} `{name}` cannot be read ({error}); restore it from a backup"))
    })
}
