//! The durable plane of one node: registers, the index from dot to register, the vector of
//! what is accounted for, and the writes held back because their stamps lie in the future.
//!
//! # Invariants
//! 1. Every dot of the index is in the vector.
//! 2. A dot in the vector is live here, or was superseded by a write that is live here (or
//!    was itself superseded, and so on), or is void.
//! 3. No field with a stamp at or below its object's tombstone is held.

mod flush;
mod quarantine;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    hlc::{Hlc, MAX_AHEAD_MS},
    id::{Dot, FieldName, Key, ObjectId, Origin, ShortId},
    kinds,
    merge::Entry,
    planted::{Plant, planted},
    record::{Item, Record},
    tree::{self, Tree},
    value::Value,
    vector::Vector,
};

use self::quarantine::Quarantine;

/// What became of a write that was offered to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is the register's value now.
    Won,
    /// A later write or a tombstone beats it; it is accounted for.
    Lost,
    /// It was accounted for before.
    Duplicate,
    /// Its stamp lies in the future: held back, and passed on.
    Quarantined,
    /// Its stamp lies in the future and too many such writes of its node are held back: as if it had
    /// never come, so that it may come again.
    Dropped,
    /// Its generation was closed before its stamp: it never took place.
    Void,
    /// Its origin may not write this field: accounted for, without effect.
    Forbidden,
    /// Its value is not a value, or stands in the slot of the object's tombstone: accounted for,
    /// without effect.
    Malformed,
}

impl Applied {
    /// Whether the replica had not seen this write before, so that it is to be passed on.
    pub fn is_news(self) -> bool {
        !matches!(self, Self::Duplicate | Self::Dropped)
    }
}

/// The fields of one object, in order of name; the object's tombstone has the empty name.
#[derive(Debug, Clone, Default)]
pub struct Object {
    entries: Vec<(FieldName, Entry)>,
}

impl Object {
    fn position(&self, field: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(name, _)| name.as_str().cmp(field))
    }

    /// The write a field holds.
    pub fn entry(&self, field: &str) -> Option<&Entry> {
        self.position(field).ok().and_then(|at| self.entries.get(at)).map(|(_, entry)| entry)
    }

    /// The object's tombstone.
    pub fn tombstone(&self) -> Option<&Entry> {
        self.entry("")
    }

    /// Every entry: fields, their tombstones, and the object's own.
    pub fn entries(&self) -> impl Iterator<Item = (&FieldName, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name, entry))
    }
}

/// What changed since the last batch.
#[derive(Debug, Default)]
struct Dirty {
    keys: BTreeSet<Key>,
    quarantine: BTreeSet<Dot>,
    covered: Vector,
    /// Origins below a floor, or of a state that was replaced, whose records go unless they are
    /// written anew.
    dropped_origins: Vec<Origin>,
    /// Whether a whole state is being replaced: until it is, nothing may be claimed.
    is_replacing: bool,
}

/// The durable state of one node, in memory.
#[derive(Debug, Default)]
pub struct Replica {
    objects: BTreeMap<ObjectId, Object>,
    index: BTreeMap<Origin, BTreeMap<u64, Key>>,
    quarantine: Quarantine,
    closed: BTreeMap<Origin, Hlc>,
    applied: Vector,
    tree: Tree,
    dirty: Dirty,
    plant: Plant,
    unapplied: bool,
    entries: usize,
}

impl Replica {
    /// An empty replica.
    pub fn new(plant: Plant) -> Self {
        Self { plant, ..Self::default() }
    }

    /// Takes in a record read from the store, before anything else happens. The ceiling is
    /// the caller's.
    pub fn load(&mut self, record: Record) {
        match record {
            Record::Register(key, entry) => {
                self.applied.insert(entry.dot);
                self.place(key, entry);
            }
            Record::Quarantined(key, entry) => {
                self.applied.insert(entry.dot);
                self.quarantine.insert(Item { key, entry, covers: Vec::new() });
            }
            Record::Covered(origin, ranges) => {
                // Below a floor it is of no use any more.
                self.dirty.dropped_origins.push(origin);
                for (from, to) in ranges.iter() {
                    self.applied.insert_range(origin, from, to);
                }
            }
            Record::Floor(node, floor) => drop(self.applied.raise_floor(node, floor)),
            Record::Ceiling(_) | Record::KnownSince(_) => {}
        }
    }

