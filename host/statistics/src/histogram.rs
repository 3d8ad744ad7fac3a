//! Histograms over given edges.
//!
//! Few edges are counted without a branch: for every edge, how many values are at least it; the bins are the differences.
//! Many edges are searched by halving, also without a branch. Sums are integers, so threads do not matter.

use mainstay_arrays::Numbers;

use crate::fault::{Fault, Result};
use crate::walk::{BLOCK_ROWS, Missing, Rows};
use crate::wide;

/// Up to this many edges a pass for each is faster than a search for each value.
const COUNTED_EDGES_MAX: usize = 24;
/// Edges that one histogram may have.
pub const EDGES_MAX: usize = 1 << 20;

/// What lies outside the outer edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Belongs to no bin; the greatest edge itself belongs to the last bin, as in numpy.
    Closed,
    /// Belongs to the first or the last bin: the outer edges are taken for the infinities.
    Open,
}

/// How many values lie where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// One for each bin [a, b) between two edges.
    pub counts: Vec<u64>,
    /// Values that are there, in a bin or not.
    pub total: u64,
    /// Places that are not.
    pub missing: u64,
}

/// Counts of values over strictly ascending, finite edges, at least two (with open ends, at least two breaks as well).
pub fn histogram(values: &Numbers<'_>, edges: &[f64], ends: Ends, missing: Missing) -> Result<Histogram> {
    check_edges(edges)?;
    let rows = Rows::new([values], missing)?;
    let inner = &edges[1..edges.len() - 1];
    let (at_least, total, outside) = match ends {
        // The outer edges are not asked for, so they are not compared with either.
        Ends::Open if inner.len() <= COUNTED_EDGES_MAX => {
            let (at_least, total) = counted(&rows, inner)?;
            (at_least, total, (0, 0))
        }
        _ => bounded(&rows, edges)?,
    };
    // From "at least this edge" to "from this edge to the next".
    let mut counts: Vec<u64> = Vec::with_capacity(edges.len() - 1);
    let mut from = total;
    for next in at_least.into_iter().chain([0]) {
        counts.push(from - next);
        from = next;
    }
    if ends == Ends::Closed {
        let last = counts.len() - 1;
        counts[0] -= outside.0;
        counts[last] -= outside.1;
    }
    Ok(Histogram { counts, total, missing: rows.len() as u64 - total })
}

/// For each edge how many values are at least it, and how many there are.
fn counted(rows: &Rows<'_, 1>, edges: &[f64]) -> Result<(Vec<u64>, u64)> {
    let step = |(counts, total): &mut (Vec<u64>, u64), [block]: [&[f64]; 1]| {
        wide::count_at_least(block, edges, counts);
        *total += block.len() as u64;
    };
    let join = |mut a: (Vec<u64>, u64), b: (Vec<u64>, u64)| {
        a.0.iter_mut().zip(b.0).for_each(|(a, b)| *a += b);
        (a.0, a.1 + b.1)
    };
    rows.fold(|| (vec![0; edges.len()], 0), step, join)
}

/// For each inner edge how many values are at least it; how many there are; how many below the first edge and above the last.
fn bounded(rows: &Rows<'_, 1>, edges: &[f64]) -> Result<(Vec<u64>, u64, (u64, u64))> {
    // "Above the last" is "at least the next number".
    let mut all = edges.to_vec();
    all.push(edges[edges.len() - 1].next_up());
    let (counts, total) = if all.len() <= COUNTED_EDGES_MAX { counted(rows, &all)? } else { searched(rows, &all)? };
    let above = if edges[edges.len() - 1] == f64::INFINITY { 0 } else { counts[edges.len()] };
    Ok((counts[1..edges.len() - 1].to_vec(), total, (total - counts[0], above)))
}

/// The same as [`counted`] for many edges.
fn searched(rows: &Rows<'_, 1>, edges: &[f64]) -> Result<(Vec<u64>, u64)> {
    let step = |counts: &mut Vec<u64>, [block]: [&[f64]; 1]| {
        let mut places = [0u32; BLOCK_ROWS];
        search(block, edges, &mut places);
        places[..block.len()].iter().for_each(|place| counts[*place as usize] += 1);
    };
    let join = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    // Place p is between edge p - 1 and edge p.
    let counts = rows.fold(|| vec![0u64; edges.len() + 1], step, join)?;
    let total: u64 = counts.iter().sum();
    let at_least = counts[..edges.len()].iter().scan(total, |left, count| {
        *left -= count;
        Some(*left)
    });
    Ok((at_least.collect(), total))
}

/// For each value how many edges it is at least. All searches of a block advance together, so that their loads overlap.
fn search(values: &[f64], edges: &[f64], places: &mut [u32; BLOCK_ROWS]) {
    let mut step = edges.len().next_power_of_two();
    while step > 0 {
        for (place, value) in places.iter_mut().zip(values) {
            let next = *place as usize + step;
            let is_beyond = next <= edges.len() && *value >= edges[next - 1];
            *place = if is_beyond { next as u32 } else { *place };
        }
        step /= 2;
    }
}

fn check_edges(edges: &[f64]) -> Result<()> {
    if edges.len() > EDGES_MAX {
        return Err(Fault::too_many(format!("{} edges; the most is {EDGES_MAX}", edges.len())));
    }
    let is_ascending = edges.len() >= 2 && edges.windows(2).all(|pair| pair[0] < pair[1]);
    if !is_ascending || edges.iter().any(|edge| edge.is_nan()) {
        return Err(Fault::bad_argument(
            "edges must be two at least, ascending and different; sort them, drop duplicates",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(values: &[f64], edges: &[f64], ends: Ends) -> Vec<u64> {
        let mut counts = vec![0; edges.len() - 1];
        let last = counts.len() - 1;
        for value in values.iter().filter(|value| !value.is_nan()) {
            let within = (0..=last).find(|bin| {
                let from = *value >= edges[*bin] || (ends == Ends::Open && *bin == 0);
                let to = *value < edges[bin + 1] || *bin == last && (ends == Ends::Open || *value == edges[bin + 1]);
                from && to
            });
            within.into_iter().for_each(|bin| counts[bin] += 1);
        }
        counts
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_loop(
            values in prop::collection::vec(prop_oneof![(-20..20i32).prop_map(f64::from), prop::num::f64::ANY], 0..5_000),
            edges in prop::collection::btree_set(-20..20i32, 2..40),
            is_open: bool,
        ) {
            let edges: Vec<f64> = edges.into_iter().map(f64::from).collect();
            let ends = if is_open { Ends::Open } else { Ends::Closed };
            let view = Numbers::of_f64(&[&values]);
            let got = histogram(&view, &edges, ends, Missing::Omit).unwrap();
            let expect = plain(&values, &edges, ends);
            prop_assert_eq!(&got.counts, &expect);
            prop_assert_eq!(got.total + got.missing, values.len() as u64);
            let rows = Rows::new([&view], Missing::Omit).unwrap();
            prop_assert_eq!(counted(&rows, &edges).unwrap(), searched(&rows, &edges).unwrap());
        }
    }

    #[test]
    fn edges_must_be_edges() {
        let check = |edges: &[f64]| {
            let fault = histogram(&Numbers::of_f64(&[&[1.0]]), edges, Ends::Open, Missing::Refuse).unwrap_err();
            assert_eq!(fault.code(), "bad_argument");
        };
        check(&[]);
        check(&[1.0]);
        check(&[1.0, 1.0]);
        check(&[2.0, 1.0]);
        check(&[1.0, f64::NAN]);
    }
}
