//! Answers that stand in a plan, made into tensors.
//!
//! Owns the way from JSON values to the bytes of a tensor, for the last tier of the chain. Separate because it happens when a
//! plan is checked and made ready, never while a request waits.
//!
//! Bounded by [`ANSWER_TENSORS_MAX`] and [`ANSWER_ELEMENTS_MAX`]. On failure: `invalid`, with the path of the field.

use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_inference::{Datatype, InferAnswer, Tensor};
use serde_json::Value;
use smallvec::SmallVec;

use crate::limits::{ANSWER_ELEMENTS_MAX, ANSWER_TENSORS_MAX, check_count, check_text};
use crate::plan::{FixedAnswer, FixedTensor};

/// A datatype by the protocol's name.
pub(crate) fn datatype(at: &str, name: &str) -> Result<Datatype> {
    Ok(match name {
        "BOOL" => Datatype::Bool,
        "UINT8" => Datatype::Uint8,
        "UINT16" => Datatype::Uint16,
        "UINT32" => Datatype::Uint32,
        "UINT64" => Datatype::Uint64,
        "INT8" => Datatype::Int8,
        "INT16" => Datatype::Int16,
        "INT32" => Datatype::Int32,
        "INT64" => Datatype::Int64,
        "FP16" => Datatype::Fp16,
        "FP32" => Datatype::Fp32,
        "FP64" => Datatype::Fp64,
        "BF16" => Datatype::Bf16,
        "BYTES" => Datatype::Bytes,
        _ => {
            let shown: String = name.chars().take(32).collect();
            return Err(Error::invalid(format!(
                "`{at}` is `{shown}`; datatypes are `FP32`, `INT64`, `BYTES` and so on"
            )));
        }
    })
}

/// The answer as a caller gets it.
pub(crate) fn build(at: &str, fixed: &FixedAnswer) -> Result<InferAnswer> {
    let outputs = format!("{at}.outputs");
    check_count(&outputs, fixed.outputs.len(), ANSWER_TENSORS_MAX)?;
    let elements = fixed.outputs.iter().map(|tensor| tensor.data.len()).sum();
    check_count(&outputs, elements, ANSWER_ELEMENTS_MAX)?;
    let tensors =
        fixed.outputs.iter().enumerate().map(|(number, tensor)| build_tensor(&format!("{outputs}[{number}]"), tensor));
    Ok(InferAnswer { outputs: tensors.collect::<Result<_>>()?, ..InferAnswer::default() })
}

fn build_tensor(at: &str, fixed: &FixedTensor) -> Result<Tensor> {
    check_text(&format!("{at}.name"), &fixed.name)?;
    let datatype = datatype(&format!("{at}.datatype"), &fixed.datatype)?;
    let data = format!("{at}.data");
    let mut bytes = Vec::new();
    for value in &fixed.data {
        push(&mut bytes, datatype, value).ok_or_else(|| {
            let shown: String = value.to_string().chars().take(64).collect();
            Error::invalid(format!("`{data}` has {shown}, which is no {}", fixed.datatype))
        })?;
    }
    let shape = SmallVec::from_slice(&fixed.shape);
    let tensor = Tensor { name: fixed.name.clone(), datatype, shape, data: Bytes::from(bytes) };
    let count = tensor.count().map_err(|error| error.context(format!("`{at}.shape`")))?;
    match count == fixed.data.len() {
        true => Ok(tensor),
        false => Err(Error::invalid(format!(
            "`{data}` has {} elements; its shape {:?} has {count}",
            fixed.data.len(),
            fixed.shape
        ))),
    }
}

/// Half precision has no JSON form.
fn push(bytes: &mut Vec<u8>, datatype: Datatype, value: &Value) -> Option<()> {
    macro_rules! whole {
        ($type:ty, $as:ident) => {
            bytes.extend(<$type>::try_from(value.$as()?).ok()?.to_le_bytes())
        };
    }
    match datatype {
        Datatype::Bool => bytes.push(u8::from(value.as_bool()?)),
        Datatype::Uint8 => whole!(u8, as_u64),
        Datatype::Uint16 => whole!(u16, as_u64),
        Datatype::Uint32 => whole!(u32, as_u64),
        Datatype::Uint64 => whole!(u64, as_u64),
        Datatype::Int8 => whole!(i8, as_i64),
        Datatype::Int16 => whole!(i16, as_i64),
        Datatype::Int32 => whole!(i32, as_i64),
        Datatype::Int64 => whole!(i64, as_i64),
        Datatype::Fp32 => {
            let number = value.as_f64()? as f32;
            bytes.extend(number.is_finite().then_some(number)?.to_le_bytes());
        }
        Datatype::Fp64 => bytes.extend(value.as_f64()?.to_le_bytes()),
        Datatype::Bytes => {
            let text = value.as_str()?;
            bytes.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        Datatype::Fp16 | Datatype::Bf16 => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(datatype: &str, shape: &[u64], data: &str) -> FixedAnswer {
        let data = serde_json::from_str(data).unwrap();
        let tensor = FixedTensor { name: "y".into(), datatype: datatype.into(), shape: shape.to_vec(), data };
        FixedAnswer { label: "fixed".into(), outputs: vec![tensor] }
    }

    #[test]
    fn values_become_little_endian_elements() {
        fn check(datatype: &str, data: &str, expect: &[u8]) {
            let built = build("answer", &fixed(datatype, &[1], data)).unwrap();
            assert_eq!(&built.outputs[0].data[..], expect, "{datatype}");
        }
        check("BOOL", "[true]", &[1]);
        check("INT16", "[-2]", &[0xfe, 0xff]);
        check("UINT64", "[18446744073709551615]", &[0xff; 8]);
        check("FP32", "[0.5]", &[0, 0, 0, 0x3f]);
        check("FP64", "[1]", &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        check("BYTES", r#"["ab"]"#, b"\x02\0\0\0ab");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_the_name_of_its_field() {
        fn check(answer: FixedAnswer, expect: &str) {
            let error = build("plan.answer", &answer).unwrap_err();
            assert!(error.message().contains(expect), "{error}");
        }
        check(fixed("UINT8", &[1], "[256]"), "plan.answer.outputs[0].data");
        check(fixed("FP16", &[1], "[1]"), "no FP16");
        check(fixed("FP32", &[2], "[1]"), "has 1 elements; its shape [2] has 2");
        check(fixed("FP32", &[u64::MAX, 2], "[1]"), "plan.answer.outputs[0].shape");
        check(fixed("FLOAT", &[1], "[1]"), "plan.answer.outputs[0].datatype");
    }

    #[test]
    fn answers_have_a_largest_size() {
        let of = |elements: usize| {
            let data = vec![Value::from(1); elements];
            let tensor = FixedTensor { name: "y".into(), datatype: "INT8".into(), shape: vec![elements as u64], data };
            build("answer", &FixedAnswer { label: "fixed".into(), outputs: vec![tensor] })
        };
        of(ANSWER_ELEMENTS_MAX).unwrap();
        assert!(of(ANSWER_ELEMENTS_MAX + 1).unwrap_err().message().contains("65536"));
        let mut many = fixed("INT8", &[1], "[1]");
        many.outputs = vec![many.outputs[0].clone(); ANSWER_TENSORS_MAX];
        build("answer", &many).unwrap();
        many.outputs.push(many.outputs[0].clone());
        build("answer", &many).unwrap_err();
    }
}
