//! Links to other nodes: what every transport has in common, QUIC, and WebSockets where UDP is blocked.
//!
//! A link carries ordered reliable frames and unreliable datagrams between this node and
//! one peer whose key the handshake proved. Transports report to the event loop through one
//! bounded channel, [`link_events`]; when the loop is slow, reading from the network stops.
//! The loop writes through a [`LinkHandle`] whose queue is bounded too.

pub(crate) mod codec;
pub mod counters;
pub mod dialer;
pub(crate) mod gate;
mod link;
pub(crate) mod pipe;
pub(crate) mod places;
pub mod quic;
mod quic_link;
pub(crate) mod race;
mod stranded;
mod udp_filter;
pub(crate) mod unfinished;
pub mod ways;
pub mod websocket;
mod websocket_link;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use mesh_proto::NodeId;

pub use codec::MAX_FRAME;
pub use counters::TransportCounters;
pub use dialer::{Dialer, Linked, Target, Wanted};
pub use gate::JoinConnection;
pub use link::{
    LinkEventReceiver, LinkEventSender, LinkHandle, QUEUE_BYTES, QUEUE_FRAMES, SendError, link_events,
};
pub use quic::{Limits, QuicTransport, TransportError};
pub(crate) use quic_link::LinkEnd;
pub use race::{AttemptError, DialError};
pub use ways::Ways;
pub use websocket::WebSocketTransport;

/// Largest datagram, in bytes: with QUIC's own bytes it fits the 1,200 that every path carries.
pub const MAX_DATAGRAM: usize = 1_100;

/// One link of this process; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// The two ways that bytes travel on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Ordered and reliable, up to [`MAX_FRAME`] bytes a frame.
    Stream,
    /// Neither, up to [`MAX_DATAGRAM`] bytes; never waits behind the stream.
    Datagram,
}

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportKind {
    /// QUIC over UDP.
    Quic,
    /// A WebSocket over TLS over TCP.
    WebSocket,
}

impl TransportKind {
    /// The word for it in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What links tell the event loop. Of one link the first is `Up` and the last is `Down`.
#[derive(Debug)]
pub enum LinkEvent {
    /// A link is there. Its key is proved, its membership is not: call
    /// [`LinkHandle::admit`] once the roster says so, or the transport closes the link.
    Up {
        /// The new link.
        link: LinkId,
        /// The way to send on it; dropping it closes the link.
        handle: LinkHandle,
        /// The key that the other side proved to hold.
        peer: NodeId,
        /// Where it is.
        address: SocketAddr,
        /// Whether this side dialled.
        dialed: bool,
        /// What carries it.
        transport: TransportKind,
    },
    /// Something arrived.
    Frame {
        /// On which link.
        link: LinkId,
        /// How it travelled.
        channel: Channel,
        /// What arrived, at most [`MAX_FRAME`] or [`MAX_DATAGRAM`] bytes.
        bytes: Bytes,
    },
    /// A send that returned [`SendError::Full`] may be tried again.
    Writable {
        /// On which link.
        link: LinkId,
    },
    /// The peer was asked and nothing is heard of it, or it is heard again. The link is still there,
    /// but another way is better.
    Silent {
        /// On which link.
        link: LinkId,
        /// Whether nothing is heard.
        is_silent: bool,
    },
    /// The link is gone; its handle sends no more.
    Down {
        /// Which link.
        link: LinkId,
        /// Why.
        reason: DownReason,
    },
}

/// Why a link went down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// This side closed it.
    ClosedHere(CloseCode),
    /// The other side closed it, with words of its own (shortened, without control characters).
    ClosedByPeer(CloseCode, String),
    /// Nothing arrived for the idle timeout.
    Silent,
    /// The other side restarted and does not know the link.
    Reset,
    /// A frame of this many bytes was announced, more than [`MAX_FRAME`].
    Oversized(u32),
    /// The other side broke a rule of the transport.
    Broken(String),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedHere(code) => write!(f, "closed here: {code}"),
            Self::ClosedByPeer(code, words) if words.is_empty() => write!(f, "closed by the peer: {code}"),
            Self::ClosedByPeer(code, words) => write!(f, "closed by the peer: {code} ({words})"),
            Self::Silent => f.write_str("nothing heard for 10 s"),
            Self::Reset => f.write_str("the peer restarted"),
            Self::Oversized(bytes) => {
                write!(f, "the peer announced a frame of {bytes} bytes, the limit is {MAX_FRAME}")
            }
            Self::Broken(what) => write!(f, "transport error: {what}"),
        }
    }
}

