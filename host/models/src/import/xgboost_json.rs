//! XGBoost's own models, as its JSON and UBJSON files describe them.
//!
//! Owns the schema (XGBoost 1.3 to 3.x): trees, categorical splits, vector leaves, DART's weights, linear boosters,
//! objectives and their links. Definitions follow XGBoost's `tree_model.cc`, `learner.cc` and `objective/`. What a `Booster`
//! does when it is given all its trees is what is done here; early stopping is the caller's affair there as well.
//!
//! Bounded by: [`Limits`]; arrays of one tree must agree in length. On failure: `invalid` names the tree, the node and the key.

use mainstay_base::{Error, Result};

use super::assemble::{Raw, assemble, index};
use super::limits::Limits;
use super::value::Value;
use crate::forest::{Forest, Join, LeafOutput, Missing, Split, Test, Tree};
use crate::link::Link;
use crate::model::{Body, Feature, FeatureKind, Format, Linear, Model, Task};

/// Build a model from the file's content.
pub(super) fn read(file: &Value, limits: &Limits) -> Result<Model> {
    let learner = file.get("learner")?;
    read_learner(learner, limits).map_err(|error| error.context("XGBoost model"))
}

fn read_learner(learner: &Value, limits: &Limits) -> Result<Model> {
    let parameters = Parameters::read(learner, limits)?;
    let booster = learner.get("gradient_booster")?;
    let body = match booster.text("name")? {
        "gbtree" => parameters.trees(booster.get("model")?, &[], limits)?,
        "dart" => {
            let weights = booster.numbers("weight_drop")?;
            parameters.trees(booster.get("gbtree")?.get("model")?, weights, limits)?
        }
        "gblinear" => parameters.linear(booster.get("model")?)?,
        other => return Err(Error::invalid(format!("the booster `{other}` is unknown"))),
    };
    let is_binary =
        matches!(parameters.link, Link::Sigmoid { .. } | Link::Step) || parameters.objective == "binary:logitraw";
    let classes = match parameters.link {
        Link::Softmax => parameters.outputs,
        _ if is_binary && parameters.outputs == 1 && parameters.objective != "reg:logistic" => 2,
        _ => 0,
    };
    Ok(Model {
        format: Format::Xgboost,
        task: if classes > 0 { Task::Classification } else { Task::Regression },
        objective: parameters.objective,
        features: parameters.features,
        classes: (0..classes).map(|class| class.to_string()).collect(),
        output_names: Vec::new(),
        body,
    })
}

struct Parameters {
    objective: String,
    link: Link,
    features: Vec<Feature>,
    outputs: usize,
    /// Raw outputs before any tree.
    base: Vec<f64>,
}

impl Parameters {
    fn read(learner: &Value, limits: &Limits) -> Result<Parameters> {
        let parameters = learner.get("learner_model_param")?;
        let objective = learner.get("objective")?.text("name")?.to_owned();
        let link = link_of(&objective)?;
        let count = parameters.count_or("num_feature", 0)?;
        Limits::check("features", count, limits.features)?;
        let outputs = parameters.count_or("num_class", 0)?.max(parameters.count_or("num_target", 1)?).max(1);
        Limits::check("outputs", outputs, limits.classes)?;
        let base = base_scores(parameters, outputs, &objective)?;
        let features = features(learner, count)?;
        Ok(Parameters { objective, link, features, outputs, base })
    }

