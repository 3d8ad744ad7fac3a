//! Rows as callers have them, and tiles as layouts want them.
//!
//! Owns the three forms of input (row-major slices of `f32` or `f64`, and columns in chunks) and the transposition of a few
//! hundred rows at a time into one run of values a feature. Separate because every way of predicting reads tiles and none
//! cares where values came from. Columns are gathered tile by tile: no copy of the whole is made.
//!
//! Bounded by: one tile. On failure: `invalid` names the width or the column that does not fit.

use mainstay_arrays::{Bits, Chunk, Number, Numbers};
use mainstay_base::{Error, Result};
use rayon::prelude::*;

/// Rows to predict. A missing value is NaN, or a place whose validity is off.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Row after row.
    F32 {
        /// `rows` times `features` values.
        values: &'a [f32],
        /// Values in each row.
        features: usize,
    },
    /// Row after row.
    F64 {
        /// `rows` times `features` values.
        values: &'a [f64],
        /// Values in each row.
        features: usize,
    },
    /// A column for each feature, of one length.
    Columns(&'a [Numbers<'a>]),
}

impl Rows<'_> {
    /// How many values each row has.
    pub fn features(&self) -> usize {
        match self {
            Rows::F32 { features, .. } | Rows::F64 { features, .. } => *features,
            Rows::Columns(columns) => columns.len(),
        }
    }

    /// How many rows there are; `invalid` when values do not make whole rows, or columns differ in length.
    pub fn count(&self) -> Result<usize> {
        let whole = |len: usize, features: usize| match len.checked_rem(features) {
            Some(0) => Ok(len / features),
            _ => Err(Error::invalid(format!("{len} values do not make whole rows of {features}"))),
        };
        match self {
            Rows::F32 { values, features } => whole(values.len(), *features),
            Rows::F64 { values, features } => whole(values.len(), *features),
            Rows::Columns(columns) => {
                let rows = columns.first().map_or(0, Numbers::len);
                match columns.iter().position(|column| column.len() != rows) {
                    None => Ok(rows),
                    Some(at) => {
                        let other = columns[at].len();
                        Err(Error::invalid(format!(
                            "column {at} has {other} places, column 0 has {rows}; they are of one length"
                        )))
                    }
                }
            }
        }
    }
}

/// How values lie that were copied out of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Row after row.
    Rows,
    /// Feature after feature.
    Features,
}

impl Rows<'_> {
    /// Copy the values of some rows, rounded to the nearest, in the order in which they lie already; what is missing is NaN.
    /// For devices that have memory of their own. Panics when `out` has not a place for each value.
    pub fn copy_f32(&self, range: std::ops::Range<usize>, out: &mut [f32]) -> Order {
        self.copy(range, out, |values, out| out.copy_from_slice(values), |values, out| convert(values, out, f32::of))
    }

    /// The same in double precision.
    pub fn copy_f64(&self, range: std::ops::Range<usize>, out: &mut [f64]) -> Order {
        self.copy(
            range,
            out,
            |values, out| convert(values, out, f64::of_f32),
            |values, out| out.copy_from_slice(values),
        )
    }

    fn copy<T: Value>(
        &self,
        range: std::ops::Range<usize>,
        out: &mut [T],
        narrow: impl Fn(&[f32], &mut [T]) + Sync,
        wide: impl Fn(&[f64], &mut [T]) + Sync,
    ) -> Order {
        assert_eq!(out.len(), range.len() * self.features(), "a place for each value");
        match self {
            Rows::F32 { values, features } => {
                in_parts(&values[range.start * features..range.end * features], out, narrow);
                Order::Rows
            }
            Rows::F64 { values, features } => {
                in_parts(&values[range.start * features..range.end * features], out, wide);
                Order::Rows
            }
            Rows::Columns(columns) => {
                let runs = out.par_chunks_mut(range.len().max(1)).zip(columns.par_iter());
                runs.for_each(|(run, column)| gather(column, range.start, run, &mut Cursor::default()));
                Order::Features
            }
        }
    }
}

/// Values that one thread copies at a time: enough that handing them over costs nothing beside it.
const COPY_VALUES: usize = 1 << 16;

fn in_parts<S: Sync, T: Send>(from: &[S], to: &mut [T], copy: impl Fn(&[S], &mut [T]) + Sync) {
    match from.len() <= COPY_VALUES {
        true => copy(from, to),
        false => {
            let parts = to.par_chunks_mut(COPY_VALUES).zip(from.par_chunks(COPY_VALUES));
            parts.for_each(|(to, from)| copy(from, to));
        }
    }
}

fn convert<S: Copy, T>(from: &[S], to: &mut [T], one: impl Fn(S) -> T) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = one(*from));
}

/// A number that tiles are made of.
pub(crate) trait Value: Copy + PartialOrd + Default + Send + Sync + 'static {
    fn of(value: f64) -> Self;
    fn of_f32(value: f32) -> Self;
    /// Whether it is NaN.
    fn is_lost(self) -> bool;
    const NAN: Self;
}

