//! Runs: their life, their params and tags, and how they are written for the client.
//!
//! A run is one document: `runs/get` and a page of `runs/search` are one call to the index each, and the latest values
//! of metrics stand in it because a ranked write keeps the newest. Logging reads one small key (is the run there, is it
//! active) and commits one transaction guarded on it, so that nothing is written to a run that is deleted meanwhile. What
//! changes how a run stands (its status, whether it is deleted) writes that key too: such changes meet, and are told exactly.

use crate::errors::{Failure, Outcome};
use crate::events;
use crate::experiments::{self, VIEW_TYPES};
use crate::inputs::Datasets;
use crate::json::{self, Object};
use crate::paging::{self, Search};
use crate::search::plan::Fingerprint;
use crate::search::{Entity, filter, order, plan};
use crate::store::{self, Lifecycle, Place, change, indexes};
use crate::wire::{Args, Field, Kind, optional, required};
use crate::{names, settings, stale, validate};
use mainstay_sdk::index::{self, DocumentRef, Field as Write, field};
use mainstay_sdk::{Transaction, clock, keys, random};
use serde_json::json;

/// The tag that mirrors a run's name.
pub const NAME_TAG: &str = "mlflow.runName";

/// The tag that names the run that this one is a part of.
pub const PARENT_TAG: &str = "mlflow.parentRunId";

/// Length of the ids that this server gives to runs.
pub const ID_BYTES: usize = 32;

/// What a run can be doing.
pub const STATUSES: &[(&str, i64)] = &[("RUNNING", 1), ("SCHEDULED", 2), ("FINISHED", 3), ("FAILED", 4), ("KILLED", 5)];

/// What is told when a run's status becomes this.
fn kind_of(status: &str) -> &'static str {
    match status {
        "SCHEDULED" => "run-scheduled",
        "FINISHED" => "run-finished",
        "FAILED" => "run-failed",
        "KILLED" => "run-killed",
        _ => "run-resumed",
    }
}

/// Where a run belongs and whether it may be written.
pub fn place(run_id: &str) -> Outcome<Place> {
    match keys::get(store::run_key(run_id))? {
        Some(bytes) => Place::decode(&bytes),
        None => Err(not_found(run_id)),
    }
}

/// A refusal.
pub fn not_found(run_id: &str) -> Failure {
    Failure::missing(format!("Run with id={run_id} not found"))
}

/// Read a run's key, refuse a deleted run, and guard the transaction on both.
pub fn guard_active(tx: &Transaction, run_id: &str) -> Outcome<Place> {
    let place = place(run_id)?;
    if place.lifecycle != Lifecycle::Active {
        return Err(Failure::invalid(format!(
            "The run {run_id} must be in the 'active' state. Current state is deleted."
        )));
    }
    tx.expect_unchanged(store::run_key(run_id))?;
    Ok(place)
}

/// Fields that say that a run is in a stage.
pub fn stage_fields(stage: Lifecycle) -> [Write; 2] {
    let deleted = match stage {
        Lifecycle::Deleted => Write::new("deleted_time", clock::now_ms()),
        Lifecycle::Active => Write::removed("deleted_time"),
    };
    [Write::new("lifecycle_stage", stage.word()), deleted]
}

/// Marks a run as written to just now: how a run whose client died is told from one at work.
pub fn activity() -> Write {
    Write::new("updated", clock::now_ms())
}

const CREATE: &[Field] = &[
    optional("experiment_id", Kind::Text),
    optional("user_id", Kind::Text),
    optional("start_time", Kind::Integer),
    optional("run_name", Kind::Text),
    optional("tags", Kind::List),
];

