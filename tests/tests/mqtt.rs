//! The MQTT adapter at a real broker (mosquitto): every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "mqtt/home_assistant.rs"]
mod home_assistant;
#[path = "mqtt/imports.rs"]
mod imports;
#[path = "mqtt/lines.rs"]
mod lines;

use std::collections::BTreeMap;
use std::time::Duration;

use device_adapters::contract::{self, Ignores, Peer};
use device_adapters::model::{
    Availability, Change, CommandId, Description, DeviceId, Measurement, Stage, State,
};
use device_adapters::{AdapterError, Context, Directive, Handle, Reading, find};
use hearth_tests::fakes::mosquitto::Mosquitto;
use hearth_tests::fakes::zigbee::{Bulb, Mood, SERIAL, WRONG};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// The bulb, as the adapter names it.
fn bulb() -> DeviceId {
    DeviceId::new(format!("mqtt-{SERIAL}-light-zigbee2mqtt")).unwrap()
}

fn light(change: Value) -> Change {
    Change::Light(serde_json::from_value(change).unwrap())
}

/// The adapter in this process.
struct Rig {
    handle: Handle,
    run: JoinHandle<Result<(), AdapterError>>,
    seen: Vec<Reading>,
    commands: u8,
}

impl Rig {
    fn start(broker: &Mosquitto, settings: Value) -> Self {
        let mut settings = settings;
        if settings.get("broker").is_none() {
            settings["broker"] = json!(broker.address());
        }
        let adapter = (find("mqtt").unwrap().build)(&settings).unwrap();
        let (context, handle) = Context::channel(64, 64);
        Self { handle, run: tokio::spawn(adapter.run(context)), seen: Vec::new(), commands: 0 }
    }

    async fn direct(&self, directive: Directive) {
        self.handle.commands.send(directive).await.unwrap();
    }

    async fn own(&self, device: &DeviceId) {
        self.direct(Directive::Own { device: device.clone(), owned: true }).await;
    }

    async fn command(&mut self, device: &DeviceId, change: Change) -> CommandId {
        self.commands += 1;
        let command = CommandId([self.commands; 16]);
        let deadline = Instant::now() + Duration::from_secs(5);
        self.direct(Directive::Command { device: device.clone(), command, change, deadline }).await;
        command
    }

    /// The first thing that `pick` picks of what it says from now on.
    async fn next<T>(&mut self, what: &str, pick: impl Fn(&Reading) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let Ok(reading) = timeout_at(end, self.handle.readings.recv()).await else {
                panic!("waited for {what}, saw {:#?}", self.seen)
            };
            let reading = reading.unwrap_or_else(|| panic!("waited for {what}, and it ended"));
            self.seen.push(reading.clone());
            if let Some(picked) = pick(&reading) {
                return picked;
            }
        }
    }

    async fn found(&mut self, wanted: &DeviceId) -> Description {
        self.next("a device", |reading| match reading {
            Reading::Found { device } if device.id == *wanted => Some(device.clone()),
            _ => None,
        })
        .await
    }

    async fn availability(&mut self, wanted: Availability) -> String {
        self.next("its availability", |reading| match reading {
            Reading::Availability { availability, reason, .. } if *availability == wanted => {
                Some(reason.clone())
            }
            _ => None,
        })
        .await
    }

    async fn end_of(&mut self, wanted: CommandId) -> Stage {
        self.next("the end of a command", |reading| match reading {
            Reading::Progress { command, stage, .. } if *command == wanted && stage.is_final() => {
                Some(stage.clone())
            }
            _ => None,
        })
        .await
    }

    async fn state(&mut self) -> State {
        self.next("a state", |reading| match reading {
            Reading::Reported { state, .. } => Some(state.clone()),
            _ => None,
        })
        .await
    }

    /// Why it ended by itself.
    async fn error(mut self) -> AdapterError {
        let end = Instant::now() + Duration::from_secs(30);
        let readings = async { while self.handle.readings.recv().await.is_some() {} };
        timeout_at(end, readings).await.expect("it ends");
        self.run.await.unwrap().expect_err("it ends with an error")
    }

    async fn stop(mut self) -> Vec<Reading> {
        self.handle.stop.send(true).unwrap();
        let end = Instant::now() + contract::SHUTDOWN_WITHIN;
        while let Ok(Some(reading)) = timeout_at(end, self.handle.readings.recv()).await {
            self.seen.push(reading);
        }
        timeout_at(end, self.run).await.expect("it stops in time").unwrap().unwrap();
        self.seen
    }
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
