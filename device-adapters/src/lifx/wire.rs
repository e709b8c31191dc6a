//! The bytes of the LIFX LAN protocol: a pure codec of the messages that Hearth uses.
//!
//! Source: <https://lan.developer.lifx.com/docs/packet-contents> (header) and the pages "Querying
//! the device for data", "Changing a device", "Information messages" and "Firmware effects" beside it; the
//! numbers and sizes are also in <https://github.com/LIFX/public-protocol>. All numbers are little-endian. A
//! header has 36 bytes; the longest message used has 918.

mod reply;
mod request;

use std::fmt;

use crate::model::device::Hex;
use crate::model::{ColorMode, DeviceId, color};

pub(crate) use reply::Reply;
pub(crate) use request::Request;

/// The port on which bulbs listen.
pub(crate) const PORT: u16 = 56_700;
/// Bytes in a header.
const HEADER: usize = 36;
/// The protocol number, in the low 12 bits of the second field.
const PROTOCOL: u16 = 1_024;
/// The bit that says that the header has a target.
const ADDRESSABLE: u16 = 1 << 12;
/// The bit that says that the message is for every device.
const TAGGED: u16 = 1 << 13;
/// Bytes of a label.
const LABEL: usize = 32;

/// The serial number of a bulb: the first six bytes of a target. All zero means every bulb.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Serial(pub(crate) [u8; 6]);

impl Serial {
    /// The target of a message to every bulb.
    pub(crate) const ALL: Self = Self([0; 6]);

    /// The one that a device id holds: `PREFIX-SERIAL`, or with the name of a part behind it, `PREFIX-SERIAL-PART`.
    pub(crate) fn of(device: &DeviceId, prefix: &str) -> Option<Self> {
        let rest = device.as_str().strip_prefix(prefix)?.strip_prefix('-')?;
        let digits = rest.split('-').next().filter(|digits| digits.len() == 12)?;
        let mut serial = Self::ALL;
        for (place, byte) in serial.0.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(place * 2..place * 2 + 2)?, 16).ok()?;
        }
        Some(serial)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// A colour as bulbs speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hsbk {
    /// Hue; 65 536 would be a full turn.
    pub(crate) hue: u16,
    /// Saturation; 0 is white of `kelvin`.
    pub(crate) saturation: u16,
    /// Brightness.
    pub(crate) brightness: u16,
    /// Colour temperature in kelvin.
    pub(crate) kelvin: u16,
}

impl Hsbk {
    /// The colour without its brightness, in the model's terms.
    pub(crate) fn color(&self) -> ColorMode {
        if self.saturation == 0 {
            ColorMode::Temperature { kelvin: self.kelvin }
        } else {
            ColorMode::Color(color::hue_saturation_to_xy(self.hue, self.saturation))
        }
    }

    /// The palette of an effect that was given none: once around the circle of hues.
    fn wheel() -> Vec<Self> {
        let hue = |step: u16| step * (u16::MAX / 6);
        let color = |step| Self { hue: hue(step), saturation: u16::MAX, brightness: u16::MAX, kelvin: 3_500 };
        (0..6).map(color).collect()
    }

    fn put(&self, body: &mut Vec<u8>) {
        for value in [self.hue, self.saturation, self.brightness, self.kelvin] {
            body.extend(value.to_le_bytes());
        }
    }
}

/// A tile as bulbs speak of it: how many zones it has in a row, and how many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tile {
    /// Columns.
    pub(crate) width: u8,
    /// Rows.
    pub(crate) height: u8,
}

impl Tile {
    /// How many zones it has.
    pub(crate) fn zones(&self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.width, self.height)
    }
}

/// A firmware effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None runs.
    Off,
    /// The colours of a strip move along it.
    Move,
    /// The colours of a palette flow into each other.
    Morph,
    /// A fire.
    Flame,
    /// Clouds under a sky.
    Sky,
    /// One that nobody documents.
    Other,
}

impl Effect {
    /// Its name among the effects of a light; none while nothing runs.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Move => Some("move"),
            Self::Morph => Some("morph"),
            Self::Flame => Some("flame"),
            Self::Sky => Some("sky"),
            Self::Other => Some("other"),
        }
    }

    /// The effect of that name; what is no name of one is none.
    pub(crate) fn named(name: &str) -> Self {
        let all = [Self::Move, Self::Morph, Self::Flame, Self::Sky];
        all.into_iter().find(|effect| effect.name() == Some(name)).unwrap_or(Self::Off)
    }

    fn strip_number(self) -> u8 {
        u8::from(self == Self::Move)
    }

    fn of_strip(number: u8) -> Self {
        match number {
            0 => Self::Off,
            1 => Self::Move,
            _ => Self::Other,
        }
    }

    fn matrix_number(self) -> u8 {
        match self {
            Self::Morph => 2,
            Self::Flame => 3,
            Self::Sky => 5,
            Self::Off | Self::Move | Self::Other => 0,
        }
    }

    fn of_matrix(number: u8) -> Self {
        match number {
            0 => Self::Off,
            2 => Self::Morph,
            3 => Self::Flame,
            5 => Self::Sky,
            _ => Self::Other,
        }
    }
}

