//! Numeric reference cases: any folder of them, through the real functions.
//!
//! Owns the mapping from the names of cases to functions of the host, which keeps neutral names; and the reading of a folder
//! (`cases.json`, and the files that it names) in the format of its README. Bounded by the folder. On failure: a line for each
//! case that fails, saying which field differs; a file that cannot be read fails its case only.

use anyhow::{Context, Result, anyhow, bail};
use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::{
    Alternative, BinnedOptions, Binning, Draws, Ends, Fault, Key, Matrix, Method, Metric, Missing, Plan, Rates,
    bootstrap, centroid_distance, chi_square, jeffreys_binned, jeffreys_counts, ks_two_sample, rates_by_group, roc_auc,
    share_distances, union_of_codes, union_of_texts, wasserstein,
};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Run them; whether all passed. Ends with one line: `N passed, N failed`.
pub fn run(dir: &Path) -> Result<bool> {
    let file = dir.join("cases.json");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let whole: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    let cases = whole["cases"].as_array().context("`cases` is no list")?;
    let (mut passed, mut failed) = (0, 0);
    for case in cases {
        let case = Case { dir, value: case };
        match case.check() {
            Ok(()) => passed += 1,
            Err(error) => {
                failed += 1;
                println!("{} ({}): {error:#}", case.id(), case.op());
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// What a case computes.
enum Got {
    Number(f64),
    Text(String),
    List(Vec<Got>),
    Map(Vec<(&'static str, Got)>),
}

impl Got {
    fn numbers(values: impl IntoIterator<Item = f64>) -> Got {
        Got::List(values.into_iter().map(Got::Number).collect())
    }

    fn counts(values: &[u64]) -> Got {
        Got::numbers(values.iter().map(|value| *value as f64))
    }
}

/// One entry of `cases.json`.
#[derive(Clone, Copy)]
struct Case<'c> {
    dir: &'c Path,
    value: &'c Value,
}

/// Why nothing was computed: a fault of ours, or something about the case itself.
enum Stop {
    Fault(Fault),
    Case(anyhow::Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Stop {
        Stop::Case(error)
    }
}

type Outcome<T = Got> = Result<T, Stop>;

impl<'c> Case<'c> {
    fn id(&self) -> &'c str {
        self.value["id"].as_str().unwrap_or("a case without id")
    }

    fn op(&self) -> &'c str {
        self.value["op"].as_str().unwrap_or("no op")
    }

    fn parameter(&self, name: &str) -> &'c Value {
        &self.value["params"][name]
    }

    fn text_parameter(&self, name: &str, default: &'static str) -> &'c str {
        self.parameter(name).as_str().unwrap_or(default)
    }

    fn number_parameter(&self, name: &str, default: f64) -> f64 {
        self.parameter(name).as_f64().unwrap_or(default)
    }

    fn missing(&self) -> Missing {
        if self.text_parameter("nan_policy", "raise") == "omit" { Missing::Omit } else { Missing::Refuse }
    }

    fn input(&self, name: &str) -> Option<&'c Value> {
        self.value["inputs"].get(name)
    }

    /// Compute, and compare with what is expected.
    fn check(&self) -> Result<()> {
        if self.op() == "tree_shap" {
            return crate::tree_shap_cases::check(self.value, self.dir);
        }
        if self.op() == "pit_join" {
            return crate::join_cases::check(self.value, self.dir);
        }
        let expected = &self.value["expected"];
        let wanted = expected["error"].as_str();
        match (self.compute(), wanted) {
            (Ok(got), None) => self.compare(expected, &got, ""),
            (Ok(_), Some(wanted)) => bail!("gave numbers where `{wanted}` is expected"),
            (Err(Stop::Fault(fault)), Some(wanted)) if fault.code() == wanted => Ok(()),
            (Err(Stop::Fault(fault)), Some(wanted)) => {
                bail!("`{}` where `{wanted}` is expected: {fault}", fault.code())
            }
            (Err(Stop::Fault(fault)), None) => bail!("`{}`: {fault}", fault.code()),
            (Err(Stop::Case(error)), _) => Err(error),
        }
    }

    fn compute(&self) -> Outcome {
        match self.op() {
            "psi" => self.shares_of_bins(),
            "psi_categorical" => self.shares_of_categories(),
            "ks_2samp" => self.ks(),
            "chi2_contingency" => self.contingency(),
            "jensen_shannon" => self.share_distances(),
            "wasserstein" => self.transport(),
            "roc_auc" => self.area(),
            "bootstrap_auc" => self.bootstrap(),
            "centroid_cosine" => self.centroid(),
            "fairness" => self.groups(),
            other => Err(Stop::Case(anyhow!("no function for `{other}`"))),
        }
    }
}

/// Reading inputs.
impl Case<'_> {
    /// Cells of an array, as they stand in the case or the file.
    fn array(&self, name: &str) -> Result<Vec<Value>> {
        let input = self.input(name).with_context(|| format!("no input `{name}`"))?;
        if let Some(inline) = input["inline"].as_array() {
            return Ok(inline.clone());
        }
        let table = Table::read(self.dir, input)?;
        let column = input["column"].as_str().or(table.names.first().map(String::as_str)).unwrap_or_default();
        Ok(table.column(column)?.into_iter().map(|cell| Value::String(cell.into())).collect())
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let is_f32 = self.text_parameter("dtype", "float64") == "float32";
        self.array(name)?.iter().map(|cell| number(cell, is_f32)).collect()
    }

    /// A column, in two chunks so that chunked reading is what is checked.
    fn column(&self, name: &str) -> Result<Column> {
        chunked(&self.numbers(name)?)
    }

    /// Rows of a matrix; `length_mismatch` when they are not of one length.
    fn matrix(&self, name: &str) -> Outcome<(Vec<f64>, usize)> {
        let input = self.input(name).with_context(|| format!("no input `{name}`"))?;
        let is_f32 = self.text_parameter("dtype", "float64") == "float32";
        let rows: Vec<Vec<f64>> = match input["inline"].as_array() {
            Some(rows) => rows.iter().map(|row| inline_row(row, is_f32)).collect::<Result<_>>()?,
            None => {
                let table = Table::read(self.dir, input)?;
                let row = |row: &Vec<String>| row.iter().map(|cell| parsed(cell, is_f32)).collect::<Result<_>>();
                table.rows.iter().map(row).collect::<Result<_>>()?
            }
        };
        let width = rows.first().map_or(0, Vec::len);
        if let Some(other) = rows.iter().find(|row| row.len() != width) {
            return Err(Fault::length_mismatch(format!("rows of {width} and {} cells", other.len())).into());
        }
        Ok((rows.concat(), width))
    }
}

fn inline_row(row: &Value, is_f32: bool) -> Result<Vec<f64>> {
    row.as_array().context("a row that is no list")?.iter().map(|cell| number(cell, is_f32)).collect()
}

fn chunked(values: &[f64]) -> Result<Column> {
    let whole = Column::f64(values, None);
    let (first, second) =
        (whole.slice(0, values.len() / 3)?, whole.slice(values.len() / 3, values.len() - values.len() / 3)?);
    let chunks = first.arrow().iter().chain(second.arrow()).cloned().collect();
    Ok(Column::from_arrow(whole.value_type(), chunks)?)
}

/// NaN for what is not there.
fn number(cell: &Value, is_f32: bool) -> Result<f64> {
    match cell {
        Value::Null => Ok(f64::NAN),
        Value::Bool(value) => Ok(f64::from(u8::from(*value))),
        Value::Number(value) => {
            let value = value.as_f64().context("a number beyond f64")?;
            Ok(if is_f32 { f64::from(value as f32) } else { value })
        }
        Value::String(text) => parsed(text, is_f32),
        other => bail!("{other} is no number"),
    }
}

fn parsed(text: &str, is_f32: bool) -> Result<f64> {
    let parsed = match text.trim() {
        "" => Ok(f64::NAN),
        "True" | "true" => Ok(1.0),
        "False" | "false" => Ok(0.0),
        text if is_f32 => text.parse::<f32>().map(f64::from),
        text => text.parse(),
    };
    parsed.with_context(|| format!("`{text}` is no number"))
}

/// A file of comma-separated values with a header.
struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(dir: &Path, input: &Value) -> Result<Table> {
        let file = dir.join(input["csv"].as_str().context("an input that is neither inline nor a file")?);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut lines = text.lines().map(cells);
        let names = lines.next().unwrap_or_default();
        // A file of one column may have an empty line where a value is not there.
        let rows = lines.filter(|row| names.len() == 1 || *row != [""]).collect();
        Ok(Table { names, rows })
    }

    fn column(&self, name: &str) -> Result<Vec<&str>> {
        let at = self.names.iter().position(|known| known == name).with_context(|| format!("no column `{name}`"))?;
        self.rows.iter().map(|row| row.get(at).map(String::as_str).context("a row that is too short")).collect()
    }
}

/// Cells of a line; quotes hold commas, doubled quotes stand for one.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut is_quoted) = (vec![String::new()], false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let cell = cells.last_mut().expect("there is one");
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            letter => cell.push(letter),
        }
    }
    cells
}

