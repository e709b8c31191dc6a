//! What must hold once nothing is broken any more and time has passed.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{
    Hlc, Key, NodeId, ShortId,
    counters::Counter,
    hlc::MAX_AHEAD_MS,
    kinds::Durability,
    merge::{Bytes, Entry},
    mesh::Mesh,
    routing::MAX_HOPS,
};

use super::{Failure, model::Change, node::EPOCH_MS, oracle, world::World};

type Outcome = Result<(), Failure>;

/// The members of the household that still exist.
pub(crate) fn members(world: &World) -> Vec<usize> {
    let sound = |node: &&super::node::SimNode| !node.destroyed && node.enrolled && is_wanted(world, &node.id);
    world.nodes.iter().filter(sound).map(|node| node.index).collect()
}

/// Whether the admins want this key in. Where a restored founder may have been the only one to
/// know of a revocation, what it says now counts, as long as all agree with it.
fn is_wanted(world: &World, id: &NodeId) -> bool {
    let model = &world.model;
    let founder = world.nodes[0].mesh.as_ref().filter(|_| model.unsure.contains(id));
    let revoked = founder.map_or(model.revoked.contains(id), |mesh| mesh.roster().is_revoked(id));
    model.admitted_ever.contains(id) && !revoked
}

fn held(mesh: &Mesh) -> BTreeMap<Key, &Entry> {
    let objects = mesh.replica().objects().iter();
    let entries = objects.flat_map(|(object, held)| {
        held.entries().map(|(field, entry)| (Key { object: object.clone(), field: field.clone() }, entry))
    });
    entries.filter(|(_, entry)| !entry.is_tombstone()).collect()
}

fn said(mesh: &Mesh) -> BTreeMap<(Key, ShortId), (Hlc, Bytes)> {
    let entries = mesh.overlay().iter();
    entries.map(|(key, e)| ((key.clone(), e.writer), (e.stamp, e.value.clone()))).collect()
}

/// Whether all replicas are equal and at rest, and nothing from the time of wrong clocks is left.
pub(crate) fn is_equal(world: &World) -> Outcome {
    let members = members(world);
    let fail = |reason: String| Err(Failure::new("replicas become equal", reason));
    let mut first: Option<(&Mesh, BTreeMap<Key, &Entry>)> = None;
    for node in members {
        let Some(mesh) = world.nodes[node].mesh.as_ref() else {
            return fail(format!("n{node} does not run"));
        };
        if !mesh.is_flushed() {
            return fail(format!("n{node} is not flushed"));
        }
        if mesh.is_restoring() {
            return fail(format!("n{node} still waits for a peer's state"));
        }
        if mesh.commits().durable() != mesh.replica().applied() {
            return fail(format!("n{node} applied more than it says is durable"));
        }
        if !world.nodes[node].disk.is_covered_by(mesh.replica().applied()) {
            return fail(format!("n{node} forgot what its disk accounts for"));
        }
        let own = held(mesh);
        let Some((reference, theirs)) = &first else {
            first = Some((mesh, own));
            continue;
        };
        if mesh.roster().hash() != reference.roster().hash() {
            return fail(format!("n0 and n{node} hold different rosters"));
        }
        if mesh.commits().durable() != reference.commits().durable() {
            let a = reference.commits().durable().missing(mesh.commits().durable());
            let b = mesh.commits().durable().missing(reference.commits().durable());
            return fail(format!("n0 lacks {a:?} of n{node}, which lacks {b:?}"));
        }
        if own != *theirs {
            return differ(node, &own, theirs);
        }
        if mesh.replica().tree().root() != reference.replica().tree().root() {
            return fail(format!("n0 and n{node} hold the same in different trees"));
        }
        if is_within_reach(world) {
            let (ours, theirs) = (said(mesh), said(reference));
            if ours != theirs {
                let odd = ours.iter().find(|(key, value)| theirs.get(key) != Some(value));
                let odd = odd.or_else(|| theirs.iter().find(|(key, value)| ours.get(key) != Some(value)));
                return fail(format!("n0 and n{node} hold different overlays: {odd:?}"));
            }
        }
    }
    if is_within_reach(world) {
        the_living_see_each_other(world)?;
    }
    no_values_from_the_future(world)
}

