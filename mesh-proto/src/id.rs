//! Names: of nodes, households, origins of writes, single writes, objects and fields.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::error::NameError;

/// Longest kind of an object, in bytes.
pub const MAX_KIND_BYTES: usize = 32;
/// Longest name of an object within its kind, in bytes.
pub const MAX_NAME_BYTES: usize = 96;
/// Longest field name, in bytes.
pub const MAX_FIELD_BYTES: usize = 64;

/// A node, named by its Ed25519 public key (RFC 8032, 32 bytes).
///
/// Shown and parsed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// The node with this public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name used inside frames and records, where 32 bytes would weigh too much.
    pub const fn short(&self) -> ShortId {
        let b = &self.0;
        ShortId(u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

impl FromStr for NodeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_hex(text).map(Self).ok_or(NameError::NodeId)
    }
}

/// The first eight bytes of a [`NodeId`]: unique within a household, because the roster
/// refuses a second node with the same ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub u64);

impl Serialize for ShortId {
    /// Eight fixed bytes: a varint would need ten for a random number.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.to_be_bytes().serialize(to)
    }
}

impl<'de> Deserialize<'de> for ShortId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <[u8; 8]>::deserialize(from).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:08x}", self.0 >> 32)
    }
}

impl FromStr for ShortId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_hex(text).map(|bytes| Self(u64::from_be_bytes(bytes))).ok_or(NameError::NodeId)
    }
}

/// A household, named by its Ed25519 root public key. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HouseholdId([u8; 32]);

impl HouseholdId {
    /// The household with this root public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The root public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for HouseholdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HouseholdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for HouseholdId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_hex(text).map(Self).ok_or(NameError::NodeId)
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Where writes come from: one node during one generation. A node opens a new generation
/// whenever it cannot be sure which sequence numbers it has used (an unclean start, a
/// restored backup, a corrected clock), so that no [`Dot`] is ever used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The node that wrote.
    pub node: ShortId,
    /// Which of its generations, from 1.
    pub generation: u32,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.node, self.generation)
    }
}

/// One durable write: the `seq`th, from 1, of its origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote.
    pub origin: Origin,
    /// Its number, from 1, without holes.
    pub seq: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.origin, self.seq)
    }
}

/// The name of an object, `kind/name`.
///
/// A kind is `[a-z][a-z0-9_-]*` up to [`MAX_KIND_BYTES`]; a name is one or more of
/// `[A-Za-z0-9._:-]` up to [`MAX_NAME_BYTES`]. What people call a thing is a field of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(Arc<str>);

impl ObjectId {
    /// Parses `kind/name`.
    ///
    /// # Errors
    /// [`NameError::Object`] says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Object(clip(text));
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        let kind_ok = kind.len() <= MAX_KIND_BYTES && is_identifier(kind, b"_-");
        let name_ok = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
        if kind_ok && name_ok { Ok(Self(text.into())) } else { Err(wrong()) }
    }

    /// The kind, the part before the slash.
    pub fn kind(&self) -> &str {
        self.0.split_once('/').map_or("", |(kind, _)| kind)
    }

    /// The name within the kind, the part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// The whole `kind/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a field: `[a-z][a-z0-9_.-]*` up to [`MAX_FIELD_BYTES`].
///
/// The empty name, [`FieldName::object`], is the slot of the object's own tombstone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(Arc<str>);

impl FieldName {
    /// Parses a field name.
    ///
    /// # Errors
    /// [`NameError::Field`] when the text breaks the rule above.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() <= MAX_FIELD_BYTES && is_identifier(text, b"_.-") {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Field(clip(text)))
        }
    }

    /// The slot that holds an object's tombstone.
    pub fn object() -> Self {
        Self("".into())
    }

    /// Whether this is the slot of the object's tombstone.
    pub fn is_object(&self) -> bool {
        self.0.is_empty()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One register of the replicated state: a field of an object, or the object's tombstone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The object.
    pub object: ObjectId,
    /// Its field.
    pub field: FieldName,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.object.as_str(), self.field.as_str())
    }
}

macro_rules! text_name {
    ($name:ident, $parse:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <&str>::deserialize(from)?;
                let parse: fn(&str) -> Result<Self, NameError> = $parse;
                parse(text).map_err(D::Error::custom)
            }
        }
    };
}

text_name!(ObjectId, ObjectId::new);
text_name!(FieldName, |text| if text.is_empty() { Ok(FieldName::object()) } else { FieldName::new(text) });

fn is_identifier(text: &str, extra: &[u8]) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || extra.contains(&b))
}

/// Enough of a hostile name to recognise it, never all of it.
fn clip(text: &str) -> String {
    let shown: Vec<char> = text.chars().filter(|c| !c.is_control()).take(48).collect();
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn node_ids_round_trip_as_hex_and_shorten_to_their_first_bytes() {
        let id = NodeId::from_bytes(core::array::from_fn(|i| u8::try_from(i).unwrap() * 7));
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        assert_eq!(id.short().to_string(), id.to_string()[..16]);
        assert!("xyz".parse::<NodeId>().is_err());
    }

    #[test]
    fn object_names_follow_their_rule() {
        let id = ObjectId::new("device/lifx-d073d5:1").unwrap();
        assert_eq!((id.kind(), id.name()), ("device", "lifx-d073d5:1"));
        for bad in ["", "device", "/x", "device/", "Device/x", "device/a/b", "device/ä", "device/a b", "1a/x"]
        {
            assert!(ObjectId::new(bad).is_err(), "{bad}");
        }
        assert!(ObjectId::new(&alloc::format!("a/{}", "x".repeat(97))).is_err());
    }

    #[test]
    fn the_empty_field_name_is_reserved_for_the_object() {
        assert!(FieldName::new("").is_err());
        assert!(FieldName::object().is_object());
        assert!(FieldName::new("reach.0011").is_ok());
    }
}
