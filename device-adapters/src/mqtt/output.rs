//! What the adapter wants to send and to tell.

use std::collections::VecDeque;

use crate::adapter::Reading;

/// A message to publish, by which its end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(pub(crate) u64);

/// What to send to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transmit {
    /// Publish a message.
    Publish {
        /// Where.
        topic: String,
        /// What.
        payload: String,
        /// Whether the broker keeps it for those who come later.
        retain: bool,
        /// Under which name its end is told, if somebody waits for it.
        token: Option<Token>,
    },
    /// Listen to a topic, or to all that fit a filter.
    Subscribe(String),
    /// No longer listen to it.
    Unsubscribe(String),
}

/// Messages and readings that wait.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) readings: VecDeque<Reading>,
    tokens: u64,
}

impl Output {
    /// Publishes something that nobody waits for.
    pub(crate) fn publish(&mut self, topic: impl Into<String>, payload: impl Into<String>, retain: bool) {
        let (topic, payload) = (topic.into(), payload.into());
        self.transmits.push_back(Transmit::Publish { topic, payload, retain, token: None });
    }

    /// Publishes something, and gives the name under which its end will be told.
    pub(crate) fn publish_tracked(&mut self, topic: String, payload: String) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.transmits.push_back(Transmit::Publish { topic, payload, retain: false, token: Some(token) });
        token
    }

    /// Tells the node something.
    pub(crate) fn tell(&mut self, reading: Reading) {
        self.readings.push_back(reading);
    }
}
