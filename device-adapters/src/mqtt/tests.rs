//! The rules of the adapter without a broker: announcements as Zigbee2MQTT, Tasmota and ESPHome make them, written after
//! their documentation (<https://www.zigbee2mqtt.io/guide/usage/integrations/home_assistant.html>,
//! <https://tasmota.github.io/docs/Home-Assistant/>, <https://esphome.io/components/mqtt.html>), and hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod commands;
mod exports;
mod hostile;
mod imports;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::REGISTRATION;
use super::config::Config;
use super::driver::Driver;
use super::output::{Token, Transmit};
use crate::adapter::{Directive, Reading, Shown};
use crate::model::{
    Availability, Capabilities, Change, CommandId, Description, DeviceId, Measurement, Stage, State,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn command(number: u8) -> CommandId {
    CommandId([number; 16])
}

/// A message that the adapter published.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    topic: String,
    payload: String,
    retain: bool,
    token: Option<Token>,
}

/// The driver, a broker that keeps nothing by itself, and simulated time.
struct World {
    now: Instant,
    driver: Driver,
    sent: Vec<Sent>,
    listens: Vec<String>,
    readings: Vec<Reading>,
}

impl World {
    fn new() -> Self {
        Self::with(json!({}))
    }

    /// Connected, and listening.
    fn with(settings: Value) -> Self {
        let mut settings = settings;
        settings["broker"] = json!("192.0.2.1");
        let config = Config::parse(&REGISTRATION.descriptor, &settings).unwrap();
        let driver = Driver::new(&config, config.broker.as_ref().unwrap().to_string());
        let mut world =
            Self { now: Instant::now(), driver, sent: Vec::new(), listens: Vec::new(), readings: Vec::new() };
        world.driver.connected(world.now);
        world.settle();
        world
    }

