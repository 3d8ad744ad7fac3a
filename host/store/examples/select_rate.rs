//! How fast the index answers: prints one line per question, best and median of several rounds.
//!
//! `cargo run -p mainstay-store --example select_rate [documents]`

use std::time::Instant;

use mainstay_base::{Random, SeededRandom};
use mainstay_store::index::{Comparison, FieldWrite, FilterNode, IndexSet, OrderKey, Query, Term};
use mainstay_store::value::Value;

const ROUNDS: usize = 15;
const METRICS: usize = 20;
const PARAMETERS: usize = 10;
const TAGS: usize = 10;

fn main() {
    let documents = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000);
    for documents in [2_000, documents] {
        println!("{documents} documents of {} fields", METRICS + PARAMETERS + TAGS);
        let started = Instant::now();
        let set = fill(documents);
        let per_field = started.elapsed() / (documents * (METRICS + PARAMETERS + TAGS)) as u32;
        println!("  written: {:.2?} in all, {per_field:?} a field", started.elapsed());
        for (what, query) in questions() {
            measure(&set, what, &query);
        }
    }
}

fn fill(documents: usize) -> IndexSet<&'static str> {
    let random = SeededRandom::new(1);
    let mut set = IndexSet::default();
    for n in 0..documents {
        let id = format!("{:016x}{:016x}", random.number(), random.number());
        set.apply_set(&"space", "runs", &id, &document(&random, n));
    }
    set
}

fn document(random: &SeededRandom, n: usize) -> Vec<FieldWrite> {
    let share = || random.number() as f64 / u64::MAX as f64;
    let plain = |name: String, value| FieldWrite { name, value: Some(value), rank: None };
    let mut fields = Vec::new();
    for at in 0..METRICS {
        let value = if random.number().is_multiple_of(100) { f64::NAN } else { share() };
        fields.push(FieldWrite {
            name: format!("metric.m{at:02}"),
            value: Some(Value::Real(value)),
            rank: Some((n as i64, 1_700_000_000_000 + n as i64)),
        });
    }
    for at in 0..PARAMETERS {
        fields.push(plain(format!("param.p{at:02}"), Value::Text(format!("value {}", random.number() % 50))));
    }
    fields.push(plain("start".into(), Value::Integer(n as i64)));
    fields.push(plain("status".into(), Value::Text(["running", "finished", "failed"][n % 3].into())));
    fields.push(plain("name".into(), Value::Text(format!("delicate-lamb-{}", random.number() % 1_000_000))));
    for at in 3..TAGS {
        fields.push(plain(format!("tag.t{at:02}"), Value::Text(format!("a tag's value, {}", random.number() % 200))));
    }
    fields
}

fn questions() -> Vec<(&'static str, Query)> {
    let term = |field: &str, comparison, operand| FilterNode::Term(Term { field: field.into(), comparison, operand });
    let order = |field: &str, descending| vec![OrderKey { field: field.into(), descending }];
    let half = || term("metric.m00", Comparison::Greater, Value::Real(0.5));
    let query = |filter, order, limit, fields| Query { filter, order, after: None, limit, fields };
    vec![
        (
            "numeric term, order by another, page of 100, all fields",
            query(vec![half()], order("metric.m01", true), 100, None),
        ),
        ("the same, ids only", query(vec![half()], order("metric.m01", true), 100, Some(vec![]))),
        ("everything, in order of id, page of 100", query(vec![], vec![], 100, None)),
        ("everything, by start, page of 1,000, all fields", query(vec![], order("start", true), 1_000, None)),
        ("numeric term, page of 1,000, all fields", query(vec![half()], order("start", true), 1_000, None)),
        (
            "status equal, order by status (all tied), page of 100",
            query(
                vec![term("status", Comparison::Equal, Value::Text("finished".into()))],
                order("status", false),
                100,
                None,
            ),
        ),
        ("order by a text of many values, page of 100", query(vec![], order("name", false), 100, None)),
        (
            "LIKE on a text of many values, page of 100",
            query(vec![term("name", Comparison::Like, Value::Text("%lamb-99%".into()))], vec![], 100, None),
        ),
        (
            "three terms and two keys, page of 100",
            query(
                vec![
                    half(),
                    term("param.p01", Comparison::Ilike, Value::Text("VALUE 1%".into())),
                    term("status", Comparison::NotEqual, Value::Text("failed".into())),
                    FilterNode::All(3),
                ],
                [order("param.p02", false), order("metric.m03", true)].concat(),
                100,
                None,
            ),
        ),
    ]
}

fn measure(set: &IndexSet<&'static str>, what: &str, query: &Query) {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            let selection = set.select(&"space", "runs", query).expect("the query is well formed");
            (started.elapsed(), selection.matched, selection.documents.len())
        })
        .collect();
    times.sort();
    let (best, matched, bytes) = times[0];
    println!("  {what}: best {best:.2?}, median {:.2?} ({matched} match, {bytes} bytes)", times[ROUNDS / 2].0);
}
