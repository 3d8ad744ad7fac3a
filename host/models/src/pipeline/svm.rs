//! Support vector machines (ONNX's SVMClassifier and SVMRegressor).
//!
//! Owns kernels, votes between pairs of classes, and probabilities of classes from those of pairs (Wu, Lin and Weng,
//! "Probability Estimates for Multi-class Classification by Pairwise Coupling", 2004, their second way, as LIBSVM). Separate
//! because it is the one operation whose parameters are rows. Computed in `f32` as onnxruntime does; the coupling stops when
//! it is near enough, so it must take the same steps to give the same answer.
//!
//! Bounded by: the kernels of one row at a time; [`CLASSES_MAX`], as coupling takes their square. On failure: `invalid` when
//! rows have another width than the vectors.

use mainstay_base::{Error, Result};

use super::{Kind, Tensor, size_of};
use crate::link::Link;

/// Classes of one machine.
pub(crate) const CLASSES_MAX: usize = 512;
/// Steps of coupling.
const STEPS_MAX: usize = 100;
/// Probabilities of pairs keep this distance from 0 and 1.
const PROBABILITY_MIN: f32 = 1e-7;

/// How near a row is to a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kernel {
    /// `x·v`
    Linear,
    /// `(gamma x·v + offset)^degree`
    Poly { gamma: f32, offset: f32, degree: f32 },
    /// `exp(-gamma |x - v|²)`
    Rbf { gamma: f32 },
    /// `tanh(gamma x·v + offset)`
    Sigmoid { gamma: f32, offset: f32 },
}

/// Vectors and the kernel that rows meet them by.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    kernel: Kernel,
    /// By feature, then vector, so that all sums of a row grow together.
    values: Vec<f32>,
    count: usize,
    features: usize,
}

impl Vectors {
    /// Vectors one after the other; `invalid` when they are not as many as said.
    pub fn new(kernel: Kernel, values: &[f64], count: usize) -> Result<Vectors> {
        let features = values.len().checked_div(count).unwrap_or(0);
        if features == 0 || features * count != values.len() {
            return Err(Error::invalid(format!("{} values do not make {count} vectors", values.len())));
        }
        let value = |at: usize| values[at % count * features + at / count] as f32;
        Ok(Vectors { kernel, values: (0..values.len()).map(value).collect(), count, features })
    }

    /// The kernels of one row, one for each vector.
    fn kernels(&self, row: &[f64], out: &mut Vec<f32>) {
        let columns = row.iter().zip(self.values.chunks_exact(self.count));
        if let Kernel::Rbf { gamma } = self.kernel {
            out.clear();
            out.resize(self.count, 0.0);
            for (x, column) in columns {
                out.iter_mut().zip(column).for_each(|(sum, v)| *sum += (*x as f32 - v) * (*x as f32 - v));
            }
            out.iter_mut().for_each(|sum| *sum = (-gamma * *sum).exp());
            return;
        }
        let mut products = vec![0.0_f64; self.count];
        for (x, column) in columns {
            products.iter_mut().zip(column).for_each(|(sum, v)| *sum += f64::from(*x as f32) * f64::from(*v));
        }
        out.clear();
        out.extend(products.into_iter().map(|product| match self.kernel {
            Kernel::Poly { gamma, offset, degree } => {
                let base = (f64::from(gamma) * product + f64::from(offset)) as f32;
                match degree {
                    2.0 => base * base,
                    3.0 => base * base * base,
                    _ => base.powf(degree),
                }
            }
            Kernel::Sigmoid { gamma, offset } => ((f64::from(gamma) * product + f64::from(offset)) as f32).tanh(),
            Kernel::Linear | Kernel::Rbf { .. } => product as f32,
        }));
    }

    /// Rows of the right width, one by one with their kernels.
    fn each(&self, tensor: &Tensor, mut take: impl FnMut(&[f32])) -> Result<usize> {
        let (rows, width) = tensor.rows();
        if width != self.features {
            return Err(Error::invalid(format!("rows of {width} values; the vectors have {}", self.features)));
        }
        let mut kernels = Vec::new();
        for row in tensor.values.chunks_exact(width) {
            self.kernels(row, &mut kernels);
            take(&kernels);
        }
        Ok(rows)
    }
}

