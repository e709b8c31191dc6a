//! Announcements: which topic they are at, and what they say. Pure.
//!
//! Source: <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>, "Discovery topic", "Device discovery
//! payload", "Single component discovery payload".

use std::fmt;

use serde_json::{Map, Value};

use super::abbreviations::{fill_in_base, write_out};
use super::fields::Fields;

/// The most components of one device.
const MOST_COMPONENTS: usize = 128;
/// The longest key of a component of a device, in bytes: a component is known by it.
const MOST_KEY: usize = 128;
/// The component that stands for a whole device.
const DEVICE: &str = "device";
/// What a device shares with its components, unless they say otherwise.
const SHARED: [&str; 8] = [
    "availability",
    "availability_mode",
    "availability_template",
    "availability_topic",
    "command_topic",
    "payload_available",
    "payload_not_available",
    "state_topic",
];

/// Where something is announced, and so its name: a component, the name of its node if it has one, and its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    component: String,
    node: Option<String>,
    object: String,
}

/// One component of an announcement, which is known by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    /// Where it was announced.
    pub(crate) place: Place,
    /// Its key among the components of its device; empty where it was announced alone.
    pub(crate) key: String,
}

/// What an announcement says of one component.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Announced {
    /// By what it is known.
    pub(crate) slot: Slot,
    /// What it is: `light`, `sensor`…
    pub(crate) component: String,
    /// What it says, with all names written out.
    pub(crate) body: Map<String, Value>,
}

/// Why an announcement is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiscoveryError {
    /// It is no JSON object.
    #[error("it is no JSON object: {0}")]
    NoObject(String),
    /// A device without components.
    #[error("it announces a device without components")]
    NoComponents,
    /// A device of too many components.
    #[error("it announces {0} components, and at most {MOST_COMPONENTS} are read")]
    TooMany(usize),
    /// A component whose key is none.
    #[error("it announces a component {0:?}: a key has 1 to {MOST_KEY} bytes and no control characters")]
    Key(String),
}

impl Place {
    /// Of a topic below the discovery prefix; none where it is not one of announcements.
    pub(crate) fn parse(prefix: &str, topic: &str) -> Option<Self> {
        let path = topic.strip_prefix(prefix)?.strip_prefix('/')?.strip_suffix("/config")?;
        let mut parts = path.split('/');
        let component = parts.next().filter(|part| is_name(part))?;
        let (first, second) = (parts.next().filter(|part| is_name(part))?, parts.next());
        let (node, object) = match second {
            None => (None, first),
            Some(second) => (Some(first), second),
        };
        if parts.next().is_some() || !is_name(object) {
            return None;
        }
        let (component, object) = (component.to_owned(), object.to_owned());
        Some(Self { component, node: node.map(str::to_owned), object })
    }

    /// Whether it is that of a whole device.
    pub(crate) fn is_device(&self) -> bool {
        self.component == DEVICE
    }

    /// The name of what is announced, without that of its node.
    pub(crate) fn object(&self) -> &str {
        &self.object
    }
}

impl Slot {
    /// The name of a component among those of its device.
    pub(crate) fn name(&self) -> &str {
        if self.key.is_empty() { &self.place.object } else { &self.key }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_deref().unwrap_or_default();
        let between = if self.node.is_some() { "/" } else { "" };
        write!(f, "{}/{node}{between}{}/config", self.component, self.object)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{}{between}{}", self.place, self.key)
    }
}

/// What an announcement says. Empty where all that was announced there is gone.
///
/// # Errors
/// Why it is refused.
pub(crate) fn parse(place: &Place, payload: &[u8]) -> Result<Vec<Announced>, DiscoveryError> {
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    let no_object = |why: String| DiscoveryError::NoObject(why.chars().take(80).collect());
    let parsed: Value = serde_json::from_slice(payload).map_err(|error| no_object(error.to_string()))?;
    let Value::Object(mut body) = parsed else { return Err(no_object("something else".to_owned())) };
    write_out(&mut body);
    if !place.is_device() {
        fill_in_base(&mut body);
        let slot = Slot { place: place.clone(), key: String::new() };
        let component = place.component.clone();
        return Ok(if body.is_empty() { Vec::new() } else { vec![Announced { slot, component, body }] });
    }
    components(place, body)
}

/// Whether it comes from somebody of that name.
pub(crate) fn is_from(body: &Map<String, Value>, name: &str) -> bool {
    let origin = Fields(body).inside("origin").and_then(|origin| origin.text("name"));
    origin.is_some_and(|origin| origin == name)
}

