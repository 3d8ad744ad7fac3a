//! A filter and an order in the words of the host's index, and page tokens.
//!
//! Pure. A document without a field matches no comparison with it, which is what the grammar wants: a run without a
//! param matches neither `=` nor `!=`. A page token carries the index's cursor and a fingerprint of the question, so that
//! a token of another question is a refusal instead of a page of nonsense.

use super::filter::{Clause, Op, Value as Operand};
use super::order::Key;
use super::{Entity, Family, Shape};
use crate::errors::{Failure, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mainstay_sdk::index::{Comparison, Filter, Order, Query, Value, field};

/// The tag by which registries tell prompts from models.
pub const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

/// All clauses at once.
pub fn filter(entity: Entity, clauses: &[Clause]) -> Outcome<Filter> {
    let mut parts = Vec::with_capacity(clauses.len());
    let registry = matches!(entity, Entity::RegisteredModel | Entity::ModelVersion);
    let prompts = registry && clauses.iter().any(asks_for_prompts);
    for clause in clauses {
        let about_prompts = registry && clause.key.family == Family::Tag && clause.key.name == PROMPT_TAG;
        if !about_prompts {
            parts.push(one(entity, clause)?);
        }
    }
    if registry {
        // Nearly every client adds "is not a prompt"; models lack the tag, so it means "is not marked as one".
        let marked = field(format!("tags.{PROMPT_TAG}")).equal("true");
        parts.push(if prompts { marked } else { !marked });
    }
    Ok(Filter::all(parts))
}

fn asks_for_prompts(clause: &Clause) -> bool {
    let Operand::Text(value) = &clause.value else { return false };
    clause.key.family == Family::Tag
        && clause.key.name == PROMPT_TAG
        && match clause.op {
            Op::Equal => value.eq_ignore_ascii_case("true"),
            Op::NotEqual => value.eq_ignore_ascii_case("false"),
            _ => false,
        }
}

fn one(entity: Entity, clause: &Clause) -> Outcome<Filter> {
    let name = clause.key.field.as_str();
    if entity == Entity::LoggedModel && clause.key.family == Family::Metric {
        return Ok(any_metric(&clause.key.name, None, clause));
    }
    Ok(match (&clause.op, &clause.value) {
        (Op::IsNull, _) => !field(name).exists(),
        (Op::IsNotNull, _) => field(name).exists(),
        (Op::In, Operand::List(values)) => field(name).one_of(listed(clause, values)?),
        (Op::NotIn, Operand::List(values)) if clause.key.family == Family::Dataset => {
            // "Some dataset is none of these": a field of several texts matches when one of them does.
            Filter::all(values.iter().map(|value| field(name).not_equal(value)))
        }
        (Op::NotIn, Operand::List(values)) => {
            // `@id` exists always; any other field must, or the document would match by lacking it.
            let others = !field(name).one_of(listed(clause, values)?);
            if name == "@id" { others } else { field(name).exists() & others }
        }
        (op, Operand::Text(text)) if clause.key.shape == Shape::QuotedNumber => {
            compare(name, *op, Value::Integer(quoted_number(text)?))
        }
        (op, Operand::Text(text)) => compare(name, *op, Value::Text(status_text(entity, name, text))),
        (op, Operand::Integer(number)) => compare(name, *op, Value::Integer(*number)),
        (op, Operand::Real(number)) => compare(name, *op, Value::Real(*number)),
        (_, Operand::List(_) | Operand::None) => {
            return Err(Failure::invalid(format!("Invalid comparison clause for '{}'", clause.key.name)));
        }
    })
}

/// Logged models keep their status as the short word.
fn status_text(entity: Entity, field: &str, text: &str) -> String {
    match text.strip_prefix("LOGGED_MODEL_") {
        Some(short) if entity == Entity::LoggedModel && field == "status" => short.to_owned(),
        _ => text.to_owned(),
    }
}

fn listed(clause: &Clause, values: &[String]) -> Outcome<Vec<Value>> {
    values
        .iter()
        .map(|value| match clause.key.shape {
            Shape::QuotedNumber => quoted_number(value).map(Value::Integer),
            _ => Ok(Value::Text(value.clone())),
        })
        .collect()
}

fn quoted_number(text: &str) -> Outcome<i64> {
    text.trim().parse().map_err(|_| {
        Failure::invalid(format!("Invalid experiment ID '{text}'. Experiment ID must be a valid integer."))
    })
}

fn compare(name: &str, op: Op, operand: Value) -> Filter {
    let comparison = match op {
        Op::Equal | Op::In | Op::IsNull => Comparison::Equal,
        Op::NotEqual | Op::NotIn | Op::IsNotNull => Comparison::NotEqual,
        Op::Less => Comparison::Less,
        Op::LessOrEqual => Comparison::LessOrEqual,
        Op::Greater => Comparison::Greater,
        Op::GreaterOrEqual => Comparison::GreaterOrEqual,
        Op::Like => Comparison::Like,
        Op::ILike => Comparison::Ilike,
    };
    field(name).compare(comparison, operand)
}

/// A logged model matches when any of its values of a metric does, not only the latest. The index keeps the largest and
/// the smallest, which decides every order; equality looks at both and at the latest.
pub fn any_metric(metric: &str, dataset: Option<(&str, Option<&str>)>, clause: &Clause) -> Filter {
    let (name, digest) = dataset.map_or((None, None), |(name, digest)| (Some(name), digest));
    let latest = field(crate::models::latest_field(metric, name, digest));
    let largest = field(crate::models::largest_field(metric, name, digest));
    let smallest_negated = field(crate::models::smallest_field(metric, name, digest));
    let number = match clause.value {
        Operand::Integer(number) => number as f64,
        Operand::Real(number) => number,
        _ => f64::NAN,
    };
    match clause.op {
        Op::Greater => largest.greater(number),
        Op::GreaterOrEqual => largest.greater_or_equal(number),
        Op::Less => smallest_negated.greater(-number),
        Op::LessOrEqual => smallest_negated.greater_or_equal(-number),
        Op::NotEqual => largest.not_equal(number) | smallest_negated.not_equal(-number),
        _ => latest.equal(number) | largest.equal(number) | smallest_negated.equal(-number),
    }
}

/// Add an order to a query.
pub fn ordered(mut query: Query, keys: &[Key]) -> Query {
    for key in keys {
        query = query.order_by(&key.field, if key.descending { Order::Descending } else { Order::Ascending });
    }
    query
}

/// Identifies a question: what a page token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of these parts, in this order (FNV-1a; it guards against mistakes, not against malice).
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for part in parts {
            for byte in part.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Self(hash)
    }
}