impl Value for f32 {
    fn of(value: f64) -> f32 {
        value as f32
    }

    fn of_f32(value: f32) -> f32 {
        value
    }

    fn is_lost(self) -> bool {
        self.is_nan()
    }

    const NAN: f32 = f32::NAN;
}

impl Value for f64 {
    fn of(value: f64) -> f64 {
        value
    }

    fn of_f32(value: f32) -> f64 {
        f64::from(value)
    }

    fn is_lost(self) -> bool {
        self.is_nan()
    }

    const NAN: f64 = f64::NAN;
}

/// Where a column's next value is.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    row: usize,
    chunk: usize,
    within: usize,
}

/// A few rows, feature by feature.
#[derive(Debug, Default)]
pub(crate) struct Tile<T> {
    /// A run of `stride` values for each feature; what stands behind `rows` is unspecified.
    pub values: Vec<T>,
    pub rows: usize,
    pub stride: usize,
    cursors: Vec<Cursor>,
}

impl<T: Value> Tile<T> {
    /// Take rows `from..from + rows`, runs of `stride` values.
    pub fn fill(&mut self, all: &Rows<'_>, from: usize, rows: usize, stride: usize) {
        (self.rows, self.stride) = (rows, stride);
        self.values.resize(all.features() * stride, T::default());
        match all {
            Rows::F32 { values, features } => {
                self.transpose(&values[from * features..(from + rows) * features], *features, T::of_f32);
            }
            Rows::F64 { values, features } => {
                self.transpose(&values[from * features..(from + rows) * features], *features, T::of);
            }
            Rows::Columns(columns) => {
                self.cursors.resize(columns.len(), Cursor::default());
                for (at, column) in columns.iter().enumerate() {
                    let run = &mut self.values[at * stride..][..rows];
                    gather(column, from, run, &mut self.cursors[at]);
                }
            }
        }
    }

    /// Sixteen features at a time, so that each line of the source is read once while it is near.
    fn transpose<S: Copy>(&mut self, source: &[S], features: usize, convert: impl Fn(S) -> T) {
        const BLOCK: usize = 16;
        let stride = self.stride;
        for first in (0..features).step_by(BLOCK) {
            let width = BLOCK.min(features - first);
            let runs = &mut self.values[first * stride..][..width * stride];
            for (row, line) in source.chunks_exact(features).enumerate() {
                let line = &line[first..first + width];
                for (at, value) in line.iter().enumerate() {
                    runs[at * stride + row] = convert(*value);
                }
            }
        }
    }

    /// The values of one feature.
    pub fn run(&self, feature: usize) -> &[T] {
        &self.values[feature * self.stride..][..self.rows]
    }
}

