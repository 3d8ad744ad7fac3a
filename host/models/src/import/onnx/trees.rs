//! ONNX's tree ensembles (`ai.onnx.ml`): TreeEnsembleClassifier and TreeEnsembleRegressor of versions 1 and 3,
//! TreeEnsemble of version 5.
//!
//! Owns how their parallel lists become a forest. Values are compared and added in `f32` unless the file says double, as
//! onnxruntime does. `BRANCH_MEMBER` asks whether a value is a number of the set, whole or not, as the operator's document
//! has it; onnxruntime, whose answers are ours elsewhere, looks at the integer part alone where it packs a set into bits.
//!
//! Bounded by: [`Limits`]; lists must agree in length. On failure: `invalid` names the list, the tree and the node.

use std::collections::HashMap;

use mainstay_base::{Error, Result};

use super::proto::{Node as Operation, shown};
use crate::forest::{Forest, Join, LeafOutput, Missing, Node, Split, Test, Tree};
use crate::import::assemble::{Raw, assemble};
use crate::import::limits::Limits;
use crate::link::Link;
use crate::pipeline::{Kind, Tensor};

/// `post_transform`.
pub(super) fn link_of(name: &str) -> Result<Link> {
    Ok(match name {
        "NONE" => Link::Identity,
        "SOFTMAX" => Link::Softmax,
        "LOGISTIC" => Link::Sigmoid { scale: 1.0 },
        "SOFTMAX_ZERO" => Link::SoftmaxZero,
        "PROBIT" => Link::Probit,
        other => return Err(Error::invalid(format!("`post_transform` is `{}`", shown(other)))),
    })
}

fn join_of(name: &str) -> Result<Join> {
    Ok(match name {
        "SUM" => Join::Sum,
        "AVERAGE" => Join::Average,
        "MIN" => Join::Min,
        "MAX" => Join::Max,
        other => return Err(Error::invalid(format!("`aggregate_function` is `{}`", shown(other)))),
    })
}

/// Additions of version 1 and 3: parallel lists of tree, node, output, weight.
pub(super) struct Weights {
    pub trees: Vec<i64>,
    pub nodes: Vec<i64>,
    pub outputs: Vec<i64>,
    pub weights: Vec<f64>,
    pub is_double: bool,
}

impl Weights {
    /// `prefix` is `class` or `target`.
    pub fn read(operation: &Operation<'_>, prefix: &str) -> Result<Weights> {
        let (weights, is_double) = operation.reals(&format!("{prefix}_weights"))?;
        let list = |name: &str| {
            let list = operation.integers(&format!("{prefix}_{name}"))?;
            match list.len() == weights.len() {
                true => Ok(list),
                false => Err(Error::invalid(format!(
                    "`{prefix}_{name}` has {} places, `{prefix}_weights` {}",
                    list.len(),
                    weights.len()
                ))),
            }
        };
        let (trees, nodes, outputs) = (list("treeids")?, list("nodeids")?, list("ids")?);
        Ok(Weights { trees, nodes, outputs, weights, is_double })
    }

    pub fn has_negative(&self) -> bool {
        self.weights.iter().any(|weight| *weight < 0.0)
    }

    /// Leave out all but those of one output.
    pub fn keep(&mut self, output: i64) {
        let kept: Vec<usize> = (0..self.weights.len()).filter(|at| self.outputs[*at] == output).collect();
        let of = |list: &[i64]| kept.iter().map(|at| list[*at]).collect();
        (self.trees, self.nodes, self.outputs) = (of(&self.trees), of(&self.nodes), of(&self.outputs));
        self.weights = kept.iter().map(|at| self.weights[*at]).collect();
    }
}

/// The parallel lists that describe nodes.
struct Nodes<'a> {
    features: Vec<i64>,
    values: Vec<f64>,
    modes: Vec<&'a str>,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing_tracks_true: Vec<i64>,
    is_double: bool,
}

