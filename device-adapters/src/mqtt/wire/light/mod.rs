//! Lights as they are announced, told and commanded, in the two schemas that devices use. Pure.
//!
//! Sources: <https://www.home-assistant.io/integrations/light.mqtt/>, "Default schema" and "JSON schema".

mod json;
mod simple;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::model::{
    ColorMode, Gamut, KelvinRange, LightCapabilities, LightChange, LightState, NO_EFFECT, color,
};

use self::json::Json;
use self::simple::Simple;
use super::fields::{FieldError, Fields, shortened};
use super::incoming::Incoming;

/// The names that devices give to "no effect", the most usual first.
const ENDS_EFFECT: [&str; 4] = [NO_EFFECT, "off", "stop_effect", "finish_effect"];
/// The longest name of an effect, in bytes. A longer one is left out: the beginning of a name commands nothing.
const MOST_EFFECT: usize = 64;
/// What the names of all effects of a light may take, in bytes; those behind are left out.
const MOST_EFFECTS: usize = 4 * 1_024;
/// What Home Assistant takes for the range of whites when nothing is said of it, in kelvin.
const WHITES: KelvinRange = KelvinRange { min_k: 2_000, max_k: 6_535 };

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where to.
    pub(crate) topic: String,
    /// What.
    pub(crate) payload: String,
}

/// What is known of a light, or what one message told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Whether it is on.
    pub(crate) on: Option<bool>,
    /// Its brightness.
    pub(crate) brightness: Option<u16>,
    /// Its colour.
    pub(crate) color: Option<ColorMode>,
    /// The effect that runs; inside, none where none does.
    pub(crate) effect: Option<Option<String>>,
}

/// A light as it was announced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Light {
    /// What it can do.
    pub(crate) can: LightCapabilities,
    /// What it calls "no effect".
    ends_effect: Option<String>,
    schema: Schema,
}

#[derive(Debug, Clone, PartialEq)]
enum Schema {
    Json(Json),
    Simple(Box<Simple>),
}

impl Parts {
    /// Takes over what a message told.
    pub(crate) fn absorb(&mut self, told: Self) {
        self.on = told.on.or(self.on);
        self.brightness = told.brightness.or(self.brightness);
        self.color = told.color.or(self.color);
        self.effect = told.effect.or_else(|| self.effect.take());
    }

    /// What a change asks for, as if it were told.
    pub(crate) fn of_change(change: &LightChange) -> Self {
        let effect = change.effect.clone().map(|effect| Some(effect).filter(|effect| effect != NO_EFFECT));
        Self { on: change.on, brightness: change.brightness, color: change.color, effect }
    }

    /// The state, once it is known whether the light is on.
    pub(crate) fn state(&self) -> Option<LightState> {
        let brightness = self.brightness.unwrap_or(u16::MAX);
        let color = self.color.unwrap_or(ColorMode::None);
        let plain = LightState::plain(self.on?, brightness, color);
        Some(LightState { effect: self.effect.clone().flatten(), ..plain })
    }

    /// A change without what is not among these.
    pub(crate) fn restrict(&self, change: &LightChange) -> LightChange {
        LightChange {
            on: change.on.filter(|_| self.on.is_some()),
            brightness: change.brightness.filter(|_| self.brightness.is_some()),
            color: change.color.filter(|_| self.color.is_some()),
            effect: change.effect.clone().filter(|_| self.effect.is_some()),
            ..LightChange::default()
        }
    }
}

impl Light {
    /// Of an announcement.
    ///
    /// # Errors
    /// The field that is missing or wrong.
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, FieldError> {
        let listed = effects(fields);
        let ends_effect = ENDS_EFFECT
            .iter()
            .find_map(|end| listed.iter().find(|effect| effect.eq_ignore_ascii_case(end)).cloned());
        let effects = listed.into_iter().filter(|effect| !ends(effect)).collect();
        let schema = fields.text_or("schema", "basic");
        let (schema, mut can) = match schema.as_str() {
            "json" => {
                let (json, can) = Json::parse(fields)?;
                (Schema::Json(json), can)
            }
            "basic" | "default" => {
                let (simple, can) = Simple::parse(fields)?;
                (Schema::Simple(Box::new(simple)), can)
            }
            other => return Err(FieldError::Schema(other.to_owned())),
        };
        can.effects = if can.effects.is_empty() { Vec::new() } else { effects };
        Ok(Self { can, ends_effect, schema })
    }

    /// The topics at which it tells something.
    pub(crate) fn topics(&self) -> Vec<&str> {
        match &self.schema {
            Schema::Json(json) => json.state.as_deref().into_iter().collect(),
            Schema::Simple(simple) => simple.topics(),
        }
    }

