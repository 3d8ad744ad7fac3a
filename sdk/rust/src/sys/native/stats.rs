//! Statistics and models in native tests: the host's own arithmetic, asked directly instead of through its batcher.

use super::columns::{Column, Frame};
use crate::models::Output;
use crate::stats::{
    Absent, Alternative, Binning, BinsBy, Calibration, CalibrationBin, Census, Correlation, Distance, Divergence,
    Estimate, Exactness, Group, Independence, Interval, Resampling, Separation, Summary, Test,
};
use crate::{Error, Result};
use mainstay_arrays as arrays;
use mainstay_kernels::{Loaded, Question, stats};
use mainstay_models as models;
use mainstay_statistics as statistics;
use std::rc::Rc;

type Each<T> = Result<Vec<Result<T>>>;
type Asked<'a> = &'a [(&'a Column, &'a Column)];

/// A fault's word stands before its message, as in the contract.
fn worded(error: mainstay_base::Error) -> Error {
    match statistics::Fault::of(&error).map(statistics::Fault::code) {
        Some(code) => mainstay_base::Error::new(error.kind(), format!("{code}: {}", error.message())).into(),
        None => error.into(),
    }
}

fn ask<Q: Question, T>(question: &Q, into: impl Fn(Q::Answer) -> T) -> Result<T> {
    question.answer().map(into).map_err(worded)
}

fn of_pairs<Q: Question, T>(
    asked: Asked<'_>,
    question: impl Fn(arrays::Column, arrays::Column) -> Q,
    into: impl Fn(Q::Answer) -> T,
) -> Each<T> {
    Ok(asked.iter().map(|(one, other)| ask(&question(one.0.clone(), other.0.clone()), &into)).collect())
}

fn of_columns<Q: Question, T>(
    asked: &[&Column],
    question: impl Fn(arrays::Column) -> Q,
    into: impl Fn(Q::Answer) -> T,
) -> Each<T> {
    Ok(asked.iter().map(|column| ask(&question(column.0.clone()), &into)).collect())
}

fn held(columns: &[&Column]) -> Vec<arrays::Column> {
    columns.iter().map(|column| column.0.clone()).collect()
}

fn missing(absent: Absent) -> statistics::Missing {
    match absent {
        Absent::Refuse => statistics::Missing::Refuse,
        Absent::Omit => statistics::Missing::Omit,
    }
}

fn divergence(found: stats::Divergence) -> Divergence {
    Divergence {
        jeffreys: found.jeffreys,
        jensen_shannon: found.distances.jensen_shannon_divergence,
        hellinger: found.distances.hellinger,
        largest: found.distances.largest,
        edges: found.edges,
        categories: found.categories,
        reference: found.reference,
        current: found.current,
    }
}

pub fn stats_binned_divergence(asked: Asked<'_>, binning: &Binning) -> Each<Divergence> {
    let options = statistics::BinnedOptions {
        bins: binning.bins as usize,
        binning: match binning.by {
            BinsBy::Quantile => statistics::Binning::Quantile,
            BinsBy::Width => statistics::Binning::Uniform,
        },
        ends: if binning.is_open { statistics::Ends::Open } else { statistics::Ends::Closed },
        floor: binning.floor,
    };
    let missing = missing(binning.absent);
    let question = |reference, current| stats::BinnedDivergence { reference, current, options, missing };
    of_pairs(asked, question, divergence)
}

pub fn stats_category_divergence(asked: Asked<'_>, floor: f64) -> Each<Divergence> {
    of_pairs(asked, |reference, current| stats::CategoryDivergence { reference, current, floor }, divergence)
}

pub fn stats_kolmogorov_smirnov(
    asked: Asked<'_>,
    exactness: Exactness,
    alternative: Alternative,
    absent: Absent,
) -> Each<Test> {
    let method = match exactness {
        Exactness::Automatic => statistics::Method::Auto,
        Exactness::Exact => statistics::Method::Exact,
        Exactness::Asymptotic => statistics::Method::Asymptotic,
    };
    let alternative = match alternative {
        Alternative::TwoSided => statistics::Alternative::TwoSided,
        Alternative::Less => statistics::Alternative::Less,
        Alternative::Greater => statistics::Alternative::Greater,
    };
    let missing = missing(absent);
    let question = |reference, current| stats::KolmogorovSmirnov { reference, current, method, alternative, missing };
    of_pairs(asked, question, |found| Test {
        statistic: found.statistic,
        p_value: found.p_value,
        is_exact: found.method == statistics::Method::Exact,
    })
}

pub fn stats_chi_square(tables: &[Vec<Vec<f64>>], correct: bool) -> Each<Independence> {
    let independence = |found: statistics::ChiSquare| Independence {
        statistic: found.statistic,
        p_value: found.p_value,
        degrees: found.degrees as u32,
        expected: found.expected,
    };
    let answer = |table: &Vec<Vec<f64>>| {
        let columns = table.first().map_or(0, Vec::len);
        if table.iter().any(|row| row.len() != columns) {
            return Err(Error::invalid("a table with rows of different lengths; give every row all columns"));
        }
        ask(&stats::Independence { table: table.concat(), columns, is_corrected: correct }, independence)
    };
    Ok(tables.iter().map(answer).collect())
}

