//! Tables in native tests: rows in memory, joins by the host's own code.
//!
//! Simpler than the host's tables: no files, no marks, no limits, no guard (a packed component in
//! `mainstay_testing::TestHost` has all of them). What is kept is what plugins rely on: names, types, missing columns, order by
//! time, and rows that appear with their transaction.

use super::{Frame, PLUGIN, State, Transaction, state};
use crate::tables::{AsOf, ColumnInfo, Kind, Mark, Schema};
use crate::{Error, Result};
use mainstay_arrays::join::{Matches, Rule, Side, as_of};
use mainstay_arrays::{Column, Frame as Held, ValueType};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// All tables of a test, by the name that others know.
#[derive(Default)]
pub(crate) struct Tables(RefCell<BTreeMap<String, Table>>);

struct Table {
    columns: Vec<ColumnInfo>,
    pieces: Vec<Held>,
}

/// Rows that a transaction appends.
#[derive(Default)]
pub(super) struct Appended(RefCell<Vec<(String, Held)>>);

impl Appended {
    pub(super) fn commit(&self, tables: &Tables) {
        for (name, rows) in self.0.borrow_mut().drain(..) {
            if let Some(table) = tables.0.borrow_mut().get_mut(&name) {
                table.pieces.push(rows);
            }
        }
    }
}

fn own_name(table: &str) -> String {
    format!("{PLUGIN}__{table}")
}

pub fn create_table(table: &str, schema: &Schema) -> Result<()> {
    let state = state();
    let mut tables = state.tables.0.borrow_mut();
    let time = ColumnInfo { name: schema.time.clone(), kind: Kind::Timestamp, nullable: false, mark: Mark::Plain };
    let wanted = std::iter::once(&time).chain(&schema.columns);
    let known = tables.entry(own_name(table)).or_insert_with(|| Table { columns: Vec::new(), pieces: Vec::new() });
    for column in wanted {
        match known.columns.iter().find(|kept| kept.name == column.name) {
            None => known.columns.push(column.clone()),
            Some(kept) if kept.kind == column.kind && kept.mark == column.mark => {}
            Some(_) => {
                let name = &column.name;
                return Err(Error::conflict(format!(
                    "the column `{name}` of `{table}` is there with another type or mark"
                )));
            }
        }
    }
    Ok(())
}

pub fn describe_table(table: &str) -> Result<Option<Vec<ColumnInfo>>> {
    Ok(state().tables.0.borrow().get(table).map(|known| known.columns.clone()))
}

impl Transaction {
    pub fn append_rows(&self, table: &str, rows: &Frame) -> Result<()> {
        let (state, name) = (state(), own_name(table));
        let tables = state.tables.0.borrow();
        let known = tables.get(&name).ok_or_else(|| Error::not_found(format!("there is no table `{name}`")))?;
        for (column, _) in rows.0.columns() {
            if !known.columns.iter().any(|kept| *kept.name == **column) {
                return Err(Error::invalid(format!("the table `{name}` has no column `{column}`")));
            }
        }
        if let Some(lacking) = known.columns.iter().find(|kept| !kept.nullable && rows.0.column(&kept.name).is_err()) {
            return Err(Error::invalid(format!("the rows lack `{}`, which `{name}` needs", lacking.name)));
        }
        self.appended.0.borrow_mut().push((name, rows.0.clone()));
        Ok(())
    }
}

pub fn table_window(table: &str, columns: &[&str], from_us: i64, to_us: i64) -> Result<Frame> {
    let state = state();
    let tables = state.tables.0.borrow();
    let known = tables.get(table).ok_or_else(|| Error::not_found(format!("there is no table `{table}`")))?;
    window(known, columns, from_us, to_us)
}

fn window(table: &Table, columns: &[&str], from_us: i64, to_us: i64) -> Result<Frame> {
    let whole = whole(table)?;
    let times = whole.column(&table.columns[0].name)?.read_integers(0, whole.rows())?;
    let mut rows: Vec<u32> = (0..whole.rows() as u32)
        .filter(|row| times[*row as usize].is_some_and(|time| (from_us..to_us).contains(&time)))
        .collect();
    rows.sort_by_key(|row| times[*row as usize]);
    let matches = Matches::of_rows(rows, whole.rows());
    let is_wanted = |name: &str| columns.is_empty() || columns.contains(&name);
    if let Some(missing) = columns.iter().find(|name| whole.column(name).is_err()) {
        return Err(Error::invalid(format!("the table has no column `{missing}`")));
    }
    let picked = whole.columns().iter().filter(|(name, _)| is_wanted(name));
    let picked = picked.map(|(name, column)| Ok((name.clone(), matches.take(column)?)));
    Ok(Frame(Held::new(picked.collect::<mainstay_base::Result<_>>()?)?))
}

