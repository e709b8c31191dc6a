//! The reference model: what was written, by the laws alone.
//!
//! It knows no vectors, queues or exchanges. It keeps every write that any node gave a dot,
//! and on which disks each is safe; from these it computes what readers must see.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{
    Dot, FieldName, Hlc, Key, NodeId, ObjectId, Origin, ShortId, Value,
    kinds::Durability,
    merge::{Bytes, Entry},
    mesh::Op,
    record::{Batch, Item, Record},
};

use super::{Failure, disk::Disk};

/// One change that a node was asked to make.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) node: usize,
    pub(crate) epoch: u32,
    pub(crate) token: u64,
    /// When, by the true time of the world.
    pub(crate) at: u64,
    pub(crate) key: Key,
    /// What was set; a deletion has none.
    pub(crate) value: Bytes,
    pub(crate) stamp: Hlc,
    pub(crate) durability: Durability,
    pub(crate) acknowledged: bool,
}

/// A request to a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) node: usize,
    pub(crate) epoch: u32,
    pub(crate) at: u64,
    pub(crate) token: u64,
    pub(crate) stamp: Hlc,
}

/// A write with a dot.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) entry: Entry,
    /// The nodes on whose disks it was synced and which were not set back since, as bits.
    pub(crate) safe: u64,
    /// The nodes on whose disks it was ever synced, as bits.
    ever: u64,
    /// When it got its dot, by the true time of the world.
    at: u64,
    /// How often it was pushed over a link.
    pub(crate) pushes: u64,
    /// The write of which it is a copy, added back from a store that was set back.
    copy_of: Option<Dot>,
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) changes: Vec<Change>,
    /// The true time of the world.
    pub(crate) now: u64,
    /// What was ever said in the overlay, by register and writer.
    pub(crate) said: BTreeSet<(Key, usize)>,
    pub(crate) writes: BTreeMap<Dot, Write>,
    by_key: BTreeMap<Key, BTreeSet<Dot>>,
    /// Keys that a household's honest admins admitted at any time.
    pub(crate) admitted_ever: BTreeSet<NodeId>,
    /// Keys that they revoked.
    pub(crate) revoked: BTreeSet<NodeId>,
    /// Those of them of which the founder's backup may not know, while nobody else may either.
    pub(crate) unsure: BTreeSet<NodeId>,
    /// Changes of the clock's generation, per node.
    pub(crate) corrections: BTreeMap<usize, u32>,
    /// The nodes whose disks were ever lost or set back, as bits.
    was_set_back: u64,
    names_set_back: BTreeSet<ShortId>,
    /// The writes that a disk held when it was set back.
    old: BTreeSet<Dot>,
    /// The writes that were handed out for the lost-and-found.
    lost: BTreeSet<Dot>,
    by_value: BTreeMap<std::sync::Arc<[u8]>, usize>,
    deletions: BTreeMap<Key, Vec<usize>>,
    last_value: u64,
}

impl Model {
    /// A value that no other write has.
    pub(crate) fn value(&mut self, padding: usize) -> Value {
        self.last_value += 1;
        Value::from(format!("w{}{}", self.last_value, "-".repeat(padding)).as_str())
    }

    /// Notes what a node was asked.
    pub(crate) fn asked(&mut self, asked: Asked, ops: &[Op]) {
        let Asked { node, epoch, at, token, stamp } = asked;
        for op in ops {
            let (key, value) = match op {
                Op::Set(key, value) => (key.clone(), value.encode().ok()),
                Op::Unset(key) => (key.clone(), None),
                Op::Delete(object) => (Key { object: object.clone(), field: FieldName::object() }, None),
            };
            let durability = mesh_proto::kinds::durability(&key);
            let number = self.changes.len();
            match &value {
                Some(value) => drop(self.by_value.insert(value.clone(), number)),
                None => self.deletions.entry(key.clone()).or_default().push(number),
            }
            if durability != Durability::Config {
                self.said.insert((key.clone(), node));
            }
            let change =
                Change { node, epoch, at, token, key, value, stamp, durability, acknowledged: false };
            self.changes.push(change);
        }
    }

