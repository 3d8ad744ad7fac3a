//! Durable jobs: what to do, when, how often to try, and what came of it.
//!
//! Owns [`Scheduler`] (jobs, runs, pools, in the store), the pure rules behind it (triggers, catching up, retries, a run's
//! states), the [`Executor`] trait with one executor for local processes, and the [`Driver`] that ties clock, store and
//! executors. Separate from the store because it has opinions about time, and from the rooms above because it has none about
//! what a job does.
//!
//! Everything about a run changes in one transaction: the run, its place in the due times and queues, its pool's and job's
//! counts, and the runs that it starts. An attempt has one owner, by a lease with a fencing token. An occurrence is kept under
//! its scheduled time, so no clock makes it run twice.
//!
//! Bounded by [`limits`]. On failure: what was not committed has not happened, and is done again; an attempt whose owner is
//! gone ends with that as its reason.
//!
//! ```
//! use std::sync::Arc;
//! use mainstay_base::{SeededRandom, VirtualClock};
//! use mainstay_schedule::{JobDefinition, Outcome, RunEnd, Scheduler, Start};
//! use mainstay_store::Store;
//!
//! # futures::executor::block_on(async {
//! let scheduler = Scheduler::new(Store::in_memory(), Arc::new(VirtualClock::new(0)), Arc::new(SeededRandom::new(1)));
//! scheduler.apply(JobDefinition::new("greet", "print")).await?;
//! let started = scheduler.start(Start::of("greet")).await?;
//!
//! // What a driver does: take what is ready, carry it out, report.
//! let claimed = scheduler.claim("this host", 30_000, 10).await?;
//! assert_eq!(claimed[0].id, started.run);
//! let done = scheduler.finish(&started.run, claimed[0].token, Outcome::Success { result: "hello".into() }).await?;
//! assert_eq!(done.end(), Some(RunEnd::Success));
//! # mainstay_base::Result::<()>::Ok(())
//! # }).unwrap();
//! ```
#![forbid(unsafe_code)]

mod backfill;
mod batch;
mod cron;
mod definition;
mod dispatch;
mod driver;
mod due;
mod executor;
mod job;
mod keys;
pub mod limits;
mod logs;
pub mod process;
mod retention;
mod run;
mod scheduler;
mod start;
mod state;
mod trigger;

pub use backfill::{Backfill, BackfillOccurrence, Backfilled};
pub use batch::Started;
pub use definition::{
    Action, Callback, CatchUp, DEFAULT_POOL, JobDefinition, Misfire, MisfirePolicy, On, Parameters, Pool, RetryPolicy,
};
pub use dispatch::{Advanced, BeatAnswer};
pub use driver::{Driver, DriverOptions};
pub use executor::{AttemptContext, Executor, Heartbeat};
pub use job::{JobRecord, TriggerState};
pub use logs::{LogPage, LogSink};
pub use run::{Attempt, AttemptEnd, AttemptEndKind, Cause, Plan, Run, RunEnd, RunId, RunState, Stop, StopKind};
pub use scheduler::{DEFAULT_SLOTS, PoolUse, RunPage, Scheduler};
pub use start::Start;
pub use state::Outcome;
pub use trigger::Trigger;
