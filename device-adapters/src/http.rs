//! HTTP/1.1 for adapters: one host, one connection that is kept, and a bound on everything that the host may do.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::net::Route;

/// What a client calls itself where nobody asked for more.
pub(crate) const AGENT: &str = concat!("hearth/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one of HTTP.
    #[error(
        "{0:?} is no address: it must be http://HOST[:PORT] or https://HOST[:PORT], with or without a path"
    )]
    Address(String),
    /// No connection.
    #[error("{0}")]
    Connect(io::Error),
    /// The handshake of TLS failed.
    #[error("no TLS with {host}: {source}")]
    Tls {
        /// The host.
        host: String,
        /// What was wrong.
        source: io::Error,
    },
    /// It took too long.
    #[error("no answer from {host} within {ms} ms")]
    Timeout {
        /// The host.
        host: String,
        /// How long was waited.
        ms: u128,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{host} broke the protocol: {source}")]
    Protocol {
        /// The host.
        host: String,
        /// What was wrong.
        source: hyper::Error,
    },
    /// The body is longer than the protocol needs.
    #[error("{host} sent more than {most} bytes: the answer is dropped")]
    TooLarge {
        /// The host.
        host: String,
        /// The bound.
        most: usize,
    },
    /// A header that cannot be sent.
    #[error("a header {0} holds what HTTP cannot carry")]
    Header(&'static str),
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// Plain HTTP.
    pub(crate) fn plain(host: impl fmt::Display, port: u16) -> Self {
        Self { tls: false, host: bracketed(&host.to_string()), port }
    }

    /// Of an address as people write it, with the path that follows it (empty for none). One with a name and a
    /// password in it is refused: they would be seen in logs.
    pub(crate) fn parse(text: &str) -> Result<(Self, String), HttpError> {
        let wrong = || HttpError::Address(text.chars().take(80).collect());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(wrong());
        }
        let has_port = authority.as_str().len() > host.len();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if has_port => return Err(wrong()),
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        Ok((Self { tls, host, port }, uri.path().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An IPv6 address in brackets, as RFC 3986 wants it in an authority.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// For all of it, the connection and the body included.
    pub(crate) within: Duration,
    /// The longest body that is taken, in bytes.
    pub(crate) most: usize,
}

impl Request {
    /// A `GET` with 5 s and 256 KiB.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            within: Duration::from_secs(5),
            most: 256 * 1024,
        }
    }

    /// The same with a JSON body and another method.
    pub(crate) fn json(method: Method, path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self {
            method,
            body: body.to_string().into_bytes(),
            headers: vec![("content-type", "application/json".to_owned())],
            ..Self::get(path)
        }
    }

    /// With a header more.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With so much time.
    pub(crate) fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An answer whose body comes as it is made: server-sent events.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    body: Incoming,
    host: String,
    _connection: SendRequest<Full<Bytes>>,
}

impl Stream {
    /// The next bytes; none at the end. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(source) => return Some(Err(HttpError::Protocol { host: self.host.clone(), source })),
            }
        }
    }
}

/// A client of one host.
pub(crate) struct Client {
    origin: Origin,
    route: Route,
    agent: String,
    tls: Option<Arc<ClientConfig>>,
    /// The name that TLS asks for, where it is not the host.
    server_name: Option<ServerName<'static>>,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Nothing is connected yet. `tls` is needed for an origin with TLS.
    pub(crate) fn new(origin: Origin, route: Route, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { origin, route, agent: AGENT.to_owned(), tls, server_name: None, kept: None }
    }

    /// Calls itself so.
    pub(crate) fn with_agent(self, agent: String) -> Self {
        Self { agent, ..self }
    }

    /// Asks TLS for that name.
    pub(crate) fn with_server_name(self, name: ServerName<'static>) -> Self {
        Self { server_name: Some(name), ..self }
    }

