//! Area under the ROC curve: the probability that a positive row scores above a negative one, ties half.
//!
//! Mann and Whitney (1947). Unweighted, it is counted in integers: positives and negatives are sorted apart and merged twice
//! at once, for "below" and for "not above", without a branch. Weighted, rows are sorted with their weights. The variance is
//! that of E. R. DeLong et al. (1988), from the placements of every row.

use mainstay_arrays::Numbers;
use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::order;
use crate::special::normal_upper;
use crate::walk::{Missing, Rows};
use crate::wide;

/// Values merged by one task.
const MERGE_VALUES: usize = 262_144;

/// Area under the curve. Labels are 0 or 1.
///
/// `length_mismatch`, `empty_input`, `not_binary`, `single_class`; infinite scores are `non_finite`, as in scikit-learn;
/// weights must be finite and not negative (`negative_count`), and leave both classes some.
pub fn roc_auc(
    labels: &Numbers<'_>,
    scores: &Numbers<'_>,
    weights: Option<&Numbers<'_>>,
    missing: Missing,
) -> Result<f64> {
    match weights {
        Some(weights) => weighted(labels, scores, weights, missing),
        None => {
            let (positive, negative) = classes(labels, scores, missing)?;
            let halves = halves_below(&positive, &negative);
            Ok(halves as f64 / 2.0 / positive.len() as f64 / negative.len() as f64)
        }
    }
}

/// Sorted keys of the scores of both classes: of 1, of 0.
pub(crate) fn classes(labels: &Numbers<'_>, scores: &Numbers<'_>, missing: Missing) -> Result<(Vec<u64>, Vec<u64>)> {
    let rows = Rows::new([labels, scores], missing)?;
    let counts = rows.map(
        || (0, 0, Checks::default()),
        |(ones, all, checks), [labels, scores]| {
            *ones += checks.labels(labels);
            *all += labels.len();
            checks.scores(scores);
        },
    )?;
    let checks = counts.iter().fold(Checks::default(), |all, (_, _, checks)| all.and(*checks));
    let ones = counts.iter().map(|count| count.0).sum::<usize>();
    let all = counts.iter().map(|count| count.1).sum::<usize>();
    checks.verdict(ones, all - ones)?;
    let (mut positive, mut negative) = (vec![0u64; ones], vec![0u64; all - ones]);
    let (mut ones_rest, mut zeros_rest) = (positive.as_mut_slice(), negative.as_mut_slice());
    let mut parts = Vec::with_capacity(counts.len());
    for (piece, (ones, all, _)) in counts.iter().enumerate() {
        let (ones_part, ones_after) = std::mem::take(&mut ones_rest).split_at_mut(*ones);
        let (zeros_part, zeros_after) = std::mem::take(&mut zeros_rest).split_at_mut(all - ones);
        parts.push((piece, ones_part, zeros_part));
        (ones_rest, zeros_rest) = (ones_after, zeros_after);
    }
    parts.into_par_iter().for_each(|(piece, ones, zeros)| split(&rows, piece, ones, zeros));
    let (positive, negative) = rayon::join(|| order::sorted(&positive[..]), || order::sorted(&negative[..]));
    Ok((positive?, negative?))
}

/// Keys of a piece's scores to where their class is kept.
fn split(rows: &Rows<'_, 2>, piece: usize, ones: &mut [u64], zeros: &mut [u64]) {
    let mut keys = [0; crate::walk::BLOCK_ROWS];
    let (mut one, mut zero) = (0, 0);
    rows.piece(piece, |[labels, scores]| {
        wide::keys_of(scores, &mut keys);
        for (key, label) in keys.iter().zip(labels) {
            // Written to both, kept in one: the class cannot be predicted, so a branch would cost more.
            let is_one = *label == 1.0;
            if let Some(slot) = ones.get_mut(one) {
                *slot = *key;
            }
            if let Some(slot) = zeros.get_mut(zero) {
                *slot = *key;
            }
            one += usize::from(is_one);
            zero += usize::from(!is_one);
        }
    });
}

/// What must hold of labels and scores.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checks {
    others: u64,
    infinite: u64,
}

