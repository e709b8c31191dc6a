//! The times and sizes of `foca`.

use core::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{Config, PeriodicParams};

/// Largest packet taken, in bytes: it fits the first QUIC datagram of a connection.
pub const MAX_LIVENESS_PACKET_BYTES: usize = 1_100;
/// Largest packet made, in bytes: it still fits in an envelope, which adds up to 30.
const MAX_MADE_BYTES: usize = 1_060;

/// How often a node is probed, in milliseconds: among 32, a death is so found in half a second.
const PROBE_PERIOD_MS: u64 = 250;
/// How long a probe waits before others are asked, in milliseconds; an answer within the period still counts.
pub(super) const PROBE_RTT_MS: u64 = 125;
/// How long a suspect has to object, in milliseconds, while few others could reach it in this node's stead.
const SUSPICION_MS: u64 = 1_500;
/// The same once [`MANY`] others are alive. A death is known after the wait for the first probe (it grows with the
/// household; a linked peer is asked sooner: `silence`), one period and this; three relays make a wrong suspicion rare,
/// gossip refutes it fast.
const SUSPICION_AMONG_MANY_MS: u64 = 1_000;
/// How many others must be alive for that.
pub(super) const MANY: usize = 4;

/// How long a suspect has, in milliseconds, while so many others are alive.
pub(super) fn suspicion_ms(alive: usize) -> u64 {
    if alive < MANY { SUSPICION_MS } else { SUSPICION_AMONG_MANY_MS }
}

/// Tuned for a LAN: a death is known in about two seconds.
pub(super) fn config(suspicion_ms: u64) -> Config {
    let times = |count: usize| NonZeroUsize::MIN.saturating_add(count.saturating_sub(1));
    let periodic =
        |ms, count| Some(PeriodicParams { frequency: Duration::from_millis(ms), num_members: times(count) });
    Config {
        probe_period: Duration::from_millis(PROBE_PERIOD_MS),
        probe_rtt: Duration::from_millis(PROBE_RTT_MS),
        num_indirect_probes: times(3),
        max_transmissions: NonZeroU8::MIN.saturating_add(11),
        suspect_to_down_after: Duration::from_millis(suspicion_ms),
        // The dead are remembered, one entry per admitted node: whoever returns renews its identity.
        remove_down_after: None,
        max_packet_size: times(MAX_MADE_BYTES),
        notify_down_members: true,
        periodic_announce: periodic(30_000, 1),
        periodic_announce_to_down_members: periodic(10_000, 2),
        // Only while there is news.
        periodic_gossip: periodic(100, 3),
    }
}
