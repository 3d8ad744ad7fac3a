//! What went into a run and what came out: datasets, logged models.
//!
//! A dataset's description (its schema can be long) is kept once an experiment under the digest of its identity; a run
//! holds only references, in its document, so that a page of runs reads each dataset once. The run's own key beside it
//! is the guard: two clients that log inputs at once both end up in the list.

use crate::errors::{Code, Failure, Outcome};
use crate::json::{self, Object};
use crate::store::{self, change, indexes};
use crate::wire::{Args, Field, Kind, member, member_integer, optional, required};
use crate::{runs, validate};
use mainstay_sdk::index::{DocumentRef, Field as Write, Value};
use mainstay_sdk::{Transaction, keys};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Bytes that stand for a dataset's identity.
const IDENTITY_BYTES: usize = 16;
/// Most datasets, and most models in or out, of one run.
const ITEMS_MAX: usize = 1_000;
/// The tag of an input that says what it was used for.
const CONTEXT_TAG: &str = "mlflow.data.context";

const LIMITS: &[(&str, usize, bool)] = &[
    ("name", 500, true),
    ("digest", 36, true),
    ("source_type", 36, true),
    ("source", 65_535, true),
    ("schema", 1_048_575, false),
    ("profile", 1_048_575, false),
];

/// What a run's key `inputs` holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Held {
    datasets: Vec<HeldDataset>,
    model_inputs: Vec<String>,
    model_outputs: Vec<(String, i64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeldDataset {
    identity: [u8; IDENTITY_BYTES],
    name: String,
    digest: String,
    context: Option<String>,
    /// `[{"key":…,"value":…}]`, ready to be sent.
    tags: String,
}

/// A dataset in a request, checked.
struct Dataset<'a> {
    name: &'a str,
    digest: &'a str,
    identity: [u8; IDENTITY_BYTES],
    json: Vec<u8>,
    context: Option<&'a str>,
    tags: Vec<u8>,
}

fn identity(name: &str, digest: &str) -> [u8; IDENTITY_BYTES] {
    let mut hash = Sha256::new();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(digest);
    let mut out = [0; IDENTITY_BYTES];
    out.copy_from_slice(&hash.finalize()[..IDENTITY_BYTES]);
    out
}

fn dataset<'a>(item: &'a serde_json::Map<String, serde_json::Value>, path: &str) -> Outcome<Dataset<'a>> {
    let Some(dataset) = item.get("dataset").and_then(serde_json::Value::as_object) else {
        return Err(Failure::invalid("Dataset cannot be None"));
    };
    let mut texts = [None; 6];
    for (slot, (field, limit, is_required)) in texts.iter_mut().zip(LIMITS) {
        *slot = member(dataset, field, &format!("{path}.dataset.{field}"))?;
        match *slot {
            Some(text) => validate::length(field, *limit, text)?,
            None if *is_required => return Err(Failure::invalid(format!("Dataset {field} cannot be None"))),
            None => {}
        }
    }
    let json = json::object(|o| {
        for ((field, ..), text) in LIMITS.iter().zip(texts) {
            o.maybe_text(field, text);
        }
    });
    let mut tags = Vec::new();
    let mut context = None;
    for tag in item.get("tags").and_then(serde_json::Value::as_array).into_iter().flatten() {
        let empty = serde_json::Map::new();
        let tag = tag.as_object().unwrap_or(&empty);
        let Some(key) = member(tag, "key", &format!("{path}.tags.key"))? else {
            return Err(Failure::invalid("InputTag key cannot be None"));
        };
        let value = member(tag, "value", &format!("{path}.tags.value"))?.unwrap_or("");
        validate::length("key", 255, key)?;
        validate::length("value", 500, value)?;
        if key == CONTEXT_TAG {
            context = item_context(item);
        }
        tags.push(if tags.is_empty() { b'[' } else { b',' });
        Object::new(&mut tags).text("key", key).text("value", value).end();
    }
    if !tags.is_empty() {
        tags.push(b']');
    }
    let (name, digest) = (texts[0].unwrap_or(""), texts[1].unwrap_or(""));
    Ok(Dataset { name, digest, identity: identity(name, digest), json, context, tags })
}

fn item_context(item: &serde_json::Map<String, serde_json::Value>) -> Option<&str> {
    let tags = item.get("tags")?.as_array()?;
    tags.iter().find(|tag| tag["key"] == CONTEXT_TAG)?.get("value")?.as_str()
}

fn held(run_id: &str) -> Outcome<Held> {
    Ok(keys::get_json(store::inputs_key(run_id))?.unwrap_or_default())
}

