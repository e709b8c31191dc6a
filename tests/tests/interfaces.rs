//! Adapters that are bound to an interface: they reach what is behind it, and nothing else, and say which one it was.
//!
//! Each test is on a board of its own, where the peer is on loopback; the other interface is up and leads somewhere else.
//! (`discovery` has the same for the broadcasts of LIFX.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use device_adapters::AdapterError;
use device_adapters::model::{Availability, Change, DeviceId, Stage};
use hearth_tests::daemon::PATIENCE;
use hearth_tests::fakes::hue::{Bridge, PLUG};
use hearth_tests::fakes::mosquitto::Mosquitto;
use hearth_tests::fakes::running::Running;
use hearth_tests::fakes::shelly::Shelly;
use hearth_tests::fakes::weather::{Service, Weather};
use hearth_tests::fakes::wled::Wled;
use hearth_tests::fakes::zigbee::{Bulb, SERIAL};
use hearth_tests::network::Network;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

/// The interface that leads to the peers.
const RIGHT: &str = "lo";
/// The one that does not.
const WRONG: &str = "eth0";

/// Runs a test on a board with both.
fn on_a_board(test: impl AsyncFnOnce() + Send) {
    let mut network = Network::new(&["lan"]).unwrap();
    let board = network.board("one").unwrap();
    network.plug(&board, WRONG, "lan").unwrap();
    network.address(&board, WRONG, "10.77.0.1/24").unwrap();
    network.on(&board, test).unwrap();
}

fn bound(settings: &Value, interface: &str) -> Value {
    let mut settings = settings.clone();
    settings["interface"] = json!(interface);
    settings
}

fn id(text: impl Into<String>) -> DeviceId {
    DeviceId::new(text).unwrap()
}

/// The adapter reaches the device over the one, and ends over the other, with a word that names it.
async fn only_over_the_chosen_one(adapter: &str, settings: &Value, device: &DeviceId) {
    let error = Running::start(adapter, &bound(settings, WRONG)).ends().await.unwrap_err();
    let AdapterError::Unreachable { what, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains(WRONG), "{what}");
    let mut running = Running::start(adapter, &bound(settings, RIGHT));
    running.owning(device).await;
    running.stop().await;
}

#[test]
fn a_hue_bridge() {
    on_a_board(async || {
        let bridge = Bridge::start("ecb5fafffe123456").await.unwrap();
        let settings = json!({ "addresses": [bridge.address().to_string()], "keys": bridge.paired() });
        let plug = id(format!("hue-{}", PLUG.replace('-', "")));
        only_over_the_chosen_one("hue", &settings, &plug).await;
    });
}

#[test]
fn an_mqtt_broker() {
    on_a_board(async || {
        let broker = Mosquitto::start().await.unwrap();
        let _bulb = Bulb::start(&broker).await.unwrap();
        let settings = json!({ "broker": broker.address() });
        only_over_the_chosen_one("mqtt", &settings, &id(format!("mqtt-{SERIAL}-light-zigbee2mqtt"))).await;
    });
}

/// A device on the LAN at a configured address is found over the one; over the other a command to it says why not.
async fn found_only_over_the_chosen_one(adapter: &str, settings: &Value, device: &DeviceId) {
    let mut lost = Running::start(adapter, &bound(settings, WRONG));
    let deadline = Instant::now() + PATIENCE;
    let mut pace = interval(Duration::from_millis(100));
    let reason = loop {
        pace.tick().await;
        let command = lost.command(device, Change::Switch { on: true }, Duration::from_secs(5)).await;
        match lost.end_of(command).await {
            Stage::Failed { reason } if reason.contains(WRONG) => break reason,
            other => assert!(Instant::now() < deadline, "{other:?}"), // maybe nobody was asked yet
        }
    };
    assert!(reason.contains("does not reach it"), "{reason}");
    lost.stop().await;
    let mut running = Running::start(adapter, &bound(settings, RIGHT));
    running.owning(device).await;
    running.stop().await;
}

#[test]
fn a_wled_board() {
    on_a_board(async || {
        let wled = Wled::start(1, 1).await.unwrap();
        let settings = json!({ "addresses": [wled.web.address().to_string()] });
        found_only_over_the_chosen_one("wled", &settings, &id(format!("wled-{}", Wled::MAC))).await;
    });
}

#[test]
fn a_shelly_device() {
    on_a_board(async || {
        let shelly = Shelly::start(None).await.unwrap();
        let settings = json!({ "addresses": [shelly.web.address().to_string()] });
        let part = id(format!("shelly-{}-switch-0", Shelly::MAC));
        found_only_over_the_chosen_one("shelly", &settings, &part).await;
    });
}

#[test]
fn a_weather_service() {
    for (service, adapter) in [(Service::OpenMeteo, "open_meteo"), (Service::MetNorway, "met_norway")] {
        on_a_board(async || {
            let fake = Weather::start(service).await.unwrap();
            let settings = json!({
                "latitude": 59.9, "longitude": 10.7, "contact": "tests@hearth.example", "url": fake.url(),
                "refresh_minutes": 0.01
            });
            let home = id(format!("{}-home", adapter.replace('_', "-")));
            let mut lost = Running::start(adapter, &bound(&settings, WRONG));
            lost.own(&home, true).await;
            let reason = lost.available(&home, Availability::Offline).await;
            assert!(reason.contains(WRONG), "{reason}");
            drop(lost);
            assert!(fake.asked().is_empty(), "{:?}", fake.asked());
            let mut running = Running::start(adapter, &bound(&settings, RIGHT));
            running.owning(&home).await;
            running.stop().await;
        });
    }
}
