//! Rates by group: how often each group is selected, rightly and wrongly, and how far groups are apart.
//!
//! Groups are the distinct values of one column or the crossings of several that have rows; empty crossings are left out.
//! Rates and their summary follow fairlearn's `MetricFrame` between groups: a rate over nothing is 0, and the counts beside it
//! say so. A ratio of zeros is NaN.
//!
//! **Layout.** Every column becomes codes, strings by their dictionary, once per entry; crossings get codes of their own.
//! Then one pass adds each row to one of four counters of its group. Unweighted sums are integers; weighted ones are added per
//! fixed part of the rows and joined in order. Bounded by [`GROUPS_MAX`] groups; memory is 4 bytes a row.

use std::cmp::Ordering;
use std::fmt;

use hashbrown::HashMap;
use mainstay_arrays::{Numbers, Texts};

use crate::fault::{Fault, Result};
use crate::roc::{Checks, check_weights};
use crate::walk::{Missing, Rows};

/// Groups that one call may have.
pub const GROUPS_MAX: usize = 10_000;
/// Codes below this are looked up in a table, others in a hash map.
const TABLE_CODES: usize = 4_096;

/// A column that groups rows.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// Strings.
    Texts(&'a Texts<'a>),
    /// Integers or booleans; numbers with a fraction are refused.
    Numbers(&'a Numbers<'a>),
}

/// One value of such a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyValue {
    /// An integer; booleans are 0 and 1.
    Integer(i64),
    /// A string.
    Text(Box<str>),
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValue::Integer(value) => value.fmt(f),
            KeyValue::Text(value) => f.write_str(value),
        }
    }
}

/// What a group's rows come to. Weights are counts where none were given.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Rows.
    pub count: u64,
    /// Weight of all rows.
    pub weight: f64,
    /// Weight of rows whose label is 1.
    pub positives: f64,
    /// Weight of rows whose label is 0.
    pub negatives: f64,
    /// Weight predicted 1 over all.
    pub selection_rate: f64,
    /// Predicted 1 among labels of 1; 0 without any.
    pub true_positive_rate: f64,
    /// Predicted 1 among labels of 0; 0 without any.
    pub false_positive_rate: f64,
    /// Predicted right over all.
    pub accuracy: f64,
}

/// A group and its rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its value in each column.
    pub key: Vec<KeyValue>,
    /// Its rates.
    pub rates: Rates,
}

/// A rate's least and greatest value over groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Spread {
    /// Greatest minus least.
    pub fn difference(&self) -> f64 {
        self.max - self.min
    }

    /// Least over greatest; NaN when both are zero.
    pub fn ratio(&self) -> f64 {
        self.min / self.max
    }
}

/// Rates of all groups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRates {
    /// Groups that have rows, ascending by key.
    pub groups: Vec<Group>,
    /// All rows together.
    pub overall: Rates,
    /// Over groups.
    pub selection_rate: Spread,
    /// Over groups.
    pub true_positive_rate: Spread,
    /// Over groups.
    pub false_positive_rate: Spread,
    /// Over groups.
    pub accuracy: Spread,
}

impl GroupRates {
    /// The larger of the differences of true and false positive rates.
    pub fn odds_difference(&self) -> f64 {
        self.true_positive_rate.difference().max(self.false_positive_rate.difference())
    }

    /// The smaller of their ratios. A first ratio that is not a number stays, as in fairlearn.
    pub fn odds_ratio(&self) -> f64 {
        let (first, second) = (self.true_positive_rate.ratio(), self.false_positive_rate.ratio());
        if second < first { second } else { first }
    }
}

