//! Liveness packets on their way, and envelopes for nodes without a link of their own.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{Event, Mesh};
use crate::{
    counters::Counter,
    id::ShortId,
    liveness::{Liveness as _, LivenessEvent, MAX_LIVENESS_PACKET_BYTES},
    routing::{self, MAX_BODY_BYTES, MAX_HOPS, Reach, Routed, Way},
    session::LinkId,
    wire::{self, FRAME_VERSION, Message, ROUTED_PACKET},
};

/// Liveness packets that wait for one link; older ones would mislead.
const MAX_PACKETS: usize = 64;
/// Bytes of control messages that wait for a link before envelopes for it are dropped.
const MAX_WAITING_BYTES: usize = 256 * 1024;

/// How an envelope came, and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// At once or not at all.
    Packet,
    /// In order, reliably on each link.
    Frame,
}

impl Mesh {
    /// The way to a node that this one has no link to.
    pub fn way_to(&self, node: ShortId) -> Option<Way> {
        self.routing.way(node)
    }

    /// Whether a node was last heard through one that is dead or gone, and nothing leads to it now: nobody
    /// that this node still hears can tell whether it lives.
    pub fn is_cut_off(&self, node: ShortId) -> bool {
        self.routing.is_cut_off(node)
    }

    /// Carries what liveness has to say, and draws the consequences of what it says.
    pub(super) fn pump_liveness(&mut self) {
        loop {
            while let Some(event) = self.liveness.poll_event() {
                match event {
                    LivenessEvent::Up { node, incarnation } => self.node_up(node, incarnation),
                    LivenessEvent::Down { node, incarnation, .. } => self.node_down(node, incarnation),
                    LivenessEvent::Rejoined { incarnation } => self.rejoined(incarnation),
                }
            }
            self.find_ways();
            let Some((node, packet)) = self.liveness.poll_packet() else { break };
            self.send_liveness(node, packet);
        }
        for (link, reach) in self.routing.tell(self.now.mono_ms) {
            if let Some(link) = self.links.get_mut(&link) {
                link.outbox.control(Message::Neighbours(reach));
            }
        }
    }

    fn send_liveness(&mut self, node: ShortId, packet: Vec<u8>) {
        if let Some(link) = self.live_link_to(node) {
            self.queue_packet(link, [&[FRAME_VERSION], packet.as_slice()].concat());
        } else if let Some(way) = self.routing.way(node) {
            let routed = self.routing.seal(node, routing::LIVENESS, packet);
            self.queue_packet(way.link, wrap(routed));
        }
    }

    fn queue_packet(&mut self, link: LinkId, packet: Vec<u8>) {
        let waiting = self.packets.entry(link).or_default();
        waiting.push_back(packet);
        if waiting.len() > MAX_PACKETS {
            waiting.pop_front();
        }
    }

    /// Looks for ways again, if anything changed, and has liveness ask those who became reachable.
    fn find_ways(&mut self) {
        let now = self.now.mono_ms;
        if !self.routing.is_due(now) {
            return;
        }
        let mut direct = BTreeMap::new();
        for (id, link) in self.links.iter().filter(|(_, link)| link.is_live()) {
            direct.entry(link.short()).or_insert(*id);
        }
        let changed = self.routing.find(direct, &self.admitted);
        for node in changed.lost {
            self.liveness.link_down(now, node);
        }
        for node in changed.found {
            self.liveness.way_up(now, node);
        }
    }

    pub(super) fn on_neighbours(&mut self, id: LinkId, told: &[Reach]) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        if !self.routing.hear(self.now.mono_ms, id, told) {
            self.offend(node, Counter::BadNeighbours);
        }
    }

    /// Takes apart what came as a packet for relaying.
    pub(super) fn on_routed_packet(&mut self, id: LinkId, frame: &[u8]) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        match wire::decode(frame).map(|(messages, _)| <[Message; 1]>::try_from(messages)) {
            Ok(Ok([Message::Routed(routed)])) => self.on_routed(id, routed, Carrier::Packet),
            _ => self.offend(node, Counter::BadPacket),
        }
    }

    /// Takes in an envelope, or passes it on: once, to one peer, no larger than it came, and only between members.
    pub(super) fn on_routed(&mut self, id: LinkId, mut routed: Routed, carrier: Carrier) {
        let Some((node, peer)) = self.links.get(&id).map(|link| (link.node, link.short())) else { return };
        let largest = if carrier == Carrier::Packet { MAX_LIVENESS_PACKET_BYTES } else { MAX_BODY_BYTES };
        if routed.body.len() > largest {
            return self.offend(node, Counter::RelayTooLarge);
        }
        if !self.routing.spend(self.now.mono_ms, id, routed.body.len()) {
            return self.offend(node, Counter::RelayFlood);
        }
        let me = self.id.short();
        if !self.admitted.contains(&routed.from) || !self.admitted.contains(&routed.to) {
            return self.offend(node, Counter::RelayStranger);
        }
        // A peer speaks for itself and for whom it said that it reaches.
        if routed.from != peer && !self.routing.was_told(id, routed.from) {
            return self.counters.bump(Counter::RelayOriginUnknown);
        }
        if routed.from == me || !self.routing.is_news(&routed) {
            return self.counters.bump(Counter::RelayRepeated);
        }
        if routed.to == me {
            return self.open(id, routed);
        }
        let way = self.live_link_to(routed.to).or_else(|| self.routing.way(routed.to).map(|way| way.link));
        let way = way.filter(|way| *way != id && routed.left > 0);
        let Some(way) = way else { return self.counters.bump(Counter::RelayNoWay) };
        routed.left = (routed.left - 1).min(MAX_HOPS - 2);
        self.counters.bump(Counter::Relayed);
        if carrier == Carrier::Packet {
            self.queue_packet(way, wrap(routed));
        } else if let Some(link) = self.links.get_mut(&way) {
            if link.outbox.control_bytes() > MAX_WAITING_BYTES {
                return self.counters.bump(Counter::RelayNoWay);
            }
            link.outbox.control(Message::Routed(routed));
        }
    }

    /// An envelope for this node.
    fn open(&mut self, id: LinkId, routed: Routed) {
        if routed.kind != routing::LIVENESS {
            return self.counters.bump(Counter::UnknownMessage);
        }
        // Of a node with a link of its own nobody else's word is taken.
        if self.live_link_to(routed.from).is_some_and(|own| own != id) {
            return self.counters.bump(Counter::RelayRepeated);
        }
        let taken = self.liveness.handle_packet(self.now.mono_ms, routed.from, &routed.body);
        let Some(link) = self.links.get(&id) else { return };
        if taken.is_err() {
            self.counters.bump(Counter::BadRelayed);
            return self.events.push_back(Event::Offence(link.node, Counter::BadRelayed));
        }
        self.routing.heard(routed.from, link.short());
    }
}

fn wrap(routed: Routed) -> Vec<u8> {
    [&[ROUTED_PACKET], wire::encode(&[Message::Routed(routed)]).as_slice()].concat()
}