    /// Ends the loading: a crash between two batches may have left fields below a tombstone, or
    /// writes that are void, which were to go with a later batch.
    pub fn finish_loading(&mut self) {
        let deleted: Vec<(ObjectId, Hlc)> = self
            .objects
            .iter()
            .filter_map(|(id, object)| object.tombstone().map(|tombstone| (id.clone(), tombstone.stamp)))
            .collect();
        for (object, stamp) in deleted {
            self.drop_fields_below(&object, stamp);
        }
        let closed: Vec<Origin> = self.closed.keys().copied().collect();
        closed.into_iter().for_each(|origin| self.void_closed(origin));
    }

    /// Which writes are accounted for, flushed or not.
    pub fn applied(&self) -> &Vector {
        &self.applied
    }

    /// The summed-hash tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// One object, with tombstones.
    pub fn object(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.get(id)
    }

    /// Every object, with tombstones.
    pub fn objects(&self) -> &BTreeMap<ObjectId, Object> {
        &self.objects
    }

    /// The write that a register holds.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.objects.get(&key.object)?.entry(key.field.as_str())
    }

    /// How many registers are held, tombstones included.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Every live dot with its stamp, held-back ones included.
    pub fn live_dots(&self) -> impl Iterator<Item = (Hlc, Dot)> + '_ {
        let live = self.index.iter().flat_map(move |(origin, dots)| {
            dots.iter().filter_map(move |(seq, key)| {
                let dot = Dot { origin: *origin, seq: *seq };
                self.entry(key).map(|entry| (entry.stamp, dot))
            })
        });
        live.chain(self.quarantine.iter().map(|item| (item.entry.stamp, item.entry.dot)))
    }

    /// The live write with this dot.
    pub fn item(&self, dot: Dot) -> Option<Item> {
        if let Some(item) = self.quarantine.get(dot) {
            return Some(item.clone());
        }
        let key = self.index.get(&dot.origin)?.get(&dot.seq)?;
        Some(Item { key: key.clone(), entry: self.entry(key)?.clone(), covers: Vec::new() })
    }

    /// Offers a write. `now_ms` is this node's time; afterwards the write's dot and all that
    /// it covers are accounted for, unless it was dropped.
    pub fn apply(&mut self, now_ms: u64, item: Item) -> Applied {
        let fate = if self.applied.contains(item.entry.dot) {
            Some(Applied::Duplicate)
        } else {
            self.judge(now_ms, &item)
        };
        if fate == Some(Applied::Dropped) {
            return Applied::Dropped;
        }
        for dot in &item.covers {
            self.cover(*dot);
        }
        if !self.cover(item.entry.dot) {
            return Applied::Duplicate;
        }
        self.admit(fate, item)
    }

    /// Merges a write although its dot is accounted for: the repair after the trees differed.
    pub fn repair(&mut self, now_ms: u64, item: Item) -> Applied {
        let known = self.entry(&item.key).is_some_and(|own| !item.entry.beats(own));
        if known || self.quarantine.get(item.entry.dot).is_some() {
            return Applied::Duplicate;
        }
        let fate = self.judge(now_ms, &item);
        if fate != Some(Applied::Dropped) {
            self.cover(item.entry.dot);
        }
        self.admit(fate, item)
    }

    /// What becomes of a write before it is compared with what its register holds; `None`: it takes
    /// part. Nothing changes.
    fn judge(&self, now_ms: u64, item: &Item) -> Option<Applied> {
        let node = item.entry.dot.origin.node;
        if !kinds::may_originate(&item.key, node) {
            return Some(Applied::Forbidden);
        }
        let is_value = |bytes: &[u8]| !item.key.field.is_object() && Value::decode(bytes).is_ok();
        if !item.entry.value.as_deref().is_none_or(is_value) {
            return Some(Applied::Malformed);
        }
        if self.is_void(&item.entry) {
            return Some(Applied::Void);
        }
        let is_ahead = item.entry.stamp.ms() > now_ms.saturating_add(MAX_AHEAD_MS);
        if !is_ahead || planted!(self.plant, QuarantineIgnored) {
            return None;
        }
        Some(if self.quarantine.has_room(node) { Applied::Quarantined } else { Applied::Dropped })
    }

    fn admit(&mut self, fate: Option<Applied>, item: Item) -> Applied {
        let Some(fate) = fate else { return self.merge(item.key, item.entry) };
        if fate == Applied::Quarantined {
            self.dirty.quarantine.insert(item.entry.dot);
            self.quarantine.insert(item);
        }
        fate
    }

    /// After which stamp a generation was closed, if it was.
    pub fn closed_after(&self, origin: Origin) -> Option<Hlc> {
        self.closed.get(&origin).copied()
    }

    /// Whether a write was made in a generation that was closed before its stamp.
    pub fn is_void(&self, entry: &Entry) -> bool {
        self.closed.get(&entry.dot.origin).is_some_and(|closed| entry.stamp > *closed)
    }

    fn merge(&mut self, key: Key, entry: Entry) -> Applied {
        if self.is_beaten(&key, &entry) {
            return Applied::Lost;
        }
        if key.field.is_object() {
            self.drop_fields_below(&key.object, entry.stamp);
        }
        self.dirty.keys.insert(key.clone());
        if let Some(origin) = self.place(key, entry) {
            self.void_closed(origin);
        }
        Applied::Won
    }

    fn is_beaten(&self, key: &Key, entry: &Entry) -> bool {
        let Some(object) = self.objects.get(&key.object) else { return false };
        if planted!(self.plant, StampNotCompared) {
            return false;
        }
        let shadowed = !key.field.is_object() && object.tombstone().is_some_and(|t| entry.stamp <= t.stamp);
        shadowed || object.entry(key.field.as_str()).is_some_and(|own| !entry.beats(own))
    }

    /// Puts an entry into its register and keeps index, tree, count and closings in step. Returns
    /// the origin that it closes.
    fn place(&mut self, key: Key, entry: Entry) -> Option<Origin> {
        self.remove(&key);
        let closes = closing(&key, &entry);
        self.closed.extend(closes);
        self.tree.add(&key, &entry);
        self.index.entry(entry.dot.origin).or_default().insert(entry.dot.seq, key.clone());
        let object = self.objects.entry(key.object).or_default();
        if let Err(at) = object.position(key.field.as_str()) {
            object.entries.insert(at, (key.field, entry));
            object.entries.shrink_to_fit();
            self.entries += 1;
        }
        closes.map(|(origin, _)| origin)
    }

    /// Takes an entry out of its register and keeps index, tree, count and closings in step.
    fn remove(&mut self, key: &Key) {
        let Some(object) = self.objects.get_mut(&key.object) else { return };
        let Ok(at) = object.position(key.field.as_str()) else { return };
        let (_, entry) = object.entries.remove(at);
        if object.entries.is_empty() {
            self.objects.remove(&key.object);
        }
        self.entries -= 1;
        self.tree.remove(key, &entry);
        if let Some((origin, _)) = closing(key, &entry) {
            self.closed.remove(&origin);
        }
        if let Some(dots) = self.index.get_mut(&entry.dot.origin) {
            dots.remove(&entry.dot.seq);
            if dots.is_empty() {
                self.index.remove(&entry.dot.origin);
            }
        }
    }

    fn drop(&mut self, key: Key) {
        self.remove(&key);
        self.dirty.keys.insert(key);
    }

    fn drop_fields_below(&mut self, object: &ObjectId, stamp: Hlc) {
        let Some(held) = self.objects.get(object) else { return };
        let below: Vec<Key> = held
            .entries()
            .filter(|(name, entry)| !name.is_object() && entry.stamp <= stamp)
            .map(|(name, _)| Key { object: object.clone(), field: name.clone() })
            .collect();
        below.into_iter().for_each(|key| self.drop(key));
    }

    /// Makes void what a closed generation wrote after its closing stamp, whether it was held
    /// back here or had taken effect: every replica must judge alike.
    fn void_closed(&mut self, origin: Origin) {
        let held = self.quarantine.of_origin(origin).filter(|item| self.is_void(&item.entry));
        for dot in held.map(|item| item.entry.dot).collect::<Vec<Dot>>() {
            self.quarantine.remove(dot);
            self.dirty.quarantine.insert(dot);
            // What it had replaced elsewhere never came here.
            self.unapplied = true;
        }
        let live = self.index.get(&origin).map(|dots| dots.values().cloned().collect::<Vec<Key>>());
        for key in live.unwrap_or_default() {
            if self.entry(&key).is_some_and(|entry| self.is_void(entry)) {
                self.drop(key);
                self.unapplied = true;
            }
        }
    }

    /// Whether writes that had taken effect were made void since the last call: what they had
    /// replaced may live on elsewhere, so the trees should be compared.
    pub fn take_unapplied(&mut self) -> bool {
        core::mem::take(&mut self.unapplied)
    }

    /// Holds back those writes of other nodes than `me` that took effect while the clock ran
    /// ahead, now that it does not. Returns their registers.
    pub fn hold_back(&mut self, now_ms: u64, me: ShortId) -> Vec<Key> {
        let limit = now_ms.saturating_add(MAX_AHEAD_MS);
        let ahead: Vec<Key> = self
            .objects
            .iter()
            .flat_map(|(object, held)| held.entries().map(move |(field, entry)| (object, field, entry)))
            .filter(|(_, _, entry)| entry.stamp.ms() > limit && entry.dot.origin.node != me)
            .map(|(object, field, _)| Key { object: object.clone(), field: field.clone() })
            .collect();
        for key in &ahead {
            let Some(entry) = self.entry(key).cloned() else { continue };
            self.drop(key.clone());
            self.dirty.quarantine.insert(entry.dot);
            self.quarantine.insert(Item { key: key.clone(), entry, covers: Vec::new() });
            self.unapplied = true;
        }
        ahead
    }

    /// Accounts for a dot. Returns whether it was new.
    fn cover(&mut self, dot: Dot) -> bool {
        let new = self.applied.insert(dot);
        if new {
            self.dirty.covered.insert(dot);
        }
        new
    }

    /// Accounts for all that a peer's finished answer covers.
    pub fn cover_all(&mut self, vector: &Vector) {
        let missing = self.applied.missing(vector);
        for (node, floor) in missing.floors() {
            self.dirty.dropped_origins.extend(self.applied.raise_floor(node, floor));
        }
        self.applied.join(&missing);
        self.dirty.covered.join(&missing);
    }

    /// Forgets a tombstone that every node has acknowledged.
    pub fn collect(&mut self, key: &Key) {
        if self.entry(key).is_some_and(Entry::is_tombstone) {
            self.drop(key.clone());
        }
    }

    /// Every tombstone with its register.
    pub fn tombstones(&self) -> impl Iterator<Item = (Key, &Entry)> {
        self.objects.iter().flat_map(|(object, held)| {
            held.entries()
                .filter(|(_, entry)| entry.is_tombstone())
                .map(|(field, entry)| (Key { object: object.clone(), field: field.clone() }, entry))
        })
    }

    /// The registers of these tree leaves behind `after`, in order of their keys, tombstones included;
    /// about `weight` bytes of them.
    pub fn leaf_items(&self, leaves: &BTreeSet<u8>, after: Option<&Key>, weight: usize) -> Vec<Item> {
        let objects = match after {
            Some(key) => self.objects.range(&key.object..),
            None => self.objects.range::<ObjectId, _>(..),
        };
        let all = objects.flat_map(|(object, held)| held.entries().map(move |entry| (object, entry)));
        let mut left = weight;
        all.filter(|(object, (field, _))| {
            after.is_none_or(|key| (*object, *field) > (&key.object, &key.field))
        })
        .map(|(object, (field, entry))| (Key { object: object.clone(), field: field.clone() }, entry))
        .filter(|(key, _)| leaves.contains(&tree::leaf_of(key)))
        .map(|(key, entry)| Item { key, entry: entry.clone(), covers: Vec::new() })
        .take_while(|item| {
            let has_room = left > 0;
            left = left.saturating_sub(item.weight());
            has_room
        })
        .collect()
    }

    /// Collapses a node's generations below `floor`, which every node covers alike.
    pub fn raise_floor(&mut self, node: ShortId, floor: u32) {
        self.dirty.dropped_origins.extend(self.applied.raise_floor(node, floor));
        self.dirty.covered.raise_floor(node, floor);
    }

    /// The highest stamp held of those entries that count.
    pub fn highest_stamp(&self, counts: impl Fn(&Entry) -> bool) -> Option<Hlc> {
        let held = self.objects.values().flat_map(Object::entries).map(|(_, entry)| entry);
        held.filter(|entry| counts(entry)).map(|entry| entry.stamp).max()
    }
}

/// The origin that an entry closes, and the stamp after which its writes are void.
fn closing(key: &Key, entry: &Entry) -> Option<(Origin, Hlc)> {
    let generation = kinds::closed_generation(key)?;
    let node: ShortId = key.object.name().parse().ok()?;
    let at = Value::decode(entry.value.as_deref()?).ok()?.as_int()?;
    Some((Origin { node, generation }, Hlc::from_bits(u64::try_from(at).ok()?)))
}
