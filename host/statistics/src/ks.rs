//! Kolmogorov-Smirnov: how far two samples' distributions are apart, and how likely that is by chance.
//!
//! Definitions and choice of method are those of scipy 1.17's `ks_2samp`. The distance is kept as an integer over the least
//! common multiple of both sizes, so ties and rounding cannot move it. Infinite values are values.
//!
//! Two sorts and two merges; a merge takes one step per value without a branch that could be mispredicted. Large samples are
//! counted over buckets first, and only buckets that could hold the greatest difference are sorted. Exact
//! probabilities walk the lattice of all orders of both samples, diagonal by diagonal, only inside the band that the distance
//! allows: at most `n1 * n2` cells, of which two diagonals are kept.

use mainstay_arrays::Numbers;
use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::kolmogorov;
use crate::order::{self, Buckets};
use crate::special::ln_choose;
use crate::walk::{Missing, Rows};

/// Up to this size of the larger sample [`Method::Auto`] is exact.
pub const AUTO_EXACT_MAX: usize = 10_000;
/// [`Method::Exact`] does what it is told up to this many cells of the lattice; then it is asymptotic, as beyond the sizes
/// that scipy refuses.
const LATTICE_CELLS_MAX: u128 = 1 << 32;
/// From this size of the smaller sample, sorting is avoided.
const PRUNE_ROWS: usize = 1 << 18;
/// Buckets for that.
const PRUNE_BUCKETS: usize = 16_384;
/// Values merged by one task.
const MERGE_VALUES: usize = 262_144;

/// How the probability is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Exact up to [`AUTO_EXACT_MAX`], else asymptotic.
    #[default]
    Auto,
    /// By counting paths.
    Exact,
    /// By the limit of large samples.
    Asymptotic,
}

/// Which difference counts; F is the first sample's distribution function, G the second's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alternative {
    /// |F - G|.
    #[default]
    TwoSided,
    /// G - F: the first sample's values are greater.
    Less,
    /// F - G: the first sample's values are less.
    Greater,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KsTest {
    /// Greatest difference of the distribution functions.
    pub statistic: f64,
    /// Probability of that or more if both samples come from one distribution.
    pub p_value: f64,
    /// Exact or asymptotic, never auto.
    pub method: Method,
    /// Sizes without missing values.
    pub sizes: (usize, usize),
}

/// Two-sample test. `empty_input` when a sample has no values.
pub fn ks_two_sample(
    first: &Numbers<'_>,
    second: &Numbers<'_>,
    method: Method,
    alternative: Alternative,
    missing: Missing,
) -> Result<KsTest> {
    let (first, second) = (Rows::new([first], missing)?, Rows::new([second], missing)?);
    let wants = match alternative {
        Alternative::TwoSided => [true, true],
        Alternative::Greater => [true, false],
        Alternative::Less => [false, true],
    };
    let (height, sizes) = if first.len().min(second.len()) >= PRUNE_ROWS {
        pruned(&first, &second, wants)?
    } else {
        whole(&first, &second, wants)?
    };
    Ok(judged(height, sizes.0, sizes.1, method, alternative))
}

fn check_sizes(sizes: (usize, usize)) -> Result<(usize, usize)> {
    if sizes.0 == 0 || sizes.1 == 0 { Err(Fault::nothing("a sample")) } else { Ok(sizes) }
}

/// Greatest difference in the wanted directions (F - G, G - F), times the product of the sizes; and the sizes.
fn whole(first: &Rows<'_, 1>, second: &Rows<'_, 1>, wants: [bool; 2]) -> Result<(i128, (usize, usize))> {
    let (first, second) = (order::sorted(first)?, order::sorted(second)?);
    let sizes = check_sizes((first.len(), second.len()))?;
    let up = || if wants[0] { excess(&first, &second) } else { 0 };
    let down = || if wants[1] { excess(&second, &first) } else { 0 };
    let (up, down) = rayon::join(up, down);
    Ok((up.max(down), sizes))
}

