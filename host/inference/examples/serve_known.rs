//! Serves models whose answers are known, over HTTP and gRPC: `serve_known [HTTP] [GRPC]`, both addresses with a port, 0 for any.
//!
//! Prints one line of JSON with both addresses when it listens; ends when its standard input does. What unmodified clients of the
//! protocol are tested against: every datatype, an addition, a stream of tokens, one that waits, one that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use http::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mainstay_base::{Error, Result};
use mainstay_inference::proto::{InferStatistics, ModelInput, ModelOutput, StatisticDuration};
use mainstay_inference::{
    Answered, Answers, Asker, Datatype, EXTENSIONS, Front, Grpc, IndexEntry, InferAnswer, InferRequest, Limits, Load,
    ModelConfig, ModelMetadata, ModelStatistics, Models, Parameter, ServerMetadata, Signature, Tensor, TensorSpec,
    Unload, read_config,
};
use tokio::net::TcpListener;

/// As a repository has it.
const ADD_SUB: &str = r#"
# Two inputs, their sum and their difference.
name: "add_sub"
platform: "known"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
version_policy { specific { versions: 1 } }
"#;

/// What a model does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Identity,
    AddSub,
    Tokens,
    Slow,
    Fail,
}

struct Known {
    does: Does,
    signature: Signature,
    config: ModelConfig,
    rows: AtomicU64,
    runs: AtomicU64,
    run_ns: AtomicU64,
    failed: AtomicU64,
}

struct House {
    models: BTreeMap<String, Arc<Known>>,
    unloaded: Mutex<BTreeSet<String>>,
}

fn known(name: &str, does: Does, signature: Signature) -> Known {
    let config = ModelConfig {
        name: name.to_owned(),
        platform: "known".to_owned(),
        max_batch_size: i32::try_from(signature.max_batch).expect("small"),
        input: signature
            .inputs
            .iter()
            .map(|spec| ModelInput {
                name: spec.name.clone(),
                data_type: spec.datatype.configured().into(),
                dims: spec.dims.clone(),
                optional: spec.optional,
                ..ModelInput::default()
            })
            .collect(),
        output: signature
            .outputs
            .iter()
            .map(|spec| ModelOutput {
                name: spec.name.clone(),
                data_type: spec.datatype.configured().into(),
                dims: spec.dims.clone(),
                ..ModelOutput::default()
            })
            .collect(),
        ..ModelConfig::default()
    };
    Known {
        does,
        signature,
        config,
        rows: AtomicU64::new(0),
        runs: AtomicU64::new(0),
        run_ns: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    }
}

fn house() -> House {
    let mut models = BTreeMap::new();
    let mut add = |name: &str, does, inputs, outputs| {
        models.insert(name.to_owned(), known(name, does, Signature { inputs, outputs, max_batch: 0 }));
    };
    let one = |name: &str, datatype, dims: &[i64]| vec![TensorSpec::new(name, datatype, dims)];
    for datatype in Datatype::ALL {
        let name = format!("identity_{}", datatype.name().to_lowercase());
        add(&name, Does::Identity, one("INPUT0", datatype, &[-1, -1]), one("OUTPUT0", datatype, &[-1, -1]));
    }
    let how_many = TensorSpec { optional: true, ..TensorSpec::new("how_many", Datatype::Int32, &[1]) };
    let mut inputs = one("text_input", Datatype::Bytes, &[1]);
    inputs.push(how_many);
    add("tokens", Does::Tokens, inputs, one("text_output", Datatype::Bytes, &[1]));
    add("slow", Does::Slow, one("INPUT0", Datatype::Fp32, &[-1]), one("OUTPUT0", Datatype::Fp32, &[-1]));
    add("failing", Does::Fail, one("INPUT0", Datatype::Fp32, &[-1]), one("OUTPUT0", Datatype::Fp32, &[-1]));
    add("odd name %?#", Does::Identity, one("INPUT0", Datatype::Fp32, &[-1]), one("OUTPUT0", Datatype::Fp32, &[-1]));
    let config = read_config(ADD_SUB).expect("a configuration").config;
    let signature = Signature::of_config(&config).expect("a signature");
    models.insert("add_sub".to_owned(), Known { config, ..known("add_sub", Does::AddSub, signature) });
    let models = models.into_iter().map(|(name, model)| (name, Arc::new(model))).collect();
    House { models, unloaded: Mutex::default() }
}

