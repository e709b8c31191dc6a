//! Bad input over the WebSocket, before and after its client has shown a token.

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::bench::{Bench, SOON};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn open(bench: &Bench, token: Option<&str>) -> Socket {
    let url = format!("wss://{}/api/v1/watch", bench.node.address());
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "hearth.v1".parse().unwrap());
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let stream = bench.tcp();
    stream.set_nonblocking(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream =
        TlsConnector::from(bench.tls.clone()).connect(name, TcpStream::from_std(stream).unwrap()).await;
    client_async(request, stream.unwrap()).await.unwrap().0
}

/// Reads until the node says goodbye; answers with its code.
async fn closing(socket: &mut Socket) -> Option<u16> {
    let read = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    timeout(SOON, read).await.expect("the node keeps it open")
}

pub(crate) async fn attack(bench: &mut Bench) {
    strangers(bench).await;
    members(bench).await;
}

/// Who has not shown a token has one message for it.
async fn strangers(bench: &mut Bench) {
    let cases: [(&str, Message); 6] = [
        (
            "a subscription before a token",
            Message::text(json!({"type": "subscribe", "prefixes": [""]}).to_string()),
        ),
        (
            "a token that nobody knows over a WebSocket",
            Message::text(json!({"type": "auth", "token": "hth_guess"}).to_string()),
        ),
        (
            "a token that is no text",
            Message::text(json!({"type": "auth", "token": ["hth_guess"]}).to_string()),
        ),
        ("a binary message before a token", Message::binary(vec![0; 100])),
        ("a megabyte before a token", Message::text("x".repeat(1 << 20))),
        ("no JSON before a token", Message::text("{{{{")),
    ];
    for (name, message) in cases {
        let mut socket = open(bench, None).await;
        let _ = socket.send(message).await;
        let code = closing(&mut socket).await;
        assert!(matches!(code, Some(4401 | 1009) | None), "{name}: {code:?}");
        bench.passed(name).await;
    }
}

/// Who has shown one gets a problem and may go on; who breaks the protocol is hung up on.
async fn members(bench: &mut Bench) {
    let viewer = bench.viewer.clone();
    let many: Vec<String> = (0..1_000).map(|n| format!("note/{n}")).collect();
    let cases = [
        (
            "a command of a viewer",
            json!({"type": "command", "device": "lamp", "change": {"on": true}}),
            "forbidden",
        ),
        ("a message of no type", json!({"hello": 1}), "invalid-request"),
        ("a second token on one socket", json!({"type": "auth", "token": "hth_other"}), "invalid-request"),
        ("a thousand prefixes", json!({"type": "subscribe", "prefixes": many}), "invalid-request"),
        (
            "a prefix of a thousand bytes",
            json!({"type": "subscribe", "prefixes": ["x".repeat(1_000)]}),
            "invalid-request",
        ),
        ("a reference of a kilobyte", json!({"type": "ping", "ref": "x".repeat(1_000)}), "invalid-request"),
    ];
    for (name, message, expected) in cases {
        let mut socket = open(bench, Some(&viewer)).await;
        socket.send(Message::text(message.to_string())).await.unwrap();
        let kind = loop {
            match timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) if text.contains("urn:hearth:problem:") => break text.to_string(),
                Message::Close(frame) => panic!("{name}: closed {frame:?}"),
                _ => {}
            }
        };
        assert!(kind.contains(&format!("urn:hearth:problem:{expected}\"")), "{name}: {kind}");
        bench.passed(name).await;
    }
    let mut socket = open(bench, Some(&viewer)).await;
    let _ = socket.send(Message::text("x".repeat(100_000))).await;
    let code = closing(&mut socket).await;
    // Too large (RFC 6455, section 7.4.1), unless what it still sent reset the connection.
    assert!(matches!(code, Some(1009) | None), "{code:?}");
    bench.passed("a message of a hundred kilobytes").await;
}
