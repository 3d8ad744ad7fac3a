//! A scan in parts that run side by side.
//!
//! Owns [`SharedScan`]: what an engine needs to read a table with several threads: parts of about the same number of row
//! groups, each with cursors of its own, and one account of what all of them miss. Separate from scans, which go through
//! everything on one thread, and from engines, which this crate knows nothing of.
//!
//! Bounded as scans are, once for each part. On failure: as a scan; rows that a part has given are never given without the
//! rest of their file.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use mainstay_base::{Error, Result};

use crate::damage::{Missing, Torn};
use crate::prune::Condition;
use crate::scan::{Cursor, Plan, ScanOptions, Unit, Window, shown};
use crate::schema::TextForm;
use crate::snapshot::Snapshot;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct SharedScan {
    plan: Arc<Plan>,
    rows_known: Option<u64>,
}

/// Some row groups of a scan, perhaps with what is pending.
#[derive(Clone)]
pub struct Part {
    plan: Arc<Plan>,
    units: Vec<Unit>,
}

impl SharedScan {
    /// What its rows look like.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    /// How many rows it gives, when that is known before any is read: without a window of time, without conditions, and with
    /// nothing pending that nobody has decoded.
    pub fn rows_known(&self) -> Option<u64> {
        self.rows_known
    }

    /// Rows that are missing, as far as the parts have come.
    pub fn missing(&self) -> Vec<Missing> {
        self.plan.missing()
    }
}

impl Part {
    /// What its rows look like.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    /// Its rows, from the first.
    pub fn rows(&self) -> Cursor {
        Cursor::new(self.plan.clone(), self.units.iter().cloned())
    }

    /// Row groups of files in it.
    pub fn groups(&self) -> usize {
        self.units.iter().map(groups).sum()
    }
}

impl Snapshot {
    /// Columns of a table that may be seen, in their newest form.
    pub fn schema(&self, table: &str, with_restricted: bool, text: TextForm) -> Result<SchemaRef> {
        Ok(shown(&self.seen(table)?.spec, with_restricted, text))
    }

    /// The name of a table's time column.
    pub fn time_column(&self, table: &str) -> Result<&str> {
        Ok(&self.seen(table)?.spec.time)
    }

    /// Read rows of one of its tables with up to so many threads. Whoever asks names conditions that every row it wants
    /// meets: whole row groups are passed by them, and other rows may still be given.
    pub fn shared_scan(
        &self,
        table: &str,
        options: &ScanOptions,
        conditions: Vec<Condition>,
        threads: usize,
    ) -> Result<(SharedScan, Vec<Part>)> {
        let is_whole = options.window == Window::default() && conditions.is_empty();
        let (plan, units) = Plan::new(self, table, options, conditions)?;
        let rows_known = if is_whole { units.iter().map(rows).sum() } else { None };
        let parts = shared(units, threads).into_iter().map(|units| Part { plan: plan.clone(), units }).collect();
        Ok((SharedScan { plan, rows_known }, parts))
    }
}

/// Whether a scan ended because a file was found damaged of which rows had been given: asking again gives an answer without
/// them. Up to [`crate::limits::DAMAGE_RETRIES`] times is enough for whoever is not out of luck.
pub fn is_torn(error: &Error) -> bool {
    Torn::is_cause_of(error)
}

/// Rows of a unit, as far as they are known.
fn rows(unit: &Unit) -> Option<u64> {
    match unit {
        Unit::Pending(pieces) => pieces.is_empty().then_some(0),
        Unit::Groups(file, _) => Some(file.record.rows),
    }
}

fn groups(unit: &Unit) -> usize {
    if let Unit::Groups(_, groups) = unit { groups.len() } else { 0 }
}

/// The units of a scan for so many threads: row groups side by side, what is pending with the first of them.
fn shared(units: Vec<Unit>, threads: usize) -> Vec<Vec<Unit>> {
    let each = units.iter().map(groups).sum::<usize>().div_ceil(threads).max(1);
    let mut parts: Vec<Vec<Unit>> = vec![Vec::new()];
    let mut room = each;
    for unit in units {
        let Unit::Groups(file, mut left) = unit else {
            parts[0].push(unit);
            continue;
        };
        while !left.is_empty() {
            if room == 0 {
                parts.push(Vec::new());
                room = each;
            }
            let count = left.len().min(room);
            let next = left.start + count;
            parts.last_mut().expect("there is one").push(Unit::Groups(file.clone(), left.start..next));
            (left, room) = (next..left.end, room - count);
        }
    }
    parts
}
