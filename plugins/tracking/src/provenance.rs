//! Where a model comes from, and what came from a dataset: run → commit → data → version → deployments.
//!
//! Owns the questions; the links themselves are written where they arise (`registry::mirror`). Reads only. A missing link
//! is named in words that say how to make it: the host refuses to promote a protected model on the same grounds, others
//! get the words as a warning.

use crate::errors::{Code, Failure, Outcome};
use crate::registry::{self, mirror, versions};
use crate::store::indexes;
use crate::{inputs, validate};
use mainstay_sdk::directory;
use mainstay_sdk::index::{self, DocumentRef, Order, Query, field};
use mainstay_sdk::log;
use serde_json::{Value, json};

/// The tag under which clients keep a run's commit.
const COMMIT_TAG: &str = "mlflow.source.git.commit";
/// Most rows of a list in an answer.
const ROWS_MAX: u32 = 1_000;

/// The commit of a run's code.
pub fn commit_of<'a>(run: &DocumentRef<'a>) -> Option<&'a str> {
    run.text(&format!("tags.{COMMIT_TAG}")).filter(|commit| !commit.is_empty())
}

/// Links that a version lacks.
fn missing(version: &DocumentRef<'_>) -> Outcome<Vec<String>> {
    let run_id = version.text("run_id").unwrap_or("");
    if run_id.is_empty() {
        return Ok(vec!["it names no run: register it from a run or a logged model".into()]);
    }
    let Some(run) = index::document(indexes::RUNS, run_id)? else {
        return Ok(vec![format!("its run {run_id} is not known here")]);
    };
    let mut out = Vec::new();
    if commit_of(&run.as_ref()).is_none() {
        out.push(format!("run {run_id} has no commit: train from a git work tree, or set the tag '{COMMIT_TAG}'"));
    }
    if inputs::datasets_of(run_id)?.is_empty() {
        out.push(format!("run {run_id} names no dataset: log its training data with log_input"));
    }
    Ok(out)
}

/// A refusal to promote a version, with what to do about it: the host knows which links are missing, and not how they are
/// made.
pub fn explain(mut refusal: Failure, name: &str, version: i64) -> Failure {
    if refusal.code == Code::PermissionDenied {
        let known = registry::find(name).and_then(|model| versions::document(&model, version));
        if let Ok(missing) = known.and_then(|version| missing(&version.as_ref()))
            && !missing.is_empty()
        {
            refusal.message = format!("{}. To be done: {}", refusal.message, missing.join("; "));
        }
    }
    refusal
}

/// Warn that a version was promoted whose origin is not fully known: in the log, and in words for the answer.
pub fn warn(version: &DocumentRef<'_>, to: &str) -> Outcome<Option<String>> {
    let missing = missing(version)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let name = version.text("name").unwrap_or("");
    let number = version.integer("version").unwrap_or(0);
    let text = format!("model {name} version {number} moved to {to} although {}", missing.join("; "));
    log::warn!("{text}"; model = name, version = number);
    Ok(Some(text))
}

/// `GET provenance/models/{name}/versions/{version}`
pub fn of_version(name: &str, version: &str) -> Outcome<Vec<u8>> {
    let version = validate::version(version)?;
    let model = registry::find(name)?;
    let document = versions::document(&model, version)?;
    let document = document.as_ref();
    let of_model = model.document()?;
    let run_id = document.text("run_id").unwrap_or("");
    let aliases: Vec<_> = registry::aliases(&of_model.as_ref())
        .into_iter()
        .filter(|(_, of)| *of == version)
        .map(|(alias, _)| alias.to_owned())
        .collect();
    let node = mirror::node(name, version);
    let deployments: Vec<_> = directory::edges_to(&node)?
        .into_iter()
        .map(|edge| json!({ "relation": edge.relation, "kind": edge.source.kind, "name": edge.source.name, "version": edge.source.version }))
        .collect();
    let missing = missing(&document)?;
    render(&json!({
        "name": name,
        "version": version.to_string(),
        "stage": document.text("current_stage"),
        "aliases": aliases,
        "source": document.text("source"),
        "storage": document.text("storage_location"),
        "logged_model": document.text("model_id").filter(|id| !id.is_empty()),
        "run": run(run_id)?,
        "deployments": deployments,
        "missing": missing,
        "is_complete": missing.is_empty(),
    }))
}

