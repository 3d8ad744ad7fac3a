//! Columns, statistics and table preparation on the host in memory. Expected numbers are scikit-learn's and scipy's.

use mainstay_sdk::columns::{Column, Frame, ValueType};
use mainstay_sdk::stats::{self, Absent, Alternative, Correlation, Estimate, Exactness, Fault, Pair, Resampling};
use mainstay_sdk::tabular::{self, Step, Steps};
use mainstay_sdk::testing::Host;
use mainstay_sdk::{ErrorKind, Result};

fn enter(act: impl FnOnce() -> Result<()>) {
    Host::new().enter(act).unwrap();
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}

/// `f = [1, 2, 4, nan, 8]`, prepared by scikit-learn 1.9: `SimpleImputer`, then each scaler.
#[test]
fn scalers_are_scikit_learns() {
    fn check(fit: impl FnOnce(&Frame) -> Result<Step>, expected: &[f64]) {
        enter(|| {
            let column = Column::real64(&[1.0, 2.0, 4.0, f64::NAN, 8.0])?;
            let frame = Frame::of([("f", &column)])?;
            let filled = Steps(vec![tabular::fit_impute_mean(&frame, &["f"])?]).apply(&frame)?;
            let scaled = Steps(vec![fit(&filled)?]).apply(&filled)?;
            near(&scaled.column("f")?.read_numbers(0, 5)?, expected);
            Ok(())
        });
    }
    let deviation = 5.75_f64.sqrt();
    let centered = [-2.75, -1.75, 0.25, 0.0, 4.25].map(|value| value / deviation);
    check(|frame| tabular::fit_standard(frame, &["f"]), &centered);
    check(|frame| tabular::fit_min_max(frame, &["f"]), &[0.0, 1.0 / 7.0, 3.0 / 7.0, 2.75 / 7.0, 1.0]);
    // Median 3.75, quartiles 2 and 4.
    check(|frame| tabular::fit_robust(frame, &["f"]), &[-1.375, -0.875, 0.125, 0.0, 2.125]);
}

#[test]
fn categories_are_fitted_without_reading_values() {
    enter(|| {
        let city = Column::text([Some("Rome"), None, Some("Bern"), Some("Rome")])?;
        let code = Column::integer64(&[3, 1, 3, 2])?;
        let frame = Frame::of([("city", &city), ("code", &code)])?;
        let steps = Steps(vec![
            tabular::fit_impute_most_frequent(&frame, "city")?,
            tabular::fit_one_hot(&frame, "city")?,
            tabular::fit_encode(&frame, "code")?,
        ]);
        let again = Steps::parse(&serde_json::to_string(&steps).unwrap())?;
        assert_eq!(again, steps);
        let prepared = again.apply(&frame)?;
        let names: Vec<String> = prepared.columns().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["city=Bern", "city=Rome", "code"]);
        assert_eq!(prepared.column("city=Rome")?.read_numbers(0, 4)?, [1.0, 1.0, 0.0, 1.0]);
        assert_eq!(prepared.column("code")?.read_integers(0, 4)?, [Some(2), Some(0), Some(2), Some(1)]);
        Ok(())
    });
}

#[test]
fn steps_that_cannot_work_are_refused_by_number_and_name() {
    fn check(json: &str, words: &str) {
        let error = Steps::parse(json).unwrap_err();
        assert!(error.message().contains(words), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    check("{}", "the steps: ");
    check(r#"[{"op": "fly"}]"#, "unknown variant `fly`");
    check(r#"[{"op": "clip", "columns": ["a"], "low": 1}]"#, "missing field `high`");
    check(r#"[{"op": "keep", "columns": []}, {"op": "bucket", "columns": {"a": [2, 1]}}]"#, "step 2 (bucket): edges");
    check(r#"[{"op": "lookup", "column": "a", "categories": ["x"], "values": [], "otherwise": 0}]"#, "step 1 (lookup)");
    check(r#"[{"op": "encode", "column": "a", "categories": ["x", "x"], "otherwise": -1}]"#, "distinct");
}

/// Expected by scipy 1.17 and numpy 2.4 for `a = 0..10`, `b = a ** 2`.
#[test]
fn statistics_are_the_hosts() {
    enter(|| {
        let values: Vec<f64> = (0..10).map(f64::from).collect();
        let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
        let (a, b) = (Column::real64(&values)?, Column::real64(&squares)?);
        let pair = [Pair::new(&a, &b)];
        let ks = stats::kolmogorov_smirnov(&pair, Exactness::Automatic, Alternative::TwoSided, Absent::Refuse)?;
        let ks = ks[0].as_ref().unwrap();
        near(&[ks.statistic, ks.p_value], &[0.6, 0.05244755244755244]);
        assert!(ks.is_exact);
        let moved = stats::wasserstein(&pair, Absent::Refuse)?;
        near(&[moved[0].as_ref().unwrap().distance], &[24.0]);
        near(&stats::correlations(&[&a, &b], Correlation::Spearman)?, &[1.0; 4]);
        let quantiles = stats::quantiles(&[&b], &[0.0, 0.25, 0.5], Absent::Refuse)?;
        near(quantiles[0].as_ref().unwrap(), &[0.0, 5.25, 20.5]);
        let chi = stats::chi_square(&[vec![vec![10.0, 20.0], vec![30.0, 5.0]]], true)?;
        near(&[chi[0].as_ref().unwrap().statistic], &[16.578_482_142_857_14]);
        Ok(())
    });
}

#[test]
fn what_cannot_be_judged_says_why_in_a_word() {
    enter(|| {
        let (scores, ones) = (Column::real64(&[0.1, 0.9])?, Column::integer32(&[1, 1])?);
        let fault = |answers: Vec<stats::Outcome<f64>>| answers[0].as_ref().unwrap_err().fault;
        assert_eq!(fault(stats::area_under_curve(&ones, &[&scores], None)?), Some(Fault::SingleClass));
        let short = Column::integer32(&[1])?;
        assert_eq!(fault(stats::area_under_curve(&short, &[&scores], None)?), Some(Fault::LengthMismatch));
        let plan = Resampling { resamples: 10, level: 0.9, seed: 1 };
        let labels = Column::byte(&[0, 2])?;
        let answers = stats::bootstrap(Estimate::AreaUnderCurve, &labels, &[&scores], None, &plan)?;
        assert_eq!(answers[0].as_ref().unwrap_err().fault, Some(Fault::NotBinary));
        Ok(())
    });
}

#[test]
fn columns_keep_their_types_and_refuse_what_does_not_fit() {
    enter(|| {
        let marked = Column::integer64_with(&[1, 2, 3], &[true, false, true])?;
        assert_eq!((marked.value_type(), marked.len(), marked.missing()), (ValueType::Integer64, 3, 1));
        assert_eq!(marked.read_integers(0, 3)?, [Some(1), None, Some(3)]);
        assert_eq!(Column::real64_with(&[1.0], &[]).unwrap().missing(), 0);
        let error = Column::real64_with(&[1.0, 2.0], &[true]).unwrap_err();
        assert!(error.message().contains("2 values and 1 marks"), "{error}");
        let error = Frame::of([("a", &marked), ("a", &marked)]).unwrap_err();
        assert!(error.message().contains("two columns are named `a`"), "{error}");
        Ok(())
    });
}
