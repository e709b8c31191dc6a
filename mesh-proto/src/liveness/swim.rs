//! [`Liveness`] by the `foca` crate.
//!
//! `foca` keeps the protocol; what is here keeps its timers and packets, lets it hear of admitted nodes
//! only, asks again on links until both sides know each other, asks links that fell silent out of turn, and puts
//! accusations off after a stall.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use foca::{Foca, Member, Message, NoCustomBroadcast, PostcardCodec, State, Timer};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    DownReason, Liveness, LivenessError, LivenessEvent,
    io::Io,
    packet::Packet,
    silence::{Silence, heard},
    tuning::{MANY, MAX_LIVENESS_PACKET_BYTES, PROBE_RTT_MS, config, suspicion_ms},
};
use crate::id::ShortId;

/// A timer handled this much too late, in milliseconds, means that this node stalled.
const STALL_MS: u64 = 400;
/// An announcement nobody answered is repeated after this, in milliseconds, later less often.
const ANNOUNCE_AGAIN_MS: u64 = 200;
const ANNOUNCE_SLOWLY_MS: u64 = 2_000;
const ANNOUNCES_IN_A_ROW: u32 = 10;
/// A goodbye is said this often, at this distance in milliseconds.
const GOODBYES: u32 = 4;
const GOODBYE_AGAIN_MS: u64 = 50;
/// The renewal that no node takes for itself: it says that the node left.
const LEFT: u16 = u16::MAX;

/// A node as SWIM knows it. Of two with one short name the higher (incarnation, renewal) is the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) node: ShortId,
    incarnation: u64,
    renewal: u16,
}

impl foca::Identity for Identity {
    type Addr = ShortId;

    fn renew(&self) -> Option<Self> {
        if self.renewal < LEFT - 1 {
            Some(Self { renewal: self.renewal + 1, ..*self })
        } else {
            self.incarnation.checked_add(1).map(|incarnation| Self { incarnation, renewal: 0, ..*self })
        }
    }

    fn addr(&self) -> ShortId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self > adversary
    }
}

/// [`Liveness`] by SWIM with suspicion.
pub struct Swim {
    pub(super) foca: Foca<Identity, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
    pub(super) io: Io,
    pub(super) links: BTreeMap<ShortId, Link>,
    pub(super) alive: BTreeMap<ShortId, Identity>,
    events: VecDeque<LivenessEvent>,
    goodbye: Option<Goodbye>,
}

pub(super) struct Link {
    incarnation: u64,
    /// When to announce next; `None` once the peer answered.
    pub(super) due: Option<u64>,
    tries: u32,
    /// What was last heard of the peer; `None`: there is no link but a way through others.
    pub(super) silence: Option<Silence>,
}

struct Goodbye {
    packets: Vec<(ShortId, Vec<u8>)>,
    due: u64,
    left: u32,
}