/// `runs/create`
pub fn create(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(CREATE)?;
    let experiment_id = validate::experiment_id(args.text("experiment_id").unwrap_or(experiments::DEFAULT_ID))?;
    let truncate = settings::get()?.truncate_long_values;
    let mut tags: Vec<(&str, &str)> = Vec::new();
    for (at, (key, value)) in args.pairs("tags")?.into_iter().enumerate() {
        let value = validate::run_tag(&format!("tags[{at}]"), key, value, truncate)?;
        tags.retain(|(known, _)| *known != key);
        tags.push((key, value));
    }
    let name_tag = tags.iter().find(|(key, value)| *key == NAME_TAG && !value.is_empty()).map(|(_, value)| *value);
    let name = match (args.text("run_name"), name_tag) {
        (Some(name), Some(tag)) if name != tag => {
            return Err(Failure::invalid(format!(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
                 (run_name='{name}', mlflow.runName='{tag}')."
            )));
        }
        (Some(name), _) => validate::run_tag("run_name", NAME_TAG, name, truncate)?.to_owned(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => names::from_number(random::number()),
    };
    tags.retain(|(key, _)| *key != NAME_TAG);
    tags.push((NAME_TAG, &name));
    let user = args.text_or_empty("user_id");
    let start_time = args.integer("start_time").unwrap_or_else(clock::now_ms);
    let run_id = random::id();
    let (artifact_uri, _) = change(|tx| {
        let experiment = experiments::record(&experiment_id)?;
        experiments::must_be_active(&experiment_id, &experiment)?;
        tx.expect_unchanged(store::experiment_key(&experiment_id))?;
        let artifact_uri = format!("{}/{run_id}/artifacts", experiment.artifact_location.trim_end_matches('/'));
        let place = Place { lifecycle: Lifecycle::Active, experiment_id: experiment_id.clone() };
        tx.put(store::run_key(&run_id), place.encode())?;
        let mut fields = vec![
            Write::new("experiment_id", &experiment_id),
            Write::new("run_name", &name),
            Write::new("user_id", user),
            Write::new("status", "RUNNING"),
            Write::new("start_time", start_time),
            Write::new("artifact_uri", &artifact_uri),
            Write::new("lifecycle_stage", Lifecycle::Active.word()),
            activity(),
        ];
        fields.extend(tags.iter().map(|(key, value)| Write::new(format!("tags.{key}"), *value)));
        tx.index(indexes::RUNS).set(&run_id, fields)?;
        let parent = tags.iter().find(|(key, _)| *key == PARENT_TAG).map(|(_, value)| *value);
        let what = json!({"run_name": name, "user_id": user, "start_time": start_time, "parent_run_id": parent});
        events::of_run(tx, "run-created", &run_id, &experiment_id, by, what)?;
        Ok(artifact_uri)
    })?;
    Ok(json::object(|o| {
        o.object("run", |run| {
            run.object("info", |info| {
                info.text("run_uuid", &run_id)
                    .text("run_id", &run_id)
                    .text("run_name", &name)
                    .text("experiment_id", &experiment_id)
                    .text("user_id", user)
                    .text("status", "RUNNING")
                    .integer("start_time", start_time)
                    .text("artifact_uri", &artifact_uri)
                    .text("lifecycle_stage", Lifecycle::Active.word());
            });
            run.object("data", |data| {
                data.pairs("tags", tags.iter().copied());
            });
            run.object("inputs", |_| ());
        });
    }))
}

/// What of a run's document is not metrics, params or tags.
#[derive(Clone, Copy, Default)]
struct Info<'a> {
    artifact_uri: Option<&'a str>,
    end_time: Option<i64>,
    experiment_id: &'a str,
    lifecycle_stage: &'a str,
    run_name: Option<&'a str>,
    start_time: i64,
    status: &'a str,
    user_id: &'a str,
    datasets: &'a [u8],
    model_inputs: &'a [u8],
    model_outputs: &'a [u8],
}

