//! What a device does for models, as those who run models see it.
//!
//! Owns [`Device`], the door to whatever else than this processor can compute a batch. Separate from every implementation,
//! so that nobody who predicts is built with one. A device may refuse any batch, for any reason (too small, no room, broken),
//! and says no more than that: the caller computes it here, and the answer is the same to the last bit.
//!
//! Bounded by: what a device promises of itself. Cannot fail: what fails there is refused.

use std::ops::Range;

use crate::explain::Explainer;
use crate::forest::Forest;
use crate::tile::Rows;

/// Some rows of a batch.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Where they are.
    pub rows: &'a Rows<'a>,
    /// Which of them.
    pub range: Range<usize>,
}

/// See the module.
pub trait Device: Send + Sync {
    /// Rows that a batch should have where there are so many.
    fn batch_rows(&self) -> usize;

    /// Raw outputs as [`Forest::raw_margin`] has them, row after row, part after part. `number` is the forest's, one for all
    /// time: by it a device knows what it holds already. False when it did not compute them.
    fn raw(&self, number: u64, forest: &Forest, parts: &[Part<'_>], out: &mut [f64]) -> bool;

    /// The processor computed raw outputs of so many rows in this time: what a device compares itself with.
    fn predicted_here(&self, _number: u64, _rows: usize, _nanoseconds: u64) {}

    /// The processor explained so many rows in this time.
    fn explained_here(&self, _number: u64, _rows: usize, _nanoseconds: u64) {}

    /// What [`Explainer::explain`] writes. `number` is the explainer's. False when it did not compute it.
    fn explain(&self, number: u64, explainer: &Explainer, rows: &Rows<'_>, out: &mut [f64]) -> bool;
}
