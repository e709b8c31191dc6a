//! When tombstones may be forgotten.
//!
//! A tombstone may go once no write below it can ever appear again. A node that has
//! acknowledged it stamps every later write above it; so it is enough that every admitted
//! node has flushed, for every origin, whatever that origin had written when it acknowledged.
//!
//! One round at a time: take the own durable vector as the *cut*; wait until every admitted
//! node reports that it has flushed the cut, and note at that first report how far its own
//! writes went; wait until every node has flushed all of those; then the tombstones of the
//! cut may go. A node that is away holds the round back until it is removed.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    id::ShortId,
    overlay::Run,
    vector::{Ranges, Vector},
    wire::{Report, TARGET_FRAME_BYTES, WireVector},
};

/// How often a node reports and looks, in milliseconds.
pub const INTERVAL_MS: u64 = 10_000;
/// A tombstone younger than this is kept, so that no node can still hold it in quarantine.
pub const MIN_AGE_MS: u64 = 60_000;

/// What a node said it has flushed.
#[derive(Debug)]
struct Heard {
    run: Run,
    number: u32,
    wire: WireVector,
    durable: Vector,
}

/// A round.
#[derive(Debug)]
struct Round {
    cut: Vector,
    acknowledged: BTreeSet<ShortId>,
    /// All that the acknowledging nodes had written by then.
    needed: Vector,
}

/// The reports heard and the round under way.
#[derive(Debug, Default)]
pub struct Collector {
    heard: BTreeMap<ShortId, Heard>,
    round: Option<Round>,
}

impl Collector {
    /// Notes a report. Returns whether it is news, to be passed on.
    pub fn hear(&mut self, report: &Report) -> bool {
        let newer = self
            .heard
            .get(&report.node)
            .is_none_or(|heard| (heard.run, heard.number) < (report.run, report.number));
        if newer {
            let wire = report.durable.clone();
            let durable = Vector::from_wire(&wire);
            let heard = Heard { run: report.run, number: report.number, wire, durable };
            self.heard.insert(report.node, heard);
        }
        newer
    }

    /// Everybody of whom a report was heard.
    pub fn reporters(&self) -> BTreeSet<ShortId> {
        self.heard.keys().copied().collect()
    }

    /// The newest reports of the first of these nodes, as many as fill a frame; takes those nodes
    /// out of the list.
    pub fn take_reports(&self, nodes: &mut BTreeSet<ShortId>) -> Vec<Report> {
        let (mut reports, mut weight) = (Vec::new(), 0);
        while weight < TARGET_FRAME_BYTES
            && let Some(node) = nodes.pop_first()
        {
            let Some(heard) = self.heard.get(&node) else { continue };
            let durable = heard.wire.clone();
            weight += durable.weight();
            reports.push(Report { node, run: heard.run, number: heard.number, durable });
        }
        reports
    }

    /// What a node last said it has flushed; `None` before it reported.
    pub fn durable_of(&self, node: ShortId) -> Option<&Vector> {
        self.heard.get(&node).map(|heard| &heard.durable)
    }

    /// Forgets nodes that are no longer admitted.
    pub fn retain(&mut self, admitted: &BTreeSet<ShortId>) {
        self.heard.retain(|node, _| admitted.contains(node));
    }

    /// The nodes that hold the round back: those that have not flushed the cut.
    pub fn held_back_by(&self, admitted: &BTreeSet<ShortId>) -> Vec<ShortId> {
        let Some(round) = &self.round else { return Vec::new() };
        admitted.iter().filter(|node| !round.acknowledged.contains(node)).copied().collect()
    }

    /// Takes the round one step on. Returns the cut whose tombstones may go, when it is done.
    pub fn step(&mut self, durable: &Vector, admitted: &BTreeSet<ShortId>) -> Option<Vector> {
        let round = self.round.get_or_insert_with(|| Round {
            cut: durable.clone(),
            acknowledged: BTreeSet::new(),
            needed: Vector::default(),
        });
        for node in admitted {
            let Some(heard) = self.heard.get(node) else { continue };
            if !round.acknowledged.contains(node) && heard.durable.covers(&round.cut) {
                round.acknowledged.insert(*node);
                // Its own writes, and those of nodes that report no more because they were removed.
                let owed =
                    heard.durable.origins().filter(|(o, _)| o.node == *node || !admitted.contains(&o.node));
                for (origin, ranges) in owed {
                    ranges.iter().for_each(|(from, to)| round.needed.insert_range(origin, from, to));
                }
            }
        }
        let all = admitted.iter().all(|node| {
            round.acknowledged.contains(node)
                && self.heard.get(node).is_some_and(|heard| heard.durable.covers(&round.needed))
        });
        if all { self.round.take().map(|round| round.cut) } else { None }
    }

    /// The floor to which a node's closed generations may collapse: every admitted node has
    /// flushed the same of each of them.
    pub fn common_floor(&self, own: &Vector, node: ShortId, admitted: &BTreeSet<ShortId>) -> Option<u32> {
        let newest = own.highest_generation(node);
        // What the node itself said while an older generation was open may not be all of it.
        if self.heard.get(&node).is_none_or(|h| h.run.generation < newest) {
            return None;
        }
        // All of them, also those of which nothing has come here.
        let closed = |vector: &Vector| -> Vec<(crate::id::Origin, Ranges)> {
            let older = vector.generations(node).filter(|(origin, _)| origin.generation < newest);
            older.map(|(origin, ranges)| (origin, ranges.clone())).collect()
        };
        let listed = closed(own);
        let is_alike = |peer| self.heard.get(peer).is_some_and(|h| closed(&h.durable) == listed);
        (!listed.is_empty() && admitted.iter().all(is_alike)).then_some(newest)
    }
}
