//! The form that all tree ensembles take after import.
//!
//! Owns the meaning of a node, written so that every format's rule is one of ours, and the scalar reference that faster
//! layouts are held against. Invariants, checked by [`Forest::new`]: every tree has at least one node; a child stands
//! behind its parent and has only that one (so walks end and nothing is a cycle); features, sets and outputs that nodes
//! name exist; thresholds are not NaN.
//!
//! Rules that formats write differently are brought to [`Test`] by swapping the branches: `x >= t` is `x < t` with `yes`
//! and `no` exchanged, and so on. What a missing value does is never left to the comparison.
//!
//! Bounded by: what is in memory already; walks take as many steps as the tree is deep and need no stack. On failure:
//! `invalid` names the tree, the node and what is wrong with it.

use mainstay_base::{Error, Result};

/// Magnitudes up to this count as zero for [`Missing::NanOrZero`]: LightGBM's `kZeroThreshold`, an `f32` there.
pub const ZERO_MAX: f64 = 1e-35_f32 as f64;

/// Trees, and how their leaves become outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    /// In the order in which leaves are added.
    pub trees: Vec<Tree>,
    /// How many features a row has.
    pub features: u32,
    /// How many raw outputs a row gets: one, or one for each class.
    pub outputs: u32,
    /// Added to each output; as many as outputs.
    pub base: Vec<f64>,
    /// How the leaves of one output are joined.
    pub join: Join,
    /// Whether a value is rounded to the nearest `f32` before it is compared.
    pub compares_f32: bool,
    /// Whether leaves are added in `f32`, one after the other in the order of the trees, as the format's own library does.
    pub adds_f32: bool,
}

/// How leaves that reach one output are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Their sum.
    Sum,
    /// Their sum divided by the number of trees.
    Average,
    /// The smallest.
    Min,
    /// The greatest.
    Max,
}

/// One tree. The root is node 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Children behind their parents.
    pub nodes: Vec<Node>,
    /// For each set that a [`Test::Member`] or [`Test::MemberFromZero`] names, the category codes in it, ascending.
    pub sets: Vec<Vec<u32>>,
    /// For each list that a [`Test::OneOf`] names, the numbers in it, ascending.
    pub lists: Vec<Vec<f64>>,
    /// What leaves add; a leaf names a part of it.
    pub leaf_outputs: Vec<LeafOutput>,
    /// Linear models in leaves, by the node they stand in, ascending; empty but for linear trees.
    pub lines: Vec<LeafLine>,
}

/// A linear model in a leaf: takes the place of the value of the leaf's first addition, unless one of the features that
/// it names is missing (NaN). Shi et al., "Gradient Boosting with Piece-Wise Linear Regression Trees", 2019.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafLine {
    /// Which leaf.
    pub node: u32,
    /// Added to the terms.
    pub constant: f64,
    /// Features and their coefficients.
    pub terms: Vec<(u32, f64)>,
}

/// One addition to one output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeafOutput {
    /// To which output.
    pub output: u32,
    /// How much.
    pub value: f64,
}

/// A node of a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// Two ways to go on.
    Split(Split),
    /// The end.
    Leaf {
        /// The first of its additions in [`Tree::leaf_outputs`].
        first: u32,
        /// How many there are.
        count: u32,
        /// Training weight that reached it; 0 where the format does not say.
        cover: f64,
    },
}

/// A question about one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Which feature.
    pub feature: u32,
    /// What is asked.
    pub test: Test,
    /// Which values count as missing.
    pub missing: Missing,
    /// Whether a missing value takes the branch `yes`.
    pub missing_is_yes: bool,
    /// The node when the answer is yes.
    pub yes: u32,
    /// The node when it is no.
    pub no: u32,
    /// Training weight that reached it; 0 where the format does not say.
    pub cover: f64,
}

/// A test of a value that is not missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// `x < t`
    Less(f64),
    /// `x <= t`
    AtMost(f64),
    /// `x == t`
    Equal(f64),
    /// `x`, truncated to an integer, is a code in this set of the tree; what is then negative or too large is in no set.
    Member(u32),
    /// The same, but what is negative before it is truncated is in no set.
    MemberFromZero(u32),
    /// `x` is a number in this list of the tree.
    OneOf(u32),
}

