//! A store with a power switch, for tests: whatever was not synced is gone after a power cut.
//!
//! `kill -9` proves nothing about durability, because the page cache of the kernel survives it.
//! This store has a page cache of its own that does not: a commit first writes, then syncs, and a
//! hook may cut the power at each of the points in between.

use super::memory::apply;
use super::{Batch, Store, StoreError};
use std::collections::BTreeMap;

/// A moment inside a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was written yet.
    Before,
    /// Written, not synced: a power cut here loses the batch.
    Written,
    /// Synced, not yet acknowledged: a power cut here keeps the batch.
    Synced,
}

/// What a hook wants to happen at a [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Go on.
    On,
    /// It stays on, but the disk refuses: the commit fails, and what it wrote and did not sync is gone, as
    /// the kernel drops pages that it could not write. Another commit may succeed.
    Refuse,
    /// Cut it: the commit fails and the store answers nothing more until [`UnsyncedStore::crash`].
    Cut,
}

/// Decides at each moment of commit number `n` (from 0; one that failed counts again) what happens.
pub type Hook = Box<dyn FnMut(u64, Moment) -> Power + Send>;

/// The store that drops everything not synced.
#[derive(Default)]
pub struct UnsyncedStore {
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
    page_cache: Vec<Batch>,
    commits: u64,
    dead: bool,
    hook: Option<Hook>,
}

impl UnsyncedStore {
    /// An empty store whose power stays on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Installs the hook that may cut the power.
    pub fn with_hook(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Writes a batch without syncing it. Readable at once, lost by a power cut.
    ///
    /// # Errors
    /// A broken limit, or [`StoreError::Closed`] when the power is off.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        batch.check()?;
        self.powered()?;
        self.page_cache.push(batch.clone());
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the power is off.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.powered()?;
        for batch in self.page_cache.drain(..) {
            apply(&mut self.disk, &batch);
        }
        Ok(())
    }

    /// The store as the next boot finds it: only what was synced, power on, no hook.
    pub fn crash(self) -> Self {
        self.crash_keeping(0)
    }

    /// As [`crash`](Self::crash), but the kernel had already written the first `batches` of those
    /// not synced by its own choice, as a real one may.
    pub fn crash_keeping(mut self, batches: usize) -> Self {
        for batch in self.page_cache.drain(..).take(batches) {
            apply(&mut self.disk, &batch);
        }
        Self { disk: self.disk, ..Self::default() }
    }

    /// How many written batches a power cut would lose now.
    pub fn unsynced(&self) -> usize {
        self.page_cache.len()
    }

    fn powered(&self) -> Result<(), StoreError> {
        if self.dead { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn at(&mut self, moment: Moment) -> Result<(), StoreError> {
        let commit = self.commits;
        match self.hook.as_mut().map_or(Power::On, |hook| hook(commit, moment)) {
            Power::On => {}
            Power::Cut => self.dead = true,
            Power::Refuse => {
                self.page_cache.clear();
                return Err(StoreError::DiskFull { path: "card".into(), free: 0, needed: 1 });
            }
        }
        self.powered()
    }
}

impl Store for UnsyncedStore {
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.powered()?;
        let mut seen = self.disk.clone();
        self.page_cache.iter().for_each(|batch| apply(&mut seen, batch));
        seen.iter().for_each(|(key, value)| each(key, value));
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        batch.check()?;
        self.at(Moment::Before)?;
        self.write(batch)?;
        self.at(Moment::Written)?;
        self.sync()?;
        self.at(Moment::Synced)?;
        self.commits += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    /// A store under test that can lose its power.
    trait Crashable: Store + Sized {
        fn crash(self) -> Self;
    }

    impl Crashable for UnsyncedStore {
        fn crash(self) -> Self {
            UnsyncedStore::crash(self)
        }
    }

    /// Deliberately wrong: acknowledges when the batch is written, and syncs every fourth time.
    struct AcknowledgesEarly(UnsyncedStore, u64);

    impl Store for AcknowledgesEarly {
        fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
            self.0.load(each)
        }
        fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
            self.0.write(batch)?;
            self.1 += 1;
            if self.1.is_multiple_of(4) { self.0.sync() } else { Ok(()) }
        }
    }

