//! The components of a Shelly device: which of them are devices of their own, what they measure and what they are told.
//! Pure.
//!
//! Source: <https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/>, one page for each kind of component.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::lan::{Snapshot, readable};
use crate::model::{
    ButtonCapabilities, Capabilities, Change, ColorMode, Description, DeviceId, Gamut, KelvinRange,
    LightCapabilities, LightChange, LightState, Measurement, SensorDescription, State, color,
    sensor::MOST_SENSORS,
};

use super::wire::{Event, Info};

/// The most components that are looked at.
const MOST_PARTS: usize = 48;
/// The longest name of a component, in characters.
const MOST_NAME: usize = 48;
/// What buttons tell.
const PUSHES: [&str; 4] = ["single_push", "double_push", "triple_push", "long_push"];
/// The shortest and the longest transition that devices take, in seconds.
const TRANSITION: (f64, f64) = (0.5, 5_000.0);
/// The range of white where a device does not tell it.
const WHITES: KelvinRange = KelvinRange { min_k: 2_700, max_k: 6_500 };

/// What a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Light,
    Rgb,
    Rgbw,
    Cct,
}

/// A channel, and what it showed last: a device tells only what changed.
#[derive(Debug, Clone, PartialEq)]
struct Channel {
    kind: Kind,
    number: u32,
    device: DeviceId,
    output: Option<bool>,
    brightness: Option<f64>,
    rgb: Option<[u8; 3]>,
    white: Option<u8>,
    kelvin: Option<f64>,
    is_fading: bool,
}

/// A sensor: where its value is in the status of a component.
#[derive(Debug, Clone)]
struct Sensor {
    device: DeviceId,
    key: String,
    row: &'static Row,
}

/// What a component measures.
#[derive(Debug)]
struct Row {
    kinds: &'static [&'static str],
    pointer: &'static str,
    key: &'static str,
    name: &'static str,
    class: Option<&'static str>,
    measures: Measures,
    diagnostic: bool,
}

#[derive(Debug, Clone, Copy)]
enum Measures {
    /// In a unit, with so many digits, and what the device's number is multiplied by.
    Number(&'static str, u8, f64),
    Truth,
}

/// The components of a device.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    channels: BTreeMap<String, Channel>,
    buttons: BTreeMap<String, DeviceId>,
    sensors: BTreeMap<String, Vec<Sensor>>,
}

const METERED: &[&str] = &["switch", "light", "rgb", "rgbw", "cct", "pm1"];

const fn number(
    kinds: &'static [&'static str],
    pointer: &'static str,
    key: &'static str,
    name: &'static str,
    class: Option<&'static str>,
    measures: (&'static str, u8, f64),
) -> Row {
    let measures = Measures::Number(measures.0, measures.1, measures.2);
    Row { kinds, pointer, key, name, class, measures, diagnostic: false }
}

const fn truth(
    kinds: &'static [&'static str],
    pointer: &'static str,
    key: &'static str,
    name: &'static str,
    class: Option<&'static str>,
) -> Row {
    Row { kinds, pointer, key, name, class, measures: Measures::Truth, diagnostic: false }
}

const fn diagnostic(row: Row) -> Row {
    Row { diagnostic: true, ..row }
}

const W: (&str, u8, f64) = ("W", 1, 1.0);
const V: (&str, u8, f64) = ("V", 1, 1.0);
const A: (&str, u8, f64) = ("A", 2, 1.0);
const HZ: (&str, u8, f64) = ("Hz", 1, 1.0);
const KWH: (&str, u8, f64) = ("kWh", 3, 0.001);
const CELSIUS: (&str, u8, f64) = ("°C", 1, 1.0);
const PERCENT: (&str, u8, f64) = ("%", 0, 1.0);

