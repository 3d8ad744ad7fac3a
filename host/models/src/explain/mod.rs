//! Explanations: how much each feature of a row moved a forest's raw output away from its expected one.
//!
//! Owns exact Shapley values of tree ensembles, in two kinds: along the paths, weighted by training weights
//! ([`Explainer::new`]), and against background rows ([`Explainer::against`]). Both are additive: a row's values and the
//! expected value sum to the raw margin, before any link function. Separate from prediction because it needs other
//! preparations.
//!
//! How it is fast, and why so. With 300 trees of depth 5 the published recursion does some 10,000 leaves times d² steps a row,
//! each behind a branch. Two ways were measured that do less. Quadrature over the tree (`path_dependent`) needs no
//! preparation and about 60 multiplications a split. Tables of finished cases (`clumps`) cost a preparation and memory, and
//! then a row costs one lookup and one addition for each feature of each small subtree; they took a tenth of quadrature's
//! time, and serve interventional explanations at the same price whatever the size of the background. So: tables while they
//! fit [`TABLE_BYTES_MAX`], in the order of the trees; for trees that are deeper or come too late, quadrature along the paths,
//! and the recursion against backgrounds.
//!
//! Rows are explained in tiles, tiles by the threads of the caller's rayon pool. All sums of a row run in the order of the
//! trees, whatever tile it is in: the same input gives the same bits at any number of threads.
//!
//! Bounded by: [`TABLE_BYTES_MAX`] for tables, [`DEPTH_MAX`] for trees, [`BACKGROUND_ROWS_MAX`] for backgrounds; while
//! explaining, one tile's values and sums a thread. On failure: `invalid` that says which tree or argument is wrong, and
//! where training weights are missing, that background rows would do.

mod clumps;
mod decisions;
mod interventional;
mod pairs;
mod path_dependent;
#[cfg(test)]
mod reference;
mod shape;
#[cfg(test)]
mod tests;

use mainstay_base::{Error, Result};
use rayon::prelude::*;

use crate::forest::{Forest, Join, Split, Tree};
use crate::tile::Rows;
use clumps::{Clumps, Cut, Tables};
use decisions::{TILE_ROWS, Tile};
use interventional::Background;
use path_dependent::{ByShares, Memory, Walk};
use shape::Shape;

pub use clumps::{CASE_BITS_MAX, ClumpView, ConditionView, TABLE_BYTES_MAX, TablesView};
pub use interventional::BACKGROUND_ROWS_MAX;
pub use shape::DEPTH_MAX;

/// Tiles of so many rows are explained row by row. Measured with 300 trees: alone a row takes half the time of a tile of one,
/// and a row in a tile of four takes two thirds of one alone.
const ROWS_ALONE_MAX: usize = 2;

/// A forest prepared for explaining. See the module.
#[derive(Clone, Debug)]
pub struct Explainer {
    forest: Forest,
    /// What every leaf is multiplied by: 1, or 1 over the number of trees that are averaged.
    scale: f64,
    expected: Vec<f64>,
    /// One for each tree of the forest.
    plans: Vec<Plan>,
    tables: Tables,
    background: Option<Background>,
}

/// How one tree is explained.
#[derive(Clone, Debug)]
struct Plan {
    splits: Vec<Split>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Tables(Clumps),
    Walk(Walk),
    Pairs,
}

/// What one thread needs, kept from tile to tile.
#[derive(Default)]
struct Scratch {
    tile: Tile,
    /// By output, feature, row.
    sums: Vec<f64>,
    cases: Vec<u8>,
    memory: Memory,
}

impl Explainer {
    /// Explain along the paths: at a split on a feature that is left out, both branches count by their training weights
    /// (`tree_path_dependent` of the `shap` package, `pred_contribs` of XGBoost). `invalid` when the model carries no
    /// training weights, has trees that are too deep or leaves that are not constant, or does not add up or average them.
    pub fn new(forest: &Forest) -> Result<Explainer> {
        Explainer::prepare(forest, None, TABLE_BYTES_MAX)
    }

