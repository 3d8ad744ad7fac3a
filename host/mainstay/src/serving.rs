//! Endpoints of this host: models that answer requests.
//!
//! Owns the wiring of traffic to the registry, the kernels and the graphs, and of what happened to logs and events. Separate from
//! the start of the server because all of it stands and falls together. Bounded by the rooms. On failure: an endpoint whose
//! model cannot be loaded is there, says why, and is tried again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::door::Door;
use crate::fallbacks::{Standing, Teaching};
use async_trait::async_trait;
use mainstay_base::{OsRandom, Result};
use mainstay_directory::Attachment;
use mainstay_gateway::{ImportModels, ImportedModel, StoredModelFile};
use mainstay_inference::Signature;
use mainstay_interfaces::graphs::GraphRunner;
use mainstay_interfaces::{PluginHost, Services};
use mainstay_predictions::Predictions;
use mainstay_serving::{Endpoints, HostBackends, Recorder, Upstreams, follow};
use mainstay_traffic::{Backend, Foundation, Identity, Traffic};
use mainstay_upstreams::{Upstream, UpstreamOptions};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How long a server elsewhere may take to describe its model.
const DESCRIBE_TIME: Duration = Duration::from_secs(5);
/// Graphs that wait for their nodes at the same time.
const GRAPH_THREADS: usize = 4;

/// Endpoints, and who keeps them up to date.
pub struct Serving {
    /// The endpoints.
    pub traffic: Traffic,
    /// The same, as models of the protocol.
    pub models: Endpoints,
    /// Who registers what is imported.
    pub importer: Arc<Importer>,
    follower: JoinHandle<()>,
}

/// Prediction servers elsewhere, with the bounds that are there by default.
#[derive(Default)]
struct Elsewhere {
    upstreams: mainstay_upstreams::Upstreams,
    /// Those that are in use, for their descriptions.
    open: Mutex<Vec<Weak<Upstream>>>,
}

#[async_trait]
impl Upstreams for Elsewhere {
    async fn connect(&self, url: &str) -> Result<Arc<dyn Backend>> {
        let upstream = self.upstreams.open(url, &UpstreamOptions::default())?;
        let mut open = self.open.lock();
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&upstream));
        Ok(upstream)
    }

    async fn describe(&self, identity: &Identity) -> Option<(Signature, String)> {
        let known: Vec<Arc<Upstream>> = self.open.lock().iter().filter_map(Weak::upgrade).collect();
        let upstream = known.into_iter().find(|known| known.identity().model == identity.model)?;
        let version = Some(&*identity.version).filter(|version| !version.is_empty());
        let deadline = Instant::now() + DESCRIBE_TIME;
        let metadata = upstream.metadata(&identity.model, version, deadline).await.ok()?;
        Some((Signature::of_metadata(&metadata).ok()?, metadata.platform.clone()))
    }
}

/// Registers imported models.
pub struct Importer(Arc<HostBackends>);

#[async_trait]
impl ImportModels for Importer {
    async fn import(&self, model: &str, files: Vec<StoredModelFile>, by: &str) -> Result<ImportedModel> {
        let attached: Vec<Attachment> =
            files.iter().map(|file| Attachment { path: file.path.clone(), sha256: file.sha256.clone() }).collect();
        let imported = self.0.import(model, &attached).await?;
        tracing::info!(model, version = imported.version, by, "a model was imported");
        Ok(ImportedModel { model: model.to_owned(), version: imported.version, platform: imported.platform, files })
    }
}

impl Serving {
    /// Load what is kept, and begin to follow.
    pub async fn start(host: &PluginHost, predictions: &Predictions, version: String) -> Result<Serving> {
        let services: &Services = host.services();
        let (clock, plugins) = (services.clock.clone(), host.clone());
        let runner = GraphRunner::start(host.threads(), &services.kernels, GRAPH_THREADS, clock.clone())?;
        let backends = HostBackends::new(services, Arc::new(move |name| plugins.running(name)), runner)?;
        let backends = Arc::new(
            backends.with_upstreams(Arc::new(Elsewhere::default())).with_fallbacks(Arc::new(Standing(host.clone()))),
        );
        let recorder = Recorder::new(predictions.clone(), services.events.clone(), Handle::current());
        let (watch, open) = Teaching::start(recorder, host.clone());
        let traffic = Traffic::open(Foundation {
            store: services.store.clone(),
            clock: clock.clone(),
            random: Arc::new(OsRandom),
            backends: backends.clone(),
            watch: Arc::new(watch),
        })
        .await?;
        // Once in the process: nothing was in it before.
        let _ = open.set(traffic.clone());
        let registered = backends.registered().clone();
        let follower = tokio::spawn(follow(services.store.clone(), traffic.clone(), registered));
        let importer = Arc::new(Importer(backends.clone()));
        let models = Endpoints::new(traffic.clone(), backends, clock, &OsRandom, version);
        services.door.set(Arc::new(Door { traffic: traffic.clone(), models: models.clone() }))?;
        Ok(Serving { traffic, models, importer, follower })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.follower.abort();
    }
}
