//! What goes into the machine and what comes out of it.

use alloc::{string::String, vec::Vec};

use ed25519_dalek::SigningKey;

use crate::{
    commit::WriteToken,
    counters::Counter,
    hlc::Hlc,
    id::{Key, NodeId, ObjectId, ShortId},
    limits::Limits,
    overlay::Run,
    planted::{Plant, planted},
    record::{Batch, Item, Record, RecordError},
    replica::Replica,
    roster::Roster,
    session::{LinkId, Transport},
    time::WallClock,
    wire::ByeReason,
};

/// How far a generation may jump where others than those that are known may have been used.
pub(super) const GENERATION_JUMP: u32 = 1 << 20;
/// The bits of how far generation and incarnation may jump at each start; generations last for half
/// a million starts.
const START_BITS: u32 = 14;

/// What a node is told at its start.
#[derive(Debug)]
pub struct Boot {
    /// The node's key.
    pub key: SigningKey,
    /// The household's membership as it was persisted.
    pub roster: Roster,
    /// This run; already persisted, marked as unclean.
    pub run: Run,
    /// Above every stamp issued or merged before.
    pub ceiling: Hlc,
    /// When this software was built, in milliseconds since 1970.
    pub build_ms: u64,
    /// What is known of the wall clock.
    pub wall: WallClock,
    /// Set when the store was restored, repaired or imported and may be behind: the generation of
    /// the first run since, which the mark of the restored store must hold.
    pub restored: Option<u32>,
    /// Seeds every random choice.
    pub seed: u64,
    /// Name and version of the software, for people.
    pub software: String,
    /// How much it holds at most.
    pub limits: Limits,
    /// The planted bug, if any.
    pub plant: Plant,
}

/// The run that follows `last`, which must be persisted before it begins. `stored` is the
/// highest generation of this node that the store knows of.
///
/// Every start opens a generation and an incarnation, at distances that `draw`, a random number,
/// decides: the card may have been set back without a sign of it, and neither a sequence number nor
/// a run must be used twice. What is known to be `restored` jumps farther.
pub fn next_run(last: Option<Run>, stored: u32, restored: bool, draw: u32, plant: Plant) -> Run {
    let newest = last.map_or(0, |last| last.generation).max(stored);
    let is_kept = planted!(plant, GenerationNotBumped);
    let past = draw % if restored { GENERATION_JUMP } else { 1 << START_BITS };
    let lead = u64::from(draw >> (u32::BITS - START_BITS));
    let next = newest.saturating_add(1).saturating_add(past);
    Run {
        incarnation: last.map_or(0, |last| last.incarnation).saturating_add(1 + lead),
        generation: if is_kept && newest > 0 { newest } else { next },
    }
}

/// The records of a store, taken in one by one before the start.
#[derive(Debug)]
pub struct Loader {
    pub(super) replica: Replica,
    pub(super) ceiling: Hlc,
    pub(super) known_since: u32,
    damaged: usize,
}

impl Loader {
    /// Nothing loaded yet.
    pub fn new(plant: Plant) -> Self {
        Self { replica: Replica::new(plant), ceiling: Hlc::ZERO, known_since: 0, damaged: 0 }
    }

    /// Takes in a record. A damaged one is counted and left out.
    ///
    /// # Errors
    /// [`RecordError::Newer`]: this software is older than the store; do not start.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        match Record::decode(key, value) {
            Ok(Record::Ceiling(stamp)) => self.ceiling = self.ceiling.max(stamp),
            Ok(Record::KnownSince(generation)) => self.known_since = generation,
            Ok(record) => {
                if let Record::Register(_, entry) = &record {
                    self.ceiling = self.ceiling.max(entry.stamp);
                }
                self.replica.load(record);
            }
            Err(RecordError::Damaged) => self.damaged += 1,
            Err(newer @ RecordError::Newer(_)) => return Err(newer),
        }
        Ok(())
    }

    /// How many records were damaged and left out.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// The highest generation of a node that the store knows of.
    pub fn highest_generation(&self, node: ShortId) -> u32 {
        self.replica.applied().highest_generation(node)
    }
}

