//! The plan: what happens to the requests of an endpoint, as data.
//!
//! Owns [`Plan`] and its parts, their defaults and their JSON schema. Separate from what executes it, because whoever makes a
//! plan only has to write this table; the host carries it out for every request without asking back. The checks are in
//! [`crate::check`].
//!
//! Bounded by [`crate::limits`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::{Condition, Source};
use crate::served::Why;

/// What happens to the requests of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Tried in this order; the first that matches decides instead of `split`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Who gets which variant.
    pub split: Split,
    /// Variants that get copies of requests; nobody sees their answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// Who answers when the chosen variant does not, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Tier>,
    /// What is answered when no tier of the chain does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<FixedAnswer>,
    /// Why the chain is asked; other failures go to the caller.
    #[serde(default = "default_fall_back_on")]
    pub fall_back_on: Vec<Why>,
    /// How many requests at once, how fast, and how long.
    #[serde(default)]
    pub limits: PathLimits,
    /// When a variant is left alone; a variant may have a policy of its own.
    #[serde(default)]
    pub breaker: BreakerPolicy,
    /// When a variant is asked again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// What leads to another plan at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tripwires: Vec<Tripwire>,
    /// What is counted.
    #[serde(default)]
    pub signals: SignalSettings,
    /// Which requests the watcher is told of.
    #[serde(default)]
    pub watch: WatchSettings,
}

/// Requests that are not split as the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// All of these must be true.
    pub when: Vec<Condition>,
    /// Who gets which variant then.
    pub split: Split,
}

/// Who gets which variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Split {
    /// They sum to 100 %.
    pub shares: Vec<Share>,
    /// Requests with the same text here get the same variant; none, or a request without it: by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Source>,
}

/// The share of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Share {
    /// The variant.
    pub variant: String,
    /// 0 to 100.
    pub percent: f64,
}

/// A variant that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mirror {
    /// The variant.
    pub variant: String,
    /// How many of the requests, 0 to 100.
    #[serde(default = "default_mirror_percent")]
    pub percent: f64,
    /// How its answers are compared with those that callers got; none: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Comparison>,
    /// The longest time of a copy, in milliseconds.
    #[serde(default = "default_mirror_timeout_ms")]
    pub timeout_ms: u64,
    /// Copies that may be on their way at once; the rest is not copied, and counted.
    #[serde(default = "default_mirror_concurrency")]
    pub concurrency: u32,
}

/// When two answers agree: all elements of the outputs differ by at most `absolute` or the share `relative` of the larger one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Comparison {
    /// The outputs that are compared; none: all of the answer that the caller got.
    pub outputs: Vec<String>,
    /// The absolute difference that is still agreement.
    pub absolute: f64,
    /// The relative difference that is still agreement.
    pub relative: f64,
}

impl Default for Comparison {
    fn default() -> Comparison {
        Comparison { outputs: Vec::new(), absolute: 1e-6, relative: 1e-5 }
    }
}

/// One tier of the fallback chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tier {
    /// Who answers: `{ variant = "NAME" }` or `{ named = "NAME" }`.
    pub by: Stand,
    /// Its own deadline, in milliseconds.
    #[serde(default = "default_tier_timeout_ms")]
    pub timeout_ms: u64,
}

/// Who answers instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    /// Another variant of the endpoint.
    Variant(String),
    /// A fallback that was installed under this name.
    Named(String),
}

/// An answer that stands in the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FixedAnswer {
    /// What it is called in the answer's labels.
    #[serde(default = "default_answer_label")]
    pub label: String,
    /// Its tensors; none: an empty answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<FixedTensor>,
}

/// A tensor of an answer that stands in the plan, as the Open Inference Protocol has it in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FixedTensor {
    /// Its name.
    pub name: String,
    /// `BOOL`, `UINT8` to `UINT64`, `INT8` to `INT64`, `FP32`, `FP64` or `BYTES`.
    pub datatype: String,
    /// The extent of each dimension.
    pub shape: Vec<u64>,
    /// Its elements, row by row.
    pub data: Vec<Value>,
}

