//! A store that was set back: how it is noticed, and how a peer's state takes its place.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Event, Mesh};
use crate::{
    counters::Counter,
    id::{Dot, Key, NodeId},
    merge::Entry,
    overlay::Run,
    planted::planted,
    record::Item,
    replica::Replica,
    restore::{self, Flushing, Plan, Restore},
    session::{LinkId, Offer},
    vector::Vector,
    wire::{Message, Report},
};

impl Mesh {
    /// The store was set back; what this node wrote in the generation `since` and later it wrote
    /// since then. From now on no peer is answered, and nothing that was reported counts.
    pub(super) fn begin_restore(&mut self, since: u32) {
        self.restore = Some(Restore::new(since, self.replica.applied(), self.id.short()));
        self.fetching = None;
        for link in self.links.values_mut() {
            link.drop_answers();
            link.offer = None;
            link.has_missing = !link.is_restoring;
        }
        self.tell_all_but(None, &Message::Restoring(true));
        self.report();
    }

    /// Whether peers are asked for the state that is to replace the store.
    pub(super) fn is_asking(&self) -> bool {
        self.restore.as_ref().is_some_and(Restore::is_asking)
    }

    /// Whether nothing lacks of what this node was told: a peer's vector may hold writes of this
    /// node's own of which it knows nothing.
    pub(super) fn check_own(&mut self, from: NodeId, theirs: &Vector) {
        let me = self.id.short();
        let missing = self.replica.applied().missing(theirs);
        let unknown: Vec<u32> = missing.generations(me).map(|(origin, _)| origin.generation).collect();
        self.check_unknown(from, unknown);
        // Own generations that collapsed were closed by this node itself.
        let floor = theirs.floors().find(|(node, _)| *node == me).map(|(_, floor)| floor);
        if let Some(floor) = floor.filter(|floor| *floor > self.run.generation) {
            self.rewound(from, self.run.generation, floor);
        }
    }

    /// Looks for own writes of which this node knows nothing.
    pub(super) fn check_own_dots(&mut self, from: NodeId, item: &Item) {
        let me = self.id.short();
        let dots = item.covers.iter().chain([&item.entry.dot]).filter(|dot| dot.origin.node == me);
        let unknown = dots.filter(|dot| !self.replica.applied().contains(**dot));
        let unknown = unknown.map(|dot| dot.origin.generation).collect();
        self.check_unknown(from, unknown);
    }

    fn check_unknown(&mut self, from: NodeId, mut generations: Vec<u32>) {
        generations.retain(|generation| *generation >= self.known_since);
        if let Some((lowest, highest)) = generations.iter().min().zip(generations.iter().max()) {
            self.rewound(from, *lowest, *highest);
        }
    }