fn components(place: &Place, mut body: Map<String, Value>) -> Result<Vec<Announced>, DiscoveryError> {
    let Some(Value::Object(components)) = body.remove("components") else {
        return Err(DiscoveryError::NoComponents);
    };
    if components.len() > MOST_COMPONENTS {
        return Err(DiscoveryError::TooMany(components.len()));
    }
    let mut announced = Vec::new();
    for (key, component) in components {
        if !(1..=MOST_KEY).contains(&key.len()) || key.chars().any(char::is_control) {
            return Err(DiscoveryError::Key(key.chars().take(40).collect()));
        }
        let Value::Object(mut component) = component else { continue };
        let Some(Value::String(platform)) = component.remove("platform") else { continue };
        // One that holds nothing else is gone.
        if component.is_empty() {
            continue;
        }
        let shared = SHARED.iter().chain(&["device", "origin", "~"]);
        for name in shared {
            if let Some(value) = body.get(*name) {
                component.entry((*name).to_owned()).or_insert_with(|| value.clone());
            }
        }
        fill_in_base(&mut component);
        let slot = Slot { place: place.clone(), key };
        announced.push(Announced { slot, component: platform, body: component });
    }
    Ok(announced)
}

fn is_name(part: &str) -> bool {
    (1..=128).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::contract;

    const PREFIX: &str = "homeassistant";

    #[test]
    fn a_topic_names_what_is_announced() {
        let place = Place::parse(PREFIX, "homeassistant/sensor/0x00158d/temperature/config").unwrap();
        assert_eq!((place.node.as_deref(), place.object()), (Some("0x00158d"), "temperature"));
        assert_eq!(place.to_string(), "sensor/0x00158d/temperature/config");
        let place = Place::parse(PREFIX, "homeassistant/light/DC4F22_LI_1/config").unwrap();
        assert_eq!((place.node.as_deref(), place.to_string().as_str()), (None, "light/DC4F22_LI_1/config"));
        assert!(Place::parse(PREFIX, "homeassistant/device/abc/config").unwrap().is_device());
        for other in [
            "homeassistant/status",
            "homeassistant/config",
            "homeassistant/light/config",
            "homeassistant/light//config",
            "homeassistant/light/a b/config",
            "homeassistant/light/a/b/c/config",
            "homeassistant2/light/a/config",
            "",
        ] {
            assert!(Place::parse(PREFIX, other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_device_shares_what_its_components_leave_open() {
        let place = Place::parse(PREFIX, "homeassistant/device/x/config").unwrap();
        let payload = br#"{"~":"z/lamp","dev":{"ids":"x"},"o":{"name":"z"},"stat_t":"~","avty_t":"~/there",
            "cmps":{"l":{"p":"light","cmd_t":"~/set","uniq_id":"l1"},"gone":{"p":"sensor"},"bad":3,
                    "s":{"p":"sensor","stat_t":"other","uniq_id":"s1"}}}"#;
        let announced = parse(&place, payload).unwrap();
        assert_eq!(announced.len(), 2);
        let [light, sensor] = &announced[..] else { panic!() };
        assert_eq!((light.component.as_str(), light.slot.name()), ("light", "l"));
        assert_eq!(light.body["state_topic"], "z/lamp");
        assert_eq!(light.body["command_topic"], "z/lamp/set");
        assert_eq!(light.body["availability_topic"], "z/lamp/there");
        assert_eq!(sensor.body["state_topic"], "other");
        assert!(is_from(&sensor.body, "z") && !is_from(&sensor.body, "Hearth"));
    }

    #[test]
    fn nothing_that_is_sent_as_an_announcement_breaks_it() {
        let place = Place::parse(PREFIX, "homeassistant/device/x/config").unwrap();
        let valid = br#"{"dev":{"ids":"x"},"cmps":{"l":{"p":"light","cmd_t":"a/b"}}}"#.to_vec();
        for message in contract::hostile_messages(&[valid]) {
            let _ = parse(&place, &message);
        }
        assert!(matches!(parse(&place, b"[]"), Err(DiscoveryError::NoObject(_))));
        assert!(matches!(parse(&place, b"{}"), Err(DiscoveryError::NoComponents)));
        assert!(matches!(parse(&place, &b"[".repeat(100_000)), Err(DiscoveryError::NoObject(_))));
        let many: Vec<String> = (0..200).map(|n| format!(r#""{n}":{{"p":"light","a":1}}"#)).collect();
        let payload = format!(r#"{{"cmps":{{{}}}}}"#, many.join(","));
        assert_eq!(parse(&place, payload.as_bytes()), Err(DiscoveryError::TooMany(200)));
        assert_eq!(parse(&place, b""), Ok(Vec::new()));
    }

    #[test]
    fn components_with_long_keys_are_told_apart_to_the_last_letter() {
        let place = Place::parse(PREFIX, "homeassistant/device/x/config").unwrap();
        let announced = |keys: [&str; 2]| {
            let [a, b] = keys.map(|key| format!(r#""{key}":{{"p":"switch","cmd_t":"c"}}"#));
            parse(&place, format!(r#"{{"cmps":{{{a},{b}}}}}"#).as_bytes())
        };
        let begin = "k".repeat(MOST_KEY - 1);
        let both = announced([&format!("{begin}1"), &format!("{begin}2")]).unwrap();
        assert_ne!(both[0].slot, both[1].slot);
        for wrong in [format!("{begin}12"), String::new(), "a\\u0007".to_owned()] {
            assert!(matches!(announced(["a", &wrong]), Err(DiscoveryError::Key(_))), "{wrong:?}");
        }
    }
}
