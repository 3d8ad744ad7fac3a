//! A model: what a file became, and what can be asked of it.
//!
//! Owns features, classes and the four kinds of answers, for all formats alike. Separate from importers, which make it, and
//! from layouts, which make it fast. Pure: the same rows give the same bits, whatever else is in the batch.
//!
//! Bounded by: scratch for one tile of [`TILE_ROWS`] rows; answers are written where the caller says. On failure: `invalid`
//! names the width or length that does not fit, or what this model cannot be asked for.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use crate::forest::Forest;
use crate::layout::{Layout, Scratch};
use crate::link::Link;
use crate::network::Hosted;
use crate::pipeline::{Ensemble, Kind, Pipeline, Tensor};
use crate::tile::{Rows, Tile};

/// Rows that are computed together.
pub const TILE_ROWS: usize = 256;

/// The library whose file it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// XGBoost JSON or UBJSON.
    Xgboost,
    /// LightGBM text.
    Lightgbm,
    /// ONNX.
    Onnx,
}

impl Format {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Format::Xgboost => "XGBoost",
            Format::Lightgbm => "LightGBM",
            Format::Onnx => "ONNX",
        }
    }
}

/// What a model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Numbers.
    Regression,
    /// Classes.
    Classification,
}

/// What the values of a feature are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// A number.
    Number,
    /// A whole number.
    Integer,
    /// 0 or 1.
    Indicator,
    /// The code of a category.
    Categorical,
}

/// A column that rows have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// As in the file, or made from its place.
    pub name: String,
    /// What its values are.
    pub kind: FeatureKind,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// What the model's library predicts: probabilities of classes (one for two classes in XGBoost and LightGBM, that of the
    /// second), values after the link.
    Score,
    /// Sums before the link.
    Raw,
    /// For each tree the leaf that a row reaches, numbered as in the file: XGBoost's node, LightGBM's leaf; for ONNX the
    /// place in the tree, breadth first.
    Leaf,
    /// The place of the predicted class in [`Model::classes`]; where the file names no classes, the label itself.
    Label,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    pub(crate) format: Format,
    pub(crate) task: Task,
    pub(crate) objective: String,
    pub(crate) features: Vec<Feature>,
    pub(crate) classes: Vec<String>,
    /// As the file names them, and whether it is the label.
    pub(crate) output_names: Vec<(String, bool)>,
    pub(crate) body: Body,
}

/// What computes.
#[derive(Debug)]
pub(crate) enum Body {
    Trees(Box<Trees>),
    Linear(Linear),
    Graph(Graph),
    Network(Hosted),
}

/// A forest with its link.
#[derive(Debug)]
pub(crate) struct Trees {
    forest: Forest,
    layout: Layout,
    /// What raw outputs are divided by before the link: the rounds of a forest that is an average, else 1.
    rounds: f64,
    link: Link,
    /// By tree and node, the number in the file.
    leaf_ids: Vec<Vec<u32>>,
}

impl Body {
    pub fn trees(forest: Forest, link: Link, leaf_ids: Vec<Vec<u32>>) -> Body {
        Body::averaged(forest, 1, link, leaf_ids)
    }

    /// The same with a link that is given the average over so many rounds.
    pub fn averaged(forest: Forest, rounds: usize, link: Link, leaf_ids: Vec<Vec<u32>>) -> Body {
        let (layout, rounds) = (Layout::new(&forest), rounds as f64);
        Body::Trees(Box::new(Trees { layout, forest, rounds, link, leaf_ids }))
    }
}

/// A linear model of XGBoost: by feature then output. What is missing adds nothing.
#[derive(Debug)]
pub(crate) struct Linear {
    pub coefficients: Vec<f64>,
    pub intercepts: Vec<f64>,
    pub link: Link,
}

/// A graph and the slots of its answers.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub pipeline: Pipeline,
    pub score: Option<usize>,
    pub label: Option<usize>,
    pub raw: Option<usize>,
    /// The only ensemble, if it reads rows as they are given.
    pub direct: Option<Arc<Ensemble>>,
    /// Values of a row's score.
    pub score_width: usize,
}

impl Model {
    /// The library whose file it was.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What it predicts.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The objective as the file names it; for ONNX the program that wrote the file.
    pub fn objective(&self) -> &str {
        &self.objective
    }

