//! Which calls are made, where their connections go, and what they carry, on a network that lies.

use std::sync::Arc;

use http::{HeaderValue, Method};
use mainstay_base::{Error, ErrorKind};
use mainstay_outbound::limits::REDIRECTS_DEFAULT;
use mainstay_outbound::{Answer, Grants, Outbound, Request, SecretHeader, Signing};
use mainstay_store::Store;

use crate::support::{Fake, HUNTER, outbound};

struct House {
    fake: Arc<Fake>,
    outbound: Outbound,
}

async fn house(hosts: &[&str]) -> House {
    let fake = Arc::new(Fake::default());
    let grants = Grants::of(hosts.iter().copied()).unwrap();
    let outbound = outbound(fake.clone(), Store::in_memory(), grants).await;
    House { fake, outbound }
}

impl House {
    async fn get(&self, url: &str) -> Result<Answer, Error> {
        self.outbound.call("p", Request::new(Method::GET, url)).await
    }
}

#[tokio::test]
async fn nobody_calls_what_was_not_granted() {
    let house = house(&["a.com"]).await;
    for (caller, url) in [("p", "https://b.com/"), ("p", "http://a.com/"), ("other", "https://a.com/")] {
        let error = house.outbound.call(caller, Request::new(Method::GET, url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    house.outbound.set_grants("p", None).unwrap();
    assert_eq!(house.get("https://a.com/").await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(house.fake.resolved.lock().is_empty(), "not even a name was looked up");
}

#[tokio::test]
async fn an_address_in_the_house_is_refused_after_resolution() {
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
    ] {
        let house = house(&["a.com"]).await;
        house.fake.name("a.com", &[address]);
        let error = house.get("https://a.com/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.message().contains("https://a.com") && error.message().contains(address), "{error}");
        assert!(house.fake.targets.lock().is_empty(), "{address} was connected to");
    }
    for url in ["http://127.0.0.1:8080/", "http://0x7f.1:8080/", "http://2130706433:8080/", "http://[::1]:8080/"] {
        let house = house(&["http://127.0.0.1:8080", "http://[::1]:8080"]).await;
        let error = house.get(url).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Denied && error.message().contains("loopback"), "{error}");
        assert!(house.fake.targets.lock().is_empty());
    }
}

#[tokio::test]
async fn an_operator_may_allow_a_private_host_and_no_other() {
    let house = house(&["other.lan"]).await;
    let grants = Grants::of(["other.lan"]).unwrap().with_private("inner.lan").unwrap();
    house.outbound.set_grants("p", Some(grants)).unwrap();
    house.fake.name("inner.lan", &["10.0.0.1", "169.254.169.254"]);
    house.fake.name("other.lan", &["10.0.0.1"]);
    house.fake.answer(200, None, "");
    house.get("https://inner.lan/").await.unwrap();
    assert_eq!(house.fake.addresses(), ["10.0.0.1:443"]);
    let error = house.get("https://inner.lan/").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.message().contains("169.254.169.254"), "{error}");
    assert_eq!(house.get("https://other.lan/").await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_connection_goes_to_the_address_that_was_judged() {
    let house = house(&["a.com"]).await;
    // Another look-up would lead into the house.
    house.fake.name("a.com", &["1.2.3.4", "127.0.0.1"]);
    house.fake.answer(200, None, "hello");
    let answer = house.get("https://a.com/x?y").await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..], &answer.url[..]), (200, &b"hello"[..], "https://a.com/x?y"));
    assert!(!answer.headers.contains_key("connection") && !answer.headers.contains_key("x-hop"));
    assert_eq!(house.fake.addresses(), ["1.2.3.4:443"]);
    assert_eq!(house.fake.resolved.lock().len(), 1);
    let request = house.fake.requests.lock().remove(0);
    assert_eq!(request.uri(), "/x?y");
    assert_eq!(request.headers()["host"], "a.com");

    // Of several, only the good ones; the next when one does not answer.
    house.fake.name("a.com", &["127.0.0.1 5.6.7.8 9.9.9.9"]);
    house.fake.refused.lock().push("5.6.7.8".parse().unwrap());
    house.fake.answer(200, None, "");
    house.get("https://a.com/").await.unwrap();
    assert_eq!(house.fake.addresses()[1..], ["5.6.7.8:443", "9.9.9.9:443"]);
}

#[tokio::test]
async fn every_redirect_is_judged_anew() {
    async fn check(hosts: &[&str], to: &str, expect: &str) {
        let house = house(hosts).await;
        house.fake.name("a.com", &["1.2.3.4", "127.0.0.1"]);
        house.fake.name("evil.com", &["10.0.0.1"]);
        house.fake.answer(302, Some(to), "");
        let error = house.get("https://a.com/").await.unwrap_err();
        assert!(error.message().contains(expect), "{to}: {error}");
        assert_eq!(house.fake.addresses(), ["1.2.3.4:443"], "{to}");
    }
    check(&["a.com"], "http://127.0.0.1/", "not granted").await;
    check(&["a.com", "http://127.0.0.1"], "http://127.0.0.1/", "127.0.0.1, which is loopback").await;
    check(&["a.com", "http://169.254.169.254"], "http://169.254.169.254/latest", "link-local").await;
    check(&["a.com"], "https://evil.com/", "not granted").await;
    check(&["a.com", "evil.com"], "https://evil.com/", "10.0.0.1, which is private").await;
    // The same host, whose name server has changed its mind.
    check(&["a.com"], "/again", "127.0.0.1, which is loopback").await;
    check(&["a.com"], "//a.com/again", "127.0.0.1, which is loopback").await;
    check(&["a.com"], "http://a.com/", "not granted").await;
    check(&["a.com"], "file:///etc/passwd", "neither").await;
    check(&["a.com"], "https://user:pw@a.com/", "put it as a secret").await;
    check(&["a.com"], "https://", "no address").await;
}

fn with_credentials(method: Method) -> Request {
    let mut request = Request::new(method, "https://a.com/");
    request.body = "body".into();
    for (name, value) in [("cookie", "c"), ("content-type", "text/plain"), ("x-mine", "m")] {
        request.headers.insert(name, HeaderValue::from_static(value));
    }
    let secret = |header: &str, prefix: &str| SecretHeader {
        header: header.into(),
        prefix: prefix.into(),
        secret: "token".into(),
    };
    request.secret_headers = vec![secret("authorization", "Bearer "), secret("x-api-key", "")];
    let signing = Signing { secret_form: Default::default(), ..Signing::standard_webhooks("token") };
    request.signing = Some((signing, "msg_1".to_owned()));
    request
}

#[tokio::test]
async fn what_proves_the_caller_does_not_go_to_another_place() {
    let house = house(&["a.com", "b.com"]).await;
    house.fake.name("a.com", &["1.2.3.4"]);
    house.fake.name("b.com", &["1.2.3.5"]);
    for to in ["/same", "https://b.com/other", "https://a.com/back"] {
        house.fake.answer(307, Some(to), "");
    }
    house.fake.answer(200, None, "");
    house.outbound.call("p", with_credentials(Method::POST)).await.unwrap();
    let requests = std::mem::take(&mut *house.fake.requests.lock());
    let has = |at: usize, name: &str| requests[at].headers().contains_key(name);
    for name in ["cookie", "authorization", "x-api-key", "webhook-signature", "webhook-id", "webhook-timestamp"] {
        let there: Vec<bool> = (0..4).map(|at| has(at, name)).collect();
        assert_eq!(there, [true, true, false, false], "{name}");
    }
    assert_eq!(requests[1].headers()["authorization"], format!("Bearer {HUNTER}"));
    assert!((0..4).all(|at| has(at, "x-mine") && requests[at].body() == "body"));
}

#[tokio::test]
async fn a_redirect_keeps_the_method_or_asks_to_see() {
    async fn check(status: u16, method: Method, expect: Method, keeps_body: bool) {
        let house = house(&["a.com"]).await;
        house.fake.name("a.com", &["1.2.3.4"]);
        house.fake.answer(status, Some("/b"), "");
        house.fake.answer(200, None, "");
        house.outbound.call("p", with_credentials(method.clone())).await.unwrap();
        let second = house.fake.requests.lock().remove(1);
        assert_eq!((second.method(), second.body() == "body"), (&expect, keeps_body), "{status} {method}");
        assert_eq!(second.headers().contains_key("content-type"), keeps_body);
    }
    check(301, Method::POST, Method::GET, false).await;
    check(302, Method::POST, Method::GET, false).await;
    check(302, Method::PUT, Method::PUT, true).await;
    check(303, Method::PUT, Method::GET, false).await;
    check(307, Method::POST, Method::POST, true).await;
    check(308, Method::POST, Method::POST, true).await;
}

#[tokio::test]
async fn redirects_and_answers_are_bounded() {
    async fn walk(hops: u8, allowed: u8) -> Result<Answer, Error> {
        let house = house(&["a.com"]).await;
        house.fake.name("a.com", &["1.2.3.4"]);
        (0..hops).for_each(|_| house.fake.answer(302, Some("/"), ""));
        house.fake.answer(200, None, "12345");
        house.outbound.call("p", Request { redirects: allowed, ..Request::new(Method::GET, "https://a.com/") }).await
    }
    assert_eq!(walk(REDIRECTS_DEFAULT, REDIRECTS_DEFAULT).await.unwrap().status, 200);
    let error = walk(REDIRECTS_DEFAULT + 1, REDIRECTS_DEFAULT).await.unwrap_err();
    assert!(error.message().contains("more than 5 redirects"), "{error}");
    assert_eq!(walk(1, 0).await.unwrap().status, 302, "then a redirect is the answer");

    async fn read(limit: usize, cut: bool) -> Result<Answer, Error> {
        let house = house(&["a.com"]).await;
        house.fake.name("a.com", &["1.2.3.4"]);
        house.fake.answer(200, None, "12345");
        let request = Request { answer_bytes: limit, cut_answer: cut, ..Request::new(Method::GET, "https://a.com/") };
        house.outbound.call("p", request).await
    }
    assert!(!read(5, false).await.unwrap().is_cut);
    assert_eq!(read(4, false).await.unwrap_err().kind(), ErrorKind::Exhausted);
    let answer = read(4, true).await.unwrap();
    assert_eq!((&answer.body[..], answer.is_cut), (&b"1234"[..], true));
}

#[tokio::test]
async fn no_error_says_what_is_secret() {
    let house = house(&["a.com"]).await;
    let say = |error: Error| {
        let said = format!("{error} {error:?}");
        assert!(!said.contains("hunter2") && !said.contains("private-path"), "{said}");
    };
    house.outbound.secrets().put("p", "odd", b"hunter2\n").await.unwrap();
    let call = async |change: &dyn Fn(&mut Request)| {
        let mut request = with_credentials(Method::GET);
        request.url = "https://a.com/private-path?key=hunter2".into();
        change(&mut request);
        house.outbound.call("p", request).await.unwrap_err()
    };
    say(call(&|_| {}).await);
    say(call(&|request| request.secret_headers[0].secret = "odd".into()).await);
    say(call(&|request| request.secret_headers[0].secret = "missing".into()).await);
    say(call(&|request| request.signing.as_mut().unwrap().0 = Signing::standard_webhooks("token")).await);
    say(call(&|request| request.url = "https://b.com/private-path?key=hunter2".into()).await);
    house.fake.name("a.com", &["127.0.0.1"]);
    say(call(&|_| {}).await);
    house.fake.name("a.com", &["1.2.3.4"]);
    house.fake.answer(302, Some("https://b.com/private-path?hunter2"), "");
    say(call(&|_| {}).await);
    house.fake.answer(200, None, "12");
    say(call(&|request| request.answer_bytes = 1).await);
    let debug = format!("{:?}", house.fake.requests.lock());
    assert!(!debug.contains(HUNTER), "the value is marked as secret: {debug}");
}

#[tokio::test]
async fn a_secret_is_used_only_by_its_owner() {
    let house = house(&["a.com"]).await;
    house.outbound.set_grants("q", Some(Grants::of(["a.com"]).unwrap())).unwrap();
    let error = house.outbound.call("q", with_credentials(Method::GET)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(house.fake.requests.lock().is_empty());
}
