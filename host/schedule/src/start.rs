//! Starting runs: by request, by event, and inside somebody else's transaction.
//!
//! Owns the ways in. Separate from the door because each has its own promise: a request with an idempotency key starts at
//! most one run whoever repeats it; an event starts each of its jobs once; and a start that is added to a transaction
//! ([`Scheduler::add_start`]) commits or vanishes with it. That last one writes one key without any guard, so it never meets
//! the scheduler's own changes; the scheduler turns it into a run afterwards.
//!
//! Bounded by the limits of names, keys and parameters. On failure: nothing is started.

use bytes::Bytes;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_store::{KeyRange, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::{Batch, NewRun, Started, decode, encode};
use crate::definition::{Parameters, check_document, check_name};
use crate::keys;
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PAGE};
use crate::run::{Cause, RunId};
use crate::scheduler::Scheduler;
use crate::state::later;

/// A request for a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Start {
    /// Of which job.
    pub job: String,
    /// Over the job's own parameters.
    pub parameters: Parameters,
    /// The same key starts the same run, however often it is asked for.
    pub idempotency_key: Option<String>,
    /// How long to wait first, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Instead of the job's.
    pub priority: Option<i32>,
}

impl Start {
    /// A run of this job, now.
    pub fn of(job: impl Into<String>) -> Start {
        Start { job: job.into(), ..Start::default() }
    }

    fn check(&self) -> Result<()> {
        check_name("job", &self.job)?;
        check_document("the parameters", &self.parameters)?;
        let length = self.idempotency_key.as_ref().map_or(1, String::len);
        if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&length) {
            let range = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX}");
            return Err(Error::invalid(format!("an idempotency key of {length} bytes; it has {range}")));
        }
        Ok(())
    }

    fn new_run(&self, now_ms: i64) -> NewRun {
        let mut new = NewRun::new(&self.job, Cause::Request);
        new.parameters = self.parameters.clone();
        new.idempotency_key = self.idempotency_key.clone();
        new.not_before_ms = self.delay_ms.map(|delay| later(now_ms, delay));
        new.priority = self.priority;
        new
    }
}

/// A start that waits in the store to be made a run.
#[derive(Serialize, Deserialize)]
struct Request {
    start: Start,
    asked_ms: i64,
}

impl Scheduler {
    /// Start a run of a job. While the job is paused, or has as many runs as it may have, the run waits.
    pub async fn start(&self, start: Start) -> Result<Started> {
        start.check()?;
        self.transact(|batch| batch.start(start.new_run(batch.now_ms))).await
    }

    /// Let a run start when this transaction commits, and not otherwise. Answers the run's name; it can be read a moment
    /// after the commit. Call [`Scheduler::wake`] behind the commit, or it begins with the driver's next look.
    pub fn add_start(&self, transaction: &mut Transaction, start: Start) -> Result<RunId> {
        start.check()?;
        if start.idempotency_key.is_some() {
            return Err(Error::invalid(
                "a start inside a transaction takes no idempotency key; the transaction's own guards make it happen once",
            ));
        }
        let batch = self.batch();
        let job = keys::job(&start.job);
        let job_missing = Error::not_found(format!("there is no job `{}`; apply it first", start.job));
        if batch.get(&job)?.is_none() {
            return Err(job_missing);
        }
        let id = batch.new_id();
        let request = Request { start, asked_ms: batch.now_ms };
        transaction.put(&self.inner.space, &keys::request(&id), encode(&request)?)?;
        Ok(id)
    }

    /// Something may have become due.
    pub fn wake(&self) {
        self.inner.changed.notify_one();
    }

    /// An event has arrived: start every job that a trigger binds to its topic. With an `id`, the same event starts each job
    /// once, however often it arrives. The payload becomes the parameter `event`.
    pub async fn on_event(&self, topic: &str, id: Option<&str>, payload: &Value) -> Result<Vec<Started>> {
        check_name("topic", topic)?;
        check_document("the event", payload)?;
        let key = id.map(|id| format!("event/{topic}/{id}"));
        if key.as_ref().is_some_and(|key| key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
            return Err(Error::invalid(format!(
                "the event's id is too long; with its topic it has at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes"
            )));
        }
        self.transact(|batch| {
            let bound = batch.scan(KeyRange::prefix(&keys::topic_of(topic)), PAGE)?;
            let mut started = Vec::new();
            for (bound, _) in bound {
                let Some(job) = keys::job_of_topic(&bound, topic) else { continue };
                let mut new = NewRun::new(&job, Cause::Event { topic: topic.to_owned() });
                new.parameters.insert("event".to_owned(), payload.clone());
                new.idempotency_key = key.clone();
                started.push(batch.start(new)?);
            }
            Ok(started)
        })
        .await
    }
}

/// Turn starts that came with other transactions into runs.
pub(crate) fn take_requests(batch: &mut Batch<'_>) -> Result<usize> {
    let requests = batch.scan(KeyRange::prefix(keys::REQUESTS), PAGE)?;
    let mut taken = 0;
    for (key, value) in requests {
        if batch.is_full() {
            break;
        }
        taken += 1;
        take_request(batch, &key, value)?;
        batch.delete(key);
    }
    Ok(taken)
}

fn take_request(batch: &mut Batch<'_>, key: &[u8], value: Bytes) -> Result<()> {
    let id = keys::name_at_end(key).unwrap_or_default();
    let Some(request) = decode::<Request>(Some(value), "request", &id)? else { return Ok(()) };
    let mut new = request.start.new_run(request.asked_ms);
    new.id = Some(id.clone());
    match batch.start(new) {
        Ok(_) => Ok(()),
        // The job was removed meanwhile, or has too many runs: there is nobody left to tell but the host's log.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Exhausted | ErrorKind::Invalid) => {
            tracing::warn!(run = %id, %error, "a start that was asked for in a transaction was dropped");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
