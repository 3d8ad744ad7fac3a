//! What an answer must look like before a caller sees it.
//!
//! Owns [`GuardState`]: a variant's guard made ready, with what it remembers of the last answers. Separate because a bad answer
//! is a failure like any other to breakers and fallbacks, and a caller must never get it as if it were a good one.
//!
//! Bounded by the answer's bytes, and [`FINGERPRINT_BYTES_MAX`] of the request. On failure: a reason that names the output.

use std::hash::Hasher;

use mainstay_base::Result;
use mainstay_inference::{Datatype, InferAnswer, InferRequest, Tensor};
use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use crate::answer::datatype;
use crate::elements;
use crate::limits::FINGERPRINT_BYTES_MAX;
use crate::spec::{Guard, OutputRule};

/// See the module.
pub(crate) struct GuardState {
    finite: bool,
    not_empty: bool,
    rules: Box<[Rule]>,
}

struct Rule {
    spec: OutputRule,
    datatype: Option<Datatype>,
    last: Mutex<Option<Last>>,
}

/// The last answer, and how many different requests in a row got it.
struct Last {
    request: u64,
    values: u64,
    in_a_row: u32,
}

impl GuardState {
    pub fn new(guard: &Guard) -> Result<GuardState> {
        let rule = |spec: &OutputRule| {
            let datatype = spec.datatype.as_deref().map(|name| datatype("datatype", name)).transpose()?;
            Ok(Rule { spec: spec.clone(), datatype, last: Mutex::new(None) })
        };
        let rules = guard.outputs.iter().map(rule).collect::<Result<_>>()?;
        Ok(GuardState { finite: guard.finite, not_empty: guard.not_empty, rules })
    }

    /// Whether the answer may be seen, or why not.
    pub fn check(&self, request: &InferRequest, answer: &InferAnswer) -> std::result::Result<(), String> {
        if self.not_empty && answer.outputs.is_empty() {
            return Err("it has no output".to_owned());
        }
        match self.finite {
            true => check_finite(answer)?,
            false => answer.outputs.iter().try_for_each(check_length)?,
        }
        self.rules.iter().try_for_each(|rule| rule.check(request, answer))
    }
}

impl Rule {
    fn check(&self, request: &InferRequest, answer: &InferAnswer) -> std::result::Result<(), String> {
        let name = &self.spec.output;
        let Some(output) = answer.outputs.iter().find(|output| output.name == *name) else {
            let is_asked = request.outputs.is_empty() || request.outputs.iter().any(|wanted| wanted.name == *name);
            return match self.spec.optional || !is_asked {
                true => Ok(()),
                false => Err(format!("output `{name}` is missing")),
            };
        };
        if let Some(expected) = self.datatype.filter(|expected| *expected != output.datatype) {
            return Err(format!("output `{name}` is {:?}, not {expected:?}", output.datatype));
        }
        if let Some(shape) = &self.spec.shape
            && !fits(shape, &output.shape)
        {
            return Err(format!("output `{name}` has the shape {:?}, not {shape:?}", output.shape));
        }
        self.check_range(output)?;
        self.check_constant(request, output)
    }

    fn check_range(&self, output: &Tensor) -> std::result::Result<(), String> {
        let (min, max) = (self.spec.min.unwrap_or(f64::NEG_INFINITY), self.spec.max.unwrap_or(f64::INFINITY));
        if self.spec.min.is_none() && self.spec.max.is_none() {
            return Ok(());
        }
        let mut outside = None;
        elements::all(output, |number| {
            // No number is in no range.
            let is_inside = (min..=max).contains(&number);
            outside = (!is_inside).then_some(number);
            is_inside
        });
        match outside {
            Some(number) => Err(format!("output `{}` has {number}, outside of {min} to {max}", output.name)),
            None => Ok(()),
        }
    }

    fn check_constant(&self, request: &InferRequest, output: &Tensor) -> std::result::Result<(), String> {
        let Some(after) = self.spec.constant_after else { return Ok(()) };
        let (request, values) = (fingerprint(request), hash(&output.data));
        let mut last = self.last.lock();
        let in_a_row = match &*last {
            Some(last) if last.values == values && last.request == request => last.in_a_row,
            Some(last) if last.values == values => last.in_a_row.saturating_add(1),
            _ => 1,
        };
        *last = Some(Last { request, values, in_a_row });
        match in_a_row >= after {
            true => Err(format!("output `{}` is the same for {in_a_row} requests in a row that differ", output.name)),
            false => Ok(()),
        }
    }
}

/// Whether all values of an answer are numbers.
pub(crate) fn check_finite(answer: &InferAnswer) -> std::result::Result<(), String> {
    answer.outputs.iter().try_for_each(|output| {
        check_length(output)?;
        match elements::is_float(output.datatype) && !elements::all(output, f64::is_finite) {
            true => Err(format!("output `{}` has a value that is infinite or no number", output.name)),
            false => Ok(()),
        }
    })
}

fn check_length(output: &Tensor) -> std::result::Result<(), String> {
    let Some(width) = elements::width(output.datatype) else { return Ok(()) };
    let expected = output.count().ok().and_then(|count| count.checked_mul(width));
    match expected == Some(output.data.len()) {
        true => Ok(()),
        false => Err(format!(
            "output `{}` has {} bytes, which is not what its shape {:?} says",
            output.name,
            output.data.len(),
            output.shape
        )),
    }
}

