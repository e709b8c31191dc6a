//! Version vectors: which writes a replica has accounted for.
//!
//! A vector *covers* a dot when the replica holds that write, or one that superseded it.
//! Dots arrive out of order, so each origin has ranges rather than one head. Old generations
//! that every node covers alike collapse into a floor.

use alloc::{collections::BTreeMap, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::id::{Dot, Origin, ShortId};

/// Most ranges of one vector in a frame. Leaving some out is safe: a vector that claims less
/// only makes a peer send more.
pub const MAX_WIRE_RANGES: usize = 4_096;

/// The highest sequence number there is: one below the limit, so that its successor exists.
pub const MAX_SEQ: u64 = u64::MAX - 1;

/// Inclusive ranges of sequence numbers, merged when they touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Whether `seq` is inside.
    pub fn contains(&self, seq: u64) -> bool {
        self.0.range(..=seq).next_back().is_some_and(|(_, end)| *end >= seq)
    }

    /// Adds `from..=to`. An empty or zero-based range is ignored: sequence numbers start at 1.
    pub fn insert(&mut self, from: u64, to: u64) {
        if from == 0 || from > to || to > MAX_SEQ {
            return;
        }
        let (mut start, mut end) = (from, to);
        if let Some((&before, &before_end)) = self.0.range(..=from).next_back()
            && before_end >= from.saturating_sub(1)
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end.saturating_add(1)).next() {
            self.0.remove(&next);
            end = end.max(next_end);
        }
        self.0.insert(start, end);
    }

    /// The highest number inside, 0 when empty.
    pub fn head(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// The ranges in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(start, end)| (*start, *end))
    }

    /// How many separate ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every number in `other` is in here.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(start, end)| {
            self.0.range(..=start).next_back().is_some_and(|(_, own_end)| *own_end >= end)
        })
    }

    /// What is in here and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (start, end) in self.iter() {
            let mut from = start;
            let first = other.0.range(..=start).next_back().map_or(start, |(s, _)| *s);
            for (&hole, &hole_end) in other.0.range(first..=end) {
                if hole > from {
                    left.insert(from, hole - 1);
                }
                from = from.max(hole_end.saturating_add(1));
            }
            left.insert(from, end);
        }
        left
    }
}

/// Which writes are accounted for, by origin.
///
/// # Laws
/// [`Vector::join`] is set union, hence commutative, associative and idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vector {
    /// Every dot of a generation below its node's floor is covered.
    floors: BTreeMap<ShortId, u32>,
    ranges: BTreeMap<Origin, Ranges>,
}

impl Vector {
    /// Whether the dot is accounted for.
    pub fn contains(&self, dot: Dot) -> bool {
        self.is_below_floor(dot.origin) || self.ranges.get(&dot.origin).is_some_and(|r| r.contains(dot.seq))
    }

    fn is_below_floor(&self, origin: Origin) -> bool {
        self.floors.get(&origin.node).is_some_and(|floor| origin.generation < *floor)
    }

