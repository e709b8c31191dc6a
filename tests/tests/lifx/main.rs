//! The LIFX adapter against the real emulator: every rule that a user would notice.
//! One file for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bulbs;
mod parts;
mod readers;
mod zones;

use std::time::Duration;

use device_adapters::Reading;
use device_adapters::model::{
    Availability, Capabilities, Change, ColorMode, CommandId, Description, DeviceId, Gamut, LightChange,
    LightState, Measurement, NO_EFFECT, Source, Stage, State, Zone, color,
};
use hearth_tests::daemon::PATIENCE;
use hearth_tests::emulator::{
    CANDLE, CEILING, CLEAN, COLOR_BULB, Emulator, Fault, LONG_STRIP, Link, NIGHT_VISION, OLD_STRIP, STRIP,
    SWITCH, TILE, WHITE_BULB,
};
use hearth_tests::fakes::running::Running;
use hearth_tests::python::python;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

const SERIAL: &str = "d073d5000001";
const LOSS: f64 = 0.3;

/// The adapter in this process, an emulator in another, a faulty network between them.
struct Rig {
    emulator: Emulator,
    link: Link,
    device: DeviceId,
    adapter: Running,
}

impl Rig {
    /// Starts all, with the link's address configured and no broadcast.
    async fn new(product: u16) -> Self {
        Self::with(product, |link| json!({ "addresses": [link.address().to_string()], "broadcast": [] }))
            .await
    }

    /// Starts all; `settings` says how the bulb is found, the rest is the same for every test.
    async fn with(product: u16, settings: impl Fn(&Link) -> serde_json::Value) -> Self {
        let emulator = Emulator::start(&[product]).await.unwrap();
        let link = Link::to(emulator.address(), 0x9e37_79b9).await.unwrap();
        let mut settings = settings(&link);
        settings["bind"] = json!("127.0.0.1");
        settings["discover_s"] = json!(1);
        if settings.get("poll_s").is_none() {
            settings["poll_s"] = json!(0.5);
        }
        let device = DeviceId::new(format!("lifx-{SERIAL}")).unwrap();
        Self { emulator, link, device, adapter: Running::start("lifx", &settings) }
    }

    /// Starts all, and owns the bulb once it is found and has reported.
    async fn owning(product: u16) -> Self {
        Self::new(product).await.owned().await
    }

    /// The same with a bulb that is polled so seldom that no poll sees what another app does.
    async fn seldom_polling(product: u16) -> Self {
        let settings =
            |link: &Link| json!({ "addresses": [link.address().to_string()], "broadcast": [], "poll_s": 60 });
        Self::with(product, settings).await.owned().await
    }

    /// Starts all, and owns that part of the hardware alone; answers with what it was found to be as well.
    async fn part(product: u16, called: &str) -> (Self, Description) {
        let mut rig = Self::new(product).await;
        rig.device = DeviceId::new(format!("lifx-{SERIAL}-{called}")).unwrap();
        let found = rig.found().await;
        rig.own(true).await;
        (rig, found)
    }

    async fn owned(mut self) -> Self {
        self.found().await;
        self.own(true).await;
        self.reported().await;
        self
    }

    async fn own(&self, owned: bool) {
        self.adapter.own(&self.device, owned).await;
    }

    /// Sends a command with a deadline of 20 s after the transition; its id counts up from 1.
    async fn change(&mut self, change: LightChange) -> CommandId {
        self.change_within(change, Duration::from_secs(20)).await
    }

    async fn change_within(&mut self, change: LightChange, patience: Duration) -> CommandId {
        self.adapter.command(&self.device, Change::Light(change), patience).await
    }

    async fn found(&mut self) -> Description {
        self.adapter.found(&self.device).await
    }

    async fn reported(&mut self) -> (LightState, Option<CommandId>) {
        self.adapter
            .next("Reported", |reading| match reading {
                Reading::Reported { state: State::Light(state), command, source, .. } => {
                    assert_eq!(*source, Source::ReadBack);
                    Some((state.clone(), *command))
                }
                _ => None,
            })
            .await
    }

