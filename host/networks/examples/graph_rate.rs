//! How long a batch of a graph takes, in this process and in a child: `graph_rate FILE ROWS [LIBRARY]`.
//!
//! Prints microseconds, the median of as many batches as fit two seconds. The rows are zeros; what a graph costs does not
//! depend on its values, but for graphs that loop.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay_models::{Model, Output, Rows};
use mainstay_networks::{CHILD_COMMAND, Limits, Options, RunIn, Runtime, child_main, import};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    if first.as_ref().is_some_and(|first| first == CHILD_COMMAND) {
        return child_main(arguments);
    }
    let (Some(file), Some(rows)) = (first, arguments.next().and_then(|rows| rows.to_str()?.parse().ok())) else {
        eprintln!("give a file and a number of rows");
        return ExitCode::FAILURE;
    };
    let runtime = arguments.next().map_or(Runtime::Rten, |library| Runtime::OnnxRuntime(library.into()));
    let bytes = std::fs::read(file).expect("the file can be read");
    let child = Options::own_binary(runtime.clone(), Limits::default()).expect("this program is known");
    for (place, options) in [("here", Options { runtime, run_in: RunIn::Here }), ("child", child)] {
        let model = import(&bytes, &options).expect("a graph");
        println!("{place} {:.1}", median_us(&model, rows));
    }
    ExitCode::SUCCESS
}

fn median_us(model: &Model, rows: usize) -> f64 {
    let features = model.features().len();
    let values = vec![0.0_f32; rows * features];
    let mut out = vec![0.0; rows * model.width(Output::Score).expect("a score")];
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let before = Instant::now();
        model.predict(&Rows::F32 { values: &values, features }, Output::Score, &mut out).expect("answers");
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
