//! Servers for the tests, and what is asked of them.
//!
//! Owns [`Server`]: it listens on this machine and does to each connection what its script says. Separate, so that a test shows
//! only what it is about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mainstay_base::ErrorKind;
use mainstay_inference::{InferAnswer, InferRequest, Tensor};
use mainstay_traffic::{Ask, Backend, Failure};
use mainstay_upstreams::{FailureKind, Upstream, UpstreamOptions, UpstreamStatistics, Upstreams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// A server that is there until this is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection to a [`Server`], as its script sees it.
pub struct Visit {
    /// 0 for the first.
    pub number: usize,
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Server {
    pub async fn start<F>(script: impl Fn(Visit) -> F + Send + Sync + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = accepted.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(Visit { number, stream, unread: Vec::new() }));
            }
        });
        Server { address, accepted, task }
    }

    /// Answers each request on each connection with these bytes, and closes the connection after them.
    pub async fn saying(answer: impl Into<Vec<u8>>) -> Server {
        let answer: Arc<[u8]> = answer.into().into();
        Server::start(move |mut visit| {
            let answer = answer.clone();
            async move {
                if visit.request().await.is_some() {
                    visit.write(&answer).await;
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}/v2/models/m", self.address)
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn upstream(&self) -> Arc<Upstream> {
        self.upstream_with(UpstreamOptions::default())
    }

    pub fn upstream_with(&self, options: UpstreamOptions) -> Arc<Upstream> {
        open(&self.url(), options)
    }
}

impl Visit {
    /// The next request: its head and its body; none when the client closes.
    pub async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head_bytes = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let head = String::from_utf8(self.unread.drain(..head_bytes).collect()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            self.read().await?;
        }
        Some((head, self.unread.drain(..length).collect()))
    }

    async fn read(&mut self) -> Option<()> {
        let mut buffer = [0; 16 << 10];
        let read = self.stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        self.unread.extend_from_slice(&buffer[..read]);
        Some(())
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        // A client that is gone is what some tests are about.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Returns when the client has closed its side.
    pub async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }
}

/// Tells of moments: what a server saw, and when.
pub fn moments() -> (impl Fn() + Clone + Send + Sync + 'static, UnboundedReceiver<Instant>) {
    let (sender, receiver) = unbounded_channel();
    let tell = move || {
        // Whoever does not listen any more has seen what it wanted.
        let _ = sender.send(Instant::now());
    };
    (tell, receiver)
}

/// An upstream with connections of its own.
pub fn open(url: &str, options: UpstreamOptions) -> Arc<Upstream> {
    Upstreams::default().open(url, &options).unwrap()
}

pub fn ask_ms(ms: u64) -> Ask {
    Ask { deadline: Instant::now() + Duration::from_millis(ms), trace: None, tenant: None, attempt: 0 }
}

/// Enough for anything that works.
pub fn ask() -> Ask {
    ask_ms(20_000)
}

pub fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

pub fn request() -> Arc<InferRequest> {
    numbers(&[1.0, 2.0, 3.0])
}

pub fn numbers(values: &[f32]) -> Arc<InferRequest> {
    let inputs = vec![Tensor::fp32("x", &[values.len() as u64], values).unwrap()];
    Arc::new(InferRequest { model: "asked".into(), inputs, ..InferRequest::default() })
}

pub fn text(words: &str) -> Arc<InferRequest> {
    let inputs = vec![Tensor::bytes("text_input", &[1], [words]).unwrap()];
    Arc::new(InferRequest { model: "asked".into(), inputs, ..InferRequest::default() })
}

/// A whole answer of HTTP with this body.
pub fn answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

/// An answer of the protocol, in JSON.
pub const GOOD: &str =
    r#"{"model_name":"m","model_version":"3","outputs":[{"name":"y","datatype":"INT64","shape":[1],"data":[7]}]}"#;

pub fn good() -> InferAnswer {
    let outputs = vec![Tensor::int64("y", &[1], &[7]).unwrap()];
    InferAnswer { model: "m".into(), version: "3".into(), parameters: vec![], outputs }
}

/// The one failure that was counted.
#[track_caller]
pub fn only_failure(statistics: &UpstreamStatistics) -> FailureKind {
    match &statistics.failures[..] {
        [(kind, 1)] => *kind,
        other => panic!("{other:?} where one failure was expected"),
    }
}

/// How a failure is seen by who asked: its kind, whether again, and whose fault.
pub fn seen(failure: &Failure) -> (ErrorKind, bool, bool) {
    (failure.error.kind(), failure.is_retryable, failure.is_fault)
}

/// Wait until something is so; a test that waits too long fails.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Ask, and expect a failure that is counted as this and seen as that.
pub async fn check_failure(upstream: &Upstream, kind: FailureKind, expect: (ErrorKind, bool, bool), words: &str) {
    let failure = upstream.infer(&request(), &ask()).await.unwrap_err();
    assert_eq!(seen(&failure), expect, "{failure}");
    assert!(failure.error.message().contains(words), "`{failure}` does not say `{words}`");
    assert_eq!(only_failure(&upstream.statistics()), kind, "{failure}");
}
