//! Fast ways against the published recursions, and both against Shapley's definition summed over all subsets.

use mainstay_arrays::{Column, Numbers, ValueType};
use mainstay_base::{ErrorKind, Random, SeededRandom};
use proptest::prelude::*;

use super::*;
use crate::forest::{LeafLine, LeafOutput, Missing, Node, Test};

/// What random forests are like.
#[derive(Clone, Copy, Debug)]
struct Kind {
    seed: u64,
    trees: usize,
    features: u32,
    outputs: u32,
    depth: usize,
    /// Whether a leaf adds to all outputs.
    wide_leaves: bool,
    join: Join,
}

struct Maker {
    random: SeededRandom,
    kind: Kind,
}

impl Maker {
    fn below(&self, bound: u64) -> u64 {
        self.random.number() % bound
    }

    /// One of few values, so that thresholds, zeros and missing values are met exactly.
    fn value(&self) -> f64 {
        match self.below(10) {
            0 => f64::NAN,
            1 => 0.0,
            _ => self.below(9) as f64 / 2.0 - 2.0,
        }
    }

    fn rows(&self, rows: usize) -> Vec<f64> {
        (0..rows * self.kind.features as usize).map(|_| self.value()).collect()
    }

    fn forest(&self) -> Forest {
        let Kind { features, outputs, join, .. } = self.kind;
        let base = (0..outputs).map(|at| f64::from(at) - 0.5).collect();
        let trees = (0..self.kind.trees).map(|_| self.tree()).collect();
        Forest::new(Forest { trees, features, outputs, base, join, compares_f32: false, adds_f32: false }).unwrap()
    }

    fn tree(&self) -> Tree {
        let lists = vec![vec![-1.5, 0.5], vec![1.0]];
        let mut tree = Tree { sets: vec![vec![0, 2], vec![1]], lists, ..Tree::default() };
        self.node(&mut tree, self.kind.depth);
        tree
    }

    /// Add a subtree whose children follow at once; returns its training weight.
    fn node(&self, tree: &mut Tree, depth: usize) -> f64 {
        let at = tree.nodes.len();
        if depth == 0 || self.below(8) == 0 && at > 0 {
            let outputs = u64::from(self.kind.outputs);
            let named = if self.kind.wide_leaves { 0..outputs } else { self.below(outputs)..outputs };
            let named = named.take(if self.kind.wide_leaves { outputs as usize } else { 1 });
            let (first, cover) = (tree.leaf_outputs.len() as u32, self.below(5) as f64);
            let added = |output| LeafOutput { output: output as u32, value: self.below(1000) as f64 / 100.0 - 5.0 };
            tree.leaf_outputs.extend(named.map(added));
            let count = tree.leaf_outputs.len() as u32 - first;
            tree.nodes.push(Node::Leaf { first, count, cover });
            return cover;
        }
        let threshold = self.below(9) as f64 / 2.0 - 2.0;
        let (comparisons, set) =
            ([Test::Less(threshold), Test::AtMost(threshold), Test::Equal(threshold)], at as u32 % 2);
        let tests = [&comparisons[..], &[Test::Member(set), Test::MemberFromZero(set), Test::OneOf(set)]].concat();
        let missing = [Missing::Nan, Missing::Nan, Missing::NanOrZero, Missing::NanIsZero];
        tree.nodes.push(Node::Leaf { first: 0, count: 0, cover: 0.0 });
        let yes = tree.nodes.len() as u32;
        let mut cover = self.node(tree, depth - 1);
        let no = tree.nodes.len() as u32;
        cover += self.node(tree, depth - 1);
        if at == 0 && cover == 0.0 {
            cover = 1.0;
            match &mut tree.nodes[no as usize] {
                Node::Leaf { cover, .. } => *cover = 1.0,
                Node::Split(split) => split.cover = 1.0,
            }
        }
        tree.nodes[at] = Node::Split(Split {
            feature: self.below(u64::from(self.kind.features)) as u32,
            test: tests[self.below(6) as usize],
            missing: missing[self.below(4) as usize],
            missing_is_yes: self.below(2) == 0,
            yes,
            no,
            cover,
        });
        cover
    }
}

