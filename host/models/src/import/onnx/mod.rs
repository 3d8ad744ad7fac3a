//! ONNX files that are a small graph around an ensemble or a linear model, as scikit-learn's converters write them.
//!
//! Owns the way from the file's graph to a [`Pipeline`]: which operations are ours, in what order, which output is the score
//! and which the label. Graphs with other operations need a general runtime; [`is_unsupported_operation`] tells that error
//! from a broken file.
//!
//! Bounded by: [`Limits`]; constants are as large as the file. On failure: `invalid` names the operation and the node.

mod encoders;
mod ensembles;
mod operations;
mod proto;
mod svm;
mod trees;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use mainstay_base::{Error, Result};

use super::limits::Limits;
use crate::layout::Scratch;
use crate::model::{Body, Feature, FeatureKind, Format, Graph, Model, Task};
use crate::pipeline::{Followed, Kind, Op, Pipeline, Step, Tensor, VALUES_MAX};
use proto::{Node, kind_of, shown};

/// An operation that is not one of ours: the file may be a good model for a general runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxUnsupported {
    /// What it does: its domain, if it is not ONNX's own, and its name.
    pub operation: String,
    /// Which node of the graph it is.
    pub node: String,
}

impl fmt::Display for OnnxUnsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operation `{}` of node `{}` is not one that is computed here", self.operation, self.node)
    }
}

impl std::error::Error for OnnxUnsupported {}

/// Whether an error of an import says that an operation, element type or form of input is not ours, though the file may
/// well be sound.
pub fn is_unsupported_operation(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<OnnxUnsupported>() {
            return true;
        }
        source = cause.source();
    }
    false
}

fn unsupported(operation: String, node: &str) -> Error {
    let cause = OnnxUnsupported { operation, node: shown(node) };
    Error::invalid(cause.to_string()).with_source(cause)
}

/// Build a model from the file's bytes.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Model> {
    let read = proto::Model::read(bytes, limits).and_then(|file| Builder::build(&file, limits));
    read.map_err(|error| error.context("ONNX model"))
}

/// A graph while it is built.
struct Builder<'a> {
    opset: i64,
    limits: &'a Limits,
    slots: HashMap<&'a str, usize>,
    pipeline: Pipeline,
    /// What is the same for every row: the file's constants, and what is computed of nothing else.
    constants: HashMap<usize, Tensor>,
    /// How many values may still be computed of constants.
    computed_left: usize,
    /// Labels of the classifier that was met last.
    labels: Option<Tensor>,
}

