//! What the scheduler does by itself: fire triggers, wake runs, give attempts out, take their results.
//!
//! Owns the four steps that a driver repeats. Each is one transaction and costs what it moves, not what there is: due times
//! and ready runs lie in order, so finding the next ones is a scan from the front. Separate from the driver, which has the
//! threads; everything here runs as well in a simulation.
//!
//! Bounded by [`PAGE`] entries a step. On failure: a step that failed has changed nothing and is done again. A job whose
//! triggers cannot be read any more is passed over with a warning, and does not hold up the others.

use mainstay_base::{ErrorKind, Result};
use mainstay_store::KeyRange;

use crate::batch::{Batch, NewRun};
use crate::definition::MisfirePolicy;
use crate::due::{DueOccurrences, SkippedSpan, due};
use crate::keys::{self, DueWhat};
use crate::limits::PAGE;
use crate::run::{Cause, Run, RunId, RunState, Stop};
use crate::scheduler::{Scheduler, pools};
use crate::start::take_requests;
use crate::state::{Event, Outcome, later};

/// What a look at the due times came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    /// Entries that were handled.
    pub handled: usize,
    /// Whether more is due already.
    pub is_more: bool,
    /// When something is due next, as far as is known.
    pub next_ms: Option<i64>,
}

/// What an owner hears when it says that it is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeatAnswer {
    /// Go on.
    Good,
    /// Stop the attempt, and report.
    Stop(Stop),
    /// The attempt is not the owner's any more: stop it, and drop what it made.
    Lost,
}

impl Scheduler {
    /// Handle what is due now: triggers, delays, deadlines, timeouts, leases.
    pub async fn advance(&self) -> Result<Advanced> {
        self.transact(|batch| {
            let mut handled = take_requests(batch)? + take_more(batch)?;
            let stored = batch.scan(KeyRange::prefix(keys::DUE), PAGE + 1)?;
            let end = keys::due_end(batch.now_ms);
            let mut advanced = Advanced::default();
            for (number, (key, _)) in stored.iter().enumerate() {
                let Some((at_ms, what)) = keys::parse_due(key) else { continue };
                if *key >= end {
                    advanced.next_ms = Some(at_ms);
                    break;
                }
                if number == PAGE as usize || batch.is_full() {
                    advanced.is_more = true;
                    break;
                }
                handle(batch, &what)?;
                handled += 1;
            }
            advanced.handled = handled;
            // What was handled has a due time of its own now, which may be before the next one that was there.
            advanced.is_more |= handled > 0;
            Ok(advanced)
        })
        .await
    }

    /// Take up to `limit` ready runs, for as many slots as their pools have free: higher priorities first, then who waited
    /// longest. The owner has each until the lease is over.
    pub async fn claim(&self, owner: &str, lease_ms: u64, limit: usize) -> Result<Vec<Run>> {
        self.transact(|batch| {
            let mut pools = pools(batch)?;
            // No pool is always asked first.
            let count = pools.len().max(1);
            pools.rotate_left((batch.now_ms.unsigned_abs() as usize) % count);
            let mut claimed = Vec::new();
            for pool in pools {
                let free = i64::from(pool.slots) - batch.count(keys::used(&pool.name))?;
                let wanted = (limit - claimed.len()).min(PAGE as usize).min(free.max(0) as usize);
                if wanted > 0 {
                    claim_in(batch, &pool.name, wanted, owner, lease_ms, &mut claimed)?;
                }
            }
            Ok(claimed)
        })
        .await
    }

    /// The owner of these attempts is alive: their leases begin anew.
    pub async fn beat(&self, attempts: &[(RunId, u64)], lease_ms: u64) -> Result<Vec<BeatAnswer>> {
        let mut answers = Vec::with_capacity(attempts.len());
        for some in attempts.chunks(PAGE as usize) {
            let answered: Vec<BeatAnswer> = self
                .transact(|batch| some.iter().map(|(run, token)| beat(batch, run, *token, lease_ms)).collect())
                .await?;
            answers.extend(answered);
        }
        Ok(answers)
    }

    /// An attempt is done. A `conflict` when it is not the owner's any more; nothing of it counts then.
    pub async fn finish(&self, run: &str, token: u64, outcome: Outcome) -> Result<Run> {
        self.transact(|batch| batch.update(run, Event::Finish { token, outcome: outcome.clone() })).await
    }
}

fn beat(batch: &mut Batch<'_>, run: &str, token: u64, lease_ms: u64) -> Result<BeatAnswer> {
    match batch.update(run, Event::Beat { token, lease_ms }) {
        Ok(run) => Ok(match run.state {
            RunState::Running { stop: Some(stop), .. } => BeatAnswer::Stop(stop),
            _ => BeatAnswer::Good,
        }),
        Err(error) => match error.kind() {
            ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Invalid => Ok(BeatAnswer::Lost),
            _ => Err(error),
        },
    }
}

