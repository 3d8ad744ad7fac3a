//! Operations that were learned: products with matrices, linear models, ensembles, and what makes labels of their scores.
//!
//! Bounded and failing as the module above.

use mainstay_base::{Error, Result};

use super::{Binary, Kind, Tensor, size_of};
use crate::layout::{Layout, Scratch};
use crate::link::Link;
use crate::tile::Rows;

#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// By output, then feature.
    pub coefficients: Vec<f64>,
    /// As many as outputs.
    pub intercepts: Vec<f64>,
    pub link: Link,
}

/// A forest, ready to run, and its rows' width.
#[derive(Debug)]
pub(crate) struct Ensemble {
    pub forest: crate::forest::Forest,
    pub layout: Layout,
}

/// How ONNX's classifiers make labels and scores of raw scores.
#[derive(Clone, Debug)]
pub(crate) struct Classify {
    pub link: Link,
    /// As many as classes.
    pub labels: Tensor,
    pub binary: BinaryCase,
    /// Classes that no leaf speaks of, which are never the label; empty when there are none.
    pub is_silent: Vec<bool>,
}

/// How two classes are told apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BinaryCase {
    /// There are as many scores as classes; the greatest is the label.
    No,
    /// Two scores, of which one decides: the label is the second class when that one is above the threshold.
    Pair {
        /// Which one, before the link.
        decides: usize,
        threshold: f64,
    },
    /// A score of the second class among two: its probability, above 0.5.
    Probability,
    /// A score of the second class, above 0.
    Margin,
    /// The same, but the link is that of the two scores together: it and its opposite.
    Mirror,
}

pub(super) fn gemm(inputs: &[&Tensor], transposes: bool, alpha: f64, beta: f64) -> Result<Tensor> {
    let (a, b) = (inputs[0], inputs[1]);
    let (rows, inner) = a.lines();
    let (b_rows, columns) = match (b.shape.as_slice(), transposes) {
        ([columns, rows], true) | ([rows, columns], false) => (*rows, *columns),
        ([rows], false) => (*rows, 1),
        _ => return Err(Error::invalid(format!("{:?} is no matrix", b.shape))),
    };
    if b_rows != inner {
        return Err(Error::invalid(format!("{:?} is multiplied with {:?}", a.shape, b.shape)));
    }
    let mut shape = a.shape.clone();
    shape.pop();
    if b.shape.len() > 1 {
        shape.push(columns);
    }
    let mut values = Vec::with_capacity(size_of(&shape)?);
    for row in 0..rows {
        let left = &a.values[row * inner..][..inner];
        for column in 0..columns {
            let right = |at: usize| b.values[if transposes { column * inner + at } else { at * columns + column }];
            let sum: f64 = left.iter().enumerate().map(|(at, x)| x * right(at)).sum();
            values.push(alpha * sum);
        }
    }
    let product = Tensor::new(shape, a.kind, values);
    let Some(added) = inputs.get(2) else {
        return Ok(product.with_values(a.kind, product.values.iter().copied()));
    };
    let added = added.with_values(Kind::F64, added.values.iter().map(|value| beta * value));
    Binary::Add.run(&product, &added)
}

impl Linear {
    /// Scores of one row, before the link.
    fn scores(&self, row: &[f64], out: &mut Vec<f64>) {
        for (coefficients, intercept) in self.coefficients.chunks_exact(row.len().max(1)).zip(&self.intercepts) {
            let sum: f64 = coefficients.iter().zip(row).map(|(coefficient, x)| coefficient * x).sum();
            out.push(sum + intercept);
        }
    }

    pub(super) fn run(&self, tensor: &Tensor) -> Result<Tensor> {
        let ((rows, width), outputs) = (tensor.rows(), self.intercepts.len());
        if width * outputs != self.coefficients.len() {
            let coefficients = self.coefficients.len();
            return Err(Error::invalid(format!("{coefficients} coefficients for {outputs} outputs of {width} values")));
        }
        let mut values = Vec::with_capacity(size_of(&[rows, outputs])?);
        tensor.values.chunks_exact(width.max(1)).for_each(|row| self.scores(row, &mut values));
        let kind = if tensor.kind == Kind::F64 { Kind::F64 } else { Kind::F32 };
        values.iter_mut().for_each(|value| *value = kind.round(*value));
        values.chunks_exact_mut(outputs.max(1)).for_each(|row| self.link.apply(row, kind == Kind::F32));
        Ok(Tensor::new(vec![rows, outputs], kind, values))
    }
}

