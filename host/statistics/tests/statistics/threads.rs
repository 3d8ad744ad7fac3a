//! The same numbers, to the last bit, on any number of threads.

use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::*;

use crate::{sample, uniform};

fn in_two(values: &[f64]) -> Numbers<'_> {
    let (first, second) = values.split_at(150_001);
    Numbers::of_f64(&[first, second])
}

/// Bits of everything that adds floats, or that a pool could reorder.
fn everything() -> Vec<u64> {
    const ROWS: usize = 400_000;
    let (labels, scores, others) = (sample(ROWS, 1, 2.0, 1.0, 0.0), uniform(ROWS, 2), sample(ROWS, 3, 0.0, 3.0, -1.0));
    let weights = uniform(ROWS, 4);
    let keys =
        Column::i64(&sample(ROWS, 5, 900.0, 1.0, 0.0).into_iter().map(|key| key as i64).collect::<Vec<_>>(), None);
    let keys = keys.numbers().unwrap();
    let (y, s, o, w) = (in_two(&labels), in_two(&scores), in_two(&others), in_two(&weights));
    let refuse = Missing::Refuse;
    let moments = moments(&o, refuse).unwrap();
    let calibration = calibration(&y, &s, 15, CalibrationBins::Quantile, refuse).unwrap();
    let rates = rates_by_group(&y, &y, &[Key::Numbers(&keys)], Some(&w), refuse).unwrap();
    let ks = ks_two_sample(&s, &o, Method::Auto, Alternative::TwoSided, refuse).unwrap();
    let plan = Plan { resamples: 20, level: 0.9, draws: Draws::Seed(77) };
    let (area, other) = (Metric::area(&y, &s, refuse).unwrap(), Metric::area(&y, &o, refuse).unwrap());
    let mean = bootstrap(&Metric::mean(&o, refuse).unwrap(), &plan).unwrap();
    let difference = bootstrap_difference(&area, &other, &plan).unwrap();
    let rows = &[&others[..]][..];
    let rows = Matrix::RowsF64 { width: 16, chunks: rows };
    let columns = [s.clone(), o.clone()];
    let far = discrepancy(&rows, &rows, Estimator::Biased { rows: 300 }, Some(0.7), 3, refuse).unwrap();
    let mut sketch = QuantileSketch::new(0.02).unwrap();
    sketch.add(&o, refuse).unwrap();
    let mut all = vec![
        moments.mean,
        moments.skewness(),
        moments.excess_kurtosis(),
        calibration.brier,
        calibration.expected_error,
        rates.groups[17].rates.selection_rate,
        rates.groups[17].rates.weight,
        ks.statistic,
        ks.p_value,
        mean.low,
        mean.high,
        mean.std,
        difference.low,
        difference.mean,
        difference.std,
        far.squared,
        sketch.quantile(0.3).unwrap(),
        wasserstein(&s, &o, refuse).unwrap().distance,
        pearson(&s, &o, refuse).unwrap(),
        spearman(&s, &o, refuse).unwrap(),
        roc_auc(&y, &s, None, refuse).unwrap(),
        roc_auc(&y, &s, Some(&w), refuse).unwrap(),
        jeffreys_binned(&s, &o, &BinnedOptions::default(), refuse).unwrap().divergence,
    ];
    all.extend(quantiles(&o, &[0.1, 0.5, 0.99], refuse).unwrap());
    all.extend(centroid(&rows, refuse).unwrap());
    all.extend(centroid(&Matrix::Columns(&columns), refuse).unwrap());
    all.into_iter().map(f64::to_bits).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let on = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(everything);
    let alone = on(1);
    for threads in [2, 3, 7] {
        assert_eq!(on(threads), alone, "{threads} threads");
    }
}
