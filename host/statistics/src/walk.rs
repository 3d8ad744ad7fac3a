//! How values are read: where they lie, in blocks, without what is missing.
//!
//! Owns the walk over one or several columns of equal length whose chunks need not end at the same places. The columns are
//! cut at the ends of all their chunks and every [`PIECE_ROWS`] rows; a piece is the unit of parallel work, so that what is
//! added up per piece and joined in order does not depend on how many threads there are. Inside a piece, blocks of
//! [`BLOCK_ROWS`] rows are handed out: a slice of the column itself when it holds `f64` and nothing in the block is missing,
//! else a decoded copy on the stack that stays in the first-level cache. So no kernel is compiled for every type, and no
//! column is copied.
//!
//! A row is missing when any of its columns has its validity bit off or is NaN there. Bounded by: 2^32 - 1 rows, and one small
//! record per piece.

use mainstay_arrays::{Bits, Chunk, NullBuffer, Number, Numbers};
use rayon::prelude::*;

use crate::fault::{Fault, Result};

/// Rows of one unit of parallel work.
pub(crate) const PIECE_ROWS: usize = 65_536;
/// Rows handed out at once: 16 KiB of `f64`.
pub(crate) const BLOCK_ROWS: usize = 2_048;

/// What to do with missing places: validity off, or NaN; both are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Any missing place is a [`Fault::NonFinite`].
    #[default]
    Refuse,
    /// Rows with a missing place are left out, all their columns together.
    Omit,
}

/// Columns of one length, cut into pieces.
pub(crate) struct Rows<'v, const N: usize> {
    columns: [&'v Numbers<'v>; N],
    pieces: Vec<Piece<N>>,
    missing: Missing,
    len: usize,
}

/// Rows that lie in one chunk of every column.
#[derive(Clone, Copy)]
struct Piece<const N: usize> {
    /// For each column the chunk and where in it the piece begins.
    at: [(usize, usize); N],
    len: usize,
}

impl<'v, const N: usize> Rows<'v, N> {
    /// `length_mismatch` when the columns differ in length.
    pub fn new(columns: [&'v Numbers<'v>; N], missing: Missing) -> Result<Rows<'v, N>> {
        let len = columns[0].len();
        if let Some(other) = columns.iter().find(|column| column.len() != len) {
            return Err(Fault::lengths(len, other.len()));
        }
        if u32::try_from(len).is_err() {
            return Err(Fault::too_many(format!("{len} rows; the most in one call is {}", u32::MAX)));
        }
        let pieces = cut(columns.map(chunk_lengths), len);
        Ok(Rows { columns, pieces, missing, len })
    }

    /// Places, missing ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// For every piece, in order, what `step` made of its blocks. Whether something was missing is checked at the end.
    pub fn map<T: Send>(
        &self,
        make: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, [&[f64]; N]) + Sync,
    ) -> Result<Vec<T>> {
        let one = |piece: &Piece<N>| {
            let mut made = make();
            let missing = self.read(piece, |block| step(&mut made, block));
            (made, missing)
        };
        let all: Vec<(T, usize)> = match self.pieces.len() {
            0 | 1 => self.pieces.iter().map(one).collect(),
            _ => self.pieces.par_iter().map(one).collect(),
        };
        self.check(all.iter().map(|(_, missing)| missing).sum())?;
        Ok(all.into_iter().map(|(made, _)| made).collect())
    }

    /// The same where the order of joining does not matter, as for integers: one `T` per thread, not per piece.
    pub fn fold<T: Send>(
        &self,
        make: impl Fn() -> T + Sync + Send,
        step: impl Fn(&mut T, [&[f64]; N]) + Sync + Send,
        join: impl Fn(T, T) -> T + Sync + Send,
    ) -> Result<T> {
        let one = |(mut made, missing): (T, usize), piece: &Piece<N>| {
            let more = self.read(piece, |block| step(&mut made, block));
            (made, missing + more)
        };
        let (made, missing) = match self.pieces.len() {
            0 | 1 => self.pieces.iter().fold((make(), 0), one),
            _ => self
                .pieces
                .par_iter()
                .fold(|| (make(), 0), one)
                .reduce_with(|a, b| (join(a.0, b.0), a.1 + b.1))
                .expect("there are pieces"),
        };
        self.check(missing)?;
        Ok(made)
    }

    /// Every block in order, on this thread.
    pub fn each(&self, mut step: impl FnMut([&[f64]; N])) -> Result<()> {
        let missing = self.pieces.iter().map(|piece| self.read(piece, &mut step)).sum();
        self.check(missing)
    }

    /// The first row that is whole.
    pub fn first(&self) -> Option<[f64; N]> {
        let mut first = None;
        for piece in &self.pieces {
            self.read(piece, |block| {
                first.get_or_insert(block.map(|column| column[0]));
            });
            if first.is_some() {
                break;
            }
        }
        first
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Blocks of one piece, by its number; says how many rows were missing.
    pub fn piece(&self, number: usize, step: impl FnMut([&[f64]; N])) -> usize {
        self.read(&self.pieces[number], step)
    }

    /// The first block of a piece: a sample of its values.
    pub fn sample(&self, number: usize, step: impl FnMut([&[f64]; N])) {
        let Piece { at, len } = self.pieces[number];
        self.read(&Piece { at, len: len.min(BLOCK_ROWS) }, step);
    }

    /// The fault when so many rows were missing, if they are refused.
    pub fn check(&self, missing: usize) -> Result<()> {
        match self.missing {
            Missing::Refuse if missing > 0 => Err(Fault::non_finite(format!(
                "{missing} of {} rows have a missing value or NaN; fill them, or ask for them to be omitted",
                self.len
            ))),
            _ => Ok(()),
        }
    }

    fn read(&self, piece: &Piece<N>, mut step: impl FnMut([&[f64]; N])) -> usize {
        let mut decoded = [[0.0; BLOCK_ROWS]; N];
        let mut missing = 0;
        for start in (0..piece.len).step_by(BLOCK_ROWS) {
            let len = BLOCK_ROWS.min(piece.len - start);
            let mut buffers = decoded.iter_mut();
            let places: [Places<'_>; N] = std::array::from_fn(|column| {
                let (chunk, offset) = piece.at[column];
                let buffer = buffers.next().expect("one for each column");
                places(self.columns[column], chunk, offset + start, len, buffer)
            });
            if places.iter().all(Places::is_whole) {
                step(places.map(|places| places.values));
            } else {
                missing += compacted(&places, len, &mut step);
            }
        }
        missing
    }
}

