//! Runs folders of reference models through the real importers and predictions: `cargo xtask model-cases DIR`.
//!
//! Owns the form of such a folder: `info.json` names the models; `rows.csv` and `rows_missing.csv` are inputs, an empty cell
//! is a missing value; `expected_*.csv` are a library's answers, one line a row; `expect.json` holds requests and answers
//! with its own tolerance. Separate from the library, which knows none of it. Bounded by the folder. On failure: one line for
//! each check that failed, with the first place that differs; the last line counts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mainstay_models::import::import;
use mainstay_models::{Model, Output, Rows};
use serde_json::Value;

/// LightGBM and scikit-learn compute in `f64`.
const TOLERANCE_F64: f64 = 1e-6;
/// XGBoost and onnxruntime compute in `f32`.
const TOLERANCE_F32: f64 = 2e-6;

/// Run one folder of models, or every such folder in it; whether all checks passed.
pub fn run(dir: &Path) -> Result<bool> {
    let mut folders = Vec::new();
    find_folders(dir, 3, &mut folders)?;
    if folders.is_empty() {
        bail!("{} has no info.json, and no folder in it has one; give a folder of reference models", dir.display());
    }
    let mut checks = Checks::default();
    for folder in &folders {
        checks.folder(folder).with_context(|| format!("reading {}", folder.display()))?;
    }
    println!("{} passed, {} failed", checks.passed, checks.failed);
    Ok(checks.failed == 0)
}

fn find_folders(dir: &Path, levels_left: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if dir.join("info.json").is_file() || dir.join("expect.json").is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("reading the folder {}", dir.display()))?;
    let mut inner: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    inner.sort();
    for folder in inner.iter().filter(|path| path.is_dir() && levels_left > 0) {
        find_folders(folder, levels_left - 1, found)?;
    }
    Ok(())
}

#[derive(Default)]
struct Checks {
    passed: usize,
    failed: usize,
}

/// Numbers of a file, row after row.
struct Table {
    values: Vec<f64>,
    width: usize,
}

impl Checks {
    /// Count one check; a line when it failed.
    fn count(&mut self, what: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                println!("FAILED {what}: {error:#}");
            }
        }
    }

    fn folder(&mut self, folder: &Path) -> Result<()> {
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        let info = match folder.join("info.json") {
            path if path.is_file() => serde_json::from_slice(&fs::read(path)?).context("info.json")?,
            _ => Value::Null,
        };
        for file in files.iter().filter(|path| is_model(path)) {
            self.model(&name, folder, file, &info);
        }
        if folder.join("expect.json").is_file() {
            self.requests(&name, folder)?;
        }
        Ok(())
    }

    /// All expected answers of one model file.
    fn model(&mut self, folder_name: &str, folder: &Path, file: &Path, info: &Value) {
        let file_name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let model = match load(file) {
            Ok(model) => model,
            Err(error) => return self.count(&format!("{folder_name}/{file_name}"), Err(error)),
        };
        for reference in references(folder, &file_name, info) {
            let tolerance = match ["lightgbm", "sklearn"].iter().any(|library| reference.contains(library)) {
                true => TOLERANCE_F64.max(if file_name.ends_with(".onnx") { TOLERANCE_F32 } else { 0.0 }),
                false => TOLERANCE_F32,
            };
            for (suffix, rows) in [("", "rows.csv"), ("_missing", "rows_missing.csv")] {
                let expected = folder.join(format!("{reference}{suffix}.csv"));
                if expected.is_file() {
                    let outcome = compare(&model, &folder.join(rows), &expected, tolerance);
                    self.count(&format!("{folder_name}/{file_name} against {reference}{suffix}.csv"), outcome);
                }
            }
        }
    }

    /// The cases of `expect.json`.
    fn requests(&mut self, folder_name: &str, folder: &Path) -> Result<()> {
        let expect: Value = serde_json::from_slice(&fs::read(folder.join("expect.json"))?).context("expect.json")?;
        let file = expect["model_file"].as_str().context("expect.json names no model_file")?;
        let model = load(&folder.join(file))?;
        let (rtol, atol) = (expect["rtol"].as_f64().unwrap_or(0.0), expect["atol"].as_f64().unwrap_or(0.0));
        let cases = expect["cases"].as_array().context("expect.json has no cases")?;
        for (number, case) in cases.iter().enumerate() {
            let outcome = request(&model, &expect, case, rtol, atol);
            self.count(&format!("{folder_name}/expect.json case {number}"), outcome);
        }
        Ok(())
    }
}

fn is_model(path: &Path) -> bool {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    name.starts_with("model_") && [".onnx", ".json", ".ubj", ".txt"].iter().any(|end| name.ends_with(end))
}

fn load(file: &Path) -> Result<Model> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    import(&bytes).with_context(|| format!("importing {}", file.display()))
}

/// Which `expected_*.csv`, without its ending, belong to a model: those that `info.json` names for it, or else the one of
/// its own name.
fn references(folder: &Path, file_name: &str, info: &Value) -> Vec<String> {
    let stem = file_name.trim_start_matches("model_").split('.').next().unwrap_or("");
    let text = info["files"][file_name]["reference"].as_str().unwrap_or("");
    let words = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == '.'));
    let mut named: Vec<String> = words
        .filter_map(|word| word.strip_suffix(".csv"))
        .filter(|word| word.starts_with("expected_") && folder.join(format!("{word}.csv")).is_file())
        .map(str::to_owned)
        .collect();
    if named.is_empty() {
        let libraries = if file_name.ends_with(".onnx") { vec![stem, "onnxruntime"] } else { vec![stem] };
        named.extend(libraries.into_iter().map(|library| format!("expected_{library}")));
    }
    named
}