    /// Explain against background rows, one or more: features that are left out have the values that they have there
    /// (`interventional` of the `shap` package, over all of these rows). Needs no training weights; `invalid` otherwise
    /// as [`Explainer::new`].
    pub fn against(forest: &Forest, background: &Rows<'_>) -> Result<Explainer> {
        Explainer::prepare(forest, Some(background), TABLE_BYTES_MAX)
    }

    /// Either, with another bound of tables, so that tests reach what stands beside them.
    fn prepare(forest: &Forest, background: Option<&Rows<'_>>, table_bytes: usize) -> Result<Explainer> {
        let forest = Forest::new(forest.clone())?;
        let mut explainer = Explainer {
            scale: scale(&forest)?,
            expected: forest.base.clone(),
            plans: Vec::with_capacity(forest.trees.len()),
            tables: Tables::new(table_bytes),
            background: background.map(|rows| Background::new(&forest, rows)).transpose()?,
            forest,
        };
        for tree in 0..explainer.forest.trees.len() {
            explainer.add_tree(tree).map_err(|error| error.context(format_args!("tree {tree}")))?;
        }
        explainer.tables.finish();
        Ok(explainer)
    }

    /// Choose how a tree is explained, prepare that, and add what is expected of it.
    fn add_tree(&mut self, number: usize) -> Result<()> {
        let shape = Shape::new(&self.forest.trees[number], self.background.is_none())?;
        let cut = Cut::of(&shape).filter(|cut| self.tables.have_room(cut));
        let counts = self.background.as_ref().filter(|_| cut.is_some()).map(|background| background.count(&shape));
        for output in &shape.outputs {
            let expected = match (&self.background, &counts) {
                (None, _) => path_dependent::expected(&shape, *output),
                (Some(_), Some(counts)) => counts.expected(&shape, *output),
                (Some(background), None) => background.mean(&self.forest, &shape, *output),
            };
            self.expected[*output as usize] += expected * self.scale;
        }
        let way = match (cut, counts) {
            (Some(cut), Some(mut counts)) => Way::Tables(self.tables.add(&shape, &cut, &mut counts, self.scale)),
            (Some(cut), None) => Way::Tables(self.tables.add(&shape, &cut, &mut ByShares::default(), self.scale)),
            (None, _) if self.background.is_some() => Way::Pairs,
            (None, _) => Way::Walk(Walk::new(&shape)),
        };
        self.plans.push(Plan { splits: shape.splits, way });
        Ok(())
    }

    /// The raw margin that is expected when nothing is known of a row, one for each output.
    pub fn expected_values(&self) -> &[f64] {
        &self.expected
    }

    /// Bytes that prepared tables take.
    pub fn table_bytes(&self) -> usize {
        self.tables.bytes()
    }

    /// How many trees are explained by tables.
    pub fn tabled_trees(&self) -> usize {
        self.plans.iter().filter(|plan| matches!(plan.way, Way::Tables(_))).count()
    }

