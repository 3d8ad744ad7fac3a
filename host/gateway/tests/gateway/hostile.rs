//! Clients that are slow, wrong, or mean harm.

use std::time::{Duration, Instant};

use mainstay_base::{Random, SeededRandom};
use mainstay_gateway::GatewayOptions;

use crate::support::{Client, Server};

#[tokio::test]
async fn paths_that_climb_or_lie_are_refused() {
    let server = Server::start().await;
    for path in [
        "/echo/../guarded",
        "/echo/./x",
        "/echo/..",
        "/echo/%2e%2e/guarded",
        "/echo/%2E%2E%2Fguarded",
        "/echo/a%2f..%2fb",
        "//echo",
        "/echo//x",
        "/echo/%2fx",
        "/echo/%00",
        "/echo/a%0d%0aset-cookie:x",
        "/echo/%1b",
        "/echo/%ff",
        "/echo/%c0%ae%c0%ae/x",
        "/echo/%",
        "/echo/%zz",
        "/echo?a=%ff",
        "/echo?a=%",
        "/%2e%2e/-/tokens",
    ] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.problem().as_str()), (400, "malformed-path"), "{path}");
    }
    for (path, seen) in [
        ("/echo/a%20b", "/echo/a b"),
        ("/echo/%252e%252e", "/echo/%2e%2e"),
        ("/echo/...", "/echo/..."),
        ("/ech%6f", "/echo"),
        ("/echo/%E2%82%AC", "/echo/€"),
    ] {
        assert_eq!(server.get(path).await.json()["path"], seen, "{path}");
    }
    let query = server.get("/echo?a=1&a=2&b=x+y%2Bz&c&d=%26").await.json()["query"].to_string();
    assert_eq!(query, r#"[["a","1"],["a","2"],["b","x y+z"],["c",""],["d","&"]]"#);
}

