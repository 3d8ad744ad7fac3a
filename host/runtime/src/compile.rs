//! From a component's bytes to code that runs: ahead of time, once, in a process that cannot hurt the host.
//!
//! A compiler is a large program that reads hostile input. So it runs as a child of the host, which first gives itself
//! bounds (memory, processor time, files) that it cannot raise again, and is killed when its wall time is over. What it made
//! goes into the authenticated cache. Tests compile in process ([`CompileIn::Here`]).
//!
//! Bounded by: [`CompileLimits`] and [`COMPONENT_BYTES_MAX`]. On failure: an `invalid` that says what is wrong with the
//! file, or an `exhausted` that names the bound.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mainstay_base::{Error, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::component::Component;

use crate::artifact::{self, Authentic};
use crate::cache::{self, Cache, ENTRY_BYTES_MAX};
use crate::engine::{Engine, compile_config};

/// The largest component file.
pub const COMPONENT_BYTES_MAX: usize = 128 << 20;
/// The first argument of the child; the host's hidden subcommand has the same name.
pub const CHILD_COMMAND: &str = "internal-compile";
/// What of the child's complaint is kept.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// What one compilation may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the child.
    pub memory_bytes: u64,
    /// Its processor time.
    pub cpu_s: u64,
    /// Its time from start to end.
    pub wall_s: u64,
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits { memory_bytes: 4 << 30, cpu_s: 300, wall_s: 300 }
    }
}

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum CompileIn {
    /// In this process, without bounds: for tests and for components that the caller made.
    Here,
    /// In a child: this program with these arguments, then those of [`child_main`].
    Child {
        /// The program, usually the host's own binary.
        program: PathBuf,
        /// What comes before the child's own arguments, usually [`CHILD_COMMAND`].
        arguments: Vec<OsString>,
        /// Its bounds.
        limits: CompileLimits,
    },
}

impl CompileIn {
    /// A child of the running binary, as the host's hidden subcommand.
    pub fn own_binary(limits: CompileLimits) -> Result<CompileIn> {
        let program = std::env::current_exe()
            .map_err(|error| Error::internal(format!("cannot find the host's own binary: {error}")))?;
        Ok(CompileIn::Child { program, arguments: vec![CHILD_COMMAND.into()], limits })
    }
}

/// Compiles components, or finds them compiled.
pub struct Compiler {
    engine: Engine,
    place: CompileIn,
    cache: Option<Cache>,
}

/// What is wrong with the cache in this folder and will cost a compilation, if anything. Changes nothing.
pub fn cache_trouble(folder: &Path) -> Result<Option<String>> {
    cache::trouble(folder)
}

impl Compiler {
    /// A compiler for this engine; with a folder, what it compiles is kept there.
    pub fn new(engine: &Engine, place: CompileIn, cache_folder: Option<&Path>) -> Result<Compiler> {
        let cache = cache_folder.map(Cache::open).transpose()?;
        Ok(Compiler { engine: engine.clone(), place, cache })
    }

    /// The component of these bytes. Takes milliseconds from the cache and up to minutes without: not for an asynchronous
    /// thread.
    pub fn component(&self, wasm: &[u8]) -> Result<Component> {
        check_is_component(wasm)?;
        if let Some(cache) = &self.cache
            && let Some(compiled) = cache.get(&self.engine, wasm)
        {
            match artifact::load(&self.engine, Authentic(&compiled)) {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(%error, "compiled code does not fit this engine; compiling again"),
            }
        }
        match &self.place {
            CompileIn::Here => {
                Component::new(self.engine.wasmtime(), wasm).map_err(|error| unfit(&format!("{error:#}")))
            }
            CompileIn::Child { program, arguments, limits } => {
                let compiled = in_child(program, arguments, limits, wasm)?;
                let component = artifact::load(&self.engine, Authentic(&compiled))?;
                if let Some(cache) = &self.cache {
                    cache.put(&self.engine, wasm, &compiled);
                }
                Ok(component)
            }
        }
    }
}

/// Refuses what is no component before anything parses it, and says what it is instead.
pub fn check_is_component(bytes: &[u8]) -> Result<()> {
    const MAGIC: &[u8; 4] = b"\0asm";
    const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
    const CORE: [u8; 4] = [1, 0, 0, 0];
    if bytes.len() > COMPONENT_BYTES_MAX {
        let size = bytes.len();
        return Err(Error::invalid(format!("the component has {size} bytes; the most is {COMPONENT_BYTES_MAX}")));
    }
    if bytes.trim_ascii_start().starts_with(b"(component") {
        return Ok(());
    }
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(Error::invalid(format!("a file of {} bytes is no WebAssembly component", bytes.len())));
    };
    if magic != MAGIC {
        return Err(Error::invalid(
            "this is no WebAssembly file; a plugin's component is what `cargo xtask plugins` or `mainstay plugin pack` makes",
        ));
    }
    match rest.first_chunk::<4>() {
        Some(&COMPONENT) => Ok(()),
        Some(&CORE) => Err(Error::invalid(
            "this is a core WebAssembly module, not a component; wrap it with `cargo xtask plugins`, `mainstay plugin pack` or `wasm-tools component new`",
        )),
        Some(version) => Err(Error::invalid(format!(
            "this WebAssembly file has the unknown version {}; build it again with the tools of this host",
            hex::encode(version)
        ))),
        None => Err(Error::invalid("this WebAssembly file ends inside its header; it was cut, copy it again")),
    }
}

