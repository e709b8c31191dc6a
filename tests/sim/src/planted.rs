//! Proof that the simulation catches bugs: each planted one, within a stated number of seeds.

use std::time::Instant;

use mesh_proto::planted::{Plant, Planted};

use super::{
    run::run,
    scenario::{Settings, named},
};

/// The scenario in which each bug is to be caught, and within how many seeds.
fn plan(bug: Planted) -> (&'static str, u64) {
    match bug {
        Planted::AdvertiseBeforeFlush => ("crash", 3),
        Planted::SequenceReused => ("crash", 5),
        Planted::RangeCompletedEarly => ("lossy", 20),
        Planted::TombstoneCollectedEarly => ("collect", 20),
        Planted::StampNotCompared => ("partition", 5),
        Planted::OverlayOutlivesWriter => ("overlay", 5),
        Planted::CoversForgotten => ("calm", 5),
        Planted::GenerationNotBumped => ("rewind", 10),
        Planted::QuarantineIgnored => ("clocks", 5),
        Planted::RestoredStoreMerged => ("backup", 20),
        Planted::RosterUnchained => ("roster", 5),
        Planted::ForwardLoop => ("ring", 3),
    }
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
        let (scenario, limit) = plan(bug);
        let verdict = named(scenario)
            .ok_or_else(|| format!("no scenario {scenario}"))
            .and_then(|s| hunt(bug, &s, limit));
        match verdict {
            Ok((seed, law)) => {
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

/// Looks for a seed that passes without the bug and fails with it.
fn hunt(bug: Planted, settings: &Settings, limit: u64) -> Result<(u64, String), String> {
    for seed in 0..limit {
        let sound = run(seed, settings, Plant::default(), false);
        if let Err(failure) = sound.outcome {
            return Err(format!("seed {seed} fails without the bug: {}: {}", failure.oracle, failure.reason));
        }
        let planted = run(seed, settings, Plant { bug: Some(bug) }, false);
        if let Err(failure) = planted.outcome {
            return Ok((seed, failure.oracle.into()));
        }
    }
    Err(format!("not caught in {limit} seeds"))
}
