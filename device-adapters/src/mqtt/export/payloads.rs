//! The states of this home's devices as messages, and commands for them. Pure.
//!
//! Source: <https://www.home-assistant.io/integrations/light.mqtt/#json-schema>.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::model::{
    Capabilities, Change, ColorMode, LightChange, LightState, Measurement, NO_EFFECT, Sensors, color,
};
use crate::mqtt::wire::body::Body;
use crate::mqtt::wire::colors;

/// What stands for full brightness.
pub(super) const SCALE: u32 = 255;
/// The longest transition that is taken, in seconds: a day.
const LONGEST: f64 = 86_400.0;
/// What can be said about an event, in bytes.
const MOST_TOLD: usize = 1_024;

/// A command for a light.
#[derive(Debug, Deserialize)]
struct Command {
    state: Option<String>,
    brightness: Option<f64>,
    color_temp: Option<f64>,
    color: Option<Color>,
    effect: Option<String>,
    transition: Option<f64>,
}

/// A colour in any of the forms that are announced or usual.
#[derive(Debug, Deserialize)]
struct Color {
    x: Option<f64>,
    y: Option<f64>,
    h: Option<f64>,
    s: Option<f64>,
    r: Option<f64>,
    g: Option<f64>,
    b: Option<f64>,
}

/// The state of a light.
pub(super) fn light(light: &LightState) -> String {
    let mut state = Body::of(
        json!({ "state": switch(light.on), "brightness": colors::to_scale(light.brightness, SCALE) }),
    );
    match light.color {
        ColorMode::None => {}
        ColorMode::Temperature { kelvin } => {
            state.set("color_mode", json!("color_temp"));
            state.set("color_temp", json!(kelvin));
        }
        ColorMode::Color(xy) => {
            let (x, y) = colors::to_fractions(xy);
            state.set("color_mode", json!("xy"));
            state.set("color", json!({ "x": x, "y": y }));
        }
    }
    state.set("effect", json!(light.effect.as_deref().unwrap_or(NO_EFFECT)));
    state.to_string()
}

/// The state of a switch.
pub(super) fn switch(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

/// That a button was pressed.
pub(super) fn event(event: &str) -> String {
    json!({ "event_type": event }).to_string()
}

/// What somebody tells that happened: JSON, or a text. None where it is neither or too long.
pub(super) fn told(payload: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(payload).ok().filter(|text| text.len() <= MOST_TOLD)?;
    if text.is_empty() {
        return Some(Value::Null);
    }
    Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

/// What all sensors of a device measured; null where it is not known.
pub(super) fn sensors(sensors: &Sensors, measured: &BTreeMap<String, Measurement>) -> String {
    let value = |measured: Option<&Measurement>| match measured {
        Some(Measurement::Number(number)) => json!(number),
        Some(Measurement::Truth(truth)) => json!(switch(*truth)),
        Some(Measurement::Text(text)) => json!(text),
        Some(Measurement::Unknown(_)) | None => Value::Null,
    };
    let values: Map<String, Value> =
        sensors.keys().map(|key| (key.clone(), value(measured.get(key)))).collect();
    Value::Object(values).to_string()
}

/// What a command asks of a part of a device.
///
/// # Errors
/// Why it is none.
pub(super) fn change(capabilities: &Capabilities, part: &str, payload: &[u8]) -> Result<Change, String> {
    let asked = match part {
        "light" => {
            let command: Command = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
            Change::Light(command.change()?)
        }
        "switch" if payload == b"ON" => Change::Switch { on: true },
        "switch" if payload == b"OFF" => Change::Switch { on: false },
        "button" => Change::Press,
        _ => return Err("it is neither ON nor OFF, or for a part that is not there".to_owned()),
    };
    capabilities.fit(&asked).map_err(|error| error.to_string())
}

impl Command {
    fn change(self) -> Result<LightChange, String> {
        let on = match self.state.as_deref() {
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            Some(_) => return Err("its state is neither ON nor OFF".to_owned()),
            None => None,
        };
        let seconds = self.transition.unwrap_or(0.0);
        if !(0.0..=LONGEST).contains(&seconds) {
            return Err(format!("its transition is not of 0 to {LONGEST} s"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let transition_ms = (seconds * 1_000.0).round() as u32;
        let brightness = match self.brightness {
            Some(value) => Some(colors::from_scale(value, SCALE).ok_or("its brightness is not of 0 to 255")?),
            None => None,
        };
        let color = match (self.color, self.color_temp) {
            (Some(color), _) => Some(ColorMode::Color(color.xy().ok_or("its colour is none")?)),
            (None, Some(kelvin)) => {
                Some(temperature(kelvin).ok_or("its colour temperature is not in kelvin")?)
            }
            (None, None) => None,
        };
        let effect = self.effect.filter(|effect| !effect.is_empty());
        Ok(LightChange { on, brightness, color, effect, transition_ms, ..LightChange::default() })
    }
}

impl Color {
    fn xy(&self) -> Option<crate::model::Xy> {
        match (self.x, self.y, self.h, self.s) {
            (Some(x), Some(y), _, _) => colors::from_fractions(x, y),
            (_, _, Some(hue), Some(saturation)) => colors::from_hue(hue, saturation),
            _ => colors::from_rgb(self.r?, self.g?, self.b?),
        }
    }
}

/// In kelvin, as it is announced; less than 1 000 is mired, which older senders write all the same.
fn temperature(value: f64) -> Option<ColorMode> {
    if !(1.0..=65_535.0).contains(&value) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let whole = value.round() as u16;
    Some(ColorMode::Temperature { kelvin: if whole < 1_000 { color::mired_to_kelvin(whole) } else { whole } })
}
