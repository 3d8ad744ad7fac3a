//! How well predictions agree with what became true of them.
//!
//! Owns one job: the area under the curve of a log's output against an outcome, with a bootstrap interval. Rows are joined and
//! judged in the host by handle. Bounded by: the limit `array-mib` and the tables' windows. On failure: a log that is not there
//! or a parameter that makes no sense fails the run for good; what cannot be judged yet is a result that says why.

use mainstay_sdk::columns::{Column, Frame};
use mainstay_sdk::stats::{self, Estimate, Outcome, Resampling};
use mainstay_sdk::tables::{self, AsOf};
use mainstay_sdk::worker::Attempt;
use mainstay_sdk::{Error, Result, Worker, clock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The plugin.
pub struct Evaluation;

mainstay_sdk::export_worker!(Evaluation);

const HOUR_US: i64 = 3_600_000_000;
const RESAMPLES_MAX: u32 = 10_000;
/// The bootstrap's numbers are the same each time, so that the same rows give the same interval.
const SEED: u64 = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    log: String,
    #[serde(default = "score")]
    output: String,
    #[serde(default = "label")]
    outcome: String,
    hours: Option<u32>,
    #[serde(default = "resamples")]
    resamples: u32,
}

fn score() -> String {
    "score".to_owned()
}

fn label() -> String {
    "label".to_owned()
}

fn resamples() -> u32 {
    200
}

/// What came out of it.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(Deserialize, PartialEq))]
struct Report {
    predictions: u64,
    labelled: u64,
    auc: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reason: Option<String>,
}

impl Worker for Evaluation {
    fn on_job(attempt: &Attempt) -> Result<Value> {
        let parameters: Parameters = attempt.parameters()?;
        let report = evaluate(&parameters)?;
        let auc = report.auc.map_or_else(|| "none".to_owned(), |auc| auc.to_string());
        attempt.log(format!("{} predictions, {} labelled, auc {auc}", report.predictions, report.labelled));
        serde_json::to_value(report).map_err(|error| Error::internal(format!("the report is no JSON: {error}")))
    }
}

fn evaluate(parameters: &Parameters) -> Result<Report> {
    if parameters.resamples > RESAMPLES_MAX {
        let asked = parameters.resamples;
        return Err(Error::invalid(format!("{asked} resamples; at most {RESAMPLES_MAX} are made")));
    }
    // The present millisecond included.
    let now_us = (clock::now_ms() + 1) * 1_000;
    let from_us = parameters.hours.map_or(i64::MIN, |hours| now_us - i64::from(hours) * HOUR_US);
    let output = format!("output_{}", parameters.output);
    let predictions =
        tables::window(&format!("{}_predictions", parameters.log), &["time", "id", &output], from_us, now_us)?;
    let outcomes = tables::window(
        &format!("{}_outcomes", parameters.log),
        &["time", "id", "name", "value", "received"],
        i64::MIN,
        i64::MAX,
    )?;
    let rows = predictions.rows();
    if rows == 0 {
        return Ok(Report { reason: Some("no prediction lies in the window".to_owned()), ..Report::default() });
    }
    let joined = with_outcome(&predictions, &output, &outcomes, &parameters.outcome)?;
    let (labels, scores) = (joined.column("value")?, joined.column(&output)?);
    let labelled = rows - labels.missing();
    judge(&labels, &scores, Report { predictions: rows, labelled, ..Report::default() }, parameters.resamples)
}

/// Each prediction at the end of time: its newest outcome of that name, of those of one time the one received last.
fn with_outcome(predictions: &Frame, output: &str, outcomes: &Frame, name: &str) -> Result<Frame> {
    let rows = predictions.rows() as usize;
    let end = Column::integer64(&vec![i64::MAX; rows])?;
    let names = Column::text(std::iter::repeat_n(Some(name), rows))?;
    let left = Frame::of([
        ("id", &predictions.column("id")?),
        ("name", &names),
        ("end", &end),
        (output, &predictions.column(output)?),
    ])?;
    AsOf::new(["id", "name"], "end", "time").recorded("received", false).join(&left, outcomes)
}

fn judge(labels: &Column, scores: &Column, report: Report, resamples: u32) -> Result<Report> {
    if report.labelled == 0 {
        return Ok(Report { reason: Some("no label has come yet".to_owned()), ..report });
    }
    // A prediction whose label has not come yet has no weight; what stands for the label then does not matter.
    let known = labels.absent()?.affine(1.0, -1.0)?;
    let auc = match only(stats::area_under_curve(&labels.fill(0.0)?, &[scores], Some(&known))?) {
        Ok(auc) => auc,
        Err(why) => return Ok(Report { reason: Some(why), ..report }),
    };
    if resamples == 0 {
        return Ok(Report { auc: Some(auc), ..report });
    }
    if report.labelled < report.predictions {
        let waiting = report.predictions - report.labelled;
        let reason = format!("{waiting} labels have not come yet, and the interval needs all of the window");
        return Ok(Report { auc: Some(auc), reason: Some(reason), ..report });
    }
    let resampling = Resampling { resamples, level: 0.95, seed: SEED };
    let interval = only(stats::bootstrap(Estimate::AreaUnderCurve, labels, &[scores], None, &resampling)?);
    Ok(match interval {
        Ok(interval) => Report { auc: Some(auc), low: Some(interval.low), high: Some(interval.high), ..report },
        Err(why) => Report { auc: Some(auc), reason: Some(why), ..report },
    })
}