impl Swim {
    /// A node that knows of no other yet. `incarnation` is persisted and higher at every boot; the same
    /// seed and inputs give the same packets.
    pub fn new(node: ShortId, incarnation: u64, seed: u64) -> Self {
        let identity = Identity { node, incarnation, renewal: 0 };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            foca: Foca::new(identity, config(suspicion_ms(0)), rng, PostcardCodec),
            io: Io::new(node),
            links: BTreeMap::new(),
            alive: BTreeMap::new(),
            events: VecDeque::new(),
            goodbye: None,
        }
    }

    /// Puts off what is pending when this call comes late: this node was not there to hear the answers, which may
    /// still wait in its sockets. A suspect gets its whole time again.
    fn advance(&mut self, now_ms: u64) {
        self.io.now = self.io.now.max(now_ms);
        let now = self.io.now;
        let Some((due, _)) = self.io.timers.keys().next().copied() else { return };
        let late = now.saturating_sub(due);
        if late <= STALL_MS {
            return;
        }
        let timers = core::mem::take(&mut self.io.timers);
        for ((deadline, order), timer) in timers {
            let mut deadline = deadline + late + PROBE_RTT_MS;
            if matches!(timer, Timer::ChangeSuspectToDown { .. }) {
                deadline = deadline.max(now + suspicion_ms(self.alive.len()));
            }
            self.io.timers.insert((deadline, order), timer);
        }
        let suspicion = suspicion_ms(self.alive.len());
        for silence in self.links.values_mut().filter_map(|link| link.silence.as_mut()) {
            silence.excuse(now, suspicion);
        }
    }

    /// Turns what changed inside `foca` into events and announcements.
    fn settle(&mut self) {
        let seen: BTreeMap<ShortId, Identity> = self
            .foca
            .iter_members()
            .map(|member| (member.id().node, *member.id()))
            .filter(|(node, _)| self.io.admitted.contains(node))
            .collect();
        for (node, old) in &self.alive {
            if !seen.contains_key(node) {
                let reason = self.why_down(*node);
                self.events.push_back(LivenessEvent::Down {
                    node: *node,
                    incarnation: old.incarnation,
                    reason,
                });
                if let Some(link) = self.links.get_mut(node) {
                    // The link may outlive the verdict: a stalled peer is asked whether it is back.
                    link.due = (reason == DownReason::Silent).then_some(self.io.now + ANNOUNCE_SLOWLY_MS);
                    link.tries = 0;
                }
            }
        }
        for (node, new) in &seen {
            if self.alive.get(node) != Some(new) {
                heard(&mut self.links, *node, self.io.now);
                self.events.push_back(LivenessEvent::Up { node: *node, incarnation: new.incarnation });
            }
        }
        if (seen.len() < MANY) != (self.alive.len() < MANY) {
            let config = config(suspicion_ms(seen.len()));
            self.tell(|foca, _| foca.set_config(config));
        }
        self.alive = seen;
        if core::mem::take(&mut self.io.rejoined) {
            self.events.push_back(LivenessEvent::Rejoined { incarnation: self.incarnation() });
            for link in self.links.values_mut() {
                (link.due, link.tries) = (Some(self.io.now), 0);
            }
        }
        self.announce();
    }

    fn why_down(&self, node: ShortId) -> DownReason {
        if !self.io.admitted.contains(&node) {
            return DownReason::Forgotten;
        }
        match self.known(node) {
            Some(identity) if identity.renewal == LEFT => DownReason::Left,
            _ => DownReason::Silent,
        }
    }

    pub(super) fn member(&self, node: ShortId) -> Option<Member<Identity>> {
        self.foca.iter_membership_state().find(|member| member.id().node == node).cloned()
    }

    pub(super) fn known(&self, node: ShortId) -> Option<Identity> {
        self.member(node).map(|member| *member.id())
    }

    /// Asks every peer that has not answered yet, and whose time it is, for its list.
    fn announce(&mut self) {
        let now = self.io.now;
        let due: Vec<(ShortId, u64)> = self
            .links
            .iter_mut()
            .filter(|(peer, link)| self.io.admitted.contains(peer) && link.due.is_some_and(|due| due <= now))
            .map(|(peer, link)| {
                link.tries = link.tries.saturating_add(1);
                let pause =
                    if link.tries < ANNOUNCES_IN_A_ROW { ANNOUNCE_AGAIN_MS } else { ANNOUNCE_SLOWLY_MS };
                link.due = Some(now + pause);
                (*peer, link.incarnation)
            })
            .collect();
        for (node, incarnation) in due {
            let told = Identity { node, incarnation, renewal: 0 };
            let to = self.known(node).map_or(told, |known| known.max(told));
            self.tell(|foca, io| foca.announce(to, io));
        }
    }

    /// Calls into `foca`. Its errors here speak of a timer that does not matter any more; it recovers by itself.
    pub(super) fn tell(
        &mut self,
        call: impl FnOnce(
            &mut Foca<Identity, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
            &mut Io,
        ) -> Result<(), foca::Error>,
    ) {
        if let Err(error) = call(&mut self.foca, &mut self.io) {
            tracing::debug!(node = ?self.io.me, %error, "liveness recovers");
        }
    }

    /// What a later incarnation said, of which this node knows nothing, must end with it.
    fn outbidding(&self, claimed: Identity) -> Option<Identity> {
        let later = claimed.incarnation > self.foca.identity().incarnation;
        let next = claimed.incarnation.checked_add(1).filter(|_| later);
        let next = next.map(|incarnation| Identity { incarnation, renewal: 0, ..claimed });
        next.or_else(|| foca::Identity::renew(&claimed))
    }

    /// Others know a higher identity of this node than it has itself (a restored state folder, or a lie): outbid it.
    fn outbid(&mut self, claimed: Identity) {
        if claimed.node == self.io.me
            && claimed > *self.foca.identity()
            && let Some(identity) = self.outbidding(claimed)
        {
            self.io.rejoined = true;
            self.tell(|foca, io| foca.change_identity(identity, io));
        }
    }

    /// Whether a node is suspected, and how often it objected, as this one knows; for tests.
    #[cfg(test)]
    pub(super) fn suspicions(&self, node: ShortId) -> Option<(bool, u16)> {
        self.member(node).map(|member| (member.state() == State::Suspect, member.incarnation()))
    }

    /// Timers and packets that are held, for tests that count them.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.io.timers.len(), self.io.out.len())
    }

    fn drop_node(&mut self, node: ShortId) {
        self.io.admitted.remove(&node);
        if let Some(identity) = self.known(node) {
            let down = [Member::new(identity, u16::MAX, State::Down)];
            self.tell(|foca, io| foca.apply_many(down.into_iter(), false, io));
            self.tell(|foca, io| foca.handle_timer(Timer::RemoveDown(identity), io));
        }
    }
}

