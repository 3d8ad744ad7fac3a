//! Which of ONNX's operations are ours, and what their attributes mean.
//!
//! Owns one arm for each operation; definitions are those of the ONNX and ONNX-ML operator documents. Bounded by and fails as
//! the module above.

use mainstay_base::{Error, Result};

use super::encoders::{class_maps, imputer, label_map};
use super::proto::{Node, kind_of, shown};
use super::trees::link_of;
use super::{Builder, unsupported};
use crate::import::limits::Limits;
use crate::link::Link;
use crate::pipeline::{Binary, BinaryCase, Classify, Cut, Kind, Linear, Norm, OneHot, Op, Reduce, Tensor, Unary};

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
            "SVMClassifier" if is_ml => return self.svm_classifier(node),
            "SVMRegressor" if is_ml => return self.svm_regressor(node),
            "Constant" => return self.constant_node(node),
            _ => {}
        }
        let op = if is_ml { self.ml_op(node)? } else { self.op(node)? };
        let op = op.ok_or_else(|| unsupported(shown(node.operation), node.name))?;
        // Parameters that are inputs are in the operation already.
        let reads = match op {
            Op::Reshape(_) | Op::Unsqueeze(_) | Op::Squeeze(_) | Op::Reduce { .. } | Op::Slice(_) => 1,
            Op::Split { .. } | Op::Clip(..) | Op::CumSum { .. } | Op::TopK { .. } | Op::Identity => 1,
            _ => node.inputs.len(),
        };
        let inputs: Vec<usize> =
            node.inputs.iter().take(reads).filter(|name| !name.is_empty()).map(|name| self.slots[name]).collect();
        if inputs.is_empty() {
            return Err(Error::invalid("it has no input"));
        }
        if let ("ZipMap", Some(labels)) = (node.operation, class_labels(node)?) {
            self.labels.get_or_insert(labels);
        }
        output(node)?;
        let outputs = node.outputs.iter().map(|name| self.define(name)).collect::<Result<Vec<usize>>>()?;
        self.push(node, op, inputs, outputs)
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
        let slot = self.define(output(node)?)?;
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

    /// One integer that is an input since some version, and was an attribute before.
    fn integer(&self, node: &Node<'a>, at: usize, attribute: &str) -> Result<i64> {
        let found = match self.constant(node, at)? {
            Some(tensor) => tensor.values.first().map(|value| *value as i64),
            None => node.integer(attribute)?,
        };
        found.ok_or_else(|| Error::invalid(format!("it has no `{attribute}`")))
    }

    fn reshape(&self, node: &Node<'a>) -> Result<Op> {
        if node.integer("allowzero")?.unwrap_or(0) != 0 {
            return Err(unsupported("Reshape with sizes of 0".to_owned(), node.name));
        }
        let is_computed = node.inputs.get(1).is_some_and(|name| !self.constants.contains_key(&self.slots[name]));
        Ok(if is_computed { Op::ReshapeTo } else { Op::Reshape(self.integers(node, 1, "shape")?) })
    }

    /// Slice's lists of starts, ends, dimensions and steps, of one length where they are there.
    fn cuts(&self, node: &Node<'a>) -> Result<Vec<Cut>> {
        let (starts, ends) = (self.integers(node, 1, "starts")?, self.integers(node, 2, "ends")?);
        let (axes, steps) = (self.integers(node, 3, "axes")?, self.integers(node, 4, "steps")?);
        let axes = if axes.is_empty() { (0..starts.len() as i64).collect() } else { axes };
        let steps = if steps.is_empty() { vec![1; starts.len()] } else { steps };
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || steps.contains(&0) || starts.len() > 8 {
            let counts = [starts.len(), ends.len(), axes.len(), steps.len()];
            return Err(Error::invalid(format!(
                "{counts:?} starts, ends, dimensions and steps; as many of each, at most 8, and no step of 0"
            )));
        }
        let cut = |at: usize| Cut { axis: axes[at], start: starts[at], end: ends[at], step: steps[at] };
        Ok((0..starts.len()).map(cut).collect())
    }

    /// Limits were attributes before they were inputs.
    fn clip(&self, node: &Node<'a>) -> Result<Op> {
        let limit = |at: usize, attribute: &str, otherwise: f64| match self.constant(node, at)? {
            Some(tensor) => Ok::<f64, Error>(tensor.values.first().copied().unwrap_or(otherwise)),
            None => Ok(node.float(attribute)?.unwrap_or(otherwise)),
        };
        Ok(Op::Clip(limit(1, "min", f64::NEG_INFINITY)?, limit(2, "max", f64::INFINITY)?))
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
            if axes.is_empty() && node.integer("noop_with_empty_axes")?.unwrap_or(0) != 0 {
                return Ok(Some(Op::Identity));
            }
            return Ok(Some(Op::Reduce { how, axes, keeps: keeps()? }));
        }
        Ok(Some(match node.operation {
            "Identity" | "Dropout" => Op::Identity,
            "Cast" => {
                let to = node.integer("to")?.unwrap_or(0);
                Op::Cast(kind_of(to).ok_or_else(|| Error::invalid(format!("element type {to} is not supported")))?)
            }
            "Reshape" => self.reshape(node)?,
            "Shape" if !node.has("start") && !node.has("end") => Op::Shape,
            "ConstantOfShape" => Op::Fill(filling(node)?),
            "Slice" => Op::Slice(self.cuts(node)?),
            "Split" => Op::Split {
                axis: axis(0)?,
                sizes: sizes(&self.integers(node, 1, "split")?)?,
                parts: node.outputs.len(),
            },
            "Clip" => self.clip(node)?,
            "CumSum" => Op::CumSum {
                axis: self.integer(node, 1, "axis")?,
                is_exclusive: node.integer("exclusive")?.unwrap_or(0) != 0,
                is_reverse: node.integer("reverse")?.unwrap_or(0) != 0,
            },
            "TopK" => Op::TopK {
                axis: axis(-1)?,
                count: sizes(&[self.integer(node, 1, "k")?])?[0],
                is_largest: node.integer("largest")?.unwrap_or(1) != 0,
            },
            "Flatten" => Op::Flatten(usize::try_from(axis(1)?).unwrap_or(usize::MAX)),
            "Unsqueeze" => Op::Unsqueeze(self.integers(node, 1, "axes")?),
            "Squeeze" => Op::Squeeze(self.integers(node, 1, "axes")?),
            "Concat" => Op::Concat(axis(1)?),
            "Gather" => Op::Gather(axis(0)?),
            "GatherElements" => Op::Take(axis(0)?),
            "Transpose" => {
                let order = node.integers("perm")?.into_iter().map(usize::try_from).collect();
                Op::Transpose(std::result::Result::ok(order).ok_or_else(|| Error::invalid("`perm` is negative"))?)
            }
            "ArgMax" | "ArgMin" if node.integer("select_last_index")?.unwrap_or(0) == 0 => {
                Op::ArgMax { axis: axis(0)?, keeps: keeps()?, is_max: node.operation == "ArgMax" }
            }
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
            "LabelEncoder" if node.has("classes_strings") => class_maps(node, "classes_strings")?,
            "LabelEncoder" => Op::Map(label_map(node)?),
            "CategoryMapper" => class_maps(node, "cats_strings")?,
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
        self.classify(node, raw, Classify { link: post_transform(node)?, labels, binary, is_silent: Vec::new() })
    }

    pub(super) fn input(&self, node: &Node<'a>) -> Result<usize> {
        let name = node.inputs.first().filter(|name| !name.is_empty());
        name.map(|name| self.slots[name]).ok_or_else(|| Error::invalid("it has no input"))
    }

    pub(super) fn classify(&mut self, node: &Node<'a>, raw: usize, classify: Classify) -> Result<()> {
        self.labels = Some(classify.labels.clone());
        let outputs = self.label_and_scores(node)?;
        self.push(node, Op::Classify(classify), vec![raw], outputs)
    }

    pub(super) fn label_and_scores(&mut self, node: &Node<'a>) -> Result<Vec<usize>> {
        let name = |at: usize| node.outputs.get(at).copied().unwrap_or("");
        Ok(vec![self.define(name(0))?, self.define(name(1))?])
    }
}

pub(super) fn output<'a>(node: &Node<'a>) -> Result<&'a str> {
    node.outputs.first().copied().ok_or_else(|| Error::invalid("it has no output"))
}

