//! What a forest asks of a row, gathered into columns that need no further rules.
//!
//! Owns the reduction of every split to one comparison. A column is a feature together with what a missing value does there;
//! in it a missing value is already one that takes the right branch, so splits compare and know of no NaN. Questions that
//! are no comparison (sets, equality) are columns of their own, answered once a row. Columns come in two forms: as values,
//! for walks; and as ranks among the feature's thresholds in one byte, for comparisons of many rows at once. A rank is exact:
//! `x < t` for the j-th threshold in ascending order just when at most j thresholds are ≤ x.
//!
//! Bounded by: [`COLUMNS_MAX`]; thresholds are as many as splits. Cannot fail; what does not fit is left to walks.

use std::collections::HashMap;

use super::TILE_ROWS;
use crate::forest::{Forest, Missing, Split, Test, Tree};
use crate::tile::{Tile, Value};

/// Columns that one layout may have, each [`TILE_ROWS`] values in a tile.
const COLUMNS_MAX: usize = 8_192;
/// Thresholds of one column of ranks; 255 is for missing values.
const RANKS_MAX: usize = 254;
/// Lengths that lists of thresholds are padded to.
const PLACES: [usize; 5] = [16, 64, 256, 1024, 4096];
/// The rank of what goes to `no` wherever it stands.
const ALWAYS_NO: u8 = u8::MAX;

/// A number that thresholds can be made of.
pub(crate) trait Threshold: Value {
    /// The least number that is at least `t`: `x < t` just when `x < least(t)`.
    fn least_from(t: f64) -> Self;
    /// The least number that is greater than `t`; none when there is none.
    fn least_above(t: f64) -> Option<Self>;
    fn to_f64(self) -> f64;
    const NEG_INFINITY: Self;
}

macro_rules! threshold {
    ($native:ty) => {
        impl Threshold for $native {
            fn least_from(t: f64) -> $native {
                let near = t as $native;
                if f64::from(near) < t { near.next_up() } else { near }
            }

            fn least_above(t: f64) -> Option<$native> {
                let near = t as $native;
                let above = if f64::from(near) <= t { near.next_up() } else { near };
                (f64::from(above) > t).then_some(above)
            }

            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            const NEG_INFINITY: $native = <$native>::NEG_INFINITY;
        }
    };
}
threshold!(f32);
threshold!(f64);

/// A question that is no comparison.
#[derive(Clone, Debug)]
struct Question {
    split: Split,
    /// The set or list that the test names, alone.
    tree: Tree,
}

/// Where a column's values come from.
#[derive(Clone, Debug)]
enum Source {
    Feature {
        feature: u32,
        missing: Missing,
        missing_is_yes: bool,
    },
    /// 0 for yes, 1 for no.
    Question(Box<Question>),
    /// A value that is below everything.
    Lowest,
}

/// All columns of a forest.
#[derive(Clone, Debug)]
pub(super) struct Columns<T> {
    sources: Vec<Source>,
    known: HashMap<(u32, u8), u32>,
    /// By feature, ascending and different; those of questions are empty.
    thresholds: Vec<Vec<T>>,
    /// The same, padded with NaN to one of [`PLACES`], which is greater than their number; empty beyond.
    places: Vec<Vec<T>>,
    /// Columns of ranks: which column of values, which of its thresholds first.
    ranks: Vec<(u32, u32)>,
    known_ranks: HashMap<(u32, u32), u32>,
}

/// A split as a comparison: to `no` when not `value < threshold`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comparison<T> {
    pub column: u32,
    pub threshold: T,
}

impl<T: Threshold> Columns<T> {
    /// The columns of all splits; none when there are too many, or a threshold is below everything.
    pub fn new(forest: &Forest) -> Option<Columns<T>> {
        let mut thresholds: Vec<Vec<T>> = vec![Vec::new(); forest.features as usize];
        for split in forest.trees.iter().flat_map(splits) {
            if let Some(threshold) = comparison(split) {
                if threshold == T::NEG_INFINITY {
                    return None;
                }
                thresholds[split.feature as usize].push(threshold);
            }
        }
        for list in &mut thresholds {
            list.sort_by(|a, b| a.partial_cmp(b).expect("thresholds are no NaN"));
            list.dedup();
        }
        let pad = |list: &Vec<T>| {
            let mut places = list.clone();
            let len = PLACES.into_iter().find(|len| *len > list.len() && !list.is_empty()).unwrap_or(0);
            places.resize(len, T::NAN);
            places
        };
        Some(Columns {
            sources: vec![Source::Lowest],
            known: HashMap::new(),
            places: thresholds.iter().map(pad).collect(),
            thresholds,
            ranks: Vec::new(),
            known_ranks: HashMap::new(),
        })
    }

