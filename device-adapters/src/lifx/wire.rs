//! The bytes of the LIFX LAN protocol: a pure codec of the messages that Hearth uses.
//!
//! Source: <https://lan.developer.lifx.com/docs/packet-contents> (header) and the pages "Querying
//! the device for data", "Changing a device" and "Information messages" beside it. All numbers are
//! little-endian. A header has 36 bytes; the longest message used has 88.

use std::fmt;

use crate::model::device::Hex;
use crate::model::{ColorMode, LightState, color};

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
    /// The state of a light that shows this colour.
    pub(crate) fn state(&self, on: bool) -> LightState {
        let color = if self.saturation == 0 {
            ColorMode::Temperature { kelvin: self.kelvin }
        } else {
            ColorMode::Color(color::hue_saturation_to_xy(self.hue, self.saturation))
        };
        LightState::plain(on, self.brightness, color)
    }
}

/// What Hearth sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Who is there? (2)
    GetService,
    /// Which firmware? (14)
    GetHostFirmware,
    /// Which label? (23)
    GetLabel,
    /// Which product? (32)
    GetVersion,
    /// Which state? (101)
    LightGet,
    /// Show this colour, fading over so many milliseconds. (102)
    LightSetColor(Hsbk, u32),
    /// Be on or off, fading over so many milliseconds. (117)
    LightSetPower(bool, u32),
}

impl Request {
    /// The number of the message type.
    pub(crate) fn kind(&self) -> u16 {
        match self {
            Self::GetService => 2,
            Self::GetHostFirmware => 14,
            Self::GetLabel => 23,
            Self::GetVersion => 32,
            Self::LightGet => 101,
            Self::LightSetColor(..) => 102,
            Self::LightSetPower(..) => 117,
        }
    }

    /// Whether it changes something, and so asks for an acknowledgement.
    pub(crate) fn is_set(&self) -> bool {
        matches!(self, Self::LightSetColor(..) | Self::LightSetPower(..))
    }

    /// Whether `reply` is of the type that answers this.
    pub(crate) fn is_answered_by(&self, reply: &Reply) -> bool {
        matches!(
            (self, reply),
            (Self::GetService, Reply::StateService { .. })
                | (Self::GetHostFirmware, Reply::StateHostFirmware { .. })
                | (Self::GetLabel, Reply::StateLabel(_))
                | (Self::GetVersion, Reply::StateVersion { .. })
                | (Self::LightGet, Reply::LightState { .. })
                | (Self::LightSetColor(..) | Self::LightSetPower(..), Reply::Acknowledgement)
        ) || matches!(reply, Reply::StateUnhandled(kind) if *kind == self.kind())
    }
}

/// What a bulb sends that Hearth reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A service and its port. (3)
    StateService {
        /// 1 is the protocol described here.
        service: u8,
        /// Its UDP port.
        port: u32,
    },
    /// The version of the firmware. (15)
    StateHostFirmware {
        /// The number before the point.
        major: u16,
        /// The number after the point.
        minor: u16,
    },
    /// The label that its user gave it. (25)
    StateLabel(String),
    /// What it is. (33)
    StateVersion {
        /// The vendor number.
        vendor: u32,
        /// The product number.
        product: u32,
    },
    /// "Received", and no more than that. (45)
    Acknowledgement,
    /// The state of the light. (107)
    LightState {
        /// The colour it shows, or moves through.
        hsbk: Hsbk,
        /// 0 is off; anything else is on, or on its way.
        power: u16,
        /// Its label.
        label: String,
    },
    /// It does not know messages of that type. (223)
    StateUnhandled(u16),
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
    let mut body = Vec::with_capacity(16);
    match *request {
        Request::LightSetColor(hsbk, duration) => {
            body.push(0);
            for value in [hsbk.hue, hsbk.saturation, hsbk.brightness, hsbk.kelvin] {
                body.extend(value.to_le_bytes());
            }
            body.extend(duration.to_le_bytes());
        }
        Request::LightSetPower(on, duration) => {
            body.extend((if on { u16::MAX } else { 0 }).to_le_bytes());
            body.extend(duration.to_le_bytes());
        }
        _ => {}
    }
    // Bit 1 asks for an acknowledgement; bit 0, a state in answer to a Set, is never asked for:
    // that state is usually the one before the change.
    let flags = if request.is_set() { 0b10 } else { 0 };
    frame(source, target, sequence, flags, request.kind(), &body)
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
    let reply = reply(kind, &mut reader)?.filter(|_| reader.0.is_empty());
    let reply = reply.ok_or(WireError::Body { kind, length })?;
    Ok(Incoming { source, target: Serial(serial), sequence, reply })
}

