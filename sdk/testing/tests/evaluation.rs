//! The standard worker, packed, in a real host: a job reads a log of predictions by handle and judges it.

use mainstay_predictions::{Field, FieldKind, Log, LogSpec, Outcome, Prediction, Predictions, Scalar};
use mainstay_testing::{Install, START_MS, TestHost};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// What `cargo xtask plugins` packed.
fn package() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../registry-data/packages/evaluation-0.1.0.mainstay");
    assert!(path.exists(), "{} is not there: run `cargo xtask plugins` first", path.display());
    path
}

/// scikit-learn's documented example: `roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])` is 0.75.
const SCORES: [f64; 4] = [0.1, 0.4, 0.35, 0.8];

fn log(host: &TestHost) -> Arc<Log> {
    let services = host.services();
    let logs = Predictions::new(services.tables.clone(), services.clock.clone());
    let spec = LogSpec { outputs: vec![Field::new("score", FieldKind::Real)], ..LogSpec::default() };
    let log = logs.apply("shop", &spec).unwrap();
    let rows: Vec<Prediction> = SCORES
        .iter()
        .enumerate()
        .map(|(at, score)| Prediction {
            id: format!("p{at}"),
            outputs: [("score".to_owned(), Scalar::Real(*score))].into(),
            ..Prediction::default()
        })
        .collect();
    futures::executor::block_on(log.post(&rows, None)).unwrap();
    log
}

fn outcome(id: &str, value: f64, behind_us: i64) -> Outcome {
    let time_us = Some(START_MS * 1_000 + behind_us);
    Outcome { id: id.to_owned(), name: "label".to_owned(), value: Some(value), text: None, time_us }
}

#[test]
fn a_job_judges_a_log_by_its_labels() {
    let host = TestHost::new().install(package()).unwrap();
    let log = log(&host);
    let parameters = json!({"log": "shop", "resamples": 0});
    let early = host.run_job("evaluation", parameters.clone()).unwrap();
    assert_eq!((&early["labelled"], &early["auc"]), (&json!(0), &Value::Null), "{early}");
    // Late, out of order, twice, and one corrected.
    let rows = [("p3", 1.0, 9), ("p0", 1.0, 1), ("p1", 0.0, 1), ("p0", 0.0, 2), ("p2", 1.0, 3), ("p2", 1.0, 3)];
    let rows: Vec<Outcome> = rows.iter().map(|(id, value, behind)| outcome(id, *value, *behind)).collect();
    futures::executor::block_on(log.post_outcomes(&rows, None)).unwrap();
    host.services().tables.table("shop_predictions").unwrap().compact(START_MS).unwrap();
    let report = host.run_job("evaluation", parameters).unwrap();
    assert_eq!(report, json!({"predictions": 4, "labelled": 4, "auc": 0.75, "low": null, "high": null}));
}

#[test]
fn without_the_right_to_rows_it_is_told_which_one_it_lacks() {
    let nothing = Install { grants: Some(vec!["arrays".to_owned()]), ..Install::default() };
    let host = TestHost::new().install_with(package(), nothing).unwrap();
    log(&host);
    let error = host.run_job("evaluation", json!({"log": "shop"})).unwrap_err();
    assert!(error.to_string().contains("tables."), "{error}");
}
