//! `mainstay:numeric/stats`: statistics over columns, many columns a call.
//!
//! Turns the contract's questions into those of `mainstay-kernels`, asks them in the plugin's name, and turns the answers back.
//! Bounded by: [`ASKED_MAX`] columns or pairs a call, and the batcher's queue. On failure: each column's own error, whose
//! message starts with the fault's word; what concerns the whole call is the outer error.

use mainstay_arrays::Column as Held;
use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::mainstay::numeric::arrays::Column as ColumnHandle;
use mainstay_bindings::mainstay::numeric::stats::{
    Absent, Alternative, Binning, BinsBy, Calibration, CalibrationBin, Census, Correlation, Distance, Divergence,
    Estimate, Exactness, Group, Host, Independence, Interval, Pair, Resampling, Separation, Summary, Test,
};
use mainstay_bindings::{Failure, WitError, to_wit};
use mainstay_kernels::stats as kernels;
use mainstay_kernels::{Caller, Question};
use mainstay_statistics::{BinnedOptions, Binning as By, Ends, Fault, Method, Missing, Rates};
use wasmtime::component::Resource;

use crate::capabilities::ARRAYS;
use crate::guard::ROWS_MIN;
use crate::state::State;

/// Columns or pairs that one call may ask about.
pub const ASKED_MAX: usize = 4_096;
/// Probabilities that one call may ask for.
const PROBABILITIES_MAX: usize = 10_000;
/// Bins that one histogram may have.
const BINS_MAX: usize = 10_000;
/// Resamples of one bootstrap.
const RESAMPLES_MAX: u32 = 100_000;
/// Draws of one bootstrap: a launch cannot be stopped, and this is a quarter of a minute on one thread.
const DRAWS_MAX: usize = 1 << 31;
/// Products that a mean discrepancy may add up, for the same reason.
const TERMS_MAX: usize = 1 << 34;
/// Cells of all tables of one call, and pairs of columns that it correlates.
const CELLS_MAX: usize = 1_000_000;

type Answer<T> = Result<T, Failure>;
type Each<T> = Answer<Vec<Result<T, WitError>>>;
type Column = Resource<ColumnHandle>;

impl State {
    fn pairs(&mut self, pairs: &[Pair]) -> HostResult<Vec<(Held, Held)>> {
        within("pairs", pairs.len(), ASKED_MAX)?;
        let pairs: Vec<(Held, Held)> = pairs
            .iter()
            .map(|pair| Ok((self.held(&pair.reference)?, self.held(&pair.current)?)))
            .collect::<HostResult<_>>()?;
        self.judge(pairs.iter().flat_map(|(reference, current)| [reference, current]))?;
        Ok(pairs)
    }

    fn asked(&mut self, columns: &[Column]) -> HostResult<Vec<Held>> {
        within("columns", columns.len(), ASKED_MAX)?;
        let columns = self.all_held(columns)?;
        self.judge(&columns)?;
        Ok(columns)
    }

    fn caller(&self) -> Caller {
        self.plugin.caller.clone()
    }
}

/// Ask, and turn each answer into the contract's.
async fn each<Q: Question, T>(caller: Caller, questions: Vec<Q>, into: impl Fn(Q::Answer) -> T) -> Each<T> {
    let answers = caller.ask(questions).await?;
    Ok(answers.into_iter().map(|answer| answer.map(&into).map_err(|error| to_wit(&worded(error)))).collect())
}

/// A fault's word stands before its message.
fn worded(error: Error) -> Error {
    match Fault::of(&error).map(Fault::code) {
        Some(code) => Error::new(error.kind(), format!("{code}: {}", error.message())),
        None => error,
    }
}

fn within(what: &str, count: usize, most: usize) -> HostResult<()> {
    match count <= most {
        true => Ok(()),
        false => Err(Error::invalid(format!("{count} {what} in one call; the most is {most}: ask in several calls"))),
    }
}

fn missing(absent: Absent) -> Missing {
    match absent {
        Absent::Refuse => Missing::Refuse,
        Absent::Omit => Missing::Omit,
    }
}

