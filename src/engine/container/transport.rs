//! The wire under bollard: one HTTP/1.1 connection per request over a unix socket, TCP or TLS.
//!
//! In: a request of bollard's and an [`Address`]. Out: the response, or an error that still says what the system said:
//! bollard's own connectors bury `permission denied` three levels deep, and its TLS one trusts the machine's certificates
//! beside the endpoint's. This room knows neither engines nor cells.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::host::Reach;
use crate::id::HostId;

/// Where an engine listens, with everything needed to talk to it.
#[derive(Clone)]
pub(super) enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A socket in the file system of another host.
    There { host: HostId, reach: Arc<dyn Reach>, path: String },
    /// `host:port`, in the clear.
    Tcp(String),
    /// `host:port` over TLS.
    Tls { address: String, name: ServerName<'static>, connector: TlsConnector },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::There { host, path, .. } => write!(f, "unix://{path} of host {host}"),
            Self::Tcp(address) | Self::Tls { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// The connection could not be made: nothing was sent, so the request can be repeated.
#[derive(Debug)]
pub(super) struct NotConnected(io::Error);

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotConnected {}

/// What TLS said against the connection, where that is why it was not made.
pub(super) fn tls_error(error: &io::Error) -> Option<&tokio_rustls::rustls::Error> {
    let inner = error.get_ref()?.downcast_ref::<NotConnected>()?;
    inner.0.get_ref()?.downcast_ref()
}

fn not_connected(error: io::Error) -> Error {
    Error::from(io::Error::new(error.kind(), NotConnected(error)))
}

impl Address {
    /// A deadline as it is for whoever answers there.
    pub(super) fn stretched(&self, limit: Duration) -> Duration {
        match self {
            Self::There { reach, .. } => limit * reach.patience(),
            Self::Unix(_) | Self::Tcp(_) | Self::Tls { .. } => limit,
        }
    }

    /// Sends one request over a connection of its own.
    pub(super) async fn send(self: Arc<Self>, request: BollardRequest) -> Result<Response<Incoming>, Error> {
        match &*self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(not_connected)?;
                exchange(stream, request).await
            }
            Self::There { reach, path, .. } => {
                let (reader, writer) = reach.connect(path).await.map_err(not_connected)?;
                exchange(tokio::io::join(reader, writer), request).await
            }
            Self::Tcp(address) => exchange(connect(address).await?, request).await,
            Self::Tls { address, name, connector } => {
                let stream = connect(address).await?;
                let stream = connector.connect(name.clone(), stream).await.map_err(not_connected)?;
                exchange(stream, request).await
            }
        }
    }
}

async fn connect(address: &str) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(address).await.map_err(not_connected)?;
    stream.set_nodelay(true).map_err(not_connected)?;
    Ok(stream)
}

async fn exchange<S>(stream: S, mut request: BollardRequest) -> Result<Response<Incoming>, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the connection, and the connection when the response (or the attached stream) is dropped.
    let mut connection = tokio::spawn(connection.with_upgrades());
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("engine"));
    let mut sending = pin!(sender.send_request(request));
    // By the connection too: where it ends just while it is asked, hyper leaves whoever asked waiting for as long as
    // `sender` lives: <https://github.com/hyperium/hyper/issues/4122>.
    let (answered, ended) = tokio::select! {
        biased;
        answered = &mut sending => (Some(answered), None),
        ended = &mut connection => (sending.now_or_never(), Some(ended)),
    };
    match answered {
        Some(Ok(response)) => Ok(response),
        Some(Err(error)) if !error.is_canceled() => Err(error.into()),
        // The connection ended before it was asked anything, and only it knows why: a server that wants another
        // certificate says so after the handshake, as TLS 1.3 has it.
        canceled => {
            let ended = match ended {
                Some(ended) => ended,
                None => connection.await,
            };
            match (ended, canceled) {
                (Ok(Err(why)), _) => Err(why.into()),
                (_, Some(Err(canceled))) => Err(canceled.into()),
                _ => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            }
        }
    }
}