/// A forest of version 1 or 3, whose rows have `features` values or, when that is none, as many as nodes ask for.
pub(super) fn parallel_lists(
    operation: &Operation<'_>,
    additions: &Weights,
    outputs: usize,
    base: Vec<f64>,
    features: usize,
    limits: &Limits,
) -> Result<Forest> {
    let (trees, nodes) = (operation.integers("nodes_treeids")?, operation.integers("nodes_nodeids")?);
    Limits::check("nodes", trees.len(), limits.nodes)?;
    let lists = Nodes::read(operation, trees.len())?;
    if nodes.len() != trees.len() {
        return Err(Error::invalid(format!("`nodes_nodeids` has {} places for {} nodes", nodes.len(), trees.len())));
    }
    // By tree in order of appearance, each node's place in the lists.
    let mut members: Vec<Vec<u32>> = Vec::new();
    let mut tree_of: HashMap<i64, usize> = HashMap::new();
    let mut place_of: HashMap<(i64, i64), u32> = HashMap::new();
    for (place, key) in trees.iter().copied().zip(nodes.iter().copied()).enumerate() {
        let next = members.len();
        let tree = *tree_of.entry(key.0).or_insert(next);
        if tree == next {
            Limits::check("trees", next + 1, limits.trees)?;
            members.push(Vec::new());
        }
        place_of.insert(key, members[tree].len() as u32);
        members[tree].push(place as u32);
    }
    if place_of.len() != trees.len() {
        return Err(Error::invalid("a tree and node number are there twice in `nodes_treeids` and `nodes_nodeids`"));
    }
    let mut leaves: HashMap<(i64, i64), Vec<LeafOutput>> = HashMap::new();
    for at in 0..additions.weights.len() {
        let key = (additions.trees[at], additions.nodes[at]);
        let output = u32::try_from(additions.outputs[at]).ok().filter(|output| (*output as usize) < outputs);
        let output = output.ok_or_else(|| {
            Error::invalid(format!("weight {at} is for output {} of {outputs}", additions.outputs[at]))
        })?;
        if !place_of.contains_key(&key) {
            return Err(Error::invalid(format!(
                "weight {at} is for node {} of tree {}, which is not there",
                key.1, key.0
            )));
        }
        leaves.entry(key).or_default().push(LeafOutput { output, value: additions.weights[at] });
    }
    let mut forest = empty_forest(outputs, base, features, lists.is_double || additions.is_double);
    forest.join = join_of(operation.text("aggregate_function")?.unwrap_or("SUM"))?;
    for places in &members {
        let number = trees[places[0] as usize];
        let tree = tree_of_lists(&lists, places, number, &nodes, &place_of, &leaves, limits);
        forest.trees.push(tree.map_err(|error| error.context(format_args!("tree {number}")))?);
    }
    Forest::new(forest)
}

/// Whether rows get something for an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Adds {
    /// No leaf adds to it.
    Never,
    /// That depends on the row.
    Sometimes,
    /// Some tree adds to it in every leaf.
    Always,
}

/// The same for every output of a forest.
pub(super) fn adds(forest: &Forest) -> Vec<Adds> {
    let outputs = forest.outputs as usize;
    let (mut found, mut leaf) = (vec![Adds::Never; outputs], 0_u64);
    // By output: the leaf that was met last, and leaves of this tree.
    let (mut last, mut counts) = (vec![0; outputs], vec![0_u64; outputs]);
    for tree in &forest.trees {
        let (before, mut touched) = (leaf, Vec::new());
        for (node, at) in tree.nodes.iter().zip(0..) {
            let Node::Leaf { .. } = node else { continue };
            leaf += 1;
            for output in tree.additions(at).iter().map(|addition| addition.output as usize) {
                // A leaf may add to an output twice.
                if std::mem::replace(&mut last[output], leaf) != leaf {
                    if counts[output] == 0 {
                        touched.push(output);
                    }
                    counts[output] += 1;
                }
            }
        }
        for output in touched {
            let is_all = std::mem::take(&mut counts[output]) == leaf - before;
            found[output] = found[output].max(if is_all { Adds::Always } else { Adds::Sometimes });
        }
    }
    found
}

fn empty_forest(outputs: usize, base: Vec<f64>, features: usize, is_double: bool) -> Forest {
    Forest {
        trees: Vec::new(),
        features: features as u32,
        outputs: outputs as u32,
        base,
        join: Join::Sum,
        compares_f32: !is_double,
        adds_f32: !is_double,
    }
}

