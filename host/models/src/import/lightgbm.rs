//! LightGBM's text files (versions 2 to 4).
//!
//! Owns the format: a header, a block of `key=value` lines a tree, an end. Definitions follow LightGBM's `tree.cpp`,
//! `gbdt_model_text.cpp` and the objectives' `ConvertOutput`. Leaves already contain shrinkage. Of a random forest
//! (`average_output`) the raw output is the sum of its trees, as everywhere; their average is what the link is given.
//!
//! Bounded by: [`Limits`]; a list is believed to be as long as it is. On failure: `invalid` names the tree, the key and the
//! node.

use std::str::FromStr;

use mainstay_base::{Error, Result};

use super::assemble::{Raw, assemble};
use super::limits::Limits;
use crate::forest::{Forest, Join, LeafLine, LeafOutput, Missing, Split, Test, Tree};
use crate::link::Link;
use crate::model::{Body, Feature, FeatureKind, Format, Model, Task};

/// Build a model from the file's text.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Model> {
    read_file(text, limits).map_err(|error| error.context("LightGBM model"))
}

fn read_file(text: &str, limits: &Limits) -> Result<Model> {
    let ends = ["\nTree=", "\nend of trees"].into_iter().filter_map(|start| text.find(start));
    let (head, mut rest) = text.split_at(ends.min().map_or(text.len(), |at| at + 1));
    let header = Header::read(&Block::read(head)?, head, limits)?;
    let (mut trees, mut leaf_ids, mut nodes_left) = (Vec::new(), Vec::new(), limits.nodes);
    while rest.starts_with("Tree=") {
        let (block, behind) = rest.split_at(rest.find("\n\n").unwrap_or(rest.len()));
        let number = trees.len();
        Limits::check("trees", number + 1, limits.trees)?;
        let output = (number % header.outputs) as u32;
        let (tree, ids) = Block::read(block)
            .and_then(|block| read_tree(&block, output, &mut nodes_left, limits))
            .map_err(|error| error.context(format_args!("tree {number}")))?;
        trees.push(tree);
        leaf_ids.push(ids);
        rest = behind.trim_start_matches('\n');
    }
    if !rest.starts_with("end of trees") {
        return Err(Error::invalid("`end of trees` does not follow the last tree; is the file complete?"));
    }
    if !trees.len().is_multiple_of(header.outputs) {
        let (trees, outputs) = (trees.len(), header.outputs);
        return Err(Error::invalid(format!("{trees} trees for {outputs} outputs; is the file complete?")));
    }
    header.model(trees, leaf_ids)
}

/// The lines of a block; keys in order of appearance.
struct Block<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Block<'a> {
    fn read(text: &'a str) -> Result<Block<'a>> {
        let mut lines: Vec<(&str, &str)> = Vec::new();
        for line in text.lines() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            // A block has some thirty keys, each once.
            if lines.iter().any(|(known, _)| *known == key && !key.is_empty()) {
                return Err(Error::invalid(format!("`{}` is there twice", shown(key))));
            }
            if lines.len() >= 64 {
                return Err(Error::invalid("more than 64 lines in one block"));
            }
            lines.push((key, value.trim()));
        }
        Ok(Block(lines))
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    fn get(&self, key: &str) -> Result<&'a str> {
        self.find(key).ok_or_else(|| Error::invalid(format!("`{key}` is missing")))
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<T> {
        parse(key, self.get(key)?)
    }

    fn number_or<T: FromStr>(&self, key: &str, otherwise: T) -> Result<T> {
        self.find(key).map_or(Ok(otherwise), |value| parse(key, value))
    }

    /// Exactly so many numbers.
    fn list<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>> {
        let values = self.all(key)?;
        match values.len() == count {
            true => Ok(values),
            false => Err(Error::invalid(format!("`{key}` has {} places; {count} are expected", values.len()))),
        }
    }

    fn all<T: FromStr>(&self, key: &str) -> Result<Vec<T>> {
        self.get(key)?.split_ascii_whitespace().map(|value| parse(key, value)).collect()
    }
}

