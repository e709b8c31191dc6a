//! The one gate for durable writes and vectors that peers bring: what is checked about them is
//! checked here, before anything of it counts.

use alloc::vec::Vec;

use super::Mesh;
use crate::{
    counters::Counter,
    id::{Dot, NodeId, ShortId},
    record::Item,
    replica::Applied,
    session::LinkId,
    vector::{MAX_SEQ, Vector},
    wire::WireVector,
};

/// Why a peer's write is offered to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was pushed or stood on a page: it counts once, by its dot.
    News,
    /// The trees differed: it is merged although its dot may be accounted for.
    Repair,
}

impl Mesh {
    /// Leaves out the writes that no honest peer sends.
    pub(super) fn sift(&mut self, from: NodeId, mut items: Vec<Item>) -> Vec<Item> {
        let all = items.len();
        items.retain(|item| item.covers.iter().chain([&item.entry.dot]).all(|dot| self.is_sound(*dot)));
        (items.len()..all).for_each(|_| self.offend(from, Counter::BadValue));
        items
    }

    /// Reads the vector of a peer, without what no honest peer claims, and looks for writes of this
    /// node in it that this node does not know.
    pub(super) fn read_vector(&mut self, id: LinkId, wire: &WireVector) -> Vector {
        let mut vector = Vector::from_wire(wire);
        let is_cut = vector.retain(|node, generation| self.is_plausible(node, generation));
        if is_cut && let Some(node) = self.links.get(&id).map(|link| link.node) {
            self.offend(node, Counter::BadValue);
        }
        self.note_shared(&vector);
        if let Some(node) = self.links.get(&id).map(|link| link.node) {
            self.check_own(node, &vector);
        }
        vector
    }

    fn is_sound(&self, dot: Dot) -> bool {
        (1..=MAX_SEQ).contains(&dot.seq) && self.is_plausible(dot.origin.node, dot.origin.generation)
    }

    /// A generation may leave at most half of those unused that are left after the highest known:
    /// whoever claims more takes from the node the room to open its next.
    pub(super) fn is_plausible(&self, node: ShortId, generation: u32) -> bool {
        let half_left = |known: u32| known + (u32::MAX - known) / 2;
        generation <= half_left(0) || generation <= half_left(self.known_generation(node))
    }

    /// The highest generation of a node that this one holds writes of, or that the node itself named.
    fn known_generation(&self, node: ShortId) -> u32 {
        let own = (node == self.id.short()).then_some(self.run.generation.max(self.closing_generation()));
        let peers = self.links.values().filter(|link| link.short() == node);
        let said = peers.filter_map(|link| link.peer.as_ref().map(|peer| peer.run.generation));
        let held = self.replica.applied().highest_generation(node);
        said.chain(own).fold(held, u32::max)
    }

    /// Offers a sifted write to the replica and draws the consequences.
    pub(super) fn take_in(&mut self, from: NodeId, item: Item, cause: Cause) -> Applied {
        let (key, dot, stamp) = (item.key.clone(), item.entry.dot, item.entry.stamp);
        self.check_own_dots(from, &item);
        let time_ms = self.time_ms();
        let outcome = match cause {
            Cause::News => self.replica.apply(time_ms, item),
            Cause::Repair => self.replica.repair(time_ms, item),
        };
        let over = self.overlay.see_generation(dot.origin.node, dot.origin.generation);
        self.mark_changed(over);
        match (cause, outcome) {
            (Cause::News, _) if outcome.is_news() => self.counters.bump(Counter::WritesIn),
            (Cause::News, _) => self.counters.bump(Counter::WritesKnown),
            (Cause::Repair, Applied::Won) => {
                self.counters.bump(Counter::Repaired);
                self.suspect_tree();
            }
            (Cause::Repair, _) => {}
        }
        match outcome {
            Applied::Won => {
                self.time.merge(stamp);
                self.note_live(dot);
                self.took_effect(&key, stamp);
            }
            Applied::Lost => self.time.merge(stamp),
            Applied::Quarantined => {
                self.counters.bump(Counter::Quarantined);
                self.note_live(dot);
                self.schedule_release();
            }
            Applied::Void => self.counters.bump(Counter::Void),
            Applied::Dropped => self.counters.bump(Counter::QuarantineFull),
            Applied::Forbidden => self.offend(from, Counter::ForbiddenWriter),
            Applied::Malformed => self.offend(from, Counter::BadValue),
            Applied::Duplicate => {}
        }
        outcome
    }
}
