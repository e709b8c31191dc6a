//! What nobody well-behaved sends.

use proptest::prelude::*;

use super::*;
use crate::contract;

#[test]
fn an_announcement_does_not_take_over_what_another_has() {
    let mut world = with_bulb();
    let mut thief = zigbee_bulb();
    thief["command_topic"] = json!("evil/set");
    world.announce("light/evil/light", &thief);
    world.wait(ms(400));
    assert_eq!(world.driver.dropped().taken, 1);
    world.ask(BULB, 1, light(json!({ "on": true })));
    assert!(world.take_all().iter().all(|sent| !sent.topic.starts_with("evil")));
    assert_eq!(world.found().len(), 1);

    // Another unique id that makes the same id of a device.
    thief["unique_id"] = json!("0x0017880104e45517-light_zigbee2mqtt");
    thief["device"]["identifiers"] = json!(["another"]);
    world.announce("light/evil/light", &thief);
    world.wait(ms(400));
    assert_eq!(world.driver.dropped().taken, 2);
    world.wait(ms(200));
    world.ask(BULB, 2, light(json!({ "on": true })));
    assert!(world.take_all().iter().all(|sent| !sent.topic.starts_with("evil")));

    // When the first goes, what was refused is asked for again.
    thief["unique_id"] = zigbee_bulb()["unique_id"].clone();
    world.announce("light/evil/light", &thief);
    world.listens.clear();
    world.retained("homeassistant/light/0x0017880104e45517/light/config", "");
    world.wait(ms(600));
    assert!(world.listens.contains(&"homeassistant/+/+/config".to_owned()), "{:?}", world.listens);
    world.announce("light/evil/light", &thief);
    world.wait(ms(1_000));
    assert_eq!(world.found().len(), 1);
}

#[test]
fn one_of_another_kind_does_not_take_over_what_acts_either() {
    let body = |command: &str| json!({ "command_topic": command, "unique_id": "garage", "device": { "identifiers": "g" } });
    for kind in ["button", "light"] {
        let mut world = World::new();
        world.announce("switch/garage", &body("garage/set"));
        world.wait(ms(400));
        let known = world.found();
        assert_eq!(known.len(), 1);
        world.announce(&format!("{kind}/garage"), &body("evil/set"));
        world.wait(ms(600));
        assert_eq!((world.found(), world.driver.dropped().taken), (known, 1), "{kind}");
    }
}

#[test]
fn broken_announcements_change_nothing_and_are_counted() {
    let mut world = with_bulb();
    for broken in ["{", "[]", "null", "\"x\"", "{\"schema\":\"json\"", "\u{feff}{}", &"[".repeat(50_000)] {
        world.retained("homeassistant/light/0x0017880104e45517/light/config", broken);
        world.wait(ms(400));
    }
    assert_eq!(world.driver.dropped().malformed, 7);
    assert_eq!(world.found().len(), 1);
    world.driver.message(world.now, "homeassistant/light/x/y/config", &[0xff, 0xfe], true);
    world.driver.message(world.now, "zigbee2mqtt/bulb", &[0xff, 0xfe], false);
    assert_eq!(world.driver.dropped().malformed, 9);
    // One that says how it is commanded no more is no light any more.
    world.announce("light/0x0017880104e45517/light", &json!({ "unique_id": "x" }));
    world.wait(ms(400));
    assert!(world.found().is_empty());
}

#[test]
fn thousands_of_announcements_fill_a_table_and_no_more() {
    let mut world = World::new();
    for number in 0..5_000 {
        let body = json!({ "command_topic": format!("a/{number}"), "state_topic": format!("s/{number}"), "unique_id": format!("u{number}") });
        let topic = format!("homeassistant/switch/s{number}/config");
        world.driver.message(world.now, &topic, body.to_string().as_bytes(), true);
    }
    world.wait(ms(400));
    assert_eq!(world.driver.dropped().overflow, 5_000 - 2_048);
    assert_eq!(world.found().len(), 2_048);
}

/// The broker takes nothing for now, and somebody floods it.
#[test]
fn what_others_announce_does_not_pile_up_for_a_slow_broker() {
    let mut world = with_bulb();
    world.take_all();
    for number in 0..10_000 {
        let topic = format!("homeassistant/switch/s{}/config", number % 7);
        let body = json!({ "command_topic": "c", "state_topic": format!("s/{number}"), "unique_id": "u" })
            .to_string();
        for payload in [body.as_bytes(), b""] {
            world.driver.message(world.now, &topic, payload, false);
        }
        world.driver.message(world.now, "hearth/status", b"offline", false);
        world.now += ms(1);
        world.driver.handle_timeout(world.now);
    }
    assert!(world.driver.unsent() < 4_200, "{} wait", world.driver.unsent());
    // What matters is among it, and what was left again is not.
    let listened: Vec<String> = world.listens.clone();
    let deadline = world.now + ms(10_000);
    let change = light(json!({ "on": true }));
    let (device, command, by) = (id(BULB), command(1), String::new());
    world.driver.directive(world.now, Directive::Command { device, command, change, by, deadline });
    world.settle();
    assert!(world.sent.iter().any(|sent| sent.topic == "hearth/status" && sent.payload == "online"));
    assert!(world.sent.iter().any(|sent| sent.topic == "zigbee2mqtt/bulb/set"));
    world.listens.sort();
    world.listens.dedup();
    let mut listened = listened;
    listened.sort();
    assert_eq!(world.listens, listened);
}