/// Whether no two members are farther from each other than a packet travels.
fn is_within_reach(world: &World) -> bool {
    let members = members(world);
    members.iter().all(|start| {
        let mut reached = BTreeSet::from([*start]);
        for _ in 0..MAX_HOPS {
            let next: Vec<usize> = world
                .edges
                .iter()
                .flat_map(|(a, b)| [(*a, *b), (*b, *a)])
                .filter(|(a, b)| reached.contains(a) && members.contains(b))
                .map(|(_, b)| b)
                .collect();
            reached.extend(next);
        }
        reached.len() == members.len()
    })
}

/// Every member that runs is alive in the eyes of every other, and knows a way to it.
fn the_living_see_each_other(world: &World) -> Outcome {
    let members = members(world);
    for node in &members {
        let Some(mesh) = world.nodes[*node].mesh.as_ref() else { continue };
        let alive: BTreeSet<ShortId> = mesh.alive().into_iter().map(|(short, _)| short).collect();
        let others = || members.iter().filter(|other| *other != node).map(|other| &world.nodes[*other]);
        if let Some(other) = others().find(|other| !alive.contains(&other.short())) {
            let reason = format!("n{node} takes n{} for dead", other.index);
            return Err(Failure::new("the living see each other", reason));
        }
    }
    Ok(())
}

fn differ(node: usize, own: &BTreeMap<Key, &Entry>, theirs: &BTreeMap<Key, &Entry>) -> Outcome {
    let keys = own.keys().chain(theirs.keys());
    let odd = keys.into_iter().find(|key| own.get(*key) != theirs.get(*key));
    let Some(key) = odd else { return Ok(()) };
    let reason = format!("{key:?}: n0 holds {:?}, n{node} holds {:?}", theirs.get(key), own.get(key));
    Err(Failure::new("replicas become equal", reason).on(&key.object))
}

/// Compares what the replicas, equal by now, hold with the reference model.
pub(crate) fn is_right(world: &World) -> Outcome {
    let Some(mesh) = world.nodes[0].mesh.as_ref() else { return Ok(()) };
    members(world).into_iter().try_for_each(|node| oracle::overlay_adds_up(world, node))?;
    let bits = members(world).into_iter().fold(0, |bits, node| bits | 1 << node);
    let expected = world.model.expected(EPOCH_MS + world.now - 1_000, bits);
    for key in world.model.keys().filter(|key| !key.field.is_object()) {
        expected.check(&world.model, key, mesh.replica().entry(key))?;
    }
    let known = |key: &Key| world.model.writes_of(key).next().is_some();
    if let Some((key, entry)) = held(mesh).into_iter().find(|(key, _)| !known(key)) {
        let reason = format!("{key:?}: nobody wrote {entry:?}");
        return Err(Failure::new("nothing from nowhere", reason).on(&key.object));
    }
    changes_took_place(world, bits)?;
    nothing_gives_way_to_the_past(world, bits)?;
    roster_is_right(world)
}

/// Every durable change made in a life that did not crash is on a disk, or was beaten.
fn changes_took_place(world: &World, members: u64) -> Outcome {
    for change in &world.model.changes {
        let sim = &world.nodes[change.node];
        let intact = sim.epoch == change.epoch && members & (1 << change.node) != 0;
        if !intact || change.durability == Durability::Presence {
            continue;
        }
        let object = Key { object: change.key.object.clone(), field: mesh_proto::FieldName::object() };
        let mut all = world.model.writes_of(&change.key).chain(world.model.writes_of(&object));
        if !all.any(|write| write.safe & members != 0 && world.model.keeps(change, &write.key, &write.entry))
        {
            return Err(Failure::new("every change is flushed", format!("{change:?}")).on(&change.key.object));
        }
        if !change.acknowledged {
            return Err(
                Failure::new("every change is answered", format!("{change:?}")).on(&change.key.object)
            );
        }
    }
    Ok(())
}

