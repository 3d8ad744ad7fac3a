//! Files that lie: cut off, cyclic, out of range, huge by their own account. Every one is `invalid` and names the place; none
//! panics, and none makes the importer allocate what it claims.

use std::path::Path;

use mainstay_base::ErrorKind;
use mainstay_models::import::{Limits, import, import_within};
use mainstay_models::{Output, Rows};
use serde_json::{Value, json};

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn refused(bytes: &[u8], says: &str) {
    refused_within(bytes, &Limits::default(), says);
}

fn refused_within(bytes: &[u8], limits: &Limits, says: &str) {
    let error = import_within(bytes, limits).expect_err(says);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains(says), "`{error}` does not say `{says}`");
}

/// A small XGBoost model after a change of its first tree, or of all.
fn changed(change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut model: Value = serde_json::from_slice(&file("xgb_reg_squarederror.json")).unwrap();
    change(&mut model["learner"]);
    serde_json::to_vec(&model).unwrap()
}

fn tree(learner: &mut Value) -> &mut Value {
    &mut learner["gradient_booster"]["model"]["trees"][0]
}

#[test]
fn what_is_no_model_is_named() {
    refused(b"", "the file is empty");
    refused(b"\x1f\x8b\x08\x00", "compressed or an archive");
    refused(b"PK\x03\x04", "compressed or an archive");
    refused(b"\x28\xb5\x2f\xfd", "compressed or an archive");
    refused(b"\x80\x04\x95", "pickle");
    refused(b"binf", "old binary format");
    refused(b"never a model", "of no known format");
    refused(b"{}", "`learner` is missing");
    refused(b"[1, 2]", "of no known format");
    refused_within(&file("xgb_ubjson.ubj"), &Limits { file_bytes: 10, ..Limits::default() }, "bytes in the file");
}

#[test]
fn lying_json_is_refused() {
    refused(
        &changed(|learner| tree(learner)["left_children"][1] = json!(0)),
        "tree 0: node 1: two ways lead to node 0",
    );
    refused(&changed(|learner| tree(learner)["left_children"][0] = json!(0)), "two ways lead to node 0");
    refused(&changed(|learner| tree(learner)["right_children"][0] = json!(1_000_000)), "node 1000000 is named");
    refused(&changed(|learner| tree(learner)["right_children"][0] = json!(-7)), "no index");
    refused(&changed(|learner| tree(learner)["split_indices"][0] = json!(99)), "asks for feature 99 of 5");
    refused(&changed(|learner| tree(learner)["split_indices"] = json!([0])), "`split_indices` has 1 places");
    refused(&changed(|learner| tree(learner)["split_conditions"][0] = json!("NaN")), "a list of numbers is expected");
    refused(&changed(|learner| tree(learner)["split_type"][0] = json!(1)), "without categories");
    refused(&changed(|learner| tree(learner)["tree_param"]["size_leaf_vector"] = json!("x")), "is not a count");
    refused(
        &changed(|learner| learner["learner_model_param"]["num_feature"] = json!("1000000000")),
        "features; the most is",
    );
    refused(
        &changed(|learner| learner["learner_model_param"]["num_class"] = json!("1000000000")),
        "outputs; the most is",
    );
    refused(
        &changed(|learner| learner["learner_model_param"]["base_score"] = json!("[1,2,3]")),
        "3 places for 1 outputs",
    );
    refused(&changed(|learner| learner["learner_model_param"]["base_score"] = json!("x")), "`base_score` is neither");
    refused(&changed(|learner| learner["objective"]["name"] = json!("reg:unheard")), "`reg:unheard` is unknown");
    refused(&changed(|learner| learner["gradient_booster"]["name"] = json!("gbforest")), "`gbforest` is unknown");
    refused(&changed(|learner| learner["gradient_booster"]["model"]["tree_info"] = json!([0])), "have 1 groups");
    refused(&changed(|learner| learner["gradient_booster"]["model"]["tree_info"][0] = json!(3)), "adds to output 3");
    refused(b"{\"learner\":{},\"learner\":{}}", "the key `learner` is there twice");
    refused(&[b"{\"learner\":".as_slice(), &b"[".repeat(1_000_000)].concat(), "nested too deeply");
}

#[test]
fn limits_hold_at_their_edge() {
    let bytes = file("xgb_reg_squarederror.json");
    let model: Value = serde_json::from_slice(&bytes).unwrap();
    let trees = model["learner"]["gradient_booster"]["model"]["trees"].as_array().unwrap();
    let nodes = trees.iter().map(|tree| tree["left_children"].as_array().unwrap().len()).sum();
    let exact = Limits {
        trees: trees.len(),
        nodes,
        features: 5,
        classes: 1,
        depth: 3,
        file_bytes: bytes.len(),
        ..Limits::default()
    };
    import_within(&bytes, &exact).unwrap();
    refused_within(&bytes, &Limits { trees: exact.trees - 1, ..exact }, "trees");
    refused_within(&bytes, &Limits { nodes: exact.nodes - 1, ..exact }, "nodes");
    refused_within(&bytes, &Limits { features: 4, ..exact }, "5 features; the most is 4");
    refused_within(&bytes, &Limits { depth: 2, ..exact }, "splits on one way");
    refused_within(&file("skl_logistic_classes.onnx"), &Limits { operations: 2, ..Limits::default() }, "operations");
    refused_within(&file("lgb_regression.txt"), &Limits { trees: 1, ..Limits::default() }, "2 trees; the most is 1");
    refused_within(&file("lgb_regression.txt"), &Limits { nodes: 20, ..Limits::default() }, "at most 20 nodes");
}

