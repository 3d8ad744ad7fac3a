//! The questions that statistics answer: one type each, all of them here.
//!
//! Owns what each question needs (columns by handle, parameters) and the call that answers it; the arithmetic is
//! `mainstay-statistics`. A new statistic is a type here, and is batched, shared and measured like the others.
//!
//! Bounded by: the limits of the statistics. On failure: the statistic's fault, as the source of the error.

use std::sync::Arc;

use mainstay_arrays::{Column, Numbers, ValueType};
use mainstay_base::{Error, Result};
use mainstay_statistics as statistics;
use mainstay_statistics::{
    BinnedOptions, Calibration, CalibrationBins, CentroidDistance, ChiSquare, Discrepancy, Distinct, Draws, Estimator,
    Fault, GroupRates, Histogram, Interval, Key, KsTest, Matrix, Metric, Missing, Moments, Plan, ShareDistances,
    Transport,
};

use crate::question::Question;

/// Divergences of two columns of numbers over bins of the first.
pub struct BinnedDivergence {
    /// What is compared with.
    pub reference: Column,
    /// What is looked at.
    pub current: Column,
    /// How bins are made.
    pub options: BinnedOptions,
    /// Missing places and NaN.
    pub missing: Missing,
}

/// Two distributions over the same bins or categories, and how far they are apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Symmetric divergence of Jeffreys, floored.
    pub jeffreys: f64,
    /// The others, in nats; without a floor.
    pub distances: ShareDistances,
    /// Inner edges; empty for categories.
    pub edges: Vec<f64>,
    /// Categories; empty for bins.
    pub categories: Vec<String>,
    /// Counts of the reference.
    pub reference: Vec<u64>,
    /// Counts of the current column.
    pub current: Vec<u64>,
}

impl Question for BinnedDivergence {
    type Answer = Divergence;
    const NAME: &'static str = "binned-divergence";

    fn rows(&self) -> usize {
        self.reference.len() + self.current.len()
    }

    fn answer(&self) -> Result<Divergence> {
        let (reference, current) = (self.reference.numbers()?, self.current.numbers()?);
        let binned = statistics::jeffreys_binned(&reference, &current, &self.options, self.missing)?;
        let inner = binned.breaks.len().saturating_sub(1).max(1);
        Ok(Divergence {
            jeffreys: binned.divergence,
            distances: distances(&binned.reference.counts, &binned.current.counts)?,
            edges: binned.breaks[1..inner].to_vec(),
            categories: Vec::new(),
            reference: binned.reference.counts,
            current: binned.current.counts,
        })
    }
}

fn distances(reference: &[u64], current: &[u64]) -> Result<ShareDistances> {
    let real = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect::<Vec<_>>();
    Ok(statistics::share_distances(&real(reference), &real(current), std::f64::consts::E)?)
}

/// Divergences of two columns over the categories of both. Missing places are left out.
pub struct CategoryDivergence {
    /// What is compared with.
    pub reference: Column,
    /// What is looked at; text where the reference is.
    pub current: Column,
    /// What a share of zero becomes.
    pub floor: f64,
}

impl Question for CategoryDivergence {
    type Answer = Divergence;
    const NAME: &'static str = "category-divergence";

    fn rows(&self) -> usize {
        self.reference.len() + self.current.len()
    }

    fn answer(&self) -> Result<Divergence> {
        let (categories, reference, current) = match self.reference.value_type() {
            ValueType::Text => {
                let (reference, current) = (self.reference.texts()?, self.current.texts()?);
                let union = statistics::union_of_texts(&reference, &current, Missing::Omit)?;
                let names = union.categories.into_iter();
                (names.collect(), union.reference, union.current)
            }
            _ => {
                let (reference, current) = (self.reference.numbers()?, self.current.numbers()?);
                let union = statistics::union_of_codes(&reference, &current, Missing::Omit)?;
                let names = union.categories.iter().map(f64::to_string);
                (names.collect(), union.reference, union.current)
            }
        };
        Ok(Divergence {
            jeffreys: statistics::jeffreys_counts(&reference, &current, self.floor)?,
            distances: distances(&reference, &current)?,
            edges: Vec::new(),
            categories,
            reference,
            current,
        })
    }
}

/// Two-sample test of Kolmogorov and Smirnov.
pub struct KolmogorovSmirnov {
    /// The first sample.
    pub reference: Column,
    /// The second.
    pub current: Column,
    /// How the probability is computed.
    pub method: statistics::Method,
    /// Which difference counts.
    pub alternative: statistics::Alternative,
    /// Missing places and NaN.
    pub missing: Missing,
}