/// What was acknowledged got a dot, or something later did in its place; and it gives way only to what is later.
fn nothing_gives_way_to_the_past(world: &World, members: u64) -> Outcome {
    let (Some(mesh), model) = (world.nodes[0].mesh.as_ref(), &world.model) else { return Ok(()) };
    for change in model.changes.iter().filter(|c| c.acknowledged && c.durability == Durability::Config) {
        let is_it = |write: &&super::model::Write| write.entry.value == change.value;
        let slot = Key { object: change.key.object.clone(), field: mesh_proto::FieldName::object() };
        let all = || model.writes_of(&change.key).chain(model.writes_of(&slot));
        let keeps = |write: &&super::model::Write| model.keeps(change, &write.key, &write.entry);
        if !all().any(|write| keeps(&write)) {
            let reason =
                format!("{change:?} was acknowledged, and neither it nor anything later ever got a dot");
            return Err(Failure::new("nothing gives way to the past", reason).on(&change.key.object));
        }
        let mut writes = model.writes_of(&change.key).filter(is_it).peekable();
        let is_safe =
            |write: &super::model::Write| write.safe & members != 0 && !model.was_handed_out(write.entry.dot);
        // Nobody adds back for a node that was set back what it says of itself.
        let own = model.is_of_one_set_back(&change.key);
        // Without a write of its own it is in what took its place.
        let safe =
            if writes.peek().is_some() { writes.all(is_safe) } else { all().filter(keeps).any(is_safe) };
        if own || change.value.is_none() || !safe {
            continue;
        }
        let is_later = |other: &Change| model.is_later(other, change);
        let shown = mesh.replica().entry(&change.key).and_then(|entry| entry.value.as_deref());
        let excused = match shown {
            Some(value) => model.change_to(value).is_some_and(is_later),
            None => model.deletions(&change.key).chain(model.deletions(&slot)).any(is_later),
        };
        if !excused {
            let reason = format!("{change:?} gave way to {shown:?}");
            return Err(Failure::new("nothing gives way to the past", reason).on(&change.key.object));
        }
    }
    Ok(())
}

/// Nobody is a member of any node's household whom no admin admitted.
pub(crate) fn only_admins_admit(world: &World, node: usize) -> Outcome {
    let Some(mesh) = world.nodes[node].mesh.as_ref() else { return Ok(()) };
    match mesh.roster().members().find(|member| !world.model.admitted_ever.contains(&member.id)) {
        Some(member) => {
            let reason = format!("n{node}: {:?} is a member, which no admin wanted", member.id);
            Err(Failure::new("only admins admit", reason))
        }
        None => Ok(()),
    }
}

fn roster_is_right(world: &World) -> Outcome {
    let Some(mesh) = world.nodes[0].mesh.as_ref() else { return Ok(()) };
    for member in mesh.roster().members() {
        if !is_wanted(world, &member.id) {
            let reason = format!("{:?} is a member, which no admin wanted", member.id);
            return Err(Failure::new("only admins admit", reason));
        }
    }
    for node in &world.nodes {
        if is_wanted(world, &node.id) && !mesh.roster().is_admitted(&node.id) {
            return Err(Failure::new("the admitted stay in", format!("n{} is out", node.index)));
        }
    }
    Ok(())
}

fn no_values_from_the_future(world: &World) -> Outcome {
    for node in members(world) {
        let Some(mesh) = world.nodes[node].mesh.as_ref() else { continue };
        let until = EPOCH_MS + world.now + MAX_AHEAD_MS;
        if let Some((key, entry)) = held(mesh).into_iter().find(|(_, entry)| entry.stamp.ms() > until) {
            let reason = format!("n{node} shows {key:?} {entry:?} after all clocks are right");
            return Err(Failure::new("nothing from the future", reason).on(&key.object));
        }
    }
    Ok(())
}

/// In a calm network everything arrives by push: no exchange was needed, nothing is missing.
pub(crate) fn push_was_enough(world: &World) -> Outcome {
    let fetches =
        world.nodes.iter().filter_map(|n| n.mesh.as_ref()).map(|m| m.counters().get(Counter::Fetches));
    let fetches = fetches.sum::<u64>() + world.past_fetches;
    if fetches > 0 {
        return Err(Failure::new("push is enough", format!("{fetches} exchanges in a calm network")));
    }
    is_equal(world).map_err(|failure| Failure { oracle: "push is enough", ..failure })
}

/// Tombstones older than two minutes are gone when all nodes have been there all the time.
pub(crate) fn tombstones_are_gone(world: &World, since: u64) -> Outcome {
    for node in members(world) {
        let Some(mesh) = world.nodes[node].mesh.as_ref() else { continue };
        let old = mesh.replica().tombstones().find(|(_, entry)| entry.stamp.ms() < EPOCH_MS + since);
        if let Some((key, entry)) = old {
            let held = mesh.held_back_by();
            let reason = format!("n{node} keeps {key:?} {entry:?}, held back by {held:?}");
            return Err(Failure::new("tombstones go", reason).on(&key.object));
        }
    }
    Ok(())
}
