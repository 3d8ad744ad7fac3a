//! Search: from the text of a filter and an order to a question for the host's index.
//!
//! Pure. `token` splits, `filter` and `order` read by the rules of one of five entities, `plan` says it in the index's
//! words. A clause that an entity does not know is a refusal that quotes it, never an empty result.

pub mod filter;
pub mod order;
pub mod plan;
pub mod token;

/// What is searched for; each has its own attributes and operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// Runs.
    Run,
    /// Experiments.
    Experiment,
    /// Registered models.
    RegisteredModel,
    /// Versions of registered models.
    ModelVersion,
    /// Logged models.
    LoggedModel,
}

/// How the value of an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As text.
    Text,
    /// As text, and it may be looked up in a list.
    TextOrList,
    /// As a whole number.
    Number,
    /// As a whole number that is written in quotes.
    QuotedNumber,
}

/// An attribute: how a filter calls it, what the index calls it.
pub struct Attribute {
    /// Its names in filters.
    pub names: &'static [&'static str],
    /// Its field in the index.
    pub field: &'static str,
    /// How it is compared.
    pub shape: Shape,
    /// Whether it may be filtered by.
    pub filters: bool,
    /// Whether it may be ordered by.
    pub orders: bool,
}

const fn attribute(names: &'static [&'static str], field: &'static str, shape: Shape) -> Attribute {
    Attribute { names, field, shape, filters: true, orders: true }
}

const fn order_only(names: &'static [&'static str], field: &'static str) -> Attribute {
    Attribute { names, field, shape: Shape::Number, filters: false, orders: true }
}

const RUN: &[Attribute] = &[
    attribute(&["run_id"], "@id", Shape::TextOrList),
    attribute(&["run_name", "run name", "Run name", "Run Name"], "run_name", Shape::Text),
    attribute(&["user_id"], "user_id", Shape::Text),
    attribute(&["status"], "status", Shape::Text),
    attribute(&["artifact_uri"], "artifact_uri", Shape::Text),
    attribute(&["start_time", "created", "Created"], "start_time", Shape::Number),
    attribute(&["end_time"], "end_time", Shape::Number),
];

const EXPERIMENT: &[Attribute] = &[
    attribute(&["name"], "name", Shape::Text),
    attribute(&["experiment_id"], "id", Shape::QuotedNumber),
    attribute(&["creation_time"], "creation_time", Shape::Number),
    attribute(&["last_update_time"], "last_update_time", Shape::Number),
];

const REGISTERED_MODEL: &[Attribute] = &[
    attribute(&["name"], "name", Shape::TextOrList),
    order_only(&["creation_timestamp"], "creation_timestamp"),
    order_only(&["last_updated_timestamp", "timestamp"], "last_updated_timestamp"),
];

const MODEL_VERSION: &[Attribute] = &[
    attribute(&["name"], "name", Shape::TextOrList),
    attribute(&["run_id"], "run_id", Shape::TextOrList),
    attribute(&["source_path"], "source", Shape::Text),
    attribute(&["version_number"], "version", Shape::Number),
    order_only(&["creation_timestamp"], "creation_timestamp"),
    order_only(&["last_updated_timestamp"], "last_updated_timestamp"),
];

const LOGGED_MODEL: &[Attribute] = &[
    attribute(&["name"], "name", Shape::TextOrList),
    attribute(&["model_id"], "@id", Shape::TextOrList),
    attribute(&["model_type"], "model_type", Shape::TextOrList),
    attribute(&["status"], "status", Shape::TextOrList),
    attribute(&["source_run_id"], "source_run_id", Shape::TextOrList),
    attribute(&["experiment_id"], "experiment_id", Shape::TextOrList),
    attribute(
        &["creation_timestamp", "creation_time", "creation_timestamp_ms"],
        "creation_timestamp_ms",
        Shape::Number,
    ),
    attribute(
        &["last_updated_timestamp", "last_updated_time", "last_updated_timestamp_ms"],
        "last_updated_timestamp_ms",
        Shape::Number,
    ),
];

