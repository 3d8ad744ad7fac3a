//! Bootstrap: how far a metric, or the difference of two on the same rows, would move with other rows.
//!
//! Percentile interval (B. Efron 1979) with linear quantiles. Rows are drawn by a generator that is a function of seed,
//! resample and draw ([`crate::philox`]); so resample number r of a seed on n rows takes the same rows whatever the metric,
//! on any number of threads and on any device. A resample in which a metric is undefined (one class only) is skipped and
//! counted.
//!
//! **Layout.** A resample is kept as how often every row was drawn, a byte each, so that ten draws of a million rows stay in
//! the second-level cache. Rows are sorted by score once; the area under the curve of a resample is then one pass over the
//! rows in that order with integer sums. A mean is one pass in row order. Memory: 12 bytes a row, and one byte a row for each
//! thread.

use mainstay_arrays::Numbers;
use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::order;
use crate::philox::Stream;
use crate::quantiles::quantile_sorted;
use crate::roc::Checks;
use crate::walk::{Missing, Rows};

/// Rows that a bootstrap may have: a row's number shares 32 bits with two marks.
pub const ROWS_MAX: usize = 1 << 30;
/// Resamples that one call may draw.
pub const RESAMPLES_MAX: usize = 1_000_000;
/// Draws computed at once.
const DRAWS: usize = 1_024;
/// A resample of so many draws may in principle take one row more often than a byte counts.
const COUNT_MAX: usize = u8::MAX as usize;

const IS_POSITIVE: u32 = 1 << 31;
const ENDS_TIE: u32 = 1 << 30;
const ROW: u32 = ENDS_TIE - 1;

/// A metric made ready for any number of resamples of its rows.
#[derive(Debug)]
pub struct Metric {
    kind: Kind,
    rows: usize,
    dropped: usize,
}

#[derive(Debug)]
enum Kind {
    /// Rows by ascending score, marked.
    Area(Vec<u32>),
    /// What each row adds to the mean.
    Mean(Vec<f64>),
}

impl Metric {
    /// Area under the ROC curve; faults as [`crate::roc_auc`].
    pub fn area(labels: &Numbers<'_>, scores: &Numbers<'_>, missing: Missing) -> Result<Metric> {
        let rows = Rows::new([labels, scores], missing)?;
        check_rows(rows.len())?;
        let mut checks = Checks::default();
        let (mut ones, mut pairs) = (0, Vec::with_capacity(rows.len()));
        rows.each(|[labels, scores]| {
            ones += checks.labels(labels);
            checks.scores(scores);
            for (label, score) in labels.iter().zip(scores) {
                let mark = if *label == 1.0 { IS_POSITIVE } else { 0 };
                pairs.push((order::key(*score), pairs.len() as u32 | mark));
            }
        })?;
        checks.verdict(ones, pairs.len() - ones)?;
        pairs.par_sort_unstable();
        let ends = pairs.windows(2).map(|pair| pair[0].0 != pair[1].0).chain([true]);
        let marked = pairs.iter().zip(ends).map(|((_, row), is_end)| row | if is_end { ENDS_TIE } else { 0 });
        let order: Vec<u32> = marked.collect();
        // Two rows of one key but different class sort by row only after the mark; the sums over a tie do not care.
        Ok(Metric { rows: order.len(), dropped: rows.len() - order.len(), kind: Kind::Area(order) })
    }

    /// Mean of a column. A rate is the mean of a column of booleans.
    pub fn mean(values: &Numbers<'_>, missing: Missing) -> Result<Metric> {
        Metric::of_rows(Rows::new([values], missing)?, |added, [values]| {
            added.extend_from_slice(values);
            Ok(())
        })
    }

    /// Share of rows whose prediction equals the label.
    pub fn accuracy(labels: &Numbers<'_>, predictions: &Numbers<'_>, missing: Missing) -> Result<Metric> {
        Metric::of_rows(Rows::new([labels, predictions], missing)?, |added, [labels, predictions]| {
            added.extend(labels.iter().zip(predictions).map(|(label, guess)| f64::from(u8::from(label == guess))));
            Ok(())
        })
    }

    /// Brier score: mean squared distance of a probability from its label (G. W. Brier 1950).
    pub fn brier(labels: &Numbers<'_>, probabilities: &Numbers<'_>, missing: Missing) -> Result<Metric> {
        Metric::of_rows(Rows::new([labels, probabilities], missing)?, |added, [labels, probabilities]| {
            let mut checks = Checks::default();
            checks.labels(labels);
            checks.scores(probabilities);
            checks.values()?;
            added.extend(labels.iter().zip(probabilities).map(|(label, guess)| (guess - label).powi(2)));
            Ok(())
        })
    }

