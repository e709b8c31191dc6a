//! What the API asks of the events.

use mesh_proto::{ObjectId, kinds::Author};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{PortError, QUEUE, Reply, ask};

/// An event to publish.
#[derive(Debug)]
pub struct EventsRequest {
    /// On whose behalf.
    pub author: Author,
    /// What happened: 1 to 40 of `a-z`, `0-9`, `.`, `_` and `-`.
    pub topic: String,
    /// What there is to say about it; for a client at most 1,024 bytes as JSON.
    pub data: Value,
    /// The answer: the event's object, once every observer here can hear of it.
    pub reply: Reply<ObjectId>,
}

/// The API's side of the events.
#[derive(Debug, Clone)]
pub struct EventsHandle(mpsc::Sender<EventsRequest>);

impl EventsHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<EventsRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Publishes an event on behalf of a client or an automation.
    ///
    /// # Errors
    /// [`PortError::Invalid`], also for a topic of the nodes' own; [`PortError::Overloaded`] when this node says too much.
    pub async fn publish(&self, topic: String, data: Value) -> Result<ObjectId, PortError> {
        ask(&self.0, |reply| EventsRequest { author: Author::Client, topic, data, reply }).await
    }

    /// Tells the other nodes something under a topic of their own.
    ///
    /// # Errors
    /// [`PortError::Invalid`] for what no object can hold; [`PortError::Overloaded`] when this node says too much.
    pub async fn tell(&self, topic: &str, data: Value) -> Result<ObjectId, PortError> {
        let topic = topic.to_owned();
        ask(&self.0, |reply| EventsRequest { author: Author::Node, topic, data, reply }).await
    }
}
