//! Numbers of scipy, scikit-learn, fairlearn and numpy; see tests/data/README.md.

use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::*;
use serde_json::Value;

use crate::sample;

struct Case(Value);

impl Case {
    fn sample(&self, name: &str) -> Vec<f64> {
        let given = &self.0["samples"][name];
        let number = |field: &str| given[field].as_f64().expect("a number");
        let (count, seed) = (number("count") as usize, number("seed") as u64);
        sample(count, seed, number("levels"), number("scale"), number("shift"))
    }

    fn parameter(&self, name: &str) -> &Value {
        &self.0["parameters"][name]
    }

    fn size(&self, name: &str) -> usize {
        self.parameter(name).as_u64().expect("a whole number") as usize
    }

    /// Compare with what is expected under this name, if it is.
    fn near(&self, name: &str, got: f64, relative: f64, absolute: f64) {
        let Some(expected) = self.0["expected"][name].as_str() else { return };
        let expected: f64 = expected.parse().expect("a number");
        let is_near =
            (got - expected).abs() <= absolute.max(relative * expected.abs()) || got.is_nan() && expected.is_nan();
        assert!(
            is_near,
            "{name} is {got:e} where {expected:e} is expected: {} {}",
            self.0["samples"], self.0["parameters"]
        );
    }
}

fn check(what: &str, run: impl Fn(&Case)) {
    let all: Vec<Value> = serde_json::from_str(include_str!("../data/expected.json")).expect("it is JSON");
    let cases: Vec<Case> = all.into_iter().filter(|case| case["what"] == what).map(Case).collect();
    assert!(!cases.is_empty(), "no cases of `{what}`");
    cases.iter().for_each(run);
}

fn view(values: &[f64]) -> Vec<&[f64]> {
    values.chunks(values.len() / 3 + 1).collect()
}

#[test]
fn kolmogorov_smirnov() {
    check("ks", |case| {
        let (first, second) = (case.sample("first"), case.sample("second"));
        let method = match case.parameter("method").as_str() {
            Some("exact") => Method::Exact,
            Some("asymp") => Method::Asymptotic,
            _ => Method::Auto,
        };
        let alternative = match case.parameter("alternative").as_str() {
            Some("less") => Alternative::Less,
            Some("greater") => Alternative::Greater,
            _ => Alternative::TwoSided,
        };
        let (first, second) = (Numbers::of_f64(&view(&first)), Numbers::of_f64(&view(&second)));
        let found = ks_two_sample(&first, &second, method, alternative, Missing::Refuse).unwrap();
        case.near("statistic", found.statistic, 0.0, 1e-12);
        case.near("p_value", found.p_value, 1e-6, 1e-12);
    });
}

#[test]
fn moments_and_quantiles() {
    check("moments", |case| {
        let values = case.sample("values");
        let found = moments(&Numbers::of_f64(&view(&values)), Missing::Refuse).unwrap();
        // Subnormal numbers have few digits, and their squares are zero.
        case.near("mean", found.mean, 1e-14, 1e-320);
        case.near("std", found.population_std(), 1e-12, 1e-160);
        case.near("min", found.min, 0.0, 0.0);
        case.near("max", found.max, 0.0, 0.0);
        // With a mean of 1e9 deviations, `longdouble` itself is off by 1e-10 deviations.
        case.near("skewness", found.skewness(), 1e-9, 1e-9);
        case.near("kurtosis", found.excess_kurtosis(), 1e-9, 1e-9);
    });
    check("quantiles", |case| {
        let values = case.sample("values");
        let names: Vec<String> = case.0["expected"].as_object().unwrap().keys().cloned().collect();
        let levels: Vec<f64> = names.iter().map(|name| name.parse().unwrap()).collect();
        let found = quantiles(&Numbers::of_f64(&view(&values)), &levels, Missing::Refuse).unwrap();
        names.iter().zip(found).for_each(|(name, got)| case.near(name, got, 0.0, 0.0));
    });
}

