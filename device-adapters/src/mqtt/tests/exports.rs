//! This home's devices as others see them.

use super::*;
use crate::adapter::Event;
use crate::model::{
    ButtonCapabilities, ColorMode, Gamut, KelvinRange, LightCapabilities, LightChange, LightState,
    SensorDescription, Xy,
};

const LAMP: &str = "lifx-d073d5000001";
const CONFIG: &str = "homeassistant/device/hearth_lifx-d073d5000001/config";

fn lamp() -> Shown {
    let can = LightCapabilities {
        brightness: true,
        color_temperature: Some(KelvinRange { min_k: 2_500, max_k: 9_000 }),
        color: Some(Gamut::SRGB),
        effects: vec!["Rainbow".to_owned()],
        transition: true,
        ..LightCapabilities::default()
    };
    let state = LightState::plain(true, 32_768, ColorMode::Temperature { kelvin: 2_700 });
    let mut shown = shown("lifx", LAMP, Capabilities::Light(can));
    shown.state = Some(State::Light(state));
    shown.device.sensors.insert(
        "signal".to_owned(),
        SensorDescription::numeric("Signal", Some("signal_strength"), "dBm", 0).diagnostic(),
    );
    shown.device.sensors.insert("motion".to_owned(), SensorDescription::binary("Motion", Some("motion")));
    shown.measured.insert("signal".to_owned(), Measurement::Number(-61.0));
    shown.measured.insert("motion".to_owned(), Measurement::Truth(true));
    shown
}

fn show(world: &mut World, shown: Shown) -> BTreeMap<String, String> {
    world.sent.clear();
    world.direct(Directive::Show(Box::new(shown)));
    kept(world)
}

fn kept(world: &World) -> BTreeMap<String, String> {
    world
        .sent
        .iter()
        .filter(|sent| sent.retain)
        .map(|sent| (sent.topic.clone(), sent.payload.clone()))
        .collect()
}

fn wishes(world: &World) -> Vec<Change> {
    let wish = |reading: &Reading| match reading {
        Reading::Wish { change, .. } => Some(change.clone()),
        _ => None,
    };
    world.readings.iter().filter_map(wish).collect()
}

