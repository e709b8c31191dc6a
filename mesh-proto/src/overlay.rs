//! The overlay plane: values that are visible at once and flushed later, or never.
//!
//! An entry is stamped but has no dot; it is in no vector, no tree and no store. It goes when
//! a durable write at least as new arrives, when its writer's incarnation ends, or when its
//! time is over. One entry per register *and writer* is kept, so that the end of one writer
//! uncovers what another still says.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    hlc::{Hlc, MAX_AHEAD_MS},
    id::{Key, ShortId},
    kinds,
    merge::Bytes,
    planted::{Plant, planted},
    value::Value,
};

/// Most overlay entries held, all writers together. More are refused and counted.
pub const MAX_ENTRIES: usize = 200_000;

/// One run of a writer: its boot incarnation, and its generation, which a corrected clock
/// raises in the middle of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    /// Rises with every start.
    pub incarnation: u64,
    /// The writer's generation.
    pub generation: u32,
}

/// A value of the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayEntry {
    /// When it was written.
    pub stamp: Hlc,
    /// Who wrote it.
    pub writer: ShortId,
    /// In which run of the writer.
    pub run: Run,
    /// The encoded value, or `None` for a tombstone.
    pub value: Bytes,
}

/// An overlay entry with its register, as frames carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayItem {
    /// The register.
    pub key: Key,
    /// The entry.
    pub entry: OverlayEntry,
}

/// What became of an entry that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is this writer's newest word on the register.
    New,
    /// Known, or older than what is known.
    Old,
    /// Its writer's run is over.
    Ended,
    /// Stamped too far ahead.
    Ahead,
    /// Not the writer's field, or not a value.
    Refused,
    /// No room.
    Full,
}

/// The overlay of one node.
#[derive(Debug, Default)]
pub struct Overlay {
    entries: BTreeMap<Key, BTreeMap<ShortId, OverlayEntry>>,
    /// The newest run known of each writer, and whether it has ended.
    runs: BTreeMap<ShortId, (Run, bool)>,
    /// The newest generation of which durable writes are known.
    generations: BTreeMap<ShortId, u32>,
    count: usize,
    /// The hash of all, until something changes.
    hash: Option<[u8; 8]>,
    plant: Plant,
}

impl Overlay {
    /// An empty overlay.
    pub fn new(plant: Plant) -> Self {
        Self { plant, ..Self::default() }
    }

    /// Offers an entry. `durable` is the stamp of what the durable plane holds for the
    /// register (or of its object's tombstone): nothing at or below it is kept.
    pub fn offer(&mut self, now_ms: u64, key: &Key, entry: OverlayEntry, durable: Hlc) -> Offered {
        let is_value = entry.value.as_deref().is_none_or(|bytes| Value::decode(bytes).is_ok());
        if !is_value || !kinds::may_originate(key, entry.writer) {
            return Offered::Refused;
        }
        if entry.stamp.ms() > now_ms.saturating_add(MAX_AHEAD_MS) {
            return Offered::Ahead;
        }
        if self.is_over(entry.writer, entry.run) {
            return Offered::Ended;
        }
        if entry.stamp <= durable || is_expired(key, &entry, now_ms) {
            return Offered::Old;
        }
        let is_known = self.of_writer(key, entry.writer).is_some();
        if !is_known && self.count >= MAX_ENTRIES {
            return Offered::Full;
        }
        let writers = self.entries.entry(key.clone()).or_default();
        if writers.get(&entry.writer).is_some_and(|own| (own.run, own.stamp) >= (entry.run, entry.stamp)) {
            return Offered::Old;
        }
        self.hash = None;
        if writers.insert(entry.writer, entry).is_none() {
            self.count += 1;
        }
        Offered::New
    }

    /// Whether a run is known to be over. An incarnation ends with all its generations.
    fn is_over(&self, writer: ShortId, run: Run) -> bool {
        let is_behind = self.generations.get(&writer).is_some_and(|newest| run.generation < *newest);
        is_behind
            || self.runs.get(&writer).is_some_and(|(known, ended)| {
                run < *known || (*ended && run.incarnation <= known.incarnation)
            })
    }

    /// Whether the writer is not known to be in this run, or a later one, yet: the caller then
    /// begins it, and hears which registers that changes.
    pub fn is_new_run(&self, writer: ShortId, run: Run) -> bool {
        self.runs.get(&writer).is_none_or(|(known, _)| *known < run) && !self.is_over(writer, run)
    }

