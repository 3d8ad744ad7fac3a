//! Which of ONNX's operations are ours, and what their attributes mean.
//!
//! Owns one arm for each operation; definitions are those of the ONNX and ONNX-ML operator documents. Operations that would
//! mix rows are refused, as rows are computed in tiles. Bounded by and fails as the module above.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use super::proto::{Node, kind_of, shown};
use super::trees::{Weights, link_of, parallel_lists, version_5};
use super::{Builder, unsupported};
use crate::import::limits::Limits;
use crate::layout::Layout;
use crate::link::Link;
use crate::pipeline::{
    Binary, BinaryCase, Classify, Ensemble, Keys, Kind, Linear, Map, Norm, OneHot, Op, Reduce, Tensor, Unary,
};

impl<'a> Builder<'a> {
    /// Add what one node does.
    pub(super) fn node(&mut self, node: &Node<'a>) -> Result<()> {
        let added = self.add(node);
        added.map_err(|error| match super::is_unsupported_operation(&error) {
            true => error,
            false => error.context(format_args!("{} of node `{}`", shown(node.operation), shown(node.name))),
        })
    }

    fn add(&mut self, node: &Node<'a>) -> Result<()> {
        let is_ml = node.domain == "ai.onnx.ml";
        if !is_ml && !node.domain.is_empty() && node.domain != "ai.onnx" {
            return Err(unsupported(format!("{}.{}", shown(node.domain), shown(node.operation)), node.name));
        }
        match node.operation {
            "TreeEnsembleClassifier" if is_ml => return self.tree_classifier(node),
            "TreeEnsembleRegressor" if is_ml => return self.tree_regressor(node),
            "TreeEnsemble" if is_ml => return self.tree_ensemble(node),
            "LinearClassifier" if is_ml => return self.linear_classifier(node),
            "Constant" => return self.constant_node(node),
            _ => {}
        }
        let op = if is_ml { self.ml_op(node)? } else { self.op(node)? };
        let op = op.ok_or_else(|| unsupported(shown(node.operation), node.name))?;
        // Parameters that are inputs are in the operation already.
        let reads = match op {
            Op::Reshape(_) | Op::Unsqueeze(_) | Op::Squeeze(_) | Op::Reduce { .. } => 1,
            _ => node.inputs.len(),
        };
        let inputs: Vec<usize> =
            node.inputs.iter().take(reads).filter(|name| !name.is_empty()).map(|name| self.slots[name]).collect();
        if inputs.is_empty() {
            return Err(Error::invalid("it has no input"));
        }
        if mixes_rows(&op) && inputs.iter().any(|slot| !self.is_constant[*slot]) {
            return Err(unsupported(format!("{} across rows", node.operation), node.name));
        }
        if let ("ZipMap", Some(labels)) = (node.operation, class_labels(node)?) {
            self.labels.get_or_insert(labels);
        }
        self.step(node, op, inputs, output(node)?).map(|_| ())
    }

    fn constant_node(&mut self, node: &Node<'a>) -> Result<()> {
        let tensor = if let Some(tensor) = node.tensor("value")? {
            tensor
        } else if let Some(value) = node.float("value_float")? {
            Tensor::new(Vec::new(), Kind::F32, vec![value])
        } else if let Some(value) = node.integer("value_int")? {
            Tensor::new(Vec::new(), Kind::Integer, vec![value as f64])
        } else if node.has("value_ints") {
            vector(Kind::Integer, node.integers("value_ints")?.into_iter().map(|value| value as f64).collect())
        } else if node.has("value_floats") {
            vector(Kind::F32, node.floats("value_floats")?)
        } else {
            return Err(unsupported("Constant of another kind".to_owned(), node.name));
        };
        let slot = self.define(output(node)?, true)?;
        self.constants.insert(slot, tensor);
        Ok(())
    }

    /// Integers that are an input since some version, and were an attribute before.
    fn integers(&self, node: &Node<'a>, at: usize, attribute: &str) -> Result<Vec<i64>> {
        match self.constant(node, at)? {
            Some(tensor) => Ok(tensor.values.iter().map(|value| *value as i64).collect()),
            None => node.integers(attribute),
        }
    }