#[tokio::test]
async fn heads_have_limits() {
    let server = Server::with(|options| {
        options.limits.uri_bytes_max = 1_000;
        options.limits.headers_max = 20;
        options.limits.head_bytes_max = 16 << 10;
    })
    .await;
    let path = |length: usize| format!("/echo/{}", "x".repeat(length - 6));
    assert_eq!(server.get(&path(1_000)).await.status, 200);
    let reply = server.get(&path(1_001)).await;
    assert_eq!((reply.status, reply.problem().as_str()), (414, "uri-too-long"));
    let headers = |count: usize| -> String { (0..count).map(|number| format!("\r\nx-{number}: y")).collect() };
    assert_eq!(server.send(&format!("GET /echo HTTP/1.1\r\nhost: localhost{}", headers(19)), b"").await.status, 200);
    assert_eq!(server.send(&format!("GET /echo HTTP/1.1\r\nhost: localhost{}", headers(20)), b"").await.status, 431);
    let long = "y".repeat(20 << 10);
    let mut client = server.connect().await;
    // The host may answer and close before all of it was sent.
    let _ =
        client.try_write(format!("GET /echo HTTP/1.1\r\nhost: localhost\r\nx-long: {long}\r\n\r\n").as_bytes()).await;
    assert_eq!(client.reply(false).await.status, 431);
    assert!(client.is_closed_within(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn slow_heads_idle_connections_and_clients_that_do_not_read_are_dropped() {
    let short = |options: &mut GatewayOptions| {
        options.limits.head_read_timeout = Duration::from_millis(200);
        options.limits.idle_timeout = Duration::from_millis(600);
        options.limits.write_stall_timeout = Duration::from_millis(300);
    };
    let server = Server::with(short).await;
    // A header a while, for ever.
    let mut slow = server.connect().await;
    slow.write(b"GET /version HTTP/1.1\r\n").await;
    let began = Instant::now();
    while slow.try_write(b"x-more: 1\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(began.elapsed() < Duration::from_secs(5), "still open");
    }
    assert!(began.elapsed() >= Duration::from_millis(200));
    // Not a byte.
    let mut silent = server.connect().await;
    assert!(!silent.is_closed_within(Duration::from_millis(300)).await);
    assert!(silent.is_closed_within(Duration::from_secs(5)).await);
    // A request, then silence longer than a head may take.
    let mut idle = server.connect().await;
    idle.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(idle.reply(false).await.status, 200);
    tokio::time::sleep(Duration::from_millis(350)).await;
    idle.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(idle.reply(false).await.status, 200);
    assert!(idle.is_closed_within(Duration::from_secs(5)).await);
    // Asks for megabytes and takes none.
    let large = vec![7; 32 << 20];
    let digest = server.blobs.put_bytes(large.into()).await.unwrap().sha256;
    let mut deaf = server.connect().await;
    deaf.write(format!("GET /blob/{digest} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(deaf.is_closed_within(Duration::from_secs(5)).await);
    let text = String::from_utf8(server.get("/metrics").await.body).unwrap();
    for reason in ["slow-head", "idle", "slow-reader"] {
        assert!(text.contains(&format!("mainstay_http_connections_closed_total{{reason=\"{reason}\"}}")), "{reason}");
    }
}

#[tokio::test]
async fn slow_clients_do_not_hold_up_others() {
    let server = Server::start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut client = server.connect().await;
        client.write(b"GET /version HTTP/1.1\r\nx").await;
        slow.push(client);
    }
    let began = Instant::now();
    assert_eq!(server.get("/version").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn connections_have_a_limit_and_the_next_one_waits() {
    let server = Server::with(|options| options.limits.connections_max = 2).await;
    let (first, second) = (server.connect().await, server.connect().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = server.connect().await;
    third.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(!third.is_closed_within(Duration::from_millis(100)).await);
    drop(first);
    assert_eq!(third.reply(false).await.status, 200);
    drop(second);
}

/// Bytes that are a request, or were one until something happened to it.
fn garbage(random: &SeededRandom) -> Vec<u8> {
    const PIECES: &[&str] = &[
        "GET ",
        "POST ",
        "PUT ",
        "HEAD ",
        "CONNECT ",
        "OPTIONS * ",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "/echo",
        "/store/x",
        "/version",
        "/-/tokens",
        "/../",
        "%2e%2e",
        "%00",
        "?a=%ff",
        "http://[::1",
        "http://x:99999/",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        " HTTP/9.9\r\n",
        "\r\n",
        "\n",
        "host: localhost\r\n",
        "host:\r\n",
        "host: a\r\nhost: b\r\n",
        "content-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, x\r\n",
        "\r\n5\r\nabcde\r\n0\r\n\r\n",
        "\r\nffffffffffffffffff\r\n",
        "\r\n-1\r\n",
        "expect: 100-continue\r\n",
        "authorization: Basic %%%\r\n",
        "authorization: Bearer \u{e9}\r\n",
        "range: bytes=9-1\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
        "x: \0\r\n",
        " folded: x\r\n",
        "connection: close\r\n",
        "\r\n\r\n",
        "hello",
    ];
    let mut bytes = Vec::new();
    for _ in 0..1 + random.number() % 9 {
        bytes.extend_from_slice(PIECES[(random.number() % PIECES.len() as u64) as usize].as_bytes());
    }
    for _ in 0..random.number() % 4 {
        let at = (random.number() % (bytes.len() as u64 + 1)) as usize;
        bytes.insert(at, random.number() as u8);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_pieces_of_garbage_change_nothing() {
    let server = Server::with(|options| {
        options.limits.body_idle_timeout = Duration::from_millis(50);
        options.limits.discard_timeout = Duration::from_millis(50);
    })
    .await;
    let address = server.gateway.http_addr();
    let workers = (0..8).map(|seed| {
        tokio::spawn(async move {
            let random = SeededRandom::new(seed);
            for _ in 0..1_250 {
                let mut client = Client::connect(address).await;
                let _ = client.try_write(&garbage(&random)).await;
                if random.number().is_multiple_of(4) {
                    continue;
                }
                // The host answers or closes once nothing more can come.
                use tokio::io::AsyncWriteExt;
                let _ = client.stream.shutdown().await;
                assert!(client.is_closed_within(Duration::from_secs(10)).await);
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.unwrap();
    }
    assert_eq!(server.get("/version").await.status, 200);
    // The request that looks is itself in flight.
    for attempt in 0.. {
        if server.metric("mainstay_http_requests_in_flight").await == 1.0 {
            break;
        }
        assert!(attempt < 500, "places are not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