fn fits(expected: &[i64], shape: &[u64]) -> bool {
    let is_extent = |(expected, extent): (&i64, &u64)| *expected == -1 || u64::try_from(*expected) == Ok(*extent);
    expected.len() == shape.len() && expected.iter().zip(shape).all(is_extent)
}

/// What tells two requests apart: their first bytes.
fn fingerprint(request: &InferRequest) -> u64 {
    let mut hasher = SipHasher24::new();
    let mut left = FINGERPRINT_BYTES_MAX;
    for input in &request.inputs {
        let taken = input.data.len().min(left);
        hasher.write(&input.data[..taken]);
        hasher.write_usize(input.data.len());
        left -= taken;
    }
    hasher.finish()
}

fn hash(bytes: &[u8]) -> u64 {
    SipHasher24::new().hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use smallvec::SmallVec;

    fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: SmallVec::from_slice(shape),
            data: Bytes::from(data),
        }
    }

    fn answer(outputs: Vec<Tensor>) -> InferAnswer {
        InferAnswer { outputs, ..InferAnswer::default() }
    }

    fn rule(change: impl FnOnce(&mut OutputRule)) -> Guard {
        let mut rule = OutputRule {
            output: "y".into(),
            optional: false,
            datatype: None,
            shape: None,
            min: None,
            max: None,
            constant_after: None,
        };
        change(&mut rule);
        Guard { outputs: vec![rule], ..Guard::default() }
    }

    fn check(guard: &Guard, outputs: Vec<Tensor>, expect: Option<&str>) {
        let found = GuardState::new(guard).unwrap().check(&InferRequest::default(), &answer(outputs));
        match (found, expect) {
            (Ok(()), None) => {}
            (Err(found), Some(expect)) if found.contains(expect) => {}
            (found, expect) => panic!("{found:?}, not {expect:?}"),
        }
    }

    #[test]
    fn by_default_values_are_numbers_and_answers_are_not_empty() {
        let guard = Guard::default();
        check(&guard, vec![fp32("y", &[2], &[0.0, 1.0])], None);
        check(&guard, vec![], Some("no output"));
        check(&guard, vec![fp32("y", &[1], &[f32::NAN])], Some("`y`"));
        check(&guard, vec![fp32("y", &[1], &[f32::NEG_INFINITY])], Some("infinite"));
        check(&guard, vec![fp32("y", &[3], &[0.0, 1.0])], Some("8 bytes"));
        check(&guard, vec![fp32("y", &[u64::MAX, 2], &[0.0])], Some("its shape"));
        let loose = Guard { finite: false, not_empty: false, outputs: vec![] };
        check(&loose, vec![fp32("y", &[1], &[f32::NAN])], None);
        check(&loose, vec![], None);
    }

    #[test]
    fn an_output_has_the_shape_type_and_range_that_its_rule_says() {
        let one = |values: &[f32]| vec![fp32("y", &[values.len() as u64], values)];
        check(&rule(|rule| rule.shape = Some(vec![-1])), one(&[0.0, 1.0]), None);
        check(&rule(|rule| rule.shape = Some(vec![1])), one(&[0.0, 1.0]), Some("shape"));
        check(&rule(|rule| rule.shape = Some(vec![-1, 1])), one(&[0.0]), Some("shape"));
        check(&rule(|rule| rule.datatype = Some("FP32".into())), one(&[0.0]), None);
        check(&rule(|rule| rule.datatype = Some("FP64".into())), one(&[0.0]), Some("Fp64"));
        check(&rule(|rule| (rule.min, rule.max) = (Some(0.0), Some(1.0))), one(&[0.0, 1.0]), None);
        check(&rule(|rule| rule.max = Some(1.0)), one(&[0.5, 1.5]), Some("1.5"));
        check(&rule(|_| {}), vec![fp32("z", &[1], &[0.0])], Some("missing"));
        check(&rule(|rule| rule.optional = true), vec![fp32("z", &[1], &[0.0])], None);
    }

    #[test]
    fn the_same_answer_to_different_requests_is_bad_after_a_while() {
        let guard = GuardState::new(&rule(|rule| rule.constant_after = Some(3))).unwrap();
        let ask = |input: f32, output: f32| {
            let request = InferRequest { inputs: vec![fp32("x", &[1], &[input])], ..Default::default() };
            guard.check(&request, &answer(vec![fp32("y", &[1], &[output])])).is_ok()
        };
        assert!(ask(1.0, 0.5) && ask(2.0, 0.5));
        assert!(ask(2.0, 0.5), "the same request may get the same answer");
        assert!(!ask(3.0, 0.5));
        assert!(!ask(4.0, 0.5));
        assert!(ask(5.0, 0.6) && ask(6.0, 0.5));
    }

    #[test]
    fn requests_are_told_apart_by_their_first_bytes() {
        let of = |length: usize, last: u8| {
            let mut data = vec![0; length];
            data[length - 1] = last;
            let shape = SmallVec::from_slice(&[length as u64]);
            let input = Tensor { name: "x".into(), datatype: Datatype::Uint8, shape, data: Bytes::from(data) };
            fingerprint(&InferRequest { inputs: vec![input], ..Default::default() })
        };
        assert_ne!(of(FINGERPRINT_BYTES_MAX, 0), of(FINGERPRINT_BYTES_MAX, 1));
        assert_eq!(of(FINGERPRINT_BYTES_MAX + 1, 0), of(FINGERPRINT_BYTES_MAX + 1, 1));
        assert_ne!(of(FINGERPRINT_BYTES_MAX + 1, 0), of(FINGERPRINT_BYTES_MAX + 2, 0));
    }
}
