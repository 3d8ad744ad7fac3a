//! Preparing tables of features: steps that are data, fitted on one frame and applied to others.
//!
//! Owns [`Steps`], a JSON document that a model's graph carries, and the functions that fit a [`Step`] to a frame. Everything
//! is computed by handle: fitting and applying need the right to compute and never see a value. Definitions are
//! scikit-learn's (`StandardScaler`, `MinMaxScaler`, `RobustScaler`, `SimpleImputer`, `KBinsDiscretizer`, `OneHotEncoder`,
//! `OrdinalEncoder`), so that what was fitted there and what is fitted here prepare alike; with the feature `onnx`,
//! `Steps::from_onnx` takes over what was fitted there. Bounded by: [`STEPS_MAX`] steps and the host's limits on columns. On
//! failure: `invalid` names the step and the column.
//!
//! ```
//! use mainstay_sdk::columns::{Column, Frame};
//! use mainstay_sdk::tabular::{self, Steps};
//! # use mainstay_sdk::testing::Host;
//! # Host::new().enter(|| -> mainstay_sdk::Result<()> {
//! let (age, city) = (Column::real64(&[20.0, 40.0])?, Column::text([Some("Bern"), Some("Rome")])?);
//! let frame = Frame::of([("age", &age), ("city", &city)])?;
//! let steps = Steps(vec![tabular::fit_standard(&frame, &["age"])?, tabular::fit_one_hot(&frame, "city")?]);
//! let prepared = steps.apply(&frame)?;
//! let names: Vec<String> = prepared.columns().into_iter().map(|(name, _)| name).collect();
//! assert_eq!(names, ["age", "city=Bern", "city=Rome"]);
//! assert_eq!(prepared.column("age")?.read_numbers(0, 2)?, [-1.0, 1.0]);
//! # Ok(()) }).unwrap();
//! ```

use crate::columns::{Column, Frame, ValueType};
use crate::stats::{self, Absent, Pair};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "onnx")]
mod onnx;

#[cfg(feature = "onnx")]
pub use onnx::ONNX_BYTES_MAX;

/// Steps that one document may have.
pub const STEPS_MAX: usize = 1_000;

/// What is done to a table, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steps(pub Vec<Step>);

/// A number or a string, as JSON has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fill {
    /// For columns of numbers.
    Number(f64),
    /// For columns of text.
    Text(String),
}

/// The values that a column of categories may have, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Categories {
    /// Of a column of numbers.
    Numbers(Vec<f64>),
    /// Of a column of text.
    Texts(Vec<String>),
}

/// `(x - subtract) * multiply`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// Taken off first.
    pub subtract: f64,
    /// Then times this.
    pub multiply: f64,
}

/// One thing that is done. In JSON an object with the field `op`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// A value for what is missing or NaN, for each column.
    Impute {
        /// What to put in.
        values: BTreeMap<String, Fill>,
    },
    /// A new column `NAME_missing` behind the others for each: 1 where it is missing or NaN, else 0.
    FlagMissing {
        /// Which columns.
        columns: Vec<String>,
    },
    /// Numbers moved and stretched.
    Scale {
        /// How, for each column.
        columns: BTreeMap<String, Affine>,
    },
    /// Numbers brought within bounds.
    Clip {
        /// Which columns.
        columns: Vec<String>,
        /// The least.
        low: f64,
        /// The greatest.
        high: f64,
    },
    /// Numbers replaced by how many of these ascending edges are at most as large.
    Bucket {
        /// Edges, for each column.
        columns: BTreeMap<String, Vec<f64>>,
    },
    /// Categories replaced by their place in the list.
    Encode {
        /// Which column.
        column: String,
        /// The list.
        categories: Categories,
        /// For what is not in it, and for what is missing.
        otherwise: i32,
    },
    /// Categories replaced by one column of 0 and 1 each, named `COLUMN=CATEGORY`; all are 0 for what is not in the list.
    OneHot {
        /// Which column.
        column: String,
        /// The list.
        categories: Categories,
    },
    /// Categories replaced by a number each.
    Lookup {
        /// Which column.
        column: String,
        /// The list.
        categories: Categories,
        /// The numbers.
        values: Vec<f64>,
        /// For what is not in the list, and for what is missing.
        otherwise: f64,
    },
    /// Whether a number is at least `at`, as a boolean column.
    Threshold {
        /// Which column.
        column: String,
        /// The threshold.
        at: f64,
        /// Name of the answer; the column itself stays unless it is the same.
        to: String,
    },
    /// The same columns once more, behind the others.
    Copy {
        /// Old name by new name.
        columns: BTreeMap<String, String>,
    },
    /// Only these columns, in this order.
    Keep {
        /// Which columns.
        columns: Vec<String>,
    },
    /// Without these columns.
    Remove {
        /// Which columns.
        columns: Vec<String>,
    },
    /// Other names.
    Rename {
        /// New name by old name.
        names: BTreeMap<String, String>,
    },
}

