//! The admin API.

use mainstay_gateway::{AuthMode, Role};
use serde_json::json;

use crate::support::Server;

#[tokio::test]
async fn plugins_are_installed_listed_configured_and_removed() {
    let server = Server::with(|options| options.limits.package_bytes_max = 100_000).await;
    let package = vec![7; 70_000];
    let head = "POST /-/plugins?grant=keys,blobs&config=%7B%22a%22%3A1%7D HTTP/1.1\r\nhost: localhost";
    let reply = server.send(head, &package).await;
    assert_eq!((reply.status, &reply.json()["name"]), (201, &json!("fake")));
    assert_eq!(server.get("/-/plugins").await.json()[0]["version"], "1.2.3");
    let detail = server.get("/-/plugins/fake").await.json();
    assert_eq!((&detail["mount"], &detail["config"]["password"]), (&json!("/plugins/fake/"), &json!("secret")));
    let reply = server.send("PUT /-/plugins/fake/config HTTP/1.1\r\nhost: localhost", b"{\"b\":2}").await;
    assert_eq!(reply.status, 200);
    let reply = server.send("DELETE /-/plugins/fake HTTP/1.1\r\nhost: localhost", b"").await;
    assert_eq!(reply.status, 204);
    let done = server.admin.done.lock().clone();
    let config = "Some(Object {\"a\": Number(1)})";
    assert_eq!(
        done,
        [
            format!("install 70000 [\"keys\", \"blobs\"] false {config}"),
            "configure fake {\"b\":2}".into(),
            "remove fake".into()
        ]
    );
    assert_eq!(server.scratch_files(), 0, "uploads are removed");
}

#[tokio::test]
async fn what_cannot_be_done_is_a_problem() {
    let server = Server::with(|options| options.limits.package_bytes_max = 1_000).await;
    for (head, body, status, slug) in [
        ("GET /-/plugins/none", &b""[..], 404, "not-found"),
        ("DELETE /-/plugins/none", b"", 404, "not-found"),
        ("GET /-/none", b"", 404, "not-found"),
        ("POST /-/plugins", b"bad", 400, "invalid"),
        ("POST /-/plugins?config=%7B", b"x", 400, "malformed-request"),
        ("POST /-/plugins", &[0; 1_001], 413, "body-too-large"),
        ("PUT /-/plugins/fake/config", b"{", 400, "malformed-request"),
        ("PUT /-/plugins/fake/config", b"", 400, "malformed-request"),
        ("POST /-/tokens", b"{}", 400, "malformed-request"),
        ("POST /-/tokens", b"{\"name\":\"a\",\"role\":\"king\"}", 400, "malformed-request"),
        ("POST /-/tokens", b"{\"name\":\"a b\",\"role\":\"viewer\"}", 400, "invalid"),
        ("DELETE /-/tokens/none", b"", 404, "not-found"),
        ("GET /-/problems/none", b"", 404, "not-found"),
    ] {
        let reply = server.send(&format!("{head} HTTP/1.1\r\nhost: localhost"), body).await;
        assert_eq!((reply.status, reply.problem().as_str()), (status, slug), "{head}");
        assert_eq!(reply.json()["trace_id"].as_str().unwrap().len(), 32);
    }
    assert_eq!(server.scratch_files(), 0, "uploads are removed");
}

#[tokio::test]
async fn json_of_any_depth_is_refused_and_not_followed() {
    let server = Server::start().await;
    let deep = "[".repeat(10_000);
    let reply = server.send("POST /-/tokens HTTP/1.1\r\nhost: localhost", deep.as_bytes()).await;
    assert_eq!(reply.problem(), "malformed-request");
    let reply = server.send("PUT /-/plugins/fake/config HTTP/1.1\r\nhost: localhost", deep.as_bytes()).await;
    assert_eq!(reply.problem(), "malformed-request");
    let long = format!("\"{}\"", "x".repeat(2 << 20));
    let reply = server.send("PUT /-/plugins/fake/config HTTP/1.1\r\nhost: localhost", long.as_bytes()).await;
    assert_eq!(reply.problem(), "body-too-large");
}

#[tokio::test]
async fn tokens_are_made_listed_used_and_revoked() {
    let server = Server::prepare(|options| options.auth = AuthMode::Always, &[("root", Role::Admin)]).await.unwrap();
    let root = server.tokens.create("again", Role::Admin, None).await.unwrap().token;
    let auth = |token: &str| format!(" HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}");
    let body = br#"{"name":"ci","role":"editor"}"#;
    let made = server.send(&format!("POST /-/tokens{}", auth(&root)), body).await;
    assert_eq!(made.status, 201);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let reply = server.send(&format!("POST /-/tokens{}", auth(&root)), body).await;
    assert_eq!((reply.status, reply.problem().as_str()), (409, "conflict"));
    let listed = server.send(&format!("GET /-/tokens{}", auth(&root)), b"").await;
    let names: Vec<String> =
        listed.json().as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["again", "ci", "root"]);
    assert!(!String::from_utf8(listed.body).unwrap().contains(&token));
    assert_eq!(server.send(&format!("POST /echo{}", auth(&token)), b"").await.status, 200);
    // What is not an administrator's is not shown to others.
    let detail = server.send(&format!("GET /-/plugins/fake{}", auth(&token)), b"").await.json();
    assert_eq!(detail["config"], json!(null));
    assert_eq!(server.send(&format!("DELETE /-/tokens/ci{}", auth(&root)), b"").await.status, 204);
    assert_eq!(server.send(&format!("POST /echo{}", auth(&token)), b"").await.status, 401);
}

#[tokio::test]
async fn the_host_describes_itself() {
    let server = Server::start().await;
    assert_eq!(server.get("/-/version").await.json()["name"], "mainstay");
    let reply = server.send("POST /-/blobs/gc HTTP/1.1\r\nhost: localhost", b"").await;
    assert_eq!(reply.json(), json!({"examined": 3, "removed": 2, "freed_bytes": 1}));
    let description = server.get("/-/openapi.json").await.json();
    assert!(description["paths"]["/-/plugins/{name}"]["delete"].is_object());
    let problems = server.get("/-/problems").await.json();
    for problem in problems.as_array().unwrap() {
        let one = server.get(problem["type"].as_str().unwrap()).await;
        assert_eq!(&one.json(), problem);
    }
}
