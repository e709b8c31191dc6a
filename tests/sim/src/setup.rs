//! The household at its start: keys, roster, links.

use mesh_proto::roster::{Body, NodeName, Roles, Roster};

use super::{
    Failure,
    node::SimNode,
    rng::Rng,
    scenario::{Action, Topology},
    world::{Happening, World},
};

/// From here on a household is a large one.
const CROWD: u64 = 10;
/// How many of the seeds have a large one, in percent.
const CROWDED_PERCENT: u64 = 10;

/// Builds the nodes, admits them, starts them, and plans what will be done to them.
pub(crate) fn found(world: &mut World, seed: u64) -> Result<(), Failure> {
    let count = usize::try_from(size(world, seed)).unwrap_or(3);
    let spare = usize::try_from(world.settings.spare).unwrap_or(0);
    world.nodes = (0..count + spare).map(|index| SimNode::new(index, seed)).collect();
    let root = SimNode::new(usize::MAX, seed).key;
    let founder = world.nodes[0].id;
    let wrong =
        |error: mesh_proto::roster::RosterError| Failure::new("a household is founded", error.to_string());
    let mut roster = Roster::found(&root, founder, "founder", None).map_err(wrong)?;
    for index in 1..count {
        let roles = if index == 1 { Roles::MEMBER | Roles::ADMIN } else { Roles::MEMBER };
        let name = NodeName::new("board").map_err(wrong)?;
        let body = Body::Admit { node: world.nodes[index].id, roles, name, token: None };
        roster.issue(&world.nodes[0].key, body).map_err(wrong)?;
    }
    let bytes = roster.to_bytes();
    for index in 0..count + spare {
        world.nodes[index].disk.roster.clone_from(&bytes);
        world.nodes[index].enrolled = index < count;
        if index < count {
            let id = world.nodes[index].id;
            world.model.admitted_ever.insert(id);
        }
    }
    if world.settings.hostile {
        world.nodes[1].hostile = true;
    }
    world.edges = edges(world, count + spare);
    set_clocks(world);
    for index in 0..count {
        let after = world.rng.below(200);
        world.after(after, Happening::Do(Action::Start(index)));
    }
    plan(world);
    Ok(())
}

/// How many nodes there are at the start: few, and in one seed of ten many, who then write less often each.
fn size(world: &mut World, seed: u64) -> u64 {
    let few = world.rng.between(world.settings.nodes);
    let most = world.settings.crowd;
    // A stream of its own: where there are few, all else is as if there were never many.
    let mut rng = Rng::new(seed ^ 0x0063_726f_7764);
    if most < CROWD || !rng.percent(CROWDED_PERCENT) {
        return few;
    }
    // More often fewer: the work grows with the square.
    let below = rng.between((CROWD, most));
    let many = rng.between((CROWD, below));
    let (low, high) = world.settings.write_every;
    world.settings.write_every = (low * many / 6, high * many / 6);
    many
}

fn edges(world: &mut World, count: usize) -> Vec<(usize, usize)> {
    let all = || (0..count).flat_map(move |a| (a + 1..count).map(move |b| (a, b)));
    match world.settings.topology {
        Topology::Full => all().collect(),
        Topology::Line => (1..count).map(|b| (b - 1, b)).collect(),
        Topology::Ring => (0..count).map(|a| (a.min((a + 1) % count), a.max((a + 1) % count))).collect(),
        Topology::Star => (1..count).map(|b| (0, b)).collect(),
        Topology::TwoSites => all().filter(|(a, b)| *a == 0 || (a % 2) == (b % 2)).collect(),
        Topology::Random => {
            let mut edges: Vec<(usize, usize)> = (1..count).map(|b| (world.rng.index(b), b)).collect();
            let more: Vec<(usize, usize)> = all().filter(|_| world.rng.percent(25)).collect();
            edges.extend(more);
            edges.sort_unstable();
            edges.dedup();
            edges
        }
    }
}

/// Sound clocks are a little off.
fn set_clocks(world: &mut World) {
    for index in 0..world.nodes.len() {
        let off = i64::try_from(world.rng.below(400)).unwrap_or(0) - 200;
        let drift = i64::try_from(world.rng.below(100)).unwrap_or(0) - 50;
        world.nodes[index].wall.offset_ms = off;
        world.nodes[index].wall.drift_ppm = drift;
    }
}

fn plan(world: &mut World) {
    let s = world.settings.clone();
    let periodic = [
        (s.crash_every, Action::Crash),
        (s.stop_every, Action::CleanStop),
        (s.partition_every, Action::Partition),
        (s.one_way_every, Action::OneWay),
        (s.flap_every, Action::Flap),
        (s.clock_every, Action::ClockStep),
        (s.restore_every, Action::Restore),
        (s.restore_every / 2, Action::Backup),
        (s.rewind_every, Action::Rewind),
        (s.rewind_every / 2, Action::Backup),
        (s.roster_every, Action::Admit),
        (s.roster_every, Action::Revoke),
        (s.hostile_every, Action::Hostile),
        (s.destroy_at, Action::Destroy),
    ];
    for (period, action) in periodic.into_iter().filter(|(period, _)| *period > 0) {
        let after = 1_500 + world.rng.between((period / 2, period));
        world.after(after, Happening::Do(action));
    }
    if s.old_backup || s.old_image {
        let early = world.rng.between((15_000, 25_000));
        world.after(early, Happening::Do(Action::Backup));
        let late = if s.old_backup { Action::Restore } else { Action::Rewind };
        world.after(s.duration - 15_000, Happening::Do(late));
    }
    world.after(210, Happening::Do(Action::Dial));
    world.after(2_000, Happening::Do(Action::Write));
}
