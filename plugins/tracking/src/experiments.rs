//! Experiments: named groups of runs.
//!
//! Owns their records, names and tags. Names are unique through a key that must be absent: two clients that create the
//! same experiment at once get one experiment and one refusal. Deleting marks the experiment first and its runs after,
//! in bounded steps; a note of what is unfinished lets `start` finish it after a crash.

use crate::errors::{Code, Failure, Outcome};
use crate::json::{self, Object};
use crate::paging::{self, Search};
use crate::search::plan::Fingerprint;
use crate::search::{Entity, filter, order, plan};
use crate::store::{self, Lifecycle, Place, change, indexes};
use crate::validate;
use crate::wire::{Args, Field, Kind, optional, required};
use mainstay_sdk::index::{self, DocumentRef, Field as Write, field};
use mainstay_sdk::{Transaction, clock, keys};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The experiment that is always there.
pub const DEFAULT_ID: &str = "0";
/// Runs that one step of a cascade changes.
const CASCADE_STEP: u32 = 1_000;

/// Which lifecycle stages a search shows.
pub const VIEW_TYPES: &[(&str, i64)] = &[("ACTIVE_ONLY", 1), ("DELETED_ONLY", 2), ("ALL", 3)];

/// What is kept of an experiment beside its document: what creating a run has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Where artifacts of its runs go.
    pub artifact_location: String,
    /// Whether it is deleted.
    pub is_deleted: bool,
}

/// Make sure that the default experiment exists and that no cascade is left half done.
pub fn start() -> Outcome<()> {
    renew_counter()?;
    if keys::get(store::experiment_key(DEFAULT_ID))?.is_none() {
        change(|tx| match keys::get(store::experiment_key(DEFAULT_ID))? {
            Some(_) => Ok(()),
            None => write_new(tx, DEFAULT_ID, "Default", None, &[]),
        })?;
    }
    for entry in keys::scan(store::cascades_prefix().prefix()) {
        let entry = entry?;
        let state: CascadeState = serde_json::from_slice(&entry.value).map_err(|e| {
            Failure::new(Code::InternalError, format!("a stored note of an unfinished deletion is damaged: {e}"))
        })?;
        cascade(&state)?;
    }
    Ok(())
}

/// The first builds kept the counter of ids as JSON digits, which no counter of the host looks like.
fn renew_counter() -> Outcome<()> {
    let key = store::experiment_counter_key;
    let is_digits = |value: &Vec<u8>| value.iter().all(u8::is_ascii_digit);
    let Some(digits) = keys::get(key())?.filter(is_digits) else { return Ok(()) };
    let last: i64 = String::from_utf8_lossy(&digits).parse().map_err(|error| {
        Failure::new(Code::InternalError, format!("the stored counter of experiments is damaged: {error}"))
    })?;
    change(|tx| {
        tx.expect_value(key(), &digits)?;
        Ok(tx.put(key(), last.to_le_bytes())?)
    })?;
    keys::renew()?;
    Ok(())
}

/// An experiment's record.
pub fn record(id: &str) -> Outcome<Record> {
    let found = keys::get_json(store::experiment_key(id))?;
    found.ok_or_else(|| Failure::missing(format!("No Experiment with id={id} exists")))
}

/// Refuse to write to a deleted experiment.
pub fn must_be_active(id: &str, record: &Record) -> Outcome<()> {
    if record.is_deleted {
        return Err(Failure::invalid(format!(
            "The experiment {id} must be in the 'active' state. Current state is deleted."
        )));
    }
    Ok(())
}

