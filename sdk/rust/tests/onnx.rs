//! Steps out of ONNX files that skl2onnx wrote. Expected tables are scikit-learn's own (`tests/data/onnx/make.py`).

use mainstay_sdk::columns::{Column, Frame, ValueType};
use mainstay_sdk::tabular::Steps;
use mainstay_sdk::testing::Host;
use mainstay_sdk::{ErrorKind, Result};
use proptest::prelude::*;
use serde_json::Value;
use std::path::PathBuf;

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// How a frame holds what the file wants as reals, and how what is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum As {
    Real64,
    Real32,
    Missing,
}

fn column(column: &Value, how: As) -> Result<Column> {
    let values = column["values"].as_array().unwrap();
    let reals = || values.iter().map(|value| value.as_f64());
    match (column["type"].as_str().unwrap(), how) {
        ("text", _) => Column::text(values.iter().map(Value::as_str)),
        ("integer", _) => Column::integer64(&values.iter().map(|value| value.as_i64().unwrap()).collect::<Vec<_>>()),
        (_, As::Real32) => Column::real32(&reals().map(|real| real.unwrap_or(f64::NAN) as f32).collect::<Vec<_>>()),
        (_, As::Real64) => Column::real64(&reals().map(|real| real.unwrap_or(f64::NAN)).collect::<Vec<_>>()),
        (_, As::Missing) => {
            let present: Vec<bool> = reals().map(|real| real.is_some()).collect();
            Column::real64_with(&reals().map(Option::unwrap_or_default).collect::<Vec<_>>(), &present)
        }
    }
}

fn check(name: &str) {
    let steps = Steps::from_onnx(&file(&format!("{name}.onnx"))).unwrap();
    let expected: Value = serde_json::from_slice(&file(&format!("{name}.json"))).unwrap();
    for how in [As::Real64, As::Real32, As::Missing] {
        Host::new().enter(|| compare(name, &steps, &expected, how)).unwrap();
    }
    if name != "ordinals_nan" {
        // But for NaN, which JSON has not, they are a document as others.
        assert_eq!(Steps::parse(&serde_json::to_string(&steps).unwrap()).unwrap(), steps, "{name}");
    }
}

