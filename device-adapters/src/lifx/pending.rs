//! Requests that may still be answered.

use std::time::Duration;

use tokio::time::Instant;

use super::wire::{Reply, Request};

/// How long an answer may take; what comes later is no answer any more. Shorter than the time in
/// which 256 sequence numbers are used up at 20 messages a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How long a question is left alone before it is asked again in the same read.
const IN_FLIGHT: Duration = Duration::from_millis(120);

/// A request that may still be answered.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    sequence: u8,
    /// What was sent.
    pub(crate) request: Request,
    /// When.
    pub(crate) at: Instant,
    /// For which part of the hardware, if it was for one.
    pub(crate) part: Option<usize>,
    /// That part's epoch when it was sent, for a read whose answer may be reported.
    pub(crate) epoch: Option<u64>,
    /// How many Sets had been sent to that part then (a Set counts itself).
    pub(crate) sets: u64,
}

impl Pending {
    /// What is asked of the hardware as a whole, at `at`.
    pub(crate) fn of_all(request: Request, at: Instant) -> Self {
        Self { sequence: 0, request, at, part: None, epoch: None, sets: 0 }
    }

    /// What is sent to a part of it, at `at`.
    pub(crate) fn of_part(part: usize, request: Request, at: Instant, epoch: Option<u64>, sets: u64) -> Self {
        Self { sequence: 0, request, at, part: Some(part), epoch, sets }
    }
}

/// All to one piece of hardware; never more than there are sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    sequence: u8,
    pending: Vec<Pending>,
}

impl Requests {
    /// Notes a request that is being sent; answers with its sequence number.
    pub(crate) fn add(&mut self, request: Pending) -> u8 {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.pending.retain(|pending| pending.sequence != sequence);
        self.pending.push(Pending { sequence, ..request });
        sequence
    }

    /// The request that this answers. Zones come in several answers to one question, which stays open.
    pub(crate) fn answered_by(&mut self, sequence: u8, reply: &Reply) -> Option<Pending> {
        let is_it = |p: &Pending| p.sequence == sequence && p.request.is_answered_by(reply);
        let index = self.pending.iter().position(is_it)?;
        if matches!(reply, Reply::StateZones { .. } | Reply::State64 { .. }) {
            return self.pending.get(index).cloned();
        }
        Some(self.pending.swap_remove(index))
    }

    /// Whether the same was asked in this epoch so shortly ago that the answer is on its way.
    pub(crate) fn is_in_flight(&self, now: Instant, request: &Request, epoch: u64) -> bool {
        let just = |p: &&Pending| p.epoch == Some(epoch) && p.at + IN_FLIGHT > now;
        self.pending.iter().filter(just).any(|p| p.request == *request)
    }

    /// Forgets what will not be answered any more.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.pending.retain(|pending| pending.at + ANSWER_WITHIN > now);
    }
}
