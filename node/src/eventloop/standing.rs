//! Where this node stands in its household: in it, removed from it, or turned away because another
//! board runs under its key. And of which nodes several boards run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use mesh_proto::{
    FieldName, Key, NodeId, ObjectId, ShortId, Value,
    mesh::{Mesh, Op},
    session, view,
};
use tracing::{error, warn};

use super::{EventLoop, status};
use crate::{
    service::{Copies, Outside, OutsideReason},
    transport::LinkId,
};

/// The way out for whoever was removed or is a copy.
const START_AFRESH: &str = "run `hearth leave` here: this node then starts afresh with a key of its own; to bring it back run `hearth invite` on a node of the household and `hearth join TOKEN` here";

/// What the loop remembers of it.
#[derive(Default)]
pub(super) struct Standing {
    /// Where the boards were that were turned away.
    turned_away_at: BTreeMap<ShortId, SocketAddr>,
    /// Whether it was said that this node stands outside.
    is_said: bool,
    /// The copied cards that were named in the log.
    named: BTreeSet<String>,
}

/// Why this node stands outside of its household, if it does.
pub(super) fn outside(mesh: &Mesh) -> Option<Outside> {
    let fix = START_AFRESH.to_owned();
    if let Some(by) = mesh.roster().revoked_by(&mesh.id()) {
        let by = status::name_of(mesh, by.short());
        let detail = format!("this node was removed from the household by {by}");
        return Some(Outside { reason: OutsideReason::Removed, detail, fix });
    }
    mesh.is_turned_away().then(|| Outside {
        reason: OutsideReason::Copy,
        detail: "another board of the household runs under the key of this one, and started first: one card is a copy of the other".into(),
        fix,
    })
}

/// The nodes under whose key several boards run, by what any node has seen.
pub(super) fn copies(mesh: &Mesh, own: &Standing) -> Vec<Copies> {
    let mut found: BTreeMap<ShortId, BTreeSet<String>> = BTreeMap::new();
    for (node, at) in own.seen(mesh) {
        found.entry(node).or_default().extend(at.map(|at| at.to_string()));
    }
    for member in mesh.roster().members() {
        let Some(Value::Map(told)) = told_by(mesh, member.short) else { continue };
        for (node, at) in told {
            let Ok(node) = node.parse::<ShortId>() else { continue };
            let at = at.as_text().filter(|at| !at.is_empty()).map(str::to_owned);
            found.entry(node).or_default().extend(at);
        }
    }
    let copies = found.into_iter().map(|(node, at)| Copies {
        id: node.to_string(),
        name: status::name_of(mesh, node),
        turned_away_at: at.into_iter().take(8).collect(),
    });
    copies.collect()
}

/// What a node says of copies in its object, which goes with it.
fn told_by(mesh: &Mesh, node: ShortId) -> Option<Value> {
    let object = ObjectId::new(&format!("node/{node}")).ok()?;
    let key = Key { object, field: FieldName::new("status").ok()? };
    view::field(mesh.replica(), mesh.overlay(), &key)?.value.get("copies").cloned()
}

impl Standing {
    /// The nodes of which this one has turned a board away not long ago, and where that was.
    pub(super) fn seen(&self, mesh: &Mesh) -> Vec<(ShortId, Option<SocketAddr>)> {
        let at = |node: NodeId| (node.short(), self.turned_away_at.get(&node.short()).copied());
        mesh.copied().into_iter().map(at).collect()
    }

    /// The same as text, for the others.
    pub(super) fn told(&self, mesh: &Mesh) -> BTreeMap<String, String> {
        let text = |at: Option<SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
        self.seen(mesh).into_iter().take(8).map(|(node, at)| (node.to_string(), text(at))).collect()
    }
}

impl EventLoop {
    /// Several boards run under one key, and the one at the end of this link was turned away.
    pub(super) fn copied(&mut self, node: NodeId, link: session::LinkId) {
        if let Some(open) = self.links.get(&LinkId(link.0)) {
            self.standing.turned_away_at.insert(node.short(), open.address);
        }
        self.name_copies();
    }

    /// Names copied cards in the log of every node, each once for as long as it is known of.
    pub(super) fn name_copies(&mut self) {
        let copies = copies(&self.mesh, &self.standing);
        self.standing.named.retain(|named| copies.iter().any(|copies| copies.id == *named));
        for Copies { id, name, turned_away_at } in copies {
            if self.standing.named.insert(id) {
                warn!(
                    node = %name,
                    turned_away_at = %turned_away_at.join(", "),
                    "two boards run under the key of this node: one card is a copy of the other; the one that started later is turned away; run `hearth leave` there and join it with an invite"
                );
            }
        }
    }

    /// Says once that this node stands outside, and no longer drives what the household drives.
    pub(super) fn look_where_it_stands(&mut self) {
        let outside = outside(&self.mesh);
        if outside.is_some() == self.standing.is_said {
            return;
        }
        self.standing.is_said = outside.is_some();
        match outside {
            Some(Outside { detail, fix, .. }) => error!(way_out = %fix, "{detail}"),
            None => warn!("this node is back in its household"),
        }
        self.publish_alive();
        self.want_peers();
    }

    /// Whether the household does without this node.
    pub(super) fn is_outside(&self) -> bool {
        self.standing.is_said
    }

    /// Why clients may not make these changes: nobody else would ever hear of them.
    pub(super) fn refuses(&self, is_client: bool, ops: &[Op]) -> Option<Outside> {
        let is_command = |op: &Op| match op {
            Op::Set(key, _) | Op::Unset(key) => key.object.kind() == "command",
            Op::Delete(object) => object.kind() == "command",
        };
        let counts = is_client || ops.iter().any(is_command);
        if counts { outside(&self.mesh) } else { None }
    }
}
