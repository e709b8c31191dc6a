//! A bulb behind Zigbee2MQTT, as its documentation describes it: announced, told and commanded over a real broker.
//!
//! Sources: <https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>,
//! <https://www.zigbee2mqtt.io/guide/usage/integrations/home_assistant.html>.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mosquitto::{Client, Mosquitto};

/// Its serial number.
pub const SERIAL: &str = "0x0017880104e45517";
/// Where it is announced.
pub const CONFIG: &str = "homeassistant/light/0x0017880104e45517/light/config";
/// Where it tells its state.
pub const STATE: &str = "zigbee2mqtt/bulb";

/// What it does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// What it should.
    Well,
    /// It takes commands and tells its state, and does nothing.
    Ignores,
    /// Nothing.
    Silent,
    /// The wrong answer of that number.
    Wrong(usize),
}

/// How many wrong answers there are.
pub const WRONG: usize = 14;

/// The bulb. It runs until it is dropped.
#[derive(Debug)]
pub struct Bulb {
    shared: Arc<Mutex<Shared>>,
    speaker: Client,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    mood: Mood,
    state: Map<String, Value>,
    asked: Vec<Instant>,
}

impl Drop for Bulb {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Its announcement.
#[must_use]
pub fn announcement() -> Value {
    json!({
        "availability": [
            { "topic": "zigbee2mqtt/bridge/state", "value_template": "{{ value_json.state }}" },
            { "topic": "zigbee2mqtt/bulb/availability", "value_template": "{{ value_json.state }}" }
        ],
        "availability_mode": "all", "brightness": true, "brightness_scale": 254,
        "command_topic": "zigbee2mqtt/bulb/set",
        "device": {
            "identifiers": [format!("zigbee2mqtt_{SERIAL}")], "manufacturer": "Philips",
            "model": "Hue white and color ambiance E26/E27", "model_id": "9290012573A", "name": "bulb",
            "sw_version": "1.93.11", "via_device": "zigbee2mqtt_bridge_0x00124b0014d9ffff"
        },
        "effect": true, "effect_list": ["blink", "breathe", "okay", "stop_effect"], "max_mireds": 500,
        "min_mireds": 153, "name": null, "object_id": "bulb",
        "origin": { "name": "Zigbee2MQTT", "sw": "2.6.0", "url": "https://www.zigbee2mqtt.io" },
        "schema": "json", "state_topic": STATE, "supported_color_modes": ["xy", "color_temp"],
        "unique_id": format!("{SERIAL}_light_zigbee2mqtt")
    })
}

/// The announcement of one of its sensors.
#[must_use]
pub fn sensor(key: &str, unit: &str, class: &str) -> Value {
    let bulb = announcement();
    json!({
        "availability": bulb["availability"], "availability_mode": "all", "device": bulb["device"],
        "device_class": class, "origin": bulb["origin"], "state_class": "measurement", "state_topic": STATE,
        "unique_id": format!("{SERIAL}_{key}_zigbee2mqtt"), "unit_of_measurement": unit,
        "value_template": format!("{{{{ value_json.{key} }}}}")
    })
}

impl Bulb {
    /// Puts one up at a broker, and announces it.
    ///
    /// # Errors
    /// When the broker is not there.
    pub async fn start(broker: &Mosquitto) -> Result<Self> {
        let state = json!({ "state": "OFF", "brightness": 254, "color_mode": "color_temp", "color_temp": 370, "power": 0.4 });
        let state = state.as_object().cloned().unwrap_or_default();
        let shared = Arc::new(Mutex::new(Shared { mood: Mood::Well, state, asked: Vec::new() }));
        let (speaker, mut listener) = (broker.client().await?, broker.client().await?);
        listener.subscribe("zigbee2mqtt/bulb/set").await?;
        listener.subscribe("zigbee2mqtt/bulb/get").await?;
        let of_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Some(message) = listener.receive().await {
                let answers = of_task
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(&message.topic, &message.payload);
                for (topic, payload) in answers {
                    // A broker that is being stopped takes nothing.
                    let _ = listener.publish(&topic, payload, false).await;
                }
            }
        });
        let bulb = Self { shared, speaker, task };
        bulb.announce().await?;
        Ok(bulb)
    }

    /// Announces everything again, and that it is there.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn announce(&self) -> Result<()> {
        self.tell("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#).await?;
        self.tell(CONFIG, announcement().to_string()).await?;
        let power = sensor("power", "W", "power").to_string();
        self.tell("homeassistant/sensor/0x0017880104e45517/power/config", power).await?;
        self.available(true).await
    }

    /// What it does from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).mood = mood;
    }

    /// It becomes that, and tells nobody.
    pub fn shows(&self, key: &str, value: Value) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.state.insert(key.to_owned(), value);
    }

    /// Zigbee2MQTT says whether it is there.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn available(&self, is_there: bool) -> Result<()> {
        let state = if is_there { "online" } else { "offline" };
        self.tell("zigbee2mqtt/bulb/availability", json!({ "state": state }).to_string()).await
    }

    /// Somebody publishes something that the broker keeps.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn tell(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.speaker.publish(topic, payload, true).await
    }

    /// The same, not kept.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn say(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.speaker.publish(topic, payload, false).await
    }

    /// What it shows.
    #[must_use]
    pub fn state(&self) -> Value {
        Value::Object(self.shared.lock().unwrap_or_else(PoisonError::into_inner).state.clone())
    }

    /// When it was asked or told something.
    #[must_use]
    pub fn asked(&self) -> Vec<Instant> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }
}