impl Steps {
    /// Steps out of their JSON, checked.
    pub fn parse(json: &str) -> Result<Steps> {
        let steps: Steps = serde_json::from_str(json).map_err(|error| Error::invalid(format!("the steps: {error}")))?;
        steps.check()?;
        Ok(steps)
    }

    /// What can be known without a table: numbers that make sense, lists that are not empty or too long.
    pub fn check(&self) -> Result<()> {
        if self.0.len() > STEPS_MAX {
            return Err(Error::invalid(format!("{} steps; the most is {STEPS_MAX}", self.0.len())));
        }
        let mut numbered = self.0.iter().enumerate();
        numbered.try_for_each(|(at, step)| step.check().map_err(|error| at_step(at, step, error)))
    }

    /// The prepared table.
    pub fn apply(&self, frame: &Frame) -> Result<Frame> {
        let names = frame.columns().into_iter().map(|(name, _)| name);
        let mut table = Table(names.map(|name| Ok((name.clone(), frame.column(&name)?))).collect::<Result<_>>()?);
        for (at, step) in self.0.iter().enumerate() {
            step.apply(&mut table).map_err(|error| at_step(at, step, error))?;
        }
        Frame::of(table.0.iter().map(|(name, column)| (name.as_str(), column)))
    }
}

fn at_step(at: usize, step: &Step, error: Error) -> Error {
    Error::new(error.kind(), format!("step {} ({}): {}", at + 1, step.op(), error.message()))
}

/// Columns in order.
struct Table(Vec<(String, Column)>);

impl Table {
    fn place(&self, name: &str) -> Result<usize> {
        self.0.iter().position(|(known, _)| known == name).ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).take(20).collect();
            Error::invalid(format!("no column `{name}`; there are {}", known.join(", ")))
        })
    }

    fn change(&mut self, name: &str, act: impl FnOnce(&Column) -> Result<Column>) -> Result<()> {
        let place = self.place(name)?;
        let changed = act(&self.0[place].1);
        self.0[place].1 = changed.map_err(|error| named(name, error))?;
        Ok(())
    }

    fn set(&mut self, name: &str, column: Column) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = column,
            None => self.0.push((name.to_owned(), column)),
        }
    }

    fn take(&mut self, name: &str) -> Result<Column> {
        let place = self.place(name)?;
        Ok(self.0.remove(place).1)
    }
}

fn named(name: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("column `{name}`: {}", error.message()))
}