fn claim_in(
    batch: &mut Batch<'_>,
    pool: &str,
    wanted: usize,
    owner: &str,
    lease_ms: u64,
    claimed: &mut Vec<Run>,
) -> Result<()> {
    for (key, _) in batch.scan(KeyRange::prefix(&keys::ready_of(pool)), wanted as u32)? {
        let Some(id) = keys::run_at_end(&key) else { continue };
        if batch.is_full() {
            break;
        }
        let Some(run) = batch.run(&id)?.cloned() else { continue };
        let is_paused = batch.job(&run.job)?.is_some_and(|job| job.paused);
        if is_paused && run.attempts.is_empty() {
            batch.update(&id, Event::Hold)?;
        } else {
            claimed.push(batch.update(&id, Event::Claim { owner: owner.to_owned(), lease_ms })?);
        }
    }
    Ok(())
}

/// Jobs of which more runs may begin than one transaction could take.
fn take_more(batch: &mut Batch<'_>) -> Result<usize> {
    let jobs = batch.scan(KeyRange::prefix(keys::MORE), 1)?;
    for (key, _) in &jobs {
        if let Some(job) = keys::name_at_end(key) {
            batch.delete(key.clone());
            batch.touch(&job);
        }
    }
    Ok(jobs.len())
}

fn handle(batch: &mut Batch<'_>, what: &DueWhat) -> Result<()> {
    match what {
        DueWhat::Run(run) => batch.update(run, Event::Tick).map(|_| ()),
        DueWhat::Job(job) => fire(batch, job),
    }
}

/// Start the occurrences of a job that have come, and move its triggers forward.
fn fire(batch: &mut Batch<'_>, name: &str) -> Result<()> {
    let mut record = batch.known_job(name)?;
    let now_ms = batch.now_ms;
    let definition = record.definition.clone();
    for place in 0..record.triggers.len() {
        let state = record.triggers[place].clone();
        let Some(cursor_ms) = state.next_ms.filter(|next| *next <= now_ms) else { continue };
        let moments = match record.moments(&state) {
            Ok(Some(moments)) => moments,
            Ok(None) => {
                record.triggers[place].next_ms = None;
                continue;
            }
            Err(error) => {
                tracing::warn!(job = name, %error, "a trigger cannot be read any more and is switched off; apply the job again");
                record.triggers[place].next_ms = None;
                continue;
            }
        };
        let grace_ms = definition.misfire.grace_ms;
        let found = due(&moments, cursor_ms, now_ms, grace_ms, definition.catch_up, PAGE as usize);
        record.triggers[place].next_ms = start_occurrences(batch, name, &state.trigger, cursor_ms, &found, grace_ms)?;
    }
    batch.set_job(name, Some(record))
}

/// Answers the next occurrence to look at.
fn start_occurrences(
    batch: &mut Batch<'_>,
    name: &str,
    trigger: &str,
    cursor_ms: i64,
    found: &DueOccurrences,
    grace_ms: u64,
) -> Result<Option<i64>> {
    if let Some(span) = found.skipped {
        record_missed(batch, name, trigger, span)?;
    }
    let skips_late = batch.known_job(name)?.definition.misfire.policy == MisfirePolicy::Skip;
    for (number, (at_ms, is_late)) in found.run.iter().enumerate() {
        if number > 0 && batch.is_full() {
            return Ok(Some(*at_ms));
        }
        let mut new = NewRun::new(name, Cause::Trigger { trigger: trigger.to_owned(), is_late: *is_late });
        new.scheduled_ms = Some(*at_ms);
        new.occurrence_of = Some(trigger.to_owned());
        new.begin_by_ms = (skips_late && !is_late).then(|| later(*at_ms, grace_ms.max(1)));
        match batch.start(new) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Exhausted => {
                let span = SkippedSpan { first_ms: *at_ms, last_ms: *at_ms, count: 1, is_more: false };
                record_missed(batch, name, trigger, span)?;
            }
            Err(error) => return Err(error),
        }
    }
    // A place never moves back, whatever the clock does.
    Ok(found.next_ms.map(|next| next.max(cursor_ms)))
}

fn record_missed(batch: &mut Batch<'_>, name: &str, trigger: &str, span: SkippedSpan) -> Result<()> {
    let SkippedSpan { first_ms, last_ms, count, is_more } = span;
    let mut new = NewRun::new(name, Cause::Missed { trigger: trigger.to_owned(), first_ms, last_ms, count, is_more });
    let or_more = if is_more { " or more" } else { "" };
    new.skipped = Some(format!("{count}{or_more} occurrences were missed and are not caught up"));
    batch.start(new).map(|_| ())
}
