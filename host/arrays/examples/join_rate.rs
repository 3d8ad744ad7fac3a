//! How long an as-of join takes: `join_rate FOLDER`, which holds columns as files of little-endian numbers.
//!
//! `rows.key`, `rows.time`, `history.key`, `history.time` (64-bit whole numbers) and `history.0` to `history.9` (64-bit
//! real ones), as tests/bench/joins.py writes them. Prints one line of JSON: milliseconds of the join and of bringing ten
//! columns beside the rows (medians, one thread), how many rows found one, and the sum of what was brought.

use std::path::Path;
use std::time::Instant;

use mainstay_arrays::Column;
use mainstay_arrays::join::{Rule, Side, as_of};

const RUNS: usize = 5;
const FEATURES: usize = 10;

fn main() {
    let folder = std::env::args().nth(1).expect("give the folder");
    let folder = Path::new(&folder);
    let whole =
        |name: &str| Column::i64(&eights(folder, name).into_iter().map(i64::from_le_bytes).collect::<Vec<_>>(), None);
    let real =
        |name: &str| Column::f64(&eights(folder, name).into_iter().map(f64::from_le_bytes).collect::<Vec<_>>(), None);
    let (row_key, row_time) = ([whole("rows.key")], whole("rows.time"));
    let (past_key, past_time) = ([whole("history.key")], whole("history.time"));
    let features: Vec<Column> = (0..FEATURES).map(|at| real(&format!("history.{at}"))).collect();
    let (mut joins, mut takes, mut found, mut sum) = (Vec::new(), Vec::new(), 0, 0.0);
    for _ in 0..RUNS {
        let started = Instant::now();
        let rows = Side { keys: &row_key, times: &row_time };
        let matches = as_of(&rows, &Side { keys: &past_key, times: &past_time }, None, &Rule::default()).expect("fits");
        joins.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        let taken: Vec<Column> = features.iter().map(|column| matches.take(column).expect("fits")).collect();
        takes.push(started.elapsed().as_secs_f64() * 1e3);
        found = matches.found();
        sum = taken.iter().map(total).sum();
    }
    let (join, take) = (median(&mut joins), median(&mut takes));
    println!(r#"{{"join_ms": {join}, "take_ms": {take}, "found": {found}, "sum": {sum}}}"#);
}

fn eights(folder: &Path, name: &str) -> Vec<[u8; 8]> {
    let bytes = std::fs::read(folder.join(name)).expect("the file");
    bytes.as_chunks::<8>().0.to_vec()
}

fn total(column: &Column) -> f64 {
    let mut sum = 0.0;
    column.numbers().expect("numbers").for_each(|value| sum += value.unwrap_or(0.0));
    sum
}

fn median(millis: &mut [f64]) -> f64 {
    millis.sort_by(f64::total_cmp);
    millis[millis.len() / 2]
}