impl Step {
    fn op(&self) -> &'static str {
        match self {
            Step::Impute { .. } => "impute",
            Step::FlagMissing { .. } => "flag-missing",
            Step::Scale { .. } => "scale",
            Step::Clip { .. } => "clip",
            Step::Bucket { .. } => "bucket",
            Step::Encode { .. } => "encode",
            Step::OneHot { .. } => "one-hot",
            Step::Lookup { .. } => "lookup",
            Step::Threshold { .. } => "threshold",
            Step::Copy { .. } => "copy",
            Step::Keep { .. } => "keep",
            Step::Remove { .. } => "remove",
            Step::Rename { .. } => "rename",
        }
    }

    fn check(&self) -> Result<()> {
        let ensure = |holds: bool, why: &str| if holds { Ok(()) } else { Err(Error::invalid(why)) };
        match self {
            Step::Scale { columns } => {
                let is_finite = |affine: &Affine| affine.subtract.is_finite() && affine.multiply.is_finite();
                ensure(columns.values().all(is_finite), "`subtract` and `multiply` must be finite")
            }
            Step::Clip { low, high, .. } => ensure(low <= high, "`low` must not be above `high`"),
            Step::Bucket { columns } => {
                let ascends = |edges: &Vec<f64>| edges.windows(2).all(|pair| pair[0] < pair[1]);
                ensure(columns.values().all(ascends), "edges must ascend")
            }
            Step::Encode { categories, .. } | Step::OneHot { categories, .. } => categories.check(),
            Step::Lookup { categories, values, .. } => {
                ensure(categories.len() == values.len(), "give one of `values` for each of `categories`")?;
                categories.check()
            }
            Step::Threshold { at, .. } => ensure(!at.is_nan(), "`at` must be a number"),
            Step::Impute { .. } | Step::FlagMissing { .. } => Ok(()),
            Step::Copy { .. } | Step::Keep { .. } | Step::Remove { .. } | Step::Rename { .. } => Ok(()),
        }
    }

    fn apply(&self, table: &mut Table) -> Result<()> {
        match self {
            Step::Impute { values } => values.iter().try_for_each(|(name, fill)| {
                table.change(name, |column| match fill {
                    Fill::Number(value) => column.fill(*value),
                    Fill::Text(value) => column.fill_text(value),
                })
            }),
            Step::FlagMissing { columns } => columns.iter().try_for_each(|name| {
                let flag = table.0[table.place(name)?].1.absent()?.cast(ValueType::Real32)?;
                table.set(&format!("{name}_missing"), flag);
                Ok(())
            }),
            Step::Scale { columns } => columns
                .iter()
                .try_for_each(|(name, by)| table.change(name, |column| column.affine(by.subtract, by.multiply))),
            Step::Clip { columns, low, high } => {
                columns.iter().try_for_each(|name| table.change(name, |column| column.clip(*low, *high)))
            }
            Step::Bucket { columns } => {
                columns.iter().try_for_each(|(name, edges)| table.change(name, |column| column.bucket(edges)))
            }
            Step::Encode { column, categories, otherwise } => table.change(column, |column| {
                let codes = categories.codes(column, *otherwise)?;
                codes.fill(f64::from(*otherwise))?.cast(ValueType::Integer32)
            }),
            Step::OneHot { column, categories } => one_hot(table, column, categories),
            Step::Lookup { column, categories, values, otherwise } => {
                table.change(column, |column| categories.codes(column, -1)?.lookup(values, *otherwise))
            }
            Step::Threshold { column, at, to } => {
                let answer = table.0[table.place(column)?].1.at_least(*at).map_err(|error| named(column, error))?;
                table.set(to, answer);
                Ok(())
            }
            Step::Copy { columns } => columns.iter().try_for_each(|(new, old)| {
                let column = &table.0[table.place(old)?].1;
                let copy = column.slice(0, column.len()).map_err(|error| named(old, error))?;
                table.set(new, copy);
                Ok(())
            }),
            Step::Keep { columns } => {
                let kept = columns.iter().map(|name| Ok((name.clone(), table.take(name)?))).collect::<Result<_>>()?;
                table.0 = kept;
                Ok(())
            }
            Step::Remove { columns } => columns.iter().try_for_each(|name| table.take(name).map(drop)),
            Step::Rename { names } => rename(table, names),
        }
    }
}