    fn of_rows<const N: usize>(
        rows: Rows<'_, N>,
        add: impl Fn(&mut Vec<f64>, [&[f64]; N]) -> Result<()>,
    ) -> Result<Metric> {
        check_rows(rows.len())?;
        let (mut added, mut outcome) = (Vec::with_capacity(rows.len()), Ok(()));
        rows.each(|block| {
            if outcome.is_ok() {
                outcome = add(&mut added, block);
            }
        })?;
        outcome?;
        if added.is_empty() {
            return Err(Fault::nothing("the metric"));
        }
        if added.iter().any(|value| !value.is_finite()) {
            return Err(Fault::non_finite("a value is infinite, and so would be every mean; leave it out"));
        }
        Ok(Metric { rows: added.len(), dropped: rows.len() - added.len(), kind: Kind::Mean(added) })
    }

    /// Rows that it is computed on.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its value on the rows as they are.
    pub fn point(&self) -> f64 {
        match &self.kind {
            Kind::Area(order) => area(order, |_| 1).expect("there are both classes"),
            Kind::Mean(values) => values.iter().sum::<f64>() / values.len() as f64,
        }
    }

    /// Its value on rows drawn so often; none where it is undefined.
    fn resampled<C: Copy + Into<u64>>(&self, counts: &[C], draws: usize) -> Option<f64> {
        match &self.kind {
            Kind::Area(order) => area(order, |row| counts[row].into()),
            Kind::Mean(values) => Some(weighted_sum(values, counts) / draws as f64),
        }
    }
}

fn check_rows(rows: usize) -> Result<()> {
    if rows <= ROWS_MAX {
        return Ok(());
    }
    Err(Fault::too_many(format!("{rows} rows to draw from; the most is {ROWS_MAX}: take a sample of them")))
}

/// Four lanes of fixed order.
fn weighted_sum<C: Copy + Into<u64>>(values: &[f64], counts: &[C]) -> f64 {
    let mut lanes = [0.0; 4];
    let (whole, rest) = values.as_chunks::<4>();
    let (whole_counts, rest_counts) = counts.as_chunks::<4>();
    for (values, counts) in whole.iter().zip(whole_counts) {
        for at in 0..4 {
            lanes[at] += values[at] * counts[at].into() as f64;
        }
    }
    let rest: f64 = rest.iter().zip(rest_counts).map(|(value, count)| value * (*count).into() as f64).sum();
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest
}

/// Area under the curve of rows that count so often. Twice the sums are integers, so nothing is rounded before the end.
#[inline(always)]
fn area(order: &[u32], count: impl Fn(usize) -> u64) -> Option<f64> {
    let (mut halves, mut all_positive, mut below) = (0u128, 0u64, 0u64);
    let (mut positive, mut negative) = (0u64, 0u64);
    // Added up in 64 bits for as long as that cannot overflow: 2^20 ties of less than 2^42 each.
    for part in order.chunks(1 << 20) {
        let mut sum = 0u64;
        for marked in part {
            let times = count((marked & ROW) as usize);
            let is_positive = u64::from(marked >> 31);
            positive += times * is_positive;
            negative += times * (1 - is_positive);
            if marked & ENDS_TIE != 0 {
                // Counts of one tie and of all below it are below 2^32 in sum only together with all draws.
                let (more, is_over) = sum.overflowing_add(positive.wrapping_mul(2 * below + negative));
                if is_over {
                    halves += 1 << 64;
                }
                sum = more;
                all_positive += positive;
                below += negative;
                (positive, negative) = (0, 0);
            }
        }
        halves += u128::from(sum);
    }
    (all_positive > 0 && below > 0).then(|| halves as f64 / 2.0 / all_positive as f64 / below as f64)
}

/// Where the rows of a resample come from.
#[derive(Clone, Copy, Debug)]
pub enum Draws<'a> {
    /// Drawn with this seed, as many rows as there are.
    Seed(u64),
    /// Given: for each resample the same number of row numbers, one resample after the other.
    Given(&'a [u32]),
}

/// How a bootstrap is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// How many resamples.
    pub resamples: usize,
    /// Share of resamples inside the interval, in (0, 1).
    pub level: f64,
    /// Their rows.
    pub draws: Draws<'a>,
}

/// A metric and where resamples put it.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// On the rows as they are.
    pub point: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Mean of the resamples.
    pub mean: f64,
    /// Their standard deviation, over n - 1; 0 of a single one.
    pub std: f64,
    /// Resamples used.
    pub used: usize,
    /// Resamples skipped because the metric is undefined on them.
    pub skipped: usize,
}

/// Interval of a metric. `single_class` when every resample was skipped.
pub fn bootstrap(metric: &Metric, plan: &Plan<'_>) -> Result<Interval> {
    let values = run(plan, metric.rows, |counts| counts.metric(metric))?;
    summarized(metric.point(), values, plan)
}