/// Which values are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// NaN.
    Nan,
    /// NaN, and everything of magnitude at most 1e-35.
    NanOrZero,
    /// Nothing: NaN is taken for 0.
    NanIsZero,
}

impl Node {
    /// Training weight that reached it; 0 where the format does not say.
    pub fn cover(&self) -> f64 {
        match self {
            Node::Split(split) => split.cover,
            Node::Leaf { cover, .. } => *cover,
        }
    }
}

impl Missing {
    /// The value that is compared; none when it is missing.
    #[inline]
    pub fn read(self, value: f64) -> Option<f64> {
        match self {
            Missing::Nan => (!value.is_nan()).then_some(value),
            Missing::NanOrZero => (value.abs() > ZERO_MAX).then_some(value),
            Missing::NanIsZero => Some(if value.is_nan() { 0.0 } else { value }),
        }
    }
}

impl Tree {
    /// Whether a value of the split's feature takes the branch `yes`. NaN is missing; the value is already rounded where
    /// [`Forest::compares_f32`] asks for it.
    #[inline]
    pub fn goes_yes(&self, split: &Split, value: f64) -> bool {
        let Some(value) = split.missing.read(value) else { return split.missing_is_yes };
        match split.test {
            Test::Less(threshold) => value < threshold,
            Test::AtMost(threshold) => value <= threshold,
            Test::Equal(threshold) => value == threshold,
            Test::Member(set) => is_member(&self.sets[set as usize], value),
            Test::MemberFromZero(set) => value >= 0.0 && is_member(&self.sets[set as usize], value),
            Test::OneOf(list) => is_among(&self.lists[list as usize], value),
        }
    }

    /// The additions of the leaf at `node`; empty when a split stands there.
    pub fn additions(&self, node: u32) -> &[LeafOutput] {
        match self.nodes[node as usize] {
            Node::Leaf { first, count, .. } => &self.leaf_outputs[first as usize..(first + count) as usize],
            Node::Split(_) => &[],
        }
    }

    /// The linear model of the leaf at `node`, if it has one.
    pub fn line(&self, node: u32) -> Option<&LeafLine> {
        self.lines.binary_search_by_key(&node, |line| line.node).ok().map(|at| &self.lines[at])
    }

    /// How many splits the longest way from the root passes.
    pub fn depth(&self) -> usize {
        let mut depths = vec![0_usize; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            if let Node::Split(split) = node {
                depths[split.yes as usize] = depths[at] + 1;
                depths[split.no as usize] = depths[at] + 1;
            }
        }
        depths.into_iter().max().unwrap_or(0)
    }
}

impl LeafLine {
    /// Its value for a row; none when a feature that it names is NaN. Terms are added in order, the constant first.
    pub fn value(&self, row: &[f64]) -> Option<f64> {
        let mut sum = self.constant;
        for (feature, coefficient) in &self.terms {
            let value = row[*feature as usize];
            if value.is_nan() {
                return None;
            }
            sum += coefficient * value;
        }
        Some(sum)
    }
}

/// Whether the value, truncated, is one of these ascending codes.
fn is_member(codes: &[u32], value: f64) -> bool {
    let code = value.trunc();
    code >= 0.0 && code <= f64::from(u32::MAX) && codes.binary_search(&(code as u32)).is_ok()
}

/// Whether the value is one of these ascending numbers.
fn is_among(numbers: &[f64], value: f64) -> bool {
    let at = numbers.partition_point(|number| *number < value);
    numbers.get(at).is_some_and(|number| *number == value)
}

impl Forest {
    /// The same forest when its invariants hold (see the module); `invalid` names the tree and the node otherwise.
    pub fn new(forest: Forest) -> Result<Forest> {
        if forest.outputs == 0 || forest.base.len() != forest.outputs as usize {
            let (outputs, base) = (forest.outputs, forest.base.len());
            return Err(Error::invalid(format!("a forest of {outputs} outputs has {base} base values; one each")));
        }
        for (number, tree) in forest.trees.iter().enumerate() {
            forest.check_tree(tree).map_err(|error| error.context(format_args!("tree {number}")))?;
        }
        Ok(forest)
    }

