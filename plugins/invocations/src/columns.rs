//! Values into tensors, as the model's signature wants them.
//!
//! Owns the match between columns and inputs: by name; or all columns as the one matrix that a model takes; or, where no
//! signature is known, a tensor for each column of the type that its values have. Bounded by: what came. On failure: the column
//! or input that does not fit, by name.

use crate::failure::Failure;
use crate::payload::Data;
use mainstay_sdk::tensors::{Datatype, Element, Tensor, TensorSpec};
use serde_json::Value as Json;

/// What an only tensor is called where no signature names it.
const UNNAMED: &str = "inputs";

/// The tensors of a request.
pub fn tensors(data: Data, wanted: &[TensorSpec]) -> Result<Vec<Tensor>, Failure> {
    match data {
        Data::Frame { columns, rows, is_text } => frame(columns, rows, is_text, wanted),
        Data::Tensor(value) => match wanted {
            [] => Ok(vec![nested(UNNAMED, &value, None)?]),
            [only] => Ok(vec![nested(&only.name, &value, Some(only))?]),
            several => Err(missing(several.iter())),
        },
        Data::Named(values) => {
            let lacking: Vec<&TensorSpec> = wanted.iter().filter(|spec| !values.contains_key(&spec.name)).collect();
            match (lacking.as_slice(), wanted, values.len()) {
                ([], [], _) => values.iter().map(|(name, value)| nested(name, value, None)).collect(),
                ([], wanted, _) => {
                    wanted.iter().map(|spec| nested(&spec.name, &values[&spec.name], Some(spec))).collect()
                }
                // Columns of a table, sent as tensors by name, for a model that takes one matrix.
                (_, [only], _) if is_matrix(only) => {
                    let columns: Vec<&Json> = values.values().collect();
                    let rows = transpose(&columns)?;
                    Ok(vec![matrix(only, &rows, false)?])
                }
                (lacking, _, _) => Err(missing(lacking.iter().copied())),
            }
        }
    }
}

fn missing<'a>(inputs: impl Iterator<Item = &'a TensorSpec>) -> Failure {
    let names: Vec<String> = inputs.map(|spec| format!("'{}'", spec.name)).collect();
    Failure::bad(format!("Failed to enforce schema of data. Error: Model is missing inputs [{}].", names.join(", ")))
}

fn frame(
    columns: Option<Vec<String>>,
    rows: Vec<Vec<Json>>,
    is_text: bool,
    wanted: &[TensorSpec],
) -> Result<Vec<Tensor>, Failure> {
    let width = columns.as_ref().map(Vec::len).or(rows.first().map(Vec::len)).unwrap_or(0);
    let names: Vec<String> = columns.unwrap_or_else(|| (0..width).map(|at| at.to_string()).collect());
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect::<Vec<Json>>();
    if wanted.is_empty() {
        let tensor = |(at, name): (usize, &String)| {
            let values = Json::Array(if is_text { column(at).iter().map(read_text).collect() } else { column(at) });
            nested(name, &values, None)
        };
        return names.iter().enumerate().map(tensor).collect();
    }
    let place = |spec: &TensorSpec| names.iter().position(|name| *name == spec.name);
    let lacking: Vec<&TensorSpec> = wanted.iter().filter(|spec| place(spec).is_none()).collect();
    match (lacking.as_slice(), wanted) {
        ([], wanted) => {
            let tensor = |spec: &TensorSpec| {
                let values = place(spec).map(column).unwrap_or_default();
                by_row(spec, &values, is_text)
            };
            wanted.iter().map(tensor).collect()
        }
        (_, [only]) if is_matrix(only) => Ok(vec![matrix(only, &rows, is_text)?]),
        (_, [only]) if width == 1 => Ok(vec![by_row(only, &column(0), is_text)?]),
        (lacking, _) => Err(missing(lacking.iter().copied())),
    }
}

/// Rows and columns.
fn is_matrix(spec: &TensorSpec) -> bool {
    spec.shape.len() == 2
}

fn transpose(columns: &[&Json]) -> Result<Vec<Vec<Json>>, Failure> {
    let lists: Option<Vec<&Vec<Json>>> = columns.iter().map(|column| column.as_array()).collect();
    let uneven = || Failure::invalid_input("The length of values for each input/column name are not the same");
    let lists = lists.ok_or_else(uneven)?;
    let count = lists.first().map_or(0, |list| list.len());
    if lists.iter().any(|list| list.len() != count) {
        return Err(uneven());
    }
    Ok((0..count).map(|at| lists.iter().map(|list| list[at].clone()).collect()).collect())
}

