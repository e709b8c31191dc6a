//! What may be read of the machine.

use alloc::vec::Vec;

use super::Mesh;
use crate::{
    commit::Commits,
    counters::Counters,
    id::{NodeId, ObjectId, ShortId},
    limits::Limits,
    liveness::Liveness as _,
    overlay::{Overlay, Run},
    replica::Replica,
    roster::Roster,
    session::{Link, LinkId, Peer},
    time::TimeKeeper,
    view::{self, ObjectView},
};

impl Mesh {
    /// Reads one object through both planes.
    pub fn object(&self, id: &ObjectId) -> Option<ObjectView> {
        view::object(&self.replica, &self.overlay, id)
    }

    /// The names of all objects, in order, from `from` on; some may not be visible.
    pub fn names_from<'a>(&'a self, from: Option<&'a ObjectId>) -> impl Iterator<Item = &'a ObjectId> {
        use core::ops::Bound::{Included, Unbounded};
        let bound = from.map_or(Unbounded, Included);
        let durable = self.replica.objects().range((bound, Unbounded)).map(|(id, _)| id);
        let passing = self.overlay.names_from(from);
        merge_sorted(durable, passing)
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// This node's run.
    pub fn run(&self) -> Run {
        self.run
    }

    /// The membership.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The durable plane.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The overlay plane.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The queue of own writes and what is durable.
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// The time of day and the stamps.
    pub fn time(&self) -> &TimeKeeper {
        &self.time
    }

    /// How much this node holds at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The links with their peers.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The nodes known to be alive, this one left out, with their incarnations.
    pub fn alive(&self) -> Vec<(ShortId, u64)> {
        self.liveness.alive()
    }

    /// The nodes that hold the collection of tombstones back.
    pub fn held_back_by(&self) -> Vec<ShortId> {
        self.collector.held_back_by(&self.admitted)
    }

    /// What a node last said it has flushed.
    pub fn durable_of(&self, node: ShortId) -> Option<&crate::vector::Vector> {
        self.collector.durable_of(node)
    }

    /// How far a peer's time of day is ahead of this node's, in milliseconds.
    pub fn clock_offset_ms(&self, peer: &Peer) -> i64 {
        peer.time_ms(self.now).cast_signed().saturating_sub(self.time_ms().cast_signed())
    }

    /// Whether a restored store has not been replaced by a peer's state yet, or that is not durable.
    pub fn is_restoring(&self) -> bool {
        self.restore.is_some()
    }
}

/// Merges two rising sequences into one without repetitions.
fn merge_sorted<'a, T: Ord + 'a>(
    a: impl Iterator<Item = &'a T>,
    b: impl Iterator<Item = &'a T>,
) -> impl Iterator<Item = &'a T> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    core::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x == y => {
            b.next();
            a.next()
        }
        (Some(x), Some(y)) if x > y => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}
