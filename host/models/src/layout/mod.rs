//! How forests lie in memory so that predicting is fast.
//!
//! Owns the choice among layouts and the tiles they work on; each layout is a module. All give, bit for bit, what
//! [`Forest::raw_margin`] gives: a row's leaf does not depend on how it is found, and leaves are added in the order of the
//! trees in the format's own precision.
//!
//! What was measured, on 300 trees of depth 5 over 30 features (XGBoost, one thread of a busy Xeon with AVX-512, batches of
//! 4,096, nanoseconds a row; `examples/predict_rate`): walking nodes for eight rows in turn 3,400, as it waits for loads;
//! answering all 31 splits of a tree for 64 rows at once 310 with AVX-512, 700 with AVX2, 2,900 with what every x86-64 has.
//! It does six times the comparisons, but each is one instruction on 16 to 64 ranks of one byte, and nothing waits. So:
//! batches are turned into ranks once (see `columns`) and evaluated in blocks of 64 rows (see `wide`); single rows, and
//! forests with larger trees, are walked (see `walk`), eight walks in turn. Forests that need what neither can do (linear
//! leaves, the least or greatest of leaves) are left to the scalar reference.
//!
//! Bounded by: a few bytes a node; scratch for one tile of [`TILE_ROWS`] rows. Cannot fail but for rows of another width.

mod columns;
mod simd;
#[cfg(test)]
mod tests;
mod walk;
mod wide;

use mainstay_base::{Error, Result};

use crate::forest::{Forest, Join, Node, Tree};
use crate::tile::{Rows, Tile};
use columns::{Columns, Threshold};
use simd::{Addition, Machine, Plan, Sum, Work};
use walk::{LANES, Walk};
use wide::{Shape, Splits};

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 256;
/// Rows that are evaluated at once.
pub(crate) const BLOCK_ROWS: usize = 64;
/// Batches below this are walked: turning them into ranks would cost more than it saves.
const WIDE_ROWS_MIN: usize = 12;

/// Instruction sets that predictions use on this machine, the best last; `portable` is what needs none.
pub fn instruction_sets() -> Vec<&'static str> {
    Machine::all().into_iter().map(Machine::name).collect()
}

/// A forest ready to run.
#[derive(Debug)]
pub(crate) enum Layout {
    Narrow(Prepared<f32, f32>),
    /// Compares in `f32` but adds in `f64`, or the other way round, or both in `f64`.
    NarrowDouble(Prepared<f32, f64>),
    DoubleNarrow(Prepared<f64, f32>),
    Double(Prepared<f64, f64>),
    /// The scalar reference.
    Reference,
}

/// What one thread needs, kept from tile to tile.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    narrow: Space<f32>,
    double: Space<f64>,
}

#[derive(Debug, Default)]
struct Space<T> {
    tile: Tile<T>,
    values: Vec<T>,
    ranks: Vec<u8>,
}

/// Layouts of a forest that compares in `T` and adds in `S`.
#[derive(Debug)]
pub(crate) struct Prepared<T, S> {
    machine: Machine,
    columns: Columns<T>,
    walk: Walk<T>,
    /// By step of the walk: the place in each table of its tree; 0 for splits.
    leaf_numbers: Vec<u32>,
    /// For all trees, or none.
    splits: Splits,
    plans: Vec<Plan>,
    additions: Vec<Addition>,
    /// By tree: its additions, for walks.
    tree_additions: Vec<(u32, u32)>,
    tables: Vec<S>,
    base: Vec<S>,
}

impl Layout {
    /// Prepare a forest whose invariants hold.
    pub fn new(forest: &Forest) -> Layout {
        Layout::on(Machine::best(), forest)
    }

