//! Build, demo, test, bench: the tools of this repository, in one program.
//!
//! Owns the order in which things are built and checked; each module owns one tool. Separate from the host, which knows
//! nothing of compilers or Python. Bounded by: nothing is downloaded except from package registries, and `rustup` is never
//! asked for a target unless the user said so. On failure: the step that failed, its output, and what to do; exit status 1.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod demo;
mod fuzz;
mod join_cases;
mod model_cases;
mod numeric_cases;
mod place;
mod plugins;
mod python;
mod say;
mod server;
mod test;
mod tree_shap_cases;
mod wasm;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use place::Place;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The tools of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Line {
    #[command(subcommand)]
    task: Task,
    /// Let `rustup` download the wasm32 target if this machine cannot build wasm otherwise.
    #[arg(long, global = true)]
    allow_rustup: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Build, start a server on a fresh folder, and tell the main job with the real client.
    Demo {
        /// Leave the server running.
        #[arg(long)]
        keep: bool,
    },
    /// Everything CI runs. Ends with one line: `N passed, N failed`.
    Test {
        /// Only this stage.
        #[arg(long, value_enum)]
        only: Option<test::Stage>,
    },
    /// Build the plugins, then the binary.
    Build(BuildArgs),
    /// Build and pack the plugins into registry-data/packages.
    Plugins,
    /// Measure the rooms, and the house beside its peers.
    Bench(bench::BenchArgs),
    /// Hostile bytes for every importer, guided by coverage.
    Fuzz {
        /// How long for each target, in seconds.
        #[arg(long, default_value_t = 300)]
        seconds: u32,
        /// Only this target.
        target: Option<String>,
    },
    /// Run folders of reference models through the real importers. Ends with one line: `N passed, N failed`.
    ModelCases {
        /// A folder of reference models, or a folder of such folders.
        dir: std::path::PathBuf,
        /// What computes.
        #[arg(long, value_parser = ["cpu"], default_value = "cpu")]
        path: String,
    },
    /// Hold every kernel of the NVIDIA device that is here against the processor, and measure it: see docs/gpu.md.
    GpuCheck {
        /// For the check: `--quick`, `--forests`, `--nvrtc PATH`, `--cache FOLDER`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Generate the references under docs/reference again.
    Docs,
    /// Run a folder of numeric cases through the real functions. Ends with one line: `N passed, N failed`.
    NumericCases {
        /// Folder with `cases.json`.
        folder: PathBuf,
        /// Which implementation.
        #[arg(long, value_enum, default_value = "cpu")]
        path: ComputePath,
    },
}

/// An implementation of the numeric functions.
#[derive(Clone, Copy, ValueEnum)]
enum ComputePath {
    /// On the processor.
    Cpu,
}

#[derive(Args)]
struct BuildArgs {
    /// With the release profile.
    #[arg(long)]
    release: bool,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match run(&line) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything went well; an error when a step could not even be tried.
fn run(line: &Line) -> Result<bool> {
    let place = Place::find()?;
    match &line.task {
        Task::Demo { keep } => demo::run(&place, line.allow_rustup, *keep).map(|()| true),
        Task::Test { only } => test::run(&place, line.allow_rustup, *only),
        Task::Build(args) => build(&place, line.allow_rustup, args.release).map(|_| true),
        Task::Plugins => plugins::build(&place, line.allow_rustup).map(|_| true),
        Task::Bench(args) => bench::run(&place, line.allow_rustup, args).map(|()| true),
        Task::Fuzz { seconds, target } => Ok(fuzz::run(&place, *seconds, target.as_deref())?.is_empty()),
        Task::ModelCases { dir, path: _ } => model_cases::run(dir),
        Task::GpuCheck { arguments } => {
            let mut command = cargo::command(&place);
            command.args(["run", "--package", "mainstay-cuda", "--example", "gpu_check", "--"]).args(arguments);
            say::run(&mut command).map(|()| true)
        }
        Task::Docs => docs(&place).map(|()| true),
        Task::NumericCases { folder, path: ComputePath::Cpu } => numeric_cases::run(folder),
    }
}

/// The plugins, then the binary; returns where it is.
fn build(place: &Place, allow_rustup: bool, release: bool) -> Result<std::path::PathBuf> {
    plugins::build(place, allow_rustup)?;
    say::step("Building the binary");
    let mut command = cargo::command(place);
    // The whole workspace is selected, so that features, and with them built dependencies, are those of the tests.
    command.args(["build", "--workspace", "--bin", "mainstay"]);
    if release {
        command.arg("--release");
    }
    say::run(&mut command)?;
    let binary = place.target.join(if release { "release" } else { "debug" }).join("mainstay");
    say::done(&format!("the binary is {}", place.show(&binary)));
    Ok(binary)
}

/// Every generated reference is held by a test whose name starts with `the_committed_`; with MAINSTAY_BLESS=1 it writes.
fn docs(place: &Place) -> Result<()> {
    say::step("Generating docs/reference");
    let mut command = cargo::command(place);
    // The whole workspace is selected, so that features, and with them built dependencies, are those of the tests.
    command.args(["test", "--workspace", "--quiet"]).env("MAINSTAY_BLESS", "1");
    command.args(["--lib", "--bins", "--test", "tidy", "--", "the_committed_"]);
    say::run(&mut command)?;
    let mut status = Command::new("git");
    status.args(["status", "--short", "docs/reference"]).current_dir(&place.root);
    let changed = status.output().context("asking git what changed")?;
    match changed.stdout.is_empty() {
        true => say::done("docs/reference is as it was"),
        false => say::done(&format!("changed:\n{}", String::from_utf8_lossy(&changed.stdout).trim_end())),
    }
    Ok(())
}