/// The same without sorting most values: both samples are counted over the same buckets, which gives the difference at the
/// buckets' ends; inside a bucket it can only be greater by what the bucket holds, so only buckets that could still hold the
/// greatest are sorted and merged.
fn pruned(first: &Rows<'_, 1>, second: &Rows<'_, 1>, wants: [bool; 2]) -> Result<(i128, (usize, usize))> {
    let mut sample = order::sample(first);
    sample.extend(order::sample(second));
    let buckets = Buckets::new(&sample, PRUNE_BUCKETS);
    drop(sample);
    let (a, b) = (buckets.counts(first)?, buckets.counts(second)?);
    let sum = |counts: &[u32]| counts.iter().map(|count| *count as usize).sum::<usize>();
    let (n1, n2) = check_sizes((sum(&a), sum(&b)))?;
    let starts = heights(&a, &b, n1, n2);
    let at_ends = |sign: i128| starts.iter().map(|height| sign * height).max().unwrap_or(0).max(0);
    let best = [at_ends(1), at_ends(-1)];
    let is_open: Vec<bool> = (0..a.len())
        .map(|bucket| {
            let up = starts[bucket] + i128::from(a[bucket]) * n2 as i128;
            let down = i128::from(b[bucket]) * n1 as i128 - starts[bucket];
            (wants[0] && up > best[0]) || (wants[1] && down > best[1])
        })
        .collect();
    let open = || (0..a.len()).filter(|bucket| is_open[*bucket]);
    if open().map(|bucket| a[bucket] as usize + b[bucket] as usize).sum::<usize>() > (n1 + n2) / 2 {
        return whole(first, second, wants);
    }
    let left = order::sorted_where(first, &buckets, &is_open)?;
    let right = order::sorted_where(second, &buckets, &is_open)?;
    let (mut i, mut j) = (0, 0);
    let mut greatest = [if wants[0] { best[0] } else { 0 }, if wants[1] { best[1] } else { 0 }];
    for bucket in open() {
        let (own, other) = (&left[i..i + a[bucket] as usize], &right[j..j + b[bucket] as usize]);
        (i, j) = (i + own.len(), j + other.len());
        let found = [
            Walk::over(own, other, starts[bucket]).finish(n1 as i64, n2 as i64),
            Walk::over(other, own, -starts[bucket]).finish(n2 as i64, n1 as i64),
        ];
        (0..2).filter(|side| wants[*side]).for_each(|side| greatest[side] = greatest[side].max(found[side]));
    }
    Ok((greatest[0].max(greatest[1]), (n1, n2)))
}

/// `i n2 - j n1` before each bucket.
fn heights(a: &[u32], b: &[u32], n1: usize, n2: usize) -> Vec<i128> {
    let steps = a.iter().zip(b).map(|(a, b)| i128::from(*a) * n2 as i128 - i128::from(*b) * n1 as i128);
    steps
        .scan(0, |height, step| {
            let before = *height;
            *height += step;
            Some(before)
        })
        .collect()
}

/// Greatest F - G over all values, times the product of the sizes.
///
/// It is attained at a value of the first sample, after all values of the second that are not greater; before the last of
/// several equal values the difference is only smaller, so every value may be looked at.
fn excess(first: &[u64], second: &[u64]) -> i128 {
    let starts: Vec<usize> = (0..first.len()).step_by(MERGE_VALUES).collect();
    let part = |start: &usize| {
        let end = first.len().min(start + MERGE_VALUES);
        let middle = start.midpoint(end);
        let halves = [Walk::new(first, second, *start..middle), Walk::new(first, second, middle..end)];
        Walk::finish_both(halves, first.len() as i64, second.len() as i64)
    };
    starts.par_iter().map(part).max().unwrap_or(0).max(0)
}

/// One merge of a part of the first sample with what of the second lies in its range.
struct Walk<'a> {
    first: &'a [u64],
    second: &'a [u64],
    /// `i n2 - j n1` before the part. Sizes are below 2^32, so their product may not fit 64 bits with a sign; what is added
    /// inside a part does.
    base: i128,
    i: usize,
    j: usize,
    height: i64,
    greatest: i64,
}

