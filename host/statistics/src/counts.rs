//! What a column holds: how much is missing, out of range, and how many different values.
//!
//! Different values are counted exactly up to a bound, then estimated by HyperLogLog (Apache DataSketches; it merges by
//! maximum, so the order of values does not matter to its registers). Bounded by the exact set and 64 KiB of registers.

use datasketches::common::NumStdDev;
use datasketches::hll::{HllSketch, HllType};
use hashbrown::HashSet;
use mainstay_arrays::{Numbers, Texts};

use crate::fault::{Fault, Result};
use crate::order;
use crate::walk::{Missing, Rows};

/// Different values that are counted exactly unless somebody says otherwise.
pub const EXACT_DISTINCT: usize = 65_536;
/// Registers of the sketch, as a power of two: a relative error of about 0.4 %.
const REGISTERS_LOG2: u8 = 16;

/// How many different values there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distinct {
    /// Counted.
    Exactly(u64),
    /// Estimated, and the ends of an interval of two standard deviations.
    About {
        /// Estimate.
        estimate: f64,
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
}

/// What a column of numbers holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberCounts {
    /// Places.
    pub rows: u64,
    /// Places whose validity is off.
    pub null: u64,
    /// NaN among the others.
    pub nan: u64,
    /// Infinite values.
    pub infinite: u64,
    /// Values below the range asked for.
    pub below: u64,
    /// Values above it.
    pub above: u64,
    /// Zeros.
    pub zero: u64,
    /// Different values; none when it was not asked for.
    pub distinct: Option<Distinct>,
}

/// Counts of a column against the closed range `range`; different values up to `exact_distinct` exactly, none not to count.
pub fn number_counts(
    values: &Numbers<'_>,
    range: Option<(f64, f64)>,
    exact_distinct: Option<usize>,
) -> Result<NumberCounts> {
    let (low, high) = range.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
    if low.is_nan() || high.is_nan() || low > high {
        return Err(Fault::bad_argument(format!("a range from {low} to {high}; give the lower end first")));
    }
    let rows = Rows::new([values], Missing::Omit)?;
    let step = |[there, infinite, below, above, zero]: &mut [u64; 5], [block]: [&[f64]; 1]| {
        let count = |of: &dyn Fn(f64) -> bool| block.iter().map(|value| u64::from(of(*value))).sum::<u64>();
        *there += block.len() as u64;
        *infinite += count(&|value| value.is_infinite());
        *below += count(&|value| value < low);
        *above += count(&|value| value > high);
        *zero += count(&|value| value == 0.0);
    };
    let join = |a: [u64; 5], b: [u64; 5]| std::array::from_fn(|at| a[at] + b[at]);
    let [there, infinite, below, above, zero] = rows.fold(|| [0; 5], step, join)?;
    let (all, null) = (rows.len() as u64, values.missing() as u64);
    let distinct = match exact_distinct {
        Some(exact_max) => {
            let mut seen = Seen::new(exact_max)?;
            rows.each(|[block]| block.iter().for_each(|value| seen.add(order::key(*value))))?;
            Some(seen.distinct())
        }
        None => None,
    };
    Ok(NumberCounts { rows: all, null, nan: all - null - there, infinite, below, above, zero, distinct })
}

/// A set that becomes a sketch when it is full.
struct Seen {
    exact: HashSet<u64>,
    exact_max: usize,
    sketch: Option<HllSketch>,
}

impl Seen {
    fn new(exact_max: usize) -> Result<Seen> {
        if exact_max > crate::categories::CATEGORIES_MAX {
            let most = crate::categories::CATEGORIES_MAX;
            return Err(Fault::bad_argument(format!("{exact_max} values counted exactly; the most is {most}")));
        }
        Ok(Seen { exact: HashSet::new(), exact_max, sketch: None })
    }

    fn add(&mut self, key: u64) {
        if let Some(sketch) = &mut self.sketch {
            return sketch.update(key);
        }
        self.exact.insert(key);
        if self.exact.len() > self.exact_max {
            let mut keys: Vec<u64> = self.exact.drain().collect();
            keys.sort_unstable();
            let mut sketch = HllSketch::new(REGISTERS_LOG2, HllType::Hll8).expect("the size is one of its sizes");
            keys.into_iter().for_each(|key| sketch.update(key));
            self.sketch = Some(sketch);
        }
    }

    fn distinct(&self) -> Distinct {
        match &self.sketch {
            None => Distinct::Exactly(self.exact.len() as u64),
            Some(sketch) => Distinct::About {
                estimate: sketch.estimate(),
                low: sketch.lower_bound(NumStdDev::Two),
                high: sketch.upper_bound(NumStdDev::Two),
            },
        }
    }
}

/// What a column of strings holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextCounts {
    /// Places.
    pub rows: u64,
    /// Places whose validity is off.
    pub null: u64,
    /// Empty strings.
    pub empty: u64,
    /// Different strings.
    pub distinct: u64,
}

/// Counts of a column of strings; `too_many` beyond a million different ones.
pub fn text_counts(texts: &Texts<'_>) -> Result<TextCounts> {
    let categories = crate::categories::text_categories(texts, Missing::Omit)?;
    let there: u64 = categories.values().sum();
    let rows = texts.len() as u64;
    Ok(TextCounts {
        rows,
        null: rows - there,
        empty: categories.get("").copied().unwrap_or(0),
        distinct: categories.len() as u64,
    })
}
