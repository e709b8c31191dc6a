//! What the kernel says of a thermometer: Documentation/w1/slaves/w1_therm.rst. Pure.

/// The bytes of a sensor's memory, its checksum among them.
const BYTES: usize = 9;

/// Why a reading is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// The checksum of the nine bytes is wrong.
    #[error("the checksum of what the sensor sent is wrong: look at the length and the pull-up of the wires")]
    Checksum,
    /// All bytes are zero, whose checksum is right.
    #[error("the sensor sent nothing but zeros: its data wire is shorted to ground")]
    Shorted,
    /// The file holds something else.
    #[error("it is no reading of a thermometer")]
    NoReading,
}

/// What belongs into `w1_slave`.
pub(super) const W1_SLAVE: &str = "nine bytes, whether their checksum is right, and the temperature";
/// What belongs into `temperature`.
pub(super) const TEMPERATURE: &str = "a temperature in thousandths of °C";

/// The 64 bits that tell a sensor from all others, without their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rom {
    family: u8,
}

impl Rom {
    /// Reads the name that the kernel gives a sensor, such as `28-0316a2794cff`; none of what is no thermometer.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (family, serial) = name.split_once('-')?;
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if family.len() != 2 || serial.len() != 12 || !is_hex(family) || !is_hex(serial) {
            return None;
        }
        let rom = Self { family: u8::from_str_radix(family, 16).ok()? };
        (!rom.model().is_empty()).then_some(rom)
    }

    /// The model, by the family code; empty for what is no thermometer.
    pub(super) fn model(self) -> &'static str {
        match self.family {
            0x10 => "DS18S20",
            0x22 => "DS1822",
            0x28 => "DS18B20",
            0x3b => "DS1825 or MAX31850",
            0x42 => "DS28EA00",
            _ => "",
        }
    }

    /// What it is able to measure, in °C. A MAX31850 has a thermocouple, and the same family as a DS1825.
    pub(super) fn range(self) -> std::ops::RangeInclusive<f64> {
        if self.family == 0x3b { -270.0..=1_800.0 } else { -55.0..=125.0 }
    }
}

/// Reads `w1_slave`: nine bytes and whether their checksum is right, then the same bytes and the temperature.
///
/// ```text
/// 72 01 4b 46 7f ff 0e 10 57 : crc=57 YES
/// 72 01 4b 46 7f ff 0e 10 57 t=23125
/// ```
pub(super) fn parse_w1_slave(text: &str) -> Result<f64, WireError> {
    let (first, rest) = text.split_once('\n').ok_or(WireError::NoReading)?;
    let (bytes, verdict) = first.split_once(": crc=").ok_or(WireError::NoReading)?;
    let is_right = match verdict.split_whitespace().nth(1) {
        Some("YES") => true,
        Some("NO") => false,
        _ => return Err(WireError::NoReading),
    };
    if !is_right {
        return Err(WireError::Checksum);
    }
    let bytes: Vec<&str> = bytes.split_whitespace().collect();
    if bytes.len() != BYTES {
        return Err(WireError::NoReading);
    }
    if bytes.iter().all(|byte| *byte == "00") {
        return Err(WireError::Shorted);
    }
    let (_, milli) = rest.rsplit_once("t=").ok_or(WireError::NoReading)?;
    parse_temperature(milli)
}

/// Reads `temperature`: thousandths of °C.
pub(super) fn parse_temperature(text: &str) -> Result<f64, WireError> {
    let milli = text.trim().parse::<i32>().map_err(|_| WireError::NoReading)?;
    Ok(f64::from(milli) / 1_000.0)
}
