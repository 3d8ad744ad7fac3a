//! Logged models: what a run produced, before anyone registered it.
//!
//! A logged model is one document, as a run is. Its metrics come from runs that name it when they log: every row is a
//! fragment under the model, and the document holds, for each metric (and each dataset it was measured on), the latest,
//! the largest and the smallest value, which is what searching and ordering need.

use crate::errors::{Failure, Outcome};
use crate::experiments;
use crate::history::{self, Point};
use crate::json::{self, Object};
use crate::paging::Search;
use crate::search::filter::{Op, Value as Operand};
use crate::search::plan::{self, Fingerprint};
use crate::search::{Entity, Family, filter, order};
use crate::store::{self, Lifecycle, Place, change, indexes};
use crate::wire::{Args, Field, Kind, member, optional, required};
use crate::{names, validate};
use mainstay_sdk::index::{self, DocumentRef, Field as Write, Filter, Selection, field};
use mainstay_sdk::{Transaction, clock, keys, random};
use std::collections::{BTreeMap, HashMap};

/// States of a logged model; the index keeps the part behind `LOGGED_MODEL_`.
const STATUSES: &[(&str, i64)] = &[
    ("LOGGED_MODEL_STATUS_UNSPECIFIED", 0),
    ("LOGGED_MODEL_PENDING", 1),
    ("LOGGED_MODEL_READY", 2),
    ("LOGGED_MODEL_UPLOAD_FAILED", 3),
];
/// Most rows of metrics that an answer shows of one model.
const METRIC_ROWS_MAX: usize = 10_000;

/// One value of a metric that was measured on a logged model.
#[derive(Clone, Copy, Debug)]
pub struct ModelMetric<'a> {
    /// The model.
    pub model_id: &'a str,
    /// The metric.
    pub key: &'a str,
    /// Its value.
    pub point: Point,
    /// The dataset that it was measured on.
    pub dataset_name: Option<&'a str>,
    /// That dataset's digest.
    pub dataset_digest: Option<&'a str>,
}

fn scoped(prefix: &str, metric: &str, dataset: Option<&str>, digest: Option<&str>) -> String {
    match (dataset, digest) {
        (None, _) => format!("{prefix}.{metric}"),
        (Some(dataset), None) => format!("{prefix}.{metric}\u{1f}{dataset}"),
        (Some(dataset), Some(digest)) => format!("{prefix}.{metric}\u{1f}{dataset}\u{1f}{digest}"),
    }
}

/// The field of a metric's latest value, on a dataset if one is named.
pub fn latest_field(metric: &str, dataset: Option<&str>, digest: Option<&str>) -> String {
    scoped("metrics", metric, dataset, digest)
}

/// The field of its largest value.
pub fn largest_field(metric: &str, dataset: Option<&str>, digest: Option<&str>) -> String {
    scoped("largest", metric, dataset, digest)
}

/// The field of its smallest value, negated.
pub fn smallest_field(metric: &str, dataset: Option<&str>, digest: Option<&str>) -> String {
    scoped("smallest", metric, dataset, digest)
}