impl Checks {
    /// Number of ones.
    pub fn labels(&mut self, labels: &[f64]) -> usize {
        let ones: u64 = labels.iter().map(|label| u64::from(*label == 1.0)).sum();
        let zeros: u64 = labels.iter().map(|label| u64::from(*label == 0.0)).sum();
        self.others += labels.len() as u64 - ones - zeros;
        ones as usize
    }

    pub fn scores(&mut self, scores: &[f64]) {
        self.infinite += scores.iter().map(|score| u64::from(score.is_infinite())).sum::<u64>();
    }

    pub fn and(self, other: Checks) -> Checks {
        Checks { others: self.others + other.others, infinite: self.infinite + other.infinite }
    }

    /// The fault that there is, if any, also when a class is empty.
    pub fn verdict(&self, ones: usize, others: usize) -> Result<()> {
        self.values()?;
        match (ones, others) {
            (0, 0) => Err(Fault::nothing("the labels")),
            (0, _) | (_, 0) => Err(Fault::single_class(format!(
                "all labels are {}; comparing classes needs rows of both",
                u8::from(ones > 0)
            ))),
            _ => Ok(()),
        }
    }

    pub fn values(&self) -> Result<()> {
        if self.others > 0 {
            return Err(Fault::not_binary(format!("{} labels are neither 0 nor 1; encode them first", self.others)));
        }
        if self.infinite > 0 {
            return Err(Fault::non_finite(format!("{} scores are infinite; clip them first", self.infinite)));
        }
        Ok(())
    }
}

/// Twice the number of pairs in which the positive is above, plus the number of ties.
pub(crate) fn halves_below(positive: &[u64], negative: &[u64]) -> u128 {
    let starts: Vec<usize> = (0..positive.len()).step_by(MERGE_VALUES).collect();
    let part = |start: &usize| {
        let ones = &positive[*start..positive.len().min(start + MERGE_VALUES)];
        let from = negative.partition_point(|key| *key < ones[0]);
        let to = negative.partition_point(|key| *key <= ones[ones.len() - 1]);
        2 * from as u128 * ones.len() as u128 + u128::from(merged(ones, &negative[from..to]))
    };
    starts.par_iter().map(part).sum()
}

fn merged(positive: &[u64], negative: &[u64]) -> u64 {
    // Two walks that do not depend on each other overlap in the processor.
    let (mut i, mut below, mut k, mut not_above, mut halves) = (0, 0, 0, 0, 0u64);
    let last = negative.len();
    while i < positive.len() && below < last && k < positive.len() && not_above < last {
        let is_below = negative[below] < positive[i];
        halves += if is_below { 0 } else { below as u64 };
        below += usize::from(is_below);
        i += usize::from(!is_below);
        let is_not_above = negative[not_above] <= positive[k];
        halves += if is_not_above { 0 } else { not_above as u64 };
        not_above += usize::from(is_not_above);
        k += usize::from(!is_not_above);
    }
    while i < positive.len() {
        while below < last && negative[below] < positive[i] {
            below += 1;
        }
        halves += below as u64;
        i += 1;
    }
    while k < positive.len() {
        while not_above < last && negative[not_above] <= positive[k] {
            not_above += 1;
        }
        halves += not_above as u64;
        k += 1;
    }
    halves
}

/// Whether weights may be weights.
pub(crate) fn check_weights(weights: &[f64]) -> Result<()> {
    match weights.iter().find(|weight| !(**weight >= 0.0 && weight.is_finite())) {
        Some(weight) if *weight < 0.0 => {
            Err(Fault::negative_count(format!("a weight of {weight}; weights are not negative")))
        }
        Some(weight) => Err(Fault::non_finite(format!("a weight of {weight}; weights are finite"))),
        None => Ok(()),
    }
}

