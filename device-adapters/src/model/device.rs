//! What holds for every kind of device: its id, its description, and the life of a command.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    change::ButtonCapabilities, light::LightCapabilities, sensor::Sensors, weather::WeatherCapabilities,
};

/// The longest device id, in bytes.
pub const MAX_DEVICE_ID: usize = 64;

/// Why an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The device id is empty or longer than [`MAX_DEVICE_ID`].
    #[error("device id has {length} bytes: it must have 1 to {MAX_DEVICE_ID}")]
    DeviceLength {
        /// The length that was given, in bytes.
        length: usize,
    },
    /// The device id holds a character that ids may not hold.
    #[error("device id {id:?} holds {found:?}: only a-z, 0-9 and '-' are allowed")]
    DeviceCharacter {
        /// The id that was given.
        id: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// The text is not a command id.
    #[error("command id must be 32 hexadecimal digits, but {length} bytes of something else were given")]
    Command {
        /// The length that was given, in bytes.
        length: usize,
    },
}

/// The stable id of one piece of hardware, such as `lifx-d073d5123456`.
///
/// It is made from what the hardware itself reports (a serial number, a MAC address), so that two
/// nodes that see the same bulb agree on its name without asking each other. 1 to 64 bytes of
/// `a-z`, `0-9` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

impl DeviceId {
    /// Checks and wraps an id.
    ///
    /// # Errors
    /// [`IdError::DeviceLength`] or [`IdError::DeviceCharacter`].
    pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
        let id = id.into();
        if id.is_empty() || id.len() > MAX_DEVICE_ID {
            return Err(IdError::DeviceLength { length: id.len() });
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match id.chars().find(|c| !allowed(*c)) {
            Some(found) => Err(IdError::DeviceCharacter { id, found }),
            None => Ok(Self(id)),
        }
    }

    /// An id of an adapter and the hardware's own bytes in hexadecimal: `prefix-0a1b…`.
    ///
    /// # Errors
    /// As [`DeviceId::new`].
    pub fn from_hardware(prefix: &str, bytes: &[u8]) -> Result<Self, IdError> {
        Self::new(format!("{prefix}-{}", Hex(bytes)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl TryFrom<String> for DeviceId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

/// Bytes shown in lower-case hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The id of one command: 16 opaque bytes, shown and serialised as 32 hexadecimal digits.
///
/// Ids have no order; "older" and "newer" mean the order in which an adapter received them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(pub [u8; 16]);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandId({self})")
    }
}

impl FromStr for CommandId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Command { length: text.len() };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl TryFrom<String> for CommandId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> Self {
        id.to_string()
    }
}

/// What a device is and can do, as far as the hardware tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The stable id.
    pub id: DeviceId,
    /// The id of the adapter that speaks to it, such as `lifx`.
    pub adapter: String,
    /// The name the hardware carries (its label); may be empty, is not unique.
    pub name: String,
    /// Who made it.
    pub manufacturer: String,
    /// What it is called by its maker, or its product number when that is not known.
    pub model: String,
    /// The version of its firmware, when it tells.
    pub firmware: Option<String>,
    /// Where this node reaches it, for `hearth doctor` and people; not an identity.
    pub address: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What it measures.
    pub sensors: Sensors,
    /// A remark for people, such as "unknown product, treated as a full colour light".
    pub note: Option<String>,
}

/// What a device can do, by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Capabilities {
    /// A light.
    Light(LightCapabilities),
    /// A relay, a plug: on or off.
    Switch,
    /// It measures, and does nothing.
    Sensor,
    /// A button: pressed by people, by commands, or both.
    Button(ButtonCapabilities),
    /// A weather service.
    Weather(WeatherCapabilities),
}

impl Capabilities {
    /// What people call it.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Light(_) => "light",
            Self::Switch => "switch",
            Self::Sensor => "sensor",
            Self::Button(_) => "button",
            Self::Weather(_) => "weather service",
        }
    }
}

/// Whether a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It answers.
    Online,
    /// It was asked and does not answer.
    Offline,
    /// Nobody asks it at present (its adapter crashed, its owner is gone): the last report may be old.
    Stale,
}

/// How a reported state is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The hardware was asked for its state and answered this.
    ReadBack,
    /// Nothing reads back from this hardware: this is what it was last told.
    Assumed,
}

/// Where a command stands. The order is `Sent`, `Acknowledged`, then exactly one of the final five.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// The first message left this node.
    Sent,
    /// The device said that it received it. This is never a confirmation.
    Acknowledged,
    /// Final: a state read after the acknowledgement shows what was asked for.
    Confirmed,
    /// Final: the device took it, and nothing can be read back from it. Only where that is so by its nature.
    Assumed,
    /// Final: the deadline passed first.
    TimedOut {
        /// What was missing, and what was read back instead.
        reason: String,
    },
    /// Final: a newer command for the same device took over.
    Superseded,
    /// Final: the command cannot be carried out.
    Failed {
        /// The input, the rule, and the way out.
        reason: String,
    },
}

impl Stage {
    /// Whether nothing can follow this stage.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Sent | Self::Acknowledged)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_device_id_holds_only_what_every_part_can_carry() {
        assert_eq!(
            DeviceId::from_hardware("lifx", &[0xd0, 0x73, 0xd5, 0, 1, 2]).unwrap().as_str(),
            "lifx-d073d5000102"
        );
        assert_eq!(DeviceId::new(""), Err(IdError::DeviceLength { length: 0 }));
        assert_eq!(DeviceId::new("a".repeat(65)), Err(IdError::DeviceLength { length: 65 }));
        assert!(matches!(DeviceId::new("lifx/1"), Err(IdError::DeviceCharacter { found: '/', .. })));
        assert!(matches!(DeviceId::new("LIFX"), Err(IdError::DeviceCharacter { found: 'L', .. })));
        assert!(serde_json::from_str::<DeviceId>("\"Bad Id\"").is_err());
    }

    #[test]
    fn a_command_id_is_32_hexadecimal_digits_both_ways() {
        let id = CommandId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, "\"000102030405060708090a0b0c0d0eff\"");
        assert_eq!(serde_json::from_str::<CommandId>(&text).unwrap(), id);
        for bad in ["", "00", "+00102030405060708090a0b0c0d0eff", &"g".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<CommandId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn stages_serialise_with_their_reason_beside_them() {
        let text = serde_json::to_string(&Stage::TimedOut { reason: "no answer".into() }).unwrap();
        assert_eq!(text, r#"{"stage":"timed_out","reason":"no answer"}"#);
        assert!(Stage::Superseded.is_final() && !Stage::Acknowledged.is_final());
    }
}
