//! Limits so small that they are met: what a household does when its queues and tables are full.

use std::iter;

use mesh_proto::{
    counters::{Counter, Counters},
    limits::Limits,
};

use super::{
    net::Transport,
    scenario::{self, Settings},
};

/// The scenario's name.
const NAME: &str = "tight";
/// So many runs of the scenario must meet its limits at least once; a seed that is looked at by itself need not.
const ENOUGH_RUNS: usize = 3;

/// Links that stall and end, right and wrong clocks, and little room for what waits meanwhile.
pub(crate) fn scenario() -> Settings {
    Settings {
        limits: Limits {
            queue_bytes: 2_048,
            overlay_bytes: 12_000,
            overlay_share_bytes: 3_000,
            held_back: 8,
        },
        nodes: (3, 5),
        transport: Transport { window: 4, ..scenario::wifi() },
        partition_every: 4_000,
        one_way_every: 4_000,
        flap_every: 7_000,
        clock_every: 7_000,
        large: 0,
        write_every: (1, 30),
        duration: 25_000,
        ..Settings::base(NAME, "queues and tables with room for a few entries, and links that stall")
    }
}

/// How often limits were met.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Met {
    pub(crate) queues: u64,
    pub(crate) overlay: u64,
    pub(crate) held_back: u64,
}

impl Met {
    /// Adds what a machine counted in its life.
    pub(crate) fn add(&mut self, counters: &Counters) {
        self.queues += counters.get(Counter::QueuesOverflowed);
        self.overlay += counters.get(Counter::OverlayFull);
        self.held_back += counters.get(Counter::QuarantineFull);
    }
}

/// What the runs of the scenario met, all together: laws about what is full hold of nothing if nothing ever is.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    runs: usize,
    met: Met,
}

impl Tally {
    /// Adds a run.
    pub(crate) fn add(&mut self, settings: &Settings, met: Met) {
        if settings.name == NAME {
            self.runs += 1;
            self.met.queues += met.queues;
            self.met.overlay += met.overlay;
            self.met.held_back += met.held_back;
        }
    }

    /// What all these runs never met, in words.
    pub(crate) fn complaint(&self) -> Option<String> {
        let counts = [
            (self.met.queues, "no queue overflowed"),
            (self.met.overlay, "no overlay was full"),
            (self.met.held_back, "no write was dropped for want of room among those held back"),
        ];
        let missing: Vec<&str> =
            counts.into_iter().filter(|(count, _)| *count == 0).map(|(_, words)| words).collect();
        let is_judged = self.runs >= ENOUGH_RUNS && !missing.is_empty();
        let runs = iter::once(format!("{} runs of `{NAME}`", self.runs));
        let words = runs.chain(missing.into_iter().map(str::to_owned)).collect::<Vec<_>>();
        is_judged.then(|| format!("{}: the bounds were not put to the proof", words.join(", ")))
    }

    /// The counts, for people.
    pub(crate) fn summary(&self) -> Option<String> {
        let Met { queues, overlay, held_back } = self.met;
        (self.runs > 0).then(|| {
            format!(
                "sim: {} runs of `{NAME}`: {queues} queues overflowed, {overlay} overlay entries refused, \
                 {held_back} held-back writes dropped",
                self.runs
            )
        })
    }
}
