//! What a log's predictions have: features that the model saw, outputs that it gave.
//!
//! Owns [`LogSpec`] and the columns of the two tables that follow from it. Separate because creating, writing and joining derive
//! from it alike. Bounded by [`crate::limits`]. On failure: `invalid` names the field.

use mainstay_base::{Error, Result};
use mainstay_tables::{ColumnSpec, Kind, Mark, TableSpec};
use serde::{Deserialize, Serialize};

use crate::limits::{FIELDS_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};

const DAY_MS: i64 = 86_400_000;

/// The time of predictions and of outcomes.
pub(crate) const TIME: &str = "time";
/// The prediction's id, in both tables.
pub(crate) const ID: &str = "id";
/// What else is known of a prediction, all of it perhaps missing.
pub(crate) const FACTS: [&str; 5] = ["model", "version", "variant", "tenant", "trace_id"];
/// Columns of outcomes behind time and id.
pub(crate) const NAME: &str = "name";
pub(crate) const VALUE: &str = "value";
pub(crate) const TEXT: &str = "text";
pub(crate) const RECEIVED: &str = "received";

/// Type of a feature or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// 64-bit floating point; whole numbers are taken, too.
    Real,
    /// 64-bit signed integer.
    Integer,
    /// True or false.
    Boolean,
    /// A string.
    Text,
}

impl FieldKind {
    pub(crate) fn column(self) -> Kind {
        match self {
            FieldKind::Real => Kind::F64,
            FieldKind::Integer => Kind::I64,
            FieldKind::Boolean => Kind::Bool,
            FieldKind::Text => Kind::Text,
        }
    }

    /// Of a column that a table has.
    pub(crate) fn of(kind: Kind) -> Option<FieldKind> {
        match kind {
            Kind::F64 => Some(FieldKind::Real),
            Kind::I64 => Some(FieldKind::Integer),
            Kind::Bool => Some(FieldKind::Boolean),
            Kind::Text => Some(FieldKind::Text),
            _ => None,
        }
    }
}

/// A feature or an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Field {
    /// Its name; the table's column is `feature_NAME` or `output_NAME`.
    pub name: String,
    /// Its type.
    pub kind: FieldKind,
    /// What is done with it because it is about persons.
    #[serde(default)]
    pub mark: Mark,
}

impl Field {
    /// A field without a mark.
    pub fn new(name: impl Into<String>, kind: FieldKind) -> Field {
        Field { name: name.into(), kind, mark: Mark::None }
    }
}

/// What a log's predictions have. It only grows: fields that are there stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogSpec {
    /// What the model saw, after pre-processing.
    #[serde(default)]
    pub features: Vec<Field>,
    /// What it answered.
    #[serde(default)]
    pub outputs: Vec<Field>,
    /// How long predictions and outcomes are kept, in days; for ever unless given.
    #[serde(default)]
    pub keep_days: Option<u32>,
}

impl LogSpec {
    pub(crate) fn check(&self) -> Result<()> {
        for (what, fields) in [("features", &self.features), ("outputs", &self.outputs)] {
            if fields.len() > FIELDS_MAX {
                let count = fields.len();
                return Err(Error::invalid(format!("{count} {what}; a log has at most {FIELDS_MAX}")));
            }
            for field in fields {
                if field.name.is_empty() || field.name.len() > TEXT_BYTES_MAX / 8 {
                    let most = TEXT_BYTES_MAX / 8;
                    return Err(Error::invalid(format!(
                        "a name among the {what} is empty or longer than {most} bytes"
                    )));
                }
            }
        }
        if self.keep_days == Some(0) {
            return Err(Error::invalid("keep-days of 0 keeps nothing; give more, or leave it out"));
        }
        Ok(())
    }

    pub(crate) fn predictions(&self) -> TableSpec {
        let mut columns = vec![ColumnSpec::new(TIME, Kind::Timestamp), ColumnSpec::new(ID, Kind::Text)];
        columns.extend(FACTS.map(|name| ColumnSpec::new(name, Kind::Text).nullable()));
        columns.extend(
            self.fields().map(|(name, field)| ColumnSpec::new(name, field.kind.column()).nullable().marked(field.mark)),
        );
        self.kept(TableSpec::new(TIME, columns))
    }

    pub(crate) fn outcomes(&self) -> TableSpec {
        let columns = vec![
            ColumnSpec::new(TIME, Kind::Timestamp),
            ColumnSpec::new(ID, Kind::Text),
            ColumnSpec::new(NAME, Kind::Text),
            ColumnSpec::new(VALUE, Kind::F64).nullable(),
            ColumnSpec::new(TEXT, Kind::Text).nullable(),
            ColumnSpec::new(RECEIVED, Kind::I64),
        ];
        self.kept(TableSpec::new(TIME, columns))
    }

    fn kept(&self, spec: TableSpec) -> TableSpec {
        match self.keep_days {
            Some(days) => spec.kept_for(i64::from(days) * DAY_MS),
            None => spec,
        }
    }

    /// Columns of features and outputs, in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (String, &Field)> {
        let features = self.features.iter().map(|field| (format!("feature_{}", field.name), field));
        features.chain(self.outputs.iter().map(|field| (format!("output_{}", field.name), field)))
    }

    /// What a table of predictions was made from.
    pub(crate) fn of(table: &TableSpec) -> LogSpec {
        let mut spec =
            LogSpec { keep_days: table.retention.age_ms.map(|age| (age / DAY_MS) as u32), ..LogSpec::default() };
        for column in &table.columns {
            let Some(kind) = FieldKind::of(column.kind) else { continue };
            let field = |name: &str| Field { name: name.to_owned(), kind, mark: column.mark };
            if let Some(name) = column.name.strip_prefix("feature_") {
                spec.features.push(field(name));
            } else if let Some(name) = column.name.strip_prefix("output_") {
                spec.outputs.push(field(name));
            }
        }
        spec
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    let fits = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if starts && fits && name.len() <= NAME_BYTES_MAX && !name.contains("__") && !name.ends_with('_') {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(Error::invalid(format!(
        "`{}` cannot name a log of predictions: a lower-case letter, then letters, digits and single `_`, {NAME_BYTES_MAX} at most",
        shown.escape_debug()
    )))
}
