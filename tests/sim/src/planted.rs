//! Proof that the simulation catches bugs: each planted one, within a stated number of seeds.

use std::{collections::BTreeSet, time::Instant};

use mesh_proto::planted::{Plant, Planted};

use super::{
    cli::replay,
    run::run,
    scenario::{Settings, named},
};

/// How a bug is to be caught.
struct Plan {
    scenario: &'static str,
    /// Within so many seeds: so many that chance alone, by how often seeds show the bug, misses it once in a thousand
    /// times when the course of the runs changes.
    limit: u64,
    /// The law that it breaks; whatever else fails first in a seed does not count.
    law: &'static str,
}

fn plan(bug: Planted) -> Plan {
    let (scenario, limit, law) = match bug {
        Planted::AdvertiseBeforeFlush => ("crash", 3, "flushed, then advertised"),
        Planted::SequenceReused => ("restore", 15, "no dot twice"),
        Planted::RangeCompletedEarly => ("lossy", 40, "replicas become equal"),
        Planted::TombstoneCollectedEarly => ("collect", 80, "the deleted stays deleted"),
        Planted::StampNotCompared => ("partition", 5, "nothing below a tombstone"),
        Planted::OverlayOutlivesWriter => ("overlay", 5, "the overlay dies with its writer"),
        Planted::CoversForgotten => ("calm", 5, "push is enough"),
        Planted::GenerationNotBumped => ("rewind", 10, "no dot twice"),
        Planted::QuarantineIgnored => ("clocks", 15, "nothing from the future"),
        Planted::RestoredStoreMerged => ("backup", 20, "replicas become equal"),
        Planted::RosterUnchained => ("roster", 5, "only admins admit"),
        Planted::ForwardLoop => ("ring", 3, "no forwarding storm"),
    };
    Plan { scenario, limit, law }
}

/// Runs all, or the one that is named. Returns the exit code.
pub(super) fn main(only: Option<&str>) -> u8 {
    let (mut passed, mut failed) = (0, 0);
    println!("{:<24} {:<10} {:>6} {:>7}  law that it broke", "bug", "scenario", "limit", "caught");
    for bug in Planted::ALL {
        let name = format!("{bug:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let began = Instant::now();
        let Plan { scenario, limit, law } = plan(bug);
        let verdict = named(scenario)
            .ok_or_else(|| format!("no scenario {scenario}"))
            .and_then(|s| hunt(bug, &s, limit, law));
        match verdict {
            Ok(seed) => {
                passed += 1;
                println!(
                    "{name:<24} {scenario:<10} {limit:>6} {seed:>7}  {law} ({} ms)",
                    began.elapsed().as_millis()
                );
            }
            Err(why) => {
                failed += 1;
                println!("{name:<24} {scenario:<10} {limit:>6} {:>7}  {why}", "NO");
            }
        }
    }
    println!("sim planted: {passed} passed, {failed} failed");
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed");
    u8::from(failed > 0)
}

/// Looks for a seed that passes without the bug and breaks the law with it.
fn hunt(bug: Planted, settings: &Settings, limit: u64, law: &str) -> Result<u64, String> {
    let mut others = BTreeSet::new();
    for seed in 0..limit {
        let sound = run(seed, settings, Plant::default(), false);
        if let Err(failure) = sound.outcome {
            let replay = replay(seed, settings, None);
            let (law, reason) = (failure.oracle, failure.reason);
            return Err(format!("seed {seed} fails without the bug: {law}: {reason}\n{replay}"));
        }
        let planted = run(seed, settings, Plant { bug: Some(bug) }, false);
        match planted.outcome {
            Err(failure) if failure.oracle == law => return Ok(seed),
            Err(failure) => drop(others.insert(failure.oracle)),
            Ok(()) => {}
        }
    }
    Err(format!("does not break `{law}` in {limit} seeds; it breaks {others:?}"))
}