    fn op(&self, node: &Node<'a>) -> Result<Option<Op>> {
        let axis = |otherwise: i64| Ok::<i64, Error>(node.integer("axis")?.unwrap_or(otherwise));
        let keeps = || Ok::<bool, Error>(node.integer("keepdims")?.unwrap_or(1) != 0);
        if let Some(unary) = unary_of(node.operation) {
            return Ok(Some(Op::Unary(unary)));
        }
        if let Some(binary) = binary_of(node.operation) {
            return Ok(Some(Op::Binary(binary)));
        }
        if let Some(how) = reduce_of(node.operation) {
            let axes = self.integers(node, 1, "axes")?;
            if axes.is_empty() {
                return Ok(None);
            }
            return Ok(Some(Op::Reduce { how, axes, keeps: keeps()? }));
        }
        Ok(Some(match node.operation {
            "Identity" | "Dropout" => Op::Identity,
            "Cast" => {
                let to = node.integer("to")?.unwrap_or(0);
                Op::Cast(kind_of(to).ok_or_else(|| Error::invalid(format!("element type {to} is not supported")))?)
            }
            "Reshape" => Op::Reshape(self.integers(node, 1, "shape")?),
            "Flatten" => Op::Flatten(usize::try_from(axis(1)?).unwrap_or(usize::MAX)),
            "Unsqueeze" => Op::Unsqueeze(self.integers(node, 1, "axes")?),
            "Squeeze" => Op::Squeeze(self.integers(node, 1, "axes")?),
            "Concat" => Op::Concat(axis(1)?),
            "Gather" => Op::Gather(axis(0)?),
            "Transpose" => {
                let order = node.integers("perm")?.into_iter().map(usize::try_from).collect();
                Op::Transpose(std::result::Result::ok(order).ok_or_else(|| Error::invalid("`perm` is negative"))?)
            }
            "ArgMax" | "ArgMin" => Op::ArgMax { axis: axis(0)?, keeps: keeps()?, is_max: node.operation == "ArgMax" },
            "Softmax" => Op::Softmax(axis(if self.opset < 13 { 1 } else { -1 })?),
            "Where" => Op::Where,
            "MatMul" => Op::Gemm { transposes: false, alpha: 1.0, beta: 1.0 },
            "Gemm" if node.integer("transA")?.unwrap_or(0) == 0 => Op::Gemm {
                transposes: node.integer("transB")?.unwrap_or(0) != 0,
                alpha: node.float("alpha")?.unwrap_or(1.0),
                beta: node.float("beta")?.unwrap_or(1.0),
            },
            _ => return Ok(None),
        }))
    }

    fn ml_op(&self, node: &Node<'a>) -> Result<Option<Op>> {
        Ok(Some(match node.operation {
            "ZipMap" => Op::Identity,
            "ArrayFeatureExtractor" => Op::Select,
            "Scaler" => {
                let (offsets, factors) = (node.floats("offset")?, node.floats("scale")?);
                let or = |list: Vec<f64>, otherwise| if list.is_empty() { vec![otherwise] } else { list };
                Op::Scale { offsets: or(offsets, 0.0), factors: or(factors, 1.0) }
            }
            "Normalizer" => Op::Normalize(match node.text("norm")?.unwrap_or("MAX") {
                "MAX" => Norm::Max,
                "L1" => Norm::L1,
                "L2" => Norm::L2,
                other => return Err(Error::invalid(format!("`norm` is `{}`", shown(other)))),
            }),
            "Imputer" => imputer(node)?,
            "Binarizer" => Op::Threshold(node.float("threshold")?.unwrap_or(0.0)),
            "OneHotEncoder" => {
                let numbers: Vec<f64> = node.integers("cats_int64s")?.into_iter().map(|value| value as f64).collect();
                let texts: Vec<String> = node.texts("cats_strings")?.into_iter().map(str::to_owned).collect();
                Op::OneHot(OneHot { numbers, texts, zeros: node.integer("zeros")?.unwrap_or(1) != 0 })
            }
            "LabelEncoder" => Op::Map(label_map(node)?),
            "FeatureVectorizer" => Op::Join,
            "LinearRegressor" => {
                let targets = usize::try_from(node.integer("targets")?.unwrap_or(1)).unwrap_or(0);
                Op::Linear(self.linear(node, targets, post_transform(node)?)?)
            }
            _ => return Ok(None),
        }))
    }

