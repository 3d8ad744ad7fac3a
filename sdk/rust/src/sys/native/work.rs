//! Events, jobs, calls and secrets in native tests: events and jobs on the host's own rooms, calls into a list.

use super::{State, Transaction, call, state};
use crate::jobs::Run;
use crate::outbound::{Answer, Call};
use crate::{Error, Result};
use mainstay_events::{Event as Kept, JSON, Publication};
use mainstay_schedule as schedule;
use mainstay_store::Space;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};

/// Calls that were sent or are to be delivered, and what the network answers.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) sent: RefCell<Vec<Call>>,
    pub(crate) delivered: RefCell<Vec<Call>>,
    pub(crate) answers: RefCell<VecDeque<Answer>>,
    pub(crate) secrets: RefCell<BTreeSet<String>>,
}

/// What a transaction does to the network when it commits.
#[derive(Default)]
pub(super) struct Pending {
    deliveries: RefCell<Vec<Call>>,
    secrets: RefCell<Vec<(String, bool)>>,
}

impl Pending {
    pub(super) fn commit(&self, network: &Network) {
        network.delivered.borrow_mut().append(&mut self.deliveries.borrow_mut());
        for (name, is_kept) in self.secrets.borrow_mut().drain(..) {
            match is_kept {
                true => network.secrets.borrow_mut().insert(name),
                false => network.secrets.borrow_mut().remove(&name),
            };
        }
    }
}

impl Transaction {
    pub fn publish(&self, topic: &str, kind: &str, key: Option<&str>, payload: &[u8]) -> Result<()> {
        let topic = format!("{}/{topic}", super::PLUGIN);
        let key = key.map(str::to_owned);
        let publication = Publication { key, ..Publication::new(topic, super::PLUGIN, kind, JSON, payload.to_vec()) };
        self.with(|tx, state| state.events.add(tx, publication))
    }

    pub fn start_job(&self, job: &str, parameters: &str) -> Result<String> {
        let parameters = serde_json::from_str(parameters)
            .map_err(|error| Error::invalid(format!("the parameters are no JSON object: {error}")))?;
        let start = schedule::Start { parameters, ..schedule::Start::of(job) };
        let mut run = String::new();
        self.with(|tx, state| {
            run = state.scheduler.add_start(tx, start)?;
            Ok(())
        })?;
        Ok(run)
    }

    pub fn deliver(&self, call: &Call) -> Result<String> {
        self.pending.deliveries.borrow_mut().push(call.clone());
        Ok(format!("{:032x}", super::random_number()))
    }

    pub fn put_secret(&self, name: &str, _value: &[u8]) -> Result<()> {
        self.pending.secrets.borrow_mut().push((name.to_owned(), true));
        Ok(())
    }

    pub fn remove_secret(&self, name: &str) -> Result<()> {
        self.pending.secrets.borrow_mut().push((name.to_owned(), false));
        Ok(())
    }
}

pub fn send(call: &Call) -> Result<Answer> {
    let state = state();
    state.network.sent.borrow_mut().push(call.clone());
    let answer = state.network.answers.borrow_mut().pop_front();
    answer.ok_or_else(|| Error::unavailable("the test gave no answer; use `Host::answer`"))
}

pub fn find_run(run: &str) -> Result<Option<Run>> {
    let state = state();
    settle_jobs(&state)?;
    Ok(state.scheduler.run(run)?.map(|found| {
        let (word, reason, outcome, ended_ms) = match found.state {
            schedule::RunState::Ended { end, reason, at_ms, result } => {
                let word = match end {
                    schedule::RunEnd::Success => "success",
                    schedule::RunEnd::Failed => "failure",
                    schedule::RunEnd::Skipped => "skipped",
                    schedule::RunEnd::Cancelled => "cancelled",
                };
                (word, reason, Some(result), Some(at_ms))
            }
            schedule::RunState::Scheduled { .. } => ("scheduled", String::new(), None, None),
            schedule::RunState::Waiting { .. } => ("waiting", String::new(), None, None),
            schedule::RunState::Ready { .. } => ("ready", String::new(), None, None),
            schedule::RunState::Running { .. } => ("running", String::new(), None, None),
            schedule::RunState::Delayed { .. } => ("delayed", String::new(), None, None),
        };
        Run { id: found.id, job: found.job, state: word.to_owned(), reason, outcome, ended_ms }
    }))
}

