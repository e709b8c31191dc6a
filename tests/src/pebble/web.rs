//! One request over a connection of its own, as each part of the authority speaks.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request,
    body::Bytes,
    header::{HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::daemon::PATIENCE;

/// Over plain HTTP, or over TLS with these authorities.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Without TLS.
    Plain,
    /// With TLS, to a server with one of these roots.
    Tls(Arc<rustls::ClientConfig>),
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks a server by HTTP/1.1. A `host` and a `user-agent` among the headers are kept, else the first is the address.
///
/// # Errors
/// When it cannot be reached or hangs.
pub async fn ask(
    address: SocketAddr,
    trust: &Trust,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Reply> {
    let mut request = Request::builder().method(method).uri(path);
    let is_said = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if !is_said("host") {
        request = request.header(HOST, address.to_string());
    }
    // Every client of an authority must name itself (RFC 8555, section 6.1).
    if !is_said("user-agent") {
        request = request.header(USER_AGENT, "hearth-tests");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let asked = send(address, trust, request.body(Full::new(body.into()))?);
    timeout(PATIENCE, asked).await.with_context(|| format!("{address} did not answer {method} {path}"))?
}

/// Sends a request as it is.
///
/// # Errors
/// When the server cannot be reached.
pub(super) async fn send(address: SocketAddr, trust: &Trust, request: Request<Full<Bytes>>) -> Result<Reply> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
    stream.set_nodelay(true)?;
    match trust {
        Trust::Plain => exchange(stream, request).await,
        Trust::Tls(tls) => {
            let name = ServerName::from(address.ip());
            exchange(TlsConnector::from(tls.clone()).connect(name, stream).await?, request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, whose request tells what goes wrong.
    drop(tokio::spawn(connection));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}