fn gather<T: Value>(column: &Numbers<'_>, from: usize, run: &mut [T], cursor: &mut Cursor) {
    match column {
        Numbers::F32(chunks) => gather_chunks(chunks, from, run, cursor, T::of_f32),
        Numbers::F64(chunks) => gather_chunks(chunks, from, run, cursor, T::of),
        Numbers::I32(chunks) => gather_chunks(chunks, from, run, cursor, |value| T::of(value.to_f64())),
        Numbers::I64(chunks) => gather_chunks(chunks, from, run, cursor, |value| T::of(value.to_f64())),
        Numbers::U8(chunks) => gather_chunks(chunks, from, run, cursor, |value| T::of(value.to_f64())),
        Numbers::Bool(chunks) => {
            let lengths = |at: usize| chunks.get(at).map(|chunk: &Bits<'_>| chunk.values.len());
            each_part(lengths, from, run, cursor, |chunk, within, part| {
                for (at, out) in part.iter_mut().enumerate() {
                    let bit = f64::from(u8::from(chunks[chunk].values.value(within + at)));
                    let is_there = chunks[chunk].validity.is_none_or(|validity| validity.is_valid(within + at));
                    *out = if is_there { T::of(bit) } else { T::NAN };
                }
            });
        }
    }
}

fn gather_chunks<S: Number, T: Value>(
    chunks: &[Chunk<'_, S>],
    from: usize,
    run: &mut [T],
    cursor: &mut Cursor,
    convert: impl Fn(S) -> T,
) {
    let lengths = |at: usize| chunks.get(at).map(|chunk| chunk.values.len());
    each_part(lengths, from, run, cursor, |chunk, within, part| {
        let values = &chunks[chunk].values[within..][..part.len()];
        part.iter_mut().zip(values).for_each(|(out, value)| *out = convert(*value));
        if let Some(validity) = chunks[chunk].validity.filter(|validity| validity.null_count() > 0) {
            let missing = |(at, _): &(usize, &mut T)| validity.is_null(within + at);
            part.iter_mut().enumerate().filter(missing).for_each(|(_, out)| *out = T::NAN);
        }
    });
}

/// Calls with chunk, place in it and the part of the run that lies in it. The cursor makes going on where the last tile
/// ended cost nothing.
fn each_part<T>(
    lengths: impl Fn(usize) -> Option<usize>,
    from: usize,
    mut run: &mut [T],
    cursor: &mut Cursor,
    mut take: impl FnMut(usize, usize, &mut [T]),
) {
    if cursor.row > from {
        *cursor = Cursor::default();
    }
    let mut skip = from - cursor.row;
    while let Some(length) = lengths(cursor.chunk) {
        let left = length - cursor.within;
        let skipped = skip.min(left);
        (skip, cursor.within, cursor.row) = (skip - skipped, cursor.within + skipped, cursor.row + skipped);
        let count = (left - skipped).min(run.len());
        let (part, rest) = std::mem::take(&mut run).split_at_mut(count);
        run = rest;
        if count > 0 {
            take(cursor.chunk, cursor.within, part);
        }
        (cursor.within, cursor.row) = (cursor.within + count, cursor.row + count);
        if run.is_empty() && skip == 0 {
            return;
        }
        (cursor.chunk, cursor.within) = (cursor.chunk + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_arrays::Column;

    #[test]
    fn every_form_gives_the_same_tiles() {
        let values: Vec<f64> = (0..21).map(f64::from).collect();
        let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        let column = |at: usize| values.iter().copied().skip(at).step_by(3).collect::<Vec<f64>>();
        let parts: Vec<Vec<f64>> = (0..3).map(column).collect();
        let chunks: Vec<[&[f64]; 4]> =
            parts.iter().map(|part| [&part[..2], &part[2..2], &part[2..3], &part[3..]]).collect();
        let columns: Vec<Numbers<'_>> = chunks.iter().map(|chunks| Numbers::of_f64(chunks)).collect();
        let forms = [
            Rows::F64 { values: &values, features: 3 },
            Rows::F32 { values: &narrow, features: 3 },
            Rows::Columns(&columns),
        ];
        for rows in forms {
            assert_eq!((rows.count().unwrap(), rows.features()), (7, 3));
            let mut tile = Tile::<f64>::default();
            for (from, count) in [(0, 2), (2, 5), (1, 3), (6, 1), (0, 7)] {
                tile.fill(&rows, from, count, 8);
                for (feature, part) in parts.iter().enumerate() {
                    assert_eq!(tile.run(feature), &part[from..from + count], "{rows:?}");
                }
            }
        }
    }

    #[test]
    fn copies_are_the_rows_that_were_asked_for() {
        let values: Vec<f64> = (0..300_000).map(f64::from).collect();
        let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        let column = |at: usize| values.iter().copied().skip(at).step_by(3).collect::<Vec<f64>>();
        let parts: Vec<Vec<f64>> = (0..3).map(column).collect();
        let chunks: Vec<[&[f64]; 2]> = parts.iter().map(|part| [&part[..7], &part[7..]]).collect();
        let columns: Vec<Numbers<'_>> = chunks.iter().map(|chunks| Numbers::of_f64(chunks)).collect();
        let forms = [
            Rows::F64 { values: &values, features: 3 },
            Rows::F32 { values: &narrow, features: 3 },
            Rows::Columns(&columns),
        ];
        for rows in forms {
            for range in [0..0, 5..9, 1..99_999] {
                let places = range.len() * 3;
                let (mut single, mut double) = (vec![-1.0_f32; places], vec![-1.0_f64; places]);
                let order = rows.copy_f64(range.clone(), &mut double);
                assert_eq!(order, rows.copy_f32(range.clone(), &mut single));
                for (at, row) in range.clone().enumerate() {
                    for feature in 0..3 {
                        let place = if order == Order::Rows { at * 3 + feature } else { feature * range.len() + at };
                        assert_eq!(double[place], values[row * 3 + feature]);
                        assert_eq!(single[place], narrow[row * 3 + feature]);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_valid_is_nan() {
        let there: Option<&[bool]> = Some(&[true, false, true]);
        for column in [Column::i64(&[1, 2, 3], there), Column::f32(&[1.0, 2.0, 3.0], there)] {
            let columns = [column.numbers().unwrap()];
            let mut tile = Tile::<f32>::default();
            tile.fill(&Rows::Columns(&columns), 1, 2, 2);
            assert!(tile.run(0)[0].is_nan());
            assert_eq!(tile.run(0)[1], 3.0);
        }
        let column = Column::bool(&[true, true, false], there);
        let columns = [column.numbers().unwrap()];
        let mut tile = Tile::<f64>::default();
        tile.fill(&Rows::Columns(&columns), 0, 3, 3);
        assert!(tile.run(0)[0] == 1.0 && tile.run(0)[1].is_nan() && tile.run(0)[2] == 0.0);
    }

    #[test]
    fn what_makes_no_rows_is_refused() {
        assert!(Rows::F32 { values: &[0.0; 5], features: 2 }.count().is_err());
        assert!(Rows::F64 { values: &[0.0; 5], features: 0 }.count().is_err());
        let (a, b) = ([0.0; 2], [0.0; 3]);
        let columns = [Numbers::of_f64(&[&a]), Numbers::of_f64(&[&b])];
        assert!(Rows::Columns(&columns).count().unwrap_err().message().contains("column 1 has 3"));
    }
}
