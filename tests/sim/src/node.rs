//! A simulated node: the real machine, its disk and its clocks.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use mesh_proto::{
    Hlc, Key, NodeId, ShortId,
    limits::Limits,
    mesh::{Boot, Mesh, next_run},
    overlay::Run,
    planted::Plant,
    roster::Roster,
    time::Now,
};

use super::disk::Disk;

/// The true time at the start of every run, in milliseconds since 1970.
pub(crate) const EPOCH_MS: u64 = 1_790_000_000_000;
/// When the simulated software was built.
const BUILD_MS: u64 = EPOCH_MS - 30 * 86_400_000;

/// A wall clock that may be wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WallClock {
    /// How far it is ahead of the truth, in milliseconds.
    pub(crate) offset_ms: i64,
    /// How much faster than the truth it runs, in parts per million.
    pub(crate) drift_ppm: i64,
    /// Whether the node knows it to be right.
    pub(crate) synchronised: bool,
}

impl WallClock {
    fn read(&self, now: u64) -> u64 {
        let drift = i64::try_from(now).unwrap_or(0) * self.drift_ppm / 1_000_000;
        (EPOCH_MS + now).saturating_add_signed(self.offset_ms + drift)
    }
}

/// What a node was last told of another's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Up(u64),
    Down(u64),
}

/// A node.
pub(crate) struct SimNode {
    pub(crate) index: usize,
    pub(crate) key: SigningKey,
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    /// Running, if there is one.
    pub(crate) mesh: Option<Mesh>,
    /// Rises with every start and stop: what was meant for an earlier life is dropped.
    pub(crate) epoch: u32,
    started_at: u64,
    mono_base: u64,
    pub(crate) wall: WallClock,
    /// When it is to be woken, and the number of that wake.
    pub(crate) wake: Option<(u64, u64)>,
    pub(crate) links: BTreeSet<u64>,
    /// Gone for good, with its disk.
    pub(crate) destroyed: bool,
    /// May be started at all.
    pub(crate) enrolled: bool,
    /// Sends what it should not.
    pub(crate) hostile: bool,
    /// In the middle of a clean stop.
    pub(crate) stopping: bool,
    pub(crate) heard: BTreeMap<ShortId, Heard>,
    /// Something was heard since the overlay was last looked through.
    pub(crate) heard_news: bool,
    /// The stamp last seen in each register, to tell news from what was there before.
    pub(crate) seen: BTreeMap<Key, Hlc>,
    pub(crate) backup: Option<Disk>,
    /// A run that the disk refused, to be saved again.
    pub(crate) unsaved_run: Option<Run>,
    /// By which time of day, in milliseconds since 1970, all that is in effect here was in time: the node's own; after
    /// its clock went back the one before, until nothing of that is left.
    pub(crate) in_time: u64,
}

impl SimNode {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&(index as u64).to_be_bytes());
        let key = SigningKey::from_bytes(blake3::hash(&bytes).as_bytes());
        let id = NodeId::from_bytes(key.verifying_key().to_bytes());
        Self {
            index,
            key,
            id,
            disk: Disk::default(),
            mesh: None,
            epoch: 0,
            started_at: 0,
            mono_base: 0,
            wall: WallClock { synchronised: true, ..WallClock::default() },
            wake: None,
            links: BTreeSet::new(),
            destroyed: false,
            enrolled: true,
            hostile: false,
            stopping: false,
            heard: BTreeMap::new(),
            heard_news: false,
            seen: BTreeMap::new(),
            backup: None,
            unsaved_run: None,
            in_time: 0,
        }
    }

    pub(crate) fn short(&self) -> ShortId {
        self.id.short()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.mesh.is_some()
    }

    /// The node's clocks.
    pub(crate) fn now(&self, now: u64) -> Now {
        Now { mono_ms: self.mono_base + now - self.started_at, wall_ms: self.wall.read(now) }
    }

    /// The true time at which the node's steady clock shows `mono_ms`.
    pub(crate) fn when(&self, mono_ms: u64) -> u64 {
        self.started_at + mono_ms.saturating_sub(self.mono_base)
    }

    /// Starts as the daemon does: read the store, persist the next run as unclean, begin.
    pub(crate) fn start(&mut self, now: u64, draw: u64, limits: Limits, plant: Plant) -> Result<(), String> {
        let loaded = self.disk.load(plant)?;
        let stored = loaded.highest_generation(self.short());
        let run = next_run(self.disk.run, stored, self.disk.restored, (draw >> 32) as u32, plant);
        self.disk.run = Some(run);
        let disk = &mut self.disk;
        let since = disk.restored.then(|| *disk.since.get_or_insert(run.generation));
        let roster = Roster::from_bytes(&self.disk.roster).map_err(|error| error.to_string())?;
        self.epoch += 1;
        self.unsaved_run = None;
        self.started_at = now;
        self.mono_base = 1_000 + draw % 1_000_000;
        self.stopping = false;
        self.wake = None;
        self.heard.clear();
        self.seen.clear();
        self.in_time = self.disk.in_time;
        let boot = Boot {
            key: self.key.clone(),
            roster,
            run,
            ceiling: Hlc::ZERO,
            build_ms: BUILD_MS,
            wall: if self.wall.synchronised {
                mesh_proto::time::WallClock::Right
            } else {
                mesh_proto::time::WallClock::Unknown
            },
            restored: since,
            seed: draw,
            software: "hearth 0.1.0".into(),
            limits,
            plant,
        };
        self.mesh = Some(Mesh::new(boot, self.now(now), loaded));
        Ok(())
    }

    /// Ends this life.
    pub(crate) fn stop(&mut self) {
        self.mesh = None;
        self.epoch += 1;
        self.stopping = false;
        self.wake = None;
        self.links.clear();
    }
}