    fn on(machine: Machine, forest: &Forest) -> Layout {
        let prepared = match (forest.compares_f32, forest.adds_f32) {
            _ if !is_plain(forest) => None,
            (true, true) => Prepared::new(machine, forest).map(Layout::Narrow),
            (true, false) => Prepared::new(machine, forest).map(Layout::NarrowDouble),
            (false, true) => Prepared::new(machine, forest).map(Layout::DoubleNarrow),
            (false, false) => Prepared::new(machine, forest).map(Layout::Double),
        };
        prepared.unwrap_or(Layout::Reference)
    }

    /// Raw outputs of rows `from..from + count`, [`Forest::outputs`] places a row. Rows may be wider than the forest;
    /// `invalid` when they are narrower.
    pub fn raw(
        &self,
        forest: &Forest,
        rows: &Rows<'_>,
        from: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut [f64],
    ) -> Result<()> {
        check_width(forest, rows)?;
        match self {
            Layout::Narrow(prepared) => prepared.raw(forest, rows, from, count, &mut scratch.narrow, out),
            Layout::NarrowDouble(prepared) => prepared.raw(forest, rows, from, count, &mut scratch.narrow, out),
            Layout::DoubleNarrow(prepared) => prepared.raw(forest, rows, from, count, &mut scratch.double, out),
            Layout::Double(prepared) => prepared.raw(forest, rows, from, count, &mut scratch.double, out),
            Layout::Reference => {
                let outputs = forest.outputs as usize;
                for (row, out) in (from..from + count).zip(out.chunks_exact_mut(outputs)) {
                    scratch.double.tile.fill(rows, row, 1, 1);
                    forest.raw_margin(&scratch.double.tile.values, out);
                }
            }
        }
        Ok(())
    }

    /// The nodes that rows `from..from + count` end in, one for each tree.
    pub fn leaves(
        &self,
        forest: &Forest,
        rows: &Rows<'_>,
        from: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut [u32],
    ) -> Result<()> {
        check_width(forest, rows)?;
        match self {
            Layout::Narrow(prepared) => prepared.leaves(rows, from, count, &mut scratch.narrow, out),
            Layout::NarrowDouble(prepared) => prepared.leaves(rows, from, count, &mut scratch.narrow, out),
            Layout::DoubleNarrow(prepared) => prepared.leaves(rows, from, count, &mut scratch.double, out),
            Layout::Double(prepared) => prepared.leaves(rows, from, count, &mut scratch.double, out),
            Layout::Reference => {
                let trees = forest.trees.len().max(1);
                for (row, out) in (from..from + count).zip(out.chunks_exact_mut(trees)) {
                    scratch.double.tile.fill(rows, row, 1, 1);
                    let leaf = |tree| forest.leaf_of(tree, &scratch.double.tile.values);
                    out.iter_mut().zip(&forest.trees).for_each(|(out, tree)| *out = leaf(tree));
                }
            }
        }
        Ok(())
    }
}

fn check_width(forest: &Forest, rows: &Rows<'_>) -> Result<()> {
    match rows.features() < forest.features as usize {
        true => {
            Err(Error::invalid(format!("rows have {} values; the trees ask for {}", rows.features(), forest.features)))
        }
        false => Ok(()),
    }
}

/// Whether leaves are constants that are added up, each at most once to an output.
fn is_plain(forest: &Forest) -> bool {
    let is_sum = matches!(forest.join, Join::Sum | Join::Average);
    is_sum && forest.has_constant_leaves() && forest.trees.iter().all(adds_once)
}

fn adds_once(tree: &Tree) -> bool {
    (0..tree.nodes.len() as u32).all(|node| {
        let additions = tree.additions(node);
        // Leaves add to one output or, in order, to all.
        additions.windows(2).all(|pair| pair[0].output < pair[1].output)
    })
}

