//! Forests in the JSON that the generating scripts of tests and measurements write: for each tree one array for each
//! property of its nodes. `left` is -1 for a leaf; a split goes left when `x <= threshold`, or `x < threshold` where
//! `strict` is true, or when `x` is one of its `categories`; a missing value goes left where `missing_left` says so.
//!
//! Only for files that those scripts wrote: others panic.

use mainstay_models::forest::{Forest, Join, LeafOutput, Missing, Node, Split, Test, Tree};
use serde_json::Value;

/// Read a forest.
pub fn forest(json: &Value) -> Forest {
    let is_strict = json["strict"].as_bool().unwrap_or(false);
    let trees = json["trees"].as_array().expect("trees").iter().map(|json| tree(json, is_strict)).collect();
    let base = numbers(&json["base"]);
    let join = if json["average"].as_bool().unwrap_or(false) { Join::Average } else { Join::Sum };
    Forest::new(Forest {
        trees,
        features: json["features"].as_u64().expect("features") as u32,
        outputs: base.len() as u32,
        base,
        join,
        compares_f32: json["compares_f32"].as_bool().expect("compares_f32"),
        adds_f32: false,
    })
    .expect("a forest that holds its invariants")
}

/// A tree with its nodes in pre-order, whatever their order was.
fn tree(json: &Value, is_strict: bool) -> Tree {
    let mut tree = Tree::default();
    node(json, 0, is_strict, &mut tree);
    tree
}

fn node(json: &Value, at: usize, is_strict: bool, tree: &mut Tree) -> u32 {
    let here = tree.nodes.len();
    let cover = json["cover"][at].as_f64().expect("cover");
    let left = json["left"][at].as_i64().expect("left");
    let first = tree.leaf_outputs.len() as u32;
    if left < 0 {
        let output = json["output"].as_u64().unwrap_or(0) as u32;
        let values = numbers(&json["value"][at]);
        let added = values.iter().enumerate().map(|(k, value)| LeafOutput { output: output + k as u32, value: *value });
        tree.leaf_outputs.extend(added);
        tree.nodes.push(Node::Leaf { first, count: values.len() as u32, cover });
        return here as u32;
    }
    let threshold = || exact(json["threshold"][at].as_f64().expect("threshold"));
    let test = match json["categories"][at].as_array() {
        Some(codes) => {
            tree.sets.push(codes.iter().map(|code| code.as_u64().expect("code") as u32).collect());
            Test::Member(tree.sets.len() as u32 - 1)
        }
        None if is_strict => Test::Less(threshold()),
        None => Test::AtMost(threshold()),
    };
    tree.nodes.push(Node::Leaf { first: 0, count: 0, cover: 0.0 });
    let yes = node(json, left as usize, is_strict, tree);
    let no = node(json, json["right"][at].as_u64().expect("right") as usize, is_strict, tree);
    let feature = json["feature"][at].as_u64().expect("feature") as u32;
    let missing_is_yes = json["missing_left"][at].as_bool().unwrap_or(false);
    tree.nodes[here] = Node::Split(Split { feature, test, missing: Missing::Nan, missing_is_yes, yes, no, cover });
    here as u32
}

/// A threshold as it was written. The reader of JSON may be a unit in the last place off; that matters where a threshold is
/// the very value of a row, and those are single precision.
fn exact(threshold: f64) -> f64 {
    let single = f64::from(threshold as f32);
    if (threshold - single).abs() <= 4.0 * f64::EPSILON * threshold.abs() { single } else { threshold }
}

/// Numbers of an array, or one; `null` is NaN.
pub fn numbers(json: &Value) -> Vec<f64> {
    match json.as_array() {
        Some(items) => items.iter().flat_map(numbers).collect(),
        None => vec![json.as_f64().unwrap_or(f64::NAN)],
    }
}
