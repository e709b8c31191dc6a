//! The overlay plane: values that are visible at once and flushed later, or never.
//!
//! An entry is stamped but has no dot; it is in no vector, no tree and no store. It goes when
//! a durable write at least as new arrives, when its writer's incarnation ends, or when its
//! time is over. One entry per register *and writer* is kept, so that the end of one writer
//! uncovers what another still says.

use alloc::{collections::BTreeMap, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    hlc::{Hlc, MAX_AHEAD_MS},
    id::{Key, ShortId},
    kinds,
    limits::Limits,
    merge::Bytes,
    planted::{Plant, planted},
    value::Value,
};

/// What an entry costs besides its names and its value: itself, its register's place in the map, and
/// what the allocator adds to each.
const ENTRY_BYTES: usize = 200;

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

impl OverlayItem {
    /// Roughly its bytes in a frame.
    pub fn weight(&self) -> usize {
        weigh_with(&self.key, &self.entry.value) - ENTRY_BYTES + 48
    }
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
    /// No room for it, in all or for its writer. What was held before stays.
    Full,
}

/// The overlay of one node.
///
/// # Invariants
/// 1. What is held weighs at most `limits.overlay_bytes`, and of one writer at most
///    `limits.overlay_share_bytes`.
/// 2. A register that is listed has an entry; its entries are in the order of their writers.
#[derive(Debug, Default)]
pub struct Overlay {
    entries: BTreeMap<Key, Vec<OverlayEntry>>,
    /// The newest run known of each writer, and whether it has ended.
    runs: BTreeMap<ShortId, (Run, bool)>,
    /// The newest generation of which durable writes are known.
    generations: BTreeMap<ShortId, u32>,
    count: usize,
    /// What the entries of each writer weigh; nobody is listed with nothing.
    weights: BTreeMap<ShortId, usize>,
    bytes: usize,
    limits: Limits,
    /// The hash of all, until something changes.
    hash: Option<[u8; 8]>,
    plant: Plant,
}

impl Overlay {
    /// An empty overlay.
    pub fn new(plant: Plant, limits: Limits) -> Self {
        Self { plant, limits, ..Self::default() }
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
        let known = self.of_writer(key, entry.writer);
        if known.is_some_and(|own| (own.run, own.stamp) >= (entry.run, entry.stamp)) {
            return Offered::Old;
        }
        if !self.has_room(entry.writer, self.growth(key, entry.writer, &entry.value)) {
            return Offered::Full;
        }
        self.put(key, entry);
        Offered::New
    }

    /// How much more would be held if the writer said this of the register, in bytes.
    pub fn growth(&self, key: &Key, writer: ShortId, value: &Bytes) -> usize {
        let known = self.of_writer(key, writer).map_or(0, |entry| weigh(key, entry));
        weigh_with(key, value).saturating_sub(known)
    }

    /// Whether the writer may add so many bytes.
    pub fn has_room(&self, writer: ShortId, bytes: usize) -> bool {
        bytes == 0
            || (self.bytes + bytes <= self.limits.overlay_bytes
                && self.bytes_of(writer) + bytes <= self.limits.overlay_share_bytes)
    }

    /// What all entries weigh, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the entries of a writer weigh, in bytes.
    pub fn bytes_of(&self, writer: ShortId) -> usize {
        self.weights.get(&writer).copied().unwrap_or(0)
    }

    fn put(&mut self, key: &Key, entry: OverlayEntry) {
        self.hash = None;
        self.count += 1;
        let weight = weigh(key, &entry);
        self.bytes += weight;
        *self.weights.entry(entry.writer).or_default() += weight;
        let own = self.entries.entry(key.clone()).or_default();
        let replaced = match own.binary_search_by_key(&entry.writer, |own| own.writer) {
            Ok(at) => own.get_mut(at).map(|own| core::mem::replace(own, entry)),
            Err(at) => {
                own.reserve_exact(1);
                own.insert(at, entry);
                None
            }
        };
        if let Some(old) = replaced {
            self.forget_weight(old.writer, weigh(key, &old));
        }
    }

    /// Keeps the sums in step with an entry that is gone.
    fn forget_weight(&mut self, writer: ShortId, weight: usize) {
        self.hash = None;
        self.count -= 1;
        self.bytes -= weight;
        if let Some(left) = self.weights.get_mut(&writer) {
            *left -= weight;
            if *left == 0 {
                self.weights.remove(&writer);
            }
        }
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

    fn drop_where(&mut self, is_gone: impl Fn(&Key, &OverlayEntry) -> bool) -> Vec<Key> {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        self.entries.retain(|key, own| {
            let before = gone.len();
            gone.extend(own.extract_if(.., |entry| is_gone(key, entry)).map(|e| (e.writer, weigh(key, &e))));
            if gone.len() > before {
                changed.push(key.clone());
            }
            !own.is_empty()
        });
        gone.into_iter().for_each(|(writer, weight)| self.forget_weight(writer, weight));
        changed
    }

    /// Drops what a durable write at this stamp makes obsolete for the register.
    pub fn settle(&mut self, key: &Key, durable: Hlc) {
        let Some(own) = self.entries.get_mut(key) else { return };
        let gone: Vec<OverlayEntry> = own.extract_if(.., |entry| entry.stamp <= durable).collect();
        if own.is_empty() {
            self.entries.remove(key);
        }
        gone.iter().for_each(|entry| self.forget_weight(entry.writer, weigh(key, entry)));
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
        self.entries.get(key)?.iter().max_by_key(|entry| (entry.stamp, entry.writer))
    }

    /// What one writer says of a register.
    pub fn of_writer(&self, key: &Key, writer: ShortId) -> Option<&OverlayEntry> {
        let own = self.entries.get(key)?;
        own.binary_search_by_key(&writer, |entry| entry.writer).ok().and_then(|at| own.get(at))
    }

    /// Everybody who has entries, with the incarnation of the newest.
    pub fn writers(&self) -> BTreeMap<ShortId, u64> {
        let mut writers = BTreeMap::new();
        for entry in self.entries.values().flatten() {
            let newest = writers.entry(entry.writer).or_default();
            *newest = entry.run.incarnation.max(*newest);
        }
        writers
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &OverlayEntry)> {
        self.entries.iter().flat_map(|(key, own)| own.iter().map(move |entry| (key, entry)))
    }

    /// Every entry behind that of this register and writer.
    pub fn iter_behind(&self, last: Option<&(Key, ShortId)>) -> impl Iterator<Item = (&Key, &OverlayEntry)> {
        use core::ops::Bound::{Included, Unbounded};
        let from = last.map_or(Unbounded, |(key, _)| Included(key));
        let entries = self.entries.range::<Key, _>((from, Unbounded));
        entries
            .flat_map(|(key, own)| own.iter().map(move |entry| (key, entry)))
            .filter(move |(key, entry)| last.is_none_or(|(k, w)| (*key, entry.writer) > (k, *w)))
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

/// Roughly what an entry costs in memory. Its register's name is counted with each of its entries.
pub fn weigh(key: &Key, entry: &OverlayEntry) -> usize {
    weigh_with(key, &entry.value)
}

fn weigh_with(key: &Key, value: &Bytes) -> usize {
    let names = key.object.as_str().len() + key.field.as_str().len();
    names + value.as_deref().map_or(0, <[u8]>::len) + ENTRY_BYTES
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
