//! What happened on the way of requests, kept where it belongs.
//!
//! Owns [`Recorder`], traffic's watcher: sampled predictions go to the log of their endpoint, changes (breakers, plans,
//! tripwires) to the topic `traffic` and the host's log. Separate from traffic, which does not know who listens.
//!
//! A log is made with the first prediction of its endpoint, and grows with the fields of others. Its features are the tensors
//! as the model saw them, by the model's own names; a prediction's id is the request's, with `/ROW` behind it where a request
//! has several rows.
//!
//! Bounded by the logs' own queues and [`ROWS_MAX`]. On failure: said in the host's log; what cannot be kept is counted there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mainstay_base::Result;
use mainstay_events::{Events, Publication};
use mainstay_inference::{Datatype, InferAnswer, InferRequest, Tensor};
use mainstay_predictions::{Field, FieldKind, Log, LogSpec, Prediction, Predictions, Scalar};
use mainstay_traffic::{Change, Changed, Happened, Watch};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// The topic of changes.
pub const TOPIC: &str = "traffic";
/// Rows of one request that are kept.
const ROWS_MAX: u64 = 1_000;
/// Elements of a row that are kept one by one.
const WIDTH_MAX: usize = 1_000;

/// See the module.
pub struct Recorder {
    predictions: Predictions,
    events: Events,
    threads: Handle,
    /// Logs, and the fields that each is known to have.
    logs: Mutex<HashMap<Arc<str>, Known>>,
}

struct Known {
    log: Arc<Log>,
    features: BTreeMap<String, FieldKind>,
    outputs: BTreeMap<String, FieldKind>,
}

impl Recorder {
    /// Keeps predictions in these logs and publishes changes to these events, on a runtime's threads.
    pub fn new(predictions: Predictions, events: Events, threads: Handle) -> Recorder {
        Recorder { predictions, events, threads, logs: Mutex::default() }
    }

    fn keep(&self, happened: Happened) -> Result<()> {
        let Some(answer) = happened.answer.clone() else { return Ok(()) };
        if happened.is_mirrored || happened.labels.fallback.is_some() {
            return Ok(());
        }
        let log = self.log(&happened.labels.endpoint, &happened.request, &answer)?;
        for row in 0..happened.request.rows().min(ROWS_MAX) {
            let (happened, answer) = (happened.clone(), answer.clone());
            log.offer(move || prediction(&happened, &answer, row as usize));
        }
        Ok(())
    }

    /// The log of an endpoint, with a field for everything that this request and answer have.
    fn log(&self, endpoint: &Arc<str>, request: &InferRequest, answer: &InferAnswer) -> Result<Arc<Log>> {
        let (features, outputs) = (kinds(&request.inputs), kinds(&answer.outputs));
        let mut logs = self.logs.lock();
        if let Some(known) = logs.get(endpoint)
            && features.keys().all(|name| known.features.contains_key(name))
            && outputs.keys().all(|name| known.outputs.contains_key(name))
        {
            return Ok(known.log.clone());
        }
        let (mut all, mut given) = match logs.remove(endpoint) {
            Some(known) => (known.features, known.outputs),
            None => Default::default(),
        };
        all.extend(features);
        given.extend(outputs);
        let fields =
            |kinds: &BTreeMap<String, FieldKind>| kinds.iter().map(|(name, kind)| Field::new(name, *kind)).collect();
        let name = log_name(endpoint);
        let keep_days = self.predictions.log(&name).ok().and_then(|log| log.spec().keep_days);
        let spec = LogSpec { features: fields(&all), outputs: fields(&given), keep_days };
        let log = self.predictions.apply(&name, &spec)?;
        logs.insert(endpoint.clone(), Known { log: log.clone(), features: all, outputs: given });
        Ok(log)
    }
}

/// An endpoint's log: its name in the letters that tables have.
pub fn log_name(endpoint: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = endpoint.chars().map(letter).collect();
    if name.starts_with(|c: char| c.is_ascii_lowercase()) { name } else { format!("e_{name}") }
}

/// Fields of some tensors: one for each column.
fn kinds(tensors: &[Tensor]) -> BTreeMap<String, FieldKind> {
    let of = |tensor: &Tensor| {
        let kind = match tensor.datatype {
            Datatype::Bytes => FieldKind::Text,
            Datatype::Bool => FieldKind::Boolean,
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bf16 => FieldKind::Real,
            _ => FieldKind::Integer,
        };
        columns(tensor).map(move |name| (name, kind)).collect::<Vec<_>>()
    };
    tensors.iter().flat_map(of).collect()
}

/// Values of a row in a tensor.
fn width(tensor: &Tensor) -> usize {
    let width: u64 = tensor.shape.iter().skip(1).product();
    usize::try_from(width).unwrap_or(usize::MAX).min(WIDTH_MAX)
}

/// Names of the columns of a tensor: its own, with a place where there are several.
fn columns(tensor: &Tensor) -> impl Iterator<Item = String> + '_ {
    let width = width(tensor);
    (0..width).map(move |at| if width == 1 { tensor.name.clone() } else { format!("{}[{at}]", tensor.name) })
}

fn prediction(happened: &Happened, answer: &InferAnswer, row: usize) -> Prediction {
    let request = &happened.request;
    let id = request.id.clone().unwrap_or_default();
    let labels = &happened.labels;
    Prediction {
        id: if request.rows() > 1 { format!("{id}/{row}") } else { id },
        time_us: Some(happened.at_ms.saturating_mul(1_000)),
        model: Some(labels.model.clone()),
        version: Some(labels.version.clone()),
        variant: labels.variant.clone(),
        tenant: happened.tenant.clone(),
        trace_id: happened.trace.clone(),
        features: values(&request.inputs, row),
        outputs: values(&answer.outputs, row),
    }
}