    /// The columns that rows have, in order.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Names of the classes, in the order of their scores; `0` and `1` and so on where the file has none. Empty for
    /// regressions.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What the file calls its outputs, and which of ours they are. Empty but for ONNX.
    pub fn named_outputs(&self) -> impl Iterator<Item = (&str, Output)> {
        self.output_names
            .iter()
            .map(|(name, is_label)| (name.as_str(), if *is_label { Output::Label } else { Output::Score }))
    }

    /// The trees, where the model is trees that read its rows as they are given: for explanations of raw outputs.
    pub fn forest(&self) -> Option<&Forest> {
        match &self.body {
            Body::Trees(trees) => Some(&trees.forest),
            Body::Graph(graph) => graph.direct.as_ref().map(|ensemble| &ensemble.forest),
            Body::Linear(_) | Body::Network(_) => None,
        }
    }

    /// How many values a row's answer has; `invalid` when the model cannot be asked for this.
    pub fn width(&self, output: Output) -> Result<usize> {
        let cannot = |what: &str| Err(Error::invalid(format!("this {} model has no {what}", self.format.name())));
        if output == Output::Label && self.task != Task::Classification {
            return cannot("label, as it does not classify");
        }
        match (&self.body, output) {
            (_, Output::Label) => Ok(1),
            (Body::Trees(trees), Output::Leaf) => Ok(trees.forest.trees.len()),
            (Body::Trees(trees), _) => Ok(trees.forest.outputs as usize),
            (Body::Linear(linear), Output::Score | Output::Raw) => Ok(linear.intercepts.len()),
            (Body::Linear(_), Output::Leaf) => cannot("leaves, as it has no trees"),
            (Body::Network(network), Output::Score) => Ok(network.width),
            (Body::Network(_), Output::Raw | Output::Leaf) => cannot("raw output and no leaves, as it is a network"),
            (Body::Graph(graph), Output::Leaf | Output::Raw) => match (&graph.direct, output) {
                (Some(ensemble), Output::Leaf) => Ok(ensemble.forest.trees.len()),
                (Some(ensemble), _) => Ok(ensemble.forest.outputs as usize),
                (None, Output::Leaf) => cannot("leaves of its rows, as it is not one ensemble"),
                (None, _) => cannot("raw output, as it is not one ensemble on its rows"),
            },
            (Body::Graph(graph), Output::Score) => Ok(graph.score_width),
        }
    }

    /// Compute answers for all rows into `out`, row after row, [`Model::width`] values each. `invalid` when rows have
    /// another width than the model, or `out` another length.
    pub fn predict(&self, rows: &Rows<'_>, output: Output, out: &mut [f64]) -> Result<()> {
        let count = rows.count()?;
        self.predict_range(rows, 0..count, output, out)
    }

    /// The same for some of the rows, so that callers can share the work between threads.
    pub fn predict_range(
        &self,
        rows: &Rows<'_>,
        range: std::ops::Range<usize>,
        output: Output,
        out: &mut [f64],
    ) -> Result<()> {
        self.predict_from(None, rows, range, output, out)
    }

    /// The forest whose raw outputs are all that an answer needs of the trees; none where it needs more or something else.
    pub fn forest_behind(&self, output: Output) -> Option<&Forest> {
        match &self.body {
            _ if output == Output::Leaf || self.width(output).is_err() => None,
            Body::Trees(trees) => Some(&trees.forest),
            Body::Graph(graph) if output == Output::Raw || graph.raw.is_some() => self.forest(),
            Body::Graph(_) | Body::Linear(_) | Body::Network(_) => None,
        }
    }

    /// The same as [`Model::predict_range`] where somebody else has computed the raw outputs of these rows: those of
    /// [`Model::forest_behind`], row after row. `invalid` when they are not as many as the rows need.
    pub fn predict_from(
        &self,
        raw: Option<&[f64]>,
        rows: &Rows<'_>,
        range: std::ops::Range<usize>,
        output: Output,
        out: &mut [f64],
    ) -> Result<()> {
        let count = rows.count()?;
        if let Some(raw) = raw {
            let outputs = self.forest_behind(output).map(|forest| forest.outputs as usize);
            if outputs.and_then(|outputs| outputs.checked_mul(range.len())) != Some(raw.len()) {
                let (given, rows) = (raw.len(), range.len());
                return Err(Error::invalid(format!("{given} raw outputs for {rows} rows that have another number")));
            }
        }
        if rows.features() != self.features.len() {
            let (given, expected) = (rows.features(), self.features.len());
            return Err(Error::invalid(format!("rows have {given} values; the model takes {expected}")));
        }
        if range.start > range.end || range.end > count {
            return Err(Error::invalid(format!("rows {} to {} of {count}", range.start, range.end)));
        }
        if range.is_empty() && out.is_empty() {
            return Ok(());
        }
        let width = self.width(output)?;
        if (range.len()).checked_mul(width) != Some(out.len()) {
            let (rows, given) = (range.len(), out.len());
            return Err(Error::invalid(format!("{given} places for the answers of {rows} rows, {width} each")));
        }
        match &self.body {
            Body::Trees(trees) => trees.predict(raw, rows, range, output, out),
            Body::Linear(linear) => linear.predict(rows, range, output, out),
            Body::Graph(graph) => self.predict_graph(graph, raw, rows, range, output, out),
            Body::Network(network) => network.predict(rows, range, output, out),
        }
    }