/// A message from a bulb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// The source of the request it answers.
    pub(crate) source: u32,
    /// The bulb that sent it.
    pub(crate) target: Serial,
    /// The sequence number of the request it answers.
    pub(crate) sequence: u8,
    /// What it says.
    pub(crate) reply: Reply,
}

/// Why a datagram is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// Shorter than a header.
    #[error("{0} bytes are too few for a header of {HEADER}")]
    Short(usize),
    /// The length in the header is not that of the datagram.
    #[error("the header speaks of {stated} bytes, but {real} came")]
    Length {
        /// The length in the header.
        stated: u16,
        /// The length of the datagram.
        real: usize,
    },
    /// Not this protocol.
    #[error("protocol field {0:#06x} is not an addressable message of protocol {PROTOCOL}")]
    Protocol(u16),
    /// A message type that nothing here waits for.
    #[error("message type {0} is not one that answers a request of ours")]
    Type(u16),
    /// The body does not have the length of its type.
    #[error("the body of message type {kind} has {length} bytes")]
    Body {
        /// The message type.
        kind: u16,
        /// The length of the body.
        length: usize,
    },
}

/// The bytes of a request. `target` zero addresses every bulb.
pub(crate) fn encode(source: u32, target: Serial, sequence: u8, request: &Request) -> Vec<u8> {
    // Bit 1 asks for an acknowledgement; bit 0, a state in answer to a Set, is never asked for:
    // that state is usually the one before the change.
    let flags = if request.is_set() { 0b10 } else { 0 };
    frame(source, target, sequence, flags, request.kind(), &request.body(source))
}

fn frame(source: u32, target: Serial, sequence: u8, flags: u8, kind: u16, body: &[u8]) -> Vec<u8> {
    let tagged = if target == Serial::ALL { TAGGED } else { 0 };
    let size = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(size.to_le_bytes());
    bytes.extend((PROTOCOL | ADDRESSABLE | tagged).to_le_bytes());
    bytes.extend(source.to_le_bytes());
    bytes.extend(target.0);
    bytes.extend([0; 8]);
    bytes.extend([flags, sequence]);
    bytes.extend([0; 8]);
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    bytes
}

/// Reads a datagram from a bulb.
pub(crate) fn decode(datagram: &[u8]) -> Result<Incoming, WireError> {
    let short = || WireError::Short(datagram.len());
    let mut reader = Reader(datagram);
    let stated = reader.u16().ok_or_else(short)?;
    let protocol = reader.u16().ok_or_else(short)?;
    let source = reader.u32().ok_or_else(short)?;
    let serial = reader.take::<6>().ok_or_else(short)?;
    reader.take::<9>().ok_or_else(short)?; // the rest of the target, reserved bytes, flags
    let [sequence] = reader.take().ok_or_else(short)?;
    reader.take::<8>().ok_or_else(short)?;
    let kind = reader.u16().ok_or_else(short)?;
    reader.take::<2>().ok_or_else(short)?;
    if usize::from(stated) != datagram.len() {
        return Err(WireError::Length { stated, real: datagram.len() });
    }
    if protocol & 0xfff != PROTOCOL || protocol & ADDRESSABLE == 0 || protocol >> 14 != 0 {
        return Err(WireError::Protocol(protocol));
    }
    let length = reader.0.len();
    let reply = reply::parse(kind, &mut reader)?.filter(|_| reader.0.is_empty());
    let reply = reply.ok_or(WireError::Body { kind, length })?;
    Ok(Incoming { source, target: Serial(serial), sequence, reply })
}

/// Takes numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn hsbk(&mut self) -> Option<Hsbk> {
        let (hue, saturation, brightness, kelvin) = (self.u16()?, self.u16()?, self.u16()?, self.u16()?);
        Some(Hsbk { hue, saturation, brightness, kelvin })
    }

    fn colors(&mut self, count: usize) -> Option<Vec<Hsbk>> {
        (0..count).map(|_| self.hsbk()).collect()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// A label: 32 bytes, filled up with zeros. Control characters and broken UTF-8 are replaced,
    /// because a label ends up on terminals.
    fn label(&mut self) -> Option<String> {
        let bytes = self.take::<LABEL>()?;
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        Some(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
    }
}

#[cfg(test)]
pub(crate) mod peer;
