//! Removing for good what was deleted.
//!
//! Deleting is a mark and can be taken back for as many days as the operator wants; after that a sweep, every night and when
//! asked, takes runs, logged models and experiments with everything that belongs to them. What a version in the registry comes
//! from stays, and the refusal names the version. A removal makes the thing unfindable first and clears up behind it; a note of
//! what is left lets `start` finish after a crash. Bounded by [`SWEEP_MAX`] or [`NIGHTLY_MAX`] removals and [`SWEEP_MS_MAX`] a
//! sweep; the next one goes on.

use crate::errors::{Code, Failure, Outcome};
use crate::store::{self, Lifecycle, Place, change, indexes};
use crate::{artifacts, events, experiments, provenance, runs, settings, validate};
use mainstay_sdk::index::{self, Query, field};
use mainstay_sdk::{Key, KeyRange, clock, keys, log};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;
/// Things that one request removes at most; ask again for more.
const SWEEP_MAX: usize = 1_000;
/// Things that are removed at most in one night.
const NIGHTLY_MAX: usize = 10_000;
/// The time after which a sweep ends, in ms: a call of this plugin has 60 s.
const SWEEP_MS_MAX: i64 = 40_000;
/// Deleted things that a sweep looks at in one go.
const PAGE: u32 = 1_000;
/// Things that are kept and named: in an answer, and in the log of a night. The rest is counted.
const KEPT_NAMED_MAX: usize = 200;
/// Keys that one step removes.
const KEYS_STEP: u32 = 50_000;

/// What is left to clear up behind something that was removed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Leftovers {
    id: String,
    prefixes: Vec<Vec<u8>>,
    artifacts: Vec<String>,
}

/// Finish what a crash interrupted.
pub fn start() -> Outcome<()> {
    for entry in keys::scan(store::leftovers_prefix().prefix()) {
        let left: Leftovers = serde_json::from_slice(&entry?.value).map_err(|e| {
            Failure::new(Code::InternalError, format!("a note of an unfinished removal is damaged: {e}"))
        })?;
        clear_up(&left)?;
    }
    Ok(())
}

fn clear_up(left: &Leftovers) -> Outcome<()> {
    keys::renew()?;
    for prefix in &left.prefixes {
        loop {
            let range = KeyRange::prefix(prefix);
            let page = keys::scan(range.clone()).keys_only().page_entries(KEYS_STEP).page()?;
            let Some((last, _)) = page.iter().last() else { break };
            // Up to and with the last key of the page.
            let end = [last, &[0]].concat();
            change(|tx| Ok(tx.delete_range(&KeyRange::between(&range.start, &end))?))?;
            keys::renew()?;
        }
    }
    for directory in &left.artifacts {
        artifacts::remove_names(directory)?;
    }
    change(|tx| Ok(tx.delete(store::leftovers_key(&left.id))?))?;
    Ok(())
}

