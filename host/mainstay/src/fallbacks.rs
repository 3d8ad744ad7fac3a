//! Plugins that answer while a model cannot, and what they learn from.
//!
//! Owns the way from traffic's chain of fallbacks to plugins of the world `fallback` ([`ByPlugin`]), and back from good answers
//! to those that want to be told of them ([`Teaching`]). Separate from serving, which knows no plugins of that world.
//!
//! Bounded by: each tier's deadline, the plugins' limits, and [`LESSONS_WAITING_MAX`] lessons that wait; what does not fit is
//! dropped. On failure: a tier that fails is passed to the next; a plugin that does not learn is said in the host's log.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mainstay_base::{Error, Result};
use mainstay_interfaces::{FallbackAsk, Lesson, PluginHost};
use mainstay_serving::{Fallbacks, Recorder};
use mainstay_traffic::{Change, Fallback, Happened, Instead, Stand, StoodIn, Tier, Traffic, Watch};
use tokio::sync::mpsc;

/// Lessons that wait to be told.
const LESSONS_WAITING_MAX: usize = 1_024;
/// Lessons of one call.
const LESSONS_MAX: usize = 64;
/// How long lessons are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// Plugins by the names that plans use.
pub struct Standing(pub PluginHost);

#[async_trait]
impl Fallbacks for Standing {
    async fn fallback(&self, name: &str) -> Result<Arc<dyn Fallback>> {
        match self.0.running(name) {
            Some(_) => Ok(Arc::new(ByPlugin { host: self.0.clone(), name: name.into() })),
            None => Err(Error::not_found(format!(
                "there is no plugin `{name}` that runs; install it with `mainstay plugin install {name}`, or name another"
            ))),
        }
    }
}

/// A plugin that stands in. Looked up at each call, so that its newest version answers.
struct ByPlugin {
    host: PluginHost,
    name: Arc<str>,
}

#[async_trait]
impl Fallback for ByPlugin {
    fn label(&self) -> String {
        self.name.to_string()
    }

    async fn answer(&self, instead: &Instead<'_>) -> Result<StoodIn> {
        let Instead { request, variant, why, ask } = *instead;
        let plugin = self.host.running(&self.name);
        let plugin = plugin.ok_or_else(|| Error::unavailable(format!("the plugin `{}` does not run", self.name)))?;
        let asked = FallbackAsk {
            endpoint: request.model.as_str().into(),
            variant: variant.cloned(),
            why: why.name().to_owned(),
            tenant: ask.tenant.clone(),
            request: request.clone(),
            traceparent: ask.trace.as_deref().map(str::to_owned),
        };
        let reply = plugin.answer_instead(asked, ask.deadline).await;
        let reply = reply.map_err(|error| Error::new(error.kind(), error.to_string()))?;
        Ok(StoodIn { answer: reply.answer, kind: Some(reply.label) })
    }
}

/// Watches traffic for the recorder, and tells plugins of good answers.
pub struct Teaching {
    recorder: Recorder,
    /// Set once traffic is open; before that there is nothing to learn.
    traffic: Arc<OnceLock<Traffic>>,
    lessons: mpsc::Sender<(Arc<str>, Lesson)>,
}

impl Teaching {
    /// Around this recorder. Begins the task that tells.
    pub fn start(recorder: Recorder, host: PluginHost) -> (Teaching, Arc<OnceLock<Traffic>>) {
        let (lessons, told) = mpsc::channel(LESSONS_WAITING_MAX);
        tokio::spawn(tell(host, told));
        let traffic = Arc::new(OnceLock::new());
        (Teaching { recorder, traffic: traffic.clone(), lessons }, traffic)
    }

    /// Plugins of the endpoint's chain.
    fn learners(&self, endpoint: &str) -> Vec<Arc<str>> {
        let record = self.traffic.get().and_then(|traffic| traffic.show(endpoint).ok());
        let tiers = record.into_iter().flat_map(|record| record.active.plan.fallbacks);
        tiers.filter_map(|tier| plugin_of(&tier)).collect()
    }
}

fn plugin_of(tier: &Tier) -> Option<Arc<str>> {
    match &tier.by {
        Stand::Named(name) => Some(name.as_str().into()),
        Stand::Variant(_) => None,
    }
}

impl Watch for Teaching {
    fn happened(&self, happened: Happened) {
        if let (None, false, Some(answer)) = (happened.why, happened.is_mirrored, &happened.answer) {
            for plugin in self.learners(&happened.labels.endpoint) {
                let lesson = Lesson {
                    endpoint: happened.labels.endpoint.clone(),
                    variant: happened.labels.variant.clone().unwrap_or_default(),
                    tenant: happened.tenant.clone(),
                    answered_ms: happened.at_ms,
                    request: happened.request.clone(),
                    answer: answer.clone(),
                };
                // A plugin that is slow to learn knows less; nobody waits for it.
                let _ = self.lessons.try_send((plugin, lesson));
            }
        }
        self.recorder.happened(happened);
    }

    fn changed(&self, change: Change) {
        self.recorder.changed(change);
    }
}

/// Tell plugins of what was gathered, again and again.
async fn tell(host: PluginHost, mut told: mpsc::Receiver<(Arc<str>, Lesson)>) {
    while let Some(first) = told.recv().await {
        tokio::time::sleep(GATHER).await;
        let mut gathered: HashMap<Arc<str>, Vec<Lesson>> = HashMap::new();
        let mut next = Some(first);
        while let Some((plugin, lesson)) = next {
            gathered.entry(plugin).or_default().push(lesson);
            next = told.try_recv().ok();
        }
        for (name, lessons) in gathered {
            let Some(plugin) = host.running(&name).filter(|plugin| plugin.does_learn()) else { continue };
            for some in lessons.chunks(LESSONS_MAX) {
                if let Err(error) = plugin.learn(some.to_vec()).await {
                    tracing::warn!(plugin = &*name, %error, "a fallback could not learn from answers");
                }
            }
        }
    }
}