fn write(tx: &Transaction, run_id: &str, held: &Held) -> Outcome<()> {
    let too_many = |what: &str, count: usize| {
        if count > ITEMS_MAX {
            return Err(Failure::invalid(format!("Run {run_id} would have {count} {what}, more than {ITEMS_MAX}.")));
        }
        Ok(())
    };
    too_many("datasets", held.datasets.len())?;
    too_many("model inputs", held.model_inputs.len())?;
    too_many("model outputs", held.model_outputs.len())?;
    tx.put_json(store::inputs_key(run_id), held)?;
    let mut packed = Vec::new();
    for dataset in &held.datasets {
        packed.extend_from_slice(&dataset.identity);
        packed.extend_from_slice(&(dataset.tags.len() as u32).to_le_bytes());
        packed.extend_from_slice(dataset.tags.as_bytes());
    }
    let mut fields = vec![runs::activity()];
    let texts = |name: &str, of: &dyn Fn(&HeldDataset) -> Option<String>| {
        let texts: Vec<String> = held.datasets.iter().filter_map(of).collect();
        (!texts.is_empty()).then(|| Write::new(name, texts))
    };
    fields.extend(texts("dataset.name", &|d| Some(d.name.clone())));
    fields.extend(texts("dataset.digest", &|d| Some(d.digest.clone())));
    fields.extend(texts("dataset.context", &|d| d.context.clone()));
    if !packed.is_empty() {
        fields.push(Write::new("io.datasets", Value::Bytes(packed)));
    }
    if !held.model_inputs.is_empty() {
        let mut out = Vec::new();
        for id in &held.model_inputs {
            out.push(if out.is_empty() { b'[' } else { b',' });
            Object::new(&mut out).text("model_id", id).end();
        }
        out.push(b']');
        fields.push(Write::new("io.model_inputs", Value::Bytes(out)));
    }
    if !held.model_outputs.is_empty() {
        let mut out = Vec::new();
        for (id, step) in &held.model_outputs {
            out.push(if out.is_empty() { b'[' } else { b',' });
            Object::new(&mut out).text("model_id", id).integer("step", *step).end();
        }
        out.push(b']');
        fields.push(Write::new("io.model_outputs", Value::Bytes(out)));
    }
    Ok(tx.index(indexes::RUNS).set(run_id, fields)?)
}

const LOG_INPUTS: &[Field] =
    &[required("run_id", Kind::Text), optional("datasets", Kind::List), optional("models", Kind::List)];

/// `runs/log-inputs`
pub fn log_inputs(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(LOG_INPUTS)?;
    let run_id = args.text_or_empty("run_id");
    validate::run_id(run_id)?;
    let mut datasets = Vec::new();
    for (at, item) in args.objects("datasets").enumerate() {
        datasets.push(dataset(item, &format!("datasets[{at}]"))?);
    }
    let models = model_ids(&args)?;
    change(|tx| {
        let place = runs::guard_active(tx, run_id)?;
        let mut held = held(run_id)?;
        tx.expect_unchanged(store::inputs_key(run_id))?;
        for dataset in &datasets {
            if held.datasets.iter().any(|known| known.identity == dataset.identity) {
                continue;
            }
            // The first description of a dataset in an experiment stays.
            let key = store::dataset_key(&place.experiment_id, &dataset.identity);
            if keys::get(&key)?.is_none() {
                tx.put(&key, &dataset.json)?;
            }
            held.datasets.push(HeldDataset {
                identity: dataset.identity,
                name: dataset.name.to_owned(),
                digest: dataset.digest.to_owned(),
                context: dataset.context.map(str::to_owned),
                tags: String::from_utf8_lossy(&dataset.tags).into_owned(),
            });
        }
        for (id, _) in &models {
            if !held.model_inputs.contains(id) {
                held.model_inputs.push(id.clone());
            }
        }
        write(tx, run_id, &held)
    })?;
    Ok(b"{}".to_vec())
}

/// `runs/outputs`
pub fn log_outputs(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("run_id", Kind::Text), required("models", Kind::List)])?;
    let run_id = args.text_or_empty("run_id");
    validate::run_id(run_id)?;
    let models = model_ids(&args)?;
    change(|tx| {
        runs::guard_active(tx, run_id)?;
        let mut held = held(run_id)?;
        tx.expect_unchanged(store::inputs_key(run_id))?;
        for model in &models {
            if !held.model_outputs.contains(model) {
                held.model_outputs.push(model.clone());
            }
        }
        write(tx, run_id, &held)
    })?;
    Ok(b"{}".to_vec())
}

fn model_ids(args: &Args) -> Outcome<Vec<(String, i64)>> {
    let mut out = Vec::new();
    for (at, item) in args.objects("models").enumerate() {
        let path = format!("models[{at}].model_id");
        let id = member(item, "model_id", &path)?
            .filter(|id| !id.is_empty())
            .ok_or_else(|| validate::missing_value(&path))?;
        validate::length("model_id", 256, id)?;
        out.push((id.to_owned(), member_integer(item, "step", &format!("models[{at}].step"))?.unwrap_or(0)));
    }
    Ok(out)
}