impl<T: Threshold, S: Sum> Prepared<T, S> {
    fn new(machine: Machine, forest: &Forest) -> Option<Prepared<T, S>> {
        let mut columns = Columns::new(forest)?;
        let mut walk = Walk::new();
        forest.trees.iter().try_for_each(|tree| walk.push(tree, &mut columns))?;
        let base = forest.base.iter().map(|base| S::of(if forest.join == Join::Sum { *base } else { 0.0 })).collect();
        let mut prepared = Prepared {
            machine,
            columns,
            leaf_numbers: vec![0; walk.nodes.len()],
            walk,
            splits: Splits::default(),
            plans: Vec::new(),
            additions: Vec::new(),
            tree_additions: Vec::new(),
            tables: Vec::new(),
            base,
        };
        let nodes_max = 2 * machine.leaves_max() - 1;
        let is_wide = forest.trees.iter().all(|tree| tree.nodes.len() <= nodes_max);
        for (number, tree) in forest.trees.iter().enumerate() {
            match is_wide {
                true => prepared.push_wide(number, tree),
                false => prepared.push_walked(number, tree),
            }
        }
        let moved = prepared.columns.sort_ranks();
        let columns = &mut prepared.splits.columns;
        columns.iter_mut().for_each(|column| *column = moved[*column as usize] * TILE_ROWS as u32);
        Some(prepared)
    }

    /// Tables of a tree whose leaves are numbered by node.
    fn push_tables(&mut self, tree: &Tree, number_of: &[Vec<u8>], len: usize) {
        let first = self.additions.len() as u32;
        let mut outputs: Vec<u32> = tree.leaf_outputs.iter().map(|addition| addition.output).collect();
        outputs.sort_unstable();
        outputs.dedup();
        for output in outputs {
            let table = self.tables.len();
            // Adding minus zero changes nothing, not even the sign of a zero.
            self.tables.resize(table + len, S::of(-0.0));
            for (node, numbers) in number_of.iter().enumerate() {
                let value = tree.additions(node as u32).iter().find(|addition| addition.output == output);
                let Some(value) = value else { continue };
                numbers.iter().for_each(|number| self.tables[table + usize::from(*number)] = S::of(value.value));
            }
            self.additions.push(Addition { output, table: table as u32, len: len as u32 });
        }
        self.tree_additions.push((first, self.additions.len() as u32 - first));
    }

    /// A tree that is only walked: leaves are numbered by their step.
    fn push_walked(&mut self, number: usize, tree: &Tree) {
        let root = self.walk.roots[number].0 as usize;
        let first = self.additions.len() as u32;
        let mut outputs: Vec<u32> = tree.leaf_outputs.iter().map(|addition| addition.output).collect();
        outputs.sort_unstable();
        outputs.dedup();
        let steps = &self.walk.nodes[root..root + tree.nodes.len()];
        let leaves: Vec<(usize, u32)> =
            steps.iter().copied().enumerate().filter(|(_, node)| is_leaf(tree, *node)).collect();
        for (leaf, (step, _)) in leaves.iter().enumerate() {
            self.leaf_numbers[root + step] = leaf as u32;
        }
        for output in outputs {
            let table = self.tables.len();
            let value = |node: u32| tree.additions(node).iter().find(|addition| addition.output == output);
            self.tables
                .extend(leaves.iter().map(|(_, node)| S::of(value(*node).map_or(-0.0, |addition| addition.value))));
            self.additions.push(Addition { output, table: table as u32, len: leaves.len() as u32 });
        }
        self.tree_additions.push((first, self.additions.len() as u32 - first));
    }

    fn push_wide(&mut self, number: usize, tree: &Tree) {
        let depth = tree.depth();
        let root = self.walk.roots[number].0 as usize;
        let mut step_of = vec![0; tree.nodes.len()];
        for (step, node) in self.walk.nodes[root..].iter().enumerate().take(tree.nodes.len()) {
            step_of[*node as usize] = root + step;
        }
        // By node: the numbers that stand for it.
        let mut number_of: Vec<Vec<u8>> = vec![Vec::new(); tree.nodes.len()];
        let (shape, len) = match depth <= wide::DEPTH_MAX {
            true => (self.push_complete(tree, depth, &step_of, &mut number_of), 1 << depth),
            false => (self.push_chain(tree, &step_of, &mut number_of), wide::LEAVES_MAX),
        };
        // Tables of 32 are what the widest path permutes.
        self.push_tables(tree, &number_of, if len < 32 { 32 } else { len });
        for (step, numbers) in step_of.into_iter().zip(&number_of) {
            self.leaf_numbers[step] = numbers.first().map_or(0, |number| u32::from(*number));
        }
        let additions = self.tree_additions[number];
        self.plans.push(Plan { shape, additions });
    }

