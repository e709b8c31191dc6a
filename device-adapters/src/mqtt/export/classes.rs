//! Which device class goes with which unit: Home Assistant refuses a sensor where they do not fit. Pure.
//!
//! Sources: <https://www.home-assistant.io/integrations/sensor/#device-class>,
//! <https://www.home-assistant.io/integrations/binary_sensor/#device-class>,
//! <https://developers.home-assistant.io/docs/core/entity/sensor/#available-state-classes>.

/// What the numbers of a sensor are over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateClass {
    /// What is so now.
    Measurement,
    /// A meter, which only rises.
    Rising,
}

use StateClass::{Measurement, Rising};

const OF_NUMBERS: &[(&str, &[&str], StateClass)] = &[
    ("apparent_power", &["mVA", "VA", "kVA"], Measurement),
    ("aqi", &[""], Measurement),
    ("atmospheric_pressure", PRESSURES, Measurement),
    ("battery", &["%"], Measurement),
    ("carbon_dioxide", &["ppm"], Measurement),
    ("carbon_monoxide", &["ppm", "ppb", "mg/m³", "μg/m³"], Measurement),
    ("conductivity", &["S/cm", "mS/cm", "μS/cm"], Measurement),
    ("current", &["A", "mA"], Measurement),
    ("data_rate", &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s"], Measurement),
    ("data_size", &["bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB"], Measurement),
    ("distance", &["km", "m", "cm", "mm", "mi", "yd", "in", "ft"], Measurement),
    ("duration", &["d", "h", "min", "s", "ms", "μs"], Measurement),
    ("energy", &["J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh"], Rising),
    ("frequency", &["Hz", "kHz", "MHz", "GHz"], Measurement),
    ("gas", &["m³", "ft³", "CCF", "L"], Rising),
    ("humidity", &["%"], Measurement),
    ("illuminance", &["lx"], Measurement),
    ("irradiance", &["W/m²"], Measurement),
    ("moisture", &["%"], Measurement),
    ("nitrogen_dioxide", &["μg/m³", "ppb"], Measurement),
    ("ozone", &["μg/m³", "ppb"], Measurement),
    ("ph", &[""], Measurement),
    ("pm1", &["μg/m³"], Measurement),
    ("pm10", &["μg/m³"], Measurement),
    ("pm25", &["μg/m³"], Measurement),
    ("power", &["mW", "W", "kW", "MW"], Measurement),
    ("power_factor", &["%", ""], Measurement),
    ("precipitation", &["mm", "cm", "in"], Measurement),
    ("precipitation_intensity", &["mm/h", "mm/d", "in/h", "in/d"], Measurement),
    ("pressure", PRESSURES, Measurement),
    ("reactive_power", &["mvar", "var", "kvar"], Measurement),
    ("signal_strength", &["dB", "dBm"], Measurement),
    ("sound_pressure", &["dB", "dBA"], Measurement),
    ("speed", SPEEDS, Measurement),
    ("sulphur_dioxide", &["μg/m³", "ppb"], Measurement),
    ("temperature", &["°C", "°F", "K"], Measurement),
    ("volatile_organic_compounds", &["μg/m³", "mg/m³"], Measurement),
    ("volatile_organic_compounds_parts", &["ppm", "ppb"], Measurement),
    ("voltage", &["V", "mV", "μV", "kV"], Measurement),
    ("volume_storage", &["m³", "L", "mL", "gal"], Measurement),
    ("water", &["m³", "ft³", "CCF", "L", "gal"], Rising),
    ("weight", &["kg", "g", "mg", "μg", "oz", "lb", "st"], Measurement),
    ("wind_speed", SPEEDS, Measurement),
];

const PRESSURES: &[&str] = &["Pa", "hPa", "kPa", "bar", "mbar", "mmHg", "inHg", "psi"];
const SPEEDS: &[&str] = &["m/s", "km/h", "mph", "kn", "ft/s", "mm/s", "in/s"];

const OF_TRUTH: [&str; 28] = [
    "battery",
    "battery_charging",
    "carbon_monoxide",
    "cold",
    "connectivity",
    "door",
    "garage_door",
    "gas",
    "heat",
    "light",
    "lock",
    "moisture",
    "motion",
    "moving",
    "occupancy",
    "opening",
    "plug",
    "power",
    "presence",
    "problem",
    "running",
    "safety",
    "smoke",
    "sound",
    "tamper",
    "update",
    "vibration",
    "window",
];

/// A unit as it is asked for: two signs look the same, U+00B5 and U+03BC, and it is the second.
pub(super) fn unit(unit: &str) -> String {
    unit.trim().replace('\u{b5}', "\u{3bc}")
}

/// The class of a sensor of numbers where its unit fits, and what its numbers are over time.
pub(super) fn of_number(class: Option<&str>, unit: &str) -> (Option<&'static str>, Option<StateClass>) {
    match class {
        None => (None, Some(Measurement)),
        Some(class) => match OF_NUMBERS.iter().find(|(known, _, _)| *known == class) {
            Some((known, units, state_class)) if units.contains(&unit) => (Some(*known), Some(*state_class)),
            // Without its class it is still a number, but nobody knows whether it only rises.
            _ => (None, None),
        },
    }
}

/// Whether there is such a class of truth.
pub(super) fn is_of_truth(class: &str) -> bool {
    OF_TRUTH.contains(&class)
}
