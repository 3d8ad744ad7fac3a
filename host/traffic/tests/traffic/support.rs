//! A house with backends that do as they are told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::StreamExt;
use http::HeaderMap;
use mainstay_base::{Clock, Error, Result, SeededRandom};
use mainstay_inference::{Datatype, InferAnswer, InferRequest, Tensor};
use mainstay_store::Store;
use mainstay_traffic::*;
use smallvec::smallvec;
use tokio::time::sleep;

pub const START_MS: i64 = 1_700_000_000_000;

/// The clock of tokio, which tests can hold still.
pub struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now_ms(&self) -> i64 {
        START_MS + self.0.elapsed().as_millis() as i64
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What a backend does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Do {
    Answer(f64),
    /// It fails, and asking again does no harm.
    Fail,
    /// It fails, and who knows what it did.
    FailForGood,
    /// It says that the request makes no sense.
    Refuse,
    Hang,
    AnswerAfter(u64),
}

pub struct FakeBackend {
    pub name: String,
    pub does: Mutex<Do>,
    /// Done first, one after the other.
    pub script: Mutex<Vec<Do>>,
    pub calls: AtomicU32,
    pub warmed: AtomicU32,
    pub under_way: AtomicU32,
    pub cancelled: AtomicU32,
    pub shared: Mutex<Option<String>>,
    pub can_warm: Mutex<bool>,
    /// The deadline of the last call, as it was left then.
    pub time_left: Mutex<Option<Duration>>,
}

struct UnderWay<'a>(&'a FakeBackend, bool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl FakeBackend {
    fn new(name: &str) -> FakeBackend {
        FakeBackend {
            name: name.to_owned(),
            does: Mutex::new(Do::Answer(0.5)),
            script: Mutex::default(),
            calls: AtomicU32::new(0),
            warmed: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            cancelled: AtomicU32::new(0),
            shared: Mutex::default(),
            can_warm: Mutex::new(true),
            time_left: Mutex::default(),
        }
    }

    pub fn does(&self, what: Do) {
        *self.does.lock().unwrap() = what;
    }

    /// Do these first.
    pub fn first(&self, steps: &[Do]) {
        *self.script.lock().unwrap() = steps.iter().rev().copied().collect();
    }

    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn cancelled(&self) -> u32 {
        self.cancelled.load(Ordering::SeqCst)
    }

    fn next(&self) -> Do {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.script.lock().unwrap().pop().unwrap_or(*self.does.lock().unwrap())
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn identity(&self) -> Identity {
        Identity { model: self.name.as_str().into(), version: "1".into(), run: Some("run-1".into()) }
    }

    fn resource(&self) -> Option<String> {
        self.shared.lock().unwrap().clone()
    }

    async fn infer(&self, _: &Arc<InferRequest>, ask: &Ask) -> Result<InferAnswer, Failure> {
        let what = self.next();
        let left = ask.deadline.saturating_duration_since(tokio::time::Instant::now().into_std());
        *self.time_left.lock().unwrap() = Some(left);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let mut under_way = UnderWay(self, false);
        let result = match what {
            Do::Answer(score) => Ok(answer(score)),
            Do::Fail => Err(Failure::retryable(Error::unavailable("told to fail"))),
            Do::FailForGood => Err(Error::internal("told to fail for good").into()),
            Do::Refuse => Err(Error::invalid("told to refuse").into()),
            Do::Hang => futures::future::pending().await,
            Do::AnswerAfter(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Ok(answer(0.5))
            }
        };
        under_way.1 = true;
        result
    }

    /// Each step of the script is a part; behind the last the stream ends.
    async fn stream(&self, _: &Arc<InferRequest>, _: &Ask) -> Result<AnswerStream, Failure> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let steps: Vec<Do> = self.script.lock().unwrap().drain(..).rev().collect();
        let parts = futures::stream::iter(steps).then(|step| async move {
            match step {
                Do::Answer(score) => Ok(answer(score)),
                Do::Hang => futures::future::pending().await,
                Do::AnswerAfter(ms) => {
                    sleep(Duration::from_millis(ms)).await;
                    Ok(answer(0.5))
                }
                Do::Fail => Err(Failure::retryable(Error::unavailable("told to fail"))),
                Do::FailForGood | Do::Refuse => Err(Error::internal("told to fail for good").into()),
            }
        });
        Ok(parts.boxed())
    }

    async fn warm(&self, _: Instant) -> Result<()> {
        self.warmed.fetch_add(1, Ordering::SeqCst);
        match *self.can_warm.lock().unwrap() {
            true => Ok(()),
            false => Err(Error::unavailable("told not to warm")),
        }
    }

    async fn ready(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

/// Backends by the text of their reference, made when they are first asked for; fallbacks by name.
#[derive(Default)]
pub struct FakeBackends {
    pub known: Mutex<HashMap<String, Arc<FakeBackend>>>,
    pub fallbacks: Mutex<HashMap<String, Arc<FakeFallback>>>,
    /// What a reference leads to instead.
    pub moved: Mutex<HashMap<String, String>>,
}

impl FakeBackends {
    pub fn get(&self, reference: &str) -> Arc<FakeBackend> {
        let name = self.moved.lock().unwrap().get(reference).cloned().unwrap_or_else(|| reference.to_owned());
        let mut known = self.known.lock().unwrap();
        known.entry(name.clone()).or_insert_with(|| Arc::new(FakeBackend::new(&name))).clone()
    }
}

#[async_trait]
impl Backends for FakeBackends {
    async fn resolve(&self, reference: &Reference) -> Result<Arc<dyn Backend>> {
        Ok(self.get(&reference.to_string()))
    }

    async fn fallback(&self, name: &str) -> Result<Arc<dyn Fallback>> {
        match self.fallbacks.lock().unwrap().get(name).cloned() {
            Some(fallback) => Ok(fallback),
            None => Err(Error::not_found(format!("there is no fallback `{name}`"))),
        }
    }
}

pub struct FakeFallback {
    pub does: Do,
    pub resource: Option<String>,
    pub asked: Mutex<Vec<Why>>,
}

#[async_trait]
impl Fallback for FakeFallback {
    fn label(&self) -> String {
        "popular".to_owned()
    }

    fn resource(&self) -> Option<String> {
        self.resource.clone()
    }

    async fn answer(&self, instead: &Instead<'_>) -> Result<StoodIn> {
        self.asked.lock().unwrap().push(instead.why);
        match self.does {
            Do::Answer(score) => Ok(answer(score).into()),
            Do::Hang => futures::future::pending().await,
            _ => Err(Error::unavailable("told to fail")),
        }
    }
}

/// Remembers everything that it is told.
#[derive(Default)]
pub struct Remembering {
    pub happened: Mutex<Vec<Happened>>,
    pub changed: Mutex<Vec<Changed>>,
}

impl Watch for Remembering {
    fn happened(&self, happened: Happened) {
        self.happened.lock().unwrap().push(happened);
    }

    fn changed(&self, change: Change) {
        self.changed.lock().unwrap().push(change.what);
    }
}

pub struct House {
    pub store: Store,
    pub backends: Arc<FakeBackends>,
    pub watch: Arc<Remembering>,
    pub traffic: Traffic,
}

impl House {
    pub async fn new() -> House {
        House::on(Store::in_memory(), Arc::default()).await
    }

    pub async fn on(store: Store, backends: Arc<FakeBackends>) -> House {
        let watch: Arc<Remembering> = Arc::default();
        let clock = Arc::new(TokioClock(tokio::time::Instant::now()));
        let traffic = Traffic::open(Foundation {
            store: store.clone(),
            clock,
            random: Arc::new(SeededRandom::new(7)),
            backends: backends.clone(),
            watch: watch.clone(),
        });
        House { traffic: traffic.await.expect("it opens"), store, backends, watch }
    }

    /// A house with an endpoint `e` of variants `a`, `b` and `c`, all to `a`, without retries unless `change` says so.
    pub async fn with(change: impl FnOnce(&mut EndpointSpec)) -> House {
        let house = House::new().await;
        house.apply(spec(change)).await;
        house
    }

    pub async fn apply(&self, spec: EndpointSpec) -> EndpointRecord {
        self.traffic.apply(spec, None, reason()).await.expect("a good specification")
    }

    pub fn backend(&self, variant: &str) -> Arc<FakeBackend> {
        self.backends.get(&format!("models:/{variant}/1"))
    }

    pub fn fallback(&self, name: &str, does: Do, resource: Option<&str>) -> Arc<FakeFallback> {
        let resource = resource.map(str::to_owned);
        let fallback = Arc::new(FakeFallback { does, resource, asked: Mutex::default() });
        self.backends.fallbacks.lock().unwrap().insert(name.to_owned(), fallback.clone());
        fallback
    }

    pub async fn ask(&self) -> Result<Served, Refused> {
        self.ask_with(|_| {}).await
    }

    pub async fn ask_within(&self, ms: u64) -> Result<Served, Refused> {
        let headers = HeaderMap::new();
        let deadline = Some(tokio::time::Instant::now().into_std() + Duration::from_millis(ms));
        self.traffic.infer("e", Caller { deadline, ..Caller::new(&headers) }, request()).await
    }

    pub async fn ask_with(&self, change: impl FnOnce(&mut HeaderMap)) -> Result<Served, Refused> {
        let mut headers = HeaderMap::new();
        change(&mut headers);
        let caller = Caller { may_inject_faults: true, ..Caller::new(&headers) };
        self.traffic.infer("e", caller, request()).await
    }

    pub async fn ask_as(&self, tenant: &str) -> Result<Served, Refused> {
        let (headers, tenant) = (HeaderMap::new(), Arc::from(tenant));
        self.traffic.infer("e", Caller { tenant: Some(&tenant), ..Caller::new(&headers) }, request()).await
    }

    /// Why each of so many requests got no answer as planned.
    pub async fn whys(&self, count: usize) -> Vec<Option<Why>> {
        let mut whys = Vec::new();
        for _ in 0..count {
            whys.push(match self.ask().await {
                Ok(served) => served.labels.fallback.map(|fallback| fallback.why),
                Err(refused) => Some(refused.why),
            });
        }
        whys
    }

    pub fn breaker(&self, variant: &str) -> BreakerState {
        let status = self.traffic.status("e").unwrap();
        status.variants.iter().find(|known| &*known.name == variant).expect("a variant").breaker
    }

    /// What was counted of a variant, all windows together.
    pub fn counted(&self, variant: Option<&str>, is_mirrored: bool) -> SignalWindow {
        let all = self.traffic.signals("e").unwrap();
        let is_it = |series: &&Series| series.variant.as_deref() == variant && series.segment.is_none();
        let series = all.iter().filter(is_it).find(|series| series.is_mirrored == is_mirrored).expect("it was counted");
        let mut windows = series.windows.iter().cloned();
        let first = windows.next().expect("a window");
        windows.fold(first, |mut all, window| {
            all.merge(&window);
            all
        })
    }

    pub fn plan(&self) -> (u64, Option<String>) {
        let status = self.traffic.status("e").unwrap();
        (status.plan_version, status.plan_name)
    }

    pub async fn news(&self) -> Vec<Changed> {
        settle().await;
        self.watch.changed.lock().unwrap().clone()
    }
}

/// Let every task go on that can.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Wait for something that another thread brings about.
pub async fn eventually(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it never came true");
}

pub fn reason() -> Reason {
    Reason::new("tests", "to see")
}

pub fn spec(change: impl FnOnce(&mut EndpointSpec)) -> EndpointSpec {
    let variant = |name: &str| VariantSpec::new(name, format!("models:/{name}/1").parse().unwrap());
    let mut spec = EndpointSpec {
        name: "e".into(),
        description: String::new(),
        variants: ["a", "b", "c"].map(variant).into(),
        plan: Plan::of("a"),
        plans: Vec::new(),
        faults: Vec::new(),
    };
    spec.plan.retry.retries = 0;
    spec.plan.breaker.jitter = 0.0;
    change(&mut spec);
    spec
}

pub fn shares(shares: &[(&str, f64)]) -> Vec<Share> {
    shares.iter().map(|(variant, percent)| Share { variant: (*variant).into(), percent: *percent }).collect()
}

pub fn answer(score: f64) -> InferAnswer {
    InferAnswer { outputs: vec![fp64("score", score)], ..InferAnswer::default() }
}

pub fn fp64(name: &str, value: f64) -> Tensor {
    let data = Bytes::copy_from_slice(&value.to_le_bytes());
    Tensor { name: name.into(), datatype: Datatype::Fp64, shape: smallvec![1], data }
}

pub fn request() -> InferRequest {
    InferRequest { model: "e".into(), inputs: vec![fp64("x", 1.0)], ..InferRequest::default() }
}

pub fn score(served: &Served) -> f64 {
    f64::from_le_bytes(served.answer.outputs[0].data[..].try_into().unwrap())
}
