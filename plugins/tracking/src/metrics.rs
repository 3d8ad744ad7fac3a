//! Logging metrics, params and tags, and reading the history of metrics.
//!
//! Owns the hottest path: one small read, one commit. Everything is checked before anything is written, a batch is
//! written whole or not at all, and a request sent twice leaves what it left once: equal rows of a history are one row,
//! a ranked write of the same value changes nothing, a param with the same value is fine.

use crate::errors::{Failure, Outcome};
use crate::history::{self, Page, Point};
use crate::json::{self, Object};
use crate::models::{self, ModelMetric};
use crate::search::plan::{Fingerprint, cursor, page_token};
use crate::store::{self, change, indexes};
use crate::wire::{Args, Field, Kind, optional, required};
use crate::{runs, settings, validate};
use mainstay_sdk::index::Field as Write;
use mainstay_sdk::{Transaction, keys};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Rows of a history that are answered without paging.
const UNPAGED_ROWS_MAX: usize = 250_000;
/// Most rows of a page of history.
const PAGE_ROWS_MAX: i64 = 250_000;
/// Most rows of a bulk answer.
const BULK_ROWS_MAX: i64 = 25_000;
/// Most runs of a bulk question.
const BULK_RUNS_MAX: usize = 100;
/// Most rows a run in a sampled answer.
const INTERVAL_ROWS_MAX: i64 = 2_500;