    /// The change that set this value: no two set the same.
    pub(crate) fn change_to(&self, value: &[u8]) -> Option<&Change> {
        self.by_value.get(value).and_then(|at| self.changes.get(*at))
    }

    /// The changes that deleted what is at this key.
    pub(crate) fn deletions(&self, key: &Key) -> impl Iterator<Item = &Change> {
        self.deletions.get(key).into_iter().flatten().filter_map(|at| self.changes.get(*at))
    }

    /// Whether a change came after another, by the true time or by the clocks of the writers as they were then; of one
    /// node always by the time. Where several nodes ran ahead at once and were corrected, the order between their
    /// writes of that time is lost.
    pub(crate) fn is_later(&self, other: &Change, change: &Change) -> bool {
        let own = other.node == change.node && !self.was_set_back(change.node);
        let lost = other.node != change.node
            && [change, other].iter().all(|change| self.corrections.contains_key(&change.node));
        other.at >= change.at || lost || (!own && other.stamp >= change.stamp)
    }

    /// Whether an entry, of the register of a change or of the slot of its object, is what became of the change, or beat
    /// it: it is stamped no earlier. What a corrected clock let be written again is told by its value, for it has a lower
    /// stamp, and a tombstone, which has none, by when it got its dot.
    pub(crate) fn keeps(&self, change: &Change, key: &Key, entry: &Entry) -> bool {
        if entry.stamp >= change.stamp {
            return true;
        }
        if !self.corrections.contains_key(&change.node) {
            return false;
        }
        let Some(value) = entry.value.as_deref() else {
            let again = self.writes.get(&entry.dot).is_some_and(|write| write.at >= change.at);
            let mut others = self.deletions(key).filter(|other| other.node != change.node);
            return again || others.any(|other| self.is_later(other, change));
        };
        self.change_to(value).is_some_and(|other| self.is_later(other, change))
    }

    /// Notes a write with a dot, wherever it shows. A dot that stands for two writes is the
    /// end of all order.
    pub(crate) fn saw(&mut self, key: &Key, entry: &Entry) -> Result<(), Failure> {
        if let Some(known) = self.writes.get(&entry.dot) {
            if known.key != *key || known.entry != *entry {
                let reason =
                    format!("{:?} is {:?} {:?} and {key:?} {entry:?}", entry.dot, known.key, known.entry);
                return Err(Failure::new("no dot twice", reason).on(&key.object));
            }
            return Ok(());
        }
        self.by_key.entry(key.clone()).or_default().insert(entry.dot);
        let copied = self.writes_of(key).find(|w| {
            w.entry.stamp == entry.stamp && w.entry.dot != entry.dot && w.entry.value == entry.value
        });
        let copy_of = copied.map(|w| w.copy_of.unwrap_or(w.entry.dot));
        let (key, entry) = (key.clone(), entry.clone());
        let write = Write { key, entry: entry.clone(), safe: 0, ever: 0, at: self.now, pushes: 0, copy_of };
        self.writes.insert(entry.dot, write);
        Ok(())
    }

    /// Notes the writes of a batch that a node gives to its disk.
    pub(crate) fn saw_batch(&mut self, records: &Batch) -> Result<(), Failure> {
        for (key, value) in &records.puts {
            match Record::decode(key, value) {
                Ok(Record::Register(key, entry) | Record::Quarantined(key, entry)) => {
                    self.saw(&key, &entry)?;
                }
                Ok(_) => {}
                Err(error) => return Err(Failure::new("records read back", error.to_string())),
            }
        }
        Ok(())
    }