#[test]
fn distances_of_two_columns() {
    check("wasserstein", |case| {
        let (first, second) = (case.sample("first"), case.sample("second"));
        let (first, second) = (Numbers::of_f64(&view(&first)), Numbers::of_f64(&view(&second)));
        let found = wasserstein(&first, &second, Missing::Refuse).unwrap();
        case.near("distance", found.distance, 1e-9, 0.0);
        case.near("normed", found.normed, 1e-9, 0.0);
    });
    check("jeffreys", |case| {
        let (first, second) = (case.sample("first"), case.sample("second"));
        let binning = if case.parameter("binning") == "uniform" { Binning::Uniform } else { Binning::Quantile };
        let options = BinnedOptions { bins: case.size("bins"), binning, ..BinnedOptions::default() };
        let (first, second) = (Numbers::of_f64(&view(&first)), Numbers::of_f64(&view(&second)));
        let found = jeffreys_binned(&first, &second, &options, Missing::Refuse).unwrap();
        case.near("divergence", found.divergence, 1e-10, 1e-12);
    });
    check("shares", |case| {
        let found = share_distances(&case.sample("first"), &case.sample("second"), 2.0).unwrap();
        case.near("divergence", found.jensen_shannon_divergence, 1e-10, 0.0);
        case.near("distance", found.jensen_shannon_distance, 1e-10, 0.0);
        case.near("hellinger", found.hellinger, 1e-10, 0.0);
        case.near("largest", found.largest, 1e-10, 0.0);
    });
    check("correlation", |case| {
        let (first, second) = (case.sample("first"), case.sample("second"));
        let (first, second) = (Numbers::of_f64(&view(&first)), Numbers::of_f64(&view(&second)));
        case.near("pearson", pearson(&first, &second, Missing::Refuse).unwrap(), 1e-10, 1e-12);
        case.near("spearman", spearman(&first, &second, Missing::Refuse).unwrap(), 1e-10, 1e-12);
    });
}

#[test]
fn classes() {
    check("area", |case| {
        let [labels, scores, others, weights] = ["labels", "scores", "others", "weights"].map(|name| case.sample(name));
        let (labels, scores) = (Numbers::of_f64(&view(&labels)), Numbers::of_f64(&view(&scores)));
        let (others, weights) = (Numbers::of_f64(&view(&others)), Numbers::of_f64(&view(&weights)));
        case.near("area", roc_auc(&labels, &scores, None, Missing::Refuse).unwrap(), 1e-12, 0.0);
        case.near("area", Metric::area(&labels, &scores, Missing::Refuse).unwrap().point(), 1e-12, 0.0);
        case.near("weighted", roc_auc(&labels, &scores, Some(&weights), Missing::Refuse).unwrap(), 1e-11, 0.0);
        let found = compare_areas(&labels, &scores, &others, Missing::Refuse).unwrap();
        case.near("area", found.first, 1e-11, 0.0);
        case.near("first_error", found.first_error, 1e-9, 0.0);
        case.near("difference_error", found.difference_error, 1e-9, 0.0);
        case.near("p_value", found.p_value, 1e-7, 0.0);
    });
    check("calibration", |case| {
        let divisor = case.parameter("divisor").as_f64().unwrap();
        let (labels, scores) = (case.sample("labels"), case.sample("scores"));
        let guesses: Vec<f64> = scores.iter().map(|score| score / divisor).collect();
        let (labels, guesses) = (Numbers::of_f64(&view(&labels)), Numbers::of_f64(&view(&guesses)));
        let found = calibration(&labels, &guesses, 10, CalibrationBins::Uniform, Missing::Refuse).unwrap();
        case.near("brier", found.brier, 1e-12, 0.0);
        case.near("error", found.expected_error, 1e-10, 0.0);
        case.near("brier", Metric::brier(&labels, &guesses, Missing::Refuse).unwrap().point(), 1e-12, 0.0);
    });
}