fn unfit(why: &str) -> Error {
    Error::invalid(format!("the component cannot be compiled: {why}"))
}

fn in_child(program: &Path, arguments: &[OsString], limits: &CompileLimits, wasm: &[u8]) -> Result<Vec<u8>> {
    // Mode 0700: what the child writes here is trusted.
    let folder = tempfile::Builder::new()
        .prefix("mainstay-compile-")
        .tempdir()
        .map_err(|error| Error::io("create a folder for the compiler in", &std::env::temp_dir(), error))?;
    let (input, output) = (folder.path().join("in.wasm"), folder.path().join("out.cwasm"));
    let complaint = folder.path().join("complaint");
    fs::write(&input, wasm).map_err(|error| Error::io("write", &input, error))?;
    let stderr = fs::File::create(&complaint).map_err(|error| Error::io("create", &complaint, error))?;
    let child = Command::new(program)
        .args(arguments)
        .arg(&input)
        .arg(&output)
        .arg(limits.memory_bytes.to_string())
        .arg(limits.cpu_s.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|error| Error::io("start the compiler", program, error))?;
    let status = wait(child, Duration::from_secs(limits.wall_s))?;
    if status.is_some_and(|status| status.success()) {
        return fs::read(&output).map_err(|error| Error::io("read", &output, error));
    }
    let mut words = String::new();
    if let Ok(file) = fs::File::open(&complaint) {
        // A complaint that is no text is shown as empty.
        let _ = file.take(COMPLAINT_BYTES_MAX).read_to_string(&mut words);
    }
    Err(child_failed(status, limits, words.trim()))
}

/// The child's status, or nothing if it had to be killed because its time was over.
fn wait(mut child: Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let status =
            child.try_wait().map_err(|error| Error::internal(format!("cannot wait for the compiler: {error}")))?;
        if status.is_some() {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            // It may have ended just now, and then killing fails.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// How the child complains when it gets no more memory: for the heap, for a mapping, for a thread's stack.
const OUT_OF_MEMORY_WORDS: &[&str] =
    &["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"];

fn child_failed(status: Option<ExitStatus>, limits: &CompileLimits, words: &str) -> Error {
    use rustix::process::Signal;
    let Some(status) = status else {
        return Error::exhausted(format!(
            "compiling took more than its limit of {} s; the component is too large",
            limits.wall_s
        ));
    };
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() || signal == Signal::KILL.as_raw() => {
            Error::exhausted(format!(
                "compiling used more than its limit of {} s of processor time; the component is too large",
                limits.cpu_s
            ))
        }
        _ if OUT_OF_MEMORY_WORDS.iter().any(|sign| words.contains(sign)) => Error::exhausted(format!(
            "compiling used more than its limit of {} MiB of memory; the component is too large",
            limits.memory_bytes >> 20
        )),
        Some(signal) => Error::invalid(format!("the compiler was ended by signal {signal}: {words}")),
        None if status.code() == Some(EXIT_UNFIT.into()) => unfit(words),
        None => Error::internal(format!("the compiler did not start: {words}")),
    }
}

/// The child's exit code for a component that cannot be compiled; anything else is a fault.
const EXIT_UNFIT: u8 = 3;

/// What the child does: bound itself, read, compile, write. Arguments: input, output, address space in bytes,
/// processor time in seconds.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match run_child(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ChildError::Unfit(why)) => {
            eprintln!("{why}");
            ExitCode::from(EXIT_UNFIT)
        }
        Err(ChildError::Fault(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

enum ChildError {
    Unfit(String),
    Fault(String),
}

fn run_child(arguments: &[OsString]) -> Result<(), ChildError> {
    let fault = |what: &str| ChildError::Fault(what.to_owned());
    let [input, output, memory_bytes, cpu_s] = arguments else {
        return Err(fault("expected: INPUT OUTPUT MEMORY-BYTES CPU-SECONDS"));
    };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let (Some(memory_bytes), Some(cpu_s)) = (number(memory_bytes), number(cpu_s)) else {
        return Err(fault("memory and processor time are numbers"));
    };
    bound_self(memory_bytes, cpu_s)
        .map_err(|error| ChildError::Fault(format!("cannot bound the compiler: {error}")))?;
    let wasm = fs::read(input).map_err(|error| ChildError::Fault(format!("cannot read the component: {error}")))?;
    let engine = wasmtime::Engine::new(&compile_config()).map_err(|error| ChildError::Fault(format!("{error:#}")))?;
    let compiled = engine.precompile_component(&wasm).map_err(|error| ChildError::Unfit(format!("{error:#}")))?;
    fs::write(output, compiled).map_err(|error| ChildError::Fault(format!("cannot write the compiled code: {error}")))
}

/// Bounds that this process cannot raise again.
fn bound_self(memory_bytes: u64, cpu_s: u64) -> rustix::io::Result<()> {
    let hard = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::As, hard(memory_bytes))?;
    // The soft limit ends it with a signal that says why, the hard one a second later whatever it does.
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_s), maximum: Some(cpu_s + 1) })?;
    setrlimit(Resource::Fsize, hard(ENTRY_BYTES_MAX))?;
    setrlimit(Resource::Nofile, hard(64))?;
    setrlimit(Resource::Core, hard(0))
}
