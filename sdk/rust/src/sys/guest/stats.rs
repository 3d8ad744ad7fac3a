//! Statistics and models in a component.
//!
//! Owns nothing: every function is one call into the host. On failure: the host's typed error, of the call or of a column.

use super::columns::{Column, Frame};
use crate::models::Output;
use crate::stats::{
    Absent, Alternative, Binning, Calibration, Census, Correlation, Distance, Divergence, Estimate, Exactness, Group,
    Independence, Interval, Resampling, Separation, Summary, Test,
};
use crate::sys::bindings::mainstay::numeric::{arrays, models, stats};
use crate::sys::bindings::mainstay::types::errors::Error as WitError;
use crate::{Error, Result};

type Each<T> = Result<Vec<Result<T>>>;
type Asked<'a> = &'a [(&'a Column, &'a Column)];

fn each<T>(answers: Result<Vec<Result<T, WitError>>, WitError>) -> Each<T> {
    Ok(answers?.into_iter().map(|answer| answer.map_err(Error::from)).collect())
}

fn pairs<'a>(pairs: Asked<'a>) -> Vec<stats::Pair<'a>> {
    pairs.iter().map(|(reference, current)| stats::Pair { reference: &reference.0, current: &current.0 }).collect()
}

fn columns<'a>(columns: &[&'a Column]) -> Vec<&'a arrays::Column> {
    columns.iter().map(|column| &column.0).collect()
}

pub fn stats_binned_divergence(asked: Asked<'_>, binning: &Binning) -> Each<Divergence> {
    each(stats::binned_divergence(&pairs(asked), *binning))
}

pub fn stats_category_divergence(asked: Asked<'_>, floor: f64) -> Each<Divergence> {
    each(stats::category_divergence(&pairs(asked), floor))
}

pub fn stats_kolmogorov_smirnov(
    asked: Asked<'_>,
    exactness: Exactness,
    alternative: Alternative,
    absent: Absent,
) -> Each<Test> {
    each(stats::kolmogorov_smirnov(&pairs(asked), exactness, alternative, absent))
}

pub fn stats_chi_square(tables: &[Vec<Vec<f64>>], correct: bool) -> Each<Independence> {
    each(stats::chi_square(tables, correct))
}

pub fn stats_wasserstein(asked: Asked<'_>, absent: Absent) -> Each<Distance> {
    each(stats::wasserstein(&pairs(asked), absent))
}

pub fn stats_quantiles(asked: &[&Column], probabilities: &[f64], absent: Absent) -> Each<Vec<f64>> {
    each(stats::quantiles(&columns(asked), probabilities, absent))
}

pub fn stats_histogram(asked: &[&Column], edges: &[f64], is_open: bool) -> Each<Vec<u64>> {
    each(stats::histogram(&columns(asked), edges, is_open))
}

pub fn stats_summaries(asked: &[&Column], absent: Absent) -> Each<Summary> {
    each(stats::summaries(&columns(asked), absent))
}

pub fn stats_censuses(asked: &[&Column], low: f64, high: f64) -> Each<Census> {
    each(stats::censuses(&columns(asked), low, high))
}

pub fn stats_area_under_curve(labels: &Column, scores: &[&Column], weights: Option<&Column>) -> Each<f64> {
    each(stats::area_under_curve(&labels.0, &columns(scores), weights.map(|column| &column.0)))
}

pub fn stats_bootstrap(
    what: Estimate,
    labels: &Column,
    scores: &[&Column],
    baseline: Option<&Column>,
    resampling: &Resampling,
) -> Each<Interval> {
    each(stats::bootstrap(what, &labels.0, &columns(scores), baseline.map(|column| &column.0), *resampling))
}

pub fn stats_calibrations(labels: &Column, scores: &[&Column], bins: u32) -> Each<Calibration> {
    each(stats::calibrations(&labels.0, &columns(scores), bins))
}

pub fn stats_rates_by_group(
    labels: &Column,
    predictions: &Column,
    groups: &[&Column],
    weights: Option<&Column>,
) -> Result<Vec<Group>> {
    Ok(stats::rates_by_group(&labels.0, &predictions.0, &columns(groups), weights.map(|column| &column.0))?)
}

pub fn stats_centroids(reference: &[&Column], current: &[&Column]) -> Result<Separation> {
    Ok(stats::centroids(&columns(reference), &columns(current))?)
}

pub fn stats_mean_discrepancy(
    reference: &[&Column],
    current: &[&Column],
    bandwidth: Option<f64>,
    rows_max: u32,
    seed: u64,
) -> Result<f64> {
    Ok(stats::mean_discrepancy(&columns(reference), &columns(current), bandwidth, rows_max, seed)?)
}

pub fn stats_correlations(asked: &[&Column], kind: Correlation) -> Result<Vec<f64>> {
    Ok(stats::correlations(&columns(asked), kind)?)
}

#[derive(Debug)]
pub struct Model(models::Model);

impl Model {
    pub fn load(sha256: &str) -> Result<Model> {
        Ok(Model(models::Model::load(sha256)?))
    }

    pub fn format(&self) -> String {
        self.0.format()
    }

    pub fn features(&self) -> Vec<String> {
        self.0.features()
    }

    pub fn outputs(&self) -> u32 {
        self.0.outputs()
    }

    pub fn predict(&self, rows: &Frame, what: Output) -> Result<Vec<Column>> {
        Ok(self.0.predict(&rows.0, what)?.into_iter().map(Column).collect())
    }

    pub fn explain(&self, rows: &Frame, background: Option<&Frame>) -> Result<Vec<Column>> {
        let background = background.map(|frame| &frame.0);
        Ok(self.0.explain(&rows.0, background)?.into_iter().map(Column).collect())
    }
}
