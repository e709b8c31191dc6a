//! Messages as the documentation gives them, hostile ones, and the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::names::Names;
use super::wire::{self, Info, StateAndInfo};
use super::*;
use crate::contract;
use crate::model::{
    Capabilities, ColorMode, Gamut, KelvinRange, LightChange, LightState, Measurement, State, color,
};

/// The sample of the documentation (v0.8.4), with the members that later versions added.
fn sample(lc: Option<u8>, segments: &Value) -> Value {
    json!({
        "state": {
            "on": true, "bri": 127, "transition": 7, "ps": -1, "pl": -1,
            "nl": { "on": false, "dur": 60, "fade": true, "tbri": 0 }, "udpn": { "send": false, "recv": true },
            "mainseg": 0, "seg": segments,
        },
        "info": {
            "ver": "0.8.4", "vid": 1_903_252,
            "leds": { "count": 20, "rgbw": true, "pin": [2], "pwr": 1_250, "maxpwr": 65_000, "maxseg": 1, "lc": lc },
            "name": "WLED Light", "udpport": 21_324, "live": false, "fxcount": 80, "palcount": 47,
            "wifi": { "bssid": "00:00:5E:00:53:01", "signal": 100, "channel": 1 },
            "arch": "esp8266", "core": "2_4_2", "freeheap": 13_264, "uptime": 17_985, "opt": 127,
            "brand": "WLED", "product": "DIY light", "btype": "src", "mac": "60019423b441",
        }
    })
}

