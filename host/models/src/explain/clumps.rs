//! Trees as tables of finished contributions.
//!
//! What a leaf contributes to the explanation of a row depends on the row only through which of the path's features it
//! *holds* (answers as the path asks): d features, 2^d cases. So all cases are computed once and explaining a row is
//! looking up and adding; the path-dependent and the interventional explanation differ only in what stands in the tables.
//! This is the view of Nadel and Wettenstein, "From Decision Trees to Boolean Logic: A Fast and Unified SHAP Algorithm"
//! (2025), and of the second algorithm of Yang, "Fast TreeSHAP" (2021); the tables here are not one for a leaf but for a
//! *clump*: a small subtree, whose case is the features held on the way to it and the answers of its own splits. Three
//! splits under a common ancestor are one lookup for each feature where they were four, and the table is no larger than
//! those of its four leaves.
//!
//! A table lies by output, then feature, then case, so that adding one feature for a tile of rows reads at most 2 KiB at
//! random, which stay in the first level of cache, and writes in sequence.
//!
//! Bounded by [`TABLE_BYTES_MAX`] and [`CASE_BITS_MAX`]; a tree that exceeds them is not tabled, and is explained by the
//! slower way of its kind.

use std::ops::Range;

use super::decisions::Tile;
use super::shape::{Asked, Literal, Path, Shape};
use crate::forest::{Node, Split};

/// Bytes of tables that one explainer may hold.
pub const TABLE_BYTES_MAX: usize = 64 << 20;
/// Bits of a clump's case: a case is a byte.
pub const CASE_BITS_MAX: usize = 8;
/// A clump is made of its two halves' when its table has at most this many times the entries of theirs.
const GROWTH_MAX: u64 = 2;

/// Tables of finished contributions, as those read them who look them up elsewhere.
#[derive(Clone, Debug)]
pub struct TablesView<'a> {
    /// Of all clumps.
    pub entries: &'a [f64],
    /// In the order in which they are added.
    pub clumps: Vec<ClumpView<'a>>,
}

/// One small subtree: its case has a bit for each of several conditions, all of them set where none says otherwise.
#[derive(Clone, Debug)]
pub struct ClumpView<'a> {
    /// Bits of its case.
    pub bits: u32,
    /// What its case is made of.
    pub conditions: Vec<ConditionView>,
    /// Features. The table lies by output, then feature, then case.
    pub columns: &'a [u32],
    /// Outputs that its leaves add to.
    pub outputs: &'a [u32],
    /// Where its table starts.
    pub first: usize,
}

/// A bit is set only where the split is answered so.
#[derive(Clone, Copy, Debug)]
pub struct ConditionView {
    /// Of which tree.
    pub tree: usize,
    /// What is asked.
    pub split: Split,
    /// The wanted answer.
    pub yes: bool,
    /// The bit.
    pub bit: u8,
}

/// What one leaf of value 1 contributes in all of its cases.
pub(super) trait Effects {
    /// Write, for each case (bit k: whether feature k of the path is held), the contribution of each of the path's
    /// features: 2^d rows of d. Leaves are asked for in the order of [`Shape::for_each_leaf`].
    fn write(&mut self, path: &Path, effects: &mut Vec<f64>);
}

/// Tables of all tabled trees, one behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    entries: Vec<f64>,
    entries_max: usize,
}

