//! What came: JSON in one of four forms, or CSV.
//!
//! Owns the content types and the forms of MLflow's scoring protocol. Separate from making tensors, because only that needs the
//! model's signature. Bounded by: the body, and JSON nested 128 deep. On failure: the scoring server's own words.

use crate::failure::Failure;
use mainstay_sdk::tensors::Parameter;
use serde_json::{Map, Value as Json};

/// What a body holds.
#[derive(Debug, PartialEq)]
pub enum Data {
    /// Rows, and the names of their columns where they have some.
    Frame {
        /// Names of the columns.
        columns: Option<Vec<String>>,
        /// Values, row by row.
        rows: Vec<Vec<Json>>,
        /// Whether values are texts that were not told apart yet.
        is_text: bool,
    },
    /// One tensor without a name.
    Tensor(Json),
    /// Tensors by name.
    Named(Map<String, Json>),
}

/// A body that was read.
#[derive(Debug, PartialEq)]
pub struct Payload {
    /// What is scored.
    pub data: Data,
    /// What was said beside it.
    pub parameters: Vec<(String, Parameter)>,
}

/// A body, or why it is not even looked at: the text of a 415.
pub enum Read {
    /// It was read.
    Payload(Payload),
    /// It was not.
    Refused(String),
}

const FORMS: [&str; 4] = ["dataframe_split", "dataframe_records", "instances", "inputs"];
const REQUIRED: &str = "The input must be a JSON dictionary with exactly one of the input fields \
                        {'dataframe_split', 'dataframe_records', 'instances', 'inputs'}";

/// Read a body of this content type.
pub fn read(content_type: Option<&str>, body: &[u8]) -> Result<Read, Failure> {
    let given = content_type.unwrap_or("None");
    let mut parts = given.split(';').map(str::trim);
    let mime = parts.next().unwrap_or_default();
    let parameters: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let charset = parameters.iter().rev().find(|(name, _)| *name == "charset").map_or("utf-8", |(_, value)| value);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return Ok(Read::Refused("The scoring server only supports UTF-8".into()));
    }
    let others: Vec<&str> = parameters.iter().map(|(name, _)| *name).filter(|name| *name != "charset").collect();
    if !others.is_empty() {
        return Ok(Read::Refused(format!("Unrecognized content type parameters: {}.", others.join(", "))));
    }
    match mime {
        "application/json" => json(body).map(Read::Payload),
        "text/csv" => csv(body).map(|data| Read::Payload(Payload { data, parameters: Vec::new() })),
        _ => Ok(Read::Refused(format!(
            "This predictor only supports the following content types: Types: ['text/csv', 'application/json']. Got '{given}'."
        ))),
    }
}

fn json(body: &[u8]) -> Result<Payload, Failure> {
    let read: Json = serde_json::from_slice(body).map_err(|error| {
        Failure::invalid_input(format!("Ensure that input is a valid JSON formatted string. Error: '{error}'"))
    })?;
    let mut fields = match read {
        Json::Object(fields) => fields,
        Json::Array(_) => return Err(Failure::invalid_input(format!("{REQUIRED}. Received a list."))),
        other => {
            let shown = type_name(&other);
            return Err(Failure::invalid_input(format!("{REQUIRED}. Received unexpected input type '{shown}'.")));
        }
    };
    let parameters = parameters(fields.remove("params"))?;
    let mut held: Vec<&str> = FORMS.into_iter().filter(|form| fields.contains_key(*form)).collect();
    let (Some(form), true) = (held.pop(), held.is_empty()) else {
        let received: Vec<String> = fields.keys().map(|key| format!("'{key}'")).collect();
        let received = received.join(", ");
        return Err(Failure::bad(format!("{REQUIRED}. Received dictionary with input fields: [{received}].")));
    };
    let given = fields.remove(form).unwrap_or_default();
    let data = match form {
        "dataframe_split" => split(given)?,
        "dataframe_records" => records(given)?,
        "instances" => instances(given)?,
        _ => match given {
            Json::Object(named) => Data::Named(named),
            other => Data::Tensor(other),
        },
    };
    Ok(Payload { data, parameters })
}

fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "<class 'NoneType'>",
        Json::Bool(_) => "<class 'bool'>",
        Json::Number(number) if number.is_f64() => "<class 'float'>",
        Json::Number(_) => "<class 'int'>",
        Json::String(_) => "<class 'str'>",
        Json::Array(_) => "list",
        Json::Object(_) => "dictionary",
    }
}

fn parameters(given: Option<Json>) -> Result<Vec<(String, Parameter)>, Failure> {
    let fields = match given {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Object(fields)) => fields,
        Some(_) => return Err(Failure::bad("Parameters must be a dictionary.")),
    };
    let parameter = |(name, value): (String, Json)| {
        let value = match &value {
            Json::Bool(value) => Some(Parameter::Boolean(*value)),
            Json::String(text) => Some(Parameter::Text(text.clone())),
            Json::Number(number) => number.as_i64().map(Parameter::Integer).or(number.as_f64().map(Parameter::Real)),
            _ => None,
        };
        let refused = || Failure::bad(format!("Parameter '{name}' must be a boolean, a number or a string."));
        let value = value.ok_or_else(refused)?;
        Ok((name, value))
    };
    fields.into_iter().map(parameter).collect()
}