fn write_new(
    tx: &Transaction,
    id: &str,
    name: &str,
    artifact_location: Option<&str>,
    tags: &[(&str, &str)],
) -> Outcome<()> {
    let now = clock::now_ms();
    let artifact_location = match artifact_location {
        Some(given) => given.to_owned(),
        None => format!("mlflow-artifacts:/{id}"),
    };
    tx.expect_absent(store::experiment_key(id))?;
    tx.expect_absent(store::experiment_name_key(name))?;
    tx.put(store::experiment_name_key(name), id)?;
    let number: i64 = id.parse().map_err(|_| Failure::new(Code::InternalError, "an experiment id is not a number"))?;
    let mut fields = vec![
        Write::new("id", number),
        Write::new("name", name),
        Write::new("artifact_location", &artifact_location),
        Write::new("lifecycle_stage", Lifecycle::Active.word()),
        Write::new("creation_time", now),
        Write::new("last_update_time", now),
    ];
    fields.extend(tags.iter().map(|(key, value)| Write::new(format!("tags.{key}"), *value)));
    tx.put_json(store::experiment_key(id), &Record { name: name.to_owned(), artifact_location, is_deleted: false })?;
    tx.index(indexes::EXPERIMENTS).set(id, fields)?;
    Ok(())
}

const CREATE: &[Field] =
    &[required("name", Kind::Text), optional("artifact_location", Kind::Text), optional("tags", Kind::List)];

/// `experiments/create`
pub fn create(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(CREATE)?;
    let name = args.text_or_empty("name");
    validate::experiment_name(name)?;
    let location = args.text("artifact_location");
    location.map(validate::artifact_location).transpose()?;
    let tags = args.pairs("tags")?;
    tags.iter().try_for_each(|(key, value)| validate::experiment_tag(key, value))?;
    must_be_new(name)?;
    let id = next_id()?;
    change(|tx| {
        must_be_new(name)?;
        write_new(tx, &id, name, location, &tags)
    })?;
    Ok(json::object(|o| {
        o.text("experiment_id", &id);
    }))
}

/// An id that no experiment ever had. A counter of its own, so that two that are created at once do not meet; one that
/// then fails leaves a gap.
fn next_id() -> Outcome<String> {
    let ((), receipt) = change(|tx| Ok(tx.add(store::experiment_counter_key(), 1)?))?;
    keys::renew()?;
    receipt
        .counters
        .first()
        .map(i64::to_string)
        .ok_or_else(|| Failure::new(Code::InternalError, "the host added to a counter and did not say what it is now"))
}

fn must_be_new(name: &str) -> Outcome<()> {
    match keys::get(store::experiment_name_key(name))? {
        Some(taken) => Err(already_exists(name, &String::from_utf8_lossy(&taken))),
        None => Ok(()),
    }
}

fn already_exists(name: &str, id: &str) -> Failure {
    let deleted = record(id).is_ok_and(|r| r.is_deleted);
    let hint = if deleted { " It is deleted: restore it, or rename or remove it, to use the name again." } else { "" };
    Failure::new(Code::ResourceAlreadyExists, format!("Experiment(name={name}) already exists.{hint}"))
}

/// Write an experiment as the client reads it.
pub fn write(out: &mut Vec<u8>, document: &DocumentRef<'_>) {
    let mut object = Object::new(out);
    object
        .text("experiment_id", document.id())
        .text("name", document.text("name").unwrap_or(""))
        .text("artifact_location", document.text("artifact_location").unwrap_or(""))
        .text("lifecycle_stage", document.text("lifecycle_stage").unwrap_or(""))
        .maybe_integer("last_update_time", document.integer("last_update_time"))
        .maybe_integer("creation_time", document.integer("creation_time"))
        .pairs("tags", document.fields_under("tags.").filter_map(|f| Some((f.name, f.value.as_text()?))));
    object.end();
}

fn answer(id: &str) -> Outcome<Vec<u8>> {
    let document = index::document(indexes::EXPERIMENTS, id)?
        .ok_or_else(|| Failure::missing(format!("No Experiment with id={id} exists")))?;
    let mut out = b"{\"experiment\":".to_vec();
    write(&mut out, &document.as_ref());
    out.push(b'}');
    Ok(out)
}

