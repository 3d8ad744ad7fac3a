//! From nodes as a file numbers them to a tree in our order.
//!
//! Owns the walk from the root that puts nodes breadth first (so that the upper levels, which every row passes, lie
//! together), drops what no split leads to, and refuses what is no tree. Separate because every format needs it and a
//! hostile file attacks here first.
//!
//! Bounded by: each node is visited once; [`Limits::depth`]. On failure: `invalid` names the node by the file's number.

use mainstay_base::{Error, Result};

use super::limits::Limits;
use crate::forest::{LeafLine, LeafOutput, Node, Split, Tree};

/// A node as a file has it; children are the file's numbers.
pub(super) enum Raw {
    Split(Split),
    Leaf { cover: f64, additions: Vec<LeafOutput>, line: Option<LeafLine> },
}

/// The tree under `root` among `count` nodes, and for each of its nodes the number in the file.
pub(super) fn assemble(
    root: u32,
    count: usize,
    sets: Vec<Vec<u32>>,
    limits: &Limits,
    mut read: impl FnMut(u32) -> Result<Raw>,
) -> Result<(Tree, Vec<u32>)> {
    let mut tree = Tree { sets, ..Tree::default() };
    let mut is_placed = vec![false; count];
    let (mut order, mut level_end, mut depth) = (Vec::new(), 1, 0);
    place(root, &mut is_placed, &mut order)?;
    let mut at = 0;
    while at < order.len() {
        if at == level_end {
            (level_end, depth) = (order.len(), depth + 1);
            Limits::check("splits on one way through a tree", depth, limits.depth)?;
        }
        let number = order[at];
        let node = read(number).map_err(|error| error.context(format_args!("node {number}")))?;
        let node = match node {
            Raw::Split(split) => {
                let yes = order.len() as u32;
                for child in [split.yes, split.no] {
                    place(child, &mut is_placed, &mut order)
                        .map_err(|error| error.context(format_args!("node {number}")))?;
                }
                Node::Split(Split { yes, no: yes + 1, ..split })
            }
            Raw::Leaf { cover, additions, line } => {
                tree.lines.extend(line.map(|line| LeafLine { node: at as u32, ..line }));
                let first = tree.leaf_outputs.len() as u32;
                tree.leaf_outputs.extend_from_slice(&additions);
                Node::Leaf { first, count: additions.len() as u32, cover }
            }
        };
        tree.nodes.push(node);
        at += 1;
    }
    Ok((tree, order))
}

fn place(number: u32, is_placed: &mut [bool], order: &mut Vec<u32>) -> Result<()> {
    let count = is_placed.len();
    match is_placed.get_mut(number as usize) {
        None => Err(Error::invalid(format!("node {number} is named, but there are {count}"))),
        Some(true) => Err(Error::invalid(format!("two ways lead to node {number}; this is no tree"))),
        Some(placed) => {
            *placed = true;
            order.push(number);
            Ok(())
        }
    }
}

/// A number of a file as an index; `invalid` when it is negative, no integer, or 2^32 and more.
pub(super) fn index(what: &str, number: f64) -> Result<u32> {
    match number >= 0.0 && number.fract() == 0.0 && number <= f64::from(u32::MAX) {
        true => Ok(number as u32),
        false => Err(Error::invalid(format!("{what} is {number}, which is no index"))),
    }
}
