//! The real network against servers of this machine: HTTP, TLS, and servers that misbehave.

use std::sync::Arc;

use http::{HeaderValue, Method};
use mainstay_base::ErrorKind;
use mainstay_outbound::limits::ANSWER_HEAD_BYTES_MAX;
use mainstay_outbound::{Grants, Internet, Outbound, Request};
use mainstay_store::Store;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::{Server, outbound, serve};

async fn plain(grants: Grants) -> Outbound {
    outbound(Arc::new(Internet::new(None).unwrap()), Store::in_memory(), grants).await
}

#[tokio::test]
async fn a_call_arrives_as_it_was_made() {
    let server = Server::start(&["HTTP/1.1 201 Created\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello"]).await;
    let mut request = Request::new(Method::PUT, server.url("/a%20b?c=d"));
    request.headers.insert("x-mine", HeaderValue::from_static("m"));
    request.body = "body".into();
    let answer = plain(server.grants()).await.call("p", request).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..], answer.headers["x-a"].as_bytes()),
        (201, &b"hello"[..], &b"1"[..])
    );
    let seen = server.seen.lock().remove(0);
    assert!(seen.head.starts_with("PUT /a%20b?c=d HTTP/1.1\r\n"), "{seen:?}");
    assert_eq!(seen.header("host").unwrap(), server.address.to_string());
    assert_eq!(
        (seen.header("x-mine"), seen.header("content-length"), &seen.body[..]),
        (Some("m"), Some("4"), &b"body"[..])
    );
    assert!(seen.header("user-agent").unwrap().starts_with("mainstay/"));
}

#[tokio::test]
async fn the_system_resolver_does_not_lead_into_the_house() {
    let server = Server::start(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
    let host = format!("http://localhost:{}", server.address.port());
    let call = async |grants| plain(grants).await.call("p", Request::new(Method::GET, host.as_str())).await;
    let error = call(Grants::of([host.as_str()]).unwrap()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.message().contains("loopback"), "{error}");
    assert!(server.seen.lock().is_empty());
    assert_eq!(call(Grants::default().with_private(&host).unwrap()).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_real_redirect_into_the_house_is_refused() {
    let inner = Server::start(&["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret"]).await;
    let location = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", inner.url("/"));
    let server = Server::start(&[&location]).await;
    // Granted as a host, but not as one that may be private.
    let mut grants = server.grants();
    grants.hosts.push(format!("http://{}", inner.address).parse().unwrap());
    let error = plain(grants).await.call("p", Request::new(Method::GET, server.url("/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(server.seen.lock().len() == 1 && inner.seen.lock().is_empty());
}

#[tokio::test]
async fn servers_that_misbehave_are_typed_errors() {
    let long_head = |bytes: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(bytes - 1));
    let endless = long_head(1 << 20);
    for (answer, what) in [
        ("", "took longer than 200 ms"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "broke off"),
        ("SSH-2.0-OpenSSH\r\n", "broke off"),
        ("HTTP/1.1 200 OK\r\nx: \0\r\n\r\n", "broke off"),
        (endless.as_str(), "broke off"),
    ] {
        let server = Server::start(&[answer]).await;
        let request = Request { timeout_ms: 200, ..Request::new(Method::GET, server.url("/")) };
        let error = plain(server.grants()).await.call("p", request).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains(what), "{what}: {error}");
    }
    for (bytes, expect) in [(ANSWER_HEAD_BYTES_MAX, None), (ANSWER_HEAD_BYTES_MAX + 1, Some(ErrorKind::Exhausted))] {
        let server = Server::start(&[&long_head(bytes)]).await;
        let answered = plain(server.grants()).await.call("p", Request::new(Method::GET, server.url("/"))).await;
        assert_eq!(answered.err().map(|error| error.kind()), expect, "{bytes}");
    }
    let gone = Server { address: "127.0.0.1:1".parse().unwrap(), seen: Arc::default() };
    let error = plain(gone.grants()).await.call("p", Request::new(Method::GET, gone.url("/"))).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("cannot connect"), "{error}");
}

/// A server with a certificate for `localhost`, and the certificate of who signed it.
async fn tls_server() -> (u16, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), Arc::default()).await;
            }
        }
    });
    (port, authority.pem())
}

#[tokio::test]
async fn tls_proves_who_the_server_is() {
    let (port, root) = tls_server().await;
    let call = async |host: &str, roots: Option<&[u8]>| {
        let host = format!("{host}:{port}");
        let grants = Grants::default().with_private(&host).unwrap();
        let network = Arc::new(Internet::new(roots).unwrap());
        let outbound = outbound(network, Store::in_memory(), grants).await;
        outbound.call("p", Request::new(Method::GET, format!("https://{host}/"))).await
    };
    assert_eq!(call("localhost", Some(root.as_bytes())).await.unwrap().body, "ok");
    let unknown = call("localhost", None).await.unwrap_err();
    assert!(unknown.message().contains("cannot speak TLS"), "{unknown}");
    let other_name = call("127.0.0.1", Some(root.as_bytes())).await.unwrap_err();
    assert!(other_name.message().contains("cannot speak TLS"), "{other_name}");
    let bad = Internet::new(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
    assert_eq!(bad.err().unwrap().kind(), ErrorKind::Invalid);
}
