//! Trees walked node by node, several walks at once.
//!
//! Owns nodes as small as they can be and their walks. A single walk waits for memory at every node; eight of them in turn
//! wait together. Leaves point at themselves and ask a question that is always answered yes, so that all walks of a group
//! take as many steps as the deepest and no step is a branch. Used for few rows (a tree each) and for trees too deep to
//! answer all splits (a row each).
//!
//! Bounded by: the depth of the tree. Cannot fail.

use super::columns::{Columns, Comparison, Threshold};
use crate::forest::{Node, Tree};

/// Walks at once.
pub(super) const LANES: usize = 8;

/// `no` stands behind `yes`.
#[derive(Clone, Copy, Debug)]
struct Step<T> {
    threshold: T,
    column: u32,
    yes: u32,
}

/// The nodes of all trees.
#[derive(Clone, Debug)]
pub(super) struct Walk<T> {
    steps: Vec<Step<T>>,
    /// By step, the number of the node in its tree.
    pub nodes: Vec<u32>,
    /// By tree: its root and its depth.
    pub roots: Vec<(u32, u32)>,
}

impl<T: Threshold> Walk<T> {
    pub fn new() -> Walk<T> {
        Walk { steps: Vec::new(), nodes: Vec::new(), roots: Vec::new() }
    }

    /// Add a tree; none when there is no room for its columns.
    pub fn push(&mut self, tree: &Tree, columns: &mut Columns<T>) -> Option<()> {
        let root = self.steps.len() as u32;
        let (mut order, mut at) = (vec![0_u32], 0);
        while at < order.len() {
            let number = order[at];
            let itself = root + at as u32;
            let step = match &tree.nodes[number as usize] {
                // Column 0 is below everything.
                Node::Leaf { .. } => Step { threshold: T::of(0.0), column: 0, yes: itself },
                Node::Split(split) => {
                    let Comparison { column, threshold } = columns.compare(tree, split)?;
                    let yes = root + order.len() as u32;
                    order.extend([split.yes, split.no]);
                    Step { threshold, column, yes }
                }
            };
            self.steps.push(step);
            self.nodes.push(number);
            at += 1;
        }
        self.roots.push((root, tree.depth() as u32));
        Some(())
    }

    /// The comparison of one step.
    pub fn comparison(&self, step: usize) -> Comparison<T> {
        Comparison { column: self.steps[step].column, threshold: self.steps[step].threshold }
    }

    /// Where these walks end; each has its root and its row's first value, columns are `stride` apart.
    #[inline(always)]
    pub fn ends(
        &self,
        mut at: [u32; LANES],
        rows: [u32; LANES],
        depth: u32,
        values: &[T],
        stride: usize,
    ) -> [u32; LANES] {
        for _ in 0..depth {
            for lane in 0..LANES {
                let step = &self.steps[at[lane] as usize];
                // Indexing checks the places; checked sums would be more branches.
                let place = (step.column as usize).wrapping_mul(stride).wrapping_add(rows[lane] as usize);
                let value = values[place];
                // What is NaN is not below, so it goes to `no`.
                at[lane] = step.yes.wrapping_add(1).wrapping_sub(u32::from(value < step.threshold));
            }
        }
        at
    }
}