/// Codes that close a link, the same number on every transport. A published number never
/// changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CloseCode {
    /// Nothing more to say.
    Done,
    /// The daemon stops.
    GoingDown,
    /// Another address of the same dial answered first.
    RaceLost,
    /// The pair has a better link.
    Duplicate,
    /// The key is not in the household's roster.
    NotAdmitted,
    /// The key was revoked.
    Revoked,
    /// A frame broke a rule of the mesh protocol.
    Offence,
    /// A frame was larger than allowed.
    Oversized,
    /// No common version of the mesh protocol.
    Version,
    /// The other side belongs to another household.
    Household,
    /// Another key answered than the expected one.
    WrongPeer,
    /// Too many connections of this kind are open; try later.
    Busy,
    /// Something did not happen in time.
    Deadline,
    /// The other side used the transport in a way that is not Hearth's.
    Misuse,
    /// A number that this version does not know.
    Unknown(u32),
}

impl CloseCode {
    const KNOWN: [(Self, u32, &'static str); 14] = [
        (Self::Done, 0, "done"),
        (Self::GoingDown, 1, "going down"),
        (Self::RaceLost, 2, "another address was faster"),
        (Self::Duplicate, 3, "duplicate link"),
        (Self::NotAdmitted, 4, "not admitted"),
        (Self::Revoked, 5, "revoked"),
        (Self::Offence, 6, "protocol offence"),
        (Self::Oversized, 7, "oversized frame"),
        (Self::Version, 8, "no common version"),
        (Self::Household, 9, "another household"),
        (Self::WrongPeer, 10, "wrong peer"),
        (Self::Busy, 11, "busy"),
        (Self::Deadline, 12, "deadline"),
        (Self::Misuse, 13, "misuse"),
    ];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::Unknown(number) => number,
            known => Self::KNOWN.iter().find(|(code, ..)| *code == known).map_or(0, |(_, number, _)| *number),
        }
    }

    /// The code with this number on the wire.
    pub fn from_number(number: u64) -> Self {
        Self::KNOWN
            .iter()
            .find(|(_, known, _)| u64::from(*known) == number)
            .map_or_else(|| Self::Unknown(u32::try_from(number).unwrap_or(u32::MAX)), |(code, ..)| *code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::KNOWN.iter().find(|(code, ..)| code == self) {
            Some((.., name)) => f.write_str(name),
            None => write!(f, "code {}", self.number()),
        }
    }
}

/// What a peer said, made safe to show: no control characters, at most 120 characters.
pub(crate) fn clip(words: &[u8]) -> String {
    String::from_utf8_lossy(words).chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod unit {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn close_codes_keep_their_numbers() {
        for (index, (code, number, _)) in CloseCode::KNOWN.iter().enumerate() {
            assert_eq!(*number as usize, index);
            assert_eq!(code.number(), *number);
            assert_eq!(CloseCode::from_number(u64::from(*number)), *code);
        }
        assert_eq!(CloseCode::from_number(77), CloseCode::Unknown(77));
        assert_eq!(CloseCode::Unknown(77).to_string(), "code 77");
    }

    #[test]
    fn words_of_a_peer_are_made_safe() {
        assert_eq!(clip(b"a\x1b[31mb\n\xff"), "a[31mb\u{fffd}");
        assert_eq!(clip(&[b'x'; 500]).len(), 120);
    }
}