    fn check_tree(&self, tree: &Tree) -> Result<()> {
        if tree.nodes.is_empty() || u32::try_from(tree.nodes.len()).is_err() {
            return Err(Error::invalid(format!("it has {} nodes; at least one, below 2^32", tree.nodes.len())));
        }
        let mut has_parent = vec![false; tree.nodes.len()];
        for (at, node) in tree.nodes.iter().enumerate() {
            self.check_node(tree, at, node, &mut has_parent)
                .map_err(|error| error.context(format_args!("node {at}")))?;
        }
        if let Some(orphan) = has_parent.iter().skip(1).position(|has| !has) {
            return Err(Error::invalid(format!("no split leads to node {}", orphan + 1)));
        }
        let is_ascending = |codes: &[u32]| codes.windows(2).all(|pair| pair[0] < pair[1]);
        if let Some(set) = tree.sets.iter().position(|codes| !is_ascending(codes)) {
            return Err(Error::invalid(format!("the codes of set {set} are not ascending")));
        }
        // NaN is not below anything, so no list has it.
        let is_ascending = |numbers: &[f64]| {
            numbers.windows(2).all(|pair| pair[0] < pair[1]) && !numbers.first().is_some_and(|number| number.is_nan())
        };
        if let Some(list) = tree.lists.iter().position(|numbers| !is_ascending(numbers)) {
            return Err(Error::invalid(format!("the numbers of list {list} are not ascending")));
        }
        if let Some(addition) = tree.leaf_outputs.iter().find(|addition| addition.output >= self.outputs) {
            let (output, outputs) = (addition.output, self.outputs);
            return Err(Error::invalid(format!("a leaf adds to output {output}; there are {outputs}")));
        }
        self.check_lines(tree)
    }

    fn check_node(&self, tree: &Tree, at: usize, node: &Node, has_parent: &mut [bool]) -> Result<()> {
        let split = match node {
            Node::Split(split) => split,
            Node::Leaf { first, count, .. } => {
                return match first.checked_add(*count) {
                    Some(end) if end as usize <= tree.leaf_outputs.len() => Ok(()),
                    _ => Err(Error::invalid(format!(
                        "the leaf has {count} additions from {first} of {}",
                        tree.leaf_outputs.len()
                    ))),
                };
            }
        };
        if split.feature >= self.features {
            return Err(Error::invalid(format!("it asks for feature {} of {}", split.feature, self.features)));
        }
        match split.test {
            Test::Less(threshold) | Test::AtMost(threshold) | Test::Equal(threshold) if threshold.is_nan() => {
                return Err(Error::invalid("its threshold is NaN"));
            }
            Test::Member(set) | Test::MemberFromZero(set) if set as usize >= tree.sets.len() => {
                return Err(Error::invalid(format!("it asks for set {set} of {}", tree.sets.len())));
            }
            Test::OneOf(list) if list as usize >= tree.lists.len() => {
                return Err(Error::invalid(format!("it asks for list {list} of {}", tree.lists.len())));
            }
            _ => {}
        }
        for child in [split.yes, split.no] {
            let is_new = has_parent.get_mut(child as usize).is_some_and(|has| !std::mem::replace(has, true));
            if child as usize <= at || !is_new {
                let nodes = tree.nodes.len();
                return Err(Error::invalid(format!(
                    "its child {child} is not one of the {nodes} nodes, not behind it, or another's"
                )));
            }
        }
        Ok(())
    }

    fn check_lines(&self, tree: &Tree) -> Result<()> {
        if !tree.lines.windows(2).all(|pair| pair[0].node < pair[1].node) {
            return Err(Error::invalid("its linear models are not in ascending order of their leaves"));
        }
        for line in &tree.lines {
            let is_leaf = matches!(tree.nodes.get(line.node as usize), Some(Node::Leaf { count: 1.., .. }));
            if !is_leaf || line.terms.iter().any(|(feature, _)| *feature >= self.features) {
                return Err(Error::invalid(format!(
                    "the linear model of node {} is not in a leaf with a value, or asks for a feature beyond {}",
                    line.node, self.features
                )));
            }
        }
        Ok(())
    }

    /// Whether leaves are constants, as explanations need them.
    pub fn has_constant_leaves(&self) -> bool {
        self.trees.iter().all(|tree| tree.lines.is_empty())
    }

