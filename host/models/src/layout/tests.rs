//! Random forests in canonical form: every layout, on everything this machine has, gives the bits of the scalar reference.

use proptest::prelude::*;

use super::simd::Machine;
use super::{Layout, Scratch, TILE_ROWS};
use crate::forest::{Forest, Join, LeafLine, LeafOutput, Missing, Node, Split, Test, Tree};
use crate::tile::Rows;

const FEATURES: u32 = 4;

/// Small numbers, so that values meet thresholds, and the edges of their types.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-8_i32..8).prop_map(|at| f64::from(at) / 2.0),
        2 => any::<i16>().prop_map(|at| f64::from(at) / 7.0),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(1e-35), Just(-0.0), Just(f64::MAX), Just(1e-300)],
    ]
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![6 => number(), 1 => Just(f64::NAN), 1 => Just(0.0)]
}

fn test(sets: usize) -> impl Strategy<Value = Test> {
    prop_oneof![
        // Nothing is below the lowest number; one such split would leave a whole forest to the reference.
        4 => number().prop_filter("it is above something", |at| *at > f64::NEG_INFINITY).prop_map(Test::Less),
        4 => number().prop_map(Test::AtMost),
        1 => number().prop_map(Test::Equal),
        1 => (0..sets as u32).prop_map(Test::Member),
        1 => (0..sets as u32).prop_map(Test::MemberFromZero),
        1 => (0..sets as u32).prop_map(Test::OneOf),
    ]
}

fn split() -> impl Strategy<Value = Split> {
    let missing = prop_oneof![Just(Missing::Nan), Just(Missing::NanOrZero), Just(Missing::NanIsZero)];
    (0..FEATURES, test(2), missing, any::<bool>()).prop_map(|(feature, test, missing, missing_is_yes)| Split {
        feature,
        test,
        missing,
        missing_is_yes,
        yes: 0,
        no: 0,
        cover: 0.0,
    })
}

/// Splits are hung on leaves that `places` choose: 0 always takes the newest (a chain), others spread.
fn tree(outputs: u32, splits: Vec<Split>, places: Vec<u16>, values: Vec<f64>) -> Tree {
    let mut nodes = vec![None];
    for (split, place) in splits.into_iter().zip(places) {
        let leaves: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].is_none()).collect();
        let at = leaves[leaves.len() - 1 - usize::from(place) % leaves.len()];
        let yes = nodes.len() as u32;
        nodes[at] = Some(Split { yes, no: yes + 1, ..split });
        nodes.extend([None, None]);
    }
    let lists = vec![vec![-1.5, 0.0, 2.0], vec![0.5]];
    let mut tree = Tree { sets: vec![vec![0, 2, 3], vec![1, 40]], lists, ..Tree::default() };
    for (at, split) in nodes.into_iter().enumerate() {
        let node = match split {
            Some(split) => Node::Split(split),
            None => {
                let first = tree.leaf_outputs.len() as u32;
                // Leaves of one output, of all, of none.
                let count = if at % 7 == 3 { outputs } else { u32::from(at % 11 != 5) };
                let output = |step: u32| if count == outputs { step } else { at as u32 % outputs };
                let value = |step: u32| values[(at + step as usize) % values.len()];
                tree.leaf_outputs
                    .extend((0..count).map(|step| LeafOutput { output: output(step), value: value(step) }));
                Node::Leaf { first, count, cover: 0.0 }
            }
        };
        tree.nodes.push(node);
    }
    tree
}

fn trees(outputs: u32, splits_max: usize) -> impl Strategy<Value = Vec<Tree>> {
    let places = prop_oneof![Just(1_u16), Just(u16::MAX)].prop_flat_map(|most| prop::collection::vec(0..most, 600));
    let values = prop::collection::vec(-10.0_f64..10.0, 1..40);
    let one = (prop::collection::vec(split(), 0..splits_max), places, values);
    prop::collection::vec(one.prop_map(move |(splits, places, values)| tree(outputs, splits, places, values)), 0..12)
}

fn forest() -> impl Strategy<Value = Forest> {
    let join = prop_oneof![6 => Just(Join::Sum), 2 => Just(Join::Average), 1 => Just(Join::Min), 1 => Just(Join::Max)];
    let sizes = prop_oneof![4 => Just(9_usize), 3 => Just(40), 1 => Just(300)];
    (1_u32..4, sizes).prop_flat_map(move |(outputs, splits_max)| {
        (trees(outputs, splits_max), join.clone(), any::<bool>(), any::<bool>()).prop_map(
            move |(trees, join, compares_f32, adds_f32)| Forest {
                trees,
                features: FEATURES,
                outputs,
                base: (0..outputs).map(|at| f64::from(at) * 0.25).collect(),
                join,
                compares_f32,
                adds_f32,
            },
        )
    })
}

