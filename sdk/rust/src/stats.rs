//! Statistics over columns, computed by the host: many columns a call.
//!
//! Owns nothing but the shape of the questions; the answers are the contract's own records. Every function answers one
//! [`Outcome`] for each column or pair: one that cannot be judged does not spoil the others, and its [`Fault`] says why in a
//! word that programs may rely on. Bounded by: 4,096 columns a call, and the host's batcher. On failure of the call as a
//! whole: the host's typed error.
//!
//! ```
//! use mainstay_sdk::columns::Column;
//! use mainstay_sdk::stats::{self, Binning, Fault, Pair};
//! # use mainstay_sdk::testing::Host;
//! # Host::new().enter(|| -> mainstay_sdk::Result<()> {
//! let before = Column::real64(&(0..1000).map(f64::from).collect::<Vec<_>>())?;
//! let after = Column::real64(&(200..1200).map(f64::from).collect::<Vec<_>>())?;
//! let constant = Column::real64(&[1.0; 1000])?;
//! let pairs = [Pair::new(&before, &after), Pair::new(&constant, &after)];
//! let answers = stats::binned_divergence(&pairs, &Binning::quantiles(10))?;
//! assert!(answers[0].as_ref().unwrap().jeffreys > 0.2);
//! assert_eq!(answers[1].as_ref().unwrap_err().fault, Some(Fault::ConstantReference));
//! # Ok(()) }).unwrap();
//! ```

use crate::columns::Column;
use crate::{Error, Result, sys};

pub use crate::sys::bindings::mainstay::numeric::stats::{
    Absent, Alternative, Binning, BinsBy, Calibration, CalibrationBin, Census, Correlation, Distance, Divergence,
    Estimate, Exactness, Group, Independence, Interval, Resampling, Separation, Summary, Test,
};

/// Two columns of the same meaning.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// What is compared with.
    pub reference: &'a Column,
    /// What is looked at.
    pub current: &'a Column,
}

impl<'a> Pair<'a> {
    /// What is compared with, and what is looked at.
    pub fn new(reference: &'a Column, current: &'a Column) -> Pair<'a> {
        Pair { reference, current }
    }
}

impl Binning {
    /// That many bins by quantiles of the reference, open at both ends, an empty one counting as a share of 0.0001;
    /// missing places and NaN left out.
    pub fn quantiles(bins: u32) -> Binning {
        Binning { by: BinsBy::Quantile, bins, is_open: true, floor: 1e-4, absent: Absent::Omit }
    }
}

/// One column's answer, or why there is none.
pub type Outcome<T> = std::result::Result<T, Unjudged>;

/// Why one column or pair has no answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Unjudged {
    /// The reason in a word, where it is one that the contract names.
    pub fault: Option<Fault>,
    /// The whole reason.
    pub error: Error,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// Reasons that the contract names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// Its word in the contract.
            pub fn word(self) -> &'static str {
                match self { $(Fault::$name => $word,)* }
            }

            fn of(message: &str) -> Option<Fault> {
                match message.split_once(':')?.0 { $($word => Some(Fault::$name),)* _ => None }
            }
        }
    };
}

faults! {
    /// No value.
    EmptyInput = "empty_input",
    /// NaN, infinite or missing where that was to be refused.
    NonFinite = "non_finite",
    /// All values of the reference are equal.
    ConstantReference = "constant_reference",
    /// Labels of one class.
    SingleClass = "single_class",
    /// Columns of different lengths.
    LengthMismatch = "length_mismatch",
    /// A table with a row or column of zeros.
    ZeroExpected = "zero_expected",
    /// A count below zero.
    NegativeCount = "negative_count",
    /// A mean point at the origin.
    ZeroNorm = "zero_norm",
    /// Labels that are neither 0 nor 1.
    NotBinary = "not_binary",
}

impl From<Error> for Unjudged {
    fn from(error: Error) -> Unjudged {
        Unjudged { fault: Fault::of(error.message()), error }
    }
}

fn outcomes<T>(answers: Vec<Result<T>>) -> Vec<Outcome<T>> {
    answers.into_iter().map(|answer| answer.map_err(Unjudged::from)).collect()
}

fn handles<'a>(columns: &[&'a Column]) -> Vec<&'a sys::Column> {
    columns.iter().map(|column| &column.0).collect()
}

fn handle_pairs<'a>(pairs: &[Pair<'a>]) -> Vec<(&'a sys::Column, &'a sys::Column)> {
    pairs.iter().map(|pair| (&pair.reference.0, &pair.current.0)).collect()
}

