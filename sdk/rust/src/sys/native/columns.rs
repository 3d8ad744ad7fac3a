//! Columns and frames in native tests: the host's own, without budget or rights.

use crate::Result;
use crate::columns::ValueType;
use mainstay_arrays as arrays;

#[derive(Debug)]
pub struct Column(pub(crate) arrays::Column);

#[derive(Debug)]
pub struct Frame(pub(crate) arrays::Frame);

fn marks<T>(values: &[T], present: &[bool]) -> Result<()> {
    match present.is_empty() || present.len() == values.len() {
        true => Ok(()),
        false => Err(crate::Error::invalid(format!(
            "{} values and {} marks of which are present; give one for each, or none",
            values.len(),
            present.len()
        ))),
    }
}

macro_rules! constructors {
    ($($name:ident, $make:ident: $ty:ty;)*) => {
        impl Column {
            $(pub fn $name(values: &[$ty], present: &[bool]) -> Result<Column> {
                marks(values, present)?;
                Ok(Column(arrays::Column::$make(values, (!present.is_empty()).then_some(present))))
            })*
        }
    };
}
constructors! {
    real64, f64: f64;
    real32, f32: f32;
    integer64, i64: i64;
    integer32, i32: i32;
    byte, u8: u8;
    boolean, bool: bool;
}

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
        Ok(Column(arrays::Column::text(values.iter().map(Option::as_deref))))
    }

    pub fn slice(&self, offset: u64, count: u64) -> Result<Column> {
        Ok(Column(self.0.slice(offset as usize, count as usize)?))
    }

    pub fn cast(&self, to: ValueType) -> Result<Column> {
        Ok(Column(self.0.cast(to_host(to))?))
    }

    pub fn value_type(&self) -> ValueType {
        from_host(self.0.value_type())
    }

    pub fn length(&self) -> u64 {
        self.0.len() as u64
    }

    pub fn missing(&self) -> u64 {
        self.0.missing() as u64
    }

    pub fn one_hot(&self, categories: u32) -> Result<Vec<Column>> {
        Ok(self.0.one_hot(categories)?.into_iter().map(Column).collect())
    }

    pub fn read_numbers(&self, offset: u64, count: u32) -> Result<Vec<f64>> {
        Ok(self.0.read_numbers(offset as usize, count as usize)?)
    }

    pub fn read_integers(&self, offset: u64, count: u32) -> Result<Vec<Option<i64>>> {
        Ok(self.0.read_integers(offset as usize, count as usize)?)
    }

    pub fn read_text(&self, offset: u64, count: u32) -> Result<Vec<Option<String>>> {
        Ok(self.0.read_text(offset as usize, count as usize)?)
    }
}

impl Frame {
    pub fn of(names: &[String], columns: &[&Column]) -> Result<Frame> {
        let named = names.iter().map(|name| name.as_str().into()).zip(columns.iter().map(|column| column.0.clone()));
        Ok(Frame(arrays::Frame::new(named.collect())?))
    }

    pub fn columns(&self) -> Vec<(String, ValueType)> {
        let columns = self.0.columns().iter();
        columns.map(|(name, column)| (name.to_string(), from_host(column.value_type()))).collect()
    }

    pub fn rows(&self) -> u64 {
        self.0.rows() as u64
    }

    pub fn column(&self, name: &str) -> Result<Column> {
        Ok(Column(self.0.column(name)?.clone()))
    }
}

fn to_host(kind: ValueType) -> arrays::ValueType {
    match kind {
        ValueType::Real32 => arrays::ValueType::F32,
        ValueType::Real64 => arrays::ValueType::F64,
        ValueType::Integer32 => arrays::ValueType::I32,
        ValueType::Integer64 => arrays::ValueType::I64,
        ValueType::Byte => arrays::ValueType::U8,
        ValueType::Boolean => arrays::ValueType::Bool,
        ValueType::Text => arrays::ValueType::Text,
    }
}

fn from_host(kind: arrays::ValueType) -> ValueType {
    match kind {
        arrays::ValueType::F32 => ValueType::Real32,
        arrays::ValueType::F64 => ValueType::Real64,
        arrays::ValueType::I32 => ValueType::Integer32,
        arrays::ValueType::I64 => ValueType::Integer64,
        arrays::ValueType::U8 => ValueType::Byte,
        arrays::ValueType::Bool => ValueType::Boolean,
        arrays::ValueType::Text => ValueType::Text,
    }
}
