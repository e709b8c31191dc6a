//! Bad input over the WebSocket, before and after its client has shown a token: what breaks its rules (RFC 6455), byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use flate2::{Compression, write::DeflateEncoder};
use hearth_tests::daemon::PATIENCE;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::bench::{Bench, Problem, request};

/// Opcodes with the bit that ends a message (RFC 6455, section 5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// Says that a message is compressed (RFC 7692, section 6).
const RSV1: u8 = 0x40;

// Close codes: of this API, and of RFC 6455, section 7.4.1.
const UNAUTHENTICATED: u16 = 4401;
const BROKEN: u16 = 1002;
const TOO_LARGE: u16 = 1009;

/// What asks for an upgrade.
const UPGRADE: [(&str, &str); 5] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "hearth.v1"),
];

/// A WebSocket whose frames are made by hand.
pub(crate) struct Socket {
    stream: StreamOwned<ClientConnection, TcpStream>,
    read: Vec<u8>,
    /// The answer to the upgrade, in small letters.
    head: String,
}

impl Socket {
    /// Opens one, with a token or without, and with more headers.
    pub(crate) fn open(bench: &Bench, token: Option<&str>, more: &[(&str, &str)]) -> Self {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let bearer = bearer.iter().map(|bearer| ("Authorization", bearer.as_str()));
        let headers: Vec<(&str, &str)> =
            UPGRADE.into_iter().chain(bearer).chain(more.iter().copied()).collect();
        let mut socket = Self { stream: bench.connect(), read: Vec::new(), head: String::new() };
        socket.send(&request("GET", "/api/v1/watch", &headers, b""));
        let end = loop {
            if let Some(end) = socket.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(socket.fill(), "no answer to an upgrade: {:?}", String::from_utf8_lossy(&socket.read));
        };
        socket.head = String::from_utf8_lossy(&socket.read[..end]).to_ascii_lowercase();
        assert!(socket.head.starts_with("http/1.1 101 "), "{}", socket.head);
        socket.read.drain(..end + 4);
        socket
    }

    /// Sends bytes; the node may have hung up by now, which is its right.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.flush();
    }

    /// Sends a message.
    pub(crate) fn say(&mut self, message: &Value) {
        self.send(&frame(TEXT, message.to_string().as_bytes()));
    }

    /// The next message of the node that is no ping: its opcode and its payload.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, payload)) = self.whole() {
                if first != 0x89 {
                    return Some((first, payload));
                }
            } else if !self.fill() {
                return None;
            }
        }
    }

    /// A frame that is all there. Those of a server are not masked.
    fn whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let (begin, length) = match *self.read.as_slice() {
            [_, length, ..] if length < 126 => (2, usize::from(length)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return None,
        };
        let payload = self.read.get(begin..begin + length)?.to_vec();
        let first = self.read[0];
        self.read.drain(..begin + length);
        Some((first, payload))
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 4_096];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the node keeps it open for more than {PATIENCE:?}")
            }
            Err(_) => false,
        }
    }

    /// Reads until the node says goodbye; answers with its code, none when it hung up without one.
    pub(crate) fn closing(&mut self) -> Option<u16> {
        loop {
            if let (CLOSE, payload) = self.next()? {
                return Some(u16::from_be_bytes(*payload.first_chunk().expect("a code")));
            }
        }
    }

    /// The type of the problem that the node tells next.
    fn problem(&mut self) -> String {
        loop {
            let (first, payload) = self.next().expect("the node goes on");
            assert_eq!(first, TEXT, "{payload:?}");
            let told: Value = serde_json::from_slice(&payload).expect("JSON");
            if let Some(kind) = told["problem"]["type"].as_str() {
                return kind.trim_start_matches("urn:hearth:problem:").to_owned();
            }
        }
    }
}

/// A frame of a client, masked by zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [announced(first, payload.len() as u64), payload.to_vec()].concat()
}

/// Its beginning, which says how long it is.
fn announced(first: u8, length: u64) -> Vec<u8> {
    let length = match u8::try_from(length) {
        Ok(short) if short < 126 => vec![0x80 | short],
        _ => [&[0x80 | 127], length.to_be_bytes().as_slice()].concat(),
    };
    [&[first], length.as_slice(), &[0; 4]].concat()
}

/// What breaks the rules so that nobody can go on.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b'x'; 16 << 20]).expect("it is packed");
    let bomb = bomb.finish().expect("it is packed");
    vec![
        ("a compressed message that nobody agreed on", frame(TEXT | RSV1, &bomb)),
        ("a frame without a mask", [&[TEXT, 5], b"hello".as_slice()].concat()),
        ("a frame of no kind", frame(0x83, b"")),
        ("a ping of two hundred bytes", frame(0x89, &[0; 200])),
        ("a ping in pieces", frame(0x09, b"half")),
        ("the end of a message that never began", frame(0x80, b"end")),
        ("a message within a message", [frame(0x01, b"half"), frame(TEXT, b"{}")].concat()),
        ("a text that is no UTF-8", frame(TEXT, b"\xff\xfe")),
    ]
}

/// What says that it is larger than anything may be. Nothing but the beginning is sent, so that the client can read the answer.
fn oversized() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a megabyte", announced(TEXT, 1 << 20)),
        ("one byte too many", announced(TEXT, (64 << 10) + 1)),
        ("half of all bytes that there are", announced(BINARY, 1 << 62)),
        (
            "many small pieces",
            frame(0x01, &[b'x'; 40_000]).into_iter().chain(frame(0x00, &[b'x'; 40_000])).collect(),
        ),
    ]
}

/// One who says nothing at all: see [`Silent::ends`].
pub(crate) struct Silent(Socket);