/// How far each pair's numbers are apart, binned by the reference.
pub fn binned_divergence(pairs: &[Pair<'_>], binning: &Binning) -> Result<Vec<Outcome<Divergence>>> {
    sys::stats_binned_divergence(&handle_pairs(pairs), binning).map(outcomes)
}

/// How far each pair's categories are apart; an empty one counts as a share of `floor`.
pub fn category_divergence(pairs: &[Pair<'_>], floor: f64) -> Result<Vec<Outcome<Divergence>>> {
    sys::stats_category_divergence(&handle_pairs(pairs), floor).map(outcomes)
}

/// Two-sample test of Kolmogorov and Smirnov.
pub fn kolmogorov_smirnov(
    pairs: &[Pair<'_>],
    exactness: Exactness,
    alternative: Alternative,
    absent: Absent,
) -> Result<Vec<Outcome<Test>>> {
    sys::stats_kolmogorov_smirnov(&handle_pairs(pairs), exactness, alternative, absent).map(outcomes)
}

/// Test of independence of tables of counts, row by row.
pub fn chi_square(tables: &[Vec<Vec<f64>>], correct: bool) -> Result<Vec<Outcome<Independence>>> {
    sys::stats_chi_square(tables, correct).map(outcomes)
}

/// First Wasserstein distance of each pair.
pub fn wasserstein(pairs: &[Pair<'_>], absent: Absent) -> Result<Vec<Outcome<Distance>>> {
    sys::stats_wasserstein(&handle_pairs(pairs), absent).map(outcomes)
}

/// Exact quantiles by linear interpolation.
pub fn quantiles(columns: &[&Column], probabilities: &[f64], absent: Absent) -> Result<Vec<Outcome<Vec<f64>>>> {
    sys::stats_quantiles(&handles(columns), probabilities, absent).map(outcomes)
}

/// Counts between ascending edges; with `is_open` below and above them too.
pub fn histogram(columns: &[&Column], edges: &[f64], is_open: bool) -> Result<Vec<Outcome<Vec<u64>>>> {
    sys::stats_histogram(&handles(columns), edges, is_open).map(outcomes)
}

/// Moments and range.
pub fn summaries(columns: &[&Column], absent: Absent) -> Result<Vec<Outcome<Summary>>> {
    sys::stats_summaries(&handles(columns), absent).map(outcomes)
}

/// What is in columns of any type; numbers outside `low` to `high` are counted apart.
pub fn censuses(columns: &[&Column], low: f64, high: f64) -> Result<Vec<Outcome<Census>>> {
    sys::stats_censuses(&handles(columns), low, high).map(outcomes)
}

/// Area under the curve of each column of scores.
pub fn area_under_curve(labels: &Column, scores: &[&Column], weights: Option<&Column>) -> Result<Vec<Outcome<f64>>> {
    sys::stats_area_under_curve(&labels.0, &handles(scores), weights.map(|column| &column.0)).map(outcomes)
}

/// Bootstrap of an estimate for each column of scores; with a baseline, of the difference to it.
pub fn bootstrap(
    what: Estimate,
    labels: &Column,
    scores: &[&Column],
    baseline: Option<&Column>,
    resampling: &Resampling,
) -> Result<Vec<Outcome<Interval>>> {
    let baseline = baseline.map(|column| &column.0);
    sys::stats_bootstrap(what, &labels.0, &handles(scores), baseline, resampling).map(outcomes)
}

/// How well each column of scores are probabilities, over equally wide bins.
pub fn calibrations(labels: &Column, scores: &[&Column], bins: u32) -> Result<Vec<Outcome<Calibration>>> {
    sys::stats_calibrations(&labels.0, &handles(scores), bins).map(outcomes)
}

/// Rates of all rows, then of each group; weighted if there are weights.
pub fn rates_by_group(
    labels: &Column,
    predictions: &Column,
    groups: &[&Column],
    weights: Option<&Column>,
) -> Result<Vec<Group>> {
    sys::stats_rates_by_group(&labels.0, &predictions.0, &handles(groups), weights.map(|column| &column.0))
}

/// Distance of two clouds' mean points; each list one column a dimension.
pub fn centroids(reference: &[&Column], current: &[&Column]) -> Result<Separation> {
    sys::stats_centroids(&handles(reference), &handles(current))
}

/// Squared maximum mean discrepancy over at most `rows_max` rows a side.
pub fn mean_discrepancy(
    reference: &[&Column],
    current: &[&Column],
    bandwidth: Option<f64>,
    rows_max: u32,
    seed: u64,
) -> Result<f64> {
    sys::stats_mean_discrepancy(&handles(reference), &handles(current), bandwidth, rows_max, seed)
}

/// Correlation of each column with each, row by row.
pub fn correlations(columns: &[&Column], kind: Correlation) -> Result<Vec<f64>> {
    sys::stats_correlations(&handles(columns), kind)
}
