//! Graphs beyond our own operations, against ONNX Runtime's answers; and graphs that ask for too much.
//!
//! The child of these tests is the test binary itself: run for the one test `network_child` with the child's arguments behind
//! a marker. Where the environment variable `ONNX_RUNTIME` names the library of ONNX Runtime, it is held to the same answers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::{ErrorKind, Result};
use mainstay_models::{Model, Output, Rows, Task};
use mainstay_networks::{Limits, Options, RunIn, Runtime, child_main, import};
use serde::Deserialize;

/// Not a test: the child's side.
#[test]
fn network_child() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--skip=internal-network") {
        let code = child_main(arguments[at + 1..].iter().cloned());
        let success = format!("{code:?}") == format!("{:?}", std::process::ExitCode::SUCCESS);
        std::process::exit(if success { 0 } else { 3 });
    }
}

fn in_child(limits: Limits) -> Options {
    let arguments = ["--exact", "network_child", "--nocapture", "--skip=internal-network"];
    let program = std::env::current_exe().unwrap();
    let run_in = RunIn::Child { program, arguments: arguments.map(OsString::from).to_vec(), limits };
    Options { runtime: Runtime::Rten, run_in }
}

/// Small and short, so that a graph that asks for more is found out quickly.
fn narrow() -> Limits {
    Limits { memory_bytes: 1 << 30, batch: Duration::from_millis(500), ..Limits::default() }
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn ask(model: &Model, rows: &[Vec<f64>], output: Output) -> Result<Vec<f64>> {
    let features = model.features().len();
    let values = rows.concat();
    let mut out = vec![0.0; rows.len() * model.width(output)?];
    model.predict(&Rows::F64 { values: &values, features }, output, &mut out)?;
    Ok(out)
}

#[derive(Deserialize)]
struct Expected {
    rows: Vec<Vec<f64>>,
    scores: Vec<Vec<f64>>,
    labels: Option<Vec<f64>>,
}

fn check(name: &str, options: &Options) {
    let expected: Expected = serde_json::from_slice(&bytes(&format!("{name}.expect.json"))).unwrap();
    let model = import(&bytes(&format!("{name}.onnx")), options).unwrap();
    assert_eq!(model.features().len(), expected.rows[0].len(), "{name}");
    // Far more rows than go to the runtime at a time.
    let repeated = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> { rows.iter().cycle().take(601).cloned().collect() };
    let made = ask(&model, &repeated(&expected.rows), Output::Score).unwrap();
    let wanted = repeated(&expected.scores).concat();
    assert_eq!(made.len(), wanted.len(), "{name}");
    for (at, (made, wanted)) in made.iter().zip(&wanted).enumerate() {
        assert!((made - wanted).abs() <= 2e-6, "{name}, value {at}: {made}, not {wanted}");
    }
    match expected.labels {
        None => assert_eq!(ask(&model, &expected.rows, Output::Label).unwrap_err().kind(), ErrorKind::Invalid),
        Some(labels) => {
            assert_eq!(model.task(), Task::Classification);
            assert_eq!(ask(&model, &expected.rows, Output::Label).unwrap(), labels, "{name}");
        }
    }
    for output in [Output::Raw, Output::Leaf] {
        assert_eq!(ask(&model, &expected.rows, output).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

fn check_all(options: &Options) {
    ["convolution", "convolution_three_rows", "attention", "words"].iter().for_each(|name| check(name, options));
}

#[test]
fn graphs_answer_as_onnx_runtime_does() {
    check_all(&Options::default());
}

#[test]
fn graphs_answer_the_same_out_of_a_child() {
    check_all(&in_child(Limits::default()));
}

#[test]
fn onnx_runtime_itself_can_be_named() {
    let Some(library) = std::env::var_os("ONNX_RUNTIME").map(PathBuf::from) else { return };
    check_all(&Options { runtime: Runtime::OnnxRuntime(library), ..in_child(Limits::default()) });
}

#[test]
fn a_library_that_is_none_is_named() {
    let options = Options { runtime: Runtime::OnnxRuntime("/nowhere/libonnxruntime.so".into()), ..in_child(narrow()) };
    let error = import(&bytes("convolution.onnx"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
}

#[test]
fn what_cannot_be_a_model_is_refused_by_name() {
    let check = |name: &str, words: &[&str]| {
        for options in [Options::default(), in_child(Limits::default())] {
            let error = import(&bytes(name), &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
            words.iter().for_each(|word| assert!(error.to_string().contains(word), "{name}: {error}"));
        }
    };
    check("bad_rows.onnx", &["`y`", "has a row for each row"]);
    check("bad_free.onnx", &["`x`", "[?, ?]", "free dimension"]);
    check("bad_text.onnx", &["`x`"]);
    let mut cut = bytes("convolution.onnx");
    cut.truncate(cut.len() / 2);
    assert_eq!(import(&cut, &in_child(Limits::default())).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_terabyte_at_loading_costs_the_child_alone() {
    let limits = Limits { load: Duration::from_secs(2), ..narrow() };
    let error = import(&bytes("bad_load.onnx"), &in_child(limits)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("limit of"), "{error}");
}

/// A graph behaves, misbehaves and behaves again: what its rows ask for decides.
fn survives(name: &str, much: f64, kind: ErrorKind, words: &str) {
    let model = import(&bytes(name), &in_child(narrow())).unwrap();
    let rows = |value: f64| vec![vec![value, 1.0, -2.0]; 2];
    let few = ask(&model, &rows(3.0), Output::Score).unwrap();
    let started = Instant::now();
    let error = ask(&model, &rows(much), Output::Score).unwrap_err();
    assert_eq!(error.kind(), kind, "{name}: {error}");
    assert!(error.to_string().contains(words), "{name}: {error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{name}: {:?}", started.elapsed());
    assert_eq!(ask(&model, &rows(3.0), Output::Score).unwrap(), few, "{name}");
}

#[test]
fn memory_and_time_of_a_batch_are_bounded() {
    survives("bad_memory.onnx", 2e9, ErrorKind::Exhausted, "limit of 1024 MiB");
    survives("bad_time.onnx", 2e9, ErrorKind::Exhausted, "limit of 0.5 s");
}

#[test]
fn a_child_that_is_killed_is_begun_again() {
    let model = Arc::new(import(&bytes("convolution.onnx"), &in_child(Limits::default())).unwrap());
    let expected: Expected = serde_json::from_slice(&bytes("convolution.expect.json")).unwrap();
    let first = ask(&model, &expected.rows, Output::Score).unwrap();
    let own = std::process::id();
    let children =
        std::process::Command::new("pgrep").args(["-P", &own.to_string(), "-f", "internal-network"]).output();
    let children = String::from_utf8(children.unwrap().stdout).unwrap();
    for child in children.lines() {
        std::process::Command::new("kill").args(["-9", child]).status().unwrap();
    }
    assert!(ask(&model, &expected.rows, Output::Score).is_err(), "its answer was lost with it");
    assert_eq!(ask(&model, &expected.rows, Output::Score).unwrap(), first);
}

#[test]
fn many_threads_ask_one_graph() {
    let model = import(&bytes("attention.onnx"), &in_child(Limits::default())).unwrap();
    let expected: Expected = serde_json::from_slice(&bytes("attention.expect.json")).unwrap();
    let first = ask(&model, &expected.rows, Output::Score).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(ask(&model, &expected.rows, Output::Score).unwrap(), first));
        }
    });
}