/// Refuse while the registry refers to one of these runs, and say what does.
fn must_be_free(run_ids: &[String]) -> Outcome<()> {
    let versions = provenance::versions_of_runs(run_ids)?;
    if versions.is_empty() {
        return Ok(());
    }
    let listed: Vec<_> = versions
        .iter()
        .map(|v| format!("model {} version {} (run {})", text(&v["name"]), text(&v["version"]), text(&v["run_id"])))
        .collect();
    Err(Failure::new(
        Code::ResourceConflict,
        format!("The registry refers to it: {}. Delete these versions first, or keep the run.", listed.join(", ")),
    ))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Refuse what is not deleted, or not long enough unless asked for by name.
fn must_be_over(what: &str, stage: Option<&str>, deleted_ms: Option<i64>, by_name: bool) -> Outcome<()> {
    if stage != Some(Lifecycle::Deleted.word()) {
        return Err(Failure::new(Code::ResourceConflict, format!("{what} is not deleted. Delete it first.")));
    }
    let days = i64::from(settings::get()?.retention_days);
    let until = deleted_ms.unwrap_or(0) + days * DAY_MS;
    let left_ms = until - clock::now_ms();
    if left_ms > 0 && !by_name {
        let left = (left_ms + DAY_MS - 1) / DAY_MS;
        let message =
            format!("{what} can be restored for {left} more days ({days} in all). Wait, or ask for it by name.");
        return Err(Failure::new(Code::ResourceConflict, message));
    }
    Ok(())
}

/// Remove one run.
pub fn remove_run(run_id: &str, by_name: bool, by: &str) -> Outcome<()> {
    let (left, _) = change(|tx| {
        let document = index::document(indexes::RUNS, run_id)?.ok_or_else(|| runs::not_found(run_id))?;
        let run = document.as_ref();
        must_be_over(&format!("Run {run_id}"), run.text("lifecycle_stage"), run.integer("deleted_time"), by_name)?;
        tx.expect_unchanged(store::run_key(run_id))?;
        // Registering a version from a run writes the run's key: either we see the version, or it sees no run.
        must_be_free(&[run_id.to_owned()])?;
        let root = artifacts::path_of(run.text("artifact_uri").unwrap_or("")).map(str::to_owned);
        let left = Leftovers {
            id: format!("run {run_id}"),
            prefixes: [store::history_key(run_id), store::params_prefix(run_id), store::inputs_key(run_id)]
                .into_iter()
                .map(Vec::from)
                .collect(),
            artifacts: root.filter(|root| root.contains(run_id)).into_iter().collect(),
        };
        tx.delete(store::run_key(run_id))?;
        tx.index(indexes::RUNS).remove(run_id)?;
        let experiment_id = run.text("experiment_id").unwrap_or("");
        events::of_run(tx, "run-removed", run_id, experiment_id, by, json!({}))?;
        tx.put_json(store::leftovers_key(&left.id), &left)?;
        Ok(left)
    })?;
    log::info!("run {run_id} removed for good"; run = run_id, by = by);
    clear_up(&left)
}

fn runs_of(experiment_id: &str) -> Outcome<Vec<String>> {
    let query =
        Query::new().filter(field("experiment_id").equal(experiment_id)).fields(Vec::<String>::new()).limit(50_000);
    Ok(index::select(indexes::RUNS, &query)?.iter().map(|run| run.id().to_owned()).collect())
}

/// Remove an experiment with its runs and logged models.
pub fn remove_experiment(id: &str, by_name: bool, by: &str) -> Outcome<()> {
    if id == experiments::DEFAULT_ID {
        return Err(Failure::invalid("The default experiment cannot be removed. Remove its runs instead."));
    }
    let document = index::document(indexes::EXPERIMENTS, id)?
        .ok_or_else(|| Failure::missing(format!("No Experiment with id={id} exists")))?;
    let experiment = document.as_ref();
    let what = format!("Experiment {id}");
    must_be_over(&what, experiment.text("lifecycle_stage"), experiment.integer("deleted_time"), by_name)?;
    let run_ids = runs_of(id)?;
    for chunk in run_ids.chunks(5_000) {
        must_be_free(chunk)?;
    }
    let models = models_of(id)?;
    models_must_be_free(&models)?;
    for run_id in run_ids.iter().take(SWEEP_MAX) {
        remove_run(run_id, by_name, by)?;
    }
    if run_ids.len() > SWEEP_MAX {
        return Err(Failure::new(
            Code::ResourceConflict,
            format!("{what} had {} runs, of which {SWEEP_MAX} were removed now. Ask again to go on.", run_ids.len()),
        ));
    }
    for model in &models {
        remove_model(model)?;
    }
    let (left, _) = change(|tx| {
        let record = experiments::record(id)?;
        tx.expect_unchanged(store::experiment_key(id))?;
        let root = artifacts::path_of(&record.artifact_location).filter(|root| !root.is_empty()).map(str::to_owned);
        let left = Leftovers {
            id: format!("experiment {id}"),
            prefixes: vec![Vec::from(store::datasets_prefix(id))],
            artifacts: root.filter(|root| root == id).into_iter().collect(),
        };
        tx.delete(store::experiment_key(id))?;
        tx.delete(store::experiment_name_key(&record.name))?;
        tx.index(indexes::EXPERIMENTS).remove(id)?;
        tx.put_json(store::leftovers_key(&left.id), &left)?;
        Ok(left)
    })?;
    log::info!("experiment {id} removed for good"; experiment = id, by = by);
    clear_up(&left)
}

fn models_of(experiment_id: &str) -> Outcome<Vec<String>> {
    let query =
        Query::new().filter(field("experiment_id").equal(experiment_id)).fields(Vec::<String>::new()).limit(50_000);
    Ok(index::select(indexes::LOGGED_MODELS, &query)?.iter().map(|model| model.id().to_owned()).collect())
}

fn models_must_be_free(ids: &[String]) -> Outcome<()> {
    let query = Query::new()
        .filter(field("model_id").one_of(ids.iter().map(String::as_str)))
        .fields(["name", "version", "model_id"])
        .limit(100);
    let found = index::select(indexes::MODEL_VERSIONS, &query)?;
    if found.is_empty() {
        return Ok(());
    }
    let listed: Vec<_> = found
        .iter()
        .map(|v| format!("model {} version {}", v.text("name").unwrap_or(""), v.integer("version").unwrap_or(0)))
        .collect();
    Err(Failure::new(
        Code::ResourceConflict,
        format!("The registry refers to it: {}. Delete these versions first.", listed.join(", ")),
    ))
}

fn remove_model(id: &str) -> Outcome<()> {
    let (left, _) = change(|tx| {
        let document = index::document(indexes::LOGGED_MODELS, id)?;
        let root = document
            .as_ref()
            .and_then(|d| d.as_ref().text("artifact_uri").and_then(artifacts::path_of).map(str::to_owned));
        let left = Leftovers {
            id: format!("logged model {id}"),
            prefixes: vec![Vec::from(store::logged_model_metrics_key(id))],
            artifacts: root.filter(|root| root.contains(id)).into_iter().collect(),
        };
        tx.expect_unchanged(store::logged_model_key(id))?;
        models_must_be_free(&[id.to_owned()])?;
        tx.delete(store::logged_model_key(id))?;
        tx.index(indexes::LOGGED_MODELS).remove(id)?;
        tx.put_json(store::leftovers_key(&left.id), &left)?;
        Ok(left)
    })?;
    clear_up(&left)
}

/// `DELETE runs/{id}`, `experiments/{id}`, `logged-models/{id}`, each with `?permanent=true`.
pub fn remove_named(kind: &str, id: &str, is_permanent: bool, by: &str) -> Outcome<Vec<u8>> {
    if !is_permanent {
        return Err(Failure::invalid("This removes for good what was deleted before. Say so: '?permanent=true'."));
    }
    match kind {
        "runs" => remove_run(id, true, by)?,
        "experiments" => remove_experiment(&validate::experiment_id(id)?, true, by)?,
        _ => remove_deleted_model(id, true)?,
    }
    Ok(b"{}".to_vec())
}

fn remove_deleted_model(id: &str, by_name: bool) -> Outcome<()> {
    let document = index::document(indexes::LOGGED_MODELS, id)?
        .ok_or_else(|| Failure::missing(format!("Logged model with ID '{id}' not found.")))?;
    let model = document.as_ref();
    must_be_over(&format!("Logged model {id}"), model.text("lifecycle_stage"), model.integer("deleted_time"), by_name)?;
    remove_model(id)
}

/// What a sweep has done.
#[derive(Default)]
struct Swept {
    runs: Vec<String>,
    logged_models: Vec<String>,
    experiments: Vec<String>,
    kept: Vec<Value>,
    kept_in_all: usize,
    is_unfinished: bool,
}

impl Swept {
    fn removed(&self) -> usize {
        self.runs.len() + self.logged_models.len() + self.experiments.len()
    }

    fn keep(&mut self, name: &str, id: &str, because: &str) {
        self.kept_in_all += 1;
        if self.kept.len() < KEPT_NAMED_MAX {
            self.kept.push(json!({ name: id, "because": because }));
        }
    }
}

/// Remove what was deleted longer ago than it can be restored. Experiments last: their runs are gone then, or keep them.
fn sweep_up_to(removals_max: usize, by: &str) -> Outcome<Swept> {
    let mut swept = Swept::default();
    let until_ms = clock::now_ms() + SWEEP_MS_MAX;
    type Remove = fn(&str, &str) -> Outcome<()>;
    type List = fn(&mut Swept) -> &mut Vec<String>;
    let kinds: [(&str, &str, Remove, List); 3] = [
        (indexes::RUNS, "run_id", |id, by| remove_run(id, false, by), |swept| &mut swept.runs),
        (indexes::LOGGED_MODELS, "model_id", |id, _| remove_deleted_model(id, false), |swept| &mut swept.logged_models),
        (
            indexes::EXPERIMENTS,
            "experiment_id",
            |id, by| remove_experiment(id, false, by),
            |swept| &mut swept.experiments,
        ),
    ];
    for (index, name, remove, list) in kinds {
        let over = clock::now_ms() - i64::from(settings::get()?.retention_days) * DAY_MS;
        let mut query = Query::new()
            .filter(
                field("lifecycle_stage").equal(Lifecycle::Deleted.word()) & field("deleted_time").less_or_equal(over),
            )
            .fields(Vec::<String>::new())
            .limit(PAGE);
        loop {
            let page = index::select(index, &query)?;
            for found in page.iter() {
                if swept.removed() >= removals_max || clock::now_ms() >= until_ms {
                    swept.is_unfinished = true;
                    return Ok(swept);
                }
                keys::renew()?;
                match remove(found.id(), by) {
                    Ok(()) => list(&mut swept).push(found.id().to_owned()),
                    // The default experiment cannot be removed at all, which is no conflict.
                    Err(failure) if matches!(failure.code, Code::ResourceConflict | Code::InvalidParameterValue) => {
                        swept.keep(name, found.id(), &failure.message);
                    }
                    // Somebody else was quicker.
                    Err(failure) if failure.code == Code::ResourceDoesNotExist => {}
                    Err(failure) => return Err(failure),
                }
            }
            match page.next() {
                Some(next) => query = query.after(Some(next.to_vec())),
                None => break,
            }
        }
    }
    Ok(swept)
}

/// `POST removals`: the sweep, now.
pub fn sweep(by: &str) -> Outcome<Vec<u8>> {
    let swept = sweep_up_to(SWEEP_MAX, by)?;
    provenance::render(&json!({
        "removed_runs": swept.runs,
        "removed_logged_models": swept.logged_models,
        "removed_experiments": swept.experiments,
        "kept": swept.kept,
        "kept_in_all": swept.kept_in_all,
        "is_unfinished": swept.is_unfinished,
    }))
}

/// The sweep of a night.
pub fn tick() -> Outcome<()> {
    let swept = sweep_up_to(NIGHTLY_MAX, events::ITSELF)?;
    for kept in &swept.kept {
        let (what, id) = ["run", "model", "experiment"]
            .iter()
            .find_map(|what| Some((*what, kept[format!("{what}_id")].as_str()?)))
            .unwrap_or_default();
        log::info!("{what} {id} is deleted and its time is over, but it is kept. {}", text(&kept["because"]));
    }
    if swept.removed() > 0 || swept.kept_in_all > 0 {
        log::info!(
            "removed for good: {} runs, {} logged models, {} experiments; {} are kept{}",
            swept.runs.len(),
            swept.logged_models.len(),
            swept.experiments.len(),
            swept.kept_in_all,
            if swept.is_unfinished { "; more are left for the next time" } else { "" }
        );
    }
    Ok(())
}

/// `GET removals`: what is deleted, until when it can be restored, and what keeps it.
pub fn list() -> Outcome<Vec<u8>> {
    let days = i64::from(settings::get()?.retention_days);
    let deleted = || field("lifecycle_stage").equal(Lifecycle::Deleted.word());
    let query = Query::new().filter(deleted()).fields(["deleted_time", "run_name", "experiment_id"]).limit(PAGE);
    let found = index::select(indexes::RUNS, &query)?;
    let ids: Vec<_> = found.iter().map(|run| run.id().to_owned()).collect();
    let versions = provenance::versions_of_runs(&ids)?;
    let runs: Vec<_> = found
        .iter()
        .map(|run| {
            let kept: Vec<_> = versions.iter().filter(|version| text(&version["run_id"]) == run.id()).collect();
            json!({
                "run_id": run.id(),
                "run_name": run.text("run_name"),
                "experiment_id": run.text("experiment_id"),
                "restorable_until_ms": run.integer("deleted_time").unwrap_or(0) + days * DAY_MS,
                "kept_by": kept,
            })
        })
        .collect();
    let query = Query::new().filter(deleted()).fields(["deleted_time", "name"]).limit(PAGE);
    let experiments: Vec<_> = index::select(indexes::EXPERIMENTS, &query)?
        .iter()
        .map(|experiment| {
            json!({
                "experiment_id": experiment.id(),
                "name": experiment.text("name"),
                "restorable_until_ms": experiment.integer("deleted_time").unwrap_or(0) + days * DAY_MS,
            })
        })
        .collect();
    provenance::render(
        &json!({ "retention_days": days, "runs": runs, "runs_in_all": found.matched(), "experiments": experiments }),
    )
}

/// Keep a run from being removed while a transaction that refers to it commits. Runs that are not known here are not
/// guarded: clients may name runs of another server.
pub fn hold_run(tx: &mainstay_sdk::Transaction, run_id: &str) -> Outcome<()> {
    let key: Key = store::run_key(run_id);
    if let Some(bytes) = keys::get(&key)? {
        Place::decode(&bytes)?;
        tx.expect_unchanged(&key)?;
        tx.put(&key, bytes)?;
    }
    Ok(())
}