/// What is understood, by kind of component.
const ROWS: &[Row] = &[
    number(METERED, "/apower", "power", "Power", Some("power"), W),
    number(METERED, "/voltage", "voltage", "Voltage", Some("voltage"), V),
    number(METERED, "/current", "current", "Current", Some("current"), A),
    number(METERED, "/freq", "frequency", "Frequency", Some("frequency"), HZ),
    number(METERED, "/aenergy/total", "energy", "Energy", Some("energy"), KWH),
    diagnostic(number(METERED, "/temperature/tC", "temperature", "Inside", Some("temperature"), CELSIUS)),
    number(&["em"], "/a_act_power", "power_l1", "Power L1", Some("power"), W),
    number(&["em"], "/b_act_power", "power_l2", "Power L2", Some("power"), W),
    number(&["em"], "/c_act_power", "power_l3", "Power L3", Some("power"), W),
    number(&["em"], "/total_act_power", "power", "Power", Some("power"), W),
    number(&["em"], "/a_voltage", "voltage_l1", "Voltage L1", Some("voltage"), V),
    number(&["em"], "/b_voltage", "voltage_l2", "Voltage L2", Some("voltage"), V),
    number(&["em"], "/c_voltage", "voltage_l3", "Voltage L3", Some("voltage"), V),
    number(&["em"], "/a_current", "current_l1", "Current L1", Some("current"), A),
    number(&["em"], "/b_current", "current_l2", "Current L2", Some("current"), A),
    number(&["em"], "/c_current", "current_l3", "Current L3", Some("current"), A),
    number(&["em"], "/total_current", "current", "Current", Some("current"), A),
    number(&["em"], "/a_freq", "frequency", "Frequency", Some("frequency"), HZ),
    number(&["emdata"], "/a_total_act_energy", "energy_l1", "Energy L1", Some("energy"), KWH),
    number(&["emdata"], "/b_total_act_energy", "energy_l2", "Energy L2", Some("energy"), KWH),
    number(&["emdata"], "/c_total_act_energy", "energy_l3", "Energy L3", Some("energy"), KWH),
    number(&["emdata"], "/total_act", "energy", "Energy", Some("energy"), KWH),
    number(&["emdata"], "/total_act_ret", "energy_returned", "Energy returned", Some("energy"), KWH),
    number(&["em1"], "/act_power", "power", "Power", Some("power"), W),
    number(&["em1"], "/voltage", "voltage", "Voltage", Some("voltage"), V),
    number(&["em1"], "/current", "current", "Current", Some("current"), A),
    number(&["em1"], "/freq", "frequency", "Frequency", Some("frequency"), HZ),
    number(&["em1data"], "/total_act_energy", "energy", "Energy", Some("energy"), KWH),
    number(&["em1data"], "/total_act_ret_energy", "energy_returned", "Energy returned", Some("energy"), KWH),
    number(&["temperature"], "/tC", "temperature", "Temperature", Some("temperature"), CELSIUS),
    number(&["humidity"], "/rh", "humidity", "Humidity", Some("humidity"), PERCENT),
    number(&["illuminance"], "/lux", "illuminance", "Illuminance", Some("illuminance"), ("lx", 0, 1.0)),
    number(&["voltmeter"], "/voltage", "voltage_in", "Voltage at the input", Some("voltage"), ("V", 2, 1.0)),
    diagnostic(number(&["devicepower"], "/battery/percent", "battery", "Battery", Some("battery"), PERCENT)),
    truth(&["smoke"], "/alarm", "smoke", "Smoke", Some("smoke")),
    truth(&["flood"], "/alarm", "flood", "Flood", Some("moisture")),
    truth(&["input"], "/state", "input", "Input", None),
    number(&["input"], "/percent", "input_level", "Input level", None, ("%", 1, 1.0)),
    diagnostic(number(
        &["wifi"],
        "/rssi",
        "signal_strength",
        "Signal strength",
        Some("signal_strength"),
        ("dBm", 0, 1.0),
    )),
];

