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
    /// A direction that is so now: 359° and 1° are neighbours.
    Angle,
    /// A meter, which only rises.
    Rising,
}

impl StateClass {
    /// What Home Assistant calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Measurement => "measurement",
            Angle => "measurement_angle",
            Rising => "total_increasing",
        }
    }
}

use StateClass::{Angle, Measurement, Rising};

const OF_NUMBERS: &[(&str, &[&str], StateClass)] = &[
    ("absolute_humidity", &["mg/m³", "g/m³"], Measurement),
    ("apparent_power", &["mVA", "VA", "kVA"], Measurement),
    ("aqi", &[""], Measurement),
    ("area", &["mm²", "cm²", "m²", "km²", "ha", "in²", "ft²", "yd²", "mi²", "ac"], Measurement),
    ("atmospheric_pressure", PRESSURES, Measurement),
    ("battery", &["%"], Measurement),
    ("blood_glucose_concentration", &["mg/dL", "mmol/L"], Measurement),
    ("carbon_dioxide", &["ppm"], Measurement),
    ("carbon_monoxide", &["ppm", "ppb", "mg/m³", "μg/m³"], Measurement),
    ("conductivity", &["S/cm", "mS/cm", "μS/cm"], Measurement),
    ("current", &["A", "mA", "μA"], Measurement),
    (
        "data_rate",
        &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s"],
        Measurement,
    ),
    (
        "data_size",
        &[
            "bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB", "KiB", "MiB",
            "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB",
        ],
        Measurement,
    ),
    ("distance", &["km", "m", "cm", "mm", "mi", "nmi", "yd", "in", "ft"], Measurement),
    ("duration", &["d", "h", "min", "s", "ms", "μs"], Measurement),
    ("energy", ENERGIES, Rising),
    ("energy_distance", &["kWh/100km", "Wh/km", "km/kWh", "mi/kWh"], Measurement),
    ("energy_storage", ENERGIES, Measurement),
    ("frequency", &["mHz", "Hz", "kHz", "MHz", "GHz"], Measurement),
    ("gas", &["m³", "ft³", "CCF", "MCF", "L"], Rising),
    ("humidity", &["%"], Measurement),
    ("illuminance", &["lx"], Measurement),
    ("irradiance", &["W/m²", "BTU/(h⋅ft²)"], Measurement),
    ("moisture", &["%"], Measurement),
    ("nitrogen_dioxide", &["μg/m³", "ppb", "ppm"], Measurement),
    ("nitrogen_monoxide", &["μg/m³", "ppb"], Measurement),
    ("nitrous_oxide", &["μg/m³"], Measurement),
    ("ozone", &["μg/m³", "ppb", "ppm"], Measurement),
    ("ph", &[""], Measurement),
    ("pm1", &["μg/m³"], Measurement),
    ("pm10", &["μg/m³"], Measurement),
    ("pm25", &["μg/m³"], Measurement),
    ("pm4", &["μg/m³"], Measurement),
    ("power", &["mW", "W", "kW", "MW", "GW", "TW"], Measurement),
    ("power_factor", &["%", ""], Measurement),
    ("precipitation", &["mm", "cm", "in"], Measurement),
    ("precipitation_intensity", &["mm/h", "mm/d", "in/h", "in/d"], Measurement),
    ("pressure", PRESSURES, Measurement),
    ("radon", &["Bq/m³", "pCi/L"], Measurement),
    ("reactive_energy", &["varh", "kvarh"], Rising),
    ("reactive_power", &["mvar", "var", "kvar"], Measurement),
    ("signal_strength", &["dB", "dBm"], Measurement),
    ("sound_pressure", &["dB", "dBA"], Measurement),
    (
        "speed",
        &[
            "m/s", "km/h", "mph", "kn", "ft/s", "m/min", "mm/s", "mm/h", "mm/d", "in/s", "in/h", "in/d",
            "Beaufort",
        ],
        Measurement,
    ),
    ("sulphur_dioxide", &["μg/m³", "ppb"], Measurement),
    ("temperature", &["°C", "°F", "K"], Measurement),
    ("temperature_delta", &["°C", "°F", "K"], Measurement),
    ("volatile_organic_compounds", &["μg/m³", "mg/m³"], Measurement),
    ("volatile_organic_compounds_parts", &["ppm", "ppb"], Measurement),
    ("voltage", &["V", "mV", "μV", "kV", "MV"], Measurement),
    ("volume", VOLUMES, Rising),
    (
        "volume_flow_rate",
        &["m³/s", "m³/min", "m³/h", "L/s", "L/min", "L/h", "mL/s", "ft³/min", "gal/min", "gal/h", "gal/d"],
        Measurement,
    ),
    ("volume_storage", VOLUMES, Measurement),
    ("water", &["m³", "ft³", "CCF", "MCF", "L", "gal"], Rising),
    ("weight", &["kg", "g", "mg", "μg", "oz", "lb", "st"], Measurement),
    ("wind_direction", &["°"], Angle),
    ("wind_speed", &["m/s", "km/h", "mph", "kn", "ft/s", "m/min", "mm/s", "in/s", "Beaufort"], Measurement),
];

const ENERGIES: &[&str] =
    &["J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh", "cal", "kcal", "Mcal", "Gcal", "thm"];
const PRESSURES: &[&str] =
    &["Pa", "mPa", "hPa", "kPa", "bar", "mbar", "cbar", "mmHg", "inHg", "inH₂O", "psi", "atm"];
const VOLUMES: &[&str] = &["m³", "L", "mL", "ft³", "CCF", "MCF", "gal", "fl. oz."];

const OF_TRUTH: [&str; 29] = [
    "battery",
    "battery_charging",
    "carbon_monoxide",
    "cold",
    "connectivity",
    "door",
    "garage_door",
    "gas",
    "glass_break",
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
