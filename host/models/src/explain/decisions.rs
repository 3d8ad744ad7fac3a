//! Which way rows go at splits.
//!
//! Owns what splits say about a tile of rows: with one feature after the other a split reads values that lie together, and
//! its answers, a byte of ones or zeros for each row, come out many at a time. Separate because nothing behind it knows
//! what a split asks: missing values, sets of categories and rounding end here. Bounded by the tile: [`TILE_ROWS`] rows.

use crate::forest::{Missing, Split, Test, Tree};
use crate::tile::{self, Rows};

/// Rows that are explained together. Measured with 300 trees: fewer read the tables of a tree too often from the second
/// level of cache, more push the sums out of it.
pub(super) const TILE_ROWS: usize = 256;
/// What row counts are rounded up to, so that no loop over bytes has a ragged end.
const LANES: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tile {
    /// Rows in it.
    pub rows: usize,
    /// Rows rounded up; the distance between two features, and between the answers of two splits.
    pub stride: usize,
    features: usize,
    turned: tile::Tile<f64>,
    answers: Vec<u8>,
}

impl Tile {
    /// Take rows `from..from + rows`, which are there; `rounds` is whether the forest compares in single precision.
    pub fn fill(&mut self, all: &Rows<'_>, from: usize, rows: usize, rounds: bool) {
        (self.rows, self.stride, self.features) = (rows, rows.next_multiple_of(LANES), all.features());
        self.turned.fill(all, from, rows, self.stride);
        if rounds && !matches!(all, Rows::F32 { .. }) {
            self.turned.values.iter_mut().for_each(|value| *value = f64::from(*value as f32));
        }
    }

    /// Features of a row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Copy out the values of one row.
    pub fn row(&self, at: usize, row: &mut Vec<f64>) {
        row.clear();
        row.extend((0..self.features).map(|feature| self.turned.values[feature * self.stride + at]));
    }

    /// Answer all splits of a tree.
    pub fn decide(&mut self, splits: &[Split], tree: &Tree) {
        self.answers.resize(splits.len() * self.stride, 0);
        for (split, answers) in splits.iter().zip(self.answers.chunks_exact_mut(self.stride)) {
            let column = &self.turned.values[split.feature as usize * self.stride..][..self.stride];
            match (split.test, split.missing, split.missing_is_yes) {
                (Test::Less(t), Missing::Nan, false) => write(column, answers, |x| x < t),
                (Test::Less(t), Missing::Nan, true) => write(column, answers, |x| x < t || x.is_nan()),
                (Test::AtMost(t), Missing::Nan, false) => write(column, answers, |x| x <= t),
                (Test::AtMost(t), Missing::Nan, true) => write(column, answers, |x| x <= t || x.is_nan()),
                _ => write(column, answers, |x| tree.goes_yes(split, x)),
            }
        }
    }

    /// For each row 255 where the answer of a split was yes and 0 where it was no.
    pub fn answers(&self, slot: u32) -> &[u8] {
        &self.answers[slot as usize * self.stride..][..self.stride]
    }
}

#[inline(always)]
fn write(column: &[f64], answers: &mut [u8], test: impl Fn(f64) -> bool) {
    for (answer, x) in answers.iter_mut().zip(column) {
        *answer = u8::from(test(*x)).wrapping_neg();
    }
}