    fn trees(&self, model: &Value, weights: &[f64], limits: &Limits) -> Result<Body> {
        let listed = model.list("trees")?;
        Limits::check("trees", listed.len(), limits.trees)?;
        let groups = model.numbers("tree_info")?;
        if groups.len() != listed.len() || (!weights.is_empty() && weights.len() != listed.len()) {
            let (groups, weights, trees) = (groups.len(), weights.len(), listed.len());
            return Err(Error::invalid(format!("{trees} trees have {groups} groups and {weights} weights; one each")));
        }
        let (mut trees, mut leaf_ids, mut nodes_left) = (Vec::new(), Vec::new(), limits.nodes);
        for (number, value) in listed.iter().enumerate() {
            let weight = weights.get(number).map(|weight| *weight as f32);
            let (tree, ids) = index("its group in `tree_info`", groups[number])
                .and_then(|group| self.tree(value, group, weight, &mut nodes_left, limits))
                .map_err(|error| error.context(format_args!("tree {number}")))?;
            trees.push(tree);
            leaf_ids.push(ids);
        }
        let forest = Forest::new(Forest {
            trees,
            features: self.features.len() as u32,
            outputs: self.outputs as u32,
            base: self.base.clone(),
            join: Join::Sum,
            compares_f32: true,
            adds_f32: true,
        })?;
        Ok(Body::trees(forest, self.link, leaf_ids))
    }

    fn tree(
        &self,
        value: &Value,
        group: u32,
        weight: Option<f32>,
        nodes_left: &mut usize,
        limits: &Limits,
    ) -> Result<(Tree, Vec<u32>)> {
        let arrays = Arrays::read(value)?;
        let count = arrays.left.len();
        *nodes_left = nodes_left
            .checked_sub(count)
            .ok_or_else(|| Error::invalid(format!("the model has more than {} nodes", limits.nodes)))?;
        let (sets, set_of) = category_sets(value, count)?;
        assemble(0, count, sets, limits, |node| {
            arrays.node(node as usize, group, self.outputs, weight.unwrap_or(1.0), &set_of)
        })
    }

    /// `booster=gblinear`: by feature then output, and one more row of biases. What is missing adds nothing.
    fn linear(&self, model: &Value) -> Result<Body> {
        let weights = model.numbers("weights")?;
        let expected = (self.features.len() + 1) * self.outputs;
        if weights.len() != expected {
            return Err(Error::invalid(format!("{} linear weights; {expected} are expected", weights.len())));
        }
        let (coefficients, biases) = weights.split_at(self.features.len() * self.outputs);
        // The linear booster adds the first base score to every output.
        let intercepts = biases.iter().map(|bias| f64::from(*bias as f32 + self.base[0] as f32)).collect();
        Ok(Body::Linear(Linear { coefficients: coefficients.to_vec(), intercepts, link: self.link }))
    }
}

/// The arrays that describe one tree, of one length.
struct Arrays<'a> {
    left: &'a [f64],
    right: &'a [f64],
    features: &'a [f64],
    conditions: &'a [f64],
    default_left: &'a [f64],
    hessians: &'a [f64],
    kinds: &'a [f64],
    /// Values of vector leaves, as many a leaf as there are outputs; empty when leaves are scalars.
    vectors: &'a [f64],
    /// Whether vectors are found by the leaf's number among the leaves, which stands in `right`.
    vectors_by_leaf: bool,
}

