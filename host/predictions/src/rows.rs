//! Predictions and outcomes as they are posted, and as rows of the two tables.
//!
//! Owns both types and their way into columns. Separate from writing, so that what is offered behind an answer and what is
//! posted take the same way. Bounded by [`crate::limits`]. On failure: `invalid` names the row and the field.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::limits::TEXT_BYTES_MAX;
use crate::spec::{FACTS, FieldKind, ID, LogSpec, NAME, RECEIVED, TEXT, TIME, VALUE};

/// A value of a feature or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// It is not known.
    Missing,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A string.
    Text(Arc<str>),
}

/// What a model saw and answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Prediction {
    /// Names it, unlike any other of its log.
    pub id: String,
    /// When, in microseconds since 1970-01-01 UTC; the time of writing unless given.
    pub time_us: Option<i64>,
    /// The model's name.
    pub model: Option<Arc<str>>,
    /// Its version.
    pub version: Option<Arc<str>>,
    /// Which variant of the traffic answered.
    pub variant: Option<Arc<str>>,
    /// For whom.
    pub tenant: Option<Arc<str>>,
    /// The trace of the request.
    pub trace_id: Option<Arc<str>>,
    /// What the model saw, after pre-processing.
    pub features: HashMap<String, Scalar>,
    /// What it answered.
    pub outputs: HashMap<String, Scalar>,
}

/// What became true of a prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outcome {
    /// The prediction's id.
    pub id: String,
    /// What it is, for example `label` or `order-value`.
    pub name: String,
    /// As a number; true is 1.
    #[serde(default)]
    pub value: Option<f64>,
    /// As a string.
    #[serde(default)]
    pub text: Option<String>,
    /// When it became true, in microseconds since 1970-01-01 UTC; the time of writing unless given. Of several outcomes of one
    /// name the latest counts.
    #[serde(default)]
    pub time_us: Option<i64>,
}

/// One column that grows.
enum Builder {
    Real(Float64Builder),
    Integer(Int64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
}

impl Builder {
    fn new(kind: FieldKind, rows: usize) -> Builder {
        match kind {
            FieldKind::Real => Builder::Real(Float64Builder::with_capacity(rows)),
            FieldKind::Integer => Builder::Integer(Int64Builder::with_capacity(rows)),
            FieldKind::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            FieldKind::Text => Builder::Text(StringBuilder::with_capacity(rows, rows * 8)),
        }
    }

    /// Whether the value fits.
    fn push(&mut self, value: Option<&Scalar>) -> bool {
        match (self, value) {
            (Builder::Real(into), None | Some(Scalar::Missing)) => into.append_null(),
            (Builder::Integer(into), None | Some(Scalar::Missing)) => into.append_null(),
            (Builder::Boolean(into), None | Some(Scalar::Missing)) => into.append_null(),
            (Builder::Text(into), None | Some(Scalar::Missing)) => into.append_null(),
            (Builder::Real(into), Some(Scalar::Real(value))) => into.append_value(*value),
            // What JSON writes without a point is whole; a real feature may be 1.
            (Builder::Real(into), Some(Scalar::Integer(value))) => into.append_value(*value as f64),
            (Builder::Integer(into), Some(Scalar::Integer(value))) => into.append_value(*value),
            (Builder::Boolean(into), Some(Scalar::Boolean(value))) => into.append_value(*value),
            (Builder::Text(into), Some(Scalar::Text(value))) if value.len() <= TEXT_BYTES_MAX => {
                into.append_value(value)
            }
            _ => return false,
        }
        true
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Real(mut built) => Arc::new(built.finish()),
            Builder::Integer(mut built) => Arc::new(built.finish()),
            Builder::Boolean(mut built) => Arc::new(built.finish()),
            Builder::Text(mut built) => Arc::new(built.finish()),
        }
    }
}

