//! A gateway on free ports, a fake plugin, and a client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{Error, ErrorKind, OsRandom, Result, SystemClock};
use mainstay_gateway::{
    Admin, ApiFuture, ApiTarget, AuthMode, BlobSweep, CallError, CallResult, Gateway, GatewayOptions, GatewayState,
    HttpReply, HttpRequest, InstallUpload, PluginDetail, PluginRoutes, PluginSummary, Readiness, RequestBody, Right,
    Rooms, RouteDetail, RoutePath, RouteSpec, Routes, SharedRegistry, Tokens, TraceHook, VersionInfo,
};
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, BlobInfo, Blobs};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const INLINE_BYTES: u64 = 1_000;
pub const STORED_BYTES_MAX: u64 = 1 << 20;

/// A gateway and all it stands on.
pub struct Server {
    pub gateway: Gateway,
    pub tokens: Tokens,
    pub blobs: Blobs,
    pub routes: Routes,
    pub readiness: Readiness,
    pub plugin: Arc<Fake>,
    pub admin: Arc<FakeAdmin>,
    folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Server {
        Server::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut GatewayOptions)) -> Server {
        Server::prepare(change, &[]).await.unwrap()
    }

    /// With tokens of these names and roles, made before it starts.
    pub async fn prepare(
        change: impl FnOnce(&mut GatewayOptions),
        tokens: &[(&str, mainstay_gateway::Role)],
    ) -> Result<Server> {
        Server::assemble(change, tokens, None).await
    }

    pub async fn traced(hook: Arc<dyn TraceHook>) -> Server {
        Server::assemble(|_| {}, &[], Some(hook)).await.unwrap()
    }

    async fn assemble(
        change: impl FnOnce(&mut GatewayOptions),
        tokens: &[(&str, mainstay_gateway::Role)],
        trace_hook: Option<Arc<dyn TraceHook>>,
    ) -> Result<Server> {
        let folder = tempfile::tempdir().unwrap();
        let mut options = GatewayOptions {
            http: ([127, 0, 0, 1], 0).into(),
            grpc: None,
            auth: AuthMode::BeyondLoopback,
            scratch_folder: Some(folder.path().join("scratch")),
            ..GatewayOptions::default()
        };
        change(&mut options);
        let store = Store::in_memory();
        let clock = Arc::new(SystemClock::default());
        let backend = BlobBackend::Local { folder: folder.path().join("blobs") };
        let blobs = Blobs::open(store.clone(), backend, clock.clone(), Duration::from_secs(60))?;
        let all_tokens = Tokens::open(store.clone(), clock, Arc::new(OsRandom))?;
        for (name, role) in tokens {
            all_tokens.create(name, *role, None).await?;
        }
        let plugin = Arc::new(Fake::default());
        let routes = Routes::new();
        routes.replace(vec![claims("fake", plugin.clone()), open_plugin(plugin.clone())])?;
        let (admin, readiness) = (Arc::new(FakeAdmin::default()), Readiness::new());
        let state = GatewayState {
            routes: routes.clone(),
            blobs: blobs.clone(),
            tokens: all_tokens.clone(),
            admin: admin.clone(),
            rooms: Rooms::for_tests(&store).await?,
            inference: Arc::new(mainstay_inference::NoModels),
            readiness: readiness.clone(),
            registry: SharedRegistry::default(),
            version: VersionInfo {
                name: "mainstay".to_owned(),
                version: "0.1.0".to_owned(),
                commit: None,
                worlds: vec!["mainstay:api/api@0.1.0".to_owned()],
            },
            trace_hook,
        };
        let gateway = Gateway::start(options, state).await?;
        Ok(Server { gateway, tokens: all_tokens, blobs, routes, readiness, plugin, admin, folder })
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.gateway.http_addr()).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, head: &str, body: &[u8]) -> Reply {
        let mut client = self.connect().await;
        client.write(request(head, body).as_slice()).await;
        client.reply(head.starts_with("HEAD ")).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost"), b"").await
    }
}

