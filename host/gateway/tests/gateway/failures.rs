//! What clients see when a plugin fails: the right status, words that help, and nothing that is not theirs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{Server, eventually};

#[tokio::test]
async fn every_failure_has_its_status() {
    let server = Server::start().await;
    for (kind, status, slug, retry_after) in [
        ("not-found", 404, "not-found", None),
        ("invalid", 400, "invalid", None),
        ("denied", 403, "denied", None),
        ("conflict", 409, "conflict", None),
        ("exhausted", 507, "full", None),
        ("unavailable", 503, "unavailable", Some("1")),
        ("internal", 500, "plugin-fault", None),
        ("trap", 500, "plugin-fault", None),
        ("cpu", 422, "plugin-limit", None),
        ("memory", 422, "plugin-limit", None),
        ("output", 422, "plugin-limit", None),
        ("host-calls", 422, "plugin-limit", None),
        ("capability", 403, "denied", None),
        ("busy", 503, "overloaded", Some("1")),
        ("quarantined", 503, "unavailable", Some("3")),
        ("host", 500, "internal", None),
        ("status", 500, "plugin-fault", None),
    ] {
        let reply = server.get(&format!("/fail/{kind}")).await;
        assert_eq!((reply.status, reply.problem().as_str()), (status, slug), "{kind}");
        assert_eq!(reply.header("retry-after"), retry_after, "{kind}");
        let document = reply.json();
        assert_eq!(document["plugin"], "fake");
        assert_eq!(document["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(document["message"], document["detail"]);
        assert!(!document["detail"].as_str().unwrap().contains("secret"), "{document}");
    }
    assert_eq!(server.get("/fail/teapot").await.body, b"short");
    assert_eq!(server.get("/fail/no-content").await.status, 204);
}

#[tokio::test]
async fn every_problem_has_an_error_code() {
    let server = Server::start().await;
    for (path, code) in [
        ("/fail/not-found", "RESOURCE_DOES_NOT_EXIST"),
        ("/fail/invalid", "INVALID_PARAMETER_VALUE"),
        ("/fail/denied", "PERMISSION_DENIED"),
        ("/fail/busy", "TEMPORARILY_UNAVAILABLE"),
        ("/nothing", "ENDPOINT_NOT_FOUND"),
        ("/-/problems/none", "RESOURCE_DOES_NOT_EXIST"),
    ] {
        let document = server.get(path).await.json();
        assert_eq!((&document["error_code"], &document["message"]), (&code.into(), &document["detail"]), "{path}");
    }
}

#[tokio::test]
async fn wrong_methods_and_unclaimed_paths() {
    let server = Server::start().await;
    for (method, path, status, allow) in [
        ("POST", "/version", 405, Some("GET, HEAD")),
        ("DELETE", "/echo", 405, Some("GET, HEAD, POST, PUT")),
        ("OPTIONS", "/echo", 405, Some("GET, HEAD, POST, PUT")),
        ("BREW", "/echo", 405, Some("GET, HEAD, POST, PUT")),
        ("POST", "/healthz", 405, Some("GET, HEAD")),
        ("PUT", "/-/version", 405, Some("GET,HEAD")),
        ("GET", "/nothing", 404, None),
        ("GET", "/", 404, None),
        ("GET", "/versions", 404, None),
        ("GET", "/version/", 404, None),
        ("GET", "/-/nothing", 404, None),
        ("GET", "/-", 404, None),
        ("GET", "/plugins/", 404, None),
        ("GET", "/plugins/none/x", 404, None),
        ("GET", "/plugins/fake/nothing", 404, None),
    ] {
        let reply = server.send(&format!("{method} {path} HTTP/1.1\r\nhost: localhost"), b"").await;
        assert_eq!((reply.status, reply.header("allow")), (status, allow), "{method} {path}");
        assert_eq!(reply.problem(), if status == 405 { "method-not-allowed" } else { "not-found" });
    }
    assert_eq!(server.get("/plugins/open").await.json()["path"], "/");
    assert_eq!(server.get("/plugins/open/a/b").await.json()["path"], "/a/b");
    assert_eq!(server.get("/plugins/fake/echo").await.json()["path"], "/echo");
}

/// Its clients know one form of error.
#[tokio::test]
async fn the_inference_protocol_is_answered_in_its_own_words() {
    let server = Server::start().await;
    for (request, status, words) in [
        ("GET /v2/models", 404, "no such path"),
        ("GET /v2/models/none", 404, "unknown model: 'none'"),
        ("POST /v2/models/none/infer", 400, "error"),
    ] {
        let reply = server.send(&format!("{request} HTTP/1.1\r\nhost: localhost"), b"").await;
        assert_eq!(reply.status, status, "{request}: {reply:?}");
        let said = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(said.contains(words) || words == "error", "{request}: {said}");
        assert!(!said.is_empty(), "{request}");
    }
    assert_eq!(server.get("/v2/health/ready").await.status, 200);
    let refused =
        server.send("POST /v2/models/none/infer HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong", b"").await;
    assert!([400, 401].contains(&refused.status), "{refused:?}");
    assert!(refused.json()["error"].is_string(), "{refused:?}");
}

#[tokio::test]
async fn a_call_without_an_answer_ends_and_one_without_a_client_is_dropped() {
    let server = Server::with(|options| options.limits.answer_timeout = Duration::from_millis(200)).await;
    let reply = server.get("/slow").await;
    assert_eq!((reply.status, reply.problem().as_str()), (504, "answer-timeout"));
    assert_eq!(server.plugin.slow_dropped.load(Ordering::SeqCst), 1);

    let server = Server::start().await;
    let mut client = server.connect().await;
    client.write(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    eventually("the call begins", || server.plugin.slow_begun.load(Ordering::SeqCst) == 1).await;
    drop(client);
    eventually("the call is dropped", || server.plugin.slow_dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_busy_host_says_so_and_still_tells_that_it_lives() {
    let server = Server::with(|options| options.limits.requests_in_flight_max = 2).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.write(b"GET /slow?ms=3000 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        busy.push(client);
    }
    eventually("both run", || server.plugin.slow_begun.load(Ordering::SeqCst) == 2).await;
    let reply = server.get("/version").await;
    assert_eq!((reply.status, reply.problem().as_str(), reply.header("retry-after")), (503, "overloaded", Some("1")));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/-/version").await.status, 503);
    drop(busy);
    eventually("both are dropped", || server.plugin.slow_dropped.load(Ordering::SeqCst) == 2).await;
    assert_eq!(server.get("/version").await.status, 200);
}
