//! What the node shows of itself, put together from the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use mesh_proto::{
    FieldName, Key, ObjectId, ShortId, Value,
    mesh::Mesh,
    roster::{Member, Roles},
    session::Link,
    time::{Basis, Now},
    vector::Vector,
    view,
};

use super::{
    peers::kind,
    standing::{self, Standing},
};
use crate::{
    discovery::Report,
    service::{FieldView, NodeStatus, ObjectView, Status, TimeView},
    transport::LinkId,
};

/// The machine's view of an object as the rest of the node sees it.
pub(super) fn object_view(object: view::ObjectView) -> ObjectView {
    let fields = object.fields.into_iter().map(|(name, field)| {
        let view = FieldView {
            value: field.value,
            at_ms: field.stamp.ms(),
            by: field.writer.to_string(),
            durable: field.durable,
        };
        (name, view)
    });
    ObjectView { id: object.id, fields: fields.collect(), complete: object.complete }
}

fn node_field(mesh: &Mesh, node: ShortId, field: &str) -> Option<Value> {
    let object = ObjectId::new(&format!("node/{node}")).ok()?;
    let key = Key { object, field: FieldName::new(field).ok()? };
    view::field(mesh.replica(), mesh.overlay(), &key).map(|view| view.value)
}

/// A node's friendly name: what people set, else what it was admitted as, else its short name.
pub(super) fn name_of(mesh: &Mesh, node: ShortId) -> String {
    let set = node_field(mesh, node, "name").and_then(|value| value.as_text().map(str::to_owned));
    let admitted = || {
        let member = mesh.roster().members().find(|member| member.short == node)?;
        Some(member.name.as_str().to_owned())
    };
    set.or_else(admitted).unwrap_or_else(|| node.to_string())
}

/// Where a node says that it listens.
pub(super) fn addresses_of(mesh: &Mesh, node: ShortId) -> Vec<SocketAddr> {
    let Some(Value::List(listed)) = node_field(mesh, node, "addresses") else { return Vec::new() };
    listed.iter().filter_map(|value| value.as_text()?.parse().ok()).take(16).collect()
}

/// What the status is made of.
pub(super) struct StatusSource<'a> {
    pub(super) mesh: &'a Mesh,
    /// Complete objects, and incomplete ones.
    pub(super) objects: (usize, usize),
    /// Address and round trip in microseconds of every link.
    pub(super) links: BTreeMap<LinkId, (SocketAddr, u64)>,
    /// The nodes that have been alive since the start.
    pub(super) is_heard: &'a BTreeSet<ShortId>,
    pub(super) standing: &'a Standing,
    pub(super) store_error: Option<String>,
    pub(super) discovery: Report,
    pub(super) uptime_s: u64,
}

