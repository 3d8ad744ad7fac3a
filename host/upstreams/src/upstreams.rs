//! Upstreams by address.
//!
//! Owns [`Upstreams`], the set of servers that there are connections to, and [`Upstream`], a model on one of them as traffic asks
//! it. Separate from both protocols, which know one server each. Connections belong to the server: upstreams of the same server
//! with the same options share them, and they are closed when the last of those is dropped.
//!
//! Bounded by [`limits`] and each upstream's options. On failure: [`Failure`], counted by why; dropping a request or a stream
//! cancels it at the upstream.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use mainstay_base::{Error, Result};
use mainstay_inference::{InferAnswer, InferRequest, ModelMetadata};
use mainstay_traffic::{AnswerStream, Ask, Backend, Failure, Identity};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::address::{Address, Origin, Protocol};
use crate::ask::{Sent, bounded};
use crate::counts::{Call, Counts, FailureKind, UpstreamStatistics};
use crate::dial::{Connector, Dial, Tcp};
use crate::failure::Stop;
use crate::grpc::Grpc;
use crate::http::Http;
use crate::limits;
use crate::options::UpstreamOptions;
use crate::pool::Pool;

type Servers = HashMap<(Origin, UpstreamOptions), Weak<Server>>;

/// The servers that there are connections to.
pub struct Upstreams {
    dial: Arc<dyn Dial>,
    servers: Mutex<Servers>,
}

impl Default for Upstreams {
    fn default() -> Upstreams {
        Upstreams::new(Arc::new(Tcp))
    }
}

impl Upstreams {
    /// Servers that are reached in this way.
    pub fn new(dial: Arc<dyn Dial>) -> Upstreams {
        Upstreams { dial, servers: Mutex::default() }
    }

    /// The backend at this address: `http(s)://HOST[:PORT]` or `grpc(s)://HOST[:PORT]`, alone or with `/v2/models/NAME` or
    /// `/v2/models/NAME/versions/VERSION`. Without a model, each request's own is asked for. Connects when it is first needed.
    pub fn connect(&self, url: &str, options: &UpstreamOptions) -> Result<Arc<dyn Backend>> {
        Ok(self.open(url, options)?)
    }

    /// The same, by its own type, which tells more.
    pub fn open(&self, url: &str, options: &UpstreamOptions) -> Result<Arc<Upstream>> {
        let at = Arc::new(Address::parse(url)?);
        options.check()?;
        let server = self.server(&at.origin, options)?;
        let place = Arc::new(Place { at, seen: RwLock::default() });
        Ok(Arc::new(Upstream { server, place, metadata: Mutex::default() }))
    }

    /// What happened with each server that there is an upstream of.
    pub fn statistics(&self) -> Vec<UpstreamStatistics> {
        let servers: Vec<_> = self.servers.lock().values().filter_map(Weak::upgrade).collect();
        let mut all: Vec<_> = servers.iter().map(|server| server.statistics()).collect();
        all.sort_by(|one, other| one.server.cmp(&other.server));
        all
    }

    fn server(&self, origin: &Origin, options: &UpstreamOptions) -> Result<Arc<Server>> {
        let mut servers = self.servers.lock();
        let key = (origin.clone(), options.clone());
        if let Some(server) = servers.get(&key).and_then(Weak::upgrade) {
            return Ok(server);
        }
        servers.retain(|_, server| server.strong_count() > 0);
        if servers.len() >= limits::SERVERS_MAX {
            return Err(Error::exhausted(format!(
                "there are connections to {} upstream servers, which is the limit; drop one before `{origin}` is added",
                limits::SERVERS_MAX
            )));
        }
        let server = Arc::new(Server::new(self.dial.clone(), origin, options)?);
        servers.insert(key, Arc::downgrade(&server));
        Ok(server)
    }
}

/// One server, and how it is spoken with.
struct Server {
    name: String,
    counts: Arc<Counts>,
    way: Way,
}

enum Way {
    Http(Http),
    Grpc(Box<Grpc>),
}

impl Server {
    fn new(dial: Arc<dyn Dial>, origin: &Origin, options: &UpstreamOptions) -> Result<Server> {
        let counts = Arc::<Counts>::default();
        let connector = Connector::new(dial, origin, options, counts.clone())?;
        let way = match origin.protocol {
            Protocol::Http => {
                let pool = Pool::new(connector, options);
                Way::Http(Http::new(pool, &origin.host_header(), options, counts.clone())?)
            }
            Protocol::Grpc => Way::Grpc(Box::new(Grpc::new(connector, origin, options, counts.clone())?)),
        };
        Ok(Server { name: origin.to_string(), counts, way })
    }

