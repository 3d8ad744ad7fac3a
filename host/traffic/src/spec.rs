//! What an operator says of an endpoint, as data.
//!
//! Owns [`EndpointSpec`] with its variants, guards and faults, their defaults and their JSON schema, read from TOML or JSON.
//! Separate from what happens at an endpoint, because a specification is read, shown and compared without a clock or a store.
//!
//! Bounded by [`crate::limits`]. On failure: a specification that does not make sense is `invalid` and names the field.

use mainstay_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::caller::Condition;
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::plan::{BreakerPolicy, Plan};
use crate::reference::Reference;

/// A stable name that requests are sent to, what may answer them, and the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EndpointSpec {
    /// Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What may answer.
    pub variants: Vec<VariantSpec>,
    /// What happens to requests, until another plan is made active.
    pub plan: Plan,
    /// Plans that tripwires lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<NamedPlan>,
    /// Faults that are injected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A plan that others name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NamedPlan {
    /// Its name.
    pub name: String,
    /// The plan.
    pub plan: Plan,
}

/// One that may answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VariantSpec {
    /// Its name within the endpoint.
    pub name: String,
    /// What stands behind it.
    pub backend: Reference,
    /// What it needs to run: variants and fallbacks with the same resource fail together. None: its backend alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What its answers must look like.
    #[serde(default)]
    pub guard: Guard,
    /// When it is left alone, instead of the plan's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerPolicy>,
    /// The longest time to load and warm it, in milliseconds.
    #[serde(default = "default_warm_timeout_ms")]
    pub warm_timeout_ms: u64,
}

/// What the answers of a variant must look like before a caller sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Guard {
    /// No output may hold a value that is no number or infinite.
    pub finite: bool,
    /// An answer must have an output.
    pub not_empty: bool,
    /// Of single outputs.
    pub outputs: Vec<OutputRule>,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { finite: true, not_empty: true, outputs: Vec::new() }
    }
}

/// What one output must look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OutputRule {
    /// The output.
    pub output: String,
    /// Whether it may be left out.
    #[serde(default)]
    pub optional: bool,
    /// Its datatype by the protocol's name, for example `FP32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datatype: Option<String>,
    /// The extent of each dimension; -1 for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<i64>>,
    /// No value may be smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// No value may be larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// So many answers in a row with the same values, to requests that differ, are bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant_after: Option<u32>,
}

/// A fault that is injected on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    /// What it is called.
    pub name: String,
    /// Only attempts at this variant; none: any variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Only requests of which all of these are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// How many of these, 0 to 100.
    pub percent: f64,
    /// What happens to them.
    pub effect: Effect,
    /// When it begins, in milliseconds since 1970 UTC; none: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// When it ends, in milliseconds since 1970 UTC.
    pub until_ms: i64,
    /// When it stops by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopRule>,
    /// Count who would be hit, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an injected fault does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// An attempt takes this much longer, in milliseconds.
    LatencyMs(u64),
    /// An attempt fails, as if the backend had; with this message.
    Error(String),
    /// A request ends at once with this HTTP status, without retry or fallback.
    Abort(u16),
    /// So many of the endpoint's requests at once are taken away.
    Saturation(u32),
}

/// When a fault stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StopRule {
    /// More than this share of the endpoint's requests end without an answer as planned, 0 to 100.
    pub percent: f64,
    /// In this time, in milliseconds.
    pub window_ms: u64,
    /// If there are at least so many.
    pub minimum: u32,
}

fn default_warm_timeout_ms() -> u64 {
    60_000
}

impl EndpointSpec {
    /// Read a specification in TOML, and check it.
    pub fn from_toml(text: &str) -> Result<EndpointSpec> {
        check_length(text)?;
        let spec: EndpointSpec =
            toml::from_str(text).map_err(|error| Error::invalid(format!("the endpoint cannot be read: {error}")))?;
        spec.check()?;
        Ok(spec)
    }

    /// Read a specification in JSON, and check it.
    pub fn from_json(text: &str) -> Result<EndpointSpec> {
        check_length(text)?;
        let spec: EndpointSpec = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("the endpoint cannot be read: {error}")))?;
        spec.check()?;
        Ok(spec)
    }

    /// A variant by name.
    pub fn variant(&self, name: &str) -> Option<&VariantSpec> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// A named plan.
    pub fn named_plan(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|named| named.name == name).map(|named| &named.plan)
    }
}

impl VariantSpec {
    /// A variant with everything as by default.
    pub fn new(name: impl Into<String>, backend: Reference) -> VariantSpec {
        VariantSpec {
            name: name.into(),
            backend,
            resource: None,
            guard: Guard::default(),
            breaker: None,
            warm_timeout_ms: default_warm_timeout_ms(),
        }
    }

    /// What it needs to run: what is said, or its backend.
    pub(crate) fn needs(&self) -> String {
        self.resource.clone().unwrap_or_else(|| self.backend.to_string())
    }
}

fn check_length(text: &str) -> Result<()> {
    let length = text.len();
    match length <= DOCUMENT_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the endpoint's specification has {length} bytes; at most {DOCUMENT_BYTES_MAX} are allowed"
        ))),
    }
}
