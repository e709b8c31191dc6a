//! The rules of the adapter, in simulated time and without sockets: the driver on one side, a bridge that behaves as the public
//! documentation says on the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod commands;
mod ends;
mod messages;
mod settings;
mod things;
mod trust;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::REGISTRATION;
use super::driver::{Answer, Ask, Driver};
use super::wire;
use crate::adapter::Reading;
use crate::contract;
use crate::model::{Availability, Change, ColorMode, CommandId, DeviceId, LightChange, Stage, State};

const LAMP: &str = "4413c8fd-6643-48b5-ad02-59453edf8a61";
const LAMP_HOUSING: &str = "0ba2b4a4-0000-4000-8000-000000000001";
const LAMP_ZIGBEE: &str = "0ba2b4a4-0000-4000-8000-000000000002";
const PLUG: &str = "0ba2b4a4-0000-4000-8000-000000000003";
const PLUG_ZIGBEE: &str = "0ba2b4a4-0000-4000-8000-000000000010";
const PLUG_HOUSING: &str = "0ba2b4a4-0000-4000-8000-000000000004";
const ROOM: &str = "0ba2b4a4-0000-4000-8000-000000000005";
const GROUP: &str = "0ba2b4a4-0000-4000-8000-000000000006";
const DIMMER: &str = "0ba2b4a4-0000-4000-8000-000000000007";
const BUTTON: &str = "0ba2b4a4-0000-4000-8000-000000000008";
const BATTERY: &str = "0ba2b4a4-0000-4000-8000-000000000009";
const SENSOR: &str = "0ba2b4a4-0000-4000-8000-00000000000a";
const MOTION: &str = "0ba2b4a4-0000-4000-8000-00000000000b";
const WARMTH: &str = "0ba2b4a4-0000-4000-8000-00000000000c";
const LUX: &str = "0ba2b4a4-0000-4000-8000-00000000000d";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn id(number: u8) -> CommandId {
    CommandId([number; 16])
}

fn device(rid: &str) -> DeviceId {
    DeviceId::new(format!("hue-{}", rid.replace('-', ""))).unwrap()
}

fn reference(kind: &str, rid: &str) -> Value {
    json!({ "rid": rid, "rtype": kind })
}

/// A light as the API reference shows one.
fn lamp() -> Value {
    json!({
        "id": LAMP, "id_v1": "/lights/1", "type": "light", "owner": reference("device", LAMP_HOUSING),
        "metadata": { "name": "Sofa", "archetype": "sultan_bulb", "function": "mixed" },
        "on": { "on": false },
        "dimming": { "brightness": 50.0, "min_dim_level": 0.2 },
        "dimming_delta": {},
        "color_temperature": {
            "mirek": 366, "mirek_valid": true, "mirek_schema": { "mirek_minimum": 153, "mirek_maximum": 500 }
        },
        "color": {
            "xy": { "x": 0.4573, "y": 0.41 }, "gamut_type": "C",
            "gamut": {
                "red": { "x": 0.6915, "y": 0.3083 }, "green": { "x": 0.17, "y": 0.7 }, "blue": { "x": 0.1532, "y": 0.0475 }
            }
        },
        "dynamics": { "status": "none", "status_values": ["none", "dynamic_palette"], "speed": 0.0, "speed_valid": false },
        "effects": {
            "status": "no_effect", "status_values": ["no_effect", "candle", "fire"],
            "effect_values": ["no_effect", "candle", "fire"]
        },
        "mode": "normal"
    })
}

