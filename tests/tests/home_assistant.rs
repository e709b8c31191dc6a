//! This home in Home Assistant itself: its own core and MQTT integration at a real broker take every announcement, show
//! what Hearth says and call back. What Home Assistant warns of fails a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use device_adapters::model::{
    Availability, ButtonCapabilities, Capabilities, Change, ColorMode, Description, DeviceId, Gamut,
    KelvinRange, LightCapabilities, LightState, Measurement, SensorDescription, State, WeatherCapabilities,
};
use device_adapters::{Directive, Reading, Shown};
use hearth_tests::fakes::mosquitto::Mosquitto;
use hearth_tests::fakes::running::Running;
use hearth_tests::home_assistant::HomeAssistant;
use serde_json::{Value, json};

/// A broker, Home Assistant at it, and Hearth, which shows what it is told to.
struct Rig {
    hearth: Running,
    theirs: HomeAssistant,
    broker: Mosquitto,
}

impl Rig {
    async fn start() -> Self {
        let broker = Mosquitto::start().await.unwrap();
        let theirs = HomeAssistant::at(&broker).await.unwrap();
        let hearth = Running::start("mqtt", &json!({ "broker": broker.address() }));
        Self { hearth, theirs, broker }
    }

    /// Shows a device, which Home Assistant takes without a word.
    async fn show(&mut self, shown: &Shown) {
        self.hearth.direct(Directive::Show(Box::new(shown.clone()))).await;
        let topic = format!("homeassistant/device/hearth_{}/config", shown.device.id);
        self.theirs.accepts(&topic).await.unwrap();
    }

    /// A part of a device as Home Assistant shows it, once it is as wanted.
    async fn sees(&mut self, part: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.theirs.shows(&format!("hearth_{part}"), wanted).await.unwrap()
    }

    /// What somebody wishes in Home Assistant, as it comes to Hearth.
    async fn wish(&mut self, service: &str, part: &str, data: Value) -> (String, Change) {
        self.theirs.call(service, &format!("hearth_{part}"), data).await.unwrap();
        let wish = |reading: &Reading| match reading {
            Reading::Wish { device, change } => Some((device.to_string(), change.clone())),
            _ => None,
        };
        self.hearth.next("a wish", wish).await
    }

    async fn stop(self) {
        self.theirs.stop().await.unwrap();
        self.hearth.stop().await;
    }
}

fn shown(id: &str, capabilities: Capabilities) -> Shown {
    let device = Description {
        id: DeviceId::new(id).unwrap(),
        adapter: "lifx".to_owned(),
        name: "Küche".to_owned(),
        manufacturer: "Somebody".to_owned(),
        model: "Something".to_owned(),
        firmware: Some("1.2".to_owned()),
        address: None,
        capabilities,
        sensors: BTreeMap::new(),
        note: None,
    };
    let (area, measured) = (Some("Kitchen".to_owned()), BTreeMap::new());
    Shown { device, area, state: None, measured, availability: Availability::Online }
}

fn light(id: &str, can: LightCapabilities, is: LightState) -> Shown {
    Shown { state: Some(State::Light(is)), ..shown(id, Capabilities::Light(can)) }
}

/// One that has everything.
fn lamp() -> Shown {
    let can = LightCapabilities {
        brightness: true,
        color_temperature: Some(KelvinRange { min_k: 2_500, max_k: 9_000 }),
        color: Some(Gamut::SRGB),
        effects: vec!["Rainbow".to_owned()],
        transition: true,
        ..LightCapabilities::default()
    };
    light("lamp", can, LightState::plain(true, 65_535, ColorMode::Temperature { kelvin: 2_700 }))
}

/// A device that only measures.
fn meter(id: &str, sensors: Vec<(String, SensorDescription, Measurement)>) -> Shown {
    let mut meter = shown(id, Capabilities::Sensor);
    for (key, sensor, measured) in sensors {
        meter.device.sensors.insert(key.clone(), sensor);
        meter.measured.insert(key, measured);
    }
    meter
}