    /// Notes that a batch is synced on a node's disk.
    pub(crate) fn synced(&mut self, node: usize, records: &Batch) {
        for (key, value) in &records.puts {
            if let Ok(Record::Register(_, entry) | Record::Quarantined(_, entry)) = Record::decode(key, value)
                && let Some(write) = self.writes.get_mut(&entry.dot)
            {
                write.safe |= 1 << node;
                write.ever |= 1 << node;
            }
        }
    }

    /// Whether a write was handed out for the lost-and-found.
    pub(crate) fn was_handed_out(&self, dot: Dot) -> bool {
        self.lost.contains(&dot)
    }

    /// Whether a node's disk was ever lost or set back.
    pub(crate) fn was_set_back(&self, node: usize) -> bool {
        self.was_set_back & 1 << node != 0
    }

    /// Notes that a node's disk was lost, or set back to what it holds now.
    pub(crate) fn set_back(&mut self, node: usize, name: ShortId, now_holds: Option<&Disk>) {
        self.was_set_back |= 1 << node;
        self.names_set_back.insert(name);
        self.writes.values_mut().for_each(|write| write.safe &= !(1 << node));
        for record in now_holds.into_iter().flat_map(Disk::records) {
            if let Record::Register(_, entry) | Record::Quarantined(_, entry) = record
                && let Some(write) = self.writes.get_mut(&entry.dot)
            {
                write.safe |= 1 << node;
                self.old.insert(entry.dot);
            }
        }
    }

    /// Notes what a node handed out for the lost-and-found. What it wrote itself since its store
    /// was set back does not belong there.
    pub(crate) fn handed_out(&mut self, node: ShortId, lost: &[Item]) {
        let dots = lost.iter().map(|item| item.entry.dot);
        self.lost.extend(dots.filter(|dot| dot.origin.node != node || self.old.contains(dot)));
    }

    /// Whether only a node may write a register that was set back itself: nobody adds back for it
    /// what it says of itself.
    pub(crate) fn is_of_one_set_back(&self, key: &Key) -> bool {
        let of_one = !mesh_proto::kinds::may_originate(key, ShortId(0));
        of_one && key.object.name().parse().is_ok_and(|name| self.names_set_back.contains(&name))
    }

    /// Whether a copy of a write has no place in the household: a node that was never set back had
    /// the write on its disk, so that everybody knows what became of it.
    fn is_undead(&self, write: &Write) -> bool {
        let original = write.copy_of.and_then(|dot| self.writes.get(&dot));
        original.is_none_or(|original| original.ever & !self.was_set_back != 0)
    }

    /// Until which stamp the writes of closed generations count, by the closings that are safe
    /// on the disk of one of `members` (bits), or by all that ever were.
    fn closed(&self, members: Option<u64>) -> BTreeMap<Origin, Hlc> {
        let mut closed = BTreeMap::new();
        for write in self.writes.values() {
            if members.is_some_and(|members| write.safe & members == 0) {
                continue;
            }
            let Some(generation) = write.key.field.as_str().strip_prefix("closed.") else { continue };
            if write.key.object.kind() != "node" {
                continue;
            }
            let origin = generation.parse().ok().zip(write.key.object.name().parse().ok());
            let value = write.entry.value.as_deref().and_then(|bytes| Value::decode(bytes).ok());
            if let (Some((generation, node)), Some(Value::Int(bits))) = (origin, value) {
                closed.insert(Origin { node, generation }, Hlc::from_bits(u64::try_from(bits).unwrap_or(0)));
            }
        }
        closed
    }

    /// The writes of a register, dots in order.
    pub(crate) fn writes_of(&self, key: &Key) -> impl Iterator<Item = &Write> {
        self.by_key.get(key).into_iter().flatten().filter_map(|dot| self.writes.get(dot))
    }