impl<'a> Builder<'a> {
    fn build(file: &proto::Model<'a>, limits: &'a Limits) -> Result<Model> {
        let mut builder = Builder {
            opset: file.opset,
            limits,
            slots: HashMap::new(),
            pipeline: Pipeline::default(),
            constants: HashMap::new(),
            computed_left: VALUES_MAX,
            labels: None,
        };
        for (name, bytes) in &file.constants {
            let slot = builder.define(name)?;
            builder.constants.insert(slot, proto::tensor(bytes)?);
        }
        let features = builder.inputs(file)?;
        let mut waiting: Vec<&Node<'a>> = file.nodes.iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for node in waiting {
                let is_ready = node.inputs.iter().all(|name| name.is_empty() || builder.slots.contains_key(name));
                if is_ready { builder.node(node)? } else { left.push(node) }
            }
            waiting = left;
            if waiting.len() == before {
                let name = shown(waiting[0].name);
                return Err(Error::invalid(format!("the node `{name}` waits for a value that no other node makes")));
            }
        }
        builder.finish(file, features)
    }

    /// A new slot; an empty name is one that nobody asks for.
    fn define(&mut self, name: &'a str) -> Result<usize> {
        let slot = self.pipeline.slots;
        if !name.is_empty() && self.slots.insert(name, slot).is_some() {
            return Err(Error::invalid(format!("the value `{}` is made twice", shown(name))));
        }
        self.pipeline.slots += 1;
        Ok(slot)
    }

    fn inputs(&mut self, file: &proto::Model<'a>) -> Result<Vec<Feature>> {
        let mut features = Vec::new();
        for port in file.inputs.iter().filter(|port| !self.slots.contains_key(port.name)).collect::<Vec<_>>() {
            let kind = match kind_of(port.element) {
                Some(Kind::Text) => {
                    let port = shown(port.name);
                    return Err(Error::invalid(format!(
                        "the input `{port}` is text, and rows are numbers; prepare text columns before the model, and \
                         export the model with numbers as its inputs"
                    )));
                }
                Some(kind) => kind,
                None => return Err(unsupported(format!("an input of element type {}", port.element), port.name)),
            };
            let width = match port.shape.as_slice() {
                [_] => Some(1),
                [_, width] => width.and_then(|width| usize::try_from(width).ok()),
                _ => None,
            };
            let width =
                width.ok_or_else(|| unsupported("an input that is not rows of a known width".to_owned(), port.name))?;
            Limits::check("features", features.len().saturating_add(width), self.limits.features)?;
            let feature_kind = match kind {
                Kind::Integer => FeatureKind::Integer,
                Kind::Boolean => FeatureKind::Indicator,
                _ => FeatureKind::Number,
            };
            let name = |at: usize| if width == 1 { port.name.to_owned() } else { format!("{}[{at}]", port.name) };
            features.extend((0..width).map(|at| Feature { name: name(at), kind: feature_kind }));
            let slot = self.define(port.name)?;
            self.pipeline.inputs.push((slot, width, kind));
        }
        match features.is_empty() {
            true => Err(Error::invalid("the graph has no input")),
            false => Ok(features),
        }
    }

    /// The constant that an input of a node is; none when there is no such input.
    fn constant(&self, node: &Node<'a>, at: usize) -> Result<Option<&Tensor>> {
        match node.inputs.get(at).filter(|name| !name.is_empty()) {
            None => Ok(None),
            Some(name) => match self.constants.get(&self.slots[name]) {
                Some(tensor) => Ok(Some(tensor)),
                None => Err(unsupported(format!("{} with a computed parameter", node.operation), node.name)),
            },
        }
    }

    /// How many values a row of a node's first input has, where that is known: for inputs of the graph and what keeps their
    /// width.
    fn width(&self, node: &Node<'a>) -> Option<usize> {
        let mut slot = *self.slots.get(node.inputs.first()?)?;
        loop {
            if let Some((_, width, _)) = self.pipeline.inputs.iter().find(|(input, ..)| *input == slot) {
                return Some(*width);
            }
            let maker = self.pipeline.steps.iter().find(|step| step.outputs.contains(&slot))?;
            match maker.op {
                Op::Identity | Op::Cast(_) | Op::Scale { .. } | Op::Normalize(_) | Op::Impute { .. } => {
                    slot = maker.inputs[0]
                }
                _ => return None,
            }
        }
    }

    /// Add a step that reads these slots; its output's slot.
    fn step(&mut self, node: &Node<'a>, op: Op, inputs: Vec<usize>, output: &'a str) -> Result<usize> {
        let slot = self.define(output)?;
        self.push(node, op, inputs, vec![slot])?;
        Ok(slot)
    }

    /// Add a step, or compute it now if it reads nothing but constants.
    fn push(&mut self, node: &Node<'a>, op: Op, inputs: Vec<usize>, outputs: Vec<usize>) -> Result<()> {
        let constants: Option<Vec<&Tensor>> = inputs.iter().map(|slot| self.constants.get(slot)).collect();
        if let Some(constants) = constants {
            let made = op.run(&constants, &mut Scratch::default())?;
            for (slot, tensor) in outputs.into_iter().zip(made) {
                let left = self.computed_left.checked_sub(tensor.values.len());
                self.computed_left = left.ok_or_else(|| {
                    Error::invalid(format!("more than {VALUES_MAX} values are computed of the file's constants"))
                })?;
                self.constants.insert(slot, tensor);
            }
            return Ok(());
        }
        let (operation, node) = (shown(node.operation), shown(node.name));
        self.pipeline.steps.push(Step { operation, node, op, inputs, outputs });
        Ok(())
    }

    fn finish(mut self, file: &proto::Model<'a>, features: Vec<Feature>) -> Result<Model> {
        let slot_of = |name: &str| {
            let slot = self.slots.get(name).copied();
            slot.ok_or_else(|| Error::invalid(format!("no node makes the output `{}`", shown(name))))
        };
        let mut graph = Graph::default();
        let mut output_names = Vec::new();
        for port in &file.outputs {
            let slot = slot_of(port.name)?;
            let is_label = matches!(kind_of(port.element), Some(Kind::Integer | Kind::Text | Kind::Boolean));
            let place = if is_label { &mut graph.label } else { &mut graph.score };
            if place.is_none() {
                *place = Some(slot);
                output_names.push((port.name.to_owned(), is_label));
            }
        }
        if graph.score.is_none() && graph.label.is_none() {
            return Err(Error::invalid("the graph has no output"));
        }
        let is_ensemble = |step: &&Step| matches!(step.op, Op::Ensemble(_));
        let ensembles: Vec<&Step> = self.pipeline.steps.iter().filter(is_ensemble).collect();
        if let [only] = ensembles.as_slice()
            && let Op::Ensemble(ensemble) = &only.op
        {
            graph.raw = Some(only.outputs[0]);
            let is_direct = self.is_graph_input(only.inputs[0], ensemble.forest.compares_f32);
            graph.direct = is_direct.then(|| ensemble.clone());
        }
        self.pipeline.constants = self.constants.into_iter().collect();
        graph.pipeline = self.pipeline;
        let (score_width, words) = check_rows(&graph)?;
        graph.score_width = score_width;
        let classes = if graph.label.is_some() { classes(self.labels.as_ref(), &words) } else { Vec::new() };
        Ok(Model {
            format: Format::Onnx,
            task: if graph.label.is_some() { Task::Classification } else { Task::Regression },
            objective: shown(file.producer),
            features,
            classes,
            output_names,
            body: Body::Graph(graph),
        })
    }

    /// Whether a slot is the graph's only input, as it is or cast so that trees that compare in `f32` (if so) see no
    /// difference.
    fn is_graph_input(&self, mut slot: usize, compares_f32: bool) -> bool {
        let [(input, _, kind)] = self.pipeline.inputs.as_slice() else { return false };
        let is_harmless = |kind: Kind| kind == Kind::F64 || (kind == Kind::F32 && compares_f32);
        while slot != *input {
            let maker = self.pipeline.steps.iter().find(|step| step.outputs.contains(&slot));
            match maker {
                Some(Step { op: Op::Identity, inputs, .. }) => slot = inputs[0],
                Some(Step { op: Op::Cast(kind), inputs, .. }) if is_harmless(*kind) => slot = inputs[0],
                _ => return false,
            }
        }
        is_harmless(*kind)
    }
}