/// Raw outputs and leaves by the scalar reference.
fn reference(forest: &Forest, rows: &[f64]) -> (Vec<f64>, Vec<u32>) {
    let (mut sums, mut leaves) = (Vec::new(), Vec::new());
    for row in rows.chunks_exact(FEATURES as usize) {
        let mut out = vec![0.0; forest.outputs as usize];
        forest.raw_margin(row, &mut out);
        sums.extend(out);
        leaves.extend(forest.trees.iter().map(|tree| forest.leaf_of(tree, row)));
    }
    (sums, leaves)
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_layout_gives_the_bits_of_the_reference(
        forest in forest(),
        values in prop::collection::vec(value(), 4..400),
        count in prop_oneof![1_usize..20, 60_usize..70, 250_usize..300],
    ) {
        let forest = Forest::new(forest).unwrap();
        let features = FEATURES as usize;
        let rows: Vec<f64> = values.iter().copied().cycle().skip(count).take(count * features).collect();
        let (sums, leaves) = reference(&forest, &rows);
        let given = Rows::F64 { values: &rows, features };
        for machine in Machine::all() {
            let layout = Layout::on(machine, &forest);
            let is_left = matches!(layout, Layout::Reference);
            prop_assert_eq!(is_left, matches!(forest.join, Join::Min | Join::Max), "{:?}", machine);
            let mut scratch = Scratch::default();
            // All at once, and from the second row on one by one.
            for (from, step) in [(0, count), (1.min(count - 1), 1)] {
                let outputs = forest.outputs as usize;
                let mut out = vec![0.0; (count - from) * outputs];
                let mut ends = vec![0; (count - from) * forest.trees.len()];
                for (row, out) in (from..count).step_by(step).zip(out.chunks_mut(step * outputs)) {
                    layout.raw(&forest, &given, row, out.len() / outputs, &mut scratch, out).unwrap();
                }
                prop_assert_eq!(bits(&out), bits(&sums[from * outputs..]), "{:?}", machine);
                layout.leaves(&forest, &given, from, count - from, &mut scratch, &mut ends).unwrap();
                prop_assert_eq!(&ends, &leaves[from * forest.trees.len()..]);
            }
        }
    }
}

#[test]
fn many_thresholds_take_several_columns() {
    let splits = |from: usize| -> Vec<Split> {
        let split = |at: usize| Split {
            feature: 0,
            test: Test::Less((from + at) as f64),
            missing: Missing::Nan,
            missing_is_yes: at.is_multiple_of(2),
            yes: 0,
            no: 0,
            cover: 0.0,
        };
        (0..40).map(split).collect()
    };
    let values: Vec<f64> = (0..37).map(f64::from).collect();
    let trees =
        (0..30).map(|at| tree(1, splits(at * 40), (0..40).map(|place| place * 7).collect(), values.clone())).collect();
    let (base, join) = (vec![0.0], Join::Sum);
    let forest = Forest { trees, features: FEATURES, outputs: 1, base, join, compares_f32: true, adds_f32: true };
    let forest = Forest::new(forest).unwrap();
    let rows: Vec<f64> =
        (0..4 * (TILE_ROWS + 9)).map(|at| if at % 53 == 0 { f64::NAN } else { at as f64 * 1.13 }).collect();
    let (sums, _) = reference(&forest, &rows);
    for machine in Machine::all() {
        let layout = Layout::on(machine, &forest);
        let mut out = vec![0.0; rows.len() / 4];
        let given = Rows::F64 { values: &rows, features: 4 };
        layout.raw(&forest, &given, 0, out.len(), &mut Scratch::default(), &mut out).unwrap();
        assert_eq!(bits(&out), bits(&sums), "{machine:?}");
    }
}

#[test]
fn what_layouts_cannot_do_is_left_to_the_reference() {
    let leaf = LeafOutput { output: 0, value: 1.0 };
    let node = Node::Leaf { first: 0, count: 2, cover: 0.0 };
    let lines = vec![LeafLine { node: 0, constant: 1.0, terms: vec![(0, 2.0)] }];
    let twice = Tree { nodes: vec![node], leaf_outputs: vec![leaf, leaf], ..Tree::default() };
    let linear = Tree { lines, ..twice.clone() };
    for tree in [twice, linear] {
        let forest = Forest {
            trees: vec![tree],
            features: 1,
            outputs: 1,
            base: vec![0.0],
            join: Join::Sum,
            compares_f32: false,
            adds_f32: false,
        };
        let layout = Layout::new(&Forest::new(forest.clone()).unwrap());
        assert!(matches!(layout, Layout::Reference));
        let (mut out, mut expected) = ([0.0], [0.0]);
        layout
            .raw(&forest, &Rows::F64 { values: &[3.0], features: 1 }, 0, 1, &mut Scratch::default(), &mut out)
            .unwrap();
        forest.raw_margin(&[3.0], &mut expected);
        assert_eq!(out, expected);
        let narrow = Rows::F64 { values: &[], features: 0 };
        assert!(layout.raw(&forest, &narrow, 0, 0, &mut Scratch::default(), &mut []).is_err());
    }
}
