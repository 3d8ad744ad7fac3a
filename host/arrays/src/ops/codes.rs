//! Between numbers and codes: buckets, places in a list of categories, tables by code, one column per code.
//!
//! Codes are 32-bit integers from 0. Wherever codes are read any number may stand; what is no code (negative, a fraction,
//! NaN, beyond the list) has its own answer and is no error.

use std::collections::HashMap;
use std::hint::select_unpredictable;

use arrow_array::ArrayRef;
use arrow_buffer::{MutableBuffer, ScalarBuffer};
use mainstay_base::{Error, Result};

use super::native::Native;
use super::search::Sorted;
use super::{CATEGORIES_MAX, EDGES_MAX, ONE_HOT_MAX, array, by_chunk, is_there, there_and_not_nan};
use crate::column::{Column, mapped};
use crate::types::ValueType;
use crate::view::Chunk;

/// Categories that are all codes below this are found in a table, not searched for.
const TABLE_MAX: usize = 65_536;

impl Column {
    /// How many of these edges are at most each value, as 32-bit integers: `numpy.digitize(x, edges)`. Missing and NaN
    /// become missing.
    ///
    /// `invalid` when there are more than [`EDGES_MAX`] edges, one is NaN, or they do not ascend; equal ones may follow each
    /// other, infinities may stand at the ends.
    pub fn bucket(&self, edges: &[f64]) -> Result<Column> {
        check_edges(edges)?;
        by_chunk!(self, ValueType::I32, sorted = reached(edges), chunk => Ok(bucket(chunk, &sorted)))
    }

    /// The place of each value in this list of numbers, as 32-bit integers; `otherwise` for what is not in it. Missing stays
    /// missing. NaN is found where the list has it.
    ///
    /// `invalid` when there are more than [`CATEGORIES_MAX`] categories, or one repeats.
    pub fn encode(&self, categories: &[f64], otherwise: i32) -> Result<Column> {
        check_categories(categories)?;
        by_chunk!(self, ValueType::I32, places = Places::new(categories, otherwise), chunk => Ok(places.encode(chunk)))
    }

    /// The number that this table gives for each code 0, 1, …, as 64-bit reals; `otherwise` for every other value and for
    /// what is missing. Nothing is missing then.
    pub fn lookup(&self, table: &[f64], otherwise: f64) -> Result<Column> {
        by_chunk!(self, ValueType::F64, chunk => Ok(lookup(chunk, table, otherwise)))
    }

    /// For each code 0 to `categories` - 1 one column of 32-bit reals that is 1 where the value is that code, else 0, also
    /// where it is missing. `invalid` for more than [`ONE_HOT_MAX`]. Makes [`Column::one_hot_bytes`].
    pub fn one_hot(&self, categories: u32) -> Result<Vec<Column>> {
        let count = categories as usize;
        if count > ONE_HOT_MAX {
            return Err(Error::invalid(format!("one column for each of {count} codes; the most is {ONE_HOT_MAX}")));
        }
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(self.arrow().len()); count];
        let chunks = with_hot_chunks(self, count, |chunk| {
            columns.iter_mut().zip(chunk).for_each(|(column, array)| column.push(array));
        });
        chunks?;
        columns.into_iter().map(|chunks| Column::from_arrow(ValueType::F32, chunks)).collect()
    }
}

fn check_edges(edges: &[f64]) -> Result<()> {
    if edges.len() > EDGES_MAX {
        return Err(Error::invalid(format!("{} edges; the most is {EDGES_MAX}", edges.len())));
    }
    if let Some(at) = edges.iter().position(|edge| edge.is_nan()) {
        return Err(Error::invalid(format!("edge {at} is NaN; edges are numbers that ascend")));
    }
    if let Some(at) = edges.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(Error::invalid(format!(
            "edge {} is {:?}, less than edge {at}, which is {:?}; sort them so that they ascend",
            at + 1,
            edges[at + 1],
            edges[at]
        )));
    }
    Ok(())
}

/// The edges as numbers of the type; those that none of it reaches are the last, and never counted.
fn reached<T: Native>(edges: &[f64]) -> Sorted<T> {
    Sorted::new(edges.iter().map_while(|edge| T::up(*edge)).collect())
}