impl Liveness for Swim {
    fn set_admitted(&mut self, now_ms: u64, admitted: &BTreeSet<ShortId>) {
        self.advance(now_ms);
        let gone: Vec<ShortId> = self.io.admitted.difference(admitted).copied().collect();
        for node in gone {
            self.drop_node(node);
        }
        self.io.admitted = admitted.iter().copied().filter(|node| *node != self.io.me).collect();
        self.settle();
    }

    fn link_up(&mut self, now_ms: u64, peer: ShortId, incarnation: u64) {
        self.advance(now_ms);
        if peer == self.io.me || self.goodbye.is_some() {
            return;
        }
        let silence = Some(Silence::Since(self.io.now));
        self.links.insert(peer, Link { incarnation, due: Some(self.io.now), tries: 0, silence });
        if self.io.admitted.contains(&peer) {
            // A link is proof of life; whether it also outbids an earlier death the announcement tells.
            let alive = Member::alive(Identity { node: peer, incarnation, renewal: 0 });
            self.tell(|foca, io| foca.apply_many(core::iter::once(alive), true, io));
        }
        self.settle();
    }

    fn way_up(&mut self, now_ms: u64, node: ShortId) {
        self.advance(now_ms);
        if node != self.io.me && self.goodbye.is_none() && !self.links.contains_key(&node) {
            let due = (!self.alive.contains_key(&node)).then_some(self.io.now);
            self.links.insert(node, Link { incarnation: 0, due, tries: 0, silence: None });
            self.settle();
        }
    }

    fn link_down(&mut self, now_ms: u64, peer: ShortId) {
        self.advance(now_ms);
        self.links.remove(&peer);
    }

