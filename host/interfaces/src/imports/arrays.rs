//! `mainstay:numeric/arrays`: columns and frames that the host holds for the length of a call.
//!
//! Every new column is charged to the plugin's budget, which all its calls share. Computing needs `arrays`, reading values
//! back `arrays.read` as well. Bounded by: [`COLUMNS_MAX`] and [`FRAMES_MAX`] handles, the budget, and the contract's limit
//! on each operation. On failure: a typed error to the plugin.

use mainstay_arrays::{Column as Held, Frame as HeldFrame, ValueType as Type};
use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::numeric::arrays::{
    Column as ColumnHandle, Frame as FrameHandle, Host, HostColumn, HostFrame, ValueType,
};
use wasmtime::component::Resource;

use crate::capabilities::{ARRAYS, ARRAYS_READ};
use crate::state::State;

/// Columns that a call may hold.
pub const COLUMNS_MAX: usize = 8_192;
/// Frames that a call may hold.
pub const FRAMES_MAX: usize = 256;

type Answer<T> = Result<T, Failure>;
type Column = Resource<ColumnHandle>;
type Frame = Resource<FrameHandle>;

impl Host for State {}

impl State {
    /// A handle for a column, charged to the plugin.
    pub(crate) fn hold(&mut self, column: Held) -> HostResult<Column> {
        let column = column.charged(&self.plugin.budget)?;
        self.columns.add(column)
    }

    /// The column behind a handle.
    pub(crate) fn held(&mut self, column: &Column) -> HostResult<Held> {
        Ok(self.columns.get(column)?.clone())
    }

    /// The columns behind handles; a list that is too long is `invalid`.
    pub(crate) fn all_held(&mut self, columns: &[Column]) -> HostResult<Vec<Held>> {
        columns.iter().map(|column| self.held(column)).collect()
    }

    /// A new column out of one that is held; what it may take is asked for before it is made.
    fn derive(&mut self, column: &Column, act: impl FnOnce(&Held) -> HostResult<Held>) -> Answer<Column> {
        let held = self.held(column)?;
        let most = self.plugin.budget.charge(held.operation_bytes_max() + held.size_bytes())?;
        let derived = act(&held)?;
        drop(most);
        Ok(self.hold(derived)?)
    }

    /// A new column out of values that crossed; the bytes are charged before they are copied.
    fn make<T>(
        &mut self,
        values: &[T],
        present: &[bool],
        make: impl FnOnce(&[T], Option<&[bool]>) -> Held,
    ) -> Answer<Column> {
        if !present.is_empty() && present.len() != values.len() {
            return Err(Error::invalid(format!(
                "{} values and {} marks of which are present; give one for each, or none",
                values.len(),
                present.len()
            ))
            .into());
        }
        // Held while the column is made, so that the host's memory is bounded by the budget at every moment.
        let most = self.plugin.budget.charge(size_of_val(values))?;
        let made = make(values, (!present.is_empty()).then_some(present));
        drop(most);
        Ok(self.hold(made)?)
    }
}

impl HostColumn for State {
    fn real64(&mut self, values: Vec<f64>, present: Vec<bool>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.make(&values, &present, Held::f64)
    }

    fn real32(&mut self, values: Vec<f32>, present: Vec<bool>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.make(&values, &present, Held::f32)
    }

    fn integer64(&mut self, values: Vec<i64>, present: Vec<bool>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.make(&values, &present, Held::i64)
    }

    fn integer32(&mut self, values: Vec<i32>, present: Vec<bool>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.make(&values, &present, Held::i32)
    }

    fn byte(&mut self, values: Vec<u8>, present: Vec<bool>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.make(&values, &present, Held::u8)
    }

    fn boolean(&mut self, values: Vec<bool>, present: Vec<bool>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.make(&values, &present, Held::bool)
    }

    fn text(&mut self, values: Vec<Option<String>>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        Ok(self.hold(Held::text(values.iter().map(Option::as_deref)))?)
    }

    fn value_type(&mut self, column: Column) -> wasmtime::Result<ValueType> {
        let _host = self.ambient()?;
        Ok(to_wire(self.columns.get(&column).map_err(ended)?.value_type()))
    }