impl Kind {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "switch" => Self::Switch,
            "light" => Self::Light,
            "rgb" => Self::Rgb,
            "rgbw" => Self::Rgbw,
            "cct" => Self::Cct,
            _ => return None,
        })
    }

    fn method(self) -> &'static str {
        match self {
            Self::Switch => "Switch.Set",
            Self::Light => "Light.Set",
            Self::Rgb => "RGB.Set",
            Self::Rgbw => "RGBW.Set",
            Self::Cct => "CCT.Set",
        }
    }

    fn capabilities(self, config: Option<&Value>) -> Capabilities {
        let light = LightCapabilities { brightness: true, transition: true, ..LightCapabilities::default() };
        match self {
            Self::Switch => Capabilities::Switch,
            Self::Light => Capabilities::Light(light),
            Self::Rgb | Self::Rgbw => {
                Capabilities::Light(LightCapabilities { color: Some(Gamut::SRGB), ..light })
            }
            Self::Cct => {
                Capabilities::Light(LightCapabilities { color_temperature: Some(whites(config)), ..light })
            }
        }
    }
}

fn is_understood(word: &str) -> bool {
    let is_part = Kind::of(word).is_some() || word == "input" || word == "cover";
    is_part || ROWS.iter().any(|row| row.kinds.contains(&word))
}

/// The range of white of a channel.
fn whites(config: Option<&Value>) -> KelvinRange {
    let end = |position: &str| {
        let kelvin = config?.pointer(position)?.as_u64()?;
        u16::try_from(kelvin).ok().filter(|kelvin| (1_000..=20_000).contains(kelvin))
    };
    match (end("/ct_range/0"), end("/ct_range/1")) {
        (Some(min_k), Some(max_k)) if min_k < max_k => KelvinRange { min_k, max_k },
        _ => WHITES,
    }
}

impl Parts {
    /// The components of a device, and the devices that they make.
    pub(super) fn of(
        info: &Info,
        config: &Value,
        status: &Value,
        place: &str,
    ) -> Result<(Self, Vec<Description>), String> {
        let status = status.as_object().ok_or("the status is no object")?;
        let whole = info.describe(place, None)?;
        let mut made = Self::default();
        let mut devices = Vec::new();
        let mut rest = whole.clone();
        let mut has_cover = false;
        let numbered = status.iter().filter_map(|(key, shown)| {
            let (word, number) = key.split_once(':').unwrap_or((key, "0"));
            Some((key, word, number.parse::<u32>().ok()?, shown))
        });
        // What is not understood takes no place: a gateway tells of dozens of sensors of others.
        let understood = numbered.filter(|(_, word, ..)| is_understood(word));
        for (key, word, number, shown) in understood.take(MOST_PARTS) {
            let config = config.get(key);
            has_cover |= word == "cover";
            let part = |capabilities| part(info, &whole, (word, number), config, capabilities);
            if let Some(kind) = Kind::of(word) {
                let mut device = part(kind.capabilities(config))?;
                made.sense(key, word, shown, &mut device, None);
                made.channels.insert(key.clone(), Channel::new(kind, number, device.id.clone()));
                devices.push(device);
            } else if word == "input"
                && config.and_then(|config| config.get("type")) == Some(&json!("button"))
            {
                let events = PUSHES.map(str::to_owned).to_vec();
                let device = part(Capabilities::Button(ButtonCapabilities { press: false, events }))?;
                made.buttons.insert(key.clone(), device.id.clone());
                devices.push(device);
            } else {
                made.sense(key, word, shown, &mut rest, Some(number));
            }
        }
        rest.note = has_cover.then(|| "its cover is not driven: Hearth knows no covers yet".to_owned());
        if devices.is_empty() || !rest.sensors.is_empty() || has_cover {
            devices.push(rest);
        }
        Ok((made, devices))
    }

    /// What a status, of all or of what changed, shows; none of what is no status.
    pub(super) fn take(&mut self, status: &Value, is_whole: bool) -> Option<Snapshot> {
        let status = status.as_object()?;
        let mut snapshot = Snapshot { is_whole, ..Snapshot::default() };
        for (key, shown) in status {
            if let Some(channel) = self.channels.get_mut(key)
                && let Some(state) = channel.take(shown, is_whole)
            {
                snapshot.states.insert(channel.device.clone(), state);
            }
            for sensor in self.sensors.get(key).into_iter().flatten() {
                if let Some(value) = sensor.row.measure(shown) {
                    let measured = snapshot.measured.entry(sensor.device.clone()).or_default();
                    measured.insert(sensor.key.clone(), value);
                }
            }
        }
        Some(snapshot)
    }