fn tree_of_lists(
    lists: &Nodes<'_>,
    places: &[u32],
    number: i64,
    nodes: &[i64],
    place_of: &HashMap<(i64, i64), u32>,
    leaves: &HashMap<(i64, i64), Vec<LeafOutput>>,
    limits: &Limits,
) -> Result<Tree> {
    let child = |node: i64| {
        let place = place_of.get(&(number, node)).copied();
        place.ok_or_else(|| Error::invalid(format!("its child {node} is not there")))
    };
    let is_leaf = |at: usize| lists.modes[at] == "LEAF";
    let mut has_parent = vec![false; places.len()];
    for at in places.iter().map(|place| *place as usize).filter(|at| !is_leaf(*at)) {
        for node in [lists.yes[at], lists.no[at]] {
            has_parent[child(node).map_err(|error| error.context(format_args!("node {}", nodes[at])))? as usize] = true;
        }
    }
    let root = has_parent.iter().position(|has| !has).ok_or_else(|| Error::invalid("every node is another's child"))?;
    let (tree, order) = assemble(root as u32, places.len(), Vec::new(), limits, |node| {
        let at = places[node as usize] as usize;
        if is_leaf(at) {
            let additions = leaves.get(&(number, nodes[at])).cloned().unwrap_or_default();
            return Ok(Raw::Leaf { cover: 0.0, additions, line: None });
        }
        let feature = feature_index(lists.features[at])?;
        let is_missing_true = lists.missing_tracks_true.get(at).is_some_and(|tracks| *tracks != 0);
        let (yes, no) = (child(lists.yes[at])?, child(lists.no[at])?);
        split(lists.modes[at], lists.values[at], feature, is_missing_true, yes, no).map(Raw::Split)
    })?;
    match order.len() == places.len() {
        true => Ok(tree),
        false => Err(Error::invalid(format!("only {} of its {} nodes are under its root", order.len(), places.len()))),
    }
}

fn feature_index(feature: i64) -> Result<u32> {
    u32::try_from(feature).map_err(|_| Error::invalid(format!("it asks for feature {feature}")))
}

/// A split by its mode; `yes` is taken when the mode's comparison is true.
fn split(mode: &str, threshold: f64, feature: u32, tracks_true: bool, yes: u32, no: u32) -> Result<Split> {
    let (test, is_swapped) = match mode {
        "BRANCH_LEQ" => (Test::AtMost(threshold), false),
        "BRANCH_LT" => (Test::Less(threshold), false),
        "BRANCH_GTE" => (Test::Less(threshold), true),
        "BRANCH_GT" => (Test::AtMost(threshold), true),
        "BRANCH_EQ" => (Test::Equal(threshold), false),
        "BRANCH_NEQ" => (Test::Equal(threshold), true),
        other => return Err(Error::invalid(format!("its mode is `{}`", shown(other)))),
    };
    // NaN differs from everything.
    let missing_is_true = tracks_true || mode == "BRANCH_NEQ";
    let (yes, no) = if is_swapped { (no, yes) } else { (yes, no) };
    Ok(Split {
        feature,
        test,
        missing: Missing::Nan,
        missing_is_yes: missing_is_true != is_swapped,
        yes,
        no,
        cover: 0.0,
    })
}

