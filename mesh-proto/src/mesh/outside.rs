//! Who stands outside: peers that were removed, and boards that run under a key of which there are
//! several, this one perhaps among them.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Event, Mesh, links::roster_messages};
use crate::{
    copies::Verdict,
    id::{Dot, Key, NodeId},
    kinds::{Author, may_author},
    merge::Entry,
    overlay::Run,
    record::Item,
    session::LinkId,
    vector::Vector,
    wire::{ByeReason, Message, Process},
};

/// For this long, in milliseconds, a board that was turned away speaks to nobody; then it asks again.
const AWAY_MS: u64 = 20_000;

/// What this node knows of its place when another board runs under its key.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// When a peer last turned it away.
    turned_away_ms: Option<u64>,
    /// Own writes for which some peer accounts.
    shared: Vector,
    /// Own writes that were handed out for the lost-and-found, with its number.
    handed_out: Option<(u32, BTreeSet<Dot>)>,
    /// Those that are durable there.
    saved: BTreeSet<Dot>,
}

/// A number that no other process has.
pub(super) fn process_number(node: NodeId, run: Run, seed: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("hearth process number v1");
    hasher.update(node.as_bytes()).update(&run.incarnation.to_be_bytes()).update(&seed.to_be_bytes());
    u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

impl Mesh {
    /// The nodes under whose key several boards run, as this one has seen not long ago.
    pub fn copied(&self) -> Vec<NodeId> {
        self.copies.named(self.now.mono_ms)
    }

    /// Whether peers turn this node away because another board runs under its key and stays.
    pub fn is_turned_away(&self) -> bool {
        self.apart.turned_away_ms.is_some()
    }

    /// Ends a link to a peer that is not in (any more). One that was removed is shown by whom: it
    /// would believe nobody's bare word, and it passes the proof on to those who have not heard.
    pub(super) fn shut_out(&mut self, id: LinkId, reason: ByeReason) {
        let proof = match self.links.get(&id) {
            Some(link) if reason == ByeReason::Revoked => self.roster.proof_of_removal(&link.node),
            _ => Vec::new(),
        };
        self.close(id, reason);
        if let Some(link) = self.links.get_mut(&id) {
            link.outbox.clear();
            roster_messages(proof).into_iter().for_each(|message| link.outbox.control(message));
            link.outbox.control(Message::Bye(reason));
        }
    }

    pub(super) fn on_process(&mut self, id: LinkId, process: Process) {
        if let Some(link) = self.links.get_mut(&id) {
            link.process.get_or_insert(process);
        }
    }

    /// Judges the peer of a link that introduces itself: when several boards run under its key, one
    /// stays and the others are turned away, before they take turns in replacing each other's links.
    pub(super) fn gives_way(&mut self, id: LinkId) -> bool {
        let Some((node, process)) = self.links.get(&id).and_then(|l| Some((l.node, l.process?))) else {
            return false;
        };
        let rivals: Vec<(LinkId, Process, u64)> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_live() && link.node == node)
            .filter_map(|(id, link)| Some((*id, link.process.filter(|p| *p != process)?, link.heard_ms)))
            .collect();
        for (_, rival, heard_ms) in &rivals {
            self.copies.spoke(node, *rival, *heard_ms);
        }
        let now = self.now.mono_ms;
        match self.copies.introduced(now, node, process) {
            Verdict::Alone => false,
            Verdict::Stays => {
                for (rival, process, _) in rivals {
                    if self.copies.yields(now, node, process) {
                        self.turn_away(rival, node);
                    }
                }
                false
            }
            Verdict::Yields => {
                self.turn_away(id, node);
                true
            }
        }
    }

    /// Looks for links of one key that stand side by side, each with another board at its end that speaks.
    pub(super) fn part_copies(&mut self) {
        let live = self.links.iter().filter(|(_, link)| link.is_live());
        let live: Vec<(LinkId, NodeId, Process, u64)> =
            live.filter_map(|(id, link)| Some((*id, link.node, link.process?, link.heard_ms))).collect();
        let is_doubled = |node: NodeId, process: Process| {
            live.iter().any(|(_, other, theirs, _)| *other == node && *theirs != process)
        };
        let mut doubled: Vec<_> =
            live.iter().filter(|(_, node, process, _)| is_doubled(*node, *process)).copied().collect();
        doubled.sort_unstable_by_key(|(id, .., heard_ms)| (*heard_ms, *id));
        for (_, node, process, heard_ms) in &doubled {
            self.copies.spoke(*node, *process, *heard_ms);
        }
        for (id, node, process, _) in doubled {
            if self.copies.yields(self.now.mono_ms, node, process) {
                self.turn_away(id, node);
            }
        }
    }

    fn turn_away(&mut self, id: LinkId, node: NodeId) {
        self.events.push_back(Event::Copied { node, link: id });
        self.close(id, ByeReason::Copied);
    }

    /// A peer turned this node away: another board runs under its key. It lets go of every link and
    /// hands out what nobody else is known to hold; its card's owner decides.
    pub(super) fn give_way(&mut self) {
        self.apart.turned_away_ms = Some(self.now.mono_ms);
        for id in self.live_links() {
            self.close(id, ByeReason::Leaving);
        }
        let lost = self.unshared();
        if !lost.is_empty() {
            self.last_session += 1;
            let dots = lost.iter().map(|item| item.entry.dot).collect();
            self.apart.handed_out = Some((self.last_session, dots));
            self.events.push_back(Event::LostAndFound { number: self.last_session, lost });
        }
    }

    /// Whether this node speaks to nobody for the moment.
    pub(super) fn keeps_away(&self) -> bool {
        self.apart.turned_away_ms.is_some_and(|at| at + AWAY_MS > self.now.mono_ms)
    }

    /// A peer goes on to speak with this node; `in_step` says that it accounts for the same writes.
    pub(super) fn welcomed(&mut self, in_step: bool) {
        if !self.keeps_away() {
            self.apart.turned_away_ms = None;
        }
        if in_step {
            let durable = self.commits.durable().clone();
            self.note_shared(&durable);
        }
    }

    /// Notes for which own writes a peer accounts.
    pub(super) fn note_shared(&mut self, theirs: &Vector) {
        let me = self.id.short();
        let mut own = theirs.clone();
        own.retain(|node, _| node == me);
        self.apart.shared.join(&own);
    }

    /// What was handed out under this number is durable.
    pub(super) fn unshared_saved(&mut self, number: u32) {
        if let Some((_, mut dots)) = self.apart.handed_out.take_if(|(waiting, _)| *waiting == number) {
            self.apart.saved.append(&mut dots);
        }
    }

    /// What people wrote here and no peer is known to account for.
    fn unshared(&self) -> Vec<Item> {
        let me = self.id.short();
        let is_own = |entry: &Entry| {
            let dot = entry.dot;
            dot.origin.node == me && !self.apart.shared.contains(dot) && !self.apart.saved.contains(&dot)
        };
        let by_people = |key: &Key| may_author(key, Author::Client, me) && key.object.kind() != "node";
        let mut lost = Vec::new();
        for (object, fields) in self.replica.objects() {
            for (field, entry) in fields.entries().filter(|(_, entry)| is_own(entry)) {
                let key = Key { object: object.clone(), field: field.clone() };
                if by_people(&key) {
                    lost.push(Item { key, entry: entry.clone(), covers: Vec::new() });
                }
            }
        }
        lost
    }
}
