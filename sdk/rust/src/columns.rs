//! Columns and frames that the host holds: what statistics and models read.
//!
//! Owns [`Column`] and [`Frame`], handles that live as long as the call. Values stay in the host, so an operation over a
//! million rows is one call; reading them back is a right of its own (`arrays.read`). Bounded by: 8,192 columns and 256
//! frames a call, and the limit `array-mib` of the manifest over all calls. On failure: the host's typed error.
//!
//! ```
//! use mainstay_sdk::columns::{Column, Frame};
//! # use mainstay_sdk::testing::Host;
//! # Host::new().enter(|| -> mainstay_sdk::Result<()> {
//! let ages = Column::real64(&[31.0, f64::NAN, 47.0])?;
//! let filled = ages.fill(39.0)?.affine(39.0, 0.1)?;
//! assert_eq!(filled.read_numbers(0, 3)?, [-0.8, 0.0, 0.8]);
//! let frame = Frame::of([("age", &filled)])?;
//! assert_eq!((frame.rows(), frame.column("age")?.len()), (3, 3));
//! # Ok(()) }).unwrap();
//! ```

use crate::{Result, sys};

/// Type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 32-bit floating point.
    Real32,
    /// 64-bit floating point.
    Real64,
    /// 32-bit signed integer.
    Integer32,
    /// 64-bit signed integer.
    Integer64,
    /// 8-bit unsigned integer.
    Byte,
    /// True or false; 1 and 0 where numbers are needed.
    Boolean,
    /// A string.
    Text,
}

/// Values of one type, held by the host.
#[derive(Debug)]
pub struct Column(pub(crate) sys::Column);

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident, $with:ident: $ty:ty;)*) => {
        impl Column {
            $(
                $(#[$doc])*
                pub fn $name(values: &[$ty]) -> Result<Column> {
                    Column::$with(values, &[])
                }

                /// The same; `present` says for each value whether it is there.
                pub fn $with(values: &[$ty], present: &[bool]) -> Result<Column> {
                    Ok(Column(sys::Column::$name(values, present)?))
                }
            )*
        }
    };
}

constructors! {
    /// 64-bit floating point. NaN is a value here; statistics say whether they take it for missing.
    real64, real64_with: f64;
    /// 32-bit floating point.
    real32, real32_with: f32;
    /// 64-bit integers.
    integer64, integer64_with: i64;
    /// 32-bit integers.
    integer32, integer32_with: i32;
    /// Bytes.
    byte, byte_with: u8;
    /// Booleans.
    boolean, boolean_with: bool;
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*);)*) => {
        impl Column {
            $(
                $(#[$doc])*
                pub fn $name(&self, $($arg: $ty),*) -> Result<Column> {
                    Ok(Column(self.0.$name($($arg),*)?))
                }
            )*
        }
    };
}

operations! {
    /// `count` places from `offset`, without a copy.
    slice(offset: u64, count: u64);
    /// The same values in another type of number; what it cannot hold is `invalid`.
    cast(to: ValueType);
    /// A number for what is missing or NaN.
    fill(value: f64);
    /// A string for what is missing.
    fill_text(value: &str);
    /// Whether a place is missing or NaN, as booleans.
    absent();
    /// `(x - subtract) * multiply`.
    affine(subtract: f64, multiply: f64);
    /// The nearest number within `low` and `high`.
    clip(low: f64, high: f64);
    /// How many of these ascending edges are at most x.
    bucket(edges: &[f64]);
    /// Whether x is at least the threshold, as booleans.
    at_least(threshold: f64);
    /// The place of each number in this list; `otherwise` for what is not in it.
    encode(categories: &[f64], otherwise: i32);
    /// The place of each string in this list; `otherwise` for what is not in it.
    encode_text(categories: &[String], otherwise: i32);
    /// The number that this table gives for each code; `otherwise` for every other code and for what is missing.
    lookup(table: &[f64], otherwise: f64);
}

impl Column {
    /// Strings; none where one is missing.
    pub fn text<S: Into<String>>(values: impl IntoIterator<Item = Option<S>>) -> Result<Column> {
        let values: Vec<Option<String>> = values.into_iter().map(|value| value.map(Into::into)).collect();
        Ok(Column(sys::Column::text(&values)?))
    }

    /// Type of its values.
    pub fn value_type(&self) -> ValueType {
        self.0.value_type()
    }

    /// How many places it has, missing ones included.
    pub fn len(&self) -> u64 {
        self.0.length()
    }

    /// Whether it has no place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many places are missing; NaN is not counted.
    pub fn missing(&self) -> u64 {
        self.0.missing()
    }

    /// For each code 0 to `categories` - 1 one column that is 1 where the value is that code, else 0.
    pub fn one_hot(&self, categories: u32) -> Result<Vec<Column>> {
        Ok(self.0.one_hot(categories)?.into_iter().map(Column).collect())
    }

    /// At most 1,000,000 numbers; NaN where one is missing. Needs `arrays.read`.
    pub fn read_numbers(&self, offset: u64, count: u32) -> Result<Vec<f64>> {
        self.0.read_numbers(offset, count)
    }

    /// At most 1,000,000 integers; none where one is missing. Needs `arrays.read`.
    pub fn read_integers(&self, offset: u64, count: u32) -> Result<Vec<Option<i64>>> {
        self.0.read_integers(offset, count)
    }

    /// At most 100,000 strings. Needs `arrays.read`.
    pub fn read_text(&self, offset: u64, count: u32) -> Result<Vec<Option<String>>> {
        self.0.read_text(offset, count)
    }
}

/// Named columns of one length.
#[derive(Debug)]
pub struct Frame(pub(crate) sys::Frame);

impl Frame {
    /// These columns under these names, without a copy.
    pub fn of<'a, N: Into<String>>(columns: impl IntoIterator<Item = (N, &'a Column)>) -> Result<Frame> {
        let (names, columns): (Vec<String>, Vec<&sys::Column>) =
            columns.into_iter().map(|(name, column)| (name.into(), &column.0)).unzip();
        Ok(Frame(sys::Frame::of(&names, &columns)?))
    }

    /// Names and types, in order.
    pub fn columns(&self) -> Vec<(String, ValueType)> {
        self.0.columns()
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.0.rows()
    }

    /// One of its columns, without a copy.
    pub fn column(&self, name: &str) -> Result<Column> {
        Ok(Column(self.0.column(name)?))
    }
}