/// Name and digest of each dataset that went into a run.
pub fn datasets_of(run_id: &str) -> Outcome<Vec<(String, String)>> {
    Ok(held(run_id)?.datasets.into_iter().map(|dataset| (dataset.name, dataset.digest)).collect())
}

/// Descriptions of the datasets that some runs refer to.
pub struct Datasets(HashMap<(String, [u8; IDENTITY_BYTES]), Vec<u8>>);

impl Datasets {
    /// Those of these documents: no call to the host where there are none, one otherwise.
    pub fn of<'a>(documents: impl IntoIterator<Item = DocumentRef<'a>>) -> Outcome<Self> {
        let mut wanted = Vec::new();
        for document in documents {
            let Some(packed) = document.bytes("io.datasets") else { continue };
            let experiment = document.text("experiment_id").unwrap_or("");
            each_reference(packed, |identity, _| wanted.push((experiment.to_owned(), identity)))?;
        }
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let names: Vec<_> =
            wanted.iter().map(|(experiment, identity)| store::dataset_key(experiment, identity)).collect();
        let found = keys::get_many(&names)?;
        Ok(Self(wanted.into_iter().zip(found).filter_map(|(name, json)| Some((name, json?))).collect()))
    }

    /// Write the member `dataset_inputs`, if the run has any.
    pub fn write(&self, out: &mut Vec<u8>, experiment: &str, packed: &[u8]) {
        if packed.is_empty() {
            return;
        }
        out.extend_from_slice(b"\"dataset_inputs\":[");
        let mut first = true;
        // Damage was reported when the references were collected.
        let _ = each_reference(packed, |identity, tags| {
            if !first {
                out.push(b',');
            }
            first = false;
            out.push(b'{');
            if !tags.is_empty() {
                out.extend_from_slice(b"\"tags\":");
                out.extend_from_slice(tags);
                out.push(b',');
            }
            out.extend_from_slice(b"\"dataset\":");
            match self.0.get(&(experiment.to_owned(), identity)) {
                Some(json) => out.extend_from_slice(json),
                None => out.extend_from_slice(b"{}"),
            }
            out.push(b'}');
        });
        out.push(b']');
    }
}

fn each_reference(mut packed: &[u8], mut each: impl FnMut([u8; IDENTITY_BYTES], &[u8])) -> Outcome<()> {
    let damaged =
        || Failure::new(Code::InternalError, "a run's list of datasets is damaged; check the host's data folder");
    while !packed.is_empty() {
        let (identity, rest) = packed.split_first_chunk::<IDENTITY_BYTES>().ok_or_else(damaged)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (tags, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        each(*identity, tags);
        packed = rest;
    }
    Ok(())
}

/// `experiments/search-datasets`
pub fn search_datasets(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[optional("experiment_ids", Kind::Texts)])?;
    let ids = args.texts("experiment_ids");
    if ids.is_empty() {
        return Err(Failure::invalid("SearchDatasets request must specify at least one experiment_id."));
    }
    if ids.len() > 20 {
        return Err(Failure::invalid(format!(
            "SearchDatasets request cannot specify more than 20 experiment_ids. Received {} experiment_ids.",
            ids.len()
        )));
    }
    let mut summaries = std::collections::BTreeSet::new();
    for id in &ids {
        let id = validate::experiment_id(id)?;
        collect_summaries(&id, &mut summaries)?;
    }
    let rows = summaries.iter().take(1_000);
    Ok(json::object(|o| {
        o.list("dataset_summaries", rows, |out, (experiment, name, digest, context)| {
            let mut row = Object::new(out);
            row.text("experiment_id", experiment).text("name", name).text("digest", digest);
            row.maybe_text("context", context.as_deref()).end();
        });
    }))
}

type Summary = (String, String, String, Option<String>);

fn collect_summaries(experiment: &str, out: &mut std::collections::BTreeSet<Summary>) -> Outcome<()> {
    use mainstay_sdk::index::{Query, field, select};
    let mut after = None;
    loop {
        let query = Query::new()
            .filter(field("experiment_id").equal(experiment) & field("dataset.name").exists())
            .fields(Vec::<String>::new())
            .limit(10_000)
            .after(after.take());
        let part = select(indexes::RUNS, &query)?;
        let names: Vec<_> = part.iter().map(|run| store::inputs_key(run.id())).collect();
        for bytes in keys::get_many(&names)?.into_iter().flatten() {
            let held: Held = serde_json::from_slice(&bytes)
                .map_err(|e| Failure::new(Code::InternalError, format!("a run's list of inputs is damaged: {e}")))?;
            out.extend(held.datasets.into_iter().map(|d| (experiment.to_owned(), d.name, d.digest, d.context)));
        }
        after = part.next().map(<[u8]>::to_vec);
        if after.is_none() {
            return Ok(());
        }
    }
}
