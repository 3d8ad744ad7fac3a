//! Wasserstein distance of two samples on a line: the area between their distribution functions.
//!
//! Two sorts and one merge, the merge in parts whose sums are added in order. Infinite values are at no distance and refused.

use mainstay_arrays::Numbers;
use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::moments::moments;
use crate::order;
use crate::walk::{Missing, Rows};

/// The least that a distance is divided by.
pub const SCALE_FLOOR: f64 = 0.001;
/// Values of the first sample in one part; fixed, so that sums do not depend on threads.
const PART_VALUES: usize = 262_144;

/// A distance, and the same in units of the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transport {
    /// Exact 1-Wasserstein distance, in the values' unit.
    pub distance: f64,
    /// Divided by the reference's population standard deviation, at least [`SCALE_FLOOR`].
    pub normed: f64,
}

/// Distance of two samples, as scipy's `wasserstein_distance`.
pub fn wasserstein(reference: &Numbers<'_>, current: &Numbers<'_>, missing: Missing) -> Result<Transport> {
    let first = sorted(reference, "the reference", missing)?;
    let second = sorted(current, "the current column", missing)?;
    let mut cuts: Vec<u64> = first.iter().skip(PART_VALUES).step_by(PART_VALUES).copied().collect();
    cuts.dedup();
    let place = |keys: &[u64], cut: usize| match cut {
        0 => 0,
        cut if cut > cuts.len() => keys.len(),
        cut => keys.partition_point(|key| *key < cuts[cut - 1]),
    };
    let part = |cut: usize| {
        let first_part = place(&first, cut)..place(&first, cut + 1);
        area(&first, &second, first_part, place(&second, cut)..place(&second, cut + 1))
    };
    let areas: Vec<f64> = (0..=cuts.len()).into_par_iter().map(part).collect();
    let distance = areas.iter().sum();
    let scale = moments(reference, missing)?.population_std().max(SCALE_FLOOR);
    Ok(Transport { distance, normed: distance / scale })
}

fn sorted(values: &Numbers<'_>, what: &str, missing: Missing) -> Result<Vec<u64>> {
    let keys = order::sorted(&Rows::new([values], missing)?)?;
    let (Some(least), Some(greatest)) = (keys.first(), keys.last()) else { return Err(Fault::nothing(what)) };
    if !order::value(*least).is_finite() || !order::value(*greatest).is_finite() {
        return Err(Fault::non_finite(format!("{what} has infinite values, which are at no distance; leave them out")));
    }
    Ok(keys)
}

/// The area that begins at the values of these parts.
fn area(first: &[u64], second: &[u64], first_part: std::ops::Range<usize>, second_part: std::ops::Range<usize>) -> f64 {
    let (mut i, mut j, mut sum) = (first_part.start, second_part.start, 0.0);
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let head = |keys: &[u64], at: usize| keys.get(at).copied().unwrap_or(u64::MAX);
    while i < first_part.end || j < second_part.end {
        let here = head(first, i).min(head(second, j));
        while i < first.len() && first[i] == here {
            i += 1;
        }
        while j < second.len() && second[j] == here {
            j += 1;
        }
        if i < first.len() || j < second.len() {
            let next = head(first, i).min(head(second, j));
            sum += (i as f64 / n1 - j as f64 / n2).abs() * (order::value(next) - order::value(here));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn distance(first: &[f64], second: &[f64]) -> f64 {
        wasserstein(&Numbers::of_f64(&[first]), &Numbers::of_f64(&[second]), Missing::Refuse).unwrap().distance
    }

    proptest! {
        #[test]
        fn equal_sizes_pair_by_rank(values in prop::collection::vec((-9..9i32, -9..9i32), 1..200)) {
            let mut first: Vec<f64> = values.iter().map(|pair| f64::from(pair.0)).collect();
            let mut second: Vec<f64> = values.iter().map(|pair| f64::from(pair.1)).collect();
            let got = distance(&first, &second);
            first.sort_by(f64::total_cmp);
            second.sort_by(f64::total_cmp);
            let paired: f64 = first.iter().zip(&second).map(|(a, b)| (a - b).abs()).sum();
            prop_assert!((got - paired / first.len() as f64).abs() < 1e-12);
        }
    }

    #[test]
    fn parts_meet() {
        let stream = crate::philox::Stream::new(3, 0);
        let first: Vec<f64> = (0..700_000).map(|at| (stream.unit(at) * 1e5).floor()).collect();
        let second: Vec<f64> = first.iter().map(|value| value + 2.5).collect();
        assert!((distance(&first, &second) - 2.5).abs() < 1e-9);
        assert!((distance(&second, &first[..100_000]) - 2.5).abs() < 300.0);
    }

    #[test]
    fn infinity_is_at_no_distance() {
        let (one, infinite) = ([1.0], [f64::INFINITY]);
        let fault =
            wasserstein(&Numbers::of_f64(&[&one]), &Numbers::of_f64(&[&infinite]), Missing::Refuse).unwrap_err();
        assert_eq!(fault.code(), "non_finite");
    }
}
