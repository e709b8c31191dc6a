//! Packets as `foca` lays them out, checked whole before it sees them.

use alloc::vec::Vec;

use foca::{Codec as _, Header, Member, Message, PostcardCodec};

use super::{LivenessError, swim::Identity};
use crate::id::ShortId;

/// A packet taken apart: what `foca` would take is checked whole before it sees any of it.
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    pub(super) updates: Vec<Member<Identity>>,
}

impl Packet {
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, LivenessError> {
        let malformed = |_| LivenessError::Malformed;
        let header = PostcardCodec.decode_header(&mut bytes).map_err(malformed)?;
        let mut updates = Vec::new();
        if let Some((count, rest)) = bytes.split_first_chunk::<2>() {
            bytes = rest;
            // Each takes bytes from a packet of bounded size, so the count alone allocates nothing.
            for _ in 0..u16::from_be_bytes(*count) {
                updates.push(PostcardCodec.decode_member(&mut bytes).map_err(malformed)?);
            }
        }
        if bytes.is_empty() { Ok(Self { header, updates }) } else { Err(LivenessError::Malformed) }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, LivenessError> {
        let malformed = |_| LivenessError::Malformed;
        let mut bytes = Vec::new();
        PostcardCodec.encode_header(&self.header, &mut bytes).map_err(malformed)?;
        let count = u16::try_from(self.updates.len()).map_err(|_| LivenessError::Malformed)?;
        bytes.extend_from_slice(&count.to_be_bytes());
        for member in &self.updates {
            PostcardCodec.encode_member(member, &mut bytes).map_err(malformed)?;
        }
        Ok(bytes)
    }

    pub(super) fn check(&self, me: ShortId, from: ShortId) -> Result<(), LivenessError> {
        let (src, to) = (self.header.src.node, self.header.dst.node);
        if src != from {
            return Err(LivenessError::WrongSender { from, claimed: src });
        }
        if to != me {
            return Err(LivenessError::Misdirected { to });
        }
        if self.third() == Some(me) { Err(LivenessError::Nonsense) } else { Ok(()) }
    }

    /// The node that the message is about, besides its sender and its receiver.
    pub(super) fn third(&self) -> Option<ShortId> {
        match &self.header.message {
            Message::PingReq { target: third, .. }
            | Message::IndirectAck { target: third, .. }
            | Message::IndirectPing { origin: third, .. }
            | Message::ForwardedAck { origin: third, .. } => Some(third.node),
            _ => None,
        }
    }
}
