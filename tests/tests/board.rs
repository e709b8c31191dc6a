//! LEDs, 1-Wire thermometers and industrial IO in a folder that looks like sysfs: every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Stdio;

use device_adapters::model::{
    Availability, Change, ColorMode, DeviceId, Gamut, LightChange, LightState, Measurement, Stage, State,
    color,
};
use device_adapters::{Reading, Registration, contract, find};
use hearth_tests::fakes::running::Running;
use hearth_tests::fakes::sysfs::{Strange, SysfsPeer};
use hearth_tests::python::python;
use serde_json::{Value, json};

const LED: &str = "sysfs-led-0000000000000000-lamp";
const ROM: &str = "28-0316a2794cff";
const THERMOMETER: &str = "onewire-28-0316a2794cff";
const WARM: &str = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n";
const CHIP: &str = "iio-0000000000000000-iio-device0-bme280";

fn lamp() -> SysfsPeer {
    let files = [("brightness", "0\n"), ("max_brightness", "255\n"), ("trigger", "[none] timer heartbeat\n")];
    SysfsPeer::new(LED, "class/leds", "lamp", &files).unwrap()
}

fn thermometer() -> SysfsPeer {
    SysfsPeer::new(THERMOMETER, "bus/w1/devices", ROM, &[("w1_slave", WARM)]).unwrap()
}

fn bme280() -> SysfsPeer {
    let files = [
        ("name", "bme280\n"),
        ("in_temp_input", "21370\n"),
        ("in_humidityrelative_input", "45123.046875\n"),
        ("in_pressure_input", "101.325000\n"),
    ];
    SysfsPeer::new(CHIP, "bus/iio/devices", "iio:device0", &files).unwrap()
}

fn on(on: bool) -> LightChange {
    LightChange { on: Some(on), ..LightChange::default() }
}

fn at(percent: u8) -> LightChange {
    LightChange { brightness: Some(color::from_percent(percent)), ..LightChange::default() }
}

fn adapter(id: &str) -> &'static Registration {
    find(id).unwrap()
}

