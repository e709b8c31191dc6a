//! Messages as the documentation gives them, hostile ones, and the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::parts::Parts;
use super::wire::{self, Answer, Info};
use super::*;
use crate::contract;
use crate::http::Origin;
use crate::model::{
    Capabilities, ColorMode, Description, Gamut, LightChange, LightState, Measurement, SensorKind, State,
    Tolerance,
};

fn info() -> Info {
    // As General/DeviceInfo gives it.
    serde_json::from_value(json!({
        "name": "Hall", "id": "shellypro4pm-84cca87c1f90", "mac": "84CCA87C1F90", "model": "SPSW-004PE16EU", "gen": 2,
        "fw_id": "20241011-114455/1.4.4-g6d2a586", "ver": "1.4.4", "app": "Pro4PM", "auth_en": false, "auth_domain": null,
    }))
    .unwrap()
}

/// A status of ComponentsAndServices/Switch, Light, RGBW, CCT, EM, Temperature and others.
fn status() -> Value {
    json!({
        "switch:0": {
            "id": 0, "source": "WS_in", "output": false, "apower": 0.0, "voltage": 225.9, "current": 0.0, "freq": 49.9,
            "aenergy": { "total": 11_679.5, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1_654_511_972 },
            "temperature": { "tC": 53.3, "tF": 127.9 },
        },
        "switch:1": { "id": 1, "source": "init", "output": true },
        "light:0": { "id": 0, "source": "init", "output": false, "brightness": 50 },
        "rgb:0": { "id": 0, "output": true, "rgb": [255, 0, 0], "brightness": 100 },
        "rgbw:0": { "id": 0, "output": true, "rgb": [255, 0, 0], "brightness": 100, "white": 0 },
        "cct:0": { "id": 0, "output": true, "brightness": 50, "ct": 4_000 },
        "input:0": { "id": 0, "state": null },
        "input:1": { "id": 1, "state": true },
        "temperature:100": { "id": 100, "tC": null, "tF": null },
        "em:0": { "id": 0, "a_act_power": 951.2, "total_act_power": 2_484.8, "a_voltage": 240.2 },
        "emdata:0": { "id": 0, "total_act": 19_530.0, "total_act_ret": 0.0 },
        "smoke:0": { "id": 0, "alarm": true, "mute": false },
        "flood:0": { "id": 0, "alarm": false, "mute": false },
        "devicepower:0": { "id": 0, "battery": { "V": 5.07, "percent": 68 }, "external": { "present": false } },
        "cover:0": { "id": 0, "state": "stopped" },
        "wifi": { "sta_ip": "192.0.2.7", "status": "got ip", "ssid": "home", "rssi": -54 },
        "sys": { "mac": "84CCA87C1F90", "uptime": 10, "wakeup_period": 7_200 },
    })
}

fn config() -> Value {
    json!({
        "switch:0": { "id": 0, "name": "Pump" }, "cct:0": { "id": 0, "name": null, "ct_range": [2_700, 5_000] },
        "input:0": { "id": 0, "name": null, "type": "button" }, "input:1": { "id": 1, "name": "Door", "type": "switch" },
    })
}

fn parts() -> (Parts, Vec<Description>) {
    Parts::of(&info(), &config(), &status(), "192.0.2.7:80").unwrap()
}

fn device(devices: &[Description], id: &str) -> Description {
    devices
        .iter()
        .find(|device| device.id.as_str() == id)
        .cloned()
        .unwrap_or_else(|| panic!("{id} is not there"))
}

