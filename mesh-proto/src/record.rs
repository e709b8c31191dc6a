//! The records a replica keeps on disk: what the store holds, byte by byte.
//!
//! Every record starts with the version of its format. The store adds its own checksum.

use alloc::{sync::Arc, vec::Vec};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    hlc::Hlc,
    id::{Dot, FieldName, Key, ObjectId, Origin, ShortId},
    merge::Entry,
    vector::Ranges,
};

/// The version of every record written today.
pub const RECORD_VERSION: u8 = 1;

/// Most ranges of one origin in a record, so that it stays below 4 KiB. What is left out is
/// asked of the peers again after a restart.
const MAX_RECORD_RANGES: usize = 200;

/// One atomic change of the store: applied whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records to write, replacing those of the same key.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Records to remove.
    pub deletes: Vec<Vec<u8>>,
}

impl Batch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        let puts: usize = self.puts.iter().map(|(key, value)| key.len() + value.len()).sum();
        puts + self.deletes.iter().map(Vec::len).sum::<usize>()
    }
}

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Written by a newer Hearth.
    #[error(
        "the store holds a record of version {0}, this Hearth reads up to 1: install the newer Hearth again"
    )]
    Newer(u8),
    /// Not a record.
    #[error("a record of the store is damaged")]
    Damaged,
}

/// A record, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A register.
    Register(Key, Entry),
    /// A write from the future, held back.
    Quarantined(Key, Entry),
    /// What is covered of an origin beyond its live writes.
    Covered(Origin, Ranges),
    /// Generations below it are covered whole.
    Floor(ShortId, u32),
    /// Above every stamp that was durable when it was written.
    Ceiling(Hlc),
    /// The generation of this node in which a peer's state last replaced the store: what it wrote
    /// before may come back from peers.
    KnownSince(u32),
}

impl Record {
    /// Decodes a record of the store.
    ///
    /// # Errors
    /// [`RecordError::Newer`] must stop the start; a damaged record can be left out.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let (version, body) = value.split_first().ok_or(RecordError::Damaged)?;
        if *version > RECORD_VERSION {
            return Err(RecordError::Newer(*version));
        }
        let (tag, name) = key.split_first().ok_or(RecordError::Damaged)?;
        match tag {
            b'r' => {
                let (key, entry): (Key, Entry) = (register_key(name)?, read(body)?);
                // The slot of an object holds tombstones only; a value there would never go.
                let fits = !key.field.is_object() || entry.is_tombstone();
                if fits { Ok(Self::Register(key, entry)) } else { Err(RecordError::Damaged) }
            }
            b'q' => read(body).map(|(key, entry)| Self::Quarantined(key, entry)),
            b'v' => {
                let mut ranges = Ranges::default();
                for (from, to) in read::<Vec<(u64, u64)>>(body)? {
                    ranges.insert(from, to);
                }
                Ok(Self::Covered(read(name)?, ranges))
            }
            b'f' => Ok(Self::Floor(read(name)?, read(body)?)),
            b'g' => read(body).map(Self::KnownSince),
            b'm' => read(body).map(|bits| Self::Ceiling(Hlc::from_bits(bits))),
            _ => Err(RecordError::Damaged),
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    postcard::from_bytes(bytes).map_err(|_| RecordError::Damaged)
}

fn register_key(name: &[u8]) -> Result<Key, RecordError> {
    let text = core::str::from_utf8(name).map_err(|_| RecordError::Damaged)?;
    let (object, field) = text.split_once('\0').ok_or(RecordError::Damaged)?;
    let field = if field.is_empty() { Ok(FieldName::object()) } else { FieldName::new(field) };
    match (ObjectId::new(object), field) {
        (Ok(object), Ok(field)) => Ok(Key { object, field }),
        _ => Err(RecordError::Damaged),
    }
}

/// The store key of a register.
pub fn register_name(key: &Key) -> Vec<u8> {
    [b"r", key.object.as_str().as_bytes(), b"\0", key.field.as_str().as_bytes()].concat()
}

/// The store key of a quarantined write.
pub fn quarantine_name(dot: Dot) -> Vec<u8> {
    name(b'q', &dot)
}

/// The record of a register.
pub fn register(key: &Key, entry: &Entry) -> (Vec<u8>, Vec<u8>) {
    (register_name(key), body(entry))
}

/// The record of a quarantined write.
pub fn quarantined(key: &Key, entry: &Entry) -> (Vec<u8>, Vec<u8>) {
    (quarantine_name(entry.dot), body(&(key, entry)))
}

/// The record of what is covered of an origin.
pub fn covered(origin: Origin, ranges: &Ranges) -> (Vec<u8>, Vec<u8>) {
    let mut kept: Vec<(u64, u64)> = ranges.iter().collect();
    if kept.len() > MAX_RECORD_RANGES {
        kept.sort_by_key(|(from, to)| core::cmp::Reverse(to - from));
        kept.truncate(MAX_RECORD_RANGES);
        kept.sort_unstable();
    }
    (name(b'v', &origin), body(&kept))
}

/// The store key of what is covered of an origin.
pub fn covered_name(origin: Origin) -> Vec<u8> {
    name(b'v', &origin)
}

/// The record of a node's floor.
pub fn floor(node: ShortId, floor: u32) -> (Vec<u8>, Vec<u8>) {
    (name(b'f', &node), body(&floor))
}

/// The record of the clock's ceiling.
pub fn ceiling(stamp: Hlc) -> (Vec<u8>, Vec<u8>) {
    (b"mceiling".to_vec(), body(&stamp.to_bits()))
}

/// The record of the generation in which the store was last replaced.
pub fn known_since(generation: u32) -> (Vec<u8>, Vec<u8>) {
    (b"gknown".to_vec(), body(&generation))
}

fn name<T: Serialize>(tag: u8, of: &T) -> Vec<u8> {
    let mut bytes = Vec::from([tag]);
    bytes.extend(postcard::to_allocvec(of).unwrap_or_default());
    bytes
}

fn body<T: Serialize + ?Sized>(of: &T) -> Vec<u8> {
    let mut bytes = Vec::from([RECORD_VERSION]);
    bytes.extend(postcard::to_allocvec(of).unwrap_or_default());
    bytes
}

/// A durable write on its way: to the store, to a peer, or held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The register.
    pub key: Key,
    /// The write.
    pub entry: Entry,
    /// Dots that this one superseded before they were sent, and that count as delivered with it.
    pub covers: Vec<Dot>,
}

impl Item {
    /// Roughly its bytes in a frame.
    pub fn weight(&self) -> usize {
        let value = self.entry.value.as_ref().map_or(0, |bytes: &Arc<[u8]>| bytes.len());
        self.key.object.as_str().len() + self.key.field.as_str().len() + value + 48 + self.covers.len() * 12
    }
}
