//! Explanations along the paths: what training weight says about features that are left out.
//!
//! The definition is that of Lundberg, Erion and Lee, "Consistent Individualized Feature Attribution for Tree Ensembles"
//! (2018), and Lundberg and others, "From local explanations to global understanding with explainable AI for trees" (2020),
//! `tree_path_dependent` of the `shap` package and `pred_contribs` of XGBoost: at a split on a feature that is left out both
//! branches are taken, weighted by their training weights.
//!
//! How it is computed is not theirs. For a leaf of value v whose path asks d features, with z_j the share of weight and o_j
//! 1 where the row holds feature j and 0 where not, Shapley's weight is a Beta integral, so that
//!
//! ```text
//! phi_i = v (o_i - z_i) * integral over t from 0 to 1 of prod over j != i of (t o_j + (1 - t) z_j)
//! ```
//!
//! whose integrand is a polynomial of degree d - 1: Gauss's and Legendre's rule with d/2 points, rounded up, is exact.
//! Nothing is divided and all terms are positive, unlike where polynomials are extended and unwound again; and a whole tree
//! can be walked with products that go down and sums that come up, as in Yu and others, "Linear TreeSHAP" (2022), at two or
//! three points for the usual depths. Both uses are here: the cases of one leaf for the tables of `clumps`, and [`walk`] for
//! trees that are too deep for tables, over [`LANES`] rows at a time.
//!
//! Separate from `interventional`, which asks background rows instead. Bounded by `shape::DEPTH_MAX`.

use super::clumps::Effects;
use super::decisions::Tile;
use super::shape::{Path, Shape, leaf_value};
use crate::forest::{Node, Tree};

/// Rows that [`Walk`] explains together.
pub(super) const LANES: usize = 8;

/// Points between 0 and 1 and their weights.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    points: Vec<(f64, f64)>,
}

impl Rule {
    /// Gauss's and Legendre's rule that is exact for what a path of `features` features needs.
    pub fn for_features(features: usize) -> Rule {
        let count = features.div_ceil(2).max(1);
        let points = (0..count).map(|at| {
            // Newton's iteration from Tricomi's estimate; the polynomial's zeros are simple and well apart.
            let mut x = (std::f64::consts::PI * (at as f64 + 0.75) / (count as f64 + 0.5)).cos();
            let mut slope = 1.0;
            for _ in 0..16 {
                let (value, derivative) = legendre(count, x);
                slope = derivative;
                x -= value / derivative;
            }
            ((1.0 - x) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope))
        });
        Rule { points: points.collect() }
    }
}

/// Legendre's polynomial of this degree and its derivative.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=degree {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

/// The cases of a leaf, from the shares of its path.
#[derive(Debug, Default)]
pub(super) struct ByShares {
    /// Rules by the number of features.
    rules: Vec<Rule>,
}

impl Effects for ByShares {
    fn write(&mut self, path: &Path, effects: &mut Vec<f64>) {
        let features = path.asked.len();
        while self.rules.len() <= features {
            self.rules.push(Rule::for_features(self.rules.len()));
        }
        effects.clear();
        effects.resize(features << features, 0.0);
        let mut behind = vec![1.0; features + 1];
        for (case, row) in effects.chunks_exact_mut(features.max(1)).enumerate() {
            let one = |k: usize| (case >> k & 1) as f64;
            for (t, weight) in &self.rules[features].points {
                let factor = |k: usize| t * one(k) + (1.0 - t) * path.asked[k].zero;
                for k in (0..features).rev() {
                    behind[k] = behind[k + 1] * factor(k);
                }
                let mut before = *weight;
                for k in 0..features {
                    row[k] += before * behind[k + 1];
                    before *= factor(k);
                }
            }
            for (k, effect) in row.iter_mut().enumerate() {
                *effect *= one(k) - path.asked[k].zero;
            }
        }
    }
}