/// Make runs of the starts that came with transactions, as the host's driver does a moment after the commit.
fn settle_jobs(state: &State) -> Result<()> {
    Ok(state.runtime.block_on(state.scheduler.advance()).map(|_| ())?)
}

/// Everything that was published to a topic, oldest first.
pub(crate) fn published(state: &State, topic: &str) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = state.events.read(topic, after, 1_000)?;
        let Some(last) = page.events.last() else { return Ok(all) };
        after = Some(last.offset);
        all.extend(page.events);
    }
}

/// Runs of a job, oldest first.
pub(crate) fn job_runs(state: &State, job: &str) -> Result<Vec<schedule::Run>> {
    settle_jobs(state)?;
    let mut runs = state.scheduler.runs(job, None, 1_000)?.runs;
    runs.reverse();
    Ok(runs)
}

pub(crate) fn define_job(state: &State, definition: serde_json::Value) -> Result<()> {
    let definition =
        serde_json::from_value(definition).map_err(|error| Error::invalid(format!("the job's definition: {error}")))?;
    Ok(state.runtime.block_on(state.scheduler.apply(definition)).map(|_| ())?)
}

/// An event of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) kind: String,
    pub(crate) key: Option<String>,
    pub(crate) payload: Vec<u8>,
    pub(crate) published_ms: i64,
    pub(crate) delivery: u32,
}

impl Event {
    pub fn id(&self) -> String {
        self.id.clone()
    }

    pub fn topic(&self) -> String {
        self.topic.clone()
    }

    pub fn kind(&self) -> String {
        self.kind.clone()
    }

    pub fn key(&self) -> Option<String> {
        self.key.clone()
    }

    pub fn payload(&self) -> Vec<u8> {
        self.payload.clone()
    }

    pub fn published_ms(&self) -> i64 {
        self.published_ms
    }

    pub fn traceparent(&self) -> Option<String> {
        None
    }

    pub fn delivery(&self) -> u32 {
        self.delivery
    }

    /// As the host does it: an event that is done cannot be done again.
    pub fn settle(&self, transaction: &Transaction) -> Result<()> {
        let settled = Space::host("sdk-settled");
        let done = || mainstay_base::Error::conflict("the event is done already");
        transaction.with(|tx, _| {
            tx.expect_absent_or(&settled, self.id.as_bytes(), done())?;
            tx.put(&settled, self.id.as_bytes(), "")
        })
    }
}

/// An attempt of a test.
#[derive(Debug)]
pub struct Attempt {
    pub(crate) job: String,
    pub(crate) run: String,
    pub(crate) number: u32,
    pub(crate) parameters: String,
    pub(crate) scheduled_ms: Option<i64>,
    pub(crate) log: RefCell<Vec<String>>,
    pub(crate) not_yet: Cell<bool>,
}

impl Attempt {
    pub fn job(&self) -> String {
        self.job.clone()
    }

    pub fn run(&self) -> String {
        self.run.clone()
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn token(&self) -> u64 {
        u64::from(self.number)
    }

    pub fn parameters(&self) -> String {
        self.parameters.clone()
    }

    pub fn scheduled_ms(&self) -> Option<i64> {
        self.scheduled_ms
    }

    pub fn log(&self, line: &str) {
        self.log.borrow_mut().push(line.to_owned());
    }

    pub fn beat(&self) {
        // A test has no clock that runs out; what matters is that a sign needs a call.
        call();
    }

    pub fn not_yet(&self, _wait_ms: Option<u64>) {
        self.not_yet.set(true);
    }
}

/// Everything that the plugin keeps, and what it caused: what doing something twice must not change.
pub(crate) fn kept(state: &State) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let options = mainstay_store::ScanOptions { limit: 10_000, ..Default::default() };
    let everything = [mainstay_store::KeyRange::prefix(b"")];
    let page = state.store.view().scan(&state.space, &everything, &options)?;
    let mut kept: Vec<(Vec<u8>, Vec<u8>)> = page.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let caused = format!(
        "{} events, {} starts, {} deliveries, {} rows",
        state.events.topics()?.iter().map(|topic| published(state, topic).map_or(0, |all| all.len())).sum::<usize>(),
        state
            .scheduler
            .jobs(None, 1_000)?
            .iter()
            .map(|job| job_runs(state, &job.definition.name).map_or(0, |all| all.len()))
            .sum::<usize>(),
        state.network.delivered.borrow().len(),
        super::rows_in_all(state),
    );
    kept.push((b"(what it caused)".to_vec(), caused.into_bytes()));
    Ok(kept)
}