    /// Accounts for one dot. Returns whether it was new; a number outside of 1 to [`MAX_SEQ`]
    /// names no write and is never new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        if self.contains(dot) || dot.seq == 0 || dot.seq > MAX_SEQ {
            return false;
        }
        self.ranges.entry(dot.origin).or_default().insert(dot.seq, dot.seq);
        true
    }

    /// Accounts for a range of dots of one origin.
    pub fn insert_range(&mut self, origin: Origin, from: u64, to: u64) {
        if !self.is_below_floor(origin) && from > 0 && from <= to && to <= MAX_SEQ {
            self.ranges.entry(origin).or_default().insert(from, to);
        }
    }

    /// The highest sequence number covered of an origin.
    pub fn head(&self, origin: Origin) -> u64 {
        self.ranges.get(&origin).map_or(0, Ranges::head)
    }

    /// The highest generation of a node of which anything is covered, 0 if none.
    pub fn highest_generation(&self, node: ShortId) -> u32 {
        let floor = self.floors.get(&node).copied().unwrap_or(0);
        let (from, to) = (Origin { node, generation: 0 }, Origin { node, generation: u32::MAX });
        self.ranges.range(from..=to).next_back().map_or(floor, |(origin, _)| floor.max(origin.generation))
    }

    /// The ranges of every generation of a node above its floor.
    pub fn generations(&self, node: ShortId) -> impl Iterator<Item = (Origin, &Ranges)> {
        let (from, to) = (Origin { node, generation: 0 }, Origin { node, generation: u32::MAX });
        self.ranges.range(from..=to).map(|(origin, ranges)| (*origin, ranges))
    }

    /// Every origin above the floors with its ranges.
    pub fn origins(&self) -> impl Iterator<Item = (Origin, &Ranges)> {
        self.ranges.iter().map(|(origin, ranges)| (*origin, ranges))
    }

    /// The ranges of one origin.
    pub fn ranges(&self, origin: Origin) -> Option<&Ranges> {
        self.ranges.get(&origin)
    }

    /// The floors: every generation of the node below it is covered whole.
    pub fn floors(&self) -> impl Iterator<Item = (ShortId, u32)> + '_ {
        self.floors.iter().map(|(node, floor)| (*node, *floor))
    }

    /// Raises a node's floor; its older generations stop being listed one by one. Returns those that
    /// were.
    pub fn raise_floor(&mut self, node: ShortId, floor: u32) -> Vec<Origin> {
        let own = self.floors.entry(node).or_default();
        *own = floor.max(*own);
        let (from, to) = (Origin { node, generation: 0 }, Origin { node, generation: *own });
        let below: Vec<Origin> = self.ranges.range(from..to).map(|(origin, _)| *origin).collect();
        below.iter().for_each(|origin| drop(self.ranges.remove(origin)));
        below
    }

    /// Set union.
    pub fn join(&mut self, other: &Self) {
        for (node, floor) in other.floors() {
            self.raise_floor(node, floor);
        }
        for (origin, ranges) in other.origins() {
            for (from, to) in ranges.iter() {
                self.insert_range(origin, from, to);
            }
        }
    }

    /// Whether every dot of `other` is in here.
    pub fn covers(&self, other: &Self) -> bool {
        self.missing(other).is_empty()
    }

    /// The dots of `other` that are not in here. A floor above ours always counts as missing, for it
    /// may stand for dots that nobody lists any more.
    pub fn missing(&self, other: &Self) -> Self {
        let mut missing = Self::default();
        for (node, floor) in other.floors() {
            if self.floors.get(&node).copied().unwrap_or(0) < floor {
                missing.floors.insert(node, floor);
            }
        }
        for (origin, ranges) in other.origins() {
            if self.is_below_floor(origin) {
                continue;
            }
            let left = self.ranges.get(&origin).map_or_else(|| ranges.clone(), |own| ranges.minus(own));
            if !left.is_empty() {
                missing.ranges.insert(origin, left);
            }
        }
        missing
    }

    /// Whether an origin has no numbers left for its next writes.
    pub fn is_used_up(&self, origin: Origin) -> bool {
        self.is_below_floor(origin) || self.head(origin) >= MAX_SEQ / 2
    }

    /// Leaves out the floors and origins, by node and generation, for which `keep` does not hold.
    /// Returns whether there was one.
    pub fn retain(&mut self, keep: impl Fn(ShortId, u32) -> bool) -> bool {
        let before = self.floors.len() + self.ranges.len();
        self.floors.retain(|node, floor| keep(*node, *floor));
        self.ranges.retain(|origin, _| keep(origin.node, origin.generation));
        self.floors.len() + self.ranges.len() < before
    }

    /// Takes one origin out.
    pub fn take_origin(&mut self, origin: Origin) -> Self {
        let mut taken = Self::default();
        if let Some(ranges) = self.ranges.remove(&origin) {
            taken.ranges.insert(origin, ranges);
        }
        taken
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.floors.is_empty() && self.ranges.is_empty()
    }

    /// The first eight bytes of the hash of the vector: equal hashes mean nothing to send.
    pub fn hash(&self) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        for (node, floor) in self.floors() {
            hasher.update(&node.0.to_be_bytes());
            hasher.update(&floor.to_be_bytes());
        }
        for (origin, ranges) in self.origins() {
            hasher.update(&origin.node.0.to_be_bytes());
            hasher.update(&origin.generation.to_be_bytes());
            for (from, to) in ranges.iter() {
                hasher.update(&from.to_be_bytes());
                hasher.update(&to.to_be_bytes());
            }
            hasher.update(&[0; 16]);
        }
        let mut short = [0; 8];
        short.copy_from_slice(hasher.finalize().as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        short
    }

    /// The vector as a frame carries it, the widest ranges first when there are too many.
    pub fn to_wire(&self) -> WireVector {
        let mut budget = MAX_WIRE_RANGES;
        let floors: Vec<(ShortId, u32)> = self.floors().take(budget / 4).collect();
        budget -= floors.len();
        let mut origins = Vec::new();
        for (origin, ranges) in self.origins() {
            // An origin weighs about as much as two ranges.
            let Some(left) = budget.checked_sub(2).filter(|left| *left > 0) else { break };
            budget = left;
            let mut kept: Vec<(u64, u64)> = ranges.iter().collect();
            if kept.len() > budget {
                kept.sort_by_key(|(from, to)| core::cmp::Reverse(to - from));
                kept.truncate(budget);
                kept.sort_unstable();
            }
            budget -= kept.len();
            origins.push((origin, kept));
        }
        WireVector { floors, origins }
    }

    /// Reads a vector from a frame. Ranges that make no sense are left out.
    pub fn from_wire(wire: &WireVector) -> Self {
        let mut vector = Self::default();
        for (node, floor) in &wire.floors {
            vector.raise_floor(*node, *floor);
        }
        for (origin, ranges) in &wire.origins {
            for (from, to) in ranges {
                vector.insert_range(*origin, *from, *to);
            }
        }
        vector
    }
}

