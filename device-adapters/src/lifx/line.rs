//! The way to a piece of hardware: every message to it goes through here, at the pace that it bears.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::output::{Output, Transmit};
use super::pace::Pace;
use super::pending::{Pending, Requests};
use super::wire::{self, Reply, Request, Serial};

/// The way to a piece of hardware, which all of its parts share.
#[derive(Debug)]
pub(crate) struct Line {
    serial: Serial,
    source: u32,
    /// Where it is spoken to.
    pub(crate) addr: SocketAddr,
    pace: Pace,
    requests: Requests,
}

impl Line {
    /// Nothing was sent yet.
    pub(crate) fn new(serial: Serial, source: u32, addr: SocketAddr, now: Instant) -> Self {
        Self { serial, source, addr, pace: Pace::new(now), requests: Requests::default() }
    }

    /// When the next message may be sent; may lie in the past.
    pub(crate) fn ready(&self) -> Instant {
        self.pace.ready()
    }

    /// Sends a request now.
    pub(crate) fn send(&mut self, request: Pending, out: &mut Output) {
        self.pace.spend(request.at);
        let message = request.request.clone();
        let sequence = self.requests.add(request);
        let bytes = wire::encode(self.source, self.serial, sequence, &message);
        out.transmits.push_back(Transmit { to: self.addr, bytes });
    }

    /// The request that an answer from `from` belongs to.
    pub(crate) fn answered_by(
        &mut self,
        now: Instant,
        from: SocketAddr,
        sequence: u8,
        reply: &Reply,
    ) -> Option<Pending> {
        self.forget_old(now);
        if from.ip() != self.addr.ip() {
            return None;
        }
        self.requests.answered_by(sequence, reply)
    }

    /// Whether the same was asked in this epoch so shortly ago that the answer is on its way.
    pub(crate) fn is_in_flight(&self, now: Instant, request: &Request, epoch: u64) -> bool {
        self.requests.is_in_flight(now, request, epoch)
    }

    /// Forgets what will not be answered any more.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.requests.forget_old(now);
    }
}
