//! One variant while it runs.
//!
//! Owns [`Variant`]: the backend behind it, its breaker and its guard, which outlive plans. Separate from the endpoint, because
//! making a backend ready takes time and can fail while the one before goes on answering.
//!
//! Bounded by the specification's time to warm. On failure: a variant without a backend is not ready, and says why.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use mainstay_base::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout_at};

use crate::backend::{Backend, Backends, Identity};
use crate::breaker::{Breaker, BreakerState};
use crate::guard::GuardState;
use crate::spec::VariantSpec;

/// See the module.
pub(crate) struct Variant {
    pub name: Arc<str>,
    pub spec: VariantSpec,
    pub breaker: Breaker,
    pub guard: GuardState,
    live: ArcSwapOption<Live>,
    /// Why there is no backend.
    missing: ArcSwap<String>,
}

/// A backend that is ready.
pub(crate) struct Live {
    pub backend: Arc<dyn Backend>,
    pub identity: Identity,
}

/// How a variant is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The model behind it, if it is ready.
    pub identity: Option<Identity>,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Its breaker.
    pub breaker: BreakerState,
}

impl Variant {
    pub fn new(spec: &VariantSpec) -> Result<Variant> {
        Ok(Variant {
            name: spec.name.as_str().into(),
            spec: spec.clone(),
            breaker: Breaker::default(),
            guard: GuardState::new(&spec.guard)?,
            live: ArcSwapOption::empty(),
            missing: ArcSwap::from_pointee("it is being loaded".to_owned()),
        })
    }

    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    pub fn missing(&self) -> Arc<String> {
        self.missing.load_full()
    }

    /// Load and warm what its reference names now, and put it in place. The one before answers until then, and further if this
    /// fails.
    pub async fn prepare(&self, backends: &dyn Backends, now_ns: u64) -> Result<Identity> {
        let prepared = self.load(backends).await.map_err(|error| error.context(format!("variant `{}`", self.name)));
        match prepared {
            Ok(live) => {
                let identity = live.identity.clone();
                let before = self.live.swap(Some(Arc::new(live)));
                if before.is_some_and(|before| before.identity != identity) {
                    self.breaker.reset(now_ns);
                }
                Ok(identity)
            }
            Err(error) => {
                self.missing.store(Arc::new(error.message().to_owned()));
                Err(error)
            }
        }
    }

    async fn load(&self, backends: &dyn Backends) -> Result<Live> {
        let limit_ms = self.spec.warm_timeout_ms;
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        let loaded = timeout_at(deadline, async {
            let backend = backends.resolve(&self.spec.backend).await?;
            backend.warm(deadline.into_std()).await?;
            backend.ready(deadline.into_std()).await?;
            let identity = backend.identity();
            Ok(Live { backend, identity })
        });
        loaded.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unavailable,
                format!("`{}` was not ready within {limit_ms} ms", self.spec.backend),
            ))
        })
    }

    pub fn status(&self, now_ns: u64) -> VariantStatus {
        let live = self.live();
        let reason = live.is_none().then(|| self.missing().to_string());
        let identity = live.map(|live| live.identity.clone());
        VariantStatus { name: self.name.clone(), identity, reason, breaker: self.breaker.state(now_ns) }
    }
}
