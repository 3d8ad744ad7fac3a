//! The types of number that the loops run over, and how each stands to 64-bit reals and to the others.
//!
//! Owns rounding to a type, in each direction, and which numbers a type can hold. Separate because every operation rests
//! on it and it is easy to get wrong: the largest 64-bit integer has no 64-bit real, `as` saturates. No state, no failure.

use arrow_array::ArrowPrimitiveType;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type};

use crate::types::ValueType;
use crate::view::Number;

/// A type of number.
pub trait Native: Number {
    /// Arrow's name for it.
    type Arrow: ArrowPrimitiveType<Native = Self>;
    /// Our name for it.
    const TYPE: ValueType;
    /// Whether it has NaN and infinities.
    const IS_REAL: bool;

    /// Whether it is NaN; never for integers.
    fn is_nan(self) -> bool;
    /// The least of this type that is no less than `value`, if there is one. Not for NaN.
    fn up(value: f64) -> Option<Self>;
    /// The greatest of this type that is no more than `value`, if there is one. Not for NaN.
    fn down(value: f64) -> Option<Self>;
    /// The nearest of this type for reals, NaN included; the same for integers, if there is one.
    fn of(value: f64) -> Option<Self>;
    /// The index that it is: itself if whole and not negative, else one beyond every list.
    fn code(self) -> usize;

    /// Itself as an `f32`, and whether that can hold it; digits may be lost. What comes when it cannot means nothing.
    fn to_real32(self) -> (f32, bool);
    /// The same as an `f64`.
    fn to_real64(self) -> (f64, bool);
    /// The same as an `i32`.
    fn to_integer32(self) -> (i32, bool);
    /// The same as an `i64`.
    fn to_integer64(self) -> (i64, bool);
    /// The same as a `u8`.
    fn to_byte(self) -> (u8, bool);

    /// This very number in this type, if it has it. Not for NaN.
    fn exactly(value: f64) -> Option<Self> {
        Self::up(value).filter(|up| Self::down(value).is_some_and(|down| down == *up))
    }
}

/// The first number beyond a type of integers, as a real: a power of two, so exact where the greatest integer is not.
macro_rules! beyond {
    ($integer:ty, $real:ty) => {
        (<$integer>::MAX / 2 + 1) as $real * 2.0
    };
}

/// `$value` as a `$to`, and whether that can hold it.
macro_rules! convert {
    ($value:expr, integer $from:ty => integer $to:ty) => {
        ($value as $to, <$to>::try_from($value).is_ok())
    };
    ($value:expr, integer $from:ty => real $to:ty) => {
        ($value as $to, true)
    };
    ($value:expr, real $from:ty => integer $to:ty) => {{
        let whole = $value as $to;
        (whole, (whole as $from == $value) & ($value < beyond!($to, $from)))
    }};
    ($value:expr, real $from:ty => real $to:ty) => {{
        let near = $value as $to;
        // A finite number that became infinite is infinitely far off; an infinity that stayed one is NaN off.
        (near, (near as f64 - $value as f64).abs() != f64::INFINITY)
    }};
}

macro_rules! conversions {
    ($kind:ident $native:ty) => {
        #[inline(always)]
        fn to_real32(self) -> (f32, bool) {
            convert!(self, $kind $native => real f32)
        }
        #[inline(always)]
        fn to_real64(self) -> (f64, bool) {
            convert!(self, $kind $native => real f64)
        }
        #[inline(always)]
        fn to_integer32(self) -> (i32, bool) {
            convert!(self, $kind $native => integer i32)
        }
        #[inline(always)]
        fn to_integer64(self) -> (i64, bool) {
            convert!(self, $kind $native => integer i64)
        }
        #[inline(always)]
        fn to_byte(self) -> (u8, bool) {
            convert!(self, $kind $native => integer u8)
        }
    };
}

macro_rules! integer {
    ($native:ty, $arrow:ty, $type:ident) => {
        impl Native for $native {
            type Arrow = $arrow;
            const TYPE: ValueType = ValueType::$type;
            const IS_REAL: bool = false;

            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }

            fn up(value: f64) -> Option<Self> {
                let up = value.ceil();
                (up < beyond!($native, f64)).then_some(up as $native)
            }

            fn down(value: f64) -> Option<Self> {
                let down = value.floor();
                (down >= <$native>::MIN as f64).then_some(down as $native)
            }

            fn of(value: f64) -> Option<Self> {
                let (whole, fits) = convert!(value, real f64 => integer $native);
                fits.then_some(whole)
            }

            #[inline(always)]
            fn code(self) -> usize {
                usize::try_from(self).unwrap_or(usize::MAX)
            }

            conversions!(integer $native);
        }
    };
}

