//! Correlation of two columns: Pearson's of the values, Spearman's of their ranks.
//!
//! Pearson: blocks are centred on their own means and joined by the formulas of Pébay (2008), piece by piece in order.
//! Spearman (1904): ties get the mean of their ranks, then Pearson.

use mainstay_arrays::Numbers;
use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::order;
use crate::walk::{Missing, Rows};

#[derive(Clone, Copy, Default)]
struct Joint {
    count: f64,
    mean: [f64; 2],
    /// Sums of squares of either, and of products.
    central: [f64; 3],
}

impl Joint {
    /// Of distances from a row of the columns, so that what all rows share cancels first.
    fn of(x: &[f64], y: &[f64], shift: [f64; 2]) -> Joint {
        let count = x.len() as f64;
        let mean = |values: &[f64], shift: f64| values.iter().map(|value| value - shift).sum::<f64>() / count;
        let mean = [mean(x, shift[0]), mean(y, shift[1])];
        let mut lanes = [[0.0; 3]; 4];
        for (at, (x, y)) in x.iter().zip(y).enumerate() {
            let (x, y) = ((x - shift[0]) - mean[0], (y - shift[1]) - mean[1]);
            let lane = &mut lanes[at % 4];
            *lane = [lane[0] + x * x, lane[1] + y * y, lane[2] + x * y];
        }
        let central = std::array::from_fn(|at| (lanes[0][at] + lanes[2][at]) + (lanes[1][at] + lanes[3][at]));
        Joint { count, mean, central }
    }

    fn and(&self, other: &Joint) -> Joint {
        if self.count == 0.0 || other.count == 0.0 {
            return if self.count == 0.0 { *other } else { *self };
        }
        let count = self.count + other.count;
        let off = [other.mean[0] - self.mean[0], other.mean[1] - self.mean[1]];
        let weight = self.count * other.count / count;
        let products = [off[0] * off[0], off[1] * off[1], off[0] * off[1]];
        Joint {
            count,
            mean: std::array::from_fn(|at| self.mean[at] + off[at] * other.count / count),
            central: std::array::from_fn(|at| self.central[at] + other.central[at] + products[at] * weight),
        }
    }

    fn correlation(&self) -> Result<f64> {
        if self.count < 2.0 {
            return Err(Fault::empty_input("fewer than two rows; a correlation needs two at least"));
        }
        let [xx, yy, xy] = self.central;
        if !(xx.is_finite() && yy.is_finite()) {
            return Err(Fault::non_finite(
                "a column has infinite values, or its squares overflow; leave them out or scale",
            ));
        }
        if xx == 0.0 || yy == 0.0 {
            return Err(Fault::constant_reference("a column has one value only and varies with nothing"));
        }
        Ok((xy / xx.sqrt() / yy.sqrt()).clamp(-1.0, 1.0))
    }
}

/// Pearson's correlation. `constant_reference` when a column does not vary.
pub fn pearson(x: &Numbers<'_>, y: &Numbers<'_>, missing: Missing) -> Result<f64> {
    let rows = Rows::new([x, y], missing)?;
    let shift = rows.first().unwrap_or_default();
    let pieces = rows.map(Joint::default, |all, [x, y]| *all = all.and(&Joint::of(x, y, shift)))?;
    pieces.iter().fold(Joint::default(), |all, piece| all.and(piece)).correlation()
}

/// Spearman's correlation.
pub fn spearman(x: &Numbers<'_>, y: &Numbers<'_>, missing: Missing) -> Result<f64> {
    let rows = Rows::new([x, y], missing)?;
    let (mut first, mut second) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    rows.each(|[x, y]| {
        first.extend(x.iter().map(|value| order::key(*value)));
        second.extend(y.iter().map(|value| order::key(*value)));
    })?;
    if first.is_empty() {
        return Err(Fault::nothing("a column"));
    }
    let (first, second) = rayon::join(|| ranks(&first), || ranks(&second));
    pearson(&Numbers::of_f64(&[&first]), &Numbers::of_f64(&[&second]), Missing::Refuse)
}

/// Mean ranks, from 1.
fn ranks(keys: &[u64]) -> Vec<f64> {
    let mut pairs: Vec<(u64, u32)> = keys.iter().zip(0u32..).map(|(key, row)| (*key, row)).collect();
    pairs.par_sort_unstable();
    let (mut ranks, mut at) = (vec![0.0; keys.len()], 0);
    for ties in pairs.chunk_by(|a, b| a.0 == b.0) {
        let rank = at as f64 + (ties.len() + 1) as f64 / 2.0;
        ties.iter().for_each(|(_, row)| ranks[*row as usize] = rank);
        at += ties.len();
    }
    ranks
}
