//! What calls workers: jobs whose action is a plugin, timers of manifests, events of the topics that manifests name.
//!
//! Owns the executors `plugin` and `timer`, the subscriber behind each plugin's topics and behind the jobs that events start,
//! and [`Workers`], which keeps timers and subscriptions in step with the plugins that run. Separate from [`crate::plugins`],
//! which decides what runs and knows no jobs; here the two meet, which is why it is in the binary. A timer is a durable job of
//! the host's own, `plugin/NAME/timer/TIMER`, and a plugin's topics are one durable subscription, `plugin/NAME`: what became
//! due while the host was down is caught up, and nothing is told twice without a recorded reason.
//!
//! Bounded by the plugins' limits, and those of jobs and events. On failure: `invalid`, `denied` and `not-found` are not tried
//! again, everything else is; a plugin that does not run is one that may run later.

use async_trait::async_trait;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_events::{Delivery, Driver as EventDriver, Events, Start as From, Subscriber, Subscription};
use mainstay_gateway::{CallError, JobHost};
use mainstay_interfaces::{Plugin, WorkEvent, WorkTimer};
use mainstay_market::{Manifest, Timer};
use mainstay_schedule::{
    Action, AttemptContext, Driver, Executor, JobDefinition, Outcome, RetryPolicy, Scheduler, Trigger,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The subscription that starts jobs.
const JOBS_SUBSCRIPTION: &str = "host/jobs";
/// Jobs that are read in one go.
const PAGE: u32 = 1_000;

/// Which plugins run now, by name.
#[derive(Clone, Default)]
pub struct RunningPlugins {
    by_name: Arc<Mutex<BTreeMap<String, Arc<Plugin>>>>,
}

impl RunningPlugins {
    fn find(&self, name: &str) -> Result<Arc<Plugin>> {
        let found = self.by_name.lock().get(name).cloned();
        found.ok_or_else(|| {
            Error::unavailable(format!("the worker `{name}` does not run; install it, or see `mainstay plugin list`"))
        })
    }
}

/// Keeps timers and subscriptions in step with the plugins that run. Clones are the same.
#[derive(Clone)]
pub struct Workers {
    scheduler: Scheduler,
    events: Events,
    teller: Arc<EventDriver>,
    running: RunningPlugins,
}

impl Workers {
    /// None runs yet. `teller` is who brings events to subscribers.
    pub fn new(scheduler: Scheduler, events: Events, teller: Arc<EventDriver>) -> Workers {
        Workers { scheduler, events, teller, running: RunningPlugins::default() }
    }

    /// The executors for jobs of plugins: kind and executor.
    pub fn executors(&self) -> [(&'static str, Arc<dyn Executor>); 2] {
        let running = self.running.clone();
        [
            ("plugin", Arc::new(PluginExecutor { running: running.clone() })),
            ("timer", Arc::new(TimerExecutor { running })),
        ]
    }

    /// This plugin runs now: its timers and topics are those of its manifest.
    pub async fn runs(&self, manifest: &Manifest, plugin: &Arc<Plugin>) -> Result<()> {
        if !manifest.has_world("mainstay:worker/worker") {
            return self.is_gone(&manifest.name).await;
        }
        self.running.by_name.lock().insert(manifest.name.clone(), plugin.clone());
        self.set_timers(&manifest.name, &manifest.timers).await?;
        let topics: &[String] = if plugin.is_granted("events.subscribe") { &manifest.topics } else { &[] };
        self.set_topics(&subscription_of(&manifest.name), topics.iter().cloned().collect()).await
    }

    /// This plugin was removed: nothing calls it any more.
    pub async fn is_gone(&self, name: &str) -> Result<()> {
        self.running.by_name.lock().remove(name);
        self.set_timers(name, &[]).await?;
        self.set_topics(&subscription_of(name), BTreeSet::new()).await
    }

    /// Let no plugin be called any more; what is durable stays as it is.
    pub fn stop(&self) {
        self.running.by_name.lock().clear();
    }

    async fn set_timers(&self, plugin: &str, timers: &[Timer]) -> Result<()> {
        let prefix = format!("plugin/{plugin}/timer/");
        let wanted: BTreeSet<String> = timers.iter().map(|timer| format!("{prefix}{}", timer.name)).collect();
        let mut after = Some(prefix.clone());
        while let Some(from) = after.take() {
            let page = self.scheduler.jobs(Some(&from), PAGE)?;
            let last = page.last().map(|job| job.definition.name.clone());
            for job in page.into_iter().map(|job| job.definition.name) {
                if !job.starts_with(&prefix) {
                    return self.apply_timers(plugin, &prefix, timers).await;
                }
                if !wanted.contains(&job) {
                    self.scheduler.remove(&job).await?;
                }
            }
            after = last;
        }
        self.apply_timers(plugin, &prefix, timers).await
    }

    async fn apply_timers(&self, plugin: &str, prefix: &str, timers: &[Timer]) -> Result<()> {
        for timer in timers {
            let definition = timer_job(plugin, format!("{prefix}{}", timer.name), timer);
            let known = self.scheduler.job(&definition.name)?;
            if known.is_none_or(|known| known.definition != definition) {
                self.scheduler.apply(definition).await?;
            }
        }
        Ok(())
    }

    async fn set_topics(&self, subscription: &str, topics: BTreeSet<String>) -> Result<()> {
        if topics.is_empty() {
            self.teller.set(subscription, None).await;
            return self.events.unsubscribe(subscription).await;
        }
        self.events.subscribe(Subscription { start: From::Latest, ..Subscription::new(subscription, topics) }).await?;
        self.teller.set(subscription, Some(self.subscriber(subscription))).await;
        Ok(())
    }

    /// Who is told of a subscription's events.
    fn subscriber(&self, subscription: &str) -> Arc<dyn Subscriber> {
        match subscription.strip_prefix("plugin/") {
            Some(plugin) => Arc::new(PluginSubscriber { running: self.running.clone(), plugin: plugin.to_owned() }),
            None => Arc::new(JobStarter { scheduler: self.scheduler.clone() }),
        }
    }

    /// Listen to the topics by which jobs are started.
    pub async fn follow_jobs(&self) -> Result<()> {
        let mut topics = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.scheduler.jobs(after.as_deref(), PAGE)?;
            let triggers = page.iter().flat_map(|job| &job.definition.triggers);
            topics.extend(triggers.filter_map(|trigger| match trigger {
                Trigger::Event { topic } => Some(topic.clone()),
                _ => None,
            }));
            match page.last() {
                Some(last) if page.len() as u32 == PAGE => after = Some(last.definition.name.clone()),
                _ => break,
            }
        }
        self.set_topics(JOBS_SUBSCRIPTION, topics).await
    }
}

fn subscription_of(plugin: &str) -> String {
    format!("plugin/{plugin}")
}

fn timer_job(plugin: &str, name: String, timer: &Timer) -> JobDefinition {
    let trigger = match (&timer.cron, timer.every_s) {
        (Some(expression), _) => Trigger::Cron { expression: expression.clone(), time_zone: timer.time_zone.clone() },
        (None, every_s) => Trigger::Interval { every_ms: every_s.unwrap_or(3_600) * 1_000, start_ms: None },
    };
    let settings = json!(TimerSettings { plugin: plugin.to_owned(), timer: timer.name.clone() });
    JobDefinition {
        description: format!("the timer `{}` of the plugin `{plugin}`", timer.name),
        action: Action { kind: "timer".into(), settings },
        triggers: vec![trigger],
        retry: RetryPolicy { attempts: 3, ..RetryPolicy::default() },
        ..JobDefinition::new(name, "timer")
    }
}

/// What an operator's requests about jobs need of the binary.
pub struct JobDesk {
    /// Knows the executors.
    pub driver: Arc<Driver>,
    /// Follows the topics of jobs.
    pub workers: Workers,
}

#[async_trait]
impl JobHost for JobDesk {
    fn check(&self, definition: &JobDefinition) -> Result<()> {
        self.driver.check(definition)
    }

    async fn changed(&self) -> Result<()> {
        self.workers.follow_jobs().await
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginSettings {
    plugin: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimerSettings {
    plugin: String,
    timer: String,
}

fn read<'a, T: Deserialize<'a>>(kind: &str, settings: &'a Value) -> Result<T> {
    T::deserialize(settings).map_err(|error| {
        Error::invalid(format!(
            "settings of an action of the kind `{kind}`: {error}; write `settings = {{ plugin = \"NAME\" }}`"
        ))
    })
}

/// Carries out actions of the kind `plugin`: calls a worker's `on-job`.
struct PluginExecutor {
    running: RunningPlugins,
}

#[async_trait]
impl Executor for PluginExecutor {
    fn check(&self, settings: &Value) -> Result<()> {
        read::<PluginSettings>("plugin", settings).map(|_| ())
    }

    async fn execute(&self, attempt: AttemptContext) -> Outcome {
        let called = async {
            let settings: PluginSettings =
                read("plugin", &attempt.run.plan.action.settings).map_err(CallError::Failed)?;
            let plugin = self.running.find(&settings.plugin).map_err(CallError::Failed)?;
            plugin.on_job(attempt.clone()).await
        };
        tokio::select! {
            outcome = called => outcome.unwrap_or_else(|error| failure(&error)),
            () = attempt.cancel.cancelled() => Outcome::failure("the call was stopped"),
        }
    }
}

/// Carries out actions of the kind `timer`: calls a worker's `on-timer`.
struct TimerExecutor {
    running: RunningPlugins,
}

#[async_trait]
impl Executor for TimerExecutor {
    fn check(&self, settings: &Value) -> Result<()> {
        read::<TimerSettings>("timer", settings).map(|_| ())
    }

    async fn execute(&self, attempt: AttemptContext) -> Outcome {
        let run = &attempt.run;
        let called = async {
            let settings: TimerSettings = read("timer", &run.plan.action.settings).map_err(CallError::Failed)?;
            let plugin = self.running.find(&settings.plugin).map_err(CallError::Failed)?;
            let scheduled_ms = run.scheduled_ms.unwrap_or(run.created_ms);
            plugin.on_timer(WorkTimer { name: settings.timer, scheduled_ms }).await
        };
        tokio::select! {
            outcome = called => match outcome {
                Ok(()) => Outcome::Success { result: Value::Null },
                Err(error) => failure(&error),
            },
            () = attempt.cancel.cancelled() => Outcome::failure("the call was stopped"),
        }
    }
}

fn failure(error: &CallError) -> Outcome {
    let is_final = matches!(error, CallError::Failed(error) if is_final(error));
    Outcome::Failure { reason: error.to_string(), is_retryable: !is_final }
}

/// The contract's words for what trying again does not change.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::NotFound)
}

/// Tells a worker of events.
struct PluginSubscriber {
    running: RunningPlugins,
    plugin: String,
}

#[async_trait]
impl Subscriber for PluginSubscriber {
    async fn deliver(&self, delivery: Delivery) -> Result<()> {
        let plugin = self.running.find(&self.plugin)?;
        let event = &delivery.event;
        let settled = delivery.clone();
        let work = WorkEvent {
            id: event.offset.to_string(),
            topic: event.topic.clone(),
            kind: event.kind.clone(),
            key: event.key.clone(),
            payload: event.payload.clone(),
            published_ms: event.time_ms,
            traceparent: event.trace.as_ref().map(|trace| trace.traceparent.clone()),
            delivery: delivery.attempt,
            settle: Arc::new(move |transaction| settled.ack_in(transaction)),
        };
        plugin.on_event(work).await.map_err(|error| match error {
            CallError::Failed(error) => error,
            other => Error::unavailable(other.to_string()),
        })
    }
}

/// Starts the jobs that an event's topic is bound to.
struct JobStarter {
    scheduler: Scheduler,
}

#[async_trait]
impl Subscriber for JobStarter {
    async fn deliver(&self, delivery: Delivery) -> Result<()> {
        let event = &delivery.event;
        let id = event.offset.to_string();
        // What is no JSON is not for parameters; the topic, kind and key still are.
        let payload: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
        let told = json!({
            "id": id, "topic": event.topic, "kind": event.kind, "key": event.key, "time-ms": event.time_ms, "payload": payload,
        });
        self.scheduler.on_event(&event.topic, Some(&id), &told).await?;
        self.scheduler.wake();
        Ok(())
    }
}
