//! What is counted and traced.

use crate::support::Server;

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let server = Server::start().await;
    for number in 0..20 {
        server.get(&format!("/echo/{number}")).await;
    }
    server.get("/fail/trap").await;
    server.get("/plugins/open/x").await;
    for path in ["/nothing", "/else", "/echo/%2e%2e"] {
        server.get(path).await;
    }
    server.send("BREW /echo HTTP/1.1\r\nhost: localhost", b"").await;
    server.send("STEAM /echo HTTP/1.1\r\nhost: localhost", b"").await;
    let requests = "mainstay_http_requests_total";
    for (labels, expect) in [
        (r#"{plugin="fake",route="/echo/*",method="GET",status="200"}"#, 20.0),
        (r#"{plugin="fake",route="/fail/*",method="GET",status="500"}"#, 1.0),
        (r#"{plugin="open",route="/*",method="GET",status="200"}"#, 1.0),
        (r#"{plugin="",route="unrouted",method="GET",status="404"}"#, 2.0),
        (r#"{plugin="",route="unrouted",method="GET",status="400"}"#, 1.0),
        (r#"{plugin="fake",route="/echo",method="other",status="405"}"#, 2.0),
    ] {
        assert_eq!(server.metric(&format!("{requests}{labels}")).await, expect, "{labels}");
    }
    let count = r#"mainstay_http_request_seconds_count{plugin="fake",route="/echo/*"}"#;
    assert_eq!(server.metric(count).await, 20.0);
    assert_eq!(server.metric("mainstay_http_requests_in_flight").await, 1.0);
    assert_eq!(server.metric("mainstay_http_buffered_bytes").await, 0.0);
}

#[tokio::test]
async fn a_trace_goes_on_through_the_host() {
    let server = Server::start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let head = format!("GET /echo HTTP/1.1\r\nhost: localhost\r\ntraceparent: {parent}");
    let reply = server.send(&head, b"").await;
    assert_eq!(reply.json()["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let answer = reply.header("traceresponse").unwrap();
    assert!(
        answer.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !answer.contains("b7ad6b7169203331"),
        "{answer}"
    );
    let reply = server.send("GET /echo HTTP/1.1\r\nhost: localhost\r\ntraceparent: 00-0-0-00", b"").await;
    assert_eq!(reply.json()["trace_id"].as_str().unwrap().len(), 32);
    let (one, two) = (server.get("/echo").await.json(), server.get("/echo").await.json());
    assert_ne!(one["trace_id"], two["trace_id"]);
}

#[tokio::test]
async fn plugins_hear_how_they_were_reached() {
    let server = Server::start().await;
    let base = async |head: &str| server.send(head, b"").await.json()["base_url"].clone();
    assert_eq!(base("GET /echo HTTP/1.1\r\nhost: localhost:1234").await, "http://localhost:1234");
    assert_eq!(base("GET http://127.0.0.1:99/echo HTTP/1.1\r\nhost: 127.0.0.1:99").await, "http://127.0.0.1:99");
    let local = format!("http://{}", server.gateway.http_addr());
    assert_eq!(base("GET /echo HTTP/1.0").await, local.as_str());
    let server = Server::with(|options| options.public_url = Some("https://models.example/".to_owned())).await;
    assert_eq!(server.get("/echo").await.json()["base_url"], "https://models.example");
}