    fn linear(&self, node: &Node<'a>, outputs: usize, link: Link) -> Result<Linear> {
        Limits::check("outputs", outputs, self.limits.classes)?;
        let (coefficients, mut intercepts) = (node.floats("coefficients")?, node.floats("intercepts")?);
        if intercepts.is_empty() {
            intercepts = vec![0.0; outputs];
        }
        if outputs == 0 || intercepts.len() != outputs || coefficients.len() % outputs != 0 {
            let (coefficients, intercepts) = (coefficients.len(), intercepts.len());
            return Err(Error::invalid(format!(
                "{coefficients} coefficients and {intercepts} intercepts for {outputs} outputs"
            )));
        }
        Ok(Linear { coefficients, intercepts, link })
    }

    fn linear_classifier(&mut self, node: &Node<'a>) -> Result<()> {
        let labels = class_labels(node)?.ok_or_else(|| Error::invalid("it has no class labels"))?;
        let classes = labels.values.len();
        let outputs = node.floats("intercepts")?.len();
        let binary = match (outputs, classes) {
            (1, 2) => BinaryCase::Margin,
            (0, _) => BinaryCase::No,
            (outputs, classes) if outputs == classes => BinaryCase::No,
            _ => return Err(Error::invalid(format!("{outputs} intercepts for {classes} classes"))),
        };
        let linear = self.linear(node, if outputs == 0 { classes } else { outputs }, Link::Identity)?;
        let input = self.input(node)?;
        let raw = self.step(node, Op::Linear(linear), vec![input], "")?;
        self.classify(node, raw, Classify { link: post_transform(node)?, labels, binary })
    }

    fn input(&self, node: &Node<'a>) -> Result<usize> {
        let name = node.inputs.first().filter(|name| !name.is_empty());
        name.map(|name| self.slots[name]).ok_or_else(|| Error::invalid("it has no input"))
    }

    fn classify(&mut self, node: &Node<'a>, raw: usize, classify: Classify) -> Result<()> {
        self.labels = Some(classify.labels.clone());
        let label = self.define(node.outputs.first().copied().unwrap_or(""), false)?;
        let scores = self.define(node.outputs.get(1).copied().unwrap_or(""), false)?;
        self.push(node, Op::Classify(classify), vec![raw], vec![label, scores]);
        Ok(())
    }

    fn tree_classifier(&mut self, node: &Node<'a>) -> Result<()> {
        let labels = class_labels(node)?.ok_or_else(|| Error::invalid("it has no class labels"))?;
        let classes = labels.values.len();
        Limits::check("classes", classes, self.limits.classes)?;
        let mut weights = Weights::read(node, "class")?;
        let (base, _) = node.reals("base_values")?;
        let first = weights.outputs.first().copied();
        let is_binary = classes == 2 && weights.outputs.iter().all(|output| Some(*output) == first);
        let binary = match (is_binary, weights.weights.iter().all(|weight| *weight >= 0.0)) {
            (false, _) => BinaryCase::No,
            (true, true) => BinaryCase::Probability,
            (true, false) => BinaryCase::Margin,
        };
        if is_binary {
            weights.outputs.iter_mut().for_each(|output| *output = 0);
        }
        let outputs = if is_binary { 1 } else { classes };
        let forest = self.forest(node, &weights, outputs, base)?;
        let input = self.input(node)?;
        let raw = self.step(node, forest, vec![input], "")?;
        self.classify(node, raw, Classify { link: post_transform(node)?, labels, binary })
    }

