//! The edge behind which the world lies.
//!
//! Owns [`Network`], the trait that tests replace, and [`Internet`], the real one: the system's resolver, a TCP connection to
//! exactly the address that is given, TLS by rustls with ring and Mozilla's roots, HTTP/1.1 by hyper. hyper and not reqwest,
//! because here every connection must go to an address that was checked: nothing between us and the socket may resolve again,
//! follow a redirect, read a proxy from the environment, or keep a connection that was made for another caller. The price is
//! a connection, and a handshake, for each call.
//!
//! Separate from the rules, which ask it two things and trust nothing it says. Bounded: the answer's head by
//! [`ANSWER_HEAD_BYTES_MAX`], its body by the caller, time by the caller too, who drops the future. On failure: `unavailable`
//! with the host; dropping a connection closes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use mainstay_base::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::limits::{ANSWER_HEAD_BYTES_MAX, HEADERS_MAX};

/// Names to addresses, and addresses to connections.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The addresses of a host. Nothing it answers is trusted.
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>>;

    /// Connect to exactly this address, in the name of the host.
    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>>;
}

/// A connection that carries one call.
#[async_trait]
pub trait Connection: Send {
    /// Send the call and read the answer; of its body at most `limit_bytes`, and whether there was more.
    async fn send(
        self: Box<Self>,
        request: http::Request<Bytes>,
        limit_bytes: usize,
    ) -> Result<(http::Response<Bytes>, bool)>;
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address, checked.
    pub address: SocketAddr,
    /// The host that it was resolved from; TLS proves that it is this one.
    pub host: String,
    /// Whether with TLS.
    pub is_tls: bool,
}

/// The real network.
pub struct Internet {
    tls: TlsConnector,
}

impl Internet {
    /// With Mozilla's root certificates, and those of an operator in PEM.
    pub fn new(further_roots: Option<&[u8]>) -> Result<Internet> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in CertificateDer::pem_slice_iter(further_roots.unwrap_or_default()) {
            let bad = |error: String| Error::invalid(format!("a root certificate cannot be read: {error}"));
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Internet { tls: TlsConnector::from(Arc::new(config)) })
    }
}

#[async_trait]
impl Network for Internet {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        let found = lookup_host((host, 0)).await;
        let found = found.map_err(|error| Error::unavailable(format!("`{host}` has no address: {error}")))?;
        Ok(found.map(|address| address.ip()).collect())
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>> {
        let Target { address, host, is_tls } = target;
        let failed = |doing: &str, error: &dyn std::fmt::Display| {
            Error::unavailable(format!("cannot {doing} `{host}` at {address}: {error}"))
        };
        let stream = TcpStream::connect(address).await.map_err(|error| failed("connect to", &error))?;
        // Whole requests are written at once; waiting for more would only delay them.
        stream.set_nodelay(true).map_err(|error| failed("connect to", &error))?;
        if !is_tls {
            return over(stream, host).await;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed("prove the name of", &error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed("speak TLS with", &error))?;
        over(stream, host).await
    }
}

/// Speak HTTP over a stream.
async fn over<S>(stream: S, host: &str) -> Result<Box<dyn Connection>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_buf_size(ANSWER_HEAD_BYTES_MAX).max_headers(2 * HEADERS_MAX);
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::unavailable(format!("cannot speak HTTP with `{host}`: {error}")))?;
    // Its own errors come to the sender as well.
    let pump = tokio::spawn(async move { drop(connection.await) });
    Ok(Box::new(Http { sender, host: host.to_owned(), _pump: AbortOnDrop(pump) }))
}

struct Http {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    _pump: AbortOnDrop,
}

/// A call that is given up closes its connection.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Connection for Http {
    async fn send(
        mut self: Box<Self>,
        request: http::Request<Bytes>,
        limit_bytes: usize,
    ) -> Result<(http::Response<Bytes>, bool)> {
        let broken =
            |error: hyper::Error| Error::unavailable(format!("the call to `{}` broke off: {error}", self.host));
        let answer = self.sender.send_request(request.map(Full::new)).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        // The reader's own bound is on what it buffers at once, which may be passed by one read.
        let head_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if head_bytes > ANSWER_HEAD_BYTES_MAX {
            let host = &self.host;
            return Err(Error::exhausted(format!(
                "the headers of `{host}` have more than {ANSWER_HEAD_BYTES_MAX} bytes"
            )));
        }
        let (body, is_more) = read(body, limit_bytes).await.map_err(broken)?;
        Ok((http::Response::from_parts(head, body), is_more))
    }
}

async fn read(mut body: Incoming, limit_bytes: usize) -> Result<(Bytes, bool), hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = limit_bytes - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((bytes.freeze(), true));
        }
    }
    Ok((bytes.freeze(), false))
}
