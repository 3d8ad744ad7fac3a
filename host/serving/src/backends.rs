//! Which backend a reference names.
//!
//! Owns [`HostBackends`]: models and graphs of this host, found through the registry, loaded once each while anything refers
//! to them, and upstreams behind a trait of their own. Separate from traffic, which knows references only.
//!
//! Bounded by the kernels' shelf of models. On failure: what the registry says; a graph whose plugin is not there in its
//! version names it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use mainstay_base::{Error, Result};
use mainstay_directory::Attachment;
use mainstay_inference::Signature;
use mainstay_interfaces::graphs::{GraphRunner, ModelGraph};
use mainstay_interfaces::{Plugin, Services};
use mainstay_kernels::Caller;
use mainstay_models::graph::Graph;
use mainstay_traffic::{Backend, Backends, Fallback, Identity, Reference};
use parking_lot::Mutex;

use crate::local::{Described, GraphBackend, ModelBackend};
use crate::registered::{self, File, Registered, Version};

/// Who knows servers elsewhere.
#[async_trait]
pub trait Upstreams: Send + Sync + 'static {
    /// A backend that asks this server.
    async fn connect(&self, url: &str) -> Result<Arc<dyn Backend>>;

    /// What a backend of theirs takes and gives, and what runs it; none where it is not theirs, or does not say.
    async fn describe(&self, identity: &Identity) -> Option<(Signature, String)>;
}

/// Who knows what answers while a model cannot.
#[async_trait]
pub trait Fallbacks: Send + Sync + 'static {
    /// The fallback of this name.
    async fn fallback(&self, name: &str) -> Result<Arc<dyn Fallback>>;
}

/// A model and its version.
type Name = (Arc<str>, Arc<str>);
/// Running plugins by name.
pub type PluginByName = Arc<dyn Fn(&str) -> Option<Arc<Plugin>> + Send + Sync>;

/// See the module.
pub struct HostBackends {
    services: Services,
    registered: Registered,
    plugin: PluginByName,
    runner: GraphRunner,
    caller: Caller,
    upstreams: Option<Arc<dyn Upstreams>>,
    fallbacks: Option<Arc<dyn Fallbacks>>,
    /// Models and graphs that are in use, by model and version.
    known: Mutex<HashMap<Name, Weak<dyn Described>>>,
}

impl HostBackends {
    /// Backends of this host.
    pub fn new(services: &Services, plugin: PluginByName, runner: GraphRunner) -> Result<HostBackends> {
        Ok(HostBackends {
            registered: Registered::new(services.store.clone(), services.directory.clone()),
            caller: services.kernels.caller("serving")?,
            services: services.clone(),
            plugin,
            runner,
            upstreams: None,
            fallbacks: None,
            known: Mutex::default(),
        })
    }

    /// And servers elsewhere.
    pub fn with_upstreams(mut self, upstreams: Arc<dyn Upstreams>) -> HostBackends {
        self.upstreams = Some(upstreams);
        self
    }

    /// And what answers while a model cannot.
    pub fn with_fallbacks(mut self, fallbacks: Arc<dyn Fallbacks>) -> HostBackends {
        self.fallbacks = Some(fallbacks);
        self
    }

    /// Registered models.
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// What a backend takes and gives, and what runs it, while it is in use; none of a backend that does not say.
    pub async fn describe(&self, identity: &Identity) -> Result<Option<(Signature, String)>> {
        if let Some(backend) = self.described(identity) {
            return Ok(Some((backend.signature(), backend.platform())));
        }
        match &self.upstreams {
            Some(upstreams) => Ok(upstreams.describe(identity).await),
            None => Ok(None),
        }
    }

    /// A backend of this host, while it is in use.
    pub fn described(&self, identity: &Identity) -> Option<Arc<dyn Described>> {
        self.known.lock().get(&(identity.model.clone(), identity.version.clone())).and_then(Weak::upgrade)
    }

