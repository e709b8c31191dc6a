//! What must hold at every moment, judged from outside the machine.

use mesh_proto::{
    Hlc, Key,
    counters::Counter,
    hlc::MAX_AHEAD_MS,
    kinds::Durability,
    liveness::MAX_LIVENESS_PACKET_BYTES,
    mesh::{Event, WriteError},
    overlay,
    record::{self, Item, Record},
    vector::Vector,
    wire::{self, Message},
};

use super::{
    Failure,
    model::Change,
    node::{Heard, SimNode},
    world::World,
};

/// Control messages that wait for one link while nobody means ill, in bytes.
const QUIET_CONTROL_BYTES: usize = 1024 * 1024;
/// The least that an entry of a queue or of the overlay can weigh, in bytes.
const LEAST_ENTRY_BYTES: usize = 96;

type Outcome = Result<(), Failure>;

/// After every call into a machine: what changed must be fit to be seen.
pub(crate) fn after_each(world: &mut World, node: usize) -> Outcome {
    if std::mem::take(&mut world.nodes[node].heard_news) {
        dead_writers(world, node)?;
    }
    keep_time(&mut world.nodes[node], world.now);
    let Some(mesh) = world.nodes[node].mesh.as_mut() else { return Ok(()) };
    let changed = mesh.take_changed(usize::MAX);
    for object in changed {
        let Some(mesh) = world.nodes[node].mesh.as_ref() else { return Ok(()) };
        let Some(view) = mesh.object(&object) else { continue };
        let tombstone =
            mesh.replica().object(&object).and_then(|held| held.tombstone()).map_or(Hlc::ZERO, |t| t.stamp);
        let time = mesh.time().time_ms(world.nodes[node].now(world.now));
        let in_time = world.nodes[node].in_time;
        // When a clock went back nobody looked just before.
        let until = MAX_AHEAD_MS + if in_time > time { in_time + 1_000 } else { time };
        for (field, shown) in view.fields {
            let key = Key { object: object.clone(), field };
            if shown.stamp <= tombstone {
                let reason = format!("n{node} shows {key:?} of {:?} under {tombstone:?}", shown.stamp);
                return Err(Failure::new("nothing below a tombstone", reason).on(&object));
            }
            let news = world.nodes[node].seen.insert(key.clone(), shown.stamp) != Some(shown.stamp);
            let own = shown.writer == world.nodes[node].short();
            if news && shown.stamp.ms() > until && !own {
                let reason =
                    format!("n{node} at {time}, before at {in_time}, shows {key:?} of {:?}", shown.stamp);
                return Err(Failure::new("nothing from the future", reason).on(&object));
            }
            if !shown.durable {
                no_dead_writer(world, node, &key)?;
            }
        }
    }
    Ok(())
}

/// After a clock went back, what took effect before may lie in the future. That is so no longer once neither the stamps
/// nor the overlay run ahead; of the disk not before it was written since.
fn keep_time(sim: &mut SimNode, now: u64) {
    let Some(mesh) = sim.mesh.as_ref() else { return };
    let (time, me) = (mesh.time().time_ms(sim.now(now)), sim.short());
    let is_ahead = |stamp: Hlc| stamp.ms() > time + MAX_AHEAD_MS;
    let is_left = time < sim.in_time
        && (is_ahead(mesh.time().last())
            || mesh.overlay().iter().any(|(_, entry)| entry.writer != me && is_ahead(entry.stamp)));
    if !is_left {
        sim.in_time = time;
    }
    if sim.in_time >= sim.disk.in_time || mesh.is_flushed() {
        sim.disk.in_time = sim.in_time;
    }
}

/// No overlay entry of a writer that this node was told is down.
fn no_dead_writer(world: &World, node: usize, key: &Key) -> Outcome {
    let Some(mesh) = world.nodes[node].mesh.as_ref() else { return Ok(()) };
    for sim in &world.nodes {
        let Some(entry) = mesh.overlay().of_writer(key, sim.short()) else { continue };
        let over = match world.nodes[node].heard.get(&sim.short()) {
            Some(Heard::Down(incarnation)) => entry.run.incarnation <= *incarnation,
            Some(Heard::Up(incarnation)) => entry.run.incarnation < *incarnation,
            None => false,
        };
        if over && sim.index != node {
            let heard = world.nodes[node].heard.get(&sim.short());
            let reason = format!("n{node} heard {heard:?} of n{} and keeps {key:?} {entry:?}", sim.index);
            return Err(Failure::new("the overlay dies with its writer", reason).on(&key.object));
        }
    }
    Ok(())
}