/// `{"columns": […], "data": [[…], …]}`.
fn split(given: Json) -> Result<Data, Failure> {
    let mut fields = match given {
        Json::Object(fields) => fields,
        other => {
            let shown = type_name(&other);
            return Err(Failure::invalid_input(format!("Dataframe split format must be a dictionary. Got {shown}.")));
        }
    };
    let is_known = |key: &String| ["columns", "data", "index"].contains(&key.as_str());
    if !fields.contains_key("data") || !fields.keys().all(is_known) {
        let keys: Vec<String> = fields.keys().map(|key| format!("'{key}'")).collect();
        return Err(Failure::invalid_input(format!(
            "Dataframe split format must have 'data' field and optionally 'columns' and 'index' fields. Got {{{}}}.'",
            keys.join(", ")
        )));
    }
    let wrong = |why: String| {
        Failure::invalid_input(format!(
            "Provided dataframe_split field is not a valid dataframe representation in 'split' format. Error: '{why}'"
        ))
    };
    let columns = match fields.remove("columns") {
        None | Some(Json::Null) => None,
        Some(Json::Array(names)) => Some(names.iter().map(name).collect::<Vec<String>>()),
        Some(_) => return Err(wrong("'columns' is no list".into())),
    };
    let Some(Json::Array(rows)) = fields.remove("data") else { return Err(wrong("'data' is no list".into())) };
    // A list of plain values is one column.
    let rows: Vec<Vec<Json>> = rows
        .into_iter()
        .map(|row| match row {
            Json::Array(values) => values,
            value => vec![value],
        })
        .collect();
    let width = columns.as_ref().map(Vec::len).or(rows.first().map(Vec::len)).unwrap_or(0);
    if let Some(row) = rows.iter().find(|row| row.len() != width) {
        return Err(wrong(format!("{width} columns passed, passed data had {} columns", row.len())));
    }
    Ok(Data::Frame { columns, rows, is_text: false })
}

fn name(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `[{"a": 1}, …]`; what a record lacks is missing.
fn records(given: Json) -> Result<Data, Failure> {
    let list = match given {
        Json::Array(list) => list,
        other => {
            let shown = type_name(&other);
            return Err(Failure::invalid_input(format!(
                "Dataframe records format must be a list of records. Got {shown}."
            )));
        }
    };
    let mut columns: Vec<String> = Vec::new();
    let mut records = Vec::with_capacity(list.len());
    for record in list {
        let Json::Object(record) = record else {
            return Err(Failure::invalid_input(
                "Provided dataframe_records field is not a valid dataframe representation in 'records' format. Error: 'a record \
                 is no dictionary'",
            ));
        };
        columns.extend(record.keys().filter(|key| !columns.contains(key)).cloned().collect::<Vec<_>>());
        records.push(record);
    }
    let row =
        |mut record: Map<String, Json>| columns.iter().map(|name| record.remove(name).unwrap_or_default()).collect();
    let rows = records.into_iter().map(row).collect();
    Ok(Data::Frame { columns: Some(columns), rows, is_text: false })
}

/// A list of tensors' rows: by name, or of the only tensor.
fn instances(given: Json) -> Result<Data, Failure> {
    let is_named = |list: &Vec<Json>| matches!(list.first(), Some(Json::Object(_)));
    let list = match given {
        Json::Array(list) if is_named(&list) => list,
        other => return Ok(Data::Tensor(other)),
    };
    let count = list.len();
    let mut named: Map<String, Json> = Map::new();
    for item in list {
        let Json::Object(item) = item else {
            return Err(Failure::invalid_input(
                "Ensure that the input is a valid JSON-formatted string.\nError: an instance is no dictionary",
            ));
        };
        for (name, value) in item {
            if let Json::Array(values) = named.entry(name).or_insert_with(|| Json::Array(Vec::new())) {
                values.push(value);
            }
        }
    }
    match named.values().all(|values| values.as_array().is_some_and(|values| values.len() == count)) {
        true => Ok(Data::Named(named)),
        false => Err(Failure::invalid_input("The length of values for each input/column name are not the same")),
    }
}

/// The first line names the columns.
fn csv(body: &[u8]) -> Result<Data, Failure> {
    let wrong = |why: String| {
        Failure::bad(format!(
            "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid CSV-formatted Pandas DataFrame produced \
             using the `pandas.DataFrame.to_csv()` method. Error: '{why}'"
        ))
    };
    let text = std::str::from_utf8(body).map_err(|error| {
        Failure::invalid_input(format!("Ensure that input is a valid UTF-8 encoded string. Error: '{error}'"))
    })?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let columns: Vec<String> =
        reader.headers().map_err(|error| wrong(error.to_string()))?.iter().map(str::to_owned).collect();
    if columns.iter().all(String::is_empty) {
        return Err(wrong("No columns to parse from file".into()));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        if record.len() > columns.len() {
            let (line, found) = (rows.len() + 2, record.len());
            return Err(wrong(format!("Expected {} fields in line {line}, saw {found}", columns.len())));
        }
        // What a short line lacks is missing.
        let mut row: Vec<Json> = record.iter().map(Json::from).collect();
        row.resize(columns.len(), Json::from(""));
        rows.push(row);
    }
    Ok(Data::Frame { columns: Some(columns), rows, is_text: true })
}