fn home() -> Vec<Value> {
    let housing = |rid: &str, name: &str, archetype: &str, services: Vec<Value>| {
        json!({
            "id": rid, "type": "device",
            "product_data": {
                "model_id": "LCA001", "manufacturer_name": "Signify Netherlands B.V.", "product_name": "Hue color lamp",
                "product_archetype": archetype, "certified": true, "software_version": "1.108.7"
            },
            "metadata": { "name": name, "archetype": archetype }, "services": services
        })
    };
    vec![
        housing(
            LAMP_HOUSING,
            "Sofa",
            "sultan_bulb",
            vec![reference("light", LAMP), reference("zigbee_connectivity", LAMP_ZIGBEE)],
        ),
        lamp(),
        json!({ "id": LAMP_ZIGBEE, "type": "zigbee_connectivity", "owner": reference("device", LAMP_HOUSING),
                "status": "connected", "mac_address": "00:17:88:01:02:03:04:05" }),
        housing(
            PLUG_HOUSING,
            "Fan",
            "plug",
            vec![reference("light", PLUG), reference("zigbee_connectivity", PLUG_ZIGBEE)],
        ),
        json!({ "id": PLUG_ZIGBEE, "type": "zigbee_connectivity", "status": "connected" }),
        json!({ "id": PLUG, "type": "light", "owner": reference("device", PLUG_HOUSING), "on": { "on": true },
                "metadata": { "name": "Fan", "archetype": "plug" }, "mode": "normal" }),
        json!({ "id": ROOM, "type": "room", "children": [reference("device", LAMP_HOUSING), reference("device", PLUG_HOUSING)],
                "services": [reference("grouped_light", GROUP)], "metadata": { "name": "Living room", "archetype": "living_room" } }),
        json!({ "id": GROUP, "type": "grouped_light", "owner": reference("room", ROOM), "on": { "on": true },
                "dimming": { "brightness": 50.0 }, "color": {}, "color_temperature": {} }),
        housing(
            DIMMER,
            "Switch",
            "unknown_archetype",
            vec![reference("button", BUTTON), reference("device_power", BATTERY)],
        ),
        json!({ "id": BUTTON, "type": "button", "owner": reference("device", DIMMER), "metadata": { "control_id": 1 },
                "button": { "event_values": ["initial_press", "repeat", "short_release", "long_release", "long_press"] } }),
        json!({ "id": BATTERY, "type": "device_power", "owner": reference("device", DIMMER),
                "power_state": { "battery_state": "normal", "battery_level": 83 } }),
        housing(
            SENSOR,
            "Hall",
            "unknown_archetype",
            vec![
                reference("motion", MOTION),
                reference("temperature", WARMTH),
                reference("light_level", LUX),
            ],
        ),
        json!({ "id": MOTION, "type": "motion", "owner": reference("device", SENSOR), "enabled": true,
                "motion": { "motion": false, "motion_valid": true } }),
        json!({ "id": WARMTH, "type": "temperature", "owner": reference("device", SENSOR), "enabled": true,
                "temperature": { "temperature": 21.34, "temperature_valid": true } }),
        json!({ "id": LUX, "type": "light_level", "owner": reference("device", SENSOR), "enabled": true,
                "light": { "light_level": 20001, "light_level_valid": true } }),
        // Kinds that are not used, and one that is not as it should be, hide nothing.
        json!({ "id": "0ba2b4a4-0000-4000-8000-00000000000e", "type": "scene", "status": { "active": "inactive" } }),
        json!({ "id": "0ba2b4a4-0000-4000-8000-00000000000f", "type": "light", "on": "yes" }),
    ]
}

/// A driver, the time, and what it said.
struct World {
    now: Instant,
    driver: Driver,
    said: Vec<Reading>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let driver = Driver::new("192.0.2.7".into(), ms(20_000), BTreeSet::new(), now);
        Self { now, driver, said: Vec::new() }
    }

    /// With an open stream, all read, and these devices owned.
    fn with(owned: &[&str]) -> Self {
        let mut world = Self::new();
        assert!(world.driver.poll_stream(world.now));
        world.driver.stream_opened(world.now);
        assert_eq!(world.ask(), Ask::All);
        world.answer(200, &json!({ "errors": [], "data": home() }));
        for rid in owned {
            world.driver.own(device(rid), true);
        }
        world.take();
        world.said.clear();
        world
    }

    /// The next thing that is asked, whenever that is.
    fn ask(&mut self) -> Ask {
        for _ in 0..100 {
            if let Some(ask) = self.driver.poll_ask(self.now) {
                self.take();
                return ask;
            }
            self.now = self.driver.poll_timeout().expect("nothing is due").max(self.now + ms(1));
            self.driver.handle_timeout(self.now);
        }
        panic!("nothing is asked; said {:?}", self.said);
    }

    fn answer(&mut self, status: u16, body: &Value) {
        self.now += ms(5);
        let answer = Answer { status, retry_after: None, body: body.to_string().into_bytes() };
        self.driver.handle_answer(self.now, Ok(answer));
        self.take();
    }

    fn acknowledge(&mut self, kind: &str, rid: &str) {
        self.answer(200, &json!({ "data": [reference(kind, rid)], "errors": [] }));
    }

    fn event(&mut self, resources: Vec<Value>) {
        let text = json!([{ "creationtime": "2021-04-02T00:15:04Z", "data": resources, "type": "update",
                            "id": "19845c30-2e4c-4205-a7b4-8bd496f3407d" }]);
        self.now += ms(5);
        let events = wire::events(text.to_string().as_bytes()).unwrap();
        self.driver.handle_events(self.now, events);
        self.take();
    }

    fn command(&mut self, rid: &str, number: u8, change: Change) {
        let deadline = self.now + ms(5_000);
        self.driver.command(self.now, device(rid), id(number), &change, deadline);
        self.take();
    }

    fn take(&mut self) {
        while let Some(reading) = self.driver.poll_reading() {
            self.said.push(reading);
        }
    }

    /// The stages of a command so far.
    fn life(&self, number: u8) -> Vec<Stage> {
        let stage = |reading: &Reading| match reading {
            Reading::Progress { command, stage, .. } if *command == id(number) => Some(stage.clone()),
            _ => None,
        };
        self.said.iter().filter_map(stage).collect()
    }

    fn last_state(&self, rid: &str) -> Option<(State, Option<CommandId>)> {
        self.said.iter().rev().find_map(|reading| match reading {
            Reading::Reported { device: of, state, command, .. } if *of == device(rid) => {
                Some((state.clone(), *command))
            }
            _ => None,
        })
    }
}

fn on() -> Change {
    Change::Light(LightChange { on: Some(true), ..LightChange::default() })
}

fn dim(percent: u8) -> Change {
    let brightness = Some(crate::model::color::from_percent(percent));
    Change::Light(LightChange { brightness, ..LightChange::default() })
}
