//! Expressions over the inputs, while a model cannot answer: the rule that people used before there was a model.
//!
//! Owns the choice of a rule, the variables that its expressions see, and the tensors made of what they say. Expressions are
//! written in the Common Expression Language, which always ends. Bounded by: [`ROWS_MAX`] rows, [`EXPRESSION_BYTES_MAX`], and the manifest's
//! limits of time and memory. On failure: an expression that cannot be read is `invalid` when the plugin starts; one that fails
//! on a row, or is null, is no answer, and the next tier is asked.

use cel::{Context, Env, Program, Value};
use mainstay_sdk::fallback::{Ask, Reply};
use mainstay_sdk::tensors::{Datatype, Element, Parameter, Tensor};
use mainstay_sdk::{Error, Fallback, Result, config};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Rows that are judged one by one.
pub const ROWS_MAX: usize = 4096;
/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// How deep brackets may be nested in an expression: its parser goes as deep as they do.
pub const DEPTH_MAX: usize = 32;

/// The plugin.
pub struct Rules;

mainstay_sdk::export_fallback!(Rules);

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    endpoint: Option<String>,
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: Datatype,
    row: String,
}

impl Fallback for Rules {
    /// Every expression is read once, so that a mistake is found when the plugin is configured and not when a model fails.
    fn start(_: Option<&str>) -> Result<()> {
        let config: Config = config::get()?;
        config.rules.iter().flat_map(|rule| &rule.outputs).try_for_each(|output| compile(output).map(|_| ()))
    }

    fn answer(ask: &Ask) -> Result<Reply> {
        let config: Config = config::get()?;
        let endpoint = ask.endpoint();
        let fits = |rule: &&Rule| rule.endpoint.as_ref().is_none_or(|named| *named == endpoint);
        let rule = config.rules.iter().find(fits);
        let rule = rule
            .ok_or_else(|| Error::not_found(format!("no rule is configured for `{endpoint}`; add one to `rules`")))?;
        let wanted = ask.wanted();
        let outputs: Vec<&Output> =
            rule.outputs.iter().filter(|output| wanted.is_empty() || wanted.contains(&output.name)).collect();
        if outputs.len() < wanted.len() || outputs.is_empty() {
            return Err(Error::not_found(format!("the rule for `{endpoint}` lacks an output that is wanted")));
        }
        let rows = rows(&ask.inputs()?)?;
        let mut context = Context::with_env(Arc::new(Env::stdlib()));
        context.add_variable_from_value("endpoint", endpoint);
        context.add_variable_from_value("tenant", ask.tenant());
        context.add_variable_from_value("why", ask.why());
        let parameters = ask.parameters().into_iter().map(|(name, value)| (name, parameter(value)));
        context.add_variable_from_value("parameters", parameters.collect::<HashMap<String, Value>>());
        let tensors = outputs.into_iter().map(|output| tensor(output, &context, &rows)).collect::<Result<Vec<_>>>()?;
        Ok(Reply::new("rule").with_outputs(tensors))
    }
}

fn compile(output: &Output) -> Result<Program> {
    let (name, text) = (&output.name, &output.row);
    let mut depth = 0_usize;
    let deepest = text.bytes().fold(0, |deepest, byte| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth.max(deepest)
    });
    if text.len() > EXPRESSION_BYTES_MAX || deepest > DEPTH_MAX {
        return Err(Error::invalid(format!(
            "the expression of output `{name}` is too long or too deep; at most {EXPRESSION_BYTES_MAX} bytes and \
             {DEPTH_MAX} brackets within each other"
        )));
    }
    Program::compile(text)
        .map_err(|error| Error::invalid(format!("the expression of output `{name}` cannot be read: {error}")))
}

/// Each row as its inputs by name: a value, or the list of its values where it has several.
fn rows(inputs: &[Tensor]) -> Result<Vec<HashMap<String, Value>>> {
    let count = inputs.first().map_or(0, Tensor::rows);
    let count = usize::try_from(count).ok().filter(|count| *count <= ROWS_MAX);
    let count =
        count.ok_or_else(|| Error::exhausted(format!("more than {ROWS_MAX} rows; rules judge them one by one")))?;
    let mut rows = vec![HashMap::new(); count];
    for input in inputs {
        let elements = input.elements()?;
        let each = elements.len().checked_div(count).filter(|each| each * count == elements.len() && *each > 0);
        let Some(each) = each else { continue };
        let mut elements = elements.into_iter().map(value);
        for row in &mut rows {
            let mut values: Vec<Value> = elements.by_ref().take(each).collect();
            let value = match (each, values.pop()) {
                (1, Some(only)) => only,
                (_, last) => Value::List(Arc::new(values.into_iter().chain(last).collect())),
            };
            row.insert(input.name.clone(), value);
        }
    }
    Ok(rows)
}

fn value(element: Element) -> Value {
    match element {
        Element::Bool(value) => Value::Bool(value),
        Element::Integer(value) => Value::Int(value),
        Element::Unsigned(value) => Value::UInt(value),
        Element::Real(value) => Value::Float(value),
        Element::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Value::String(Arc::new(text)),
            Err(other) => Value::Bytes(Arc::new(other.into_bytes())),
        },
    }
}

fn parameter(value: Parameter) -> Value {
    match value {
        Parameter::Boolean(value) => Value::Bool(value),
        Parameter::Integer(value) => Value::Int(value),
        Parameter::Unsigned(value) => Value::UInt(value),
        Parameter::Real(value) => Value::Float(value),
        Parameter::Text(value) => Value::String(Arc::new(value)),
    }
}

fn tensor(output: &Output, context: &Context<'_, '_>, rows: &[HashMap<String, Value>]) -> Result<Tensor> {
    let program = compile(output)?;
    let name = &output.name;
    let mut elements = Vec::new();
    let mut each: Option<Vec<u64>> = None;
    for (at, row) in rows.iter().enumerate() {
        let mut scope = context.new_inner_scope();
        scope.add_variable_from_value("row", row.clone());
        let said = program.execute(&scope);
        let said = said.map_err(|error| {
            Error::not_found(format!("the rule for output `{name}` says nothing of row {at}: {error}"))
        })?;
        let shape = flatten(&said, &mut elements)
            .ok_or_else(|| Error::not_found(format!("the rule for output `{name}` says nothing of row {at}")))?;
        if *each.get_or_insert_with(|| shape.clone()) != shape {
            return Err(Error::invalid(format!("the rule for output `{name}` gives rows of different lengths")));
        }
    }
    let mut shape = vec![rows.len() as u64];
    shape.extend(each.unwrap_or_default());
    Tensor::of(name, output.datatype, &shape, &elements)
}

/// The elements of a value, and its extents; none where it is no value of a tensor.
fn flatten(value: &Value, into: &mut Vec<Element>) -> Option<Vec<u64>> {
    into.push(match value {
        Value::Bool(value) => Element::Bool(*value),
        Value::Int(value) => Element::Integer(*value),
        Value::UInt(value) => Element::Unsigned(*value),
        Value::Float(value) => Element::Real(*value),
        Value::String(text) => Element::Bytes(text.as_bytes().to_vec()),
        Value::Bytes(bytes) => Element::Bytes(bytes.to_vec()),
        Value::List(list) => {
            let mut inner: Option<Vec<u64>> = None;
            for value in list.iter() {
                let shape = flatten(value, into)?;
                if *inner.get_or_insert_with(|| shape.clone()) != shape {
                    return None;
                }
            }
            let mut shape = vec![list.len() as u64];
            shape.extend(inner.unwrap_or_default());
            return Some(shape);
        }
        _ => return None,
    });
    Some(Vec::new())
}
