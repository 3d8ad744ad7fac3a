//! Population stability index of many columns in one call.
//!
//! Owns nothing but an example of the numeric interfaces: columns made from a request, one question to the host for all of
//! them, a verdict for each. It holds the right to compute and not the right to read values back. Bounded by: the route's
//! body and the limit `array-mib`. On failure: a column that cannot be judged says why beside the others.

use mainstay_sdk::columns::Column;
use mainstay_sdk::http::{Params, Reply, Request, Route, Router};
use mainstay_sdk::stats::{self, Binning, Outcome, Pair};
use mainstay_sdk::{Api, Error, Result, config};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The plugin.
pub struct Psi;

#[derive(Deserialize)]
struct Config {
    bins: u32,
    watch: f64,
    drift: f64,
}

/// Columns by name; null is a missing value.
type Columns = BTreeMap<String, Vec<Option<f64>>>;

#[derive(Deserialize)]
struct Question {
    reference: Columns,
    current: Columns,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, PartialEq, Debug))]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Stable,
    Watch,
    Drift,
    Inconclusive,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize))]
struct Answer {
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

const ROUTES: Router = Router::new(&[Route::post("/psi", judge)]);

fn judge(request: &Request, _: &Params) -> Result<Reply> {
    let Question { reference, current } = request.json()?;
    let config: Config = config::get()?;
    let names: Vec<&String> = reference.keys().collect();
    if let Some(missing) = names.iter().find(|name| !current.contains_key(**name)) {
        return Err(Error::invalid(format!("`current` has no column `{missing}`, which `reference` has")));
    }
    let columns = |of: &Columns| names.iter().map(|name| column(&of[*name])).collect::<Result<Vec<_>>>();
    let (reference, current) = (columns(&reference)?, columns(&current)?);
    let pairs: Vec<Pair> = reference.iter().zip(&current).map(|(one, other)| Pair::new(one, other)).collect();
    // However many columns there are, this is one call into the host.
    let divergences = stats::binned_divergence(&pairs, &Binning::quantiles(config.bins))?;
    let answers = divergences.into_iter().map(|found| answer(&config, found.map(|found| found.jeffreys)));
    Reply::json(&names.into_iter().zip(answers).collect::<BTreeMap<_, _>>())
}

fn column(values: &[Option<f64>]) -> Result<Column> {
    Column::real64(&values.iter().map(|value| value.unwrap_or(f64::NAN)).collect::<Vec<_>>())
}

fn answer(config: &Config, found: Outcome<f64>) -> Answer {
    match found {
        Err(why) => Answer { verdict: Verdict::Inconclusive, psi: None, reason: Some(why.error.message().to_owned()) },
        Ok(psi) => {
            let verdict = match psi {
                psi if psi > config.drift => Verdict::Drift,
                psi if psi > config.watch => Verdict::Watch,
                _ => Verdict::Stable,
            };
            Answer { verdict, psi: Some(psi), reason: None }
        }
    }
}

impl Api for Psi {
    fn handle(request: &Request) -> Result<Reply> {
        ROUTES.handle(request)
    }
}

mainstay_sdk::export_api!(Psi);

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_sdk::testing::Host;
    use serde_json::{Value, json};

    fn host() -> Host {
        Host::new().config(json!({"bins": 10, "watch": 0.1, "drift": 0.2}))
    }

    fn ask(question: &Value) -> BTreeMap<String, Answer> {
        host().call::<Psi>(Request::post("/psi").json(question)).json()
    }

    #[test]
    fn two_hundred_columns_are_one_question() {
        // Column n of the current side is moved by n thousandths of the range.
        let column = |moved: usize| (0..1000).map(|at| Some((at + moved) as f64)).collect::<Vec<_>>();
        let all = |factor: usize| (0..200).map(|n| (format!("c{n:03}"), column(n * factor))).collect::<Columns>();
        let answers = ask(&json!({"reference": all(0), "current": all(1)}));
        assert_eq!(answers.len(), 200);
        let verdict = |name: &str| &answers[name].verdict;
        assert_eq!((verdict("c000"), verdict("c199")), (&Verdict::Stable, &Verdict::Drift));
        // One bin empties into its neighbour: (1e-4 - 0.1) ln(1e-4 / 0.1) + (0.2 - 0.1) ln(0.2 / 0.1).
        assert!((answers["c100"].psi.unwrap() - 0.7594) < 1e-3, "{:?}", answers["c100"].psi);
    }

    #[test]
    fn what_cannot_be_judged_says_why_beside_the_others() {
        let answers = ask(&json!({
            "reference": {"a": [1, 1, 1], "b": [1, 2, 3, null], "c": []},
            "current": {"a": [1, 2, 3], "b": [1, 2, 3], "c": [1]},
        }));
        assert_eq!(answers["a"].verdict, Verdict::Inconclusive);
        assert!(answers["a"].reason.as_ref().unwrap().starts_with("constant_reference:"));
        assert!(answers["c"].reason.as_ref().unwrap().starts_with("empty_input:"));
        assert_eq!(answers["b"].verdict, Verdict::Stable);
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let answer = host().call::<Psi>(Request::post("/psi").json(&json!({"reference": {"a": [1]}, "current": {}})));
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("no column `a`"), "{}", answer.text());
    }
}