    /// What happened to components.
    pub(super) fn events(&self, events: &[Event]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for Event { component, event } in events {
            snapshot.is_changed |= event == "config_changed";
            let button = self.buttons.get(component).filter(|_| PUSHES.contains(&event.as_str()));
            snapshot.events.extend(button.map(|device| (device.clone(), event.clone())));
        }
        snapshot
    }

    /// The method that carries a change out, and its parameters.
    pub(super) fn change(&self, device: &DeviceId, change: &Change) -> Result<(&'static str, Value), String> {
        let channel = self.channels.values().find(|channel| channel.device == *device);
        let channel = channel.ok_or_else(|| format!("{device} has no channel any more"))?;
        let mut parameters = Map::from_iter([("id".to_owned(), json!(channel.number))]);
        match change {
            Change::Switch { on } => {
                parameters.insert("on".to_owned(), json!(on));
            }
            Change::Light(light) => channel.tell(light, &mut parameters),
            Change::Press => return Err(format!("{device} cannot be pressed")),
        }
        Ok((channel.kind.method(), parameters.into()))
    }

    /// Adds the sensors of a component to a device; with its number where several are on one device.
    fn sense(&mut self, key: &str, word: &str, shown: &Value, device: &mut Description, number: Option<u32>) {
        for row in ROWS.iter().filter(|row| row.kinds.contains(&word) && shown.pointer(row.pointer).is_some())
        {
            let number = number.filter(|number| *number > 0);
            let own = number.map_or_else(|| row.key.to_owned(), |number| format!("{}_{number}", row.key));
            if device.sensors.len() >= MOST_SENSORS || device.sensors.contains_key(&own) {
                continue;
            }
            let name = number.map_or_else(|| row.name.to_owned(), |number| format!("{} {number}", row.name));
            device.sensors.insert(own.clone(), row.describe(&name));
            let sensor = Sensor { device: device.id.clone(), key: own, row };
            self.sensors.entry(key.to_owned()).or_default().push(sensor);
        }
    }
}

impl Row {
    fn describe(&self, name: &str) -> SensorDescription {
        let described = match self.measures {
            Measures::Number(unit, decimals, _) => {
                SensorDescription::numeric(name, self.class, unit, decimals)
            }
            Measures::Truth => SensorDescription::binary(name, self.class),
        };
        if self.diagnostic { described.diagnostic() } else { described }
    }

    /// What a component's status says of it; none where it says nothing.
    fn measure(&self, shown: &Value) -> Option<Measurement> {
        let value = shown.pointer(self.pointer)?;
        Some(match (self.measures, value) {
            (Measures::Number(_, _, factor), Value::Number(number)) => {
                Measurement::Number(number.as_f64().unwrap_or(f64::NAN) * factor)
            }
            (Measures::Truth, Value::Bool(truth)) => Measurement::Truth(*truth),
            (_, Value::Null) => Measurement::Unknown("the device knows no value".to_owned()),
            (_, other) => {
                Measurement::Unknown(format!("the device sent {}", readable(&other.to_string(), 40)))
            }
        })
    }
}

impl Channel {
    fn new(kind: Kind, number: u32, device: DeviceId) -> Self {
        let (output, brightness, rgb, white, kelvin) = (None, None, None, None, None);
        Self { kind, number, device, output, brightness, rgb, white, kelvin, is_fading: false }
    }

    /// Lays what is told over what was known; gives the state when it is known and does not move.
    fn take(&mut self, shown: &Value, is_whole: bool) -> Option<State> {
        let shown = shown.as_object()?;
        if is_whole {
            *self = Self::new(self.kind, self.number, self.device.clone());
        }
        let byte = |value: &Value| value.as_u64().and_then(|value| u8::try_from(value).ok());
        let number = |key: &str| shown.get(key).and_then(Value::as_f64).filter(|number| number.is_finite());
        self.output = shown.get("output").and_then(Value::as_bool).or(self.output);
        self.brightness = number("brightness").or(self.brightness);
        self.kelvin = number("ct").or(self.kelvin);
        self.white = shown.get("white").and_then(byte).or(self.white);
        let rgb = shown.get("rgb").and_then(Value::as_array).and_then(|rgb| match rgb.as_slice() {
            [red, green, blue] => Some([byte(red)?, byte(green)?, byte(blue)?]),
            _ => None,
        });
        self.rgb = rgb.or(self.rgb);
        // While it fades it tells how far it is and where it goes; the end is told without.
        if let Some(transition) = shown.get("transition") {
            self.is_fading = !transition.is_null();
        } else if shown.contains_key("output") || shown.contains_key("brightness") {
            self.is_fading = false;
        }
        if self.is_fading { None } else { self.state() }
    }