fn run(run_id: &str) -> Outcome<Value> {
    let Some(document) = index::document(indexes::RUNS, run_id)? else {
        return Ok(if run_id.is_empty() { Value::Null } else { json!({ "run_id": run_id, "is_known": false }) });
    };
    let run = document.as_ref();
    let tag = |key: &str| run.text(&format!("tags.{key}")).map(str::to_owned);
    let datasets: Vec<_> = inputs::datasets_of(run_id)?
        .into_iter()
        .map(|(name, digest)| json!({ "name": name, "digest": digest }))
        .collect();
    Ok(json!({
        "run_id": run_id,
        "is_known": true,
        "run_name": run.text("run_name"),
        "experiment_id": run.text("experiment_id"),
        "user": run.text("user_id"),
        "status": run.text("status"),
        "lifecycle_stage": run.text("lifecycle_stage"),
        "start_time": run.integer("start_time"),
        "end_time": run.integer("end_time"),
        "git_commit": commit_of(&run),
        "git_branch": tag("mlflow.source.git.branch"),
        "git_repository": tag("mlflow.source.git.repoURL"),
        "entry_point": tag("mlflow.source.name"),
        "parent_run_id": tag("mlflow.parentRunId"),
        "datasets": datasets,
    }))
}

/// `GET provenance/runs/{run_id}`
pub fn of_run(run_id: &str) -> Outcome<Vec<u8>> {
    let run = run(run_id)?;
    if run["is_known"] != Value::Bool(true) {
        return Err(crate::runs::not_found(run_id));
    }
    render(&json!({ "run": run, "models": versions_of_runs(&[run_id.to_owned()])? }))
}

/// Names and numbers of the registry's versions that refer to some runs, themselves or through a logged model of theirs.
pub fn versions_of_runs(run_ids: &[String]) -> Outcome<Vec<Value>> {
    let logged = Query::new()
        .filter(field("source_run_id").one_of(run_ids.iter().map(String::as_str)))
        .fields(Vec::<String>::new())
        .limit(10_000);
    let logged = index::select(indexes::LOGGED_MODELS, &logged)?;
    let logged: Vec<&str> = logged.iter().map(|document| document.id()).collect();
    let query = Query::new()
        .filter(field("run_id").one_of(run_ids.iter().map(String::as_str)) | field("model_id").one_of(logged))
        .order_by("name", Order::Ascending)
        .order_by("version", Order::Ascending)
        .fields(["name", "version", "run_id", "current_stage"])
        .limit(ROWS_MAX);
    Ok(index::select(indexes::MODEL_VERSIONS, &query)?
        .iter()
        .map(|version| {
            json!({
                "name": version.text("name"),
                "version": version.integer("version").map(|number| number.to_string()),
                "run_id": version.text("run_id"),
                "stage": version.text("current_stage"),
            })
        })
        .collect())
}

/// `GET provenance/datasets/{name}?digest=…`: what was trained on this data? Without a digest, on any state of it.
pub fn of_dataset(name: &str, digest: Option<&str>) -> Outcome<Vec<u8>> {
    let mut filter = field("dataset.name").equal(name);
    if let Some(digest) = digest {
        filter = filter & field("dataset.digest").equal(digest);
    }
    let query = Query::new()
        .filter(filter)
        .order_by("start_time", Order::Descending)
        .fields(["run_name", "experiment_id"])
        .limit(ROWS_MAX);
    let found = index::select(indexes::RUNS, &query)?;
    if found.is_empty() {
        let at = digest.map(|digest| format!(" with digest '{digest}'")).unwrap_or_default();
        return Err(Failure::missing(format!("No run here names a dataset '{name}'{at}")));
    }
    let ids: Vec<_> = found.iter().map(|run| run.id().to_owned()).collect();
    let runs: Vec<_> = found
        .iter()
        .map(|run| json!({ "run_id": run.id(), "run_name": run.text("run_name"), "experiment_id": run.text("experiment_id") }))
        .collect();
    render(&json!({
        "name": name,
        "digest": digest,
        "runs": runs,
        "runs_in_all": found.matched(),
        "models": versions_of_runs(&ids)?,
    }))
}

/// An answer of ours, which may be a tree: it is small.
pub fn render(value: &Value) -> Outcome<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Failure::new(Code::InternalError, error.to_string()))
}
