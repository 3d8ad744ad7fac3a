//! The numbers in a tensor.
//!
//! Owns the way from a tensor's bytes to `f64`, for guards, scores and comparisons. Separate because all three only look, one
//! element after the other, and must not trust that the bytes are as long as the shape says.
//!
//! Bounded by the bytes that are there; allocates nothing. On failure: texts have no numbers.

use mainstay_inference::{Datatype, Tensor};

/// Bytes of one element; none of texts, which have a length each.
pub(crate) fn width(datatype: Datatype) -> Option<usize> {
    Some(match datatype {
        Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => 1,
        Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => 2,
        Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => 4,
        Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => 8,
        Datatype::Bytes => return None,
    })
}

/// Whether elements may be no number.
pub(crate) fn is_float(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64)
}

/// Look at all numbers until `look` says false. Answers whether it never did.
pub(crate) fn all(tensor: &Tensor, mut look: impl FnMut(f64) -> bool) -> bool {
    macro_rules! each {
        ($type:ty, $number:expr) => {{
            let (elements, _) = tensor.data.as_chunks();
            elements.iter().all(|element| look($number(<$type>::from_le_bytes(*element))))
        }};
    }
    match tensor.datatype {
        Datatype::Bool | Datatype::Uint8 => each!(u8, f64::from),
        Datatype::Int8 => each!(i8, f64::from),
        Datatype::Uint16 => each!(u16, f64::from),
        Datatype::Int16 => each!(i16, f64::from),
        Datatype::Uint32 => each!(u32, f64::from),
        Datatype::Int32 => each!(i32, f64::from),
        Datatype::Uint64 => each!(u64, |number| number as f64),
        Datatype::Int64 => each!(i64, |number| number as f64),
        Datatype::Fp16 => each!(u16, half),
        Datatype::Bf16 => each!(u16, |bits| f64::from(f32::from_bits(u32::from(bits) << 16))),
        Datatype::Fp32 => each!(f32, f64::from),
        Datatype::Fp64 => each!(f64, |number| number),
        Datatype::Bytes => true,
    }
}

/// One number, by its place.
pub(crate) fn at(tensor: &Tensor, place: usize) -> Option<f64> {
    let width = width(tensor.datatype)?;
    let start = place.checked_mul(width)?;
    let end = start.checked_add(width)?;
    if end > tensor.data.len() {
        return None;
    }
    let one = Tensor {
        name: String::new(),
        datatype: tensor.datatype,
        shape: Default::default(),
        data: tensor.data.slice(start..end),
    };
    let mut found = None;
    all(&one, |number| {
        found = Some(number);
        false
    });
    found
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction / 1_024.0) * 2_f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn tensor(datatype: Datatype, data: &[u8]) -> Tensor {
        Tensor { name: "y".into(), datatype, shape: Default::default(), data: Bytes::copy_from_slice(data) }
    }

    /// Values from the tables of IEEE 754-2008 and the definition of bfloat16.
    #[test]
    fn elements_are_read_as_their_datatype_says() {
        fn check(datatype: Datatype, data: &[u8], expect: f64) {
            assert_eq!(at(&tensor(datatype, data), 0), Some(expect), "{datatype:?}");
        }
        check(Datatype::Fp16, &0x3c00_u16.to_le_bytes(), 1.0);
        check(Datatype::Fp16, &0xc000_u16.to_le_bytes(), -2.0);
        check(Datatype::Fp16, &0x7bff_u16.to_le_bytes(), 65_504.0);
        check(Datatype::Fp16, &0x0001_u16.to_le_bytes(), 5.960_464_477_539_063e-8);
        check(Datatype::Fp16, &0x7c00_u16.to_le_bytes(), f64::INFINITY);
        check(Datatype::Bf16, &0x3f80_u16.to_le_bytes(), 1.0);
        check(Datatype::Int16, &(-3_i16).to_le_bytes(), -3.0);
        check(Datatype::Uint64, &u64::MAX.to_le_bytes(), 1.844_674_407_370_955_2e19);
        assert!(at(&tensor(Datatype::Fp16, &0x7e00_u16.to_le_bytes()), 0).unwrap().is_nan());
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        assert_eq!(at(&tensor(Datatype::Fp32, &[0; 7]), 1), None);
        assert_eq!(at(&tensor(Datatype::Fp32, &[0; 8]), usize::MAX), None);
        assert_eq!(at(&tensor(Datatype::Bytes, &[0; 8]), 0), None);
        let mut seen = 0;
        all(&tensor(Datatype::Fp32, &[0; 11]), |_| {
            seen += 1;
            true
        });
        assert_eq!(seen, 2);
    }
}