/// A vector inside a frame or a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireVector {
    floors: Vec<(ShortId, u32)>,
    origins: Vec<(Origin, Vec<(u64, u64)>)>,
}

impl WireVector {
    /// Roughly its bytes.
    pub fn weight(&self) -> usize {
        let ranges: usize = self.origins.iter().map(|(_, ranges)| 16 + ranges.len() * 16).sum();
        self.floors.len() * 16 + ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn origin(node: u64) -> Origin {
        Origin { node: ShortId(node), generation: 1 }
    }

    fn any_vector() -> impl Strategy<Value = (Vector, BTreeSet<Dot>)> {
        proptest::collection::vec((0u64..3, 1u64..40, 0u64..6), 0..12).prop_map(|ranges| {
            let (mut vector, mut set) = (Vector::default(), BTreeSet::new());
            for (node, from, extra) in ranges {
                vector.insert_range(origin(node), from, from + extra);
                set.extend((from..=from + extra).map(|seq| Dot { origin: origin(node), seq }));
            }
            (vector, set)
        })
    }

    fn as_set(vector: &Vector) -> BTreeSet<Dot> {
        vector
            .origins()
            .flat_map(|(origin, r)| {
                r.iter().flat_map(move |(a, b)| (a..=b).map(move |seq| Dot { origin, seq }))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_vector_is_the_set_of_its_dots((a, sa) in any_vector(), (b, sb) in any_vector()) {
            prop_assert_eq!(as_set(&a), sa.clone());
            let mut joined = a.clone();
            joined.join(&b);
            prop_assert_eq!(as_set(&joined), sa.union(&sb).copied().collect());
            prop_assert_eq!(as_set(&a.missing(&b)), sb.difference(&sa).copied().collect());
            prop_assert_eq!(a.covers(&b), sb.is_subset(&sa));
            prop_assert_eq!(a.hash() == b.hash(), sa == sb);
            prop_assert_eq!(Vector::from_wire(&a.to_wire()), a);
        }

        #[test]
        fn ranges_that_touch_are_one((a, sa) in any_vector()) {
            for (_, ranges) in a.origins() {
                let list: alloc::vec::Vec<_> = ranges.iter().collect();
                prop_assert!(list.windows(2).all(|pair| matches!(pair, [(_, end), (start, _)] if end + 1 < *start)));
            }
            let single: Vector = sa.iter().fold(Vector::default(), |mut v, dot| { v.insert(*dot); v });
            prop_assert_eq!(single, a);
        }
    }

    #[test]
    fn a_floor_covers_what_lies_below_it() {
        let mut vector = Vector::default();
        vector.insert_range(origin(1), 1, 9);
        vector.raise_floor(ShortId(1), 2);
        assert!(vector.contains(Dot { origin: origin(1), seq: 400 }));
        assert_eq!(vector.origins().count(), 0);
        assert_eq!(vector.highest_generation(ShortId(1)), 2);
    }

    #[test]
    fn a_crowded_vector_claims_less_on_the_wire() {
        let mut vector = Vector::default();
        for seq in 0..10_000u64 {
            vector.insert(Dot { origin: origin(1), seq: seq * 2 + 1 });
        }
        vector.insert_range(origin(1), 30_000, 40_000);
        let wire = Vector::from_wire(&vector.to_wire());
        assert!(vector.covers(&wire) && wire.contains(Dot { origin: origin(1), seq: 35_000 }));
        assert_eq!(wire.ranges(origin(1)).map(Ranges::len), Some(MAX_WIRE_RANGES - 2));
    }
}