fn values(tensors: &[Tensor], row: usize) -> HashMap<String, Scalar> {
    let mut values = HashMap::new();
    for tensor in tensors {
        let width = width(tensor);
        let from = row * usize::try_from(tensor.shape.iter().skip(1).product::<u64>()).unwrap_or(usize::MAX);
        let scalars: Vec<Scalar> = match tensor.datatype {
            Datatype::Bytes => {
                let texts = tensor.strings().unwrap_or_default();
                let text = |text: &&[u8]| Scalar::Text(String::from_utf8_lossy(text).as_ref().into());
                texts.iter().skip(from).take(width).map(text).collect()
            }
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bf16 => {
                let numbers = tensor.numbers().unwrap_or_default();
                numbers.iter().skip(from).take(width).map(|value| Scalar::Real(*value)).collect()
            }
            Datatype::Bool => {
                let numbers = tensor.numbers().unwrap_or_default();
                numbers.iter().skip(from).take(width).map(|value| Scalar::Boolean(*value != 0.0)).collect()
            }
            _ => {
                let numbers = tensor.integers().unwrap_or_default();
                numbers.iter().skip(from).take(width).map(|value| Scalar::Integer(*value)).collect()
            }
        };
        values.extend(columns(tensor).zip(scalars));
    }
    values
}

impl Watch for Recorder {
    fn happened(&self, happened: Happened) {
        let endpoint = happened.labels.endpoint.clone();
        if let Err(error) = self.keep(happened) {
            tracing::warn!(%endpoint, %error, "a prediction could not be kept");
        }
    }

    fn changed(&self, change: Change) {
        let (kind, data) = told(&change);
        tracing::info!(endpoint = %change.endpoint, kind, %data, "traffic changed");
        let (events, key) = (self.events.clone(), change.endpoint.to_string());
        self.threads.spawn(async move {
            let publication = Publication { key: Some(key), ..Publication::json(TOPIC, "host", kind, &data) };
            let published = events.publish(publication).await;
            if let Err(error) = published {
                tracing::warn!(%error, kind, "a change of traffic could not be published");
            }
        });
    }
}

/// A change as an event: its type and what it says.
fn told(change: &Change) -> (&'static str, Value) {
    let (at_ms, endpoint) = (change.at_ms, &*change.endpoint);
    let (kind, data) = match &change.what {
        Changed::BreakerOpened { variant, reason, open_ms } => {
            ("breaker.opened", json!({ "variant": &**variant, "reason": reason, "open-ms": open_ms }))
        }
        Changed::BreakerHalfOpened { variant } => ("breaker.half-opened", json!({ "variant": &**variant })),
        Changed::BreakerClosed { variant } => ("breaker.closed", json!({ "variant": &**variant })),
        Changed::PlanActivated { version, by, why } => {
            ("plan.activated", json!({ "version": version, "by": by, "why": why }))
        }
        Changed::TripwireFired { tripwire, plan, reason } => {
            ("tripwire.fired", json!({ "tripwire": &**tripwire, "plan": &**plan, "reason": reason }))
        }
        Changed::FaultStopped { fault, reason } => ("fault.stopped", json!({ "fault": &**fault, "reason": reason })),
        Changed::BackendChanged { variant, model } => {
            ("backend.changed", json!({ "variant": &**variant, "model": model }))
        }
        Changed::BackendFailed { variant, reason } => {
            ("backend.failed", json!({ "variant": &**variant, "reason": reason }))
        }
    };
    let mut data = data;
    data["endpoint"] = json!(endpoint);
    data["at-ms"] = json!(at_ms);
    (kind, data)
}

#[cfg(test)]
mod tests {
    use mainstay_traffic::Labels;

    use super::*;

    #[test]
    fn names_of_logs_are_names_of_tables() {
        fn check(endpoint: &str, expect: &str) {
            assert_eq!(log_name(endpoint), expect);
        }
        check("churn", "churn");
        check("Churn-v2.eu", "churn_v2_eu");
        check("2nd", "e_2nd");
    }

    #[test]
    fn each_row_of_a_request_is_a_prediction_with_the_columns_of_its_tensors() {
        let wide = Tensor::fp32("x", &[2, 2], &[1.0, 2.0, 3.0, f32::NAN]).unwrap();
        let text = Tensor::bytes("city", &[2], ["Bern", "Oslo"]).unwrap();
        let score = Tensor::fp32("score", &[2, 1], &[0.25, 0.75]).unwrap();
        let request = InferRequest { id: Some("r".into()), inputs: vec![wide, text], ..InferRequest::default() };
        let answer = InferAnswer { outputs: vec![score], ..InferAnswer::default() };
        let happened = Happened {
            at_ms: 5,
            labels: Labels { model: "m".into(), version: "3".into(), ..Labels::default() },
            why: None,
            latency_us: 1,
            request: Arc::new(request),
            answer: None,
            tenant: None,
            trace: None,
            is_mirrored: false,
        };
        let kinds: Vec<_> = kinds(&happened.request.inputs).into_iter().collect();
        let real = |name: &str| (name.to_owned(), FieldKind::Real);
        assert_eq!(kinds, [("city".to_owned(), FieldKind::Text), real("x[0]"), real("x[1]")]);
        let made = prediction(&happened, &answer, 1);
        assert_eq!((&*made.id, made.time_us, made.version.as_deref()), ("r/1", Some(5_000), Some("3")));
        assert_eq!(made.features["x[0]"], Scalar::Real(3.0));
        assert_eq!(made.features["city"], Scalar::Text("Oslo".into()));
        assert_eq!(made.outputs["score"], Scalar::Real(0.75));
    }
}
