//! WebSockets over TLS over TCP, for networks that drop UDP: the same keys, frames and admission as over
//! QUIC, on the port of the API.
//!
//! ALPN says that a connection is the mesh's; the TLS is that of QUIC, raw keys on both sides. Then the
//! dialling side asks for a WebSocket at [`PATH`]. On a link each binary message is one byte that names
//! the channel and then a frame (0) or a datagram (1). On a connection that asks for admission the
//! messages are pieces of one stream of bytes. A close code is that of the mesh plus 4000, in the range
//! that RFC 6455 (section 7.4.2) leaves to applications.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_proto::NodeId;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, TlsStream, server::StartHandshake};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{Callback, ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::{CloseFrame, WebSocketConfig},
    },
};
use tracing::debug;

use super::{
    AttemptError, CloseCode, DialError, LinkEnd, MAX_FRAME, clip,
    counters::bump,
    gate::{Gate, Place},
    pipe::{Closer, JoinPipe},
    race::{check_peer, first_of},
    websocket_link::NewWebSocketLink,
};
use crate::tls::identity::{
    ALPN_MESH, Handshake, IdentityError, NodeIdentity, SERVER_NAME, join_binding_tls,
};

/// Where the mesh's WebSocket is asked for.
pub const PATH: &str = "/mesh";
/// Before a frame in its message.
pub(super) const FRAME: u8 = 0;
/// Before a datagram in its message.
pub(super) const DATAGRAM: u8 = 1;
/// What is added to a close code of the mesh.
const CLOSE_BASE: u32 = 4_000;
/// Largest reason of a close frame is 123 bytes (RFC 6455, section 5.5).
const CLOSE_WORDS: usize = 120;
/// Within which the last words must be written.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Bytes of an admission that are under way between its task and the WebSocket.
const PIPE: usize = 64 << 10;

pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(64 << 10)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(MAX_FRAME + 1))
        .max_frame_size(Some(MAX_FRAME + 1))
}

/// Accepts and dials WebSockets of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct WebSocketTransport {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    ourselves: NodeId,
    gate: Arc<Gate>,
}

impl fmt::Debug for WebSocketTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketTransport").field("ourselves", &self.ourselves).finish_non_exhaustive()
    }
}

impl WebSocketTransport {
    /// Beside the QUIC of the same node, with which it shares what strangers may use.
    ///
    /// # Errors
    /// [`IdentityError`] when the key cannot be used.
    pub fn new(identity: &NodeIdentity, quic: &super::QuicTransport) -> Result<Self, IdentityError> {
        Ok(Self {
            server: Arc::new(identity.server_tls()?),
            client: Arc::new(identity.client_tls(ALPN_MESH)?),
            ourselves: identity.id(),
            gate: quic.gate(),
        })
    }

    /// Dials all addresses at once, as [`super::QuicTransport::dial`] does.
    ///
    /// # Errors
    /// [`DialError`] names how each address failed.
    pub async fn dial(
        &self,
        expected: Option<NodeId>,
        addresses: &[SocketAddr],
    ) -> Result<(NodeId, LinkEnd), DialError> {
        let race = WebSocketRace {
            client: &self.client,
            ourselves: self.ourselves,
            expected,
            within: self.gate.limits.handshake_deadline,
        };
        let connected = race.run(addresses).await.inspect_err(|error| {
            let DialError::Failed(failures) = error else { return };
            let is_wrong = |error: &AttemptError| {
                matches!(error, AttemptError::OverTcp(inner) if matches!(**inner, AttemptError::WrongKey { .. }))
            };
            failures.iter().filter(|(_, e)| is_wrong(e)).for_each(|_| bump(&self.gate.counters.wrong_key));
        })?;
        let peer = connected.peer;
        let link = NewWebSocketLink {
            socket: connected.socket,
            control: Arc::default(),
            peer,
            address: connected.address,
            dialed: true,
            stranger: None,
            admission_deadline: self.gate.limits.stranger_deadline,
        };
        Ok((peer, link.start(self.gate.events.clone(), self.gate.counters.clone())))
    }