fn one_hot(table: &mut Table, name: &str, categories: &Categories) -> Result<()> {
    let place = table.place(name)?;
    let codes = categories.codes(&table.0[place].1, -1).map_err(|error| named(name, error))?;
    let hot = codes.one_hot(categories.len() as u32).map_err(|error| named(name, error))?;
    let named = categories.names().into_iter().map(|category| format!("{name}={category}")).zip(hot);
    table.0.splice(place..=place, named.collect::<Vec<_>>());
    Ok(())
}

fn rename(table: &mut Table, names: &BTreeMap<String, String>) -> Result<()> {
    let places = names.iter().map(|(old, new)| Ok((table.place(old)?, new))).collect::<Result<Vec<_>>>()?;
    places.into_iter().for_each(|(place, new)| table.0[place].0.clone_from(new));
    let distinct: BTreeSet<&str> = table.0.iter().map(|(name, _)| name.as_str()).collect();
    match distinct.len() == table.0.len() {
        true => Ok(()),
        false => Err(Error::invalid("two columns would have one name")),
    }
}

impl Categories {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Categories::Numbers(numbers) => numbers.len(),
            Categories::Texts(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the category at this place is called.
    fn name(&self, at: usize) -> String {
        match self {
            Categories::Numbers(numbers) => numbers[at].to_string(),
            Categories::Texts(texts) => texts[at].clone(),
        }
    }

    fn names(&self) -> Vec<String> {
        (0..self.len()).map(|at| self.name(at)).collect()
    }

    fn check(&self) -> Result<()> {
        let names = self.names();
        let distinct: BTreeSet<&String> = names.iter().collect();
        match distinct.len() == names.len() && !names.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid("`categories` must be distinct, and at least one")),
        }
    }

    fn codes(&self, column: &Column, otherwise: i32) -> Result<Column> {
        match self {
            Categories::Numbers(numbers) => column.encode(numbers, otherwise),
            Categories::Texts(texts) => column.encode_text(texts, otherwise),
        }
    }
}

// ---- fitting ----

fn fitted<T>(
    frame: &Frame,
    names: &[&str],
    ask: impl FnOnce(&[&Column]) -> Result<Vec<stats::Outcome<T>>>,
) -> Result<Vec<(String, T)>> {
    let columns = names.iter().map(|name| frame.column(name)).collect::<Result<Vec<_>>>()?;
    let answers = ask(&columns.iter().collect::<Vec<_>>())?;
    let named_answers = names.iter().zip(answers);
    named_answers
        .map(|(name, answer)| Ok(((*name).to_owned(), answer.map_err(|why| named(name, why.error))?)))
        .collect()
}

/// One divided by a spread; by 1 where all values are equal, as scikit-learn does.
fn one_over(spread: f64) -> f64 {
    if spread > 0.0 { 1.0 / spread } else { 1.0 }
}

/// What is missing becomes the mean.
pub fn fit_impute_mean(frame: &Frame, columns: &[&str]) -> Result<Step> {
    let found = fitted(frame, columns, |columns| stats::summaries(columns, Absent::Omit))?;
    let values = found.into_iter().map(|(name, summary)| (name, Fill::Number(summary.mean)));
    Ok(Step::Impute { values: values.collect() })
}

/// What is missing becomes the median.
pub fn fit_impute_median(frame: &Frame, columns: &[&str]) -> Result<Step> {
    let found = fitted(frame, columns, |columns| stats::quantiles(columns, &[0.5], Absent::Omit))?;
    let values = found.into_iter().map(|(name, median)| (name, Fill::Number(median[0])));
    Ok(Step::Impute { values: values.collect() })
}

/// What is missing becomes the most frequent category, of equally frequent ones the first in order.
pub fn fit_impute_most_frequent(frame: &Frame, column: &str) -> Result<Step> {
    let counts = category_counts(frame, column)?;
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or_default();
    let found = counts.into_iter().find(|(_, count)| *count == most);
    let (category, _) = found.ok_or_else(|| Error::invalid(format!("column `{column}` has no value to count")))?;
    let fill = match frame.column(column)?.value_type() {
        ValueType::Text => Fill::Text(category),
        _ => Fill::Number(number(&category)?),
    };
    Ok(Step::Impute { values: BTreeMap::from([(column.to_owned(), fill)]) })
}

