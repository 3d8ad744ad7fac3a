//! Filters: from a list in postfix order to a set of documents.
//!
//! The list becomes a tree, the tree is evaluated column by column: every term yields a bitmap. Inside `all`, what is
//! cheap comes first and narrows what is looked at later; a text comparison is evaluated once per distinct text of the
//! column, or once per remaining document when those are fewer.
//!
//! What compares with what: text with text, boolean with boolean, integers and reals as exact numbers. NaN equals nothing
//! and is neither less nor greater; it is `not-equal` to every number. Everything else does not match.
//!
//! Bounded by [`FILTER_NODES_MAX`] and [`ONE_OF_VALUES_MAX`]. A malformed filter is an error that names the node.

use std::cmp::Ordering;

use hashbrown::HashSet;
use mainstay_base::{Error, Result};

use super::Index;
use super::bitmap::Bitmap;
use super::column::{Cell, Column, Tag};
use super::like::Pattern;
use super::query::{Comparison, FILTER_NODES_MAX, FilterNode, ONE_OF_VALUES_MAX, Term, check_field_name, shown};
use crate::value::{Number, Value};

/// The pseudo field that is the document's id.
pub(super) const ID_FIELD: &str = "@id";

/// A filter that was checked.
#[derive(Debug)]
pub(super) enum Filter {
    Test { field: String, test: Test },
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
}

/// What is asked of one field.
#[derive(Debug)]
pub(super) enum Test {
    Exists,
    Text(Comparison, String),
    Like(Pattern),
    Number(Comparison, Value),
    Boolean(Comparison, bool),
    OneOf(OneOf),
}

#[derive(Debug, Default)]
pub(super) struct OneOf {
    texts: Vec<String>,
    numbers: HashSet<Number>,
    booleans: [bool; 2],
}

impl Filter {
    /// Read a list of nodes; none means that everything matches.
    pub fn parse(nodes: &[FilterNode]) -> Result<Option<Filter>> {
        if nodes.len() > FILTER_NODES_MAX {
            return Err(Error::invalid(format!(
                "the filter has {} nodes; at most {FILTER_NODES_MAX} are allowed",
                nodes.len()
            )));
        }
        let mut values_left = ONE_OF_VALUES_MAX;
        let mut stack = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            Filter::push(&mut stack, node, &mut values_left)
                .map_err(|error| error.context(format_args!("node {at} of the filter")))?;
        }
        match stack.len() {
            0 => Ok(None),
            1 => Ok(stack.pop()),
            left => Err(Error::invalid(format!(
                "the filter leaves {left} results, but exactly one must remain; join them with `all` or `any`"
            ))),
        }
    }

    fn push(stack: &mut Vec<Filter>, node: &FilterNode, values_left: &mut usize) -> Result<()> {
        let filter = match node {
            FilterNode::Term(term) => Filter::term(term)?,
            FilterNode::OneOf(field, values) => {
                *values_left = values_left.checked_sub(values.len()).ok_or_else(|| {
                    Error::invalid(format!("more than {ONE_OF_VALUES_MAX} values in `one-of`; ask in several queries"))
                })?;
                check_field_name(field)?;
                Filter::Test { field: field.clone(), test: Test::OneOf(OneOf::new(values)?) }
            }
            FilterNode::All(count) => joined(pop(stack, *count, "all")?, Filter::All),
            FilterNode::Any(count) => joined(pop(stack, *count, "any")?, Filter::Any),
            FilterNode::Negate => match pop(stack, 1, "negate")?.pop() {
                // Twice not is not at all: this keeps the tree as shallow as its meaning.
                Some(Filter::Not(inner)) => *inner,
                inner => Filter::Not(Box::new(inner.expect("one was taken"))),
            },
        };
        stack.push(filter);
        Ok(())
    }

    fn term(term: &Term) -> Result<Filter> {
        check_field_name(&term.field)?;
        let test = match (term.comparison, &term.operand) {
            (Comparison::Exists, _) => Test::Exists,
            (Comparison::Like, Value::Text(pattern)) => Test::Like(Pattern::new(pattern, false)?),
            (Comparison::Ilike, Value::Text(pattern)) => Test::Like(Pattern::new(pattern, true)?),
            (Comparison::Like | Comparison::Ilike, other) => {
                return Err(Error::invalid(format!(
                    "field `{}` is compared by pattern with a value of type {}; a pattern is text",
                    shown(&term.field),
                    other.kind()
                )));
            }
            (comparison, Value::Text(text)) => Test::Text(comparison, text.clone()),
            (comparison, number @ (Value::Integer(_) | Value::Real(_))) => Test::Number(comparison, number.clone()),
            (comparison, Value::Boolean(boolean)) => Test::Boolean(comparison, *boolean),
            (_, other) => return Err(not_comparable(&term.field, other)),
        };
        Ok(Filter::Test { field: term.field.clone(), test })
    }

    /// The documents that match; with a mask, right only for those in it.
    pub fn evaluate(&self, index: &Index, mask: Option<&Bitmap>) -> Bitmap {
        match self {
            Filter::Test { field, test } => test.evaluate(index, field, mask),
            Filter::Not(inner) => {
                let mut rest = index.live().clone();
                rest.subtract(&inner.evaluate(index, mask));
                rest
            }
            Filter::Any(parts) => {
                let mut united = Bitmap::empty(index.ordinals());
                parts.iter().for_each(|part| united.unite(&part.evaluate(index, mask)));
                united
            }
            Filter::All(parts) => {
                let mut left = mask.unwrap_or(index.live()).clone();
                let mut parts: Vec<&Filter> = parts.iter().collect();
                parts.sort_by_key(|part| part.cost(index));
                for part in parts {
                    let found = part.evaluate(index, Some(&left));
                    left.intersect(&found);
                }
                left
            }
        }
    }

    /// About how long it takes, only to find an order.
    fn cost(&self, index: &Index) -> usize {
        match self {
            Filter::Test { field, test } => test.cost(index, field),
            Filter::Not(inner) => inner.cost(index),
            Filter::All(parts) | Filter::Any(parts) => parts.iter().map(|part| part.cost(index)).sum(),
        }
    }
}