/// A tree that was cut into clumps. What they name lies in common lists: one row alone reads each of them once, and would
/// otherwise wait for memory at every clump.
#[derive(Clone, Debug, Default)]
pub(super) struct Clumps {
    clumps: Vec<Clump>,
    conditions: Vec<Condition>,
    columns: Vec<u32>,
    outputs: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Clump {
    /// Bits of its case.
    bits: u32,
    /// Which of [`Clumps::conditions`] its case is made of.
    conditions: Range<usize>,
    /// Features: which of [`Clumps::columns`].
    columns: Range<usize>,
    /// Outputs that its leaves add to: which of [`Clumps::outputs`].
    outputs: Range<usize>,
    /// Where its table starts.
    first: usize,
}

/// An answer without which a bit of a case is not set.
#[derive(Clone, Copy, Debug)]
struct Condition {
    /// Which split.
    slot: u32,
    /// What turns the wanted answer, a byte of ones or zeros, into ones.
    flip: u8,
    /// The bit.
    bit: u8,
}

/// Where a tree is cut: for each node whether a clump starts there; and the entries of all its tables.
#[derive(Debug)]
pub(super) struct Cut {
    starts: Vec<bool>,
    entries: u64,
}

impl Cut {
    /// The cut of a tree; `None` when one of its leaves has more cases than a byte can say.
    pub fn of(shape: &Shape<'_>) -> Option<Cut> {
        if shape.distinct_max > CASE_BITS_MAX {
            return None;
        }
        let mut starts = vec![false; shape.tree.nodes.len()];
        let entries = cut(shape, 0, &mut Path::default(), &mut starts);
        Some(Cut { starts, entries: entries.saturating_mul(shape.outputs.len() as u64) })
    }
}

/// Entries of the tables under `node`, for one output.
fn cut(shape: &Shape<'_>, node: usize, path: &mut Path, starts: &mut [bool]) -> u64 {
    let bits = path.asked.len() + shape.below[node] as usize;
    let whole = (bits <= CASE_BITS_MAX).then(|| (columns(shape, node, path).len() as u64) << bits);
    let Node::Split(split) = &shape.tree.nodes[node] else {
        starts[node] = true;
        return whole.unwrap_or(u64::MAX);
    };
    let mut halves = 0_u64;
    for (child, literal) in shape.ways(node, split) {
        path.push(split.feature, literal, 1.0);
        halves = halves.saturating_add(cut(shape, child, path, starts));
        path.pop();
    }
    match whole {
        Some(whole) if whole <= halves.saturating_mul(GROWTH_MAX) => {
            starts[node] = true;
            whole
        }
        _ => halves,
    }
}

/// Features of a clump: those of the path to it and those that its splits ask for.
fn columns(shape: &Shape<'_>, node: usize, path: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = path.asked.iter().map(|asked| asked.feature).collect();
    let mut left = vec![node];
    while let Some(at) = left.pop() {
        if let Node::Split(split) = &shape.tree.nodes[at] {
            if !found.contains(&split.feature) {
                found.push(split.feature);
            }
            left.extend([split.no as usize, split.yes as usize]);
        }
    }
    found
}

impl Tables {
    /// None yet, and never more than so many bytes.
    pub fn new(bytes_max: usize) -> Tables {
        Tables { entries: Vec::new(), entries_max: bytes_max / size_of::<f64>() }
    }

    /// Whether there is room for a tree.
    pub fn have_room(&self, cut: &Cut) -> bool {
        cut.entries <= (self.entries_max - self.entries.len()) as u64
    }

    /// Give back room that was taken ahead.
    pub fn finish(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// All of them.
    pub fn entries(&self) -> &[f64] {
        &self.entries
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        size_of_val(self.entries.as_slice())
    }

    /// Compute the tables of a tree. `scale` multiplies its leaves.
    pub fn add(&mut self, shape: &Shape<'_>, cut: &Cut, effects: &mut dyn Effects, scale: f64) -> Clumps {
        let (clumps, entries) = (Clumps::default(), &mut self.entries);
        let mut fill = Fill { shape, effects, scale, entries, clumps, scratch: Vec::new() };
        fill.descend(0, &mut Path::default(), &cut.starts);
        fill.clumps
    }
}

/// State while the tables of one tree are computed.
struct Fill<'a, 't> {
    shape: &'a Shape<'t>,
    effects: &'a mut dyn Effects,
    scale: f64,
    entries: &'a mut Vec<f64>,
    clumps: Clumps,
    scratch: Vec<f64>,
}

/// What the leaves of a clump are told of it.
struct Plan {
    columns: Vec<u32>,
    outputs: Vec<u32>,
    /// Bits for the path to the clump; those of its own splits follow.
    above: usize,
    /// Its own splits, in the order of their bits.
    own: Vec<u32>,
    first: usize,
}

/// When a feature of a leaf's path is held, read from the case of its clump.
#[derive(Clone, Copy, Default)]
struct Held {
    mask: usize,
    want: usize,
    column: usize,
}

impl Fill<'_, '_> {
    /// Find the clumps under `node`. The topmost start counts.
    fn descend(&mut self, node: usize, path: &mut Path, starts: &[bool]) {
        match &self.shape.tree.nodes[node] {
            Node::Split(split) if !starts[node] => {
                for (child, literal) in self.shape.ways(node, split) {
                    path.push(split.feature, literal, self.shape.share[child]);
                    self.descend(child, path, starts);
                    path.pop();
                }
            }
            _ => self.clump(node, path),
        }
    }