/// Values of a block and which of them are there.
#[derive(Clone, Copy)]
struct Places<'b> {
    values: &'b [f64],
    validity: Option<(&'b NullBuffer, usize)>,
}

impl Places<'_> {
    fn is_whole(&self) -> bool {
        let is_valid = |(validity, offset): (&NullBuffer, usize)| {
            validity.null_count() == 0 || (offset..offset + self.values.len()).all(|at| validity.is_valid(at))
        };
        // Counted, not searched: this becomes a few wide instructions.
        let nans: u64 = self.values.iter().map(|value| u64::from(value.is_nan())).sum();
        nans == 0 && self.validity.is_none_or(is_valid)
    }

    fn is_there(&self, at: usize) -> bool {
        !self.values[at].is_nan() && self.validity.is_none_or(|(validity, offset)| validity.is_valid(offset + at))
    }
}

/// The rows of a block in which every column is there; says how many are not.
#[cold]
fn compacted<const N: usize>(places: &[Places<'_>; N], len: usize, step: &mut impl FnMut([&[f64]; N])) -> usize {
    let mut kept = [[0.0; BLOCK_ROWS]; N];
    let mut count = 0;
    for at in 0..len {
        let is_there = places.iter().all(|places| places.is_there(at));
        for (kept, places) in kept.iter_mut().zip(places) {
            kept[count] = places.values[at];
        }
        count += usize::from(is_there);
    }
    if count > 0 {
        step(std::array::from_fn(|column| &kept[column][..count]));
    }
    len - count
}

fn places<'b>(
    numbers: &'b Numbers<'_>,
    chunk: usize,
    from: usize,
    len: usize,
    buffer: &'b mut [f64; BLOCK_ROWS],
) -> Places<'b> {
    fn decoded<'b, T: Number>(
        chunk: &Chunk<'b, T>,
        from: usize,
        len: usize,
        buffer: &'b mut [f64; BLOCK_ROWS],
    ) -> Places<'b> {
        let source = &chunk.values[from..from + len];
        buffer[..len].iter_mut().zip(source).for_each(|(slot, value)| *slot = value.to_f64());
        Places { values: &buffer[..len], validity: chunk.validity.map(|validity| (validity, from)) }
    }
    match numbers {
        Numbers::F64(chunks) => {
            let chunk = &chunks[chunk];
            let validity = chunk.validity.map(|validity| (validity, from));
            Places { values: &chunk.values[from..from + len], validity }
        }
        Numbers::F32(chunks) => decoded(&chunks[chunk], from, len, buffer),
        Numbers::I32(chunks) => decoded(&chunks[chunk], from, len, buffer),
        Numbers::I64(chunks) => decoded(&chunks[chunk], from, len, buffer),
        Numbers::U8(chunks) => decoded(&chunks[chunk], from, len, buffer),
        Numbers::Bool(chunks) => {
            let Bits { values, validity } = chunks[chunk];
            let bits = values.slice(from, len);
            buffer[..len].iter_mut().zip(bits.iter()).for_each(|(slot, bit)| *slot = f64::from(u8::from(bit)));
            Places { values: &buffer[..len], validity: validity.map(|validity| (validity, from)) }
        }
    }
}

