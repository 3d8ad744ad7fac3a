//! The scheduler's door: jobs, pools and runs as operators and other rooms see them.
//!
//! Owns [`Scheduler`] and the one way in which anything is changed ([`Scheduler::transact`]). It keeps nothing in memory that
//! is not in the store, so it can be dropped at any moment, and several may work on one store: whoever is overtaken tries
//! again. Within one process changes take turns, which spares them that. What runs by itself is in [`crate::dispatch`] and
//! [`crate::driver`].
//!
//! Bounded by [`crate::limits`]. On failure: typed errors; a change that could not be made has changed nothing.

use std::sync::Arc;

use mainstay_base::{Clock, Error, ErrorKind, Random, Result};
use mainstay_store::{KeyRange, ScanOptions, Space, Store};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::batch::{Batch, decode, encode};
use crate::definition::{DEFAULT_POOL, JobDefinition, Pool, check_name};
use crate::job::JobRecord;
use crate::keys;
use crate::limits::{POOLS_MAX, SLOTS_MAX, TRIES_MAX};
use crate::run::{Run, RunId};
use crate::state::Event;

/// Slots of the default pool until an operator says otherwise.
pub const DEFAULT_SLOTS: u32 = 16;

/// Durable jobs on a store. Clones are the same scheduler.
#[derive(Clone)]
pub struct Scheduler {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub space: Space,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Held for one change.
    turn: tokio::sync::Mutex<()>,
    /// Told when something may have become due.
    pub changed: Notify,
    /// Told which attempts have to stop; the driver of this process listens.
    pub stops: Mutex<Option<tokio::sync::mpsc::UnboundedSender<(RunId, u64)>>>,
}

/// Some of a job's runs, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<Run>,
    /// Give it as `after` to go on.
    pub next: Option<Vec<u8>>,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Its name and slots.
    pub pool: Pool,
    /// Slots that are taken.
    pub used: i64,
}

