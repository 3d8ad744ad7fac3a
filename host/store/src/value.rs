//! Typed values of index fields, and the one total order among them.
//!
//! Owns [`Value`] and what it means that one value is greater than another. Separate from the index because transactions
//! and the log's records carry values too, and because two orders must not be mixed up: the *numeric* one that filters and
//! orders use (an integer and a real compare exactly, NaN with nothing), and the *total* one that decides between two
//! ranked writes (so that every order of arrival ends in the same value).
//!
//! Bounded by the transaction that carries the values. Nothing here fails.

use std::cmp::Ordering;

/// One typed value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A real number; may be NaN or infinite.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// Several texts, of which a filter needs only one to match; sorts by its first.
    Texts(Vec<String>),
    /// Bytes, kept and returned, never filtered or ordered.
    Bytes(Vec<u8>),
}

/// Which of two writes to one field is the newer: compared by the first number, then by the second.
pub type Rank = (i64, i64);

impl Value {
    /// The type's name, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Integer(_) => "integer",
            Value::Real(_) => "real",
            Value::Boolean(_) => "boolean",
            Value::Texts(_) => "texts",
            Value::Bytes(_) => "bytes",
        }
    }

    /// About how many bytes the value takes when it is written down.
    pub fn size_bytes(&self) -> usize {
        match self {
            Value::Text(text) => 4 + text.len(),
            Value::Integer(_) | Value::Real(_) => 8,
            Value::Boolean(_) => 1,
            Value::Texts(texts) => 4 + texts.iter().map(|text| 4 + text.len()).sum::<usize>(),
            Value::Bytes(bytes) => 4 + bytes.len(),
        }
    }

    /// The total order that decides between ranked writes of equal rank: by type, and within numbers NaN first, then by
    /// size; what is numerically equal but not the same (1 and 1.0, -0.0 and 0.0) is ordered too, so no write order shows.
    pub fn total_cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Texts(a), Value::Texts(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            _ => self.class().cmp(&other.class()).then_with(|| self.number_cmp(other)),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Value::Integer(_) | Value::Real(_) => 0,
            Value::Text(_) => 1,
            Value::Boolean(_) => 2,
            Value::Texts(_) => 3,
            Value::Bytes(_) => 4,
        }
    }

    fn number_cmp(&self, other: &Value) -> Ordering {
        // `None` (NaN) is less than every `Some`.
        self.number().cmp(&other.number()).then_with(|| match (self, other) {
            (Value::Integer(_), Value::Real(_)) => Ordering::Less,
            (Value::Real(_), Value::Integer(_)) => Ordering::Greater,
            (Value::Real(a), Value::Real(b)) => canonical(*a).total_cmp(&canonical(*b)),
            _ => Ordering::Equal,
        })
    }

    /// The number as an exactly comparable key; none for NaN and for everything that is no number.
    pub fn number(&self) -> Option<Number> {
        match self {
            Value::Integer(integer) => Some(Number::from_integer(*integer)),
            Value::Real(real) => Number::from_real(*real),
            _ => None,
        }
    }
}

/// The same real with one bit pattern for NaN, so that equal columns are equal bytes.
pub(crate) fn canonical(real: f64) -> f64 {
    if real.is_nan() { f64::NAN } else { real }
}

/// A number that compares exactly, whether it came from an integer or from a real.
///
/// An integer is kept as the nearest real and what that rounding lost. Rounding is monotonic, so comparing first the reals
/// and then the losses is comparing the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// Bits of the real, changed so that they order as unsigned integers.
    ordered_bits: u64,
    /// Integer minus its nearest real; at most 512 in size.
    lost: i16,
}

impl Number {
    /// Exactly this integer.
    pub fn from_integer(integer: i64) -> Number {
        const EXACT_MAX: u64 = 1 << 53;
        let real = integer as f64;
        let lost = if integer.unsigned_abs() <= EXACT_MAX { 0 } else { (integer as i128 - real as i128) as i16 };
        Number { ordered_bits: ordered_bits(real), lost }
    }

    /// Exactly this real; none for NaN.
    pub fn from_real(real: f64) -> Option<Number> {
        (!real.is_nan()).then(|| Number { ordered_bits: ordered_bits(real), lost: 0 })
    }

    /// Ten bytes that order as the numbers do.
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.ordered_bits.to_be_bytes());
        bytes[8..].copy_from_slice(&((self.lost as u16) ^ 0x8000).to_be_bytes());
        bytes
    }
}

fn ordered_bits(real: f64) -> u64 {
    // Adding zero makes -0.0 into 0.0: they are one number.
    let bits = (real + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The numeric comparison by 128-bit integers and case distinction, written to be obviously right.
    fn compare_slowly(integer: i64, real: f64) -> Ordering {
        if real >= 9_223_372_036_854_775_808.0 {
            return Ordering::Less;
        }
        if real < -9_223_372_036_854_775_808.0 {
            return Ordering::Greater;
        }
        let whole = real.trunc();
        (integer as i128).cmp(&(whole as i128)).then_with(|| 0.0f64.partial_cmp(&(real - whole)).expect("no NaN here"))
    }

    fn number() -> impl Strategy<Value = Value> {
        let edges = prop::sample::select(vec![
            Value::Integer(i64::MAX),
            Value::Integer(i64::MIN),
            Value::Integer((1 << 53) + 1),
            Value::Real(9_007_199_254_740_992.0),
            Value::Real(9_223_372_036_854_775_808.0),
            Value::Real(-0.0),
            Value::Real(0.0),
            Value::Integer(0),
            Value::Real(f64::NAN),
            Value::Real(f64::INFINITY),
            Value::Real(f64::NEG_INFINITY),
        ]);
        prop_oneof![edges, any::<i64>().prop_map(Value::Integer), any::<f64>().prop_map(Value::Real)]
    }

    proptest! {
        #[test]
        fn integers_and_reals_compare_exactly(integer in any::<i64>(), near in -600i64..600, real in any::<f64>()) {
            for real in [real, integer as f64, integer.saturating_add(near) as f64] {
                if let Some(key) = Number::from_real(real) {
                    prop_assert_eq!(Number::from_integer(integer).cmp(&key), compare_slowly(integer, real));
                }
            }
        }

        #[test]
        fn bytes_order_as_numbers(a in number(), b in number()) {
            if let (Some(a), Some(b)) = (a.number(), b.number()) {
                prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            }
        }

        #[test]
        fn the_total_order_is_one(a in number(), b in number(), c in number()) {
            prop_assert_eq!(a.total_cmp(&b), b.total_cmp(&a).reverse());
            if a.total_cmp(&b).is_le() && b.total_cmp(&c).is_le() {
                prop_assert!(a.total_cmp(&c).is_le());
            }
        }
    }

    #[test]
    fn nan_is_least_and_nothing_distinct_is_equal() {
        fn check(less: Value, greater: Value) {
            assert_eq!(less.total_cmp(&greater), Ordering::Less, "{less:?} {greater:?}");
        }
        check(Value::Real(f64::NAN), Value::Real(f64::NEG_INFINITY));
        check(Value::Real(f64::NAN), Value::Integer(i64::MIN));
        check(Value::Integer(1), Value::Real(1.0));
        check(Value::Real(-0.0), Value::Real(0.0));
        check(Value::Integer(i64::MAX), Value::Real(9_223_372_036_854_775_808.0));
        assert_eq!(Value::Real(f64::NAN).total_cmp(&Value::Real(-f64::NAN)), Ordering::Equal);
    }
}