impl<'a> Walk<'a> {
    fn new(first: &'a [u64], second: &'a [u64], part: std::ops::Range<usize>) -> Walk<'a> {
        let own = &first[part.clone()];
        let (from, to) = match own {
            [] => (0, 0),
            [least, ..] => {
                let greatest = own[own.len() - 1];
                (second.partition_point(|key| key < least), second.partition_point(|key| *key <= greatest))
            }
        };
        let base = part.start as i128 * second.len() as i128 - from as i128 * first.len() as i128;
        Walk::over(own, &second[from..to], base)
    }

    fn is_going(&self) -> bool {
        self.i < self.first.len() && self.j < self.second.len()
    }

    /// The lesser value of both; of equal ones the second's. Without a branch, as its outcome is random.
    #[inline(always)]
    fn step(&mut self, up: i64, down: i64) {
        let is_second = self.second[self.j] <= self.first[self.i];
        self.height += if is_second { -down } else { up };
        self.greatest = self.greatest.max(if is_second { i64::MIN } else { self.height });
        self.j += usize::from(is_second);
        self.i += usize::from(!is_second);
    }

    /// Of these two parts, which begin at this height.
    fn over(first: &'a [u64], second: &'a [u64], base: i128) -> Walk<'a> {
        Walk { first, second, base, i: 0, j: 0, height: 0, greatest: i64::MIN }
    }

    /// Greatest `(i + 1) n2 - j n1`, where j values of the second are at most the i-th of the first.
    fn finish(mut self, n1: i64, n2: i64) -> i128 {
        while self.is_going() {
            self.step(n2, n1);
        }
        let rest = (self.first.len() - self.i) as i64;
        let last = if rest > 0 { self.height + rest * n2 } else { i64::MIN };
        let greatest = self.greatest.max(last);
        if self.first.is_empty() { i128::MIN } else { self.base + i128::from(greatest) }
    }

    /// The greater of both. A step waits for the one before, so two walks are made at once.
    fn finish_both([mut one, mut other]: [Walk<'_>; 2], n1: i64, n2: i64) -> i128 {
        while one.is_going() && other.is_going() {
            one.step(n2, n1);
            other.step(n2, n1);
        }
        one.finish(n1, n2).max(other.finish(n1, n2))
    }
}

fn judged(height: i128, n1: usize, n2: usize, method: Method, alternative: Alternative) -> KsTest {
    let common = gcd(n1, n2);
    let multiple = (n1 / common) as u128 * n2 as u128;
    let steps = (height / common as i128) as u128;
    let statistic = steps as f64 / multiple as f64;
    let wants_exact = match method {
        Method::Auto => n1.max(n2) <= AUTO_EXACT_MAX,
        Method::Exact => {
            let cells = (n1 / common) as u128 * (n2 / common) as u128;
            cells < i32::MAX as u128 && n1 as u128 * n2 as u128 <= LATTICE_CELLS_MAX
        }
        Method::Asymptotic => false,
    };
    let exact = if wants_exact { exact(steps, n1, n2, common, alternative) } else { None };
    let (p_value, method) = match exact {
        Some(p_value) => (p_value, Method::Exact),
        None => (asymptotic(statistic, n1, n2, alternative), Method::Asymptotic),
    };
    KsTest { statistic, p_value: p_value.clamp(0.0, 1.0), method, sizes: (n1, n2) }
}

fn asymptotic(statistic: f64, n1: usize, n2: usize, alternative: Alternative) -> f64 {
    let (m, n) = (n1.max(n2) as f64, n1.min(n2) as f64);
    let effective = m * n / (m + n);
    if alternative == Alternative::TwoSided {
        return kolmogorov::two_sided_upper(statistic, effective.round_ties_even().max(1.0));
    }
    // J. L. Hodges, "The significance probability of the Smirnov two-sample test" (1958), 5.3.
    let z = effective.sqrt() * statistic;
    (-2.0 * z * z - 2.0 * z * (m + 2.0 * n) / (m * n * (m + n)).sqrt() / 3.0).exp()
}

/// None where scipy's own count overflows and it falls back, so that both answer alike.
fn exact(steps: u128, n1: usize, n2: usize, common: usize, alternative: Alternative) -> Option<f64> {
    if steps == 0 {
        return Some(1.0);
    }
    if alternative == Alternative::TwoSided {
        return Some(touching(n1, n2, common, steps, true));
    }
    if n1 == n2 {
        // C(2n, n - h) / C(2n, n).
        let n = n1 as f64;
        return Some((0..steps).map(|at| (n - at as f64) / (n + at as f64 + 1.0)).product());
    }
    if ln_choose((n1 + n2) as f64, n1 as f64) >= f64::MAX.ln() {
        return None;
    }
    Some(touching(n1, n2, common, steps, false))
}