    fn tree_regressor(&mut self, node: &Node<'a>) -> Result<()> {
        let targets = usize::try_from(node.integer("n_targets")?.unwrap_or(1)).unwrap_or(0);
        Limits::check("targets", targets, self.limits.classes)?;
        let (weights, (base, _)) = (Weights::read(node, "target")?, node.reals("base_values")?);
        let forest = self.forest(node, &weights, targets, base)?;
        self.regress(node, forest, post_transform(node)?)
    }

    fn regress(&mut self, node: &Node<'a>, forest: Op, link: Link) -> Result<()> {
        let (input, output) = (self.input(node)?, output(node)?);
        if link == Link::Identity {
            return self.step(node, forest, vec![input], output).map(|_| ());
        }
        let raw = self.step(node, forest, vec![input], "")?;
        self.step(node, Op::Apply(link), vec![raw], output).map(|_| ())
    }

    fn forest(&self, node: &Node<'a>, weights: &Weights, outputs: usize, base: Vec<f64>) -> Result<Op> {
        let base = match base.len() {
            0 => vec![0.0; outputs],
            given if given == outputs => base,
            given => return Err(Error::invalid(format!("{given} base values for {outputs} outputs"))),
        };
        let features = self.row_width(node, &node.integers("nodes_featureids")?);
        let forest = parallel_lists(node, weights, outputs, base, features, self.limits)?;
        Ok(ensemble(forest))
    }

    /// How many features trees may ask for: the width of their rows, or what they ask for where that is not known yet.
    fn row_width(&self, node: &Node<'a>, asked: &[i64]) -> usize {
        let most = asked.iter().copied().max().unwrap_or(0).clamp(0, self.limits.features as i64 - 1);
        self.width(node).unwrap_or(most as usize + 1)
    }

    fn tree_ensemble(&mut self, node: &Node<'a>) -> Result<()> {
        let features = self.row_width(node, &node.integers("nodes_featureids")?);
        let (forest, link) = version_5(node, features, self.limits)?;
        self.regress(node, ensemble(forest), link)
    }
}

fn ensemble(forest: crate::forest::Forest) -> Op {
    Op::Ensemble(Arc::new(Ensemble { layout: Layout::new(&forest), forest }))
}

fn output<'a>(node: &Node<'a>) -> Result<&'a str> {
    node.outputs.first().copied().ok_or_else(|| Error::invalid("it has no output"))
}

fn vector(kind: Kind, values: Vec<f64>) -> Tensor {
    Tensor::new(vec![values.len()], kind, values)
}

fn text_vector(texts: Vec<&str>) -> Tensor {
    let mut tensor = vector(Kind::Text, (0..texts.len()).map(|at| at as f64).collect());
    tensor.texts = texts.into_iter().map(str::to_owned).collect();
    tensor
}

fn integer_vector(integers: Vec<i64>) -> Tensor {
    vector(Kind::Integer, integers.into_iter().map(|value| value as f64).collect())
}

fn post_transform(node: &Node<'_>) -> Result<Link> {
    link_of(node.text("post_transform")?.unwrap_or("NONE"))
}

/// Labels of a classifier or ZipMap, whichever kind they are.
fn class_labels(node: &Node<'_>) -> Result<Option<Tensor>> {
    for name in ["classlabels_int64s", "classlabels_ints"] {
        let integers = node.integers(name)?;
        if !integers.is_empty() {
            return Ok(Some(integer_vector(integers)));
        }
    }
    let texts = node.texts("classlabels_strings")?;
    Ok((!texts.is_empty()).then(|| text_vector(texts)))
}

/// Whether an operation's answer for a row would depend on other rows.
fn mixes_rows(op: &Op) -> bool {
    match op {
        Op::Concat(axis) | Op::Softmax(axis) | Op::ArgMax { axis, .. } => *axis == 0,
        Op::Reduce { axes, .. } => axes.contains(&0),
        Op::Transpose(order) => order.first() != Some(&0),
        _ => false,
    }
}

