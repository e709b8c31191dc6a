//! The one rule by which two writes to a register are merged.
//!
//! # Laws
//! [`Entry::cmp_version`] is a total order over distinct writes, so the merge "keep the
//! greater" is commutative, associative and idempotent: a join. Order, repetition and
//! grouping of delivery cannot change what replicas end with.

use alloc::sync::Arc;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{hlc::Hlc, id::Dot};

/// The bytes of a value, or `None` for a tombstone.
pub type Bytes = Option<Arc<[u8]>>;

/// One durable write as a register holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written.
    pub stamp: Hlc,
    /// Its number.
    pub dot: Dot,
    /// The encoded value ([`crate::Value::encode`]), or `None` for a tombstone.
    pub value: Bytes,
}

impl Entry {
    /// Orders writes to the same register: by stamp, then by origin, then by the hash of the
    /// value; the sequence number last, so that no two distinct writes are equal.
    pub fn cmp_version(&self, other: &Self) -> Ordering {
        (self.stamp, self.dot.origin)
            .cmp(&(other.stamp, other.dot.origin))
            .then_with(|| hash_value(&self.value).cmp(&hash_value(&other.value)))
            .then_with(|| self.dot.seq.cmp(&other.dot.seq))
    }

    /// Whether this write is the one to keep.
    pub fn beats(&self, other: &Self) -> bool {
        self.cmp_version(other) == Ordering::Greater
    }

    /// Whether the write deletes.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

/// The hash that breaks ties between values. A tombstone sorts below every value.
pub fn hash_value(value: &Bytes) -> [u8; 32] {
    value.as_ref().map_or([0; 32], |bytes| *blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Origin, ShortId};
    use proptest::prelude::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        (0u64..3, 0u64..3, 0u32..2, 0u64..3, proptest::option::of(0u8..3)).prop_map(
            |(ms, node, generation, seq, value)| Entry {
                stamp: Hlc::from_ms(ms),
                dot: Dot { origin: Origin { node: ShortId(node), generation }, seq },
                value: value.map(|byte| [byte].into()),
            },
        )
    }

    fn join(a: &Entry, b: &Entry) -> Entry {
        if b.beats(a) { b.clone() } else { a.clone() }
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in any_entry(), b in any_entry(), c in any_entry()) {
            prop_assert_eq!(join(&a, &a), a.clone());
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        }
    }
}
