//! A tree as explaining reads it: its splits in a row, and for each leaf what it takes to reach it.
//!
//! Owns the check without which walks could run out of stack, and the shares by which training weight went either way. Separate because both kinds of explanation and both ways of computing
//! them start here. Bounded by [`DEPTH_MAX`]. On failure: `invalid`; the caller names the tree.

use mainstay_base::{Error, Result};

use crate::forest::{Node, Split, Tree};

/// Levels of splits that a tree may have to be explained: the walks recurse, and their state grows with it.
pub const DEPTH_MAX: usize = 256;

/// One outcome of one split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// Which split, in [`Shape::splits`].
    pub slot: u32,
    /// Which outcome.
    pub yes: bool,
}

/// All that a path asks of one feature. A path that asks several times holds for it when every question is answered so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// The feature.
    pub feature: u32,
    /// The share of training weight that goes this way at all of those splits: their product.
    pub zero: f64,
    /// The questions, in the order of the path.
    pub literals: Vec<Literal>,
}

/// The features on the way to a node, in the order of their first question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Path {
    pub asked: Vec<Asked>,
    /// Which of `asked` each step added to, and its share before that; `None` where the step began it.
    steps: Vec<(usize, Option<f64>)>,
}

impl Path {
    /// One step down.
    pub fn push(&mut self, feature: u32, literal: Literal, share: f64) {
        match self.asked.iter().position(|asked| asked.feature == feature) {
            Some(at) => {
                let asked = &mut self.asked[at];
                self.steps.push((at, Some(asked.zero)));
                asked.zero *= share;
                asked.literals.push(literal);
            }
            None => {
                self.steps.push((self.asked.len(), None));
                self.asked.push(Asked { feature, zero: share, literals: vec![literal] });
            }
        }
    }

    /// One step up.
    pub fn pop(&mut self) {
        match self.steps.pop() {
            Some((at, Some(zero))) => {
                self.asked[at].zero = zero;
                self.asked[at].literals.pop();
            }
            Some((_, None)) => drop(self.asked.pop()),
            None => {}
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shape<'t> {
    pub tree: &'t Tree,
    /// Its splits, in the order of its nodes.
    pub splits: Vec<Split>,
    /// For each node that is a split, where it stands in `splits`.
    pub slot: Vec<u32>,
    /// For each node, the share of its parent's training weight that reached it; 1 for the root.
    pub share: Vec<f64>,
    /// Splits in the subtree of each node, itself included.
    pub below: Vec<u32>,
    /// The most different features on a path.
    pub distinct_max: usize,
    /// Outputs that its leaves add to, ascending.
    pub outputs: Vec<u32>,
}

impl<'t> Shape<'t> {
    /// Read a tree of a forest that was checked. `is_weighted` is whether its training weights are needed.
    pub fn new(tree: &'t Tree, is_weighted: bool) -> Result<Shape<'t>> {
        check(tree)?;
        let share = if is_weighted { shares(tree)? } else { vec![1.0; tree.nodes.len()] };
        let mut shape = Shape {
            tree,
            splits: Vec::new(),
            slot: vec![0; tree.nodes.len()],
            share,
            below: vec![0; tree.nodes.len()],
            distinct_max: 0,
            outputs: tree.leaf_outputs.iter().map(|added| added.output).collect(),
        };
        shape.outputs.sort_unstable();
        shape.outputs.dedup();
        for (at, node) in tree.nodes.iter().enumerate() {
            if let Node::Split(split) = node {
                shape.slot[at] = shape.splits.len() as u32;
                shape.splits.push(*split);
            }
        }
        for (at, node) in tree.nodes.iter().enumerate().rev() {
            if let Node::Split(split) = node {
                shape.below[at] = 1 + shape.below[split.yes as usize] + shape.below[split.no as usize];
            }
        }
        let mut most = 0;
        shape.for_each_leaf(0, &mut Path::default(), &mut |_, path| most = most.max(path.asked.len()));
        shape.distinct_max = most;
        Ok(shape)
    }

    /// Where a split's outcomes lead, as steps of a path.
    pub fn ways(&self, node: usize, split: &Split) -> [(usize, Literal); 2] {
        let slot = self.slot[node];
        [(split.yes as usize, Literal { slot, yes: true }), (split.no as usize, Literal { slot, yes: false })]
    }

    /// Every leaf under `node`, with the path to it; `path` is the one to `node`.
    pub fn for_each_leaf(&self, node: usize, path: &mut Path, visit: &mut dyn FnMut(usize, &Path)) {
        let Node::Split(split) = &self.tree.nodes[node] else { return visit(node, path) };
        for (child, literal) in self.ways(node, split) {
            path.push(split.feature, literal, self.share[child]);
            self.for_each_leaf(child, path, visit);
            path.pop();
        }
    }

    /// What a leaf adds to an output; 0 for a split.
    pub fn leaf_value(&self, node: usize, output: u32) -> f64 {
        leaf_value(self.tree, node, output)
    }
}

/// What a leaf adds to an output; 0 for a split.
pub(super) fn leaf_value(tree: &Tree, node: usize, output: u32) -> f64 {
    let added = tree.additions(node as u32).iter();
    added.filter(|added| added.output == output).map(|added| added.value).sum()
}

/// What explaining asks of a tree beyond what `Forest::new` has checked.
fn check(tree: &Tree) -> Result<()> {
    let depth = tree.depth();
    if depth > DEPTH_MAX {
        return Err(Error::invalid(format!(
            "it is {depth} levels deep and {DEPTH_MAX} is the most that is explained; train with a maximum depth"
        )));
    }
    if !tree.lines.is_empty() {
        return Err(Error::invalid(
            "its leaves are linear models and only constant leaves are explained; train without `linear_tree`",
        ));
    }
    Ok(())
}

/// For each node its share of its parent's weight. Shares of two siblings sum to 1 even where a format's rounded weights do
/// not, or explanations would not be additive. Under a node that no weight reached both ways count half.
fn shares(tree: &Tree) -> Result<Vec<f64>> {
    let mut share = vec![1.0; tree.nodes.len()];
    for (at, node) in tree.nodes.iter().enumerate() {
        let Node::Split(split) = node else { continue };
        let (yes, no) = (tree.nodes[split.yes as usize].cover(), tree.nodes[split.no as usize].cover());
        let sum = yes + no;
        if yes.is_nan() || no.is_nan() || yes < 0.0 || no < 0.0 || sum == f64::INFINITY {
            return Err(Error::invalid(format!(
                "the training weights under node {at} are {yes} and {no}, but must be finite and not negative"
            )));
        }
        if sum == 0.0 && at == 0 {
            return Err(Error::invalid(
                "explaining along the paths needs the training weights of the nodes, which this model's file does not \
                 carry; explain it against background rows instead",
            ));
        }
        let shares = if sum == 0.0 { (0.5, 0.5) } else { (yes / sum, no / sum) };
        (share[split.yes as usize], share[split.no as usize]) = shares;
    }
    Ok(share)
}
