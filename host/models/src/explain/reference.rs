//! The definition along the paths, written down: slow, scalar, one row at a time.
//!
//! Owns Lundberg's recursion along the paths as it was published (2018, algorithm 2), which the fast ways are held against
//! in tests, and which is built for them alone. Bounded by `shape::DEPTH_MAX`, which callers have checked. Cannot fail.

use super::shape::Shape;
use crate::forest::Node;

/// One feature of a path: Lundberg's d, z, o and w.
#[derive(Clone, Copy)]
struct Element {
    feature: Option<u32>,
    zero: f64,
    one: f64,
    weight: f64,
}

/// Add the explanation along the paths of one tree for one row. `sums` lies by output, feature.
pub(super) fn along_paths(shape: &Shape<'_>, row: &[f64], scale: f64, sums: &mut [f64]) {
    let root = Element { feature: None, zero: 1.0, one: 1.0, weight: 0.0 };
    recurse(shape, row, scale, 0, Vec::new(), root, sums);
}

fn recurse(shape: &Shape<'_>, row: &[f64], scale: f64, node: usize, path: Vec<Element>, by: Element, sums: &mut [f64]) {
    let mut path = path;
    extend(&mut path, by);
    let Node::Split(split) = &shape.tree.nodes[node] else {
        for at in 1..path.len() {
            let mut rest = path.clone();
            unwind(&mut rest, at);
            let weight: f64 = rest.iter().map(|element| element.weight).sum();
            let Element { feature: Some(feature), zero, one, .. } = path[at] else { continue };
            for output in &shape.outputs {
                let place = *output as usize * row.len() + feature as usize;
                sums[place] += weight * (one - zero) * shape.leaf_value(node, *output) * scale;
            }
        }
        return;
    };
    let (mut zero, mut one) = (1.0, 1.0);
    if let Some(at) = path.iter().position(|element| element.feature == Some(split.feature)) {
        (zero, one) = (path[at].zero, path[at].one);
        unwind(&mut path, at);
    }
    let yes = shape.tree.goes_yes(split, row[split.feature as usize]);
    for (child, taken) in [(split.yes as usize, yes), (split.no as usize, !yes)] {
        let one = if taken { one } else { 0.0 };
        let by = Element { feature: Some(split.feature), zero: zero * shape.share[child], one, weight: 0.0 };
        recurse(shape, row, scale, child, path.clone(), by, sums);
    }
}

/// EXTEND.
fn extend(path: &mut Vec<Element>, by: Element) {
    let len = path.len();
    path.push(Element { weight: if len == 0 { 1.0 } else { 0.0 }, ..by });
    for at in (0..len).rev() {
        let whole = (len + 1) as f64;
        path[at + 1].weight += by.one * path[at].weight * (at + 1) as f64 / whole;
        path[at].weight *= by.zero * (len - at) as f64 / whole;
    }
}

/// UNWIND.
fn unwind(path: &mut Vec<Element>, taken: usize) {
    let last = path.len() - 1;
    let Element { zero, one, .. } = path[taken];
    let whole = path.len() as f64;
    let mut next = path[last].weight;
    for at in (0..last).rev() {
        if one != 0.0 {
            let before = path[at].weight;
            path[at].weight = next * whole / ((at + 1) as f64 * one);
            next = before - path[at].weight * zero * (last - at) as f64 / whole;
        } else if zero != 0.0 {
            path[at].weight *= whole / (zero * (last - at) as f64);
        } else {
            path[at].weight = 0.0;
        }
    }
    for at in taken..last {
        let weight = path[at].weight;
        path[at] = Element { weight, ..path[at + 1] };
    }
    path.pop();
}
