//! What becomes of a store that was restored from a backup, an export or a repair.
//!
//! It is never merged: tombstones that its deleted objects once had may be forgotten by all,
//! and merging would bring those objects back. Instead a peer's whole state replaces it, and
//! of the old state only what that peer cannot have heard of is added again.

use alloc::vec::Vec;

use crate::{
    id::{Key, Origin},
    kinds,
    merge::Entry,
    record::Item,
    replica::{Object, Replica},
    vector::Vector,
};

/// What to do with the registers of the old state.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be written again, under a new dot and the old stamp.
    pub again: Vec<(Key, Entry)>,
    /// For the lost-and-found export: their objects were deleted meanwhile.
    pub lost: Vec<Item>,
}

/// Sorts out the old state against a peer's, which accounts for `peer`. What was written as
/// `current`, since the restore, is no old state: it is always written again.
pub fn plan(old: &Replica, new: &Replica, peer: &Vector, current: Origin) -> Plan {
    let mut plan = Plan::default();
    for (id, object) in old.objects() {
        let exists = new.object(id).is_some_and(has_visible_field);
        let made_here = object.entries().all(|(_, entry)| !peer.contains(entry.dot));
        for (field, entry) in object.entries() {
            let is_recent = entry.dot.origin == current;
            if peer.contains(entry.dot) && !is_recent {
                continue;
            }
            let key = Key { object: id.clone(), field: field.clone() };
            if !kinds::may_originate(&key, current.node) {
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
    plan
}

fn has_visible_field(object: &Object) -> bool {
    object.entries().any(|(name, entry)| !name.is_object() && !entry.is_tombstone())
}