fn parse<T: FromStr>(key: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::invalid(format!("`{key}` has the value `{}`", shown(value))))
}

/// The beginning of a foreign text, for messages.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

struct Header {
    objective: String,
    link: Link,
    outputs: usize,
    features: Vec<Feature>,
    /// Whether the link is given the average over rounds.
    is_average: bool,
}

impl Header {
    fn read(block: &Block<'_>, text: &str, limits: &Limits) -> Result<Header> {
        let outputs: usize = block.number_or("num_tree_per_iteration", 1)?;
        Limits::check("trees a round", outputs, limits.classes)?;
        if outputs == 0 {
            return Err(Error::invalid("`num_tree_per_iteration` is 0"));
        }
        let last: usize = block.number("max_feature_idx")?;
        let count = last.saturating_add(1);
        Limits::check("features", count, limits.features)?;
        let names: Vec<&str> =
            block.find("feature_names").unwrap_or("").split(' ').filter(|name| !name.is_empty()).collect();
        let infos: Vec<&str> =
            block.find("feature_infos").unwrap_or("").split(' ').filter(|info| !info.is_empty()).collect();
        if !names.is_empty() && names.len() != count {
            return Err(Error::invalid(format!("`feature_names` has {} places for {count} features", names.len())));
        }
        let feature = |at: usize| Feature {
            name: names.get(at).map_or_else(|| format!("Column_{at}"), |name| (*name).to_owned()),
            kind: match infos.get(at) {
                // `[min:max]` or the categories, `0:1:2`.
                Some(info) if info.contains(':') && !info.starts_with('[') => FeatureKind::Categorical,
                _ => FeatureKind::Number,
            },
        };
        let objective = block.find("objective").unwrap_or("").to_owned();
        let is_average = text.lines().any(|line| line == "average_output");
        Ok(Header {
            link: link_of(&objective)?,
            objective,
            outputs,
            features: (0..count).map(feature).collect(),
            is_average,
        })
    }

    fn model(self, trees: Vec<Tree>, leaf_ids: Vec<Vec<u32>>) -> Result<Model> {
        let rounds = if self.is_average { (trees.len() / self.outputs).max(1) } else { 1 };
        let forest = Forest::new(Forest {
            trees,
            features: self.features.len() as u32,
            outputs: self.outputs as u32,
            base: vec![0.0; self.outputs],
            join: Join::Sum,
            compares_f32: false,
            adds_f32: false,
        })?;
        let name = self.objective.split(' ').next().unwrap_or("");
        let classes = match name {
            "multiclass" | "softmax" | "multiclassova" | "multiclass_ova" | "ova" | "ovr" => self.outputs,
            "binary" => 2,
            _ => 0,
        };
        Ok(Model {
            format: Format::Lightgbm,
            task: if classes > 0 { Task::Classification } else { Task::Regression },
            objective: self.objective,
            features: self.features,
            classes: (0..classes).map(|class| class.to_string()).collect(),
            output_names: Vec::new(),
            body: Body::averaged(forest, rounds, self.link, leaf_ids),
        })
    }
}