    fn length(&mut self, column: Column) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.columns.get(&column).map_err(ended)?.len() as u64)
    }

    fn missing(&mut self, column: Column) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.columns.get(&column).map_err(ended)?.missing() as u64)
    }

    fn slice(&mut self, column: Column, offset: u64, count: u64) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("pick rows")?;
        let part = self.columns.get(&column)?.slice(place(offset)?, place(count)?)?;
        Ok(self.columns.add(part)?)
    }

    fn cast(&mut self, column: Column, to: ValueType) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.derive(&column, |held| held.cast(from_wire(to)))
    }

    fn fill(&mut self, column: Column, value: f64) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.derive(&column, |held| held.fill(value))
    }

    fn fill_text(&mut self, column: Column, value: String) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.derive(&column, |held| held.fill_text(&value))
    }

    fn absent(&mut self, column: Column) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.derive(&column, Held::absent)
    }

    fn affine(&mut self, column: Column, subtract: f64, multiply: f64) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.derive(&column, |held| held.affine(subtract, multiply))
    }

    fn clip(&mut self, column: Column, low: f64, high: f64) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("compare values with its own")?;
        self.derive(&column, |held| held.clip(low, high))
    }

    fn bucket(&mut self, column: Column, edges: Vec<f64>) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("compare values with its own")?;
        self.derive(&column, |held| held.bucket(&edges))
    }

    fn at_least(&mut self, column: Column, threshold: f64) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("compare values with its own")?;
        self.derive(&column, |held| held.at_least(threshold))
    }

    fn encode(&mut self, column: Column, categories: Vec<f64>, otherwise: i32) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("compare values with its own")?;
        self.derive(&column, |held| held.encode(&categories, otherwise))
    }

    fn encode_text(&mut self, column: Column, categories: Vec<String>, otherwise: i32) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("compare values with its own")?;
        self.derive(&column, |held| held.encode_text(&categories, otherwise))
    }

    fn lookup(&mut self, column: Column, table: Vec<f64>, otherwise: f64) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("look values up")?;
        self.derive(&column, |held| held.lookup(&table, otherwise))
    }

    fn one_hot(&mut self, column: Column, categories: u32) -> Answer<Vec<Column>> {
        let _host = self.enter(ARRAYS)?;
        let held = self.held(&column)?;
        let most = self.plugin.budget.charge(held.one_hot_bytes(categories))?;
        let made = held.one_hot(categories)?;
        drop(most);
        Ok(made.into_iter().map(|column| self.hold(column)).collect::<HostResult<_>>()?)
    }

    fn read_numbers(&mut self, column: Column, offset: u64, count: u32) -> Answer<Vec<f64>> {
        let _host = self.enter(ARRAYS_READ)?;
        self.check_unguarded("read values")?;
        Ok(self.columns.get(&column)?.read_numbers(place(offset)?, count as usize)?)
    }

    fn read_integers(&mut self, column: Column, offset: u64, count: u32) -> Answer<Vec<Option<i64>>> {
        let _host = self.enter(ARRAYS_READ)?;
        self.check_unguarded("read values")?;
        Ok(self.columns.get(&column)?.read_integers(place(offset)?, count as usize)?)
    }

    fn read_text(&mut self, column: Column, offset: u64, count: u32) -> Answer<Vec<Option<String>>> {
        let _host = self.enter(ARRAYS_READ)?;
        self.check_unguarded("read values")?;
        Ok(self.columns.get(&column)?.read_text(place(offset)?, count as usize)?)
    }

    fn drop(&mut self, column: Column) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.columns.drop(&column);
        Ok(())
    }
}

impl HostFrame for State {
    fn of(&mut self, names: Vec<String>, columns: Vec<Column>) -> Answer<Frame> {
        let _host = self.enter(ARRAYS)?;
        if names.len() != columns.len() {
            let (names, columns) = (names.len(), columns.len());
            return Err(Error::invalid(format!("{names} names for {columns} columns; give one for each")).into());
        }
        let held = self.all_held(&columns)?;
        let named = names.iter().map(|name| name.as_str().into()).zip(held);
        let frame = HeldFrame::new(named.collect())?;
        Ok(self.frames.add(frame)?)
    }

    fn columns(&mut self, frame: Frame) -> wasmtime::Result<Vec<(String, ValueType)>> {
        let _host = self.ambient()?;
        let columns = self.frames.get(&frame).map_err(ended)?.columns();
        Ok(columns.iter().map(|(name, column)| (name.to_string(), to_wire(column.value_type()))).collect())
    }

    fn rows(&mut self, frame: Frame) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.frames.get(&frame).map_err(ended)?.rows() as u64)
    }

    fn column(&mut self, frame: Frame, name: String) -> Answer<Column> {
        let _host = self.enter(ARRAYS)?;
        // Its values are charged already, to whoever made the frame.
        let column = self.frames.get(&frame)?.column(&name)?.clone();
        Ok(self.columns.add(column)?)
    }

    fn drop(&mut self, frame: Frame) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.frames.drop(&frame);
        Ok(())
    }
}

/// A handle of an earlier call ends this one where the function cannot say so otherwise.
pub(crate) fn ended(error: Error) -> wasmtime::Error {
    wasmtime::format_err!("{error}")
}

fn place(number: u64) -> HostResult<usize> {
    usize::try_from(number).map_err(|_| Error::invalid(format!("place {number} lies beyond any column")))
}

pub(crate) fn to_wire(value_type: Type) -> ValueType {
    match value_type {
        Type::F32 => ValueType::Real32,
        Type::F64 => ValueType::Real64,
        Type::I32 => ValueType::Integer32,
        Type::I64 => ValueType::Integer64,
        Type::U8 => ValueType::Byte,
        Type::Bool => ValueType::Boolean,
        Type::Text => ValueType::Text,
    }
}

fn from_wire(value_type: ValueType) -> Type {
    match value_type {
        ValueType::Real32 => Type::F32,
        ValueType::Real64 => Type::F64,
        ValueType::Integer32 => Type::I32,
        ValueType::Integer64 => Type::I64,
        ValueType::Byte => Type::U8,
        ValueType::Boolean => Type::Bool,
        ValueType::Text => Type::Text,
    }
}