impl<'a> Info<'a> {
    fn take(&mut self, field: &index::FieldRef<'a>) {
        let text = field.value.as_text();
        let bytes = field.value.as_bytes().unwrap_or(&[]);
        match field.name {
            "artifact_uri" => self.artifact_uri = text,
            "end_time" => self.end_time = field.value.as_integer().filter(|time| *time != 0),
            "experiment_id" => self.experiment_id = text.unwrap_or(""),
            "lifecycle_stage" => self.lifecycle_stage = text.unwrap_or(""),
            "run_name" => self.run_name = text,
            "start_time" => self.start_time = field.value.as_integer().unwrap_or(0),
            "status" => self.status = text.unwrap_or(""),
            "user_id" => self.user_id = text.unwrap_or(""),
            "io.datasets" => self.datasets = bytes,
            "io.model_inputs" => self.model_inputs = bytes,
            "io.model_outputs" => self.model_outputs = bytes,
            _ => {}
        }
    }

    fn write(&self, out: &mut Vec<u8>, run_id: &str) {
        let mut object = Object::new(out);
        object
            .text("run_uuid", run_id)
            .text("run_id", run_id)
            .maybe_text("run_name", self.run_name)
            .text("experiment_id", self.experiment_id)
            .text("user_id", self.user_id)
            .text("status", self.status)
            .integer("start_time", self.start_time)
            .maybe_integer("end_time", self.end_time)
            .maybe_text("artifact_uri", self.artifact_uri)
            .text("lifecycle_stage", self.lifecycle_stage)
            .end();
    }
}

/// Writes runs; keeps its buffers from one to the next.
#[derive(Default)]
pub struct Writer {
    metrics: Vec<u8>,
    params: Vec<u8>,
    tags: Vec<u8>,
}

impl Writer {
    /// One run as the client reads it, in one pass over its document.
    pub fn write(&mut self, out: &mut Vec<u8>, document: &DocumentRef<'_>, datasets: &Datasets) {
        let info = self.sort_fields(document);
        out.extend_from_slice(b"{\"info\":");
        info.write(out, document.id());
        out.extend_from_slice(b",\"data\":{");
        let mut first = true;
        for (name, part) in [("metrics", &self.metrics), ("params", &self.params), ("tags", &self.tags)] {
            if part.is_empty() {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(format!("\"{name}\":[").as_bytes());
            out.extend_from_slice(part);
            out.push(b']');
        }
        out.extend_from_slice(b"},\"inputs\":{");
        datasets.write(out, info.experiment_id, info.datasets);
        if !info.model_inputs.is_empty() {
            if !info.datasets.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(b"\"model_inputs\":");
            out.extend_from_slice(info.model_inputs);
        }
        out.extend_from_slice(b"},\"outputs\":{");
        if !info.model_outputs.is_empty() {
            out.extend_from_slice(b"\"model_outputs\":");
            out.extend_from_slice(info.model_outputs);
        }
        out.extend_from_slice(b"}}");
    }

    fn sort_fields<'a>(&mut self, document: &DocumentRef<'a>) -> Info<'a> {
        self.metrics.clear();
        self.params.clear();
        self.tags.clear();
        let mut info = Info::default();
        for field in document.fields() {
            if let Some(key) = field.name.strip_prefix("metrics.") {
                let (step, timestamp) = field.rank.unwrap_or((0, 0));
                separate(&mut self.metrics);
                Object::new(&mut self.metrics)
                    .text("key", key)
                    .real("value", field.value.as_real().unwrap_or(f64::NAN))
                    .integer("timestamp", timestamp)
                    .integer("step", step)
                    .end();
            } else if let Some(key) = field.name.strip_prefix("params.") {
                pair(&mut self.params, key, field.value.as_text().unwrap_or(""));
            } else if let Some(key) = field.name.strip_prefix("tags.") {
                pair(&mut self.tags, key, field.value.as_text().unwrap_or(""));
            } else {
                info.take(&field);
            }
        }
        info
    }
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
}

fn pair(out: &mut Vec<u8>, key: &str, value: &str) {
    separate(out);
    Object::new(out).text("key", key).text("value", value).end();
}

const BY_ID: &[Field] = &[required("run_id", Kind::Text)];

