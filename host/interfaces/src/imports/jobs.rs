//! `mainstay:host/jobs`: starting and finding runs of jobs that the operator has defined.
//!
//! A plugin reaches only jobs whose definition names it, because a job may be a program on this machine. A start is part of
//! the plugin's transaction. Bounded by: [`RUNS_MAX`] handles, and the scheduler's limits. On failure: a typed error to the
//! plugin.

use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::jobs::{Host, HostRun, Run as RunHandle};
use mainstay_bindings::mainstay::host::keys::Transaction;
use mainstay_schedule::{Parameters, Run, RunEnd, RunState, Scheduler, Start};
use wasmtime::component::Resource;

use crate::capabilities::JOBS_START;
use crate::imports::arrays::ended;
use crate::state::State;

/// Runs that a call may hold.
pub const RUNS_MAX: usize = 64;

type Answer<T> = Result<T, Failure>;

impl Host for State {
    fn start(&mut self, tx: Resource<Transaction>, job: String, parameters: String) -> Answer<String> {
        let _host = self.enter(JOBS_START)?;
        let scheduler = self.plugin.services.scheduler.clone();
        if !may_start(&scheduler, &self.plugin.name, &job)? {
            let plugin = &self.plugin.name;
            return Err(Error::denied(format!(
                "the job `{job}` does not name the plugin `{plugin}` under `plugins`; an operator can add it"
            ))
            .into());
        }
        let start = Start { parameters: object(&parameters)?, ..Start::of(job) };
        let run = scheduler.add_start(self.transactions.get(&tx)?, start)?;
        self.wakes.scheduler = true;
        Ok(run)
    }

    fn find(&mut self, run: String) -> Answer<Option<Resource<RunHandle>>> {
        let _host = self.enter(JOBS_START)?;
        let scheduler = &self.plugin.services.scheduler;
        let Some(found) = scheduler.run(&run)? else { return Ok(None) };
        let is_own = mainstay_outbound::caller_of(&found) == Some(&*self.plugin.name);
        if !is_own && !may_start(scheduler, &self.plugin.name, &found.job).unwrap_or(false) {
            return Ok(None);
        }
        Ok(Some(self.runs.add(found)?))
    }
}

/// Whether the job's definition names the plugin. `not-found` when there is no such job.
fn may_start(scheduler: &Scheduler, plugin: &str, job: &str) -> HostResult<bool> {
    let missing = || Error::not_found(format!("there is no job `{job}`; an operator defines jobs"));
    let record = scheduler.job(job)?.ok_or_else(missing)?;
    Ok(record.definition.plugins.iter().any(|named| named == plugin))
}

fn object(text: &str) -> HostResult<Parameters> {
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("the parameters are no JSON object: {error}")))
}

impl HostRun for State {
    fn id(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.runs.get(&run).map_err(ended)?.id.clone())
    }

    fn job(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.runs.get(&run).map_err(ended)?.job.clone())
    }

    fn state(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(word(self.runs.get(&run).map_err(ended)?).to_owned())
    }

    fn reason(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        let run = self.runs.get(&run).map_err(ended)?;
        Ok(match &run.state {
            RunState::Ended { reason, .. } => reason.clone(),
            _ => run.notes.join("\n"),
        })
    }

    fn outcome(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(match &self.runs.get(&run).map_err(ended)?.state {
            RunState::Ended { result, .. } => Some(result.to_string()),
            _ => None,
        })
    }

    fn ended_ms(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<Option<i64>> {
        let _host = self.ambient()?;
        Ok(match &self.runs.get(&run).map_err(ended)?.state {
            RunState::Ended { at_ms, .. } => Some(*at_ms),
            _ => None,
        })
    }

    fn drop(&mut self, run: Resource<RunHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.runs.drop(&run);
        Ok(())
    }
}

/// The contract's word for where a run is.
fn word(run: &Run) -> &'static str {
    match &run.state {
        RunState::Scheduled { .. } => "scheduled",
        RunState::Waiting { .. } => "waiting",
        RunState::Ready { .. } => "ready",
        RunState::Running { .. } => "running",
        RunState::Delayed { .. } => "delayed",
        RunState::Ended { end, .. } => match end {
            RunEnd::Success => "success",
            RunEnd::Failed => "failure",
            RunEnd::Skipped => "skipped",
            RunEnd::Cancelled => "cancelled",
        },
    }
}