    fn clump(&mut self, node: usize, path: &mut Path) {
        let (own, outputs) = self.inside(node);
        let columns = columns(self.shape, node, path);
        let plan = Plan { columns, outputs, above: path.asked.len(), own, first: self.entries.len() };
        let size = (plan.outputs.len() * plan.columns.len()) << plan.bits();
        self.entries.resize(plan.first + size, 0.0);
        self.clumps.push(&plan, path);
        let shape = self.shape;
        shape.for_each_leaf(node, path, &mut |leaf, path| self.leaf(&plan, leaf, path));
    }

    /// Splits under `node`, and outputs that leaves there add to.
    fn inside(&self, node: usize) -> (Vec<u32>, Vec<u32>) {
        let (mut own, mut outputs, mut left) = (Vec::new(), Vec::new(), vec![node]);
        while let Some(at) = left.pop() {
            match &self.shape.tree.nodes[at] {
                Node::Split(split) => {
                    own.push(self.shape.slot[at]);
                    left.extend([split.no as usize, split.yes as usize]);
                }
                Node::Leaf { .. } => {
                    outputs.extend(self.shape.tree.additions(at as u32).iter().map(|added| added.output));
                }
            }
        }
        outputs.sort_unstable();
        outputs.dedup();
        (own, outputs)
    }

    /// Add what one leaf contributes to all cases of its clump.
    fn leaf(&mut self, plan: &Plan, leaf: usize, path: &Path) {
        self.effects.write(path, &mut self.scratch);
        let features = path.asked.len();
        let mut held = [Held::default(); CASE_BITS_MAX];
        for (k, asked) in path.asked.iter().enumerate() {
            held[k] = plan.held_when(k, asked);
        }
        let cases = 1_usize << plan.bits();
        for (at, output) in plan.outputs.iter().enumerate() {
            let value = self.shape.leaf_value(leaf, *output) * self.scale;
            if value == 0.0 {
                continue;
            }
            let width = plan.columns.len() * cases;
            let table = &mut self.entries[plan.first + at * width..][..width];
            for case in 0..cases {
                let bit = |(k, held): (usize, &Held)| usize::from(case & held.mask == held.want) << k;
                let own = held[..features].iter().enumerate().map(bit).sum::<usize>();
                for (held, effect) in held.iter().zip(&self.scratch[own * features..][..features]) {
                    table[held.column * cases + case] += value * effect;
                }
            }
        }
    }
}

impl Plan {
    fn bits(&self) -> usize {
        self.above + self.own.len()
    }

    /// Which bits of the clump's case say whether a feature of a leaf's path is held: the one of the way to the clump, if
    /// it stands there, and those of the clump's own splits.
    fn held_when(&self, k: usize, asked: &Asked) -> Held {
        let column = self.columns.iter().position(|column| *column == asked.feature);
        let mut held = Held { mask: 0, want: 0, column: column.expect("a clump has its leaves' features") };
        if k < self.above {
            (held.mask, held.want) = (1 << k, 1 << k);
        }
        for literal in &asked.literals {
            // The others stand on the way to the clump.
            if let Some(own) = self.own.iter().position(|slot| *slot == literal.slot) {
                held.mask |= 1 << (self.above + own);
                held.want |= usize::from(literal.yes) << (self.above + own);
            }
        }
        held
    }
}

impl Clumps {
    /// Take up a clump, `path` being the one to it.
    fn push(&mut self, plan: &Plan, path: &Path) {
        let starts = (self.conditions.len(), self.columns.len(), self.outputs.len());
        for (bit, asked) in path.asked.iter().enumerate() {
            let condition = |literal: &Literal| Condition {
                slot: literal.slot,
                flip: if literal.yes { 0 } else { 255 },
                bit: 1 << bit,
            };
            self.conditions.extend(asked.literals.iter().map(condition));
        }
        for (at, slot) in plan.own.iter().enumerate() {
            self.conditions.push(Condition { slot: *slot, flip: 0, bit: 1 << (plan.above + at) });
        }
        self.columns.extend(&plan.columns);
        self.outputs.extend(&plan.outputs);
        self.clumps.push(Clump {
            bits: plan.bits() as u32,
            conditions: starts.0..self.conditions.len(),
            columns: starts.1..self.columns.len(),
            outputs: starts.2..self.outputs.len(),
            first: plan.first,
        });
    }