    impl Crashable for AcknowledgesEarly {
        fn crash(self) -> Self {
            Self(self.0.crash(), 0)
        }
    }

    fn put(n: u64) -> Batch {
        Batch {
            puts: vec![(format!("key/{}", n % 7).into_bytes(), n.to_be_bytes().to_vec())],
            deletes: vec![],
        }
    }

    fn contents(store: &mut impl Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        store.load(&mut |key, value| drop(records.insert(key.to_vec(), value.to_vec()))).unwrap();
        records
    }

    /// Cuts the power after `commits` commits and compares with what was acknowledged.
    fn acknowledged_survives<S: Crashable>(mut store: S, commits: u64) -> Result<(), String> {
        let mut acknowledged = BTreeMap::new();
        for n in 0..commits {
            let batch = put(n);
            if store.commit(&batch).is_ok() {
                apply(&mut acknowledged, &batch);
            }
        }
        let found = contents(&mut store.crash());
        if found == acknowledged { Ok(()) } else { Err(format!("lost: {acknowledged:?} became {found:?}")) }
    }

    #[test]
    fn what_was_acknowledged_survives_a_power_cut_at_any_count() {
        for commits in 0..20 {
            acknowledged_survives(UnsyncedStore::new(), commits).unwrap();
        }
    }

    #[test]
    fn the_check_catches_a_store_that_acknowledges_before_the_sync() {
        let caught = (1..=8)
            .filter(|&n| acknowledged_survives(AcknowledgesEarly(UnsyncedStore::new(), 0), n).is_err());
        assert_eq!(caught.collect::<Vec<_>>(), [1, 2, 3, 5, 6, 7], "every count but those just after a sync");
    }

    #[test]
    fn a_power_cut_at_each_moment_keeps_exactly_what_was_synced() {
        for (moment, survives) in [(Moment::Before, false), (Moment::Written, false), (Moment::Synced, true)]
        {
            let hook = move |n, at| if n == 2 && at == moment { Power::Cut } else { Power::On };
            let mut store = UnsyncedStore::new().with_hook(Box::new(hook));
            store.commit(&put(0)).unwrap();
            store.commit(&put(1)).unwrap();
            assert!(matches!(store.commit(&put(2)), Err(StoreError::Closed)));
            assert!(matches!(store.commit(&put(3)), Err(StoreError::Closed)), "dead until the next boot");
            let found = contents(&mut store.crash());
            assert_eq!(found.contains_key(b"key/2".as_slice()), survives, "{moment:?}");
            assert_eq!(found.len(), 2 + usize::from(survives));
        }
    }

    #[test]
    fn a_disk_that_refuses_forgets_what_it_did_not_sync_and_takes_it_the_next_time() {
        for (moment, survives) in [(Moment::Before, false), (Moment::Written, false), (Moment::Synced, true)]
        {
            let mut refused = false;
            let hook = move |n, at| {
                let refuses =
                    (n, at) == (1, moment) && !std::mem::replace(&mut refused, n == 1 && at == moment);
                if refuses { Power::Refuse } else { Power::On }
            };
            let mut store = UnsyncedStore::new().with_hook(Box::new(hook));
            store.commit(&put(0)).unwrap();
            assert!(matches!(store.commit(&put(1)), Err(StoreError::DiskFull { .. })));
            store.sync().unwrap();
            assert_eq!(store.disk.contains_key(b"key/1".as_slice()), survives, "{moment:?}");
            store.commit(&put(1)).unwrap();
            assert_eq!(contents(&mut store.crash()).len(), 2, "{moment:?}");
        }
    }

    #[test]
    fn the_kernel_may_have_written_a_prefix_by_itself() {
        let mut store = UnsyncedStore::new();
        (0..3).for_each(|n| store.write(&put(n)).unwrap());
        assert_eq!(store.unsynced(), 3);
        assert_eq!(contents(&mut store).len(), 3, "readable before the sync");
        assert_eq!(contents(&mut store.crash_keeping(2)).len(), 2);
    }
}
