//! The WebSocket over TLS for clients that cannot send a header, as browsers: the token comes in the
//! first message.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::process::{Daemon, PATIENCE};

/// The close code of a client without a token that counts.
const UNAUTHENTICATED: u16 = 4401;

struct Observer(WebSocketStream<TlsStream<TcpStream>>);

impl Observer {
    /// Opens the WebSocket with no header but the subprotocol; `query` may be empty.
    async fn open(daemon: &Daemon, query: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let pem = std::fs::read(daemon.state().join("ca.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = daemon.address();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let url = format!("wss://localhost:{}/api/v1/watch{query}", address.port());
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "hearth.v1".parse().unwrap());
        let (socket, answer) = client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "hearth.v1");
        Self(socket)
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message, or the code with which the node closes.
    async fn next(&mut self) -> Result<Value, u16> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message in time");
            match message.expect("a message").expect("a whole message") {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => return Err(frame.expect("a code").code.into()),
                _ => {}
            }
        }
    }
}

fn token(daemon: &Daemon, role: &str) -> String {
    let (status, body) = daemon.request("POST", "/api/v1/tokens", &json!({"role": role}).to_string());
    assert_eq!(status, 201, "{body}");
    body["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_in_the_first_message_opens_the_websocket() {
    let daemon = Daemon::start(&[]);
    let token = token(&daemon, "viewer");
    let mut observer = Observer::open(&daemon, "").await;
    observer.send(json!({"type": "auth", "token": token})).await;
    observer.send(json!({"type": "subscribe", "prefixes": ["note/"]})).await;
    assert_eq!(observer.next().await.unwrap()["type"], "snapshot_begin");
    assert_eq!(observer.next().await.unwrap()["type"], "snapshot_end");
    let (status, body) =
        daemon.request("PATCH", "/api/v1/objects/note/x", &json!({"set": {"text": "hello"}}).to_string());
    assert_eq!(status, 200, "{body}");
    let object = observer.next().await.unwrap();
    assert_eq!((&object["type"], &object["object"]["fields"]["text"]), (&json!("object"), &json!("hello")));
    assert_eq!(observer.next().await.unwrap()["type"], "mark");
    // It has the role of its token and no more.
    observer.send(json!({"type": "command", "device": "device/x", "change": {"on": true}, "ref": 7})).await;
    let refused = observer.next().await.unwrap();
    assert_eq!((&refused["type"], &refused["ref"]), (&json!("error"), &json!(7)));
    assert_eq!(refused["problem"]["type"], "urn:hearth:problem:forbidden");
    assert!(!daemon.log().contains(&token), "the token is in the log");
}

#[tokio::test]
async fn without_a_token_that_counts_the_websocket_says_nothing_and_closes() {
    let daemon = Daemon::start(&[]);
    let token = token(&daemon, "admin");
    for (query, first) in [
        (String::new(), json!({"type": "auth", "token": "hth_wrong"})),
        (String::new(), json!({"type": "subscribe", "prefixes": [""]})),
        (String::new(), json!({"type": "auth"})),
        // Never in the URL, which ends up in logs and histories.
        (format!("?token={token}"), json!({"type": "subscribe", "prefixes": [""]})),
    ] {
        let mut observer = Observer::open(&daemon, &query).await;
        observer.send(first.clone()).await;
        assert_eq!(observer.next().await, Err(UNAUTHENTICATED), "{first}");
    }
    // Nor may a client keep silent for ever.
    let mut silent = Observer::open(&daemon, "").await;
    let began = std::time::Instant::now();
    assert_eq!(silent.next().await, Err(UNAUTHENTICATED));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