/// From names of cases to functions.
impl Case<'_> {
    fn shares_of_bins(&self) -> Outcome {
        let (reference, current) = (self.column("reference")?, self.column("current")?);
        let default = BinnedOptions::default();
        let options = BinnedOptions {
            bins: self.number_parameter("bins", default.bins as f64) as usize,
            binning: match self.text_parameter("binning", "quantile") {
                "uniform" => Binning::Uniform,
                _ => Binning::Quantile,
            },
            ends: if self.text_parameter("range", "open") == "closed" { Ends::Closed } else { Ends::Open },
            floor: self.number_parameter("eps", default.floor),
        };
        let found = jeffreys_binned(&view(&reference)?, &view(&current)?, &options, self.missing())?;
        let inner = &found.breaks[1..found.breaks.len() - 1];
        Ok(Got::Map(vec![
            ("psi", Got::Number(found.divergence)),
            ("n_bins", Got::Number(found.reference.counts.len() as f64)),
            ("inner_edges", Got::numbers(inner.iter().copied())),
            ("ref_counts", Got::counts(&found.reference.counts)),
            ("cur_counts", Got::counts(&found.current.counts)),
        ]))
    }

    fn shares_of_categories(&self) -> Outcome {
        let (reference, current) = (self.array("reference")?, self.array("current")?);
        let floor = self.number_parameter("eps", BinnedOptions::default().floor);
        let is_code = |cell: &Value| matches!(cell, Value::Number(_) | Value::Bool(_) | Value::Null);
        let (categories, counts) = if reference.iter().chain(&current).all(is_code) {
            let (reference, current) = (self.column("reference")?, self.column("current")?);
            let union = union_of_codes(&view(&reference)?, &view(&current)?, self.missing())?;
            (Got::numbers(union.categories), (union.reference, union.current))
        } else {
            let (reference, current) = (texts(&reference), texts(&current));
            let (reference, current) = (reference.texts().map_err(case)?, current.texts().map_err(case)?);
            let union = union_of_texts(&reference, &current, self.missing())?;
            (Got::List(union.categories.into_iter().map(Got::Text).collect()), (union.reference, union.current))
        };
        Ok(Got::Map(vec![
            ("psi", Got::Number(jeffreys_counts(&counts.0, &counts.1, floor)?)),
            ("categories", categories),
            ("ref_counts", Got::counts(&counts.0)),
            ("cur_counts", Got::counts(&counts.1)),
        ]))
    }

    fn ks(&self) -> Outcome {
        let (reference, current) = (self.column("reference")?, self.column("current")?);
        let method = match self.text_parameter("method", "auto") {
            "exact" => Method::Exact,
            "asymp" => Method::Asymptotic,
            _ => Method::Auto,
        };
        let alternative = match self.text_parameter("alternative", "two-sided") {
            "less" => Alternative::Less,
            "greater" => Alternative::Greater,
            _ => Alternative::TwoSided,
        };
        let found = ks_two_sample(&view(&reference)?, &view(&current)?, method, alternative, self.missing())?;
        let used = if found.method == Method::Exact { "exact" } else { "asymp" };
        if let Some(expected) = self.parameter("method_used").as_str().filter(|expected| *expected != used) {
            return Err(Stop::Case(anyhow!("used the method `{used}`, not `{expected}`")));
        }
        let pairs = [("statistic", found.statistic), ("pvalue", found.p_value)];
        Ok(Got::Map(pairs.into_iter().map(|(name, value)| (name, Got::Number(value))).collect()))
    }

    fn contingency(&self) -> Outcome {
        let (table, columns) = self.matrix("table")?;
        let found = chi_square(&table, columns, self.parameter("correction").as_bool().unwrap_or(true))?;
        let rows = found.expected.chunks(columns).map(|row| Got::numbers(row.iter().copied()));
        Ok(Got::Map(vec![
            ("statistic", Got::Number(found.statistic)),
            ("pvalue", Got::Number(found.p_value)),
            ("dof", Got::Number(found.degrees as f64)),
            ("expected_freq", Got::List(rows.collect())),
        ]))
    }

    fn share_distances(&self) -> Outcome {
        let base = self.number_parameter("base", std::f64::consts::E);
        let found = share_distances(&self.numbers("reference")?, &self.numbers("current")?, base)?;
        Ok(Got::Map(vec![
            ("distance", Got::Number(found.jensen_shannon_distance)),
            ("divergence", Got::Number(found.jensen_shannon_divergence)),
            ("hellinger", Got::Number(found.hellinger)),
            ("linf", Got::Number(found.largest)),
        ]))
    }

    fn transport(&self) -> Outcome {
        let (reference, current) = (self.column("reference")?, self.column("current")?);
        let found = wasserstein(&view(&reference)?, &view(&current)?, self.missing())?;
        Ok(Got::Map(vec![("distance", Got::Number(found.distance)), ("normed", Got::Number(found.normed))]))
    }

    fn area(&self) -> Outcome {
        let (labels, scores) = (self.column("y_true")?, self.column("score")?);
        let weights = self.input("sample_weight").map(|_| self.column("sample_weight")).transpose()?;
        let weights = weights.as_ref().map(view).transpose()?;
        let area = roc_auc(&view(&labels)?, &view(&scores)?, weights.as_ref(), self.missing())?;
        Ok(Got::Map(vec![("auc", Got::Number(area))]))
    }

    fn bootstrap(&self) -> Outcome {
        const SEED: f64 = 20_261_126.0;
        let (labels, scores) = (self.column("y_true")?, self.column("score")?);
        let metric = Metric::area(&view(&labels)?, &view(&scores)?, self.missing())?;
        let mut resamples = self.number_parameter("n_boot", 2_000.0) as usize;
        let mut index = Vec::new();
        if self.input("resample_index").is_some() {
            let (cells, width) = self.matrix("resample_index")?;
            resamples = cells.len() / width.max(1);
            index = cells.into_iter().map(row_number).collect::<Result<_>>()?;
        }
        let draws = match index.is_empty() {
            true => Draws::Seed(self.number_parameter("seed", SEED) as u64),
            false => Draws::Given(&index),
        };
        let found = bootstrap(&metric, &Plan { resamples, level: self.number_parameter("level", 0.95), draws })?;
        Ok(Got::Map(vec![
            ("point", Got::Number(found.point)),
            ("ci_low", Got::Number(found.low)),
            ("ci_high", Got::Number(found.high)),
            ("mean", Got::Number(found.mean)),
            ("std", Got::Number(found.std)),
            ("n_used", Got::Number(found.used as f64)),
            ("n_skipped", Got::Number(found.skipped as f64)),
        ]))
    }

    fn centroid(&self) -> Outcome {
        let ((reference, width), (current, other)) = (self.matrix("reference")?, self.matrix("current")?);
        if reference.is_empty() || current.is_empty() {
            return Err(Fault::empty_input("a set without vectors").into());
        }
        let found = if self.text_parameter("dtype", "float64") == "float32" {
            let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
            let (reference, current) = (narrow(&reference), narrow(&current));
            let (reference, current) = (&[&reference[..]][..], &[&current[..]][..]);
            let reference = Matrix::RowsF32 { width, chunks: reference };
            centroid_distance(&reference, &Matrix::RowsF32 { width: other, chunks: current }, self.missing())?
        } else {
            let (reference, current) = (&[&reference[..]][..], &[&current[..]][..]);
            let reference = Matrix::RowsF64 { width, chunks: reference };
            centroid_distance(&reference, &Matrix::RowsF64 { width: other, chunks: current }, self.missing())?
        };
        Ok(Got::Map(vec![
            ("distance", Got::Number(found.cosine_distance)),
            ("similarity", Got::Number(found.cosine_similarity)),
            ("euclidean", Got::Number(found.euclidean)),
        ]))
    }

    fn groups(&self) -> Outcome {
        let frame = Frame::read(self)?;
        let (labels, predictions) = (frame.binary("y_true", self)?, frame.binary("y_pred", self)?);
        let sensitive = self.parameter("sensitive").as_array().context("`sensitive` is no list")?;
        let names = sensitive.iter().map(|name| name.as_str().context("a name that is no text"));
        let names: Vec<&str> = names.collect::<Result<_>>()?;
        let columns: Vec<Column> = names.iter().map(|name| frame.grouping(name)).collect::<Result<_>>()?;
        let weights =
            frame.names().find(|name| *name == "sample_weight").map(|name| frame.numbers(name)).transpose()?;
        let weights = weights.map(|weights| chunked(&weights)).transpose()?;
        let weights = weights.as_ref().map(view).transpose()?;
        let texts: Vec<_> = columns.iter().map(|column| column.texts().ok()).collect();
        let numbers: Vec<_> = columns.iter().map(|column| column.numbers().ok()).collect();
        let keys = texts
            .iter()
            .zip(&numbers)
            .filter_map(|(texts, numbers)| texts.as_ref().map(Key::Texts).or(numbers.as_ref().map(Key::Numbers)));
        let keys: Vec<Key<'_>> = keys.collect();
        let found = rates_by_group(&view(&labels)?, &view(&predictions)?, &keys, weights.as_ref(), self.missing())?;
        let by_group = found.groups.iter().map(|group| {
            let key = group.key.iter().map(|value| Got::Text(value.to_string())).collect();
            let mut fields = rates(&group.rates);
            fields.push(("group", Got::List(key)));
            Got::Map(fields)
        });
        let (chosen, hit) = (found.selection_rate, found.true_positive_rate);
        let mut fields =
            vec![("by_group", Got::List(by_group.collect())), ("overall", Got::Map(rates(&found.overall)))];
        let summary = [
            ("disparate_impact", chosen.ratio()),
            ("demographic_parity_difference", chosen.difference()),
            ("demographic_parity_ratio", chosen.ratio()),
            ("equalized_odds_difference", found.odds_difference()),
            ("equalized_odds_ratio", found.odds_ratio()),
            ("equal_opportunity_difference", hit.difference()),
            ("equal_opportunity_ratio", hit.ratio()),
        ];
        fields.extend(summary.map(|(name, value)| (name, Got::Number(value))));
        Ok(Got::Map(fields))
    }
}