impl Question for KolmogorovSmirnov {
    type Answer = KsTest;
    const NAME: &'static str = "kolmogorov-smirnov";

    fn rows(&self) -> usize {
        self.reference.len() + self.current.len()
    }

    fn answer(&self) -> Result<KsTest> {
        let (reference, current) = (self.reference.numbers()?, self.current.numbers()?);
        Ok(statistics::ks_two_sample(&reference, &current, self.method, self.alternative, self.missing)?)
    }
}

/// First Wasserstein distance.
pub struct Wasserstein {
    /// What is compared with.
    pub reference: Column,
    /// What is looked at.
    pub current: Column,
    /// Missing places and NaN.
    pub missing: Missing,
}

impl Question for Wasserstein {
    type Answer = Transport;
    const NAME: &'static str = "wasserstein";

    fn rows(&self) -> usize {
        self.reference.len() + self.current.len()
    }

    fn answer(&self) -> Result<Transport> {
        Ok(statistics::wasserstein(&self.reference.numbers()?, &self.current.numbers()?, self.missing)?)
    }
}

/// Test of independence of a table of counts.
pub struct Independence {
    /// Row by row.
    pub table: Vec<f64>,
    /// Counts in a row.
    pub columns: usize,
    /// Whether Yates' correction is applied at one degree of freedom.
    pub is_corrected: bool,
}

impl Question for Independence {
    type Answer = ChiSquare;
    const NAME: &'static str = "chi-square";

    fn rows(&self) -> usize {
        self.table.len()
    }

    fn answer(&self) -> Result<ChiSquare> {
        Ok(statistics::chi_square(&self.table, self.columns, self.is_corrected)?)
    }
}

/// Exact quantiles.
pub struct Quantiles {
    /// Of what.
    pub column: Column,
    /// Which.
    pub probabilities: Arc<[f64]>,
    /// Missing places and NaN.
    pub missing: Missing,
}

impl Question for Quantiles {
    type Answer = Vec<f64>;
    const NAME: &'static str = "quantiles";

    fn rows(&self) -> usize {
        self.column.len()
    }

    fn answer(&self) -> Result<Vec<f64>> {
        Ok(statistics::quantiles(&self.column.numbers()?, &self.probabilities, self.missing)?)
    }
}

/// Counts between edges; missing places and NaN left out.
pub struct Counts {
    /// Of what.
    pub column: Column,
    /// Ascending.
    pub edges: Arc<[f64]>,
    /// Whether there is a bin before the first edge and one behind the last.
    pub is_open: bool,
}

impl Question for Counts {
    type Answer = Histogram;
    const NAME: &'static str = "histogram";

    fn rows(&self) -> usize {
        self.column.len()
    }

    fn answer(&self) -> Result<Histogram> {
        let numbers = self.column.numbers()?;
        let mut inner = statistics::histogram(&numbers, &self.edges, statistics::Ends::Closed, Missing::Omit)?;
        if self.is_open {
            let (Some(low), Some(high)) = (self.edges.first(), self.edges.last()) else {
                return Err(Error::invalid("a histogram needs edges"));
            };
            let outside = statistics::number_counts(&numbers, Some((*low, *high)), None)?;
            inner.counts.insert(0, outside.below);
            inner.counts.push(outside.above);
        }
        Ok(inner)
    }
}

/// Moments and range.
pub struct Summary {
    /// Of what.
    pub column: Column,
    /// Missing places and NaN.
    pub missing: Missing,
}

impl Question for Summary {
    type Answer = Moments;
    const NAME: &'static str = "summary";

    fn rows(&self) -> usize {
        self.column.len()
    }

    fn answer(&self) -> Result<Moments> {
        Ok(statistics::moments(&self.column.numbers()?, self.missing)?)
    }
}

/// What a column of any type holds.
pub struct Census {
    /// Of what.
    pub column: Column,
    /// Numbers outside of this closed range are counted.
    pub range: (f64, f64),
}

/// Answer to [`Census`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    /// Places.
    pub rows: u64,
    /// Missing places.
    pub missing: u64,
    /// NaN.
    pub nan: u64,
    /// Numbers below the range.
    pub below: u64,
    /// Numbers above it.
    pub above: u64,
    /// Distinct values.
    pub distinct: u64,
    /// Whether they were counted and not estimated.
    pub is_distinct_exact: bool,
}