/// What a machine told its caller.
pub(crate) fn told(world: &mut World, node: usize, event: &Event) -> Outcome {
    match event {
        Event::Written(token) => acknowledged(world, node, token.0),
        Event::NodeUp(writer, incarnation) => {
            world.nodes[node].heard.insert(*writer, Heard::Up(*incarnation));
            world.nodes[node].heard_news = true;
            Ok(())
        }
        Event::NodeDown(writer, incarnation) => {
            world.nodes[node].heard.insert(*writer, Heard::Down(*incarnation));
            world.nodes[node].heard_news = true;
            Ok(())
        }
        Event::Linked(_, peer) => {
            world.nodes[node].heard.remove(&peer.short());
            Ok(())
        }
        Event::Offence(peer, counter) => offence(world, node, *peer, *counter),
        _ => Ok(()),
    }
}

/// Honest nodes over a transport that keeps order never offend each other.
fn offence(world: &World, node: usize, peer: mesh_proto::NodeId, counter: Counter) -> Outcome {
    let hostile = world.nodes.iter().any(|sim| sim.id == peer && sim.hostile) || world.settings.hostile;
    let timing = matches!(
        counter,
        Counter::BeforeHello
            | Counter::OverlayAhead
            | Counter::BadOverlay
            | Counter::NotAdmitted
            | Counter::Revoked
            | Counter::BadPacket
            | Counter::BadRelayed
            | Counter::RelayStranger
    );
    if world.net.transport.ordered && !hostile && !timing && !world.settings.roster {
        let reason = format!("n{node} accuses {peer:?} of {counter:?}");
        return Err(Failure::new("honest nodes do not offend", reason));
    }
    Ok(())
}

fn dead_writers(world: &World, node: usize) -> Outcome {
    let Some(mesh) = world.nodes[node].mesh.as_ref() else { return Ok(()) };
    let keys: Vec<Key> = mesh.overlay().iter().map(|(key, _)| key.clone()).collect();
    keys.iter().try_for_each(|key| no_dead_writer(world, node, key))
}

/// An acknowledged `config` write is on the disk, or beaten by what is.
fn acknowledged(world: &mut World, node: usize, token: u64) -> Outcome {
    let epoch = world.nodes[node].epoch;
    let is_asked = |change: &Change| (change.node, change.epoch, change.token) == (node, epoch, token);
    for change in world.model.changes.iter_mut().rev().take(4_096) {
        change.acknowledged |= is_asked(change);
    }
    let (model, disk) = (&world.model, &world.nodes[node].disk);
    for change in model.changes.iter().rev().take(4_096) {
        if !is_asked(change) || change.durability != Durability::Config {
            continue;
        }
        let object = Key { object: change.key.object.clone(), field: mesh_proto::FieldName::object() };
        let entry_of = |key: &Key| match disk.record(&record::register_name(key)) {
            Some(Record::Register(_, entry)) => Some((key.clone(), entry)),
            _ => None,
        };
        let durable = [entry_of(&change.key), entry_of(&object)];
        if !durable.iter().flatten().any(|(key, entry)| model.keeps(change, key, entry)) {
            let reason = format!("n{node} acknowledged {change:?}, its disk holds {durable:?}");
            return Err(Failure::new("flushed, then acknowledged", reason).on(&change.key.object));
        }
    }
    Ok(())
}

/// A packet fits a datagram, also in an envelope.
pub(crate) fn packet_sent(node: usize, bytes: &[u8]) -> Outcome {
    if bytes.len() > MAX_LIVENESS_PACKET_BYTES {
        let reason = format!("n{node} sent a packet of {} bytes", bytes.len());
        return Err(Failure::new("packets are bounded", reason));
    }
    Ok(())
}

/// Judges every frame that a machine sends.
pub(crate) fn frame_sent(world: &mut World, node: usize, bytes: &[u8]) -> Outcome {
    if bytes.len() > wire::MAX_FRAME_BYTES {
        return Err(Failure::new("frames are bounded", format!("n{node} sent {} bytes", bytes.len())));
    }
    let Ok((messages, _)) = wire::decode(bytes) else {
        return Err(Failure::new("frames read back", format!("n{node} sent what is no frame")));
    };
    for message in &messages {
        match message {
            Message::Push(items) => {
                pushed(world, node, items)?;
            }
            Message::Page { items, .. } | Message::TreeItems(items) => sent_items(world, node, items)?,
            Message::Heads(vector) | Message::Final { vector, .. } => {
                claimed(world, node, &Vector::from_wire(vector))?;
            }
            Message::Reports(reports) => {
                let own = world.nodes[node].short();
                for report in reports.iter().filter(|report| report.node == own) {
                    claimed(world, node, &Vector::from_wire(&report.durable))?;
                }
            }
            _ => {}
        }
    }
    bounded(world, node)
}

