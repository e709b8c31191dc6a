//! How writes spread: push and forward, overlay entries, digests, and the exchange by which
//! a node gets what it misses.

use alloc::vec::Vec;

use super::{DIGEST_MS, Fetching, Mesh, intake::Cause};
use crate::{
    counters::Counter,
    id::Dot,
    overlay::{Offered, OverlayItem},
    planted::planted,
    record::Item,
    replica::{Applied, Replica},
    session::{Link, LinkId},
    sync::{Fetch, Serve},
    vector::Vector,
    view,
    wire::{Digest, Message, WireVector},
};

/// The least time between two heads on one link, in milliseconds.
const HEADS_MS: u64 = 1_000;
/// Unflushed registers beyond which pages are not acknowledged until the store has caught up.
const MAX_BEHIND: usize = 4_096;
/// Acknowledgements owed to one peer: several windows of pages.
const MAX_OWED_ACKS: usize = 64;

impl Mesh {
    /// What to send next over a link.
    pub(super) fn next_messages(&mut self, id: LinkId) -> Option<Vec<Message>> {
        let early = planted!(self.plant, AdvertiseBeforeFlush);
        let link = self.links.get_mut(&id)?;
        let unflushed = self.commits.unflushed();
        let mut messages = Vec::new();
        if !link.outbox.has_control() {
            let reports = self.collector.take_reports(&mut link.reports);
            messages.extend((!reports.is_empty()).then_some(Message::Reports(reports)));
        }
        if messages.is_empty() {
            messages = link.outbox.take(&self.replica, &self.overlay, unflushed);
        }
        if messages.is_empty()
            && let Some((session, have)) = link.wanted.take()
        {
            // Only now: a peer that asks again and again has to read an answer for each search.
            self.counters.bump(Counter::Answers);
            link.serve = Some(Serve::new(session, Vector::from_wire(&have), &self.replica));
        }
        if messages.is_empty()
            && let Some(serve) = &mut link.serve
        {
            let durable = if early { self.replica.applied() } else { self.commits.durable() };
            messages.extend(serve.next(&self.replica, durable, unflushed));
            if serve.is_ended() {
                link.serve = None;
            }
        }
        if messages.is_empty()
            && let Some(answer) = &mut link.leaves
        {
            messages.extend(answer.next(&self.replica, unflushed));
            if messages.is_empty() {
                link.leaves = None;
            }
        }
        if messages.is_empty()
            && let Some(telling) = &mut link.telling
        {
            messages.extend(telling.next(&self.overlay));
            if messages.is_empty() {
                link.telling = None;
            }
        }
        if link.outbox.take_overflowed() {
            self.counters.bump(Counter::QueuesOverflowed);
            link.digest_due_ms = self.now.mono_ms;
            link.tell_overlay(None);
        }
        (!messages.is_empty()).then_some(messages)
    }