fn one_segment() -> Value {
    json!([{
        "start": 0, "stop": 20, "len": 20, "col": [[255, 160, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        "fx": 0, "sx": 127, "ix": 127, "pal": 0, "sel": true, "rev": false, "cln": -1,
    }])
}

fn read(value: &Value) -> StateAndInfo {
    serde_json::from_value(value.clone()).unwrap()
}

fn names() -> Names {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let effects = ["Solid", "Blink", "RSVD", "Chase", "-", "Chase", "Rain\nbow@!,Size"];
    Names::new(texts(&effects), texts(&["Default", "Party"]))
}

fn light(snapshot: &crate::lan::Snapshot, id: &str) -> LightState {
    match &snapshot.states[&DeviceId::new(id).unwrap()] {
        State::Light(light) => light.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let settings = json!({ "addresses": ["127.0.0.1:9"] });
    contract::shutdown(&REGISTRATION, &settings, Duration::from_millis(50)).await.unwrap();
}

#[test]
fn the_sample_of_the_documentation_is_described() {
    let both = read(&sample(None, &one_segment()));
    let devices = wire::describe(&both, &names(), "192.0.2.1:80").unwrap();
    assert_eq!(devices.len(), 1, "one segment is the whole");
    let device = &devices[0];
    assert_eq!((device.id.as_str(), device.name.as_str()), ("wled-60019423b441", "WLED Light"));
    assert_eq!((device.model.as_str(), device.firmware.as_deref()), ("DIY light", Some("0.8.4")));
    let Capabilities::Light(can) = &device.capabilities else { panic!() };
    assert!(
        can.brightness && can.transition && can.color == Some(Gamut::SRGB) && can.color_temperature.is_none()
    );
    assert_eq!(can.effects, ["Blink", "Chase", "Chase (5)", "Rainbow"], "no reserved ones, and each once");
    assert_eq!(can.palettes, ["Default", "Party"]);
    assert_eq!(device.sensors.keys().collect::<Vec<_>>(), ["current", "signal_quality"]);
    assert!(device.sensors.values().all(|sensor| sensor.diagnostic));
}

#[test]
fn the_sample_of_the_documentation_is_read() {
    let both = read(&sample(None, &one_segment()));
    let snapshot = wire::snapshot(&both, &names()).unwrap();
    let shown = light(&snapshot, "wled-60019423b441");
    assert!(shown.on && shown.brightness == 127 * 257 && shown.effect.is_none());
    assert_eq!(shown.palette.as_deref(), Some("Default"));
    let ColorMode::Color(xy) = shown.color else { panic!() };
    assert_eq!(crate::model::color::xy_to_rgb(xy), [255, 160, 0]);
    let measured = &snapshot.measured[&DeviceId::new("wled-60019423b441").unwrap()];
    assert_eq!(measured["current"], Measurement::Number(1.25));
}

#[test]
fn capabilities_follow_the_bits_of_the_documentation() {
    let whites = Some(KelvinRange { min_k: 2_700, max_k: 6_500 });
    let table = [
        (0, false, None),
        (1, true, None),
        (2, false, None),
        (3, true, None),
        (5, true, None),
        (6, false, whites),
        (7, true, whites),
    ];
    for (lc, color, temperature) in table {
        let both = read(&sample(Some(lc), &one_segment()));
        let devices = wire::describe(&both, &names(), "").unwrap();
        let Capabilities::Light(can) = &devices[0].capabilities else { panic!() };
        assert_eq!((can.color.is_some(), can.color_temperature), (color, temperature), "lc {lc}");
    }
}

#[test]
fn a_white_is_told_in_the_range_that_the_board_uses() {
    let mut segments = one_segment();
    segments[0]["cct"] = json!(0);
    segments[0]["col"][0] = json!([0, 0, 0, 255]);
    let id = DeviceId::new("wled-60019423b441").unwrap();
    let white =
        |kelvin| LightChange { color: Some(ColorMode::Temperature { kelvin }), ..LightChange::default() };
    let both = read(&sample(Some(7), &segments));
    let shown = light(&wire::snapshot(&both, &names()).unwrap(), id.as_str());
    assert_eq!(shown.color, ColorMode::Temperature { kelvin: 2_700 });
    let told = wire::change(&both, &names(), &id, &white(6_500)).unwrap();
    assert_eq!(told, json!({ "tt": 0, "seg": [{ "id": 0, "cct": 255, "col": [[0, 0, 0, 255]] }] }));
    segments[0]["cct"] = json!(4_000);
    let both = read(&sample(Some(7), &segments));
    let told = wire::change(&both, &names(), &id, &white(3_210)).unwrap();
    assert_eq!(told["seg"][0]["cct"], json!(3_210));
}

#[test]
fn the_whole_is_told_with_all_its_segments_and_a_segment_alone() {
    let mut segments = json!([one_segment()[0], one_segment()[0], one_segment()[0]]);
    segments[1]["n"] = json!("Left");
    segments[2]["stop"] = json!(0); // not active
    let mut both = sample(Some(1), &segments);
    let (whole, left) =
        (DeviceId::new("wled-60019423b441").unwrap(), DeviceId::new("wled-60019423b441-1").unwrap());
    let devices = wire::describe(&read(&both), &names(), "").unwrap();
    let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["wled-60019423b441", "wled-60019423b441-0", "wled-60019423b441-1"]);
    assert_eq!(devices[2].name, "WLED Light Left");
    let change = LightChange {
        on: Some(true),
        brightness: Some(1),
        effect: Some("Chase (5)".into()),
        transition_ms: 1_250,
        ..LightChange::default()
    };
    let told = wire::change(&read(&both), &names(), &whole, &change).unwrap();
    assert_eq!(
        told,
        json!({ "tt": 12, "on": true, "bri": 1, "seg": [{ "id": 0, "fx": 5 }, { "id": 1, "fx": 5 }] })
    );
    let told = wire::change(&read(&both), &names(), &left, &change).unwrap();
    assert_eq!(told, json!({ "tt": 12, "seg": [{ "id": 1, "on": true, "bri": 1, "fx": 5 }] }));
    both["state"]["on"] = json!(false);
    let told = wire::change(&read(&both), &names(), &left, &change).unwrap();
    assert_eq!(told["on"], json!(true));
    assert_eq!(told["seg"][1], json!({ "id": 0, "on": false }), "the others stay dark");
}

#[test]
fn a_brightness_alone_switches_nothing_on_and_nothing_off() {
    let dim = LightChange { brightness: Some(color::from_byte(9)), ..LightChange::default() };
    let mut both = sample(Some(1), &json!([one_segment()[0], one_segment()[0]]));
    let (whole, second) =
        (DeviceId::new("wled-60019423b441").unwrap(), DeviceId::new("wled-60019423b441-1").unwrap());
    for on in [false, true] {
        both["state"]["on"] = json!(on);
        let told = wire::change(&read(&both), &names(), &whole, &dim).unwrap();
        assert_eq!(told, json!({ "tt": 0, "on": on, "bri": 9 }));
        both["state"]["seg"][1]["on"] = json!(on);
        let told = wire::change(&read(&both), &names(), &second, &dim).unwrap();
        assert_eq!(told, json!({ "tt": 0, "seg": [{ "id": 1, "on": on, "bri": 9 }] }));
    }
}

#[test]
fn the_capabilities_of_a_segment_are_found_by_its_place_among_those_that_have_leds() {
    // Segment 1 was deleted: the list has nothing in its place.
    let mut segments = json!([one_segment()[0], one_segment()[0], one_segment()[0]]);
    for (order, id) in [0, 2, 3].into_iter().enumerate() {
        segments[order]["id"] = json!(id);
    }
    let mut both = sample(Some(7), &segments);
    both["info"]["leds"]["seglc"] = json!([1, 2, 7]);
    let can = |both: &Value| -> Vec<(bool, bool)> {
        let devices = wire::describe(&read(both), &names(), "").unwrap();
        let of = |device: &crate::model::Description| match &device.capabilities {
            Capabilities::Light(can) => (can.color.is_some(), can.color_temperature.is_some()),
            other => panic!("{other:?}"),
        };
        devices.iter().map(of).collect()
    };
    assert_eq!(can(&both), [(true, true), (true, false), (false, false), (true, true)]);
    // Later versions tell them with the segment.
    both["info"]["leds"]["seglc"] = json!([]);
    both["state"]["seg"][1]["lc"] = json!(1);
    assert_eq!(can(&both), [(true, true), (true, true), (true, false), (true, true)]);
}

#[test]
fn segments_that_were_all_switched_off_light_with_the_whole() {
    let mut segments = json!([one_segment()[0], one_segment()[0]]);
    (segments[0]["on"], segments[1]["on"]) = (json!(false), json!(false));
    let both = read(&sample(Some(1), &segments));
    let whole = DeviceId::new("wled-60019423b441").unwrap();
    assert!(!light(&wire::snapshot(&both, &names()).unwrap(), whole.as_str()).on);
    let on = LightChange { on: Some(true), ..LightChange::default() };
    let told = wire::change(&both, &names(), &whole, &on).unwrap();
    assert_eq!(told["seg"], json!([{ "id": 0, "on": true }, { "id": 1, "on": true }]));
}

#[test]
fn what_a_board_lacks_is_refused_with_the_name() {
    let both = read(&sample(Some(1), &one_segment()));
    let change = |effect: &str| LightChange { effect: Some(effect.into()), ..LightChange::default() };
    let whole = DeviceId::new("wled-60019423b441").unwrap();
    assert!(wire::change(&both, &names(), &whole, &change("RSVD")).unwrap_err().contains("RSVD"));
    let gone = DeviceId::new("wled-60019423b441-7").unwrap();
    assert!(wire::change(&both, &names(), &gone, &change("Blink")).unwrap_err().contains("-7"));
    let stop = wire::change(&both, &names(), &whole, &change("none")).unwrap();
    assert_eq!(stop["seg"][0]["fx"], json!(0));
}

#[test]
fn a_board_without_an_address_of_hardware_is_refused() {
    for mac in ["", "60019423b44", "60019423b4411", "60019423b44g", "../../../../"] {
        let info: Info = serde_json::from_value(json!({ "mac": mac })).unwrap();
        assert!(info.identity().is_err(), "{mac:?} was taken");
    }
    let info: Info = serde_json::from_value(json!({ "mac": "60:01:94:23:B4:41" })).unwrap();
    assert_eq!(info.identity().unwrap().hardware, "60019423b441");
}

#[test]
fn no_message_makes_it_panic() {
    let valid = [sample(Some(7), &one_segment()).to_string().into_bytes()];
    for message in contract::hostile_messages(&valid) {
        if let Ok(both) = serde_json::from_slice::<StateAndInfo>(&message) {
            let _ = wire::describe(&both, &names(), "");
            let _ = wire::snapshot(&both, &names());
        }
    }
    // More than any board has is cut.
    let many: Vec<Value> = (0..1_000).map(|_| one_segment()[0].clone()).collect();
    let both = read(&sample(Some(1), &json!(many)));
    assert!(wire::describe(&both, &names(), "").unwrap().len() <= 33);
    let strange = json!([{ "stop": 9, "col": ["FFAA00", "ä", []], "fx": 999, "pal": 999, "cct": 65_535 }]);
    let shown =
        light(&wire::snapshot(&read(&sample(Some(7), &strange)), &names()).unwrap(), "wled-60019423b441");
    assert_eq!(
        (shown.effect.as_deref(), shown.palette.as_deref()),
        (Some("effect 999"), Some("palette 999"))
    );
}

proptest! {
    #[test]
    fn a_change_that_a_board_carries_out_reads_back_as_asked(
        on: bool, brightness in 129_u16.., x: u16, y: u16, kelvin: u16, white: bool, lc in 0_u8..8,
    ) {
        let both = read(&sample(Some(lc), &one_segment()));
        let whole = DeviceId::new("wled-60019423b441").unwrap();
        let devices = wire::describe(&both, &names(), "").unwrap();
        let Capabilities::Light(can) = &devices[0].capabilities else { panic!() };
        let color = match (can.color, can.color_temperature) {
            (_, Some(_)) if white => Some(ColorMode::Temperature { kelvin }),
            (Some(_), _) => Some(ColorMode::Color(crate::model::Xy { x, y })),
            _ => None,
        };
        let change = LightChange { on: Some(on), brightness: Some(brightness), color, ..LightChange::default() };
        let change = can.fit(&change).unwrap();
        let told = wire::change(&both, &names(), &whole, &change).unwrap();
        let mut after = sample(Some(lc), &one_segment());
        (after["state"]["on"], after["state"]["bri"]) = (told["on"].clone(), told["bri"].clone());
        for (key, value) in told["seg"][0].as_object().into_iter().flatten() {
            after["state"]["seg"][0][key] = value.clone();
        }
        let shown = light(&wire::snapshot(&read(&after), &names()).unwrap(), whole.as_str());
        prop_assert!(change.matches(&shown, &crate::model::Tolerance::default()), "{change:?} became {shown:?}");
    }
}