impl Kind {
    fn maker(self) -> Maker {
        Maker { random: SeededRandom::new(self.seed), kind: self }
    }
}

fn kinds(features: u32, depth: usize) -> impl Strategy<Value = Kind> {
    let sizes = (any::<u64>(), 1_usize..4, 1..=features, 1_u32..4, 0..=depth);
    (sizes, any::<bool>(), any::<bool>()).prop_map(|((seed, trees, features, outputs, depth), wide_leaves, average)| {
        Kind {
            seed,
            trees,
            features,
            outputs,
            depth,
            wide_leaves,
            join: if average { Join::Average } else { Join::Sum },
        }
    })
}

fn explained(explainer: &Explainer, rows: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; rows.len() * explainer.forest.outputs as usize];
    explainer.explain(&rows_of(&explainer.forest, rows), &mut out).unwrap();
    out
}

/// Values as rows of this forest.
fn rows_of<'v>(forest: &Forest, values: &'v [f64]) -> Rows<'v> {
    Rows::F64 { values, features: forest.features as usize }
}

/// The published recursions for the same rows.
fn referred(forest: &Forest, background: Option<&[f64]>, rows: &[f64]) -> Vec<f64> {
    let (features, scale) = (forest.features as usize, scale(forest).unwrap());
    let explain = |row: &[f64]| {
        let mut sums = vec![0.0; features * forest.outputs as usize];
        for tree in &forest.trees {
            match background {
                None => reference::along_paths(&Shape::new(tree, true).unwrap(), row, scale, &mut sums),
                Some(background) => {
                    let scale = scale * features as f64 / background.len() as f64;
                    let pair = |other: &[f64]| pairs::against_one(tree, row, other, scale, &mut sums);
                    background.chunks(features).for_each(pair);
                }
            }
        }
        sums
    };
    rows.chunks(features).flat_map(explain).collect()
}

/// The raw margins of a row when only the features of a subset, given as bits, are known.
fn known(forest: &Forest, background: Option<&[f64]>, row: &[f64], subset: usize) -> Vec<f64> {
    let mut margins = vec![0.0; forest.outputs as usize];
    let Some(background) = background else {
        for tree in &forest.trees {
            weigh(tree, &Shape::new(tree, true).unwrap().share, row, subset, 0, scale(forest).unwrap(), &mut margins);
        }
        margins.iter_mut().zip(&forest.base).for_each(|(margin, base)| *margin += base);
        return margins;
    };
    let backgrounds = background.chunks(row.len());
    let share = 1.0 / backgrounds.len() as f64;
    for other in backgrounds {
        let pick = |at: usize| if subset >> at & 1 == 1 { row[at] } else { other[at] };
        let mixed: Vec<f64> = (0..row.len()).map(pick).collect();
        let mut own = vec![0.0; margins.len()];
        forest.raw_margin(&mixed, &mut own);
        margins.iter_mut().zip(own).for_each(|(margin, own)| *margin += own * share);
    }
    margins
}

fn weigh(tree: &Tree, share: &[f64], row: &[f64], subset: usize, node: usize, weight: f64, margins: &mut [f64]) {
    let Node::Split(split) = &tree.nodes[node] else {
        for added in tree.additions(node as u32) {
            margins[added.output as usize] += weight * added.value;
        }
        return;
    };
    let (yes, no) = (split.yes as usize, split.no as usize);
    if subset >> split.feature & 1 == 1 {
        let child = if tree.goes_yes(split, row[split.feature as usize]) { yes } else { no };
        return weigh(tree, share, row, subset, child, weight, margins);
    }
    for child in [yes, no] {
        weigh(tree, share, row, subset, child, weight * share[child], margins);
    }
}

