//! Search over runs: what the grammar means, and a property that holds it against a naive evaluator.

use crate::{Server, column};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

fn names(server: &Server, body: Value) -> Vec<String> {
    let mut all = json!({"experiment_ids": ["0"]});
    all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let found = server.post("runs/search", all);
    column(&found["runs"], &["info", "run_name"]).iter().map(|n| n.as_str().unwrap().to_owned()).collect()
}

#[test]
fn filters_and_orders() {
    let server = Server::new();
    let mut ids = BTreeMap::new();
    for (at, name) in ["a", "b", "c", "d"].iter().enumerate() {
        let run = server
            .run_with(json!({"experiment_id": "0", "start_time": 10 + at, "run_name": name, "user_id": "Ada",
            "tags": [{"key": "sp ace.d", "value": format!("v{at}")}]}));
        ids.insert(*name, run);
    }
    let metric = |run: &str, value: Value| {
        server.post("runs/log-metric", json!({"run_id": ids[run], "key": "m", "value": value, "timestamp": 1}))
    };
    metric("a", json!(1));
    metric("b", json!("NaN"));
    metric("c", json!(-2.5));
    server.post("runs/log-parameter", json!({"run_id": ids["a"], "key": "p", "value": "10"}));
    server.post("runs/log-parameter", json!({"run_id": ids["b"], "key": "p", "value": "9"}));
    server.post("runs/update", json!({"run_id": ids["c"], "status": "FAILED", "end_time": 99}));
    let dataset = |name: &str, digest: &str, context: &str| {
        json!({"dataset": {"name": name, "digest": digest, "source_type": "x", "source": ""},
        "tags": [{"key": "mlflow.data.context", "value": context}]})
    };
    server.post(
        "runs/log-inputs",
        json!({"run_id": ids["a"], "datasets": [dataset("one", "1", "train"), dataset("two", "2", "eval")]}),
    );
    server.post("runs/log-inputs", json!({"run_id": ids["b"], "datasets": [dataset("one", "9", "train")]}));

    let check =
        |filter: &str, expect: &[&str]| assert_eq!(names(&server, json!({"filter": filter})), expect, "{filter}");
    check("", &["d", "c", "b", "a"]);
    check("metrics.m > 0", &["a"]);
    check("metrics.m < 0 ", &["c"]);
    check("metrics.m != 1", &["c", "b"]);
    check("metrics.m >= -2.5 AND metrics.m <= 1", &["c", "a"]);
    check("metrics.none != 1", &[]);
    check("params.p = '10'", &["a"]);
    check("params.p != '10'", &["b"]);
    check("params.p IS NULL", &["d", "c"]);
    check("params.p IS NOT NULL", &["b", "a"]);
    check("params.p LIKE '1_'", &["a"]);
    check("tags.`sp ace.d` = 'v2'", &["c"]);
    check("tags.\"sp ace.d\" ILIKE 'V%'", &["d", "c", "b", "a"]);
    check("status = 'FAILED'", &["c"]);
    check("attributes.status != 'FAILED'", &["d", "b", "a"]);
    check("user_id = 'ada'", &[]);
    check("user_id ILIKE 'ada'", &["d", "c", "b", "a"]);
    check("run_name = 'b'", &["b"]);
    check("`Run name` LIKE '%'", &["d", "c", "b", "a"]);
    check("end_time > 0", &["c"]);
    check("start_time > 10 and created < 13", &["c", "b"]);
    check(&format!("run_id IN ('{}', '{}')", ids["a"], ids["d"]), &["d", "a"]);
    check(&format!("run_id NOT IN ('{}', '{}')", ids["a"], ids["d"]), &["c", "b"]);
    check(&format!("run_id = '{}'", ids["a"]), &["a"]);
    check("dataset.name = 'one'", &["b", "a"]);
    check("dataset.name = 'one' AND dataset.context = 'eval'", &["a"]);
    check("dataset.digest IN ('9', '2')", &["b", "a"]);
    check("dataset.name NOT IN ('one')", &["a"]);
    check("dataset.name != 'two'", &["b", "a"]);

    let order =
        |keys: &[&str], expect: &[&str]| assert_eq!(names(&server, json!({"order_by": keys})), expect, "{keys:?}");
    order(&["metrics.m"], &["c", "a", "b", "d"]);
    order(&["metrics.m DESC"], &["a", "c", "b", "d"]);
    order(&["params.p"], &["a", "b", "d", "c"]);
    order(&["params.p DESC"], &["b", "a", "d", "c"]);
    order(&["start_time ASC"], &["a", "b", "c", "d"]);
    order(&["attributes.end_time", "start_time"], &["c", "a", "b", "d"]);
    order(&["tags.`sp ace.d` desc"], &["d", "c", "b", "a"]);
    order(&["status DESC", "run_name ASC"], &["a", "b", "d", "c"]);
}