pub fn stats_wasserstein(asked: Asked<'_>, absent: Absent) -> Each<Distance> {
    let missing = missing(absent);
    let distance = |found: statistics::Transport| Distance { distance: found.distance, normed: found.normed };
    of_pairs(asked, |reference, current| stats::Wasserstein { reference, current, missing }, distance)
}

pub fn stats_quantiles(asked: &[&Column], probabilities: &[f64], absent: Absent) -> Each<Vec<f64>> {
    let missing = missing(absent);
    let question = |column| stats::Quantiles { column, probabilities: probabilities.into(), missing };
    of_columns(asked, question, |found| found)
}

pub fn stats_histogram(asked: &[&Column], edges: &[f64], is_open: bool) -> Each<Vec<u64>> {
    let question = |column| stats::Counts { column, edges: edges.into(), is_open };
    of_columns(asked, question, |found| found.counts)
}

pub fn stats_summaries(asked: &[&Column], absent: Absent) -> Each<Summary> {
    let missing = missing(absent);
    of_columns(
        asked,
        |column| stats::Summary { column, missing },
        |found| Summary {
            count: found.count,
            mean: found.mean,
            deviation: found.population_std(),
            skewness: found.skewness(),
            kurtosis: found.excess_kurtosis(),
            least: found.min,
            greatest: found.max,
        },
    )
}

pub fn stats_censuses(asked: &[&Column], low: f64, high: f64) -> Each<Census> {
    of_columns(
        asked,
        |column| stats::Census { column, range: (low, high) },
        |found| Census {
            rows: found.rows,
            missing: found.missing,
            not_a_number: found.nan,
            below: found.below,
            above: found.above,
            distinct: found.distinct,
            is_distinct_exact: found.is_distinct_exact,
        },
    )
}

pub fn stats_area_under_curve(labels: &Column, scores: &[&Column], weights: Option<&Column>) -> Each<f64> {
    let weights = weights.map(|column| column.0.clone());
    let question = |scores| stats::Area { labels: labels.0.clone(), scores, weights: weights.clone() };
    of_columns(scores, question, |found| found)
}

pub fn stats_bootstrap(
    what: Estimate,
    labels: &Column,
    scores: &[&Column],
    baseline: Option<&Column>,
    resampling: &Resampling,
) -> Each<Interval> {
    let what = match what {
        Estimate::AreaUnderCurve => stats::Estimate::Area,
        Estimate::Brier => stats::Estimate::Brier,
        Estimate::Mean => stats::Estimate::Mean,
        Estimate::Accuracy => stats::Estimate::Accuracy,
    };
    let question = |scores| stats::Bootstrap {
        what,
        labels: labels.0.clone(),
        scores,
        baseline: baseline.map(|column| column.0.clone()),
        resamples: resampling.resamples as usize,
        level: resampling.level,
        seed: resampling.seed,
    };
    of_columns(scores, question, |found| Interval {
        point: found.point,
        low: found.low,
        high: found.high,
        mean: found.mean,
        deviation: found.std,
        used: found.used as u32,
    })
}

pub fn stats_calibrations(labels: &Column, scores: &[&Column], bins: u32) -> Each<Calibration> {
    let question = |scores| stats::Calibrated { labels: labels.0.clone(), scores, bins: bins as usize };
    let bin = |bin: &statistics::CalibrationBin| CalibrationBin {
        count: bin.count,
        mean_score: bin.said,
        rate: bin.happened,
    };
    of_columns(scores, question, |found| Calibration {
        brier: found.brier,
        expected_error: found.expected_error,
        bins: found.bins.iter().filter(|bin| bin.count > 0).map(bin).collect(),
    })
}

pub fn stats_rates_by_group(
    labels: &Column,
    predictions: &Column,
    groups: &[&Column],
    weights: Option<&Column>,
) -> Result<Vec<Group>> {
    let (labels, predictions) = (labels.0.clone(), predictions.0.clone());
    let weights = weights.map(|column| column.0.clone());
    let found = ask(&stats::RatesByGroup { labels, predictions, groups: held(groups), weights }, |found| found)?;
    let group = |key: Vec<String>, rates: &statistics::Rates| Group {
        key,
        count: rates.count,
        positives: rates.positives,
        negatives: rates.negatives,
        selection_rate: rates.selection_rate,
        true_positive_rate: rates.true_positive_rate,
        false_positive_rate: rates.false_positive_rate,
        accuracy: rates.accuracy,
    };
    let key = |each: &statistics::Group| each.key.iter().map(ToString::to_string).collect();
    let groups = found.groups.iter().map(|each| group(key(each), &each.rates));
    Ok(std::iter::once(group(Vec::new(), &found.overall)).chain(groups).collect())
}