/// The mean of a tree's leaves by training weight.
pub(super) fn expected(shape: &Shape<'_>, output: u32) -> f64 {
    // Children stand behind their parents, so one pass is a walk.
    let mut reached = vec![0.0; shape.tree.nodes.len()];
    reached[0] = 1.0;
    let mut sum = 0.0;
    for (at, node) in shape.tree.nodes.iter().enumerate() {
        match node {
            Node::Split(split) => {
                for child in [split.yes as usize, split.no as usize] {
                    reached[child] += reached[at] * shape.share[child];
                }
            }
            Node::Leaf { .. } => sum += reached[at] * shape.leaf_value(at, output),
        }
    }
    sum
}

/// A tree that is walked.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    slot: Vec<u32>,
    share: Vec<f64>,
    outputs: Vec<u32>,
    rule: Rule,
}

type Lane = [f64; LANES];

/// A feature on the path to where a walk is.
#[derive(Clone, Copy)]
struct Passed {
    feature: u32,
    /// Share of weight so far.
    zero: f64,
    /// For each row 1 while it holds the feature, else 0.
    one: Lane,
}

/// What a walk remembers: for each level and point of the rule, products on the way down and sums on the way up.
#[derive(Debug, Default)]
pub(super) struct Memory {
    products: Vec<Lane>,
    sums: Vec<Lane>,
}

impl Walk {
    pub fn new(shape: &Shape<'_>) -> Walk {
        Walk {
            slot: shape.slot.clone(),
            share: shape.share.clone(),
            outputs: shape.outputs.clone(),
            rule: Rule::for_features(shape.distinct_max),
        }
    }

    /// Add the contributions to the rows of a tile whose splits are decided. `sums` lies by output, feature, row.
    pub fn explain(&self, tree: &Tree, scale: f64, tile: &Tile, memory: &mut Memory, sums: &mut [f64]) {
        let width = tile.features() * tile.stride;
        for output in &self.outputs {
            let sums = &mut sums[*output as usize * width..][..width];
            for lane in (0..tile.rows).step_by(LANES) {
                let memory = &mut *memory;
                Visit { walk: self, tree, scale, tile, lane, output: *output, memory, sums: &mut *sums }.start();
            }
        }
    }
}

/// One walk for one output over one group of rows.
struct Visit<'a> {
    walk: &'a Walk,
    tree: &'a Tree,
    scale: f64,
    tile: &'a Tile,
    /// The first of its rows.
    lane: usize,
    output: u32,
    memory: &'a mut Memory,
    sums: &'a mut [f64],
}