impl Question for Census {
    type Answer = Counted;
    const NAME: &'static str = "census";

    fn rows(&self) -> usize {
        self.column.len()
    }

    fn answer(&self) -> Result<Counted> {
        if self.column.value_type() == ValueType::Text {
            let found = statistics::text_counts(&self.column.texts()?)?;
            let (rows, missing, distinct) = (found.rows, found.null, found.distinct);
            return Ok(Counted { rows, missing, nan: 0, below: 0, above: 0, distinct, is_distinct_exact: true });
        }
        let exact_max = Some(statistics::EXACT_DISTINCT);
        let found = statistics::number_counts(&self.column.numbers()?, Some(self.range), exact_max)?;
        let (distinct, is_distinct_exact) = match found.distinct {
            Some(Distinct::Exactly(count)) => (count, true),
            Some(Distinct::About { estimate, .. }) => (estimate.round() as u64, false),
            None => return Err(Error::internal("distinct values were asked for and not counted")),
        };
        let statistics::NumberCounts { rows, null, nan, below, above, .. } = found;
        Ok(Counted { rows, missing: null, nan, below, above, distinct, is_distinct_exact })
    }
}

/// Area under the curve.
pub struct Area {
    /// 0 or 1.
    pub labels: Column,
    /// Scores.
    pub scores: Column,
    /// Weights of the rows.
    pub weights: Option<Column>,
}

impl Question for Area {
    type Answer = f64;
    const NAME: &'static str = "area-under-curve";

    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn answer(&self) -> Result<f64> {
        let (labels, scores) = (self.labels.numbers()?, self.scores.numbers()?);
        let weights = self.weights.as_ref().map(Column::numbers).transpose()?;
        Ok(statistics::roc_auc(&labels, &scores, weights.as_ref(), Missing::Refuse)?)
    }
}

/// What is estimated on each resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimate {
    /// Area under the curve.
    Area,
    /// Mean of (score - label)^2.
    Brier,
    /// Mean of the scores.
    Mean,
    /// Share of rows whose score is at least 0.5 exactly where the label is 1.
    Accuracy,
}

/// Interval of an estimate, or of its difference to a baseline's.
pub struct Bootstrap {
    /// What is estimated.
    pub what: Estimate,
    /// 0 or 1.
    pub labels: Column,
    /// Scores.
    pub scores: Column,
    /// Scores whose estimate is subtracted.
    pub baseline: Option<Column>,
    /// Resamples.
    pub resamples: usize,
    /// Coverage.
    pub level: f64,
    /// Of the resamples.
    pub seed: u64,
}

impl Bootstrap {
    fn metric(&self, scores: &Column) -> Result<Metric> {
        let (labels, numbers) = (self.labels.numbers()?, scores.numbers()?);
        Ok(match self.what {
            Estimate::Area => Metric::area(&labels, &numbers, Missing::Refuse)?,
            Estimate::Brier => Metric::brier(&labels, &numbers, Missing::Refuse)?,
            Estimate::Mean => Metric::mean(&numbers, Missing::Refuse)?,
            Estimate::Accuracy => {
                let predictions = scores.at_least(0.5)?;
                Metric::accuracy(&labels, &predictions.numbers()?, Missing::Refuse)?
            }
        })
    }
}

impl Question for Bootstrap {
    type Answer = Interval;
    const NAME: &'static str = "bootstrap";

    fn rows(&self) -> usize {
        // A resample costs a small part of what making the metric ready does.
        self.scores.len().saturating_mul(1 + self.resamples / 16)
    }

    fn answer(&self) -> Result<Interval> {
        let plan = Plan { resamples: self.resamples, level: self.level, draws: Draws::Seed(self.seed) };
        let metric = self.metric(&self.scores)?;
        match &self.baseline {
            None => Ok(statistics::bootstrap(&metric, &plan)?),
            Some(baseline) => Ok(statistics::bootstrap_difference(&metric, &self.metric(baseline)?, &plan)?),
        }
    }
}

/// Calibration over equally wide bins.
pub struct Calibrated {
    /// 0 or 1.
    pub labels: Column,
    /// Probabilities.
    pub scores: Column,
    /// How many bins.
    pub bins: usize,
}

impl Question for Calibrated {
    type Answer = Calibration;
    const NAME: &'static str = "calibration";

    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn answer(&self) -> Result<Calibration> {
        let (labels, scores) = (self.labels.numbers()?, self.scores.numbers()?);
        Ok(statistics::calibration(&labels, &scores, self.bins, CalibrationBins::Uniform, Missing::Refuse)?)
    }
}