    fn state(&self) -> Option<State> {
        let on = self.output?;
        if self.kind == Kind::Switch {
            return Some(State::Switch { on });
        }
        let brightness = fraction(self.brightness?);
        let color = match self.kind {
            Kind::Switch | Kind::Light => ColorMode::None,
            Kind::Rgb => ColorMode::Color(color::rgb_to_xy(self.rgb?)),
            Kind::Rgbw => ColorMode::Color(color::rgb_to_xy(with_white(self.rgb?, self.white.unwrap_or(0)))),
            Kind::Cct => ColorMode::Temperature { kelvin: whole(self.kelvin?) },
        };
        Some(State::Light(LightState::plain(on, brightness, color)))
    }

    fn tell(&self, light: &LightChange, parameters: &mut Map<String, Value>) {
        let mut tell = |key: &str, value: Value| parameters.insert(key.to_owned(), value);
        if let Some(on) = light.on {
            tell("on", json!(on));
        }
        if let Some(brightness) = light.brightness {
            tell("brightness", json!(color::to_percent(brightness).max(1)));
        }
        match (light.color, self.kind) {
            (Some(ColorMode::Color(xy)), Kind::Rgbw) => {
                let (rgb, white) = without_white(color::xy_to_rgb(xy));
                tell("rgb", json!(rgb));
                tell("white", json!(white));
            }
            (Some(ColorMode::Color(xy)), _) => {
                tell("rgb", json!(color::xy_to_rgb(xy)));
            }
            (Some(ColorMode::Temperature { kelvin }), _) => {
                tell("ct", json!(kelvin));
            }
            (Some(ColorMode::None) | None, _) => {}
        }
        if light.transition_ms > 0 {
            let seconds = f64::from(light.transition_ms) / 1_000.0;
            tell("transition_duration", json!(seconds.clamp(TRANSITION.0, TRANSITION.1)));
        }
    }
}

/// A device for a part of another.
fn part(
    info: &Info,
    whole: &Description,
    (word, number): (&str, u32),
    config: Option<&Value>,
    capabilities: Capabilities,
) -> Result<Description, String> {
    let own = config.and_then(|config| config.get("name")).and_then(Value::as_str).unwrap_or_default();
    let own = readable(own, MOST_NAME);
    let name = if own.is_empty() { format!("{} {word} {number}", whole.name).trim().to_owned() } else { own };
    let id = info.device(Some(&format!("{word}-{number}")))?;
    Ok(Description { id, name, capabilities, ..whole.clone() })
}

/// What red, green and blue have in common goes to the white channel.
fn without_white(rgb: [u8; 3]) -> ([u8; 3], u8) {
    let white = rgb.into_iter().min().unwrap_or(0);
    (rgb.map(|value| value - white), white)
}

fn with_white(rgb: [u8; 3], white: u8) -> [u8; 3] {
    // Scaled so that the largest fits, for the ratio is the colour.
    let sums = rgb.map(|value| u32::from(value) + u32::from(white));
    let largest = sums.into_iter().max().unwrap_or(0).max(255);
    sums.map(|sum| u8::try_from(sum * 255 / largest).unwrap_or(u8::MAX))
}

/// A percentage as a fraction of 65 535.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn fraction(percent: f64) -> u16 {
    (percent.clamp(0.0, 100.0) * 655.35).round() as u16 // `as` saturates
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u16 {
    number.round() as u16 // `as` saturates, and takes NaN as 0
}