/// The body of a message; `None` when it is too short.
fn reply(kind: u16, body: &mut Reader<'_>) -> Result<Option<Reply>, WireError> {
    Ok(match kind {
        3 => service(body),
        15 => firmware(body),
        25 => body.label().map(Reply::StateLabel),
        33 => version(body),
        45 => Some(Reply::Acknowledgement),
        107 => light_state(body),
        223 => body.u16().map(Reply::StateUnhandled),
        other => return Err(WireError::Type(other)),
    })
}

fn service(body: &mut Reader<'_>) -> Option<Reply> {
    let [service] = body.take()?;
    Some(Reply::StateService { service, port: body.u32()? })
}

fn firmware(body: &mut Reader<'_>) -> Option<Reply> {
    body.take::<16>()?; // build time, reserved
    let minor = body.u16()?;
    Some(Reply::StateHostFirmware { major: body.u16()?, minor })
}

fn version(body: &mut Reader<'_>) -> Option<Reply> {
    let (vendor, product) = (body.u32()?, body.u32()?);
    body.take::<4>()?;
    Some(Reply::StateVersion { vendor, product })
}

fn light_state(body: &mut Reader<'_>) -> Option<Reply> {
    let (hue, saturation, brightness, kelvin) = (body.u16()?, body.u16()?, body.u16()?, body.u16()?);
    body.take::<2>()?;
    let power = body.u16()?;
    let label = body.label()?;
    body.take::<8>()?;
    Some(Reply::LightState { hsbk: Hsbk { hue, saturation, brightness, kelvin }, power, label })
}

/// Takes numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
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

/// The other direction, for tests that play the bulb.
#[cfg(test)]
pub(crate) mod peer {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    /// The bytes that a bulb sends.
    pub(crate) fn encode_reply(message: &Incoming) -> Vec<u8> {
        let mut body = Vec::new();
        let (kind, body) = match &message.reply {
            Reply::StateService { service, port } => {
                body.push(*service);
                body.extend(port.to_le_bytes());
                (3, body)
            }
            Reply::StateHostFirmware { major, minor } => {
                body.extend([0; 16]);
                body.extend(minor.to_le_bytes());
                body.extend(major.to_le_bytes());
                (15, body)
            }
            Reply::StateLabel(label) => (25, padded(label)),
            Reply::StateVersion { vendor, product } => {
                body.extend(vendor.to_le_bytes());
                body.extend(product.to_le_bytes());
                body.extend([0; 4]);
                (33, body)
            }
            Reply::Acknowledgement => (45, body),
            Reply::LightState { hsbk, power, label } => {
                for value in [hsbk.hue, hsbk.saturation, hsbk.brightness, hsbk.kelvin, 0, *power] {
                    body.extend(value.to_le_bytes());
                }
                body.extend(padded(label));
                body.extend([0; 8]);
                (107, body)
            }
            Reply::StateUnhandled(kind) => (223, kind.to_le_bytes().to_vec()),
        };
        frame(message.source, message.target, message.sequence, 0, kind, &body)
    }

    /// What a bulb reads: source, target, sequence, whether it must acknowledge, and the request.
    pub(crate) fn decode_request(bytes: &[u8]) -> (u32, Serial, u8, bool, Request) {
        assert_eq!(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes.len());
        let mut body = Reader(&bytes[HEADER..]);
        let request = match u16::from_le_bytes([bytes[32], bytes[33]]) {
            2 => Request::GetService,
            14 => Request::GetHostFirmware,
            23 => Request::GetLabel,
            32 => Request::GetVersion,
            101 => Request::LightGet,
            102 => {
                body.take::<1>().unwrap();
                let [hue, saturation, brightness, kelvin] = [(); 4].map(|()| body.u16().unwrap());
                Request::LightSetColor(Hsbk { hue, saturation, brightness, kelvin }, body.u32().unwrap())
            }
            117 => Request::LightSetPower(body.u16().unwrap() > 0, body.u32().unwrap()),
            other => panic!("unknown request {other}"),
        };
        assert!(body.0.is_empty());
        let source = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        let target = Serial(bytes[8..14].try_into().unwrap());
        (source, target, bytes[23], bytes[22] & 2 != 0, request)
    }

    fn padded(label: &str) -> Vec<u8> {
        let mut bytes = label.as_bytes().to_vec();
        bytes.resize(LABEL, 0);
        bytes
    }
}
