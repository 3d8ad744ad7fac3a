//! The population stability example, packed, in a real host: 200 columns are one call, without the right to read a value.

use mainstay_interfaces::Limits;
use mainstay_testing::{Install, TestHost};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What `cargo xtask plugins` packed.
fn package() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../registry-data/examples/psi-0.1.0.mainstay");
    assert!(path.exists(), "{} is not there: run `cargo xtask plugins` first", path.display());
    path
}

#[test]
fn two_hundred_columns_are_one_call() {
    let host = TestHost::new().install(package()).unwrap();
    let column = |moved: usize| (0..1000).map(|at| json!(at + moved)).collect::<Vec<_>>();
    let all = |factor: usize| (0..200).map(|n| (format!("c{n:03}"), Value::from(column(n * factor)))).collect();
    let (reference, current): (Map<String, Value>, Map<String, Value>) = (all(0), all(1));
    let before = host.plugin("psi").unwrap().stats().host_calls;
    let answer = host.call("POST", "/psi", json!({"reference": reference, "current": current}).to_string());
    let answers: Map<String, Value> = answer.json();
    assert_eq!(answers.len(), 200);
    assert_eq!(answers["c000"]["verdict"], "stable");
    assert!((answers["c100"]["psi"].as_f64().unwrap() - 0.7594).abs() < 1e-3, "{}", answers["c100"]);
    // 400 columns made and dropped, one question, and a handful around them.
    let calls = host.plugin("psi").unwrap().stats().host_calls - before;
    assert!(calls < 850, "{calls} calls into the host");
}

#[test]
fn columns_are_bounded_and_given_back() {
    let limits = Limits { array_bytes: 64 << 10, ..Limits::default() };
    let how = Install { limits: Some(limits), ..Install::default() };
    let host = TestHost::new().install_with(package(), how).unwrap();
    let ask = |rows: usize| {
        let column: Vec<usize> = (0..rows).collect();
        host.call("POST", "/psi", json!({"reference": {"a": column}, "current": {"a": column}}).to_string())
    };
    let held = || host.plugin("psi").unwrap().array_bytes();
    let answer = ask(10_000);
    assert_eq!(answer.status, 507);
    assert!(answer.as_text().contains("`array-mib`"), "{}", answer.as_text());
    assert_eq!(held(), 0, "a call that failed holds nothing");
    assert_eq!(ask(1_000).status, 200);
    assert_eq!(held(), 0, "nor does one that succeeded");
}

#[test]
fn without_the_right_to_compute_nothing_is_computed() {
    let how = Install { grants: Some(Vec::new()), ..Install::default() };
    let host = TestHost::new().install_with(package(), how).unwrap();
    let answer = host.call("POST", "/psi", json!({"reference": {"a": [1]}, "current": {"a": [1]}}).to_string());
    assert_eq!(answer.status, 403);
    assert!(answer.as_text().contains("`arrays`"), "{}", answer.as_text());
}