fn is(state: &str) -> impl Fn(&Value) -> bool {
    move |entity| entity["state"] == state
}

#[tokio::test]
async fn a_light_of_every_ability_is_shown_as_what_it_is() {
    let mut rig = Rig::start().await;
    let plain = LightState::plain(true, 32_768, ColorMode::None);
    rig.show(&light("switched", LightCapabilities::default(), plain.clone())).await;
    let entity = rig.sees("switched_light", is("on")).await;
    assert_eq!(entity["attributes"]["supported_color_modes"], json!(["onoff"]));
    let device = json!({
        "name": "Küche", "manufacturer": "Somebody", "model": "Something", "sw_version": "1.2", "area": "Kitchen"
    });
    assert_eq!(entity["device"], device);

    let dims = LightCapabilities { brightness: true, ..LightCapabilities::default() };
    rig.show(&light("dimmed", dims.clone(), plain)).await;
    let entity = rig.sees("dimmed_light", is("on")).await;
    assert_eq!(
        (&entity["attributes"]["supported_color_modes"], &entity["attributes"]["brightness"]),
        (&json!(["brightness"]), &json!(128))
    );

    let whites = Some(KelvinRange { min_k: 2_200, max_k: 6_500 });
    let white = LightState::plain(true, 65_535, ColorMode::Temperature { kelvin: 2_700 });
    rig.show(&light("white", LightCapabilities { color_temperature: whites, ..dims.clone() }, white)).await;
    let attributes = &rig.sees("white_light", is("on")).await["attributes"];
    assert_eq!(
        (&attributes["supported_color_modes"], &attributes["color_mode"], &attributes["color_temp_kelvin"]),
        (&json!(["color_temp"]), &json!("color_temp"), &json!(2_700))
    );
    assert_eq!(
        (&attributes["min_color_temp_kelvin"], &attributes["max_color_temp_kelvin"]),
        (&json!(2_200), &json!(6_500))
    );

    let red = LightState::plain(true, 65_535, ColorMode::Color(Gamut::SRGB.red));
    rig.show(&light("colored", LightCapabilities { color: Some(Gamut::SRGB), ..dims }, red)).await;
    let attributes = &rig.sees("colored_light", is("on")).await["attributes"];
    assert_eq!(
        (&attributes["supported_color_modes"], &attributes["xy_color"]),
        (&json!(["xy"]), &json!([0.64, 0.33]))
    );

    rig.show(&lamp()).await;
    let attributes = &rig.sees("lamp_light", is("on")).await["attributes"];
    assert_eq!(attributes["supported_color_modes"], json!(["color_temp", "xy"]));
    assert_eq!(
        (&attributes["effect_list"], &attributes["effect"]),
        (&json!(["none", "Rainbow"]), &json!("none"))
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_light_goes_through_its_states() {
    let mut rig = Rig::start().await;
    let mut lamp = lamp();
    rig.show(&lamp).await;
    rig.sees("lamp_light", is("on")).await;
    let red = ColorMode::Color(Gamut::SRGB.red);
    let rainbow = LightState { effect: Some("Rainbow".to_owned()), ..LightState::plain(true, 13_107, red) };
    lamp.state = Some(State::Light(rainbow));
    rig.show(&lamp).await;
    let attributes =
        &rig.sees("lamp_light", |it| it["attributes"]["effect"] == "Rainbow").await["attributes"];
    assert_eq!((&attributes["brightness"], &attributes["color_mode"]), (&json!(51), &json!("xy")));

    lamp.state = Some(State::Light(LightState::plain(false, 13_107, red)));
    rig.show(&lamp).await;
    rig.sees("lamp_light", is("off")).await;
    for (availability, state) in [
        (Availability::Stale, "unavailable"),
        (Availability::Online, "off"),
        (Availability::Offline, "unavailable"),
    ] {
        lamp.availability = availability;
        rig.show(&lamp).await;
        rig.sees("lamp_light", is(state)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn numbers_of_every_class_in_every_unit_keep_both() {
    let mut rig = Rig::start().await;
    let classes = rig.theirs.knows.units.clone();
    assert!(classes.len() > 50, "Home Assistant names its classes: {classes:?}");
    for (class, units) in &classes {
        let sensor = |(number, unit): (usize, &String)| {
            let sensor = SensorDescription::numeric("Sensor", Some(class), unit, 1);
            (format!("unit{number}"), sensor, Measurement::Number(21.5))
        };
        let id = format!("meter-{}", class.replace('_', "-"));
        rig.show(&meter(&id, units.iter().enumerate().map(sensor).collect())).await;
        for (number, unit) in units.iter().enumerate() {
            let entity = rig
                .sees(&format!("{id}_sensor_unit{number}"), |it| {
                    it["state"].as_str().is_some_and(|state| state.parse::<f64>().is_ok())
                })
                .await;
            let attributes = &entity["attributes"];
            assert_eq!(attributes["device_class"], class.as_str(), "in {unit:?}");
            assert!(attributes["state_class"].is_string(), "{class} in {unit:?} has no statistics: {entity}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn numbers_that_it_has_no_class_for_are_shown_all_the_same() {
    let mut rig = Rig::start().await;
    let number = |class, unit| SensorDescription::numeric("Sensor", class, unit, 0);
    let cases = [
        ("bananas", number(Some("power"), "bananas"), None, "bananas"),
        ("unheard", number(Some("unheard_of"), "W"), None, "W"),
        ("unit", number(None, "rpm"), None, "rpm"),
        ("dust", number(Some("pm25"), "\u{b5}g/m³"), Some("pm25"), "\u{3bc}g/m³"),
    ];
    let sensors =
        cases.iter().map(|(key, sensor, ..)| ((*key).to_owned(), sensor.clone(), Measurement::Number(7.0)));
    let mut sensors: Vec<_> = sensors.collect();
    sensors.push(("bare".to_owned(), number(None, ""), Measurement::Number(7.0)));
    sensors.push((
        "signal".to_owned(),
        number(None, "").diagnostic(),
        Measurement::Unknown("no word".to_owned()),
    ));
    rig.show(&meter("meter", sensors)).await;
    for (key, _, class, unit) in cases {
        let attributes = &rig.sees(&format!("meter_sensor_{key}"), is("7.0")).await["attributes"];
        assert_eq!(
            (attributes.get("device_class"), &attributes["unit_of_measurement"]),
            (class.map(Value::from).as_ref(), &json!(unit)),
            "{key}"
        );
    }
    rig.sees("meter_sensor_bare", is("7.0")).await;
    let entity = rig.sees("meter_sensor_signal", is("unknown")).await;
    assert_eq!(entity["attributes"]["entity_category"], "diagnostic");
    rig.stop().await;
}

#[tokio::test]
async fn truths_and_words_are_shown() {
    let mut rig = Rig::start().await;
    let classes = rig.theirs.knows.truths.clone();
    assert!(classes.len() > 20, "Home Assistant names its classes: {classes:?}");
    let truth = |class: &String| {
        let sensor = SensorDescription::binary("Truth", Some(class));
        (class.clone(), sensor, Measurement::Truth(true))
    };
    let mut sensors: Vec<_> = classes.iter().map(truth).collect();
    let odd = SensorDescription::binary("Truth", Some("no such class"));
    sensors.push(("odd".to_owned(), odd.clone(), Measurement::Truth(false)));
    sensors.push(("1st".to_owned(), odd.clone(), Measurement::Truth(false)));
    sensors.push(("blind".to_owned(), odd, Measurement::Unknown("no word".to_owned())));
    let words = SensorDescription::text("Condition", Some("enum"));
    sensors.push(("words".to_owned(), words, Measurement::Text("light rain".to_owned())));
    let mut weather = meter("weather", sensors);
    weather.device.capabilities =
        Capabilities::Weather(WeatherCapabilities { attribution: "by X".to_owned() });
    rig.show(&weather).await;
    for class in classes {
        let entity = rig.sees(&format!("weather_sensor_{class}"), is("on")).await;
        assert_eq!(entity["attributes"]["device_class"], class);
    }
    for (key, state) in [("odd", "off"), ("1st", "off"), ("blind", "unknown"), ("words", "light rain")] {
        rig.sees(&format!("weather_sensor_{key}"), is(state)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_press_comes_as_an_event() {
    let mut rig = Rig::start().await;
    let can = ButtonCapabilities { press: true, events: vec!["press".to_owned(), "hold".to_owned()] };
    let mut button = shown("button", Capabilities::Button(can));
    let pressed = |event: &str, count| Some(State::Button { event: event.to_owned(), count });
    button.state = pressed("press", 1);
    rig.show(&button).await;
    let entity = rig.sees("button_event", is("unknown")).await;
    assert_eq!(
        (&entity["attributes"]["device_class"], &entity["attributes"]["event_types"]),
        (&json!("button"), &json!(["press", "hold"]))
    );
    button.state = pressed("hold", 2);
    rig.show(&button).await;
    rig.sees("button_event", |it| it["attributes"]["event_type"] == "hold").await;
    assert_eq!(
        rig.wish("button.press", "button_button", json!({})).await,
        ("button".to_owned(), Change::Press)
    );
    rig.stop().await;
}

#[tokio::test]
async fn what_somebody_does_in_home_assistant_is_a_wish() {
    let mut rig = Rig::start().await;
    let mut plug = shown("plug", Capabilities::Switch);
    plug.state = Some(State::Switch { on: false });
    rig.show(&plug).await;
    rig.sees("plug_switch", is("off")).await;
    let wished = rig.wish("switch.turn_on", "plug_switch", json!({})).await;
    assert_eq!(wished, ("plug".to_owned(), Change::Switch { on: true }));

    rig.show(&lamp()).await;
    rig.sees("lamp_light", is("on")).await;
    let wishes = [
        ("light.turn_off", json!({ "transition": 2 }), json!({ "on": false, "transition_ms": 2_000 })),
        ("light.turn_on", json!({ "brightness": 51 }), json!({ "on": true, "brightness": 13_107 })),
        (
            "light.turn_on",
            json!({ "xy_color": [0.64, 0.33] }),
            json!({ "on": true, "color": { "mode": "color", "x": 41_942, "y": 21_627 } }),
        ),
        (
            "light.turn_on",
            json!({ "color_temp_kelvin": 4_000 }),
            json!({ "on": true, "color": { "mode": "temperature", "kelvin": 4_000 } }),
        ),
        ("light.turn_on", json!({ "effect": "Rainbow" }), json!({ "on": true, "effect": "Rainbow" })),
    ];
    for (service, data, change) in wishes {
        let wished = rig.wish(service, "lamp_light", data).await;
        assert_eq!(wished, ("lamp".to_owned(), Change::Light(serde_json::from_value(change).unwrap())));
    }
    rig.stop().await;
}

#[tokio::test]
async fn it_is_all_there_again_after_a_restart_of_either_and_goes_when_it_is_hidden() {
    let mut rig = Rig::start().await;
    rig.show(&lamp()).await;
    rig.sees("lamp_light", is("on")).await;
    rig.theirs.stop().await.unwrap();
    rig.theirs = HomeAssistant::at(&rig.broker).await.unwrap();
    rig.sees("lamp_light", is("on")).await;

    rig.hearth.stop().await;
    rig.hearth = Running::start("mqtt", &json!({ "broker": rig.broker.address() }));
    rig.show(&lamp()).await;
    rig.show(&shown("plug", Capabilities::Switch)).await;
    rig.sees("lamp_light", is("on")).await;
    rig.sees("plug_switch", is("unknown")).await;
    rig.hearth.direct(Directive::Hide { device: DeviceId::new("plug").unwrap() }).await;
    rig.theirs.lacks("hearth_plug_switch").await.unwrap();

    // The lamp goes away while nobody runs.
    rig.hearth.stop().await;
    rig.theirs.shows("hearth_lamp_light", is("unavailable")).await.unwrap();
    rig.hearth = Running::start("mqtt", &json!({ "broker": rig.broker.address() }));
    rig.theirs.lacks("hearth_lamp_light").await.unwrap();
    rig.stop().await;
}

/// So that Home Assistant is known to look.
#[tokio::test]
async fn a_wrong_announcement_is_refused() {
    let broker = Mosquitto::start().await.unwrap();
    let mut theirs = HomeAssistant::at(&broker).await.unwrap();
    let somebody = broker.client().await.unwrap();
    let right = json!({
        "device": { "identifiers": ["x"], "name": "X" },
        "origin": { "name": "Hearth" },
        "components": {
            "light": {
                "platform": "light", "schema": "json", "unique_id": "light", "name": null, "command_topic": "x/set",
                "state_topic": "x", "supported_color_modes": ["xy"],
            },
            "sensor": {
                "platform": "sensor", "unique_id": "sensor", "name": "Power", "state_topic": "x",
                "device_class": "power", "state_class": "measurement", "unit_of_measurement": "W",
            },
        },
        "availability": [{ "topic": "there" }],
    });
    somebody.publish("homeassistant/device/right/config", right.to_string(), true).await.unwrap();
    theirs.accepts("homeassistant/device/right/config").await.unwrap();
    for part in ["light", "sensor"] {
        theirs.shows(part, |entity| entity["state"] == "unavailable").await.unwrap();
    }
    somebody.publish("homeassistant/device/right/config", "", true).await.unwrap();
    theirs.lacks("light").await.unwrap();
    theirs.lacks("sensor").await.unwrap();

    let wrong = [
        ("/device/identifiers", json!([]), "at least one identifying value"),
        ("/device/nam", json!("X"), "at 'device.nam'"),
        ("/origin", Value::Null, "at 'origin'"),
        ("/availability", json!([{ "topic": "x/#/y" }]), "at 'availability"),
        ("/components/light/platform", json!("lamp"), "at 'components.light.platform'"),
        ("/components/light/unique_id", Value::Null, "at 'components.light.unique_id'"),
        ("/components/light/brightnes", json!(true), "at 'brightnes'"),
        ("/components/light/command_topic", json!("x/+"), "Wildcards cannot be used"),
        ("/components/light/supported_color_modes", json!(["xy", "onoff"]), "Invalid supported_color_modes"),
        ("/components/sensor/unit_of_measurement", json!("bananas"), "not valid together with device class"),
        ("/components/sensor/device_class", json!("bananas"), "expected SensorDeviceClass"),
        ("/components/sensor/state_class", json!("measurement_angle"), "not valid together with state class"),
    ];
    for (number, (at, value, word)) in wrong.into_iter().enumerate() {
        let mut announced = right.clone();
        let (parent, key) = at.rsplit_once('/').unwrap();
        let parent = announced.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(parent.remove(key).expect("it is there")),
            value => drop(parent.insert(key.to_owned(), value)),
        }
        let id = format!("wrong{number:02}");
        let topic = format!("homeassistant/device/{id}/config");
        somebody.publish(&topic, announced.to_string(), true).await.unwrap();
        let why = theirs.refuses(&id).await.unwrap();
        assert!(why.contains(word), "{at}: {why}");
        somebody.publish(&topic, "", true).await.unwrap();
    }
}
