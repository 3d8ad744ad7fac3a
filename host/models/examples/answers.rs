//! Import every model of a folder and hold its answers against those that stand beside it: for finding out which models of
//! a library are read.
//!
//! `cargo run --release --example answers -- FOLDER`. The folder has `NAME.onnx` (or `.json`, `.ubj`, `.txt`) and
//! `NAME.expect.json` with `rows`, `tolerance` and by kind (`score`, `label`, `raw`, or any other name for further scores)
//! the expected answers, as `tests/data/make.py` writes them. Prints a line a model: `equal` or `differs` by kind, or why
//! it is refused.

use std::path::Path;

use mainstay_models::import::{import, is_unsupported_operation};
use mainstay_models::{Model, Output, Rows};
use serde_json::Value;

fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("a readable folder")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".expect.json")?.to_owned()))
        .collect();
    names.sort();
    for name in names {
        println!("{name:<40} {}", verdict(Path::new(&folder), &name));
    }
}

fn verdict(folder: &Path, name: &str) -> String {
    let ends = ["onnx", "json", "ubj", "txt"];
    let bytes = ends.iter().find_map(|end| std::fs::read(folder.join(format!("{name}.{end}"))).ok());
    let expect = std::fs::read(folder.join(format!("{name}.expect.json"))).expect("expected answers");
    let expect: Value = serde_json::from_slice(&expect).expect("expected answers are JSON");
    let model = match import(&bytes.unwrap_or_default()) {
        Ok(model) => model,
        Err(error) if is_unsupported_operation(&error) => return format!("not ours: {error}"),
        Err(error) => return format!("REFUSED: {error}"),
    };
    let kinds = expect.as_object().expect("an object").iter();
    let kinds = kinds.filter(|(kind, answers)| answers.is_array() && !["rows", "outs"].contains(&kind.as_str()));
    kinds.map(|(kind, answers)| format!("{kind} {}; ", compare(&model, &expect, kind, answers))).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value.as_array() {
        Some(values) => values.iter().flat_map(numbers).collect(),
        None => vec![value.as_f64().unwrap_or(f64::NAN)],
    }
}

fn compare(model: &Model, expect: &Value, kind: &str, answers: &Value) -> String {
    let output = match kind {
        "label" => Output::Label,
        "raw" => Output::Raw,
        _ => Output::Score,
    };
    let (rows, want) = (numbers(&expect["rows"]), numbers(answers));
    let width = match model.width(output) {
        Ok(width) => width,
        Err(error) => return format!("REFUSED: {error}"),
    };
    let features = model.features().len();
    let mut got = vec![0.0; rows.len() / features * width];
    if let Err(error) = model.predict(&Rows::F64 { values: &rows, features }, output, &mut got) {
        return format!("REFUSED: {error}");
    }
    if got.len() != want.len() {
        return format!("has {width} values a row, not {}", want.len() * width / got.len());
    }
    let tolerance = expect["tolerance"].as_f64().expect("a tolerance");
    let is_far = |(got, want): &(f64, f64)| {
        !(got == want || want.is_nan() && !got.is_finite() || (got - want).abs() <= tolerance * want.abs().max(1.0))
    };
    let far: Vec<(usize, (f64, f64))> =
        got.into_iter().zip(want).enumerate().filter(|(_, pair)| is_far(pair)).collect();
    match far.first() {
        None => "equal".to_owned(),
        Some((at, (got, want))) => {
            format!(
                "DIFFERS in {} places: row {}, value {}: {got} instead of {want}",
                far.len(),
                at / width,
                at % width
            )
        }
    }
}