/// `ConvertOutput` of the objective; parameters follow its name as `key:value`.
fn link_of(objective: &str) -> Result<Link> {
    let mut words = objective.split(' ').filter(|word| !word.is_empty());
    let name = words.next().unwrap_or("");
    let (mut scale, mut is_sqrt) = (1.0, false);
    for word in words {
        match word.split_once(':') {
            Some(("sigmoid", value)) => scale = parse::<f64>("sigmoid", value)?,
            None if word == "sqrt" => is_sqrt = true,
            _ => {}
        }
    }
    if !scale.is_finite() {
        return Err(Error::invalid("`sigmoid` is not a finite number"));
    }
    Ok(match name {
        "binary" | "multiclassova" | "multiclass_ova" | "ova" | "ovr" => Link::Sigmoid { scale },
        "cross_entropy" | "xentropy" => Link::Sigmoid { scale: 1.0 },
        "cross_entropy_lambda" | "xentlambda" => Link::Softplus,
        "multiclass" | "softmax" => Link::Softmax,
        "poisson" | "gamma" | "tweedie" => Link::Exponential,
        _ if is_sqrt => Link::SignedSquare,
        "" | "custom" | "regression" | "regression_l1" | "regression_l2" | "huber" | "fair" | "quantile" | "mape"
        | "lambdarank" | "rank_xendcg" => Link::Identity,
        other => return Err(Error::invalid(format!("the objective `{}` is unknown, so its link is", shown(other)))),
    })
}

/// The arrays of one tree: a place for each split, then those with one for each leaf.
struct Arrays {
    features: Vec<u32>,
    thresholds: Vec<f64>,
    decisions: Vec<u8>,
    left: Vec<i64>,
    right: Vec<i64>,
    split_counts: Vec<f64>,
    leaf_values: Vec<f64>,
    leaf_counts: Vec<f64>,
    lines: Vec<LeafLine>,
}

fn read_tree(block: &Block<'_>, output: u32, nodes_left: &mut usize, limits: &Limits) -> Result<(Tree, Vec<u32>)> {
    let leaves: usize = block.number("num_leaves")?;
    let nodes = leaves.saturating_mul(2).saturating_sub(1);
    *nodes_left = nodes_left.checked_sub(nodes).filter(|_| leaves > 0).ok_or_else(|| {
        Error::invalid(format!("{leaves} leaves; a tree has one, a model at most {} nodes", limits.nodes))
    })?;
    let splits = leaves - 1;
    let arrays = Arrays::read(block, leaves)?;
    let (sets, kept) = category_sets(block)?;
    let (tree, order) = assemble(0, nodes, sets, limits, |node| match (node as usize).checked_sub(splits) {
        Some(leaf) => Ok(arrays.leaf(leaf, output)),
        None => arrays.split(node as usize, kept),
    })?;
    // The format numbers leaves for themselves; splits are never asked for.
    Ok((tree, order.into_iter().map(|node| node.saturating_sub(splits as u32)).collect()))
}

impl Arrays {
    fn read(block: &Block<'_>, leaves: usize) -> Result<Arrays> {
        let splits = leaves - 1;
        let counts = |key: &str, count: usize| match block.find(key) {
            None | Some("") => Ok(vec![0.0; count]),
            Some(_) => block.list::<f64>(key, count),
        };
        let leaf_values = block.list("leaf_value", leaves)?;
        // A tree that is one leaf has none of the others.
        if splits == 0 {
            return Ok(Arrays {
                features: Vec::new(),
                thresholds: Vec::new(),
                decisions: Vec::new(),
                left: Vec::new(),
                right: Vec::new(),
                split_counts: Vec::new(),
                leaf_counts: vec![counts("leaf_count", 1).map_or(0.0, |counts| counts[0])],
                lines: lines(block, leaves)?,
                leaf_values,
            });
        }
        Ok(Arrays {
            features: block.list("split_feature", splits)?,
            thresholds: block.list("threshold", splits)?,
            decisions: block.list("decision_type", splits)?,
            left: block.list("left_child", splits)?,
            right: block.list("right_child", splits)?,
            split_counts: counts("internal_count", splits)?,
            leaf_values,
            leaf_counts: counts("leaf_count", leaves)?,
            lines: lines(block, leaves)?,
        })
    }

    fn leaf(&self, leaf: usize, output: u32) -> Raw {
        let additions = vec![LeafOutput { output, value: self.leaf_values[leaf] }];
        Raw::Leaf { cover: self.leaf_counts[leaf], additions, line: self.lines.get(leaf).cloned() }
    }

