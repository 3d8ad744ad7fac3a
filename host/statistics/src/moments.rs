//! Mean, deviation, skewness, kurtosis, least and greatest.
//!
//! Stable: values are taken as distances from one of them, every block is centred on its own mean before it is squared, and blocks are joined by the formulas of
//! P. Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments"
//! (2008), piece by piece in order. Sums have eight lanes of fixed order.

use mainstay_arrays::Numbers;

use crate::fault::{Fault, Result};
use crate::walk::{Missing, Rows};
use crate::wide;

/// Moments of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Values that are there.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Sums of powers 2, 3 and 4 of the distances from the mean.
    central: [f64; 3],
}

const NOTHING: Moments = Moments { count: 0, mean: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, central: [0.0; 3] };

/// Moments of the values that are there; `empty_input` without any, `non_finite` for infinite ones.
pub fn moments(values: &Numbers<'_>, missing: Missing) -> Result<Moments> {
    let rows = Rows::new([values], missing)?;
    let Some([shift]) = rows.first() else {
        rows.each(|_| ())?;
        return Err(Fault::nothing("the column"));
    };
    let mut all = about(&rows, shift)?;
    if !(all.min.is_finite() && all.max.is_finite()) {
        return Err(Fault::non_finite("the column has infinite values, and with them no moments; leave them out"));
    }
    if !all.mean.is_finite() {
        // Values of both signs near the greatest number: their distances overflow, their mean does not.
        all = about(&rows, 0.0)?;
    }
    Ok(all)
}

/// Everything about a value of the column, so that what all values share cancels before it is squared or added up.
fn about(rows: &Rows<'_, 1>, shift: f64) -> Result<Moments> {
    let pieces = rows.map(|| NOTHING, |all, [block]| *all = all.joined(&of_block(block, shift)))?;
    let all = pieces.iter().fold(NOTHING, |all, piece| all.joined(piece));
    Ok(Moments { mean: shift + all.mean, ..all })
}

/// Least and greatest value that is there, if any.
pub fn bounds(values: &Numbers<'_>, missing: Missing) -> Result<Option<(f64, f64)>> {
    let rows = Rows::new([values], missing)?;
    let step = |bounds: &mut (f64, f64), [block]: [&[f64]; 1]| {
        let (mut sums, mut lanes) = ([0.0; 8], ([f64::INFINITY; 8], [f64::NEG_INFINITY; 8]));
        wide::sum_and_bounds(block, 0.0, &mut sums, &mut lanes);
        bounds.0 = lanes.0.into_iter().fold(bounds.0, f64::min);
        bounds.1 = lanes.1.into_iter().fold(bounds.1, f64::max);
    };
    let join = |a: (f64, f64), b: (f64, f64)| (a.0.min(b.0), a.1.max(b.1));
    let bounds = rows.fold(|| (f64::INFINITY, f64::NEG_INFINITY), step, join)?;
    Ok((bounds.0 <= bounds.1).then_some(bounds))
}

/// Moments of a block of distances from `shift`; least and greatest are values.
fn of_block(block: &[f64], shift: f64) -> Moments {
    let (mut sums, mut lanes) = ([0.0; 8], ([f64::INFINITY; 8], [f64::NEG_INFINITY; 8]));
    wide::sum_and_bounds(block, shift, &mut sums, &mut lanes);
    let count = block.len() as f64;
    let sum = wide::folded(&sums);
    // A sum of huge values may overflow where their mean does not.
    let mean = if sum.is_finite() { sum / count } else { block.iter().map(|value| (value - shift) / count).sum() };
    let mut central = [[0.0; 8]; 3];
    wide::central_sums(block, shift, mean, &mut central);
    Moments {
        count: block.len() as u64,
        mean,
        min: lanes.0.into_iter().fold(f64::INFINITY, f64::min),
        max: lanes.1.into_iter().fold(f64::NEG_INFINITY, f64::max),
        central: central.map(|lanes| wide::folded(&lanes)),
    }
}

impl Moments {
    fn joined(&self, other: &Moments) -> Moments {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { *other } else { *self };
        }
        let (n1, n2) = (self.count as f64, other.count as f64);
        let n = n1 + n2;
        let off = other.mean - self.mean;
        let part = off / n;
        let ([a2, a3, a4], [b2, b3, b4]) = (self.central, other.central);
        let second = a2 + b2 + off * part * n1 * n2;
        let third = a3 + b3 + off * part * part * n1 * n2 * (n1 - n2) + 3.0 * part * (n1 * b2 - n2 * a2);
        let fourth = a4
            + b4
            + off * part.powi(3) * n1 * n2 * (n1 * n1 - n1 * n2 + n2 * n2)
            + 6.0 * part * part * (n1 * n1 * b2 + n2 * n2 * a2)
            + 4.0 * part * (n1 * b3 - n2 * a3);
        Moments {
            count: self.count + other.count,
            mean: self.mean + n2 * part,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            central: [second, third, fourth],
        }
    }

    /// Variance over n.
    pub fn population_variance(&self) -> f64 {
        self.central[0] / self.count as f64
    }

    /// Its square root.
    pub fn population_std(&self) -> f64 {
        self.population_variance().sqrt()
    }

    /// Variance over n - 1; NaN of a single value.
    pub fn sample_variance(&self) -> f64 {
        if self.count < 2 { f64::NAN } else { self.central[0] / (self.count - 1) as f64 }
    }

    /// Its square root.
    pub fn sample_std(&self) -> f64 {
        self.sample_variance().sqrt()
    }

    /// Third standardized moment, as scipy's `skew` (biased); NaN where all values are equal.
    pub fn skewness(&self) -> f64 {
        let variance = self.population_variance();
        self.central[1] / self.count as f64 / (variance * variance.sqrt())
    }

    /// Fourth standardized moment minus 3, as scipy's `kurtosis` (biased); NaN where all values are equal.
    pub fn excess_kurtosis(&self) -> f64 {
        let variance = self.population_variance();
        self.central[2] / self.count as f64 / (variance * variance) - 3.0
    }
}