/// A whole request: the head, a length if there is a body, the body.
pub fn request(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    if !body.is_empty() {
        bytes.extend_from_slice(format!("\r\ncontent-length: {}", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn claims(name: &str, target: Arc<Fake>) -> PluginRoutes {
    let route = |path: &str, methods: &[&str], right| RouteSpec {
        path: match path.strip_suffix('*') {
            Some(prefix) => RoutePath::Prefix(prefix.to_owned()),
            None => RoutePath::Exact(path.to_owned()),
        },
        methods: methods.iter().map(|method| method.to_string()).collect(),
        right,
        inline_body_bytes: INLINE_BYTES,
    };
    let routes = vec![
        route("/version", &["GET"], Right::None),
        route("/echo", &["GET"], Right::Read),
        route("/echo", &["POST", "PUT"], Right::Write),
        route("/echo/*", &["GET"], Right::Read),
        route("/guarded", &["GET"], Right::Admin),
        route("/store/*", &["PUT"], Right::Write),
        route("/blob/*", &["GET"], Right::Read),
        route("/fail/*", &["GET"], Right::Read),
        route("/slow", &["GET"], Right::Read),
    ];
    PluginRoutes { name: name.to_owned(), target, routes }
}

fn open_plugin(target: Arc<Fake>) -> PluginRoutes {
    PluginRoutes { name: "open".to_owned(), target, routes: Vec::new() }
}

/// A plugin that does what the path says.
#[derive(Default)]
pub struct Fake {
    pub calls: AtomicUsize,
    /// Calls to `/slow` that were begun, and that were dropped before their end.
    pub slow_begun: AtomicUsize,
    pub slow_dropped: Arc<AtomicUsize>,
}

impl ApiTarget for Fake {
    fn handle(&self, request: HttpRequest) -> ApiFuture<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(self.answer(request))
    }

    fn received(&self, request: HttpRequest, blob: BlobInfo) -> ApiFuture<'_> {
        Box::pin(async move {
            assert_eq!(request.body, RequestBody::Empty);
            match request.path.as_str() {
                "/store/again" => Ok(HttpReply::Receive { limit_bytes: 1, sha256: None }),
                _ => Ok(reply(201, json!({"sha256": blob.sha256, "md5": blob.md5, "size": blob.size_bytes}))),
            }
        })
    }
}

impl Fake {
    async fn answer(&self, request: HttpRequest) -> CallResult<HttpReply> {
        let path = request.path.as_str();
        let header = |name: &str| request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if let Some(kind) = path.strip_prefix("/fail/") {
            return fail(kind);
        }
        if let Some(sha256) = path.strip_prefix("/blob/") {
            let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
            return Ok(HttpReply::Send { sha256: sha256.to_owned(), headers });
        }
        if path == "/store/unwanted" {
            return Err(CallError::Failed(Error::not_found("there is no run `x`; list runs to see their ids")));
        }
        if path.starts_with("/store/") {
            let sha256 = header("x-sha256");
            return Ok(HttpReply::Receive { limit_bytes: STORED_BYTES_MAX, sha256 });
        }
        if path == "/slow" {
            self.slow_begun.fetch_add(1, Ordering::SeqCst);
            let mut guard = DropCount { count: self.slow_dropped.clone(), armed: true };
            let wait_ms = request.query.iter().find(|(key, _)| key == "ms").and_then(|(_, ms)| ms.parse().ok());
            tokio::time::sleep(Duration::from_millis(wait_ms.unwrap_or(60_000))).await;
            guard.armed = false;
        }
        Ok(reply(200, describe(&request)))
    }
}

struct DropCount {
    count: Arc<AtomicUsize>,
    armed: bool,
}

impl Drop for DropCount {
    fn drop(&mut self) {
        if self.armed {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn describe(request: &HttpRequest) -> Value {
    let body = match &request.body {
        RequestBody::Empty => json!("empty"),
        RequestBody::Bytes(bytes) => json!({"bytes": bytes.len()}),
        RequestBody::Waiting(announced) => json!({"waiting": announced}),
    };
    json!({
        "method": request.method, "path": request.path, "query": request.query, "headers": request.headers,
        "body": body, "principal": request.caller.principal, "rights": request.caller.rights,
        "base_url": request.base_url, "trace_id": request.trace_id,
    })
}

fn reply(status: u16, body: Value) -> HttpReply {
    let headers = [
        ("content-type", "application/json"),
        ("x-plugin", "fake"),
        // None of these is a plugin's to say.
        ("content-length", "7"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("bad header", "x"),
        ("x-bad-value", "a\r\nb: c"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    HttpReply::Respond { status, headers, body: body.to_string().into() }
}

fn fail(kind: &str) -> CallResult<HttpReply> {
    let plugin: Arc<str> = "fake".into();
    Err(match kind {
        "not-found" => CallError::Failed(Error::not_found("there is no run `x`")),
        "invalid" => CallError::Failed(Error::invalid("no")),
        "denied" => CallError::Failed(Error::denied("no")),
        "conflict" => CallError::Failed(Error::conflict("no")),
        "exhausted" => CallError::Failed(Error::exhausted("no")),
        "unavailable" => CallError::Failed(Error::unavailable("no")),
        "internal" => CallError::Failed(Error::new(ErrorKind::Internal, "mine")),
        "trap" => CallError::Trap { plugin, reason: "secret backtrace".to_owned() },
        "cpu" => CallError::TimedOut { plugin, deadline: mainstay_gateway::Deadline::Cpu, limit_ms: 5 },
        "memory" => CallError::OutOfMemory { plugin, limit_bytes: 1, wanted_bytes: 2 },
        "output" => CallError::OutputTooLarge { plugin, limit_bytes: 1 },
        "host-calls" => CallError::HostCalls { plugin, limit: 1 },
        "capability" => CallError::Denied { plugin, capability: "keys" },
        "busy" => CallError::Busy { plugin, concurrency: 1, queue: 1 },
        "quarantined" => CallError::Quarantined { plugin, failures: 3, retry_after_ms: 2_500 },
        "host" => CallError::Host(Error::internal("secret host detail")),
        "status" => return Ok(HttpReply::Respond { status: 101, headers: Vec::new(), body: Bytes::new() }),
        "no-content" => return Ok(HttpReply::Respond { status: 204, headers: Vec::new(), body: Bytes::new() }),
        "teapot" => return Ok(HttpReply::Respond { status: 418, headers: Vec::new(), body: "short".into() }),
        other => CallError::Host(Error::internal(format!("no failure `{other}`"))),
    })
}

/// An operator's hands that note what they were asked to do.
#[derive(Default)]
pub struct FakeAdmin {
    pub done: parking_lot::Mutex<Vec<String>>,
}

impl FakeAdmin {
    fn note(&self, what: impl Into<String>) {
        self.done.lock().push(what.into());
    }

    fn detail(&self, name: &str) -> Result<PluginDetail> {
        if name != "fake" {
            return Err(Error::not_found(format!("there is no plugin `{name}`; list them to see their names")));
        }
        Ok(PluginDetail {
            summary: summary(),
            digest: "00".repeat(32),
            license: "Apache-2.0".to_owned(),
            worlds: Vec::new(),
            capabilities: vec!["keys".to_owned()],
            grants: vec!["keys".to_owned()],
            routes: vec![RouteDetail { route: "GET /version".to_owned(), right: "none".to_owned() }],
            limits: [("memory-mib".to_owned(), 64)].into(),
            mount: "/plugins/fake/".to_owned(),
            config: json!({"password": "secret"}),
            problem: None,
        })
    }
}

fn summary() -> PluginSummary {
    let [name, version, description, state] =
        ["fake", "1.2.3", "Does what the path says", "running"].map(str::to_owned);
    PluginSummary { name, version, description, state }
}

#[async_trait::async_trait]
impl Admin for FakeAdmin {
    async fn plugins(&self) -> Result<Vec<PluginSummary>> {
        Ok(vec![summary()])
    }
    async fn plugin(&self, name: &str) -> Result<PluginDetail> {
        self.detail(name)
    }
    async fn install(&self, upload: InstallUpload) -> Result<PluginDetail> {
        let bytes = std::fs::read(&upload.file).unwrap();
        self.note(format!("install {} {:?} {} {:?}", bytes.len(), upload.grants, upload.grant_all, upload.config));
        if bytes == b"bad" {
            return Err(Error::invalid("this is no package; pack one with `mainstay plugin pack`"));
        }
        self.detail("fake")
    }
    async fn configure(&self, name: &str, config: Value) -> Result<PluginDetail> {
        self.note(format!("configure {name} {config}"));
        self.detail(name)
    }
    async fn remove(&self, name: &str) -> Result<()> {
        self.note(format!("remove {name}"));
        self.detail(name).map(drop)
    }
    async fn collect_garbage(&self) -> Result<BlobSweep> {
        Ok(BlobSweep { examined: 3, removed: 2, freed_bytes: 1 })
    }
}

/// A connection on which bytes are sent as they are.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The slug of a problem document; its form is checked.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        assert!(!document["detail"].as_str().unwrap().is_empty());
        assert!(!document["title"].as_str().unwrap().is_empty());
        document["type"].as_str().unwrap().strip_prefix("/-/problems/").unwrap().to_owned()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.unwrap();
    }

    pub async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer; panics when there is none within ten seconds.
    pub async fn reply(&mut self, to_head: bool) -> Reply {
        tokio::time::timeout(Duration::from_secs(10), self.try_reply(to_head))
            .await
            .expect("an answer in time")
            .unwrap()
    }

    pub async fn try_reply(&mut self, to_head: bool) -> std::io::Result<Reply> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            self.fill().await?;
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap())
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        if to_head || status == 204 || status == 304 || status < 200 {
            return Ok(reply);
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = self.chunks().await?;
            return Ok(reply);
        }
        let length: usize = reply.header("content-length").expect("a length").parse().unwrap();
        while self.buffer.len() < length {
            self.fill().await?;
        }
        reply.body = self.buffer.drain(..length).collect();
        Ok(reply)
    }

    async fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break end;
                }
                self.fill().await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).unwrap(), 16).unwrap();
            while self.buffer.len() < end + 2 + size + 2 {
                self.fill().await?;
            }
            body.extend_from_slice(&self.buffer[end + 2..end + 2 + size]);
            self.buffer.drain(..end + 2 + size + 2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Whether the host closes the connection within this time. Whatever it still says is dropped.
    pub async fn is_closed_within(&mut self, time: Duration) -> bool {
        let until_closed = async { while self.fill().await.is_ok() {} };
        tokio::time::timeout(time, until_closed).await.is_ok()
    }
}

/// Wait until something holds; panics after five seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

impl Server {
    /// Change one byte of a blob, behind the store's back.
    pub fn damage(&self, sha256: &str) {
        let mut pending = vec![self.folder.path().join("blobs")];
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.to_string_lossy().contains(sha256) {
                    let mut bytes = std::fs::read(&path).unwrap();
                    bytes[0] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                    return;
                }
            }
        }
        panic!("there is no file of {sha256}");
    }
}

impl Server {
    /// The value of a metric, with its labels as they are written.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics").await.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no `{series}` in\n{text}")).parse().unwrap()
    }
}

impl Server {
    /// Files in the folder for uploads.
    pub fn scratch_files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("scratch")).unwrap().count()
    }
}