    fn predict_graph(
        &self,
        graph: &Graph,
        raw: Option<&[f64]>,
        rows: &Rows<'_>,
        range: std::ops::Range<usize>,
        output: Output,
        out: &mut [f64],
    ) -> Result<()> {
        let mut scratch = Scratch::default();
        if let (Some(ensemble), Output::Raw | Output::Leaf) = (&graph.direct, output) {
            return match output {
                Output::Raw if raw.is_some() => copy_raw(raw, out),
                Output::Raw => ensemble.layout.raw(&ensemble.forest, rows, range.start, range.len(), &mut scratch, out),
                _ => leaves(&ensemble.forest, &ensemble.layout, None, rows, range, out),
            };
        }
        let slot = if output == Output::Label { graph.label } else { graph.score.or(graph.label) };
        let slot = slot.ok_or_else(|| Error::internal("a graph without this output"))?;
        let width = out.len() / range.len();
        let given = graph.raw.filter(|_| graph.direct.is_some());
        let needed = graph.pipeline.needed(slot, given);
        let (mut tile, mut lines) = (Tile::<f64>::default(), Vec::new());
        let start = range.start;
        for (from, out) in range.step_by(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS * width)) {
            let count = out.len() / width;
            if needed.inputs {
                tile.fill(rows, from, count, count);
                lines.clear();
                lines.extend((0..count).flat_map(|row| tile.values.iter().skip(row).step_by(count)));
            }
            // An ensemble on the rows themselves reads them where they are.
            let given = match (given, &graph.direct) {
                (Some(slot), Some(ensemble)) => Some((
                    slot,
                    match raw {
                        Some(raw) => ensemble.given(raw, from - start, count),
                        None => ensemble.raw(rows, from, count, &mut scratch)?,
                    },
                )),
                _ => None,
            };
            let tensor = &graph.pipeline.run(&needed, &lines, count, given, &mut scratch)?;
            if tensor.values.len() != out.len() {
                let shape = &tensor.shape;
                return Err(Error::invalid(format!("the graph's output has the shape {shape:?} for {count} rows")));
            }
            match output {
                Output::Label => self.labels(tensor, out)?,
                _ if tensor.kind == Kind::Text => {
                    return Err(Error::invalid("the model's only output is a label in words; ask for the label"));
                }
                _ => out.copy_from_slice(&tensor.values),
            }
        }
        Ok(())
    }

    /// Labels as places among the classes.
    fn labels(&self, tensor: &Tensor, out: &mut [f64]) -> Result<()> {
        for (out, value) in out.iter_mut().zip(&tensor.values) {
            let shown = match tensor.kind {
                Kind::Text => tensor.texts.get(*value as usize).cloned().unwrap_or_default(),
                _ => value.to_string(),
            };
            *out = match self.classes.iter().position(|class| *class == shown) {
                Some(at) => at as f64,
                None if tensor.kind != Kind::Text => *value,
                None => return Err(Error::invalid(format!("the label `{shown}` is none of the model's classes"))),
            };
        }
        Ok(())
    }
}

impl Trees {
    fn average(&self, outputs: &mut [f64]) {
        if self.rounds != 1.0 {
            outputs.iter_mut().for_each(|output| *output /= self.rounds);
        }
    }