    /// Every register ever written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// What each register must hold at least, by the writes that are safe on the disk of one
    /// of `members` (bits) and not void, with stamps up to `until_ms`.
    pub(crate) fn expected(&self, until_ms: u64, members: u64) -> Expected<'_> {
        let ever_closed = self.closed(None);
        let mut least: BTreeMap<&Key, &Entry> = BTreeMap::new();
        for write in self.writes.values() {
            let void = ever_closed.get(&write.entry.dot.origin).is_some_and(|at| write.entry.stamp > *at);
            if write.safe & members == 0 || void || write.entry.stamp.ms() > until_ms {
                continue;
            }
            let best = least.entry(&write.key).or_insert(&write.entry);
            if write.entry.beats(best) {
                *best = &write.entry;
            }
        }
        Expected { closed: self.closed(Some(members)), least, members }
    }
}

/// What must be seen.
pub(crate) struct Expected<'a> {
    closed: BTreeMap<Origin, Hlc>,
    least: BTreeMap<&'a Key, &'a Entry>,
    members: u64,
}

impl Expected<'_> {
    /// The stamp of the object's tombstone, zero if none is safe.
    fn tombstone(&self, object: &ObjectId) -> Hlc {
        let slot = Key { object: object.clone(), field: FieldName::object() };
        self.least.get(&slot).map_or(Hlc::ZERO, |entry| entry.stamp)
    }

    /// Compares a register, as every replica holds it, with what the laws say.
    pub(crate) fn check(&self, model: &Model, key: &Key, held: Option<&Entry>) -> Result<(), Failure> {
        let fail = |oracle, reason: String| Err(Failure::new(oracle, reason).on(&key.object));
        let excused = model.is_of_one_set_back(key);
        let tombstone = self.tombstone(&key.object);
        let least = self.least.get(key).filter(|e| e.value.is_some() && e.stamp > tombstone);
        let Some(held) = held.filter(|entry| entry.value.is_some()) else {
            let Some(least) = least else { return Ok(()) };
            let slot = Key { object: key.object.clone(), field: FieldName::object() };
            let counts = |w: &&Write| w.safe & self.members != 0 && !self.is_void(&w.entry);
            let buried = model.writes_of(&slot).filter(counts).any(|w| w.entry.stamp >= least.stamp)
                || model
                    .writes_of(key)
                    .filter(counts)
                    .any(|w| w.entry.value.is_none() && w.entry.beats(least));
            if buried || excused || model.lost.contains(&least.dot) || self.was_hidden(model, key, least) {
                return Ok(());
            }
            return fail("nothing lost", format!("{key:?}: nobody shows {least:?}"));
        };
        let Some(write) = model.writes.get(&held.dot) else {
            return fail("nothing from nowhere", format!("{key:?}: nobody wrote {held:?}"));
        };
        if self.is_void(held) {
            return fail("void is void", format!("{key:?}: {held:?} is of a closed generation"));
        }
        if held.stamp <= tombstone && model.is_undead(write) {
            let reason = format!("{key:?}: {held:?} came back from below the tombstone {tombstone:?}");
            return fail("the deleted stays deleted", reason);
        }
        if let Some(least) = self.least.get(key)
            && least.beats(held)
            && !excused
            && model.is_undead(write)
        {
            let law = if least.value.is_none() { "the deleted stays deleted" } else { "the latest wins" };
            return fail(law, format!("{key:?}: {held:?} is shown, {least:?} is later"));
        }
        Ok(())
    }

    /// Whether a write that proved void had taken effect over this one: where the clocks of several nodes ran ahead
    /// at once, all that held it may have let it go by then.
    fn was_hidden(&self, model: &Model, key: &Key, least: &Entry) -> bool {
        let slot = Key { object: key.object.clone(), field: FieldName::object() };
        let mut over = model.writes_of(key).chain(model.writes_of(&slot));
        model.corrections.len() > 1
            && over.any(|write| self.is_void(&write.entry) && write.entry.stamp > least.stamp)
    }

    fn is_void(&self, entry: &Entry) -> bool {
        self.closed.get(&entry.dot.origin).is_some_and(|at| entry.stamp > *at)
    }
}
