//! Who may do what: tokens, roles, anonymous access, browsers.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mainstay_base::ErrorKind;
use mainstay_gateway::{AuthMode, Role};

use crate::support::Server;

async fn guarded() -> (Server, [String; 3]) {
    let server = Server::prepare(|options| options.auth = AuthMode::Always, &[("first", Role::Admin)]).await.unwrap();
    let mut made = Vec::new();
    for (name, role) in [("vera", Role::Viewer), ("ed", Role::Editor), ("ada", Role::Admin)] {
        made.push(server.tokens.create(name, role, None).await.unwrap().token);
    }
    (server, made.try_into().unwrap())
}

#[tokio::test]
async fn each_role_reaches_what_it_may() {
    let (server, [viewer, editor, admin]) = guarded().await;
    let none = String::new();
    for (method, path, statuses) in [
        // Without a token, viewer, editor, admin.
        ("GET", "/version", [200, 200, 200, 200]),
        ("GET", "/echo", [401, 200, 200, 200]),
        ("POST", "/echo", [401, 403, 200, 200]),
        ("GET", "/guarded", [401, 403, 403, 200]),
        ("GET", "/plugins/fake/echo", [401, 200, 200, 200]),
        ("GET", "/plugins/fake/guarded", [401, 403, 403, 200]),
        ("GET", "/plugins/open/anything", [401, 200, 200, 200]),
        ("DELETE", "/plugins/open/anything", [401, 403, 200, 200]),
        ("GET", "/nothing", [401, 404, 404, 404]),
        ("GET", "/healthz", [200, 200, 200, 200]),
        ("GET", "/readyz", [200, 200, 200, 200]),
        ("GET", "/metrics", [401, 200, 200, 200]),
        ("GET", "/-/openapi.json", [200, 200, 200, 200]),
        ("GET", "/-/problems/not-found", [200, 200, 200, 200]),
        ("GET", "/-/version", [401, 200, 200, 200]),
        ("GET", "/-/plugins", [401, 200, 200, 200]),
        ("GET", "/-/tokens", [401, 403, 403, 200]),
        ("POST", "/-/blobs/gc", [401, 403, 403, 200]),
        ("DELETE", "/-/plugins/fake", [401, 403, 403, 204]),
    ] {
        for (token, expect) in [&none, &viewer, &editor, &admin].into_iter().zip(statuses) {
            let credentials =
                if token.is_empty() { String::new() } else { format!("\r\nauthorization: Bearer {token}") };
            let reply = server.send(&format!("{method} {path} HTTP/1.1\r\nhost: h{credentials}"), b"").await;
            assert_eq!(reply.status, expect, "{method} {path} {token}: {reply:?}");
            match reply.status {
                401 => {
                    assert_eq!(reply.problem(), "unauthenticated");
                    let asked: Vec<_> = reply
                        .headers
                        .iter()
                        .filter(|(name, _)| name == "www-authenticate")
                        .map(|(_, value)| value)
                        .collect();
                    assert!(asked[0].starts_with("Bearer") && asked[1].starts_with("Basic"), "{asked:?}");
                }
                403 => {
                    assert_eq!(reply.problem(), "denied");
                    assert!(reply.json()["detail"].as_str().unwrap().contains("right `"), "{reply:?}");
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn credentials_in_every_form() {
    let (server, [viewer, _, _]) = guarded().await;
    let basic = |user: &str, password: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let mut wrong = viewer.clone();
    wrong.pop();
    for (value, expect) in [
        (format!("Bearer {viewer}"), 200),
        (format!("bearer   {viewer}"), 200),
        (basic("vera", &viewer), 200),
        (basic("anyone", &viewer), 200),
        (basic("", &viewer), 200),
        (basic(&viewer, ""), 401),
        (format!("Bearer {wrong}"), 401),
        (format!("Digest {viewer}"), 401),
        (viewer.clone(), 401),
        ("Basic %%%".to_owned(), 401),
        ("Basic".to_owned(), 401),
        (basic("vera", "x:y"), 401),
    ] {
        let reply = server.send(&format!("GET /echo HTTP/1.1\r\nhost: h\r\nauthorization: {value}"), b"").await;
        assert_eq!(reply.status, expect, "{value}");
        if expect == 200 {
            let seen = reply.json();
            assert_eq!(seen["principal"], "vera");
            assert_eq!(seen["rights"], serde_json::json!(["read"]));
            assert!(!seen["headers"].to_string().contains("authorization"), "{seen}");
        }
    }
    server.tokens.revoke("vera").await.unwrap();
    let reply = server.send(&format!("GET /echo HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {viewer}"), b"").await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn failures_are_counted_by_address_and_a_valid_token_still_passes() {
    let set = |options: &mut mainstay_gateway::GatewayOptions| {
        options.auth = AuthMode::Always;
        options.auth_failures_per_minute_max = 3;
    };
    let server = Server::prepare(set, &[("first", Role::Admin)]).await.unwrap();
    let token = server.tokens.create("vera", Role::Viewer, None).await.unwrap().token;
    for attempt in 0..6 {
        let reply = server.send("GET /echo HTTP/1.1\r\nhost: h\r\nauthorization: Bearer wrong", b"").await;
        assert_eq!(reply.status, if attempt < 3 { 401 } else { 429 });
        if reply.status == 429 {
            assert_eq!(reply.problem(), "too-many-failures");
            assert!((1..=60).contains(&reply.header("retry-after").unwrap().parse::<u64>().unwrap()));
        }
    }
    let reply = server.send(&format!("GET /echo HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}"), b"").await;
    assert_eq!(reply.status, 200);
    // Asking without credentials is no guess.
    assert_eq!(server.send("GET /echo HTTP/1.1\r\nhost: h", b"").await.status, 401);
}

#[tokio::test]
async fn it_does_not_listen_beyond_loopback_without_tokens() {
    let beyond = |mode| {
        move |options: &mut mainstay_gateway::GatewayOptions| {
            options.http = ([0, 0, 0, 0], 0).into();
            options.auth = mode;
        }
    };
    let refused = Server::prepare(beyond(AuthMode::BeyondLoopback), &[]).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.message().contains("token create"), "{refused}");
    let open = Server::prepare(beyond(AuthMode::Never), &[]).await.unwrap();
    let port = open.gateway.http_addr().port();
    let mut client = crate::support::Client::connect(([127, 0, 0, 1], port).into()).await;
    client.write(b"GET /echo HTTP/1.1\r\nhost: any.name\r\n\r\n").await;
    assert_eq!(client.reply(false).await.status, 200);
    let server = Server::prepare(beyond(AuthMode::BeyondLoopback), &[("first", Role::Admin)]).await.unwrap();
    let port = server.gateway.http_addr().port();
    let mut client = crate::support::Client::connect(([127, 0, 0, 1], port).into()).await;
    client.write(b"GET /echo HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(client.reply(false).await.status, 401);
    // The same for gRPC alone.
    let grpc = |options: &mut mainstay_gateway::GatewayOptions| options.grpc = Some(([0, 0, 0, 0], 0).into());
    assert_eq!(Server::prepare(grpc, &[]).await.err().unwrap().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn without_tokens_only_this_machines_names_and_no_foreign_pages() {
    let server = Server::with(|options| options.allowed_hosts = vec!["models.example".to_owned()]).await;
    for (headers, expect) in [
        ("host: localhost:7600", 200),
        ("host: 127.0.0.1", 200),
        ("host: [::1]:7600", 200),
        ("host: box.localhost", 200),
        ("host: MODELS.example:80", 200),
        ("host: evil.example", 403),
        ("host: localhost.evil.example", 403),
        ("host: localhost\r\norigin: http://localhost", 200),
        ("host: localhost\r\norigin: http://evil.example", 403),
        ("host: localhost\r\norigin: null", 403),
        // Credentials that nobody asked for change nothing.
        ("host: localhost\r\nauthorization: Basic bWU6bWU=", 200),
    ] {
        let reply = server.send(&format!("POST /echo HTTP/1.1\r\n{headers}"), b"").await;
        assert_eq!(reply.status, expect, "{headers}");
        match expect {
            200 => assert_eq!(reply.json()["rights"], serde_json::json!(["read", "write", "admin"])),
            _ => assert_eq!(reply.problem(), "cross-site"),
        }
    }
    // Nothing to protect, and asked by many names.
    assert_eq!(server.send("GET /healthz HTTP/1.1\r\nhost: probe.example", b"").await.status, 200);
    // Reading from a page elsewhere is the browser's to refuse; it does, without a header that allows it.
    let reply = server.send("GET /echo HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example", b"").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn once_there_are_tokens_a_wrong_one_is_refused_even_where_none_is_needed() {
    let server = Server::prepare(|_| {}, &[("first", Role::Admin)]).await.unwrap();
    let token = server.tokens.create("vera", Role::Viewer, None).await.unwrap().token;
    for (credentials, method, expect) in [
        (String::new(), "POST", 200),
        ("\r\nauthorization: Bearer wrong".to_owned(), "POST", 401),
        (format!("\r\nauthorization: Bearer {token}"), "POST", 403),
        (format!("\r\nauthorization: Bearer {token}"), "GET", 200),
    ] {
        let reply = server.send(&format!("{method} /echo HTTP/1.1\r\nhost: localhost{credentials}"), b"").await;
        assert_eq!(reply.status, expect, "{method} {credentials}");
    }
}
