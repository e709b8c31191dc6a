//! One run: set up, faults, healing, judgement.

use mesh_proto::planted::Plant;

use super::{
    Failure,
    net::Transport,
    panics, quiet,
    scenario::{Action, Settings, Topology},
    setup,
    tight::Met,
    trace::Trace,
    world::{Happening, World},
};

/// Virtual time in which a healed household must be equal, in milliseconds.
const PATIENCE_MS: u64 = 240_000;
/// Virtual time in which tombstones must be gone after that, in milliseconds.
const COLLECT_MS: u64 = 180_000;

/// What a run came to.
pub(crate) struct Report {
    pub(crate) outcome: Result<(), Failure>,
    pub(crate) trace: Trace,
    pub(crate) nodes: usize,
    pub(crate) writes: usize,
    pub(crate) events: u64,
    /// Virtual milliseconds from healing to equality.
    pub(crate) settled: u64,
    /// How often limits were met.
    pub(crate) met: Met,
}

/// Runs one seed of one scenario.
pub(crate) fn run(seed: u64, settings: &Settings, plant: Plant, readable: bool) -> Report {
    run_by(seed, settings, plant, readable, drive)
}

fn run_by(
    seed: u64,
    settings: &Settings,
    plant: Plant,
    readable: bool,
    drive: impl FnOnce(&mut World, u64, &mut u64) -> Result<(), Failure>,
) -> Report {
    let mut world = World::new(seed, settings.clone(), plant, Trace::new(readable));
    let mut settled = 0;
    let outcome = panics::caught(readable, || drive(&mut world, seed, &mut settled))
        .map_err(|failure| if failure.at == 0 { failure.at(world.now) } else { failure });
    let mut met = world.past_met;
    world.nodes.iter().filter_map(|node| node.mesh.as_ref()).for_each(|mesh| met.add(mesh.counters()));
    Report {
        outcome,
        nodes: world.nodes.len(),
        writes: world.model.writes.len(),
        events: world.events,
        trace: world.trace,
        settled,
        met,
    }
}

fn drive(world: &mut World, seed: u64, settled: &mut u64) -> Result<(), Failure> {
    setup::found(world, seed)?;
    world.run_until(world.settings.duration)?;
    if world.settings.push_only {
        quiet::push_was_enough(world)?;
    }
    mend(world)?;
    let healed_at = world.now;
    let mut calm = 0;
    loop {
        world.run_until(world.now + 500)?;
        match quiet::is_equal(world) {
            // Equal for a while, not just in passing.
            Ok(()) if calm >= 4 => break,
            Ok(()) => calm += 1,
            Err(failure) if world.now > healed_at + PATIENCE_MS => return Err(failure),
            Err(_) => calm = 0,
        }
    }
    *settled = world.now - healed_at;
    quiet::is_right(world)?;
    if world.settings.collect {
        world.run_until(world.now + COLLECT_MS)?;
        quiet::is_equal(world)?;
        quiet::is_right(world)?;
        quiet::tombstones_are_gone(world, healed_at)?;
    }
    Ok(())
}

/// Ends all faults: nodes run, clocks are right, the network is a healthy LAN.
fn mend(world: &mut World) -> Result<(), Failure> {
    world.healed = true;
    world.net.transport = Transport::calm();
    world.heal()?;
    for node in 0..world.nodes.len() {
        world.fix_clock(node)?;
        world.after(1 + node as u64, Happening::Do(Action::Start(node)));
    }
    let members = quiet::members(world);
    let gone = members.len() < world.nodes.len();
    if gone && world.settings.topology != Topology::Full {
        world.edges = members
            .iter()
            .flat_map(|a| members.iter().filter(move |b| a < *b).map(move |b| (*a, *b)))
            .collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_panic_in_the_middle_of_a_run_is_reported_with_its_time() {
        let settings = scenario::named("basic").unwrap();
        let report = run_by(7, &settings, Plant::default(), false, |world, seed, _| {
            setup::found(world, seed)?;
            world.run_until(1_500)?;
            panic!("the books are wrong")
        });
        let failure = report.outcome.unwrap_err();
        assert_eq!((failure.oracle, failure.at), (panics::LAW, 1_500));
        assert!(failure.reason.contains("the books are wrong"), "{}", failure.reason);
        assert!(report.nodes >= 3 && report.events > 0);
    }
}
