//! Starting, becoming ready, draining, ending.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mainstay_base::ErrorKind;
use mainstay_gateway::Role;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Client, Server, eventually};

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let server = Server::start().await;
    let address = server.gateway.http_addr();
    let (mut working, mut idle, fresh) = (server.connect().await, server.connect().await, server.connect().await);
    idle.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(idle.reply(false).await.status, 200);
    working.write(b"GET /slow?ms=400 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    eventually("the call begins", || server.plugin.slow_begun.load(Ordering::SeqCst) == 1).await;
    let began = Instant::now();
    let Server { gateway, .. } = server;
    let draining = tokio::spawn(gateway.shutdown(Duration::from_secs(10)));
    assert!(idle.is_closed_within(Duration::from_secs(2)).await);
    let reply = working.reply(false).await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(draining.await.unwrap().cut_connections, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    drop(fresh);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.write(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    eventually("the call begins", || server.plugin.slow_begun.load(Ordering::SeqCst) == 1).await;
    let Server { gateway, plugin, .. } = server;
    assert_eq!(gateway.shutdown(Duration::from_millis(100)).await.cut_connections, 1);
    assert_eq!(plugin.slow_dropped.load(Ordering::SeqCst), 1);
    assert!(client.is_closed_within(Duration::from_secs(1)).await);
}

#[tokio::test]
async fn readiness_is_told_part_by_part() {
    let server = Server::start().await;
    assert_eq!(server.get("/readyz").await.status, 200);
    server.readiness.not_ready("plugin:fake", "is being compiled");
    let reply = server.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["parts"]["plugin:fake"], "is being compiled");
    assert_eq!(server.get("/healthz").await.status, 200, "alive though not ready");
    server.readiness.ready("plugin:fake");
    assert_eq!(server.get("/readyz").await.json()["ready"], true);
}

#[tokio::test]
async fn grpc_health_says_the_same() {
    let server = Server::with(|options| options.grpc = Some(([127, 0, 0, 1], 0).into())).await;
    let address = server.gateway.grpc_addr().unwrap();
    assert_ne!(address.port(), 0);
    let channel = tonic::transport::Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let mut status = async |service: &str| {
        let asked = health.check(HealthCheckRequest { service: service.to_owned() }).await;
        asked.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    };
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    server.readiness.not_ready("plugin:fake", "starts");
    for (service, expect) in [("", NOT_SERVING), ("plugin:fake", NOT_SERVING)] {
        until(&mut status, service, expect).await;
    }
    server.readiness.ready("plugin:fake");
    for (service, expect) in [("", SERVING), ("plugin:fake", SERVING)] {
        until(&mut status, service, expect).await;
    }
    assert_eq!(status("plugin:none").await, Err(tonic::Code::NotFound));
    let Server { gateway, .. } = server;
    let ended = tokio::time::timeout(Duration::from_secs(10), gateway.shutdown(Duration::from_secs(2))).await;
    assert!(ended.is_ok());
}

async fn until(status: &mut impl AsyncFnMut(&str) -> Result<i32, tonic::Code>, service: &str, expect: i32) {
    for _ in 0..500 {
        if status(service).await == Ok(expect) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("`{service}` never became {expect}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let server = Server::start().await;
    let taken = server.gateway.http_addr();
    let refused = Server::prepare(|options| options.http = taken, &[("a", Role::Admin)]).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains(&taken.to_string()), "{refused}");
}

#[tokio::test]
async fn routes_are_swapped_while_requests_run() {
    let server = Server::start().await;
    let mut client = Client::connect(server.gateway.http_addr()).await;
    client.write(b"GET /slow?ms=200 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    eventually("the call begins", || server.plugin.slow_begun.load(Ordering::SeqCst) == 1).await;
    server.routes.replace(Vec::new()).unwrap();
    assert_eq!(server.get("/version").await.status, 404);
    assert_eq!(client.reply(false).await.status, 200, "what began with the old table ends with it");
}

#[tokio::test]
async fn requests_that_follow_each_other_at_once_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let all: String = (0..50).map(|number| format!("GET /echo/{number} HTTP/1.1\r\nhost: localhost\r\n\r\n")).collect();
    client.write(all.as_bytes()).await;
    for number in 0..50 {
        assert_eq!(client.reply(false).await.json()["path"], format!("/echo/{number}"));
    }
}