/// Add metrics of logged models to a transaction that logs them to a run. Models that are not there are passed over, as
/// the reference server does: the run's own metric counts.
pub fn collect_metrics(
    tx: &Transaction,
    run_id: &str,
    experiment_id: &str,
    metrics: &[ModelMetric<'_>],
) -> Outcome<()> {
    if metrics.is_empty() {
        return Ok(());
    }
    let mut by_model: BTreeMap<&str, Vec<&ModelMetric<'_>>> = BTreeMap::new();
    for metric in metrics {
        by_model.entry(metric.model_id).or_default().push(metric);
    }
    let ids: Vec<_> = by_model.keys().map(|id| store::logged_model_key(id)).collect();
    let known = keys::get_many(&ids)?;
    for ((model_id, metrics), known) in by_model.into_iter().zip(known) {
        if known.is_none() {
            continue;
        }
        tx.expect_unchanged(store::logged_model_key(model_id))?;
        let mut fields = Vec::new();
        let mut by_source: BTreeMap<_, Vec<(&str, Point)>> = BTreeMap::new();
        for metric in &metrics {
            by_source.entry((metric.dataset_name, metric.dataset_digest)).or_default().push((metric.key, metric.point));
            fields.extend(metric_fields(metric));
            if let Some(dataset) = metric.dataset_name {
                // Marks that something was measured on the dataset, whatever the metric.
                fields.push(Write::new(format!("on.{dataset}"), true));
                if let Some(digest) = metric.dataset_digest {
                    fields.push(Write::new(format!("on.{dataset}\u{1f}{digest}"), true));
                }
            }
        }
        for ((dataset, digest), points) in by_source {
            let source = serde_json::json!([run_id, experiment_id, dataset, digest]).to_string();
            let mut fragment = (source.len() as u32).to_le_bytes().to_vec();
            fragment.extend_from_slice(source.as_bytes());
            fragment.extend_from_slice(&history::fragment(points));
            tx.append(store::logged_model_metrics_key(model_id), fragment)?;
        }
        tx.index(indexes::LOGGED_MODELS).set(model_id, fields)?;
    }
    Ok(())
}

fn metric_fields(metric: &ModelMetric<'_>) -> Vec<Write> {
    let Point { timestamp, step, value } = metric.point;
    let mut out = Vec::new();
    let mut add = |dataset: Option<&str>, digest: Option<&str>| {
        out.push(Write::new(latest_field(metric.key, dataset, digest), value).rank(timestamp, step));
        out.push(Write::new(largest_field(metric.key, dataset, digest), value).rank(0, 0));
        out.push(Write::new(smallest_field(metric.key, dataset, digest), -value).rank(0, 0));
    };
    add(None, None);
    if let Some(dataset) = metric.dataset_name {
        add(Some(dataset), None);
        if let Some(digest) = metric.dataset_digest {
            add(Some(dataset), Some(digest));
        }
    }
    out
}

/// One stored row of a model's metrics.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    key: String,
    point: Point,
    run_id: String,
    dataset: Option<String>,
    digest: Option<String>,
}

/// Rows of the metrics of several models, by model.
fn metric_rows(ids: &[&str]) -> Outcome<HashMap<String, Vec<Row>>> {
    let mut out: HashMap<String, Vec<Row>> = HashMap::new();
    let prefixes: Vec<_> = ids.iter().map(|id| store::logged_model_metrics_key(id)).collect();
    for (chunk, ids) in prefixes.chunks(5_000).zip(ids.chunks(5_000)) {
        let ranges = chunk.iter().map(mainstay_sdk::Key::prefix).collect();
        for entry in keys::scan_ranges(ranges) {
            let entry = entry?;
            let found = chunk.iter().position(|prefix| entry.key.starts_with(prefix.as_bytes()));
            let Some(id) = found.map(|at| ids[at]) else { continue };
            read_rows(&entry.value, out.entry(id.to_owned()).or_default())?;
        }
    }
    for rows in out.values_mut() {
        rows.sort_by(|a, b| {
            (&a.key, a.point.by_time(), &a.dataset, &a.run_id).cmp(&(&b.key, b.point.by_time(), &b.dataset, &b.run_id))
        });
        rows.dedup_by(|a, b| {
            (&a.key, a.point.by_time(), &a.run_id, &a.dataset, &a.digest)
                == (&b.key, b.point.by_time(), &b.run_id, &b.dataset, &b.digest)
        });
        rows.truncate(METRIC_ROWS_MAX);
    }
    Ok(out)
}

fn read_rows(fragment: &[u8], rows: &mut Vec<Row>) -> Outcome<()> {
    let damaged =
        || Failure::new(crate::errors::Code::InternalError, "a stored fragment of a logged model's metrics is damaged");
    let (length, rest) = fragment.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (source, points) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
    let (run_id, _, dataset, digest): (String, String, Option<String>, Option<String>) =
        serde_json::from_slice(source).map_err(|_| damaged())?;
    history::all_points(points, |key, point| {
        rows.push(Row {
            key: key.to_owned(),
            point,
            run_id: run_id.clone(),
            dataset: dataset.clone(),
            digest: digest.clone(),
        });
    })
}

fn not_found(id: &str) -> Failure {
    Failure::missing(format!("Logged model with ID '{id}' not found."))
}

const CREATE: &[Field] = &[
    required("experiment_id", Kind::Text),
    optional("name", Kind::Text),
    optional("model_type", Kind::Text),
    optional("source_run_id", Kind::Text),
    optional("params", Kind::List),
    optional("tags", Kind::List),
];

