//! Statistics over columns where they lie.
//!
//! Owns the arithmetic: pure functions over [`mainstay_arrays::Numbers`] and [`mainstay_arrays::Texts`], with the definitions
//! of the statisticians and libraries that each module names. Separate because it has no opinion: what a divergence of 0.1
//! means is a plugin's to say. No state, no clock, no disk, no logging.
//!
//! **Threads.** None of its own: a call uses the rayon pool that it is called in (`pool.install(|| …)`), else rayon's global
//! one, and small inputs stay on the caller's thread. Results are the same to the last bit for any number of threads: sums of
//! floats are made per fixed piece of rows and joined in order, everything else is integers. They may differ in the last bits
//! for another cut of the same rows into chunks.
//!
//! **Copies.** Columns are read in place, chunk by chunk; what needs another order (a sort) allocates that order and says so.
//!
//! **Missing values.** A place is missing when its validity is off or it is NaN; [`Missing`] says whether that is refused or
//! its row left out. Infinite values are values where only order counts, and refused where they have no meaning.
//!
//! Bounded by: what the caller passes, and the limits that modules name. On failure: a [`Fault`] with a stable code and a
//! message, which is an `invalid` error of the house with the fault as its source.
#![deny(unsafe_code)]

mod bootstrap;
mod brackets;
mod calibration;
mod categories;
mod centroid;
mod contingency;
mod correlation;
mod counts;
mod divergence;
mod fault;
mod groups;
mod histogram;
mod kolmogorov;
mod ks;
mod matrix;
mod mmd;
mod moments;
mod order;
mod philox;
mod quantiles;
mod roc;
mod sketch;
mod special;
mod transport;
mod walk;
mod wide;

pub use bootstrap::{Draws, Interval, Metric, Plan, RESAMPLES_MAX, ROWS_MAX, bootstrap, bootstrap_difference};
pub use calibration::{BINS_MAX, Calibration, CalibrationBin, CalibrationBins, calibration};
pub use categories::{CATEGORIES_MAX, Union, text_categories, union_of_codes, union_of_texts};
pub use centroid::{CentroidDistance, centroid, centroid_distance};
pub use contingency::{CELLS_MAX, ChiSquare, chi_square};
pub use correlation::{pearson, spearman};
pub use counts::{Distinct, EXACT_DISTINCT, NumberCounts, TextCounts, number_counts, text_counts};
pub use divergence::{
    Binned, BinnedOptions, Binning, SHARE_FLOOR, ShareDistances, breaks, jeffreys, jeffreys_binned, jeffreys_counts,
    share_distances,
};
pub use fault::{Detail, Fault, Result};
pub use groups::{GROUPS_MAX, Group, GroupRates, Key, KeyValue, Rates, Spread, rates_by_group};
pub use histogram::{EDGES_MAX, Ends, Histogram, histogram};
pub use ks::{AUTO_EXACT_MAX, Alternative, KsTest, Method, ks_two_sample};
pub use matrix::{Matrix, WIDTH_MAX};
pub use mmd::{Discrepancy, ELEMENTS_MAX, Estimator, MEDIAN_ROWS, PAIR_ROWS_MAX, discrepancy};
pub use moments::{Moments, bounds, moments};
pub use philox::{Stream, philox4x32};
pub use quantiles::quantiles;
pub use roc::{AreaTest, compare_areas, roc_auc};
pub use sketch::{BUCKETS_MAX, MAGNITUDE_MIN, QuantileSketch};
pub use transport::{SCALE_FLOOR, Transport, wasserstein};
pub use walk::Missing;
pub use wide::instruction_set;