fn weighted(labels: &Numbers<'_>, scores: &Numbers<'_>, weights: &Numbers<'_>, missing: Missing) -> Result<f64> {
    let rows = Rows::new([labels, scores, weights], missing)?;
    let mut all: Vec<(u64, f64, f64)> = Vec::with_capacity(rows.len());
    let (mut checks, mut ones, mut bad) = (Checks::default(), 0, Ok(()));
    rows.each(|[labels, scores, weights]| {
        ones += checks.labels(labels);
        checks.scores(scores);
        if bad.is_ok() {
            bad = check_weights(weights);
        }
        let triples = scores.iter().zip(labels).zip(weights);
        all.extend(triples.map(|((score, label), weight)| (order::key(*score), *label, *weight)));
    })?;
    checks.verdict(ones, all.len() - ones)?;
    bad?;
    // Stable, so that weights of equal scores are added in their order.
    all.par_sort_by_key(|row| row.0);
    let (mut area, mut positive, mut negative) = (0.0, 0.0, 0.0);
    for ties in all.chunk_by(|a, b| a.0 == b.0) {
        let sum = |class: f64| ties.iter().filter(|row| row.1 == class).map(|row| row.2).sum::<f64>();
        let (ones, zeros) = (sum(1.0), sum(0.0));
        area += ones * (negative + zeros / 2.0);
        positive += ones;
        negative += zeros;
    }
    if positive == 0.0 || negative == 0.0 {
        return Err(Fault::single_class("all weight is on one class; comparing classes needs both"));
    }
    Ok(area / positive / negative)
}

/// An area with its uncertainty, and another on the same rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AreaTest {
    /// Area of the first scores.
    pub first: f64,
    /// Area of the second scores.
    pub second: f64,
    /// Standard error of the first.
    pub first_error: f64,
    /// Standard error of the difference, first minus second.
    pub difference_error: f64,
    /// Two-sided probability of that difference if both are equally good; NaN where the error is 0.
    pub p_value: f64,
}

/// DeLong's test of two scores on the same rows. Needs two rows of either class.
pub fn compare_areas(
    labels: &Numbers<'_>,
    first: &Numbers<'_>,
    second: &Numbers<'_>,
    missing: Missing,
) -> Result<AreaTest> {
    let rows = Rows::new([labels, first, second], missing)?;
    let (mut checks, mut ones, mut all) = (Checks::default(), Vec::new(), Vec::new());
    rows.each(|[labels, first, second]| {
        checks.labels(labels);
        checks.scores(first);
        checks.scores(second);
        for (label, (first, second)) in labels.iter().zip(first.iter().zip(second)) {
            let side = if *label == 1.0 { &mut ones } else { &mut all };
            side.push([order::key(*first), order::key(*second)]);
        }
    })?;
    checks.verdict(ones.len(), all.len())?;
    if ones.len() < 2 || all.len() < 2 {
        return Err(Fault::single_class("a class of one row has no variance; comparing areas needs two rows of each"));
    }
    let above = placements(&ones, &all, false);
    let below = placements(&all, &ones, true);
    let area = |score: usize| above.iter().map(|place| place[score]).sum::<f64>() / above.len() as f64;
    let (first, second) = (area(0), area(1));
    let spread = |of: &dyn Fn(&[f64; 2]) -> f64| {
        [&above, &below].iter().map(|side| variance(side.iter().map(of)) / side.len() as f64).sum::<f64>()
    };
    let difference_error = spread(&|place| place[0] - place[1]).sqrt();
    let z = (first - second).abs() / difference_error;
    Ok(AreaTest {
        first,
        second,
        first_error: spread(&|place| place[0]).sqrt(),
        difference_error,
        p_value: 2.0 * normal_upper(z),
    })
}

/// For each row the share of the other class that it is on the right side of, ties half, for both scores.
fn placements(rows: &[[u64; 2]], others: &[[u64; 2]], is_below: bool) -> Vec<[f64; 2]> {
    let sorted: [Vec<u64>; 2] = std::array::from_fn(|score| {
        let mut keys: Vec<u64> = others.iter().map(|other| other[score]).collect();
        keys.sort_unstable();
        keys
    });
    let place = |keys: &[u64], key: u64| {
        let (less, not_more) =
            (keys.partition_point(|other| *other < key), keys.partition_point(|other| *other <= key));
        let share = (less + not_more) as f64 / 2.0 / keys.len() as f64;
        if is_below { 1.0 - share } else { share }
    };
    rows.par_iter().map(|row| [place(&sorted[0], row[0]), place(&sorted[1], row[1])]).collect()
}

fn variance(values: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let count = values.len() as f64;
    let mean = values.clone().sum::<f64>() / count;
    values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0)
}
