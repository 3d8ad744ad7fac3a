//! A device's first question, whose answer is known.
//!
//! Owns a small forest with every kind of split and a batch with every kind of value. What the device says of them is held
//! against the scalar reference before anything else is asked of it: a driver, compiler or card that computes wrongly is found
//! here and not in somebody's answer. Bounded: a few hundred rows. On failure: `Lost` with the first wrong number.

use mainstay_models::Rows;
use mainstay_models::device::Part;
use mainstay_models::forest::{Forest, Join, LeafOutput, Missing, Node, Split, Test, Tree};

use crate::driver::Trouble;
use crate::forest::{Held, raw};
use crate::pack::FlatForest;
use crate::session::Session;
use crate::traffic::Traffic;

const FEATURES: usize = 4;
const ROWS: usize = 777;

fn split(feature: u32, test: Test, missing: Missing, yes: u32) -> Node {
    let missing_is_yes = feature.is_multiple_of(2);
    Node::Split(Split { feature, test, missing, missing_is_yes, yes, no: yes + 1, cover: 1.0 })
}

fn leaf(first: u32, count: u32) -> Node {
    Node::Leaf { first, count, cover: 1.0 }
}

fn tree(shift: f64, tests: [Test; 3], missing: Missing) -> Tree {
    Tree {
        nodes: vec![
            split(0, tests[0], missing, 1),
            split(1, tests[1], missing, 3),
            split(2, tests[2], missing, 5),
            leaf(0, 1),
            leaf(1, 2),
            leaf(3, 0),
            leaf(3, 1),
        ],
        sets: vec![vec![0, 2, 3]],
        lists: vec![vec![-1.0, 0.1, 2.5]],
        leaf_outputs: [(0, 0.1), (0, 0.7), (1, -0.3), (1, 1e-3)]
            .map(|(output, value)| LeafOutput { output, value: value + shift })
            .to_vec(),
        lines: Vec::new(),
    }
}

/// One of the four precisions.
fn forest(compares_f32: bool, adds_f32: bool, join: Join) -> Forest {
    let missing = [Missing::Nan, Missing::NanOrZero, Missing::NanIsZero];
    let tests = [
        [Test::Less(0.1), Test::AtMost(0.3), Test::Equal(0.5)],
        [Test::Member(0), Test::Less(-0.2), Test::OneOf(0)],
        [Test::AtMost(1.0), Test::MemberFromZero(0), Test::Less(0.7)],
    ];
    let trees = (0..41).map(|at| tree(f64::from(at) * 0.011, tests[at as usize % 3], missing[at as usize / 3 % 3]));
    Forest {
        trees: trees.collect(),
        features: FEATURES as u32,
        outputs: 2,
        base: vec![0.5, -0.25],
        join,
        compares_f32,
        adds_f32,
    }
}

fn values() -> Vec<f64> {
    const SPECIAL: [f64; 9] =
        [f64::NAN, 0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 0.1, 0.3, 1e-40, f32::MAX as f64 * 2.0];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let one = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match (state >> 33) % 16 {
            at if (at as usize) < SPECIAL.len() => SPECIAL[at as usize],
            _ => ((state >> 40) % 64) as f64 / 16.0 - 1.5,
        }
    };
    (0..ROWS * FEATURES).map(one).collect()
}

/// See the module.
pub(crate) fn self_check(session: &Session, traffic: &Traffic) -> Result<(), Trouble> {
    let values = values();
    let rows = Rows::F64 { values: &values, features: FEATURES };
    for (number, join) in [Join::Sum, Join::Average, Join::Sum, Join::Average].into_iter().enumerate() {
        let forest = forest(number & 1 == 0, number & 2 == 0, join);
        let flat =
            FlatForest::new(&forest).ok_or_else(|| Trouble::Lost("the self-check is not for a device".to_owned()))?;
        let held = Held::new(&session.context, &flat)?;
        let mut got = vec![f64::NAN; ROWS * 2];
        let parts = [Part { rows: &rows, range: 0..ROWS }];
        if !raw(session, &held, &parts, 500, &mut got, traffic)? {
            return Err(Trouble::Lost("the self-check found no lane".to_owned()));
        }
        let mut want = [0.0; 2];
        for (at, row) in values.chunks_exact(FEATURES).enumerate() {
            forest.raw_margin(row, &mut want);
            let got = &got[at * 2..at * 2 + 2];
            if got.iter().zip(&want).any(|(got, want)| got.to_bits() != want.to_bits()) {
                return Err(Trouble::Lost(format!(
                    "the device computes wrongly: {got:?} for row {at} of the self-check, where {want:?} is right"
                )));
            }
        }
    }
    Ok(())
}