/// `runs/get`
pub fn get(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(BY_ID)?;
    let run_id = args.text_or_empty("run_id");
    let document = index::document(indexes::RUNS, run_id)?.ok_or_else(|| not_found(run_id))?;
    let document = document.as_ref();
    let datasets = Datasets::of([document])?;
    let mut out = b"{\"run\":".to_vec();
    Writer::default().write(&mut out, &document, &datasets);
    out.push(b'}');
    Ok(out)
}

const SEARCH: &[Field] = &[
    optional("experiment_ids", Kind::Texts),
    optional("filter", Kind::Text),
    optional("run_view_type", Kind::Word(VIEW_TYPES)),
    optional("max_results", Kind::Integer),
    optional("order_by", Kind::Texts),
    optional("page_token", Kind::Text),
];

/// `runs/search`
pub fn search(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(SEARCH)?;
    let rows = validate::page_rows(args.integer("max_results"), 1_000, validate::PAGE_ROWS_MAX)?;
    let text = args.text_or_empty("filter");
    let orders = args.texts("order_by");
    let clauses = filter::parse(Entity::Run, text)?;
    let order = order::parse(Entity::Run, &orders)?;
    let view = args.integer("run_view_type").unwrap_or(1);
    let mut experiment_ids = Vec::new();
    for id in args.texts("experiment_ids") {
        experiment_ids.push(validate::experiment_id(&id)?);
    }
    let fingerprint = Fingerprint::of(
        ["runs", text, &view.to_string()]
            .into_iter()
            .chain(experiment_ids.iter().map(String::as_str))
            .chain(["order"])
            .chain(orders.iter().map(String::as_str)),
    );
    let scope = field("experiment_id").one_of(experiment_ids) & paging::stage(view);
    let filter = scope & plan::filter(Entity::Run, &clauses)?;
    let search = Search { index: indexes::RUNS, filter, order, rows, fingerprint };
    let mut writer = Writer::default();
    search.answer_in_parts("runs", args.text("page_token"), |out, part| {
        let datasets = Datasets::of(part.iter())?;
        for (at, document) in part.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            writer.write(out, &document, &datasets);
        }
        Ok(())
    })
}

const UPDATE: &[Field] = &[
    required("run_id", Kind::Text),
    optional("end_time", Kind::Integer),
    optional("status", Kind::Word(STATUSES)),
    optional("run_name", Kind::Text),
];

/// `runs/update`
pub fn update(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(UPDATE)?;
    let run_id = args.text_or_empty("run_id");
    let status =
        args.integer("status").and_then(|n| STATUSES.iter().find(|(_, number)| *number == n)).map(|(word, _)| *word);
    let end_time = args.integer("end_time");
    let name = match args.text("run_name") {
        Some(name) => Some(validate::run_tag("run_name", NAME_TAG, name, settings::get()?.truncate_long_values)?),
        None => None,
    };
    let (document, _) = change(|tx| {
        let place = guard_active(tx, run_id)?;
        let document = index::document(indexes::RUNS, run_id)?.ok_or_else(|| not_found(run_id))?;
        let mut fields = vec![activity()];
        if let Some(status) = status {
            let before = document.as_ref().text("status").unwrap_or("").to_owned();
            let end_time = end_time.or(document.as_ref().integer("end_time"));
            set_status(tx, run_id, &place, (&before, status), by, json!({"end_time": end_time}))?;
            fields.push(Write::new("status", status));
            // Whoever says how the run stands knows better than the timer that took its client for dead.
            fields.extend(stale::forgotten());
        }
        fields.extend(end_time.map(|time| Write::new("end_time", time)));
        fields.extend(name.into_iter().flat_map(name_fields));
        tx.index(indexes::RUNS).set(run_id, fields)?;
        Ok(document)
    })?;
    let document = document.as_ref();
    let mut info = Info::default();
    document.fields().for_each(|field| info.take(&field));
    info.status = status.unwrap_or(info.status);
    info.end_time = end_time.filter(|time| *time != 0).or(info.end_time);
    info.run_name = name.or(info.run_name);
    let mut out = b"{\"run_info\":".to_vec();
    info.write(&mut out, run_id);
    out.push(b'}');
    Ok(out)
}

