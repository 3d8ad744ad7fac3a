//! Files that lie: cut off, cyclic, out of range, huge by their own account. Every one is `invalid` and names the place; none
//! panics, and none makes the importer allocate what it claims.

use std::path::Path;

use mainstay_base::ErrorKind;
use mainstay_models::import::{Limits, import, import_within, is_unsupported_operation};
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
    // The words that XGBoost has for numbers that are not finite are good in leaves only.
    let word = |key: &str, word: &str| {
        let with_mark = changed(|learner| tree(learner)[key][0] = json!(123_456_789));
        String::from_utf8(with_mark).unwrap().replace("123456789", word).into_bytes()
    };
    refused(&word("split_conditions", "NaN"), "its threshold is NaN");
    refused(&word("split_indices", "Infinity"), "which is no index");
    refused(&word("left_children", "-Infinity"), "no index");
    refused(&word("left_children", "Infinityy"), "not a readable JSON file");
    import(&word("split_conditions", "Infinity")).unwrap();
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

/// A number of a message.
fn number(field: u8, value: u64) -> Vec<u8> {
    let mut made = vec![field << 3];
    let mut left = value;
    while left > 127 {
        made.push((left & 127) as u8 | 128);
        left >>= 7;
    }
    made.push(left as u8);
    made
}

fn integer(name: &str, value: u64) -> Vec<u8> {
    field(5, &[field(1, name.as_bytes()), number(3, value)].concat())
}

fn text(name: &str, value: &str) -> Vec<u8> {
    field(5, &[field(1, name.as_bytes()), field(4, value.as_bytes())].concat())
}

/// A constant of 64-bit integers, or of a list of `f32`.
fn constant(name: &str, integers: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = integers.iter().flat_map(|value| value.to_le_bytes()).collect();
    field(5, &[number(1, integers.len() as u64), number(2, 7), field(8, name.as_bytes()), field(9, &values)].concat())
}

/// An operation from inputs to outputs, names apart by spaces.
fn operation(name: &str, inputs: &str, outputs: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let names = |number: u8, names: &str| names.split(' ').flat_map(|name| field(number, name.as_bytes())).collect();
    let domain = if name.starts_with("SVM") || name.starts_with("Tree") { "ai.onnx.ml" } else { "" };
    let ports: [Vec<u8>; 2] = [names(1, inputs), names(2, outputs)];
    let name = [field(4, name.as_bytes()), field(7, domain.as_bytes())].concat();
    field(1, &[ports.concat(), name, attributes.concat()].concat())
}

/// A graph from the input `x`, rows of two numbers, to the number `y`.
fn graph(parts: &[Vec<u8>]) -> Vec<u8> {
    let shape = [field(1, b""), field(1, &[8, 2])].concat();
    let input = [field(1, b"x"), field(2, &field(1, &[vec![8, 1], field(2, &shape)].concat()))].concat();
    let output = [field(1, b"y"), field(2, &field(1, &[8, 1]))].concat();
    let opset = field(8, &number(2, 18));
    [opset, field(7, &[parts.concat(), field(11, &input), field(12, &output)].concat())].concat()
}

#[test]
fn graphs_that_mix_rows_are_not_ours() {
    let check = |parts: &[Vec<u8>], says: &str| {
        let error = import(&graph(parts)).expect_err(says);
        assert!(is_unsupported_operation(&error), "{error}");
        assert!(error.message().contains(says), "`{error}` does not say `{says}`");
    };
    let axis = |value: u64| integer("axis", value);
    check(&[operation("Softmax", "x", "y", &[axis(0)])], "Softmax across rows");
    check(&[operation("Softmax", "x", "y", &[axis(-2_i64 as u64)])], "Softmax across rows");
    check(&[constant("a", &[0]), operation("ReduceMean", "x a", "y", &[])], "ReduceMean across rows");
    check(&[operation("ReduceSum", "x", "y", &[])], "ReduceSum across rows");
    check(&[constant("a", &[0]), operation("CumSum", "x a", "y", &[])], "CumSum across rows");
    check(&[constant("first", &[0]), operation("Gather", "x first", "y", &[])], "not one part for each row");
    let turned = integers("perm", &[1, 0]);
    check(&[operation("Transpose", "x", "y", std::slice::from_ref(&turned))], "not one part for each row");
    let product = operation("MatMul", "x t", "y", &[]);
    check(&[operation("Transpose", "x", "t", &[turned]), product], "MatMul across rows");
    let counted = operation("Shape", "x", "s", &[]);
    let cast = operation("Cast", "s", "f", &[integer("to", 1)]);
    check(&[counted, cast, operation("Mul", "x f", "y", &[])], "Shape across rows");
    check(&[constant("s", &[1, 2]), operation("Reshape", "x s", "y", &[])], "a fixed number of rows");
    let line = operation("Reshape", "x s", "l", &[]);
    check(&[constant("s", &[1, -1]), line, operation("Softmax", "l", "y", &[])], "Softmax across rows");
    let whole = operation("Cast", "x", "i", &[integer("to", 7)]);
    check(&[whole, operation("Gather", "x i", "y", &[])], "Gather across rows");
}

