//! Lights of the default schema: a topic for each thing that can be changed, and one for each that is told.

use serde_json::{Value, json};

use super::{COLORS, Message, Parts, temperature, temperature_value, whites};
use crate::model::{self, ColorMode, LightCapabilities, LightChange, Xy};
use crate::mqtt::template::Template;
use crate::mqtt::wire::colors;
use crate::mqtt::wire::fields::{FieldError, Fields, shortened};
use crate::mqtt::wire::incoming::Incoming;

/// Below this saturation, in percent, a colour that is told together with a temperature is white.
const WHITE: f64 = 3.0;

/// A light of the default schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Simple {
    pub(super) power: Aspect,
    brightness: Option<Aspect>,
    white: Option<Aspect>,
    color: Option<(Form, Aspect)>,
    effect: Option<Aspect>,
    mode: Option<Aspect>,
    on: String,
    off: String,
    scale: u32,
    in_kelvin: bool,
    sends: Sends,
}

/// One thing that is told, commanded, or both.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aspect {
    state: Option<String>,
    value: Option<Template>,
    pub(super) command: Option<String>,
    format: Option<Template>,
}

/// How a colour is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Xy,
    Hue,
    Rgb,
}

/// When "on" is sent beside the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// After it.
    Last,
    /// Before it.
    First,
    /// Not at all: the brightness stands for it.
    Brightness,
}

impl Aspect {
    /// Of the fields whose names begin so; none where there is neither topic.
    fn parse(fields: Fields<'_>, name: &str) -> Result<Option<Self>, FieldError> {
        let aspect = Self {
            state: fields.topic(&format!("{name}_state_topic"))?,
            value: fields.template(&format!("{name}_value_template"))?,
            command: fields.topic(&format!("{name}_command_topic"))?,
            format: fields.template(&format!("{name}_command_template"))?,
        };
        Ok((aspect.state.is_some() || aspect.command.is_some()).then_some(aspect))
    }

    /// What a message at that topic tells of it; none where it is not of it, or tells nothing.
    fn told(&self, topic: &str, message: &Incoming) -> Option<String> {
        self.state.as_deref().filter(|state| *state == topic)?;
        match &self.value {
            None => Some(shortened(message.text().trim())),
            Some(template) => template.of_message(message).ok(),
        }
        .filter(|value| !value.is_empty() && value != "None")
    }

    fn message(&self, payload: String, values: &[(&str, &Value)]) -> Result<Option<Message>, String> {
        let Some(topic) = self.command.clone() else { return Ok(None) };
        let payload = match &self.format {
            None => payload,
            Some(template) => {
                template.of_values(values).map_err(|error| format!("its command template: {error}"))?
            }
        };
        Ok(Some(Message { topic, payload }))
    }
}

impl Simple {
    /// With what it can do; its list of effects is not empty when it has effects at all.
    pub(super) fn parse(fields: Fields<'_>) -> Result<(Self, LightCapabilities), FieldError> {
        let power = Aspect {
            state: fields.topic("state_topic")?,
            value: match fields.template("state_value_template")? {
                None => fields.template("value_template")?,
                template => template,
            },
            command: Some(fields.topic("command_topic")?.ok_or(FieldError::Missing("command_topic"))?),
            format: None,
        };
        let commanded = |name: &str| {
            Ok::<_, FieldError>(Aspect::parse(fields, name)?.filter(|aspect| aspect.command.is_some()))
        };
        let mut color = None;
        for (form, name) in [(Form::Xy, "xy"), (Form::Hue, "hs"), (Form::Rgb, "rgb")] {
            if color.is_none() {
                color = commanded(name)?.map(|aspect| (form, aspect));
            }
        }
        let sends = match fields.text("on_command_type").as_deref() {
            Some("first") => Sends::First,
            Some("brightness") => Sends::Brightness,
            _ => Sends::Last,
        };
        let light = Self {
            power,
            brightness: commanded("brightness")?,
            white: commanded("color_temp")?,
            color,
            effect: commanded("effect")?,
            mode: Aspect::parse(fields, "color_mode")?,
            on: fields.text_or("payload_on", "ON"),
            off: fields.text_or("payload_off", "OFF"),
            scale: fields.number("brightness_scale").unwrap_or(255),
            in_kelvin: fields.flag("color_temp_kelvin"),
            sends,
        };
        let can = LightCapabilities {
            brightness: light.brightness.is_some(),
            color_temperature: light.white.is_some().then(|| whites(fields)),
            color: light.color.is_some().then_some(COLORS),
            effects: if light.effect.is_some() { vec![String::new()] } else { Vec::new() },
            ..LightCapabilities::default()
        };
        Ok((light, can))
    }

    pub(super) fn topics(&self) -> Vec<&str> {
        let color = self.color.as_ref().map(|(_, aspect)| aspect);
        let aspects =
            [self.brightness.as_ref(), self.white.as_ref(), color, self.effect.as_ref(), self.mode.as_ref()];
        let all = aspects.into_iter().flatten().chain([&self.power]);
        all.filter_map(|aspect| aspect.state.as_deref()).collect()
    }

