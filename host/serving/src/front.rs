//! Endpoints as models of the Open Inference Protocol.
//!
//! Owns [`Endpoints`], the implementation of the protocol's [`Models`] over [`Traffic`]: an endpoint is a model by its name, its
//! variants' versions are the model's. Separate from traffic, which speaks no protocol, and from the fronts, which know no
//! endpoints.
//!
//! A request for a version asks that variant, whatever the plan says; others go the plan's way. Loading a model makes an
//! endpoint of a registered one; only what was made so can be unloaded over the protocol.
//!
//! Bounded by traffic's limits; statistics by [`STATISTICS_MAX`]. On failure: what traffic says. A full queue is `unavailable`
//! here, so that this protocol's clients are answered 503 as they expect; the refusal itself is the source of the error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_base::{Clock, Error, ErrorKind, Random, Result};
use mainstay_inference::proto;
use mainstay_inference::{
    Answered, Answers, Asker, Datatype, EXTENSIONS, IndexEntry, InferAnswer, InferRequest, Load, ModelConfig,
    ModelMetadata, ModelStatistics, Models, ServerMetadata, Signature, Unload,
};
use mainstay_traffic::{
    Caller, EndpointSpec, EndpointStatus, Guard, Labels, Plan, Reason, Reference, Refused, Traffic, VariantSpec,
    VariantStatus, Why,
};

use crate::backends::HostBackends;
use crate::statistics::Book;

/// Who made what was made by loading.
const LOADED_BY: &str = "repository";
/// The header that names the prediction, so that what becomes true of it can be posted later.
const PREDICTION_ID: HeaderName = HeaderName::from_static("x-mainstay-prediction-id");
/// How long a request for one version may take that says nothing of it.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Endpoints {
    inner: Arc<Inner>,
}

struct Inner {
    traffic: Traffic,
    backends: Arc<HostBackends>,
    book: Book,
    names: Names,
    clock: Arc<dyn Clock>,
    version: String,
}

/// Names for requests that bring none: unlike any other of this process, and of any other process.
struct Names {
    process: u64,
    count: AtomicU64,
}

impl Names {
    fn new(random: &dyn Random) -> Names {
        Names { process: random.number(), count: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        format!("{:016x}-{:x}", self.process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

impl Endpoints {
    /// The endpoints of this traffic; `version` is the server's.
    pub fn new(
        traffic: Traffic,
        backends: Arc<HostBackends>,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
        version: String,
    ) -> Endpoints {
        Endpoints {
            inner: Arc::new(Inner {
                traffic,
                backends,
                book: Book::default(),
                names: Names::new(random),
                clock,
                version,
            }),
        }
    }

    /// The variants of an endpoint that answer, of one version if one is given.
    fn variants(&self, endpoint: &str, version: Option<&str>) -> Result<Vec<VariantStatus>> {
        let status = self.status(endpoint, version)?;
        let is_wanted = |variant: &VariantStatus| match (&variant.identity, version) {
            (Some(identity), Some(version)) => *identity.version == *version,
            (identity, None) => identity.is_some(),
            (None, Some(_)) => false,
        };
        let variants: Vec<VariantStatus> = status.variants.into_iter().filter(is_wanted).collect();
        match (variants.is_empty(), version) {
            (true, Some(version)) => Err(unknown(endpoint, Some(version))),
            _ => Ok(variants),
        }
    }

    fn status(&self, endpoint: &str, version: Option<&str>) -> Result<EndpointStatus> {
        self.inner.traffic.status(endpoint).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Invalid => unknown(endpoint, version),
            _ => error,
        })
    }

    /// What an endpoint takes and gives: as its first variant of this host that is ready.
    async fn signature(
        &self,
        endpoint: &str,
        version: Option<&str>,
    ) -> Result<(Vec<VariantStatus>, Signature, String)> {
        let variants = self.variants(endpoint, version)?;
        for identity in variants.iter().filter_map(|variant| variant.identity.as_ref()) {
            if let Some(described) = self.inner.backends.describe(identity).await? {
                return Ok((variants, described.0, described.1));
            }
        }
        Err(Error::unavailable(format!("Request for unknown model: '{endpoint}' has no available versions")))
    }

    async fn one_version(&self, asker: &Asker, request: InferRequest, version: &str) -> Result<Answered> {
        let endpoint = request.model.clone();
        let variants = self.variants(&endpoint, Some(version))?;
        let variant = variants.first().ok_or_else(|| unknown(&endpoint, Some(version)))?;
        let deadline = asker.deadline.unwrap_or_else(|| Instant::now() + PROBE_TIME);
        let (answer, identity) = self.inner.traffic.probe(&endpoint, &variant.name, request, deadline).await?;
        let labels = Labels {
            endpoint: endpoint.as_str().into(),
            variant: Some(variant.name.clone()),
            model: identity.model,
            version: identity.version,
            run: identity.run,
            ..Labels::default()
        };
        Ok(answered(answer, &labels))
    }
}

fn unknown(model: &str, version: Option<&str>) -> Error {
    let shown: String = model.chars().take(200).collect();
    Error::not_found(match version {
        Some(version) => format!("Request for unknown model: '{shown}' version {version} is not found"),
        None => format!("Request for unknown model: '{shown}' is not found"),
    })
}

fn caller(asker: &Asker) -> Caller<'_> {
    Caller {
        headers: &asker.headers,
        tenant: asker.tenant.as_ref(),
        deadline: asker.deadline,
        trace: asker.headers.get("traceparent").and_then(|value| value.to_str().ok()),
        may_inject_faults: asker.is_operator,
        may_fall_back: true,
    }
}

fn require_operator(asker: &Asker, what: &str) -> Result<()> {
    match asker.is_operator {
        true => Ok(()),
        false => Err(Error::denied(format!("{what} needs the role of an operator; use a token that has it"))),
    }
}

/// Headers of a response that say who answered.
pub fn answer_headers(labels: &Labels) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let mut add = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("x-mainstay-endpoint", &labels.endpoint);
    add("x-mainstay-model", &labels.model);
    add("x-mainstay-version", &labels.version);
    labels.variant.iter().for_each(|variant| add("x-mainstay-variant", variant));
    labels.run.iter().for_each(|run| add("x-mainstay-run", run));
    if labels.plan_version > 0 {
        add("x-mainstay-plan", &labels.plan_version.to_string());
    }
    if labels.retries > 0 {
        add("x-mainstay-retries", &labels.retries.to_string());
    }
    if let Some(fallback) = &labels.fallback {
        add("x-mainstay-fallback", &fallback.label);
        add("x-mainstay-fallback-reason", fallback.why.name());
    }
    if !labels.faults.is_empty() {
        add("x-mainstay-faults", &labels.faults.join(","));
    }
    headers
}

