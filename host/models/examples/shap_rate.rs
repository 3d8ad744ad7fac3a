//! How fast rows are explained on one thread: one line of JSON, medians.
//!
//! `cargo run -p mainstay-models --example shap_rate FOLDER`, where `tests/bench/explanations.py` has written `model.json`,
//! `rows.f64` and `expected.f64` (little-endian, row by row), and `background.f64` for explanations against it.

#[path = "../tests/tree_json/mod.rs"]
mod tree_json;

use std::path::Path;
use std::time::Instant;

use mainstay_models::Rows;
use mainstay_models::explain::Explainer;
use serde_json::json;

const ROUNDS: usize = 7;
const BATCHES: [usize; 5] = [1, 4, 16, 256, 4096];

fn main() {
    let folder = std::env::args().nth(1).expect("a folder that tests/bench/explanations.py has written");
    let folder = Path::new(&folder);
    let text = std::fs::read_to_string(folder.join("model.json")).expect("model.json");
    let forest = tree_json::forest(&serde_json::from_str(&text).expect("model.json is JSON"));
    let (rows, expected) = (numbers(folder, "rows.f64"), numbers(folder, "expected.f64"));
    let background = folder.join("background.f64").exists().then(|| numbers(folder, "background.f64"));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    pool.install(|| {
        let features = forest.features as usize;
        let started = Instant::now();
        let explainer = match &background {
            None => Explainer::new(&forest),
            Some(background) => Explainer::against(&forest, &Rows::F64 { values: background, features }),
        };
        let explainer = explainer.expect("the forest can be explained");
        let prepare_ms = started.elapsed().as_secs_f64() * 1e3;
        let mut out = vec![0.0; rows.len() * forest.outputs as usize];
        let width = out.len() / (rows.len() / features);
        let us = BATCHES.map(|batch| micros_a_row(&explainer, &rows, features, batch, &mut out, width));
        explainer.explain(&Rows::F64 { values: &rows, features }, &mut out).expect("rows of the model");
        let differences = out.iter().zip(&expected).map(|(got, expect)| (got - expect).abs());
        println!(
            "{}",
            json!({
                "prepare_ms": prepare_ms,
                "table_mib": explainer.table_bytes() as f64 / f64::from(1 << 20),
                "tabled_trees": explainer.tabled_trees(),
                "us_a_row": BATCHES.iter().map(ToString::to_string).zip(us).collect::<std::collections::BTreeMap<_, _>>(),
                "greatest_difference": differences.fold(0.0, f64::max),
            })
        );
    });
}

/// Median of rounds that each explain about as many rows, in batches.
fn micros_a_row(
    explainer: &Explainer,
    rows: &[f64],
    features: usize,
    batch: usize,
    out: &mut [f64],
    width: usize,
) -> f64 {
    let count = (rows.len() / features).min(batch.max(64)) / batch * batch;
    if count == 0 {
        return f64::NAN;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            let outs = out[..count * width].chunks_mut(batch * width);
            for (rows, out) in rows[..count * features].chunks(batch * features).zip(outs) {
                explainer.explain(&Rows::F64 { values: rows, features }, out).expect("rows of the model");
            }
            started.elapsed().as_secs_f64() * 1e6 / count as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn numbers(folder: &Path, name: &str) -> Vec<f64> {
    let bytes = std::fs::read(folder.join(name)).expect("a file of tests/bench/explanations.py");
    bytes.chunks_exact(8).map(|eight| f64::from_le_bytes(eight.try_into().expect("eight bytes"))).collect()
}