#[test]
fn an_announcement_that_is_given_again_changes_nothing() {
    let mut world = World::new();
    let begin = "k".repeat(70);
    let switch =
        |key: &str| json!({ "p": "switch", "cmd_t": format!("c/{key}"), "uniq_id": format!("u{key}") });
    let body = json!({ "dev": { "ids": "d" }, "cmps": { format!("{begin}1"): switch("1"), format!("{begin}2"): switch("2") } });
    world.announce("device/d", &body);
    // Another that wants the name of one of them, in vain.
    let thief = json!({ "command_topic": "evil", "unique_id": "u1" });
    world.announce("switch/evil", &thief);
    world.wait(ms(400));
    assert_eq!(world.found().keys().collect::<Vec<_>>(), ["mqtt-u1", "mqtt-u2"]);
    let (readings, listens) = (world.readings.len(), world.listens.len());
    for _ in 0..3 {
        world.announce("device/d", &body);
        world.announce("switch/evil", &thief);
        world.wait(ms(2_000));
    }
    assert_eq!((world.readings.len(), world.listens.len()), (readings, listens));
}

#[test]
fn one_device_of_very_many_sensors_shows_as_many_as_fit() {
    let mut world = World::new();
    for number in 0..60 {
        world.announce(&format!("sensor/d/s_{number}"), &json!({
            "state_topic": "t", "unique_id": format!("u{number}"), "device": { "identifiers": "d" }, "unit_of_measurement": "W".repeat(500)
        }));
    }
    world.wait(ms(400));
    let device = &world.found()["mqtt-d"];
    assert_eq!(device.sensors.len(), 24);
    assert!(device.note.as_ref().unwrap().contains("36 more"));
}

#[test]
fn nothing_that_arrives_breaks_the_adapter() {
    let mut world = with_bulb();
    let valid = [
        zigbee_bulb().to_string().into_bytes(),
        br#"{"state":"ON","brightness":254,"color_mode":"xy","color":{"x":0.1,"y":0.2}}"#.to_vec(),
    ];
    let topics = [
        "homeassistant/light/x/config",
        "homeassistant/device/x/config",
        "homeassistant/device/hearth_lifx-1/config",
        "zigbee2mqtt/bulb",
        "zigbee2mqtt/bulb/availability",
        "hearth/lifx-1/light/set",
        "homeassistant/status",
    ];
    // A sample, for the whole would take a minute in a test that is not optimised.
    for message in contract::hostile_messages(&valid).iter().step_by(7) {
        for topic in topics {
            world.driver.message(world.now, topic, message, false);
        }
        while world.driver.poll_transmit().is_some() || world.driver.poll_reading().is_some() {}
    }
    world.wait(ms(1_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_object_is_an_announcement_or_refused(
        fields in proptest::collection::vec(
            (
                prop::sample::select(vec![
                    "command_topic", "state_topic", "stat_t", "~", "schema", "brightness_scale", "min_mireds", "effect_list",
                    "availability", "availability_topic", "value_template", "unique_id", "device", "cmps", "p", "expire_after",
                    "supported_color_modes", "unit_of_measurement", "payload_on", "name", "rgb_command_topic",
                ]),
                prop::sample::select(vec![
                    json!(null), json!(true), json!(-1), json!(0), json!(1e300), json!(""), json!("~"), json!("a/b"),
                    json!("{{ value_json.x }}"), json!("{{"), json!("json"), json!(["a", "xy", 3, null]), json!([[]]),
                    json!({}), json!({ "identifiers": [], "topic": "~/x", "a": { "p": "light", "cmd_t": "x" } }),
                ]),
            ),
            0..12,
        ),
        component in prop::sample::select(vec!["light", "switch", "sensor", "binary_sensor", "button", "device", "fan"]),
    ) {
        let mut world = World::new();
        let body: serde_json::Map<String, Value> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        world.announce(&format!("{component}/x"), &Value::Object(body));
        world.wait(ms(400));
        for device in world.found().keys() {
            world.own(device);
        }
        for topic in world.listens.clone() {
            world.message(&topic, r#"{"x":1,"state":"ON"}"#);
        }
        world.wait(ms(6_000));
    }
}
