//! Which devices announcements make, and what those tell.

use super::*;
use crate::model::{ColorMode, SensorKind};

#[test]
fn a_zigbee_bulb_becomes_a_light_with_what_it_measures() {
    let mut world = World::new();
    world.announce("light/0x0017880104e45517/light", &zigbee_bulb());
    world.announce("sensor/0x0017880104e45517/power", &zigbee_sensor("power", json!({
        "unit_of_measurement": "W", "device_class": "power", "state_class": "measurement", "suggested_display_precision": 1
    })));
    world.announce(
        "sensor/0x0017880104e45517/linkquality",
        &zigbee_sensor("linkquality", json!({ "enabled_by_default": false })),
    );
    world.announce(
        "button/0x0017880104e45517/identify",
        &zigbee_sensor(
            "identify",
            json!({
                "entity_category": "config", "command_topic": "zigbee2mqtt/bulb/set"
            }),
        ),
    );
    world.announce("update/0x0017880104e45517/update", &zigbee_sensor("update", json!({})));
    assert!(world.found().is_empty(), "the others of it may come");
    world.wait(ms(400));
    let found = world.found();
    assert_eq!(found.keys().collect::<Vec<_>>(), [BULB]);
    let bulb = &found[BULB];
    assert_eq!(
        (bulb.name.as_str(), bulb.manufacturer.as_str(), bulb.firmware.as_deref()),
        ("bulb", "Philips", Some("1.93.11"))
    );
    let Capabilities::Light(can) = &bulb.capabilities else { panic!() };
    assert!(can.color.is_some() && can.color_temperature.is_some() && can.effects.len() == 3);
    assert_eq!(bulb.sensors.keys().collect::<Vec<_>>(), ["power"]);
    assert_eq!(bulb.sensors["power"].kind, SensorKind::Numeric { unit: "W".to_owned(), decimals: 1 });

    world.own(BULB);
    assert!(world.availability(BULB).is_none(), "nothing was said of it yet");
    let asked: Vec<&Sent> = world.sent.iter().filter(|sent| sent.topic == "zigbee2mqtt/bulb/get").collect();
    assert_eq!(asked.len(), 1, "{:?}", world.sent);
    world.message(
        "zigbee2mqtt/bulb",
        r#"{"state":"ON","brightness":254,"color_mode":"color_temp","color_temp":370,"power":4.56}"#,
    );
    let (State::Light(state), None) = world.state(BULB).unwrap() else { panic!() };
    assert_eq!(
        (state.on, state.brightness, state.color),
        (true, u16::MAX, ColorMode::Temperature { kelvin: 2_703 })
    );
    assert_eq!(world.measured(BULB, "power"), Some(Measurement::Number(4.6)));

    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    assert!(world.availability(BULB).is_none(), "all must say so");
    world.retained("zigbee2mqtt/bulb/availability", r#"{"state":"online"}"#);
    assert_eq!(world.availability(BULB).unwrap().0, Availability::Online);
    world.message("zigbee2mqtt/bridge/state", r#"{"state":"offline"}"#);
    let (availability, reason) = world.availability(BULB).unwrap();
    assert!(availability == Availability::Offline && reason.contains("zigbee2mqtt/bridge/state"), "{reason}");
}

#[test]
fn a_device_that_never_says_that_it_is_there_is_offline_with_a_reason() {
    let mut world = World::new();
    world.announce("light/0x0017880104e45517/light", &zigbee_bulb());
    world.wait(ms(400));
    world.own(BULB);
    world.wait(ms(5_000));
    let (availability, reason) = world.availability(BULB).unwrap();
    assert!(
        availability == Availability::Offline && reason.contains("zigbee2mqtt/bulb/availability"),
        "{reason}"
    );
}

/// A plug of two relays as Tasmota announced it, with short names and a base topic.
#[test]
fn a_tasmota_plug_of_two_relays_becomes_two_switches_and_a_sensor() {
    let mut world = World::new();
    let relay = |number: u8| {
        json!({
            "name": format!("Relay {number}"), "stat_t": "~tele/STATE", "avty_t": "~tele/LWT", "pl_avail": "Online",
            "pl_not_avail": "Offline", "cmd_t": format!("~cmnd/POWER{number}"), "pl_off": "OFF", "pl_on": "ON",
            "val_tpl": format!("{{{{value_json.POWER{number}}}}}"), "uniq_id": format!("1A2B3C_RL_{number}"),
            "~": "plug/", "dev": { "ids": ["1A2B3C"] }
        })
    };
    world.announce("switch/1A2B3C_RL_1", &relay(1));
    world.announce("switch/1A2B3C_RL_2", &relay(2));
    for (key, unit, class) in [("Power", "W", "power"), ("Total", "kWh", "energy")] {
        world.announce(&format!("sensor/1A2B3C_ENERGY_{key}"), &json!({
            "name": format!("Plug ENERGY {key}"), "stat_t": "~tele/SENSOR", "avty_t": "~tele/LWT", "pl_avail": "Online",
            "pl_not_avail": "Offline", "uniq_id": format!("1A2B3C_ENERGY_{key}"), "~": "plug/",
            "dev": { "ids": ["1A2B3C"], "name": "Plug", "mdl": "NOUS A1T", "sw": "14.2.0", "mf": "Tasmota" },
            "unit_of_meas": unit, "dev_cla": class, "frc_upd": true, "val_tpl": format!("{{{{value_json['ENERGY'].{key}}}}}")
        }));
    }
    world.wait(ms(400));
    let found = world.found();
    let ids: Vec<&String> = found.keys().collect();
    assert_eq!(ids, ["mqtt-1a2b3c", "mqtt-1a2b3c-rl-1", "mqtt-1a2b3c-rl-2"]);
    assert_eq!(found["mqtt-1a2b3c-rl-1"].capabilities, Capabilities::Switch);
    assert_eq!(found["mqtt-1a2b3c"].sensors.keys().collect::<Vec<_>>(), ["power", "total"]);

    let relay = "mqtt-1a2b3c-rl-2";
    world.own(relay);
    world.own("mqtt-1a2b3c");
    world.retained("plug/tele/LWT", "Online");
    world.message("plug/tele/STATE", r#"{"Time":"2026-11-29T13:00:00","POWER1":"ON","POWER2":"OFF"}"#);
    world.message("plug/tele/SENSOR", r#"{"ENERGY":{"Total":1.357,"Power":42}}"#);
    assert_eq!(world.state(relay).unwrap().0, State::Switch { on: false });
    assert_eq!(world.measured("mqtt-1a2b3c", "total"), Some(Measurement::Number(1.36)));
    assert_eq!(world.availability("mqtt-1a2b3c").unwrap().0, Availability::Online);
}

/// A node as ESPHome announces it: a topic for each thing, everything kept by the broker.
#[test]
fn an_esphome_node_becomes_a_light_with_its_sensors() {
    let mut world = World::new();
    let device = json!({ "ids": "a4cf12f03246", "name": "desk", "sw": "esphome v2026.7.0", "mdl": "nodemcuv2", "mf": "Espressif" });
    world.announce("light/desk/strip", &json!({
        "schema": "json", "sup_clrm": ["rgb"], "brightness": true, "effect": true, "fx_list": ["None", "Rainbow"],
        "name": "Strip", "stat_t": "desk/light/strip/state", "cmd_t": "desk/light/strip/command",
        "avty_t": "desk/status", "uniq_id": "a4cf12f03246-light-strip", "dev": device
    }));
    world.announce("binary_sensor/desk/motion", &json!({
        "dev_cla": "motion", "name": "Motion", "stat_t": "desk/binary_sensor/motion/state", "avty_t": "desk/status",
        "uniq_id": "ESPbinary_sensormotion", "dev": device, "off_dly": 30
    }));
    world.announce("sensor/desk/uptime", &json!({
        "ent_cat": "diagnostic", "unit_of_meas": "s", "stat_t": "desk/sensor/uptime/state", "avty_t": "desk/status",
        "uniq_id": "ESPsensoruptime", "dev": device, "exp_aft": 120
    }));
    world.announce("button/desk/restart", &json!({
        "ent_cat": "config", "name": "Restart", "cmd_t": "desk/button/restart/command", "uniq_id": "ESPbuttonrestart", "dev": device
    }));
    world.wait(ms(400));
    let found = world.found();
    let strip = "mqtt-a4cf12f03246-light-strip";
    assert_eq!(found.keys().collect::<Vec<_>>(), [strip], "settings are no devices");
    assert_eq!(found[strip].name, "desk Strip");
    assert!(found[strip].sensors["uptime"].diagnostic);

    world.own(strip);
    world.retained("desk/status", "online");
    world.retained("desk/light/strip/state", r#"{"state":"ON","brightness":128,"color_mode":"rgb","color":{"r":255,"g":0,"b":0},"effect":"Rainbow"}"#);
    let (State::Light(state), _) = world.state(strip).unwrap() else { panic!() };
    assert_eq!(state.effect.as_deref(), Some("Rainbow"));
    world.message("desk/binary_sensor/motion/state", "ON");
    world.message("desk/sensor/uptime/state", "12");
    assert_eq!(world.measured(strip, "motion"), Some(Measurement::Truth(true)));
    world.wait(ms(31_000));
    assert_eq!(world.measured(strip, "motion"), Some(Measurement::Truth(false)));
    assert_eq!(world.measured(strip, "uptime"), Some(Measurement::Number(12.0)));
    world.wait(ms(100_000));
    let Some(Measurement::Unknown(why)) = world.measured(strip, "uptime") else { panic!() };
    assert!(why.contains("120 s"), "{why}");
    world.message("desk/sensor/uptime/state", "nan");
    assert!(matches!(world.measured(strip, "uptime"), Some(Measurement::Unknown(_))));
}

#[test]
fn a_device_that_is_announced_as_one_is_taken_apart_and_put_together() {
    let mut world = World::new();
    let body = json!({
        "dev": { "ids": "ea334450", "name": "Kitchen", "mf": "Bla" }, "o": { "name": "bla2mqtt", "sw": "2.1" },
        "cmps": {
            "climate_temperature": { "p": "sensor", "device_class": "temperature", "unit_of_measurement": "°C", "value_template": "{{ value_json.temperature }}", "unique_id": "temp01ae_t" },
            "climate_humidity": { "p": "sensor", "device_class": "humidity", "unit_of_measurement": "%", "value_template": "{{ value_json.humidity }}", "unique_id": "temp01ae_h" },
            "bla": { "p": "device_automation", "automation_type": "trigger", "payload": "x", "topic": "t", "type": "button_short_press", "subtype": "button_1" }
        },
        "state_topic": "sensorBedroom/state", "qos": 2
    });
    world.announce("device/ea334450", &body);
    world.wait(ms(400));
    let device = "mqtt-ea334450";
    assert_eq!(world.found()[device].sensors.keys().collect::<Vec<_>>(), ["humidity", "temperature"]);
    assert_eq!(world.found()[device].capabilities, Capabilities::Sensor);
    world.own(device);
    world.message("sensorBedroom/state", r#"{"temperature":21.27,"humidity":"48"}"#);
    assert_eq!(world.measured(device, "temperature"), Some(Measurement::Number(21.27)));
    assert_eq!(world.measured(device, "humidity"), Some(Measurement::Number(48.0)));

    // A component that holds nothing but its platform is gone, and so is a device without any.
    let mut less = body.clone();
    less["cmps"]["climate_humidity"] = json!({ "p": "sensor" });
    world.announce("device/ea334450", &less);
    world.wait(ms(400));
    assert_eq!(world.found()[device].sensors.keys().collect::<Vec<_>>(), ["climate_temperature"]);
    world.retained("homeassistant/device/ea334450/config", "");
    world.wait(ms(400));
    assert!(world.found().is_empty());
    assert!(!world.listens.contains(&"sensorBedroom/state".to_owned()));
}

#[test]
fn an_announcement_that_is_taken_back_takes_the_device_with_it() {
    let mut world = with_bulb();
    world.ask(BULB, 1, light(json!({ "on": true })));
    world.retained("homeassistant/light/0x0017880104e45517/light/config", "");
    world.wait(ms(400));
    assert!(world.found().is_empty());
    assert!(
        matches!(&world.stages(1)[..], [Stage::Sent, Stage::Failed { reason }] if reason.contains("taken back"))
    );
    assert!(!world.listens.iter().any(|topic| topic.starts_with("zigbee2mqtt/")), "{:?}", world.listens);
}

#[test]
fn a_second_that_acts_takes_the_sensors_to_a_device_of_their_own() {
    let mut world = with_bulb();
    world.announce(
        "sensor/0x0017880104e45517/power",
        &zigbee_sensor("power", json!({ "unit_of_measurement": "W" })),
    );
    world.wait(ms(400));
    assert_eq!(world.found()[BULB].sensors.len(), 1);
    world.announce(
        "switch/0x0017880104e45517/switch",
        &zigbee_sensor("switch", json!({ "command_topic": "zigbee2mqtt/bulb/set" })),
    );
    world.wait(ms(400));
    let found = world.found();
    assert_eq!(found.len(), 3);
    assert!(found[BULB].sensors.is_empty());
    assert_eq!(found["mqtt-zigbee2mqtt-0x0017880104e45517"].sensors.len(), 1);
    assert!(world.state(BULB).is_none());
}

#[test]
fn a_broker_that_is_gone_makes_all_stale_and_its_return_makes_them_listen_again() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.driver.disconnected(world.now, "the connection with the broker 192.0.2.1:1883 is lost: it is off");
    world.settle();
    let (availability, reason) = world.availability(BULB).unwrap();
    assert!(availability == Availability::Stale && reason.contains("192.0.2.1:1883"), "{reason}");
    world.listens.clear();
    world.driver.connected(world.now);
    world.settle();
    for topic in [
        "homeassistant/+/+/config",
        "homeassistant/+/+/+/config",
        "zigbee2mqtt/bulb",
        "zigbee2mqtt/bulb/availability",
    ] {
        assert!(world.listens.contains(&topic.to_owned()), "{topic} {:?}", world.listens);
    }
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    world.retained("zigbee2mqtt/bulb/availability", r#"{"state":"online"}"#);
    assert_eq!(world.availability(BULB).unwrap().0, Availability::Online);
}

/// Another bulb of the same bridge.
fn second_bulb() -> Value {
    let text = zigbee_bulb().to_string().replace("0x0017880104e45517", "0x00178801aaaaaaaa");
    serde_json::from_str(&text.replace("zigbee2mqtt/bulb", "zigbee2mqtt/other")).unwrap()
}

const SECOND: &str = "mqtt-0x00178801aaaaaaaa-light-zigbee2mqtt";

fn was_offline(world: &World, device: &str) -> bool {
    world.readings.iter().any(|reading| {
        matches!(reading, Reading::Availability { device: of, availability: Availability::Offline, .. } if of.as_str() == device)
    })
}

#[test]
fn a_device_that_is_announced_later_gets_what_the_broker_keeps_at_topics_that_are_listened_to() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.wait(ms(60_000));
    world.listens.clear();
    world.announce("light/0x00178801aaaaaaaa/light", &second_bulb());
    world.wait(ms(400));
    world.own(SECOND);
    let again = world.listens.iter().filter(|topic| *topic == "zigbee2mqtt/bridge/state").count();
    assert_eq!(again, 1, "{:?}", world.listens);
    world.wait(ms(1_000));
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    world.retained("zigbee2mqtt/other/availability", r#"{"state":"online"}"#);
    assert_eq!(world.availability(SECOND).unwrap().0, Availability::Online);
    assert!(!was_offline(&world, SECOND), "it has as long to say so as one that was there at the start");

    // What is told once more for another is not newer than what is known.
    world.announce(
        "sensor/0x0017880104e45517/power",
        &zigbee_sensor("power", json!({ "unit_of_measurement": "W" })),
    );
    world.wait(ms(400));
    world.retained("zigbee2mqtt/bulb", r#"{"state":"OFF","power":7}"#);
    assert_eq!(world.state(BULB).unwrap().0.is_on(), Some(true));
    assert_eq!(world.measured(BULB, "power"), Some(Measurement::Number(7.0)));
}

#[test]
fn what_is_known_outlives_an_announcement_that_changed() {
    let mut world = with_bulb();
    world.announce(
        "sensor/0x0017880104e45517/power",
        &zigbee_sensor("power", json!({ "unit_of_measurement": "W" })),
    );
    world.wait(ms(400));
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    world.retained("zigbee2mqtt/bulb/availability", r#"{"state":"online"}"#);
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":254,"power":7}"#);
    world.wait(ms(60_000));
    world.listens.clear();
    let before = world.readings.len();
    let mut renamed = zigbee_bulb();
    renamed["device"]["name"] = json!("Reading lamp");
    renamed["effect_list"] = json!(["blink"]);
    world.announce("light/0x0017880104e45517/light", &renamed);
    world.announce(
        "sensor/0x0017880104e45517/power",
        &zigbee_sensor("power", json!({ "unit_of_measurement": "W", "name": "Draw" })),
    );
    world.wait(ms(10_000));
    assert_eq!(world.found()[BULB].name, "Reading lamp");
    let more: Vec<&Reading> = world.readings[before..].iter().collect();
    assert!(matches!(more[..], [Reading::Found { .. }]), "{more:#?}");
    assert!(world.listens.is_empty(), "all was heard: {:?}", world.listens);
    assert_eq!(world.availability(BULB).unwrap().0, Availability::Online);

    // A sensor of another unit told nothing yet, and another topic of presence must be heard first.
    renamed["availability"] =
        json!([{ "topic": "zigbee2mqtt/bridge/state", "value_template": "{{ value_json.state }}" }]);
    world.announce("light/0x0017880104e45517/light", &renamed);
    world.announce(
        "sensor/0x0017880104e45517/power",
        &zigbee_sensor("power", json!({ "unit_of_measurement": "kW" })),
    );
    world.wait(ms(1_000));
    assert!(world.listens.contains(&"zigbee2mqtt/bridge/state".to_owned()), "{:?}", world.listens);
    assert!(world.listens.contains(&"zigbee2mqtt/bulb".to_owned()), "{:?}", world.listens);
    assert!(matches!(world.measured(BULB, "power"), Some(Measurement::Unknown(_))));
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    assert!(!was_offline(&world, BULB));
    assert_eq!(world.state(BULB).unwrap().0.is_on(), Some(true));
}

#[test]
fn a_device_that_comes_back_is_asked_what_it_shows_by_the_topic_of_its_commands() {
    let mut world = with_bulb();
    let outlet = |key: &str, command: &str| {
        zigbee_sensor(
            key,
            json!({
                "command_topic": command, "unique_id": key, "device": { "identifiers": [key] },
                "availability": [{ "topic": "zigbee2mqtt/bridge/state", "value_template": "{{ value_json.state }}" }]
            }),
        )
    };
    world.announce("switch/x/switch_l1", &outlet("state_l1", "zigbee2mqtt/strip/l1/set"));
    world.announce("switch/x/child_lock", &outlet("child_lock", "zigbee2mqtt/strip/set/child_lock"));
    world.announce("switch/x/permit", &outlet("permit", "zigbee2mqtt/bridge/request/permit_join"));
    world.wait(ms(400));
    for device in ["mqtt-state-l1", "mqtt-child-lock", "mqtt-permit"] {
        world.own(device);
    }
    let asked = |world: &mut World| -> Vec<String> {
        let sent = world.take_all().into_iter().filter(|sent| sent.topic.ends_with("/get"));
        let mut asked: Vec<String> = sent.map(|sent| format!("{} {}", sent.topic, sent.payload)).collect();
        asked.sort();
        asked
    };
    let bulb = r#"zigbee2mqtt/bulb/get {"brightness":"","color":{"x":"","y":""},"color_temp":"","state":""}"#;
    let all =
        [bulb, r#"zigbee2mqtt/strip/get {"child_lock":""}"#, r#"zigbee2mqtt/strip/l1/get {"state":""}"#];
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    assert_eq!(asked(&mut world), all);
    world.driver.disconnected(world.now, "gone");
    world.driver.connected(world.now);
    world.settle();
    assert_eq!(asked(&mut world), [""; 0], "who is there is not known yet");
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    world.retained("zigbee2mqtt/bulb/availability", r#"{"state":"online"}"#);
    assert_eq!(asked(&mut world), all);
}

#[test]
fn a_unique_id_is_unique_among_its_kind() {
    let mut world = World::new();
    let door = json!({ "state_topic": "door", "unique_id": "door", "device": { "identifiers": "d" } });
    world.announce("binary_sensor/door", &door);
    world.announce("sensor/door", &door);
    world.wait(ms(400));
    assert_eq!((world.found()["mqtt-d"].sensors.len(), world.driver.dropped().taken), (2, 0));
}
