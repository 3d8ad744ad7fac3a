//! A gateway before a plugin that answers at once, for a load generator: what the gateway itself costs.
//!
//! `cargo run -p mainstay-gateway --example rate`, then `wrk -t1 -c16 -d5 http://127.0.0.1:7699/small` (or `/sized`, which
//! takes a small body). With an argument, it needs the token that it prints.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{OsRandom, Result, SystemClock};
use mainstay_gateway::*;
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, BlobInfo, Blobs};

struct AtOnce;

impl ApiTarget for AtOnce {
    fn handle(&self, _: HttpRequest) -> ApiFuture<'_> {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Box::pin(std::future::ready(Ok(HttpReply::Respond { status: 200, headers, body: "{\"ok\":true}".into() })))
    }

    fn received(&self, request: HttpRequest, _: BlobInfo) -> ApiFuture<'_> {
        self.handle(request)
    }
}

struct Nobody;

#[async_trait::async_trait]
impl Admin for Nobody {
    async fn plugins(&self) -> Result<Vec<PluginSummary>> {
        Ok(Vec::new())
    }
    async fn plugin(&self, name: &str) -> Result<PluginDetail> {
        Err(mainstay_base::Error::not_found(format!("there is no plugin `{name}`")))
    }
    async fn install(&self, _: InstallUpload) -> Result<PluginDetail> {
        self.plugin("any").await
    }
    async fn configure(&self, name: &str, _: serde_json::Value) -> Result<PluginDetail> {
        self.plugin(name).await
    }
    async fn remove(&self, name: &str) -> Result<()> {
        self.plugin(name).await.map(drop)
    }
    async fn collect_garbage(&self) -> Result<BlobSweep> {
        Ok(BlobSweep::default())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join("mainstay-gateway-rate");
    let (store, clock) = (Store::in_memory(), Arc::new(SystemClock::default()));
    let blobs = Blobs::open(store.clone(), BlobBackend::Local { folder }, clock.clone(), Duration::from_secs(60))?;
    let rooms = Rooms::for_tests(&store).await?;
    let tokens = Tokens::open(store, clock, Arc::new(OsRandom))?;
    let mut options = GatewayOptions { http: ([127, 0, 0, 1], 7699).into(), grpc: None, ..GatewayOptions::default() };
    if std::env::args().nth(1).is_some() {
        println!("{}", tokens.create("rate", Role::Editor, None).await?.token);
        options.auth = AuthMode::Always;
    }
    let route = |path: &str, right| RouteSpec {
        path: RoutePath::Exact(path.to_owned()),
        methods: Vec::new(),
        right,
        inline_body_bytes: 1 << 20,
    };
    let routes = Routes::new();
    let claims = vec![route("/small", Right::Read), route("/sized", Right::Write)];
    routes.replace(vec![PluginRoutes { name: "at-once".to_owned(), target: Arc::new(AtOnce), routes: claims }])?;
    let version = VersionInfo { name: "rate".to_owned(), version: String::new(), commit: None, worlds: Vec::new() };
    let state = GatewayState {
        routes,
        blobs,
        tokens,
        admin: Arc::new(Nobody),
        rooms,
        inference: Arc::new(mainstay_inference::NoModels),
        readiness: Readiness::new(),
        registry: SharedRegistry::default(),
        version,
        trace_hook: None,
    };
    let gateway = Gateway::start(options, state).await?;
    println!("http://{}", gateway.http_addr());
    std::future::pending().await
}