    /// Notes that a writer is alive in this run. Older runs' entries go; returns their registers.
    pub fn begin(&mut self, writer: ShortId, run: Run) -> Vec<Key> {
        match self.runs.get_mut(&writer) {
            Some((known, _)) if run < *known => return Vec::new(),
            Some((known, ended)) if run == *known => {
                *ended = false;
                return Vec::new();
            }
            _ => {}
        }
        self.runs.insert(writer, (run, false));
        self.drop_where(|_, entry| entry.writer == writer && entry.run < run)
    }

    /// Notes that a durable write of this generation is known: the writer's older generations are
    /// over. Returns the registers that changed.
    pub fn see_generation(&mut self, writer: ShortId, generation: u32) -> Vec<Key> {
        let newest = self.generations.entry(writer).or_default();
        if generation <= *newest {
            return Vec::new();
        }
        *newest = generation;
        self.drop_where(|_, entry| entry.writer == writer && entry.run.generation < generation)
    }

    /// Notes that a writer is alive in this incarnation, of whatever generation.
    pub fn revive(&mut self, writer: ShortId, incarnation: u64) {
        if let Some((run, ended)) = self.runs.get_mut(&writer)
            && run.incarnation == incarnation
        {
            *ended = false;
        }
    }

    /// Notes that a writer's incarnation is over. Returns the registers that changed.
    pub fn end(&mut self, writer: ShortId, incarnation: u64) -> Vec<Key> {
        if planted!(self.plant, OverlayOutlivesWriter) {
            return Vec::new();
        }
        let over = (Run { incarnation, generation: 0 }, true);
        let known = self.runs.entry(writer).or_insert(over);
        if known.0.incarnation < incarnation {
            *known = over;
        } else if known.0.incarnation == incarnation {
            known.1 = true;
        }
        self.drop_where(|_, entry| entry.writer == writer && entry.run.incarnation <= incarnation)
    }

    /// Drops all that is known of a writer that is no longer admitted. Returns the registers
    /// that changed.
    pub fn forget(&mut self, writer: ShortId) -> Vec<Key> {
        self.runs.remove(&writer);
        self.generations.remove(&writer);
        self.drop_where(|_, entry| entry.writer == writer)
    }

    /// Drops what has outlasted its kind's time. Returns the registers that changed.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Key> {
        self.drop_where(|key, entry| is_expired(key, entry, now_ms))
    }

    fn drop_where(&mut self, gone: impl Fn(&Key, &OverlayEntry) -> bool) -> Vec<Key> {
        let mut changed = BTreeSet::new();
        let mut dropped = 0;
        self.entries.retain(|key, writers| {
            let before = writers.len();
            writers.retain(|_, entry| !gone(key, entry));
            if writers.len() < before {
                dropped += before - writers.len();
                changed.insert(key.clone());
            }
            !writers.is_empty()
        });
        self.count -= dropped;
        if dropped > 0 {
            self.hash = None;
        }
        changed.into_iter().collect()
    }

    /// Drops what a durable write at this stamp makes obsolete for the register.
    pub fn settle(&mut self, key: &Key, durable: Hlc) {
        let Some(writers) = self.entries.get_mut(key) else { return };
        let before = writers.len();
        writers.retain(|_, entry| entry.stamp > durable);
        if before > writers.len() {
            self.hash = None;
        }
        self.count -= before - writers.len();
        if writers.is_empty() {
            self.entries.remove(key);
        }
    }

    /// The registers of an object that have overlay entries.
    pub fn fields_of<'a>(&'a self, object: &'a crate::id::ObjectId) -> impl Iterator<Item = &'a Key> {
        let from = Key { object: object.clone(), field: crate::id::FieldName::object() };
        self.entries.range(from..).map(|(key, _)| key).take_while(move |key| key.object == *object)
    }

    /// The names of the objects that have entries, in order, from `from` on.
    pub fn names_from<'a>(
        &'a self,
        from: Option<&'a crate::id::ObjectId>,
    ) -> impl Iterator<Item = &'a crate::id::ObjectId> {
        let mut last: Option<&crate::id::ObjectId> = None;
        let start = from.map(|id| Key { object: id.clone(), field: crate::id::FieldName::object() });
        let bound = start.map_or(core::ops::Bound::Unbounded, core::ops::Bound::Included);
        self.entries.range((bound, core::ops::Bound::Unbounded)).filter_map(move |(key, _)| {
            let new = last != Some(&key.object);
            last = Some(&key.object);
            new.then_some(&key.object)
        })
    }

    /// The newest entry for a register.
    pub fn newest(&self, key: &Key) -> Option<&OverlayEntry> {
        self.entries.get(key)?.values().max_by_key(|entry| (entry.stamp, entry.writer))
    }

    /// What one writer says of a register.
    pub fn of_writer(&self, key: &Key, writer: ShortId) -> Option<&OverlayEntry> {
        self.entries.get(key)?.get(&writer)
    }

    /// Everybody who has entries, with the incarnation of the newest.
    pub fn writers(&self) -> BTreeMap<ShortId, u64> {
        let mut writers = BTreeMap::new();
        for entry in self.entries.values().flat_map(BTreeMap::values) {
            let newest = writers.entry(entry.writer).or_default();
            *newest = entry.run.incarnation.max(*newest);
        }
        writers
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &OverlayEntry)> {
        self.entries.iter().flat_map(|(key, writers)| writers.values().map(move |entry| (key, entry)))
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A hash that is equal on nodes that hold the same entries.
    pub fn hash(&mut self) -> [u8; 8] {
        if let Some(hash) = self.hash {
            return hash;
        }
        let mut sum = 0u64;
        for (key, entry) in self.iter() {
            let mut hasher = blake3::Hasher::new();
            hasher.update(key.object.as_str().as_bytes());
            hasher.update(&[0]);
            hasher.update(key.field.as_str().as_bytes());
            hasher.update(&entry.writer.0.to_be_bytes());
            hasher.update(&entry.stamp.to_bits().to_be_bytes());
            let hash = hasher.finalize();
            sum = sum.wrapping_add(hash.as_bytes().first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b)));
        }
        *self.hash.insert(sum.to_be_bytes())
    }
}