    fn push_split(&mut self, tree: &Tree, node: u32, step_of: &[usize]) {
        let (column, rank) = match is_leaf(tree, node) {
            false => self.columns.rank(self.walk.comparison(step_of[node as usize])),
            // Above this rank is nothing; the tree's root has made a column.
            true => (0, u8::MAX),
        };
        self.splits.columns.push(column);
        self.splits.ranks.push(u32::from_ne_bytes([rank; 4]));
    }

    /// Pad a tree; what stands above the lowest level as a leaf has several numbers.
    fn push_complete(&mut self, tree: &Tree, depth: usize, step_of: &[usize], number_of: &mut [Vec<u8>]) -> Shape {
        let first = self.splits.columns.len() as u32;
        let mut level = vec![0_u32];
        for _ in 0..depth {
            let mut next = Vec::with_capacity(level.len() * 2);
            for node in level {
                self.push_split(tree, node, step_of);
                next.extend(match &tree.nodes[node as usize] {
                    Node::Split(split) => [split.yes, split.no],
                    Node::Leaf { .. } => [node, node],
                });
            }
            level = next;
        }
        level.iter().zip(0..).for_each(|(node, number)| number_of[*node as usize].push(number));
        self.splits.leaves.resize(self.splits.columns.len(), [0; 2]);
        Shape::Complete { depth: depth as u8, first }
    }

    /// Splits in pre-order, leaves numbered from `yes` to `no`.
    fn push_chain(&mut self, tree: &Tree, step_of: &[usize], number_of: &mut [Vec<u8>]) -> Shape {
        let first = self.splits.columns.len();
        let mut leaves_under = vec![1_u32; tree.nodes.len()];
        for (at, node) in tree.nodes.iter().enumerate().rev() {
            if let Node::Split(split) = node {
                leaves_under[at] = leaves_under[split.yes as usize] + leaves_under[split.no as usize];
            }
        }
        let mut open = vec![(0_u32, 0_u32)];
        while let Some((node, from)) = open.pop() {
            let Node::Split(split) = &tree.nodes[node as usize] else {
                number_of[node as usize].push(from as u8);
                continue;
            };
            let to = from + leaves_under[split.yes as usize];
            self.push_split(tree, node, step_of);
            self.splits.leaves.push([from, to].map(|leaf| u32::from_ne_bytes([leaf as u8; 4])));
            open.extend([(split.no, to), (split.yes, from)]);
        }
        Shape::Chain { first: first as u32, count: (self.splits.columns.len() - first) as u32 }
    }

