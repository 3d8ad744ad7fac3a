//! Answers in parts over HTTP.

use std::time::{Duration, Instant};

use futures::StreamExt;
use mainstay_base::ErrorKind;
use mainstay_inference::{InferRequest, RequestedOutput, Tensor};
use mainstay_traffic::{AnswerStream, Backend};
use mainstay_upstreams::{FailureKind, UpstreamOptions};

use crate::behaved::{Behaved, Speaks};
use crate::support::*;

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into()
}

/// The word of the next part.
async fn word(parts: &mut AnswerStream) -> Option<String> {
    let answer = parts.next().await?.unwrap();
    Some(String::from_utf8_lossy(answer.output("word").unwrap().strings().unwrap()[0]).into_owned())
}

/// A server that describes no model and says these pieces of a stream, then waits for the client to close.
async fn streaming(pieces: Vec<Vec<u8>>) -> Server {
    Server::start(move |mut visit| {
        let pieces = pieces.clone();
        async move {
            while let Some((head, _)) = visit.request().await {
                if !head.contains("/generate_stream") {
                    visit.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
                    continue;
                }
                for piece in &pieces {
                    visit.write(piece).await;
                }
                if pieces.last().is_none_or(|piece| piece != b"0\r\n\r\n") {
                    return;
                }
            }
        }
    })
    .await
}

/// What a stream of these pieces gives: how many answers, and how it failed.
async fn check(pieces: &[&str], answers: usize, expect: Option<(FailureKind, ErrorKind, bool)>) {
    let mut bytes = vec![HEAD.as_bytes().to_vec()];
    bytes.extend(pieces.iter().map(|piece| if piece.is_empty() { b"0\r\n\r\n".to_vec() } else { chunk(piece) }));
    let server = streaming(bytes).await;
    let upstream = server.upstream();
    let mut parts = upstream.stream(&text("hi"), &ask()).await.unwrap();
    for _ in 0..answers {
        assert_eq!(word(&mut parts).await.as_deref(), Some("w"), "{pieces:?}");
    }
    let failure = parts.next().await.map(|part| part.unwrap_err());
    let told = failure.as_ref().map(|failure| (failure.error.kind(), failure.is_retryable));
    assert_eq!(told, expect.map(|(_, kind, again)| (kind, again)), "{pieces:?}: {failure:?}");
    assert!(parts.next().await.is_none(), "a failure is the last");
    let statistics = upstream.statistics();
    // The description that was asked for first was refused.
    let failures = statistics.failures.iter().map(|(kind, _)| *kind).filter(|kind| *kind != FailureKind::Sender);
    assert_eq!(failures.collect::<Vec<_>>(), expect.map(|(kind, ..)| kind).into_iter().collect::<Vec<_>>());
    assert_eq!(statistics.in_flight, 0);
}

const EVENT: &str = "data: {\"model_name\":\"m\",\"word\":\"w\"}\n\n";

#[tokio::test]
async fn a_stream_ends_as_it_ends() {
    check(&[EVENT, EVENT, ""], 2, None).await;
    check(&[""], 0, None).await;
    let cut_off = Some((FailureKind::CutOff, ErrorKind::Unavailable, false));
    check(&[EVENT], 1, cut_off).await;
    check(&[EVENT, "data: {\"wo"], 1, cut_off).await;
    check(&["data: {\"wo"], 0, cut_off).await;
    check(&[EVENT, "data: {}\n", ""], 1, cut_off).await;
    check(&[], 0, Some((FailureKind::Reset, ErrorKind::Unavailable, true))).await;
    let unreadable = Some((FailureKind::Unreadable, ErrorKind::Internal, false));
    check(&[EVENT, "data: garbage\n\n", EVENT, ""], 1, unreadable).await;
    let failed = Some((FailureKind::Failed, ErrorKind::Internal, false));
    check(&[EVENT, "data: {\"error\":\"no memory\"}\n\n", EVENT, ""], 1, failed).await;
}

#[tokio::test]
async fn parts_come_as_they_are_made() {
    let (go, gone) = tokio::sync::mpsc::unbounded_channel::<()>();
    let gone = std::sync::Arc::new(tokio::sync::Mutex::new(gone));
    let server = Server::start(move |mut visit| {
        let gone = gone.clone();
        async move {
            let mut gone = gone.lock_owned().await;
            visit.request().await;
            visit.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
            visit.request().await;
            visit.write(HEAD.as_bytes()).await;
            for _ in 0..3 {
                visit.write(&chunk(EVENT)).await;
                gone.recv().await;
            }
            visit.write(b"0\r\n\r\n").await;
        }
    })
    .await;
    let mut parts = server.upstream().stream(&text("hi"), &ask()).await.unwrap();
    for _ in 0..3 {
        // The server goes on only after this part was seen.
        assert_eq!(word(&mut parts).await.as_deref(), Some("w"));
        go.send(()).unwrap();
    }
    assert_eq!(word(&mut parts).await, None);
}

#[tokio::test]
async fn parts_have_the_datatypes_that_the_model_describes() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let parts = upstream.stream(&text("all is well"), &ask()).await.unwrap();
    let parts: Vec<_> = parts.map(Result::unwrap).collect().await;
    assert_eq!(parts.len(), 3);
    assert_eq!((&*parts[2].model, &*parts[2].version), ("m", "3"));
    assert_eq!(parts[2].output("word"), Some(&Tensor::bytes("word", &[1], ["well"]).unwrap()));
    assert_eq!(parts[2].output("n"), Some(&Tensor::int8("n", &[1], &[2]).unwrap()));
    // The description is remembered, and the connection is used again.
    let again = upstream.stream(&text("so be it"), &ask()).await.unwrap();
    assert_eq!(again.count().await, 3);
    let statistics = upstream.statistics();
    assert_eq!((statistics.requests, statistics.connections_made, statistics.failures.len()), (3, 1, 0));
}