/// How many requests at once, how fast, and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PathLimits {
    /// The longest time of a request, waiting, retries and fallbacks included, in milliseconds; a caller may ask for less.
    pub timeout_ms: u64,
    /// The longest time of one attempt, in milliseconds; none: what is left of the request's time.
    pub attempt_timeout_ms: Option<u64>,
    /// Requests at once.
    pub concurrency: u32,
    /// Requests that may wait for their turn; one more is refused at once.
    pub queue: u32,
    /// The longest wait, in milliseconds.
    pub queue_timeout_ms: u64,
    /// What callers that are refused are told to wait, in milliseconds, when nothing better is known.
    pub retry_after_ms: u64,
    /// The limits of each tenant that has none of its own.
    pub tenant: TenantLimits,
    /// Tenants with limits of their own.
    pub tenants: BTreeMap<String, TenantLimits>,
}

impl Default for PathLimits {
    fn default() -> PathLimits {
        PathLimits {
            timeout_ms: 30_000,
            attempt_timeout_ms: None,
            concurrency: 256,
            queue: 100,
            queue_timeout_ms: 1_000,
            retry_after_ms: 1_000,
            tenant: TenantLimits::default(),
            tenants: BTreeMap::new(),
        }
    }
}

/// The limits of one tenant. None of it: only the endpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TenantLimits {
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Requests that may wait.
    pub queue: Option<u32>,
    /// How fast.
    pub rate: Option<Rate>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rate {
    /// Requests a second in the long run.
    pub per_second: f64,
    /// Requests at once after a pause.
    pub burst: u32,
}

/// When a variant is left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BreakerPolicy {
    /// Failures in a row that open it; 0: no number does.
    pub consecutive: u32,
    /// A share of failures that opens it.
    pub rate: Option<FailureRate>,
    /// An answer that took longer counts as a failure, in milliseconds.
    pub slower_than_ms: Option<u64>,
    /// Whether an answer that the guard refused counts as a failure.
    pub on_bad_answers: bool,
    /// An attempt that ran out of time counts as a failure if it had at least this long, in milliseconds: a caller in a hurry
    /// says nothing about the backend.
    pub timeout_counts_after_ms: u64,
    /// How long it stays open the first time, in milliseconds.
    pub open_ms: u64,
    /// What each further time is multiplied with, until it has been closed for as long as it was open.
    pub factor: f64,
    /// The longest time, in milliseconds.
    pub cap_ms: u64,
    /// The share of each time, 0 to 1, that chance may take away.
    pub jitter: f64,
    /// Requests that are let through when the time is over; all must be answered for it to close.
    pub probes: u32,
    /// A probe of which nothing is heard for this long counts as lost, and another may take its place, in milliseconds.
    pub probe_timeout_ms: u64,
}

impl Default for BreakerPolicy {
    fn default() -> BreakerPolicy {
        BreakerPolicy {
            consecutive: 5,
            rate: None,
            slower_than_ms: None,
            on_bad_answers: true,
            timeout_counts_after_ms: 100,
            open_ms: 30_000,
            factor: 2.0,
            cap_ms: 300_000,
            jitter: 0.1,
            probes: 1,
            probe_timeout_ms: 30_000,
        }
    }
}

/// A share of failures in a window of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FailureRate {
    /// More than this share, 0 to 100.
    pub percent: f64,
    /// Of the requests in this time, in milliseconds.
    pub window_ms: u64,
    /// If there are at least so many.
    pub minimum: u32,
}

/// When a variant is asked again: only for failures that are said to be safe to repeat, only while its breaker is closed, never
/// beyond the deadline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// How often, 0 to 3.
    pub retries: u32,
    /// The delay before the first, in milliseconds.
    pub base_ms: u64,
    /// What each further delay is multiplied with.
    pub factor: f64,
    /// The longest delay, in milliseconds.
    pub cap_ms: u64,
    /// The share of each delay, 0 to 1, that chance may take away.
    pub jitter: f64,
    /// Retries of all requests together may be at most this share of the requests of the last ten seconds, 0 to 100.
    pub budget_percent: f64,
    /// So many retries in ten seconds are allowed whatever the share.
    pub budget_minimum: u32,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            retries: 3,
            base_ms: 25,
            factor: 2.0,
            cap_ms: 1_000,
            jitter: 0.5,
            budget_percent: 20.0,
            budget_minimum: 3,
        }
    }
}

/// A measurement that leads to another plan at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tripwire {
    /// What it is called in the history.
    pub name: String,
    /// The variant that is measured; none: all of the endpoint's requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What is measured.
    pub signal: Signal,
    /// It is breached when more than this share of requests is so, 0 to 100.
    pub percent: f64,
    /// In this time, in milliseconds.
    pub window_ms: u64,
    /// If there are at least so many requests.
    pub minimum: u32,
    /// Requests in this time after the plan became active do not count, in milliseconds.
    #[serde(default)]
    pub grace_ms: u64,
    /// The named plan of the endpoint that becomes active.
    pub plan: String,
}

