//! A network that says what a test tells it to, and servers on this machine.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mainstay_base::{Error, Result, SeededRandom, VirtualClock};
use mainstay_outbound::{Connection, Grants, Network, Outbound, SecretKey, Secrets, Target};
use mainstay_store::Store;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

pub const NOW_MS: i64 = 1_700_000_000_000;
pub const HUNTER: &str = "hunter2-hunter2";

/// Names resolve to the first of their answers, of which the last one stays; connections get the next answer.
#[derive(Default)]
pub struct Fake {
    names: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    answers: Mutex<VecDeque<http::Response<Bytes>>>,
    pub refused: Mutex<Vec<IpAddr>>,
    pub resolved: Mutex<Vec<String>>,
    pub targets: Mutex<Vec<Target>>,
    pub requests: Arc<Mutex<Vec<http::Request<Bytes>>>>,
}

impl Fake {
    pub fn name(&self, host: &str, answers: &[&str]) {
        let read = |list: &&str| list.split_whitespace().map(|address| address.parse().unwrap()).collect();
        self.names.lock().insert(host.to_owned(), answers.iter().map(read).collect());
    }

    pub fn answer(&self, status: u16, location: Option<&str>, body: &str) {
        let mut answer = http::Response::builder().status(status).header("connection", "x-hop").header("x-hop", "1");
        if let Some(location) = location {
            answer = answer.header("location", location);
        }
        self.answers.lock().push_back(answer.body(Bytes::copy_from_slice(body.as_bytes())).unwrap());
    }

    pub fn addresses(&self) -> Vec<String> {
        self.targets.lock().iter().map(|target| target.address.to_string()).collect()
    }
}

struct FakeConnection {
    answer: http::Response<Bytes>,
    requests: Arc<Mutex<Vec<http::Request<Bytes>>>>,
}

#[async_trait]
impl Network for Fake {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        self.resolved.lock().push(host.to_owned());
        let mut names = self.names.lock();
        let answers = names.get_mut(host).ok_or_else(|| Error::unavailable(format!("`{host}` has no address")))?;
        Ok(if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() })
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>> {
        self.targets.lock().push(target.clone());
        if self.refused.lock().contains(&target.address.ip()) {
            return Err(Error::unavailable("nobody listens there"));
        }
        let answer = self.answers.lock().pop_front().expect("the test knows of this call");
        Ok(Box::new(FakeConnection { answer, requests: self.requests.clone() }))
    }
}

#[async_trait]
impl Connection for FakeConnection {
    async fn send(
        self: Box<Self>,
        request: http::Request<Bytes>,
        limit_bytes: usize,
    ) -> Result<(http::Response<Bytes>, bool)> {
        self.requests.lock().push(request);
        let is_more = self.answer.body().len() > limit_bytes;
        Ok((self.answer.map(|body| body.slice(..body.len().min(limit_bytes))), is_more))
    }
}

/// Calls of `p`, which may call these hosts and has the secret `token`.
pub async fn outbound(network: Arc<dyn Network>, store: Store, grants: Grants) -> Outbound {
    let random = Arc::new(SeededRandom::new(7));
    let secrets = Secrets::new(store, SecretKey::new([7; 32]), random.clone());
    secrets.put("p", "token", HUNTER.as_bytes()).await.unwrap();
    let outbound = Outbound::new(network, secrets, Arc::new(VirtualClock::new(NOW_MS)), random);
    outbound.set_grants("p", Some(grants)).unwrap();
    outbound
}

/// What a server saw: the head as text, and the body.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (is, value) = line.split_once(':')?;
            is.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A server on this machine: `answers` in their order, the last one for ever. An empty answer is none, for ever.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(answers: &[&str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, answers) =
            (server.seen.clone(), answers.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let answer = answers[number.min(answers.len() - 1)].clone();
                tokio::spawn(serve(stream, answer, seen.clone()));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn grants(&self) -> Grants {
        Grants::default().with_private(&format!("http://{}", self.address)).unwrap()
    }
}

pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, answer: String, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let mut one = Seen { head, body: Vec::new() };
    let length = one.header("content-length").map_or(0, |length| length.parse().unwrap());
    one.body.resize(length, 0);
    stream.read_exact(&mut one.body).await.unwrap();
    seen.lock().push(one);
    if answer.is_empty() {
        return tokio::time::sleep(Duration::from_secs(600)).await;
    }
    // The other side may have read enough.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