#[test]
fn lying_text_is_refused() {
    let text = String::from_utf8(file("lgb_regression.txt")).unwrap();
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    let with = |key: &str, value: &str| text.replacen(&line(key), &format!("{key}{value}"), 1).into_bytes();
    refused(&with("num_leaves=", "1000000000"), "1000000000 leaves");
    refused(&with("num_leaves=", "0"), "0 leaves");
    refused(&with("num_leaves=", "6"), "places; 6 are expected");
    refused(&with("left_child=", "0 1 2 3 4 5"), "tree 0: node 0: two ways lead to node 0");
    refused(&with("left_child=", "9 2 3 4 5 1"), "its children are 9");
    refused(&with("right_child=", "-99 -2 -3 -4 -5 -1"), "is named, but there are");
    refused(&with("split_feature=", "7 0 0 0 0 0"), "feature 7 of 5");
    refused(&with("threshold=", "nan 0 0 0 0 0"), "its threshold is NaN");
    refused(&with("threshold=", "x 0 0 0 0 0"), "`threshold` has the value `x`");
    refused(&with("decision_type=", "1 2 2 2 2 2"), "set ");
    refused(&with("decision_type=", "12 2 2 2 2 2"), "its decision type is 12");
    refused(&with("num_tree_per_iteration=", "0"), "is 0");
    refused(&with("num_tree_per_iteration=", "1000000000"), "trees a round");
    refused(&with("max_feature_idx=", "4000000000"), "features; the most is");
    refused(&with("objective=", "unheard"), "`unheard` is unknown");
    refused(&with("num_leaves=", "7\nnum_leaves=7"), "`num_leaves` is there twice");
    refused(&text.as_bytes()[..text.len() / 2], "");
}

/// One field of a protocol buffer.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16;
    [&[number << 3 | 2, length as u8 & 127 | 128, (length >> 7) as u8], content].concat()
}

fn attribute(name: &str, number: u8, values: &[Vec<u8>]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| field(number, value)).collect();
    field(5, &[field(1, name.as_bytes()), values].concat())
}

fn integers(name: &str, values: &[u8]) -> Vec<u8> {
    attribute(name, 8, &[values.to_vec()])
}

fn floats(name: &str, values: &[f32]) -> Vec<u8> {
    attribute(name, 7, &[values.iter().flat_map(|value| value.to_le_bytes()).collect()])
}

/// A graph of one TreeEnsembleRegressor: a split and two leaves, with some attributes replaced.
fn ensemble(replaced: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let texts = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut attributes = vec![
        ("nodes_treeids", integers("nodes_treeids", &[0, 0, 0])),
        ("nodes_nodeids", integers("nodes_nodeids", &[0, 1, 2])),
        ("nodes_featureids", integers("nodes_featureids", &[1, 0, 0])),
        ("nodes_values", floats("nodes_values", &[0.5, 0.0, 0.0])),
        ("nodes_modes", attribute("nodes_modes", 9, &texts(&["BRANCH_LEQ", "LEAF", "LEAF"]))),
        ("nodes_truenodeids", integers("nodes_truenodeids", &[1, 0, 0])),
        ("nodes_falsenodeids", integers("nodes_falsenodeids", &[2, 0, 0])),
        ("target_treeids", integers("target_treeids", &[0, 0])),
        ("target_nodeids", integers("target_nodeids", &[1, 2])),
        ("target_ids", integers("target_ids", &[0, 0])),
        ("target_weights", floats("target_weights", &[1.0, 2.0])),
    ];
    for (name, bytes) in replaced {
        attributes.retain(|(known, _)| known != name);
        attributes.push((name, bytes.clone()));
    }
    let ports = [field(1, b"x"), field(2, b"y"), field(4, b"TreeEnsembleRegressor"), field(7, b"ai.onnx.ml")].concat();
    let node = [ports, attributes.into_iter().flat_map(|(_, bytes)| bytes).collect()].concat();
    let shape = [field(1, b""), field(1, &[8, 2])].concat();
    let input = [field(1, b"x"), field(2, &field(1, &[vec![8, 1], field(2, &shape)].concat()))].concat();
    let output = [field(1, b"y"), field(2, &field(1, &[8, 1]))].concat();
    field(7, &[field(1, &node), field(11, &input), field(12, &output)].concat())
}

