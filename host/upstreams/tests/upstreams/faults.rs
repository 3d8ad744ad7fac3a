//! Servers that do not behave: each failure is told as what it is, and nothing hangs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mainstay_base::ErrorKind;
use mainstay_traffic::Backend;
use mainstay_upstreams::{Dial, FailureKind, UpstreamOptions, Upstreams, Wire};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::*;

const FAULT: (ErrorKind, bool, bool) = (ErrorKind::Internal, false, true);
const AGAIN: (ErrorKind, bool, bool) = (ErrorKind::Unavailable, true, true);
const BROKEN: (ErrorKind, bool, bool) = (ErrorKind::Unavailable, false, true);

/// One request to a server that answers with these bytes and closes.
async fn check(bytes: impl Into<Vec<u8>>, kind: FailureKind, expect: (ErrorKind, bool, bool), words: &str) {
    let server = Server::saying(bytes).await;
    check_failure(&server.upstream(), kind, expect, words).await;
    assert_eq!(server.accepted(), 1, "a failure is not hidden by asking again");
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_at_the_deadline() {
    let (tell, mut closed) = moments();
    let server = Server::start(move |mut visit| {
        let tell = tell.clone();
        async move {
            visit.closed().await;
            tell();
        }
    })
    .await;
    let upstream = server.upstream();
    let deadline = in_ms(150);
    let failure = upstream.infer(&request(), &ask_ms(150)).await.unwrap_err();
    assert_eq!(seen(&failure), BROKEN, "{failure}");
    assert_eq!(only_failure(&upstream.statistics()), FailureKind::Late);
    let left = closed.recv().await.unwrap();
    assert!(left >= deadline && left < deadline + Duration::from_millis(60), "{:?}", left - deadline);
}

#[tokio::test]
async fn what_is_late_already_is_not_sent() {
    let server = Server::saying(answer(GOOD)).await;
    let upstream = server.upstream();
    let failure = upstream.infer(&request(), &ask_ms(0)).await.unwrap_err();
    assert_eq!((seen(&failure), server.accepted()), (BROKEN, 0));
}

#[tokio::test]
async fn a_slow_drip_is_an_answer_when_it_is_in_time_and_else_is_late() {
    async fn check(deadline_ms: u64, expect: Option<FailureKind>) {
        let server = Server::start(|mut visit| async move {
            visit.request().await;
            for byte in answer(GOOD).chunks(8) {
                visit.write(byte).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let upstream = server.upstream();
        let began = Instant::now();
        let answered = upstream.infer(&request(), &ask_ms(deadline_ms)).await;
        assert!(began.elapsed() < Duration::from_millis(deadline_ms + 60));
        assert_eq!(answered.ok(), expect.is_none().then(good));
        assert_eq!(upstream.statistics().failures.first().map(|(kind, _)| *kind), expect);
    }
    check(20_000, None).await;
    check(80, Some(FailureKind::Late)).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_may_be_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let upstream = open(&url, UpstreamOptions::default());
    check_failure(&upstream, FailureKind::Unreachable, AGAIN, &url).await;
    assert_eq!(upstream.statistics().connections_open, 0);
}

/// Connections that are never made.
struct Nowhere;

#[async_trait]
impl Dial for Nowhere {
    async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn Wire>> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_made_in_time_is_given_up() {
    for url in ["http://a.example", "grpc://a.example"] {
        let options = UpstreamOptions { connect_timeout_ms: 300, ..UpstreamOptions::default() };
        let upstream = Upstreams::new(Arc::new(Nowhere)).open(url, &options).unwrap();
        let began = tokio::time::Instant::now();
        let deadline = (began + Duration::from_secs(10)).into_std();
        let asked = mainstay_traffic::Ask { deadline, ..ask() };
        let failure = upstream.infer(&request(), &asked).await.unwrap_err();
        assert_eq!((seen(&failure), began.elapsed().as_millis()), (AGAIN, 300), "{failure}");
        assert_eq!(only_failure(&upstream.statistics()), FailureKind::Unreachable);
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_may_be_tried_again_if_that_does_no_harm() {
    let server = Server::saying("").await;
    check_failure(&server.upstream(), FailureKind::Reset, AGAIN, &server.url()).await;
    let once = UpstreamOptions { is_idempotent: false, ..UpstreamOptions::default() };
    check_failure(&server.upstream_with(once), FailureKind::Reset, BROKEN, &server.url()).await;
}

#[tokio::test]
async fn a_connection_that_is_reset_is_the_same() {
    let server = Server::start(|mut visit| async move {
        visit.request().await;
        // Closed in this way, the kernel tells the other side that it is reset.
        visit.stream.set_zero_linger().unwrap();
    })
    .await;
    check_failure(&server.upstream(), FailureKind::Reset, AGAIN, &server.url()).await;
}

#[tokio::test]
async fn half_an_answer_is_none() {
    check("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", FailureKind::CutOff, BROKEN, "broke off").await;
    check("HTTP/1.1 200 OK\r\ncontent-le", FailureKind::CutOff, BROKEN, "broke off").await;
    check("H", FailureKind::CutOff, BROKEN, "broke off").await;
    check(&answer(GOOD)[..100], FailureKind::CutOff, BROKEN, "broke off").await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"mod";
    check(chunked, FailureKind::CutOff, BROKEN, "broke off").await;
}

#[tokio::test]
async fn garbage_is_no_answer() {
    check("\0\x01\x02\x03 garbage\r\n\r\n", FailureKind::Unreadable, FAULT, "Open Inference Protocol").await;
    check("SSH-2.0-OpenSSH_9.6\r\n\r\n", FailureKind::Unreadable, FAULT, "Open Inference Protocol").await;
    for body in ["", "x", "{}", "[]", "null", "{\"outputs\":3}", "<html></html>", "\u{feff}{}", GOOD.split_at(80).0] {
        check(answer(body), FailureKind::Unreadable, FAULT, "Open Inference Protocol").await;
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n";
    check(chunked, FailureKind::Unreadable, FAULT, "chunk").await;
    let coded = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}";
    check(coded, FailureKind::Unreadable, FAULT, "encoded").await;
}

#[tokio::test]
async fn lengths_that_do_not_add_up_are_found() {
    async fn lies(header: &str, json: &str, tail: &[u8]) {
        let length = json.len() + tail.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ninference-header-content-length: {header}\r\n\r\n");
        check([head.as_bytes(), json.as_bytes(), tail].concat(), FailureKind::Unreadable, FAULT, "/v2/models/m").await;
    }
    let json = |datatype: &str, shape: &str, size: i64| {
        format!(
            r#"{{"model_name":"m","outputs":[{{"name":"y","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let whole = json("FP32", "[1]", 4);
    let length = whole.len();
    lies(&(length + 5).to_string(), &whole, &[0; 4]).await;
    lies(&(length - 1).to_string(), &whole, &[0; 4]).await;
    lies("18446744073709551615", &whole, &[0; 4]).await;
    lies("-1", &whole, &[0; 4]).await;
    lies("x", &whole, &[0; 4]).await;
    lies("", &whole, &[0; 4]).await;
    lies(&length.to_string(), &whole, &[0; 3]).await;
    lies(&length.to_string(), &whole, &[0; 5]).await;
    for (datatype, shape, size) in [
        ("FP32", "[2]", 4),
        ("FP32", "[4611686018427387904,4]", 4),
        ("FP32", "[-1]", 4),
        ("FP32", "[1]", -4),
        ("BYTES", "[1]", 4),
        ("BYTES", "[2]", 4),
        ("NONE", "[1]", 4),
    ] {
        let json = json(datatype, shape, size);
        lies(&json.len().to_string(), &json, &[1, 0, 0, 0]).await;
    }
}

#[tokio::test]
async fn an_answer_to_another_request_is_found_by_its_id() {
    let server = Server::saying(answer(&GOOD.replacen('{', r#"{"id":"8","#, 1))).await;
    let mut request = (*request()).clone();
    request.id = Some("7".into());
    let upstream = server.upstream();
    let failure = upstream.infer(&request.into(), &ask()).await.unwrap_err();
    assert_eq!((seen(&failure), only_failure(&upstream.statistics())), (FAULT, FailureKind::Unreadable));
}

#[tokio::test]
async fn neither_redirects_nor_upgrades_are_followed() {
    let elsewhere = Server::saying(answer(GOOD)).await;
    let redirect = format!("HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    check(redirect, FailureKind::Unreadable, FAULT, "redirects").await;
    assert_eq!(elsewhere.accepted(), 0);
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    check(upgrade, FailureKind::Unreadable, FAULT, "upgrades").await;
}

#[tokio::test]
async fn a_status_is_told_as_what_it_is() {
    async fn status(status: &str, body: &str, kind: FailureKind, expect: (ErrorKind, bool, bool), words: &str) {
        let length = body.len();
        let bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        check(bytes, kind, expect, words).await;
    }
    let busy = r#"{"error":"too busy"}"#;
    status("503 No", busy, FailureKind::TurnedAway, AGAIN, "answered 503: too busy").await;
    status("429 No", "", FailureKind::TurnedAway, (ErrorKind::Exhausted, true, true), "429").await;
    let wrong = r#"{"error":"bad shape"}"#;
    status("400 No", wrong, FailureKind::Sender, (ErrorKind::Invalid, false, false), "bad shape").await;
    status("404 No", "no such model", FailureKind::Sender, (ErrorKind::NotFound, false, false), "no such model").await;
    status("500 No", "\u{0}", FailureKind::Failed, FAULT, "answered 500").await;
    // Its words are lost, the status is not.
    check("HTTP/1.1 503 No\r\ncontent-length: 10\r\n\r\nx", FailureKind::TurnedAway, AGAIN, "answered 503").await;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    // The first connection answers once and closes, which is seen before the next request is sent.
    let server = Server::start(|mut visit| async move {
        let answers = if visit.number == 0 { 1 } else { 100 };
        for _ in 0..answers {
            if visit.request().await.is_none() {
                return;
            }
            visit.write(&answer(GOOD)).await;
        }
    })
    .await;
    let upstream = server.upstream();
    upstream.infer(&request(), &ask()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    upstream.infer(&request(), &ask()).await.unwrap();
    let statistics = upstream.statistics();
    assert_eq!((statistics.connections_made, statistics.resent, statistics.failures.len()), (2, 0, 0));
}

/// Each connection answers one request; a second one on it is read, and then the connection is closed.
async fn closing_at_the_second() -> Server {
    Server::start(|mut visit| async move {
        visit.request().await;
        visit.write(&answer(GOOD)).await;
        visit.request().await;
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_under_a_request_is_replaced_once() {
    let server = closing_at_the_second().await;
    let upstream = server.upstream();
    for _ in 0..10 {
        assert_eq!(upstream.infer(&request(), &ask()).await.unwrap(), good());
    }
    let statistics = upstream.statistics();
    assert_eq!((statistics.resent, statistics.failures.len(), server.accepted()), (9, 0, 10));
    let once = UpstreamOptions { is_idempotent: false, ..UpstreamOptions::default() };
    let upstream = server.upstream_with(once);
    upstream.infer(&request(), &ask()).await.unwrap();
    check_failure(&upstream, FailureKind::Reset, BROKEN, "without an answer").await;
}

#[tokio::test]
async fn a_fresh_connection_that_fails_as_well_is_a_failure() {
    let server = Server::start(|mut visit| async move {
        if visit.number == 0 {
            visit.request().await;
            visit.write(&answer(GOOD)).await;
        }
        visit.request().await;
    })
    .await;
    let upstream = server.upstream();
    upstream.infer(&request(), &ask()).await.unwrap();
    check_failure(&upstream, FailureKind::Reset, AGAIN, "without an answer").await;
    assert_eq!((upstream.statistics().resent, server.accepted()), (1, 2));
}

#[tokio::test]
async fn what_comes_unasked_on_a_kept_connection_is_never_an_answer() {
    let server = Server::start(|mut visit| async move {
        visit.request().await;
        let twice = [answer(GOOD), answer(&GOOD.replace("[7]", "[8]"))].concat();
        visit.write(&twice).await;
        visit.closed().await;
    })
    .await;
    let upstream = server.upstream();
    for _ in 0..5 {
        assert_eq!(upstream.infer(&request(), &ask()).await.unwrap(), good());
    }
    assert_eq!((upstream.statistics().connections_made, upstream.statistics().failures.len()), (5, 0));
}

#[tokio::test]
async fn who_goes_away_closes_the_connection() {
    let (tell_asked, mut asked) = moments();
    let (tell_closed, mut closed) = moments();
    let server = Server::start(move |mut visit| {
        let (tell_asked, tell_closed) = (tell_asked.clone(), tell_closed.clone());
        async move {
            visit.request().await;
            tell_asked();
            visit.closed().await;
            tell_closed();
        }
    })
    .await;
    let upstream = server.upstream();
    for _ in 0..5 {
        let asking = tokio::spawn({
            let upstream = upstream.clone();
            async move { upstream.infer(&request(), &ask()).await }
        });
        asked.recv().await.unwrap();
        let gone = Instant::now();
        asking.abort();
        let after = closed.recv().await.unwrap() - gone;
        assert!(after < Duration::from_millis(50), "{after:?}");
    }
    assert_eq!(upstream.statistics().cancelled, 5);
}

#[tokio::test]
async fn what_breaks_does_not_hold_back_what_does_not() {
    // Every third connection hangs, every third is cut off.
    let server = Server::start(|mut visit| async move {
        visit.request().await;
        match visit.number % 3 {
            0 => visit.write(&answer(GOOD)).await,
            1 => visit.write(&answer(GOOD)[..60]).await,
            _ => visit.closed().await,
        }
    })
    .await;
    let upstream = server.upstream();
    let asked = (0..60).map(|_| {
        let upstream = upstream.clone();
        async move { upstream.infer(&request(), &ask_ms(1_000)).await.is_ok() }
    });
    let answered = futures::future::join_all(asked).await.into_iter().filter(|is_answered| *is_answered).count();
    let statistics = upstream.statistics();
    assert_eq!((answered, server.accepted.load(Ordering::SeqCst)), (20, 60));
    assert_eq!((statistics.failed(FailureKind::CutOff), statistics.failed(FailureKind::Late)), (20, 20));
    assert_eq!((statistics.in_flight, statistics.connections_open), (0, statistics.connections_idle));
}

/// Connections within this process, to a server that says these bytes.
struct Says(Vec<u8>);

#[async_trait]
impl Dial for Says {
    async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn Wire>> {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let bytes = self.0.clone();
        tokio::spawn(async move {
            let mut asked = [0; 1];
            if far.read(&mut asked).await.is_ok() {
                let _ = far.write_all(&bytes).await;
            }
        });
        Ok(Box::new(near))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever a server says, it is an answer or a failure, and it is one of them soon.
    #[test]
    fn whatever_a_server_says_is_an_answer_or_a_failure(
        place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), is_cut in any::<bool>(),
        scheme in prop::sample::select(vec!["http", "grpc"]), is_stream in any::<bool>(),
    ) {
        let mut bytes = answer(GOOD);
        if is_stream {
            bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"y\":1}\n\ndata: {\"y\":2}\n\n".to_vec();
        }
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let upstream = Upstreams::new(Arc::new(Says(bytes))).open(&format!("{scheme}://a/v2/models/m"), &UpstreamOptions::default());
            let upstream = upstream.unwrap();
            let deadline = (tokio::time::Instant::now() + Duration::from_secs(5)).into_std();
            let asked = mainstay_traffic::Ask { deadline, ..ask() };
            let answers: Vec<bool> = if is_stream {
                match upstream.stream(&text("hi"), &asked).await {
                    Ok(parts) => futures::StreamExt::collect::<Vec<_>>(parts).await.iter().map(Result::is_ok).collect(),
                    Err(_) => vec![false],
                }
            } else {
                vec![upstream.infer(&request(), &asked).await.is_ok()]
            };
            let statistics = upstream.statistics();
            assert!(answers.len() <= 3 && statistics.in_flight == 0 && statistics.cancelled == 0, "{answers:?} {statistics:?}");
        });
    }
}
