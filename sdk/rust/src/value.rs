//! Typed values that indexes hold.
//!
//! Owns [`Value`] (owned, to be written), [`ValueRef`] (borrowed from an answer's buffer) and the conversions that make
//! both pleasant. Separate because filters, fields and documents all speak it. Bounded by: nothing of its own. On failure:
//! a conversion to the wrong type is `None`, never a guess.

/// One typed value. `Real` may be NaN or infinite.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// Several texts, of which a filter needs only one to match.
    Texts(Vec<String>),
    /// Kept and returned, but cannot be filtered or ordered.
    Bytes(Vec<u8>),
}

/// One typed value, read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Text.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// Several texts.
    Texts(Texts<'a>),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> ValueRef<'a> {
    /// The text, if it is text.
    pub fn as_text(self) -> Option<&'a str> {
        match self {
            ValueRef::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn as_integer(self) -> Option<i64> {
        match self {
            ValueRef::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The number, whole or real.
    pub fn as_real(self) -> Option<f64> {
        match self {
            ValueRef::Real(number) => Some(number),
            ValueRef::Integer(number) => Some(number as f64),
            _ => None,
        }
    }

    /// True or false, if it is one of them.
    pub fn as_boolean(self) -> Option<bool> {
        match self {
            ValueRef::Boolean(truth) => Some(truth),
            _ => None,
        }
    }

    /// The texts, if it is texts.
    pub fn as_texts(self) -> Option<Texts<'a>> {
        match self {
            ValueRef::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// The bytes, if it is bytes.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match self {
            ValueRef::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A copy that owns its data.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Text(text) => Value::Text(text.to_owned()),
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Boolean(truth) => Value::Boolean(truth),
            ValueRef::Texts(texts) => Value::Texts(texts.map(str::to_owned).collect()),
            ValueRef::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        }
    }
}

/// Several texts of one value, in order, read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Texts<'a> {
    pub(crate) packed: &'a [u8],
    pub(crate) left: u32,
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = crate::packed::Reader(self.packed);
        let text = reader.text();
        self.packed = reader.0;
        Some(text)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Texts<'_> {}

macro_rules! from {
    ($($from:ty => $make:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Value {
                #[allow(clippy::redundant_closure_call)]
                $make(value)
            }
        })*
    };
}

from! {
    String => Value::Text,
    &str => |text: &str| Value::Text(text.to_owned()),
    &String => |text: &String| Value::Text(text.clone()),
    i64 => Value::Integer,
    i32 => |number: i32| Value::Integer(number.into()),
    u32 => |number: u32| Value::Integer(number.into()),
    f64 => Value::Real,
    bool => Value::Boolean,
    Vec<String> => Value::Texts,
    Vec<u8> => Value::Bytes,
    &[u8] => |bytes: &[u8]| Value::Bytes(bytes.to_vec()),
}