/// The token that leads to the next page.
pub fn page_token(question: Fingerprint, cursor: &[u8]) -> String {
    let mut raw = Vec::with_capacity(cursor.len() + 9);
    raw.push(1);
    raw.extend_from_slice(&question.0.to_le_bytes());
    raw.extend_from_slice(cursor);
    URL_SAFE_NO_PAD.encode(raw)
}

/// The cursor in a token; none for an absent or empty token.
pub fn cursor(question: Fingerprint, token: Option<&str>) -> Outcome<Option<Vec<u8>>> {
    let Some(token) = token.filter(|t| !t.is_empty()) else { return Ok(None) };
    let raw =
        URL_SAFE_NO_PAD.decode(token).map_err(|_| Failure::invalid("Invalid page token, could not base64-decode"))?;
    match raw.split_first_chunk::<9>() {
        Some(([1, hash @ ..], cursor)) if *hash == question.0.to_le_bytes() => Ok(Some(cursor.to_vec())),
        Some(([1, ..], _)) => Err(Failure::invalid(
            "Invalid page token: it belongs to another search. Repeat the filter, order and scope of the first page.",
        )),
        _ => Err(Failure::invalid("Invalid page token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_their_question() {
        let question = Fingerprint::of(["runs", "metrics.a > 1"]);
        let token = page_token(question, b"cursor");
        assert_eq!(cursor(question, Some(&token)).unwrap(), Some(b"cursor".to_vec()));
        assert_eq!(cursor(question, None).unwrap(), None);
        assert_eq!(cursor(question, Some("")).unwrap(), None);
        assert_ne!(Fingerprint::of(["ab", "c"]), Fingerprint::of(["a", "bc"]));
        let other = Fingerprint::of(["runs", "metrics.a > 2"]);
        for (question, token) in [(other, token.as_str()), (question, "garbage!"), (question, "YQ"), (question, "AAAA")]
        {
            assert!(cursor(question, Some(token)).is_err(), "{token}");
        }
    }
}
