//! Hostile bytes for every importer, guided by coverage.
//!
//! Owns the build of `tests/fuzz` (flags that count coverage, a target folder of its own) and its runs: a few seconds a
//! target in the tests, as long as one likes by hand. Seeds are the fixtures of the importers' tests; what is found grows a
//! corpus in the target folder. Bounded by: time and memory of each run. On failure: the target, and the file that breaks it.

use crate::place::Place;
use crate::{cargo, say, wasm};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every target, and how the names of its seeds begin and end.
const TARGETS: [(&str, &str, &str); 5] = [
    ("xgboost_json", "", ".json"),
    ("xgboost_ubjson", "", ".ubj"),
    ("lightgbm", "", ".txt"),
    ("onnx", "", ".onnx"),
    ("graph", "graph", ".json"),
];

/// Counts edges and compares, as `cargo fuzz` does; no sanitizer, as there is no unsafe code in the importers.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The most memory that one input may take, in MiB.
const MEMORY_MIB: u32 = 512;
/// The longest that one input may take, in seconds.
const INPUT_SECONDS: u32 = 5;

/// Fuzz each target for so long; the names of those that were broken.
pub fn run(place: &Place, seconds: u32, only: Option<&str>) -> Result<Vec<&'static str>> {
    let folder = build(place)?;
    let mut broken = Vec::new();
    for (target, prefix, suffix) in TARGETS.into_iter().filter(|(target, ..)| only.is_none_or(|only| only == *target)) {
        say::step(&format!("Fuzzing {target} for {seconds} s"));
        if let Err(error) = one(place, &folder, (target, prefix, suffix), seconds) {
            eprintln!("FAILED {target}: {error:#}");
            broken.push(target);
        }
    }
    Ok(broken)
}

fn build(place: &Place) -> Result<PathBuf> {
    wasm::need_debian_program("g++", "g++")?;
    say::step("Building the fuzz targets");
    let (target, machine) = (place.target.join("fuzz"), machine()?);
    let mut command = cargo::command(place);
    command.current_dir(place.root.join("tests/fuzz")).args(["build", "--release", "--quiet"]);
    // With the target named, flags do not reach build scripts, which have nobody to count for.
    command.args(["--target", &machine]).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", FLAGS);
    say::run(&mut command)?;
    Ok(target.join(machine).join("release"))
}

/// This machine's name among compiler targets.
fn machine() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("asking rustc for this machine's target")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("`rustc -vV` does not name its host")?.to_owned())
}

fn one(place: &Place, folder: &Path, (target, prefix, suffix): (&str, &str, &str), seconds: u32) -> Result<()> {
    let work = place.target.join("fuzz/work").join(target);
    let (corpus, seeds) = (work.join("corpus"), work.join("seeds"));
    fs::create_dir_all(&corpus)?;
    copy_seeds(&place.root.join("host/models/tests/data"), &seeds, prefix, suffix)?;
    let mut command = Command::new(folder.join(target));
    command.arg(&corpus).arg(&seeds).current_dir(&work).args([
        &format!("-max_total_time={seconds}"),
        &format!("-rss_limit_mb={MEMORY_MIB}"),
        &format!("-timeout={INPUT_SECONDS}"),
        "-max_len=65536",
        "-print_final_stats=1",
        "-verbosity=0",
    ]);
    let output = command.output().with_context(|| format!("starting {}", say::shown(&command)))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("an input breaks it; it lies in {}\n{}", work.display(), tail.join("\n"));
    }
    let runs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    say::done(&format!("{} inputs", runs.map_or("no", str::trim)));
    Ok(())
}

fn copy_seeds(from: &Path, to: &Path, prefix: &str, suffix: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("an entry has a name")?.to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(suffix) && !name.ends_with(".expect.json") {
            fs::copy(&path, to.join(&name))?;
        }
    }
    Ok(())
}
