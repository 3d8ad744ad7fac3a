//! Everything CI runs, in stages, with one count at the end.
//!
//! Owns the stages and the counting: each tool's own summary is read from its output, which passes through unchanged. A
//! stage that cannot be built counts as one failure. All stages run, whatever failed before, so that one run tells all;
//! only what needs a binary that does not build is left out, and counts as failed.

use crate::place::Place;
use crate::{cargo, fuzz, plugins, python, say};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Parts of the test that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Format, lints and tests of the host's workspace.
    Rust,
    /// Build, lints and native tests of the plugins.
    Plugins,
    /// Hostile bytes for every importer, for a few seconds.
    Fuzz,
    /// The real client against the real binary.
    Conformance,
}

/// How long each fuzz target runs in the tests.
const FUZZ_SECONDS: u32 = 5;

#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Run the stages; whether all passed.
pub fn run(place: &Place, allow_rustup: bool, only: Option<Stage>) -> Result<bool> {
    let started = Instant::now();
    let runs = |stage| only.is_none_or(|only| only == stage);
    let mut count = Count::default();
    // The host's tests run packed plugins too.
    let built = count.check("plugins build", plugins::build(place, allow_rustup).map(drop));
    if runs(Stage::Rust) {
        rust(place, &mut count);
    }
    if runs(Stage::Plugins) {
        native_plugins(place, &mut count);
    }
    if runs(Stage::Fuzz) {
        count.check("fuzz", fuzz::run(place, FUZZ_SECONDS, None).and_then(unbroken));
    }
    if runs(Stage::Conformance) {
        let outcome =
            if built { conformance(place, &mut count) } else { Err(anyhow::anyhow!("the plugins do not build")) };
        if outcome.is_err() {
            count.check("conformance", outcome);
        }
    }
    say::step(&format!("Tested in {}", say::seconds(started.elapsed())));
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(count.failed == 0)
}

fn unbroken(broken: Vec<&str>) -> Result<()> {
    match broken[..] {
        [] => Ok(()),
        _ => Err(anyhow::anyhow!("broken: {}", broken.join(", "))),
    }
}

impl Count {
    /// Count one check that passes or fails as a whole.
    fn check(&mut self, name: &str, outcome: Result<()>) -> bool {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                eprintln!("FAILED {name}: {error:#}");
                return false;
            }
        }
        true
    }

    /// Run a command and count what its summary lines say. One that fails without a failed test is one failure.
    fn counted(&mut self, name: &str, command: &mut Command, summary: fn(&str) -> Option<(u64, u64)>) -> Result<()> {
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {}", say::shown(command)))?;
        let output = BufReader::new(child.stdout.take().context("the output was asked for")?);
        let failed_before = self.failed;
        for line in output.split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            writeln!(std::io::stdout(), "{line}")?;
            if let Some((passed, failed)) = summary(&line) {
                self.passed += passed;
                self.failed += failed;
            }
        }
        let status = child.wait()?;
        if !status.success() && self.failed == failed_before {
            self.check(name, Err(anyhow::anyhow!("{} ended with {status}", say::shown(command))));
        }
        Ok(())
    }
}

fn rust(place: &Place, count: &mut Count) {
    let run = |arguments: &[&str]| say::run(cargo::command(place).args(arguments));
    say::step("Format");
    count.check("format", run(&["fmt", "--all", "--check"]));
    say::step("Lints");
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    count.check("lints", run(&lints));
    say::step("Tests of the host's workspace");
    let mut test = cargo::command(place);
    test.args(["test", "--workspace", "--no-fail-fast", "--quiet"]);
    let outcome = count.counted("tests", &mut test, cargo_summary);
    if outcome.is_err() {
        count.check("tests", outcome);
    }
    if let Err(error) = device_kernels(place, count) {
        count.check("device kernels", Err(error));
    }
}

/// Compile every kernel for every device with NVIDIA's compiler, which comes as a Python package.
fn device_kernels(place: &Place, count: &mut Count) -> Result<()> {
    let python = python::environment(place, "host/cuda/tests/requirements.txt")?;
    say::step("Compiling the device's kernels");
    let mut test = cargo::command(place);
    test.args(["test", "--package", "mainstay-cuda", "--features", "nvrtc", "--test", "nvrtc", "--quiet"]);
    test.env("MAINSTAY_NVRTC", python.file("nvidia/cuda_nvrtc/lib/libnvrtc.so.12")?);
    count.counted("device kernels", &mut test, cargo_summary)
}

