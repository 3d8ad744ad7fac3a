//! Divergences between two distributions given as shares of bins or categories.
//!
//! Jeffreys: H. Jeffreys, "An invariant form for the prior probability in estimation problems" (1946); symmetric
//! Kullback-Leibler. Here over binned shares, where a share of zero becomes a small floor and nothing is scaled again, so that
//! shares may sum to slightly more than one. Jensen-Shannon: J. Lin, "Divergence measures based on the Shannon entropy"
//! (1991); the distance is the square root of the divergence, as in scipy. Hellinger and the largest difference of shares
//! beside them.

use mainstay_arrays::Numbers;

use crate::fault::{Fault, Result};
use crate::histogram::{EDGES_MAX, Ends, Histogram, histogram};
use crate::moments::bounds;
use crate::quantiles::{quantiles, quantiles_with_counts};
use crate::walk::Missing;

/// What a share of zero becomes unless somebody says otherwise.
pub const SHARE_FLOOR: f64 = 1e-4;

/// Where the breaks between bins are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binning {
    /// At quantiles of the reference: bins of equal weight. Equal breaks are one, so heaped values give fewer bins.
    #[default]
    Quantile,
    /// At equal distances between the reference's least and greatest value.
    Uniform,
}

/// How two columns are compared over bins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinnedOptions {
    /// Bins wanted; there are fewer where breaks coincide.
    pub bins: usize,
    /// Where the breaks are.
    pub binning: Binning,
    /// Whether what lies outside the reference's range is counted in the end bins or in none. Closed ends hide it: its share
    /// is missing from the sum.
    pub ends: Ends,
    /// What a share of zero becomes.
    pub floor: f64,
}

impl Default for BinnedOptions {
    fn default() -> BinnedOptions {
        BinnedOptions { bins: 10, binning: Binning::Quantile, ends: Ends::Open, floor: SHARE_FLOOR }
    }
}

/// A divergence and what it was computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Binned {
    /// Sum over bins of (c - r) ln(c / r).
    pub divergence: f64,
    /// Breaks of the reference, outer ones included, also where they were opened.
    pub breaks: Vec<f64>,
    /// The reference over the bins between them.
    pub reference: Histogram,
    /// The current column over the same bins.
    pub current: Histogram,
}

/// Jeffreys divergence of two columns over bins [a, b) of the first.
///
/// `constant_reference` when all breaks coincide, `non_finite` when a break is not finite (the current column may be infinite
/// anywhere: that is outside), `empty_input` for either column.
pub fn jeffreys_binned(
    reference: &Numbers<'_>,
    current: &Numbers<'_>,
    options: &BinnedOptions,
    missing: Missing,
) -> Result<Binned> {
    check_floor(options.floor)?;
    let (breaks, reference) = binned_reference(reference, options, missing)?;
    let current = histogram(current, &breaks, options.ends, missing)?;
    if current.total == 0 {
        return Err(Fault::nothing("the current column"));
    }
    let divergence = jeffreys(&shares(&reference), &shares(&current), options.floor)?;
    Ok(Binned { divergence, breaks, reference, current })
}

/// The reference's breaks and its histogram over them: of a large column in the same pass.
fn binned_reference(
    reference: &Numbers<'_>,
    options: &BinnedOptions,
    missing: Missing,
) -> Result<(Vec<f64>, Histogram)> {
    check_bins(options.bins)?;
    if options.binning == Binning::Quantile
        && options.ends == Ends::Open
        && let Some((found, counts)) = quantiles_with_counts(reference, &percentiles(options.bins), missing)?
    {
        let mut at_least: Vec<(f64, u64)> = found.into_iter().zip(counts.at_least).collect();
        at_least.sort_by(|a, b| a.0.total_cmp(&b.0));
        at_least.dedup_by_key(|pair| pair.0);
        let breaks = checked(at_least.iter().map(|pair| pair.0).collect())?;
        let inner = &at_least[1..at_least.len() - 1];
        let from = [counts.total].into_iter().chain(inner.iter().map(|pair| pair.1));
        let to = inner.iter().map(|pair| pair.1).chain([0]);
        let bins = from.zip(to).map(|(from, to)| from - to).collect();
        return Ok((breaks, Histogram { counts: bins, total: counts.total, missing: counts.missing }));
    }
    let breaks = breaks(reference, options.bins, options.binning, missing)?;
    let histogram = histogram(reference, &breaks, options.ends, missing)?;
    Ok((breaks, histogram))
}

/// Breaks between `bins` bins of a column, ascending and different, at least two.
pub fn breaks(reference: &Numbers<'_>, bins: usize, binning: Binning, missing: Missing) -> Result<Vec<f64>> {
    check_bins(bins)?;
    let mut breaks = match binning {
        Binning::Quantile => quantiles(reference, &percentiles(bins), missing)?,
        Binning::Uniform => {
            let (least, greatest) = bounds(reference, missing)?.ok_or_else(|| Fault::nothing("the reference"))?;
            spaced(least, greatest, bins)
        }
    };
    breaks.sort_by(f64::total_cmp);
    breaks.dedup();
    checked(breaks)
}

fn check_bins(bins: usize) -> Result<()> {
    match bins {
        1..EDGES_MAX => Ok(()),
        _ => Err(Fault::bad_argument(format!("{bins} bins; from 1 to {}", EDGES_MAX - 1))),
    }
}

/// Ascending, different breaks, if they can be.
fn checked(breaks: Vec<f64>) -> Result<Vec<f64>> {
    if breaks.iter().any(|at| !at.is_finite()) {
        return Err(Fault::non_finite(
            "the reference has infinite values or spans more than f64 can; it has no breaks there",
        ));
    }
    if breaks.len() < 2 {
        return Err(Fault::constant_reference(format!(
            "the reference is {} everywhere; a single value spans no bins: compare it by category",
            breaks[0]
        )));
    }
    Ok(breaks)
}

