//! Every limit that a server or many requests can reach, at n and at one more. Those of options and addresses are tested beside
//! them.

use std::time::Duration;

use mainstay_base::ErrorKind;
use mainstay_inference::InferRequest;
use mainstay_traffic::Backend;
use mainstay_upstreams::{FailureKind, UpstreamOptions, Upstreams, limits};

use crate::support::*;

const FAULT: (ErrorKind, bool, bool) = (ErrorKind::Internal, false, true);

/// A server that answers each request with these bytes, and keeps its connections.
async fn keeping(bytes: Vec<u8>) -> Server {
    Server::start(move |mut visit| {
        let bytes = bytes.clone();
        async move {
            while visit.request().await.is_some() {
                visit.write(&bytes).await;
            }
        }
    })
    .await
}

/// A server that answers when it is let, each request once.
async fn gated() -> (Server, std::sync::Arc<tokio::sync::Semaphore>) {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let let_by = gate.clone();
    let server = Server::start(move |mut visit| {
        let gate = gate.clone();
        async move {
            while visit.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                visit.write(&answer(GOOD)).await;
            }
        }
    })
    .await;
    (server, let_by)
}

#[tokio::test]
async fn an_answer_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &GOOD[..0x50],
        GOOD.len() - 0x50,
        &GOOD[0x50..]
    );
    for bytes in [answer(GOOD), chunked.into_bytes()] {
        let server = keeping(bytes).await;
        let upstream =
            |answer_bytes_max| server.upstream_with(UpstreamOptions { answer_bytes_max, ..UpstreamOptions::default() });
        assert_eq!(upstream(GOOD.len()).infer(&request(), &ask()).await.unwrap(), good());
        let small = upstream(GOOD.len() - 1);
        let limit = format!("more than {} bytes", GOOD.len() - 1);
        check_failure(&small, FailureKind::Unreadable, FAULT, &limit).await;
        assert_eq!(small.statistics().connections_open, 0, "the rest is not read");
    }
}

#[tokio::test]
async fn an_event_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let event = "data: {\"word\":\"w\"}";
    let bytes = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{event}\n\n",
        event.len() + 2
    );
    let server = keeping(bytes.into()).await;
    let parts = async |event_bytes_max| {
        let upstream = server.upstream_with(UpstreamOptions { event_bytes_max, ..UpstreamOptions::default() });
        let mut parts = upstream.stream(&text("hi"), &ask()).await.unwrap();
        futures::StreamExt::next(&mut parts).await.unwrap()
    };
    assert!(parts(event.len()).await.is_ok());
    let failure = parts(event.len() - 1).await.unwrap_err();
    assert_eq!(seen(&failure), FAULT, "{failure}");
}

#[tokio::test]
async fn so_many_requests_have_a_connection_and_so_many_more_wait() {
    let (server, gate) = gated().await;
    let options = UpstreamOptions { connections_max: 2, waiting_max: 3, ..UpstreamOptions::default() };
    let upstream = server.upstream_with(options);
    let asking = (0..5).map(|_| {
        let upstream = upstream.clone();
        tokio::spawn(async move { upstream.infer(&request(), &ask()).await.map(drop) })
    });
    let asking: Vec<_> = asking.collect();
    until("two connections were made", || server.accepted() == 2).await;
    until("five requests were under way", || upstream.statistics().in_flight == 5).await;
    let expect = (ErrorKind::Exhausted, false, false);
    check_failure(&upstream, FailureKind::Busy, expect, "all 2 connections").await;
    gate.add_permits(5);
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    let statistics = upstream.statistics();
    assert_eq!((statistics.connections_made, statistics.connections_idle, server.accepted()), (2, 2, 2));
}