    fn handle_packet(&mut self, now_ms: u64, from: ShortId, bytes: &[u8]) -> Result<(), LivenessError> {
        self.advance(now_ms);
        if bytes.len() > MAX_LIVENESS_PACKET_BYTES {
            return Err(LivenessError::TooLarge { bytes: bytes.len() });
        }
        if !self.io.admitted.contains(&from) {
            return Err(LivenessError::NotAdmitted { from });
        }
        let mut packet = Packet::decode(bytes)?;
        packet.check(self.io.me, from)?;
        if self.goodbye.is_some() || packet.third().is_some_and(|third| !self.io.knows(third)) {
            return Ok(());
        }
        let count = packet.updates.len();
        packet.updates.retain(|member| self.io.knows(member.id().node));
        let stripped = if packet.updates.len() < count { Some(packet.encode()?) } else { None };
        self.outbid(packet.header.dst);
        for member in &packet.updates {
            self.outbid(*member.id());
        }
        let outcome = self.foca.handle_data(stripped.as_deref().unwrap_or(bytes), &mut self.io);
        self.listen(&packet.header);
        self.settle();
        match outcome {
            Ok(()) => Ok(()),
            Err(foca::Error::IndirectForOurselves | foca::Error::DataFromOurselves) => {
                Err(LivenessError::Nonsense)
            }
            Err(_) => Err(LivenessError::Malformed),
        }
    }

    fn handle_timeout(&mut self, now_ms: u64) {
        self.advance(now_ms);
        let now = self.io.now;
        if let Some(goodbye) = &mut self.goodbye {
            while goodbye.left > 0 && goodbye.due <= now {
                goodbye.left -= 1;
                goodbye.due = now + GOODBYE_AGAIN_MS;
                self.io.out.extend(goodbye.packets.iter().cloned());
            }
            return;
        }
        self.mind_silence();
        while let Some(entry) = self.io.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            self.tell(|foca, io| foca.handle_timer(timer, io));
        }
        self.settle();
    }

    fn poll_timeout(&self) -> Option<u64> {
        if let Some(goodbye) = &self.goodbye {
            return (goodbye.left > 0).then_some(goodbye.due);
        }
        let timer = self.io.timers.keys().next().map(|(deadline, _)| *deadline);
        let admitted = self.links.iter().filter(|(peer, _)| self.io.admitted.contains(peer));
        let announcements = admitted.filter_map(|(_, link)| link.due);
        announcements.chain(self.silences().map(|(_, due)| due)).chain(timer).min()
    }

    fn poll_packet(&mut self) -> Option<(ShortId, Vec<u8>)> {
        self.io.out.pop_front()
    }

    fn poll_event(&mut self) -> Option<LivenessEvent> {
        self.events.pop_front()
    }

    fn leave(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if self.goodbye.is_some() {
            return;
        }
        let me = *self.foca.identity();
        let gone = Member::down(Identity { renewal: LEFT, ..me });
        let goodbye = |to: &Identity| {
            let packet = self.packet(*to, Message::Gossip, Vec::from([gone.clone()]))?;
            Some((to.node, packet))
        };
        let packets = self.alive.values().filter_map(goodbye).collect();
        self.io.timers.clear();
        self.links.clear();
        self.goodbye = Some(Goodbye { packets, due: self.io.now, left: GOODBYES });
        self.handle_timeout(now_ms);
    }

    fn left(&mut self, now_ms: u64, node: ShortId, incarnation: u64) {
        self.advance(now_ms);
        if let Some(identity) = self.known(node).filter(|known| known.incarnation == incarnation) {
            let gone = Member::down(Identity { renewal: LEFT, ..identity });
            self.tell(|foca, io| foca.apply_many(core::iter::once(gone), true, io));
        }
        self.settle();
    }

    fn forget(&mut self, now_ms: u64, node: ShortId) {
        self.advance(now_ms);
        self.drop_node(node);
        self.links.remove(&node);
        self.settle();
    }

    fn alive(&self) -> Vec<(ShortId, u64)> {
        self.alive.values().map(|identity| (identity.node, identity.incarnation)).collect()
    }

    fn incarnation(&self) -> u64 {
        self.foca.identity().incarnation
    }
}
