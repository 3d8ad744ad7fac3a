//! The guest book, packed, in a real host.

use mainstay_testing::{Install, TestHost};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `cargo xtask plugins` packed.
fn package() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../registry-data/examples/hello-0.1.0.mainstay");
    assert!(path.exists(), "{} is not there: run `cargo xtask plugins` first", path.display());
    path
}

fn sign(host: &TestHost, name: &str, message: &str) -> mainstay_testing::Answer {
    host.call("PUT", &format!("/hello/guests/{name}"), json!({ "message": message }).to_string())
}

#[test]
fn guests_sign_and_are_found() {
    let host = TestHost::new().install(package()).unwrap();
    assert_eq!(sign(&host, "ada", "Hi").json::<String>(), "Welcome, ada");
    host.advance_ms(1);
    assert_eq!(sign(&host, "grace", "Hello").status, 200);
    host.advance_ms(1);
    sign(&host, "ada", "Hi again");
    assert_eq!(host.call("GET", "/hello/guests", "").json::<Vec<String>>(), ["ada", "grace"]);
    let ada: Value = host.call("GET", "/hello/guests/ada", "").json();
    assert_eq!(ada, json!({ "name": "ada", "message": "Hi again", "visits": 2 }));
}

#[test]
fn refusals_have_their_statuses() {
    let host = TestHost::new().install(package()).unwrap();
    let check = |method: &str, path: &str, body: &str, status: u16| {
        let answer = host.call(method, path, body.to_owned());
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    };
    check("GET", "/hello/guests/nobody", "", 404);
    check("PUT", "/hello/guests/ada", "{", 400);
    check("PUT", "/hello/guests/ada", &"[".repeat(10_000), 400);
    check("DELETE", "/hello/guests", "", 405);
    check("GET", "/elsewhere", "", 404);
    // More than the route takes inline: the handler is told, not given.
    check("PUT", "/hello/guests/ada", &format!("{{\"message\":\"{}\"}}", "x".repeat(17 * 1024)), 400);
}

#[test]
fn settings_come_from_the_operator() {
    let how = Install { settings: Some(json!({ "greeting": "Bonjour" })), ..Install::default() };
    let host = TestHost::new().install_with(package(), how).unwrap();
    assert_eq!(sign(&host, "ada", "Salut").json::<String>(), "Bonjour, ada");
    let how = Install { settings: Some(json!({ "greeting": 7 })), ..Install::default() };
    let error = TestHost::new().install_with(package(), how).err().unwrap();
    assert!(error.message().contains("greeting"), "{error}");
}

#[test]
fn what_is_not_granted_is_denied_at_the_call() {
    let how = Install { grants: Some(vec!["index".to_owned()]), ..Install::default() };
    let host = TestHost::new().install_with(package(), how).unwrap();
    let answer = sign(&host, "ada", "Hi");
    assert_eq!(answer.status, 403);
    assert!(answer.as_text().contains("keys"), "{answer:?}");
    assert_eq!(host.call("GET", "/hello/guests", "").status, 200, "the index was granted");
}
