//! Forgetting what is old.
//!
//! Owns the removal of ended runs with everything that leads to them: their logs, occurrences and idempotency keys. Separate
//! because it is the one step that loses something on purpose, so it happens only when the operator's rule says so.
//! Bounded by a batch a call; the answer says whether there is more. On failure: nothing of that batch was removed.
//!
//! A trigger that comes to its occurrences only forward never runs one again because its run was forgotten; a backfill of
//! that time does.

use mainstay_base::Result;
use mainstay_store::KeyRange;

use crate::batch::Batch;
use crate::keys;
use crate::limits::PAGE;
use crate::run::{Cause, Run};
use crate::scheduler::Scheduler;

impl Scheduler {
    /// Remove up to 256 runs that ended before this time. Answers how many, 0 when there is nothing left to remove.
    pub async fn prune(&self, before_ms: i64) -> Result<usize> {
        self.transact(|batch| {
            let range = KeyRange { start: keys::ENDED.to_vec(), end: Some(keys::ended_end(before_ms)) };
            let mut removed = 0;
            for (key, _) in batch.scan(range, PAGE)? {
                let Some(id) = keys::run_at_end(&key) else { continue };
                if batch.is_full() {
                    break;
                }
                if let Some(run) = batch.run(&id)?.cloned() {
                    forget(batch, &run)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }
}

fn forget(batch: &mut Batch<'_>, run: &Run) -> Result<()> {
    batch.remove_run(&run.id)?;
    batch.clear(keys::log_of(&run.id));
    if let Some(key) = &run.idempotency_key {
        batch.delete(keys::idempotency(&run.job, key));
    }
    if let (Cause::Trigger { trigger, .. } | Cause::Backfill { trigger }, Some(at)) = (&run.cause, run.scheduled_ms) {
        batch.delete(keys::occurrence(&run.job, trigger, at));
    }
    Ok(())
}
