//! Tables in a component.

use super::{Frame, Transaction, bindings::mainstay::data::tables as wit};
use crate::Result;
use crate::tables::{AsOf, ColumnInfo, Schema};

pub fn create_table(table: &str, schema: &Schema) -> Result<()> {
    let made = wit::Schema::new(&schema.time)?;
    for column in &schema.columns {
        made.column(&column.name, column.kind, column.nullable, column.mark)?;
    }
    if let Some(days) = schema.keep_days {
        made.keep_days(days)?;
    }
    Ok(wit::create(table, made)?)
}

pub fn describe_table(table: &str) -> Result<Option<Vec<ColumnInfo>>> {
    Ok(wit::describe(table)?)
}

pub fn table_window(table: &str, columns: &[&str], from_us: i64, to_us: i64) -> Result<Frame> {
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    Ok(Frame(wit::window(table, &columns, from_us, to_us)?))
}

pub fn join_as_of(how: &AsOf, left: &Frame, right: &Frame) -> Result<Frame> {
    let join = wit::AsOf::new(&how.keys)?;
    join.times(&how.left_time, &how.right_time)?;
    join.bounds(how.takes_same_time, how.takes_oldest)?;
    if let Some(age) = how.max_age {
        join.max_age(age)?;
    }
    if let Some((column, by_then)) = &how.recorded {
        join.recorded(column, *by_then)?;
    }
    Ok(Frame(join.join(&left.0, &right.0)?))
}

impl Transaction {
    pub fn append_rows(&self, table: &str, rows: &Frame) -> Result<()> {
        Ok(wit::append(&self.0, table, &rows.0)?)
    }
}