/// `POST logged-models`
pub fn create(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(CREATE)?;
    let experiment_id = validate::experiment_id(args.text_or_empty("experiment_id"))?;
    let name = match args.text("name") {
        Some(name) => {
            validate::logged_model_name(name)?;
            name.to_owned()
        }
        None => names::from_number(random::number()),
    };
    let (params, tags) = (args.pairs("params")?, args.pairs("tags")?);
    check_params(&params)?;
    check_tags(&tags)?;
    let id = format!("m-{}", random::id());
    let now = clock::now_ms();
    change(|tx| {
        let experiment = experiments::record(&experiment_id)?;
        experiments::must_be_active(&experiment_id, &experiment)?;
        tx.expect_unchanged(store::experiment_key(&experiment_id))?;
        let place = Place { lifecycle: Lifecycle::Active, experiment_id: experiment_id.clone() };
        tx.put(store::logged_model_key(&id), place.encode())?;
        let root = experiment.artifact_location.trim_end_matches('/');
        let mut fields = vec![
            Write::new("experiment_id", &experiment_id),
            Write::new("name", &name),
            Write::new("artifact_uri", format!("{root}/models/{id}/artifacts")),
            Write::new("creation_timestamp_ms", now),
            Write::new("last_updated_timestamp_ms", now),
            Write::new("model_type", args.text_or_empty("model_type")),
            Write::new("source_run_id", args.text_or_empty("source_run_id")),
            Write::new("status", "PENDING"),
            Write::new("lifecycle_stage", Lifecycle::Active.word()),
        ];
        fields.extend(params.iter().map(|(key, value)| Write::new(format!("params.{key}"), *value)));
        fields.extend(tags.iter().map(|(key, value)| Write::new(format!("tags.{key}"), *value)));
        Ok(tx.index(indexes::LOGGED_MODELS).set(&id, fields)?)
    })?;
    answer(&id, false)
}

fn check_params(params: &[(&str, &str)]) -> Outcome<()> {
    params.iter().try_for_each(|(key, value)| {
        validate::key_name("key", key)?;
        validate::length("Param key", validate::KEY_CHARS_MAX, key)?;
        validate::length("Param value", validate::PARAM_VALUE_CHARS_MAX, value)
    })
}

fn check_tags(tags: &[(&str, &str)]) -> Outcome<()> {
    tags.iter().try_for_each(|(key, value)| validate::registry_tag(key, value))
}

/// Write a logged model as the client reads it.
fn write(out: &mut Vec<u8>, document: &DocumentRef<'_>, rows: &[Row]) {
    let text = |name: &str| document.text(name).unwrap_or("");
    let pairs = |prefix| document.fields_under(prefix).filter_map(|f| Some((f.name, f.value.as_text()?)));
    let mut object = Object::new(out);
    object.object("info", |info| {
        info.text("model_id", document.id())
            .text("experiment_id", text("experiment_id"))
            .text("name", text("name"))
            .integer("creation_timestamp_ms", document.integer("creation_timestamp_ms").unwrap_or(0))
            .integer("last_updated_timestamp_ms", document.integer("last_updated_timestamp_ms").unwrap_or(0))
            .text("artifact_uri", text("artifact_uri"))
            .text("status", &format!("LOGGED_MODEL_{}", text("status")))
            .text("model_type", text("model_type"))
            .text("source_run_id", text("source_run_id"))
            .pairs("tags", pairs("tags."));
    });
    object.object("data", |data| {
        data.pairs("params", pairs("params."));
        data.list("metrics", rows, |out, row| {
            let mut metric = Object::new(out);
            metric
                .text("key", &row.key)
                .real("value", row.point.value)
                .integer("timestamp", row.point.timestamp)
                .integer("step", row.point.step)
                .maybe_text("dataset_name", row.dataset.as_deref())
                .maybe_text("dataset_digest", row.digest.as_deref())
                .text("model_id", document.id())
                .text("run_id", &row.run_id)
                .end();
        });
    });
    object.end();
}

fn answer(id: &str, allow_deleted: bool) -> Outcome<Vec<u8>> {
    let document = index::document(indexes::LOGGED_MODELS, id)?.ok_or_else(|| not_found(id))?;
    let document = document.as_ref();
    if !allow_deleted && document.text("lifecycle_stage") == Some(Lifecycle::Deleted.word()) {
        return Err(not_found(id));
    }
    let rows = if has_metrics(&document) { metric_rows(&[id])?.remove(id).unwrap_or_default() } else { Vec::new() };
    let mut out = b"{\"model\":".to_vec();
    write(&mut out, &document, &rows);
    out.push(b'}');
    Ok(out)
}

fn has_metrics(document: &DocumentRef<'_>) -> bool {
    document.fields_under("metrics.").next().is_some()
}

/// `GET logged-models/{id}`
pub fn get(id: &str, allow_deleted: bool) -> Outcome<Vec<u8>> {
    answer(id, allow_deleted)
}

