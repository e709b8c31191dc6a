//! The client of the node's API over the Unix socket in its state folder.
//!
//! Whoever may open the socket is an admin, so there is no token here.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, http};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::exit::{Exit, Failure};
use crate::config::place::SOCKET;

/// How long the node may take to answer, unless the caller says otherwise.
pub const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The largest answer that is read into memory, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// The group that may open the socket unless the node's configuration says otherwise.
const USUAL_GROUP: &str = "hearth";
/// The subprotocol of `/api/v1/watch`.
const SUBPROTOCOL: &str = "hearth.v1";

/// A client of one node. Each request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    state_dir: PathBuf,
    answer_time: Duration,
}

impl Client {
    /// A client of the node whose state lies there.
    pub fn new(state_dir: PathBuf) -> Self {
        Self { state_dir, answer_time: ANSWER_TIME }
    }

    /// The same client with another patience.
    #[must_use]
    pub fn patient(&self, answer_time: Duration) -> Self {
        Self { answer_time, ..self.clone() }
    }

    /// The state folder of the node.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// `GET` of a JSON document.
    ///
    /// # Errors
    /// [`Failure`]: see [`Client::send`].
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// A request with a JSON body, or none, that answers with JSON; `null` for an empty answer.
    ///
    /// # Errors
    /// [`Failure`]: see [`Client::send`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map(|value| ("application/json", Bytes::from(value.to_string())));
        let bytes = self.bytes(method, path, body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| garbled(format!("its answer is not JSON: {error}")))
    }

    /// A request that answers with bytes, 64 MiB at most.
    ///
    /// # Errors
    /// [`Failure`]: see [`Client::send`].
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Bytes, Failure> {
        let whole = async {
            let response = self.send(method, path, body).await?;
            collect(response.into_body()).await
        };
        timeout(self.answer_time, whole).await.map_err(|_| self.silent())?
    }

    /// A request whose answer is read by the caller, for streams.
    ///
    /// # Errors
    /// [`Failure`] with exit code 3 when the node is not there, 4 when its socket may not be
    /// opened, 7 when it does not answer in time, and that of the problem document when it refuses.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the request; what goes wrong with it the request tells.
        drop(tokio::spawn(connection));
        let mut request = Request::builder().method(method).uri(path).header(HOST, "hearth");
        request = request.header(ACCEPT, "application/json, application/problem+json, */*");
        let bytes = match body {
            Some((kind, bytes)) => {
                request = request.header(CONTENT_TYPE, kind);
                bytes
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(|error| garbled(error.to_string()))?;
        let answer = timeout(self.answer_time, sender.send_request(request)).await;
        let response = answer.map_err(|_| self.silent())?.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body =
            timeout(self.answer_time, collect(response.into_body())).await.map_err(|_| self.silent())??;
        Err(problem(status, &body))
    }

    /// Opens the WebSocket `/api/v1/watch`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn watch(&self) -> Result<WebSocketStream<UnixStream>, Failure> {
        let stream = self.connect().await?;
        let wrong = |error: tungstenite::Error| match error {
            tungstenite::Error::Http(response) => {
                let (parts, body) = response.into_parts();
                problem(parts.status.as_u16(), &body.unwrap_or_default())
            }
            other => garbled(other.to_string()),
        };
        let mut request = "ws://hearth/api/v1/watch".into_client_request().map_err(wrong)?;
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let handshake = timeout(self.answer_time, client_async(request, stream)).await;
        let (socket, _) = handshake.map_err(|_| self.silent())?.map_err(wrong)?;
        Ok(socket)
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let socket = self.state_dir.join(SOCKET);
        UnixStream::connect(&socket).await.map_err(|error| explain(&self.state_dir, &socket, &error))
    }

    fn silent(&self) -> Failure {
        let detail = format!(
            "the node of {} did not answer within {} s",
            self.state_dir.display(),
            self.answer_time.as_secs()
        );
        Failure::new(
            Exit::TimedOut,
            detail,
            "look into its log (journalctl -u hearth); restart it if it hangs",
        )
    }
}