/// Shapley's values by their definition.
fn by_subsets(forest: &Forest, background: Option<&[f64]>, row: &[f64]) -> Vec<f64> {
    let (features, outputs) = (row.len(), forest.outputs as usize);
    let values: Vec<Vec<f64>> = (0..1 << features).map(|subset| known(forest, background, row, subset)).collect();
    let mut sums = vec![0.0; outputs * features];
    for subset in 0..1_usize << features {
        for feature in (0..features).filter(|feature| subset >> feature & 1 == 0) {
            let size = subset.count_ones() as usize;
            let weight = pairs::share(size, features - 1 - size);
            for output in 0..outputs {
                let gained = values[subset | 1 << feature][output] - values[subset][output];
                sums[output * features + feature] += weight * gained;
            }
        }
    }
    sums
}

fn close(got: &[f64], expect: &[f64], within: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), expect.len());
    for (at, (got, expect)) in got.iter().zip(expect).enumerate() {
        prop_assert!((got - expect).abs() <= within, "value {at}: {got} for {expect}");
    }
    Ok(())
}

/// Explanations and the expected value sum to the raw margin.
fn additive(explainer: &Explainer, rows: &[f64], got: &[f64]) -> Result<(), TestCaseError> {
    let forest = &explainer.forest;
    let (features, outputs) = (forest.features as usize, forest.outputs as usize);
    for (row, got) in rows.chunks(features).zip(got.chunks(features * outputs)) {
        let mut margin = vec![0.0; outputs];
        forest.raw_margin(row, &mut margin);
        let sums =
            got.chunks(features).zip(explainer.expected_values()).map(|(own, base)| base + own.iter().sum::<f64>());
        close(&sums.collect::<Vec<f64>>(), &margin, 1e-9)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn all_ways_give_what_the_definition_sums(kind in kinds(6, 5)) {
        let maker = kind.maker();
        let (forest, row, background) = (maker.forest(), maker.rows(1), maker.rows(7));
        for background in [None, Some(background.as_slice())] {
            let expect = by_subsets(&forest, background, &row);
            close(&referred(&forest, background, &row), &expect, 1e-10)?;
            for bytes in [TABLE_BYTES_MAX, 0] {
                let explainer = Explainer::prepare(&forest, background.map(|rows| rows_of(&forest, rows)).as_ref(), bytes).unwrap();
                let got = explained(&explainer, &row);
                close(&got, &expect, 1e-10)?;
                close(explainer.expected_values(), &known(&forest, background, &row, 0), 1e-10)?;
                additive(&explainer, &row, &got)?;
            }
        }
    }

    #[test]
    fn all_ways_agree_with_the_published_recursions(kind in kinds(30, 9), rows in 1_usize..40) {
        let maker = kind.maker();
        let (forest, rows, background) = (maker.forest(), maker.rows(rows), maker.rows(20));
        for background in [None, Some(background.as_slice())] {
            let expect = referred(&forest, background, &rows);
            for bytes in [TABLE_BYTES_MAX, 40_000, 0] {
                let explainer = Explainer::prepare(&forest, background.map(|rows| rows_of(&forest, rows)).as_ref(), bytes).unwrap();
                prop_assert!(explainer.table_bytes() <= bytes);
                let got = explained(&explainer, &rows);
                close(&got, &expect, 1e-9)?;
                additive(&explainer, &rows, &got)?;
            }
        }
    }
}

const PLAIN: Kind =
    Kind { seed: 7, trees: 20, features: 12, outputs: 2, depth: 6, wide_leaves: false, join: Join::Sum };

#[test]
fn the_same_bits_at_any_number_of_threads_and_in_any_company() {
    let maker = PLAIN.maker();
    let (forest, rows) = (maker.forest(), maker.rows(3 * TILE_ROWS + 5));
    for bytes in [TABLE_BYTES_MAX, 0] {
        let explainer = Explainer::prepare(&forest, None, bytes).unwrap();
        let bits = |threads: usize| -> Vec<u64> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| explained(&explainer, &rows)).into_iter().map(f64::to_bits).collect()
        };
        let expect = bits(1);
        assert_eq!(bits(2), expect);
        assert_eq!(bits(5), expect);
        let width = PLAIN.features as usize;
        for at in [0, 1, TILE_ROWS + 3] {
            let alone = explained(&explainer, &rows[at * width..][..width]);
            let alone: Vec<u64> = alone.into_iter().map(f64::to_bits).collect();
            assert_eq!(alone, expect[at * width * 2..][..width * 2], "row {at}");
        }
    }
}

