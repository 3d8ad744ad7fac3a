//! The plugin in a host in memory: what it learned is what it answers.

use fallback_cached::Cached;
use mainstay_sdk::ErrorKind;
use mainstay_sdk::fallback::{Lesson, Reply};
use mainstay_sdk::tensors::{Parameter, Tensor};
use mainstay_sdk::testing::{AskOf, Host, START_MS};
use serde_json::json;

fn users(ids: &[i64]) -> Tensor {
    Tensor::int64("user", &[ids.len() as u64], ids).unwrap()
}

fn items(rows: &[&str]) -> Tensor {
    Tensor::texts("item", &[rows.len() as u64], rows).unwrap()
}

fn lesson(ids: &[i64], answered: &[&str]) -> Lesson {
    Lesson {
        endpoint: "shop".into(),
        variant: "main".into(),
        tenant: "default".into(),
        model: "ranker".into(),
        version: "7".into(),
        answered_ms: START_MS,
        inputs: vec![users(ids), Tensor::fp32("noise", &[ids.len() as u64], &vec![0.5; ids.len()]).unwrap()],
        parameters: Vec::new(),
        outputs: vec![items(answered)],
    }
}

fn host(more: serde_json::Value) -> Host {
    let mut config = json!({"key": [{"input": "user"}], "max-age-s": 60, "entries": 100_000, "popular": false});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Host::new().config(config)
}

fn ask(host: &Host, ids: &[i64]) -> mainstay_sdk::Result<Reply> {
    host.answer_instead::<Cached>(&AskOf::new("shop", vec![users(ids)]))
}

