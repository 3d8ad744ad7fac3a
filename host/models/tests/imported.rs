//! Every model of `tests/data` is imported and answers as its own library did.
//!
//! One test over all files, so that a new model is a new file: `NAME.expect.json` beside `NAME.json`, `.ubj`, `.txt` or
//! `.onnx`. See `data/README.md`.

use std::path::{Path, PathBuf};

use mainstay_models::explain::Explainer;
use mainstay_models::import::{import, is_unsupported_operation};
use mainstay_models::{Model, Output, Rows};
use serde_json::Value;

/// How far an exported model may be from the one in scikit-learn, which computes in double precision.
const SKLEARN_NEAR: f64 = 1e-5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Names of all models that have expected answers, and where their files are.
fn models() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.filter_map(|name| Some(name.to_str()?.strip_suffix(".expect.json")?.to_owned()));
    let file = |name: &str| {
        let mut files = ["json", "ubj", "txt", "onnx"].iter().map(|end| folder().join(format!("{name}.{end}")));
        files.find(|path| path.is_file()).unwrap_or_else(|| panic!("`{name}` has no model file"))
    };
    let mut models: Vec<(String, PathBuf)> = names.map(|name| (name.clone(), file(&name))).collect();
    models.sort();
    models
}

fn matrix(value: &Value) -> Vec<Vec<f64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|cell| cell.as_f64().unwrap_or(f64::NAN)).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

/// The first difference between a model's answers and those expected, for rows given one by one and together, as `f32` and
/// as `f64` where that is the same.
fn difference(model: &Model, expect: &Value, kind: &str, output: Output) -> Option<String> {
    let want = matrix(&expect[kind]).concat();
    let tolerance = match kind {
        "leaf" => 0.0,
        "sklearn" => SKLEARN_NEAR,
        _ => expect["tolerance"].as_f64().unwrap(),
    };
    let rows = matrix(&expect["rows"]);
    let (features, values) = (rows[0].len(), rows.concat());
    let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let width = match model.width(output) {
        Ok(width) => width,
        Err(error) => return Some(error.to_string()),
    };
    if rows.len() * width != want.len() {
        return Some(format!("{width} values a row; {} for {} rows are expected", want.len(), rows.len()));
    }
    let mut out = vec![0.0; want.len()];
    let all = [Rows::F64 { values: &values, features }, Rows::F32 { values: &narrow, features }];
    let is_single = values.iter().zip(&narrow).all(|(value, narrow)| value.is_nan() || *value == f64::from(*narrow));
    for step in [1, rows.len()] {
        // Rows that need double precision have no other form.
        for rows in &all[..if is_single { 2 } else { 1 }] {
            for (range, out) in (0..want.len() / width).step_by(step).zip(out.chunks_mut(step * width)) {
                if let Err(error) = model.predict_range(rows, range..range + out.len() / width, output, out) {
                    return Some(error.to_string());
                }
            }
            let is_far = |(got, want): &(&f64, &f64)| {
                !(got == want
                    || !got.is_finite() && want.is_nan()
                    || (*got - *want).abs() <= tolerance * want.abs().max(1.0))
            };
            if let Some((at, (got, want))) = out.iter().zip(&want).enumerate().find(|(_, pair)| is_far(pair)) {
                return Some(format!("row {}, value {}: {got} instead of {want}", at / width, at % width));
            }
        }
    }
    None
}

#[test]
fn every_model_answers_as_its_library() {
    let models = models();
    assert!(models.len() > 90, "{} models are there", models.len());
    let mut failures = Vec::new();
    for (name, path) in models {
        let expect = std::fs::read(folder().join(format!("{name}.expect.json"))).unwrap();
        let expect: Value = serde_json::from_slice(&expect).unwrap();
        let model = match import(&std::fs::read(&path).unwrap()) {
            Ok(model) => model,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let kinds = [
            ("raw", Output::Raw),
            ("score", Output::Score),
            ("sklearn", Output::Score),
            ("leaf", Output::Leaf),
            ("label", Output::Label),
        ];
        for (kind, output) in kinds.iter().filter(|(kind, _)| !expect[*kind].is_null()) {
            failures.extend(difference(&model, &expect, kind, *output).map(|says| format!("{name}, {kind}: {says}")));
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn explanations_of_forests_are_those_of_their_library() {
    for name in ["lgb_forest", "lgb_forest_classes"] {
        let expect = std::fs::read(folder().join(format!("{name}.expect.json"))).unwrap();
        let expect: Value = serde_json::from_slice(&expect).unwrap();
        let model = import(&std::fs::read(folder().join(format!("{name}.txt"))).unwrap()).unwrap();
        let (rows, want) = (matrix(&expect["rows"]).concat(), matrix(&expect["contributions"]).concat());
        let (features, outputs) = (model.features().len(), model.width(Output::Raw).unwrap());
        let explainer = Explainer::new(model.forest().unwrap()).unwrap();
        let mut got = vec![0.0; rows.len() * outputs];
        explainer.explain(&Rows::F64 { values: &rows, features }, &mut got).unwrap();
        // The library puts each output's expected value behind its features.
        let with_expected = got.chunks(features).zip(explainer.expected_values().iter().cycle());
        let got: Vec<f64> = with_expected.flat_map(|(own, expected)| own.iter().chain([expected])).copied().collect();
        assert_eq!(got.len(), want.len(), "{name}");
        let far = got.iter().zip(&want).position(|(got, want)| (got - want).abs() > 1e-9);
        assert!(far.is_none(), "{name}: place {far:?}");
        let raw = matrix(&expect["raw"]).concat();
        let sums = got.chunks(features + 1).map(|own| own.iter().sum::<f64>());
        sums.zip(raw).for_each(|(sum, raw)| assert!((sum - raw).abs() < 1e-9, "{name}: {sum} instead of {raw}"));
    }
}

#[test]
fn an_operation_that_is_not_ours_is_told_from_a_broken_file() {
    let bytes = std::fs::read(folder().join("unsupported.onnx")).unwrap();
    let error = import(&bytes).unwrap_err();
    assert!(is_unsupported_operation(&error), "{error}");
    assert!(error.message().contains("the operation `Scan` of node `Sc_Scan`"), "{error}");
    let error = import(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(!is_unsupported_operation(&error), "{error}");
}
