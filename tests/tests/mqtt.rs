//! The MQTT adapter at a real broker (mosquitto): every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "mqtt/announced.rs"]
mod announced;
#[path = "mqtt/imports.rs"]
mod imports;
#[path = "mqtt/lines.rs"]
mod lines;

use std::collections::BTreeMap;
use std::time::Duration;

use device_adapters::contract::{self, Ignores, Peer};
use device_adapters::model::{Availability, Change, DeviceId, Measurement, Stage, State};
use device_adapters::{AdapterError, Reading, find};
use hearth_tests::fakes::mosquitto::Mosquitto;
use hearth_tests::fakes::running::Running;
use hearth_tests::fakes::zigbee::{Bulb, Mood, SERIAL, WRONG};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The bulb, as the adapter names it.
fn bulb() -> DeviceId {
    DeviceId::new(format!("mqtt-{SERIAL}-light-zigbee2mqtt")).unwrap()
}

fn light(change: Value) -> Change {
    Change::Light(serde_json::from_value(change).unwrap())
}

/// How long a command may take that is carried out, on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);
/// How long one is waited for that is not.
const IN_VAIN: Duration = Duration::from_secs(5);

/// The adapter at a broker.
fn start(broker: &Mosquitto, mut settings: Value) -> Running {
    if settings.get("broker").is_none() {
        settings["broker"] = json!(broker.address());
    }
    Running::start("mqtt", &settings)
}

/// The next state that it tells.
async fn state(rig: &mut Running) -> State {
    rig.next("a state", |reading| match reading {
        Reading::Reported { state, .. } => Some(state.clone()),
        _ => None,
    })
    .await
}

/// The bulb behind Zigbee2MQTT, for the contract.
struct Zigbee {
    _broker: Mosquitto,
    bulb: Bulb,
}

impl Peer for Zigbee {
    fn device(&self) -> DeviceId {
        bulb()
    }

    fn changes(&self) -> Vec<Change> {
        vec![
            light(json!({ "on": true, "brightness": 20_000 })),
            light(json!({ "color": { "mode": "temperature", "kelvin": 4_000 } })),
            light(json!({ "color": { "mode": "color", "x": 40_000, "y": 20_000 }, "brightness": 50_000 })),
            light(json!({ "on": false })),
        ]
    }

    async fn ignore(&mut self) -> Ignores {
        self.bulb.set_mood(Mood::Ignores);
        Ignores::Commands
    }

    /// Zigbee2MQTT says so when a device does not answer it any more.
    async fn silence(&mut self) {
        self.bulb.set_mood(Mood::Silent);
        self.bulb.available(false).await.unwrap();
    }

    async fn recover(&mut self) {
        self.bulb.set_mood(Mood::Well);
        self.bulb.announce().await.unwrap();
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        self.bulb.set_mood(Mood::Wrong(number));
        number < WRONG
    }

    fn asked(&self) -> Vec<Instant> {
        self.bulb.asked()
    }

    /// Ten commands, and what it is asked beside them.
    fn most_a_second(&self) -> usize {
        13
    }

    fn touched(&self) -> usize {
        self.bulb.asked().len()
    }
}

#[tokio::test]
async fn the_adapter_passes_the_contract_with_a_zigbee_bulb() {
    let broker = Mosquitto::start().await.unwrap();
    let settings = json!({ "broker": broker.address() });
    let bulb = Bulb::start(&broker).await.unwrap();
    let mut peer = Zigbee { _broker: broker, bulb };
    contract::live(find("mqtt").unwrap(), &settings, &mut peer).await.unwrap();
}