fn native_plugins(place: &Place, count: &mut Count) {
    let command = |arguments: &[&str]| {
        let mut command = cargo::command(place);
        // The host's target folder: what both workspaces depend on is built once.
        command.current_dir(place.root.join("plugins")).env("CARGO_TARGET_DIR", &place.target).args(arguments);
        command
    };
    say::step("Format and lints of the plugins");
    count.check("plugins format", say::run(&mut command(&["fmt", "--all", "--check"])));
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    count.check("plugins lints", say::run(&mut command(&lints)));
    say::step("Native tests of the plugins");
    let mut test = command(&["test", "--workspace", "--no-fail-fast", "--quiet"]);
    let outcome = count.counted("plugins tests", &mut test, cargo_summary);
    if outcome.is_err() {
        count.check("plugins tests", outcome);
    }
}

/// A suite in Python: what is shown, its folder, the file of its packages, and the program that it is given by the name of a
/// variable.
struct Suite {
    name: &'static str,
    folder: &'static str,
    requirements: &'static str,
    variable: &'static str,
    program: &'static str,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "The real MLflow client against the real binary",
        folder: "tests/conformance",
        requirements: "tests/conformance/requirements.txt",
        variable: "MAINSTAY_BIN",
        program: "debug/mainstay",
    },
    Suite {
        name: "DuckDB, Polars and pandas on the files of tables",
        folder: "tests/conformance/tables",
        requirements: "tests/conformance/tables/requirements.txt",
        variable: "MAINSTAY_WRITE_KNOWN",
        program: "debug/examples/write_known",
    },
    Suite {
        name: "The real Triton client against both fronts",
        folder: "tests/conformance/inference",
        requirements: "tests/conformance/inference/requirements.txt",
        variable: "MAINSTAY_KNOWN",
        program: "debug/examples/serve_known",
    },
    Suite {
        name: "The real Triton client against the real binary",
        folder: "tests/conformance/serving",
        requirements: "tests/conformance/inference/requirements.txt",
        variable: "MAINSTAY_BIN",
        program: "debug/mainstay",
    },
];

fn conformance(place: &Place, count: &mut Count) -> Result<()> {
    say::step("Building the binary and the suites' programs");
    let build = ["build", "--workspace", "--bin", "mainstay", "--example", "write_known", "--example", "serve_known"];
    say::run(cargo::command(place).args(build).arg("--quiet"))?;
    for suite in SUITES {
        // Each with its own packages, and blind to what stands above it.
        let python = python::environment(place, suite.requirements)?;
        let folder = place.root.join(suite.folder);
        say::step(suite.name);
        let mut pytest = Command::new(python.program());
        pytest
            .args(["-m", "pytest", "--color=no", "--confcutdir=."])
            .arg(".")
            .current_dir(&folder)
            .env(suite.variable, place.target.join(suite.program))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        count.counted("conformance", &mut pytest, pytest_summary)?;
    }
    Ok(())
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; …`
fn cargo_summary(line: &str) -> Option<(u64, u64)> {
    let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    Some((number_before(counts, "passed")?, number_before(counts, "failed")?))
}

/// `3 failed, 120 passed, 2 skipped in 41.20s`, with or without `=` around it. Errors count as failures.
fn pytest_summary(line: &str) -> Option<(u64, u64)> {
    let line = line.trim().trim_matches('=').trim();
    if line.contains(';') || !line.contains(" in ") || !line.ends_with('s') && !line.ends_with(')') {
        return None;
    }
    let [passed, failed] = ["passed", "failed"].map(|word| number_before(line, word));
    let errors = number_before(line, "errors").or_else(|| number_before(line, "error"));
    if passed.is_none() && failed.is_none() && errors.is_none() {
        return None;
    }
    Some((passed.unwrap_or(0), failed.unwrap_or(0) + errors.unwrap_or(0)))
}

/// The number that stands before a word.
fn number_before(text: &str, word: &str) -> Option<u64> {
    let mut words = text.split([' ', ',', ';']).filter(|word| !word.is_empty());
    let mut last = words.next()?;
    for next in words {
        if next == word {
            return last.parse().ok();
        }
        last = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read() {
        fn check(line: &str, cargo: Option<(u64, u64)>, pytest: Option<(u64, u64)>) {
            assert_eq!((cargo_summary(line), pytest_summary(line)), (cargo, pytest), "{line}");
        }
        check("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; finished in 0.01s", Some((12, 0)), None);
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored", Some((3, 2)), None);
        check("120 passed in 41.20s", None, Some((120, 0)));
        check("=== 3 failed, 117 passed, 2 skipped in 61.20s (0:01:01) ===", None, Some((117, 3)));
        check("1 error in 0.30s", None, Some((0, 1)));
        check("2 passed, 3 errors in 0.30s", None, Some((2, 3)));
        check("no tests ran in 0.01s", None, None);
        check("the first line", None, None);
    }
}