    pub(super) fn told(&self, topic: &str, message: &Incoming) -> Parts {
        let of = |aspect: &Option<Aspect>| aspect.as_ref().and_then(|aspect| aspect.told(topic, message));
        let number = |aspect: &Option<Aspect>| of(aspect).and_then(|text| text.parse::<f64>().ok());
        let on = self.power.told(topic, message).and_then(|told| match told {
            told if told == self.on => Some(true),
            told if told == self.off => Some(false),
            _ => None,
        });
        let brightness = number(&self.brightness).filter(|value| *value > 0.0);
        Parts {
            on,
            brightness: brightness.and_then(|value| colors::from_scale(value, self.scale)),
            color: self.color_told(topic, message, of(&self.mode).as_deref(), number(&self.white)),
            effect: of(&self.effect).map(Some),
        }
    }

    fn color_told(
        &self,
        topic: &str,
        message: &Incoming,
        mode: Option<&str>,
        white: Option<f64>,
    ) -> Option<ColorMode> {
        let white = white.and_then(|value| temperature(value, self.in_kelvin));
        let color = self.color.as_ref().and_then(|(form, aspect)| form.parse(&aspect.told(topic, message)?));
        match (white, color, mode) {
            (Some(white), _, Some("color_temp")) => Some(white),
            (_, Some(color), Some(_)) => Some(ColorMode::Color(color)),
            // Told both at once without the mode, as Tasmota does: a colour that is white means the other.
            (Some(white), Some(color), None) if colors::to_hue(color).1 <= WHITE => Some(white),
            (_, Some(color), None) => Some(ColorMode::Color(color)),
            (white, _, _) => white,
        }
    }

    pub(super) fn messages(&self, change: &LightChange, known: &Parts) -> Result<Vec<Message>, String> {
        if change.on == Some(false) {
            return Ok(self.power.message(self.off.clone(), &[])?.into_iter().collect());
        }
        let mut messages = Vec::new();
        let by_brightness = self.sends == Sends::Brightness && self.brightness.is_some();
        let brightness = change.brightness.or_else(|| {
            let needed = by_brightness && change.on == Some(true) && known.on != Some(true);
            needed.then(|| known.brightness.unwrap_or(u16::MAX))
        });
        if let (Some(aspect), Some(brightness)) = (&self.brightness, brightness) {
            let value = json!(colors::to_scale(brightness, self.scale));
            messages.extend(aspect.message(value.to_string(), &[("value", &value)])?);
        }
        match (change.color, &self.white, &self.color) {
            (Some(ColorMode::Temperature { kelvin }), Some(aspect), _) => {
                let value = json!(temperature_value(kelvin, self.in_kelvin));
                messages.extend(aspect.message(value.to_string(), &[("value", &value)])?);
            }
            (Some(ColorMode::Color(color)), _, Some((form, aspect))) => {
                messages.extend(form.message(aspect, color)?)
            }
            _ => {}
        }
        if let (Some(aspect), Some(effect)) = (&self.effect, &change.effect) {
            messages.extend(aspect.message(effect.clone(), &[("value", &json!(effect))])?);
        }
        if by_brightness {
            return Ok(messages);
        }
        if change.on == Some(true) {
            let on = self.power.message(self.on.clone(), &[])?;
            let at = if self.sends == Sends::First { 0 } else { messages.len() };
            messages.splice(at..at, on);
        }
        Ok(messages)
    }
}

impl Form {
    fn parse(self, text: &str) -> Option<Xy> {
        let mut numbers = text.split(',').map(|number| number.trim().parse::<f64>());
        let mut next = || numbers.next().and_then(Result::ok);
        let (first, second) = (next()?, next()?);
        match self {
            Self::Xy => colors::from_fractions(first, second),
            Self::Hue => colors::from_hue(first, second),
            Self::Rgb => colors::from_rgb(first, second, next()?),
        }
    }

    fn message(self, aspect: &Aspect, color: Xy) -> Result<Option<Message>, String> {
        let short = |value: f64| json!((value * 10_000.0).round() / 10_000.0);
        match self {
            Self::Xy => {
                let (x, y) = colors::to_fractions(color);
                let (x, y) = (short(x), short(y));
                aspect.message(format!("{x},{y}"), &[("x", &x), ("y", &y)])
            }
            Self::Hue => {
                let (hue, saturation) = colors::to_hue(color);
                let (hue, saturation) = (short(hue), short(saturation));
                aspect.message(format!("{hue},{saturation}"), &[("hue", &hue), ("sat", &saturation)])
            }
            Self::Rgb => {
                let [red, green, blue] = model::color::xy_to_rgb(color);
                let values = [json!(red), json!(green), json!(blue)];
                let [r, g, b] = &values;
                aspect.message(format!("{red},{green},{blue}"), &[("red", r), ("green", g), ("blue", b)])
            }
        }
    }
}
