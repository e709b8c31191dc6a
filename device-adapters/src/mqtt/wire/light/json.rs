//! Lights of the JSON schema: everything in one message each way.

use serde_json::{Map, Value, json};

use super::{COLORS, Message, Parts, temperature, temperature_value, whites};
use crate::model::{self, ColorMode, LightCapabilities, LightChange, Xy};
use crate::mqtt::wire::colors;
use crate::mqtt::wire::fields::{FieldError, Fields};
use crate::mqtt::wire::incoming::Incoming;

/// A light of the JSON schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Json {
    pub(super) state: Option<String>,
    pub(super) command: String,
    scale: u32,
    in_kelvin: bool,
    form: Option<Form>,
    dims: bool,
}

/// How a colour is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Xy,
    Hue,
    Rgb,
    /// Red, green, blue and white.
    Rgbw,
    /// Red, green, blue, cold and warm white.
    Rgbww,
}

impl Json {
    /// With what it can do; its list of effects is not empty when it has effects at all.
    pub(super) fn parse(fields: Fields<'_>) -> Result<(Self, LightCapabilities), FieldError> {
        let modes = fields.texts("supported_color_modes");
        // Before there was a list of modes each had a flag.
        let has = |mode: &str, flag: &str| modes.iter().any(|known| known == mode) || fields.flag(flag);
        let form = [
            (Form::Xy, has("xy", "xy")),
            (Form::Hue, has("hs", "hs")),
            (Form::Rgb, has("rgb", "rgb")),
            (Form::Rgbw, has("rgbw", "rgbw")),
            (Form::Rgbww, has("rgbww", "rgbww")),
        ];
        let form = form.into_iter().find(|(_, has)| *has).map(|(form, _)| form);
        let has_whites = has("color_temp", "color_temp");
        let dims = form.is_some() || has_whites || has("brightness", "brightness") || has("white", "white");
        let can = LightCapabilities {
            brightness: dims,
            color_temperature: has_whites.then(|| whites(fields)),
            color: form.map(|_| COLORS),
            effects: if fields.flag("effect") { vec![String::new()] } else { Vec::new() },
            transition: true,
            ..LightCapabilities::default()
        };
        let light = Self {
            state: fields.topic("state_topic")?,
            command: fields.topic("command_topic")?.ok_or(FieldError::Missing("command_topic"))?,
            scale: fields.number("brightness_scale").unwrap_or(255),
            in_kelvin: fields.flag("color_temp_kelvin"),
            form,
            dims,
        };
        Ok((light, can))
    }

    pub(super) fn told(&self, message: &Incoming) -> Parts {
        let Some(told) = message.json().and_then(Value::as_object) else { return Parts::default() };
        let on = match told.get("state").and_then(Value::as_str) {
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            _ => None,
        };
        // Zero is no brightness: it means off, which is told as such.
        let brightness = told.get("brightness").and_then(Value::as_f64);
        let brightness = brightness.filter(|value| *value > 0.0 && self.dims);
        // Named, null, or not told of.
        let effect = told.get("effect").map(|effect| effect.as_str().map(str::to_owned));
        Parts {
            on,
            brightness: brightness.and_then(|value| colors::from_scale(value, self.scale)),
            color: self.color_told(told),
            effect,
        }
    }

    fn color_told(&self, told: &Map<String, Value>) -> Option<ColorMode> {
        let white = || temperature(told.get("color_temp")?.as_f64()?, self.in_kelvin);
        let color = || {
            self.form?;
            xy(told.get("color")?.as_object()?).map(ColorMode::Color)
        };
        match told.get("color_mode").and_then(Value::as_str) {
            Some("color_temp") => white(),
            Some(_) => color(),
            None => color().or_else(white),
        }
    }

    /// What carries out a change; `is_on` as far as that is known.
    pub(super) fn message(&self, change: &LightChange, is_on: Option<bool>) -> Message {
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| {
            body.insert(key.to_owned(), value);
        };
        if change.transition_ms > 0 {
            set("transition", seconds(change.transition_ms));
        }
        if change.on == Some(false) {
            // Everything else would switch it on again.
            set("state", json!("OFF"));
        } else {
            // What is asked for beside it is for a light that is on; nobody asked to switch on one of which that is not known.
            if change.on.or(is_on) == Some(true) {
                set("state", json!("ON"));
            }
            if let Some(brightness) = change.brightness {
                set("brightness", json!(colors::to_scale(brightness, self.scale)));
            }
            match change.color {
                Some(ColorMode::Temperature { kelvin }) => {
                    set("color_temp", json!(temperature_value(kelvin, self.in_kelvin)));
                }
                Some(ColorMode::Color(color)) => set("color", self.color(color)),
                Some(ColorMode::None) | None => {}
            }
            if let Some(effect) = &change.effect {
                set("effect", json!(effect));
            }
        }
        Message { topic: self.command.clone(), payload: Value::Object(body).to_string() }
    }

    fn color(&self, color: Xy) -> Value {
        let [r, g, b] = model::color::xy_to_rgb(color);
        match self.form {
            Some(Form::Hue) => {
                let (hue, saturation) = colors::to_hue(color);
                let short = |value: f64| (value * 100.0).round() / 100.0;
                json!({ "h": short(hue), "s": short(saturation) })
            }
            Some(Form::Rgb) => json!({ "r": r, "g": g, "b": b }),
            Some(Form::Rgbw) => json!({ "r": r, "g": g, "b": b, "w": 0 }),
            Some(Form::Rgbww) => json!({ "r": r, "g": g, "b": b, "c": 0, "w": 0 }),
            Some(Form::Xy) | None => {
                let (x, y) = colors::to_fractions(color);
                json!({ "x": x, "y": y })
            }
        }
    }
}

/// A time in seconds: whole ones without a point, for ESPHome takes no others.
fn seconds(ms: u32) -> Value {
    if ms.is_multiple_of(1_000) { json!(ms / 1_000) } else { json!(f64::from(ms) / 1_000.0) }
}

/// The colour in whichever form it is told.
fn xy(color: &Map<String, Value>) -> Option<Xy> {
    let number = |key: &str| color.get(key).and_then(Value::as_f64);
    if let (Some(x), Some(y)) = (number("x"), number("y")) {
        return colors::from_fractions(x, y);
    }
    if let (Some(hue), Some(saturation)) = (number("h"), number("s")) {
        return colors::from_hue(hue, saturation);
    }
    colors::from_rgb(number("r")?, number("g")?, number("b")?)
}