impl<'a> Nodes<'a> {
    fn read(operation: &Operation<'a>, count: usize) -> Result<Nodes<'a>> {
        fn sized<T>(list: Vec<T>, name: &str, count: usize) -> Result<Vec<T>> {
            match list.len() == count {
                true => Ok(list),
                false => Err(Error::invalid(format!("`{name}` has {} places for {count} nodes", list.len()))),
            }
        }
        let integers = |name: &str| sized(operation.integers(name)?, name, count);
        let (values, is_double) = operation.reals("nodes_values")?;
        let tracks = operation.integers("nodes_missing_value_tracks_true")?;
        Ok(Nodes {
            features: integers("nodes_featureids")?,
            values: sized(values, "nodes_values", count)?,
            modes: sized(operation.texts("nodes_modes")?, "nodes_modes", count)?,
            yes: integers("nodes_truenodeids")?,
            no: integers("nodes_falsenodeids")?,
            missing_tracks_true: if tracks.is_empty() {
                tracks
            } else {
                sized(tracks, "nodes_missing_value_tracks_true", count)?
            },
            is_double,
        })
    }
}

/// A forest of version 5 and its link.
pub(super) fn version_5(operation: &Operation<'_>, features: usize, limits: &Limits) -> Result<(Forest, Link)> {
    let needed = |name: &str| {
        let tensor = operation.tensor(name)?;
        tensor.ok_or_else(|| Error::invalid(format!("the attribute `{name}` is missing")))
    };
    let splits = needed("nodes_splits")?;
    let count = splits.values.len();
    Limits::check("nodes", count, limits.nodes / 2)?;
    let list = |name: &str| {
        let list = operation.integers(name)?;
        match list.len() == count {
            true => Ok(list),
            false => Err(Error::invalid(format!("`{name}` has {} places for {count} nodes", list.len()))),
        }
    };
    let leaf_weights = needed("leaf_weights")?;
    let leaf_outputs = operation.integers("leaf_targetids")?;
    let modes = needed("nodes_modes")?.values;
    if leaf_outputs.len() != leaf_weights.values.len() || modes.len() != count {
        return Err(Error::invalid(
            "`leaf_targetids` and `leaf_weights`, or `nodes_modes` and `nodes_splits`, differ in length",
        ));
    }
    let tracks = operation.integers("nodes_missing_value_tracks_true")?;
    let outputs = operation.integer("n_targets")?.unwrap_or(1);
    let outputs = usize::try_from(outputs).unwrap_or(usize::MAX);
    Limits::check("targets", outputs, limits.classes)?;
    let five = Five {
        features: list("nodes_featureids")?,
        yes: list("nodes_truenodeids")?,
        no: list("nodes_falsenodeids")?,
        yes_is_leaf: list("nodes_trueleafs")?,
        no_is_leaf: list("nodes_falseleafs")?,
        sets: member_sets(operation.tensor("membership_values")?, &modes)?,
        tracks: if tracks.is_empty() { vec![0; count] } else { list("nodes_missing_value_tracks_true")? },
        thresholds: &splits.values,
        leaf_weights: &leaf_weights.values,
        leaf_outputs,
        modes,
    };
    let is_double = splits.kind == Kind::F64;
    let mut forest = empty_forest(outputs, vec![0.0; outputs], features, is_double);
    forest.join = join_of(match operation.integer("aggregate_function")?.unwrap_or(1) {
        0 => "AVERAGE",
        1 => "SUM",
        2 => "MIN",
        3 => "MAX",
        _ => "unknown",
    })?;
    let link = link_of(match operation.integer("post_transform")?.unwrap_or(0) {
        0 => "NONE",
        1 => "SOFTMAX",
        2 => "LOGISTIC",
        3 => "SOFTMAX_ZERO",
        4 => "PROBIT",
        _ => "unknown",
    })?;
    let roots = operation.integers("tree_roots")?;
    Limits::check("trees", roots.len(), limits.trees)?;
    // Trees may share a root, and each has its own copy of the sets under it.
    let (mut nodes_left, mut members_left) = (limits.nodes, limits.nodes);
    for root in roots {
        let tree = five.tree(root, &mut nodes_left, &mut members_left, limits);
        forest.trees.push(tree.map_err(|error| error.context(format_args!("the tree at root {root}")))?);
    }
    Ok((Forest::new(forest)?, link))
}

/// The lists of version 5: nodes are places, leaves have lists of their own.
struct Five<'a> {
    features: Vec<i64>,
    thresholds: &'a [f64],
    modes: Vec<f64>,
    yes: Vec<i64>,
    no: Vec<i64>,
    yes_is_leaf: Vec<i64>,
    no_is_leaf: Vec<i64>,
    tracks: Vec<i64>,
    leaf_weights: &'a [f64],
    leaf_outputs: Vec<i64>,
    /// By node.
    sets: HashMap<u32, Vec<f64>>,
}

/// One set for each node of mode `BRANCH_MEMBER`, in order, its numbers ascending; NaN ends each.
fn member_sets(values: Option<Tensor>, modes: &[f64]) -> Result<HashMap<u32, Vec<f64>>> {
    let values = values.map(|tensor| tensor.values).unwrap_or_default();
    let mut sets = values.split(|value| value.is_nan());
    let mut found = HashMap::new();
    for node in modes.iter().zip(0_u32..).filter(|(mode, _)| **mode == 6.0).map(|(_, node)| node) {
        let set = sets.next().filter(|set| !set.is_empty());
        let set = set.ok_or_else(|| Error::invalid(format!("`membership_values` has no set for node {node}")))?;
        let mut numbers = set.to_vec();
        numbers.sort_unstable_by(f64::total_cmp);
        // Both zeros are one number.
        numbers.dedup();
        found.insert(node, numbers);
    }
    Ok(found)
}

