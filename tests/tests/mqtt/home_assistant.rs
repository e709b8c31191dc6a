//! This home as somebody else sees it: a client of another make (paho, MQTT 5) that checks what is announced by the rules
//! of Home Assistant.

use std::process::Stdio;

use device_adapters::model::{
    ButtonCapabilities, Capabilities, ColorMode, Description, Gamut, KelvinRange, LightCapabilities,
    LightState, SensorDescription, WeatherCapabilities,
};
use device_adapters::{Directive, Shown};
use hearth_tests::python::python;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::*;

/// Somebody else.
struct Somebody {
    _process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Somebody {
    async fn at(broker: &Mosquitto) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/mqtt.py");
        let mut command = python().unwrap();
        command.arg(script).arg(broker.address().rsplit(':').next().unwrap());
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut somebody = Self { _process: process, input, lines };
        somebody.sees("connected", |line| line.get("connected").cloned()).await;
        somebody
    }

    /// The first thing that `pick` picks of what it sees from now on. That it refuses a device fails the test.
    async fn sees<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        loop {
            let Ok(line) = timeout_at(end, self.lines.next_line()).await else {
                panic!("waited for {what}, saw {seen:#?}")
            };
            let line: Value = serde_json::from_str(&line.unwrap().expect("it ended")).unwrap();
            assert!(line.get("refused").is_none(), "it is refused: {line:#}");
            if let Some(picked) = pick(&line) {
                return picked;
            }
            seen.push(line);
        }
    }

    async fn device(&mut self, id: &str) -> Value {
        let place = format!("device/hearth_{id}/config");
        self.sees(&place, |line| (line["device"] == place.as_str()).then(|| line["config"].clone())).await
    }

    async fn payload(&mut self, topic: &str) -> String {
        self.sees(topic, |line| {
            (line["topic"] == topic).then(|| line["payload"].as_str().unwrap().to_owned())
        })
        .await
    }

    async fn publishes(&mut self, topic: &str, payload: &str) {
        let line = json!({ "topic": topic, "payload": payload }).to_string() + "\n";
        self.input.write_all(line.as_bytes()).await.unwrap();
    }
}

fn shown(adapter: &str, id: &str, capabilities: Capabilities) -> Shown {
    let device = Description {
        id: DeviceId::new(id).unwrap(),
        adapter: adapter.to_owned(),
        name: "Küche".to_owned(),
        manufacturer: "Somebody".to_owned(),
        model: "Something".to_owned(),
        firmware: None,
        address: None,
        capabilities,
        sensors: BTreeMap::new(),
        note: None,
    };
    let (state, area, measured) = (None, Some("Kitchen".to_owned()), BTreeMap::new());
    Shown { device, area, state, measured, availability: Availability::Online }
}

fn lamp() -> Shown {
    let can = LightCapabilities {
        brightness: true,
        color_temperature: Some(KelvinRange { min_k: 2_500, max_k: 9_000 }),
        color: Some(Gamut::SRGB),
        effects: vec!["Rainbow".to_owned()],
        transition: true,
        ..LightCapabilities::default()
    };
    let mut lamp = shown("lifx", "lifx-1", Capabilities::Light(can));
    lamp.state =
        Some(State::Light(LightState::plain(true, 65_535, ColorMode::Temperature { kelvin: 2_700 })));
    lamp
}

/// One of each kind, with every sort of sensor.
fn home() -> Vec<Shown> {
    let plain = |capabilities| Capabilities::Light(LightCapabilities { ..capabilities });
    let mut weather = shown(
        "open_meteo",
        "open-meteo-1",
        Capabilities::Weather(WeatherCapabilities { attribution: "by X".to_owned() }),
    );
    let sensors = [
        ("temperature", SensorDescription::numeric("Temperature", Some("temperature"), "°C", 1)),
        ("wind", SensorDescription::numeric("Wind", Some("wind_speed"), "m/s", 1)),
        ("dust", SensorDescription::numeric("Dust", Some("pm25"), "\u{b5}g/m³", 0)),
        ("odd", SensorDescription::numeric("Odd", Some("power"), "bananas", 0)),
        ("bare", SensorDescription::numeric("Bare", None, "", 0)),
        ("energy", SensorDescription::numeric("Energy", Some("energy"), "kWh", 3)),
        ("signal", SensorDescription::numeric("Signal", Some("signal_strength"), "dBm", 0).diagnostic()),
        ("motion", SensorDescription::binary("Motion", Some("motion"))),
        ("truth", SensorDescription::binary("Truth", Some("no such class"))),
        ("condition", SensorDescription::text("Condition", Some("enum"))),
    ];
    weather.device.sensors = sensors.into_iter().map(|(key, sensor)| (key.to_owned(), sensor)).collect();
    weather.measured.insert("temperature".to_owned(), Measurement::Number(21.5));
    weather.measured.insert("motion".to_owned(), Measurement::Truth(true));
    let can = ButtonCapabilities { press: true, events: vec!["press".to_owned()] };
    let mut button = shown("gpio", "gpio-1", Capabilities::Button(can));
    button.state = Some(State::Button { event: "press".to_owned(), count: 1 });
    let mut plug = shown("shelly", "shelly-1", Capabilities::Switch);
    plug.state = Some(State::Switch { on: false });
    vec![
        lamp(),
        shown("lifx", "lifx-2", plain(LightCapabilities::default())),
        shown(
            "lifx",
            "lifx-3",
            plain(LightCapabilities { brightness: true, ..LightCapabilities::default() }),
        ),
        shown(
            "lifx",
            "lifx-4",
            plain(LightCapabilities {
                brightness: true,
                color: Some(Gamut::SRGB),
                ..LightCapabilities::default()
            }),
        ),
        plug,
        button,
        weather,
    ]
}