#[test]
fn scope_stage_and_pages() {
    let server = Server::new();
    let other = server.experiment("other");
    let runs: Vec<_> = (0..7)
        .map(|i| {
            server.run_with(
                json!({"experiment_id": if i < 5 { "0" } else { &other }, "start_time": i, "run_name": i.to_string()}),
            )
        })
        .collect();
    server.post("runs/delete", json!({"run_id": runs[0]}));
    assert_eq!(names(&server, json!({})), ["4", "3", "2", "1"]);
    assert_eq!(names(&server, json!({"run_view_type": "DELETED_ONLY"})), ["0"]);
    assert_eq!(names(&server, json!({"run_view_type": "ALL"})), ["4", "3", "2", "1", "0"]);
    assert_eq!(names(&server, json!({"experiment_ids": ["0", other], "filter": "start_time >= 4"})), ["6", "5", "4"]);
    assert_eq!(server.post("runs/search", json!({"experiment_ids": []})), json!({}));
    assert_eq!(server.post("runs/search", json!({})), json!({}));

    let page = |token: Value| {
        server.post("runs/search", json!({"experiment_ids": ["0"], "max_results": 2, "page_token": token}))
    };
    let first = page(json!(""));
    assert_eq!(column(&first["runs"], &["info", "run_name"]), ["4", "3"]);
    // A run that arrives before the next page is asked for neither repeats nor hides others.
    server.run_with(json!({"experiment_id": "0", "start_time": 9, "run_name": "new"}));
    let second = page(first["next_page_token"].clone());
    assert_eq!(column(&second["runs"], &["info", "run_name"]), ["2", "1"]);
    assert!(second.get("next_page_token").is_none());
    for (body, part) in [
        (json!({"experiment_ids": ["0"], "page_token": "x"}), "Invalid page token"),
        (json!({"experiment_ids": ["1"], "page_token": first["next_page_token"]}), "another search"),
        (json!({"experiment_ids": ["x"]}), "Experiment ID must be a valid integer"),
        (json!({"experiment_ids": ["0"], "order_by": ["metrics.a", "metrics.a"]}), "duplicate fields"),
        (
            json!({"experiment_ids": ["0"], "filter": "metrics.a > 1 OR metrics.b > 1"}),
            "Invalid clause(s) in filter string",
        ),
        (
            json!({"experiment_ids": ["0"], "max_results": 50_001}),
            "Invalid value 50001 for parameter 'max_results' supplied",
        ),
    ] {
        server.refuse("POST", "runs/search", body, 400, "INVALID_PARAMETER_VALUE", part);
    }
}

/// A run as the naive evaluator sees it.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    start_time: i64,
    metric: Option<f64>,
    param: Option<String>,
    tag: Option<String>,
}

