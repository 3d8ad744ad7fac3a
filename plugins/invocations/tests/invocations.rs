//! The plugin in a host in memory, asked as MLflow's clients ask. Expected answers and words are those of
//! `mlflow.pyfunc.scoring_server.invocations` 3.17.2 for a model that sums its columns, but that NaN is null here, and that what
//! a signature refuses is told in words of our own.

use invocations::Invocations;
use mainstay_sdk::http::Request;
use mainstay_sdk::tensors::{Datatype, Parameter, Tensor, TensorSpec};
use mainstay_sdk::testing::{Answer, Host};
use mainstay_sdk::traffic::{self, Endpoint, Response};
use mainstay_sdk::{Error, Result};
use serde_json::{Value, json};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn ab() -> Vec<TensorSpec> {
    vec![spec("a", Datatype::Fp64, &[-1]), spec("b", Datatype::Int64, &[-1])]
}

fn x3() -> Vec<TensorSpec> {
    vec![spec("x", Datatype::Fp32, &[-1, 3])]
}

/// Adds up each row over all inputs.
fn sum(request: &traffic::Request) -> Result<Response> {
    let rows = request.inputs[0].rows() as usize;
    let mut sums = vec![0.0; rows];
    for input in &request.inputs {
        let numbers = input.numbers()?;
        let width = numbers.len() / rows.max(1);
        numbers.iter().enumerate().for_each(|(at, number)| sums[at / width] += number);
    }
    let outputs = vec![Tensor::fp64("sum", &[rows as u64], &sums)?];
    let headers = vec![("x-mainstay-version".to_owned(), "3".to_owned())];
    Ok(Response { model: "adder".into(), version: "3".into(), outputs, headers, ..Response::default() })
}

fn host(inputs: Vec<TensorSpec>) -> Host {
    let host = Host::new().config(json!({"headers": ["x-user"], "emulated-version": "3.17.2"}));
    host.serve(Endpoint { name: "adder".into(), is_ready: true, inputs, ..Endpoint::default() }, sum);
    host
}

fn post(host: &Host, content_type: &str, body: &str) -> Answer {
    host.call::<Invocations>(Request::post("/serve/adder/invocations").header("content-type", content_type).body(body))
}

fn score(inputs: Vec<TensorSpec>, body: &Value) -> Answer {
    post(&host(inputs), "application/json", &body.to_string())
}