#[tokio::test]
async fn who_waits_for_a_connection_waits_until_the_deadline() {
    let (server, gate) = gated().await;
    let upstream = server.upstream_with(UpstreamOptions { connections_max: 1, ..UpstreamOptions::default() });
    let first = tokio::spawn({
        let upstream = upstream.clone();
        async move { upstream.infer(&request(), &ask()).await.map(drop) }
    });
    until("the connection was taken", || server.accepted() == 1).await;
    let failure = upstream.infer(&request(), &ask_ms(50)).await.unwrap_err();
    assert_eq!(seen(&failure), (ErrorKind::Unavailable, false, true));
    gate.add_permits(1);
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let server = keeping(answer(GOOD)).await;
    let upstream = server.upstream_with(UpstreamOptions { idle_timeout_ms: 100, ..UpstreamOptions::default() });
    upstream.infer(&request(), &ask()).await.unwrap();
    assert_eq!((upstream.statistics().connections_open, upstream.statistics().connections_idle), (1, 1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    upstream.infer(&request(), &ask()).await.unwrap();
    assert_eq!(server.accepted(), 1);
    until("the connection was closed", || upstream.statistics().connections_open == 0).await;
    upstream.infer(&request(), &ask()).await.unwrap();
    assert_eq!((server.accepted(), upstream.statistics().failures.len()), (2, 0));
}

#[tokio::test]
async fn connections_are_closed_with_the_last_upstream_of_a_server() {
    let (tell, mut closed) = moments();
    let server = Server::start(move |mut visit| {
        let tell = tell.clone();
        async move {
            visit.request().await;
            visit.write(&answer(GOOD)).await;
            visit.closed().await;
            tell();
        }
    })
    .await;
    let (upstreams, options) = (Upstreams::default(), UpstreamOptions::default());
    let one = upstreams.connect(&server.url(), &options).unwrap();
    let other = upstreams.open(&format!("http://{}/v2/models/other", server.address), &options).unwrap();
    one.infer(&request(), &ask()).await.unwrap();
    assert_eq!(other.statistics().connections_idle, 1, "the server's connections are shared");
    assert_eq!(upstreams.statistics(), [other.statistics()]);
    drop(one);
    assert!(closed.try_recv().is_err());
    drop(other);
    closed.recv().await.unwrap();
    assert!(upstreams.statistics().is_empty());
}

#[tokio::test]
async fn there_may_be_as_many_servers_as_the_limit_and_not_one_more() {
    let (upstreams, options) = (Upstreams::default(), UpstreamOptions::default());
    let open = |number: usize| upstreams.open(&format!("http://a{number}"), &options);
    let mut all: Vec<_> = (0..limits::SERVERS_MAX).map(|number| open(number).unwrap()).collect();
    assert_eq!(open(limits::SERVERS_MAX).err().unwrap().kind(), ErrorKind::Exhausted);
    open(0).unwrap();
    all.pop();
    open(limits::SERVERS_MAX).unwrap();
}

#[tokio::test]
async fn an_answer_may_have_as_many_headers_as_the_limits_and_not_one_more() {
    async fn check(headers: &str, expect: bool) {
        let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n{GOOD}", GOOD.len());
        let server = keeping(bytes.into()).await;
        let answered = server.upstream().infer(&request(), &ask()).await;
        assert_eq!(answered.is_ok(), expect, "{} bytes, {answered:?}", headers.len());
        assert!(answered.is_ok_and(|answer| answer == good()) || !expect);
    }
    let many = |count: usize| "a: b\r\n".repeat(count - 1);
    check(&many(limits::ANSWER_HEADERS_MAX), true).await;
    check(&many(limits::ANSWER_HEADERS_MAX + 1), false).await;
    let others = "content-length".len() + GOOD.len().to_string().len() + "a".len();
    let long = |bytes: usize| format!("a: {}\r\n", "b".repeat(bytes - others));
    check(&long(limits::ANSWER_HEAD_BYTES_MAX), true).await;
    check(&long(limits::ANSWER_HEAD_BYTES_MAX + 1), false).await;
    check(&long(limits::READ_AHEAD_BYTES_MAX * 2), false).await;
}

#[tokio::test]
async fn a_refusal_is_read_as_far_as_the_limit() {
    async fn check(bytes: usize, connections: usize) {
        let body = "x".repeat(bytes);
        let server = keeping(format!("HTTP/1.1 400 No\r\ncontent-length: {bytes}\r\n\r\n{body}").into()).await;
        let upstream = server.upstream();
        for _ in 0..2 {
            let failure = upstream.infer(&request(), &ask()).await.unwrap_err();
            assert_eq!(seen(&failure), (ErrorKind::Invalid, false, false));
        }
        assert_eq!(server.accepted(), connections, "{bytes}");
    }
    check(limits::REFUSAL_BYTES_MAX, 1).await;
    check(limits::REFUSAL_BYTES_MAX + 1, 2).await;
}

#[tokio::test]
async fn a_description_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    async fn check(bytes: usize, expect: bool) {
        let body = format!("{}{}", r#"{"name":"m"}"#, " ".repeat(bytes - 12));
        let described = keeping(answer(&body)).await.upstream().metadata("", None, in_ms(5_000)).await;
        assert_eq!(described.is_ok(), expect, "{bytes}");
    }
    check(limits::METADATA_BYTES_MAX, true).await;
    check(limits::METADATA_BYTES_MAX + 1, false).await;
}

#[tokio::test]
async fn so_many_models_are_remembered() {
    let server = crate::behaved::Behaved::start(crate::behaved::Speaks::Http).await;
    let upstream = open(&format!("http://{}", server.address), UpstreamOptions::default());
    let stream = async |model: usize| {
        let request = InferRequest { model: format!("m{model}"), ..(*text("hi")).clone() };
        let before = upstream.statistics().requests;
        let parts = upstream.stream(&request.into(), &ask()).await.unwrap();
        assert_eq!(futures::StreamExt::count(parts).await, 1);
        // One for the stream, and one more where the model had to be described.
        upstream.statistics().requests - before == 1
    };
    for model in 0..limits::METADATA_MODELS_MAX {
        assert!(!stream(model).await);
    }
    assert!(stream(0).await);
    assert!(!stream(limits::METADATA_MODELS_MAX).await);
    assert!(!stream(0).await);
}

/// Let time pass at once. Not while a socket is waited for: there it would run away.
async fn pass(ms: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(ms)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_description_is_believed_for_so_long() {
    let server = crate::behaved::Behaved::start(crate::behaved::Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let far = || mainstay_traffic::Ask {
        deadline: (tokio::time::Instant::now() + Duration::from_secs(600)).into_std(),
        ..ask()
    };
    let requests = async || {
        let before = upstream.statistics().requests;
        assert_eq!(futures::StreamExt::count(upstream.stream(&text("hi"), &far()).await.unwrap()).await, 1);
        upstream.statistics().requests - before
    };
    assert_eq!(requests().await, 2);
    pass(limits::METADATA_AGE_MS_MAX - 5_000).await;
    assert_eq!(requests().await, 1);
    pass(5_000).await;
    assert_eq!(requests().await, 2);
    assert_eq!(requests().await, 1);
}

#[tokio::test]
async fn that_a_model_is_not_described_is_believed_too() {
    let server = Server::start(|mut visit| async move {
        while let Some((head, _)) = visit.request().await {
            match head.starts_with("GET") {
                true => visit.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await,
                false => {
                    visit
                        .write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n")
                        .await
                }
            }
        }
    })
    .await;
    let upstream = server.upstream();
    for _ in 0..3 {
        assert_eq!(futures::StreamExt::count(upstream.stream(&text("hi"), &ask()).await.unwrap()).await, 0);
    }
    assert_eq!(upstream.statistics().requests, 4);
}

#[tokio::test]
async fn who_waited_for_a_connection_passes_on_the_time_that_is_left() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut visit| {
        let tell = tell.clone();
        async move {
            while let Some((head, _)) = visit.request().await {
                let left = head.lines().find_map(|line| line.strip_prefix("inference-timeout-ms: "));
                tell.send(left.unwrap().parse::<u64>().unwrap()).unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
                visit.write(&answer(GOOD)).await;
            }
        }
    })
    .await;
    let upstream = server.upstream_with(UpstreamOptions { connections_max: 1, ..UpstreamOptions::default() });
    let both = futures::future::join_all([10_000, 10_000].map(|ms| {
        let upstream = upstream.clone();
        async move { upstream.infer(&request(), &ask_ms(ms)).await.map(drop) }
    }));
    assert!(both.await.iter().all(Result::is_ok));
    let (first, second) = (told.recv().await.unwrap(), told.recv().await.unwrap());
    assert!(first <= 10_000 && second <= 9_700, "{first} {second}");
}
