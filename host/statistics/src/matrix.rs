//! Rows of numbers, as they come: as columns, or row after row in chunks.
//!
//! Nothing is copied to bring one form into the other; each kernel reads either.

use mainstay_arrays::Numbers;

use crate::fault::{Fault, Result};

/// Dimensions that a vector may have.
pub const WIDTH_MAX: usize = 65_536;

/// Vectors of one width.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Element k of all vectors in column k.
    Columns(&'a [Numbers<'a>]),
    /// Vectors of `width` elements, one after the other; a chunk ends with a vector.
    RowsF32 {
        /// Elements of a vector.
        width: usize,
        /// Chunks of whole vectors.
        chunks: &'a [&'a [f32]],
    },
    /// The same in 64 bits.
    RowsF64 {
        /// Elements of a vector.
        width: usize,
        /// Chunks of whole vectors.
        chunks: &'a [&'a [f64]],
    },
}

impl Matrix<'_> {
    /// Elements of a vector.
    pub fn width(&self) -> usize {
        match self {
            Matrix::Columns(columns) => columns.len(),
            Matrix::RowsF32 { width, .. } | Matrix::RowsF64 { width, .. } => *width,
        }
    }

    /// Number of vectors; a fault where columns differ in length or a chunk ends inside a vector.
    pub fn rows(&self) -> Result<usize> {
        let width = self.width();
        if width == 0 || width > WIDTH_MAX {
            return Err(Fault::bad_argument(format!("vectors of {width} elements; from 1 to {WIDTH_MAX}")));
        }
        let of_chunks = |mut lengths: Vec<usize>| match lengths.iter().find(|len| !len.is_multiple_of(width)) {
            Some(len) => {
                Err(Fault::length_mismatch(format!("a chunk of {len} elements holds no whole vectors of {width}")))
            }
            None => Ok(lengths.drain(..).sum::<usize>() / width),
        };
        match self {
            Matrix::Columns(columns) => match columns.iter().find(|column| column.len() != columns[0].len()) {
                Some(other) => Err(Fault::lengths(columns[0].len(), other.len())),
                None => Ok(columns[0].len()),
            },
            Matrix::RowsF32 { chunks, .. } => of_chunks(chunks.iter().map(|chunk| chunk.len()).collect()),
            Matrix::RowsF64 { chunks, .. } => of_chunks(chunks.iter().map(|chunk| chunk.len()).collect()),
        }
    }

    /// These rows, ascending, as one dense matrix. Missing elements become NaN.
    pub(crate) fn dense(&self, rows: &[u32]) -> Vec<f64> {
        let width = self.width();
        let mut out = vec![0.0; rows.len() * width];
        match self {
            Matrix::Columns(columns) => {
                for (at, column) in columns.iter().enumerate() {
                    let (mut row, mut next) = (0u32, 0);
                    column.for_each(|value| {
                        if rows.get(next) == Some(&row) {
                            out[next * width + at] = value.unwrap_or(f64::NAN);
                            next += 1;
                        }
                        row += 1;
                    });
                }
            }
            Matrix::RowsF32 { chunks, .. } => gathered(chunks, width, rows, &mut out),
            Matrix::RowsF64 { chunks, .. } => gathered(chunks, width, rows, &mut out),
        }
        out
    }
}

fn gathered<T: Copy + Into<f64>>(chunks: &[&[T]], width: usize, rows: &[u32], out: &mut [f64]) {
    let (mut chunk, mut before) = (0, 0);
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
        while *row as usize - before >= chunks[chunk].len() / width {
            before += chunks[chunk].len() / width;
            chunk += 1;
        }
        let source = &chunks[chunk][(*row as usize - before) * width..][..width];
        out.iter_mut().zip(source).for_each(|(slot, value)| *slot = (*value).into());
    }
}