/// Counts of a file.
fn sizes(integers: &[i64]) -> Result<Vec<usize>> {
    let size = |size: &i64| usize::try_from(*size).map_err(|_| Error::invalid(format!("a size is {size}")));
    integers.iter().map(size).collect()
}

/// The one value that a tensor is filled with; zero when none is given.
fn filling(node: &Node<'_>) -> Result<Tensor> {
    let value = node.tensor("value")?.unwrap_or_else(|| vector(Kind::F32, vec![0.0]));
    match value.values.len() == 1 && value.kind != Kind::Text {
        true => Ok(value),
        false => Err(Error::invalid(format!("`value` has the shape {:?}; one number is expected", value.shape))),
    }
}

pub(super) fn vector(kind: Kind, values: Vec<f64>) -> Tensor {
    Tensor::new(vec![values.len()], kind, values)
}

pub(super) fn text_vector(texts: Vec<&str>) -> Tensor {
    let mut tensor = vector(Kind::Text, (0..texts.len()).map(|at| at as f64).collect());
    tensor.texts = texts.into_iter().map(str::to_owned).collect();
    tensor
}

pub(super) fn integer_vector(integers: Vec<i64>) -> Tensor {
    vector(Kind::Integer, integers.into_iter().map(|value| value as f64).collect())
}

pub(super) fn post_transform(node: &Node<'_>) -> Result<Link> {
    link_of(node.text("post_transform")?.unwrap_or("NONE"))
}

/// Labels of a classifier or ZipMap, whichever kind they are.
pub(super) fn class_labels(node: &Node<'_>) -> Result<Option<Tensor>> {
    for name in ["classlabels_int64s", "classlabels_ints"] {
        let integers = node.integers(name)?;
        if !integers.is_empty() {
            return Ok(Some(integer_vector(integers)));
        }
    }
    let texts = node.texts("classlabels_strings")?;
    Ok((!texts.is_empty()).then(|| text_vector(texts)))
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
        "Round" => Unary::Round,
        "Softplus" => Unary::Softplus,
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
        "Xor" => Binary::Xor,
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
        "ReduceProd" => Reduce::Prod,
        "ReduceLogSum" => Reduce::LogSum,
        "ReduceLogSumExp" => Reduce::LogSumExp,
        _ => return None,
    })
}