impl<'a> Arrays<'a> {
    fn read(value: &'a Value) -> Result<Arrays<'a>> {
        let left = value.numbers("left_children")?;
        let array = |key: &str, is_needed: bool| {
            let numbers = if is_needed { value.numbers(key)? } else { value.numbers_if_any(key)? };
            match numbers.len() == left.len() || (!is_needed && numbers.is_empty()) {
                true => Ok(numbers),
                false => Err(Error::invalid(format!("`{key}` has {} places for {} nodes", numbers.len(), left.len()))),
            }
        };
        let width = value.get("tree_param")?.count_or("size_leaf_vector", 1)?;
        let vectors_by_leaf = value.find("leaf_weights").is_some();
        let vectors = match width {
            0 | 1 => &[][..],
            _ if vectors_by_leaf => value.numbers("leaf_weights")?,
            _ => value.numbers("base_weights")?,
        };
        Ok(Arrays {
            left,
            right: array("right_children", true)?,
            features: array("split_indices", true)?,
            conditions: array("split_conditions", true)?,
            default_left: array("default_left", true)?,
            hessians: array("sum_hessian", false)?,
            kinds: array("split_type", false)?,
            vectors,
            vectors_by_leaf,
        })
    }

    fn node(&self, at: usize, group: u32, outputs: usize, weight: f32, set_of: &[Option<u32>]) -> Result<Raw> {
        let cover = self.hessians.get(at).copied().unwrap_or(0.0);
        if self.left[at] == -1.0 {
            return Ok(Raw::Leaf { cover, additions: self.leaf(at, group, outputs, weight)?, line: None });
        }
        let (left, right) = (index("its left child", self.left[at])?, index("its right child", self.right[at])?);
        let goes_left_by_default = self.default_left[at] != 0.0;
        let is_categorical = self.kinds.get(at).is_some_and(|kind| *kind != 0.0);
        let (test, yes, no) = match is_categorical {
            false => (Test::Less(f64::from(self.conditions[at] as f32)), left, right),
            // Categories in the set go right. Negative values are no categories, though they be truncated to 0.
            true => {
                let set = set_of[at].ok_or_else(|| Error::invalid("a categorical split without categories"))?;
                (Test::MemberFromZero(set), right, left)
            }
        };
        Ok(Raw::Split(Split {
            feature: index("its feature", self.features[at])?,
            test,
            missing: Missing::Nan,
            missing_is_yes: goes_left_by_default != is_categorical,
            yes,
            no,
            cover,
        }))
    }

    fn leaf(&self, at: usize, group: u32, outputs: usize, weight: f32) -> Result<Vec<LeafOutput>> {
        let weighted = |value: f64| f64::from(value as f32 * weight);
        if self.vectors.is_empty() {
            return Ok(vec![LeafOutput { output: group, value: weighted(self.conditions[at]) }]);
        }
        let leaf = if self.vectors_by_leaf { index("its leaf number", self.right[at])? as usize } else { at };
        let from = leaf.saturating_mul(outputs);
        let values = self.vectors.get(from..from.saturating_add(outputs));
        let values = values.ok_or_else(|| Error::invalid(format!("no weights for leaf {leaf}")))?;
        let additions = values.iter().zip(0..);
        Ok(additions.map(|(value, output)| LeafOutput { output, value: weighted(*value) }).collect())
    }
}

/// The sets of categories of one tree, and which node has which.
type CategorySets = (Vec<Vec<u32>>, Vec<Option<u32>>);

fn category_sets(tree: &Value, count: usize) -> Result<CategorySets> {
    let nodes = tree.numbers_if_any("categories_nodes")?;
    let mut set_of = vec![None; count];
    let mut sets = Vec::new();
    if nodes.is_empty() {
        return Ok((sets, set_of));
    }
    let (starts, sizes) = (tree.numbers("categories_segments")?, tree.numbers("categories_sizes")?);
    let codes = tree.numbers("categories")?;
    if starts.len() != nodes.len() || sizes.len() != nodes.len() {
        return Err(Error::invalid(
            "`categories_nodes`, `categories_segments` and `categories_sizes` differ in length",
        ));
    }
    let mut codes_left = codes.len();
    for ((node, start), size) in nodes.iter().zip(starts).zip(sizes) {
        let node = index("a place of `categories_nodes`", *node)?;
        let (start, size) = (index("a segment's start", *start)? as usize, index("a segment's size", *size)? as usize);
        let segment = codes.get(start..start.saturating_add(size));
        // Segments do not overlap, so all sets together are no larger than the file.
        codes_left = codes_left.checked_sub(size).ok_or_else(|| Error::invalid("segments of categories overlap"))?;
        let segment =
            segment.ok_or_else(|| Error::invalid(format!("no categories {start}, {size} for node {node}")))?;
        let mut set = segment.iter().map(|code| index("a category", *code)).collect::<Result<Vec<u32>>>()?;
        set.sort_unstable();
        set.dedup();
        let place = set_of.get_mut(node as usize);
        let place = place.ok_or_else(|| Error::invalid(format!("categories for node {node} of {count}")))?;
        *place = Some(sets.len() as u32);
        sets.push(set);
    }
    Ok((sets, set_of))
}

fn features(learner: &Value, count: usize) -> Result<Vec<Feature>> {
    let texts = |key: &str| -> Result<&[Value]> {
        let listed = if learner.find(key).is_some() { learner.list(key)? } else { &[] };
        match listed.len() == count || listed.is_empty() {
            true => Ok(listed),
            false => Err(Error::invalid(format!("`{key}` has {} places for {count} features", listed.len()))),
        }
    };
    let (names, kinds) = (texts("feature_names")?, texts("feature_types")?);
    let text = |listed: &[Value], at: usize| match listed.get(at) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let feature = |at| Feature {
        name: text(names, at).unwrap_or_else(|| format!("f{at}")),
        kind: match text(kinds, at).as_deref() {
            Some("c") => FeatureKind::Categorical,
            Some("int") => FeatureKind::Integer,
            Some("i") => FeatureKind::Indicator,
            _ => FeatureKind::Number,
        },
    };
    Ok((0..count).map(feature).collect())
}

/// Files keep the base score after the link, and since 3.1 one for each output, as a list in a text.
fn base_scores(parameters: &Value, outputs: usize, objective: &str) -> Result<Vec<f64>> {
    let scores = match parameters.find("base_score") {
        None => vec![0.5],
        Some(Value::Number(score)) => vec![*score],
        Some(Value::Numbers(scores)) => scores.clone(),
        Some(Value::Text(text)) => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            let parse = |score: &str| score.trim().parse::<f64>();
            let scores: std::result::Result<Vec<f64>, _> = inner.split(',').map(parse).collect();
            scores.map_err(|_| Error::invalid("`base_score` is neither a number nor a list of numbers"))?
        }
        Some(other) => return Err(Error::invalid(format!("`base_score` is {}", other.kind()))),
    };
    let scores = match scores.len() {
        1 => vec![scores[0]; outputs],
        given if given == outputs => scores,
        given => return Err(Error::invalid(format!("`base_score` has {given} places for {outputs} outputs"))),
    };
    // Since base scores are lists, that of raw logits is added as it stands.
    let is_list = matches!(parameters.find("base_score"), Some(Value::Text(text)) if text.starts_with('['));
    let objective = if is_list && objective == "binary:logitraw" { "reg:squarederror" } else { objective };
    let margin = |score: f64| margin_of(score as f32, objective);
    let margins: Vec<f64> = scores.into_iter().map(margin).collect();
    match margins.iter().all(|margin| margin.is_finite()) {
        true => Ok(margins),
        false => Err(Error::invalid(format!("`base_score` is outside what `{objective}` can predict"))),
    }
}

/// `ProbToMargin` of the objective, in `f32` as there.
fn margin_of(score: f32, objective: &str) -> f64 {
    let margin = match objective {
        "binary:logistic" | "reg:logistic" | "binary:logitraw" => -(1.0 / score - 1.0).ln(),
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => score.ln(),
        _ => score,
    };
    f64::from(margin)
}

fn link_of(objective: &str) -> Result<Link> {
    Ok(match objective {
        "binary:logistic" | "reg:logistic" => Link::Sigmoid { scale: 1.0 },
        "multi:softprob" | "multi:softmax" => Link::Softmax,
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => Link::Exponential,
        "binary:hinge" => Link::Step,
        "binary:logitraw"
        | "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:absoluteerror"
        | "reg:pseudohubererror"
        | "reg:quantileerror"
        | "reg:expectileerror"
        | "rank:pairwise"
        | "rank:ndcg"
        | "rank:map" => Link::Identity,
        other => return Err(Error::invalid(format!("the objective `{other}` is unknown, so its link is"))),
    })
}
