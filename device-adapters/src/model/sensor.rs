//! What devices measure: temperatures, power, motion, a battery's charge.
//!
//! A device of any kind may have sensors: a plug measures power, a lamp its own temperature. A device
//! that does nothing else is of the kind `sensor`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most sensors of one device; their descriptions and their readings each fit one field of an object.
pub const MOST_SENSORS: usize = 24;
/// The longest key, class, unit and text of a sensor, in bytes.
pub const MOST_SENSOR_TEXT: usize = 48;

/// The sensors of a device by their key, such as `temperature` or `power_l1`: 1 to 48 bytes of `a-z`, `0-9` and `_`.
pub type Sensors = BTreeMap<String, SensorDescription>;

/// What a sensor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorDescription {
    /// Its name for people, such as "Power".
    pub name: String,
    /// What it yields.
    #[serde(flatten)]
    pub kind: SensorKind,
    /// What is measured, by the device classes of Home Assistant, such as `temperature`, `motion` or `battery`
    /// (<https://www.home-assistant.io/integrations/sensor/#device-class>,
    /// <https://www.home-assistant.io/integrations/binary_sensor/#device-class>). None where none of them fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Whether it tells of the device itself (signal strength, battery) and not of the home.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub diagnostic: bool,
}

/// What a sensor yields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SensorKind {
    /// A number.
    Numeric {
        /// Its unit as people read it, such as `°C`; empty for a bare number.
        #[serde(default)]
        unit: String,
        /// Digits after the point that mean something, 0 to 6; what is reported is rounded to them, so that noise is
        /// no news.
        #[serde(default)]
        decimals: u8,
    },
    /// True or false: motion or none, open or closed.
    Binary,
    /// One of some words, such as the state of a washing machine.
    Text,
}

/// What a sensor yielded.
#[derive(Debug, Clone, PartialEq)]
pub enum Measurement {
    /// A number, finite.
    Number(f64),
    /// True or false.
    Truth(bool),
    /// A word.
    Text(String),
    /// Nothing that can be believed, and why, for people.
    Unknown(String),
}

impl SensorDescription {
    /// A sensor of numbers.
    #[must_use]
    pub fn numeric(name: &str, class: Option<&str>, unit: &str, decimals: u8) -> Self {
        let kind = SensorKind::Numeric { unit: unit.to_owned(), decimals: decimals.min(6) };
        Self { name: name.to_owned(), kind, class: class.map(str::to_owned), diagnostic: false }
    }

    /// A sensor of true and false.
    #[must_use]
    pub fn binary(name: &str, class: Option<&str>) -> Self {
        let class = class.map(str::to_owned);
        Self { name: name.to_owned(), kind: SensorKind::Binary, class, diagnostic: false }
    }

    /// A sensor of words.
    #[must_use]
    pub fn text(name: &str, class: Option<&str>) -> Self {
        let class = class.map(str::to_owned);
        Self { name: name.to_owned(), kind: SensorKind::Text, class, diagnostic: false }
    }

    /// The same sensor, as one that tells of the device itself.
    #[must_use]
    pub fn diagnostic(self) -> Self {
        Self { diagnostic: true, ..self }
    }

    /// The measurement as it is reported: rounded to the sensor's digits, a text shortened; what does not fit the
    /// sensor, or is no number, becomes unknown with the reason.
    #[must_use]
    pub fn fit(&self, measured: Measurement) -> Measurement {
        match (&self.kind, measured) {
            (SensorKind::Numeric { .. }, Measurement::Number(number)) if !number.is_finite() => {
                Measurement::Unknown(format!("the device sent {number}, which is no number"))
            }
            (SensorKind::Numeric { decimals, .. }, Measurement::Number(number)) => {
                Measurement::Number(rounded(number, *decimals))
            }
            (SensorKind::Binary, measured @ Measurement::Truth(_)) => measured,
            (SensorKind::Text, Measurement::Text(text)) => Measurement::Text(shortened(&text)),
            (_, Measurement::Unknown(reason)) => Measurement::Unknown(reason),
            (kind, other) => {
                Measurement::Unknown(format!("the device sent {other:?} where {} belongs", kind.noun()))
            }
        }
    }
}

