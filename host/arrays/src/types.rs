//! The types that a column may have.

use std::fmt;

use arrow_schema::DataType;

/// Type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// One bit.
    Bool,
    /// Strings, each kept once: a dictionary and 32-bit keys into it.
    Text,
}

impl ValueType {
    /// All of them.
    pub const ALL: [ValueType; 7] = [
        ValueType::F32,
        ValueType::F64,
        ValueType::I32,
        ValueType::I64,
        ValueType::U8,
        ValueType::Bool,
        ValueType::Text,
    ];

    /// Its name in contracts and messages.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::F32 => "f32",
            ValueType::F64 => "f64",
            ValueType::I32 => "i32",
            ValueType::I64 => "i64",
            ValueType::U8 => "u8",
            ValueType::Bool => "bool",
            ValueType::Text => "text",
        }
    }

    /// The type of Arrow that holds it.
    pub fn arrow(self) -> DataType {
        match self {
            ValueType::F32 => DataType::Float32,
            ValueType::F64 => DataType::Float64,
            ValueType::I32 => DataType::Int32,
            ValueType::I64 => DataType::Int64,
            ValueType::U8 => DataType::UInt8,
            ValueType::Bool => DataType::Boolean,
            ValueType::Text => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        }
    }

    /// The type that Arrow's type is, if it is one of ours.
    pub fn of_arrow(data_type: &DataType) -> Option<ValueType> {
        ValueType::ALL.into_iter().find(|kind| kind.arrow() == *data_type)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
