//! The plugin in a host in memory, beside another endpoint.

use fallback_previous::Previous;
use mainstay_sdk::fallback::Reply;
use mainstay_sdk::tensors::{Parameter, Tensor};
use mainstay_sdk::testing::{AskOf, Host};
use mainstay_sdk::traffic::{Endpoint, Response};
use mainstay_sdk::{Error, ErrorKind};
use serde_json::json;

fn host() -> Host {
    let host = Host::new().config(json!({"endpoints": {"churn": "churn-before", "loop": "loop"}}));
    let endpoint = Endpoint { name: "churn-before".into(), is_ready: true, ..Endpoint::default() };
    host.serve(endpoint, |request| {
        let ids = request.inputs[0].numbers()?;
        let scores: Vec<f64> = ids.iter().map(|id| id / 10.0).collect();
        let outputs = vec![Tensor::fp64("score", &[ids.len() as u64], &scores)?];
        Ok(Response { model: "churn".into(), version: "6".into(), outputs, ..Response::default() })
    });
    host
}

fn ask(endpoint: &str) -> AskOf {
    AskOf::new(endpoint, vec![Tensor::int64("id", &[2], &[1, 2]).unwrap()])
}

#[test]
fn the_other_endpoint_gets_the_request_as_it_was_and_its_answer_is_handed_on() {
    let host = host();
    let asked = ask("churn").parameter("market", Parameter::Text("de".into())).wanted("score").tenant("acme");
    let reply = host.answer_instead::<Previous>(&asked).unwrap();
    let expect = Reply::new("previous").model("churn", "6");
    assert_eq!(reply, expect.output(Tensor::fp64("score", &[2], &[0.1, 0.2]).unwrap()));
    let sent = &host.asked()[0];
    assert_eq!((sent.endpoint.as_str(), sent.tenant.as_deref()), ("churn-before", Some("acme")));
    assert_eq!(sent.outputs, ["score"]);
    assert_eq!(sent.parameters, [("market".to_owned(), Parameter::Text("de".into()))]);
    assert!(sent.timeout_ms.unwrap() < 100, "less than what the ask has left");
}

#[test]
fn without_another_endpoint_there_is_no_answer() {
    let host = host();
    let kind = |endpoint: &str| host.answer_instead::<Previous>(&ask(endpoint)).unwrap_err().kind();
    assert_eq!(kind("unknown"), ErrorKind::NotFound);
    assert_eq!(kind("loop"), ErrorKind::Denied, "an endpoint does not stand in for itself");
}

#[test]
fn failures_and_fallbacks_of_the_other_endpoint_are_no_answer() {
    let host = host();
    let endpoint = || Endpoint { name: "churn-before".into(), ..Endpoint::default() };
    host.serve(endpoint(), |_| Err(Error::exhausted("too much")));
    assert_eq!(host.answer_instead::<Previous>(&ask("churn")).unwrap_err().kind(), ErrorKind::Exhausted);
    host.serve(endpoint(), |_| Ok(Response { fallback: Some("cached".into()), ..Response::default() }));
    assert_eq!(host.answer_instead::<Previous>(&ask("churn")).unwrap_err().kind(), ErrorKind::Unavailable);
}