fn id(part: &str) -> DeviceId {
    DeviceId::new(format!("shelly-84cca87c1f90-{part}")).unwrap()
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
fn a_password_is_never_in_an_error() {
    let wrong = json!({ "password": format!("hunter2{}", "x".repeat(200)) });
    let error = (REGISTRATION.build)(&wrong).err().unwrap().to_string();
    assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
    assert!((REGISTRATION.build)(&json!({ "password": "" })).is_ok());
    let credentials = Credentials { user: "admin", password: Secret("hunter2".to_owned()) };
    assert!(!format!("{:?}", credentials.password).contains("hunter2"));
}

fn address(configured: bool) -> Address {
    Address { origin: Origin::plain("192.0.2.7", 80), configured }
}

fn refusal(realm: &str) -> Response {
    let mut headers = hyper::HeaderMap::new();
    let challenge = format!("Digest qop=\"auth\", realm=\"{realm}\", nonce=\"1\", algorithm=SHA-256");
    headers.insert("www-authenticate", challenge.parse().unwrap());
    Response { status: StatusCode::UNAUTHORIZED, headers, body: Vec::new() }
}

#[test]
fn a_challenge_is_answered_where_a_person_said_so_or_to_who_accepted_the_password() {
    let credentials = || Some(Credentials { user: "admin", password: Secret("hunter2".to_owned()) });
    let route = Route::default();
    let mut found = Rpc::new(&credentials(), &route, &address(false));
    let Err(Fault::Locked(why)) = found.challenged(&refusal("a")) else { panic!("it was answered") };
    assert!(why.contains("add its address") && !why.contains("hunter2"), "{why}");
    assert!(found.credentials().is_none());
    let mut named = Rpc::new(&credentials(), &route, &address(true));
    assert!(named.challenged(&refusal("a")).is_ok());
    named.move_to(address(false));
    assert!(named.challenged(&refusal("a")).is_err(), "nobody accepted it yet");
    named.accepted = true;
    named.move_to(address(false));
    assert!(named.challenged(&refusal("a")).is_ok());
    let mut without = Rpc::new(&None, &route, &address(true));
    assert!(
        matches!(without.challenged(&refusal("a")), Err(Fault::Locked(why)) if why.contains("set \"password\""))
    );
}

#[test]
fn another_device_that_asks_for_the_password_gets_no_answer() {
    let credentials = Some(Credentials { user: "admin", password: Secret("hunter2".to_owned()) });
    let mut rpc = Rpc::new(&credentials, &Route::default(), &address(true));
    rpc.challenge = Some(rpc.challenged(&refusal("shellyplus1-a8032ab12345")).unwrap());
    rpc.challenge = Some(rpc.challenged(&refusal("shellyplus1-a8032ab12345")).unwrap());
    assert!(matches!(rpc.challenged(&refusal("shellyplus1-000000000000")), Err(Fault::Failed(_))));
}

#[test]
fn a_status_of_another_device_is_not_taken_in() {
    let mut rpc = Rpc::new(&None, &Route::default(), &address(true));
    let told =
        |mac: &str| json!({ "method": "NotifyFullStatus", "params": { "sys": { "mac": mac } } }).to_string();
    assert!(rpc.told(&told("A8032AB12345")).is_ok());
    assert_eq!(rpc.told(&told("000000000000")), Err(Fault::Other("000000000000".to_owned())));
    assert!(
        rpc.told("{\"method\":\"NotifyStatus\",\"params\":{}}").is_ok(),
        "what changed need not say whose it is"
    );
}

#[test]
fn each_channel_is_a_device_and_the_rest_is_one_more() {
    let (_, devices) = parts();
    let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(
        ids,
        ["cct-0", "input-0", "light-0", "rgb-0", "rgbw-0", "switch-0", "switch-1"]
            .map(|part| format!("shelly-84cca87c1f90-{part}"))
            .iter()
            .map(String::as_str)
            .chain(["shelly-84cca87c1f90"])
            .collect::<Vec<_>>()
    );
    let pump = device(&devices, "shelly-84cca87c1f90-switch-0");
    assert_eq!((pump.name.as_str(), pump.model.as_str()), ("Pump", "Pro4PM (SPSW-004PE16EU)"));
    let keys: Vec<&str> = pump.sensors.keys().map(String::as_str).collect();
    assert_eq!(keys, ["current", "energy", "frequency", "power", "temperature", "voltage"]);
    assert_eq!(device(&devices, "shelly-84cca87c1f90-switch-1").name, "Hall switch 1");
    assert!(device(&devices, "shelly-84cca87c1f90-switch-1").sensors.is_empty());
    let Capabilities::Light(white) = device(&devices, "shelly-84cca87c1f90-cct-0").capabilities else {
        panic!()
    };
    assert_eq!(white.color_temperature.unwrap().max_k, 5_000);
    let Capabilities::Button(bell) = device(&devices, "shelly-84cca87c1f90-input-0").capabilities else {
        panic!()
    };
    assert!(!bell.press && bell.events.contains(&"double_push".to_owned()));
    let rest = device(&devices, "shelly-84cca87c1f90");
    assert_eq!(rest.capabilities, Capabilities::Sensor);
    assert!(rest.note.unwrap().contains("cover"));
    let keys: Vec<&str> = rest.sensors.keys().map(String::as_str).collect();
    let wanted = [
        "battery",
        "energy",
        "energy_returned",
        "flood",
        "input_1",
        "power",
        "power_l1",
        "signal_strength",
        "smoke",
        "temperature_100",
        "voltage_l1",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(rest.sensors["smoke"].kind, SensorKind::Binary);
    assert!(rest.sensors["battery"].diagnostic);
    assert_eq!(wire::sleeps(&status()), Some(Duration::from_secs(7_200)));
}

#[test]
fn what_is_not_understood_takes_no_place_of_what_is() {
    let mut status = status();
    for number in 200..300 {
        status[format!("bthomesensor:{number}")] = json!({ "id": number, "value": 1 });
    }
    let (_, devices) = Parts::of(&info(), &config(), &status, "").unwrap();
    assert_eq!(devices.len(), parts().1.len());
    device(&devices, "shelly-84cca87c1f90-switch-1");
}

#[test]
fn a_status_becomes_states_and_measurements_in_our_units() {
    let (mut parts, _) = parts();
    let snapshot = parts.take(&status(), true).unwrap();
    assert_eq!(snapshot.states[&id("switch-0")], State::Switch { on: false });
    let plain = |on, brightness, color| State::Light(LightState::plain(on, brightness, color));
    assert_eq!(snapshot.states[&id("light-0")], plain(false, 32_768, ColorMode::None));
    assert_eq!(snapshot.states[&id("cct-0")], plain(true, 32_768, ColorMode::Temperature { kelvin: 4_000 }));
    let measured = &snapshot.measured[&id("switch-0")];
    assert_eq!(measured["energy"], Measurement::Number(11_679.5 * 0.001));
    assert_eq!(measured["temperature"], Measurement::Number(53.3));
    let rest = &snapshot.measured[&DeviceId::new("shelly-84cca87c1f90").unwrap()];
    assert_eq!(rest["smoke"], Measurement::Truth(true));
    assert_eq!(rest["input_1"], Measurement::Truth(true));
    assert!(matches!(rest["temperature_100"], Measurement::Unknown(_)));
    assert_eq!(rest["battery"], Measurement::Number(68.0));
}

#[test]
fn what_changed_is_laid_over_what_was_known() {
    let (mut parts, _) = parts();
    parts.take(&status(), true);
    // As General/Notifications gives it.
    let frame = json!({
        "src": "shellypro4pm-84cca87c1f90", "dst": "hearth", "method": "NotifyStatus",
        "params": { "ts": 1_631_186_545.04, "light:0": { "id": 0, "output": true, "source": "button" } },
    });
    let Some(Answer::Status { status, is_whole: false }) = wire::read(&frame.to_string()) else { panic!() };
    let snapshot = parts.take(&status, false).unwrap();
    let plain = LightState::plain(true, 32_768, ColorMode::None);
    assert_eq!(snapshot.states[&id("light-0")], State::Light(plain));
    assert_eq!(snapshot.states.len(), 1);
    assert!(!snapshot.is_whole);
}

#[test]
fn a_light_that_fades_tells_its_state_when_it_arrives() {
    let (mut parts, _) = parts();
    parts.take(&status(), true);
    let fading = json!({ "light:0": { "output": true, "brightness": 20, "transition": { "duration": 3 } } });
    assert!(parts.take(&fading, false).unwrap().states.is_empty());
    assert!(!parts.take(&json!({ "light:0": { "brightness": 80 } }), false).unwrap().states.is_empty());
}

#[test]
fn a_push_is_an_event_of_its_button() {
    let (parts, _) = parts();
    let event =
        |component: &str, event: &str| json!({ "component": component, "id": 0, "event": event, "ts": 1.0 });
    let frame = json!({ "method": "NotifyEvent", "params": { "ts": 1.0, "events": [
        event("input:0", "btn_down"), event("input:0", "single_push"), event("input:1", "single_push"),
        event("sys", "config_changed"), 7,
    ] } });
    let Some(Answer::Events(events)) = wire::read(&frame.to_string()) else { panic!() };
    let snapshot = parts.events(&events);
    assert_eq!(snapshot.events, [(id("input-0"), "single_push".to_owned())]);
    assert!(snapshot.is_changed);
}

#[test]
fn a_change_becomes_the_method_of_its_component() {
    let (parts, _) = parts();
    let change = |part: &str, change| parts.change(&id(part), &change).unwrap();
    assert_eq!(
        change("switch-1", Change::Switch { on: true }),
        ("Switch.Set", json!({ "id": 1, "on": true }))
    );
    let dim =
        LightChange { on: Some(true), brightness: Some(1), transition_ms: 100, ..LightChange::default() };
    let wanted = json!({ "id": 0, "on": true, "brightness": 1, "transition_duration": 0.5 });
    assert_eq!(change("light-0", Change::Light(dim)), ("Light.Set", wanted));
    let white =
        LightChange { color: Some(ColorMode::Temperature { kelvin: 3_000 }), ..LightChange::default() };
    assert_eq!(change("cct-0", Change::Light(white)), ("CCT.Set", json!({ "id": 0, "ct": 3_000 })));
    let red = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..LightChange::default() };
    let (method, told) = change("rgbw-0", Change::Light(red));
    assert_eq!((method, told["white"].clone()), ("RGBW.Set", json!(0)));
    assert!(parts.change(&id("cover-0"), &Change::Press).is_err());
}

#[test]
fn a_device_of_another_generation_is_left_alone_with_the_reason() {
    let why = |value: Value| serde_json::from_value::<Info>(value).unwrap().identity().unwrap_err();
    // As the documentation of the first generation gives it.
    let first =
        json!({ "type": "SHSW-21", "mac": "5ECF7F1632E8", "auth": true, "fw": "20161223", "num_outputs": 2 });
    assert!(why(first).contains("generation 1"));
    assert!(why(json!({ "mac": "5ECF7F1632E8" })).contains("does not say"));
    assert!(why(json!({ "mac": "nonsense", "gen": 3 })).contains("MAC"));
}

#[test]
fn the_challenge_of_a_frame_is_answered_as_the_documentation_says() {
    let refusal = |nonce: Value, algorithm: &str| {
        let challenge = json!({
            "auth_type": "digest", "nonce": nonce, "nc": 1, "realm": "shellypro4pm-f008d1d8b8b8", "algorithm": algorithm,
        });
        let frame = json!({ "id": 1, "src": "shellypro4pm-f008d1d8b8b8", "dst": "user_1",
            "error": { "code": 401, "message": challenge.to_string() } });
        wire::read(&frame.to_string()).unwrap()
    };
    let by = Credentials { user: "admin", password: Secret("mysecretpassword".to_owned()) };
    for nonce in [json!(1_625_038_762), json!("60dc2c69")] {
        let Answer::Challenged(challenge) = refusal(nonce.clone(), "SHA-256") else { panic!() };
        let answer = challenge.answer(&by).unwrap();
        assert_eq!(
            (&answer["nonce"], &answer["username"]),
            (&nonce, &json!("admin")),
            "the nonce keeps its type"
        );
        assert_eq!(answer["response"].as_str().unwrap().len(), 64);
        assert!(!answer.to_string().contains("mysecret"));
    }
    let Answer::Challenged(challenge) = refusal(json!(1), "MD5") else { panic!() };
    assert!(challenge.answer(&by).is_err());
    let bare = r#"{"id":1,"error":{"code":401,"message":"no"}}"#;
    assert!(matches!(wire::read(bare), Some(Answer::Refused(_))));
}

#[test]
fn an_answer_is_a_result_of_its_request_or_an_error() {
    let from = Origin::plain("192.0.2.7", 80);
    let result =
        |answer: Value| serde_json::from_value::<wire::Told>(answer).unwrap().result(7, "Switch.Set", &from);
    assert_eq!(result(json!({ "id": 7, "result": { "was_on": true } })), Ok(json!({ "was_on": true })));
    assert!(
        matches!(result(json!({ "id": 8, "result": {} })), Err(Fault::Failed(why)) if why.contains("another request"))
    );
    assert!(matches!(result(json!({ "id": 7 })), Err(Fault::Failed(_))));
    for refusal in [
        json!({ "id": 7, "error": { "code": -105, "message": "Argument 'id', value 9 not found!" } }),
        json!({ "code": -105, "message": "Argument 'id', value 9 not found!" }),
    ] {
        let Err(Fault::Rejected(why)) = result(refusal) else { panic!() };
        assert!(why.contains("192.0.2.7:80") && why.contains("-105") && why.contains("value 9"), "{why}");
    }
}

#[test]
fn no_message_makes_it_panic() {
    let frame = json!({ "method": "NotifyStatus", "params": status() }).to_string().into_bytes();
    let (mut parts, _) = parts();
    for message in contract::hostile_messages(&[frame]) {
        let Some(Answer::Status { status, is_whole }) =
            std::str::from_utf8(&message).ok().and_then(wire::read)
        else {
            continue;
        };
        parts.take(&status, is_whole);
        let _ = Parts::of(&info(), &config(), &status, "");
    }
    let many: Value = (0..1_000)
        .map(|number| (format!("switch:{number}"), json!({ "output": true })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert!(Parts::of(&info(), &Value::Null, &many, "").unwrap().1.len() <= 48);
}

proptest! {
    #[test]
    fn a_change_that_a_channel_carries_out_reads_back_as_asked(
        on: bool, brightness in 328_u16.., x: u16, y: u16, kelvin: u16, channel in 0_usize..4,
    ) {
        let (mut parts, devices) = parts();
        let part = ["light-0", "rgb-0", "rgbw-0", "cct-0"][channel];
        let Capabilities::Light(can) = device(&devices, id(part).as_str()).capabilities else { panic!() };
        let color = match (can.color, can.color_temperature) {
            (Some(_), _) => Some(ColorMode::Color(crate::model::Xy { x, y })),
            (_, Some(_)) => Some(ColorMode::Temperature { kelvin }),
            _ => None,
        };
        let change = LightChange { on: Some(on), brightness: Some(brightness), color, ..LightChange::default() };
        let change = Change::Light(can.fit(&change).unwrap());
        let (_, told) = parts.change(&id(part), &change).unwrap();
        let key = part.replace('-', ":");
        let mut after = status();
        for (name, value) in told.as_object().unwrap() {
            let name = if name == "on" { "output" } else { name };
            after[&key][name] = value.clone();
        }
        let shown = parts.take(&after, true).unwrap().states[&id(part)].clone();
        prop_assert!(change.matches(&shown, &Tolerance::default()), "{change:?} became {shown:?}");
    }
}
