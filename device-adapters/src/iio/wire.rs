//! The channels of a chip and their units: Documentation/ABI/testing/sysfs-bus-iio of the Linux kernel. Pure.

use std::collections::BTreeMap;

use crate::model::SensorDescription;
use crate::model::sensor::sensor_key;

/// A kind of channel that a home has a use for.
#[derive(Debug)]
struct Kind {
    /// Its name in the file names.
    name: &'static str,
    /// For people.
    title: &'static str,
    /// The key of its sensor; the name, where that is known by another word.
    key: &'static str,
    class: Option<&'static str>,
    unit: &'static str,
    decimals: u8,
    /// How many of that unit one of the kernel's is.
    factor: f64,
}

const fn kind(
    name: &'static str,
    title: &'static str,
    key: &'static str,
    class: Option<&'static str>,
    (unit, decimals, factor): (&'static str, u8, f64),
) -> Kind {
    Kind { name, title, key, class, unit, decimals, factor }
}

/// All of them. The kernel counts in thousandths of °C, of a percent of humidity, of V, A and W, in kPa, and in percent
/// of a gas.
const KINDS: &[Kind] = &[
    kind("temp", "Temperature", "temperature", Some("temperature"), ("°C", 1, 0.001)),
    kind("humidityrelative", "Humidity", "humidity", Some("humidity"), ("%", 1, 0.001)),
    kind("pressure", "Pressure", "pressure", Some("atmospheric_pressure"), ("hPa", 1, 10.0)),
    kind("illuminance", "Illuminance", "illuminance", Some("illuminance"), ("lx", 1, 1.0)),
    kind("voltage", "Voltage", "voltage", Some("voltage"), ("V", 3, 0.001)),
    kind("current", "Current", "current", Some("current"), ("A", 3, 0.001)),
    kind("power", "Power", "power", Some("power"), ("W", 3, 0.001)),
    kind("resistance", "Resistance", "resistance", None, ("Ω", 0, 1.0)),
    kind("concentration_co2", "Carbon dioxide", "co2", Some("carbon_dioxide"), ("ppm", 0, 10_000.0)),
    kind(
        "concentration_voc",
        "Organic compounds",
        "voc",
        Some("volatile_organic_compounds_parts"),
        ("ppb", 0, 1e7),
    ),
    kind("massconcentration_pm1", "Fine dust 1 µm", "pm1", Some("pm1"), ("µg/m³", 1, 1.0)),
    kind("massconcentration_pm2p5", "Fine dust 2.5 µm", "pm2_5", Some("pm25"), ("µg/m³", 1, 1.0)),
    kind("massconcentration_pm10", "Fine dust 10 µm", "pm10", Some("pm10"), ("µg/m³", 1, 1.0)),
];

/// Something that a chip measures.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    /// The file of its value.
    pub(super) file: String,
    /// Whether that has the kernel's unit already; otherwise an offset and a scale apply.
    pub(super) is_processed: bool,
    kind: &'static Kind,
    /// What stands between the kind and the end: the number of the channel, such as `0`, or `_ambient`; may be empty.
    which: String,
}

impl Channel {
    /// The channels of a folder, in the order of their files; each once, processed if the kernel does that.
    pub(super) fn all(files: &[String]) -> Vec<Self> {
        let mut channels: BTreeMap<String, Self> = BTreeMap::new();
        for channel in files.iter().filter_map(|file| Self::parse(file)) {
            match channels.get(&channel.key()) {
                Some(known) if known.is_processed || !channel.is_processed => {}
                _ => {
                    channels.insert(channel.key(), channel);
                }
            }
        }
        channels.into_values().collect()
    }

    /// The key of its sensor, such as `temperature` or `voltage_0`.
    pub(super) fn key(&self) -> String {
        match sensor_key(&self.which) {
            Some(which) => format!("{}_{which}", self.kind.key),
            None => self.kind.key.to_owned(),
        }
    }

    /// Its sensor.
    pub(super) fn description(&self) -> SensorDescription {
        let which = self.which.replace('_', " ");
        let name = format!("{} {}", self.kind.title, which.trim());
        SensorDescription::numeric(name.trim_end(), self.kind.class, self.kind.unit, self.kind.decimals)
    }

    /// The files in which its offset or scale may stand: its own, or that of all channels of its kind.
    pub(super) fn shared(&self, what: &str) -> [String; 2] {
        let kind = self.kind.name;
        // What all differential channels share has a name of its own: the scale of the others is another one.
        let of_all = if self.which.contains('-') {
            format!("in_{kind}-{kind}_{what}")
        } else {
            format!("in_{kind}_{what}")
        };
        [format!("in_{kind}{}_{what}", self.which), of_all]
    }

    /// A value in the kernel's unit, in that of the description.
    pub(super) fn in_unit(&self, value: f64) -> Result<f64, String> {
        let value = value * self.kind.factor;
        if value.is_finite() { Ok(value) } else { Err(format!("{} times its scale is no number", self.file)) }
    }

    fn parse(file: &str) -> Option<Self> {
        let channel = file.strip_prefix("in_")?;
        let (channel, is_processed) = match channel.strip_suffix("_input") {
            Some(channel) => (channel, true),
            None => (channel.strip_suffix("_raw")?, false),
        };
        let fits = |kind: &&Kind| channel.strip_prefix(kind.name).is_some_and(is_which);
        // `massconcentration_pm1` also begins `massconcentration_pm10`: the longest name fits best.
        let kind = KINDS.iter().filter(fits).max_by_key(|kind| kind.name.len())?;
        let which = channel.strip_prefix(kind.name)?.to_owned();
        Some(Self { file: file.to_owned(), is_processed, kind, which })
    }
}

/// Whether a text is nothing, the number of a channel (`0`, `0-voltage1`), or a word that tells it from others (`_ambient`);
/// not the highest or mean value, which are no channels of their own.
fn is_which(text: &str) -> bool {
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let other = ["_peak", "_trough", "_mean", "_max", "_min"].iter().any(|end| text.ends_with(end));
    let begins = number.is_empty()
        || number.starts_with('_')
        || (number.len() < text.len() && number.starts_with('-'));
    begins && !other && text.len() <= 32 && text.chars().all(fits)
}