/// Rows of the table of predictions; a name that the log does not have is `invalid`.
pub(crate) fn predictions(spec: &LogSpec, rows: &[Prediction], now_us: i64) -> Result<RecordBatch> {
    let known = |fields: &[crate::spec::Field], values: &HashMap<String, Scalar>| {
        values.keys().find(|name| !fields.iter().any(|field| field.name == **name)).cloned()
    };
    for (number, row) in rows.iter().enumerate() {
        check_text("id", number, &row.id)?;
        if let Some(name) = known(&spec.features, &row.features).or_else(|| known(&spec.outputs, &row.outputs)) {
            return Err(Error::invalid(format!(
                "row {number} has `{name}`, which is neither a feature nor an output of this log; add it to the log first"
            )));
        }
    }
    let mut columns: Vec<(String, ArrayRef)> = vec![
        (TIME.to_owned(), times(rows.iter().map(|row| row.time_us.unwrap_or(now_us)))),
        (ID.to_owned(), texts(rows.iter().map(|row| Some(&*row.id)))),
    ];
    let facts: [fn(&Prediction) -> Option<&str>; 5] = [
        |row| row.model.as_deref(),
        |row| row.version.as_deref(),
        |row| row.variant.as_deref(),
        |row| row.tenant.as_deref(),
        |row| row.trace_id.as_deref(),
    ];
    for (name, fact) in FACTS.iter().zip(facts) {
        for (number, text) in rows.iter().enumerate().filter_map(|(number, row)| Some((number, fact(row)?))) {
            check_text(name, number, text)?;
        }
        columns.push(((*name).to_owned(), texts(rows.iter().map(fact))));
    }
    let of_features = spec.features.len();
    for (place, (column, field)) in spec.fields().enumerate() {
        let mut builder = Builder::new(field.kind, rows.len());
        for (number, row) in rows.iter().enumerate() {
            let values = if place < of_features { &row.features } else { &row.outputs };
            if !builder.push(values.get(&field.name)) {
                return Err(Error::invalid(format!(
                    "row {number}: `{}` is no {} of at most {TEXT_BYTES_MAX} bytes",
                    field.name,
                    match field.kind {
                        FieldKind::Real => "number",
                        FieldKind::Integer => "whole number",
                        FieldKind::Boolean => "boolean",
                        FieldKind::Text => "string",
                    }
                )));
            }
        }
        columns.push((column, builder.finish()));
    }
    batch(columns)
}

/// Rows of the table of outcomes.
pub(crate) fn outcomes(rows: &[Outcome], now_us: i64) -> Result<RecordBatch> {
    for (number, row) in rows.iter().enumerate() {
        check_text("id", number, &row.id)?;
        check_text("name", number, &row.name)?;
        if let Some(text) = &row.text {
            check_text("text", number, text)?;
        }
        if row.value.is_none() && row.text.is_none() {
            return Err(Error::invalid(format!("row {number} has neither `value` nor `text`; give one of them")));
        }
    }
    let mut values = Float64Builder::with_capacity(rows.len());
    let mut received = Int64Builder::with_capacity(rows.len());
    for row in rows {
        values.append_option(row.value);
        received.append_value(now_us);
    }
    batch(vec![
        (TIME.to_owned(), times(rows.iter().map(|row| row.time_us.unwrap_or(now_us)))),
        (ID.to_owned(), texts(rows.iter().map(|row| Some(&*row.id)))),
        (NAME.to_owned(), texts(rows.iter().map(|row| Some(&*row.name)))),
        (VALUE.to_owned(), Arc::new(values.finish())),
        (TEXT.to_owned(), texts(rows.iter().map(|row| row.text.as_deref()))),
        (RECEIVED.to_owned(), Arc::new(received.finish())),
    ])
}

fn batch(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|error| Error::internal("rows of a log of predictions do not fit together").with_source(error))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    let mut built = TimestampMicrosecondBuilder::new();
    values.for_each(|value| built.append_value(value));
    Arc::new(built.finish().with_timezone("UTC"))
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut built = StringBuilder::new();
    values.for_each(|value| built.append_option(value));
    Arc::new(built.finish())
}

fn check_text(what: &str, row: usize, text: &str) -> Result<()> {
    if (1..=TEXT_BYTES_MAX).contains(&text.len()) {
        return Ok(());
    }
    Err(Error::invalid(format!("row {row}: `{what}` has {} bytes; it has 1 to {TEXT_BYTES_MAX}", text.len())))
}