/// What the caller tells the machine.
#[derive(Debug)]
pub enum Input {
    /// A transport connected, and verified the peer's key.
    LinkUp {
        /// The link.
        link: LinkId,
        /// Whose key it is.
        peer: NodeId,
        /// Whether this side dialed.
        dialed: bool,
        /// What carries it.
        transport: Transport,
    },
    /// The transport hears nothing over the link although it asked, or hears the peer again.
    LinkSilent(LinkId, bool),
    /// A transport's connection is gone.
    LinkDown(LinkId),
    /// A frame arrived.
    Frame(LinkId, Vec<u8>),
    /// A liveness packet arrived.
    Packet(LinkId, Vec<u8>),
    /// The store flushed the batch.
    Persisted(u64),
    /// The run asked for by [`Event::PersistRun`] is persisted.
    RunPersisted(Run),
    /// What [`Event::LostAndFound`] handed out under this number is durable.
    LostSaved(u32),
    /// Whether the wall clock is known to be right.
    Synchronised(bool),
}

/// What the machine asks of the caller or tells it.
#[derive(Debug)]
pub enum Event {
    /// Make these records durable, then say [`Input::Persisted`]. One batch at a time.
    Persist {
        /// Its number.
        batch: u64,
        /// The records.
        records: Batch,
    },
    /// Make this run durable, and before it the mark of the restored store with the generation that
    /// comes along, if one does; then say [`Input::RunPersisted`].
    PersistRun(Run, Option<u32>),
    /// A write request is durable.
    Written(WriteToken),
    /// Close the link, once what was polled for it has been sent.
    Close(LinkId, ByeReason),
    /// The roster changed: make it durable.
    RosterChanged,
    /// The peer of a link has been introduced.
    Linked(LinkId, NodeId),
    /// A node is alive in this incarnation.
    NodeUp(ShortId, u64),
    /// A node's incarnation is over.
    NodeDown(ShortId, u64),
    /// A peer broke a rule.
    Offence(NodeId, Counter),
    /// The clock was set back to this time of day, in milliseconds since 1970.
    ClockCorrected(u64),
    /// Several boards run under the key of this node: the one at the end of this link was turned away.
    Copied {
        /// The node.
        node: NodeId,
        /// The link.
        link: LinkId,
    },
    /// A peer knows writes of this node that it lost or never made: its card was set back or
    /// cloned. Its store is being replaced by a peer's.
    Rewound(NodeId),
    /// A peer says that this node is not a member (any more).
    Refused(NodeId, ByeReason),
    /// What a restored store holds that has no place in the state of the peer that is to replace
    /// it: export it durably, then say [`Input::LostSaved`]. Nothing is replaced before; after 3 s
    /// without an answer the exchange begins anew.
    LostAndFound {
        /// Its number.
        number: u32,
        /// The registers.
        lost: Vec<Item>,
    },
    /// A restored store was replaced by a peer's state, and that is durable: the mark of the
    /// restored store may go.
    Restored,
}

/// Why a write is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The author may not write the field; nobody may write a value into the slot of an object's
    /// tombstone, which has no name.
    #[error("`{0}.{1}` may not be written by clients")]
    Forbidden(ObjectId, String),
    /// A value breaks a rule.
    #[error("`{0}.{1}`: {2}")]
    Value(ObjectId, String, crate::error::ValueError),
    /// Too many changes in one request.
    #[error("{0} changes in one request, the limit is 1024: split it")]
    TooMany(usize),
    /// Too much waits to be flushed, or fills the overlay.
    #[error("too many writes wait to be flushed, or too many values live in memory: try again in a moment")]
    Overloaded,
}

/// One change of a write request.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Writes a field.
    Set(Key, crate::value::Value),
    /// Deletes a field.
    Unset(Key),
    /// Deletes an object.
    Delete(ObjectId),
}

/// A packet or frame to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// In order, reliably.
    Frame(Vec<u8>),
    /// At once, or not at all.
    Packet(Vec<u8>),
}