    fn raw(&self, forest: &Forest, rows: &Rows<'_>, from: usize, count: usize, space: &mut Space<T>, out: &mut [f64]) {
        let outputs = self.base.len();
        let is_wide = !self.plans.is_empty() && count >= WIDE_ROWS_MIN;
        let mut sums = vec![S::of(0.0); outputs * if is_wide { TILE_ROWS } else { count.min(TILE_ROWS) }];
        for (first, out) in (from..from + count).step_by(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS * outputs)) {
            let rows_here = out.len() / outputs;
            let stride = sums.len() / outputs;
            sums.chunks_exact_mut(stride).zip(&self.base).for_each(|(sums, base)| sums.fill(*base));
            match is_wide {
                true => self.add_wide(rows, first, rows_here, space, &mut sums),
                false => self.add_walked(rows, first, rows_here, space, &mut sums, stride),
            }
            for (output, sums) in sums.chunks_exact(stride).enumerate() {
                let out = out.iter_mut().skip(output).step_by(outputs);
                out.zip(sums).for_each(|(out, sum)| *out = sum.to_f64());
            }
            if forest.join == Join::Average {
                let trees = forest.trees.len().max(1) as f64;
                for row in out.chunks_exact_mut(outputs) {
                    row.iter_mut().zip(&forest.base).for_each(|(out, base)| *out = *out / trees + base);
                }
            }
        }
    }

    fn add_wide(&self, rows: &Rows<'_>, from: usize, count: usize, space: &mut Space<T>, sums: &mut [S]) {
        space.tile.fill(rows, from, count, TILE_ROWS);
        simd::fill_ranks(self.machine, &self.columns, &space.tile, &mut space.ranks);
        let work = Work {
            splits: &self.splits,
            plans: &self.plans,
            additions: &self.additions,
            tables: &self.tables,
            ranks: &space.ranks,
            rows: count,
        };
        simd::add_trees(self.machine, &work, sums);
    }

    fn add_walked(
        &self,
        rows: &Rows<'_>,
        from: usize,
        count: usize,
        space: &mut Space<T>,
        sums: &mut [S],
        stride: usize,
    ) {
        self.walk_all(rows, from, count, space, |tree, row, step| {
            let (first, additions) = self.tree_additions[tree];
            for addition in &self.additions[first as usize..][..additions as usize] {
                let sum = &mut sums[addition.output as usize * stride + row];
                *sum = *sum + self.tables[(addition.table + self.leaf_numbers[step]) as usize];
            }
        });
    }

    fn leaves(&self, rows: &Rows<'_>, from: usize, count: usize, space: &mut Space<T>, out: &mut [u32]) {
        let trees = self.walk.roots.len();
        for first in (0..count).step_by(TILE_ROWS) {
            let here = TILE_ROWS.min(count - first);
            self.walk_all(rows, from + first, here, space, |tree, row, step| {
                out[(first + row) * trees + tree] = self.walk.nodes[step];
            });
        }
    }

    /// Calls with tree, row and the step that it ends in; for each row in the order of the trees.
    fn walk_all(
        &self,
        rows: &Rows<'_>,
        from: usize,
        count: usize,
        space: &mut Space<T>,
        mut end: impl FnMut(usize, usize, usize),
    ) {
        space.tile.fill(rows, from, count, count);
        self.columns.fill_values(&space.tile, &mut space.values);
        let values = &space.values;
        if count < LANES {
            for row in 0..count {
                for (group, roots) in self.walk.roots.chunks(LANES).enumerate() {
                    let mut at = [roots[0].0; LANES];
                    at.iter_mut().zip(roots).for_each(|(at, root)| *at = root.0);
                    let depth = roots.iter().map(|root| root.1).max().unwrap_or(0);
                    // A row alone needs no distance between columns; written out, so that none is computed.
                    let ends = match count {
                        1 => self.walk.ends(at, [0; LANES], depth, values, 1),
                        _ => self.walk.ends(at, [row as u32; LANES], depth, values, count),
                    };
                    (0..roots.len()).for_each(|lane| end(group * LANES + lane, row, ends[lane] as usize));
                }
            }
            return;
        }
        for (tree, (root, depth)) in self.walk.roots.iter().enumerate() {
            for first in (0..count).step_by(LANES) {
                let row = |lane: usize| (first + lane).min(count - 1) as u32;
                let ends = self.walk.ends([*root; LANES], std::array::from_fn(row), *depth, values, count);
                (0..LANES.min(count - first)).for_each(|lane| end(tree, first + lane, ends[lane] as usize));
            }
        }
    }
}

fn is_leaf(tree: &Tree, node: u32) -> bool {
    matches!(tree.nodes[node as usize], Node::Leaf { .. })
}
