//! Resources of the CLIP API, version 2: what a light, a room, a sensor looks like on the wire. Pure.
//!
//! Source: <https://developers.meethue.com/develop/hue-api-v2/api-reference/>. Every number is taken as a fraction and checked when
//! it is used, and nearly every field may be missing: firmware versions differ, and an event holds only what changed.

use std::fmt;

use serde::Deserialize;
use serde::de::Deserializer;

/// The id of a resource: a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rid(u128);

impl Rid {
    /// Of a UUID with its four dashes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let dashes = [8, 13, 18, 23];
        let fits = |(at, byte): (usize, u8)| {
            if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        };
        if text.len() != 36 || !text.bytes().enumerate().all(fits) {
            return None;
        }
        u128::from_str_radix(&text.replace('-', ""), 16).ok().map(Self)
    }

    /// Its 16 bytes, for a device id.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        write!(f, "{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }
}

impl fmt::Debug for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rid({self})")
    }
}

impl<'de> Deserialize<'de> for Rid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("an id of a resource must be a UUID"))
    }
}

/// What a resource is; only what is used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Device,
    Room,
    Zone,
    Light,
    GroupedLight,
    Button,
    Motion,
    Temperature,
    LightLevel,
    DevicePower,
    Contact,
    Tamper,
    ZigbeeConnectivity,
    #[serde(other)]
    Other,
}

