//! Clients of the API as other programs have them: HTTP/1.1 and WebSocket, over the Unix socket or
//! over TLS with a CA file and a bearer token.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, UnixStream},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

use super::PATIENCE;

/// TLS that trusts the CA in `pem` alone.
///
/// # Errors
/// When it is no CA.
pub fn trusting(pem: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    ensure!(roots.len() == 1, "{} certificates in the CA file", roots.len());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}
type Duplex = Pin<Box<dyn Stream>>;

#[derive(Clone)]
enum Way {
    Socket(PathBuf),
    Web {
        address: SocketAddr,
        /// By which the node is asked, unless by its address.
        name: Option<String>,
        tls: Arc<ClientConfig>,
        token: Option<String>,
        receive_buffer: Option<u32>,
        /// Sent as a page of the same origin does, and that origin.
        cookie: Option<(String, Option<String>)>,
    },
}

/// A client; each request has a connection of its own.
#[derive(Clone)]
pub struct Client(Way);

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub media_type: String,
    /// After how many seconds it may be asked again.
    pub retry_after: Option<u64>,
    /// The cookie that it sets, as it is sent back: `NAME=VALUE`.
    pub cookie: Option<String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON, `null` when there is none.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn json(&self) -> Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }

    /// The body as JSON, if the status says success.
    ///
    /// # Errors
    /// When it does not.
    pub fn success(&self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "the API answered {self:?}");
        self.json()
    }

    /// The last part of the type of a problem document, if it is one with all that it must have.
    ///
    /// # Errors
    /// When it is none.
    pub fn problem(&self) -> Result<String> {
        let document = self.json()?;
        let whole = self.media_type == "application/problem+json"
            && document["status"] == self.status
            && ["title", "detail", "fix"].iter().all(|name| document[*name].is_string());
        ensure!(whole, "not a problem document: {self:?}");
        let kind = document["type"].as_str().and_then(|kind| kind.strip_prefix("urn:hearth:problem:"));
        Ok(kind.with_context(|| format!("of an unknown type: {self:?}"))?.to_owned())
    }
}

impl Client {
    /// A client on the socket in a state folder.
    #[must_use]
    pub fn socket(state: &Path) -> Self {
        Self(Way::Socket(state.join("hearth.sock")))
    }

    /// A client over TLS that trusts the CA in `pem` alone.
    ///
    /// # Errors
    /// When it is no CA.
    pub fn web(address: SocketAddr, pem: &str, token: Option<&str>) -> Result<Self> {
        let tls = trusting(pem)?;
        let token = token.map(str::to_owned);
        let tls = Arc::new(tls);
        Ok(Self(Way::Web { address, name: None, tls, token, receive_buffer: None, cookie: None }))
    }

    /// The same by a name, trusting whom `tls` trusts.
    #[must_use]
    pub fn named(&self, by: &str, trusts: &Arc<ClientConfig>) -> Self {
        let mut client = self.clone();
        if let Way::Web { name, tls, .. } = &mut client.0 {
            (*name, *tls) = (Some(by.to_owned()), trusts.clone());
        }
        client
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, other: Option<&str>) -> Self {
        let mut client = self.clone();
        if let Way::Web { token, .. } = &mut client.0 {
            *token = other.map(str::to_owned);
        }
        client
    }

    /// The same with a cookie, from a page of this node itself, or of another origin.
    #[must_use]
    pub fn with_cookie(&self, value: &str, origin: Option<&str>) -> Self {
        let mut client = self.clone();
        if let Way::Web { cookie, token, .. } = &mut client.0 {
            *cookie = Some((value.to_owned(), origin.map(str::to_owned)));
            *token = None;
        }
        client
    }

    /// What shows who it is, as headers.
    fn credentials(&self) -> Vec<(&'static str, String)> {
        let Way::Web { address, token, cookie, .. } = &self.0 else { return Vec::new() };
        let mut headers = Vec::new();
        headers.extend(token.as_ref().map(|token| ("authorization", format!("Bearer {token}"))));
        if let Some((value, origin)) = cookie {
            headers.push(("cookie", value.clone()));
            headers.push(("origin", origin.clone().unwrap_or_else(|| format!("https://{address}"))));
        }
        headers
    }

