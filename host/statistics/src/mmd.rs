//! Maximum mean discrepancy: how far two sets of vectors are apart in the space of a Gaussian kernel.
//!
//! A. Gretton et al., "A kernel two-sample test" (2012): the unbiased and the biased estimator compare all pairs, so their
//! rows are bounded and larger sets sampled, by seed and without repetition; the linear-time estimator (lemma 14) reads every
//! row once. The bandwidth is by default the median distance of all pairs (of at most [`MEDIAN_ROWS`] vectors of either set).

use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::matrix::Matrix;
use crate::philox::Stream;
use crate::walk::Missing;

/// Vectors of either set whose distances give the default bandwidth.
pub const MEDIAN_ROWS: usize = 500;
/// Most rows of either set that all pairs may be asked of.
pub const PAIR_ROWS_MAX: usize = 20_000;
/// Most elements that are held for the linear-time estimator.
pub const ELEMENTS_MAX: usize = 1 << 28;

/// Which estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// Without pairs of a vector with itself; may be below zero. Sets of more than `rows` are sampled.
    Unbiased {
        /// Vectors of either set that are compared.
        rows: usize,
    },
    /// With them; never below zero.
    Biased {
        /// Vectors of either set that are compared.
        rows: usize,
    },
    /// Disjoint pairs in order; unbiased, of greater variance, for any number of rows.
    Linear,
}

/// A discrepancy and the kernel that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discrepancy {
    /// Squared discrepancy.
    pub squared: f64,
    /// σ of the kernel exp(-|x - y|² / 2σ²).
    pub bandwidth: f64,
    /// Vectors of the reference and of the current set that were compared.
    pub rows: (usize, usize),
}

/// Discrepancy of two sets. `bandwidth` none takes the median; `seed` picks the sample where one is taken.
///
/// Two vectors of each set are needed. `constant_reference` when the median distance is zero.
pub fn discrepancy(
    reference: &Matrix<'_>,
    current: &Matrix<'_>,
    estimator: Estimator,
    bandwidth: Option<f64>,
    seed: u64,
    missing: Missing,
) -> Result<Discrepancy> {
    let width = reference.width();
    if width != current.width() {
        return Err(Fault::lengths(width, current.width()));
    }
    let rows_max = match estimator {
        Estimator::Unbiased { rows } | Estimator::Biased { rows } if rows > PAIR_ROWS_MAX => {
            return Err(Fault::too_many(format!("all pairs of {rows} vectors; the most is {PAIR_ROWS_MAX}")));
        }
        Estimator::Unbiased { rows } | Estimator::Biased { rows } => rows,
        Estimator::Linear => ELEMENTS_MAX / width.max(1),
    };
    let first = sampled(reference, rows_max, seed, 0, missing)?;
    let second = sampled(current, rows_max, seed, 1, missing)?;
    let (first, second) = (Vectors { values: &first, width }, Vectors { values: &second, width });
    if first.rows() < 2 || second.rows() < 2 {
        return Err(Fault::empty_input("fewer than two whole vectors in a set; the discrepancy needs pairs"));
    }
    let bandwidth = match bandwidth {
        Some(given) if given > 0.0 && given.is_finite() => given,
        Some(given) => return Err(Fault::bad_argument(format!("a bandwidth of {given}; it is above 0"))),
        None => median_distance(first, second)?,
    };
    let scale = -0.5 / (bandwidth * bandwidth);
    let squared = match estimator {
        Estimator::Linear => linear(first, second, scale),
        Estimator::Biased { .. } => all_pairs(first, second, scale, true),
        Estimator::Unbiased { .. } => all_pairs(first, second, scale, false),
    };
    Ok(Discrepancy { squared, bandwidth, rows: (first.rows(), second.rows()) })
}

#[derive(Clone, Copy)]
struct Vectors<'a> {
    values: &'a [f64],
    width: usize,
}

impl<'a> Vectors<'a> {
    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, at: usize) -> &'a [f64] {
        &self.values[at * self.width..(at + 1) * self.width]
    }
}

