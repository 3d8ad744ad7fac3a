//! Explanations against background rows: features that are left out have the values that they have there.
//!
//! The definition is that of Lundberg and others, "From local explanations to global understanding with explainable AI for
//! trees" (2020), `interventional` of the `shap` package, computed exactly over all background rows that were given.
//!
//! For one leaf, one row and one background row only these matter: the a features of the path that the row alone holds and
//! the b features that the background row alone holds, together all. Each of the first gets (a-1)! b! / (a+b)! of the
//! leaf's value and each of the others loses a! (b-1)! / (a+b)!. Background rows that hold the same features of a path are
//! the same for its leaf, so they are counted once, when the explainer is made; what the row's case then gets from all of
//! them is one sum over subsets by size, and stands in the tables of `clumps`. Explaining a row against a million
//! background rows costs as much as against one.
//!
//! Separate from `path_dependent`, which needs no rows but training weights. Bounded by [`BACKGROUND_ROWS_MAX`]. Trees too
//! deep for tables are walked once for each row and background row, by `pairs`.

use mainstay_base::{Error, Result};

use super::clumps::Effects;
use super::decisions::{TILE_ROWS, Tile};
use super::pairs::{against_one, share};
use super::shape::{Path, Shape};
use crate::forest::{Forest, Tree};
use crate::tile::Rows;

/// Background rows that one explainer may be made of.
pub const BACKGROUND_ROWS_MAX: usize = 1 << 24;

/// Background rows, checked and with values rounded as the forest rounds them.
#[derive(Clone, Debug)]
pub(super) struct Background {
    values: Vec<f64>,
    features: usize,
    pub rows: usize,
}

impl Background {
    /// `invalid` when there is no row, or too many, or they are not the model's.
    pub fn new(forest: &Forest, rows: &Rows<'_>) -> Result<Background> {
        let count = rows.count()?;
        if rows.features() != forest.features as usize || count == 0 {
            return Err(Error::invalid(format!(
                "a background of {count} rows of {} features for a model of {}; give one row or more of the model's",
                rows.features(),
                forest.features
            )));
        }
        if count > BACKGROUND_ROWS_MAX {
            return Err(Error::invalid(format!(
                "a background of {count} rows; the most is {BACKGROUND_ROWS_MAX}: a sample of a few thousand says the same"
            )));
        }
        let (mut tile, mut row) = (Tile::default(), Vec::new());
        let mut values = Vec::with_capacity(count * rows.features());
        for from in (0..count).step_by(TILE_ROWS) {
            tile.fill(rows, from, TILE_ROWS.min(count - from), forest.compares_f32);
            for at in 0..tile.rows {
                tile.row(at, &mut row);
                values.extend_from_slice(&row);
            }
        }
        Ok(Background { values, features: rows.features(), rows: count })
    }

    pub fn row(&self, at: usize) -> &[f64] {
        &self.values[at * self.features..][..self.features]
    }

    /// Add what a tree says of `row`, walked against every background row. `sums` lies by output, feature.
    pub fn explain(&self, tree: &Tree, row: &[f64], scale: f64, sums: &mut [f64]) {
        let scale = scale / self.rows as f64;
        (0..self.rows).for_each(|at| against_one(tree, row, self.row(at), scale, sums));
    }

    /// The mean over the background rows of what a tree gives an output.
    pub fn mean(&self, forest: &Forest, shape: &Shape<'_>, output: u32) -> f64 {
        let value = |at| shape.leaf_value(forest.leaf_of(shape.tree, self.row(at)) as usize, output);
        (0..self.rows).map(value).sum::<f64>() / self.rows as f64
    }