fn settings(peer: &SysfsPeer, more: Value) -> Value {
    let mut settings = json!({ "root": peer.sysfs.root() });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_led_keeps_the_contract_live() {
    let changes = vec![
        Change::Light(LightChange { on: Some(true), ..at(50) }),
        Change::Light(at(20)),
        Change::Light(on(false)),
    ];
    let mut peer = lamp()
        .carries_out(changes)
        .spoils("brightness", Strange::all())
        .spoils("max_brightness", vec![Strange::Bytes(b"0\n".to_vec()), Strange::Folder])
        .spoils("trigger", vec![Strange::Endless, Strange::Hanging]);
    let settings = settings(&peer, json!({ "leds": ["*"], "poll_s": 0.2 }));
    contract::live(adapter("sysfs_led"), &settings, &mut peer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thermometer_keeps_the_contract_live() {
    let wrong = [
        WARM.replace("YES", "NO"),
        WARM.replace("23125", "85000"),
        WARM.replace("23125", "-127000"),
        WARM.replace("t=23125", ""),
    ];
    let wrong = wrong.map(|text| Strange::Bytes(text.into_bytes())).into_iter();
    let mut peer = thermometer().spoils("w1_slave", wrong.chain(Strange::all()).collect());
    let settings = settings(&peer, json!({ "poll_s": 1 }));
    contract::live(adapter("onewire"), &settings, &mut peer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_keeps_the_contract_live() {
    let mut peer = bme280()
        .spoils("in_temp_input", Strange::all())
        .spoils("name", vec![Strange::Endless, Strange::Folder, Strange::Hanging]);
    let settings = settings(&peer, json!({ "poll_s": 1 }));
    contract::live(adapter("iio"), &settings, &mut peer).await.unwrap();
}

/// An adapter that runs and owns its device.
struct Rig {
    peer: SysfsPeer,
    device: DeviceId,
    running: Running,
}

impl Rig {
    async fn new(id: &str, peer: SysfsPeer, more: Value) -> Self {
        let running = Running::start(id, &settings(&peer, more));
        let device = contract::Peer::device(&peer);
        running.own(&device, true).await;
        Self { peer, device, running }
    }

    async fn end_of(&mut self, change: LightChange) -> Stage {
        self.running.change(&self.device, Change::Light(change)).await
    }

    async fn light(&mut self, wanted: impl Fn(&LightState) -> bool) {
        let fits = |state: &State| matches!(state, State::Light(light) if wanted(light));
        self.running.reports(&self.device, fits).await;
    }

    async fn measured(&mut self, key: &str, wanted: impl Fn(&Measurement) -> bool) {
        let pick = |reading: &Reading| match reading {
            Reading::Measured { values, .. } => values.get(key).filter(|value| wanted(value)).map(|_| ()),
            _ => None,
        };
        self.running.next("a measurement", pick).await;
    }

    async fn available(&mut self, wanted: Availability) -> String {
        self.running.available(&self.device, wanted).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_led_is_as_bright_as_it_was_when_it_is_turned_on_again() {
    let mut rig = Rig::new("sysfs_led", lamp(), json!({ "leds": ["lamp"] })).await;
    rig.light(|light| !light.on).await;
    let brightness = rig.peer.path("brightness");
    let steps = [
        (LightChange { on: Some(true), ..at(50) }, "128\n"),
        (on(false), "0\n"),
        (on(true), "128\n"),
        (at(20), "51\n"),
        (on(false), "0\n"),
        (at(80), "0\n"),
        (on(true), "204\n"),
    ];
    for (change, wanted) in steps {
        assert_eq!(rig.end_of(change.clone()).await, Stage::Confirmed, "{change:?}");
        assert_eq!(rig.peer.sysfs.text(&brightness), wanted, "{change:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_led_of_three_colours_uses_its_range_and_is_on_when_it_gives_light() {
    let files = [
        ("brightness", "31\n"),
        ("max_brightness", "31\n"),
        ("multi_index", "red green blue\n"),
        ("multi_intensity", "0 0 0\n"),
    ];
    let peer = SysfsPeer::new(LED, "class/leds", "lamp", &files).unwrap();
    let mut rig = Rig::new("sysfs_led", peer, json!({ "leds": ["lamp"] })).await;
    rig.light(|light| !light.on).await;
    let red = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..on(true) };
    for (change, intensities) in [(on(true), "31 31 31\n"), (red, "31 0 0\n"), (at(50), "31 0 0\n")] {
        assert_eq!(rig.end_of(change.clone()).await, Stage::Confirmed, "{change:?}");
        assert_eq!(rig.peer.sysfs.text(&rig.peer.path("multi_intensity")), intensities, "{change:?}");
    }
    assert_eq!(rig.peer.sysfs.text(&rig.peer.path("brightness")), "16\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_does_to_a_led_is_seen() {
    let mut rig = Rig::new("sysfs_led", lamp(), json!({ "leds": ["lamp"], "poll_s": 0.2 })).await;
    rig.light(|light| !light.on).await;
    let brightness = rig.peer.path("brightness");
    rig.peer.sysfs.put(&brightness, b"255\n");
    rig.light(|light| light.on && light.brightness == u16::MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_led_that_takes_no_value_is_no_success() {
    let mut rig = Rig::new("sysfs_led", lamp(), json!({ "leds": ["lamp"] })).await;
    rig.light(|light| !light.on).await;
    let brightness = rig.peer.path("brightness");
    rig.peer.sysfs.spoil(&brightness, &Strange::Forgetful);
    let ended = rig.end_of(on(true)).await;
    assert!(matches!(&ended, Stage::TimedOut { reason } if reason.contains("brightness")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thermometer_that_was_just_powered_on_is_unknown_until_it_measures() {
    let mut rig = Rig::new("onewire", thermometer(), json!({ "poll_s": 1 })).await;
    rig.measured("temperature", |value| *value == Measurement::Number(23.1)).await;
    let file = rig.peer.path("w1_slave");
    rig.peer.sysfs.put(&file, WARM.replace("23125", "85000").as_bytes());
    let power_on =
        |value: &Measurement| matches!(value, Measurement::Unknown(why) if why.contains("power-on"));
    rig.measured("temperature", power_on).await;
    rig.peer.sysfs.put(&file, WARM.replace("23125", "24500").as_bytes());
    rig.measured("temperature", |value| *value == Measurement::Number(24.5)).await;
    rig.peer.sysfs.put(&file, WARM.replace("YES", "NO").as_bytes());
    let checksum =
        |value: &Measurement| matches!(value, Measurement::Unknown(why) if why.contains("checksum"));
    rig.measured("temperature", checksum).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thermometer_that_is_pulled_is_lost_and_found_again() {
    let mut rig = Rig::new("onewire", thermometer(), json!({ "poll_s": 1 })).await;
    rig.available(Availability::Online).await;
    contract::Peer::silence(&mut rig.peer).await;
    let reason = rig.available(Availability::Offline).await;
    assert!(reason.contains(ROM), "{reason}");
    contract::Peer::recover(&mut rig.peer).await;
    rig.available(Availability::Online).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_hangs_is_told_and_does_not_keep_the_adapter_from_stopping() {
    let mut peer = thermometer();
    let file = peer.path("w1_slave");
    peer.sysfs.spoil(&file, &Strange::Hanging);
    let mut rig = Rig::new("onewire", peer, json!({ "poll_s": 1 })).await;
    let reason = rig.available(Availability::Offline).await;
    assert!(reason.contains("has not come back"), "{reason}");
    rig.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_fails_is_unknown_and_its_neighbours_are_not() {
    let mut rig = Rig::new("iio", bme280(), json!({ "poll_s": 1 })).await;
    rig.measured("pressure", |value| *value == Measurement::Number(1_013.3)).await;
    let file = rig.peer.path("in_pressure_input");
    rig.peer.sysfs.spoil(&file, &Strange::Folder);
    rig.measured(
        "pressure",
        |value| matches!(value, Measurement::Unknown(why) if why.contains("in_pressure_input")),
    )
    .await;
    let warmer = rig.peer.path("in_temp_input");
    rig.peer.sysfs.put(&warmer, b"22000\n");
    rig.measured("temperature", |value| *value == Measurement::Number(22.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_library_reads_the_same_thermometer() {
    let peer = thermometer();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/onewire.py");
    let folder = peer.sysfs.root().join("bus/w1/devices");
    let mut command = python().unwrap();
    let told = command.arg(script).arg(folder).stdin(Stdio::null()).output().await.unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(text.trim(), "DS18B20 0316a2794cff 23.125", "{}", String::from_utf8_lossy(&told.stderr));
}
