//! How the replica's changes become records of the store.

use alloc::vec::Vec;

use super::Replica;
use crate::{
    id::{Dot, Key, Origin},
    record::{self, Batch},
    vector::{Ranges, Vector},
};

/// Bytes at which a batch is full; the store takes up to 4 MiB.
const BATCH_BYTES: usize = 1024 * 1024;

impl Replica {
    /// Marks everything for the store, so that it replaces all that `old` had there. A crash in
    /// between must lose nothing: what of `old` is to stay is in here, what else it holds a peer
    /// has, or it was exported.
    pub fn replace(&mut self, old: &Self) {
        let keys = |replica: &Self| -> Vec<Key> {
            let live = replica.index.values().flat_map(|dots| dots.values().cloned());
            live.chain(replica.dirty.keys.iter().cloned()).collect()
        };
        self.dirty.keys.extend(keys(old).into_iter().chain(keys(self)));
        let held = old.quarantine.iter().chain(self.quarantine.iter()).map(|item| item.entry.dot);
        self.dirty.quarantine.extend(held.chain(old.dirty.quarantine.iter().copied()).collect::<Vec<Dot>>());
        let listed = old.applied.origins().map(|(origin, _)| origin);
        self.dirty.dropped_origins.extend(listed.chain(old.dirty.dropped_origins.iter().copied()));
        self.dirty.covered = self.applied.clone();
        self.dirty.is_replacing = true;
    }

    /// Whether a whole state is being replaced and not all of the new one is in a batch.
    pub fn is_replacing(&self) -> bool {
        self.dirty.is_replacing
    }

    /// Whether anything waits to be made durable.
    pub fn is_dirty(&self) -> bool {
        let dirty = &self.dirty;
        dirty.is_replacing
            || !dirty.keys.is_empty()
            || !dirty.quarantine.is_empty()
            || !dirty.covered.is_empty()
    }

    /// How many registers and held-back writes wait to be made durable.
    pub fn dirty_registers(&self) -> usize {
        self.dirty.keys.len() + self.dirty.quarantine.len()
    }

    /// Records that bring the store nearer to this state, `first` among them, and what it covers
    /// once they are flushed. A batch is bounded; what does not fit stays for the next. What is
    /// covered of other origins goes with the last part, because it may be claimed only when
    /// everything that superseded it is flushed too.
    pub fn take_batch(&mut self, first: &[Key], own: Origin) -> (Batch, Vector) {
        let mut batch = Batch::default();
        for key in first {
            if self.dirty.keys.remove(key) {
                self.write_register(&mut batch, key);
            }
        }
        while batch.bytes() < BATCH_BYTES
            && let Some(key) = self.dirty.keys.pop_first()
        {
            self.write_register(&mut batch, &key);
        }
        while batch.bytes() < BATCH_BYTES
            && let Some(dot) = self.dirty.quarantine.pop_first()
        {
            match self.quarantine.get(dot) {
                Some(item) => batch.puts.push(record::quarantined(&item.key, &item.entry)),
                None => batch.deletes.push(record::quarantine_name(dot)),
            }
        }
        let is_last = self.dirty.keys.is_empty() && self.dirty.quarantine.is_empty();
        let covered = if is_last {
            core::mem::take(&mut self.dirty.covered)
        } else if self.dirty.is_replacing {
            Vector::default()
        } else {
            self.dirty.covered.take_origin(own)
        };
        if is_last {
            self.dirty.is_replacing = false;
            let dropped = core::mem::take(&mut self.dirty.dropped_origins);
            let gone = dropped.into_iter().filter(|origin| self.applied.ranges(*origin).is_none());
            batch.deletes.extend(gone.map(record::covered_name));
        }
        self.write_covered(&mut batch, &covered);
        (batch, covered)
    }

    fn write_register(&self, batch: &mut Batch, key: &Key) {
        match self.entry(key) {
            Some(entry) => batch.puts.push(record::register(key, entry)),
            None => batch.deletes.push(record::register_name(key)),
        }
    }

    fn write_covered(&self, batch: &mut Batch, covered: &Vector) {
        for (origin, _) in covered.origins() {
            let ranges = self.applied.ranges(origin).cloned().unwrap_or_else(Ranges::default);
            batch.puts.push(record::covered(origin, &ranges));
        }
        for (node, floor) in covered.floors() {
            batch.puts.push(record::floor(node, floor));
        }
    }
}