    /// The topic at which it is switched on and off.
    pub(crate) fn command(&self) -> Option<&str> {
        match &self.schema {
            Schema::Json(json) => Some(&json.command),
            Schema::Simple(simple) => simple.power.command.as_deref(),
        }
    }

    /// Whether it tells of the same things as another, at the same topics.
    pub(crate) fn tells_as(&self, other: &Self) -> bool {
        let shows =
            |can: &LightCapabilities| (can.brightness, can.color_temperature.is_some(), can.color.is_some());
        self.topics() == other.topics() && shows(&self.can) == shows(&other.can)
    }

    /// What a message at one of its topics tells.
    pub(crate) fn told(&self, topic: &str, message: &Incoming) -> Parts {
        let mut told = match &self.schema {
            Schema::Json(json) => json.told(message),
            Schema::Simple(simple) => simple.told(topic, message),
        };
        told.effect =
            told.effect.map(|effect| effect.filter(|effect| !ends(effect)).map(|effect| shortened(&effect)));
        told
    }

    /// The messages that carry out a change, in their order; `known` is what is known of the light.
    ///
    /// # Errors
    /// What the light has no message for.
    pub(crate) fn messages(&self, change: &LightChange, known: &Parts) -> Result<Vec<Message>, String> {
        // Most devices take any other change for an order to switch on as well, and nobody gave that.
        if change.on.is_none() && known.on == Some(false) {
            return Err("it is off, and over MQTT the rest of a light can only be changed while it is on: \
                        ask for on as well"
                .to_owned());
        }
        let effect = match change.effect.as_deref() {
            None => None,
            Some(NO_EFFECT) => Some(self.end_of_effect(known)?).filter(|effect| !effect.is_empty()),
            Some(effect) => Some(effect.to_owned()),
        };
        let change = LightChange { effect, ..change.clone() };
        match &self.schema {
            Schema::Json(json) => Ok(vec![json.message(&change, known.on)]),
            Schema::Simple(simple) => simple.messages(&change, known),
        }
    }

    /// What ends an effect; empty where none runs.
    fn end_of_effect(&self, known: &Parts) -> Result<String, String> {
        match (&self.ends_effect, &known.effect) {
            (Some(end), _) => Ok(end.clone()),
            (None, Some(None)) => Ok(String::new()),
            (None, _) => {
                Err("this light names no effect that ends the one which runs: switch it off and on"
                    .to_owned())
            }
        }
    }
}

/// The effects that an announcement lists, as many as fit.
fn effects(fields: Fields<'_>) -> Vec<String> {
    let listed = fields.0.get("effect_list").and_then(Value::as_array);
    let names = listed.into_iter().flatten().filter_map(Value::as_str);
    let mut left = MOST_EFFECTS;
    names
        .filter(|name| name.len() <= MOST_EFFECT && !name.chars().any(char::is_control))
        .map_while(|name| {
            left = left.checked_sub(name.len())?;
            Some(name.to_owned())
        })
        .collect()
}

fn ends(effect: &str) -> bool {
    effect.is_empty() || ENDS_EFFECT.iter().any(|end| effect.eq_ignore_ascii_case(end))
}

/// The range of whites that an announcement names, in kelvin or in mired.
fn whites(fields: Fields<'_>) -> KelvinRange {
    let kelvin = |kelvin: &str, mired: &str, default: u16| {
        let small = |key: &str| fields.number(key).and_then(|number| u16::try_from(number).ok());
        small(mired).map(color::mired_to_kelvin).or_else(|| small(kelvin)).unwrap_or(default)
    };
    let min_k = kelvin("min_kelvin", "max_mireds", WHITES.min_k);
    KelvinRange { min_k, max_k: kelvin("max_kelvin", "min_mireds", WHITES.max_k).max(min_k) }
}

/// A colour temperature that a device told in kelvin or mired.
fn temperature(value: f64, in_kelvin: bool) -> Option<ColorMode> {
    if !(1.0..=65_535.0).contains(&value) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let whole = value.round() as u16;
    Some(ColorMode::Temperature { kelvin: if in_kelvin { whole } else { color::mired_to_kelvin(whole) } })
}

/// A colour temperature as a device takes it.
fn temperature_value(kelvin: u16, in_kelvin: bool) -> u16 {
    if in_kelvin { kelvin } else { color::kelvin_to_mired(kelvin) }
}

/// What a light that shows colours can show: devices do not tell their gamut over MQTT.
const COLORS: Gamut = Gamut::SRGB;
