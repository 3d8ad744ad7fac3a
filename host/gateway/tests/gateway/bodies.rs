//! Bodies in all their ways: read first, stored between two calls, sent from the store.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{INLINE_BYTES, Reply, STORED_BYTES_MAX, Server, request};

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_plugin_sees_small_bodies_and_hears_of_large_ones() {
    let server = Server::start().await;
    let limit = INLINE_BYTES as usize;
    for (length, expect) in [
        (0, json!("empty")),
        (1, json!({"bytes": 1})),
        (limit, json!({"bytes": limit})),
        (limit + 1, json!({"waiting": limit + 1})),
        (300_000, json!({"waiting": 300_000})),
    ] {
        let reply = server.send("POST /echo HTTP/1.1\r\nhost: localhost", &pattern(length)).await;
        assert_eq!((reply.status, &reply.json()["body"]), (200, &expect));
        assert_eq!(reply.header("connection"), None, "the rest of the body is out of the way");
    }
    let mut client = server.connect().await;
    client
        .write(b"POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.reply(false).await.json()["body"], json!({"waiting": null}));
    client.write(b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.reply(false).await.json()["body"], "empty");
}

#[tokio::test]
async fn what_a_plugin_says_about_how_bytes_travel_is_dropped() {
    let server = Server::start().await;
    let reply = server.get("/echo").await;
    assert_eq!(reply.header("x-plugin"), Some("fake"));
    assert_eq!(reply.header("connection"), None);
    assert_eq!(reply.header("x-bad-value"), None);
    assert_eq!(reply.header("b"), None);
    assert_eq!(reply.header("content-length").unwrap(), reply.body.len().to_string());
}

#[tokio::test]
async fn a_body_goes_into_the_blob_store_and_comes_back() {
    let server = Server::start().await;
    for length in [0, 10, 5_000, STORED_BYTES_MAX as usize] {
        let body = pattern(length);
        let reply = server.send("PUT /store/x HTTP/1.1\r\nhost: localhost", &body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let stored = reply.json();
        assert_eq!(stored["sha256"], sha256(&body));
        assert_eq!(stored["size"], length);
        let reply = server.get(&format!("/blob/{}", sha256(&body))).await;
        assert_eq!(reply.status, 200);
        assert!(reply.body == body);
        assert_eq!(reply.header("etag"), Some(format!("\"{}\"", sha256(&body)).as_str()));
        assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        assert_eq!(reply.header("content-type"), Some("text/plain"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
    }
    let mut client = server.connect().await;
    client.write(b"PUT /store/x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(client.reply(false).await.json()["sha256"], sha256(b"abcde"));
}

#[tokio::test]
async fn a_body_that_is_not_what_was_announced_is_refused() {
    let server = Server::start().await;
    let body = pattern(5_000);
    let digest = sha256(&body);
    for (header, bytes, expect) in [
        (digest.clone(), body.as_slice(), (201, "")),
        (digest.clone(), &body[1..], (400, "body-differs")),
        (digest.clone(), &body[4_900..], (400, "body-differs")),
        ("zz".to_owned(), body.as_slice(), (400, "body-differs")),
    ] {
        let head = format!("PUT /store/x HTTP/1.1\r\nhost: localhost\r\nx-sha256: {header}");
        let reply = server.send(&head, bytes).await;
        let slug = if reply.status == 201 { String::new() } else { reply.problem() };
        assert_eq!((reply.status, slug.as_str()), expect, "{header} {}", bytes.len());
    }
    let again = server.send("PUT /store/again HTTP/1.1\r\nhost: localhost", &body).await;
    assert_eq!((again.status, again.problem().as_str()), (500, "plugin-fault"));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_with_an_answer_that_arrives() {
    let server = Server::start().await;
    let large = pattern(STORED_BYTES_MAX as usize + 1);
    // Announced, and not announced.
    let reply = server.send("PUT /store/x HTTP/1.1\r\nhost: localhost", &large).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "body-too-large"));
    let mut client = server.connect().await;
    let mut bytes = b"PUT /store/x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    bytes.extend_from_slice(format!("{:x}\r\n", large.len()).as_bytes());
    bytes.extend_from_slice(&large);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    client.write(&bytes).await;
    let reply = client.reply(false).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "body-too-large"));
    // A plugin that wants nothing of it: its own answer, and the connection goes on.
    let mut client = server.connect().await;
    client.write(&request("PUT /store/unwanted HTTP/1.1\r\nhost: localhost", &large)).await;
    let reply = client.reply(false).await;
    assert_eq!((reply.status, reply.problem().as_str()), (404, "not-found"));
    client.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(client.reply(false).await.status, 200);
}

#[tokio::test]
async fn what_is_too_long_to_be_dropped_ends_the_connection() {
    let server = Server::with(|options| options.limits.discard_bytes_max = 10_000).await;
    let mut client = server.connect().await;
    client.write(b"PUT /store/unwanted HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000\r\n\r\nabc").await;
    let reply = client.reply(false).await;
    assert_eq!((reply.status, reply.header("connection")), (404, Some("close")));
    assert!(client.is_closed_within(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_is_asked_or_refused() {
    let server = Server::start().await;
    let expecting = |path: &str| {
        format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n")
    };
    let mut client = server.connect().await;
    client.write(expecting("/store/x").as_bytes()).await;
    assert_eq!(client.reply(false).await.status, 100);
    client.write(&pattern(5_000)).await;
    assert_eq!(client.reply(false).await.status, 201);
    // Refused without a byte of the body.
    for (path, expect) in [("/store/unwanted", 404), ("/nothing", 404), ("/version", 405)] {
        let mut client = server.connect().await;
        client.write(expecting(path).as_bytes()).await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.header("connection")), (expect, Some("close")));
    }
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_and_one_that_stalls_is_told() {
    let server = Server::with(|options| options.limits.body_idle_timeout = Duration::from_millis(100)).await;
    for path in ["/store/x", "/echo"] {
        let mut client = server.connect().await;
        let method = if path == "/echo" { "POST" } else { "PUT" };
        client
            .write(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\nabc").as_bytes())
            .await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.problem().as_str()), (408, "body-timeout"), "{path}");
    }
    let mut client = server.connect().await;
    client.write(b"PUT /store/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000\r\n\r\nabc").await;
    drop(client);
    // The host is as before.
    assert_eq!(server.send("PUT /store/x HTTP/1.1\r\nhost: localhost", &pattern(9_000)).await.status, 201);
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let server = Server::with(|options| {
        options.limits.body_idle_timeout = Duration::from_millis(100);
        options.limits.body_bytes_per_second_min = 1_000;
    })
    .await;
    let mut client = server.connect().await;
    client.write(b"PUT /store/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000\r\n\r\n").await;
    for _ in 0..40 {
        if client.try_write(b"x").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reply = client.reply(false).await;
    assert_eq!((reply.status, reply.problem().as_str()), (408, "body-timeout"));
}

#[tokio::test]
async fn ranges_conditions_and_head() {
    let server = Server::start().await;
    let body = pattern(100_000);
    let digest = server.blobs.put_bytes(Bytes::from(body.clone())).await.unwrap().sha256;
    let etag = format!("\"{digest}\"");
    let get = async |method: &str, headers: &str| {
        server.send(&format!("{method} /blob/{digest} HTTP/1.1\r\nhost: localhost{headers}"), b"").await
    };
    let reply = get("GET", "\r\nrange: bytes=10-19").await;
    assert_eq!((reply.status, reply.body.as_slice()), (206, &body[10..20]));
    assert_eq!(reply.header("content-range"), Some("bytes 10-19/100000"));
    assert_eq!(reply.header("content-length"), Some("10"));
    let reply = get("GET", "\r\nrange: bytes=-5").await;
    assert_eq!((reply.status, reply.body.as_slice()), (206, &body[99_995..]));
    let reply = get("GET", &format!("\r\nrange: bytes=99990-\r\nif-range: {etag}")).await;
    assert_eq!((reply.status, reply.body.as_slice()), (206, &body[99_990..]));
    let reply = get("GET", "\r\nrange: bytes=0-9\r\nif-range: \"other\"").await;
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
    let reply = get("GET", "\r\nrange: bytes=100000-").await;
    assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */100000")));
    assert_eq!(reply.problem(), "range-not-satisfiable");
    let reply = get("GET", &format!("\r\nif-none-match: {etag}")).await;
    assert_eq!((reply.status, reply.header("etag")), (304, Some(etag.as_str())));
    assert_eq!(get("GET", "\r\nif-match: \"other\"").await.problem(), "precondition-failed");
    let reply = get("HEAD", "").await;
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("100000")));
    assert_eq!(reply.header("etag"), Some(etag.as_str()));
}

#[tokio::test]
async fn head_says_what_get_would() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in [
        "/version",
        "/fail/teapot",
        "/fail/not-found",
        "/nothing",
        "/healthz",
        "/-/version",
        "/echo/%2e%2e",
        "/fail/no-content",
    ] {
        client.write(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
        let get = client.reply(false).await;
        client.write(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
        let head = client.reply(true).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        if get.status == 200 && path != "/healthz" {
            assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        }
    }
    // The plugin was asked with GET, which is what it claims.
    client.write(b"HEAD /echo HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(client.reply(true).await.status, 200);
}

#[track_caller]
fn check_damaged(reply: &Reply, digest: &str) {
    assert_eq!((reply.status, reply.problem().as_str()), (410, "damaged-blob"));
    assert!(reply.json()["detail"].as_str().unwrap().contains(digest));
    assert_eq!(reply.header("retry-after"), None);
}

#[tokio::test]
async fn a_damaged_blob_is_cut_before_its_end() {
    let server = Server::start().await;
    // The small one is checked before it is sent, the large one while it is.
    for length in [1_000, 200_000, 20 << 20] {
        let digest = server.blobs.put_bytes(Bytes::from(pattern(length))).await.unwrap().sha256;
        server.damage(&digest);
        let mut client = server.connect().await;
        client.write(format!("GET /blob/{digest} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
        let got = tokio::time::timeout(Duration::from_secs(10), client.try_reply(false)).await.unwrap();
        let taken_for_whole = got.as_ref().is_ok_and(|reply| reply.status < 400);
        assert!(!taken_for_whole, "{length}: a client must not take damaged bytes for whole ones");
        if let Ok(reply) = got {
            check_damaged(&reply, &digest);
        }
        // What was found is known: asking again is answered at once, and the client has no reason to go on asking.
        check_damaged(&server.get(&format!("/blob/{digest}")).await, &digest);
    }
}

#[tokio::test]
async fn many_streams_at_once() {
    let server = Server::start().await;
    let body = pattern(400_000);
    let sent = (0..24).map(|number| {
        let mut body = body.clone();
        body[0] = number;
        let server = &server;
        async move {
            let stored = server.send("PUT /store/x HTTP/1.1\r\nhost: localhost", &body).await.json();
            assert_eq!(stored["sha256"], sha256(&body));
            assert!(server.get(&format!("/blob/{}", sha256(&body))).await.body == body);
        }
    });
    futures::future::join_all(sent).await;
}

#[tokio::test]
async fn bodies_in_memory_have_a_budget() {
    let server = Server::with(|options| {
        options.limits.buffered_bytes_max = 2_048;
        options.limits.inline_body_timeout = Duration::from_millis(300);
    })
    .await;
    // Two clients that send half of what they announced take the whole budget until they are given up.
    let mut stuck = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.write(b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc").await;
        stuck.push(client);
    }
    let began = std::time::Instant::now();
    let reply = server.send("POST /echo HTTP/1.1\r\nhost: localhost", &pattern(1_000)).await;
    assert_eq!(reply.status, 200, "there is room once they were given up");
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    for mut client in stuck {
        assert_eq!(client.reply(false).await.problem(), "body-timeout");
    }
}