const BY_ID: &[Field] = &[required("experiment_id", Kind::Text)];

/// `experiments/get`
pub fn get(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(BY_ID)?;
    answer(&validate::experiment_id(args.text_or_empty("experiment_id"))?)
}

/// `experiments/get-by-name`
pub fn get_by_name(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("experiment_name", Kind::Text)])?;
    let name = args.text_or_empty("experiment_name");
    match keys::get(store::experiment_name_key(name))? {
        Some(id) => answer(&String::from_utf8_lossy(&id)),
        None => Err(Failure::missing(format!("Could not find experiment with name '{name}'"))),
    }
}

/// Fields of `experiments/search`.
pub const SEARCH: &[Field] = &[
    optional("view_type", Kind::Word(VIEW_TYPES)),
    optional("max_results", Kind::Integer),
    optional("order_by", Kind::Texts),
    optional("filter", Kind::Text),
    optional("page_token", Kind::Text),
];

/// `experiments/search`
pub fn search(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(SEARCH)?;
    let rows = validate::page_rows(args.integer("max_results"), 1_000, validate::PAGE_ROWS_MAX)?;
    let text = args.text_or_empty("filter");
    let clauses = filter::parse(Entity::Experiment, text)?;
    let keys = order::parse(Entity::Experiment, &args.texts("order_by"))?;
    let view = args.integer("view_type").unwrap_or(1);
    let scope = plan::filter(Entity::Experiment, &clauses)? & paging::stage(view);
    let fingerprint = Fingerprint::of(
        ["experiments", text, &view.to_string()].into_iter().chain(args.texts("order_by").iter().map(String::as_str)),
    );
    let search = Search { index: indexes::EXPERIMENTS, filter: scope, order: keys, rows, fingerprint };
    search.answer("experiments", args.text("page_token"), write)
}

const UPDATE: &[Field] = &[required("experiment_id", Kind::Text), required("new_name", Kind::Text)];

/// `experiments/update`: give it another name.
pub fn update(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(UPDATE)?;
    let id = validate::experiment_id(args.text_or_empty("experiment_id"))?;
    let name = args.text_or_empty("new_name");
    validate::experiment_name(name)?;
    change(|tx| {
        let mut old = record(&id)?;
        if old.is_deleted {
            return Err(Failure::invalid("Cannot rename a non-active experiment."));
        }
        if old.name == name {
            return Ok(());
        }
        must_be_new(name)?;
        tx.expect_unchanged(store::experiment_key(&id))?;
        tx.expect_absent(store::experiment_name_key(name))?;
        tx.delete(store::experiment_name_key(&old.name))?;
        tx.put(store::experiment_name_key(name), &id)?;
        old.name = name.to_owned();
        tx.put_json(store::experiment_key(&id), &old)?;
        let fields = [Write::new("name", name), Write::new("last_update_time", clock::now_ms())];
        Ok(tx.index(indexes::EXPERIMENTS).set(&id, fields)?)
    })?;
    Ok(b"{}".to_vec())
}

/// `experiments/delete`
pub fn delete(args: Args, by: &str) -> Outcome<Vec<u8>> {
    set_stage(args, by, Lifecycle::Deleted)
}

/// `experiments/restore`
pub fn restore(args: Args, by: &str) -> Outcome<Vec<u8>> {
    set_stage(args, by, Lifecycle::Active)
}