#[test]
fn trees_whose_rule_changes_from_row_to_row_are_not_ours() {
    let targets = field(5, &[field(1, b"n_targets"), number(3, 2)].concat());
    let forest = |base: &[f32]| {
        let lists = [("target_ids", integers("target_ids", &[0, 1])), ("base_values", floats("base_values", base))];
        ensemble(&[lists[0].clone(), lists[1].clone(), ("n_targets", targets.clone())])
    };
    import(&forest(&[0.0, 0.0])).unwrap();
    let error = import(&forest(&[1.0, 0.0])).unwrap_err();
    assert!(is_unsupported_operation(&error) && error.message().contains("silent leaves"), "{error}");
    refused(&forest(&[1.0, 0.0, 0.0]), "3 base values for 2 outputs");
}

#[test]
fn lying_graphs_are_refused() {
    let check = |parts: &[Vec<u8>], says: &str| refused(&graph(parts), says);
    let cut = |lists: [&[i64]; 4]| {
        let constants = ["s", "e", "a", "t"].iter().zip(lists).map(|(name, list)| constant(name, list));
        constants.chain([operation("Slice", "x s e a t", "y", &[])]).collect::<Vec<Vec<u8>>>()
    };
    import(&graph(&cut([&[0], &[i64::MAX], &[1], &[1]]))).unwrap();
    check(&cut([&[0], &[1], &[1], &[0]]), "no step of 0");
    check(&cut([&[0, 0], &[1], &[1], &[1]]), "as many of each");
    check(&cut([&[0], &[1], &[2], &[1]]), "dimension 2 of 2");
    check(&cut([&[i64::MIN], &[i64::MIN], &[1], &[i64::MIN]]), "makes nothing of a row");
    let split = |sizes: &[i64]| [constant("s", sizes), operation("Split", "x s", "y z", &[integer("axis", 1)])];
    check(&split(&[1, 2]), "2 places are split into [1, 2]");
    check(&split(&[i64::MAX, i64::MAX]), "2 places are split");
    check(&split(&[-1, 3]), "a size is -1");
    let first = |count: i64| [constant("k", &[count]), operation("TopK", "x k", "y at", &[])];
    check(&first(3), "the first 3 of 2 places");
    check(&first(i64::MAX), "of 2 places");
    check(&first(-1), "a size is -1");
    let fill = |sizes: &[i64]| [constant("s", sizes), operation("ConstantOfShape", "s", "y", &[])];
    check(&fill(&[1 << 40]), "is too large");
    check(&fill(&[i64::MAX, i64::MAX]), "is too large");
    check(&fill(&[-1]), "a size is negative");
    // Each is small enough alone.
    let name = |at: usize| format!("c{at}");
    let many = (0..8).map(|at| operation("ConstantOfShape", "s", &name(at), &[]));
    check(&many.chain([constant("s", &[1 << 22])]).collect::<Vec<_>>(), "are computed of the file's constants");
    check(&[constant("p", &[9]), operation("GatherElements", "x p", "y", &[integer("axis", 1)])], "places of shape");
    check(&[constant("p", &[9]), operation("Gather", "x p", "y", &[integer("axis", 1)])], "a place outside the 2");
    check(&[operation("CumSum", "x", "y", &[])], "it has no `axis`");
}