    /// The same with a receive buffer of so many bytes in the kernel, for a peer that reads slowly.
    #[must_use]
    pub fn with_receive_buffer(&self, bytes: u32) -> Self {
        let mut client = self.clone();
        if let Way::Web { receive_buffer, .. } = &mut client.0 {
            *receive_buffer = Some(bytes);
        }
        client
    }

    /// `GET`.
    ///
    /// # Errors
    /// When the node cannot be reached or hangs.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, None).await
    }

    /// The fields of every object with a prefix, page by page.
    ///
    /// # Errors
    /// When the node cannot be reached or refuses.
    pub async fn objects(&self, prefix: &str) -> Result<BTreeMap<String, Value>> {
        let mut found = BTreeMap::new();
        let mut after = String::new();
        loop {
            let path = format!("/api/v1/objects?prefix={prefix}&limit=500{after}");
            let mut page = self.get(&path).await?.success()?;
            for object in page["objects"].as_array_mut().context("no objects")? {
                let id = object["id"].as_str().context("no id")?.to_owned();
                found.insert(id, object["fields"].take());
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
                None => return Ok(found),
            }
        }
    }

    /// A request with a JSON body or none.
    ///
    /// # Errors
    /// When the node cannot be reached or hangs.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send_as(method, path, body).await
    }

    /// A request with a body of any media type.
    ///
    /// # Errors
    /// When the node cannot be reached or hangs.
    pub async fn send_as(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, impl Into<Bytes>)>,
    ) -> Result<Answer> {
        let body = body.map(|(kind, body)| (kind, body.into()));
        let exchange = timeout(PATIENCE, self.exchange(method, path, body)).await;
        exchange.with_context(|| format!("{method} {path} was not answered within {PATIENCE:?}"))?
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<(&str, Bytes)>) -> Result<Answer> {
        self.session().await?.exchange(method, path, body).await
    }

    /// A connection for many requests, one after the other.
    ///
    /// # Errors
    /// When the node cannot be reached.
    pub async fn session(&self) -> Result<Session> {
        let stream = TokioIo::new(self.connect().await?);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        // It ends with the session, whose requests tell what goes wrong.
        drop(tokio::spawn(connection));
        Ok(Session { sender, client: self.clone() })
    }

    fn host(&self) -> String {
        match &self.0 {
            Way::Socket(_) => "hearth".into(),
            Way::Web { name: Some(name), .. } => name.clone(),
            Way::Web { address, .. } => address.to_string(),
        }
    }

    async fn connect(&self) -> Result<Duplex> {
        match &self.0 {
            Way::Socket(path) => Ok(Box::pin(UnixStream::connect(path).await?)),
            Way::Web { address, name, tls, receive_buffer, .. } => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                if let Some(bytes) = receive_buffer {
                    socket.set_recv_buffer_size(*bytes)?;
                }
                let stream = socket.connect(*address).await?;
                stream.set_nodelay(true)?;
                let name = match name {
                    Some(name) => ServerName::try_from(name.clone())?,
                    None => ServerName::from(address.ip()),
                };
                Ok(Box::pin(TlsConnector::from(tls.clone()).connect(name, stream).await?))
            }
        }
    }

    /// Opens `/api/v1/watch`, with the token in the header.
    ///
    /// # Errors
    /// When the node cannot be reached or refuses.
    pub async fn watch(&self) -> Result<Observer> {
        let scheme = if matches!(self.0, Way::Socket(_)) { "ws" } else { "wss" };
        let mut request = format!("{scheme}://{}/api/v1/watch", self.host()).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "hearth.v1".parse()?);
        for (name, value) in self.credentials() {
            headers.insert(name, value.parse()?);
        }
        let stream = self.connect().await?;
        let (socket, response) = timeout(PATIENCE, client_async(request, stream)).await??;
        let protocol = response.headers().get("sec-websocket-protocol").and_then(|name| name.to_str().ok());
        ensure!(protocol == Some("hearth.v1"), "the node speaks another subprotocol: {protocol:?}");
        Ok(Observer { socket, resume: None, bytes: 0, messages: 0 })
    }
}

