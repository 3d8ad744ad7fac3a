//! What keeps the scheduler going on one host: time passes, runs are taken, executors carry them out.
//!
//! Owns [`Driver`]: one loop that renews leases, handles what is due, takes ready runs for its free places, and waits for the
//! next due time, a change, or a look every second (so that a clock that jumps is noticed). Each attempt has a task of its
//! own that keeps its log, enforces its end and reports. Separate from the steps themselves ([`crate::dispatch`]), which need
//! no threads.
//!
//! Leases are renewed before anything is looked at, so that a clock that jumps forward, or a machine that slept, does not
//! take attempts from an owner that is alive. Bounded by `attempts_max`. On failure: a step that fails is logged and done
//! again a second later; a result that cannot be stored is tried until it is, or until it is refused because the lease is
//! over. An executor that panics has failed its attempt, no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{ErrorKind, Result};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::definition::JobDefinition;
use crate::dispatch::BeatAnswer;
use crate::executor::{AttemptContext, Executor, Heartbeat};
use crate::logs::LogSink;
use crate::run::{Run, RunId};
use crate::scheduler::Scheduler;
use crate::state::Outcome;

/// How often a log is stored while its attempt runs, and at how many bytes earlier.
const LOG_INTERVAL: Duration = Duration::from_millis(500);
const LOG_PART_BYTES: usize = 64 << 10;
/// Steps in a row before the driver looks at its other duties.
const ROUNDS_MAX: usize = 16;

/// How a driver works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// Who it is, unlike any other driver of this store, and unlike itself before a restart.
    pub owner: String,
    /// How long it may be silent before its attempts are taken from it; it renews at a third of that.
    pub lease: Duration,
    /// Most attempts at once.
    pub attempts_max: usize,
    /// The longest time between two looks.
    pub look: Duration,
    /// How long an attempt may take to stop when it is told to.
    pub stop_grace: Duration,
}

impl DriverOptions {
    /// The defaults for this owner.
    pub fn new(owner: impl Into<String>) -> DriverOptions {
        DriverOptions {
            owner: owner.into(),
            lease: Duration::from_secs(30),
            attempts_max: 256,
            look: Duration::from_secs(1),
            stop_grace: Duration::from_secs(10),
        }
    }

    fn lease_ms(&self) -> u64 {
        self.lease.as_millis().min(u128::from(u64::MAX)) as u64
    }
}

/// Keeps a scheduler going.
pub struct Driver {
    scheduler: Scheduler,
    executors: HashMap<String, Arc<dyn Executor>>,
    options: DriverOptions,
}

/// An attempt that this driver carries out.
struct Live {
    cancel: CancellationToken,
    heartbeat: Heartbeat,
    heartbeat_timeout_ms: Option<u64>,
    /// Why it was told to stop, when that was the driver's own idea.
    why: Arc<Mutex<Option<String>>>,
}

type Lives = HashMap<(RunId, u64), Live>;

impl Driver {
    /// A driver without executors.
    pub fn new(scheduler: Scheduler, options: DriverOptions) -> Driver {
        Driver { scheduler, executors: HashMap::new(), options }
    }

    /// The same, and actions of this kind are carried out by this executor.
    #[must_use]
    pub fn with(mut self, kind: impl Into<String>, executor: Arc<dyn Executor>) -> Driver {
        self.executors.insert(kind.into(), executor);
        self
    }

    /// Whether a job's action can be carried out here.
    pub fn check(&self, definition: &JobDefinition) -> Result<()> {
        let kind = &definition.action.kind;
        let Some(executor) = self.executors.get(kind) else {
            let mut known: Vec<&str> = self.executors.keys().map(String::as_str).collect();
            known.sort_unstable();
            let known = known.join(", ");
            return Err(mainstay_base::Error::invalid(format!(
                "nothing carries out actions of the kind `{kind}`; known kinds are: {known}"
            )));
        };
        let named = |error: mainstay_base::Error| error.context(format!("settings of job `{}`", definition.name));
        executor.check(&definition.action.settings).map_err(named)
    }