    /// The leaf that a row reaches, as the number of its node: the scalar reference. `row` has a value for each feature,
    /// NaN where it is missing; panics when it is shorter.
    pub fn leaf_of(&self, tree: &Tree, row: &[f64]) -> u32 {
        let mut at = 0;
        while let Node::Split(split) = &tree.nodes[at as usize] {
            let value = row[split.feature as usize];
            let value = if self.compares_f32 { f64::from(value as f32) } else { value };
            at = if tree.goes_yes(split, value) { split.yes } else { split.no };
        }
        at
    }

    /// The raw outputs of a row, before any link: the scalar reference. `out` has [`Forest::outputs`] places. The base
    /// is the first summand; with [`Forest::adds_f32`] every partial sum is rounded to `f32`.
    pub fn raw_margin(&self, row: &[f64], out: &mut [f64]) {
        let mut joined: Vec<Joined> = self.base.iter().map(|base| Joined::new(self, *base)).collect();
        for tree in &self.trees {
            let leaf = self.leaf_of(tree, row);
            let line = tree.line(leaf).and_then(|line| line.value(row));
            for (at, addition) in tree.additions(leaf).iter().enumerate() {
                let value = line.filter(|_| at == 0).unwrap_or(addition.value);
                joined[addition.output as usize].add(self, value);
            }
        }
        for ((out, joined), base) in out.iter_mut().zip(joined).zip(&self.base) {
            *out = joined.value(self, *base);
        }
    }
}

/// One output while leaves are added to it.
struct Joined {
    so_far: f64,
    is_empty: bool,
}

impl Joined {
    fn new(forest: &Forest, base: f64) -> Joined {
        Joined { so_far: if forest.join == Join::Sum { base } else { 0.0 }, is_empty: true }
    }

    fn add(&mut self, forest: &Forest, value: f64) {
        self.so_far = match forest.join {
            Join::Sum | Join::Average if forest.adds_f32 => f64::from(self.so_far as f32 + value as f32),
            Join::Sum | Join::Average => self.so_far + value,
            Join::Min if !self.is_empty => self.so_far.min(value),
            Join::Max if !self.is_empty => self.so_far.max(value),
            Join::Min | Join::Max => value,
        };
        self.is_empty = false;
    }