/// A file of numbers; a first line that is no numbers is a header, an empty cell is NaN.
fn table(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let (mut values, mut width) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<Option<f64>> = line.split(',').map(cell).collect();
        if number == 0 && cells.iter().any(Option::is_none) {
            width = Some(cells.len());
            continue;
        }
        let place = || format!("line {} of {}", number + 1, path.display());
        if *width.get_or_insert(cells.len()) != cells.len() {
            bail!("{} has {} cells", place(), cells.len());
        }
        for value in cells {
            values.push(value.with_context(|| format!("{} has a cell that is no number", place()))?);
        }
    }
    Ok(Table { values, width: width.context("an empty file")? })
}

fn cell(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() { Some(f64::NAN) } else { text.parse().ok() }
}

/// Compare a model's answers with a file of them: scores, or scores followed by raw outputs.
fn compare(model: &Model, rows: &Path, expected: &Path, tolerance: f64) -> Result<()> {
    let (rows, expected) = (table(rows)?, table(expected)?);
    let count = rows.values.len() / rows.width;
    if expected.values.len() != count * expected.width {
        bail!("{} expected values for {count} rows", expected.values.len());
    }
    let score = predict(model, &rows, Output::Score)?;
    let mut parts = vec![score];
    if parts[0].width < expected.width {
        parts.push(predict(model, &rows, Output::Raw)?);
    }
    let width: usize = parts.iter().map(|part| part.width).sum();
    if width != expected.width {
        bail!("{width} values a row; {} are expected", expected.width);
    }
    let mut from = 0;
    for part in &parts {
        for row in 0..count {
            for at in 0..part.width {
                let (got, want) = (part.values[row * part.width + at], expected.values[row * width + from + at]);
                // Margins beyond 1 carry their own rounding.
                if !is_near(got, want, tolerance * want.abs().max(1.0)) {
                    bail!("row {row}, value {}: {got} instead of {want}, beyond {tolerance:e}", from + at);
                }
            }
        }
        from += part.width;
    }
    Ok(())
}

fn is_near(got: f64, want: f64, tolerance: f64) -> bool {
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance
}

fn predict(model: &Model, rows: &Table, output: Output) -> Result<Table> {
    let width = model.width(output)?;
    let mut values = vec![0.0; rows.values.len() / rows.width * width];
    model.predict(&Rows::F64 { values: &rows.values, features: rows.width }, output, &mut values)?;
    Ok(Table { values, width })
}

/// One request in the form of the Open Inference Protocol.
fn request(model: &Model, expect: &Value, case: &Value, rtol: f64, atol: f64) -> Result<()> {
    let inputs = expect["inputs"].as_array().context("no inputs")?;
    let mut columns: Vec<Vec<Vec<f64>>> = Vec::new();
    for input in inputs {
        let name = input["name"].as_str().context("an input without a name")?;
        columns.push(matrix(&case["inputs"][name]).with_context(|| format!("the input `{name}`"))?);
    }
    let count = columns.first().map_or(0, Vec::len);
    let values: Vec<f64> = (0..count).flat_map(|row| columns.iter().flat_map(move |part| part[row].clone())).collect();
    let rows = Table { width: values.len().checked_div(count).unwrap_or(1), values };
    for output in expect["outputs"].as_array().context("no outputs")? {
        let name = output["name"].as_str().context("an output without a name")?;
        let found = model.named_outputs().find(|(known, _)| *known == name);
        let asked = match (found, name.contains("label")) {
            (Some((_, asked)), _) => asked,
            (None, true) => Output::Label,
            (None, false) => Output::Score,
        };
        let got = predict(model, &rows, asked)?;
        let wanted = &case["outputs"][name];
        if asked == Output::Label {
            same_labels(model, &got, wanted).with_context(|| format!("the output `{name}`"))?;
            continue;
        }
        let wanted: Vec<f64> = matrix(wanted)?.concat();
        if wanted.len() != got.values.len() {
            bail!("`{name}` has {} values; {} are expected", got.values.len(), wanted.len());
        }
        let far = |(got, want): &(&f64, &f64)| !is_near(**got, **want, atol + rtol * want.abs());
        if let Some((at, (got, want))) = got.values.iter().zip(&wanted).enumerate().find(|(_, pair)| far(pair)) {
            bail!("`{name}`, value {at}: {got} instead of {want}");
        }
    }
    Ok(())
}

fn same_labels(model: &Model, got: &Table, wanted: &Value) -> Result<()> {
    let wanted = wanted.as_array().context("no list of labels")?;
    for (row, (got, want)) in got.values.iter().zip(wanted).enumerate() {
        let want = want.as_array().and_then(|row| row.first()).unwrap_or(want);
        let want = want.as_str().map_or_else(|| want.to_string(), str::to_owned);
        let label = model.classes().get(*got as usize).cloned().unwrap_or_else(|| got.to_string());
        if label != want && label.parse::<f64>().ok().zip(want.parse::<f64>().ok()).is_none_or(|(a, b)| a != b) {
            bail!("row {row} is `{label}` instead of `{want}`");
        }
    }
    Ok(())
}

/// Rows of numbers; a list of numbers is rows of one, null is NaN.
fn matrix(value: &Value) -> Result<Vec<Vec<f64>>> {
    let number = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
    let row = |value: &Value| match value.as_array() {
        Some(values) => values.iter().map(number).collect::<Option<Vec<f64>>>(),
        None => number(value).map(|number| vec![number]),
    };
    let rows = value.as_array().context("no list of rows")?;
    rows.iter().map(|value| row(value).context("something that is no number")).collect()
}