/// An answer as the protocol has it: of the model and version that the endpoint stands for.
fn answered(mut answer: InferAnswer, labels: &Labels) -> Answered {
    answer.model = labels.endpoint.to_string();
    answer.version = labels.version.to_string();
    Answered { answer, headers: answer_headers(labels), last: true }
}

fn refused(refused: Refused, endpoint: &str) -> Error {
    let message = refused.error.message().to_owned();
    let error = match refused.why {
        Why::NotFound => unknown(endpoint, None),
        // As clients of this protocol expect it of a full queue.
        Why::Overloaded => Error::unavailable(message),
        _ => Error::new(refused.error.kind(), message),
    };
    error.with_source(refused)
}

#[async_trait]
impl Models for Endpoints {
    async fn ready(&self) -> bool {
        let names = self.inner.traffic.list();
        let is_ready = |status: EndpointStatus| status.variants.iter().any(|variant| variant.identity.is_some());
        names.iter().all(|name| self.inner.traffic.status(name).is_ok_and(is_ready))
    }

    async fn model_ready(&self, _asker: &Asker, model: &str, version: Option<&str>) -> Result<bool> {
        Ok(!self.variants(model, version)?.is_empty())
    }

    async fn server(&self) -> Result<ServerMetadata> {
        let extensions = EXTENSIONS.iter().copied().chain(["statistics", "model_repository"]);
        Ok(ServerMetadata {
            name: "mainstay".into(),
            version: self.inner.version.clone(),
            extensions: extensions.map(str::to_owned).collect(),
        })
    }

    async fn metadata(&self, _asker: &Asker, model: &str, version: Option<&str>) -> Result<ModelMetadata> {
        let (variants, signature, platform) = self.signature(model, version).await?;
        let mut versions: Vec<String> =
            variants.iter().filter_map(|variant| Some(variant.identity.as_ref()?.version.to_string())).collect();
        versions.dedup();
        Ok(signature.metadata(model, versions, &platform))
    }

    async fn config(&self, _asker: &Asker, model: &str, version: Option<&str>) -> Result<ModelConfig> {
        let (_, signature, platform) = self.signature(model, version).await?;
        Ok(configuration(model, &platform, &signature))
    }

    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered> {
        let (began, rows) = (Instant::now(), request.rows());
        let mut request = request;
        let id = request.id.get_or_insert_with(|| self.inner.names.next()).clone();
        if let Some(version) = request.version.clone() {
            return self.one_version(&asker, request, &version).await;
        }
        let endpoint: Arc<str> = request.model.as_str().into();
        let served = self.inner.traffic.infer(&endpoint, caller(&asker), request).await;
        let now_ms = self.inner.clock.now_ms();
        match served {
            Ok(served) => {
                self.inner.book.answered(&endpoint, &served.labels.version, rows, began.elapsed(), now_ms);
                let mut answered = answered(Arc::unwrap_or_clone(served.answer), &served.labels);
                if let Ok(id) = HeaderValue::from_str(&id) {
                    answered.headers.insert(PREDICTION_ID, id);
                }
                Ok(answered)
            }
            Err(why) => {
                if why.why != Why::NotFound {
                    self.inner.book.refused(&endpoint, &why.labels.version, began.elapsed());
                }
                Err(refused(why, &endpoint))
            }
        }
    }

