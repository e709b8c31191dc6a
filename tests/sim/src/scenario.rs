//! Scenarios: how large, which network, which faults.

use mesh_proto::limits::Limits;

use super::{net::Transport, tight};

/// Who is linked to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    Full,
    Line,
    Ring,
    Star,
    /// Two groups, each linked among itself, and the first node linked to all.
    TwoSites,
    Random,
}

/// Something that is done to the world.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Dial what should be linked and is not.
    Dial,
    Write,
    Crash,
    Start(usize),
    CleanStop,
    Partition,
    OneWay,
    Heal,
    Flap,
    ClockStep,
    ClockFix(usize),
    Backup,
    Restore,
    Rewind,
    Destroy,
    Admit,
    Revoke,
    Hostile,
}

/// What a run does. Times are in milliseconds; a fault with period 0 does not happen.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    /// What the scenario is about.
    pub(crate) about: &'static str,
    pub(crate) nodes: (u64, u64),
    /// The most nodes of a seed that has a large household; 0: none has.
    pub(crate) crowd: u64,
    /// How many nodes wait to be admitted during the run.
    pub(crate) spare: u64,
    pub(crate) topology: Topology,
    pub(crate) transport: Transport,
    /// How much each node holds at most.
    pub(crate) limits: Limits,
    /// How long a flush takes.
    pub(crate) flush: (u64, u64),
    /// How many of the attempts to write to a disk fail, in percent; they are made again.
    pub(crate) disk_fails: u64,
    /// How long an end takes to notice that its link is gone.
    pub(crate) notice: (u64, u64),
    /// How long the faults last.
    pub(crate) duration: u64,
    /// Time between two writes anywhere.
    pub(crate) write_every: (u64, u64),
    /// Writes end here, before the faults do; 0: with them.
    pub(crate) quiet_from: u64,
    /// Values of several kilobytes, in percent.
    pub(crate) large: u64,
    /// Deletions of fields and objects, in percent.
    pub(crate) deletes: u64,
    pub(crate) crash_every: u64,
    pub(crate) stop_every: u64,
    pub(crate) partition_every: u64,
    pub(crate) one_way_every: u64,
    pub(crate) flap_every: u64,
    pub(crate) clock_every: u64,
    pub(crate) restore_every: u64,
    /// The card of a node is set back to its backup, and nothing tells the node.
    pub(crate) rewind_every: u64,
    /// One backup early, restored late.
    pub(crate) old_backup: bool,
    /// One image of a card early, put in late.
    pub(crate) old_image: bool,
    pub(crate) destroy_at: u64,
    pub(crate) roster_every: u64,
    pub(crate) hostile_every: u64,
    /// A member sends what it should not.
    pub(crate) hostile: bool,
    /// The roster changes during the run.
    pub(crate) roster: bool,
    /// No exchange may be needed until writes end.
    pub(crate) push_only: bool,
    /// Tombstones must be gone in the end.
    pub(crate) collect: bool,
    /// How often one value may be pushed over a link, for the writes that it covers.
    pub(crate) coalescing_bound: u64,
}

impl Settings {
    pub(crate) fn base(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            nodes: (3, 6),
            crowd: 0,
            spare: 0,
            topology: Topology::Full,
            transport: Transport::calm(),
            limits: Limits::default(),
            flush: (1, 20),
            disk_fails: 0,
            notice: (0, 3_000),
            duration: 20_000,
            write_every: (5, 200),
            quiet_from: 0,
            large: 2,
            deletes: 20,
            crash_every: 0,
            stop_every: 0,
            partition_every: 0,
            one_way_every: 0,
            flap_every: 0,
            clock_every: 0,
            restore_every: 0,
            rewind_every: 0,
            old_backup: false,
            old_image: false,
            destroy_at: 0,
            roster_every: 0,
            hostile_every: 0,
            hostile: false,
            roster: false,
            push_only: false,
            collect: false,
            coalescing_bound: 64,
        }
    }
}

fn lossy() -> Transport {
    Transport { delay: (1, 60), ordered: false, loss: 5, duplicates: 5, packet_loss: 5, window: 16 }
}

pub(crate) fn wifi() -> Transport {
    Transport { delay: (1, 80), packet_loss: 3, window: 4, ..Transport::calm() }
}

/// A household in which nothing happens by itself, for the figures.
pub(crate) fn figures(nodes: u64) -> Settings {
    Settings {
        nodes: (nodes, nodes),
        transport: Transport { packet_loss: 5, ..Transport::calm() },
        write_every: (1_000_000, 1_000_000),
        quiet_from: 1,
        large: 0,
        ..Settings::base("figures", "a household whose deaths, departures and partitions are timed")
    }
}

