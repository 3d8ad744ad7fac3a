//! What traffic adds to a request: deciding where it goes, and the whole way with a backend that answers at once.
//!
//! Owns a measurement, printed. Bounded by its counts; it fails where traffic does. Run it with
//! `cargo run --release -p mainstay-traffic --example route_rate`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use mainstay_base::{Result, SeededRandom, SystemClock};
use mainstay_inference::{Datatype, InferAnswer, InferRequest, Tensor};
use mainstay_store::Store;
use mainstay_traffic::*;
use smallvec::smallvec;

const COUNT: usize = 200_000;
const ROUNDS: usize = 9;

struct AtOnce;

fn tensor(name: &str, values: usize) -> Tensor {
    let data = Bytes::from(vec![0_u8; 4 * values]);
    Tensor { name: name.to_owned(), datatype: Datatype::Fp32, shape: smallvec![1, values as u64], data }
}

#[async_trait]
impl Backend for AtOnce {
    fn identity(&self) -> Identity {
        Identity { model: "m".into(), version: "1".into(), run: None }
    }

    async fn infer(&self, _: &Arc<InferRequest>, _: &Ask) -> Result<InferAnswer, Failure> {
        Ok(InferAnswer { outputs: vec![tensor("score", 1)], ..InferAnswer::default() })
    }

    async fn warm(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn ready(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

struct AllAtOnce;

#[async_trait]
impl Backends for AllAtOnce {
    async fn resolve(&self, _: &Reference) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(AtOnce))
    }
}

const VARIANTS: &str = r#"
variants = [
    { name = "a", backend = "models:/a/1" },
    { name = "b", backend = "models:/b/1" },
    { name = "c", backend = "models:/c/1" },
]
"#;

/// The smallest plan, and what each thing adds to it.
const PLAIN: &str = "[plan.split]\nshares = [{ variant = \"a\", percent = 100 }]\n";
const PARTS: [(&str, &str); 5] = [
    ("tokens", "[plan.limits.tenant]\nrate = { per-second = 1000000, burst = 1000000 }\n"),
    ("breaker-rate", "[plan.breaker]\nrate = { percent = 50, window-ms = 10000, minimum = 20 }\n"),
    (
        "guard",
        "[[variants]]\nname = \"a\"\nbackend = \"models:/a/1\"\n[[variants.guard.outputs]]\noutput = \"score\"\nmin = 0\nmax = 1\n",
    ),
    ("segments", "[plan.signals]\nsegment = { header = \"x-team\" }\n"),
    ("tripwire", TRIPWIRE),
];

/// Rules and a sticky split in three.
const SPLIT: &str = r#"
[[plan.rules]]
when = [{ of = { header = "x-team" }, is = { exact = "blue" } }]
split = { shares = [{ variant = "c", percent = 100 }] }

[plan.split]
shares = [{ variant = "a", percent = 80 }, { variant = "b", percent = 15 }, { variant = "c", percent = 5 }]
key = { header = "x-user" }
"#;

const TRIPWIRE: &str = r#"
[[plan.tripwires]]
name = "errors"
signal = "errors"
percent = 2
window-ms = 300000
minimum = 100
plan = "safe"

[[plans]]
name = "safe"
plan.split.shares = [{ variant = "a", percent = 100 }]
"#;

/// The median of several rounds, in nanoseconds each.
fn show(what: &str, mut rounds: Vec<Duration>) {
    rounds.sort();
    let each = |round: Duration| round.as_nanos() as f64 / COUNT as f64;
    let (best, median, worst) = (each(rounds[0]), each(rounds[ROUNDS / 2]), each(rounds[ROUNDS - 1]));
    println!("{what}: {median:.0} ns (best {best:.0}, worst {worst:.0})");
}

async fn measure(traffic: &Traffic, endpoint: &str) -> Result<()> {
    let tenant: Arc<str> = "acme".into();
    let headers: Vec<HeaderMap> = (0..1_000)
        .map(|user| {
            let pairs = [("x-user", format!("user-{user}")), ("x-team", "red".to_owned())];
            HeaderMap::from_iter(
                pairs.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))),
            )
        })
        .collect();
    let request = InferRequest { model: endpoint.to_owned(), inputs: vec![tensor("x", 30)], ..InferRequest::default() };
    let caller = |number: usize| Caller { tenant: Some(&tenant), ..Caller::new(&headers[number % headers.len()]) };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for number in 0..COUNT {
            std::hint::black_box(traffic.assign(endpoint, caller(number), &request)?);
        }
        rounds.push(began.elapsed());
    }
    show(&format!("{endpoint}: deciding"), rounds);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let requests: Vec<InferRequest> = (0..COUNT).map(|_| request.clone()).collect();
        let began = Instant::now();
        for (number, request) in requests.into_iter().enumerate() {
            std::hint::black_box(traffic.infer(endpoint, caller(number), request).await?);
        }
        rounds.push(began.elapsed());
    }
    show(&format!("{endpoint}: the whole way"), rounds);
    Ok(())
}

/// What the backend alone takes, to compare with.
async fn bare() {
    let backend: Arc<dyn Backend> = Arc::new(AtOnce);
    let request = InferRequest { inputs: vec![tensor("x", 30)], ..InferRequest::default() };
    let ask = Ask { deadline: Instant::now() + Duration::from_secs(60), trace: None, tenant: None, attempt: 0 };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let requests: Vec<_> = (0..COUNT).map(|_| Arc::new(request.clone())).collect();
        let began = Instant::now();
        for request in &requests {
            std::hint::black_box(backend.infer(request, &ask).await.is_ok());
        }
        rounds.push(began.elapsed());
    }
    show("the backend alone", rounds);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let traffic = Traffic::open(Foundation {
        store: Store::in_memory(),
        clock: Arc::new(SystemClock::default()),
        random: Arc::new(SeededRandom::new(1)),
        backends: Arc::new(AllAtOnce),
        watch: Arc::new(Unwatched),
    })
    .await?;
    bare().await;
    let part = |(name, part): (&str, &str)| {
        let variants = if name == "guard" { "" } else { VARIANTS };
        (name.to_owned(), format!("{variants}{part}{PLAIN}"))
    };
    let all: String = PARTS.iter().filter(|(name, _)| *name != "guard").map(|(_, part)| *part).collect();
    let mut plans = vec![("plain".to_owned(), format!("{VARIANTS}{PLAIN}"))];
    plans.extend(PARTS.map(part));
    plans.push(("split".to_owned(), format!("{VARIANTS}{SPLIT}")));
    plans.push(("full".to_owned(), format!("{VARIANTS}{SPLIT}{all}")));
    for (name, plan) in plans {
        let spec = EndpointSpec::from_toml(&format!("name = \"{name}\"\n{plan}"))?;
        traffic.apply(spec, None, Reason::default()).await?;
        measure(&traffic, &name).await?;
    }
    Ok(())
}