impl Five<'_> {
    fn tree(&self, root: i64, nodes_left: &mut usize, members_left: &mut usize, limits: &Limits) -> Result<Tree> {
        let count = self.features.len();
        let root = u32::try_from(root).ok().filter(|root| (*root as usize) < count);
        let root = root.ok_or_else(|| Error::invalid(format!("there are {count} nodes")))?;
        // Numbers are given out as nodes are met: a leaf may have several parents, and trees share the lists.
        let mut met: Vec<(i64, bool)> = vec![(i64::from(root), false)];
        let mut lists = Vec::new();
        let size = self.size(root, *nodes_left)?;
        *nodes_left -= size;
        let (mut tree, _) = assemble(0, size, Vec::new(), limits, |number| {
            let (at, is_leaf) = met[number as usize];
            if is_leaf {
                return self.leaf(at);
            }
            let at = at as usize;
            let first = met.len() as u32;
            met.push((self.yes[at], self.yes_is_leaf[at] != 0));
            met.push((self.no[at], self.no_is_leaf[at] != 0));
            self.split(at, first, first + 1, &mut lists, members_left)
        })?;
        tree.lists = lists;
        Ok(tree)
    }

    /// Nodes under a root, leaves counted for each parent; `invalid` when a node is met twice.
    fn size(&self, root: u32, most: usize) -> Result<usize> {
        let mut is_met = HashMap::new();
        let (mut open, mut size) = (vec![i64::from(root)], 0_usize);
        while let Some(node) = open.pop() {
            let at = usize::try_from(node).ok().filter(|at| *at < self.features.len());
            let at = at.ok_or_else(|| {
                Error::invalid(format!("node {node} is named, but there are {}", self.features.len()))
            })?;
            if is_met.insert(at, ()).is_some() {
                return Err(Error::invalid(format!("two ways lead to node {at}; this is no tree")));
            }
            size += 1;
            for (child, is_leaf) in [(self.yes[at], self.yes_is_leaf[at]), (self.no[at], self.no_is_leaf[at])] {
                if is_leaf != 0 { size += 1 } else { open.push(child) }
            }
            Limits::check("nodes", size, most)?;
        }
        Ok(size)
    }

    fn leaf(&self, leaf: i64) -> Result<Raw> {
        let at = usize::try_from(leaf).ok().filter(|at| *at < self.leaf_weights.len());
        let at = at.ok_or_else(|| Error::invalid(format!("leaf {leaf} of {}", self.leaf_weights.len())))?;
        let output = u32::try_from(self.leaf_outputs[at]);
        let output =
            output.map_err(|_| Error::invalid(format!("leaf {leaf} is for target {}", self.leaf_outputs[at])))?;
        let additions = vec![LeafOutput { output, value: self.leaf_weights[at] }];
        Ok(Raw::Leaf { cover: 0.0, additions, line: None })
    }

    fn split(&self, at: usize, yes: u32, no: u32, lists: &mut Vec<Vec<f64>>, members_left: &mut usize) -> Result<Raw> {
        let feature = feature_index(self.features[at])?;
        let tracks = self.tracks[at] != 0;
        if let Some(set) = self.sets.get(&(at as u32)) {
            Limits::check("members of sets", set.len(), *members_left)?;
            *members_left -= set.len();
            lists.push(set.clone());
            let test = Test::OneOf(lists.len() as u32 - 1);
            let (missing, missing_is_yes) = (Missing::Nan, tracks);
            return Ok(Raw::Split(Split { feature, test, missing, missing_is_yes, yes, no, cover: 0.0 }));
        }
        let modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];
        let mode = modes.iter().zip(0_u8..).find(|(_, number)| f64::from(*number) == self.modes[at]);
        let mode = mode.ok_or_else(|| Error::invalid(format!("its mode is {}", self.modes[at])))?.0;
        split(mode, self.thresholds[at], feature, tracks, yes, no).map(Raw::Split)
    }
}
