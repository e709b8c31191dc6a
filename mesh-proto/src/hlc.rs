//! The hybrid logical clock: stamps that follow the wall clock and never go back.
//!
//! A stamp holds 48 bits of milliseconds since 1970 (good until the year 10889) above 16
//! bits of counter (Kulkarni et al., "Logical Physical Clocks", 2014).

use core::fmt;

use serde::{Deserialize, Serialize};

/// How far ahead of this node's clock a received stamp may be and still take effect.
pub const MAX_AHEAD_MS: u64 = 5_000;

/// A stamp: milliseconds since 1970 and a counter within the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hlc(u64);

impl Hlc {
    /// Below every stamp that is ever issued.
    pub const ZERO: Self = Self(0);

    /// The first stamp of a millisecond.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// Milliseconds since 1970.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The raw 64 bits, as stored and sent.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// A stamp from its raw bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.ms(), self.0 & 0xffff)
    }
}

/// The clock of one node: above every stamp it has issued or merged.
#[derive(Debug, Clone)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A clock that issues only stamps above `ceiling`, the highest this node ever persisted.
    pub const fn new(ceiling: Hlc) -> Self {
        Self { last: ceiling }
    }

    /// A new stamp, above all earlier ones and not before `now_ms`.
    pub fn issue(&mut self, now_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::from_ms(now_ms));
        self.last
    }

    /// Notes a stamp that took effect here, so that what is issued next lies above it.
    pub fn merge(&mut self, stamp: Hlc) {
        self.last = self.last.max(stamp);
    }

    /// The highest stamp issued or merged.
    pub const fn last(&self) -> Hlc {
        self.last
    }

    /// Whether the clock runs so far ahead of `now_ms` that peers would quarantine its stamps.
    pub const fn is_ahead(&self, now_ms: u64) -> bool {
        self.last.ms() > now_ms.saturating_add(MAX_AHEAD_MS)
    }

    /// Sets the clock back after a correction. Only legal together with a new generation:
    /// the stamps issued between `to` and now are void.
    pub fn reset(&mut self, to: Hlc) {
        self.last = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stamps_only_rise(steps in proptest::collection::vec((0u64..1 << 40, any::<bool>(), 0u64..1 << 40), 1..200)) {
            let mut clock = Clock::new(Hlc::ZERO);
            let mut highest = Hlc::ZERO;
            for (now, merge, other) in steps {
                if merge {
                    clock.merge(Hlc::from_ms(other));
                    highest = highest.max(Hlc::from_ms(other));
                } else {
                    let stamp = clock.issue(now);
                    prop_assert!(stamp > highest);
                    prop_assert!(stamp.ms() >= now);
                    highest = stamp;
                }
            }
        }
    }

    #[test]
    fn the_counter_overflows_into_the_next_millisecond() {
        let mut clock = Clock::new(Hlc::from_bits((7 << 16) | 0xffff));
        assert_eq!(clock.issue(7), Hlc::from_ms(8));
    }
}
