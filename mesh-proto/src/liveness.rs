//! Who is alive: SWIM with suspicion behind a trait of our own.
//!
//! Every node probes one other each 250 ms, asks three others to probe it too when no answer comes, then suspects
//! it aloud; a linked peer that is silent is asked out of turn, and suspected the same. A suspect that does not object
//! in time (1.5 s, 1 s once there are others enough to vouch for it) is down. Whoever was declared down and is not
//! comes back under a renewed identity.

mod io;
mod packet;
mod silence;
mod swim;
#[cfg(test)]
mod tests;
mod tuning;

use alloc::{collections::BTreeSet, vec::Vec};

use thiserror::Error;

pub use self::{swim::Swim, tuning::MAX_LIVENESS_PACKET_BYTES};
use crate::id::ShortId;

/// Tells which admitted nodes are alive. Pure: the caller passes in the time, in milliseconds of a
/// monotonic clock, and carries the packets; links are its business.
pub trait Liveness {
    /// Names the nodes that are admitted. Others are ignored, whoever names them; those that were
    /// known and are not named any more are forgotten.
    fn set_admitted(&mut self, now_ms: u64, admitted: &BTreeSet<ShortId>);

    /// A link to a peer came up; `incarnation` is its boot incarnation, from its hello. Both exchange the list of live
    /// nodes, asked for again until it came, even when one took the other for dead.
    fn link_up(&mut self, now_ms: u64, peer: ShortId, incarnation: u64);

    /// A way through others leads to a node that has no link: asked as on a link, unless it is alive already.
    fn way_up(&mut self, now_ms: u64, node: ShortId);

    /// A link or a way went down: by itself no death, the peer may be reached through others.
    fn link_down(&mut self, now_ms: u64, peer: ShortId);

    /// Takes in a packet. `from` is the node that made it, as the session vouches, also when others relayed it.
    ///
    /// # Errors
    /// See [`LivenessError`]; the packet had no effect.
    fn handle_packet(&mut self, now_ms: u64, from: ShortId, bytes: &[u8]) -> Result<(), LivenessError>;

    /// Does what is due. A call that comes late tells that this node itself was slow: what it was about to
    /// hold against others is put off.
    fn handle_timeout(&mut self, now_ms: u64);

    /// When [`Liveness::handle_timeout`] is due, in milliseconds; `None`: nothing is waited for.
    fn poll_timeout(&self) -> Option<u64>;

    /// The next packet to carry, with the node it is for (linked or not: relay it or drop it).
    fn poll_packet(&mut self) -> Option<(ShortId, Vec<u8>)>;

    /// The next thing that happened.
    fn poll_event(&mut self) -> Option<LivenessEvent>;

    /// Tells all that this node goes; after that it takes no part. Keep calling until `poll_timeout` is `None`.
    fn leave(&mut self, now_ms: u64);

    /// A linked node said over its link that it goes, in this incarnation of its boot.
    fn left(&mut self, now_ms: u64, node: ShortId, incarnation: u64);

    /// Drops a node that was revoked: it is not admitted any more.
    fn forget(&mut self, now_ms: u64, node: ShortId);

    /// The other nodes that are alive (suspects included), with their boot incarnations, by name.
    fn alive(&self) -> Vec<(ShortId, u64)>;

    /// This node's incarnation as others see it: that of its boot, or higher when it had to outbid a lie or a lost file.
    fn incarnation(&self) -> u64;
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessEvent {
    /// A node is alive. Comes again, without `Down` between, when its incarnation rose (it restarted faster
    /// than anybody noticed: everything tied to the old incarnation ended) or when it renewed itself within one.
    Up {
        /// The node.
        node: ShortId,
        /// Its boot incarnation.
        incarnation: u64,
    },
    /// A node is not alive any more.
    Down {
        /// The node.
        node: ShortId,
        /// The incarnation that ended.
        incarnation: u64,
        /// Why.
        reason: DownReason,
    },
    /// Others took this node for dead and it came back: it publishes again what they dropped.
    Rejoined {
        /// This node's incarnation now.
        incarnation: u64,
    },
}

/// Why a node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// It answered nobody.
    Silent,
    /// It said goodbye.
    Left,
    /// It is not admitted any more.
    Forgotten,
}

/// What is wrong with a packet; it had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LivenessError {
    /// Over the limit.
    #[error("the liveness packet has {bytes} bytes, the limit is 1100")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a packet.
    #[error("the bytes are not a liveness packet: they were damaged or cut, or a newer version wrote them")]
    Malformed,
    /// From a node that is not admitted.
    #[error("{from} is not admitted: its liveness packets are refused until it is")]
    NotAdmitted {
        /// The sender.
        from: ShortId,
    },
    /// Made in another's name.
    #[error("{from} sent a liveness packet in the name of {claimed}: a node speaks for itself only")]
    WrongSender {
        /// Who sent it.
        from: ShortId,
        /// Who it says it is from.
        claimed: ShortId,
    },
    /// For another node.
    #[error("the liveness packet is for {to}: packets go to the node that they name")]
    Misdirected {
        /// Who it is for.
        to: ShortId,
    },
    /// From a node that speaks of itself as of a third.
    #[error("the liveness packet asks this node to reach itself through another: it was made by hand")]
    Nonsense,
}