fn bucket<T: Native>(chunk: &Chunk<'_, T>, sorted: &Sorted<T>) -> ArrayRef {
    let mut buffer = MutableBuffer::new(4 * chunk.values.len());
    sorted.count(chunk.values, |_, counts| buffer.extend_from_slice(counts));
    array::<i32>(ScalarBuffer::from(buffer), there_and_not_nan(chunk))
}

/// How many categories there may be; for numbers and strings.
pub(super) fn check_count(count: usize) -> Result<()> {
    if count > CATEGORIES_MAX {
        return Err(Error::invalid(format!("{count} categories; the most is {CATEGORIES_MAX}")));
    }
    Ok(())
}

fn check_categories(categories: &[f64]) -> Result<()> {
    check_count(categories.len())?;
    let mut seen = HashMap::with_capacity(categories.len());
    for (at, category) in categories.iter().enumerate() {
        // The two zeros are one number, and all NaN one category.
        let key = if category.is_nan() { f64::NAN.to_bits() } else { (category + 0.0).to_bits() };
        if let Some(first) = seen.insert(key, at) {
            return Err(Error::invalid(format!(
                "category {at} is {category:?}, as category {first} is; name each once"
            )));
        }
    }
    Ok(())
}

/// Where each category stands in the list, ready to be found.
struct Places<T> {
    known: Known<T>,
    nan: i32,
    otherwise: i32,
}

enum Known<T> {
    /// By code; what is not in the list has `otherwise`.
    Table(Vec<i32>),
    /// Sorted, and their places in the same order.
    Search(Sorted<T>, Vec<i32>),
}

impl<T: Native> Places<T> {
    fn new(categories: &[f64], otherwise: i32) -> Places<T> {
        let nan = categories.iter().position(|category| category.is_nan()).map_or(otherwise, |at| at as i32);
        // Those that the type has not are never met.
        let known = categories.iter().enumerate().filter(|(_, category)| !category.is_nan());
        let mut known: Vec<(T, i32)> = known.filter_map(|(at, each)| Some((T::exactly(*each)?, at as i32))).collect();
        if known.iter().all(|(value, _)| value.code() < TABLE_MAX) {
            let len = known.iter().map(|(value, _)| value.code() + 1).max().unwrap_or(0);
            let mut table = vec![otherwise; len];
            known.iter().for_each(|(value, place)| table[value.code()] = *place);
            return Places { known: Known::Table(table), nan, otherwise };
        }
        known.sort_unstable_by(|one, other| one.0.partial_cmp(&other.0).expect("NaN is left out"));
        let (sorted, places) = known.into_iter().unzip();
        Places { known: Known::Search(Sorted::new(sorted), places), nan, otherwise }
    }

    fn encode(&self, chunk: &Chunk<'_, T>) -> ArrayRef {
        let values = match &self.known {
            Known::Table(table) => mapped(chunk.values, |value| match value.is_nan() {
                true => self.nan,
                false => table.get(value.code()).copied().unwrap_or(self.otherwise),
            }),
            Known::Search(sorted, places) => self.search(chunk.values, sorted, places),
        };
        array::<i32>(values, chunk.validity.cloned())
    }

    /// Not for an empty list.
    fn search(&self, values: &[T], sorted: &Sorted<T>, places: &[i32]) -> ScalarBuffer<i32> {
        let mut buffer = MutableBuffer::new(4 * values.len());
        let mut codes = Vec::new();
        sorted.count(values, |values, counts| {
            codes.clear();
            codes.extend(values.iter().zip(counts).map(|(value, count)| {
                // The last entry that is at most the value is the value, or it is not there; before all is not the first.
                let last = count.saturating_sub(1) as usize;
                let code = select_unpredictable(sorted.at(last) == *value, places[last], self.otherwise);
                if value.is_nan() { self.nan } else { code }
            }));
            buffer.extend_from_slice(&codes);
        });
        ScalarBuffer::from(buffer)
    }
}

fn lookup<T: Native>(chunk: &Chunk<'_, T>, table: &[f64], otherwise: f64) -> ArrayRef {
    let of = |value: T| table.get(value.code()).copied().unwrap_or(otherwise);
    let Some(validity) = chunk.validity else {
        return array::<f64>(mapped(chunk.values, of), None);
    };
    let mut is_there = validity.iter();
    let values = mapped(chunk.values, |value| match is_there.next() {
        Some(true) => of(value),
        _ => otherwise,
    });
    array::<f64>(values, None)
}