    fn predict(
        &self,
        given: Option<&[f64]>,
        rows: &Rows<'_>,
        range: std::ops::Range<usize>,
        output: Output,
        out: &mut [f64],
    ) -> Result<()> {
        let (outputs, start) = (self.forest.outputs as usize, range.start);
        let mut scratch = Scratch::default();
        let raw = |from: usize, count: usize, scratch: &mut Scratch, out: &mut [f64]| match given {
            Some(_) => copy_raw(given.map(|raw| &raw[(from - start) * outputs..][..count * outputs]), out),
            None => self.layout.raw(&self.forest, rows, from, count, scratch, out),
        };
        match output {
            Output::Leaf => leaves(&self.forest, &self.layout, Some(&self.leaf_ids), rows, range, out),
            Output::Raw => raw(range.start, range.len(), &mut scratch, out),
            Output::Score => {
                raw(range.start, range.len(), &mut scratch, out)?;
                self.average(out);
                out.chunks_exact_mut(outputs).for_each(|row| self.link.apply(row, self.forest.adds_f32));
                Ok(())
            }
            Output::Label => {
                let mut sums = vec![0.0; TILE_ROWS.min(range.len()) * outputs];
                for (from, out) in range.step_by(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS)) {
                    let sums = &mut sums[..out.len() * outputs];
                    raw(from, out.len(), &mut scratch, sums)?;
                    self.average(sums);
                    let labels = sums.chunks_exact(outputs).map(|row| label(row, self.link, self.forest.adds_f32));
                    out.iter_mut().zip(labels).for_each(|(out, label)| *out = label);
                }
                Ok(())
            }
        }
    }
}

/// What somebody else has computed.
fn copy_raw(raw: Option<&[f64]>, out: &mut [f64]) -> Result<()> {
    out.copy_from_slice(raw.ok_or_else(|| Error::internal("raw outputs were promised and are not there"))?);
    Ok(())
}

/// The class of a row's raw outputs: the greatest, or of two the second when its probability is above one half.
fn label(row: &[f64], link: Link, is_f32: bool) -> f64 {
    match (row, link) {
        ([one], Link::Identity) => f64::from(u8::from(*one > 0.0)),
        ([one], _) => {
            let mut score = [*one];
            link.apply(&mut score, is_f32);
            f64::from(u8::from(score[0] > 0.5))
        }
        _ => (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best }) as f64,
    }
}

fn leaves(
    forest: &Forest,
    layout: &Layout,
    ids: Option<&[Vec<u32>]>,
    rows: &Rows<'_>,
    range: std::ops::Range<usize>,
    out: &mut [f64],
) -> Result<()> {
    let trees = forest.trees.len();
    if trees == 0 {
        return Ok(());
    }
    let mut scratch = Scratch::default();
    let mut found = vec![0_u32; TILE_ROWS.min(range.len()) * trees];
    for (from, out) in range.step_by(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS * trees)) {
        let found = &mut found[..out.len()];
        layout.leaves(forest, rows, from, out.len() / trees, &mut scratch, found)?;
        for (at, (out, node)) in out.iter_mut().zip(found).enumerate() {
            *out = f64::from(ids.map_or(*node, |ids| ids[at % trees][*node as usize]));
        }
    }
    Ok(())
}

impl Linear {
    fn predict(&self, rows: &Rows<'_>, range: std::ops::Range<usize>, output: Output, out: &mut [f64]) -> Result<()> {
        let outputs = self.intercepts.len();
        let width = if output == Output::Label { 1 } else { outputs };
        let (mut tile, mut sums) = (Tile::<f32>::default(), vec![0.0; outputs]);
        for (from, out) in range.step_by(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS * width)) {
            let count = out.len() / width;
            tile.fill(rows, from, count, count);
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                sums.iter_mut().enumerate().for_each(|(at, sum)| *sum = f64::from(self.sum(at, &tile, row)));
                match output {
                    Output::Label => out[0] = label(&sums, self.link, true),
                    Output::Score => {
                        self.link.apply(&mut sums, true);
                        out.copy_from_slice(&sums);
                    }
                    Output::Raw | Output::Leaf => out.copy_from_slice(&sums),
                }
            }
        }
        Ok(())
    }

    /// One output of one row, added in `f32` in the order of the features.
    fn sum(&self, output: usize, tile: &Tile<f32>, row: usize) -> f32 {
        let weights = self.coefficients.iter().skip(output).step_by(self.intercepts.len());
        let values = tile.values.iter().skip(row).step_by(tile.stride);
        let terms = weights.zip(values).filter(|(_, value)| !value.is_nan());
        terms.fold(self.intercepts[output] as f32, |sum, (weight, value)| sum + *weight as f32 * value)
    }
}