fn pop(stack: &mut Vec<Filter>, count: u32, what: &str) -> Result<Vec<Filter>> {
    let start = stack
        .len()
        .checked_sub(count as usize)
        .ok_or_else(|| Error::invalid(format!("`{what}` takes {count} results, but only {} are there", stack.len())))?;
    Ok(stack.split_off(start))
}

fn joined(mut parts: Vec<Filter>, join: impl Fn(Vec<Filter>) -> Filter) -> Filter {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

fn not_comparable(field: &str, value: &Value) -> Error {
    let hint = match value {
        Value::Texts(_) => "give one text, or `one-of` for several",
        _ => "bytes are kept and returned, but cannot be filtered",
    };
    Error::invalid(format!("field `{}` is compared with a value of type {}; {hint}", shown(field), value.kind()))
}

impl OneOf {
    fn new(values: &[Value]) -> Result<OneOf> {
        let mut one_of = OneOf::default();
        for value in values {
            match value {
                Value::Text(text) => one_of.texts.push(text.clone()),
                Value::Boolean(boolean) => one_of.booleans[usize::from(*boolean)] = true,
                Value::Integer(_) | Value::Real(_) => one_of.numbers.extend(value.number()),
                Value::Texts(_) | Value::Bytes(_) => {
                    return Err(Error::invalid(format!(
                        "`one-of` lists a value of type {}; it takes texts, numbers and booleans",
                        value.kind()
                    )));
                }
            }
        }
        Ok(one_of)
    }

    fn evaluate(&self, column: &Column, mask: Option<&Bitmap>, out: &mut Bitmap) {
        let texts: HashSet<u32> = self.texts.iter().filter_map(|text| column.dictionary().find(text)).collect();
        column.scan(mask, out, |cell| match cell.tag {
            Tag::Text => texts.contains(&(cell.payload as u32)),
            Tag::Texts => column.list(cell).iter().any(|text| texts.contains(text)),
            Tag::Boolean => self.booleans[usize::from(cell.payload != 0)],
            Tag::Integer | Tag::Real => number(cell).is_some_and(|number| self.numbers.contains(&number)),
            Tag::Missing | Tag::Bytes => false,
        });
    }
}

impl Test {
    fn evaluate(&self, index: &Index, field: &str, mask: Option<&Bitmap>) -> Bitmap {
        let mut out = Bitmap::empty(index.ordinals());
        if field == ID_FIELD {
            self.evaluate_id(index, mask, &mut out);
        } else if let Some(column) = index.column(field) {
            self.evaluate_column(column, mask, &mut out);
        }
        out
    }

    fn evaluate_column(&self, column: &Column, mask: Option<&Bitmap>, out: &mut Bitmap) {
        match self {
            Test::Exists => column.scan(mask, out, |_| true),
            Test::OneOf(one_of) => one_of.evaluate(column, mask, out),
            Test::Boolean(comparison, operand) => column.scan(mask, out, |cell| {
                cell.tag == Tag::Boolean && holds(*comparison, Some((cell.payload != 0).cmp(operand)))
            }),
            Test::Number(comparison, Value::Real(operand)) => scan_reals(column, mask, out, *comparison, *operand),
            Test::Number(comparison, operand) => scan_numbers(column, mask, out, *comparison, operand),
            Test::Text(Comparison::Equal, operand) => {
                let Some(text) = column.dictionary().find(operand) else { return };
                scan_texts(column, mask, out, |number| number == text);
            }
            Test::Text(Comparison::NotEqual, operand) => {
                let text = column.dictionary().find(operand);
                scan_texts(column, mask, out, |number| Some(number) != text);
            }
            Test::Text(..) | Test::Like(_) => {
                let remaining = mask.map_or(usize::MAX, Bitmap::count);
                let dictionary = column.dictionary();
                if remaining < dictionary.distinct() {
                    scan_texts(column, mask, out, |number| self.text_matches(dictionary.text(number)));
                } else {
                    let matching = dictionary.matching(|text| self.text_matches(text));
                    scan_texts(column, mask, out, |number| matching[number as usize]);
                }
            }
        }
    }

    fn evaluate_id(&self, index: &Index, mask: Option<&Bitmap>, out: &mut Bitmap) {
        let mut look_up = |id: &str| {
            if let Some(ordinal) = index.ordinal(id) {
                out.insert(ordinal);
            }
        };
        match self {
            Test::Exists => out.unite(index.live()),
            Test::Text(Comparison::Equal, operand) => look_up(operand),
            Test::OneOf(one_of) => one_of.texts.iter().for_each(|id| look_up(id)),
            Test::Text(..) | Test::Like(_) => {
                for ordinal in mask.unwrap_or(index.live()).iter() {
                    if self.text_matches(index.id(ordinal)) {
                        out.insert(ordinal);
                    }
                }
            }
            // An id is text.
            Test::Number(..) | Test::Boolean(..) => {}
        }
    }

    fn text_matches(&self, text: &str) -> bool {
        match self {
            Test::Text(comparison, operand) => holds(*comparison, Some(text.cmp(operand.as_str()))),
            Test::Like(pattern) => pattern.matches(text),
            _ => false,
        }
    }

    fn cost(&self, index: &Index, field: &str) -> usize {
        const PATTERN_FACTOR: usize = 20;
        let by_pattern = matches!(self, Test::Like(_));
        if field == ID_FIELD {
            let is_lookup = matches!(self, Test::Text(Comparison::Equal, _) | Test::OneOf(_));
            return if is_lookup { 0 } else { index.ordinals() * PATTERN_FACTOR };
        }
        let Some(column) = index.column(field) else { return 0 };
        column.filled() + if by_pattern { column.dictionary().distinct() * PATTERN_FACTOR } else { 0 }
    }
}

/// Put into `out` the documents one of whose texts satisfies the predicate over dictionary numbers.
fn scan_texts(column: &Column, mask: Option<&Bitmap>, out: &mut Bitmap, predicate: impl Fn(u32) -> bool) {
    column.scan(mask, out, |cell| match cell.tag {
        Tag::Text => predicate(cell.payload as u32),
        Tag::Texts => column.list(cell).iter().any(|&number| predicate(number)),
        _ => false,
    });
}

/// The common case, reals against a real, without a call per cell.
fn scan_reals(column: &Column, mask: Option<&Bitmap>, out: &mut Bitmap, comparison: Comparison, operand: f64) {
    let exact = Number::from_real(operand);
    column.scan(mask, out, |cell| match cell.tag {
        Tag::Real => holds(comparison, f64::from_bits(cell.payload).partial_cmp(&operand)),
        Tag::Integer => holds(comparison, exact.map(|exact| Number::from_integer(cell.payload as i64).cmp(&exact))),
        _ => false,
    });
}

fn scan_numbers(column: &Column, mask: Option<&Bitmap>, out: &mut Bitmap, comparison: Comparison, operand: &Value) {
    let Value::Integer(integer) = *operand else { return };
    let exact = Number::from_integer(integer);
    column.scan(mask, out, |cell| match cell.tag {
        Tag::Integer => holds(comparison, Some((cell.payload as i64).cmp(&integer))),
        Tag::Real => holds(comparison, number(cell).map(|number| number.cmp(&exact))),
        _ => false,
    });
}

fn number(cell: Cell) -> Option<Number> {
    match cell.tag {
        Tag::Integer => Some(Number::from_integer(cell.payload as i64)),
        Tag::Real => Number::from_real(f64::from_bits(cell.payload)),
        _ => None,
    }
}

/// Whether a comparison holds for this order; no order (NaN) is only "not equal".
#[inline]
pub(super) fn holds(comparison: Comparison, order: Option<Ordering>) -> bool {
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        Comparison::Like | Comparison::Ilike | Comparison::Exists => false,
    }
}
