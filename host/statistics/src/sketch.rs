//! A sketch of a stream's quantiles that merges.
//!
//! DDSketch (C. Masson, J. E. Rim, H. K. Lee 2019) from the `sketches-ddsketch` crate, a maintained port of its authors'
//! own. Chosen over KLL because it counts values in fixed buckets: adding and merging are sums of integers, so any order, any
//! partition and any number of threads give the same sketch, where KLL flips coins. What it promises is relative error of the
//! value, not of the rank. Bounded by [`BUCKETS_MAX`] counters for either sign; beyond, the smallest magnitudes share one.

use mainstay_arrays::Numbers;
use sketches_ddsketch::{Config, DDSketch};

use crate::fault::{Fault, Result};
use crate::walk::{Missing, Rows};

/// Counters for either sign.
pub const BUCKETS_MAX: u32 = 4_096;
/// Magnitudes below this are zero to the sketch.
pub const MAGNITUDE_MIN: f64 = 1e-12;

/// See the module.
#[derive(Clone)]
pub struct QuantileSketch {
    sketch: DDSketch,
    relative_error: f64,
}

impl QuantileSketch {
    /// An empty sketch whose answers are within `relative_error` of the exact one, from 0.001 to 0.5.
    pub fn new(relative_error: f64) -> Result<QuantileSketch> {
        if !(0.001..=0.5).contains(&relative_error) {
            return Err(Fault::bad_argument(format!("a relative error of {relative_error}; from 0.001 to 0.5")));
        }
        let sketch = DDSketch::new(Config::new(relative_error, BUCKETS_MAX, MAGNITUDE_MIN));
        Ok(QuantileSketch { sketch, relative_error })
    }

    /// Count all values of a column; `non_finite` when one is infinite, and then none is counted.
    pub fn add(&mut self, values: &Numbers<'_>, missing: Missing) -> Result<()> {
        let rows = Rows::new([values], missing)?;
        let empty = || (QuantileSketch::new(self.relative_error).expect("it was checked"), false);
        let step = |(all, is_infinite): &mut (QuantileSketch, bool), [block]: [&[f64]; 1]| {
            *is_infinite |= block.iter().any(|value| value.is_infinite());
            if !*is_infinite {
                block.iter().for_each(|value| all.sketch.add(*value));
            }
        };
        let join = |mut a: (QuantileSketch, bool), b: (QuantileSketch, bool)| {
            a.0.merge(&b.0).expect("both have one configuration");
            (a.0, a.1 | b.1)
        };
        let (more, is_infinite) = rows.fold(empty, step, join)?;
        if is_infinite {
            return Err(Fault::non_finite("the column has infinite values; leave them out"));
        }
        self.merge(&more)
    }

    /// Count what the other has counted. `bad_argument` when it promises another error.
    pub fn merge(&mut self, other: &QuantileSketch) -> Result<()> {
        self.sketch.merge(&other.sketch).map_err(|_| {
            Fault::bad_argument(format!(
                "sketches with relative errors of {} and {} do not merge",
                self.relative_error, other.relative_error
            ))
        })
    }

    /// Values counted.
    pub fn count(&self) -> usize {
        self.sketch.count()
    }

    /// A quantile; `empty_input` before the first value.
    pub fn quantile(&self, level: f64) -> Result<f64> {
        let found = self.sketch.quantile(level);
        found
            .map_err(|_| Fault::bad_argument(format!("a quantile of level {level}; levels are from 0 to 1")))?
            .ok_or_else(|| Fault::nothing("the sketch"))
    }
}
