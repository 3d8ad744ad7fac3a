//! Measurements: what each room says of itself, and the house beside its peers.
//!
//! Owns the order, and the Python environment that each comparison needs; what is measured is in the examples of the rooms
//! and in `tests/bench/`. Comparisons take turns with their peers in one run, so their ratios hold on any machine; nothing
//! else should run meanwhile all the same. On failure: the measurement that failed, and its output.

use crate::place::Place;
use crate::python::{self, Environment};
use crate::{build, cargo, say, wasm};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One measurement or family of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Log, store, index, plugin boundary and batcher, by themselves.
    Rooms,
    /// Statistics beside numpy, scipy, scikit-learn and fairlearn.
    Statistics,
    /// Predictions beside lleaves, xgboost and onnxruntime.
    Models,
    /// Explanations beside shap and xgboost.
    Explanations,
    /// Other ONNX graphs beside onnxruntime.
    Networks,
    /// As-of joins beside polars.
    Joins,
    /// Tracking beside the upstream server.
    Tracking,
}

const ALL: [Part; 7] =
    [Part::Rooms, Part::Statistics, Part::Models, Part::Explanations, Part::Networks, Part::Joins, Part::Tracking];

/// What each room measures about itself, the peer beside it where there is one.
const ROOMS: [&str; 5] = ["boundary", "append_rate", "commit_rate", "select_rate", "batch_rate"];

/// A script of `tests/bench/`, the example that is our side, and the option that takes it.
const COMPARISONS: [(Part, &str, &str, &str); 5] = [
    (Part::Statistics, "distributions.py", "stat_rate", "--example"),
    (Part::Models, "models.py", "predict_rate", "--binary"),
    (Part::Explanations, "explanations.py", "shap_rate", "--ours"),
    (Part::Networks, "networks.py", "graph_rate", "--ours"),
    (Part::Joins, "joins.py", "join_rate", "--ours"),
];

/// How to measure.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// Build with the release profile first (slow the first time), and measure that.
    #[arg(long)]
    release: bool,
    /// Only this.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Put the tables into docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Passed on to tests/bench/tracking.py, or to the script of `--only`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Measure.
pub fn run(place: &Place, allow_rustup: bool, args: &BenchArgs) -> Result<()> {
    let only = args.only.or((!args.arguments.is_empty()).then_some(Part::Tracking));
    for part in ALL.into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        match part {
            Part::Rooms => ROOMS.iter().try_for_each(|name| {
                say::step(&format!("Measuring: {name}"));
                say::run(Command::new(example(place, args, name)?).current_dir(&place.root))
            })?,
            Part::Tracking => {
                wasm::need_debian_program("wrk", "wrk")?;
                let binary = build(place, allow_rustup, args.release)?;
                let python = python::environment(place, "tests/conformance/requirements.txt")?;
                script(place, &python, "tracking.py", "--mainstay", &binary, args)?;
            }
            _ => {
                let python = python::environment(place, "tests/bench/requirements.txt")?;
                for (_, name, ours, option) in COMPARISONS.iter().filter(|(of, ..)| *of == part) {
                    script(place, &python, name, option, &example(place, args, ours)?, args)?;
                }
            }
        }
    }
    Ok(())
}

/// Build an example; where it is.
fn example(place: &Place, args: &BenchArgs, name: &str) -> Result<PathBuf> {
    let mut command = cargo::command(place);
    // The whole workspace is selected, so that features, and with them built dependencies, are those of the tests.
    command.args(["build", "--workspace", "--quiet", "--example", name]);
    if args.release {
        command.arg("--release");
    }
    say::run(&mut command)?;
    Ok(place.target.join(if args.release { "release" } else { "debug" }).join("examples").join(name))
}

fn script(place: &Place, python: &Environment, name: &str, option: &str, ours: &Path, args: &BenchArgs) -> Result<()> {
    say::step(&format!("Measuring beside the peers: tests/bench/{name}"));
    let mut command = Command::new(python.program());
    command.arg(place.root.join("tests/bench").join(name)).arg(option).arg(ours).args(&args.arguments);
    if args.write {
        command.arg("--write");
    }
    say::run(command.current_dir(&place.root))
}