fn unary_of(operation: &str) -> Option<Unary> {
    Some(match operation {
        "Sigmoid" => Unary::Sigmoid,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Sqrt" => Unary::Sqrt,
        "Tanh" => Unary::Tanh,
        "Relu" => Unary::Relu,
        "Not" => Unary::Not,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Reciprocal" => Unary::Reciprocal,
        "IsNaN" => Unary::IsNan,
        "Sign" => Unary::Sign,
        _ => return None,
    })
}

fn binary_of(operation: &str) -> Option<Binary> {
    Some(match operation {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::AtMost,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::AtLeast,
        "Equal" => Binary::Equal,
        "And" => Binary::And,
        "Or" => Binary::Or,
        _ => return None,
    })
}

fn reduce_of(operation: &str) -> Option<Reduce> {
    Some(match operation {
        "ReduceSum" => Reduce::Sum,
        "ReduceMean" => Reduce::Mean,
        "ReduceMax" => Reduce::Max,
        "ReduceMin" => Reduce::Min,
        "ReduceSumSquare" => Reduce::SumSquare,
        "ReduceL1" => Reduce::L1,
        "ReduceL2" => Reduce::L2,
        _ => return None,
    })
}

fn imputer(node: &Node<'_>) -> Result<Op> {
    let floats = node.floats("imputed_value_floats")?;
    let (replaced, by) = match floats.is_empty() {
        false => (node.float("replaced_value_float")?.unwrap_or(0.0), floats),
        true => {
            let by = node.integers("imputed_value_int64s")?.into_iter().map(|value| value as f64).collect();
            (node.integer("replaced_value_int64")?.unwrap_or(0) as f64, by)
        }
    };
    match by.is_empty() {
        true => Err(Error::invalid("it has no values to put in")),
        false => Ok(Op::Impute { replaced, by }),
    }
}

/// `keys_*` to `values_*`, and `default_*`; the first version maps between integers and `classes_strings`.
fn label_map(node: &Node<'_>) -> Result<Map> {
    let side = |prefix: &str| -> Result<Option<Tensor>> {
        if let Some(tensor) = node.tensor(&format!("{prefix}_tensor"))? {
            return Ok(Some(tensor));
        }
        let integers = node.integers(&format!("{prefix}_int64s"))?;
        if !integers.is_empty() {
            return Ok(Some(integer_vector(integers)));
        }
        let floats = node.floats(&format!("{prefix}_floats"))?;
        if !floats.is_empty() {
            return Ok(Some(vector(Kind::F32, floats)));
        }
        let texts = node.texts(&format!("{prefix}_strings"))?;
        Ok((!texts.is_empty()).then(|| text_vector(texts)))
    };
    let needed = |prefix: &str| side(prefix)?.ok_or_else(|| Error::invalid(format!("it has no `{prefix}_*`")));
    let (keys, values) = (needed("keys")?, needed("values")?);
    if keys.values.len() != values.values.len() {
        return Err(Error::invalid(format!("{} keys for {} values", keys.values.len(), values.values.len())));
    }
    let otherwise = match (node.tensor("default_tensor")?, values.kind) {
        (Some(tensor), _) if tensor.values.len() == 1 && tensor.kind == values.kind => tensor,
        (_, Kind::Text) => text_vector(vec![node.text("default_string")?.unwrap_or("_Unused")]),
        (_, Kind::Integer) => vector(Kind::Integer, vec![node.integer("default_int64")?.unwrap_or(-1) as f64]),
        (_, kind) => vector(kind, vec![node.float("default_float")?.unwrap_or(-0.0)]),
    };
    let keys = match keys.kind {
        Kind::Text => {
            let mut texts: Vec<(String, usize)> = keys.texts.iter().cloned().zip(0..).collect();
            texts.sort();
            Keys::Texts(texts)
        }
        _ => {
            let nan = keys.values.iter().position(|key| key.is_nan());
            let numbers = keys.values.iter().map(|key| key + 0.0).zip(0..).filter(|(key, _)| !key.is_nan());
            let mut numbers: Vec<(f64, usize)> = numbers.collect();
            numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
            Keys::Numbers(numbers, nan)
        }
    };
    Ok(Map { keys, values, otherwise })
}