/// At most `rows_max` rows, without those that have a missing element.
fn sampled(vectors: &Matrix<'_>, rows_max: usize, seed: u64, stream: u32, missing: Missing) -> Result<Vec<f64>> {
    let (rows, width) = (vectors.rows()?, vectors.width());
    if u32::try_from(rows).is_err() {
        return Err(Fault::too_many(format!("{rows} vectors; the most is {}", u32::MAX)));
    }
    let chosen = chosen(rows as u32, rows_max, &Stream::new(seed, stream));
    let mut dense = vectors.dense(&chosen);
    if dense.iter().any(|value| value.is_nan()) {
        if missing == Missing::Refuse {
            return Err(Fault::non_finite(
                "a vector has a missing element or NaN; fill it, or ask for it to be omitted",
            ));
        }
        let whole = dense.chunks_exact(width).filter(|row| row.iter().all(|value| !value.is_nan()));
        dense = whole.flatten().copied().collect();
    }
    match dense.iter().any(|value| value.is_infinite()) {
        true => Err(Fault::non_finite("a vector has an infinite element")),
        false => Ok(dense),
    }
}

/// `wanted` of `rows` numbers, ascending: R. W. Floyd's sampling without repetition.
fn chosen(rows: u32, wanted: usize, stream: &Stream) -> Vec<u32> {
    if rows as usize <= wanted {
        return (0..rows).collect();
    }
    let mut chosen = hashbrown::HashSet::with_capacity(wanted);
    for (draw, last) in (rows - wanted as u32..rows).enumerate() {
        let candidate = stream.below(draw as u64, last + 1);
        if !chosen.insert(candidate) {
            chosen.insert(last);
        }
    }
    let mut chosen: Vec<u32> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn median_distance(first: Vectors<'_>, second: Vectors<'_>) -> Result<f64> {
    let mut pooled: Vec<&[f64]> = Vec::with_capacity(2 * MEDIAN_ROWS);
    for vectors in [first, second] {
        let (rows, some) = (vectors.rows(), vectors.rows().min(MEDIAN_ROWS));
        pooled.extend((0..some).map(|at| vectors.row(at * rows / some)));
    }
    let pairs = (0..pooled.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let mut distances: Vec<f64> = pairs.map(|(a, b)| squared_distance(pooled[a], pooled[b])).collect();
    let (middle, is_even) = (distances.len() / 2, distances.len().is_multiple_of(2));
    let (below, upper, _) = distances.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| is_even).unwrap_or(*upper);
    let median = (lower.sqrt() + upper.sqrt()) / 2.0;
    if median > 0.0 && median.is_finite() {
        return Ok(median);
    }
    Err(Fault::constant_reference("half of all vectors are equal, so the median distance is no bandwidth; give one"))
}

/// Mean kernel of one vector with all of a set, summed in the order of rows.
fn mean_kernel(rows: Vectors<'_>, others: Vectors<'_>, scale: f64, with_itself: Option<bool>) -> f64 {
    let one = |at: usize| -> f64 {
        let row = rows.row(at);
        let pairs = (0..others.rows()).filter(|other| with_itself != Some(false) || *other != at);
        pairs.map(|other| (scale * squared_distance(row, others.row(other))).exp()).sum()
    };
    let sums: Vec<f64> = (0..rows.rows()).into_par_iter().map(one).collect();
    let partners = if with_itself == Some(false) { others.rows() - 1 } else { others.rows() };
    sums.iter().sum::<f64>() / rows.rows() as f64 / partners as f64
}

fn all_pairs(first: Vectors<'_>, second: Vectors<'_>, scale: f64, with_itself: bool) -> f64 {
    let within =
        mean_kernel(first, first, scale, Some(with_itself)) + mean_kernel(second, second, scale, Some(with_itself));
    let squared = within - 2.0 * mean_kernel(first, second, scale, None);
    if with_itself { squared.max(0.0) } else { squared }
}

fn linear(first: Vectors<'_>, second: Vectors<'_>, scale: f64) -> f64 {
    let pairs = first.rows().min(second.rows()) / 2;
    let kernel = |a: &[f64], b: &[f64]| (scale * squared_distance(a, b)).exp();
    let one = |at: usize| {
        let (x1, x2) = (first.row(2 * at), first.row(2 * at + 1));
        let (y1, y2) = (second.row(2 * at), second.row(2 * at + 1));
        kernel(x1, x2) + kernel(y1, y2) - kernel(x1, y2) - kernel(x2, y1)
    };
    let values: Vec<f64> = (0..pairs).into_par_iter().map(one).collect();
    values.iter().sum::<f64>() / pairs as f64
}