/// All columns in their order, as one tensor of rows and columns.
fn matrix(spec: &TensorSpec, rows: &[Vec<Json>], is_text: bool) -> Result<Tensor, Failure> {
    let width = rows.first().map_or(0, Vec::len);
    let fits = spec.shape[1] < 0 || spec.shape[1] == width as i64;
    if !fits {
        return Err(Failure::bad(format!(
            "Failed to enforce schema of data. Error: Shape of input ({}, {width}) does not match expected shape ({}, {}).",
            rows.len(),
            spec.shape[0],
            spec.shape[1]
        )));
    }
    let elements = rows.iter().flatten().map(|value| element(spec, value, is_text));
    let elements = elements.collect::<Result<Vec<Element>, Failure>>()?;
    Ok(Tensor::of(&spec.name, spec.datatype, &[rows.len() as u64, width as u64], &elements)?)
}

/// One column: a value a row, or a list of values where the input has more dimensions.
fn by_row(spec: &TensorSpec, values: &[Json], is_text: bool) -> Result<Tensor, Failure> {
    let is_flat = values.iter().all(|value| !value.is_array());
    if !is_flat {
        return nested(&spec.name, &Json::Array(values.to_vec()), Some(spec));
    }
    let elements = values.iter().map(|value| element(spec, value, is_text));
    let elements = elements.collect::<Result<Vec<Element>, Failure>>()?;
    let mut shape = vec![1_u64; spec.shape.len().max(1)];
    shape[0] = values.len() as u64;
    Ok(Tensor::of(&spec.name, spec.datatype, &shape, &elements)?)
}

/// Nested lists as they are.
fn nested(name: &str, value: &Json, spec: Option<&TensorSpec>) -> Result<Tensor, Failure> {
    let mut leaves = Vec::new();
    let shape = walk(value, &mut leaves)
        .ok_or_else(|| Failure::invalid_input(format!("The lists of '{name}' are not all of one length.")))?;
    let inferred = TensorSpec { name: name.to_owned(), datatype: datatype_of(&leaves), shape: Vec::new() };
    let spec = spec.unwrap_or(&inferred);
    let elements = leaves.into_iter().map(|leaf| element(spec, leaf, false));
    let elements = elements.collect::<Result<Vec<Element>, Failure>>()?;
    Ok(Tensor::of(name, spec.datatype, &shape, &elements)?)
}

fn walk<'a>(value: &'a Json, leaves: &mut Vec<&'a Json>) -> Option<Vec<u64>> {
    let Json::Array(list) = value else {
        leaves.push(value);
        return Some(Vec::new());
    };
    let mut inner: Option<Vec<u64>> = None;
    for value in list {
        let shape = walk(value, leaves)?;
        if *inner.get_or_insert_with(|| shape.clone()) != shape {
            return None;
        }
    }
    let mut shape = vec![list.len() as u64];
    shape.extend(inner.unwrap_or_default());
    Some(shape)
}

/// What pandas would make of these values: whole numbers only while none is missing.
fn datatype_of(values: &[&Json]) -> Datatype {
    let all = |is: fn(&Json) -> bool| !values.is_empty() && values.iter().all(|value| is(value));
    if all(Json::is_boolean) {
        Datatype::Bool
    } else if all(Json::is_i64) {
        Datatype::Int64
    } else if all(|value| value.is_number() || value.is_null()) {
        Datatype::Fp64
    } else {
        Datatype::Bytes
    }
}

/// A text of a CSV file as the value that it shows.
fn read_text(value: &Json) -> Json {
    let Json::String(text) = value else { return value.clone() };
    if is_missing(text) {
        return Json::Null;
    }
    match text.as_str() {
        "True" | "true" | "TRUE" => return Json::from(true),
        "False" | "false" | "FALSE" => return Json::from(false),
        _ => {}
    }
    let whole = text.trim().parse::<i64>().ok().map(Json::from);
    whole.or_else(|| text.trim().parse::<f64>().ok().map(Json::from)).unwrap_or_else(|| value.clone())
}

/// As pandas reads them.
fn is_missing(text: &str) -> bool {
    matches!(
        text,
        "" | "NA" | "N/A" | "NaN" | "nan" | "null" | "NULL" | "None" | "<NA>" | "n/a" | "#N/A" | "-nan" | "-NaN"
    )
}

fn element(spec: &TensorSpec, value: &Json, is_text: bool) -> Result<Element, Failure> {
    let datatype = spec.datatype;
    let is_real = matches!(datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bf16);
    let read = if is_text && datatype != Datatype::Bytes { read_text(value) } else { value.clone() };
    let found = match &read {
        Json::Null if is_real => Some(Element::Real(f64::NAN)),
        Json::Null if datatype == Datatype::Bytes => Some(Element::Bytes(Vec::new())),
        Json::Bool(value) => Some(Element::Bool(*value)),
        Json::String(text) if datatype == Datatype::Bytes => Some(Element::Bytes(text.clone().into_bytes())),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Some(Element::Integer(value)),
            (None, Some(value)) => Some(Element::Unsigned(value)),
            (None, None) => number.as_f64().map(Element::Real),
        },
        _ => None,
    };
    let name = &spec.name;
    found.ok_or_else(|| {
        let wanted = datatype.name();
        Failure::invalid_input(format!(
            "Data is not compatible with model signature. Failed to convert column {name} to type '{wanted}'. Error: '{read}'"
        ))
    })
}