#[tokio::test]
async fn every_kind_of_device_is_announced_as_home_assistant_wants_it() {
    let broker = Mosquitto::start().await.unwrap();
    let mut somebody = Somebody::at(&broker).await;
    let rig = start(&broker, json!({}));
    for shown in home() {
        let id = shown.device.id.to_string();
        rig.direct(Directive::Show(Box::new(shown))).await;
        let config = somebody.device(&id).await;
        assert_eq!(config["device"]["name"], "Küche");
    }
    let told = somebody.payload("hearth/open-meteo-1/sensors").await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["temperature"], &told["motion"], &told["wind"]),
        (&json!(21.5), &json!("ON"), &Value::Null)
    );
    // Its own announcements are no devices of others.
    let seen = rig.stop().await;
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(somebody.payload("hearth/status").await, "offline");
}

#[tokio::test]
async fn commands_become_wishes_and_states_come_back() {
    let broker = Mosquitto::start().await.unwrap();
    let mut somebody = Somebody::at(&broker).await;
    let mut rig = start(&broker, json!({}));
    rig.direct(Directive::Show(Box::new(lamp()))).await;
    let config = somebody.device("lifx-1").await;
    let light_part = &config["components"]["light"];
    let state: Value =
        serde_json::from_str(&somebody.payload(light_part["state_topic"].as_str().unwrap()).await).unwrap();
    assert_eq!(
        (&state["state"], &state["brightness"], &state["color_temp"]),
        (&json!("ON"), &json!(255), &json!(2_700))
    );

    let wish = r#"{"state": "ON", "brightness": 51, "color": {"x": 0.64, "y": 0.33}, "transition": 2}"#;
    somebody.publishes(light_part["command_topic"].as_str().unwrap(), wish).await;
    let wished = rig.next("a wish", |reading| match reading {
        Reading::Wish { device, change } => Some((device.to_string(), change.clone())),
        _ => None,
    });
    let expected = light(
        json!({ "on": true, "brightness": 13_107, "color": { "mode": "color", "x": 41_942, "y": 21_627 }, "transition_ms": 2_000 }),
    );
    assert_eq!(wished.await, ("lifx-1".to_owned(), expected));

    let mut dimmed = lamp();
    dimmed.state = Some(State::Light(LightState::plain(true, 13_107, ColorMode::Color(Gamut::SRGB.red))));
    rig.direct(Directive::Show(Box::new(dimmed))).await;
    let state: Value = serde_json::from_str(&somebody.payload("hearth/lifx-1/light").await).unwrap();
    assert_eq!(
        (&state["brightness"], &state["color_mode"], &state["color"]["x"]),
        (&json!(51), &json!("xy"), &json!(0.64))
    );

    // Home Assistant starts: everything once more.
    somebody.publishes("homeassistant/status", "online").await;
    somebody.device("lifx-1").await;
    rig.stop().await;
}

#[tokio::test]
async fn what_is_gone_is_taken_back_after_a_restart_too() {
    let broker = Mosquitto::start().await.unwrap();
    let rig = start(&broker, json!({}));
    let mut somebody = Somebody::at(&broker).await;
    rig.direct(Directive::Show(Box::new(lamp()))).await;
    rig.direct(Directive::Show(Box::new(shown("shelly", "shelly-1", Capabilities::Switch)))).await;
    somebody.device("shelly-1").await;
    rig.direct(Directive::Hide { device: DeviceId::new("shelly-1").unwrap() }).await;
    let gone = |line: &Value| line.get("gone").and_then(Value::as_str).map(str::to_owned);
    assert_eq!(somebody.sees("that it is gone", gone).await, "device/hearth_shelly-1/config");
    rig.stop().await;

    // The lamp went away while nobody ran.
    let rig = start(&broker, json!({}));
    rig.direct(Directive::Show(Box::new(shown("shelly", "shelly-2", Capabilities::Switch)))).await;
    assert_eq!(somebody.sees("that it is gone", gone).await, "device/hearth_lifx-1/config");
    rig.stop().await;
}
