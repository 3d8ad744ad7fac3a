//! Chi-square test of independence in a table of counts, as scipy's `chi2_contingency`.
//!
//! Yates' correction only with one degree of freedom, and never by more than the difference itself. Without a degree of
//! freedom nothing can differ: statistic 0, probability 1.

use crate::fault::{Fault, Result};
use crate::special::chi_square_upper;

/// Cells that a table may have.
pub const CELLS_MAX: usize = 10_000_000;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct ChiSquare {
    /// Sum of squared differences over expected frequencies.
    pub statistic: f64,
    /// Probability of that or more under independence.
    pub p_value: f64,
    /// (rows - 1) (columns - 1).
    pub degrees: usize,
    /// Expected frequencies, in the table's order.
    pub expected: Vec<f64>,
}

/// Test of a table of `columns` counts a row, rows one after the other.
///
/// `empty_input`, `length_mismatch` (a row that is not whole), `non_finite`, `negative_count`, `zero_expected` (a row or
/// column of zeros).
pub fn chi_square(table: &[f64], columns: usize, yates: bool) -> Result<ChiSquare> {
    check(table, columns)?;
    let rows = table.len() / columns;
    let row_sums: Vec<f64> = table.chunks_exact(columns).map(|row| row.iter().sum()).collect();
    let column_sums: Vec<f64> = (0..columns).map(|at| table.iter().skip(at).step_by(columns).sum()).collect();
    let total: f64 = row_sums.iter().sum();
    let expected: Vec<f64> =
        row_sums.iter().flat_map(|row| column_sums.iter().map(move |column| row * column / total)).collect();
    if let Some(at) = expected.iter().position(|frequency| frequency.is_nan() || *frequency <= 0.0) {
        return Err(Fault::zero_expected(format!(
            "the expected frequency in row {}, column {} is zero; leave out rows and columns of zeros",
            at / columns,
            at % columns
        )));
    }
    let degrees = (rows - 1) * (columns - 1);
    if degrees == 0 {
        return Ok(ChiSquare { statistic: 0.0, p_value: 1.0, degrees, expected });
    }
    let term = |(observed, expected): (&f64, &f64)| {
        let difference = (observed - expected).abs();
        let corrected = if yates && degrees == 1 { difference - difference.min(0.5) } else { difference };
        corrected * corrected / expected
    };
    let statistic: f64 = table.iter().zip(&expected).map(term).sum();
    Ok(ChiSquare { statistic, p_value: chi_square_upper(statistic, degrees as f64), degrees, expected })
}

fn check(table: &[f64], columns: usize) -> Result<()> {
    if table.is_empty() || columns == 0 {
        return Err(Fault::empty_input("a table without cells; count at least one row and column"));
    }
    if table.len() > CELLS_MAX {
        return Err(Fault::too_many(format!("a table of {} cells; the most is {CELLS_MAX}", table.len())));
    }
    if !table.len().is_multiple_of(columns) {
        return Err(Fault::length_mismatch(format!("{} cells are no rows of {columns}", table.len())));
    }
    if table.iter().any(|count| !count.is_finite()) {
        return Err(Fault::non_finite("a count is NaN or infinite"));
    }
    match table.iter().find(|count| **count < 0.0) {
        Some(negative) => Err(Fault::negative_count(format!("a count of {negative}; counts are not negative"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be() {
        let check = |table: &[f64], columns, code: &str| {
            assert_eq!(chi_square(table, columns, true).unwrap_err().code(), code);
        };
        check(&[], 2, "empty_input");
        check(&[1.0, 2.0, 3.0], 2, "length_mismatch");
        check(&[1.0, -2.0], 2, "negative_count");
        check(&[1.0, f64::NAN], 2, "non_finite");
        check(&[0.0, 0.0, 3.0, 4.0], 2, "zero_expected");
        check(&[0.0, 0.0], 1, "zero_expected");
    }

    #[test]
    fn without_a_degree_of_freedom_nothing_differs() {
        let found = chi_square(&[1.0, 2.0, 3.0], 3, true).unwrap();
        assert_eq!((found.statistic, found.p_value, found.degrees), (0.0, 1.0, 0));
        // scipy.stats.chi2_contingency([[10, 10], [11, 10]]): the correction is clamped to the difference.
        let found = chi_square(&[10.0, 10.0, 11.0, 10.0], 2, true).unwrap();
        assert!(found.statistic.abs() < 1e-20 && found.p_value == 1.0, "{found:?}");
    }
}
