//! What waits to be sent over one link, bounded in bytes.
//!
//! A durable write waits as its register and the dots to account for: what is sent is the
//! register's value at that moment, so a register that changes often weighs no more than one
//! that changed once, and the dots replaced meanwhile travel along as `covers`. When the
//! bound is passed everything waiting is dropped and the link is marked: anti-entropy brings
//! what was dropped.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use crate::{
    id::{Dot, Key, ShortId},
    limits::Limits,
    overlay::{Overlay, OverlayItem},
    planted::{Plant, planted},
    record::Item,
    replica::Replica,
    wire::{Message, TARGET_FRAME_BYTES},
};

/// What a waiting register costs besides its names: its places in the map and in the order.
const REGISTER_BYTES: usize = 96;
/// What each further dot of a waiting register costs: a set holds it in nodes that are half full.
const DOT_BYTES: usize = 44;
/// Most covers of one item, so that an item always fits a frame.
const MAX_COVERS: usize = 1_000;
/// Most bytes of control messages waiting, more than the largest roster; a peer that asks faster
/// than it reads is at fault.
pub const MAX_CONTROL_BYTES: usize = 4 * 1024 * 1024;

/// The dots to account for with one register. Most have one, which costs no set.
#[derive(Debug)]
struct Dots {
    first: Dot,
    more: BTreeSet<Dot>,
}

impl Dots {
    fn new(first: Dot) -> Self {
        Self { first, more: BTreeSet::new() }
    }

    /// Adds a dot. Returns whether it is a further one.
    fn insert(&mut self, dot: Dot) -> bool {
        dot != self.first && self.more.insert(dot)
    }

    fn is_any_of(&self, unflushed: &BTreeSet<Dot>) -> bool {
        unflushed.contains(&self.first) || !self.more.is_disjoint(unflushed)
    }

    /// Leaves `most` here and returns the rest.
    fn split_off(&mut self, most: usize) -> Option<Self> {
        let first = *self.more.iter().nth(most.saturating_sub(1))?;
        let mut more = self.more.split_off(&first);
        more.remove(&first);
        Some(Self { first, more })
    }

    fn all(self) -> impl Iterator<Item = Dot> {
        core::iter::once(self.first).chain(self.more)
    }

    /// What a register with these dots costs.
    fn weigh(&self, key: &Key) -> usize {
        weigh(key) + self.more.len() * DOT_BYTES
    }
}

/// The queues of one link.
#[derive(Debug)]
pub struct Outbox {
    control: VecDeque<Message>,
    control_bytes: usize,
    /// Whether the whole roster waits; it is not queued again until it is sent.
    has_roster: bool,
    writes: BTreeMap<Key, Dots>,
    write_order: VecDeque<Key>,
    overlay: BTreeSet<(Key, ShortId)>,
    overlay_order: VecDeque<(Key, ShortId)>,
    bytes: usize,
    /// Most bytes of writes and overlay names.
    most: usize,
    overflowed: bool,
    plant: Plant,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new(Plant::default(), Limits::default().queue_bytes)
    }
}

impl Outbox {
    /// Empty queues for at most so many bytes of writes and overlay names.
    pub fn new(plant: Plant, most: usize) -> Self {
        Self {
            control: VecDeque::new(),
            control_bytes: 0,
            has_roster: false,
            writes: BTreeMap::new(),
            write_order: VecDeque::new(),
            overlay: BTreeSet::new(),
            overlay_order: VecDeque::new(),
            bytes: 0,
            most,
            overflowed: false,
            plant,
        }
    }

    /// Empties the queues. Returns what they held.
    pub fn take_all(&mut self) -> Self {
        let empty = Self::new(self.plant, self.most);
        core::mem::replace(self, empty)
    }

    /// Queues a message that is sent before all else, in place of one that it replaces.
    pub fn control(&mut self, message: Message) {
        self.control_bytes += message.weight();
        let kind = message.is_whole().then(|| core::mem::discriminant(&message));
        let same = |earlier: &&mut Message| Some(core::mem::discriminant(*earlier)) == kind;
        if let Some(earlier) = self.control.iter_mut().find(same) {
            self.control_bytes -= earlier.weight();
            *earlier = message;
        } else {
            self.control.push_back(message);
        }
    }

    /// Whether the whole roster may be queued: it does not wait already.
    pub fn begin_roster(&mut self) -> bool {
        !core::mem::replace(&mut self.has_roster, true)
    }

    /// Whether control messages wait.
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Bytes of control messages waiting.
    pub fn control_bytes(&self) -> usize {
        self.control_bytes
    }

    /// Whether the peer makes this side queue more than it reads.
    pub fn is_flooded(&self) -> bool {
        self.control_bytes > MAX_CONTROL_BYTES
    }

    /// Queues the durable write `dot` of a register.
    pub fn write(&mut self, key: &Key, dot: Dot) {
        if let Some(dots) = self.writes.get_mut(key) {
            if dots.insert(dot) {
                self.bytes += DOT_BYTES;
            }
        } else {
            self.bytes += weigh(key);
            self.writes.insert(key.clone(), Dots::new(dot));
            self.write_order.push_back(key.clone());
        }
        self.check_bound();
    }

    /// Queues a writer's overlay entry for a register.
    pub fn overlay(&mut self, key: &Key, writer: ShortId) {
        let slot = (key.clone(), writer);
        if self.overlay.insert(slot.clone()) {
            self.bytes += weigh(key);
            self.overlay_order.push_back(slot);
            self.check_bound();
        }
    }