#[test]
fn lying_onnx_is_refused() {
    let check = |name: &'static str, bytes: Vec<u8>, says: &str| refused(&ensemble(&[(name, bytes)]), says);
    let model = import(&ensemble(&[])).unwrap();
    let mut out = [0.0; 2];
    model.predict(&Rows::F32 { values: &[9.0, 0.5, 9.0, 0.6], features: 2 }, Output::Score, &mut out).unwrap();
    assert_eq!(out, [1.0, 2.0]);
    check("nodes_truenodeids", integers("nodes_truenodeids", &[0, 0, 0]), "tree 0");
    check("nodes_truenodeids", integers("nodes_truenodeids", &[2, 0, 0]), "two ways lead to node 2");
    check("nodes_truenodeids", integers("nodes_truenodeids", &[77, 0, 0]), "its child 77 is not there");
    check("nodes_featureids", integers("nodes_featureids", &[2, 0, 0]), "feature 2 of 2");
    check("nodes_values", floats("nodes_values", &[f32::NAN, 0.0, 0.0]), "its threshold is NaN");
    check("nodes_values", floats("nodes_values", &[0.0]), "`nodes_values` has 1 places");
    check("nodes_nodeids", integers("nodes_nodeids", &[0, 1, 1]), "twice");
    check("nodes_treeids", integers("nodes_treeids", &[0, 0, 1]), "which is not there");
    check("target_ids", integers("target_ids", &[0, 9]), "output 9 of 1");
    check("target_nodeids", integers("target_nodeids", &[1, 9]), "node 9 of tree 0");
    check("target_weights", floats("target_weights", &[1.0]), "`target_treeids` has 2 places");
    check(
        "n_targets",
        field(5, &[field(1, b"n_targets"), vec![24, 255, 255, 255, 255, 15]].concat()),
        "targets; the most is",
    );
    check(
        "post_transform",
        field(5, &[field(1, b"post_transform"), field(4, b"X")].concat()),
        "`post_transform` is `X`",
    );
    let twice = [integers("target_ids", &[0, 0]), integers("target_ids", &[0, 0])].concat();
    check("target_ids", twice, "`target_ids` is there twice");
}

#[test]
fn every_cut_of_every_format_is_refused() {
    let names = [
        "xgb_binary_logistic.json",
        "xgb_ubjson.ubj",
        "xgb_ubjson_categories.ubj",
        "lgb_categories.txt",
        "lgb_linear.txt",
    ];
    for name in names {
        let bytes = file(name);
        for end in (0..bytes.len() - 16).step_by(97) {
            assert!(import(&bytes[..end]).is_err(), "{name} cut at {end}");
        }
    }
    // A message may end after any field, so some cuts of ONNX are whole; none may panic.
    let bytes = file("skl_boosted_classes.onnx");
    (0..bytes.len()).for_each(|end| drop(import(&bytes[..end])));
}

#[test]
fn no_change_of_a_byte_panics_or_makes_answers_out_of_nothing() {
    let names = [
        "xgb_ubjson_categories.ubj",
        "xgb_vector_leaves.json",
        "lgb_categories.txt",
        "lgb_linear.txt",
        "skl_boosted_classes.onnx",
        "skl_one_hot.onnx",
        "skl_logistic_classes.onnx",
        "ml_version_5.onnx",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for name in names {
        let bytes = file(name);
        for _ in 0..400 {
            let mut broken = bytes.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % broken.len();
                broken[at] = (state >> 20) as u8;
            }
            let Ok(model) = import(&broken) else { continue };
            let features = model.features().len();
            let rows = vec![1.5; features * 2];
            for output in [Output::Score, Output::Raw, Output::Leaf, Output::Label] {
                let Ok(width) = model.width(output) else { continue };
                let _ = model.predict(&Rows::F64 { values: &rows, features }, output, &mut vec![0.0; 2 * width]);
            }
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let model = import(&file("xgb_binary_logistic.json")).unwrap();
    let check = |values: &[f64], features: usize, output: Output, places: usize, says: &str| {
        let error = model.predict(&Rows::F64 { values, features }, output, &mut vec![0.0; places]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(says), "{error}");
    };
    check(&[0.0; 8], 4, Output::Score, 2, "rows have 4 values; the model takes 5");
    check(&[0.0; 7], 5, Output::Score, 1, "do not make whole rows of 5");
    check(&[0.0; 10], 5, Output::Score, 3, "3 places for the answers of 2 rows, 1 each");
    let regression = import(&file("xgb_reg_squarederror.json")).unwrap();
    assert!(regression.width(Output::Label).unwrap_err().message().contains("no label"));
    let rows = Rows::F64 { values: &[0.0; 10], features: 5 };
    assert!(
        model
            .predict_range(&rows, 1..3, Output::Score, &mut [0.0; 2])
            .unwrap_err()
            .message()
            .contains("rows 1 to 3 of 2")
    );
    model.predict(&Rows::F64 { values: &[], features: 5 }, Output::Score, &mut []).unwrap();
}
