//! Quantiles: exact, linear between the two neighbours (the default of numpy; type 7 of Hyndman & Fan 1996).
//!
//! Several at once, by selection: a few quantiles of a large column cost one pass over it ([`crate::brackets`]), many cost two
//! (buckets of [`crate::order`]), never a sort. Memory: a sample of 1/32 and what lies near the wanted ranks.

use mainstay_arrays::Numbers;

use crate::brackets::{Kept, LEVELS_MAX, ROWS_MIN};
use crate::fault::{Fault, Result};
use crate::order;
use crate::walk::{Missing, Rows};

/// The quantiles of these levels in [0, 1], in the order asked for.
///
/// `empty_input` without values, `bad_argument` for a level outside; missing values as `missing` says. Infinite values are
/// values; a quantile between two infinities of different sign is NaN.
pub fn quantiles(values: &Numbers<'_>, levels: &[f64], missing: Missing) -> Result<Vec<f64>> {
    if let Some(level) = levels.iter().find(|level| !(0.0..=1.0).contains(*level)) {
        return Err(Fault::bad_argument(format!("a quantile of level {level}; levels are from 0 to 1")));
    }
    let rows = Rows::new([values], missing)?;
    if rows.len() >= ROWS_MIN
        && levels.len() <= LEVELS_MAX
        && let Some((found, _)) = bracketed(&rows, levels)?
    {
        return Ok(found);
    }
    let (mut places, mut ranks) = (Vec::new(), Vec::new());
    let found = order::select(&rows, |count| {
        if count == 0 {
            return Err(Fault::nothing("the column"));
        }
        places.extend(levels.iter().map(|level| Place::new(*level, count)));
        ranks.extend(places.iter().flat_map(|place| [place.below, place.above]));
        ranks.sort_unstable();
        ranks.dedup();
        Ok(ranks.clone())
    })?;
    let value = |rank: usize| order::value(found[ranks.binary_search(&rank).expect("it was asked for")]);
    Ok(places.iter().map(|place| between(value(place.below), value(place.above), place.part)).collect())
}

/// The same with how many values are at least each of them, where one pass over a large column tells both.
pub(crate) fn quantiles_with_counts(
    values: &Numbers<'_>,
    levels: &[f64],
    missing: Missing,
) -> Result<Option<(Vec<f64>, Counts)>> {
    let rows = Rows::new([values], missing)?;
    if rows.len() < ROWS_MIN || levels.len() > LEVELS_MAX {
        return Ok(None);
    }
    let Some((found, kept)) = bracketed(&rows, levels)? else { return Ok(None) };
    let at_least: Option<Vec<u64>> = found.iter().map(|value| kept.count_at_least(*value)).collect();
    let (total, missing) = (kept.total as u64, (rows.len() - kept.total) as u64);
    Ok(at_least.map(|at_least| (found, Counts { at_least, total, missing })))
}

/// How many values are at least each quantile, are there, and are not.
pub(crate) struct Counts {
    pub at_least: Vec<u64>,
    pub total: u64,
    pub missing: u64,
}

/// None where a rank lies outside its bracket.
fn bracketed(rows: &Rows<'_, 1>, levels: &[f64]) -> Result<Option<(Vec<f64>, Kept)>> {
    let Some(kept) = Kept::new(rows, levels)? else { return Ok(None) };
    if kept.total == 0 {
        return Ok(None);
    }
    let one = |level: &f64| {
        let place = Place::new(*level, kept.total);
        let (below, above) = (kept.at(place.below)?, kept.at(place.above)?);
        Some(between(order::value(below), order::value(above), place.part))
    };
    let found: Option<Vec<f64>> = levels.iter().map(one).collect();
    Ok(found.map(|found| (found, kept)))
}

/// The same of a short list that is ascending and not empty.
pub(crate) fn quantile_sorted(sorted: &[f64], level: f64) -> f64 {
    let place = Place::new(level, sorted.len());
    between(sorted[place.below], sorted[place.above], place.part)
}

struct Place {
    below: usize,
    above: usize,
    part: f64,
}

impl Place {
    fn new(level: f64, count: usize) -> Place {
        let last = count - 1;
        let at = level * last as f64;
        let below = (at.floor() as usize).min(last);
        Place { below, above: (below + 1).min(last), part: at - at.floor() }
    }
}

/// Rounded as numpy rounds: from the nearer side, so that levels 0, 1 and equal neighbours are exact.
fn between(below: f64, above: f64, part: f64) -> f64 {
    if below == above || part == 0.0 {
        return below;
    }
    let step = above - below;
    if part < 0.5 { below + step * part } else { above - step * (1.0 - part) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_numpy() {
        // numpy.quantile([7, 1, 3, 2.5, 10], [0, .1, .5, .9, 1])
        let values = [7.0, 1.0, 3.0, 2.5, 10.0];
        let got = quantiles(&Numbers::of_f64(&[&values]), &[0.0, 0.1, 0.5, 0.9, 1.0], Missing::Refuse).unwrap();
        assert_eq!(got, [1.0, 1.6, 3.0, 8.8, 10.0]);
        let one = quantiles(&Numbers::of_f64(&[&[4.0]]), &[0.3], Missing::Refuse).unwrap();
        assert_eq!(one, [4.0]);
    }

    #[test]
    fn what_cannot_be() {
        let check = |values: &[f64], level: f64, code: &str| {
            let fault = quantiles(&Numbers::of_f64(&[values]), &[level], Missing::Refuse).unwrap_err();
            assert_eq!(fault.code(), code);
        };
        check(&[], 0.5, "empty_input");
        check(&[1.0], 1.5, "bad_argument");
        check(&[1.0], f64::NAN, "bad_argument");
        check(&[1.0, f64::NAN], 0.5, "non_finite");
    }

    /// Many values, so that brackets answer, and shapes that mislead a sample.
    #[test]
    fn large_columns() {
        let stream = crate::philox::Stream::new(5, 0);
        let check = |shape: &dyn Fn(u64) -> f64| {
            let values: Vec<f64> = (0..400_000).map(shape).collect();
            let levels: Vec<f64> = (0..=10).map(|at| f64::from(at) / 10.0).collect();
            let view = Numbers::of_f64(&[&values[..150_000], &values[150_000..]]);
            let got = quantiles(&view, &levels, Missing::Omit).unwrap();
            let mut sorted: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
            sorted.sort_by(f64::total_cmp);
            let expect: Vec<f64> = levels.iter().map(|level| quantile_sorted(&sorted, *level)).collect();
            assert!(got.iter().zip(&expect).all(|(a, b)| a == b), "{got:?} is not {expect:?}");
        };
        check(&|at| stream.unit(at));
        check(&|at| at as f64);
        check(&|at| -(at as f64));
        check(&|at| (stream.unit(at) * 4.0).floor());
        check(&|_| 2.5);
        check(&|at| if at % 65_536 < 2_048 { -1.0 } else { stream.unit(at) });
        check(&|at| if at % 65_536 < 2_048 { f64::NAN } else { stream.unit(at) });
        check(&|at| if at % 3 == 0 { f64::INFINITY } else { stream.unit(at) });
        check(&|at| if at % 9 == 0 { f64::NEG_INFINITY } else { f64::MAX * (stream.unit(at) - 0.5) });
    }

    proptest! {
        #[test]
        fn selection_is_sorting(values in prop::collection::vec(-1e6..1e6f64, 1..2_000), level in 0.0..=1.0f64) {
            let got = quantiles(&Numbers::of_f64(&[&values]), &[level], Missing::Refuse).unwrap()[0];
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert_eq!(got, quantile_sorted(&sorted, level));
        }
    }
}
