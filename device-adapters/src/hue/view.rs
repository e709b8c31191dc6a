//! What resources of a bridge mean in the units of the model, and changes in those of the bridge. Pure.

use serde_json::{Map, Value, json};

use crate::model::{
    Change, ColorMode, Gamut, KelvinRange, LightCapabilities, LightChange, LightState, Measurement,
    NO_EFFECT, SensorDescription, Xy, color,
};

use super::resource::{Kind, Point, Resource, Triangle};
use super::wire::text;

/// What a bridge calls the end of effects.
const BRIDGE_NO_EFFECT: &str = "no_effect";
/// The most effects of a light; there are about a dozen.
const MOST_EFFECTS: usize = 32;
/// The range of mirek of the API, for lights that tell none, or one of nonsense (0 to 65 535, as some of other makers do).
const MIREK: (f64, f64) = (153.0, 500.0);
/// The longest transition of the API, and its step, in milliseconds.
const MOST_TRANSITION_MS: u32 = 6_000_000;
const TRANSITION_STEP_MS: u32 = 100;

/// What a light can do.
pub(crate) fn capabilities(light: &Resource) -> LightCapabilities {
    let effects = light
        .effects
        .as_ref()
        .and_then(|effects| effects.effect_values.as_ref().or(effects.status_values.as_ref()));
    let effects = effects.map(Vec::as_slice).unwrap_or_default();
    LightCapabilities {
        brightness: light.dimming.is_some(),
        color_temperature: light.color_temperature.map(|white| {
            let told =
                white.mirek_schema.map_or(MIREK, |schema| (schema.mirek_minimum, schema.mirek_maximum));
            let is_real = told.0 >= 50.0 && told.0 <= told.1 && told.1 <= 1_000.0;
            let (coldest, warmest) = if is_real { told } else { MIREK };
            KelvinRange { min_k: kelvin(warmest), max_k: kelvin(coldest) }
        }),
        color: light.color.map(|color| color.gamut.and_then(gamut).unwrap_or(WIDE)),
        effects: effects
            .iter()
            .filter(|effect| *effect != BRIDGE_NO_EFFECT)
            .take(MOST_EFFECTS)
            .map(|effect| text(effect))
            .collect(),
        transition: true,
        ..LightCapabilities::default()
    }
}

/// What a group can do: all that one of its lights can.
pub(crate) fn union(capabilities: impl Iterator<Item = LightCapabilities>) -> LightCapabilities {
    capabilities.fold(LightCapabilities { transition: true, ..LightCapabilities::default() }, |all, one| {
        let wider = |a: KelvinRange, b: KelvinRange| KelvinRange {
            min_k: a.min_k.min(b.min_k),
            max_k: a.max_k.max(b.max_k),
        };
        LightCapabilities {
            brightness: all.brightness || one.brightness,
            color_temperature: match (all.color_temperature, one.color_temperature) {
                (Some(a), Some(b)) => Some(wider(a, b)),
                (a, b) => a.or(b),
            },
            color: all.color.or(one.color),
            ..all
        }
    })
}

/// The state of a light.
pub(crate) fn state(light: &Resource) -> LightState {
    let effect = light.effects.as_ref().and_then(|effects| effects.status.clone());
    LightState {
        effect: effect.filter(|effect| effect != BRIDGE_NO_EFFECT).map(|effect| text(&effect)),
        ..LightState::plain(
            light.on.is_some_and(|on| on.on),
            light.dimming.and_then(|dimming| dimming.brightness).map_or(u16::MAX, from_percent),
            color_mode(light),
        )
    }
}

/// The colour that a light shows.
pub(crate) fn color_mode(light: &Resource) -> ColorMode {
    let white = light.color_temperature.filter(|white| white.mirek_valid != Some(false));
    match (white.and_then(|white| white.mirek), light.color.and_then(|color| color.xy)) {
        (Some(mirek), _) => ColorMode::Temperature { kelvin: kelvin(mirek) },
        (None, Some(point)) => ColorMode::Color(xy(point)),
        (None, None) => ColorMode::None,
    }
}

/// The change as it will show: a light cannot be dimmed below its least level.
pub(crate) fn attainable(change: Change, light: &Resource) -> Change {
    let least = light.dimming.and_then(|dimming| dimming.min_dim_level).unwrap_or(0.0);
    match change {
        Change::Light(change) => Change::Light(LightChange {
            brightness: change.brightness.map(|brightness| brightness.max(from_percent(least))),
            ..change
        }),
        other => other,
    }
}

/// The body of a `PUT` that carries a change out.
pub(crate) fn body(change: &Change) -> Value {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    match change {
        Change::Switch { on } => {
            put("on", json!({ "on": on }));
        }
        Change::Light(change) => {
            if let Some(on) = change.on {
                put("on", json!({ "on": on }));
            }
            if let Some(brightness) = change.brightness {
                put("dimming", json!({ "brightness": to_percent(brightness) }));
            }
            match change.color {
                Some(ColorMode::Temperature { kelvin }) => {
                    put("color_temperature", json!({ "mirek": color::kelvin_to_mired(kelvin) }));
                }
                Some(ColorMode::Color(xy)) => {
                    let (x, y) = (coordinate(xy.x), coordinate(xy.y));
                    put("color", json!({ "xy": { "x": x, "y": y } }));
                }
                Some(ColorMode::None) | None => {}
            }
            if let Some(effect) = &change.effect {
                let effect = if effect == NO_EFFECT { BRIDGE_NO_EFFECT } else { effect };
                put("effects", json!({ "effect": effect }));
            }
            if change.transition_ms > 0 {
                let steps = change.transition_ms.min(MOST_TRANSITION_MS).div_ceil(TRANSITION_STEP_MS);
                put("dynamics", json!({ "duration": steps * TRANSITION_STEP_MS }));
            }
        }
        Change::Press => {}
    }
    Value::Object(body)
}