fn sent_items(world: &mut World, node: usize, items: &[Item]) -> Outcome {
    let own = world.nodes[node].short();
    for item in items {
        world.model.saw(&item.key, &item.entry)?;
        let dot = item.entry.dot;
        // What an earlier life wrote may come back from peers, and is passed on like theirs.
        let current = world.nodes[node]
            .mesh
            .as_ref()
            .is_some_and(|mesh| mesh.run().generation == dot.origin.generation);
        if dot.origin.node == own && current && !world.nodes[node].disk.contains(dot) {
            let reason = format!("n{node} sent {dot:?} of {:?}, which is not on its disk", item.key);
            return Err(Failure::new("flushed, then sent", reason).on(&item.key.object));
        }
    }
    Ok(())
}

fn pushed(world: &mut World, node: usize, items: &[Item]) -> Outcome {
    sent_items(world, node, items)?;
    let most = 8 + 4 * world.net.created;
    for item in items {
        let Some(write) = world.model.writes.get_mut(&item.entry.dot) else { continue };
        write.pushes += 1;
        // Each dot of `covers` may push the same value once more.
        let covered = world.settings.coalescing_bound;
        if write.pushes > most * covered {
            let reason = format!("{:?} of {:?} was pushed {} times", item.entry.dot, item.key, write.pushes);
            return Err(Failure::new("no forwarding storm", reason).on(&item.key.object));
        }
    }
    Ok(())
}

/// A node tells others only of what is on its disk.
fn claimed(world: &World, node: usize, vector: &Vector) -> Outcome {
    if let Some(dot) = world.nodes[node].disk.lacks(vector) {
        let reason = format!("n{node} claims {dot:?}, which is not on its disk");
        return Err(Failure::new("flushed, then advertised", reason));
    }
    Ok(())
}

fn bounded(world: &World, node: usize) -> Outcome {
    let Some(mesh) = world.nodes[node].mesh.as_ref() else { return Ok(()) };
    let limits = &world.settings.limits;
    for (id, link) in mesh.links() {
        let (bytes, entries) = (link.outbox.bytes(), link.outbox.len());
        // Not by the queue's own sum alone: it may be wrong.
        if bytes.max(entries * LEAST_ENTRY_BYTES) > limits.queue_bytes {
            let reason = format!("n{node} holds {bytes} bytes, {entries} entries, for {id:?}");
            return Err(Failure::new("queues are bounded", reason));
        }
        // What honest peers cause: an answer's window, the roster, and little else.
        if link.outbox.control_bytes() > QUIET_CONTROL_BYTES || link.reports.len() > world.nodes.len() {
            let reason = format!("n{node} holds {} control bytes for {id:?}", link.outbox.control_bytes());
            return Err(Failure::new("queues are bounded", reason));
        }
    }
    if mesh.overlay().len() > world.model.said.len() {
        let reason = format!(
            "n{node}: {} entries of the overlay, {} were ever said",
            mesh.overlay().len(),
            world.model.said.len()
        );
        return Err(Failure::new("tables are bounded", reason));
    }
    let held = mesh.overlay();
    let is_too_much = |sim: &SimNode| held.bytes_of(sim.short()) > limits.overlay_share_bytes;
    let least = held.len() * LEAST_ENTRY_BYTES;
    if held.bytes().max(least) > limits.overlay_bytes || world.nodes.iter().any(is_too_much) {
        let reason = format!("n{node}: the overlay holds {} bytes, {} entries", held.bytes(), held.len());
        return Err(Failure::new("tables are bounded", reason));
    }
    // A clock that was corrected leaves writes behind that are held back without being counted.
    let was_corrected = world.model.corrections.contains_key(&node);
    let most = mesh.replica().held_back_by_node().values().max().copied().unwrap_or(0);
    if most > limits.held_back && !was_corrected {
        let reason = format!("n{node} holds back {most} writes of one node");
        return Err(Failure::new("tables are bounded", reason));
    }
    let writes = world.model.writes.len();
    if mesh.replica().quarantined() > writes || mesh.replica().len() > writes {
        return Err(Failure::new("tables are bounded", format!("n{node} holds more than was ever written")));
    }
    Ok(())
}

/// What the overlay says that it holds is what it holds.
pub(crate) fn overlay_adds_up(world: &World, node: usize) -> Outcome {
    let Some(mesh) = world.nodes[node].mesh.as_ref() else { return Ok(()) };
    let counted: usize = mesh.overlay().iter().map(|(key, entry)| overlay::weigh(key, entry)).sum();
    if counted != mesh.overlay().bytes() {
        let reason =
            format!("n{node}: {counted} bytes in the overlay, {} by its sum", mesh.overlay().bytes());
        return Err(Failure::new("tables are bounded", reason));
    }
    Ok(())
}

/// A refusal is in order only where there is a reason for it.
pub(crate) fn refused(node: usize, error: &WriteError) -> Outcome {
    match error {
        WriteError::Overloaded => Ok(()),
        other => Err(Failure::new("fair writes are taken", format!("n{node}: {other}"))),
    }
}
