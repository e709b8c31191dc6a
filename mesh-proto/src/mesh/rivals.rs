//! Which of several links a pair keeps.
//!
//! Links of an earlier incarnation end at once: their other end is gone. Among the rest the node with
//! the lower key decides, so that the two never end one link each: one that is heard goes before a
//! silent one, QUIC before a WebSocket, the lower key's dial before the other's, the newer before the
//! older. It decides on a link only once the peer has shown that it can use it. The loser *drains*: a
//! goodbye is its last frame in either direction, and all that comes before it is taken in. What it had
//! not sent yet is sent over the link that stays.

use alloc::vec::Vec;

use super::Mesh;
use crate::{
    id::{NodeId, ShortId},
    session::{Link, LinkId, Transport},
    wire::{ByeReason, Message},
};

/// How long a link that is given up may still deliver, in milliseconds.
pub(super) const DRAIN_MS: u64 = 2_000;
/// Links to one node that are kept until it decides; each costs the memory of its queues.
const MAX_RIVALS: usize = 4;

/// The greater stays.
type Rank = (Option<u64>, bool, Transport, bool, LinkId);

impl Mesh {
    /// The link to a node that is kept, or would be.
    pub fn best_link_to(&self, node: ShortId) -> Option<(LinkId, &Link)> {
        let live = self.links.iter().filter(|(_, link)| link.is_live() && link.short() == node);
        live.max_by_key(|(id, link)| self.rank(**id, link)).map(|(id, link)| (*id, link))
    }

    fn rank(&self, id: LinkId, link: &Link) -> Rank {
        let run = link.peer.as_ref().map(|peer| peer.run.incarnation);
        (run, !link.is_silent, link.transport, link.dialed == (self.id < link.node), id)
    }

    /// The live links to a node, the best last.
    fn rivals(&self, node: NodeId) -> Vec<(Rank, LinkId)> {
        let live = self.links.iter().filter(|(_, link)| link.is_live() && link.node == node);
        let mut rivals: Vec<_> = live.map(|(id, link)| (self.rank(*id, link), *id)).collect();
        rivals.sort_unstable();
        rivals
    }

    /// Ends the links of the peer's earlier incarnations, and the worst where there are too many.
    /// Returns whether this one stays.
    pub(super) fn outlives_rivals(&mut self, id: LinkId) -> bool {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return false };
        let mut rivals = self.rivals(node);
        let newest = rivals.last().map(|((run, ..), _)| *run);
        let stale = rivals.iter().filter(|((run, ..), _)| Some(*run) != newest).count();
        let crowd = rivals.len().saturating_sub(MAX_RIVALS);
        for (_, rival) in rivals.drain(..stale.max(crowd)) {
            self.close(rival, ByeReason::Replaced);
        }
        rivals.iter().any(|(_, rival)| *rival == id)
    }

    /// The peer has answered over the link, so both sides can use it.
    pub(super) fn confirm(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_confirmed) else { return };
        link.is_confirmed = true;
        let node = link.node;
        self.choose_link(node);
    }

    /// Gives up all links to a node but the best, if that is this node's to decide.
    fn choose_link(&mut self, node: NodeId) {
        if self.id > node {
            return;
        }
        let mut rivals = self.rivals(node);
        rivals.retain(|(_, id)| self.links.get(id).is_some_and(|link| link.is_confirmed));
        rivals.pop();
        for (_, loser) in rivals {
            let due = self.now.mono_ms + DRAIN_MS;
            if let Some(link) = self.links.get_mut(&loser) {
                link.drain_due_ms = Some(due);
            }
            self.hand_over(loser);
            if let Some(link) = self.links.get_mut(&loser) {
                link.outbox.control(Message::Bye(ByeReason::Replaced));
            }
        }
    }

    /// What a link that is given up had not sent yet goes over the one that stays; exchanges begin anew.
    pub(super) fn hand_over(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let was_telling = link.telling.is_some();
        link.drop_answers();
        let (node, waiting) = (link.node, link.outbox.take_all());
        let packets = self.packets.remove(&id);
        let has_missing = link.has_missing | self.fetching.take_if(|fetching| fetching.link == id).is_some();
        let stays = self.rivals(node).into_iter().map(|(_, rival)| rival).rfind(|rival| *rival != id);
        let Some(stays) = stays else { return };
        if let Some(packets) = packets {
            self.packets.entry(stays).or_default().extend(packets);
        }
        if let Some(link) = self.links.get_mut(&stays) {
            link.outbox.adopt(waiting);
            if was_telling {
                link.tell_overlay(None);
            }
            link.has_missing |= has_missing;
        }
    }

    /// Ends the links that have had the time to deliver what was under way.
    pub(super) fn end_drains(&mut self) {
        let now = self.now.mono_ms;
        let over = |link: &Link| link.drain_due_ms.is_some_and(|due| due <= now);
        let over: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(id, link)| over(link) && !self.closing_links.contains(*id))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.close(id, ByeReason::Replaced);
        }
    }

    /// The transport hears nothing over a link although it asked, or hears the peer again.
    pub(super) fn link_silent(&mut self, id: LinkId, is_silent: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.is_silent = is_silent;
        let node = link.node;
        if is_silent {
            self.choose_link(node);
            self.tell_unheard(node);
        }
    }

    /// Where the peer decides and this node hears it over one link and not over another, it says so:
    /// the peer may be heard well itself.
    pub(super) fn tell_unheard(&mut self, node: NodeId) {
        let is_silent = |id: &LinkId| self.links.get(id).is_some_and(|link| link.is_silent);
        let rivals = self.rivals(node);
        let Some((_, best)) = rivals.last() else { return };
        if self.id < node || is_silent(best) || !rivals.iter().any(|(_, id)| is_silent(id)) {
            return;
        }
        if let Some(link) = self.links.get_mut(best) {
            link.outbox.control(Message::Unheard);
        }
    }

    /// The peer hears this node over no other link than this.
    pub(super) fn on_unheard(&mut self, id: LinkId) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        for (_, link) in self.links.iter_mut().filter(|(other, link)| **other != id && link.node == node) {
            link.is_silent = true;
        }
        self.confirm(id);
        self.choose_link(node);
    }
}
