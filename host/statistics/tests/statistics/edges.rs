//! What is empty, constant, missing, of one class, huge or tiny: a fault with the right code, or the right number.

use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::*;

fn view<'a>(values: &'a [f64]) -> Numbers<'a> {
    Numbers::of_f64(&[values])
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.unwrap_err().code()
}

const NAN: f64 = f64::NAN;
const INFINITY: f64 = f64::INFINITY;

#[test]
fn nothing_is_an_empty_input() {
    let (none, one) = (view(&[]), view(&[1.0]));
    let options = BinnedOptions::default();
    for missing in [Missing::Refuse, Missing::Omit] {
        assert_eq!(code(quantiles(&none, &[0.5], missing)), "empty_input");
        assert_eq!(code(moments(&none, missing)), "empty_input");
        assert_eq!(code(jeffreys_binned(&none, &one, &options, missing)), "empty_input");
        assert_eq!(code(jeffreys_binned(&view(&[1.0, 2.0]), &none, &options, missing)), "empty_input");
        assert_eq!(code(wasserstein(&one, &none, missing)), "empty_input");
        assert_eq!(code(ks_two_sample(&none, &one, Method::Auto, Alternative::TwoSided, missing)), "empty_input");
        assert_eq!(code(roc_auc(&none, &none, None, missing)), "empty_input");
        assert_eq!(code(Metric::area(&none, &none, missing)), "empty_input");
        assert_eq!(code(Metric::mean(&none, missing)), "empty_input");
        assert_eq!(code(calibration(&none, &none, 10, CalibrationBins::Uniform, missing)), "empty_input");
        assert_eq!(code(rates_by_group(&none, &none, &[], None, missing)), "empty_input");
        assert_eq!(code(pearson(&none, &none, missing)), "empty_input");
        assert_eq!(code(spearman(&none, &none, missing)), "empty_input");
        assert_eq!(code(union_of_codes(&none, &one, missing)), "empty_input");
        assert_eq!(code(centroid(&Matrix::RowsF64 { width: 3, chunks: &[] }, missing)), "empty_input");
    }
    assert_eq!(code(quantiles(&view(&[NAN]), &[0.5], Missing::Omit)), "empty_input");
    assert_eq!(histogram(&none, &[0.0, 1.0], Ends::Open, Missing::Refuse).unwrap().counts, [0]);
    assert_eq!(code(QuantileSketch::new(0.01).unwrap().quantile(0.5)), "empty_input");
    assert_eq!(code(share_distances(&[], &[], 2.0)), "empty_input");
    assert_eq!(code(share_distances(&[0.0], &[1.0], 2.0)), "empty_input");
}

#[test]
fn missing_places_are_refused_or_left_out() {
    let column = Column::f64(&[1.0, 9.0, 3.0], Some(&[true, false, true]));
    let there = column.numbers().unwrap();
    for values in [there, view(&[1.0, NAN, 3.0])] {
        assert_eq!(code(moments(&values, Missing::Refuse)), "non_finite");
        assert_eq!(moments(&values, Missing::Omit).unwrap().mean, 2.0);
        assert_eq!(
            code(ks_two_sample(&values, &values, Method::Auto, Alternative::Less, Missing::Refuse)),
            "non_finite"
        );
        assert_eq!(quantiles(&values, &[1.0], Missing::Omit).unwrap(), [3.0]);
        let labels = view(&[0.0, 1.0, 1.0]);
        assert_eq!(roc_auc(&labels, &values, None, Missing::Omit).unwrap(), 1.0);
        assert_eq!(code(roc_auc(&labels, &values, None, Missing::Refuse)), "non_finite");
        let counts = number_counts(&values, None, None).unwrap();
        assert_eq!((counts.rows, counts.null + counts.nan), (3, 1));
        let metric = Metric::mean(&values, Missing::Omit).unwrap();
        let whole = Metric::mean(&view(&[1.0, 2.0]), Missing::Omit).unwrap();
        let plan = Plan { resamples: 3, level: 0.9, draws: Draws::Seed(1) };
        assert_eq!(code(bootstrap_difference(&metric, &whole, &plan)), "length_mismatch");
    }
    let columns = [view(&[1.0, NAN, 3.0]), view(&[2.0, 5.0, 4.0])];
    assert_eq!(centroid(&Matrix::Columns(&columns), Missing::Omit).unwrap(), [2.0, 3.0]);
    assert_eq!(code(centroid(&Matrix::Columns(&columns), Missing::Refuse)), "non_finite");
    let rows: &[&[f32]] = &[&[1.0, 2.0, f32::NAN, 5.0], &[3.0, 4.0]];
    assert_eq!(centroid(&Matrix::RowsF32 { width: 2, chunks: rows }, Missing::Omit).unwrap(), [2.0, 3.0]);
}