    /// The comparison that a split is; none when there is no room for its column.
    pub fn compare(&mut self, tree: &Tree, split: &Split) -> Option<Comparison<T>> {
        if self.sources.len() >= COLUMNS_MAX {
            return None;
        }
        let next = self.sources.len() as u32;
        let Some(threshold) = comparison(split) else {
            let mut own = Tree::default();
            let test = match split.test {
                Test::Member(set) => {
                    own.sets.push(tree.sets[set as usize].clone());
                    Test::Member(0)
                }
                Test::MemberFromZero(set) => {
                    own.sets.push(tree.sets[set as usize].clone());
                    Test::MemberFromZero(0)
                }
                Test::OneOf(list) => {
                    own.lists.push(tree.lists[list as usize].clone());
                    Test::OneOf(0)
                }
                other => other,
            };
            let question = Question { split: Split { test, ..*split }, tree: own };
            self.sources.push(Source::Question(Box::new(question)));
            return Some(Comparison { column: next, threshold: T::of(0.5) });
        };
        let missing_is_yes = split.missing_is_yes && split.missing != Missing::NanIsZero;
        let kind = split.missing as u8 * 2 + u8::from(missing_is_yes);
        let column = *self.known.entry((split.feature, kind)).or_insert(next);
        if column == next {
            self.sources.push(Source::Feature { feature: split.feature, missing: split.missing, missing_is_yes });
        }
        Some(Comparison { column, threshold })
    }

    /// The same among ranks: a column of ranks and the rank above which a value goes to `no`.
    pub fn rank(&mut self, comparison: Comparison<T>) -> (u32, u8) {
        let place = match &self.sources[comparison.column as usize] {
            Source::Feature { feature, .. } => {
                self.thresholds[*feature as usize].partition_point(|threshold| *threshold < comparison.threshold)
            }
            Source::Question(_) | Source::Lowest => 0,
        };
        let first = (place / RANKS_MAX * RANKS_MAX) as u32;
        let next = self.ranks.len() as u32;
        let column = *self.known_ranks.entry((comparison.column, first)).or_insert(next);
        if column == next {
            self.ranks.push((comparison.column, first));
        }
        (column, (place - first as usize) as u8)
    }

    /// Fill columns of values, `tile.stride` places each.
    pub fn fill_values(&self, tile: &Tile<T>, out: &mut Vec<T>) {
        let (stride, rows) = (tile.stride, tile.rows);
        out.resize(self.sources.len() * stride, T::default());
        for (source, out) in self.sources.iter().zip(out.chunks_exact_mut(stride)) {
            let out = &mut out[..rows];
            match source {
                Source::Lowest => out.fill(T::NEG_INFINITY),
                Source::Question(question) => {
                    let values = tile.run(question.split.feature as usize).iter();
                    let answer = |value: &T| question.answer(value.to_f64());
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = T::of(f64::from(answer(value))));
                }
                Source::Feature { feature, missing, missing_is_yes } => {
                    // NaN is not below anything, so it goes to `no`.
                    let lost = if *missing_is_yes { T::NEG_INFINITY } else { T::NAN };
                    for (out, value) in out.iter_mut().zip(tile.run(*feature as usize)) {
                        *out = missing.read(value.to_f64()).map_or(lost, T::of);
                    }
                }
            }
        }
    }

    /// Fill columns of ranks, [`TILE_ROWS`] places each.
    #[inline(always)]
    pub fn fill_ranks(&self, tile: &Tile<T>, out: &mut Vec<u8>) {
        out.resize(self.ranks.len() * TILE_ROWS, 0);
        let (mut counts, mut ranked) = ([0_u32; TILE_ROWS], None);
        for ((column, first), out) in self.ranks.iter().zip(out.as_chunks_mut::<TILE_ROWS>().0) {
            match &self.sources[*column as usize] {
                Source::Lowest => out.fill(0),
                Source::Question(question) => {
                    let values = tile.run(question.split.feature as usize).iter();
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = question.answer(value.to_f64()));
                }
                Source::Feature { feature, missing, missing_is_yes } => {
                    let values: &[T; TILE_ROWS] =
                        tile.values[*feature as usize * tile.stride..].first_chunk().expect("tiles of ranks are whole");
                    let thresholds = &self.thresholds[*feature as usize];
                    if ranked != Some(*feature) {
                        count_below(thresholds, &self.places[*feature as usize], values, &mut counts);
                        ranked = Some(*feature);
                    }
                    place_ranks(&counts, *first, out);
                    let lost = if *missing_is_yes { 0 } else { ALWAYS_NO };
                    match missing {
                        Missing::Nan => {
                            out.iter_mut()
                                .zip(values)
                                .for_each(|(out, value)| *out = if value.is_lost() { lost } else { *out });
                        }
                        Missing::NanOrZero => {
                            let lost_or =
                                |value: &T, rank: u8| if missing.read(value.to_f64()).is_none() { lost } else { rank };
                            out.iter_mut().zip(values).for_each(|(out, value)| *out = lost_or(value, *out));
                        }
                        Missing::NanIsZero => {
                            let zero = thresholds.partition_point(|threshold| *threshold <= T::of(0.0));
                            let zero = zero.saturating_sub(*first as usize).min(usize::from(ALWAYS_NO)) as u8;
                            out.iter_mut()
                                .zip(values)
                                .for_each(|(out, value)| *out = if value.is_lost() { zero } else { *out });
                        }
                    }
                }
            }
        }
    }

    /// Columns of ranks in the order of their features, so that each is counted once; returns where each went.
    pub fn sort_ranks(&mut self) -> Vec<u32> {
        let feature = |column: u32| match &self.sources[column as usize] {
            Source::Feature { feature, .. } => *feature,
            Source::Question(_) | Source::Lowest => u32::MAX,
        };
        let mut order: Vec<u32> = (0..self.ranks.len() as u32).collect();
        order.sort_by_key(|at| feature(self.ranks[*at as usize].0));
        let mut moved = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(from, to)| moved[*from as usize] = to);
        self.ranks = order.iter().map(|at| self.ranks[*at as usize]).collect();
        self.known_ranks.clear();
        moved
    }
}

