//! Configured outputs, while a model cannot answer: a constant, a list, or nothing.
//!
//! Owns the choice among the configured answers and their tensors. Separate from the answer that stands in a plan itself,
//! because this one knows the number of rows, and the reason. Bounded by: [`ROWS_MAX`] rows, and the contract's 64 KiB. On failure:
//! `not-found` where nothing is configured for the endpoint; `invalid` where a value does not fit its datatype, with its place.

use mainstay_sdk::fallback::{Ask, Reply};
use mainstay_sdk::tensors::{Datatype, Element, Tensor};
use mainstay_sdk::{Error, Fallback, Result, config};
use serde::Deserialize;
use serde_json::Value as Json;

/// Rows that are answered one by one; more would not fit the contract's 64 KiB.
pub const ROWS_MAX: u64 = 65_536;

/// The plugin.
pub struct Static;

mainstay_sdk::export_fallback!(Static);

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    endpoint: Option<String>,
    #[serde(default)]
    why: Vec<String>,
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: Datatype,
    row: Option<Json>,
    value: Option<Json>,
}

impl Fallback for Static {
    fn answer(ask: &Ask) -> Result<Reply> {
        let config: Config = config::get()?;
        let (endpoint, why) = (ask.endpoint(), ask.why());
        let fits = |answer: &&Answer| {
            answer.endpoint.as_ref().is_none_or(|named| *named == endpoint)
                && (answer.why.is_empty() || answer.why.contains(&why))
        };
        let answer = config.answers.iter().find(fits);
        let answer = answer.ok_or_else(|| {
            Error::not_found(format!(
                "no answer is configured for `{endpoint}` when it is `{why}`; add one to `answers`"
            ))
        })?;
        let wanted = ask.wanted();
        let is_wanted = |output: &&Output| wanted.is_empty() || wanted.contains(&output.name);
        let outputs = answer.outputs.iter().filter(is_wanted);
        let tensors = outputs.map(|output| tensor(output, ask.rows())).collect::<Result<Vec<_>>>()?;
        if tensors.len() < wanted.len() || tensors.is_empty() {
            return Err(Error::not_found(format!("the answer for `{endpoint}` lacks an output that is wanted")));
        }
        Ok(Reply::new("static").with_outputs(tensors))
    }
}

fn tensor(output: &Output, rows: u64) -> Result<Tensor> {
    let Output { name, datatype, .. } = output;
    let mut elements = Vec::new();
    let (value, is_row) = match (&output.row, &output.value) {
        (Some(row), _) => (row, true),
        (None, Some(value)) => (value, false),
        (None, None) => return Err(Error::invalid(format!("output `{name}` has neither `row` nor `value`"))),
    };
    let mut shape = shape_of(value);
    flatten(name, value, &shape, &mut elements)?;
    if is_row {
        if rows > ROWS_MAX {
            return Err(Error::exhausted(format!("{rows} rows; at most {ROWS_MAX} are answered")));
        }
        let row = std::mem::take(&mut elements);
        if row.len() as u64 * rows > ROWS_MAX {
            return Err(Error::exhausted(format!("{rows} rows of `{name}` have more than {ROWS_MAX} values")));
        }
        elements = (0..rows).flat_map(|_| row.iter().cloned()).collect();
        shape.insert(0, rows);
    }
    Tensor::of(name, *datatype, &shape, &elements)
}

/// Extents of nested lists, as the first of each says.
fn shape_of(value: &Json) -> Vec<u64> {
    let mut shape = Vec::new();
    let mut inner = Some(value);
    while let Some(Json::Array(list)) = inner {
        shape.push(list.len() as u64);
        inner = list.first();
    }
    shape
}

fn flatten(name: &str, value: &Json, shape: &[u64], into: &mut Vec<Element>) -> Result<()> {
    let uneven = || Error::invalid(format!("output `{name}` has lists of different lengths; make them all alike"));
    match (value, shape.split_first()) {
        (Json::Array(list), Some((extent, inner))) if list.len() as u64 == *extent => {
            list.iter().try_for_each(|value| flatten(name, value, inner, into))
        }
        (Json::Array(_), _) | (_, Some(_)) => Err(uneven()),
        (value, None) => {
            into.push(element(value).ok_or_else(|| {
                Error::invalid(format!(
                    "output `{name}` has the value {value}; an element is true, false, a number or a text"
                ))
            })?);
            Ok(())
        }
    }
}

fn element(value: &Json) -> Option<Element> {
    Some(match value {
        Json::Bool(value) => Element::Bool(*value),
        Json::String(text) => Element::Bytes(text.clone().into_bytes()),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Element::Integer(value),
            (None, Some(value)) => Element::Unsigned(value),
            (None, None) => Element::Real(number.as_f64()?),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    })
}
