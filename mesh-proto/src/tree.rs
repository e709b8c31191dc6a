//! A summed-hash tree over the visible durable fields.
//!
//! Two levels: 256 leaves, each the wrapping sum of the hashes of its fields, and the hash
//! of all leaves. A sum is updated by adding and subtracting, so it costs one hash per write,
//! and it depends on the set of fields alone, not on the order in which they came.

use alloc::vec::Vec;

use crate::{id::Key, merge::Entry};

/// How many leaves a tree has.
pub const LEAVES: usize = 256;

/// The tree.
#[derive(Debug, Clone)]
pub struct Tree {
    leaves: Vec<u64>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { leaves: alloc::vec![0; LEAVES] }
    }
}

impl Tree {
    /// Counts a field in.
    pub fn add(&mut self, key: &Key, entry: &Entry) {
        self.shift(key, entry, u64::wrapping_add);
    }

    /// Counts a field out.
    pub fn remove(&mut self, key: &Key, entry: &Entry) {
        self.shift(key, entry, u64::wrapping_sub);
    }

    fn shift(&mut self, key: &Key, entry: &Entry, by: fn(u64, u64) -> u64) {
        if entry.is_tombstone() {
            return;
        }
        if let Some(leaf) = self.leaves.get_mut(usize::from(leaf_of(key))) {
            *leaf = by(*leaf, hash_entry(key, entry));
        }
    }

    /// The leaves' sums.
    pub fn leaves(&self) -> &[u64] {
        &self.leaves
    }

    /// One hash over all leaves.
    pub fn root(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for leaf in &self.leaves {
            hasher.update(&leaf.to_be_bytes());
        }
        first_word(&hasher.finalize())
    }
}

/// The leaf in which a field is counted.
pub fn leaf_of(key: &Key) -> u8 {
    let mut hasher = blake3::Hasher::new();
    hash_key(&mut hasher, key);
    hasher.finalize().as_bytes().first().copied().unwrap_or(0)
}

fn hash_key(hasher: &mut blake3::Hasher, key: &Key) {
    hasher.update(key.object.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(key.field.as_str().as_bytes());
    hasher.update(&[0]);
}

fn hash_entry(key: &Key, entry: &Entry) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hash_key(&mut hasher, key);
    hasher.update(&entry.stamp.to_bits().to_be_bytes());
    hasher.update(&entry.dot.origin.node.0.to_be_bytes());
    hasher.update(entry.value.as_deref().unwrap_or(&[]));
    first_word(&hasher.finalize())
}

fn first_word(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