/// Tell that a run's status changes, and let changes of one run's status meet. The transaction must be guarded on the key.
pub fn set_status(
    tx: &Transaction,
    run_id: &str,
    place: &Place,
    (from, to): (&str, &str),
    by: &str,
    mut what: serde_json::Value,
) -> Outcome<()> {
    tx.put(store::run_key(run_id), place.encode())?;
    if from == to {
        return Ok(());
    }
    what["from"] = from.into();
    what["to"] = to.into();
    events::of_run(tx, kind_of(to), run_id, &place.experiment_id, by, what)
}

fn name_fields(name: &str) -> [Write; 2] {
    [Write::new("run_name", name), Write::new(format!("tags.{NAME_TAG}"), name)]
}

/// `runs/delete`: recoverable, see `removal`.
pub fn delete(args: Args, by: &str) -> Outcome<Vec<u8>> {
    set_stage(args, by, Lifecycle::Deleted)
}

/// `runs/restore`
pub fn restore(args: Args, by: &str) -> Outcome<Vec<u8>> {
    set_stage(args, by, Lifecycle::Active)
}

fn set_stage(args: Args, by: &str, stage: Lifecycle) -> Outcome<Vec<u8>> {
    let args = args.checked(BY_ID)?;
    let run_id = args.text_or_empty("run_id");
    change(|tx| {
        let mut place = place(run_id)?;
        if place.lifecycle == stage {
            return Ok(());
        }
        place.lifecycle = stage;
        tx.expect_unchanged(store::run_key(run_id))?;
        move_to_stage(tx, run_id, &place, by, json!({}))
    })?;
    Ok(b"{}".to_vec())
}

/// Delete or restore a run, and tell of it. The transaction must be guarded on the run's key.
pub fn move_to_stage(tx: &Transaction, run_id: &str, place: &Place, by: &str, what: serde_json::Value) -> Outcome<()> {
    tx.put(store::run_key(run_id), place.encode())?;
    tx.index(indexes::RUNS).set(run_id, stage_fields(place.lifecycle))?;
    let kind = if place.lifecycle == Lifecycle::Deleted { "run-deleted" } else { "run-restored" };
    events::of_run(tx, kind, run_id, &place.experiment_id, by, what)
}

const SET_TAG: &[Field] = &[required("run_id", Kind::Text), required("key", Kind::Text), optional("value", Kind::Text)];

/// `runs/set-tag`
pub fn set_tag(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(SET_TAG)?;
    let (run_id, key) = (args.text_or_empty("run_id"), args.text_or_empty("key"));
    let value = validate::run_tag("", key, args.text_or_empty("value"), settings::get()?.truncate_long_values)?;
    change(|tx| {
        guard_active(tx, run_id)?;
        Ok(tx.index(indexes::RUNS).set(run_id, tag_fields(key, value).into_iter().chain([activity()]))?)
    })?;
    Ok(b"{}".to_vec())
}

/// Fields that a tag sets: the tag that mirrors the name renames the run too, and cannot make the name empty.
pub fn tag_fields(key: &str, value: &str) -> Vec<Write> {
    match (key, value) {
        (NAME_TAG, "") => Vec::new(),
        (NAME_TAG, name) => name_fields(name).into(),
        _ => vec![Write::new(format!("tags.{key}"), value)],
    }
}

/// `runs/delete-tag`
pub fn delete_tag(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("run_id", Kind::Text), required("key", Kind::Text)])?;
    let (run_id, key) = (args.text_or_empty("run_id"), args.text_or_empty("key"));
    let name = format!("tags.{key}");
    change(|tx| {
        guard_active(tx, run_id)?;
        let document = index::document(indexes::RUNS, run_id)?;
        if document.is_none_or(|d| d.as_ref().get(&name).is_none()) {
            return Err(Failure::missing(format!("No tag with name: {key} in run with id {run_id}")));
        }
        Ok(tx.index(indexes::RUNS).set(run_id, [Write::removed(&name), activity()])?)
    })?;
    Ok(b"{}".to_vec())
}
