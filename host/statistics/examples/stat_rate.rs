//! How fast statistics are on this machine, on one thread and on two, best and median of several runs, and how far that is
//! from reading the values once. Nothing else should run beside it.
//!
//! `cargo run -p mainstay-statistics --example stat_rate [rows in millions] [--json]`; with `--json` one line per measurement
//! for tests/bench/distributions.py, which makes the same data.

use std::hint::black_box;
use std::time::Instant;

use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::*;
use rayon::prelude::*;

const RUNS: usize = 5;
const CHUNK: usize = 1 << 20;
const RESAMPLES: usize = 100;

/// SplitMix64's finalizer of a row number: data that any language makes at once, without a state.
fn unit(row: u64, column: u64) -> f64 {
    let mut z = (row + (column << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Nearly normal: the sum of four.
fn bell(row: u64, column: u64) -> f64 {
    (0..4).map(|part| unit(row, 4 * column + part)).sum::<f64>() - 2.0
}

fn column(rows: usize, of: impl Fn(u64) -> f64) -> Vec<f64> {
    (0..rows as u64).map(of).collect()
}

fn view(values: &[f64]) -> Numbers<'_> {
    Numbers::of_f64(&values.chunks(CHUNK).collect::<Vec<_>>())
}

struct Screen {
    is_json: bool,
}

impl Screen {
    /// Median and best milliseconds on one and two threads; `bytes` are those of the input.
    fn measure<T>(&self, what: &str, bytes: usize, run: impl Fn() -> T + Sync) {
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            let time = || {
                let started = Instant::now();
                pool.install(|| drop(black_box(run())));
                started.elapsed().as_secs_f64() * 1e3
            };
            let mut millis: Vec<f64> = (0..RUNS).map(|_| time()).collect();
            millis.sort_by(f64::total_cmp);
            let (median, best) = (millis[RUNS / 2], millis[0]);
            match self.is_json {
                true => {
                    println!(
                        r#"{{"what": "{what}", "threads": {threads}, "bytes": {bytes}, "median_ms": {median}, "best_ms": {best}}}"#
                    )
                }
                false => {
                    let rate = bytes as f64 / best / 1e6;
                    println!(
                        "{what:<28} {threads} threads: {median:9.2} ms, best {best:9.2} ms, input at {rate:6.2} GB/s"
                    );
                }
            }
        }
    }
}

fn main() {
    let is_json = std::env::args().any(|argument| argument == "--json");
    let millions = std::env::args().skip(1).find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(10.0);
    let rows = (millions * 1e6) as usize;
    let screen = Screen { is_json };
    if !is_json {
        println!("instructions: {}", instruction_set());
    }
    columns(&screen, rows);
    resamples(&screen, rows.min(1_000_000));
    resamples(&screen, rows.min(100_000));
    groups(&screen, rows.min(1_000_000));
}

fn columns(screen: &Screen, rows: usize) {
    let (first, second) = (column(rows, |row| bell(row, 0)), column(rows, |row| bell(row, 1) * 1.02 + 0.01));
    let labels = column(rows, |row| f64::from(u8::from(unit(row, 9) < 0.5 + first[row as usize] / 8.0)));
    let (a, b, y) = (view(&first), view(&second), view(&labels));
    let (refuse, bytes) = (Missing::Refuse, rows * 8);
    // Bits are folded, not numbers added: an addition waits for the one before it and would be measured instead.
    let fold = |chunk: &[f64]| chunk.iter().fold(0, |folded, value| folded ^ value.to_bits());
    screen.measure("read once", bytes, || first.par_chunks(CHUNK).map(fold).reduce(|| 0, |one, other| one ^ other));
    screen.measure("bounds", bytes, || bounds(&a, refuse));
    screen.measure("moments", bytes, || moments(&a, refuse));
    let deciles: Vec<f64> = (0..=10).map(|at| f64::from(at) / 10.0).collect();
    screen.measure("quantiles", bytes, || quantiles(&a, &deciles, refuse));
    let edges = breaks(&a, 10, Binning::Quantile, refuse).expect("it varies");
    screen.measure("histogram", bytes, || histogram(&a, &edges, Ends::Open, refuse));
    screen.measure("jeffreys", 2 * bytes, || jeffreys_binned(&a, &b, &BinnedOptions::default(), refuse));
    screen.measure("ks", 2 * bytes, || ks_two_sample(&a, &b, Method::Auto, Alternative::TwoSided, refuse));
    screen.measure("wasserstein", 2 * bytes, || wasserstein(&a, &b, refuse));
    screen.measure("auc", 2 * bytes, || roc_auc(&y, &a, None, refuse));
}

fn resamples(screen: &Screen, rows: usize) {
    let scores = column(rows, |row| bell(row, 0));
    let labels = column(rows, |row| f64::from(u8::from(unit(row, 9) < 0.5 + scores[row as usize] / 8.0)));
    let (y, s) = (view(&labels), view(&scores));
    let plan = Plan { resamples: RESAMPLES, level: 0.95, draws: Draws::Seed(1) };
    let run = || bootstrap(&Metric::area(&y, &s, Missing::Refuse)?, &plan);
    screen.measure(&format!("bootstrap auc {rows}"), rows * 16, run);
}

fn groups(screen: &Screen, rows: usize) {
    let labels = column(rows, |row| (unit(row, 9) * 2.0).floor());
    let guesses = column(rows, |row| (unit(row, 10) * 2.0).floor());
    let names: Vec<String> = (0..12).map(|at| format!("group {at:02}")).collect();
    let texts = Column::text((0..rows as u64).map(|row| Some(&names[(unit(row, 11) * 12.0) as usize][..])));
    let ages = Column::i64(&(0..rows as u64).map(|row| (unit(row, 12) * 8.0) as i64).collect::<Vec<_>>(), None);
    let (y, p) = (view(&labels), view(&guesses));
    let (texts, ages) = (texts.texts().expect("text"), ages.numbers().expect("numbers"));
    let (one, two) = ([Key::Texts(&texts)], [Key::Texts(&texts), Key::Numbers(&ages)]);
    screen.measure("group rates", rows * 20, || rates_by_group(&y, &p, &one, None, Missing::Refuse));
    screen.measure("group rates, crossed", rows * 28, || rates_by_group(&y, &p, &two, None, Missing::Refuse));
}