impl Visit<'_> {
    fn start(&mut self) {
        self.level(0);
        self.memory.products[..self.walk.rule.points.len()].fill([1.0; LANES]);
        self.node(0, 0, &mut Vec::new());
    }

    /// Make room for a level.
    fn level(&mut self, level: usize) {
        let needed = (level + 1) * self.walk.rule.points.len();
        if self.memory.products.len() < needed {
            self.memory.products.resize(needed, [0.0; LANES]);
            self.memory.sums.resize(needed, [0.0; LANES]);
        }
    }

    /// Leave the sums of the subtree under `node` at this level.
    fn node(&mut self, node: usize, level: usize, path: &mut Vec<Passed>) {
        let points = self.walk.rule.points.len();
        let here = level * points;
        let Node::Split(split) = self.tree.nodes[node] else {
            let value = leaf_value(self.tree, node, self.output) * self.scale;
            for at in here..here + points {
                self.memory.sums[at] = self.memory.products[at].map(|product| product * value);
            }
            return;
        };
        self.level(level + 1);
        self.memory.sums[here..here + points].fill([0.0; LANES]);
        let known = path.iter().position(|passed| passed.feature == split.feature);
        let old = known.map(|at| path[at]);
        for (child, yes) in [(split.yes as usize, true), (split.no as usize, false)] {
            let new = self.step(old, split.feature, self.walk.slot[node], yes, self.walk.share[child]);
            match known {
                Some(at) => path[at] = new,
                None => path.push(new),
            }
            self.multiply(here, old, &new);
            self.node(child, level + 1, path);
            self.collect(here, old, &new);
            match (known, old) {
                (Some(at), Some(old)) => path[at] = old,
                _ => drop(path.pop()),
            }
        }
    }

    /// What is known of a feature after one more answer.
    fn step(&self, old: Option<Passed>, feature: u32, slot: u32, yes: bool, share: f64) -> Passed {
        let Passed { zero, mut one, .. } = old.unwrap_or(Passed { feature, zero: 1.0, one: [1.0; LANES] });
        let answers = &self.tile.answers(slot)[self.lane..self.lane + LANES];
        for (one, answer) in one.iter_mut().zip(answers) {
            *one = if (*answer != 0) == yes { *one } else { 0.0 };
        }
        Passed { feature, zero: zero * share, one }
    }

    /// Products of the next level: the feature's old factor gives way to its new one.
    fn multiply(&mut self, here: usize, old: Option<Passed>, new: &Passed) {
        let points = &self.walk.rule.points;
        let (above, below) = self.memory.products.split_at_mut(here + points.len());
        for ((above, below), (t, _)) in above[here..].iter().zip(below).zip(points) {
            let (held, left) = (t + (1.0 - t) * new.zero, (1.0 - t) * new.zero);
            let Some(old) = old else {
                for lane in 0..LANES {
                    below[lane] = above[lane] * if new.one[lane] > 0.5 { held } else { left };
                }
                continue;
            };
            let old_held = t + (1.0 - t) * old.zero;
            // A share of 0 has made the product 0 already.
            let both_left = if old.zero > 0.0 { new.zero / old.zero } else { 0.0 };
            let (both_held, now_left) = (held / old_held, left / old_held);
            for lane in 0..LANES {
                let was_held = if old.one[lane] > 0.5 { now_left } else { both_left };
                below[lane] = above[lane] * if new.one[lane] > 0.5 { both_held } else { was_held };
            }
        }
    }

    /// Take the sums of the next level up, and what they say about the feature of this split: its new factor's share,
    /// less the old one's, which the split above adds for the whole subtree.
    fn collect(&mut self, here: usize, old: Option<Passed>, new: &Passed) {
        let points = &self.walk.rule.points;
        let mut added = [0.0; LANES];
        let (above, below) = self.memory.sums.split_at_mut(here + points.len());
        for ((above, below), (t, weight)) in above[here..].iter_mut().zip(below).zip(points) {
            // (o - z) / (t o + (1 - t) z) for o = 1 and o = 0.
            let left = -weight / (1.0 - t);
            let held = weight * (1.0 - new.zero) / (t + (1.0 - t) * new.zero);
            for lane in 0..LANES {
                added[lane] += below[lane] * if new.one[lane] > 0.5 { held } else { left };
            }
            if let Some(old) = old {
                let held = weight * (1.0 - old.zero) / (t + (1.0 - t) * old.zero);
                for lane in 0..LANES {
                    added[lane] -= below[lane] * if old.one[lane] > 0.5 { held } else { left };
                }
            }
            for lane in 0..LANES {
                above[lane] += below[lane];
            }
        }
        let first = new.feature as usize * self.tile.stride + self.lane;
        for (sum, added) in self.sums[first..first + LANES].iter_mut().zip(added) {
            *sum += added;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_integrates_what_its_paths_need() {
        for features in 1..=super::super::shape::DEPTH_MAX {
            let rule = Rule::for_features(features);
            for degree in [0, 1, features / 2, features - 1] {
                let sum: f64 = rule.points.iter().map(|(t, weight)| weight * t.powi(degree as i32)).sum();
                let expect = 1.0 / (degree as f64 + 1.0);
                assert!((sum - expect).abs() <= 1e-14, "{features} features, degree {degree}: {sum} for {expect}");
            }
        }
    }
}
