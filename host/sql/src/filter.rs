//! What a query's conditions say of single columns.
//!
//! Owns the way from the engine's expressions to comparisons of a column with a constant, and of the time column to a window:
//! so that scans pass what cannot match. Separate from the sources that use it, because it is pure. What it does not
//! understand says nothing; the engine compares every row again.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use mainstay_tables::{Comparison, Condition, Constant, Window};

/// What a filter says of columns and constants: every row that passes it meets all of these. None when it says nothing.
pub(crate) fn compared(filter: &Expr) -> Vec<Condition> {
    let of = |column: &str, comparison, value: &ScalarValue| {
        constant(value).map(|value| Condition { column: column.to_owned(), comparison, value })
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (mut both, right) = (compared(left), compared(right));
            both.extend(right);
            both
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, op, value) = match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => (column, Some(*op), value),
                (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap(), value),
                _ => return Vec::new(),
            };
            let comparison = op.and_then(comparison);
            comparison.and_then(|comparison| of(&column.name, comparison, value)).into_iter().collect()
        }
        // Between the least and the greatest of the list; which is which shows in the row groups' answers.
        Expr::InList(InList { expr, list, negated: false }) if list.len() == 1 => match (&**expr, &list[0]) {
            (Expr::Column(column), Expr::Literal(value, _)) => {
                of(&column.name, Comparison::Equal, value).into_iter().collect()
            }
            _ => Vec::new(),
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = &**expr else { return Vec::new() };
            let whole = |value: &Expr| match value {
                Expr::Literal(value, _) => match constant(value) {
                    Some(Constant::Integer(value)) => Some(value),
                    _ => None,
                },
                _ => None,
            };
            let Some(values) = list.iter().map(whole).collect::<Option<Vec<i64>>>() else { return Vec::new() };
            let (Some(min), Some(max)) = (values.iter().min(), values.iter().max()) else { return Vec::new() };
            [(Comparison::GreaterOrEqual, *min), (Comparison::LessOrEqual, *max)]
                .map(|(comparison, value)| Condition {
                    column: column.name.clone(),
                    comparison,
                    value: Constant::Integer(value),
                })
                .into()
        }
        _ => Vec::new(),
    }
}

fn comparison(operator: Operator) -> Option<Comparison> {
    match operator {
        Operator::Lt => Some(Comparison::Less),
        Operator::LtEq => Some(Comparison::LessOrEqual),
        Operator::Eq => Some(Comparison::Equal),
        Operator::GtEq => Some(Comparison::GreaterOrEqual),
        Operator::Gt => Some(Comparison::Greater),
        _ => None,
    }
}

fn constant(value: &ScalarValue) -> Option<Constant> {
    match value {
        ScalarValue::Int64(Some(value)) | ScalarValue::TimestampMicrosecond(Some(value), _) => {
            Some(Constant::Integer(*value))
        }
        ScalarValue::Int32(Some(value)) => Some(Constant::Integer((*value).into())),
        ScalarValue::Float64(Some(value)) => Some(Constant::Real(*value)),
        ScalarValue::Float32(Some(value)) => Some(Constant::Real((*value).into())),
        ScalarValue::Utf8(Some(value)) | ScalarValue::LargeUtf8(Some(value)) | ScalarValue::Utf8View(Some(value)) => {
            Some(Constant::Text(value.clone()))
        }
        ScalarValue::Boolean(Some(value)) => Some(Constant::Boolean(*value)),
        _ => None,
    }
}

/// The window, made smaller by a comparison of the time column.
pub(crate) fn narrowed(window: Window, condition: &Condition) -> Window {
    let Constant::Integer(value) = condition.value else { return window };
    let behind = value.saturating_add(1);
    let (from_us, until_us) = match condition.comparison {
        Comparison::Greater => (behind, i64::MAX),
        Comparison::GreaterOrEqual => (value, i64::MAX),
        Comparison::Less => (i64::MIN, value),
        Comparison::LessOrEqual => (i64::MIN, behind),
        Comparison::Equal => (value, behind),
    };
    Window { from_us: window.from_us.max(from_us), until_us: window.until_us.min(until_us) }
}