/// Rates of `predictions` against `labels`, both 0 or 1, by groups of `keys`.
///
/// `empty_input`, `length_mismatch`, `not_binary`, `negative_count` for weights, `too_many` beyond [`GROUPS_MAX`]. A missing
/// place in any column is the row's.
pub fn rates_by_group(
    labels: &Numbers<'_>,
    predictions: &Numbers<'_>,
    keys: &[Key<'_>],
    weights: Option<&Numbers<'_>>,
    missing: Missing,
) -> Result<GroupRates> {
    let coded = Coded::new(keys, labels.len())?;
    let codes = Numbers::of_f32(&[&coded.codes]);
    let cells = match weights {
        None => counted(&Rows::new([labels, predictions, &codes], missing)?, coded.groups.len())?,
        Some(weights) => weighed(&Rows::new([labels, predictions, &codes, weights], missing)?, coded.groups.len())?,
    };
    summarized(coded, cells)
}

/// For each group, rows and weights by label and prediction: 00, 01, 10, 11.
type Cells = Vec<[(u64, f64); 4]>;

fn counted(rows: &Rows<'_, 3>, groups: usize) -> Result<Cells> {
    let step = |(counts, checks): &mut (Vec<[u64; 4]>, Checks), [labels, predictions, codes]: [&[f64]; 3]| {
        checks.labels(labels);
        checks.labels(predictions);
        for (code, (label, prediction)) in codes.iter().zip(labels.iter().zip(predictions)) {
            counts[*code as usize][cell(*label, *prediction)] += 1;
        }
    };
    let join = |mut a: (Vec<[u64; 4]>, Checks), b: (Vec<[u64; 4]>, Checks)| {
        a.0.iter_mut().zip(b.0).for_each(|(a, b)| (0..4).for_each(|at| a[at] += b[at]));
        (a.0, a.1.and(b.1))
    };
    let (counts, checks) = rows.fold(|| (vec![[0; 4]; groups], Checks::default()), step, join)?;
    checks.values()?;
    Ok(counts.into_iter().map(|counts| counts.map(|count| (count, count as f64))).collect())
}

/// On one thread: ten thousand groups' sums for every piece would be more than the rows.
fn weighed(rows: &Rows<'_, 4>, groups: usize) -> Result<Cells> {
    let (mut cells, mut checks, mut bad) = (vec![[(0, 0.0); 4]; groups], Checks::default(), Ok(()));
    rows.each(|[labels, predictions, codes, weights]| {
        checks.labels(labels);
        checks.labels(predictions);
        if bad.is_ok() {
            bad = check_weights(weights);
        }
        let pairs = labels.iter().zip(predictions);
        for ((code, weight), (label, prediction)) in codes.iter().zip(weights).zip(pairs) {
            let cell: &mut (u64, f64) = &mut cells[*code as usize][cell(*label, *prediction)];
            *cell = (cell.0 + 1, cell.1 + weight);
        }
    })?;
    checks.values()?;
    bad?;
    Ok(cells)
}

#[inline(always)]
fn cell(label: f64, prediction: f64) -> usize {
    2 * usize::from(label == 1.0) + usize::from(prediction == 1.0)
}

impl Rates {
    fn of(cells: &[(u64, f64); 4]) -> Rates {
        let [(_, right_no), (_, wrong_yes), (_, wrong_no), (_, right_yes)] = *cells;
        let share = |part: f64, of: f64| if of == 0.0 { 0.0 } else { part / of };
        let (positives, negatives) = (right_yes + wrong_no, right_no + wrong_yes);
        let weight = positives + negatives;
        Rates {
            count: cells.iter().map(|cell| cell.0).sum(),
            weight,
            positives,
            negatives,
            selection_rate: share(right_yes + wrong_yes, weight),
            true_positive_rate: share(right_yes, positives),
            false_positive_rate: share(wrong_yes, negatives),
            accuracy: share(right_yes + right_no, weight),
        }
    }
}

fn summarized(coded: Coded, cells: Cells) -> Result<GroupRates> {
    let mut total = [(0, 0.0); 4];
    let mut groups: Vec<Group> = Vec::with_capacity(cells.len());
    for (key, cells) in coded.groups.into_iter().zip(&cells) {
        total.iter_mut().zip(cells).for_each(|(total, cell)| *total = (total.0 + cell.0, total.1 + cell.1));
        if cells.iter().any(|cell| cell.0 > 0) {
            groups.push(Group { key, rates: Rates::of(cells) });
        }
    }
    if groups.is_empty() {
        return Err(Fault::nothing("every column"));
    }
    groups.sort_by(|a, b| a.key.cmp(&b.key));
    let spread = |of: fn(&Rates) -> f64| Spread {
        min: groups.iter().map(|group| of(&group.rates)).fold(f64::INFINITY, f64::min),
        max: groups.iter().map(|group| of(&group.rates)).fold(f64::NEG_INFINITY, f64::max),
    };
    Ok(GroupRates {
        overall: Rates::of(&total),
        selection_rate: spread(|rates| rates.selection_rate),
        true_positive_rate: spread(|rates| rates.true_positive_rate),
        false_positive_rate: spread(|rates| rates.false_positive_rate),
        accuracy: spread(|rates| rates.accuracy),
        groups,
    })
}

/// A group's number for each row. In f32, which is exact for so few and has NaN for "missing", so that codes are one more
/// column of the walk.
struct Coded {
    codes: Vec<f32>,
    groups: Vec<Vec<KeyValue>>,
}

impl Coded {
    fn new(keys: &[Key<'_>], rows: usize) -> Result<Coded> {
        let Some((first, others)) = keys.split_first() else {
            return Ok(Coded { codes: vec![0.0; rows], groups: vec![Vec::new()] });
        };
        let mut all = Coded::of(first)?;
        for key in others {
            all = all.crossed(Coded::of(key)?)?;
        }
        Ok(all)
    }

    fn of(key: &Key<'_>) -> Result<Coded> {
        match key {
            Key::Texts(texts) => Coded::of_texts(texts),
            Key::Numbers(numbers) => Coded::of_numbers(numbers),
        }
    }

    fn of_texts(texts: &Texts<'_>) -> Result<Coded> {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut groups: Vec<&str> = Vec::new();
        let mut codes = Vec::with_capacity(texts.len());
        for chunk in &texts.chunks {
            // Entries that no row has must not count as groups.
            let mut used = vec![false; chunk.dictionary.iter().len()];
            let is_there = |at: usize| chunk.validity.is_none_or(|validity| validity.is_valid(at));
            let places = chunk.keys.iter().enumerate();
            places.for_each(|(at, key)| used.get_mut(*key as usize).into_iter().for_each(|used| *used |= is_there(at)));
            let mut of_entry = vec![f32::NAN; used.len()];
            for (entry, _) in used.iter().enumerate().filter(|(_, used)| **used) {
                let text = chunk.dictionary.value(entry);
                let number = *numbers.entry(text).or_insert_with(|| {
                    groups.push(text);
                    groups.len() as u32 - 1
                });
                of_entry[entry] = number as f32;
                check_groups(groups.len())?;
            }
            let code = |(at, key): (usize, &i32)| if is_there(at) { of_entry[*key as usize] } else { f32::NAN };
            codes.extend(chunk.keys.iter().enumerate().map(code));
        }
        let groups = groups.into_iter().map(|text| vec![KeyValue::Text(text.into())]).collect();
        Ok(Coded { codes, groups })
    }

    fn of_numbers(numbers: &Numbers<'_>) -> Result<Coded> {
        if let Numbers::I64(chunks) = numbers {
            return of_integers(numbers.len(), |take| {
                for chunk in chunks {
                    let is_there = |at: usize| chunk.validity.is_none_or(|validity| validity.is_valid(at));
                    chunk.values.iter().enumerate().for_each(|(at, value)| take(is_there(at).then_some(*value)));
                }
            });
        }
        let mut fraction = None;
        let coded = of_integers(numbers.len(), |take| {
            numbers.for_each(|value| {
                let value = value.filter(|value| !value.is_nan());
                fraction = fraction.or(value.filter(|value| value.fract() != 0.0 || value.abs() > 9e15));
                take(value.map(|value| value as i64));
            });
        })?;
        match fraction {
            None => Ok(coded),
            Some(value) => Err(Fault::bad_argument(format!(
                "{value} is no integer to group by; put such a column into bins first"
            ))),
        }
    }

    /// Crossings that have rows.
    fn crossed(self, other: Coded) -> Result<Coded> {
        if self.codes.len() != other.codes.len() {
            return Err(Fault::lengths(self.codes.len(), other.codes.len()));
        }
        // Both sides are at most GROUPS_MAX, so their product is a table's size.
        let width = other.groups.len();
        let mut table = vec![u32::MAX; self.groups.len() * width];
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        let mut codes = self.codes;
        let mut is_over = false;
        for (code, second) in codes.iter_mut().zip(&other.codes) {
            if code.is_nan() || second.is_nan() {
                *code = f32::NAN;
                continue;
            }
            let slot = &mut table[*code as usize * width + *second as usize];
            if *slot == u32::MAX {
                is_over |= pairs.len() == GROUPS_MAX;
                *slot = pairs.len() as u32;
                pairs.push((*code as usize, *second as usize));
            }
            *code = *slot as f32;
            if is_over {
                break;
            }
        }
        check_groups(pairs.len())?;
        let key = |(a, b): (usize, usize)| [&self.groups[a][..], &other.groups[b][..]].concat();
        Ok(Coded { codes, groups: pairs.into_iter().map(key).collect() })
    }
}

fn check_groups(groups: usize) -> Result<()> {
    match groups.cmp(&GROUPS_MAX) {
        Ordering::Greater => Err(Fault::too_many(format!(
            "more than {GROUPS_MAX} groups; is a column an identifier? Group by fewer columns, or put values into bins"
        ))),
        _ => Ok(()),
    }
}

fn of_integers(rows: usize, each: impl FnOnce(&mut dyn FnMut(Option<i64>))) -> Result<Coded> {
    let mut table = vec![u32::MAX; TABLE_CODES];
    let mut map: HashMap<i64, u32> = HashMap::new();
    let mut groups: Vec<i64> = Vec::new();
    let mut codes = Vec::with_capacity(rows);
    each(&mut |value: Option<i64>| {
        let Some(value) = value else { return codes.push(f32::NAN) };
        if groups.len() > GROUPS_MAX {
            return;
        }
        let slot = match table.get_mut(value as usize) {
            Some(slot) if value >= 0 => slot,
            _ => map.entry(value).or_insert(u32::MAX),
        };
        if *slot == u32::MAX {
            *slot = groups.len() as u32;
            groups.push(value);
        }
        codes.push(*slot as f32);
    });
    check_groups(groups.len())?;
    Ok(Coded { codes, groups: groups.into_iter().map(|value| vec![KeyValue::Integer(value)]).collect() })
}