fn compare(name: &str, steps: &Steps, expected: &Value, how: As) -> Result<()> {
    let inputs = expected["columns"].as_array().unwrap();
    let held = inputs.iter().map(|input| Ok((input["name"].as_str().unwrap(), column(input, how)?)));
    let held = held.collect::<Result<Vec<_>>>()?;
    let more = Column::text(vec![Some("not asked for"); expected["rows"].as_array().unwrap().len()])?;
    let mut columns: Vec<(&str, &Column)> = vec![("more", &more)];
    columns.extend(held.iter().map(|(name, column)| (*name, column)));
    let frame = Frame::of(columns)?;
    let prepared = steps.apply(&frame).map_err(|error| error.context(name))?;
    let names: Vec<String> = prepared.columns().into_iter().map(|(name, _)| name).collect();
    let expected_names: Vec<&str> = expected["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!(names, expected_names, "{name}");
    for (at, column_name) in names.iter().enumerate() {
        let found = prepared.column(column_name)?.read_numbers(0, prepared.rows() as u32)?;
        for (row, found) in found.into_iter().enumerate() {
            let expected = expected["rows"][row][at].as_f64().unwrap_or(f64::NAN);
            let is_near = (found - expected).abs() <= 1e-6 * expected.abs().max(1.0);
            let is_same = is_near || (found.is_nan() && expected.is_nan());
            assert!(is_same, "{name}, {how:?}, row {row}, `{column_name}`: {found} is not {expected}");
        }
    }
    // What was given is as it was.
    assert_eq!(frame.column("more")?.value_type(), ValueType::Text);
    Ok(())
}

#[test]
fn pipelines_prepare_as_scikit_learn_does() {
    ["people", "people_real64", "matrix", "pipeline", "nested"].into_iter().for_each(check);
    ["dropped", "constants", "frequent", "missing_text", "wide"].into_iter().for_each(check);
}

#[test]
fn scalers_are_scikit_learns() {
    ["scalers_real32", "scalers_real64", "integers"].into_iter().for_each(check);
}

#[test]
fn bins_and_thresholds_are_scikit_learns_on_their_very_edges() {
    ["bins_ordinal", "bins_onehot", "thresholds", "thresholds_real64"].into_iter().for_each(check);
}

#[test]
fn categories_are_scikit_learns() {
    ["ordinals", "ordinals_nan", "whole"].into_iter().for_each(check);
}

#[test]
fn columns_of_integers_take_a_fraction_for_what_is_missing() {
    let steps = Steps::from_onnx(&file("frequent.onnx")).unwrap();
    let fractions = Steps::from_onnx(&file("constants.onnx")).unwrap();
    Host::new()
        .enter(|| {
            let (numbers, text) = (Column::integer64_with(&[7, 0], &[true, false])?, Column::text([Some("b"), None])?);
            let frame = Frame::of([("f", &numbers), ("g", &text), ("s", &text), ("i", &numbers)])?;
            assert_eq!(steps.apply(&frame)?.column("f")?.read_numbers(0, 2)?, [7.0, 2.0]);
            assert_eq!(fractions.apply(&frame)?.column("f")?.read_numbers(0, 2)?, [7.0, -1.5]);
            // Missing text is filled in as empty text is.
            assert_eq!(fractions.apply(&frame)?.column("g=none")?.read_numbers(0, 2)?, [0.0, 1.0]);
            Ok::<_, mainstay_sdk::Error>(())
        })
        .unwrap();
}

fn refused(bytes: &[u8], words: &str) {
    let error = Steps::from_onnx(bytes).unwrap_err();
    assert!(error.message().contains(words), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_no_preparation_is_refused_by_name() {
    refused(
        &file("refused_normalizer.onnx"),
        "the operation `Normalizer` of node `Normalizer`: it cannot be made into",
    );
    refused(&file("refused_model.onnx"), "the operation `LinearRegressor` of node");
    refused(&file("refused_model.onnx"), "run such a file as a model of the graph instead");
}

/// Messages of ONNX, written by hand: fields of `(number, bytes)`.
mod written {
    pub fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 128 {
            bytes.push(value as u8 | 128);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
    }

    pub fn number(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    /// An input or output of 32-bit reals, `width` to a row.
    pub fn port(name: &str, width: u64) -> Vec<u8> {
        let size = field(1, &number(1, width));
        let shape = [field(1, &[]), size].concat();
        let tensor = [number(1, 1), field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    }

    pub fn node(operation: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        let inputs = inputs.iter().flat_map(|input| field(1, input.as_bytes()));
        let rest = [field(2, output.as_bytes()), field(3, b"n"), field(4, operation.as_bytes())].concat();
        inputs.chain(rest).collect()
    }

    pub fn integer(name: &str, value: u64) -> Vec<u8> {
        field(5, &[field(1, name.as_bytes()), number(3, value), number(20, 2)].concat())
    }

    /// A file: nodes, constants, width of input `x`, output.
    pub fn file(nodes: &[Vec<u8>], constants: &[Vec<u8>], width: u64, output: &str) -> Vec<u8> {
        let mut graph: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
        graph.extend(constants.iter().flat_map(|constant| field(5, constant)));
        graph.extend(field(11, &port("x", width)));
        graph.extend(field(12, &port(output, width)));
        field(7, &graph)
    }
}

#[test]
fn hostile_files_are_refused() {
    use written::{field, file, integer, node, number, varint};
    refused(b"", "it has no graph; is this ONNX?");
    refused(b"pickle", "cannot be read");
    refused(&vec![0; (1 << 20) + 1], "the most is 1048576");
    // It says that it has 2^40 values, and has none.
    let sizes = field(1, &[varint(1 << 20), varint(1 << 20)].concat());
    let huge = [sizes, number(2, 1), field(8, b"c")].concat();
    refused(
        &file(&[node("Add", &["x", "c"], "y")], &[huge], 1, "y"),
        "the constant `c`: its shape is [1048576, 1048576]",
    );
    refused(&file(&[node("Identity", &["x"], "y")], &[], 1 << 40, "y"), "columns; the most is 8192");
    let circle = [node("Identity", &["b"], "a"), node("Identity", &["a"], "b")];
    refused(&file(&circle, &[], 1, "a"), "of node `n`: no earlier node makes the value `b`");
    refused(&file(&[node("Identity", &["x"], "x")], &[], 1, "x"), "the value `x` is made twice");
    refused(&file(&[], &[], 1, "y"), "no earlier node makes the value `y`");
    refused(&file(&vec![Vec::new(); 100_000], &[], 1, "x"), "100000 nodes; the most is 10000");
    let external = [number(2, 1), field(8, b"c"), number(14, 1)].concat();
    refused(&file(&[], &[external], 1, "x"), "in another file");
    // Each doubles the width of the one before.
    let mut doubled = Vec::new();
    for at in 0..40 {
        let (from, to) = (if at == 0 { "x".to_owned() } else { format!("v{at}") }, format!("v{}", at + 1));
        doubled.push([node("Concat", &[&from, &from], &to), integer("axis", 1)].concat());
    }
    refused(&file(&doubled, &[], 1, "v40"), "columns; the most is 8192");
    // As wide as it may be, thousands of times.
    let wide: Vec<Vec<u8>> = (0..9_000).map(|at| node("Cast", &["x"], &format!("v{at}"))).collect();
    let wide: Vec<Vec<u8>> = wide.into_iter().map(|node| [node, integer("to", 7)].concat()).collect();
    refused(&file(&wide, &[], 8_192, "v0"), "the graph makes more columns or longer tables than steps may have");
}

#[test]
fn cut_off_anywhere_a_file_is_refused_or_read() {
    for name in ["people", "matrix", "ordinals"] {
        let whole = file(&format!("{name}.onnx"));
        for end in 0..whole.len() {
            if let Err(error) = Steps::from_onnx(&whole[..end]) {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                assert!(error.message().starts_with("the ONNX file: "), "{error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is changed in a file: steps that are steps, or an error.
    #[test]
    fn changed_files_do_not_panic(
        name in prop::sample::select(vec!["people", "matrix", "bins_onehot", "constants", "scalers_real64", "dropped"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = file(&format!("{name}.onnx"));
        changes.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte; });
        if let Ok(steps) = Steps::from_onnx(&bytes) {
            prop_assert!(steps.check().is_ok());
        }
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = Steps::from_onnx(&bytes) {
            prop_assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