/// Every row in the order in which it was appended; what a piece lacks is missing.
fn whole(table: &Table) -> Result<Held> {
    let mut columns = Vec::new();
    for info in &table.columns {
        let kind = value_type(info.kind);
        let piece = |rows: &Held| match rows.column(&info.name) {
            Ok(column) if column.value_type() == kind => Ok(column.clone()),
            Ok(column) => column.cast(kind),
            Err(_) => {
                let nothing = Column::text(std::iter::repeat_n(None, rows.rows()));
                if kind == ValueType::Text { Ok(nothing) } else { Ok(missing(kind, rows.rows())) }
            }
        };
        let pieces: Vec<Column> = table.pieces.iter().map(piece).collect::<mainstay_base::Result<_>>()?;
        let column = if pieces.is_empty() { missing(kind, 0) } else { Column::concat(&pieces)? };
        columns.push((info.name.as_str().into(), column));
    }
    Ok(Held::new(columns)?)
}

fn missing(kind: ValueType, rows: usize) -> Column {
    let none = vec![false; rows];
    match kind {
        ValueType::F32 => Column::f32(&vec![0.0; rows], Some(&none)),
        ValueType::I32 => Column::i32(&vec![0; rows], Some(&none)),
        ValueType::I64 => Column::i64(&vec![0; rows], Some(&none)),
        ValueType::Bool => Column::bool(&vec![false; rows], Some(&none)),
        ValueType::Text => Column::text(std::iter::repeat_n(None, rows)),
        _ => Column::f64(&vec![0.0; rows], Some(&none)),
    }
}

fn value_type(kind: Kind) -> ValueType {
    match kind {
        Kind::Real64 => ValueType::F64,
        Kind::Real32 => ValueType::F32,
        Kind::Integer64 | Kind::Timestamp => ValueType::I64,
        Kind::Integer32 => ValueType::I32,
        Kind::Boolean => ValueType::Bool,
        Kind::Text => ValueType::Text,
    }
}

pub fn join_as_of(how: &AsOf, left: &Frame, right: &Frame) -> Result<Frame> {
    let of =
        |frame: &Held| how.keys.iter().map(|key| frame.column(key).cloned()).collect::<mainstay_base::Result<Vec<_>>>();
    let (left_keys, right_keys) = (of(&left.0)?, of(&right.0)?);
    let rows = Side { keys: &left_keys, times: left.0.column(&how.left_time)? };
    let history = Side { keys: &right_keys, times: right.0.column(&how.right_time)? };
    let recorded = how.recorded.as_ref().map(|(name, _)| right.0.column(name)).transpose()?;
    let rule = Rule {
        time_to_live: how.max_age,
        is_time_included: how.takes_same_time,
        is_oldest_included: how.takes_oldest,
        must_be_recorded: how.recorded.as_ref().is_some_and(|(_, by_then)| *by_then),
    };
    let matches = as_of(&rows, &history, recorded, &rule)?;
    let mut columns = left.0.columns().to_vec();
    for (name, column) in right.0.columns() {
        if !how.keys.iter().any(|key| **key == **name) && **name != *how.right_time {
            columns.push((name.clone(), matches.take(column)?));
        }
    }
    Ok(Frame(Held::new(columns)?))
}

/// Rows of all tables, for what doing something twice must not change.
pub(crate) fn rows_in_all(state: &State) -> usize {
    state.tables.0.borrow().values().flat_map(|table| &table.pieces).map(Held::rows).sum()
}

/// Put rows into a table that another plugin, or the host, would fill.
pub(crate) fn fill_table(state: &State, name: &str, schema: &Schema, rows: &Frame) {
    let time = ColumnInfo { name: schema.time.clone(), kind: Kind::Timestamp, nullable: false, mark: Mark::Plain };
    let columns = std::iter::once(time).chain(schema.columns.iter().cloned()).collect();
    let mut tables = state.tables.0.borrow_mut();
    let table = tables.entry(name.to_owned()).or_insert_with(|| Table { columns, pieces: Vec::new() });
    table.pieces.push(rows.0.clone());
}
