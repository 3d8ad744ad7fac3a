//! One row against one background row, by a walk of the tree: the published recursion for explanations against backgrounds.
//!
//! Owns the definition (Lundberg and others, 2020) that the tables are held against, and the way for trees that have none.
//! A walk follows the row or the background row, and both where they part. Separate so that nothing fast is in it.
//! Bounded by `shape::DEPTH_MAX`, which callers have checked. Cannot fail.

use crate::forest::{Node, Split, Tree};

/// Add the explanation of one row against one background row by one tree. `sums` lies by output, feature.
pub(super) fn against_one(tree: &Tree, row: &[f64], background: &[f64], scale: f64, sums: &mut [f64]) {
    let mut pair = Pair { tree, row, background, scale, mine: Vec::new(), theirs: Vec::new(), sums };
    pair.node(0);
}

struct Pair<'a> {
    tree: &'a Tree,
    row: &'a [f64],
    background: &'a [f64],
    scale: f64,
    /// Features whose branch only the row takes.
    mine: Vec<u32>,
    /// Features whose branch only the background row takes.
    theirs: Vec<u32>,
    sums: &'a mut [f64],
}

impl Pair<'_> {
    fn node(&mut self, node: usize) {
        let Node::Split(split) = self.tree.nodes[node] else { return self.leaf(node) };
        let feature = split.feature;
        let mine = self.child(&split, self.row);
        let theirs = self.child(&split, self.background);
        if mine == theirs || self.mine.contains(&feature) {
            return self.node(mine);
        }
        if self.theirs.contains(&feature) {
            return self.node(theirs);
        }
        self.mine.push(feature);
        self.node(mine);
        self.mine.pop();
        self.theirs.push(feature);
        self.node(theirs);
        self.theirs.pop();
    }

    fn child(&self, split: &Split, row: &[f64]) -> usize {
        let yes = self.tree.goes_yes(split, row[split.feature as usize]);
        if yes { split.yes as usize } else { split.no as usize }
    }

    fn leaf(&mut self, node: usize) {
        let (a, b) = (self.mine.len(), self.theirs.len());
        for added in self.tree.additions(node as u32) {
            let value = added.value * self.scale;
            let first = added.output as usize * self.row.len();
            for feature in &self.mine {
                self.sums[first + *feature as usize] += value * share(a - 1, b);
            }
            for feature in &self.theirs {
                self.sums[first + *feature as usize] -= value * share(b - 1, a);
            }
        }
    }
}

/// p! q! / (p + q + 1)!: the part of a leaf for one of p + 1 features when q features speak against it, and the other way
/// round.
pub(super) fn share(p: usize, q: usize) -> f64 {
    // 1 / ((p + q + 1) * binomial(p + q, p)), by factors of at most 1.
    let mut share = 1.0 / (p + q + 1) as f64;
    for k in 1..=p {
        share *= k as f64 / (q + k) as f64;
    }
    share
}