    fn statistics(&self) -> UpstreamStatistics {
        let idle = match &self.way {
            Way::Http(http) => http.pool.idle(),
            Way::Grpc(_) => 0,
        };
        self.counts.read(self.name.clone(), idle)
    }
}

/// By model and version.
type Described = HashMap<(String, Option<String>), Description>;

/// What an upstream said of a model, and when. None where it does not describe it.
#[derive(Clone)]
struct Description {
    metadata: Option<Arc<ModelMetadata>>,
    asked: Instant,
}

/// A model on a server elsewhere, or all of its models.
pub struct Upstream {
    server: Arc<Server>,
    place: Arc<Place>,
    metadata: Mutex<Described>,
}

/// Where it is, and who answered last.
struct Place {
    at: Arc<Address>,
    seen: RwLock<Identity>,
}

impl Place {
    /// Make of what came the answer to this request: names that it left out, and who answered.
    fn complete(&self, request: &InferRequest, mut answer: InferAnswer) -> InferAnswer {
        let (model, version) = self.at.target(&request.model, request.version.as_deref());
        if answer.model.is_empty() {
            model.clone_into(&mut answer.model);
        }
        if answer.version.is_empty() {
            version.unwrap_or_default().clone_into(&mut answer.version);
        }
        self.saw(&answer);
        answer
    }

    fn saw(&self, answer: &InferAnswer) {
        let is_known = {
            let seen = self.seen.read();
            *seen.model == *answer.model && *seen.version == *answer.version
        };
        if !is_known {
            let (model, version) = (answer.model.as_str().into(), answer.version.as_str().into());
            *self.seen.write() = Identity { model, version, run: None };
        }
    }
}

impl Upstream {
    /// Its address, as it was given.
    pub fn url(&self) -> &str {
        &self.place.at.url
    }

    /// What happened with its server, over all upstreams that share the connections.
    pub fn statistics(&self) -> UpstreamStatistics {
        self.server.statistics()
    }

    /// What the model takes and gives, as the upstream says now. Where the address names no model, `model` does.
    pub async fn metadata(
        &self,
        model: &str,
        version: Option<&str>,
        deadline: std::time::Instant,
    ) -> Result<Arc<ModelMetadata>> {
        let (model, version) = self.place.at.target(model, version);
        let mut call = Call::new(&self.server.counts);
        let asked = bounded(&self.place.at.url, Instant::from_std(deadline), async {
            match &self.server.way {
                Way::Http(http) => http.metadata(&self.place.at, model, version).await,
                Way::Grpc(grpc) => grpc.metadata(&self.place.at, model, version).await,
            }
        });
        let asked = asked.await;
        // What was said is remembered; that nothing could be heard is not.
        let is_said = match &asked {
            Ok(_) => true,
            Err(stop) => matches!(stop.kind, FailureKind::Sender | FailureKind::Failed | FailureKind::Unreadable),
        };
        let metadata = ended(&mut call, asked).map(Arc::new).map_err(|failure| failure.error);
        if is_said {
            self.remember(model, version, metadata.as_ref().ok().cloned());
        }
        metadata
    }

    fn remember(&self, model: &str, version: Option<&str>, metadata: Option<Arc<ModelMetadata>>) {
        let mut known = self.metadata.lock();
        if known.len() >= limits::METADATA_MODELS_MAX {
            known.clear();
        }
        let key = (model.to_owned(), version.map(str::to_owned));
        known.insert(key, Description { metadata, asked: Instant::now() });
    }

    /// What is known of the model that a request is for; asked for when that is nothing or old. None where the upstream does not
    /// say.
    async fn described(&self, request: &InferRequest, deadline: std::time::Instant) -> Option<Arc<ModelMetadata>> {
        let (model, version) = self.place.at.target(&request.model, request.version.as_deref());
        let age_max = Duration::from_millis(limits::METADATA_AGE_MS_MAX);
        if let Some(known) = self.metadata.lock().get_mut(&(model.to_owned(), version.map(str::to_owned))) {
            if known.asked.elapsed() < age_max {
                return known.metadata.clone();
            }
            // Whoever comes while this one asks again goes by what was known.
            known.asked = Instant::now();
        }
        self.metadata(model, version, deadline).await.ok()
    }