impl Ensemble {
    pub(super) fn run(&self, tensor: &Tensor, scratch: &mut Scratch) -> Result<Tensor> {
        let (rows, width) = tensor.rows();
        self.raw(&Rows::F64 { values: &tensor.values, features: width }, 0, rows, scratch)
    }

    /// Raw outputs of some rows. Where the width was not known at import, rows may be wider than what the trees ask for.
    pub fn raw(&self, rows: &Rows<'_>, from: usize, count: usize, scratch: &mut Scratch) -> Result<Tensor> {
        let outputs = self.forest.outputs as usize;
        let mut values = vec![0.0; size_of(&[count, outputs])?];
        self.layout.raw(&self.forest, rows, from, count, scratch, &mut values)?;
        Ok(self.tensor(count, values))
    }

    /// The same for rows whose raw outputs somebody else has computed; `from` counts from the first of those.
    pub fn given(&self, raw: &[f64], from: usize, count: usize) -> Tensor {
        let outputs = self.forest.outputs as usize;
        self.tensor(count, raw[from * outputs..][..count * outputs].to_vec())
    }

    fn tensor(&self, count: usize, values: Vec<f64>) -> Tensor {
        let kind = if self.forest.adds_f32 { Kind::F32 } else { Kind::F64 };
        Tensor::new(vec![count, self.forest.outputs as usize], kind, values)
    }
}

impl Classify {
    pub(super) fn run(&self, raw: &Tensor) -> Result<Vec<Tensor>> {
        let (rows, width) = raw.rows();
        let classes = self.labels.values.len();
        let expected = match self.binary {
            BinaryCase::No | BinaryCase::Pair { .. } => classes,
            BinaryCase::Probability | BinaryCase::Margin | BinaryCase::Mirror => 1,
        };
        if width != expected {
            return Err(Error::invalid(format!("rows of {width} scores; {expected} are expected")));
        }
        let is_f32 = raw.kind == Kind::F32;
        let (mut labels, mut scores) = (Vec::with_capacity(rows), Vec::with_capacity(rows * classes));
        for row in raw.values.chunks_exact(width.max(1)) {
            let from = scores.len();
            let label = match self.binary {
                BinaryCase::No | BinaryCase::Pair { .. } => {
                    scores.extend_from_slice(row);
                    self.link.apply(&mut scores[from..], is_f32);
                    self.label(row)
                }
                case => self.binary_row(case, row[0], is_f32, &mut scores),
            };
            labels.push(self.labels.values[label]);
        }
        let labels =
            Tensor { shape: vec![rows], kind: self.labels.kind, values: labels, texts: self.labels.texts.clone() };
        Ok(vec![labels, Tensor::new(vec![rows, classes], raw.kind, scores)])
    }

    /// The place of the label among the classes.
    fn label(&self, row: &[f64]) -> usize {
        if let BinaryCase::Pair { decides, threshold } = self.binary {
            return usize::from(row[decides] > threshold);
        }
        let speaks = |at: &usize| !self.is_silent.get(*at).copied().unwrap_or(false);
        let best = (0..row.len()).filter(speaks).reduce(|best, at| if row[at] > row[best] { at } else { best });
        best.unwrap_or(0)
    }

    /// What onnxruntime makes of the single score of two classes.
    fn binary_row(&self, case: BinaryCase, score: f64, is_f32: bool, scores: &mut Vec<f64>) -> usize {
        let mut pair = match (case, self.link) {
            (_, Link::Sigmoid { .. }) | (BinaryCase::Mirror, _) => {
                let mut pair = [-score, score];
                self.link.apply(&mut pair, is_f32);
                pair
            }
            (BinaryCase::Probability, _) => [1.0 - score, score],
            _ => [-score, score],
        };
        if is_f32 {
            pair = pair.map(|value| Kind::F32.round(value));
        }
        scores.extend_from_slice(&pair);
        usize::from(score > if case == BinaryCase::Probability { 0.5 } else { 0.0 })
    }
}