impl Shared {
    /// Takes a message, and gives the answers to it.
    fn take(&mut self, topic: &str, payload: &[u8]) -> Vec<(String, Vec<u8>)> {
        self.asked.push(Instant::now());
        if self.mood == Mood::Silent {
            return Vec::new();
        }
        let asked: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
        if topic.ends_with("/set") && self.mood != Mood::Ignores {
            self.set(asked);
        }
        let told = Value::Object(self.state.clone()).to_string().into_bytes();
        let Mood::Wrong(number) = self.mood else { return vec![(STATE.to_owned(), told)] };
        wrong(number, &told)
    }

    fn set(&mut self, asked: Map<String, Value>) {
        for (key, value) in asked {
            match key.as_str() {
                "color_temp" => {
                    self.state.insert("color_mode".to_owned(), json!("color_temp"));
                }
                "color" => {
                    self.state.insert("color_mode".to_owned(), json!("xy"));
                }
                "transition" | "effect" => continue,
                _ => {}
            }
            self.state.insert(key, value);
        }
    }
}

/// The wrong answers.
fn wrong(number: usize, told: &[u8]) -> Vec<(String, Vec<u8>)> {
    let state = |payload: Vec<u8>| vec![(STATE.to_owned(), payload)];
    match number {
        0 => state(b"not json".to_vec()),
        1 => state(told.iter().take(told.len() / 2).copied().collect()),
        2 => state(br#"{"state":1,"brightness":"bright","color_mode":[],"color":"red","power":{}}"#.to_vec()),
        3 => state(br#"{"state":"ON","brightness":1e999,"color_temp":-1,"power":NaN}"#.to_vec()),
        4 => state(
            br#"{"state":"ON","brightness":9e99,"color_temp":0,"color_mode":"color_temp","power":"NaN"}"#
                .to_vec(),
        ),
        // It lies: it shows something else than it was told.
        5 => state(
            br#"{"state":"OFF","brightness":3,"color_mode":"color_temp","color_temp":153,"power":1e300}"#
                .to_vec(),
        ),
        6 => state(vec![0xff; 512]),
        7 => state(b"[".repeat(100_000)),
        8 => state(vec![b'{'; 1_000_000]),
        // More than anybody needs: the broker keeps it back from those who said how much they take.
        9 => state(vec![b'x'; 100 * 1_024 * 1_024]),
        // Its announcement is broken, then takes another's place.
        10 => vec![(CONFIG.to_owned(), b"{\"schema\":".to_vec())],
        11 => {
            vec![(CONFIG.replace("/light/config", "/other/config"), announcement().to_string().into_bytes())]
        }
        12 => (0..200)
            .map(|number| (format!("homeassistant/switch/flood{number}/config"), flood(number)))
            .collect(),
        _ => Vec::new(),
    }
}

fn flood(number: usize) -> Vec<u8> {
    json!({ "command_topic": format!("flood/{number}"), "unique_id": format!("flood{number}"), "name": "x".repeat(5_000) })
        .to_string()
        .into_bytes()
}
