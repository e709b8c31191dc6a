//! The JSON of WLED: what a board says of itself, and what it is told. Pure.
//!
//! Source: <https://kno.wled.ge/interfaces/json-api/>. Whole numbers are read as `u16` or wider, for firmware versions
//! differ in what they allow; what is out of range is refused with the message, never used.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::lan::{Identity, Snapshot, hardware, readable};
use crate::model::{
    Capabilities, ColorMode, Description, DeviceId, Gamut, KelvinRange, LightCapabilities, LightChange,
    LightState, Measurement, NO_EFFECT, SensorDescription, Sensors, State, color,
};

use super::ID;
use super::names::Names;

/// The most segments that are shown as lights; WLED knows 32.
const MOST_SEGMENTS: usize = 32;
/// The longest name of an effect, a palette or a board, in characters.
pub(super) const MOST_NAME: usize = 48;
/// The longest transition, in units of 100 ms: boards keep milliseconds in 16 bits.
const MOST_TRANSITION: u32 = 655;
/// Capabilities of a segment (`lc`).
const HAS_RGB: u8 = 1;
const HAS_WHITE: u8 = 2;
const HAS_TEMPERATURE: u8 = 4;
/// What the relative temperatures 0 and 255 stand for, as the documentation estimates.
const WHITES: KelvinRange = KelvinRange { min_k: 2_700, max_k: 6_500 };

/// What a board says of itself (`info`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    mac: String,
    name: String,
    ver: String,
    brand: String,
    product: String,
    arch: String,
    fxcount: u32,
    palcount: u32,
    leds: Leds,
    wifi: Option<Wifi>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Leds {
    count: u32,
    pwr: u32,
    maxpwr: u32,
    lc: Option<u8>,
    seglc: Vec<u8>,
    /// Before `lc` there were these two.
    rgbw: Option<bool>,
    cct: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Wifi {
    rssi: Option<f64>,
    signal: Option<f64>,
}

/// What a board shows (`state`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Shown {
    on: bool,
    bri: u8,
    #[serde(default)]
    mainseg: u16,
    #[serde(default)]
    seg: Vec<Segment>,
}

/// What one of its segments shows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Segment {
    id: Option<u16>,
    #[serde(default)]
    start: u32,
    stop: Option<u32>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default = "yes")]
    on: bool,
    #[serde(default = "full")]
    bri: u8,
    #[serde(default)]
    col: Vec<Color>,
    #[serde(default)]
    fx: u16,
    #[serde(default)]
    pal: u16,
    #[serde(default)]
    cct: Option<u16>,
    /// Its capabilities, in versions that tell them here instead of in `seglc`.
    #[serde(default)]
    lc: Option<u8>,
}

/// A colour: three or four bytes, or as a text of hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Color {
    Bytes(Vec<u8>),
    Text(String),
}

/// What `/json/si` and the WebSocket tell.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct StateAndInfo {
    state: Shown,
    info: Info,
}

fn yes() -> bool {
    true
}

fn full() -> u8 {
    u8::MAX
}

impl Info {
    /// Who it is.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        let hardware =
            hardware(&self.mac).ok_or_else(|| format!("{:?} is no MAC address", readable(&self.mac, 20)))?;
        let Self { name, ver, fxcount, palcount, leds, .. } = self;
        let fingerprint = format!("{name} {ver} {fxcount} {palcount} {:?} {:?}", leds.lc, leds.seglc);
        Ok(Identity { hardware, fingerprint: readable(&fingerprint, 400) })
    }

    fn capabilities(&self) -> u8 {
        self.leds.lc.unwrap_or_else(|| {
            let white = if self.leds.rgbw == Some(true) { HAS_WHITE } else { 0 };
            let cct = matches!(&self.leds.cct, Some(Value::Bool(true)));
            HAS_RGB | white | if cct { HAS_TEMPERATURE | HAS_WHITE } else { 0 }
        })
    }
}

impl Shown {
    /// The segments that have LEDs, with their numbers.
    fn active(&self) -> Vec<(u16, &Segment)> {
        let numbered =
            self.seg.iter().zip(0_u16..).map(|(segment, order)| (segment.id.unwrap_or(order), segment));
        let active = numbered.filter(|(_, segment)| segment.stop.is_none_or(|stop| stop > segment.start));
        active.take(MOST_SEGMENTS).collect()
    }