    async fn version(&self, reference: &Reference) -> Result<Arc<dyn Backend>> {
        let (model, number) = self.registered.number(reference)?;
        let version = self.registered.version(&model, number)?;
        let identity = Identity {
            model: model.as_str().into(),
            version: number.to_string().into(),
            run: version.run.as_deref().map(Into::into),
        };
        self.made(identity, &version.file).await
    }

    /// The backend of a file under a name; the one that is in use, where there is one.
    async fn made(&self, identity: Identity, file: &File) -> Result<Arc<dyn Backend>> {
        if let Some(found) = self.described(&identity) {
            return Ok(found);
        }
        let made: Arc<dyn Described> = match file {
            File::Model(sha256) => {
                let model = self.services.model(sha256).await?;
                Arc::new(ModelBackend::new(identity.clone(), model, self.caller.clone())?)
            }
            File::Graph(sha256) => {
                let graph = self.graph(sha256).await?;
                Arc::new(GraphBackend::new(identity.clone(), graph, self.runner.clone()))
            }
        };
        let mut known = self.known.lock();
        known.retain(|_, backend| backend.strong_count() > 0);
        known.insert((identity.model, identity.version), Arc::downgrade(&made));
        Ok(made)
    }

    async fn graph(&self, sha256: &str) -> Result<Arc<ModelGraph>> {
        let document = self.services.blobs.get_bytes(sha256, None).await?;
        let graph = Graph::parse(&document)?;
        let mut models = HashMap::new();
        for digest in graph.models() {
            models.insert(digest.to_owned(), self.services.model(digest).await?);
        }
        let model = |digest: &str| {
            let found = models.get(digest).cloned();
            found.ok_or_else(|| Error::internal(format!("the model {digest} was not loaded")))
        };
        ModelGraph::take_in(&graph, |name| (self.plugin)(name), model).await
    }
}

#[async_trait]
impl Backends for HostBackends {
    async fn resolve(&self, reference: &Reference) -> Result<Arc<dyn Backend>> {
        match reference {
            Reference::Version { .. } | Reference::Alias { .. } | Reference::Stage { .. } => {
                self.version(reference).await
            }
            Reference::Graph { digest } => {
                let identity = Identity { model: "graph".into(), version: digest.as_str().into(), run: None };
                self.made(identity, &File::Graph(digest.clone())).await
            }
            Reference::Upstream { url } => match &self.upstreams {
                Some(upstreams) => upstreams.connect(url).await,
                None => Err(Error::unavailable(format!("this host reaches no servers elsewhere, and `{url}` is one"))),
            },
        }
    }

    async fn fallback(&self, name: &str) -> Result<Arc<dyn Fallback>> {
        match &self.fallbacks {
            Some(fallbacks) => fallbacks.fallback(name).await,
            None => Err(Error::not_found(format!(
                "there is no fallback `{name}`; install what provides it, or name another"
            ))),
        }
    }
}

/// A version that was registered here, and what runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its number.
    pub version: u64,
    /// What runs it, as the protocol's `platform`.
    pub platform: String,
}

impl HostBackends {
    /// Make a version of a registered model out of stored files, after loading it: what does not run here is not registered.
    pub async fn import(&self, model: &str, files: &[Attachment]) -> Result<Imported> {
        let version =
            Version { model: model.to_owned(), version: 0, run: None, file: registered::choose(model, 0, files)? };
        let platform = match &version.file {
            File::Model(sha256) => {
                let loaded = self.services.model(sha256).await?;
                let identity = Identity { model: model.into(), version: "0".into(), run: None };
                ModelBackend::new(identity, loaded, self.caller.clone())?.platform()
            }
            File::Graph(sha256) => {
                let graph = self.graph(sha256).await?;
                let identity = Identity { model: model.into(), version: "0".into(), run: None };
                GraphBackend::new(identity, graph, self.runner.clone()).platform()
            }
        };
        let version = self.registered.create(model, files).await?;
        Ok(Imported { version, platform })
    }
}
