//! What the fuzz target `mqtt` runs; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use crate::model::{Change, ColorMode, LightChange};

use super::super::template::{MOST_TEXT, Template};
use super::super::wire::discovery::{self, Place};
use super::super::wire::fields::is_topic;
use super::super::wire::incoming::Incoming;
use super::super::wire::light::{Message, Parts};
use super::entity::{Entity, Told};

const KINDS: [&str; 6] = ["device", "light", "switch", "sensor", "binary_sensor", "button"];

/// Takes an announcement and a message for what it announces: the first byte says what is announced, the next two
/// (little-endian) how long the announcement is, and the message follows it.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub fn run(data: &[u8]) {
    let Some(([kind, low, high], rest)) = data.split_first_chunk::<3>() else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (announcement, message) = rest.split_at(length);
    let message = Incoming::new(&String::from_utf8_lossy(message));
    renders(&String::from_utf8_lossy(announcement), &message);
    let topic = format!("homeassistant/{}/node/object/config", KINDS[usize::from(*kind) % KINDS.len()]);
    let place = Place::parse("homeassistant", &topic).expect("a place");
    for announced in discovery::parse(&place, announcement).unwrap_or_default() {
        if let Ok(Some(entity)) = Entity::parse(&announced) {
            obeys(&entity, &message);
        }
    }
}

/// What a template makes is bounded, whatever it says.
fn renders(source: &str, message: &Incoming) {
    if let Ok(made) = Template::parse(source).and_then(|template| template.of_message(message)) {
        assert!(made.len() <= MOST_TEXT, "{} bytes", made.len());
    }
}

fn obeys(entity: &Entity, message: &Incoming) {
    let mut known = Parts::default();
    for topic in entity.topics() {
        assert!(is_topic(topic), "{topic:?}");
        match entity.told(topic, message) {
            Some(Told::Light(told)) => known.absorb(told),
            Some(Told::Switch(_) | Told::Measured(_)) | None => {}
        }
    }
    let _ = entity.state(&known);
    let light = LightChange {
        on: Some(true),
        brightness: Some(9_000),
        color: Some(ColorMode::Temperature { kelvin: 3_000 }),
        transition_ms: 700,
        ..LightChange::default()
    };
    let dark = LightChange { on: Some(false), ..LightChange::default() };
    let changes = [
        Change::Light(light),
        Change::Light(dark),
        Change::Switch { on: true },
        Change::Switch { on: false },
        Change::Press,
    ];
    let messages = changes.iter().filter_map(|change| entity.messages(change, &known).ok()).flatten();
    for Message { topic, .. } in messages.chain(entity.question()) {
        assert!(is_topic(&topic), "{topic:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_announcement_and_message_are_taken(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::run(&data);
        }
    }

    #[test]
    fn an_announcement_with_a_template_is_one() {
        let light = br#"{"uniq_id":"u","cmd_t":"c","stat_t":"s","schema":"json","brightness":true}"#;
        let data =
            [[1, u8::try_from(light.len()).unwrap(), 0].as_slice(), light, b"{\"state\":\"ON\"}"].concat();
        super::run(&data);
    }
}