    /// For each leaf in the order of [`Shape::for_each_leaf`], how many background rows hold which features of its path.
    /// Only for trees whose paths ask few features.
    pub fn count(&self, shape: &Shape<'_>) -> ByCounts {
        let mut paths = Vec::new();
        let mut first = 0;
        shape.for_each_leaf(0, &mut Path::default(), &mut |_, path| {
            paths.push((path.clone(), first));
            first += 1 << path.asked.len();
        });
        let mut counts = vec![0_u32; first];
        let (mut tile, mut cases) = (Tile::default(), Vec::new());
        for from in (0..self.rows).step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(self.rows - from);
            tile.fill(&Rows::F64 { values: &self.values, features: self.features }, from, rows, false);
            tile.decide(&shape.splits, shape.tree);
            for (path, first) in &paths {
                held_features(path, &tile, &mut cases);
                cases[..rows].iter().for_each(|case| counts[first + *case as usize] += 1);
            }
        }
        let leaves = paths.iter().map(|(_, first)| *first).collect();
        ByCounts { rows: self.rows as f64, counts, leaves, next: 0, sums: Vec::new() }
    }
}

/// For each row of a tile the features of a path that it holds, as bits.
fn held_features(path: &Path, tile: &Tile, cases: &mut Vec<u8>) {
    cases.clear();
    cases.resize(tile.stride, 255);
    for (k, asked) in path.asked.iter().enumerate() {
        for literal in &asked.literals {
            let flip = if literal.yes { 0 } else { 255 };
            for (case, answer) in cases.iter_mut().zip(tile.answers(literal.slot)) {
                *case &= (answer ^ flip) | !(1 << k);
            }
        }
    }
    let all = ((1_usize << path.asked.len()) - 1) as u8;
    cases.iter_mut().for_each(|case| *case &= all);
}

/// The cases of a leaf, from counted background rows.
#[derive(Debug)]
pub(super) struct ByCounts {
    rows: f64,
    counts: Vec<u32>,
    /// Where each leaf's counts start.
    leaves: Vec<usize>,
    next: usize,
    sums: Vec<f64>,
}

impl ByCounts {
    /// The mean over the background rows of what the tree gives an output.
    pub fn expected(&self, shape: &Shape<'_>, output: u32) -> f64 {
        let (mut sum, mut at) = (0.0, 0);
        shape.for_each_leaf(0, &mut Path::default(), &mut |leaf, path| {
            let all = self.counts[self.leaves[at] + (1 << path.asked.len()) - 1];
            sum += f64::from(all) * shape.leaf_value(leaf, output);
            at += 1;
        });
        sum / self.rows
    }
}

impl Effects for ByCounts {
    fn write(&mut self, path: &Path, effects: &mut Vec<f64>) {
        let features = path.asked.len();
        let cases = 1_usize << features;
        let counts = &self.counts[self.leaves[self.next]..][..cases];
        self.next += 1;
        // sums[a][case]: background rows that hold all but a features of the path, those a being held by the row.
        self.sums.clear();
        self.sums.resize((features + 1) * cases, 0.0);
        for alone in 0..cases {
            self.sums[alone.count_ones() as usize * cases + alone] = f64::from(counts[cases - 1 - alone]);
        }
        for sums in self.sums.chunks_exact_mut(cases) {
            for k in 0..features {
                for case in (0..cases).filter(|case| case >> k & 1 == 1) {
                    sums[case] += sums[case ^ 1 << k];
                }
            }
        }
        effects.clear();
        effects.resize(features * cases, 0.0);
        for (case, row) in effects.chunks_exact_mut(features.max(1)).enumerate() {
            let held = case.count_ones() as usize;
            let others = features - held;
            for (k, effect) in row.iter_mut().enumerate() {
                let holds = case >> k & 1 == 1;
                for alone in usize::from(holds)..=held {
                    let of_size = &self.sums[alone * cases..][..cases];
                    // Counts are whole numbers, so this difference is exact.
                    *effect += match holds {
                        true => (of_size[case] - of_size[case ^ 1 << k]) * share(alone - 1, others),
                        false => -of_size[case] * share(others - 1, alone),
                    };
                }
                *effect /= self.rows;
            }
        }
    }
}