    /// Finishes the handshake of a connection whose ALPN is the mesh's, and hands it on. The caller sets
    /// the deadline; what fails is counted here.
    pub(crate) async fn accept(&self, hello: StartHandshake<TcpStream>, address: SocketAddr) {
        let counters = &self.gate.counters;
        let stream = match hello.into_stream(self.server.clone()).await {
            Ok(stream) => TlsStream::from(stream),
            Err(error) => {
                debug!(%address, %error, "a TLS handshake for the mesh failed");
                return bump(&counters.tcp_mesh_refused);
            }
        };
        let Some(shake) = Handshake::of_tls(&stream) else { return bump(&counters.tcp_mesh_refused) };
        let binding = join_binding_tls(&stream);
        let socket = match accept_hdr_async_with_config(stream, OnlyMesh, Some(limits())).await {
            Ok(socket) => socket,
            Err(error) => {
                debug!(%address, %error, "no WebSocket for the mesh was asked for");
                return bump(&counters.websocket_refused);
            }
        };
        let control = Arc::new(Control::default());
        let stranger = match self.gate.place(&shake, control.clone(), address).await {
            None => return control.say_goodbye(socket).await,
            Some(Place::Join(place)) => {
                let pipe = JoinPipe::websocket(ByteStream::start(socket, control), binding);
                return self.gate.join(shake.peer, address, pipe, place);
            }
            Some(Place::Stranger(place)) => Some(place),
            Some(Place::Known) => None,
        };
        let admission_deadline = self.gate.limits.stranger_deadline;
        let peer = shake.peer;
        NewWebSocketLink { socket, control, peer, address, dialed: false, stranger, admission_deadline }
            .start(self.gate.events.clone(), counters.clone());
    }
}

/// Lets only the path of the mesh pass.
struct OnlyMesh;

impl Callback for OnlyMesh {
    fn on_request(self, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
        if request.uri().path() == PATH {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some(format!("the mesh is at {PATH}\n")));
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        Err(refusal)
    }
}

/// A finished handshake with the wanted peer.
pub(crate) struct WebSocketConnected {
    pub(super) socket: Socket,
    pub(crate) peer: NodeId,
    pub(super) address: SocketAddr,
    binding: Option<[u8; 32]>,
}

impl WebSocketConnected {
    /// For an admission.
    pub(crate) fn into_pipe(self) -> JoinPipe {
        JoinPipe::websocket(ByteStream::start(self.socket, Arc::default()), self.binding)
    }
}

/// What to dial over TCP, and who must answer.
pub(crate) struct WebSocketRace<'a> {
    pub(crate) client: &'a Arc<ClientConfig>,
    /// This node, which must not talk to itself.
    pub(crate) ourselves: NodeId,
    /// The only key that will do; `None` takes any.
    pub(crate) expected: Option<NodeId>,
    /// Given to each attempt, its TLS and its WebSocket together.
    pub(crate) within: Duration,
}

impl WebSocketRace<'_> {
    /// Dials all addresses at once. Cancelling drops every attempt.
    pub(crate) async fn run(&self, addresses: &[SocketAddr]) -> Result<WebSocketConnected, DialError> {
        first_of(addresses, |address| async move {
            let outcome = timeout(self.within, self.attempt(address)).await;
            outcome
                .unwrap_or(Err(AttemptError::NoAnswer(self.within)))
                .map_err(|error| AttemptError::OverTcp(Box::new(error)))
        })
        .await
    }

    async fn attempt(&self, address: SocketAddr) -> Result<WebSocketConnected, AttemptError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| AttemptError::Unreachable(clip(error.to_string().as_bytes())))?;
        // Small frames should not wait for more.
        let _ = stream.set_nodelay(true);
        let refused = |error: String| AttemptError::Refused(clip(error.as_bytes()));
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| refused(error.to_string()))?;
        let connecting = TlsConnector::from(self.client.clone()).connect(name, stream);
        let stream = TlsStream::from(connecting.await.map_err(|error| refused(error.to_string()))?);
        let shake = Handshake::of_tls(&stream).ok_or_else(|| refused("no raw public key".into()))?;
        check_peer(shake.peer, self.ourselves, self.expected)?;
        let binding = join_binding_tls(&stream);
        let request = format!("ws://{SERVER_NAME}{PATH}");
        let upgraded = client_async_with_config(request, stream, Some(limits())).await;
        let (socket, _response) = upgraded.map_err(|error| refused(error.to_string()))?;
        Ok(WebSocketConnected { socket, peer: shake.peer, address, binding })
    }
}

/// How a WebSocket is ended from afar.
#[derive(Debug, Default)]
pub(super) struct Control {
    asked: OnceLock<(CloseCode, String)>,
    wake: Notify,
    by_peer: OnceLock<CloseCode>,
}