pub fn stats_centroids(reference: &[&Column], current: &[&Column]) -> Result<Separation> {
    let question = stats::Centroids { reference: held(reference), current: held(current) };
    ask(&question, |found| Separation { cosine: found.cosine_distance, euclidean: found.euclidean })
}

pub fn stats_mean_discrepancy(
    reference: &[&Column],
    current: &[&Column],
    bandwidth: Option<f64>,
    rows_max: u32,
    seed: u64,
) -> Result<f64> {
    let (reference, current, rows_max) = (held(reference), held(current), rows_max as usize);
    ask(&stats::MeanDiscrepancy { reference, current, bandwidth, rows_max, seed }, |found| found.squared)
}

pub fn stats_correlations(asked: &[&Column], kind: Correlation) -> Result<Vec<f64>> {
    let count = asked.len();
    let mut matrix = vec![1.0; count * count];
    for row in 0..count {
        for column in row + 1..count {
            let (first, second) = (asked[row].0.clone(), asked[column].0.clone());
            let is_of_ranks = matches!(kind, Correlation::Spearman);
            let found = ask(&stats::Correlation { first, second, is_of_ranks }, |found| found)?;
            matrix[row * count + column] = found;
            matrix[column * count + row] = found;
        }
    }
    Ok(matrix)
}

#[derive(Debug)]
pub struct Model(Rc<HeldModel>);

struct HeldModel(Loaded);

impl std::fmt::Debug for HeldModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.digest())
    }
}

impl Model {
    pub fn load(sha256: &str) -> Result<Model> {
        let bytes = super::blob_bytes(sha256)?;
        Ok(Model(Rc::new(HeldModel(Loaded::from_bytes(sha256, &bytes)?))))
    }

    fn model(&self) -> &models::Model {
        self.0.0.model()
    }

    pub fn format(&self) -> String {
        self.model().format().name().to_lowercase()
    }

    pub fn features(&self) -> Vec<String> {
        self.model().features().iter().map(|feature| feature.name.clone()).collect()
    }

    pub fn outputs(&self) -> u32 {
        self.model().width(models::Output::Score).map_or(0, |width| width as u32)
    }

    /// The frame's columns in the model's order: by name where all are there, else by place.
    fn in_order(&self, frame: &Frame) -> Vec<arrays::Column> {
        let features = self.model().features();
        let by_name: Option<Vec<_>> =
            features.iter().map(|feature| frame.0.column(&feature.name).ok().cloned()).collect();
        by_name.unwrap_or_else(|| frame.0.columns().iter().map(|(_, column)| column.clone()).collect())
    }

    pub fn predict(&self, rows: &Frame, what: Output) -> Result<Vec<Column>> {
        let what = match what {
            Output::Score => models::Output::Score,
            Output::Raw => models::Output::Raw,
            Output::Leaf => models::Output::Leaf,
            Output::Label => models::Output::Label,
        };
        let width = self.model().width(what)?;
        let columns = self.in_order(rows);
        let numbers = columns.iter().map(arrays::Column::numbers).collect::<mainstay_base::Result<Vec<_>>>()?;
        let mut values = vec![0.0; rows.0.rows() * width];
        self.model().predict(&models::Rows::Columns(&numbers), what, &mut values)?;
        Ok(columns_of(&values, width))
    }

    pub fn explain(&self, rows: &Frame, background: Option<&Frame>) -> Result<Vec<Column>> {
        use models::explain::Explainer;
        let no_trees = || Error::invalid("only an ensemble of trees can be explained");
        let forest = self.model().forest().ok_or_else(no_trees)?;
        let explainer = match background {
            None => Explainer::new(forest)?,
            Some(background) => {
                let columns = self.in_order(background);
                let numbers = columns.iter().map(arrays::Column::numbers).collect::<mainstay_base::Result<Vec<_>>>()?;
                Explainer::against(forest, &models::Rows::Columns(&numbers))?
            }
        };
        let columns = self.in_order(rows);
        let numbers = columns.iter().map(arrays::Column::numbers).collect::<mainstay_base::Result<Vec<_>>>()?;
        let (features, expected) = (numbers.len(), explainer.expected_values());
        let mut values = vec![0.0; rows.0.rows() * features * expected.len()];
        explainer.explain(&models::Rows::Columns(&numbers), &mut values)?;
        let mut answer = columns_of(&values, features * expected.len());
        for (output, expected) in expected.iter().enumerate() {
            let constant = Column(arrays::Column::f64(&vec![*expected; rows.0.rows()], None));
            answer.insert(output * (features + 1) + features, constant);
        }
        Ok(answer)
    }
}

fn columns_of(values: &[f64], width: usize) -> Vec<Column> {
    let column = |at: usize| values.iter().skip(at).step_by(width).copied().collect::<Vec<f64>>();
    (0..width).map(|at| Column(arrays::Column::f64(&column(at), None))).collect()
}