/// Probability that a random path from (0, 0) to (m, n) comes as far as `steps / lcm` from the diagonal, on either side or
/// only on one.
///
/// P(x, y) of a path that ends at (x, y) is the mean of the two cells that it can come from, weighted by how many paths do;
/// outside the band it is 1. Only positive numbers are added, so even tiny probabilities keep their digits.
fn touching(n1: usize, n2: usize, common: usize, steps: u128, both_sides: bool) -> f64 {
    let (m, n) = (n1.max(n2), n1.min(n2));
    let (mg, ng) = ((m / common) as i128, (n / common) as i128);
    let steps = steps as i128;
    // Inside: x ng - y mg < h, and > -h where both sides count; on a diagonal y is s - x.
    let sum = mg + ng;
    let highest = |s: i128| (s * mg + steps - 1).div_euclid(sum);
    let lowest = |s: i128| if both_sides { (s * mg - steps).div_euclid(sum) + 1 } else { 0 };
    let mut row = vec![0.0; m + 1];
    let mut next = vec![0.0; m + 1];
    let mut inside = (0i128, 0i128);
    for s in 1..=(m + n) as i128 {
        let (from, to) = ((s - n as i128).max(0).max(lowest(s)), s.min(m as i128).min(highest(s)));
        if from > to {
            return 1.0;
        }
        let before = |x: i128| if x < inside.0 || x > inside.1 { 1.0 } else { row[x as usize] };
        let total = s as f64;
        let mut cell = |x: i128| {
            let (left, below) = (x as f64 * before(x - 1), (s - x) as f64 * before(x));
            next[x as usize] = (left + below) / total;
        };
        // The ends look outside the band; between them both neighbours are inside, and the loop is plain.
        let (start, stop) = (from.max(inside.0 + 1), to.min(inside.1));
        (from..=to.min(start - 1)).for_each(&mut cell);
        (stop.max(from - 1).max(start - 1) + 1..=to).for_each(&mut cell);
        if start <= stop {
            let (start, stop) = (start as usize, stop as usize);
            diagonal(&row[start - 1..=stop], start, s as usize, &mut next[start..=stop]);
        }
        std::mem::swap(&mut row, &mut next);
        inside = (from, to);
    }
    row[m]
}

fn diagonal(before: &[f64], start: usize, s: usize, out: &mut [f64]) {
    let inverse = 1.0 / s as f64;
    for (at, (pair, out)) in before.windows(2).zip(out).enumerate() {
        let x = (start + at) as f64;
        *out = (x * pair[0] + (s as f64 - x) * pair[1]) * inverse;
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_sorted_does_not_matter() {
        let stream = crate::philox::Stream::new(11, 0);
        let check = |first: &dyn Fn(u64) -> f64, second: &dyn Fn(u64) -> f64| {
            let first: Vec<f64> = (0..300_000).map(first).collect();
            let second: Vec<f64> = (300_000..650_000).map(second).collect();
            let (first, second) = (Numbers::of_f64(&[&first]), Numbers::of_f64(&[&second[..1_000], &second[1_000..]]));
            let first = Rows::new([&first], Missing::Omit).unwrap();
            let second = Rows::new([&second], Missing::Omit).unwrap();
            for wants in [[true, true], [true, false], [false, true]] {
                assert_eq!(pruned(&first, &second, wants).unwrap(), whole(&first, &second, wants).unwrap());
            }
        };
        let unit = |at: u64| stream.unit(at);
        check(&unit, &unit);
        check(&unit, &|at| unit(at) * 0.9 + 0.05);
        check(&unit, &|at| unit(at) + 3.0);
        check(&|at| unit(at) + 3.0, &unit);
        check(&|at| (unit(at) * 7.0).floor(), &|at| (unit(at) * 8.0).floor());
        check(&|_| 1.0, &|_| 1.0);
        check(&|at| at as f64, &|at| -(at as f64));
        check(&|at| if unit(at) < 0.5 { f64::NAN } else { unit(at) }, &|at| 1.0 / unit(at));
    }
}