#[test]
fn every_form_of_input_is_scored() {
    fn check(inputs: Vec<TensorSpec>, body: Value, expect: Value) {
        let answer = score(inputs, &body);
        assert_eq!((answer.status, answer.json::<Value>()), (200, json!({ "predictions": expect })), "{body}");
        assert_eq!(answer.header("x-mainstay-version"), Some("3"));
    }
    let sums = json!([11.5, 22.0]);
    check(ab(), json!({"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 10], [2, 20]]}}), sums.clone());
    check(
        ab(),
        json!({"dataframe_split": {"index": [0, 1], "columns": ["b", "c", "a"], "data": [[10, 9, 1.5], [20, 9, 2]]}}),
        sums.clone(),
    );
    check(ab(), json!({"dataframe_records": [{"a": 1.5, "b": 10}, {"b": 20, "a": 2}]}), sums.clone());
    check(ab(), json!({"instances": [{"a": 1.5, "b": 10}, {"a": 2, "b": 20}]}), sums.clone());
    check(ab(), json!({"inputs": {"a": [1.5, 2], "b": [10, 20]}}), sums.clone());
    check(x3(), json!({"inputs": [[1, 2, 3], [4, 5, 6]]}), json!([6.0, 15.0]));
    check(x3(), json!({"instances": [[1, 2, 3], [4, 5, 6]]}), json!([6.0, 15.0]));
    check(
        x3(),
        json!({"dataframe_split": {"columns": ["p", "q", "r"], "data": [[1, 2, 3], [4, 5, 6]]}}),
        json!([6.0, 15.0]),
    );
    check(x3(), json!({"dataframe_split": {"data": [[1, 2, 3]]}}), json!([6.0]));
    check(x3(), json!({"inputs": {"p": [1, 4], "q": [2, 5], "r": [3, 6]}}), json!([6.0, 15.0]));
    // Without a signature each column is a tensor of its own.
    check(vec![], json!({"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 10], [2, 20]]}}), sums);
    check(vec![], json!({"inputs": [[1, 2], [3, 4]]}), json!([3.0, 7.0]));
}

#[test]
fn csv_is_read_as_pandas_reads_it() {
    fn check(inputs: Vec<TensorSpec>, csv: &str, expect: Value) {
        let answer = post(&host(inputs), "text/csv; charset=utf-8", csv);
        assert_eq!((answer.status, answer.json::<Value>()), (200, json!({ "predictions": expect })), "{csv}");
    }
    check(ab(), "a,b\n1.5,10\n2,20\n", json!([11.5, 22.0]));
    check(ab(), "b,\"a\"\r\n10,1.5\r\n", json!([11.5]));
    check(vec![], "a,b\n1.5,10\n2,20\n", json!([11.5, 22.0]));
    check(ab(), "a,b\n,10\n", json!([null]));
    check(vec![], "a,b\n1\n", json!([null]));
}

#[test]
fn types_are_those_of_the_signature_or_of_the_values() {
    let host = host(vec![]);
    post(
        &host,
        "application/json",
        &json!({"dataframe_records": [{"i": 1, "f": 2.5, "t": true}, {"i": 2, "f": null, "t": false}]}).to_string(),
    );
    let asked = &host.asked()[0];
    let types: Vec<(&str, Datatype)> = asked.inputs.iter().map(|input| (input.name.as_str(), input.datatype)).collect();
    assert_eq!(types.len(), 3);
    for expect in [("i", Datatype::Int64), ("f", Datatype::Fp64), ("t", Datatype::Bool)] {
        assert!(types.contains(&expect), "{types:?}");
    }
    assert!(asked.inputs.iter().find(|input| input.name == "f").unwrap().numbers().unwrap()[1].is_nan());
}

#[test]
fn parameters_headers_and_the_tenant_go_along() {
    let host = host(ab());
    let body =
        json!({"inputs": {"a": [1], "b": [1]}, "params": {"top": 5, "mode": "fast", "temperature": 0.5, "raw": true}});
    let request = Request::post("/serve/adder/invocations").header("content-type", "application/json");
    host.call::<Invocations>(request.header("x-user", "ada").header("x-other", "no").body(body.to_string()));
    let asked = &host.asked()[0];
    let mut parameters = asked.parameters.clone();
    parameters.sort_by(|one, other| one.0.cmp(&other.0));
    let expect = [
        ("mode", Parameter::Text("fast".into())),
        ("raw", Parameter::Boolean(true)),
        ("temperature", Parameter::Real(0.5)),
        ("top", Parameter::Integer(5)),
    ];
    assert_eq!(parameters, expect.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(asked.headers, [("x-user".to_owned(), "ada".to_owned())]);
    assert!(asked.tenant.is_some());
}

#[test]
fn what_makes_no_sense_is_a_bad_request_in_the_scoring_servers_words() {
    fn check(inputs: Vec<TensorSpec>, body: &str, words: &str) {
        let answer = post(&host(inputs), "application/json", body);
        let told: Value = answer.json();
        assert_eq!((answer.status, &told["error_code"]), (400, &json!("BAD_REQUEST")), "{body}: {told}");
        assert!(told["message"].as_str().unwrap().contains(words), "{body}: {told}");
    }
    check(ab(), "{", "Invalid input. Ensure that input is a valid JSON formatted string");
    check(ab(), "[1]", "Received a list.");
    check(ab(), "1", "Received unexpected input type '<class 'int'>");
    check(ab(), r#"{"data": [1]}"#, "Received dictionary with input fields: ['data']");
    check(ab(), r#"{"inputs": [1], "instances": [1]}"#, "exactly one of the input fields");
    check(ab(), r#"{"dataframe_split": [1]}"#, "Dataframe split format must be a dictionary. Got list.");
    check(ab(), r#"{"dataframe_split": {"columns": ["a"]}}"#, "must have 'data' field");
    check(
        ab(),
        r#"{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}"#,
        "1 columns passed, passed data had 2 columns",
    );
    check(ab(), r#"{"dataframe_records": {"a": 1}}"#, "must be a list of records. Got dictionary.");
    check(ab(), r#"{"instances": [{"a": 1, "b": 1}, {"a": 1}]}"#, "are not the same");
    check(ab(), r#"{"dataframe_records": [{"a": 1}]}"#, "Model is missing inputs ['b']");
    check(ab(), r#"{"inputs": {"a": [1], "b": ["x"]}}"#, "column b");
    check(ab(), r#"{"inputs": {"a": [1], "b": [1.5]}}"#, "`b`");
    check(x3(), r#"{"dataframe_split": {"data": [[1, 2]]}}"#, "does not match expected shape");
    check(x3(), r#"{"inputs": [[1, 2, 3], [1]]}"#, "not all of one length");
    check(ab(), r#"{"inputs": {"a": [1], "b": [1]}, "params": [1]}"#, "Parameters must be a dictionary");
}

#[test]
fn other_content_types_are_refused_with_415() {
    fn check(content_type: &str, words: &str) {
        let answer = post(&host(ab()), content_type, "a,b\n1,2\n");
        assert_eq!(answer.status, 415, "{content_type}");
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    check("text/csv; charset=latin-1", "The scoring server only supports UTF-8");
    check("text/csv; header=present", "Unrecognized content type parameters: header.");
    check("application/vnd.apache.parquet", "Got 'application/vnd.apache.parquet'.");
    let bare = host(ab()).call::<Invocations>(Request::post("/serve/adder/invocations").body("1"));
    assert_eq!(bare.status, 415);
}

#[test]
fn the_endpoints_failures_have_codes_of_their_own() {
    fn check(error: Error, status: u16, code: &str) {
        let host = host(ab());
        let endpoint = Endpoint { name: "adder".into(), inputs: ab(), ..Endpoint::default() };
        host.serve(endpoint, move |_| Err(error.clone()));
        let answer = post(&host, "application/json", r#"{"inputs": {"a": [1], "b": [1]}}"#);
        assert_eq!((answer.status, answer.json::<Value>()["error_code"].clone()), (status, json!(code)));
    }
    check(Error::exhausted("full"), 429, "REQUEST_LIMIT_EXCEEDED");
    check(Error::unavailable("open"), 503, "TEMPORARILY_UNAVAILABLE");
    check(Error::denied("no"), 403, "PERMISSION_DENIED");
    check(Error::internal("broken"), 500, "INTERNAL_ERROR");
}

#[test]
fn several_outputs_are_answered_by_name() {
    let host = host(ab());
    let endpoint = Endpoint { name: "adder".into(), inputs: ab(), ..Endpoint::default() };
    host.serve(endpoint, |_| {
        let outputs = vec![Tensor::texts("label", &[1], ["yes"])?, Tensor::fp32("p", &[1, 2], &[0.25, 0.75])?];
        Ok(Response { outputs, ..Response::default() })
    });
    let answer = post(&host, "application/json", r#"{"inputs": {"a": [1], "b": [1]}}"#);
    assert_eq!(answer.json::<Value>(), json!({"predictions": {"label": ["yes"], "p": [[0.25, 0.75]]}}));
}

#[test]
fn health_and_version_are_as_a_model_server_has_them() {
    let host = host(ab());
    let get = |path: &str| {
        let answer = host.call::<Invocations>(Request::get(path));
        (answer.status, answer.text().to_owned())
    };
    for path in ["/ping", "/serve/adder/ping", "/serve/adder/health", "/health"] {
        assert_eq!(get(path), (200, "\n".to_owned()), "{path}");
    }
    assert_eq!(get("/serve/adder/version"), (200, "3.17.2".to_owned()));
    assert_eq!(get("/serve/other/ping").0, 404);
    assert_eq!(get("/serve/adder/else").0, 404);
    host.serve(Endpoint { name: "adder".into(), ..Endpoint::default() }, sum);
    assert_eq!(get("/ping").0, 404, "not ready");
}

#[test]
fn the_root_asks_the_only_endpoint_or_the_configured_one() {
    let body = r#"{"inputs": {"a": [1], "b": [1]}}"#;
    let root = |host: &Host| {
        let request = Request::post("/invocations").header("content-type", "application/json").body(body);
        host.call::<Invocations>(request).status
    };
    let one = host(ab());
    assert_eq!(root(&one), 200);
    one.serve(Endpoint { name: "second".into(), ..Endpoint::default() }, sum);
    assert_eq!(root(&one), 404, "which of the two?");
    let configured = Host::new().config(json!({"endpoint": "adder"}));
    configured.serve(Endpoint { name: "adder".into(), is_ready: true, inputs: ab(), ..Endpoint::default() }, sum);
    configured.serve(Endpoint { name: "second".into(), ..Endpoint::default() }, sum);
    assert_eq!(root(&configured), 200);
    assert_eq!(root(&Host::new()), 404, "there is none");
}