/// The sensor that a service is: its key, what it is, and what it yields now.
pub(crate) fn sensor(service: &Resource) -> Option<(&'static str, SensorDescription, Measurement)> {
    let (key, description, measured) = match service.kind {
        Kind::Motion => ("motion", SensorDescription::binary("Motion", Some("motion")), motion(service)),
        Kind::Temperature => (
            "temperature",
            SensorDescription::numeric("Temperature", Some("temperature"), "°C", 1),
            temperature(service),
        ),
        Kind::LightLevel => (
            "illuminance",
            SensorDescription::numeric("Illuminance", Some("illuminance"), "lx", 1),
            light_level(service),
        ),
        Kind::DevicePower => (
            "battery",
            SensorDescription::numeric("Battery", Some("battery"), "%", 0).diagnostic(),
            battery(service),
        ),
        Kind::Contact => ("open", SensorDescription::binary("Open", Some("opening")), contact(service)),
        Kind::Tamper => {
            ("tamper", SensorDescription::binary("Tampering", Some("tamper")).diagnostic(), tamper(service))
        }
        _ => return None,
    };
    let measured = match service.enabled {
        Some(false) => Measurement::Unknown("this sensor is switched off in the bridge".to_owned()),
        _ => measured.map_or_else(Measurement::Unknown, |measured| description.fit(measured)),
    };
    Some((key, description, measured))
}

/// Percent of brightness as the fraction of the model; what is no number counts as 0.
pub(crate) fn from_percent(percent: f64) -> u16 {
    fraction(percent / 100.0)
}

/// A fraction of the model as percent, in the hundredths that bridges work in.
fn to_percent(brightness: u16) -> f64 {
    (f64::from(brightness) / 655.35 * 100.0).round() / 100.0
}

/// What a bridge tells in mirek, in kelvin; what is out of any lamp's range counts as the nearer end.
fn kelvin(mirek: f64) -> u16 {
    color::mired_to_kelvin(whole(mirek.clamp(50.0, 1_000.0)))
}

/// A gamut as the widest of the lamps has it (C, of the white and colour ambiance lamps), for lamps that tell none.
const WIDE: Gamut = Gamut {
    red: Xy { x: 45_344, y: 20_185 },
    green: Xy { x: 11_141, y: 45_874 },
    blue: Xy { x: 10_053, y: 3_119 },
};

fn gamut(triangle: Triangle) -> Option<Gamut> {
    let gamut = Gamut { red: xy(triangle.red), green: xy(triangle.green), blue: xy(triangle.blue) };
    let is_triangle = gamut.red != gamut.green && gamut.green != gamut.blue && gamut.blue != gamut.red;
    is_triangle.then_some(gamut)
}

fn xy(point: Point) -> Xy {
    Xy { x: fraction(point.x), y: fraction(point.y) }
}

fn coordinate(value: u16) -> f64 {
    (f64::from(value) / 65_535.0 * 10_000.0).round() / 10_000.0
}

/// A fraction as a `u16`; what lies outside 0 to 1 becomes the nearer end.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn fraction(value: f64) -> u16 {
    (value * 65_535.0).round() as u16 // `as` saturates, and takes NaN as 0
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u16 {
    value.round() as u16 // `as` saturates, and takes NaN as 0
}

fn motion(service: &Resource) -> Result<Measurement, String> {
    let told = service.motion.as_ref();
    if told.is_some_and(|motion| motion.motion_valid == Some(false)) {
        return Err("the sensor has not reported yet".to_owned());
    }
    let motion = told.and_then(|told| told.motion_report.map(|report| report.motion).or(told.motion));
    motion.map(Measurement::Truth).ok_or_else(untold)
}

fn temperature(service: &Resource) -> Result<Measurement, String> {
    let told = service.temperature.as_ref();
    if told.is_some_and(|told| told.temperature_valid == Some(false)) {
        return Err("the sensor has not reported yet".to_owned());
    }
    let degrees =
        told.and_then(|told| told.temperature_report.map(|report| report.temperature).or(told.temperature));
    degrees.map(Measurement::Number).ok_or_else(untold)
}

/// 10 000 · log10(lux) + 1; 0 where it is too dark to tell.
fn light_level(service: &Resource) -> Result<Measurement, String> {
    let told = service.light.as_ref();
    if told.is_some_and(|told| told.light_level_valid == Some(false)) {
        return Err("the sensor has not reported yet".to_owned());
    }
    let level =
        told.and_then(|told| told.light_level_report.map(|report| report.light_level).or(told.light_level));
    let level = level.ok_or_else(untold)?;
    let lux = if level < 1.0 { 0.0 } else { 10_f64.powf((level - 1.0) / 10_000.0) };
    Ok(Measurement::Number(lux))
}

fn battery(service: &Resource) -> Result<Measurement, String> {
    let level = service.power_state.and_then(|power| power.battery_level);
    let level = level.filter(|level| (0.0..=100.0).contains(level));
    level.map(Measurement::Number).ok_or_else(untold)
}

fn contact(service: &Resource) -> Result<Measurement, String> {
    match service.contact_report.as_ref().map(|report| report.state.as_str()) {
        Some("contact") => Ok(Measurement::Truth(false)),
        Some("no_contact") => Ok(Measurement::Truth(true)),
        _ => Err(untold()),
    }
}

fn tamper(service: &Resource) -> Result<Measurement, String> {
    let reports = service.tamper_reports.as_deref().unwrap_or_default();
    Ok(Measurement::Truth(reports.iter().any(|report| report.state == "tampered")))
}

fn untold() -> String {
    "the bridge does not tell".to_owned()
}
