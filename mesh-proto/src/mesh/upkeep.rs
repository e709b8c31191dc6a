//! What happens seldom: reports and the collection of tombstones, the comparison of trees.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Mesh, TREE_MS, intake::Cause};
use crate::{
    collect,
    counters::Counter,
    id::{Key, ShortId},
    liveness::Liveness as _,
    planted::planted,
    record::Item,
    session::LinkId,
    sync::LeafAnswer,
    tree::LEAVES,
    vector::Vector,
    wire::{Message, Report},
};

/// Roots sent over each link for one suspicion: the first may come while writes pass.
const ROOTS_PER_SUSPICION: u8 = 2;

impl Mesh {
    pub(super) fn report_and_collect(&mut self) {
        if self.collect_due_ms > self.now.mono_ms {
            return;
        }
        self.collect_due_ms = self.now.mono_ms + collect::INTERVAL_MS;
        let expired = self.overlay.expire(self.time_ms());
        self.mark_changed(expired);
        self.end_unheard_writers();
        let listed: Vec<ShortId> = self.nodes_with_closed_generations();
        let has_tombstones = self.replica.tombstones().next().is_some();
        // A peer that still holds tombstones may wait for this node's word.
        let is_news = self.collector.durable_of(self.id.short()) != Some(self.commits.durable());
        let wanted = core::mem::take(&mut self.report_wanted) && is_news;
        if !has_tombstones && listed.is_empty() && !wanted {
            return;
        }
        self.report();
        if !has_tombstones && listed.is_empty() {
            return;
        }
        if planted!(self.plant, TombstoneCollectedEarly) {
            let cut = self.commits.durable().clone();
            return self.collect(&cut);
        }
        if let Some(cut) = self.collector.step(self.commits.durable(), &self.admitted) {
            self.collect(&cut);
        }
        for node in listed {
            let floor = self.collector.common_floor(self.commits.durable(), node, &self.admitted);
            if let Some(floor) = floor {
                self.replica.raise_floor(node, floor);
            }
        }
    }

    /// Ends the overlay entries of writers of whom liveness has said nothing for a whole interval:
    /// they died before this node could hear that they lived.
    fn end_unheard_writers(&mut self) {
        let mut known: BTreeSet<ShortId> = self.liveness.alive().into_iter().map(|(node, _)| node).collect();
        known.insert(self.id.short());
        let unheard: Vec<(ShortId, u64)> =
            self.overlay.writers().into_iter().filter(|(writer, _)| !known.contains(writer)).collect();
        for (writer, incarnation) in &unheard {
            if self.unheard.contains(writer) {
                let ended = self.overlay.end(*writer, *incarnation);
                self.mark_changed(ended);
            }
        }
        self.unheard = unheard.into_iter().map(|(writer, _)| writer).collect();
    }

    fn nodes_with_closed_generations(&self) -> Vec<ShortId> {
        let mut nodes: Vec<ShortId> = self.commits.durable().origins().map(|(o, _)| o.node).collect();
        let all = nodes.clone();
        nodes.dedup();
        nodes.retain(|node| all.iter().filter(|other| *other == node).count() > 1);
        nodes
    }

    /// Tells what is flushed here. What a store holds that is to be replaced is no word to go by.
    pub(super) fn report(&mut self) {
        self.report_number += 1;
        let nothing = Vector::default();
        let durable = if self.is_restoring() { &nothing } else { self.commits.durable() }.to_wire();
        let node = self.id.short();
        let report = Report { node, run: self.run, number: self.report_number, durable };
        self.collector.hear(&report);
        self.pass_on_reports(None, &BTreeSet::from([node]));
    }

    fn collect(&mut self, cut: &Vector) {
        let young = planted!(self.plant, TombstoneCollectedEarly);
        let before = self.time_ms().saturating_sub(if young { 0 } else { collect::MIN_AGE_MS });
        // A write that still waits for the store may lie below a tombstone.
        let waiting = self.commits.oldest_waiting();
        let gone: Vec<Key> = self
            .replica
            .tombstones()
            .filter(|(_, entry)| cut.contains(entry.dot) && entry.stamp.ms() < before)
            .filter(|(_, entry)| waiting.is_none_or(|oldest| entry.stamp < oldest))
            .map(|(key, _)| key)
            .collect();
        self.counters.add(Counter::TombstonesCollected, gone.len());
        gone.iter().for_each(|key| self.replica.collect(key));
    }

