//! What a proxied request costs: `proxy_rate [REQUESTS] [CONCURRENT] [FLOATS]`.
//!
//! Three servers in one process, each with threads of its own: a client that asks (`ask`), a proxy of the house's front before an
//! upstream (`proxy`), and a server that gives its input back (`serve`). Prints how much processor time the threads of each took
//! for a request, as the kernel counted it; the proxy's is what is to be compared with other proxies. Then the same without the
//! proxy's own front: an upstream asked in place, which is what this room adds to a request of the house (`upstream`).

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mainstay_base::{Error, Result};
use mainstay_inference::{
    Answered, Asker, Front, InferAnswer, InferRequest, Limits, ModelMetadata, Models, ServerMetadata, Tensor,
};
use mainstay_traffic::{Ask, Backend};
use mainstay_upstreams::{UpstreamOptions, Upstreams};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Answers by itself, or has an upstream answer.
struct House(Option<Arc<dyn Backend>>);

#[async_trait::async_trait]
impl Models for House {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<bool> {
        Ok(true)
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata::default())
    }

    async fn metadata(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<ModelMetadata> {
        Err(Error::not_found("nobody asks for it here"))
    }

    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered> {
        let answer = match &self.0 {
            None => InferAnswer {
                model: request.model,
                version: "1".to_owned(),
                parameters: vec![],
                outputs: vec![Tensor::fp32("y", &[1], &[0.5])?],
            },
            Some(upstream) => {
                let deadline = asker.deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(10));
                let ask = Ask { deadline, trace: None, tenant: None, attempt: 0 };
                upstream.infer(&Arc::new(request), &ask).await.map_err(|failure| failure.error)?
            }
        };
        Ok(answer.into())
    }
}

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().expect("a runtime")
}

/// Serve in that runtime, and return the address.
fn serve(runtime: &Runtime, house: House) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let front = Front::new(Arc::new(house), Limits::default());
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let front = front.clone();
            stream.set_nodelay(true).expect("a socket");
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let front = front.clone();
                    async move { Ok::<_, Infallible>(front.answer(request, Asker::default()).await) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    format!("http://{address}/v2/models/m")
}

/// Processor time of all threads of this name, in nanoseconds.
fn cpu_ns(name: &str) -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("a system with /proc").flatten();
    let of_name =
        threads.filter(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    let ns = |thread: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    of_name.filter_map(ns).sum()
}

/// Ask so often, so many at once; prints what the threads of each name took.
fn measure(what: &str, runtime: &Runtime, url: &str, names: &[&str], [requests, concurrent, floats]: [usize; 3]) {
    let upstream = Upstreams::default().connect(url, &UpstreamOptions::default()).expect("an upstream");
    let input = Tensor::fp32("x", &[1, floats as u64], &vec![1.5; floats]).expect("a tensor");
    let request = Arc::new(InferRequest { inputs: vec![input], ..InferRequest::default() });
    let run = |requests: usize| {
        let asking: Vec<_> = (0..concurrent)
            .map(|_| {
                let (upstream, request) = (upstream.clone(), request.clone());
                runtime.spawn(async move {
                    for _ in 0..requests / concurrent {
                        let deadline = Instant::now() + Duration::from_secs(10);
                        let ask = Ask { deadline, trace: None, tenant: None, attempt: 0 };
                        upstream.infer(&request, &ask).await.expect("an answer");
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for asked in asking {
                asked.await.expect("no panic");
            }
        });
    };
    run(requests / 10);
    let (before, began) = (names.iter().map(|name| cpu_ns(name)).collect::<Vec<_>>(), Instant::now());
    run(requests);
    let took = began.elapsed();
    let each = names.iter().zip(before).map(|(name, before)| {
        let us = (cpu_ns(name) - before) as f64 / 1_000.0 / requests as f64;
        format!("{name} {us:.1} µs")
    });
    let rate = requests as f64 / took.as_secs_f64();
    println!(
        "{what}: {} of processor time a request, {rate:.0} requests a second",
        each.collect::<Vec<_>>().join(", ")
    );
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().expect("a number"));
    let mut number = |otherwise| numbers.next().unwrap_or(otherwise);
    let sizes = [number(100_000), number(16), number(30)];
    let (serving, proxying, asking) = (runtime("serve"), runtime("proxy"), runtime("ask"));
    let behind = serve(&serving, House(None));
    let upstream = Upstreams::default().connect(&behind, &UpstreamOptions::default()).expect("an upstream");
    let proxy = serve(&proxying, House(Some(upstream)));
    for _ in 0..3 {
        measure("proxied", &asking, &proxy, &["ask", "proxy", "serve"], sizes);
        let in_place = runtime("upstream");
        measure("in place", &in_place, &behind, &["upstream", "serve"], sizes);
    }
}
