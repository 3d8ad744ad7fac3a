//! Runs whose client died: found by their silence, and closed.
//!
//! A timer looks for runs that are RUNNING and to which nothing was written for as long as the operator says. Each is closed as
//! FAILED, with the time of its last activity as its end, a tag that says why, an event and a line in the log. Nothing is
//! locked: a client that was only asleep goes on logging, and the next look opens its run again. A run is at work too while one
//! that it is the parent of is. Separate from `runs`, because nobody asks for this. Bounded by [`CLOSED_MAX`] and
//! [`LOOKED_AT_MAX`] at a time; the next time goes on. On failure: what was closed stays closed and the rest waits for the next
//! time; a run that ends, is deleted or is removed meanwhile is left alone.

use crate::errors::Outcome;
use crate::events::ITSELF;
use crate::runs::{self, PARENT_TAG};
use crate::settings;
use crate::store::{self, Lifecycle, Place, change, indexes};
use mainstay_sdk::index::{self, DocumentRef, Field as Write, Filter, Order, Query, field};
use mainstay_sdk::{Transaction, clock, keys, log, metric};
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// The tag that says why a run was closed by the timer.
pub const REASON_TAG: &str = "mainstay.closed_reason";
/// The field that says when it was.
const CLOSED_FIELD: &str = "closed_time";
/// Runs that one transaction changes.
const STEP: u32 = 100;
/// Runs that are closed at a time.
const CLOSED_MAX: usize = 1_000;
/// Runs that are looked at at a time: those that wait for their parts are looked at and not closed.
const LOOKED_AT_MAX: usize = 20_000;
/// Parts at work that are looked at; what more there are speaks for itself only.
const PARTS_MAX: u32 = 50_000;
/// Runs within runs that are followed upwards.
const NESTING_MAX: usize = 8;
/// Runs that are named in the log at a time; the rest is counted.
const LOGGED_MAX: usize = 100;

/// Fields that leave nothing of a closing by the timer.
pub fn forgotten() -> [Write; 2] {
    [Write::removed(CLOSED_FIELD), Write::removed(format!("tags.{REASON_TAG}"))]
}

/// One look at all runs.
pub fn tick() -> Outcome<()> {
    let minutes = settings::get()?.stale_run_minutes;
    if minutes == 0 {
        return Ok(());
    }
    let quiet_since = clock::now_ms() - i64::from(minutes) * 60_000;
    resume(quiet_since)?;
    close(quiet_since, minutes)
}

fn in_state(status: &str) -> Filter {
    field("status").equal(status) & field("lifecycle_stage").equal(Lifecycle::Active.word())
}

fn close(quiet_since: i64, minutes: u32) -> Outcome<()> {
    let is_quiet = || in_state("RUNNING") & field("updated").less_or_equal(quiet_since);
    let mut query =
        Query::new().filter(is_quiet()).order_by("updated", Order::Ascending).fields(Vec::<String>::new()).limit(STEP);
    let mut spared = None;
    let (mut looked_at, mut closed) = (0, Vec::new());
    let reason = format!("Nothing was written for {minutes} minutes: its client is taken for dead.");
    while looked_at < LOOKED_AT_MAX && closed.len() < CLOSED_MAX {
        let page = index::select(indexes::RUNS, &query)?;
        looked_at += page.len();
        // Most times nothing is quiet, and then nobody has to know which parents are at work.
        if spared.is_none() && !page.is_empty() {
            spared = Some(parents_at_work(quiet_since)?);
        }
        let is_alone = |id: &&str| spared.as_ref().is_none_or(|spared| !spared.contains(*id));
        let ids: Vec<_> = page.iter().map(|run| run.id()).filter(is_alone).map(str::to_owned).collect();
        closed.extend(each_of(&ids, &is_quiet, |tx, run, place| close_one(tx, run, place, &reason))?);
        match page.next() {
            Some(next) => query = query.after(Some(next.to_vec())),
            None => break,
        }
    }
    report("closed as FAILED", &closed, &reason);
    Ok(())
}

fn close_one(tx: &Transaction, run: &DocumentRef<'_>, place: &Place, reason: &str) -> Outcome<bool> {
    let last_activity = run.integer("updated").unwrap_or(0);
    let what = json!({"end_time": last_activity, "reason": reason});
    runs::set_status(tx, run.id(), place, ("RUNNING", "FAILED"), ITSELF, what)?;
    let fields = [
        Write::new("status", "FAILED"),
        Write::new("end_time", last_activity),
        Write::new(CLOSED_FIELD, clock::now_ms()),
        Write::new(format!("tags.{REASON_TAG}"), reason),
    ];
    tx.index(indexes::RUNS).set(run.id(), fields)?;
    Ok(true)
}

