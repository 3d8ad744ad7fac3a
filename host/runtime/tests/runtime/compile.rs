//! Compilation in the bounded child, the authenticated cache, and what is said of files that are no components.
//!
//! The child of these tests is the test binary itself: run for the one test `compile_child` with the child's arguments
//! behind `--`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mainstay_base::ErrorKind;
use mainstay_runtime::{CompileIn, CompileLimits, Compiler, Engine, EngineOptions, check_is_component, compile};

/// Not a test: the child's side.
#[test]
fn compile_child() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The arguments of the child are four behind a marker; without the marker this is an ordinary test run.
    if let Some(at) = arguments.iter().position(|argument| argument == "--skip=internal-compile") {
        let code = compile::child_main(arguments[at + 1..].iter().cloned());
        let success = format!("{code:?}") == format!("{:?}", std::process::ExitCode::SUCCESS);
        std::process::exit(if success { 0 } else { 3 });
    }
}

fn engine() -> Engine {
    Engine::new(&EngineOptions { instances: 4, threads: 1, ..EngineOptions::default() }).unwrap()
}

fn in_child(limits: CompileLimits) -> CompileIn {
    let arguments =
        ["--exact", "compile::compile_child", "--nocapture", "--skip=internal-compile"].map(OsString::from).to_vec();
    CompileIn::Child { program: std::env::current_exe().unwrap(), arguments, limits }
}

const SMALL: &str = r#"(component (core module $m (func (export "f") (result i32) (i32.const 1)))
  (core instance $i (instantiate $m))
  (func (export "f") (result u32) (canon lift (core func $i "f"))))"#;

/// The one entry of a cache folder.
fn entry(folder: &Path) -> std::path::PathBuf {
    let mut entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.extension().is_some_and(|end| end == "cwasm")).expect("an entry was kept")
}

#[test]
fn the_child_compiles_and_the_cache_is_used_only_when_authentic() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine();
    let compiler = Compiler::new(&engine, in_child(CompileLimits::default()), Some(folder.path())).unwrap();
    compiler.component(SMALL.as_bytes()).unwrap();
    let path = entry(folder.path());
    assert_eq!(fs::metadata(folder.path().join("key")).unwrap().permissions().mode() & 0o777, 0o600);

    // A compiler that cannot run proves that the cache answers, also for another engine with the same key.
    let broken =
        CompileIn::Child { program: "/nonexistent".into(), arguments: vec![], limits: CompileLimits::default() };
    let cached = Compiler::new(&self::engine(), broken.clone(), Some(folder.path())).unwrap();
    cached.component(SMALL.as_bytes()).unwrap();

    // One flipped bit anywhere, or a cut, and it is compiled again.
    let good = fs::read(&path).unwrap();
    for at in [0, 31, 32, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let error = cached.component(SMALL.as_bytes()).unwrap_err();
        assert!(error.message().contains("/nonexistent"), "changed at {at}: {error}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(cached.component(SMALL.as_bytes()).is_err());
    compiler.component(SMALL.as_bytes()).unwrap();
    assert!(cached.component(SMALL.as_bytes()).is_ok(), "the bad entry was replaced");

    // Another host's key makes all entries strangers.
    fs::write(folder.path().join("key"), [7; 32]).unwrap();
    let stranger = Compiler::new(&engine, broken, Some(folder.path())).unwrap();
    assert!(stranger.component(SMALL.as_bytes()).is_err());
}

#[test]
fn the_childs_bounds_are_told() {
    fn check(limits: CompileLimits, words: &str) {
        let compiler = Compiler::new(&engine(), in_child(limits), None).unwrap();
        let error = compiler.component(SMALL.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    check(CompileLimits { wall_s: 0, ..CompileLimits::default() }, "limit of 0 s");
    check(CompileLimits { memory_bytes: 48 << 20, ..CompileLimits::default() }, "limit of 48 MiB");
}

#[test]
fn what_cannot_be_compiled_is_told_by_child_and_host_alike() {
    let broken = "(component (core module $m (func (result i32) i64.const 1)))";
    for place in [CompileIn::Here, in_child(CompileLimits::default())] {
        let compiler = Compiler::new(&engine(), place, None).unwrap();
        let error = compiler.component(broken.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("type mismatch"), "{error}");
    }
}

#[test]
fn files_that_are_no_components_are_named_for_what_they_are() {
    fn check(bytes: &[u8], words: &str) {
        let error = check_is_component(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(words), "{error}");
    }
    check(b"", "0 bytes");
    check(b"\0a", "2 bytes");
    check(b"\x7fELF\x02\x01\x01\0", "no WebAssembly file");
    check(b"PK\x03\x04 a zip", "no WebAssembly file");
    check(b"\0asm\x01\0\0\0", "core WebAssembly module");
    check(b"\0asm\x63\0\0\0", "unknown version 63000000");
    check(b"\0asm\x0d", "was cut");
    check(&vec![0; compile::COMPONENT_BYTES_MAX + 1], "the most is");
    assert!(check_is_component(b"\0asm\x0d\0\x01\0").is_ok());
}