/// A graph of one SVMClassifier of three classes and two features, one vector each, with some attributes replaced.
fn svm(replaced: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut attributes = vec![
        ("classlabels_ints", integers("classlabels_ints", &[0, 1, 2])),
        ("kernel_type", text("kernel_type", "RBF")),
        ("kernel_params", floats("kernel_params", &[0.5, 0.0, 3.0])),
        ("vectors_per_class", integers("vectors_per_class", &[1, 1, 1])),
        ("support_vectors", floats("support_vectors", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ("coefficients", floats("coefficients", &[1.0; 6])),
        ("rho", floats("rho", &[0.5; 3])),
        ("prob_a", floats("prob_a", &[-1.0; 3])),
        ("prob_b", floats("prob_b", &[0.0; 3])),
    ];
    for (name, bytes) in replaced {
        attributes.retain(|(known, _)| known != name);
        attributes.push((name, bytes.clone()));
    }
    let attributes: Vec<Vec<u8>> = attributes.into_iter().map(|(_, bytes)| bytes).collect();
    graph(&[operation("SVMClassifier", "x", "label y", &attributes)])
}

#[test]
fn lying_support_vectors_are_refused() {
    let check = |name: &'static str, bytes: Vec<u8>, says: &str| refused(&svm(&[(name, bytes)]), says);
    let model = import(&svm(&[])).unwrap();
    let mut out = [0.0; 3];
    model.predict(&Rows::F64 { values: &[0.5, -0.5], features: 2 }, Output::Score, &mut out).unwrap();
    assert!((out.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{out:?}");
    check("support_vectors", floats("support_vectors", &[0.0; 5]), "5 values do not make 3 vectors");
    check("support_vectors", floats("support_vectors", &[]), "0 values do not make 3 vectors");
    check("support_vectors", floats("support_vectors", &[0.0; 9]), "rows of 2 values; the vectors have 3");
    check("support_vectors", floats("support_vectors", &[f32::NAN; 6]), "`support_vectors` has NaN at place 0");
    check("coefficients", floats("coefficients", &[1.0; 5]), "`coefficients` has 5 places; 6 are expected");
    check("coefficients", floats("coefficients", &[f32::INFINITY; 6]), "`coefficients` has inf");
    check("rho", floats("rho", &[0.5; 2]), "`rho` has 2 places; 3 are expected");
    check("prob_a", floats("prob_a", &[-1.0; 1]), "`prob_a` has 1 places");
    check("prob_b", Vec::new(), "`prob_b` has 0 places");
    check("kernel_type", text("kernel_type", "COSINE"), "`kernel_type` is `COSINE`");
    check("kernel_params", floats("kernel_params", &[0.5]), "`kernel_params` has 1 places");
    check("vectors_per_class", integers("vectors_per_class", &[3]), "1 places for 3 classes");
    check("vectors_per_class", integers("vectors_per_class", &[2, 2, 2]), "`coefficients` has 6 places; 12");
    let huge = |value: u64| [integer_list("vectors_per_class", &[value, value, 1])].concat();
    check("vectors_per_class", huge(1 << 62), "`coefficients` has 6 places");
    check("vectors_per_class", huge(u64::MAX), "a class has -1 vectors");
    check("classlabels_ints", integers("classlabels_ints", &[0]), "it has one class");
    check("classlabels_ints", Vec::new(), "it has no class labels");
    check("classlabels_ints", integers("classlabels_ints", &[1; 513]), "513 classes; the most is 512");
    let regressor = |count: u64| {
        let lists = [floats("support_vectors", &[1.0; 4]), floats("coefficients", &[1.0; 2]), floats("rho", &[0.0])];
        graph(&[operation("SVMRegressor", "x", "y", &[lists.concat(), integer("n_supports", count)])])
    };
    import(&regressor(2)).unwrap();
    refused(&regressor(3), "4 values do not make 3 vectors");
    refused(&regressor(1), "`coefficients` has 2 places; 1 are expected");
    refused(&regressor(u64::MAX), "`n_supports` is -1");
}

/// A list of integers of any size.
fn integer_list(name: &str, values: &[u64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| number(8, *value)).collect();
    field(5, &[field(1, name.as_bytes()), values].concat())
}

/// A tensor attribute.
fn tensor(name: &str, element: u64, values: &[u8], count: u64) -> Vec<u8> {
    let tensor = [number(1, count), number(2, element), field(9, values)].concat();
    field(5, &[field(1, name.as_bytes()), field(5, &tensor)].concat())
}

#[test]
fn lying_sets_of_members_are_refused() {
    let singles = |name: &str, values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensor(name, 1, &bytes, values.len() as u64)
    };
    let model = |members: &[f32], roots: &[u8]| {
        let nodes = ["nodes_featureids", "nodes_truenodeids", "leaf_targetids"].map(|name| integers(name, &[0]));
        let more = [integers("nodes_falsenodeids", &[0]), integers("nodes_trueleafs", &[1])].concat();
        let ends = [integers("nodes_falseleafs", &[1]), integers("tree_roots", roots)].concat();
        let lists =
            [singles("nodes_splits", &[0.0]), singles("leaf_weights", &[1.0]), tensor("nodes_modes", 2, &[6], 1)];
        let attributes = [nodes.concat(), more, ends, lists.concat(), singles("membership_values", members)];
        graph(&[operation("TreeEnsemble", "x", "y", &attributes)])
    };
    import(&model(&[-2.5, 1.0, f32::NAN], &[0])).unwrap();
    refused(&model(&[f32::NAN], &[0]), "no set for node 0");
    refused(&model(&[], &[0]), "no set for node 0");
    refused(&model(&[1.0], &[1]), "there are 1 nodes");
    // Trees that share a root do not multiply its set beyond the limit.
    let limits = Limits { nodes: 40, ..Limits::default() };
    refused_within(&model(&[1.0, 2.0, 3.0, 4.0, 5.0], &[0; 9]), &limits, "members of sets");
}

#[test]
fn text_inputs_are_told_what_to_do() {
    let shape = [field(1, b""), field(1, &[8, 1])].concat();
    let input = [field(1, b"city"), field(2, &field(1, &[vec![8, 8], field(2, &shape)].concat()))].concat();
    let output = [field(1, b"y"), field(2, &field(1, &[8, 8]))].concat();
    let parts = [operation("Identity", "city", "y", &[]), field(11, &input), field(12, &output)].concat();
    let error = import(&field(7, &parts)).unwrap_err();
    assert!(error.message().contains("prepare text columns before the model"), "{error}");
    assert!(!is_unsupported_operation(&error), "no runtime could be given text");
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
        "skl_svc_rbf.onnx",
        "skl_bagging.onnx",
        "skl_ada_regressor.onnx",
        "ml_two_bases_both_none.onnx",
        "op_parts.onnx",
        "op_order.onnx",
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