    async fn infer_stream(&self, asker: Asker, request: InferRequest) -> Result<Answers> {
        let endpoint = request.model.clone();
        let served = self.inner.traffic.infer_stream(&endpoint, caller(&asker), request).await;
        let served = served.map_err(|why| refused(why, &endpoint))?;
        let labels = served.labels;
        let parts = served.parts.map(move |part| match part {
            Ok(answer) => {
                let mut part = answered(Arc::unwrap_or_clone(answer), &labels);
                part.last = false;
                Ok(part)
            }
            Err(error) => Err(error.into()),
        });
        Ok(parts.boxed())
    }

    async fn statistics(
        &self,
        _asker: &Asker,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>> {
        let names: Vec<Arc<str>> = match model {
            Some(model) => {
                self.variants(model, version)?;
                vec![model.into()]
            }
            None => self.inner.traffic.list(),
        };
        let mut all = Vec::new();
        for name in names {
            for variant in self.variants(&name, version)? {
                let version = variant.identity.map(|identity| identity.version).unwrap_or_default();
                all.push(self.inner.book.statistics(&name, &version));
            }
        }
        Ok(all)
    }

    async fn index(&self, _asker: &Asker, ready: bool) -> Result<Vec<IndexEntry>> {
        let mut lines = Vec::new();
        for name in self.inner.traffic.list() {
            for variant in self.inner.traffic.status(&name)?.variants {
                let version = variant.identity.as_ref().map(|identity| identity.version.to_string());
                let state = if version.is_some() { "READY" } else { "UNAVAILABLE" };
                if version.is_some() || !ready {
                    lines.push(IndexEntry {
                        name: name.to_string(),
                        version: version.unwrap_or_default(),
                        state: state.to_owned(),
                        reason: variant.reason.unwrap_or_default(),
                    });
                }
            }
        }
        lines.dedup();
        Ok(lines)
    }

    async fn load(&self, asker: &Asker, load: Load) -> Result<()> {
        require_operator(asker, "loading models")?;
        if load.config.is_some() || !load.files.is_empty() {
            return Err(Error::invalid(
                "a model is loaded from the registry here, not from files of a request; import it with `mainstay model import`",
            ));
        }
        let traffic = &self.inner.traffic;
        let registered = self.inner.backends.registered();
        let known = traffic.show(&load.model).ok();
        let newest = registered.newest(&load.model);
        match (known, newest) {
            // Somebody's own endpoint: it has what its specification says.
            (Some(known), _) if known.reason.by != LOADED_BY => Ok(()),
            (_, Ok(version)) => {
                let spec = endpoint_of(&load.model, version);
                traffic.apply(spec, None, Reason::new(LOADED_BY, "loaded over the protocol")).await.map(drop)
            }
            (_, Err(error)) => Err(Error::internal(format!("failed to load '{}': {}", load.model, error.message()))),
        }
    }

    async fn unload(&self, asker: &Asker, unload: Unload) -> Result<()> {
        require_operator(asker, "unloading models")?;
        match self.inner.traffic.show(&unload.model) {
            Ok(known) if known.reason.by == LOADED_BY => self.inner.traffic.remove(&unload.model).await,
            Ok(_) => Err(Error::invalid(format!(
                "`{0}` is an endpoint with a specification of its own; remove it with `mainstay endpoint rm {0}`",
                unload.model
            ))),
            // As Triton answers it.
            Err(_) => Ok(()),
        }
    }
}

/// An endpoint that is one version of the registered model of the same name.
pub fn endpoint_of(model: &str, version: u64) -> EndpointSpec {
    let variant = VariantSpec {
        name: format!("v{version}"),
        backend: Reference::Version { model: model.to_owned(), version },
        resource: None,
        guard: Guard::default(),
        breaker: None,
        warm_timeout_ms: 60_000,
    };
    let plan = Plan::of(&variant.name);
    EndpointSpec {
        name: model.to_owned(),
        description: format!("version {version} of the registered model `{model}`"),
        variants: vec![variant],
        plan,
        plans: Vec::new(),
        faults: Vec::new(),
    }
}

/// A signature as the protocol's configuration has it.
fn configuration(model: &str, platform: &str, signature: &Signature) -> ModelConfig {
    let configured = |datatype: Datatype| datatype.configured() as i32;
    ModelConfig {
        name: model.to_owned(),
        platform: platform.to_owned(),
        backend: "mainstay".into(),
        max_batch_size: i32::try_from(signature.max_batch).unwrap_or(i32::MAX),
        input: signature
            .inputs
            .iter()
            .map(|input| proto::ModelInput {
                name: input.name.clone(),
                data_type: configured(input.datatype),
                dims: input.dims.clone(),
                optional: input.optional,
                ..Default::default()
            })
            .collect(),
        output: signature
            .outputs
            .iter()
            .map(|output| proto::ModelOutput {
                name: output.name.clone(),
                data_type: configured(output.datatype),
                dims: output.dims.clone(),
                ..Default::default()
            })
            .collect(),
        scheduling_choice: Some(proto::model_config::SchedulingChoice::DynamicBatching(Default::default())),
        ..Default::default()
    }
}