    /// Does all that is due now.
    fn settle(&mut self) {
        self.driver.handle_timeout(self.now);
        while let Some(transmit) = self.driver.poll_transmit() {
            match transmit {
                Transmit::Publish { topic, payload, retain, token } => {
                    self.sent.push(Sent { topic, payload, retain, token });
                }
                Transmit::Subscribe(filter) => self.listens.push(filter),
                Transmit::Unsubscribe(filter) => self.listens.retain(|known| *known != filter),
            }
        }
        while let Some(reading) = self.driver.poll_reading() {
            self.readings.push(reading);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.driver.poll_timeout(self.now).filter(|next| *next <= end) {
            self.now = next.max(self.now + ms(1)).min(end);
            self.settle();
            if self.now >= end {
                break;
            }
        }
        self.now = end;
        self.settle();
    }

    fn message(&mut self, topic: &str, payload: &str) {
        self.driver.message(self.now, topic, payload.as_bytes(), false);
        self.settle();
    }

    fn retained(&mut self, topic: &str, payload: &str) {
        self.driver.message(self.now, topic, payload.as_bytes(), true);
        self.settle();
    }

    fn announce(&mut self, place: &str, body: &Value) {
        self.retained(&format!("homeassistant/{place}/config"), &body.to_string());
    }

    fn direct(&mut self, directive: Directive) {
        self.driver.directive(self.now, directive);
        self.settle();
    }

    fn own(&mut self, device: &str) {
        self.direct(Directive::Own { device: id(device), owned: true });
    }

    fn ask(&mut self, device: &str, number: u8, change: Change) {
        let deadline = self.now + ms(10_000);
        let (device, command, by) = (id(device), command(number), String::new());
        self.direct(Directive::Command { device, command, change, by, deadline });
    }

    /// The broker takes all that was sent and not taken yet.
    fn take_all(&mut self) -> Vec<Sent> {
        let sent = std::mem::take(&mut self.sent);
        for one in &sent {
            if let Some(token) = one.token {
                self.driver.published(self.now, token, &Ok(()));
            }
        }
        self.settle();
        sent
    }

    fn found(&self) -> BTreeMap<String, Description> {
        let mut found = BTreeMap::new();
        for reading in &self.readings {
            match reading {
                Reading::Found { device } => {
                    found.insert(device.id.to_string(), device.clone());
                }
                Reading::Lost { device, .. } => {
                    found.remove(device.as_str());
                }
                _ => {}
            }
        }
        found
    }

    fn stages(&self, number: u8) -> Vec<Stage> {
        let of = |reading: &Reading| match reading {
            Reading::Progress { command: of, stage, .. } if *of == command(number) => Some(stage.clone()),
            _ => None,
        };
        self.readings.iter().filter_map(of).collect()
    }

    fn state(&self, device: &str) -> Option<(State, Option<CommandId>)> {
        self.readings.iter().rev().find_map(|reading| match reading {
            Reading::Reported { device: of, state, command, .. } if of.as_str() == device => {
                Some((state.clone(), *command))
            }
            _ => None,
        })
    }

    fn measured(&self, device: &str, key: &str) -> Option<Measurement> {
        self.readings.iter().rev().find_map(|reading| match reading {
            Reading::Measured { device: of, values } if of.as_str() == device => values.get(key).cloned(),
            _ => None,
        })
    }

    fn availability(&self, device: &str) -> Option<(Availability, String)> {
        self.readings.iter().rev().find_map(|reading| match reading {
            Reading::Availability { device: of, availability, reason } if of.as_str() == device => {
                Some((*availability, reason.clone()))
            }
            _ => None,
        })
    }
}

/// A bulb as Zigbee2MQTT announces it.
fn zigbee_bulb() -> Value {
    json!({
        "availability": [
            { "topic": "zigbee2mqtt/bridge/state", "value_template": "{{ value_json.state }}" },
            { "topic": "zigbee2mqtt/bulb/availability", "value_template": "{{ value_json.state }}" }
        ],
        "availability_mode": "all", "brightness": true, "brightness_scale": 254,
        "command_topic": "zigbee2mqtt/bulb/set",
        "device": {
            "configuration_url": "http://home.example:8080/#/device/0x0017880104e45517/info", "hw_version": 1,
            "identifiers": ["zigbee2mqtt_0x0017880104e45517"], "manufacturer": "Philips",
            "model": "Hue white and color ambiance E26/E27", "model_id": "9290012573A", "name": "bulb",
            "sw_version": "1.93.11", "via_device": "zigbee2mqtt_bridge_0x00124b0014d9ffff"
        },
        "effect": true, "effect_list": ["blink", "breathe", "okay", "stop_effect"], "max_mireds": 500,
        "min_mireds": 153, "name": null, "object_id": "bulb",
        "origin": { "name": "Zigbee2MQTT", "sw": "2.6.0", "url": "https://www.zigbee2mqtt.io" },
        "schema": "json", "state_topic": "zigbee2mqtt/bulb", "supported_color_modes": ["xy", "color_temp"],
        "unique_id": "0x0017880104e45517_light_zigbee2mqtt"
    })
}

const BULB: &str = "mqtt-0x0017880104e45517-light-zigbee2mqtt";

fn zigbee_sensor(name: &str, more: Value) -> Value {
    let mut sensor = json!({
        "availability": zigbee_bulb()["availability"], "availability_mode": "all", "device": zigbee_bulb()["device"],
        "origin": zigbee_bulb()["origin"], "state_topic": "zigbee2mqtt/bulb",
        "value_template": format!("{{{{ value_json.{name} }}}}"),
        "unique_id": format!("0x0017880104e45517_{name}_zigbee2mqtt")
    });
    sensor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    sensor
}

/// A world in which the bulb is found, owned and there.
fn with_bulb() -> World {
    let mut world = World::new();
    world.announce("light/0x0017880104e45517/light", &zigbee_bulb());
    world.wait(ms(400));
    world.own(BULB);
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    world.retained("zigbee2mqtt/bulb/availability", r#"{"state":"online"}"#);
    world
}

fn light(json: Value) -> Change {
    Change::Light(serde_json::from_value(json).unwrap())
}

fn shown(adapter: &str, device: &str, capabilities: Capabilities) -> Shown {
    Shown {
        device: Description {
            id: id(device),
            adapter: adapter.to_owned(),
            name: "Lamp".to_owned(),
            manufacturer: "LIFX".to_owned(),
            model: "Color".to_owned(),
            firmware: Some("3.70".to_owned()),
            address: None,
            capabilities,
            sensors: BTreeMap::new(),
            note: None,
        },
        area: Some("Kitchen".to_owned()),
        state: None,
        measured: BTreeMap::new(),
        availability: Availability::Online,
    }
}
