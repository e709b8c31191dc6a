//! This node's idea of the time of day, and its stamps.

use crate::hlc::{Clock, Hlc, MAX_AHEAD_MS};

/// A reading of the caller's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub mono_ms: u64,
    /// The wall clock, in milliseconds since 1970; may be wrong and may jump.
    pub wall_ms: u64,
}

/// Clocks that differ by less than this are left alone, in milliseconds.
const TOLERANCE_MS: u64 = 1_000;

/// Wall clock, correction and stamps.
#[derive(Debug)]
pub struct TimeKeeper {
    clock: Clock,
    synchronised: bool,
    /// Whether the time of day was taken from a peer that relied on its own.
    vouched: bool,
    /// While the wall clock is not known to be right, its steps mean nothing: the time of day
    /// is counted from here, (monotonic, time of day).
    anchor: (u64, u64),
}

impl TimeKeeper {
    /// Boots at the latest of the wall clock, the persisted ceiling and the build time, unless
    /// the wall clock is known to be right.
    pub fn new(now: Now, ceiling: Hlc, build_ms: u64, synchronised: bool) -> Self {
        let at_least = ceiling.ms().max(build_ms);
        let anchor = (now.mono_ms, at_least.max(now.wall_ms));
        Self { clock: Clock::new(ceiling), synchronised, vouched: false, anchor }
    }

    /// The time of day, in milliseconds since 1970.
    pub fn time_ms(&self, now: Now) -> u64 {
        if self.synchronised {
            return now.wall_ms;
        }
        self.anchor.1.saturating_add(now.mono_ms.saturating_sub(self.anchor.0))
    }

    /// Whether the time of day is known to be right.
    pub fn is_synchronised(&self) -> bool {
        self.synchronised
    }

    /// Notes whether the wall clock is known to be right.
    pub fn set_synchronised(&mut self, now: Now, synchronised: bool) {
        // As at a start: a clock that may be wrong does not go back behind its own stamps.
        self.anchor = (now.mono_ms, self.time_ms(now).max(self.clock.last().ms()));
        self.synchronised = synchronised;
    }

    /// Whether peers may rely on this time of day: it is known to be right, or was taken from
    /// one who said so.
    pub fn is_trusted(&self) -> bool {
        self.synchronised || self.vouched
    }

    /// Compares with a peer. A node that relies on nothing yet adopts the time of a peer that
    /// does; of two that are alike in this, the one behind adopts the other's. Returns whether
    /// the time of day or the reliance on it changed, so that other peers are to be told.
    pub fn compare(&mut self, now: Now, peer_ms: u64, peer_trusted: bool) -> bool {
        if self.synchronised {
            return false;
        }
        let own = self.time_ms(now);
        let is_alike = self.vouched == peer_trusted;
        let news = peer_trusted && !self.vouched;
        let differs = own.abs_diff(peer_ms) > TOLERANCE_MS;
        let adopts = differs && (news || (is_alike && peer_ms > own));
        if adopts {
            self.anchor = (now.mono_ms, peer_ms);
        }
        self.vouched |= peer_trusted;
        adopts || news
    }

    /// A new stamp.
    pub fn issue(&mut self, now: Now) -> Hlc {
        self.clock.issue(self.time_ms(now))
    }

    /// A new stamp for a write made again after a correction. It keeps as much of its old
    /// stamp as peers let take effect, so that it still beats what it had beaten.
    pub fn issue_again(&mut self, now: Now, old: Hlc) -> Hlc {
        let latest = Hlc::from_ms(self.time_ms(now) + MAX_AHEAD_MS - TOLERANCE_MS);
        self.clock.merge(old.min(latest));
        self.issue(now)
    }

    /// Notes a stamp that took effect.
    pub fn merge(&mut self, stamp: Hlc) {
        self.clock.merge(stamp);
    }

    /// The highest stamp issued or merged.
    pub fn last(&self) -> Hlc {
        self.clock.last()
    }

    /// Whether the stamps run so far ahead of the time of day that peers hold them back.
    pub fn is_ahead(&self, now: Now) -> bool {
        self.clock.is_ahead(self.time_ms(now) + TOLERANCE_MS)
    }

    /// Sets the stamps back to the time of day. Returns the stamp after which everything the
    /// closing generation wrote is void.
    pub fn reset(&mut self, now: Now) -> Hlc {
        let to = Hlc::from_ms(self.time_ms(now));
        self.clock.reset(to);
        to
    }
}
