//! Events, attempts and runs in a component.

use super::{Transaction, WitAttempt, WitEvent, jobs};
use crate::Result;
use crate::jobs::Run;

#[derive(Debug)]
pub struct Event(pub(super) WitEvent);

impl Event {
    pub fn id(&self) -> String {
        self.0.id()
    }

    pub fn topic(&self) -> String {
        self.0.topic()
    }

    pub fn kind(&self) -> String {
        self.0.kind()
    }

    pub fn key(&self) -> Option<String> {
        self.0.key()
    }

    pub fn payload(&self) -> Vec<u8> {
        self.0.payload()
    }

    pub fn published_ms(&self) -> i64 {
        self.0.published_ms()
    }

    pub fn traceparent(&self) -> Option<String> {
        self.0.traceparent()
    }

    pub fn delivery(&self) -> u32 {
        self.0.delivery()
    }

    pub fn settle(&self, transaction: &Transaction) -> Result<()> {
        Ok(self.0.settle(&transaction.0)?)
    }
}

#[derive(Debug)]
pub struct Attempt(pub(super) WitAttempt);

impl Attempt {
    pub fn job(&self) -> String {
        self.0.job()
    }

    pub fn run(&self) -> String {
        self.0.run()
    }

    pub fn number(&self) -> u32 {
        self.0.number()
    }

    pub fn token(&self) -> u64 {
        self.0.token()
    }

    pub fn parameters(&self) -> String {
        self.0.parameters()
    }

    pub fn scheduled_ms(&self) -> Option<i64> {
        self.0.scheduled_ms()
    }

    pub fn log(&self, line: &str) {
        self.0.log(line);
    }

    pub fn beat(&self) {
        self.0.beat();
    }

    pub fn not_yet(&self, wait_ms: Option<u64>) {
        self.0.not_yet(wait_ms);
    }
}

pub fn find_run(run: &str) -> Result<Option<Run>> {
    let Some(run) = jobs::find(run)? else { return Ok(None) };
    Ok(Some(Run {
        id: run.id(),
        job: run.job(),
        state: run.state(),
        reason: run.reason(),
        // The host's own JSON.
        outcome: run.outcome().and_then(|text| serde_json::from_str(&text).ok()),
        ended_ms: run.ended_ms(),
    }))
}
