//! What the node relies on, checked with the LIFX adapter and the emulator: bulbs of colours, of whites, strips, matrices,
//! and what hardware has beside its light or in its place: infrared, cleaning, relays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use device_adapters::model::{Change, ColorMode, DeviceId, Gamut, LightChange, NO_EFFECT, Zone};
use device_adapters::{contract, find};
use hearth_tests::emulator::{
    CANDLE, CEILING, CLEAN, COLOR_BULB, Emulator, Fault, Link, NIGHT_VISION, OLD_STRIP, STRIP, SWITCH, TILE,
    WHITE_BULB, wrong,
};
use serde_json::json;
use tokio::time::Instant;

/// The pace that LIFX asks of clients, <https://lan.developer.lifx.com/docs/communicating-with-device>.
const MOST_A_SECOND: usize = 20;

struct Peer {
    _emulator: Emulator,
    link: Link,
    device: &'static str,
    changes: Vec<Change>,
}

/// What an adapter asks to find and describe a bulb: for its service, firmware, label, version, zones and tiles.
const DESCRIBING: [u16; 6] = [2, 14, 23, 32, 502, 701];

impl contract::Peer for Peer {
    fn device(&self) -> DeviceId {
        DeviceId::new(self.device).unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        self.changes.clone()
    }

    async fn ignore(&mut self) -> contract::Ignores {
        self.link.set(Fault { ignore_sets: true, ..Fault::default() });
        contract::Ignores::Commands
    }

    async fn silence(&mut self) {
        self.link.set(Fault { lose_requests: 1.0, lose_answers: 1.0, ..Fault::default() });
    }

    async fn recover(&mut self) {
        self.link.set(Fault::default());
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        let wrong_answers = (number < wrong::WAYS).then_some(number);
        self.link.set(Fault { wrong_answers, ..Fault::default() });
        wrong_answers.is_some()
    }

    fn asked(&self) -> Vec<Instant> {
        self.link.asked()
    }

    fn most_a_second(&self) -> usize {
        MOST_A_SECOND
    }

    fn touched(&self) -> usize {
        self.link.log().iter().filter(|(_, kind)| !DESCRIBING.contains(kind)).count()
    }
}

async fn keeps_the_contract(product: u16, changes: Vec<LightChange>) {
    let changes = changes.into_iter().map(Change::Light).collect();
    part_keeps_the_contract(product, "lifx-d073d5000001", changes).await;
}

/// A device of that hardware, which alone is owned.
async fn part_keeps_the_contract(product: u16, device: &'static str, changes: Vec<Change>) {
    let emulator = Emulator::start(&[product]).await.unwrap();
    let link = Link::to(emulator.address(), 1).await.unwrap();
    let settings = json!({
        "addresses": [link.address().to_string()], "broadcast": [], "bind": "127.0.0.1", "poll_s": 0.5, "discover_s": 1
    });
    let mut peer = Peer { _emulator: emulator, link, device, changes };
    contract::live(find("lifx").unwrap(), &settings, &mut peer).await.unwrap();
}

fn on(on: bool) -> LightChange {
    LightChange { on: Some(on), ..LightChange::default() }
}

fn dim(brightness: u16) -> LightChange {
    LightChange { brightness: Some(brightness), ..LightChange::default() }
}

fn kelvin(kelvin: u16) -> LightChange {
    LightChange { color: Some(ColorMode::Temperature { kelvin }), ..LightChange::default() }
}

fn red() -> LightChange {
    LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..LightChange::default() }
}

fn effect(name: &str) -> LightChange {
    LightChange { effect: Some(name.to_owned()), ..LightChange::default() }
}

/// The first zones warm and bright, the others red and less so.
fn zones(warm: u16, red: u16) -> LightChange {
    let color = ColorMode::Color(Gamut::SRGB.red);
    let warm = Zone { count: warm, color: ColorMode::Temperature { kelvin: 2_700 }, brightness: 60_000 };
    LightChange {
        zones: Some(vec![warm, Zone { count: red, color, brightness: 20_000 }]),
        ..LightChange::default()
    }
}

#[tokio::test]
async fn a_colour_bulb_keeps_the_contract() {
    keeps_the_contract(
        COLOR_BULB,
        vec![
            on(false),
            LightChange { on: Some(true), ..red() },
            dim(9_000),
            LightChange { transition_ms: 300, ..dim(50_000) },
            kelvin(2_700),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_bulb_of_whites_keeps_the_contract() {
    keeps_the_contract(
        WHITE_BULB,
        vec![on(false), on(true), kelvin(2_700), dim(9_000), kelvin(5_000), dim(60_000)],
    )
    .await;
}

#[tokio::test]
async fn a_strip_keeps_the_contract() {
    let changes = vec![
        zones(30, 50),
        dim(9_000),
        kelvin(4_000),
        zones(10, 20),
        effect("move"),
        effect(NO_EFFECT),
        LightChange { on: Some(false), transition_ms: 200, ..zones(40, 40) },
        LightChange { on: Some(true), ..red() },
    ];
    keeps_the_contract(STRIP, changes).await;
}

#[tokio::test]
async fn an_old_strip_keeps_the_contract() {
    keeps_the_contract(OLD_STRIP, vec![zones(4, 12), on(false), dim(9_000), on(true), zones(2, 3), red()])
        .await;
}

#[tokio::test]
async fn a_candle_keeps_the_contract() {
    keeps_the_contract(
        CANDLE,
        vec![effect("flame"), zones(7, 23), effect("morph"), red(), dim(5_000), zones(2, 3), kelvin(3_000)],
    )
    .await;
}

#[tokio::test]
async fn a_chain_of_tiles_keeps_the_contract() {
    keeps_the_contract(
        TILE,
        vec![zones(100, 220), dim(9_000), zones(3, 5), on(false), kelvin(3_000), on(true)],
    )
    .await;
}

#[tokio::test]
async fn a_ceiling_keeps_the_contract() {
    let changes = vec![
        zones(100, 28),
        LightChange { on: Some(false), transition_ms: 200, ..zones(3, 5) },
        dim(9_000),
        LightChange { on: Some(true), ..red() },
        effect("sky"),
        zones(64, 64),
    ];
    keeps_the_contract(CEILING, changes).await;
}

#[tokio::test]
async fn an_infrared_emitter_keeps_the_contract() {
    let changes = [on(false), on(true), dim(9_000), LightChange { on: Some(false), ..dim(20_000) }, on(true)];
    let changes = changes.map(Change::Light).to_vec();
    part_keeps_the_contract(NIGHT_VISION, "lifx-d073d5000001-infrared", changes).await;
}

#[tokio::test]
async fn a_light_beside_an_infrared_emitter_keeps_the_contract() {
    keeps_the_contract(NIGHT_VISION, vec![on(false), LightChange { on: Some(true), ..red() }, dim(9_000)])
        .await;
}

#[tokio::test]
async fn a_cleaning_cycle_keeps_the_contract() {
    let changes = [true, false].map(|on| Change::Switch { on }).to_vec();
    part_keeps_the_contract(CLEAN, "lifx-d073d5000001-clean", changes).await;
}

#[tokio::test]
async fn a_relay_keeps_the_contract() {
    let changes = [true, false].map(|on| Change::Switch { on }).to_vec();
    part_keeps_the_contract(SWITCH, "lifx-d073d5000001-relay-2", changes).await;
}