    /// Work until `shutdown`; then tell all attempts to stop, and wait for them as long as they may take.
    pub async fn run(self: Arc<Driver>, shutdown: CancellationToken) {
        let (sender, mut stops) = mpsc::unbounded_channel();
        *self.scheduler.inner.stops.lock() = Some(sender);
        let mut lives = Lives::new();
        let mut tasks: JoinSet<(RunId, u64)> = JoinSet::new();
        let mut renewed = Instant::now();
        while !shutdown.is_cancelled() {
            let until = match self.round(&mut lives, &mut tasks, &mut renewed).await {
                Ok(until) => until,
                Err(error) => {
                    tracing::warn!(%error, "the scheduler could not do its work and tries again");
                    Instant::now() + self.options.look
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.scheduler.inner.changed.notified() => {}
                () = sleep_until(until) => {}
                Some(stop) = stops.recv() => cancel(&lives, &stop, None),
                Some(done) = tasks.join_next() => forget(&mut lives, done),
            }
            while let Ok(stop) = stops.try_recv() {
                cancel(&lives, &stop, None);
            }
            while let Some(done) = tasks.try_join_next() {
                forget(&mut lives, done);
            }
        }
        self.stop(&lives, tasks).await;
    }

    /// One look at everything; answers when to look again.
    async fn round(
        self: &Arc<Driver>,
        lives: &mut Lives,
        tasks: &mut JoinSet<(RunId, u64)>,
        renewed: &mut Instant,
    ) -> Result<Instant> {
        let third = self.options.lease / 3;
        if renewed.elapsed() >= third {
            self.renew(lives).await?;
            *renewed = Instant::now();
        }
        let mut next_ms = None;
        for _ in 0..ROUNDS_MAX {
            let advanced = self.scheduler.advance().await?;
            next_ms = advanced.next_ms;
            if !advanced.is_more {
                break;
            }
        }
        let free = self.options.attempts_max.saturating_sub(lives.len());
        if free > 0 {
            for run in self.scheduler.claim(&self.options.owner, self.options.lease_ms(), free).await? {
                self.begin(run, lives, tasks);
            }
        }
        let now_ms = self.scheduler.inner.clock.now_ms();
        let due =
            next_ms.map_or(self.options.look, |at| Duration::from_millis(at.saturating_sub(now_ms).max(1) as u64));
        Ok((Instant::now() + due.min(self.options.look)).min(*renewed + third))
    }

    fn begin(self: &Arc<Driver>, run: Run, lives: &mut Lives, tasks: &mut JoinSet<(RunId, u64)>) {
        let attempt = AttemptContext {
            cancel: CancellationToken::new(),
            log: LogSink::default(),
            heartbeat: Heartbeat::new(self.scheduler.inner.clock.clone()),
            run: Arc::new(run),
        };
        let why = Arc::new(Mutex::new(None));
        let key = (attempt.run.id.clone(), attempt.run.token);
        let live = Live {
            cancel: attempt.cancel.clone(),
            heartbeat: attempt.heartbeat.clone(),
            heartbeat_timeout_ms: attempt.run.plan.heartbeat_timeout_ms,
            why: why.clone(),
        };
        lives.insert(key.clone(), live);
        let driver = self.clone();
        tasks.spawn(async move {
            driver.carry_out(attempt, why).await;
            key
        });
    }

    async fn renew(&self, lives: &Lives) -> Result<()> {
        let mut alive = Vec::with_capacity(lives.len());
        for (key, live) in lives {
            let silent_ms = live.heartbeat.silent_ms();
            match live.heartbeat_timeout_ms {
                Some(timeout_ms) if silent_ms > timeout_ms => {
                    cancel(lives, key, Some(format!("it gave no sign of life for {silent_ms} ms")));
                }
                _ => alive.push(key.clone()),
            }
        }
        let answers = self.scheduler.beat(&alive, self.options.lease_ms()).await?;
        for (key, answer) in alive.iter().zip(answers) {
            match answer {
                BeatAnswer::Good => {}
                BeatAnswer::Stop(_) => cancel(lives, key, None),
                BeatAnswer::Lost => cancel(lives, key, Some("its lease was over".to_owned())),
            }
        }
        Ok(())
    }

    /// One attempt from its beginning to its report.
    async fn carry_out(&self, attempt: AttemptContext, why: Arc<Mutex<Option<String>>>) {
        let (run, log) = (attempt.run.clone(), attempt.log.clone());
        let mut outcome = match self.executors.get(&run.plan.action.kind).cloned() {
            Some(executor) => self.watch(executor, attempt).await,
            None => Outcome::Failure {
                reason: format!("nothing carries out actions of the kind `{}` on this host", run.plan.action.kind),
                is_retryable: false,
            },
        };
        if let (Outcome::Failure { reason, .. }, Some(why)) = (&mut outcome, why.lock().take()) {
            *reason = format!("{why}; {reason}");
        }
        self.keep(&run, log.take_last()).await;
        self.report(&run, outcome).await;
    }

    /// Wait for the executor, storing its log, and end it when it does not stop though it was told to.
    async fn watch(&self, executor: Arc<dyn Executor>, attempt: AttemptContext) -> Outcome {
        let (run, log, cancel) = (attempt.run.clone(), attempt.log.clone(), attempt.cancel.clone());
        // A task of its own, so that a panic is an outcome.
        let mut execution = tokio::spawn(async move { executor.execute(attempt).await });
        let abort = execution.abort_handle();
        let grace = async {
            cancel.cancelled().await;
            sleep(self.options.stop_grace).await;
            abort.abort();
            std::future::pending::<()>().await;
        };
        tokio::pin!(grace);
        loop {
            tokio::select! {
                ended = &mut execution => return ended.unwrap_or_else(|error| broken(&error, self.options.stop_grace)),
                () = &mut grace => {}
                () = sleep(LOG_INTERVAL / if log.pending_bytes() > LOG_PART_BYTES { 50 } else { 1 }) => {
                    self.keep(&run, log.take()).await;
                }
            }
        }
    }

    async fn keep(&self, run: &Run, part: Option<(u32, bytes::Bytes)>) {
        let Some((part, bytes)) = part else { return };
        let lost = bytes.len();
        if let Err(error) = self.scheduler.keep_log(&run.id, run.token, part, bytes).await {
            tracing::warn!(run = %run.id, job = %run.job, %error, "{lost} bytes of an attempt's log could not be stored");
        }
    }

    async fn report(&self, run: &Run, outcome: Outcome) {
        loop {
            match self.scheduler.finish(&run.id, run.token, outcome.clone()).await {
                Ok(_) => return,
                Err(error) if matches!(error.kind(), ErrorKind::Exhausted | ErrorKind::Unavailable) => {
                    tracing::warn!(run = %run.id, job = %run.job, %error, "a result could not be stored yet; trying again");
                    sleep(self.options.look).await;
                }
                Err(error) => {
                    tracing::warn!(run = %run.id, job = %run.job, %error, "a result was refused");
                    return;
                }
            }
        }
    }

    async fn stop(&self, lives: &Lives, mut tasks: JoinSet<(RunId, u64)>) {
        *self.scheduler.inner.stops.lock() = None;
        for key in lives.keys() {
            cancel(lives, key, Some("the host is stopping".to_owned()));
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(self.options.stop_grace + self.options.look, all).await.is_err() {
            tracing::warn!("some attempts did not stop in time; their leases will end");
        }
    }
}

fn cancel(lives: &Lives, key: &(RunId, u64), why: Option<String>) {
    if let Some(live) = lives.get(key) {
        if why.is_some() {
            *live.why.lock() = why;
        }
        live.cancel.cancel();
    }
}

fn forget(lives: &mut Lives, done: std::result::Result<(RunId, u64), tokio::task::JoinError>) {
    match done {
        Ok(key) => drop(lives.remove(&key)),
        Err(error) => tracing::warn!(%error, "a task of the scheduler broke; the attempt's lease will end"),
    }
}

fn broken(error: &tokio::task::JoinError, grace: Duration) -> Outcome {
    Outcome::failure(if error.is_panic() {
        "the executor panicked; see the host's log".to_owned()
    } else {
        format!("the executor did not stop within {} ms of being told to, and was dropped", grace.as_millis())
    })
}
