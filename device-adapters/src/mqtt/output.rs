//! What the adapter wants to send and to tell.
//!
//! However slow the broker is and whatever others announce, what waits is bounded: of each topic only the newest message
//! waits, and of each filter only whether it is listened to. What counts each time (a command, a press) waits for itself: it
//! comes from the node, of which no more is taken while much waits.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

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
    /// Listen to a topic, or to all that fit a filter; the broker gives what it keeps there, also to whom listens already.
    Subscribe(String),
    /// No longer listen to it.
    Unsubscribe(String),
}

/// Messages and readings that wait.
#[derive(Debug, Default)]
pub(crate) struct Output {
    queue: VecDeque<Waiting>,
    /// The newest message of each topic in the queue: what, and whether the broker keeps it.
    newest: BTreeMap<String, (String, bool)>,
    filters: BTreeMap<String, Filter>,
    pub(crate) readings: VecDeque<Reading>,
    tokens: u64,
}

/// Something in the queue.
#[derive(Debug)]
enum Waiting {
    /// This, whatever comes after it.
    Each(Transmit),
    /// The newest message of a topic.
    Newest(String),
    /// Whatever is wanted of a filter by then.
    Filter(String),
}

/// How it stands with a filter on this connection.
#[derive(Debug, Default)]
struct Filter {
    is_wanted: bool,
    is_listened_to: bool,
    waits: bool,
}

impl Output {
    /// Publishes something that nobody waits for, in place of what waits for the same topic.
    pub(crate) fn publish(&mut self, topic: impl Into<String>, payload: impl Into<String>, retain: bool) {
        let topic = topic.into();
        if self.newest.insert(topic.clone(), (payload.into(), retain)).is_none() {
            self.queue.push_back(Waiting::Newest(topic));
        }
    }

    /// Publishes something that counts each time, and that nobody waits for.
    pub(crate) fn publish_each(&mut self, topic: String, payload: String) {
        self.queue.push_back(Waiting::Each(Transmit::Publish { topic, payload, retain: false, token: None }));
    }

    /// Publishes something that counts each time, and gives the name under which its end will be told.
    pub(crate) fn publish_tracked(&mut self, topic: String, payload: String) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        let publish = Transmit::Publish { topic, payload, retain: false, token: Some(token) };
        self.queue.push_back(Waiting::Each(publish));
        token
    }

    /// Listens to a filter, again where it is listened to already.
    pub(crate) fn listen(&mut self, filter: impl Into<String>) {
        let filter = filter.into();
        let known = self.filters.entry(filter.clone()).or_default();
        known.is_wanted = true;
        if !mem::replace(&mut known.waits, true) {
            self.queue.push_back(Waiting::Filter(filter));
        }
    }

    /// No longer listens to a filter.
    pub(crate) fn leave(&mut self, filter: &str) {
        let Some(known) = self.filters.get_mut(filter) else { return };
        known.is_wanted = false;
        if !mem::replace(&mut known.waits, true) {
            self.queue.push_back(Waiting::Filter(filter.to_owned()));
        }
    }

    /// How many filters are listened to, or will be, or still are.
    pub(crate) fn filters(&self) -> usize {
        self.filters.len()
    }

    /// How many messages wait.
    pub(crate) fn unsent(&self) -> usize {
        self.queue.len()
    }

    /// The next thing to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let next = match self.queue.pop_front()? {
                Waiting::Each(transmit) => Some(transmit),
                Waiting::Newest(topic) => self
                    .newest
                    .remove(&topic)
                    .map(|(payload, retain)| Transmit::Publish { topic, payload, retain, token: None }),
                Waiting::Filter(filter) => self.settle(filter),
            };
            if next.is_some() {
                return next;
            }
        }
    }

    fn settle(&mut self, filter: String) -> Option<Transmit> {
        let known = self.filters.get_mut(&filter)?;
        known.waits = false;
        if known.is_wanted {
            known.is_listened_to = true;
            return Some(Transmit::Subscribe(filter));
        }
        let was_listened_to = known.is_listened_to;
        self.filters.remove(&filter);
        was_listened_to.then_some(Transmit::Unsubscribe(filter))
    }

    /// Forgets what was not sent, and what is listened to: it is all made anew for another connection.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.newest.clear();
        self.filters.clear();
    }

    /// Tells the node something.
    pub(crate) fn tell(&mut self, reading: Reading) {
        self.readings.push_back(reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(out: &mut Output) -> Vec<String> {
        let text = |transmit: Transmit| match transmit {
            Transmit::Publish { topic, payload, .. } => format!("{topic}={payload}"),
            Transmit::Subscribe(filter) => format!("+{filter}"),
            Transmit::Unsubscribe(filter) => format!("-{filter}"),
        };
        std::iter::from_fn(|| out.poll_transmit()).map(text).collect()
    }

    #[test]
    fn the_newest_of_a_topic_waits_and_what_counts_each_time_waits_each_time() {
        let mut out = Output::default();
        out.publish("state", "1", true);
        out.publish_each("press".to_owned(), "a".to_owned());
        out.publish_tracked("set".to_owned(), "b".to_owned());
        out.publish("state", "2", true);
        out.publish_each("press".to_owned(), "a".to_owned());
        out.publish_tracked("set".to_owned(), "c".to_owned());
        assert_eq!(all(&mut out), ["state=2", "press=a", "set=b", "press=a", "set=c"]);
        out.publish("state", "3", true);
        assert_eq!(all(&mut out), ["state=3"]);
    }

    #[test]
    fn of_a_filter_only_what_is_wanted_at_last_is_sent() {
        let mut out = Output::default();
        out.listen("a");
        out.leave("a");
        out.leave("never");
        assert_eq!((all(&mut out), out.filters()), (Vec::new(), 0));
        out.listen("a");
        assert_eq!(all(&mut out), ["+a"]);
        out.leave("a");
        out.listen("a");
        assert_eq!(all(&mut out), ["+a"], "again, so that the broker gives what it keeps");
        out.leave("a");
        assert_eq!((all(&mut out), out.filters()), (vec!["-a".to_owned()], 0));
    }
}