    fn is_any_on(&self) -> bool {
        let active = self.active();
        active.is_empty() || active.iter().any(|(_, segment)| segment.on)
    }

    fn main(&self) -> Option<(u16, &Segment)> {
        let active = self.active();
        active.iter().find(|(id, _)| *id == self.mainseg).or_else(|| active.first()).copied()
    }
}

impl StateAndInfo {
    /// Whose it is.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        self.info.identity()
    }

    /// The capabilities of a segment. `seglc` has one number for each segment that has LEDs, whatever its own number is.
    fn capabilities(&self, segment: u16) -> u8 {
        let active = self.state.active();
        let order = active.iter().position(|(id, _)| *id == segment);
        let own = order.and_then(|order| {
            let (_, segment) = active.get(order)?;
            segment.lc.or_else(|| self.info.leds.seglc.get(order).copied())
        });
        own.unwrap_or_else(|| self.info.capabilities())
    }

    /// Whether the same devices are on the board.
    pub(super) fn has_layout_of(&self, other: &Self) -> bool {
        let ids = |both: &Self| {
            let active = both.state.active();
            active.iter().map(|(id, segment)| (*id, segment.n.clone(), segment.lc)).collect::<BTreeSet<_>>()
        };
        ids(self) == ids(other) && self.info.identity() == other.info.identity()
    }
}

/// The id of a board, or of one of its segments.
fn device(info: &Info, segment: Option<u16>) -> Result<DeviceId, String> {
    let hardware = info.identity()?.hardware;
    let id = match segment {
        Some(segment) => format!("{ID}-{hardware}-{segment}"),
        None => format!("{ID}-{hardware}"),
    };
    DeviceId::new(id).map_err(|error| error.to_string())
}

/// The devices of a board: itself, and each segment when there are several.
pub(super) fn describe(both: &StateAndInfo, names: &Names, place: &str) -> Result<Vec<Description>, String> {
    let StateAndInfo { state, info } = both;
    let name = readable(&info.name, MOST_NAME);
    let or = |text: &str, other: &str| {
        let text = readable(text, MOST_NAME);
        if text.is_empty() { other.to_owned() } else { text }
    };
    let product = or(&info.product, "FOSS");
    let whole = Description {
        id: device(info, None)?,
        adapter: ID.to_owned(),
        name: name.clone(),
        manufacturer: or(&info.brand, "WLED"),
        // The product of all that people build themselves.
        model: if product == "FOSS" {
            format!("WLED on {}", or(&info.arch, "an unknown chip"))
        } else {
            product
        },
        firmware: Some(readable(&info.ver, MOST_NAME)).filter(|version| !version.is_empty()),
        address: Some(place.to_owned()),
        capabilities: Capabilities::Light(capabilities(info.capabilities(), names)),
        sensors: sensors(info),
        note: None,
    };
    let segments = state.active();
    let mut devices = vec![whole.clone()];
    if segments.len() > 1 {
        for (id, segment) in segments {
            let own = readable(segment.n.as_deref().unwrap_or_default(), MOST_NAME);
            let own = if own.is_empty() { format!("segment {id}") } else { own };
            devices.push(Description {
                id: device(info, Some(id))?,
                name: format!("{name} {own}"),
                capabilities: Capabilities::Light(capabilities(both.capabilities(id), names)),
                sensors: Sensors::new(),
                ..whole.clone()
            });
        }
    }
    Ok(devices)
}

fn capabilities(lc: u8, names: &Names) -> LightCapabilities {
    LightCapabilities {
        brightness: true,
        color_temperature: has_temperature(lc).then_some(WHITES),
        color: (lc & HAS_RGB != 0).then_some(Gamut::SRGB),
        effects: names.effects(),
        palettes: names.palettes(),
        zones: None,
        transition: true,
    }
}

/// Without a white channel a temperature changes nothing.
fn has_temperature(lc: u8) -> bool {
    lc & HAS_TEMPERATURE != 0 && lc & HAS_WHITE != 0
}

