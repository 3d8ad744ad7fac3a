//! `key [ASC|DESC]`: the order's grammar and each entity's defaults and tie-breaks.
//!
//! Pure. The index always ends an order with the document's id, so that an order is total and a page token exact.

use super::token::{self, Kind};
use super::{Entity, Family};
use crate::errors::{Failure, Outcome};

/// Most keys that one request may order by.
pub const KEYS_MAX: usize = 12;

/// One key of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The field in the index.
    pub field: String,
    /// Largest first.
    pub descending: bool,
}

fn descending(field: &str) -> Key {
    Key { field: field.into(), descending: true }
}

fn ascending(field: &str) -> Key {
    Key { field: field.into(), descending: false }
}

/// Read an order, with what the entity adds to it.
pub fn parse(entity: Entity, clauses: &[String]) -> Outcome<Vec<Key>> {
    if clauses.len() > KEYS_MAX {
        return Err(Failure::invalid(format!("`order_by` has {} keys, more than {KEYS_MAX}.", clauses.len())));
    }
    let mut keys: Vec<Key> = Vec::new();
    for clause in clauses {
        let key = one(entity, clause)?;
        if keys.iter().any(|k| k.field == key.field) {
            return Err(Failure::invalid(format!(
                "`order_by` contains duplicate fields: ['{}']",
                clauses.join("', '")
            )));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        keys = default(entity);
    }
    for tie_break in tie_breaks(entity) {
        if !keys.iter().any(|k| k.field == tie_break.field) {
            keys.push(tie_break);
        }
    }
    Ok(keys)
}

fn one(entity: Entity, clause: &str) -> Outcome<Key> {
    let unreadable = || Failure::invalid(format!("Invalid order_by clause '{clause}'. Could not be parsed."));
    let tokens = token::tokens(clause).map_err(|_| unreadable())?;
    let (name, direction) = match tokens.as_slice() {
        [name] => (name, None),
        [name, direction] => (name, Some(direction)),
        _ => return Err(unreadable()),
    };
    if name.kind != Kind::Name {
        return Err(unreadable());
    }
    let descending = match direction {
        None => false,
        Some(token) if token.is("ASC") => false,
        Some(token) if token.is("DESC") => true,
        Some(_) => return Err(Failure::invalid(format!("Invalid ordering key in order_by clause '{clause}'."))),
    };
    let key = super::key(entity, name.raw, true).map_err(|failure| match entity {
        Entity::RegisteredModel => Failure::invalid(format!(
            "Invalid order by key '{}' specified. Valid keys are '{{'name', 'creation_timestamp', \
             'last_updated_timestamp'}}'",
            name.raw
        )),
        _ => failure,
    })?;
    if key.family == Family::Dataset || (key.family != Family::Attribute && !entity.has_metrics()) {
        return Err(Failure::invalid(format!("Invalid order_by entity: {}", name.raw)));
    }
    Ok(Key { field: key.field, descending })
}

fn default(entity: Entity) -> Vec<Key> {
    match entity {
        Entity::Experiment => vec![descending("creation_time"), ascending("id")],
        Entity::ModelVersion => vec![descending("last_updated_timestamp")],
        Entity::Run | Entity::RegisteredModel | Entity::LoggedModel => Vec::new(),
    }
}

fn tie_breaks(entity: Entity) -> Vec<Key> {
    match entity {
        Entity::Run => vec![descending("start_time")],
        Entity::Experiment => vec![descending("id")],
        Entity::RegisteredModel => vec![ascending("name")],
        Entity::ModelVersion => vec![ascending("name"), descending("version")],
        Entity::LoggedModel => vec![descending("creation_timestamp_ms")],
    }
}

/// The order of logged models, which comes as fields rather than text.
pub fn logged_models(asked: &[(String, bool, Option<String>, Option<String>)]) -> Outcome<Vec<Key>> {
    if asked.len() > KEYS_MAX {
        return Err(Failure::invalid(format!("`order_by` has {} keys, more than {KEYS_MAX}.", asked.len())));
    }
    let mut keys: Vec<Key> = Vec::new();
    for (name, ascending, dataset, digest) in asked {
        let field = match name.split_once('.') {
            Some(("metrics", metric)) => crate::models::latest_field(metric, dataset.as_deref(), digest.as_deref()),
            Some((entity, _)) => {
                return Err(Failure::invalid(format!(
                    "Invalid order by field name: {entity}, only `metrics.<name>` is allowed."
                )));
            }
            None => {
                super::key(Entity::LoggedModel, name.trim(), true)
                    .map_err(|_| Failure::invalid(format!("Invalid order by field name: {name}")))?
                    .field
            }
        };
        keys.push(Key { field, descending: !ascending });
    }
    for tie_break in tie_breaks(Entity::LoggedModel) {
        if !keys.iter().any(|k| k.field == tie_break.field) {
            keys.push(tie_break);
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entity: Entity, clauses: &[&str], expect: &[(&str, bool)]) {
        let clauses: Vec<_> = clauses.iter().map(|c| (*c).to_owned()).collect();
        let keys = parse(entity, &clauses).unwrap_or_else(|e| panic!("{clauses:?}: {}", e.message));
        let got: Vec<_> = keys.iter().map(|k| (k.field.as_str(), k.descending)).collect();
        assert_eq!(got, expect, "{clauses:?}");
    }

    #[track_caller]
    fn refuse(entity: Entity, clauses: &[&str], part: &str) {
        let clauses: Vec<_> = clauses.iter().map(|c| (*c).to_owned()).collect();
        let failure = parse(entity, &clauses).unwrap_err();
        assert!(failure.message.contains(part), "{clauses:?}: {}", failure.message);
    }

    #[test]
    fn reads_orders() {
        use Entity::{Experiment, ModelVersion, RegisteredModel, Run};
        check(Run, &[], &[("start_time", true)]);
        check(Run, &["metrics.a DESC"], &[("metrics.a", true), ("start_time", true)]);
        check(Run, &["metrics.`a b` asc", "created"], &[("metrics.a b", false), ("start_time", false)]);
        check(Run, &["params.\"x.y\""], &[("params.x.y", false), ("start_time", true)]);
        check(Run, &["attributes.run_id DESC"], &[("@id", true), ("start_time", true)]);
        check(Experiment, &[], &[("creation_time", true), ("id", false)]);
        check(Experiment, &["name"], &[("name", false), ("id", true)]);
        check(RegisteredModel, &["timestamp DESC"], &[("last_updated_timestamp", true), ("name", false)]);
        check(ModelVersion, &[], &[("last_updated_timestamp", true), ("name", false), ("version", true)]);
        check(ModelVersion, &["version_number ASC"], &[("version", false), ("name", false)]);
    }

    #[test]
    fn refuses_orders() {
        use Entity::{Experiment, RegisteredModel, Run};
        refuse(Run, &["metrics.a", "metrics.a DESC"], "duplicate fields");
        refuse(Run, &["start_time", "created DESC"], "duplicate fields");
        refuse(Run, &["metrics.a SIDEWAYS"], "Invalid ordering key");
        refuse(Run, &["metrics.a DESC DESC"], "Could not be parsed");
        refuse(Run, &["1"], "Could not be parsed");
        refuse(Run, &[""], "Could not be parsed");
        refuse(Run, &["foo"], "Invalid attribute key");
        refuse(Run, &["dataset.name"], "Invalid order_by entity");
        refuse(Experiment, &["tags.a"], "Invalid order_by entity");
        refuse(RegisteredModel, &["version"], "Invalid order by key 'version' specified.");
        refuse(Run, &["metrics.a"; KEYS_MAX + 1], "more than 12");
    }
}
