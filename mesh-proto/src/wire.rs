//! Frames: what nodes say to each other, byte by byte.
//!
//! A frame is one version byte and then messages, each with its length in front, so that a
//! message of an unknown variant is skipped. A published struct never changes: a new version
//! is a new variant at the end of [`Message`]. Everything is encoded by postcard.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    error::FrameError,
    id::{HouseholdId, NodeId, ShortId},
    overlay::{OverlayItem, Run},
    record::Item,
    routing::{Reach, Routed},
    time::TimeOfDay,
};

pub use crate::vector::WireVector;

/// The version byte of every frame.
pub const FRAME_VERSION: u8 = 1;
/// The first byte of a packet that holds a frame with an envelope for a relay, instead of a liveness packet.
pub const ROUTED_PACKET: u8 = 0x81;
/// The protocol spoken: raised when messages are added.
pub const PROTOCOL: u16 = 2;
/// The oldest protocol that is still understood.
pub const OLDEST_PROTOCOL: u16 = 1;
/// Largest frame, in bytes.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;
/// A frame is closed when it reaches this size; one message may exceed it.
pub const TARGET_FRAME_BYTES: usize = 60 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first message of each side.
    Hello(Hello),
    /// The last message: why the link ends.
    Bye(ByeReason),
    /// Signed membership statements, encoded.
    Roster(Vec<Vec<u8>>),
    /// What the sender holds, in three hashes.
    Digest(Digest),
    /// Which durable writes the sender accounts for; sent when digests differ.
    Heads(WireVector),
    /// Asks for every live write that `have` does not cover.
    Want {
        /// Chosen by the asker; names the exchange.
        session: u32,
        /// What the asker accounts for.
        have: WireVector,
    },
    /// A part of the answer.
    Page {
        /// The exchange.
        session: u32,
        /// Number of the page, from 1.
        index: u32,
        /// Live writes, newest first.
        items: Vec<Item>,
    },
    /// Lets the answering side send one page more.
    PageAck {
        /// The exchange.
        session: u32,
        /// The page that was taken in.
        index: u32,
    },
    /// The end of the answer.
    Final {
        /// The exchange.
        session: u32,
        /// How many pages there were.
        pages: u32,
        /// What the answering side accounts for: a dot of it that no page held was superseded.
        vector: WireVector,
    },
    /// New durable writes.
    Push(Vec<Item>),
    /// Overlay entries.
    Overlay(Vec<OverlayItem>),
    /// The hash over the tree, valid at the vector with this hash.
    TreeRoot {
        /// Hash of the vector at which the tree was taken.
        vector: [u8; 8],
        /// The tree's root.
        root: u64,
    },
    /// The sums of all leaves, in reply to a root that differs.
    TreeLeaves(Vec<u64>),
    /// Registers of a leaf whose sums differ.
    TreeItems(Vec<Item>),
    /// What nodes have flushed, for the collection of tombstones.
    Reports(Vec<Report>),
    /// The sender's time: it stepped, or was told long ago.
    Time(TimeOfDay),
    /// Whether the sender's store was set back and is being replaced by a peer's state: until it
    /// says that it is not, it answers no [`Message::Want`].
    Restoring(bool),
    /// Which process speaks; said before the introduction, the only message that may be.
    Process(Process),
    /// Whom the sender reaches without the receiver's help.
    Neighbours(Vec<Reach>),
    /// An envelope for a node that its sender has no link to.
    Routed(Routed),
    /// The sender hears nothing over its other links to the receiver: this one is to be kept.
    Unheard,
    /// The sender's time with the word that it rests on, where no right clock is near.
    Word(TimeOfDay, u32),
}

/// How many variants of [`Message`] this version knows.
const KNOWN_MESSAGES: u32 = 22;

/// The introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest protocol the sender speaks.
    pub protocol: u16,
    /// The oldest it understands.
    pub oldest: u16,
    /// Its household.
    pub household: HouseholdId,
    /// Itself.
    pub node: NodeId,
    /// Its run.
    pub run: Run,
    /// Its time.
    pub time: TimeOfDay,
    /// The statements that prove its membership to one who has not heard of it.
    pub proof: Vec<Vec<u8>>,
    /// Its software, for people.
    pub software: String,
}

/// Why a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ByeReason {
    /// The other node belongs to another household.
    WrongHousehold,
    /// The other node is not admitted.
    NotAdmitted,
    /// The other node's membership was revoked.
    Revoked,
    /// The other node's protocol is too old.
    TooOld,
    /// The other node's protocol is too new.
    TooNew,
    /// The other node broke the protocol.
    Misbehaved,
    /// Another link to the same node is kept instead.
    Replaced,
    /// The sender stops.
    Leaving,
    /// Another board runs under the same key, and that one stays: this card is a copy, or was copied.
    Copied,
}