/// Names of the classes: those of the classifier that was met last, unless the label has words of its own.
fn classes(labels: Option<&Tensor>, words: &[String]) -> Vec<String> {
    let value = |labels: &Tensor, value: f64| match labels.kind {
        Kind::Text => labels.texts[value as usize].clone(),
        _ => value.to_string(),
    };
    let known: Vec<String> =
        labels.map_or_else(Vec::new, |labels| labels.values.iter().map(|at| value(labels, *at)).collect());
    let is_known = |word: &String| known.contains(word);
    if words.iter().all(is_known) {
        return known;
    }
    let mut classes: Vec<String> = Vec::new();
    words.iter().for_each(|word| {
        if !classes.contains(word) {
            classes.push(word.clone())
        }
    });
    classes
}

/// How many values of the score each row has, and the words of the label; not ours when a row's answer is not its own.
fn check_rows(graph: &Graph) -> Result<(usize, Arc<[String]>)> {
    let slots: Vec<usize> = graph.score.into_iter().chain(graph.label).collect();
    match graph.pipeline.follow(&slots)? {
        Followed::Apart { widths, texts } if widths[0] > 0 => Ok((widths[0], texts[slots.len() - 1].clone())),
        Followed::Apart { .. } => Err(Error::invalid("the graph makes nothing of a row")),
        Followed::OnlyOne => Err(unsupported("a graph for a fixed number of rows".to_owned(), "")),
        Followed::Meet(Some(step)) => {
            let step = &graph.pipeline.steps[step];
            Err(unsupported(format!("{} across rows", step.operation), &step.node))
        }
        Followed::Meet(None) => Err(unsupported("an output that is not one part for each row".to_owned(), "")),
    }
}