    async fn begin(
        &self,
        request: &Arc<InferRequest>,
        ask: &Ask,
        sent: &Sent<'_>,
    ) -> Result<BoxStream<'static, Result<InferAnswer, Stop>>, Stop> {
        match &self.server.way {
            Way::Http(http) => {
                let described = self.described(request, ask.deadline).await;
                http.stream(&self.place.at, request, sent, described).await
            }
            Way::Grpc(grpc) => grpc.stream(&self.place.at, request, sent).await,
        }
    }
}

/// A stream under way, and its count.
struct Parts {
    parts: BoxStream<'static, Result<InferAnswer, Stop>>,
    call: Call,
    deadline: Instant,
    place: Arc<Place>,
    request: Arc<InferRequest>,
}

impl Parts {
    /// The next part, and what follows.
    async fn next(mut self) -> Option<(Result<InferAnswer, Failure>, Option<Parts>)> {
        let next = bounded(&self.place.at.url, self.deadline, async { self.parts.next().await.transpose() });
        match next.await {
            Ok(Some(mut answer)) => {
                let wanted = &self.request.outputs;
                answer.outputs.retain(|output| wanted.is_empty() || wanted.iter().any(|one| one.name == output.name));
                Some((Ok(self.place.complete(&self.request, answer)), Some(self)))
            }
            Ok(None) => {
                self.call.answered();
                None
            }
            Err(stop) => {
                self.call.failed(stop.kind);
                Some((Err(stop.failure), None))
            }
        }
    }
}

/// Counts how a request ended.
fn ended<T>(call: &mut Call, result: Result<T, Stop>) -> Result<T, Failure> {
    match result {
        Ok(answer) => {
            call.answered();
            Ok(answer)
        }
        Err(stop) => {
            call.failed(stop.kind);
            Err(stop.failure)
        }
    }
}

#[async_trait]
impl Backend for Upstream {
    /// The model of the address, else who answered last; the version likewise.
    fn identity(&self) -> Identity {
        let seen = self.place.seen.read().clone();
        let named = |name: &Arc<str>| (!name.is_empty()).then(|| name.clone());
        let model = self.place.at.model.clone().or_else(|| named(&seen.model));
        let version = self.place.at.version.clone().unwrap_or(seen.version);
        Identity { model: model.unwrap_or_else(|| self.place.at.url.clone()), version, run: None }
    }

    /// Its host and port: what answers there fails together.
    fn resource(&self) -> Option<String> {
        Some(self.place.at.origin.authority())
    }

    async fn infer(&self, request: &Arc<InferRequest>, ask: &Ask) -> Result<InferAnswer, Failure> {
        let mut call = Call::new(&self.server.counts);
        let Some(sent) = Sent::new(ask) else { return ended(&mut call, Err(Stop::late(&self.place.at.url))) };
        let asked = bounded(&self.place.at.url, Instant::from_std(ask.deadline), async {
            match &self.server.way {
                Way::Http(http) => http.infer(&self.place.at, request, &sent).await,
                Way::Grpc(grpc) => grpc.infer(&self.place.at, request, &sent).await,
            }
        });
        let answer = ended(&mut call, asked.await)?;
        Ok(self.place.complete(request, answer))
    }

    async fn stream(&self, request: &Arc<InferRequest>, ask: &Ask) -> Result<AnswerStream, Failure> {
        let mut call = Call::new(&self.server.counts);
        let Some(sent) = Sent::new(ask) else { return ended(&mut call, Err(Stop::late(&self.place.at.url))) };
        let deadline = Instant::from_std(ask.deadline);
        match bounded(&self.place.at.url, deadline, self.begin(request, ask, &sent)).await {
            Err(stop) => ended(&mut call, Err(stop)),
            Ok(parts) => {
                let parts = Parts { parts, call, deadline, place: self.place.clone(), request: request.clone() };
                Ok(stream::unfold(Some(parts), |parts| async move { parts?.next().await }).fuse().boxed())
            }
        }
    }

    async fn warm(&self, deadline: std::time::Instant) -> Result<()> {
        self.ready(deadline).await?;
        if let Some(model) = &self.place.at.model {
            // A server that does not describe its models can still answer.
            let described = self.metadata(model, None, deadline).await;
            drop(described);
        }
        Ok(())
    }

    async fn ready(&self, deadline: std::time::Instant) -> Result<()> {
        let mut call = Call::new(&self.server.counts);
        let asked = bounded(&self.place.at.url, Instant::from_std(deadline), async {
            match &self.server.way {
                Way::Http(http) => http.ready(&self.place.at).await,
                Way::Grpc(grpc) => grpc.ready(&self.place.at).await,
            }
        });
        ended(&mut call, asked.await).map_err(|failure| failure.error)
    }
}