/// A logged model's document; deleted ones are not found.
pub fn document(id: &str) -> Outcome<index::Document> {
    let document = index::document(indexes::LOGGED_MODELS, id)?.ok_or_else(|| not_found(id))?;
    if document.as_ref().text("lifecycle_stage") == Some(Lifecycle::Deleted.word()) {
        return Err(not_found(id));
    }
    Ok(document)
}

/// Change a logged model's document, guarded on the model's being there.
fn set(id: &str, fields: impl Fn() -> Outcome<Vec<Write>>) -> Outcome<()> {
    change(|tx| {
        let key = store::logged_model_key(id);
        keys::get(&key)?.ok_or_else(|| not_found(id))?;
        tx.expect_unchanged(&key)?;
        Ok(tx.index(indexes::LOGGED_MODELS).set(id, fields()?)?)
    })?;
    Ok(())
}

/// `PATCH logged-models/{id}`
pub fn finalize(id: &str, args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[optional("model_id", Kind::Text), required("status", Kind::Word(STATUSES))])?;
    let status = args.integer("status").unwrap_or(0);
    let word = STATUSES.iter().find(|(_, number)| *number == status).map_or("", |(word, _)| *word);
    let word = word.strip_prefix("LOGGED_MODEL_").unwrap_or(word);
    if status == 0 {
        return Err(Failure::invalid("Invalid model status: LOGGED_MODEL_STATUS_UNSPECIFIED"));
    }
    let now = clock::now_ms();
    set(id, || Ok(vec![Write::new("status", word), Write::new("last_updated_timestamp_ms", now)]))?;
    answer(id, true)
}

/// `DELETE logged-models/{id}`
pub fn delete(id: &str) -> Outcome<Vec<u8>> {
    let now = clock::now_ms();
    set(id, || {
        Ok(vec![
            Write::new("lifecycle_stage", Lifecycle::Deleted.word()),
            Write::new("deleted_time", now),
            Write::new("last_updated_timestamp_ms", now),
        ])
    })?;
    Ok(b"{}".to_vec())
}

/// `PATCH logged-models/{id}/tags`
pub fn set_tags(id: &str, args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[optional("tags", Kind::List)])?;
    let tags = args.pairs("tags")?;
    check_tags(&tags)?;
    set(id, || Ok(tags.iter().map(|(key, value)| Write::new(format!("tags.{key}"), *value)).collect()))?;
    Ok(b"{}".to_vec())
}

/// `DELETE logged-models/{id}/tags/{key}`
pub fn delete_tag(id: &str, key: &str) -> Outcome<Vec<u8>> {
    let name = format!("tags.{key}");
    set(id, || {
        let document = index::document(indexes::LOGGED_MODELS, id)?.ok_or_else(|| not_found(id))?;
        if document.as_ref().get(&name).is_none() {
            return Err(Failure::missing(format!("No tag with key '{key}' found for model with ID '{id}'.")));
        }
        Ok(vec![Write::removed(&name)])
    })?;
    Ok(b"{}".to_vec())
}

/// `POST logged-models/{id}/params`
pub fn log_params(id: &str, args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[optional("model_id", Kind::Text), optional("params", Kind::List)])?;
    let params = args.pairs("params")?;
    check_params(&params)?;
    set(id, || {
        let document = index::document(indexes::LOGGED_MODELS, id)?.ok_or_else(|| not_found(id))?;
        let mut fields = Vec::new();
        for (key, value) in &params {
            let name = format!("params.{key}");
            match document.as_ref().text(&name) {
                Some(old) if old != *value => {
                    return Err(Failure::invalid(format!(
                        "Changing param values is not allowed. Param with key='{key}' was already logged with \
                         value='{old}' for model ID='{id}'. Attempted logging new value '{value}'."
                    )));
                }
                Some(_) => {}
                None => fields.push(Write::new(name, *value)),
            }
        }
        Ok(fields)
    })?;
    Ok(b"{}".to_vec())
}

const SEARCH: &[Field] = &[
    required("experiment_ids", Kind::Texts),
    optional("filter", Kind::Text),
    optional("datasets", Kind::List),
    optional("max_results", Kind::Integer),
    optional("order_by", Kind::List),
    optional("page_token", Kind::Text),
];