    /// Show the clumps of a tree, one behind the other.
    pub fn view<'a>(&'a self, tree: usize, splits: &[Split], clumps: &mut Vec<ClumpView<'a>>) {
        let condition = |condition: &Condition| ConditionView {
            tree,
            split: splits[condition.slot as usize],
            yes: condition.flip == 0,
            bit: condition.bit,
        };
        clumps.extend(self.clumps.iter().map(|clump| ClumpView {
            bits: clump.bits,
            conditions: self.conditions[clump.conditions.clone()].iter().map(condition).collect(),
            columns: &self.columns[clump.columns.clone()],
            outputs: &self.outputs[clump.outputs.clone()],
            first: clump.first,
        }));
    }

    /// Add the contributions to the rows of a tile whose splits are decided. `sums` lies by output, feature, row.
    pub fn explain(&self, tables: &Tables, tile: &Tile, cases: &mut Vec<u8>, sums: &mut [f64]) {
        cases.resize(tile.stride, 0);
        for clump in &self.clumps {
            cases.fill(all_set(clump.bits));
            for Condition { slot, flip, bit } in &self.conditions[clump.conditions.clone()] {
                for (case, answer) in cases.iter_mut().zip(tile.answers(*slot)) {
                    *case &= (answer ^ flip) | !bit;
                }
            }
            let size = 1_usize << clump.bits;
            let mut at = clump.first;
            for output in &self.outputs[clump.outputs.clone()] {
                for column in &self.columns[clump.columns.clone()] {
                    let first = (*output as usize * tile.features() + *column as usize) * tile.stride;
                    let sums = &mut sums[first..first + tile.rows];
                    add_column(&tables.entries[at..at + size], &cases[..tile.rows], sums);
                    at += size;
                }
            }
        }
    }

    /// The same for one row, whose answers are bytes of ones or zeros. `sums` lies by output, feature; it gets the same
    /// numbers in the same order.
    pub fn explain_one(&self, tables: &Tables, answers: &[u8], features: usize, sums: &mut [f64]) {
        for clump in &self.clumps {
            let mut case = all_set(clump.bits);
            for Condition { slot, flip, bit } in &self.conditions[clump.conditions.clone()] {
                case &= (answers[*slot as usize] ^ flip) | !bit;
            }
            let size = 1_usize << clump.bits;
            let mut at = clump.first + case as usize;
            for output in &self.outputs[clump.outputs.clone()] {
                for column in &self.columns[clump.columns.clone()] {
                    sums[*output as usize * features + *column as usize] += tables.entries[at];
                    at += size;
                }
            }
        }
    }
}

/// The case in which everything is held.
fn all_set(bits: u32) -> u8 {
    ((1_u32 << bits) - 1) as u8
}

/// Add one column of a table. Its size is a constant in each arm, so that no case needs a check of its bounds.
fn add_column(column: &[f64], cases: &[u8], sums: &mut [f64]) {
    fn add<const SIZE: usize>(column: &[f64], cases: &[u8], sums: &mut [f64]) {
        let column: &[f64; SIZE] = column.try_into().expect("a column has as many entries as cases");
        for (sum, case) in sums.iter_mut().zip(cases) {
            *sum += column[*case as usize % SIZE];
        }
    }
    match column.len() {
        1 => add::<1>(column, cases, sums),
        2 => add::<2>(column, cases, sums),
        4 => add::<4>(column, cases, sums),
        8 => add::<8>(column, cases, sums),
        16 => add::<16>(column, cases, sums),
        32 => add::<32>(column, cases, sums),
        64 => add::<64>(column, cases, sums),
        128 => add::<128>(column, cases, sums),
        _ => add::<256>(column, cases, sums),
    }
}