#[tokio::test]
async fn only_outputs_that_were_asked_for_are_given() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let outputs = vec![RequestedOutput { name: "n".into(), parameters: vec![] }];
    let request = InferRequest { outputs, ..(*text("one two")).clone() };
    let parts: Vec<_> = upstream.stream(&request.into(), &ask()).await.unwrap().map(Result::unwrap).collect().await;
    assert!(parts.len() == 2 && parts.iter().all(|part| part.outputs.len() == 1 && part.output("n").is_some()));
}

#[tokio::test]
async fn a_failure_before_the_first_part_is_that_of_the_request() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    let failure = upstream.stream(&text("fail"), &ask()).await.err().unwrap();
    assert_eq!(seen(&failure), (ErrorKind::Internal, false, true), "{failure}");
    let failure = upstream.stream(&request(), &ask()).await.err().unwrap();
    assert_eq!(seen(&failure), (ErrorKind::Invalid, false, false), "{failure}");
    let mut parts = upstream.stream(&text("one fail two"), &ask()).await.unwrap();
    assert_eq!(word(&mut parts).await.as_deref(), Some("one"));
    assert!(parts.next().await.unwrap().unwrap_err().error.message().contains("it broke in the middle"));
}

#[tokio::test]
async fn what_is_no_stream_is_no_answer_to_the_wish_for_one() {
    let server = streaming(vec![answer(GOOD), b"0\r\n\r\n".to_vec()]).await;
    let failure = server.upstream().stream(&text("hi"), &ask()).await.err().unwrap();
    assert_eq!(seen(&failure), (ErrorKind::Internal, false, true), "{failure}");
}

#[tokio::test]
async fn a_stream_is_left_at_the_deadline() {
    let server = Behaved::start(Speaks::Http).await;
    // A server that does not know of deadlines: the path of this one's own is hidden by one that pipes.
    let address = server.address;
    let pipe = Server::start(move |mut visit| async move {
        let mut behind = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut visit.stream, &mut behind).await;
    })
    .await;
    let upstream = pipe.upstream();
    let deadline = in_ms(300);
    let mut parts = upstream.stream(&text("one wait two"), &ask_ms(300)).await.unwrap();
    assert_eq!(word(&mut parts).await.as_deref(), Some("one"));
    let failure = parts.next().await.unwrap().unwrap_err();
    assert!(Instant::now() < deadline + Duration::from_millis(60));
    assert!(failure.is_fault && !failure.is_retryable, "{failure}");
    assert!(parts.next().await.is_none());
}

#[tokio::test]
async fn who_drops_a_stream_closes_the_connection() {
    let (tell, mut closed) = moments();
    let server = Server::start(move |mut visit| {
        let tell = tell.clone();
        async move {
            visit.request().await;
            visit.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
            visit.request().await;
            visit.write(HEAD.as_bytes()).await;
            visit.write(&chunk(EVENT)).await;
            visit.closed().await;
            tell();
        }
    })
    .await;
    let upstream = server.upstream();
    let mut parts = upstream.stream(&text("hi"), &ask()).await.unwrap();
    assert_eq!(word(&mut parts).await.as_deref(), Some("w"));
    let gone = Instant::now();
    drop(parts);
    let after = closed.recv().await.unwrap() - gone;
    assert!(after < Duration::from_millis(50), "{after:?}");
    assert_eq!((upstream.statistics().cancelled, upstream.statistics().connections_open), (1, 0));
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_the_server_back() {
    let (sent, mut counts) = tokio::sync::watch::channel(0_usize);
    let server = Server::start(move |mut visit| {
        let sent = sent.clone();
        async move {
            visit.request().await;
            visit.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
            visit.request().await;
            visit.write(HEAD.as_bytes()).await;
            let event = chunk(&format!("data: {{\"word\":\"{}\"}}\n\n", "w".repeat(60_000)));
            loop {
                visit.write(&event).await;
                sent.send_modify(|count| *count += 1);
            }
        }
    })
    .await;
    let mut parts = server.upstream().stream(&text("hi"), &ask()).await.unwrap();
    parts.next().await.unwrap().unwrap();
    // Nobody reads: the server fills what the sockets hold, and stops.
    while tokio::time::timeout(Duration::from_millis(200), counts.changed()).await.is_ok() {
        assert!(*counts.borrow() < 1_000, "60 MB were read ahead");
    }
}

#[tokio::test]
async fn five_hundred_streams_at_once_each_get_their_own_parts() {
    let server = Behaved::start(Speaks::Http).await;
    let upstream = open(&server.url("http", "m"), UpstreamOptions::default());
    upstream.warm(in_ms(5_000)).await.unwrap();
    let mut streams = Vec::new();
    for number in 0..500 {
        let request = text(&format!("a{number} b{number} c{number}"));
        let mut parts = upstream.stream(&request, &ask()).await.unwrap();
        assert_eq!(word(&mut parts).await, Some(format!("a{number}")));
        streams.push(parts);
    }
    assert_eq!((upstream.statistics().in_flight, upstream.statistics().connections_open), (500, 500));
    for (number, mut parts) in streams.into_iter().enumerate() {
        assert_eq!(word(&mut parts).await, Some(format!("b{number}")));
        assert_eq!(word(&mut parts).await, Some(format!("c{number}")));
        assert_eq!(word(&mut parts).await, None);
    }
    let statistics = upstream.statistics();
    assert_eq!((statistics.in_flight, statistics.connections_idle, statistics.failures.len()), (0, 500, 0));
}