    fn check_bound(&mut self) {
        if self.bytes > self.most {
            self.drop_writes();
            self.overflowed = true;
        }
    }

    fn drop_writes(&mut self) {
        self.writes.clear();
        self.write_order.clear();
        self.overlay.clear();
        self.overlay_order.clear();
        self.bytes = 0;
    }

    /// Takes over what waits in another link's queue for the same peer; what it says for itself ends
    /// with that link.
    pub fn adopt(&mut self, mut other: Self) {
        for key in core::mem::take(&mut other.write_order) {
            for dot in other.writes.remove(&key).into_iter().flat_map(Dots::all) {
                self.write(&key, dot);
            }
        }
        for (key, writer) in core::mem::take(&mut other.overlay_order) {
            self.overlay(&key, writer);
        }
        self.overflowed |= other.overflowed;
    }

    /// Drops everything: the link ends.
    pub fn clear(&mut self) {
        self.control.clear();
        self.control_bytes = 0;
        self.drop_writes();
    }

    /// Whether something was dropped since the last call; anti-entropy must follow.
    pub fn take_overflowed(&mut self) -> bool {
        core::mem::take(&mut self.overflowed)
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Registers waiting.
    pub fn len(&self) -> usize {
        self.writes.len() + self.overlay.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.writes.is_empty() && self.overlay.is_empty()
    }

    /// Takes the next messages for one frame. `unflushed` are this node's own writes that are
    /// not durable yet: a register that holds one waits until it is.
    pub fn take(&mut self, replica: &Replica, overlay: &Overlay, unflushed: &BTreeSet<Dot>) -> Vec<Message> {
        if let Some(message) = self.control.pop_front() {
            self.control_bytes -= message.weight();
            return Vec::from([message]);
        }
        self.has_roster = false;
        let mut messages = Vec::new();
        let entries = self.take_overlay(overlay);
        if !entries.is_empty() {
            messages.push(Message::Overlay(entries));
        }
        let items = self.take_writes(replica, unflushed);
        if !items.is_empty() {
            messages.push(Message::Push(items));
        }
        messages
    }

    fn take_overlay(&mut self, overlay: &Overlay) -> Vec<OverlayItem> {
        let (mut items, mut weight) = (Vec::new(), 0);
        while weight < TARGET_FRAME_BYTES / 2
            && let Some(slot) = self.overlay_order.pop_front()
        {
            self.overlay.remove(&slot);
            self.bytes = self.bytes.saturating_sub(weigh(&slot.0));
            let (key, writer) = slot;
            if let Some(entry) = overlay.of_writer(&key, writer) {
                let item = OverlayItem { key, entry: entry.clone() };
                weight += item.weight();
                items.push(item);
            }
        }
        items
    }

    fn take_writes(&mut self, replica: &Replica, unflushed: &BTreeSet<Dot>) -> Vec<Item> {
        let (mut items, mut weight) = (Vec::new(), 0);
        let mut waiting = Vec::new();
        while weight < TARGET_FRAME_BYTES / 2
            && let Some(key) = self.write_order.pop_front()
        {
            let live = replica.entry(&key);
            if live.is_some_and(|entry| unflushed.contains(&entry.dot))
                || self.writes.get(&key).is_some_and(|dots| dots.is_any_of(unflushed))
            {
                waiting.push(key);
                continue;
            }
            let tombstone = tombstone_over(&key, replica);
            if tombstone.as_ref().is_some_and(|item| unflushed.contains(&item.entry.dot)) {
                waiting.push(key);
                continue;
            }
            let Some(mut dots) = self.writes.remove(&key) else { continue };
            self.bytes = self.bytes.saturating_sub(dots.weigh(&key));
            if let Some(rest) = dots.split_off(MAX_COVERS) {
                self.bytes += rest.weigh(&key);
                self.writes.insert(key.clone(), rest);
                self.write_order.push_front(key.clone());
            }
            for item in self.items_for(&key, dots, tombstone, replica) {
                weight += item.weight();
                items.push(item);
            }
        }
        self.write_order.extend(waiting);
        items
    }

    /// The register's live write with the dots it stands for (where the object was deleted, its
    /// tombstone), and every held-back write, which supersedes nothing and is superseded by
    /// nothing yet.
    fn items_for(&self, key: &Key, dots: Dots, tombstone: Option<Item>, replica: &Replica) -> Vec<Item> {
        let mut items = Vec::new();
        let mut covers = Vec::new();
        for dot in dots.all() {
            match replica.quarantined_item(dot) {
                Some(item) => items.push(item.clone()),
                None => covers.push(dot),
            }
        }
        let live =
            replica.entry(key).map(|e| Item { key: key.clone(), entry: e.clone(), covers: Vec::new() });
        if let Some(mut item) = live.or(tombstone)
            && !covers.is_empty()
        {
            covers.retain(|dot| *dot != item.entry.dot);
            if planted!(self.plant, CoversForgotten) {
                covers.clear();
            }
            item.covers = covers;
            items.push(item);
        }
        items
    }
}

/// The tombstone of the object, where it is what left a register empty.
fn tombstone_over(key: &Key, replica: &Replica) -> Option<Item> {
    let object = replica.object(&key.object)?;
    if object.entry(key.field.as_str()).is_some() {
        return None;
    }
    let slot = Key { object: key.object.clone(), field: crate::id::FieldName::object() };
    object.tombstone().map(|entry| Item { key: slot, entry: entry.clone(), covers: Vec::new() })
}

/// Roughly what a waiting register costs.
fn weigh(key: &Key) -> usize {
    key.object.as_str().len() + key.field.as_str().len() + REGISTER_BYTES
}