    async fn availability(&mut self, wanted: Availability) -> String {
        self.adapter.available(&self.device, wanted).await
    }

    /// The stages of a command, up to the final one.
    async fn life_of(&mut self, of: CommandId) -> Vec<Stage> {
        let mut life = Vec::new();
        loop {
            let stage = self
                .adapter
                .next("Progress", |reading| match reading {
                    Reading::Progress { command, stage, .. } if *command == of => Some(stage.clone()),
                    _ => None,
                })
                .await;
            life.push(stage.clone());
            if stage.is_final() {
                return life;
            }
        }
    }

    /// Sends a change, sees it confirmed, and returns what the bulb really shows.
    async fn confirmed(&mut self, change: LightChange) -> serde_json::Value {
        self.carried_out(Change::Light(change)).await;
        self.emulator.device(SERIAL).await.unwrap()
    }

    /// Sends a change, and sees it confirmed.
    async fn carried_out(&mut self, change: Change) {
        let command = self.adapter.command(&self.device, change, Duration::from_secs(20)).await;
        assert_eq!(self.life_of(command).await, [Stage::Sent, Stage::Acknowledged, Stage::Confirmed]);
    }

    /// Waits for a state in which it is on or off.
    async fn is_on(&mut self, wanted: bool) {
        let shows = |reading: &Reading| match reading {
            Reading::Reported { device, state, .. } if *device == self.device => {
                (state.is_on() == Some(wanted)).then_some(())
            }
            _ => None,
        };
        self.adapter.next("Reported", shows).await;
    }

    /// What another client, aiolifx, sees, after it has changed what it is told to.
    async fn second_reader(&self, change: &serde_json::Value) -> serde_json::Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/lifx.py");
        let port = self.emulator.address().port().to_string();
        let told = python().unwrap().args([script, &port, &change.to_string()]).output().await.unwrap();
        let said = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{said}");
        serde_json::from_slice(&told.stdout).unwrap()
    }

    /// The newest report of all that was seen.
    fn last_report(&self) -> LightState {
        let report = |reading: &Reading| match reading {
            Reading::Reported { state: State::Light(state), .. } => Some(state.clone()),
            _ => None,
        };
        self.adapter.seen.iter().rev().find_map(report).unwrap()
    }

    /// Waits for a report in which `shows` holds.
    async fn shows(&mut self, what: &str, shows: impl Fn(&LightState) -> bool) -> LightState {
        self.adapter
            .next(what, |reading| match reading {
                Reading::Reported { state: State::Light(state), .. } if shows(state) => Some(state.clone()),
                _ => None,
            })
            .await
    }

    async fn stop(self) {
        self.adapter.stop().await;
    }
}

fn on(on: bool) -> LightChange {
    LightChange { on: Some(on), ..LightChange::default() }
}

fn brightness(percent: u8) -> LightChange {
    LightChange { brightness: Some(color::from_percent(percent)), ..LightChange::default() }
}

fn colored(color: ColorMode) -> LightChange {
    LightChange { color: Some(color), ..LightChange::default() }
}

fn zone(count: u16, kelvin: u16, percent: u8) -> Zone {
    let brightness = color::from_percent(percent);
    Zone { count, color: ColorMode::Temperature { kelvin }, brightness }
}

fn zoned(zones: &[Zone]) -> LightChange {
    LightChange { zones: Some(zones.to_vec()), ..LightChange::default() }
}

fn effect(name: &str) -> LightChange {
    LightChange { effect: Some(name.to_owned()), ..LightChange::default() }
}

/// The matrices, with how many zones each has and in how many rows and columns.
const MATRICES: [(u16, u16, &str); 3] =
    [(TILE, 320, "5 tiles of 8 x 8 zones"), (CANDLE, 30, "5 x 6 zones"), (CEILING, 128, "16 x 8 zones")];
