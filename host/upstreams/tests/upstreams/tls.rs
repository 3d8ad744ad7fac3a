//! TLS: who is believed, and for which name.

use std::sync::Arc;

use mainstay_base::ErrorKind;
use mainstay_traffic::Backend;
use mainstay_upstreams::{FailureKind, UpstreamOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::behaved::{Behaved, Speaks};
use crate::support::*;

/// A server with a certificate for this name, and the authority that signed it.
async fn server(speaks: Speaks, name: &str) -> (Behaved, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = vec![if speaks == Speaks::Http { b"http/1.1".to_vec() } else { b"h2".to_vec() }];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Behaved::start_with(speaks, move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.ok() }
    });
    (server.await, authority.pem())
}

#[tokio::test]
async fn a_server_is_believed_whose_authority_and_name_are_right() {
    async fn check(speaks: Speaks, name: &str, with_authority: bool, expect: bool) {
        let (server, pem) = server(speaks, name).await;
        let scheme = if speaks == Speaks::Http { "https" } else { "grpcs" };
        let url = format!("{scheme}://localhost:{}/v2/models/m", server.address.port());
        let ca_pem = with_authority.then_some(pem);
        let upstream = open(&url, UpstreamOptions { ca_pem, ..UpstreamOptions::default() });
        let answered = upstream.infer(&request(), &ask()).await;
        match answered {
            Ok(answer) => assert!(expect && answer.outputs == request().inputs, "{url} {name}"),
            Err(failure) => {
                assert!(!expect, "{url} {name}: {failure}");
                assert_eq!(seen(&failure), (ErrorKind::Unavailable, true, true));
                assert_eq!(only_failure(&upstream.statistics()), FailureKind::Unreachable);
                assert!(failure.error.message().contains("cannot speak TLS with"), "{failure}");
            }
        }
    }
    for speaks in [Speaks::Http, Speaks::Grpc] {
        check(speaks, "localhost", true, true).await;
        check(speaks, "localhost", false, false).await;
        check(speaks, "other.example", true, false).await;
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_refused() {
    let upstreams = mainstay_upstreams::Upstreams::default();
    for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let options = UpstreamOptions { ca_pem: Some(pem.into()), ..UpstreamOptions::default() };
        let error = upstreams.connect("https://a", &options).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let server = Server::saying(answer(GOOD)).await;
    let upstream = open(&format!("https://{}", server.address), UpstreamOptions::default());
    let failure = upstream.infer(&request(), &ask()).await.unwrap_err();
    assert_eq!(seen(&failure), (ErrorKind::Unavailable, true, true), "{failure}");
}