/// A sum of kernels.
#[derive(Clone, Debug)]
pub(crate) struct SvmRegressor {
    pub vectors: Vectors,
    /// One for each vector.
    pub coefficients: Vec<f64>,
    pub offset: f64,
    /// Whether the answer is 1 above zero and -1 else.
    pub is_one_class: bool,
}

impl SvmRegressor {
    pub(super) fn run(&self, tensor: &Tensor) -> Result<Tensor> {
        let mut values = Vec::new();
        let rows = self.vectors.each(tensor, |kernels| {
            let sum: f64 = kernels.iter().zip(&self.coefficients).map(|(k, c)| f64::from(*k) * c).sum();
            let sum = Kind::F32.round(sum + self.offset);
            values.push(match self.is_one_class {
                true if sum > 0.0 => 1.0,
                true => -1.0,
                false => sum,
            });
        })?;
        Ok(Tensor::new(vec![rows, 1], Kind::F32, values))
    }
}

/// Classes that vectors vote for.
#[derive(Clone, Debug)]
pub(crate) struct SvmClassifier {
    pub vectors: Vectors,
    /// As many as classes.
    pub labels: Tensor,
    pub link: Link,
    pub pairs: Option<Pairs>,
    /// Without pairs the vectors are the classes' own coefficients, and this is added to each.
    pub offset: f64,
    pub is_all_positive: bool,
}

/// One decision for each pair of classes, in the order (0, 1), (0, 2), …, (1, 2), ….
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    /// By other class (one fewer than there are), then vector.
    pub coefficients: Vec<f64>,
    /// Where the vectors of each class start, and the end.
    pub starts: Vec<usize>,
    pub offsets: Vec<f64>,
    /// Slope and offset of each pair's probability; none when there are no probabilities.
    pub sigmoids: Option<(Vec<f64>, Vec<f64>)>,
}

impl Pairs {
    fn classes(&self) -> usize {
        self.starts.len() - 1
    }

    /// The decisions of one row, and the votes that they are.
    fn decide(&self, kernels: &[f32], decisions: &mut Vec<f32>, votes: &mut Vec<u32>) {
        decisions.clear();
        votes.clear();
        votes.resize(self.classes(), 0);
        let part = |class: usize, other: usize| {
            let own = self.starts[class]..self.starts[class + 1];
            let coefficients = &self.coefficients[other * kernels.len()..][own.clone()];
            let products = coefficients.iter().zip(&kernels[own]).map(|(c, k)| f64::from(*c as f32 * k));
            products.sum::<f64>()
        };
        for a in 0..self.classes() {
            for b in a + 1..self.classes() {
                let sum = part(a, b - 1) + part(b, a) + self.offsets[decisions.len()];
                votes[if sum > 0.0 { a } else { b }] += 1;
                decisions.push(sum as f32);
            }
        }
    }

    /// Probabilities of classes; none when there are none of pairs.
    fn probabilities(&self, decisions: &[f32]) -> Option<Vec<f32>> {
        let ((slopes, offsets), classes) = (self.sigmoids.as_ref()?, self.classes());
        let mut of_pairs = vec![0.0; classes * classes];
        let mut pair = 0;
        for a in 0..classes {
            for b in a + 1..classes {
                let value = decisions[pair] * slopes[pair] as f32 + offsets[pair] as f32;
                let probability = (1.0 - logistic(value)).clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN);
                (of_pairs[a * classes + b], of_pairs[b * classes + a]) = (probability, 1.0 - probability);
                pair += 1;
            }
        }
        Some(couple(&of_pairs, classes))
    }
}

fn logistic(x: f32) -> f32 {
    let share = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - share } else { share }
}

