//! The edge behind which upstreams lie.
//!
//! Owns [`Dial`], the trait that tests replace, [`Tcp`], the real one, and the TLS around either: rustls with ring, Mozilla's roots
//! and an operator's, the server's name checked. Separate from the pools, which only ask for one more connection. Names are
//! resolved anew for each connection, so an upstream may move. No address is judged: operators name upstreams themselves.
//!
//! Bounded by the time to connect. On failure: `unavailable` with the upstream's address; dropping a connection closes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use mainstay_base::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::address::{Origin, Protocol};
use crate::counts::{Counts, Open};
use crate::options::UpstreamOptions;

/// Bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connections to servers.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection to a port of a host, which may be a name or an address.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>>;
}

/// Connections over TCP, names resolved by the system.
pub struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect((host, port)).await?;
        // Whole requests are written at once; waiting for more would only delay them.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Makes connections to one server.
pub(crate) struct Connector {
    dial: Arc<dyn Dial>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Without the brackets around an address of IPv6.
    host: String,
    port: u16,
    server: String,
    timeout: Duration,
    counts: Arc<Counts>,
}

impl Connector {
    pub fn new(
        dial: Arc<dyn Dial>,
        origin: &Origin,
        options: &UpstreamOptions,
        counts: Arc<Counts>,
    ) -> Result<Connector> {
        let host = origin.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = origin.to_string();
        let tls = match origin.is_tls {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|error| Error::invalid(format!("`{server}` has no name for TLS: {error}")))?;
                Some((TlsConnector::from(Arc::new(tls(origin.protocol, options.ca_pem.as_deref())?)), name))
            }
        };
        let timeout = Duration::from_millis(options.connect_timeout_ms);
        Ok(Connector { dial, tls, host, port: origin.port, server, timeout, counts })
    }

    /// One more connection.
    pub async fn connect(&self) -> Result<Connected> {
        let failed = |doing: &str, error: &io::Error| {
            Error::unavailable(format!(
                "cannot {doing} the upstream `{}`: {error}; check that it runs and can be reached from here",
                self.server
            ))
        };
        let connected = timeout(self.timeout, async {
            let dialed = self.dial.dial(&self.host, self.port).await;
            let wire = dialed.map_err(|error| failed("connect to", &error))?;
            let wire: Box<dyn Wire> = match &self.tls {
                None => wire,
                Some((tls, name)) => {
                    let spoken = tls.connect(name.clone(), wire).await;
                    Box::new(spoken.map_err(|error| failed("speak TLS with", &error))?)
                }
            };
            Ok(Connected { wire, read: Arc::default(), _open: Open::new(&self.counts) })
        });
        connected.await.unwrap_or_else(|_| {
            let (server, ms) = (&self.server, self.timeout.as_millis());
            Err(Error::unavailable(format!("cannot connect to the upstream `{server}` within {ms} ms")))
        })
    }
}

/// What TLS proves and speaks.
fn tls(protocol: Protocol, ca_pem: Option<&str>) -> Result<ClientConfig> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default().as_bytes()) {
        let bad = |error: String| Error::invalid(format!("a certificate of `ca_pem` cannot be read: {error}"));
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        added += 1;
    }
    if ca_pem.is_some() && added == 0 {
        return Err(Error::invalid("`ca_pem` holds no certificate; give one or more in PEM, or leave it out"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Http => vec![b"http/1.1".to_vec()],
        Protocol::Grpc => vec![b"h2".to_vec()],
    };
    Ok(config)
}

/// A connection, counted as long as it is there.
pub(crate) struct Connected {
    wire: Box<dyn Wire>,
    /// How many bytes came.
    pub read: Arc<AtomicU64>,
    _open: Open,
}

impl AsyncRead for Connected {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.wire).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