impl SensorKind {
    fn noun(&self) -> &'static str {
        match self {
            Self::Numeric { .. } => "a number",
            Self::Binary => "true or false",
            Self::Text => "a text",
        }
    }
}

/// To so many digits after the point; zero has no sign.
fn rounded(number: f64, decimals: u8) -> f64 {
    let scale = 10_f64.powi(i32::from(decimals.min(6)));
    let scaled = (number * scale).round() / scale;
    // A number too large to be scaled has no digits after the point that could be rounded.
    let scaled = if scaled.is_finite() { scaled } else { number };
    scaled + 0.0
}

fn shortened(text: &str) -> String {
    let fit = text.chars().filter(|c| !c.is_control());
    let mut short = String::new();
    for c in fit {
        if short.len() + c.len_utf8() > MOST_SENSOR_TEXT {
            break;
        }
        short.push(c);
    }
    short
}

/// Whether a key of a sensor is one: 1 to 48 bytes of `a-z`, `0-9` and `_`.
#[must_use]
pub fn is_sensor_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=MOST_SENSOR_TEXT).contains(&key.len()) && key.chars().all(allowed)
}

/// A key made of any text: lower case, what is not allowed becomes `_`, cut; none of a text without a letter or digit.
#[must_use]
pub fn sensor_key(text: &str) -> Option<String> {
    let key: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' })
        .take(MOST_SENSOR_TEXT)
        .collect();
    let key = key.trim_matches('_');
    is_sensor_key(key).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_number_is_rounded_to_its_digits_and_noise_is_no_news() {
        let sensor = SensorDescription::numeric("Temperature", Some("temperature"), "°C", 1);
        assert_eq!(sensor.fit(Measurement::Number(21.349)), Measurement::Number(21.3));
        assert_eq!(sensor.fit(Measurement::Number(-0.01)), Measurement::Number(0.0));
        assert_eq!(sensor.fit(Measurement::Number(1e300)), Measurement::Number(1e300));
        let Measurement::Number(zero) = sensor.fit(Measurement::Number(-0.0)) else { unreachable!() };
        assert!(zero.is_sign_positive());
    }

    #[test]
    fn what_no_sensor_can_yield_is_unknown_with_a_reason() {
        let sensor = SensorDescription::numeric("Power", None, "W", 0);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(
                matches!(sensor.fit(Measurement::Number(bad)), Measurement::Unknown(why) if why.contains("no number"))
            );
        }
        assert!(
            matches!(sensor.fit(Measurement::Truth(true)), Measurement::Unknown(why) if why.contains("a number"))
        );
        let motion = SensorDescription::binary("Motion", Some("motion"));
        assert!(matches!(motion.fit(Measurement::Number(1.0)), Measurement::Unknown(_)));
        let word = SensorDescription::text("State", None);
        assert_eq!(word.fit(Measurement::Text("ä\n".repeat(100))), Measurement::Text("ä".repeat(24)));
    }

    #[test]
    fn a_description_is_flat_and_comes_back() {
        let sensor = SensorDescription::numeric("Signal", Some("signal_strength"), "dBm", 0).diagnostic();
        let text = serde_json::to_string(&sensor).unwrap();
        assert_eq!(
            text,
            r#"{"name":"Signal","kind":"numeric","unit":"dBm","decimals":0,"class":"signal_strength","diagnostic":true}"#
        );
        assert_eq!(serde_json::from_str::<SensorDescription>(&text).unwrap(), sensor);
        let motion = SensorDescription::binary("Motion", None);
        let text = serde_json::to_string(&motion).unwrap();
        assert_eq!(text, r#"{"name":"Motion","kind":"binary"}"#);
        assert_eq!(serde_json::from_str::<SensorDescription>(&text).unwrap(), motion);
    }

    #[test]
    fn a_key_is_made_of_any_text() {
        assert_eq!(sensor_key("Power L1 (W)").unwrap(), "power_l1__w");
        assert_eq!(sensor_key("°"), None);
        assert!(
            is_sensor_key("pm2_5")
                && !is_sensor_key("")
                && !is_sensor_key("A")
                && !is_sensor_key(&"a".repeat(49))
        );
    }
}
