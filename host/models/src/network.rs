//! A model whose arithmetic is somebody else's: a general runtime's, behind a trait.
//!
//! Owns what such a model must say of itself and how its rows reach it. Separate so that this crate needs no runtime, and
//! whoever has one can still make a [`Model`] that is asked like every other. Bounded by: [`NETWORK_ROWS`] rows are copied at
//! a time. On failure: the runtime's error.

use std::fmt;
use std::ops::Range;

use mainstay_base::{Error, Result};

use crate::model::{Body, Feature, Format, Model, Output, TILE_ROWS, Task};
use crate::tile::{Rows, Tile};

/// Rows that are handed over at a time.
pub const NETWORK_ROWS: usize = 4_096;

/// Something that answers rows. It may take turns; its callers wait.
pub trait Network: fmt::Debug + Send + Sync {
    /// Append the scores of these rows, and their labels if there are any: as many as the shape says.
    fn run(&self, values: &[f32], scores: &mut Vec<f64>, labels: &mut Vec<f64>) -> Result<()>;
}

/// What is known of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkShape {
    /// Whose file it was.
    pub format: Format,
    /// What runs it, for people.
    pub runtime: String,
    /// The columns of rows, in order.
    pub features: Vec<Feature>,
    /// Name of the score, and how many values it has for a row.
    pub score: (String, usize),
    /// Name of the label, if there is one.
    pub label: Option<String>,
}

/// A network with what was said of it.
#[derive(Debug)]
pub(crate) struct Hosted {
    network: Box<dyn Network>,
    pub width: usize,
}

impl Model {
    /// A model that answers through this network. With a label it classifies; its classes are the places of its scores.
    pub fn of_network(shape: NetworkShape, network: Box<dyn Network>) -> Model {
        let (score, width) = shape.score;
        let has_label = shape.label.is_some();
        let classes = if has_label { (0..width.max(2)).map(|class| class.to_string()).collect() } else { Vec::new() };
        Model {
            format: shape.format,
            task: if has_label { Task::Classification } else { Task::Regression },
            objective: shape.runtime,
            features: shape.features,
            classes,
            output_names: [(score, false)].into_iter().chain(shape.label.map(|label| (label, true))).collect(),
            body: Body::Network(Hosted { network, width }),
        }
    }
}

impl Hosted {
    pub fn predict(&self, rows: &Rows<'_>, range: Range<usize>, output: Output, out: &mut [f64]) -> Result<()> {
        let width = out.len() / range.len();
        let (mut scores, mut labels, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for (from, out) in range.step_by(NETWORK_ROWS).zip(out.chunks_mut(NETWORK_ROWS * width)) {
            scores.clear();
            labels.clear();
            let values = line_up(rows, from..from + out.len() / width, &mut lines);
            self.network.run(values, &mut scores, &mut labels)?;
            let made = if output == Output::Label { &labels } else { &scores };
            match made.len() == out.len() {
                true => out.copy_from_slice(made),
                false => return Err(Error::internal(format!("{} answers for {} places", made.len(), out.len()))),
            }
        }
        Ok(())
    }
}

/// These rows, value after value; without a copy if they lie so.
fn line_up<'a>(rows: &Rows<'a>, range: Range<usize>, lines: &'a mut Vec<f32>) -> &'a [f32] {
    if let Rows::F32 { values, features } = rows {
        return &values[range.start * features..range.end * features];
    }
    let mut tile = Tile::<f32>::default();
    lines.clear();
    for from in range.clone().step_by(TILE_ROWS) {
        let count = TILE_ROWS.min(range.end - from);
        tile.fill(rows, from, count, count);
        lines.extend((0..count).flat_map(|row| tile.values.iter().skip(row).step_by(count)));
    }
    lines
}