impl Entity {
    /// Its attributes.
    pub fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Run => RUN,
            Self::Experiment => EXPERIMENT,
            Self::RegisteredModel => REGISTERED_MODEL,
            Self::ModelVersion => MODEL_VERSION,
            Self::LoggedModel => LOGGED_MODEL,
        }
    }

    /// Whether it has metrics, params and datasets beside attributes and tags.
    pub fn has_metrics(self) -> bool {
        matches!(self, Self::Run | Self::LoggedModel)
    }

    /// Whether `IS NULL` is understood for its tags (and params).
    pub fn knows_null(self) -> bool {
        matches!(self, Self::Run | Self::Experiment)
    }
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A fixed attribute.
    Attribute,
    /// A metric's latest value.
    Metric,
    /// A param.
    Param,
    /// A tag.
    Tag,
    /// Something about a dataset that was an input.
    Dataset,
}

/// A resolved key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where it belongs.
    pub family: Family,
    /// As the user named it.
    pub name: String,
    /// The field in the index.
    pub field: String,
    /// How it is compared.
    pub shape: Shape,
}

use crate::errors::{Failure, Outcome};

fn trimmed(text: &str) -> &str {
    let inner = |q: char| text.strip_prefix(q).and_then(|rest| rest.strip_suffix(q));
    inner('\'').or_else(|| inner('"')).or_else(|| inner('`')).unwrap_or(text)
}

fn family(entity: Entity, prefix: &str) -> Outcome<Family> {
    let plain = prefix.strip_prefix('`').and_then(|p| p.strip_suffix('`')).unwrap_or(prefix);
    let family = match (entity, plain) {
        (Entity::Run, "metric" | "metrics") | (Entity::LoggedModel, "metrics") => Family::Metric,
        (Entity::Run, "param" | "params" | "parameter" | "parameters") | (Entity::LoggedModel, "params") => {
            Family::Param
        }
        (Entity::Run | Entity::Experiment | Entity::RegisteredModel | Entity::ModelVersion, "tag" | "tags")
        | (Entity::LoggedModel, "tags") => Family::Tag,
        (Entity::Run, "attribute" | "attributes" | "attr" | "run") | (Entity::LoggedModel, "attributes") => {
            Family::Attribute
        }
        (Entity::Experiment | Entity::RegisteredModel | Entity::ModelVersion, "attribute") => Family::Attribute,
        (Entity::Run, "dataset" | "datasets") => Family::Dataset,
        _ => {
            let valid = match entity {
                Entity::Run => "Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
                Entity::LoggedModel => "Expected one of ['attributes', 'metrics', 'params', 'tags']",
                _ => "Valid entity types are ('attribute', 'tag', 'tags')",
            };
            return Err(Failure::invalid(format!("Invalid entity type '{plain}'. {valid}")));
        }
    };
    Ok(family)
}

/// Resolve what stands left of an operator, or in an order clause.
pub fn key(entity: Entity, raw: &str, ordering: bool) -> Outcome<Key> {
    let (family, name) = match raw.split_once('.') {
        Some((prefix, name)) => (family(entity, prefix)?, trimmed(name)),
        None => (Family::Attribute, trimmed(raw)),
    };
    let resolved = |field: String, shape| Ok(Key { family, name: name.to_owned(), field, shape });
    match family {
        Family::Metric => resolved(format!("metrics.{name}"), Shape::Number),
        Family::Param => resolved(format!("params.{name}"), Shape::Text),
        Family::Tag => resolved(format!("tags.{name}"), Shape::Text),
        Family::Dataset if matches!(name, "name" | "digest" | "context") => {
            resolved(format!("dataset.{name}"), Shape::TextOrList)
        }
        Family::Dataset => Err(Failure::invalid(format!(
            "Invalid dataset key '{name}' specified. Valid keys are '{{'name', 'digest', 'context'}}'"
        ))),
        Family::Attribute => {
            let allowed = |a: &&Attribute| if ordering { a.orders } else { a.filters };
            let found = entity.attributes().iter().filter(allowed).find(|a| a.names.contains(&name));
            match found {
                Some(found) => resolved(found.field.to_owned(), found.shape),
                None => {
                    let valid: Vec<_> =
                        entity.attributes().iter().filter(allowed).map(|a| format!("'{}'", a.names[0])).collect();
                    Err(Failure::invalid(format!(
                        "Invalid attribute key '{name}' specified. Valid keys are '{{{}}}'",
                        valid.join(", ")
                    )))
                }
            }
        }
    }
}
