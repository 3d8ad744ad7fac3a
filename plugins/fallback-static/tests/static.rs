//! The plugin in a host in memory.

use fallback_static::Static;
use mainstay_sdk::ErrorKind;
use mainstay_sdk::fallback::Reply;
use mainstay_sdk::tensors::Tensor;
use mainstay_sdk::testing::{AskOf, Host};
use serde_json::{Value, json};

fn ask(answers: Value, ask: &AskOf) -> mainstay_sdk::Result<Reply> {
    Host::new().config(json!({ "answers": answers })).answer_instead::<Static>(ask)
}

fn rows(count: u64) -> AskOf {
    AskOf::new("shop", vec![Tensor::int64("user", &[count], &vec![1; count as usize]).unwrap()])
}

#[test]
fn outputs_are_as_configured_by_row_or_whole() {
    fn check(output: Value, rows_asked: u64, expect: Tensor) {
        let reply = ask(json!([{"outputs": [output]}]), &rows(rows_asked)).unwrap();
        assert_eq!((reply.label(), reply.outputs()), ("static", &[expect][..]));
    }
    check(json!({"name": "p", "datatype": "FP32", "row": 0.5}), 2, Tensor::fp32("p", &[2], &[0.5, 0.5]).unwrap());
    check(
        json!({"name": "p", "datatype": "FP64", "row": [1, 2]}),
        2,
        Tensor::fp64("p", &[2, 2], &[1., 2., 1., 2.]).unwrap(),
    );
    check(
        json!({"name": "n", "datatype": "INT64", "value": [1, 2, 3]}),
        7,
        Tensor::int64("n", &[3], &[1, 2, 3]).unwrap(),
    );
    check(
        json!({"name": "i", "datatype": "BYTES", "value": ["pen", "ink"]}),
        1,
        Tensor::texts("i", &[2], ["pen", "ink"]).unwrap(),
    );
    check(json!({"name": "i", "datatype": "BYTES", "value": []}), 1, Tensor::texts("i", &[0], [""; 0]).unwrap());
    check(json!({"name": "n", "datatype": "INT64", "value": 4}), 1, Tensor::int64("n", &[], &[4]).unwrap());
}

#[test]
fn the_first_answer_that_fits_endpoint_and_reason_is_given() {
    let answer = |more: Value, value: i64| {
        let mut answer = json!({"outputs": [{"name": "n", "datatype": "INT64", "row": value}]});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answer
    };
    let answers = json!([
        answer(json!({"endpoint": "other"}), 1),
        answer(json!({"endpoint": "shop", "why": ["overloaded", "rate-limited"]}), 2),
        answer(json!({"endpoint": "shop"}), 3),
    ]);
    let got = |asked: AskOf| ask(answers.clone(), &asked).map(|reply| reply.outputs()[0].clone());
    let is = |value| Ok(Tensor::int64("n", &[1], &[value]).unwrap());
    assert_eq!(got(rows(1).why("overloaded")), is(2));
    assert_eq!(got(rows(1).why("failed")), is(3));
    assert_eq!(got(AskOf::new("third", vec![])).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_wanted_and_lacking_is_not_answered() {
    let answers = json!([{"outputs": [{"name": "a", "datatype": "INT64", "row": 1}, {"name": "b", "datatype": "INT64", "row": 2}]}]);
    let got = |name: &str| ask(answers.clone(), &rows(1).wanted(name)).map(|reply| reply.outputs().len());
    assert_eq!(got("b"), Ok(1));
    assert_eq!(got("c").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn values_that_do_not_fit_are_refused_with_their_place() {
    fn check(output: Value, rows_asked: u64, kind: ErrorKind) {
        let error = ask(json!([{"outputs": [output]}]), &rows(rows_asked)).unwrap_err();
        assert!(error.kind() == kind && (error.message().contains("`p`") || kind == ErrorKind::Exhausted), "{error}");
    }
    check(json!({"name": "p", "datatype": "INT8", "row": 128}), 1, ErrorKind::Invalid);
    check(json!({"name": "p", "datatype": "INT8", "row": "one"}), 1, ErrorKind::Invalid);
    check(json!({"name": "p", "datatype": "FP32", "row": null}), 1, ErrorKind::Invalid);
    check(json!({"name": "p", "datatype": "FP32", "row": [[1], [1, 2]]}), 1, ErrorKind::Invalid);
    check(json!({"name": "p", "datatype": "FP32", "row": [1, [2]]}), 1, ErrorKind::Invalid);
    check(json!({"name": "p", "datatype": "FP64", "row": 1}), 8_193, ErrorKind::Exhausted);
    assert!(ask(json!([{"outputs": [{"name": "p", "datatype": "FP64", "row": 1}]}]), &rows(8_192)).is_ok());
}