/// Gives the arrays of each chunk to `take`, one for each code.
fn with_hot_chunks(column: &Column, count: usize, mut take: impl FnMut(Vec<ArrayRef>)) -> Result<()> {
    crate::with_chunks!(column.numbers()?,
    chunks => chunks.iter().for_each(|chunk| take(hot(chunk, count))),
    bits => bits.iter().for_each(|bits| {
        let bytes = super::bytes(bits);
        take(hot(&Chunk { values: &bytes[..], validity: bits.validity }, count));
    }));
    Ok(())
}

/// Zeros first and then the ones, as most are zeros.
fn hot<T: Native>(chunk: &Chunk<'_, T>, count: usize) -> Vec<ArrayRef> {
    let bytes = 4 * chunk.values.len();
    let mut buffers: Vec<MutableBuffer> = (0..count).map(|_| MutableBuffer::from_len_zeroed(bytes)).collect();
    let mut slices: Vec<&mut [f32]> = buffers.iter_mut().map(|buffer| buffer.typed_data_mut()).collect();
    for (at, value) in chunk.values.iter().enumerate() {
        if let Some(slice) = slices.get_mut(value.code()).filter(|_| is_there(chunk.validity, at)) {
            slice[at] = 1.0;
        }
    }
    buffers.into_iter().map(|buffer| array::<f32>(ScalarBuffer::from(buffer), None)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::testing::{check, check_refused, integers, reals, shown};
    use crate::types::ValueType::{F32, F64, I32};

    const NAN: Option<f64> = Some(f64::NAN);
    const INFINITY: f64 = f64::INFINITY;
    const THERE: Option<&[bool]> = Some(&[true, false, true]);

    #[test]
    fn buckets_are_counted_as_numpy_does() {
        let check = |column: &Column, edges: &[f64], expected: &str| {
            check(column, |column| column.bucket(edges), I32, expected);
        };
        // `numpy.digitize` of the same, but for what is missing or NaN.
        let column = reals(&[
            Some(-INFINITY),
            Some(-1.0),
            Some(0.0),
            None,
            Some(0.5),
            Some(1.0),
            NAN,
            Some(2.5),
            Some(INFINITY),
        ]);
        check(&column, &[-1.0, 0.0, 1.0, 1.0, 2.0], "0 1 2 - 2 4 - 5 5");
        check(&column, &[-INFINITY, INFINITY], "1 1 1 - 1 1 - 1 2");
        check(&column, &[], "0 0 0 - 0 0 - 0 0");
        check(&Column::u8(&[0, 1, 2, 3, 255], None), &[0.5, 1.0, 254.5], "0 2 2 2 3");
        check(&Column::u8(&[0, 255], None), &[-INFINITY, -3.0, 255.5, INFINITY], "2 2");
        check(&Column::f32(&[0.9, 0.3], None), &[0.3, 0.9], "1 1");
        check(&Column::bool(&[true, true, false], THERE), &[0.5], "1 - 0");
        check(&Column::i32(&[-5, 5, 0], THERE), &[-5.0, 0.0], "1 - 2");
        check(&reals(&[None, None]), &[0.0], "- -");
        check(&reals(&[]), &[0.0], "");
        // Exact where numpy rounds to float64.
        let odd = [Some((1 << 53) + 1), Some((1 << 53) + 3), Some(i64::MAX), Some(i64::MIN)];
        check(&integers(&odd), &[2_f64.powi(53), 2_f64.powi(53) + 4.0, 2_f64.powi(63)], "1 1 2 0");
    }

    #[test]
    fn normal_numbers_fall_into_their_deciles() {
        // numpy.random.default_rng(7).normal(size=40).round(3), numpy.quantile and numpy.digitize (2.4.6).
        let values = [
            0.001, 0.299, -0.274, -0.891, -0.455, -0.992, 0.06, 1.34, -0.492, -0.62, 0.49, 0.357, 0.105, -0.93, -0.029,
            0.695, -1.344, -0.458, -1.901, -1.29, -1.842, -0.235, -1.267, 0.271, 0.157, -0.187, -2.517, -0.539, -0.049,
            0.113, -1.53, -0.478, -0.979, -0.809, 1.061, -0.808, -0.033, 0.884, -0.584, -0.112,
        ];
        let edges = [-2.517, -1.363, -0.982, -0.808, -0.511, -0.365, -0.087, 0.019, 0.18, 0.511, 1.34];
        let expected = "7 9 6 3 5 2 8 11 5 4 9 9 8 3 7 10 2 5 1 2 1 6 2 9 8 6 1 4 7 8 1 5 3 3 10 4 7 10 4 6";
        check(&Column::f64(&values, None), |column| column.bucket(&edges), I32, expected);
    }

    #[test]
    fn edges_are_checked() {
        let column = Column::f64(&[70_000.0], None);
        let edges: Vec<f64> = (0..=EDGES_MAX).map(|at| at as f64).collect();
        assert_eq!(shown(&column.bucket(&edges[..EDGES_MAX]).unwrap()), ["65536"]);
        check_refused(column.bucket(&edges), "65537 edges; the most is 65536");
        check_refused(column.bucket(&[0.0, f64::NAN, f64::NAN]), "edge 1 is NaN");
        check_refused(column.bucket(&[0.0, 5.0, 1.5, 1.0]), "edge 2 is 1.5, less than edge 1, which is 5.0");
        check_refused(Column::text([Some("a")]).bucket(&[0.0]), "encode it first");
    }

    #[test]
    fn numbers_become_their_places() {
        let check = |column: &Column, categories: &[f64], expected: &str| {
            check(column, |column| column.encode(categories, -1), I32, expected);
        };
        // `pandas.Index(categories).get_indexer` of the same, but for what is missing.
        let column =
            reals(&[Some(3.0), None, Some(0.0), NAN, Some(-1.0), Some(7.0), Some(8.0), Some(2.5), Some(INFINITY)]);
        check(&column, &[3.0, f64::NAN, -1.0, 7.0], "0 - -1 1 2 3 -1 -1 -1");
        check(&column, &[7.0, 3.0, 0.0], "1 - 2 -1 -1 0 -1 -1 -1");
        check(&column, &[2.5, INFINITY, -0.0], "-1 - 2 -1 -1 -1 -1 0 1");
        check(&column, &[], "-1 - -1 -1 -1 -1 -1 -1 -1");
        check(&column, &[f64::NAN], "-1 - -1 0 -1 -1 -1 -1 -1");
        let large: Vec<f64> = (0..20).map(|at| 1e6 - f64::from(at)).chain([8.0]).collect();
        check(&column, &large, "-1 - -1 -1 -1 -1 20 -1 -1");
        check(&Column::u8(&[0, 1, 255], THERE), &[255.0, 0.5, 0.0, 256.0, -1.0], "2 - 0");
        check(&Column::bool(&[true, false, false], THERE), &[0.0], "-1 - 0");
        check(&Column::f32(&[0.5, 0.1], None), &[0.1, 0.5, f64::from(0.1_f32)], "1 2");
        let odd = integers(&[Some(1 << 53), Some((1 << 53) + 1), Some(i64::MAX), Some(i64::MIN), None]);
        check(&odd, &[2_f64.powi(53), 2_f64.powi(63), -(2_f64.powi(63))], "0 -1 -1 2 -");
        check(&reals(&[None, None]), &[0.5], "- -");
        check(&reals(&[]), &[0.5], "");
    }

    #[test]
    fn categories_are_checked() {
        let column = Column::f64(&[65_535.0, 65_536.0], None);
        let categories: Vec<f64> = (0..=CATEGORIES_MAX).map(|at| at as f64).collect();
        assert_eq!(shown(&column.encode(&categories[..CATEGORIES_MAX], -7).unwrap()), ["65535", "-7"]);
        let shifted: Vec<f64> = categories[1..].to_vec();
        assert_eq!(shown(&column.encode(&shifted, -7).unwrap()), ["65534", "65535"]);
        check_refused(column.encode(&categories, -7), "65537 categories; the most is 65536");
        check_refused(column.encode(&[1.0, 2.0, 1.0], -7), "category 2 is 1.0, as category 0 is");
        check_refused(column.encode(&[0.0, -0.0], -7), "category 1 is -0.0, as category 0 is");
        check_refused(column.encode(&[f64::NAN, -f64::NAN], -7), "category 1 is NaN, as category 0 is");
        check_refused(Column::text([Some("a")]).encode(&[1.0], -7), "encode it first");
    }

    proptest! {
        #[test]
        fn table_and_search_agree_with_the_definition(
            mut categories in prop::collection::hash_set(-40_i64..40, 0..50),
            values in prop::collection::vec(-50_i64..50, 0..300),
            beyond in any::<bool>(),
        ) {
            if beyond {
                categories.insert(1_000_000);
            } else {
                categories.retain(|category| *category >= 0);
            }
            let categories: Vec<f64> = categories.iter().map(|each| *each as f64).collect();
            let place = |value: &i64| categories.iter().position(|each| *each == *value as f64).map_or(-1, |at| at as i64);
            let expected: Vec<Option<i64>> = values.iter().map(|value| Some(place(value))).collect();
            let reals: Vec<f64> = values.iter().map(|value| *value as f64).collect();
            for column in [Column::i64(&values, None), Column::f64(&reals, None)] {
                let codes = column.encode(&categories, -1).unwrap();
                prop_assert_eq!(&codes.read_integers(0, values.len()).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn codes_are_looked_up() {
        let check = |column: &Column, table: &[f64], expected: &str| {
            check(column, |column| column.lookup(table, -1.5), F64, expected);
        };
        let table = [10.0, f64::NAN, 30.25];
        check(
            &integers(&[Some(2), Some(0), None, Some(1), Some(3), Some(-1), Some(i64::MIN)]),
            &table,
            "30.25 10 -1.5 NaN -1.5 -1.5 -1.5",
        );
        check(
            &reals(&[Some(2.0), Some(-0.0), None, NAN, Some(0.5), Some(INFINITY)]),
            &table,
            "30.25 10 -1.5 -1.5 -1.5 -1.5",
        );
        check(&Column::u8(&[0, 2, 255], THERE), &table, "10 -1.5 -1.5");
        check(&Column::bool(&[false, false, true], THERE), &table, "10 -1.5 NaN");
        check(&Column::f32(&[2.0], None), &table, "30.25");
        check(&Column::i32(&[0, 1], None), &[], "-1.5 -1.5");
        check(&reals(&[None, None]), &table, "-1.5 -1.5");
        check(&reals(&[]), &table, "");
        assert_eq!(integers(&[None]).lookup(&table, f64::NAN).unwrap().missing(), 0);
        check_refused(Column::text([Some("a")]).lookup(&table, 0.0), "encode it first");
    }

    #[test]
    fn each_code_has_its_column() {
        fn hot(column: &Column, categories: u32, expected: &[&str]) {
            let made = column.one_hot(categories).unwrap();
            assert_eq!(made.len(), expected.len());
            for (at, expected) in expected.iter().enumerate() {
                check(column, |column| Ok(column.one_hot(categories)?.swap_remove(at)), F32, expected);
            }
            let bytes: usize = made.iter().map(Column::size_bytes).sum();
            assert!(bytes <= column.one_hot_bytes(categories), "{bytes}");
        }
        // As `pandas.get_dummies` of a categorical of these codes gives them.
        hot(
            &integers(&[Some(0), Some(2), None, Some(1), Some(-1), Some(3)]),
            3,
            &["1 0 0 0 0 0", "0 0 0 1 0 0", "0 1 0 0 0 0"],
        );
        hot(&reals(&[Some(1.0), NAN, Some(0.5), Some(-0.0)]), 2, &["0 0 0 1", "1 0 0 0"]);
        hot(&Column::bool(&[true, true, false], THERE), 2, &["0 0 1", "1 0 0"]);
        hot(&Column::u8(&[255], None), 1, &["0"]);
        hot(&Column::u8(&[], None), 1, &[""]);
        hot(&integers(&[None, None]), 1, &["0 0"]);
        hot(&Column::u8(&[0], None), 0, &[]);
        let column = Column::i32(&[4_095], None);
        let most = column.one_hot(ONE_HOT_MAX as u32).unwrap();
        assert_eq!((most.len(), shown(&most[4_095])), (ONE_HOT_MAX, vec!["1".to_owned()]));
        check_refused(column.one_hot(ONE_HOT_MAX as u32 + 1), "one column for each of 4097 codes; the most is 4096");
        check_refused(Column::text([Some("a")]).one_hot(1), "encode it first");
        assert_eq!(column.one_hot_bytes(u32::MAX), 64 * u32::MAX as usize);
    }
}
