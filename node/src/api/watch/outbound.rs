//! What an observer is told, counted until its socket has taken it.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, stream::SplitSink};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    super::{metrics::Raised, problem::Problem},
    CLOSE_GOING_AWAY, CLOSE_UNAUTHENTICATED,
};

/// Messages are gathered up to this many bytes before they are flushed.
pub(super) const FLUSH_BYTES: u64 = 32 * 1024;
/// A peer whose socket takes nothing for so long has gone.
const STALL: Duration = Duration::from_secs(600);

/// Why an observer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The socket takes nothing any more.
    Broken,
    /// The token was revoked.
    Revoked,
    /// The node is stopping.
    Stopping,
}

impl Closed {
    /// The close code and reason, where there is somebody to tell.
    pub(super) fn goodbye(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Broken => None,
            Self::Revoked => Some((CLOSE_UNAUTHENTICATED, "the token was revoked")),
            Self::Stopping => Some((CLOSE_GOING_AWAY, "the node is stopping")),
        }
    }
}

/// The writing half of the socket.
pub(super) struct Outbound {
    sink: SplitSink<WebSocket, Message>,
    queued: Raised,
}

impl Outbound {
    pub(super) fn new(sink: SplitSink<WebSocket, Message>, queued: Raised) -> Self {
        Self { sink, queued }
    }

    /// Sends a message, at the latest with the next [`Self::flush`]. Waits while the socket takes
    /// nothing; so at most [`FLUSH_BYTES`] and one message are ever queued.
    pub(super) async fn send(&mut self, message: &Value) -> Result<(), Closed> {
        let text = message.to_string();
        self.queued.add(text.len());
        patient(self.sink.feed(Message::text(text))).await?;
        if self.queued.by() >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Waits until the socket has taken everything.
    pub(super) async fn flush(&mut self) -> Result<(), Closed> {
        patient(self.sink.flush()).await?;
        self.queued.clear();
        Ok(())
    }

    pub(super) async fn ping(&mut self) -> Result<(), Closed> {
        patient(self.sink.send(Message::Ping(Default::default()))).await?;
        self.queued.clear();
        Ok(())
    }

    pub(super) async fn problem(
        &mut self,
        problem: &Problem,
        reference: Option<&Value>,
    ) -> Result<(), Closed> {
        let mut message = json!({ "type": "error", "problem": problem.to_json() });
        refer(&mut message, reference);
        self.send(&message).await
    }

    pub(super) async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Closed> {
        let frame = CloseFrame { code, reason: reason.into() };
        self.sink.send(Message::Close(Some(frame))).await.map_err(|_| Closed::Broken)
    }
}

/// Adds the client's own reference to a message.
pub(super) fn refer(message: &mut Value, reference: Option<&Value>) {
    if let (Some(reference), Value::Object(map)) = (reference, message) {
        map.insert("ref".to_owned(), reference.clone());
    }
}

async fn patient<E>(write: impl Future<Output = Result<(), E>>) -> Result<(), Closed> {
    timeout(STALL, write).await.map_err(|_| Closed::Broken)?.map_err(|_| Closed::Broken)
}