impl StatusSource<'_> {
    pub(super) fn status(self) -> Status {
        let mesh = self.mesh;
        let (objects, incomplete) = self.objects;
        let alive: BTreeSet<ShortId> = mesh.alive().into_iter().map(|(node, _)| node).collect();
        let nodes = mesh.roster().members().filter(|member| member.roles.contains(Roles::MEMBER));
        Status {
            household: mesh.roster().household().to_string(),
            node: mesh.id().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.uptime_s,
            objects,
            incomplete,
            registers: mesh.replica().len(),
            tombstones: mesh.replica().tombstones().count(),
            held_back_by: mesh.held_back_by().into_iter().map(|node| name_of(mesh, node)).collect(),
            overlay: mesh.overlay().len(),
            quarantined: mesh.replica().quarantined(),
            clock_synchronised: mesh.time().is_synchronised(),
            generation: mesh.run().generation,
            store_error: self.store_error.clone(),
            discovery: self.discovery.clone(),
            outside: standing::outside(mesh),
            copies: standing::copies(mesh, self.standing),
            copies_seen: self.standing.told(mesh),
            nodes: nodes
                .map(|member| self.node(member, &alive, objects))
                .chain(self.removed(objects))
                .collect(),
            counters: mesh.counters().iter().collect(),
        }
    }

    /// This node itself, when it was removed: it is no member any more.
    fn removed(&self, own_objects: usize) -> Option<NodeStatus> {
        let (mesh, id) = (self.mesh, self.mesh.id());
        mesh.roster().is_revoked(&id).then(|| NodeStatus {
            id: id.to_string(),
            name: name_of(mesh, id.short()),
            roles: Vec::new(),
            state: "removed",
            address: None,
            transport: None,
            via: None,
            hops: None,
            rtt_us: None,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            objects: Some(own_objects),
            lag: None,
            clock_offset_ms: None,
        })
    }

    fn node(&self, member: &Member, alive: &BTreeSet<ShortId>, own_objects: usize) -> NodeStatus {
        let mesh = self.mesh;
        let best = mesh.best_link_to(member.short);
        let link = best.map(|(_, link)| link);
        let is_self = member.id == mesh.id();
        let state = match () {
            () if is_self => "self",
            () if alive.contains(&member.short) => "alive",
            () if mesh.is_cut_off(member.short) => "unreachable",
            () if self.is_heard.contains(&member.short) => "dead",
            () => "unknown",
        };
        let reached = best.and_then(|(id, _)| self.links.get(&LinkId(id.0)));
        let way = mesh.way_to(member.short).filter(|_| reached.is_none() && !is_self);
        let peer = link.and_then(|link| link.peer.as_ref());
        let said = node_field(mesh, member.short, "version").and_then(|v| v.as_text().map(str::to_owned));
        let told = || node_field(mesh, member.short, "status")?.get("objects")?.as_int();
        NodeStatus {
            id: member.id.to_string(),
            name: name_of(mesh, member.short),
            roles: role_names(member.roles),
            state,
            address: reached.map(|(address, _)| *address),
            transport: link.map(|link| kind(link.transport).name()).or(way.map(|_| "relay")),
            via: way.map(|way| name_of(mesh, way.via)),
            hops: reached.map(|_| 1).or(way.map(|way| way.hops)),
            rtt_us: reached.map(|(_, rtt)| *rtt),
            version: said.or_else(|| peer.map(|peer| peer.software.clone())),
            objects: if is_self { Some(own_objects) } else { told().and_then(|n| usize::try_from(n).ok()) },
            lag: if is_self { Some(0) } else { self.lag(member.short, link) },
            clock_offset_ms: peer.map(|peer| mesh.clock_offset_ms(peer)),
        }
    }

    /// How many of the writes flushed here the node is not known to have flushed. Nodes compare
    /// every 10 s, so the number is that old at most while they are linked.
    fn lag(&self, node: ShortId, link: Option<&Link>) -> Option<u64> {
        if link.is_some_and(|link| link.in_step) {
            return Some(0);
        }
        let theirs = link.and_then(|link| link.heads.as_ref()).or_else(|| self.mesh.durable_of(node))?;
        Some(count(&theirs.missing(self.mesh.commits().durable())))
    }
}

/// The time of day, and what it rests on.
pub(super) fn time(mesh: &Mesh, now: Now) -> TimeView {
    let (time, basis) = (mesh.time().time_of_day(now), mesh.time().basis());
    let peer = match basis {
        Basis::Peer(peer) => Some(name_of(mesh, peer.short())),
        _ => None,
    };
    TimeView { ms: time.ms, wall_ms: now.wall_ms, trusted: time.is_trusted(), basis, peer }
}

fn count(vector: &Vector) -> u64 {
    vector.origins().flat_map(|(_, ranges)| ranges.iter()).map(|(from, to)| to - from + 1).sum()
}

fn role_names(roles: Roles) -> Vec<&'static str> {
    [(Roles::ADMIN, "admin"), (Roles::MEMBER, "member"), (Roles::RECOVERY, "recovery")]
        .into_iter()
        .filter(|(role, _)| roles.contains(*role))
        .map(|(_, name)| name)
        .collect()
}