fn chunk_lengths(numbers: &Numbers<'_>) -> Vec<usize> {
    mainstay_arrays::with_chunks!(numbers, chunks => chunks.iter().map(|chunk| chunk.values.len()).collect(),
        bits => bits.iter().map(|chunk| chunk.values.len()).collect())
}

/// Pieces that end wherever a chunk of any column ends, and at the latest after [`PIECE_ROWS`].
fn cut<const N: usize>(lengths: [Vec<usize>; N], len: usize) -> Vec<Piece<N>> {
    let mut pieces = Vec::with_capacity(len / PIECE_ROWS + lengths.iter().map(Vec::len).sum::<usize>());
    let mut at = [(0, 0); N];
    let mut row = 0;
    while row < len {
        let mut size = PIECE_ROWS;
        for (lengths, (chunk, offset)) in lengths.iter().zip(&mut at) {
            while *offset == lengths[*chunk] {
                (*chunk, *offset) = (*chunk + 1, 0);
            }
            size = size.min(lengths[*chunk] - *offset);
        }
        pieces.push(Piece { at, len: size });
        at.iter_mut().for_each(|(_, offset)| *offset += size);
        row += size;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_arrays::Column;
    use proptest::prelude::*;

    fn joined(columns: &[Column]) -> Column {
        Column::from_arrow(columns[0].value_type(), columns.iter().flat_map(|c| c.arrow().to_vec()).collect()).unwrap()
    }

    fn cut_at(column: &Column, cuts: &[usize]) -> Column {
        let (mut at, mut parts) = (0, vec![column.slice(0, 0).unwrap()]);
        for cut in cuts.iter().map(|cut| cut % (column.len() + 1)).chain([column.len()]) {
            if cut > at {
                parts.push(column.slice(at, cut - at).unwrap());
                at = cut;
            }
        }
        joined(&parts)
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_plain_loop(
            rows in prop::collection::vec((any::<Option<i32>>(), prop::num::f64::ANY), 0..6_000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let there: Vec<bool> = rows.iter().map(|row| row.0.is_some()).collect();
            let first: Vec<i32> = rows.iter().map(|row| row.0.unwrap_or(7)).collect();
            let second: Vec<f64> = rows.iter().map(|row| row.1).collect();
            let (first, second) = (Column::i32(&first, Some(&there)), Column::f64(&second, None));
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(rows.len() + 1)).collect();
            at.sort_unstable();
            let (first, second) = (cut_at(&first, &at), cut_at(&second, &at[..at.len() / 2]));
            let (first, second) = (first.numbers().unwrap(), second.numbers().unwrap());
            let mut seen = Vec::new();
            let walk = Rows::new([&first, &second], Missing::Omit).unwrap();
            walk.each(|[a, b]| seen.extend(a.iter().copied().zip(b.iter().map(|b| b.to_bits())))).unwrap();
            let kept = rows.iter().filter(|row| row.0.is_some() && !row.1.is_nan());
            let expect: Vec<(f64, u64)> = kept.map(|row| (f64::from(row.0.unwrap()), row.1.to_bits())).collect();
            let has_missing = expect.len() < rows.len();
            prop_assert_eq!(seen, expect);
            let refused = Rows::new([&first, &second], Missing::Refuse).unwrap().each(|_| ());
            prop_assert_eq!(refused.is_err(), has_missing);
        }
    }

    #[test]
    fn lengths_must_agree() {
        let (long, short) = (Column::f64(&[1.0, 2.0], None), Column::bool(&[true], None));
        let (long, short) = (long.numbers().unwrap(), short.numbers().unwrap());
        let fault = Rows::new([&long, &short], Missing::Omit).err().unwrap();
        assert_eq!(fault.code(), "length_mismatch");
    }
}
