//! Calls that judge rows which they may not see.
//!
//! Owns what a guarded call may ask, and how often a plugin may. A call is guarded from the moment it takes a window of a table
//! without the right to read: everything that it computes from then on may come from those rows, so the whole call is held to
//! the rules, whatever handles it passes around. Separate from the imports so that every rule stands in one place.
//!
//! The rules: nothing is read back, picked, filtered, compared with the caller's values, joined or predicted; no extreme order
//! statistics; nothing about fewer than [`ROWS_MIN`] rows; and a budget by the hour. They make reading through aggregates hard,
//! not impossible. Bounded by [`JUDGED_AN_HOUR`]. On failure: `denied` says what a guarded call cannot do; `exhausted` when the
//! budget is spent.

use mainstay_arrays::Column;
use mainstay_base::{Error, Result};
use mainstay_runtime::Capability;
use parking_lot::Mutex;

use crate::capabilities::TABLES_READ;
use crate::state::State;

/// Rows of which something may be said.
pub const ROWS_MIN: usize = 20;
/// Columns and pairs that a plugin's guarded calls may judge in an hour.
pub const JUDGED_AN_HOUR: f64 = 2_000.0;
/// Quantiles between these may be asked for.
pub const PROBABILITIES: (f64, f64) = (0.05, 0.95);
const HOUR_MS: f64 = 3_600_000.0;

/// What is left of a plugin's budget: a bucket that fills up evenly.
#[derive(Debug)]
pub(crate) struct Budget {
    state: Mutex<(f64, i64)>,
}

impl Budget {
    pub(crate) fn new(now_ms: i64) -> Budget {
        Budget { state: Mutex::new((JUDGED_AN_HOUR, now_ms)) }
    }

    fn spend(&self, count: usize, now_ms: i64) -> Result<()> {
        let mut state = self.state.lock();
        let (left, since_ms) = *state;
        // A clock that jumps back refills nothing.
        let refilled = (now_ms - since_ms).max(0) as f64 / HOUR_MS * JUDGED_AN_HOUR;
        let left = (left + refilled).min(JUDGED_AN_HOUR);
        let count = count as f64;
        if count > left {
            *state = (left, now_ms);
            return Err(Error::exhausted(format!(
                "without `tables.read` a plugin may judge {JUDGED_AN_HOUR} columns an hour; {left:.0} are left and {count} were \
                 asked for; ask again later, or for less"
            )));
        }
        *state = (left - count, now_ms);
        Ok(())
    }
}

impl State {
    /// Whether this call has taken rows that it may not read.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// A window is about to be taken without the right to read: from here on the call is guarded.
    pub(crate) fn guard_window(&mut self, to_us: i64) -> Result<()> {
        let now_us = self.plugin.services.clock.now_ms().saturating_mul(1_000);
        if to_us > now_us {
            return Err(Error::denied(
                "without `tables.read` a window must have ended: two windows that differ in what came meanwhile would show it",
            ));
        }
        self.guarded = true;
        Ok(())
    }

    /// A guarded call cannot do this.
    pub(crate) fn check_unguarded(&self, what: &str) -> Result<()> {
        match self.guarded {
            false => Ok(()),
            true => Err(Error::denied(format!(
                "this call has taken a window of a table without `{}`, and so it cannot {what}; an operator can grant it",
                TABLES_READ.name
            ))),
        }
    }

    /// A guarded call is told nothing about so few rows.
    pub(crate) fn check_guarded_rows(&self, rows: usize) -> Result<()> {
        match self.guarded && rows < ROWS_MIN {
            false => Ok(()),
            true => Err(Error::denied(format!(
                "without `tables.read` nothing is said of fewer than {ROWS_MIN} rows, and these are {rows}"
            ))),
        }
    }

    /// A guarded call is told no extreme order statistics.
    pub(crate) fn check_probabilities(&self, probabilities: &[f64]) -> Result<()> {
        let (low, high) = PROBABILITIES;
        let extreme = probabilities.iter().find(|probability| !(low..=high).contains(*probability));
        match extreme.filter(|_| self.guarded) {
            None => Ok(()),
            Some(extreme) => Err(Error::denied(format!(
                "without `tables.read` quantiles from {low} to {high} can be asked for, and {extreme} is none of them"
            ))),
        }
    }

    /// A guarded call may be told about these columns, and its plugin's budget pays for it.
    pub(crate) fn judge<'a>(&self, columns: impl IntoIterator<Item = &'a Column>) -> Result<()> {
        if !self.guarded {
            return Ok(());
        }
        let mut count = 0;
        for column in columns {
            self.check_guarded_rows(column.len() - column.missing())?;
            count += 1;
        }
        self.plugin.guard_budget.spend(count, self.plugin.services.clock.now_ms())
    }

    /// Whether the plugin has this capability; for what two of them allow in different measure.
    pub(crate) fn may(&self, capability: Capability) -> bool {
        self.plugin.grants.allow(capability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_fills_up_by_the_hour() {
        let budget = Budget::new(0);
        budget.spend(2_000, 0).unwrap();
        let error = budget.spend(1, 0).unwrap_err();
        assert!(error.message().contains("2000 columns an hour; 0 are left"), "{error}");
        budget.spend(1, 2_000).unwrap();
        assert!(budget.spend(1, -1_000_000).is_err(), "a clock that jumps back refills nothing");
        budget.spend(1_000, 1_802_000).unwrap();
        assert!(budget.spend(1_001, 3_600_000 * 10).is_ok(), "and never more than an hour's");
        assert!(budget.spend(1_000, 3_600_000 * 10).is_err());
    }
}