fn only<T>(answers: Vec<Outcome<T>>) -> Result<T, String> {
    let first = answers.into_iter().next();
    first.map_or_else(
        || Err("the host gave no answer".to_owned()),
        |found| found.map_err(|why| why.error.message().to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_sdk::ErrorKind;
    use mainstay_sdk::tables::{Kind, Schema};
    use mainstay_sdk::testing::{Host, START_MS};
    use serde_json::json;

    const START_US: i64 = START_MS * 1_000;

    fn predictions(host: &Host, scores: &[f64]) {
        let schema = Schema::new("time").column("id", Kind::Text).nullable("output_score", Kind::Real64);
        host.enter(|| {
            let ids: Vec<String> = (0..scores.len()).map(|at| format!("p{at}")).collect();
            let times: Vec<i64> = (0..scores.len() as i64).map(|at| START_US - at * HOUR_US).collect();
            let rows = Frame::of([
                ("time", &Column::integer64(&times)?),
                ("id", &Column::text(ids.iter().cloned().map(Some))?),
                ("output_score", &Column::real64(scores)?),
            ])?;
            host.fill_table("shop_predictions", &schema, &rows);
            Ok::<(), Error>(())
        })
        .unwrap();
    }

    /// Rows of id, name, value and time, each received behind the one before.
    fn outcomes(host: &Host, rows: &[(&str, &str, f64, i64)]) {
        let schema = Schema::new("time")
            .column("id", Kind::Text)
            .column("name", Kind::Text)
            .nullable("value", Kind::Real64)
            .column("received", Kind::Integer64);
        host.enter(|| {
            let frame = Frame::of([
                ("time", &Column::integer64(&rows.iter().map(|row| START_US + row.3).collect::<Vec<_>>())?),
                ("id", &Column::text(rows.iter().map(|row| Some(row.0)))?),
                ("name", &Column::text(rows.iter().map(|row| Some(row.1)))?),
                ("value", &Column::real64(&rows.iter().map(|row| row.2).collect::<Vec<_>>())?),
                ("received", &Column::integer64(&(0..rows.len() as i64).collect::<Vec<_>>())?),
            ])?;
            host.fill_table("shop_outcomes", &schema, &frame);
            Ok::<(), Error>(())
        })
        .unwrap();
    }

    fn run(host: &Host, parameters: Value) -> Result<Report> {
        host.run_job::<Evaluation>("auc", &parameters).map(|report| serde_json::from_value(report).unwrap())
    }

    #[test]
    fn outcomes_count_once_though_late_repeated_and_out_of_order() {
        let host = Host::new();
        predictions(&host, &[0.1, 0.4, 0.35, 0.8]);
        // scikit-learn's documented example: roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.75.
        outcomes(
            &host,
            &[
                ("p3", "label", 1.0, 5),
                ("p0", "label", 1.0, 1),
                ("p1", "label", 0.0, 1),
                ("p0", "label", 0.0, 2),
                ("p2", "label", 1.0, 3),
                ("p2", "label", 1.0, 3),
                ("p1", "clicks", 7.0, 9),
                ("p9", "label", 1.0, 1),
            ],
        );
        let report = run(&host, json!({"log": "shop", "resamples": 0})).unwrap();
        assert_eq!(report, Report { predictions: 4, labelled: 4, auc: Some(0.75), ..Report::default() });
        let report = run(&host, json!({"log": "shop", "hours": 3, "resamples": 50})).unwrap();
        assert_eq!((report.predictions, report.labelled), (3, 3), "three hours hold three of them");
        assert!(report.low <= report.auc && report.auc <= report.high, "{report:?}");
    }

    #[test]
    fn what_cannot_be_judged_yet_is_a_result_that_says_why() {
        let host = Host::new();
        // scikit-learn: roc_auc_score([0, 1, 1], [0.1, 0.4, 0.05]) is 0.5.
        predictions(&host, &[0.1, 0.4, 0.05, 0.7]);
        let check = |rows: &[(&str, &str, f64, i64)], labelled: u64, auc: Option<f64>, reason: &str| {
            outcomes(&host, rows);
            let report = run(&host, json!({"log": "shop"})).unwrap();
            assert_eq!((report.labelled, report.auc), (labelled, auc), "{report:?}");
            assert!(report.reason.as_ref().unwrap().contains(reason), "{report:?}");
        };
        check(&[("p9", "label", 1.0, 1)], 0, None, "no label has come yet");
        check(&[("p0", "label", 0.0, 1)], 1, None, "single_class");
        check(&[("p1", "label", 1.0, 1), ("p2", "label", 1.0, 1)], 3, Some(0.5), "1 labels have not come yet");
    }

    #[test]
    fn what_makes_no_sense_fails_for_good() {
        fn check(parameters: Value, expect: ErrorKind) {
            assert_eq!(run(&Host::new(), parameters).unwrap_err().kind(), expect);
        }
        check(json!({"log": "shop"}), ErrorKind::NotFound);
        check(json!({}), ErrorKind::Invalid);
        check(json!({"log": "shop", "resamples": 20_000}), ErrorKind::Invalid);
    }
}