/// What a tripwire measures: each is true or not of one request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// The variant did not answer: it failed, ran out of time, was not ready, or its answer was bad.
    Errors,
    /// The guard did not let the answer pass.
    BadAnswers,
    /// A fallback answered.
    Fallbacks,
    /// The request was refused, because there were too many.
    Overloads,
    /// The answer of a mirror did not agree with the one that the caller got.
    Disagreements,
    /// The answer took longer, in milliseconds. With 1 %: the 99th percentile is above it.
    SlowerThanMs(u64),
    /// The score was above this.
    ScoreAbove(f64),
    /// The score was below this.
    ScoreBelow(f64),
}

/// What is counted, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SignalSettings {
    /// The length of one window, in milliseconds.
    pub window_ms: u64,
    /// How many windows are kept.
    pub windows: u32,
    /// Requests with different texts here are counted apart, the first sixteen; the others together.
    pub segment: Option<Source>,
    /// What of an answer is its score.
    pub score: ScoreSettings,
}

impl Default for SignalSettings {
    fn default() -> SignalSettings {
        SignalSettings { window_ms: 10_000, windows: 60, segment: None, score: ScoreSettings::default() }
    }
}

/// What of an answer is its score, and how scores are counted: in 32 bins of equal width, and one below and above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ScoreSettings {
    /// The output; none: the first.
    pub output: Option<String>,
    /// Which column of each row.
    pub column: u64,
    /// Where the first bin begins.
    pub min: f64,
    /// Where the last bin ends.
    pub max: f64,
}

impl Default for ScoreSettings {
    fn default() -> ScoreSettings {
        ScoreSettings { output: None, column: 0, min: 0.0, max: 1.0 }
    }
}

/// Which requests the watcher is told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WatchSettings {
    /// A share of all requests, 0 to 100.
    pub percent: f64,
    /// All that were not answered as planned.
    pub failed: bool,
    /// All that took longer, in milliseconds.
    pub slower_than_ms: Option<u64>,
}

impl Default for WatchSettings {
    fn default() -> WatchSettings {
        WatchSettings { percent: 1.0, failed: true, slower_than_ms: Some(500) }
    }
}

impl Plan {
    /// All requests to one variant, everything else as by default.
    pub fn of(variant: impl Into<String>) -> Plan {
        let share = Share { variant: variant.into(), percent: 100.0 };
        Plan::split(Split { shares: vec![share], key: None })
    }

    /// Requests split so, everything else as by default.
    pub fn split(split: Split) -> Plan {
        Plan {
            rules: Vec::new(),
            split,
            mirrors: Vec::new(),
            fallbacks: Vec::new(),
            answer: None,
            fall_back_on: default_fall_back_on(),
            limits: PathLimits::default(),
            breaker: BreakerPolicy::default(),
            retry: RetryPolicy::default(),
            tripwires: Vec::new(),
            signals: SignalSettings::default(),
            watch: WatchSettings::default(),
        }
    }

    /// Every split of the plan, each with its place for messages.
    pub(crate) fn splits(&self) -> impl Iterator<Item = (String, &Split)> {
        let ruled = self.rules.iter().enumerate().map(|(n, rule)| (format!("rules[{n}].split"), &rule.split));
        std::iter::once(("split".to_owned(), &self.split)).chain(ruled)
    }

    /// Variants that may answer callers as planned.
    pub(crate) fn primaries(&self) -> impl Iterator<Item = &str> {
        let rules = self.rules.iter().map(|rule| &rule.split);
        let shares = std::iter::once(&self.split).chain(rules).flat_map(|split| &split.shares);
        shares.filter(|share| share.percent > 0.0).map(|share| &*share.variant)
    }
}

fn default_fall_back_on() -> Vec<Why> {
    vec![Why::Deadline, Why::BreakerOpen, Why::NotReady, Why::Failed, Why::BadAnswer]
}

fn default_mirror_percent() -> f64 {
    100.0
}

fn default_mirror_timeout_ms() -> u64 {
    5_000
}

fn default_mirror_concurrency() -> u32 {
    64
}

fn default_tier_timeout_ms() -> u64 {
    50
}

fn default_answer_label() -> String {
    "fixed".to_owned()
}