/// Counts a run that was dropped before it ended.
struct Run(Option<Arc<Known>>);

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(model) = &self.0 {
            model.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl House {
    fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<Known>> {
        let missing = || Error::not_found(format!("Request for unknown model: '{name}' is not found"));
        if version.is_some_and(|version| version != "1") || self.unloaded.lock().expect("unpoisoned").contains(name) {
            return Err(missing());
        }
        self.models.get(name).ok_or_else(missing)
    }

    async fn run(&self, request: &InferRequest) -> Result<InferAnswer> {
        let model = self.find(&request.model, request.version.as_deref())?;
        let mut run = Run(Some(model.clone()));
        model.signature.check(request)?;
        let start = Instant::now();
        let mut outputs = outputs(model.does, request).await?;
        if !request.outputs.is_empty() {
            outputs.retain(|output| request.outputs.iter().any(|wanted| wanted.name == output.name));
        }
        run.0 = None;
        model.rows.fetch_add(request.rows(), Ordering::Relaxed);
        model.runs.fetch_add(1, Ordering::Relaxed);
        model.run_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(InferAnswer { model: request.model.clone(), version: "1".to_owned(), parameters: Vec::new(), outputs })
    }
}

async fn outputs(does: Does, request: &InferRequest) -> Result<Vec<Tensor>> {
    let first = request.inputs.first().ok_or_else(|| Error::invalid("no input"))?;
    match does {
        Does::Identity => Ok(vec![Tensor { name: "OUTPUT0".to_owned(), ..first.clone() }]),
        Does::AddSub => {
            let [left, right] = ["INPUT0", "INPUT1"].map(|name| request.input(name).expect("checked"));
            let pairs = left.integers()?.into_iter().zip(right.integers()?);
            let (sum, difference): (Vec<i32>, Vec<i32>) = pairs
                .map(|(left, right)| {
                    ((left as i32).wrapping_add(right as i32), (left as i32).wrapping_sub(right as i32))
                })
                .unzip();
            Ok(vec![Tensor::int32("OUTPUT0", &left.shape, &sum)?, Tensor::int32("OUTPUT1", &left.shape, &difference)?])
        }
        Does::Slow => {
            let ms = match request.parameter("delay_ms") {
                Some(Parameter::Int64(ms)) => u64::try_from(*ms).unwrap_or(0),
                _ => 1000,
            };
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(vec![Tensor { name: "OUTPUT0".to_owned(), ..first.clone() }])
        }
        Does::Fail => Err(match request.parameter("kind") {
            Some(Parameter::String(kind)) if kind == "not_found" => Error::not_found("asked to fail: not found"),
            Some(Parameter::String(kind)) if kind == "unavailable" => Error::unavailable("asked to fail: unavailable"),
            Some(Parameter::String(kind)) if kind == "exhausted" => Error::exhausted("asked to fail: exhausted"),
            Some(Parameter::String(kind)) if kind == "denied" => Error::denied("asked to fail: denied"),
            Some(Parameter::String(kind)) if kind == "invalid" => Error::invalid("asked to fail: invalid"),
            _ => Error::internal("asked to fail: internal"),
        }),
        Does::Tokens => {
            let words = words(request)?;
            Ok(vec![Tensor::bytes("text_output", &[1], [words.join(" ")])?])
        }
    }
}

/// The text's words, `how_many` of them, from the start again where it has fewer.
fn words(request: &InferRequest) -> Result<Vec<String>> {
    let text = request.input("text_input").ok_or_else(|| Error::invalid("no text_input"))?;
    let text = String::from_utf8_lossy(text.strings()?[0]).into_owned();
    let words = text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let how_many = match (request.input("how_many"), request.parameter("how_many")) {
        (Some(tensor), _) => tensor.integers()?[0],
        (None, Some(Parameter::Int64(number))) => *number,
        _ => words.len() as i64,
    };
    let how_many = usize::try_from(how_many).map_err(|_| Error::invalid("how_many is negative"))?;
    Ok(words.iter().cycle().take(how_many.min(10_000)).cloned().collect())
}

#[async_trait::async_trait]
impl Models for House {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _: &Asker, model: &str, version: Option<&str>) -> Result<bool> {
        self.find(model, version).map(|_| true)
    }

    async fn server(&self) -> Result<ServerMetadata> {
        let mut extensions = EXTENSIONS.map(str::to_owned).to_vec();
        extensions.extend(["model_repository", "statistics"].map(str::to_owned));
        Ok(ServerMetadata { name: "known".to_owned(), version: "0.1.0".to_owned(), extensions })
    }

    async fn metadata(&self, _: &Asker, model: &str, version: Option<&str>) -> Result<ModelMetadata> {
        let known = self.find(model, version)?;
        Ok(known.signature.metadata(model, vec!["1".to_owned()], "known"))
    }

    async fn config(&self, _: &Asker, model: &str, version: Option<&str>) -> Result<ModelConfig> {
        self.find(model, version).map(|known| known.config.clone())
    }

    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered> {
        let mut headers = HeaderMap::new();
        headers.insert("known-model", HeaderValue::from_str(&request.model).unwrap_or(HeaderValue::from_static("?")));
        if let Some(trace) = asker.trace {
            headers.insert("known-trace", HeaderValue::from_str(&format!("{:032x}", trace.trace_id)).expect("hex"));
        }
        Ok(Answered { headers, ..self.run(&request).await?.into() })
    }

    async fn infer_stream(&self, asker: Asker, request: InferRequest) -> Result<Answers> {
        let known = self.find(&request.model, request.version.as_deref())?.clone();
        if known.does != Does::Tokens {
            let answered = self.infer(asker, request).await;
            return Ok(futures::stream::iter([answered]).boxed());
        }
        known.signature.check(&request)?;
        let words = words(&request)?;
        let fail_after = match request.parameter("fail_after") {
            Some(Parameter::Int64(number)) => usize::try_from(*number).unwrap_or(0),
            _ => usize::MAX,
        };
        let run = Arc::new(Mutex::new(Run(Some(known.clone()))));
        let total = words.len();
        let answers = futures::stream::iter(words.into_iter().enumerate()).then(move |(place, word)| {
            let (model, run, known) = (request.model.clone(), run.clone(), known.clone());
            async move {
                if place == fail_after {
                    return Err(Error::internal("asked to fail in the middle"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                if place + 1 == total {
                    run.lock().expect("unpoisoned").0 = None;
                    known.rows.fetch_add(1, Ordering::Relaxed);
                    known.runs.fetch_add(1, Ordering::Relaxed);
                }
                let outputs = vec![Tensor::bytes("text_output", &[1], [word])?];
                let answer = InferAnswer { model, version: "1".to_owned(), parameters: Vec::new(), outputs };
                Ok(Answered { last: false, ..answer.into() })
            }
        });
        Ok(answers.boxed())
    }

    async fn statistics(&self, _: &Asker, model: Option<&str>, version: Option<&str>) -> Result<Vec<ModelStatistics>> {
        if let Some(model) = model {
            self.find(model, version)?;
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let of = |(name, known): (&String, &Arc<Known>)| {
            let (runs, run_ns) = (known.runs.load(Ordering::Relaxed), known.run_ns.load(Ordering::Relaxed));
            let took = StatisticDuration { count: runs, ns: run_ns };
            let failed = StatisticDuration { count: known.failed.load(Ordering::Relaxed), ns: 0 };
            ModelStatistics {
                name: name.clone(),
                version: "1".to_owned(),
                last_inference: now_ms,
                inference_count: known.rows.load(Ordering::Relaxed),
                execution_count: runs,
                inference_stats: Some(InferStatistics {
                    success: Some(took),
                    fail: Some(failed),
                    queue: Some(StatisticDuration::default()),
                    compute_input: Some(StatisticDuration::default()),
                    compute_infer: Some(took),
                    compute_output: Some(StatisticDuration::default()),
                    cache_hit: Some(StatisticDuration::default()),
                    cache_miss: Some(StatisticDuration::default()),
                }),
                ..ModelStatistics::default()
            }
        };
        Ok(self.models.iter().filter(|(name, _)| model.is_none_or(|model| model == *name)).map(of).collect())
    }

    async fn index(&self, _: &Asker, ready: bool) -> Result<Vec<IndexEntry>> {
        let unloaded = self.unloaded.lock().expect("unpoisoned");
        let entry = |name: &String| {
            let (version, state, reason) = match unloaded.contains(name) {
                false => ("1", "READY", ""),
                true => ("1", "UNAVAILABLE", "unloaded"),
            };
            IndexEntry { name: name.clone(), version: version.into(), state: state.into(), reason: reason.into() }
        };
        let entries = self.models.keys().map(entry);
        Ok(entries.filter(|entry| !ready || entry.state == "READY").collect())
    }

    async fn load(&self, _: &Asker, load: Load) -> Result<()> {
        if !self.models.contains_key(&load.model) {
            return Err(Error::internal(format!(
                "failed to load '{}', failed to poll from model repository",
                load.model
            )));
        }
        if let Some(config) = &load.config {
            serde_json::from_str::<serde_json::Value>(config)
                .map_err(|error| Error::invalid(format!("config: {error}")))?;
        }
        self.unloaded.lock().expect("unpoisoned").remove(&load.model);
        Ok(())
    }

    async fn unload(&self, _: &Asker, unload: Unload) -> Result<()> {
        if self.models.contains_key(&unload.model) {
            self.unloaded.lock().expect("unpoisoned").insert(unload.model);
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let (http, grpc) = (TcpListener::bind(address()).await?, TcpListener::bind(address()).await?);
    println!(
        "{}",
        serde_json::json!({ "http": http.local_addr()?.to_string(), "grpc": grpc.local_addr()?.to_string() })
    );

    let house: Arc<dyn Models> = Arc::new(house());
    let limits = Limits::default();
    tokio::spawn(serve_http(http, Front::new(house.clone(), limits)));
    tokio::spawn(serve_grpc(grpc, house, limits));
    // Whoever started this holds the other end: when it dies, so does this.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    Ok(())
}

async fn serve_http(listener: TcpListener, front: Front) {
    while let Ok((connection, _)) = listener.accept().await {
        let front = front.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.answer(request, Asker::default()).await) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A connection that breaks is its client's business.
            let _ = server.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

async fn serve_grpc(listener: TcpListener, models: Arc<dyn Models>, limits: Limits) {
    let service = TowerToHyperService::new(Grpc::service(models, limits));
    while let Ok((connection, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
