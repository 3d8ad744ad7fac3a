//! Calibration: whether events happen as often as was said.
//!
//! Expected calibration error over bins (M. P. Naeini et al. 2015), and the Brier score (1950). Sums per piece, joined in
//! order.

use mainstay_arrays::Numbers;

use crate::fault::{Fault, Result};
use crate::quantiles::quantiles;
use crate::roc::Checks;
use crate::walk::{Missing, Rows};

/// Bins that probabilities may be put into.
pub const BINS_MAX: usize = 1_000;

/// How probabilities are put into bins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CalibrationBins {
    /// Of equal width over [0, 1].
    #[default]
    Uniform,
    /// Of equal weight; equal breaks are one.
    Quantile,
}

/// One bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrationBin {
    /// Rows in it.
    pub count: u64,
    /// Mean of their probabilities; 0 without rows.
    pub said: f64,
    /// Share of ones among their labels; 0 without rows.
    pub happened: f64,
}

/// What was said, beside what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Mean squared distance of probability and label.
    pub brier: f64,
    /// Mean over rows of their bin's |said - happened|.
    pub expected_error: f64,
    /// The largest of them.
    pub largest_error: f64,
    /// In ascending order, empty ones included.
    pub bins: Vec<CalibrationBin>,
    /// Rows.
    pub count: u64,
}

/// Calibration of probabilities, in [0, 1], for labels 0 or 1.
pub fn calibration(
    labels: &Numbers<'_>,
    probabilities: &Numbers<'_>,
    bins: usize,
    by: CalibrationBins,
    missing: Missing,
) -> Result<Calibration> {
    if bins == 0 || bins > BINS_MAX {
        return Err(Fault::bad_argument(format!("{bins} bins; from 1 to {BINS_MAX}")));
    }
    let rows = Rows::new([labels, probabilities], missing)?;
    // Upper ends of all bins but the last; a probability belongs to the bin after the ends that it is at least.
    let ends: Vec<f64> = match by {
        CalibrationBins::Uniform => (1..bins).map(|at| at as f64 / bins as f64).collect(),
        CalibrationBins::Quantile => {
            let levels: Vec<f64> = (1..bins).map(|at| at as f64 / bins as f64).collect();
            let mut ends = quantiles(probabilities, &levels, missing)?;
            ends.dedup();
            ends
        }
    };
    let pieces = rows.map(|| Sums::new(ends.len() + 1), |sums, [labels, guesses]| sums.add(labels, guesses, &ends))?;
    Sums::joined(pieces, ends.len() + 1).verdict()
}

struct Sums {
    /// Count, probabilities and labels of each bin.
    bins: Vec<(u64, f64, f64)>,
    squares: f64,
    outside: u64,
    checks: Checks,
}

impl Sums {
    fn new(bins: usize) -> Sums {
        Sums { bins: vec![(0, 0.0, 0.0); bins], squares: 0.0, outside: 0, checks: Checks::default() }
    }

    fn add(&mut self, labels: &[f64], guesses: &[f64], ends: &[f64]) {
        self.checks.labels(labels);
        self.checks.scores(guesses);
        for (label, guess) in labels.iter().zip(guesses) {
            let bin = &mut self.bins[ends.partition_point(|end| end <= guess)];
            *bin = (bin.0 + 1, bin.1 + guess, bin.2 + label);
            self.squares += (guess - label).powi(2);
            self.outside += u64::from(!(0.0..=1.0).contains(guess));
        }
    }

    fn joined(pieces: Vec<Sums>, bins: usize) -> Sums {
        pieces.into_iter().fold(Sums::new(bins), |mut all, piece| {
            for (all, bin) in all.bins.iter_mut().zip(piece.bins) {
                *all = (all.0 + bin.0, all.1 + bin.1, all.2 + bin.2);
            }
            all.squares += piece.squares;
            all.outside += piece.outside;
            all.checks = all.checks.and(piece.checks);
            all
        })
    }

    fn verdict(self) -> Result<Calibration> {
        self.checks.values()?;
        let count: u64 = self.bins.iter().map(|bin| bin.0).sum();
        if count == 0 {
            return Err(Fault::nothing("the labels"));
        }
        if self.outside > 0 {
            return Err(Fault::bad_argument(format!("{} probabilities are outside [0, 1]", self.outside)));
        }
        let (mut expected_error, mut largest_error) = (0.0, 0.0f64);
        let shown = |(rows, said, happened): (u64, f64, f64)| {
            let mean = |sum: f64| if rows == 0 { 0.0 } else { sum / rows as f64 };
            let bin = CalibrationBin { count: rows, said: mean(said), happened: mean(happened) };
            let error = (bin.said - bin.happened).abs();
            expected_error += error * rows as f64 / count as f64;
            largest_error = largest_error.max(error);
            bin
        };
        let bins = self.bins.into_iter().map(shown).collect();
        Ok(Calibration { brier: self.squares / count as f64, expected_error, largest_error, bins, count })
    }
}
