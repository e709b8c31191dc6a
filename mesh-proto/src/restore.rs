//! What becomes of a store that was set back: restored from a backup, an export or a repair, or
//! an old image of a card.
//!
//! It is never merged: tombstones that its deleted objects once had may be forgotten by all,
//! and merging would bring those objects back. Instead a peer's whole state replaces it, and
//! of the old state only what that peer cannot have heard of is added again.

use alloc::{collections::BTreeSet, vec::Vec};

use crate::{
    id::{Dot, Key, ShortId},
    kinds,
    merge::Entry,
    record::Item,
    replica::{Object, Replica},
    vector::Vector,
};

/// How far the replacement of a store has come. While there is one, the node answers no exchange.
#[derive(Debug)]
pub struct Restore {
    /// What this node wrote in this generation and later was written since the store was set back.
    pub since: u32,
    /// A peer that accounts for this may replace the store; others only when all were asked.
    pub needs: Vector,
    /// What was handed out for the lost-and-found and is not reported durable yet, with its number.
    pub handed_out: Option<(u32, BTreeSet<Dot>)>,
    /// What is durable in the lost-and-found.
    pub saved: BTreeSet<Dot>,
    /// Set once the new state is in memory.
    pub flushing: Option<Flushing>,
}

/// The new state on its way to the disk.
#[derive(Debug, Default)]
pub struct Flushing {
    /// What was added again, to be pushed at the end.
    pub again: Vec<(Key, Dot)>,
    /// The batch that completes it.
    pub batch: Option<u64>,
}

impl Restore {
    /// Begins with a store that accounts for `old`. Of this node's own writes those of the last
    /// generation before it was set back may be nowhere else: no peer needs to have them.
    pub fn new(since: u32, old: &Vector, me: ShortId) -> Self {
        let last = old.generations(me).map(|(o, _)| o.generation).filter(|g| *g < since).max();
        let last = last.unwrap_or(since);
        let mut needs = Vector::default();
        for (origin, ranges) in old.origins().filter(|(o, _)| o.node != me || o.generation < last) {
            ranges.iter().for_each(|(from, to)| needs.insert_range(origin, from, to));
        }
        Self { since, needs, handed_out: None, saved: BTreeSet::new(), flushing: None }
    }

    /// How many writes of the old state a peer does not account for that should.
    pub fn lacking(&self, peer: &Vector) -> u64 {
        let missing = peer.missing(&self.needs);
        let ranges = missing.origins().flat_map(|(_, ranges)| ranges.iter());
        ranges.map(|(from, to)| (to - from).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// Whether the node still asks its peers.
    pub fn is_asking(&self) -> bool {
        self.flushing.is_none()
    }
}

/// What to do with the registers of the old state.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be written again, under a new dot and the old stamp.
    pub again: Vec<(Key, Entry)>,
    /// For the lost-and-found export: their objects were deleted meanwhile.
    pub lost: Vec<Item>,
}

/// Sorts out the old state against a peer's, which accounts for `peer`. What `me` wrote since the
/// generation `since` is no old state: it is always written again.
pub fn plan(old: &Replica, new: &Replica, peer: &Vector, me: ShortId, since: u32) -> Plan {
    let mut plan = Plan::default();
    for (id, object) in old.objects() {
        let exists = new.object(id).is_some_and(has_visible_field);
        let made_here = object.entries().all(|(_, entry)| !peer.contains(entry.dot));
        for (field, entry) in object.entries() {
            let origin = entry.dot.origin;
            let is_recent = origin.node == me && origin.generation >= since;
            if peer.contains(entry.dot) && !is_recent {
                continue;
            }
            if new.is_void(entry) {
                // Its writer wrote it again when its clock was corrected.
                continue;
            }
            let key = Key { object: id.clone(), field: field.clone() };
            if !kinds::may_originate(&key, me) {
                // Its writer has it and brings it; nobody else may write it again.
                continue;
            }
            if exists || made_here || is_recent {
                plan.again.push((key, entry.clone()));
            } else {
                plan.lost.push(Item { key, entry: entry.clone(), covers: Vec::new() });
            }
        }
    }
    plan.again.sort_by_key(|(_, entry)| entry.stamp);
    plan
}

fn has_visible_field(object: &Object) -> bool {
    object.entries().any(|(name, entry)| !name.is_object() && !entry.is_tombstone())
}
