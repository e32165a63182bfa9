//! TCP and TLS to the server.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::context::Target;

/// Time for the resolver, TCP and TLS together: three lost SYNs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(7);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The certificates to trust cannot be read.
    #[error("cannot read certificates from {}", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// There is nothing to trust.
    #[error("{0} holds no certificate that can sign a server's")]
    NoRoots(String),
    /// The library refuses the settings.
    #[error("the TLS settings are refused")]
    Settings(#[source] rustls::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Resolver or TCP.
    #[error(transparent)]
    Tcp(io::Error),
    /// The TLS handshake.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// Nothing happened.
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
    /// Whatever else the HTTP library met.
    #[error("the connection could not be used")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Takes our own error out of the HTTP library's wrapping.
pub(super) fn cause(error: legacy::Error) -> ConnectError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<ConnectError>() {
            return ours.again();
        }
        source = inner.source();
    }
    ConnectError::Other(error.into())
}

impl ConnectError {
    /// The same error once more: the HTTP library keeps the original.
    fn again(&self) -> Self {
        let io = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Tcp(error) => Self::Tcp(io(error)),
            Self::Tls(error) => Self::Tls(io(error)),
            Self::Timeout(after) => Self::Timeout(*after),
            Self::Other(error) => Self::Other(error.to_string().into()),
        }
    }
}

/// Opens connections to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Option<(TlsConnector, ServerName<'static>)>,
    host: String,
}

impl Connector {
    /// Prepares TLS when the target wants it.
    pub(super) fn new(target: &Target) -> Result<Self, TlsError> {
        let host = target.server.host().to_owned();
        if !target.server.is_https() {
            return Ok(Self { tls: None, host });
        }
        let name = ServerName::try_from(host.clone())
            .map_err(|_| TlsError::Settings(rustls::Error::General(format!("\"{host}\" is no host name"))))?;
        let config = tls_config(target.ca_file.as_deref())?;
        Ok(Self { tls: Some((TlsConnector::from(Arc::new(config)), name)), host })
    }

    async fn connect(self, port: u16) -> Result<TokioIo<Stream>, ConnectError> {
        let tcp = TcpStream::connect((self.host.as_str(), port)).await.map_err(ConnectError::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let stream: Pin<Box<dyn ReadWrite>> = match self.tls {
            Some((tls, name)) => Box::pin(tls.connect(name, tcp).await.map_err(ConnectError::Tls)?),
            None => Box::pin(tcp),
        };
        Ok(TokioIo::new(Stream(stream)))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("host", &self.host).field("has_tls", &self.tls.is_some()).finish()
    }
}

/// Trusts the given certificates, or else the system's. Only HTTP/1.1 is
/// offered: a WebSocket needs its upgrade.
fn tls_config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, TlsError> {
    let (certificates, origin) = match ca_file {
        Some(path) => (read_certificates(path)?, path.display().to_string()),
        None => (rustls_native_certs::load_native_certs().certs, "the system's certificate store".into()),
    };
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsError::NoRoots(origin));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::CaFile { path: path.into(), source };
    CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        let default_port = if connector.tls.is_some() { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(port)).await;
            connected.unwrap_or(Err(ConnectError::Timeout(CONNECT_TIMEOUT)))
        })
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// A connection, encrypted or not.
pub(crate) struct Stream(Pin<Box<dyn ReadWrite>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}