    /// Whom it asks.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Asks, over the connection that is kept or a new one. A kept one may have been closed meanwhile: what was not
    /// sent over it is sent over a new one.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<Response, HttpError> {
        let end = Instant::now() + request.within;
        let answer = timeout_at(end, self.send_and_read(request)).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.kept = None; // an answer that comes later would be taken for that of the next request
        }
        answer.unwrap_or_else(|_| Err(self.timeout(request)))
    }

    /// Asks over a connection of its own, and gives the body as it comes. The time is for the head alone.
    pub(crate) async fn stream(&self, request: &Request) -> Result<Stream, HttpError> {
        let head = async {
            let mut connection = self.connect(request).await?;
            let message = self.message(request)?;
            let sent = connection.send_request(message).await;
            Ok((sent.map_err(|source| self.broken(source))?, connection))
        };
        let end = Instant::now() + request.within;
        let (head, connection) =
            timeout_at(end, head).await.unwrap_or_else(|_| Err(self.timeout(request)))?;
        let status = head.status();
        Ok(Stream { status, body: head.into_body(), host: self.origin.to_string(), _connection: connection })
    }

    async fn send_and_read(&mut self, request: &Request) -> Result<Response, HttpError> {
        let mut kept = self.kept.take();
        if let Some(connection) = &mut kept
            && connection.ready().await.is_err()
        {
            kept = None; // closed meanwhile
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect(request).await?,
        };
        let message = self.message(request)?;
        let head = match connection.try_send_request(message).await {
            Ok(head) => head,
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => {
                    connection = self.connect(request).await?;
                    connection.send_request(unsent).await.map_err(|source| self.broken(source))?
                }
                None => return Err(self.broken(failed.into_error())),
            },
        };
        let (head, mut incoming) = head.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|source| self.broken(source))?;
            if let Ok(data) = frame.into_data() {
                if body.len() + data.len() > request.most {
                    return Err(HttpError::TooLarge { host: self.origin.to_string(), most: request.most });
                }
                body.extend_from_slice(&data);
            }
        }
        self.kept = Some(connection);
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    async fn connect(&self, request: &Request) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let Origin { host, port, .. } = &self.origin;
        let stream = self.route.connect(host, *port, request.within).await.map_err(HttpError::Connect)?;
        match self.tls.as_ref().filter(|_| self.origin.tls) {
            None if self.origin.tls => {
                let source = io::Error::other("this adapter was not prepared for TLS");
                Err(HttpError::Tls { host: self.origin.to_string(), source })
            }
            None => self.shake_hands(stream).await,
            Some(tls) => {
                let failed = |source| HttpError::Tls { host: self.origin.to_string(), source };
                let name = match &self.server_name {
                    Some(name) => name.clone(),
                    None => {
                        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                        ServerName::try_from(bare).map_err(|error| failed(io::Error::other(error)))?
                    }
                };
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(failed)?;
                self.shake_hands(stream).await
            }
        }
    }

    async fn shake_hands<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, HttpError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let made = http1::Builder::new().max_buf_size(64 * 1024).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|source| self.broken(source))?;
        // Ends with the sender: nothing outlives the client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection of an adapter ended");
            }
        });
        Ok(sender)
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let path: Uri =
            request.path.parse().map_err(|_| HttpError::Address(request.path.chars().take(80).collect()))?;
        let mut message = hyper::Request::new(Full::new(Bytes::from(request.body.clone())));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = path;
        let value =
            |name: &'static str, text: &str| HeaderValue::from_str(text).map_err(|_| HttpError::Header(name));
        let headers = message.headers_mut();
        let default_port = if self.origin.tls { 443 } else { 80 };
        let host =
            if self.origin.port == default_port { self.origin.host.clone() } else { self.origin.to_string() };
        headers.insert(HOST, value("host", &host)?);
        headers.insert(USER_AGENT, value("user-agent", &self.agent)?);
        for (name, text) in &request.headers {
            headers.insert(HeaderName::from_static(name), value(name, text)?);
        }
        Ok(message)
    }

    fn broken(&self, source: hyper::Error) -> HttpError {
        HttpError::Protocol { host: self.origin.to_string(), source }
    }

    fn timeout(&self, request: &Request) -> HttpError {
        HttpError::Timeout {
            host: format!("{}{}", self.origin, self.route.over()),
            ms: request.within.as_millis(),
        }
    }
}

/// TLS as the public internet needs it: the certificates that this system trusts.
///
/// # Errors
/// That it trusts none, with the way out.
pub(crate) fn public_tls() -> Result<Arc<ClientConfig>, String> {
    let roots = public_roots()?;
    tls_trusting(roots)
}

/// TLS that trusts these authorities.
///
/// # Errors
/// What TLS has against it.
pub(crate) fn tls_trusting(roots: rustls::RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The authorities that this system trusts.
pub(crate) fn public_roots() -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "this system trusts no certificate authority: install the package ca-certificates".to_owned()
        );
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_taken_apart_or_refused() {
        let (origin, path) = Origin::parse("http://192.0.2.1:8080/v1/").unwrap();
        assert_eq!((origin.tls, origin.port, path.as_str()), (false, 8080, "/v1"));
        assert_eq!(origin.to_string(), "192.0.2.1:8080");
        let (origin, path) = Origin::parse("https://[2001:db8::1]").unwrap();
        assert_eq!(
            (origin.tls, origin.port, origin.host.as_str(), path.as_str()),
            (true, 443, "[2001:db8::1]", "")
        );
        for bad in
            ["", "ftp://a", "a.example", "http://", "http://me:secret@a/", "http://a/?key=1", "http://a b/"]
        {
            assert!(Origin::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_ipv6_address_has_brackets() {
        assert_eq!(Origin::plain("fe80::1", 80).host, "[fe80::1]");
        assert_eq!(Origin::plain("192.0.2.1", 80).host, "192.0.2.1");
    }
}