    pub(super) fn on_push(&mut self, id: LinkId, items: Vec<Item>) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        for item in self.sift(node, items) {
            let (key, dot) = (item.key.clone(), item.entry.dot);
            let outcome = self.take_in(node, item, Cause::News);
            if outcome.is_news() || planted!(self.plant, ForwardLoop) {
                self.counters.bump(Counter::WritesForwarded);
                let others = self.links.values_mut().filter(|link| link.node != node && link.is_live());
                others.for_each(|link| link.outbox.write(&key, dot));
            }
        }
    }

    /// Notes the newest generation of every node that has written.
    pub(super) fn see_generations(&mut self) {
        for (origin, _) in self.replica.applied().origins() {
            let over = self.overlay.see_generation(origin.node, origin.generation);
            self.changed.extend(over.into_iter().map(|key| key.object));
        }
    }

    pub(super) fn took_effect(&mut self, key: &crate::id::Key, stamp: crate::hlc::Hlc) {
        self.settle_overlay(key, stamp);
        self.changed.insert(key.object.clone());
        if self.replica.take_unapplied() {
            // Writes that had taken effect are void now; any object may look different.
            self.changed.extend(self.replica.objects().keys().cloned());
            self.suspect_tree();
        }
    }

    /// Tells the answers under way that a write became live.
    pub(super) fn note_live(&mut self, dot: Dot) {
        for link in self.links.values_mut() {
            if let Some(serve) = &mut link.serve {
                serve.note(dot);
            }
            // An asker that acknowledges nothing asks again if it still wants an answer.
            link.serve.take_if(|serve| serve.is_overtaken());
        }
    }

    pub(super) fn schedule_release(&mut self) {
        let time_ms = self.time_ms();
        self.release_check_ms = self
            .replica
            .next_release()
            .map(|at| self.now.mono_ms + at.saturating_sub(time_ms).min(60_000) + 1);
    }

    pub(super) fn release_quarantined(&mut self) {
        if self.release_check_ms.is_some_and(|due| due <= self.now.mono_ms) {
            for (key, _) in self.replica.release(self.time_ms()) {
                if let Some(stamp) = self.replica.entry(&key).map(|entry| entry.stamp) {
                    self.time.merge(stamp);
                    self.took_effect(&key, stamp);
                }
            }
            self.schedule_release();
        }
    }

    pub(super) fn on_overlay(&mut self, id: LinkId, items: Vec<OverlayItem>) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        for OverlayItem { key, entry } in items {
            let (writer, stamp) = (entry.writer, entry.stamp);
            if !self.admitted.contains(&writer) || !self.is_plausible(writer, entry.run.generation) {
                self.offend(node, Counter::BadOverlay);
                continue;
            }
            if writer != self.id.short() && self.overlay.is_new_run(writer, entry.run) {
                let ended = self.overlay.begin(writer, entry.run);
                self.mark_changed(ended);
            }
            let floor = view::floor(&self.replica, &key);
            match self.overlay.offer(self.time_ms(), &key, entry, floor) {
                Offered::New => {
                    self.time.merge(stamp);
                    self.changed.insert(key.object.clone());
                    let others = self
                        .links
                        .values_mut()
                        .filter(|link| link.node != node && link.is_live() && link.short() != writer);
                    others.for_each(|link| link.outbox.overlay(&key, writer));
                }
                Offered::Old | Offered::Ended => {}
                Offered::Full => self.counters.bump(Counter::OverlayFull),
                Offered::Ahead => self.offend(node, Counter::OverlayAhead),
                Offered::Refused => self.offend(node, Counter::BadOverlay),
            }
        }
    }

    pub(super) fn send_due_digests(&mut self) {
        let now = self.now.mono_ms;
        if !self.links.values().any(|link| link.is_live() && link.digest_due_ms <= now) {
            return;
        }
        let digest = self.digest();
        for link in self.links.values_mut().filter(|link| link.is_live() && link.digest_due_ms <= now) {
            link.digest_due_ms = now + DIGEST_MS;
            link.heads_said = false;
            link.outbox.control(Message::Digest(digest));
        }
    }

    pub(super) fn on_digest(&mut self, id: LinkId, theirs: Digest) {
        let own = self.digest();
        if theirs.roster != own.roster {
            self.send_roster(id);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.in_step = theirs.vector == own.vector;
        }
        self.welcomed(theirs.vector == own.vector);
        self.compare_overlays(id, theirs.overlay == own.overlay);
        if self.is_restoring() {
            let missing = self.is_worth_asking(id, theirs.vector);
            self.set_missing(id, missing);
        } else if theirs.vector != own.vector {
            self.send_heads(id);
        } else {
            self.set_missing(id, false);
            self.send_tree_root_if_suspect(id);
        }
    }

    /// Says everything again when overlays differ for longer than what is under way takes; also what the peer itself
    /// once said, for it may have dropped that below a deletion that proved void.
    fn compare_overlays(&mut self, id: LinkId, is_equal: bool) {
        let now = self.now.mono_ms;
        if let Some(link) = self.links.get_mut(&id)
            && link.repetition.hear(now, is_equal)
        {
            link.tell_overlay(None);
        }
    }

    /// Sends heads, or notes that they are to be sent: dropped, the peer would learn what it lacks only ten
    /// seconds later, by the next digest.
    fn send_heads(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            (link.heads_wanted, link.heads_said) = (true, true);
        }
        self.send_due_heads();
    }

    pub(super) fn send_due_heads(&mut self) {
        let now = self.now.mono_ms;
        let is_due = |link: &Link| link.is_live() && link.heads_wanted && link.heads_free_ms <= now;
        if !self.links.values().any(is_due) {
            return;
        }
        let heads = self.advertised().to_wire();
        for link in self.links.values_mut().filter(|link| is_due(link)) {
            link.heads_wanted = false;
            link.heads_free_ms = now + HEADS_MS;
            link.outbox.control(Message::Heads(heads.clone()));
        }
    }

    /// Whether nothing is known to be missing here of what the linked peers hold: this node has compared with each of
    /// them, and no exchange is under way. Not while there is no link.
    pub fn is_caught_up(&self) -> bool {
        let mut live = self.links.values().filter(|link| link.is_live()).peekable();
        let is_level = |link: &Link| !link.has_missing && (link.in_step || link.heads.is_some());
        self.fetching.is_none() && !self.is_restoring() && live.peek().is_some() && live.all(is_level)
    }

    fn set_missing(&mut self, id: LinkId, missing: bool) {
        if let Some(link) = self.links.get_mut(&id) {
            link.has_missing = missing;
        }
    }

    pub(super) fn on_heads(&mut self, id: LinkId, heads: &WireVector) {
        let theirs = self.read_vector(id, heads);
        if !self.is_restoring() {
            let missing = !self.replica.applied().covers(&theirs);
            self.set_missing(id, missing);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.heads = Some(theirs.clone());
        }
        // Two that lack something of each other for long would answer each other for as long.
        let has_answered = self.links.get(&id).is_some_and(|link| link.heads_said);
        if !has_answered && !theirs.covers(self.commits.durable()) {
            self.send_heads(id);
        }
    }

    /// Begins an exchange with a peer that holds what is missing here; one at a time, so that
    /// the same writes are not asked of every peer at once.
    pub(super) fn fetch_if_missing(&mut self) {
        if self.fetching.is_some() || (self.is_restoring() && !self.is_asking()) {
            return;
        }
        let candidates = self.links.iter().filter(|(_, l)| l.is_live() && l.has_missing && !l.is_restoring);
        let next = candidates.map(|(id, _)| *id).min_by_key(|id| (Some(*id) <= self.last_asked, *id));
        let asking = self.is_asking();
        let Some((id, link)) = next.and_then(|id| self.links.get_mut(&id).map(|link| (id, link))) else {
            return;
        };
        self.last_asked = Some(id);
        link.has_missing = false;
        self.last_session += 1;
        let fresh = asking.then(|| {
            let mut fresh = Replica::new(self.plant);
            fresh.limit_held_back(self.limits.held_back);
            fresh
        });
        let have = fresh.as_ref().unwrap_or(&self.replica).applied().to_wire();
        link.outbox.control(Message::Want { session: self.last_session, have });
        let early = planted!(self.plant, RangeCompletedEarly);
        let fetch = Fetch::new(self.last_session, self.now.mono_ms, early);
        self.fetching = Some(Fetching { link: id, fetch, fresh });
        self.counters.bump(Counter::Fetches);
    }

    pub(super) fn abandon_stalled_fetch(&mut self) {
        let now = self.now.mono_ms;
        if let Some(stalled) = self.fetching.take_if(|fetching| fetching.fetch.deadline_ms() <= now) {
            self.counters.bump(Counter::FetchesAbandoned);
            let asking = self.is_asking();
            if let Some(restore) = &mut self.restore {
                // Handed out again, should it come to that.
                restore.handed_out = None;
            }
            if let Some(link) = self.links.get_mut(&stalled.link) {
                link.digest_due_ms = now;
                link.has_missing = asking;
            }
        }
    }

    pub(super) fn on_want(&mut self, id: LinkId, session: u32, have: WireVector) {
        if self.is_restoring() {
            return;
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.serve = None;
            link.wanted = Some((session, have));
        }
    }

    pub(super) fn on_page(&mut self, id: LinkId, session: u32, index: u32, items: Vec<Item>) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        let now = self.now.mono_ms;
        let time_ms = self.time_ms();
        let all = items.len();
        let items = self.sift(node, items);
        if items.len() < all {
            self.give_up_fetch(id, session);
        }
        let asked = self.fetching.as_mut().filter(|f| f.link == id && f.fetch.session() == session);
        if let Some(fetching) = asked {
            fetching.fetch.page(now, index, items.len());
            if let Some(fresh) = &mut fetching.fresh {
                let outcomes = items.into_iter().map(|item| fresh.apply(time_ms, item));
                if outcomes.fold(false, |dropped, outcome| dropped | (outcome == Applied::Dropped)) {
                    self.give_up_fetch(id, session);
                }
                return self.acknowledge(id, session, index);
            }
        }
        for item in items {
            if self.take_in(node, item, Cause::News) == Applied::Dropped {
                self.give_up_fetch(id, session);
            }
        }
        self.acknowledge(id, session, index);
        self.finish_fetch();
    }

    /// Something of this answer could not be taken in: its end must not account for that. The next
    /// digest leads to another attempt.
    fn give_up_fetch(&mut self, id: LinkId, session: u32) {
        let is_it = |fetching: &mut Fetching| fetching.link == id && fetching.fetch.session() == session;
        if self.fetching.take_if(is_it).is_some() {
            self.counters.bump(Counter::FetchesAbandoned);
        }
    }

    fn acknowledge(&mut self, id: LinkId, session: u32, index: u32) {
        let behind = self.replica.dirty_registers() > MAX_BEHIND;
        if let Some(link) = self.links.get_mut(&id) {
            if behind {
                // More than the window is nothing that this node asked for; unacknowledged, it ends.
                if link.owed_acks.len() < MAX_OWED_ACKS {
                    link.owed_acks.push((session, index));
                }
            } else {
                link.outbox.control(Message::PageAck { session, index });
            }
        }
    }

    pub(super) fn pay_owed_acks(&mut self) {
        for link in self.links.values_mut() {
            for (session, index) in core::mem::take(&mut link.owed_acks) {
                link.outbox.control(Message::PageAck { session, index });
            }
        }
    }

    pub(super) fn on_page_ack(&mut self, id: LinkId, session: u32, index: u32) {
        if let Some(serve) = self.links.get_mut(&id).and_then(|link| link.serve.as_mut()) {
            serve.acknowledge(session, index);
        }
    }

    /// At the moment after a flush nothing of this node's own is unflushed: the time to end
    /// answers, which a steady stream of writes would otherwise hold back for ever.
    pub(super) fn finish_answers(&mut self) {
        let unflushed = self.commits.unflushed();
        for link in self.links.values_mut() {
            while let Some(serve) = &mut link.serve {
                let Some(message) = serve.next(&self.replica, self.commits.durable(), unflushed) else {
                    break;
                };
                link.outbox.control(message);
                if serve.is_ended() {
                    link.serve = None;
                }
            }
        }
    }

    pub(super) fn on_final(&mut self, id: LinkId, session: u32, pages: u32, vector: &WireVector) {
        let vector = self.read_vector(id, vector);
        let now = self.now.mono_ms;
        let asked = self.fetching.as_mut().filter(|f| f.link == id && f.fetch.session() == session);
        if let Some(fetching) = asked {
            fetching.fetch.last(now, pages, vector);
            self.finish_fetch();
        }
    }

    /// Ends the exchange, if its end and all pages are in.
    pub(super) fn finish_fetch(&mut self) {
        let Some(fetching) = &self.fetching else { return };
        let Some(vector) = fetching.fetch.finished() else { return };
        if fetching.fresh.is_some() {
            return self.replace_store();
        }
        self.replica.cover_all(vector);
        self.fetching = None;
        self.fetched = Some(self.replica.applied().clone());
        self.compare_digests();
    }

    /// What came in pages is not passed on: peers behind this node learn of it by a digest, which speaks of what is
    /// flushed.
    pub(super) fn tell_what_was_fetched(&mut self) {
        let durable = self.commits.durable();
        if self.fetched.take_if(|fetched| durable.covers(fetched)).is_some() {
            self.compare_digests();
        }
    }

    fn compare_digests(&mut self) {
        for link in self.links.values_mut() {
            link.digest_due_ms = self.now.mono_ms;
        }
    }
}