/// As often as one client may go on asking: 40 times a second, of the 50 that the API answers in the long run.
#[must_use]
pub fn steady_pace() -> Interval {
    let mut pace = interval(Duration::from_millis(25));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// A connection that is kept open.
pub struct Session {
    sender: SendRequest<Full<Bytes>>,
    client: Client,
}

impl Session {
    /// A request with a body of any media type, or none. It may take as long as it takes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: Option<(&str, impl Into<Bytes>)>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.client.host());
        for (name, value) in self.client.credentials() {
            request = request.header(name, value);
        }
        if let Some((kind, _)) = &body {
            request = request.header("content-type", *kind);
        }
        let body = body.map(|(_, body)| body.into()).unwrap_or_default();
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status().as_u16();
        let media_type = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let retry_after = response.headers().get("retry-after").and_then(|s| s.to_str().ok()?.parse().ok());
        let cookie =
            response.headers().get("set-cookie").and_then(|set| set.to_str().ok()?.split(';').next());
        let cookie = cookie.map(str::to_owned);
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, media_type, retry_after, cookie, body })
    }
}

/// An open `/api/v1/watch`. It reads only when it is asked for the next message.
pub struct Observer {
    socket: WebSocketStream<Duplex>,
    /// The newest resume token.
    pub resume: Option<String>,
    /// How many bytes of text have been read.
    pub bytes: usize,
    /// How many text messages have been read.
    pub messages: usize,
}

impl Observer {
    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn say(&mut self, message: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// Subscribes; answers with the objects of the snapshot by name, and whether it is a reset.
    ///
    /// # Errors
    /// When what comes is not a snapshot.
    pub async fn subscribe(&mut self, prefixes: &[&str], resume: Option<&str>) -> Result<(Vec<Value>, bool)> {
        let mut message = json!({ "type": "subscribe", "prefixes": prefixes });
        if let Some(resume) = resume {
            message["resume"] = json!(resume);
        }
        self.say(&message).await?;
        let begin = self.next().await?;
        ensure!(begin["type"] == "snapshot_begin", "no snapshot begins: {begin}");
        let reset = begin["reset"].as_bool().context("no reset")?;
        let mut objects = Vec::new();
        loop {
            let message = self.next().await?;
            match message["type"].as_str() {
                Some("object" | "gone") => objects.push(message),
                Some("snapshot_end") => return Ok((objects, reset)),
                _ => bail!("within a snapshot: {message}"),
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// When none comes in time, or the connection ends.
    pub async fn next(&mut self) -> Result<Value> {
        self.next_within(PATIENCE).await?.context("nothing came in time")
    }

    /// The next message; none when none comes within a time.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn next_within(&mut self, within: Duration) -> Result<Option<Value>> {
        // Of the whole wait: the node's pings are no messages.
        let deadline = Instant::now() + within;
        loop {
            let Ok(message) = timeout_at(deadline, self.socket.next()).await else { return Ok(None) };
            match message.context("the connection ended")?? {
                Message::Text(text) => {
                    self.bytes += text.len();
                    self.messages += 1;
                    let message: Value = serde_json::from_str(&text)?;
                    if let Some(resume) = message["resume"].as_str() {
                        self.resume = Some(resume.to_owned());
                    }
                    return Ok(Some(message));
                }
                Message::Close(frame) => bail!("the node closed the connection: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Reads until a message is what is looked for; answers with it.
    ///
    /// # Errors
    /// When it does not come in time, with what came.
    pub async fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(message) = self.next_within(left).await? else {
                bail!("waited for {what}; saw {seen:#?}")
            };
            if is_it(&message) {
                return Ok(message);
            }
            seen.push(message);
        }
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub async fn close(mut self) -> Result<(), tungstenite::Error> {
        self.socket.close(None).await
    }
}
