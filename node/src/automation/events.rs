//! Events: something happened. Every node and every observer hears of one within a moment, and nobody keeps it.
//!
//! An event is an object `event/TOPIC:ID` that lasts as long as its kind says (`mesh_proto::kinds`), in memory alone. So whoever subscribes
//! to objects by a prefix subscribes to events as well: `event/doorbell` is every topic that begins so.

use mesh_proto::{FieldName, ObjectId, kinds::Author};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value as Json;

use super::pace::Pace;
use crate::{
    api::ports::{PortError, Reply, events::EventsRequest},
    devices::encode,
    service::{Op, Service},
};

/// What the topics begin with that nodes alone publish, and no automation names.
pub(super) const INTERNAL: &str = "hearth.";
/// Longest topic, in bytes.
const MAX_TOPIC: usize = 40;
/// Most that an event of a client carries, as JSON in bytes.
const MAX_DATA: usize = 1_024;
/// Events of this node within a short time.
const BURST: f64 = 40.0;
/// Events of this node a second, in the long run: what the whole household hears and holds for a while.
const A_SECOND: f64 = 20.0;

/// What publishes the events of this node.
pub(super) struct Publisher {
    service: Service,
    pace: Pace,
}

/// Whether a topic is the nodes' own.
pub(crate) fn is_internal(topic: &str) -> bool {
    topic.starts_with(INTERNAL)
}

impl Publisher {
    pub(super) fn new(service: Service) -> Self {
        Self { service, pace: Pace::new(BURST, A_SECOND) }
    }

    pub(super) fn request(&mut self, EventsRequest { author, topic, data, reply }: EventsRequest) {
        match self.event(author, &topic, &data) {
            Ok((object, ops)) => self.write(object, ops, reply),
            Err(refused) => drop(reply.send(Err(refused))), // whoever asked may be gone
        }
    }

    fn write(&self, object: ObjectId, ops: Vec<Op>, reply: Reply<ObjectId>) {
        let service = self.service.clone();
        tokio::spawn(async move {
            let written = service.write(Author::Node, ops).await;
            drop(reply.send(written.map(|()| object).map_err(PortError::from)));
        });
    }

    fn event(&mut self, author: Author, topic: &str, data: &Json) -> Result<(ObjectId, Vec<Op>), PortError> {
        let topic = checked(topic)?;
        if author == Author::Client {
            check_client(topic, data)?;
        }
        self.pace.take().map_err(|_| PortError::Overloaded)?;
        let mut id = [0; 8];
        SystemRandom::new().fill(&mut id).map_err(|_| PortError::Failed {
            detail: "the system has no randomness for the event's id".to_owned(),
            fix: "try again when the system has started fully".to_owned(),
        })?;
        let named = ObjectId::new(&format!("event/{topic}:{:016x}", u64::from_be_bytes(id)));
        let (Ok(object), Ok(field)) = (named, FieldName::new("data")) else { return Err(no_topic(topic)) };
        let op = Op::Set(object.clone(), field, encode(data));
        Ok((object, vec![op]))
    }
}

/// What a client may not say. A node bounds by itself what it says.
fn check_client(topic: &str, data: &Json) -> Result<(), PortError> {
    if is_internal(topic) {
        return Err(PortError::Invalid {
            detail: format!("`{topic}`: topics that begin with `{INTERNAL}` are the nodes' own"),
            fix: "choose another beginning".to_owned(),
        });
    }
    let bytes = data.to_string().len();
    if bytes > MAX_DATA {
        return Err(PortError::Invalid {
            detail: format!("`data` has {bytes} bytes as JSON, and {MAX_DATA} are the most"),
            fix: "put what is larger into an object, and its name into the event".to_owned(),
        });
    }
    Ok(())
}

/// A topic: dots part its levels.
fn checked(topic: &str) -> Result<&str, PortError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let fits = (1..=MAX_TOPIC).contains(&topic.len()) && topic.bytes().all(allowed);
    if fits { Ok(topic) } else { Err(no_topic(topic)) }
}

fn no_topic(topic: &str) -> PortError {
    let shown: String = topic.chars().filter(|c| !c.is_control()).take(MAX_TOPIC).collect();
    PortError::Invalid {
        detail: format!("`{shown}` is no topic"),
        fix: format!("a topic is 1 to {MAX_TOPIC} of a-z, 0-9, '.', '_' and '-', such as doorbell.front"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn publisher() -> Publisher {
        Publisher::new(Service::channel().0)
    }

    #[tokio::test]
    async fn an_event_has_its_topic_in_its_name_and_no_two_have_one_name() {
        let mut publisher = publisher();
        let (one, ops) = publisher.event(Author::Client, "doorbell.front", &json!({"presses": 2})).unwrap();
        let (two, _) = publisher.event(Author::Client, "doorbell.front", &json!(null)).unwrap();
        assert!(one.as_str().starts_with("event/doorbell.front:") && one != two);
        let [Op::Set(_, _, value)] = &ops[..] else { panic!() };
        assert_eq!(crate::json::from_value(value), json!({"presses": 2}));
    }

    #[tokio::test]
    async fn what_is_no_event_is_refused_in_words() {
        let mut publisher = publisher();
        for wrong in ["", "Door", "a/b", "a b", &"x".repeat(41), "tür"] {
            let refused = publisher.event(Author::Client, wrong, &json!(null)).unwrap_err();
            assert!(
                matches!(&refused, PortError::Invalid { fix, .. } if fix.contains("doorbell.front")),
                "{refused}"
            );
        }
        let refused = publisher.event(Author::Client, "door", &json!("x".repeat(1_100))).unwrap_err();
        assert!(refused.to_string().contains("1102 bytes"), "{refused}");
    }

    #[tokio::test]
    async fn what_nodes_tell_one_another_no_client_says() {
        let mut publisher = publisher();
        let refused = publisher.event(Author::Client, "hearth.start", &json!(null)).unwrap_err();
        assert!(refused.to_string().contains("the nodes' own"), "{refused}");
        assert!(publisher.event(Author::Client, "hearths", &json!(null)).is_ok());
        let (object, _) = publisher.event(Author::Node, "hearth.start", &json!("x".repeat(1_100))).unwrap();
        assert!(object.as_str().starts_with("event/hearth.start:"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_says_forty_at_once_and_twenty_a_second() {
        let mut publisher = publisher();
        let mut at_once =
            || (0..100).filter(|_| publisher.event(Author::Client, "a", &json!(1)).is_ok()).count();
        assert_eq!(at_once(), 40);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(at_once(), 20);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(at_once(), 40);
    }
}