    /// The forest that is explained.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// All tables, where every tree has one: whoever looks them up and adds in their order explains as
    /// [`Explainer::explain`] does, to the last bit.
    pub fn tables(&self) -> Option<TablesView<'_>> {
        if self.tabled_trees() < self.plans.len() {
            return None;
        }
        let mut clumps = Vec::new();
        for (tree, plan) in self.plans.iter().enumerate() {
            if let Way::Tables(tabled) = &plan.way {
                tabled.view(tree, &plan.splits, &mut clumps);
            }
        }
        Some(TablesView { entries: self.tables.entries(), clumps })
    }

    /// Write the explanation of each row into `out`: rows by outputs by features, in units of the raw margin. A missing
    /// value is NaN. `invalid` when the lengths do not fit. Runs on the rayon pool that it is called in.
    pub fn explain(&self, rows: &Rows<'_>, out: &mut [f64]) -> Result<()> {
        let (features, outputs) = (self.forest.features as usize, self.forest.outputs as usize);
        let (count, width) = (rows.count()?, features * outputs);
        if rows.features() != features || Some(out.len()) != count.checked_mul(width) {
            return Err(Error::invalid(format!(
                "{count} rows of {} features to explain and room for {} values; a model of {features} features and {outputs} \
                 outputs writes {width} values for each row",
                rows.features(),
                out.len()
            )));
        }
        out.par_chunks_mut((TILE_ROWS * width).max(1)).enumerate().for_each_init(
            Scratch::default,
            |scratch, (at, out)| {
                self.explain_tile(rows, at * TILE_ROWS, scratch, out);
            },
        );
        Ok(())
    }

    fn explain_tile(&self, rows: &Rows<'_>, from: usize, scratch: &mut Scratch, out: &mut [f64]) {
        let width = self.forest.outputs as usize * self.forest.features as usize;
        let Scratch { tile, sums, cases, memory } = scratch;
        tile.fill(rows, from, out.len() / width, self.forest.compares_f32);
        if tile.rows <= ROWS_ALONE_MAX && self.tabled_trees() == self.plans.len() {
            return self.explain_alone(tile, cases, out);
        }
        sums.clear();
        sums.resize(width * tile.stride, 0.0);
        for (tree, plan) in self.forest.trees.iter().zip(&self.plans) {
            match &plan.way {
                Way::Tables(clumps) => {
                    tile.decide(&plan.splits, tree);
                    clumps.explain(&self.tables, tile, cases, sums);
                }
                Way::Walk(walk) => {
                    tile.decide(&plan.splits, tree);
                    walk.explain(tree, self.scale, tile, memory, sums);
                }
                Way::Pairs => self.explain_by_pairs(tree, tile, sums),
            }
        }
        for (at, row) in out.chunks_exact_mut(width).enumerate() {
            row.iter_mut().zip(sums[at..].iter().step_by(tile.stride)).for_each(|(out, sum)| *out = *sum);
        }
    }

    /// Few rows, one after the other.
    fn explain_alone(&self, tile: &Tile, answers: &mut Vec<u8>, out: &mut [f64]) {
        let (features, mut row) = (tile.features(), Vec::new());
        for (at, out) in out.chunks_exact_mut(out.len() / tile.rows).enumerate() {
            tile.row(at, &mut row);
            out.fill(0.0);
            for (tree, plan) in self.forest.trees.iter().zip(&self.plans) {
                let Way::Tables(clumps) = &plan.way else { continue };
                answers.clear();
                let answer = |split: &Split| u8::from(tree.goes_yes(split, row[split.feature as usize])).wrapping_neg();
                answers.extend(plan.splits.iter().map(answer));
                clumps.explain_one(&self.tables, answers, features, out);
            }
        }
    }

    fn explain_by_pairs(&self, tree: &Tree, tile: &Tile, sums: &mut [f64]) {
        let Some(background) = &self.background else { return };
        let (mut row, mut own) = (Vec::new(), vec![0.0; sums.len() / tile.stride]);
        for at in 0..tile.rows {
            tile.row(at, &mut row);
            own.fill(0.0);
            background.explain(tree, &row, self.scale, &mut own);
            sums[at..].iter_mut().step_by(tile.stride).zip(&own).for_each(|(sum, own)| *sum += own);
        }
    }
}

/// What leaves are multiplied by. Only sums have explanations that add up.
fn scale(forest: &Forest) -> Result<f64> {
    match forest.join {
        Join::Sum => Ok(1.0),
        Join::Average => Ok(1.0 / forest.trees.len().max(1) as f64),
        Join::Min | Join::Max => Err(Error::invalid(
            "the model takes the smallest or greatest of its trees; only models that add or average them are explained",
        )),
    }
}