/// Interval of the difference `first - second` on the same drawn rows. Both must have the same rows: `length_mismatch`
/// otherwise, also when rows were omitted from one.
pub fn bootstrap_difference(first: &Metric, second: &Metric, plan: &Plan<'_>) -> Result<Interval> {
    if first.rows != second.rows || first.dropped != second.dropped || first.dropped > 0 {
        return Err(Fault::length_mismatch(format!(
            "metrics on {} and {} rows, with {} and {} omitted; a difference needs the same rows, none missing",
            first.rows, second.rows, first.dropped, second.dropped
        )));
    }
    let values = run(plan, first.rows, |counts| Some(counts.metric(first)? - counts.metric(second)?))?;
    summarized(first.point() - second.point(), values, plan)
}

/// How often each row was drawn: in a byte where that is enough.
enum Counts<'c> {
    Bytes(&'c [u8], usize),
    Wide(&'c [u32], usize),
}

impl Counts<'_> {
    fn metric(&self, metric: &Metric) -> Option<f64> {
        match self {
            Counts::Bytes(counts, draws) => metric.resampled(counts, *draws),
            Counts::Wide(counts, draws) => metric.resampled(counts, *draws),
        }
    }
}

fn run(
    plan: &Plan<'_>,
    rows: usize,
    compute: impl Fn(Counts<'_>) -> Option<f64> + Sync + Send,
) -> Result<Vec<Option<f64>>> {
    if plan.resamples == 0 || plan.resamples > RESAMPLES_MAX {
        return Err(Fault::bad_argument(format!("{} resamples; from 1 to {RESAMPLES_MAX}", plan.resamples)));
    }
    if !(plan.level > 0.0 && plan.level < 1.0) {
        return Err(Fault::bad_argument(format!("a level of {}; it is between 0 and 1", plan.level)));
    }
    let numbers = (0..plan.resamples).into_par_iter();
    match plan.draws {
        Draws::Seed(seed) => {
            let one = |counts: &mut Vec<u8>, number: usize| {
                draw(&Stream::new(seed, number as u32), rows, counts);
                compute(Counts::Bytes(counts, rows))
            };
            Ok(numbers.map_init(Vec::new, one).collect())
        }
        Draws::Given(index) => {
            let each = check_index(index, plan.resamples, rows)?;
            let one = |counts: &mut Vec<u32>, number: usize| {
                counts.clear();
                counts.resize(rows, 0);
                index[number * each..(number + 1) * each].iter().for_each(|row| counts[*row as usize] += 1);
                compute(Counts::Wide(counts, each))
            };
            Ok(numbers.map_init(Vec::new, one).collect())
        }
    }
}

fn check_index(index: &[u32], resamples: usize, rows: usize) -> Result<usize> {
    if index.is_empty() || !index.len().is_multiple_of(resamples) {
        return Err(Fault::length_mismatch(format!("{} row numbers are not {resamples} resamples", index.len())));
    }
    if let Some(row) = index.iter().find(|row| **row as usize >= rows) {
        return Err(Fault::bad_argument(format!("row {row} of {rows}; row numbers begin at 0")));
    }
    Ok(index.len() / resamples)
}

/// Rows of a resample. A row of n is drawn k times with probability below 1 / k!, and 1 / 256! is below 10^-500; so a byte is
/// enough wherever 255 draws would not be anyway.
fn draw(stream: &Stream, rows: usize, counts: &mut Vec<u8>) {
    counts.clear();
    counts.resize(rows, 0);
    let mut drawn = [0; DRAWS];
    for first in (0..rows).step_by(DRAWS) {
        let drawn = &mut drawn[..DRAWS.min(rows - first)];
        stream.fill_below(first as u64, rows as u32, drawn);
        for row in drawn.iter() {
            let count = &mut counts[*row as usize];
            debug_assert!(usize::from(*count) < COUNT_MAX);
            *count = count.wrapping_add(1);
        }
    }
}

fn summarized(point: f64, values: Vec<Option<f64>>, plan: &Plan<'_>) -> Result<Interval> {
    let used: Vec<f64> = values.iter().copied().flatten().collect();
    let skipped = values.len() - used.len();
    if used.is_empty() {
        return Err(Fault::single_class(format!(
            "all {skipped} resamples have one class only; there are too few rows"
        )));
    }
    let count = used.len() as f64;
    let mean = used.iter().sum::<f64>() / count;
    let squares: f64 = used.iter().map(|value| (value - mean).powi(2)).sum();
    let std = if used.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    let mut sorted = used;
    sorted.sort_by(f64::total_cmp);
    let tail = (1.0 - plan.level) / 2.0;
    Ok(Interval {
        point,
        low: quantile_sorted(&sorted, tail),
        high: quantile_sorted(&sorted, 1.0 - tail),
        mean,
        std,
        used: sorted.len(),
        skipped,
    })
}
