//! Counts of what happened, every offence of a peer among them, by name.

use core::fmt;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident => $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as metrics show it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

counters! {
    /// Frames taken in.
    FramesIn => "frames_in",
    /// Frames sent.
    FramesOut => "frames_out",
    /// Bytes of frames taken in.
    BytesIn => "frame_bytes_in",
    /// Bytes of frames sent.
    BytesOut => "frame_bytes_out",
    /// Durable writes that arrived and were new.
    WritesIn => "writes_in",
    /// Durable writes that arrived and were known.
    WritesKnown => "writes_known",
    /// Durable writes passed on to other peers.
    WritesForwarded => "writes_forwarded",
    /// Exchanges begun to get missing writes.
    Fetches => "fetches",
    /// Exchanges given up because nothing arrived.
    FetchesAbandoned => "fetches_abandoned",
    /// Queues dropped because they grew too large.
    QueuesOverflowed => "queues_overflowed",
    /// Tombstones forgotten after every node had acknowledged them.
    TombstonesCollected => "tombstones_collected",
    /// Registers repaired after trees differed.
    Repaired => "registers_repaired",
    /// Times that this node's clock was set back and its generation closed.
    ClockCorrections => "clock_corrections",
    /// Times that the time of a peer took the place of this node's own.
    ClockAdopted => "clock_adopted",
    /// Writes held back because their stamps lie in the future.
    Quarantined => "writes_quarantined",
    /// Writes from the future that were dropped because too many of their node are held back.
    QuarantineFull => "quarantine_full",
    /// Overlay entries refused because there is no room.
    OverlayFull => "overlay_full",
    /// Offence: a peer that makes this node queue more than it reads.
    Flooding => "offence_flooding",
    /// Answers begun to what peers asked for.
    Answers => "answers",
    /// Offence: registers of a tree that this node did not ask for.
    Unasked => "offence_unasked",
    /// Writes of a closed generation that never took place.
    Void => "writes_void",
    /// Messages of unknown variants, skipped.
    UnknownMessage => "messages_unknown",
    /// Offence: a frame that is not one.
    MalformedFrame => "offence_malformed_frame",
    /// Offence: a frame of an unknown version.
    UnknownFrameVersion => "offence_unknown_frame_version",
    /// Offence: a frame larger than the limit.
    OversizedFrame => "offence_oversized_frame",
    /// Offence: something other than an introduction first.
    BeforeHello => "offence_before_hello",
    /// Offence: an introduction under another name than the link's key.
    WrongIdentity => "offence_wrong_identity",
    /// Offence: a node of another household.
    WrongHousehold => "offence_wrong_household",
    /// Offence: a node that is not admitted.
    NotAdmitted => "offence_not_admitted",
    /// Offence: a revoked node.
    Revoked => "offence_revoked",
    /// Offence: a protocol too old or too new.
    WrongProtocol => "offence_wrong_protocol",
    /// Offence: a field written by a node that may not.
    ForbiddenWriter => "offence_forbidden_writer",
    /// Offence: a value that is not one, or breaks its limits.
    BadValue => "offence_bad_value",
    /// Offence: a membership statement that was refused.
    BadStatement => "offence_bad_statement",
    /// Offence: a membership statement of an issuer who never was an admin.
    SelfMadeStatement => "offence_self_made_statement",
    /// Offence: two statements of one issuer under the same number.
    ForkedStatement => "offence_forked_statement",
    /// Offence: a liveness packet that is not one.
    BadPacket => "offence_bad_packet",
    /// Offence: an overlay entry that was refused.
    BadOverlay => "offence_bad_overlay",
    /// Offence: an overlay entry stamped in the future.
    OverlayAhead => "offence_overlay_ahead",
    /// Envelopes passed on between nodes without a link.
    Relayed => "relays",
    /// Envelopes for nodes to which no way leads from here, or for which there is no room.
    RelayNoWay => "relays_without_way",
    /// Envelopes that came a second time, or for which this node has a link of its own.
    RelayRepeated => "relays_repeated",
    /// Envelopes of nodes that the peer has not said (yet) that it reaches.
    RelayOriginUnknown => "relays_of_unknown_origin",
    /// Offence: an envelope from or for a node that is not admitted.
    RelayStranger => "offence_relay_stranger",
    /// Offence: an envelope larger than the limit.
    RelayTooLarge => "offence_relay_too_large",
    /// Offence: a peer that has more relayed than it may.
    RelayFlood => "offence_relay_flood",
    /// Offence: an envelope with a liveness packet that is not one, or in another's name.
    BadRelayed => "offence_bad_relayed",
    /// Offence: a list of reachable nodes that is too long, or has nodes in no distance.
    BadNeighbours => "offence_bad_neighbours",
    /// Another node claims writes of this node's generation that it never made: a restored
    /// or cloned card.
    Rewound => "rewound_generations",
}

/// The counts.
#[derive(Clone)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// Counts one.
    pub fn bump(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    pub fn add(&mut self, counter: Counter, by: usize) {
        if let Some(count) = self.0.get_mut(counter as usize) {
            *count = count.saturating_add(u64::try_from(by).unwrap_or(u64::MAX));
        }
    }

    /// The count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Every count by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|counter| (counter.name(), self.get(*counter)))
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0)).finish()
    }
}
