//! Which variant answers a request, and what happens when it cannot.
//!
//! Owns [`Traffic`]: endpoints with a stable name, the variants behind them, and the plan that is carried out for every request
//! without asking anybody: rules, shares, mirrors, fallbacks, limits, breakers, retries, tripwires, faults, and what is counted
//! of all that. Plans are data ([`Plan`]); who makes them is none of this room's business. Separate from backends, which are
//! behind a trait ([`Backend`]), and from protocols, which the gateway speaks.
//!
//! Bounded by [`limits`] and each plan's own. On failure: a caller gets an answer that says who stood in, or a [`Refused`] that
//! says why and when to come again; never a silent wrong one.
//!
//! ```
//! use mainstay_traffic::{EndpointSpec, diff};
//!
//! # fn main() -> mainstay_base::Result<()> {
//! let spec = EndpointSpec::from_toml(
//!     r#"
//!     name = "churn"
//!     variants = [{ name = "old", backend = "models:/churn/6" }, { name = "new", backend = "models:/churn@next" }]
//!
//!     [plan.split]
//!     shares = [{ variant = "old", percent = 95 }, { variant = "new", percent = 5 }]
//!     key = { header = "x-user" }
//!     "#,
//! )?;
//! let mut wider = spec.clone();
//! (wider.plan.split.shares[0].percent, wider.plan.split.shares[1].percent) = (80.0, 20.0);
//! assert_eq!(diff(Some(&spec), &wider)[1], "`plan.split.shares[new].percent` changes from 5.0 to 20.0");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod answer;
mod attempt;
mod backend;
mod breaker;
mod bulkhead;
mod caller;
mod check;
mod compare;
mod copy;
mod diff;
mod elements;
mod endpoint;
mod fault;
mod guard;
pub mod limits;
mod passage;
mod plan;
mod records;
mod reference;
mod retry;
mod route;
mod serve;
mod served;
mod signals;
mod spec;
mod split;
mod stand_in;
mod stream;
mod tokens;
mod traffic;
mod tripwire;
mod variant;
mod watch;
mod window;

pub use backend::{
    AnswerStream, Ask, Backend, Backends, Failure, Fallback, Identity, Instead, StoodIn, Unwatched, Watch,
};
pub use breaker::BreakerState;
pub use bulkhead::Load;
pub use caller::{Caller, Condition, Source, Test};
pub use diff::diff;
pub use endpoint::EndpointStatus;
pub use fault::FaultReport;
pub use plan::{
    BreakerPolicy, Comparison, FailureRate, FixedAnswer, FixedTensor, Mirror, PathLimits, Plan, Rate, RetryPolicy,
    Rule, ScoreSettings, Share, Signal, SignalSettings, Split, Stand, TenantLimits, Tier, Tripwire, WatchSettings,
};
pub use records::{EndpointRecord, History, PlanRecord, Reason};
pub use reference::{REFERENCE_BYTES_MAX, Reference};
pub use served::{FellBack, Labels, Refused, Served, Why};
pub use signals::{Agreement, LATENCY_ERROR, Latency, OTHER, SCORE_BINS, Scores, Series, SignalWindow};
pub use spec::{Effect, EndpointSpec, Fault, Guard, NamedPlan, OutputRule, StopRule, VariantSpec};
pub use stream::ServedStream;
pub use traffic::{Assignment, Foundation, NewPlan, Traffic};
pub use variant::VariantStatus;
pub use watch::{Change, Changed, Happened};