impl Question {
    /// 0 for yes, 1 for no.
    fn answer(&self, value: f64) -> u8 {
        u8::from(!self.tree.goes_yes(&self.split, value))
    }
}

fn splits(tree: &Tree) -> impl Iterator<Item = &Split> {
    tree.nodes.iter().filter_map(|node| match node {
        crate::forest::Node::Split(split) => Some(split),
        crate::forest::Node::Leaf { .. } => None,
    })
}

/// The threshold of a split as `x < t`; none when it is no comparison.
fn comparison<T: Threshold>(split: &Split) -> Option<T> {
    match split.test {
        Test::Less(threshold) => Some(T::least_from(threshold)),
        Test::AtMost(threshold) => T::least_above(threshold),
        Test::Equal(_) | Test::Member(_) | Test::MemberFromZero(_) | Test::OneOf(_) => None,
    }
}

/// How many thresholds are at most each value.
#[inline(always)]
fn count_below<T: Threshold>(thresholds: &[T], places: &[T], values: &[T; TILE_ROWS], counts: &mut [u32; TILE_ROWS]) {
    let halvings = usize::BITS - thresholds.len().leading_zeros();
    match places.len() {
        16 => halve::<T, 16>(places, halvings, values, counts),
        64 => halve::<T, 64>(places, halvings, values, counts),
        256 => halve::<T, 256>(places, halvings, values, counts),
        1024 => halve::<T, 1024>(places, halvings, values, counts),
        4096 => halve::<T, 4096>(places, halvings, values, counts),
        _ => {
            let count = |value: &T| thresholds.partition_point(|threshold| threshold <= value) as u32;
            counts.iter_mut().zip(values).for_each(|(out, value)| *out = count(value));
        }
    }
}

/// As many halvings for every value, so that all take the same steps; the compiler makes gathers of it where `LEN` is known.
#[inline(always)]
fn halve<T: Threshold, const LEN: usize>(
    places: &[T],
    halvings: u32,
    values: &[T; TILE_ROWS],
    counts: &mut [u32; TILE_ROWS],
) {
    let places: &[T; LEN] = places.first_chunk().expect("places are padded");
    counts.fill(0);
    for step in (0..halvings).rev() {
        let half = 1_u32 << step;
        for (count, value) in counts.iter_mut().zip(values) {
            // The mask holds the place inside; checked sums would be branches, and no gather.
            let place = count.wrapping_add(half).wrapping_sub(1) as usize & (LEN - 1);
            *count = count.wrapping_add(if places[place] <= *value { half } else { 0 });
        }
    }
}

#[inline(always)]
fn place_ranks(counts: &[u32; TILE_ROWS], first: u32, out: &mut [u8; TILE_ROWS]) {
    out.iter_mut()
        .zip(counts)
        .for_each(|(out, count)| *out = count.saturating_sub(first).min(u32::from(ALWAYS_NO)) as u8);
}
