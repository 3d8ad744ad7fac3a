//! Cases of explanations in a folder of numeric cases: `op` is `tree_shap`.
//!
//! Owns the reading of their models (trees as JSON: left when `x <= threshold`, `left` of -1 is a leaf; or XGBoost's own
//! JSON), of their rows, and the comparison. Separate from the host, which knows nothing of cases. Bounded by the files.
//! On failure: the first value that differs, with its place.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mainstay_models::Rows;
use mainstay_models::explain::Explainer;
use mainstay_models::forest::{Forest, Join, LeafOutput, Missing, Node, Split, Test, Tree};
use mainstay_models::import::import;
use serde_json::Value;

/// Run one case; paths in it are relative to `folder`.
pub fn check(case: &Value, folder: &Path) -> Result<()> {
    let inputs = &case["inputs"];
    let forest = match inputs["model"]["xgboost_json"].as_str() {
        Some(file) => {
            let bytes = fs::read(folder.join(file)).with_context(|| format!("reading `{file}`"))?;
            let model = import(&bytes)?;
            model.forest().context("the model is not made of trees")?.clone()
        }
        None => {
            let file = inputs["model"]["json"].as_str().context("`inputs.model` names no file")?;
            let bytes = fs::read(folder.join(file)).with_context(|| format!("reading `{file}`"))?;
            let width = width(&inputs["x"], folder)?;
            forest(&serde_json::from_slice(&bytes)?, width).with_context(|| format!("reading `{file}`"))?
        }
    };
    let (features, outputs) = (forest.features as usize, forest.outputs as usize);
    let rows = matrix(&inputs["x"], folder, features)?;
    let explainer = match case["params"]["mode"].as_str() {
        Some("path_dependent") => Explainer::new(&forest)?,
        Some("interventional") => {
            let background = matrix(&inputs["background"], folder, features)?;
            Explainer::against(&forest, &Rows::F64 { values: &background, features })?
        }
        other => anyhow::bail!("the mode is {other:?}; `path_dependent` and `interventional` are known"),
    };
    let mut phi = vec![0.0; rows.len() * outputs];
    explainer.explain(&Rows::F64 { values: &rows, features }, &mut phi)?;
    let expected = &case["expected"];
    compare("expected_value", explainer.expected_values(), expected, &case["tolerance"])?;
    compare("phi", &phi, expected, &case["tolerance"])?;
    let sums = phi.chunks(features).enumerate();
    let sums: Vec<f64> =
        sums.map(|(at, own)| own.iter().sum::<f64>() + explainer.expected_values()[at % outputs]).collect();
    compare("output", &sums, expected, &case["tolerance"])
}

/// The forest of our JSON, which does not say how many features there are. scikit-learn, which these files come from,
/// compares in single precision.
fn forest(json: &Value, features: usize) -> Result<Forest> {
    let trees = json["trees"].as_array().context("it has no `trees`")?;
    let trees = trees.iter().map(tree).collect::<Result<Vec<Tree>>>()?;
    let base = flat(&json["base_offset"])?;
    let forest = Forest {
        trees,
        features: features as u32,
        outputs: base.len() as u32,
        base,
        join: Join::Sum,
        compares_f32: true,
        adds_f32: false,
    };
    Ok(Forest::new(forest)?)
}

/// One tree. Its children stand behind their parents, as they do in scikit-learn.
fn tree(json: &Value) -> Result<Tree> {
    let column = |name: &str| json[name].as_array().with_context(|| format!("a tree has no `{name}`"));
    let number = |name: &str, at: usize| -> Result<f64> {
        json[name][at].as_f64().with_context(|| format!("`{name}` of node {at} is no number"))
    };
    let mut tree = Tree::default();
    for (at, left) in column("left")?.iter().enumerate() {
        let cover = number("cover", at)?;
        if left.as_i64() == Some(-1) {
            let first = tree.leaf_outputs.len() as u32;
            let values = flat(&json["value"][at])?;
            let added =
                values.iter().enumerate().map(|(output, value)| LeafOutput { output: output as u32, value: *value });
            tree.leaf_outputs.extend(added);
            tree.nodes.push(Node::Leaf { first, count: values.len() as u32, cover });
            continue;
        }
        tree.nodes.push(Node::Split(Split {
            feature: number("feature", at)? as u32,
            test: Test::AtMost(exact(number("threshold", at)?)),
            missing: Missing::Nan,
            missing_is_yes: false,
            yes: number("left", at)? as u32,
            no: number("right", at)? as u32,
            cover,
        }));
    }
    Ok(tree)
}

/// A threshold as it was written. The reader of JSON may be a unit in the last place off; that matters where a threshold is
/// the very value of a row, and those are single precision.
fn exact(threshold: f64) -> f64 {
    let single = f64::from(threshold as f32);
    if (threshold - single).abs() <= 4.0 * f64::EPSILON * threshold.abs() { single } else { threshold }
}

/// Numbers of a JSON value of any depth.
fn flat(json: &Value) -> Result<Vec<f64>> {
    match json {
        Value::Array(items) => Ok(items.iter().map(flat).collect::<Result<Vec<_>>>()?.concat()),
        Value::String(text) => Ok(vec![text.parse().with_context(|| format!("`{text}` is no number"))?]),
        other => Ok(vec![other.as_f64().with_context(|| format!("{other} is no number"))?]),
    }
}

/// How many columns an input has.
fn width(input: &Value, folder: &Path) -> Result<usize> {
    if let Some(row) = input["inline"][0].as_array() {
        return Ok(row.len());
    }
    let file = input["csv"].as_str().context("an input names no file")?;
    let text = fs::read_to_string(folder.join(file)).with_context(|| format!("reading `{file}`"))?;
    Ok(text.lines().next().map_or(0, |header| header.split(',').count()))
}

/// Rows of an input, one after the other: inline, or a file with a header line where an empty cell is missing.
fn matrix(input: &Value, folder: &Path, features: usize) -> Result<Vec<f64>> {
    if !input["inline"].is_null() {
        return flat(&input["inline"]);
    }
    let file = input["csv"].as_str().context("an input names no file")?;
    let text = fs::read_to_string(folder.join(file)).with_context(|| format!("reading `{file}`"))?;
    let mut values = Vec::new();
    for (line, text) in text.lines().enumerate().skip(1).filter(|(_, text)| !text.is_empty()) {
        let before = values.len();
        for cell in text.split(',') {
            let cell = cell.trim();
            let value = if cell.is_empty() { Ok(f64::NAN) } else { cell.parse() };
            values.push(value.with_context(|| format!("line {} of `{file}`: `{cell}` is no number", line + 1))?);
        }
        let found = values.len() - before;
        ensure!(
            found == features,
            "line {} of `{file}` has {found} cells; the model has {features} features",
            line + 1
        );
    }
    Ok(values)
}

/// `|got - want| <= max(abs, rel * |want|)`, element by element.
fn compare(name: &str, got: &[f64], expected: &Value, tolerance: &Value) -> Result<()> {
    if expected[name].is_null() {
        return Ok(());
    }
    let want = flat(&expected[name])?;
    ensure!(got.len() == want.len(), "`{name}` has {} values, not {}", got.len(), want.len());
    let tolerance = if tolerance[name].is_object() { &tolerance[name] } else { tolerance };
    let (abs, rel) = (tolerance["abs"].as_f64().unwrap_or(0.0), tolerance["rel"].as_f64().unwrap_or(0.0));
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        ensure!((got - want).abs() <= abs.max(rel * want.abs()), "`{name}` at {at} is {got}, not {want}");
    }
    Ok(())
}