    fn split(&self, at: usize, sets: usize) -> Result<Raw> {
        let splits = self.features.len();
        // Negative children are leaves, from -1 on.
        let child = |child: i64| match child {
            0.. => u32::try_from(child).ok().filter(|child| (*child as usize) < splits),
            _ => u32::try_from(!child).ok().and_then(|leaf| leaf.checked_add(splits as u32)),
        };
        let (left, right) = (child(self.left[at]), child(self.right[at]));
        let (Some(yes), Some(no)) = (left, right) else {
            let (left, right) = (self.left[at], self.right[at]);
            return Err(Error::invalid(format!("its children are {left} and {right} of {splits} splits")));
        };
        // Bit 0: categorical; bit 1: a missing value goes left; bits 2 and 3: what is missing.
        let decision = self.decisions[at];
        let goes_left_by_default = decision & 2 != 0;
        let threshold = self.thresholds[at];
        let split = |test, missing, missing_is_yes| {
            let (feature, cover) = (self.features[at], self.split_counts[at]);
            Raw::Split(Split { feature, test, missing, missing_is_yes, yes, no, cover })
        };
        if decision & 1 != 0 {
            let set = super::assemble::index("its set of categories", threshold)?;
            return match (set as usize) < sets {
                true => Ok(split(Test::Member(set), Missing::Nan, false)),
                false => Err(Error::invalid(format!("set {set} of {sets}"))),
            };
        }
        Ok(match decision >> 2 & 3 {
            0 => split(Test::AtMost(threshold), Missing::NanIsZero, false),
            1 => split(Test::AtMost(threshold), Missing::NanOrZero, goes_left_by_default),
            2 => split(Test::AtMost(threshold), Missing::Nan, goes_left_by_default),
            _ => return Err(Error::invalid(format!("its decision type is {decision}"))),
        })
    }
}

/// Bitsets of categories, 32 bits a word, and how many there are.
fn category_sets(block: &Block<'_>) -> Result<(Vec<Vec<u32>>, usize)> {
    let count: usize = block.number_or("num_cat", 0)?;
    if count == 0 {
        return Ok((Vec::new(), 0));
    }
    let boundaries: Vec<usize> = block.list("cat_boundaries", count.saturating_add(1))?;
    let words: Vec<u32> = block.all("cat_threshold")?;
    let mut words_left = words.len();
    let mut sets = Vec::new();
    for pair in boundaries.windows(2) {
        let set = words.get(pair[0]..pair[1]);
        let set = set.ok_or_else(|| Error::invalid(format!("words {} to {} of `cat_threshold`", pair[0], pair[1])))?;
        // Sets do not overlap, so all together are no larger than the file.
        words_left = words_left.checked_sub(set.len()).ok_or_else(|| Error::invalid("`cat_boundaries` overlap"))?;
        let bits = set
            .iter()
            .zip(0_u32..)
            .flat_map(|(word, at)| (0..32).filter(move |bit| word >> bit & 1 != 0).map(move |bit| at * 32 + bit));
        sets.push(bits.collect());
    }
    Ok((sets, count))
}

/// Linear models of leaves; none unless the tree is linear.
fn lines(block: &Block<'_>, leaves: usize) -> Result<Vec<LeafLine>> {
    if block.number_or("is_linear", 0)? == 0 {
        return Ok(Vec::new());
    }
    let constants: Vec<f64> = block.list("leaf_const", leaves)?;
    let counts: Vec<usize> = block.list("num_features", leaves)?;
    let total = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
    let total = total.ok_or_else(|| Error::invalid("`num_features` does not add up"))?;
    let features: Vec<u32> = block.list("leaf_features", total)?;
    let coefficients: Vec<f64> = block.list("leaf_coeff", total)?;
    let mut terms = features.into_iter().zip(coefficients);
    let line =
        |(constant, count): (f64, usize)| LeafLine { node: 0, constant, terms: terms.by_ref().take(count).collect() };
    Ok(constants.into_iter().zip(counts).map(line).collect())
}
