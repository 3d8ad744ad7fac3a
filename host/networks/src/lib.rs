//! ONNX graphs beyond our own operations, run by a general runtime in a process of its own.
//!
//! Owns [`import`], which reads every model file that can be read here: first `mainstay-models`, and what it refuses for an
//! operation alone goes to a general runtime ([`engine`]), in a child of the host ([`process`], [`child`]). Separate from
//! `mainstay-models` because a general runtime is a large program that allocates what a graph asks for: two rows and two
//! columns that are multiplied out can ask for a terabyte, and a library in C++ can do worse. A process is what can be
//! bounded, ended and begun again without the host noticing. The runtime is `rten` (Rust, in the binary) or, where the
//! operator names its library, ONNX Runtime; docs/decisions/ has the comparison.
//!
//! Invariant: the host's process never runs a foreign graph, but in tests ([`RunIn::Here`]).
//!
//! Bounded by: [`Limits`]: address space of the child, time to load and time for a batch. On failure: `invalid` with the
//! runtime's words for what it cannot run, `exhausted` naming the bound, `unavailable` if the child cannot be started; the
//! next batch begins with a new child.
#![forbid(unsafe_code)]

mod child;
mod engine;
mod onnx_runtime;
mod process;
mod protocol;
mod rust_runtime;
mod session;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Error, Result};
use mainstay_models::{Feature, FeatureKind, Format, Model, NetworkShape, import};

pub use child::{CHILD_COMMAND, child_main};

use process::Process;
use session::Session;

/// What one graph's process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space of the child.
    pub memory_bytes: u64,
    /// From its start until it has answered a first row.
    pub load: Duration,
    /// For at most [`BATCH_ROWS`] rows.
    pub batch: Duration,
    /// Compute threads.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let (load, batch) = (Duration::from_secs(60), Duration::from_secs(30));
        Limits { memory_bytes: 4 << 30, load, batch, threads: 1 }
    }
}

/// Rows that go to the runtime at a time: enough to fill its inner loops, few enough for its intermediate results.
pub const BATCH_ROWS: usize = 256;

/// Which general runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The one in this binary.
    #[default]
    Rten,
    /// ONNX Runtime, out of its shared library.
    OnnxRuntime(PathBuf),
}

/// Where foreign graphs run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunIn {
    /// In this process, without bounds: for tests and for files that the caller made.
    Here,
    /// In a child: this program with these arguments, then those of [`child_main`].
    Child {
        /// The program, usually the host's own binary.
        program: PathBuf,
        /// What comes before the child's own arguments, usually [`CHILD_COMMAND`].
        arguments: Vec<OsString>,
        /// Its bounds.
        limits: Limits,
    },
}

/// How foreign graphs are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// By which runtime.
    pub runtime: Runtime,
    /// Where.
    pub run_in: RunIn,
}

impl Default for Options {
    fn default() -> Options {
        Options { runtime: Runtime::default(), run_in: RunIn::Here }
    }
}

impl Options {
    /// In a child of the running binary, as the host's hidden subcommand.
    pub fn own_binary(runtime: Runtime, limits: Limits) -> Result<Options> {
        let program = std::env::current_exe()
            .map_err(|error| Error::internal(format!("cannot find the host's own binary: {error}")))?;
        let run_in = RunIn::Child { program, arguments: vec![CHILD_COMMAND.into()], limits };
        Ok(Options { runtime, run_in })
    }
}

/// Read a model of any format that is known here. Takes milliseconds to seconds: not for an asynchronous thread.
pub fn import(bytes: &[u8], options: &Options) -> Result<Model> {
    match import::import(bytes) {
        Err(error) if import::is_unsupported_operation(&error) => match network(bytes, options) {
            Ok(model) => Ok(model),
            // What is ours by nature, such as a tree ensemble, no general runtime knows: both say why.
            Err(other) => Err(Error::new(other.kind(), format!("{error}; and {other}"))),
        },
        other => other,
    }
}

fn network(bytes: &[u8], options: &Options) -> Result<Model> {
    let (described, network): (_, Box<dyn mainstay_models::Network>) = match &options.run_in {
        RunIn::Here => {
            let session = Session::load(bytes, &options.runtime, 1)?;
            (session.described(), Box::new(session::Shared::new(session)))
        }
        RunIn::Child { program, arguments, limits } => {
            let plan = process::Plan {
                program: program.clone(),
                arguments: arguments.clone(),
                limits: limits.clone(),
                runtime: options.runtime.clone(),
                file: Arc::from(bytes),
            };
            let (process, described) = Process::start(plan)?;
            (described, Box::new(process))
        }
    };
    let kind = |is_integer| if is_integer { FeatureKind::Integer } else { FeatureKind::Number };
    let features = described.features.into_iter().map(|(name, is_integer)| Feature { name, kind: kind(is_integer) });
    let shape = NetworkShape {
        format: Format::Onnx,
        runtime: described.runtime,
        features: features.collect(),
        score: described.score,
        label: described.label,
    };
    Ok(Model::of_network(shape, network))
}
