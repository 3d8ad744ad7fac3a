//! Named columns of one length.
//!
//! Owns the order and the names. On failure: `invalid` or `not-found` names the column and those that are there.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay_base::{Error, Result};

use crate::column::Column;

/// Columns that one frame may have.
pub const COLUMNS_MAX: usize = 65_536;
/// Names that a message lists.
const NAMES_SHOWN: usize = 20;

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    columns: Arc<[(Arc<str>, Column)]>,
}

impl Frame {
    /// `invalid` when names repeat or lengths differ.
    pub fn new(columns: Vec<(Arc<str>, Column)>) -> Result<Frame> {
        if columns.len() > COLUMNS_MAX {
            return Err(Error::invalid(format!("a frame of {} columns; the most is {COLUMNS_MAX}", columns.len())));
        }
        let mut names: Vec<&str> = columns.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!("two columns are named `{}`; rename one", twice[0])));
        }
        if let Some((name, column)) = columns.iter().find(|(_, column)| column.len() != columns[0].1.len()) {
            let (first, expected) = (&columns[0].0, columns[0].1.len());
            return Err(Error::invalid(format!(
                "column `{name}` has {} places, `{first}` has {expected}; a frame's columns are of one length",
                column.len()
            )));
        }
        Ok(Frame { columns: columns.into() })
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[(Arc<str>, Column)] {
        &self.columns
    }

    /// One column; `not-found` lists those that are there.
    pub fn column(&self, name: &str) -> Result<&Column> {
        let found = self.columns.iter().find(|(known, _)| **known == *name);
        found.map(|(_, column)| column).ok_or_else(|| self.no_column(name))
    }

    /// The rows from `offset`, without a copy. `invalid` beyond its end.
    pub fn slice(&self, offset: usize, rows: usize) -> Result<Frame> {
        if offset.checked_add(rows).is_none_or(|end| end > self.rows()) {
            return Err(Error::invalid(format!("{rows} rows from {offset} of a frame of {}", self.rows())));
        }
        let part = |(name, column): &(Arc<str>, Column)| Ok((name.clone(), column.slice(offset, rows)?));
        Ok(Frame { columns: self.columns.iter().map(part).collect::<Result<_>>()? })
    }

    /// These of its columns, in this order, without a copy. `not-found` lists those that are there; `invalid` when a name
    /// repeats.
    pub fn select(&self, names: &[impl AsRef<str>]) -> Result<Frame> {
        let known: HashMap<&str, &(Arc<str>, Column)> = self.columns.iter().map(|each| (&*each.0, each)).collect();
        let find = |name: &str| known.get(name).map(|each| (*each).clone()).ok_or_else(|| self.no_column(name));
        Frame::new(names.iter().map(|name| find(name.as_ref())).collect::<Result<_>>()?)
    }

    fn no_column(&self, name: &str) -> Error {
        if self.columns.is_empty() {
            return Error::not_found(format!("no column `{name}`; the frame has none"));
        }
        let known: Vec<&str> = self.columns.iter().take(NAMES_SHOWN).map(|(name, _)| &**name).collect();
        let more = if self.columns.len() > known.len() { ", …" } else { "" };
        Error::not_found(format!("no column `{name}`; there are {}{more}", known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ErrorKind;

    use super::*;

    fn frame(names: &[&str]) -> Result<Frame> {
        let column = Column::i32(&[1, 2, 3], None);
        Frame::new(names.iter().map(|name| (Arc::from(*name), column.clone())).collect())
    }

    fn names(frame: &Frame) -> Vec<&str> {
        frame.columns().iter().map(|(name, _)| &**name).collect()
    }

    #[test]
    fn names_do_not_repeat_and_lengths_agree() {
        let error = frame(&["b", "a", "c", "a"]).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, "two columns are named `a`; rename one"));
        let columns =
            [("a", 2), ("b", 2), ("c", 1)].map(|(name, len)| (Arc::from(name), Column::u8(&vec![0; len], None)));
        let error = Frame::new(columns.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("column `c` has 1 places, `a` has 2"), "{error}");
    }

    #[test]
    fn a_frame_holds_its_limit_of_columns_and_no_more() {
        let of = |count: usize| -> Vec<(Arc<str>, Column)> {
            let column = Column::u8(&[1], None);
            (0..count).map(|at| (Arc::from(at.to_string()), column.clone())).collect()
        };
        assert_eq!(Frame::new(of(COLUMNS_MAX)).unwrap().columns().len(), COLUMNS_MAX);
        let error = Frame::new(of(COLUMNS_MAX + 1)).unwrap_err();
        assert!(error.message().contains("a frame of 65537 columns; the most is 65536"), "{error}");
    }

    #[test]
    fn a_column_is_found_or_the_others_are_named() {
        fn check(frame: &Frame, expected: &str) {
            let error = frame.column("x").unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, expected));
            assert_eq!(frame.select(&["x"]).unwrap_err().message(), expected);
        }
        let few = frame(&["b", "a"]).unwrap();
        assert_eq!((few.rows(), names(&few), few.column("a").unwrap().len()), (3, vec!["b", "a"], 3));
        check(&few, "no column `x`; there are b, a");
        check(&Frame::default(), "no column `x`; the frame has none");
        let many: Vec<String> = (0..=NAMES_SHOWN).map(|at| format!("c{at}")).collect();
        let many: Vec<&str> = many.iter().map(|name| &**name).collect();
        let list = many[..NAMES_SHOWN].join(", ");
        check(&frame(&many[..NAMES_SHOWN]).unwrap(), &format!("no column `x`; there are {list}"));
        check(&frame(&many).unwrap(), &format!("no column `x`; there are {list}, …"));
    }

    #[test]
    fn rows_are_cut_from_every_column() {
        let whole = frame(&["a", "b"]).unwrap();
        let part = whole.slice(1, 2).unwrap();
        assert_eq!((part.rows(), names(&part)), (2, vec!["a", "b"]));
        assert_eq!(part.column("b").unwrap().read_numbers(0, 2).unwrap(), [2.0, 3.0]);
        assert_eq!(whole.slice(3, 0).unwrap().rows(), 0);
        assert_eq!(Frame::default().slice(0, 0).unwrap().rows(), 0);
        for (offset, rows) in [(0, 4), (3, 1), (4, 0), (usize::MAX, 2)] {
            let error = whole.slice(offset, rows).unwrap_err();
            assert_eq!(error.message(), format!("{rows} rows from {offset} of a frame of 3"));
        }
    }

    #[test]
    fn columns_are_selected_in_the_order_asked_for() {
        let whole = frame(&["a", "b", "c"]).unwrap();
        assert_eq!(names(&whole.select(&["c", "a"]).unwrap()), ["c", "a"]);
        assert_eq!(whole.select(&[""; 0]).unwrap().columns().len(), 0);
        assert!(whole.select(&["c", "c"]).unwrap_err().message().contains("two columns are named `c`"));
    }
}
