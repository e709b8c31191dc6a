//! The device that a component is part of, and the ids that are made of names. Pure.

use ring::digest::{SHA256, digest};

use crate::model::{DeviceId, device::MAX_DEVICE_ID};
use crate::mqtt::ID;
use crate::mqtt::wire::fields::Fields;

/// A device as its announcements describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Physical {
    /// What names it for ever, as far as it says so.
    pub(crate) key: String,
    /// Its name.
    pub(crate) name: String,
    /// Who made it.
    pub(crate) manufacturer: String,
    /// What it is called by its maker.
    pub(crate) model: String,
    /// The version of its firmware.
    pub(crate) firmware: Option<String>,
    /// The software that announces it.
    pub(crate) origin: Option<String>,
}

impl Physical {
    /// Of an announcement; a component without a device is one by itself.
    pub(crate) fn parse(fields: Fields<'_>, unique: &str) -> Self {
        let device = fields.inside("device");
        let text = |key: &str| device.and_then(|device| device.text(key));
        let identifier = device.and_then(|device| device.texts("identifiers").into_iter().min());
        // [["mac", "02:00:…"]]
        let connection = device.and_then(|device| {
            let first = device.0.get("connections")?.as_array()?.first()?;
            let parts: Vec<&str> =
                first.as_array()?.iter().take(2).filter_map(serde_json::Value::as_str).collect();
            Some(parts.join("-"))
        });
        let model = text("model").or_else(|| text("model_id")).filter(|model| !model.is_empty());
        Self {
            key: identifier.or(connection).unwrap_or_else(|| unique.to_owned()),
            name: text("name").or_else(|| fields.text("name")).unwrap_or_else(|| unique.to_owned()),
            manufacturer: text("manufacturer").unwrap_or_default(),
            model: model.unwrap_or_else(|| "MQTT device".to_owned()),
            firmware: text("sw_version"),
            origin: fields.inside("origin").and_then(|origin| origin.text("name")),
        }
    }
}

/// The id of what is named so: what an id may not hold becomes `-`, and what is too long for one ends with its hash.
pub(crate) fn device_id(name: &str) -> Option<DeviceId> {
    let clean = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }
    };
    let cleaned: String = name.chars().map(clean).collect();
    let cleaned = cleaned.trim_matches('-');
    let most = MAX_DEVICE_ID - ID.len() - 1;
    let fit = if cleaned.is_empty() || cleaned.len() > most {
        let hash = digest(&SHA256, name.as_bytes());
        let short: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let begin: String = cleaned.chars().take(most - short.len() - 1).collect();
        format!("{begin}-{short}").trim_start_matches('-').to_owned()
    } else {
        cleaned.to_owned()
    };
    DeviceId::new(format!("{ID}-{fit}")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn any_name_makes_an_id(name in ".{0,200}") {
            prop_assert!(device_id(&name).is_some());
        }
    }

    #[test]
    fn an_id_is_readable_where_it_fits_and_differs_where_it_does_not() {
        assert_eq!(device_id("0x0017_light_zigbee2mqtt").unwrap().as_str(), "mqtt-0x0017-light-zigbee2mqtt");
        let (long, other) = ("a".repeat(100), "a".repeat(101));
        assert_ne!(device_id(&long), device_id(&other));
        assert_ne!(device_id("äö"), device_id("öä"));
    }

    #[test]
    fn a_device_is_named_by_its_identifiers_then_its_connections() {
        let parse = |body: serde_json::Value| Physical::parse(Fields(body.as_object().unwrap()), "u1");
        assert_eq!(parse(json!({"device": {"identifiers": ["b", "a"], "name": "Lamp"}})).key, "a");
        assert_eq!(parse(json!({"device": {"identifiers": "x"}})).key, "x");
        assert_eq!(parse(json!({"device": {"connections": [["mac", "02:aa"]]}})).key, "mac-02:aa");
        let alone = parse(json!({"name": "Relay"}));
        assert_eq!(
            (alone.key.as_str(), alone.name.as_str(), alone.model.as_str()),
            ("u1", "Relay", "MQTT device")
        );
    }
}
