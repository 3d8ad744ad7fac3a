//! Columns and frames in a component.
//!
//! Owns the resources of the WIT behind the SDK's handles. On failure: the host's typed error.

use crate::Result;
use crate::columns::ValueType;
use crate::sys::bindings::mainstay::numeric::arrays;

#[derive(Debug)]
pub struct Column(pub(crate) arrays::Column);

#[derive(Debug)]
pub struct Frame(pub(crate) arrays::Frame);

macro_rules! constructors {
    ($($name:ident: $ty:ty),*) => {
        impl Column {
            $(pub fn $name(values: &[$ty], present: &[bool]) -> Result<Column> {
                Ok(Column(arrays::Column::$name(values, present)?))
            })*
        }
    };
}
constructors!(real64: f64, real32: f32, integer64: i64, integer32: i32, byte: u8, boolean: bool);

macro_rules! operations {
    ($($name:ident($($arg:ident: $ty:ty),*)),* $(,)?) => {
        impl Column {
            $(pub fn $name(&self, $($arg: $ty),*) -> Result<Column> {
                Ok(Column(self.0.$name($($arg),*)?))
            })*
        }
    };
}
operations! {
    slice(offset: u64, count: u64),
    fill(value: f64),
    fill_text(value: &str),
    absent(),
    affine(subtract: f64, multiply: f64),
    clip(low: f64, high: f64),
    bucket(edges: &[f64]),
    at_least(threshold: f64),
    encode(categories: &[f64], otherwise: i32),
    encode_text(categories: &[String], otherwise: i32),
    lookup(table: &[f64], otherwise: f64),
}

impl Column {
    pub fn text(values: &[Option<String>]) -> Result<Column> {
        Ok(Column(arrays::Column::text(values)?))
    }

    pub fn cast(&self, to: ValueType) -> Result<Column> {
        Ok(Column(self.0.cast(to_wit(to))?))
    }

    pub fn value_type(&self) -> ValueType {
        from_wit(self.0.value_type())
    }

    pub fn length(&self) -> u64 {
        self.0.length()
    }

    pub fn missing(&self) -> u64 {
        self.0.missing()
    }

    pub fn one_hot(&self, categories: u32) -> Result<Vec<Column>> {
        Ok(self.0.one_hot(categories)?.into_iter().map(Column).collect())
    }

    pub fn read_numbers(&self, offset: u64, count: u32) -> Result<Vec<f64>> {
        Ok(self.0.read_numbers(offset, count)?)
    }

    pub fn read_integers(&self, offset: u64, count: u32) -> Result<Vec<Option<i64>>> {
        Ok(self.0.read_integers(offset, count)?)
    }

    pub fn read_text(&self, offset: u64, count: u32) -> Result<Vec<Option<String>>> {
        Ok(self.0.read_text(offset, count)?)
    }
}

impl Frame {
    pub fn of(names: &[String], columns: &[&Column]) -> Result<Frame> {
        let columns: Vec<&arrays::Column> = columns.iter().map(|column| &column.0).collect();
        Ok(Frame(arrays::Frame::of(names, &columns)?))
    }

    pub fn columns(&self) -> Vec<(String, ValueType)> {
        self.0.columns().into_iter().map(|(name, kind)| (name, from_wit(kind))).collect()
    }

    pub fn rows(&self) -> u64 {
        self.0.rows()
    }

    pub fn column(&self, name: &str) -> Result<Column> {
        Ok(Column(self.0.column(name)?))
    }
}

fn to_wit(kind: ValueType) -> arrays::ValueType {
    match kind {
        ValueType::Real32 => arrays::ValueType::Real32,
        ValueType::Real64 => arrays::ValueType::Real64,
        ValueType::Integer32 => arrays::ValueType::Integer32,
        ValueType::Integer64 => arrays::ValueType::Integer64,
        ValueType::Byte => arrays::ValueType::Byte,
        ValueType::Boolean => arrays::ValueType::Boolean,
        ValueType::Text => arrays::ValueType::Text,
    }
}

fn from_wit(kind: arrays::ValueType) -> ValueType {
    match kind {
        arrays::ValueType::Real32 => ValueType::Real32,
        arrays::ValueType::Real64 => ValueType::Real64,
        arrays::ValueType::Integer32 => ValueType::Integer32,
        arrays::ValueType::Integer64 => ValueType::Integer64,
        arrays::ValueType::Byte => ValueType::Byte,
        arrays::ValueType::Boolean => ValueType::Boolean,
        arrays::ValueType::Text => ValueType::Text,
    }
}