integer!(i32, Int32Type, I32);
integer!(i64, Int64Type, I64);
integer!(u8, UInt8Type, U8);

impl Native for f64 {
    type Arrow = Float64Type;
    const TYPE: ValueType = ValueType::F64;
    const IS_REAL: bool = true;

    #[inline(always)]
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }

    fn up(value: f64) -> Option<f64> {
        Some(value)
    }

    fn down(value: f64) -> Option<f64> {
        Some(value)
    }

    fn of(value: f64) -> Option<f64> {
        Some(value)
    }

    #[inline(always)]
    fn code(self) -> usize {
        real_code(self)
    }

    conversions!(real f64);
}

impl Native for f32 {
    type Arrow = Float32Type;
    const TYPE: ValueType = ValueType::F32;
    const IS_REAL: bool = true;

    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }

    fn up(value: f64) -> Option<f32> {
        let near = value as f32;
        Some(if f64::from(near) < value { near.next_up() } else { near })
    }

    fn down(value: f64) -> Option<f32> {
        let near = value as f32;
        Some(if f64::from(near) > value { near.next_down() } else { near })
    }

    fn of(value: f64) -> Option<f32> {
        let (near, fits) = convert!(value, real f64 => real f32);
        fits.then_some(near)
    }

    #[inline(always)]
    fn code(self) -> usize {
        real_code(f64::from(self))
    }

    conversions!(real f32);
}

/// Codes are 32 bits wide at most here, so that wide code can be made of it.
#[inline(always)]
fn real_code(value: f64) -> usize {
    let whole = value as u32;
    if f64::from(whole) == value { whole as usize } else { usize::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_63: f64 = 9_223_372_036_854_775_808.0;

    #[test]
    fn numbers_are_rounded_to_a_type_in_either_direction() {
        fn check<T: Native>(value: f64, down: Option<T>, up: Option<T>) {
            assert_eq!((T::down(value), T::up(value)), (down, up), "{value} as {}", T::TYPE);
            assert_eq!(T::exactly(value), if down == up { up } else { None }, "{value} as {}", T::TYPE);
        }
        check::<u8>(-0.5, None, Some(0));
        check::<u8>(-1.0, None, Some(0));
        check::<u8>(254.5, Some(254), Some(255));
        check::<u8>(255.0, Some(255), Some(255));
        check::<u8>(255.5, Some(255), None);
        check::<i32>(f64::INFINITY, Some(i32::MAX), None);
        check::<i32>(f64::NEG_INFINITY, None, Some(i32::MIN));
        check::<i64>(TWO_63, Some(i64::MAX), None);
        check::<i64>(TWO_63.next_down(), Some(i64::MAX - 1023), Some(i64::MAX - 1023));
        check::<i64>(-TWO_63, Some(i64::MIN), Some(i64::MIN));
        check::<i64>((-TWO_63).next_down(), None, Some(i64::MIN));
        check::<f32>(0.5, Some(0.5), Some(0.5));
        check::<f32>(0.1, Some(0.1_f32.next_down()), Some(0.1));
        check::<f32>(1e300, Some(f32::MAX), Some(f32::INFINITY));
        check::<f32>(-1e300, Some(f32::NEG_INFINITY), Some(f32::MIN));
        check::<f32>(f64::INFINITY, Some(f32::INFINITY), Some(f32::INFINITY));
        check::<f64>(0.1, Some(0.1), Some(0.1));
    }

    #[test]
    fn a_code_is_whole_and_not_negative() {
        assert_eq!([(-1_i64).code(), 0_i64.code(), 255_i64.code()], [usize::MAX, 0, 255]);
        assert_eq!([0.0.code(), (-0.0).code(), 3.0_f32.code(), 3.0.code()], [0, 0, 3, 3]);
        for none in [0.5, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e9] {
            assert_eq!(none.code(), usize::MAX, "{none}");
        }
    }
}