/// Open runs again that were closed and are written to since. Each was silent long before it was closed, so whatever is not
/// silent now has come back.
fn resume(quiet_since: i64) -> Outcome<()> {
    let is_back = || in_state("FAILED") & field(CLOSED_FIELD).exists() & field("updated").greater(quiet_since);
    let mut query = Query::new().filter(is_back()).fields(Vec::<String>::new()).limit(STEP);
    let (mut looked_at, mut resumed) = (0, Vec::new());
    while looked_at < LOOKED_AT_MAX {
        let page = index::select(indexes::RUNS, &query)?;
        looked_at += page.len();
        let ids: Vec<_> = page.iter().map(|run| run.id().to_owned()).collect();
        resumed.extend(each_of(&ids, &is_back, resume_one)?);
        match page.next() {
            Some(next) => query = query.after(Some(next.to_vec())),
            None => break,
        }
    }
    report("opened again", &resumed, "It is written to again: its client is alive.");
    Ok(())
}

fn resume_one(tx: &Transaction, run: &DocumentRef<'_>, place: &Place) -> Outcome<bool> {
    // The operator may have made the time of silence longer since.
    if run.integer("updated") <= run.integer(CLOSED_FIELD) {
        return Ok(false);
    }
    let what = json!({"reason": "It is written to again: its client is alive."});
    runs::set_status(tx, run.id(), place, ("FAILED", "RUNNING"), ITSELF, what)?;
    let fields = [Write::new("status", "RUNNING"), Write::removed("end_time")];
    tx.index(indexes::RUNS).set(run.id(), fields.into_iter().chain(forgotten()))?;
    Ok(true)
}

/// Do something to these runs in one transaction, as far as the filter still holds for them; to which it was done. Each is
/// guarded on its key, which whatever changes its status writes; read before its document, so that nothing comes between.
fn each_of(
    ids: &[String],
    filter: &impl Fn() -> Filter,
    act: impl Fn(&Transaction, &DocumentRef<'_>, &Place) -> Outcome<bool>,
) -> Outcome<Vec<String>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    keys::renew()?;
    let (done, _) = change(|tx| {
        let names: Vec<_> = ids.iter().map(|id| store::run_key(id)).collect();
        let mut places = HashMap::new();
        for (id, place) in ids.iter().zip(keys::get_many(&names)?) {
            if let Some(bytes) = place {
                places.insert(id.as_str(), Place::decode(&bytes)?);
            }
        }
        let query = Query::new()
            .filter(index::id().one_of(ids.iter().map(String::as_str)) & filter())
            .fields(["updated", CLOSED_FIELD])
            .limit(STEP);
        let mut done = Vec::new();
        for run in index::select(indexes::RUNS, &query)?.iter() {
            let Some(place) = places.get(run.id()).filter(|place| place.lifecycle == Lifecycle::Active) else {
                continue;
            };
            tx.expect_unchanged(store::run_key(run.id()))?;
            if act(tx, &run, place)? {
                done.push(run.id().to_owned());
            }
        }
        Ok(done)
    })?;
    Ok(done)
}

/// Runs of which a part, or a part of a part, is at work.
fn parents_at_work(quiet_since: i64) -> Outcome<HashSet<String>> {
    let parent = format!("tags.{PARENT_TAG}");
    let parents = |filter: Filter| -> Outcome<Vec<String>> {
        let query = Query::new().filter(filter & field(&parent).exists()).fields([&parent]).limit(PARTS_MAX);
        let found = index::select(indexes::RUNS, &query)?;
        Ok(found.iter().filter_map(|run| Some(run.text(&parent)?.to_owned())).collect())
    };
    let mut at_work = HashSet::new();
    let mut level = parents(in_state("RUNNING") & field("updated").greater(quiet_since))?;
    for _ in 0..NESTING_MAX {
        level.retain(|id| at_work.insert(id.clone()));
        if level.is_empty() {
            break;
        }
        level = parents(index::id().one_of(level.iter().map(String::as_str)))?;
    }
    Ok(at_work)
}

fn report(done: &str, runs: &[String], reason: &str) {
    if runs.is_empty() {
        return;
    }
    metric::add("tracking_stale_runs", runs.len() as f64, &[("what", done)]);
    for run in runs.iter().take(LOGGED_MAX) {
        log::warn!("run {run} was {done}. {reason}"; run = run);
    }
    if runs.len() > LOGGED_MAX {
        log::warn!("{} more runs were {done}. {reason}", runs.len() - LOGGED_MAX);
    }
}