/// Makes one segment of a path of any text (RFC 3986 section 3.3).
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(collected.map_err(|error| broken_off(&error.to_string()))?.to_bytes())
}

fn problem(status: u16, body: &[u8]) -> Failure {
    let text = || Value::String(String::from_utf8_lossy(body).chars().take(300).collect());
    let document = serde_json::from_slice(body).unwrap_or_else(|_| text());
    let mut failure = Failure::from_problem(status, document);
    if let Some(plain) =
        failure.problem.as_deref().and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    {
        failure.detail = format!("the node answered {status}: {}", plain.trim());
    }
    failure
}

fn broken(error: hyper::Error) -> Failure {
    broken_off(&error.to_string())
}

/// A connection that ends before its answer: the node stopped, or was restarted.
pub(crate) fn broken_off(reason: &str) -> Failure {
    let detail = format!("the node broke off before its answer was complete: {reason}");
    Failure::new(Exit::Unreachable, detail, "see with `hearth status` whether it is back, then try again")
}

/// An answer that no node of this version gives.
pub(crate) fn garbled(reason: String) -> Failure {
    let detail = format!("the node cannot be understood: {reason}");
    Failure::new(Exit::Failure, detail, "use the same version of hearth for the node and for this command")
}

fn explain(state_dir: &Path, socket: &Path, error: &io::Error) -> Failure {
    let (dir, path) = (state_dir.display(), socket.display());
    let start = format!("start one: hearth run --state-dir {dir}");
    let service = "start the service: sudo systemctl start hearth".to_owned();
    let start = if state_dir == Path::new("/var/lib/hearth") { service } else { start };
    let elsewhere = "or name the folder of the one that runs with --state-dir DIR";
    let unreachable =
        |detail: String| Failure::new(Exit::Unreachable, detail, format!("{start}, {elsewhere}"));
    match error.kind() {
        ErrorKind::NotFound if !state_dir.exists() => {
            unreachable(format!("no node has run here yet: there is no state folder {dir}"))
        }
        ErrorKind::NotFound => unreachable(format!("no node runs in {dir}: there is no {path}")),
        ErrorKind::ConnectionRefused => {
            unreachable(format!("no node runs in {dir}: nobody listens on {path} any more"))
        }
        ErrorKind::NotADirectory => unreachable(format!("{dir} is not a folder")),
        ErrorKind::PermissionDenied => {
            let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
            let (for_whom, fix) = match socket_group(socket, &groups) {
                Some(group) => (
                    format!("root and the group {group}"),
                    format!(
                        "sudo usermod -aG {group} $USER, then log in again; or put sudo before this command"
                    ),
                ),
                None => {
                    ("root and the user of the node".to_owned(), "put sudo before this command".to_owned())
                }
            };
            Failure::new(Exit::NotPermitted, format!("you may not open {path}: it is for {for_whom}"), fix)
        }
        ErrorKind::InvalidInput => {
            let detail = format!("{path} is too long for a Unix socket, whose path has at most 107 bytes");
            Failure::new(Exit::Unreachable, detail, "run the node with a shorter --state-dir")
        }
        _ => unreachable(format!("the node cannot be reached at {path}: {error}")),
    }
}

/// The group that may open the socket, as far as it can be seen: that of the socket, or of the folder
/// that hides it, or the usual one. `groups` is in the form of group(5).
fn socket_group(socket: &Path, groups: &str) -> Option<String> {
    let seen = std::fs::metadata(socket).ok().filter(|socket| socket.mode() & 0o020 != 0);
    let folder = || std::fs::metadata(socket.parent()?).ok().filter(|folder| folder.mode() & 0o010 != 0);
    let owner = seen.or_else(folder).map(|about| about.gid()).filter(|group| *group != 0);
    let mut known = groups.lines().filter_map(|line| {
        let mut parts = line.split(':');
        Some((parts.next()?, parts.nth(1)?.parse::<u32>().ok()?))
    });
    let named = match owner {
        Some(owner) => known.find(|(_, number)| *number == owner),
        None => known.find(|(name, _)| *name == USUAL_GROUP),
    };
    named.map(|(name, _)| name.to_owned())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
