//! The plugin in a host in memory.

use fallback_rule::{ROWS_MAX, Rules};
use mainstay_sdk::fallback::{Fallback, Reply};
use mainstay_sdk::tensors::{Parameter, Tensor};
use mainstay_sdk::testing::{AskOf, Host};
use mainstay_sdk::{ErrorKind, Result};
use serde_json::{Value, json};

fn host(datatype: &str, row: &str) -> Host {
    let outputs = json!([{"name": "y", "datatype": datatype, "row": row}]);
    Host::new().config(json!({"rules": [{"endpoint": "shop", "outputs": outputs}]}))
}

fn inputs() -> Vec<Tensor> {
    vec![
        Tensor::fp32("amount", &[2], &[1500.0, 20.0]).unwrap(),
        Tensor::int64("age", &[2, 1], &[17, 40]).unwrap(),
        Tensor::texts("country", &[2], ["DE", "FR"]).unwrap(),
        Tensor::fp64("history", &[2, 3], &[1., 2., 3., 4., 5., 6.]).unwrap(),
    ]
}

fn answer(datatype: &str, row: &str) -> Result<Reply> {
    let ask = AskOf::new("shop", inputs()).parameter("limit", Parameter::Integer(18)).why("breaker-open");
    host(datatype, row).answer_instead::<Rules>(&ask)
}

#[test]
fn expressions_are_computed_for_each_row() {
    fn check(datatype: &str, row: &str, expect: Tensor) {
        let reply = answer(datatype, row).unwrap_or_else(|error| panic!("{row}: {error}"));
        assert_eq!((reply.label(), reply.outputs()), ("rule", &[expect][..]), "{row}");
    }
    check("FP32", "row.amount > 1000.0 ? 0.9 : 0.1", Tensor::fp32("y", &[2], &[0.9, 0.1]).unwrap());
    check("INT64", "row.age < parameters.limit ? 1 : 0", Tensor::int64("y", &[2], &[1, 0]).unwrap());
    check(
        "BYTES",
        "row.country == 'DE' ? 'review' : why",
        Tensor::texts("y", &[2], ["review", "breaker-open"]).unwrap(),
    );
    check("FP64", "row.history[2] * 2.0", Tensor::fp64("y", &[2], &[6.0, 12.0]).unwrap());
    check("FP64", "[1.0, row.history[0]]", Tensor::fp64("y", &[2, 2], &[1., 1., 1., 4.]).unwrap());
    check("INT64", "row.country in ['DE', 'AT'] ? 1 : 0", Tensor::int64("y", &[2], &[1, 0]).unwrap());
    check("INT64", "has(row.income) ? 1 : 2", Tensor::int64("y", &[2], &[2, 2]).unwrap());
    check("BYTES", "endpoint + '/' + tenant", Tensor::texts("y", &[2], ["shop/default"; 2]).unwrap());
}

#[test]
fn a_rule_that_says_nothing_is_no_answer() {
    fn check(datatype: &str, row: &str, expect: ErrorKind) {
        assert_eq!(answer(datatype, row).unwrap_err().kind(), expect, "{row}");
    }
    check("FP32", "row.amount > 1000.0 ? 0.9 : null", ErrorKind::NotFound);
    check("FP32", "row.unknown", ErrorKind::NotFound);
    check("FP32", "1 / 0", ErrorKind::NotFound);
    check("FP32", "{'a': 1}", ErrorKind::NotFound);
    check("FP32", "row.age > 18 ? [1.0] : [1.0, 2.0]", ErrorKind::Invalid);
    check("INT8", "200", ErrorKind::Invalid);
    let other = host("FP32", "1.0").answer_instead::<Rules>(&AskOf::new("other", inputs()));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn expressions_that_cannot_be_read_are_found_when_the_plugin_starts() {
    fn check(row: &str, fits: bool) {
        let host = host("FP32", row);
        let started = host.enter(|| Rules::start(None));
        assert_eq!(started.is_ok(), fits, "{row}: {started:?}");
        if let Err(error) = started {
            assert!(error.kind() == ErrorKind::Invalid && error.message().contains("`y`"), "{error}");
        }
    }
    check("1.0 + 2.0", true);
    check("1.0 +", false);
    check("row.amount >", false);
    check(&format!("{}1{}", "(".repeat(32), ")".repeat(32)), true);
    check(&format!("{}1{}", "(".repeat(33), ")".repeat(33)), false);
    check(&format!("\"{}\"", "x".repeat(4094)), true);
    check(&format!("\"{}\"", "x".repeat(4095)), false);
}

#[test]
fn rows_are_bounded() {
    fn check(rows: usize, fits: bool) {
        let flags = Tensor::new("x", mainstay_sdk::tensors::Datatype::Int8, &[rows as u64], vec![1; rows]).unwrap();
        let answered = host("INT8", "row.x").answer_instead::<Rules>(&AskOf::new("shop", vec![flags]));
        assert_eq!(answered.is_ok(), fits, "{rows}: {answered:?}");
    }
    check(ROWS_MAX, true);
    check(ROWS_MAX + 1, false);
}

#[test]
fn the_first_rule_that_fits_is_taken_and_lacks_nothing_that_is_wanted() {
    let rule = |endpoint: Value, value: &str| {
        let mut rule = json!({"outputs": [{"name": "y", "datatype": "INT64", "row": value}]});
        if !endpoint.is_null() {
            rule["endpoint"] = endpoint;
        }
        rule
    };
    let host = Host::new().config(json!({"rules": [rule(json!("shop"), "1"), rule(json!(null), "2")]}));
    let value = |ask: &AskOf| host.answer_instead::<Rules>(ask).map(|reply| reply.outputs()[0].numbers().unwrap()[0]);
    assert_eq!(value(&AskOf::new("shop", inputs())), Ok(1.0));
    assert_eq!(value(&AskOf::new("else", inputs())), Ok(2.0));
    assert_eq!(value(&AskOf::new("shop", inputs()).wanted("z")).unwrap_err().kind(), ErrorKind::NotFound);
}
