//! How fast one model predicts: `predict_rate MODEL ROWS [f32|f64]`.
//!
//! ROWS is a file of little-endian numbers of that type, row after row; without arguments a forest is made up. Prints one
//! line of JSON a measurement: batch, threads, nanoseconds a row (median of rounds). Threads are the caller's, as always.

use std::time::Instant;

use mainstay_models::import::import;
use mainstay_models::{Model, Output, Rows};

/// Time for one measurement.
const SECONDS: f64 = 0.7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, bytes, is_double) = match arguments.as_slice() {
        [model, rows, rest @ ..] => {
            let is_double = rest.first().is_some_and(|kind| kind == "f64");
            (std::fs::read(model).expect("the model"), std::fs::read(rows).expect("the rows"), is_double)
        }
        _ => (made_up_model(), made_up_rows(), false),
    };
    let model = import(&model).expect("a model");
    println!("{{\"instruction_sets\":{:?}}}", mainstay_models::layout::instruction_sets());
    if is_double {
        let values: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect();
        measure_all(&model, &Rows::F64 { values: &values, features: model.features().len() });
    } else {
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
        measure_all(&model, &Rows::F32 { values: &values, features: model.features().len() });
    }
}

fn measure_all(model: &Model, rows: &Rows<'_>) {
    let count = rows.count().expect("whole rows");
    for threads in [1, 2] {
        for batch in [1, 64, 4096] {
            let nanoseconds = median_ns(model, rows, batch.min(count), threads);
            println!("{{\"batch\":{batch},\"threads\":{threads},\"ns_per_row\":{nanoseconds:.1}}}");
        }
    }
}

/// Median over batches of the time a row takes.
fn median_ns(model: &Model, rows: &Rows<'_>, batch: usize, threads: usize) -> f64 {
    let count = rows.count().expect("whole rows");
    let width = model.width(Output::Score).expect("scores");
    let mut out = vec![0.0; batch * width];
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed().as_secs_f64() < SECONDS || times.len() < 5 {
        let from = times.len() * batch % (count - batch + 1);
        let started = Instant::now();
        predict(model, rows, from, threads, width, &mut out);
        times.push(started.elapsed().as_nanos() as f64 / batch as f64);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn predict(model: &Model, rows: &Rows<'_>, from: usize, threads: usize, width: usize, out: &mut [f64]) {
    let share = (out.len() / width).div_ceil(threads);
    let part = |at: usize, out: &mut [f64]| {
        let first = from + at * share;
        model.predict_range(rows, first..first + out.len() / width, Output::Score, out).expect("a prediction");
    };
    if threads == 1 || out.len() / width < 2 * threads {
        return part(0, out);
    }
    rayon::scope(|scope| {
        for (at, out) in out.chunks_mut(share * width).enumerate() {
            scope.spawn(move |_| part(at, out));
        }
    });
}

/// A LightGBM file of 300 complete trees of depth 5 over 30 features.
fn made_up_model() -> Vec<u8> {
    let mut next = random();
    let mut text =
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=29\nobjective=regression\n\n"
            .to_owned();
    for tree in 0..300 {
        let list = |count: usize, value: &mut dyn FnMut(usize) -> f64| {
            (0..count).map(|at| value(at).to_string()).collect::<Vec<_>>().join(" ")
        };
        let child = |at: usize, step: usize| {
            if at < 15 { (2 * at + step) as f64 } else { -((2 * at + step - 31) as f64) - 1.0 }
        };
        text += &format!("Tree={tree}\nnum_leaves=32\nnum_cat=0\n");
        text += &format!("split_feature={}\n", list(31, &mut |_| (next() % 30) as f64));
        text += &format!("threshold={}\n", list(31, &mut |_| (next() % 255) as f64 / 255.0));
        text += &format!("decision_type={}\n", list(31, &mut |_| 2.0));
        text += &format!("left_child={}\n", list(31, &mut |at| child(at, 1)));
        text += &format!("right_child={}\n", list(31, &mut |at| child(at, 2)));
        text += &format!("leaf_value={}\n", list(32, &mut |_| (next() % 1000) as f64 / 1e4));
        text += "shrinkage=1\n\n\n";
    }
    (text + "end of trees\n").into_bytes()
}

fn made_up_rows() -> Vec<u8> {
    let mut next = random();
    (0..4096 * 30 * 2).flat_map(|_| ((next() % 10_000) as f32 / 1e4).to_le_bytes()).collect()
}

/// A generator of numbers that needs no crate: Marsaglia's xorshift.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}