impl Scheduler {
    /// Jobs of this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Scheduler {
        let turn = tokio::sync::Mutex::new(());
        let (space, changed, stops) = (Space::host("schedule"), Notify::new(), Mutex::new(None));
        Scheduler { inner: Arc::new(Inner { store, space, clock, random, turn, changed, stops }) }
    }

    /// Add a job or change it. Runs that were started before go on as they were planned. Triggers that stay as they were keep
    /// their place; new ones begin now. The same definition again changes nothing.
    pub async fn apply(&self, definition: JobDefinition) -> Result<JobRecord> {
        definition.check()?;
        self.transact(|batch| {
            if definition.pool != DEFAULT_POOL && batch.get(&keys::pool(&definition.pool))?.is_none() {
                let pool = &definition.pool;
                return Err(Error::not_found(format!("there is no pool `{pool}`; set its slots first")));
            }
            let before = batch.job(&definition.name)?.cloned();
            if let Some(before) = before.as_ref().filter(|before| before.definition == definition) {
                return Ok(before.clone());
            }
            let record = JobRecord::of(definition.clone(), before.as_ref(), batch.now_ms)?;
            batch.set_job(&definition.name, Some(record.clone()))?;
            Ok(record)
        })
        .await
    }

    /// Remove a job. Its ended runs stay until they are pruned; one with unfinished runs is a `conflict`.
    pub async fn remove(&self, job: &str) -> Result<()> {
        self.transact(|batch| {
            batch.known_job(job)?;
            let unfinished = batch.count(keys::active_count(job))? + batch.count(keys::waiting_count(job))?;
            if unfinished > 0 {
                return Err(Error::conflict(format!(
                    "job `{job}` has {unfinished} unfinished runs; pause it and cancel them, or let them end"
                )));
            }
            batch.set_job(job, None)
        })
        .await
    }

    /// Let no further run of a job begin. Runs that have begun go on, their retries included; starts are taken and wait.
    pub async fn pause(&self, job: &str) -> Result<JobRecord> {
        self.set_paused(job, true).await
    }

    /// Let runs begin again. Occurrences that were missed meanwhile are caught up as the job says.
    pub async fn resume(&self, job: &str) -> Result<JobRecord> {
        self.set_paused(job, false).await
    }

    async fn set_paused(&self, job: &str, paused: bool) -> Result<JobRecord> {
        self.transact(|batch| {
            let mut record = batch.known_job(job)?;
            if record.paused != paused {
                record.paused = paused;
                record.updated_ms = batch.now_ms;
                batch.set_job(job, Some(record.clone()))?;
            }
            Ok(record)
        })
        .await
    }

    /// A job.
    pub fn job(&self, job: &str) -> Result<Option<JobRecord>> {
        let Inner { store, space, .. } = &*self.inner;
        check_name("job", job)?;
        decode(store.view().get(space, &keys::job(job))?, "job", job)
    }

    /// Jobs in the order of their names, those behind `after`.
    pub fn jobs(&self, after: Option<&str>, limit: u32) -> Result<Vec<JobRecord>> {
        let mut range = KeyRange::prefix(keys::JOBS);
        if let Some(after) = after {
            range.start = [&keys::job(after)[..], &[0]].concat();
        }
        let options = ScanOptions { limit, ..ScanOptions::default() };
        let page = self.inner.store.view().scan(&self.inner.space, &[range], &options)?;
        let mut jobs = Vec::new();
        for (key, value) in &page {
            let name = keys::name_at_end(key).unwrap_or_default();
            jobs.extend(decode(Some(bytes::Bytes::copy_from_slice(value)), "job", &name)?);
        }
        Ok(jobs)
    }

    /// A run.
    pub fn run(&self, run: &str) -> Result<Option<Run>> {
        if run.is_empty() || run.len() > 64 {
            return Ok(None);
        }
        decode(self.inner.store.view().get(&self.inner.space, &keys::run(run))?, "run", run)
    }

    /// Runs of a job, newest first.
    pub fn runs(&self, job: &str, after: Option<Vec<u8>>, limit: u32) -> Result<RunPage> {
        check_name("job", job)?;
        let view = self.inner.store.view();
        let options = ScanOptions { reverse: true, keys_only: true, limit: limit.min(1_000), after };
        let page = view.scan(&self.inner.space, &[KeyRange::prefix(&keys::of_job(job))], &options)?;
        let mut runs = Vec::new();
        for (key, _) in &page {
            let Some(id) = keys::run_at_end(key) else { continue };
            runs.extend(decode(view.get(&self.inner.space, &keys::run(&id))?, "run", &id)?);
        }
        Ok(RunPage { runs, next: page.next })
    }

    /// Set the slots of a pool, which is made if need be. Attempts that hold slots beyond that keep them until they end.
    pub async fn set_pool(&self, pool: Pool) -> Result<()> {
        check_name("pool", &pool.name)?;
        if pool.slots > SLOTS_MAX {
            return Err(Error::invalid(format!("{} slots; at most {SLOTS_MAX} are allowed", pool.slots)));
        }
        self.transact(|batch| {
            let known = batch.scan(KeyRange::prefix(keys::POOLS), POOLS_MAX as u32 + 1)?;
            if known.len() >= POOLS_MAX && batch.get(&keys::pool(&pool.name))?.is_none() {
                return Err(Error::exhausted(format!("there are {POOLS_MAX} pools already; use one of them")));
            }
            batch.put(keys::pool(&pool.name), encode(&pool)?);
            Ok(())
        })
        .await
    }

    /// Pools and how full they are.
    pub fn pools(&self) -> Result<Vec<PoolUse>> {
        let mut batch = self.batch();
        let pools = pools(&batch)?;
        pools.into_iter().map(|pool| Ok(PoolUse { used: batch.count(keys::used(&pool.name))?, pool })).collect()
    }

    /// Ask a run to end. One that has not begun, or is between two attempts, ends at once; a running attempt is told to stop
    /// and its run ends when it has, or when its lease is over. Cancelling again changes nothing; an ended run is a
    /// `conflict`.
    pub async fn cancel(&self, run: &str, reason: &str) -> Result<Run> {
        self.transact(|batch| batch.update(run, Event::Cancel { reason: reason.to_owned() })).await
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        let Inner { store, space, clock, random, .. } = &*self.inner;
        Batch::new(space, &**random, store.view(), clock.now_ms())
    }

    /// Decide on one view, and commit; again on a newer one when somebody else was first.
    pub(crate) async fn transact<T>(&self, decide: impl Fn(&mut Batch<'_>) -> Result<T>) -> Result<T> {
        let _turn = self.inner.turn.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            let (decided, stops, transaction) = {
                let mut batch = self.batch();
                let decided = decide(&mut batch)?;
                let transaction = batch.finish(&self.inner.store)?;
                (decided, std::mem::take(&mut batch.stops), transaction)
            };
            let Some(transaction) = transaction else { return Ok(decided) };
            match self.inner.store.commit(transaction).await {
                Ok(_) => {
                    self.tell(stops);
                    return Ok(decided);
                }
                Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn tell(&self, stops: Vec<(RunId, u64)>) {
        if let Some(listener) = &*self.inner.stops.lock() {
            for stop in stops {
                // Nobody listens any more: the host is stopping, and takes its attempts with it.
                let _ = listener.send(stop);
            }
        }
        self.inner.changed.notify_one();
    }
}

/// All pools, the default one included.
pub(crate) fn pools(batch: &Batch<'_>) -> Result<Vec<Pool>> {
    let mut pools = Vec::new();
    for (key, value) in batch.scan(KeyRange::prefix(keys::POOLS), POOLS_MAX as u32)? {
        let name = keys::name_at_end(&key).unwrap_or_default();
        pools.extend(decode::<Pool>(Some(value), "pool", &name)?);
    }
    if !pools.iter().any(|pool| pool.name == DEFAULT_POOL) {
        pools.push(Pool { name: DEFAULT_POOL.to_owned(), slots: DEFAULT_SLOTS });
    }
    Ok(pools)
}
