//! The announcement of a device, and the topics it names. Pure.
//!
//! Sources: <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>, and `light.mqtt` (JSON schema),
//! `switch.mqtt`, `sensor.mqtt`, `binary_sensor.mqtt`, `button.mqtt`, `event.mqtt`.

use serde_json::{Map, Value, json};

use crate::adapter::Shown;
use crate::model::{Capabilities, DeviceId, LightCapabilities, NO_EFFECT, SensorDescription, SensorKind};
use crate::mqtt::wire::body::Body;
use crate::mqtt::wire::discovery::Place;

use super::ORIGIN;
use super::classes;
use super::payloads::SCALE;

/// Every part of a device that has a topic of its own.
const PARTS: [&str; 4] = ["light", "switch", "sensors", "availability"];

/// The topics of this home.
#[derive(Debug)]
pub(super) struct Topics {
    discovery: String,
    prefix: String,
    /// What the names of its announcements begin with, so that homes at one broker do not take back each other's.
    slug: String,
    /// Whether Hearth is there.
    pub(super) status: String,
    /// Whether Home Assistant has just started.
    pub(super) birth: String,
}

impl Topics {
    pub(super) fn new(discovery: &str, prefix: &str) -> Self {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let slug: String = prefix.chars().map(allowed).collect();
        Self {
            discovery: discovery.to_owned(),
            prefix: prefix.to_owned(),
            slug: format!("{slug}_"),
            status: format!("{prefix}/status"),
            birth: format!("{discovery}/status"),
        }
    }

    /// The filter of all devices that are announced, this home's own among them.
    pub(super) fn announcements(&self) -> String {
        format!("{}/device/+/config", self.discovery)
    }

    /// The filter of all commands.
    pub(super) fn commands(&self) -> String {
        format!("{}/+/+/set", self.prefix)
    }

    /// Where something that happened is told: each level of its topic is one of the broker's.
    pub(super) fn event(&self, topic: &str) -> String {
        format!("{}/event/{}", self.prefix, topic.replace('.', "/"))
    }

    /// The filter of what others tell the home.
    pub(super) fn events(&self) -> String {
        format!("{}/publish/#", self.prefix)
    }

    /// What others tell that happened.
    pub(super) fn event_of(&self, topic: &str) -> Option<String> {
        let levels = topic.strip_prefix(&self.prefix)?.strip_prefix("/publish/")?;
        Some(levels.replace('/', "."))
    }

    /// Where a device is announced.
    pub(super) fn config(&self, id: &DeviceId) -> String {
        format!("{}/device/{}{id}/config", self.discovery, self.slug)
    }

    /// Where a part of a device tells.
    pub(super) fn of(&self, id: &DeviceId, part: &str) -> String {
        format!("{}/{id}/{part}", self.prefix)
    }

    /// Every topic at which something of a device may be kept.
    pub(super) fn all_of(&self, id: &DeviceId) -> Vec<String> {
        let parts = PARTS.iter().map(|part| self.of(id, part));
        std::iter::once(self.config(id)).chain(parts).collect()
    }

    /// The device of an announcement of this home.
    pub(super) fn device_of(&self, place: &Place) -> Option<DeviceId> {
        let id = place.is_device().then(|| place.object().strip_prefix(&self.slug))??;
        DeviceId::new(id).ok()
    }

    /// The device, and the part of it, that a command is for.
    pub(super) fn command_of<'a>(&self, topic: &'a str) -> Option<(DeviceId, &'a str)> {
        let path = topic.strip_prefix(&self.prefix)?.strip_prefix('/')?.strip_suffix("/set")?;
        let (id, part) = path.split_once('/')?;
        Some((DeviceId::new(id).ok()?, part))
    }
}