/// Levels as numpy spaces percentages, so that breaks are the same to the last bit.
fn percentiles(bins: usize) -> Vec<f64> {
    spaced(0.0, 100.0, bins).into_iter().map(|percent| percent / 100.0).collect()
}

/// `count + 1` numbers from `first` to `last`.
fn spaced(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / count as f64;
    (0..=count).map(|at| if at == count { last } else { at as f64 * step + first }).collect()
}

fn shares(histogram: &Histogram) -> Vec<f64> {
    histogram.counts.iter().map(|count| *count as f64 / histogram.total as f64).collect()
}

fn check_floor(floor: f64) -> Result<()> {
    if floor > 0.0 && floor < 1.0 {
        return Ok(());
    }
    Err(Fault::bad_argument(format!("a floor of {floor} for shares; it must be above 0 and below 1")))
}

/// Jeffreys divergence of shares: sum of (c - r) ln(c / r), zero shares raised to `floor`.
pub fn jeffreys(reference: &[f64], current: &[f64], floor: f64) -> Result<f64> {
    check_floor(floor)?;
    check_weights(reference, current)?;
    let raised = |share: f64| if share == 0.0 { floor } else { share };
    let term = |(r, c): (&f64, &f64)| {
        let (r, c) = (raised(*r), raised(*c));
        (c - r) * (c / r).ln()
    };
    Ok(reference.iter().zip(current).map(term).sum())
}

/// The same of counts, each over its own sum.
pub fn jeffreys_counts(reference: &[u64], current: &[u64], floor: f64) -> Result<f64> {
    let as_weights = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect::<Vec<f64>>();
    let (reference, current) = normal(&as_weights(reference), &as_weights(current))?;
    jeffreys(&reference, &current, floor)
}

/// Distances of two distributions that need no floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareDistances {
    /// Jensen-Shannon divergence.
    pub jensen_shannon_divergence: f64,
    /// Its square root, a metric.
    pub jensen_shannon_distance: f64,
    /// Hellinger distance, in [0, 1].
    pub hellinger: f64,
    /// Largest difference of shares.
    pub largest: f64,
}

/// All of [`ShareDistances`] of two rows of weights or counts, each scaled to sum to one; logarithms to `base`.
pub fn share_distances(reference: &[f64], current: &[f64], base: f64) -> Result<ShareDistances> {
    if !(base > 0.0 && base != 1.0 && base.is_finite()) {
        return Err(Fault::bad_argument(format!("logarithms to base {base}; use 2 or e")));
    }
    let (p, q) = normal(reference, current)?;
    let pairs = || p.iter().zip(&q).map(|(p, q)| (*p, *q));
    let entropy = |share: f64, mean: f64| if share > 0.0 { share * (share / mean).ln() } else { 0.0 };
    let halves = pairs().map(|(p, q)| (entropy(p, (p + q) / 2.0), entropy(q, (p + q) / 2.0)));
    let (left, right) = halves.fold((0.0, 0.0), |sum, half| (sum.0 + half.0, sum.1 + half.1));
    // Equal shares may come out at minus a rounding error.
    let divergence = ((left + right) / 2.0 / base.ln()).max(0.0);
    let squares: f64 = pairs().map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum();
    Ok(ShareDistances {
        jensen_shannon_divergence: divergence,
        jensen_shannon_distance: divergence.sqrt(),
        hellinger: (squares / 2.0).sqrt(),
        largest: pairs().map(|(p, q)| (p - q).abs()).fold(0.0, f64::max),
    })
}

fn check_weights(reference: &[f64], current: &[f64]) -> Result<()> {
    if reference.len() != current.len() {
        return Err(Fault::lengths(reference.len(), current.len()));
    }
    if reference.is_empty() {
        return Err(Fault::empty_input("no bins; give at least one"));
    }
    let mut both = reference.iter().chain(current);
    if both.clone().any(|weight| !weight.is_finite()) {
        return Err(Fault::non_finite("a count is NaN or infinite"));
    }
    match both.find(|weight| **weight < 0.0) {
        Some(negative) => Err(Fault::negative_count(format!("a count of {negative}; counts are not negative"))),
        None => Ok(()),
    }
}

fn normal(reference: &[f64], current: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    check_weights(reference, current)?;
    let scaled = |weights: &[f64]| {
        let sum: f64 = weights.iter().sum();
        if sum == 0.0 {
            return Err(Fault::empty_input("all counts of a side are zero; it has no distribution"));
        }
        Ok(weights.iter().map(|weight| weight / sum).collect())
    };
    Ok((scaled(reference)?, scaled(current)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_counts_what_a_histogram_counts() {
        let stream = crate::philox::Stream::new(8, 0);
        let check = |shape: &dyn Fn(u64) -> f64| {
            let values: Vec<f64> = (0..300_000).map(shape).collect();
            let view = Numbers::of_f64(&[&values]);
            let options = BinnedOptions::default();
            let (found, counts) = binned_reference(&view, &options, Missing::Omit).unwrap();
            assert_eq!(found, breaks(&view, options.bins, options.binning, Missing::Omit).unwrap());
            assert_eq!(counts, histogram(&view, &found, options.ends, Missing::Omit).unwrap());
        };
        check(&|at| stream.unit(at));
        check(&|at| (stream.unit(at) * 30.0).floor());
        check(&|at| if stream.unit(at) < 0.4 { 0.0 } else { stream.unit(at) });
        check(&|at| if at % 5 == 0 { f64::NAN } else { stream.unit(at) });
        check(&|at| at as f64 - 70_000.0);
    }
}
