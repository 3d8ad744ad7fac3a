//! A model's graph with a packed transform, in a real host: once per batch, by handle, in exactly the versions it names.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mainstay_base::ErrorKind;
use mainstay_interfaces::{Column, Frame};
use mainstay_models::graph::Graph;
use mainstay_testing::{Install, TestHost};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What `cargo xtask plugins` packed.
fn package() -> PathBuf {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../registry-data/packages/transform-tabular-0.1.0.mainstay");
    assert!(path.exists(), "{} is not there: run `cargo xtask plugins` first", path.display());
    path
}

fn host() -> TestHost {
    TestHost::new().install(package()).unwrap()
}

/// A small binary model of LightGBM.
fn model() -> Vec<u8> {
    include_bytes!("../../../host/models/tests/data/lgb_binary.txt").to_vec()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn graph(host: &TestHost, settings: Value, with_model: bool) -> Graph {
    let component = host.plugin("transform-tabular").unwrap().component_sha256();
    let transform =
        json!({"plugin": "transform-tabular", "version": "0.1.0", "sha256": component, "settings": settings});
    let mut nodes = vec![json!({"name": "prepare", "inputs": ["request"], "transform": transform})];
    if with_model {
        nodes.push(json!({"name": "score", "inputs": ["prepare"], "model": {"sha256": digest(&model())}}));
    }
    Graph::parse(json!({"format": 1, "nodes": nodes}).to_string().as_bytes()).unwrap()
}

fn frame(columns: &[(&str, &[f64])]) -> Frame {
    let columns = columns.iter().map(|(name, values)| (Arc::from(*name), Column::f64(values, None)));
    Frame::new(columns.collect()).unwrap()
}

fn numbers(frame: &Frame, name: &str) -> Vec<f64> {
    frame.column(name).unwrap().read_numbers(0, frame.rows()).unwrap()
}

#[test]
fn requests_that_come_together_are_prepared_in_one_call() {
    let host = host();
    let steps = json!({"steps": [
        {"op": "flag-missing", "columns": ["age"]},
        {"op": "impute", "values": {"age": 40.0}},
        {"op": "scale", "columns": {"age": {"subtract": 40.0, "multiply": 0.1}}},
    ]});
    let ready = host.take_in(&graph(&host, steps, false), &[]).unwrap();
    let frames = (0..20).map(|at| frame(&[("age", &[f64::from(at), f64::NAN])])).collect();
    let answers = host.run_graph(&ready, frames).unwrap();
    for (at, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(numbers(&answer, "age"), [(at as f64 - 40.0) * 0.1, 0.0]);
        assert_eq!(numbers(&answer, "age_missing"), [0.0, 1.0]);
    }
    let calls = host.plugin("transform-tabular").unwrap().stats().calls;
    // One to start, one to check the settings, and fewer batches than requests.
    assert!(calls < 2 + 20, "{calls} calls for 20 requests");
}

#[test]
fn a_model_behind_a_transform_sees_what_it_prepared() {
    let host = host();
    let stump = host.services().kernels.load_model(&digest(&model()), &model()).unwrap();
    let features: Vec<String> = stump.model().features().iter().map(|feature| feature.name.clone()).collect();
    let rows = 3;
    let raw: Vec<(String, Vec<f64>)> =
        features.iter().map(|name| (name.clone(), (0..rows).map(|at| f64::from(at) * 10.0 - 10.0).collect())).collect();
    let columns: Vec<(&str, &[f64])> = raw.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
    let halved = features.iter().map(|name| (name.clone(), json!({"subtract": 0.0, "multiply": 0.5})));
    let steps = json!({"steps": [{"op": "scale", "columns": halved.collect::<serde_json::Map<_, _>>()}]});
    let ready = host.take_in(&graph(&host, steps, true), &[model()]).unwrap();
    let answer = host.run_graph(&ready, vec![frame(&columns)]).unwrap().remove(0).unwrap();

    let halves: Vec<f64> =
        (0..rows).flat_map(|row| features.iter().map(move |_| (f64::from(row) * 10.0 - 10.0) * 0.5)).collect();
    let mut expected = vec![0.0; rows as usize];
    let view = mainstay_models::Rows::F64 { values: &halves, features: features.len() };
    stump.model().predict(&view, mainstay_models::Output::Score, &mut expected).unwrap();
    assert_eq!(numbers(&answer, "score"), expected);
}

/// The file and the answers are scikit-learn's: `sdk/rust/tests/data/onnx/make.py`.
#[test]
fn a_pipeline_of_scikit_learn_is_a_setting() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rust/tests/data/onnx");
    let file = std::fs::read(data.join("pipeline.onnx")).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(data.join("pipeline.json")).unwrap()).unwrap();
    let host = host();
    let settings = json!({"onnx": STANDARD.encode(&file)});
    let ready = host.take_in(&graph(&host, settings, false), &[]).unwrap();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let columns: Vec<(&str, Vec<f64>)> = expected["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            let values = column["values"].as_array().unwrap().iter().map(number);
            (column["name"].as_str().unwrap(), values.collect())
        })
        .collect();
    let columns: Vec<(&str, &[f64])> = columns.iter().map(|(name, values)| (*name, values.as_slice())).collect();
    // More than once, so that an instance that kept the steps answers, too.
    for _ in 0..3 {
        let answer = host.run_graph(&ready, vec![frame(&columns)]).unwrap().remove(0).unwrap();
        for (at, name) in expected["names"].as_array().unwrap().iter().enumerate() {
            for (row, found) in numbers(&answer, name.as_str().unwrap()).into_iter().enumerate() {
                let expected = number(&expected["rows"][row][at]);
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} is not {expected}");
            }
        }
    }

    let cut = json!({"onnx": STANDARD.encode(&file[..file.len() / 2])});
    for (settings, words) in [(cut, "the ONNX file"), (json!({}), "neither `steps` nor `onnx`")] {
        let Err(error) = host.take_in(&graph(&host, settings, false), &[]) else { panic!("expected: {words}") };
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn a_graph_is_refused_before_it_runs() {
    let host = host();
    let refused = |graph: &Graph, models: &[Vec<u8>], words: &str| {
        let Err(error) = host.take_in(graph, models) else { panic!("it was taken in; expected: {words}") };
        assert!(error.message().contains(words), "{error}");
    };
    let good = json!({"steps": []});
    refused(&graph(&host, json!({"steps": [{"op": "fly"}]}), false), &[], "node `prepare`: ");
    refused(
        &graph(&host, json!({"steps": [{"op": "clip", "columns": [], "low": 2, "high": 1}]}), false),
        &[],
        "step 1 (clip)",
    );
    refused(&graph(&host, good.clone(), true), &[], "node `score`: no model file");
    let other = graph(&host, good, false).canonical();
    let other = String::from_utf8(other).unwrap();
    let component = host.plugin("transform-tabular").unwrap().component_sha256();
    let wrong = Graph::parse(other.replace(component, &"a".repeat(64)).as_bytes()).unwrap();
    refused(&wrong, &[], "install that version, or make the graph again");
    let unknown = Graph::parse(other.replace("transform-tabular", "nobody").as_bytes()).unwrap();
    refused(&unknown, &[], "the plugin `nobody` does not run here");
}

#[test]
fn a_batch_that_does_not_fit_says_which_step_and_column() {
    let host = host();
    let steps = json!({"steps": [{"op": "impute", "values": {"height": 1.0}}]});
    let ready = host.take_in(&graph(&host, steps, false), &[]).unwrap();
    let error = host.run_graph(&ready, vec![frame(&[("age", &[1.0])])]).unwrap().remove(0).unwrap_err();
    assert!(error.message().contains("step 1 (impute): no column `height`; there are age"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn without_the_right_to_compute_a_transform_can_do_nothing() {
    let how = Install { grants: Some(Vec::new()), ..Install::default() };
    let host = TestHost::new().install_with(package(), how).unwrap();
    let steps = json!({"steps": [{"op": "impute", "values": {"age": 1.0}}]});
    let ready = host.take_in(&graph(&host, steps, false), &[]).unwrap();
    let error = host.run_graph(&ready, vec![frame(&[("age", &[1.0])])]).unwrap().remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("`arrays`"), "{error}");
}