/// The distribution over classes that agrees best with the probabilities of pairs.
fn couple(of_pairs: &[f32], classes: usize) -> Vec<f32> {
    let pair = |a: usize, b: usize| of_pairs[a * classes + b];
    let mut matrix = vec![0.0_f32; classes * classes];
    for a in 0..classes {
        for b in (0..classes).filter(|b| *b != a) {
            matrix[a * classes + a] += pair(b, a) * pair(b, a);
            matrix[a * classes + b] = -pair(b, a) * pair(a, b);
        }
    }
    let mut shares = vec![1.0 / classes as f32; classes];
    let mut products = vec![0.0_f32; classes];
    for _ in 0..STEPS_MAX {
        let mut total = 0.0;
        for a in 0..classes {
            let row = matrix[a * classes..][..classes].iter().zip(&shares);
            products[a] = row.fold(0.0, |sum, (m, share)| sum + m * share);
            total += shares[a] * products[a];
        }
        let error = products.iter().map(|product| (product - total).abs()).fold(0.0, f32::max);
        if error < 0.005 / classes as f32 {
            break;
        }
        for a in 0..classes {
            let own = matrix[a * classes + a];
            let change = (total - products[a]) / own;
            shares[a] += change;
            let scale = 1.0 + change;
            total = (total + change * (change * own + 2.0 * products[a])) / scale / scale;
            for b in 0..classes {
                products[b] = (products[b] + change * matrix[a * classes + b]) / scale;
                shares[b] /= scale;
            }
        }
    }
    shares
}

impl SvmClassifier {
    pub(super) fn run(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let (mut labels, mut scores) = (Vec::new(), Vec::new());
        let (mut decisions, mut votes) = (Vec::new(), Vec::new());
        let rows = self.vectors.each(tensor, |kernels| {
            let from = scores.len();
            let place = match &self.pairs {
                None => {
                    scores.extend(kernels.iter().map(|score| f64::from(score + self.offset as f32)));
                    self.linear_label(&scores[from..])
                }
                Some(pairs) => {
                    pairs.decide(kernels, &mut decisions, &mut votes);
                    match (pairs.probabilities(&decisions), decisions.as_slice()) {
                        (Some(shares), _) => scores.extend(shares.into_iter().map(f64::from)),
                        (None, [one]) => return self.two(*one, &votes, &mut labels, &mut scores),
                        (None, many) => scores.extend(many.iter().map(|decision| f64::from(*decision))),
                    }
                    first_greatest(&votes)
                }
            };
            self.link.apply(&mut scores[from..], true);
            labels.push(self.labels.values[place]);
        })?;
        let width = scores.len().checked_div(rows).unwrap_or(0);
        size_of(&[rows, width])?;
        let labels =
            Tensor { shape: vec![rows], kind: self.labels.kind, values: labels, texts: self.labels.texts.clone() };
        Ok(vec![labels, Tensor::new(vec![rows, width], Kind::F32, scores)])
    }

    /// The scores that onnxruntime makes of the one decision between two classes.
    fn two(&self, decision: f32, votes: &[u32], labels: &mut Vec<f64>, scores: &mut Vec<f64>) {
        let pair = match self.link {
            Link::Identity => [-decision, decision],
            Link::Sigmoid { .. } => [logistic(-decision), logistic(decision)],
            _ => [1.0 - decision, decision],
        };
        scores.extend(pair.map(f64::from));
        labels.push(self.labels.values[first_greatest(votes)]);
    }

    /// The greatest; of two classes the second already when the greatest is above one half or, where coefficients may be
    /// negative, above zero.
    fn linear_label(&self, scores: &[f64]) -> usize {
        let best = first_greatest(scores);
        let is_second = match self.is_all_positive {
            true => scores[best] >= 0.5,
            false => scores[best] > 0.0,
        };
        if scores.len() == 2 && is_second { 1 } else { best }
    }
}

fn first_greatest<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_agree_give_their_own_distribution() {
        fn check(shares: &[f32]) {
            let classes = shares.len();
            let pair = |at: usize| {
                let (a, b) = (shares[at / classes], shares[at % classes]);
                if at / classes == at % classes { 0.0 } else { a / (a + b) }
            };
            let of_pairs: Vec<f32> = (0..classes * classes).map(pair).collect();
            let got = couple(&of_pairs, classes);
            let near = got.iter().zip(shares).all(|(got, share)| (got - share).abs() < 0.01);
            assert!(near && (got.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{got:?} instead of {shares:?}");
        }
        check(&[0.5, 0.5]);
        check(&[0.9, 0.1]);
        check(&[0.2, 0.3, 0.5]);
        check(&[0.7, 0.1, 0.1, 0.1]);
    }
}
