//! Distance of two sets of vectors by their means: cosine and Euclidean.
//!
//! Sums in f64, eight lanes or element by element, per piece and in order. Nothing is copied but one row of sums a piece.

use rayon::prelude::*;

use crate::fault::{Fault, Result};
use crate::matrix::Matrix;
use crate::walk::{Missing, Rows};
use crate::wide;

/// Elements that one task adds up.
const PIECE_ELEMENTS: usize = 262_144;

/// Distances of two mean vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CentroidDistance {
    /// 1 - cosine of the angle between them.
    pub cosine_distance: f64,
    /// The cosine.
    pub cosine_similarity: f64,
    /// Length of their difference.
    pub euclidean: f64,
}

/// Distances of the means of two sets. `length_mismatch` when their widths differ, `zero_norm` when a mean is zero.
pub fn centroid_distance(reference: &Matrix<'_>, current: &Matrix<'_>, missing: Missing) -> Result<CentroidDistance> {
    if reference.width() != current.width() {
        return Err(Fault::lengths(reference.width(), current.width()));
    }
    let (reference, current) = (centroid(reference, missing)?, centroid(current, missing)?);
    // Scaled by the largest element, so that squares neither overflow nor vanish.
    let scale = |vector: &[f64]| vector.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let (a, b) = (scale(&reference), scale(&current));
    if a == 0.0 || b == 0.0 {
        return Err(Fault::zero_norm(
            "a mean vector is zero, and zero has no direction; compare by Euclidean distance",
        ));
    }
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| -> f64 { reference.iter().zip(&current).map(|(x, y)| of(x / a, y / b)).sum() };
    let similarity = sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    let largest = reference.iter().zip(&current).fold(0.0, |most: f64, (x, y)| most.max((x - y).abs()));
    let squares: f64 = reference.iter().zip(&current).map(|(x, y)| ((x - y) / largest).powi(2)).sum();
    Ok(CentroidDistance {
        cosine_distance: 1.0 - similarity.clamp(-1.0, 1.0),
        cosine_similarity: similarity.clamp(-1.0, 1.0),
        euclidean: if largest == 0.0 { 0.0 } else { squares.sqrt() * largest },
    })
}

/// Mean vector. A vector is missing when one of its elements is; infinite elements are `non_finite`.
pub fn centroid(vectors: &Matrix<'_>, missing: Missing) -> Result<Vec<f64>> {
    let rows = vectors.rows()?;
    let (sums, count) = match vectors {
        Matrix::Columns(_) => columns(vectors, rows)?,
        Matrix::RowsF32 { width, chunks } => row_after_row(chunks, *width),
        Matrix::RowsF64 { width, chunks } => row_after_row(chunks, *width),
    };
    if count < rows && missing == Missing::Refuse {
        return Err(Fault::non_finite(format!(
            "{} of {rows} vectors have a missing element or NaN; fill them, or ask for them to be omitted",
            rows - count
        )));
    }
    if count == 0 {
        return Err(Fault::nothing("a set of vectors"));
    }
    if sums.iter().any(|sum| !sum.is_finite()) {
        return Err(Fault::non_finite("a vector has an infinite element, or their sum overflows"));
    }
    Ok(sums.into_iter().map(|sum| sum / count as f64).collect())
}

/// Sums of all columns, of those rows that are whole.
fn columns(vectors: &Matrix<'_>, rows: usize) -> Result<(Vec<f64>, usize)> {
    let Matrix::Columns(columns) = vectors else { unreachable!("asked for columns only") };
    let mut sums = Vec::with_capacity(columns.len());
    for column in *columns {
        let walk = Rows::new([column], Missing::Omit)?;
        let pieces = walk.map(
            || (0.0, 0),
            |all, [block]| {
                let (mut lanes, mut bounds) = ([0.0; 8], ([0.0; 8], [0.0; 8]));
                wide::sum_and_bounds(block, 0.0, &mut lanes, &mut bounds);
                *all = (all.0 + wide::folded(&lanes), all.1 + block.len());
            },
        )?;
        let (sum, count) = pieces.iter().fold((0.0, 0), |all, piece| (all.0 + piece.0, all.1 + piece.1));
        if count < rows {
            return Ok(whole_rows(columns, rows));
        }
        sums.push(sum);
    }
    Ok((sums, rows))
}

/// The slow way, where some element is missing: which rows are whole, then their sums.
fn whole_rows(columns: &[mainstay_arrays::Numbers<'_>], rows: usize) -> (Vec<f64>, usize) {
    let mut is_whole = vec![true; rows];
    for column in columns {
        let mut marks = is_whole.iter_mut();
        column.for_each(|value| {
            let mark = marks.next().expect("columns are of one length");
            *mark &= value.is_some_and(|value| !value.is_nan());
        });
    }
    let sum = |column: &mainstay_arrays::Numbers<'_>| {
        let (mut marks, mut sum) = (is_whole.iter(), 0.0);
        column.for_each(|value| {
            if *marks.next().expect("columns are of one length") {
                sum += value.unwrap_or(0.0);
            }
        });
        sum
    };
    (columns.iter().map(sum).collect(), is_whole.iter().filter(|whole| **whole).count())
}

fn row_after_row<T: Copy + Into<f64> + Sync>(chunks: &[&[T]], width: usize) -> (Vec<f64>, usize) {
    let piece = (PIECE_ELEMENTS / width).max(1) * width;
    let pieces: Vec<&[T]> = chunks.iter().flat_map(|chunk| chunk.chunks(piece)).collect();
    let one = |piece: &&[T]| {
        let (mut sums, mut row, mut count) = (vec![0.0; width], vec![0.0; width], 0);
        for vector in piece.chunks_exact(width) {
            row.iter_mut().zip(vector).for_each(|(slot, value)| *slot = (*value).into());
            let nans: u64 = row.iter().map(|value| u64::from(value.is_nan())).sum();
            if nans == 0 {
                wide::add_to(&row, &mut sums);
                count += 1;
            }
        }
        (sums, count)
    };
    let all: Vec<(Vec<f64>, usize)> = pieces.par_iter().map(one).collect();
    all.into_iter().fold((vec![0.0; width], 0), |(mut sums, count), (more, more_count)| {
        wide::add_to(&more, &mut sums);
        (sums, count + more_count)
    })
}