/// Every scenario.
pub(crate) fn all() -> Vec<Settings> {
    let base = Settings::base;
    vec![
        Settings {
            transport: Transport { delay: (20, 60), window: 1, ..Transport::calm() },
            duration: 9_400,
            quiet_from: 8_000,
            write_every: (1, 12),
            push_only: true,
            large: 0,
            crowd: 32,
            ..base("calm", "no fault and narrow links: pushes alone, coalesced ones too, reach all")
        },
        Settings { transport: wifi(), crowd: 32, ..base("basic", "writes and deletions, no fault") },
        Settings {
            transport: lossy(),
            large: 10,
            flap_every: 5_000,
            write_every: (1, 60),
            crowd: 32,
            ..base("lossy", "frames lost, repeated and out of order; links that flap")
        },
        Settings {
            crash_every: 2_500,
            stop_every: 6_000,
            flush: (1, 400),
            disk_fails: 3,
            write_every: (1, 50),
            crowd: 32,
            ..base("crash", "crashes that lose what was not synced, and clean stops")
        },
        Settings {
            partition_every: 5_000,
            one_way_every: 9_000,
            flap_every: 7_000,
            transport: wifi(),
            crowd: 32,
            ..base("partition", "partitions, one-way cuts and flapping")
        },
        Settings {
            topology: Topology::Line,
            partition_every: 7_000,
            crash_every: 7_000,
            nodes: (3, 5),
            crowd: 12,
            ..base("line", "nodes in a line: everything crosses the middle, which fails too")
        },
        Settings {
            topology: Topology::TwoSites,
            crash_every: 5_000,
            stop_every: 9_000,
            transport: wifi(),
            nodes: (5, 8),
            crowd: 32,
            ..base("two-sites", "two groups that only one node joins, which fails too")
        },
        Settings {
            topology: Topology::Line,
            flap_every: 700,
            one_way_every: 6_000,
            notice: (0, 1_500),
            transport: wifi(),
            nodes: (3, 4),
            crowd: 12,
            ..base("flapping", "nodes in a line whose links come and go")
        },
        Settings {
            topology: Topology::Ring,
            nodes: (4, 7),
            flap_every: 4_000,
            crowd: 16,
            ..base("ring", "nodes in a ring: everything arrives twice")
        },
        Settings {
            topology: Topology::Star,
            nodes: (4, 8),
            crash_every: 6_000,
            crowd: 32,
            ..base("star", "one node between all others, which fails too")
        },
        Settings {
            topology: Topology::Random,
            nodes: (5, 9),
            crash_every: 5_000,
            partition_every: 8_000,
            transport: wifi(),
            crowd: 32,
            ..base("random", "links at random, with crashes and partitions")
        },
        Settings {
            clock_every: 4_000,
            crash_every: 9_000,
            disk_fails: 5,
            crowd: 32,
            ..base("clocks", "clocks at 1970, ahead by seconds and by a year, and corrected")
        },
        Settings {
            restore_every: 7_000,
            crash_every: 8_000,
            disk_fails: 3,
            deletes: 35,
            duration: 30_000,
            crowd: 32,
            ..base("restore", "nodes that come back from old backups")
        },
        Settings {
            old_backup: true,
            write_every: (100, 1_500),
            quiet_from: 60_000,
            duration: 160_000,
            deletes: 50,
            crowd: 12,
            ..base("backup", "a backup so old that the tombstones of what was deleted since are gone")
        },
        Settings {
            rewind_every: 7_000,
            crash_every: 8_000,
            stop_every: 9_000,
            deletes: 35,
            duration: 30_000,
            crowd: 32,
            ..base("rewind", "cards that are set back while nothing tells their nodes")
        },
        Settings {
            restore_every: 9_000,
            rewind_every: 9_000,
            crash_every: 4_000,
            partition_every: 6_000,
            deletes: 35,
            duration: 40_000,
            ..base("setback", "restores and cards set back, with crashes and partitions between")
        },
        Settings {
            old_image: true,
            write_every: (100, 1_500),
            quiet_from: 60_000,
            duration: 160_000,
            deletes: 50,
            crowd: 12,
            ..base("image", "a card set back so far that tombstones are gone, and nothing tells its node")
        },
        Settings {
            crash_every: 7_000,
            partition_every: 9_000,
            one_way_every: 12_000,
            flap_every: 9_000,
            clock_every: 8_000,
            restore_every: 12_000,
            rewind_every: 14_000,
            flush: (1, 200),
            disk_fails: 3,
            transport: lossy(),
            nodes: (3, 9),
            crowd: 32,
            duration: 30_000,
            ..base(
                "storm",
                "frames lost and out of order, crashes, cuts, wrong clocks and old disks, all at once",
            )
        },
        Settings {
            roster_every: 3_000,
            hostile_every: 1_500,
            hostile: true,
            roster: true,
            spare: 2,
            nodes: (4, 6),
            crowd: 32,
            ..base("roster", "admissions, revocations and a member that forges statements")
        },
        Settings {
            crash_every: 3_000,
            write_every: (20, 150),
            notice: (0, 8_000),
            crowd: 32,
            ..base("overlay", "writers that die, and what they had said")
        },
        Settings {
            partition_every: 25_000,
            duration: 90_000,
            write_every: (100, 2_000),
            deletes: 50,
            collect: true,
            crowd: 12,
            ..base("collect", "tombstones, and nodes that are away while they are collected")
        },
        Settings {
            crash_every: 6_000,
            partition_every: 9_000,
            one_way_every: 15_000,
            flap_every: 6_000,
            clock_every: 9_000,
            stop_every: 11_000,
            destroy_at: 14_000,
            disk_fails: 3,
            roster: true,
            transport: wifi(),
            nodes: (4, 8),
            duration: 30_000,
            crowd: 32,
            ..base("all", "everything at once, and a node that is destroyed")
        },
        tight::scenario(),
        Settings {
            nodes: (16, 32),
            duration: 8_000,
            crash_every: 3_000,
            partition_every: 5_000,
            topology: Topology::Random,
            write_every: (20, 200),
            ..base("large", "16 to 32 nodes")
        },
    ]
}

/// The scenario with this name.
pub(crate) fn named(name: &str) -> Option<Settings> {
    all().into_iter().find(|settings| settings.name == name)
}

/// The scenario of a seed when none is named: mostly small ones.
pub(crate) fn of_seed(seed: u64) -> Settings {
    let all = all();
    let small = all.len() as u64 - 1;
    let at = if seed % 60 == 59 { small } else { seed % small };
    all[usize::try_from(at).unwrap_or(0)].clone()
}