fn is_expired(key: &Key, entry: &OverlayEntry, now_ms: u64) -> bool {
    kinds::overlay_ttl_ms(key.object.kind()).is_some_and(|ttl| entry.stamp.ms().saturating_add(ttl) < now_ms)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::{FieldName, ObjectId};

    const W: ShortId = ShortId(1);
    const V: ShortId = ShortId(2);

    fn key() -> Key {
        Key { object: ObjectId::new("device/lamp").unwrap(), field: FieldName::new("desired").unwrap() }
    }

    fn entry(writer: ShortId, incarnation: u64, ms: u64) -> OverlayEntry {
        OverlayEntry {
            stamp: Hlc::from_ms(ms),
            writer,
            run: Run { incarnation, generation: 1 },
            value: Some(Value::from(i64::try_from(ms).unwrap()).encode().unwrap()),
        }
    }

    #[test]
    fn the_end_of_one_writer_uncovers_what_another_says() {
        let mut overlay = Overlay::default();
        assert_eq!(overlay.offer(100, &key(), entry(W, 1, 10), Hlc::ZERO), Offered::New);
        assert_eq!(overlay.offer(100, &key(), entry(V, 1, 20), Hlc::ZERO), Offered::New);
        assert_eq!(overlay.newest(&key()).unwrap().writer, V);
        assert_eq!(overlay.end(V, 1), [key()]);
        assert_eq!(overlay.newest(&key()).unwrap().writer, W);
        assert_eq!(overlay.offer(100, &key(), entry(V, 1, 30), Hlc::ZERO), Offered::Ended);
        overlay.begin(V, Run { incarnation: 2, generation: 1 });
        assert_eq!(overlay.offer(100, &key(), entry(V, 2, 30), Hlc::ZERO), Offered::New);
    }

    #[test]
    fn a_writer_thought_dead_is_heard_again_once_it_is_alive() {
        let mut overlay = Overlay::default();
        overlay.offer(100, &key(), entry(W, 5, 10), Hlc::ZERO);
        overlay.end(W, 5);
        overlay.revive(W, 5);
        assert_eq!(overlay.offer(100, &key(), entry(W, 5, 10), Hlc::ZERO), Offered::New);
    }

    #[test]
    fn durable_writes_settle_what_they_make_obsolete() {
        let mut overlay = Overlay::default();
        overlay.offer(100, &key(), entry(W, 1, 10), Hlc::ZERO);
        overlay.settle(&key(), Hlc::from_ms(9));
        assert_eq!(overlay.len(), 1);
        overlay.settle(&key(), Hlc::from_ms(10));
        assert!(overlay.is_empty());
        assert_eq!(overlay.offer(100, &key(), entry(W, 1, 10), Hlc::from_ms(10)), Offered::Old);
        assert_eq!(overlay.offer(100, &key(), entry(W, 1, 90_000), Hlc::ZERO), Offered::Ahead);
    }
}
