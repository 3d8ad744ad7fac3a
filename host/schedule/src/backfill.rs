//! Occurrences of the past, on demand.
//!
//! Owns going through a range of time and starting what is not there yet. An occurrence that was started before, by its
//! trigger or by another backfill, is not started again: both keep occurrences under their scheduled time. Separate from
//! catching up, which happens by itself and only moves forward.
//!
//! Bounded: at most [`BACKFILL_MAX`] occurrences a call; the answer says where to go on. A dry run changes nothing. On
//! failure: what was started before stays started, and the same call again goes on from there.

use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, NewRun};
use crate::definition::check_name;
use crate::job::JobRecord;
use crate::keys;
use crate::limits::BACKFILL_MAX;
use crate::run::{Cause, RunId};
use crate::scheduler::Scheduler;

/// What to fill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Backfill {
    /// Of which job.
    pub job: String,
    /// The first scheduled time, in milliseconds since 1970.
    pub from_ms: i64,
    /// The first scheduled time behind the range; not in the future.
    pub to_ms: i64,
    /// Most occurrences to look at, up to [`BACKFILL_MAX`].
    pub limit: u32,
    /// Only say what would be started.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a backfill found, in order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Backfilled {
    /// Every occurrence that it looked at.
    pub occurrences: Vec<BackfillOccurrence>,
    /// Where to go on when the limit was reached.
    pub next_ms: Option<i64>,
}

/// One occurrence of a backfill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackfillOccurrence {
    /// When it was scheduled.
    pub scheduled_ms: i64,
    /// Its run; none in a dry run when there was none.
    pub run: Option<RunId>,
    /// Whether there was a run before.
    pub existed: bool,
}

impl Scheduler {
    /// Start the occurrences of a job's cron and interval triggers in a range of the past. An interval without a start has
    /// no occurrences before it was applied.
    pub async fn backfill(&self, wanted: &Backfill) -> Result<Backfilled> {
        check_name("job", &wanted.job)?;
        if !(1..=BACKFILL_MAX).contains(&wanted.limit) {
            return Err(Error::invalid(format!("a limit of {}; it must be 1 to {BACKFILL_MAX}", wanted.limit)));
        }
        let record = self.job(&wanted.job)?;
        let record = record.ok_or_else(|| Error::not_found(format!("there is no job `{}`", wanted.job)))?;
        let now_ms = self.inner.clock.now_ms();
        if wanted.to_ms > now_ms.saturating_add(1) {
            return Err(Error::invalid(format!(
                "the range ends at {}, and it is {now_ms}; a backfill is of the past, the future comes by itself",
                wanted.to_ms
            )));
        }
        let mut occurrences = occurrences(&record, wanted)?;
        let next_ms = occurrences.get(wanted.limit as usize).map(|(at, _)| *at);
        occurrences.truncate(wanted.limit as usize);
        let mut filled = Backfilled { occurrences: Vec::new(), next_ms };
        // A hundred in one transaction, so that a long backfill does not hold up everything else.
        for some in occurrences.chunks(100) {
            let done =
                self.transact(|batch| some.iter().map(|(at, trigger)| fill(batch, wanted, *at, trigger)).collect());
            let done: Vec<BackfillOccurrence> = done.await?;
            filled.occurrences.extend(done);
        }
        Ok(filled)
    }
}

/// Scheduled times in the range with their triggers' keys, in order; more than the limit if there are more.
fn occurrences(record: &JobRecord, wanted: &Backfill) -> Result<Vec<(i64, String)>> {
    let limit = wanted.limit as usize;
    let mut found = Vec::new();
    for state in &record.triggers {
        let Some(moments) = record.moments(state)? else { continue };
        let mut at = moments.next_after(wanted.from_ms.saturating_sub(1));
        let mut count = 0;
        // One more than the limit, to know where to go on.
        while let Some(moment) = at.filter(|moment| *moment < wanted.to_ms && count <= limit) {
            found.push((moment, state.trigger.clone()));
            at = moments.next_after(moment);
            count += 1;
        }
    }
    found.sort();
    Ok(found)
}

fn fill(batch: &mut Batch<'_>, wanted: &Backfill, scheduled_ms: i64, trigger: &str) -> Result<BackfillOccurrence> {
    if wanted.dry_run {
        let known = batch.get(&keys::occurrence(&wanted.job, trigger, scheduled_ms))?;
        let run = known.map(|run| String::from_utf8_lossy(&run).into_owned());
        return Ok(BackfillOccurrence { scheduled_ms, existed: run.is_some(), run });
    }
    let mut new = NewRun::new(&wanted.job, Cause::Backfill { trigger: trigger.to_owned() });
    new.scheduled_ms = Some(scheduled_ms);
    new.occurrence_of = Some(trigger.to_owned());
    let started = batch.start(new)?;
    Ok(BackfillOccurrence { scheduled_ms, run: Some(started.run), existed: started.existed })
}