fn set_stage(args: Args, by: &str, stage: Lifecycle) -> Outcome<Vec<u8>> {
    let args = args.checked(BY_ID)?;
    let id = validate::experiment_id(args.text_or_empty("experiment_id"))?;
    let state = CascadeState { experiment_id: id.clone(), deleting: stage == Lifecycle::Deleted, by: by.to_owned() };
    change(|tx| {
        let mut record = record(&id)?;
        if record.is_deleted == state.deleting {
            // Active ones cannot be restored, deleted ones not deleted: neither is found there.
            return Err(Failure::missing(format!("No Experiment with id={id} exists")));
        }
        record.is_deleted = state.deleting;
        tx.expect_unchanged(store::experiment_key(&id))?;
        tx.put_json(store::experiment_key(&id), &record)?;
        tx.put_json(store::cascade_key(&id), &state)?;
        let now = clock::now_ms();
        let deleted = if state.deleting { Write::new("deleted_time", now) } else { Write::removed("deleted_time") };
        let fields = [Write::new("lifecycle_stage", stage.word()), Write::new("last_update_time", now), deleted];
        Ok(tx.index(indexes::EXPERIMENTS).set(&id, fields)?)
    })?;
    cascade(&state)?;
    Ok(b"{}".to_vec())
}

/// A deletion or restoration whose runs may not all be done.
#[derive(Debug, Serialize, Deserialize)]
struct CascadeState {
    experiment_id: String,
    deleting: bool,
    /// Who asked for it; notes of earlier versions do not say.
    #[serde(default)]
    by: String,
}

/// Give every run of an experiment the experiment's stage.
fn cascade(state: &CascadeState) -> Outcome<()> {
    let (from, to) =
        if state.deleting { (Lifecycle::Active, Lifecycle::Deleted) } else { (Lifecycle::Deleted, Lifecycle::Active) };
    let place = Place { lifecycle: to, experiment_id: state.experiment_id.clone() };
    let step = |tx: &Transaction| {
        let query = index::Query::new()
            .filter(field("experiment_id").equal(&state.experiment_id) & field("lifecycle_stage").equal(from.word()))
            .fields(Vec::<String>::new())
            .limit(CASCADE_STEP);
        let runs = index::select(indexes::RUNS, &query)?;
        for run in runs.iter() {
            // A run that somebody deletes, restores or removes meanwhile is looked at again.
            tx.expect_unchanged(store::run_key(run.id()))?;
            crate::runs::move_to_stage(tx, run.id(), &place, &state.by, json!({"with_experiment": true}))?;
        }
        Ok(!runs.is_empty())
    };
    loop {
        keys::renew()?;
        if !change(step)?.0 {
            break;
        }
    }
    change(|tx| Ok(tx.delete(store::cascade_key(&state.experiment_id))?))?;
    Ok(())
}

const SET_TAG: &[Field] =
    &[required("experiment_id", Kind::Text), required("key", Kind::Text), optional("value", Kind::Text)];

/// `experiments/set-experiment-tag`
pub fn set_tag(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(SET_TAG)?;
    let id = validate::experiment_id(args.text_or_empty("experiment_id"))?;
    let (key, value) = (args.text_or_empty("key"), args.text_or_empty("value"));
    validate::experiment_tag(key, value)?;
    write_tag(&id, || Ok(Write::new(format!("tags.{key}"), value)))
}

/// `experiments/delete-experiment-tag`
pub fn delete_tag(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("experiment_id", Kind::Text), required("key", Kind::Text)])?;
    let id = validate::experiment_id(args.text_or_empty("experiment_id"))?;
    let key = args.text_or_empty("key");
    let name = format!("tags.{key}");
    write_tag(&id, || {
        let document = index::document(indexes::EXPERIMENTS, &id)?;
        if document.is_none_or(|d| d.as_ref().get(&name).is_none()) {
            return Err(Failure::missing(format!("No tag with name: {key} in experiment with id {id}")));
        }
        Ok(Write::removed(&name))
    })
}

fn write_tag(id: &str, tag: impl Fn() -> Outcome<Write>) -> Outcome<Vec<u8>> {
    change(|tx| {
        must_be_active(id, &record(id)?)?;
        tx.expect_unchanged(store::experiment_key(id))?;
        Ok(tx.index(indexes::EXPERIMENTS).set(id, [tag()?])?)
    })?;
    Ok(b"{}".to_vec())
}