impl Closer for Control {
    fn close(&self, code: CloseCode, words: &str) {
        let _first_wins = self.asked.set((code, words.to_owned()));
        self.wake.notify_one();
    }

    fn closed_by_peer(&self) -> Option<CloseCode> {
        self.by_peer.get().copied()
    }
}

impl Control {
    /// Returns once it was asked to end; with which code.
    pub(super) async fn asked(&self) -> CloseCode {
        loop {
            if let Some((code, _)) = self.asked.get() {
                return *code;
            }
            self.wake.notified().await;
        }
    }

    /// What the peer said at its end.
    pub(super) fn heard(&self, frame: Option<CloseFrame>) -> (CloseCode, String) {
        let (code, words) = match &frame {
            Some(frame) => (u32::from(u16::from(frame.code)), clip(frame.reason.as_bytes())),
            None => (CLOSE_BASE, String::new()),
        };
        let code = code
            .checked_sub(CLOSE_BASE)
            .map_or(CloseCode::Unknown(code), |n| CloseCode::from_number(n.into()));
        let _first_wins = self.by_peer.set(code);
        (code, words)
    }

    /// The last message, with the code it was asked to end with.
    pub(super) fn last_words(&self) -> Message {
        let (code, words) = self.asked.get().cloned().unwrap_or((CloseCode::Done, String::new()));
        let number = u16::try_from(CLOSE_BASE.saturating_add(code.number())).unwrap_or(u16::MAX);
        let mut reason = clip(words.as_bytes());
        while reason.len() > CLOSE_WORDS {
            reason.pop();
        }
        Message::Close(Some(CloseFrame { code: number.into(), reason: reason.into() }))
    }

    /// Says the last words and ends the connection. What still comes is read meanwhile: closing a socket
    /// with unread bytes would discard the words.
    pub(super) async fn say_goodbye(&self, mut socket: Socket) {
        let goodbye = async {
            socket.send(self.last_words()).await.ok()?;
            let stream = socket.get_mut();
            stream.shutdown().await.ok()?;
            let mut rest = [0; 4_096];
            while stream.read(&mut rest).await.ok()? > 0 {}
            Some(())
        };
        // Whether the peer hears it is not ours to know.
        let _ = timeout(LAST_WORDS, goodbye).await;
    }
}

/// The messages of a WebSocket as one stream of bytes.
pub(crate) struct ByteStream {
    near: DuplexStream,
    control: Arc<Control>,
    pump: JoinHandle<()>,
}

impl ByteStream {
    fn start(socket: Socket, control: Arc<Control>) -> Self {
        let (near, far) = duplex(PIPE);
        let pump = tokio::spawn(pump(socket, far, control.clone()));
        Self { near, control, pump }
    }

    pub(super) fn bytes(&mut self) -> &mut DuplexStream {
        &mut self.near
    }

    pub(super) fn closer(&self) -> Arc<dyn Closer> {
        self.control.clone()
    }

    /// Returns once everything is sent and the connection has ended.
    pub(super) async fn ended(&mut self) {
        // It cannot be waited for again, which nobody does.
        let _ = (&mut self.pump).await;
    }
}

async fn pump(mut socket: Socket, mut far: DuplexStream, control: Arc<Control>) {
    let mut out = BytesMut::with_capacity(PIPE);
    loop {
        tokio::select! {
            _ = control.asked() => break,
            message = socket.next() => match message {
                Some(Ok(Message::Binary(piece))) => {
                    if far.write_all(&piece).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    control.heard(frame);
                    return;
                }
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    control.close(CloseCode::Misuse, "only binary messages");
                    break;
                }
                Some(Err(_)) | None => return,
            },
            read = far.read_buf(&mut out) => match read {
                Ok(count) if count > 0 => {
                    if socket.send(Message::Binary(out.split().freeze())).await.is_err() {
                        return;
                    }
                    out.reserve(PIPE);
                }
                _ => break,
            },
        }
    }
    control.say_goodbye(socket).await;
}

/// A message of a link.
pub(super) fn message(channel: u8, content: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(1 + content.len());
    bytes.extend_from_slice(&[channel]);
    bytes.extend_from_slice(content);
    Message::Binary(bytes.freeze())
}

/// The channel of a message and what it carries.
pub(super) fn parts(mut message: Bytes) -> Option<(u8, Bytes)> {
    let channel = *message.first()?;
    Some((channel, message.split_off(1)))
}

#[cfg(test)]
mod tests;