    fn value(self, forest: &Forest, base: f64) -> f64 {
        match forest.join {
            Join::Sum => self.so_far,
            Join::Average => self.so_far / forest.trees.len().max(1) as f64 + base,
            Join::Min | Join::Max => self.so_far + base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(test: Test, missing: Missing, missing_is_yes: bool) -> Node {
        Node::Split(Split { feature: 0, test, missing, missing_is_yes, yes: 1, no: 2, cover: 0.0 })
    }

    fn leaf(first: u32) -> Node {
        Node::Leaf { first, count: 1, cover: 0.0 }
    }

    fn forest(nodes: Vec<Node>) -> Forest {
        let leaf_outputs = [1.0, 2.0].map(|value| LeafOutput { output: 0, value }).to_vec();
        let lists = vec![vec![-2.5, 0.0, 1.5]];
        let tree = Tree { nodes, sets: vec![vec![0, 3, 70]], lists, leaf_outputs, lines: Vec::new() };
        Forest {
            trees: vec![tree],
            features: 1,
            outputs: 1,
            base: vec![10.0],
            join: Join::Sum,
            compares_f32: false,
            adds_f32: false,
        }
    }

    fn margin(forest: &Forest, value: f64) -> f64 {
        let mut out = [0.0];
        forest.raw_margin(&[value], &mut out);
        out[0]
    }

    #[test]
    fn tests_and_missing_values_do_what_they_say() {
        fn check(test: Test, missing: Missing, missing_is_yes: bool, yes: &[f64], no: &[f64]) {
            let forest = Forest::new(forest(vec![split(test, missing, missing_is_yes), leaf(0), leaf(1)])).unwrap();
            yes.iter().for_each(|value| assert_eq!(margin(&forest, *value), 11.0, "{test:?} {missing:?} {value}"));
            no.iter().for_each(|value| assert_eq!(margin(&forest, *value), 12.0, "{test:?} {missing:?} {value}"));
        }
        check(Test::Less(1.0), Missing::Nan, true, &[f64::NAN, 0.0, f64::NEG_INFINITY], &[1.0, f64::INFINITY]);
        check(Test::AtMost(1.0), Missing::Nan, false, &[0.0, 1.0], &[f64::NAN, 1.5]);
        check(Test::Equal(1.0), Missing::NanIsZero, false, &[1.0], &[f64::NAN, 0.0]);
        check(Test::AtMost(-1.0), Missing::NanOrZero, true, &[f64::NAN, 0.0, -1e-36, 1e-35, -1.0], &[2e-35, 1.0]);
        check(Test::Member(0), Missing::Nan, false, &[0.0, -0.5, 3.9, 70.0], &[-1.0, 1.0, 71.0, 1e300, f64::NAN]);
        check(Test::MemberFromZero(0), Missing::Nan, false, &[0.0, -0.0, 3.9], &[-1e-9, -0.5, -1.0, 1.0, f64::NAN]);
        check(Test::OneOf(0), Missing::Nan, true, &[-2.5, -0.0, 1.5, f64::NAN], &[-2.0, 1.0, 2.5, f64::INFINITY]);
    }

    #[test]
    fn what_breaks_an_invariant_is_refused() {
        fn check(change: impl Fn(&mut Forest), says: &str) {
            let mut broken = forest(vec![split(Test::Less(0.0), Missing::Nan, true), leaf(0), leaf(1)]);
            change(&mut broken);
            let error = Forest::new(broken).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
        check(|forest| forest.base.clear(), "0 base values");
        check(|forest| forest.features = 0, "feature 0 of 0");
        check(|forest| forest.trees[0].nodes.clear(), "0 nodes");
        check(|forest| forest.trees[0].nodes[0] = split(Test::Less(f64::NAN), Missing::Nan, true), "NaN");
        check(|forest| forest.trees[0].nodes[0] = split(Test::Member(1), Missing::Nan, true), "set 1 of 1");
        check(|forest| forest.trees[0].nodes[2] = leaf(2), "from 2 of 2");
        check(|forest| forest.trees[0].nodes.truncate(2), "child 2");
        check(|forest| forest.trees[0].nodes.push(leaf(0)), "no split leads to node 3");
        check(|forest| forest.trees[0].nodes[1] = split(Test::Less(0.0), Missing::Nan, true), "child 1");
        check(|forest| forest.trees[0].nodes[0] = split(Test::OneOf(1), Missing::Nan, true), "list 1 of 1");
        check(|forest| forest.trees[0].sets[0] = vec![2, 1], "not ascending");
        check(|forest| forest.trees[0].lists[0] = vec![2.0, 1.0], "not ascending");
        check(|forest| forest.trees[0].lists[0] = vec![f64::NAN], "not ascending");
        check(|forest| forest.trees[0].leaf_outputs[0].output = 1, "output 1");
        check(|forest| forest.trees[0].lines = vec![LeafLine { node: 0, constant: 0.0, terms: vec![] }], "node 0");
    }

    #[test]
    fn linear_leaves_fall_back_to_their_value() {
        let mut linear = forest(vec![split(Test::Less(5.0), Missing::Nan, true), leaf(0), leaf(1)]);
        linear.trees[0].lines = vec![LeafLine { node: 1, constant: 0.5, terms: vec![(0, 2.0)] }];
        let linear = Forest::new(linear).unwrap();
        assert!(!linear.has_constant_leaves());
        assert_eq!([1.0, 6.0, f64::NAN].map(|value| margin(&linear, value)), [12.5, 12.0, 11.0]);
    }

    #[test]
    fn values_are_joined_as_asked() {
        fn check(join: Join, expect: f64) {
            let mut two = forest(vec![leaf(0)]);
            two.trees.push(Tree { nodes: vec![leaf(1)], ..two.trees[0].clone() });
            let two = Forest::new(Forest { join, ..two }).unwrap();
            assert_eq!((margin(&two, 0.0), two.trees[0].depth()), (expect, 0));
        }
        check(Join::Sum, 13.0);
        check(Join::Average, 11.5);
        check(Join::Min, 11.0);
        check(Join::Max, 12.0);
    }
}