/// A reference to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Ref {
    pub(crate) rid: Rid,
    pub(crate) rtype: Kind,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) archetype: String,
    pub(crate) control_id: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Product {
    #[serde(default)]
    pub(crate) model_id: String,
    #[serde(default)]
    pub(crate) manufacturer_name: String,
    #[serde(default)]
    pub(crate) product_name: String,
    #[serde(default)]
    pub(crate) product_archetype: String,
    #[serde(default)]
    pub(crate) software_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct On {
    pub(crate) on: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(crate) struct Dimming {
    pub(crate) brightness: Option<f64>,
    pub(crate) min_dim_level: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct MirekSchema {
    pub(crate) mirek_minimum: f64,
    pub(crate) mirek_maximum: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(crate) struct ColorTemperature {
    pub(crate) mirek: Option<f64>,
    pub(crate) mirek_valid: Option<bool>,
    pub(crate) mirek_schema: Option<MirekSchema>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Triangle {
    pub(crate) red: Point,
    pub(crate) green: Point,
    pub(crate) blue: Point,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(crate) struct Color {
    pub(crate) xy: Option<Point>,
    pub(crate) gamut: Option<Triangle>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Effects {
    pub(crate) status: Option<String>,
    pub(crate) effect_values: Option<Vec<String>>,
    pub(crate) status_values: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct ButtonReport {
    #[serde(default)]
    pub(crate) updated: String,
    pub(crate) event: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Button {
    pub(crate) button_report: Option<ButtonReport>,
    /// As older firmware has it.
    pub(crate) last_event: Option<String>,
    pub(crate) event_values: Option<Vec<String>>,
}

/// Of a motion sensor.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Motion {
    pub(crate) motion: Option<bool>,
    pub(crate) motion_valid: Option<bool>,
    pub(crate) motion_report: Option<MotionReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct MotionReport {
    pub(crate) motion: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Temperature {
    pub(crate) temperature: Option<f64>,
    pub(crate) temperature_valid: Option<bool>,
    pub(crate) temperature_report: Option<TemperatureReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct TemperatureReport {
    pub(crate) temperature: f64,
}

/// Of a sensor of light.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct LightLevel {
    pub(crate) light_level: Option<f64>,
    pub(crate) light_level_valid: Option<bool>,
    pub(crate) light_level_report: Option<LightLevelReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct LightLevelReport {
    pub(crate) light_level: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(crate) struct PowerState {
    pub(crate) battery_level: Option<f64>,
}

/// Of a contact or tamper sensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct StateReport {
    pub(crate) state: String,
}

/// A resource as a bridge sends it: whole in an answer, with what changed in an event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Resource {
    pub(crate) id: Rid,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) owner: Option<Ref>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) product_data: Option<Product>,
    pub(crate) services: Option<Vec<Ref>>,
    pub(crate) children: Option<Vec<Ref>>,
    pub(crate) enabled: Option<bool>,
    pub(crate) on: Option<On>,
    pub(crate) dimming: Option<Dimming>,
    pub(crate) color_temperature: Option<ColorTemperature>,
    pub(crate) color: Option<Color>,
    pub(crate) effects: Option<Effects>,
    pub(crate) button: Option<Button>,
    pub(crate) motion: Option<Motion>,
    pub(crate) temperature: Option<Temperature>,
    pub(crate) light: Option<LightLevel>,
    pub(crate) power_state: Option<PowerState>,
    pub(crate) contact_report: Option<StateReport>,
    pub(crate) tamper_reports: Option<Vec<StateReport>>,
    /// Of a connection; of other kinds of resources it is no text, and they are not read.
    pub(crate) status: Option<String>,
}

impl Resource {
    /// Whether it shows another state than that one; only what every bridge tells by events at once.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let brightness = |one: &Self| one.dimming.and_then(|dimming| dimming.brightness);
        let is_other_light = self.on != other.on || brightness(self) != brightness(other);
        match self.kind {
            Kind::Light => is_other_light,
            Kind::Contact => self.contact_report != other.contact_report,
            Kind::ZigbeeConnectivity => self.status != other.status,
            _ => false,
        }
    }

    /// Lays what an event says over it.
    pub(crate) fn update(&mut self, newer: Self) {
        let lay = |metadata: &mut Metadata, newer: Metadata| {
            replace_text(&mut metadata.name, newer.name);
            replace_text(&mut metadata.archetype, newer.archetype);
            replace(&mut metadata.control_id, newer.control_id);
        };
        overlay(&mut self.metadata, newer.metadata, lay);
        overlay(&mut self.dimming, newer.dimming, |dimming, newer| {
            replace(&mut dimming.brightness, newer.brightness);
            replace(&mut dimming.min_dim_level, newer.min_dim_level);
        });
        overlay(&mut self.color_temperature, newer.color_temperature, |white, newer| {
            // A mirek of null comes with mirek_valid, which says what it means.
            replace(&mut white.mirek, newer.mirek);
            replace(&mut white.mirek_valid, newer.mirek_valid.or(newer.mirek.map(|_| true)));
            replace(&mut white.mirek_schema, newer.mirek_schema);
        });
        overlay(&mut self.color, newer.color, |color, newer| {
            replace(&mut color.xy, newer.xy);
            replace(&mut color.gamut, newer.gamut);
        });
        overlay(&mut self.effects, newer.effects, |effects, newer| {
            replace(&mut effects.status, newer.status);
            replace(&mut effects.effect_values, newer.effect_values);
            replace(&mut effects.status_values, newer.status_values);
        });
        overlay(&mut self.button, newer.button, |button, newer| {
            replace(&mut button.button_report, newer.button_report);
            replace(&mut button.last_event, newer.last_event);
            replace(&mut button.event_values, newer.event_values);
        });
        replace(&mut self.owner, newer.owner);
        replace(&mut self.product_data, newer.product_data);
        replace(&mut self.services, newer.services);
        replace(&mut self.children, newer.children);
        replace(&mut self.enabled, newer.enabled);
        replace(&mut self.on, newer.on);
        replace(&mut self.motion, newer.motion);
        replace(&mut self.temperature, newer.temperature);
        replace(&mut self.light, newer.light);
        replace(&mut self.power_state, newer.power_state);
        replace(&mut self.contact_report, newer.contact_report);
        replace(&mut self.tamper_reports, newer.tamper_reports);
        replace(&mut self.status, newer.status);
    }
}

fn replace<T>(old: &mut Option<T>, newer: Option<T>) {
    if newer.is_some() {
        *old = newer;
    }
}

fn replace_text(old: &mut String, newer: String) {
    if !newer.is_empty() {
        *old = newer;
    }
}

fn overlay<T>(old: &mut Option<T>, newer: Option<T>, lay: impl FnOnce(&mut T, T)) {
    match (old, newer) {
        (_, None) => {}
        (Some(old), Some(newer)) => lay(old, newer),
        (old, newer) => *old = newer,
    }
}