    /// What this node once reported as flushed must be there still: tombstones were forgotten on
    /// its word.
    pub(super) fn check_own_report(&mut self, id: LinkId, report: &Report) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        let generation = report.run.generation;
        let mut said = Vector::from_wire(&report.durable);
        said.retain(|node, generation| self.is_plausible(node, generation));
        let is_kept = self.replica.applied().missing(&said).origins().next().is_none();
        if self.restore.is_none() && generation >= self.known_since && !is_kept {
            self.rewound(node, generation, generation);
        }
    }

    /// Peers know writes of these generations that this node lost, or never made: its card was set
    /// back or cloned. While a set-back store is being replaced this is no news; but a generation
    /// that was used before is left.
    fn rewound(&mut self, from: NodeId, lowest: u32, highest: u32) {
        let is_news = self.restore.is_none() && !planted!(self.plant, RestoredStoreMerged);
        let asked = self.closing.map_or(0, |run| run.generation);
        if !is_news && highest < self.run.generation.max(asked) {
            return;
        }
        let known = highest.max(self.run.generation).max(asked);
        let Some(generation) = known.checked_add(self.jump + 1) else {
            return self.counters.bump(Counter::BadValue);
        };
        self.counters.bump(Counter::Rewound);
        self.events.push_back(Event::Rewound(from));
        if is_news {
            self.begin_restore(lowest.saturating_add(1).min(self.booted));
        }
        self.open_run(Run { generation, ..self.run });
    }

    /// A peer says whether its store is being replaced. Such a peer is not asked.
    pub(super) fn on_restoring(&mut self, id: LinkId, is_restoring: bool) {
        let now = self.now.mono_ms;
        let asking = self.is_asking();
        let Some(link) = self.links.get_mut(&id) else { return };
        link.is_restoring = is_restoring;
        link.offer = None;
        link.has_missing = asking && !is_restoring;
        if is_restoring {
            link.serve = None;
            self.fetching.take_if(|fetching| fetching.link == id);
        } else {
            link.digest_due_ms = now;
        }
    }

    /// Whether every other member is linked and fulfils `condition`; not so when there is none.
    fn all_others(&self, condition: impl Fn(LinkId) -> bool) -> bool {
        let me = self.id.short();
        let mut others = self.admitted.iter().filter(|node| **node != me).peekable();
        others.peek().is_some() && others.all(|node| self.live_link_to(*node).is_some_and(&condition))
    }

    /// When nobody's store is sound, that of the lowest name counts. Not before: a sound node that
    /// is away may have forgotten tombstones.
    pub(super) fn keep_store_if_none_is_sound(&mut self) {
        let is_restoring = |id| self.links.get(&id).is_some_and(|link| link.is_restoring);
        let lowest = self.admitted.first() == Some(&self.id.short());
        if lowest && self.is_asking() && self.all_others(is_restoring) {
            self.flush_restored(Vec::new());
        }
    }

    /// Whether a peer's whole state may replace the store: it must know what the store knew, or
    /// lack the least of it when all were asked. A member that has only just joined knows nothing,
    /// neither of objects nor of their deletion.
    fn accepts(&mut self, id: LinkId, vector: &Vector) -> bool {
        let Some(lacking) = self.restore.as_ref().map(|restore| restore.lacking(vector)) else {
            return false;
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.offer = Some(Offer { vector: vector.hash(), lacking });
        }
        let was_asked = |id| self.links.get(&id).is_some_and(|l| l.is_restoring || l.offer.is_some());
        let offers = self.links.values().filter_map(|link| link.offer.as_ref());
        let best = offers.map(|offer| offer.lacking).min();
        lacking == 0 || (best == Some(lacking) && self.all_others(was_asked))
    }

    /// Whether a peer is worth asking, whose vector has this hash by now.
    pub(super) fn is_worth_asking(&self, id: LinkId, vector: [u8; 8]) -> bool {
        let Some(link) = self.links.get(&id) else { return false };
        let was_asked = |id| self.links.get(&id).is_some_and(|l| l.is_restoring || l.offer.is_some());
        let is_news = link.offer.as_ref().is_none_or(|offer| offer.vector != vector);
        self.is_asking() && !link.is_restoring && (is_news || self.all_others(was_asked))
    }

    /// The peer's state is here whole: takes it over, once what has no place in it is durable in
    /// the lost-and-found.
    pub(super) fn replace_store(&mut self) {
        let Some(fetching) = &self.fetching else { return };
        let (link, Some(vector)) = (fetching.link, fetching.fetch.finished().cloned()) else { return };
        if !self.accepts(link, &vector) {
            self.fetching = None;
            return;
        }
        let me = self.id.short();
        let waits = self.commits.is_busy() || self.commits.is_undivided() || self.closing.is_some();
        let Some(restore) = self.restore.as_mut().filter(|r| !waits && r.handed_out.is_none()) else {
            return;
        };
        let Some(fetching) = self.fetching.take() else { return };
        let Some(fresh) = &fetching.fresh else { return };
        let Plan { again, lost } = restore::plan(&self.replica, fresh, &vector, me, restore.since);
        let dots: BTreeSet<Dot> = lost.iter().map(|item| item.entry.dot).collect();
        if !dots.is_subset(&restore.saved) {
            let number = fetching.fetch.session();
            restore.handed_out = Some((number, dots));
            self.events.push_back(Event::LostAndFound { number, lost });
            self.fetching = Some(fetching);
        } else if let Some(fresh) = fetching.fresh {
            self.take_over(fresh, &vector, again);
        }
    }

    /// What was handed out for the lost-and-found is durable.
    pub(super) fn lost_saved(&mut self, number: u32) {
        self.unshared_saved(number);
        let Some(restore) = &mut self.restore else { return };
        if let Some((_, mut dots)) = restore.handed_out.take_if(|(waiting, _)| *waiting == number) {
            restore.saved.append(&mut dots);
        }
    }

    /// A peer's state takes the store's place, with what no peer can have.
    fn take_over(&mut self, mut fresh: Replica, peer: &Vector, again: Vec<(Key, Entry)>) {
        let (origin, time_ms) = (self.origin(), self.time_ms());
        fresh.cover_all(peer);
        if !planted!(self.plant, SequenceReused) {
            fresh.cover_all(&self.own_since_restore());
        }
        let (mut added, mut seq) = (Vec::new(), fresh.applied().head(origin));
        for (key, Entry { stamp, value, .. }) in again {
            seq += 1;
            let dot = Dot { origin, seq };
            let item = Item { key: key.clone(), entry: Entry { stamp, dot, value }, covers: Vec::new() };
            fresh.apply(time_ms.max(stamp.ms()), item);
            added.push((key, dot));
        }
        fresh.replace(&self.replica);
        let old = core::mem::replace(&mut self.replica, fresh);
        self.changed.extend(old.objects().keys().chain(self.replica.objects().keys()).cloned());
        self.commits.forget_durable();
        self.commits.hold(added.iter().map(|(_, dot)| *dot));
        if let Some(stamp) = self.replica.highest_stamp(|_| true) {
            self.time.merge(stamp);
        }
        self.see_generations();
        self.settle_all();
        self.schedule_release();
        self.flush_restored(added);
    }

    /// What was written since the store was set back: those of it that live are written again, and
    /// so supersede themselves.
    fn own_since_restore(&self) -> Vector {
        let since = self.restore.as_ref().map_or(u32::MAX, |restore| restore.since);
        let mut own = Vector::default();
        let generations = self.replica.applied().generations(self.id.short());
        for (origin, ranges) in generations.filter(|(origin, _)| origin.generation >= since) {
            ranges.iter().for_each(|(from, to)| own.insert_range(origin, from, to));
        }
        own
    }

    fn flush_restored(&mut self, again: Vec<(Key, Dot)>) {
        if let Some(restore) = &mut self.restore {
            restore.flushing = Some(Flushing { again, batch: None });
        }
        self.fetching = None;
        self.flush_due_ms = Some(self.now.mono_ms);
    }

    /// What the batch that is being made completes, if it holds the last of the new state.
    pub(super) fn completes_restore(&mut self) -> Option<Vec<(Key, Dot)>> {
        let is_last = !self.replica.is_replacing();
        let flushing = self.restore.as_mut().and_then(|restore| restore.flushing.as_mut());
        flushing.filter(|f| is_last && f.batch.is_none()).map(|f| core::mem::take(&mut f.again))
    }

    /// Notes the batch that holds the last of the new state.
    pub(super) fn restored_with(&mut self, batch: u64) {
        if let Some(flushing) = self.restore.as_mut().and_then(|restore| restore.flushing.as_mut()) {
            flushing.batch = Some(batch);
        }
    }

    /// A batch is durable: if the new state is with it, the store is like any other.
    pub(super) fn end_restore(&mut self, batch: u64) {
        let is_last = |r: &mut Restore| r.flushing.as_ref().is_some_and(|f| f.batch == Some(batch));
        if self.restore.take_if(is_last).is_none() {
            return;
        }
        self.events.push_back(Event::Restored);
        self.tell_all_but(None, &Message::Restoring(false));
        self.links.values_mut().for_each(|link| link.digest_due_ms = self.now.mono_ms);
    }
}