#[test]
fn groups() {
    check("groups", |case| {
        let [labels, predictions, weights] = ["labels", "predictions", "weights"].map(|name| case.sample(name));
        let [first, second] = ["first", "second"].map(|name| case.sample(name));
        let first: Vec<i64> = first.into_iter().map(|value| value as i64).collect();
        let texts: Vec<String> = second.into_iter().map(|value| value.to_string()).collect();
        let (first, second) = (Column::i64(&first, None), Column::text(texts.iter().map(|text| Some(&text[..]))));
        let (first, second) = (first.numbers().unwrap(), second.texts().unwrap());
        let keys = [Key::Numbers(&first), Key::Texts(&second)];
        let (labels, predictions) = (Numbers::of_f64(&view(&labels)), Numbers::of_f64(&view(&predictions)));
        let weights = Numbers::of_f64(&view(&weights));
        let weights = case.parameter("weighted").as_bool().unwrap().then_some(&weights);
        let found = rates_by_group(&labels, &predictions, &keys, weights, Missing::Refuse).unwrap();
        case.near("groups", found.groups.len() as f64, 0.0, 0.0);
        case.near("odds_difference", found.odds_difference(), 1e-10, 0.0);
        case.near("odds_ratio", found.odds_ratio(), 1e-10, 0.0);
        case.near("rate_ratio", found.selection_rate.ratio(), 1e-10, 0.0);
        case.near("rate_difference", found.selection_rate.difference(), 1e-10, 0.0);
        for (name, rates) in [("overall", found.overall), ("last", found.groups[found.groups.len() - 1].rates)] {
            case.near(&format!("{name}_rate"), rates.selection_rate, 1e-10, 0.0);
            case.near(&format!("{name}_tpr"), rates.true_positive_rate, 1e-10, 0.0);
            case.near(&format!("{name}_fpr"), rates.false_positive_rate, 1e-10, 0.0);
            case.near(&format!("{name}_accuracy"), rates.accuracy, 1e-10, 0.0);
        }
    });
}

#[test]
fn sets_of_vectors() {
    check("centroid", |case| {
        let (first, second, width) = (case.sample("first"), case.sample("second"), case.size("width"));
        let (first, second) = (&[&first[..]][..], &[&second[..]][..]);
        let (first, second) = (Matrix::RowsF64 { width, chunks: first }, Matrix::RowsF64 { width, chunks: second });
        let found = centroid_distance(&first, &second, Missing::Refuse).unwrap();
        case.near("cosine", found.cosine_distance, 1e-10, 1e-14);
        case.near("euclidean", found.euclidean, 1e-10, 0.0);
    });
    check("discrepancy", |case| {
        let (first, second, width) = (case.sample("first"), case.sample("second"), case.size("width"));
        let (first, second) = (&[&first[..]][..], &[&second[..]][..]);
        let (first, second) = (Matrix::RowsF64 { width, chunks: first }, Matrix::RowsF64 { width, chunks: second });
        let estimators = [
            ("biased", Estimator::Biased { rows: 1_000 }),
            ("unbiased", Estimator::Unbiased { rows: 1_000 }),
            ("linear", Estimator::Linear),
        ];
        for (name, estimator) in estimators {
            let bandwidth = case.0["expected"]["bandwidth"].as_str().unwrap().parse().unwrap();
            let given = discrepancy(&first, &second, estimator, Some(bandwidth), 1, Missing::Refuse).unwrap();
            case.near(name, given.squared, 1e-9, 1e-14);
        }
    });
}

#[test]
fn tables() {
    check("chi_square", |case| {
        let correction = case.parameter("correction").as_bool().unwrap();
        let found = chi_square(&case.sample("cells"), case.size("columns"), correction).unwrap();
        case.near("statistic", found.statistic, 1e-10, 1e-12);
        case.near("p_value", found.p_value, 1e-6, 1e-12);
        case.near("degrees", found.degrees as f64, 0.0, 0.0);
    });
}