/// Mean 0, population standard deviation 1.
pub fn fit_standard(frame: &Frame, columns: &[&str]) -> Result<Step> {
    let found = fitted(frame, columns, |columns| stats::summaries(columns, Absent::Omit))?;
    let scale = |summary: stats::Summary| Affine { subtract: summary.mean, multiply: one_over(summary.deviation) };
    Ok(Step::Scale { columns: found.into_iter().map(|(name, summary)| (name, scale(summary))).collect() })
}

/// From 0 to 1 on the values that were seen.
pub fn fit_min_max(frame: &Frame, columns: &[&str]) -> Result<Step> {
    let found = fitted(frame, columns, |columns| stats::summaries(columns, Absent::Omit))?;
    let scale = |summary: stats::Summary| Affine {
        subtract: summary.least,
        multiply: one_over(summary.greatest - summary.least),
    };
    Ok(Step::Scale { columns: found.into_iter().map(|(name, summary)| (name, scale(summary))).collect() })
}

/// Median 0, distance of the quartiles 1.
pub fn fit_robust(frame: &Frame, columns: &[&str]) -> Result<Step> {
    let found = fitted(frame, columns, |columns| stats::quantiles(columns, &[0.25, 0.5, 0.75], Absent::Omit))?;
    let scale = |at: Vec<f64>| Affine { subtract: at[1], multiply: one_over(at[2] - at[0]) };
    Ok(Step::Scale { columns: found.into_iter().map(|(name, at)| (name, scale(at))).collect() })
}

/// Buckets that hold about as many values each.
pub fn fit_quantile_buckets(frame: &Frame, columns: &[&str], buckets: u32) -> Result<Step> {
    let probabilities: Vec<f64> = (1..buckets).map(|at| f64::from(at) / f64::from(buckets)).collect();
    let found = fitted(frame, columns, |columns| stats::quantiles(columns, &probabilities, Absent::Omit))?;
    let distinct = |mut edges: Vec<f64>| {
        edges.dedup();
        edges
    };
    Ok(Step::Bucket { columns: found.into_iter().map(|(name, edges)| (name, distinct(edges))).collect() })
}

/// The categories that were seen, in order, by their place; -1 for others.
pub fn fit_encode(frame: &Frame, column: &str) -> Result<Step> {
    Ok(Step::Encode { column: column.to_owned(), categories: fit_categories(frame, column)?, otherwise: -1 })
}

/// The categories that were seen, in order, as a column of 0 and 1 each.
pub fn fit_one_hot(frame: &Frame, column: &str) -> Result<Step> {
    Ok(Step::OneHot { column: column.to_owned(), categories: fit_categories(frame, column)? })
}

fn fit_categories(frame: &Frame, column: &str) -> Result<Categories> {
    let names = category_counts(frame, column)?.into_iter().map(|(name, _)| name);
    match frame.column(column)?.value_type() {
        ValueType::Text => Ok(Categories::Texts(names.collect())),
        _ => {
            let mut numbers = names.map(|name| number(&name)).collect::<Result<Vec<_>>>()?;
            numbers.sort_by(f64::total_cmp);
            Ok(Categories::Numbers(numbers))
        }
    }
}

fn number(text: &str) -> Result<f64> {
    text.parse().map_err(|_| Error::internal(format!("the host named a category of numbers `{text}`")))
}

/// Distinct values and how often each was seen. A column compared with itself is the one question that lists them.
fn category_counts(frame: &Frame, column: &str) -> Result<Vec<(String, u64)>> {
    let held = frame.column(column)?;
    let answers = stats::category_divergence(&[Pair::new(&held, &held)], 1e-4)?;
    let only = answers.into_iter().next().ok_or_else(|| Error::internal("one pair, no answer"))?;
    let found = only.map_err(|why| named(column, why.error))?;
    Ok(found.categories.into_iter().zip(found.reference).collect())
}
