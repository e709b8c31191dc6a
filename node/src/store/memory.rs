//! A store that keeps everything in memory and nothing on disk.

use super::{Batch, Store, StoreError};
use std::collections::BTreeMap;

/// An ordered map. Its batches are atomic; after the process nothing is left.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its records.
    pub fn records(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.records
    }
}

impl Store for MemoryStore {
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.records.iter().for_each(|(key, value)| each(key, value));
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        batch.check()?;
        apply(&mut self.records, batch);
        Ok(())
    }
}

/// Applies a batch to a map: what every store must look like afterwards.
pub(crate) fn apply(records: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &Batch) {
    for key in &batch.deletes {
        records.remove(key);
    }
    for (key, value) in &batch.puts {
        records.insert(key.clone(), value.clone());
    }
}