#[test]
fn single_precision_rows_are_the_same_rows() {
    let maker = PLAIN.maker();
    let (mut forest, rows) = (maker.forest(), maker.rows(9));
    let explainer = Explainer::new(&forest).unwrap();
    let narrow: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
    let mut out = vec![0.0; rows.len() * 2];
    explainer.explain(&Rows::F32 { values: &narrow, features: 12 }, &mut out).unwrap();
    assert_eq!(out, explained(&explainer, &rows));
    // What rounds to the row's value is the row's value where the forest rounds.
    forest.compares_f32 = true;
    let near: Vec<f64> = rows.iter().map(|value| value * (1.0 + 1e-12)).collect();
    assert_eq!(explained(&Explainer::new(&forest).unwrap(), &near), out);
}

#[test]
fn a_forest_too_large_for_tables_still_answers() {
    let deep = Kind { trees: 3, features: 40, depth: 13, outputs: 1, ..PLAIN };
    let maker = deep.maker();
    let (forest, rows) = (maker.forest(), maker.rows(3));
    let explainer = Explainer::new(&forest).unwrap();
    assert_eq!((explainer.tabled_trees(), explainer.table_bytes()), (0, 0));
    let got = explained(&explainer, &rows);
    close(&got, &referred(&forest, None, &rows), 1e-9).unwrap();
    additive(&explainer, &rows, &got).unwrap();
}

#[test]
fn tables_end_at_their_bound() {
    let forest = Kind { outputs: 1, ..PLAIN }.maker().forest();
    let all = Explainer::new(&forest).unwrap();
    assert_eq!(all.tabled_trees(), PLAIN.trees);
    assert_eq!(Explainer::prepare(&forest, None, all.table_bytes()).unwrap().tabled_trees(), PLAIN.trees);
    assert!(Explainer::prepare(&forest, None, all.table_bytes() - 1).unwrap().tabled_trees() < PLAIN.trees);
}

#[test]
fn nothing_to_explain_is_explained() {
    let forest = Forest { trees: Vec::new(), ..PLAIN.maker().forest() };
    let explainer = Explainer::new(&forest).unwrap();
    assert_eq!(explainer.expected_values(), forest.base);
    assert!(explained(&explainer, &[]).is_empty());
    assert_eq!(explained(&explainer, &[0.0; 12]), [0.0; 24]);
    let empty = Forest { features: 0, ..forest };
    Explainer::new(&empty).unwrap().explain(&Rows::Columns(&[]), &mut []).unwrap();
}

/// A tree whose every `yes` is a leaf and every `no` asks again.
fn chain(depth: usize) -> Forest {
    let mut tree = Tree { leaf_outputs: vec![LeafOutput { output: 0, value: 1.0 }], ..Tree::default() };
    for level in 0..depth as u32 {
        let (yes, no) = (2 * level + 1, 2 * level + 2);
        let test = Test::Less(f64::from(level));
        let cover = (depth - level as usize + 1) as f64;
        let (missing, missing_is_yes) = (Missing::Nan, false);
        tree.nodes.push(Node::Split(Split { feature: level, test, missing, missing_is_yes, yes, no, cover }));
        tree.nodes.push(Node::Leaf { first: 0, count: level % 2, cover: 1.0 });
    }
    tree.nodes.push(Node::Leaf { first: 0, count: 1, cover: 1.0 });
    let features = depth.max(1) as u32;
    Forest {
        trees: vec![tree],
        features,
        outputs: 1,
        base: vec![0.0],
        join: Join::Sum,
        compares_f32: false,
        adds_f32: false,
    }
}

#[test]
fn the_deepest_tree_is_explained_and_one_deeper_refused() {
    let row: Vec<f64> = (0..DEPTH_MAX).map(|at| at as f64 + 0.5).collect();
    let forest = chain(DEPTH_MAX);
    let along = Explainer::new(&forest).unwrap();
    additive(&along, &row, &explained(&along, &row)).unwrap();
    let other: Vec<f64> = row.iter().map(|value| value - 1.0).collect();
    let against = Explainer::against(&forest, &rows_of(&forest, &other)).unwrap();
    additive(&against, &row, &explained(&against, &row)).unwrap();
    refused(Explainer::new(&chain(DEPTH_MAX + 1)), "tree 0: it is 257 levels deep");
}

