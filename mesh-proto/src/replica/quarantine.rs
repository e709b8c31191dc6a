//! Writes that are held back because their stamps lie in the future.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Applied, Replica};
use crate::{
    hlc::{Hlc, MAX_AHEAD_MS},
    id::{Dot, Key, Origin, ShortId},
    limits::Limits,
    record::Item,
};

/// The writes by dot, and in the order in which their time comes.
#[derive(Debug)]
pub(super) struct Quarantine {
    items: BTreeMap<Dot, Item>,
    by_stamp: BTreeSet<(Hlc, Dot)>,
    of_node: BTreeMap<ShortId, usize>,
    /// Most writes of one node: its clock alone is wrong, and it alone waits.
    most: usize,
}

impl Default for Quarantine {
    fn default() -> Self {
        let most = Limits::default().held_back;
        Self { items: BTreeMap::new(), by_stamp: BTreeSet::new(), of_node: BTreeMap::new(), most }
    }
}

impl Quarantine {
    pub(super) fn has_room(&self, node: ShortId) -> bool {
        self.of_node.get(&node).is_none_or(|held| *held < self.most)
    }

    pub(super) fn insert(&mut self, item: Item) {
        let dot = item.entry.dot;
        self.remove(dot);
        self.by_stamp.insert((item.entry.stamp, dot));
        *self.of_node.entry(dot.origin.node).or_default() += 1;
        self.items.insert(dot, item);
    }

    pub(super) fn remove(&mut self, dot: Dot) -> Option<Item> {
        let item = self.items.remove(&dot)?;
        self.by_stamp.remove(&(item.entry.stamp, dot));
        if let Some(held) = self.of_node.get_mut(&dot.origin.node) {
            *held -= 1;
            if *held == 0 {
                self.of_node.remove(&dot.origin.node);
            }
        }
        Some(item)
    }

    pub(super) fn get(&self, dot: Dot) -> Option<&Item> {
        self.items.get(&dot)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    pub(super) fn of_origin(&self, origin: Origin) -> impl Iterator<Item = &Item> {
        let (from, to) = (Dot { origin, seq: 0 }, Dot { origin, seq: u64::MAX });
        self.items.range(from..=to).map(|(_, item)| item)
    }

    /// The dots stamped in this millisecond or before.
    pub(super) fn due(&self, ms: u64) -> impl Iterator<Item = Dot> {
        self.by_stamp.iter().take_while(move |(stamp, _)| stamp.ms() <= ms).map(|(_, dot)| *dot)
    }

    pub(super) fn earliest(&self) -> Option<Hlc> {
        self.by_stamp.first().map(|(stamp, _)| *stamp)
    }
}

impl Replica {
    /// Holds back at most so many writes of each node from now on.
    pub fn limit_held_back(&mut self, most: usize) {
        self.quarantine.most = most;
    }

    /// How many writes of each node are held back.
    pub fn held_back_by_node(&self) -> &BTreeMap<ShortId, usize> {
        &self.quarantine.of_node
    }

    /// How many writes from the future are held back.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// The held-back write with this dot.
    pub fn quarantined_item(&self, dot: Dot) -> Option<&Item> {
        self.quarantine.get(dot)
    }

    /// Lets those held-back writes take effect whose time has come. Returns them with what
    /// became of them.
    pub fn release(&mut self, now_ms: u64) -> Vec<(Key, Applied)> {
        let due: Vec<Dot> = self.quarantine.due(now_ms.saturating_add(MAX_AHEAD_MS)).collect();
        let mut released = Vec::new();
        for dot in due {
            let Some(item) = self.quarantine.remove(dot) else { continue };
            self.dirty.quarantine.insert(dot);
            let key = item.key.clone();
            let fate = self.judge(now_ms, &item);
            released.push((key, self.admit(fate, item)));
        }
        released
    }

    /// When the next held-back write may take effect, in this node's milliseconds.
    pub fn next_release(&self) -> Option<u64> {
        self.quarantine.earliest().map(|stamp| stamp.ms().saturating_sub(MAX_AHEAD_MS))
    }
}