fn rates(rates: &Rates) -> Vec<(&'static str, Got)> {
    let fields = [
        ("selection_rate", rates.selection_rate),
        ("tpr", rates.true_positive_rate),
        ("fpr", rates.false_positive_rate),
        ("accuracy", rates.accuracy),
        ("count", rates.count as f64),
        ("n_positive", rates.positives),
        ("n_negative", rates.negatives),
    ];
    fields.into_iter().map(|(name, value)| (name, Got::Number(value))).collect()
}

fn view(column: &Column) -> Result<Numbers<'_>> {
    Ok(column.numbers()?)
}

fn case(error: impl Into<anyhow::Error>) -> Stop {
    Stop::Case(error.into())
}

fn row_number(cell: f64) -> Result<u32> {
    if cell >= 0.0 && cell.fract() == 0.0 && cell <= f64::from(u32::MAX) {
        return Ok(cell as u32);
    }
    bail!("{cell} is no row number")
}

fn texts(cells: &[Value]) -> Column {
    let shown: Vec<Option<String>> = cells
        .iter()
        .map(|cell| match cell {
            Value::Null => None,
            Value::String(text) if text == "NaN" => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
        .collect();
    Column::text(shown.iter().map(Option::as_deref))
}

/// A table of labels, predictions and groups, from a file or inline by column.
struct Frame {
    columns: Vec<(String, Vec<Value>)>,
}

impl Frame {
    fn read(case: &Case<'_>) -> Result<Frame> {
        let Some(input) = case.input("frame") else {
            let inputs = case.value["inputs"].as_object().context("no inputs")?;
            let columns = inputs.keys().map(|name| Ok((name.clone(), case.array(name)?)));
            return Ok(Frame { columns: columns.collect::<Result<_>>()? });
        };
        if let Some(inline) = input["inline"].as_object() {
            let column = |(name, cells): (&String, &Value)| {
                Ok((name.clone(), cells.as_array().context("a column that is no list")?.clone()))
            };
            return Ok(Frame { columns: inline.iter().map(column).collect::<Result<_>>()? });
        }
        let table = Table::read(case.dir, input)?;
        let column = |name: &String| {
            let cells = table.column(name)?.into_iter().map(|cell| Value::String(cell.into()));
            Ok((name.clone(), cells.collect()))
        };
        Ok(Frame { columns: table.names.iter().map(column).collect::<Result<_>>()? })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    fn cells(&self, name: &str) -> Result<&[Value]> {
        let found = self.columns.iter().find(|(known, _)| known == name);
        found.map(|(_, cells)| &cells[..]).with_context(|| format!("no column `{name}`"))
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        self.cells(name)?.iter().map(|cell| number(cell, false)).collect()
    }

    /// Labels as 0 and 1, where `positive` says which is 1. Numbers stay as they are where 1 is, so that others are noticed.
    fn binary(&self, name: &str, case: &Case<'_>) -> Result<Column> {
        let positive = case.parameter("positive");
        if positive.is_null() || positive.as_f64() == Some(1.0) || positive.as_bool() == Some(true) {
            return chunked(&self.numbers(name)?);
        }
        let is_positive = |cell: &Value| match (positive.as_f64(), number(cell, false)) {
            (Some(positive), Ok(value)) => positive == value,
            _ => cell == positive,
        };
        let values: Vec<f64> = self.cells(name)?.iter().map(|cell| f64::from(u8::from(is_positive(cell)))).collect();
        chunked(&values)
    }

    /// A column of integers where all cells are, else of strings.
    fn grouping(&self, name: &str) -> Result<Column> {
        let cells = self.cells(name)?;
        let integer = |cell: &Value| match cell {
            Value::String(text) => text.parse::<i64>().ok(),
            other => other.as_i64(),
        };
        let integers: Option<Vec<i64>> = cells.iter().map(integer).collect();
        Ok(match integers {
            Some(integers) => Column::i64(&integers, None),
            None => {
                let blank =
                    |cell: &Value| if *cell == Value::String(String::new()) { Value::Null } else { cell.clone() };
                texts(&cells.iter().map(blank).collect::<Vec<Value>>())
            }
        })
    }
}

/// Fields that must be equal, whatever the tolerance.
const EXACT: [&str; 7] = ["n_bins", "ref_counts", "cur_counts", "dof", "count", "n_positive", "n_negative"];

/// Comparing.
impl Case<'_> {
    fn compare(&self, expected: &Value, got: &Got, field: &str) -> Result<()> {
        match (expected, got) {
            (Value::Object(fields), Got::Map(got)) => {
                for (name, expected) in fields {
                    let found = got.iter().find(|(known, _)| known == name);
                    let (_, got) = found.with_context(|| format!("`{name}` is not computed"))?;
                    self.compare(expected, got, name)?;
                }
                Ok(())
            }
            (Value::Array(expected), Got::List(got)) if expected.len() == got.len() => {
                let pairs = expected.iter().zip(got).enumerate();
                pairs.into_iter().try_for_each(|(at, (expected, got))| {
                    self.compare(expected, got, field).with_context(|| format!("[{at}]"))
                })
            }
            (Value::Array(expected), Got::List(got)) => {
                bail!("`{field}` has {} entries where {} are expected", got.len(), expected.len())
            }
            (expected, Got::Number(got)) => self.compare_number(number(expected, false)?, *got, field),
            (Value::String(expected), Got::Text(got)) if expected == got => Ok(()),
            (Value::Number(expected), Got::Text(got)) if expected.as_f64() == got.parse().ok() => Ok(()),
            (expected, Got::Text(got)) => bail!("`{field}` is `{got}` where {expected} is expected"),
            (expected, _) => bail!("`{field}` is not what {expected} can be compared with"),
        }
    }

    fn compare_number(&self, expected: f64, got: f64, field: &str) -> Result<()> {
        let tolerance = &self.value["tolerance"];
        let tolerance = if tolerance[field].is_object() { &tolerance[field] } else { tolerance };
        let part = |name: &str| tolerance[name].as_f64().unwrap_or(0.0);
        let allowed = if EXACT.contains(&field) { 0.0 } else { part("abs").max(part("rel") * expected.abs()) };
        let is_near = expected == got || (got - expected).abs() <= allowed || (expected.is_nan() && got.is_nan());
        if is_near {
            return Ok(());
        }
        bail!("`{field}` is {got:e} where {expected:e} is expected, {:e} apart", (got - expected).abs())
    }
}