/// A double as number or text.
struct Real(f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Real;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_f64<E>(self, value: f64) -> Result<Real, E> {
                Ok(Real(value))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Real, E> {
                Ok(Real(f64::from(u8::from(value))))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Real, E> {
                Ok(Real(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Real, E> {
                Ok(Real(value as f64))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Real, E> {
                crate::wire::real_text(value).map(Real).ok_or_else(|| E::custom("not a number"))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A whole number as number or text.
struct Whole(i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Whole, E> {
                i64::try_from(value).map(Whole).map_err(E::custom)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Whole, E> {
                let exact = value.fract() == 0.0 && value.abs() < 9.0e15;
                if exact { Ok(Whole(value as i64)) } else { Err(E::custom("not a whole number")) }
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Whole, E> {
                value.trim().parse().map(Whole).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Text that stays in the request's body where it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

fn text<'t>(text: &'t Option<Text<'_>>) -> &'t str {
    text.as_ref().map_or("", |text| &text.0)
}

fn given<'t>(value: &'t Option<Text<'_>>) -> Option<&'t str> {
    Some(text(value)).filter(|text| !text.is_empty())
}

#[derive(Deserialize)]
struct MetricIn<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    value: Option<Real>,
    timestamp: Option<Whole>,
    step: Option<Whole>,
    #[serde(borrow)]
    model_id: Option<Text<'a>>,
    #[serde(borrow)]
    dataset_name: Option<Text<'a>>,
    #[serde(borrow)]
    dataset_digest: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct PairIn<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// `runs/log-batch`, read without building a tree.
#[derive(Deserialize)]
struct BatchIn<'a> {
    #[serde(borrow)]
    run_id: Option<Text<'a>>,
    #[serde(borrow)]
    run_uuid: Option<Text<'a>>,
    #[serde(borrow)]
    metrics: Option<Vec<MetricIn<'a>>>,
    #[serde(borrow)]
    params: Option<Vec<PairIn<'a>>>,
    #[serde(borrow)]
    tags: Option<Vec<PairIn<'a>>>,
}

/// What is to be logged to one run, checked.
#[derive(Default)]
struct Batch<'a> {
    metrics: Vec<(&'a str, Point)>,
    model_metrics: Vec<ModelMetric<'a>>,
    params: Vec<(&'a str, &'a str)>,
    tags: Vec<(&'a str, &'a str)>,
    /// A single param's refusal is worded otherwise than a batch's.
    is_single: bool,
}

impl<'a> Batch<'a> {
    fn metric(&mut self, path: &str, metric: &'a MetricIn<'_>) -> Outcome<()> {
        let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let key = text(&metric.key);
        let (Some(Real(value)), Some(Whole(timestamp))) = (&metric.value, &metric.timestamp) else {
            let missing = if metric.value.is_none() { "value" } else { "timestamp" };
            return Err(validate::missing_value(&at(missing)));
        };
        validate::metric(path, key, *value, *timestamp)?;
        let step = metric.step.as_ref().map_or(0, |step| step.0);
        let point = Point { timestamp: *timestamp, step, value: validate::stored_metric(*value) };
        self.metrics.push((key, point));
        if let Some(model_id) = given(&metric.model_id) {
            self.model_metrics.push(ModelMetric {
                model_id,
                key,
                point,
                dataset_name: given(&metric.dataset_name),
                dataset_digest: given(&metric.dataset_digest),
            });
        }
        Ok(())
    }

    /// Write it, whole or not at all.
    fn log(&self, run_id: &str) -> Outcome<()> {
        let mut attempts = 0;
        change(|tx| {
            attempts += 1;
            let place = runs::guard_active(tx, run_id)?;
            let mut fields = Vec::with_capacity(self.metrics.len() + self.params.len() + self.tags.len() + 2);
            fields.push(runs::activity());
            self.collect_params(tx, run_id, attempts > 1, &mut fields)?;
            if !self.metrics.is_empty() {
                tx.append(store::history_key(run_id), history::fragment(self.metrics.iter().copied()))?;
            }
            fields.extend(self.metrics.iter().map(|(key, point)| {
                Write::new(format!("metrics.{key}"), point.value).rank(point.step, point.timestamp)
            }));
            models::collect_metrics(tx, run_id, &place.experiment_id, &self.model_metrics)?;
            fields.extend(self.tags.iter().flat_map(|(key, value)| runs::tag_fields(key, value)));
            tx.index(indexes::RUNS).set(run_id, fields)?;
            Ok(())
        })?;
        Ok(())
    }

    /// The first attempt bets that no param is there yet; only when that fails are they read.
    fn collect_params(&self, tx: &Transaction, run_id: &str, look: bool, fields: &mut Vec<Write>) -> Outcome<()> {
        let known = if look && !self.params.is_empty() {
            let names: Vec<_> = self.params.iter().map(|(key, _)| store::param_key(run_id, key)).collect();
            keys::get_many(&names)?
        } else {
            vec![None; self.params.len()]
        };
        let mut changed = Vec::new();
        for ((key, value), known) in self.params.iter().zip(known) {
            match known {
                None => {
                    let name = store::param_key(run_id, key);
                    tx.expect_absent(&name)?;
                    tx.put(&name, value)?;
                    fields.push(Write::new(format!("params.{key}"), *value));
                }
                Some(old) if old == value.as_bytes() => {}
                Some(old) => changed.push((*key, String::from_utf8_lossy(&old).into_owned(), *value)),
            }
        }
        match changed.first() {
            None => Ok(()),
            Some((key, old, new)) if self.is_single => Err(Failure::invalid(format!(
                "Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' for \
                 run ID='{run_id}'. Attempted logging new value '{new}'."
            ))),
            Some(_) => {
                let listed: Vec<_> = changed
                    .iter()
                    .map(|(key, old, new)| format!("{{'key': '{key}', 'old_value': '{old}', 'new_value': '{new}'}}"))
                    .collect();
                Err(Failure::invalid(format!(
                    "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{run_id}'.",
                    listed.join(", ")
                )))
            }
        }
    }
}

const LOG_METRIC: &[Field] = &[
    required("run_id", Kind::Text),
    required("key", Kind::Text),
    required("value", Kind::Real),
    required("timestamp", Kind::Integer),
    optional("step", Kind::Integer),
    optional("model_id", Kind::Text),
    optional("dataset_name", Kind::Text),
    optional("dataset_digest", Kind::Text),
];

/// `runs/log-metric`
pub fn log_metric(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(LOG_METRIC)?;
    let metric = MetricIn {
        key: args.text("key").map(|text| Text(Cow::Borrowed(text))),
        value: args.real("value").map(Real),
        timestamp: args.integer("timestamp").map(Whole),
        step: args.integer("step").map(Whole),
        model_id: args.text("model_id").map(|text| Text(Cow::Borrowed(text))),
        dataset_name: args.text("dataset_name").map(|text| Text(Cow::Borrowed(text))),
        dataset_digest: args.text("dataset_digest").map(|text| Text(Cow::Borrowed(text))),
    };
    let mut batch = Batch::default();
    batch.metric("", &metric)?;
    batch.log(args.text_or_empty("run_id"))?;
    Ok(b"{}".to_vec())
}

const LOG_PARAM: &[Field] =
    &[required("run_id", Kind::Text), required("key", Kind::Text), optional("value", Kind::Text)];

/// `runs/log-parameter`
pub fn log_param(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(LOG_PARAM)?;
    let key = args.text_or_empty("key");
    let value = validate::param("", key, args.text_or_empty("value"), settings::get()?.truncate_long_values)?;
    Batch { params: vec![(key, value)], is_single: true, ..Batch::default() }.log(args.text_or_empty("run_id"))?;
    Ok(b"{}".to_vec())
}

const LOG_BATCH: &[Field] = &[
    required("run_id", Kind::Text),
    optional("metrics", Kind::List),
    optional("params", Kind::List),
    optional("tags", Kind::List),
];

/// `runs/log-batch`
pub fn log_batch(body: &[u8]) -> Outcome<Vec<u8>> {
    if body.len() > validate::BATCH_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "Batched logging API requests must be at most {} bytes, got a request of size {}.",
            validate::BATCH_BYTES_MAX,
            body.len()
        )));
    }
    let request: BatchIn<'_> = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return log_batch_slowly(body, &error),
    };
    log_parsed(&request)
}

/// A body that the quick reader does not take: say what is wrong with it, or read it in its old double-encoded form.
fn log_batch_slowly(body: &[u8], error: &serde_json::Error) -> Outcome<Vec<u8>> {
    let args = Args::from_json(body)?.checked(LOG_BATCH)?;
    for (name, number) in [("metrics", true), ("params", false), ("tags", false)] {
        for (at, item) in args.objects(name).enumerate() {
            crate::wire::member(item, "key", &format!("{name}[{at}].key"))?;
            if number {
                crate::wire::member_integer(item, "timestamp", &format!("{name}[{at}].timestamp"))?;
                crate::wire::member_integer(item, "step", &format!("{name}[{at}].step"))?;
            } else {
                crate::wire::member(item, "value", &format!("{name}[{at}].value"))?;
            }
        }
    }
    let inner: Result<String, _> = serde_json::from_slice(body);
    match inner {
        Ok(inner) => log_parsed(&serde_json::from_str(&inner).map_err(crate::wire::not_json)?),
        Err(_) => Err(Failure::invalid(format!("Invalid value in a batch: {error}"))),
    }
}

fn log_parsed(request: &BatchIn<'_>) -> Outcome<Vec<u8>> {
    let run_id = given(&request.run_id).unwrap_or_else(|| text(&request.run_uuid));
    if run_id.is_empty() {
        return Err(validate::missing_value("run_id"));
    }
    let metrics = request.metrics.as_deref().unwrap_or(&[]);
    let params = request.params.as_deref().unwrap_or(&[]);
    let tags = request.tags.as_deref().unwrap_or(&[]);
    let has_key = |name: &str, at: usize, key: &Option<Text<'_>>| match text(key) {
        "" => Err(validate::missing_value(&format!("{name}[{at}].key"))),
        _ => Ok(()),
    };
    for (at, metric) in metrics.iter().enumerate() {
        has_key("metrics", at, &metric.key)?;
    }
    for (name, pairs) in [("params", params), ("tags", tags)] {
        for (at, pair) in pairs.iter().enumerate() {
            has_key(name, at, &pair.key)?;
        }
    }
    validate::run_id(run_id)?;
    let mut batch = Batch::default();
    for (at, metric) in metrics.iter().enumerate() {
        batch.metric(&format!("metrics[{at}]"), metric)?;
    }
    // Most batches hold metrics alone: the configuration is not asked for then.
    let truncate = params.is_empty() && tags.is_empty() || settings::get()?.truncate_long_values;
    for (at, PairIn { key, value }) in params.iter().enumerate() {
        let (key, value) = (text(key), text(value));
        batch.params.push((key, validate::param(&format!("params[{at}]"), key, value, truncate)?));
    }
    for (at, PairIn { key, value }) in tags.iter().enumerate() {
        let (key, value) = (text(key), text(value));
        let value = validate::run_tag(&format!("tags[{at}]"), key, value, truncate)?;
        batch.tags.retain(|(known, _)| *known != key);
        batch.tags.push((key, value));
    }
    validate::batch(metrics.len(), params.len(), tags.len())?;
    params_must_differ(&batch.params)?;
    batch.log(run_id)?;
    Ok(b"{}".to_vec())
}

fn params_must_differ(params: &[(&str, &str)]) -> Outcome<()> {
    let mut names: Vec<_> = params.iter().map(|(key, _)| *key).collect();
    names.sort_unstable();
    let twice: Vec<_> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("'{}'", pair[0])).collect();
    if twice.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "Duplicate parameter keys have been submitted: [{}]. Please ensure the request contains only one param value per \
         param key.",
        twice.join(", ")
    )))
}

/// Give every point of a run's metric to `each`.
fn each_point(run_id: &str, metric: &str, mut each: impl FnMut(Point)) -> Outcome<()> {
    for page in keys::fragments(store::history_key(run_id)).pages() {
        for (_, fragment) in page?.iter() {
            history::points(fragment, metric, &mut each)?;
        }
    }
    Ok(())
}

fn write_point(out: &mut Vec<u8>, metric: &str, point: &Point, run_id: Option<&str>) {
    let mut object = Object::new(out);
    object
        .text("key", metric)
        .real("value", point.value)
        .integer("timestamp", point.timestamp)
        .integer("step", point.step);
    object.maybe_text("run_id", run_id).end();
}

const HISTORY: &[Field] = &[
    required("run_id", Kind::Text),
    required("metric_key", Kind::Text),
    optional("max_results", Kind::Integer),
    optional("page_token", Kind::Text),
];

/// `metrics/get-history`
pub fn get_history(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(HISTORY)?;
    let (run_id, metric) = (args.text_or_empty("run_id"), args.text_or_empty("metric_key"));
    let limit = match args.integer("max_results") {
        None => UNPAGED_ROWS_MAX,
        Some(rows) if rows <= 0 => {
            return Err(Failure::invalid(format!(
                "Invalid value {rows} for parameter 'max_results' supplied. It must be a positive integer."
            )));
        }
        Some(rows) => usize::try_from(rows.min(PAGE_ROWS_MAX)).unwrap_or(UNPAGED_ROWS_MAX),
    };
    let question = Fingerprint::of(["history", run_id, metric]);
    let after = cursor(question, args.text("page_token"))?.map(|bytes| place_in_history(&bytes)).transpose()?;
    let mut page = Page::new(limit, after);
    each_point(run_id, metric, |point| page.add(point))?;
    let (rows, next) = page.finish();
    if next.is_some() && !args.has("max_results") {
        return Err(Failure::invalid(format!(
            "The history of metric '{metric}' has more than {UNPAGED_ROWS_MAX} rows. Ask for pages with 'max_results'."
        )));
    }
    Ok(json::object(|o| {
        o.list("metrics", &rows, |out, point| write_point(out, metric, point, None));
        if let Some((timestamp, step, value)) = next {
            let mut place = timestamp.to_le_bytes().to_vec();
            place.extend_from_slice(&step.to_le_bytes());
            place.extend_from_slice(&value.to_le_bytes());
            o.text("next_page_token", &page_token(question, &place));
        }
    }))
}

fn place_in_history(bytes: &[u8]) -> Outcome<(i64, i64, u64)> {
    let damaged = || Failure::invalid("Invalid page token");
    let (timestamp, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (step, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let value: [u8; 8] = rest.try_into().map_err(|_| damaged())?;
    Ok((i64::from_le_bytes(*timestamp), i64::from_le_bytes(*step), u64::from_le_bytes(value)))
}

const BULK: &[Field] =
    &[optional("run_id", Kind::Texts), optional("metric_key", Kind::Text), optional("max_results", Kind::Integer)];

/// `metrics/get-history-bulk`
pub fn get_history_bulk(query: &mainstay_sdk::http::QueryString) -> Outcome<Vec<u8>> {
    let args = Args::from_query(query.iter(), BULK).checked(BULK)?;
    let mut run_ids = args.texts("run_id");
    if run_ids.is_empty() {
        return Err(Failure::invalid("GetMetricHistoryBulk request must specify at least one run_id."));
    }
    if run_ids.len() > BULK_RUNS_MAX {
        return Err(Failure::invalid(format!(
            "GetMetricHistoryBulk request cannot specify more than {BULK_RUNS_MAX} run_ids. Received {} run_ids.",
            run_ids.len()
        )));
    }
    let Some(metric) = args.text("metric_key") else {
        return Err(Failure::invalid("GetMetricHistoryBulk request must specify a metric_key."));
    };
    let limit =
        usize::try_from(args.integer("max_results").unwrap_or(BULK_ROWS_MAX).clamp(0, BULK_ROWS_MAX)).unwrap_or(0);
    run_ids.sort_unstable();
    run_ids.dedup();
    let mut rows = Vec::new();
    for run_id in &run_ids {
        let mut page = Page::new(limit - rows.len(), None);
        each_point(run_id, metric, |point| page.add(point))?;
        rows.extend(page.finish().0.into_iter().map(|point| (run_id, point)));
        if rows.len() >= limit {
            break;
        }
    }
    // This one answers an empty list rather than leaving it out.
    let mut out = b"{\"metrics\":[".to_vec();
    for (at, (run_id, point)) in rows.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_point(&mut out, metric, point, Some(run_id));
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

const INTERVAL: &[Field] = &[
    required("run_ids", Kind::Texts),
    required("metric_key", Kind::Text),
    optional("start_step", Kind::Integer),
    optional("end_step", Kind::Integer),
    optional("max_results", Kind::Integer),
];

/// `metrics/get-history-bulk-interval`
pub fn get_history_interval(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(INTERVAL)?;
    let run_ids = args.texts("run_ids");
    let documented = " See the API docs for more information about request parameters.";
    if run_ids.len() > BULK_RUNS_MAX {
        return Err(Failure::invalid(format!(
            "GetMetricHistoryBulkInterval request must specify at most {BULK_RUNS_MAX} run_ids. Received {} run_ids.{documented}",
            run_ids.len()
        )));
    }
    let limit = args.integer("max_results").unwrap_or(INTERVAL_ROWS_MAX);
    if !(1..=INTERVAL_ROWS_MAX).contains(&limit) {
        return Err(Failure::invalid(format!("max_results must be between 1 and {INTERVAL_ROWS_MAX}.{documented}")));
    }
    let steps = match (args.integer("start_step"), args.integer("end_step")) {
        (None, None) => i64::MIN..=i64::MAX,
        (Some(start), Some(end)) if start > end => {
            return Err(Failure::invalid(format!(
                "end_step must be greater than start_step. Found start_step={start} and end_step={end}."
            )));
        }
        (Some(start), Some(end)) => start..=end,
        _ => {
            return Err(Failure::invalid("If either start step or end step are specified, both must be specified."));
        }
    };
    let metric = args.text_or_empty("metric_key");
    let mut sampled = Vec::with_capacity(run_ids.len());
    for run_id in &run_ids {
        let mut points = Vec::new();
        each_point(run_id, metric, |point| {
            if steps.contains(&point.step) {
                points.push(point);
            }
        })?;
        let points = history::in_steps(points);
        sampled.push((run_id, history::sampled(&points, usize::try_from(limit).unwrap_or(1))));
    }
    let rows = sampled.iter().flat_map(|(run_id, points)| points.iter().map(move |point| (run_id, point)));
    Ok(json::object(|o| {
        o.list("metrics", rows, |out, (run_id, point)| write_point(out, metric, point, Some(run_id)));
    }))
}
