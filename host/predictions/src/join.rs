//! Predictions with what became true of them.
//!
//! Owns the join. Outcomes come late, twice, and in any order; of those of one prediction and name the one with the latest time
//! counts, of several with that time the one that was received last. A prediction that was written twice stands there once, as
//! it was first. So a prediction is never doubled by its outcomes, and an outcome that comes again changes nothing. Separate
//! from the tables, which join nothing by themselves.
//!
//! Bounded by the tables' limits for windows. On failure: typed errors; rows of damaged files are named in the answer.

use std::collections::HashSet;

use mainstay_arrays::join::{Matches, Rule, Side, as_of};
use mainstay_arrays::{Column, Frame};
use mainstay_base::Result;
use mainstay_tables::{Missing, ScanOptions, Window, WindowAnswer, WindowLimits};

use crate::log::Log;
use crate::spec::{ID, NAME, RECEIVED, TEXT, TIME, VALUE};

/// Which predictions, and which outcome of them.
#[derive(Clone, Debug)]
pub struct LabelledQuery {
    /// Predictions of these times.
    pub window: Window,
    /// The outcome's name.
    pub outcome: String,
    /// Outcomes that became true before this time, in microseconds since 1970; none: all that are known.
    pub until_us: Option<i64>,
    /// Whether columns that are marked *restrict* may be seen.
    pub with_restricted: bool,
}

/// Predictions with an outcome.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The predictions' columns, in order of their time, and `outcome_value`, `outcome_text`, `outcome_time`: missing where the
    /// outcome is not known.
    pub frame: Frame,
    /// Predictions whose outcome is known.
    pub known: usize,
    /// Rows that are not among them because files are damaged.
    pub missing: Vec<Missing>,
}

impl Log {
    /// Predictions of a window, each once, with at most one outcome each.
    pub async fn labelled(&self, query: &LabelledQuery, limits: &WindowLimits) -> Result<Labelled> {
        let options =
            ScanOptions { window: query.window, with_restricted: query.with_restricted, ..ScanOptions::default() };
        let WindowAnswer { frame: predictions, mut missing } = self.predictions.window(&options, limits).await?;
        // Nothing becomes true of a prediction before it was made; clocks of those who post may differ, so no bound is taken
        // from that.
        let window = Window { from_us: i64::MIN, until_us: query.until_us.unwrap_or(i64::MAX) };
        let columns = [TIME, ID, NAME, VALUE, TEXT, RECEIVED].map(str::to_owned).to_vec();
        let options = ScanOptions { window, columns: Some(columns), ..ScanOptions::default() };
        let answer = self.outcomes.window(&options, limits).await?;
        missing.extend(answer.missing);
        let once = first_of_each(&predictions)?;
        let outcomes = named(&answer.frame, &query.outcome)?;
        let (frame, known) = join(&once, &outcomes)?;
        Ok(Labelled { frame, known, missing })
    }
}

/// The first row of each id.
fn first_of_each(predictions: &Frame) -> Result<Frame> {
    let ids = predictions.column(ID)?.texts()?;
    let mut seen = HashSet::with_capacity(predictions.rows());
    let rows = ids.iter().enumerate().filter(|(_, id)| id.is_some_and(|id| seen.insert(id)));
    pick(predictions, rows.map(|(row, _)| row as u32).collect())
}

/// The rows of one outcome's name.
fn named(outcomes: &Frame, name: &str) -> Result<Frame> {
    let names = outcomes.column(NAME)?.texts()?;
    let rows = names.iter().enumerate().filter(|(_, found)| *found == Some(name));
    pick(outcomes, rows.map(|(row, _)| row as u32).collect())
}

fn pick(frame: &Frame, rows: Vec<u32>) -> Result<Frame> {
    if rows.len() == frame.rows() {
        return Ok(frame.clone());
    }
    let matches = Matches::of_rows(rows, frame.rows());
    let columns = frame.columns().iter().map(|(name, column)| Ok((name.clone(), matches.take(column)?)));
    Frame::new(columns.collect::<Result<_>>()?)
}

/// An as-of join of each prediction at the end of time: the newest outcome of its id.
fn join(predictions: &Frame, outcomes: &Frame) -> Result<(Frame, usize)> {
    let at_the_end = Column::i64(&vec![i64::MAX; predictions.rows()], None);
    let keys = [predictions.column(ID)?.clone()];
    let history_keys = [outcomes.column(ID)?.clone()];
    let rows = Side { keys: &keys, times: &at_the_end };
    let history = Side { keys: &history_keys, times: outcomes.column(TIME)? };
    let matches = as_of(&rows, &history, Some(outcomes.column(RECEIVED)?), &Rule::default())?;
    let mut columns = predictions.columns().to_vec();
    for (name, column) in [("outcome_value", VALUE), ("outcome_text", TEXT), ("outcome_time", TIME)] {
        columns.push((name.into(), matches.take(outcomes.column(column)?)?));
    }
    Ok((Frame::new(columns)?, matches.found()))
}
