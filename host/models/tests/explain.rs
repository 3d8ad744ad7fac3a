//! Explanations against those of `shap`, `xgboost` and `lightgbm`, which `data_shap/generate.py` wrote down.

mod tree_json;

use mainstay_models::Rows;
use mainstay_models::explain::Explainer;
use serde_json::Value;
use tree_json::numbers;

/// Explain the rows of a case; whether all of its trees have tables.
#[track_caller]
fn check(name: &str, json: &str) -> bool {
    let case: Value = serde_json::from_str(json).expect("a case is JSON");
    let (forest, rows) = (tree_json::forest(&case["forest"]), numbers(&case["rows"]));
    let features = forest.features as usize;
    let within = case["within"].as_f64().expect("within");
    let explainer = match case["background"].as_array() {
        Some(_) => {
            let values = numbers(&case["background"]);
            Explainer::against(&forest, &Rows::F64 { values: &values, features })
        }
        None => Explainer::new(&forest),
    };
    let explainer = explainer.expect("a case can be explained");
    let close = |what: &str, got: &[f64], expect: &[f64], within: f64| {
        assert_eq!(got.len(), expect.len(), "{name}: {what}");
        for (at, (got, expect)) in got.iter().zip(expect).enumerate() {
            assert!((got - expect).abs() <= within, "{name}: {what} {at} is {got}, not {expect}");
        }
    };
    let mut out = vec![f64::NAN; rows.len() * forest.outputs as usize];
    explainer.explain(&Rows::F64 { values: &rows, features }, &mut out).expect("rows of the model");
    close("explanation", &out, &numbers(&case["explanations"]), within);
    close("expected value", explainer.expected_values(), &numbers(&case["expected"]), within);
    for (row, out) in rows.chunks(features).zip(out.chunks(features * forest.outputs as usize)) {
        let mut margin = vec![0.0; forest.outputs as usize];
        forest.raw_margin(row, &mut margin);
        let sums = out.chunks(features).zip(explainer.expected_values());
        let sums: Vec<f64> = sums.map(|(own, expected)| own.iter().sum::<f64>() + expected).collect();
        close("sum", &sums, &margin, 1e-9);
    }
    explainer.tabled_trees() == forest.trees.len()
}

macro_rules! cases {
    ($($name:ident: $has_tables:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            let json = include_str!(concat!("data_shap/", stringify!($name), ".json"));
            assert_eq!(check(stringify!($name), json), $has_tables, "whether all trees have tables");
        })*
    };
}

cases! {
    lightgbm_categories: true,
    lightgbm_missing: true,
    sklearn_background: true,
    sklearn_boosted: true,
    sklearn_classes: true,
    sklearn_deep: false,
    xgboost_categories: true,
    xgboost_classes: true,
    xgboost_missing: true,
}