    pub(super) fn on_reports(&mut self, id: LinkId, reports: Vec<Report>) {
        let mut news = BTreeSet::new();
        for report in reports {
            if !self.is_plausible(report.node, report.run.generation) {
                if let Some(node) = self.links.get(&id).map(|link| link.node) {
                    self.offend(node, Counter::BadValue);
                }
                continue;
            }
            if report.node == self.id.short() {
                self.check_own_report(id, &report);
            }
            let known = self.admitted.contains(&report.node) && report.node != self.id.short();
            if known && self.collector.hear(&report) {
                // A node whose card was set back may have begun under an incarnation used before.
                if self.overlay.is_new_run(report.node, report.run) {
                    let ended = self.overlay.begin(report.node, report.run);
                    self.mark_changed(ended);
                }
                news.insert(report.node);
            }
        }
        self.report_wanted |= !news.is_empty();
        self.pass_on_reports(Some(id), &news);
    }

    /// Has the newest reports of these nodes sent over every link but one.
    fn pass_on_reports(&mut self, except: Option<LinkId>, nodes: &BTreeSet<ShortId>) {
        let others = self.links.iter_mut().filter(|(id, link)| link.is_live() && Some(**id) != except);
        others.for_each(|(_, link)| link.reports.extend(nodes));
    }

    /// Writes were made void or repaired: what they had replaced may live on elsewhere, or be
    /// missing elsewhere too.
    pub(super) fn suspect_tree(&mut self) {
        self.suspicions = self.suspicions.saturating_add(1);
    }

    pub(super) fn compare_trees_when_due(&mut self) {
        if self.tree_due_ms <= self.now.mono_ms {
            self.tree_due_ms = self.now.mono_ms + TREE_MS;
            for id in self.live_links() {
                self.send_tree_root(id);
            }
        }
    }

    pub(super) fn send_tree_root_if_suspect(&mut self, id: LinkId) {
        let suspicions = self.suspicions;
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.suspicion.0 != suspicions {
            link.suspicion = (suspicions, ROOTS_PER_SUSPICION);
        }
        if link.suspicion.1 > 0 {
            link.suspicion.1 -= 1;
            self.send_tree_root(id);
        }
    }

    fn send_tree_root(&mut self, id: LinkId) {
        let root = Message::TreeRoot { vector: self.advertised().hash(), root: self.replica.tree().root() };
        if let Some(link) = self.links.get_mut(&id) {
            link.tree_asked = true;
            link.outbox.control(root);
        }
    }

    /// Trees are comparable only where both sides account for the same writes.
    pub(super) fn on_tree_root(&mut self, id: LinkId, vector: [u8; 8], root: u64) {
        if !self.is_restoring() && vector == self.advertised().hash() && root != self.replica.tree().root() {
            self.send_leaves(id);
        }
    }

    fn send_leaves(&mut self, id: LinkId) {
        let leaves = Message::TreeLeaves(self.replica.tree().leaves().to_vec());
        if let Some(link) = self.links.get_mut(&id) {
            link.leaves_sent = true;
            link.outbox.control(leaves);
        }
    }

    pub(super) fn on_tree_leaves(&mut self, id: LinkId, theirs: &[u64]) {
        if theirs.len() != LEAVES || self.is_restoring() {
            return;
        }
        if self.links.get_mut(&id).is_some_and(|link| core::mem::take(&mut link.tree_asked)) {
            self.send_leaves(id);
        }
        let own = self.replica.tree().leaves();
        let pairs = (0..=u8::MAX).zip(own.iter().zip(theirs));
        let differing = pairs.filter(|(_, (a, b))| a != b).map(|(leaf, _)| leaf).collect();
        if let Some(link) = self.links.get_mut(&id) {
            link.leaves = Some(LeafAnswer::new(differing));
        }
    }

    pub(super) fn on_tree_items(&mut self, id: LinkId, items: Vec<Item>) {
        let Some(link) = self.links.get(&id) else { return };
        let node = link.node;
        if !link.leaves_sent {
            return self.offend(node, Counter::Unasked);
        }
        for item in self.sift(node, items) {
            self.take_in(node, item, Cause::Repair);
        }
    }
}