fn sensors(info: &Info) -> Sensors {
    let mut sensors = Sensors::new();
    if let Some(wifi) = &info.wifi {
        if wifi.rssi.is_some() {
            let signal = SensorDescription::numeric("Signal strength", Some("signal_strength"), "dBm", 0);
            sensors.insert("signal_strength".to_owned(), signal.diagnostic());
        } else if wifi.signal.is_some() {
            let signal = SensorDescription::numeric("Signal quality", None, "%", 0);
            sensors.insert("signal_quality".to_owned(), signal.diagnostic());
        }
    }
    // Without a limit of current the board does not estimate it.
    if info.leds.maxpwr > 0 {
        let current = SensorDescription::numeric("Current", Some("current"), "A", 2);
        sensors.insert("current".to_owned(), current.diagnostic());
    }
    sensors
}

/// What a board shows, all of it.
pub(super) fn snapshot(both: &StateAndInfo, names: &Names) -> Result<Snapshot, String> {
    let StateAndInfo { state, info } = both;
    let whole = device(info, None)?;
    let segments = state.active();
    let mut states = BTreeMap::new();
    let light = |on, brightness, segment: Option<(u16, &Segment)>, lc| {
        State::Light(LightState {
            on,
            brightness: color::from_byte(brightness),
            color: segment.map_or(ColorMode::None, |(_, segment)| color_of(segment, lc)),
            effect: segment.filter(|(_, segment)| segment.fx != 0).map(|(_, s)| names.effect(s.fx)),
            palette: segment.map(|(_, segment)| names.palette(segment.pal)),
            zones: None,
        })
    };
    let is_on = state.on && state.is_any_on();
    states.insert(whole.clone(), light(is_on, state.bri, state.main(), info.capabilities()));
    if segments.len() > 1 {
        for (id, segment) in segments {
            let (on, lc) = (state.on && segment.on, both.capabilities(id));
            states.insert(device(info, Some(id))?, light(on, segment.bri, Some((id, segment)), lc));
        }
    }
    let measured = BTreeMap::from([(whole, measured(info))]);
    Ok(Snapshot { states, measured, is_whole: true, ..Snapshot::default() })
}

fn measured(info: &Info) -> BTreeMap<String, Measurement> {
    let wifi = info.wifi.clone().unwrap_or_default();
    let amperes = f64::from(info.leds.pwr) / 1_000.0;
    let values =
        [("signal_strength", wifi.rssi), ("signal_quality", wifi.signal), ("current", Some(amperes))];
    let known =
        values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Measurement::Number(value?))));
    known.collect()
}

fn color_of(segment: &Segment, lc: u8) -> ColorMode {
    let rgbw = segment.col.first().map(rgbw).unwrap_or_default();
    let [red, green, blue, white] = rgbw;
    let is_white = [red, green, blue] == [0; 3] && (white > 0 || lc & HAS_RGB == 0);
    if has_temperature(lc) && (is_white || lc & HAS_RGB == 0) {
        return ColorMode::Temperature { kelvin: kelvin_of(segment.cct.unwrap_or(127)) };
    }
    if lc & HAS_RGB == 0 { ColorMode::None } else { ColorMode::Color(color::rgb_to_xy([red, green, blue])) }
}

/// The four bytes of a colour; what is missing or no colour is 0.
fn rgbw(color: &Color) -> [u8; 4] {
    let byte = |position: usize| match color {
        Color::Bytes(bytes) => bytes.get(position).copied(),
        Color::Text(text) => {
            text.get(position * 2..position * 2 + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok())
        }
    };
    [0, 1, 2, 3].map(|position| byte(position).unwrap_or(0))
}

/// A relative temperature, 0 to 255, or one in kelvin.
fn kelvin_of(cct: u16) -> u16 {
    if cct > 255 {
        return cct;
    }
    let span = u32::from(WHITES.max_k - WHITES.min_k);
    WHITES.min_k + u16::try_from((u32::from(cct) * span + 127) / 255).unwrap_or_default()
}

/// The relative temperature of what is asked for.
fn relative_of(kelvin: u16) -> u16 {
    let (span, above) =
        (u32::from(WHITES.max_k - WHITES.min_k), u32::from(kelvin.saturating_sub(WHITES.min_k)));
    u16::try_from((above.min(span) * 255 + span / 2) / span).unwrap_or(255)
}