/// A condition, in text and as a test.
#[derive(Clone, Debug)]
enum Clause {
    Metric(&'static str, f64),
    Param(&'static str, String),
    Tag(&'static str, String),
    TagNull(bool),
    Start(&'static str, i64),
}

impl Clause {
    fn text(&self) -> String {
        match self {
            Clause::Metric(op, value) => format!("metrics.`m x` {op} {value}"),
            Clause::Param(op, value) => format!("params.p {op} '{value}'"),
            Clause::Tag(op, value) => format!("tags.\"t\" {op} \"{value}\""),
            Clause::TagNull(true) => "tags.t IS NULL".into(),
            Clause::TagNull(false) => "tag.t is not null".into(),
            Clause::Start(op, value) => format!("attributes.start_time {op} {value}"),
        }
    }

    fn holds(&self, row: &Row) -> bool {
        let number = |have: f64, op: &str, want: f64| match op {
            "=" => have == want,
            "!=" => have != want,
            "<" => have < want,
            "<=" => have <= want,
            ">" => have > want,
            _ => have >= want,
        };
        let text = |have: &Option<String>, op: &str, want: &str| {
            have.as_ref().is_some_and(|have| match op {
                "=" => have == want,
                "!=" => have != want,
                "LIKE" => like(have, want),
                _ => like(&have.to_lowercase(), &want.to_lowercase()),
            })
        };
        match self {
            Clause::Metric(op, value) => row.metric.is_some_and(|have| number(have, op, *value)),
            Clause::Param(op, value) => text(&row.param, op, value),
            Clause::Tag(op, value) => text(&row.tag, op, value),
            Clause::TagNull(absent) => row.tag.is_none() == *absent,
            Clause::Start(op, value) => number(row.start_time as f64, op, *value as f64),
        }
    }
}

fn like(have: &str, pattern: &str) -> bool {
    let (mut have, mut pattern) = (have.chars(), pattern.chars());
    match pattern.next() {
        None => have.next().is_none(),
        Some('%') => {
            let rest = pattern.as_str();
            (0..=have.as_str().chars().count())
                .any(|skip| like(&have.as_str().chars().skip(skip).collect::<String>(), rest))
        }
        Some('_') => have.next().is_some() && like(have.as_str(), pattern.as_str()),
        Some(c) => have.next() == Some(c) && like(have.as_str(), pattern.as_str()),
    }
}

/// Values first, then NaN, then missing, whatever the direction.
fn by_metric(a: &Row, b: &Row, descending: bool) -> Ordering {
    let group = |row: &Row| match row.metric {
        Some(value) if value.is_nan() => 1,
        Some(_) => 0,
        None => 2,
    };
    let values = match (a.metric, b.metric) {
        (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        _ => Ordering::Equal,
    };
    group(a).cmp(&group(b)).then(if descending { values.reverse() } else { values })
}

fn by_param(a: &Row, b: &Row, descending: bool) -> Ordering {
    let values = match (&a.param, &b.param) {
        (Some(a), Some(b)) if descending => b.cmp(a),
        (Some(a), Some(b)) => a.cmp(b),
        _ => Ordering::Equal,
    };
    a.param.is_none().cmp(&b.param.is_none()).then(values)
}

fn row() -> impl Strategy<Value = (i64, Option<f64>, Option<String>, Option<String>)> {
    let metric = prop_oneof![Just(None), Just(Some(f64::NAN)), (-3i32..3).prop_map(|v| Some(f64::from(v) / 2.0))];
    let text = || proptest::option::of("[abA%_]{0,3}");
    (0i64..4, metric, text(), text())
}

fn clause() -> impl Strategy<Value = Clause> {
    let number_op = || prop::sample::select(&["=", "!=", "<", "<=", ">", ">="][..]);
    let text_op = || prop::sample::select(&["=", "!=", "LIKE", "ILIKE"][..]);
    prop_oneof![
        (number_op(), -3i32..3).prop_map(|(op, v)| Clause::Metric(op, f64::from(v) / 2.0)),
        (text_op(), "[abA%_]{0,3}").prop_map(|(op, v)| Clause::Param(op, v)),
        (text_op(), "[abA%_]{0,3}").prop_map(|(op, v)| Clause::Tag(op, v)),
        any::<bool>().prop_map(Clause::TagNull),
        (number_op(), 0i64..4).prop_map(|(op, v)| Clause::Start(op, v)),
    ]
}

#[test]
fn search_agrees_with_a_naive_evaluator() {
    let questions = prop::collection::vec((prop::collection::vec(clause(), 0..4), 0u8..5, 1usize..6), 8);
    let strategy = (prop::collection::vec(row(), 1..25), questions);
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |(rows, questions)| {
            let server = Server::new();
            let rows: Vec<Row> = rows.into_iter().enumerate().map(|(at, row)| store(&server, at, row)).collect();
            for (clauses, order, page) in &questions {
                ask(&server, &rows, clauses, *order, *page)?;
            }
            Ok(())
        })
        .unwrap();
}

fn store(
    server: &Server,
    at: usize,
    (start_time, metric, param, tag): (i64, Option<f64>, Option<String>, Option<String>),
) -> Row {
    let name = format!("run{at}");
    let run = server.run_with(json!({"experiment_id": "0", "start_time": start_time, "run_name": name}));
    let number = |value: f64| if value.is_nan() { json!("NaN") } else { json!(value) };
    let metrics: Vec<_> = metric.iter().map(|v| json!({"key": "m x", "value": number(*v), "timestamp": 1})).collect();
    let params: Vec<_> = param.iter().map(|v| json!({"key": "p", "value": v})).collect();
    let tags: Vec<_> = tag.iter().map(|v| json!({"key": "t", "value": v})).collect();
    server.post("runs/log-batch", json!({"run_id": run, "metrics": metrics, "params": params, "tags": tags}));
    Row { name: run, start_time, metric, param, tag }
}

fn ask(server: &Server, rows: &[Row], clauses: &[Clause], order: u8, page: usize) -> Result<(), TestCaseError> {
    let filter = clauses.iter().map(Clause::text).collect::<Vec<_>>().join(" AND ");
    type Compare = fn(&Row, &Row) -> Ordering;
    let (key, by): (Option<&str>, Compare) = match order {
        0 => (None, |_, _| Ordering::Equal),
        1 => (Some("metrics.`m x`"), |a, b| by_metric(a, b, false)),
        2 => (Some("metrics.`m x` DESC"), |a, b| by_metric(a, b, true)),
        3 => (Some("params.p ASC"), |a, b| by_param(a, b, false)),
        _ => (Some("params.p DESC"), |a, b| by_param(a, b, true)),
    };
    let mut expect: Vec<&Row> = rows.iter().filter(|row| clauses.iter().all(|clause| clause.holds(row))).collect();
    expect.sort_by(|a, b| by(a, b).then(b.start_time.cmp(&a.start_time)).then(a.name.cmp(&b.name)));
    let expect: Vec<&str> = expect.iter().map(|row| row.name.as_str()).collect();
    let (mut got, mut token) = (Vec::new(), json!(null));
    loop {
        let body = json!({"experiment_ids": ["0"], "filter": filter, "order_by": key.into_iter().collect::<Vec<_>>(),
            "max_results": page, "page_token": token});
        let found = server.post("runs/search", body);
        let ids = column(&found["runs"], &["info", "run_id"]);
        prop_assert!(ids.len() <= page);
        got.extend(ids.iter().map(|id| id.as_str().unwrap().to_owned()));
        match found.get("next_page_token") {
            Some(next) => token = next.clone(),
            None => break,
        }
    }
    prop_assert_eq!(got, expect, "{} order by {:?}", filter, key);
    Ok(())
}