/// One process of a node, the same for as long as it runs. Of two the one that started first is the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// When it started by its own time of day, in milliseconds since 1970.
    pub started_ms: u64,
    /// A random number.
    pub number: u64,
}

/// What a node holds, in three hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Of its durable vector.
    pub vector: [u8; 8],
    /// Of its overlay.
    pub overlay: [u8; 8],
    /// Of its roster.
    pub roster: [u8; 8],
}

/// What a node has flushed, as it said itself; passed on by others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub node: ShortId,
    /// In which run.
    pub run: Run,
    /// Rises with each report of the run.
    pub number: u32,
    /// What it has flushed.
    pub durable: WireVector,
}

impl Message {
    /// Roughly its bytes, in memory as on the way.
    pub fn weight(&self) -> usize {
        let body = match self {
            Self::Hello(hello) => hello.proof.iter().map(Vec::len).sum(),
            Self::Roster(statements) => statements.iter().map(Vec::len).sum(),
            Self::Heads(vector) | Self::Want { have: vector, .. } | Self::Final { vector, .. } => {
                vector.weight()
            }
            Self::Push(items) | Self::TreeItems(items) | Self::Page { items, .. } => {
                items.iter().map(Item::weight).sum()
            }
            Self::Reports(reports) => reports.iter().map(|report| report.durable.weight()).sum(),
            Self::TreeLeaves(leaves) => leaves.len() * 8,
            Self::Neighbours(reach) => reach.len() * 16,
            Self::Routed(routed) => routed.body.len(),
            Self::Bye(_)
            | Self::Digest(_)
            | Self::PageAck { .. }
            | Self::Overlay(_)
            | Self::Time(_)
            | Self::Restoring(_)
            | Self::Process(_)
            | Self::Unheard
            | Self::Word(..)
            | Self::TreeRoot { .. } => 0,
        };
        body + 256
    }

    /// Whether it says all that earlier messages of its kind said.
    pub fn is_whole(&self) -> bool {
        matches!(
            self,
            Self::Digest(_)
                | Self::Heads(_)
                | Self::Want { .. }
                | Self::TreeRoot { .. }
                | Self::TreeLeaves(_)
                | Self::Time(_)
                | Self::Word(..)
                | Self::Neighbours(_)
        )
    }
}

/// Leaves out what a later message of the same frame replaces.
pub fn drop_outdated(messages: &mut Vec<Message>) {
    let mut kept: Vec<Message> = Vec::with_capacity(messages.len());
    let mut whole = Vec::new();
    while let Some(message) = messages.pop() {
        let kind = core::mem::discriminant(&message);
        if message.is_whole() {
            if whole.contains(&kind) {
                continue;
            }
            whole.push(kind);
        }
        kept.push(message);
    }
    kept.reverse();
    *messages = kept;
}

/// Encodes messages into one frame.
pub fn encode(messages: &[Message]) -> Vec<u8> {
    let mut frame = Vec::from([FRAME_VERSION]);
    for message in messages {
        let body = postcard::to_allocvec(message).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(0);
        frame.extend(postcard::to_allocvec(&length).unwrap_or_default());
        frame.extend(body);
    }
    frame
}

/// Decodes a frame. The second number counts messages of unknown variants, which were skipped.
///
/// # Errors
/// [`FrameError`] names what is wrong; nothing of the frame is to be used then.
pub fn decode(frame: &[u8]) -> Result<(Vec<Message>, u32), FrameError> {
    if frame.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge { bytes: frame.len() });
    }
    let (version, mut rest) = frame.split_first().ok_or(FrameError::Malformed)?;
    if *version != FRAME_VERSION {
        return Err(FrameError::UnknownVersion(*version));
    }
    let (mut messages, mut skipped) = (Vec::new(), 0);
    while !rest.is_empty() {
        let (length, after) = postcard::take_from_bytes::<u32>(rest).map_err(|_| FrameError::Malformed)?;
        let length = usize::try_from(length).map_err(|_| FrameError::Malformed)?;
        let (body, after) = after.split_at_checked(length).ok_or(FrameError::Malformed)?;
        rest = after;
        let (variant, _) = postcard::take_from_bytes::<u32>(body).map_err(|_| FrameError::Malformed)?;
        if variant >= KNOWN_MESSAGES {
            skipped += 1;
            continue;
        }
        match postcard::take_from_bytes::<Message>(body) {
            Ok((message, [])) => messages.push(message),
            _ => return Err(FrameError::Malformed),
        }
    }
    Ok((messages, skipped))
}