/// `POST logged-models/search`
pub fn search(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(SEARCH)?;
    let rows = validate::page_rows(args.integer("max_results").filter(|rows| *rows != 0), 50, validate::PAGE_ROWS_MAX)?;
    let mut experiment_ids = Vec::new();
    for id in args.texts("experiment_ids") {
        experiment_ids.push(validate::experiment_id(&id)?);
    }
    let mut datasets = Vec::new();
    for item in args.objects("datasets") {
        let name = member(item, "dataset_name", "datasets.dataset_name")?.filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Err(Failure::invalid("`dataset_name` in the `datasets` clause must be specified."));
        };
        datasets.push((name, member(item, "dataset_digest", "datasets.dataset_digest")?.filter(|d| !d.is_empty())));
    }
    let mut orders = Vec::new();
    for item in args.objects("order_by") {
        let text =
            |name: &str| Ok::<_, Failure>(member(item, name, name)?.filter(|t| !t.is_empty()).map(str::to_owned));
        let Some(field_name) = text("field_name")? else {
            return Err(Failure::invalid("`field_name` in the `order_by` clause must be specified."));
        };
        let ascending = item.get("ascending").and_then(serde_json::Value::as_bool).unwrap_or(true);
        orders.push((field_name, ascending, text("dataset_name")?, text("dataset_digest")?));
    }
    let text = args.text_or_empty("filter");
    let clauses = filter::parse(Entity::LoggedModel, text)?;
    let order = order::logged_models(&orders)?;
    let described = format!("{datasets:?}{orders:?}");
    let fingerprint = Fingerprint::of(
        ["logged-models", text, &described].into_iter().chain(experiment_ids.iter().map(String::as_str)),
    );
    let filter = field("experiment_id").one_of(experiment_ids)
        & field("lifecycle_stage").equal(Lifecycle::Active.word())
        & on_datasets(&clauses, &datasets)?;
    let search = Search { index: indexes::LOGGED_MODELS, filter, order, rows, fingerprint };
    search.answer_in_parts("models", args.text("page_token"), write_part)
}

/// Metric conditions apply to the named datasets, if any; without metric conditions, something must have been measured
/// on one of them.
fn on_datasets(clauses: &[filter::Clause], datasets: &[(&str, Option<&str>)]) -> Outcome<Filter> {
    if datasets.is_empty() {
        return plan::filter(Entity::LoggedModel, clauses);
    }
    let (metrics, others): (Vec<_>, Vec<_>) = clauses.iter().cloned().partition(|c| c.key.family == Family::Metric);
    let mut parts = vec![plan::filter(Entity::LoggedModel, &others)?];
    for clause in &metrics {
        debug_assert!(!matches!(clause.op, Op::In) && !matches!(clause.value, Operand::None));
        let each = datasets.iter().map(|dataset| plan::any_metric(&clause.key.name, Some(*dataset), clause));
        parts.push(Filter::any(each));
    }
    if metrics.is_empty() {
        parts.push(Filter::any(datasets.iter().map(|(name, digest)| match digest {
            Some(digest) => field(format!("on.{name}\u{1f}{digest}")).exists(),
            None => field(format!("on.{name}")).exists(),
        })));
    }
    Ok(Filter::all(parts))
}

fn write_part(out: &mut Vec<u8>, part: &Selection) -> Outcome<()> {
    let measured: Vec<_> = part.iter().filter(has_metrics).map(|document| document.id()).collect();
    let rows = if measured.is_empty() { HashMap::new() } else { metric_rows(&measured)? };
    for (at, document) in part.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, &document, rows.get(document.id()).map_or(&[], Vec::as_slice));
    }
    Ok(())
}

/// Put the tag that lists the registered versions of a logged model.
pub fn tag_registered(tx: &Transaction, id: &str, name: &str, version: i64) -> Outcome<()> {
    const TAG: &str = "mlflow.modelVersions";
    let document = document(id)?;
    let mut versions: Vec<serde_json::Value> = document
        .as_ref()
        .text(&format!("tags.{TAG}"))
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let entry = serde_json::json!({ "name": name, "version": version });
    if !versions.contains(&entry) {
        versions.push(entry);
    }
    // Written, not only guarded: two registrations at once must not lose one another's entry.
    let place = keys::get(store::logged_model_key(id))?.ok_or_else(|| not_found(id))?;
    tx.expect_unchanged(store::logged_model_key(id))?;
    tx.put(store::logged_model_key(id), place)?;
    let list = serde_json::Value::Array(versions).to_string();
    Ok(tx.index(indexes::LOGGED_MODELS).set(id, [Write::new(format!("tags.{TAG}"), list)])?)
}

/// `GET logged-models/{id}/artifacts/directories`: see `artifacts`.
pub fn artifact_root(id: &str) -> Outcome<String> {
    Ok(document(id)?.as_ref().text("artifact_uri").unwrap_or("").to_owned())
}

/// An empty answer.
pub fn nothing() -> Vec<u8> {
    json::object(|_| ())
}