/// What may be told: in a guarded call bins and categories only where each holds enough rows.
fn divergence(mut found: kernels::Divergence, is_guarded: bool) -> Divergence {
    let counts = found.reference.iter().chain(&found.current);
    if is_guarded && counts.copied().any(|count| (1..ROWS_MIN as u64).contains(&count)) {
        (found.edges, found.categories) = (Vec::new(), Vec::new());
        (found.reference, found.current) = (Vec::new(), Vec::new());
    }
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

fn group(key: Vec<String>, rates: &Rates) -> Group {
    Group {
        key,
        count: rates.count,
        positives: rates.positives,
        negatives: rates.negatives,
        selection_rate: rates.selection_rate,
        true_positive_rate: rates.true_positive_rate,
        false_positive_rate: rates.false_positive_rate,
        accuracy: rates.accuracy,
    }
}

impl Host for State {
    async fn binned_divergence(&mut self, pairs: Vec<Pair>, binning: Binning) -> Each<Divergence> {
        let _host = self.enter(ARRAYS)?;
        within("bins", binning.bins as usize, BINS_MAX)?;
        let options = BinnedOptions {
            bins: binning.bins as usize,
            binning: match binning.by {
                BinsBy::Quantile => By::Quantile,
                BinsBy::Width => By::Uniform,
            },
            ends: if binning.is_open { Ends::Open } else { Ends::Closed },
            floor: binning.floor,
        };
        let missing = missing(binning.absent);
        let question = |(reference, current)| kernels::BinnedDivergence { reference, current, options, missing };
        let questions = self.pairs(&pairs)?.into_iter().map(question).collect();
        let is_guarded = self.is_guarded();
        each(self.caller(), questions, |found| divergence(found, is_guarded)).await
    }

    async fn category_divergence(&mut self, pairs: Vec<Pair>, floor: f64) -> Each<Divergence> {
        let _host = self.enter(ARRAYS)?;
        let question = |(reference, current)| kernels::CategoryDivergence { reference, current, floor };
        let questions = self.pairs(&pairs)?.into_iter().map(question).collect();
        let is_guarded = self.is_guarded();
        each(self.caller(), questions, |found| divergence(found, is_guarded)).await
    }

    async fn kolmogorov_smirnov(
        &mut self,
        pairs: Vec<Pair>,
        exactness: Exactness,
        alternative: Alternative,
        absent: Absent,
    ) -> Each<Test> {
        let _host = self.enter(ARRAYS)?;
        let method = match exactness {
            Exactness::Automatic => Method::Auto,
            Exactness::Exact => Method::Exact,
            Exactness::Asymptotic => Method::Asymptotic,
        };
        let alternative = match alternative {
            Alternative::TwoSided => mainstay_statistics::Alternative::TwoSided,
            Alternative::Less => mainstay_statistics::Alternative::Less,
            Alternative::Greater => mainstay_statistics::Alternative::Greater,
        };
        let missing = missing(absent);
        let question =
            |(reference, current)| kernels::KolmogorovSmirnov { reference, current, method, alternative, missing };
        let questions = self.pairs(&pairs)?.into_iter().map(question).collect();
        let test = |found: mainstay_statistics::KsTest| Test {
            statistic: found.statistic,
            p_value: found.p_value,
            is_exact: found.method == Method::Exact,
        };
        each(self.caller(), questions, test).await
    }

    async fn chi_square(&mut self, tables: Vec<Vec<Vec<f64>>>, correct: bool) -> Each<Independence> {
        let _host = self.enter(ARRAYS)?;
        within("tables", tables.len(), ASKED_MAX)?;
        within("cells", tables.iter().flatten().map(Vec::len).sum(), CELLS_MAX)?;
        let mut questions = Vec::with_capacity(tables.len());
        for table in tables {
            let columns = table.first().map_or(0, Vec::len);
            if table.iter().any(|row| row.len() != columns) {
                return Err(Error::invalid("a table with rows of different lengths; give every row all columns").into());
            }
            questions.push(kernels::Independence { table: table.concat(), columns, is_corrected: correct });
        }
        let independence = |found: mainstay_statistics::ChiSquare| Independence {
            statistic: found.statistic,
            p_value: found.p_value,
            degrees: found.degrees as u32,
            expected: found.expected,
        };
        each(self.caller(), questions, independence).await
    }

    async fn wasserstein(&mut self, pairs: Vec<Pair>, absent: Absent) -> Each<Distance> {
        let _host = self.enter(ARRAYS)?;
        let missing = missing(absent);
        let question = |(reference, current)| kernels::Wasserstein { reference, current, missing };
        let questions = self.pairs(&pairs)?.into_iter().map(question).collect();
        let distance =
            |found: mainstay_statistics::Transport| Distance { distance: found.distance, normed: found.normed };
        each(self.caller(), questions, distance).await
    }

    async fn quantiles(&mut self, columns: Vec<Column>, probabilities: Vec<f64>, absent: Absent) -> Each<Vec<f64>> {
        let _host = self.enter(ARRAYS)?;
        within("probabilities", probabilities.len(), PROBABILITIES_MAX)?;
        self.check_probabilities(&probabilities)?;
        let (probabilities, missing): (std::sync::Arc<[f64]>, _) = (probabilities.into(), missing(absent));
        let question = |column| kernels::Quantiles { column, probabilities: probabilities.clone(), missing };
        let questions = self.asked(&columns)?.into_iter().map(question).collect();
        each(self.caller(), questions, |found| found).await
    }

    async fn histogram(&mut self, columns: Vec<Column>, edges: Vec<f64>, is_open: bool) -> Each<Vec<u64>> {
        let _host = self.enter(ARRAYS)?;
        within("edges", edges.len(), BINS_MAX + 1)?;
        self.check_unguarded("count what lies between edges of its own")?;
        let edges: std::sync::Arc<[f64]> = edges.into();
        let question = |column| kernels::Counts { column, edges: edges.clone(), is_open };
        let questions = self.asked(&columns)?.into_iter().map(question).collect();
        each(self.caller(), questions, |found: mainstay_statistics::Histogram| found.counts).await
    }

    async fn summaries(&mut self, columns: Vec<Column>, absent: Absent) -> Each<Summary> {
        let _host = self.enter(ARRAYS)?;
        let missing = missing(absent);
        let questions = self.asked(&columns)?.into_iter().map(|column| kernels::Summary { column, missing }).collect();
        // The smallest and the greatest are single values.
        let is_guarded = self.is_guarded();
        let shown = |extreme: f64| if is_guarded { f64::NAN } else { extreme };
        let summary = |found: mainstay_statistics::Moments| Summary {
            count: found.count,
            mean: found.mean,
            deviation: found.population_std(),
            skewness: found.skewness(),
            kurtosis: found.excess_kurtosis(),
            least: shown(found.min),
            greatest: shown(found.max),
        };
        each(self.caller(), questions, summary).await
    }

    async fn censuses(&mut self, columns: Vec<Column>, low: f64, high: f64) -> Each<Census> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("count what lies outside a range of its own")?;
        let question = |column| kernels::Census { column, range: (low, high) };
        let questions = self.asked(&columns)?.into_iter().map(question).collect();
        let census = |found: kernels::Counted| Census {
            rows: found.rows,
            missing: found.missing,
            not_a_number: found.nan,
            below: found.below,
            above: found.above,
            distinct: found.distinct,
            is_distinct_exact: found.is_distinct_exact,
        };
        each(self.caller(), questions, census).await
    }

    async fn area_under_curve(&mut self, labels: Column, scores: Vec<Column>, weights: Option<Column>) -> Each<f64> {
        let _host = self.enter(ARRAYS)?;
        let labels = self.held(&labels)?;
        self.judge([&labels])?;
        let weights = weights.map(|column| self.held(&column)).transpose()?;
        let question = |scores| kernels::Area { labels: labels.clone(), scores, weights: weights.clone() };
        let questions = self.asked(&scores)?.into_iter().map(question).collect();
        each(self.caller(), questions, |found| found).await
    }

    async fn bootstrap(
        &mut self,
        what: Estimate,
        labels: Column,
        scores: Vec<Column>,
        baseline: Option<Column>,
        resampling: Resampling,
    ) -> Each<Interval> {
        let _host = self.enter(ARRAYS)?;
        within("resamples", resampling.resamples as usize, RESAMPLES_MAX as usize)?;
        let labels = self.held(&labels)?;
        within("rows times resamples", labels.len().saturating_mul(resampling.resamples as usize), DRAWS_MAX)?;
        let baseline = baseline.map(|column| self.held(&column)).transpose()?;
        let what = match what {
            Estimate::AreaUnderCurve => kernels::Estimate::Area,
            Estimate::Brier => kernels::Estimate::Brier,
            Estimate::Mean => kernels::Estimate::Mean,
            Estimate::Accuracy => kernels::Estimate::Accuracy,
        };
        let question = |scores| kernels::Bootstrap {
            what,
            labels: labels.clone(),
            scores,
            baseline: baseline.clone(),
            resamples: resampling.resamples as usize,
            level: resampling.level,
            seed: resampling.seed,
        };
        let questions = self.asked(&scores)?.into_iter().map(question).collect();
        let interval = |found: mainstay_statistics::Interval| Interval {
            point: found.point,
            low: found.low,
            high: found.high,
            mean: found.mean,
            deviation: found.std,
            used: found.used as u32,
        };
        each(self.caller(), questions, interval).await
    }

    async fn calibrations(&mut self, labels: Column, scores: Vec<Column>, bins: u32) -> Each<Calibration> {
        let _host = self.enter(ARRAYS)?;
        let labels = self.held(&labels)?;
        let question = |scores| kernels::Calibrated { labels: labels.clone(), scores, bins: bins as usize };
        let questions = self.asked(&scores)?.into_iter().map(question).collect();
        let bin = |bin: &mainstay_statistics::CalibrationBin| CalibrationBin {
            count: bin.count,
            mean_score: bin.said,
            rate: bin.happened,
        };
        let calibration = |found: mainstay_statistics::Calibration| Calibration {
            brier: found.brier,
            expected_error: found.expected_error,
            bins: found.bins.iter().filter(|bin| bin.count > 0).map(bin).collect(),
        };
        each(self.caller(), questions, calibration).await
    }

    async fn rates_by_group(
        &mut self,
        labels: Column,
        predictions: Column,
        groups: Vec<Column>,
        weights: Option<Column>,
    ) -> Answer<Vec<Group>> {
        let _host = self.enter(ARRAYS)?;
        let (labels, predictions) = (self.held(&labels)?, self.held(&predictions)?);
        let weights = weights.map(|column| self.held(&column)).transpose()?;
        let question = kernels::RatesByGroup { labels, predictions, groups: self.asked(&groups)?, weights };
        let found = self.caller().ask_one(question).await.map_err(worded)?;
        let smallest = found.groups.iter().map(|group| group.rates.count).min().unwrap_or(0);
        self.check_guarded_rows(smallest as usize)?;
        let key = |group: &mainstay_statistics::Group| group.key.iter().map(ToString::to_string).collect();
        let groups = found.groups.iter().map(|each| group(key(each), &each.rates));
        Ok(std::iter::once(group(Vec::new(), &found.overall)).chain(groups).collect())
    }

    async fn centroids(&mut self, reference: Vec<Column>, current: Vec<Column>) -> Answer<Separation> {
        let _host = self.enter(ARRAYS)?;
        let question = kernels::Centroids { reference: self.asked(&reference)?, current: self.asked(&current)? };
        let found = self.caller().ask_one(question).await.map_err(worded)?;
        Ok(Separation { cosine: found.cosine_distance, euclidean: found.euclidean })
    }

    async fn mean_discrepancy(
        &mut self,
        reference: Vec<Column>,
        current: Vec<Column>,
        bandwidth: Option<f64>,
        rows_max: u32,
        seed: u64,
    ) -> Answer<f64> {
        let _host = self.enter(ARRAYS)?;
        let (reference, current) = (self.asked(&reference)?, self.asked(&current)?);
        let rows = reference.iter().chain(&current).map(Held::len).max().unwrap_or(0).min(rows_max as usize);
        within(
            "rows times rows times dimensions",
            rows.saturating_mul(rows).saturating_mul(reference.len()),
            TERMS_MAX,
        )?;
        let question = kernels::MeanDiscrepancy { reference, current, bandwidth, rows_max: rows_max as usize, seed };
        Ok(self.caller().ask_one(question).await.map_err(worded)?.squared)
    }

    async fn correlations(&mut self, columns: Vec<Column>, kind: Correlation) -> Answer<Vec<f64>> {
        let _host = self.enter(ARRAYS)?;
        let columns = self.asked(&columns)?;
        let count = columns.len();
        let is_of_ranks = matches!(kind, Correlation::Spearman);
        let mut questions = Vec::with_capacity(count * count.saturating_sub(1) / 2);
        for (at, first) in columns.iter().enumerate() {
            let others = columns[at + 1..].iter();
            questions.extend(others.map(|second| kernels::Correlation {
                first: first.clone(),
                second: second.clone(),
                is_of_ranks,
            }));
        }
        within("pairs of columns", questions.len(), CELLS_MAX)?;
        let mut answers = self.caller().ask(questions).await?.into_iter();
        let mut matrix = vec![1.0; count * count];
        for row in 0..count {
            for column in row + 1..count {
                let found = answers.next().unwrap_or_else(|| Err(Error::internal("a pair without an answer")));
                let found = found.map_err(worded)?;
                matrix[row * count + column] = found;
                matrix[column * count + row] = found;
            }
        }
        Ok(matrix)
    }
}
