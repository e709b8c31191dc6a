//! A connection that asks for admission, as both sides use it on either transport: bytes in order in
//! both directions, a code at its end, and the value that binds a proof to its TLS session.

use std::{fmt, sync::Arc};

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{CloseCode, clip, websocket::ByteStream};
use crate::tls::identity::join_binding_quic;

/// Ends a connection from afar, as often as one likes: the first call counts.
pub(crate) trait Closer: Send + Sync {
    /// Ends it; the words reach the peer, at most a hundred bytes.
    fn close(&self, code: CloseCode, words: &str);
    /// The code with which the peer ended it, if it did.
    fn closed_by_peer(&self) -> Option<CloseCode>;
}

impl Closer for Connection {
    fn close(&self, code: CloseCode, words: &str) {
        Self::close(self, code.number().into(), clip(words.as_bytes()).as_bytes());
    }

    fn closed_by_peer(&self) -> Option<CloseCode> {
        match self.close_reason()? {
            ConnectionError::ApplicationClosed(close) => {
                Some(CloseCode::from_number(close.error_code.into_inner()))
            }
            _ => None,
        }
    }
}

/// The connection. Dropping it ends it.
pub(crate) struct JoinPipe {
    bytes: Bytes,
    closer: Arc<dyn Closer>,
    binding: Option<[u8; 32]>,
}

enum Bytes {
    Quic(SendStream, RecvStream),
    WebSocket(ByteStream),
}

impl fmt::Debug for JoinPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinPipe").finish_non_exhaustive()
    }
}

impl JoinPipe {
    /// The one stream of a QUIC connection.
    pub(crate) fn quic(connection: Connection, send: SendStream, recv: RecvStream) -> Self {
        let binding = join_binding_quic(&connection);
        Self { bytes: Bytes::Quic(send, recv), closer: Arc::new(connection), binding }
    }

    /// The messages of a WebSocket.
    pub(crate) fn websocket(stream: ByteStream, binding: Option<[u8; 32]>) -> Self {
        let closer = stream.closer();
        Self { bytes: Bytes::WebSocket(stream), closer, binding }
    }

    /// The value that binds a proof to this session; `None` when the session cannot export.
    pub(crate) fn binding(&self) -> Option<[u8; 32]> {
        self.binding
    }

    /// What the peer sends.
    pub(crate) fn reader(&mut self) -> &mut (dyn AsyncRead + Send + Unpin) {
        match &mut self.bytes {
            Bytes::Quic(_, recv) => recv,
            Bytes::WebSocket(stream) => stream.bytes(),
        }
    }

    /// The way to the peer.
    pub(crate) fn writer(&mut self) -> &mut (dyn AsyncWrite + Send + Unpin) {
        match &mut self.bytes {
            Bytes::Quic(send, _) => send,
            Bytes::WebSocket(stream) => stream.bytes(),
        }
    }

    /// Ends the sending side and waits until the peer has everything, as far as that can be known.
    pub(crate) async fn finish(&mut self) {
        match &mut self.bytes {
            Bytes::Quic(send, _) => {
                if send.finish().is_ok() {
                    let _ = send.stopped().await;
                }
            }
            Bytes::WebSocket(stream) => {
                let _ = stream.bytes().shutdown().await;
                stream.ended().await;
            }
        }
    }

    /// The way to end it.
    pub(crate) fn closer(&self) -> Arc<dyn Closer> {
        self.closer.clone()
    }
}
