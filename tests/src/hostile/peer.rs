//! Peers that the tests themselves play: strangers, and members that joined by a real invite and
//! then say what they like, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_proto::{
    Dot, FieldName, Hlc, HouseholdId, Key, NodeId, ObjectId, Origin,
    merge::Entry,
    overlay::Run,
    record::Item,
    roster::Roster,
    time::{TimeOfDay, UNSYNCHRONISED},
    wire::{self, ByeReason, Hello, Message},
};
use node::{
    auth::{InviteToken, join},
    tls::identity::{ALPN_MESH, NodeIdentity, SERVER_NAME},
    transport::websocket,
};
use quinn::{Connecting, Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use rustls::pki_types::ServerName;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message as WsMessage};

use super::PATIENCE;

/// Before a frame in a message of the mesh's WebSocket, and what is added to a close code there
/// (node/src/transport/websocket.rs).
const FRAME: u8 = 0;
const CLOSE_BASE: u32 = 4_000;

/// A key of its own, in no household.
#[derive(Debug)]
pub struct Stranger {
    /// The private key.
    pub key: SigningKey,
    /// The same for TLS.
    pub identity: NodeIdentity,
    endpoint: Endpoint,
}

impl Stranger {
    /// A new key and a socket.
    pub fn new() -> Self {
        let seed: [u8; 32] = noise(32).try_into().expect("32 bytes");
        Self {
            key: SigningKey::from_bytes(&seed),
            identity: NodeIdentity::from_seed(&seed).expect("an identity"),
            endpoint: Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket"),
        }
    }

    /// Finishes a handshake and nothing more.
    pub async fn connect(&self, to: SocketAddr, alpn: &[u8]) -> Connection {
        within("the handshake", self.start_connect(to, alpn)).await.expect("the node answers")
    }

    /// Tries a handshake that the node may refuse.
    ///
    /// # Errors
    /// How the node ended it.
    pub async fn try_connect(&self, to: SocketAddr, alpn: &[u8]) -> Result<Connection, ConnectionError> {
        self.start_connect(to, alpn).await
    }

    /// Begins a handshake.
    pub fn start_connect(&self, to: SocketAddr, alpn: &[u8]) -> Connecting {
        let config = self.identity.client_quic(alpn).expect("a configuration");
        self.endpoint.connect_with(config, to, SERVER_NAME).expect("a dial")
    }

    /// Opens the one stream too.
    pub async fn open(&self, to: SocketAddr, alpn: &[u8]) -> Wire {
        let connection = self.connect(to, alpn).await;
        let (send, recv) = within("a stream", connection.open_bi()).await.expect("a stream");
        Wire { connection, send, recv }
    }

    /// The mesh's WebSocket over TCP, with nothing said on it yet.
    pub async fn open_websocket(&self, to: SocketAddr) -> WebSocket {
        let config = Arc::new(self.identity.client_tls(ALPN_MESH).expect("a configuration"));
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let stream = within("a connection", TcpStream::connect(to)).await.expect("the port is open");
        let stream = within("the handshake", TlsConnector::from(config).connect(name, stream)).await;
        let request = format!("wss://{to}{}", websocket::PATH);
        let opened = within("the upgrade", client_async(request, stream.expect("the node answers"))).await;
        WebSocket(opened.expect("a WebSocket").0)
    }

    /// The introduction that a node with this key would send.
    pub fn hello(&self, household: HouseholdId, proof: Vec<Vec<u8>>) -> Hello {
        Hello {
            protocol: wire::PROTOCOL,
            oldest: wire::OLDEST_PROTOCOL,
            household,
            node: self.identity.id(),
            run: Run { incarnation: 1, generation: 1 },
            time: TimeOfDay { ms: now_ms(), stratum: UNSYNCHRONISED, word: 0 },
            proof,
            software: "a test".into(),
        }
    }

    /// Joins by a real invite.
    pub async fn join(self, token: &str) -> Member {
        let token: InviteToken = token.parse().expect("a token");
        let joined = join(&token, &self.identity, "mallory").await.expect("admitted");
        let mut roster = Roster::empty(joined.household);
        for statement in &joined.statements {
            roster.insert(statement).expect("a statement");
        }
        Member { stranger: self, roster, next_seq: 0 }
    }
}

impl Default for Stranger {
    fn default() -> Self {
        Self::new()
    }
}

/// Somebody whom the household admitted and who does as it pleases.
#[derive(Debug)]
pub struct Member {
    /// Its key.
    pub stranger: Stranger,
    /// What it knows of the household.
    pub roster: Roster,
    next_seq: u64,
}

impl Member {
    /// A link on which both sides have been introduced.
    pub async fn link(&self, to: SocketAddr) -> Wire {
        let mut wire = self.stranger.open(to, ALPN_MESH).await;
        let proof = self.roster.statements().map(<[u8]>::to_vec).collect();
        let hello = self.stranger.hello(self.roster.household(), proof);
        wire.say(&[Message::Hello(hello)]).await;
        wire.hear("its introduction and digest", |message| matches!(message, Message::Digest(_))).await;
        wire
    }

    /// The same over a WebSocket.
    pub async fn link_websocket(&self, to: SocketAddr) -> WebSocket {
        let mut socket = self.stranger.open_websocket(to).await;
        let proof = self.roster.statements().map(<[u8]>::to_vec).collect();
        let hello = self.stranger.hello(self.roster.household(), proof);
        socket.frame(&wire::encode(&[Message::Hello(hello)])).await;
        socket.hear("its introduction and digest", |message| matches!(message, Message::Digest(_))).await;
        socket
    }