/// The announcement of a device.
pub(super) fn of(topics: &Topics, shown: &Shown) -> Value {
    let device = &shown.device;
    let id = &device.id;
    let unique = |part: &str| format!("{}{id}_{part}", topics.slug);
    let mut components = Map::new();
    let mut add = |key: &str, component: Value| {
        let mut component = Body::of(component);
        component.set("unique_id", json!(unique(key)));
        components.insert(key.to_owned(), component.into());
    };
    match &device.capabilities {
        Capabilities::Light(light) => add("light", light_component(topics, id, light)),
        Capabilities::Switch => add(
            "switch",
            json!({
                "platform": "switch", "name": null,
                "state_topic": topics.of(id, "switch"), "command_topic": topics.of(id, "switch/set"),
            }),
        ),
        Capabilities::Button(button) => {
            if button.press {
                let press = topics.of(id, "button/set");
                add("button", json!({ "platform": "button", "name": null, "command_topic": press }));
            }
            if !button.events.is_empty() {
                let told = topics.of(id, "event");
                let event = json!({
                    "platform": "event", "name": null, "state_topic": told, "event_types": button.events,
                    "device_class": "button",
                });
                add("event", event);
            }
        }
        Capabilities::Sensor | Capabilities::Weather(_) => {}
    }
    for (key, sensor) in &device.sensors {
        add(&format!("sensor_{key}"), sensor_component(&topics.of(id, "sensors"), key, sensor));
    }
    json!({
        "device": device_block(topics, shown),
        "origin": { "name": ORIGIN, "sw_version": env!("CARGO_PKG_VERSION") },
        "components": components,
        "availability": [{ "topic": topics.status }, { "topic": topics.of(id, "availability") }],
        "availability_mode": "all",
        "qos": 1,
    })
}

fn device_block(topics: &Topics, shown: &Shown) -> Value {
    let device = &shown.device;
    let name = if device.name.trim().is_empty() { device.id.as_str() } else { &device.name };
    let mut block =
        Body::of(json!({ "identifiers": [format!("{}{}", topics.slug, device.id)], "name": name }));
    let texts = [
        ("manufacturer", Some(&device.manufacturer)),
        ("model", Some(&device.model)),
        ("sw_version", device.firmware.as_ref()),
        ("suggested_area", shown.area.as_ref()),
    ];
    for (key, text) in texts {
        if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
            block.set(key, json!(text));
        }
    }
    block.into()
}

fn light_component(topics: &Topics, id: &DeviceId, light: &LightCapabilities) -> Value {
    let modes: Vec<&str> = match (light.color, light.color_temperature) {
        (Some(_), Some(_)) => vec!["xy", "color_temp"],
        (Some(_), None) => vec!["xy"],
        (None, Some(_)) => vec!["color_temp"],
        (None, None) if light.brightness => vec!["brightness"],
        (None, None) => vec!["onoff"],
    };
    let mut component = Body::of(json!({
        "platform": "light", "schema": "json", "name": null,
        "state_topic": topics.of(id, "light"), "command_topic": topics.of(id, "light/set"),
        "supported_color_modes": modes, "flash": false, "transition": light.transition,
    }));
    if light.brightness {
        component.set("brightness", json!(true));
        component.set("brightness_scale", json!(SCALE));
    }
    if let Some(whites) = light.color_temperature {
        component.set("color_temp_kelvin", json!(true));
        component.set("min_kelvin", json!(whites.min_k));
        component.set("max_kelvin", json!(whites.max_k));
    }
    if !light.effects.is_empty() {
        let effects: Vec<&str> =
            std::iter::once(NO_EFFECT).chain(light.effects.iter().map(String::as_str)).collect();
        component.set("effect", json!(true));
        component.set("effect_list", json!(effects));
    }
    component.into()
}

fn sensor_component(topic: &str, key: &str, sensor: &SensorDescription) -> Value {
    let platform = if sensor.kind == SensorKind::Binary { "binary_sensor" } else { "sensor" };
    // In brackets: behind a dot a key could be a function of the message (`update`), or no name at all (`1st`).
    let template = format!("{{{{ value_json['{key}'] }}}}");
    let mut component = Body::of(json!({
        "platform": platform, "name": sensor.name, "state_topic": topic, "value_template": template,
    }));
    let class = sensor.class.as_deref();
    match &sensor.kind {
        SensorKind::Numeric { unit, decimals } => {
            let unit = classes::unit(unit);
            let (class, state_class) = classes::of_number(class, &unit);
            if let Some(class) = class {
                component.set("device_class", json!(class));
            }
            if let Some(state_class) = state_class {
                component.set("state_class", json!(state_class.name()));
            }
            if !unit.is_empty() {
                component.set("unit_of_measurement", json!(unit));
            }
            component.set("suggested_display_precision", json!(decimals));
        }
        SensorKind::Binary => {
            if let Some(class) = class.filter(|class| classes::is_of_truth(class)) {
                component.set("device_class", json!(class));
            }
        }
        SensorKind::Text => {}
    }
    if sensor.diagnostic {
        component.set("entity_category", json!("diagnostic"));
    }
    component.into()
}
