//! Statistics against other libraries, against plain loops, at the edges, and on several threads. One binary: it links once.

mod edges;
mod expected;
mod plain;
mod threads;

/// The same numbers as `sample` of tests/data/make.py.
fn sample(count: usize, seed: u64, levels: f64, scale: f64, shift: f64) -> Vec<f64> {
    let mut state = seed;
    let step = |_| {
        state = (1_664_525 * state + 1_013_904_223) % (1 << 32);
        let unit = state as f64 / (1u64 << 32) as f64;
        (if levels > 0.0 { (unit * levels).floor() } else { unit }) * scale + shift
    };
    (0..count).map(step).collect()
}

fn uniform(count: usize, seed: u64) -> Vec<f64> {
    sample(count, seed, 0.0, 1.0, 0.0)
}