/// Rates of predictions by crossed groups.
pub struct RatesByGroup {
    /// 0 or 1.
    pub labels: Column,
    /// 0 or 1.
    pub predictions: Column,
    /// What rows are grouped by.
    pub groups: Vec<Column>,
    /// One a row, or each counts once.
    pub weights: Option<Column>,
}

impl Question for RatesByGroup {
    type Answer = GroupRates;
    const NAME: &'static str = "rates-by-group";

    fn rows(&self) -> usize {
        self.labels.len().saturating_mul(1 + self.groups.len())
    }

    fn answer(&self) -> Result<GroupRates> {
        let (labels, predictions) = (self.labels.numbers()?, self.predictions.numbers()?);
        let texts: Vec<_> = self.groups.iter().map(|column| column.texts().ok()).collect();
        let numbers: Vec<_> = self.groups.iter().map(|column| column.numbers().ok()).collect();
        let keys = texts.iter().zip(&numbers).map(|(texts, numbers)| match (texts, numbers) {
            (Some(texts), _) => Ok(Key::Texts(texts)),
            (None, Some(numbers)) => Ok(Key::Numbers(numbers)),
            (None, None) => Err(Error::internal("a column is text or numbers")),
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let weights = self.weights.as_ref().map(Column::numbers).transpose()?;
        Ok(statistics::rates_by_group(&labels, &predictions, &keys, weights.as_ref(), Missing::Refuse)?)
    }
}

/// Distance of two clouds' mean points.
pub struct Centroids {
    /// A column a dimension.
    pub reference: Vec<Column>,
    /// A column a dimension.
    pub current: Vec<Column>,
}

impl Question for Centroids {
    type Answer = CentroidDistance;
    const NAME: &'static str = "centroids";

    fn rows(&self) -> usize {
        places(&self.reference) + places(&self.current)
    }

    fn answer(&self) -> Result<CentroidDistance> {
        let (reference, current) = (all_numbers(&self.reference)?, all_numbers(&self.current)?);
        let (reference, current) = (Matrix::Columns(&reference), Matrix::Columns(&current));
        Ok(statistics::centroid_distance(&reference, &current, Missing::Refuse)?)
    }
}

/// Squared maximum mean discrepancy, unbiased.
pub struct MeanDiscrepancy {
    /// A column a dimension.
    pub reference: Vec<Column>,
    /// A column a dimension.
    pub current: Vec<Column>,
    /// Of the kernel; none: the median distance.
    pub bandwidth: Option<f64>,
    /// Rows a side that are compared.
    pub rows_max: usize,
    /// Of their choice.
    pub seed: u64,
}

impl Question for MeanDiscrepancy {
    type Answer = Discrepancy;
    const NAME: &'static str = "mean-discrepancy";

    fn rows(&self) -> usize {
        self.rows_max.saturating_mul(self.rows_max)
    }

    fn answer(&self) -> Result<Discrepancy> {
        let (reference, current) = (all_numbers(&self.reference)?, all_numbers(&self.current)?);
        let (reference, current) = (Matrix::Columns(&reference), Matrix::Columns(&current));
        let estimator = Estimator::Unbiased { rows: self.rows_max };
        Ok(statistics::discrepancy(&reference, &current, estimator, self.bandwidth, self.seed, Missing::Refuse)?)
    }
}

/// Correlation of two columns; rows with a missing place or NaN are left out.
pub struct Correlation {
    /// One.
    pub first: Column,
    /// The other.
    pub second: Column,
    /// Whether ranks are correlated, not values.
    pub is_of_ranks: bool,
}

impl Question for Correlation {
    /// NaN where a column does not vary.
    type Answer = f64;
    const NAME: &'static str = "correlation";

    fn rows(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn answer(&self) -> Result<f64> {
        let (first, second) = (self.first.numbers()?, self.second.numbers()?);
        let found = match self.is_of_ranks {
            true => statistics::spearman(&first, &second, Missing::Omit),
            false => statistics::pearson(&first, &second, Missing::Omit),
        };
        match found {
            Err(Fault::ConstantReference(_)) => Ok(f64::NAN),
            found => Ok(found?),
        }
    }
}

fn places(columns: &[Column]) -> usize {
    columns.iter().map(Column::len).sum()
}

fn all_numbers(columns: &[Column]) -> Result<Vec<Numbers<'_>>> {
    columns.iter().map(Column::numbers).collect()
}
