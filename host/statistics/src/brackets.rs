//! A few quantiles of many values in one pass.
//!
//! A sample (the first block of every piece) says between which two values each wanted one lies almost surely. One pass counts
//! how many values are at least each end of these brackets, and keeps those inside, some percent; the wanted ranks are then
//! found among the kept. Where the sample misled, a count tells, and selection over buckets answers instead. Exact either way.
//!
//! For every end there is one comparison per value, in wide registers: for more than [`LEVELS_MAX`] levels buckets are faster.

use crate::fault::Result;
use crate::order;
use crate::walk::{BLOCK_ROWS, Rows};
use crate::wide;

/// Levels that one pass brackets.
pub(crate) const LEVELS_MAX: usize = 12;
/// Fewer rows are not worth a sample.
pub(crate) const ROWS_MIN: usize = 1 << 18;
/// Half a bracket's width in standard deviations of a rank in the sample; missing it costs time, nothing else.
const DEVIATIONS: f64 = 4.0;
/// And at least so many of the sample's values.
const MARGIN_MIN: f64 = 16.0;

/// What the pass found.
pub(crate) struct Kept {
    /// Values that are there.
    pub total: usize,
    /// Ends of brackets, ascending: first of the first, end of the first, first of the second, …
    ends: Vec<f64>,
    /// How many values are at least each.
    at_least: Vec<u64>,
    /// Keys inside brackets, ascending.
    keys: Vec<u64>,
}

impl Kept {
    /// Values around these levels; none where the sample is empty. Missing values as the rows say.
    pub fn new(rows: &Rows<'_, 1>, levels: &[f64]) -> Result<Option<Kept>> {
        let mut sample = Vec::new();
        for piece in 0..rows.pieces() {
            rows.sample(piece, |[block]| sample.extend(block.iter().map(|value| order::key(*value))));
        }
        if sample.is_empty() {
            return Ok(None);
        }
        let sample = order::sorted(&sample[..])?;
        let ends = ends(&sample, levels);
        let step = |(counts, kept, total): &mut (Vec<u64>, Vec<u64>, usize), [block]: [&[f64]; 1]| {
            let mut marks = [0u64; BLOCK_ROWS];
            wide::count_and_mark(block, &ends, counts, &mut marks);
            *total += block.len();
            // Written always, kept where marked: no branch.
            let (mut inside, mut count) = ([0.0; BLOCK_ROWS], 0);
            for (value, mark) in block.iter().zip(&marks) {
                inside[count] = *value;
                count += *mark as usize;
            }
            kept.extend(inside[..count].iter().map(|value| order::key(*value)));
        };
        let join = |mut a: (Vec<u64>, Vec<u64>, usize), b: (Vec<u64>, Vec<u64>, usize)| {
            a.0.iter_mut().zip(b.0).for_each(|(a, b)| *a += b);
            a.1.extend_from_slice(&b.1);
            (a.0, a.1, a.2 + b.2)
        };
        let (at_least, kept, total) = rows.fold(|| (vec![0; ends.len()], Vec::new(), 0), step, join)?;
        Ok(Some(Kept { total, ends, at_least, keys: order::sorted(&kept[..])? }))
    }

    /// The key at a rank of all values, if it lies inside a bracket.
    pub fn at(&self, rank: usize) -> Option<u64> {
        let (keys, below) = self.brackets().find(|(keys, below)| (*below..below + keys.len()).contains(&rank))?;
        Some(keys[rank - below])
    }

    /// How many of all values are at least this one, if it lies inside a bracket: histograms over quantiles need no pass.
    pub fn count_at_least(&self, value: f64) -> Option<u64> {
        let (pairs, _) = self.ends.as_chunks::<2>();
        let bracket = pairs.iter().position(|[first, end]| (*first..*end).contains(&value))?;
        let (keys, below) = self.brackets().nth(bracket)?;
        let key = order::key(value);
        Some((self.total - below - keys.partition_point(|kept| *kept < key)) as u64)
    }

    /// For each bracket its keys, and how many of all values are below it.
    fn brackets(&self) -> impl Iterator<Item = (&[u64], usize)> {
        let (pairs, _) = self.at_least.as_chunks::<2>();
        let mut rest = &self.keys[..];
        pairs.iter().map(move |[from, beyond]| {
            let (own, after) = rest.split_at((from - beyond) as usize);
            rest = after;
            (own, self.total - *from as usize)
        })
    }
}

/// Ends of disjoint brackets [first, end) around the levels.
fn ends(sample: &[u64], levels: &[f64]) -> Vec<f64> {
    let count = sample.len() as f64;
    let mut levels = levels.to_vec();
    levels.sort_by(f64::total_cmp);
    let mut ends: Vec<f64> = Vec::with_capacity(2 * levels.len());
    for level in levels {
        let margin = DEVIATIONS * (count * level * (1.0 - level)).sqrt() + MARGIN_MIN;
        let (low, high) = (level * count - margin, level * count + margin);
        let first = if low < 0.0 { f64::NEG_INFINITY } else { order::value(sample[low as usize]) };
        // No end above it: all values that are greater belong to the bracket, but for infinity, whose rank is then not found.
        let end = sample.get(high as usize).map_or(f64::INFINITY, |key| order::value(*key).next_up());
        match ends.last_mut() {
            Some(last) if first <= *last => *last = last.max(end),
            _ => ends.extend([first, end]),
        }
    }
    ends
}
