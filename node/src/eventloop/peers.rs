//! Whom to reach, who is alive, and how the node looks.

use std::collections::BTreeSet;

use mesh_proto::{NodeId, ShortId, session::Transport};

use super::{
    EventLoop,
    status::{self, StatusSource},
};
use crate::{
    service::{NodeHealth, Status},
    transport::{LinkId, Linked, Target, TransportKind, Wanted},
};

impl EventLoop {
    /// Tells the dialer whom to reach: every admitted node that has no good accepted link, and whoever is
    /// at the configured names; and who is linked, so that nobody is dialled twice for nothing.
    pub(super) fn want_peers(&mut self) {
        let me = self.mesh.id();
        let accepted: BTreeSet<NodeId> = self
            .links
            .iter()
            .filter(|(id, open)| !open.dialed && self.is_good(**id))
            .map(|(_, open)| open.handle.peer())
            .collect();
        let mut wanted = Wanted::default();
        // Whoever was removed is turned away everywhere; should that prove void the others will call.
        let seeds: &[_] = if self.mesh.roster().is_revoked(&me) { &[] } else { self.seeds.as_slice() };
        for (target, addresses) in seeds {
            let is_met = match target {
                Target::Node(node) => accepted.contains(node) || !self.mesh.roster().is_admitted(node),
                // Only the dialer knows who answers there.
                Target::Host(_) => false,
            };
            if !is_met {
                wanted.targets.insert(target.clone(), addresses.clone());
            }
        }
        for member in self.mesh.roster().members() {
            if self.mesh.roster().is_revoked(&me) || member.id == me || accepted.contains(&member.id) {
                continue;
            }
            let addresses = status::addresses_of(&self.mesh, member.short);
            if !addresses.is_empty() {
                wanted.targets.entry(Target::Node(member.id)).or_default().extend(addresses);
            }
        }
        let found = self.discovered.borrow_and_update().hints.clone();
        for (node, hints) in found.into_iter().filter(|(node, _)| *node != me && !accepted.contains(node)) {
            if self.mesh.roster().is_admitted(&node) {
                wanted.targets.entry(Target::Node(node)).or_default().extend(hints);
            }
        }
        for addresses in wanted.targets.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        let linked = |node: NodeId| {
            let (id, link) = self.mesh.best_link_to(node.short())?;
            let address = self.links.get(&LinkId(id.0))?.handle.address();
            let transport = kind(link.transport);
            Some((node, Linked { address, transport, is_silent: link.is_silent }))
        };
        wanted.linked = self.mesh.links().filter_map(|(_, link)| linked(link.node)).collect();
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            if differs {
                *current = wanted;
            }
            differs
        });
    }

    /// Whether nothing better than this link is to be looked for. Before both sides are introduced
    /// nobody knows.
    fn is_good(&self, id: LinkId) -> bool {
        let link = self.mesh.links().find(|(other, _)| other.0 == id.0).map(|(_, link)| link);
        link.is_some_and(|link| {
            link.peer.is_none() || (link.transport == Transport::Quic && !link.is_silent && link.is_live())
        })
    }

    pub(super) fn publish_alive(&self) {
        let mut alive: BTreeSet<ShortId> = self.mesh.alive().into_iter().map(|(node, _)| node).collect();
        // Outside of the household nobody is alive, this node neither: it drives no device.
        if self.is_outside() {
            alive.clear();
        } else {
            alive.insert(self.mesh.id().short());
        }
        self.alive.send_if_modified(|current| {
            let differs = *current != alive;
            if differs {
                *current = alive;
            }
            differs
        });
    }

    pub(super) fn name_of(&self, node: ShortId) -> String {
        status::name_of(&self.mesh, node)
    }

    /// Costs the same however much the node holds: anybody may ask.
    pub(super) fn health(&self) -> NodeHealth {
        let store = self.store_error.as_ref().map(|_| "the store cannot be written");
        let membership = self.membership.failed().map(|_| "the membership cannot be saved");
        NodeHealth { reasons: store.into_iter().chain(membership).collect() }
    }

    pub(super) fn status(&mut self) -> Status {
        self.note_changes();
        let objects = self.counts.count(&self.mesh);
        let links = self.links.values().map(|open| {
            let rtt = u64::try_from(open.handle.rtt().as_micros()).unwrap_or(u64::MAX);
            // Where it is now: a node that moved keeps its link.
            (open.handle.id(), (open.handle.address(), rtt))
        });
        let source = StatusSource {
            mesh: &self.mesh,
            links: links.collect(),
            is_heard: &self.is_heard,
            standing: &self.standing,
            objects,
            store_error: self.store_error.clone().or_else(|| {
                self.membership.failed().map(|reason| format!("the membership cannot be saved: {reason}"))
            }),
            discovery: self.discovered.borrow().report.clone(),
            uptime_s: self.clock.now().mono_ms / 1000,
        };
        source.status()
    }
}

/// What carries a link, in the transports' word.
pub(super) fn kind(transport: Transport) -> TransportKind {
    match transport {
        Transport::Quic => TransportKind::Quic,
        Transport::WebSocket => TransportKind::WebSocket,
    }
}