#[track_caller]
fn refused<T>(result: Result<T>, says: &str) {
    let error = result.err().expect("this is refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains(says), "{error}");
}

#[test]
fn what_cannot_be_explained_says_why() {
    fn check(change: impl Fn(&mut Forest), says: &str) {
        let mut forest = chain(3);
        change(&mut forest);
        refused(Explainer::new(&forest), says);
    }
    fn weigh(forest: &mut Forest, weight: f64) {
        for node in &mut forest.trees[0].nodes {
            match node {
                Node::Split(split) => split.cover = weight,
                Node::Leaf { cover, .. } => *cover = weight,
            }
        }
    }
    check(|forest| weigh(forest, 0.0), "background rows instead");
    check(|forest| weigh(forest, -1.0), "under node 0 are -1 and -1");
    check(|forest| weigh(forest, f64::NAN), "must be finite");
    check(|forest| weigh(forest, f64::INFINITY), "must be finite");
    check(|forest| forest.join = Join::Max, "smallest or greatest");
    check(|forest| forest.trees[0].lines = vec![LeafLine { node: 3, constant: 0.0, terms: vec![] }], "linear models");
    check(|forest| forest.trees[0].nodes.truncate(3), "child 3");
    let mut unweighted = chain(3);
    weigh(&mut unweighted, 0.0);
    let rows = |values: &'static [f64]| rows_of(&unweighted, values);
    Explainer::against(&unweighted, &rows(&[0.0; 3])).unwrap();
    refused(Explainer::against(&unweighted, &rows(&[])), "a background of 0 rows");
    refused(Explainer::against(&unweighted, &rows(&[0.0; 4])), "whole rows");
    refused(Explainer::against(&unweighted, &Rows::F64 { values: &[0.0; 4], features: 2 }), "2 rows of 2 features");
    let explainer = Explainer::new(&chain(3)).unwrap();
    refused(explainer.explain(&rows(&[0.0; 4]), &mut [0.0; 4]), "whole rows");
    refused(explainer.explain(&rows(&[0.0; 3]), &mut [0.0; 4]), "room for 4");
    refused(explainer.explain(&Rows::F64 { values: &[0.0; 2], features: 2 }, &mut [0.0; 3]), "1 rows of 2 features");
}

#[test]
fn columns_in_chunks_are_the_same_rows() {
    let maker = PLAIN.maker();
    let (forest, values) = (maker.forest(), maker.rows(TILE_ROWS + 9));
    let features = forest.features as usize;
    let columns: Vec<Column> = (0..features)
        .map(|at| {
            let column: Vec<f64> = values.iter().skip(at).step_by(features).copied().collect();
            let there: Vec<bool> = column.iter().map(|value| !value.is_nan()).collect();
            let whole = Column::f64(&column, Some(&there));
            let chunks = [whole.slice(0, 100 + at).unwrap(), whole.slice(100 + at, column.len() - 100 - at).unwrap()];
            let chunks = chunks.iter().flat_map(|chunk| chunk.arrow().to_vec()).collect();
            Column::from_arrow(ValueType::F64, chunks).unwrap()
        })
        .collect();
    let numbers: Vec<Numbers<'_>> = columns.iter().map(|column| column.numbers().unwrap()).collect();
    let explainer = Explainer::new(&forest).unwrap();
    let mut out = vec![0.0; values.len() * 2];
    explainer.explain(&Rows::Columns(&numbers), &mut out).unwrap();
    assert_eq!(out, explained(&explainer, &values));
    let by_columns = Explainer::against(&forest, &Rows::Columns(&numbers)).unwrap();
    let by_rows = Explainer::against(&forest, &rows_of(&forest, &values)).unwrap();
    assert_eq!(explained(&by_columns, &values[..features]), explained(&by_rows, &values[..features]));
}