#[test]
fn a_lamp_is_announced_with_its_states_beside_it() {
    let mut world = World::new();
    let kept = show(&mut world, lamp());
    let config: Value = serde_json::from_str(&kept[CONFIG]).unwrap();
    assert_eq!(config["origin"]["name"], "Hearth");
    assert_eq!(config["device"]["identifiers"], json!(["hearth_lifx-d073d5000001"]));
    assert_eq!(config["device"]["suggested_area"], "Kitchen");
    assert_eq!(config["availability_mode"], "all");
    let light = &config["components"]["light"];
    assert_eq!(light["unique_id"], "hearth_lifx-d073d5000001_light");
    assert_eq!(light["supported_color_modes"], json!(["xy", "color_temp"]));
    assert_eq!(
        (light["color_temp_kelvin"].clone(), light["min_kelvin"].clone()),
        (json!(true), json!(2_500))
    );
    assert_eq!(light["effect_list"], json!(["none", "Rainbow"]));
    assert_eq!(config["components"]["sensor_signal"]["entity_category"], "diagnostic");
    assert_eq!(config["components"]["sensor_motion"]["platform"], "binary_sensor");
    assert_eq!(
        kept["hearth/lifx-d073d5000001/light"],
        r#"{"brightness":128,"color_mode":"color_temp","color_temp":2700,"effect":"none","state":"ON"}"#
    );
    assert_eq!(kept["hearth/lifx-d073d5000001/sensors"], r#"{"motion":"ON","signal":-61.0}"#);
    assert_eq!(kept["hearth/lifx-d073d5000001/availability"], "online");
    assert_eq!(world.driver.status_topic(), "hearth/status");

    // Only what changed is sent again.
    let mut off = lamp();
    off.availability = Availability::Stale;
    assert_eq!(
        show(&mut world, off).into_iter().collect::<Vec<_>>(),
        [("hearth/lifx-d073d5000001/availability".to_owned(), "offline".to_owned())]
    );
}

#[test]
fn home_assistant_that_starts_is_told_everything_again() {
    let mut world = World::new();
    show(&mut world, lamp());
    world.sent.clear();
    world.retained("homeassistant/status", "online");
    assert!(world.sent.is_empty(), "that was before");
    world.message("homeassistant/status", "offline");
    assert!(world.sent.is_empty());
    world.message("homeassistant/status", "online");
    assert_eq!(kept(&world).len(), 4);
}

#[test]
fn a_command_becomes_a_wish() {
    let mut world = World::new();
    show(&mut world, lamp());
    let set = "hearth/lifx-d073d5000001/light/set";
    world.retained(set, r#"{"state":"OFF"}"#);
    assert!(wishes(&world).is_empty(), "the broker would give it again and again");
    for payload in [
        r#"{"state":"ON","brightness":128,"transition":1.5}"#,
        r#"{"state":"ON","color_temp":2000}"#,
        r#"{"state":"ON","color":{"x":0.3127,"y":0.329}}"#,
        r#"{"state":"ON","effect":"Rainbow"}"#,
        r#"{"state":"OFF"}"#,
    ] {
        world.message(set, payload);
    }
    let on = LightChange { on: Some(true), ..LightChange::default() };
    assert_eq!(
        wishes(&world),
        [
            Change::Light(LightChange { brightness: Some(32_896), transition_ms: 1_500, ..on.clone() }),
            Change::Light(LightChange {
                color: Some(ColorMode::Temperature { kelvin: 2_500 }),
                ..on.clone()
            }),
            Change::Light(LightChange {
                color: Some(ColorMode::Color(Xy { x: 20_493, y: 21_561 })),
                ..on.clone()
            }),
            Change::Light(LightChange { effect: Some("Rainbow".to_owned()), ..on }),
            Change::Light(LightChange { on: Some(false), ..LightChange::default() }),
        ]
    );
    for bad in [
        "",
        "ON",
        "[]",
        "{}",
        r#"{"state":"TOGGLE"}"#,
        r#"{"brightness":-1}"#,
        r#"{"brightness":1e99}"#,
        r#"{"effect":"Fire"}"#,
        r#"{"state":"ON","transition":-1}"#,
        r#"{"state":"ON","color":{"x":7,"y":0}}"#,
    ] {
        world.message(set, bad);
    }
    world.message("hearth/lifx-d073d5000001/switch/set", "TOGGLE");
    world.message("hearth/lifx-other/light/set", r#"{"state":"ON"}"#);
    world.message("hearth/a/b/c/set", "ON");
    assert_eq!(wishes(&world).len(), 5, "{:?}", wishes(&world));
}

#[test]
fn switches_buttons_and_sensors_are_shown_too() {
    let mut world = World::new();
    let mut plug = shown("shelly", "shelly-plug", Capabilities::Switch);
    plug.state = Some(State::Switch { on: false });
    assert_eq!(show(&mut world, plug)["hearth/shelly-plug/switch"], "OFF");
    world.message("hearth/shelly-plug/switch/set", "ON");
    assert_eq!(wishes(&world), [Change::Switch { on: true }]);

    let can = ButtonCapabilities { press: true, events: vec!["press".to_owned(), "long_press".to_owned()] };
    let mut button = shown("gpio", "gpio-button", Capabilities::Button(can));
    button.state = Some(State::Button { event: "press".to_owned(), count: 7 });
    let kept = show(&mut world, button.clone());
    let config: Value =
        serde_json::from_str(&kept["homeassistant/device/hearth_gpio-button/config"]).unwrap();
    assert_eq!(config["components"]["event"]["event_types"], json!(["press", "long_press"]));
    assert!(world.sent.iter().all(|sent| sent.topic != "hearth/gpio-button/event"), "it was pressed before");
    button.state = Some(State::Button { event: "long_press".to_owned(), count: 8 });
    show(&mut world, button.clone());
    let events: Vec<_> = world.sent.iter().filter(|sent| sent.topic == "hearth/gpio-button/event").collect();
    assert!(
        matches!(&events[..], [event] if !event.retain && event.payload == r#"{"event_type":"long_press"}"#),
        "{events:?}"
    );
    show(&mut world, button);
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    world.message("hearth/gpio-button/button/set", "PRESS");
    assert_eq!(wishes(&world).last(), Some(&Change::Press));

    let mut sensor = shown("onewire", "onewire-1", Capabilities::Sensor);
    sensor
        .device
        .sensors
        .insert("t".to_owned(), SensorDescription::numeric("T", Some("temperature"), "°C", 1));
    sensor
        .device
        .sensors
        .insert("odd".to_owned(), SensorDescription::numeric("Odd", Some("temperature"), "bananas", 1));
    let kept = show(&mut world, sensor);
    let config: Value = serde_json::from_str(&kept["homeassistant/device/hearth_onewire-1/config"]).unwrap();
    assert_eq!(config["components"]["sensor_t"]["device_class"], "temperature");
    assert_eq!(
        config["components"]["sensor_odd"].get("device_class"),
        None,
        "Home Assistant would refuse it"
    );
    assert_eq!(kept["hearth/onewire-1/sensors"], r#"{"odd":null,"t":null}"#);
}

/// As the infrared emitter and the cleaning cycle of a bulb.
#[test]
fn a_light_that_only_dims_and_a_switch_that_measures_a_duration_are_announced_as_such() {
    let mut world = World::new();
    let config = |kept: &BTreeMap<String, String>, id: &str| -> Value {
        serde_json::from_str(&kept[&format!("homeassistant/device/hearth_{id}/config")]).unwrap()
    };
    let can = LightCapabilities { brightness: true, ..LightCapabilities::default() };
    let mut dims = shown("lifx", "lifx-1-infrared", Capabilities::Light(can));
    dims.state = Some(State::Light(LightState::plain(true, 32_768, ColorMode::None)));
    let light = config(&show(&mut world, dims), "lifx-1-infrared")["components"]["light"].clone();
    assert_eq!(
        (&light["supported_color_modes"], &light["transition"]),
        (&json!(["brightness"]), &json!(false))
    );

    let mut cycle = shown("lifx", "lifx-1-clean", Capabilities::Switch);
    let remaining = SensorDescription::numeric("Time remaining", Some("duration"), "s", 0);
    cycle.device.sensors.insert("remaining".to_owned(), remaining);
    let components = config(&show(&mut world, cycle), "lifx-1-clean")["components"].clone();
    assert_eq!(components["switch"]["platform"], "switch");
    let sensor = &components["sensor_remaining"];
    assert_eq!((&sensor["device_class"], &sensor["unit_of_measurement"]), (&json!("duration"), &json!("s")));
}

#[test]
fn what_is_hidden_or_left_over_is_taken_back() {
    let mut world = World::new();
    world.retained("homeassistant/device/hearth_lifx-gone/config", r#"{"o":{"name":"Hearth"}}"#);
    world.retained(CONFIG, r#"{"o":{"name":"Hearth"}}"#);
    world.retained(
        "homeassistant/device/hearth2_lifx-gone/config",
        r#"{"o":{"name":"Hearth"},"cmps":{"a":{"p":"switch","cmd_t":"a"}}}"#,
    );
    show(&mut world, lamp());
    world.sent.clear();
    world.wait(ms(9_000));
    assert!(world.sent.is_empty());
    world.wait(ms(2_000));
    let kept = kept(&world);
    assert_eq!(kept["homeassistant/device/hearth_lifx-gone/config"], "");
    assert!(!kept.contains_key(CONFIG) && !kept.keys().any(|topic| topic.contains("hearth2")), "{kept:?}");
    assert!(world.found().is_empty(), "what is of Hearth is no device of others");

    world.sent.clear();
    world.direct(Directive::Hide { device: id(LAMP) });
    let kept = super::exports::kept(&world);
    assert_eq!(kept[CONFIG], "");
    assert_eq!(kept["hearth/lifx-d073d5000001/light"], "");
}

#[test]
fn what_came_from_a_broker_is_not_shown_there_again_and_nothing_is_when_it_is_off() {
    let mut world = World::new();
    let mut other = lamp();
    other.device.adapter = "mqtt".to_owned();
    assert!(show(&mut world, other).is_empty());
    let mut world = World::with(json!({ "export": false }));
    assert!(show(&mut world, lamp()).is_empty() && !world.listens.contains(&"hearth/+/+/set".to_owned()));
    world.retained(CONFIG, r#"{"o":{"name":"Hearth"}}"#);
    world.wait(ms(11_000));
    assert_eq!(kept(&world)[CONFIG], "", "what was shown before is taken back");
    let mut world = World::with(json!({ "import": false }));
    world.announce("light/x", &zigbee_bulb());
    world.wait(ms(1_000));
    assert!(world.found().is_empty());
}

#[test]
fn the_last_will_of_another_board_is_answered() {
    let mut world = World::new();
    world.sent.clear();
    world.message("hearth/status", "online");
    assert!(world.sent.is_empty());
    world.message("hearth/status", "offline");
    assert_eq!(kept(&world)["hearth/status"], "online");
    world.sent.clear();
    world.driver.shut_down("it stops");
    world.settle();
    assert_eq!(kept(&world)["hearth/status"], "offline");
}

#[test]
fn of_what_happens_others_are_told_what_was_chosen() {
    for (settings, told) in [
        (json!({}), &["doorbell.front", "door", "alarm"][..]),
        (json!({"events": ["doorbell", "alarm"]}), &["doorbell.front", "alarm"]),
        (json!({"events": []}), &[]),
        (json!({"export": false}), &[]),
    ] {
        let mut world = World::with(settings.clone());
        world.sent.clear();
        for topic in ["doorbell.front", "door", "alarm"] {
            world.direct(Directive::Tell(Event { topic: topic.to_owned(), data: json!(1) }));
        }
        let topics: Vec<_> =
            told.iter().map(|topic| format!("hearth/event/{}", topic.replace('.', "/"))).collect();
        let sent: Vec<_> = world.sent.iter().map(|sent| sent.topic.clone()).collect();
        assert_eq!(sent, topics, "{settings}");
    }
}

#[test]
fn what_happens_is_told_to_others_and_what_they_tell_to_the_home() {
    let mut world = World::new();
    world.sent.clear();
    let event = Event { topic: "doorbell.front".to_owned(), data: json!({"presses": 2}) };
    world.direct(Directive::Tell(event.clone()));
    let sent: Vec<_> = world.sent.iter().map(|sent| (sent.topic.as_str(), sent.retain)).collect();
    assert_eq!(sent, [("hearth/event/doorbell/front", false)]);
    assert_eq!(world.sent[0].payload, r#"{"presses":2}"#);
    world.readings.clear();
    let long = vec![b'x'; 1_025];
    for (payload, retained) in [
        (&br#"{"presses": 2}"#[..], false),
        (b"ding dong", false),
        (b"", false),
        // Each would come again with every connection.
        (b"kept", true),
        (b"\xff", false),
        (&long, false),
    ] {
        world.driver.message(world.now, "hearth/publish/doorbell/front", payload, retained);
        world.settle();
    }
    let heard: Vec<_> = world
        .readings
        .iter()
        .map(|reading| match reading {
            Reading::Happened(event) => (event.topic.as_str(), event.data.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [event.data, json!("ding dong"), Value::Null];
    assert_eq!(heard, expected.map(|data| ("doorbell.front", data)));
}
