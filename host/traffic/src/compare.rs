//! Whether two answers to the same request agree.
//!
//! Owns [`compare`]: element by element, with an absolute and a relative tolerance. Separate because it is pure, and runs behind
//! the answers, never in their way.
//!
//! Bounded by the answers' bytes. Does not fail: what cannot be compared does not agree.

use mainstay_inference::{Datatype, InferAnswer, Tensor};

use crate::elements;
use crate::plan::Comparison;

/// Whether they agree, and the largest absolute difference of two numbers.
pub(crate) fn compare(rule: &Comparison, given: &InferAnswer, mirrored: &InferAnswer) -> (bool, f64) {
    let find = |answer: &InferAnswer, name: &str| answer.outputs.iter().position(|output| output.name == name);
    let named = rule.outputs.iter().map(|name| find(given, name).zip(find(mirrored, name)));
    let all = given.outputs.iter().enumerate().map(|(place, output)| Some(place).zip(find(mirrored, &output.name)));
    let pairs: Vec<_> = if rule.outputs.is_empty() { all.collect() } else { named.collect() };
    let mut result = (true, 0.0_f64);
    for pair in pairs {
        let (agrees, difference) = match pair {
            Some((ours, theirs)) => compare_tensors(rule, &given.outputs[ours], &mirrored.outputs[theirs]),
            None => (false, 0.0),
        };
        result = (result.0 && agrees, result.1.max(difference));
    }
    result
}

fn compare_tensors(rule: &Comparison, ours: &Tensor, theirs: &Tensor) -> (bool, f64) {
    if ours.shape != theirs.shape || ours.datatype != theirs.datatype || ours.data.len() != theirs.data.len() {
        return (false, 0.0);
    }
    if ours.datatype == Datatype::Bytes || ours.data == theirs.data {
        return (ours.data == theirs.data, 0.0);
    }
    let mut numbers = Vec::new();
    elements::all(ours, |number| {
        numbers.push(number);
        true
    });
    let (mut numbers, mut agrees, mut largest) = (numbers.into_iter(), true, 0.0_f64);
    elements::all(theirs, |their| {
        let our = numbers.next().unwrap_or(f64::NAN);
        let difference = (our - their).abs();
        let allowed = rule.absolute.max(rule.relative * our.abs().max(their.abs()));
        // Two values that are both no number, or the same infinity, agree.
        agrees &= difference <= allowed || our == their || our.is_nan() && their.is_nan();
        if difference.is_finite() {
            largest = largest.max(difference);
        }
        true
    });
    (agrees, largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use smallvec::smallvec;

    fn fp64(name: &str, values: &[f64]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = smallvec![values.len() as u64];
        Tensor { name: name.into(), datatype: Datatype::Fp64, shape, data: Bytes::from(data) }
    }

    fn text(value: &'static [u8]) -> Tensor {
        Tensor { name: "y".into(), datatype: Datatype::Bytes, shape: smallvec![1], data: Bytes::from_static(value) }
    }

    fn check(ours: Vec<Tensor>, theirs: Vec<Tensor>, expect: (bool, f64)) {
        let rule = Comparison { absolute: 0.25, relative: 0.125, ..Comparison::default() };
        let of = |outputs: Vec<Tensor>| InferAnswer { outputs, ..InferAnswer::default() };
        let (ours, theirs) = (of(ours), of(theirs));
        assert_eq!(compare(&rule, &ours, &theirs), expect, "{ours:?} {theirs:?}");
    }

    #[test]
    fn answers_agree_within_their_tolerance() {
        let y = |values: &[f64]| vec![fp64("y", values)];
        check(y(&[1.0, 2.0]), y(&[1.0, 2.25]), (true, 0.25));
        check(y(&[1.0, 2.0]), y(&[1.0, 2.5]), (false, 0.5));
        check(y(&[100.0]), y(&[110.0]), (true, 10.0));
        check(y(&[f64::NAN, f64::INFINITY]), y(&[-f64::NAN, f64::INFINITY]), (true, 0.0));
        check(y(&[f64::NAN]), y(&[1.0]), (false, 0.0));
        check(y(&[1.0]), y(&[1.0, 1.0]), (false, 0.0));
    }

    #[test]
    fn outputs_that_are_missing_or_texts_that_differ_do_not_agree() {
        check(vec![fp64("y", &[1.0])], vec![fp64("z", &[1.0])], (false, 0.0));
        check(vec![fp64("y", &[1.0])], vec![fp64("y", &[1.0]), fp64("z", &[1.0])], (true, 0.0));
        check(vec![text(b"\x01\0\0\0a")], vec![text(b"\x01\0\0\0a")], (true, 0.0));
        check(vec![text(b"\x01\0\0\0a")], vec![text(b"\x01\0\0\0b")], (false, 0.0));
    }

    #[test]
    fn only_the_named_outputs_are_compared() {
        let rule = Comparison { outputs: vec!["y".into()], ..Comparison::default() };
        let of = |z: f64| InferAnswer { outputs: vec![fp64("y", &[1.0]), fp64("z", &[z])], ..InferAnswer::default() };
        assert!(compare(&rule, &of(1.0), &of(2.0)).0);
        let missing = Comparison { outputs: vec!["x".into()], ..Comparison::default() };
        assert!(!compare(&missing, &of(1.0), &of(1.0)).0);
    }
}