/// What a board is told so that a device of it carries out a change.
///
/// # Errors
/// The device is not on the board, or the change names what it does not have.
pub(super) fn change(
    both: &StateAndInfo,
    names: &Names,
    of: &DeviceId,
    change: &LightChange,
) -> Result<Value, String> {
    let StateAndInfo { state, info } = both;
    let segments = state.active();
    let mut body = serde_json::Map::new();
    body.insert("tt".to_owned(), json!((change.transition_ms / 100).min(MOST_TRANSITION)));
    // A brightness without it would switch the light on.
    let power = |is_on: bool| change.on.or(change.brightness.map(|_| is_on));
    if *of == device(info, None)? {
        if let Some(on) = power(state.on) {
            body.insert("on".to_owned(), json!(on));
        }
        if let Some(brightness) = change.brightness {
            body.insert("bri".to_owned(), json!(byte_of(brightness)));
        }
        let mut shared = look(change, names, info.capabilities(), state.main().map(|(_, s)| s))?;
        if change.on == Some(true) && !state.is_any_on() {
            shared.insert("on".to_owned(), json!(true)); // each was switched off by itself
        }
        if !shared.is_empty() {
            let each = segments.iter().map(|(id, _)| with_id(*id, shared.clone()));
            body.insert("seg".to_owned(), each.collect());
        }
        return Ok(body.into());
    }
    let mine = segments.iter().find(|(id, _)| device(info, Some(*id)).as_ref() == Ok(of));
    let (mine, segment) = mine.ok_or_else(|| format!("{of} is on the board no more"))?;
    let mut own = look(change, names, both.capabilities(*mine), Some(segment))?;
    if let Some(on) = power(segment.on) {
        own.insert("on".to_owned(), json!(on));
    }
    if let Some(brightness) = change.brightness {
        own.insert("bri".to_owned(), json!(byte_of(brightness)));
    }
    let mut told = vec![with_id(*mine, own)];
    if change.on == Some(true) && !state.on {
        // The whole is off: it goes on, and of its segments this one alone.
        body.insert("on".to_owned(), json!(true));
        let off = || serde_json::Map::from_iter([("on".to_owned(), json!(false))]);
        told.extend(segments.iter().filter(|(id, _)| id != mine).map(|(id, _)| with_id(*id, off())));
    }
    body.insert("seg".to_owned(), told.into());
    Ok(body.into())
}

/// Colour, effect and palette as a segment is told them.
fn look(
    change: &LightChange,
    names: &Names,
    lc: u8,
    shown: Option<&Segment>,
) -> Result<serde_json::Map<String, Value>, String> {
    let mut told = serde_json::Map::new();
    match change.color {
        Some(ColorMode::Color(xy)) => {
            let [red, green, blue] = color::xy_to_rgb(xy);
            let has_white = lc & HAS_WHITE != 0;
            let primary = if has_white { json!([red, green, blue, 0]) } else { json!([red, green, blue]) };
            told.insert("col".to_owned(), json!([primary]));
        }
        Some(ColorMode::Temperature { kelvin }) => {
            // In the same range as the board tells it.
            let in_kelvin = shown.and_then(|segment| segment.cct).is_some_and(|cct| cct > 255);
            told.insert("cct".to_owned(), json!(if in_kelvin { kelvin } else { relative_of(kelvin) }));
            told.insert("col".to_owned(), json!([[0, 0, 0, 255]]));
        }
        Some(ColorMode::None) | None => {}
    }
    if let Some(effect) = &change.effect {
        let number = if effect == NO_EFFECT { Some(0) } else { names.number_of_effect(effect) };
        let number = number.ok_or_else(|| format!("the device has no effect {effect:?} any more"))?;
        told.insert("fx".to_owned(), json!(number));
    }
    if let Some(palette) = &change.palette {
        let number = names.number_of_palette(palette);
        let number = number.ok_or_else(|| format!("the device has no palette {palette:?} any more"))?;
        told.insert("pal".to_owned(), json!(number));
    }
    Ok(told)
}

fn with_id(id: u16, mut told: serde_json::Map<String, Value>) -> Value {
    told.insert("id".to_owned(), json!(id));
    told.into()
}

/// A board takes brightness 0 as off.
fn byte_of(brightness: u16) -> u8 {
    color::to_byte(brightness).max(1)
}