#[test]
fn constants_classes_and_lengths() {
    let (same, labels) = (view(&[5.0, 5.0, 5.0]), view(&[0.0, 1.0, 1.0]));
    assert_eq!(code(jeffreys_binned(&same, &labels, &BinnedOptions::default(), Missing::Refuse)), "constant_reference");
    assert_eq!(code(pearson(&same, &labels, Missing::Refuse)), "constant_reference");
    assert_eq!(wasserstein(&same, &same, Missing::Refuse).unwrap().normed, 0.0);
    assert_eq!(roc_auc(&labels, &same, None, Missing::Refuse).unwrap(), 0.5);
    let test = ks_two_sample(&same, &same, Method::Exact, Alternative::TwoSided, Missing::Refuse).unwrap();
    assert_eq!((test.statistic, test.p_value), (0.0, 1.0));
    assert!(moments(&same, Missing::Refuse).unwrap().skewness().is_nan());
    let ones = view(&[1.0, 1.0, 1.0]);
    assert_eq!(code(roc_auc(&ones, &labels, None, Missing::Refuse)), "single_class");
    assert_eq!(code(Metric::area(&ones, &labels, Missing::Refuse)), "single_class");
    assert_eq!(code(roc_auc(&same, &labels, None, Missing::Refuse)), "not_binary");
    assert_eq!(code(rates_by_group(&same, &labels, &[], None, Missing::Refuse)), "not_binary");
    assert_eq!(
        code(rates_by_group(&labels, &labels, &[Key::Numbers(&ones)], Some(&view(&[1.0, -1.0, 1.0])), Missing::Refuse)),
        "negative_count"
    );
    let short = view(&[1.0]);
    assert_eq!(code(roc_auc(&labels, &short, None, Missing::Refuse)), "length_mismatch");
    assert_eq!(
        code(rates_by_group(&labels, &labels, &[Key::Numbers(&short)], None, Missing::Refuse)),
        "length_mismatch"
    );
    assert_eq!(code(jeffreys(&[0.5], &[0.5, 0.5], 1e-4)), "length_mismatch");
    assert_eq!(code(share_distances(&[1.0, -1.0], &[1.0, 1.0], 2.0)), "negative_count");
    let zero: &[&[f64]] = &[&[1.0, -1.0, -1.0, 1.0]];
    let zero = Matrix::RowsF64 { width: 2, chunks: zero };
    assert_eq!(code(centroid_distance(&zero, &zero, Missing::Refuse)), "zero_norm");
    // Two rows of one class each: some resamples have one class only.
    let metric = Metric::area(&view(&[0.0, 1.0]), &view(&[0.1, 0.2]), Missing::Refuse).unwrap();
    let found = bootstrap(&metric, &Plan { resamples: 200, level: 0.9, draws: Draws::Seed(5) }).unwrap();
    assert!(found.used + found.skipped == 200 && found.used > 60 && found.skipped > 60, "{found:?}");
    assert_eq!((found.low, found.high), (1.0, 1.0));
    let one_class = Plan { resamples: 1, level: 0.9, draws: Draws::Given(&[0, 0]) };
    assert_eq!(code(bootstrap(&metric, &one_class)), "single_class");
    let outside = Plan { resamples: 1, level: 0.9, draws: Draws::Given(&[0, 2]) };
    assert_eq!(code(bootstrap(&metric, &outside)), "bad_argument");
}

#[test]
fn infinite_huge_and_tiny() {
    let infinite = view(&[-INFINITY, 0.5, 2.0, INFINITY]);
    let reference = view(&[0.0, 1.0, 2.0, 3.0]);
    let options = BinnedOptions { bins: 2, ..BinnedOptions::default() };
    let binned = jeffreys_binned(&reference, &infinite, &options, Missing::Refuse).unwrap();
    assert_eq!(binned.current.counts, [2, 2]);
    let closed = BinnedOptions { ends: Ends::Closed, ..options };
    assert_eq!(jeffreys_binned(&reference, &infinite, &closed, Missing::Refuse).unwrap().current.counts, [1, 1]);
    assert_eq!(code(jeffreys_binned(&infinite, &reference, &options, Missing::Refuse)), "non_finite");
    assert_eq!(code(moments(&infinite, Missing::Refuse)), "non_finite");
    assert_eq!(code(roc_auc(&view(&[0.0, 1.0, 0.0, 1.0]), &infinite, None, Missing::Refuse)), "non_finite");
    let found = ks_two_sample(&infinite, &reference, Method::Exact, Alternative::TwoSided, Missing::Refuse).unwrap();
    assert_eq!(found.statistic, 0.25);
    let huge = [f64::MAX, f64::MAX, -f64::MAX];
    assert_eq!(moments(&view(&huge), Missing::Refuse).unwrap().max, f64::MAX);
    assert!((moments(&view(&huge), Missing::Refuse).unwrap().mean / (f64::MAX / 3.0) - 1.0).abs() < 1e-12);
    let tiny = [5e-324, 0.0, -5e-324, -0.0];
    assert_eq!(quantiles(&view(&tiny), &[0.0, 0.5, 1.0], Missing::Refuse).unwrap(), [-5e-324, 0.0, 5e-324]);
    assert_eq!(roc_auc(&view(&[1.0, 0.0, 0.0, 0.0]), &view(&tiny), None, Missing::Refuse).unwrap(), 1.0);
    assert_eq!(number_counts(&view(&tiny), None, Some(10)).unwrap().distinct, Some(Distinct::Exactly(3)));
}

#[test]
fn groups_are_bounded_and_their_keys_whole() {
    let many: Vec<i64> = (0..10_001).collect();
    let labels = vec![0.0; many.len()];
    let (few, many) = (Column::i64(&many[..10_000], None), Column::i64(&many, None));
    let (few, many) = (few.numbers().unwrap(), many.numbers().unwrap());
    let ask = |keys: &[Key<'_>], rows: usize| {
        rates_by_group(&view(&labels[..rows]), &view(&labels[..rows]), keys, None, Missing::Refuse)
    };
    assert_eq!(ask(&[Key::Numbers(&few)], 10_000).unwrap().groups.len(), 10_000);
    assert_eq!(ask(&[Key::Numbers(&few), Key::Numbers(&few)], 10_000).unwrap().groups.len(), 10_000);
    assert_eq!(code(ask(&[Key::Numbers(&many)], 10_001)), "too_many");
    assert_eq!(code(ask(&[Key::Numbers(&view(&[0.5]))], 1)), "bad_argument");
    let none = ask(&[Key::Numbers(&few)], 10_000).unwrap();
    assert!(none.selection_rate.ratio().is_nan() && none.odds_difference() == 0.0);
    assert_eq!(none.groups[3].rates.positives, 0.0);
}