    /// A write of this member's own, stamped now, with any bytes for a value.
    pub fn write(&mut self, object: &str, field: &str, value: Vec<u8>) -> Item {
        self.next_seq += 1;
        let origin = Origin { node: self.stranger.identity.id().short(), generation: 1 };
        let key = Key {
            object: ObjectId::new(object).expect("an object"),
            field: FieldName::new(field).expect("a field"),
        };
        let dot = Dot { origin, seq: self.next_seq };
        let entry = Entry { stamp: Hlc::from_ms(now_ms()), dot, value: Some(Arc::from(value)) };
        Item { key, entry, covers: Vec::new() }
    }

    /// Its key.
    pub fn id(&self) -> NodeId {
        self.stranger.identity.id()
    }
}

/// A connection with the stream that frames travel on.
#[derive(Debug)]
pub struct Wire {
    /// The connection.
    pub connection: Connection,
    /// What goes out.
    pub send: SendStream,
    /// What comes in.
    pub recv: RecvStream,
}

impl Wire {
    /// Sends one frame of these messages.
    pub async fn say(&mut self, messages: &[Message]) {
        self.frame(&wire::encode(messages)).await;
    }

    /// Sends one frame of any bytes.
    pub async fn frame(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a frame");
        self.bytes(&[&length.to_be_bytes(), bytes].concat()).await;
    }

    /// Sends any bytes. The other side may have closed by now, which is its right.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _ = within("the stream takes bytes", self.send.write_all(bytes)).await;
    }

    /// Reads frames until one holds such a message.
    pub async fn hear(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) {
        loop {
            let messages = within(what, self.next()).await;
            let messages = messages.unwrap_or_else(|| panic!("{what}: {:?}", self.connection.close_reason()));
            if messages.iter().any(&wanted) {
                return;
            }
        }
    }

    /// Waits until the node ends the link, saying this and closing with this code.
    pub async fn ends(&mut self, with: ByeReason, code: u32) {
        let mut said = None;
        while let Some(messages) = within("a goodbye", self.next()).await {
            said = said.or_else(|| {
                messages.into_iter().find_map(|message| match message {
                    Message::Bye(reason) => Some(reason),
                    _ => None,
                })
            });
        }
        assert_eq!(said, Some(with), "{:?}", self.connection.close_reason());
        self.closed(code).await;
    }

    /// Waits until the node closes the connection with this code.
    pub async fn closed(&self, code: u32) {
        match within("the end of the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, VarInt::from_u32(code), "{close:?}");
            }
            other => panic!("{other}"),
        }
    }

    async fn next(&mut self) -> Option<Vec<Message>> {
        loop {
            let mut header = [0; 4];
            self.recv.read_exact(&mut header).await.ok()?;
            let mut frame = vec![0; usize::try_from(u32::from_be_bytes(header)).expect("a length")];
            self.recv.read_exact(&mut frame).await.ok()?;
            if !frame.is_empty() {
                return Some(wire::decode(&frame).expect("the node speaks in frames").0);
            }
        }
    }
}

/// The mesh's WebSocket as whoever dialled it has it.
pub struct WebSocket(WebSocketStream<TlsStream<TcpStream>>);

impl WebSocket {
    /// Sends one frame of any bytes.
    pub async fn frame(&mut self, bytes: &[u8]) {
        let message = [&[FRAME], bytes].concat();
        // The other side may have closed by now, which is its right.
        let _ = within("the socket takes bytes", self.0.send(WsMessage::binary(message))).await;
    }

    /// Sends any bytes below the protocol of WebSockets.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let stream = self.0.get_mut();
        let _ = within("the stream takes bytes", stream.write_all(bytes)).await;
        let _ = within("the stream takes bytes", stream.flush()).await;
    }

    /// Reads frames until one holds such a message.
    pub async fn hear(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) {
        loop {
            match within(what, self.0.next()).await {
                Some(Ok(WsMessage::Binary(bytes))) if bytes.first() == Some(&FRAME) => {
                    let messages = wire::decode(&bytes[1..]).expect("the node speaks in frames").0;
                    if messages.iter().any(&wanted) {
                        return;
                    }
                }
                Some(Ok(WsMessage::Close(frame))) => panic!("{what}: {frame:?}"),
                Some(Ok(_)) => {}
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    /// Waits until the node has given it up, however it ends it.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = within("the end of the link", self.0.next()).await {}
    }

    /// Waits until the node closes it, with this code of the mesh.
    pub async fn closed(&mut self, code: u32) {
        loop {
            match within("the end of the link", self.0.next()).await {
                Some(Ok(WsMessage::Close(Some(frame)))) => {
                    assert_eq!(u32::from(u16::from(frame.code)), CLOSE_BASE + code, "{frame:?}");
                    return;
                }
                Some(Ok(_)) => {}
                other => panic!("it was not closed with {code}: {other:?}"),
            }
        }
    }
}

/// The future's outcome, or the test fails.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// The time of day in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes without meaning.
pub fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut source = std::fs::File::open("/dev/urandom").expect("randomness");
    std::io::Read::read_exact(&mut source, &mut bytes).expect("randomness");
    bytes
}