impl Silent {
    /// Opens a WebSocket.
    pub(crate) fn new(bench: &Bench) -> Self {
        Self(block_in_place(|| Socket::open(bench, None, &[])))
    }

    /// It has to show a token within ten seconds, which pass while others attack.
    pub(crate) async fn ends(mut self, bench: &mut Bench) {
        let code = block_in_place(|| self.0.closing());
        bench.must("a WebSocket whose client says nothing", code, Some(UNAUTHENTICATED)).await;
    }
}

pub(crate) async fn attack(bench: &mut Bench) {
    upgrades(bench).await;
    strangers(bench).await;
    members(bench).await;
    broken_members(bench).await;
}

/// Upgrades that are none, and one that asks for more than there is.
async fn upgrades(bench: &mut Bench) {
    let bearer = format!("Bearer {}", bench.viewer);
    let with = |name: &str, value: &str| {
        let of = |header: &(&str, &str)| {
            if header.0 == name {
                (header.0.to_owned(), value.to_owned())
            } else {
                (header.0.to_owned(), header.1.to_owned())
            }
        };
        let changed: Vec<(String, String)> =
            UPGRADE.iter().map(of).filter(|(_, value)| !value.is_empty()).collect();
        let changed = changed.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<(&str, &str)> = changed.chain([("Authorization", &*bearer)]).collect();
        request("GET", "/api/v1/watch", &headers, b"")
    };
    let needed = Problem(426, "websocket");
    for (name, bytes) in [
        ("a WebSocket of an old version", with("Sec-WebSocket-Version", "8")),
        ("a WebSocket without a key", with("Sec-WebSocket-Key", "")),
        ("an upgrade to HTTP/2", with("Upgrade", "h2c")),
    ] {
        bench.http(name, &bytes, needed).await;
    }
    let viewer = bench.viewer.clone();
    let asked = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
    let head = block_in_place(|| Socket::open(bench, Some(&viewer), &asked).head);
    assert!(!head.contains("sec-websocket-extensions"), "compression was agreed on: {head}");
    bench.passed("a WebSocket that would compress").await;
}

/// Who has not shown a token has one message for it.
async fn strangers(bench: &mut Bench) {
    let text = |message: Value| frame(TEXT, message.to_string().as_bytes());
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut cases: Vec<(String, Vec<u8>)> = [
        ("a subscription", text(json!({"type": "subscribe", "prefixes": [""]}))),
        ("a token that nobody knows", text(json!({"type": "auth", "token": "hth_guess"}))),
        ("a token that is no text", text(json!({"type": "auth", "token": ["hth_guess"]}))),
        ("a binary message", frame(BINARY, &[0; 100])),
        ("no JSON", frame(TEXT, b"{{{{")),
        ("JSON that nests ten thousand deep", frame(TEXT, deep.as_bytes())),
    ]
    .into_iter()
    .chain(broken())
    .chain(oversized())
    .map(|(name, bytes)| (format!("{name} before a token"), bytes))
    .collect();
    let revoked = bench.revoked.clone();
    cases.push(("a revoked token over a WebSocket".into(), text(json!({"type": "auth", "token": revoked}))));
    for (name, bytes) in cases {
        let code = block_in_place(|| {
            let mut socket = Socket::open(bench, None, &[]);
            socket.send(&bytes);
            socket.closing()
        });
        bench.must(&name, code, Some(UNAUTHENTICATED)).await;
    }
}

/// Who has shown one gets a problem and may go on.
async fn members(bench: &mut Bench) {
    let viewer = bench.viewer.clone();
    let many: Vec<String> = (0..1_000).map(|n| format!("note/{n}")).collect();
    let text = |message: Value| frame(TEXT, message.to_string().as_bytes());
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let command = json!({"type": "command", "device": "lamp", "change": {"on": true}});
    let cases = [
        ("a command of a viewer", text(command), "forbidden"),
        ("a message of no type", text(json!({"hello": 1})), "invalid-request"),
        (
            "a second token on one socket",
            text(json!({"type": "auth", "token": "hth_other"})),
            "invalid-request",
        ),
        ("a thousand prefixes", text(json!({"type": "subscribe", "prefixes": many})), "invalid-request"),
        (
            "a prefix of a thousand bytes",
            text(json!({"type": "subscribe", "prefixes": ["x".repeat(1_000)]})),
            "invalid-request",
        ),
        (
            "a reference of a kilobyte",
            text(json!({"type": "ping", "ref": "x".repeat(1_000)})),
            "invalid-request",
        ),
        ("a binary message", frame(BINARY, &[0; 100]), "invalid-request"),
        ("JSON over a WebSocket that nests ten thousand deep", frame(TEXT, deep.as_bytes()), "too-deep"),
    ];
    for (name, bytes, expected) in cases {
        let kind = block_in_place(|| {
            let mut socket = Socket::open(bench, Some(&viewer), &[]);
            socket.send(&bytes);
            let kind = socket.problem();
            socket.say(&json!({"type": "ping"}));
            let (_, pong) = socket.next().expect("it goes on");
            assert_eq!(pong, br#"{"type":"pong"}"#, "{name}");
            kind
        });
        bench.must(name, &*kind, expected).await;
    }
}

/// Who breaks the rules of WebSocket itself is sent away, and told why.
async fn broken_members(bench: &mut Bench) {
    let viewer = bench.viewer.clone();
    let broken = broken().into_iter().map(|(name, bytes)| (name, bytes, BROKEN));
    let oversized = oversized().into_iter().map(|(name, bytes)| (name, bytes, TOO_LARGE));
    for (name, bytes, expected) in broken.chain(oversized) {
        let code = block_in_place(|| {
            let mut socket = Socket::open(bench, Some(&viewer), &[]);
            socket.send(&bytes);
            socket.closing()
        });
        bench.must(name, code, Some(expected)).await;
    }
}