#[test]
fn the_last_good_answer_is_given_until_it_is_too_old() {
    let host = host(json!({}));
    assert_eq!(ask(&host, &[1]).unwrap_err().kind(), ErrorKind::NotFound);
    host.teach::<Cached>(&[lesson(&[1], &["pen"]), lesson(&[1], &["ink"])]).unwrap();
    host.advance_ms(60_000);
    let reply = ask(&host, &[1]).unwrap();
    assert_eq!((reply.label(), reply.outputs()), ("last-good", &[items(&["ink"])][..]), "the newer one");
    let expect = Reply::new("last-good").parameter("age_ms", Parameter::Integer(60_000)).model("ranker", "7");
    assert_eq!(reply, expect.output(items(&["ink"])));
    host.advance_ms(1);
    assert_eq!(ask(&host, &[1]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_batch_is_answered_from_rows_of_other_batches() {
    let host = host(json!({}));
    host.teach::<Cached>(&[lesson(&[1, 2], &["pen", "ink"]), lesson(&[3], &["cup"])]).unwrap();
    assert_eq!(ask(&host, &[3, 1, 2, 1]).unwrap().outputs(), [items(&["cup", "pen", "ink", "pen"])]);
    assert_eq!(ask(&host, &[3, 4]).unwrap_err().kind(), ErrorKind::NotFound, "4 is not known");
}

#[test]
fn outputs_that_are_not_by_row_are_kept_with_their_whole_question() {
    let host = host(json!({}));
    let ranked = Tensor::texts("item", &[3], ["a", "b", "c"]).unwrap();
    host.teach::<Cached>(&[Lesson { outputs: vec![ranked.clone()], ..lesson(&[1, 2], &[]) }]).unwrap();
    assert_eq!(ask(&host, &[1, 2]).unwrap().outputs(), std::slice::from_ref(&ranked));
    assert!(ask(&host, &[2, 1]).is_err());
    // One row may answer with a list.
    host.teach::<Cached>(&[Lesson { outputs: vec![ranked.clone()], ..lesson(&[5], &[]) }]).unwrap();
    assert_eq!(ask(&host, &[5]).unwrap().outputs(), [ranked]);
}

#[test]
fn an_unknown_question_gets_the_popular_answer_where_that_is_wanted() {
    let host = host(json!({"popular": true}));
    let given = [lesson(&[1, 2, 3], &["pen", "ink", "ink"])];
    host.teach::<Cached>(&given).unwrap();
    let reply = ask(&host, &[9, 1]).unwrap();
    assert_eq!((reply.label(), reply.outputs()), ("popular", &[items(&["ink", "pen"])][..]), "known rows stay");
    host.advance_ms(60_001);
    assert_eq!(ask(&host, &[9]).unwrap_err().kind(), ErrorKind::NotFound, "it is too old, too");
}

#[test]
fn what_is_frequent_stays_popular_among_many_others() {
    let host = host(json!({"popular": true}));
    for round in 0..40_i64 {
        let often = lesson(&[round], &["often"]);
        let rare = lesson(&[1_000 + round], &[&format!("rare {round}")]);
        host.teach::<Cached>(&[often, rare]).unwrap();
    }
    assert_eq!(ask(&host, &[-1]).unwrap().outputs(), [items(&["often"])]);
}

#[test]
fn tenants_and_endpoints_never_see_each_others_answers() {
    let host = host(json!({"popular": true}));
    host.teach::<Cached>(&[Lesson { tenant: "acme".into(), ..lesson(&[1], &["pen"]) }]).unwrap();
    let asked = |endpoint: &str, tenant: &str| {
        host.answer_instead::<Cached>(&AskOf::new(endpoint, vec![users(&[1])]).tenant(tenant)).is_ok()
    };
    assert!(asked("shop", "acme"));
    assert!(!asked("shop", "default") && !asked("other", "acme"));
}

#[test]
fn questions_that_share_a_place_do_not_get_each_others_answer() {
    let host = host(json!({"entries": 1}));
    host.teach::<Cached>(&[lesson(&[1], &["pen"])]).unwrap();
    assert!(ask(&host, &[2]).is_err());
    host.teach::<Cached>(&[lesson(&[2], &["ink"])]).unwrap();
    assert_eq!(ask(&host, &[2]).unwrap().outputs(), [items(&["ink"])]);
    assert!(ask(&host, &[1]).is_err(), "the newer answer has its place");
}

#[test]
fn a_large_input_that_the_key_does_not_name_is_not_read() {
    let host = host(json!({}));
    host.teach::<Cached>(&[lesson(&[1], &["pen"])]).unwrap();
    let image = Tensor::new("image", mainstay_sdk::tensors::Datatype::Uint8, &[1, 65_537], vec![0; 65_537]).unwrap();
    let reply = host.answer_instead::<Cached>(&AskOf::new("shop", vec![image.clone(), users(&[1])])).unwrap();
    assert_eq!(reply.outputs(), [items(&["pen"])]);
    let whole = Host::new().config(json!({"max-age-s": 60}));
    let error = whole.answer_instead::<Cached>(&AskOf::new("shop", vec![image])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
}

#[test]
fn only_outputs_that_are_wanted_are_given() {
    let host = host(json!({}));
    let both = vec![items(&["pen"]), Tensor::fp32("score", &[1], &[0.5]).unwrap()];
    host.teach::<Cached>(&[Lesson { outputs: both.clone(), ..lesson(&[1], &[]) }]).unwrap();
    let asked = |name: &str| host.answer_instead::<Cached>(&AskOf::new("shop", vec![users(&[1])]).wanted(name));
    assert_eq!(asked("score").unwrap().outputs(), &both[1..]);
    assert_eq!(asked("else").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_question_of_parameters_alone_is_kept_too_and_has_a_popular_answer() {
    let host = host(json!({"key": [{"parameter": "market"}], "popular": true}));
    let market = |name: &str| vec![("market".to_owned(), Parameter::Text(name.into()))];
    host.teach::<Cached>(&[Lesson { parameters: market("de"), ..lesson(&[1], &["pen"]) }]).unwrap();
    let asked = |name: &str| {
        let ask = AskOf::new("shop", vec![users(&[7])]).parameter("market", Parameter::Text(name.into()));
        host.answer_instead::<Cached>(&ask).unwrap()
    };
    assert_eq!((asked("de").label(), asked("fr").label()), ("last-good", "popular"));
    assert_eq!(asked("fr").outputs(), [items(&["pen"])]);
}
